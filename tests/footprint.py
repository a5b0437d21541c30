"""Measures what a process holds: memory, descriptors, mappings, objects; for tests of leaks."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Footprint",
    "descriptors",
    "mappings",
    "no_huge_pages",
    "resident_bytes",
    "same_footprint",
]

STATM = Path("/proc/self/statm")
MAPS = Path("/proc/self/maps")


#: <linux/prctl.h>
PR_SET_THP_DISABLE = 41


@contextmanager
def no_huge_pages() -> Iterator[None]:
    """Makes resident memory grow by the pages that are touched, and not by 2 MiB at a time.

    With transparent huge pages, where they are always on, the kernel gives such a page for the
    first byte of a thread's stack, or puts one together from the pages of a heap when it likes.
    """
    if sys.platform != "linux":
        yield
        return
    set_process_option = ctypes.CDLL(None).prctl
    set_process_option(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    try:
        yield
    finally:
        set_process_option(PR_SET_THP_DISABLE, 0, 0, 0, 0)


def resident_bytes() -> int:
    """Bytes that the process has in memory now; without /proc, the most it ever had."""
    if STATM.exists():
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def descriptors() -> int:
    """How many descriptors are open."""
    return len(os.listdir("/dev/fd"))


def mappings() -> int | None:
    """How many regions of memory are mapped, where that can be told."""
    return len(MAPS.read_text().splitlines()) if MAPS.exists() else None


@dataclass(frozen=True)
class Footprint:
    """All of these at one moment, after a garbage collection."""

    resident_bytes: int
    descriptors: int
    mappings: int | None
    #: Blocks that Python's allocator has handed out.
    blocks: int

    @staticmethod
    def take() -> Footprint:
        gc.collect()
        return Footprint(resident_bytes(), descriptors(), mappings(), sys.getallocatedblocks())


@contextmanager
def same_footprint(*, bytes_max: int, blocks_max: int = 200, peers_max: int = 2) -> Iterator[None]:
    """After the block the process holds what it held before.

    ``bytes_max`` is what it may have grown by, and has to be far less than a leak in each round
    would be; ``blocks_max`` is room for caches of the interpreter. The server of a test may still
    hold one or two of its ends (``peers_max``).
    """
    before = Footprint.take()
    yield
    after = Footprint.take()
    assert after.blocks - before.blocks <= blocks_max
    assert after.descriptors - before.descriptors <= peers_max
    if before.mappings is not None and after.mappings is not None:
        assert after.mappings - before.mappings <= 2 * peers_max
    assert after.resident_bytes - before.resident_bytes <= bytes_max
