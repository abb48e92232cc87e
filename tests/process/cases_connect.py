"""Connections: how they open, what they are told first, and how they end."""

import asyncio
import json
import re
import time

from websockets.asyncio.client import connect

from support import (
    PATIENCE_S, TEXT, Client, Gateway, Raw, case, counted, fresh, handshake, signed, token, until,
)


@case(both_ios=True)
async def the_first_push_tells_a_client_where_it_is(gateway):
    user = fresh("user")
    client = await Client.open(gateway, user)
    told = client.connected
    assert told["user"] == user and told["tenant"] == "default", told
    assert told["conn"] and told["version"], told
    assert set(told) >= {"conn", "user", "server", "version", "limits", "heartbeat_ms"}, told
    assert isinstance(told["limits"], dict) and told["heartbeat_ms"] > 0, told
    assert client.socket.subprotocol == "ringroom.v1.json"
    await client.close()


@case(both_ios=True)
async def a_token_may_come_in_any_of_its_places(gateway):
    for how in ("header", "query", "cookie", "subprotocol", "bare"):
        client = await Client.open(gateway, fresh("user"), how=how)
        assert client.connected["user"] == client.user, how
        await client.ok("ping")
        await client.close()


@case(both_ios=True)
async def ping_answers_with_the_time(gateway):
    client = await Client.open(gateway, fresh("user"))
    before = int(time.time() * 1000)
    answer = await client.ok("ping")
    assert before - 5_000 <= answer["ts"] <= int(time.time() * 1000) + 5_000, answer
    waiter = await client.socket.ping(b"frame")
    await asyncio.wait_for(waiter, PATIENCE_S)
    await client.close()


@case(both_ios=True, own=True)
async def heartbeats_come_and_a_peer_without_a_sign_of_life_is_closed(start):
    gateway = await start(RINGROOM_LIMITS__HEARTBEAT_MS="200", RINGROOM_LIMITS__HEARTBEAT_TIME_OUT_MS="3000")
    alive = await Client.open(gateway, fresh("alive"))
    # Reads, and answers no ping.
    silent = await Raw.upgraded(gateway, token(fresh("silent")))
    async with counted(gateway, "closes.idle"):
        assert (await silent.closed())[0] == 4408
    for beat in await alive.several("heartbeat", 3):
        assert isinstance(beat["data"]["ts"], int), beat
    assert alive.closed is None, "who answers pings stays"
    silent.drop()
    await alive.close()


@case
async def request_ids_may_be_integers_or_text_and_come_back_as_they_were(gateway):
    client = await Client.open(gateway, fresh("user"))
    for id in (0, -1, 2**53, "", "x" * 64, "é\"\\"):
        await client.send("ping", {}, id=id)
        assert (await client.reply(id))["ok"] is True, id
    await client.close()


@case
async def a_failure_without_an_id_is_an_error_push_that_names_the_event(gateway):
    client = await Client.open(gateway, fresh("user"))
    await client.send("no:such")
    push = await client.push("error")
    text = json.dumps(push["data"])
    assert "unknown_event" in text and "no:such" in text, push
    await client.close()


@case(both_ios=True)
async def a_bad_token_opens_the_websocket_and_closes_it_with_4401_and_a_reason(gateway):
    now = int(time.time())
    good = token("alice")
    head, body, mac = good.split(".")
    bad = {
        "missing": None,
        "malformed": "not.a.token",
        "garbage": "%%%%",
        "unsigned": signed({"alg": "none"}, {"sub": "alice"}).rsplit(".", 1)[0] + ".",
        "wrong algorithm": signed({"alg": "RS256"}, {"sub": "alice"}),
        "wrong signature": token("alice", secret="another secret of at least 32 bytes, no?"),
        "changed": f"{head}.{body[:-2]}AA.{mac}",
        "expired": token("alice", exp=now - 3600),
        "not yet valid": token("alice", nbf=now + 3600),
        "wrong type": token("alice", typ="refresh"),
        "no subject": token(None),
        "long subject": token("u" * 129),
        "too long": token("alice", name="n" * 9_000),
    }
    for what, jwt in bad.items():
        async with counted(gateway, "refused"):
            client = await Client.open(gateway, what, jwt=jwt or "", how="header" if jwt else "nowhere", ready=False)
            code, reason = await client.until_closed()
            assert code == 4401, (what, code, reason)
            assert reason and len(reason.encode()) <= 123, (what, reason)
            assert not jwt or jwt not in reason, "the reason repeats the token"
            assert not client.pushes, (what, client.pushes)


@case
async def requests_sent_behind_a_bad_token_are_not_served(gateway):
    room = fresh("chat:behind")
    member = await Client.open(gateway, fresh("user"))
    await member.join(room)
    raw = await Raw.open(gateway)
    raw.write(handshake(gateway, "not.a.token"))
    raw.send_json({"id": 1, "event": "room:publish", "data": {"room": room, "event": "chat", "data": {}}})
    await raw.head()
    assert (await raw.closed())[0] == 4401
    raw.drop()
    await member.settled()
    assert not member.waiting("chat")
    await member.close()


