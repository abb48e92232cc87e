"""As a service: what the manager is told, listeners that it holds, the drain, the unit files, and all of it under
a real systemd where one can be had."""

import asyncio
import contextlib
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from box import ROOT, Box
from support import PATIENCE_S, SECRET, Client, Gateway, Raw, case, fresh, handshake, token, until

# docs/service.md states it; less is better.
EXPOSURE_MAX = 1.2


class Manager:
    """What a service manager hears: the lines of each datagram."""

    def __init__(self, address=None):
        self.folder = tempfile.mkdtemp(prefix="manager-")
        self.address = address or os.path.join(self.folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(self.address.replace("@", "\0", 1))
        self.heard = []

    def hear(self):
        """All so far, one dictionary a datagram."""
        with contextlib.suppress(BlockingIOError):
            while True:
                lines = self.socket.recv(4096).decode().splitlines()
                self.heard.append(dict(line.split("=", 1) for line in lines))
        return self.heard

    def count(self, name):
        return sum(1 for said in self.hear() if said.get(name) == "1")

    async def until(self, condition, what):
        """Waits until something is heard for which `condition` is true, and gives it back."""
        return await until(lambda: next((said for said in self.hear() if condition(said)), None), what)

    def end(self):
        self.socket.close()
        shutil.rmtree(self.folder)


@case(own=True)
async def the_manager_is_told_of_start_reload_life_and_end(start):
    for address in (None, f"@ringroom-manager-{os.getpid()}"):
        manager = Manager(address)
        gateway = await start(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="4000000", RINGROOM_DRAIN__TIME_OUT_MS="7000")
        ready = await manager.until(lambda said: said.get("READY") == "1", "READY=1")
        assert gateway.url.split("/")[2] in ready["STATUS"], ready
        client = await Client.open(gateway, fresh("user"))
        await manager.until(lambda said: said.get("WATCHDOG") == "1", "WATCHDOG=1")
        before = manager.count("WATCHDOG")
        await until(lambda: manager.count("WATCHDOG") >= before + 2, "more signs of life")
        gateway.process.send_signal(signal.SIGHUP)
        reloading = await manager.until(lambda said: said.get("RELOADING") == "1", "RELOADING=1")
        assert 0 < int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000, reloading
        await until(lambda: manager.count("READY") == 2, "READY=1 after the reload")
        ending = asyncio.create_task(gateway.terminate())
        stopping = await manager.until(lambda said: said.get("STOPPING") == "1", "STOPPING=1")
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 7_000_000, stopping
        assert await client.until_closed(), "it is sent back"
        assert await ending == 0, gateway.tail()
        manager.end()


PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000


class Stopped:
    """One thread that stands still while its process runs on."""

    def __init__(self, process, name):
        self.libc = ctypes.CDLL(None, use_errno=True)
        tasks = pathlib.Path(f"/proc/{process}/task")
        self.thread = next(int(task.name) for task in tasks.iterdir() if (task / "comm").read_text().strip() == name)

    def _ask(self, request):
        arguments = [ctypes.c_long(argument) for argument in (request, self.thread, 0, 0)]
        return self.libc.ptrace(*arguments) == 0

    def begin(self):
        """False where tracing is not allowed."""
        if not self._ask(PTRACE_SEIZE):
            return False
        assert self._ask(PTRACE_INTERRUPT)
        os.waitpid(self.thread, WALL)
        return True

    def end(self):
        assert self._ask(PTRACE_DETACH)


@case(own=True)
async def a_shard_that_stands_still_is_named_and_the_watchdog_goes_hungry_until_it_goes_on(start):
    manager = Manager()
    gateway = await start(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="3200000")
    await until(lambda: manager.count("WATCHDOG") >= 2, "the watchdog to be fed")
    stopped = Stopped(gateway.process.pid, "shard-1")
    if not stopped.begin():
        print("note: tracing is not allowed here, so no shard can be stopped; only unit tests judge silence", flush=True)
        return
    await until(lambda: "shard 1 has done nothing for" in gateway.tail(), "the complaint")
    fed = manager.count("WATCHDOG")
    assert "shard 0 has" not in gateway.tail() and "the watchdog is not fed" in gateway.tail(), gateway.tail()
    # Far longer than between two meals; a machine that is slow only makes it longer.
    await asyncio.sleep(2.5)
    assert manager.count("WATCHDOG") == fed, "it was fed although a shard stands still"
    stopped.end()
    await until(lambda: "all shards go on" in gateway.tail(), "the all-clear")
    await until(lambda: manager.count("WATCHDOG") > fed, "the watchdog to be fed again")
    assert await gateway.terminate() == 0, gateway.tail()
    manager.end()


@case(own=True)
async def a_stopped_process_feeds_no_watchdog(start):
    manager = Manager()
    gateway = await start(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="1000000")
    await until(lambda: manager.count("WATCHDOG") >= 2, "the watchdog to be fed")
    gateway.process.send_signal(signal.SIGSTOP)
    state = pathlib.Path(f"/proc/{gateway.process.pid}/stat")
    await until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "the process to stop")
    fed = manager.count("WATCHDOG")
    await asyncio.sleep(1.5)
    assert manager.count("WATCHDOG") == fed
    gateway.process.send_signal(signal.SIGCONT)
    await until(lambda: manager.count("WATCHDOG") > fed, "the watchdog to be fed again")
    assert await gateway.terminate() == 0, gateway.tail()
    manager.end()


