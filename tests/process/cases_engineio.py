"""Engine.IO v4, said and heard by hand: what the protocol document asks of a server, and what servers get wrong.

The server is `examples/socketio_app.rs`: `/engine.io/` says back what it is told. Requests go over connections of
their own, so with two shards every other one lands on the shard that does not have the session.
"""

import asyncio
import json
import os
import random

from engine_client import (
    QUERY, TRANSPORTS, Gone, Http, Polling, Socket, packets_of, payload_of, probed, request, upgraded,
)
from support import BINARY, PATIENCE_S, TEXT, Raw, case, frame, handshake, until

PAYLOAD_BYTES = 1_000_000
PACKETS_MAX = 16
PATHS = ("/engine.io/", "/socket.io/")
# The protocol's own test suite asks for these.
BRISK_S = (0.3, 0.2)
# Where a heartbeat must not come between, or not decide.
QUIET_S = (25, 20)


async def app(start, heartbeat_s=QUIET_S, payload_bytes=PAYLOAD_BYTES, **how):
    """The example application."""
    interval, timeout = (str(round(seconds * 1000)) for seconds in heartbeat_s)
    return await start(
        "--ping-interval", interval, "--ping-timeout", timeout, "--max-payload", str(payload_bytes),
        example="socketio_app", **how,
    )


async def retried(attempt, what):
    """For what needs one request to be there before another: `attempt(delay_s)` is True where it was, False where
    it came too late, and asserts the rest."""
    for delay_ms in (5, 10, 20, 50, 100, 200, 500, 1000, 2000):
        if await attempt(delay_ms / 1000):
            return
    raise AssertionError(f"never seen: {what}")


async def later(delay_s, doing):
    await asyncio.sleep(delay_s)
    return await doing


async def post_fails(session, body):
    answer = await session.post(body)
    assert answer.status == 400, (body, answer)


async def refused_upgrade(gateway, target, *said):
    """The WebSocket does not come about, or is closed with nothing answered."""
    raw = await Raw.open(gateway)
    raw.write(handshake(gateway, path=target))
    head = await raw.head()
    if head.startswith("HTTP/1.1 101 "):
        socket = Socket(raw)
        await socket.say(*said)
        assert await socket.ended() == [], target
    else:
        assert head.startswith("HTTP/1.1 400 "), (target, head)
    raw.drop()


async def echoes(session, *packets):
    # At the same time, as clients do: a POST may wait while nobody polls for what it brings back.
    saying = asyncio.create_task(session.say(*packets))
    heard = [await session.packet() for _ in packets]
    await saying
    assert heard == list(packets), (packets, heard)


# The handshake.


@case(both_ios=True, own=True, oracle=True)
async def an_engine_session_opens_with_what_the_protocol_says(start):
    gateway = await app(start, BRISK_S)
    sids = []
    for path in PATHS:
        for transport, upgrades in ((Polling, ["websocket"]), (Socket, [])):
            for _ in range(10):
                session = await transport.open(gateway, path, query="&t=x1&unheard=of")
                sids.append(session.opened.pop("sid"))
                assert session.opened == {
                    "upgrades": upgrades, "pingInterval": 300, "pingTimeout": 200, "maxPayload": PAYLOAD_BYTES,
                }, session.opened
                session.drop()
        answer = await request(gateway, "GET", f"{path}?transport=polling&t=1&EIO=4")
        assert answer.status == 200 and answer.body.startswith(b"0{"), answer
    assert len(set(sids)) == len(sids) and all(isinstance(sid, str) and len(sid) >= 16 for sid in sids), sids


