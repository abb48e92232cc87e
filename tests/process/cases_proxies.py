"""Behind nginx, HAProxy and Caddy as `deploy/` sets them up: Socket.IO by polling, upgrade and WebSocket, native
clients, server-sent events, silence, and whose address counts. Only ports and, where a test says so, time-outs are
other ones."""

import asyncio
import contextlib
import json
import os
import re
import socket
import tempfile

from certificates import Authority
from sse_client import Stream, emit
from support import (
    PATIENCE_S, Client, Gateway, case, count, counted, fresh, handshake, token, until,
)
from tls_door import secured

HERE = os.path.dirname(os.path.abspath(__file__))
DEPLOY = os.path.join(HERE, "..", "..", "deploy")
TRUSTED = {"RINGROOM_NETWORK__TRUSTED_PROXIES": "127.0.0.1"}
NAMED = {**TRUSTED, "RINGROOM_NETWORK__PROXY_PROTOCOL": "true"}
# What passes requests on, and what passes bytes on behind a header of the PROXY protocol, version 2 and 1.
OF_REQUESTS = ("nginx", "haproxy", "caddy")
OF_BYTES = ("haproxy-tcp", "haproxy-tcp-v1")
FILES = {
    "nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile", "haproxy-tcp": "haproxy-tcp.cfg", "haproxy-tcp-v1": "haproxy-tcp.cfg",
}
WAYS = ("polling", "upgrade", "websocket")
# More than any time-out of `deploy/`.
SILENCE_S = 90


async def each(start, names=(*OF_REQUESTS, *OF_BYTES), **settings):
    """Each of these proxies by its name, with a gateway that is set up for it."""
    gateways = {}
    for name in names:
        is_named = name in OF_BYTES
        if is_named not in gateways:
            gateways[is_named] = await start(shards=2, **(NAMED if is_named else TRUSTED), **settings)
        yield name, gateways[is_named]


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class Proxy:
    """One of them as a process: `host` and `port` as those of a gateway."""

    host = "127.0.0.1"

    def __init__(self, name, gateway, folder, silence, edit):
        self.name, self.port = name, free_port()
        self.url = f"ws://{self.host}:{self.port}/ws"
        file = FILES[name]
        with open(os.path.join(DEPLOY, file)) as deployed:
            text = deployed.read()
        for ours, here in (
            (r"127\.0\.0\.1:8080|(?<=http://):8080", f"127.0.0.1:{self.port}" if name != "caddy" else f":{self.port}"),
            (r"127\.0\.0\.1:3001", f"{gateway.host}:{gateway.port}"),
        ):
            text, changed = re.subn(ours, here, text)
            assert changed, f"{file} has no {ours}"
        if silence:
            text, changed = re.subn(r"(proxy_(?:read|send)_timeout|timeout (?:client|server|tunnel)) [69]0s", rf"\1 {silence}", text)
            assert changed, text
        if name == "haproxy-tcp-v1":
            assert " send-proxy-v2" in text, text
            text = text.replace(" send-proxy-v2", " send-proxy")
        if name == "caddy":
            # It would listen on ports that are everybody's.
            text = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + text
        text = edit(text)
        if os.geteuid() != 0:
            # Nobody else can be become.
            text = re.sub(r"^ *(user|group) .*$", "", text, flags=re.M)
        self.config = os.path.join(folder, file)
        with open(self.config, "w") as own:
            own.write(text)
        pid = os.path.join(folder, "pid")
        self.command = {
            "nginx": ["nginx", "-e", "stderr", "-c", self.config, "-g", f"daemon off; pid {pid};"],
            "haproxy": ["haproxy", "-db", "-f", self.config],
            "caddy": ["caddy", "run", "--adapter", "caddyfile", "--config", self.config],
        }[name.split("-")[0]]
        # Where Caddy keeps what it was run with.
        self.environment = {**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder, "XDG_DATA_HOME": folder}
        self.log_path = os.path.join(Gateway.log_folder, f"{name}-{self.port}.log")

    def answers(self):
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0

    def tail(self):
        with open(self.log_path, "rb") as log:
            return f"the log of {self.name} ends: {log.read()[-2000:].decode(errors='replace')}"

    @classmethod
    @contextlib.asynccontextmanager
    async def before(cls, gateway, name, silence=None, edit=lambda text: text):
        """`silence`: how long it bears none of a client or of the gateway, if not as deployed. `edit`: what else is
        changed of its file."""
        with tempfile.TemporaryDirectory(dir=Gateway.log_folder) as folder:
            # nginx's own user reads nothing here once it runs, but does look into the folder.
            os.chmod(folder, 0o755)
            self = cls(name, gateway, folder, silence, edit)
            with open(self.log_path, "wb") as log:
                process = await asyncio.create_subprocess_exec(
                    *self.command, env=self.environment, stdout=log, stderr=log, start_new_session=True,
                )
                try:
                    await until(lambda: self.answers() or process.returncode is not None, f"{name} to listen")
                    assert process.returncode is None, self.tail()
                    yield self
                    assert process.returncode is None, f"{name} died; {self.tail()}"
                finally:
                    if process.returncode is None:
                        # All end at once, nginx with its workers.
                        process.terminate()
                        try:
                            await asyncio.wait_for(process.wait(), PATIENCE_S)
                        finally:
                            if process.returncode is None:
                                process.kill()


