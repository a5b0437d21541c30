"""Tuning of the thread and the process; in a separate process where it cannot be undone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from servers import PATIENCE

import hftws

linux_only = pytest.mark.skipif(
    sys.platform != "linux" or "HFTWS_TEST_KQUEUE" in os.environ,
    reason="macOS does it otherwise (tests/kqueue/), and Python cannot ask there what was done",
)


def run(code: str) -> str:
    """What a fresh interpreter prints, with this one's modules."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    result = subprocess.run(
        [sys.executable, "-c", f"import os, hftws\n{code}"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=30 * PATIENCE,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@linux_only
def test_pin_thread_keeps_the_thread_on_one_cpu() -> None:
    cpu = max(os.sched_getaffinity(0))
    assert run(f"hftws.pin_thread({cpu}); print(os.sched_getaffinity(0))") == f"{{{cpu}}}"


@pytest.mark.parametrize("cpu", [-1, 100_000, 2**40])
def test_pin_thread_refuses_a_cpu_that_is_not_there(cpu: int) -> None:
    with pytest.raises(ValueError, match="CPU"):
        hftws.pin_thread(cpu)


@pytest.mark.parametrize("priority", [-1, 0, 100, 1000])
def test_a_realtime_priority_outside_of_its_range_is_refused(priority: int) -> None:
    with pytest.raises(ValueError, match="priority"):
        hftws.set_realtime_priority(priority)


@linux_only
def test_a_realtime_priority_is_set_or_the_missing_privilege_told() -> None:
    code = (
        "try: hftws.set_realtime_priority(1)\n"
        "except PermissionError: print('PermissionError')\n"
        "else:\n"
        "    policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK\n"
        "    print(policy == os.SCHED_FIFO, os.sched_getparam(0).sched_priority)"
    )
    assert run(code) in ("True 1", "PermissionError")


@linux_only
def test_memory_is_locked_or_the_limit_told() -> None:
    code = (
        "try: hftws.lock_memory()\n"
        "except OSError as error: print(type(error).__name__)\n"
        "else:\n"
        "    status = open('/proc/self/status').read()\n"
        "    print(int(status.split('VmLck:')[1].split()[0]) > 0)"
    )
    assert run(code) in ("True", "PermissionError", "OSError")


@pytest.mark.parametrize("function", [hftws.pin_thread, hftws.set_realtime_priority])
def test_what_is_no_number_is_a_type_error(function: object) -> None:
    with pytest.raises(TypeError):
        function("one")  # type: ignore[operator]


def test_huge_pages_are_taken_where_they_are_or_done_without() -> None:
    """The rings work either way, and info() tells which it is."""
    client = hftws.Client("ws://127.0.0.1:1/", huge_pages=True)
    with pytest.raises(hftws.ConnectError):
        client.connect()
    ring = client.info()["receive_ring"]
    assert ring["mirrored"] is True
    assert ring["huge_pages"] in (True, False)
    assert ring["size"] == 8 * 1024 * 1024
