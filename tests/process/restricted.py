#!/usr/bin/env python3
"""Runs a program under the restrictions of systemd/ringroom.service as far as that needs no systemd: its system
call filter, read from the unit and built here, no new privileges, no memory that is both written and executed,
and where this is root no capabilities and another user.

    tests/process/restricted.py PROGRAM ARGUMENT...

Where systemd runs (see box.py) the unit itself is better.
"""

import ctypes
import os
import pathlib
import re
import struct
import subprocess
import sys

UNIT = pathlib.Path(__file__).resolve().parent.parent.parent / "systemd/ringroom.service"
NOBODY = 65534
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_MDWE = 38, 22, 24, 65
SECCOMP_MODE_FILTER = 2
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
EPERM = 1
# By `uname -m`: what the kernel calls the architecture, and where the compiler's headers number its calls.
ARCHITECTURES = {"x86_64": (0xC000003E, "asm/unistd_64.h"), "aarch64": (0xC00000B7, "asm-generic/unistd.h")}
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER_AT, ARCHITECTURE_AT = 0, 4


def members(group):
    """The system calls of a group of systemd's, groups in it included."""
    said = subprocess.run(["systemd-analyze", "--no-pager", "syscall-filter", group], capture_output=True, text=True, check=True)
    words = [line.strip() for line in said.stdout.splitlines() if line.startswith("    ") and not line.strip().startswith("#")]
    return set().union(*[members(word) if word.startswith("@") else {word} for word in words])


def allowed():
    """What the unit's lines of SystemCallFilter= come to, in their order."""
    names = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE):
        words = line.lstrip("~").split()
        meant = set().union(*[members(word) if word.startswith("@") else {word} for word in words])
        names = names - meant if line.startswith("~") else names | meant
    return names


def numbers(names, header):
    """Of those that this architecture has."""
    source = f"#include <{header}>"
    said = subprocess.run(["cc", "-E", "-dM", "-"], input=source, capture_output=True, text=True, check=True)
    known = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)$", said.stdout, re.MULTILINE)}
    return sorted(known[name] for name in names if name in known)


def program(names):
    """A filter for the kernel: `names` are allowed, the rest is refused."""
    architecture, header = ARCHITECTURES[os.uname().machine]
    steps = [(LOAD, 0, 0, ARCHITECTURE_AT), (JUMP_EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER_AT)]
    for number in numbers(names, header):
        steps += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    steps.append((RETURN, 0, 0, ERRNO | EPERM))
    return steps


def restrict():
    steps = program(allowed())
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)

    def prctl(*arguments):
        if libc.prctl(*[ctypes.c_ulong(argument) for argument in [*arguments, 0, 0, 0, 0][:5]]) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {arguments[0]} is refused")

    if os.geteuid() == 0:
        for capability in range(int(pathlib.Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
            prctl(PR_CAPBSET_DROP, capability)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    # Linux 6.3 and later.
    libc.prctl(PR_SET_MDWE, 1, 0, 0, 0)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header))


if __name__ == "__main__":
    restrict()
    os.execv(sys.argv[1], sys.argv[1:])
