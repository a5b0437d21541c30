"""Bytes as a server sends them: messages, frames, TLS records, and the upgrade."""

from __future__ import annotations

import base64
import hashlib
import math
import random
import ssl
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

#: TLS 1.3: header, content type and tag of a record.
RECORD_OVERHEAD = 22

#: Bytes of plaintext that a record holds at most.
RECORD_MAX = 1 << 14

#: The cipher suites of the servers, by their names in a case.
SUITES = {
    "plain": None,
    "aes128": "TLS_AES_128_GCM_SHA256",
    "aes256": "TLS_AES_256_GCM_SHA384",
}

LABELS = {"plain": "plain", "aes128": "TLS, AES-128-GCM", "aes256": "TLS, AES-256-GCM"}

#: What a compressed message lacks at its end.
_EMPTY_BLOCK = b"\x00\x00\xff\xff"

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def market_messages(count: int, size: int, seed: int = 0) -> list[bytes]:
    """JSON messages of exactly this size, each different from all others."""
    generator = random.Random(seed)
    return [_market_message(number, size, generator) for number in range(count)]


def _market_message(number: int, size: int, generator: random.Random) -> bytes:
    start = b'{"u":%d,"s":"BTCUSDT","b":"%d.%08d","B":"%d.%08d","x":"' % (
        number,
        generator.randrange(60_000, 70_000),
        generator.randrange(10**8),
        generator.randrange(10),
        generator.randrange(10**8),
    )
    filler_size = size - len(start) - 2
    return start + generator.randbytes(filler_size).hex()[:filler_size].encode() + b'"}'


def text_frame(payload: bytes, *, compressed: bool = False) -> bytes:
    """A text message in one unmasked frame, as a server sends it. Does not compress it."""
    first = b"\xc1" if compressed else b"\x81"
    size = len(payload)
    if size < 126:
        return first + bytes((size,)) + payload
    if size < 1 << 16:
        return first + b"\x7e" + size.to_bytes(2, "big") + payload
    return first + b"\x7f" + size.to_bytes(8, "big") + payload


def deflate(payloads: Iterable[bytes], *, context_takeover: bool) -> list[bytes]:
    """Compressed as a server does it (RFC 7692, section 7.2.1): level 6, a window of 15 bits.

    The window is empty before the first one. So the same comes out of the same at any time, and a
    client that still has what was before is none the worse for it.
    """
    compressed = []
    deflater = None
    for payload in payloads:
        if deflater is None or not context_takeover:
            deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
        data = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
        compressed.append(data.removesuffix(_EMPTY_BLOCK))
    return compressed


def group(frames: list[bytes], size: int) -> list[bytes]:
    """This many frames joined at a time: the plaintexts of records."""
    return [b"".join(frames[start : start + size]) for start in range(0, len(frames), size)]


def wire_size(units: Iterable[bytes], *, secure: bool) -> int:
    """Bytes on the wire of these units, each in its own records if there is TLS."""
    if not secure:
        return sum(map(len, units))
    return sum(len(unit) + RECORD_OVERHEAD * math.ceil(len(unit) / RECORD_MAX) for unit in units)


@dataclass
class Checksum:
    """What was delivered: messages, their bytes, and a CRC-32 over all of them in order."""

    messages: int = 0
    size: int = 0
    crc: int = 0

    def add(self, payload: bytes | memoryview) -> None:
        self.messages += 1
        self.size += len(payload)
        self.crc = zlib.crc32(payload, self.crc)

    @classmethod
    def of(cls, payloads: Iterable[bytes]) -> Checksum:
        checksum = cls()
        for payload in payloads:
            checksum.add(payload)
        return checksum

    def as_list(self) -> list[int]:
        return [self.messages, self.size, self.crc]


def request_headers(request: bytes) -> dict[bytes, bytes]:
    """The headers, all in lower case."""
    return dict(line.lower().split(b":", 1) for line in request.split(b"\r\n")[1:] if b":" in line)


def offers_compression(request: bytes) -> bool:
    offered = request_headers(request).get(b"sec-websocket-extensions", b"")
    return offered.strip().startswith(b"permessage-deflate")


def upgrade_response(request: bytes, extension: str = "") -> bytes:
    """The answer to an upgrade request, with the extension that the server accepts."""
    headers = request_headers(request)
    if b"sec-websocket-key" not in headers:
        raise ValueError(f"not an upgrade: {request!r}")
    # The key itself has to keep its capitals.
    start = request.lower().index(b"sec-websocket-key:") + len(b"sec-websocket-key:")
    key = request[start : request.index(b"\r\n", start)].strip()
    extensions = b"Sec-WebSocket-Extensions: %b\r\n" % extension.encode() if extension else b""
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, extensions)
    )


class FrameReader:
    """Takes the frames of a client apart: masked, whole messages, compressed or not."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflater = zlib.decompressobj(-15)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> tuple[int, bytes] | None:
        """The next frame as opcode and payload; None if it is not here yet."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1] & 0x7F, 2
        if size > 125:
            length_size = 2 if size == 126 else 8
            start += length_size
            size = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + 4 + size:
            return None
        mask = buffer[start : start + 4]
        payload = bytes(buffer[start + 4 : start + 4 + size])
        compressed, opcode = buffer[0] & 0x40, buffer[0] & 0x0F
        del buffer[: start + 4 + size]
        payload = unmask(payload, mask)
        return opcode, self._inflater.decompress(payload + _EMPTY_BLOCK) if compressed else payload


def unmask(payload: bytes, mask: bytes | bytearray) -> bytes:
    """The payload as it was before the client masked it."""
    size = len(payload)
    repeated = (bytes(mask) * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return number.to_bytes(size, "big")


class TLSServer:
    """The TLS of one connection without its socket, so that records can be made ahead of time."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    @property
    def cipher(self) -> str:
        cipher = self._tls.cipher()
        assert cipher is not None
        return cipher[0]

    def feed(self, data: bytes) -> None:
        self._incoming.write(data)

    def handshake(self) -> tuple[bool, bytes]:
        """Whether it is done, and what has to be sent now."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False, self._outgoing.read()
        return True, self._outgoing.read()

    def open(self) -> bytes:
        """The plaintext that has arrived."""
        plaintext = b""
        while True:
            try:
                chunk = self._tls.read(65536)
            except ssl.SSLWantReadError:
                return plaintext
            if not chunk:
                return plaintext
            plaintext += chunk

    def seal(self, plaintext: bytes) -> bytes:
        """A record, or several if it is larger than one. They have to be sent in this order."""
        self._tls.write(plaintext)
        return self._outgoing.read()
