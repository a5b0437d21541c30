"""What the benchmarks of latency share: when each message was sent, and when it was delivered.

Both halves read CLOCK_MONOTONIC on one machine. The server sends the stream for each "go", and
after it a message with the times of sending. For "queue" it sends all of that at once, for a client
that does not read before it is all there. For "check" it sends the stream alone.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench import kernel, wire
from bench.case import Case, Figure
from bench.consumers import Kind

if TYPE_CHECKING:
    from bench.clients.base import Client
    from bench.server import Connection

#: The columns that they all have, and the percentile that each one shows.
FIGURES = (
    Figure("p50", "p50", "µs", plot=True),
    Figure("p99", "p99", "µs", plot=True),
    Figure("p999", "p99.9", "µs"),
)
SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}

#: Seconds for a client to be asleep again before it is sent something.
SETTLE_TIME = 0.003

#: For a stream that was queued: the client itself knows when it began to read.
LAST_UNIT = wire.text_frame(b"[0]")


def serve(
    connection: Connection, units: list[bytes], send: Callable[[list[bytes]], list[int]]
) -> None:
    """Answers the client with what `send` sends; `send` returns when it sent each message."""
    while (text := connection.receive()) is not None:
        sealed = connection.seal(units)
        if text == "queue":
            sealed += connection.seal([LAST_UNIT])
            kernel.wait_until_ready(connection.socket)
        else:
            time.sleep(SETTLE_TIME)
        if text != "go":
            connection.socket.sendall(b"".join(sealed))
            continue
        sent = send(sealed)
        time.sleep(SETTLE_TIME)  # The next message must not disturb what is measured.
        connection.send(json.dumps(sent).encode())


def measure(
    open_client: Callable[..., Client],
    case: Case,
    *,
    messages: int,
    bursts: int,
    queued_size: int = 0,
) -> dict[str, Any]:
    """Checks one stream, then stamps so many; if `queued_size` is given, as many again queued.

    `queued_size` is what the stream is on the wire.
    """
    client = open_client(Kind.CHECK)
    client.send("check")
    client.run_until(lambda: client.consumer.count() >= messages)
    client.close()
    result: dict[str, Any] = {"checksum": client.consumer.checksum.as_list(), "bursts": []}

    client = open_client(Kind.STAMP, messages + 1)
    consumer = client.consumer
    for _ in range(bursts):
        consumer.stamps.clear()
        cpu_ns = time.process_time_ns()
        client.send("go")
        client.run()
        cpu_ns = time.process_time_ns() - cpu_ns
        sent = json.loads(consumer.last())
        result["bursts"].append({"sent": sent, "stamps": consumer.stamps[:-1], "cpu_ns": cpu_ns})
    if queued_size:
        size = queued_size + wire.wire_size([LAST_UNIT], secure=case.secure)
        result["queued"] = [queued_burst(client, size) for _ in range(bursts)]
    result["info"], result["stages"] = client.info(), client.stages()
    client.close()
    return result


def queued_burst(client: Client, size: int) -> dict[str, list[int]]:
    """One stream that has arrived before the client begins to read."""
    (descriptor,) = kernel.descriptors(client.port)
    stamps = client.consumer.stamps
    stamps.clear()
    client.send("queue")
    kernel.signal_ready(descriptor)
    kernel.wait_until_queued(descriptor, size)
    started = time.monotonic_ns()
    client.run()
    return {"sent": [started], "stamps": stamps[:-1]}


def floor_arguments(case: Case, *, messages: int, bursts: int, queued_size: int = 0) -> list[str]:
    if queued_size:
        queued_size += wire.wire_size([LAST_UNIT], secure=case.secure)
    return ["stamp", str(messages), str(bursts), str(queued_size)]


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """For each of `FIGURES`, in the unit of the samples."""
    return {name: percentile(samples, share) for name, share in SHARES.items()}


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that is not below this share of them."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median_delay_us(bursts: Sequence[Mapping[str, Any]], index: int) -> float:
    """From the first send of a burst to the callback with this message: the median of bursts."""
    delays = [burst["stamps"][index] - burst["sent"][0] for burst in bursts]
    return float(statistics.median(delays)) / 1000
