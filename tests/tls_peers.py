"""WebSocket servers over TLS libraries by other authors, with every byte under a test's control.

A stack is a TLS server without a socket: ciphertext in, plaintext out, and back. There are three:
OpenSSL's own server (:class:`OpensslTls`), Python's ``ssl`` (:class:`PythonTls`) and tlslite-ng
(:class:`LiteTls`), with whose keys any record can be made. A :class:`Conversation` joins one of
them to a client. While the client connects, a thread plays the server; afterwards one thread drives
both ends, so that the client has read the first part of an input before the second is sent.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
import select
import shutil
import socket
import ssl
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import trustme
from servers import (
    PATIENCE,
    PEER_TIMEOUT,
    TEXT,
    Frame,
    accept_value,
    apply_mask,
    encode_frame,
)
from tlslite.constants import AlertDescription
from tlslite.errors import TLSAlert, TLSRemoteAlert
from tlslite.handshakesettings import HandshakeSettings
from tlslite.messages import Message as LiteMessage
from tlslite.tlsconnection import TLSConnection
from tlslite.utils.keyfactory import parsePEMKey
from tlslite.x509certchain import X509CertChain

import hftws

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
WARNING, FATAL = 1, 2
HEADER_SIZE = 5
CONTENT_SIZE_MAX = 1 << 14

HELLO_REQUEST, NEW_SESSION_TICKET, FINISHED, KEY_UPDATE = 0, 4, 20, 24

#: Seconds that a process may take to start, on a busy machine.
START_TIMEOUT = 30.0 * PATIENCE


@dataclass(frozen=True)
class Suite:
    """A version of TLS and an AEAD; the names are OpenSSL's."""

    version: str
    aead: str

    @property
    def cipher(self) -> str:
        """The cipher suite; the certificates here are ECDSA's."""
        digest = "SHA384" if "256-GCM" in self.aead else "SHA256"
        name = "CHACHA20_POLY1305" if "CHACHA" in self.aead else self.aead.replace("-", "_")
        if self.version == "TLSv1.3":
            return f"TLS_{name}_{digest}"
        if name == "CHACHA20_POLY1305":
            return "ECDHE-ECDSA-CHACHA20-POLY1305"
        return f"ECDHE-ECDSA-{self.aead.replace('AES-', 'AES')}-{digest}"

    @property
    def python_version(self) -> ssl.TLSVersion:
        return ssl.TLSVersion.TLSv1_3 if self.version == "TLSv1.3" else ssl.TLSVersion.TLSv1_2

    def __str__(self) -> str:
        return f"{self.version} {self.aead}"


AEADS = ["AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305"]
SUITES_1_3 = [Suite("TLSv1.3", aead) for aead in AEADS]
SUITES_1_2 = [Suite("TLSv1.2", aead) for aead in AEADS]
SUITES = SUITES_1_3 + SUITES_1_2


class Identity:
    """The server's certificate and key, in the forms that the three stacks take."""

    def __init__(self, ca: trustme.CA, directory: Path) -> None:
        self.ca = ca
        self.certificate = ca.issue_cert("127.0.0.1")
        self.ca_file, self.file = directory / "ca.pem", directory / "server.pem"
        ca.cert_pem.write_to_path(self.ca_file)
        self.certificate.private_key_and_cert_chain_pem.write_to_path(self.file)
        self.lite_chain = X509CertChain()
        pems = b"".join(blob.bytes() for blob in self.certificate.cert_chain_pems)
        self.lite_chain.parsePemList(pems.decode())
        key = self.certificate.private_key_pem.bytes().decode()
        self.lite_key = parsePEMKey(key, private=True)


# ---- The stacks. -------------------------------------------------------------------------------


