"""Bad input: each gets its coded answer or close, is counted, and a neighbour notices nothing."""

import asyncio
import json
import socket

from support import (
    BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Client, Neighbour, Raw, case, count, counted, fresh, frame, handshake,
    token, until,
)


async def refused_head(gateway, data, status, half_close=False):
    """The answer to a request head that must not become a WebSocket."""
    raw = await Raw.open(gateway)
    try:
        raw.write(data)
        if half_close:
            raw.writer.write_eof()
        got, text = await raw.answer()
        assert got == status, (got, status, data[:100], text[:300])
        return text
    except ConnectionResetError:
        raise AssertionError(f"reset instead of {status} for {data[:100]!r}") from None
    finally:
        raw.drop()


@case(both_ios=True)
async def malformed_request_heads_are_answered_with_their_status(gateway):
    good = handshake(gateway, token("alice"))
    cases = [
        ("GARBAGE\r\n\r\n", 400),
        ("GET /ws\r\n\r\n", 400),
        ("GET  /ws HTTP/1.1\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\x00" * 40 + "\r\n\r\n", 400),
        ("GET /ws HTTP/1.1\r\nHost: a\r\nno colon here\r\n\r\n", 400),
        ("GET /ws HTTP/1.1\r\nHo st: a\r\n\r\n", 400),
        ("GET /ws HTTP/1.1\r\nHost: a\x00b\r\n\r\n", 400),
        (good.replace("HTTP/1.1", "HTTP/9.9"), 505),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 400),
        (good.replace("GET", "POST", 1), 405),
        (good.replace("/ws", "/no-such-path", 1), 404),
    ]
    async with Neighbour.beside(gateway):
        for head, status in cases:
            async with counted(gateway, "refused"):
                await refused_head(gateway, head.encode("latin-1"), status)


@case(both_ios=True)
async def upgrades_that_break_a_rule_are_refused(gateway):
    jwt = token("alice")
    cases = [
        (handshake(gateway, jwt, without=["Host"]), 400),
        (handshake(gateway, jwt, Host=["a", "b"]), 400),
        (handshake(gateway, jwt, without=["Sec-WebSocket-Key"]), 400),
        (handshake(gateway, jwt, Sec_WebSocket_Key="c2hvcnQ="), 400),
        (handshake(gateway, jwt, Sec_WebSocket_Key="!!!!!!!!!!!!!!!!!!!!!!=="), 400),
        (handshake(gateway, jwt, Sec_WebSocket_Key=["dGhlIHNhbXBsZSBub25jZQ=="] * 2), 400),
        (handshake(gateway, jwt, Sec_WebSocket_Version="8"), 426),
        (handshake(gateway, jwt, without=["Sec-WebSocket-Version"]), 426),
        (handshake(gateway, jwt, Sec_WebSocket_Version=["13", "13"]), 400),
        (handshake(gateway, jwt, without=["Upgrade"]), 426),
        (handshake(gateway, jwt, Upgrade="h2c"), 426),
        (handshake(gateway, jwt, without=["Connection"]), 400),
        (handshake(gateway, jwt, Content_Length="5"), 400),
        (handshake(gateway, jwt, Sec_WebSocket_Protocol="chat.v9"), 400),
    ]
    async with Neighbour.beside(gateway):
        for head, status in cases:
            async with counted(gateway, "refused"):
                text = await refused_head(gateway, head.encode(), status)
            if status == 426 and "Upgrade" in head and "websocket" in head:
                assert "sec-websocket-version: 13" in text.lower(), text


@case(both_ios=True)
async def oversized_request_heads_are_refused(gateway):
    async with Neighbour.beside(gateway):
        async with counted(gateway, "refused"):
            long_header = handshake(gateway, token("alice"), X_Long="x" * 20_000)
            await refused_head(gateway, long_header.encode(), 431)
        async with counted(gateway, "refused"):
            many = "".join(f"X-{n}: 1\r\n" for n in range(400))
            await refused_head(gateway, handshake(gateway)[:-2].encode() + many.encode() + b"\r\n", 431)
        async with counted(gateway, "refused"):
            # Never a line end: refused at the bound, not at the end.
            await refused_head(gateway, b"GET /" + b"a" * 20_000, 431)


