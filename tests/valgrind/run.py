"""Runs a program under valgrind's memcheck, and fails for errors that hftws's code makes.

    python tests/valgrind/run.py --ours _core errors.xml -- python .venv/bin/pytest ...

CPython, OpenSSL and the extensions of others make errors of their own, different ones in each
version: a file of suppressions would never be complete, and each entry would hide ours as well. So
the judgement goes by the stack of an error instead:

- To read or write where nothing is, or to free what was freed, is an error wherever it happens:
  CPython does not do it, and if it does, it is with memory that it has from us.
- A leak, a decision by bytes that were never written, and a system call that is given such bytes
  are ours when our object is on the stack below any frame of the interpreter's own loop: what a
  callback does, Python does.

Where the program is built with -Dvalgrind, the bytes of a ring that hold no message count as never
written (src/ringbuffer.zig).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

#: Errors that always count, whoever makes them.
ALWAYS = {
    "InvalidRead",
    "InvalidWrite",
    "InvalidJump",
    "InvalidFree",
    "MismatchedFree",
    "Overlap",
    "InvalidMemPool",
    "ClientCheck",
}

#: Errors that count only if our code made them.
OURS = {"UninitCondition", "UninitValue", "SyscallParam", "Leak_DefinitelyLost"}

#: What runs Python code: frames above it are the caller's, not the culprit's.
INTERPRETER = "_PyEval_EvalFrameDefault"

VALGRIND = [
    "valgrind",
    "--tool=memcheck",
    "--quiet",
    "--xml=yes",
    "--leak-check=full",
    "--show-leak-kinds=definite",
    "--num-callers=30",
    "--error-limit=no",
    "--child-silent-after-fork=yes",
    # It runs one thread at a time, and by default a thread that spins keeps its turn.
    "--fair-sched=try",
    "--suppressions=" + str(Path(__file__).with_name("core.supp")),
]


def is_ours(error: ElementTree.Element, module: str) -> bool:
    """Whether an object of this name is ours."""
    kind = error.findtext("kind")
    if kind in ALWAYS:
        return True
    if kind not in OURS:
        return False
    for frame in error.find("stack") or ():
        if frame.findtext("fn") == INTERPRETER:
            return False
        if module in Path(frame.findtext("obj") or "").name:
            return True
    return False


def describe(error: ElementTree.Element) -> str:
    """The error as valgrind prints it, more or less."""
    what = error.findtext("what") or error.findtext("xwhat/text")
    lines = [f"{error.findtext('kind')}: {what}"]
    for part in error:
        if part.tag == "auxwhat":
            lines.append(f"  {part.text}")
        for frame in part if part.tag == "stack" else ():
            name = frame.findtext("fn") or "?"
            file = frame.findtext("file") or Path(frame.findtext("obj") or "?").name
            lines.append(f"    {name} ({file}:{frame.findtext('line') or '?'})")
    return "\n".join(lines)


def main() -> int:
    """0 when the program succeeded and no error is ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", default="_core", help="in the name of the object to judge")
    parser.add_argument("report", type=Path, help="valgrind's report, which is written")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()

    report = arguments.report
    report.unlink(missing_ok=True)
    command = [*VALGRIND, f"--xml-file={report}", *arguments.command]
    # Python's own allocator would hide from valgrind what is allocated and freed.
    status = subprocess.run(command, env={**os.environ, "PYTHONMALLOC": "malloc"}).returncode

    errors = ElementTree.parse(report).getroot().findall("error")
    ours = [error for error in errors if is_ours(error, arguments.ours)]
    for error in ours:
        print(describe(error), end="\n\n", file=sys.stderr)
    print(f"memcheck: {len(ours)} errors of ours, {len(errors) - len(ours)} of others")
    return status or bool(ours)


if __name__ == "__main__":
    sys.exit(main())
