#!/usr/bin/env python3
"""Run the Autobahn|Testsuite fuzzing client against a WebSocket echo server.

The server under test must echo every text and binary message unchanged on the
given URL, accept messages of 16 MiB and messages of 65,536 fragments, and, for
groups 12 and 13, negotiate permessage-deflate.

The suite (PyPI `autobahntestsuite`) needs CPython 2.7. The interpreter is taken
from --python2, $PYTHON2, PATH, or a pyenv installation. The first run installs
the pinned release into --work; later runs reuse it.

Exit status: 0 all passed, 1 some failed, 2 the suite could not be run.
"""
import argparse
import collections
import glob
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

HERE = os.path.dirname(os.path.abspath(__file__))
SUITE = "autobahntestsuite==25.10.1"
VIRTUALENV = "virtualenv==20.15.1"  # the last release that creates 2.7 environments

CORE = ["%d.*" % n for n in (1, 2, 3, 4, 5, 6, 7, 9, 10)]
# Third number of 12.x.n / 13.x.n: 1..10 are whole messages of 16 B .. 128 KiB,
# 11..15 are 8..128 KiB in 256 B fragments, 16..18 are 128 KiB in larger fragments.
# Each case is 1,000 round trips, so its cost is that of its message size.
SUBSETS = {
    "core": CORE,
    "quick": CORE + ["%d.%d.%d" % (g, s, n)
                     for g, subs in ((12, 5), (13, 7)) for s in range(1, subs + 1)
                     for n in (1, 4, 6, 11)],
    "medium": CORE + ["%d.%d.%d" % (g, s, n)
                      for g, subs in ((12, 5), (13, 7)) for s in range(1, subs + 1)
                      for n in (1, 2, 3, 4, 5, 6, 7, 11, 12, 13)],
    "compression": ["12.*", "13.*"],
    "full": ["*"],
}


