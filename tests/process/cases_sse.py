"""Server-sent events at `/sse`, read by a strict parser of the HTML specification (`sse_client.py`), beside native
clients in the same rooms."""

import asyncio
import json
import random
import re
import resource
import signal
import time

from cases_msgpack import Packed
from cases_slow import FILL, NARROW
from cases_socketio import grows_by_at_most
from engine_client import Http, request
from sse_client import (
    CLOSED, CONTENT_TYPE, JOINED, NONE_RECOVERED, PATH, TOLD_AS, LineParser, Parser, Stream, body_of, emit, error_of,
    recovered, said, settled, users_at_home,
)
from support import PATIENCE_S, Client, Neighbour, Raw, case, count, fresh, handshake, token, until


# The greeting.


@case(both_ios=True)
async def an_event_stream_begins_with_when_to_come_back_and_who_one_is(gateway):
    native = await Client.open(gateway, fresh("native"))
    for how in ("query", "header", "cookie"):
        user = fresh("reader")
        more = {"Origin": f"http://{gateway.host}:{gateway.port}"} if how == "cookie" else {}
        stream = await Stream.open(gateway, user, how=how, parser=Parser, **more)
        assert stream.headers["content-type"].lower() == CONTENT_TYPE, stream.headers
        assert stream.headers["cache-control"] == "no-store", stream.headers
        assert stream.headers["x-accel-buffering"] == "no", stream.headers
        assert stream.headers["connection"].lower() == "close", stream.headers
        assert "transfer-encoding" not in stream.headers, stream.headers
        assert stream.parser.fields[:3] == ["retry", "event", "data"], stream.parser.fields
        assert stream.parser.reconnection_ms == 2000
        first = stream.events[0]
        assert (first.type, first.own_id, set(first.envelope)) == ("connected", None, {"event", "ts", "data"}), first
        assert set(stream.connected) == set(native.connected), (stream.connected, native.connected)
        same = {name: value for name, value in native.connected.items() if name not in ("conn", "user", "name")}
        assert {name: stream.connected[name] for name in same} == same, stream.connected
        assert stream.connected["user"] == user
        assert re.fullmatch(r"[0-9A-Za-z_-]{28}", stream.conn), stream.conn
        await stream.drop()
    await native.close()


@case
async def ids_of_streams_are_never_the_same_and_hardly_alike(gateway):
    streams = await asyncio.gather(*[Stream.open(gateway, "same") for _ in range(50)])
    conns = [stream.conn for stream in streams]
    assert len(set(conns)) == len(conns), conns
    # What nobody can guess: at least half of the characters change from one to the next in most places.
    changing = sum(len({conn[at] for conn in conns}) > 8 for at in range(28))
    assert changing >= 14, conns[:5]
    for stream in streams:
        await stream.drop()


@case(both_ios=True)
async def who_may_not_have_a_stream_is_told_so_before_it_begins(gateway):
    expired = token("late", exp=int(time.time()) - 60)
    for how, jwt, codes in (
        ("nowhere", None, ("unauthorized",)),
        ("query", "not.a.token", ("unauthorized",)),
        ("header", token("eve", secret="another secret of at least 32 bytes, no?"), ("unauthorized",)),
        ("query", expired, ("token_expired", "unauthorized")),
        ("header", token("x" * 200), ("unauthorized",)),
    ):
        answer = await (await Stream.begun(gateway, jwt=jwt, how=how)).refused()
        error_of(answer, 401, *codes)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        http = await Http.open(gateway)
        answer = await http.request(method, f"{PATH}?token={token('x')}", "")
        error_of(answer, 405, "bad_request")
        assert answer.headers["allow"] == "GET, OPTIONS", answer
        http.close()
    for hosts in ("", "Host: x\r\nHost: y\r\n"):
        http = await Http.open(gateway)
        http.write(f"GET {PATH}?token={token('x')} HTTP/1.1\r\n{hosts}\r\n")
        error_of(await http.answer(), 400, "bad_request")
        http.close()
    for path in ("/sse/", "/sse2", "/sse/x", "/SSE"):
        answer = await (await Stream.begun(gateway, "x", path=path)).refused()
        assert answer.status == 404, (path, answer)
    # It is no WebSocket either.
    raw = await Raw.open(gateway)
    raw.write(handshake(gateway, token("x"), path=PATH))
    head = await raw.head()
    assert not head.startswith("HTTP/1.1 101"), head
    raw.drop()


@case(both_ios=True)
async def what_is_said_behind_the_question_is_nobodys(gateway):
    """A stream goes one way. Whatever else comes is not taken for a request and not kept."""
    user = fresh("talker")
    async with Neighbour.beside(gateway), grows_by_at_most(gateway, 16, "20 MB behind the question"):
        for behind in (f"GET /health HTTP/1.1\r\nHost: x\r\n\r\n".encode(), b"x" * 2_000_000, b"\0\xff" * 1000):
            stream = await Stream.open(gateway, user, [room := fresh("chat:behind")])
            await stream.joined(room)
            for _ in range(4):
                stream.writer.write(behind)
            writing = asyncio.create_task(stream.writer.drain())
            native = await Client.open(gateway, fresh("native"))
            ack = await native.publish(room, "chat", {})

            await until(lambda: stream.ended or stream.waiting("chat"), "the stream to go on or to end")
            for push in stream.waiting("chat"):
                assert push["mid"] == ack["mid"], push
            told = {event.type for event in stream.events}
            assert told <= {"connected", JOINED, "chat", CLOSED, "room:member-joined"}, told
            await native.close()
            await stream.drop()
            await asyncio.gather(writing, return_exceptions=True)


# Joins by the query.


