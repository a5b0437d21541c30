"""The host's XSAVE area, and a shim for kernels that cannot set the whole of it.

In the XSAVE area, the CPU keeps what a process has in its registers for floating-point numbers and
vectors. How large it is depends on the CPU: 2,432 bytes with AMD's AVX-512, and 11,008 with Intel's
AMX. User-mode-linux reads and sets it by ptrace whenever it goes on with a process. Its kernels
before 6.13 do so with a buffer of a fixed size. Linux cuts what it reads, but to set a part of the
area is EFAULT: "ptrace set fp regs failed, errno = 14" is then the last that such a kernel says.

So on a host with a larger area, ``xstate_shim.c`` is loaded into these kernels. Newer ones ask the
host for the size, and are left as they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import RigError

__all__ = ["MODES", "Shim", "area_size", "build", "choose", "ptrace", "read_area", "traced"]

MODES = ("auto", "always", "never")

#: What the kernels have room for: HOST_FP_SIZE in Linux's arch/x86/um/user-offsets.c, up to 6.12.
#: AVX-512 and PKRU end there on Intel's CPUs, which had nothing behind them at that time.
GUEST_AREA_SIZE = 2696

#: The first kernel that asks the host (Linux's commit 3f17fed21491).
ASKS_HOST = (6, 13)

SOURCE = Path(__file__).with_name("xstate_shim.c")

#: Of the oldest C library that Zig knows: that of the suite is newer, and so is the host's.
TARGET = "x86_64-linux-gnu.2.17"

#: Seconds for the compiler, which first compiles parts of itself.
BUILD_TIMEOUT = 300

#: More than any CPU has. (The largest, of Intel's with AMX, is 11,008 bytes.)
AREA_SIZE_MAX = 1 << 16

# What the kernel calls the requests (ptrace(2)) and the area.
PTRACE_PEEKTEXT, PTRACE_PEEKDATA, PTRACE_PEEKUSER, PTRACE_POKEDATA = 1, 2, 3, 5
PTRACE_GETREGSET, PTRACE_SETREGSET = 0x4204, 0x4205
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
PTRACE_O_EXITKILL = 1 << 20
NT_X86_XSTATE = 0x202


# ---- Which kernels need the shim. --------------------------------------------------------------


@dataclass(frozen=True)
class Shim:
    """What is loaded into the kernels, and why."""

    reason: str
    library: Path | None = None
    #: Whether kernels that do not need it get it, too.
    everywhere: bool = False

    def under(self, release: str) -> Path | None:
        """The library that this kernel (by its uname) is started with, if any."""
        fixed = tuple(map(int, re.findall(r"\d+", release)[:2])) < ASKS_HOST
        return self.library if fixed or self.everywhere else None


def choose(mode: str, size: int, folder: Path) -> Shim:
    """What :data:`MODES` mean on this host. The shim is built in the folder where it is used.

    :param size: of the host's area.
    """
    why = f"the host's XSAVE area has {size:,} bytes, kernels before 6.13 hold {GUEST_AREA_SIZE:,}"
    if mode == "never" or (mode == "auto" and size <= GUEST_AREA_SIZE):
        return Shim(f"XSAVE shim ({mode}): not used; {why}")
    where = "every kernel" if mode == "always" else "the kernels before 6.13"
    return Shim(f"XSAVE shim ({mode}): used in {where}; {why}", build(folder), mode == "always")


def build(folder: Path) -> Path:
    """The shim, as a library in the folder. Compiled unless it is there already."""
    digest = hashlib.sha256(SOURCE.read_bytes() + TARGET.encode()).hexdigest()[:16]
    library = folder / f"xstate-shim-{digest}.so"
    if library.is_file():
        return library
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", TARGET]
    options = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    with tempfile.TemporaryDirectory(prefix="xstate-shim-", dir=folder) as name:
        new = Path(name, "shim.so")
        command = [*compiler, *options, "-o", str(new), str(SOURCE)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise RigError(f"the XSAVE shim took more than {BUILD_TIMEOUT} s to compile") from error
        if done.returncode != 0:
            raise RigError(f"the XSAVE shim cannot be compiled: {done.stderr.strip()}")
        new.rename(library)  # Another process may have been faster, with the same.
    return library


# ---- Tracing. ----------------------------------------------------------------------------------


class Part(ctypes.Structure):
    """Where the area lies here: struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    """The C library's, or what was loaded in front of it.

    A process that one thread traces, no other thread may ask for.
    """
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.restype = ctypes.c_long
    call.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    result: int = call(request, pid, address, data)
    if result == -1 and (number := ctypes.get_errno()):  # Otherwise it is a word that was read.
        raise OSError(number, os.strerror(number))
    return result


@contextlib.contextmanager
def traced() -> Iterator[int]:
    """The number of a process that is stopped, and ends with this context."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            ptrace(PTRACE_SEIZE, process.pid, data=PTRACE_O_EXITKILL)
            ptrace(PTRACE_INTERRUPT, process.pid)
            os.waitpid(process.pid, 0)
            yield process.pid
        finally:
            process.kill()


def read_area(pid: int, size: int = AREA_SIZE_MAX) -> bytes:
    """This many bytes of a traced process's XSAVE area, or all that there are."""
    buffer = ctypes.create_string_buffer(size)
    part = Part(ctypes.addressof(buffer), size)
    ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, ctypes.addressof(part))
    return buffer.raw[: part.length]


def write_area(pid: int, area: bytes) -> None:
    """Sets it, as far as the kernel takes it."""
    buffer = ctypes.create_string_buffer(area, len(area))
    part = Part(ctypes.addressof(buffer), len(area))
    ptrace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, ctypes.addressof(part))


def area_size() -> int:
    """Of this host's XSAVE area, as its kernel tells it; 0 where there is none.

    :raises OSError: nobody can trace a process here.
    """
    with traced() as pid:
        try:
            return len(read_area(pid))
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.EINVAL):
                return 0
            raise
