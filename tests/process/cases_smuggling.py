"""Requests whose end is in doubt: no byte of one is taken for another, whether a client or a proxy sends them.

Behind each doubtful request stands a *canary*, a request that ends somebody else's session. Where it is taken for a
request of its own, that session is gone; proxies refuse it where they see it themselves."""

import asyncio
import json
import os
import random
import re

from cases_proxies import OF_REQUESTS, TRUSTED, Proxy
from support import PATIENCE_S, Raw, case, fresh, token

POLLING = "/socket.io/?EIO=4&transport=polling"
# A proxy that waits for the rest of a body is not waited for.
PROXY_PATIENCE_S = 0.5
FORBIDDEN_BY_PROXY = {
    "nginx": ("            proxy_pass http://ringroom;", "            if ($http_x_canary) { return 403; }\n            proxy_pass http://ringroom;"),
    "caddy": ("\treverse_proxy ", "\t@canary header X-Canary *\n\trespond @canary 403\n\treverse_proxy "),
    "haproxy": ("    default_backend ringroom", "    http-request deny if { req.hdr(x-canary) -m found }\n    default_backend ringroom"),
}


class Answers:
    """One socket, over which requests are answered one after the other."""

    def __init__(self, raw):
        self.raw = raw

    @classmethod
    async def of(cls, place):
        return cls(await Raw.open(place))

    async def next(self):
        head = await self.raw.head()
        fields = dict(line.lower().split(":", 1) for line in head.split("\r\n")[1:] if ":" in line)
        body = b""
        if fields.get("transfer-encoding", "").strip() == "chunked":
            while size := int(await self.line(), 16):
                body += await self.exactly(size)
                await self.line()
            await self.line()
        else:
            body = await self.exactly(int(fields.get("content-length", "0")))
        return int(head.split()[1]), body.decode()

    async def line(self):
        return await asyncio.wait_for(self.raw.reader.readuntil(b"\r\n"), PATIENCE_S)

    async def exactly(self, length):
        return await asyncio.wait_for(self.raw.reader.readexactly(length), PATIENCE_S)

    async def ask(self, text):
        self.raw.write(text)
        return await self.next()


class Session:
    """Somebody who polls, in the main namespace."""

    def __init__(self, place, answers, sid):
        self.place, self.answers, self.sid, self.asked = place, answers, sid, 0
        self.path = f"{POLLING}&sid={sid}"

    @classmethod
    async def open(cls, place):
        answers = await Answers.of(place)
        status, body = await answers.ask(f"GET {POLLING} HTTP/1.1\r\nHost: h\r\n\r\n")
        assert status == 200, (status, body)
        self = cls(place, answers, json.loads(body[1:])["sid"])
        connect = "40" + json.dumps({"token": token(fresh("polls"))})
        assert await self.post(connect) == (200, "ok")
        status, body = await self.get()
        assert (status, body[:2]) == (200, "40"), (status, body)
        return self

    async def get(self):
        return await self.answers.ask(f"GET {self.path} HTTP/1.1\r\nHost: h\r\n\r\n")

    async def post(self, body):
        return await self.answers.ask(post(self.path, body))

    async def check(self, what):
        """It lives, and is answered what it asked itself, whichever connection of a proxy that takes."""
        self.asked += 1
        said = await self.post(f'42{self.asked}["ping",{{}}]')
        assert said == (200, "ok"), (what, said)
        while True:
            status, body = await self.get()
            assert status == 200, (what, status, body)
            packets = body.split("\x1e")
            if any(packet.startswith(f"43{self.asked}[") for packet in packets):
                return
            assert all(packet == "2" or packet.startswith("42[") for packet in packets), (what, body)

    def canary(self):
        return f"POST {self.path} HTTP/1.1\r\nHost: h\r\nX-Canary: 1\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1"


def post(path, body, more=""):
    return f"POST {path} HTTP/1.1\r\nHost: h\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}"


def in_chunks(body):
    return f"{len(body):x}\r\n{body}\r\n0\r\n\r\n"


