"""Who may come in: networks, proxies, origins, and limits of addresses and users."""

import asyncio
import json
import os
import random
import re

from cases_config import File, reloaded
from support import (
    PATIENCE_S, Client, Raw, case, count, counted, fresh, handshake, token, until,
)

# Nobody is exempt, and what is not set here does not bite.
LIMITED = {"RINGROOM_NETWORK__UNLIMITED": "", "RINGROOM_NETWORK__ATTEMPTS_MS": "3600000", "RINGROOM_NETWORK__FAILURES_MS": "3600000"}
STRANGER, NEIGHBOUR, PROXY = "127.9.0.1", "127.9.0.2", "127.7.0.1"


async def come(gateway, address, bytes=None):
    """A socket of that address, and what it says at first."""
    raw = Raw(*await asyncio.open_connection(gateway.host, gateway.port, local_addr=(address, 0)))
    if bytes is not None:
        raw.write(bytes)
    return raw


async def status(gateway, address=STRANGER, jwt=None, **headers):
    """What an upgrade from that address is answered; the connection ends."""
    raw = await come(gateway, address, handshake(gateway, jwt or token(fresh("user")), **headers))
    line = (await raw.head()).split("\r\n")[0]
    raw.drop()
    return int(line.split()[1])


async def limited(gateway, address, limit, jwt=None, **headers):
    """Is refused for this limit, and told when to come again."""
    raw = await come(gateway, address, handshake(gateway, jwt or token(fresh("user")), **headers))
    code, text = await raw.answer()
    assert code == 429, text
    error = json.loads(text.split("\r\n\r\n", 1)[1])["error"]
    assert error["code"] == "rate_limited" and error["limit"] == limit and error["message"], error
    wait_s = int(re.search(r"\r\nRetry-After: (\d+)\r\n", text)[1])
    assert (wait_s - 1) * 1_000 < error["retry_after_ms"] <= wait_s * 1_000, text
    raw.drop()


@case(both_ios=True)
async def a_page_of_another_host_is_refused_with_403(gateway):
    own = f"http://{gateway.host}:{gateway.port}"
    for origin in (own, own.upper().replace("HTTP", "http")):
        assert await status(gateway, Origin=origin) == 101, origin
    async with counted(gateway, "refused.origin", 6):
        for origin in ("https://evil.example", "null", own + ".evil.example", f"http://{gateway.host}", own + "/", [own, own]):
            raw = await come(gateway, STRANGER, handshake(gateway, token("eve"), Origin=origin))
            code, text = await raw.answer()
            assert code == 403 and '"code":"forbidden"' in text and "network.origins" in text, (origin, text)
            raw.drop()
    assert await status(gateway) == 101, "who is no browser names no origin"


@case(own=True)
async def listed_pages_may_come_and_cookies_never_count_for_any_page(start):
    gateway = await start(RINGROOM_NETWORK__ORIGINS="https://app.example, https://*.shop.example")
    for origin, code in (
        ("https://app.example", 101), ("https://APP.example:443", 101), ("https://a.shop.example", 101),
        ("https://evil-app.example", 403), ("https://app.example.", 403), ("http://app.example", 403),
        ("https://user@app.example", 403), ("https://shop.example", 403), (f"http://{gateway.host}:{gateway.port}", 403),
    ):
        assert await status(gateway, Origin=origin) == code, origin
        cookie = {"Cookie": f"token={token('ada')}"}
        raw = await come(gateway, STRANGER, handshake(gateway, None, Origin=origin, **cookie))
        assert (await raw.head()).startswith(f"HTTP/1.1 {code}"), origin
        raw.drop()
    gateway = await start(RINGROOM_NETWORK__ORIGINS="any, same-host")
    for origin, code in (("https://evil.example", 403), (f"http://{gateway.host}:{gateway.port}", 101)):
        assert await status(gateway, Origin=origin) == 101, origin
        raw = await come(gateway, STRANGER, handshake(gateway, None, Origin=origin, Cookie=f"token={token('ada')}"))
        assert (await raw.head()).startswith(f"HTTP/1.1 {code}"), origin
        raw.drop()


@case(own=True, both_ios=True)
async def an_address_that_comes_too_often_is_told_when_to_come_again(start):
    gateway = await start(RINGROOM_NETWORK__ATTEMPTS="5", **LIMITED)
    for _ in range(5):
        assert await status(gateway) == 101
    async with counted(gateway, "refused.attempts", 3):
        for _ in range(3):
            await limited(gateway, STRANGER, "network.attempts")
    assert await status(gateway, NEIGHBOUR) == 101, "nobody pays for others"
    # Refused before a byte of it was heard.
    silent = await come(gateway, STRANGER)
    assert (await silent.answer())[0] == 429
    silent.drop()


