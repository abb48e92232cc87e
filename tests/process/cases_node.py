"""The same conversation with Node's `ws`: a client that shares no code with ours or Python's."""

import asyncio
import json
import os

from support import PATIENCE_S, Client, case, fresh, token

HERE = os.path.dirname(os.path.abspath(__file__))


@case(both_ios=True)
async def node_and_python_see_the_same_room(gateway):
    for how in ("header", "subprotocol"):
        room, count = fresh("chat:node"), 50
        alice = await Client.open(gateway, fresh("user"))
        await alice.join(room)
        user = fresh("node")
        task = {"url": gateway.url, "token": token(user), "room": room, "count": count, "how": how}
        node = await asyncio.create_subprocess_exec(
            "node", os.path.join(HERE, "node_client.js"), json.dumps(task),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert (await asyncio.wait_for(node.stderr.readline(), PATIENCE_S)) == b"joined\n"
            await asyncio.gather(*[alice.publish(room, "from-python", {"n": n}) for n in range(count)])
            out, errors = await asyncio.wait_for(node.communicate(), PATIENCE_S)
        except BaseException:
            if node.returncode is None:
                node.kill()
            raise
        assert node.returncode == 0, errors
        seen = json.loads(out)
        assert (seen["user"], seen["protocol"], seen["close"]) == (user, "ringroom.v1.json", 1000), seen
        assert all(reply["ok"] for reply in seen["replies"].values()), seen["replies"]
        mine = []
        for _ in range(2 * count):
            mine.append(await alice._wait(
                lambda: next((alice.pushes.pop(at) for at, push in enumerate(alice.pushes) if push.get("room") == room and "seq" in push), None),
                "all messages of the room",
            ))
        keys = ("event", "room", "seq", "mid", "ts", "from", "data")
        assert [[push[key] for key in keys] for push in seen["pushes"]] == [[push[key] for key in keys] for push in mine]
        assert {push["from"] for push in mine} == {user, alice.user}
        await alice.close()
