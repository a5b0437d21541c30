"""A client belongs to the process that made it.

A forked child has a copy of the client, but the socket, the kernel's list of what is watched, and
the rings are the parent's as well. So the child can drop the client, and nothing else.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from frames import SMALL, SOON, Inbox, poll_until, receive, text
from servers import BINARY, TEXT, Peer, Serve

import hftws

pytestmark = [
    # The server is a thread; Python 3.12 and later warn about a fork in a process with threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]

BELONGS = "this client belongs to another process: it was made before fork"


def in_child(function: Callable[[], object]) -> None:
    """Runs the function in a forked child. What it raises there fails the test here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(int(SOON) + 1)  # The parent's limit does not apply to a child.
            function()
            status = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[:4096])
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        report = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, report


@contextlib.contextmanager
def connected(serve: Serve, on_msg: Any = None) -> Iterator[tuple[list[hftws.Client], Peer]]:
    """A connected client, in a list that has the only reference, and its peer."""
    peers: queue.SimpleQueue[Peer] = queue.SimpleQueue()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peers.put(peer)
        peer.server.stopping.wait()

    with serve(script) as server:
        clients = [server.client(on_msg, **SMALL)]
        clients[0].connect()
        peer = peers.get(timeout=SOON)
        try:
            yield clients, peer
        finally:
            peer.close()
            clients.pop().close()


def expect_to_work(client: hftws.Client, inbox: Inbox, peer: Peer) -> None:
    """Messages go both ways, as if there had been no fork."""
    count = len(inbox.messages)
    for index in range(3):
        peer.send(text(f"message {index}"))
        assert receive(client, inbox, count + index + 1)[-1] == b"message %d" % index
        client.send(b"%d" % index)
        assert peer.read_frame().payload == b"%d" % index
    assert client.is_open


def drop(clients: list[hftws.Client]) -> None:
    """Drops the last reference to the client."""
    gone = weakref.ref(clients[0])
    gc.collect()  # Some of what other tests have left behind warns.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clients.clear()
        gc.collect()
    assert gone() is None
    assert [str(warning.message) for warning in caught] == []  # The child must not close it.


def test_a_child_that_drops_a_client_leaves_the_parents_as_it_is(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox) as (clients, peer):
        peer.send(text("before"))
        receive(clients[0], inbox, 1)
        clients[0].poll(0.01)  # It has waited in the kernel: the socket is watched.
        for _ in range(2):
            in_child(lambda: drop(clients))
            expect_to_work(clients[0], inbox, peer)


USES: list[tuple[str, Callable[[hftws.Client], object]]] = [
    ("connect", lambda client: client.connect()),
    ("run", lambda client: client.run()),
    ("poll", lambda client: client.poll()),
    ("close", lambda client: client.close()),
    ("send", lambda client: client.send("x")),
    ("ping", lambda client: client.ping()),
    ("reserve", lambda client: client.reserve(1, text=True)),
    ("info", lambda client: client.info()),
    ("wants_write", lambda client: client.wants_write),
    ("exit", lambda client: client.__exit__(None, None, None)),
]


def test_a_child_cannot_use_its_parents_client(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox) as (clients, peer):
        peer.send(text("before"))
        receive(clients[0], inbox, 1)
        clients[0].poll(0.01)
        peer.send(text("for the parent"))

        def child() -> None:
            for name, use in USES:
                with pytest.raises(RuntimeError) as caught:
                    use(clients[0])
                assert str(caught.value).startswith(BELONGS), name
                del caught  # Its frames have the client.
            assert not clients[0].is_open
            assert "not open" in repr(clients[0])
            drop(clients)

        in_child(child)
        assert receive(clients[0], inbox, 2)[-1] == b"for the parent"
        expect_to_work(clients[0], inbox, peer)


def test_a_child_makes_clients_of_its_own(serve: Serve) -> None:
    """And has children that cannot use those."""

    def grandchild(client: hftws.Client) -> None:
        with pytest.raises(RuntimeError, match=BELONGS):
            client.close()

    def child() -> None:
        inbox = Inbox()
        with connected(serve, inbox) as (clients, peer):
            expect_to_work(clients[0], inbox, peer)
            in_child(lambda: grandchild(clients[0]))
            expect_to_work(clients[0], inbox, peer)

    in_child(child)


def test_a_client_that_was_never_connected(serve: Serve) -> None:
    clients = [hftws.Client("ws://127.0.0.1:1/")]

    def child() -> None:
        with pytest.raises(RuntimeError, match=BELONGS):
            clients[0].connect()
        drop(clients)

    in_child(child)
    clients[0].close()


