"""The real thing: the busiest two seconds of a recording of Binance, with their own spacing."""

from __future__ import annotations

import bisect
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bench import stamping, wire
from bench.case import Case, Figure, Scale

if TYPE_CHECKING:
    from bench.clients.base import Client
    from bench.server import Connection

NAME = "replay"
TITLE = "Replay: the busiest two seconds of a recorded feed"
DESCRIPTION = (
    "1,920 messages of Binance's btcusdt streams with the spacing they arrived with: 59 % come "
    "within 50 µs of another. What becomes due during a send goes out with the next. Time from "
    "before a message is sent to its callback, and the CPU time of the client's process per "
    "message, wake-ups included."
)

FIGURES = (
    *stamping.FIGURES,
    Figure("cpu", "CPU per message", "µs", plot=True),
    Figure("sender_late_p99", "sender behind schedule, p99", "µs"),
)

TARGETS = ()


def cases(scale: Scale) -> Iterator[Case]:
    for transport in scale.transports:
        if transport != "plain":
            yield Case(NAME, transport, "", {"messages": scale.replayed})


@functools.cache
def recording(messages: int) -> tuple[list[int], list[bytes]]:
    """When to send, in ns from the first, and what: whole frames."""
    from hftws.exchange.recording import Encoding, Recording, TimeUnit

    tape = Recording.load("busiest")
    taken = tape.tape(tape.streams, Encoding(TimeUnit.MILLISECOND, combined=True))
    return taken.offsets_ns[:messages], taken.frames[:messages]


def payload_of(frame: bytes) -> bytes:
    """The payload of an unmasked frame."""
    header_size = {126: 4, 127: 10}.get(frame[1], 2)
    return frame[header_size:]


def expected(parameters: Mapping[str, int]) -> wire.Checksum:
    return wire.Checksum.of(map(payload_of, recording(parameters["messages"])[1]))


def serve(connection: Connection, parameters: Mapping[str, int]) -> None:
    offsets_ns, frames = recording(parameters["messages"])

    def send(sealed: list[bytes]) -> list[int]:
        sendall, now = connection.socket.sendall, time.monotonic_ns
        sent: list[int] = []
        start = now()
        while (first := len(sent)) < len(sealed):
            due = start + offsets_ns[first]
            while (moment := now()) < due:  # A sleep would be late by more than what is measured.
                pass
            # What became due during the last system call goes out together.
            last = bisect.bisect_right(offsets_ns, moment - start)
            sent += [moment] * (last - first)
            sendall(b"".join(sealed[first:last]))
        return sent

    stamping.serve(connection, frames, send)


def measure(open_client: Callable[..., Client], case: Case, scale: Scale) -> dict[str, Any]:
    return stamping.measure(open_client, case, messages=case.parameters["messages"], bursts=1)


def floor_arguments(case: Case, scale: Scale) -> list[str]:
    return stamping.floor_arguments(case, messages=case.parameters["messages"], bursts=1)


def figures(raw: Mapping[str, Any], case: Case) -> dict[str, float]:
    (replayed,) = raw["bursts"]
    sent = replayed["sent"]
    delays = [stamp - moment for stamp, moment in zip(replayed["stamps"], sent, strict=True)]
    offsets_ns, _ = recording(case.parameters["messages"])
    late = [moment - sent[0] - due for moment, due in zip(sent, offsets_ns, strict=True)]
    found = {
        **stamping.percentiles(delays),
        "cpu": replayed["cpu_ns"] / len(delays),
        "sender_late_p99": stamping.percentile(late, 0.99),
    }
    return {name: value / 1000 for name, value in found.items()}
