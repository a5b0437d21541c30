"""The market that all connections see: how far it is, and its order books at that moment.

At recorded speed it starts with the first stream that anybody asks for, and then goes on with the
clock, whether or not anybody listens. At a fixed rate each connection moves at that rate, and the
market is where the one that is furthest is. A connection joins at the present.
"""

from __future__ import annotations

from .order_book import OrderBook, book_histories
from .recording import Encoding, Message, Recording
from .repeats import Repeats
from .schedule import Schedule


class Market:
    """A recording that is played for ever. Times are seconds of one clock.

    A place in it is recorded time in ns, counted on over all laps.
    """

    def __init__(self, recording: Recording, schedule: Schedule, place_ns: int = 0) -> None:
        self.recording = recording
        self.schedule = schedule
        self._histories = book_histories(recording)
        self._repeats = Repeats(recording, self._histories)
        self._place_ns = place_ns
        self._reached_at: float | None = None

    def place_ns(self, now: float) -> int:
        """Return the place that the market has reached: what lies before it has happened."""
        if self._reached_at is None:
            return self._place_ns
        return self._place_ns + self.schedule.advance(now - self._reached_at)

    def join(self, now: float) -> int:
        """Return the present place, for a connection; with the first one the market starts."""
        self._place_ns, self._reached_at = self.place_ns(now), now
        return self._place_ns

    def reach(self, place_ns: int, at: float) -> None:
        """Note how far a connection is."""
        if place_ns > self._place_ns:
            self._place_ns, self._reached_at = place_ns, at

    def frame(self, message: Message, encoding: Encoding, lap: int) -> bytes:
        """Return the frame of a recorded message in this lap, counted from zero."""
        return self._repeats.frame(message, encoding, lap)

    def book(self, symbol: str, now: float) -> OrderBook | None:
        """Return the order book of this moment; None if the symbol was not recorded."""
        history = self._histories.get(symbol)
        return None if history is None else history.at(self.place_ns(now))