@case(own=True)
async def rooms_of_the_query_are_joined_and_each_is_answered(start):
    for shards in (1, 2):
        gateway = await start(shards=shards)
        good = [fresh("chat:query") for _ in range(5)]
        native = await Client.open(gateway, fresh("native"))
        for room in good:
            for _ in range(3):
                await native.publish(room, "chat", {})
        bad = {
            "platform.security": "forbidden", "user:somebody": "forbidden", "no such name!": "bad_request",
            "größe": "bad_request",
        }
        asked = [*good[:3], *bad, *good[3:], good[0]]
        stream = await Stream.open(gateway, fresh("reader"), asked)
        for room in good:
            joined = await stream.joined(room)
            assert (joined["room"], joined["seq"]) == (room, 3), joined
            assert joined["pos"] and joined["epoch"] and "resumed" not in joined, joined
        for room, code in bad.items():
            reply = await stream.reply(room)
            assert reply["ok"] is False and reply["error"]["code"] == code and reply["error"]["message"], reply
        for room in good:
            info = await native.ok("room:info", {"room": room})
            assert (info["members"], info["connections"]) == (1, 1), info
            await native.publish(room, "chat", {"to": room})
            assert (await stream.push("chat", room))["data"] == {"to": room}
        # A name that is there twice counts once.
        assert (await said(gateway, stream, "room:list"))["rooms"].count(good[0]) <= 1
        await said(gateway, stream, "ping")
        assert not stream.waiting("chat"), "doubled"
        # Whoever goes has left.
        await stream.drop()

        async def left():
            return (await native.ok("room:info", {"room": good[0]}))["members"] == 0

        await until(left, "the stream to have left")
        await native.close()


@case(own=True)
async def a_stream_has_the_limits_on_rooms_of_everybody(start):
    gateway = await start(RINGROOM_LIMITS__ROOMS_PER_REQUEST="5", RINGROOM_LIMITS__ROOMS_PER_CONN="4")
    rooms = [fresh("chat:limit") for _ in range(6)]
    # Its own inbox is the fourth.
    stream = await Stream.open(gateway, fresh("reader"), rooms[:4])
    for room in rooms[:3]:
        await stream.joined(room)
    error = (await stream.reply(rooms[3]))["error"]
    assert (error["code"], error["limit"]) == ("too_many", "rooms_per_conn"), error
    answer = await (await Stream.begun(gateway, fresh("reader"), rooms)).refused()
    assert error_of(answer, 422, "too_many")["limit"] == "rooms_per_request"
    await stream.drop()


@case(own=True)
async def a_hundred_rooms_fit_a_question_and_its_id_a_header(start):
    gateway = await start()
    rooms = [fresh("chat:a-rather-long-name-of-a-room") for _ in range(100)]
    user = fresh("reader")
    native = await Client.open(gateway, fresh("native"))
    stream = await Stream.open(gateway, user, rooms)
    for room in rooms:
        await stream.joined(room)
    id = stream.last_event_id
    # As docs/sse.md says, with seqs of up to two digits.
    assert 0 < len(id) <= 8 + 17 * 101, f"{len(id)} bytes of an id for 100 rooms"
    await stream.drop()
    for room in rooms:
        await native.publish(room, "chat", {})
    again = await Stream.open(gateway, user, rooms, last_event_id=id)
    for room in rooms:
        assert (await again.joined(room))["resumed"] == recovered(1), room
        await again.push("chat", room)
    await again.drop()
    await native.close()


# Pushes.


@case(both_ios=True, own=True)
async def a_stream_is_told_what_a_native_client_is_told(start):
    for shards in (1, 2):
        gateway = await start(shards=shards)
        rooms = [fresh("chat:same") for _ in range(4)]
        users = await users_at_home(gateway)
        native = await Client.open(gateway, fresh("native"))
        packed = await Packed.open(gateway, fresh("packed"))
        for room in rooms:
            await native.join(room)
        streams = [await Stream.open(gateway, user, rooms) for user in users]
        for stream in streams:
            for room in rooms:
                await stream.joined(room)
        texts = [
            '{"a":1}', '{ "b" : 1,\t"a":[1.50, -0, 1e5 ,"\\u00e9\\/é🎉"] }', '"just text"', "null", "[]", '""',
            '"\\n\\r\\nid: 7\\n\\nevent: x\\ndata: y"', '"\u2028\u2029\u0085"', '{"a":1,"a":2}',
            '"' + "x" * 70_000 + '"', '"data: x"', '"\ufeff: x"', "12345678901234567890",
        ]
        for number, text in enumerate(texts):
            room = rooms[number % len(rooms)]
            await native.socket.send(
                '{"id":"t","event":"room:publish","data":{"room":"%s","event":"told","data":%s}}' % (room, text)
            )
        for room in rooms:
            await packed.publish(room, "told", {"blob": b"\0\xff" * 10, "n": 2})
            for stream in streams:
                by = {"by": stream.user}
                await said(gateway, stream, "room:publish", {"room": room, "event": "told", "data": by})
        for at, room in enumerate(rooms):
            for _ in range(len(texts[at :: len(rooms)]) + 1 + len(streams)):
                want = await native.push("told", room)
                for stream in streams:
                    push = await stream.push("told", room)
                    assert push["text"] == want["text"], (push["text"][:300], want["text"][:300])
                    assert push["event_id"] and "\n" not in push["event_id"], push
        # Who comes and goes, too.
        visitor = await Client.open(gateway, fresh("visitor"))
        await visitor.join(rooms[0])
        for member in (native, *streams):
            push = await member.push("room:member-joined", rooms[0], lambda push: push["data"]["user"] == visitor.user)
            assert "seq" not in push, push
        for member in (visitor, native, packed):
            await member.close()
        for stream in streams:
            await stream.drop()


