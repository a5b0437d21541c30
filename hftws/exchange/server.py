"""The exchange: accepts connections, answers them, and goes away as Binance does."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import random
import signal
import ssl
import sys
import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from .addresses import UnknownAddressError, parse_address
from .certificates import make_tls
from .connection import CLOSE_TIMEOUT, GOING_AWAY, ExchangeConnection
from .frames import text_frame
from .market import Market
from .options import Options, StartLine
from .order_book import OrderBook
from .recording import Recording
from .replay import Playback, Player
from .rest import Reply, RestApi, json_reply, not_found
from .schedule import FixedRate, RecordedSpeed, Schedule
from .subscriptions import RequestError

_WILDCARDS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}

_GO_AWAY: Final = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger(__name__)


class Exchange:
    """A simulated exchange."""

    def __init__(self, options: Options, recording: Recording) -> None:
        self._options = options
        self._streams = recording.streams
        schedule: Schedule = (
            RecordedSpeed(options.speed) if options.rate is None else FixedRate(options.rate)
        )
        seed = options.seed
        place_ns = 0 if seed is None else random.Random(seed).randrange(recording.lap_ns)
        self._market = Market(recording, schedule, place_ns)
        self._rest = RestApi(self._book)
        self._connections: set[ExchangeConnection] = set()

    async def listen(self, tls: ssl.SSLContext | None) -> Server:
        """Start to listen."""
        server: Server = await serve(
            self._converse,
            self._options.host,
            self._options.port,
            ssl=tls,
            compression=None,
            process_request=self._answer_request,
            server_header=None,
            ping_interval=None,  # the connection sends Binance's own
            close_timeout=CLOSE_TIMEOUT,
            create_connection=cast(
                type[ServerConnection],
                functools.partial(ExchangeConnection, inbound_limit=self._options.inbound_limit),
            ),
        )
        return server

    async def shut_down(self, server: Server) -> None:
        """Announce it to every client, then disconnect them all."""
        server.close(close_connections=False)
        for connection in self._connections:
            unit = connection.subscriptions.encoding.time_unit
            event = {"e": "serverShutdown", "E": unit.from_ns(time.time_ns())}
            text = json.dumps({"event": event}, separators=(",", ":"))
            connection.send_frames([text_frame(text.encode())])
        await asyncio.sleep(self._options.shutdown_notice)
        farewells = [connection.dismiss(GOING_AWAY, "") for connection in self._connections]
        if farewells:
            await asyncio.wait(farewells)

    def _answer_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer plain HTTP; return None for a connection to market streams."""
        assert isinstance(connection, ExchangeConnection)
        reply = self._rest.get(request.path)
        if reply is not None:
            return _response(reply)
        try:
            connection.subscriptions = parse_address(request.path, self._streams)
        except UnknownAddressError:
            return _response(not_found())
        except RequestError as error:
            return _response(json_reply(error.to_json(), HTTPStatus.BAD_REQUEST))
        return None

    async def _converse(self, connection: ServerConnection) -> None:
        """Serve one client until one of the two disconnects."""
        assert isinstance(connection, ExchangeConnection)
        options = self._options
        subscriptions = connection.subscriptions
        playback = Playback(self._market, drop=options.drop)
        player = Player(playback, connection, precise=options.precise)
        player.select(subscriptions.streams, subscriptions.encoding)
        with contextlib.ExitStack() as background:
            _run(background, player.run())
            if options.ping_interval:
                _run(
                    background,
                    connection.keep_alive(options.ping_interval, options.ping_timeout),
                )
            if options.max_connection_age:
                # Binance does not document its close code at 24 hours.
                age = options.max_connection_age
                cut = connection.loop.call_later(age, connection.dismiss, GOING_AWAY, "")
                background.callback(cut.cancel)
            self._connections.add(connection)
            background.callback(self._connections.discard, connection)
            with contextlib.suppress(ConnectionClosed):
                async for message in connection:
                    reply = subscriptions.handle(message)
                    # Nothing runs between these two: no event comes before the reply to its
                    # subscription, and none after the reply to its cancellation.
                    player.select(subscriptions.streams, subscriptions.encoding)
                    await connection.send(reply)

    def _book(self, symbol: str) -> OrderBook | None:
        return self._market.book(symbol, asyncio.get_running_loop().time())


async def run(options: Options, announce: Callable[[StartLine], None]) -> None:
    """Run an exchange until it is told to go away: by a signal, its options or its parent.

    `announce` is called with the start line once connections are accepted.
    """
    recording = Recording.load(options.recording)
    exchange = Exchange(options, recording)
    with contextlib.ExitStack() as stack:
        tls: ssl.SSLContext | None = None
        ca_file: Path | None = None
        if options.tls:
            tls, ca_file = stack.enter_context(make_tls(options))
        server = await exchange.listen(tls)
        told = _told_to_go_away(options)
        port = server.sockets[0].getsockname()[1]
        announce(
            {
                "url": _url(options, port),
                "ca_file": None if ca_file is None else str(ca_file),
                "streams": sorted(recording.streams),
            }
        )
        await told.wait()
        await exchange.shut_down(server)
    # The loop gives the signals back when it closes: one that comes later would kill the process.
    signal.pthread_sigmask(signal.SIG_BLOCK, _GO_AWAY)


def _told_to_go_away(options: Options) -> asyncio.Event:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in _GO_AWAY:
        loop.add_signal_handler(number, told.set)
    if options.shutdown_after:
        loop.call_later(options.shutdown_after, told.set)
    if options.stop_with_stdin:

        def read() -> None:
            if not os.read(sys.stdin.fileno(), 4096):
                loop.remove_reader(sys.stdin)
                told.set()

        loop.add_reader(sys.stdin, read)
    return told


def _url(options: Options, port: int) -> str:
    host = _WILDCARDS.get(options.host, options.host)
    return f"{'wss' if options.tls else 'ws'}://{f'[{host}]' if ':' in host else host}:{port}"


def _response(reply: Reply) -> Response:
    status = reply.status
    return Response(status.value, status.phrase, Headers(reply.headers), reply.encoded_body)


def _run(stack: contextlib.ExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` in the background until the stack is left."""
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(_report)
    stack.callback(task.cancel)


def _report(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, ConnectionClosed):
        logger.error("a connection's background task failed", exc_info=error)
