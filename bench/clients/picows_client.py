"""The adapter of picows: its core API, with the transport of aiofastnet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from picows import WSListener, WSMsgType, WSTransport, ws_connect

from bench.clients.base import AsyncioClient
from bench.consumers import Form

#: The most bytes that its transport reads at once, so that its buffer does not have to grow.
READ_SIZE = 256 * 1024

#: It writes the header of a frame into this many bytes before the payload.
HEADER_SIZE = 14


class Adapter(AsyncioClient[WSTransport]):
    form = Form.FRAME
    imports = "import asyncio, ssl, picows, uvloop"
    sends: ClassVar[Mapping[str, str]] = {
        "text": "send(TEXT, text.encode())",
        "data": "send(TEXT, data)",
        "buffer": "buffer[14:] = data; send_buffer(TEXT, buffer, 14)",
    }
    small_options: ClassVar[Mapping[str, Any]] = {"read_size": 16 * 1024}

    def __init__(
        self, url: str, ca_file: str, *, busy_poll: bool = False, read_size: int = READ_SIZE
    ) -> None:
        super().__init__(url, ca_file)
        self._busy_poll, self._spinning = busy_poll, False
        self._read_size = read_size

    def listener(self) -> WSListener:
        # A plain function, not a method: picows calls it with transport and frame, and
        # no bound method has to be made for each call. It saves picows a third of the drain.
        attributes = {"on_ws_frame": staticmethod(self.consumer.callback)}
        return type("Listener", (WSListener,), attributes)()

    async def open(self) -> WSTransport:
        transport, _ = await ws_connect(
            self.listener,
            self.url,
            ssl_context=self.tls_context,
            use_aiofastnet=True,
            read_buffer_init_size=self._read_size,
        )
        return transport

    async def write(self, connection: WSTransport, text: str) -> None:
        connection.send(WSMsgType.TEXT, text.encode())

    def names(self) -> dict[str, Any]:
        return {
            "send": self.connection.send,
            "send_buffer": self.connection.send_reuse_external_bytearray,
            "buffer": bytearray(HEADER_SIZE + 100),
            "TEXT": WSMsgType.TEXT,
        }

    def run(self) -> None:
        if self._busy_poll and not self._spinning:
            self._spin()
        super().run()

    def _spin(self) -> None:
        """The loop never sleeps while there is something to call."""
        self._spinning = True
        self.loop.call_soon(self._spin)

    async def shut(self) -> None:
        self.connection.disconnect(False)
        await self.connection.wait_disconnected()
