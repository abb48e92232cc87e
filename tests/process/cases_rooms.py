"""Rooms: who talks to whom, in which order, and what can be caught up with."""

import asyncio
import json
import random

from support import Client, case, fresh


async def people(gateway, number, room=None):
    clients = await asyncio.gather(*[Client.open(gateway, fresh("user")) for _ in range(number)])
    if room:
        await asyncio.gather(*[client.join(room) for client in clients])
    return clients


async def part(*clients):
    await asyncio.gather(*[client.close() for client in clients])


@case(both_ios=True)
async def users_on_every_shard_hear_each_other(gateway):
    room = fresh("chat:crowd")
    clients = await people(gateway, 24, room)
    shards = (await gateway.stats())["shards"]
    assert len(shards) == gateway.shards, shards
    assert all(shard["connections"] > 0 for shard in shards), f"24 users and an empty shard: {shards}"
    for sender in clients:
        await sender.publish(room, "chat", {"by": sender.user})
    for receiver in clients:
        heard = [push["from"] for push in await receiver.several("chat", len(clients), room)]
        assert heard == [sender.user for sender in clients], heard
    await part(*clients)


@case(both_ios=True)
async def eight_publishers_at_once_make_one_dense_order_for_all(gateway):
    room = fresh("chat:order")
    clients = await people(gateway, 12, room)
    each = 50

    async def publish(client):
        return [await client.publish(room, "chat", {"n": n, "by": client.user}) for n in range(each)]

    acks = await asyncio.gather(*[publish(client) for client in clients[:8]])
    orders = []
    for client in clients:
        pushes = await client.several("chat", 8 * each, room)
        orders.append([(push["seq"], push["mid"], push["from"], push["data"]["n"]) for push in pushes])
    assert all(order == orders[0] for order in orders), "members saw different orders"
    seqs = [seq for seq, *_ in orders[0]]
    assert seqs == list(range(seqs[0], seqs[0] + 8 * each)), "gaps or repeats in seq"
    mids = [mid for _, mid, *_ in orders[0]]
    assert mids == sorted(set(mids)), "mids must be unique and rise with seq"
    assert {(ack["seq"], ack["mid"]) for acked in acks for ack in acked} == set(zip(seqs, mids))
    for client in clients[:8]:
        own = [n for _, _, by, n in orders[0] if by == client.user]
        assert own == list(range(each)), "a publisher's own order was changed"
    await part(*clients)


@case(both_ios=True)
async def a_reply_never_overtakes_what_the_room_said_before_it(gateway):
    room = fresh("chat:fifo")
    alice, *others = await people(gateway, 6, room)

    async def chatter(client):
        for n in range(50):
            await client.publish(room, "noise", {"n": n})

    noise = asyncio.gather(*[chatter(client) for client in others])
    for n in range(50):
        reply = await alice.request("room:publish", {"room": room, "event": "own", "data": n})
        own = await alice.push("own", room)
        assert own["arrival"] < reply["arrival"] and own["mid"] == reply["data"]["mid"], (own, reply)
        reply = await alice.request("room:info", {"room": room})
        told = [push["seq"] for push in alice.pushes if push["arrival"] < reply["arrival"] and "seq" in push]
        assert max([own["seq"], *told]) >= reply["data"]["seq"], "the room was further than what had come"
    await noise
    await part(alice, *others)


@case(both_ios=True)
async def data_arrives_byte_for_byte_as_it_was_sent(gateway):
    room = fresh("chat:bytes")
    alice, bob = await people(gateway, 2, room)
    texts = [
        '{ "b" : 1,\t"a":[1.50, -0, 1e5 ,"\\u00e9\\/é🎉"] }', '"just text"', "null", "[]", "12345678901234567890",
        '{"a":1,"a":2}', '"' + "x" * 70_000 + '"',
    ]
    for text in texts:
        body = '{"room":"%s","event":"bytes","data":%s}' % (room, text)
        await alice.socket.send('{"id":"b","event":"room:publish","data":%s}' % body)
        push = await bob.push("bytes", room)
        assert '"data":' + text + "}" in push["text"], (text[:80], push["text"][:200])
    await part(alice, bob)