@case(both_ios=True)
async def line_ends_of_a_payload_cannot_be_taken_for_the_streams_own(gateway):
    room = fresh("chat:lines")
    streams = [await Stream.open(gateway, fresh("reader"), [room], parser=kind) for kind in (Parser, LineParser)]
    for stream in streams:
        await stream.joined(room)
    native = await Client.open(gateway, fresh("native"))
    await native.join(room)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ends = ["\n", "\r", "\r\n", "\n\n", "\r\r", "\r\n\r\n", "\n\r", " \n", "\t\r\n ", "\n: ", "\n"]

    space = ["", "", " ", "\t", "\n", "\r", "\r\n", "\n\n", "\r\r\n", "\n\r"]
    words = ["id: 1", "event: x", "data: y", "retry: 1", ": c", "", "\n\n", "größe 🎉"]

    def gap():
        return "".join(chance.choices(space, k=3))

    def value(depth):
        kind = chance.randrange(6 if depth < 3 else 3)
        if kind == 0:
            return chance.choice(["1", "null", "true", "-1.5e3", "0"])
        if kind < 3:
            return json.dumps(chance.choice(words))
        if kind < 5:
            inside = [gap() + value(depth + 1) + gap() for _ in range(chance.randrange(4))]
            return "[" + (",".join(inside) or gap()) + "]"
        named = [
            gap() + json.dumps(f"id: {n}\n") + gap() + ":" + gap() + value(depth + 1) + gap()
            for n in range(chance.randrange(4))
        ]
        return "{" + (",".join(named) or gap()) + "}"

    texts = ['{%s"a"%s:%s1%s}' % (end, end, end, end) for end in ends if ":" not in end]
    texts += ["[\n\n\"id: 6\"\n\n,\"event: x\"\r\r]", "[\n" * 30 + "\r]" * 30, "{\r\n\r\n}"]
    texts += [value(0) for _ in range(300)]
    for text in texts:
        await native.socket.send(
            '{"id":"t","event":"room:publish","data":{"room":"%s","event":"lines","data":%s}}' % (room, text)
        )
    for text in texts:
        want = await native.push("lines", room)
        assert f'"data":{text}}}' in want["text"], (text, want["text"])
        for stream in streams:
            push = await stream.push("lines", room)
            assert push["text"] == re.sub("\r\n|\r|\n", "\n", want["text"]), (push["text"], want["text"])
            assert push["data"] == want["data"] and push["seq"] == want["seq"], (push, want)
    for stream in streams:
        assert set(stream.parser.fields) <= {"", "id", "event", "data", "retry"}
        assert stream.parser.reconnection_ms == 2000
        await stream.drop()
    await native.close()


@case
async def nobody_can_publish_what_looks_like_the_streams_own_words(gateway):
    room = fresh("chat:names")
    stream, native = await Stream.open(gateway, fresh("reader"), [room]), await Client.open(gateway, fresh("native"))
    await stream.joined(room)
    forged = {"code": 4401, "reason": "forged", "id": room, "ok": True}
    for name in (JOINED, CLOSED, "connected", "error", "room:joined", "connection:x"):
        error = await native.refused("room:publish", {"room": room, "event": name, "data": forged})
        assert error["code"] == "forbidden", (name, error)
    names = ["reply", "close", "open", "message", "retry", "id", "data", *TOLD_AS.values()]
    for name in names:
        await native.publish(room, name, forged)
    for name in names:
        push = await stream.push(name, room)
        assert push["event_id"] and push["from"] == native.user, push
    assert "open" not in [event.type for event in stream.events]
    assert stream.closed is None and list(stream.replies) == [room], stream.events
    await stream.drop()
    await native.close()


@case(own=True)
async def who_has_no_token_has_a_stream_where_that_is_allowed(start):
    gateway = await start(RINGROOM_ANONYMOUS__ACCESS="allowed")
    room = fresh("chat:open")
    stream = await Stream.open(gateway, rooms=[room], how="nowhere")
    assert stream.connected["user"].startswith("anon:"), stream.connected
    await stream.joined(room)
    native = await Client.open(gateway, fresh("native"))
    await native.publish(room, "chat", {"n": 1})
    await stream.push("chat", room)
    # Who knows the name of its connection is it; nobody with a token is.
    assert (await emit(gateway, None, stream.conn, "ping")).status == 200
    error_of(await emit(gateway, token("somebody"), stream.conn, "ping"), 403, "forbidden")
    error_of(await emit(gateway, None, stream.conn, "room:publish", {"room": room, "event": "chat"}), 403, "forbidden")
    id = stream.last_event_id
    await stream.drop()
    # It comes back as somebody else, to the same places.
    await native.publish(room, "chat", {"n": 2})
    again = await Stream.open(gateway, rooms=[room], how="nowhere", last_event_id=id)
    assert again.connected["user"] != stream.connected["user"]
    assert (await again.joined(room))["resumed"] == recovered(1)
    assert (await again.push("chat", room))["data"] == {"n": 2}
    await again.drop()
    await native.close()


@case(own=True)
async def streams_and_emits_are_counted(start):
    gateway = await start()
    names = ("streams", "streams_opened", "emits", "requests")

    async def counts():
        stats = await gateway.stats()
        return [stats[name] for name in names]

    assert await counts() == [0, 0, 0, 0]
    stream = await Stream.open(gateway, fresh("reader"))
    for _ in range(3):
        await said(gateway, stream, "ping")
    assert await counts() == [1, 1, 3, 3]
    await stream.drop()

    async def gone():
        return await counts() == [0, 1, 3, 3]

    await until(gone, "the stream to be gone")


@case(both_ios=True)
async def a_crowd_of_streams_and_sockets_has_one_order(gateway):
    room = fresh("chat:crowd")
    streams = await asyncio.gather(*[Stream.open(gateway, fresh("reader"), [room]) for _ in range(20)])
    natives = await asyncio.gather(*[Client.open(gateway, fresh("native")) for _ in range(4)])
    for native in natives:
        await native.join(room)
    for stream in streams:
        await stream.joined(room)

    async def natively(native):
        for n in range(50):
            await native.publish(room, "chat", {"n": n, "by": native.user})

    async def by_request(stream):
        http = await Http.open(gateway)
        for n in range(50):
            data = {"room": room, "event": "chat", "data": {"n": n, "by": stream.user}}
            await said(gateway, stream, "room:publish", data, http=http)
        http.close()

    await asyncio.gather(*[natively(native) for native in natives], *[by_request(stream) for stream in streams[:4]])
    orders = []
    for member in (*streams, *natives):
        pushes = await member.several("chat", 8 * 50, room)
        orders.append([(push["seq"], push["mid"], push["from"], push["data"]["n"]) for push in pushes])
    assert all(order == orders[0] for order in orders), "members saw different orders"
    assert [seq for seq, *_ in orders[0]] == list(range(1, 401)), "gaps or repeats"
    for stream in streams[:4]:
        own = [n for _, _, by, n in orders[0] if by == stream.user]
        assert own == list(range(50)), "a publisher's own order was changed"
    for stream in streams:
        await stream.drop()
    for native in natives:
        await native.close()


