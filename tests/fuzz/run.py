"""Runs the fuzz targets under libFuzzer and says what they found: `make fuzz`, `make fuzz-smoke`.

A target starts from its corpus and from every crash there ever was, and keeps what it finds in
`build/fuzz/<target>/`: inputs that reach new edges in `found`, inputs that fail beside it. The exit
code is 1 when a target found a failure or did not run, whatever the exit code of the fuzzer was.

    python tests/fuzz/run.py --seconds 600 records      # one target, ten minutes
    python tests/fuzz/run.py --seconds 0 --keep         # what was found becomes part of the corpus
    python tests/fuzz/run.py --seconds 60 --seed 1      # always the same inputs, in the same order

Without a seed, each run tries other inputs. With one, a run depends on nothing but the sources: it
does not go on from what others have found, and only how far it comes depends on the machine, unless
--runs tells that, too.

An input that fails is printed with the command that runs it again. Once the bug is fixed, the input
belongs into `tests/fuzz/crashes/<target>/`: `zig build test` gives it to the target from then on.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

FUZZ = Path(__file__).parent
ROOT = FUZZ.parents[1]
BUILD = ROOT / "build" / "fuzz"
TARGETS = sorted(folder.name for folder in (FUZZ / "corpus").iterdir())

#: Longer inputs are slower and reach nothing more: limits of 64 KiB have their own tests.
INPUT_SIZE_MAX = 4096

#: Seconds that one input may take.
INPUT_TIMEOUT = 20


class Missing(Exception):
    """What the fuzzer needs is not on this machine."""


def find_libfuzzer() -> list[Path]:
    """What to link: libFuzzer (Debian's libfuzzer-19-dev, or clang's), and its C++ library."""
    archives = [
        *Path("/usr/lib").glob("llvm-*/lib/libFuzzer.a"),
        *Path("/usr/lib").glob("llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-x86_64.a"),
    ]
    libraries = [
        next((file for file in Path("/usr/lib").glob(f"*-linux-gnu/{name}")), None)
        or next((file for file in Path("/lib").glob(f"*-linux-gnu/{name}")), None)
        for name in ("libstdc++.so.6", "libgcc_s.so.1")
    ]
    if not archives:
        raise Missing("there is no libFuzzer here (Debian has it in libfuzzer-19-dev)")
    found = [file for file in [max(archives), *libraries] if file is not None]
    if len(found) < 3:
        raise Missing("there is no C++ library for libFuzzer here")
    return found


def build(libfuzzer: list[Path]) -> Path:
    """Compiles all targets into one program."""
    command = [
        sys.executable, "-m", "ziglang", "build", "fuzz", "--prefix", str(BUILD),
        *(f"-Dlibfuzzer={file}" for file in libfuzzer),
        # No Python is involved, so build.zig does not have to ask an interpreter.
        "-Dpython-include=", "-Dmodule-file=none",
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, env={**os.environ, "ZIG_DEBUG_CMD": "1"}, check=True)
    return BUILD / "targets"


@dataclass
class Report:
    """The result of a run of one target."""

    target: str
    log: Path
    exit_code: int
    failures: list[Path]

    def __post_init__(self) -> None:
        self.text = self.log.read_text(errors="replace")

    def statistic(self, name: str) -> int:
        found = re.search(rf"stat::{name}:\s+(\d+)", self.text)
        return int(found[1]) if found else 0

    def edges(self, when: str) -> int:
        """Edges of the program that were reached: by the corpus (INITED), in the end (DONE)."""
        found = re.search(rf"{when}\s+cov: (\d+)", self.text)
        return int(found[1]) if found else 0

    @property
    def has_failed(self) -> bool:
        ran = self.statistic("number_of_executed_units") > 0
        return self.exit_code != 0 or bool(self.failures) or not ran

    @property
    def seed(self) -> str:
        """The seed that libFuzzer has chosen, or was given."""
        found = re.search(r"^INFO: Seed: (\d+)", self.text, re.MULTILINE)
        return found[1] if found else "?"

    def row(self) -> str:
        return (
            f"{self.target:12}{self.statistic('number_of_executed_units'):12,}"
            f"{self.statistic('average_exec_per_sec'):10,}/s"
            f"{self.edges('INITED'):8,} →{self.edges('DONE'):6,}"
            f"{self.statistic('new_units_added'):12,}"
            f"{self.statistic('slowest_unit_time_sec'):10} s"
            f"{self.statistic('peak_rss_mb'):8} MB"
            f"{len(self.failures):10}"
            f"{self.seed:>12}"
        )


HEADINGS = (
    f"{'target':12}{'executions':>12}{'rate':>12}{'edges':>16}{'new inputs':>12}"
    f"{'slowest':>12}{'memory':>11}{'failures':>10}{'seed':>12}"
)


def command_for(program: Path, target: str) -> list[str]:
    """The command with the options that all runs share."""
    folder = BUILD / target
    return [
        str(program),
        f"-dict={FUZZ / 'dictionaries' / target}.dict",
        f"-max_len={INPUT_SIZE_MAX}",
        f"-timeout={INPUT_TIMEOUT}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
    ]


def environment_for(target: str) -> dict[str, str]:
    return {**os.environ, "HFTWS_FUZZ_TARGET": target}


def failures_of(target: str) -> set[Path]:
    kinds = ("crash-*", "timeout-*", "oom-*", "leak-*")
    return {file for kind in kinds for file in (BUILD / target).glob(kind)}


def starting_points(target: str) -> Iterator[Path]:
    for kind in ("corpus", "crashes"):
        if (FUZZ / kind / target).is_dir():
            yield FUZZ / kind / target


@dataclass(frozen=True)
class Extent:
    """How long each target is run, and with which inputs."""

    seconds: int
    #: Executions, if they end before the seconds are over; 0 for no limit.
    runs: int
    #: The seed of libFuzzer's choices; None for a different one each time.
    seed: int | None

    def options(self) -> list[str]:
        options = [f"-max_total_time={self.seconds}"]
        if self.runs:
            options.append(f"-runs={self.runs}")
        if self.seed is not None:
            # Do not reread the folder of new inputs: when that happens depends on the clock.
            options += [f"-seed={self.seed}", "-reload=0"]
        return options


def folder_for_new_inputs(target: str, seed: int | None) -> Path:
    """What was found before is where a run starts, unless the run is to be repeatable."""
    if seed is None:
        folder = BUILD / target / "found"
    else:
        folder = BUILD / target / f"seed-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fuzz(program: Path, target: str, extent: Extent) -> Report:
    folder = BUILD / target
    new_inputs = folder_for_new_inputs(target, extent.seed)
    before = failures_of(target)
    command = [
        *command_for(program, target),
        *extent.options(),
        # New inputs go to the first folder.
        str(new_inputs),
        *map(str, starting_points(target)),
    ]
    log = folder / "log"
    with log.open("wb") as output:
        result = subprocess.run(
            command, env=environment_for(target), stdout=output, stderr=subprocess.STDOUT
        )
    return Report(target, log, result.returncode, sorted(failures_of(target) - before))


def keep(program: Path, target: str) -> None:
    """Adds to the corpus the found inputs that reach new edges."""
    command = [
        *command_for(program, target),
        "-merge=1",
        "-use_counters=0",  # Count new edges only, not how often an edge is taken.
        str(FUZZ / "corpus" / target),
        str(BUILD / target / "found"),
    ]
    subprocess.run(command, env=environment_for(target), check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=600, help="for each target (default: 600)")
    parser.add_argument("--runs", type=int, default=0, help="at most; for each target")
    parser.add_argument("--seed", type=int, help="above 0, to repeat a run (default: another one)")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time (default: 2)")
    parser.add_argument("--keep", action="store_true", help="add to the corpus what adds edges")
    arguments = parser.parse_args()
    targets = arguments.targets or TARGETS
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if arguments.seed is not None and not 0 < arguments.seed < 2**32:
        parser.error("a seed is a number from 1 to 4294967295")
    extent = Extent(arguments.seconds, arguments.runs, arguments.seed)

    try:
        program = build(find_libfuzzer())
    except Missing as missing:
        print(f"Fuzzing is skipped: {missing}.")
        return
    if arguments.seconds > 0:
        print(HEADINGS, flush=True)
        reports = []
        with ThreadPoolExecutor(arguments.jobs) as pool:
            runs = pool.map(lambda target: fuzz(program, target, extent), targets)
            for report in runs:
                print(report.row(), flush=True)
                reports.append(report)
        if any(report.has_failed for report in reports):
            raise SystemExit("\n".join(explain(report) for report in reports if report.has_failed))
    if arguments.keep:
        for target in targets:
            keep(program, target)


def explain(report: Report) -> str:
    lines = [f"\n{report.target}: exit code {report.exit_code}, see {report.log}"]
    lines += report.text.splitlines()[-40:]
    for failure in report.failures:
        program = (BUILD / "targets").relative_to(ROOT)
        file = failure.relative_to(ROOT)
        lines.append(f"again: HFTWS_FUZZ_TARGET={report.target} {program} {file}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
