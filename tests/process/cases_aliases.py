"""Clients of Socket.IO with names of their own for what they ask and are told: what `docs/socketio.md` shows, as it
stands there, and the same rooms for those who use ringroom's own names."""

import os

from cases_config import File
from cases_socketio_gateway import Person
from engine_client import TRANSPORTS
from support import Client, case, fresh

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "socketio.md")


def shown():
    """The configuration of the page."""
    with open(PAGE) as page:
        blocks = [rest.split("```")[0] for rest in page.read().split("```toml\n")[1:]]
    assert len(blocks) == 2 and "[[alias]]" in blocks[0], blocks
    return "".join(blocks)


@case(both_ios=True, own=True)
async def clients_keep_names_of_their_own(start):
    with File(shown()) as file:
        gateway = await start("--config", file.path)
        for transport in TRANSPORTS:
            # A namespace of the page's other example.
            ada = await Person.open(gateway, fresh("ada"), transport, namespaces=["/chat"])
            native = await Client.open(gateway, fresh("native"))
            chat = fresh("7")
            here = {"namespace": "/chat"}

            # Bare, as a field, and by the request's own name: the same room, told of as they call it.
            for written in (chat, {"chatId": chat}, {"room": f"chat:{chat}"}):
                reply = await ada.request("join:chat", written, **here)
                assert reply["ok"] and reply["data"]["chatId"] == chat and "room" not in reply["data"], reply
                told, _ = await ada.push("chat:joined", **here)
                assert told == reply["data"], (told, reply)
            # Nothing is acknowledged, and they hear all the same.
            await ada.emit("join:chat", chat, **here)
            assert (await ada.push("chat:joined", **here))[0]["chatId"] == chat

            await native.join(f"chat:{chat}")
            told, meta = await ada.push("chat:member-joined", **here)
            assert told == {"user": native.user, "chatId": chat} and meta["room"] == f"chat:{chat}", (told, meta)

            # Rooms by pattern and position; binary stays what it is.
            reply = await ada.request("subscribe", "w1", "z3", **here)
            assert reply["data"] == {"joined": ["warehouse:w1", "zone:w1:z3"], "failed": []}, reply
            reply = await ada.request("subscribe", "w2", **here)
            assert reply["data"]["joined"] == ["warehouse:w2"], "what is not said is not joined"
            reply = await ada.request("chat:join-multiple", {"chatIds": [8, "9"]}, **here)
            assert reply["data"]["joined"] == ["chat:8", "chat:9"], reply
            sent = {"text": "größe", "bytes": b"\0\1\2"}
            reply = await ada.request("send_message", {"event": "said", "rooms": [f"chat:{chat}"], "payload": sent}, **here)
            assert reply["ok"], reply
            heard, meta = await ada.push("said", f"chat:{chat}", **here)
            assert heard == sent and meta["from"] == ada.user, (heard, meta)
            push = await native.push("said", f"chat:{chat}")
            assert push["data"] == {"text": "größe", "bytes": {"$bin": "AAEC"}}, push

            # Refusals speak of what they wrote.
            reply = await ada.request("join:chat", {"chatId": {}}, **here)
            assert reply["error"]["code"] == "bad_request" and "`chatId`" in reply["error"]["message"], reply
            # Those who never heard of it keep the names that there are.
            await ada.ok("room:leave", {"room": f"chat:{chat}"}, **here)
            left = await native.push("room:member-left", f"chat:{chat}")
            assert left["data"]["user"] == ada.user, left
            ada.drop()
            await native.close()
