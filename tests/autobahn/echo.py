"""The client of a case: it sends every message back as it came, until the server has had enough."""

from __future__ import annotations

import inspect
import time
from collections import deque
from pathlib import Path
from typing import Any

import hftws

from .verdicts import section_of

__all__ = ["CASE_TIMEOUT", "LARGE_CASES", "Echo", "has_compression", "options_of"]

MIB = 1024 * 1024

#: Seconds after which a case is given up. The server ends nearly all of them long before.
CASE_TIMEOUT = 600.0

#: Seconds between two attempts to send what the send ring had no room for.
RETRY_INTERVAL = 0.005

#: Messages of 8 and 16 MiB. All others are played with the options that a client has by default.
LARGE_CASES = {"9.1.5", "9.1.6", "9.2.5", "9.2.6"}
LARGE = {"max_message_size": 16 * MIB, "ring_size": 32 * MIB, "send_ring_size": 32 * MIB}


def has_compression() -> bool:
    """Whether this hftws knows permessage-deflate, which sections 12 and 13 are about."""
    return "compression" in inspect.signature(hftws.Client).parameters


def options_of(case: str) -> dict[str, Any]:
    """What this case needs beyond the defaults."""
    if case in LARGE_CASES:
        return LARGE
    if section_of(case) in (12, 13) and has_compression():
        return {"compression": "deflate"}
    return {}


class Echo:
    """One connection on which everything comes back."""

    def __init__(self, url: str, ca_file: Path | None, options: dict[str, Any]) -> None:
        self.client = hftws.Client(url, self.on_msg, ca_file=ca_file, **options)
        #: What had no room in the send ring, in order, with its kind.
        self.waiting: deque[tuple[bytes, bool]] = deque()

    def run(self) -> None:
        """Until the connection has ended. Raises what ended it, unless that was in order."""
        deadline = time.monotonic() + CASE_TIMEOUT
        with self.client as client:
            while client.is_open and time.monotonic() < deadline:
                client.poll(RETRY_INTERVAL if self.waiting else 1.0)
                self.send_waiting()

    def on_msg(self, message: hftws.Message) -> None:
        if self.waiting or not self.send(message.data, message.is_text):
            self.waiting.append((bytes(message.data), message.is_text))

    def send_waiting(self) -> None:
        while self.waiting and self.client.is_open and self.send(*self.waiting[0]):
            self.waiting.popleft()

    def send(self, data: bytes | memoryview, text: bool) -> bool:
        """Whether there was room."""
        try:
            self.client.send(data, text=text)
        except BufferError:
            return False
        return True
