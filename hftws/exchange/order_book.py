"""The order book at the start of a recording, as a REST snapshot.

A recording holds changes of the book, not the book. What is served is the levels that it goes on
to change, on their side of the first best bid and ask, each with the first quantity that it is
given. Such a book is sorted, not crossed and large, and takes every recorded update: the first one
follows its `lastUpdateId` without a gap.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .recording import Recording

Level = list[str]
"""Price and quantity."""


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


def opening_books(recording: Recording) -> dict[str, OrderBook]:
    """Return the opening book of every recorded symbol, by its name in upper case."""
    symbols = {stream.partition("@")[0] for stream in recording.streams}
    return {symbol.upper(): _opening_book(recording, symbol) for symbol in symbols}


def _opening_book(recording: Recording, symbol: str) -> OrderBook:
    updates = _events(recording, f"{symbol}@depth@100ms")
    ticker = _events(recording, f"{symbol}@bookTicker")[0]
    best_bid, best_ask = Decimal(ticker["b"]), Decimal(ticker["a"])
    bids = _first_quantities([ticker["b"], ticker["B"]], *(update["b"] for update in updates))
    asks = _first_quantities([ticker["a"], ticker["A"]], *(update["a"] for update in updates))
    return OrderBook(
        last_update_id=updates[0]["U"] - 1,
        bids=[bids[price] for price in sorted(bids, reverse=True) if price <= best_bid],
        asks=[asks[price] for price in sorted(asks) if price >= best_ask],
    )


def _events(recording: Recording, stream: str) -> list[dict[str, Any]]:
    return [
        json.loads(message.payload) for message in recording.messages if message.stream == stream
    ]


def _first_quantities(best: Level, *updates: Iterable[Level]) -> dict[Decimal, Level]:
    levels = {Decimal(best[0]): best}
    for update in updates:
        for price, quantity in update:
            if Decimal(quantity):
                levels.setdefault(Decimal(price), [price, quantity])
    return levels
