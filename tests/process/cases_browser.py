"""A browser's own WebSocket: headless Chromium, driven by `browser.js`, whose pages send what Python packs."""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import random
import shutil

import msgpack

from support import PATIENCE_S, case, count, counted, fresh, signed, token, until

HERE = os.path.dirname(os.path.abspath(__file__))
JSON, MSGPACK = "ringroom.v1.json", "ringroom.v1.msgpack"
# What a page is told of a socket that ended without a close frame, and of one that was never open.
WITHOUT_A_WORD = 1006
# An answer may hold a message of a megabyte in base64, in JSON.
ANSWER_BYTES_MAX = 8 << 20


class Browser:
    """One Chromium process."""

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, *words):
        """With these words more on Chromium's command line."""
        self = cls()
        chromium = shutil.which("chromium")
        assert chromium, "chromium is missing; tests/run installs it"
        self.process = await asyncio.create_subprocess_exec(
            "node", os.path.join(HERE, "browser.js"), chromium, *words, limit=ANSWER_BYTES_MAX,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        self.complaints = asyncio.create_task(self.process.stderr.read())
        self.answers, self.ids, self.pages = {}, itertools.count(1), itertools.count(1)
        self.reader = asyncio.create_task(self._read())
        try:
            self.version = await self.ask("version")
            yield self
        finally:
            self.process.stdin.close()
            try:
                await asyncio.wait_for(self.process.wait(), PATIENCE_S)
            except asyncio.TimeoutError:
                # Chromium ends when its pipe to Node does.
                self.process.kill()
                await self.process.wait()
            self.reader.cancel()

    async def _read(self):
        while line := await self.process.stdout.readline():
            answer = json.loads(line)
            self.answers.pop(answer["id"]).set_result(answer)
        why = (await self.complaints).decode()
        for waiting in self.answers.values():
            waiting.set_exception(AssertionError(f"Chromium did not start, or died: {why}"))

    async def ask(self, command, **more):
        id = next(self.ids)
        # Whoever asks a browser that has died meanwhile waits no longer than for one that says nothing.
        waiting = self.answers[id] = asyncio.get_running_loop().create_future()
        self.process.stdin.write(json.dumps({"id": id, "command": command, **more}).encode() + b"\n")
        try:
            answer = await asyncio.wait_for(waiting, PATIENCE_S)
        except asyncio.TimeoutError:
            raise AssertionError(f"the browser did not answer {command} in {PATIENCE_S:.0f} s") from None
        assert "error" not in answer, (command, answer["error"])
        return answer.get("value")

    async def page(self, url):
        """A page of the origin of `url`, with nothing in common with other pages."""
        page = Page(self, next(self.pages))
        page.origin = await self.ask("visit", page=page.number, url=url)
        return page

    async def member(self, gateway, user, room=None, protocol=JSON):
        """A page of the gateway's own origin, connected, and in `room`."""
        page = await self.page(f"http://{gateway.host}:{gateway.port}/health")
        await page.open(gateway.url, token(user), protocol)
        assert page.opened, await page.closed()
        assert page.protocol == protocol, page.protocol
        assert (await page.push("connected"))["data"]["user"] == user
        if room:
            await page.ok("room:join", {"room": room})
        return page


class Page:
    """One page with one socket."""

    def __init__(self, browser, number):
        self.browser, self.number, self.ids, self.early = browser, number, itertools.count(1), []

    async def open(self, url, jwt, protocol=JSON):
        protocols = [protocol, f"bearer.{jwt}"] if jwt else [protocol]
        answer = await self.browser.ask("open", page=self.number, url=url, protocols=protocols)
        self.opened = answer["opened"]
        self.protocol, self.extensions = answer.get("protocol"), answer.get("extensions")

    async def send_text(self, text):
        await self.browser.ask("send", page=self.number, text=text)

    async def send_binary(self, data):
        await self.browser.ask("send", page=self.number, binary=base64.b64encode(data).decode())

    async def send(self, message):
        if self.protocol == MSGPACK:
            await self.send_binary(msgpack.packb(message))
        else:
            await self.send_text(json.dumps(message, ensure_ascii=False))

    async def close(self, code=1000, reason=""):
        """The page's own close, and what it is told of it."""
        await self.browser.ask("close", page=self.number, code=code, reason=reason)
        return await self.closed()

    async def heard(self):
        """The next message, unpacked; `raw` is it as it came. A close is `closed`."""
        what = await self.browser.ask("next", page=self.number)
        if "closed" in what:
            return what
        if "binary" in what:
            assert self.protocol == MSGPACK, "a text was promised"
            raw = base64.b64decode(what["binary"])
            return {**msgpack.unpackb(raw), "raw": raw}
        assert self.protocol == JSON, "bytes were promised"
        return {**json.loads(what["text"]), "raw": what["text"]}

    async def _take(self, chosen, what):
        for at, message in enumerate(self.early):
            if chosen(message):
                return self.early.pop(at)
        while True:
            message = await self.heard()
            assert "closed" not in message, f"closed with {message['closed']} while waiting for {what}"
            if chosen(message):
                return message
            self.early.append(message)

    async def push(self, event, where=lambda message: True):
        return await self._take(lambda message: message.get("event") == event and where(message), f"the push {event}")

    async def request(self, event, data):
        id = next(self.ids)
        await self.send({"id": id, "event": event, "data": data})
        return await self._take(lambda message: message.get("id") == id, f"the reply to {event}")

    async def ok(self, event, data):
        reply = await self.request(event, data)
        assert reply["ok"] is True, (event, reply)
        return reply["data"]

    async def publish(self, room, event, data):
        return await self.ok("room:publish", {"room": room, "event": event, "data": data})

    async def closed(self):
        """Code and reason as the page is told them, and whether both sides said goodbye."""
        while "closed" not in (message := await self.heard()):
            pass
        return message["closed"]["code"], message["closed"]["reason"], message["closed"]["wasClean"]


@case(both_ios=True)
async def pages_of_a_browser_talk_in_a_room(gateway):
    async with Browser.started() as browser:
        room = fresh("chat:pages")
        users = [fresh("page"), fresh("page")]
        pages = [await browser.member(gateway, user, room) for user in users]
        texts = ["hello", "größe, 中文, עברית", "🎉👩‍👩‍👧‍👦\u0000\u2028", "", "x" * 70_000]
        for n, text in enumerate(texts):
            ack = await pages[n % 2].publish(room, "chat", {"text": text})
            for page in pages:
                push = await page.push("chat")
                assert push["data"] == {"text": text}, push["raw"][:200]
                assert (push["from"], push["mid"]) == (users[n % 2], ack["mid"]), push["raw"][:200]
        for page in pages:
            assert await page.close() == (1000, "", True)


@case
async def bytes_of_a_page_are_the_same_bytes_in_another(gateway):
    async with Browser.started() as browser:
        room = fresh("chat:bytes")
        packed = await browser.member(gateway, fresh("packed"), room, MSGPACK)
        plain = await browser.member(gateway, fresh("plain"), room)
        blob = bytes(range(256)) * 300
        in_json = {"$bin": base64.b64encode(blob).decode()}
        for page, data in ((packed, {"blob": blob}), (plain, {"blob": in_json})):
            await page.publish(room, "chat", data)
            assert (await packed.push("chat"))["data"] == {"blob": blob}
            assert (await plain.push("chat"))["data"] == {"blob": in_json}
        assert await packed.close() == (1000, "", True)
        assert await plain.close() == (1000, "", True)


@case(both_ios=True)
async def a_message_of_a_megabyte_comes_back_to_a_page_byte_for_byte(gateway):
    async with Browser.started() as browser:
        room = fresh("chat:megabyte")
        page = await browser.member(gateway, fresh("page"), room)
        limit = 1 << 20
        head = '{"id":"big","event":"room:publish","data":{"room":"%s","event":"big","data":"' % room
        noise = random.Random(7).randbytes(limit)
        # What shrinks when it is compressed, and what hardly does, each of exactly the limit.
        for fill in ("1,2,3 größe 🎉" * limit, base64.b64encode(noise).decode()):
            data = fill.encode()[: limit - len(head) - 3].decode(errors="ignore")
            text = head + data + '"}}'
            text += " " * (limit - len(text.encode()))
            await page.send_text(text)
            push = await page.push("big")
            assert f'"{data}"' in push["raw"], "something else came back"
            assert (await page._take(lambda message: message.get("id") == "big", "the reply"))["ok"] is True
        # One byte more: what shrinks on its way and inflates beyond the limit, and what is too long as it comes.
        async with counted(gateway, "closes.1009"):
            await page.send_text(text + " ")
            code, reason, was_clean = await page.closed()
            assert (code, was_clean) == (1009, True) and "inflates" in reason, (code, reason, was_clean)
        page = await browser.member(gateway, fresh("page"), protocol=MSGPACK)
        async with counted(gateway, "closes.1009"):
            await page.send_binary(noise + b"x")
            code, reason, was_clean = await page.closed()
            assert (code, was_clean) == (1009, True) and "message_bytes" in reason, (code, reason, was_clean)


@case
async def a_page_is_told_why_its_socket_was_closed(gateway):
    async with Browser.started() as browser:
        for what, jwt in (
            ("bad", token("alice", secret="another secret of at least 32 bytes, no?")),
            ("unsigned", signed({"alg": "none"}, {"sub": "alice"}).rsplit(".", 1)[0] + "."),
            ("missing", None),
        ):
            page = await browser.page(f"http://{gateway.host}:{gateway.port}/health")
            async with counted(gateway, "refused"):
                await page.open(gateway.url, jwt)
                assert page.opened, f"{what}: a page is told nothing of a refused upgrade"
                code, reason, was_clean = await page.closed()
            assert (code, was_clean) == (4401, True) and "token" in reason, (what, code, reason, was_clean)
        page = await browser.member(gateway, fresh("page"))
        async with counted(gateway, "closes.1003"):
            await page.send_binary(b"\x81\xa2id\x01")
            code, reason, was_clean = await page.closed()
        assert (code, was_clean) == (1003, True) and reason, (code, reason, was_clean)
        page = await browser.member(gateway, fresh("page"), protocol=MSGPACK)
        async with counted(gateway, "closes.1003"):
            await page.send_text('{"event":"ping"}')
            code, reason, was_clean = await page.closed()
        assert (code, was_clean) == (1003, True) and reason, (code, reason, was_clean)


@case(both_ios=True)
async def a_page_that_closes_is_answered_with_its_own_code(gateway):
    async with Browser.started() as browser:
        for code, reason in ((1000, ""), (1000, "done"), (3000, "größe 🎉"), (4999, "x" * 123)):
            page = await browser.member(gateway, fresh("page"), fresh("chat:closing"))
            assert await page.close(code, reason) == (code, "", True)


@case(own=True)
async def a_page_is_told_when_to_come_back_after_a_restart(start):
    gateway = await start()
    async with Browser.started() as browser:
        pages = [await browser.member(gateway, fresh("page"), "chat:restart") for _ in range(3)]
        ending = asyncio.create_task(gateway.terminate())
        for page in pages:
            code, reason, was_clean = await page.closed()
            assert (code, was_clean) == (1012, True), (code, reason, was_clean)
            assert json.loads(reason)["retry_ms"] >= 0, reason
        assert await ending == 0, gateway.tail()


@case(both_ios=True)
async def what_goes_to_and_from_a_page_is_compressed(gateway):
    async with Browser.started() as browser:
        room = fresh("chat:deflate")
        page = await browser.member(gateway, fresh("page"), room)
        assert page.extensions.startswith("permessage-deflate"), page.extensions
        assert "server_no_context_takeover" in page.extensions, page.extensions
        text = json.dumps([{"n": n, "text": f"line {n} of a conversation"} for n in range(10_000)])
        # Told by the gateway, whose sockets nobody else uses meanwhile.
        before = await gateway.stats()
        await page.publish(room, "chat", {"text": text})
        assert (await page.push("chat"))["data"] == {"text": text}

        async def moved(way):
            return count(await gateway.stats(), way) - count(before, way)

        for way in ("bytes_in", "bytes_out"):
            # The counters may be told a moment before the write is counted.
            grown = await until(lambda: moved(way), f"{way} to grow")
            assert len(text) / 100 < grown < len(text) / 4, f"{way}: {grown} for a text of {len(text)}"
        status, metrics = await gateway.get("/metrics")
        assert status == 200 and b"ringroom_written_bytes_total" in metrics
        await page.close()


@case(own=True)
async def nothing_is_compressed_for_a_page_where_that_is_off(start):
    gateway = await start(RINGROOM_COMPRESSION__MIN_BYTES="never")
    async with Browser.started() as browser:
        room = fresh("chat:plain")
        page = await browser.member(gateway, fresh("page"), room)
        assert page.extensions == "", page.extensions
        before = await gateway.stats()
        await page.publish(room, "chat", {"text": "x" * 100_000})
        assert (await page.push("chat"))["data"] == {"text": "x" * 100_000}

        async def grown(way):
            return count(await gateway.stats(), way) - count(before, way) > 100_000

        for way in ("bytes_in", "bytes_out"):
            await until(lambda: grown(way), f"{way} to grow by what was said")
        await page.close()


@case(own=True)
async def pages_of_other_origins_connect_only_where_they_are_listed(start):
    strict = await start()
    async with Browser.started() as browser:
        # The same machine and another port is another origin.
        page = await browser.page(f"http://{strict.ops}/health")
        assert page.origin == f"http://{strict.ops}"
        async with counted(strict, "refused.origin"):
            await page.open(strict.url, token(fresh("stranger")))
            assert not page.opened
        assert await page.closed() == (WITHOUT_A_WORD, "", False), "a page is told nothing of a 403"
        lenient = await start(RINGROOM_NETWORK__ORIGINS=page.origin)
        await page.open(lenient.url, token(fresh("guest")))
        assert page.opened and (await page.push("connected")), await page.closed()
        assert await page.close() == (1000, "", True)
