"""What the process tests share: a gateway started as a process, clients, tokens made by hand.

Nothing here waits for a fixed time: `until` polls a condition, and a time-out is a failure.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import inspect
import itertools
import json
import os
import re
import signal
import struct
import time
import urllib.request

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

SECRET = "a secret of at least 32 bytes, for the process tests only"
PATIENCE_S = 20.0
CASES = []


def case(function=None, *, both_ios=False, own=False, oracle=False):
    """Marks a test. It gets a shared gateway, or with `own` a function that starts one for it
    alone; with `both_ios` it runs on io_uring and on epoll. With `oracle` the official Socket.IO
    server has to pass it too (`run.py --socketio-reference`)."""

    def mark(function):
        CASES.append((function, both_ios, own))
        function.oracle = oracle
        return function

    return mark(function) if function else mark


_numbers = itertools.count(1)


def fresh(word):
    """A name that no other test uses."""
    return f"{word}-{next(_numbers)}"


async def until(condition, what, patience_s=PATIENCE_S):
    """Waits for `condition()`, plain or async, to be true, and gives back its value."""
    end = time.monotonic() + patience_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience_s:.0f} s in vain for: {what}")
        await asyncio.sleep(0.01)


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header, claims, secret=SECRET):
    """A JWT by RFC 7515, from nothing but HMAC: independent of the gateway's library."""
    parts = [base64url(json.dumps(part).encode()) for part in (header, claims)]
    message = ".".join(parts)
    mac = hmac.new(secret.encode(), message.encode(), hashlib.sha256).digest()
    return f"{message}.{base64url(mac)}"


def token(user, secret=SECRET, **claims):
    claims = {"sub": user, "typ": "access", "exp": int(time.time()) + 3600, **claims}
    return signed({"alg": "HS256", "typ": "JWT"}, {k: v for k, v in claims.items() if v is not None}, secret)


