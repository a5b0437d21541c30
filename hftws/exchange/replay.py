"""Plays a recording to one connection, over and over.

`Playback` knows what is due at a given time and does no I/O; `play` sends it in real time. A client
that reads too slowly does not change the schedule: the messages it missed follow as soon as it
takes them, so that it cannot make its own latencies look better.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Collection
from typing import Final, Protocol

from .market import Market
from .recording import Encoding, Tape

BATCH_MAX: Final = 64
"""Messages sent before control messages get their turn."""

SPIN_MAX: Final = 0.002
"""The longest wait that is spun through when precise: event loops sleep in whole milliseconds."""


class Sink(Protocol):
    """Where the messages go."""

    def send_frames(self, frames: list[bytes]) -> None:
        """Send frames at once, or buffer them."""

    async def writable(self) -> None:
        """Wait until the client has taken enough of what is buffered."""


class Playback:
    """The place in the recording that a connection has reached.

    The place is recorded time, counted on over all laps: what lies before it was sent or passed
    over. All times that are passed in are seconds of one clock. If `drop` is not zero, every
    `drop`th depth update is passed over, too.
    """

    def __init__(self, market: Market, *, drop: int = 0) -> None:
        self._market = market
        self._schedule = market.schedule
        self._lap_ns = market.recording.lap_ns
        self._drop = drop
        self._depth_updates = 0
        self._encoding = Encoding()
        self._tape = Tape([], [], [])
        self._index = 0
        self._lap = 0
        self._place_ns = 0
        self._reached_at: float | None = None

    @property
    def due_at(self) -> float | None:
        """When the next message is due; None if no stream that was recorded is selected."""
        if self._reached_at is None or not self._tape.frames:
            return None
        return self._reached_at + self._schedule.gap(self._next_place_ns - self._place_ns)

    def select(self, streams: Collection[str], encoding: Encoding, now: float) -> None:
        """Play these streams from now on, the first ones from where the market is."""
        if self._reached_at is not None:
            self._move_on(now)
        elif streams:
            self._place_ns, self._reached_at = self._market.join(now), now
        self._tape = self._market.recording.tape(streams, encoding)
        self._encoding = encoding
        self._lap, offset_ns = divmod(self._place_ns, self._lap_ns)
        self._index = bisect_left(self._tape.offsets_ns, offset_ns)
        self._wrap()

    def take(self, now: float) -> list[bytes]:
        """Take the frames that are due, at most `BATCH_MAX` of them."""
        frames: list[bytes] = []
        while len(frames) < BATCH_MAX:
            due_at = self.due_at
            if due_at is None or due_at > now:
                break
            frame = self._next_frame()
            if frame is not None:
                frames.append(frame)
            # That nanosecond is lost, which is one in a million at the busiest of times.
            self._place_ns, self._reached_at = self._next_place_ns + 1, due_at
            self._market.reach(self._place_ns, due_at)
            self._index += 1
            self._wrap()
        return frames

    def _next_frame(self) -> bytes | None:
        """Return the frame of the next message; None if it is one to drop."""
        message = self._tape.messages[self._index]
        if self._drop and "@depth" in message.stream:
            self._depth_updates += 1
            if self._depth_updates % self._drop == 0:
                return None
        return self._market.frame(message, self._encoding, self._lap)

    @property
    def _next_place_ns(self) -> int:
        return self._lap * self._lap_ns + self._tape.offsets_ns[self._index]

    def _wrap(self) -> None:
        if self._index == len(self._tape.frames):
            self._index = 0
            self._lap += 1

    def _move_on(self, now: float) -> None:
        """Pass over what was not selected until now, but never over a message still to be sent."""
        assert self._reached_at is not None
        place_ns = self._place_ns + self._schedule.advance(now - self._reached_at)
        due_at = self.due_at
        if due_at is not None and self._next_place_ns <= place_ns:
            self._place_ns, self._reached_at = self._next_place_ns, due_at
        else:
            self._place_ns, self._reached_at = place_ns, now


class Player:
    """Sends a playback to a sink in real time."""

    def __init__(self, playback: Playback, sink: Sink, *, precise: bool) -> None:
        self._playback = playback
        self._sink = sink
        self._precise = precise
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()

    def select(self, streams: Collection[str], encoding: Encoding) -> None:
        """Play these streams from now on."""
        self._playback.select(streams, encoding, self._loop.time())
        self._wake.set()

    async def run(self) -> None:
        """Play until cancelled."""
        while True:
            frames = self._playback.take(self._loop.time())
            if frames:
                self._sink.send_frames(frames)
                await self._sink.writable()
            else:
                await self._wait()

    async def _wait(self) -> None:
        due_at = self._playback.due_at
        if due_at is not None and self._precise and due_at - self._loop.time() < SPIN_MAX:
            await asyncio.sleep(0)
            return
        self._wake.clear()
        timer = None if due_at is None else self._loop.call_at(due_at, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()
