"""A plugin of pytest (``-p tests.ktls.report``) that tells the rig how tests in a guest went."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path

import pytest

OUTCOMES = ("passed", "failed", "error", "skipped")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ktls-report", type=Path, help="where to write how the run went, as JSON")
    parser.addoption("--ktls-without", help="a module that the kernel was booted without")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """How many tests passed, failed and were skipped, under which kernel and OpenSSL."""
    file = config.getoption("--ktls-report", None)
    if file is None:
        return
    counts = {name: len(terminalreporter.stats.get(name, [])) for name in OUTCOMES}
    bad = [*terminalreporter.stats.get("failed", []), *terminalreporter.stats.get("error", [])]
    report = {
        "release": os.uname().release,
        "openssl": ssl.OPENSSL_VERSION.split()[1],
        "passed": counts["passed"],
        "failed": counts["failed"] + counts["error"],
        "skipped": counts["skipped"],
        "names": [each.nodeid for each in bad],
    }
    file.write_text(json.dumps(report), encoding="utf-8")
