"""Runs the tests of kTLS under every kernel, or one command under one of them.

See the package's docstring.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from release.debian import PackageError, Unavailable

from . import host, kernel, matrix, openssl, xstate
from .errors import RigError
from .initramfs import Task
from .machine import boot


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.ktls", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    test = commands.add_parser("test", help="the tests, under every kernel and OpenSSL")
    test.add_argument("--suites", nargs="+", default=list(kernel.SUITES), choices=kernel.SUITES)
    test.add_argument("--jobs", type=int, help="boots at a time; as many as the machine can bear")
    test.add_argument("--timeout", type=float, default=300.0, help="seconds for one boot")
    test.add_argument("--tls-engine", default="ktls", help="what is tested: ktls")
    run = commands.add_parser("run", help="one command; `python` stands for this Python")
    run.add_argument("--suite", default=kernel.SUITES[-1], choices=kernel.SUITES)
    run.add_argument("--openssl", default=openssl.HOST, choices=[openssl.HOST, *openssl.VERSIONS])
    run.add_argument("--without", nargs="+", default=[], metavar="MODULE", help="not loaded")
    run.add_argument("--timeout", type=float, default=600.0, help="seconds")
    run.add_argument("command", nargs=argparse.REMAINDER)
    for command in (test, run):
        command.add_argument(
            "--xstate-shim",
            default="auto",
            choices=xstate.MODES,
            help="what helps kernels before 6.13 on CPUs with AMX: where it is needed (auto), "
            "into every kernel, or never",
        )
    options = parser.parse_args(arguments)
    if options.name == "run":
        options.command = options.command[options.command[:1] == ["--"] :]
        if not options.command:
            parser.error("run needs a command")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: that of the command, or whether a test has failed."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, leave)
    try:
        return test(options) if options.name == "test" else run(options)
    except Unavailable as reason:
        print(f"skipped: {reason}")
        return 0
    except (PackageError, RigError) as error:
        print(f"The rig failed: {error}", file=sys.stderr)
        return 1


def leave(signum: int, frame: FrameType | None) -> None:
    """Not without what stops the kernels."""
    sys.exit(128 + signum)


def run(options: argparse.Namespace) -> int:
    """Runs one command, in this folder, for somebody who wants to look inside."""
    folder = matrix.folder()
    command = options.command
    if command[0] == "python":
        command = [*openssl.provide(options.openssl, folder), *command[1:]]
    guest = kernel.provide(options.suite, folder)  # Tells where the rig is for no such machine.
    shim = matrix.provide_shim(options.xstate_shim)
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as shared:
        result = boot(
            guest,
            Task(command, Path.cwd(), matrix.environment()),
            shared=Path(shared),
            memory=host.place(1)[0],
            output=sys.stdout.buffer,
            timeout_s=options.timeout,
            without=options.without,
            preload=shim.under(guest.release),
        )
    counted = {name: count for name, count in result.tls_stat.items() if count}
    print(f"{result.seconds:.1f} s; tls_stat: {counted}", file=sys.stderr)
    return result.status


def test(options: argparse.Namespace) -> int:
    """Runs the tests under all kernels, and prints a table."""
    return matrix.test(
        options.suites,
        engine=options.tls_engine,
        jobs=options.jobs,
        timeout_s=options.timeout,
        xstate_shim=options.xstate_shim,
    )


if __name__ == "__main__":
    sys.exit(main())
