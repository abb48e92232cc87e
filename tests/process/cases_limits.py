"""Limits on how much may be asked: what is refused, how it is told, and who notices."""

import asyncio
import json
import time

from cases_config import File, reloaded
from support import TEXT, Client, Neighbour, Raw, case, count, fresh, until

# What a file or the environment says by default.
DEFAULT = {"RINGROOM_LIMITS__CONN_BURST": None}


async def publish_many(client, room, number):
    """Sends so many publishes at once; the replies."""
    ids = [next(client.ids) for _ in range(number)]
    for id in ids:
        await client.send("room:publish", {"room": room, "event": "chat", "data": id}, id=id)
    replies = [await client.reply(id) for id in ids]
    assert all(len(client.replies[id]) == 1 for id in ids), "each is answered once"
    return replies


def told_apart(replies):
    return [reply for reply in replies if reply["ok"]], [reply["error"] for reply in replies if not reply["ok"]]


@case(own=True, both_ios=True)
async def a_burst_beyond_the_limit_is_refused_with_a_wait_that_helps(start):
    gateway = await start(**DEFAULT)
    room = fresh("limit")
    listener, greedy = await Client.open(gateway, fresh("listener")), await Client.open(gateway, fresh("greedy"))
    await listener.join(room)
    assert greedy.connected["limits"]["requests"] == {"burst": 100, "count": 10, "per_ms": 1000}, greedy.connected
    async with Neighbour.beside(gateway):
        passed, refused = told_apart(await publish_many(greedy, room, 160))
        # Some come back while they are sent.
        assert 100 <= len(passed) < 160, (len(passed), refused[:1])
        for error in refused:
            assert (error["code"], error["limit"]) == ("rate_limited", "conn"), error
            assert 1 <= error["retry_after_ms"] <= 100 and "send it again" in error["message"], error
        pushed = await listener.several("chat", len(passed), room)
        assert [push["data"] for push in pushed] == [reply["id"] for reply in passed]
        await asyncio.sleep(refused[-1]["retry_after_ms"] / 1000)
        await greedy.publish(room, "chat", "after the wait")
        assert (await listener.push("chat", room))["data"] == "after the wait", "and nothing before it"
    stats = await gateway.stats()
    assert count(stats, "limited.conn") == len(refused) == count(stats, "errors.rate_limited"), stats["limited"]
    assert greedy.closed is None


@case(own=True)
async def who_goes_on_and_on_is_closed_with_4429_and_others_notice_nothing(start):
    gateway = await start(RINGROOM_LIMITS__CONN_BURST="10", shards=1)
    async with Neighbour.beside(gateway) as neighbour:
        flood = await Raw.member(gateway, fresh("flood"))
        publish = json.dumps({"event": "room:publish", "data": {"room": fresh("flood"), "event": "chat"}}).encode()
        for _ in range(1_000):
            flood.frame(TEXT, publish)
        code, reason = await flood.closed()
        assert code == 4429 and reason.startswith("rate limited"), (code, reason)
        said = neighbour.said
        await until(lambda: neighbour.said > said, "the neighbour to be heard")
    stats = await gateway.stats()
    assert count(stats, "closes.4429") == 1 == count(stats, "closed_for.asked_on"), stats["closes"]
    assert 500 <= count(stats, "limited.conn") <= 510, stats["limited"]


@case(own=True)
async def rubbish_is_not_free(start):
    gateway = await start(RINGROOM_LIMITS__CONN_BURST="10", RINGROOM_LIMITS__CONN_PER_S="1")
    for rubbish in (b"{", b'{"event":"room:dance"}', b'{"id":1,"event":"ping","data":{]}'):
        raw = await Raw.member(gateway, fresh("rubbish"))
        for _ in range(1_000):
            raw.frame(TEXT, rubbish)
        code, _ = await raw.closed()
        assert code == 4429, (rubbish, code)


@case(own=True, both_ios=True)
async def sixty_thousand_pings_harm_nobody(start):
    gateway = await start(**DEFAULT)
    async with Neighbour.beside(gateway):
        raw = await Raw.member(gateway, fresh("pings"))
        resident = gateway.resident_kib()
        for number in range(60_000):
            raw.frame(9, b"%d" % number)
            if number % 1_000 == 0:
                await raw.writer.drain()
        raw.send_json({"id": "last", "event": "ping"})
        pongs = 0
        while True:
            opcode, payload = await raw.receive()
            pongs += opcode == 10
            if opcode == TEXT and json.loads(payload).get("id") == "last":
                break
        assert 1 <= pongs <= 60_000
        assert gateway.resident_kib() - resident < 8 * 1024
        raw.drop()


