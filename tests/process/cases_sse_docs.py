"""What docs/sse.md says, done as it says: every snippet is taken out of the page and run."""

import asyncio
import contextlib
import json
import os
import re
import tempfile
import time

from cases_browser import Browser
from sse_client import LineParser
from support import PATIENCE_S, SECRET, Client, Gateway, case, fresh, token, until

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE = os.path.join(HERE, "..", "..", "docs", "sse.md")
ADDRESS = "127.0.0.1:3001"


def snippet(language, word):
    """The one piece of code in this language that has this word."""
    with open(PAGE) as page:
        found = [code for code in re.findall(rf"^```{language}\n(.*?)^```$", page.read(), re.M | re.S) if word in code]
    assert len(found) == 1, (language, word, len(found))
    return found[0]


class Shell:
    """A program in the background, whose output is read as it comes."""

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, *words, **environment):
        self = cls()
        self.process = await asyncio.create_subprocess_exec(
            *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
            env={**os.environ, **environment},
        )
        self.output = b""
        reading = asyncio.create_task(self._read())
        try:
            yield self
        finally:
            if self.process.returncode is None:
                os.killpg(self.process.pid, 9)
            await self.process.wait()
            await reading

    async def _read(self):
        while data := await self.process.stdout.read(1 << 16):
            self.output += data


def bash(gateway, code):
    """As the page has it, but for the address and where the binary lies."""
    code = code.replace(ADDRESS, f"{gateway.host}:{gateway.port}")
    return ["bash", "-c", f'ringroom() {{ "{Gateway.binary}" "$@"; }}\n{code}']


@case
async def the_snippets_for_curl_do_what_the_page_says(gateway):
    secret = {"RINGROOM_JWT_SECRET": SECRET}
    listening, saying = snippet("sh", "curl -sN"), snippet("sh", "/emit")
    async with Shell.running(*bash(gateway, listening), **secret) as curl:

        def events():
            return LineParser().feed(curl.output)

        await until(lambda: len(events()) >= 2, "connected and the reply")
        connected, reply = events()[:2]
        assert (connected.type, connected.envelope["data"]["user"]) == ("connected", "alice"), connected
        assert (reply.type, reply.envelope["id"], reply.envelope["ok"]) == ("room:join", "chat:7", True), reply
        more = {**secret, "CONN": connected.envelope["data"]["conn"], "TOKEN": token("alice")}
        async with Shell.running(*bash(gateway, saying), **more) as emitting:
            assert await asyncio.wait_for(emitting.process.wait(), PATIENCE_S) == 0
            await until(lambda: b"}" in emitting.output, "the answer")
            answer = json.loads(emitting.output)
            assert (answer["id"], answer["ok"]) == (1, True) and answer["data"]["mid"], answer
        await until(lambda: len(events()) >= 3, "the push")
        push = events()[2]
        assert (push.type, push.envelope["from"], push.envelope["data"]) == ("said", "alice", {"text": "hello"}), push
        assert push.envelope["mid"] == answer["data"]["mid"]


@case
async def the_snippets_for_pages_do_what_the_page_says(gateway):
    native = await Client.open(gateway, fresh("native"))
    async with Browser.started() as browser:
        page = await browser.page(f"http://{gateway.host}:{gateway.port}/health")

        async def run(expression):
            return await browser.ask("evaluate", page=page.number, expression=expression)

        user = fresh("page")
        await browser.ask("script", page=page.number, content=(
            "const logged = []; console.log = (...words) => logged.push(words.join(' '));"
            f"const token = {json.dumps(token(user))};"
        ))
        await browser.ask("script", page=page.number, content=snippet("js", "let conn;\n\nsource"))

        async def answered():
            return await run("conn && emit('room:list', {}).then((reply) => reply.ok && reply.data.rooms.length === 3)")

        await until(answered, "the page to be in both rooms")
        await native.publish("chat:7", "said", {"text": "hello"})
        await until(lambda: run("logged.length"), "the page to be told")
        assert await run("logged") == [f"chat:7 {native.user} hello"]
        reply = await run("emit('room:join', { room: 'platform.x' })")
        assert reply["ok"] is False and reply["error"]["code"] == "forbidden", reply
    await native.close()


@case(own=True)
async def the_page_that_wants_to_go_on_goes_on_with_a_new_token(start):
    gateway = await start(RINGROOM_JWT__LEEWAY_S="0")
    native, room, user = await Client.open(gateway, fresh("native")), fresh("chat:on"), fresh("page")
    async with Browser.started() as browser:
        page = await browser.page(f"http://{gateway.host}:{gateway.port}/health")

        async def run(expression):
            return await browser.ask("evaluate", page=page.number, expression=expression)

        tokens = [token(user, exp=int(time.time()) + 10), "a bad one", token(user)]
        await browser.ask("script", page=page.number, content=snippet("js", "function listen"))
        await browser.ask("script", page=page.number, content=(
            f"const tokens = {json.dumps(tokens)}, said = [], replies = [];"
            f"const seen = listen([{json.dumps(room)}], {{ said: ({{ data }}) => said.push(data), "
            "'room:join': (reply) => replies.push(reply) }, async () => tokens.shift());"
        ))
        await until(lambda: run("replies.length"), "the page to be in the room")
        await native.publish(room, "said", 1)
        await until(lambda: run("said.length"), "the page to be told")

        async def gave_up():
            return await run("seen.source.readyState === EventSource.CLOSED")

        await until(gave_up, "the end of its token")
        for n in (2, 3):
            await native.publish(room, "said", n)
        # A bad token on the way, and some seconds' wait.
        await until(lambda: run("said.length === 3"), "the page to go on", 30)
        assert await run("said") == [1, 2, 3] and await run("tokens.length") == 0
        assert (await run("replies"))[-1]["data"]["resumed"]["replayed"] == 2
    await native.close()


@case(own=True)
async def the_snippet_for_node_does_what_the_page_says(start):
    gateway = await start(shards=2)
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "listen.mjs")
        with open(file, "w") as listen:
            listen.write(snippet("js", "TextDecoderStream"))
        where = {"RINGROOM_URL": f"http://{gateway.host}:{gateway.port}"}
        native = await Client.open(gateway, fresh("native"))
        await native.join("chat:7")
        user = fresh("node")
        async with Shell.running("node", file, token(user), **where) as node:
            push = await native.push("said")
            assert (push["from"], push["data"]) == (user, {"text": "hello"}), push
            text = "größe 🎉 " * 20_000
            await native.publish("chat:7", "said", {"text": text})

            def told():
                return [json.loads(line[5:]) for line in node.output.decode(errors="ignore").splitlines(True)
                        if line.startswith("said ") and line.endswith("\n")]

            await until(lambda: len(told()) == 2, "both to be printed")
            assert [push["data"]["text"] for push in told()] == ["hello", text]
        # What may not listen is told so, and ends.
        async with Shell.running("node", file, "not.a.token", **where) as node:
            assert await asyncio.wait_for(node.process.wait(), PATIENCE_S) == 1
            await until(lambda: b"unauthorized" in node.output, "the reason")
        await native.close()
