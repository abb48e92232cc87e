"""Socket.IO v5, said and heard by hand over both transports: what the protocol document asks of a server, what
servers get wrong, and what hostile clients send. The server is `examples/socketio_app.rs`."""

import asyncio
import contextlib
import json
import os
import random
import resource

from cases_engineio import app
from engine_client import QUERY, TRANSPORTS, Gone, Http, Polling, Socket, probed, request
from support import PATIENCE_S, case, until

PATH = "/socket.io/"
MIB = 1 << 20


def place(namespace):
    """What stands before the data of a packet of a namespace."""
    return "" if namespace == "/" else f"{namespace},"


async def joined(session, namespace="/", auth=None):
    """Connects to a namespace, as the example greets there, and gives back the id in it."""
    await session.say(f"40{place(namespace)}{'' if auth is None else json.dumps(auth)}")
    head = f"40{place(namespace)}"
    answer = await session.packet()
    assert answer.startswith(head + "{"), answer
    told = json.loads(answer[len(head) :])
    assert set(told) == {"sid"} and told["sid"] and told["sid"] != session.sid, told
    greeting = await session.packet()
    assert greeting.startswith(f"42{place(namespace)}["), greeting
    assert json.loads(greeting[2 + len(place(namespace)) :]) == ["auth", auth or {}], greeting
    return told["sid"]


async def member(transport, gateway, *namespaces, **how):
    session = await transport.open(gateway, PATH, **how)
    for namespace in namespaces or ("/",):
        await joined(session, namespace)
    return session


async def hears(session, *packets):
    heard = []
    for _ in packets:
        heard.append(await session.packet())
    short = [[str(one)[:200] for one in several] for several in (heard, packets)]
    assert heard == list(packets), f"heard {short[0]}, not {short[1]}"


async def alive(session, namespace="/"):
    """It is still there, and nothing else comes before the answer."""
    await session.say(f'42{place(namespace)}7["message-with-ack","alive"]')
    await hears(session, f'43{place(namespace)}7["alive"]')


def event_of(packet, namespace="/"):
    """Name and arguments of an event without attachments."""
    head = f"42{place(namespace)}["
    assert isinstance(packet, str) and packet.startswith(head), packet
    return json.loads(packet[len(head) - 1 :])


# CONNECT and DISCONNECT.


@case(both_ios=True, own=True, oracle=True)
async def a_client_enters_namespaces(start):
    gateway = await app(start)
    for transport in TRANSPORTS:
        session = await transport.open(gateway, PATH)
        sids = [
            await joined(session),
            await joined(session, "/custom", {"token": "abc"}),
            await joined(session, "/protected", {"token": "let-me-in"}),
        ]
        assert len(set(sids)) == 3, sids
        for namespace in ("/", "/custom", "/protected"):
            await alive(session, namespace)
        session.drop()
        session = await transport.open(gateway, PATH)
        await joined(session, auth={"token": "123", "größe": [1, {"a": None}]})
        session.drop()
        # Without the comma.
        session = await transport.open(gateway, PATH)
        await session.say("40/custom")
        assert (await session.packet()).startswith('40/custom,{"sid":"')
        await hears(session, '42/custom,["auth",{}]')
        session.drop()


@case(own=True)
async def a_query_behind_a_namespace_is_no_part_of_it(start):
    gateway = await app(start)
    session = await Socket.open(gateway, PATH)
    await session.say('40/custom?token=abc&x=1,{"a":1}')
    assert (await session.packet()).startswith('40/custom,{"sid":"')
    await hears(session, '42/custom,["auth",{"a":1}]')


@case(own=True, oracle=True)
async def a_namespace_refuses_by_name_and_with_its_reasons(start):
    gateway = await app(start)
    for transport in TRANSPORTS:
        session = await transport.open(gateway, PATH)
        await session.say("40/random")
        await hears(session, '44/random,{"message":"Invalid namespace"}')
        for refused in ("40/protected,", '40/protected,{"token":"wrong"}', "40/protected"):
            await session.say(refused)
            await hears(session, '44/protected,{"message":"unauthorized","data":{"reason":"bad token"}}')
        # Neither of them ends anything.
        await joined(session)
        await joined(session, "/protected", {"token": "let-me-in"})
        await alive(session)
        session.drop()


