"""What clients of server-sent events say at `/emit`, and how it is answered."""

import asyncio
import json
import random
import time

from cases_limits import DEFAULT
from cases_slow import NARROW
from cases_socketio import grows_by_at_most
from engine_client import Http, request
from sse_client import Stream, body_of, emit, error_of, said, users_at_home
from support import PATIENCE_S, Client, Neighbour, case, fresh, token, until


@case(both_ios=True, own=True)
async def what_a_stream_emits_is_answered_with_the_reply(start):
    for shards in (1, 2):
        gateway = await start(shards=shards)
        for user in await users_at_home(gateway):
            room = fresh("chat:emit")
            stream = await Stream.open(gateway, user)
            jwt = token(user)
            # Every other one lands on the shard that does not have the stream.
            for number in range(2):
                assert (await said(gateway, stream, "ping"))["ts"] > 0
            joined = await said(gateway, stream, "room:join", {"room": room})
            assert (joined["room"], joined["seq"], joined["members"]) == (room, 0, 1), joined
            native = await Client.open(gateway, fresh("native"))
            await native.join(room)
            text = {"text": "größe 🎉"}
            ack = await said(gateway, stream, "room:publish", {"room": room, "event": "chat", "data": text})
            for member in (native, stream):
                push = await member.push("chat", room)
                assert (push["mid"], push["from"], push["data"]) == (ack["mid"], user, text), push
            await said(gateway, stream, "room:publish", {"room": room, "event": "quiet", "exclude_self": True})
            await native.push("quiet", room)
            assert (await said(gateway, stream, "room:online", {"room": room}))["total"] == 2
            assert room in (await said(gateway, stream, "room:list"))["rooms"]
            answer = await said(gateway, stream, "room:join-many", {"rooms": [fresh("chat:a"), "platform.x"]})
            assert (len(answer["joined"]), len(answer["failed"])) == (1, 1), answer
            page = await said(gateway, stream, "room:history", {"room": room})
            assert [message["mid"] for message in page["messages"]][0] == ack["mid"], page
            assert await said(gateway, stream, "room:leave", {"room": room}) == {}
            assert not stream.waiting("quiet"), "not to itself"
            # The ways to say the token, the id as it was given, and none at all.
            http = await Http.open(gateway)
            for id in (1, -(1 << 63), (1 << 63) - 1, "text", "größe", ""):
                body = json.dumps({"conn": stream.conn, "id": id, "event": "ping"})
                answer = await http.request("POST", "/emit", body, Authorization=f"Bearer {jwt}")
                assert (answer.status, answer.json()["id"]) == (200, id), answer
            answer = await http.request("POST", f"/emit?token={jwt}", body_of(stream.conn, "ping"))
            assert (answer.status, answer.json()["id"], answer.json()["ok"]) == (200, None, True), answer
            answer = await http.request("POST", "/emit", body_of(stream.conn, "ping"), Cookie=f"token={jwt}")
            assert answer.status == 200, answer
            # Fields come in any order.
            body = '{"data":{},"extra":[1,{"conn":2}],"event":"ping","id":7,"conn":"%s"}' % stream.conn
            answer = await http.request("POST", "/emit", body, Authorization=f"Bearer {jwt}")
            assert (answer.status, answer.json()["id"]) == (200, 7), answer
            http.close()
            # Nothing of it came over the stream but pushes.
            assert not stream.replies and not stream.waiting("error"), stream.events
            await stream.drop()
            await native.close()


