"""Runs the simulated exchange in its own process, for tests and demonstrations."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import IO, Final

from .options import Options, StartLine

START_TIMEOUT: Final = 30.0
STOP_TIMEOUT: Final = 10.0

_PACKAGE: Final = __package__ or "hftws.exchange"
_ROOT: Final = str(Path(__file__).absolute().parents[_PACKAGE.count(".") + 1])


class ExchangeError(RuntimeError):
    """The exchange did not start, or it died."""


class RunningExchange:
    """A simulated exchange in another process."""

    url: str
    """Where its WebSocket connections are: `wss://127.0.0.1:PORT`, without a path."""
    http_url: str
    """Where its REST requests are: `https://127.0.0.1:PORT`."""
    ca_file: str | None
    """The certificate authority to trust; None without TLS."""
    streams: list[str]
    """What can be subscribed to."""

    def __init__(self, process: subprocess.Popen[str], stderr: IO[str]) -> None:
        self.process = process
        self._stderr = stderr
        line = self._read_start_line()
        self.url = line["url"]
        self.http_url = "http" + self.url[len("ws") :]
        self.ca_file = line["ca_file"]
        self.streams = line["streams"]

    @property
    def stderr(self) -> str:
        """What it has written to standard error so far."""
        self._stderr.seek(0)
        return self._stderr.read()

    def stop(self) -> int:
        """Make it go away as on a real shutdown, wait for that, and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _read_start_line(self) -> StartLine:
        assert self.process.stdout is not None
        # Killing the process ends its output, and so the wait below.
        deadline = threading.Timer(START_TIMEOUT, self.process.kill)
        deadline.start()
        try:
            line = self.process.stdout.readline()
        finally:
            deadline.cancel()
        if not line:
            code = self.process.wait()
            raise ExchangeError(f"the exchange did not start (exit code {code}):\n{self.stderr}")
        start: StartLine = json.loads(line)
        return start


@contextlib.contextmanager
def launch(**options: str | float | bool | os.PathLike[str] | None) -> Iterator[RunningExchange]:
    """Run an exchange for the time of a `with` block. The options are the fields of `Options`.

        import hftws.exchange

        with hftws.exchange.launch(recording="sample", rate=1000) as exchange:
            connect(exchange.url + "/ws/btcusdt@trade", ca_file=exchange.ca_file)

    Its standard error is shown if the block fails, and is in the `ExchangeError` if the exchange
    itself fails. It ends with this process, however this process ends.
    """
    command = [sys.executable, "-m", _PACKAGE, *_arguments(options), "--stop-with-stdin"]
    path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as stderr,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        ) as process,
    ):
        try:
            exchange = RunningExchange(process, stderr)
            try:
                yield exchange
            except BaseException:
                sys.stderr.write(exchange.stderr)
                raise
            code = exchange.stop()
            if code != 0:
                raise ExchangeError(f"the exchange failed (exit code {code}):\n{exchange.stderr}")
        finally:
            process.kill()


def _arguments(options: dict[str, str | float | bool | os.PathLike[str] | None]) -> Iterator[str]:
    known = {field.name for field in fields(Options)}
    for name, value in options.items():
        if name not in known:
            raise TypeError(f"the exchange has no option {name!r}")
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        elif value is not None:
            yield f"--{flag}={os.fspath(value) if isinstance(value, os.PathLike) else value}"
