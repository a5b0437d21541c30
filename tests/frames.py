"""Tests of an open connection, step by step: the test itself is the peer.

``connected`` gives a client and its peer after the upgrade. Nothing else speaks on the connection,
so a test says "the peer sends this, then the client polls" and means just that:

    with connected(serve_both, inbox) as (client, peer):
        peer.send_text("hello")
        assert client.poll(1.0) == 1

What the peer sends that way has to fit the buffers of the kernel. More than that needs a script of
its own (servers.py), in the thread of the server.
"""

from __future__ import annotations

import fcntl
import queue
import random
import select
import socket
import ssl
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from servers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PATIENCE,
    PING,
    PONG,
    TEXT,
    Peer,
    ScriptServer,
    encode_frame,
)

import hftws

KIB = 1024

#: The smallest ring that a client can have.
RING_MIN = 256 * KIB

#: Small rings, since making 16 MiB of ring takes time in every test.
SMALL = {"ring_size": RING_MIN, "send_ring_size": RING_MIN, "max_message_size": 128 * KIB}

#: Seconds to wait for what comes at once; only a failing test uses them up.
SOON = 10.0 * PATIENCE

Serve = Callable[..., ScriptServer]
OnMsg = Callable[[hftws.Message], object]


@dataclass
class Inbox:
    """An ``on_msg`` that copies every message."""

    messages: list[tuple[int, bytes]] = field(default_factory=list)

    def __call__(self, msg: hftws.Message) -> None:
        self.messages.append((msg.opcode, bytes(msg.data)))

    @property
    def payloads(self) -> list[bytes]:
        """Only the payloads."""
        return [payload for _, payload in self.messages]


@contextmanager
def connected(
    serve: Serve, on_msg: OnMsg | None = None, *, extensions: str | None = None, **options: Any
) -> Iterator[tuple[hftws.Client, Peer]]:
    """A client with an open connection, and its peer, which does what the test tells it.

    ``extensions`` is what the peer answers in Sec-WebSocket-Extensions.
    """
    headers = [] if extensions is None else [("Sec-WebSocket-Extensions", extensions)]
    peers: queue.SimpleQueue[Peer] = queue.SimpleQueue()

    def script(peer: Peer) -> None:
        peer.accept_upgrade(headers=headers)
        peers.put(peer)
        peer.server.stopping.wait()

    with serve(script) as server:
        client = server.client(on_msg, **{**SMALL, **options})
        client.connect()
        peer = peers.get(timeout=SOON)
        try:
            yield client, peer
        finally:
            peer.close()  # So that the client does not wait for an answer to its CLOSE.
            client.close()


def poll_until(client: hftws.Client, done: Callable[[], bool], seconds: float = SOON) -> None:
    """Polls until the condition holds."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not come to that in time"
        client.poll(0.01)


def wait_until_arrived(client: hftws.Client, size: int) -> None:
    """Waits until the kernel has this many bytes for the client, so that one read takes all."""
    deadline = time.monotonic() + SOON
    descriptor = client._descriptor()
    while int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), "little") < size:
        assert time.monotonic() < deadline, "it does not arrive"
        time.sleep(0.001)


def wait_until_reset(client: hftws.Client) -> None:
    """Waits until the client's kernel knows of the peer's reset; reads nothing."""
    poll = select.poll()
    poll.register(client._descriptor(), select.POLLHUP)
    assert poll.poll(SOON * 1000), "the reset does not arrive"


def expect_failure(client: hftws.Client, peer: Peer, code: int) -> hftws.ProtocolError:
    """Checks that the client fails the connection: it sends CLOSE with this code, then raises."""
    poll_until(client, lambda: not client.is_open)
    peer.expect_close(code)
    peer.close()
    with pytest.raises(hftws.ProtocolError) as caught:
        poll_until(client, lambda: False)
    assert caught.value.code == code
    assert isinstance(caught.value, ConnectionError)
    return caught.value


def receive(client: hftws.Client, inbox: Inbox, count: int) -> list[bytes]:
    """Polls until there are this many messages; returns all payloads."""
    poll_until(client, lambda: len(inbox.messages) >= count)
    return inbox.payloads


def text(payload: bytes | str) -> bytes:
    """A text message in one frame."""
    return encode_frame(TEXT, payload.encode() if isinstance(payload, str) else payload)


def binary(payload: bytes) -> bytes:
    """A binary message in one frame."""
    return encode_frame(BINARY, payload)


def fragmented(opcode: int, fragments: Sequence[bytes], between: bytes = b"") -> bytes:
    """A message in several frames; ``between`` stands in front of every frame but the first."""
    frames = [
        encode_frame(
            opcode if index == 0 else CONTINUATION, fragment, fin=index == len(fragments) - 1
        )
        for index, fragment in enumerate(fragments)
    ]
    return between.join(frames)


def cut(data: bytes, size: int) -> list[bytes]:
    """Pieces of one size; the last may be smaller."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def cut_randomly(data: bytes, rng: random.Random, size_max: int) -> list[bytes]:
    """Pieces of random sizes, most of them small."""
    pieces = []
    start = 0
    while start < len(data):
        size = min(rng.randint(1, size_max), rng.randint(1, size_max))
        pieces.append(data[start : start + size])
        start += size
    return pieces


