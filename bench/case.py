"""The types with which a benchmark module describes itself: scales, cases, figures, targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from bench import wire


@dataclass(frozen=True)
class Scale:
    """How much is done: full, quick, or as little as a test needs."""

    name: str
    transports: tuple[str, ...]
    #: Messages of a burst, bursts of a process, and messages of the replay.
    messages: int
    bursts: int
    replayed: int
    #: Messages and orders that go one by one; messages of each traced stretch.
    singles: int
    traced: tuple[int, int]
    #: How many connections at a time, and how many for the memory that one takes.
    connections: tuple[int, ...]
    connections_held: int
    #: Orders sent in a row, times that is done, and starts of an interpreter.
    orders: int
    repetitions: int
    starts: int


SCALES = {
    "full": Scale(
        "full",
        ("plain", "aes128", "aes256"),
        8000,
        30,
        1920,
        1000,
        (50, 250),
        (1, 16, 256),
        16,
        100,
        60,
        15,
    ),
    "quick": Scale(
        "quick", ("plain", "aes128"), 8000, 7, 300, 200, (50, 150), (1, 16), 4, 100, 15, 3
    ),
    "tiny": Scale("tiny", ("plain", "aes128"), 64, 3, 40, 20, (5, 15), (1, 4), 2, 20, 3, 1),
}


@dataclass(frozen=True)
class Case:
    """One thing that every client does, in its own process, once a round."""

    benchmark: str
    #: One of `wire.SUITES`.
    transport: str
    #: What is special about it, for the reader.
    detail: str = ""
    #: Given to both halves; the server gets them as the query of the URL.
    parameters: Mapping[str, int] = field(default_factory=dict)
    #: Whether a further round would find the same, so that there is only one.
    once: bool = False

    @property
    def label(self) -> str:
        return ", ".join(filter(None, (wire.LABELS[self.transport], self.detail)))

    @property
    def secure(self) -> bool:
        return wire.SUITES[self.transport] is not None

    def url(self, base: str, **more: int) -> str:
        return f"{base}/{self.benchmark}?{urlencode({**self.parameters, **more})}"


@dataclass(frozen=True)
class Figure:
    """One column."""

    key: str
    title: str
    unit: str
    #: Whether there is a chart of it.
    plot: bool = False


@dataclass(frozen=True)
class Cell:
    """A figure of one client in one case."""

    client: str
    benchmark: str
    label: str
    figure: str


@dataclass(frozen=True)
class Target:
    """A measured figure that has to be at most `limit` times another, or `limit` itself."""

    title: str
    measured: Cell
    reference: Cell | None
    limit: float
