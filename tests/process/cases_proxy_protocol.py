"""The PROXY protocol: whose connection it is, as listed proxies say before anything else. The headers are made here,
byte by byte, from the protocol's text."""

import asyncio
import ipaddress
import json
import os
import random
import socket
import ssl
import struct

from cases_config import File, reloaded
from cases_network import LIMITED, NEIGHBOUR, PROXY, STRANGER, come
from support import PATIENCE_S, Raw, case, count, counted, fresh, handshake, token, until
from tls_door import secured

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
SPOKEN = {"RINGROOM_NETWORK__TRUSTED_PROXIES": "127.7.0.0/16", "RINGROOM_NETWORK__PROXY_PROTOCOL": "true"}
CLIENT, OTHER, DENIED = "192.0.2.1", "2001:db8:1:2::1", "198.51.100.9"
SSL, CRC32C, NOOP, AUTHORITY = 0x20, 0x03, 0x04, 0x02
LOCAL, AS_PROXY = 0x20, 0x21


def line(client, port=4711):
    """Version 1."""
    family = "TCP4" if ipaddress.ip_address(client).version == 4 else "TCP6"
    return f"PROXY {family} {client} {client} {port} 443\r\n".encode()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def field(kind, value):
    return bytes([kind]) + struct.pack("!H", len(value)) + value


def binary(client=None, fields=b"", command=AS_PROXY, family=None, summed=False):
    """Version 2."""
    addresses = b""
    if client:
        packed = ipaddress.ip_address(client).packed
        family = family or (0x11 if len(packed) == 4 else 0x21)
        addresses = packed + packed + struct.pack("!HH", 4711, 443)
    behind = addresses + fields + (field(CRC32C, bytes(4)) if summed else b"")
    header = SIGNATURE + bytes([command, family or 0]) + struct.pack("!H", len(behind)) + behind
    return header[:-4] + struct.pack("!I", crc32c(header)) if summed else header


def as_tls(client, spoke=1):
    return binary(client, field(SSL, bytes([spoke, 0, 0, 0, 0]) + field(0x21, b"TLSv1.3")))


async def status(gateway, header, address=PROXY, jwt=None, **headers):
    """What an upgrade is answered behind `header`; `None`: nothing."""
    raw = await come(gateway, address, header + handshake(gateway, jwt or token(fresh("user")), **headers).encode())
    try:
        return int((await raw.head()).split()[1])
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return None
    finally:
        raw.drop()


@case(own=True, both_ios=True)
async def headers_of_both_versions_say_whose_a_connection_is(start):
    gateway = await start(RINGROOM_NETWORK__DENY=f"{DENIED},{OTHER}", **SPOKEN)
    for served in (
        line(CLIENT), line("2001:db8::1"), binary(CLIENT), binary("2001:db8::1"), binary(CLIENT, summed=True),
        binary(CLIENT, field(NOOP, b"pad") + field(AUTHORITY, b"chat.example"), summed=True), binary(CLIENT, family=0x12),
        binary(CLIENT, field(NOOP, bytes(4096 - 12 - 3))),
    ):
        assert await status(gateway, served) == 101, served
    async with counted(gateway, "refused.network", 8):
        for denied in (
            line(DENIED), line(OTHER), line(f"::ffff:{DENIED}"), binary(DENIED), binary(OTHER), binary(f"::ffff:{DENIED}"),
            binary(DENIED, summed=True), as_tls(DENIED),
        ):
            assert await status(gateway, denied) is None, denied
    # Who is no proxy has no header, and what it says of itself counts for nothing.
    assert await status(gateway, b"", STRANGER) == 101
    assert await status(gateway, b"", STRANGER, X_Forwarded_For=DENIED) == 101
    # A client that was named is no proxy either.
    assert await status(gateway, binary(CLIENT), X_Forwarded_For=DENIED) == 101
    assert await status(gateway, binary("127.7.9.9"), X_Forwarded_For=DENIED) == 403, "one proxy behind another"


@case(own=True, both_ios=True)
async def a_proxy_speaks_for_itself_with_local_and_without_an_address(start):
    gateway = await start(RINGROOM_NETWORK__DENY=DENIED, **SPOKEN)
    for header in (
        b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff:f::1 whatever 1 2\r\n", binary(command=LOCAL), binary(DENIED, command=LOCAL),
        binary(), binary(fields=bytes(216), family=0x31), binary(fields=b"skipped", command=LOCAL, family=0xEE),
    ):
        assert await status(gateway, header) == 101, header
        # It is still a proxy, whose requests say whose they are.
        assert await status(gateway, header, X_Forwarded_For=DENIED) == 403, header