@case(own=True, oracle=True)
async def what_cannot_open_an_engine_session_is_refused(start):
    gateway = await app(start)
    for path in PATHS:
        for method, target in (
            ("GET", "?transport=polling"),
            ("GET", "?EIO=abc&transport=polling"),
            ("GET", "?EIO=&transport=polling"),
            ("GET", "?EIO=3&transport=polling"),
            ("GET", "?EIO=4"),
            ("GET", "?EIO=4&transport="),
            ("GET", "?EIO=4&transport=abc"),
            ("GET", ""),
            ("POST", "?EIO=4&transport=polling"),
            ("PUT", "?EIO=4&transport=polling"),
            ("GET", "?EIO=4&transport=polling&sid=unknown"),
            ("POST", "?EIO=4&transport=polling&sid=unknown"),
            ("GET", "?EIO=4&transport=polling&sid=%00%ff"),
            ("GET", f"?EIO=4&transport=polling&sid={'x' * 4000}"),
        ):
            answer = await request(gateway, method, path + target, "4x" if method == "POST" else None)
            assert answer.status == 400 and answer.body, (method, path, target, answer)
    assert (await request(gateway, "GET", "/nothing/?EIO=4&transport=polling")).status == 404


# Node writes an HTTP answer behind its 101 here.
@case(own=True)
async def what_cannot_open_an_engine_websocket_is_refused(start):
    gateway = await app(start)
    for path in PATHS:
        for target in (
            "?transport=websocket", "?EIO=abc&transport=websocket", "?EIO=3&transport=websocket", "?EIO=4",
            "?EIO=4&transport=abc", "?EIO=4&transport=websocket&sid=unknown",
        ):
            await refused_upgrade(gateway, path + target)


@case(own=True, oracle=True)
async def an_engine_session_is_of_its_path_alone(start):
    gateway = await app(start)
    session = await Polling.open(gateway, "/engine.io/")
    elsewhere = f"/socket.io/?{QUERY}polling&sid={session.sid}"
    assert (await request(gateway, "GET", elsewhere)).status == 400
    assert (await request(gateway, "POST", elsewhere, "4x")).status == 400
    await refused_upgrade(gateway, f"/socket.io/?{QUERY}websocket&sid={session.sid}")
    await echoes(session, "4still here")


@case(own=True, oracle=True)
async def an_engine_websocket_is_not_compressed_unless_asked_for(start):
    gateway = await app(start)
    raw = await Raw.open(gateway)
    raw.write(handshake(gateway, path=f"/engine.io/?{QUERY}websocket", Sec_WebSocket_Extensions="permessage-deflate"))
    head = await raw.head()
    assert head.startswith("HTTP/1.1 101 ") and "sec-websocket-extensions" not in head.lower(), head


# Messages.


@case(both_ios=True, own=True, oracle=True)
async def engine_messages_come_back_as_they_were(start):
    gateway = await app(start)
    long = "long " * 20_000
    blob = os.urandom(50_000)
    for transport in TRANSPORTS:
        session = await transport.open(gateway)
        await echoes(session, "4hello")
        await echoes(session, "4test1", "4test2", "4test3")
        await echoes(session, "4hello", b"\x01\x02\x03\x04")
        await echoes(session, "4größe 🎉 \u2028", "4", "4" + long, blob, b"\x1e\x1e", bytes(range(256)), "4b", "44")
        session.drop()
    session = await Polling.open(gateway, keep=True)
    # On the wire, and not only as we read it.
    assert (await session.post("4hello\x1ebAQIDBA==")).body == b"ok"
    answer = await session.get()
    assert answer.body == b"4hello\x1ebAQIDBA==", answer
    assert answer.headers["content-type"].lower() == "text/plain; charset=utf-8", answer
    assert int(answer.headers["content-length"]) == len(answer.body)
    session.drop()


@case(own=True, oracle=True)
async def a_poll_waits_for_the_first_packet(start):
    gateway = await app(start)
    session = await Polling.open(gateway)
    for number in range(5):
        poll = asyncio.create_task(session.poll())
        await session.say(f"4{number}")
        assert await poll == [f"4{number}"]


