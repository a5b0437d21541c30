"""Builds a wheel for one cell of the table, and the source distribution."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .headers import headers
from .matrix import Platform, Python

ROOT = Path(__file__).parents[1]
#: Fetched and intermediate files.
WORK = ROOT / "build" / "wheels"

#: Midnight of 1 January 2020, UTC: the date of every file in what is built, so that two builds of
#: the same sources are the same bytes (https://reproducible-builds.org).
SOURCE_DATE_EPOCH = "1577836800"


def build_wheel(python: Python, platform: Platform, target: Path) -> Path:
    """Builds into the folder `target`, with the running interpreter."""
    variables = {
        "ZIG_TARGET": platform.target,
        "HFTWS_BUILD_PYTHON": python.name,
        "HFTWS_BUILD_PYTHON_INCLUDE": str(headers(python, WORK / "headers")),
    }
    return hatchling("wheel", target, variables)


def build_sdist(target: Path) -> Path:
    """Builds into the folder `target`."""
    return hatchling("sdist", target, {})


def hatchling(kind: str, target: Path, variables: dict[str, str]) -> Path:
    """Runs the build backend and returns the file that it made."""
    WORK.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH, **variables}
    # An archive of libipsec-mb has code for one machine; released wheels look for the library.
    environment.pop("HFTWS_BUILD_IPSEC_MB", None)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder]
        result = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
        )
        if result.returncode != 0:
            raise SystemExit(result.stdout + result.stderr)
        (built,) = Path(folder).iterdir()
        return Path(shutil.move(built, target / built.name))