@case(both_ios=True, own=True)
async def a_head_that_takes_too_long_is_cut_off(start):
    gateway = await start(RINGROOM_LIMITS__HANDSHAKE_MS="1500")
    async with Neighbour.beside(gateway):
        silent = await Raw.open(gateway)
        trickling = await Raw.open(gateway)

        async def trickle():
            for byte in handshake(gateway, token("slow")).encode():
                trickling.write(bytes([byte]))
                await trickling.writer.drain()
                await asyncio.sleep(0.05)

        async with counted(gateway, "refused", 2):
            drops = asyncio.create_task(trickle())
            for raw in (silent, trickling):
                try:
                    status, text = await raw.answer()
                    assert status in (None, 408), text
                except ConnectionError:
                    # Reset, or found broken by whoever still writes.
                    pass
            drops.cancel()
            await asyncio.gather(drops, return_exceptions=True)
        for raw in (silent, trickling):
            raw.drop()
        # A thousand half-open ones neither stop a new client nor stay.
        half_open = await asyncio.gather(*[Raw.open(gateway) for _ in range(500)])
        for raw in half_open:
            raw.write("GET /ws HTTP/1.1\r\n")
        async with counted(gateway, "refused", 400):
            late = await Client.open(gateway, fresh("user"))
            await late.ok("ping")
            await late.close()
        for raw in half_open:
            raw.drop()


@case(both_ios=True)
async def frames_against_the_rules_close_with_1002(gateway):
    cases = {
        "unmasked": frame(TEXT, b"{}", masked=False),
        "a reserved bit": frame(TEXT, b"{}", rsv=4),
        "another reserved bit": frame(TEXT, b"{}", rsv=1),
        "a reserved opcode": frame(3, b""),
        "a reserved control opcode": frame(11, b""),
        "a fragmented ping": frame(PING, b"", fin=False),
        "a long ping": frame(PING, b"p" * 126),
        "a continuation of nothing": frame(CONTINUATION, b"{}"),
        "a text inside a text": frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"),
        "a close of one byte": frame(CLOSE, b"\x03"),
        "a close with a code that is none": frame(CLOSE, b"\x03\xed"),
    }
    room = fresh("chat:frames")
    async with Neighbour.beside(gateway, room):
        for what, data in cases.items():
            async with counted(gateway, "closes.1002"):
                raw = await Raw.member(gateway, room)
                raw.write(data)
                code, reason = await raw.closed()
                assert code == 1002, (what, code, reason)
                raw.drop()


@case(both_ios=True)
async def an_oversized_message_closes_with_1009_before_it_is_sent(gateway):
    room = fresh("chat:large")
    async with Neighbour.beside(gateway, room):
        resident = gateway.resident_kib()
        for data in (
            # Announced, and never sent.
            frame(TEXT, b"{", length=2 << 20),
            frame(TEXT, b"{", length=1 << 62),
            # In pieces that are each small enough.
            b"".join(frame(TEXT if n == 0 else CONTINUATION, b" " * 300_000, fin=False) for n in range(5)),
        ):
            async with counted(gateway, "closes.1009"):
                raw = await Raw.member(gateway, room)
                raw.write(data)
                code, reason = await raw.closed()
                assert code == 1009, (code, reason)
                raw.drop()
        assert gateway.resident_kib() < resident + 64 * 1024, "an announced length was reserved"


@case(both_ios=True)
async def the_largest_message_is_served(gateway):
    room = fresh("chat:largest")
    alice, bob = await Client.open(gateway, fresh("user")), await Client.open(gateway, fresh("user"))
    await bob.join(room)
    head = '{"id":"big","event":"room:publish","data":{"room":"%s","event":"big","data":"' % room
    text = head + "x" * ((1 << 20) - len(head) - 3) + '"}}'
    assert len(text) == 1 << 20
    await alice.socket.send(text)
    reply = await alice.reply("big")
    if reply["ok"]:
        assert len((await bob.push("big", room))["data"]) > 1_000_000
    else:
        assert reply["error"]["code"] == "too_large", reply
    await alice.close()
    await bob.close()


