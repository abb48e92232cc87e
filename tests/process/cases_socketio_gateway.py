"""Socket.IO clients of the gateway itself: tokens, rooms, acknowledgements and pushes in its namespaces, together
with native clients in the same rooms; by hand, and with the client libraries."""

import asyncio
import base64
import itertools
import json
import time

from cases_limits import DEFAULT
from cases_msgpack import Packed
from cases_socketio import PATH, place
from engine_client import QUERY, TRANSPORTS, Polling, Socket, request, upgraded
from socketio_clients import Npm, PythonAsyncio, PythonThreads
from support import PATIENCE_S, Client, Raw, case, count, fresh, handshake, token, until

META = ("room", "seq", "mid", "ts", "from")


def with_attachments(text, attachments):
    """JSON with placeholders, as Python has it."""

    def filled(value):
        if isinstance(value, list):
            return [filled(one) for one in value]
        if isinstance(value, dict):
            if value.get("_placeholder") is True:
                return attachments[value["num"]]
            return {name: filled(one) for name, one in value.items()}
        return value

    return filled(json.loads(text))


def taken_apart(value, attachments):
    """The other way."""
    if isinstance(value, bytes):
        attachments.append(value)
        return {"_placeholder": True, "num": len(attachments) - 1}
    if isinstance(value, (list, tuple)):
        return [taken_apart(one, attachments) for one in value]
    if isinstance(value, dict):
        return {name: taken_apart(one, attachments) for name, one in value.items()}
    return value


class Person:
    """Who is in one or several namespaces of the gateway over one session, by hand."""

    def __init__(self, session):
        self.session, self.ids = session, itertools.count(1)
        self.heard = {}

    @classmethod
    async def open(cls, gateway, user, transport=Socket, namespaces=("/",), **how):
        self = cls(await transport.open(gateway, PATH, **how))
        self.user = user
        for namespace in namespaces:
            self.connected = await self.enter(namespace, token(user))
        return self

    async def enter(self, namespace, jwt):
        await self.session.say(f"40{place(namespace)}{json.dumps({'token': jwt}) if jwt else ''}")
        answer = await self.packet(namespace)
        assert answer[0] == "0", answer
        assert set(answer[1]) == {"sid"}, answer
        kind, arguments = await self.packet(namespace)
        assert kind == "2" and arguments[0] == "connected", (kind, arguments)
        assert len(arguments) == 3 and set(arguments[2]) <= {"ts"}, arguments
        return arguments[1]

    async def refused(self, namespace, jwt):
        await self.session.say(f"40{place(namespace)}{json.dumps({'token': jwt}) if jwt is not None else ''}")
        answer = await self.packet(namespace)
        assert answer[0] == "4", answer
        assert set(answer[1]) == {"message", "data"} and answer[1]["message"], answer
        return answer[1]["data"]["code"]

    async def packet(self, namespace="/"):
        """The next packet of a namespace, as its type and what it has: `2` and `3` with their attachments in
        place, `3` with its number."""
        while not self.heard.get(namespace):
            packet = await self.session.packet()
            assert isinstance(packet, str) and packet[0] == "4", packet
            kind, rest = packet[1], packet[2:]
            attachments = []
            if kind in "56":
                number, _, rest = rest.partition("-")
                attachments = [await self.session.packet() for _ in range(int(number))]
                assert all(isinstance(one, bytes) for one in attachments), attachments
                kind = {"5": "2", "6": "3"}[kind]
            of = "/"
            if rest.startswith("/"):
                of, _, rest = rest.partition(",")
            if kind == "3":
                number, _, rest = rest.partition("[")
                what = (kind, int(number), with_attachments("[" + rest, attachments))
            elif kind == "1":
                what = (kind, None)
            else:
                what = (kind, with_attachments(rest, attachments))
            self.heard.setdefault(of, []).append(what)
        return self.heard[namespace].pop(0)

    async def _first(self, namespace, wanted, what):
        """The first packet that is wanted; those before it stay."""
        early = []
        try:
            while True:
                packet = await asyncio.wait_for(self.packet(namespace), PATIENCE_S)
                if wanted(packet):
                    return packet
                early.append(packet)
        except asyncio.TimeoutError:
            raise AssertionError(f"{self.user} waited in vain for {what}; {early[:5]}") from None
        finally:
            self.heard[namespace] = early + self.heard.get(namespace, [])

    async def emit(self, event, *arguments, namespace="/", id=""):
        attachments = []
        text = json.dumps(taken_apart([event, *arguments], attachments), ensure_ascii=False)
        kind = f"5{len(attachments)}-" if attachments else "2"
        await self.session.say(f"4{kind}{place(namespace)}{id}{text}", *attachments)

    async def request(self, event, *arguments, namespace="/"):
        id = next(self.ids)
        await self.emit(event, *arguments, namespace=namespace, id=id)
        _, _, answer = await self._first(namespace, lambda packet: packet[:2] == ("3", id), f"the answer to {event}")
        assert len(answer) == 1 and isinstance(answer[0]["ok"], bool), answer
        return answer[0]

    async def ok(self, event, data, namespace="/"):
        answer = await self.request(event, data, namespace=namespace)
        assert set(answer) == {"ok", "data"} and answer["ok"] is True, (event, answer)
        return answer["data"]

    async def refuses(self, event, *arguments, namespace="/"):
        answer = await self.request(event, *arguments, namespace=namespace)
        assert set(answer) == {"ok", "error"} and answer["ok"] is False, (event, answer)
        return answer["error"]

    async def join(self, room, namespace="/"):
        return await self.ok("room:join", {"room": room}, namespace)

    async def publish(self, room, event, data, namespace="/"):
        return await self.ok("room:publish", {"room": room, "event": event, "data": data}, namespace)

    async def push(self, event, room=None, namespace="/"):
        """Data and meta of the first push of this event and room."""

        def wanted(packet):
            return packet[0] == "2" and packet[1][0] == event and room in (None, packet[1][2].get("room"))

        _, arguments = await self._first(namespace, wanted, f"the push {event}")
        assert len(arguments) == 3, arguments
        return arguments[1], arguments[2]

    def drop(self):
        self.session.drop()