# Listeners that somebody else holds.


def listening(**options):
    """A socket as systemd opens one."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if options.get("reuse_port"):
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", options.get("port", 0)))
    held.listen(4096)
    return held


LAUNCHER = """
import os, sys
names, count = sys.argv[1], int(sys.argv[2])
for nth, fd in enumerate(sys.argv[3:3 + count]):
    os.dup2(int(fd), 3 + nth)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count), **{"LISTEN_FDNAMES": names} if names else {})
os.execv(sys.argv[3 + count], sys.argv[3 + count:])
"""


def handing(*held, names=""):
    """What goes before a command so that it is handed these sockets."""
    numbers = [one.fileno() for one in held]
    assert min(numbers) >= 3 + len(held), f"{numbers} are in the way of where they go"
    before = (sys.executable, "-c", LAUNCHER, names, str(len(held)), *map(str, numbers))
    return {"before": before, "pass_fds": tuple(numbers)}


@case(both_ios=True, own=True)
async def clients_that_connect_while_the_gateway_restarts_are_served(start):
    held, ops = listening(), listening()
    gateway = await start(**handing(held, ops, names="data:ops"))
    assert (gateway.host, gateway.port) == held.getsockname() and gateway.ops.endswith(f":{ops.getsockname()[1]}")
    client = await Client.open(gateway, fresh("before"))
    ending = asyncio.create_task(gateway.terminate())
    assert (await client.until_closed())[0] == 1012
    assert await ending == 0, gateway.tail()
    # Nobody serves now: the requests wait where the sockets are held.
    waiting = [await Raw.open(gateway) for _ in range(50)]
    for raw in waiting:
        raw.write(handshake(gateway, token(fresh("waiting"))))
    again = await start(**handing(held, ops, names="data:ops"))
    assert again.port == gateway.port
    for raw in waiting:
        assert (await raw.head()).startswith("HTTP/1.1 101 ")
    assert (await again.stats())["connections_now"] == 50
    for raw in waiting:
        raw.drop()
    assert await again.terminate() == 0, again.tail()
    held.close()
    ops.close()


@case(both_ios=True, own=True)
async def every_shard_takes_connections_from_what_was_handed_over(start):
    """However many sockets there are: one for all, one for each, more than shards."""
    for count in (1, 2, 3):
        held = [listening(reuse_port=True)]
        held += [listening(reuse_port=True, port=held[0].getsockname()[1]) for _ in range(count - 1)]
        gateway = await start(**handing(*held))
        clients = await asyncio.gather(*[Client.open(gateway, fresh("user")) for _ in range(60)])
        room = fresh("chat:handed")
        await asyncio.gather(*[client.join(room) for client in clients])
        await clients[0].publish(room, "chat", {"text": "hello"})
        for client in clients:
            await client.push("chat", room)
        taken = [shard["accepted"] for shard in (await gateway.stats())["shards"]]
        assert sum(taken) >= 60 and len(taken) == 2, taken
        assert count == 1 or all(taken), f"a socket of its own is nobody's: {taken}"
        ending = asyncio.create_task(gateway.terminate())
        for client in clients:
            await client.until_closed()
        assert await ending == 0, gateway.tail()
        for one in held:
            one.close()


@case(own=True)
async def what_is_handed_over_is_judged_like_any_configuration(start):
    everywhere = socket.socket()
    everywhere.bind(("0.0.0.0", 0))
    everywhere.listen()
    local = listening()
    unconnected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for held, names, environment, expected in (
        (everywhere, "data", {}, "LISTEN_FDS"),
        (local, "ringroom.socket", {"RINGROOM_JWT_SECRET": SECRET}, "FileDescriptorName"),
        (unconnected, "data", {"RINGROOM_JWT_SECRET": SECRET}, "ListenStream"),
    ):
        how = handing(held, names=names)
        process = await asyncio.create_subprocess_exec(
            *how["before"], Gateway.binary, "serve", "--ops", "127.0.0.1:0", pass_fds=how["pass_fds"],
            env={"PATH": os.environ["PATH"], **environment}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        _, complaint = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert process.returncode == 78 and expected in complaint.decode(), (names, process.returncode, complaint)
        held.close()


# The drain.


@case(both_ios=True, own=True)
async def who_is_not_yet_sent_back_is_served_during_a_drain(start):
    gateway = await start(RINGROOM_DRAIN__CONNS_PER_S="1", RINGROOM_DRAIN__TIME_OUT_MS="600000")
    room = fresh("chat:drain")
    clients = [await Client.open(gateway, fresh("user")) for _ in range(12)]
    for client in clients:
        await client.join(room)
    gateway.process.send_signal(signal.SIGTERM)
    await until(lambda: any(client.closed for client in clients), "the first to be sent back")
    with contextlib.suppress(OSError):
        await Raw.open(gateway)
        raise AssertionError("a new connection was taken")
    served = [client for client in clients if not client.closed][-4:]
    assert len(served) == 4, "all were sent back at once"
    await served[0].publish(room, "chat", {"text": "still here"})
    for client in served:
        assert (await client.push("chat", room))["data"] == {"text": "still here"}
    # Twice is at once.
    assert await gateway.terminate() == 1, gateway.tail()
    assert "leaving at once" in gateway.tail()


@case(own=True)
async def a_drain_ends_at_its_time_out_whatever_clients_do(start):
    gateway = await start(RINGROOM_DRAIN__TIME_OUT_MS="2000", RINGROOM_DRAIN__CONNS_PER_S="1")
    deaf = [await Raw.upgraded(gateway, token(fresh("deaf"))) for _ in range(20)]
    began = time.monotonic()
    assert await gateway.terminate() == 0, gateway.tail()
    # One a second, they would take twenty.
    assert time.monotonic() - began < 15
    assert "20 connections did not go in time" in gateway.tail(), gateway.tail()
    turns = []
    for raw in deaf:
        code, reason = await raw.closed()
        assert code == 1012, (code, reason)
        turns.append(json.loads(reason)["retry_ms"])
    assert max(turns) > 15_000, f"at one a second the last has to wait: {sorted(turns)}"


# The unit files.


def analyze(*words, **how):
    return subprocess.run(["systemd-analyze", "--no-pager", *words], capture_output=True, text=True, **how)


def has_systemd():
    if shutil.which("systemd-analyze"):
        return True
    print("note: systemd-analyze is not installed; the unit files are not looked at", flush=True)
    return False


@contextlib.contextmanager
def units(*drop_ins):
    """A folder with the units as installed, and their examples laid over them."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="units-"))
    try:
        for unit in (ROOT / "systemd").glob("ringroom.*"):
            # What is verified has to be there.
            (folder / unit.name).write_text(unit.read_text().replace("/usr/bin/ringroom", Gateway.binary))
        for drop_in in drop_ins:
            # The first line says where it goes.
            place = re.match(r"# /etc/systemd/system/(\S+)", drop_in.read_text())[1]
            (folder / place).parent.mkdir(exist_ok=True)
            shutil.copy(drop_in, folder / place)
        yield folder
    finally:
        shutil.rmtree(folder)