@case(own=True)
async def a_payload_has_at_most_sixteen_packets_and_the_promised_bytes(start):
    gateway = await app(start)
    session = await Polling.open(gateway)
    said = [f"4{number}" for number in range(40)]
    for at in range(0, 40, 10):
        await session.say(*said[at : at + 10])
    heard = [await session.packet() for _ in said]
    assert heard == said, heard
    # Nothing says that all of them are there when the first poll comes; the last polls have them.
    assert max(session.payloads) == PACKETS_MAX and sum(session.payloads) == 40, session.payloads
    said = [f"4{number}" + "x" * 300_000 for number in range(8)]

    async def say():
        for packet in said:
            await session.say(packet)

    saying, heard = asyncio.create_task(say()), []
    while len(heard) < 8:
        answer = await session.get()
        assert answer.status == 200 and len(answer.body) <= PAYLOAD_BYTES, len(answer.body)
        heard += packets_of(answer.body)
    await saying
    assert heard == said


@case(both_ios=True, own=True, oracle=True)
async def many_engine_sessions_lose_nothing_and_double_nothing(start):
    gateway = await app(start)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def visit(transport, how):
        session = await transport.open(gateway, **how)
        said = [chance.choice([f"4{n} größe", bytes([n])]) for n in range(60)]

        async def say():
            at = 0
            while at < len(said):
                number = chance.randint(1, 7)
                await session.say(*said[at : at + number])
                at += number

        saying = asyncio.create_task(say())
        heard = [await session.packet() for _ in said]
        await saying
        assert heard == said, (transport, heard)
        session.drop()

    kinds = [(Polling, {}), (Polling, {"keep": True}), (Socket, {})]
    await asyncio.gather(*[visit(*kinds[n % 3]) for n in range(45)])


# Node says `ok` to such a POST.
@case(both_ios=True, own=True)
async def a_malformed_engine_packet_ends_the_session(start):
    gateway = await app(start)
    for packet in ("abc", "7", "9hello", "4fine\x1eabc"):
        session = await Polling.open(gateway)
        await post_fails(session, packet)
        heard = await session.ended()
        assert heard in ([], ["1"], ["4fine"], ["4fine", "1"]), (packet, heard)
        if "\x1e" not in packet:
            socket = await Socket.open(gateway)
            await socket.say(packet)
            assert await socket.ended() == [], packet


@case(both_ios=True, own=True)
async def a_doubtful_engine_payload_ends_the_session_too(start):
    gateway = await app(start)
    for body in (
        b"", b"\x1e", b"4a\x1e", b"\x1e4a", b"4a\x1e\x1e4b", b"b!!!!", b"bA", b"b====", b"4\xff\xfe",
        b"\x80", b'0{"sid":"mine"}', b"4a\x1eb*",
    ):
        session = await Polling.open(gateway)
        await post_fails(session, body)
        assert set(await session.ended()) <= {"1", "4a"}, body
    for packet in ("", '0{"sid":"mine"}', "bAQID"):
        socket = await Socket.open(gateway)
        await socket.say(packet)
        assert await socket.ended() == [], packet
        assert socket.close_code == 4400, (packet, socket.close_code)


# Polls.


@case(both_ios=True, own=True, oracle=True)
async def two_polls_at_a_time_end_the_session(start):
    gateway = await app(start)

    async def attempt(delay_s):
        session = await Polling.open(gateway)
        first, second = await asyncio.gather(session.get(), later(delay_s, session.get()))
        # Whichever was there first.
        if first.status != 200:
            first, second = second, first
        assert (first.status, first.body) == (200, b"1"), first
        # Node says 500 here.
        assert second.status in (400, 500), second
        assert (await session.get()).status == 400
        assert (await session.post("4x")).status == 400
        return True

    await retried(attempt, "two polls")


@case(both_ios=True, own=True, oracle=True)
async def a_poll_that_is_given_up_ends_the_session(start):
    gateway = await app(start)

    async def attempt(delay_s):
        session = await Polling.open(gateway)
        http = await Http.open(gateway)
        http.ask("GET", session.target)
        await asyncio.sleep(delay_s)
        http.close()

        async def gone():
            return (await session.post("3")).status == 400

        try:
            await until(gone, "the session to end", patience_s=2)
        except AssertionError:
            # It was given up before it was read.
            return False
        return True

    await retried(attempt, "a session that ends with its poll")


