"""What a message costs that waits in the kernel: to read, decrypt, parse and call back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bench import draining, wire
from bench.case import Case, Cell, Scale, Target

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

FIGURES = draining.FIGURES


def cases(scale: Scale) -> Iterator[Case]:
    for transport in scale.transports:
        for detail, group_size in RECORD_MESSAGES.items():
            parameters = {"messages": fitting(scale.messages, group_size), "group": group_size}
            if transport == "plain":
                if group_size == 1:  # Without TLS there are no records, and so no difference.
                    yield Case(NAME, transport, "", parameters)
            else:
                yield Case(NAME, transport, detail, parameters)


def fitting(messages: int, group_size: int) -> int:
    """As many messages as the kernel's buffer of an unprivileged process can hold, at most."""
    unit_size = MESSAGE_SIZE + 4 + wire.RECORD_OVERHEAD
    messages = min(messages, draining.burst_capacity() // unit_size)
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
    draining.serve(connection, plain)


def measure(open_client: Callable[..., Client], case: Case, scale: Scale) -> dict[str, Any]:
    return draining.measure(open_client, case, scale, lambda client: burst_size(case))


def floor_arguments(case: Case, scale: Scale) -> list[str]:
    """What a native floor has to do: see floors/floor.c."""
    return ["drain", str(case.parameters["messages"]), str(scale.bursts), str(burst_size(case))]


def figures(raw: Mapping[str, Any], case: Case) -> dict[str, float]:
    """The figures of one process."""
    return draining.figures(raw)


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