@case(own=True, both_ios=True)
async def a_header_may_come_byte_by_byte_and_takes_nothing_of_what_follows(start):
    gateway = await start(**SPOKEN)
    for header in (line(CLIENT), as_tls("2001:db8::1")):
        user = fresh("slowly")
        raw = await come(gateway, PROXY)
        raw.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        before = count(await gateway.stats(), "opened")
        for byte in header + handshake(gateway, token(user)).encode():
            raw.write(bytes([byte]))
            await raw.writer.drain()
            await asyncio.sleep(0)
        assert (await raw.head()).startswith("HTTP/1.1 101 ")
        connected = await raw.message()
        assert connected["event"] == "connected" and connected["data"]["user"] == user, connected
        assert count(await gateway.stats(), "opened") == before + 1
        raw.drop()


@case(own=True, both_ios=True)
async def what_is_no_header_is_refused_and_never_guessed(start):
    gateway = await start(RINGROOM_LIMITS__HANDSHAKE_MS="1500", **SPOKEN)
    broken = binary(CLIENT, summed=True)
    wrong = [
        b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"PROXY TCP4 192.0.2.1 192.0.2.1 4711\r\n", b"PROXY TCP4 192.0.2.1 192.0.2.1 4711 443\n",
        b"PROXY UNKNOWN " + b"x" * 94 + b"\r\n", b"PROXY TCP6 192.0.2.1 192.0.2.1 4711 443\r\n", b"PROXY  TCP4 192.0.2.1 192.0.2.1 1 2\r\n",
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12), SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11), SIGNATURE + b"\x21\x13\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x10\x01" + bytes(4097), broken[:-1] + bytes([broken[-1] ^ 1]),
        binary(CLIENT, b"\x04\x00"), binary(CLIENT, b"\x04\xff\xff"), binary(CLIENT, field(SSL, b"\x01")),
    ]
    async with counted(gateway, "refused.proxy_header", len(wrong)):
        for header in wrong:
            assert await status(gateway, header) == 400, header
    # Half a header and the end, or nothing more.
    for header in (line(CLIENT), binary(CLIENT)):
        raw = await come(gateway, PROXY, header[:-3])
        raw.writer.write_eof()
        assert await asyncio.wait_for(raw.reader.read(), PATIENCE_S) == b""
        raw.drop()
    async with counted(gateway, "refused.handshake_time"):
        raw = await come(gateway, PROXY, line(CLIENT)[:-3])
        try:
            assert await asyncio.wait_for(raw.reader.read(), PATIENCE_S) == b""
        except ConnectionResetError:
            pass
        raw.drop()
    # A stranger's is a bad request head.
    async with counted(gateway, "refused.head", 2):
        assert await status(gateway, line(CLIENT), STRANGER) in (400, 505)
        assert await status(gateway, binary(CLIENT), STRANGER) == 400
    assert await status(gateway, line(CLIENT)) == 101


@case(own=True, both_ios=True)
async def limits_are_those_of_the_client_that_is_named(start):
    gateway = await start(RINGROOM_NETWORK__ATTEMPTS="3", RINGROOM_NETWORK__FAILURES="2", RINGROOM_NETWORK__HALF_OPEN="4", **SPOKEN, **LIMITED)
    for nth, make in enumerate((line, binary)):
        for client in (f"192.0.2.{nth}", f"2001:db8:1:{nth}::1"):
            assert [await status(gateway, make(client)) for _ in range(5)] == [101] * 3 + [429] * 2, client
        assert await status(gateway, make(f"2001:db8:1:{nth}::2")) == 429, "the same /64"
    forged = token("eve", secret="another secret of at least 32 bytes, no?")
    async with counted(gateway, "refused.failures"):
        assert [await status(gateway, binary("192.0.2.50"), jwt=forged) for _ in range(3)] == [101, 101, 429]
    assert await status(gateway, binary("192.0.2.51"), jwt=forged) == 101
    # Those of Socket.IO too, whose connections keep their address elsewhere.
    assert await refused_in_a_namespace(gateway, "192.0.2.60", forged) == [None, None, 429]
    assert await refused_in_a_namespace(gateway, "192.0.2.61", forged) == [None, None, 429]


async def refused_in_a_namespace(gateway, client, jwt):
    answers = []
    for _ in range(3):
        path = "/socket.io/?EIO=4&transport=websocket"
        raw = await come(gateway, PROXY, binary(client) + handshake(gateway, path=path).encode())
        status = int((await raw.head()).split()[1])
        answers.append(None if status == 101 else status)
        if status == 101:
            await raw.receive()
            raw.frame(1, b'40{"token":"%s"}' % jwt.encode())
            opcode, packet = await raw.receive()
            assert packet.startswith(b"44{"), packet
        raw.drop()
    return answers