class Stack(Protocol):
    """One connection's end of TLS."""

    #: The client's alerts, by their names in RFC 8446.
    alerts: list[str]

    @property
    def resumed(self) -> bool:
        """Whether the server took up an earlier session."""

    def accept(self, line: Conversation) -> bytes:
        """Does the handshake, and returns what the client sent then, up to a blank line."""

    def outgoing(self) -> bytes:
        """Ciphertext that has not been sent yet, such as tickets."""

    def seal(self, plaintext: bytes) -> bytes:
        """Returns the records instead of sending them."""

    def feed(self, ciphertext: bytes) -> None:
        """What the client sent."""

    def open(self) -> bytes:
        """The plaintext of what was fed."""


class MemoryStack:
    """What the stacks that live in this process have in common."""

    def __init__(self) -> None:
        self.alerts: list[str] = []

    def shake_hands(self) -> bool:
        raise NotImplementedError

    def accept(self: Any, line: Conversation) -> bytes:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            self.feed(line.receive())
            try:
                complete = self.shake_hands()
            except OSError:
                line.put(self.outgoing())  # Perhaps an alert.
                raise
            if not complete:
                line.put(self.outgoing())
                continue
            if not line.holds:
                line.put(self.outgoing())
            request += self.open()
        return bytes(request)


class PythonTls(MemoryStack):
    """Python's ``ssl``, over two MemoryBIOs."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def shake_hands(self) -> bool:
        try:
            self.session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            self._note_alert(error)
            raise
        return True

    def _note_alert(self, error: ssl.SSLError) -> bool:
        """Whether this error is an alert of the client."""
        _, found, alert = (error.reason or "").partition("ALERT_")
        if found:
            self.alerts.append(alert.lower())
        return bool(found)

    def outgoing(self) -> bytes:
        return self._outgoing.read()

    def seal(self, plaintext: bytes) -> bytes:
        for start in range(0, len(plaintext), CONTENT_SIZE_MAX):
            self.session.write(plaintext[start : start + CONTENT_SIZE_MAX])
        return self.outgoing()

    @property
    def resumed(self) -> bool:
        return bool(self.session.session_reused)

    def close_notify(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.session.unwrap()
        return self.outgoing()

    def feed(self, ciphertext: bytes) -> None:
        self._incoming.write(ciphertext)

    def open(self) -> bytes:
        plaintext = b""
        while not self.alerts:
            try:
                data = self.session.read(65536)
                if not data:
                    self.alerts.append("close_notify")
                plaintext += data
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:  # The same, if we have sent ours, too.
                self.alerts.append("close_notify")
            except ssl.SSLError as error:
                assert self._note_alert(error), error
                break
        return plaintext


def python_context(suite: Suite, identity: Identity, *, tickets: int = 2) -> ssl.SSLContext:
    """Python cannot choose among the suites of TLS 1.3, but lets the client do so, or OpenSSL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity.certificate.configure_cert(context)
    context.minimum_version = context.maximum_version = suite.python_version
    context.num_tickets = tickets
    if tickets == 0:
        context.options |= ssl.OP_NO_TICKET
    if suite.version == "TLSv1.2":
        context.set_ciphers(suite.cipher)
    elif suite.aead == "AES-128-GCM":
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        assert suite.aead == "AES-256-GCM"
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


class LiteSocket:
    """Plays a non-blocking socket for tlslite-ng."""

    def __init__(self) -> None:
        self.incoming, self.outgoing = bytearray(), bytearray()

    def send(self, data: bytes) -> int:
        self.outgoing += data
        return len(data)

    def sendall(self, data: bytes) -> None:
        self.outgoing += data

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        data = bytes(self.incoming[:size])
        del self.incoming[:size]
        return data

    def close(self) -> None:
        """Nothing to do."""


def lite_settings(suite: Suite, *, tickets: int = 0, key: bytes = bytes(32)) -> HandshakeSettings:
    settings = HandshakeSettings()
    version = (3, 4) if suite.version == "TLSv1.3" else (3, 3)
    settings.minVersion = settings.maxVersion = version
    settings.cipherNames = [suite.aead.lower().replace("aes-", "aes").replace("-gcm", "gcm")]
    settings.ticket_count = tickets
    settings.ticketKeys = [bytearray(key)] if tickets else []
    return settings


