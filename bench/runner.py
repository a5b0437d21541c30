"""Runs the cases: servers, client processes, rounds."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import ROOT, benchmarks, server
from bench.case import Case, Scale
from bench.clients import ClientSpec

#: Seconds that a client process may take.
PROCESS_TIMEOUT = 120

#: Keeps glibc from giving freed memory back. Libraries that allocate a large buffer for each read
#: are ten times slower when it does, and whether it does depends on where in the heap they lie.
STEADY_HEAP = {"MALLOC_TRIM_THRESHOLD_": str(256 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}


class ChecksumMismatch(Exception):
    """A client did not deliver what was sent: then its times mean nothing, and the run ends."""


@dataclass(frozen=True)
class Outcome:
    """What one client process found, or why it failed."""

    case: Case
    client: str
    round: int
    figures: dict[str, float]
    raw: dict[str, Any]
    failure: str = ""


@dataclass(frozen=True)
class Plan:
    """What to run."""

    clients: list[ClientSpec]
    cases: list[Case]
    scale: Scale
    rounds: int
    #: More parameters for the servers; a test makes them send something else with it.
    more: dict[str, int] = dataclasses.field(default_factory=dict)

    def steps(self) -> Iterator[tuple[int, Case, ClientSpec]]:
        """The steps, interleaved: in each round, each case with all clients in turn."""
        for number in range(1, self.rounds + 1):
            for case in self.cases:
                if case.once and number > 1:
                    continue
                for client in self.clients:
                    if client.takes_part(case):
                        yield number, case, client


def run(plan: Plan, progress: Callable[[str], None]) -> list[Outcome]:
    """Runs all steps. Raises `ChecksumMismatch`; other failures are in the outcomes."""
    outcomes = []
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        certificates = server.Certificates.make(directory)
        base_urls = {
            transport: stack.enter_context(server.launch(transport, certificates, directory))
            for transport in {case.transport for case in plan.cases}
        }
        steps = list(plan.steps())
        for index, (number, case, client) in enumerate(steps, start=1):
            what = f"{case.benchmark}, {case.label}, {client.name}"
            progress(f"{index}/{len(steps)} round {number}: {what}")
            task = {
                "client": client.name,
                "case": dataclasses.asdict(case),
                "scale": plan.scale.name,
                "base_url": base_urls[case.transport],
                "ca_file": str(certificates.ca_file),
                "more": plan.more,
            }
            outcomes.append(outcome(case, client.name, number, task))
    return outcomes


def outcome(case: Case, client: str, number: int, task: dict[str, Any]) -> Outcome:
    """Runs one client process and checks what it delivered."""
    try:
        raw = run_worker(task)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return Outcome(case, client, number, {}, {}, failure=str(error))
    benchmark = benchmarks.load(case.benchmark)
    expected = benchmark.expected(case.parameters).as_list()
    if raw["checksum"] != expected:
        raise ChecksumMismatch(
            f"{client}, {case.benchmark}, {case.label}: messages, bytes and CRC are "
            f"{raw['checksum']} instead of {expected}"
        )
    return Outcome(case, client, number, benchmark.figures(raw, case), raw)


def run_worker(task: dict[str, Any]) -> dict[str, Any]:
    benchmark = benchmarks.load(task["case"]["benchmark"])
    steady_heap = STEADY_HEAP if getattr(benchmark, "STEADY_HEAP", True) else {}
    process = subprocess.run(
        [sys.executable, "-m", "bench.worker", json.dumps(task)],
        cwd=ROOT,
        env={**os.environ, **steady_heap},
        capture_output=True,
        text=True,
        timeout=PROCESS_TIMEOUT,
    )
    if process.returncode != 0:
        lines = (process.stderr.strip() or "no message").splitlines()
        raise RuntimeError(f"exit code {process.returncode}: {lines[-1]}")
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result