@case(own=True)
async def unit_files_and_every_example_are_in_order(start):
    if not has_systemd():
        return
    examples = sorted((ROOT / "systemd/examples").iterdir())
    assert len(examples) >= 6
    for drop_ins in ([], *[[example] for example in examples]):
        with units(*drop_ins) as folder:
            names = sorted(str(unit) for unit in folder.glob("*.s*") if unit.is_file())
            # Only this folder: what a machine has besides is not ours to complain of.
            done = analyze("verify", "--man=no", *names)
            ours = [line for line in done.stderr.splitlines() if "ringroom" in line or str(folder) in line]
            assert done.returncode == 0 and not ours, (drop_ins, done.stderr)


@case(own=True)
async def the_unit_is_exposed_no_more_than_the_manual_says(start):
    stated = re.search(r"exposure level of (\d+\.\d+)", (ROOT / "docs/service.md").read_text())
    assert stated and float(stated[1]) == EXPOSURE_MAX, "docs/service.md states the score"
    if not has_systemd():
        return
    with units() as folder:
        done = analyze("security", "--offline=yes", f"--threshold={EXPOSURE_MAX * 10:.0f}", str(folder / "ringroom.service"))
        assert done.returncode == 0, done.stdout[-3000:]
        level = float(re.search(r"exposure level for \S+: (\d+\.\d+)", done.stdout)[1])
        assert level <= EXPOSURE_MAX, done.stdout[-3000:]


