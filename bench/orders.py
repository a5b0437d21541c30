"""What the benchmarks of sending share: an order, and the line of Python that sends it.

An adapter says how a program sends with its library (`Client.sends`). That line is put into a loop
or a function here, so that nothing stands between it and the clock.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.clients.base import AsyncioClient

if TYPE_CHECKING:
    from bench.clients.base import Client

ORDER = (
    b'{"id":"1700000000","method":"order.place","symbol":"BTCUSDT","side":"BUY",'
    b'"price":"64123.10","q":10}'
)
assert len(ORDER) == 100

#: Orders that go before those that count.
WARM_UP = 10

LOOP = """
{define} loop(count, text, data):
    started = now()
    for _ in repeat(None, count):
        {line}
    return now() - started
"""


def as_loop(client: Client, what: str) -> Callable[[int], int]:
    """Sends this many orders, and returns the ns until the last call has returned."""
    coroutine = isinstance(client, AsyncioClient)
    source = LOOP.format(
        define="async def" if coroutine else "def",
        line=("await " if client.awaited else "") + client.sends[what],
    )
    loop = _evaluate(source, client)["loop"]
    return lambda count: client.call(loop, count, ORDER.decode(), ORDER)


def as_function(client: Client) -> Callable[[], Any]:
    """Sends one order as text; returns what has to be awaited, if anything."""
    source = f"def order():\n    return {client.sends['text']}"
    order: Callable[[], Any] = _evaluate(source, client, text=ORDER.decode())["order"]
    return order


def start(client: Client) -> None:
    """The first order of an echo."""
    consumer = client.consumer

    async def first() -> None:
        consumer.stamps.append(time.monotonic_ns())
        to_await = consumer.order()
        if to_await is not None:
            await to_await

    if isinstance(client, AsyncioClient):
        client.call(first)
    else:
        consumer.stamps.append(time.monotonic_ns())
        consumer.order()


def _evaluate(source: str, client: Client, **more: Any) -> dict[str, Any]:
    names = {
        **client.names(),
        "now": time.perf_counter_ns,
        "repeat": itertools.repeat,
        **more,
    }
    exec(compile(source, f"<{client.imports}>", "exec"), names)
    return names