@case(both_ios=True)
async def frames_that_share_a_segment_with_the_handshake_are_served(gateway):
    raw = await Raw.open(gateway)
    raw.write(handshake(gateway, token(fresh("eager"))))
    raw.send_json({"id": "early", "event": "ping", "data": {}})
    assert (await raw.head()).startswith("HTTP/1.1 101 ")
    while (await raw.message()).get("id") != "early":
        pass
    raw.drop()


@case(both_ios=True)
async def a_handshake_and_a_message_may_come_byte_by_byte(gateway):
    raw = await Raw.open(gateway)
    for byte in handshake(gateway, token(fresh("slow"))).encode():
        raw.write(bytes([byte]))
        await raw.writer.drain()
        await asyncio.sleep(0)
    assert (await raw.head()).startswith("HTTP/1.1 101 ")
    text = json.dumps({"id": "slow", "event": "ping"}).encode()
    for at in range(len(text)):
        raw.frame(TEXT if at == 0 else 0, text[at : at + 1], fin=at + 1 == len(text))
        await raw.writer.drain()
    while (await raw.message()).get("id") != "slow":
        pass
    raw.drop()


@case(both_ios=True)
async def a_close_is_answered_and_the_connection_forgotten(gateway):
    client = await Client.open(gateway, fresh("user"))
    before = (await gateway.stats())["connections"]
    await client.socket.close(1000, "bye")
    assert (await client.until_closed())[0] == 1000

    async def forgotten():
        return (await gateway.stats())["connections"] < before

    await until(forgotten, "the connection to be forgotten")


@case(both_ios=True)
async def connections_are_counted_and_uncounted(gateway):
    async def number():
        return (await gateway.stats())["connections"]

    async def back_to(expected):
        return await number() == expected

    await until(lambda: back_to(0), "the connections of other tests to be gone")
    clients = await asyncio.gather(*[Client.open(gateway, fresh("user")) for _ in range(50)])
    assert await number() == 50
    for client in clients[:25]:
        client.socket.transport.abort()
    await asyncio.gather(*[client.close() for client in clients[25:]])
    await until(lambda: back_to(0), "all connections to be gone")


@case
async def health_answers_on_both_ports_and_stats_is_json(gateway):
    status, _ = await gateway.get("/health")
    assert status == 200
    raw = await Raw.open(gateway)
    raw.write(f"GET /health HTTP/1.1\r\nHost: {gateway.host}\r\nConnection: close\r\n\r\n")
    assert (await raw.answer())[0] == 200
    stats = await gateway.stats()
    wanted = {"connections", "rooms", "publishes", "deliveries", "errors", "closes", "refused", "shards"}
    assert set(stats) >= wanted, wanted - set(stats)
    status, _ = await gateway.get("/no-such-page")
    assert status == 404


@case(both_ios=True, own=True)
async def sigterm_asks_clients_to_come_back_at_spread_times_and_exits_with_0(start):
    gateway = await start()
    clients = await asyncio.gather(*[Client.open(gateway, fresh("user")) for _ in range(30)])
    room = fresh("chat:drain")
    await asyncio.gather(*[client.join(room) for client in clients])
    ending = asyncio.create_task(gateway.terminate())
    retries = []
    for client in clients:
        code, reason = await client.until_closed()
        assert code == 1012, (code, reason)
        found = re.search(r"retry_ms\D*(\d+)", reason)
        assert found, reason
        retries.append(int(found[1]))
    assert len(set(retries)) > 5, f"everybody would come back at once: {retries}"
    assert await ending == 0, gateway.tail()


@case(own=True)
async def sigterm_ends_a_gateway_without_clients_and_with_deaf_ones(start):
    gateway = await start()
    assert await gateway.terminate() == 0
    gateway = await start(RINGROOM_LIMITS__HANDSHAKE_MS="60000")
    deaf = await Raw.upgraded(gateway, token(fresh("deaf")))
    half_open = await Raw.open(gateway)
    half_open.write("GET /ws HT")
    began = time.monotonic()
    assert await gateway.terminate() == 0
    # The deaf one is given five seconds; who has not even asked is not waited for as long as it may ask.
    assert time.monotonic() - began < 30
    deaf.drop()
    half_open.drop()


@case(own=True)
async def wrong_configuration_exits_with_78_and_says_why(start):
    for environment, expected in (
        ({"RINGROOM_JWT_SECRET": ""}, 78),
        ({"RINGROOM_LIMITS__HANDSHAKE_MS": "soon"}, 78),
        ({"RINGROOM_IO": "carrier-pigeon"}, 78),
    ):
        process = await asyncio.create_subprocess_exec(
            Gateway.binary, "serve", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0",
            env={"RINGROOM_JWT_SECRET": "a secret of at least 32 bytes, for the process tests only", **environment},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        _, complaint = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert process.returncode == expected, (environment, process.returncode, complaint)
        key = next(iter(environment))
        assert key.encode() in complaint or key.split("__")[-1].lower().encode() in complaint.lower(), complaint


@case
async def an_offered_subprotocol_that_is_not_spoken_is_refused(gateway):
    try:
        async with connect(gateway.url, subprotocols=["chat.v9"], proxy=None):
            raise AssertionError("it was accepted")
    except AssertionError:
        raise
    except Exception as error:
        assert "400" in str(error), error