# Who may come in.


@case(both_ios=True)
async def a_namespace_of_the_gateway_asks_for_a_token(gateway):
    past = int(time.time()) - 60
    for transport in TRANSPORTS:
        person = Person(await transport.open(gateway, PATH))
        person.user = fresh("sio")
        for namespace in ("/", "/realtime"):
            for what, jwt, codes in (
                ("none", None, {"unauthorized"}),
                ("empty", "", {"unauthorized"}),
                ("no token", "nonsense", {"unauthorized"}),
                ("of another secret", token("eve", secret="some other secret of at least 32 bytes"), {"unauthorized"}),
                ("of the past", token("eve", exp=past), {"unauthorized", "token_expired"}),
            ):
                code = await person.refused(namespace, jwt)
                assert code in codes, (transport, namespace, what, code)
        # All that ended nothing.
        for namespace in ("/", "/realtime"):
            told = await person.enter(namespace, token(person.user))
            assert told["user"] == person.user and told["conn"] and told["limits"], told
            assert (await person.ok("ping", {}, namespace))["ts"] > 0
        person.drop()


@case
async def a_namespace_that_is_not_configured_is_refused_by_name(gateway):
    session = await Socket.open(gateway, PATH)
    await session.say(f"40/unheard-of,{json.dumps({'token': token('ada')})}")
    assert await session.packet() == '44/unheard-of,{"message":"Invalid namespace"}'
    for namespace in ("/", "/realtime", "/notifications", "/ws"):
        person = await Person.open(gateway, fresh("sio"), namespaces=[namespace])
        person.drop()


