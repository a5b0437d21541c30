"""An order and its echo, one after the other: the round trip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bench import orders, stamping, wire
from bench.case import Case, Scale
from bench.consumers import Kind

if TYPE_CHECKING:
    from bench.clients.base import Client
    from bench.server import Connection

NAME = "echo"
TITLE = "Echo: an order and its answer"
DESCRIPTION = (
    "A 100-byte order is sent as text, the server sends it back, and the callback that gets it "
    "sends the next. Time from before the order is sent to the callback. The server is Python, "
    "and its part is the same for everyone."
)

FIGURES = stamping.FIGURES

TARGETS = ()


def cases(scale: Scale) -> Iterator[Case]:
    for transport in scale.transports:
        if transport != "aes256":
            yield Case(NAME, transport, "", {"orders": scale.singles})


def expected(parameters: Mapping[str, int]) -> wire.Checksum:
    return wire.Checksum.of([orders.ORDER] * parameters["orders"])


def serve(connection: Connection, parameters: Mapping[str, int]) -> None:
    while (text := connection.receive()) is not None:
        connection.send(text.encode())


def measure(open_client: Callable[..., Client], case: Case, scale: Scale) -> dict[str, Any]:
    goal = case.parameters["orders"]
    client = open_client(Kind.CHECK)
    for number in range(1, 1 + goal):
        client.send(orders.ORDER.decode())
        client.run_until_count(number)
    client.close()
    result: dict[str, Any] = {"checksum": client.consumer.checksum.as_list()}

    client = open_client(Kind.ECHO, goal + orders.WARM_UP)
    consumer = client.consumer
    consumer.order = orders.as_function(client)
    orders.start(client)
    client.run()
    result["stamps"] = consumer.stamps[2 * orders.WARM_UP :]
    result["info"] = client.info()
    client.close()
    return result


def figures(raw: Mapping[str, Any], case: Case) -> dict[str, float]:
    stamps = raw["stamps"]
    times = [echoed - sent for sent, echoed in zip(stamps[0::2], stamps[1::2], strict=True)]
    return {name: value / 1000 for name, value in stamping.percentiles(times).items()}