@case(both_ios=True)
async def a_flood_of_fragments_is_bounded(gateway):
    room = fresh("chat:fragments")
    async with Neighbour.beside(gateway, room):
        raw = await Raw.member(gateway, room)
        async with counted(gateway, "closes", 1):
            raw.frame(TEXT, b"", fin=False)
            one = frame(CONTINUATION, b"", fin=False)
            try:
                for _ in range(20):
                    raw.write(one * 1_000)
                    await raw.writer.drain()
                code, reason = await raw.closed()
                assert code in (1008, 1009), (code, reason)
            except ConnectionResetError:
                pass
        raw.drop()


@case(both_ios=True)
async def invalid_utf8_closes_with_1007_even_when_split_over_fragments(gateway):
    room = fresh("chat:utf8")
    cases = [
        [b'{"event":"\xff"}'],
        # A surrogate, and a sequence that is too long for its character.
        [b'{"event":"\xed\xa0\x80"}'],
        [b'{"event":"\xc0\xaf"}'],
        # Begun in one fragment, wrong in the next.
        [b'{"event":"\xe2\x82', b'"}'],
        [b'{"event":"\xf0\x9f', b"\x8e", b'"}'],
        # Cut off at the end of the message.
        [b'"\xe2\x82'],
    ]
    async with Neighbour.beside(gateway, room):
        for parts in cases:
            async with counted(gateway, "closes.1007"):
                raw = await Raw.member(gateway, room)
                for at, part in enumerate(parts):
                    raw.frame(TEXT if at == 0 else CONTINUATION, part, fin=at + 1 == len(parts))
                code, reason = await raw.closed()
                assert code == 1007, (parts, code, reason)
                raw.drop()
        # Wrong on arrival: the end of the message is not waited for.
        raw = await Raw.member(gateway, room)
        raw.frame(TEXT, b'{"event":"\xff', fin=False)
        assert (await raw.closed())[0] == 1007
        raw.drop()
        # A character split over fragments is fine.
        raw = await Raw.member(gateway, room)
        whole = json.dumps({"id": "é🎉", "event": "ping"}, ensure_ascii=False).encode()
        for at in range(len(whole)):
            raw.frame(TEXT if at == 0 else CONTINUATION, whole[at : at + 1], fin=at + 1 == len(whole))
        while (await raw.message()).get("id") != "é🎉":
            pass
        raw.drop()


@case(both_ios=True)
async def a_close_reason_that_is_not_utf8_is_refused(gateway):
    raw = await Raw.upgraded(gateway, token(fresh("raw")))
    raw.frame(CLOSE, b"\x03\xe8\xff\xfe")
    assert (await raw.closed())[0] in (1002, 1007)
    raw.drop()


@case(both_ios=True)
async def binary_messages_are_refused_where_json_is_spoken(gateway):
    raw = await Raw.upgraded(gateway, token(fresh("raw")))
    raw.frame(BINARY, b"\x81\xa2id\x01")
    code, reason = await raw.closed()
    assert code in (1003, 4400), (code, reason)
    raw.drop()


BAD_MESSAGES = {
    "empty": "",
    "blank": "  ",
    "no JSON": "hello",
    "truncated": '{"event":"ping","data":{',
    "trailing": '{"event":"ping"} x',
    "two values": '{"event":"ping"}{"event":"ping"}',
    "an array": "[1,2]",
    "a number": "17",
    "null": "null",
    "a trailing comma": '{"event":"ping",}',
    "single quotes": "{'event':'ping'}",
    "a bare word": '{"event":ping}',
    "a control character in a string": '{"event":"pi\x01ng"}',
    "half an escape": '{"event":"\\u12"}',
    "a lone surrogate": '{"event":"\\ud800"}',
    "a leading zero": '{"event":"ping","data":{"n":01}}',
    "deep arrays": '{"event":"ping","data":' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep objects": '{"event":"ping","data":' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "}",
    "deep and truncated": '{"event":"ping","data":' + "[" * 500_000,
    "a repeated event": '{"event":"ping","event":"room:list"}',
    "repeated data": '{"event":"ping","data":{},"data":{}}',
    "a repeated id": '{"id":1,"id":2,"event":"ping"}',
    "a repeated id by another spelling": '{"id":1,"\\u0069d":2,"event":"ping"}',
    "no event": '{"id":1}',
    "an event that is no text": '{"event":7}',
    "an empty event": '{"event":""}',
    "a long event": '{"event":"%s"}' % ("e" * 65),
    "an event with a space": '{"event":"pi ng"}',
    "a long id": '{"id":"%s","event":"ping"}' % ("i" * 65),
    "an id that is a list": '{"id":[],"event":"ping"}',
    "an id with a fraction": '{"id":1.5,"event":"ping"}',
    "an unending number": '{"event":"ping","data":' + "9" * 200_000 + "e}",
}