@case(both_ios=True)
async def the_sender_is_who_the_token_says_whatever_the_payload_claims(gateway):
    room = fresh("chat:from")
    alice, bob = await people(gateway, 2, room)
    body = {"room": room, "event": "chat", "data": {"from": "mallory"}, "from": "mallory", "seq": 7, "mid": "x"}
    await alice.ok("room:publish", body)
    push = await bob.push("chat", room)
    assert push["from"] == alice.user and push["seq"] != 7 and push["mid"] != "x", push
    assert isinstance(push["ts"], int)
    keys = [key for key in json.loads(push["text"])]
    assert keys == ["event", "room", "seq", "mid", "ts", "from", "data"], keys
    await part(alice, bob)


@case(both_ios=True)
async def a_retried_cid_is_delivered_once_and_gets_the_same_answer(gateway):
    room = fresh("chat:retry")
    alice, bob = await people(gateway, 2, room)
    first = await alice.publish(room, "chat", {"try": 1}, cid="c-1")
    second = await alice.publish(room, "chat", {"try": 2}, cid="c-1")
    assert {k: first[k] for k in ("mid", "seq", "pos")} == {k: second[k] for k in ("mid", "seq", "pos")}
    # The same cid of somebody else, or in another room, is another message.
    other = await bob.publish(room, "chat", {"try": 3}, cid="c-1")
    assert other["mid"] != first["mid"]
    for receiver in (alice, bob):
        assert [push["data"]["try"] for push in await receiver.several("chat", 2, room)] == [1, 3]
        await receiver.settled()
        assert not receiver.waiting("chat"), receiver.pushes
    # Racing retries over two connections are one message too.
    twin = await Client.open(gateway, alice.user)
    answers = await asyncio.gather(
        *[c.publish(room, "chat", {"try": 4}, cid="c-2") for c in (alice, twin) for _ in range(5)]
    )
    assert len({answer["mid"] for answer in answers}) == 1, answers
    assert (await bob.push("chat", room))["data"] == {"try": 4}
    await bob.settled()
    assert not bob.waiting("chat")
    await part(alice, bob, twin)


@case(both_ios=True)
async def exclude_self_spares_the_sender_alone(gateway):
    room = fresh("chat:exclude")
    alice, bob = await people(gateway, 2, room)
    await alice.publish(room, "quiet", {}, exclude_self=True)
    await alice.publish(room, "loud", {})
    assert (await bob.push("quiet", room))["from"] == alice.user
    await bob.push("loud", room)
    await alice.push("loud", room)
    assert not alice.waiting("quiet"), alice.pushes
    await part(alice, bob)


@case(both_ios=True)
async def a_message_to_a_user_reaches_every_device_of_that_user(gateway):
    user = fresh("user")
    phone, laptop = await asyncio.gather(Client.open(gateway, user), Client.open(gateway, user))
    stranger = await Client.open(gateway, fresh("user"))
    answer = await phone.ok("room:publish", {"user": user, "event": "note", "data": {"n": 1}})
    assert answer["mid"]
    for device in (phone, laptop):
        push = await device.push("note")
        assert push["mid"] == answer["mid"] and push["data"] == {"n": 1}, push
    # Anybody of the tenant may write to a user by name; nobody else gets into the user's rooms.
    answer = await stranger.ok("room:publish", {"user": user, "event": "note", "data": {"n": 2}})
    for device in (phone, laptop):
        push = await device.push("note")
        assert (push["mid"], push["from"]) == (answer["mid"], stranger.user), push
    for event, data in (
        ("room:publish", {"room": f"user:{user}", "event": "note"}),
        ("room:join", {"room": f"user:{user}"}),
        ("room:history", {"room": f"user:{user}"}),
        ("room:online", {"room": f"user.{user}.notes"}),
    ):
        refusal = await stranger.refused(event, data)
        assert refusal["code"] == "forbidden", (event, refusal)
    away = await stranger.ok("room:publish", {"user": fresh("nobody"), "event": "note", "data": {}})
    assert away["mid"], "a user who is away has an inbox as well"
    await part(phone, laptop, stranger)


