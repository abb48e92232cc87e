"""Client libraries of Socket.IO, unchanged, against `examples/socketio_app.rs`: over each transport, over one shard
and two, several connections at a time, every message checked: none lost, none doubled, in order."""

import asyncio
import json
import os

from cases_engineio import app
from socketio_clients import NoAnswer, Npm, PythonAsyncio, PythonThreads
from support import PATIENCE_S, Gateway, case, fresh, until

# The last one upgrades.
TRANSPORTS = (["websocket"], ["polling"], ["polling", "websocket"])
SESSIONS = 4


def url_of(gateway):
    return f"http://{gateway.host}:{gateway.port}"


async def settles(connection, transport):
    async def there():
        return await connection.transport() == transport

    await until(there, f"the connection to be on {transport}")


async def opened(library, gateway, transports, namespaces=("/",), auth=None, **options):
    """A connection that has been greeted in its namespaces as the example does."""
    connection = await library.open(url_of(gateway), transports, list(namespaces), auth, **options)
    await connection.entered(*namespaces)
    for namespace in namespaces:
        told = await connection.event(namespace, "auth")
        assert told == [auth or {}], told
    return connection


def said_by(number):
    """What one session says in one namespace: numbered, of all kinds."""
    for n in range(60):
        yield (
            [n],
            [n, "größe 🎉", {"deep": [{"n": n, "none": None, "half": 0.5}]}],
            [n, bytes([n, 0, 255])],
            [n, {"of": number, "list": [b"\x01" * n, "x", b""]}],
            [n, "x" * 5_000, b"y" * 5_000],
        )[n % 5]


async def talk(connection, namespace, number):
    said = list(said_by(number))

    async def say():
        for arguments in said:
            await connection.emit(namespace, "message", *arguments)

    saying = asyncio.create_task(say())
    for arguments in said:
        heard = await connection.event(namespace, "message-back")
        assert heard == arguments, f"{str(heard)[:300]} came back where {str(arguments)[:300]} should"
    await saying


async def conversation(library, gateway, transports, number):
    auth = {"who": number}
    spaces = ("/", "/custom")
    connection = await opened(library, gateway, transports, spaces, auth)
    await asyncio.gather(*[talk(connection, namespace, number) for namespace in spaces])
    for namespace in spaces:
        for arguments in ([1], [1, "2", {"3": [True]}], [b"\x00\x01", {"b": [b"deep"]}], []):
            answer = await connection.ask(namespace, "message-with-ack", *arguments)
            assert answer == arguments, (answer, arguments)
        try:
            answer = await connection.ask(namespace, "nobody-answers", timeout_s=0.2)
            raise AssertionError(f"an answer to nothing: {answer}")
        except NoAnswer:
            pass
        for arguments in ([number], ["x", b"\x07bytes"]):
            await connection.emit(namespace, "ask-me", *arguments)
            assert await connection.event(namespace, "question") == arguments
            assert await connection.event(namespace, "answer-was") == ["answer", *arguments]
        await connection.emit(namespace, "burst", 200)
        for n in range(200):
            assert await connection.event(namespace, "burst-item") == [n]
    await settles(connection, transports[-1])
    # Nothing came twice: the next thing is this.
    for namespace in spaces:
        await connection.emit(namespace, "message", "the end")
        assert await connection.event(namespace, "message-back") == ["the end"]
    await connection.close()


async def rooms(library, gateway):
    members = [await opened(library, gateway, transports) for transports in TRANSPORTS]
    room = fresh("tea")
    for member in members:
        assert await member.ask("/", "join", room) == []
    await members[0].emit("/", "to-room", room, "hello", b"\x01")
    for member in members[1:]:
        assert await member.event("/", "room-message") == ["hello", b"\x01"]
    await members[1].ask("/", "leave", room)
    await members[2].emit("/", "to-room", room, "again")
    assert await members[0].event("/", "room-message") == ["again"]
    await members[1].emit("/", "broadcast", {"to": "all"})
    for member in members:
        assert await member.event("/", "broadcast-back") == [{"to": "all"}]
        await member.close()