def doubtful(path, body, canary):
    """Requests to `path` with `body` that have no end, or two, each with what stands behind."""

    def one(lines, payload, start=None):
        return f"{start or f'POST {path} HTTP/1.1'}\r\nHost: h\r\n{lines}\r\n{payload}{canary}"

    length, chunks = len(body), in_chunks(body)
    sized, chunked = f"Content-Length: {length}\r\n", "Transfer-Encoding: chunked\r\n"
    # What some take for the one and some for the other.
    for lines in (
        sized + chunked, chunked + sized, f"Content-Length: 0\r\n{chunked}", f"{chunked}Content-Length: {len(chunks)}\r\n",
        sized + "X: a\n" + chunked, sized + "transfer-ENCODING:chunked\r\n", sized + "Transfer-Encoding:\tchunked \r\n",
        sized + "Transfer-Encoding: identity\r\n", sized + "Transfer-Encoding:\r\n", chunked + "Content-Length: x\r\n",
    ):
        yield one(lines, chunks)
        yield one(lines, body)
    # Two lengths, or none.
    for value in (
        f"{length}\r\nContent-Length: {length}", f"{length}\r\nContent-Length: 0", f"0\r\nContent-Length: {length}", f"{length}, {length}",
        f"{length},0", f"+{length}", f"-{length}", f"0x{length:x}", f"{length} {length}", f"{length};a", f'"{length}"', f"{length}.0", f"{length}e0",
        f"{length}\x0b", f"\x0c{length}", f"{length}\0", "", " ", f"{length}\r\ncontent-length : {length}", f"\r\n {length}", "9" * 30,
        str(2**64 + length), str(2**32 + length) if length < 9 else "9" * 40,
    ):
        yield one(f"Content-Length: {value}\r\n", body)
    # Codings that are not exactly one of chunks.
    for value in (
        "xchunked", "chunkedx", "chunked, identity", "identity, chunked", "gzip, chunked", "chunked, chunked", "chunked,", ", chunked", "chunked;q=1",
        '"chunked"', "\x0bchunked", "chunked\x0c", "chunked\0", "identity", "", "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity", "identity\r\nTransfer-Encoding: chunked", "x\r\nTransfer-Encoding: chunked", "\r\n chunked", "chunked\r\n , identity",
    ):
        yield one(f"Transfer-Encoding: {value}\r\n", chunks)
    yield one(chunked, chunks, f"POST {path} HTTP/1.0")
    yield one(f"Connection: keep-alive\r\n{chunked}", chunks, f"POST {path} HTTP/1.0")
    # Lines that some read as another, or as two.
    for lines in (
        "Transfer-Encoding : chunked\r\n", "Transfer-Encoding\t: chunked\r\n", " Transfer-Encoding: chunked\r\n", "X: a\r\n Transfer-Encoding: chunked\r\n",
        "X: a\rTransfer-Encoding: chunked\r\n", "X: a\r\rTransfer-Encoding: chunked\r\n", "X: a\0\r\n", "X\0: a\r\n", "X y: a\r\n", ": a\r\n", "no colon\r\n",
        "X: a\r\n\tb\r\n", "X: a\x7fb\r\n", "Host: other\r\n",
    ):
        yield one(lines + sized, body)
        yield one(sized + lines, body)
    # Chunks that end elsewhere.
    for chunks in (
        f"+{length:x}\r\n{body}\r\n0\r\n\r\n", f"-{length:x}\r\n{body}\r\n0\r\n\r\n", f"0x{length:x}\r\n{body}\r\n0\r\n\r\n", f" {length:x}\r\n{body}\r\n0\r\n\r\n",
        f"{length:x}\n{body}\r\n0\r\n\r\n", f"{length:x}\r\n{body}\n0\r\n\r\n", f"{length:x}\r\n{body}0\r\n\r\n", f"{length:x}\r\n{body}xx0\r\n\r\n",
        f"{length:x}\r{body}\r\n0\r\n\r\n", f"{length:x};a\nb\r\n{body}\r\n0\r\n\r\n", f"{length:x};a\rb\r\n{body}\r\n0\r\n\r\n", f"{length:x}\0\r\n{body}\r\n0\r\n\r\n",
        f"{2**64 + length:x}\r\n{body}\r\n0\r\n\r\n", f"{'0' * 20}{length:x}\r\n{body}\r\n0\r\n\r\n", f"\r\n{body}\r\n0\r\n\r\n", f";a\r\n{body}\r\n0\r\n\r\n",
        f"{length:x}\r\n{body}\r\n0\n\r\n", f"{length:x}\r\n{body}\r\n0\r\n\n", f"{length:x}\r\n{body}\r\n0\r\nX: a\n\r\n", f"{length:x}\r\n{body}\r\n-0\r\n\r\n",
        f"{length:x}g\r\n{body}\r\n0\r\n\r\n", f"{length:x},1\r\n{body}\r\n0\r\n\r\n", f"{length:x}\r\n{body}\r\nx\r\n\r\n", "\n0\r\n\r\n",
    ):
        yield one(chunked, chunks)
    # Bodies where none belongs.
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"):
        yield one(sized, body, f"{method} {path} HTTP/1.1")
        yield one(chunked, in_chunks(body), f"{method} {path} HTTP/1.1")
    for start in (
        f"POST  {path} HTTP/1.1", f"POST {path}  HTTP/1.1", f"POST\t{path} HTTP/1.1", f" POST {path} HTTP/1.1", f"POST {path}", f"POST {path} HTTP/1.1 ",
        f"POST {path} HTTP/1.11", f"POST {path} HTTP/2.0", f"POST {path} http/1.1", f"POST{path} HTTP/1.1", f"POST {path}\0 HTTP/1.1", f"P\x7fST {path} HTTP/1.1",
    ):
        yield one(sized, body, start)
    yield one(f"Expect: 100-continue\r\n{sized}{chunked}", chunks)
    yield one(f"Expect: nothing\r\n{sized}", body)


