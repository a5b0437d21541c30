"""Whether there is kTLS at all, shown with Python's ssl: a broken rig is not a broken engine."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
import trustme
from servers import PEER_TIMEOUT

from .support import TlsStat, needs_ktls

pytestmark = needs_ktls

#: Python has it from 3.12 on.
OP_ENABLE_KTLS = getattr(ssl, "OP_ENABLE_KTLS", 1 << 3)

SIZES = (1, 1000, 100_000)

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def receives_in_kernel(version: ssl.TLSVersion) -> bool:
    """OpenSSL hands over the keys of TLS 1.3 for receiving only since 3.2."""
    return version == ssl.TLSVersion.TLSv1_2 or ssl.OPENSSL_VERSION_INFO >= (3, 2)


def echo(sock: socket.socket, context: ssl.SSLContext) -> None:
    with context.wrap_socket(sock, server_side=True) as server:
        for size in SIZES:
            server.sendall(recv_exactly(server, size))


def recv_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(65536)):
        data += more
    return data


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_openssl_has_ktls_on_both_ends(
    ca: trustme.CA, ca_file: str, version: ssl.TLSVersion
) -> None:
    """The kernel counts it. The ULP alone proves nothing: it is there without ciphers, too."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context(cafile=ca_file)
    for context in (server, client):
        context.options |= OP_ENABLE_KTLS
    client.minimum_version = client.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listener:
        raw = socket.create_connection(listener.getsockname(), timeout=PEER_TIMEOUT)
        accepted, _ = listener.accept()
    accepted.settimeout(PEER_TIMEOUT)
    stat = TlsStat()
    thread = threading.Thread(target=echo, args=(accepted, server), daemon=True)
    thread.start()
    with client.wrap_socket(raw, server_hostname="localhost") as sock:
        for size in SIZES:
            payload = bytes(place % 251 for place in range(size))
            sock.sendall(payload)
            assert recv_exactly(sock, size) == payload
        thread.join(PEER_TIMEOUT)
    receiving = {"TlsRxSw": 2} if receives_in_kernel(version) else {}
    stat.expect(TlsTxSw=2, **receiving)
