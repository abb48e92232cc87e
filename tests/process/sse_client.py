"""A client of server-sent events by hand: the parser is the HTML specification's section 9.2.6, word for word, and
stricter where a server that is well has no business (fields that nobody knows, text that is not UTF-8).

`Stream` is one answer of `/sse`, read in the background; `emit` says something at `/emit` for it.
"""

import asyncio
import itertools
import json
import re
import socket
import urllib.parse

from engine_client import Answer, Http
from support import PATIENCE_S, Client, Hearer, fresh, token, until

PATH = "/sse"
CONTENT_TYPE = "text/event-stream; charset=utf-8"
# The reply to the join of a room of the query, and what says why the stream ends.
JOINED, CLOSED = "room:join", "connection:closed"
# Names that a page's EventSource has for itself.
TOLD_AS = {"open": "event:open"}
# What is told of a position that nothing is left of.
NONE_RECOVERED = {"recovered": False, "replayed": 0, "gap": True}


class Event:
    """One event as a page is told it; `own_id` is the id that came with it, None where none did."""

    def __init__(self, type, data, last_event_id, own_id):
        self.type, self.data, self.last_event_id, self.own_id = type, data, last_event_id, own_id

    def __repr__(self):
        return f"{self.type} {self.data[:200]!r} id {self.own_id!r}"

    @property
    def envelope(self):
        return json.loads(self.data)


class Parser:
    """Bytes in, events out, however the bytes are cut. What is not ended by a blank line is no event."""

    def __init__(self, last_event_id=""):
        self.last_event_id = last_event_id
        self.reconnection_ms = None
        self.comments = []
        # Names of fields in their order, comments as an empty one.
        self.fields = []
        self._line = b""
        self._after_cr = self._has_begun = False
        self._reset()
        self._id = last_event_id

    def _reset(self):
        self._type, self._data, self._own_id = "", [], None

    def feed(self, data):
        """The events that end in `data`."""
        events = []
        for byte in data:
            if self._after_cr and byte == 0x0A:
                self._after_cr = False
                continue
            self._after_cr = byte == 0x0D
            if byte in (0x0A, 0x0D):
                line, self._line = self._line, b""
                events += self._ended(line)
            else:
                self._line += bytes([byte])
        return events

    def _ended(self, line):
        # Strict: a page would see U+FFFD.
        line = line.decode("utf-8")
        if not self._has_begun:
            self._has_begun, line = True, line.removeprefix("\ufeff")
        if line == "":
            return self._dispatched()
        if line.startswith(":"):
            self.comments.append(line[1:])
            self.fields.append("")
            return []
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        self.fields.append(name)
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            assert "\0" not in value, f"an id that is ignored: {value!r}"
            self._id = self._own_id = value
        elif name == "retry":
            assert re.fullmatch("[0-9]+", value), f"no number of milliseconds: {value!r}"
            self.reconnection_ms = int(value)
        else:
            raise AssertionError(f"a field that nobody knows, which a payload may have injected: {line[:200]!r}")
        return []

    def _dispatched(self):
        self.last_event_id = self._id
        type, data, own_id = self._type or "message", "\n".join(self._data), self._own_id
        self._reset()
        return [Event(type, data, self.last_event_id, own_id)] if data else []


# Faster than a byte at a time where nothing is to be shown by it: lines are what `feed` makes of them.
LINE_END = re.compile(rb"\r\n|\r|\n")


class LineParser(Parser):
    def feed(self, data):
        data = self._line + data
        events, at = [], 0
        if self._after_cr and data[:1] == b"\n":
            at = 1
        if data:
            self._after_cr = False
        for end in LINE_END.finditer(data, at):
            events += self._ended(data[at : end.start()])
            at = end.end()
            # Its second half may be yet to come.
            self._after_cr = end[0] == b"\r" and at == len(data)
        self._line = data[at:]
        return events


class Refused(Exception):
    """An answer that is no stream."""

    def __init__(self, answer):
        super().__init__(repr(answer))
        self.answer = answer


