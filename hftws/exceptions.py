"""What can go wrong, as exceptions.

Each derives from :exc:`Error` and from the built-in that a caller would expect.
"""

from __future__ import annotations

__all__ = [
    "ConnectError",
    "ConnectTimeout",
    "ConnectionClosed",
    "Error",
    "HandshakeError",
    "InvalidURL",
    "MessageTooBig",
    "ProtocolError",
    "TLSError",
]


class Error(Exception):
    """The base of every exception that hftws defines."""

    #: The URL of the connection, without what looks like a password or a key in it, and cut where
    #: it is long; ``""`` where there was no connection yet. It is a part of ``str()``.
    url: str = ""

    def __str__(self) -> str:
        said = super().__str__()
        return f"{said} [{self.url}]" if self.url else said


class InvalidURL(Error, ValueError):
    """The URL is malformed, or not one of a WebSocket (RFC 6455, section 3)."""


class ConnectError(Error, ConnectionError):
    """No TCP connection: the name does not resolve, or no address could be reached.

    Also raised if the system has no thread or no descriptors left to look the name up.
    """


class ConnectTimeout(ConnectError, TimeoutError):
    """``connect_timeout`` passed before the connection was open; the message names the stage.

    That may be the look-up of the name, too.
    """


class TLSError(Error, ConnectionError):
    """TLS failed: the peer is not who it should be, or does not keep to the protocol.

    Also raised by the constructor, for a certificate or key file that cannot be used.
    """

    #: OpenSSL's reason, such as ``"certificate verify failed"``.
    reason: str
    #: OpenSSL's ``X509_V_ERR_*``; 0 when the certificate was not the cause.
    verify_code: int
    #: What is wrong with the certificate, such as ``"certificate has expired"``, or ``""``.
    verify_reason: str

    def __init__(
        self, message: str, reason: str = "", verify_code: int = 0, verify_reason: str = ""
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.verify_code = verify_code
        self.verify_reason = verify_reason


class HandshakeError(Error, ConnectionError):
    """The server did not agree to a WebSocket, or its answer is not valid HTTP.

    The client stays as after any failed connect: ``close_code`` is 1006, and ``run()``, ``poll()``
    and ``send()`` raise this again.
    """

    #: The HTTP status, such as 429; None when there was no valid response.
    status: int | None
    #: The response's headers in their order, names as the server wrote them.
    headers: list[tuple[str, str]]
    #: The response's body, as much as came, at most 64 KiB.
    body: bytes

    def __init__(
        self,
        message: str,
        status: int | None = None,
        headers: list[tuple[str, str]] | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers if headers is not None else []
        self.body = body

    def header(self, name: str) -> str | None:
        """The first header of this name, in upper or lower case; None if there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class ProtocolError(Error, ConnectionError):
    """The peer broke the protocol (RFC 6455). It was sent a CLOSE frame; the connection is over."""

    #: The close code that was sent: 1002, 1007 or 1009; 1006 where another had been sent before.
    #: ``close_code`` and ``on_close`` have the same.
    code: int

    def __init__(self, message: str, code: int = 1002) -> None:
        super().__init__(message)
        self.code = code


class MessageTooBig(ProtocolError, ValueError):
    """The peer sent a message larger than ``max_message_size``; both sizes are in the message."""


class ConnectionClosed(Error, ConnectionError):
    """The connection is over, and was not ended in the ordinary way."""

    #: RFC 6455, section 7.4: 1006 when the peer sent no close frame, 1005 when it gave no code.
    code: int
    #: The reason in the peer's close frame, or what happened.
    reason: str

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} ({reason})" if reason else str(code))
        self.code = code
        self.reason = reason
