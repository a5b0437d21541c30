"""The command line of the simulated exchange."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import fields

from .options import RECORDINGS, TLS_VERSIONS, Options, StartLine

HELP = "run a simulated exchange that speaks as Binance's market streams do"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an argument for every field of `Options`."""
    parser.set_defaults(**{field.name: field.default for field in fields(Options)})
    _add_network(parser.add_argument_group("network and TLS"))
    _add_replay(parser.add_argument_group("replay"))
    _add_limits(parser.add_argument_group("limits (zero switches one off)"))


def run(arguments: argparse.Namespace) -> int:
    """Run the exchange until it is stopped, and return the exit code."""
    try:
        from . import server
    except ImportError as error:
        print(f"{error}: install it with pip install 'hftws[exchange]'", file=sys.stderr)
        return 1
    options = Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})
    try:
        asyncio.run(server.run(options, _announce))
    except OSError as error:  # a TLS option that OpenSSL refuses as well
        print(f"cannot start the exchange: {error}", file=sys.stderr)
        return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the exchange as a program."""
    parser = argparse.ArgumentParser(prog="python -m hftws.exchange", description=HELP)
    add_arguments(parser)
    return run(parser.parse_args(argv))


def _announce(line: StartLine) -> None:
    print(json.dumps(line), flush=True)


def _add_network(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", help="address to listen on (127.0.0.1)")
    group.add_argument("--port", type=_port, help="port to listen on (any that is free)")
    group.add_argument("--tls", action=argparse.BooleanOptionalAction, help="use TLS (yes)")
    group.add_argument(
        "--ca-file", metavar="PATH", help="where to write the CA certificate (a temporary file)"
    )
    group.add_argument("--max-version", choices=TLS_VERSIONS, help="the newest TLS version offered")
    group.add_argument("--ciphers", help="OpenSSL cipher list for TLS 1.2")


def _add_replay(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--recording", choices=RECORDINGS, help="what to replay (busiest)")
    pace = group.add_mutually_exclusive_group()
    pace.add_argument(
        "--speed", type=positive_finite, metavar="FACTOR", help="times faster than recorded (1)"
    )
    pace.add_argument(
        "--rate",
        type=positive,
        metavar="MSGS_PER_SECOND",
        help="messages a second on each connection, instead of recorded spacing; inf: no limit",
    )
    group.add_argument(
        "--precise",
        action=argparse.BooleanOptionalAction,
        help="spin through waits shorter than 2 ms, which takes a CPU core (no)",
    )
    group.add_argument(
        "--seed",
        type=int,
        help="start at a place in the recording drawn with this seed",
    )
    group.add_argument(
        "--drop",
        type=_drop,
        metavar="N",
        help="leave out every Nth depth update of each connection, to show gaps (0: none)",
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    for name, meaning in (
        ("--ping-interval", "between two pings (20)"),
        ("--ping-timeout", "that a pong may take (60)"),
        ("--max-connection-age", "after which a connection is cut (24 hours)"),
        ("--shutdown-after", "after which the exchange goes away, as on SIGTERM (never)"),
        ("--shutdown-notice", "from the serverShutdown event until connections are cut (0)"),
    ):
        group.add_argument(name, type=_not_negative, metavar="SECONDS", help=f"seconds {meaning}")
    group.add_argument(
        "--inbound-limit",
        type=_count,
        metavar="MSGS_PER_SECOND",
        help="messages a client may send within a second (5)",
    )
    group.add_argument(
        "--stop-with-stdin",
        action=argparse.BooleanOptionalAction,
        help="go away when standard input ends: when the parent process does (no)",
    )


def positive(text: str) -> float:
    """Parse a number above zero; `inf` is one."""
    value = _number(text)
    if not value > 0:  # Also nan.
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def positive_finite(text: str) -> float:
    """Parse a number above zero that is not infinite."""
    value = positive(text)
    if value == float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not finite")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _not_negative(text: str) -> float:
    value = _number(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _count(text: str) -> int:
    _not_negative(text)
    return int(text)


def _drop(text: str) -> int:
    value = int(text)
    if value < 0 or value == 1:
        raise argparse.ArgumentTypeError(f"{text} is neither 0, for no gaps, nor 2 or more")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: 0 to 65535")
    return value