@case(both_ios=True)
async def several_rooms_get_one_message_each_and_one_result_each(gateway):
    rooms = [fresh("chat:many") for _ in range(10)]
    alice, bob = await people(gateway, 2)
    for room in rooms:
        await bob.join(room)
    asked = rooms[:5] + ["user:somebody-else"] + rooms[5:]
    answer = await alice.ok("room:publish", {"rooms": asked, "event": "chat", "data": {"n": 1}})
    results = answer["results"]
    assert [result["room"] for result in results] == asked, results
    for result in results:
        if result["room"] == "user:somebody-else":
            assert result["error"]["code"] == "forbidden", result
        else:
            push = await bob.push("chat", result["room"])
            assert (push["mid"], push["seq"]) == (result["mid"], result["seq"]), (push, result)
    await part(alice, bob)


async def fill(publisher, room, numbers):
    for n in numbers:
        await publisher.publish(room, "chat", {"n": n})


@case(both_ios=True)
async def joining_with_a_position_or_a_mid_replays_exactly_what_was_missed(gateway):
    room = fresh("chat:resume")
    alice, bob = await people(gateway, 2, room)
    await fill(alice, room, range(3))
    seen = (await bob.several("chat", 3, room))[-1]
    page = await bob.ok("room:history", {"room": room, "limit": 3})
    await bob.close()
    # More than one page of a replay.
    await fill(alice, room, range(3, 253))
    for since in (page["pos"], seen["mid"]):
        again = await Client.open(gateway, bob.user)
        joined = await again.join(room, since=since)
        assert joined["resumed"] == {"recovered": True, "replayed": 250, "gap": False}, joined
        pushes = await again.several("chat", 250, room)
        assert [push["data"]["n"] for push in pushes] == list(range(3, 253)), "replayed out of order"
        assert [push["seq"] for push in pushes] == list(range(seen["seq"] + 1, seen["seq"] + 251))
        await again.settled()
        assert not again.waiting("chat")
        await again.close()
    up_to_date = await Client.open(gateway, bob.user)
    joined = await up_to_date.join(room, since=joined["pos"])
    assert joined["resumed"] == {"recovered": True, "replayed": 0, "gap": False}, joined
    await part(alice, up_to_date)


@case(both_ios=True)
async def what_is_missed_comes_before_anything_newer(gateway):
    room = fresh("chat:replay")
    alice = (await people(gateway, 1, room))[0]
    pos = (await alice.join(room))["pos"]
    await fill(alice, room, range(200))
    stop = asyncio.Event()

    async def chatter():
        n = 200
        while not stop.is_set():
            await alice.publish(room, "chat", {"n": n})
            n += 1
        return n

    talk = asyncio.create_task(chatter())
    bob = await Client.open(gateway, fresh("user"))
    await bob.join(room, since=pos)
    seen = await bob.several("chat", 230, room)
    stop.set()
    last = await talk
    seen += await bob.several("chat", last - 230, room)
    assert [push["data"]["n"] for push in seen] == list(range(last)), "the replay and the present were mixed"
    await part(alice, bob)


@case
async def a_position_that_nothing_is_left_of_is_an_explicit_gap(gateway):
    room = fresh("chat:gap")
    alice = (await people(gateway, 1, room))[0]
    pos = (await alice.join(room))["pos"]
    # Beyond what a room keeps.
    await asyncio.gather(*[fill(alice, room, range(40)) for _ in range(15)])
    bob = await Client.open(gateway, fresh("user"))
    resumed = (await bob.join(room, since=pos))["resumed"]
    assert resumed["gap"] is True, resumed
    assert resumed["recovered"] is False and resumed["replayed"] == 0, resumed
    await bob.settled()
    assert not bob.waiting("chat")
    # A new order of the same name, and a message that never was, are gaps; the rest is nonsense.
    for since in ("0" * 26, "0" * 13 + "-5", "nonsense", "", "é"):
        carol = await Client.open(gateway, fresh("user"))
        if since.startswith("0"):
            assert (await carol.join(room, since=since))["resumed"]["gap"] is True, since
        else:
            refusal = await carol.refused("room:join", {"room": room, "since": since})
            assert refusal["code"] == "bad_request", (since, refusal)
        await carol.close()
    page = await alice.ok("room:history", {"room": room, "since": pos})
    assert page["gap"] is True and page["messages"] == [], page
    await part(alice, bob)