@case(both_ios=True)
async def rooms_joined_by_emit_are_followed_as_long_as_the_stream_lasts(gateway):
    user, followed, joined = fresh("user"), fresh("chat:followed"), fresh("chat:joined")
    native = await Client.open(gateway, fresh("native"))
    pos = (await native.join(joined))["pos"]
    for n in range(150):
        await native.publish(joined, "chat", {"n": n})
    stream = await Stream.open(gateway, user, [followed])
    await stream.joined(followed)
    # What was there before comes by the stream too.
    data = await said(gateway, stream, "room:join", {"room": joined, "since": pos})
    assert data["resumed"] == {"recovered": True, "replayed": 150, "gap": False}, data
    pushes = await stream.several("chat", 150, joined)
    assert [push["data"]["n"] for push in pushes] == list(range(150)), "replayed out of order"
    await native.publish(followed, "chat", {"n": "followed"})
    id = (await stream.push("chat", followed))["event_id"]
    await native.publish(joined, "chat", {"n": 150})
    push = await stream.push("chat", joined)
    assert push["data"] == {"n": 150}, push
    assert [push["event_id"] for push in (*pushes, push)] == [None] * 151, "no place to come back to"
    assert stream.last_event_id == id
    await stream.drop()
    again = await Stream.open(gateway, user, [followed], last_event_id=id)
    await again.joined(followed)
    assert sorted((await said(gateway, again, "room:list"))["rooms"]) == sorted([f"user:{user}", followed])
    await again.drop()
    await native.close()


@case(both_ios=True)
async def every_refusal_of_an_emit_has_its_status(gateway):
    user = fresh("user")
    jwt = token(user)
    stream = await Stream.open(gateway, user)
    moderator = await Stream.open(gateway, user, jwt=token(user, roles=["moderator"]))
    room = fresh("chat:status")
    await said(gateway, moderator, "room:join", {"room": room})
    for conn, event, data, status, code in (
        (stream.conn, "room:join", {}, 400, "bad_request"),
        (stream.conn, "room:join", {"room": "bad name"}, 400, "bad_request"),
        (stream.conn, "room:publish", {"room": room}, 400, "bad_request"),
        (stream.conn, "room:publish", {"room": room, "event": "connected"}, 403, "forbidden"),
        (stream.conn, "room:join", {"room": "platform.x"}, 403, "forbidden"),
        (stream.conn, "room:update", {"room": room, "data": {}}, 403, "forbidden"),
        (stream.conn, "room:leave", {"room": room}, 404, "not_member"),
        (stream.conn, "no:such", {}, 404, "unknown_event"),
        (moderator.conn, "room:update", {"room": room, "data": {"x": "y" * 20_000}}, 413, "too_large"),
        (stream.conn, "auth:refresh", {"token": "bad"}, 401, "unauthorized"),
        (stream.conn, "room:join", {"room": room, "since": "nonsense"}, 400, "bad_request"),
    ):
        answer = await emit(gateway, jwt, conn, event, data)
        error_of(answer, status, code)
        reply = answer.json()
        assert reply["ok"] is False and isinstance(reply["id"], int), reply
    many = [f"chat:{n}" for n in range(101)]
    answer = await emit(gateway, jwt, stream.conn, "room:join-many", {"rooms": many})
    error_of(answer, 422, "too_many")
    for one in (stream, moderator):
        assert not one.ended
        await one.drop()


@case(both_ios=True)
async def an_emit_needs_the_token_of_its_streams_user(gateway):
    user = fresh("user")
    stream, other = await Stream.open(gateway, user), await Stream.open(gateway, fresh("other"))
    expired = token(user, exp=int(time.time()) - 60)
    for jwt in (None, "bad", token(user, secret="another secret of at least 32 bytes, no?"), expired):
        error_of(await emit(gateway, jwt, stream.conn, "ping"), 401, "unauthorized", "token_expired")
    for jwt in (token(other.user), token(user, tenant="elsewhere"), token(user.upper())):
        for _ in range(2):
            error_of(await emit(gateway, jwt, stream.conn, "ping"), 403, "forbidden")
    # Another token of the same user is as good.
    assert (await emit(gateway, token(user, exp=int(time.time()) + 60), stream.conn, "ping")).status == 200
    for one in (stream, other):
        await one.drop()