def feed_like_messages(rng: random.Random, count: int) -> list[tuple[int, bytes]]:
    """Messages with the sizes of a market data feed, as (opcode, payload)."""
    messages = []
    for index in range(count):
        size = rng.choice([0, 125, 126, 146, 146, 168, 168, 168, 647, 647, 2048, 34_571])
        if rng.random() < 0.8:
            letters = rng.choice(["0123456789.", "€uro ünd ascii 😀"])
            body = f'{{"e":"trade","i":{index},"p":"{"".join(rng.choices(letters, k=size // 4))}"}}'
            messages.append((TEXT, body.encode()))
        else:
            messages.append((BINARY, rng.randbytes(size)))
    return messages


def feed_like_stream(rng: random.Random, messages: Sequence[tuple[int, bytes]]) -> bytes:
    """The messages as frames: some in fragments, pings and pongs in between."""
    stream = b""
    for opcode, payload in messages:
        if rng.random() < 0.2:
            stream += encode_frame(rng.choice([PING, PONG]), rng.randbytes(rng.randint(0, 125)))
        if rng.random() < 0.3:
            pieces = cut_randomly(payload, rng, len(payload) // 3 + 1) or [b""]
            pieces.insert(rng.randint(0, len(pieces)), b"")  # An empty fragment is legal.
            between = encode_frame(PING, b"between") if rng.random() < 0.5 else b""
            stream += fragmented(opcode, pieces, between)
        else:
            stream += encode_frame(opcode, payload)
    return stream


@dataclass
class ServerFrames:
    """What a server's stream contains, by a simple decoder: the model for comparison."""

    messages: list[tuple[int, bytes]] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)

    @staticmethod
    def decode(stream: bytes) -> ServerFrames:
        """Decodes a stream of whole, valid frames."""
        found = ServerFrames()
        opcode, parts = CONTINUATION, b""
        while stream:
            first, length = stream[0], stream[1]
            stream = stream[2:]
            if length >= 126:
                size = 2 if length == 126 else 8
                length, stream = int.from_bytes(stream[:size], "big"), stream[size:]
            payload, stream = stream[:length], stream[length:]
            kind, fin = first & 0xF, bool(first & 0x80)
            if kind == PING:
                found.pings.append(payload)
            elif kind == PONG:
                found.pongs.append(payload)
            else:
                assert kind != CLOSE
                opcode, parts = (
                    (opcode, parts + payload) if kind == CONTINUATION else (kind, payload)
                )
                if fin:
                    found.messages.append((opcode, parts))
        return found


class RecordPeer(Peer):
    """A server that does TLS in memory, so that a test holds every byte of every record."""

    def __init__(self, sock: socket.socket, server: ScriptServer, context: ssl.SSLContext) -> None:
        super().__init__(sock, server)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def handshake(self) -> None:
        """The server's part of the TLS handshake."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                self._incoming.write(self.sock.recv(65536) or self._end())
            else:
                self.sock.sendall(self._outgoing.read())
                return

    def seal(self, plaintext: bytes) -> bytes:
        """The plaintext as records (one, up to 16 KiB of it), not sent."""
        self._tls.write(plaintext)
        return self._outgoing.read()

    def send(self, data: bytes) -> None:
        self.sock.sendall(self.seal(data))

    def recv_some(self) -> bytes:
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return data
        return self._read()

    def recv_exactly(self, size: int) -> bytes:
        while len(self._ahead) < size:
            self._ahead += self._read() or self._end()
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def recv_until(self, end: bytes) -> bytes:
        while end not in self._ahead:
            self._ahead += self._read() or self._end()
        data, found, self._ahead = self._ahead.partition(end)
        return data + found

    def _read(self) -> bytes:
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                data = self.sock.recv(65536)
                if not data:
                    return b""
                self._incoming.write(data)

    def _end(self) -> bytes:
        raise EOFError(f"the client hung up after {self._ahead!r}")


@contextmanager
def connected_by_record(
    serve: Serve,
    tls_context: ssl.SSLContext,
    ca_file: Path,
    on_msg: OnMsg | None = None,
    **options: Any,
) -> Iterator[tuple[hftws.Client, RecordPeer]]:
    """Like ``connected``, over TLS, with a peer whose records are in the test's hands."""
    peers: queue.SimpleQueue[RecordPeer] = queue.SimpleQueue()

    def script(plain: Peer) -> None:
        peer = RecordPeer(plain.sock, plain.server, tls_context)
        peer.handshake()
        peer.accept_upgrade()
        peers.put(peer)
        plain.server.stopping.wait()

    with serve(script) as server:
        options = {**SMALL, "url": server.url(scheme="wss"), "ca_file": ca_file, **options}
        client = server.client(on_msg, **options)
        client.connect()
        peer = peers.get(timeout=SOON)
        try:
            yield client, peer
        finally:
            peer.close()
            client.close()
