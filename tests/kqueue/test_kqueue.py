"""Tests what only the build of `make test-kqueue` does, and that it is that build.

Its notifier, memory, clock and tuning are macOS's, over stand-ins for that kernel
(src/testing/darwin_on_linux.zig). The client's own tests run on it, too.
"""

from __future__ import annotations

import ctypes
import os
import select
import threading
from pathlib import Path

import pytest
from frames import SOON, Inbox, Serve, connected
from servers import Peer

import hftws
from hftws import _core

pytestmark = pytest.mark.skipif(
    "HFTWS_TEST_KQUEUE" not in os.environ, reason="make test-kqueue makes the build for it"
)


def kevent_calls() -> int:
    """How often kevent(2), or what stands in for it, was called in this process."""
    return ctypes.c_uint64.in_dll(ctypes.CDLL(_core.__file__), "kqueue_shim_calls").value


def test_a_client_sleeps_in_kevent(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        connecting = kevent_calls()
        assert connecting > 0
        client.poll(0.001)
        assert kevent_calls() > connecting
        timer = threading.Timer(0.01, peer.send_text, ["hello"])
        timer.start()
        assert client.poll(SOON) == 1
        timer.join()
    assert inbox.payloads == [b"hello"]


def test_the_kqueue_is_what_other_loops_watch(serve_both: Serve) -> None:
    with connected(serve_both, Inbox()) as (client, peer):
        client.poll(0)
        poll = select.poll()
        poll.register(client.fileno(), select.POLLIN)
        assert poll.poll(0) == []
        before = kevent_calls()
        peer.send_text("hello")
        assert len(poll.poll(1000 * SOON)) == 1
        assert kevent_calls() == before
        assert client.poll(0) == 1


def test_many_clients_share_no_kqueue(serve_both: Serve) -> None:
    """Each in its own thread, so that they wait at the same time."""
    count = 8
    payloads: dict[int, list[bytes]] = {}

    def run(number: int) -> None:
        inbox = Inbox()
        with connected(serve_both, inbox) as (client, peer):
            for turn in range(20):
                threading.Timer(0.001, peer.send_text, [f"{number} {turn}"]).start()
                assert client.poll(SOON) == 1
        payloads[number] = inbox.payloads

    threads = [threading.Thread(target=run, args=[number], daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * SOON)
    expected = {n: [f"{n} {turn}".encode() for turn in range(20)] for n in range(count)}
    assert payloads == expected


def test_a_ring_is_mapped_twice_by_mach_vm_remap(serve_both: Serve) -> None:
    """Memory comes from the stand-in, whose name the pages have, and not from Linux's memfd."""
    with connected(serve_both, ring_size=768 * 1024) as (client, _):
        size = client.info()["receive_ring"]["size"]
        places = set()
        for line in Path("/proc/self/maps").read_text().splitlines():
            assert "memfd:hftws" not in line
            span, access, _, _, inode, *name = line.split()
            start, end = (int(part, 16) for part in span.split("-"))
            if end - start == size and name[:1] == ["/memfd:mach_vm_remap"]:
                assert access == "rw-s"
                places.add((start, inode))
    assert len(places) == 2
    assert len({(start + size, inode) for start, inode in places} & places) == 1


def test_tuning_is_what_macos_has() -> None:
    """The stand-in plays Apple silicon, which has no affinity."""
    hftws.set_realtime_priority(1)
    hftws.set_realtime_priority(99)
    with pytest.raises(NotImplementedError):
        hftws.pin_thread(0)
    with pytest.raises(ValueError, match="CPU"):
        hftws.pin_thread(100_000)
    with pytest.raises(NotImplementedError):
        hftws.lock_memory()


def test_there_is_no_kernel_tls(serve: Serve) -> None:
    """The error comes before the client has sent any byte of TLS."""

    def script(peer: Peer) -> None:
        peer.expect_eof()

    with serve(script, tls=False) as server:
        client = server.client(url=server.url(scheme="wss"), tls="ktls", verify=False)
        with pytest.raises(hftws.TLSError, match="kernel TLS: there is none"):
            client.connect()
        assert not client.is_open