@case(both_ios=True)
async def an_emit_for_a_stream_that_is_not_there_is_not_found(gateway):
    user = fresh("user")
    jwt = token(user)
    stream, native = await Stream.open(gateway, user), await Client.open(gateway, user)
    conn = stream.conn
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    unknown = [
        "x" * 28, "0" * 28, "~" * 28, "", conn[:-1], conn + "0", conn + conn, native.connected["conn"], "größe", "\u0000",
        "x" * 100_000,
    ]
    for _ in range(60):
        at = chance.randrange(28)
        other = chance.choice([one for one in "0123456789ABCXYZabcxyz-_" if one != conn[at]])
        unknown.append(conn[:at] + other + conn[at + 1 :])
    for one in unknown:
        answer = await emit(gateway, jwt, one, "room:join", {"room": fresh("chat:never")})
        error_of(answer, 404, "not_found")
    assert (await said(gateway, stream, "room:list"))["rooms"] == [f"user:{user}"], "one of them was found"
    await stream.drop()

    async def gone():
        answer = await emit(gateway, jwt, conn, "ping")
        return answer if answer.status != 200 else None

    error_of(await until(gone, "the end of the stream to be noticed"), 404, "not_found")
    await native.close()


@case(both_ios=True)
async def a_body_that_is_no_request_is_a_bad_one(gateway):
    user = fresh("user")
    jwt = token(user)
    stream = await Stream.open(gateway, user)
    http = await Http.open(gateway)
    conn = f'"conn":"{stream.conn}"'
    good = conn + ',"event":"ping"'
    for body in (
        # No object.
        "", " ", "x", "{", "[]", "1", "null", '"text"', "\0", "\x93", "conn=x&event=ping",
        b"\xef\xbb\xbf{%s}" % good.encode(),
        "{%s}x" % good, "{%s,}" % good, b'{%s,"data":"\xff"}' % good.encode(), '{%s,"data":%s}' % (good, "[" * 100_000),
        '{%s,"data":%s}' % (good, "[" * 100 + "]" * 100),
        # No stream, or several.
        "{}", '{"event":"ping"}', '{"conn":1,"event":"ping"}', '{"conn":null,"event":"ping"}', "{%s,%s}" % (conn, good),
        # No request.
        "{%s}" % conn, '{%s,"event":1}' % conn, '{%s,"event":""}' % conn, '{%s,"event":"no name"}' % conn,
        '{%s,"event":"ping"}' % good, '{%s,"id":1,"id":2}' % good, '{%s,"id":{}}' % good, '{%s,"id":1.5}' % good,
        '{%s,"id":"%s"}' % (good, "x" * 65), '{%s,"data":1,"data":1}' % good,
    ):
        answer = await emit(gateway, jwt, None, None, body=body, http=http)
        error_of(answer, 400, "bad_request")
    # The same connection still serves who does better.
    assert (await emit(gateway, jwt, stream.conn, "ping", http=http)).status == 200
    http.close()
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        body = None if method == "GET" else "{}"
        answer = await request(gateway, method, "/emit", body, Authorization=f"Bearer {jwt}")
        error_of(answer, 405, "bad_request")
        assert answer.headers["allow"] == "POST, OPTIONS", answer
    http = await Http.open(gateway)
    http.write(f"POST /emit HTTP/1.1\r\nAuthorization: Bearer {jwt}\r\nContent-Length: 2\r\n\r\n{{}}")
    error_of(await http.answer(), 400, "bad_request")
    http.close()
    for path in ("/emit/", "/emit/x", "/EMIT", "/emits"):
        assert (await request(gateway, "POST", path, "{}", Authorization=f"Bearer {jwt}")).status == 404, path
    await stream.drop()


@case(both_ios=True)
async def emits_on_one_connection_are_answered_in_their_order(gateway):
    users = [fresh("user") for _ in range(6)]
    streams = [await Stream.open(gateway, user) for user in users]
    http = await Http.open(gateway)
    # Behind each other, for streams of all shards, good and bad.
    asked = []
    for n in range(120):
        stream = streams[n % len(streams)]
        conn = stream.conn if n % 7 else "x" * 28
        asked.append(200 if n % 7 else 404)
        body = body_of(conn, "room:publish", {"room": "chat:order", "event": "chat"}, id=n)
        http.ask("POST", "/emit", body, Authorization=f"Bearer {token(stream.user)}")
    seqs = []
    for n, status in enumerate(asked):
        answer = await http.answer()
        assert answer.status == status, (n, answer)
        if status == 200:
            assert answer.json()["id"] == n, answer
            seqs.append(answer.json()["data"]["seq"])
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), seqs
    http.close()
    for stream in streams:
        await stream.drop()


