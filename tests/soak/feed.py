"""The other side of a soak, in another process: a feed behind a network that fails.

Replays the recording without end, over ws:// and wss://, by a server of another author than the
client (websockets), behind a fault proxy for each. A client first says which message it wants next.
Every message is its number, a space, and what was recorded. What the client sends upstream is
checked: numbered as well, and of bytes that follow from the number.

Prints a line of JSON when it is ready, and another one, with what it counted, when its standard
input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import ssl
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trustme
import websockets
from fault_proxy import FaultProxy, Plan, random_plan
from sequence import order, recorded
from websockets.asyncio.server import ServerConnection, serve

#: Stalls end after at most this many seconds.
STALL_MAX = 0.3

#: Bytes after which a fault hits a connection: in the handshake, soon, and after a while.
SIZES = (3_000, 20_000, 200_000, 1_000_000)

#: Messages after which the server closes in the ordinary way.
MESSAGES_MAX = (200, 2_000, 10_000)


class Feed:
    """The server, and what it has seen."""

    def __init__(self, speed: float, seed: int) -> None:
        self.speed = speed
        self.random = random.Random(seed)
        self.messages = recorded()
        self.counts: Counter[str] = Counter()
        #: What clients sent that they should not have.
        self.errors: list[str] = []

    async def handle(self, connection: ServerConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            word, number = str(await connection.recv()).split()
            if word != "resume":
                self.errors.append(f"{word!r} in place of a request to resume")
                return
            hearing = asyncio.create_task(self.hear(connection))
            try:
                await self.play(connection, int(number))
            finally:
                hearing.cancel()

    async def play(self, connection: ServerConnection, first: int) -> None:
        """Sends at the times of the recording, only faster; what is late is sent at once."""
        loop = asyncio.get_running_loop()
        began, began_ns = loop.time(), self.messages.time_ns(first)
        count = self.random.choice(MESSAGES_MAX)
        for number in range(first, first + count):
            due = began + (self.messages.time_ns(number) - began_ns) / 1e9 / self.speed
            wait = due - loop.time()
            if wait > 0.001:
                await asyncio.sleep(wait)
            await connection.send(self.messages.text(number))
            self.counts["messages sent"] += 1
        self.counts["ordinary ends"] += 1
        await connection.close(1001, "enough")

    async def hear(self, connection: ServerConnection) -> None:
        number = 0
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in connection:
                if message != order(number):
                    self.errors.append(f"{message[:40]!r} in place of order {number}")
                number += 1
                self.counts["orders heard"] += 1


def plans(seed: int) -> Any:
    """The plan of connection 0, 1, 2 …"""

    def plan(connection: int) -> Plan:
        rng = random.Random(f"{seed} {connection}")
        size = rng.choice(SIZES)
        return random_plan(rng, (size, 1_000 + size // 20), stalls_from=(0, 0))

    return plan


@contextlib.contextmanager
def certificate() -> Iterator[tuple[ssl.SSLContext, Path]]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "ca.pem")
        authority.cert_pem.write_to_path(file)
        yield context, file


async def end_of_input() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def go_on(proxies: list[FaultProxy]) -> None:
    while True:
        await asyncio.sleep(STALL_MAX)
        for proxy in proxies:
            proxy.go_on()


async def run(speed: float, seed: int) -> None:
    feed = Feed(speed, seed)
    options: dict[str, Any] = {"compression": "deflate", "ping_interval": 1, "close_timeout": 0.5}
    with certificate() as (context, ca_file):
        async with (
            serve(feed.handle, "127.0.0.1", 0, **options) as plain,
            serve(feed.handle, "127.0.0.1", 0, ssl=context, **options) as secure,
        ):
            ports = [next(iter(server.sockets)).getsockname()[1] for server in (plain, secure)]
            with FaultProxy(ports[0], plans(seed)) as ws, FaultProxy(ports[1], plans(-seed)) as wss:
                line = {"ws": ws.port, "wss": wss.port, "ca_file": str(ca_file)}
                print(json.dumps(line), flush=True)
                going_on = asyncio.create_task(go_on([ws, wss]))
                await end_of_input()
                going_on.cancel()
        faults = {fault.value: count for fault, count in (ws.faults + wss.faults).items()}
        accepted = ws.accepted + wss.accepted
    result = {"faults": faults, "accepted": accepted, "counts": feed.counts, "errors": feed.errors}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--speed", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    logging.disable(logging.ERROR)  # Lost connections are expected here.
    arguments = parser.parse_args()
    asyncio.run(run(arguments.speed, arguments.seed))
