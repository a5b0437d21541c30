"""Shows what the messages of the simulated exchange cost: ``python -m hftws demo``.

Starts the exchange in its own process, connects to it over TLS, receives recorded Binance
messages, and shows where the time of each goes while it runs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
import time
from typing import Any, TextIO, cast

from hftws._core import Message
from hftws.client import Client
from hftws.exceptions import ConnectionClosed
from hftws.exchange import ExchangeError, launch
from hftws.exchange.cli import positive
from hftws.types import Stats

try:
    from orjson import loads
except ImportError:  # Slower, and always there.
    from json import loads  # type: ignore[assignment]

HELP = "receive from the simulated exchange and show the latency of each stage"

STREAMS = ("btcusdt@trade", "btcusdt@bookTicker", "btcusdt@depth@100ms")
STAGES = {
    "kernel": "kernel → read",
    "wait": "  → its turn",
    "decrypt": "  → decrypted",
    "deliver": "  → on_msg",
    "total": "kernel → on_msg",
}
COLUMNS = ("count", "min", "p50", "p90", "p99", "p99_9", "max")
REFRESH_S = 0.5
WIDTH = 79
"""What fits on a terminal of 80 columns without a wrap."""
INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 + SIGINT."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument(
        "--seconds", type=positive, default=10.0, help="how long it runs (10); inf: until Ctrl-C"
    )
    parser.add_argument(
        "--rate", type=positive, help="messages a second instead of recorded speed; inf: no limit"
    )
    parser.add_argument("--busy-poll", action="store_true", help="spin instead of sleeping")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit code."""
    options = {} if arguments.rate is None else {"rate": arguments.rate}
    try:
        with launch(recording="busiest", **options) as exchange:
            url = f"{exchange.url}/stream?streams={'/'.join(STREAMS)}"
            return receive(url, exchange.ca_file, arguments.seconds, arguments.busy_poll)
    except ExchangeError as error:  # It lacks the packages of its extra, for example.
        print(error, file=sys.stderr)
        return 1


def receive(url: str, ca_file: str | None, seconds: float, busy_poll: bool) -> int:
    """Receive for that long, or until Ctrl-C, and show what came; return the exit code."""
    feed = Feed()
    client = Client(url, on_msg=feed.on_msg, ca_file=ca_file, latency=True, busy_poll=busy_poll)
    code = 0
    with client:
        show_connection(client)
        start = time.monotonic()
        try:
            watch(client, feed, seconds)
        except KeyboardInterrupt:
            code = INTERRUPTED
        except ConnectionClosed as error:
            print(f"the exchange has gone: {error}", file=sys.stderr)
            code = 1
        elapsed = time.monotonic() - start
        summary = client.stats()
    show_summary(summary, feed, elapsed)
    return code if code or summary["messages"] else 1


class Feed:
    """Counts messages by stream, and keeps the newest one."""

    def __init__(self) -> None:
        self.by_stream: dict[str, int] = {}
        self.newest = b""

    def on_msg(self, msg: Message) -> None:
        """Parses each message, as a program that trades would."""
        envelope = loads(bytes(msg.data))
        stream = envelope.get("stream", "(other)")  # The exchange says when it goes away.
        self.by_stream[stream] = self.by_stream.get(stream, 0) + 1
        if msg.is_last:
            self.newest = bytes(msg.data)


def watch(client: Client, feed: Feed, seconds: float, output: TextIO = sys.stdout) -> None:
    """Receives for that long, and draws the table again and again."""
    live = output.isatty()
    end = time.monotonic() + seconds
    refresh = time.monotonic() + REFRESH_S
    drawn = 0
    while (now := time.monotonic()) < end:
        client.poll(max(0.0, min(refresh, end) - now))
        now = time.monotonic()
        if now < min(refresh, end):
            continue
        refresh = now + REFRESH_S  # From here, also after a pause: there is nothing to catch up.
        stages = cast("dict[str, Any]", client.stats()["latency"])
        width = min(WIDTH, shutil.get_terminal_size().columns - 1) if live else WIDTH
        lines = [line[:width] for line in (*latency_table(stages), newest_line(feed))]
        if live and drawn:
            output.write(f"\x1b[{drawn}A")
        if live or drawn == 0 or now >= end:
            output.writelines(f"\x1b[K{line}\n" if live else f"{line}\n" for line in lines)
            output.flush()
            drawn = len(lines)


def latency_table(stages: dict[str, dict[str, Any]]) -> list[str]:
    """One line a stage, in microseconds."""
    title = "latency, µs"
    lines = [f"{title:<16}" + "".join(f"{column.replace('_', '.'):>9}" for column in COLUMNS)]
    for stage, label in STAGES.items():
        histogram = stages[stage]
        cells = [f"{histogram['count']:>9}"]
        cells += [cell(histogram[column] / 1000) for column in COLUMNS[1:]]
        lines.append(f"{label:<16}{''.join(cells)}")
    return lines


def cell(duration_us: float) -> str:
    """A duration, in nine columns; of 0.1 s and more, only whole microseconds."""
    return f"{duration_us:>9.2f}" if duration_us < 99_999 else f"{duration_us:>9.0f}"


def newest_line(feed: Feed) -> str:
    """The beginning of the newest message."""
    line = f"newest: {feed.newest.decode()}"
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def show_connection(client: Client) -> None:
    """What was negotiated."""
    info = client.info()
    text = (
        f"connected to {info['peer_address']}: {info['tls_version']}, {info['cipher']}, "
        f"{info['tls_library']}; records: {info['engine']} engine, {info['aead']}; "
        f"kernel stamps: {info['kernel_stamp_source']}"
    )
    print(textwrap.fill(text, WIDTH))
    print()


def show_summary(stats: Stats, feed: Feed, seconds: float) -> None:
    """What was received, at the end."""
    print()
    print(
        f"{stats['messages']} messages, {stats['bytes'] / 1e6:.2f} MB in {seconds:.1f} s: "
        f"{stats['records']} TLS records in {stats['reads']} reads"
    )
    for stream, count in sorted(feed.by_stream.items()):
        print(f"  {stream:<24}{count:>8}")
    print("\nUntil its turn, a message waits for those in front of it in the same read:")
    print("for their records to be opened, and for the callback that parses them.")
    latency = stats["latency"]
    assert latency is not None  # The client was made with latency=True.
    kernel = latency["kernel"]
    print(f"The kernel stamps a read, not a message: of {kernel['count']} times from there,")
    print(f"{kernel['lower_bounds']} are lower bounds, of messages with others behind them.")
