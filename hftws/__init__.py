"""A WebSocket client for high-frequency trading.

>>> import hftws
>>> def on_msg(msg: hftws.Message) -> None:
...     print(bytes(msg.data))
>>> with hftws.Client("wss://example.com/feed", on_msg=on_msg) as client:  # doctest: +SKIP
...     client.run()
"""

from __future__ import annotations

from hftws._core import (
    Message,
    __version__,
    lock_memory,
    pin_thread,
    set_realtime_priority,
)
from hftws.client import Client, Deflate
from hftws.exceptions import (
    ConnectError,
    ConnectionClosed,
    ConnectTimeout,
    Error,
    HandshakeError,
    InvalidURL,
    MessageTooBig,
    ProtocolError,
    TLSError,
)
from hftws.libssl import use_libssl
from hftws.loop import Loop, TimerHandle
from hftws.rest import Response, get

__all__ = [
    "Client",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionClosed",
    "Deflate",
    "Error",
    "HandshakeError",
    "InvalidURL",
    "Loop",
    "Message",
    "MessageTooBig",
    "ProtocolError",
    "Response",
    "TLSError",
    "TimerHandle",
    "__version__",
    "get",
    "lock_memory",
    "pin_thread",
    "set_realtime_priority",
    "use_libssl",
]