@case(own=True, oracle=True)
async def who_leaves_a_namespace_stays_in_the_others(start):
    gateway = await app(start)
    for transport in TRANSPORTS:
        session = await member(transport, gateway, "/", "/custom")
        await session.say("41/custom")
        await session.say('42["message","to the main one"]')
        await hears(session, '42["message-back","to the main one"]')
        await joined(session, "/custom")
        await session.say("41/custom,", "42[\"message\",1]")
        await hears(session, '42["message-back",1]')
        # The last one too, and the session is still there.
        await session.say("41")
        await joined(session, "/custom")
        await alive(session, "/custom")
        session.drop()


@case(own=True, oracle=True)
async def after_the_last_disconnect_the_heartbeat_goes_on(start):
    gateway = await app(start, (0.3, 20))
    session = await member(Socket, gateway)
    await session.say("41")
    heard = []
    while len(heard) < 3:
        heard.append(await session.next())
        await session.say("3")
    assert heard == ["2", "2", "2"], heard


@case(both_ios=True, own=True)
async def who_leaves_and_comes_back_at_once_is_back(start):
    gateway = await app(start)
    for transport in TRANSPORTS:
        session = await member(transport, gateway, "/", "/custom")
        for namespace in ("/custom", "/"):
            sids = set()
            for _ in range(10):
                at = place(namespace)
                await session.say(f"41{at}", f"40{at}", f'42{at}["message",1]')
                told = await session.packet()
                assert told.startswith(f'40{at}{{"sid":"'), told
                sids.add(told)
                await hears(session, f'42{at}["auth",{{}}]', f'42{at}["message-back",1]')
            assert len(sids) == 10
        await alive(session, "/custom")
        session.drop()


@case(own=True, oracle=True)
async def a_namespace_may_let_go_of_a_client(start):
    gateway = await app(start)
    for transport in TRANSPORTS:
        session = await member(transport, gateway, "/", "/custom")
        await session.say('42/custom,["disconnect-me",false]')
        await hears(session, "41/custom,")
        await alive(session)
        await joined(session, "/custom")
        await session.say('42["disconnect-me",true]')
        heard = await session.ended()
        # Node names the other namespace or does not, and closes.
        assert heard and heard[0] == "41" or "41" in heard, heard
        session.drop()


@case(own=True, oracle=True)
async def a_second_connect_to_a_namespace_ends_the_session(start):
    gateway = await app(start)
    session = await member(Socket, gateway)
    await session.say("40")
    assert await session.ended() == []


# Events and acknowledgements.


@case(both_ios=True, own=True, oracle=True)
async def events_come_back_with_their_arguments(start):
    gateway = await app(start)
    for transport in TRANSPORTS:
        for namespace in ("/", "/custom"):
            session = await member(transport, gateway, namespace)
            for arguments in (
                '1,"2",{"3":[true]}', "null", "", '"größe 🎉 \u2028"', '"\\u0000\\n\\"]"', "[[[]]],{}",
                "1.5e300,-0.25,0", '{"_placeholder":false}', '"' + "x" * 100_000 + '"', ",".join(["7"] * 200),
            ):
                comma = "," if arguments else ""
                await session.say(f'42{place(namespace)}["message"{comma}{arguments}]')
                packet = await session.packet()
                wanted = json.loads(f'["message-back"{comma}{arguments}]')
                assert event_of(packet, namespace) == wanted, (packet[:200], arguments[:200])
            session.drop()


@case(own=True, oracle=True)
async def acknowledgements_have_the_number_of_the_question(start):
    gateway = await app(start)
    for transport in TRANSPORTS:
        session = await member(transport, gateway, "/", "/custom")
        for asked, answered in (
            ('42456["message-with-ack",1,"2",{"3":[false]}]', '43456[1,"2",{"3":[false]}]'),
            ('420["message-with-ack"]', "430[]"),
            ('42/custom,12["message-with-ack","a"]', '43/custom,12["a"]'),
            ('429007199254740991["message-with-ack",null]', "439007199254740991[null]"),
        ):
            await session.say(asked)
            await hears(session, answered)
        # The same number again, and many at once.
        await session.say(*[f'42{n % 5}["message-with-ack",{n}]' for n in range(100)])
        await hears(session, *[f"43{n % 5}[{n}]" for n in range(100)])
        session.drop()