class Members:
    """Clients of the official library in one room, in a process of their own."""

    def __init__(self, process):
        self.process = process

    @classmethod
    @contextlib.asynccontextmanager
    async def through(cls, proxy, each=1, messages=5, large=0):
        clients = [{"way": way, "token": token(fresh(way))} for way in WAYS for _ in range(each)]
        task = {"url": f"http://{proxy.host}:{proxy.port}", "room": fresh("chat:proxy"), "clients": clients,
                "messages": messages, "large": large}
        # None of them is more than a few lines long, but those of many messages.
        process = await asyncio.create_subprocess_exec(
            "node", os.path.join(HERE, "proxy_clients.js"), json.dumps(task), limit=1 << 24,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield cls(process)
            process.stdin.close()
            assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def state(self):
        line = await asyncio.wait_for(self.process.stdout.readline(), 3 * PATIENCE_S)
        assert line, "the clients gave up"
        return json.loads(line)

    async def ask(self, what):
        """`state` or `talk`, and how they are then."""
        self.process.stdin.write(f"{what}\n".encode())
        await self.process.stdin.drain()
        return await self.state()


def check(members, each, messages):
    """All are there, each by the transport it wanted, and heard the same in the same order, nothing twice."""
    assert [member["ended"] for member in members] == [None] * 3 * each, [(m["way"], m["ended"], m["why"]) for m in members]
    transports = [(member["way"], member["transport"]) for member in members]
    wanted = {"polling": "polling", "upgrade": "websocket", "websocket": "websocket"}
    assert all(wanted[way] == transport for way, transport in transports), transports
    first = members[0]["heard"]
    assert [seq for seq, *_ in first] == list(range(1, messages + 1)), first
    assert all(member["heard"] == first for member in members), "some heard something else"
    # What each said is in its own order.
    said = {}
    for _, user, number, _ in first:
        said.setdefault(user, []).append(number)
    assert len(said) == 3 * each and len(set(map(str, said.values()))) == 1, said


async def two_talk(door):
    """Native clients at this door."""
    alice, bob = [await Client.open(door, fresh("native")) for _ in range(2)]
    room = fresh("chat:native")
    await alice.join(room)
    await bob.join(room)
    await bob.publish(room, "said", {"text": "größe"})
    assert (await alice.push("said", room))["data"] == {"text": "größe"}
    await alice.close()
    await bob.close()


@case(both_ios=True, own=True)
async def socket_io_comes_through_proxies_by_every_transport(start):
    async for name, gateway in each(start):
        async with Proxy.before(gateway, name) as proxy, Members.through(proxy, each=6, messages=10) as members:
            check(await members.state(), 6, 18 * 10)
            check(await members.ask("talk"), 6, 18 * 11)


@case(own=True)
async def large_binary_comes_through_proxies_by_every_transport(start):
    async for name, gateway in each(start):
        # In base64 it is nearly all that one request may hold.
        async with Proxy.before(gateway, name) as proxy, Members.through(proxy, messages=1, large=700_000) as members:
            state = await members.state()
            check(state, 1, 6)
            assert [bytes for *_, bytes in state[0]["heard"]] == [0] * 3 + [700_000] * 3, state[0]["heard"]


@case(own=True)
async def native_clients_come_through_proxies(start):
    async for name, gateway in each(start):
        async with Proxy.before(gateway, name) as proxy:
            await two_talk(proxy)


@case(own=True)
async def proxies_keep_clients_that_are_silent_for_ninety_seconds(start):
    async with contextlib.AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(Proxy.before(gateway, name))
            async for name, gateway in each(start, (*OF_REQUESTS, "haproxy-tcp"))
        ]
        everybody = [await stack.enter_async_context(Members.through(proxy, messages=1)) for proxy in proxies]
        natives = [await Client.open(proxy, fresh("native")) for proxy in proxies]
        room = fresh("chat:silent")
        streams = [await Stream.open(proxy, fresh("listens"), [room]) for proxy in proxies]
        for state in await asyncio.gather(*(members.state() for members in everybody)):
            check(state, 1, 3)
        await asyncio.sleep(SILENCE_S)
        for asked, messages in (("state", 3), ("talk", 6)):
            for state in await asyncio.gather(*(members.ask(asked) for members in everybody)):
                check(state, 1, messages)
        for native, stream in zip(natives, streams):
            await native.publish(room, "said", {})
            await stream.push("said", room)
            assert stream.parser.comments, "a stream that says nothing for so long says that it is there"
            await native.close()
            await stream.drop()


