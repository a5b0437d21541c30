"""The adapter of websocket-rs: the fastest of its three clients, in asyncio's own loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import websocket_rs
from websocket_rs.native_client import NativeClient

from bench.clients.base import AsyncioClient
from bench.consumers import Form


class Adapter(AsyncioClient[NativeClient]):
    form = Form.BUFFER
    imports = "import asyncio, ssl, uvloop, websocket_rs"
    sends: ClassVar[Mapping[str, str]] = {"text": "send(text)", "data": "send(data)"}
    compressed_options: ClassVar[Mapping[str, Any]] = {"compressed": True}

    def __init__(self, url: str, ca_file: str, *, compressed: bool = False) -> None:
        super().__init__(url, ca_file)
        self._compressed = compressed

    async def open(self) -> NativeClient:
        return await websocket_rs.connect(
            self.url,
            ssl_context=self.tls_context,
            compression=self._compressed,
            on_message=self.consumer.callback,
        )

    async def write(self, connection: NativeClient, text: str) -> None:
        connection.send(text)

    def names(self) -> dict[str, Any]:
        return {"send": self.connection.send}

    async def shut(self) -> None:
        self.connection.close()

    def info(self) -> dict[str, Any]:
        return {"client": type(self.connection).__name__}
