"""What the loggers ``hftws`` and ``hftws.frames`` tell.

The extension imports this module at the first connect of a program that has imported
:mod:`logging`; in others nobody can listen. No record has a header's value in it, and URLs are
shown as exceptions show them: without what looks like a password or a key.
"""

from __future__ import annotations

import logging

from hftws.types import ConnectionInfo

__all__ = ["logger"]

logger = logging.getLogger("hftws")
logger.addHandler(logging.NullHandler())


def asked() -> bool:
    """Whether anybody wants to know of connections. The extension asks at each connect and end."""
    return logger.isEnabledFor(logging.INFO)


def connecting(url: str) -> None:
    """Before the name is looked up."""
    logger.debug("connecting [%s]", url)


def connected(url: str, info: ConnectionInfo) -> None:
    """The TCP connection is there."""
    logger.debug("connected: %s from %s [%s]", info["peer_address"], info["local_address"], url)


def secured(url: str, info: ConnectionInfo) -> None:
    """The TLS handshake is done."""
    why = f" ({info['engine_reason']})" if info["engine_reason"] else ""
    logger.debug(
        "TLS: %s, %s, %s, %s engine%s, %s [%s]",
        info["tls_version"],
        info["cipher"],
        "resumed" if info["tls_resumed"] else "not resumed",
        info["engine"],
        why,
        info["tls_library"],
        url,
    )


def opened(url: str, status: int, subprotocol: str | None, headers: list[tuple[str, str]]) -> None:
    """The server has agreed to the upgrade."""
    extensions = ", ".join(
        value for name, value in headers if name.lower() == "sec-websocket-extensions"
    )
    logger.info(
        "open: HTTP %d, subprotocol %s, extensions %s [%s]",
        status,
        "none" if subprotocol is None else ascii(subprotocol),
        ascii(extensions) if extensions else "none",
        url,
    )


def answered(url: str, status: int) -> None:
    """The whole answer to a GET has come."""
    logger.info("answered: HTTP %d [%s]", status, url)


def failed(url: str, error: BaseException) -> None:
    """There is no connection, or no answer to a GET."""
    text = ascii(str(error))[1:-1]  # It may hold the peer's words: in one line, whatever they are.
    if url not in text:
        text = f"{text} [{url}]"
    logger.info("failed: %s: %s", type(error).__name__, text)


def ended(url: str, code: int, reason: str, local: bool) -> None:
    """An open connection has ended."""
    who = "the client" if local else "the server"
    logger.info("ended by %s: code %d, reason %a [%s]", who, code, reason, url)