@case(both_ios=True)
async def a_token_may_come_with_the_first_request(gateway):
    for transport in TRANSPORTS:
        for how in ({"query": "&token={}"}, {"Authorization": "Bearer {}"}, {"Cookie": "a=b; token={}"}):
            user = fresh("sio")
            person = Person(await transport.open(gateway, PATH, **{k: v.format(token(user)) for k, v in how.items()}))
            told = await person.enter("/", None)
            assert told["user"] == user, told
            # What a namespace is told itself counts there.
            other = fresh("sio")
            told = await person.enter("/realtime", token(other))
            assert told["user"] == other, told
            person.drop()


@case(both_ios=True)
async def one_connection_may_be_several_users(gateway):
    for transport in TRANSPORTS:
        ada, bob, room = fresh("ada"), fresh("bob"), fresh("chat:two")
        person = Person(await transport.open(gateway, PATH))
        person.user = ada
        told = [await person.enter("/", token(ada)), await person.enter("/realtime", token(bob))]
        assert [one["user"] for one in told] == [ada, bob] and told[0]["conn"] != told[1]["conn"], told
        await person.join(room)
        # Not a member, though the other one is.
        forbidden = {"room": "user:" + ada, "event": "x", "data": 1}
        error = await person.refuses("room:publish", forbidden, namespace="/realtime")
        assert error["code"] == "forbidden", error
        await person.join(room, "/realtime")
        await person.publish(room, "said", {"n": 1})
        await person.publish(room, "said", {"n": 2}, "/realtime")
        for namespace in ("/", "/realtime"):
            heard = [await person.push("said", room, namespace) for _ in range(2)]
            assert [(data["n"], meta["from"]) for data, meta in heard] == [(1, ada), (2, bob)], heard
        # Who leaves one namespace stays in the other one.
        await person.session.say("41/realtime,")
        await person.publish(room, "said", {"n": 3})
        assert (await person.push("said", room))[0] == {"n": 3}
        person.drop()


# Requests and pushes.


@case(both_ios=True)
async def each_request_is_acknowledged_with_one_object(gateway):
    for transport in TRANSPORTS:
        person = await Person.open(gateway, fresh("sio"), transport, namespaces=["/", "/realtime"])
        for namespace in ("/", "/realtime"):
            room = fresh("chat:ack")
            joined = await person.join(room, namespace)
            assert joined["room"] == room and {"pos", "seq", "epoch"} <= set(joined), joined
            ack = await person.publish(room, "said", {"n": 1}, namespace)
            assert {"mid", "seq", "pos"} <= set(ack), ack
            data, meta = await person.push("said", room, namespace)
            assert data == {"n": 1} and set(meta) == set(META), (data, meta)
            assert (meta["mid"], meta["seq"], meta["from"]) == (ack["mid"], ack["seq"], person.user), (ack, meta)
            assert (await person.refuses("room:dance", {}, namespace=namespace))["code"] == "unknown_event"
            for wrong in ([{"room": "no room"}], [{}], [["x"]], [7], []):
                error = await person.refuses("room:join", *wrong, namespace=namespace)
                assert error["code"] == "bad_request" and error["message"], (wrong, error)
            error = await person.refuses(
                "room:publish", {"room": room, "event": "message:new", "data": {}}, namespace=namespace
            )
            assert error["code"] == "forbidden" and error["message"], error
        assert (await person.ok("ping", {}))["ts"] > 0
        assert (await person.request("ping"))["ok"] is True, "an event without data"
        # Without an acknowledgement: silent when it succeeds, an `error` when not.
        await person.emit("room:publish", {"room": "user:nobody", "event": "x", "data": 1})
        data, _ = await person.push("error")
        assert (data["event"], data["code"]) == ("room:publish", "forbidden"), data
        await person.emit("unheard-of", 1, 2, 3)
        data, _ = await person.push("error")
        assert (data["event"], data["code"]) == ("unheard-of", "unknown_event"), data
        person.drop()


