"""Readers that stall, and senders that do: what it costs them, and that it costs nobody else.

Socket buffers are kept small on both sides, so that little data shows what a lot would.
"""

import asyncio
import json
import os
import socket

from support import CLOSE, TEXT, Client, Neighbour, Raw, case, count, counted, fresh, frame, handshake, token, until

# A message of which a stalled reader's outbox (1 MiB) takes seventeen.
FILL = "x" * 60_000
NARROW = {"RINGROOM_SOCKETS__SEND_BUFFER_BYTES": "16384"}


class Reader(Raw):
    """A member that reads when it is told to, from a small buffer."""

    @classmethod
    async def member(cls, gateway, room, user=None, **more):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (gateway.host, gateway.port))
        speech = getattr(gateway, "ssl", None)
        name = gateway.host if speech else None
        self = cls(*await asyncio.open_connection(sock=sock, limit=16_384, ssl=speech, server_hostname=name))
        self.user = user or fresh("reader")
        self.write(handshake(gateway, token(self.user)))
        head = await self.head()
        assert head.startswith("HTTP/1.1 101 "), head
        self.joined = await self.request("room:join", {"room": room, **more})
        return self

    async def request(self, event, data=None):
        """The data of the reply; pushes before it are not looked at."""
        self.send_json({"id": "r", "event": event, "data": data or {}})
        while True:
            message = await self.message()
            if message.get("id") == "r":
                assert message["ok"] is True, message
                return message["data"]

    def hold(self):
        self.writer.transport.pause_reading()

    def go_on(self):
        self.writer.transport.resume_reading()

    async def push(self, event, room):
        while True:
            message = await self.message()
            if message.get("event") == event and message.get("room") == room:
                return message

    async def rest(self, event, room):
        """The pushes of this event that are still to come, then code and reason of the close."""
        pushes = []
        while True:
            opcode, payload = await self.receive()
            if opcode == CLOSE:
                return pushes, int.from_bytes(payload[:2], "big"), payload[2:].decode()
            message = json.loads(payload) if opcode == TEXT else {}
            if message.get("event") == event and message.get("room") == room:
                pushes.append(message)


def descriptors(gateway):
    return len(os.listdir(f"/proc/{gateway.process.pid}/fd"))


async def closed_as_slow(gateway):
    return count(await gateway.stats(), "closes.4410")


async def publish_until_closed(gateway, writer, room, closes, check=None):
    """Publishes big numbered messages until so many readers are closed; gives back how many it took."""
    published = 0
    while await closed_as_slow(gateway) < closes:
        await writer.publish(room, "big", {"n": published, "fill": FILL}, exclude_self=True)
        if check:
            await check(published)
        published += 1
        assert published < 60, "3.6 MB for an outbox of 1 MiB"
    return published


@case(both_ios=True, own=True)
async def a_stalled_reader_that_reads_on_is_told_why_it_was_closed_and_recovers_what_it_missed(start):
    gateway = await start(**NARROW)
    room = fresh("chat:stalled")
    # More than one, so that some are on the room's shard and some on the other.
    stalled = [await Reader.member(gateway, room) for _ in range(6)]
    writer, bob = await Client.open(gateway, fresh("user")), await Client.open(gateway, fresh("user"))
    await bob.join(room)
    for reader in stalled:
        reader.hold()

    async def bob_has_it(n):
        assert (await bob.push("big", room))["data"]["n"] == n, "somebody who reads missed something"

    published = await publish_until_closed(gateway, writer, room, len(stalled), bob_has_it)
    assert bob.closed is None

    async def resume(reader):
        reader.go_on()
        seen, code, reason = await reader.rest("big", room)
        assert code == 4410 and reason, (code, reason)
        assert [push["data"]["n"] for push in seen] == list(range(len(seen))), "not what was queued, in order"
        assert 0 < len(seen) < published - 8, f"{len(seen)} of {published}: was it stalled at all?"
        reader.drop()
        # By the message seen last, and by a position from before everything.
        for since, first in ((seen[-1]["mid"], len(seen)), (reader.joined["pos"], 0)):
            again = await Client.open(gateway, reader.user)
            resumed = (await again.join(room, since=since))["resumed"]
            assert resumed == {"recovered": True, "replayed": published - first, "gap": False}, resumed
            missed = await again.several("big", published - first, room)
            assert [push["data"]["n"] for push in missed] == list(range(first, published)), "lost, doubled or mixed"
            await again.settled()
            assert not again.waiting("big"), "doubled"
            await again.close()

    await asyncio.gather(*[resume(reader) for reader in stalled])
    assert await closed_as_slow(gateway) == len(stalled), "nobody was closed again"
    await writer.close()
    await bob.close()


