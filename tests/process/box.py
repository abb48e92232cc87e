"""A machine in a box: a real systemd as the first process of namespaces of its own, with the unit files of this
repository, the binary at /usr/bin/ringroom and a user `ringroom`. What it writes goes to a memory file system
that ends with it; only the network is the machine's, so that clients reach it.

Needs root and a cgroup file system of version 2; `Box.why_not()` says what is missing.
"""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SYSTEMD = "/lib/systemd/systemd"
LOG = "/run/box/ringroom.log"
START_S, COMMAND_S = 30, 90
# What a minimal machine consists of: no target of the real one is reached, so nothing else is started.
TARGETS = ("basic", "sockets", "multi-user", "shutdown", "network", "network-online", "timers", "paths", "slices")

INNER = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/box/usr /run/box/usr.work /run/box/etc /run/box/etc.work
cp -r "$STAGE/units" /run/box/units
cp -r "$STAGE/etc/." /run/box/etc/
cp --preserve=mode "$BINARY" /run/box/usr/ringroom
cd /run
mount -t overlay overlay -o lowerdir=/usr/bin,upperdir=/run/box/usr,workdir=/run/box/usr.work /usr/bin
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/box/etc,workdir=/run/box/etc.work /etc
for folder in /tmp /var/tmp /var/lib; do mount -t tmpfs -o mode=1777 tmpfs $folder; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t proc proc /proc
# A machine in a box does not change settings of the one around it.
mount -o bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
touch /run/box/log
mount -o bind /run/box/log /dev/console
exec env -i container=box PATH=/usr/bin:/usr/sbin:/bin:/sbin SYSTEMD_UNIT_PATH=/run/box/units \
    %s --system --unit=box.target --log-target=console --log-level=info --show-status=0
