"""Configuration: files, profiles, `config check` and `config show`, and a reload under live clients."""

import os
import re
import signal
import tempfile

from cases_commands import command
from support import SECRET, Client, case, fresh, token, until

OTHER_SECRET = "another secret of at least 32 bytes, for the reload only"


class File:
    """A file of one test, written anew as often as the test likes."""

    def __init__(self, text):
        handle, self.path = tempfile.mkstemp(suffix=".toml")
        os.close(handle)
        self.write(text)

    def write(self, text):
        with open(self.path, "w") as file:
            file.write(text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.unlink(self.path)


def log_of(gateway):
    with open(gateway.log_path) as log:
        return log.read()


async def reloaded(gateway, *words):
    """SIGHUP, and the part of the log that it wrote, once all words are there."""
    before = len(log_of(gateway))
    gateway.process.send_signal(signal.SIGHUP)
    await until(lambda: all(word in log_of(gateway)[before:] for word in words), f"{words} in the log")
    return log_of(gateway)[before:]


@case
async def a_check_names_every_error_with_its_line(gateway):
    with File("[limits]\nidel_ms = 5\nheartbeat_ms = 0\n[log]\nlevel = loud\n") as file:
        status, out, errors = await command("config", "check", file.path)
        assert status == 78 and not out, (status, out)
        lines = errors.splitlines()
        assert lines[0] == "ringroom: the configuration has 3 errors:", lines
        for line, (place, word) in zip(lines[1:], (("2:1", "limits.idle_ms?"), ("3:1", "from 1 to"), ("5:", "not TOML")), strict=True):
            assert line.strip().startswith(f"{file.path}:{place}") and word in line, line
        file.write("[limits]\nidle_ms = 5\n")
        status, out, errors = await command("config", "check", file.path)
        assert status == 0 and file.path in out and not errors, (status, out, errors)
    status, _, errors = await command("config", "check", file.path)
    assert status == 78 and "cannot be read" in errors, (status, errors)


@case
async def what_is_shown_can_be_read_again_and_holds_no_secret(gateway):
    with File("[server]\nprofile = 'density'\n[limits]\nidle_ms = 'never'\n") as file:
        status, shown, errors = await command("config", "show", file.path, "--shards", "2")
        assert status == 0 and not errors, errors
        assert SECRET not in shown
        for line in (
            f'idle_ms = "never"  # {file.path}:4:1', "shards = 2  # --shards", "heartbeat_ms = 50000  # profile density",
            "# secret is hidden  # RINGROOM_JWT_SECRET", 'level = "info"  # default',
        ):
            assert line in shown.splitlines(), (line, shown)
        without_sources = [line.split("  # ")[0] for line in shown.splitlines()]
        file.write(shown)
        status, again, errors = await command("config", "show", file.path)
        assert status == 0, errors
        assert [line.split("  # ")[0] for line in again.splitlines()] == without_sources


@case(own=True)
async def every_profile_serves(start):
    for profile in ("default", "latency", "throughput", "density", "bench"):
        gateway = await start("--profile", profile)
        client = await Client.open(gateway, "ada")
        await client.join("lobby")
        sent = await client.publish("lobby", "chat", {"text": profile})
        assert (await client.push("chat", "lobby"))["seq"] == sent["seq"]
        await client.close()
        assert await gateway.terminate() == 0


async def refused(gateway, jwt):
    """The reason for which a token opens nothing."""
    client = await Client.open(gateway, "eve", jwt=jwt, ready=False)
    code, reason = await client.until_closed()
    assert code == 4401, (code, reason)
    return reason


def with_secret(secret, rest=""):
    return f"[jwt]\nsecret = '{secret}'\n{rest}"


@case(own=True, both_ios=True)
async def a_reload_changes_what_it_can_under_live_clients(start):
    with File(with_secret(SECRET)) as file:
        gateway = await start("--config", file.path, RINGROOM_JWT_SECRET=None)
        room = fresh("lobby")
        ada = await Client.open(gateway, "ada")
        await ada.join(room)
        assert ada.connected["heartbeat_ms"] == 25_000, ada.connected

        file.write(with_secret(OTHER_SECRET, "[limits]\nheartbeat_ms = 200\nlane_entries = 64\n"))
        log = await reloaded(gateway, "reloaded: jwt.secret, limits.heartbeat_ms")
        assert "need a restart: limits.lane_entries" in log, log

        # Each shard hears of it by itself.
        async def let_in():
            bob = await Client.open(gateway, "bob", jwt=token("bob", secret=OTHER_SECRET), ready=False)
            pushed = await until(lambda: bob.closed or bob.waiting("connected"), "an answer")
            await bob.close()
            return pushed[0] if isinstance(pushed, list) else None

        await until(let_in, "the new secret to count")
        bob = await Client.open(gateway, "bob", jwt=token("bob", secret=OTHER_SECRET))
        assert bob.connected["heartbeat_ms"] == 200, bob.connected
        await bob.several("heartbeat", 2)
        await refused(gateway, token("eve"))
        await bob.join(room)
        await ada.publish(room, "chat", {"text": "still here"})
        assert (await bob.push("chat", room))["from"] == "ada"

        file.write(with_secret(SECRET, "[limits]\nheartbeat_ms = 0\nheartbeats = 5\n"))
        log = await reloaded(gateway, "not reloaded, for the errors above")
        assert f"{file.path}:4:1: limits.heartbeat_ms is 0" in log and f"{file.path}:5:1: there is no key" in log, log
        await refused(gateway, token("eve"))
        await bob.publish(room, "chat", {"text": "here too"})
        await ada.push("chat", room, where=lambda push: push["from"] == "bob")

        os.unlink(file.path)
        await reloaded(gateway, "not reloaded", "cannot be read")
        file.write(with_secret(OTHER_SECRET, "[limits]\nheartbeat_ms = 200\n[log]\nlevel = 'error'\n"))
        await reloaded(gateway, "reloaded: log.level")
        file.write(with_secret(OTHER_SECRET, "[limits]\nheartbeat_ms = 200\n"))
        await reloaded(gateway, "reloaded: log.level")
        await reloaded(gateway, "reloaded: nothing has changed")

        assert ada.closed is None and bob.closed is None
        log = log_of(gateway)
        assert SECRET not in log and OTHER_SECRET not in log
        await ada.close()
        await bob.close()
        assert await gateway.terminate() == 0


@case(own=True, both_ios=True)
async def policies_of_a_file_count_and_change_under_live_clients(start):
    rules = """
[[policy]]
name = "plans"
rooms = "plans:*"
publish = "role:editor, claim:plan=pro"
"""
    with File(rules) as file:
        gateway = await start("--config", file.path)
        ada, bob = await Client.open(gateway, "ada"), await Client.open(gateway, "bob", plan="pro")
        await ada.join("plans:1")
        said = {"room": "plans:1", "event": "chat", "data": 1}
        error = await ada.refused("room:publish", said)
        assert error["code"] == "forbidden" and "`plans`" in error["message"], error
        assert (await ada.ok("room:info", {"room": "plans:1"}))["policy"] == "plans"
        await bob.publish("plans:1", "chat", {"n": 1})
        await ada.push("chat", "plans:1")

        file.write(rules.replace("plan=pro", "tier=gold").replace("plans:*", "**") + "join = 'nobody'\n")
        await reloaded(gateway, "reloaded: policy")

        # Each shard hears of it by itself, and of the claims to look for a little later.
        async def shut():
            return (await bob.request("room:publish", said))["ok"] is False

        async def knows_gold():
            cid = await Client.open(gateway, "cid", tier="gold")
            answer = await cid.request("room:publish", said)
            await cid.close()
            return answer["ok"]

        await until(shut, "the new policy to count")
        await until(knows_gold, "the new claim to count")
        await ada.push("chat", "plans:1", where=lambda push: push["from"] == "cid")

        file.write("[[policy]]\nrooms = '**'\njoin = 'ask'\n")
        log = await reloaded(gateway, "not reloaded, for the errors above")
        assert f"{file.path}:3:1: policy.join says ask" in log, log
        assert await shut()
        await ada.close()
        await bob.close()
        assert await gateway.terminate() == 0


@case(own=True)
async def a_secret_made_up_at_the_start_outlives_a_reload(start):
    with File("") as file:
        gateway = await start("--config", file.path, RINGROOM_JWT_SECRET=None)
        # What the welcome prints.
        found = await until(lambda: re.search(r"--token (\S+)", log_of(gateway)), "a token in the welcome")
        file.write("[limits]\nidle_ms = 100000\n")
        await reloaded(gateway, "reloaded: limits.idle_ms")
        alice = await Client.open(gateway, "alice", jwt=found[1])
        await alice.close()
