"""Our last word: if TLS fails, the server reads our alert and then FIN, not a reset.

A socket that is closed with unread bytes is reset, and what it sent last may be lost. The server is
another process: one in a thread would wait for Python's lock until the client has closed.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from servers import PATIENCE

import hftws

#: One connection. Prints the port, then whether the alert came and how the stream ended.
SERVER = """
import json, socket, ssl, sys
mode, certificate, version = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
peer, _ = listener.accept()
JUNK = bytes(4_000_000)
raw_send, raw_recv = socket.socket.sendall, socket.socket.recv
alert = None
try:
    if mode == "handshake":
        assert peer.recv(65536)
        peer.sendall(b"\\x16\\x03\\x03\\x00\\x05hello" + JUNK)
        header = peer.recv(7, socket.MSG_WAITALL)
        alert = header[0] == 21 and header[5] == 2
    else:
        peer = context.wrap_socket(peer, server_side=True, suppress_ragged_eofs=False)
        while b"\\r\\n\\r\\n" not in peer.recv(65536): pass
        raw_send(peer, b"\\x17\\x03\\x03\\x00\\x20" + bytes(32) + JUNK)
        try:
            peer.recv(100)
        except ssl.SSLError as error:
            alert = "BAD_RECORD_MAC" in error.reason
    end = "more" if raw_recv(peer, 65536) else "fin"
except ConnectionError as error:
    end = type(error).__name__
print(json.dumps([alert, end]), flush=True)
"""


@pytest.fixture(scope="module")
def certificate(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("last-word") / "server.pem"
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return path


@contextlib.contextmanager
def server(
    mode: str, certificate: Path, version: str = "TLSv1_3"
) -> Iterator[tuple[int, Callable[[], list[object]]]]:
    """Its port, and what gives its report."""
    command = [sys.executable, "-c", SERVER, mode, str(certificate), version]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        stdout = process.stdout
        try:
            yield int(stdout.readline()), lambda: json.loads(stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("engine", ["direct", "openssl"])
def test_a_bad_record_is_answered_with_an_alert_that_arrives(
    certificate: Path, ca_file: Path, engine: str, version: str
) -> None:
    """However much the server has sent behind it."""
    with server("open", certificate, version) as (port, report):
        client = hftws.Client(
            f"wss://127.0.0.1:{port}",
            ca_file=str(ca_file),
            tls=engine,
            connect_timeout=20 * PATIENCE,
            close_timeout=20 * PATIENCE,
        )
        with pytest.raises(hftws.TLSError, match="bad record mac"):
            client.connect()
        assert report() == [True, "fin"]


def test_a_handshake_that_fails_is_answered_with_an_alert_that_arrives(
    certificate: Path, ca_file: Path
) -> None:
    with server("handshake", certificate) as (port, report):
        client = hftws.Client(
            f"wss://127.0.0.1:{port}",
            ca_file=str(ca_file),
            connect_timeout=20 * PATIENCE,
            close_timeout=20 * PATIENCE,
        )
        with pytest.raises(hftws.TLSError, match="TLS handshake"):
            client.connect()
        assert report() == [True, "fin"]
