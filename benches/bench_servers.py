"""What the measuring scripts share: servers bound to one CPU, `wsload` bound to another, tokens, `/stats`.

Invariant: whatever is started here is ended here, by its process id, even when the caller fails.
"""
import base64, contextlib, hashlib, hmac, json, os, pathlib, random, re, signal, subprocess, tempfile, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECRET = "benchmark-secret-benchmark-secret-benchmark-secret"
START_S = 15
# What the peers' clients of Socket.IO say: `join` with a room, `pub` with a room and what to say in it as `msg`.
SOCKET_IO_ALIASES = """
[socketio]
compression = true

[[alias]]
event = "join"
request = "room:join"
arguments = "room"

[[alias]]
event = "pub"
request = "room:publish"
arguments = "room,data"
fields = "event = msg"
"""


def options(ap, wsload=True):
    """The options that every script has, but for the load generator where a script is one itself."""
    if wsload:
        ap.add_argument("--wsload", required=True, help="the load generator")
    ap.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/ringroom")
    ap.add_argument("--server-cpu", type=int, default=0)
    ap.add_argument("--load-cpu", type=int, default=1)
    ap.add_argument("--real-time", action="store_true",
                    help="servers and loads go before whatever else runs here: for a machine that is not quiet, and not for what "
                    "saturates a CPU (the kernel takes 5 %% of it away, and its own network thread may starve)")


def priority(a, level=1):
    """The words before a command that has to be prompt; `level` 2 goes before 1."""
    return ["chrt", "-r", str(level)] if a.real_time else []


def tokens(path, count, first=0):
    """One token a line, each of another user, numbered from `first`."""
    encode = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    head = encode(b'{"alg":"HS256","typ":"JWT"}')
    with open(path, "w") as out:
        for user in range(first, first + count):
            body = head + b"." + encode(json.dumps({"sub": f"u{user}", "exp": int(time.time()) + 86400}).encode())
            out.write((body + b"." + encode(hmac.new(SECRET.encode(), body, hashlib.sha256).digest())).decode() + "\n")


def end(process, patience_s=15):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Server:
    """One server process: `pid`, `url`, and for ringroom its operators' port."""

    def __init__(self, command, environment, is_ready, name):
        self.name = name
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, env=dict(os.environ, **environment))
        deadline = time.monotonic() + START_S
        while True:
            said = self.said()
            if is_ready(said):
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                end(self.process)
                raise SystemExit(f"{name} did not start: {said[-400:]}")
            time.sleep(0.05)

    @classmethod
    @contextlib.contextmanager
    def ringroom(cls, a, shards=1, profile="bench", config=None, **environment):
        command = [*priority(a), "taskset", "-c", str(a.server_cpu), str(a.binary), "serve", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0",
                   "--shards", str(shards), "--profile", profile, *(["--config", config] if config else [])]
        self = cls(command, {"RINGROOM_JWT_SECRET": SECRET, **environment}, lambda said: "ready " in said, "ringroom")
        try:
            ready = re.search(r"ready data=(\S+) ops=(\S+)", self.said())
            self.url, self.ops = f"ws://{ready[1]}", ready[2]
            yield self
        finally:
            end(self.process)

    @classmethod
    @contextlib.contextmanager
    def peer(cls, a, name):
        port = random.randrange(9300, 9900)
        command = [*priority(a), os.path.join(a.peers, "run"), name, str(port), str(a.server_cpu)]
        self = cls(command, {}, lambda said: "up" in said.split(), name)
        try:
            self.url = f"ws://127.0.0.1:{port}"
            yield self
        finally:
            end(self.process)

    @property
    def pid(self):
        return self.process.pid

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def stats(self):
        """The sum over all shards: `edge` and `core`."""
        with urllib.request.urlopen(f"http://{self.ops}/stats", timeout=10) as answer:
            return json.load(answer)["total"]

    def memory_kib(self):
        """Resident now, and at most so far."""
        with open(f"/proc/{self.pid}/status") as status:
            text = status.read()
        return tuple(int(re.search(rf"{name}:\s+(\d+)", text)[1]) for name in ("VmRSS", "VmHWM"))

    def cpu_ns(self):
        """The scheduler's run time of all threads."""
        tasks = f"/proc/{self.pid}/task"
        return sum(int(pathlib.Path(tasks, task, "schedstat").read_text().split()[0]) for task in os.listdir(tasks))


class Load:
    """One `wsload` under way. `result()` waits for what it prints."""

    def __init__(self, a, server, arguments, dialect, first=False, time_max_s=180):
        # `first`: before every other load of that CPU, so that it never waits behind a larger one.
        before = ["chrt", "-r", "2"] if first else priority(a)
        command = [*before, a.wsload, *arguments.split(), "--url", server.url, *dialect, "--pin", str(a.load_cpu),
                   "--server-cpu", str(a.server_cpu), "--server-pid", str(server.pid), "--label", server.name, "--json"]
        self.time_max_s = time_max_s
        self.arguments = arguments
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def running(self):
        return self.process.poll() is None

    def result(self):
        try:
            out, err = self.process.communicate(timeout=self.time_max_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise SystemExit(f"wsload {self.arguments}: not done after {self.time_max_s} s")
        lines = [line for line in out.splitlines() if line.startswith("{")]
        if not lines:
            raise SystemExit(f"wsload {self.arguments}: {err[-400:]}")
        return json.loads(lines[-1])


@contextlib.contextmanager
def load(a, server, arguments, dialect, **more):
    under_way = Load(a, server, arguments, dialect, **more)
    try:
        yield under_way
    finally:
        end(under_way.process)


def faults(row):
    """What a correct server never does, in words; empty when all is well."""
    names = ("loss", "duplicates", "out_of_order", "misrouted", "closed_by_server", "connect_errors", "upgrade_errors", "protocol_errors")
    return ", ".join(f"{name} {row[name]}" for name in names if row.get(name))
