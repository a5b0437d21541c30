"""What is booted, its result, and how results are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MISSING", "OTHERS", "TESTS", "Outcome", "Plan", "summary", "why_failed"]

#: The tests of kTLS.
TESTS = ("tests/ktls", "--ignore=tests/ktls/test_missing.py")

#: Tests of other things, over TLS, with kTLS instead of their usual engine.
OTHERS = ("tests/test_messages.py", "tests/test_pinning.py", "tests/test_close.py", "-k", "wss")

#: The tests for kernels that lack something.
MISSING = ("tests/ktls/test_missing.py",)

#: The counters of /proc/net/tls_stat that are added up.
COUNTERS = ("TlsTxSw", "TlsRxSw", "TlsTxRekeyOk", "TlsRxRekeyOk", "TlsDecryptError")

#: How many of a boot's failed tests are named at the end.
NAMES_MAX = 5


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
    """The result of a boot."""

    plan: Plan
    #: How long it took; 0 unless the guest ended as it should, whether its tests passed or not.
    seconds: float = 0.0
    #: From the tests' own report: release, openssl, passed, failed, skipped, names.
    report: dict[str, Any] = field(default_factory=dict)
    tls_stat: dict[str, int] = field(default_factory=dict)
    #: Why there was no boot; empty when there was one.
    skipped: str = ""
    failed: str = ""

    @property
    def ran(self) -> bool:
        return self.seconds > 0


def why_failed(status: int, report: dict[str, Any]) -> str:
    """In one line, from the exit status of the tests and their report; empty when they passed."""
    failed, passed = int(report.get("failed", 0)), int(report.get("passed", 0))
    if not report:
        return f"exit status {status}, and no report of the tests"
    if failed:
        names = list(map(str, report.get("names", [])))
        more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
        return f"{failed} of {failed + passed} tests failed: {', '.join(names[:NAMES_MAX])}{more}"
    if status:
        return f"exit status {status}, though no test failed"
    return "" if passed else "no test passed"


def summary(outcomes: list[Outcome], notes: Iterable[str]) -> list[str]:
    """A table, notes, the counts; and last what failed.

    :param notes: of the whole run, a line each.
    """
    skipped = Counter(outcome.skipped for outcome in outcomes if outcome.skipped)
    failed = [outcome for outcome in outcomes if outcome.failed]
    ran = sum(outcome.ran for outcome in outcomes)
    counts = f"{ran} of {len(outcomes)} boots ran, {skipped.total()} skipped, {len(failed)} failed"
    return [
        *table(outcomes),
        *notes,
        *(f"skipped: {reason} ({count} boots)" for reason, count in skipped.items()),
        counts,
        *(f"{outcome.plan.name}: {outcome.failed}" for outcome in failed),
    ]


def table(outcomes: list[Outcome]) -> Iterator[str]:
    """A line for each boot."""
    heads = ["kernel", "OpenSSL", "tests", "passed", "failed", "skipped", "seconds", *COUNTERS]
    rows = [heads, *map(row, outcomes)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(heads))]
    for line in rows:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield "  ".join(cells).rstrip()


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