@case(own=True)
async def a_proxy_that_bears_less_silence_than_a_heartbeat_takes_cuts_clients_off(start):
    """What the time-outs of `deploy/` are for: with shorter ones the case above would fail. Caddy has none."""
    async for name, gateway in each(start, ("nginx", "haproxy", "haproxy-tcp")):
        async with Proxy.before(gateway, name, silence="2s") as proxy, Members.through(proxy, messages=1) as members:
            await members.state()

            async def all_ended():
                ended = {member["way"]: member["ended"] for member in await members.ask("state")}
                return all(ended.values()) and ended

            ended = await until(all_ended, f"{name} to cut all of them off")
            assert ended == {"polling": "transport error", "upgrade": "transport close", "websocket": "transport close"}, (name, ended)


@case(own=True, both_ios=True)
async def streams_come_through_proxies_at_once_and_end_with_their_clients(start):
    async for name, gateway in each(start):
        async with Proxy.before(gateway, name) as proxy:
            room, user = fresh("chat:stream"), fresh("listens")
            stream = await Stream.open(proxy, user, [room])
            await stream.joined(room)
            native = await Client.open(proxy, fresh("native"))
            for number in range(5):
                # Each is there before the next is said: nothing waits for more.
                await native.publish(room, "said", {"number": number, "text": "größe"})
                assert (await stream.push("said", room))["data"]["number"] == number, name
            answer = await emit(proxy, token(user), stream.conn, "room:publish", {"room": room, "event": "said", "data": {"number": 5}})
            assert answer.status == 200, (name, answer)
            assert (await stream.push("said", room))["data"] == {"number": 5}
            last = stream.last_event_id
            await stream.drop()

            async def is_noticed():
                return (await gateway.stats())["connections_now"] == 1

            await until(is_noticed, f"{name} to end the stream of a client that left")
            await native.publish(room, "said", {"number": 6})
            again = await Stream.open(proxy, user, [room], last_event_id=last)
            assert (await again.push("said", room))["data"] == {"number": 6}, name
            await again.drop()
            await native.close()


