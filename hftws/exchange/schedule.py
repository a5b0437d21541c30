"""When the next message is due: at recorded speed, N times faster, or at a fixed rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """Turns recorded time, in ns, into time to wait, in seconds."""

    def gap(self, recorded_ns: int) -> float:
        """Return how long to wait between two messages recorded `recorded_ns` apart."""

    def advance(self, elapsed: float) -> int:
        """Return how far the recording moves on in `elapsed` seconds without a message."""


@dataclass(frozen=True)
class RecordedSpeed:
    """The spacing of the recording, `factor` times faster."""

    factor: float = 1.0

    def gap(self, recorded_ns: int) -> float:
        """Return the recorded gap, shortened."""
        return recorded_ns / self.factor / 1e9

    def advance(self, elapsed: float) -> int:
        """Return the time elapsed, lengthened."""
        return int(elapsed * self.factor * 1e9)


@dataclass(frozen=True)
class FixedRate:
    """`per_second` messages a second, evenly spaced. The recording waits while nothing is sent."""

    per_second: float

    def gap(self, recorded_ns: int) -> float:
        """Return the same gap for all."""
        return 1.0 / self.per_second

    def advance(self, elapsed: float) -> int:
        """Return zero: the recording waits."""
        return 0
