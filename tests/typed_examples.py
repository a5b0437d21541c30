"""Programs that only type checkers read: what is accepted, and what has to be refused.

`make types` runs mypy and pyright on them. A line with ``type: ignore`` is one that has to be an
error: both checkers complain about a comment that ignores nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from typing_extensions import assert_type

import hftws
import hftws.types

URL = "wss://example.com/"


# ---- Callbacks. --------------------------------------------------------------------------------


def on_msg(msg: hftws.Message) -> None:
    assert_type(msg.data, memoryview)
    assert_type(msg.t_kernel, int | None)
    assert_type(bytes(msg), bytes)
    assert_type(len(msg), int)


def on_open(client: hftws.Client) -> None:
    client.send("subscribe")


def on_close(client: hftws.Client, code: int, reason: str) -> None:
    print(client.url, code, reason)


def callbacks_are_functions() -> None:
    received: list[bytes] = []
    hftws.Client(URL, on_msg, on_open=on_open, on_close=on_close)
    hftws.Client(URL, on_msg=lambda msg: received.append(bytes(msg)))
    hftws.Client(URL)


async def on_msg_async(msg: hftws.Message) -> None: ...


async def on_open_async(client: hftws.Client) -> None: ...


async def on_close_async(client: hftws.Client, code: int, reason: str) -> None: ...


def on_msg_generator(msg: hftws.Message) -> Iterator[None]:
    yield


def on_msg_without_message() -> None: ...


def nothing_would_run_these() -> None:
    """Nor does the client take them: it raises TypeError."""
    hftws.Client(URL, on_msg_async)  # type: ignore[arg-type]
    hftws.Client(URL, on_msg_generator)  # type: ignore[arg-type]
    hftws.Client(URL, on_msg_without_message)  # type: ignore[arg-type]
    hftws.Client(URL, on_open=on_open_async)  # type: ignore[arg-type]
    hftws.Client(URL, on_close=on_close_async)  # type: ignore[arg-type]


# ---- A subclass. -------------------------------------------------------------------------------


class Feed(hftws.Client):
    """The documented way: its callbacks are methods, and are passed on."""

    def __init__(self, url: str) -> None:
        super().__init__(url, self.on_msg, on_open=self.on_open, on_close=self.on_close)
        self.sizes: list[int] = []

    def on_msg(self, msg: hftws.Message) -> None:
        self.sizes.append(len(msg))

    def on_open(self, client: hftws.Client) -> None:
        assert client is self

    def on_close(self, client: hftws.Client, code: int, reason: str) -> None: ...


class AsyncFeed(hftws.Client):
    def __init__(self, url: str) -> None:
        super().__init__(url, self.on_msg)  # type: ignore[arg-type]

    async def on_msg(self, msg: hftws.Message) -> None: ...


def a_subclass_is_a_client() -> None:
    with Feed(URL) as feed:
        assert_type(feed, Feed)
        feed.run()


# ---- Methods. ----------------------------------------------------------------------------------


def sending(client: hftws.Client) -> None:
    client.send("text")
    client.send(data=b"binary")
    client.send(bytearray(b"text"), text=True)
    client.send(memoryview(b""))
    client.ping(payload="now")
    client.send(5)  # type: ignore[arg-type]
    client.send(b"", True)  # type: ignore[call-arg]
    with client.reserve(n=5, text=False) as place:
        place[:] = b"order"
    client.reserve(5)  # type: ignore[call-arg]
    client.fetch()  # type: ignore[attr-defined]


def receiving(client: hftws.Client) -> None:
    client.connect()
    assert_type(client.poll(), int)
    assert_type(client.poll(timeout=None), int)
    assert_type(client.wait_for_room(1), bool)
    client.close(reason="done")
    assert_type(client.close_code, int | None)


def looking(client: hftws.Client) -> None:
    stats: hftws.types.Stats = client.stats()
    assert_type(stats["messages"], int)
    if stats["latency"] is not None:
        assert_type(stats["latency"]["total"]["p99"], int)
    info = client.info()
    assert_type(info["peer_address"], str | None)
    assert_type(info["url"], str)
    stats["message"]  # type: ignore[typeddict-item]


async def own_loop(client: hftws.Client, loop: asyncio.AbstractEventLoop) -> None:
    loop.add_reader(client.fileno(), client.poll)


# ---- Options and errors. -----------------------------------------------------------------------


def options() -> None:
    hftws.Client(URL, headers={"A": "b"}, compression="deflate", tls="direct", ca_file=b"a.pem")
    hftws.Client(URL, headers=[("A", "b")], compression=hftws.Deflate(level=9), peer_timeout=None)
    hftws.Client(URL, tls="indirect")  # type: ignore[arg-type]
    hftws.Client(URL, connect_timeout=None)  # type: ignore[arg-type]
    hftws.Client(URL, compress=True)  # type: ignore[call-arg]


def errors() -> dict[str, Any]:
    try:
        response = hftws.get("https://example.com/", timeout=1)
        assert_type(response.header("Date"), str | None)
        assert_type(response.body, bytes)
    except hftws.HandshakeError as error:
        assert_type(error.status, int | None)
        assert_type(error.url, str)
    except hftws.ConnectionClosed as error:
        return {"code": error.code}
    return {}
