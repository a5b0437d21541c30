"""The parts of a row of the matrix: a server, and the result that is expected with it."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import certificates
from certificates import Issuer
from tls_peers import (
    ALERT,
    HEADER_SIZE,
    Change,
    Conversation,
    Listener,
    LiteTls,
    OpensslServer,
    OpensslTls,
    PythonTls,
    Stack,
    record_size,
    split_records,
)
from tlslite.constants import AlertDescription
from tlslite.handshakesettings import HandshakeSettings
from tlslite.utils.keyfactory import parsePEMKey
from tlslite.x509certchain import X509CertChain

# ---- What is expected. -------------------------------------------------------------------------


@dataclass(frozen=True)
class Connects:
    """The connection opens, and messages go both ways until it is closed in the ordinary way."""

    version: str = "TLSv1.3"
    cipher: str = "TLS_AES_128_GCM_SHA256"
    #: Why the direct engine cannot be used; then only tls="direct" fails, with this reason.
    engine_reason: str = ""
    #: Connections of one client, one after the other, and whether each takes up a session.
    resumed: tuple[bool, ...] = (False,)
    #: What the server knows about it at the end.
    holds: Callable[[Any], object] = lambda stack: True

    def __str__(self) -> str:
        said = f"connects: {self.version}, {self.cipher}"
        if self.engine_reason:
            said += f'; tls="auto" leaves the records to OpenSSL: {self.engine_reason}'
        if len(self.resumed) > 1:
            words = ["resumed" if resumed else "full" for resumed in self.resumed]
            said += f"; handshakes: {', '.join(words)}"
        return said


@dataclass(frozen=True)
class Fails:
    """There is no connection: ``connect`` raises exactly this, and the server gets an alert."""

    message: str
    error: str = "TLSError"
    #: The alert that the server gets; "" if it gets none.
    alert: str = ""
    #: OpenSSL's X509_V_ERR_*, where the certificate is the cause.
    verify_code: int = 0
    #: Whether only the certificate is wrong, so that verify=False connects.
    connects_unverified: bool = False

    def __str__(self) -> str:
        told = f"; the server is told {self.alert}" if self.alert else ""
        return f"{self.error}: {self.message}{told}"


@dataclass(frozen=True)
class Ends:
    """The connection opens, messages go both ways, and then it ends in this way."""

    reason: str
    #: OpenSSL's words, where they differ.
    openssl_reason: str = ""
    #: Makes what ends it.
    make: Callable[[Any], bytes] = lambda stack: b""
    error: str = "TLSError"
    alert: str = ""
    #: How the server ends TCP: not at all, with FIN, or with RST.
    hang_up: str = ""
    version: str = "TLSv1.3"

    def __str__(self) -> str:
        told = f"; the server is told {self.alert}" if self.alert else ""
        return f"connects ({self.version}), then {self.error}: {self.reason}{told}"


def unverified(reason: str, code: int, alert: str, *, connects_unverified: bool = True) -> Fails:
    """The certificate proves nothing, for this reason."""
    return Fails(
        f"the TLS handshake failed: certificate verify failed: {reason}",
        alert=alert,
        verify_code=code,
        connects_unverified=connects_unverified,
    )


def no_handshake(reason: str, alert: str = "") -> Fails:
    """TLS itself fails, for this reason in OpenSSL's words."""
    return Fails(f"the TLS handshake failed: {reason}", alert=alert)


# ---- The server. -------------------------------------------------------------------------------


#: Two for a row, and two for the previous one.
OPENSSL_SERVERS_MAX = 4


