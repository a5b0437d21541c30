"""A server of many connections in a process of its own; the path of a URL says what it does.

Tests of loops need peers that the loop's thread cannot hold up, and whose timing does not depend on
Python's lock of this process.

    with Feeds() as feeds:
        client = hftws.Client(feeds.url("/messages/3/end/close"), on_msg)
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from types import TracebackType
from typing import Any

from servers import CLOSE, PEER_TIMEOUT, PONG, TEXT, Peer, close_payload, encode_frame


class Feeds:
    """The server process, as a context manager. ``certificate``: PEM file for ``wss://``."""

    def __init__(self, certificate: str = "", ca_file: str = "") -> None:
        self.ca_file = ca_file
        self._process = subprocess.Popen(
            [sys.executable, __file__, certificate],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self._process.stdout is not None
        self.port, self.secure_port = json.loads(self._process.stdout.readline())

    def url(self, path: str, scheme: str = "ws") -> str:
        """The URL of what ``path`` describes."""
        port = self.secure_port if scheme == "wss" else self.port
        return f"{scheme}://127.0.0.1:{port}{path}"

    def options(self, scheme: str) -> dict[str, Any]:
        """What a client needs to trust it."""
        return {"ca_file": self.ca_file} if scheme == "wss" else {}

    def freeze(self) -> None:
        """Stops the process: from now on the kernel alone answers."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Feeds:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


# ---- In the server's process. ------------------------------------------------------------------


def serve(sock: socket.socket, context: ssl.SSLContext | None) -> None:
    """One connection: the upgrade, then the steps of the path."""
    sock.settimeout(PEER_TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError, EOFError, AssertionError):
        if context is not None:
            sock = context.wrap_socket(sock, server_side=True)
        peer = Peer(sock, None)  # type: ignore[arg-type]
        request = peer.read_request()
        words = iter(request.target.strip("/").split("/"))
        for word in words:
            STEPS[word](peer, words)
    with contextlib.suppress(OSError):
        sock.close()


def refuse(peer: Peer, _words: Any) -> None:
    peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


def open_it(peer: Peer, _words: Any) -> None:
    peer.send(peer.upgrade_response())


def messages(peer: Peer, words: Any) -> None:
    """So many at once, numbered from 0."""
    frames = [encode_frame(TEXT, b"%d" % index) for index in range(int(next(words)))]
    peer.send(b"".join(frames))


def echo(peer: Peer, _words: Any) -> None:
    """Sends back every text, until the client closes."""
    while True:
        frame = peer.read_frame()
        if frame.opcode == CLOSE:
            return peer.send(encode_frame(CLOSE, frame.payload))
        peer.send(encode_frame(PONG if frame.opcode == 9 else TEXT, frame.payload))


def flood(peer: Peer, _words: Any) -> None:
    """Sends without a pause, until the client is gone."""
    block = encode_frame(TEXT, b"x" * 200) * 500
    while True:
        peer.send(block)


def hear(peer: Peer, _words: Any) -> None:
    """Waits until the client has said something."""
    peer.read_frame()


def answer_close(peer: Peer, _words: Any) -> None:
    peer.answer_close()


def end(peer: Peer, words: Any) -> None:
    """The ways to end a connection."""
    match next(words):
        case "close":
            peer.send(encode_frame(CLOSE, close_payload(1000, "bye")))
            peer.recv_all()
        case "kick":
            peer.send(encode_frame(CLOSE, close_payload(4001, "kicked")))
            peer.recv_all()
        case "keep":  # Says CLOSE, and never hangs up.
            peer.send(encode_frame(CLOSE, close_payload(1000, "bye")))
            peer.recv_all()
            threading.Event().wait()
        case "fin":
            peer.sock.shutdown(socket.SHUT_RDWR)
        case "reset":
            peer.reset()
        case "garbage":
            peer.send(b"\xff\xff garbage")
            peer.recv_all()


def idle(peer: Peer, _words: Any) -> None:
    """Says nothing, and answers a CLOSE."""
    peer.answer_close()


STEPS = {
    "refuse": refuse,
    "open": open_it,
    "messages": messages,
    "echo": echo,
    "flood": flood,
    "hear": hear,
    "end": end,
    "idle": idle,
    "answer_close": answer_close,
}


def accept(listener: socket.socket, context: ssl.SSLContext | None) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock, context), daemon=True).start()


def main() -> None:
    threading.stack_size(256 * 1024)
    context = None
    if sys.argv[1]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1])
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(2)]
    for listener, tls in zip(listeners, (None, context), strict=True):
        threading.Thread(target=accept, args=(listener, tls), daemon=True).start()
    print(json.dumps([listener.getsockname()[1] for listener in listeners]), flush=True)
    sys.stdin.read()  # Until the test is over.


if __name__ == "__main__":
    main()