@case(both_ios=True, own=True)
async def a_replay_larger_than_an_outbox_reaches_a_slow_reader_in_one_go(start):
    gateway = await start(**NARROW)
    room, old, new = fresh("chat:long"), 40, 15
    writer = await Client.open(gateway, fresh("user"))
    pos = (await writer.join(room))["pos"]
    for n in range(old):
        await writer.publish(room, "big", {"n": n, "fill": FILL}, exclude_self=True)
    readers = [await Reader.member(gateway, room, since=pos) for _ in range(4)]
    for reader in readers:
        assert reader.joined["resumed"] == {"recovered": True, "replayed": old, "gap": False}, reader.joined
        reader.hold()

    async def all_wait():
        stats = await gateway.stats()
        return stats["replays"] == len(readers) and stats["writes_short"] >= len(readers)

    await until(all_wait, "the replays to stand still")
    # What is said now waits behind the replay.
    for n in range(old, old + new):
        await writer.publish(room, "big", {"n": n, "fill": FILL}, exclude_self=True)
    assert (await gateway.stats())["replays"] == len(readers)

    async def read_slowly(reader):
        reader.go_on()
        for n in range(old + new):
            assert (await reader.push("big", room))["data"]["n"] == n, "lost, doubled or mixed"
            await writer.settled()
        await reader.request("ping")
        reader.drop()

    await asyncio.gather(*[read_slowly(reader) for reader in readers])
    assert await closed_as_slow(gateway) == 0
    await writer.close()


@case(both_ios=True, own=True)
async def a_replay_that_the_history_outruns_ends_with_4410_and_then_an_explicit_gap(start):
    gateway = await start(**NARROW)
    room, old = fresh("chat:outrun"), 40
    writer = await Client.open(gateway, fresh("user"))
    pos = (await writer.join(room))["pos"]
    for n in range(old):
        await writer.publish(room, "big", {"n": n, "fill": FILL}, exclude_self=True)
    reader = await Reader.member(gateway, room, since=pos)
    reader.hold()
    # Beyond what a room keeps (4 MiB): what the reader has not fetched yet is gone.
    for n in range(old, old + 100):
        await writer.publish(room, "big", {"n": n, "fill": FILL}, exclude_self=True)
    reader.go_on()
    seen, code, reason = await reader.rest("big", room)
    assert code == 4410 and reason, (code, reason)
    assert [push["data"]["n"] for push in seen] == list(range(len(seen))), "a silent gap"
    assert 0 < len(seen) < old, len(seen)
    reader.drop()
    again = await Client.open(gateway, reader.user)
    assert (await again.join(room, since=seen[-1]["mid"]))["resumed"]["gap"] is True
    await again.settled()
    assert not again.waiting("big")
    await again.close()
    await writer.close()


