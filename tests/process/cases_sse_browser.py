"""A browser's own EventSource: headless Chromium, by itself and through nginx as `deploy/` sets it up."""

import asyncio
import json
import os
import signal
import time

from cases_browser import Browser
from cases_proxies import TRUSTED, Proxy, free_port
from sse_client import CLOSED as CLOSED_BY_SERVER, JOINED, users_at_home
from support import Client, case, fresh, token, until

NAMES = ["connected", JOINED, "said", CLOSED_BY_SERVER]
# Of `EventSource.readyState`.
OPEN, CLOSED = 1, 2
EVENTS, ROOMS = 10_000, 8
# Said while nobody is connected, to each room.
MEANWHILE = 150


class Listener:
    """One page with one event source: what it was told, sorted."""

    def __init__(self, page, user):
        self.page, self.user = page, user
        self.told, self.said, self.replies, self.conns, self.ends = 0, [], [], [], []

    @classmethod
    async def on(cls, page, user, url, names=NAMES, **how):
        self = cls(page, user)
        await page.browser.ask("listen", page=page.number, url=url, names=names, **how)
        return self

    async def look(self):
        """How it is now, and everything new sorted."""
        state = await self.page.browser.ask("streamed", page=self.page.number, **{"from": self.told})
        self.told += len(state["events"])
        for name, data, *_ in state.pop("events"):
            message = json.loads(data)
            if name == "said":
                self.said.append((message["room"], message["seq"], message["data"]["n"]))
            elif name == JOINED:
                self.replies.append(message)
            elif name == "connected":
                self.conns.append(message["data"]["conn"])
            else:
                assert name == CLOSED_BY_SERVER, f"{name}: {data}"
                self.ends.append(message["code"])
        return state

    async def until(self, condition, what):
        async def look():
            state = await self.look()
            return condition(state)

        await until(look, f"{self.user}'s page: {what}", 60)

    async def emit(self, url, event, data, jwt=None):
        body = json.dumps({"conn": self.conns[-1], "id": 1, "event": event, "data": data})
        jwt = jwt or token(self.user)
        return await self.page.browser.ask("emit", page=self.page.number, url=url, token=jwt, body=body)

    async def close(self):
        await self.page.browser.ask("unlisten", page=self.page.number)


def workers(proxy):
    """The processes of nginx that have the connections."""
    with open(os.path.join(os.path.dirname(proxy.config), "pid")) as file:
        master = int(file.read())
    with open(f"/proc/{master}/task/{master}/children") as file:
        return master, {int(pid) for pid in file.read().split()}


async def a_worker_dies(proxy):
    _, had = workers(proxy)
    for pid in had:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: len(workers(proxy)[1] - had) >= len(had), "new workers")


async def nginx_is_reloaded(proxy):
    """Workers of the old configuration keep their streams until they are ended, as `worker_shutdown_timeout` does."""
    master, had = workers(proxy)
    os.kill(master, signal.SIGHUP)
    await until(lambda: len(workers(proxy)[1] - had) >= len(had), "new workers")
    for pid in workers(proxy)[1] & had:
        os.kill(pid, signal.SIGTERM)
    await until(lambda: not workers(proxy)[1] & had, "the end of the old workers")


