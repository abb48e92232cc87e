#!/usr/bin/env python3
"""Clients that send, each to a room of its own where nobody listens: what is left is what receiving costs.

    benches/senders.py --to HOST:PORT --tokens FILE --conns 1000 --rate 5 [--compressed]

Opens the connections and prints a line of JSON; a line on standard input then lets each send once, the next
lets them go on, and the third ends it. The last line of JSON says what was sent, and what was heard though nothing should be. Frames are made
beforehand, so that one thread can send some ten thousand a second. `benches/scenarios senders` runs it.
"""
import argparse, collections, contextlib, json, random, resource, select, statistics, subprocess, sys, tempfile, time
from bench_servers import ROOT, end, priority, tokens
from raw_client import COMPRESSED, FINAL, TEXT, Peer, deflated, masked

# Frames that each connection goes through.
FRAMES = 8


def messages(room, size, seed):
    """Publishes of about `size` bytes: words by their rank, one in eight rare, as benches/deflate makes them."""
    chance = random.Random(seed)
    letter = lambda letters: chance.choice(letters)
    word = lambda: "".join(letter("bcdfghklmnprstvw") + letter("aeiou") + letter("lnrst ").strip() for _ in range(chance.randint(1, 3)))
    words = [word() for _ in range(260)]
    for _ in range(FRAMES):
        data = {"id": f"{chance.getrandbits(32):08x}", "type": "text", "text": "", "reply_to": None, "mentions": []}
        publish = {"event": "room:publish", "data": {"room": room, "event": "chat", "data": data}}
        left = size - len(json.dumps(publish, separators=(",", ":")))
        text = ""
        while len(text) < left:
            text += (word() if chance.random() < 0.125 else words[chance.randrange(260) * chance.randrange(260) // 260]) + " "
        data["text"] = text[:left]
        yield json.dumps(publish, separators=(",", ":")).encode()


class Senders:
    def __init__(self, a):
        self.a, self.heard, self.closed = a, collections.Counter(), 0
        with open(a.tokens) as file:
            users = file.read().split()[:a.conns]
        self.peers, self.frames, self.plain_bytes, self.wire_bytes = [], [], 0, 0
        for nth, user in enumerate(users):
            frames = []
            for message in messages(f"senders:{nth}", a.bytes, nth):
                payload, first = (deflated(message), FINAL | COMPRESSED | TEXT) if a.compressed else (message, FINAL | TEXT)
                frames.append(masked(first, payload, random.Random(nth).randbytes(4)))
                self.plain_bytes += len(message)
                self.wire_bytes += len(frames[-1])
            self.frames.append(frames)
        for user in users:
            self.peers.append(Peer(a.to, user, deflate=a.compressed))
            self.peers[-1].socket.setblocking(False)

    def listen(self):
        """Takes what came: nothing should, but for heartbeats."""
        for peer in self.peers:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                said = peer.socket.recv(1 << 16)
                self.closed += not said
                # Kinds of what is heard, by how its text begins.
                self.heard[said[2:40].split(b"data")[0].decode(errors="replace") if said else "end"] += 1

    def send(self, number):
        peer, frame = self.peers[number % len(self.peers)].socket, self.frames[number % len(self.peers)][number // len(self.peers) % FRAMES]
        # A part of a frame would spoil all that follows.
        if peer.send(frame) != len(frame):
            raise SystemExit("a socket is full: the server does not keep up")

    def once(self):
        for number in range(len(self.peers)):
            self.send(number)

    def run(self):
        many, sent, behind_s = len(self.peers), 0, 0.0
        told = select.poll()
        told.register(sys.stdin, select.POLLIN | select.POLLHUP)
        began = time.monotonic()
        while not told.poll(1):
            late = (time.monotonic() - began) * self.a.rate * many - sent
            behind_s = max(behind_s, late / (self.a.rate * many))
            for _ in range(int(late)):
                self.send(sent)
                sent += 1
        self.listen()
        return {"sent": sent + many, "behind_s": round(behind_s, 3), "closed": self.closed, "heard": dict(self.heard)}


def under_way(bench, server, token_file, compressed):
    a = bench.a
    words = ["--to", server.url.removeprefix("ws://"), "--tokens", token_file, "--conns", str(bench.of(1_000)), "--rate", str(a.sender_rate)]
    command = [*priority(a), "taskset", "-c", str(a.load_cpu), sys.executable, str(ROOT / "benches/senders.py"), *words]
    return subprocess.Popen([*command, *(["--compressed"] if compressed else [])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def tell(child):
    child.stdin.write("\n")
    child.stdin.flush()


def compared(bench, spread):
    """A thousand clients that send compressed messages, beside the same that send them plain: CPU a message, memory a connection."""
    conns, seconds = bench.of(1_000), bench.a.seconds or 8
    rows = {"compressed": [], "plain": []}
    with tempfile.NamedTemporaryFile("w", suffix=".tokens") as token_file:
        tokens(token_file.name, conns)
        for turn in range(bench.a.rounds):
            for kind in list(rows)[::1 if turn % 2 else -1]:
                rows[kind].append(one(bench, token_file.name, kind, turn, conns, seconds))
    lines = []
    for kind, these in rows.items():
        ratios = [ours["us"] / plain["us"] for ours, plain in zip(these, rows["plain"])]
        wrong = [row["wrong"] for row in these if row["wrong"]]
        lines.append([kind, f"{these[0]['wire_bytes']:,.0f}", f"{statistics.median(row['per_s'] for row in these):,.0f}", spread([row["us"] for row in these]),
                      spread(ratios), f"{statistics.median(row['busy'] for row in these):.0%}", spread([row["connected_kib"] for row in these]),
                      spread([row["sent_once_kib"] for row in these]), spread([row["end_mib"] for row in these], 1), "; ".join(wrong) or "-"])
    return ("senders", f"{conns} connections, each publishes {bench.a.sender_rate} messages/s of {rows['plain'][0]['plain_bytes']:,.0f} B to a room of its own where nobody "
            f"is, {bench.a.rounds} rounds of {seconds} s each way in turn. CPU: the run time of all the server's threads. Memory: RSS over that of the server with no "
            "connections; at the end with the messages that histories keep, plain in both.",
            ["sent", "bytes of a frame", "messages/s", "server CPU us a message", "to plain", "server busy", "KiB a connection, opened", "after one message each",
             "MiB in all at the end", "wrong"], lines)


def arrived(server, many):
    """Waits for so many messages; they all have to be good ones."""
    deadline = time.monotonic() + 60
    while (core := server.stats()["core"])["publishes"] < many:
        wrong = {what: count for what, count in {**core["errors"], **core["closes"]}.items() if count}
        if wrong or time.monotonic() > deadline:
            raise SystemExit(f"senders: {core['publishes']} messages of {many} arrived, {wrong or 'and no more in 60 s'}")
        time.sleep(0.02)


def one(bench, token_file, kind, turn, conns, seconds):
    """One server and one load."""
    with bench.server() as server, contextlib.ExitStack() as stack:
        # What starting took is given back by then.
        time.sleep(1)
        start_kib = server.memory_kib()[0]
        child = under_way(bench, server, token_file, kind == "compressed")
        stack.callback(end, child)
        said = json.loads(child.stdout.readline())
        connected_kib = server.memory_kib()[0]
        tell(child)
        published = lambda: server.stats()["core"]["publishes"]
        arrived(server, conns)
        sent_once_kib = server.memory_kib()[0]
        tell(child)
        # Until they are all at it.
        arrived(server, 2 * conns)
        began, cpu_before, before = time.monotonic(), server.cpu_ns(), published()
        time.sleep(seconds)
        after, cpu_after, took_s = published(), server.cpu_ns(), time.monotonic() - began
        end_kib = server.memory_kib()[0]
        tell(child)
        said |= json.loads(child.stdout.readline())
        deadline = time.monotonic() + 10
        while published() < said["sent"] and time.monotonic() < deadline:
            time.sleep(0.05)
        lost, closes = said["sent"] - published(), {code: count for code, count in server.stats()["core"]["closes"].items() if count}
    heard = {what: count for what, count in said["heard"].items() if "heartbeat" not in what}
    wrong = ", ".join(f"{name} {value}" for name, value in [("lost", lost), ("closed", said["closed"]), ("heard", heard)] if value)
    row = {"case": "senders", "what": kind, "round": turn, "us": (cpu_after - cpu_before) / 1000 / (after - before), "per_s": (after - before) / took_s,
           "busy": (cpu_after - cpu_before) / 1e9 / took_s, "connected_kib": (connected_kib - start_kib) / conns, "sent_once_kib": (sent_once_kib - start_kib) / conns,
           "end_mib": (end_kib - start_kib) / 1024, "wrong": wrong, "closes": closes, **said}
    if bench.a.json:
        with open(bench.a.json, "a") as raw:
            raw.write(json.dumps(row) + "\n")
    print(f"  senders {turn} {kind}: {row['us']:.2f} us a message, {row['per_s']:,.0f}/s, busy {row['busy']:.0%}, sender behind {said['behind_s']} s {wrong}",
          file=sys.stderr, flush=True)
    return row


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--to", required=True)
    ap.add_argument("--tokens", required=True)
    ap.add_argument("--conns", type=int, default=1_000)
    ap.add_argument("--rate", type=float, default=5, help="messages/s of each")
    ap.add_argument("--bytes", type=int, default=1_024, help="of a message, plain")
    ap.add_argument("--compressed", action="store_true", help="offer permessage-deflate and use it; else neither")
    a = ap.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    senders = Senders(a)
    many = len(senders.peers) * FRAMES
    print(json.dumps({"connected": len(senders.peers), "plain_bytes": senders.plain_bytes / many, "wire_bytes": senders.wire_bytes / many}), flush=True)
    sys.stdin.readline()
    senders.once()
    sys.stdin.readline()
    print(json.dumps(senders.run()), flush=True)


if __name__ == "__main__":
    main()