def find_python2(explicit):
    names = [explicit, os.environ.get("PYTHON2")]
    names += [shutil.which(n) for n in ("python2.7", "python2")]
    root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    names += sorted(glob.glob(os.path.join(root, "versions", "2.7*", "bin", "python2.7")))
    for name in names:
        if not name:
            continue
        probe = subprocess.run([name, "-c", "import sys, ssl; print(sys.version_info[:2] == (2, 7))"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if probe.returncode == 0 and probe.stdout.strip() == "True":
            return name
    return None


def install(python2, work):
    """Create the environment once; returns the path of its wstest."""
    env = os.path.join(work, "env")
    wstest = os.path.join(env, "bin", "wstest")
    if os.path.exists(wstest):
        return wstest
    boot = os.path.join(work, "boot")
    log = open(os.path.join(work, "install.log"), "w")
    try:
        subprocess.run([python2, "-m", "pip", "install", "-q", "--target", boot, VIRTUALENV],
                       check=True, stdout=log, stderr=log)
        subprocess.run([python2, "-m", "virtualenv", "-q", env], check=True, stdout=log, stderr=log,
                       env=dict(os.environ, PYTHONPATH=boot))
        subprocess.run([os.path.join(env, "bin", "pip"), "install", "-q", SUITE],
                       check=True, stdout=log, stderr=log)
    except subprocess.CalledProcessError as err:
        shutil.rmtree(env, ignore_errors=True)
        sys.exit("cannot install %s: %s (see %s)" % (SUITE, err, log.name))
    return wstest


def case_key(case):
    return [int(part) for part in case.split(".")]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("url", help="ws://host:port/path of an echo endpoint")
    ap.add_argument("--subset", choices=sorted(SUBSETS), default="quick")
    ap.add_argument("--cases", help="comma-separated case patterns instead of a subset, e.g. 6.*,7.1.1")
    ap.add_argument("--exclude", default="", help="comma-separated case patterns to leave out")
    ap.add_argument("--agent", default="server", help="name in the report")
    ap.add_argument("--strict", action="store_true", help="NON-STRICT counts as failed")
    ap.add_argument("--allow-unimplemented", action="store_true",
                    help="UNIMPLEMENTED passes (a server without permessage-deflate)")
    ap.add_argument("--timeout", type=int, default=1800, help="seconds for the whole run")
    ap.add_argument("--work", default=os.path.join(HERE, "..", ".work", "autobahn"))
    ap.add_argument("--python2")
    args = ap.parse_args()

    target = urlsplit(args.url)
    try:
        socket.create_connection((target.hostname, target.port or 80), 5).close()
    except OSError as err:
        print("cannot connect to %s: %s" % (args.url, err), file=sys.stderr)
        return 2
    python2 = find_python2(args.python2)
    if not python2:
        print("no CPython 2.7 with ssl found: pass --python2 or set PYTHON2", file=sys.stderr)
        return 2
    os.makedirs(args.work, exist_ok=True)
    wstest = install(python2, args.work)

    out = os.path.join(args.work, "report-" + args.agent)
    shutil.rmtree(out, ignore_errors=True)
    spec = os.path.join(args.work, args.agent + ".json")
    with open(spec, "w") as f:
        json.dump({
            "outdir": out,
            "servers": [{"url": args.url, "agent": args.agent}],
            "cases": args.cases.split(",") if args.cases else SUBSETS[args.subset],
            "exclude-cases": [c for c in args.exclude.split(",") if c],
            "exclude-agent-cases": {},
        }, f)
    start = time.monotonic()
    with open(os.path.join(args.work, args.agent + ".log"), "w") as log:
        try:
            subprocess.run([wstest, "-m", "fuzzingclient", "-s", spec],
                           stdout=log, stderr=subprocess.STDOUT, timeout=args.timeout)
        except subprocess.TimeoutExpired:
            print("timed out after %d s; last lines of %s:" % (args.timeout, log.name), file=sys.stderr)
            print("".join(open(log.name).readlines()[-3:]), file=sys.stderr)
            return 2
    wall = time.monotonic() - start
    try:
        cases = json.load(open(os.path.join(out, "index.json")))[args.agent]
    except (OSError, KeyError, ValueError) as err:
        print("no report (%s): see %s" % (err, log.name), file=sys.stderr)
        return 2

    planned = re.search(r"will run (\d+) test cases", open(log.name).read())
    if not planned:
        print("the suite did not say how many cases it would run: see %s" % log.name, file=sys.stderr)
        return 2
    not_run = int(planned.group(1)) - len(cases)  # a server that died ends the run early

    good = {"OK", "INFORMATIONAL"}
    if not args.strict:
        good.add("NON-STRICT")
    if args.allow_unimplemented:
        good.add("UNIMPLEMENTED")
    counts = collections.Counter(c["behavior"] for c in cases.values())
    failed = [k for k in sorted(cases, key=case_key)
              if cases[k]["behavior"] not in good or cases[k]["behaviorClose"] not in good]
    notable = [k for k in sorted(cases, key=case_key)
               if cases[k]["behavior"] in ("NON-STRICT", "INFORMATIONAL") and k not in failed]
    groups = collections.Counter()
    for k, c in cases.items():
        groups[k.split(".")[0]] += c["duration"] / 1000
    print("seconds by group: " + ", ".join("%s: %.1f" % (g, groups[g]) for g in sorted(groups, key=int)))
    print(", ".join("%s %d" % kv for kv in sorted(counts.items())) + ", wall %.0f s" % wall)
    if notable:
        print("not plain OK: " + ", ".join("%s %s" % (k, cases[k]["behavior"]) for k in notable))
    for k in failed:
        c = cases[k]
        print("FAILED %s: %s, close %s (code %s)" % (k, c["behavior"], c["behaviorClose"], c["remoteCloseCode"]))
    if not_run:
        print("FAILED: %d cases did not run (did the server die?)" % not_run)
    print("report: " + os.path.relpath(os.path.join(out, "index.html")))
    print("%d passed, %d failed" % (len(cases) - len(failed), len(failed) + not_run))
    return 1 if failed or not_run else 0


if __name__ == "__main__":
    sys.exit(main())
