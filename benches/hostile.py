#!/usr/bin/env python3
"""Messages meant to exhaust a server, each tried by itself beside a neighbour who measures.

    benches/hostile.py KIND --to HOST:PORT --token TOKEN --times 20 [--bomb FILE]
    benches/hostile.py neighbour --to HOST:PORT --token TOKEN

The first connects, does it, waits for what comes of it, and begins again; it prints a line of JSON for all
times. The neighbour asks for a `ping` every 5 ms until its standard input ends, and prints when it asked
(seconds of the monotonic clock) and how long each answer took. `benches/scenarios hostile` runs both.
"""
import argparse, collections, contextlib, json, pathlib, select, struct, subprocess, sys, tempfile, threading, time, zlib
from bench_servers import ROOT, end, priority, tokens
from raw_client import CLOSE, COMPRESSED, CONTINUATION, FINAL, PING, PONG, TEXT, Peer, masked

BOMB_BYTES, FRAGMENTS, PINGS = 10**9, 10**6, 60_000
# As many frames in one write as a socket takes without much ado.
AT_ONCE = 8_192


def bomb():
    """Zeros as one compressed message, less its frame."""
    context = zlib.compressobj(9, wbits=-15)
    zeros = bytes(10**6)
    parts = [context.compress(zeros) for _ in range(BOMB_BYTES // len(zeros))]
    return (b"".join(parts) + context.flush(zlib.Z_SYNC_FLUSH))[:-4]


def write_all(peer, chunks):
    """Sends until the server has had enough: bytes sent."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        for chunk in chunks:
            peer.socket.sendall(chunk)
            sent += len(chunk)
    return sent


def end_of(peer):
    """How the connection ended: the code and the reason of the close frame, or what else there was."""
    try:
        while True:
            first, payload = peer.frame()
            if first & 0xF == CLOSE:
                return f"{struct.unpack_from('!H', payload)[0]} {payload[2:].decode()}"
    except EOFError:
        return "ended without a close frame"
    except ConnectionError:
        return "reset"


def decompression_bomb(peer, a):
    return write_all(peer, [masked(FINAL | COMPRESSED | TEXT, pathlib.Path(a.bomb).read_bytes())]), end_of(peer)


def fragments(peer, a):
    begin, more = masked(TEXT, b"["), masked(CONTINUATION, b"1") * AT_ONCE
    return write_all(peer, [begin, *[more] * (FRAGMENTS // AT_ONCE)]), end_of(peer)


def announced(peer, a):
    return write_all(peer, [bytes([FINAL | TEXT, 0xFF]) + struct.pack("!Q", 1 << 62) + b"\x01\x02\x03\x04"]), end_of(peer)


def pings(peer, a):
    """All pings, and only then the first look at what was answered."""
    sent = 0
    burst = b"".join(masked(FINAL | PING, f"{number:0125}".encode()) for number in range(PINGS))
    peer.socket.settimeout(1)
    try:
        while sent < len(burst):
            sent += peer.socket.send(burst[sent:sent + (1 << 20)])
        stands = False
    except TimeoutError:
        # The server reads no more: what it has to say is to be heard first.
        stands = True
    except ConnectionError:
        return sent, end_of(peer)
    peer.socket.settimeout(30)
    last = threading.Thread(target=write_all, args=(peer, [burst[sent:], masked(FINAL | TEXT, b'{"id":"after","event":"ping"}')]))
    last.start()
    answered, newest = 0, None
    outcome = "ended without a close frame"
    answers = "answers a request that follows"
    # The newest ping may be answered behind the request: nothing is said of their order.
    with contextlib.suppress(EOFError, ConnectionError, TimeoutError):
        while outcome != answers or newest != PINGS - 1:
            first, payload = peer.frame()
            if first & 0xF == PONG:
                answered, newest = answered + 1, int(payload)
            elif first & 0xF == CLOSE:
                outcome = f"{struct.unpack_from('!H', payload)[0]} {payload[2:].decode()}"
                break
            elif b'"after"' in payload:
                outcome = answers
    last.join()
    a.pongs.append(answered)
    newest = "the newest ping is answered" if newest == PINGS - 1 else "the newest ping is not answered"
    stood = ", it read no more before it was listened to" if stands else ""
    return len(burst), f"{outcome}, {newest}{stood}"


KINDS = {
    "bomb": (decompression_bomb, f"{BOMB_BYTES // 10**9} GB of zeros, one compressed message"),
    "fragments": (fragments, f"{FRAGMENTS:,} fragments of a byte"),
    "pings": (pings, f"{PINGS:,} pings of 125 B at once, pongs not read meanwhile"),
    "length": (announced, "an announced length of 2^62"),
}


def attack(a):
    outcomes, sent, a.pongs = collections.Counter(), [], []
    for _ in range(a.times):
        peer = Peer(a.to, a.token)
        size, outcome = KINDS[a.kind][0](peer, a)
        peer.socket.close()
        outcomes[outcome] += 1
        sent.append(size)
    return {"outcomes": dict(outcomes), "bytes_sent_most": max(sent), "pongs": a.pongs}


def neighbour(a):
    peer, asked, took_ms = Peer(a.to, a.token, deflate=False), [], []
    ask = masked(FINAL | TEXT, b'{"id":1,"event":"ping"}')
    print("{}", flush=True)
    following = time.monotonic()
    while not select.select([sys.stdin], [], [], max(following - time.monotonic(), 0))[0]:
        following = max(following + 0.005, time.monotonic())
        began = time.monotonic()
        peer.socket.sendall(ask)
        while b'"id":1' not in peer.frame()[1]:
            pass
        asked.append(round(began, 4))
        took_ms.append(round((time.monotonic() - began) * 1_000, 4))
    return {"asked": asked, "took_ms": took_ms}


def program(bench, token, first, *words):
    before = ["chrt", "-r", "2"] if first and bench.has_first else priority(bench.a)
    command = [*before, "taskset", "-c", str(bench.a.load_cpu), sys.executable, str(ROOT / "benches/hostile.py"), *words, "--token", token]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def tried(bench):
    """A bomb, fragments, pings, a length: how each ends, what it costs, and whether a neighbour notices."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        file, token_file = pathlib.Path(folder, "bomb"), pathlib.Path(folder, "tokens")
        file.write_bytes(bomb())
        tokens(token_file, 2)
        users = token_file.read_text().split()
        for turn in range(bench.a.rounds):
            for kind in KINDS:
                lines.append(one(bench, kind, turn, str(file), users))
    return ("hostile", f"Each {bench.a.times} times in a row, each time over a new connection that agreed on compression. Peak: resident memory at most, over that just before. "
            "CPU: the run time of all the server's threads less what the neighbour alone costs, a time; handshakes are in it. The neighbour asks for a `ping` 200 times a second, for "
            f"2 s before and then meanwhile{', and goes before the attacker on their CPU' if bench.has_first else ''}. A round a line.",
            ["what", "how it ended", "bytes sent, at most", "RSS MiB before", "peak over it", "server CPU ms each", "took s", "neighbour p99 ms before", "meanwhile", "max before",
             "meanwhile"], lines)


def p99(values):
    return sorted(values)[len(values) * 99 // 100] if values else float("nan")


def one(bench, kind, turn, bomb_file, users):
    """One server, the neighbour, and the attacker."""
    with bench.server() as server, contextlib.ExitStack() as stack:
        to = ["--to", server.url.removeprefix("ws://")]
        beside = program(bench, users[0], True, "neighbour", *to)
        stack.callback(end, beside)
        beside.stdout.readline()
        # The first answers find caches cold.
        time.sleep(0.5)
        quiet_from, cpu = time.monotonic(), server.cpu_ns()
        time.sleep(2)
        quiet_to, quiet_cpu = time.monotonic(), server.cpu_ns() - cpu
        # From here on the peak counts (proc(5), clear_refs).
        pathlib.Path(f"/proc/{server.pid}/clear_refs").write_text("5")
        before_kib, cpu = server.memory_kib()[0], server.cpu_ns()
        attacker = program(bench, users[1], False, kind, *to, "--times", str(bench.a.times), "--bomb", bomb_file)
        stack.callback(end, attacker)
        # A neighbour's answers are what is read meanwhile: they would fill the pipe, were they printed before the end.
        said = json.loads(attacker.communicate(timeout=300)[0])
        ended, cpu = time.monotonic(), server.cpu_ns() - cpu
        # It may be a page or two off, and below what was before.
        peak_kib = max(server.memory_kib()[1], before_kib)
        rtts = json.loads(beside.communicate(timeout=30)[0])
    took_s = ended - quiet_to
    quiet, meanwhile = [], []
    for asked, took_ms in zip(rtts["asked"], rtts["took_ms"]):
        if quiet_from <= asked < quiet_to:
            quiet.append(took_ms)
        elif quiet_to <= asked < ended:
            meanwhile.append(took_ms)
    cpu_ms = (cpu - quiet_cpu / (quiet_to - quiet_from) * took_s) / 1e6 / bench.a.times
    row = {"case": "hostile", "what": kind, "round": turn, "times": bench.a.times, "before_kib": before_kib, "peak_kib": peak_kib, "cpu_ms_each": cpu_ms, "took_s": took_s,
           "p99_ms_before": p99(quiet), "p99_ms_meanwhile": p99(meanwhile), "max_ms_before": max(quiet), "max_ms_meanwhile": max(meanwhile), "answers_meanwhile": len(meanwhile), **said}
    if bench.a.json:
        with open(bench.a.json, "a") as raw:
            raw.write(json.dumps(row) + "\n")
    outcomes = "; ".join(f"{outcome} ({count} x)" for outcome, count in said["outcomes"].items())
    if said["pongs"]:
        outcomes += f"; {min(said['pongs']):,} to {max(said['pongs']):,} pongs"
    print(f"  hostile {turn} {kind}: {outcomes}, peak +{(peak_kib - before_kib) / 1024:.1f} MiB, {cpu_ms:.1f} ms each", file=sys.stderr, flush=True)
    return [KINDS[kind][1], outcomes, f"{said['bytes_sent_most']:,}", f"{before_kib / 1024:.1f}", f"{(peak_kib - before_kib) / 1024:.1f}", f"{cpu_ms:.2f}", f"{took_s:.1f}",
            f"{row['p99_ms_before']:.2f}", f"{row['p99_ms_meanwhile']:.2f}", f"{row['max_ms_before']:.2f}", f"{row['max_ms_meanwhile']:.2f}"]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("kind", choices=[*KINDS, "neighbour"])
    ap.add_argument("--to", required=True)
    ap.add_argument("--token", required=True)
    ap.add_argument("--times", type=int, default=1)
    ap.add_argument("--bomb", help="the bomb's payload")
    a = ap.parse_args()
    print(json.dumps(neighbour(a) if a.kind == "neighbour" else attack(a)), flush=True)


if __name__ == "__main__":
    main()
