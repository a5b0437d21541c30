"""Runs the steps of CI, and ends with what failed: see the package's docstring."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import summary
from .lanes import Lanes, Result
from .steps import FIRST, STEPS, TOTAL_LIMIT_S, Step

ROOT = Path(__file__).parents[2]

#: Tools that see no terminal wrap and cut their lines to this width.
COLUMNS = 200


@dataclass(frozen=True)
class Plan:
    """What runs, and when."""

    #: Runs alone. The others begin only when it has passed.
    first: Step
    #: Run side by side, some at a time.
    steps: Sequence[Step]
    #: Run one at a time, when those have ended.
    last: Sequence[Step] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when every step has passed."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.ci", description=__doc__)
    parser.add_argument(
        "steps",
        nargs="*",
        metavar="step",
        help=f"targets of the Makefile (default: {' '.join(step.name for step in STEPS)})",
    )
    parser.add_argument(
        "--last", action="append", default=[], metavar="step", help="runs alone, after the others"
    )
    parser.add_argument(
        "--lanes",
        type=int,
        default=min(summary.available_cpus(), 2),
        help="steps at a time; each takes a CPU, and some take two for a part of their time",
    )
    parser.add_argument(
        "--logs", type=Path, default=Path("build/ci"), help="the folder of the steps' outputs"
    )
    options = parser.parse_args(arguments)
    if options.lanes < 1:
        parser.error("--lanes has to be at least 1")
    os.environ.setdefault("COLUMNS", str(COLUMNS))
    logs = ROOT / options.logs
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    plan = Plan(
        FIRST,
        [Step(name) for name in options.steps] or STEPS,
        [Step(name) for name in options.last],
    )
    return run(plan, lanes=options.lanes, logs=logs, command=make)


def make(step: Step) -> list[str]:
    """The command of a step."""
    return ["make", step.name]


def run(plan: Plan, *, lanes: int, logs: Path, command: Callable[[Step], Sequence[str]]) -> int:
    """Runs the first step alone, and then the others, whether or not they fail."""
    began = time.monotonic()
    runner = Lanes(logs, command=command, deadline=began + TOTAL_LIMIT_S, folder=ROOT)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: runner.stop())
    results: list[Result] = []

    def begins(step: Step) -> None:
        log = os.path.relpath(logs / f"{step.name}.log")
        print(f"===== {step.name} begins; its output so far: {log}", flush=True)

    def ended(result: Result) -> None:
        """Prints the whole output of a step at once: that of two would be mixed."""
        results.append(result)
        print(f"===== {result.step.name}", flush=True)
        with result.log.open("rb") as log:
            shutil.copyfileobj(log, sys.stdout.buffer)
        print(f"===== {summary.line(result)}\n", flush=True)

    runner.run([plan.first], 1, begins=begins, ended=ended)
    if results[0].passed:
        runner.run(plan.steps, lanes, begins=begins, ended=ended)
        runner.run(plan.last, 1, begins=begins, ended=ended)
    not_begun = 1 + len(plan.steps) + len(plan.last) - len(results)
    seconds = time.monotonic() - began
    lines = summary.describe(results, lanes=lanes, seconds=seconds, not_begun=not_begun)
    print("\n".join(lines), flush=True)
    return 0 if not_begun == 0 and all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
