"""Clients of Engine.IO v4 by hand, on sockets: what is sent and heard is what the tests say, packet by packet.

`Polling` and `Socket` are the two transports with the same words: `say(*packets)`, `packet()`, `ended()`.
A packet is a text with its type digit (`4hello`) or bytes.
"""

import asyncio
import base64
import json
import re

from support import BINARY, CLOSE, PATIENCE_S, PING, PONG, TEXT, Raw, handshake

SEPARATOR = b"\x1e"
QUERY = "EIO=4&transport="


class Gone(Exception):
    """The session has ended."""


class Answer:
    """One HTTP answer, whole."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:200]!r}"

    @property
    def text(self):
        return self.body.decode()

    def json(self):
        return json.loads(self.body)


class Http:
    """One connection on which requests are asked and answered, one after the other or behind each other."""

    def __init__(self, gateway, reader, writer):
        self.gateway, self.reader, self.writer = gateway, reader, writer

    @classmethod
    async def open(cls, gateway):
        speech = getattr(gateway, "ssl", None)
        return cls(gateway, *await asyncio.open_connection(gateway.host, gateway.port, ssl=speech))

    def write(self, data):
        self.writer.write(data if isinstance(data, bytes) else data.encode())

    def ask(self, method, target, body=None, **headers):
        """Writes a request; keywords are headers, with `_` for `-`."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.gateway.host}:{self.gateway.port}"]
        if body is not None:
            body = body if isinstance(body, bytes) else body.encode()
            headers.setdefault("Content_Length", len(body))
            headers.setdefault("Content_Type", "text/plain;charset=UTF-8")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
        self.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))

    async def answer(self, method="GET"):
        """The next answer; `ConnectionError` where the connection ends before it."""
        try:
            return await asyncio.wait_for(self._answer(method), PATIENCE_S)
        except asyncio.IncompleteReadError as cut:
            raise ConnectionResetError(f"cut after {cut.partial[:100]!r}") from None

    async def _answer(self, method):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head[:-4].split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) [^\r\n]*", line)
        assert found, f"no status line but {line!r}"
        status, headers = int(found[1]), {}
        for one in rest:
            name, _, value = one.partition(":")
            name = name.lower()
            headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
        if status in (204, 304) or method == "HEAD":
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
            return Answer(status, headers, body)
        assert "content-length" in headers, f"an answer without a length: {head!r}"
        return Answer(status, headers, await self.reader.readexactly(int(headers["content-length"])))

    async def request(self, method, target, body=None, **headers):
        self.ask(method, target, body, **headers)
        return await self.answer(method)

    def close(self):
        self.writer.close()

    async def cut(self):
        """Waits for the end of the connection, and gives back what came before it."""
        try:
            return await asyncio.wait_for(self.reader.read(-1), PATIENCE_S)
        except ConnectionError:
            return b""


async def request(gateway, method, target, body=None, **headers):
    """One request on a connection of its own, which another shard may take than the one before."""
    http = await Http.open(gateway)
    try:
        return await http.request(method, target, body, **headers)
    finally:
        http.close()


def packets_of(body):
    """The packets of a payload."""
    parts = body.split(SEPARATOR)
    assert all(parts), f"an empty packet in {body[:200]!r}"
    return [base64.b64decode(part[1:], validate=True) if part[:1] == b"b" else part.decode() for part in parts]


def payload_of(packets):
    return SEPARATOR.join(
        b"b" + base64.b64encode(packet) if isinstance(packet, bytes) else packet.encode() for packet in packets
    )