@case(both_ios=True, own=True, oracle=True)
async def the_server_asks_and_hears_the_answer(start):
    gateway = await app(start)
    for transport in TRANSPORTS:
        for namespace in ("/", "/custom"):
            at = place(namespace)
            session = await member(transport, gateway, namespace)
            numbers = []
            for asked in range(3):
                await session.say(f'42{at}["ask-me",{asked},"x"]')
                packet = await session.packet()
                assert packet.startswith(f"42{at}") and packet.endswith(f'["question",{asked},"x"]'), packet
                numbers.append(int(packet[2 + len(at) : packet.index("[")]))
            assert len(set(numbers)) == 3, numbers
            # In another order, an answer twice, and one to nothing.
            for asked in (2, 0, 1):
                await session.say(f'43{at}{numbers[asked]}["answer",{asked}]')
                await hears(session, f'42{at}["answer-was","answer",{asked}]')
            await session.say(f'43{at}{numbers[0]}["again"]', f'43{at}999999["to nothing"]', f"43{at}{numbers[1]}[]")
            await alive(session, namespace)
            await session.say(f'42{at}["ask-me"]')
            packet = await session.packet()
            number = packet[2 + len(at) : packet.index("[")]
            await session.say(f"43{at}{number}[]")
            await hears(session, f'42{at}["answer-was"]')
            session.drop()


PLACEHOLDER = '{"_placeholder":true,"num":%d}'


@case(both_ios=True, own=True, oracle=True)
async def bytes_come_back_behind_their_event(start):
    gateway = await app(start)
    one, two = PLACEHOLDER % 0, PLACEHOLDER % 1
    blobs = [b"\x01\x02\x03", b"\x04\x05\x06"]
    for transport in TRANSPORTS:
        session = await member(transport, gateway, "/", "/custom")
        for said, answer in (
            (f'452-["message",{one},{two}]', f'452-["message-back",{one},{two}]'),
            (f'452-789["message-with-ack",{one},{two}]', f"462-789[{one},{two}]"),
            (f'452-/custom,["message",{one},{two}]', f'452-/custom,["message-back",{one},{two}]'),
            (f'452-/custom,3["message-with-ack",[{one}],{two}]', f"462-/custom,3[[{one}],{two}]"),
            (
                f'452-["message",{{"a":[{one},"x"],"b":{{"c":{two}}}}},7]',
                f'452-["message-back",{{"a":[{one},"x"],"b":{{"c":{two}}}}},7]',
            ),
        ):
            await session.say(said, *blobs)
            await hears(session, answer, *blobs)
        for blob in (b"", bytes(range(256)), os.urandom(200_000)):
            await session.say(f'451-["message",{one}]', blob)
            await hears(session, f'451-["message-back",{one}]', blob)
        # As many as the official parser takes.
        many = [bytes([n]) for n in range(10)]
        places = ",".join(PLACEHOLDER % n for n in range(10))
        await session.say(f'4510-["message",{places}]', *many)
        await hears(session, f'4510-["message-back",{places}]', *many)
        # Two of them, and an event behind.
        said, answer = f'451-["message",{one}]', f'451-["message-back",{one}]'
        await session.say(said, b"a", said, b"b", '42["message","c"]')
        await hears(session, answer, b"a", answer, b"b", '42["message-back","c"]')
        session.drop()
    # Each part by a request of its own.
    session = await member(Polling, gateway)
    await session.say(f'452-["message",{one},{two}]')
    await session.say(blobs[0])
    await session.say(blobs[1])
    await hears(session, f'452-["message-back",{one},{two}]', *blobs)


@case(own=True, oracle=True)
async def placeholders_are_read_however_they_are_written(start):
    gateway = await app(start)
    session = await member(Socket, gateway)
    written = '{ "num" : 1 , "_placeholder" : true },{"_placeholder":true,"num":0}'
    await session.say(f'452-["message", {written}]', b"a", b"b")
    packet = await session.packet()
    assert packet.startswith('452-["message-back",'), packet
    blobs = [await session.packet() for _ in range(2)]
    # In whatever order they are.
    back = json.loads(packet[len("452-") :])
    assert [blobs[one["num"]] for one in back[1:]] == [b"b", b"a"], (packet, blobs)