@case(own=True)
async def this_machine_is_not_limited_unless_it_is_said_so(start):
    gateway = await start(RINGROOM_NETWORK__ATTEMPTS="3", RINGROOM_NETWORK__FAILURES="3")
    for _ in range(10):
        assert await status(gateway) == 101
        assert await status(gateway, jwt="not.a.token") == 101, "and then 4401"


@case(own=True, both_ios=True)
async def bad_tokens_are_looked_at_a_few_times_and_good_ones_never_count(start):
    gateway = await start(RINGROOM_NETWORK__FAILURES="3", **LIMITED)
    for _ in range(10):
        assert await status(gateway) == 101
    forged = token("eve", secret="another secret of at least 32 bytes, no?")
    async with counted(gateway, "refused.token_wrong_signature", 3):
        for _ in range(3):
            raw = await come(gateway, STRANGER, handshake(gateway, forged))
            assert (await raw.head()).startswith("HTTP/1.1 101 ")
            assert (await raw.closed())[0] == 4401
            raw.drop()
    before = count(await gateway.stats(), "refused.token_wrong_signature")
    async with counted(gateway, "refused.failures", 4):
        for jwt in (forged, "nonsense", forged, None):
            await limited(gateway, STRANGER, "network.failures", jwt)
    assert count(await gateway.stats(), "refused.token_wrong_signature") == before, "no signature was looked at"
    assert await status(gateway, NEIGHBOUR) == 101


@case(own=True, both_ios=True)
async def networks_that_are_denied_are_cut_before_a_byte_is_read(start):
    gateway = await start(
        RINGROOM_NETWORK__ALLOW="127.0.0.0/8", RINGROOM_NETWORK__DENY="127.9.0.0/24", RINGROOM_NETWORK__TRUSTED_PROXIES=PROXY,
    )
    async with counted(gateway, "refused.network"):
        raw = await come(gateway, STRANGER)
        try:
            assert await asyncio.wait_for(raw.reader.read(-1), PATIENCE_S) == b""
        except ConnectionResetError:
            pass
        raw.drop()
    assert await status(gateway, "127.9.1.1") == 101
    # Behind a proxy it is the client that counts.
    for client, code in ((STRANGER, 403), ("192.0.2.1", 403), ("127.9.1.1", 101), (f"127.9.1.1, {STRANGER}", 403), (f"{STRANGER}, 127.9.1.1", 101)):
        assert await status(gateway, PROXY, X_Forwarded_For=client) == code, client


@case(own=True)
async def only_proxies_that_are_listed_say_whose_a_request_is(start):
    gateway = await start(
        RINGROOM_NETWORK__TRUSTED_PROXIES="127.7.0.0/16", RINGROOM_NETWORK__DENY="192.0.2.0/24", RINGROOM_NETWORK__ATTEMPTS="3", **LIMITED,
    )
    for denied in ("192.0.2.9", "192.0.2.9:4711", "[::ffff:192.0.2.9]:80", "10.0.0.1, 192.0.2.9", "nonsense, 192.0.2.9, 127.7.9.9"):
        assert await status(gateway, PROXY, X_Forwarded_For=denied) == 403, denied
    assert await status(gateway, STRANGER, X_Forwarded_For="192.0.2.9") == 101, "a stranger's word counts for nothing"
    # Every client of the proxy has its own allowance, whatever it writes in front.
    for client in ("198.51.100.1", "2001:db8:1:1::1"):
        for n in range(3):
            assert await status(gateway, PROXY, X_Forwarded_For=f"10.0.0.{n}, {client}") == 101
        await limited(gateway, PROXY, "network.attempts", X_Forwarded_For=f"10.9.9.9, {client}")
    await limited(gateway, PROXY, "network.attempts", X_Forwarded_For="2001:db8:1:1:ffff::2")
    async with counted(gateway, "forwarded_malformed"):
        assert await status(gateway, PROXY, X_Forwarded_For="unknown") == 101
    # What is not encrypted on the way to the proxy is another origin than what is.
    page = {"Host": "chat.example", "Origin": "http://chat.example", "X_Forwarded_For": "198.51.100.7"}
    assert await status(gateway, PROXY, **page, X_Forwarded_Proto="https") == 403
    assert await status(gateway, PROXY, **page, X_Forwarded_Proto="http") == 101