@case(both_ios=True)
async def history_can_be_paged_in_both_directions(gateway):
    room = fresh("chat:history")
    alice = (await people(gateway, 1, room))[0]
    start = (await alice.join(room))["pos"]
    await fill(alice, room, range(25))
    forward, cursor, pages = [], start, 0
    while True:
        page = await alice.ok("room:history", {"room": room, "since": cursor, "limit": 10})
        assert page["gap"] is False and len(page["messages"]) <= 10, page
        forward += page["messages"]
        cursor, pages = page["pos"], pages + 1
        if not page["more"]:
            break
    assert [message["data"]["n"] for message in forward] == list(range(25)), forward
    assert pages == 3
    backward, cursor = [], None
    while True:
        body = {"room": room, "limit": 10, **({"before": cursor} if cursor else {})}
        page = await alice.ok("room:history", body)
        backward = page["messages"] + backward
        if not page["more"]:
            break
        cursor = page["messages"][0]["mid"]
    assert [message["data"]["n"] for message in backward] == list(range(25)), backward
    assert all({"mid", "seq", "ts", "from", "event", "data"} <= set(message) for message in backward), backward[0]
    await part(alice)


@case(both_ios=True)
async def a_room_can_be_asked_about(gateway):
    room = fresh("chat:info")
    alice, bob = await people(gateway, 2, room)
    await alice.publish(room, "chat", {})
    info = await alice.ok("room:info", {"room": room})
    assert info["room"] == room and info["members"] == 2 and info["seq"] >= 1 and info["epoch"], info
    assert set(info) >= {"room", "members", "seq", "epoch", "created", "policy"}, info
    rooms = (await alice.ok("room:list"))["rooms"]
    names = [one["room"] if isinstance(one, dict) else one for one in rooms]
    assert room in names, rooms
    online = await alice.ok("room:online", {"room": room})
    assert (sorted(online["users"]), online["total"]) == (sorted([alice.user, bob.user]), 2), online
    status = await alice.ok("room:subscription-status", {"rooms": [room, "chat:elsewhere"]})
    assert status == {room: True, "chat:elsewhere": False}, status
    details = await alice.ok("room:subscription-details")
    mine = next(one for one in details if one["room"] == room)
    assert set(mine) >= {"room", "since", "delivered", "dropped"}, mine
    await alice.ok("room:leave", {"room": room})
    status = await alice.ok("room:subscription-status", {"rooms": [room]})
    assert status == {room: False}, status
    await part(alice, bob)


@case(both_ios=True)
async def who_is_online_can_be_paged(gateway):
    room = fresh("chat:online")
    clients = await people(gateway, 15, room)
    seen, after = [], None
    while True:
        body = {"room": room, "limit": 4, **({"after": after} if after is not None else {})}
        page = await clients[0].ok("room:online", body)
        assert page["total"] == 15 and len(page["users"]) <= 4, page
        seen += page["users"]
        after = page.get("next")
        if after is None:
            break
    assert sorted(seen) == sorted(client.user for client in clients), seen
    await part(*clients)


@case(both_ios=True)
async def only_who_may_manage_changes_a_room_and_all_members_learn_of_it(gateway):
    room = fresh("chat:update")
    alice, bob = await people(gateway, 2, room)
    refusal = await alice.refused("room:update", {"room": room, "data": {"topic": "mine"}})
    assert refusal["code"] == "forbidden", refusal
    moderator = await Client.open(gateway, fresh("user"), roles=["moderator"])
    await moderator.join(room)
    await moderator.ok("room:update", {"room": room, "data": {"topic": "ours"}})
    for member in (alice, bob):
        push = await member.push("room:updated", room)
        assert push["data"].get("topic") == "ours" or push["data"].get("data", {}).get("topic") == "ours", push
    await part(alice, bob, moderator)


@case(both_ios=True)
async def members_see_who_comes_and_goes(gateway):
    room = fresh("chat:members")
    alice = (await people(gateway, 1, room))[0]
    bob = await Client.open(gateway, fresh("user"))
    await bob.join(room)
    assert (await alice.push("room:member-joined", where=lambda p: p["data"]["user"] == bob.user))["data"]["room"] == room
    await bob.ok("room:leave", {"room": room})
    await alice.push("room:member-left", where=lambda p: p["data"]["user"] == bob.user)
    # A lost connection is a leave as well.
    await bob.join(room)
    await alice.push("room:member-joined", where=lambda p: p["data"]["user"] == bob.user)
    bob.socket.transport.abort()
    await alice.push("room:member-left", where=lambda p: p["data"]["user"] == bob.user)
    assert (await alice.ok("room:online", {"room": room}))["users"] == [alice.user]
    await part(alice)


