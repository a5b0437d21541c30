"""Shows what the messages of the simulated exchange cost: ``python -m hftws demo``.

Starts the exchange in its own process, connects to it over TLS, receives recorded Binance
messages, and shows where the time of each goes while it runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, TextIO

from hftws._core import Message
from hftws.client import Client
from hftws.exchange import launch

try:
    from orjson import loads
except ImportError:  # Slower, and always there.
    from json import loads  # type: ignore[assignment]

HELP = "receive from the simulated exchange and show the latency of each stage"

STREAMS = ("btcusdt@trade", "btcusdt@bookTicker", "btcusdt@depth@100ms")
STAGES = {
    "kernel": "kernel → read",
    "decrypt": "read → decrypted",
    "deliver": "decrypted → on_msg",
    "total": "kernel → on_msg",
}
COLUMNS = ("count", "min", "p50", "p90", "p99", "p99_9", "max")
REFRESH_S = 0.5
SAMPLE_WIDTH = 96


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument("--seconds", type=float, default=10.0, help="how long it runs")
    parser.add_argument("--rate", type=float, help="messages a second instead of recorded speed")
    parser.add_argument("--busy-poll", action="store_true", help="spin instead of sleeping")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit code."""
    options = {} if arguments.rate is None else {"rate": arguments.rate}
    with launch(recording="busiest", **options) as exchange:
        url = f"{exchange.url}/stream?streams={'/'.join(STREAMS)}"
        feed = Feed()
        client = Client(
            url,
            on_msg=feed.on_msg,
            ca_file=exchange.ca_file,
            latency=True,
            busy_poll=arguments.busy_poll,
        )
        with client:
            show_connection(client)
            watch(client, feed, arguments.seconds)
            summary = client.stats()
    show_summary(summary, feed, arguments.seconds)
    return 0 if summary["messages"] else 1


class Feed:
    """Counts messages by stream and keeps the newest one."""

    def __init__(self) -> None:
        self.by_stream: dict[str, int] = {}
        self.newest = b""

    def on_msg(self, msg: Message) -> None:
        """Parses each message, as a program that trades would."""
        envelope = loads(bytes(msg.data))
        stream = envelope["stream"]
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
        lines = [*latency_table(client.stats()["latency"]), newest_line(feed)]
        if live and drawn:
            output.write(f"\x1b[{drawn}A")
        if live or drawn == 0 or now >= end:
            output.writelines(f"\x1b[K{line}\n" if live else f"{line}\n" for line in lines)
            output.flush()
            drawn = len(lines)


def latency_table(stages: dict[str, dict[str, Any]]) -> list[str]:
    """One line a stage, in microseconds."""
    title = "latency, µs"
    lines = [f"{title:<20}" + "".join(f"{column.replace('_', '.'):>10}" for column in COLUMNS)]
    for stage, label in STAGES.items():
        histogram = stages[stage]
        cells = [f"{histogram['count']:>10}"]
        cells += [f"{histogram[column] / 1000:>10.2f}" for column in COLUMNS[1:]]
        lines.append(f"{label:<20}{''.join(cells)}")
    return lines


def newest_line(feed: Feed) -> str:
    """The beginning of the newest message."""
    text = feed.newest.decode()
    return f"newest: {text[:SAMPLE_WIDTH]}{'…' if len(text) > SAMPLE_WIDTH else ''}"


def show_connection(client: Client) -> None:
    """What was negotiated."""
    info = client.info()
    print(f"connected to {info['peer_address']}: {info['tls_version']}, {info['cipher']},")
    print(f"{info['tls_library']}; records: {info['engine']} engine, {info['aead']};")
    print(f"kernel stamps: {info['kernel_stamp_source']}")
    print()


def show_summary(stats: dict[str, Any], feed: Feed, seconds: float) -> None:
    """What was received, at the end."""
    print()
    print(
        f"{stats['messages']} messages, {stats['bytes'] / 1e6:.2f} MB in {seconds:g} s: "
        f"{stats['records']} TLS records in {stats['reads']} reads"
    )
    for stream, count in sorted(feed.by_stream.items()):
        print(f"  {stream:<24}{count:>8}")
    print(
        "\nread → decrypted includes the messages in front of it in the same read: their records,"
    )
    print("and the callback that parses them.")