@case(own=True)
async def forwarded_says_it_where_the_operator_says_that_proxies_write_it(start):
    chosen = {"RINGROOM_NETWORK__TRUSTED_PROXIES": "127.7.0.0/16", "RINGROOM_NETWORK__DENY": "192.0.2.0/24,2001:db8::/32"}
    gateway = await start(RINGROOM_NETWORK__FORWARDED_HEADER="forwarded", **chosen)
    spoofed = {"X_Forwarded_For": "192.0.2.9", "X_Forwarded_Proto": "http"}
    for denied in (
        "for=192.0.2.9", 'For="192.0.2.9:4711";proto=https', 'for="[2001:db8::1]"', "for=198.51.100.1, for=192.0.2.9", 'for="198.51.100.1, for=192.0.2.9',
        ["for=198.51.100.1", "proto=http;for=192.0.2.9", "for=127.7.9.9"], 'host="a\\",for=198.51.100.1";for=192.0.2.9', "\xff, for=192.0.2.9",
    ):
        assert await status(gateway, PROXY, Forwarded=denied) == 403, denied
    for served in ("for=198.51.100.1", "for=192.0.2.9, for=198.51.100.1", ["for=192.0.2.9", "for=198.51.100.1"]):
        assert await status(gateway, PROXY, Forwarded=served, **spoofed) == 101, served
    assert await status(gateway, STRANGER, Forwarded="for=192.0.2.9") == 101, "a stranger's word counts for nothing"
    async with counted(gateway, "forwarded_malformed", 4):
        for unclear in ("for=unknown", "for=_hidden", "proto=https", 'for="192.0.2.9'):
            assert await status(gateway, PROXY, Forwarded=unclear) == 101, unclear
    page = {"Host": "chat.example", "Origin": "http://chat.example"}
    for said, code in (("for=198.51.100.7;proto=https", 403), ("for=198.51.100.7;proto=http, for=127.7.9.9;proto=https", 101)):
        assert await status(gateway, PROXY, **page, Forwarded=said) == code, said
    # The other one is a client's own there.
    gateway = await start(**chosen)
    assert await status(gateway, PROXY, Forwarded="for=192.0.2.9") == 101
    assert await status(gateway, PROXY, X_Forwarded_For="192.0.2.9", Forwarded="for=198.51.100.1") == 403
    raw = await come(gateway, PROXY, handshake(gateway, token("eve"), X_Forwarded_For="\xff, 192.0.2.9").encode("latin-1"))
    assert (await raw.head()).startswith("HTTP/1.1 403 "), "bytes that are no text"
    raw.drop()


@case(own=True, both_ios=True)
async def a_request_that_comes_a_byte_at_a_time_has_an_end(start):
    gateway = await start(RINGROOM_LIMITS__HANDSHAKE_MS="1000")
    raw = await come(gateway, STRANGER, "GET /ws HTTP/1.1\r\n")

    async def drip():
        try:
            while True:
                raw.write("a")
                await raw.writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass

    dripping = asyncio.create_task(drip())
    async with counted(gateway, "refused.handshake_time"):
        try:
            assert await asyncio.wait_for(raw.reader.read(-1), PATIENCE_S) == b""
        except ConnectionResetError:
            pass
    dripping.cancel()
    raw.drop()


@case(own=True, both_ios=True)
async def half_open_sockets_of_an_address_make_room_for_its_next(start):
    gateway = await start(RINGROOM_NETWORK__HALF_OPEN="8", RINGROOM_NETWORK__ATTEMPTS="unlimited", **LIMITED)
    other = await come(gateway, NEIGHBOUR, "GET /ws HT")
    crowd = [await come(gateway, STRANGER, "GET /ws HT") for _ in range(40)]

    async def is_bounded():
        return (await gateway.stats())["handshakes_now"] <= 11

    # Theirs, the other's, and one at each shard that found none of its address there.
    await until(is_bounded, "the half-open sockets to go")
    assert count(await gateway.stats(), "refused.half_open") >= 30
    for _ in range(3):
        assert await status(gateway, NEIGHBOUR) == 101
    # The stranger's house has somebody who means well.
    opened = [await status(gateway) for _ in range(3)]
    assert opened == [101] * 3
    other.write("TP/1.1\r\nHost: x\r\n\r\n")
    assert (await other.answer())[0] == 426, "whoever waits at another address was left alone"
    for raw in (other, *crowd):
        raw.drop()


@case(own=True, both_ios=True)
async def a_user_has_as_many_connections_as_it_may(start):
    gateway = await start(RINGROOM_LIMITS__CONNS_PER_USER="3")
    clients = [await Client.open(gateway, "ada") for _ in range(3)]
    bob = await Client.open(gateway, "bob")
    async with counted(gateway, "refused.conns_per_user", 4):
        for _ in range(4):
            late = await Client.open(gateway, "ada", ready=False)
            code, reason = await late.until_closed()
            assert code == 4429 and "conns_per_user" in reason, (code, reason)
    other_tenant = await Client.open(gateway, "ada", tenant="other")
    await clients.pop().close()

    async def is_in():
        client = await Client.open(gateway, "ada", ready=False)
        await until(lambda: client.closed or client.waiting("connected"), "an answer")
        clients.append(client)
        return not client.closed

    await until(is_in, "the place of the one that left")
    for client in (*clients, bob, other_tenant):
        await client.close()


