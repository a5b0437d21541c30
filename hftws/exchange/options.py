"""What can be set about a simulated exchange, and the defaults: those of Binance spot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypedDict

RECORDINGS: Final = ("busiest", "sample")
TLS_VERSIONS: Final = ("TLS1.2", "TLS1.3")


class StartLine(TypedDict):
    """What is printed once connections are accepted, as one line of JSON."""

    url: str
    """Where WebSocket connections are accepted."""
    ca_file: str | None
    """The certificate authority to trust; None without TLS."""
    streams: list[str]
    """What can be subscribed to."""


@dataclass(frozen=True)
class Options:
    """Every option of the command line, under the same name.

    Durations are seconds; wherever a feature can be switched off, zero does it.
    """

    host: str = "127.0.0.1"
    port: int = 0
    """Zero: any free port. The line printed at the start says which."""

    tls: bool = True
    ca_file: str | None = None
    """Where to write the certificate authority (PEM); by default a temporary file."""
    max_version: str | None = None
    """The newest TLS version offered, one of `TLS_VERSIONS`."""
    ciphers: str | None = None
    """An OpenSSL cipher list. As in Python's `ssl`, it governs TLS 1.2 only."""

    recording: str = "busiest"
    """`busiest`: two seconds of btcusdt at their busiest; `sample`: 15 s of btcusdt and ethusdt."""
    speed: float = 1.0
    """Replay this many times faster than recorded."""
    rate: float | None = None
    """Send this many messages a second on each connection instead; `inf`: all that fit.

    Then the market, which new connections join and whose books REST shows, is where the connection
    that has come furthest is.
    """
    precise: bool = False
    """Spin through waits shorter than 2 ms: exact spacing, at the price of a CPU core."""
    seed: int | None = None
    """Start at a place in the recording drawn with this seed, not at its start."""
    drop: int = 0
    """Leave out one depth update of each connection in this many, so that there are gaps."""

    ping_interval: float = 20.0
    ping_timeout: float = 60.0
    inbound_limit: int = 5
    """PING, PONG and JSON messages that a client may send within one second."""
    max_connection_age: float = 24 * 60 * 60.0
    shutdown_after: float = 0.0
    """Go away after this long, as on SIGTERM."""
    shutdown_notice: float = 0.0
    """How long connections live on after the `serverShutdown` event."""
    stop_with_stdin: bool = False
    """Go away when standard input ends: when the parent process does."""