# Coming back.


@case(both_ios=True, own=True)
async def who_comes_back_to_a_stream_is_told_what_was_missed_once(start):
    for shards in (1, 2):
        gateway = await start(shards=shards)
        native = await Client.open(gateway, fresh("native"))
        for user in await users_at_home(gateway):
            for id_in in ("header", "query"):
                rooms = [fresh("chat:back") for _ in range(3)]
                for room in rooms:
                    await native.publish(room, "chat", {"n": "before"})
                stream = await Stream.open(gateway, user, rooms)
                for room in rooms:
                    await stream.joined(room)
                for n in range(3):
                    await native.publish(rooms[0], "chat", {"n": n})
                await native.ok("room:publish", {"user": user, "event": "note", "data": {"n": 0}})
                await stream.several("chat", 3, rooms[0])
                await stream.push("note")
                id = stream.last_event_id
                await stream.drop()
                for n in range(3, 203):
                    await native.publish(rooms[n % 2], "chat", {"n": n})
                await native.ok("room:publish", {"user": user, "event": "note", "data": {"n": 1}})
                again = await Stream.open(gateway, user, rooms, last_event_id=id, id_in=id_in)
                resumed = [(await again.joined(room))["resumed"] for room in rooms]
                assert resumed == [recovered(100), recovered(100), recovered(0)], resumed
                for at, room in enumerate(rooms[:2]):
                    pushes = await again.several("chat", 100, room)
                    assert [push["data"]["n"] for push in pushes] == [n for n in range(3, 203) if n % 2 == at], room
                assert (await again.push("note"))["data"] == {"n": 1}
                for room in rooms:
                    await native.publish(room, "chat", {"n": "after"})
                    assert (await again.push("chat", room))["data"] == {"n": "after"}
                await said(gateway, again, "ping")
                assert not again.waiting("chat") and not again.waiting("note"), again.pushes
                await again.drop()
        await native.close()


class Returning:
    """Who is cut off again and again, and what it was told: the numbers of each room."""

    def __init__(self, gateway, user, rooms, chance):
        self.gateway, self.user, self.rooms, self.chance = gateway, user, rooms, chance
        self.heard = {room: [] for room in (*rooms, f"user:{user}")}
        self.id, self.cuts, self.stop = None, 0, asyncio.Event()

    async def first(self):
        """Uncut until it is in all rooms."""
        self.stream = await Stream.open(self.gateway, self.user, self.rooms)
        for room in self.rooms:
            await self.stream.joined(room)
        assert self.stream.last_event_id

    def keep(self, stream):
        for push in stream.pushes:
            if push["event"] == "chat":
                assert push["event_id"], push
                self.heard[push["room"]].append((push["seq"], push["data"]["n"]))
        for room, reply in stream.replies.items():
            assert reply["ok"], reply
            resumed = reply["data"].get("resumed")
            assert stream is self.stream or (resumed["gap"], resumed["recovered"]) == (False, True), (room, reply)
        self.id = stream.last_event_id

    async def run(self):
        # The first is cut somewhere too.
        await asyncio.sleep(self.chance.random() / 2)
        await self.stream.drop()
        self.keep(self.stream)
        while not self.stop.is_set():
            few, most = self.chance.choice([(1, 800), (800, 6_000), (6_000, 60_000)])
            stream = await Stream.begun(
                self.gateway, self.user, self.rooms, last_event_id=self.id, bytes_max=self.chance.randint(few, most),
                id_in=self.chance.choice(["header", "query"]), how=self.chance.choice(["header", "query"]),
                buffer=self.chance.choice([None, 4096]),
            )
            while not stream.ended and not self.stop.is_set():
                await asyncio.sleep(0.01)
            await stream.drop()
            assert stream.failed is None, stream.failed
            self.keep(stream)
            self.cuts += 1

    async def last(self, numbers):
        """Uncut until all has come."""
        stream = await Stream.open(self.gateway, self.user, self.rooms, last_event_id=self.id)
        missing = sum(numbers - len(heard) for heard in self.heard.values())

        def has_all():
            return len(stream.waiting("chat")) >= missing or stream.ended

        await until(has_all, f"{missing} messages", 3 * PATIENCE_S)
        await said(self.gateway, stream, "ping")
        await stream.drop()
        self.keep(stream)
        for room, heard in self.heard.items():
            want = [(n + 1, n) for n in range(numbers)]
            wrong = next((at for at in range(numbers) if heard[at : at + 1] != want[at : at + 1]), numbers)
            assert heard == want, f"{self.user} in {room}: {len(heard)}, from {wrong} on {heard[wrong : wrong + 10]}"


# Comments come between, and what is written is cut into many pieces.
IN_PIECES = {**NARROW, "RINGROOM_LIMITS__HEARTBEAT_MS": "50", "RINGROOM_LIMITS__HEARTBEAT_TIME_OUT_MS": "20000"}


@case(both_ios=True, own=True)
async def streams_that_are_cut_anywhere_lose_nothing_and_double_nothing(start):
    await cut_anywhere(await start(**IN_PIECES), numbers=400)


