"""The command line: `python -m hftws COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final, Protocol

from hftws import demo
from hftws.exchange import cli as exchange


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
    """Run the subcommand that is named first."""
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
