"""What the benchmarks ran on: numbers mean nothing without it."""

from __future__ import annotations

import datetime
import os
import platform
import re
import ssl
import subprocess
import zlib
from importlib import metadata
from pathlib import Path

from bench import ROOT, kernel

PACKAGES = (
    "hftws",
    "picows",
    "aiofastnet",
    "uvloop",
    "websocket-rs",
    "websockets",
    "aiohttp",
    "websocket-client",
    "orjson",
    "Cython",
    "ziglang",
)


def describe() -> dict[str, str]:
    """What a reader needs to judge the numbers, by name."""
    cpus = len(os.sched_getaffinity(0))
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "cpu": f"{cpu_model()}, {cpus} CPUs; client on {kernel.CLIENT_CPU}, "
        f"server on {kernel.SERVER_CPU}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "openssl": ssl.OPENSSL_VERSION,
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "packages": ", ".join(installed()),
    }


def installed() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    text = Path("/proc/cpuinfo").read_text()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.processor() or "unknown CPU"


def commit() -> str:
    """The commit of the checkout, and whether files were changed since."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
