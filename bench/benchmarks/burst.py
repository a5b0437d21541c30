"""200 records at once: how long the first message waits, and how long the last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bench import stamping, wire
from bench.case import Case, Cell, Figure, Scale, Target

if TYPE_CHECKING:
    from bench.clients.base import Client
    from bench.server import Connection

NAME = "burst"
TITLE = "Burst: 200 records at once"
DESCRIPTION = (
    "200 messages of 300 bytes, each in a TLS record of its own, encrypted ahead and sent by one "
    "system call. Time from before the send to the callback, of a client that sleeps (or spins); "
    "and from the begin of the read, when all of them are waiting already, without a wake-up."
)

MESSAGES, MESSAGE_SIZE = 200, 300

FIGURES = (
    Figure("first", "1st, from the send", "µs", plot=True),
    Figure("hundredth", "100th, from the send", "µs"),
    Figure("last", "200th, from the send", "µs"),
    Figure("first_queued", "1st, from the read", "µs", plot=True),
    Figure("hundredth_queued", "100th, from the read", "µs"),
    Figure("last_queued", "200th, from the read", "µs", plot=True),
)


def cases(scale: Scale) -> Iterator[Case]:
    for transport in scale.transports:
        if transport != "plain":
            yield Case(NAME, transport)


def payloads() -> list[bytes]:
    return wire.market_messages(MESSAGES, MESSAGE_SIZE)


def units() -> list[bytes]:
    return [wire.text_frame(payload) for payload in payloads()]


def queued_size(case: Case) -> int:
    return wire.wire_size(units(), secure=case.secure)


def expected(parameters: Mapping[str, int]) -> wire.Checksum:
    return wire.Checksum.of(payloads())


def serve(connection: Connection, parameters: Mapping[str, int]) -> None:
    def send(sealed: list[bytes]) -> list[int]:
        joined = b"".join(sealed)
        sent = time.monotonic_ns()
        connection.socket.sendall(joined)
        return [sent]

    stamping.serve(connection, units(), send)


def measure(open_client: Callable[..., Client], case: Case, scale: Scale) -> dict[str, Any]:
    return stamping.measure(
        open_client, case, messages=MESSAGES, bursts=scale.bursts, queued_size=queued_size(case)
    )


def floor_arguments(case: Case, scale: Scale) -> list[str]:
    return stamping.floor_arguments(
        case, messages=MESSAGES, bursts=scale.bursts, queued_size=queued_size(case)
    )


def figures(raw: Mapping[str, Any], case: Case) -> dict[str, float]:
    places = {"first": 0, "hundredth": MESSAGES // 2 - 1, "last": MESSAGES - 1}
    found = {}
    for name, index in places.items():
        found[name] = stamping.median_delay_us(raw["bursts"], index)
        found[f"{name}_queued"] = stamping.median_delay_us(raw["queued"], index)
    return found


def _cell(client: str, figure: str) -> Cell:
    return Cell(client, NAME, wire.LABELS["aes128"], figure)


TARGETS = (
    Target(
        "first callback, from the read, against picows",
        _cell("hftws", "first_queued"),
        _cell("picows", "first_queued"),
        0.15,
    ),
    Target(
        "first callback, from the send, against picows",
        _cell("hftws", "first"),
        _cell("picows", "first"),
        0.15,
    ),
    Target(
        "first callback, from the send, busy polling, against picows",
        _cell("hftws (busy poll)", "first"),
        _cell("picows", "first"),
        0.15,
    ),
)