@case(own=True)
async def the_time_to_stop_is_longer_than_a_drain(start):
    unit = (ROOT / "systemd/ringroom.service").read_text()
    time_out_ms = int(re.search(r"drain\.time_out_ms.*?default: `(\d+)", (ROOT / "docs/configuration.md").read_text(), re.DOTALL)[1])
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1]) * 1000 > time_out_ms + 5_000


@case(both_ios=True, own=True)
async def all_works_with_the_system_calls_of_the_unit_alone(start):
    if not has_systemd():
        return
    # The program has to be found by the user that it becomes.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="restricted-"))
    folder.chmod(0o755)
    shutil.copy(Gateway.binary, folder / "ringroom")
    try:
        gateway = await start(before=(sys.executable, str(ROOT / "tests/process/restricted.py")), binary=str(folder / "ringroom"))
        status = pathlib.Path(f"/proc/{gateway.process.pid}/status").read_text()
        assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE), status
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE), status
        await exercise(gateway)
        assert await gateway.terminate() == 0, gateway.tail()
        assert "refused" not in gateway.tail() and "not bound" not in gateway.tail(), gateway.tail()
        assert "limit on open files stays" not in gateway.tail() and "keeps the priority" not in gateway.tail(), gateway.tail()
    finally:
        shutil.rmtree(folder)


async def exercise(gateway):
    """A bit of everything that needs the system."""
    alice, bob = await Client.open(gateway, fresh("alice")), await Client.open(gateway, fresh("bob"))
    room = fresh("chat:restricted")
    await alice.join(room)
    await bob.join(room)
    await alice.publish(room, "chat", {"text": "x" * 100_000})
    assert len((await bob.push("chat", room))["data"]["text"]) == 100_000
    assert (await gateway.get("/health"))[0] == 200
    gateway.process.send_signal(signal.SIGHUP)
    await until(lambda: "reloaded" in gateway.tail(), "the reload")
    await alice.close()
    await bob.close()


# A real systemd.


class InBox:
    """A gateway that the systemd of a box runs, as much like `support.Gateway` as its clients need."""

    def __init__(self, box, port, ops):
        self.box, self.host, self.port, self.ops = box, "127.0.0.1", port, f"127.0.0.1:{ops}"
        self.url = f"ws://127.0.0.1:{port}/ws"

    stats, get = Gateway.stats, Gateway.get

    def tail(self):
        return self.box.log()[-2000:]


@contextlib.asynccontextmanager
async def boxed(io, drop_ins=(), configuration=""):
    """A box with a gateway that is not started yet; None where there can be none."""
    why_not = await asyncio.to_thread(Box.why_not)
    if why_not:
        print(f"note: not under a real systemd: {why_not}", flush=True)
        yield None
        return
    with listening() as data, listening() as ops:
        port, ops_port = data.getsockname()[1], ops.getsockname()[1]
    listen = f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n"
    text = f'[server]\nlisten = "127.0.0.1:{port}"\nops = "127.0.0.1:{ops_port}"\nshards = 2\nio = "{io}"\n{configuration}'
    environment = f'RINGROOM_JWT_SECRET="{SECRET}"\n'
    box = await asyncio.to_thread(Box, Gateway.binary, text, environment, [("ringroom.socket", listen), *drop_ins])
    try:
        yield InBox(box, port, ops_port)
    finally:
        await asyncio.to_thread(box.end)