@case(own=True)
async def a_user_that_connects_too_often_is_closed_with_4429_and_told_when(start):
    gateway = await start(RINGROOM_LIMITS__ATTEMPTS_PER_USER="3", RINGROOM_LIMITS__ATTEMPTS_PER_USER_MS="3600000")
    for _ in range(3):
        await (await Client.open(gateway, "ada")).close()
    late = await Client.open(gateway, "ada", ready=False)
    code, reason = await late.until_closed()
    assert code == 4429 and re.search(r"retry_ms=\d+", reason), (code, reason)
    await (await Client.open(gateway, "bob")).close()


@case(own=True)
async def an_address_has_as_many_connections_as_it_may(start):
    gateway = await start(RINGROOM_NETWORK__CONNS_PER_ADDRESS="2", **LIMITED)
    held = []
    for _ in range(2):
        raw = await come(gateway, STRANGER, handshake(gateway, token(fresh("user"))))
        assert (await raw.head()).startswith("HTTP/1.1 101 ")
        held.append(raw)
    await limited(gateway, STRANGER, "network.conns_per_address")
    assert await status(gateway, NEIGHBOUR) == 101
    held[0].drop()

    async def is_free():
        return await status(gateway) == 101

    await until(is_free, "the place of the one that left")
    held[1].drop()


@case(own=True, both_ios=True)
async def a_reload_changes_who_may_come_and_closes_nobody(start):
    with File("") as file:
        gateway = await start("--config", file.path)
        ada = await Client.open(gateway, "ada")
        file.write("[network]\ndeny = '127.9.0.0/24'\norigins = 'https://app.example'\nunlimited = ''\nattempts = 2\nattempts_ms = 3600000\n[limits]\nconns_per_user = 1\n")
        await reloaded(gateway, "reloaded: network.deny, network.unlimited, network.origins, network.attempts")

        async def is_told():
            raw = await come(gateway, STRANGER)
            try:
                # Each shard hears of it by itself.
                gone = await asyncio.wait_for(raw.reader.read(-1), 0.2) == b""
            except (asyncio.TimeoutError, ConnectionResetError) as error:
                gone = isinstance(error, ConnectionResetError)
            raw.drop()
            return gone

        await until(is_told, "the network to be denied")
        await ada.settled()
        file.write("[network]\nattempts = 0\n")
        log = await reloaded(gateway, "not reloaded")
        assert "network.attempts" in log, log
        file.write("")
        await reloaded(gateway, "reloaded: network.deny")

        async def is_let_in():
            try:
                return await status(gateway) == 101
            except (ConnectionError, asyncio.IncompleteReadError):
                return False

        await until(is_let_in, "the network to be served again")
        await ada.settled()
        assert ada.closed is None
        await ada.close()


@case(own=True)
async def whatever_is_said_of_where_it_comes_from_is_survived(start):
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"     seed {seed}", flush=True)
    rng = random.Random(seed)
    gateway = await start(RINGROOM_NETWORK__TRUSTED_PROXIES="127.7.0.0/16,10.0.0.0/8", RINGROOM_NETWORK__DENY="192.0.2.0/24")
    parts = ["192.0.2.1", "10.0.0.1", "2001:db8::1", "[2001:db8::1]:443", "::ffff:10.0.0.3", "unknown", "", " ", ",", ":", "[", "]", "%", "\t", "\xff", "9" * 40, "1.2.3.4:99999"]
    origins = ["http://", "https://", "null", "chat.example", "@", ":", "443", ".", "/", "*", "[::1]", "\xe9", "%2e", " "]
    served = 0
    for _ in range(300):
        address = rng.choice((STRANGER, PROXY))
        lines = handshake(gateway, token("ada")).removesuffix("\r\n")
        client = rng.choice(("198.51.100.1", "192.0.2.7", None))
        for _ in range(rng.randrange(4)):
            lines += f"X-Forwarded-For: {','.join(rng.choice(parts) for _ in range(rng.randrange(6)))}\r\n"
        if client:
            lines += f"X-Forwarded-For: {client}\r\n"
        is_page = rng.random() < 0.3
        if is_page:
            lines += f"Origin: {''.join(rng.choice(origins) for _ in range(rng.randrange(1, 5)))}\r\n"
        raw = await come(gateway, address, (lines + "\r\n").encode("latin-1"))
        head = (await raw.head()).split("\r\n")[0]
        raw.drop()
        code = int(head.split()[1])
        assert code in (101, 400, 403), (seed, lines, head)
        if address == PROXY and client == "192.0.2.7" and code != 400:
            assert code == 403, (seed, lines)
        if address == STRANGER and not is_page and code != 400:
            assert code == 101, (seed, lines)
        served += code == 101
    assert served > 50, (seed, served)
    await (await Client.open(gateway, "ada")).close()