@case(both_ios=True)
async def messages_that_are_no_request_get_a_coded_error_and_the_connection_stays(gateway):
    room = fresh("chat:json")
    async with Neighbour.beside(gateway, room):
        client = await Client.open(gateway, fresh("user"))
        await client.join(room)
        for what, text in BAD_MESSAGES.items():
            async with counted(gateway, "errors"):
                replies = sum(len(replies) for replies in client.replies.values())
                await client.socket.send(text)

                def answered():
                    return client.waiting("error") or sum(map(len, client.replies.values())) > replies

                await until(answered, f"an error for {what}")
                if client.waiting("error"):
                    error = json.dumps((await client.push("error"))["data"])
                else:
                    last = [replies[-1] for replies in client.replies.values() if not replies[-1]["ok"]][-1]
                    error = json.dumps(last["error"])
                assert '"bad_request"' in error, (what, error)
                assert len(error) < 500, f"{what}: an error of {len(error)} bytes"
            client.replies.clear()
            await client.settled()
        assert client.closed is None
        await client.close()


@case(both_ios=True)
async def huge_json_of_many_values_is_served_or_refused_in_time(gateway):
    room = fresh("chat:huge")
    async with Neighbour.beside(gateway, room):
        client = await Client.open(gateway, fresh("user"))
        await client.join(room)
        for data in ("[" + "1," * 300_000 + "1]", "{" + ",".join(f'"k{n}":1' for n in range(60_000)) + "}"):
            await client.socket.send('{"id":"h","event":"room:publish","data":{"room":"%s","event":"h","data":%s}}' % (room, data))
            reply = await client.reply("h")
            assert reply["ok"] or reply["error"]["code"] in ("bad_request", "too_large"), reply
            client.replies.clear()
        await client.close()


