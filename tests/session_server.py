"""A TLS server with sessions, in a process of its own, that misbehaves as it is told.

For each connection it reads a line from its input, which says what it does, and writes a line of
JSON: what the client offered, and what came of it. With ``numbered``, tickets have numbers, and are
renewed unless it is told to ``keep`` them.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import ssl
import struct
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # Not there with PYTHONSAFEPATH.

from renewed_tickets import Tickets

HEADER_SIZE = 5
TICKET, PRE_SHARED_KEY = 35, 41
CONTENT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BOGUS_RECORD = b"\x17\x03\x03\x00\x20" + bytes(32)
CLOSE = b"\x88\x02\x03\xe8"
HANDSHAKE_FAILURE = b"\x15\x03\x03\x00\x02\x02\x28"


def offers_session(hello: bytes) -> bool:
    """Whether this ClientHello, a whole record, has a ticket in it (RFC 5077; RFC 8446, 4.2.11)."""
    place = HEADER_SIZE + 4 + 2 + 32
    place += 1 + hello[place]  # The session's number.
    place += 2 + int.from_bytes(hello[place : place + 2], "big")  # Cipher suites.
    place += 1 + hello[place]  # Compression methods.
    place += 2
    while place < len(hello):
        kind, size = struct.unpack_from(">HH", hello, place)
        if kind in (TICKET, PRE_SHARED_KEY) and size > 0:
            return True
        place += 4 + size
    return False


class Connection:
    """The server's end of one."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.hello = self.read_hello()
        self.offered = offers_session(self.hello)
        self.incoming.write(self.hello)

    def read_hello(self) -> bytes:
        data = b""
        while len(data) < HEADER_SIZE or len(data) < HEADER_SIZE + int.from_bytes(data[3:5], "big"):
            data += self.receive()
        return data

    def receive(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("the client hung up")
        return data

    def flush(self) -> None:
        self.sock.sendall(self.outgoing.read())

    def until_done(self, step: Any, *arguments: Any) -> Any:
        while True:
            try:
                return step(*arguments)
            except ssl.SSLWantReadError:
                self.flush()
                self.incoming.write(self.receive())
            finally:
                self.flush()

    def open(self) -> None:
        """Handshake, upgrade and a first message."""
        self.until_done(self.tls.do_handshake)
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += self.until_done(self.tls.read, 65536)
        found = re.search(rb"Sec-WebSocket-Key: ([^\r]+)", request)
        assert found is not None
        digest = base64.b64encode(hashlib.sha1(found[1] + CONTENT_GUID).digest())
        response = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        response += b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + digest + b"\r\n\r\n"
        self.tls.write(response + b"\x81\x05hello")
        self.flush()

    def send_alert(self) -> None:
        """As one who cannot decrypt what came."""
        self.incoming.write(BOGUS_RECORD)
        with contextlib.suppress(ssl.SSLError):
            self.tls.read(65536)
        self.flush()

    def await_end(self) -> None:
        with contextlib.suppress(EOFError, OSError, ssl.SSLError):
            while self.until_done(self.tls.read, 65536):
                pass

    def break_handshake(self, way: str) -> None:
        """One of the ways in which a server can take an offer badly."""
        if way == "reset":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif way == "alert":
            self.sock.sendall(HANDSHAKE_FAILURE)
        elif way == "garbage":
            self.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        elif way == "half an answer":
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
            self.sock.sendall(self.outgoing.read()[:40])
        elif way == "stall":
            with contextlib.suppress(EOFError, OSError):
                while True:
                    self.receive()
        else:
            assert way == "hang up", way


def serve(connection: Connection, command: str) -> bool:
    """Whether the session was resumed."""
    refused, _, way = command.partition("at an offer: ")
    if way and not refused and connection.offered:
        connection.break_handshake(way)
        return False
    connection.open()
    if command == "bad record":
        connection.sock.sendall(BOGUS_RECORD)
    elif command == "alert":
        connection.send_alert()
    else:
        connection.tls.write(CLOSE)
        connection.flush()
    connection.await_end()
    return bool(connection.tls.session_reused)


def main() -> None:
    file, version, *numbered = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    tickets = Tickets(context) if numbered else None
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    for line in sys.stdin:
        sock, _ = listener.accept()
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tickets is not None:
                tickets.renews = line.strip() != "keep"
            connection = Connection(sock, context)
            resumed = serve(connection, line.strip())
        result: dict[str, Any] = {"offered": connection.offered, "resumed": resumed}
        if tickets is not None:
            result["shown"] = tickets.shown
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
