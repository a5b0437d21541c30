"""What the benchmarks of drains share: messages wait in the kernel until the client reads them.

The client asks for a burst and does not read until all of it has arrived. Then the drain is timed.
So the sender has no part in it, and no wake-up either.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench import kernel
from bench.case import Case, Figure, Scale
from bench.consumers import Kind

if TYPE_CHECKING:
    from bench.clients.base import Client
    from bench.server import Connection

#: The columns that they all have.
FIGURES = (
    Figure("count", "counting callback", "ns", plot=True),
    Figure("parse", "with `orjson.loads`", "ns", plot=True),
    Figure("count_wall", "counting, wall clock", "ns"),
)

#: Seconds that the timed bursts of one kind may take together, and bursts that there are at least.
TIME_MAX, BURSTS_MIN = 0.4, 3

#: Bytes of the client's buffer in the kernel, where so many are allowed.
BUFFER_SIZE = 32 << 20


def burst_capacity() -> int:
    """Bytes on the wire that may wait in the kernel, also for an unprivileged process."""
    # The kernel counts what a segment takes, not what it holds: half of the room is for that.
    return kernel.receive_capacity(BUFFER_SIZE) // 2


def serve(connection: Connection, units: list[bytes]) -> None:
    """Sends the burst for each message of the client."""
    while connection.receive() is not None:
        sealed = b"".join(connection.seal(units))
        kernel.wait_until_ready(connection.socket)
        connection.socket.sendall(sealed)


def measure(
    open_client: Callable[..., Client],
    case: Case,
    scale: Scale,
    size_of: Callable[[Client], int],
) -> dict[str, Any]:
    """Checks one burst, and times others. `size_of` is what a burst for a client is on the wire."""
    result: dict[str, Any] = {"checksum": check(open_client, case, size_of)}
    for kind in (Kind.COUNT, Kind.PARSE):
        client = open_client(kind)
        result["size"] = size_of(client)
        result[kind.value] = timed_bursts(client, case, scale, result["size"])
        result["info"] = client.info()
        client.close()
    return result


def check(
    open_client: Callable[..., Client], case: Case, size_of: Callable[[Client], int]
) -> list[int]:
    """The checksum of one burst."""
    client = open_client(Kind.CHECK)
    burst(client, case, size_of(client))
    client.close()
    return client.consumer.checksum.as_list()


def timed_bursts(client: Client, case: Case, scale: Scale, size: int) -> dict[str, list[float]]:
    burst(client, case, size)  # Warms up.
    cpu: list[float] = []
    wall: list[float] = []
    started = time.monotonic()
    while len(cpu) < scale.bursts and (
        len(cpu) < BURSTS_MIN or time.monotonic() - started < TIME_MAX
    ):
        cpu_ns, wall_ns = burst(client, case, size)
        cpu.append(cpu_ns)
        wall.append(wall_ns)
    return {"cpu_ns": cpu, "wall_ns": wall}


def burst(client: Client, case: Case, size: int) -> tuple[float, float]:
    """CPU and wall time of one drain, ns a message."""
    messages = case.parameters["messages"]
    descriptor = receive_descriptor(client)
    count = client.consumer.count
    start = count()
    goal = start + messages
    client.send("go")
    kernel.signal_ready(descriptor)
    kernel.wait_until_queued(descriptor, size)
    if count() != start:
        raise RuntimeError("messages were delivered before the drain was timed")
    wall_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
    client.run_until(lambda: count() >= goal)
    cpu_ns, wall_ns = time.process_time_ns() - cpu_ns, time.perf_counter_ns() - wall_ns
    if count() != goal:
        raise RuntimeError(f"{count() - start} messages delivered instead of {messages}")
    return cpu_ns / messages, wall_ns / messages


def receive_descriptor(client: Client) -> int:
    """The client's socket, with a buffer that holds a burst."""
    (descriptor,) = kernel.descriptors(client.port)
    kernel.set_descriptor_buffer_size(descriptor, BUFFER_SIZE)
    return descriptor


def figures(raw: Mapping[str, Any]) -> dict[str, float]:
    found = {"count": middle(raw["count"]["cpu_ns"]), "count_wall": middle(raw["count"]["wall_ns"])}
    if "parse" in raw:
        found["parse"] = middle(raw["parse"]["cpu_ns"])
    return found


def middle(samples: Sequence[float]) -> float:
    return statistics.median(samples)
