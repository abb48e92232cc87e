"""An application of one's own around the gateway: `examples/echo.rs`, as its users would run it."""

import asyncio
import os
import socket

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from support import PATIENCE_S, Client, Gateway, Raw, case, fresh, token, until

MIB = 1 << 20


async def visit(gateway, path="/echo", **options):
    options = {"compression": None, **options}
    return await connect(
        f"ws://{gateway.host}:{gateway.port}{path}", proxy=None, ping_interval=None, max_size=None, max_queue=None,
        close_timeout=PATIENCE_S, **options,
    )


async def close_of(client):
    """Code and reason with which the connection ends."""
    try:
        await asyncio.wait_for(client.wait_closed(), PATIENCE_S)
    except ConnectionClosed:
        pass
    return client.close_code, client.close_reason


@case(both_ios=True, own=True)
async def what_is_said_to_an_echo_comes_back_as_it_was(start):
    gateway = await start(example="echo")
    for extensions in (None, [ClientPerMessageDeflateFactory()], [ClientPerMessageDeflateFactory(server_max_window_bits=9)]):
        async with await visit(gateway, extensions=extensions) as client:
            messages = ["", "hello", "größe 🎉", "long " * 10_000, b"", b"\xc0\xff\x00", os.urandom(MIB), "x" * MIB]
            for message in messages:
                await client.send(message)
            for message in messages:
                heard = await asyncio.wait_for(client.recv(), PATIENCE_S)
                assert heard == message, f"{message[:20]!r} came back as {heard[:20]!r}"
            # In pieces, which is how some clients send what they do not have whole.
            await client.send(["in ", "three ", "pieces"])
            assert await client.recv() == "in three pieces"
    for path in ("/", "/echo/", "/echoes"):
        try:
            await visit(gateway, path)
        except InvalidStatus as refused:
            assert refused.response.status_code == 404
        else:
            raise AssertionError(f"{path} is served")


@case(own=True)
async def the_gateway_is_there_beside_an_application(start):
    gateway = await start(example="echo")
    room = fresh("chat:beside")
    ada, guest = await Client.open(gateway, "ada"), await visit(gateway)
    await ada.join(room)
    await guest.send("is anybody there?")
    assert await guest.recv() == "is anybody there?"
    await ada.publish(room, "chat", {"n": 1})
    assert (await ada.push("chat", room))["data"] == {"n": 1}
    stats = await gateway.stats()
    assert stats["connections"] == 2, stats
    assert (await gateway.get("/ready"))[0] == 200
    # A token counts wherever it is brought.
    stranger = await visit(gateway, f"/echo?token={token('eve', secret='not the secret of this gateway, but long')}")
    assert (await close_of(stranger))[0] == 4401
    known = await visit(gateway, f"/echo?token={token('ada')}")
    await known.send("hello")
    assert await known.recv() == "hello"
    status = await gateway.terminate()
    assert status == 0
    assert (await close_of(guest))[0] == 1012
    assert ada.closed[0] == 1012


@case(own=True)
async def an_application_says_how_large_messages_are(start):
    gateway = await start("--max-message", "1000", "--max-fragments", "3", example="echo")
    client = await visit(gateway)
    await client.send("x" * 1000)
    assert len(await client.recv()) == 1000
    await client.send(["a", "b", "c"])
    assert await client.recv() == "abc"
    await client.send(["a", "b", "c", "d", "e"])
    assert (await close_of(client))[0] == 1009
    for extensions in (None, [ClientPerMessageDeflateFactory()]):
        client = await visit(gateway, extensions=extensions)
        await client.send("x" * 1001)
        assert (await close_of(client))[0] == 1009
    # The protocol's own bound is another matter.
    ada = await Client.open(gateway, "ada")
    assert ada.connected["limits"]["message_bytes"] == MIB, ada.connected
    for flags, status, word in (
        (["--max-message", "0"], 78, "1 to 67108864 bytes, not 0"),
        (["--max-message", str(64 * MIB + 1)], 78, "not 67108865"),
        (["--max-message", "much"], 2, "much"),
        (["--loud"], 2, "--loud"),
    ):
        process = await asyncio.create_subprocess_exec(
            os.path.join(Gateway.examples, "echo"), *flags, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, error = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert (process.returncode, out) == (status, b"") and word in error.decode(), (flags, process.returncode, error)


@case(both_ios=True, own=True)
async def who_does_not_read_is_not_read_and_gets_all_in_the_end(start):
    gateway = await start(example="echo", shards=1)
    before = gateway.resident_kib()
    raw = await Raw.open(gateway)
    raw.write(
        "GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert (await raw.head()).startswith("HTTP/1.1 101 ")
    payload, number = os.urandom(60_000), 2_000
    # Masked with zeros, so it is the same on the wire.
    frame = b"\x82\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload

    async def say():
        for _ in range(number):
            raw.writer.write(frame)
            await raw.writer.drain()

    raw.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    raw.writer.transport.set_write_buffer_limits(high=1 << 16)
    saying = asyncio.create_task(say())
    # Nothing is taken from us, and so nothing from the gateway: its bytes written stand still.
    seen = []

    async def stuck():
        seen.append((await gateway.stats())["bytes_in"])
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    await until(stuck, "the gateway to stop reading")
    assert seen[-1] < number * len(frame) / 2, "it reads on and on"
    assert not saying.done()
    grown = gateway.resident_kib() - before
    assert grown < 16 * 1024, f"{grown} KiB more"
    heard = b"\x82\x7e" + len(payload).to_bytes(2, "big") + payload
    for _ in range(number):
        assert await asyncio.wait_for(raw.reader.readexactly(len(heard)), PATIENCE_S) == heard
    await saying
    raw.writer.close()