class Workshop:
    """Where the servers get their certificates and their address."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.listener = Listener()
        self.roots = {"EC": certificates.root("EC root")}
        self.roots["RSA"] = certificates.root("RSA root", "RSA 2048")
        self.ca_file = self.write(self.roots.values())
        self._issued: dict[Any, Issuer] = {}
        self._servers: dict[tuple[str, ...], OpensslServer] = {}

    def issued(self, make: Callable[[Workshop], Issuer]) -> Issuer:
        """What ``make`` returns, made once."""
        if make not in self._issued:
            self._issued[make] = make(self)
        return self._issued[make]

    def write(self, certificates: Iterable[Issuer], key: bytes = b"") -> Path:
        """A PEM file with all of them."""
        data = key + b"".join(certificate.pem for certificate in certificates)
        path = self.directory / f"{hashlib.sha256(data).hexdigest()}.pem"
        path.write_bytes(data)
        return path

    def openssl(self, *options: str) -> OpensslTls:
        """A connection to the one ``openssl s_server`` with these options.

        A few stay, for the next engine: to start one takes longer than to connect.
        """
        if options not in self._servers:
            while len(self._servers) >= OPENSSL_SERVERS_MAX:
                self._servers.pop(next(iter(self._servers))).close()
            self._servers[options] = OpensslServer.with_options(*options)
        return OpensslTls(self._servers[options])

    def close(self) -> None:
        for server in self._servers.values():
            server.close()
        self.listener.close()


@dataclass(frozen=True)
class Server:
    """How a server is made."""

    #: As the table says it.
    description: str
    #: Called for each connection; the number of those before is the second argument.
    make: Callable[[Workshop, int], Stack]
    needs_openssl_program: bool = False


@dataclass(frozen=True)
class Row:
    """A server, and what is expected of a client that connects to it."""

    name: str
    server: Server
    expected: Connects | Fails | Ends
    #: The client's options; a callable is given the workshop first.
    client: Mapping[str, Any] = field(default_factory=dict)
    #: Makes records that come between the handshake and the response.
    before: Callable[[Any], bytes] | None = None
    #: How it makes records of a message, if not in its own way.
    seal: Callable[[Any, bytes], bytes] | None = None
    #: The scheme and the host of the URL.
    scheme: str = "wss"
    host: str = "127.0.0.1"


# ---- Certificates to show. ---------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """What a server shows: the certificates in this order, and the key of the first."""

    certificates: list[Issuer]

    @property
    def key_pem(self) -> bytes:
        return self.certificates[0].key_pem

    def pem_file(self, workshop: Workshop) -> Path:
        """Key and certificates, the server's own first."""
        return workshop.write(self.certificates, self.key_pem)

    @property
    def lite_chain(self) -> X509CertChain:
        chain = X509CertChain()
        chain.parsePemList(b"".join(shown.pem for shown in self.certificates).decode())
        return chain

    @property
    def lite_key(self) -> Any:
        return parsePEMKey(self.key_pem.decode(), private=True)


Certify = Callable[[Workshop], Issuer]


def ecdsa(workshop: Workshop) -> Issuer:
    """The credentials of a server whose certificate is not what is tested."""
    return workshop.roots["EC"].issue("127.0.0.1")


def rsa(workshop: Workshop) -> Issuer:
    return workshop.roots["RSA"].issue("127.0.0.1", key="RSA 2048")


# ---- Makers of servers. ------------------------------------------------------------------------


def openssl(*options: str, certify: Certify = ecdsa, changed: Iterable[str] = ()) -> Server:
    """OpenSSL's own server. From the second connection on it has the options of ``changed``."""

    def make(workshop: Workshop, number: int) -> Stack:
        shown = Shown(workshop.issued(certify).chain)
        path = str(shown.pem_file(workshop))
        chosen = tuple(changed) if changed and number > 0 else options
        return workshop.openssl("-cert", path, "-cert_chain", path, *chosen)

    return Server(f"openssl s_server {' '.join(options)}".strip(), make, True)


def python(
    description: str = "",
    *,
    certify: Certify = ecdsa,
    show: Callable[[Issuer], list[Issuer]] = lambda certificate: certificate.chain,
    configure: Callable[[Workshop, Any], object] = lambda workshop, context: None,
) -> Server:
    """Python's ``ssl``. ``show`` chooses what it shows of the chain."""
    contexts: dict[Workshop, ssl.SSLContext] = {}

    def context_for(workshop: Workshop) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:@SECLEVEL=0")  # The client has to refuse it.
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        context.load_cert_chain(Shown(show(workshop.issued(certify))).pem_file(workshop))
        configure(workshop, context)
        return context

    def make(workshop: Workshop, number: int) -> Stack:
        if workshop not in contexts:
            contexts[workshop] = context_for(workshop)
        return PythonTls(contexts[workshop])

    return Server(f"Python ssl{': ' * bool(description)}{description}", make)


