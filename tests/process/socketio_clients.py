"""Client libraries of Socket.IO behind one interface: the official one of npm (in Node and in a page of Chromium) and
python-socketio, threaded and on asyncio.

A library opens connections; a connection enters namespaces, in each of which `heard` gives what came, in order:
`("connect",)`, `("connect_error", message, data)`, `("disconnect",)`, `("event", name, *arguments)`.
Every library answers a question of the server with `"answer"` and its arguments.
"""

import asyncio
import base64
import concurrent.futures
import contextlib
import itertools
import json
import os
import shutil

import engineio
import socketio
import socketio.exceptions

from support import PATIENCE_S

HERE = os.path.dirname(os.path.abspath(__file__))
LINE_BYTES_MAX = 16 << 20


class NoAnswer(Exception):
    """A question was not answered in time."""


def packed(value):
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, (list, tuple)):
        return [packed(one) for one in value]
    if isinstance(value, dict):
        return {name: packed(one) for name, one in value.items()}
    return value


def unpacked(value):
    if isinstance(value, list):
        return [unpacked(one) for one in value]
    if isinstance(value, dict):
        if "$bytes" in value:
            return base64.b64decode(value["$bytes"])
        return {name: unpacked(one) for name, one in value.items()}
    return value


class Connection:
    """What every library's connection has."""

    async def event(self, namespace, name):
        """The arguments of the next thing heard, which is this event."""
        heard = await self.heard(namespace)
        assert heard[:2] == ("event", name), f"{heard} where the event {name} should be"
        return list(heard[2:])

    async def until_heard(self, namespace, kind):
        """Passes over what comes before the next of this kind."""
        while (heard := await self.heard(namespace))[0] != kind:
            pass
        return heard

    async def entered(self, *namespaces):
        """Hears that it is in."""
        for namespace in namespaces:
            heard = await self.heard(namespace)
            assert heard == ("connect",), (namespace, heard)


