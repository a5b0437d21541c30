"""The client of a case: it sends every message back as it came, until the server has had enough."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

import hftws

from .verdicts import section_of

__all__ = ["CASE_TIMEOUT", "COMPRESSION_SECTIONS", "LARGE_CASES", "Echo", "options_of"]

MIB = 1024 * 1024

#: Compresses small messages, too, which the client does not do by default.
COMPRESSION_SECTIONS = {12, 13}

#: Seconds after which a case is given up. The server ends nearly all of them long before.
CASE_TIMEOUT = 600.0

#: Seconds between two attempts to send what the send ring had no room for.
RETRY_INTERVAL = 0.005

#: Messages of 8 and 16 MiB. All others are played with the options that a client has by default.
LARGE_CASES = {"9.1.5", "9.1.6", "9.2.5", "9.2.6"}
LARGE = {"max_message_size": 16 * MIB, "ring_size": 32 * MIB, "send_ring_size": 32 * MIB}


def options_of(case: str) -> dict[str, Any]:
    """What this case needs beyond the defaults."""
    if case in LARGE_CASES:
        return LARGE
    if section_of(case) in COMPRESSION_SECTIONS:
        return {"compression": hftws.Deflate(threshold=1)}
    return {}


class Echo:
    """One connection on which everything comes back."""

    def __init__(self, url: str, ca_file: Path | None, options: dict[str, Any]) -> None:
        self._url = url
        self._options = {"ca_file": ca_file, **options}
        self._client: hftws.Client | None = None
        #: Messages for which the send ring had no room, in order, with their opcodes.
        self._waiting: deque[tuple[bytes, bool]] = deque()

    def run(self) -> None:
        """Receives until the connection ends. Raises why, unless it was an ordinary end."""
        deadline = time.monotonic() + CASE_TIMEOUT
        try:
            with hftws.Client(self._url, self.on_msg, **self._options) as self._client:
                while self._client.is_open and time.monotonic() < deadline:
                    self._client.poll(RETRY_INTERVAL if self._waiting else 1.0)
                    self.send_waiting()
        finally:
            self._client = None  # Breaks the cycle: the rings are freed before the next gc.

    def on_msg(self, message: hftws.Message) -> None:
        if self._waiting or not self.send(message.data, message.is_text):
            self._waiting.append((bytes(message.data), message.is_text))

    def send_waiting(self) -> None:
        assert self._client is not None
        while self._waiting and self._client.is_open and self.send(*self._waiting[0]):
            self._waiting.popleft()

    def send(self, data: bytes | memoryview, text: bool) -> bool:
        """Sends it; false if there was no room."""
        assert self._client is not None
        try:
            self._client.send(data, text=text)
        except BufferError:
            return False
        return True
