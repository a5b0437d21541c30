"""What `Client.info()` and `Client.stats()` return: their keys, types, units and meaning.

They are plain dictionaries. These types are for annotations, checkers and editors.
"""

# Without "from __future__ import annotations": to evaluate each text of an annotation would take
# most of this module's import.

from typing import Literal, TypedDict

__all__ = ["Compression", "Histogram", "Info", "Latency", "Ring", "SocketOptions", "Stats"]


class Compression(TypedDict):
    """What was agreed on for permessage-deflate (RFC 7692, section 7.1)."""

    server_no_context_takeover: bool
    """Whether the server forgets its window after each message."""
    client_no_context_takeover: bool
    """Whether the client does."""
    server_max_window_bits: int
    """The server's window has 2 to the power of this many bytes: 8 to 15."""
    client_max_window_bits: int
    """The client's window. Below 9, messages are sent uncompressed."""
    zlib_version: str
    """The version that the zlib library in use says it has."""


class Ring(TypedDict):
    """A ring of memory for bytes on their way."""

    size: int
    """Its bytes: those that were asked for, rounded up to a power of two."""
    mirrored: bool
    """Whether it is mapped twice, one behind the other, so that no message is in two pieces."""
    huge_pages: bool
    """Whether it is on huge pages."""


class SocketOptions(TypedDict):
    """Options of the socket as the kernel tells them; None where the system has no such option."""

    no_delay: bool
    """TCP_NODELAY: small messages are not held back."""
    peer_timeout_s: int | None
    """``peer_timeout`` in force, in seconds: TCP_USER_TIMEOUT (RFC 5482), on macOS
    TCP_RXT_CONNDROPTIME. None with the system's limits alone."""
    quick_ack: bool | None
    """TCP_QUICKACK at this moment: the kernel switches it off by itself."""
    busy_poll_us: int | None
    """SO_BUSY_POLL, in microseconds."""
    receive_buffer_size: int
    """SO_RCVBUF, in bytes. Linux doubles what was asked for."""
    send_buffer_size: int
    """SO_SNDBUF, in bytes. Linux doubles what was asked for."""


class ConnectionInfo(TypedDict):
    """What the native part of a client knows: all of :class:`Info` but its URL."""

    peer_address: str | None
    """Address and port of the server; None without a connection."""
    local_address: str | None
    """Our own address and port; None without a connection."""
    descriptor: int | None
    """The number of the socket, to look at it (getsockopt, ioctl): do not read, write or close it.
    None without a connection."""
    tls_library: str | None
    """The TLS library and its version. This and all about TLS is None for ``ws://``, and when there
    is no connection."""
    tls_library_file: str | None
    """The file that it was loaded from; its name only, if that is how it was found."""
    tls_version: str | None
    """The version of the protocol, such as ``"TLSv1.3"``."""
    cipher: str | None
    """The cipher suite, by the library's name for it."""
    tls_resumed: bool | None
    """Whether the server resumed the session of an earlier connection."""
    engine: Literal["direct", "ktls", "openssl"] | None
    """What opens and seals the records: hftws itself, the kernel, or SSL_read and SSL_write."""
    engine_reason: str | None
    """Why it is ``"openssl"`` with ``tls="auto"``; ``""`` where nothing has to be explained."""
    aead: str | None
    """Whose implementation of the AEAD opens and seals the records."""
    ktls_receiving: bool | None
    """Whether the kernel opens the records."""
    ktls_sending: bool | None
    """Whether the kernel seals the records."""
    compression: Compression | None
    """None when messages are not compressed."""
    kernel_stamp_source: Literal["none", "software", "hardware"]
    """Whose stamp ``Message.t_kernel`` was in the newest read: ``"software"`` is the kernel's, by
    the system's clock; ``"hardware"`` the network card's, by its own clock."""
    cycles_per_ns: float | None
    """How often the counter of ``Message.cycles`` counts in a nanosecond; None before the first
    connect."""
    cycles_per_ns_source: Literal["measured", "register", "measured_register_wrong"] | None
    """Where that is from: measured, the CPU's register, or measured because the register is wrong.
    None before the first connect."""
    receive_ring: Ring | None
    """What is received, up to its delivery; None while there is none."""
    send_ring: Ring | None
    """What the kernel has not taken yet; None while there is none."""
    inflated_ring: Ring | None
    """Messages that came compressed; None without compression."""
    socket_options: SocketOptions | None
    """None without a connection."""
    busy_poll: bool
    """Whether the client spins on the socket instead of sleeping in the kernel."""


class Info(ConnectionInfo):
    """What is in force: :meth:`hftws.Client.info`."""

    url: str
    """The URL as it was given, with any key or password in it."""


class Histogram(TypedDict):
    """Durations in nanoseconds. Quantiles are less than 1 % too large, and never too small."""

    count: int
    """How many were recorded. With 0, all others are 0."""
    min: int
    """The smallest, ns."""
    mean: float
    """The arithmetic mean, ns."""
    p50: int
    """The median, ns."""
    p90: int
    """90 % were not larger, ns."""
    p99: int
    """99 % were not larger, ns."""
    p99_9: int
    """99.9 % were not larger, ns."""
    max: int
    """The largest, ns."""
    lower_bounds: int
    """How many of them are at least that long, not exactly: in ``kernel`` of messages whose
    ``t_kernel_exact`` is false, in ``total`` of those and of all without a kernel stamp."""


class Latency(TypedDict):
    """A histogram of each stage of a message, from the network to the callback."""

    kernel: Histogram
    """From the stamp of the kernel, or of the card, to the return of the read."""
    wait: Histogram
    """From there until the turn of its TLS record: those in front of it in the same read are opened
    and delivered first. 0 without TLS."""
    decrypt: Histogram
    """That record's own opening."""
    deliver: Histogram
    """From the open record to the call of ``on_msg``."""
    total: Histogram
    """From the stamp (without one, from the return of the read) to the call of ``on_msg``."""


class Stats(TypedDict):
    """Counters of all connections of a client, since it was made: :meth:`hftws.Client.stats`."""

    messages: int
    """Messages delivered; without ``on_msg``, received."""
    bytes: int
    """The bytes of their payloads."""
    messages_inflated: int
    """Of these messages, the ones that came compressed."""
    bytes_before_inflation: int
    """The bytes of those on the wire."""
    messages_dropped: int
    """Messages that arrived after ``close()``."""
    reads: int
    """Reads of the socket that returned something."""
    records: int
    """TLS records with data in them that were opened."""
    pings: int
    """Pings received; each was answered."""
    pongs: int
    """Pongs received."""
    messages_sent: int
    """Messages sent, or waiting in the send ring."""
    bytes_sent: int
    """The bytes of their payloads."""
    messages_deflated: int
    """Of these messages, the ones that went out compressed."""
    bytes_after_deflation: int
    """The bytes of those on the wire."""
    pings_sent: int
    """Pings sent with ``ping()``."""
    latency: Latency | None
    """None unless the client was made with ``latency=True``."""