async def cut_anywhere(gateway, numbers):
    """So many messages to each of several rooms, for readers who are cut off again and again."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    rooms = [fresh("chat:cut") for _ in range(4)]
    readers = []
    for user in await users_at_home(gateway):
        for _ in range(3):
            own = random.Random(chance.random())
            readers.append(Returning(gateway, f"{user}.{len(readers)}", chance.sample(rooms, 3), own))
    for reader in readers:
        await reader.first()
    running = [asyncio.create_task(reader.run()) for reader in readers]
    native = await Client.open(gateway, fresh("native"))
    targets = [{"room": room} for room in rooms] + [{"user": reader.user} for reader in readers]
    for n in range(numbers):
        message = {"event": "chat", "data": {"n": n, "fill": "größe" * (n % 40)}}
        await asyncio.gather(*[native.ok("room:publish", {**target, **message}) for target in targets])
        await asyncio.sleep(0.005)
    for reader in readers:
        reader.stop.set()
    await asyncio.gather(*running)
    await asyncio.gather(*[reader.last(numbers) for reader in readers])
    cuts = sum(reader.cuts for reader in readers)
    print(f"     {cuts} cuts", flush=True)
    assert cuts >= 2 * len(readers), "hardly ever cut"
    await native.close()


@case
async def a_position_too_old_for_a_stream_is_an_explicit_gap(gateway):
    old, young = fresh("chat:old"), fresh("chat:young")
    user = fresh("reader")
    stream = await Stream.open(gateway, user, [old, young])
    await stream.joined(old)
    await stream.joined(young)
    await stream.drop()
    native = await Client.open(gateway, fresh("native"))

    async def fill(n):
        for _ in range(n):
            await native.publish(old, "chat", {})

    # Beyond what a room keeps.
    await asyncio.gather(*[fill(40) for _ in range(15)])
    await native.publish(young, "chat", {"n": 1})
    again = await Stream.open(gateway, user, [old, young], last_event_id=stream.last_event_id)
    joined = await again.joined(old)
    assert joined["resumed"] == NONE_RECOVERED, joined
    assert (await again.joined(young))["resumed"] == recovered(1)
    await again.push("chat", young)
    await native.publish(old, "chat", {"n": "new"})
    assert (await again.push("chat", old))["data"] == {"n": "new"}, "older ones came after a gap"
    # From where it is now, there is no gap any more.
    id = again.last_event_id
    await again.drop()
    third = await Stream.open(gateway, user, [old, young], last_event_id=id)
    for room in (old, young):
        assert (await third.joined(room))["resumed"] == recovered(0)
    await third.drop()
    await native.close()


@case
async def an_inbox_that_is_not_kept_that_long_is_an_explicit_gap(gateway):
    user, room = fresh("reader"), fresh("chat:beside")
    stream = await Stream.open(gateway, user, [room])
    await stream.joined(room)
    await stream.drop()
    native = await Client.open(gateway, fresh("native"))

    async def fill(n):
        for _ in range(n):
            await native.ok("room:publish", {"user": user, "event": "note", "data": {}})

    await asyncio.gather(*[fill(40) for _ in range(15)])
    again = await Stream.open(gateway, user, [room], last_event_id=stream.last_event_id)
    error = await again.push("error")
    assert error["data"]["code"] == "gap" and error["data"]["message"], error
    assert (await again.joined(room))["resumed"] == recovered(0)
    await native.ok("room:publish", {"user": user, "event": "note", "data": {"n": "new"}})
    assert (await again.push("note"))["data"] == {"n": "new"}, "older ones came after a gap"
    await again.drop()
    # Told once.
    third = await Stream.open(gateway, user, [room], last_event_id=again.last_event_id)
    assert (await third.joined(room))["resumed"] == recovered(0)
    await said(gateway, third, "ping")
    assert not third.pushes, third.pushes
    await third.drop()
    await native.close()


@case(own=True)
async def ids_that_this_server_did_not_give_for_these_rooms_are_gaps(start):
    one, other = await start(), await start()
    rooms, user = [fresh("chat:foreign") for _ in range(2)], fresh("reader")
    native = await Client.open(one, fresh("native"))

    async def first(gateway, user, rooms):
        stream = await Stream.open(gateway, user, rooms)
        for room in rooms:
            await stream.joined(room)
        await stream.drop()
        return stream.last_event_id

    good = await first(one, user, rooms)
    for room in rooms:
        await native.publish(room, "chat", {"n": "missed"})
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    foreign = {
        "another server's": await first(other, user, rooms),
        "other rooms'": await first(one, user, [fresh("chat:other"), fresh("chat:other")]),
        "fewer rooms'": await first(one, user, rooms[:1]),
        "more rooms'": await first(one, user, [*rooms, fresh("chat:third")]),
    }
    malformed = ["x", "0", ".", "...", good + ".", "." + good, good.replace("-", ""), "-1", "null", "%00",
                 "x" * 8_000, "." * 2_000, "9" * 200, "0-0.0-0.0-0", good + "." + good, "größe"]
    # As bytes they are no UTF-8.
    unreadable = ["\udcff\udcfe"]
    for what, id in [*foreign.items(), *(("malformed", id) for id in [*malformed, *unreadable])]:
        for id_in in ("header",) if id in unreadable else ("header", "query"):
            stream = await Stream.open(one, user, rooms, last_event_id=id, id_in=id_in)
            resumed = [(await stream.joined(room))["resumed"] for room in rooms]
            assert resumed == [NONE_RECOVERED] * 2, (what, id, id_in, resumed)
            await native.publish(rooms[0], "now", {"id": id[:20]})
            assert (await stream.push("now", rooms[0]))["data"] == {"id": id[:20]}
            assert not stream.waiting("chat"), (what, id)
            await stream.drop()
    # One character changed: another position, a foreign one, or none. Never silence.
    for _ in range(60):
        at = chance.randrange(len(good))
        id = good[:at] + chance.choice("0123456789abcXYZ.-_:!~") + good[at + 1 :]
        stream = await Stream.open(one, user, rooms, last_event_id=id)
        for room in rooms:
            resumed = (await stream.joined(room))["resumed"]
            assert resumed["gap"] is not resumed["recovered"], (id, resumed)
        await said(one, stream, "ping")
        await stream.drop()
    stream = await Stream.open(one, user, rooms, last_event_id="")
    for room in rooms:
        assert "resumed" not in await stream.joined(room), "an empty id is none"
    await stream.drop()
    # In another order they may be other rooms, and nothing is lost without a word.
    stream = await Stream.open(one, user, rooms[::-1], last_event_id=good)
    for room in rooms:
        resumed = (await stream.joined(room))["resumed"]
        assert resumed["gap"] or resumed["recovered"], resumed
    await stream.drop()
    await native.close()


@case(both_ios=True)
async def ones_own_inbox_may_be_named_among_the_rooms(gateway):
    user = fresh("reader")
    inbox, room = f"user:{user}", fresh("chat:beside")
    stream, native = await Stream.open(gateway, user, [inbox, room]), await Client.open(gateway, fresh("native"))
    for name in (inbox, room):
        await stream.joined(name)

    async def send(n):
        await native.ok("room:publish", {"user": user, "event": "note", "data": n})

    await send(1)
    assert (await stream.push("note"))["data"] == 1
    await stream.drop()
    for n in (2, 3):
        await send(n)
    again = await Stream.open(gateway, user, [inbox, room], last_event_id=stream.last_event_id)
    await again.joined(room)
    assert [push["data"] for push in await again.several("note", 2)] == [2, 3]
    await send(4)
    assert (await again.push("note"))["data"] == 4
    await said(gateway, again, "ping")
    assert not again.waiting("note"), "doubled"
    await again.drop()
    await native.close()


@case
async def the_header_counts_and_not_the_querys_id(gateway):
    """A browser's EventSource keeps its address, with the position that the page once gave it, and adds the header."""
    room, user = fresh("chat:both"), fresh("reader")
    native = await Client.open(gateway, fresh("native"))
    stream = await Stream.open(gateway, user, [room])
    await stream.joined(room)
    first = stream.last_event_id
    await native.publish(room, "chat", {"n": 1})
    await stream.push("chat")
    await stream.drop()
    await native.publish(room, "chat", {"n": 2})
    again = await Stream.open(gateway, user, [room], last_event_id=stream.last_event_id, query=f"&lastEventId={first}")
    assert (await again.joined(room))["resumed"] == recovered(1)
    assert (await again.push("chat"))["data"] == {"n": 2}
    await again.drop()
    await native.close()