@case(both_ios=True)
async def one_room_is_told_the_same_over_every_protocol(gateway):
    room = fresh("chat:all")
    native = [await Client.open(gateway, fresh("json")), await Packed.open(gateway, fresh("packed"))]
    polled = await Person.open(gateway, fresh("became"), Polling)
    polled.session = await upgraded(polled.session)
    persons = [
        await Person.open(gateway, fresh("websocket")),
        await Person.open(gateway, fresh("polling"), Polling),
        await Person.open(gateway, fresh("keep"), Polling, keep=True),
        polled,
    ]
    for somebody in (*native, *persons):
        await somebody.join(room)
    texts = [None, "größe 🎉", {"deep": [1, {"a": None, "b": [True, 0.5]}]}, [], "x" * 20_000]

    async def say(somebody):
        for n in range(20):
            await somebody.publish(room, "said", {"by": somebody.user, "n": n, "more": texts[n % 5]})

    await asyncio.gather(*[say(somebody) for somebody in (*native, *persons)])
    number = 20 * (len(native) + len(persons))
    first = await native[0].several("said", number, room)
    wanted = [(push["data"], {key: push[key] for key in META}) for push in first]
    assert [meta["seq"] for _, meta in wanted] == list(range(wanted[0][1]["seq"], wanted[0][1]["seq"] + number))
    packed = await native[1].several("said", number, room)
    assert [(push["data"], {key: push[key] for key in META}) for push in packed] == wanted
    for person in persons:
        heard = [await person.push("said", room) for _ in range(number)]
        assert heard == wanted, (person.user, heard[:2], wanted[:2])
        person.drop()
    for client in native:
        await client.close()


@case(both_ios=True)
async def bytes_cross_from_every_protocol_to_every_other(gateway):
    room = fresh("chat:bytes")
    plain, packed = await Client.open(gateway, fresh("json")), await Packed.open(gateway, fresh("packed"))
    persons = [await Person.open(gateway, fresh("sio"), transport) for transport in TRANSPORTS]
    for somebody in (plain, packed, *persons):
        await somebody.join(room)
    one, two = bytes(range(256)) * 20, b""

    def data(pack):
        return {"n": 1, "blob": pack(one), "deep": [{"x": pack(two)}, "größe"], "twice": pack(one)}

    def in_json(blob):
        return {"$bin": base64.b64encode(blob).decode()}

    for somebody in (plain, packed, *persons):
        ack = await somebody.publish(room, "blobs", data(in_json if somebody is plain else bytes))
        assert ack["mid"], ack
        assert (await plain.push("blobs", room))["data"] == data(in_json), somebody
        assert (await packed.push("blobs", room))["data"] == data(bytes), somebody
        for person in persons:
            heard, meta = await person.push("blobs", room)
            assert heard == data(bytes) and meta["mid"] == ack["mid"], (somebody, heard)
    # What was said before one came is bytes too, as many as the official parsers take in one packet.
    late = await Person.open(gateway, fresh("late"), Polling)
    page = await late.ok("room:history", {"room": room})
    told = [message["data"] for message in page["messages"]]
    beyond = {"n": 1, "blob": one, "deep": [{"x": in_json(two)}, "größe"], "twice": in_json(one)}
    assert told == [data(bytes)] * 3 + [beyond], [str(one)[-200:] for one in told]
    for person in (*persons, late):
        person.drop()
    await plain.close()
    await packed.close()


@case(both_ios=True)
async def a_polling_member_hears_all_of_a_busy_room(gateway):
    """More than one payload's worth while nobody polls, and an upgrade in the middle."""
    room, number = fresh("chat:busy"), 400
    ada = await Client.open(gateway, fresh("ada"))
    person = await Person.open(gateway, fresh("slow"), Polling)
    await ada.join(room)
    await person.join(room)
    publishing = asyncio.gather(*[ada.publish(room, "said", n) for n in range(number)])
    heard = [await person.push("said", room) for _ in range(50)]
    await publishing
    person.session = await upgraded(person.session)
    heard += [await person.push("said", room) for _ in range(number - 50)]
    seqs = [meta["seq"] for _, meta in heard]
    assert seqs == list(range(seqs[0], seqs[0] + number)), seqs
    assert sorted(data for data, _ in heard) == list(range(number))
    person.drop()
    await ada.close()