@case(own=True, oracle=True)
async def an_answer_may_be_bytes(start):
    gateway = await app(start)
    one = PLACEHOLDER % 0
    for transport in TRANSPORTS:
        session = await member(transport, gateway, "/custom")
        await session.say(f'451-/custom,["ask-me",{one}]', b"what?")
        packet = await session.packet()
        assert packet.startswith("451-/custom,") and packet.endswith(f'["question",{one}]'), packet
        number = packet[len("451-/custom,") : packet.index("[")]
        await hears(session, b"what?")
        await session.say(f'461-/custom,{number}[1,{{"b":{one}}}]', b"that")
        await hears(session, f'451-/custom,["answer-was",1,{{"b":{one}}}]', b"that")
        session.drop()


@case(own=True, oracle=True)
async def no_heartbeat_comes_between_an_event_and_its_bytes(start):
    gateway = await app(start, (0.05, 20))
    blob, one = os.urandom(100_000), PLACEHOLDER % 0
    session = await member(Socket, gateway)
    heartbeats = 0
    while heartbeats < 10:
        await session.say(f'451-["message",{one}]', blob)
        packet = await session.next()
        while packet == "2":
            heartbeats += 1
            await session.say("3")
            packet = await session.next()
        assert packet == f'451-["message-back",{one}]'
        assert await session.next() == blob


@case(own=True, oracle=True)
async def events_keep_their_order(start):
    gateway = await app(start)
    for transport in TRANSPORTS:
        session = await member(transport, gateway)
        one = PLACEHOLDER % 0
        said, wanted = [], []
        for n in range(200):
            if n % 7 == 0:
                said += [f'451-["message",{n},{one}]', bytes([n])]
                wanted += [f'451-["message-back",{n},{one}]', bytes([n])]
            else:
                said.append(f'42["message",{n}]')
                wanted.append(f'42["message-back",{n}]')
        await session.say(*said)
        await hears(session, *wanted)
        await session.say('42["burst",1000]', '421["message-with-ack","end"]')
        await hears(session, *[f'42["burst-item",{n}]' for n in range(1000)], '431["end"]')
        session.drop()


# Rooms and everybody.


@case(both_ios=True, own=True, oracle=True)
async def who_is_in_a_room_hears_what_is_said_there(start):
    gateway = await app(start)
    ada, bob, eve = [
        await member(transport, gateway, "/", "/custom") for transport in (Socket, Polling, Socket)
    ]
    for somebody in (ada, bob):
        await somebody.say('421["join","tea"]')
        await hears(somebody, "431[]")
    # In the room of the same name of another namespace.
    await eve.say('42/custom,1["join","tea"]')
    await hears(eve, "43/custom,1[]")
    await ada.say('42["to-room","tea","hello",1]', '42["to-room","nobody","?"]')
    await hears(bob, '42["room-message","hello",1]')
    await alive(ada)
    await alive(eve)
    # From outside.
    await eve.say('42["to-room","tea","from eve"]')
    for somebody in (ada, bob):
        await hears(somebody, '42["room-message","from eve"]')
    one = PLACEHOLDER % 0
    await bob.say(f'451-["to-room","tea",{one}]', b"\x00bytes")
    await hears(ada, f'451-["room-message",{one}]', b"\x00bytes")
    await bob.say('422["leave","tea"]')
    await hears(bob, "432[]")
    await ada.say('42["to-room","tea","late"]', '42["broadcast","all",{"n":1}]')
    for somebody in (ada, bob, eve):
        await hears(somebody, '42["broadcast-back","all",{"n":1}]')
    await eve.say('42/custom,["broadcast"]')
    for somebody in (ada, bob, eve):
        await hears(somebody, '42/custom,["broadcast-back"]')
    # Who has left the namespace has left its rooms, and who comes back is in none.
    await ada.say("41")
    await alive(ada, "/custom")
    await joined(ada)
    await eve.say('42["to-room","tea","gone"]', '421["message-with-ack"]')
    await hears(eve, "431[]")
    await alive(ada)


# Malformed packets.