@case(own=True)
async def the_unit_runs_hardened_under_a_real_systemd(start):
    async with boxed("io_uring", configuration='cpus = "0"\n[drain]\nconns_per_s = 1\ntime_out_ms = 3000\n') as gateway:
        if gateway is None:
            return
        box = gateway.box
        await asyncio.to_thread(box.systemctl, "start", "ringroom.service")
        # Type=notify: clients can connect when the start has returned.
        clients = [await Client.open(gateway, fresh("user")) for _ in range(10)]
        room = fresh("chat:boxed")
        await asyncio.gather(*[client.join(room) for client in clients])
        await clients[0].publish(room, "chat", {"text": "hello"})
        for client in clients:
            await client.push("chat", room)
        log = box.log()
        assert "io=io_uring" in log and "refused" not in log and "not bound" not in log, log
        pid = box.main_pid()
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        for expected in (r"Seccomp:\s+2", r"NoNewPrivs:\s+1", r"CapEff:\s+0+", r"CapBnd:\s+0+", r"Uid:\s+64123\s.*"):
            assert re.search(rf"^{expected}$", status, re.MULTILINE), (expected, status)
        threads = {task: (task / "comm").read_text().strip() for task in pathlib.Path(f"/proc/{pid}/task").iterdir()}
        shards = [task for task, name in threads.items() if name.startswith("shard-")]
        assert len(shards) == 2, threads
        for task in shards:
            assert re.search(r"^Cpus_allowed_list:\s+0$", (task / "status").read_text(), re.MULTILINE), "it is bound"
        await asyncio.to_thread(box.systemctl, "reload", "ringroom.service")
        await until(lambda: "reloaded" in box.log(), "the reload")
        await until(lambda: box.show("ringroom.service", "StatusText")[0].startswith("serving 10 "), "the status")
        stopping = asyncio.create_task(asyncio.to_thread(box.systemctl, "stop", "ringroom.service"))
        closes = [await client.until_closed() for client in clients]
        assert all(code == 1012 for code, _ in closes), closes
        await stopping
        result, code = box.show("ringroom.service", "Result", "ExecMainStatus")
        assert (result, code) == ("success", "0"), (result, code, box.log())


@case(own=True)
async def a_real_systemd_starts_a_gateway_that_hangs_anew(start):
    quick = "[Service]\nWatchdogSec=2\nTimeoutAbortSec=2\nRestartSec=0\n"
    async with boxed("io_uring", [("ringroom.service", quick)]) as gateway:
        if gateway is None:
            return
        box = gateway.box
        await asyncio.to_thread(box.systemctl, "start", "ringroom.service")
        first = box.main_pid()
        # Longer than the watchdog waits: who is fed lives.
        await asyncio.sleep(4)
        assert box.main_pid() == first and box.show("ringroom.service", "NRestarts")[0] == "0", box.log()
        os.kill(first, signal.SIGSTOP)
        await until(lambda: int(box.show("ringroom.service", "NRestarts")[0]) >= 1, "the restart", patience_s=40)

        async def serves():
            with contextlib.suppress(OSError, AssertionError):
                return (await gateway.get("/health"))[0] == 200

        await until(serves, "the next one to serve")
        assert box.main_pid() not in (0, first)
        client = await Client.open(gateway, fresh("user"))
        await client.close()


@case(own=True)
async def a_restart_under_a_real_systemd_loses_no_attempt_to_connect(start):
    async with boxed("io_uring", configuration="[drain]\nretry_ms = 0\n") as gateway:
        if gateway is None:
            return
        box = gateway.box
        await asyncio.to_thread(box.systemctl, "start", "ringroom.socket")
        # The first client starts the service.
        client = await Client.open(gateway, fresh("first"))
        first = box.main_pid()
        restarted = asyncio.create_task(asyncio.to_thread(box.systemctl, "restart", "ringroom.service"))
        assert (await client.until_closed())[0] == 1012
        answers = []
        while not restarted.done() or len(answers) < 20:
            raw = await Raw.open(gateway)
            raw.write(handshake(gateway, token(fresh("meanwhile"))))
            answers.append((await raw.head()).split("\r\n")[0])
            raw.drop()
        await restarted
        # One that the old process took in the moment of its end is told to come again.
        assert set(answers) <= {"HTTP/1.1 101 Switching Protocols", "HTTP/1.1 503 Service Unavailable"}, answers
        assert answers.count("HTTP/1.1 503 Service Unavailable") <= 1 and box.main_pid() not in (0, first), answers
