"""The sender: a process that serves the server halves of the benchmarks.

It is started once for each cipher suite. Python's ssl module cannot choose TLS 1.3 suites, so a
configuration file of OpenSSL does, and what was negotiated is checked. A thread serves a
connection: the path of the URL names the benchmark, its query has the parameters.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from bench import ROOT, kernel, wire

BUFFER_SIZE = 32 << 20


class Connection:
    """One client: `open` and `upgrade` it, then send and receive."""

    #: Whether the client offered permessage-deflate, and got it.
    compressed = False

    def __init__(self, connection: socket.socket, context: ssl.SSLContext | None) -> None:
        self.socket = connection
        self._tls = None if context is None else wire.TLSServer(context)
        self._frames = wire.FrameReader()

    @property
    def cipher(self) -> str | None:
        return None if self._tls is None else self._tls.cipher

    def open(self) -> str:
        """TLS and the request. Returns the path that was asked for, with its query."""
        if self._tls is not None:
            done = False
            while not done:
                self._tls.feed(self._receive_some())
                done, answer = self._tls.handshake()
                self.socket.sendall(answer)
        self._request = self._tls.open() if self._tls is not None else b""
        while b"\r\n\r\n" not in self._request:
            self._request += self._receive()
        return self._request.split(b" ", 2)[1].decode()

    def upgrade(self, extension: str) -> None:
        """Answers the request; with this extension if the client offers permessage-deflate."""
        self.compressed = bool(extension) and wire.offers_compression(self._request)
        answer = wire.upgrade_response(self._request, extension if self.compressed else "")
        self.socket.sendall(b"".join(self.seal([answer])))

    def receive(self) -> str | None:
        """The next text message; None when the client is gone."""
        while (frame := self.receive_frame()) is not None:
            opcode, payload = frame
            if opcode == 0x1:
                return payload.decode()
        return None

    def receive_frame(self) -> tuple[int, bytes] | None:
        """The next frame as opcode and payload; None when the client is gone."""
        while (frame := self._frames.next()) is None:
            try:
                self._frames.feed(self._receive())
            except ConnectionError:
                return None
        return None if frame[0] == 0x8 else frame

    def seal(self, units: list[bytes]) -> list[bytes]:
        """What goes over the wire: with TLS a record for each unit, without it the units.

        What was sealed has to be sent, in this order, before anything that is sealed later.
        """
        return units if self._tls is None else [self._tls.seal(unit) for unit in units]

    def send(self, payload: bytes) -> None:
        """A text message."""
        self.socket.sendall(b"".join(self.seal([wire.text_frame(payload)])))

    def _receive(self) -> bytes:
        data = self._receive_some()
        if self._tls is None:
            return data
        self._tls.feed(data)
        return self._tls.open()

    def _receive_some(self) -> bytes:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError("the client has hung up")
        return data


def serve_connection(
    accepted: socket.socket, context: ssl.SSLContext | None, suite: str | None
) -> None:
    """Serves the benchmark that the client asks for until the client goes."""
    try:
        with accepted:
            connection = Connection(accepted, context)
            url = urlsplit(connection.open())
            if connection.cipher != suite:
                raise RuntimeError(f"negotiated {connection.cipher}, wanted {suite}")
            name = url.path.strip("/")
            benchmark = importlib.import_module(f"bench.benchmarks.{name}")
            parameters = {key: int(value) for key, value in parse_qsl(url.query)}
            extension = getattr(benchmark, "extension", lambda parameters: "")
            connection.upgrade(extension(parameters))
            benchmark.serve(connection, parameters)
    except ConnectionError:  # The client has received what it needs, and is gone.
        pass
    except Exception:
        # The client waits for bytes that never come: its process has to end, and this one, too.
        traceback.print_exc()
        os._exit(1)


def main() -> None:
    """Serves until it is killed. Prints the port."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite")
    parser.add_argument("--certificate")
    arguments = parser.parse_args()
    kernel.claim_cpu(kernel.SERVER_CPU)
    context = None
    if arguments.suite is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(arguments.certificate)
        context.num_tickets = 0  # Only what was asked for is on the wire.
    listener = socket.create_server(("127.0.0.1", 0))
    kernel.set_buffer_size(listener, "send", BUFFER_SIZE)
    print(listener.getsockname()[1], flush=True)
    while True:
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(
            target=serve_connection, args=(accepted, context, arguments.suite), daemon=True
        ).start()


@dataclass(frozen=True)
class Certificates:
    """The files of a throw-away authority and of a certificate that it signed for 127.0.0.1."""

    ca_file: Path
    certificate: Path

    @classmethod
    def make(cls, directory: Path) -> Certificates:
        import trustme

        authority = trustme.CA()
        files = cls(directory / "ca.pem", directory / "certificate.pem")
        authority.cert_pem.write_to_path(files.ca_file)
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(files.certificate)
        return files


@contextlib.contextmanager
def launch(transport: str, certificates: Certificates, directory: Path) -> Iterator[str]:
    """Runs a server process for one of ``wire.SUITES``, and yields the start of its URLs."""
    suite = wire.SUITES[transport]
    command = [sys.executable, "-m", "bench.server"]
    environment = dict(os.environ)
    if suite is not None:
        configuration = directory / f"{transport}.cnf"
        configuration.write_text(OPENSSL_CONFIGURATION.format(suite=suite))
        environment["OPENSSL_CONF"] = str(configuration)
        command += ["--suite", suite, "--certificate", str(certificates.certificate)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield f"{'ws' if suite is None else 'wss'}://127.0.0.1:{port}"
        finally:
            process.kill()


OPENSSL_CONFIGURATION = """\
openssl_conf = openssl_init
[openssl_init]
ssl_conf = ssl_configuration
[ssl_configuration]
system_default = system_default
[system_default]
Ciphersuites = {suite}
"""


if __name__ == "__main__":
    main()