#: Makes another body for a handshake message.
Change = Callable[[bytes], bytes]


class ChangedConnection(TLSConnection):
    """tlslite-ng's connection, which changes handshake messages of some types as it sends them.

    Its transcript has the changed messages: what follows fits to them.

    :param behind_finished: what stands behind Finished in the same record.
    """

    def __init__(
        self, sock: LiteSocket, changes: Mapping[int, Change], behind_finished: bytes = b""
    ) -> None:
        super().__init__(sock)
        self._changes, self._behind_finished = changes, behind_finished

    def _changed(self, original: Any) -> Any:
        if original.contentType != HANDSHAKE or type(original) is LiteMessage:
            return original  # A LiteMessage has been changed already.
        content = bytes(original.write())
        if content[0] == FINISHED and self._behind_finished:
            return LiteMessage(HANDSHAKE, bytearray(content + self._behind_finished))
        change = self._changes.get(content[0])
        if change is None:
            return original
        return LiteMessage(HANDSHAKE, bytearray(message(content[0], change(content[4:]))))

    def _queue_message(self, msg: Any) -> None:
        super()._queue_message(self._changed(msg))

    def _sendMsg(self, msg: Any, *arguments: Any, **options: Any) -> Iterator[Any]:  # noqa: N802
        yield from super()._sendMsg(self._changed(msg), *arguments, **options)