# How long it lasts.


@case(both_ios=True, own=True)
async def a_silent_stream_is_kept_alive_by_comments_and_never_idle(start):
    gateway = await start(
        RINGROOM_LIMITS__HEARTBEAT_MS="200", RINGROOM_LIMITS__HEARTBEAT_TIME_OUT_MS="500",
        RINGROOM_LIMITS__IDLE_MS="700",
    )
    room = fresh("chat:silent")
    stream = await Stream.open(gateway, fresh("reader"), [room])
    await stream.joined(room)
    # Who is the same in all but that it is no stream.
    native = await Client.open(gateway, fresh("native"))
    code, _ = await native.until_closed()
    assert code == 4408, code
    await until(lambda: len(stream.parser.comments) >= 15, "fifteen comments")
    assert not stream.ended and [event.type for event in stream.events] == ["connected", JOINED], stream.events
    native = await Client.open(gateway, fresh("native"))
    await native.publish(room, "chat", {"still": "here"})
    await stream.push("chat", room)
    await said(gateway, stream, "ping")
    await stream.drop()
    await native.close()


@case(own=True)
async def comments_come_as_often_as_configured_and_no_oftener(start):
    gateway = await start(RINGROOM_LIMITS__HEARTBEAT_MS="400", RINGROOM_LIMITS__HEARTBEAT_TIME_OUT_MS="1000")
    began = time.monotonic()
    stream = await Stream.open(gateway, fresh("reader"))
    await until(lambda: len(stream.parser.comments) >= 5, "five comments")
    assert time.monotonic() - began > 5 * 0.4 * 0.5, "faster than said"
    await stream.drop()


@case(both_ios=True, own=True)
async def a_stream_that_is_read_too_slowly_is_closed_and_comes_back_without_a_loss(start):
    gateway = await start(**NARROW)
    room = fresh("chat:slow")
    readers = [await Stream.open(gateway, fresh("reader"), [room], buffer=16_384) for _ in range(4)]
    native, bob = await Client.open(gateway, fresh("native")), await Stream.open(gateway, fresh("bob"), [room])
    for reader in (*readers, bob):
        await reader.joined(room)
    for reader in readers:
        reader.hold()

    async def closed():
        return count(await gateway.stats(), "closes.4410")

    published = 0
    while await closed() < len(readers):
        await native.publish(room, "big", {"n": published, "fill": FILL})
        assert (await bob.push("big", room))["data"]["n"] == published, "somebody who reads missed something"
        published += 1
        assert published < 80, "4.8 MB for an outbox of 1 MiB"
    assert not bob.ended
    for reader in readers:
        reader.go_on()
        told = await reader.until_ended()
        seen = [push["data"]["n"] for push in reader.waiting("big")]
        assert seen == list(range(len(seen))) and 0 < len(seen) < published, (seen, published)
        # What waits may begin with half of an event, so nothing more is told.
        assert told is None, told
        again = await Stream.open(gateway, reader.user, [room], last_event_id=reader.last_event_id)
        assert (await again.joined(room))["resumed"] == recovered(published - len(seen))
        missed = await again.several("big", published - len(seen), room)
        assert [push["data"]["n"] for push in missed] == list(range(len(seen), published)), "lost, doubled or mixed"
        await again.drop()
    await bob.drop()
    await native.close()


@case(both_ios=True, own=True)
async def a_drain_tells_streams_when_to_come_back(start):
    gateway = await start()
    streams = [await Stream.open(gateway, fresh("reader"), [fresh("chat:drain")]) for _ in range(20)]
    ending = asyncio.create_task(gateway.terminate())
    retries = []
    for stream in streams:
        code, reason = await stream.until_ended()
        assert code == 1012, (code, reason)
        assert json.loads(reason)["retry_ms"] > 0, reason
        retries.append(json.loads(reason)["retry_ms"])
        # An EventSource does what the field says, not what the event does.
        assert stream.parser.reconnection_ms == retries[-1], (stream.parser.reconnection_ms, retries[-1])
    assert len(set(retries)) > 5, f"everybody would come back at once: {retries}"
    assert await ending == 0, gateway.tail()


