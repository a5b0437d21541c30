"""Traces processes, and sets their XSAVE areas as it is told. For test_xstate_shim.py.

In a process of its own, so that the shim can be loaded into it. Each line is a job, as JSON, and is
answered by one.
"""

from __future__ import annotations

import ctypes
import errno
import json
import sys
from typing import Any

from . import xstate

HEADER, HEADER_END = 512, 576

#: Components behind the header that may have any content: AVX, and what AVX-512 adds.
COMPONENTS = (2, 5, 6, 7)

#: Where user_regs_struct, which PTRACE_PEEKUSER reads from, has the stack pointer.
RSP = 19 * 8

WORD = 1 << 64

#: Words that a process's memory may hold; one is what an error looks like, too.
WORDS = (0, 1, 0x8877665544332211, WORD - 1)


def layout(job: dict[str, Any]) -> dict[str, Any]:
    """Where the components lie, as the kernel tells it: it keeps of each what is put there."""
    found = {}
    for number in COMPONENTS:
        with xstate.traced() as pid:
            area = bytearray(xstate.read_area(pid))
            area[HEADER:HEADER_END] = (1 << number).to_bytes(HEADER_END - HEADER, "little")
            area[HEADER_END:] = b"\x11" * (len(area) - HEADER_END)
            try:
                xstate.write_area(pid, bytes(area))
            except OSError as error:
                if error.errno != errno.EINVAL:  # This CPU does not have it.
                    raise
                continue
            kept = [at for at, byte in enumerate(xstate.read_area(pid)) if byte == 0x11]
            places = [at for at in kept if at >= HEADER_END]
            found[number] = [places[0], places[-1] + 1]
    return {"components": found, "size": len(area)}


def write(job: dict[str, Any]) -> dict[str, Any]:
    """A whole area, then perhaps a part of one over it; and what the process has then."""
    number = 0
    with xstate.traced() as pid:
        xstate.write_area(pid, bytes.fromhex(job["before"]))
        try:
            xstate.write_area(pid, bytes.fromhex(job["given"]))
        except OSError as error:
            number = error.errno or 0
        return {"errno": number, "area": xstate.read_area(pid).hex()}


def peek(job: dict[str, Any]) -> dict[str, Any]:
    """Words that are put onto the stack of a process and read from there, and one from nowhere."""
    read = []
    with xstate.traced() as pid:
        stack = xstate.ptrace(xstate.PTRACE_PEEKUSER, pid, RSP) % WORD - 4096
        for word in WORDS:
            xstate.ptrace(xstate.PTRACE_POKEDATA, pid, stack, word)
            for request in (xstate.PTRACE_PEEKTEXT, xstate.PTRACE_PEEKDATA):
                ctypes.set_errno(errno.ENOMSG)  # From an earlier call, and must not be seen again.
                read.append(xstate.ptrace(request, pid, stack) % WORD)
        try:
            xstate.ptrace(xstate.PTRACE_PEEKDATA, pid, 0)
        except OSError as error:
            return {"read": read, "errno": error.errno}
    return {"read": read, "errno": 0}


def main() -> None:
    jobs = {"layout": layout, "write": write, "peek": peek}
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(jobs[job["do"]](job)), flush=True)


if __name__ == "__main__":
    main()