MALFORMED = (
    "4", "4abc", '4 2["message"]', "42{}", "42[]", "42[{}]", "42null", '42"message"', '42["message"', '42["message"]x',
    '42["message"]]', '42["message",]', '42["message",01]', "42['message']",
    '42abc["message-with-ack",1,"2",{"3":[false]}]', '4212x["message"]', '42-1["message"]', '42["connect"]',
    '42["disconnect"]', '42["connect_error"]', '42["disconnecting"]', '42["newListener"]', '42["removeListener"]',
    '42["message","\\ud83d', "40[]", '40"x"', "40null", '40{"a":', "431{}", '44{"message":"?"}', "45", '45["message"]',
    '451["message"]', '45-["message"]', '45a-["message"]', '4511-["message"]', '45-1-["message"]', '451.5-["message"]',
    '46["x"]', "461-1{}", '47["message"]', '49["message"]',
    # Not in that namespace, or in none of that name.
    '42/custom,["message"]', "43/custom,1[]", '42/custom["message"]', "41/nothing", '42/nothing,["message"]',
)
# Node takes these, or waits for more.
MALFORMED_HERE = (
    "42", "43", '43["x"]', '42 1["message-with-ack"]', '421 ["message-with-ack"]', '42 ["message"]',
    '42+1["message-with-ack"]', "42[1]", '4299999999999999999999["message-with-ack"]',
    '429007199254740993["message-with-ack"]', '421e3["message-with-ack"]',
    '451-["message",{"_placeholder":true,"num":1}]', '451-["message",{"_placeholder":true,"num":-1}]',
    '451-["message",{"_placeholder":true}]', '42["message","\x01"]', '42["message",NaN]',
)


async def each_ends_its_session(gateway, packets):
    wrong = []
    for transport in TRANSPORTS:
        for packet in packets:
            session = await member(transport, gateway)
            if transport is Polling:
                await session.post(packet)
            else:
                await session.say(packet)
            try:
                heard = await asyncio.wait_for(session.ended(), 3)
            except asyncio.TimeoutError:
                wrong.append(f"{transport.__name__} {packet!r} does not end the session")
                continue
            if heard not in ([], ["1"]):
                wrong.append(f"{transport.__name__} {packet!r} is answered {heard}")
            elif transport is Socket and gateway.io != "node" and session.close_code != 4400:
                wrong.append(f"{packet!r} closes with {session.close_code}")
            session.drop()
    assert not wrong, "\n".join(wrong)


@case(both_ios=True, own=True, oracle=True)
async def a_malformed_packet_ends_the_session(start):
    await each_ends_its_session(await app(start), MALFORMED)


@case(own=True)
async def a_doubtful_packet_ends_the_session_too(start):
    await each_ends_its_session(await app(start), MALFORMED_HERE)


@case(own=True, oracle=True)
async def who_is_in_no_namespace_can_say_nothing(start):
    gateway = await app(start)
    for packet in ("4abc", '42["message",1]', "43", '431["x"]', "41", "4", b"\x01", '451-["message"]'):
        session = await Socket.open(gateway, PATH)
        await session.say(packet)
        if packet == '451-["message"]' and gateway.io == "node":
            await session.say(b"")
        assert await session.ended() == [], packet


@case(own=True, oracle=True)
async def bytes_that_nobody_announced_end_the_session(start):
    gateway = await app(start)
    one = PLACEHOLDER % 0
    for transport in TRANSPORTS:
        for packets in (
            [b"\x01"],
            [f'451-["message",{one}]', '42["message","between"]'],
            [f'452-["message",{one},{PLACEHOLDER % 1}]', b"a", '42["message","between"]'],
            [f'451-["message",{one}]', "41"],
            [f'451-["message",{one}]', f'451-["message",{one}]'],
        ):
            session = await member(transport, gateway)
            with contextlib.suppress(AssertionError):
                # A POST may be refused with what it has wrong.
                await session.say(*packets)
            assert set(await session.ended()) <= {"1"}, packets
        # One too many.
        session = await member(transport, gateway)
        with contextlib.suppress(AssertionError):
            await session.say(f'451-["message",{one}]', b"a", b"b")
        heard = await session.ended()
        assert heard[:2] in ([f'451-["message-back",{one}]', b"a"], ["1"], []), heard


