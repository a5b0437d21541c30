"""Runs the fuzzing server as a process, and reads the verdicts that it writes."""

from __future__ import annotations

import json
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import trustme

from .verdicts import Verdict

__all__ = ["Suite", "SuiteError"]

SERVER = Path(__file__).with_name("server.py")

#: Seconds that the server has to start, on a machine that does other things, too.
START_TIMEOUT = 120

#: Seconds that the server has to end when it is asked to.
STOP_TIMEOUT = 10


class SuiteError(Exception):
    """The server did not do its part: no verdict on the client."""


@dataclass(frozen=True)
class Ready:
    """What the server says when it listens."""

    version: str
    port: int
    #: Every case that it plays, in their order.
    cases: list[str]
    #: What it calls the sections, by their number.
    titles: dict[str, str]


class Suite:
    """``with Suite(python, "wss", folder) as suite``: a server on the loopback.

    It keeps what was on the wire in memory until it ends, so start one for each run. Its report,
    and its output as server.log, stay in ``folder``.

    :param python: the one that has the suite; see environment.py.
    :param scheme: ``ws`` or ``wss``.
    """

    def __init__(self, python: Path, scheme: str, folder: Path) -> None:
        self.scheme = scheme
        self.folder = folder
        #: The authority that signed the server's certificate; None over plain TCP.
        self.ca_file: Path | None = None
        self._python = python

    def __enter__(self) -> Suite:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._index.unlink(missing_ok=True)  # The report of an earlier run.
        spec = self.folder / "spec.json"
        spec.write_text(json.dumps(self._spec()), encoding="utf-8")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [self._python, SERVER, spec],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            self._ready = self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def version(self) -> str:
        """The suite's."""
        return self._ready.version

    @property
    def cases(self) -> list[str]:
        """Every case that the server plays, in their order."""
        return self._ready.cases

    @property
    def titles(self) -> dict[int, str]:
        """What the suite calls its sections."""
        return {int(number): title for number, title in self._ready.titles.items()}

    def url(self, target: str) -> str:
        """The address of something on this server."""
        return f"{self.scheme}://127.0.0.1:{self._ready.port}/{target}"

    def verdicts(self, agent: str) -> dict[str, Verdict]:
        """The verdicts by case, as the server wrote them when it was last asked to."""
        if not self._index.is_file():
            raise self.error("the server wrote no report")
        agents = json.loads(self._index.read_text(encoding="utf-8"))
        return {
            case: Verdict(entry["behavior"], entry["behaviorClose"])
            for case, entry in agents.get(agent, {}).items()
        }

    def error(self, what: str) -> SuiteError:
        """The error with the last lines of the server's output."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return SuiteError(f"{what}; {self._log} ends with: " + " | ".join(lines[-3:]))

    @property
    def _index(self) -> Path:
        return self.folder / "index.json"

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "url": f"{self.scheme}://127.0.0.1:0",
            "outdir": str(self.folder),
            "cases": ["*"],
        }
        if self.scheme == "wss":
            spec.update(self._make_certificate())
        return spec

    def _make_certificate(self) -> dict[str, str]:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        self.ca_file = self.folder / "ca.pem"
        key_file, cert_file = self.folder / "key.pem", self.folder / "cert.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        certificate.private_key_pem.write_to_path(key_file)
        certificate.cert_chain_pems[0].write_to_path(cert_file)
        return {"key": str(key_file), "cert": str(cert_file)}

    def _wait_until_ready(self) -> Ready:
        assert self._process.stdout is not None
        patience = threading.Timer(START_TIMEOUT, self._process.kill)
        patience.start()
        try:
            line = self._process.stdout.readline()  # Empty when the server ended instead.
        finally:
            patience.cancel()
        if not line:
            raise self.error("the server did not start")
        return Ready(**json.loads(line))

    def _stop(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