@case(own=True, both_ios=True)
async def an_event_source_behind_nginx_cut_twice_is_told_ten_thousand_events_once_and_in_order(start):
    gateway = await start(shards=2, **TRUSTED)
    users = await users_at_home(gateway)
    rooms = [fresh("chat:source") for _ in range(ROOMS)]
    native = await Client.open(gateway, fresh("native"))
    async with Proxy.before(gateway, "nginx") as proxy, Browser.started() as browser:
        listeners = []
        for user in users:
            page = await browser.page(f"http://{proxy.host}:{proxy.port}/health")
            listeners.append(await Listener.on(page, user, f"/sse?rooms={','.join(rooms)}&token={token(user)}"))
        for listener in listeners:
            await listener.until(lambda _: len(listener.replies) == ROOMS, "in all rooms")
        shards = [shard["connections_now"] for shard in (await gateway.stats())["shards"]]
        assert all(shards), f"not on both shards: {shards}"
        number = 0

        async def publish(count):
            """To all rooms at once, so many each, and no faster than pages read."""
            nonlocal number
            for _ in range(count):
                await asyncio.gather(*[native.publish(room, "said", {"n": number}) for room in rooms])
                number += 1

        async def all_heard(numbers):
            for listener in listeners:
                await listener.until(lambda _: len(listener.said) >= numbers * ROOMS, f"{numbers} of each room")

        each = EVENTS // ROOMS
        began = time.monotonic()
        for cut, part in ((a_worker_dies, each // 3), (nginx_is_reloaded, each - each // 3), (None, each)):
            opens = [(await listener.look())["opens"] for listener in listeners]
            while number < part - MEANWHILE:
                await publish(min(100, part - MEANWHILE - number))
                if number < part - MEANWHILE:
                    await all_heard(number - 100)
            if cut:
                # In the middle of it.
                await asyncio.gather(cut(proxy), publish(MEANWHILE))
                for listener, had in zip(listeners, opens):
                    await listener.until(lambda state: state["opens"] > had, "back")
            else:
                await publish(part - number)
        await all_heard(each)
        for listener in listeners:
            # Whatever was doubled would come as well.
            await listener.emit("/emit", "ping", {})
            state = await listener.look()
            assert (state["opens"], state["errors"], state["readyState"]) == (3, 2, OPEN), state
            assert len(listener.conns) == 3 and len(listener.replies) == 3 * ROOMS, listener.conns
            for reply in listener.replies[ROOMS:]:
                assert reply["ok"] and reply["data"]["resumed"]["recovered"] is True, reply
                assert reply["data"]["resumed"]["gap"] is False, reply
            replayed = sum(reply["data"]["resumed"]["replayed"] for reply in listener.replies[ROOMS:])
            for room in rooms:
                heard = [(seq, n) for of, seq, n in listener.said if of == room]
                assert heard == [(n + 1, n) for n in range(each)], f"{room}: lost, doubled or out of order"
            assert len(listener.said) == EVENTS and not listener.ends
            print(
                f"     {listener.user}: {len(listener.said)} events, {replayed} of them replayed after 2 cuts, "
                f"in {time.monotonic() - began:.1f} s", flush=True,
            )
        await native.close()


@case(own=True, both_ios=True)
async def an_event_source_comes_back_to_a_gateway_that_was_restarted(start):
    where = ("--listen", f"127.0.0.1:{free_port()}")
    gateway = await start(*where, RINGROOM_DRAIN__RETRY_MS="300")
    room, user = fresh("chat:restart"), fresh("page")
    async with Browser.started() as browser:
        page = await browser.page(f"http://{gateway.host}:{gateway.port}/health")
        listener = await Listener.on(page, user, f"/sse?rooms={room}&token={token(user)}")
        await listener.until(lambda _: listener.replies, "in the room")
        assert await gateway.terminate() == 0, gateway.tail()
        await listener.until(lambda state: listener.ends == [1012] and state["errors"], "told of the end")
        gateway = await start(*where)
        await listener.until(lambda state: state["opens"] == 2 and len(listener.replies) == 2, "back")
        # Rooms have begun anew, and that is said.
        assert listener.replies[1]["data"]["resumed"]["gap"] is True, listener.replies
        assert len(set(listener.conns)) == 2, listener.conns
        answer = await listener.emit("/emit", "room:publish", {"room": room, "event": "said", "data": {"n": 1}})
        assert answer["status"] == 200, answer
        await listener.until(lambda _: listener.said == [(room, 1, 1)], "told")
        await listener.close()


@case(own=True)
async def a_page_of_a_listed_origin_listens_and_emits(start):
    gateway = await start()
    async with Browser.started() as browser:
        # The same machine and another port is another origin.
        page = await browser.page(f"http://{gateway.ops}/health")
        lenient = await start(RINGROOM_NETWORK__ORIGINS=page.origin)
        base, user, room = f"http://{lenient.host}:{lenient.port}", fresh("page"), fresh("chat:page")
        listener = await Listener.on(page, user, f"{base}/sse?rooms={room}&token={token(user)}")
        await listener.until(lambda _: listener.replies, "in the room")
        said = {"room": room, "event": "said", "data": {"n": "größe"}}
        answer = await listener.emit(f"{base}/emit", "room:publish", said)
        assert answer["status"] == 200 and answer["reply"]["ok"] is True, answer
        await listener.until(lambda _: listener.said, "told")
        assert listener.said == [(room, 1, "größe")], listener.said
        # What is refused, the page can read.
        answer = await listener.emit(f"{base}/emit", "room:join", {"room": "platform.x"})
        assert (answer["status"], answer["reply"]["error"]["code"]) == (403, "forbidden"), answer
        answer = await listener.emit(f"{base}/emit", "ping", {}, jwt=token("somebody-else"))
        assert (answer["status"], answer["reply"]["error"]["code"]) == (403, "forbidden"), answer
        await listener.close()


@case(own=True)
async def an_event_source_gives_up_where_it_may_not_listen(start):
    gateway = await start()
    async with Browser.started() as browser:
        for url in (f"/sse?token={token('x', secret='another secret of at least 32 bytes, no?')}", "/sse"):
            page = await browser.page(f"http://{gateway.host}:{gateway.port}/health")
            listener = await Listener.on(page, "nobody", url)
            await listener.until(lambda state: state["readyState"] == CLOSED, "to give up")
            assert (await listener.look())["opens"] == 0