@case(both_ios=True, own=True, oracle=True)
async def two_posts_at_a_time_end_the_session(start):
    gateway = await app(start)

    async def attempt(delay_s):
        session = await Polling.open(gateway)
        slow = await Http.open(gateway)
        slow.ask("POST", session.target, b"4he", Content_Length=6)
        await asyncio.sleep(delay_s)
        answer = await session.post("4overtaking")
        slow.close()
        if answer.status == 200:
            return False
        assert answer.status in (400, 500), answer
        assert (await session.get()).status == 400
        return True

    await retried(attempt, "two posts")


@case(own=True, oracle=True)
async def other_methods_leave_an_engine_session_as_it_is(start):
    gateway = await app(start)
    session = await Polling.open(gateway)
    for method in ("PUT", "DELETE", "PATCH"):
        answer = await request(gateway, method, session.target, "4x")
        assert answer.status in (400, 405, 500), (method, answer)
    await echoes(session, "4hello")


# Heartbeats and ends.


@case(both_ios=True, own=True, oracle=True)
async def an_engine_heartbeat_comes_and_is_answered(start):
    # The time-out is not what is tried here.
    gateway = await app(start, (0.3, 20))
    for path in PATHS:
        session = await Polling.open(gateway, path)
        for _ in range(3):
            answer = await session.get()
            assert (answer.status, answer.body) == (200, b"2"), answer
            assert (await session.post("3")).body == b"ok"
        socket = await Socket.open(gateway, path)
        for _ in range(3):
            assert await socket.next() == "2"
            await socket.say("3")
        socket.drop()


@case(both_ios=True, own=True, oracle=True)
async def who_answers_no_engine_heartbeat_is_gone_after_interval_and_timeout(start):
    gateway = await app(start, BRISK_S)
    for path in PATHS:
        session = await Polling.open(gateway, path)
        await asyncio.sleep(sum(BRISK_S))

        async def gone():
            return (await session.get()).status == 400

        await until(gone, "the session to be gone")
        # With a poll that waits for it.
        session = await Polling.open(gateway, path)
        assert await session.ended() in (["2"], ["2", "1"])
        socket = await Socket.open(gateway, path)
        assert await socket.ended() == ["2"]


@case(own=True, oracle=True)
async def an_engine_session_that_talks_but_answers_no_heartbeat_is_gone(start):
    gateway = await app(start, BRISK_S)
    socket = await Socket.open(gateway)

    async def talk():
        while True:
            await socket.say("4still here")
            await asyncio.sleep(0.05)

    talking = asyncio.create_task(talk())
    try:
        heard = await asyncio.wait_for(socket.ended(), PATIENCE_S)
        assert heard.count("2") == 1, heard
    finally:
        talking.cancel()


@case(both_ios=True, own=True, oracle=True)
async def a_polling_session_that_is_closed_is_gone_at_once(start):
    gateway = await app(start)
    for path in PATHS:

        async def attempt(delay_s):
            session = await Polling.open(gateway, path)
            poll, post = await asyncio.gather(session.get(), later(delay_s, session.post("1")))
            assert (post.status, post.body) == (200, b"ok"), post
            assert (await session.get()).status == 400
            if poll.status == 400:
                return False
            assert (poll.status, poll.body) == (200, b"6"), poll
            return True

        await retried(attempt, "a poll that is answered when its session closes")


@case(both_ios=True, own=True)
async def an_engine_session_that_is_closed_is_gone_though_nothing_waits(start):
    gateway = await app(start)
    for path in PATHS:
        session = await Polling.open(gateway, path)
        await session.say("1")
        assert (await session.get()).status == 400
        # What comes behind a close counts no more.
        session = await Polling.open(gateway, path)
        await session.post("1\x1e4late")
        assert (await session.get()).status == 400
        socket = await Socket.open(gateway, path)
        await socket.say("1")
        assert await socket.ended() == []


# The upgrade.