@case
async def who_is_gone_has_left_its_rooms(gateway):
    """However it went."""
    room = fresh("chat:leave")
    ada = await Client.open(gateway, fresh("ada"))
    await ada.join(room)

    async def members():
        return (await ada.ok("room:info", {"room": room}))["members"]

    async def leaves(person):
        await person.session.say("41")

    async def closes(person):
        await person.session.say("1")

    async def drops(person):
        person.drop()

    ways = [(Socket, leaves), (Socket, closes), (Socket, drops), (Polling, leaves), (Polling, closes)]
    for transport, go in ways:
        person = await Person.open(gateway, fresh("sio"), transport)
        await person.join(room)
        assert await members() == 2
        await go(person)

        async def alone():
            return await members() == 1

        await until(alone, f"{transport.__name__} to have left by {go.__name__}")
    await ada.close()


# Limits and ends.


@case(own=True, both_ios=True)
async def requests_over_socket_io_have_the_same_limits(start):
    gateway = await start(**DEFAULT)
    for transport in TRANSPORTS:
        room = fresh("limit")
        person = await Person.open(gateway, fresh("greedy"), transport)
        assert person.connected["limits"]["requests"] == {"burst": 100, "count": 10, "per_ms": 1000}, person.connected
        ids = [1000 + n for n in range(160)]
        text = json.dumps(["room:publish", {"room": room, "event": "chat", "data": 1}])
        await person.session.say(*[f"42{id}{text}" for id in ids])
        answers = {}
        for _ in ids:
            _, number, (answer,) = await person.packet()
            assert number not in answers, f"{number} is answered twice"
            answers[number] = answer
        assert sorted(answers) == ids
        refused = [answer["error"] for answer in answers.values() if not answer["ok"]]
        assert 1 <= len(refused) <= 60, len(refused)
        for error in refused:
            assert error["code"] == "rate_limited" and error["retry_after_ms"] >= 1, error
        person.drop()


@case(own=True)
async def users_have_their_limits_over_all_transports(start):
    gateway = await start(RINGROOM_LIMITS__CONNS_PER_USER="2")
    user = fresh("user")
    native, person = await Client.open(gateway, user), await Person.open(gateway, user)
    for transport in TRANSPORTS:
        third = Person(await transport.open(gateway, PATH))
        assert await third.refused("/", token(user)) == "rate_limited"
        # Another user on that very connection is none of theirs.
        await third.enter("/realtime", token(fresh("other")))
        third.drop()
    person.drop()
    again = Person(await Socket.open(gateway, PATH))

    async def admitted():
        await again.session.say(f"40{json.dumps({'token': token(user)})}")
        return (await again.packet())[0] == "0"

    await until(admitted, "the place of the one who left")
    await native.close()


@case(own=True)
async def a_token_that_ends_ends_its_namespace_only(start):
    gateway = await start()
    for transport in TRANSPORTS:
        person = Person(await transport.open(gateway, PATH))
        person.user = fresh("brief")
        await person.enter("/realtime", token(person.user))
        await person.enter("/", token(person.user, exp=int(time.time()) + 3))
        while (packet := await person.packet("/"))[0] != "1":
            assert packet[0] == "2", packet
        assert (await person.ok("ping", {}, "/realtime"))["ts"] > 0
        told = await person.enter("/", token(person.user))
        assert told["user"] == person.user
        person.drop()


@case(own=True, both_ios=True)
async def a_drain_closes_transports_and_no_namespace(start):
    gateway = await start()
    socket = await Person.open(gateway, fresh("sio"), Socket)
    polling = await Person.open(gateway, fresh("sio"), Polling, keep=True)
    upgrading = await Person.open(gateway, fresh("sio"), Polling)
    upgrading.session = await upgraded(upgrading.session)
    poll = asyncio.create_task(polling.session.ended())
    ending = asyncio.create_task(gateway.terminate())
    for person in (socket, upgrading):
        heard = await person.session.ended()
        assert not any(str(packet).startswith("41") for packet in heard), heard
        assert person.session.close_code == 1012, person.session.close_code
    try:
        heard = await asyncio.wait_for(poll, PATIENCE_S)
    except ConnectionError:
        heard = []
    # A `1` would keep python-socketio from coming back.
    assert heard == [], heard
    assert await ending == 0, gateway.tail()


