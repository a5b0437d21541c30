"""Finds out how many kernels this machine has room for, and where to put their memory."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .errors import RigError

__all__ = ["MEMORY_MIB", "place"]

#: Bytes of one guest. It is a file, which takes up its full size only when the guest has used all.
MEMORY_MIB = 1536

MEMORY = MEMORY_MIB << 20


def place(wanted: int | None = None) -> tuple[Path, int]:
    """The folder for the memory of guests, and how many of them may run at a time.

    That is settled before the first boots: what one guest has not used yet is free to the next.

    :param wanted: no more than so many; otherwise as many as there are CPUs.
    """
    fitting = min(cpus() if wanted is None else wanted, memory() // MEMORY)
    folder, room = roomiest(folders(), fitting)
    return folder, max(1, min(fitting, room))


def folders() -> list[Path]:
    """Folders where a file can be mapped, also as executable. The first one is in memory."""
    found = []
    for folder in (Path("/dev/shm"), Path(tempfile.gettempdir()), Path("/var/tmp")):
        with contextlib.suppress(OSError):
            if not os.statvfs(folder).f_flag & os.ST_NOEXEC and os.access(folder, os.W_OK):
                found.append(folder)
    return found


def roomiest(candidates: Iterable[Path], wanted: int) -> tuple[Path, int]:
    """The first folder with room for all of them, or else the one with the most, and for how many.

    :raises RigError: none has room for one.
    """
    rooms = [(folder, shutil.disk_usage(folder).free // MEMORY) for folder in candidates]
    for folder, room in rooms:
        if room >= max(1, wanted):
            return folder, room
    folder, room = max(rooms, key=lambda pair: pair[1], default=(Path(), 0))
    if room == 0:
        raise RigError(f"no folder has room for {MEMORY_MIB} MiB that may be executed")
    return folder, room


def cpus(root: Path = Path("/")) -> int:
    """How many CPUs this process has: its container may leave it fewer than the machine has."""
    groups = root / "sys" / "fs" / "cgroup"
    quota = numbers(groups / "cpu.max")  # Microseconds, and of how many.
    if not quota:  # The first version of cgroups. Its -1 is no limit, and no number here.
        parts = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quota = [number for part in parts for number in numbers(groups / "cpu" / part)]
    count = len(os.sched_getaffinity(0))
    return min(count, -(-quota[0] // quota[1])) if len(quota) == 2 else count


def memory(root: Path = Path("/")) -> int:
    """Bytes that are free, or that the container may have: it is killed when it takes more."""
    available = re.search(r"MemAvailable: *(\d+) kB", read(root / "proc" / "meminfo"))
    groups = root / "sys" / "fs" / "cgroup"
    limits = numbers(groups / "memory.max") + numbers(groups / "memory" / "memory.limit_in_bytes")
    return min([*limits, *([int(available[1]) << 10] if available else [])], default=1 << 62)


def numbers(file: Path) -> list[int]:
    """The numbers in a file of the kernel; nothing if it has anything else."""
    words = read(file).split()
    return [int(word) for word in words] if all(word.isdigit() for word in words) else []


def read(file: Path) -> str:
    """The text of a file; empty if there is no such file."""
    with contextlib.suppress(OSError):
        return file.read_text(encoding="ascii")
    return ""