class Gateway:
    """One server process, known by its pid."""

    binary = None
    examples = None
    log_folder = None
    # Words that start another program in place of the example `socketio_app`.
    reference = None

    def __init__(self):
        self.process = None
        self.log = None

    @classmethod
    async def start(
        cls, *arguments, shards=2, io=None, before=(), pass_fds=(), binary=None, example=None, **environment
    ):
        """`before`: words that start the binary in their own way. `example`: that program of `examples/`
        instead, with nothing but `arguments`."""
        self = cls()
        env = {k: v for k, v in os.environ.items() if not k.startswith("RINGROOM_")}
        env["RINGROOM_JWT_SECRET"] = SECRET
        # Most tests talk faster than a client of theirs would; those of the limits say so.
        env["RINGROOM_LIMITS__CONN_BURST"] = "unlimited"
        # In huge pages, memory grows by 2 MiB a step and by luck; cases that bound it are to see what is used.
        env["MIMALLOC_ALLOW_THP"] = "0"
        if io:
            env["RINGROOM_IO"] = io
        env.update(environment)
        env = {name: value for name, value in env.items() if value is not None}
        self.log_path = os.path.join(cls.log_folder, f"gateway-{next(_numbers)}.log")
        self.log = open(self.log_path, "wb")
        program = [binary or cls.binary, "serve", "--ops", "127.0.0.1:0", "--shards", str(shards)]
        if example:
            program, env["RINGROOM_SHARDS"] = [os.path.join(cls.examples, example)], str(shards)
        if cls.reference and example == "socketio_app":
            program = cls.reference
        self.process = await asyncio.create_subprocess_exec(
            *before, *program, "--listen", "127.0.0.1:0", *arguments, env=env, pass_fds=pass_fds,
            stdout=asyncio.subprocess.PIPE, stderr=self.log,
        )
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE_S)
            ready = re.fullmatch(r"ready data=(\S+):(\d+) ops=(\S+):(\d+) shards=(\d+) io=(\w+)(?: tls=(\S+):(\d+))?\n", line.decode())
            assert ready, f"no ready line but {line!r}; {self.tail()}"
        except BaseException:
            await self.kill()
            raise
        self.host, self.port = ready[1], int(ready[2])
        self.ops = f"{ready[3]}:{ready[4]}"
        self.shards, self.io = int(ready[5]), ready[6]
        self.tls = (ready[7], int(ready[8])) if ready[7] else None
        self.url = f"ws://{self.host}:{self.port}/ws"
        return self

    def tail(self):
        with open(self.log_path, "rb") as log:
            return "its log ends: " + log.read()[-2000:].decode(errors="replace")

    async def get(self, path):
        """Status and body of an operators' page."""

        def fetch():
            try:
                with urllib.request.urlopen(f"http://{self.ops}{path}", timeout=PATIENCE_S) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.read()

        return await asyncio.to_thread(fetch)

    async def stats(self):
        """What all shards counted, added up, and `shards` with each one's."""

        async def of_all():
            status, body = await self.get("/stats")
            assert status == 200, (status, body)
            stats = json.loads(body)
            # Where the whole machine stands still, shards are late.
            return stats if stats["silent"] == [] else None

        stats = await until(of_all, "all shards to answer")
        shards = [{**shard["edge"], **shard["core"]} for shard in stats["shards"]]
        return {**stats["total"]["edge"], **stats["total"]["core"], "shards": shards}

    def running(self):
        return self.process.returncode is None

    async def terminate(self):
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)

    async def kill(self):
        if self.process and self.running():
            self.process.kill()
            await self.process.wait()
        if self.log:
            self.log.close()

    def resident_kib(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


CLOSE_NAMES = {
    1002: "protocol", 1003: "unsupported", 1007: "bad_payload", 1008: "policy", 1009: "too_large",
    1012: "restart", 4400: "bad_request", 4401: "unauthorized", 4410: "slow_consumer", 4429: "rate_limited",
}


def count(stats, what):
    """`errors.bad_request`, `closes.4401`, `refused.*` or a plain number of /stats; absent is 0."""
    group, _, name = what.partition(".")
    value = stats.get(group, {} if name else 0)
    if not name:
        return value if isinstance(value, int) else sum(value.values())
    if name == "*":
        return sum(value.values())
    if name.isdigit():
        return value.get(name, 0) or value.get(CLOSE_NAMES[int(name)], 0)
    return value.get(name, 0)


@contextlib.asynccontextmanager
async def counted(gateway, what, times=1):
    """The counter `what` grows by at least `times` inside."""
    before = count(await gateway.stats(), what)
    yield

    async def grown():
        return count(await gateway.stats(), what) >= before + times

    await until(grown, f"{what} to grow by {times} from {before}")


class Hearer:
    """Whoever is told something: `pushes` came and were not taken yet, `_wait` waits until there is something."""

    async def push(self, event, room=None, where=None):
        """Takes the first push of this event (and room) that is there or comes."""

        def look():
            for at, push in enumerate(self.pushes):
                if push["event"] == event and room in (None, push.get("room")) and (not where or where(push)):
                    return self.pushes.pop(at)
            return None

        return await self._wait(look, f"the push {event} {room or ''}")

    async def several(self, event, number, room=None):
        return [await self.push(event, room) for _ in range(number)]

    def waiting(self, event):
        return [push for push in self.pushes if push["event"] == event]


class Client(Hearer):
    """A native client on Python's `websockets`."""

    protocols = ["ringroom.v1.json"]

    def pack(self, message):
        return json.dumps(message)

    def unpack(self, message):
        return json.loads(message)

    def __init__(self):
        self.socket = None
        self.connected = None
        self.pushes = []
        self.replies = {}
        self.closed = None
        self.changed = asyncio.Event()
        self.ids = itertools.count(1)

    @classmethod
    async def open(cls, gateway, user, jwt=None, how="header", ready=True, extensions=None, **claims):
        self = cls()
        jwt = jwt if jwt is not None else token(user, **claims)
        url, headers, protocols = gateway.url, {}, list(self.protocols)
        if how == "header":
            headers["Authorization"] = f"Bearer {jwt}"
        elif how == "query":
            url += f"?token={jwt}"
        elif how == "cookie":
            headers["Cookie"] = f"other=1; token={jwt}"
        elif how == "subprotocol":
            protocols.append(f"bearer.{jwt}")
        elif how == "bare":
            headers["Authorization"], protocols = f"Bearer {jwt}", None
        else:
            assert how == "nowhere", how
        self.user = user
        self.socket = await connect(
            url, additional_headers=headers, subprotocols=protocols, compression=None, proxy=None,
            extensions=extensions, ping_interval=None, max_size=None, max_queue=None, close_timeout=PATIENCE_S,
            ssl=getattr(gateway, "ssl", None),
        )
        self.reader = asyncio.create_task(self._read())
        if ready:
            self.connected = (await self.push("connected"))["data"]
        return self

    async def _read(self):
        try:
            async for text in self.socket:
                message = self.unpack(text)
                message["arrival"] = next(_numbers)
                if "ok" in message:
                    self.replies.setdefault(message.get("id"), []).append(message)
                else:
                    message["text"] = text
                    self.pushes.append(message)
                self._wake()
        except ConnectionClosed:
            pass
        finally:
            self.closed = (self.socket.close_code, self.socket.close_reason)
            self._wake()

    def _wake(self):
        self.changed.set()
        self.changed = asyncio.Event()

    async def _wait(self, look, what):
        """The value of `look()` once it is not None."""
        end = time.monotonic() + PATIENCE_S
        while True:
            changed = self.changed
            found = look()
            if found is not None:
                return found
            if self.closed:
                raise AssertionError(f"{self.user} was closed with {self.closed} while waiting for {what}")
            try:
                await asyncio.wait_for(changed.wait(), end - time.monotonic())
            except asyncio.TimeoutError:
                raise AssertionError(
                    f"{self.user} waited {PATIENCE_S:.0f} s in vain for {what}; pushes: {self.pushes[:5]}"
                ) from None

    async def send(self, event, data=None, **more):
        await self.socket.send(self.pack({**more, "event": event, "data": data if data is not None else {}}))

    async def request(self, event, data=None):
        """The whole reply."""
        id = next(self.ids)
        await self.send(event, data, id=id)
        return await self.reply(id)

    async def reply(self, id):
        return await self._wait(lambda: self.replies.get(id, [None])[0], f"the reply to {id!r}")

    async def ok(self, event, data=None):
        reply = await self.request(event, data)
        assert reply["ok"] is True, (event, data, reply)
        return reply["data"]

    async def refused(self, event, data=None):
        reply = await self.request(event, data)
        assert reply["ok"] is False, (event, data, reply)
        assert set(reply["error"]) >= {"code", "message"} and reply["error"]["message"], reply
        return reply["error"]

    async def settled(self):
        """After this, whatever the gateway had for us before is here: replies keep the order."""
        await self.ok("ping")

    async def join(self, room, **more):
        return await self.ok("room:join", {"room": room, **more})

    async def publish(self, room, event, data, **more):
        return await self.ok("room:publish", {"room": room, "event": event, "data": data, **more})

    async def close(self):
        await self.socket.close()
        await self.reader

    async def until_closed(self):
        await until(lambda: self.closed, f"{self.user} to be closed")
        return self.closed


class Neighbour:
    """Somebody in the same room who talks a few times a second and must notice nothing: every
    message is acknowledged and comes back, in a dense order, and the connection stays open."""

    def __init__(self, client, room):
        self.client, self.room, self.said = client, room, 0

    @classmethod
    @contextlib.asynccontextmanager
    async def beside(cls, gateway, room=None):
        room = room or fresh("room:beside")
        client = await Client.open(gateway, fresh("neighbour"))
        self = cls(client, room)
        joined = await client.join(room)
        self.seq = joined["seq"]
        talk = asyncio.create_task(self._talk())
        try:
            yield self
            # The talk that is under way ends well, and so does another round.
            said = self.said
            await until(lambda: talk.done() or self.said >= said + 2, "the neighbour to go on talking")
        finally:
            talk.cancel()
            outcome = (await asyncio.gather(talk, return_exceptions=True))[0]
            closed = client.closed
            await client.close()
        assert isinstance(outcome, asyncio.CancelledError), f"the neighbour noticed: {outcome!r}"
        assert closed is None, f"the neighbour was closed: {closed}"

    async def _talk(self):
        while True:
            number = self.said
            ack = await self.client.publish(self.room, "neighbour", {"number": number})
            own = await self.client.push("neighbour", self.room, lambda push: push["data"].get("number") == number)
            assert own["mid"] == ack["mid"], (own, ack)
            logged = [push for push in self.client.pushes if push.get("room") == self.room and "seq" in push]
            for push in sorted([*logged, own], key=lambda push: push["arrival"]):
                assert push["seq"] == self.seq + 1, f"{push['seq']} came after {self.seq}"
                self.seq = push["seq"]
            self.client.pushes = [push for push in self.client.pushes if push.get("room") != self.room]
            self.said += 1
            await asyncio.sleep(0.2)


TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 1, 2, 8, 9, 10, 0


class Raw:
    """A socket that may do what no client library would."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, gateway):
        return cls(*await asyncio.open_connection(gateway.host, gateway.port, ssl=getattr(gateway, "ssl", None)))

    @classmethod
    async def upgraded(cls, gateway, jwt):
        self = await cls.open(gateway)
        self.write(handshake(gateway, jwt))
        head = await self.head()
        assert head.startswith("HTTP/1.1 101 "), head
        return self

    @classmethod
    async def member(cls, gateway, room, user=None):
        """Upgraded, connected and in `room`."""
        self = await cls.upgraded(gateway, token(user or fresh("raw")))
        self.send_json({"id": "join", "event": "room:join", "data": {"room": room}})
        while (await self.message()).get("id") != "join":
            pass
        return self

    def write(self, data):
        self.writer.write(data if isinstance(data, bytes) else data.encode())

    async def head(self):
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        return head.decode("latin-1")

    async def answer(self):
        """The HTTP answer up to the end of the connection: status, and everything as text."""
        data = await asyncio.wait_for(self.reader.read(-1), PATIENCE_S)
        text = data.decode("latin-1")
        found = re.match(r"HTTP/1\.1 (\d{3}) ", text)
        return (int(found[1]) if found else None), text

    def frame(self, opcode, payload=b"", **how):
        self.write(frame(opcode, payload, **how))

    def send_json(self, message):
        self.frame(TEXT, json.dumps(message).encode())

    async def receive(self):
        """The next frame of the gateway: opcode and payload."""
        first, second = await self._exactly(2)
        assert first & 0x70 == 0, "no reserved bits"
        assert second & 0x80 == 0, "a server never masks"
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self._exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._exactly(8))
        return first & 0x0F, await self._exactly(length)

    async def _exactly(self, length):
        return await asyncio.wait_for(self.reader.readexactly(length), PATIENCE_S)

    async def message(self):
        """The next text, parsed."""
        while True:
            opcode, payload = await self.receive()
            if opcode == TEXT:
                return json.loads(payload)
            assert opcode != CLOSE, f"closed: {payload!r}"

    async def closed(self):
        """Code and reason of the close that comes, after whatever else does."""
        while True:
            opcode, payload = await self.receive()
            if opcode == CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if payload else None
                return code, payload[2:].decode()

    def drop(self):
        self.writer.close()


def frame(opcode, payload=b"", fin=True, masked=True, rsv=0, length=None):
    """One frame; `length` announces another length than the payload has."""
    length = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    mask_bit = 0x80 if masked else 0
    if length < 126:
        head += bytes([mask_bit | length])
    elif length < 1 << 16:
        head += bytes([mask_bit | 126]) + struct.pack("!H", length)
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", length)
    if not masked:
        return head + payload
    key = b"\x37\xfa\x21\x3d"
    stretched = (key * (len(payload) // 4 + 1))[: len(payload)]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(stretched, "big")
    return head + key + mixed.to_bytes(len(payload), "big")


def handshake(gateway, jwt=None, path="/ws", version="HTTP/1.1", method="GET", without=(), **changed):
    """An upgrade request; `without` leaves headers out, keywords change or add them (with `_` for
    `-`, a list for several)."""
    headers = {
        "Host": f"{gateway.host}:{gateway.port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    if jwt is not None:
        headers["Authorization"] = f"Bearer {jwt}"
    for name, value in changed.items():
        headers[name.replace("_", "-")] = value
    lines = [f"{method} {path} {version}"]
    for name, value in headers.items():
        if name not in without:
            lines += [f"{name}: {one}" for one in (value if isinstance(value, list) else [value])]
    return "\r\n".join(lines) + "\r\n\r\n"
