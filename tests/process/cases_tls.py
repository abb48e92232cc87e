"""TLS in the gateway: whom it talks to and how, what it does not offer, certificates that change, and callers who never
finish their handshake."""

import asyncio
import contextlib
import json
import os
import random
import re
import resource
import signal
import socket
import ssl
import tempfile

from cases_browser import Browser
from cases_commands import command
from cases_config import File, log_of, reloaded
from cases_deflate import offers
from cases_network import PROXY
from cases_proxy_protocol import CLIENT, DENIED, SPOKEN, as_tls, binary, line
from cases_slow import FILL, NARROW, Reader, closed_as_slow, descriptors, publish_until_closed
from certificates import KEYS, TLS_1_2, TLS_1_3, Authority
from support import (
    CASES, CLOSE, PATIENCE_S, TEXT, Client, Neighbour, Raw, case, count, counted, frame, fresh, handshake, token, until,
)
from tls_door import (
    ALERT, HANDSHAKE, Door, Pieces, agreed, answer, client_hello, heard_of, in_records_of, openssl, secured, shows,
)

HERE = os.path.dirname(os.path.abspath(__file__))
VERSIONS = {"TLSv1.2": TLS_1_2, "TLSv1.3": TLS_1_3}
MEGABYTE = 1 << 20


async def talks(door, **speech):
    """Somebody who comes in says something in a room and hears it."""
    client = await Client.open(door.speaking(**speech) if speech else door, fresh("user"))
    room = fresh("chat:tls")
    await client.join(room)
    ack = await client.publish(room, "chat", {"text": "größe 🎉"})
    assert (await client.push("chat", room))["mid"] == ack["mid"]
    await client.close()
    return client


# Clients.


@case(own=True, both_ios=True)
async def openssl_speaks_both_versions(start):
    async with secured(start) as door, Neighbour.beside(door.gateway), Neighbour.beside(door):
        for version in ("-tls1_2", "-tls1_3"):
            process = await asyncio.create_subprocess_exec(
                "openssl", "s_client", "-connect", f"{door.host}:{door.port}", "-CAfile", door.authority.path, "-verify_return_error",
                "-verify_ip", door.host, "-quiet", version,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            )
            raw = Raw(process.stdout, process.stdin)
            raw.write(handshake(door, token("ada")))
            assert (await raw.head()).startswith("HTTP/1.1 101 ")
            assert (await raw.message())["data"]["user"] == "ada"
            raw.frame(CLOSE, b"\x03\xe8")
            assert (await raw.closed())[0] == 1000
            process.stdin.close()
            # 0: the end was said.
            assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0


@case(own=True, both_ios=True)
async def curl_speaks_both_versions_and_no_http_2(start):
    async with secured(start) as door:
        for version in ("1.2", "1.3"):
            for words, path, said in (
                ([], "/health", '{"status":"ok"}'),
                (["--http2"], "/socket.io/?EIO=4&transport=polling", '0{"sid":"'),
            ):
                process = await asyncio.create_subprocess_exec(
                    "curl", "--silent", "--show-error", "--cacert", door.authority.path, f"--tlsv{version}", "--tls-max", version, *words,
                    "--write-out", " %{http_version} %{http_code}", f"https://{door.host}:{door.port}{path}",
                    stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                )
                out, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
                assert process.returncode == 0 and not errors, errors
                assert out.decode().startswith(said) and out.endswith(b" 1.1 200"), out


