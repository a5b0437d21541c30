"""What a message costs a client that sleeps, in instructions: a figure free of noise."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import ROOT, toolchain, wire
from bench.case import Case, Cell, Figure, Scale, Target
from bench.consumers import Kind

if TYPE_CHECKING:
    from bench.clients.base import Client
    from bench.server import Connection

NAME = "instructions"
TITLE = "Instructions per wake-up"
DESCRIPTION = (
    "300-byte messages, each sent when the client sleeps in the kernel again. Instructions of the "
    "whole process in user mode, counted by callgrind, from one sleep to the next; the callback "
    "counts. A long stretch of messages less a short one, by the difference of messages. "
    "Valgrind does not know AVX-512, so the ciphers count what they take with AVX2."
)

MESSAGE_SIZE = 300

#: Messages before those that are counted: by then Python's bytecode is specialised.
WARM_UP = 60

#: Seconds without a wake-up after which a client counts as asleep, and between two checks.
SETTLE_TIME, LOOK_TIME = 0.02, 0.0002

SOURCE = toolchain.FOLDER / "floors" / "callgrind.c"
SHIM = toolchain.BUILD / "callgrind.so"

#: Which of callgrind's dumps are those of the short and of the long stretch.
STRETCHES = (2, 3)

FIGURES = (Figure("wake_up", "per wake-up", "instructions", plot=True),)


def missing() -> str:
    return "" if shutil.which("valgrind") else "valgrind is not installed"


def cases(scale: Scale) -> Iterator[Case]:
    short, long = scale.traced
    transports = ("plain", "aes128") if scale.name == "full" else ("aes128",)  # Valgrind is slow.
    for transport in transports:
        if transport in scale.transports:
            parameters = {"short": short, "long": long}
            yield Case(NAME, transport, "", parameters, once=True)


def payloads(messages: int) -> list[bytes]:
    return wire.market_messages(messages, MESSAGE_SIZE)


def expected(parameters: Mapping[str, int]) -> wire.Checksum:
    return wire.Checksum.of(payloads(parameters["short"]))


def serve(connection: Connection, parameters: Mapping[str, int]) -> None:
    """The client says how many messages, and which process has to sleep before each; 0 for none."""
    while (text := connection.receive()) is not None:
        messages, process = map(int, text.split())
        sealed = connection.seal([wire.text_frame(payload) for payload in payloads(messages)])
        if not process:
            connection.socket.sendall(b"".join(sealed))
            continue
        sleeper = Sleeper(process)
        sleeper.settle()
        connection.socket.sendall(sealed[0])
        for record in sealed[1:]:
            sleeper.wait()
            connection.socket.sendall(record)


class Sleeper:
    """Tells whether another process sleeps: its main thread has given up the CPU voluntarily."""

    def __init__(self, process: int) -> None:
        self._status = Path(f"/proc/{process}/status")
        self._sleeps = 0

    def wait(self) -> None:
        """Waits until it sleeps again, after the sleep that was seen last."""
        while True:
            asleep, sleeps = self._look()
            if asleep and sleeps > self._sleeps:
                self._sleeps = sleeps
                return
            time.sleep(LOOK_TIME)

    def settle(self) -> None:
        """Waits until it sleeps for longer than it needs to reach the place where it waits."""
        asleep, seen = False, -1
        while not asleep or seen != self._sleeps:
            self._sleeps = seen
            time.sleep(SETTLE_TIME)
            asleep, seen = self._look()

    def _look(self) -> tuple[bool, int]:
        try:
            text = self._status.read_text()
        except (FileNotFoundError, ProcessLookupError):
            raise ConnectionError("the client has ended") from None
        state = re.search(r"^State:\s+(\w)", text, re.MULTILINE)
        sleeps = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.MULTILINE)
        assert state is not None
        assert sleeps is not None
        return state[1] == "S", int(sleeps[1])


def measure(open_client: Callable[..., Client], case: Case, scale: Scale) -> dict[str, Any]:
    if "traced" in case.parameters:
        return measure_traced(open_client, case)
    client = open_client(Kind.CHECK)
    messages = case.parameters["short"]
    client.send(f"{messages} 0")
    client.run_until_count(messages)
    client.close()
    return {"checksum": client.consumer.checksum.as_list(), **trace()}


def trace() -> dict[str, Any]:
    """Does this process's task again under callgrind, which counts what each stretch takes."""
    if toolchain.is_stale(SHIM, SOURCE):
        # By default Zig compiles for this CPU, whose instructions valgrind may not know.
        toolchain.compile_c(SOURCE, SHIM, ["-shared", "-fPIC", "-mcpu=baseline"])
    task = json.loads(sys.argv[1])
    task["case"]["parameters"]["traced"] = 1
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
        command += [f"--callgrind-out-file={directory}/counts"]
        command += [sys.executable, "-m", "bench.worker", json.dumps(task)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise RuntimeError(f"valgrind: exit code {done.returncode}: {lines[-1]}")
        counts = [total(Path(directory) / f"counts.{number}") for number in STRETCHES]
        return {"instructions": counts, **json.loads(done.stdout.splitlines()[-1])}


def total(file: Path) -> int:
    """The instructions in a dump of callgrind."""
    found = re.search(r"^totals: (\d+)", file.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def measure_traced(open_client: Callable[..., Client], case: Case) -> dict[str, Any]:
    """Under callgrind: warms up, and makes a dump of the short and of the long stretch."""
    shim = ctypes.CDLL(str(SHIM))
    client = open_client(Kind.WAKE)
    stretch(client, WARM_UP)
    shim.callgrind_start()
    stretch(client, 1)
    shim.callgrind_dump()
    for name in ("short", "long"):
        stretch(client, case.parameters[name])
        shim.callgrind_dump()
    shim.callgrind_stop()
    result = {"info": client.info()}
    client.close()
    return result


def stretch(client: Client, messages: int) -> None:
    client.consumer.expect(messages)
    client.send(f"{messages} {os.getpid()}")
    client.run()


def figures(raw: Mapping[str, Any], case: Case) -> dict[str, float]:
    short, long = raw["instructions"]
    messages = case.parameters["long"] - case.parameters["short"]
    return {"wake_up": (long - short) / messages}


TARGETS = (
    Target(
        "TLS",
        Cell("hftws", NAME, wire.LABELS["aes128"], "wake_up"),
        None,
        3500,
    ),
)
