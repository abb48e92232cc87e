"""`ringroom tune` on this machine and in a scratch root; completions in real shells."""

import asyncio
import json
import os
import pty
import shutil
import tempfile

from cases_commands import command
from support import PATIENCE_S, Gateway, case

NOBODY = 65534


class Root:
    """A folder that stands for the system."""

    def __enter__(self):
        self.path = tempfile.mkdtemp()
        self.put("/proc/sys/net/core/somaxconn", "128\n")
        self.put("/proc/sys/fs/nr_open", "20000\n")
        self.put("/proc/sys/net/ipv4/tcp_mem", "1024\t2048\t4096\n")
        self.put("/usr/lib/systemd/system/ringroom.service", "[Service]\nLimitNOFILE=4096\n")
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path)

    def put(self, path, text):
        path = self.path + path
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def get(self, path):
        with open(self.path + path) as file:
            return file.read()

    def all(self):
        found = {}
        for folder, _, names in os.walk(self.path):
            for name in names:
                path = os.path.join(folder, name)
                with open(path) as file:
                    found[path[len(self.path):]] = " ".join(file.read().split())
        return found

    async def tune(self, *words):
        return await command("tune", *words, "--root", self.path)


@case
async def tune_check_reads_this_machine_and_changes_nothing(gateway):
    status, out, errors = await command("tune", "check", "--connections", "1")
    assert status in (0, 1) and out.startswith("For 1 connections on "), (status, out, errors)
    assert "limits.nofile" not in out, "one connection fits anywhere"
    status, out, errors = await command("tune", "check", "--connections", "500000000", "--profile", "latency", "--json")
    report = json.loads(out)
    assert status == 1 and report["complete"] is False and report["profile"] == "latency", (status, errors)
    at = [bite["connections"] for bite in report["bites"]]
    assert at == sorted(at) and {"limits.conns_per_shard", "MemTotal"} <= {bite["name"] for bite in report["bites"]}, at
    assert all(bite["remedy"] and bite["why"] for bite in report["bites"]), report


@case
async def tune_check_needs_no_root(gateway):
    # The binary's folder may be root's alone.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        binary = shutil.copy(Gateway.binary, folder)
        unprivileged = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}

        async def run(*words):
            process = await asyncio.create_subprocess_exec(
                binary, "tune", *words, env={}, cwd="/", stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, **unprivileged,
            )
            out, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
            return process.returncode, out.decode(), errors.decode()

        status, out, errors = await run("check", "--connections", "20000")
        assert status in (0, 1) and out.startswith("For 20000 connections"), (status, out, errors)
        if os.geteuid() == 0 and "Wanted by the profile" in out:
            status, out, errors = await run("apply", "--yes", "--connections", "20000")
            assert status == 1 and "failed: " in out and "tune-undo.json" in out, (status, out, errors)


@case
async def tune_applies_what_it_showed_and_undo_brings_back_the_first_state(gateway):
    with Root() as root:
        before = root.all()
        status, out, errors = await root.tune("check", "--connections", "50000")
        assert status == 1 and "at 2944 connections: limits.nofile is 4096" in out, (status, out, errors)
        status, out, errors = await root.tune("apply", "--connections", "50000")
        assert status == 1 and "128 -> 4096" in out and "--yes" in errors and root.all() == before, (out, errors)
        for connections in ("50000", "100000"):
            status, out, errors = await root.tune("apply", "--yes", "--connections", connections)
            assert status == 0, (status, out, errors)
        assert root.get("/proc/sys/net/core/somaxconn") == "4096"
        assert "net.core.somaxconn = 4096" in root.get("/etc/sysctl.d/60-ringroom.conf")
        status, out, errors = await root.tune("check", "--connections", "100000")
        assert status == 0 and "Nothing is missing." in out, (status, out, errors)
        status, out, _ = await root.tune("apply", "--connections", "100000")
        assert status == 0 and "Nothing has to change" in out, out
        status, out, errors = await root.tune("undo")
        assert status == 0 and root.all() == before, (out, errors, root.all())
        status, out, _ = await root.tune("undo")
        assert status == 0 and "nothing to undo" in out, out
        root.put("/var/lib/ringroom/tune-undo.json", "garbage")
        status, out, errors = await root.tune("undo")
        assert status == 1 and "not a record" in errors and not out, (out, errors)


