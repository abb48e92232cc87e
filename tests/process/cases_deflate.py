"""permessage-deflate: clients that offer it, in every way that they may, beside clients that do not."""

import asyncio
import json
import random
import struct
import zlib

from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from support import (
    BINARY, CLOSE, CONTINUATION, PING, TEXT, Client, Neighbour, Raw, case, fresh, handshake, token,
)

OFFER = "permessage-deflate; client_max_window_bits"
ANSWER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
COMPRESSED = 4  # the first reserved bit


def offers(**parameters):
    return [ClientPerMessageDeflateFactory(**parameters)]


def deflated(payload, window_bits=15):
    """A message of a client, less its frames."""
    context = zlib.compressobj(wbits=-window_bits)
    return (context.compress(payload) + context.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def upgraded(gateway, offer, user="raw"):
    raw = await Raw.open(gateway)
    raw.write(handshake(gateway, token(user), Sec_WebSocket_Extensions=offer))
    head = await raw.head()
    assert head.startswith("HTTP/1.1 101 "), head
    answers = [line.split(": ", 1)[1] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Extensions")]
    return raw, answers


async def receive_any(raw):
    """The next frame with its first byte: a reserved bit is what is asked for here."""
    first, second = await raw._exactly(2)
    length = second & 0x7F
    if length in (126, 127):
        form, size = ("!H", 2) if length == 126 else ("!Q", 8)
        (length,) = struct.unpack(form, await raw._exactly(size))
    return first, await raw._exactly(length)


async def reply(raw, id):
    """The reply, and whether and in how many bytes it came compressed."""
    while True:
        first, payload = await receive_any(raw)
        is_compressed, size = bool(first & 0x40), len(payload)
        if is_compressed:
            payload = zlib.decompress(payload + b"\x00\x00\xff\xff\x03\x00", wbits=-15)
        if first & 0xF == TEXT and json.loads(payload).get("id") == id:
            return json.loads(payload), is_compressed, size


@case(both_ios=True)
async def members_hear_the_same_whatever_they_agreed_on(gateway):
    ways = [
        None,
        offers(),
        offers(client_max_window_bits=True),
        offers(server_max_window_bits=9),
        offers(server_max_window_bits=15, client_max_window_bits=10),
        offers(server_no_context_takeover=True, client_no_context_takeover=True),
        None,
        offers(),
    ]
    clients = [await Client.open(gateway, fresh("user"), extensions=way) for way in ways]
    agreed = [bool(client.socket.protocol.extensions) for client in clients]
    assert agreed == [way is not None for way in ways], agreed
    room = fresh("chat:deflate")
    joined = [await client.join(room) for client in clients]
    noise = random.Random(7)
    texts = [
        "short", "a" * 1_200, json.dumps([{"n": n, "text": f"line {n}"} for n in range(400)]), "größe 🎉" * 5_000,
        "".join(chr(noise.randrange(33, 0x2FF)) for _ in range(3_000)), "x" * 900_000,
    ]
    # Each way also sends: what clients compress is inflated before anything else looks at it.
    for client, text in zip(clients * 2, texts * 2):
        await client.publish(room, "chat", {"text": text})
    want = [push["text"] for push in await clients[0].several("chat", 2 * len(texts), room)]
    for client in clients[1:]:
        heard = [push["text"] for push in await client.several("chat", 2 * len(texts), room)]
        assert heard == want, f"{client.user} heard something else"
    late = await Client.open(gateway, fresh("late"), extensions=offers())
    resumed = (await late.join(room, since=joined[0]["pos"]))["resumed"]
    assert not resumed["gap"], resumed
    heard = [push["text"] for push in await late.several("chat", 2 * len(texts), room)]
    assert heard == want, "what is replayed differs"
    await asyncio.gather(*[client.close() for client in [*clients, late]])


@case(both_ios=True)
async def what_is_small_is_left_plain_and_what_is_large_is_compressed(gateway):
    raw, answers = await upgraded(gateway, OFFER)
    assert answers == [ANSWER], answers
    room = fresh("chat:sizes")
    raw.send_json({"id": "join", "event": "room:join", "data": {"room": room}})
    _, is_compressed, _ = await reply(raw, "join")
    assert not is_compressed
    for n in range(40):
        raw.send_json({"event": "room:publish", "data": {"room": room, "event": "chat", "data": {"n": n}}})
    raw.send_json({"id": "page", "event": "room:history", "data": {"room": room}})
    page, is_compressed, size = await reply(raw, "page")
    assert is_compressed and size < len(json.dumps(page)) / 3, (is_compressed, size)
    raw.drop()


@case
async def an_offer_is_answered_as_it_was_made_or_not_at_all(gateway):
    for offer, want in [
        ("permessage-deflate; server_max_window_bits=10", [ANSWER + "; server_max_window_bits=10"]),
        ("permessage-deflate; server_max_window_bits=8", [ANSWER + "; server_max_window_bits=8"]),
        ("permessage-deflate; nonsense, permessage-deflate", [ANSWER]),
        ("permessage-deflate; nonsense", []),
        ("x-webkit-deflate-frame", []),
    ]:
        raw, answers = await upgraded(gateway, offer)
        assert answers == want, (offer, answers)
        raw.drop()


@case
async def compression_that_breaks_a_rule_closes_its_connection_alone(gateway):
    text = deflated(b'{"id":1,"event":"ping"}')
    bomb = deflated(b" " * (200 << 20))
    cases = [
        ("not agreed on", None, [(TEXT, text, {"rsv": COMPRESSED})], 1002),
        ("a control frame", OFFER, [(PING, b"", {"rsv": COMPRESSED})], 1002),
        ("a continuation", OFFER, [(TEXT, text[:3], {"rsv": COMPRESSED, "fin": False}),
                                   (CONTINUATION, text[3:], {"rsv": COMPRESSED})], 1002),
        ("another reserved bit", OFFER, [(TEXT, text, {"rsv": COMPRESSED | 1})], 1002),
        ("no deflate", OFFER, [(TEXT, b"\x06garbage", {"rsv": COMPRESSED})], 1007),
        ("no UTF-8 inside", OFFER, [(TEXT, deflated(b"\xff\xfe"), {"rsv": COMPRESSED})], 1007),
        ("a bomb", OFFER, [(TEXT, bomb, {"rsv": COMPRESSED})], 1009),
        ("binary inside", OFFER, [(BINARY, deflated(b"\xff"), {"rsv": COMPRESSED})], 1003),
    ]
    async with Neighbour.beside(gateway):
        for what, offer, frames, code in cases:
            raw, _ = await upgraded(gateway, offer or "none")
            for opcode, payload, how in frames:
                raw.frame(opcode, payload, **how)
            got, reason = await raw.closed()
            assert got == code, (what, got, reason)
            raw.drop()


@case
async def hundreds_of_bombs_take_no_memory_that_stays(gateway):
    bomb = deflated(b"\x00" * (1_000 << 20))[: 900 << 10]

    async def throw(times):
        for _ in range(times):
            raw, _ = await upgraded(gateway, OFFER)
            raw.frame(TEXT, bomb, rsv=COMPRESSED)
            code, _ = await raw.closed()
            assert code == 1009, code
            raw.drop()

    async with Neighbour.beside(gateway):
        # The first in a process touch memory that it keeps and uses again.
        await throw(20)
        before = gateway.resident_kib()
        await throw(200)
    grown = gateway.resident_kib() - before
    assert grown < 8 << 10, f"{grown} KiB more after 200 bombs"


@case(own=True)
async def never_means_never_from_new_connections_on(start):
    gateway = await start(RINGROOM_COMPRESSION__MIN_BYTES="never")
    raw, answers = await upgraded(gateway, OFFER)
    assert answers == [], answers
    raw.frame(CLOSE, struct.pack("!H", 1000))
    code, _ = await raw.closed()
    assert code == 1000
    raw.drop()
    await gateway.terminate()