@case(both_ios=True, own=True)
async def readers_that_never_read_again_are_reset_and_give_everything_back(start):
    gateway = await start(**NARROW)
    room, waves = fresh("chat:deaf"), 24
    writer, bob = await Client.open(gateway, fresh("user")), await Client.open(gateway, fresh("user"))
    await bob.join(room)
    before, open_before = await gateway.stats(), descriptors(gateway)
    deaf, resident = [], 0
    for wave in range(waves):
        deaf.append(await Reader.member(gateway, room))
        deaf[-1].hold()

        async def bob_has_it(n):
            assert (await bob.push("big", room))["data"]["n"] == n

        await publish_until_closed(gateway, writer, room, wave + 1, bob_has_it)
        if wave == 7:
            # By now the room keeps as much history as it ever will.
            resident = gateway.resident_kib()
    # Each of the later waves left an outbox of a mebibyte of messages that nobody else has.
    assert gateway.resident_kib() < resident + 8 * 1024, "outboxes of the closed are kept"

    async def all_gone():
        now = await gateway.stats()
        return now["connections_now"] == before["connections_now"] and now["connections"] == before["connections"]

    await until(all_gone, "the deaf to be cut off after the linger")
    assert (await gateway.stats())["resets"] == before["resets"] + waves
    await until(lambda: descriptors(gateway) <= open_before, "their descriptors to be closed")
    assert (await bob.ok("room:info", {"room": room}))["members"] == 1
    for reader in deaf:
        reader.drop()
    await writer.close()
    await bob.close()


@case(both_ios=True, own=True)
async def a_slow_reader_misses_who_came_and_went_but_no_message(start):
    gateway = await start(**NARROW)
    room = fresh("chat:shed")
    writer, slow = await Client.open(gateway, fresh("user")), await Reader.member(gateway, room)
    await writer.join(room)
    await slow.push("room:member-joined", room)
    slow.hold()
    # Beyond the quarter of its outbox from which on it is slow, and within the whole.
    for n in range(12):
        await writer.publish(room, "big", {"n": n, "fill": FILL}, exclude_self=True)

    async def shed():
        # For the bytes that wait, or once the socket has taken nothing for a while.
        stats = await gateway.stats()
        return count(stats, "dropped.transient_full") + count(stats, "dropped.transient_slow")

    dropped = await shed()
    visitor = await Client.open(gateway, fresh("user"))
    for _ in range(5):
        await visitor.join(room)
        await writer.push("room:member-joined", room, lambda push: push["data"]["user"] == visitor.user)
        await visitor.ok("room:leave", {"room": room})
        await writer.push("room:member-left", room, lambda push: push["data"]["user"] == visitor.user)
    assert await shed() == dropped + 10
    await writer.publish(room, "big", {"n": 12, "fill": ""}, exclude_self=True)
    slow.go_on()
    heard = []
    while not heard or heard[-1]["data"].get("n") != 12:
        message = await slow.message()
        if message.get("room") == room:
            heard.append(message)
    assert [push["data"].get("n") for push in heard] == list(range(13)), [push["event"] for push in heard]
    details = await slow.request("room:subscription-details")
    assert next(one for one in details if one["room"] == room)["dropped"] == 10, details
    # It keeps up again, so it is told again.
    await visitor.join(room)
    assert (await slow.push("room:member-joined", room))["data"]["user"] == visitor.user
    assert await closed_as_slow(gateway) == 0
    slow.drop()
    await writer.close()
    await visitor.close()


@case(both_ios=True)
async def senders_that_stall_in_the_middle_of_a_message_cost_nobody_anything(gateway):
    room = fresh("chat:halves")
    async with Neighbour.beside(gateway, room) as neighbour:
        resident = gateway.resident_kib()
        request = json.dumps({"id": "late", "event": "ping", "data": {"fill": "x" * 900_000}}).encode()
        message = frame(TEXT, request)
        # In the head of a frame, right after it, and in its payload, of which most is only announced.
        cuts = [1, 3, 9, 14, 2_000] * 20
        senders = await asyncio.gather(*[Raw.member(gateway, room) for _ in cuts])
        for sender, cut in zip(senders, cuts):
            sender.write(message[:cut])
        said = neighbour.said
        await until(lambda: neighbour.said > said + 3, "the neighbour to go on talking")
        # Ninety megabytes are announced.
        assert gateway.resident_kib() < resident + 16 * 1024, "memory is reserved for what was announced"
        async with counted(gateway, "requests", len(cuts)):
            for sender, cut in zip(senders, cuts):
                sender.write(message[cut:])
                while (await sender.message()).get("id") != "late":
                    pass
        for sender in senders:
            sender.drop()
