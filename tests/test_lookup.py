"""The look-up of a name: it counts against ``connect_timeout`` and holds nobody up.

In a process of its own, whose getaddrinfo answers when the test lets it (lookup/held.c), or whose
only name server never does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deadlines import SOON
from servers import PATIENCE, Peer, Serve

import hftws

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="LD_PRELOAD and namespaces are Linux's"
)

FOLDER = Path(__file__).with_name("lookup")

#: Seconds for the compiler, which first compiles parts of itself.
BUILD_TIMEOUT = 300 * PATIENCE

Scenario = Callable[..., Any]


def environment(**more: str) -> dict[str, str]:
    """For a child with the hftws of this process."""
    return {**os.environ, "PYTHONPATH": str(Path(hftws.__file__).parent.parent), **more}


def result_of(command: list[str], variables: dict[str, str]) -> Any:
    """What the child prints."""
    limit = 40 * PATIENCE
    ended = subprocess.run(command, env=variables, capture_output=True, timeout=limit)
    assert ended.returncode == 0, ended.stderr.decode()
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The resolver that waits for the test, compiled."""
    library = tmp_path_factory.mktemp("held") / "held.so"
    options = ["-shared", "-nostdlib", "-fPIC", "-O1", "-o", str(library), str(FOLDER / "held.c")]
    zig = [sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"]
    problem = ""
    for compiler in (zig, [shutil.which("cc") or "cc"]):
        try:
            built = subprocess.run(
                [*compiler, *options], capture_output=True, timeout=BUILD_TIMEOUT
            )
        except (OSError, subprocess.SubprocessError) as error:
            problem = str(error)
            continue
        if built.returncode == 0:
            return library
        problem = built.stderr.decode()[-300:]
    pytest.skip(f"no C compiler: {problem}")


@pytest.fixture
def scenario(held: Path) -> Scenario:
    """Runs a function of lookup/child.py."""

    def run(function: Callable[..., Any] | str, port: int = 9) -> Any:
        command = [sys.executable, str(FOLDER / "child.py"), str(function), str(port)]
        return result_of(command, environment(LD_PRELOAD=str(held)))

    return run


def open_and_wait(peer: Peer) -> None:
    peer.accept_upgrade()
    peer.answer_close()


def test_a_look_up_counts_against_connect_timeout(scenario: Scenario) -> None:
    """It goes on by itself; neither the exception nor the end of the process waits for it."""
    result = scenario("timeout")
    assert result["error"] == "ConnectTimeout"
    assert "timed out looking up the name held.example: connect_timeout of 1 s" in result["message"]
    assert 1.0 <= result["elapsed"] <= 1.0 + SOON * PATIENCE
    assert result["cpu"] <= 0.5 * PATIENCE, "it did not sleep"
    assert result["threads"] == 2


def test_the_look_up_of_get_counts_against_its_timeout(scenario: Scenario) -> None:
    result = scenario("timeout_of_get")
    assert result["error"] == "ConnectTimeout"
    assert "timed out looking up the name held.example: timeout of 0.2 s" in result["message"]
    assert 0.2 <= result["elapsed"] <= 0.2 + SOON * PATIENCE


def test_an_answer_is_used_and_other_threads_run_until_then(
    scenario: Scenario, serve: Serve
) -> None:
    with serve(open_and_wait) as server:
        assert scenario("answered", server.port) is True


def test_control_c_ends_a_look_up_at_once(scenario: Scenario, serve: Serve) -> None:
    """And the client can be connected again while the first look-up is still out."""
    with serve(open_and_wait) as server:
        result = scenario("interrupted", server.port)
    assert result["error"] == "KeyboardInterrupt"
    assert result["elapsed"] <= SOON * PATIENCE
    assert result["opens later"] is True


def test_a_handler_closes_the_client_during_the_look_up(scenario: Scenario) -> None:
    result = scenario("closed_by_a_handler")
    assert result["error"] == "ConnectionClosed"
    assert "closed before it was open" in result["message"]
    assert result["elapsed"] <= SOON * PATIENCE


def test_a_forked_child_frees_its_copy_and_waits_for_nobody(
    scenario: Scenario, serve: Serve
) -> None:
    """The thread that looks the name up is not in the child. The parent connects."""
    with serve(open_and_wait) as server:
        result = scenario("forked", server.port)
    assert result["status"] == 0
    assert result["child"]["message"]["error"] == "RuntimeError"
    assert "another process" in result["child"]["message"]["message"]
    assert result["is_open"] is True


def test_look_ups_that_are_given_up_leave_nothing_once_they_are_answered(
    scenario: Scenario,
) -> None:
    """No descriptor, no thread and no memory, of 200 clients."""
    result = scenario("given_up")
    assert result["descriptors"] == 0
    assert result["allocated_bytes"] < 200 * 500


def test_a_look_up_without_descriptors_is_an_error(scenario: Scenario, serve: Serve) -> None:
    """It says so, and never blocks instead."""
    with serve(open_and_wait) as server:
        result = scenario("no_descriptors", server.port)
    assert result["error"] == "ConnectError"
    text = "too many open files in this process to look up the name: held.example"
    assert text in result["message"]
    assert result["opens later"] is True


def test_a_look_up_without_a_thread_is_an_error(scenario: Scenario, serve: Serve) -> None:
    with serve(open_and_wait) as server:
        result = scenario("no_threads", server.port)
    assert result["error"] == "ConnectError"
    text = "the system has no more threads to look up the name: held.example"
    assert text in result["message"]
    assert result["descriptors"] == 0
    assert result["opens later"] is True


def test_a_silent_name_server_takes_no_longer_than_connect_timeout() -> None:
    """The system's own resolver would ask it for a minute and a half."""
    namespaces = ["unshare", "--user", "--map-root-user", "--mount", "--net"]
    if not shutil.which("unshare") or subprocess.run([*namespaces, "true"]).returncode != 0:
        pytest.skip("this system does not let its users make namespaces")
    command = [*namespaces, sys.executable, str(FOLDER / "silent_server.py"), "1.0"]
    result = result_of(command, environment())
    assert result["error"] == "ConnectTimeout"
    assert "looking up the name feed.example: connect_timeout of 1 s" in result["message"]
    assert 1.0 <= result["elapsed"] <= 1.0 + SOON * PATIENCE
    assert result["asked for"] is True
