"""That a short soak loses nothing, and that a soak would notice if it did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).with_name("soak")))

from sequence import Checker, WrongMessageError, order, recorded
from servers import PATIENCE

SOAK = Path(__file__).with_name("soak")


def test_a_few_seconds() -> None:
    """Every way to connect gets messages through faults; nothing is lost, leaked or left behind.

    `make soak` does the same for as long as you like.
    """
    command = [sys.executable, str(SOAK), "--seconds", "6"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=55 * PATIENCE)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "nothing lost" in finished.stdout
    assert "RSS:" in finished.stdout or not Path("/proc").is_dir()
    faults = next(line for line in finished.stdout.splitlines() if line.startswith("faults:"))
    assert all(fault in faults for fault in ("cut", "half-close", "reset", "stall"))


def test_the_checker_takes_the_recording() -> None:
    messages = recorded()
    checker = Checker(messages)
    for number in range(2 * len(messages.payloads)):
        checker.check(messages.text(number).encode())
    assert checker.next == 2 * len(messages.payloads)


@pytest.mark.parametrize(
    "number", [0, 2, 9], ids=["a repeated message", "a lost message", "many lost messages"]
)
def test_the_checker_notices(number: int) -> None:
    messages = recorded()
    checker = Checker(messages)
    checker.check(messages.text(0).encode())
    with pytest.raises(WrongMessageError, match="in place of 1"):
        checker.check(messages.text(number).encode())


def test_the_checker_notices_a_changed_byte() -> None:
    messages = recorded()
    checker = Checker(messages)
    data = bytearray(messages.text(0).encode())
    data[-1] ^= 1
    with pytest.raises(WrongMessageError, match="changed"):
        checker.check(bytes(data))


def test_orders_differ_by_number() -> None:
    assert len({order(number) for number in range(1000)}) == 1000