class LiteTls(MemoryStack):
    """tlslite-ng. After the handshake its record layer is used as it is: any record can be made."""

    def __init__(
        self,
        identity: Identity,
        settings: HandshakeSettings,
        *,
        client_certificate: bool = False,
        early: bytes = b"",
        changes: Mapping[int, Change] | None = None,
        behind_finished: bytes = b"",
    ) -> None:
        super().__init__()
        self._socket = LiteSocket()
        self.connection = ChangedConnection(self._socket, changes or {}, behind_finished)
        self._handshake = self.connection.handshakeServerAsync(
            certChain=identity.lite_chain,
            privateKey=identity.lite_key,
            reqCert=client_certificate,
            settings=settings,
        )
        self.complete = False
        #: Application data right behind the server's Finished, before the client's.
        self._early = early
        self._reader: Iterator[Any] | None = None
        #: KeyUpdates of the client.
        self.key_updates = 0

    @property
    def records(self) -> Any:
        """The record layer."""
        return self.connection._recordLayer

    def shake_hands(self) -> bool:
        while not self.complete:
            try:
                step = next(self._handshake, None)
            except TLSAlert as error:
                if isinstance(error, TLSRemoteAlert):
                    self.alerts.append(AlertDescription.toStr(error.description))
                raise ConnectionAbortedError(str(error)) from error
            self.complete = step is None
            if step == 0:
                break
        state = self.records._writeState
        if self._early and state.encContext and state.seqnum == 0 and self.is_current:
            self._socket.outgoing += self.record(APPLICATION_DATA, self._early)
            self._early = b""
        return self.complete

    @property
    def is_current(self) -> bool:
        """Whether this is TLS 1.3."""
        return bool(self.connection.version == (3, 4))

    @property
    def resumed(self) -> bool:
        if self.is_current:  # tlslite-ng itself does not say. Nothing was signed.
            return self.connection.serverSigAlg is None
        return bool(self.connection.resumed)

    def outgoing(self) -> bytes:
        data = bytes(self._socket.outgoing)
        self._socket.outgoing.clear()
        return data

    def feed(self, ciphertext: bytes) -> None:
        self._socket.incoming += ciphertext

    def open(self) -> bytes:
        plaintext = b""
        while True:
            self._reader = self._reader or self.records.recvRecord()
            found = next(self._reader)
            if found == 0:
                return plaintext
            self._reader = None
            header, parser = found
            content = bytes(parser.bytes)
            if header.type == APPLICATION_DATA:
                plaintext += content
            elif header.type == ALERT:
                self.alerts.append(AlertDescription.toStr(content[1]))
            else:
                assert (header.type, content) == (HANDSHAKE, message(KEY_UPDATE, b"\0"))
                self.key_updates += 1
                self._renew("sender")

    def _renew(self, whose: str) -> None:
        """New keys (RFC 8446, section 7.2). tlslite-ng's names for whose stand on their head."""
        session = self.connection.session
        derive = getattr(self.records, f"calcTLS1_3KeyUpdate_{whose}")
        secrets = derive(session.cipherSuite, session.cl_app_secret, session.sr_app_secret)
        session.cl_app_secret, session.sr_app_secret = secrets

    # ---- Records made by hand.

    def seal(self, plaintext: bytes) -> bytes:
        step = CONTENT_SIZE_MAX
        pieces = [plaintext[start : start + step] for start in range(0, len(plaintext), step)]
        return b"".join(self.record(APPLICATION_DATA, piece) for piece in pieces)

    def record(self, content_type: int, content: bytes, *, padding: int = 0) -> bytes:
        """One record with this content, whatever its size and type."""
        if self.is_current:
            return self.inner(content + bytes([content_type]) + bytes(padding))
        before = self.outgoing()
        assert not before
        for _ in self.records.sendRecord(LiteMessage(content_type, bytearray(content))):
            raise AssertionError("the socket takes everything")
        return self.outgoing()

    def inner(self, plaintext: bytes, *, outer_type: int = APPLICATION_DATA) -> bytes:
        """One record of TLS 1.3 around this TLSInnerPlaintext (RFC 8446, section 5.2)."""
        layer, state = self.records, self.records._writeState
        size = len(plaintext) + state.encContext.tagLength
        header = struct.pack(">BHH", outer_type, 0x0303, size)
        nonce = layer._getNonce(state, state.getSeqNumBytes())
        return header + bytes(state.encContext.seal(nonce, bytearray(plaintext), bytearray(header)))

    def fragments(self, content: bytes, cuts: Iterable[int] = ()) -> bytes:
        """Handshake messages, in as many records as they are cut into."""
        places = [0, *cuts, len(content)]
        pieces = [content[start:end] for start, end in itertools.pairwise(places)]
        return b"".join(self.record(HANDSHAKE, piece) for piece in pieces)

    def key_update(
        self, request: int = 0, *, before: bytes = b"", cuts: Iterable[int] = ()
    ) -> bytes:
        """A KeyUpdate, with other messages before it; what follows is sealed with new keys."""
        records = self.fragments(before + message(KEY_UPDATE, bytes([request])), cuts)
        self._renew("reciever")
        return records

    def tickets(self, settings: HandshakeSettings) -> bytes:
        """Real ones, after the handshake (RFC 8446, section 4.6.1)."""
        for _ in self.connection._serverSendTickets(settings):
            raise AssertionError("the socket takes everything")
        return self.outgoing()

    def alert(self, description: int, level: int = FATAL) -> bytes:
        return self.record(ALERT, bytes([level, description]))


def message(kind: int, body: bytes) -> bytes:
    """A handshake message (RFC 8446, section 4)."""
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def ticket_message(size: int = 16, *, lifetime_s: int = 7200) -> bytes:
    """A NewSessionTicket in order (RFC 8446, section 4.6.1), of a ticket that nobody can use."""
    nonce = b"\x01n"
    body = struct.pack(">II", lifetime_s, 12345) + nonce + struct.pack(">H", size) + bytes(size)
    return message(NEW_SESSION_TICKET, body + b"\0\0")


# ---- OpenSSL's own server. ---------------------------------------------------------------------


def openssl_program() -> str | None:
    """The command, if it is OpenSSL 3's or 1.1.1's."""
    program = shutil.which("openssl")
    if program is None:
        return None
    version = subprocess.run([program, "version"], capture_output=True, text=True, check=False)
    return program if re.match(r"OpenSSL (1\.1\.1|[3-9]\.)", version.stdout) else None


