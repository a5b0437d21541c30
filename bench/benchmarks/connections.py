"""Many connections in one thread: what a message costs when each comes on another one."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import kernel, wire
from bench.case import Case, Figure, Scale
from bench.consumers import Kind

if TYPE_CHECKING:
    from bench.clients.base import Client
    from bench.server import Connection

NAME = "connections"
TITLE = "Connections: many in one thread"
DESCRIPTION = (
    "300-byte messages, in turn on each connection; all of them have the same callback, which "
    "counts. CPU time of the client's process per message: *waiting*, when all messages lie in the "
    "kernel's buffers before the first is read; *one by one*, when one is sent every 20 µs. hftws: "
    "`select.epoll` over the clients, each with `poll()` and small rings; the others: one uvloop."
)

MESSAGE_SIZE = 300

#: Of a burst, over all connections.
MESSAGES = {"full": 4096, "quick": 2048, "tiny": 64}
SPACING_NS = 20_000

#: Bursts of each kind.
BURSTS = {"full": 4, "quick": 3, "tiny": 2}

FIGURES = (
    Figure("waiting", "waiting", "ns", plot=True),
    Figure("single", "one by one", "ns", plot=True),
)

TARGETS = ()


def cases(scale: Scale) -> Iterator[Case]:
    for connections in scale.connections:
        detail = f"{connections} connection{'s' * (connections > 1)}"
        parameters = {"connections": connections, "messages": MESSAGES[scale.name] // connections}
        yield Case(NAME, "aes128", detail, parameters)


def payloads(messages: int) -> list[bytes]:
    return wire.market_messages(messages, MESSAGE_SIZE)


def expected(parameters: Mapping[str, int]) -> wire.Checksum:
    """Messages and bytes of all connections, and the CRC that each of them has."""
    one = wire.Checksum.of(payloads(parameters["messages"]))
    connections = parameters["connections"]
    return wire.Checksum(one.messages * connections, one.size * connections, one.crc)


#: The connections of a client, by the name that it gave them.
_groups: dict[str, list[Connection]] = {}


def serve(connection: Connection, parameters: Mapping[str, int]) -> None:
    """Each connection names its client; then one of them asks for a stream on all of them."""
    while (text := connection.receive()) is not None:
        order, name = text.split()
        group = _groups.setdefault(name, [])
        if order == "join":
            group.append(connection)
            continue
        while len(group) < parameters["connections"]:  # Each has its own thread here.
            time.sleep(0.001)
        frames = [wire.text_frame(payload) for payload in payloads(parameters["messages"])]
        streams = [member.seal(frames) for member in group]
        time.sleep(0.003)  # Gives the client time to fall asleep, or to stop reading.
        send(group, streams, SPACING_NS if order == "single" else 0)


def send(group: list[Connection], streams: list[list[bytes]], spacing_ns: int) -> None:
    """A message on each connection in turn."""
    now = time.monotonic_ns
    due = now()
    for turn in zip(*streams, strict=True):
        for member, record in zip(group, turn, strict=True):
            due += spacing_ns
            while now() < due:
                pass
            member.socket.sendall(record)


@dataclass(frozen=True)
class Group:
    """Connections that are driven together. The process has one group of each kind, to its end."""

    name: str
    clients: list[Client]
    descriptors: list[int]


def measure(open_client: Callable[..., Client], case: Case, scale: Scale) -> dict[str, Any]:
    checked = open_group(open_client, case, Kind.CHECK)
    result: dict[str, Any] = {"checksum": check(checked, case)}
    group = open_group(open_client, case, Kind.WAKE, checked)
    result["info"] = group.clients[0].info()
    result["waiting"], result["single"] = [], []
    for burst in range(1 + BURSTS[scale.name]):
        for kind in ("waiting", "single"):
            cpu_ns = timed(group, kind, case)
            if burst > 0:  # The first one warms up.
                result[kind].append(cpu_ns)
    return result


def open_group(
    open_client: Callable[..., Client], case: Case, kind: Kind, other: Group | None = None
) -> Group:
    """This many connections, beside those of the `other`. With WAKE all share one consumer."""
    first = open_client(kind, small=True)
    consumer = first.consumer if kind is Kind.WAKE else None
    clients = [first]
    while len(clients) < case.parameters["connections"]:
        clients.append(open_client(kind, small=True, first=first, consumer=consumer))
    name = f"{os.getpid()}-{kind.value}"
    for client in clients:
        client.send(f"join {name}")
    others = set(other.descriptors) if other is not None else set()
    descriptors = [found for found in kernel.descriptors(first.port) if found not in others]
    for descriptor in descriptors:
        kernel.set_descriptor_buffer_size(descriptor, 32 << 20)
    return Group(name, clients, descriptors)


def check(group: Group, case: Case) -> list[int]:
    """What all connections together got of one burst."""
    group.clients[0].send(f"waiting {group.name}")
    found = []
    for client in group.clients:
        client.run_until_count(case.parameters["messages"])
        found.append(client.consumer.checksum)
    crc = found[0].crc if len({checksum.crc for checksum in found}) == 1 else 0
    return [sum(c.messages for c in found), sum(c.size for c in found), crc]


def timed(group: Group, kind: str, case: Case) -> float:
    """CPU time of one burst, ns a message."""
    first, messages = group.clients[0], case.parameters["messages"]
    total = messages * len(group.clients)
    first.consumer.expect(total)
    first.send(f"{kind} {group.name}")
    if kind == "waiting":
        frames = [wire.text_frame(payload) for payload in payloads(messages)]
        size = wire.wire_size(frames, secure=case.secure)
        for descriptor in group.descriptors:
            kernel.wait_until_queued(descriptor, size)
    cpu_ns = time.process_time_ns()
    first.run_group(group.clients)
    return (time.process_time_ns() - cpu_ns) / total


def figures(raw: Mapping[str, Any], case: Case) -> dict[str, float]:
    return {kind: statistics.median(raw[kind]) for kind in ("waiting", "single")}
