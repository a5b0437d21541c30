"""The adapter of websockets: its asyncio API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from bench.clients.base import AsyncioClient


class Adapter(AsyncioClient[ClientConnection]):
    imports = "import asyncio, ssl, uvloop, websockets.asyncio.client"
    sends: ClassVar[Mapping[str, str]] = {"text": "send(text)", "data": "send(data)"}
    awaited = True
    compressed_options: ClassVar[Mapping[str, Any]] = {"compressed": True}

    def __init__(self, url: str, ca_file: str, *, compressed: bool = False) -> None:
        super().__init__(url, ca_file)
        # Its own compression="deflate" wants a window of 12 bits from the server.
        self._extensions = [ClientPerMessageDeflateFactory()] if compressed else None

    async def open(self) -> ClientConnection:
        return await connect(
            self.url,
            ssl=self.tls_context,
            extensions=self._extensions,
            compression=None,
            ping_interval=None,
            max_queue=None,
            proxy=None,
        )

    async def write(self, connection: ClientConnection, text: str) -> None:
        await connection.send(text)

    async def receive(self, connection: ClientConnection) -> None:
        callback, recv = self.consumer.callback, connection.recv
        while True:
            to_await = callback(await recv(decode=False))
            if to_await is not None:
                await to_await

    def names(self) -> dict[str, Any]:
        return {"send": self.connection.send}

    async def shut(self) -> None:
        connection = self.connection
        connection.transport.abort()
        await connection.wait_closed()
