"""Scripted servers: what a peer says, byte for byte, in plain blocking calls.

A script is a function that gets a :class:`Peer`, the server's end of one accepted connection:

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("hello")
        peer.close_handshake()

    with serve(script) as server, server.client(on_msg=messages.append) as client:
        client.run()

``serve`` is a fixture of conftest.py. An error of a script is raised again when the ``with`` block
ends. Everything a peer waits for has a limit (:data:`PEER_TIMEOUT`), so a test cannot hang.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import hftws

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PATIENCE",
    "PEER_TIMEOUT",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "Peer",
    "Request",
    "ScriptServer",
    "Scripts",
    "Serve",
    "accept_value",
    "close_payload",
    "encode_frame",
    "has_ipv6",
    "takes",
]

#: How many times longer than usual everything may take: a program under valgrind is slow.
PATIENCE = float(os.environ.get("HFTWS_TEST_PATIENCE", "1"))

#: Seconds that a peer waits for anything.
PEER_TIMEOUT = 5.0 * PATIENCE

#: Seconds that a flood may last: as long as any test.
FLOOD_TIMEOUT = 60.0 * PATIENCE

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

Script = Callable[["Peer"], object]
Scripts = Script | Sequence[Script]


# ---- Bytes of RFC 6455, written apart from the code under test. ------------------------------


@dataclass(frozen=True)
class Frame:
    """One frame as it was on the wire, its payload unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    mask: bytes | None = None

    @property
    def close_code(self) -> int | None:
        """The code in a close frame; None if it has none."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else None

    @property
    def close_reason(self) -> str:
        """The reason in a close frame."""
        return self.payload[2:].decode()


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """Masks, or unmasks."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def encode_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = None,
    length_form: int | None = None,
    length: int | None = None,
) -> bytes:
    """The bytes of a frame. With ``length_form`` (7, 16 or 64) and ``length``, it can lie."""
    size = len(payload) if length is None else length
    if length_form is None:
        length_form = 7 if size < 126 else 16 if size < 65536 else 64
    masked = 0x80 if mask is not None else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if length_form == 7:
        head += bytes([masked | size])
    elif length_form == 16:
        head += bytes([masked | 126]) + struct.pack(">H", size)
    else:
        head += bytes([masked | 127]) + struct.pack(">Q", size)
    return head + (payload if mask is None else mask + apply_mask(payload, mask))


def close_payload(code: int | None, reason: str = "") -> bytes:
    """The payload of a close frame."""
    return b"" if code is None else struct.pack(">H", code) + reason.encode()


def accept_value(key: str) -> str:
    """What Sec-WebSocket-Accept has to be (RFC 6455, section 4.2.2)."""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    return base64.b64encode(digest).decode()


# ---- This machine. -----------------------------------------------------------------------------