async def node(script, task):
    process = await asyncio.create_subprocess_exec(
        "node", os.path.join(HERE, script), json.dumps(task), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise
    assert process.returncode == 0, errors
    return json.loads(out)


@case(own=True, both_ios=True)
async def node_speaks_both_versions_and_keeps_its_sockets(start):
    async with secured(start) as door:
        with open(door.authority.path) as authority:
            tls = {"ca": authority.read()}
        for version in VERSIONS:
            tls |= {"minVersion": version, "maxVersion": version}
            seen = await node("https_client.js", {"host": door.host, "port": door.port, "tls": tls})
            for one in seen:
                assert (one["status"], one["protocol"], one["alpn"], one["authorized"]) == (200, version, "http/1.1", True), one
                assert one["body"].startswith('0{"sid":"'), one
            assert seen[0]["port"] == seen[1]["port"] != seen[2]["port"], seen
            assert [one["resumed"] for one in seen] == [False, False, True], seen

            room, number = fresh("chat:node"), 50
            alice = await Client.open(door, fresh("user"))
            await alice.join(room)
            task = {"url": door.url, "token": token("node"), "room": room, "count": number, "how": "header", "tls": tls}
            talking = asyncio.create_task(node("node_client.js", task))
            await alice.push("from-node", room)
            for n in range(number):
                await alice.publish(room, "from-python", {"n": n})
            seen = await talking
            assert (seen["protocol"], seen["close"], seen["pong"]) == ("ringroom.v1.json", 1000, True), seen
            assert all(reply["ok"] for reply in seen["replies"].values()), seen["replies"]
            for who in ("from-node", "from-python"):
                assert [push["data"]["n"] for push in seen["pushes"] if push["event"] == who] == list(range(number)), who
            await alice.close()


@case(own=True, both_ios=True)
async def pages_of_a_browser_talk_over_wss(start):
    async with secured(start) as door:
        for flag, version in (("--ssl-version-max=tls1.2", "TLS 1.2"), ("--ssl-version-min=tls1.3", "TLS 1.3")):
            async with Browser.started(f"--ignore-certificate-errors-spki-list={door.certificate.key_hash}", flag) as browser:
                room, pages = fresh("chat:pages"), []
                for _ in range(2):
                    page = await browser.page(f"https://{door.host}:{door.port}/health")
                    await page.open(door.url, token(fresh("page")))
                    assert page.opened, await page.closed()
                    assert page.extensions.startswith("permessage-deflate"), page.extensions
                    await page.push("connected")
                    await page.ok("room:join", {"room": room})
                    pages.append(page)
                assert (await browser.ask("secured"))["protocol"] == version
                for text in ("größe 🎉", "x" * 300_000):
                    await pages[0].publish(room, "chat", {"text": text})
                    for page in pages:
                        assert (await page.push("chat"))["data"] == {"text": text}
                for page in pages:
                    assert await page.close() == (1000, "", True)


@case(own=True)
async def a_page_over_tls_is_of_the_same_host_only_as_https(start):
    async with secured(start) as door:
        for scheme, host, code in (("https", door.host, 101), ("http", door.host, 403), ("https", "evil.example", 403)):
            raw = await Raw.open(door)
            raw.write(handshake(door, token("ada"), Origin=f"{scheme}://{host}:{door.port}"))
            assert (await raw.head()).startswith(f"HTTP/1.1 {code} "), (scheme, host)
            raw.drop()


@case(own=True, both_ios=True)
async def plain_and_encrypted_clients_share_a_room(start):
    async with secured(start) as door:
        room = fresh("chat:both")
        clients = [
            await Client.open(where, fresh("user"))
            for where in (door.gateway, door, door.speaking(version=TLS_1_2), door.speaking(version=TLS_1_3)) for _ in range(3)
        ]
        for client in clients:
            await client.join(room)
        for number, speaker in enumerate(clients):
            await speaker.publish(room, "chat", {"number": number})
        for client in clients:
            heard = [(await client.push("chat", room))["data"]["number"] for _ in clients]
            assert heard == list(range(len(clients))), heard
        stats = await door.stats()
        # Neither is told apart by who is counted.
        assert count(stats, "tls_full.*") + count(stats, "tls_resumed.*") == 9, stats["tls_full"]
        assert stats["connections_now"] == 12
        for client in clients:
            await client.close()


# Bytes.


@case(own=True, both_ios=True)
async def bytes_may_come_one_by_one_and_records_in_any_pieces(start):
    seed = random.randrange(1 << 32)
    noise = random.Random(seed)
    async with secured(start) as door:
        for version in VERSIONS.values():
            for size, record_bytes, first in (
                (lambda: 1, 1 << 14, lambda flight: flight),
                (lambda: noise.randrange(1, 40), 7, lambda flight: flight),
                (lambda: noise.randrange(1, 5_000), 1, lambda flight: in_records_of(noise.randrange(1, 60), flight)),
                (lambda: 1 << 20, 1 << 14, lambda flight: in_records_of(16, flight)),
            ):
                raw = await Pieces.open(door, size, first, version=version)
                # The request and what follows it at once: it goes with the socket, wherever that moves.
                room = fresh("chat:pieces")
                join = json.dumps({"id": "join", "event": "room:join", "data": {"room": room}}).encode()
                text = "".join(chr(noise.randrange(33, 127)) for _ in range(3_000))
                publish = json.dumps({"id": "say", "event": "room:publish", "data": {"room": room, "event": "chat", "data": text}})
                said = handshake(door, token(fresh("pieces"))).encode() + frame(TEXT, join) + frame(TEXT, publish.encode())
                await raw.say(said, record_bytes)
                assert (await raw.head()).startswith("HTTP/1.1 101 "), f"seed {seed}"
                while (message := await raw.message()).get("event") != "chat":
                    assert message.get("ok", True), (message, f"seed {seed}")
                assert message["data"] == text, f"seed {seed}"
                await raw.say(frame(CLOSE, b"\x03\xe8"))
                assert (await raw.closed())[0] == 1000
                # And then a goodbye, without which this is an error.
                assert await asyncio.wait_for(raw.reader.read(-1), PATIENCE_S) == b"", f"seed {seed}"
                raw.drop()


@case(own=True, both_ios=True)
async def what_a_proxy_says_of_a_client_comes_before_its_handshake(start):
    async with secured(start, RINGROOM_NETWORK__DENY=f"{DENIED}/32", **SPOKEN) as door:
        for header in (line, binary, as_tls):
            for size in (1, 1 << 20):
                raw = await Pieces.open(door, lambda: size, lambda flight: header(CLIENT) + flight, PROXY)
                await raw.say(handshake(door, token("ada")).encode())
                assert (await raw.head()).startswith("HTTP/1.1 101 ")
                assert (await raw.message())["data"]["user"] == "ada"
                raw.drop()
            async with counted(door, "refused.network"):
                assert not await heard_of(door, header(DENIED) + client_hello(door.ssl), PROXY), "and not a byte of TLS"
        # Who is listed begins with a header, and who is not never does.
        for source, said in ((PROXY, client_hello(door.ssl)), ("127.0.0.1", binary(CLIENT) + client_hello(door.ssl))):
            heard = await heard_of(door, said, source)
            assert not heard or heard[0] != HANDSHAKE, (source, heard[:20])
        await talks(door)


@case(own=True, both_ios=True)
async def clients_move_home_with_whatever_they_have_said(start):
    async with secured(start) as door:
        for version in VERSIONS.values():
            before = await door.stats()
            rooms = [fresh("chat:moved") for _ in range(40)]

            async def visit(room):
                raw = await Raw.open(door.speaking(version=version))
                join = json.dumps({"id": "join", "event": "room:join", "data": {"room": room}}).encode()
                # One write, which is one record.
                raw.write(handshake(door, token(fresh("mover"))).encode() + frame(TEXT, join))
                assert (await raw.head()).startswith("HTTP/1.1 101 ")
                while (message := await raw.message()).get("id") != "join":
                    pass
                assert message["ok"], message
                return raw

            visitors = await asyncio.gather(*[visit(room) for room in rooms])
            moved = (await door.stats())["moved_in"] - before["moved_in"]
            assert 5 <= moved <= 35, f"{moved} of 40: half of all users are at home elsewhere"
            for raw, room in zip(visitors, rooms):
                raw.send_json({"id": "say", "event": "room:publish", "data": {"room": room, "event": "chat", "data": room}})
            for raw, room in zip(visitors, rooms):
                while (message := await raw.message()).get("event") != "chat":
                    pass
                assert message["data"] == room
                raw.frame(CLOSE, b"\x03\xe8")
                assert (await raw.closed())[0] == 1000
                raw.drop()


@case(own=True, both_ios=True)
async def a_megabyte_comes_and_goes_byte_for_byte(start):
    seed = random.randrange(1 << 32)
    noise = random.Random(seed)
    async with secured(start) as door, Neighbour.beside(door):
        for version in VERSIONS.values():
            room = fresh("chat:megabyte")
            reader, writer = [await Client.open(door.speaking(version=version), fresh("user")) for _ in range(2)]
            plain = await Client.open(door.gateway, fresh("user"))
            for client in (reader, plain):
                await client.join(room)
            for _ in range(4):
                head = json.dumps({"id": 1, "event": "room:publish", "data": {"room": room, "event": "big", "data": ""}})
                text = "".join(noise.choices("abcdefghijklmnopqrstuvwxyz0123456789 ", k=MEGABYTE - len(head) - 16))
                await writer.publish(room, "big", text)
                for client in (reader, plain):
                    assert (await client.push("big", room))["data"] == text, f"seed {seed}"
            # A byte too many is refused as it is without TLS.
            await writer.send("room:publish", {"room": room, "event": "big", "data": "x" * MEGABYTE})
            assert (await writer.until_closed())[0] == 1009
            for client in (reader, plain):
                await client.close()


@case(own=True, both_ios=True)
async def compressed_messages_come_through(start):
    async with secured(start) as door:
        room = fresh("chat:deflate")
        clients = [await Client.open(door, fresh("user"), extensions=offers()), await Client.open(door, fresh("user"))]
        for client in clients:
            await client.join(room)
        assert clients[0].socket.protocol.extensions
        for text in ("short", json.dumps([{"n": n, "text": f"line {n}"} for n in range(20_000)])):
            for speaker in clients:
                await speaker.publish(room, "chat", text)
                for client in clients:
                    assert (await client.push("chat", room))["data"] == text
        for client in clients:
            await client.close()


@case(own=True, both_ios=True)
async def keys_may_be_changed_under_way(start):
    async with secured(start) as door:
        process = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-connect", f"{door.host}:{door.port}", "-CAfile", door.authority.path, "-tls1_3",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )
        heard = bytearray()

        async def until_heard(what):
            async def more():
                heard.extend(await asyncio.wait_for(process.stdout.read(1 << 16), PATIENCE_S))

            while what not in heard:
                before = len(heard)
                await more()
                assert len(heard) > before, f"ended before {what!r}: {bytes(heard[-400:])!r}"

        try:
            process.stdin.write(handshake(door, token("ada")).encode())
            await until_heard(b'"connected"')
            for number in range(20):
                # Both sides go on with other keys.
                process.stdin.write(b"K\n")
                await until_heard(b"KEYUPDATE")
                process.stdin.write(frame(TEXT, json.dumps({"id": f"ping-{number}", "event": "ping"}).encode()))
                await until_heard(b'"ping-%d"' % number)
                del heard[:]
        finally:
            process.kill()
            await process.wait()


@case(own=True, both_ios=True)
async def every_end_is_said(start):
    async with secured(start) as door:
        for version in VERSIONS.values():
            with await door.shaken(version=version) as client:
                await answer(client)
            # Closed by the gateway, for a bad token, and by the client.
            for jwt, said, code in (("nonsense", b"", 4401), (token("ada"), frame(CLOSE, b"\x03\xe8"), 1000)):
                with await door.shaken(version=version) as client:

                    def converse():
                        client.sendall(handshake(door, jwt).encode() + said)
                        heard = b""
                        while piece := client.recv(1 << 16):
                            heard += piece
                        return heard

                    heard = await asyncio.to_thread(converse)
                    assert b"HTTP/1.1 101 " in heard and code.to_bytes(2, "big") in heard, heard
        # Who says nothing and goes has ended as one without TLS has.
        client = await Client.open(door, fresh("user"))
        before = (await door.stats())["connections_now"]
        client.socket.transport.abort()

        async def is_gone():
            return (await door.stats())["connections_now"] == before - 1

        await until(is_gone, "the connection to be gone")


@case(own=True, both_ios=True)
async def a_restart_is_told_over_tls(start):
    async with secured(start) as door:
        clients = [await Client.open(door, fresh("user")) for _ in range(10)]
        with await door.shaken() as raw:
            raw.sendall(handshake(door, token("raw")).encode())
            ending = asyncio.create_task(door.gateway.terminate())

            def rest():
                while raw.recv(1 << 16):
                    pass

            await asyncio.to_thread(rest)
        for client in clients:
            code, reason = await client.until_closed()
            assert code == 1012 and json.loads(reason)["retry_ms"] >= 0, (code, reason)
        assert await ending == 0, door.tail()


# Socket.IO.


@case(own=True, both_ios=True)
async def socket_io_polls_upgrades_and_talks_over_tls(start):
    # Of the nine large messages that are said at once everything may wait.
    async with secured(start, RINGROOM_LIMITS__OUTBOX_BYTES=str(4 * MEGABYTE)) as door:
        clients = [{"way": way, "token": token(fresh(way))} for way in ("polling", "upgrade", "websocket") for _ in range(3)]
        task = {"url": f"https://{door.host}:{door.port}", "room": fresh("chat:io"), "clients": clients, "messages": 20, "large": 200_000}
        process = await asyncio.create_subprocess_exec(
            "node", os.path.join(HERE, "proxy_clients.js"), json.dumps(task), limit=1 << 24, stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, env={**os.environ, "NODE_EXTRA_CA_CERTS": door.authority.path},
        )
        try:
            line = await asyncio.wait_for(process.stdout.readline(), 3 * PATIENCE_S)
            assert line, "the clients gave up"
            states = json.loads(line)
            process.stdin.close()
            assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        first = states[0]["heard"]
        assert len(first) == 21 * len(clients)
        for state in states:
            assert state["ended"] is None, (state["ended"], state["why"])
            assert state["transport"] == ("polling" if state["way"] == "polling" else "websocket"), state["way"]
            assert state["heard"] == first, f"{state['way']} heard something else"
        assert [seq for seq, *_ in first] == list(range(first[0][0], first[0][0] + len(first)))


# What is offered.


@case(own=True)
async def http_1_1_is_the_only_protocol_that_can_be_agreed_on(start):
    async with secured(start) as door:
        for version in VERSIONS.values():
            for offered, agreed_on in (((), None), (("http/1.1",), "http/1.1"), (("h2", "http/1.1"), "http/1.1")):
                with await door.shaken(version=version, protocols=offered) as client:
                    assert client.selected_alpn_protocol() == agreed_on, offered
                    await answer(client)
            async with counted(door, "tls_failed.*"):
                assert "NO_APPLICATION_PROTOCOL" in await door.refusal(version=version, protocols=["h2", "spdy/3"])
        await talks(door)


@case(own=True)
async def names_choose_the_certificate(start):
    with Authority.here() as authority:
        first = authority.issued()
        exact, wildcard, special = (authority.issued(name) for name in ("chat.example", "*.chat.example", "api.chat.example"))
        rows = "".join(f"[[certificate]]\ncertificate_file = '{one.path}'\nkey_file = '{one.key_path}'\n" for one in (wildcard, exact, special))
        with File(rows) as file:
            async with secured(start, "--config", file.path, authority=authority, certificate=first) as door:
                for name, shown in (
                    ("chat.example", exact), ("CHAT.Example", exact), ("a.chat.example", wildcard), ("api.chat.example", special),
                    ("a.b.chat.example", first), ("other.example", first), ("localhost", first), ("example", first), ("xchat.example", first),
                ):
                    assert await door.served(name) == shown.der, name
                # An address is not told as a name.
                assert await door.served() == first.der
                assert "Verify return code: 0 (ok)" in await openssl(door, "-verify_hostname", "a.chat.example", name="a.chat.example")


@case(own=True)
async def only_what_is_good_today_is_offered(start):
    modern = {
        "TLSv1.2": {"AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"},
        "TLSv1.3": {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"},
    }
    weak = "@SECLEVEL=0"
    for key, kind in (("P-256", "ECDSA"), ("RSA 2048", "RSA")):
        async with secured(start, key=key) as door:
            offered = {version: set() for version in modern}
            # Each that is agreed on is left out from then on, until there is none.
            for version, words in (("TLSv1.2", ["-tls1_2", "-cipher"]), ("TLSv1.3", ["-tls1_3", "-ciphersuites"])):
                left = ["ALL", "COMPLEMENTOFALL"]
                if version == "TLSv1.3":
                    left = [*modern[version], "TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"]
                while left:
                    wanted = ":".join([*left, weak] if version == "TLSv1.2" else left)
                    outcome = agreed(await openssl(door, *words, wanted))
                    if outcome is None:
                        break
                    assert outcome[0] == version, outcome
                    offered[version].add(outcome[1])
                    assert len(offered[version]) < 50, offered
                    if version == "TLSv1.2":
                        left.append(f"!{outcome[1]}")
                    else:
                        left.remove(outcome[1])
            assert offered == {"TLSv1.2": {f"ECDHE-{kind}-{name}" for name in modern["TLSv1.2"]}, "TLSv1.3": modern["TLSv1.3"]}, offered
            for old in ("-tls1", "-tls1_1"):
                assert agreed(await openssl(door, old, "-cipher", f"ALL:{weak}")) is None, old
            printed = await openssl(door, "-tls1_2", "-comp", "-legacy_renegotiation")
            for line in ("Compression: NONE", "Secure Renegotiation IS supported", "Extended master secret: yes"):
                assert line in printed, line
            printed = await openssl(door, "-tls1_2", said=b"R\n")
            assert "RENEGOTIATING" in printed and "no renegotiation" in printed, printed
            # Nothing is taken before the handshake has ended: it might come from a recording.
            with tempfile.TemporaryDirectory() as folder:
                ticket, early = os.path.join(folder, "ticket"), os.path.join(folder, "early")
                with open(early, "w") as file:
                    file.write("GET /health HTTP/1.1\r\nHost: early\r\n\r\n")
                await openssl(door, "-tls1_3", "-sess_out", ticket, "-ign_eof", said=b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                printed = await openssl(door, "-tls1_3", "-sess_in", ticket, "-early_data", early)
                assert "Reused, TLSv1.3" in printed and "Early data was not sent" in printed, printed


@case(own=True)
async def who_must_speak_1_3_does_or_is_told_so(start):
    async with secured(start, RINGROOM_TLS__MIN_VERSION="1.3") as door:
        async with counted(door, "tls_failed.*"):
            assert "PROTOCOL_VERSION" in await door.refusal(version=TLS_1_2)
        await talks(door, version=TLS_1_3)


# Certificates of clients.


@case(own=True, both_ios=True)
async def clients_show_certificates_where_they_are_asked(start):
    with Authority.here() as authority, Authority.here() as stranger:
        authorities = {"RINGROOM_TLS__CLIENT_CA_FILE": authority.path}
        good, foreign = authority.issued("ada.example", is_client=True), stranger.issued("eve.example", is_client=True)
        late = authority.issued("late.example", is_client=True, days=-0.5)
        server = authority.issued("server.example")
        for asked, anonymous in (("none", True), ("optional", True), ("required", False)):
            more = {"RINGROOM_TLS__CLIENT_AUTH": asked, **({} if asked == "none" else authorities)}
            async with secured(start, authority=authority, **more) as door:
                for version in VERSIONS.values():
                    assert (await door.refusal(version=version) is None) == anonymous, (asked, version)
                    await talks(door, version=version, client=good)
                    for bad in (foreign, late, server):
                        refusal = await door.refusal(version=version, client=bad)
                        assert (refusal is None) == (asked == "none"), (asked, version, refusal)
                if asked == "required":
                    assert count(await door.stats(), "tls_failed.*") >= 8


# Resumption.


async def resumed(door, session, version, name=None):
    """Whether a connection that shows this ticket is spared the rest; and the ticket that it is given."""
    context = door.contexts[version]

    def shake():
        plain = socket.create_connection((door.host, door.port), timeout=PATIENCE_S)
        with context.wrap_socket(plain, server_hostname=door.host, session=session, suppress_ragged_eofs=False) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            while client.recv(1 << 16):
                pass
            return client.session_reused, client.session

    return await asyncio.to_thread(shake)


@case(own=True, both_ios=True)
async def tickets_count_on_all_shards_and_over_a_reload(start):
    async with secured(start) as door:
        # A ticket belongs to the context that it was given to.
        door.contexts = {version: door.authority.context(version=version) for version in VERSIONS.values()}
        for version in VERSIONS.values():
            was_resumed, ticket = await resumed(door, None, version)
            assert not was_resumed and ticket.has_ticket
            before = await door.stats()

            async def on_all_shards():
                assert (await resumed(door, ticket, version))[0]
                shards = (await door.stats())["shards"]
                return all(count(shard, "tls_resumed.*") > count(was, "tls_resumed.*") for shard, was in zip(shards, before["shards"]))

            await until(on_all_shards, "both shards to know the ticket")
            stats = await door.stats()
            assert count(stats, "tls_full.*") == count(before, "tls_full.*"), stats["tls_full"]

            replaced = door.authority.issued()
            replaced.installed(door.certificate)
            door.gateway.process.send_signal(signal.SIGHUP)
            await shows(door, replaced)
            assert (await resumed(door, ticket, version))[0], "a reload makes all clients shake hands anew"
            # Nobody else's, and none that was changed.
            assert not (await resumed(door, None, version))[0]


@case(own=True)
async def a_ticket_says_nothing_of_who_must_show_a_certificate(start):
    with Authority.here() as authority, Authority.here() as other:
        certificate = authority.issued()
        ada = authority.issued("ada.example", is_client=True)
        tls = "[tls]\nclient_auth = '%s'\nclient_ca_file = '%s'\n"
        with File(tls % ("optional", authority.path)) as file:
            async with secured(start, "--config", file.path, authority=authority, certificate=certificate) as door:
                door.contexts = {version: authority.context(version=version) for version in VERSIONS.values()}
                tickets = {version: (await resumed(door, None, version))[1] for version in VERSIONS.values()}
                for version, ticket in tickets.items():
                    assert (await resumed(door, ticket, version))[0]
                file.write(tls % ("required", authority.path))
                door.gateway.process.send_signal(signal.SIGHUP)

                async def is_required():
                    return await door.refusal(version=TLS_1_3) is not None

                await until(is_required, "certificates to be required")
                for version, ticket in tickets.items():
                    try:
                        await resumed(door, ticket, version)
                    except (ssl.SSLError, ConnectionError):
                        continue
                    raise AssertionError("an old ticket stands in for a certificate")
                # Nor does a ticket of somebody whose authority is trusted no longer.
                door.contexts = {version: authority.context(version=version, client=ada) for version in VERSIONS.values()}
                tickets = {version: (await resumed(door, None, version))[1] for version in VERSIONS.values()}
                file.write(tls % ("required", other.path))
                door.gateway.process.send_signal(signal.SIGHUP)

                async def is_out():
                    return await door.refusal(version=TLS_1_3, client=ada) is not None

                await until(is_out, "the authority to be trusted no longer")
                for version, ticket in tickets.items():
                    try:
                        await resumed(door, ticket, version)
                    except (ssl.SSLError, ConnectionError):
                        continue
                    raise AssertionError("an old ticket stands in for a certificate that counts no longer")


# Certificates that change.


@contextlib.asynccontextmanager
async def load(door, openers=4):
    """People in rooms, and others who come, say something and go all the time; none of them may meet with an error.
    Gives a function that tells how many came."""
    came, is_over = 0, False

    async def come_and_go():
        nonlocal came
        # Told, not cancelled: nothing of it may be cut in the middle.
        while not is_over:
            await talks(door)
            came += 1

    async with Neighbour.beside(door), Neighbour.beside(door.gateway), Neighbour.beside(door.speaking(version=TLS_1_2)):
        tasks = [asyncio.create_task(come_and_go()) for _ in range(openers)]
        try:
            yield lambda: came
        finally:
            is_over = True
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            assert outcome is None, f"somebody who came met with {outcome!r}"


@case(own=True, both_ios=True)
async def certificates_are_replaced_under_load_without_an_error(start):
    async with secured(start) as door, load(door) as came:
        failed, old = count(await door.stats(), "tls_failed.*"), door.certificate
        for turn, key in enumerate(("P-256", "RSA 2048", "P-384", "P-256", "RSA 2048", "Ed25519", "P-256")):
            before = came()
            replaced = door.authority.issued(key=key)
            replaced.installed(door.certificate)
            # On being told, and on looking.
            if turn % 2 == 0:
                door.gateway.process.send_signal(signal.SIGHUP)
            await shows(door, replaced)
            await until(lambda: came() > before, "somebody to come")
            assert replaced.der != old.der
            old = replaced
        assert count(await door.stats(), "tls_failed.*") == failed, "the handshakes of well-meaning clients"


@case(own=True)
async def files_behind_links_are_replaced_too(start):
    with Authority.here() as authority, tempfile.TemporaryDirectory() as folder:
        # As Kubernetes mounts a secret, and as certbot's `live` is.
        generations = [authority.issued() for _ in range(3)]
        for number, one in enumerate(generations):
            os.mkdir(os.path.join(folder, f"generation-{number}"))
            os.rename(one.path, os.path.join(folder, f"generation-{number}", "tls.crt"))
            os.rename(one.key_path, os.path.join(folder, f"generation-{number}", "tls.key"))

        def point_at(number):
            os.symlink(f"generation-{number}", os.path.join(folder, "next"))
            os.replace(os.path.join(folder, "next"), os.path.join(folder, "current"))

        point_at(0)
        place = type("Place", (), {"path": os.path.join(folder, "current", "tls.crt"), "key_path": os.path.join(folder, "current", "tls.key")})
        async with secured(start, authority=authority, certificate=place) as door:
            for number in (0, 1, 2, 0):
                if number:
                    point_at(number)
                elif os.readlink(os.path.join(folder, "current")) != "generation-0":
                    point_at(0)
                await shows(door, generations[number])


async def metrics(gateway, name):
    """Value by labels of the figures of this name."""
    status, body = await gateway.get("/metrics")
    assert status == 200
    return {found[1] or "": float(found[2]) for found in re.finditer(rf"^{name}(\{{.*?\}})? (\S+)$", body.decode(), re.M)}


@case(own=True, both_ios=True)
async def bad_new_files_leave_the_old_certificate(start):
    async with secured(start) as door:
        good = door.authority.issued()
        with open(door.certificate.path) as certificate, open(door.certificate.key_path) as key:
            texts = {door.certificate.path: certificate.read(), door.certificate.key_path: key.read()}
        shown = door.certificate.der
        async with Neighbour.beside(door):
            for path in texts:
                with open(good.path if path == door.certificate.path else good.key_path) as file:
                    other = file.read()
                # Nothing, half, rubbish, another one's, and no file at all.
                for bad in ("", texts[path][: len(texts[path]) // 2], "rubbish\n" * 10, other, None):
                    if bad is None:
                        os.unlink(path)
                    else:
                        with open(path, "w") as file:
                            file.write(bad)
                    log = await reloaded(door.gateway, "TLS goes on with the certificates that it had")
                    assert "panicked" not in log, log
                    assert await door.served() == shown, f"{path} with {bad!r}"
                    assert (await metrics(door, "ringroom_tls_stale"))[""] == 1
                    with open(path, "w") as file:
                        file.write(texts[path])
                    await talks(door)

                async def is_well():
                    return (await metrics(door, "ringroom_tls_stale"))[""] == 0

                # As it was: nothing is to be taken, and nobody is told.
                await until(is_well, "the files to be good again")
            assert (await metrics(door, "ringroom_tls_reloads_refused_total"))[""] > 0
            good.installed(door.certificate)
            door.gateway.process.send_signal(signal.SIGHUP)
            await shows(door, good)


@case(own=True)
async def what_cannot_serve_is_refused_at_the_start_and_says_which_file(start):
    with Authority.here() as authority, tempfile.TemporaryDirectory() as folder:
        one, other = authority.issued(), authority.issued()
        rubbish, empty, absent = (os.path.join(folder, name) for name in ("rubbish.pem", "empty.pem", "absent.pem"))
        with open(rubbish, "w") as file:
            file.write("-----BEGIN CERTIFICATE-----\nnot base64\n-----END CERTIFICATE-----\n")
        open(empty, "w").close()
        listen = "listen = '127.0.0.1:0'"
        pair = f"certificate_file = '{one.path}'\nkey_file = '{one.key_path}'"
        for words, said in (
            ([listen, f"certificate_file = '{one.path}'", f"key_file = '{other.key_path}'"], one.path),
            ([listen, f"certificate_file = '{rubbish}'", f"key_file = '{one.key_path}'"], rubbish),
            ([listen, f"certificate_file = '{empty}'", f"key_file = '{one.key_path}'"], empty),
            ([listen, f"certificate_file = '{absent}'", f"key_file = '{one.key_path}'"], absent),
            ([listen, f"certificate_file = '{one.path}'", f"key_file = '{one.path}'"], one.path),
            ([listen, f"certificate_file = '{one.path}'", f"key_file = '{absent}'"], absent),
            ([listen, f"certificate_file = '{one.path}'"], one.path),
            ([listen], "tls.certificate_file"),
            ([listen, pair, "client_auth = 'required'"], "tls.client_ca_file"),
            ([listen, pair, "client_auth = 'required'", f"client_ca_file = '{empty}'"], "tls.client_ca_file"),
            ([listen, pair, "min_version = '1.1'"], "tls.min_version"),
            ([listen, pair, f"[[certificate]]\ncertificate_file = '{one.path}'\nkey_file = '{other.key_path}'"], one.path),
        ):
            with File("[server]\nlisten = '127.0.0.1:0'\nops = '127.0.0.1:0'\n[tls]\n" + "\n".join(words)) as file:
                status, out, errors = await command("serve", "--config", file.path)
                assert status not in (0, 101) and not out, (words, status, out)
                assert said in errors and "panicked" not in errors, (words, errors)
                assert "PRIVATE KEY" not in errors, errors
                status, out, errors = await command("config", "check", file.path)
                assert said in errors and "PRIVATE KEY" not in errors, (words, errors)
                # What is written there is wrong, or only what the files hold here.
                assert (status, "note: serve would not start here" in errors) in ((78, False), (0, True)), (words, status, errors)


@case(own=True)
async def keys_of_every_form_serve(start):
    with Authority.here() as authority:
        between = Authority(authority.folder, "between", above=authority)
        for key, form in (*((key, "PKCS8") for key in KEYS), ("P-256", "TraditionalOpenSSL"), ("RSA 2048", "TraditionalOpenSSL")):
            async with secured(start, authority=authority, certificate=between.issued(key=key, form=form)) as door:
                # The one between is sent along: nobody here knows it.
                for version in VERSIONS.values():
                    if key != "Ed25519" or version == TLS_1_3:
                        await talks(door, version=version)
            assert await door.gateway.terminate() == 0
        # Both in one file, as HAProxy has it.
        one = authority.issued()
        with open(one.path, "a") as both, open(one.key_path) as key:
            both.write(key.read())
        one.key_path = one.path
        async with secured(start, authority=authority, certificate=one) as door:
            await talks(door)


@case(own=True)
async def operators_are_told_when_certificates_end(start):
    with Authority.here() as authority:
        named = authority.issued("chat.example", days=40)
        with File(f"[[certificate]]\ncertificate_file = '{named.path}'\nkey_file = '{named.key_path}'\n") as file:
            async with secured(start, "--config", file.path, authority=authority) as door:
                for _ in range(2):
                    ends = await metrics(door, "ringroom_tls_certificate_expiry_seconds")
                    assert sorted(ends.values()) == sorted([float(door.certificate.expiry_s), float(named.expiry_s)]), ends
                    replaced = authority.issued(days=90)
                    replaced.installed(door.certificate)
                    door.gateway.process.send_signal(signal.SIGHUP)
                    await shows(door, replaced)
                    door.certificate.certificate = replaced.certificate
                status, shown, errors = await command("config", "show", file.path)
                assert status == 0 and "PRIVATE KEY" not in shown, errors


# Callers who mean ill, or are lost.


@case(own=True, both_ios=True)
async def what_is_no_handshake_is_told_so_and_counted(start):
    seed = random.randrange(1 << 32)
    noise = random.Random(seed)
    async with secured(start) as door, Neighbour.beside(door), Neighbour.beside(door.gateway):
        hello = client_hello(door.ssl)
        for what, said in {
            "plain HTTP": b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
            "an upgrade without TLS": handshake(door, token("ada")).encode(),
            "noise": b"\xff" + noise.randbytes(2_000),
            "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(40),
            "a record that is too long": bytes([HANDSHAKE, 3, 3, 0xFF, 0xFF]) + bytes(70_000),
            "a message that is too long": in_records_of(1 << 14, bytes([HANDSHAKE, 3, 1, 0xFF, 0xFF, 1, 0xFF, 0xFF, 0xFF]) + bytes(0xFFFB)),
            "empty records": bytes([HANDSHAKE, 3, 1, 0, 0]) * 1_000,
            "warnings": bytes([ALERT, 3, 3, 0, 2, 1, 90]) * 10_000,
            "data before the handshake": bytes([23, 3, 3, 0, 5]) + b"hello",
            "the wrong message first": bytes([HANDSHAKE, 3, 3, 0, 4, 20, 0, 0, 0]),
            "a hello of nothing": bytes([HANDSHAKE, 3, 1, 0, 4, 1, 0, 0, 0]),
            "a hello twice": hello + hello,
            "a hello and rubbish": hello + noise.randbytes(300),
        }.items():
            async with counted(door, "tls_failed.*"):
                # Whoever is refused learns it at once, not when the time is over: by an alert where it speaks TLS, in
                # its own language where it speaks HTTP.
                heard = await heard_of(door, said)
            if heard and said[:4] in (b"GET ", b"POST"):
                assert heard.startswith(b"HTTP/1.1 400 ") and b"TLS" in heard, (what, heard)
            elif heard:
                kinds = (ALERT, HANDSHAKE) if what.startswith("a hello") else (ALERT,)
                assert heard[0] in kinds, (what, heard[:80], f"seed {seed}")
        # And a hello changed anywhere: whatever comes of it, others are served.
        for _ in range(300):
            changed = bytearray(hello)
            for _ in range(noise.randrange(1, 4)):
                changed[noise.randrange(len(changed))] = noise.randrange(256)
            heard = await heard_of(door, bytes(changed)[: noise.randrange(1, len(changed) + 1)], goes=True)
            assert not heard or heard[0] in (ALERT, HANDSHAKE), (bytes(changed), f"seed {seed}")
        # TLS on the plain port is a bad request there.
        plain = type("Plain", (), {"host": door.gateway.host, "port": door.gateway.port})
        heard = await heard_of(plain, hello, goes=True)
        assert not heard or heard.startswith(b"HTTP/1.1 400 "), heard
        assert (await door.stats())["handshakes_now"] <= 1


@case(own=True, both_ios=True)
async def a_handshake_that_does_not_end_is_ended(start):
    async with secured(start, RINGROOM_LIMITS__HANDSHAKE_MS="1000") as door, Neighbour.beside(door):
        hello = client_hello(door.ssl)
        for said in (b"", hello[:1], hello[:5], hello[: len(hello) // 2], hello[:-1], hello):
            async with counted(door, "refused.handshake_time"):
                heard = await heard_of(door, said)
                assert not heard or heard[0] in (ALERT, HANDSHAKE), heard[:80]
        # The time of the handshake and of the request is one, however slowly either comes.
        async with counted(door, "refused.handshake_time"):
            with await door.shaken() as client:

                def drip():
                    client.settimeout(0.05)
                    for byte in handshake(door, token("ada")).encode()[:-1]:
                        client.sendall(bytes([byte]))
                        with contextlib.suppress(TimeoutError):
                            if not client.recv(1):
                                return
                    raise AssertionError("it goes on and on")

                with contextlib.suppress(OSError):
                    await asyncio.to_thread(drip)

        async def is_empty():
            return (await door.stats())["handshakes_now"] == 0

        await until(is_empty, "the half-open sockets to go")


@case(own=True, both_ios=True)
async def half_open_handshakes_of_an_address_make_room_for_its_next(start):
    limited = {"RINGROOM_NETWORK__UNLIMITED": "", "RINGROOM_NETWORK__HALF_OPEN": "8", "RINGROOM_NETWORK__ATTEMPTS": "unlimited"}
    async with secured(start, **limited) as door:
        hello = client_hello(door.ssl)
        for said in (b"", hello[:100], hello):
            crowd = []
            for _ in range(40):
                reader, writer = await asyncio.open_connection(door.host, door.port, local_addr=("127.9.0.1", 0))
                writer.write(said)
                crowd.append(writer)

            async def is_bounded():
                return (await door.stats())["handshakes_now"] <= 10

            await until(is_bounded, "the half-open handshakes to go")
            await talks(door)
            for writer in crowd:
                writer.close()
        assert count(await door.stats(), "refused.half_open") >= 90


def crowd_of(door, number, said):
    """So many sockets of so many addresses that they are one another's strangers; each says this and waits."""
    crowd = []
    for nth in range(number):
        one = socket.socket()
        one.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        one.bind((f"127.{100 + nth // 250 // 250 % 100}.{nth // 250 % 250}.{nth % 250 + 1}", 0))
        one.settimeout(PATIENCE_S)
        one.connect((door.host, door.port))
        crowd.append(one)
        if said:
            one.sendall(said)
    return crowd


@case(own=True)
async def ten_thousand_half_open_handshakes_are_bounded_and_harm_nobody(start):
    number = 10_000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    async with secured(start, RINGROOM_NETWORK__UNLIMITED="", RINGROOM_LIMITS__HANDSHAKE_MS="8000") as door:
        hello = client_hello(door.ssl)
        await talks(door)
        plain = type("Plain", (), {"host": door.gateway.host, "port": door.gateway.port})
        grown = {}
        # What the first crowd leaves behind in the allocator is not held against the next.
        for what, where, said in (
            ("plain", plain, b"GET /ws?token="), ("silent", door, b""), ("half a hello", door, hello[:200]), ("a hello", door, hello),
        ):
            resident = door.gateway.resident_kib()
            before = count(await door.stats(), "refused.handshake_time")
            async with Neighbour.beside(door) as neighbour, Neighbour.beside(door.gateway):
                crowd = await asyncio.to_thread(crowd_of, where, number, said)
                most, waiting = 0, 0
                for _ in range(5):
                    said_before = neighbour.said
                    await talks(door)
                    waiting = max(waiting, (await door.stats())["handshakes_now"])
                    most = max(most, door.gateway.resident_kib() - resident)
                    await until(lambda: neighbour.said > said_before, "the neighbour to go on")

                async def are_gone():
                    nonlocal most
                    most = max(most, door.gateway.resident_kib() - resident)
                    return (await door.stats())["handshakes_now"] < 10

                await until(are_gone, f"{what}: the crowd to be gone", 2 * PATIENCE_S)
                assert waiting <= number, (what, waiting)
                assert count(await door.stats(), "refused.handshake_time") > before, what
                for one in crowd:
                    one.close()
            grown[what] = most / 1024
        print(f"     10,000 half-open sockets, MiB at most: {', '.join(f'{what} {mib:.1f}' for what, mib in grown.items())}")
        # HEADS_BYTES_MAX of each shard, and what the sockets themselves need.
        for what, mib in grown.items():
            assert mib < 2 * 16 + 32, grown


@case(own=True)
async def thousands_of_failed_handshakes_leave_nothing_behind(start):
    async with secured(start) as door, Neighbour.beside(door):
        hello = client_hello(door.ssl)
        old = client_hello(door.authority.context(version=TLS_1_2))
        distrustful = ssl.create_default_context()
        empty = bytes([HANDSHAKE, 3, 1, 0, 4, 1, 0, 0, 0])
        sayings = (b"GET / HTTP/1.1\r\n\r\n", hello[:150], hello + b"\x00" * 64, old, empty)

        def fail(times):
            for nth in range(times):
                with socket.create_connection((door.host, door.port), timeout=PATIENCE_S) as one:
                    kind = nth % 6
                    try:
                        if kind == 5:
                            # Tells the gateway that its certificate is not trusted.
                            with contextlib.suppress(ssl.SSLError), distrustful.wrap_socket(one, server_hostname=door.host):
                                raise AssertionError("it is trusted")
                            continue
                        one.sendall(sayings[kind])
                        one.shutdown(socket.SHUT_WR)
                        while one.recv(1 << 16):
                            pass
                    except ConnectionError:
                        pass

        async def settled():
            return (await door.stats())["handshakes_now"] == 0

        await asyncio.to_thread(fail, 1_200)
        await until(settled, "the handshakes to be over")
        resident, files, before = door.gateway.resident_kib(), descriptors(door.gateway), count(await door.stats(), "tls_failed.*")
        await asyncio.to_thread(fail, 6_000)
        await until(settled, "the handshakes to be over")
        failed = count(await door.stats(), "tls_failed.*") - before
        assert failed >= 4_000, f"{failed} of 6,000 were counted"
        await until(lambda: descriptors(door.gateway) <= files + 2, "the files to be closed")
        grown = door.gateway.resident_kib() - resident
        assert grown < 3 * 1024, f"{grown} KiB more after 6,000 failed handshakes"


@case(own=True, both_ios=True)
async def a_stalled_reader_behind_tls_is_closed_told_why_and_recovers(start):
    async with secured(start, **NARROW) as door:
        for version in VERSIONS.values():
            way = door.speaking(version=version)
            room, closed = fresh("chat:stalled"), await closed_as_slow(door)
            stalled = [await Reader.member(way, room) for _ in range(6)]
            writer, bob = await Client.open(way, fresh("user")), await Client.open(way, fresh("user"))
            await bob.join(room)
            for reader in stalled:
                reader.hold()

            async def bob_has_it(n):
                assert (await bob.push("big", room))["data"]["n"] == n, "somebody who reads missed something"

            published = await publish_until_closed(door, writer, room, closed + len(stalled), bob_has_it)
            # An outbox (1 MiB) and what is on its way, each; the frames themselves are shared.
            for reader in stalled:
                reader.go_on()
                seen, code, reason = await reader.rest("big", room)
                assert code == 4410 and reason, (code, reason)
                assert [push["data"]["n"] for push in seen] == list(range(len(seen))), "not what was queued, in order"
                assert 0 < len(seen) < published, f"{len(seen)} of {published}: was it stalled at all?"
                reader.drop()
                again = await Client.open(way, reader.user)
                resumed = (await again.join(room, since=seen[-1]["mid"]))["resumed"]
                assert resumed == {"recovered": True, "replayed": published - len(seen), "gap": False}, resumed
                missed = await again.several("big", published - len(seen), room)
                assert [push["data"]["n"] for push in missed] == list(range(len(seen), published)), "lost, doubled or mixed"
                await again.close()
            assert bob.closed is None
            await writer.close()
            await bob.close()


@case(own=True)
async def many_stalled_readers_behind_tls_cost_what_plain_ones_do(start):
    async with secured(start, **NARROW) as door:
        grown = {}
        for what, where in (("plain", door.gateway), ("TLS", door)):
            room = fresh("chat:many")
            writer = await Client.open(door.gateway, fresh("user"))
            stalled = [await Reader.member(where, room) for _ in range(200)]
            for reader in stalled:
                reader.hold()
            resident = door.gateway.resident_kib()
            # Less than what closes them: they all hold their outboxes.
            for n in range(12):
                await writer.publish(room, "big", {"n": n, "fill": FILL}, exclude_self=True)
            await writer.settled()
            grown[what] = door.gateway.resident_kib() - resident
            for reader in stalled:
                reader.drop()
            await writer.close()
        # What was encrypted and not taken is one flush of a reader at most.
        print(f"     200 stalled readers, KiB: {grown}")
        assert grown["TLS"] - grown["plain"] < 200 * 128, grown


# What is true without TLS is true with it.


def also_over_tls(modules, but):
    """Runs cases of other files once more, over TLS, `but` those that make sockets or origins without it themselves."""

    def twin(function, own):
        async def over_tls(start):
            with Authority.here() as authority:
                certificate = authority.issued()

                async def start_with_tls(*arguments, **options):
                    gateway = await start(*arguments, **{
                        "RINGROOM_TLS__LISTEN": "127.0.0.1:0", "RINGROOM_TLS__CERTIFICATE_FILE": certificate.path,
                        "RINGROOM_TLS__KEY_FILE": certificate.key_path, **options,
                    })
                    return Door(gateway, authority)

                await function(start_with_tls if own else await start_with_tls())

        over_tls.__name__ = f"{function.__name__}_over_tls"
        case(own=True)(over_tls)

    for function, _, own in list(CASES):
        if function.__module__ in modules and function.__name__ not in but:
            twin(function, own)


also_over_tls(
    {"cases_rooms", "cases_slow", "cases_strict", "cases_deflate", "cases_msgpack", "cases_sse", "cases_emit"},
    but={"an_event_stream_begins_with_when_to_come_back_and_who_one_is", "who_emits_and_does_not_read_the_answers_is_held_back"},
)
