"""The floors: programs in C that do what a client does, with nothing around it."""

from __future__ import annotations

import json
import subprocess
from typing import Any
from urllib.parse import urlsplit

from bench import toolchain


def measure(url: str, ca_file: str, arguments: list[str], *, reader: str) -> dict[str, Any]:
    """Runs the program. It returns what a benchmark's own `measure` returns."""
    parts = urlsplit(url)
    library = "-" if reader == "read" else toolchain.libssl()
    command = [
        str(toolchain.FLOOR), reader, str(parts.port), f"{parts.path}?{parts.query}",
        ca_file, library, *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"floor: exit code {done.returncode}: {done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
