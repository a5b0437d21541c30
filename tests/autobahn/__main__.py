"""Plays the cases of the Autobahn TestSuite against hftws. See the package's docstring."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import environment, report
from .runner import VARIANTS, Outcome, run
from .suite import SuiteError
from .verdicts import failures, missing_cases, summary

ROOT = Path(__file__).parents[2]


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn", description=__doc__)
    parser.add_argument("--variants", type=names, default=list(VARIANTS), metavar="NAMES")
    parser.add_argument(
        "--cases", type=names, metavar="NUMBERS", help="as in 6.4,9.1.1; without it, all"
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
    """Whether it is one of these, or in one of these sections."""
    return patterns is None or any(f"{case}.".startswith(f"{one}.") for one in patterns)


def main(arguments: list[str] | None = None) -> int:
    """Plays, reports, and returns the exit code."""
    options = parse(arguments)
    try:
        python = environment.provide()
        outcomes = [play_variant(python, name, options) for name in options.variants]
    except (environment.Unavailable, SuiteError) as error:
        print(f"The Autobahn TestSuite cannot run: {error}", file=sys.stderr)
        return 1
    if options.write:
        options.write.write_text(report.markdown(outcomes), encoding="utf-8")
        print(f"written to {options.write}")
    return 0 if all(map(passed, outcomes)) else 1


def play_variant(python: Path, name: str, options: argparse.Namespace) -> Outcome:
    """One variant, with its progress and its failures on the terminal."""
    started = time.monotonic()
    folder = options.reports / name
    outcome = run(python, VARIANTS[name], lambda case: is_wanted(case, options.cases), folder, show)
    show("")
    seconds = time.monotonic() - started
    print(f"\r{name}: {summary(outcome.picked, outcome.verdicts) or 'no case'}; {seconds:.0f} s")
    for line in missing_cases(outcome.cases):
        print(f"  {line}")
    for case, verdict in failures(outcome.picked, outcome.verdicts).items():
        print(f"  {case} {verdict}")
    if failures(outcome.picked, outcome.verdicts):
        print(f"  What was on the wire: {folder / 'index.html'}")
    return outcome


def passed(outcome: Outcome) -> bool:
    """Whether something was played, and nothing failed or was left out."""
    if not outcome.picked or missing_cases(outcome.cases):
        return False
    return not failures(outcome.picked, outcome.verdicts)


def show(case: str) -> None:
    """Progress, on one line of a terminal."""
    if sys.stdout.isatty():
        print(f"\r{case:<10}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
