"""Our last word when the kernel cannot open a record: the alert arrives, and then FIN.

What lies behind such a record cannot be read, so the socket is closed at once. Alert and FIN are
under way by then, and a server that reads finds them before the reset that may follow. The server
is another process, as in test_last_word.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from servers import PATIENCE

import hftws

from .support import needs_ktls

pytestmark = needs_ktls

#: One connection. Prints the port, then whether the alert came and how the stream ended.
SERVER = """
import base64, hashlib, json, socket, ssl, sys
certificate, version, junk = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
plain, _ = listener.accept()
peer = context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False)
request = b""
while b"\\r\\n\\r\\n" not in request: request += peer.recv(65536)
(key,) = [line.split()[1] for line in request.split(b"\\r\\n") if b"-WebSocket-Key:" in line]
accept = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
peer.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\n"
    b"Connection: Upgrade\\r\\nSec-WebSocket-Accept: " + base64.b64encode(accept) + b"\\r\\n\\r\\n")
assert peer.recv(65536)
alert = None
try:
    socket.socket.sendall(peer, b"\\x17\\x03\\x03\\x00\\x20" + bytes(32) + bytes(int(junk)))
    try:
        peer.recv(100)
    except ssl.SSLError as error:
        alert = "BAD_RECORD_MAC" in error.reason
    end = "more" if socket.socket.recv(peer, 65536) else "fin"
except ConnectionError as error:
    end = type(error).__name__
print(json.dumps([alert, end]), flush=True)
"""


@pytest.mark.parametrize("junk", [0, 20_000, 100_000])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_bad_record_is_answered_with_an_alert_that_arrives(
    ca: trustme.CA, ca_file: Path, tmp_path: Path, version: str, junk: int
) -> None:
    certificate = tmp_path / "server.pem"
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    command = [sys.executable, "-c", SERVER, str(certificate), version, str(junk)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        client = hftws.Client(
            f"wss://127.0.0.1:{int(process.stdout.readline())}",
            ca_file=str(ca_file),
            tls="ktls",
            close_timeout=20 * PATIENCE,
        )
        client.connect()
        assert client.info()["engine"] == "ktls"
        client.send(b"an order")
        with pytest.raises(hftws.TLSError, match="bad record mac"):
            while True:
                client.poll(5.0)
        assert json.loads(process.stdout.readline()) == [True, "fin"]
