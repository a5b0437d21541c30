"""What a connection holds, and what an import takes."""

from __future__ import annotations

import gc
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import wire
from bench.case import Case, Figure, Scale
from bench.consumers import Kind

if TYPE_CHECKING:
    from bench.clients.base import Client
    from bench.server import Connection

NAME = "memory"
TITLE = "Memory and import"
DESCRIPTION = (
    "Memory of the process (proportional set size) for each further connection that has received "
    "100 messages of 300 bytes: with the options of the other benchmarks, and with small buffers "
    "(hftws: rings of 1 MiB and 256 KiB instead of 8 MiB each, all of which is there from the "
    "start; picows: 16 KiB to read into instead of 256). Import: a Python that starts, imports "
    "what a program needs to use the library (for the others asyncio, ssl and uvloop, too), and "
    "ends, less one that imports nothing."
)

MESSAGES, MESSAGE_SIZE = 100, 300

SIZES = Path("/proc/self/smaps_rollup")

#: What is given back to the system is what counts here.
STEADY_HEAP = False

FIGURES = (
    Figure("connection", "a connection", "KiB", plot=True),
    Figure("small_connection", "a small connection", "KiB"),
    Figure("import_time", "import", "ms", plot=True),
    Figure("import_memory", "memory of the import", "KiB"),
)

TARGETS = ()


def cases(scale: Scale) -> Iterator[Case]:
    parameters = {"connections": scale.connections_held}
    yield Case(NAME, "aes128", "", parameters, once=True)


def payloads() -> list[bytes]:
    return wire.market_messages(MESSAGES, MESSAGE_SIZE)


def expected(parameters: Mapping[str, int]) -> wire.Checksum:
    return wire.Checksum.of(payloads())


def serve(connection: Connection, parameters: Mapping[str, int]) -> None:
    frames = [wire.text_frame(payload) for payload in payloads()]
    while connection.receive() is not None:
        connection.socket.sendall(b"".join(connection.seal(frames)))


def measure(open_client: Callable[..., Client], case: Case, scale: Scale) -> dict[str, Any]:
    first = receive(open_client(Kind.CHECK))
    result: dict[str, Any] = {
        "checksum": first.consumer.checksum.as_list(),
        "info": first.info(),
        "connection": held(open_client, case.parameters["connections"], small=False),
        "imports": starts(first.imports, scale.starts),
        "nothing": starts("pass", scale.starts),
    }
    if first.small_options:
        small = held(open_client, case.parameters["connections"], small=True)
        result["small_connection"] = small
    first.close()
    return result


def receive(client: Client) -> Client:
    """Uses everything that a connection needs once."""
    client.send("go")
    client.run_until_count(MESSAGES)
    return client


def held(open_client: Callable[..., Client], connections: int, *, small: bool) -> float:
    """Bytes for each connection, if there are this many."""
    gc.collect()
    before = proportional_size(SIZES.read_text())
    clients = [receive(open_client(Kind.CHECK, small=small)) for _ in range(connections)]
    gc.collect()
    size = proportional_size(SIZES.read_text()) - before
    for client in clients:
        client.close()
    return size / connections


def proportional_size(text: str) -> int:
    """Bytes. A page that is mapped twice counts once, unlike in the resident set size."""
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def starts(statement: str, count: int) -> dict[str, list[int]]:
    """How long a Python takes that only runs this, and its memory at the end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    code = f"{statement}\nwith open('/proc/self/smaps_rollup') as file: print(file.read())"
    found: dict[str, list[int]] = {"time_ns": [], "size": []}
    for _ in range(1 + count):
        started = time.perf_counter_ns()
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd="/",
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found["time_ns"].append(time.perf_counter_ns() - started)
        found["size"].append(proportional_size(done.stdout))
    return {name: values[1:] for name, values in found.items()}  # The first one warms up.


def figures(raw: Mapping[str, Any], case: Case) -> dict[str, float]:
    def more(name: str) -> float:
        imports, nothing = (statistics.median(raw[of][name]) for of in ("imports", "nothing"))
        return float(imports - nothing)

    found = {"import_time": more("time_ns") / 1e6, "import_memory": more("size") / 1024}
    for name in ("connection", "small_connection"):
        if name in raw:
            found[name] = raw[name] / 1024
    return found
