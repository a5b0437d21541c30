"""WebSocket frames of a server: whole messages, never masked."""

from __future__ import annotations

from typing import Final

_FINAL_TEXT: Final = 0x81
_FINAL_PING: Final = 0x89
_LENGTH_7_MAX: Final = 125
_LENGTH_16_MAX: Final = 0xFFFF


def text_frame(payload: bytes) -> bytes:
    """Return a text message as one frame."""
    return _frame(_FINAL_TEXT, payload)


def ping_frame(payload: bytes) -> bytes:
    """Return a ping; its payload may have 125 bytes."""
    return _frame(_FINAL_PING, payload)


def _frame(head: int, payload: bytes) -> bytes:
    size = len(payload)
    if size <= _LENGTH_7_MAX:
        header = bytes((head, size))
    elif size <= _LENGTH_16_MAX:
        header = bytes((head, 126)) + size.to_bytes(2, "big")
    else:
        header = bytes((head, 127)) + size.to_bytes(8, "big")
    return header + payload