# Heartbeats, and the upgrade.


@case(own=True, oracle=True)
async def a_heartbeat_may_come_between_announced_bytes_of_a_client(start):
    gateway = await app(start, (0.1, 20))
    one = PLACEHOLDER % 0
    session = await member(Socket, gateway)
    await session.say(f'451-["message",{one}]')
    assert await session.next() == "2"
    await session.say("3", b"late")
    await hears(session, f'451-["message-back",{one}]', b"late")


@case(both_ios=True, own=True, oracle=True)
async def an_upgrade_in_the_middle_of_a_burst_loses_nothing_and_doubles_nothing(start):
    gateway = await app(start)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def visit(number):
        session = await member(Polling, gateway, keep=number % 2 == 0)
        burst, before, after = chance.choice([1, 15, 16, 17, 300]), chance.randint(0, 20), chance.randint(0, 20)
        heard, polled = [], asyncio.Event()
        stop = False

        async def poll():
            # As clients do: one GET after the other until the probe is answered.
            while not stop:
                heard.extend(packet for packet in await session.poll() if packet != "6")
                polled.set()

        polling = asyncio.create_task(poll())
        await session.say(f'42["burst",{burst}]')
        await session.say(*[f'42["message",{n}]' for n in range(before)], "3")
        if chance.random() < 0.5:
            await polled.wait()
        await asyncio.sleep(chance.random() * 0.01)
        socket = await probed(session)
        await session.say('42["message","by post after the probe"]')
        stop = True
        await polling
        await socket.say("5", *[f'42["message",{before + n}]' for n in range(after)], '421["message-with-ack","end"]')
        while (packet := await socket.packet()) != '431["end"]':
            heard.append(packet)
        items = [event_of(packet) for packet in heard]
        assert [one[1] for one in items if one[0] == "burst-item"] == list(range(burst)), (seed, heard)
        wanted = [*range(before), "by post after the probe", *range(before, before + after)]
        assert [one[1] for one in items if one[0] == "message-back"] == wanted, (seed, heard)
        socket.drop()
        session.drop()

    for _ in range(6):
        await asyncio.gather(*[visit(number) for number in range(10)])


@case(both_ios=True, own=True, oracle=True)
async def a_poll_that_waits_through_an_upgrade_is_answered(start):
    """A client that does not stop polling before its `5`: what the poll did not take, the WebSocket brings."""
    gateway = await app(start)
    for _ in range(20):
        session = await member(Polling, gateway)
        socket = await Socket.begun(gateway, PATH, sid=session.sid)
        poll = asyncio.create_task(session.get())
        await socket.say("2probe", "5", '42["burst",30]', '421["message-with-ack","end"]')
        assert await socket.next() == "3probe"
        heard = []
        while (packet := await socket.packet()) != '431["end"]':
            heard.append(packet)
        assert heard == [f'42["burst-item",{n}]' for n in range(30)], heard
        answer = await poll
        assert answer.status == 400 or answer.body in (b"6", b"1"), answer
        socket.drop()


# Hostile.


class Neighbour:
    """Somebody beside the attack, whose every question is answered."""

    @classmethod
    @contextlib.asynccontextmanager
    async def beside(cls, gateway):
        self = cls()
        self.session = await member(Socket, gateway, "/custom")
        self.asked = 0
        talk = asyncio.create_task(self._talk())
        try:
            yield self
            asked = self.asked
            await until(lambda: talk.done() or self.asked >= asked + 2, "the neighbour to go on talking")
            assert not talk.done(), f"the neighbour noticed: {talk.exception()!r}"
        finally:
            talk.cancel()
            await asyncio.gather(talk, return_exceptions=True)
            self.session.drop()

    async def _talk(self):
        while True:
            await self.session.say(f'42/custom,{self.asked}["message-with-ack",{self.asked}]')
            await hears(self.session, f"43/custom,{self.asked}[{self.asked}]")
            self.asked += 1
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def grows_by_at_most(gateway, mib, what):
    """The resident memory of the process: what it is used to first, then what this costs, then what stays."""
    before = gateway.resident_kib()
    peak = before

    async def watch():
        nonlocal peak
        while True:
            peak = max(peak, gateway.resident_kib())
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
    after = gateway.resident_kib()
    print(f"     {what}: {before} KiB before, {max(peak, after)} KiB at most, {after} KiB after", flush=True)
    assert max(peak, after) - before < mib * 1024, f"{what}: {before} KiB grew to {max(peak, after)} KiB"