async def comes_back(connection, what):
    """After its transport was closed."""
    await connection.until_heard("/", "disconnect")
    await connection.until_heard("/", "connect")
    assert await connection.event("/", "auth") == [{"who": what}]
    await connection.emit("/", "message", what)
    assert await connection.event("/", "message-back") == [what]


async def reconnects(library, start, shards):
    gateway = await app(start, shards=shards)
    connections = []
    for transports in TRANSPORTS:
        if Gateway.reference and library.stays_away_when_told and transports == ["polling"]:
            # Node says `1` when it ends.
            continue
        connection = await opened(library, gateway, transports, auth={"who": transports[-1]})
        await settles(connection, transports[-1])
        if not (library.stays_away_when_told and transports == ["polling"]):
            # Nothing that the server reads on after.
            await connection.raw("abc")
            await comes_back(connection, transports[-1])
        connections.append((connection, transports[-1]))
    status = await gateway.terminate()
    assert status == 0, gateway.tail()
    # Where they knew it to be.
    await start("--listen", f"{gateway.host}:{gateway.port}", example="socketio_app", shards=shards)
    for connection, what in connections:
        await comes_back(connection, what)
        await connection.close()


async def everything(library_type, start, shards):
    # python-socketio may stop writing before it has said that it goes; then its last poll lasts until a heartbeat.
    gateway = await app(start, (3, 20), shards=shards)
    async with library_type.started() as library:
        for transports in TRANSPORTS:
            if Gateway.reference and library_type is not Npm and transports != ["websocket"]:
                # python-socketio drops a connection whose payload has more than 16 packets, as Node's have.
                continue
            await asyncio.gather(*[conversation(library, gateway, transports, n) for n in range(SESSIONS)])
        await rooms(library, gateway)
        for transports in TRANSPORTS:
            refused = await library.open(url_of(gateway), transports, ["/protected"], {"token": "wrong"})
            heard = await refused.heard("/protected")
            assert heard == ("connect_error", "unauthorized", {"reason": "bad token"}), heard
            unknown = await library.open(url_of(gateway), transports, ["/random"])
            heard = await unknown.heard("/random")
            assert heard == ("connect_error", "Invalid namespace", None), heard
            admitted = await opened(library, gateway, transports, ["/protected"], {"token": "let-me-in"})
            for connection in (refused, unknown, admitted):
                await connection.close()
        await reconnects(library, start, shards)


@case(own=True, oracle=True)
async def npm_socket_io_client_over_one_shard(start):
    await everything(Npm, start, 1)


@case(both_ios=True, own=True, oracle=True)
async def npm_socket_io_client_over_two_shards(start):
    await everything(Npm, start, 2)


@case(own=True, oracle=True)
async def python_socketio_threaded_over_one_shard(start):
    await everything(PythonThreads, start, 1)


@case(both_ios=True, own=True, oracle=True)
async def python_socketio_threaded_over_two_shards(start):
    await everything(PythonThreads, start, 2)


@case(own=True, oracle=True)
async def python_socketio_asyncio_over_one_shard(start):
    await everything(PythonAsyncio, start, 1)


@case(both_ios=True, own=True, oracle=True)
async def python_socketio_asyncio_over_two_shards(start):
    await everything(PythonAsyncio, start, 2)