@case(both_ios=True)
async def requests_out_of_bounds_are_refused_by_code(gateway):
    room = fresh("chat:bounds")
    publish = {"room": room, "event": "chat", "data": 1}
    cases = [
        ("no:such", {}, "unknown_event"),
        ("room:joi", {}, "unknown_event"),
        ("room:join", {}, "bad_request"),
        ("room:join", [], "bad_request"),
        ("room:join", {"room": 7}, "bad_request"),
        ("room:join", {"room": ""}, "bad_request"),
        ("room:join", {"room": "r" * 129}, "bad_request"),
        ("room:join", {"room": "no spaces"}, "bad_request"),
        ("room:join", {"room": "../etc"}, "bad_request"),
        ("room:join", {"room": "émile"}, "bad_request"),
        ("room:join", {"room": "user:somebody"}, "forbidden"),
        ("room:join", {"room": "user.somebody.notes"}, "forbidden"),
        ("room:join", {"room": "tenant.other.news"}, "forbidden"),
        ("room:join", {"room": "platform.security"}, "forbidden"),
        ("room:join", {"room": "performance.dashboard"}, "forbidden"),
        ("room:join-many", {"rooms": ["a"] * 10_000}, "too_many bad_request"),
        ("room:join-many", {"rooms": "a"}, "bad_request"),
        ("room:publish", {}, "bad_request"),
        ("room:publish", {"room": room}, "bad_request"),
        ("room:publish", {**publish, "event": "e" * 65}, "bad_request"),
        ("room:publish", {**publish, "event": "e@e"}, "bad_request"),
        ("room:publish", {**publish, "event": "message:new"}, "forbidden bad_request"),
        ("room:publish", {**publish, "event": "connected"}, "forbidden bad_request"),
        ("room:publish", {**publish, "event": "platform.security.alert"}, "forbidden bad_request"),
        ("room:publish", {**publish, "rooms": [room]}, "bad_request"),
        ("room:publish", {**publish, "cid": "c" * 129}, "bad_request"),
        ("room:publish", {**publish, "cid": ""}, "bad_request"),
        ("room:publish", {**publish, "exclude_self": "yes"}, "bad_request"),
        ("room:publish", {"rooms": [], "event": "chat"}, "bad_request"),
        ("room:publish", {"rooms": [f"r{n}" for n in range(101)], "event": "chat"}, "too_many bad_request"),
        ("room:publish", {"user": "u" * 129, "event": "chat"}, "bad_request"),
        ("room:publish", {"user": "a\nb", "event": "chat"}, "bad_request"),
        ("room:leave", {"room": "chat:never-joined"}, "not_member"),
        ("room:history", {"room": room, "limit": -1}, "bad_request"),
        ("room:history", {"room": room, "limit": "ten"}, "bad_request"),
        ("room:history", {"room": room, "since": 7}, "bad_request"),
        ("room:online", {"room": "user:somebody"}, "forbidden"),
        ("room:update", {"room": room, "data": {}}, "forbidden"),
    ]
    async with Neighbour.beside(gateway, room):
        client = await Client.open(gateway, fresh("user"))
        await client.join(room)
        for event, data, codes in cases:
            async with counted(gateway, "errors"):
                error = await client.refused(event, data)
                assert error["code"] in codes.split(), (event, str(data)[:80], error)
                assert "Error(" not in error["message"] and "src/" not in error["message"], error
        assert client.closed is None
        await client.close()


@case
async def a_connection_may_be_in_a_thousand_rooms_and_no_more(gateway):
    client = await Client.open(gateway, fresh("user"))
    word = fresh("chat:limit")
    joined = 0
    for at in range(0, 1_000, 100):
        answer = await client.ok("room:join-many", {"rooms": [f"{word}.{n}" for n in range(at, at + 100)]})
        joined += len(answer["joined"])
    assert 990 <= joined <= 1_000, joined
    codes = set()
    for n in range(20):
        reply = await client.request("room:join", {"room": f"{word}.more.{n}"})
        codes.add(reply["ok"] or reply["error"]["code"])
    assert "too_many" in codes, codes
    await client.ok("room:leave", {"room": f"{word}.0"})
    await client.close()


@case(both_ios=True)
async def a_client_that_never_reads_is_closed_and_its_room_does_not_wait(gateway):
    room = fresh("chat:deaf")
    async with Neighbour.beside(gateway, room) as neighbour:
        resident = gateway.resident_kib()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (gateway.host, gateway.port))
        loop = asyncio.get_running_loop()
        join = json.dumps({"id": 1, "event": "room:join", "data": {"room": room}}).encode()
        await loop.sock_sendall(sock, handshake(gateway, token(fresh("deaf"))).encode() + frame(TEXT, join))
        writer, reader = await Client.open(gateway, fresh("user")), await Client.open(gateway, fresh("user"))
        await reader.join(room)

        async def both_in():
            return (await writer.ok("room:online", {"room": room}))["total"] == 3

        await until(both_in, "the deaf client to be in the room")

        async def read(number):
            for n in range(number):
                assert (await reader.push("big", room))["data"]["n"] == n, "the reader missed something"

        async with counted(gateway, "closes.4410"):
            reading = asyncio.create_task(read(1_500))
            for n in range(1_500):
                await writer.publish(room, "big", {"n": n, "fill": "x" * 60_000}, exclude_self=True)
                if n % 8 == 7:
                    # Nobody who reads is to fall behind by more than a connection may.
                    await asyncio.gather(reader.settled(), neighbour.client.settled())
            await reading
        # Ninety megabytes were meant for it; what it costs is bounded.
        assert gateway.resident_kib() < resident + 48 * 1024, "what is not read piles up"
        assert neighbour.client.closed is None
        sock.close()
        await writer.close()
        await reader.close()


