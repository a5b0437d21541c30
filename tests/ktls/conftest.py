"""Fixtures of the tests of kTLS, and their report for the rig that started them."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from servers import Serve
from tls_peers import Identity, Listener

from .support import KernelBed, TlsStat

OUTCOMES = ("passed", "failed", "error", "skipped")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ktls-report", type=Path, help="where to write how the run went, as JSON")
    parser.addoption("--ktls-without", help="a module that the kernel was booted without")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """How many tests did what, and under which kernel and OpenSSL."""
    file = config.getoption("--ktls-report", None)
    if file is None:
        return
    counts = {name: len(terminalreporter.stats.get(name, [])) for name in OUTCOMES}
    report = {
        "release": os.uname().release,
        "openssl": ssl.OPENSSL_VERSION.split()[1],
        "passed": counts["passed"],
        "failed": counts["failed"] + counts["error"],
        "skipped": counts["skipped"],
    }
    file.write_text(json.dumps(report), encoding="utf-8")


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """What is tested: kTLS, unless the option says that the tests themselves are."""
    return str(request.config.getoption("--tls-engine") or "ktls")


@pytest.fixture
def stat(engine: str) -> TlsStat:
    """The kernel's counters since the test has begun."""
    return TlsStat(engine)


@pytest.fixture
def tls_serve(serve: Serve) -> Serve:
    """``serve`` over TLS."""
    return lambda scripts, **options: serve(scripts, tls=True, **options)


@pytest.fixture(scope="module")
def bed(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelBed]:
    bed = KernelBed(Identity(ca, tmp_path_factory.mktemp("tls")), Listener())
    yield bed
    bed.close()