@case(both_ios=True)
async def after_leaving_nothing_more_comes(gateway):
    room = fresh("chat:leave")
    alice, bob = await people(gateway, 2, room)
    await bob.ok("room:leave", {"room": room})
    await alice.publish(room, "chat", {})
    await alice.push("chat", room)
    await bob.settled()
    assert not bob.waiting("chat")
    assert (await bob.refused("room:leave", {"room": room}))["code"] == "not_member"
    await part(alice, bob)


@case(both_ios=True)
async def many_rooms_are_joined_and_left_at_once(gateway):
    rooms = [fresh("chat:bulk") for _ in range(20)]
    alice = (await people(gateway, 1))[0]
    answer = await alice.ok("room:join-many", {"rooms": [*rooms, "platform.security", "no such name!"]})
    joined = [one["room"] if isinstance(one, dict) else one for one in answer["joined"]]
    assert sorted(joined) == sorted(rooms), answer
    codes = {one["room"]: one["error"]["code"] for one in answer["failed"]}
    assert codes == {"platform.security": "forbidden", "no such name!": "bad_request"}, answer
    await alice.ok("room:leave-many", {"rooms": rooms})
    status = await alice.ok("room:subscription-status", {"rooms": rooms})
    assert not any(status.values()), status
    await part(alice)


@case(both_ios=True)
async def a_thousand_pipelined_requests_are_answered_exactly_once_each(gateway):
    room = fresh("chat:pipeline")
    alice, bob = await people(gateway, 2, room)
    kinds = [
        ("ping", {}), ("room:publish", {"room": room, "event": "chat", "data": {}}), ("room:info", {"room": room}),
        ("room:online", {"room": room}), ("room:history", {"room": room, "limit": 1}), ("no:such", {}),
        ("room:join", {"room": fresh("chat:other")}), ("room:publish", {"room": "user:x", "event": "chat"}),
        ("room:join", {"room": "bad name"}), ("room:list", {}),
    ]
    chosen = random.Random(7).choices(kinds, k=1_000)
    for n, (event, data) in enumerate(chosen):
        await alice.send(event, data, id=f"p{n}")
    await asyncio.gather(*[alice.reply(f"p{n}") for n in range(1_000)])
    await alice.settled()
    assert all(len(alice.replies[f"p{n}"]) == 1 for n in range(1_000)), "answered twice"
    for n, (event, data) in enumerate(chosen):
        reply = alice.replies[f"p{n}"][0]
        if (event, data) in (kinds[5], kinds[7], kinds[8]):
            assert not reply["ok"] and reply["error"]["code"] in ("unknown_event", "forbidden", "bad_request"), reply
        else:
            assert reply["ok"], (event, reply)
    published = sum(1 for one in chosen if one == kinds[1])
    await bob.several("chat", published, room)
    await part(alice, bob)


@case(both_ios=True)
async def tenants_do_not_hear_each_other_in_rooms_of_the_same_name(gateway):
    room = fresh("chat:tenants")
    red = await Client.open(gateway, "same", tenant="red")
    blue = await Client.open(gateway, "same", tenant="blue")
    for client in (red, blue):
        await client.join(room)
    await red.publish(room, "chat", {"of": "red"})
    await blue.publish(room, "chat", {"of": "blue"})
    for client, own in ((red, "red"), (blue, "blue")):
        assert (await client.push("chat", room))["data"] == {"of": own}
        await client.settled()
        assert not client.waiting("chat")
    assert (await red.ok("room:info", {"room": room}))["members"] == 1
    await part(red, blue)


@case
async def a_token_limited_to_some_rooms_opens_no_others(gateway):
    alice = await Client.open(gateway, fresh("user"), rooms={"join": ["chat:*"], "publish": ["chat:1"]})
    await alice.join("chat:1")
    await alice.join("chat:2")
    await alice.publish("chat:1", "hello", {})
    for event, data in (
        ("room:join", {"room": "zone:1"}),
        ("room:publish", {"room": "chat:2", "event": "hello"}),
        ("room:online", {"room": "zone:1"}),
    ):
        assert (await alice.refused(event, data))["code"] == "forbidden", (event, data)
    await part(alice)