@case(both_ios=True)
async def a_client_that_floods_is_answered_in_turn_or_refused_and_harms_nobody(gateway):
    room = fresh("chat:flood")
    async with Neighbour.beside(gateway, room):
        flooder = await Raw.member(gateway, room)
        number = 20_000

        async def flood():
            for at in range(0, number, 500):
                burst = [frame(TEXT, b'{"id":%d,"event":"ping"}' % n) for n in range(at, at + 500)]
                flooder.write(b"".join(burst))
                await flooder.writer.drain()

        flooding = asyncio.create_task(flood())
        answered = set()
        while len(answered) < number:
            opcode, payload = await flooder.receive()
            if opcode == CLOSE:
                assert payload[:2] in (b"\x11\x4d", b"\x03\xf0"), payload
                break
            message = json.loads(payload)
            if "ok" in message:
                assert message["id"] not in answered, "answered twice"
                assert message["ok"] or message["error"]["code"] == "rate_limited", message
                answered.add(message["id"])
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        flooder.drop()


@case(both_ios=True)
async def a_client_that_floods_and_never_reads_costs_a_bounded_amount(gateway):
    room = fresh("chat:flood-deaf")
    async with Neighbour.beside(gateway, room):
        resident = gateway.resident_kib()
        slow_before = count(await gateway.stats(), "closes.4410")
        flooder = await Raw.upgraded(gateway, token(fresh("flooder")))
        burst = frame(TEXT, b'{"id":1,"event":"room:list","data":{}}') * 2_000

        async def flood():
            while True:
                flooder.write(burst)
                await flooder.writer.drain()

        # Its reads are not stopped by us: the transport is paused, so the kernel's buffers fill.
        flooder.writer.transport.pause_reading()
        flooding = asyncio.create_task(flood())

        async def ended():
            return flooding.done() or count(await gateway.stats(), "closes.4410") > slow_before

        await until(ended, "the flooder to be cut off", 60)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        assert gateway.resident_kib() < resident + 48 * 1024, "unread answers pile up"
        flooder.drop()


@case(both_ios=True)
async def a_flood_of_pings_is_answered_within_bounds(gateway):
    async with Neighbour.beside(gateway):
        raw = await Raw.upgraded(gateway, token(fresh("pinger")))
        raw.write(b"".join(frame(PING, b"%d" % n) for n in range(5_000)))
        raw.send_json({"id": "end", "event": "ping"})
        pongs = []
        while True:
            opcode, payload = await raw.receive()
            if opcode == PONG:
                pongs.append(int(payload))
            elif opcode == TEXT and json.loads(payload).get("id") == "end":
                break
            assert opcode != CLOSE, payload
        # Only the latest need an answer (RFC 6455 section 5.5.3), in order.
        assert pongs and pongs == sorted(set(pongs)), pongs[:20]
        raw.drop()


@case(both_ios=True)
async def connections_that_vanish_mid_message_leave_nothing_behind(gateway):
    room = fresh("chat:vanish")
    async with Neighbour.beside(gateway, room) as neighbour:
        for n in range(60):
            raw = await Raw.member(gateway, room)
            raw.write(frame(TEXT, b'{"event":"room:publish"', fin=False) if n % 2 else frame(TEXT, b"{", length=5_000))
            await raw.writer.drain()
            raw.writer.transport.abort()

        async def alone():
            return (await neighbour.client.ok("room:online", {"room": room}))["total"] == 1

        await until(alone, "the vanished to have left the room")


@case
async def a_stranger_to_http_and_websocket_is_let_go(gateway):
    async with Neighbour.beside(gateway):
        for data in (b"\x00" * 100, b"\xff" * 20_000, b"SSH-2.0-OpenSSH_9.6\r\n", b"\r\n" * 9_000):
            raw = await Raw.open(gateway)
            raw.write(data)
            raw.writer.write_eof()
            try:
                status, text = await raw.answer()
                assert status in (None, 400, 408, 431), text
            except ConnectionResetError:
                pass
            raw.drop()