@case(both_ios=True, own=True, oracle=True)
async def a_polling_session_becomes_a_websocket(start):
    gateway = await app(start)
    session = await Polling.open(gateway)
    socket = await probed(session)
    answer = await session.get()
    assert (answer.status, answer.body) == (200, b"6"), answer
    # Still usable both ways until `5`.
    await session.say("4by post")
    await socket.say("5", "4hello", b"\x01\x02")
    assert [await socket.packet() for _ in range(3)] == ["4by post", "4hello", b"\x01\x02"]
    assert (await session.get()).status == 400
    assert (await session.post("4late")).status == 400
    await echoes(socket, "4hello again")


@case(both_ios=True, own=True, oracle=True)
async def a_poll_that_waits_is_answered_by_the_probe(start):
    gateway = await app(start)

    async def attempt(delay_s):
        session = await Polling.open(gateway)
        poll, socket = await asyncio.gather(session.get(), later(delay_s, probed(session)))
        # Whether it was there before the probe or not, the answer is the same.
        assert (poll.status, poll.body) == (200, b"6"), poll
        await socket.say("5")
        await echoes(socket, "4hello")
        socket.drop()
        return delay_s > 0.01

    await retried(attempt, "a poll that the probe ends")


@case(both_ios=True, own=True, oracle=True)
async def an_upgrade_that_waits_for_no_answer_is_one(start):
    gateway = await app(start)
    for path in PATHS:
        for _ in range(10):
            session = await Polling.open(gateway, path)
            socket = await Socket.begun(gateway, path, sid=session.sid)
            await socket.say("2probe", "5")
            assert await socket.next() == "3probe"

            async def refused():
                # Until `5` is read, a poll is answered with a noop.
                answer = await session.get()
                assert answer.status == 400 or answer.body == b"6", answer
                return answer.status == 400

            await until(refused, "polling to be over")
            second = f"{path}?{QUERY}websocket&sid={session.sid}"
            await refused_upgrade(gateway, second)
            if path == "/engine.io/":
                await echoes(socket, "4hello")
            socket.drop()


@case(both_ios=True, own=True, oracle=True)
async def what_follows_an_upgrade_in_its_segment_is_heard(start):
    gateway = await app(start)
    for _ in range(10):
        session = await Polling.open(gateway)
        socket = await Socket.begun(gateway, sid=session.sid)
        said = [f"4{number}" for number in range(50)]
        frames = [frame(TEXT, packet.encode()) for packet in ["2probe", "5", *said]]
        socket.raw.write(b"".join(frames) + frame(BINARY, b"\x07"))
        heard = [await socket.next() for _ in range(52)]
        assert heard == ["3probe", *said, b"\x07"], heard
        socket.drop()


@case(both_ios=True, own=True, oracle=True)
async def the_handshake_of_a_probe_may_bring_everything(start):
    """Head, probe, upgrade and message in one segment: three shards' worth of handing over."""
    gateway = await app(start)
    for _ in range(10):
        session = await Polling.open(gateway)
        raw = await Raw.open(gateway)
        head = handshake(gateway, path=f"/engine.io/?{QUERY}websocket&sid={session.sid}").encode()
        raw.write(head + frame(TEXT, b"2probe") + frame(TEXT, b"5") + frame(TEXT, b"4hello"))
        assert (await raw.head()).startswith("HTTP/1.1 101 ")
        socket = Socket(raw)
        assert [await socket.next(), await socket.next()] == ["3probe", "4hello"]
        raw.drop()


@case(both_ios=True, own=True, oracle=True)
async def a_second_websocket_does_not_take_a_session_over(start):
    gateway = await app(start)
    session = await Polling.open(gateway)
    first = await probed(session)
    # While the first one is still probing.
    await refused_upgrade(gateway, f"/engine.io/?{QUERY}websocket&sid={session.sid}", "2probe")
    await first.say("5")
    await echoes(first, "4hello")
    await refused_upgrade(gateway, f"/engine.io/?{QUERY}websocket&sid={session.sid}")
    await echoes(first, "4hello again")


