"""Compares hftws with other WebSocket clients and with C, side by side. See README.md."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bench import benchmarks, clients, machine, report, runner, toolchain
from bench.case import SCALES
from bench.clients import ClientSpec

ROUNDS = {"full": 5, "quick": 1, "tiny": 1}


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="less of everything, and one round")
    size.add_argument("--tiny", action="store_true", help="only to see whether it works")
    parser.add_argument("--only", type=names, default=list(benchmarks.NAMES), metavar="NAMES")
    parser.add_argument("--clients", type=names, default=list(clients.SPECS), metavar="NAMES")
    parser.add_argument("--rounds", type=int, help="full: 5, quick: 1")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    for name in options.only:
        if name not in benchmarks.NAMES:
            parser.error(f"there is no benchmark {name!r}, but {', '.join(benchmarks.NAMES)}")
    for name in options.clients:
        if name not in clients.SPECS:
            parser.error(f"there is no client {name!r}, but {', '.join(clients.SPECS)}")
    options.scale = "quick" if options.quick else "tiny" if options.tiny else "full"
    options.rounds = options.rounds or ROUNDS[options.scale]
    return options


def available(wanted: list[str]) -> tuple[list[ClientSpec], dict[str, str]]:
    """The clients that can run here, and why the others cannot."""
    found, left_out = [], {}
    for name in wanted:
        spec = clients.SPECS[name]
        if missing := spec.missing():
            left_out[name] = f"not installed: {', '.join(missing)}"
            continue
        try:
            prepare(spec)
        except toolchain.BuildError as error:
            left_out[name] = str(error)
            continue
        found.append(spec)
    return found, left_out


def prepare(spec: ClientSpec) -> None:
    """Compiles what the client needs."""
    if spec.module == "floor":
        toolchain.build_floor()
        if spec.options["reader"] != "read":
            toolchain.libssl()
    elif spec.module == "picows_cython_client":
        toolchain.build_listener()


def main(arguments: list[str] | None = None) -> int:
    """Runs, writes, and returns the exit code."""
    options = parse(arguments)
    specs, left_out = available(options.clients)
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    for name in [name for name in options.only if benchmarks.missing(name)]:
        left_out[name] = benchmarks.missing(name)
        options.only.remove(name)
    scale = SCALES[options.scale]
    cases = [case for name in options.only for case in benchmarks.load(name).cases(scale)]
    started = time.monotonic()
    try:
        outcomes = runner.run(runner.Plan(specs, cases, scale, options.rounds), show)
    except runner.ChecksumMismatch as error:
        print(f"\nwrong data: {error}", file=sys.stderr)
        return 1
    results = report.Results(outcomes)
    report.write(results, machine.describe(), left_out, options.output)
    print(f"\n{(options.output / 'results.md').read_text(encoding='utf-8')}")
    print(f"{time.monotonic() - started:.0f} seconds; written to {options.output}")
    return 1 if results.failures() else 0


def show(line: str) -> None:
    """Progress, on one line of a terminal."""
    if sys.stdout.isatty():
        print(f"\r{line:<100}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
