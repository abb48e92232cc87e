"""The command line, against a running gateway."""

import asyncio

from support import PATIENCE_S, SECRET, Client, Gateway, case, fresh, token, until


async def command(*arguments, stdin=None, secret=SECRET):
    """Exit status, standard output and standard error."""
    env = {"RINGROOM_JWT_SECRET": secret} if secret else {}
    process = await asyncio.create_subprocess_exec(
        Gateway.binary, *arguments, env=env, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, errors = await asyncio.wait_for(process.communicate((stdin or "").encode()), PATIENCE_S)
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise
    return process.returncode, out.decode(), errors.decode()


@case
async def the_program_explains_itself(gateway):
    for arguments in (["--help"], ["serve", "--help"], ["token", "-h"], ["help", "client"], ["health", "--help"]):
        status, out, errors = await command(*arguments)
        assert status == 0 and "Usage: ringroom" in out and not errors, (arguments, out, errors)
    status, out, _ = await command("--version")
    assert status == 0 and out.startswith("ringroom 0."), out
    for arguments in (["frobnicate"], ["serve", "--frobnicate"], ["token"], ["--shards", "none"]):
        status, out, errors = await command(*arguments)
        assert status == 2 and not out and "--help" in errors or "--sub" in errors or "number" in errors, (arguments, errors)


@case
async def a_token_of_the_command_line_opens_a_connection(gateway):
    status, out, errors = await command("token", "--sub", "ada", "--tenant", "acme", "--role", "admin", "--name", "Ada")
    assert status == 0, errors
    client = await Client.open(gateway, "ada", jwt=out.strip())
    told = client.connected
    assert (told["user"], told["tenant"], told["name"]) == ("ada", "acme", "Ada"), told
    await client.join("performance.dashboard")
    await client.close()
    status, out, errors = await command("token", "--sub", "ada", secret=None)
    assert status == 78 and not out and "RINGROOM_JWT_SECRET" in errors, errors


@case
async def health_tells_by_its_exit_status(gateway):
    status, out, errors = await command("health", "--ops", gateway.ops)
    assert status == 0, (out, errors)
    status, out, errors = await command("health", "--ops", "127.0.0.1:1")
    assert status == 1 and "127.0.0.1:1" in errors, (out, errors)


@case(both_ios=True)
async def two_terminals_talk_through_pipes(gateway):
    room = fresh("chat:terminal")
    alice = await Client.open(gateway, "alice-terminal")
    await alice.join(room)
    listening = asyncio.create_task(
        command("client", "--url", gateway.url, "--token", token("carol"), "--join", room, "--exit-after", "3")
    )

    async def carol_in():
        return (await alice.ok("room:online", {"room": room}))["total"] == 2

    await until(carol_in, "the listening terminal to join")
    lines = f"/join {room}\nhello from a pipe\n\x1b[31mred\n/ping\n/rooms\n/online\n/history\n/nonsense\n/leave\n"
    status, out, errors = await command("client", "--url", gateway.url, "--token", token("bob"), stdin=lines)
    assert status == 0, (out, errors)
    for expected in (f"joined {room}", "yours came back in", "ping ", " ms", room, f"left {room}", "commands are"):
        assert expected in out, (expected, out)
    assert "\x1b" not in out, "a message steered the terminal"
    first = await alice.push("chat", room)
    assert first["from"] == "bob" and first["data"] == {"text": "hello from a pipe"}, first
    await alice.publish(room, "chat", {"text": "to carol"})
    status, out, errors = await listening
    assert status == 0, (out, errors)
    assert "bob: hello from a pipe" in out and "alice-terminal: to carol" in out and "\x1b" not in out, out
    await alice.close()


@case
async def the_client_says_why_it_was_not_let_in(gateway):
    status, _, errors = await command("client", "--url", gateway.url, "--token", "not.a.token")
    assert status == 1 and "4401" in errors, errors
    status, _, errors = await command("client", "--url", "ws://127.0.0.1:1/ws", "--token", "x")
    assert status == 1 and "is the gateway running" in errors, errors
    status, _, errors = await command("client", "--url", gateway.url)
    assert status == 2 and "ringroom token" in errors, errors
