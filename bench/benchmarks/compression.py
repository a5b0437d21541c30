"""What it costs to inflate: a recorded feed with permessage-deflate, waiting in the kernel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bench import draining, toolchain, wire
from bench.benchmarks.replay import payload_of, recording
from bench.case import Case, Figure, Scale

if TYPE_CHECKING:
    from bench.clients.base import Client
    from bench.server import Connection

NAME = "compression"
TITLE = "Compression: a feed with permessage-deflate"
DESCRIPTION = (
    "The recorded messages of the replay, compressed ahead by the server (zlib's level 6, a window "
    "of 15 bits), each in a frame and, with TLS, a record of its own. They lie in the kernel's "
    "socket buffer, then the client reads and inflates them all. CPU time of the client's process "
    "per message; the callback counts, or calls `orjson.loads`. *With context takeover* a message "
    "may refer to those before it; *without*, each is compressed by itself. All get the same bytes "
    "but hftws (not compressed), for which the server leaves them as they are. *On the wire* is "
    "what a message takes with its frame and record.\n\n"
    "The floors call zlib once a message; *inflate alone* is that call without the read and the "
    "frame. picows and websocket-client know no compression, and websocket-rs none with context "
    "takeover."
)

FIGURES = (
    *draining.FIGURES,
    Figure("inflate", "inflate alone", "ns"),
    Figure("wire", "on the wire", "B"),
)

TARGETS = ()

TAKEOVERS = {"with context takeover": 1, "without context takeover": 0}


def cases(scale: Scale) -> Iterator[Case]:
    for transport in scale.transports:
        if transport == "aes256":
            continue
        for detail, context_takeover in TAKEOVERS.items():
            parameters = {
                "messages": fitting(scale.replayed),
                "context_takeover": context_takeover,
            }
            yield Case(NAME, transport, detail, parameters)


def fitting(messages: int) -> int:
    """As many as the kernel's buffer of an unprivileged process can hold uncompressed, at most."""
    left = draining.burst_capacity()
    for number, frame in enumerate(recording(messages)[1]):
        left -= wire.wire_size([frame], secure=True)
        if left < 0:
            return number
    return messages


def payloads(parameters: Mapping[str, int]) -> list[bytes]:
    return [payload_of(frame) for frame in recording(parameters["messages"])[1]]


def units(parameters: Mapping[str, int], *, compressed: bool) -> list[bytes]:
    plain = payloads(parameters)
    if not compressed:
        return [wire.text_frame(payload) for payload in plain]
    context_takeover = bool(parameters["context_takeover"])
    deflated = wire.deflate(plain, context_takeover=context_takeover)
    return [wire.text_frame(payload, compressed=True) for payload in deflated]


def expected(parameters: Mapping[str, int]) -> wire.Checksum:
    return wire.Checksum.of(payloads(parameters))


def extension(parameters: Mapping[str, int]) -> str:
    """What the server answers to an offer, the same for all."""
    without = "" if parameters["context_takeover"] else "; server_no_context_takeover"
    return f"permessage-deflate{without}"


def serve(connection: Connection, parameters: Mapping[str, int]) -> None:
    draining.serve(connection, units(parameters, compressed=connection.compressed))


def burst_size(case: Case, *, compressed: bool) -> int:
    """Bytes on the wire."""
    return wire.wire_size(units(case.parameters, compressed=compressed), secure=case.secure)


def measure(open_client: Callable[..., Client], case: Case, scale: Scale) -> dict[str, Any]:
    return draining.measure(
        functools.partial(open_client, compressed=True),
        case,
        scale,
        lambda client: burst_size(case, compressed=client.compressed),
    )


def floor_arguments(case: Case, scale: Scale) -> list[str]:
    size = str(burst_size(case, compressed=True))
    messages, bursts = str(case.parameters["messages"]), str(scale.bursts)
    return ["inflate", messages, bursts, size, toolchain.libz()]


def figures(raw: Mapping[str, Any], case: Case) -> dict[str, float]:
    found = draining.figures(raw)
    if "inflate" in raw:
        found["inflate"] = draining.middle(raw["inflate"]["cpu_ns"])
    return {**found, "wire": raw["size"] / case.parameters["messages"]}