class Polling:
    """A session over requests. Each goes over a connection of its own, or with `keep` all GETs over one and all
    POSTs over another, as browsers do."""

    def __init__(self, gateway, path, keep):
        self.gateway, self.path, self.keep = gateway, path, keep
        self.connections, self.heard, self.payloads = {}, [], []

    @classmethod
    async def open(cls, gateway, path="/engine.io/", keep=False, query="", **headers):
        self = cls(gateway, path, keep)
        self.headers = headers
        answer = await self._request("GET", f"{path}?{QUERY}polling{query}")
        assert answer.status == 200, answer
        assert answer.headers["content-type"].lower() == "text/plain; charset=utf-8", answer
        assert answer.body[:1] == b"0", answer
        self.opened = json.loads(answer.body[1:])
        self.sid = self.opened["sid"]
        self.target = f"{path}?{QUERY}polling&sid={self.sid}"
        return self

    async def _request(self, method, target, body=None):
        if not self.keep:
            return await request(self.gateway, method, target, body, **self.headers)
        if method not in self.connections:
            self.connections[method] = await Http.open(self.gateway)
        return await self.connections[method].request(method, target, body, **self.headers)

    async def get(self):
        return await self._request("GET", self.target)

    async def post(self, body):
        return await self._request("POST", self.target, body)

    async def poll(self):
        """The packets of one GET."""
        answer = await self.get()
        if answer.status != 200:
            raise Gone(answer)
        self.payloads.append(len(packets := packets_of(answer.body)))
        return packets

    async def say(self, *packets):
        answer = await self.post(payload_of(packets))
        assert (answer.status, answer.body) == (200, b"ok"), answer

    async def packet(self):
        """The next packet; pings on the way are answered, noops passed over."""
        while True:
            while self.heard:
                packet = self.heard.pop(0)
                if packet == "2":
                    await self.say("3")
                elif packet == "1":
                    raise Gone("1")
                elif packet != "6":
                    return packet
            self.heard = await self.poll()

    async def ended(self):
        """Waits for the end of the session, and gives back the packets that came before it but noops."""
        packets = []
        try:
            while True:
                packets += [packet for packet in await self.poll() if packet != "6"]
        except Gone:
            return packets

    def drop(self):
        for http in self.connections.values():
            http.close()


class Socket:
    """A session, or a probe of one, over a WebSocket."""

    def __init__(self, raw):
        self.raw = raw
        # What the session has heard before it came to be here.
        self.heard = []

    @classmethod
    async def begun(cls, gateway, path="/engine.io/", sid=None, query="", **headers):
        """The WebSocket, with nothing said or heard."""
        raw = await Raw.open(gateway)
        target = f"{path}?{QUERY}websocket{f'&sid={sid}' if sid else ''}{query}"
        raw.write(handshake(gateway, path=target, **headers))
        head = await raw.head()
        assert head.startswith("HTTP/1.1 101 "), head
        return cls(raw)

    @classmethod
    async def open(cls, gateway, path="/engine.io/", **how):
        self = await cls.begun(gateway, path, **how)
        first = await self.next()
        assert first[:1] == "0", first
        self.opened = json.loads(first[1:])
        self.sid = self.opened["sid"]
        return self

    async def say(self, *packets):
        for packet in packets:
            if isinstance(packet, bytes):
                self.raw.frame(BINARY, packet)
            else:
                self.raw.frame(TEXT, packet.encode())
        try:
            await asyncio.wait_for(self.raw.writer.drain(), PATIENCE_S)
        except ConnectionError:
            pass

    async def next(self):
        """The next packet, whatever it is."""
        while True:
            if self.heard:
                return self.heard.pop(0)
            try:
                opcode, payload = await self.raw.receive()
            except (asyncio.IncompleteReadError, ConnectionError):
                raise Gone(None) from None
            if opcode == TEXT:
                return payload.decode()
            if opcode == BINARY:
                return payload
            if opcode == CLOSE:
                self.raw.frame(CLOSE, payload[:2])
                raise Gone(int.from_bytes(payload[:2], "big") if payload else None)
            if opcode == PING:
                self.raw.frame(PONG, payload)

    async def packet(self):
        while True:
            packet = await self.next()
            if packet == "2":
                await self.say("3")
            elif packet != "6":
                return packet

    async def ended(self):
        packets = []
        try:
            while True:
                packets.append(await self.next())
        except Gone as gone:
            self.close_code = gone.args[0]
            return packets

    def drop(self):
        self.raw.drop()


async def probed(session):
    """A WebSocket that probes a polling session and has been answered."""
    socket = await Socket.begun(session.gateway, session.path, sid=session.sid)
    await socket.say("2probe")
    assert await socket.next() == "3probe"
    return socket


async def upgraded(session):
    """The WebSocket that a polling session has become."""
    socket = await probed(session)
    await socket.say("5")
    socket.heard, session.heard = session.heard, []
    return socket


TRANSPORTS = (Socket, Polling)