class OpensslServer:
    """``openssl s_server``: what is written to it goes to the client, but for a few commands."""

    def __init__(self, suite: Suite, identity: Identity, *options: str) -> None:
        chosen = ["-tls1_3", "-ciphersuites"]
        if suite.version == "TLSv1.2":
            chosen = ["-tls1_2", "-cipher"]
        self._start("-cert", str(identity.file), *chosen, suite.cipher, *options)

    @classmethod
    def with_options(cls, *options: str) -> OpensslServer:
        """A server with exactly these options of s_server."""
        server = cls.__new__(cls)
        server._start(*options)
        return server

    def _start(self, *options: str) -> None:
        program = openssl_program()
        assert program is not None
        command = [program, "s_server", "-accept", "127.0.0.1:0", "-state", *options]
        self.process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        #: All that it has said: its own reports, and the plaintext from the client.
        self.said = b""
        found = self.wait_for(rb"ACCEPT [^\n]*:(\d+)\n", timeout=START_TIMEOUT)
        self.address = ("127.0.0.1", int(found[1]))

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self.process.stdin.write(view) :]

    @property
    def output(self) -> int:
        """The descriptor of its output."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def read(self) -> None:
        data = os.read(self.output, 65536)
        assert data, "openssl s_server has ended"
        self.said += data

    def wait_for(
        self, pattern: bytes, start: int = 0, timeout: float = PEER_TIMEOUT
    ) -> re.Match[bytes]:
        """Waits until its output has something like this."""
        until = time.monotonic() + timeout
        while (found := re.compile(pattern, re.DOTALL).search(self.said, start)) is None:
            left = until - time.monotonic()
            ready, _, _ = select.select([self.output], [], [], max(left, 0))
            assert ready, f"{pattern!r} was not said: {self.said[start:]!r}"
            self.read()
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class OpensslTls:
    """One connection of an :class:`OpensslServer`, which has one at a time."""

    def __init__(self, server: OpensslServer) -> None:
        self.server = server
        self.alerts: list[str] = []
        self.begin = self.seen = len(server.said)
        self.sock = socket.create_connection(server.address, timeout=PEER_TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        #: Records that came behind the client's Finished, and how much of them went to the client.
        self._behind, self._passed_on = b"", 0

    def accept(self, line: Conversation) -> bytes:
        """Passes on what both send, until the request is there."""
        from_client = b""
        server = self.server
        pattern = re.compile(rb"GET / HTTP/1\.1\r\n.*?\r\n\r\n", re.DOTALL)
        while (found := pattern.search(server.said, self.begin)) is None:
            sources: list[Any] = [line.sock, self.sock, server.output]
            ready, _, _ = select.select(sources, [], [], PEER_TIMEOUT)
            assert ready, "the handshake does not go on"
            if line.sock in ready:
                data = line.receive()
                from_client += data
                self.sock.sendall(data)
            if self.sock in ready:
                data = self.sock.recv(65536)
                if not data:
                    raise EOFError("openssl s_server hung up")
                if any(record[0] == APPLICATION_DATA for record in split_records(from_client)):
                    self._behind += data
                    self._passed_on += len(data)
                line.put(data)
            if server.output in ready:
                server.read()
        self.seen = found.end()
        return found[0]

    @property
    def resumed(self) -> bool:
        return b"Reused session-id" in self.server.said[self.begin :]

    def outgoing(self) -> bytes:
        """What has not gone out yet of the tickets behind the handshake (TLS 1.3 only)."""
        handshake, _, then = self.server.said[self.begin : self.seen].rpartition(b" finished\n")
        assert handshake
        tickets = self.read_records(then.count(b"write session ticket\n"))
        data, self._passed_on = tickets[self._passed_on :], 0
        return data

    def seal(self, plaintext: bytes, *, records: int = 1) -> bytes:
        """It is OpenSSL's choice in how many records."""
        self.server.write(plaintext)
        return self.read_records(records)

    def command(self, letter: str, *, records: int = 1) -> bytes:
        """The result of a command to s_server: K and k for KeyUpdates, q for close_notify …"""
        return self.seal(letter.encode() + b"\n", records=records)

    def read_records(self, count: int) -> bytes:
        """Reads this many whole records."""
        data, end = self._behind, 0
        for _ in range(count):
            while len(data) < end + HEADER_SIZE or len(data) < end + record_size(data[end:]):
                more = self.sock.recv(65536)
                assert more, "openssl s_server hung up"
                data += more
            end += record_size(data[end:])
        self._behind = data[end:]
        return data[:end]

    def feed(self, ciphertext: bytes) -> None:
        self.sock.sendall(ciphertext)

    def open(self) -> bytes:
        """Nothing: the plaintext is in what the server said, amid its reports."""
        return b""

    def _find(self, pattern: bytes) -> re.Match[bytes] | None:
        return re.compile(pattern, re.DOTALL).search(self.server.said, self.seen)

    def has_said(self, pattern: bytes) -> bool:
        """Whether the server's output has this, since the last time."""
        return self._find(pattern) is not None

    def take(self, pattern: bytes) -> bool:
        """The same; the next search starts behind it."""
        found = self._find(pattern)
        self.seen = self.seen if found is None else found.end()
        return found is not None

    def close(self) -> None:
        self.sock.close()