@case(both_ios=True, own=True)
async def packets_that_promise_much_cost_no_more_than_their_bytes(start):
    gateway = await app(start)
    bombs = {
        "1e9 attachments": '451000000000-["message",{"_placeholder":true,"num":0}]',
        "1e30 attachments": "451" + "0" * 30 + '-["message"]',
        "placeholder 1e9": '451-["message",{"_placeholder":true,"num":1000000000}]',
        "a namespace of 1 MB": "40/" + "n" * 999_000 + ",",
        "an event in a namespace of 1 MB": "42/" + "n" * 999_000 + ',["message"]',
        "JSON 100,000 deep": '42["message",' + "[" * 100_000 + "]" * 100_000 + "]",
        "objects 100,000 deep": '42["message",' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "]",
        "JSON 100,000 deep, not closed": '42["message",' + "[" * 100_000,
        "a CONNECT 100,000 deep": "40/custom,{\"a\":" + "[" * 100_000 + "]" * 100_000 + "}",
        "an acknowledgement 100,000 deep": "431[" + "[" * 100_000 + "]" * 100_000 + "]",
        "300,000 arguments": '42["message"' + ",1" * 300_000 + "]",
        "300,000 arguments of an acknowledgement": "431[" + "1," * 299_999 + "1]",
        "an ack id of 900,000 digits": "42" + "1" * 900_000 + '["message-with-ack"]',
        "an event name of 900,000 bytes": '42["' + "e" * 900_000 + '"]',
        "many placeholders": '451-["message"' + ',{"_placeholder":true,"num":0}' * 30_000 + "]",
        "a number of 900,000 digits": '42["message",' + "1" * 900_000 + "]",
    }
    # May be said, and is no event of the application; or may be refused.
    mild = {"an event name of 900,000 bytes", "many placeholders", "a number of 900,000 digits", "a namespace of 1 MB"}
    async with Neighbour.beside(gateway):
        for what, bomb in bombs.items():
            async with grows_by_at_most(gateway, 48, what):
                for transport in TRANSPORTS:
                    session = await member(transport, gateway)
                    if transport is Polling:
                        answer = await session.post(bomb)
                        assert answer.status in (200, 400), (what, answer)
                    else:
                        await session.say(bomb)
                    if what in mild:
                        session.drop()
                        continue
                    heard = await asyncio.wait_for(session.ended(), PATIENCE_S)
                    assert set(heard) <= {"1"}, (what, str(heard)[:500])
                    if transport is Socket:
                        assert session.close_code in (4400, 1009), (what, session.close_code)
        for transport in TRANSPORTS:
            session = await member(transport, gateway)
            await alive(session)


@case(own=True)
async def a_namespace_of_a_megabyte_is_refused(start):
    gateway = await app(start)
    async with Neighbour.beside(gateway), grows_by_at_most(gateway, 48, "100 namespaces of a megabyte"):
        for _ in range(100):
            session = await member(Socket, gateway)
            await session.say("40/" + "n" * 999_000 + ",")
            try:
                packet = await session.packet()
                assert packet.startswith("44/n") and len(packet) < 2_000_000, packet[:100]
            except Gone as gone:
                assert gone.args[0] == 4400, gone
            session.drop()