@case(own=True, oracle=True)
async def a_websocket_session_is_neither_probed_nor_polled(start):
    gateway = await app(start)
    socket = await Socket.open(gateway)
    await refused_upgrade(gateway, f"/engine.io/?{QUERY}websocket&sid={socket.sid}")
    target = f"/engine.io/?{QUERY}polling&sid={socket.sid}"
    assert (await request(gateway, "GET", target)).status == 400
    assert (await request(gateway, "POST", target, "4x")).status == 400
    await echoes(socket, "4hello")


@case(both_ios=True, own=True, oracle=True)
async def a_probe_that_comes_to_nothing_leaves_the_session_polling(start):
    gateway = await app(start)
    session = await Polling.open(gateway)
    (await probed(session)).drop()
    await echoes(session, "4one")
    (await Socket.begun(gateway, sid=session.sid)).drop()
    await echoes(session, "4two")

    async def taken():
        # The one before may not be known to have gone.
        socket = await Socket.begun(gateway, sid=session.sid)
        await socket.say("4no probe")
        heard = await socket.ended()
        assert heard == [], heard
        return True

    assert await taken()
    await echoes(session, "4three")

    async def again():
        socket = await Socket.begun(gateway, sid=session.sid)
        await socket.say("2probe")
        try:
            return socket if await socket.next() == "3probe" else None
        except Gone:
            return None

    socket = await until(again, "another probe to be let in")
    await socket.say("5")
    await echoes(socket, "4four")


@case(own=True, oracle=True)
async def what_no_poll_took_comes_over_the_websocket(start):
    gateway = await app(start)
    for number in (1, 16, 17, 100):
        session = await Polling.open(gateway)
        said = [f"4{n}" if n % 3 else bytes([n]) for n in range(number)]
        await session.say(*said)
        socket = await upgraded(session)
        heard = [await socket.packet() for _ in said]
        assert heard == said, heard
        await echoes(socket, "4last")
        socket.drop()


@case(both_ios=True, own=True, oracle=True)
async def a_post_is_answered_while_nobody_polls_for_an_upgrade(start):
    """Clients poll no more once their probe is answered, and say `5` once their last POST is: whatever that POST
    has answered to it must not keep it waiting."""
    gateway = await app(start)
    session = await Polling.open(gateway)
    socket = await probed(session)
    said = [f"4{n:03}" + "x" * 1000 for n in range(900)]
    await session.say(*said)
    await socket.say("5")
    heard = [await socket.packet() for _ in said]
    assert heard == said
    await echoes(socket, "4hello")


@case(own=True)
async def a_probe_without_an_upgrade_is_given_up(start):
    gateway = await app(start)
    session = await Polling.open(gateway)
    socket = await probed(session)
    assert await socket.ended() == []
    await echoes(session, "4hello")


@case(both_ios=True, own=True, oracle=True)
async def an_engine_websocket_that_is_dropped_ends_its_session(start):
    gateway = await app(start)
    session = await Polling.open(gateway)
    socket = await upgraded(session)
    await echoes(socket, "4hello")
    socket.drop()
    assert (await session.get()).status == 400


# HTTP.


@case(both_ios=True, own=True, oracle=True)
async def requests_of_one_connection_are_answered_in_their_order(start):
    gateway = await app(start)
    sessions = [await Polling.open(gateway) for _ in range(6)]
    http = await Http.open(gateway)
    # Asked and answered one after the other, each naming another session.
    for session in sessions:
        assert (await http.request("POST", session.target, "4one")).body == b"ok"
        assert (await http.request("GET", session.target)).body == b"4one"
    # All at once.
    for number, session in enumerate(sessions):
        http.ask("POST", session.target, f"4{number}a")
        http.ask("POST", session.target, f"4{number}b")
        http.ask("GET", session.target)
        http.ask("GET", f"/engine.io/?{QUERY}polling")
    for number, _ in enumerate(sessions):
        bodies = [await http.answer() for _ in range(4)]
        assert [answer.status for answer in bodies] == [200] * 4, bodies
        assert bodies[2].body == f"4{number}a\x1e4{number}b".encode(), bodies
        assert bodies[3].body[:2] == b"0{"
    # The next one waits until there is something for the poll before it.
    http.ask("GET", sessions[0].target)
    http.ask("POST", sessions[1].target, "4after")
    await sessions[0].say("4first")
    assert (await http.answer()).body == b"4first"
    assert (await http.answer()).body == b"ok"
    assert await sessions[1].packet() == "4after"
    # The connection becomes a probe of yet another session.
    http.write(handshake(gateway, path=f"/engine.io/?{QUERY}websocket&sid={sessions[2].sid}"))
    raw = Raw(http.reader, http.writer)
    assert (await raw.head()).startswith("HTTP/1.1 101 ")
    socket = Socket(raw)
    await socket.say("2probe", "5")
    assert await socket.next() == "3probe"
    await echoes(socket, "4hello")


