"""RFC 6455 and RFC 7692 rule by rule, through the real server: what other files have only in one
representative, and what only shows on a real socket. Sections are those of the two RFCs."""

import asyncio
import base64
import hashlib
import json
import os
import struct
import zlib

from cases_deflate import ANSWER, COMPRESSED, OFFER, deflated, receive_any, upgraded
from support import (
    BINARY, CLOSE, CONTINUATION, PATIENCE_S, PING, PONG, TEXT, Neighbour, Raw, case, counted, fresh, frame, handshake,
    token,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
FRAGMENTS_MAX = 16_384
PONGS_PENDING_MAX = 60
# A closing connection is cut 5 s after its close frame went out.
LINGER_S = 5
TAIL = b"\x00\x00\xff\xff"


def ask(id):
    return json.dumps({"id": id, "event": "ping"}).encode()


async def answered(raw, id):
    """Waits for the reply; compressed messages are inflated, pongs on the way are given back."""
    pongs = []
    while True:
        first, payload = await receive_any(raw)
        opcode = first & 0xF
        if first & 0x40:
            payload = zlib.decompress(payload + TAIL + b"\x03\x00", wbits=-15)
        if opcode == PONG:
            pongs.append(payload)
        elif opcode == CLOSE:
            raise AssertionError(f"closed while waiting for {id}: {payload!r}")
        elif opcode == TEXT and json.loads(payload).get("id") == id:
            assert json.loads(payload)["ok"] is True, payload
            return pongs


async def alive(raw):
    """The connection still serves."""
    id = fresh("alive")
    raw.frame(TEXT, ask(id))
    await answered(raw, id)


async def ended(raw):
    """The end of the stream, and what came before it."""
    try:
        return await asyncio.wait_for(raw.reader.read(-1), LINGER_S + PATIENCE_S)
    except ConnectionError:
        return b""


async def closes(raw, want, what, word=""):
    """The close that comes has this code and a reason, which has `word` in it."""
    try:
        code, reason = await raw.closed()
    except (asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
        raise AssertionError(f"{what}: {error!r} instead of a close with {want}") from None
    assert code == want and reason and word in reason, (what, code, reason)


async def status_of(gateway, head):
    raw = await Raw.open(gateway)
    raw.write(head)
    try:
        return (await raw.head()).split(" ")[1]
    finally:
        raw.drop()


# The handshake, RFC 6455 section 4.2.1.


@case(both_ios=True)
async def a_request_is_an_upgrade_or_it_is_not(gateway):
    jwt = token("alice")

    def upgrade(**changed):
        return handshake(gateway, jwt, **changed)

    host = f"{gateway.host}:{gateway.port}"
    cases = [
        # What is allowed, however unusual.
        ("101", upgrade()),
        ("101", upgrade(Upgrade="WebSocket")),
        ("101", upgrade(Upgrade="h2c, websocket")),
        ("101", upgrade(Connection="keep-alive, upgrade")),
        ("101", upgrade(Connection=["keep-alive", "Upgrade"])),
        ("101", upgrade(Sec_WebSocket_Key=f"  {KEY}\t")),
        ("101", upgrade(Content_Length="0")),
        ("101", upgrade().replace("Sec-WebSocket-Version", "sEC-wEBSOCKET-vERSION")),
        ("101", upgrade(path=f"http://{host}/ws")),
        ("101", "\r\n" + upgrade()),
        # The request line.
        ("400", upgrade(version="HTTP/1.0")),
        ("505", upgrade(version="HTTP/2.0")),
        ("405", upgrade(method="HEAD")),
        ("405", upgrade(method="get")),
        ("400", upgrade(path=host)),
        # Host.
        ("400", upgrade(without=["Host"])),
        ("400", upgrade(Host="")),
        ("400", upgrade(Host=[host, host])),
        ("400", upgrade(host=host)),
        # Upgrade and Connection.
        ("426", upgrade(without=["Upgrade"])),
        ("426", upgrade(Upgrade="websocket2")),
        ("426", upgrade(Upgrade="")),
        ("400", upgrade(without=["Connection"])),
        ("400", upgrade(Connection="close")),
        ("400", upgrade(Connection="Upgraded")),
        # What is offered has a grammar, whatever it means.
        ("101", upgrade(Sec_WebSocket_Extensions="unheard-of; a=1, , permessage-deflate; client_max_window_bits")),
        ("400", upgrade(Sec_WebSocket_Extensions='permessage-deflate; server_max_window_bits="9')),
        ("400", upgrade(Sec_WebSocket_Extensions="permessage-deflate;")),
        ("400", upgrade(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits=")),
        ("400", upgrade(Sec_WebSocket_Extensions='permessage-deflate; client_no_context_takeover=""')),
        ("400", upgrade(Sec_WebSocket_Extensions="permessage deflate")),
        # The key: 16 bytes in base64, once.
        ("400", upgrade(without=["Sec-WebSocket-Key"])),
        ("400", upgrade(Sec_WebSocket_Key="")),
        ("400", upgrade(Sec_WebSocket_Key=[KEY, KEY])),
        ("400", upgrade(Sec_WebSocket_Key=f"{KEY}, {KEY}")),
        ("400", upgrade(Sec_WebSocket_Key=KEY.rstrip("="))),
        ("400", upgrade(Sec_WebSocket_Key=base64.b64encode(bytes(15)).decode())),
        ("400", upgrade(Sec_WebSocket_Key=base64.b64encode(bytes(17)).decode())),
        ("400", upgrade(Sec_WebSocket_Key=KEY.replace("d", "-", 1))),
        # The version, once.
        ("426", upgrade(without=["Sec-WebSocket-Version"])),
        ("400", upgrade(Sec_WebSocket_Version=["13", "13"])),
        ("400", upgrade(Sec_WebSocket_Version=["13", "8"])),
        *(("426", upgrade(Sec_WebSocket_Version=other)) for other in ("0", "8", "14", "013", "+13", "13, 8", "1 3")),
        # No body, and nothing that two readers could see differently.
        ("400", upgrade(Content_Length="1")),
        ("400", upgrade(Content_Length=["0", "1"])),
        ("400", upgrade(Transfer_Encoding="chunked")),
        ("400", upgrade().replace("Upgrade: websocket", "Upgrade : websocket")),
        ("400", upgrade().replace("Upgrade: websocket", "Upgrade:\r\n websocket")),
        ("400", upgrade().replace("Host:", "Ho\x00st:")),
        # Subprotocols: tokens, one of which is spoken.
        ("101", upgrade(Sec_WebSocket_Protocol=["chat.v9", "ringroom.v1.json"])),
        ("400", upgrade(Sec_WebSocket_Protocol="chat.v9")),
        ("400", upgrade(Sec_WebSocket_Protocol="")),
        ("400", upgrade(Sec_WebSocket_Protocol="ringroom.v1.json,")),
        ("400", upgrade(Sec_WebSocket_Protocol="ringroom v1 json")),
    ]
    async with Neighbour.beside(gateway):
        for status, head in cases:
            got = await status_of(gateway, head)
            assert got == status, (got, status, head)


@case
async def the_answer_proves_that_the_key_was_read(gateway):
    for _ in range(20):
        key = base64.b64encode(os.urandom(16)).decode()
        raw = await Raw.open(gateway)
        raw.write(handshake(gateway, token("alice"), Sec_WebSocket_Key=key, Sec_WebSocket_Protocol="ringroom.v1.json"))
        lines = (await raw.head()).split("\r\n")
        raw.drop()
        accept = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        assert lines[0] == "HTTP/1.1 101 Switching Protocols", lines
        headers = dict(line.split(": ") for line in lines[1:-2])
        assert headers == {
            "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Protocol": "ringroom.v1.json",
            "Sec-WebSocket-Accept": base64.b64encode(accept).decode(),
        }, headers


@case(both_ios=True)
async def a_handshake_and_the_frames_behind_it_may_be_cut_anywhere(gateway):
    head = handshake(gateway, token(fresh("cut")), Sec_WebSocket_Extensions=OFFER).encode()
    packed = deflated(ask("third"))
    behind = (
        frame(TEXT, ask("first")) + frame(PING, b"between") + frame(TEXT, ask("second")[:9], fin=False)
        + frame(PING, b"inside") + frame(CONTINUATION, ask("second")[9:])
        + frame(TEXT, packed[:3], fin=False, rsv=COMPRESSED) + frame(CONTINUATION, packed[3:])
    )
    everything = head + behind

    async def cut(at):
        raw = await Raw.open(gateway)
        raw.write(everything[:at])
        await raw.writer.drain()
        # Whatever is read of it is read before the rest is there.
        await asyncio.sleep(0.005)
        raw.write(everything[at:])
        assert (await raw.head()).startswith("HTTP/1.1 101 ")
        pongs = []
        for id in ("first", "second", "third"):
            pongs += await answered(raw, id)
        assert pongs == [b"between", b"inside"], (at, pongs)
        raw.drop()

    places = [*range(len(head) - 6, len(everything)), *range(1, len(head) - 6, 7)]
    for at in range(0, len(places), 40):
        await asyncio.gather(*[cut(place) for place in places[at : at + 40]])


@case
async def a_compressed_conversation_may_come_byte_by_byte(gateway):
    packed = deflated(ask("last"))
    everything = handshake(gateway, token(fresh("slow")), Sec_WebSocket_Extensions=OFFER).encode() + b"".join([
        frame(PING, b"before"), frame(TEXT, packed[:4], fin=False, rsv=COMPRESSED), frame(PING, b"between"),
        frame(CONTINUATION, b"", fin=False), frame(CONTINUATION, packed[4:]),
    ])
    raw = await Raw.open(gateway)
    for byte in everything:
        raw.write(bytes([byte]))
        await raw.writer.drain()
        await asyncio.sleep(0)
    assert (await raw.head()).startswith("HTTP/1.1 101 ")
    assert await answered(raw, "last") == [b"before", b"between"]
    raw.drop()


# What is offered, RFC 7692 sections 5.1 and 7.1.


@case
async def an_offer_that_cannot_be_kept_is_declined_and_the_next_one_taken(gateway):
    deflate = "permessage-deflate"
    taken = [
        ("", ""),
        ("; client_max_window_bits", ""),
        *((f"; client_max_window_bits={bits}", "") for bits in range(8, 16)),
        *((f"; server_max_window_bits={bits}", f"; server_max_window_bits={bits}") for bits in range(8, 16)),
        ('; server_max_window_bits="12"', "; server_max_window_bits=12"),
        ('; client_max_window_bits="12"', ""),
        (" ;server_max_window_bits = 9 ; client_max_window_bits", "; server_max_window_bits=9"),
        ("; server_no_context_takeover; client_no_context_takeover", ""),
    ]
    values = ["7", "16", "010", "+10", "-9", "1e1", "0xA", "10.0", '"010"', "255", "9" * 30]
    declined = [
        *(f"; {side}_max_window_bits={value}" for side in ("server", "client") for value in values),
        "; server_max_window_bits",
        "; server_no_context_takeover=1", "; client_no_context_takeover=true",
        "; server_no_context_takeover; server_no_context_takeover",
        "; client_no_context_takeover; client_no_context_takeover",
        "; server_max_window_bits=10; server_max_window_bits=10",
        "; client_max_window_bits; client_max_window_bits=10",
        "; unknown", "; unknown=1", "; Server_Max_Window_Bits_=10",
    ]
    cases = [(deflate + offer, [ANSWER + more]) for offer, more in taken]
    cases += [(deflate + offer, []) for offer in declined]
    cases += [(f"{deflate}{offer}, {deflate}; server_max_window_bits=11", [ANSWER + "; server_max_window_bits=11"])
              for offer in declined]
    cases += [
        # The first that can be kept, over lines too.
        (f"{deflate}; server_max_window_bits=9, {deflate}; client_max_window_bits",
         [ANSWER + "; server_max_window_bits=9"]),
        ([f"{deflate}; unknown", f"x-other, {deflate}; server_max_window_bits=13"],
         [ANSWER + "; server_max_window_bits=13"]),
        ("x-webkit-deflate-frame, bbf-usp-protocol", []),
        (f"{deflate}2, not-{deflate}", []),
    ]
    for offer, want in cases:
        raw, answers = await upgraded(gateway, offer)
        assert answers == want, (offer, answers)
        # Declined or not, there is a conversation.
        await alive(raw)
        raw.drop()


@case(both_ios=True)
async def what_is_sent_fits_the_window_that_was_asked_for(gateway):
    text = "".join(f"{n * 7_919 % 10_007} " for n in range(9_000)) * 2
    for bits in range(8, 16):
        raw, _ = await upgraded(gateway, f"permessage-deflate; server_max_window_bits={bits}")
        room = fresh("chat:window")
        raw.send_json({"event": "room:join", "data": {"room": room}})
        raw.send_json({"event": "room:publish", "data": {"room": room, "event": "said", "data": text}})
        while True:
            first, payload = await receive_any(raw)
            if first & 0x40:
                # This library knows no window of 8 bits; what fits one fits 9.
                context = zlib.decompressobj(wbits=-max(bits, 9))
                # A few bytes at a time, so that nothing but the window reaches back.
                pieces = [payload[at : at + 64] for at in range(0, len(payload), 64)]
                message = json.loads(b"".join(context.decompress(piece) for piece in [*pieces, TAIL]))
                if message["event"] == "said":
                    break
            else:
                assert json.loads(payload).get("event") != "said", "it was to come compressed"
        assert message["data"] == text, f"{bits} bits"
        raw.drop()


# Frames, RFC 6455 section 5.


def header(first, second, rest=b""):
    return bytes([first, second]) + rest


@case(both_ios=True)
async def every_frame_against_the_rules_closes_with_1002(gateway):
    text, key = ask("never"), b"\x37\xfa\x21\x3d"
    packed = deflated(text)
    cases = {
        **{f"opcode {n}": frame(n, b"") for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
        **{f"opcode {n} in a message": frame(TEXT, b"a", fin=False) + frame(n, b"") for n in (3, 11)},
        **{f"reserved bits {n}": frame(TEXT, text, rsv=n) for n in range(1, 8)},
        "compressed binary that was not agreed on": frame(BINARY, packed, rsv=COMPRESSED),
        "a reserved bit on a continuation": frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", rsv=4),
        **{f"control opcode {n} with a reserved bit": frame(n, b"", rsv=4) for n in (CLOSE, PING, PONG)},
        **{f"control opcode {n} in fragments": frame(n, b"", fin=False) for n in (CLOSE, PING, PONG)},
        **{f"control opcode {n} of 126 bytes": frame(n, b"\x03\xe8" + b"x" * 124) for n in (CLOSE, PING, PONG)},
        "a ping with a length of 8 bytes": header(0x89, 0xFF, struct.pack("!Q", 5) + key),
        "unmasked text": frame(TEXT, text, masked=False),
        "unmasked ping": frame(PING, b"", masked=False),
        "unmasked close": frame(CLOSE, b"\x03\xe8", masked=False),
        "an unmasked continuation": frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", masked=False),
        "125 in two bytes": header(0x81, 0xFE, struct.pack("!H", 125) + key + bytes(125)),
        "0 in two bytes": header(0x81, 0xFE, struct.pack("!H", 0) + key),
        "65535 in eight bytes": header(0x81, 0xFF, struct.pack("!Q", 65_535) + key + bytes(65_535)),
        "5 in eight bytes": header(0x81, 0xFF, struct.pack("!Q", 5) + key + bytes(5)),
        "a length of 64 bits": header(0x81, 0xFF, struct.pack("!Q", 1 << 63) + key),
        "a continuation of nothing": frame(CONTINUATION, text),
        "a continuation of what has ended": frame(TEXT, text[:5], fin=False) + frame(CONTINUATION, text[5:]) * 2,
        "a continuation of nothing after a ping": frame(PING, b"") + frame(CONTINUATION, b"", fin=False),
        "a text inside a text": frame(TEXT, b"a", fin=False) + frame(TEXT, text),
        "a binary inside a text": frame(TEXT, b"a", fin=False) + frame(BINARY, b"b"),
        "a text inside an empty text": frame(TEXT, b"", fin=False) + frame(TEXT, text),
    }
    room = fresh("chat:frames")
    async with Neighbour.beside(gateway, room):
        for what, data in cases.items():
            async with counted(gateway, "closes.1002"):
                raw = await Raw.upgraded(gateway, token(fresh("raw")))
                # What comes behind counts no more.
                raw.write(data + frame(TEXT, ask("never")))
                await closes(raw, 1002, what)
                raw.frame(CLOSE, b"\x03\xea")
                assert await ended(raw) == b"", what
                raw.drop()


@case
async def rules_of_compressed_frames_hold_where_compression_is_agreed_on_too(gateway):
    packed = deflated(ask("never"))
    start = frame(TEXT, packed[:3], fin=False, rsv=COMPRESSED)
    cases = {
        **{f"reserved bits {n}": frame(TEXT, packed, rsv=n) for n in (1, 2, 3, 5, 6, 7)},
        "the bit again on a continuation": start + frame(CONTINUATION, packed[3:], rsv=COMPRESSED),
        "the bit on a continuation alone": frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", rsv=COMPRESSED),
        **{f"control opcode {n} with the bit": frame(n, b"", rsv=COMPRESSED) for n in (CLOSE, PING, PONG)},
        "a ping with the bit inside a message": start + frame(PING, b"", rsv=COMPRESSED),
        "a reserved opcode with the bit": frame(3, packed, rsv=COMPRESSED),
        "a compressed text inside a compressed text": start + frame(TEXT, packed, rsv=COMPRESSED),
    }
    for what, data in cases.items():
        raw, _ = await upgraded(gateway, OFFER)
        raw.write(data)
        await closes(raw, 1002, what)
        raw.drop()


@case(both_ios=True)
async def control_frames_may_stand_between_all_fragments(gateway):
    for is_compressed in (False, True):
        raw, _ = await upgraded(gateway, OFFER)
        payload = deflated(ask("whole")) if is_compressed else ask("whole")
        pings = []
        for at in range(len(payload) + 1):
            opcode, end = (CONTINUATION if at else TEXT), at == len(payload)
            raw.frame(opcode, payload[at : at + 1], fin=end, rsv=COMPRESSED if is_compressed and at == 0 else 0)
            if not end:
                pings.append(bytes([at]) * (at % 126))
                raw.frame(PING, pings[-1])
                raw.frame(PONG, b"unasked")
            # Fewer than may wait for an answer.
            if at % (PONGS_PENDING_MAX // 2) == 0:
                await raw.writer.drain()
        pongs = await answered(raw, "whole")
        assert pongs == pings[: len(pongs)] and len(pongs) >= min(len(pings), PONGS_PENDING_MAX), (pongs, pings)
        raw.drop()


@case
async def a_ping_is_answered_with_its_own_bytes(gateway):
    raw = await Raw.upgraded(gateway, token(fresh("pinger")))
    for payload in (b"", b"\x00", bytes(range(125)), b"\xff\xfe no text"):
        raw.frame(PING, payload)
        while (received := await raw.receive())[0] != PONG:
            pass
        assert received[1] == payload, received
    raw.drop()


@case(both_ios=True)
async def of_a_burst_of_pings_the_first_and_the_last_are_answered(gateway):
    raw = await Raw.upgraded(gateway, token(fresh("pinger")))
    await alive(raw)
    before = (await gateway.stats())["reads"]
    sent = 2_000
    raw.write(b"".join(frame(PING, b"%d" % n) for n in range(sent)))
    pongs = []
    while not pongs or pongs[-1] != sent - 1:
        opcode, payload = await raw.receive()
        assert opcode == PONG, (opcode, payload)
        pongs.append(int(payload))
    assert pongs[:PONGS_PENDING_MAX] == list(range(PONGS_PENDING_MAX)), pongs[:100]
    assert pongs == sorted(set(pongs)), "in order, none twice"
    reads = (await gateway.stats())["reads"] - before
    # What one read brings is answered by what may wait, and by one pong for the latest ping.
    assert len(pongs) <= (PONGS_PENDING_MAX + 1) * reads, (len(pongs), reads)
    await alive(raw)
    raw.drop()


@case(both_ios=True)
async def a_message_may_have_16384_fragments_and_no_more(gateway):
    async with Neighbour.beside(gateway):
        for payload, rsv in ((ask("many"), 0), (deflated(ask("many")), COMPRESSED)):
            for fragments in (FRAGMENTS_MAX, FRAGMENTS_MAX + 1):
                raw, _ = await upgraded(gateway, OFFER)
                raw.frame(TEXT, b"", fin=False, rsv=rsv)
                raw.write(frame(CONTINUATION, b"", fin=False) * (fragments - 2))
                raw.frame(CONTINUATION, payload)
                if fragments == FRAGMENTS_MAX:
                    await answered(raw, "many")
                else:
                    await closes(raw, 1009, f"{fragments} fragments", "fragments")
                raw.drop()


@case(both_ios=True)
async def an_announced_length_is_refused_before_its_first_byte(gateway):
    limit, key = 1 << 20, b"\x37\xfa\x21\x3d"
    async with Neighbour.beside(gateway):
        headers = [
            header(0x81, 0xFF, struct.pack("!Q", limit + 1)), header(0x82, 0xFF, struct.pack("!Q", 1 << 32)),
            header(0xC1, 0xFF, struct.pack("!Q", 1 << 62)), header(0x01, 0xFF, struct.pack("!Q", (1 << 63) - 1)),
            # The rest of a message, which is too much with what is there.
            frame(TEXT, b" " * 10, fin=False) + header(0x80, 0xFF, struct.pack("!Q", limit - 9)) + key,
        ]
        for data in headers:
            raw, _ = await upgraded(gateway, OFFER)
            # Not even the key has to come.
            raw.write(data)
            await closes(raw, 1009, data, "message_bytes")
            raw.drop()


# Text, RFC 6455 section 8.1.


@case(both_ios=True)
async def text_fails_with_its_first_wrong_byte(gateway):
    wrong = {
        "a byte that none begins with": b"\xff", "a continuation alone": b"\x80", "overlong": b"\xc0\x80",
        "overlong in three": b"\xe0\x80\x80", "overlong in four": b"\xf0\x80\x80\x80", "a surrogate": b"\xed\xa0\x80",
        "beyond the last": b"\xf4\x90\x80\x80", "five bytes": b"\xf8\x88\x80\x80\x80", "cut by another": b"\xe2\x82a",
    }
    good = '{"event":"é中🎉'.encode()
    for what, ill in wrong.items():
        for how in ("in a frame that goes on", "in a fragment", "in a later fragment", "in a later frame that goes on"):
            raw = await Raw.upgraded(gateway, token(fresh("raw")))
            if "later" in how:
                raw.frame(TEXT, good, fin=False)
                raw.frame(PING, b"between")
            opcode = CONTINUATION if "later" in how else TEXT
            if "goes on" in how:
                # Announced, and never sent.
                raw.frame(opcode, good + ill, length=1_000)
            else:
                raw.frame(opcode, good + ill, fin=False)
            await closes(raw, 1007, (what, how))
            raw.drop()


# Closing, RFC 6455 sections 5.5.1 and 7.


@case(both_ios=True)
async def a_close_is_answered_with_its_code_or_refused(gateway):
    reason = "größe 🎉"
    cases = [
        (b"", 1000),
        *((struct.pack("!H", code), code) for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012,
                                                       1013, 1014, 3000, 3999, 4000, 4401, 4999)),
        (struct.pack("!H", 3000) + reason.encode(), 3000),
        (struct.pack("!H", 1000) + b"x" * 123, 1000),
        (b"\x03", 1002),
        *((struct.pack("!H", code), 1002) for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000,
                                                       65_535)),
        (struct.pack("!H", 1000) + b"\xff", 1007),
        (struct.pack("!H", 1000) + reason.encode()[:-1], 1007),
        (struct.pack("!H", 4000) + b"\xed\xa0\x80", 1007),
    ]
    room = fresh("chat:close")
    async with Neighbour.beside(gateway, room) as neighbour:
        for payload, want in cases:
            raw = await Raw.member(gateway, room)
            # What comes behind a close counts no more.
            late = json.dumps({"event": "room:publish", "data": {"room": room, "event": "late", "data": 1}}).encode()
            raw.write(frame(CLOSE, payload) + frame(TEXT, late) + frame(PING, b"late"))
            code, _ = await raw.closed()
            assert code == want, (payload, code)
            # The server ends the stream, and nothing follows its close.
            if want in (1002, 1007) and payload[:2] != struct.pack("!H", want):
                raw.frame(CLOSE, struct.pack("!H", want))
            assert await ended(raw) == b"", payload
            raw.drop()
        await neighbour.client.settled()
        assert not neighbour.client.waiting("late"), "a message behind a close was served"


@case(both_ios=True)
async def a_close_in_the_middle_of_a_message_is_answered(gateway):
    raw, _ = await upgraded(gateway, OFFER)
    raw.frame(TEXT, deflated(ask("half"))[:4], fin=False, rsv=COMPRESSED)
    raw.frame(CLOSE, struct.pack("!H", 1001))
    assert (await raw.closed())[0] == 1001
    assert await ended(raw) == b""
    raw.drop()


@case(both_ios=True)
async def who_goes_on_after_our_close_is_not_heard_and_cut_in_time(gateway):
    room = fresh("chat:goes-on")
    late = json.dumps({"event": "room:publish", "data": {"room": room, "event": "late", "data": "x" * 500}}).encode()
    loop = asyncio.get_running_loop()

    async def goes_on(writes):
        raw = await Raw.upgraded(gateway, token(fresh("raw")))
        raw.frame(3, b"")
        await closes(raw, 1002, "a reserved opcode")
        began = loop.time()
        try:
            while writes and loop.time() - began < LINGER_S + PATIENCE_S:
                raw.write(frame(TEXT, late) * 20)
                await asyncio.wait_for(raw.writer.drain(), PATIENCE_S)
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        assert await ended(raw) == b""
        took = loop.time() - began
        assert took < LINGER_S + 5, f"cut only after {took:.1f} s"
        raw.drop()

    async with Neighbour.beside(gateway, room) as neighbour:
        await asyncio.gather(goes_on(writes=True), goes_on(writes=False))
        await neighbour.client.settled()
        assert not neighbour.client.waiting("late"), "a message behind our close was served"


# Compressed messages, RFC 7692 section 7.2.


def ended_streams(payload):
    """As one stream that ends (BFINAL), and as two."""
    context = zlib.compressobj(wbits=-15)
    whole = context.compress(payload) + context.flush(zlib.Z_FINISH)
    first, second = zlib.compressobj(wbits=-15), zlib.compressobj(wbits=-15)
    half = len(payload) // 2
    two = first.compress(payload[:half]) + first.flush(zlib.Z_FINISH)
    two += second.compress(payload[half:]) + second.flush(zlib.Z_SYNC_FLUSH)
    return whole + b"\x00", whole, two[: -len(TAIL)]


def other_forms(payload):
    """Stored, with fixed codes, in several blocks, by a small window."""
    for level, strategy in ((0, zlib.Z_DEFAULT_STRATEGY), (9, zlib.Z_FIXED), (9, zlib.Z_HUFFMAN_ONLY)):
        context = zlib.compressobj(level, wbits=-15, strategy=strategy)
        yield (context.compress(payload) + context.flush(zlib.Z_SYNC_FLUSH))[: -len(TAIL)]
    context = zlib.compressobj(wbits=-15)
    pieces = [payload[at : at + 5] for at in range(0, len(payload), 5)]
    yield b"".join(context.compress(piece) + context.flush(zlib.Z_SYNC_FLUSH) for piece in pieces)[: -len(TAIL)]
    yield deflated(payload, 9)
    # The tail is to be taken off, and some leave it on.
    yield deflated(payload) + TAIL


@case(both_ios=True)
async def every_way_to_compress_a_message_is_understood(gateway):
    raw, _ = await upgraded(gateway, OFFER)
    padded = ask("form")[:-1] + b', "data": {"pad": "' + b"pad, " * 40 + b'"}}'
    for payload in (ask("form"), padded):
        forms = [deflated(payload), *ended_streams(payload), *other_forms(payload)]
        for form in forms:
            raw.frame(TEXT, form, rsv=COMPRESSED)
            await answered(raw, "form")
            # At every byte, with an empty fragment first and last.
            raw.frame(TEXT, b"", fin=False, rsv=COMPRESSED)
            for byte in form:
                raw.frame(CONTINUATION, bytes([byte]), fin=False)
            raw.frame(CONTINUATION, b"")
            await answered(raw, "form")
    # An uncompressed message is one too (section 6.1), and so is the next.
    raw.frame(TEXT, ask("plain"))
    await answered(raw, "plain")
    raw.drop()


@case
async def an_empty_compressed_message_is_an_empty_message(gateway):
    raw, _ = await upgraded(gateway, OFFER)
    # As section 7.2.3.6 has it, as a stored block, as a stream that ends, and of no byte at all.
    for empty in (b"\x00", b"\x02\x00", b"\x00\x00\x00\xff\xff\x00", b"\x03\x00", b""):
        raw.frame(TEXT, empty, rsv=COMPRESSED)
        while (message := await raw.message())["event"] != "error":
            pass
        assert message["data"]["code"] == "bad_request", (empty, message)
        await alive(raw)
    raw.drop()


@case
async def what_does_not_inflate_closes_with_1007(gateway):
    whole = deflated(ask("never") * 20)
    context = zlib.compressobj(wbits=-15)
    known = ask("one") + b" " * 100
    first = (context.compress(known) + context.flush(zlib.Z_SYNC_FLUSH))[: -len(TAIL)]
    # Refers back to the message before, whose context the answer to the handshake has given up.
    second = (context.compress(known) + context.flush(zlib.Z_SYNC_FLUSH))[: -len(TAIL)]
    cases = {
        "a reserved kind of block": b"\x06", "a stored block with wrong lengths": b"\x00\x05\x00\x00\x00hello",
        "cut off in a block": whole[: len(whole) // 2], "cut off in a stored block": b"\x00\x05\x00\xfa\xffhe",
        "cut off by a byte": whole[:-1], "a distance beyond the beginning": second, "noise": b"\xff" * 50,
    }
    for what, payload in cases.items():
        raw, _ = await upgraded(gateway, OFFER)
        raw.frame(TEXT, first, rsv=COMPRESSED)
        await answered(raw, "one")
        async with counted(gateway, "closes.1007"):
            raw.frame(TEXT, payload, rsv=COMPRESSED)
            await closes(raw, 1007, what, "inflate")
        raw.drop()


@case
async def the_limit_of_a_message_holds_for_what_it_inflates_to(gateway):
    limit = 1 << 20
    fits = ask("fits") + b" " * (limit - len(ask("fits")))
    for fragments in (1, 7):
        for payload, is_refused in ((fits, False), (fits + b" ", True), (b"\xff" * (limit + 1), True)):
            raw, _ = await upgraded(gateway, OFFER)
            packed = deflated(payload)
            cuts = [len(packed) * n // fragments for n in range(fragments + 1)]
            for n in range(fragments):
                raw.frame(
                    CONTINUATION if n else TEXT, packed[cuts[n] : cuts[n + 1]], fin=n + 1 == fragments,
                    rsv=0 if n else COMPRESSED,
                )
            if is_refused:
                await closes(raw, 1009, f"{len(payload)} bytes in {fragments} fragments", "inflates")
            else:
                await answered(raw, "fits")
            raw.drop()
