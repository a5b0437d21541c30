"""An order-book program as Binance's documentation describes it, over hftws, for tests.

It knows nothing of the simulated exchange: it buffers the diffs, asks for a snapshot, drops what is
older, checks that the first event spans the snapshot and each other one follows the one before, and
starts again when one does not.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import hftws

Side = dict[Decimal, Decimal]


class OrderBookProgram:
    """Keeps the book of one symbol."""

    def __init__(self, rest_url: str, symbol: str, ca_file: str | None) -> None:
        self.symbol = symbol
        self.snapshot_url = f"{rest_url}/api/v3/depth?symbol={symbol.upper()}&limit=5000"
        self.ca_file = ca_file
        self.bids: Side = {}
        self.asks: Side = {}
        #: The `u` of the last event in the book; None while there is no book.
        self.last_id: int | None = None
        self.buffer: list[dict[str, Any]] = []
        self.snapshots = self.stale_snapshots = self.gaps = self.applied = 0

    def on_msg(self, msg: hftws.Message) -> None:
        event = json.loads(bytes(msg.data))
        self.handle(event.get("data", event))

    def handle(self, event: dict[str, Any]) -> None:
        """Take an event of the stream, with or without a book to apply it to."""
        if self.last_id is None:
            self.buffer.append(event)
        else:
            self.apply(event)

    def synchronise(self) -> None:
        """Fetch a snapshot if there is no book but an event, and apply what is buffered."""
        if self.last_id is not None or not self.buffer:
            return
        snapshot = fetch(self.snapshot_url, self.ca_file)
        self.snapshots += 1
        if snapshot["lastUpdateId"] < self.buffer[0]["U"] - 1:
            self.stale_snapshots += 1
            return
        self.bids, self.asks = sides(snapshot)
        self.last_id = snapshot["lastUpdateId"]
        buffered, self.buffer = self.buffer, []
        for event in buffered:
            self.handle(event)

    def apply(self, event: dict[str, Any]) -> None:
        assert self.last_id is not None
        if event["u"] <= self.last_id:
            return  # The snapshot has it.
        if event["U"] > self.last_id + 1:
            self.gaps += 1
            self.last_id = None
            self.buffer = [event]
            return
        for side, changes in ((self.bids, event["b"]), (self.asks, event["a"])):
            for price, quantity in changes:
                if Decimal(quantity):
                    side[Decimal(price)] = Decimal(quantity)
                else:
                    side.pop(Decimal(price), None)
        self.last_id = event["u"]
        self.applied += 1
        assert max(self.bids) < min(self.asks), "the book is crossed"


def fetch(url: str, ca_file: str | None) -> dict[str, Any]:
    response = hftws.get(url, ca_file=ca_file)
    assert response.status == 200
    snapshot: dict[str, Any] = json.loads(response.body)
    return snapshot


def sides(snapshot: dict[str, Any]) -> tuple[Side, Side]:
    bids, asks = (
        {Decimal(price): Decimal(quantity) for price, quantity in snapshot[name]}
        for name in ("bids", "asks")
    )
    return bids, asks
