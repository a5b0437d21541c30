"""The base classes of adapters; that for asyncio leaves only connecting and sending to them."""

from __future__ import annotations

import abc
import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import urlsplit

from bench import consumers, kernel
from bench.consumers import Consumer, Form, Kind

#: Seconds for an event loop to write what it was given: some take more than one turn.
FLUSH_TIME = 0.0005


class Client(abc.ABC):
    """A client of one library. Its messages go to ``consumer.callback``.

    It must not read while none of its methods runs, so that messages wait in the kernel.
    """

    form = Form.PAYLOAD
    consumer: Consumer
    #: Whether it offers permessage-deflate.
    compressed = False

    #: What a program imports to use the library.
    imports: ClassVar[str]
    #: How a program sends an order that it has as `text`, as `data`, or writes into a `buffer` that
    #: goes out without a copy: a line of Python each, over ``names()`` and the order.
    sends: ClassVar[Mapping[str, str]] = {}
    #: Whether that has to be awaited.
    awaited: ClassVar[bool] = False
    #: Arguments of the adapter for one of many connections.
    small_options: ClassVar[Mapping[str, Any]] = {}
    #: Arguments of the adapter to offer permessage-deflate, with any window of the server's.
    compressed_options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, url: str, ca_file: str) -> None:
        self.url = url
        self.ca_file = ca_file

    @property
    def port(self) -> int:
        """The server's."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def make_consumer(self, kind: Kind, total: int) -> Consumer:
        return consumers.make(kind, self.form, total, self.stop)

    @abc.abstractmethod
    def connect(self) -> None:
        """Connects, with the server verified against ``ca_file``."""

    @abc.abstractmethod
    def send(self, text: str) -> None:
        """Sends a text message; when this returns, it has left the process."""

    @abc.abstractmethod
    def run_until(self, done: Callable[[], bool]) -> None:
        """Receives until `done`. It is asked as rarely as possible: once a read, not a message."""

    def run_until_count(self, goal: int) -> None:
        """Receives until the consumer has counted this many messages."""
        count = self.consumer.count
        self.run_until(lambda: count() >= goal)

    @abc.abstractmethod
    def run(self) -> None:
        """Receives, sleeping as the library sleeps, until `stop`."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Ends `run`. Called from the callback."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the connection, in any way."""

    def info(self) -> dict[str, Any]:
        """What the library says about itself, for the results."""
        return {}

    def stages(self) -> dict[str, Any]:
        """What the library knows about where the time went."""
        return {}

    def names(self) -> dict[str, Any]:
        """What the lines of ``sends`` refer to."""
        return {}

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls what sends, where the library wants to be called; a coroutine of asyncio's."""
        return function(*arguments)

    def join(self, first: Client) -> None:  # noqa: B027
        """Before `connect`: this one will be driven together with `first`."""

    def run_group(self, group: Sequence[Client]) -> None:
        """`run` for this one and those that have joined it."""
        raise NotImplementedError


Opened = TypeVar("Opened")


class AsyncioClient(Client, Generic[Opened]):
    """A client of an asyncio library, on uvloop. The loop stands still between two calls."""

    def __init__(self, url: str, ca_file: str) -> None:
        import uvloop

        super().__init__(url, ca_file)
        self.loop = uvloop.new_event_loop()
        self._receiving: asyncio.Task[None] | None = None

    def join(self, first: Client) -> None:
        assert isinstance(first, AsyncioClient)
        self.loop = first.loop

    def run_group(self, group: Sequence[Client]) -> None:
        self.run()  # They share the loop.

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.loop.run_until_complete(function(*arguments))

    @property
    def tls_context(self) -> ssl.SSLContext | None:
        if not self.url.startswith("wss:"):
            return None
        return ssl.create_default_context(cafile=self.ca_file)

    @abc.abstractmethod
    async def open(self) -> Opened:
        """Connects. A library that calls back gets ``consumer.callback`` here."""

    @abc.abstractmethod
    async def write(self, connection: Opened, text: str) -> None:
        """Sends a text message."""

    async def receive(self, connection: Opened) -> None:
        """For a library that does not call back: receives without end, and calls the callback."""

    def connect(self) -> None:
        self.connection = self.loop.run_until_complete(self.open())
        if type(self).receive is not AsyncioClient.receive:
            self._receiving = self.loop.create_task(self.receive(self.connection))
            self._receiving.add_done_callback(self._on_end)
        # The task has to reach the place where it waits.
        self.loop.run_until_complete(asyncio.sleep(0))

    def send(self, text: str) -> None:
        async def send() -> None:
            await self.write(self.connection, text)
            await asyncio.sleep(FLUSH_TIME)

        self.loop.run_until_complete(send())

    def run_until(self, done: Callable[[], bool]) -> None:
        loop = self.loop

        def check() -> None:
            if done():
                loop.stop()
            else:
                loop.call_soon(check)

        loop.call_soon(check)
        self.run()

    def run(self) -> None:
        self.loop.run_forever()
        if self._receiving is not None and self._receiving.done():
            self._receiving.result()
            raise ConnectionError("the connection has ended")

    def stop(self) -> None:
        self.loop.stop()

    def close(self) -> None:
        if self._receiving is not None:
            self._receiving.remove_done_callback(self._on_end)
            self._receiving.cancel()
        sockets = len(kernel.descriptors(self.port))
        self.loop.run_until_complete(self.shut())
        # Some libraries close the socket later, and we look for the next one by its port.
        while len(kernel.descriptors(self.port)) >= sockets > 0:
            self.loop.run_until_complete(asyncio.sleep(0.001))

    @abc.abstractmethod
    async def shut(self) -> None:
        """Ends the connection."""

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self.loop.stop()
