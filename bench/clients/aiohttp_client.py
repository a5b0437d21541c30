"""The adapter of aiohttp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from bench.clients.base import AsyncioClient


class Adapter(AsyncioClient[ClientWebSocketResponse]):
    imports = "import asyncio, ssl, aiohttp, uvloop"
    sends: ClassVar[Mapping[str, str]] = {"text": "send(text)", "data": "send_bytes(data)"}
    awaited = True
    compressed_options: ClassVar[Mapping[str, Any]] = {"window_bits": 15}

    def __init__(self, url: str, ca_file: str, *, window_bits: int = 0) -> None:
        super().__init__(url, ca_file)
        self._window_bits = window_bits

    async def open(self) -> ClientWebSocketResponse:
        self._session = ClientSession()
        context = self.tls_context
        return await self._session.ws_connect(
            self.url,
            ssl=True if context is None else context,
            decode_text=False,
            compress=self._window_bits,
        )

    async def write(self, connection: ClientWebSocketResponse, text: str) -> None:
        await connection.send_str(text)

    async def receive(self, connection: ClientWebSocketResponse) -> None:
        callback = self.consumer.callback
        async for message in connection:
            if message.type is WSMsgType.TEXT:
                to_await = callback(message.data)
                if to_await is not None:
                    await to_await

    def names(self) -> dict[str, Any]:
        return {"send": self.connection.send_str, "send_bytes": self.connection.send_bytes}

    async def shut(self) -> None:
        await self.connection.close()
        await self._session.close()