def last(path, body, canary):
    """Requests that are answered, each with the end of its connection, and what must not be heard behind them."""
    websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    yield post(path, body, "Connection: close\r\n") + canary
    yield f"GET /health HTTP/1.1\r\nHost: h\r\n\r\n{canary}"
    yield f"GET /nothing HTTP/1.1\r\nHost: h\r\nContent-Length: {len(canary)}\r\n\r\n{canary}"
    yield post("/nothing", body) + canary
    yield f"GET /ws HTTP/1.1\r\nHost: h\r\n{websocket}\r\n{canary}"
    yield f"GET /ws HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{websocket}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n{body}{canary}"
    yield f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\n{websocket}\r\n{canary}"
    yield f"GET /ws HTTP/1.1\r\nHost: h\r\n\r\n{canary}"
    for start in ("OPTIONS /sse", "POST /sse", "GET /sse", "OPTIONS /emit", "OPTIONS /socket.io/"):
        yield f"{start} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(canary)}\r\n\r\n{canary}"
        yield f"{start} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{in_chunks(canary)}"


def targets(session):
    """Whereto requests with a body go, and one that is taken there."""
    jwt = token(fresh("emits"))
    return [(session.path, "3"), (f"/emit?token={jwt}", json.dumps({"conn": "x" * 28, "id": 1, "event": "ping", "data": {}}))]


async def answers_to(place, request, patience_s=PATIENCE_S):
    """All that is answered, to the end of the connection."""
    raw = await Raw.open(place)
    raw.write(request.encode("latin-1"))
    said = b""
    try:
        while part := await asyncio.wait_for(raw.reader.read(1 << 16), patience_s):
            said += part
    except ConnectionResetError:
        pass
    except asyncio.TimeoutError:
        assert patience_s < PATIENCE_S, f"no end after {said!r} to {request!r}"
    raw.drop()
    return said


@case(own=True, both_ios=True)
async def a_request_whose_end_is_in_doubt_is_the_last_of_its_connection(start):
    gateway = await start(shards=2)
    victim, session = await Session.open(gateway), await Session.open(gateway)
    number = 0
    for path, body in targets(session):
        for request in (*doubtful(path, body, victim.canary()), *last(path, body, victim.canary())):
            said = await answers_to(gateway, request)
            assert said.count(b"HTTP/1.1 ") == 1, (request, said)
            assert said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")) or request.startswith(("GET /health", "POST /socket.io", "POST /emit")), (request, said)
            number += 1
            if number % 20 == 0:
                await victim.check(request)
        await victim.check("all of them")
    assert number > 250, number


