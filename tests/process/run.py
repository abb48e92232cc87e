#!/usr/bin/env python3
"""Runs the process tests: real gateways, real clients. `tests/run` calls it.

Words choose tests by name. The last line is `N passed, N failed`.
"""

import argparse
import asyncio
import os
import sys
import time
import traceback

import support

# Imported for their cases.
import cases_connect  # noqa: F401
import cases_rooms  # noqa: F401
import cases_bad_input  # noqa: F401
import cases_slow  # noqa: F401
import cases_commands  # noqa: F401
import cases_config  # noqa: F401
import cases_node  # noqa: F401
import cases_auth  # noqa: F401
import cases_deflate  # noqa: F401
import cases_msgpack  # noqa: F401
import cases_limits  # noqa: F401
import cases_service  # noqa: F401
import cases_ops  # noqa: F401
import cases_network  # noqa: F401
import cases_tune  # noqa: F401
import cases_echo  # noqa: F401
import cases_browser  # noqa: F401
import cases_strict  # noqa: F401
import cases_engineio  # noqa: F401
import cases_socketio  # noqa: F401
import cases_socketio_clients  # noqa: F401
import cases_socketio_gateway  # noqa: F401
import cases_aliases  # noqa: F401
import cases_sse  # noqa: F401
import cases_emit  # noqa: F401
import cases_sse_browser  # noqa: F401
import cases_sse_docs  # noqa: F401
import cases_sse_tls  # noqa: F401
import cases_proxies  # noqa: F401
import cases_smuggling  # noqa: F401
import cases_proxy_protocol  # noqa: F401
import cases_tls  # noqa: F401

CASE_TIME_MAX_S = 120


async def run(words):
    passed, failed = 0, []
    # The official server has one way only.
    for io in ("node",) if support.Gateway.reference else ("io_uring", "epoll"):
        chosen = [
            (function, own) for function, both, own in support.CASES
            if (function.oracle if io == "node" else both or io == "io_uring")
            and (not words or any(word in function.__name__ for word in words))
        ]
        # The default is left to the gateway: where io_uring is refused, it falls back by itself.
        forced = "epoll" if io == "epoll" else None
        shared = None
        for function, own in chosen:
            name = f"{function.__name__} [{io}]"
            began = time.monotonic()
            started = []
            try:
                if own:

                    async def start(*arguments, **options):
                        started.append(await support.Gateway.start(*arguments, io=forced, **options))
                        return started[-1]

                    await asyncio.wait_for(function(start), CASE_TIME_MAX_S)
                else:
                    if shared is None or not shared.running():
                        shared = await support.Gateway.start(io=forced)
                        assert forced is None or shared.io == forced, shared.io
                        if shared.io != io:
                            print(f"note: {io} is refused here; the gateway runs on {shared.io}", flush=True)
                    await asyncio.wait_for(function(shared), CASE_TIME_MAX_S)
                    assert shared.running(), f"the gateway died; {shared.tail()}"
                passed += 1
                print(f"ok   {name} ({time.monotonic() - began:.1f} s)", flush=True)
            except Exception:
                failed.append(name)
                print(f"FAIL {name} ({time.monotonic() - began:.1f} s)", flush=True)
                traceback.print_exc(limit=-4)
                if shared and not shared.running():
                    print(f"the gateway died; {shared.tail()}", flush=True)
            finally:
                for gateway in started:
                    await gateway.kill()
        if shared is not None and shared.running():
            await shared.terminate()
            await shared.kill()
    return passed, failed


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    work = os.path.join(here, "..", ".work")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=os.path.join(here, "..", "..", "target", "release", "ringroom"))
    parser.add_argument("--examples", default=os.path.join(here, "..", "..", "target", "debug", "examples"))
    parser.add_argument(
        "--socketio-reference", action="store_true",
        help="run the Socket.IO cases against the official server on Node instead, to know that the cases are right",
    )
    parser.add_argument("--counts", help="write the two numbers to this file")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    support.Gateway.binary = os.path.abspath(options.binary)
    support.Gateway.examples = os.path.abspath(options.examples)
    if options.socketio_reference:
        support.Gateway.reference = ["node", os.path.join(here, "socketio", "reference.js")]
    support.Gateway.log_folder = os.path.join(work, "logs")
    os.makedirs(support.Gateway.log_folder, exist_ok=True)

    passed, failed = asyncio.run(run(options.words))
    if options.counts:
        with open(options.counts, "w") as counts:
            counts.write(f"{passed} {len(failed)}\n")
    for name in failed:
        print(f"failed: {name}")
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