@case(both_ios=True, own=True)
async def who_asks_for_a_stream_during_a_drain_is_told_to_come_back(start):
    gateway = await start()
    # It never answers the close, so the drain has to wait for it.
    silent = await Raw.upgraded(gateway, token("silent"))
    before = [await Http.open(gateway) for _ in range(4)]
    gateway.process.send_signal(signal.SIGTERM)

    async def draining():
        return (await gateway.get("/ready"))[0] == 503

    await until(draining, "the drain")
    heard = []
    for http in before:
        http.ask("GET", f"{PATH}?rooms=chat:1&token={token(fresh('late'))}", Accept="text/event-stream")
        heard.append(await http.cut())
    for one in heard:
        # Or its socket, which had asked nothing, was closed with all others.
        if one:
            head, _, body = one.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ") and b"text/event-stream" in head, one
            parser = Parser()
            assert [event.type for event in parser.feed(body)] in ([], [CLOSED]), one
            assert parser.reconnection_ms > 0, one
    assert any(heard), "none was answered"
    silent.drop()
    assert await asyncio.wait_for(gateway.process.wait(), PATIENCE_S) == 0


@case(both_ios=True, own=True)
async def a_stream_lasts_as_long_as_its_token(start):
    gateway = await start(RINGROOM_JWT__EXPIRING_MS="60000", RINGROOM_JWT__LEEWAY_S="0")
    user, room = fresh("user"), fresh("chat:ends")
    end = int(time.time()) + 30
    jwt = token(user, exp=end)
    stream = await Stream.open(gateway, user, [room], jwt=jwt)
    assert (await stream.push("auth:expiring"))["data"] == {"expires_at": end * 1000}
    forged = token(user, secret="another secret, also of 32 bytes!")
    for bad, status, code in ((token(fresh("other")), 403, "forbidden"), (forged, 401, "unauthorized")):
        error_of(await emit(gateway, jwt, stream.conn, "auth:refresh", {"token": bad}), status, code)
    end = int(time.time()) + 6
    short = token(user, exp=end)
    assert await said(gateway, stream, "auth:refresh", {"token": short}) == {"expires_at": end * 1000}
    assert (await stream.push("auth:expiring"))["data"] == {"expires_at": end * 1000}
    code, reason = await stream.until_ended()
    assert code == 4401 and "expired" in reason, (code, reason)
    assert time.time() >= end, "not before its time"
    # An EventSource comes back by itself, with the same token, and is told not to.
    answer = await (await Stream.begun(gateway, jwt=short, rooms=[room])).refused()
    error_of(answer, 401, "token_expired", "unauthorized")


@case(own=True)
async def streams_that_were_cut_leave_nothing_behind(start):
    gateway = await start()
    room = fresh("chat:gone")
    async with Neighbour.beside(gateway):
        before = await gateway.stats()
        async with grows_by_at_most(gateway, 24, "1,000 streams that were cut"):
            for _ in range(20):
                streams = await asyncio.gather(*[Stream.open(gateway, fresh("user"), [room]) for _ in range(50)])
                for stream in streams:
                    await stream.drop()
        await until(lambda: settled(gateway, before["connections_now"]), "all of them to be gone")
        stats = await gateway.stats()
        assert (stats["streams"], stats["streams_opened"]) == (0, 1_000), stats
        native = await Client.open(gateway, fresh("native"))
        assert (await native.ok("room:info", {"room": room}))["connections"] == 0
        await native.close()


