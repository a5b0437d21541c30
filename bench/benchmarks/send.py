"""What it costs to send an order, with the system call and without it."""

from __future__ import annotations

import ctypes
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bench import kernel, orders, toolchain, wire
from bench.case import Case, Cell, Figure, Scale, Target
from bench.consumers import Kind

if TYPE_CHECKING:
    from bench.clients.base import Client
    from bench.server import Connection

NAME = "send"
TITLE = "Send: from the call to its return"
DESCRIPTION = (
    "100-byte orders, sent in rows to a server that reads each row when it is there: a `str`; "
    "`bytes`; or written to a place from which they go out without a copy (hftws's `reserve`, "
    "picows's `send_reuse_external_bytearray`). Wall clock per call.\n\n"
    "*Without the system call*: a preloaded library takes the place of libc's `send`, `sendto`, "
    "`sendmsg`, `write` and `writev` for this one socket and says at once that all was taken, for "
    "every client alike. What is left is the work of the library and of its TLS. *Writes* is how "
    "often that was called per order, *written* is the bytes it was given: nobody only puts the "
    "order into a queue."
)

#: Seconds that the server does not read, so that no order has to wake it up: an exchange is on
#: another machine. A row of orders takes less, and fits into the kernel's buffers.
AWAY_TIME = 0.003

SHIM = toolchain.BUILD / "nosend.so"

#: The frame of an order, and with TLS the record around it.
FRAME_SIZE = len(orders.ORDER) + 6

WAYS = {"text": "`str`", "data": "`bytes`", "buffer": "in place"}

FIGURES = (
    *(Figure(way, title, "ns") for way, title in WAYS.items()),
    *(
        Figure(f"{way}_user", f"{title}, without the system call", "ns", plot=way == "data")
        for way, title in WAYS.items()
    ),
    Figure("writes", "writes", "per order"),
    Figure("written", "written", "B per order"),
)


def cases(scale: Scale) -> Iterator[Case]:
    for transport in scale.transports:
        if transport != "aes256":
            yield Case(NAME, transport)


def expected(parameters: Mapping[str, int]) -> wire.Checksum:
    return wire.Checksum.of([orders.ORDER])


def serve(connection: Connection, parameters: Mapping[str, int]) -> None:
    """Takes orders. "report" asks for the last one, and "mark" for how many there were."""
    kernel.set_buffer_size(connection.socket, "receive", 8 << 20)
    orders_got, last = 0, b""
    while (frame := connection.receive_frame()) is not None:
        _, payload = frame
        if payload == b"report":
            connection.send(last)
        elif payload.startswith(b"mark "):
            if int(payload[5:]) != orders_got:
                raise RuntimeError(f"{orders_got} orders came, not {payload[5:].decode()}")
            connection.send(payload)
            time.sleep(AWAY_TIME)
        else:
            orders_got, last = orders_got + 1, payload


def measure(open_client: Callable[..., Client], case: Case, scale: Scale) -> dict[str, Any]:
    shim = preload()
    result: dict[str, Any] = {"checksum": check(open_client)}
    client = open_client()
    result["wall_ns"] = {way: timed(client, way, scale) for way in client.sends}
    result["info"] = client.info()
    client.close()

    client = open_client()
    (descriptor,) = kernel.descriptors(client.port)
    result["user_ns"] = {}
    for way in client.sends:
        shim.nosend_mark(descriptor)
        result["user_ns"][way] = timed(client, way, scale, alone=True)
        sent = scale.repetitions * scale.orders
        writes, written = shim.nosend_calls() / sent, shim.nosend_bytes() / sent
        if written != FRAME_SIZE + (wire.RECORD_OVERHEAD if case.secure else 0):
            raise RuntimeError(f"{way}: {written} bytes were written for an order")
        result["writes"], result["written"] = writes, written
    # Frames and records are missing now: the server could only refuse what comes after them.
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)
    return result


def preload() -> ctypes.CDLL:
    """Starts this process again with the shim loaded, unless it is loaded already."""
    if os.environ.get("LD_PRELOAD") != str(SHIM):
        source = toolchain.FOLDER / "floors" / "nosend.c"
        if toolchain.is_stale(SHIM, source):
            toolchain.compile_c(source, SHIM, ["-shared", "-fPIC"])
        environment = {**os.environ, "LD_PRELOAD": str(SHIM)}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    shim = ctypes.CDLL(None)
    shim.nosend_calls.restype = shim.nosend_bytes.restype = ctypes.c_long
    return shim


def check(open_client: Callable[..., Client]) -> list[int]:
    """The checksum of the order as it arrives; if one way to send differs, of that one."""
    found: list[list[int]] = []
    for way in WAYS:
        client = open_client(Kind.CHECK)
        if way in client.sends:
            orders.as_loop(client, way)(1)
            client.send("report")
            client.run_until_count(1)
            found.append(client.consumer.checksum.as_list())
        client.close()
    return min(found, key=found.count)


def timed(client: Client, way: str, scale: Scale, *, alone: bool = False) -> list[float]:
    """ns an order, for this many rows of orders; unless `alone`, the server reads meanwhile."""
    loop = orders.as_loop(client, way)
    samples = []
    for _ in range(scale.repetitions):
        samples.append(loop(scale.orders) / scale.orders)
        if not alone:
            goal = client.consumer.count() + 1
            client.send(f"mark {goal * scale.orders}")
            client.run_until_count(goal)
    return samples


def figures(raw: Mapping[str, Any], case: Case) -> dict[str, float]:
    found = {way: statistics.median(samples) for way, samples in raw["wall_ns"].items()}
    for way, samples in raw["user_ns"].items():
        found[f"{way}_user"] = statistics.median(samples)
    return {**found, "writes": raw["writes"], "written": raw["written"]}


def _cell(client: str) -> Cell:
    return Cell(client, NAME, wire.LABELS["aes128"], "data_user")


TARGETS = (
    Target(
        "TLS, `bytes`, without the system call, against picows",
        _cell("hftws"),
        _cell("picows"),
        0.3,
    ),
)
