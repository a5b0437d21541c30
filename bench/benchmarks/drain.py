"""What a message costs that is waiting in the kernel: read, decrypt, parse, call back.

The client asks for a burst and does not read until all of it has arrived. Then the drain is timed.
So the sender has no part in it, and no wake-up either.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench import kernel, wire
from bench.case import Case, Cell, Figure, Scale, Target
from bench.consumers import Kind

if TYPE_CHECKING:
    from bench.clients.base import Client
    from bench.server import Connection

NAME = "drain"
TITLE = "Drain: messages that are already waiting"
DESCRIPTION = (
    "300-byte JSON messages lie in the kernel's socket buffer, then the client reads them all. "
    "CPU time of the client's process per message; the callback counts, or calls `orjson.loads`."
)

MESSAGE_SIZE = 300
RECORD_MESSAGES = {"1 message per record": 1, "32 messages per record": 32}

#: Seconds that the timed bursts of one kind may take together, and bursts that there are at least.
TIME_MAX, BURSTS_MIN = 0.4, 3

FIGURES = (
    Figure("count", "counting callback", "ns", plot=True),
    Figure("parse", "with `orjson.loads`", "ns", plot=True),
    Figure("count_wall", "counting, wall clock", "ns"),
)


def cases(scale: Scale) -> Iterator[Case]:
    for transport in scale.transports:
        for detail, group_size in RECORD_MESSAGES.items():
            parameters = {"messages": fitting(scale.messages, group_size), "group": group_size}
            if transport == "plain":
                if group_size == 1:  # Without records it makes no difference.
                    yield Case(NAME, transport, "", parameters)
            else:
                yield Case(NAME, transport, detail, parameters)


def fitting(messages: int, group_size: int) -> int:
    """As many messages as the kernel's buffer of an unprivileged process can hold, at most."""
    unit_size = MESSAGE_SIZE + 4 + wire.RECORD_OVERHEAD
    # The kernel counts what a segment takes, not what it holds: half of the room is for that.
    messages = min(messages, kernel.receive_capacity(32 << 20) // 2 // unit_size)
    return messages - messages % group_size


def payloads(parameters: Mapping[str, int]) -> list[bytes]:
    return wire.market_messages(parameters["messages"], MESSAGE_SIZE)


def units(parameters: Mapping[str, int]) -> list[bytes]:
    return wire.group([wire.text_frame(p) for p in payloads(parameters)], parameters["group"])


def expected(parameters: Mapping[str, int]) -> wire.Checksum:
    return wire.Checksum.of(payloads(parameters))


def burst_size(case: Case) -> int:
    """Bytes on the wire."""
    return wire.wire_size(units(case.parameters), secure=case.secure)


def serve(connection: Connection, parameters: Mapping[str, int]) -> None:
    """Sends the burst for each message of the client."""
    plain = units(parameters)
    if parameters.get("corrupt"):
        plain[-1] = plain[-1].replace(b"BTC", b"ETH")
    while connection.receive() is not None:
        sealed = b"".join(connection.seal(plain))
        kernel.wait_until_ready(connection.socket)
        connection.socket.sendall(sealed)


def measure(open_client: Callable[..., Client], case: Case, scale: Scale) -> dict[str, Any]:
    result: dict[str, Any] = {"checksum": check(open_client, case)}
    for kind in (Kind.COUNT, Kind.PARSE):
        client = open_client(kind)
        result[kind.value] = timed_bursts(client, case, scale)
        result["info"] = client.info()
        client.close()
    return result


def check(open_client: Callable[..., Client], case: Case) -> list[int]:
    """The checksum of one burst."""
    client = open_client(Kind.CHECK)
    burst(client, case, burst_size(case))
    client.close()
    return client.consumer.checksum.as_list()


def timed_bursts(client: Client, case: Case, scale: Scale) -> dict[str, list[float]]:
    size = burst_size(case)
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
    kernel.set_descriptor_buffer_size(descriptor, 32 << 20)
    return descriptor


def floor_arguments(case: Case, scale: Scale) -> list[str]:
    """What a native floor has to do: see floors/floor.c."""
    return ["drain", str(case.parameters["messages"]), str(scale.bursts), str(burst_size(case))]


def figures(raw: Mapping[str, Any], case: Case) -> dict[str, float]:
    """The figures of one process."""
    found = {"count": middle(raw["count"]["cpu_ns"]), "count_wall": middle(raw["count"]["wall_ns"])}
    if "parse" in raw:
        found["parse"] = middle(raw["parse"]["cpu_ns"])
    return found


def middle(samples: Sequence[float]) -> float:
    return statistics.median(samples)


ONE, MANY = RECORD_MESSAGES
AES128 = wire.LABELS["aes128"]


def _cell(client: str, label: str) -> Cell:
    return Cell(client, NAME, label, "count")


_HFTWS_PLAIN = _cell("hftws", "plain")
_HFTWS_ONE = _cell("hftws", f"{AES128}, {ONE}")

TARGETS = (
    Target("plain, count, against picows", _HFTWS_PLAIN, _cell("picows", "plain"), 0.65),
    Target(f"{ONE}, against picows", _HFTWS_ONE, _cell("picows", f"{AES128}, {ONE}"), 0.25),
    Target(f"{ONE}, against C SSL_read", _HFTWS_ONE, _cell("C SSL_read", f"{AES128}, {ONE}"), 0.18),
    Target(
        f"{MANY}, against picows",
        _cell("hftws", f"{AES128}, {MANY}"),
        _cell("picows", f"{AES128}, {MANY}"),
        0.45,
    ),
    Target(f"{ONE}, against its own plain", _HFTWS_ONE, _HFTWS_PLAIN, 1.3),
)