@pytest.mark.parametrize("raises", [False, True])
def test_a_fork_in_a_callback_leaves_the_rest_to_the_parent(
    serve_both: Serve, raises: bool
) -> None:
    received: list[bytes] = []
    forks: list[int] = []

    def on_msg(msg: hftws.Message) -> None:
        received.append(bytes(msg))
        if len(received) > 1:
            return
        forks.append(os.fork())
        if forks == [0] and raises:
            raise ZeroDivisionError

    with connected(serve_both, on_msg) as (clients, peer):
        peer.send(text("first") + text("second"))
        status = 1
        try:
            poll_until(clients[0], lambda: len(received) == 2)
        except ZeroDivisionError:
            status = 0 if raises else 2
        except RuntimeError as error:
            status = 0 if str(error).startswith(BELONGS) and not raises else 3
        finally:
            if forks == [0]:
                if received != [b"first"]:
                    status = 4
                os._exit(status)
        _, child_status = os.waitpid(forks[0], 0)
        assert os.waitstatus_to_exitcode(child_status) == 0
        assert received == [b"first", b"second"]
        peer.send(text("third"))
        poll_until(clients[0], lambda: len(received) == 3)


def test_a_fork_in_a_signal_handler_while_connecting(serve: Serve) -> None:
    """After an exception, what is half done is aborted, but not in the child."""
    forks: list[int] = []

    def fork(signum: int, frame: object) -> None:
        forks.append(os.fork())
        if forks == [0]:
            raise ZeroDivisionError
        handled.set()

    def script(peer: Peer) -> None:
        peer.read_request()
        os.kill(os.getpid(), signal.SIGUSR1)
        handled.wait(SOON)
        os.waitpid(forks[0], 0)  # Now the child has dropped its copy.
        peer.send(peer.upgrade_response())
        peer.close_handshake()

    handled = threading.Event()
    before = signal.signal(signal.SIGUSR1, fork)
    try:
        with serve(script) as server:
            client = server.client(None, **SMALL)
            try:
                client.connect()
            finally:
                if forks == [0]:
                    os._exit(0)
            client.run()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_reservation_that_is_open_over_a_fork(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox) as (clients, peer):
        with clients[0].reserve(4, text=False) as place:
            place[:2] = b"ab"

            def child() -> None:
                with pytest.raises(RuntimeError, match=BELONGS):
                    clients[0].send("x")

            in_child(child)
            place[2:] = b"cd"
        frame = peer.read_frame()
        assert (frame.opcode, frame.payload) == (BINARY, b"abcd")

        reservation = clients[0].reserve(4, text=True)
        place = reservation.__enter__()

        def leave() -> None:
            with pytest.raises(RuntimeError, match=BELONGS):
                reservation.__exit__(None, None, None)

        in_child(leave)
        place[:] = b"text"
        reservation.__exit__(None, None, None)
        frame = peer.read_frame()
        assert (frame.opcode, frame.payload) == (TEXT, b"text")
        expect_to_work(clients[0], inbox, peer)


def test_a_fork_while_another_thread_is_inside(serve_both: Serve) -> None:
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with connected(serve_both, lambda msg: received.put(bytes(msg))) as (clients, peer):
        thread = threading.Thread(target=clients[0].run, daemon=True)
        thread.start()
        peer.send(text("one"))
        assert received.get(timeout=SOON) == b"one"

        def child() -> None:
            with pytest.raises(RuntimeError, match=BELONGS):
                clients[0].send("x")
            clients.clear()
            gc.collect()

        in_child(child)
        peer.send(text("two"))
        assert received.get(timeout=SOON) == b"two"
        peer.close_handshake()
        thread.join(SOON)
        assert not thread.is_alive()


def test_kept_messages_go_in_parent_and_child_alike(serve_both: Serve) -> None:
    inbox: list[hftws.Message] = []
    with connected(serve_both, inbox.append) as (clients, peer):
        peer.send(text("kept") + text("as well"))
        poll_until(clients[0], lambda: len(inbox) == 2)
        views = [msg.data[1:] for msg in inbox]

        def child() -> None:
            drop(clients)
            inbox.pop()
            assert bytes(views.pop()) == b"s well"
            gc.collect()
            assert (bytes(inbox[0]), bytes(views[0])) == (b"kept", b"ept")
            views.clear()
            inbox.clear()

        in_child(child)
        assert [bytes(msg) for msg in inbox] == [b"kept", b"as well"]
        peer.send(text("more"))
        poll_until(clients[0], lambda: len(inbox) == 3)
        assert [bytes(view) for view in views] == [b"ept", b"s well"]
        inbox.clear()