def has_ipv6() -> bool:
    """Whether there is a ::1 to listen on."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


# ---- Time. -------------------------------------------------------------------------------------


@contextlib.contextmanager
def takes(at_least: float, at_most: float, *, busy: bool = False) -> Iterator[None]:
    """The block lasts about that long, and sleeps meanwhile unless ``busy``.

    ``at_most`` tells apart what ends in time and what waits for a later deadline, or for ever. It
    has to be wide: the machine may be busy with something else for a while.
    """
    began, cpu_began = time.monotonic(), time.thread_time()
    yield
    elapsed, cpu = time.monotonic() - began, time.thread_time() - cpu_began
    assert at_least - 0.05 <= elapsed <= at_most * PATIENCE
    assert busy or cpu <= (0.1 + at_least / 10) * PATIENCE, "it did not sleep"


# ---- The server's end of one connection. -------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """An HTTP request as it was on the wire."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    raw: bytes

    def header(self, name: str) -> str | None:
        """The only header of this name; None if there is none."""
        values = self.header_all(name)
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0] if values else None

    def header_all(self, name: str) -> list[str]:
        """Every header of this name, in their order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Peer:
    """The server's end of one connection. Every call blocks, for at most PEER_TIMEOUT."""

    def __init__(self, sock: socket.socket, server: ScriptServer) -> None:
        self.sock = sock
        self.server = server
        #: The upgrade request, once :meth:`read_request` has read it.
        self.request: Request | None = None
        self._ahead = b""

    # ---- Bytes.

    def send(self, data: bytes) -> None:
        """Sends all of it."""
        self.sock.sendall(data)

    def send_each(self, data: bytes) -> None:
        """Sends byte by byte, a segment each."""
        for index in range(len(data)):
            self.sock.sendall(data[index : index + 1])

    def trickle(self, data: bytes, pause: float) -> int:
        """Sends a byte every ``pause`` seconds, until the client or the test has had enough.

        Gives how many went out.
        """
        for index in range(len(data)):
            try:
                self.sock.sendall(data[index : index + 1])
            except ConnectionError:
                return index
            if self.server.stopping.wait(pause):
                return index + 1
        return len(data)

    def recv_some(self) -> bytes:
        """What has arrived, at least a byte; empty at the end of the stream."""
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return data
        return self.sock.recv(65536)

    def recv_exactly(self, size: int) -> bytes:
        """Reads exactly this many bytes; EOFError if the client ends before."""
        if len(self._ahead) < size:
            self._read_ahead(size)
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def _read_ahead(self, size: int) -> None:
        """Reads this many bytes: joined once at the end, since there may be thousands of pieces."""
        pieces, left = [self._ahead], size - len(self._ahead)
        try:
            while left > 0:
                data = self.sock.recv(max(65536, left))
                if not data:
                    said = b"".join(pieces)
                    raise EOFError(f"the client hung up after {len(said)} bytes: {said[:200]!r}")
                pieces.append(data)
                left -= len(data)
        finally:
            self._ahead = b"".join(pieces)

    def recv_until(self, end: bytes) -> bytes:
        """Reads up to ``end``, and returns it too."""
        while end not in self._ahead:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(f"the client hung up after {self._ahead!r}")
            self._ahead += data
        data, found, self._ahead = self._ahead.partition(end)
        return data + found

    def recv_all(self) -> bytes:
        """Reads everything until the client hangs up, with FIN or with RST."""
        data = b""
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            while more := self.recv_some():
                data += more
        return data

    def tls_first_flight(self, context: ssl.SSLContext) -> bytes:
        """Reads the ClientHello, and returns what a server answers; sends nothing."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = context.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            data = self.recv_some()
            if not data:
                raise EOFError("the client hung up in the TLS handshake")
            incoming.write(data)
            with contextlib.suppress(ssl.SSLWantReadError):
                session.do_handshake()
            if flight := outgoing.read():
                return flight

    def flood(self, block: bytes) -> None:
        """Sends it again and again from another process, faster than anybody reads.

        Ends when the client hangs up. A thread would be slower: it needs Python's lock.
        """
        program = (
            "import os, sys\n"
            "block = sys.stdin.buffer.read()\n"
            "block *= 1 + 1_000_000 // len(block)\n"
            "try:\n"
            "    while True: os.write(1, block)\n"
            "except OSError: pass\n"
        )
        self.sock.setblocking(True)
        command = [sys.executable, "-S", "-c", program]
        subprocess.run(
            command, input=block, stdout=self.sock.fileno(), timeout=FLOOD_TIMEOUT, check=True
        )

    # ---- HTTP.

    def read_request(self) -> Request:
        """Reads an HTTP request, which has no body."""
        raw = self.recv_until(b"\r\n\r\n")
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        headers = [(name, value.strip()) for name, _, value in (x.partition(":") for x in lines)]
        self.request = Request(method, target, version, headers, raw)
        return self.request

    def upgrade_response(
        self,
        *,
        headers: Iterable[tuple[str, str]] = (),
        subprotocol: str | None = None,
        accept: str | None = None,
    ) -> bytes:
        """The 101 response to the request that was read."""
        assert self.request is not None, "read_request() comes first"
        key = self.request.header("Sec-WebSocket-Key")
        assert key is not None
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept if accept is not None else accept_value(key)}",
        ]
        if subprotocol is not None:
            lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        lines += [f"{name}: {value}" for name, value in headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def accept_upgrade(
        self,
        *,
        headers: Iterable[tuple[str, str]] = (),
        subprotocol: str | None = None,
        then: bytes = b"",
    ) -> Request:
        """Reads the upgrade request and accepts it; ``then`` goes out in the same write."""
        request = self.read_request()
        self.send(self.upgrade_response(headers=headers, subprotocol=subprotocol) + then)
        return request

    # ---- Frames.

    def send_frame(self, opcode: int, payload: bytes = b"", **options: Any) -> None:
        """Sends a frame; the options are those of :func:`encode_frame`."""
        self.send(encode_frame(opcode, payload, **options))

    def send_text(self, text: str) -> None:
        """Sends a text message."""
        self.send_frame(TEXT, text.encode())

    def send_binary(self, data: bytes) -> None:
        """Sends a binary message."""
        self.send_frame(BINARY, data)

    def send_close(self, code: int | None = 1000, reason: str = "") -> None:
        """Sends a close frame."""
        self.send_frame(CLOSE, close_payload(code, reason))

    def read_frame(self) -> Frame:
        """Reads one frame of the client, which has to be masked."""
        first, second = self.recv_exactly(2)
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(self.recv_exactly(2), "big")
        elif size == 127:
            size = int.from_bytes(self.recv_exactly(8), "big")
        assert second & 0x80, "a frame of the client is not masked"
        mask = self.recv_exactly(4)
        payload = apply_mask(self.recv_exactly(size), mask)
        return Frame(first & 0xF, payload, bool(first & 0x80), first >> 4 & 7, mask)

    def expect_frame(self, opcode: int, payload: bytes | None = None) -> Frame:
        """Reads one frame, which has to be this one."""
        frame = self.read_frame()
        assert frame.opcode == opcode, frame
        assert payload is None or frame.payload == payload, frame
        return frame

    def expect_close(self, code: int | None) -> Frame:
        """Reads one frame, which has to be a close frame with this code."""
        frame = self.expect_frame(CLOSE)
        assert frame.close_code == code, frame
        return frame

    def expect_eof(self) -> None:
        """Waits for the client to hang up, and expects that it sends nothing more."""
        assert self.recv_all() == b""

    def close_handshake(self, code: int | None = 1000, reason: str = "") -> Frame:
        """Sends CLOSE, waits for the client's, and hangs up. Returns the client's close frame."""
        self.send_close(code, reason)
        frame = self.expect_frame(CLOSE)
        self.hang_up()
        return frame

    def answer_close(self) -> Frame:
        """Waits for the client's CLOSE, answers with the same, and hangs up."""
        frame = self.expect_frame(CLOSE)
        self.send_frame(CLOSE, frame.payload)
        self.hang_up()
        return frame

    # ---- Ways to end.

    def shut_send_side(self) -> None:
        """Sends FIN without close_notify: the client reads the end, and can still send."""
        socket.socket.shutdown(self.sock, socket.SHUT_WR)  # An SSLSocket would forget its TLS.

    def end_tls(self) -> None:
        """Sends close_notify and waits for the client's; the TCP connection stays."""
        assert isinstance(self.sock, ssl.SSLSocket)
        self.sock = self.sock.unwrap()

    def hang_up(self) -> None:
        """Sends FIN, over TLS after close_notify; then waits for the client to hang up, too."""
        if isinstance(self.sock, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                self.end_tls()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            self.recv_all()

    def interrupt(self, signum: int = signal.SIGINT) -> None:
        """Sends this process a signal, unless the test is over: then it would end all tests."""
        if not self.server.stopping.is_set():
            os.kill(os.getpid(), signum)

    def reset(self) -> None:
        """Sends RST, at once."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Closes the socket, without close_notify."""
        self.sock.close()

    # ---- In step with the test.

    def wait(self, event: threading.Event) -> None:
        """Waits for an event that the test sets."""
        assert event.wait(PEER_TIMEOUT), "the test did not go on"


# ---- The server. -------------------------------------------------------------------------------


@dataclass
class ScriptServer:
    """A TCP server on the loopback that plays a script on each connection, one after the other.

    With several scripts, the first connection gets the first one, and so on; a connection too many
    is an error. With one script, every connection gets that.
    """

    scripts: Scripts
    #: Does TLS on every accepted connection before the script starts.
    tls_context: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    #: Passed on by :meth:`client`.
    client_options: dict[str, Any] = field(default_factory=dict)
    #: Set when the test's ``with`` block ends.
    stopping: threading.Event = field(default_factory=threading.Event)
    #: Errors of failed TLS handshakes. They do not fail the test: the client's side is tested.
    tls_errors: list[OSError] = field(default_factory=list)
    #: What the scripts raised.
    errors: list[BaseException] = field(default_factory=list)
    accepted: int = 0
    port: int = 0

    def __enter__(self) -> ScriptServer:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((self.host, self.port))
        self._listener.listen(16)
        self.port = self._listener.getsockname()[1]
        self._peer: Peer | None = None
        self._thread = threading.Thread(target=self._accept_loop, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopping.set()
        if exception is not None:
            self._shut_peer()  # The script has lost its partner: do not wait for it.
        self._wake_accept()
        self._thread.join(PEER_TIMEOUT + 1)
        alive = self._thread.is_alive()
        self._shut_peer()
        self._listener.close()
        if exception is not None:
            for error in self.errors:
                print("the script failed, too:", file=sys.stderr)
                traceback.print_exception(type(error), error, error.__traceback__)
            return
        if self.errors:
            raise self.errors[0]
        assert not alive, "the script did not come to its end"

    @property
    def scheme(self) -> str:
        """ws or wss."""
        return "ws" if self.tls_context is None else "wss"

    @property
    def authority(self) -> str:
        """Host and port as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def url(self, target: str = "/", scheme: str | None = None) -> str:
        """The URL of this server."""
        return f"{scheme or self.scheme}://{self.authority}{target}"

    def http_url(self, target: str = "/") -> str:
        """The URL for a plain request."""
        return self.url(target, "http" if self.tls_context is None else "https")

    def client(
        self, on_msg: Callable[[hftws.Message], object] | None = None, **options: Any
    ) -> hftws.Client:
        """A client for this server, not connected yet.

        Its timeouts are shorter than the peer's, and nothing runs into them that is to succeed. A
        test of a timeout sets its own.
        """
        url = options.pop("url", None) or self.url()
        limits = {"connect_timeout": 4.0 * PATIENCE, "close_timeout": 4.0 * PATIENCE}
        merged = {**limits, **self.client_options, **options}
        return hftws.Client(url, on_msg, **merged)

    # ---- In the thread of the server.

    def _accept_loop(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if self.stopping.is_set():
                sock.close()
                return
            self.accepted += 1
            try:
                self._play(sock, self._script(self.accepted - 1))
            except BaseException as error:
                self.errors.append(error)

    def _script(self, index: int) -> Script:
        if callable(self.scripts):
            return self.scripts
        if index >= len(self.scripts):
            return _too_many
        return self.scripts[index]

    def _play(self, sock: socket.socket, script: Script) -> None:
        sock.settimeout(PEER_TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peer = peer = Peer(sock, self)
        try:
            if self.tls_context is not None:
                try:
                    peer.sock = self.tls_context.wrap_socket(
                        sock, server_side=True, suppress_ragged_eofs=False
                    )
                except OSError as error:
                    self.tls_errors.append(error)
                    return
            script(peer)
        finally:
            self._peer = None
            peer.close()

    # ---- In the thread of the test.

    def _wake_accept(self) -> None:
        with contextlib.suppress(OSError):
            socket.create_connection((self.host, self.port), timeout=1).close()

    def _shut_peer(self) -> None:
        peer = self._peer
        if peer is not None:
            with contextlib.suppress(OSError, ValueError):
                peer.sock.shutdown(socket.SHUT_RDWR)


#: What the fixtures ``serve`` and ``serve_both`` give.
Serve = Callable[..., ScriptServer]


def _too_many(peer: Peer) -> None:
    raise AssertionError("a connection more than there are scripts")