@case(own=True)
async def haproxy_shares_no_connection_between_clients_that_it_names(start):
    """Requests of several clients, over as few connections as it may: each of the client that asked it."""
    gateway = await start(shards=2, RINGROOM_NETWORK__DENY="127.9.0.1", **NAMED)

    def name_them(text):
        text, changed = re.subn(r"(server ringroom \S+)", r"http-reuse always\n    \1 send-proxy-v2", text)
        assert changed == 1, text
        return text

    async with Proxy.before(gateway, "haproxy", edit=name_them) as proxy:
        async def ask(address):
            reader, writer = await asyncio.open_connection(proxy.host, proxy.port, local_addr=(address, 0))
            writer.write(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: h\r\n\r\n")
            line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
            writer.close()
            return int(line.split()[1])

        before = count(await gateway.stats(), "refused.network")
        # What it makes of a connection that is closed without a word is its own.
        assert [await ask(address) for address in ("127.9.0.2", "127.9.0.1") * 10] == [200, 502] * 10
        assert count(await gateway.stats(), "refused.network") >= before + 10


def secured_by(name, certificate, folder):
    """What makes of a deployed file one that ends TLS: the lines that stand there as comments, at this test's places."""
    both = os.path.join(folder, "both.pem")
    with open(both, "wb") as file:
        for path in (certificate.path, certificate.key_path):
            with open(path, "rb") as one:
                file.write(one.read())
    ours, here = {
        "nginx": (
            r"listen (127\.0\.0\.1:\d+);", rf"listen \1 ssl;\n        ssl_certificate {certificate.path};\n        ssl_certificate_key {certificate.key_path};",
        ),
        "haproxy": (r"bind (127\.0\.0\.1:\d+)", rf"bind \1 ssl crt {both} alpn h2,http/1.1"),
        "caddy": (r"http://(:\d+) {", rf"https://localhost\1 {{\n\ttls {certificate.path} {certificate.key_path}"),
    }[name]

    def edit(text):
        text, changed = re.subn(ours, here, text)
        assert changed == 1, text
        return text

    return edit


class Secured:
    """A proxy's port of TLS, in a gateway's place."""

    def __init__(self, proxy, authority):
        self.host, self.port = proxy.host, proxy.port
        self.url = f"wss://localhost:{self.port}/ws"
        self.ssl = authority.context()


@case(own=True)
async def proxies_that_end_tls_say_so(start):
    with Authority.here() as authority:
        # nginx reads it before it becomes somebody else.
        certificate = authority.issued()
        async for name, gateway in each(start, OF_REQUESTS):
            async with Proxy.before(gateway, name, edit=secured_by(name, certificate, authority.folder)) as proxy:
                door = Secured(proxy, authority)
                client = await Client.open(door, fresh("secured"))
                await client.ok("ping")
                await client.close()
                for scheme, code in (("https", 101), ("http", 403)):
                    host = f"localhost:{proxy.port}"
                    request = handshake(door, token(fresh("page")), Host=host, Origin=f"{scheme}://{host}")
                    reader, writer = await asyncio.open_connection(door.host, door.port, ssl=door.ssl, server_hostname="localhost")
                    writer.write(request.encode())
                    line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
                    writer.transport.abort()
                    assert int(line.split()[1]) == code, (name, scheme, line)


@case(own=True, both_ios=True)
async def tls_passes_through_proxies_to_ringroom(start):
    async with secured(start, RINGROOM_NETWORK__DENY="127.9.0.1", **NAMED) as door:
        for name in OF_BYTES:
            async with Proxy.before(door, name) as proxy:
                await two_talk(Secured(proxy, door.authority))
                async with counted(door, "refused.network"):
                    reader, writer = await asyncio.open_connection(proxy.host, proxy.port, local_addr=("127.9.0.1", 0))
                    try:
                        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b"", "its address is known before its handshake"
                    except ConnectionResetError:
                        pass
                    writer.close()


@case(own=True)
async def behind_proxies_it_is_the_clients_address_and_page_that_count(start):
    denied, other = "127.9.0.1", "127.9.0.2"

    async def status(proxy, address, **more):
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port, local_addr=(address, 0))
        writer.write(handshake(proxy, token(fresh("user")), **more).encode("latin-1"))
        line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
        writer.close()
        return int(line.split()[1]) if line else None

    async for name, gateway in each(start, RINGROOM_NETWORK__DENY=denied):
        # Before a byte of it was read, where it was named at once.
        refused = None if name in OF_BYTES else 403
        async with Proxy.before(gateway, name) as proxy:
            async with counted(gateway, "refused.network", 6):
                assert await status(proxy, denied) == refused, name
                # What it says of itself changes nothing.
                for said in (other, "unknown", "\xff", '"', "for=127.9.0.2"):
                    assert await status(proxy, denied, X_Forwarded_For=said, Forwarded=f"for={other}") == refused, (name, said)
            for said in (denied, "\xff", denied + ","):
                assert await status(proxy, other, X_Forwarded_For=said, Forwarded=f"for={denied}") == 101, (name, said)
            assert await status(proxy, other, Origin=f"http://{proxy.host}:{proxy.port}") == 101, "a page of the same host"
            assert await status(proxy, other, Origin="http://evil.example") == 403, name
        assert count(await gateway.stats(), "forwarded_malformed") == 0, name