@case(own=True, oracle=True)
async def a_request_may_come_in_pieces(start):
    gateway = await app(start)
    session = await Polling.open(gateway)
    body = payload_of(["4größe 🎉", b"\x00\xff"])
    head = f"POST {session.target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    http = await Http.open(gateway)
    for byte in head + body:
        http.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await http.answer()).body == b"ok"
    assert await session.packet() == "4größe 🎉" and await session.packet() == b"\x00\xff"
    # The first byte of the next request is the last one of this segment.
    http.write(head + body + b"G")
    assert (await http.answer()).body == b"ok"
    http.write(f"ET {session.target} HTTP/1.1\r\nHost: x\r\n\r\n")
    assert packets_of((await http.answer()).body) == ["4größe 🎉", b"\x00\xff"]


@case(own=True, oracle=True)
async def a_connection_that_is_to_close_closes_after_its_answer(start):
    gateway = await app(start)
    session = await Polling.open(gateway)
    for method, body in (("POST", "4x"), ("GET", None)):
        http = await Http.open(gateway)
        answer = await http.request(method, session.target, body, Connection="close")
        assert answer.status == 200, answer
        assert await http.cut() == b""


# Node reads it all first.
@case(both_ios=True, own=True)
async def a_post_larger_than_the_promise_is_refused(start):
    gateway = await app(start)
    session = await Polling.open(gateway)
    # Exactly as much as was promised.
    packet = "4" + "x" * (PAYLOAD_BYTES - 1)
    await echoes(session, packet)
    # One byte more, of which nothing need be sent.
    http = await Http.open(gateway)
    http.ask("POST", session.target, b"", Content_Length=PAYLOAD_BYTES + 1)
    assert (await http.answer()).status == 413
    http.close()
    for transport in TRANSPORTS:
        await echoes(await transport.open(gateway), "4hello")


@case(own=True)
async def a_post_has_one_length_and_no_other(start):
    gateway = await app(start)
    for headers in (
        {"Content_Length": 2, "Transfer_Encoding": "chunked"},
        {"Content_Length": "2, 2"},
        {"Content_Length": "+2"},
        {"Content_Length": "-1"},
        {"Content_Length": "0x2"},
        {"Content_Length": "99999999999999999999"},
        {"Transfer_Encoding": "gzip, chunked"},
        {"Transfer_Encoding": "identity"},
    ):
        session = await Polling.open(gateway)
        http = await Http.open(gateway)
        http.ask("POST", session.target, "4x", **headers)
        answer = await http.answer()
        assert answer.status in (400, 411, 413, 501), (headers, answer)
        # Nobody knows where the next request begins.
        await http.cut()
    http = await Http.open(gateway)
    session = await Polling.open(gateway)
    http.write(
        f"POST {session.target} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n4x"
    )
    assert (await http.answer()).status == 400
    await http.cut()


