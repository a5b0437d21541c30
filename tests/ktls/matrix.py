"""Every kernel with every OpenSSL, some at a time, and a table of how that went."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.debian import PackageError, Unavailable

from . import kernel, openssl
from .initramfs import CONTROL, Task
from .machine import Result, RigError, boot, stop_all

__all__ = ["environment", "folder", "test"]

ROOT = Path(__file__).parents[2]

#: Variables that a command in the guest gets from here.
PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "CI")

#: A new page takes user-mode-linux long. So the C library is to keep what it got: to receive large
#: messages in Python then takes a fifth of the time.
GUEST = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
}

#: The tests of kTLS.
TESTS = ("tests/ktls", "--ignore=tests/ktls/test_missing.py")

#: Tests of other things, over TLS with kTLS in the place of the engine that they have otherwise.
OTHERS = ("tests/test_messages.py", "tests/test_pinning.py", "tests/test_close.py", "-k", "wss")

#: The tests for kernels that lack something.
MISSING = ("tests/ktls/test_missing.py",)

OUTPUT_LINES = 100

#: What is summed up of /proc/net/tls_stat.
COUNTERS = ("TlsTxSw", "TlsRxSw", "TlsTxRekeyOk", "TlsRxRekeyOk", "TlsDecryptError")


@dataclass(frozen=True)
class Plan:
    """One boot."""

    suite: str
    openssl: str
    tests: tuple[str, ...] = TESTS
    #: Modules that are not loaded.
    without: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        kind = {TESTS: "ktls", OTHERS: "others", MISSING: "missing"}[self.tests]
        return "-".join((self.suite, "openssl", self.openssl, kind, *self.without))


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    plan: Plan
    seconds: float = 0.0
    #: Of the tests' own report: release, openssl, passed, failed, skipped.
    report: dict[str, Any] = field(default_factory=dict)
    tls_stat: dict[str, int] = field(default_factory=dict)
    #: Why there was no boot; empty when there was one.
    skipped: str = ""
    failed: str = ""

    @property
    def good(self) -> bool:
        """Whether tests were run, and all of them passed; or whether it could not be."""
        return bool(self.skipped) or (not self.failed and self.report["passed"] > 0)


def folder() -> Path:
    """Where the rig keeps what it fetched."""
    path = ROOT / "build" / "ktls"
    path.mkdir(parents=True, exist_ok=True)
    return path


def environment() -> dict[str, str]:
    """Of a command in the guest: the extension is the checkout's, and nothing is cached."""
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    passed |= {name: value for name, value in os.environ.items() if name.startswith("HFTWS_")}
    return {"HFTWS_TEST_PATIENCE": "3", **passed, **GUEST, "PYTHONPATH": str(ROOT)}


def plans(suites: list[str]) -> list[Plan]:
    """The long ones first. What is not about kTLS alone is run under the newest kernel only."""
    full = [Plan(suite, version) for suite in suites for version in (openssl.HOST, "3.5")]
    others = [Plan(suite, openssl.HOST, OTHERS) for suite in suites[-1:]]
    missing = [
        Plan(suite, openssl.HOST, MISSING, (module,))
        for suite in suites
        for module in ("tls", "gcm")
    ]
    return full + others + missing


def test(suites: list[str], *, engine: str, jobs: int, timeout_s: float) -> int:
    """The exit code: 0 when nothing failed."""
    with ThreadPoolExecutor(jobs) as pool:
        # Each of them once. What cannot be had, every boot that needs it tells.
        kernels = {suite: pool.submit(kernel.provide, suite, folder()) for suite in suites}
        pythons = {
            version: pool.submit(openssl.provide, version, folder())
            for version in (openssl.HOST, *openssl.VERSIONS)
        }
        submitted = [
            pool.submit(
                carry_out, plan, kernels[plan.suite], pythons[plan.openssl], engine, timeout_s
            )
            for plan in plans(suites)
        ]
        try:
            outcomes = [outcome.result() for outcome in submitted]
        except BaseException:  # Told to end: no boot begins any more, and none goes on.
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(outcome.done() for outcome in submitted):
                stop_all()
                time.sleep(0.1)
            raise
    print("\n".join(table(outcomes)))
    if all(outcome.skipped for outcome in outcomes):
        print(f"skipped: {outcomes[0].skipped}")
    return 0 if all(outcome.good for outcome in outcomes) else 1


def carry_out(
    plan: Plan,
    guest: Future[kernel.Kernel],
    python: Future[list[str]],
    engine: str,
    timeout_s: float,
) -> Outcome:
    """One boot, and what became of it."""
    try:
        return attempt(plan, guest.result(), python.result(), engine, timeout_s)
    except Unavailable as reason:
        return Outcome(plan, skipped=str(reason))
    except (PackageError, RigError) as error:
        print(f"{plan.name}: {error}\n{last_lines(plan)}", flush=True)
        return Outcome(plan, failed=str(error).splitlines()[0])


def attempt(
    plan: Plan, guest: kernel.Kernel, python: list[str], engine: str, timeout_s: float
) -> Outcome:
    """One boot. Its output is kept, and shown where a test failed."""
    shared = folder() / "runs" / plan.name
    shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir(parents=True)
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp=/run/pytest"]
    pytest += ["--tb=short", "--durations=10", "-p", "tests.ktls.report"]
    reports = [f"--ktls-report={CONTROL}/report.json", f"--tls-engine={engine}"]
    reports += [f"--ktls-without={module}" for module in plan.without]
    task = Task([*python, *pytest, *reports, *plan.tests], ROOT, environment())
    with (shared / "output").open("wb") as output:
        result = boot(
            guest, task, shared=shared, output=output, timeout_s=timeout_s, without=plan.without
        )
    return judge(plan, shared, result)


def judge(plan: Plan, shared: Path, result: Result) -> Outcome:
    """The tests tell in a file how they went; a process that crashed does not."""
    file = shared / "report.json"
    report = json.loads(file.read_text()) if file.is_file() else {}
    failed = "" if result.status == 0 and report else f"exit status {result.status}"
    if failed:
        print(f"{plan.name}: {failed}\n{last_lines(plan)}", flush=True)
    return Outcome(plan, result.seconds, report, result.tls_stat, failed=failed)


def last_lines(plan: Plan) -> str:
    """Of what the tests said."""
    file = folder() / "runs" / plan.name / "output"
    text = file.read_text(errors="replace") if file.is_file() else ""
    return "\n".join(text.splitlines()[-OUTPUT_LINES:])


def table(outcomes: list[Outcome]) -> list[str]:
    """A line for each boot."""
    heads = ["kernel", "OpenSSL", "tests", "passed", "failed", "skipped", "seconds", *COUNTERS]
    rows = [heads, *map(row, outcomes)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in rows
    ]
    reasons = [
        f"{outcome.plan.name}: {outcome.failed or 'skipped: ' + outcome.skipped}"
        for outcome in outcomes
        if outcome.failed or outcome.skipped
    ]
    return [*(line.rstrip() for line in lines), *reasons]


def row(outcome: Outcome) -> list[str]:
    """The cells of the table."""
    plan, report = outcome.plan, outcome.report
    return [
        str(report.get("release", plan.suite)),
        str(report.get("openssl", plan.openssl)),
        plan.name.split("-", 3)[-1],
        *(str(report.get(name, "-")) for name in ("passed", "failed", "skipped")),
        f"{outcome.seconds:.1f}",
        *(str(outcome.tls_stat.get(name, "-")) for name in COUNTERS),
    ]
