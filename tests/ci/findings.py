"""What failed, from the output of a step: the lines that a reader would look for, and its end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["find"]

#: Lines that name what failed, whichever tool wrote them.
NAMES = (
    re.compile(r"(FAILED|ERROR) \S+(::| - )"),  # pytest: a test, or a file that it cannot import
    re.compile(r"INTERNALERROR> \w+(Error|Exception)|ImportError while loading "),  # pytest itself
    re.compile(r"error: '.+' (failed|leaked|terminated|timed out)"),  # a test of Zig's
    re.compile(r"\d+/\d+ .+\.\.\.FAIL "),  # the same without `zig build`: valgrind, Arm
    re.compile(r"\S+\.(zig|zon):\d+:\d+: error: "),  # its compiler
    re.compile(r"\S+\.pyi?:\d+: error: "),  # mypy
    re.compile(r" *\S+\.pyi?:\d+:\d+ - error: "),  # pyright
    re.compile(r"error: (not checked|\S+ (is not present|is inconsistent))"),  # stubtest
    re.compile(r"[A-Z]{1,4}\d{3,4} \S| *--> \S+:\d+:\d+"),  # a rule of ruff, and where
    re.compile(r"src/\S+\.zig$"),  # zig fmt --check names the files alone
    re.compile(r"(Invalid|Mismatched|Uninit|Syscall|Leak_|Overlap|ClientCheck)\w*: "),  # memcheck
    re.compile(r"memcheck: [1-9]\d* errors of ours"),
    re.compile(r"\w+: exit code -?\d+, see |again: "),  # a target of the fuzzer
    re.compile(r"[a-z]+-openssl-[\w.-]+: |The rig failed: "),  # a boot of ktls-test, or none
    re.compile(r"On Arm.* exit -?[1-9]"),
    re.compile(r"not built: "),  # a wheel
    re.compile(r".* failed:$"),  # a command of free-threading-test
    re.compile(r"(SystemExit|AssertionError|\w+Error|\w+Exception): "),  # of a script of ours
    re.compile(r"make(\[\d+\])?: \*\*\* "),
)

#: What pytest says about tests that have not failed.
BESIDES = re.compile(r"SKIPPED \[|\d+\.\d+s (call|setup|teardown) ")

#: How much of a long line is shown: its beginning says most.
LINE_LENGTH_MAX = 240


def find(output: str, *, lines_max: int) -> list[str]:
    """At most so many lines: those that name something, and then some of how the output ended.

    An output that names nothing is shown from its end.
    """
    lines = [cut(line.rstrip()) for line in output.splitlines()]
    named = list(dict.fromkeys(line.strip() for line in lines if is_name(line)))
    if not named:
        return end_of(lines)[-lines_max:]
    end = end_of(line for line in lines if line.strip() not in named)[-(lines_max // 4) :]
    return [*shorten(named, max(lines_max - len(end), 1)), *end]


def end_of(lines: Iterable[str]) -> list[str]:
    """The output without what pytest always prints at its end."""
    return [line for line in lines if line.strip() and not BESIDES.match(line)]


def is_name(line: str) -> bool:
    """Whether the line tells what failed."""
    return any(pattern.match(line) for pattern in NAMES)


def shorten(lines: Sequence[str], lines_max: int) -> list[str]:
    """The first of them, and how many more there are."""
    if len(lines) <= lines_max:
        return list(lines)
    return [*lines[: lines_max - 1], f"… and {len(lines) - lines_max + 1} more"]


def cut(line: str) -> str:
    """The line, cut to fit."""
    return line if len(line) <= LINE_LENGTH_MAX else line[: LINE_LENGTH_MAX - 1] + "…"
