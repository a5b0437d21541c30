"""The clients that are compared: their names, what they need, and how to make one.

An adapter is a module of this package with a class ``Adapter``, a subclass of `Client` or of
`AsyncioClient`. See README.md for how to add one.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from typing import Any

from bench.case import Case
from bench.clients.base import Client
from bench.consumers import Consumer, Kind


@dataclass(frozen=True)
class ClientSpec:
    """One row of the tables."""

    name: str
    module: str
    #: What has to be importable.
    packages: tuple[str, ...] = ()
    #: Arguments of the adapter.
    options: dict[str, Any] = field(default_factory=dict)
    #: The only transports that it has, or benchmarks that it is for; empty for all.
    transports: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    #: Whether it offers permessage-deflate where the benchmark wants it, and whether it can inflate
    #: messages that refer to those before them.
    offers_compression: bool = True
    context_takeover: bool = True
    #: One line for the reader of the tables.
    note: str = ""

    def takes_part(self, case: Case) -> bool:
        return (
            (not self.benchmarks or case.benchmark in self.benchmarks)
            and (not self.transports or case.transport in self.transports)
            and (self.context_takeover or not case.parameters.get("context_takeover"))
        )

    def missing(self) -> list[str]:
        """The packages that are not installed here."""
        return [package for package in self.packages if not importlib.util.find_spec(package)]


#: The benchmarks in which it shows whether a client sleeps or spins.
LATENCY = ("replay", "burst", "latency", "echo")

FLOORS = ("drain", "compression", "replay", "burst", "latency")

#: The benchmarks in which it makes a difference that a listener is compiled.
RECEIVING = ("drain", "replay", "burst", "latency", "instructions", "connections")

#: The benchmarks for clients that can receive from many connections in one thread.
SINGLE = ("drain", "replay", "burst", "latency", "instructions", "echo", "send", "memory")

#: The benchmarks for clients without permessage-deflate.
UNCOMPRESSED = (*SINGLE, "connections")

SPECS = {
    spec.name: spec
    for spec in (
        ClientSpec(
            "hftws",
            "hftws_client",
            ("hftws",),
            {"timestamps": "none"},
            note='`timestamps="none"`, sleeping in the kernel',
        ),
        ClientSpec(
            "hftws (stamps)",
            "hftws_client",
            ("hftws",),
            note="the defaults: the kernel stamps each segment",
        ),
        ClientSpec(
            "hftws (busy poll)",
            "hftws_client",
            ("hftws",),
            {"timestamps": "none", "busy_poll": True},
            benchmarks=LATENCY,
            note='`timestamps="none"`, `busy_poll=True`: spins, so its CPU time is all the time',
        ),
        ClientSpec(
            "hftws (not compressed)",
            "hftws_client",
            ("hftws",),
            {"timestamps": "none"},
            benchmarks=("compression",),
            offers_compression=False,
            note='`timestamps="none"`, and no compression offered: the same messages as they are',
        ),
        ClientSpec(
            "hftws (stages)",
            "hftws_client",
            ("hftws",),
            {"latency": True},
            benchmarks=("latency",),
            note="the defaults with `latency=True`, which says where the time went",
        ),
        ClientSpec(
            "picows",
            "picows_client",
            ("picows", "uvloop", "aiofastnet"),
            benchmarks=UNCOMPRESSED,
            note="core API on uvloop with aiofastnet, its fast transport",
        ),
        ClientSpec(
            "picows (Cython)",
            "picows_cython_client",
            ("picows", "uvloop", "aiofastnet", "Cython", "ziglang"),
            benchmarks=RECEIVING,
            note="the same with a compiled listener: no Python call per message",
        ),
        ClientSpec(
            "picows (busy poll)",
            "picows_client",
            ("picows", "uvloop", "aiofastnet"),
            {"busy_poll": True},
            benchmarks=("latency", "echo"),
            note="picows, with a loop that never sleeps: a callback that calls itself again",
        ),
        ClientSpec(
            "websocket-rs",
            "websocket_rs_client",
            ("websocket_rs", "uvloop"),
            context_takeover=False,
            note="`connect(on_message=…)` on uvloop, in the event loop's own thread",
        ),
        ClientSpec(
            "websockets",
            "websockets_client",
            ("websockets", "uvloop"),
            note="asyncio API on uvloop, `recv(decode=False)`, no queue limit",
        ),
        ClientSpec(
            "aiohttp",
            "aiohttp_client",
            ("aiohttp", "uvloop"),
            note="on uvloop, `decode_text=False`",
        ),
        ClientSpec(
            "websocket-client",
            "websocket_client_client",
            ("websocket",),
            benchmarks=SINGLE,
            note="`recv_data()`, without the check of UTF-8",
        ),
        ClientSpec(
            "C read",
            "floor",
            ("ziglang",),
            {"reader": "read"},
            transports=("plain",),
            benchmarks=FLOORS,
            note="floor: `read` and a loop over the frames, in C",
        ),
        ClientSpec(
            "C SSL_read",
            "floor",
            ("ziglang",),
            {"reader": "ssl_read"},
            transports=("aes128", "aes256"),
            benchmarks=FLOORS,
            note="floor: `SSL_read` and a loop over the frames, in C, with Python's own OpenSSL",
        ),
        ClientSpec(
            "C SSL_read (read-ahead)",
            "floor",
            ("ziglang",),
            {"reader": "ssl_read_ahead"},
            transports=("aes128", "aes256"),
            benchmarks=FLOORS,
            note="floor: the same with `SSL_CTX_set_read_ahead`: fewer system calls, more copies",
        ),
    )
}


def open_client(
    spec: ClientSpec,
    url: str,
    ca_file: str,
    kind: Kind = Kind.COUNT,
    total: int = 0,
    *,
    small: bool = False,
    compressed: bool = False,
    first: Client | None = None,
    consumer: Consumer | None = None,
) -> Client:
    """A connected client that hands its messages to a consumer of this kind.

    One of many connections is `small`, is driven together with the `first`, and may share its
    `consumer`. One that is `compressed` offers permessage-deflate, unless its spec does not.
    """
    compressed = compressed and spec.offers_compression
    adapter = importlib.import_module(f"bench.clients.{spec.module}").Adapter
    options = {
        **(adapter.compressed_options if compressed else {}),
        **spec.options,
        **(adapter.small_options if small else {}),
    }
    client: Client = adapter(url, ca_file, **options)
    client.compressed = compressed
    client.consumer = consumer or client.make_consumer(kind, total)
    if first is not None:
        client.join(first)
    client.connect()
    return client