def lite(
    description: str = "",
    *,
    certify: Certify = ecdsa,
    changes: Mapping[int, Change] | None = None,
    client_certificate: bool = False,
    record_size: int | None = None,
    **settings: Any,
) -> Server:
    """tlslite-ng, with TLS 1.3 and AES-128-GCM unless the ``settings`` say otherwise."""

    def make(workshop: Workshop, number: int) -> Stack:
        chosen = HandshakeSettings()
        chosen.minVersion = chosen.maxVersion = (3, 4)
        chosen.cipherNames = ["aes128gcm"]
        chosen.ticket_count = 0
        for name, value in settings.items():
            assert hasattr(chosen, name), name
            setattr(chosen, name, value)
        shown: Any = Shown(workshop.issued(certify).chain)
        stack = LiteTls(shown, chosen, client_certificate=client_certificate, changes=changes)
        if record_size is not None:
            stack.connection.recordSize = record_size
        return stack

    return Server(f"tlslite-ng{': ' * bool(description)}{description}", make)


def altered(
    server: Server, description: str, alter: Callable[[bytes], bytes], *, hangs_up: bool = False
) -> Server:
    """The same server with other bytes in its first flight; it may hang up after that."""

    def make(workshop: Workshop, number: int) -> Stack:
        return Altered(server.make(workshop, number), alter, hangs_up)

    return Server(f"{server.description}, {description}", make, server.needs_openssl_program)


class Altered:
    """A stack with somebody between it and the client."""

    def __init__(self, stack: Any, alter: Callable[[bytes], bytes], hangs_up: bool) -> None:
        self._stack, self._hangs_up = stack, hangs_up
        self._alter: Callable[[bytes], bytes] | None = alter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stack, name)

    def accept(self, line: Conversation) -> bytes:
        if self._hangs_up:
            self.feed(line.receive())
            self.shake_hands()
            line.put(self.outgoing())
            raise EOFError("nothing more to say")
        return bytes(type(self._stack).accept(self, line))  # By way of our `outgoing`.

    def outgoing(self) -> bytes:
        flight = bytes(self._stack.outgoing())
        if not flight or self._alter is None:
            return flight
        alter, self._alter = self._alter, None
        return alter(flight)


# ---- Servers that are bytes. -------------------------------------------------------------------


class Wire:
    """Answers the client's hello with given bytes; then ends, or reads until the client does."""

    resumed = False

    def __init__(self, answer: Callable[[bytes], bytes], end: str) -> None:
        self._answer, self._end = answer, end
        self.alerts: list[str] = []

    def accept(self, line: Conversation) -> bytes:
        hello = line.receive()
        while hello[:1] == b"\x16" and len(hello) < record_size(hello):
            hello += line.receive()
        answer = self._answer(hello)
        if answer:
            line.put(answer)
        if self._end == "RST":
            line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif self._end != "FIN":
            self._listen(line)
        raise EOFError("nothing more to say")

    def _listen(self, line: Conversation) -> None:
        said = b""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                said += line.receive()
        for record in split_records(said):
            if record[0] == ALERT and len(record) == HEADER_SIZE + 2:
                self.alerts.append(AlertDescription.toStr(record[-1]))

    def outgoing(self) -> bytes:
        return b""

    def seal(self, plaintext: bytes) -> bytes:
        raise NotImplementedError

    def feed(self, ciphertext: bytes) -> None:
        raise NotImplementedError

    def open(self) -> bytes:
        return b""


def wire(description: str, answer: bytes | Callable[[bytes], bytes] = b"", end: str = "") -> Server:
    """No TLS at all, or only a piece of it."""

    def make(workshop: Workshop, number: int) -> Stack:
        return Wire(answer if callable(answer) else lambda hello: answer, end)

    return Server(f"bytes: {description}", make)