@case(own=True)
async def what_is_configured_is_what_clients_are_told(start):
    gateway = await start(
        RINGROOM_SOCKETIO__NAMESPACES="/,/chat", RINGROOM_SOCKETIO__PING_INTERVAL_MS="12345",
        RINGROOM_SOCKETIO__PING_TIMEOUT_MS="6789", RINGROOM_SOCKETIO__PAYLOAD_BYTES="5000",
        RINGROOM_SOCKETIO__ATTACHMENTS_MAX="2", RINGROOM_SOCKETIO__CONNECT_TIMEOUT_MS="300",
        RINGROOM_SOCKETIO__UPGRADE_TIMEOUT_MS="300", RINGROOM_SOCKETIO__COOKIE="where",
    )
    for transport in TRANSPORTS:
        session = await transport.open(gateway, PATH)
        told = {name: value for name, value in session.opened.items() if name not in ("sid", "upgrades")}
        assert told == {"pingInterval": 12345, "pingTimeout": 6789, "maxPayload": 5000}, told
        # Nobody came in.
        assert set(await session.ended()) <= {"1"}
    person = await Person.open(gateway, fresh("sio"), namespaces=["/", "/chat"])
    await person.session.say("40/realtime")
    assert await person.session.packet() == '44/realtime,{"message":"Invalid namespace"}'
    await person.emit("ping", [b"a", b"b"], id=1)
    assert (await person.packet())[0] == "3"
    await person.session.say('453-["ping",{"_placeholder":true,"num":0}]')
    assert await person.session.ended() == []
    assert person.session.close_code == 4400
    person = await Person.open(gateway, fresh("sio"), Polling)
    probe = await Socket.begun(gateway, PATH, sid=person.session.sid)
    await probe.say("2probe")
    assert await probe.next() == "3probe"
    assert await probe.ended() == []
    assert (await person.ok("ping", {}))["ts"] > 0
    assert (await request(gateway, "POST", person.session.target, "4" + "x" * 5000)).status == 413
    answer = await request(gateway, "GET", f"{PATH}?{QUERY}polling")
    sid = json.loads(answer.body[1:])["sid"]
    parts = [part.strip() for part in answer.headers["set-cookie"].split(";")]
    assert parts[0] == f"where={sid}" and "HttpOnly" in parts and "Path=/" in parts, parts
    raw = await Raw.open(gateway)
    raw.write(handshake(gateway, path=f"{PATH}?{QUERY}websocket"))
    assert "set-cookie: where=" in (await raw.head()).lower()


@case(own=True)
async def socket_io_is_served_only_where_it_is_enabled(start):
    gateway = await start(RINGROOM_SOCKETIO__ENABLED="false")
    assert (await request(gateway, "GET", f"{PATH}?{QUERY}polling")).status == 404
    raw = await Raw.open(gateway)
    raw.write(handshake(gateway, path=f"{PATH}?{QUERY}websocket"))
    assert (await raw.head()).startswith("HTTP/1.1 404 ")
    ada = await Client.open(gateway, "ada")
    await ada.close()


