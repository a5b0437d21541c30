"""The table of `python -m hftws demo`, in made-up time."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from hftws import demo

STAGE = dict.fromkeys(demo.COLUMNS, 0)


class Terminal(io.StringIO):
    """What is drawn, frame by frame."""

    def __init__(self, *, live: bool) -> None:
        super().__init__()
        self.live = live

    def isatty(self) -> bool:
        return self.live

    @property
    def frames(self) -> int:
        return self.getvalue().count("latency, µs")


class SlowClient:
    """Gets nothing: each poll takes its timeout, and some a pause (Ctrl-Z, fg) more."""

    def __init__(self, pauses: dict[int, float]) -> None:
        self.now = 1000.0
        self.pauses = pauses
        self.timeouts: list[float] = []
        self.drawing_s = 0.0

    def poll(self, timeout: float) -> int:
        if timeout < 0:
            raise ValueError("timeout has to be 0 or more")
        self.now += timeout + self.pauses.get(len(self.timeouts), 0.0)
        self.timeouts.append(timeout)
        return 0

    def stats(self) -> dict[str, Any]:
        self.now += self.drawing_s
        return {"latency": dict.fromkeys(demo.STAGES, STAGE)}


def watch(
    monkeypatch: pytest.MonkeyPatch,
    pauses: dict[int, float],
    *,
    live: bool = True,
    drawing_s: float = 0.0,
) -> tuple[SlowClient, Terminal]:
    client: Any = SlowClient(pauses)
    client.drawing_s = drawing_s
    output = Terminal(live=live)
    monkeypatch.setattr(demo, "time", SimpleNamespace(monotonic=lambda: client.now))
    demo.watch(client, demo.Feed(), 10.0, output)
    return client, output


def test_the_table_is_drawn_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    client, output = watch(monkeypatch, {})
    assert client.timeouts == [0.5] * 20
    assert output.frames == 20


@pytest.mark.parametrize("pause", [0.7, 1.6, 5.0])
def test_after_a_pause_it_goes_on_as_before(monkeypatch: pytest.MonkeyPatch, pause: float) -> None:
    """After a pause, missed frames are not drawn one by one, and no timeout is negative."""
    client, output = watch(monkeypatch, {2: pause})
    assert client.now == pytest.approx(1010.0)
    assert client.timeouts[:-1] == pytest.approx([0.5] * (len(client.timeouts) - 1))
    assert output.frames == len(client.timeouts) < 20


def test_drawing_may_take_longer_than_a_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that was stopped with Ctrl-S, for example: messages are still received."""
    client, output = watch(monkeypatch, {}, drawing_s=2.0)
    assert client.timeouts == [0.5, 0.0, 0.0, 0.0, 0.0]
    assert output.frames == 5


def test_a_pause_beyond_the_end_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    client, output = watch(monkeypatch, {2: 60.0})
    assert len(client.timeouts) == output.frames == 3


@pytest.mark.parametrize("pauses", [{}, {3: 0.3}, {2: 5.2}])
def test_a_file_gets_the_first_table_and_the_last(
    monkeypatch: pytest.MonkeyPatch, pauses: dict[int, float]
) -> None:
    _, output = watch(monkeypatch, pauses, live=False)
    assert output.frames == 2
    assert "\x1b" not in output.getvalue()
