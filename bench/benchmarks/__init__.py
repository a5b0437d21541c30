"""The benchmarks: each module here is one, and README.md says what it has to have."""

from __future__ import annotations

import importlib
from types import ModuleType

#: In the order of the report.
NAMES = (
    "drain",
    "compression",
    "replay",
    "burst",
    "latency",
    "instructions",
    "echo",
    "send",
    "connections",
    "memory",
)


def load(name: str) -> ModuleType:
    return importlib.import_module(f"bench.benchmarks.{name}")


def missing(name: str) -> str:
    """Why a benchmark cannot run here; empty if it can."""
    reason: str = getattr(load(name), "missing", str)()
    return reason
