"""Plays the cases of the Autobahn TestSuite against hftws. See the package's docstring."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import environment, report
from .runner import VARIANTS, Outcome, run
from .suite import SuiteError
from .verdicts import failures, missing_cases, summary

ROOT = Path(__file__).parents[2]


class Stopped(Exception):
    """Another variant has failed, or somebody pressed Ctrl-C."""


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn", description=__doc__)
    parser.add_argument("--variants", type=names, default=list(VARIANTS), metavar="NAMES")
    parser.add_argument(
        "--cases", type=names, metavar="NUMBERS", help="as in 6.4,9.1.1; without it, all"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="variants at a time; all CPUs"
    )
    parser.add_argument("--reports", type=Path, default=ROOT / "build" / "autobahn")
    parser.add_argument("--write", type=Path, help="the page for docs/; for a run of everything")
    options = parser.parse_args(arguments)
    for name in options.variants:
        if name not in VARIANTS:
            parser.error(f"there is no variant {name!r}, but {', '.join(VARIANTS)}")
    if options.write and (options.cases or len(options.variants) < len(VARIANTS)):
        parser.error("--write is for a run of all cases and variants")
    return options


def is_wanted(case: str, patterns: list[str] | None) -> bool:
    """Whether the case is one of these, or in one of these sections."""
    return patterns is None or any(f"{case}.".startswith(f"{one}.") for one in patterns)


def main(arguments: list[str] | None = None) -> int:
    """Plays, reports, and returns the exit code."""
    options = parse(arguments)
    try:
        python = environment.provide()
        outcomes = play_variants(python, options)
    except (environment.Unavailable, SuiteError) as error:
        print(f"The Autobahn TestSuite cannot run: {error}", file=sys.stderr)
        return 1
    if options.write:
        options.write.write_text(report.markdown(outcomes), encoding="utf-8")
        print(f"written to {options.write}")
    return 0 if all(map(passed, outcomes)) else 1


def play_variants(python: Path, options: argparse.Namespace) -> list[Outcome]:
    """Plays some variants at a time. An error in one, or Ctrl-C, ends all at their next case."""
    stopping = threading.Event()
    with ThreadPoolExecutor(options.jobs) as pool:
        plays = [
            pool.submit(play_variant, python, name, options, stopping) for name in options.variants
        ]
        try:
            return [play.result() for play in plays]
        except BaseException:
            stopping.set()
            raise


def play_variant(
    python: Path, name: str, options: argparse.Namespace, stopping: threading.Event
) -> Outcome:
    """One variant, with its progress and its failures on the terminal."""

    def wanted(case: str) -> bool:
        return is_wanted(case, options.cases)

    def played(case: str) -> None:
        if stopping.is_set():
            raise Stopped
        show(f"{name} {case}")

    started = time.monotonic()
    folder = options.reports / name
    outcome = run(python, VARIANTS[name], wanted, folder, played)
    seconds = time.monotonic() - started
    show("")
    print("\n".join([f"\r{name}: {told(outcome)}; {seconds:.0f} s", *complaints(outcome, folder)]))
    return outcome


def told(outcome: Outcome) -> str:
    """The verdicts in one line."""
    return summary(outcome.picked, outcome.verdicts) or "no case"


def complaints(outcome: Outcome, folder: Path) -> list[str]:
    """What did not pass, and where to look."""
    failed = failures(outcome.picked, outcome.verdicts)
    lines = [*missing_cases(outcome.cases), *(f"{case} {failed[case]}" for case in failed)]
    if failed:
        lines.append(f"what was on the wire: {folder / 'index.html'}")
    return [f"  {line}" for line in lines]


def passed(outcome: Outcome) -> bool:
    """Whether something was played, and nothing failed or was left out."""
    if not outcome.picked or missing_cases(outcome.cases):
        return False
    return not failures(outcome.picked, outcome.verdicts)


def show(progress: str) -> None:
    """Shows progress on one line of a terminal."""
    if sys.stdout.isatty():
        print(f"\r{progress:<30}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
