"""The adapter of websocket-client: blocking, in pure Python."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import websocket

from bench.clients.base import Client


class Adapter(Client):
    imports = "import websocket"
    sends: ClassVar[Mapping[str, str]] = {"text": "send(text)", "data": "send_bytes(data)"}

    def connect(self) -> None:
        self._running = False
        self._socket = websocket.create_connection(
            self.url,
            sslopt={"ca_certs": self.ca_file, "cert_reqs": ssl.CERT_REQUIRED},
            enable_multithread=False,
            skip_utf8_validation=True,
        )

    def send(self, text: str) -> None:
        self._socket.send(text)

    def run_until(self, done: Callable[[], bool]) -> None:
        callback, receive = self.consumer.callback, self._socket.recv_data
        while not done():
            callback(receive()[1])

    def run(self) -> None:
        callback, receive = self.consumer.callback, self._socket.recv_data
        self._running = True
        while self._running:
            callback(receive()[1])

    def stop(self) -> None:
        self._running = False

    def names(self) -> dict[str, Any]:
        return {"send": self._socket.send, "send_bytes": self._socket.send_bytes}

    def close(self) -> None:
        self._socket.shutdown()
