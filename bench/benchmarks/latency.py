"""One message at a time: the client has gone back to sleep, or spins, when each one comes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bench import stamping, wire
from bench.case import Case, Figure, Scale

if TYPE_CHECKING:
    from bench.clients.base import Client
    from bench.server import Connection

NAME = "latency"
TITLE = "Latency: one message at a time"
DESCRIPTION = (
    "300-byte messages, one each millisecond on average, at least 0.2 ms apart and else irregular "
    "(exponential, the same for all). Time from before a message is sent to its callback, "
    "of clients that sleep in the kernel or spin (busy poll), and their CPU time per message. "
    "Stages: from the kernel's stamp to the return of the read, from the record's turn to the open "
    "record, from there to the callback, as hftws tells them."
)

MESSAGE_SIZE = 300

#: Irregular, as real messages are. At a constant pace, what a client does every so often, such as
#: looking for signals, would fall together with each message or with none. The least is long enough
#: that the client has gone back to sleep.
SPACING_MIN_NS = 200_000
SPACING_MEAN_NS = 1_000_000
SPACING_SEED = 8

#: The stages, as hftws names them.
STAGES = {"kernel": "kernel → received", "decrypt": "→ decrypted", "deliver": "→ delivered"}

FIGURES = (
    *stamping.FIGURES,
    Figure("cpu", "CPU per message", "µs", plot=True),
    *(Figure(f"{stage}_p50", f"{title}, p50", "µs") for stage, title in STAGES.items()),
    *(Figure(f"{stage}_p99", f"{title}, p99", "µs") for stage, title in STAGES.items()),
)

TARGETS = ()


def cases(scale: Scale) -> Iterator[Case]:
    for transport in scale.transports:
        if transport != "aes256":
            yield Case(NAME, transport, "", {"messages": scale.singles})


def payloads(parameters: Mapping[str, int]) -> list[bytes]:
    return wire.market_messages(parameters["messages"], MESSAGE_SIZE)


def expected(parameters: Mapping[str, int]) -> wire.Checksum:
    return wire.Checksum.of(payloads(parameters))


def spacings(count: int) -> list[int]:
    """How many nanoseconds each message comes after the last: the same for every client."""
    rng = random.Random(SPACING_SEED)
    rate = 1 / (SPACING_MEAN_NS - SPACING_MIN_NS)
    return [SPACING_MIN_NS + round(rng.expovariate(rate)) for _ in range(count)]


def serve(connection: Connection, parameters: Mapping[str, int]) -> None:
    def send(sealed: list[bytes]) -> list[int]:
        sendall, now = connection.socket.sendall, time.monotonic_ns
        sent = []
        waits = spacings(len(sealed))
        due = now()
        for record, spacing in zip(sealed, waits, strict=True):
            due += spacing
            while now() < due:  # A sleep would be late by more than what is measured.
                pass
            sent.append(now())
            sendall(record)
        return sent

    stamping.serve(connection, [wire.text_frame(p) for p in payloads(parameters)], send)


def measure(open_client: Callable[..., Client], case: Case, scale: Scale) -> dict[str, Any]:
    return stamping.measure(open_client, case, messages=case.parameters["messages"], bursts=1)


def floor_arguments(case: Case, scale: Scale) -> list[str]:
    return stamping.floor_arguments(case, messages=case.parameters["messages"], bursts=1)


def figures(raw: Mapping[str, Any], case: Case) -> dict[str, float]:
    (burst,) = raw["bursts"]
    delays = [stamp - sent for stamp, sent in zip(burst["stamps"], burst["sent"], strict=True)]
    found = {
        **stamping.percentiles(delays),
        "cpu": burst["cpu_ns"] / len(delays),
    }
    for stage, histogram in raw.get("stages", {}).items():
        if stage in STAGES:
            found[f"{stage}_p50"] = histogram["p50"]
            found[f"{stage}_p99"] = histogram["p99"]
    return {name: value / 1000 for name, value in found.items()}