class Npm:
    """`socket.io-client` in one process of Node, or in a page."""

    # Whether it does not reconnect once a poll was answered `1`.
    stays_away_when_told = False

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, page_url=None):
        self = cls()
        words = [shutil.which("chromium")] if page_url else []
        self.process = await asyncio.create_subprocess_exec(
            "node", os.path.join(HERE, "socketio", "client.js"), *words, limit=LINE_BYTES_MAX,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        self.complaints = asyncio.create_task(self.process.stderr.read())
        self.answers, self.ids = {}, itertools.count(1)
        self.reader = asyncio.create_task(self._read())
        try:
            if page_url:
                self.origin = await self.ask("visit", url=page_url)
            yield self
        finally:
            self.process.stdin.close()
            try:
                await asyncio.wait_for(self.process.wait(), PATIENCE_S)
            except asyncio.TimeoutError:
                self.process.kill()
                await self.process.wait()
            self.reader.cancel()

    async def _read(self):
        while line := await self.process.stdout.readline():
            answer = json.loads(line)
            self.answers.pop(answer["id"]).set_result(answer)
        why = (await self.complaints).decode()
        for waiting in self.answers.values():
            if not waiting.done():
                waiting.set_exception(AssertionError(f"the client has died: {why}"))

    async def ask(self, command, **more):
        id = next(self.ids)
        waiting = self.answers[id] = asyncio.get_running_loop().create_future()
        self.process.stdin.write(json.dumps({"id": id, "command": command, **more}).encode() + b"\n")
        try:
            answer = await asyncio.wait_for(waiting, PATIENCE_S)
        except asyncio.TimeoutError:
            raise AssertionError(f"no answer to {command} {more} in {PATIENCE_S:.0f} s") from None
        assert "error" not in answer, (command, answer)
        return answer.get("value")

    async def open(self, url, transports, namespaces, auth=None, path="/socket.io/", **options):
        connection = NpmConnection(self, next(self.ids))
        await self.ask(
            "open", connection=connection.number, url=url, options={"transports": transports, "path": path, **options}
        )
        for namespace in namespaces:
            await connection.enter(namespace, auth)
        return connection


class NpmConnection(Connection):
    def __init__(self, library, number):
        self.library, self.number = library, number

    async def _ask(self, command, **more):
        return await self.library.ask(command, connection=self.number, **more)

    async def enter(self, namespace, auth=None):
        await self._ask("enter", namespace=namespace, auth=auth or {})

    async def enter_again(self, namespace):
        await self._ask("enterAgain", namespace=namespace)

    async def heard(self, namespace):
        heard = unpacked(await self._ask("next", namespace=namespace))
        return ("disconnect",) if heard[0] == "disconnect" else tuple(heard)

    async def emit(self, namespace, event, *arguments):
        await self._ask("emit", namespace=namespace, event=event, args=packed(arguments))

    async def ask(self, namespace, event, *arguments, timeout_s=None):
        told = await self._ask(
            "ask", namespace=namespace, event=event, args=packed(arguments),
            timeout_ms=round(timeout_s * 1000) if timeout_s else None,
        )
        if "timeout" in told:
            raise NoAnswer(told["timeout"])
        return unpacked(told["answer"])

    async def leave(self, namespace):
        await self._ask("leave", namespace=namespace)

    async def transport(self):
        return await self._ask("transport")

    async def raw(self, message):
        await self._ask("raw", message=message)

    async def close(self):
        await self._ask("close")


class PythonConnection(Connection):
    """Of both kinds: what differs is how a call is waited for. Its namespaces are entered at once, when it opens."""

    def __init__(self, client, call):
        self.client, self.call = client, call
        self.loop, self.queues = asyncio.get_running_loop(), {}
        # The library does not keep an event and its bytes together when two say something at the same time.
        self.saying = asyncio.Lock()

    def _tell(self, namespace, *what):
        self.loop.call_soon_threadsafe(self.queues[namespace].put_nowait, what)

    def _listen(self, namespace, on):
        self.queues[namespace] = asyncio.Queue()

        def event(name, *arguments):
            self._tell(namespace, "event", name, *arguments)
            return ("answer", *arguments)

        def connect_error(told=None):
            told = told if isinstance(told, dict) else {"message": told}
            self._tell(namespace, "connect_error", told.get("message"), told.get("data"))

        on("connect", lambda: self._tell(namespace, "connect"), namespace=namespace)
        on("disconnect", lambda *why: self._tell(namespace, "disconnect"), namespace=namespace)
        on("connect_error", connect_error, namespace=namespace)
        on("*", event, namespace=namespace)

    async def connect(self, url, transports, path, namespaces, auth, **options):
        for namespace in namespaces:
            self._listen(namespace, self.client.on)
        try:
            await self.call(
                self.client.connect, url, transports=transports, socketio_path=path, namespaces=namespaces, auth=auth,
                wait_timeout=PATIENCE_S, **options,
            )
        except socketio.exceptions.ConnectionError as refused:
            self.refused = str(refused)

    async def heard(self, namespace):
        return await asyncio.wait_for(self.queues[namespace].get(), PATIENCE_S)

    async def emit(self, namespace, event, *arguments):
        async with self.saying:
            await self.call(self.client.emit, event, tuple(arguments), namespace=namespace)

    async def ask(self, namespace, event, *arguments, timeout_s=PATIENCE_S):
        try:
            async with self.saying:
                answer = await self.call(
                    self.client.call, event, tuple(arguments), namespace=namespace, timeout=timeout_s
                )
        except socketio.exceptions.TimeoutError as late:
            raise NoAnswer(str(late)) from None
        # The library gives one argument as it is.
        return [] if answer is None else list(answer) if isinstance(answer, tuple) else [answer]

    async def raw(self, message):
        """A message of Engine.IO that the library would not send."""
        await self.call(self.client.eio.send, message)

    async def transport(self):
        return self.client.transport() if callable(self.client.transport) else self.client.transport

    async def close(self):
        await self.call(self.client.disconnect)


OPTIONS = {"reconnection_delay": 0.05, "reconnection_delay_max": 0.2, "handle_sigint": False}


class InOrder(engineio.Client):
    """Of python-engineio's own threads each has one message, so a later one may be faster. Here one has them all."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.messages = concurrent.futures.ThreadPoolExecutor(max_workers=1)

    def _trigger_event(self, event, *arguments, run_async=False, **options):
        handle = super()._trigger_event
        if event == "message":
            return self.messages.submit(handle, event, *arguments, **options)
        return handle(event, *arguments, run_async=run_async, **options)


class Threaded(socketio.Client):
    def _engineio_client_class(self):
        return InOrder


class PythonThreads:
    """python-socketio's `Client`, with threads of its own."""

    stays_away_when_told = True

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls):
        yield cls()

    async def open(self, url, transports, namespaces, auth=None, path="/socket.io/"):
        connection = PythonConnection(Threaded(**OPTIONS), asyncio.to_thread)
        await connection.connect(url, transports, path, namespaces, auth)
        return connection


class PythonAsyncio(PythonThreads):
    """python-socketio's `AsyncClient`, in the loop of the tests."""

    async def open(self, url, transports, namespaces, auth=None, path="/socket.io/"):
        async def call(method, *arguments, **options):
            return await method(*arguments, **options)

        connection = PythonConnection(socketio.AsyncClient(**OPTIONS), call)
        await connection.connect(url, transports, path, namespaces, auth)
        return connection
