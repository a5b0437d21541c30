"""The adapter of hftws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import hftws
from bench.clients.base import Client
from bench.consumers import Form


class Stopped(Exception):
    """Raised by the callback: the way out of ``run()`` that leaves the connection open."""


class Adapter(Client):
    form = Form.MESSAGE
    imports = "import hftws"
    sends: ClassVar[Mapping[str, str]] = {
        "text": "send(text)",
        "data": "send(data)",
        "buffer": "with reserve(100, text=True) as buffer: buffer[:] = data",
    }
    small_options: ClassVar[Mapping[str, Any]] = {
        "ring_size": 1 << 20,
        "send_ring_size": 1 << 18,
        "max_message_size": 1 << 19,
    }
    compressed_options: ClassVar[Mapping[str, Any]] = {"compression": "deflate"}

    def __init__(self, url: str, ca_file: str, **options: Any) -> None:
        super().__init__(url, ca_file)
        self._options = options
        self._loop: hftws.Loop | None = None

    def connect(self) -> None:
        self._client = hftws.Client(
            self.url, self.consumer.callback, ca_file=self.ca_file, **self._options
        )
        self._client.connect()

    def send(self, text: str) -> None:
        self._client.send(text)

    def run_until(self, done: Callable[[], bool]) -> None:
        poll = self._client.poll
        while not done():
            poll()

    def run(self) -> None:
        try:
            self._client.run()
        except Stopped:
            return
        raise ConnectionError("the connection has ended")

    def stop(self) -> None:
        raise Stopped

    def run_group(self, group: Sequence[Client]) -> None:
        if self._loop is None:
            loop = hftws.Loop()
            for client in group:
                assert isinstance(client, Adapter)
                loop.add(client._client)
                client._loop = loop
        assert self._loop is not None
        try:
            self._loop.run()
        except Stopped:
            return
        raise ConnectionError("all connections have ended")

    def names(self) -> dict[str, Any]:
        return {"send": self._client.send, "reserve": self._client.reserve}

    def stages(self) -> dict[str, Any]:
        return self._client.stats()["latency"] or {}

    def close(self) -> None:
        if self._loop is not None:
            self._loop.remove(self._client)
        self._client.close()

    def info(self) -> dict[str, Any]:
        wanted = ("engine", "aead", "tls_version", "cipher", "tls_library", "compression")
        info = self._client.info()
        return {key: info[key] for key in wanted if key in info}