def record_size(data: bytes) -> int:
    """Of the record that the data begins with."""
    return HEADER_SIZE + int.from_bytes(data[3:HEADER_SIZE], "big")


def split_records(data: bytes) -> list[bytes]:
    """The records, one by one."""
    records = []
    while data:
        size = record_size(data)
        records.append(data[:size])
        data = data[size:]
    return records


# ---- One client and one server. ----------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How a connection went."""

    messages: list[bytes]
    #: What the client raised.
    error: str
    reason: str
    #: Alerts that the server saw.
    alerts: list[str]


Split = Callable[[bytes], list[bytes]]


class CollectingClient(hftws.Client):
    """A client that keeps what it receives, and masks with zeros: a server's output is legible."""

    #: Small rings: large ones take longer to get than a handshake.
    OPTIONS: ClassVar[dict[str, Any]] = {
        "mask": "zero",
        "connect_timeout": 4.0 * PATIENCE,
        "close_timeout": 4.0 * PATIENCE,
        "max_message_size": 1 << 18,
        "ring_size": 1 << 19,
        "send_ring_size": 1 << 19,
    }

    def __init__(self, url: str, **options: Any) -> None:
        self.received: list[bytes] = []
        merged = {**self.OPTIONS, **options}
        super().__init__(url, lambda message: self.received.append(bytes(message)), **merged)