@case(own=True)
async def who_enters_and_leaves_or_asks_and_forgets_costs_nothing(start):
    gateway = await app(start)
    async with Neighbour.beside(gateway), grows_by_at_most(gateway, 32, "20,000 entries, 20,000 unanswered questions"):
        session = await member(Socket, gateway)
        for _ in range(200):
            await session.say(*["40/custom,", "41/custom,"] * 100)
            for _ in range(100):
                assert (await session.packet()).startswith("40/custom,")
                assert event_of(await session.packet(), "/custom") == ["auth", {}]
        unanswered = 0
        with contextlib.suppress(Gone):
            for _ in range(20_000 // 100):
                await session.say(*['42["ask-me",1]'] * 100)
                asked = 0
                while asked < 100:
                    # Meanwhile the first ones are given up.
                    if (packet := await session.packet()) != '42["no-answer"]':
                        assert packet.endswith('["question",1]'), packet
                        asked += 1
                unanswered += asked
        # They may be bounded, and may not be few.
        assert unanswered >= 100, unanswered
        session.drop()


@case(own=True)
async def bytes_that_do_not_come_cost_nothing(start):
    gateway = await app(start)
    async with Neighbour.beside(gateway), grows_by_at_most(gateway, 64, "500 events that wait for ten attachments"):
        sessions = [await member(TRANSPORTS[n % 2], gateway) for n in range(500)]
        for session in sessions:
            await session.say('4510-["message",%s]' % ",".join(PLACEHOLDER % n for n in range(10)))
        for session in sessions:
            session.drop()


@case(both_ios=True, own=True)
async def thousands_of_open_polls_are_held_and_let_go(start):
    number = int(os.environ.get("OPEN_POLLS", "2000"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * number + 1000)), hard))
    gateway = await app(start)
    async with Neighbour.beside(gateway), grows_by_at_most(gateway, 16 + number // 16, f"{number} open polls"):
        sessions = []
        for at in range(0, number, 50):
            sessions += await asyncio.gather(*[
                member(Polling, gateway, keep=True) for _ in range(min(50, number - at))
            ])
            for session in sessions[at : number - 1]:
                session.connections.pop("POST").close()
        polls = [asyncio.create_task(session.poll()) for session in sessions]
        # All of them hear it, whose poll is there and whose comes later.
        await sessions[-1].say('42["broadcast","to all"]')
        for poll in polls:
            assert await asyncio.wait_for(poll, PATIENCE_S) == ['42["broadcast-back","to all"]']
        for session in sessions:
            session.drop()


@case(own=True)
async def thousands_of_polls_of_nobody_are_refused(start):
    gateway = await app(start)
    async with Neighbour.beside(gateway), grows_by_at_most(gateway, 16, "5,000 polls of unknown sessions"):
        chance = random.Random(7)

        async def ask():
            for _ in range(250):
                sid = f"{chance.getrandbits(chance.choice([8, 64, 128, 160])):x}"
                answer = await request(gateway, "GET", f"{PATH}?{QUERY}polling&sid={sid}")
                assert answer.status == 400, answer

        await asyncio.gather(*[ask() for _ in range(20)])


@case(own=True)
async def large_and_slow_posts_hold_no_more_than_their_bytes(start):
    gateway = await app(start)
    async with Neighbour.beside(gateway), grows_by_at_most(gateway, 64, "posts that are too large or stay away"):
        for length in (1_000_001, 1 << 30, 1 << 40, (1 << 63) - 1):
            session = await member(Polling, gateway)
            http = await Http.open(gateway)
            http.ask("POST", session.target, b"x" * 1000, Content_Length=length)
            assert (await http.answer()).status == 413, length
            http.close()
        # Each promises a megabyte, of which nothing is reserved.
        slow = []
        for _ in range(500):
            session = await member(Polling, gateway)
            slow.append(await Http.open(gateway))
            slow[-1].ask("POST", session.target, b"4" * 100, Content_Length=1_000_000)
        await alive(await member(Polling, gateway))
        for http in slow:
            http.close()


@case(both_ios=True, own=True)
async def who_polls_no_more_is_bounded(start):
    """Messages for somebody who does not poll wait up to a bound, and then the session ends."""
    gateway = await app(start)
    async with Neighbour.beside(gateway), grows_by_at_most(gateway, 64, "40 MB for somebody who does not poll"):
        session = await member(Polling, gateway)
        said = 0
        text = '42["message","' + "x" * 200_000 + '"]'
        refused = False
        while said < 200 and not refused:
            http = await Http.open(gateway)
            http.ask("POST", session.target, text)
            try:
                answer = await asyncio.wait_for(http.answer(), 3)
                refused = answer.status == 400
            except (asyncio.TimeoutError, ConnectionError):
                # Not read any more until somebody polls: as good a bound.
                refused = True
            http.close()
            said += 1
        assert refused, "40 MB were taken for somebody who does not poll"