@case(own=True, oracle=True)
async def npm_socket_io_client_keeps_other_namespaces_when_one_lets_it_go(start):
    gateway = await app(start)
    async with Npm.started() as library:
        for transports in TRANSPORTS:
            connection = await opened(library, gateway, transports, ("/", "/custom"))
            # Refused in a third and a fourth, on the same connection.
            await connection.enter("/protected", {"token": "wrong"})
            heard = await connection.heard("/protected")
            assert heard == ("connect_error", "unauthorized", {"reason": "bad token"}), heard
            await connection.enter("/random")
            assert (await connection.heard("/random"))[:2] == ("connect_error", "Invalid namespace")
            await connection.emit("/custom", "disconnect-me", False)
            assert await connection.heard("/custom") == ("disconnect",)
            assert await connection.ask("/", "message-with-ack", 1) == [1]
            await connection.enter_again("/custom")
            await connection.entered("/custom")
            assert await connection.event("/custom", "auth") == [{}]
            await connection.leave("/custom")
            assert await connection.heard("/custom") == ("disconnect",)
            assert await connection.ask("/", "message-with-ack", 2) == [2]
            # No reconnection after this one: it was meant.
            await connection.emit("/", "disconnect-me", True)
            assert await connection.heard("/") == ("disconnect",)
            await connection.close()


@case(own=True, oracle=True)
async def npm_socket_io_client_stays_through_many_heartbeats(start):
    # As often as the protocol's test suite has them, and with time enough for a busy machine.
    gateway = await app(start, (0.1, 10))
    async with Npm.started() as library:
        connections = [await opened(library, gateway, transports) for transports in TRANSPORTS]
        for n in range(20):
            for connection in connections:
                assert await connection.ask("/", "message-with-ack", n) == [n]
            await asyncio.sleep(0.1)
        for connection in connections:
            await connection.close()


@case(both_ios=True, own=True, oracle=True)
async def a_page_of_another_origin_talks_by_polling_and_then_by_websocket(start):
    # The same machine and another port is another origin.
    elsewhere = await Gateway.start(binary=None) if not Gateway.reference else None
    page_url = f"http://{elsewhere.ops}/health" if elsewhere else None
    pages = None
    try:
        if page_url is None:
            # Node has no operators' port, so anything that answers will do.
            async def answer(reader, writer):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nok")

            pages = await asyncio.start_server(answer, "127.0.0.1", 0)
            page_url = "http://127.0.0.1:%d/" % pages.sockets[0].getsockname()[1]
        origin = page_url[: page_url.index("/", len("http://"))]
        gateway = await app(start, RINGROOM_NETWORK__ORIGINS=origin)
        async with Npm.started(page_url) as library:
            assert library.origin == origin, library.origin
            for transports in TRANSPORTS:
                auth = {"from": "a page"}
                connection = await opened(library, gateway, transports, ("/", "/custom"), auth, withCredentials=True)
                await asyncio.gather(*[talk(connection, namespace, 1) for namespace in ("/", "/custom")])
                said = [b"\x01\x02", {"b": b""}]
                assert await connection.ask("/", "message-with-ack", *said) == said
                await settles(connection, transports[-1])
                await connection.emit("/", "message", "the end")
                assert await connection.event("/", "message-back") == ["the end"]
                await connection.close()
    finally:
        if pages:
            pages.close()
        if elsewhere:
            await elsewhere.kill()


@case(own=True, oracle=True)
async def crate_rust_socketio_over_one_shard_and_two(start):
    here = os.path.dirname(os.path.abspath(__file__))
    program = os.path.join(here, "..", ".work", "rust_client", "debug", "rust_client")
    assert os.path.exists(program), "tests/run builds tests/process/rust_client"
    for shards in (1, 2):
        gateway = await app(start, shards=shards)
        for transport in ("websocket", "polling", "upgrade"):
            client = await asyncio.create_subprocess_exec(
                program, url_of(gateway), transport, str(SESSIONS),
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )
            try:
                out, errors = await asyncio.wait_for(client.communicate(), 2 * PATIENCE_S)
            finally:
                if client.returncode is None:
                    client.kill()
                    await client.wait()
            assert client.returncode == 0, (transport, shards, errors.decode()[-2000:])
            seen = json.loads(out)
            assert seen["sessions"] == SESSIONS and seen["messages"] > 0, seen