@case(own=True)
async def a_chunked_post_is_taken_or_refused_as_a_whole(start):
    gateway = await app(start)
    session = await Polling.open(gateway)
    http = await Http.open(gateway)
    http.write(
        f"POST {session.target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\n4he\r\n3\r\nllo\r\n0\r\n\r\n"
    )
    answer = await http.answer()
    if answer.status == 200:
        assert await session.packet() == "4hello"
        # Larger than it may be, and no length says so before.
        http.write(f"POST {session.target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        http.write(b"186a0\r\n" + b"4" * 100_000 + b"\r\n")
        for _ in range(10):
            http.write(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
        http.write(b"0\r\n\r\n")
        assert (await http.answer()).status == 413
    else:
        assert answer.status in (400, 411, 501), answer
        await http.cut()


@case(own=True)
async def a_post_that_stays_away_is_given_up(start):
    gateway = await app(start)
    session = await Polling.open(gateway)
    http = await Http.open(gateway)
    http.ask("POST", session.target, "4the beginning", Content_Length=1000)
    heard = await http.cut()
    assert heard == b"" or heard.startswith(b"HTTP/1.1 4"), heard


@case(own=True)
async def a_page_of_another_origin_may_poll_where_it_is_listed(start):
    here, there = "https://app.example", "https://elsewhere.example"
    gateway = await app(start, RINGROOM_NETWORK__ORIGINS=here)

    async def asked(method, target, body=None, **headers):
        return await request(gateway, method, target, body, **headers)

    for path in PATHS:
        target = f"{path}?{QUERY}polling"
        preflight = await asked(
            "OPTIONS", target, Origin=here, Access_Control_Request_Method="POST",
            Access_Control_Request_Headers="content-type, x-custom",
        )
        assert preflight.status in (200, 204), preflight
        allowed = {name: value for name, value in preflight.headers.items() if name.startswith("access-control-")}
        assert allowed["access-control-allow-origin"] == here, allowed
        assert allowed["access-control-allow-credentials"] == "true", allowed
        assert "POST" in allowed["access-control-allow-methods"], allowed
        named = allowed["access-control-allow-headers"].lower()
        assert "content-type" in named and "x-custom" in named, allowed
        opened = await asked("GET", target, Origin=here)
        sid = json.loads(opened.body[1:])["sid"]
        answers = [
            opened,
            await asked("POST", f"{target}&sid={sid}", "1", Origin=here),
            # What is refused can be read too, or a page does not know why.
            await asked("GET", f"{target}&sid={sid}", Origin=here),
            await asked("GET", f"{path}?EIO=4", Origin=here),
        ]
        assert [answer.status for answer in answers] == [200, 200, 400, 400], answers
        for answer in answers:
            assert answer.headers["access-control-allow-origin"] == here, answer
            assert answer.headers["access-control-allow-credentials"] == "true", answer
            assert "origin" in answer.headers["vary"].lower(), answer
        stranger = await asked("GET", target, Origin=there)
        assert stranger.status == 403 and "access-control-allow-origin" not in stranger.headers, stranger
        plain = await asked("GET", target)
        assert plain.status == 200 and "access-control-allow-origin" not in plain.headers, plain
        raw = await Raw.open(gateway)
        raw.write(handshake(gateway, path=f"{path}?{QUERY}websocket", Origin=there))
        assert (await raw.head()).startswith("HTTP/1.1 403 ")


# WebSockets of it.


@case(own=True, oracle=True)
async def an_engine_message_over_a_websocket_has_the_same_bound(start):
    gateway = await app(start)
    socket = await Socket.open(gateway)
    await echoes(socket, "4" + "x" * (PAYLOAD_BYTES - 1), os.urandom(PAYLOAD_BYTES))
    await socket.say("4" + "x" * PAYLOAD_BYTES)
    assert await socket.ended() == []
    assert socket.close_code == 1009, socket.close_code


@case(own=True, oracle=True)
async def an_engine_packet_may_come_in_fragments(start):
    gateway = await app(start)
    socket = await Socket.open(gateway)
    for opcode, said, want in ((TEXT, [b"4", b"he", b"", b"llo"], "4hello"), (BINARY, [b"a", b"b"], b"ab")):
        for number, part in enumerate(said):
            socket.raw.frame(opcode if number == 0 else 0, part, fin=number == len(said) - 1)
        assert await socket.packet() == want
