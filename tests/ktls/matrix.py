"""Runs every kernel with every OpenSSL, some at a time, and makes a table of the results."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from release.debian import PackageError, Unavailable

from . import host, kernel, openssl, xstate
from .errors import RigError
from .initramfs import CONTROL, Task
from .machine import Result, boot, stop_all
from .outcome import MISSING, OTHERS, Outcome, Plan, summary, why_failed

__all__ = ["environment", "folder", "provide_shim", "test"]

ROOT = Path(__file__).parents[2]

#: Variables of our environment that a command in the guest gets.
PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "CI")

#: A new page takes user-mode-linux long. So the C library has to keep the memory that it got:
#: receiving large messages in Python then takes a fifth of the time.
GUEST = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
}

OUTPUT_LINES = 100


def folder() -> Path:
    """Where the rig keeps what it fetched."""
    path = ROOT / "build" / "ktls"
    path.mkdir(parents=True, exist_ok=True)
    return path


def environment() -> dict[str, str]:
    """The environment of a command in the guest: the checkout's extension, and no caches."""
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


def test(
    suites: list[str], *, engine: str, jobs: int | None, timeout_s: float, xstate_shim: str
) -> int:
    """The exit code: 0 when nothing failed."""
    kernel.check_machine()
    memory, jobs = host.place(jobs)
    with ThreadPoolExecutor(jobs) as pool:
        # Each of them once. If one is unavailable, every boot that needs it reports that.
        shim = pool.submit(provide_shim, xstate_shim)
        kernels = {suite: pool.submit(kernel.provide, suite, folder()) for suite in suites}
        pythons = {
            version: pool.submit(openssl.provide, version, folder())
            for version in (openssl.HOST, *openssl.VERSIONS)
        }
        rig = Rig(kernels, pythons, shim, memory, engine, timeout_s)
        submitted = [pool.submit(carry_out, plan, rig) for plan in plans(suites)]
        try:
            outcomes = [outcome.result() for outcome in submitted]
        except BaseException:  # Asked to end: no further boot begins, and those that run are ended.
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(outcome.done() for outcome in submitted):
                stop_all()
                time.sleep(0.1)
            raise
    notes = [f"{jobs} boots at a time, their memory in {memory}"]
    notes += [shim.result().reason] if shim.exception() is None else []
    print("\n".join(summary(outcomes, notes)))
    return 1 if any(outcome.failed for outcome in outcomes) else 0


@dataclass(frozen=True)
class Rig:
    """What the boots share."""

    kernels: dict[str, Future[kernel.Kernel]]
    #: The commands that start Python, by the version of OpenSSL.
    pythons: dict[str, Future[list[str]]]
    shim: Future[xstate.Shim]
    #: The folder for the memory of the guests.
    memory: Path
    engine: str
    timeout_s: float


def provide_shim(mode: str) -> xstate.Shim:
    """What the kernels need to run on this host."""
    try:
        size = xstate.area_size()
    except OSError as error:
        raise Unavailable(f"no process can be traced here, as the kernels do: {error}") from error
    return xstate.choose(mode, size, folder())


def carry_out(plan: Plan, rig: Rig) -> Outcome:
    """One boot, and its result."""
    try:
        return attempt(plan, rig)
    except Unavailable as reason:
        return Outcome(plan, skipped=str(reason))
    except (PackageError, RigError) as error:
        print(f"{plan.name}: {error}\n{last_lines(plan)}", flush=True)
        return Outcome(plan, failed=str(error).splitlines()[0])


def attempt(plan: Plan, rig: Rig) -> Outcome:
    """One boot. Its output is kept, and shown where a test failed."""
    guest, python = rig.kernels[plan.suite].result(), rig.pythons[plan.openssl].result()
    preload = rig.shim.result().under(guest.release)
    shared = folder() / "runs" / plan.name
    shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir(parents=True)
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp=/run/pytest"]
    pytest += ["--tb=short", "--durations=10", "-p", "tests.ktls.report"]
    reports = [f"--ktls-report={CONTROL}/report.json", f"--tls-engine={rig.engine}"]
    reports += [f"--ktls-without={module}" for module in plan.without]
    task = Task([*python, *pytest, *reports, *plan.tests], ROOT, environment())
    with (shared / "output").open("wb") as output:
        result = boot(
            guest,
            task,
            shared=shared,
            memory=rig.memory,
            output=output,
            timeout_s=rig.timeout_s,
            without=plan.without,
            preload=preload,
        )
    return judge(plan, shared, result)


def judge(plan: Plan, shared: Path, result: Result) -> Outcome:
    """The report that the tests write to a file; a process that crashed has written none."""
    file = shared / "report.json"
    report = json.loads(file.read_text()) if file.is_file() else {}
    failed = why_failed(result.status, report)
    if failed:
        print(f"{plan.name}: {failed}\n{last_lines(plan)}", flush=True)
    return Outcome(plan, result.seconds, report, result.tls_stat, failed=failed)


def last_lines(plan: Plan) -> str:
    """The last lines of the tests' output."""
    file = folder() / "runs" / plan.name / "output"
    text = file.read_text(errors="replace") if file.is_file() else ""
    return "\n".join(text.splitlines()[-OUTPUT_LINES:])