@case(own=True)
async def users_and_events_have_limits_over_all_their_connections(start):
    limits = "[limits]\nconn_burst = 'unlimited'\nuser_events = 8\nuser_events_ms = 60000\n"
    with File(limits + "events = 'room:publish 3/60s, room:join* 4/60s'\n") as file:
        gateway = await start("--config", file.path, RINGROOM_LIMITS__CONN_BURST=None)
        user, room = fresh("user"), fresh("limit")
        one, two = await Client.open(gateway, user), await Client.open(gateway, user)
        assert "requests" not in one.connected["limits"], one.connected
        for client in (one, two, one):
            await client.publish(room, "chat", {})
        for client in (one, two):
            error = await client.refused("room:publish", {"room": room, "event": "chat"})
            assert (error["code"], error["limit"]) == ("rate_limited", "event:room:publish"), error
            assert 15_000 < error["retry_after_ms"] <= 20_000, error
        for nth in range(4):
            await two.join(f"{room}:{nth}")
        error = await one.refused("room:join", {"room": room})
        assert error["limit"] == "event:room:join*", error
        # Eight: three publishes, four joins, and this.
        await one.ok("ping")
        error = await two.refused("ping")
        assert error["limit"] == "user" and 0 < error["retry_after_ms"] <= 7_500, error
        stranger = await Client.open(gateway, fresh("stranger"))
        await stranger.publish(room, "chat", {})
        service = await Client.open(gateway, user, roles=["service"])
        for _ in range(50):
            await service.publish(room, "chat", {})


@case(own=True)
async def a_reload_changes_limits_under_open_connections(start):
    with File("[limits]\nconn_burst = 'unlimited'\n") as file:
        gateway = await start("--config", file.path, RINGROOM_LIMITS__CONN_BURST=None)
        room = fresh("limit")
        ada = await Client.open(gateway, "ada")
        assert not told_apart(await publish_many(ada, room, 300))[1]

        file.write("[limits]\nconn_burst = 20\nconn_per_s = 1\nmessage_bytes = 20000\nrooms_per_conn = 3\n")
        await reloaded(gateway, "reloaded: limits.conn_burst, limits.conn_per_s, limits.message_bytes, limits.rooms_per_conn")

        async def refused():
            return told_apart(await publish_many(ada, room, 5))[1]

        await until(refused, "the limit to hold")
        bob = await Client.open(gateway, "bob")
        told = bob.connected["limits"]
        assert told["requests"]["burst"] == 20 and told["message_bytes"] == 20_000 and told["rooms"] == 3, told
        await bob.join(f"{room}:1")
        await bob.join(f"{room}:2")
        error = await bob.refused("room:join", {"room": f"{room}:3"})
        assert (error["code"], error["limit"]) == ("too_many", "rooms_per_conn"), error
        await bob.publish(room, "chat", "x" * 19_000)
        await bob.send("room:publish", {"room": room, "event": "chat", "data": "x" * 20_000})
        code, reason = await bob.until_closed()
        assert code == 1009 and "message_bytes" in reason, (code, reason)

        file.write("[limits]\nconn_burst = 'unlimited'\n")
        await reloaded(gateway, "reloaded: limits.conn_burst")

        async def free():
            return not told_apart(await publish_many(ada, room, 30))[1]

        await until(free, "the limit to be gone")
        assert ada.closed is None


@case(own=True)
async def who_waits_as_told_is_never_refused_twice(start):
    gateway = await start(RINGROOM_LIMITS__CONN_BURST="5", RINGROOM_LIMITS__CONN_PER_S="40")
    client = await Client.open(gateway, "patient")
    room, refusals, began = fresh("limit"), 0, time.monotonic()
    for nth in range(60):
        data = {"room": room, "event": "chat", "data": nth}
        reply = await client.request("room:publish", data)
        if not reply["ok"]:
            refusals += 1
            await asyncio.sleep(reply["error"]["retry_after_ms"] / 1000)
            await client.ok("room:publish", data)
    assert refusals > 0 and time.monotonic() - began > 1.0
