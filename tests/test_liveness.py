"""A peer that does not read is waited for; one that is gone is noticed. On Linux's own TCP.

A peer dies here by a filter on its socket that drops every segment (SO_ATTACH_FILTER): its kernel
answers nothing more, not even probes, as when its machine has lost power. Where the kernel allows
network namespaces, it also dies on a network of two machines, in another process (`dead_peer.py`).
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from frames import KIB, SOON, Serve, connected
from servers import PATIENCE, Peer

import hftws

#: Shorter ones are refused; longer where the machine is slow, but the tests have to wait for it.
PEER_TIMEOUT = min(1.0 * PATIENCE, 3.0)

SO_ATTACH_FILTER = 26

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="a filter of Linux drops segments")


def die(peer: Peer) -> None:
    """From now on the peer's kernel drops every segment of this connection without an answer."""
    program = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0), 8)  # return 0
    peer.sock.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(program))
    )


def fill(client: hftws.Client, peer: Peer) -> int:
    """Sends until the peer's kernel and ours are full. Gives how many payload bytes that were."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
    sent = 0
    while not client.wants_write:
        client.send(bytes(16 * KIB))
        sent += 16 * KIB
    return sent


def poll_for(client: hftws.Client, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        client.poll(0.05)


def expect_death(client: hftws.Client) -> None:
    with pytest.raises(hftws.ConnectionClosed, match="timed out"):
        poll_for(client, SOON)


@on_linux
@pytest.mark.parametrize("own_loop", [False, True], ids=["poll", "own-loop"])
def test_a_peer_that_answers_probes_is_not_taken_for_dead(serve: Serve, own_loop: bool) -> None:
    """It has no room, and says so: RFC 1122, 4.2.2.17. When it dies after that, it is noticed."""
    with connected(serve, peer_timeout=PEER_TIMEOUT, send_buffer_size=16 * KIB) as (client, peer):
        sent = fill(client, peer)
        if own_loop:
            until = time.monotonic() + 2.5 * PEER_TIMEOUT
            while time.monotonic() < until:
                client.poll(0)
                time.sleep(0.02)
        else:
            poll_for(client, 2.5 * PEER_TIMEOUT)
        assert client.is_open
        die(peer)
        expect_death(client)
    assert sent > 0


@on_linux
def test_a_slow_reader_gets_all_and_is_still_noticed_when_it_dies(serve: Serve) -> None:
    """It never has room for a whole segment, so that the kernel's count does not begin again."""
    with connected(serve, peer_timeout=PEER_TIMEOUT, send_buffer_size=16 * KIB) as (client, peer):
        sent = fill(client, peer)
        peer.sock.settimeout(0.0)
        arrived = 0
        until = time.monotonic() + 2.5 * PEER_TIMEOUT
        while arrived < sent or time.monotonic() < until:
            client.poll(0.05)
            try:
                arrived += len(peer.sock.recv(1 * KIB if time.monotonic() < until else 64 * KIB))
            except BlockingIOError:
                continue
            if arrived >= sent:
                client.send(bytes(16 * KIB))
                sent += 16 * KIB
                if time.monotonic() > until:
                    break
        assert client.info()["socket_options"]["peer_timeout_s"] == int(PEER_TIMEOUT)
        die(peer)
        client.send(b"order")
        expect_death(client)


@on_linux
def test_a_peer_that_dies_with_data_under_way_is_noticed(serve: Serve) -> None:
    with connected(serve, peer_timeout=PEER_TIMEOUT) as (client, peer):
        die(peer)
        client.send(b"order")
        expect_death(client)


@on_linux
def test_a_peer_that_dies_in_silence_is_noticed(serve: Serve) -> None:
    with connected(serve, peer_timeout=PEER_TIMEOUT) as (client, peer):
        die(peer)
        expect_death(client)


#: How a machine dies: with its link, so that ours sees no carrier; in its network, where nobody
#: answers for its address; and behind a router, where its packets are lost without a word.
DEATHS = ("pulled cable", "no machine", "silence")


@pytest.fixture(scope="module")
def deaths() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """One process for each, all at the same time."""
    program = Path(__file__).with_name("dead_peer.py")
    processes = {
        death: subprocess.Popen(
            [sys.executable, program, str(PEER_TIMEOUT), death], stdout=subprocess.PIPE, text=True
        )
        for death in DEATHS
    }
    yield processes
    for process in processes.values():
        process.kill()
        process.communicate()


@on_linux
@pytest.mark.long
@pytest.mark.parametrize("death", DEATHS)
def test_across_a_network_only_the_dead_are_given_up(
    deaths: dict[str, subprocess.Popen[str]], death: str
) -> None:
    """A client without room, and an idle one; the peer lives on for two and a half timeouts."""
    output, _ = deaths[death].communicate(timeout=4 * SOON)
    assert deaths[death].returncode == 0
    result = json.loads(output)
    if "skip" in result:
        pytest.skip(result["skip"])
    assert result["before"] == {}, "it was given up, though it lived"
    assert result["after"].keys() == {"waits for room", "idle"}
    for said in result["after"].values():
        assert "timed out" in said or "unreachable" in said


def test_no_limit_means_no_probes_either(serve: Serve) -> None:
    with connected(serve, peer_timeout=None) as (client, _):
        assert client.info()["socket_options"]["peer_timeout_s"] is None


def test_the_limit_is_what_was_asked_for(serve: Serve) -> None:
    with connected(serve, peer_timeout=42.5) as (client, _):
        assert client.info()["socket_options"]["peer_timeout_s"] == 42
    with connected(serve) as (client, _):
        assert client.info()["socket_options"]["peer_timeout_s"] == 30


@pytest.mark.parametrize("seconds", [1, 1.0, 86_400, True])
def test_any_number_of_seconds_within_the_limits_is_taken(seconds: Any) -> None:
    hftws.Client("ws://example.com/", peer_timeout=seconds)


@pytest.mark.parametrize("seconds", [0, 0.999, -1, 86_401, 1e300, float("nan"), float("inf")])
def test_a_limit_out_of_bounds_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"peer_timeout has to lie between 1 and 86400 seconds"):
        hftws.Client("ws://example.com/", peer_timeout=seconds)


@pytest.mark.parametrize("value", ["30", b"30", [30]])
def test_a_limit_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="peer_timeout has to be a number of seconds or None"):
        hftws.Client("ws://example.com/", peer_timeout=value)