@case(own=True)
async def an_engine_websocket_is_compressed_where_that_is_configured(start):
    gateway = await start(RINGROOM_SOCKETIO__COMPRESSION="true")
    async with Npm.started() as library:
        page = await library.open(
            f"http://{gateway.host}:{gateway.port}", ["websocket"], ["/"], {"token": token("ada")},
            perMessageDeflate={"threshold": 0},
        )
        await page.entered("/")
        await page.event("/", "connected")
        before = await gateway.stats()
        text = "the same again and again " * 8_000
        joined = await page.ask("/", "room:join", {"room": "chat:deflate"})
        assert joined[0]["ok"], joined
        await page.emit("/", "room:publish", {"room": "chat:deflate", "event": "said", "data": text})
        assert (await page.event("/", "said"))[0] == text

        async def moved(way):
            return count(await gateway.stats(), way) - count(before, way)

        for way in ("bytes_in", "bytes_out"):
            grown = await until(lambda: moved(way), f"{way} to grow")
            assert grown < len(text) / 4, f"{way}: {grown} for a text of {len(text)}"
        await page.close()


# The libraries.


async def talks(library, start):
    gateway = await start()
    url = f"http://{gateway.host}:{gateway.port}"
    room = "chat:libraries"
    native = await Client.open(gateway, fresh("native"))
    await native.join(room)
    connections = []
    for transports in (["websocket"], ["polling"], ["polling", "websocket"]):
        refused = await library.open(url, transports, ["/"], {"token": "nonsense"})
        kind, message, data = await refused.heard("/")
        assert kind == "connect_error" and message and data["code"] == "unauthorized", (kind, message, data)
        await refused.close()
        user = fresh("library")
        connection = await library.open(url, transports, ["/", "/realtime"], {"token": token(user)})
        connection.user = user
        for namespace in ("/", "/realtime"):
            await connection.entered(namespace)
            told, meta = await connection.event(namespace, "connected")
            assert told["user"] == user and set(meta) <= {"ts"}, (told, meta)
            (answer,) = await connection.ask(namespace, "room:join", {"room": room})
            assert answer["ok"] is True and answer["data"]["room"] == room, answer
        (answer,) = await connection.ask("/", "room:dance", {})
        assert answer["ok"] is False and answer["error"]["code"] == "unknown_event", answer
        connections.append((connection, user, transports))

    async def said(connection, namespace):
        """The next message of the room, past who came and went."""
        while True:
            heard = await connection.heard(namespace)
            assert heard[0] == "event", heard
            if heard[1] == "said":
                return heard[2], heard[3]

    async def round_of_talk():
        for connection, user, _ in connections:
            for namespace in ("/", "/realtime"):
                data = {"by": user, "bytes": b"\x00\x01\xff", "text": "größe"}
                (answer,) = await connection.ask(
                    namespace, "room:publish", {"room": room, "event": "said", "data": data}
                )
                assert answer["ok"] is True, answer
                push = await native.push("said", room)
                in_json = {**data, "bytes": {"$bin": base64.b64encode(data["bytes"]).decode()}}
                assert push["data"] == in_json and push["from"] == user, push
                for other, _, _ in connections:
                    for there in ("/", "/realtime"):
                        heard, meta = await said(other, there)
                        assert heard == data, heard
                        assert meta == {key: push[key] for key in META}, (meta, push)

    await round_of_talk()
    # Away and back: the drain closes transports, and who comes back is greeted anew.
    assert await gateway.terminate() == 0, gateway.tail()
    gateway = await start("--listen", f"{gateway.host}:{gateway.port}")
    native = await Client.open(gateway, fresh("native"))
    await native.join(room)
    for connection, _, transports in connections:
        for namespace in ("/", "/realtime"):
            await connection.until_heard(namespace, "connect")
            await connection.event(namespace, "connected")
            (answer,) = await connection.ask(namespace, "room:join", {"room": room})
            assert answer["ok"] is True, (transports, answer)
    await round_of_talk()
    for connection, _, _ in connections:
        await connection.close()


@case(both_ios=True, own=True)
async def npm_socket_io_client_talks_with_native_clients(start):
    async with Npm.started() as library:
        await talks(library, start)


@case(own=True)
async def python_socketio_talks_with_native_clients_threaded(start):
    async with PythonThreads.started() as library:
        await talks(library, start)


@case(own=True)
async def python_socketio_talks_with_native_clients_on_asyncio(start):
    async with PythonAsyncio.started() as library:
        await talks(library, start)