class Stream(Hearer):
    """One stream. Events are sorted as they come: `connected`, replies by room, the rest as pushes."""

    def __init__(self):
        self.events, self.pushes, self.replies = [], [], {}
        self.connected = self.closed = self.failed = None
        self.ended = False
        self.bytes = 0
        self.changed = asyncio.Event()

    @classmethod
    async def begun(cls, gateway, user=None, rooms=(), jwt=None, how="query", last_event_id=None, id_in="header",
                    bytes_max=None, buffer=None, method="GET", path=PATH, query="", parser=LineParser, **headers):
        """What comes back to a request. `jwt` is the user's unless given; `how` it is told: `query`, `header`,
        `cookie`, `nowhere`. After `bytes_max` of the answer, head included, the connection is cut."""
        self = cls()
        self.user = user
        jwt = jwt if jwt is not None else token(user) if how != "nowhere" else None
        asked = []
        if rooms:
            asked.append("rooms=" + urllib.parse.quote(",".join(rooms), safe=",:"))
        if how == "query":
            asked.append(f"token={jwt}")
        elif how == "header":
            headers["Authorization"] = f"Bearer {jwt}"
        elif how == "cookie":
            headers["Cookie"] = f"other=1; token={jwt}"
        if last_event_id is not None and id_in == "query":
            asked.append("lastEventId=" + urllib.parse.quote(last_event_id, safe="", errors="surrogateescape"))
        elif last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        headers.setdefault("Accept", "text/event-stream")
        target = path + (f"?{'&'.join(asked)}" if asked else "") + query
        lines = [f"{method} {target} HTTP/1.1", f"Host: {gateway.host}:{gateway.port}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        sock = socket.socket()
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (gateway.host, gateway.port))
        speech = getattr(gateway, "ssl", None)
        name = gateway.host if speech else None
        self.reader, self.writer = await asyncio.open_connection(
            sock=sock, limit=buffer or 1 << 16, ssl=speech, server_hostname=name,
        )
        # With what is no UTF-8, where a case wants that.
        self.writer.write("\r\n".join(lines).encode(errors="surrogateescape") + b"\r\n\r\n")
        self.parser = parser(last_event_id or "")
        self.left = bytes_max
        self.task = asyncio.create_task(self._read())
        return self

    @classmethod
    async def open(cls, gateway, user=None, rooms=(), **how):
        """A stream that has begun and knows itself; `Refused` with the answer where it is none."""
        self = await cls.begun(gateway, user, rooms, **how)
        await self._wait(lambda: self.connected, "connected")
        return self

    @property
    def conn(self):
        return self.connected["conn"]

    @property
    def last_event_id(self):
        return self.parser.last_event_id

    async def _some(self):
        data = await self.reader.read(1 << 16)
        if self.left is not None:
            data = data[: self.left]
            self.left -= len(data)
        self.bytes += len(data)
        if self.left == 0:
            self.writer.transport.abort()
        return data

    async def _read(self):
        try:
            await self._read_all()
        except (ConnectionError, OSError):
            pass
        except Exception as failed:
            self.failed = failed
        finally:
            self.ended = True
            self.writer.close()
            self._wake()

    async def _read_all(self):
        head = b""
        while b"\r\n\r\n" not in head:
            data = await self._some()
            head += data
            if not data or self.left == 0:
                if b"\r\n\r\n" not in head:
                    return
        head, rest = head.split(b"\r\n\r\n", 1)
        line, *named = head.decode("latin-1").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) [^\r\n]*", line)
        assert found, f"no status line but {line!r}"
        self.status, self.headers = int(found[1]), {}
        for one in named:
            name, _, value = one.partition(":")
            assert name.lower() not in self.headers, f"{name} twice"
            self.headers[name.lower()] = value.strip()
        if self.status != 200 or not self.headers.get("content-type", "").startswith("text/event-stream"):
            return await self._refused(rest)
        assert "content-length" not in self.headers, self.headers
        unchunked = Chunks() if self.headers.get("transfer-encoding") == "chunked" else None
        data = rest
        while True:
            for event in self.parser.feed(unchunked.feed(data) if unchunked else data):
                self._sort(event)
            self._wake()
            if self.left == 0 or not (data := await self._some()):
                return

    async def _refused(self, body):
        length = int(self.headers.get("content-length", 0))
        while len(body) < length and (data := await self._some()):
            body += data
        raise Refused(Answer(self.status, self.headers, body))

    def _sort(self, event):
        assert not self.closed, f"{event!r} after the close"
        self.events.append(event)
        message = json.loads(event.data)
        if event.type == CLOSED:
            self.closed = message["code"], message["reason"]
            assert set(message) == {"code", "reason"}, message
            return
        if event.type == JOINED:
            assert set(message) in ({"id", "ok", "data"}, {"id", "ok", "error"}), message
            assert message["id"] not in self.replies, f"answered twice: {message}"
            self.replies[message["id"]] = {**message, "event_id": event.own_id}
            return
        assert TOLD_AS.get(message["event"], message["event"]) == event.type, event
        if event.type == "connected":
            assert self.connected is None, event
            self.connected = message["data"]
            return
        self.pushes.append({**message, "text": event.data, "event_id": event.own_id})

    def _wake(self):
        self.changed.set()
        self.changed = asyncio.Event()

    async def _wait(self, look, what):
        """The value of `look()` once it is not None."""
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE_S
        while True:
            changed, found = self.changed, look()
            if found is not None:
                return found
            if self.failed:
                raise self.failed
            if self.ended:
                raise AssertionError(f"{self.user}'s stream ended with {self.closed} while waiting for {what}")
            try:
                await asyncio.wait_for(changed.wait(), end - loop.time())
            except asyncio.TimeoutError:
                raise AssertionError(f"{self.user} waited in vain for {what}; {self.events[-5:]}") from None

    async def reply(self, room):
        return await self._wait(lambda: self.replies.get(room), f"the reply of {room}")

    async def joined(self, room):
        reply = await self.reply(room)
        assert reply["ok"] is True, reply
        return reply["data"]

    async def refused(self):
        """The answer, which must be no stream."""
        await asyncio.wait([self.task], timeout=PATIENCE_S)
        assert isinstance(self.failed, Refused), f"not refused but {self.failed or self.events[:3]!r}"
        return self.failed.answer

    async def until_ended(self):
        """The close that was told, None where the stream just ended."""
        await asyncio.wait_for(self.task, PATIENCE_S)
        if self.failed:
            raise self.failed
        return self.closed

    def hold(self):
        self.writer.transport.pause_reading()

    def go_on(self):
        self.writer.transport.resume_reading()

    async def drop(self):
        self.writer.transport.abort()
        await asyncio.wait([self.task], timeout=PATIENCE_S)