@case(own=True, both_ios=True)
async def half_open_sockets_count_by_the_client_that_is_named(start):
    gateway = await start(RINGROOM_NETWORK__HALF_OPEN="8", RINGROOM_NETWORK__ATTEMPTS="unlimited", **SPOKEN, **LIMITED)
    other = await come(gateway, PROXY, line(OTHER) + b"GET /ws HT")
    crowd = [await come(gateway, PROXY, line(CLIENT) + b"GET /ws HT") for _ in range(40)]

    async def is_bounded():
        return (await gateway.stats())["handshakes_now"] <= 11

    await until(is_bounded, "the half-open sockets to go")
    assert count(await gateway.stats(), "refused.half_open") >= 30
    other.write("TP/1.1\r\nHost: x\r\n\r\n")
    assert (await other.answer())[0] == 426, "whoever waits with another address was left alone"
    assert await status(gateway, line(CLIENT)) == 101
    for raw in (other, *crowd):
        raw.drop()


@case(own=True)
async def a_field_says_whether_a_page_came_encrypted(start):
    gateway = await start(**SPOKEN)
    page = {"Host": "chat.example", "Origin": "https://chat.example"}
    assert await status(gateway, as_tls(CLIENT), **page) == 101
    assert await status(gateway, as_tls(CLIENT, spoke=0), **page) == 403
    assert await status(gateway, as_tls(CLIENT), **{**page, "Origin": "http://chat.example"}) == 403
    assert await status(gateway, as_tls(CLIENT), **page, X_Forwarded_Proto="http") == 101, "the client's own word"
    assert await status(gateway, line(CLIENT), **page) == 101, "nothing is said of it"


@case(own=True, both_ios=True)
async def polling_over_a_connection_that_was_named_once_goes_on(start):
    """Requests of one session over two connections of the proxy, on whichever shards: each is named once."""
    gateway = await start(shards=2, RINGROOM_NETWORK__DENY=DENIED, RINGROOM_NETWORK__ATTEMPTS="2", **SPOKEN, **LIMITED)
    path = "/socket.io/?EIO=4&transport=polling"

    async def ask(raw, more="", method="GET", body=""):
        length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""
        raw.write(f"{method} {path}{more} HTTP/1.1\r\nHost: h\r\n{length}\r\n{body}")
        head = await raw.head()
        length = int(next(line.split(":")[1] for line in head.split("\r\n") if line.lower().startswith("content-length")))
        return int(head.split()[1]), (await asyncio.wait_for(raw.reader.readexactly(length), PATIENCE_S)).decode()

    one, other = [await come(gateway, PROXY, make(CLIENT)) for make in (line, binary)]
    code, body = await ask(one)
    assert code == 200, body
    sid = f"&sid={json.loads(body[1:])['sid']}"
    for raw in (one, other, one, other):
        assert await ask(raw, sid, "POST", "40") == (200, "ok")
        code, body = await ask(raw, sid)
        assert code == 200 and body, body
    assert (await ask(one))[0] == 429, "two connections came, and a second session is one more attempt"
    for raw in (one, other):
        raw.drop()


async def asked_over_tls(door, pieces, request, address=PROXY, **speech):
    """What is answered to `request` over TLS behind `pieces` of a header, of which the last is in one segment with
    the handshake's beginning: the answer's head at least. `None`: not even the handshake."""
    raw = await come(door, address)
    raw.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = door.authority.context(**speech).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    *before, last = pieces
    for piece in before:
        raw.write(piece)
        await raw.writer.drain()
        await asyncio.sleep(0)

    async def pump(act):
        nonlocal last
        while True:
            try:
                return act()
            except ssl.SSLWantReadError:
                raw.write(last + outgoing.read())
                last = b""
                if not (some := await asyncio.wait_for(raw.reader.read(1 << 16), PATIENCE_S)):
                    raise ConnectionResetError
                incoming.write(some)

    said = None
    try:
        await pump(tls.do_handshake)
        said = b""
        tls.write(request.encode())
        while b"\r\n\r\n" not in said:
            said += await pump(lambda: tls.read(1 << 16))
    except (ConnectionResetError, ssl.SSLZeroReturnError):
        pass
    raw.drop()
    return said