@case(both_ios=True, own=True)
async def a_body_may_come_in_chunks_late_or_not_at_all(start):
    gateway = await start(RINGROOM_LIMITS__MESSAGE_BYTES="50000", RINGROOM_LIMITS__HANDSHAKE_MS="2000")
    user = fresh("user")
    stream = await Stream.open(gateway, user)
    head = f"POST /emit HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(user)}\r\n"
    body = body_of(stream.conn, "ping", id=1).encode()
    http = await Http.open(gateway)
    http.write(head + "Transfer-Encoding: chunked\r\n\r\n")
    for byte in body:
        http.write(b"1\r\n%c\r\n" % byte)
        if byte == ord(":"):
            await asyncio.sleep(0.01)
    http.write("0\r\n\r\n")
    answer = await http.answer()
    assert (answer.status, answer.json()["id"]) == (200, 1), answer
    # Byte by byte.
    for byte in f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body:
        http.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await http.answer()).status == 200
    http.write(f"{head}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n")
    line = await asyncio.wait_for(http.reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    assert line == b"HTTP/1.1 100 Continue\r\n\r\n", line
    http.write(body)
    assert (await http.answer()).status == 200
    # As much as a message may have, and more than that: announced, with a question first, and in chunks.
    fill = body_of(stream.conn, "ping", {"fill": ""})
    fill = fill.replace('"fill": ""', '"fill": "%s"' % ("x" * (50_000 - len(fill))))
    assert len(fill) == 50_000
    assert (await emit(gateway, token(user), None, None, body=fill)).status == 200
    for more in (f"{1 << 40}", "60000\r\nExpect: 100-continue", f"{(1 << 64) - 1}"):
        http = await Http.open(gateway)
        http.write(f"{head}Content-Length: {more}\r\n\r\n")
        error_of(await http.answer(), 413, "too_large")
        http.close()
    http = await Http.open(gateway)
    http.write(head + "Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(6):
        http.write(b"2710\r\n" + b" " * 10_000 + b"\r\n")
    http.write(b"0\r\n\r\n")
    error_of(await http.answer(), 413, "too_large")
    http.close()
    # Who sends too little is given up.
    http = await Http.open(gateway)
    http.write(f"{head}Content-Length: 100\r\n\r\n{{")
    heard = await http.cut()
    assert heard == b"" or heard.startswith(b"HTTP/1.1 408") or heard.startswith(b"HTTP/1.1 400"), heard
    assert not stream.ended
    await stream.drop()


@case(both_ios=True)
async def many_emit_at_once_for_one_stream(gateway):
    user, room = fresh("user"), fresh("chat:many")
    stream = await Stream.open(gateway, user, [room])
    await stream.joined(room)

    async def talk(by):
        http = await Http.open(gateway)
        acks = []
        for n in range(40):
            data = {"room": room, "event": "chat", "data": {"by": by, "n": n}}
            acks.append(await said(gateway, stream, "room:publish", data, http=http))
        http.close()
        return acks

    acked = await asyncio.gather(*[talk(by) for by in range(25)])
    pushes = await stream.several("chat", 1_000, room)
    assert [push["seq"] for push in pushes] == list(range(1, 1_001)), "gaps or repeats"
    assert {ack["mid"] for acks in acked for ack in acks} == {push["mid"] for push in pushes}
    for by in range(25):
        assert [push["data"]["n"] for push in pushes if push["data"]["by"] == by] == list(range(40)), by
    await stream.drop()


@case(both_ios=True, own=True)
async def who_emits_and_does_not_read_the_answers_is_held_back(start):
    gateway = await start(**NARROW)
    users = await users_at_home(gateway)
    async with Neighbour.beside(gateway), grows_by_at_most(gateway, 64, "60 MB of emits whose answers nobody reads"):
        for user in users:
            room = fresh("chat:held")
            stream = await Stream.open(gateway, user)
            reader, writer = await asyncio.open_connection(gateway.host, gateway.port, limit=4096)
            writer.transport.pause_reading()
            http = Http(gateway, reader, writer)
            fill = "x" * 30_000
            for n in range(1_000):
                data = {"room": room, "event": "chat", "data": {"n": n, "fill": fill}}
                body = json.dumps({"conn": stream.conn, "id": n, "event": "room:publish", "data": data})
                http.ask("POST", "/emit", body, Authorization=f"Bearer {token(user)}")
            await asyncio.sleep(1)
            writer.transport.resume_reading()
            for n in range(1_000):
                answer = await http.answer()
                assert (answer.status, answer.json()["id"]) == (200, n), (n, answer)
            http.close()
            await stream.drop()


@case(both_ios=True, own=True)
async def who_leaves_before_the_answer_leaves_nothing_behind(start):
    gateway = await start()
    streams = [await Stream.open(gateway, user) for user in await users_at_home(gateway)]
    async with Neighbour.beside(gateway), grows_by_at_most(gateway, 16, "2,000 emits whose clients left"):
        for number in range(2_000):
            stream = streams[number % len(streams)]
            http = await Http.open(gateway)
            body = body_of(stream.conn, "room:info", {"room": f"chat:{number % 50}"}, id=number)
            http.ask("POST", "/emit", body, Authorization=f"Bearer {token(stream.user)}")
            if number % 2:
                await asyncio.sleep(0)
            http.writer.transport.abort()
        # More than may wait at a time, were they still waited for.
        for stream in streams:
            answers = await asyncio.gather(*[emit(gateway, token(stream.user), stream.conn, "ping") for _ in range(60)])
            assert [answer.status for answer in answers] == [200] * 60, answers
    for stream in streams:
        await stream.drop()


@case(own=True)
async def emits_are_paid_for_as_requests_are(start):
    gateway = await start(**{**DEFAULT, "RINGROOM_LIMITS__CONN_BURST": "20", "RINGROOM_LIMITS__CONN_PER_S": "1"})
    room = fresh("chat:paid")
    stream = await Stream.open(gateway, fresh("greedy"), [room])
    assert stream.connected["limits"]["requests"] == {"burst": 20, "count": 1, "per_ms": 1000}, stream.connected
    await stream.joined(room)
    http, passed = await Http.open(gateway), 0
    for number in range(40):
        data = {"room": room, "event": "chat", "data": number}
        answer = await emit(gateway, token(stream.user), stream.conn, "room:publish", data, http=http)
        if answer.status == 200:
            passed += 1
            continue
        error = error_of(answer, 429, "rate_limited")
        assert error["limit"] == "conn" and 1 <= error["retry_after_ms"] <= 1_000, error
        assert answer.headers["retry-after"] == "1", answer
    # One join was paid for, and a few come back meanwhile.
    assert 19 <= passed < 40, passed
    pushed = await stream.several("chat", passed, room)
    assert [push["data"] for push in pushed][:19] == list(range(19))
    http.close()
    await stream.drop()


@case(own=True)
async def who_goes_on_emitting_though_refused_loses_the_stream(start):
    gateway = await start(RINGROOM_LIMITS__CONN_BURST="10", RINGROOM_LIMITS__CONN_PER_S="1")
    stream = await Stream.open(gateway, fresh("flood"))
    jwt, statuses = token(stream.user), []
    async with Neighbour.beside(gateway):
        http = await Http.open(gateway)
        for at in range(0, 1_000, 50):
            for n in range(50):
                http.ask("POST", "/emit", body_of(stream.conn, "room:list", id=at + n), Authorization=f"Bearer {jwt}")
            statuses += [(await http.answer()).status for _ in range(50)]
    code, reason = await stream.until_ended()
    assert code == 4429 and reason.startswith("rate limited"), (code, reason)
    order = [status for at, status in enumerate(statuses) if at == 0 or statuses[at - 1] != status]
    assert order[0] == 200 and order[-1] == 404 and set(statuses) == {200, 429, 404}, order
    assert 500 <= statuses.count(429) <= 510, statuses.count(429)
    http.close()