class Chunks:
    """The body of an answer in chunks, as proxies make it."""

    def __init__(self):
        self.held, self.left = b"", 0

    def feed(self, data):
        self.held += data
        body = b""
        while self.held:
            if self.left > 2:
                taken = self.held[: self.left - 2]
                body, self.held, self.left = body + taken, self.held[len(taken) :], self.left - len(taken)
            elif self.left:
                if len(self.held) < self.left:
                    break
                self.held, self.left = self.held[self.left :], 0
            else:
                line, end, rest = self.held.partition(b"\r\n")
                if not end:
                    break
                self.held, self.left = rest, int(line, 16) + 2
        return body


_ids = itertools.count(1)


def body_of(conn, event, data=None, **more):
    message = {"conn": conn, "event": event, **({"data": data} if data is not None else {}), **more}
    return json.dumps({name: value for name, value in message.items() if value is not None})


async def emit(gateway, jwt, conn, event, data=None, http=None, body=None, **headers):
    """What `/emit` answers, over a connection of its own or `http`. The reply is looked at as far as all are the
    same: its shape, its id, and whether `ok` is what the status says."""
    own = http or await Http.open(gateway)
    id = next(_ids)
    if jwt is not None:
        headers["Authorization"] = f"Bearer {jwt}"
    headers.setdefault("Content_Type", "application/json")
    asked = body if body is not None else body_of(conn, event, data, id=id)
    try:
        answer = await own.request("POST", "/emit", asked, **headers)
    finally:
        if http is None:
            own.close()
    assert answer.headers["content-type"].startswith("application/json"), answer
    reply = answer.json()
    if answer.status == 200:
        assert set(reply) == {"id", "ok", "data"} and reply["ok"] is True, answer
        assert body is not None or reply["id"] == id, answer
    else:
        error = reply["error"]
        assert set(error) <= {"code", "message", "limit", "retry_after_ms"}, answer
        assert error["code"] and error["message"], answer
        assert reply.get("ok") in (None, False), answer
    return answer


async def said(gateway, stream, event, data=None, **more):
    """The data of the reply to what must go well."""
    answer = await emit(gateway, token(stream.user), stream.conn, event, data, **more)
    assert answer.status == 200, (event, data, answer)
    return answer.json()["data"]


def recovered(replayed):
    return {"recovered": True, "replayed": replayed, "gap": False}


def error_of(answer, status, *codes):
    """The error of a refusal, of which status and code are looked at."""
    assert answer.status == status, (status, answer)
    assert answer.headers["content-type"].startswith("application/json"), answer
    error = answer.json()["error"]
    assert error["code"] in codes and error["message"], (codes, answer)
    return error


async def users_at_home(gateway):
    """A user for each shard, whose home it is: its first connection is brought there, and is called by its shard."""
    homes = {}
    while len(homes) < gateway.shards:
        client = await Client.open(gateway, fresh("home"))
        homes.setdefault(int(client.connected["conn"].split("-")[0]), client.user)
        await client.close()
    return [homes[at] for at in sorted(homes)]


async def settled(gateway, connections):
    return (await gateway.stats())["connections_now"] == connections