@case(own=True, both_ios=True)
async def requests_that_are_not_in_doubt_are_heard_one_after_the_other(start):
    """That the canaries of the other cases would be noticed; and what looks strange and is allowed."""
    gateway = await start(shards=1)
    session = await Session.open(gateway)
    for path, body in targets(session):
        for chunks in (
            in_chunks(body), f"000{len(body):X};a=\"b\";c\r\n{body}\r\n000;x\r\nX: y\r\nContent-Length: 99\r\nTransfer-Encoding: x\r\n\r\n",
            "".join(f"1\r\n{byte}\r\n" for byte in body) + "0\r\n\r\n",
        ):
            victim = await Session.open(gateway)
            chunked = f"POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n{chunks}"
            absolute = post(f"http://h{path}", body, f"X: {' ' * 20}a\r\n")
            said = await answers_to(gateway, chunked + absolute + post(path, body) + "\r\n" + chunked + victim.canary())
            statuses = re.findall(r"HTTP/1\.1 (\d+) ", said.decode())
            wanted = "200" if path == session.path else "404"
            assert statuses == [wanted] * 4 + ["200"], (path, statuses, said)
            assert (await victim.get())[0] == 400, "the canary was heard"


@case(own=True)
async def no_proxy_passes_a_request_on_that_is_read_otherwise(start):
    gateway = await start(shards=2, **TRUSTED)
    for name in OF_REQUESTS:
        def refuse_canaries(text):
            ours, here = FORBIDDEN_BY_PROXY[name]
            assert ours in text, text
            # With one worker all use the same connections to ringroom.
            return text.replace(ours, here).replace("worker_processes auto", "worker_processes 1")

        async with Proxy.before(gateway, name, edit=refuse_canaries) as proxy:
            victim, session = await Session.open(proxy), await Session.open(proxy)
            said = await answers_to(proxy, victim.canary())
            assert said.startswith(b"HTTP/1.1 403 "), said
            for path, body in targets(session):
                requests = [*doubtful(path, body, victim.canary()), *last(path, body, victim.canary())]
                # Those that leave a proxy waiting do so at the same time.
                for at in range(0, len(requests), 10):
                    some = requests[at:at + 10]
                    await asyncio.gather(*(answers_to(proxy, request, PROXY_PATIENCE_S) for request in some))
                    for _ in range(3):
                        await victim.check((name, some))


@case(own=True, both_ios=True)
async def a_body_is_never_heard_whatever_else_a_head_says(start):
    """The canary is inside a body whose length is right; lines are added, and line ends spoilt, at random."""
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"     seed {seed}", flush=True)
    rng = random.Random(seed)
    gateway = await start(shards=2)
    victim = await Session.open(gateway)
    last = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n"
    lines = [
        "X: y", "X:", "Content-Length: 0", "Content-Length: 1", "Content-Length:", "Transfer-Encoding: identity", "Transfer-Encoding: chunked", "Transfer-Encoding:",
        "Transfer-Encoding: gzip", "Connection: close", "Connection: keep-alive", "Connection: content-length", "Expect: 100-continue", "Upgrade: websocket", "Upgrade: h2c",
        "Connection: Upgrade", "Content_Length: 0", "Content-Length : 0", "X-HTTP-Method-Override: GET", "Trailer: Content-Length", "TE: trailers",
    ]
    ends = ["\r\n"] * 20 + ["\n", "\r", "\r\n ", "\r\n\t", " \r\n", "\0\r\n", "\x0b\r\n", "\r\r\n"]
    heard = refused = 0
    for number in range(500):
        status, body = await victim.answers.ask(f"GET {POLLING} HTTP/1.1\r\nHost: h\r\n\r\n")
        sid = json.loads(body[1:])["sid"]
        path = rng.choice((f"{POLLING}&sid={sid}", f"{POLLING}&sid={sid}", "/emit", "/emit", POLLING, "/sse", "/ws", "/health", "/nothing"))
        canary = rng.choice(("", "3", "0\r\n\r\n", "1\r\n3\r\n0\r\n\r\n", "\r\n")) + victim.canary()
        is_chunked = rng.random() < 0.4
        own = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(canary)}"
        head = [rng.choice(lines) for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))]
        head.insert(rng.randrange(len(head) + 1), own)
        method = rng.choice(("POST", "POST", "POST", "GET", "OPTIONS"))
        request = f"{method} {path} HTTP/1.{rng.choice('1110')}\r\nHost: h\r\n" + "".join(line + rng.choice(ends) for line in head)
        request += "\r\n" + (in_chunks(canary) if is_chunked else canary)
        said = await answers_to(gateway, request + last)
        finals = said.count(b"HTTP/1.1 ") - said.count(b"HTTP/1.1 100 ")
        assert finals in (1, 2), (seed, request, said)
        heard += finals == 2
        refused += finals == 1
        if number % 10 == 0:
            await victim.check((seed, request))
    await victim.check(seed)
    assert heard > 8 and refused > 100, (seed, heard, refused)
