"""The command line: `python -m hftws COMMAND`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final, Protocol

from hftws import demo
from hftws.exchange import cli as exchange

NO_READER: Final = 141
"""The exit code when nobody reads the output any more, as in `| head`: 128 + SIGPIPE."""


class Command(Protocol):
    """What a module must hold to be a subcommand."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the subcommand."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run it and return the exit code."""


COMMANDS: Final[dict[str, Command]] = {
    "demo": demo,
    "exchange": exchange,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that is named first, and return the exit code."""
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # Not at exit, where nothing could catch its error.
    except KeyboardInterrupt:
        return demo.INTERRUPTED
    except BrokenPipeError:
        # What is still in the buffer is written at exit, to where that does not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER


def _run(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hftws")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(
            subparsers.add_parser(name, help=command.HELP, description=command.HELP)
        )
    arguments = parser.parse_args(argv)
    return COMMANDS[arguments.command].run(arguments)


if __name__ == "__main__":
    sys.exit(main())
