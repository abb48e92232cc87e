"""The subprotocol ringroom.v1.msgpack, spoken by an independent library, beside JSON."""

import asyncio
import base64
import struct

import msgpack
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from support import BINARY, CLOSE, TEXT, Client, Neighbour, Raw, case, fresh, handshake, token

PROTOCOL = "ringroom.v1.msgpack"


class Packed(Client):
    """A client that packs what it sends and unpacks what it hears."""

    protocols = [PROTOCOL]

    def pack(self, message):
        return msgpack.packb(message)

    def unpack(self, message):
        assert isinstance(message, bytes), f"MessagePack comes in binary messages, not {message!r}"
        return msgpack.unpackb(message)


@case(both_ios=True)
async def one_room_speaks_json_and_messagepack(gateway):
    packed = await Packed.open(gateway, fresh("packed"))
    assert packed.socket.subprotocol == PROTOCOL
    deflating = await Packed.open(gateway, fresh("packed"), extensions=[ClientPerMessageDeflateFactory()])
    plain = await Client.open(gateway, fresh("plain"))
    everybody = [packed, deflating, plain]
    room = fresh("chat:babel")
    joined = [await client.join(room) for client in everybody]
    values = [
        None, True, 0, -1, 2**63, -(2**63), 1.5, "größe 🎉", "", [], {}, [1, [2, [3]]], {"b": 1, "a": {"c": None}},
        "long " * 2_000, list(range(1_000)),
    ]
    for n, value in enumerate(values):
        ack = await everybody[n % 3].publish(room, "chat", {"value": value})
        assert set(ack) >= {"mid", "seq", "pos"}, ack
    for client in everybody:
        heard = [push["data"]["value"] for push in await client.several("chat", len(values), room)]
        assert heard == values, f"{client.user} heard {heard}"
    # What was said before anybody there spoke MessagePack is told in it too.
    early = fresh("chat:early")
    before = await plain.join(early)
    for n in range(20):
        await plain.publish(early, "chat", {"n": n, "pad": "x" * n * 200})
    resumed = (await packed.join(early, since=before["pos"]))["resumed"]
    assert resumed == {"recovered": True, "replayed": 20, "gap": False}, resumed
    assert [push["data"]["n"] for push in await packed.several("chat", 20, early)] == list(range(20))
    page = await deflating.ok("room:history", {"room": early})
    assert [message["data"]["n"] for message in page["messages"]] == list(range(20))
    assert (await packed.refused("room:join", {"room": "no room"}))["code"] == "bad_request"
    assert joined[0]["room"] == room
    await asyncio.gather(*[client.close() for client in everybody])


@case
async def bytes_are_bytes_in_messagepack_and_base64_in_json(gateway):
    packed, plain = await Packed.open(gateway, fresh("packed")), await Client.open(gateway, fresh("plain"))
    room = fresh("chat:bytes")
    await packed.join(room)
    await plain.join(room)
    blob = bytes(range(256)) * 10
    await packed.publish(room, "chat", {"blob": blob})
    in_json = {"$bin": base64.b64encode(blob).decode()}
    assert (await plain.push("chat", room))["data"] == {"blob": in_json}
    assert (await packed.push("chat", room))["data"] == {"blob": blob}
    await plain.publish(room, "chat", {"blob": in_json})
    assert (await packed.push("chat", room))["data"] == {"blob": blob}
    await packed.close()
    await plain.close()


@case
async def what_json_has_no_words_for_is_refused_and_closes_nobody(gateway):
    async with Neighbour.beside(gateway):
        raw = await Raw.open(gateway)
        raw.write(handshake(gateway, token("raw"), Sec_WebSocket_Protocol=PROTOCOL))
        head = await raw.head()
        assert f"Sec-WebSocket-Protocol: {PROTOCOL}\r\n" in head, head

        async def told():
            opcode, payload = await raw.receive()
            assert opcode == BINARY, (opcode, payload)
            return msgpack.unpackb(payload)

        assert (await told())["event"] == "connected"
        for wrong in [
            b"", b"\xc1", b"\x92\x01", b"\x81\x01\x02", b"\xd4\x01\x01", b"\xa1\xff", b"\xdd\xff\xff\xff\xff",
            b"\xcb" + struct.pack("!d", float("nan")), b"\x91" * 100 + b"\xc0", msgpack.packb(1) * 2,
            msgpack.packb({"event": "ping", "data": msgpack.ExtType(4, b"x")}),
        ]:
            raw.frame(BINARY, wrong)
            push = await told()
            assert (push["event"], push["data"]["code"]) == ("error", "bad_request"), (wrong, push)
        raw.frame(BINARY, msgpack.packb({"id": 7, "event": "ping"}))
        reply = await told()
        assert reply["id"] == 7 and reply["ok"] is True, reply
        raw.frame(TEXT, b'{"event":"ping"}')
        code, _ = await raw.closed()
        assert code == 1003, code
        raw.frame(CLOSE, struct.pack("!H", 1003))
        raw.drop()
