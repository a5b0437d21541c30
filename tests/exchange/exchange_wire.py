"""Clients of the simulated exchange for its tests: one that is complete, one that shows frames."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import socket
import ssl
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
from servers import PATIENCE
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websockets_connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.uri import parse_uri

from hftws.exchange import RunningExchange
from hftws.exchange.order_book import book_histories
from hftws.exchange.recording import Encoding, Recording, TimeUnit
from hftws.exchange.repeats import Repeats

TIMEOUT = 10.0 * PATIENCE

Result = TypeVar("Result")


def trust(exchange: RunningExchange) -> ssl.SSLContext | None:
    """Return TLS settings that trust this exchange and no other."""
    return ssl.create_default_context(cafile=exchange.ca_file) if exchange.ca_file else None


def events(recording: Recording, unit: TimeUnit = TimeUnit.MILLISECOND) -> Iterator[bytes]:
    """Yield the events of all streams from the start of the recording on, lap after lap."""
    repeats = Repeats(recording, book_histories(recording))
    for lap in itertools.count():
        for message in recording.messages:
            yield repeats.event(message, unit, lap)


def frames(recording: Recording, encoding: Encoding) -> Iterator[bytes]:
    """Yield the same as frames."""
    repeats = Repeats(recording, book_histories(recording))
    for lap in itertools.count():
        for message in recording.messages:
            yield repeats.frame(message, encoding, lap)


class Client:
    """The asyncio client of the websockets package, certificates verified, for tests in order.

    Not its threaded client: over TLS, that one reads and writes at the same time, which Python's
    `ssl` does not allow, and now and then its first request is lost.
    """

    def __init__(
        self, exchange: RunningExchange, target: str, *, compression: str | None = None
    ) -> None:
        self._loop = asyncio.new_event_loop()
        try:
            self.connection = self._wait(self._connect(exchange, target, compression))
        except BaseException:
            self._loop.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def recv(self, decode: bool | None = None) -> str | bytes:
        return self._wait(self.connection.recv(decode))

    def receive(self, count: int) -> list[bytes]:
        """Receive this many messages."""

        async def receive() -> list[bytes]:
            return [await self.connection.recv(decode=False) for _ in range(count)]

        return self._wait(receive())

    def receive_json(self) -> Any:
        return json.loads(self.recv())

    def send(self, message: str) -> None:
        self._wait(self.connection.send(message))

    def request(self, method: str, *params: object, id: object = 1) -> Any:
        """Send a control message and return the very next message."""
        self.send(json.dumps({"method": method, "params": params, "id": id}))
        return self.receive_json()

    def closed_by_server(self) -> tuple[int, str]:
        """Read on until the server closes, and return its close code and reason."""

        async def receive_all() -> None:
            while True:
                await self.connection.recv()

        with pytest.raises(ConnectionClosed) as closed:
            self._wait(receive_all())
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code, closed.value.rcvd.reason

    def close(self) -> None:
        if not self._loop.is_closed():
            self._wait(self.connection.close())
            self._loop.close()

    async def _connect(
        self, exchange: RunningExchange, target: str, compression: str | None
    ) -> ClientConnection:
        # A socket of our own keeps proxies out. No limit to the queue: a client that has stopped
        # to read would not see the end of its close.
        return await websockets_connect(
            exchange.url + target,
            sock=open_socket(exchange),
            ssl=trust(exchange),
            compression=compression,
            max_queue=None,
            ping_interval=None,
        )

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._loop.run_until_complete(asyncio.wait_for(work, TIMEOUT))


def get(exchange: RunningExchange, target: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Make a plain HTTP request over the same port."""
    address = urlsplit(exchange.http_url)
    assert address.hostname is not None
    tls = trust(exchange)
    http_connection = (
        http.client.HTTPConnection(address.hostname, address.port, timeout=TIMEOUT)
        if tls is None
        else http.client.HTTPSConnection(
            address.hostname, address.port, timeout=TIMEOUT, context=tls
        )
    )
    try:
        http_connection.request("GET", target)
        response = http_connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        http_connection.close()


def open_socket(exchange: RunningExchange) -> socket.socket:
    """Open a TCP connection without TLS."""
    address = urlsplit(exchange.url)
    return socket.create_connection((address.hostname, address.port), timeout=TIMEOUT)


class FrameClient:
    """Shows every frame, control frames too, and answers pings only when told to."""

    def __init__(self, exchange: RunningExchange, target: str, *, pong: bool = True) -> None:
        self.socket = open_socket(exchange)
        tls = trust(exchange)
        if tls is not None:
            self.socket = tls.wrap_socket(
                self.socket, server_hostname=urlsplit(exchange.url).hostname
            )
        self.protocol = ClientProtocol(parse_uri(exchange.url + target))
        self._pong = pong
        self._events = self._receive()
        self.protocol.send_request(self.protocol.connect())
        self.flush()
        assert isinstance(next(self._events), Response)

    def __enter__(self) -> FrameClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the server ends the connection."""
        for event in self._events:
            assert isinstance(event, Frame)
            yield event

    def flush(self) -> None:
        """Send what the protocol object wants to send."""
        self.socket.sendall(b"".join(self.protocol.data_to_send()))

    def _receive(self) -> Iterator[Frame | Response]:
        while data := self.socket.recv(1 << 16):
            self.protocol.receive_data(data)
            if self._pong:
                self.flush()
            else:
                self.protocol.data_to_send()
            yield from self.protocol.events_received()  # type: ignore[misc]