"""


def cgroup():
    """The folder of this process in the version 2 hierarchy."""
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, how, *_ = line.split()
        if kind == "cgroup2" and "rw" in how.split(","):
            own = re.search(r"^0::(.*)$", pathlib.Path("/proc/self/cgroup").read_text(), re.MULTILINE)
            return pathlib.Path(place + own[1])
    return None


class Box:
    @staticmethod
    def why_not():
        """What is missing for a box, or None."""
        if os.geteuid() != 0:
            return "a box of its own needs root"
        if not os.path.exists(SYSTEMD):
            return f"{SYSTEMD} is not installed"
        folder = cgroup()
        if folder is None or not os.access(folder, os.W_OK):
            return "there is no cgroup file system of version 2 to write to"
        probe = "mount -t tmpfs tmpfs /run && mkdir /run/a /run/b && mount -t overlay o -o lowerdir=/etc,upperdir=/run/a,workdir=/run/b /etc"
        tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "sh", "-c", probe], capture_output=True, text=True)
        return None if tried.returncode == 0 else f"namespaces are refused: {tried.stderr.strip()}"

    def __init__(self, binary, configuration, environment="", drop_ins=(), units=()):
        """`drop_ins`: (unit, text) laid over the unit files; `units`: further unit files, by path."""
        self.stage = pathlib.Path(tempfile.mkdtemp(prefix="box-"))
        self.cgroup = cgroup() / f"box-{os.getpid()}-{id(self):x}"
        self.process = None
        self._write_units(drop_ins, units)
        self._write_etc(configuration, environment)
        try:
            self._boot(binary)
        except BaseException:
            self.end()
            raise

    def _write_units(self, drop_ins, units):
        folder = self.stage / "units"
        folder.mkdir()
        for target in TARGETS:
            shutil.copy(f"/lib/systemd/system/{target}.target", folder)
        (folder / "sysinit.target").write_text("[Unit]\nDefaultDependencies=no\n")
        (folder / "box.target").write_text("[Unit]\nRequires=basic.target\nAfter=basic.target\n")
        for unit in [ROOT / "systemd/ringroom.service", ROOT / "systemd/ringroom.socket", *units]:
            shutil.copy(unit, folder)
        # There is no journal in here.
        output = f"[Service]\nStandardOutput=append:{LOG}\nStandardError=append:{LOG}\n"
        for nth, (unit, text) in enumerate([("ringroom.service", output), *drop_ins]):
            (folder / f"{unit}.d").mkdir(exist_ok=True)
            (folder / f"{unit}.d" / f"{nth:02}.conf").write_text(text)

    def _write_etc(self, configuration, environment):
        folder = self.stage / "etc"
        (folder / "ringroom").mkdir(parents=True)
        for name, line in (("passwd", "ringroom:x:64123:64123::/var/lib/ringroom:/usr/sbin/nologin\n"), ("group", "ringroom:x:64123:\n")):
            (folder / name).write_text(pathlib.Path("/etc", name).read_text() + line)
        (folder / "ringroom/ringroom.toml").write_text(configuration)
        (folder / "ringroom/environment").write_text(environment)

    def _boot(self, binary):
        self.cgroup.mkdir()
        enter = 'echo $$ > "$CGROUP/cgroup.procs"; exec unshare --mount --pid --fork --cgroup --ipc --uts --kill-child sh -c "$INNER"'
        self.process = subprocess.Popen(
            ["sh", "-c", enter], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "CGROUP": str(self.cgroup), "INNER": INNER % SYSTEMD, "STAGE": str(self.stage), "BINARY": str(binary)},
        )
        deadline = time.monotonic() + START_S
        while not self._is_up():
            if self.process.poll() is not None:
                raise AssertionError(f"the box did not start: {self.process.stdout.read().decode()[-2000:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"the box is not up after {START_S} s: {self.read('/run/box/log')[-2000:]}")
            time.sleep(0.05)

    def _is_up(self):
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with contextlib.suppress(OSError, IndexError):
            self.first = int(children.read_text().split()[0])
            return self.systemctl("is-active", "box.target", check=False).stdout.strip() == "active"
        return False

    def run(self, *command, check=True):
        """A command inside, seen as the first process sees things."""
        command = ["nsenter", "-t", str(self.first), "--mount", "--pid", "--cgroup", "--ipc", "--uts", *command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command[7:])}: {done.stdout}{done.stderr}; {self.log()[-2000:]}")
        return done

    def systemctl(self, *words, check=True):
        return self.run("systemctl", "--no-pager", *words, check=check)

    def show(self, unit, *names):
        """Properties of a unit, as they are shown."""
        said = self.systemctl("show", unit, *[f"--property={name}" for name in names]).stdout
        found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        return tuple(found[name] for name in names)

    def main_pid(self):
        """Of the service, as this machine counts: 0 when there is none."""
        inside = int(self.show("ringroom.service", "MainPID")[0])
        if inside == 0:
            return 0
        for status in pathlib.Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                numbers = re.search(r"^NSpid:\s+(.*)$", status.read_text(), re.MULTILINE)[1].split()
                is_in_here = os.readlink(status.parent / "ns/pid") == os.readlink(f"/proc/{self.first}/ns/pid")
                if is_in_here and int(numbers[-1]) == inside:
                    return int(status.parent.name)
        return 0

    def read(self, path):
        done = self.run("cat", path, check=False)
        return done.stdout

    def log(self):
        return self.read(LOG)

    def end(self):
        if self.process is not None and self.process.poll() is None:
            # The end of the first process is the end of all in there.
            with contextlib.suppress(AttributeError, ProcessLookupError):
                os.kill(self.first, signal.SIGKILL)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process is not None:
            self.process.stdout.close()
        for _ in range(100):
            try:
                for folder, _, _ in os.walk(self.cgroup, topdown=False):
                    os.rmdir(folder)
                break
            except OSError:
                time.sleep(0.05)
        shutil.rmtree(self.stage, ignore_errors=True)
