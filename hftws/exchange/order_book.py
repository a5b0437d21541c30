"""The order book at every moment of a recording, as a REST snapshot has it.

A recording holds changes of the book, not the book. What it starts with is the levels that it goes
on to change, on their side of the first best bid and ask, each with the first quantity that it is
given; less those that a price went through before, which cannot have been there. Such a book is
sorted, never crossed and large, and takes every recorded update: the first one follows its
`lastUpdateId` without a gap.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from .recording import Message, Recording

Level = list[str]
"""Price and quantity."""

Side = dict[Decimal, Level]
"""Bids or asks, by price."""

_DEPTH: Final = "@depth@100ms"


@dataclass(frozen=True)
class OrderBook:
    """Bids and asks, best first."""

    last_update_id: int
    bids: list[Level]
    asks: list[Level]

    def to_json(self, limit: int) -> dict[str, object]:
        """Return the best `limit` levels of each side, as Binance's snapshot has them."""
        return {
            "lastUpdateId": self.last_update_id,
            "bids": self.bids[:limit],
            "asks": self.asks[:limit],
        }


@dataclass(frozen=True)
class _Update:
    """A recorded change of the book."""

    offset_ns: int
    last_id: int
    bids: Side
    asks: Side


class BookHistory:
    """The book of one symbol, all through the recording and each time that it is played again."""

    def __init__(self, recording: Recording, symbol: str) -> None:
        start_ns = recording.messages[0].time_ns
        recorded = [message for message in recording.messages if message.stream == symbol + _DEPTH]
        events = [json.loads(message.payload) for message in recorded]
        self._lap_ns = recording.lap_ns
        self._updates = [
            _Update(message.time_ns - start_ns, event["u"], _side(event["b"]), _side(event["a"]))
            for message, event in zip(recorded, events, strict=True)
        ]
        self._offsets_ns = [update.offset_ns for update in self._updates]
        self._before_first_id: int = events[0]["U"] - 1
        self._opening = _opening(self._updates, _first_ticker(recording, symbol))
        self.first_message = recorded[0]
        """The first change of the book."""

    @property
    def ids_per_lap(self) -> int:
        """How many update ids the recording takes: the next lap's begin after them."""
        return self._updates[-1].last_id - self._before_first_id

    def at(self, place_ns: int) -> OrderBook:
        """Return the book that all updates before this place have made, over all laps."""
        lap, offset_ns = divmod(place_ns, self._lap_ns)
        count = bisect_left(self._offsets_ns, offset_ns)
        if lap and not count:  # Only its first update turns the last book into the first one again.
            lap, count = lap - 1, len(self._updates)
        bids, asks = self._after(count)
        last_id = self._updates[count - 1].last_id if count else self._before_first_id
        return OrderBook(
            last_id + lap * self.ids_per_lap,
            [bids[price] for price in sorted(bids, reverse=True)],
            [asks[price] for price in sorted(asks)],
        )

    def repeated_first_event(self) -> bytes:
        """Return the first update as it has to be in each later lap, with the ids of the first.

        It also takes back what the recording has done to the book: all of it goes on from there.
        """
        event = json.loads(self.first_message.payload)
        first, closing = self._updates[0], self._after(len(self._updates))
        for key, was, is_again, recorded, falling in (
            ("b", closing[0], self._opening[0], first.bids, True),
            ("a", closing[1], self._opening[1], first.asks, False),
        ):
            changes = {
                price: is_again.get(price, [was.get(price, [""])[0], "0.00000000"])
                for price in was.keys() | is_again.keys()
                if was.get(price) != is_again.get(price)
            }
            changes.update(recorded)
            event[key] = [changes[price] for price in sorted(changes, reverse=falling)]
        return json.dumps(event, separators=(",", ":")).encode()

    def _after(self, count: int) -> tuple[Side, Side]:
        """Return the sides after this many updates of a lap."""
        bids, asks = dict(self._opening[0]), dict(self._opening[1])
        for update in self._updates[:count]:
            _apply(bids, update.bids)
            _apply(asks, update.asks)
        return bids, asks


def book_histories(recording: Recording) -> dict[str, BookHistory]:
    """Return the history of every recorded symbol, by its name in upper case."""
    symbols = {stream.partition("@")[0] for stream in recording.streams}
    return {symbol.upper(): BookHistory(recording, symbol) for symbol in sorted(symbols)}


def _first_ticker(recording: Recording, symbol: str) -> dict[str, Any]:
    def is_ticker(message: Message) -> bool:
        return message.stream == f"{symbol}@bookTicker"

    ticker: dict[str, Any] = json.loads(next(filter(is_ticker, recording.messages)).payload)
    return ticker


def _opening(updates: list[_Update], ticker: dict[str, Any]) -> tuple[Side, Side]:
    best_bid, best_ask = Decimal(ticker["b"]), Decimal(ticker["a"])
    bids = _first_quantities([ticker["b"], ticker["B"]], (update.bids for update in updates))
    asks = _first_quantities([ticker["a"], ticker["A"]], (update.asks for update in updates))
    bids = {price: level for price, level in bids.items() if price <= best_bid}
    asks = {price: level for price, level in asks.items() if price >= best_ask}
    _remove_what_would_cross(bids, asks, updates)
    return bids, asks


def _first_quantities(best: Level, updates: Iterable[Side]) -> Side:
    levels = {Decimal(best[0]): best}
    for update in updates:
        for price, level in update.items():
            if Decimal(level[1]):
                levels.setdefault(price, level)
    return levels


def _remove_what_would_cross(bids: Side, asks: Side, updates: list[_Update]) -> None:
    """Remove the levels that the other side passes before the recording mentions them."""
    unmentioned_bids, unmentioned_asks = set(bids), set(asks)
    real_bids: Side = {}
    real_asks: Side = {}
    for update in updates:
        _apply(real_bids, update.bids)
        _apply(real_asks, update.asks)
        unmentioned_bids -= update.bids.keys()
        unmentioned_asks -= update.asks.keys()
        if real_asks:
            best_ask = min(real_asks)
            passed = {price for price in unmentioned_bids if price >= best_ask}
            _remove(passed, bids, unmentioned_bids)
        if real_bids:
            best_bid = max(real_bids)
            passed = {price for price in unmentioned_asks if price <= best_bid}
            _remove(passed, asks, unmentioned_asks)


def _remove(prices: set[Decimal], levels: Side, unmentioned: set[Decimal]) -> None:
    unmentioned -= prices
    for price in prices:
        del levels[price]


def _side(levels: Iterable[Level]) -> Side:
    return {Decimal(level[0]): level for level in levels}


def _apply(side: Side, changes: Side) -> None:
    for price, level in changes.items():
        if Decimal(level[1]):
            side[price] = level
        else:
            side.pop(price, None)