async def answered(root, answer):
    """`tune apply` at a terminal where somebody types `answer`."""
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            Gateway.binary, "tune", "apply", "--connections", "50000", "--root", root.path, env={},
            stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        os.write(ours, answer.encode())
        out, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        return process.returncode, out.decode(), errors.decode()
    finally:
        os.close(ours)
        os.close(theirs)


@case
async def tune_apply_asks_and_takes_no_for_an_answer(gateway):
    with Root() as root:
        before = root.all()
        for answer in ("n\n", "\n", "what\n"):
            status, out, errors = await answered(root, answer)
            assert status == 0 and "[y/N]" in out and "Nothing was changed." in out and root.all() == before, (out, errors)
        status, out, errors = await answered(root, "y\n")
        assert status == 0 and root.get("/proc/sys/net/core/somaxconn") == "4096", (out, errors)


@case
async def a_wrong_system_part_of_a_profile_is_told_with_its_line(gateway):
    with Root() as root:
        root.put("/mine.toml", "[limits]\nidle_ms = 5\n\n[system]\nnet.core.somaxcon = 5\n")
        for words in (["config", "check"], ["tune", "check"]):
            status, out, errors = await command(*words, "--profile", f"{root.path}/mine.toml")
            assert status == 78 and f"{root.path}/mine.toml:5: there is no key" in errors, (status, out, errors)
        root.put("/mine.toml", "[system]\nnet.core.somaxconn = 9000\n")
        status, out, errors = await root.tune("check", "--profile", f"{root.path}/mine.toml", "--connections", "1")
        assert status == 1 and "wanted at least 9000" in out, (out, errors)
        root.put("/ringroom.toml", "[system]\nnet.core.somaxconn = 9000\n")
        status, out, errors = await command("config", "check", f"{root.path}/ringroom.toml")
        assert status == 78 and "stands in profiles only" in errors, errors


async def shell(*words, **env):
    process = await asyncio.create_subprocess_exec(
        *words, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **env}, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    return process.returncode, out.decode()


@case
async def completions_load_and_complete_in_their_shells(gateway):
    with Root() as root:
        for name in ("bash", "zsh", "fish"):
            status, out, errors = await command("completions", name)
            assert status == 0 and not errors, errors
            root.put(f"/completions.{name}", out)
        file = f"{root.path}/completions"
        status, out = await shell("bash", "-n", f"{file}.bash")
        assert status == 0 and not out, out
        for typed, expected in (
            ("ringroom con", ["config"]),
            ("ringroom config s", ["show", "sample"]),
            ("ringroom tune check --con", ["--connections", "--config"]),
            ("ringroom tune check --profile lat", ["latency"]),
            ("ringroom --profile den", ["density"]),
            ("ringroom client --j", ["--join"]),
            ("ringroom completions f", ["fish"]),
            ("ringroom token --sub ", []),
        ):
            script = (
                f'source {file}.bash; COMP_WORDS=($1); [[ $1 == *" " ]] && COMP_WORDS+=(""); '
                'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _ringroom; printf "%s\\n" "${COMPREPLY[@]}"'
            )
            status, out = await shell("bash", "--norc", "-c", script, "bash", typed)
            assert status == 0 and sorted(out.split()) == sorted(expected), (typed, out)
        if shutil.which("zsh"):
            status, out = await shell("zsh", "-n", f"{file}.zsh")
            assert status == 0 and not out, out
            script = f"autoload -U compinit && compinit -u -D && source {file}.zsh && print ${{_comps[ringroom]}}"
            status, out = await shell("zsh", "-f", "-c", script)
            assert status == 0 and out.strip() == "_ringroom", out
        if shutil.which("fish"):
            status, out = await shell("fish", "--no-config", "-c", f'source {file}.fish; complete -C "ringroom con"', HOME=root.path)
            assert status == 0 and out.split()[0] == "config", out
            status, out = await shell("fish", "--no-config", "-c", f'source {file}.fish; complete -C "ringroom tune check --conn"', HOME=root.path)
            assert status == 0 and out.split()[0] == "--connections", out


@case
async def the_manual_page_is_free_of_mistakes(gateway):
    if not shutil.which("man"):
        return
    with Root() as root:
        status, page, _ = await command("man")
        root.put("/ringroom.1", page)
        status, out = await shell("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", f"{root.path}/ringroom.1", LC_ALL="C.UTF-8")
        assert status == 0 and "warning" not in out, out[:2000]