@case(both_ios=True, own=True)
async def thousands_of_streams_are_held_and_told(start):
    number = 2_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * number + 1000)), hard))
    gateway = await start()
    room = fresh("chat:thousands")
    async with Neighbour.beside(gateway), grows_by_at_most(gateway, 16 + number // 64, f"{number:,} streams"):
        streams = []
        for _ in range(number // 50):
            streams += await asyncio.gather(*[Stream.open(gateway, fresh("user"), [room]) for _ in range(50)])
        for stream in streams:
            await stream.joined(room)
        ack = await said(gateway, streams[0], "room:publish", {"room": room, "event": "chat", "data": {"to": "all"}})
        for stream in streams:
            push = await stream.push("chat", room)
            assert (push["mid"], push["from"]) == (ack["mid"], streams[0].user), push
        for stream in streams:
            await stream.drop()


# Who may come.


@case(own=True)
async def streams_and_emits_of_pages_follow_the_origins(start):
    here, there = "https://app.example", "https://elsewhere.example"
    gateway = await start(RINGROOM_NETWORK__ORIGINS=here)
    user = fresh("page")
    jwt = token(user)

    def readable(answer):
        assert answer.headers["access-control-allow-origin"] == here, answer.headers
        assert answer.headers["access-control-allow-credentials"] == "true", answer.headers
        assert "origin" in answer.headers["vary"].lower(), answer.headers

    for target, method in ((PATH, "GET"), ("/emit", "POST")):
        preflight = await request(
            gateway, "OPTIONS", target, Origin=here, Access_Control_Request_Method=method,
            Access_Control_Request_Headers="authorization, content-type, last-event-id",
        )
        assert preflight.status in (200, 204), preflight
        readable(preflight)
        assert method in preflight.headers["access-control-allow-methods"], preflight
        named = preflight.headers["access-control-allow-headers"].lower()
        assert all(name in named for name in ("authorization", "content-type", "last-event-id")), preflight
        stranger = await request(gateway, "OPTIONS", target, Origin=there, Access_Control_Request_Method=method)
        assert "access-control-allow-origin" not in stranger.headers, stranger
    stream = await Stream.open(gateway, user, Origin=here)
    readable(stream)
    answer = await emit(gateway, jwt, stream.conn, "ping", Origin=here)
    assert answer.status == 200
    readable(answer)
    # What is refused can be read too, or a page does not know why.
    answer = await (await Stream.begun(gateway, jwt="bad", Origin=here)).refused()
    error_of(answer, 401, "unauthorized")
    readable(answer)
    answer = await emit(gateway, jwt, "x" * 28, "ping", Origin=here)
    error_of(answer, 404, "not_found")
    readable(answer)
    for answer in (
        await (await Stream.begun(gateway, user, Origin=there)).refused(),
        await (await Stream.begun(gateway, user, how="cookie", Origin=there)).refused(),
        await emit(gateway, jwt, stream.conn, "ping", Origin=there),
    ):
        error_of(answer, 403, "forbidden")
        assert "access-control-allow-origin" not in answer.headers, answer
    plain = await Stream.open(gateway, user)
    assert "access-control-allow-origin" not in plain.headers, plain.headers
    answer = await emit(gateway, None, stream.conn, "ping", Cookie=f"token={jwt}", Origin=here)
    assert answer.status == 200, answer
    for one in (stream, plain):
        await one.drop()


@case(own=True)
async def a_cookie_of_a_page_that_any_lets_in_is_no_token(start):
    gateway = await start(RINGROOM_NETWORK__ORIGINS="any")
    user = fresh("page")
    stream = await Stream.open(gateway, user, Origin="https://elsewhere.example")
    answer = await (await Stream.begun(gateway, user, how="cookie", Origin="https://elsewhere.example")).refused()
    error_of(answer, 403, "forbidden")
    cookie = {"Cookie": f"token={token(user)}", "Origin": "https://elsewhere.example"}
    error_of(await emit(gateway, None, stream.conn, "ping", **cookie), 403, "forbidden")
    await stream.drop()


@case(own=True)
async def users_have_no_more_streams_than_connections(start):
    gateway = await start(RINGROOM_LIMITS__CONNS_PER_USER="2")
    user = fresh("user")
    native, stream = await Client.open(gateway, user), await Stream.open(gateway, user)
    answer = await (await Stream.begun(gateway, user)).refused()
    error_of(answer, 429, "too_many", "rate_limited")
    other = await Stream.open(gateway, fresh("other"))
    await stream.drop()

    async def let_in():
        again = await Stream.begun(gateway, user)
        await until(lambda: again.connected or again.ended, "an answer")
        return again if again.connected else None

    again = await until(let_in, "the place of who went")
    for one in (again, other):
        await one.drop()
    await native.close()


@case(own=True)
async def users_attempts_at_streams_are_counted(start):
    gateway = await start(RINGROOM_LIMITS__ATTEMPTS_PER_USER="3", RINGROOM_LIMITS__ATTEMPTS_PER_USER_MS="60000")
    user = fresh("user")
    for _ in range(3):
        await (await Stream.open(gateway, user)).drop()
    answer = await (await Stream.begun(gateway, user)).refused()
    error = error_of(answer, 429, "rate_limited")
    # Three in a minute.
    assert 10_000 < error["retry_after_ms"] <= 20_000, error
    assert 10 <= int(answer.headers["retry-after"]) <= 20, answer
    await (await Stream.open(gateway, fresh("other"))).drop()


@case(own=True)
async def addresses_attempts_at_streams_are_counted(start):
    # Those of this machine are, where a proxy names them.
    gateway = await start(
        RINGROOM_NETWORK__ATTEMPTS="4", RINGROOM_NETWORK__FAILURES="2", RINGROOM_NETWORK__TRUSTED_PROXIES="127.0.0.1",
        RINGROOM_NETWORK__CONNS_PER_ADDRESS="2",
    )
    patient, bad, many = "192.0.2.1", "192.0.2.2", "192.0.2.3"
    for _ in range(4):
        await (await Stream.open(gateway, fresh("user"), X_Forwarded_For=patient)).drop()
        await until(lambda: settled(gateway, 0), "the stream to be gone")
    answer = await (await Stream.begun(gateway, fresh("user"), X_Forwarded_For=patient)).refused()
    error = error_of(answer, 429, "rate_limited")
    assert error["limit"] == "network.attempts" and int(answer.headers["retry-after"]) >= 1, answer
    for _ in range(2):
        error_of(await (await Stream.begun(gateway, jwt="bad", X_Forwarded_For=bad)).refused(), 401, "unauthorized")
    answer = await (await Stream.begun(gateway, fresh("user"), X_Forwarded_For=bad)).refused()
    assert error_of(answer, 429, "rate_limited")["limit"] == "network.failures"
    streams = [await Stream.open(gateway, fresh("user"), X_Forwarded_For=many) for _ in range(2)]
    answer = await (await Stream.begun(gateway, fresh("user"), X_Forwarded_For=many)).refused()
    error = error_of(answer, 429, "rate_limited", "too_many")
    assert error["limit"] == "network.conns_per_address", error
    for stream in streams:
        await stream.drop()


# What costs nothing.


@case(both_ios=True, own=True)
async def thousands_of_bad_questions_cost_nothing(start):
    gateway = await start()
    user = fresh("user")
    jwt = token(user)
    stream = await Stream.open(gateway, user)
    good = stream.conn
    questions = {
        "no token": ("GET", PATH, None),
        "bad tokens": ("GET", f"{PATH}?token=x.y.z&rooms=a", None),
        "long queries": ("GET", f"{PATH}?token=x&rooms={'room:1,' * 1_000}&lastEventId={'9' * 3_000}", None),
        "unknown conns": ("POST", f"/emit?token={jwt}", body_of("7" * 28, "ping")),
        "no JSON": ("POST", f"/emit?token={jwt}", "{" * 5_000),
        "unknown events": ("POST", f"/emit?token={jwt}", body_of(good, "no:such", {"x": "y" * 5_000})),
        "no paths": ("POST", "/emit/x", "{}"),
        "nobody's emits": ("POST", "/emit", body_of(good, "ping")),
    }
    async with Neighbour.beside(gateway):
        for what, (method, target, body) in questions.items():

            async def ask():
                for n in range(125):
                    http = await Http.open(gateway)
                    answer = await http.request(method, target, body)
                    assert 400 <= answer.status < 500, (what, answer)
                    http.close()

            async with grows_by_at_most(gateway, 16, f"2,000 times {what}"):
                await asyncio.gather(*[ask() for _ in range(16)])
    await said(gateway, stream, "ping")
    await stream.drop()


@case(own=True)
async def streams_with_ids_of_nobody_cost_nothing(start):
    gateway = await start()
    chance = random.Random(7)
    room = fresh("chat:nobody")
    async with Neighbour.beside(gateway), grows_by_at_most(gateway, 24, "1,000 streams with bad ids"):
        for _ in range(20):
            streams = await asyncio.gather(*[
                Stream.open(gateway, fresh("user"), [room], last_event_id=f"{chance.getrandbits(4000):x}")
                for _ in range(50)
            ])
            for stream in streams:
                await stream.drop()
