"""Behind nginx and HAProxy as `deploy/` sets them up: Socket.IO by polling, upgrade and WebSocket, native
clients, silence, and whose address counts. Only ports and, where a test says so, time-outs are other ones."""

import asyncio
import contextlib
import json
import os
import re
import socket
import tempfile

from support import (
    PATIENCE_S, Client, Gateway, case, count, counted, fresh, handshake, token, until,
)

HERE = os.path.dirname(os.path.abspath(__file__))
DEPLOY = os.path.join(HERE, "..", "..", "deploy")
TRUSTED = {"RINGROOM_NETWORK__TRUSTED_PROXIES": "127.0.0.1"}
WAYS = ("polling", "upgrade", "websocket")
# More than any time-out of `deploy/`.
SILENCE_S = 90


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
        file = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[name]
        with open(os.path.join(DEPLOY, file)) as deployed:
            text = deployed.read()
        for ours, here in (
            ("127.0.0.1:8080", f"127.0.0.1:{self.port}"),
            ("127.0.0.1:3001", f"{gateway.host}:{gateway.port}"),
        ):
            assert ours in text, f"{file} has no {ours}"
            text = text.replace(ours, here)
        if silence:
            text, changed = re.subn(r"(proxy_(?:read|send)_timeout|timeout (?:client|server|tunnel)) 60s", rf"\1 {silence}", text)
            assert changed, text
        text = edit(text)
        if os.geteuid() != 0:
            text = re.sub(r"^ *(user|group) .*$", "", text, flags=re.M)
        self.config = os.path.join(folder, file)
        with open(self.config, "w") as own:
            own.write(text)
        pid = os.path.join(folder, "pid")
        self.command = {
            "nginx": ["nginx", "-e", "stderr", "-c", self.config, "-g", f"daemon off; pid {pid};"],
            "haproxy": ["haproxy", "-db", "-f", self.config],
        }[name]
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
                process = await asyncio.create_subprocess_exec(*self.command, stdout=log, stderr=log, start_new_session=True)
                try:
                    await until(lambda: self.answers() or process.returncode is not None, f"{name} to listen")
                    assert process.returncode is None, self.tail()
                    yield self
                    assert process.returncode is None, f"{name} died; {self.tail()}"
                finally:
                    if process.returncode is None:
                        # Both end at once, nginx with its workers.
                        process.terminate()
                        await asyncio.wait_for(process.wait(), PATIENCE_S)


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
    assert [member["ended"] for member in members] == [None] * 3 * each, [(m["way"], m["ended"]) for m in members]
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


@case(both_ios=True, own=True)
async def socket_io_comes_through_proxies_by_every_transport(start):
    gateway = await start(shards=2, **TRUSTED)
    for name in ("nginx", "haproxy"):
        async with Proxy.before(gateway, name) as proxy, Members.through(proxy, each=6, messages=10) as members:
            check(await members.state(), 6, 18 * 10)
            check(await members.ask("talk"), 6, 18 * 11)


@case(own=True)
async def large_binary_comes_through_proxies_by_every_transport(start):
    gateway = await start(shards=2, **TRUSTED)
    for name in ("nginx", "haproxy"):
        # In base64 it is nearly all that one request may hold.
        async with Proxy.before(gateway, name) as proxy, Members.through(proxy, messages=1, large=700_000) as members:
            state = await members.state()
            check(state, 1, 6)
            assert [bytes for *_, bytes in state[0]["heard"]] == [0] * 3 + [700_000] * 3, state[0]["heard"]


@case(own=True)
async def native_clients_come_through_proxies(start):
    gateway = await start(shards=2, **TRUSTED)
    for name in ("nginx", "haproxy"):
        async with Proxy.before(gateway, name) as proxy:
            alice, bob = [await Client.open(proxy, fresh("native")) for _ in range(2)]
            room = fresh("chat:native")
            await alice.join(room)
            await bob.join(room)
            await bob.publish(room, "said", {"text": "größe"})
            assert (await alice.push("said", room))["data"] == {"text": "größe"}
            await alice.close()
            await bob.close()


@case(own=True)
async def proxies_keep_clients_that_are_silent_for_ninety_seconds(start):
    gateway = await start(shards=2, **TRUSTED)
    async with contextlib.AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy.before(gateway, name)) for name in ("nginx", "haproxy")]
        everybody = [await stack.enter_async_context(Members.through(proxy, messages=1)) for proxy in proxies]
        natives = [await Client.open(proxy, fresh("native")) for proxy in proxies]
        for members in everybody:
            check(await members.state(), 1, 3)
        await asyncio.sleep(SILENCE_S)
        for members in everybody:
            check(await members.ask("state"), 1, 3)
            check(await members.ask("talk"), 1, 6)
        for native in natives:
            await native.ok("ping")
            await native.close()


@case(own=True)
async def a_proxy_that_bears_less_silence_than_a_heartbeat_takes_cuts_clients_off(start):
    """What the time-outs of `deploy/` are for: with shorter ones the case above would fail."""
    gateway = await start(shards=2, **TRUSTED)
    for name in ("nginx", "haproxy"):
        async with Proxy.before(gateway, name, silence="2s") as proxy, Members.through(proxy, messages=1) as members:
            await members.state()

            async def all_ended():
                ended = {member["way"]: member["ended"] for member in await members.ask("state")}
                return all(ended.values()) and ended

            ended = await until(all_ended, f"{name} to cut all of them off")
            assert ended == {"polling": "transport error", "upgrade": "transport close", "websocket": "transport close"}, (name, ended)


@case(own=True)
async def behind_proxies_it_is_the_clients_address_and_page_that_count(start):
    denied, other = "127.9.0.1", "127.9.0.2"
    gateway = await start(shards=2, RINGROOM_NETWORK__DENY=denied, **TRUSTED)

    async def status(proxy, address, origin=None):
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port, local_addr=(address, 0))
        more = {"Origin": origin} if origin else {}
        writer.write(handshake(proxy, token(fresh("user")), **more).encode())
        line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
        writer.close()
        return int(line.split()[1])

    for name in ("nginx", "haproxy"):
        async with Proxy.before(gateway, name) as proxy:
            async with counted(gateway, "refused.network"):
                assert await status(proxy, denied) == 403, name
            assert await status(proxy, other) == 101, name
            assert await status(proxy, other, f"http://{proxy.host}:{proxy.port}") == 101, "a page of the same host"
            assert await status(proxy, other, "http://evil.example") == 403, name
    assert count(await gateway.stats(), "forwarded_malformed") == 0
