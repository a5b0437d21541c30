"""Packages of a Python registry, fetched with pip, for tests that need more than is installed.

What cannot be fetched is :exc:`debian.Unavailable`, a reason to skip a test. What was fetched and
does not fit is :exc:`debian.PackageError`, and the test has failed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from release import debian

__all__ = ["pip"]

#: Seconds for one command: a compiler is a large package.
COMMAND_TIMEOUT = 600

#: Seconds to the second attempt: pip itself asks again only if there was no answer.
PAUSE = 5.0

#: pip's words for a registry that cannot be reached, or lacks what it should have.
UNAVAILABLE = ("Retrying (", "HTTP error", "Connection", "timed out", "(from versions: none)")


def pip(python: str | Path, command: str, *arguments: str | Path) -> None:
    """Runs ``pip install`` or ``pip download``; a second time when the registry has failed."""
    try:
        run(python, command, *arguments)
    except debian.Unavailable:
        time.sleep(PAUSE)
        run(python, command, *arguments)


def run(python: str | Path, command: str, *arguments: str | Path) -> None:
    options = ("--quiet", "--disable-pip-version-check", "--retries=3", "--timeout=15")
    hidden = ("PYTHONPATH", "PYTHONHOME")
    debian.run(
        *(str(part) for part in (python, "-m", "pip", command, *options, *arguments)),
        environment={name: value for name, value in os.environ.items() if name not in hidden},
        timeout=COMMAND_TIMEOUT,
        error_prefix="ERROR: ",
        unavailable=UNAVAILABLE,
    )