@case(own=True, both_ios=True)
async def tls_begins_behind_a_header(start):
    async with secured(start, RINGROOM_NETWORK__DENY=DENIED, RINGROOM_NETWORK__ATTEMPTS="6", **SPOKEN, **LIMITED) as door:
        ask = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n"
        for nth, make in enumerate((line, binary, as_tls)):
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                header = make(f"192.0.2.{nth}")
                for pieces in ([header], [header, b""], [bytes([byte]) for byte in header]):
                    said = await asked_over_tls(door, pieces, ask, version=version)
                    assert said and said.startswith(b"HTTP/1.1 200 "), (pieces, said)
            # Its seventh: nobody shakes hands to be told so.
            async with counted(door, "refused.attempts"):
                assert await asked_over_tls(door, [header], ask) is None
        async with counted(door, "refused.network"):
            assert await asked_over_tls(door, [binary(DENIED)], ask) is None
        # A stranger has no header, and a proxy has to have one.
        said = await asked_over_tls(door, [b""], ask, STRANGER)
        assert said.startswith(b"HTTP/1.1 200 "), said
        for header in (b"", b"PROXY TCP4 nobody\r\n"):
            async with counted(door, "refused.proxy_header"):
                raw = await come(door, PROXY, header + b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
                try:
                    assert await asyncio.wait_for(raw.reader.read(), PATIENCE_S) == b"", "nothing in the clear"
                except ConnectionResetError:
                    pass
                raw.drop()
        async with counted(door, "refused.tls"):
            raw = await come(door, STRANGER, line(CLIENT))
            heard = await asyncio.wait_for(raw.reader.read(), PATIENCE_S)
            assert heard[:1] in (b"", b"\x15"), "an alert at most"
            raw.drop()
        # On the plain port headers are as ever.
        assert await status(door.gateway, line("192.0.2.77")) == 101


@case(own=True)
async def behind_a_header_it_is_tls_here_that_makes_a_page_encrypted(start):
    async with secured(start, **SPOKEN) as door:
        for header, origin, code in (
            (line(CLIENT), "https", 101), (line(CLIENT), "http", 403), (binary(CLIENT), "https", 101), (as_tls(CLIENT), "https", 101),
            (as_tls(CLIENT, spoke=0), "https", 403), (as_tls(CLIENT, spoke=0), "http", 101), (b"PROXY UNKNOWN\r\n", "https", 101),
        ):
            page = {"Host": "chat.example", "Origin": f"{origin}://chat.example"}
            said = await asked_over_tls(door, [header], handshake(door, token(fresh("page")), **page))
            assert said.startswith(b"HTTP/1.1 %d " % code), (header, origin, said)


@case(own=True)
async def a_reload_turns_headers_on_and_off(start):
    with File("[network]\ntrusted_proxies = '127.7.0.0/16'\n") as file:
        gateway = await start("--config", file.path)
        assert await status(gateway, b"") == 101
        assert await status(gateway, line(CLIENT)) in (400, 505)
        file.write("[network]\ntrusted_proxies = '127.7.0.0/16'\nproxy_protocol = true\nforwarded_header = 'forwarded'\n")
        await reloaded(gateway, "reloaded: network.forwarded_header, network.proxy_protocol")

        async def is_on():
            return [await status(gateway, b"") for _ in range(8)] == [400] * 8

        await until(is_on, "each shard to ask for headers")
        assert await status(gateway, line(CLIENT)) == 101
        assert await status(gateway, b"", NEIGHBOUR) == 101


@case(own=True, both_ios=True)
async def whatever_a_proxy_sends_is_survived(start):
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"     seed {seed}", flush=True)
    rng = random.Random(seed)
    gateway = await start(RINGROOM_NETWORK__DENY=DENIED, RINGROOM_NETWORK__ATTEMPTS="unlimited", **SPOKEN)
    makers = (line, binary, as_tls, lambda client: binary(client, rng.randbytes(rng.randrange(30)), summed=rng.random() < 0.5))
    served = refused = 0
    for _ in range(300):
        denied = rng.random() < 0.3
        header = bytearray(rng.choice(makers)(DENIED if denied else rng.choice((CLIENT, OTHER))))
        spoilt = rng.random() < 0.5
        if spoilt:
            for _ in range(rng.randrange(1, 4)):
                match rng.randrange(3):
                    case 0: header[rng.randrange(len(header))] = rng.randrange(256)
                    case 1: del header[rng.randrange(len(header)):]
                    case 2: header[rng.randrange(len(header)):] += rng.randbytes(rng.randrange(40))
                if not header:
                    break
        raw = await come(gateway, PROXY, bytes(header))
        try:
            raw.write(handshake(gateway, token("ada")))
            raw.writer.write_eof()
            said = await asyncio.wait_for(raw.reader.read(), PATIENCE_S)
        except OSError:
            # Refused with a reset, before or behind its end.
            said = b""
        raw.drop()
        code = int(said.split()[1]) if said else None
        # Bytes behind a header are the request's: another method, say.
        assert code in (101, 400, 405, 505, None), (seed, bytes(header), said)
        if not spoilt and denied:
            assert code in (None, 400), (seed, bytes(header), said)
        served += code == 101
        refused += code == 400
    assert served > 40 and refused > 40, (seed, served, refused)
    assert await status(gateway, line(CLIENT)) == 101