class Listener:
    """A listener, and the thread that plays the server while a client connects."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.settimeout(PEER_TIMEOUT)
        self.url = f"wss://127.0.0.1:{self.sock.getsockname()[1]}/"
        self.pool = ThreadPoolExecutor(1)

    def close(self) -> None:
        self.pool.shutdown()
        self.sock.close()


class Conversation:
    """A client and the server's end of its connection.

    :param before: makes records that go out in front of the response.
    :param then: plaintext for the client, in the same write as the response.
    :param holds: whether what follows the handshake (tickets) waits for the response, and goes out
        in the same write. Not in TLS 1.2, where the server's Finished is among it.
    :param split: cuts what is sent while the client connects; each part is read before the next.
    """

    def __init__(
        self,
        listener: Listener,
        client: CollectingClient,
        stack: Stack,
        *,
        before: Callable[[Any], bytes] | None = None,
        then: bytes = b"",
        holds: bool = False,
        split: Split | None = None,
    ) -> None:
        self.listener, self.client, self.stack = listener, client, stack
        self.before, self.then = before, then
        self.holds, self.split = holds, split
        self.messages = client.received
        self.messages.clear()
        #: Plaintext from the client that is not taken yet.
        self.plaintext = b""
        self.sock: socket.socket

    # ---- Connecting: in a thread.

    def connect(self) -> None:
        served = self.listener.pool.submit(self._serve)
        failure: Exception | None = None
        try:
            self.client.connect()
        except hftws.Error as error:
            failure = error
        server_failure = served.exception(2 * PEER_TIMEOUT)
        if server_failure is not None and not isinstance(server_failure, (EOFError, OSError)):
            raise server_failure
        if failure is not None or server_failure is not None:
            raise failure or server_failure  # type: ignore[misc]

    def _serve(self) -> None:
        self.sock, _ = self.listener.sock.accept()
        self.sock.settimeout(PEER_TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            request = self.stack.accept(self)
            found = re.search(rb"Sec-WebSocket-Key: ([^\r]+)", request)
            assert found is not None
            response = (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept_value(found[1].decode())}"
                "\r\n\r\n"
            )
            records = self.stack.outgoing()
            if self.before is not None:
                records += self.before(self.stack)
            self.put(records + self.stack.seal(response.encode() + self.then))
        except BaseException:
            self.sock.close()
            raise

    def receive(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("the client hung up")
        return data

    def put(self, data: bytes) -> None:
        """Sends while the client connects."""
        parts = [data] if self.split is None else self.split(data)
        for part in parts:
            if part:
                self.sock.sendall(part)
            if len(parts) > 1:
                self._wait_until_read()

    def _wait_until_read(self) -> None:
        until = time.monotonic() + PEER_TIMEOUT
        while self._unread() > 0 and not self.client.is_open:  # From then on, the test reads.
            assert time.monotonic() < until, "the client does not read"
            time.sleep(20e-6)  # Gives up Python's lock, which the client may want.

    def _unread(self) -> int:
        """Bytes that the kernel has for the client; 0 when it is gone."""
        with contextlib.suppress(OSError):
            size = fcntl.ioctl(self.client._descriptor(), termios.FIONREAD, bytes(4))
            return int.from_bytes(size, "little")
        return 0

    # ---- Open: one thread drives both ends.

    def deliver(self, *parts: bytes) -> None:
        """Sends each part, and lets the client read it before the next one."""
        for part in parts:
            if part:
                self.sock.sendall(part)
                self.turn()

    def turn(self) -> None:
        """The client reads what is there; what it sends is given to the server."""
        ready, _, _ = select.select([self.client.fileno()], [], [], PEER_TIMEOUT)
        assert ready, "nothing arrived"
        self.client.poll(0)
        self.collect()

    def relay(self, until: Callable[[], object], *, to_client: bool = True) -> None:
        """Passes on what OpenSSL's server and the client say; or only what the client says."""
        stack = self.stack
        assert isinstance(stack, OpensslTls)
        sources: list[Any] = [self.sock, stack.server.output]
        if to_client:
            sources += [stack.sock, self.client]
        while not until():
            ready, _, _ = select.select(sources, [], [], PEER_TIMEOUT)
            assert ready, f"nobody says anything: {stack.server.said[stack.seen :]!r}"
            if stack.sock in ready:
                data = stack.sock.recv(65536)
                self.sock.sendall(data)
                if not data:
                    sources.remove(stack.sock)
            if self.client in ready:
                self.client.poll(0)
            if self.sock in ready and not self.collect():
                sources.remove(self.sock)
            if stack.server.output in ready:
                stack.server.read()

    def wait_for(self, pattern: bytes) -> None:
        """Waits until OpenSSL's server shows this, in what the client has sent."""
        stack = self.stack
        assert isinstance(stack, OpensslTls)
        self.relay(lambda: stack.take(pattern), to_client=False)

    def collect(self) -> bool:
        """Gives the server what has come from the client; whether more may come.

        On the loopback, too, a busy kernel may hand over later what a client has sent.
        """
        data: bytes | None = None
        self.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while data := self.sock.recv(65536):
                self.stack.feed(data)
        self.sock.settimeout(PEER_TIMEOUT)
        self.plaintext += self.stack.open()
        return data != b""

    def collect_more(self) -> None:
        """Waits for what the client sends next, letting it send more."""
        waiting = [self.client] if self.client.wants_write else []
        ready = select.select([self.sock, *waiting], [], [], PEER_TIMEOUT)
        assert any(ready), "the client says nothing"
        self.client.poll(0)
        assert self.collect(), "the client hung up"

    def expect(self, *messages: bytes) -> None:
        """These messages, and no others, have been delivered since the last time."""
        while len(self.messages) < len(messages):
            assert self.client.poll(PEER_TIMEOUT), self.messages
        self.collect()
        assert self.messages == list(messages)
        self.messages.clear()

    def exchange(self, *parts: bytes, messages: Iterable[bytes]) -> None:
        """Delivers, and expects."""
        self.deliver(*parts)
        self.expect(*messages)

    def text(self, payload: bytes) -> bytes:
        """The records of a text message to the client."""
        return self.stack.seal(encode_frame(TEXT, payload))

    def hear(self, payload: bytes) -> None:
        """The client sends this, and the server understands it."""
        self.client.send(payload, text=True)
        self.client.poll(0)
        if isinstance(self.stack, OpensslTls):
            self.wait_for(re.escape(payload))  # Masked with zeros.
            return
        while (frame := take_frame(self.plaintext)) is None:
            self.collect_more()
        assert (frame.opcode, frame.payload) == (TEXT, payload)
        self.plaintext = self.plaintext[frame_size(self.plaintext) :]

    def finish(self, *parts: bytes, hang_up: bool = False) -> Outcome:
        """Delivers what should end the connection, and returns how it ended."""
        error: hftws.Error | None = None
        try:
            self.deliver(*parts)
            if not hang_up:
                self.await_fin()
            self.sock.shutdown(socket.SHUT_WR)
            while self.client.poll(PEER_TIMEOUT):
                pass
            self.client.poll(0)  # The call after the end reports it.
        except hftws.Error as raised:
            error = raised
        assert error is not None, "the connection did not end"
        self.drain()
        kind, reason = type(error).__name__, getattr(error, "reason", "")
        return Outcome(list(self.messages), kind, reason, list(self.stack.alerts))

    def await_fin(self) -> None:
        """Reads on both ends until the client has ended its direction."""
        with contextlib.suppress(ConnectionError):
            while self.collect():
                ready, _, _ = select.select([self.sock, self.client], [], [], PEER_TIMEOUT)
                assert ready, "the client does not end the connection"
                if self.client in ready:
                    self.client.poll(0)

    def drain(self) -> None:
        """Gives the server all that the client sent before it hung up."""
        with contextlib.suppress(ConnectionError):
            while data := self.sock.recv(65536):
                self.stack.feed(data)
        self.plaintext += self.stack.open()

    def close(self) -> None:
        """Ends the connection in any state, without waiting."""
        with contextlib.suppress(AttributeError):
            self.sock.close()
        if isinstance(self.stack, OpensslTls):
            self.stack.close()
        with contextlib.suppress(hftws.Error):
            self.client.close()


def frame_size(data: bytes) -> int:
    """Of the client's frame that the data begins with; 0 when its header is not all there."""
    if len(data) < 2:
        return 0
    size = data[1] & 0x7F
    extended = {126: 2, 127: 8}.get(size, 0)
    if len(data) < 2 + extended:
        return 0
    if extended:
        size = int.from_bytes(data[2 : 2 + extended], "big")
    return 2 + extended + 4 + size


def take_frame(data: bytes) -> Frame | None:
    """The client's frame that the data begins with, if it is all there."""
    size = frame_size(data)
    if size == 0 or len(data) < size:
        return None
    assert data[1] & 0x80, "a frame of the client is not masked"
    payload_size = data[1] & 0x7F
    payload_start = 6 + {126: 2, 127: 8}.get(payload_size, 0)
    mask = data[payload_start - 4 : payload_start]
    payload = apply_mask(data[payload_start:size], mask)
    return Frame(data[0] & 0xF, payload, bool(data[0] & 0x80), data[0] >> 4 & 7, mask)
