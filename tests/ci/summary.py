"""How a run of CI went: the last lines of its output, which a reader sees first."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

from . import findings
from .lanes import Result

__all__ = ["LINES_MAX", "available_cpus", "describe", "line"]

#: A reader who sees only a part of the log sees its last hundred lines.
LINES_MAX = 90


def describe(
    results: Sequence[Result], *, lanes: int, seconds: float, not_begun: int = 0
) -> list[str]:
    """What failed in each step, a table of all that began, and last the names of the failed."""
    failed = [result for result in results if not result.passed]
    table = [
        machine(lanes, seconds),
        f"{'step':20} {'result':34} {'s':>6} {'CPU s':>6}",
        *(
            f"{result.step.name:20} {outcome(result):34} {result.seconds:6.0f}"
            f" {result.cpu_seconds:6.0f}"
            for result in results
        ),
    ]
    told: list[str] = []
    if failed:
        others = f"; not begun: {not_begun}" if not_begun else ""
        table.append(f"Failed: {' '.join(result.step.name for result in failed)}{others}")
        # Each step has a heading, and an empty line behind it.
        room = (LINES_MAX - len(table)) // len(failed) - 2
        for result in failed:
            output = result.log.read_text(encoding="utf-8", errors="replace")
            told += [f"--- {result.step.name}: {outcome(result)}; the whole of it: {result.log}"]
            told += [*findings.find(output, lines_max=max(room, 1)), ""]
    return [*told, *table]


def line(result: Result) -> str:
    """One step that has ended."""
    return f"{result.step.name}: {outcome(result)}, {result.seconds:.0f} s"


def outcome(result: Result) -> str:
    """How the step ended, in words."""
    if result.passed:
        return "passed"
    return result.ended or f"FAILED, exit status {result.status}"


def machine(lanes: int, seconds: float) -> str:
    """The machine that the numbers belong to."""
    return (
        f"{seconds / 60:.1f} min, steps at a time: {lanes}, CPUs: {available_cpus()}"
        f" ({processor()}), Linux {platform.release()}, Python {platform.python_version()}"
    )


def processor() -> str:
    """The CPU's name, with the features that decide what runs on it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            pairs = dict(line.split("\t", 1) for line in file if "\t" in line)
    except OSError:
        return platform.machine()
    name = pairs.get("model name", f"\t: {platform.machine()}").partition(": ")[2].strip()
    flags = set(pairs.get("flags", "").split())
    return " ".join([name, *sorted(flags & {"avx2", "avx512f", "vaes", "amx_tile"})])


def available_cpus() -> int:
    """The CPUs that this process may use: fewer than the machine has, under ``taskset``."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
