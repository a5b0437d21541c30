"""Packages of a Python registry, fetched with pip, for tests that need more than is installed.

What cannot be had is :exc:`debian.Unavailable`, a reason to skip a test that says so. What can be
had and does not fit is :exc:`debian.PackageError`, and the test has failed.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tests.debian import PackageError, Unavailable

__all__ = ["pip"]

#: Seconds for one command: a compiler is a large package.
COMMAND_TIMEOUT = 600

#: Seconds to the second attempt: by itself, pip asks again only where there was no answer.
PAUSE = 5.0

#: What pip says of a registry that cannot be reached, or does not know what it should.
UNAVAILABLE = ("Retrying (", "HTTP error", "Connection", "timed out", "(from versions: none)")


def pip(python: str | Path, command: str, *arguments: str | Path) -> None:
    """``pip install`` or ``pip download``; once more when the registry has failed."""
    try:
        run(python, command, *arguments)
    except Unavailable:
        time.sleep(PAUSE)
        run(python, command, *arguments)


def run(python: str | Path, command: str, *arguments: str | Path) -> None:
    options = ("--quiet", "--disable-pip-version-check", "--retries=3", "--timeout=15")
    hidden = ("PYTHONPATH", "PYTHONHOME")
    try:
        done = subprocess.run(
            [python, "-m", "pip", command, *options, *arguments],
            env={name: value for name, value in os.environ.items() if name not in hidden},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"pip {command} took more than {COMMAND_TIMEOUT} s") from error
    if done.returncode == 0:
        return
    said = done.stderr.splitlines() or [f"pip {command} failed"]
    reason = next((line for line in said if line.startswith("ERROR: ")), said[-1])
    if any(sign in done.stderr for sign in UNAVAILABLE):
        raise Unavailable(reason)
    raise PackageError(done.stderr)
