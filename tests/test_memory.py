"""Nothing leaks: no message, no client, no descriptor, no mapping, no reference."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from footprint import descriptors, mappings, resident_bytes
from frames import SMALL, SOON, Inbox, Serve, binary, connected, poll_until, text
from servers import BINARY, TEXT, Peer, encode_frame

import hftws

pytestmark = [
    pytest.mark.usefixtures("small_pages"),
    pytest.mark.filterwarnings("ignore:unclosed client"),
]


def message_and_close(peer: Peer) -> None:
    """A script: one message, and the end."""
    peer.accept_upgrade(then=text("hello"))
    peer.close_handshake()


# ---- Clients. ----------------------------------------------------------------------------------


def test_close_gives_the_rings_back_though_a_cycle_keeps_the_client(serve_both: Serve) -> None:
    class Strategy:
        def __init__(self, make: Callable[..., hftws.Client]) -> None:
            self.client = make(self.on_msg, **SMALL)
            self.kept: list[hftws.Message] = []

        def on_msg(self, msg: hftws.Message) -> None:
            self.kept.append(msg)

    gc.disable()
    try:
        with serve_both([message_and_close] * 3) as server:
            strategy = Strategy(server.client)
            client = strategy.client
            for count in (1, 2, 3):  # And it can connect again.
                client.connect()
                assert client.info()["receive_ring"] is not None
                client.run()
                assert client.info()["receive_ring"] is not None  # Until it is closed.
                open_mappings = mappings()
                client.close()
                assert client.info()["receive_ring"] is None
                assert client.info()["send_ring"] is None
                assert [bytes(msg.data) for msg in strategy.kept] == [b"hello"] * count
            strategy.kept.clear()
            if open_mappings is not None:
                assert mappings() < open_mappings
    finally:
        gc.enable()


def closure_cycle(client_of: Callable[..., hftws.Client]) -> hftws.Client:
    client = client_of(lambda msg: client.is_open)
    return client


def attribute_cycle(client_of: Callable[..., hftws.Client]) -> hftws.Client:
    class Strategy:
        def __init__(self) -> None:
            self.client = client_of(self.on_msg, on_open=self.on_open, on_close=self.on_close)

        def on_msg(self, msg: hftws.Message) -> None: ...
        def on_open(self, client: hftws.Client) -> None: ...
        def on_close(self, *end: Any) -> None: ...

    return Strategy().client


def own_attribute_cycle(client_of: Callable[..., hftws.Client]) -> hftws.Client:
    client = client_of()
    client.itself = client  # type: ignore[attr-defined]
    return client


@pytest.mark.parametrize("make", [closure_cycle, attribute_cycle, own_attribute_cycle])
@pytest.mark.parametrize("state", ["new", "open", "closed", "reserved"])
def test_cycle_of_client_and_callback_is_collected(
    serve_both: Serve, make: Callable[..., hftws.Client], state: str
) -> None:
    gone = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade(then=text("hello"))
        if state == "closed":
            peer.answer_close()
        peer.recv_all()

    with serve_both(script) as server:
        client = make(server.client)
        if state != "new":
            client.connect()
            assert client.poll(SOON) == 1
        if state == "closed":
            client.close()
        if state == "reserved":
            client.left = client.reserve(10, text=True)  # type: ignore[attr-defined]
            client.left.__enter__()  # type: ignore[attr-defined]
        weakref.finalize(client, gone.append, True)
        del client
        gc.collect()
        assert gone == [True]


def test_client_goes_with_its_last_reference_when_there_is_no_cycle(serve_both: Serve) -> None:
    with serve_both(message_and_close) as server:
        client = server.client(print_nothing)
        client.connect()
        client.run()
        gone = weakref.ref(client)
        gc.disable()
        try:
            del client
            assert gone() is None
        finally:
            gc.enable()


def print_nothing(msg: hftws.Message) -> None:
    """A callback."""


def test_client_that_was_not_closed_warns(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        assert peer.recv_all() == b""

    with serve_both(script) as server:
        client = server.client()
        client.connect()
        with pytest.warns(ResourceWarning, match="unclosed client"):
            del client
            gc.collect()


def test_client_that_was_never_connected_does_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    client = hftws.Client("ws://127.0.0.1:9/")
    del client
    with pytest.raises(ValueError, match="ring_size"):
        hftws.Client("ws://127.0.0.1:9/", ring_size=1)
    gc.collect()
    assert [warning.message for warning in recwarn] == []


def test_many_clients_leave_nothing_behind(serve_both: Serve) -> None:
    """Descriptors, mapped rings and memory are those of before (the server may hold one or two)."""
    with serve_both(message_and_close) as server:

        def live() -> None:
            inbox = Inbox()
            with server.client(inbox, **SMALL) as client:
                client.run()
                client.stats()
                client.info()
            assert inbox.payloads == [b"hello"]

        for _ in range(10):
            live()
        gc.collect()
        before = (descriptors(), mappings(), resident_bytes())
        for _ in range(60):
            live()
        gc.collect()
        after = (descriptors(), mappings(), resident_bytes())
    assert after[0] <= before[0] + 2
    if before[1] is not None and after[1] is not None:
        assert after[1] <= before[1] + 4
    # A client has 512 KiB of rings alone.
    assert after[2] - before[2] < 8 * 1024 * 1024


def test_many_reconnects_leave_nothing_behind(serve_both: Serve) -> None:
    with serve_both(message_and_close) as server:
        client = server.client(print_nothing, **SMALL)

        def live() -> None:
            client.connect()
            client.run()

        for _ in range(10):
            live()
        before = (descriptors(), mappings(), resident_bytes())
        for _ in range(60):
            live()
        after = (descriptors(), mappings(), resident_bytes())
    assert after[0] <= before[0] + 2
    if before[1] is not None and after[1] is not None:
        assert after[1] <= before[1] + 4
    assert after[2] - before[2] < 8 * 1024 * 1024


def test_failed_connects_leave_nothing_behind(serve_both: Serve) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 429 Slow down\r\nContent-Length: 4\r\n\r\nwait")

    with serve_both(refuse) as server:

        def live() -> None:
            with pytest.raises(hftws.HandshakeError):
                server.client(**SMALL).connect()

        for _ in range(10):
            live()
        gc.collect()
        before = (descriptors(), mappings())
        for _ in range(30):
            live()
        gc.collect()
        after = (descriptors(), mappings())
    assert after[0] <= before[0] + 2
    if before[1] is not None and after[1] is not None:
        assert after[1] <= before[1] + 4


def test_kept_views_free_their_ring_when_they_go(serve_both: Serve) -> None:
    """Views that are kept of a connection keep its ring alive."""
    views: list[memoryview] = []
    with serve_both(message_and_close) as server:
        client = server.client(lambda msg: views.append(msg.data), **SMALL)
        client.connect()
        client.run()
        before = mappings()
        for _ in range(10):
            client.connect()
            client.run()
        held = mappings()
        assert [bytes(view) for view in views] == [b"hello"] * 11
        views.clear()
        after = mappings()
    if before is not None and held is not None and after is not None:
        assert held >= before + 10
        assert after <= before + 2


# ---- Messages. ---------------------------------------------------------------------------------


def handle_everything(msg: hftws.Message) -> None:
    """Reads every attribute of a message."""
    facts = (msg.opcode, msg.is_text, msg.is_last, len(msg), bytes(msg), repr(msg), msg.cycles)
    times = (msg.t_kernel, msg.t_received, msg.t_decrypted, msg.t_delivered)
    assert len(facts) + len(times) == 11
    assert str(msg).encode() == memoryview(msg)[:5].tobytes() + bytes(msg.data[5:])


def release_view(msg: hftws.Message) -> None:
    with msg.data as view:
        assert len(view) == 300


class Keeper:
    """Keeps the last ten of something."""

    def __init__(self, what: Callable[[hftws.Message], Any]) -> None:
        self.what = what
        self.kept: list[Any] = []

    def __call__(self, msg: hftws.Message) -> None:
        self.kept.append(self.what(msg))
        del self.kept[:-10]


#: Whether the interpreter has one, and uses it.
GIL_ENABLED = getattr(sys, "_is_gil_enabled", lambda: True)()


def keep_in_a_cycle(msg: hftws.Message) -> list[Any]:
    cycle: list[Any] = [msg, msg.data]
    cycle.append(cycle)
    return cycle


CALLBACKS: dict[str, Callable[[hftws.Message], Any] | None] = {
    "none": None,
    "nothing": lambda msg: None,
    "everything": handle_everything,
    "release": release_view,
    "keep message": Keeper(lambda msg: msg),
    "keep view": Keeper(lambda msg: msg.data),
    "keep slice": Keeper(lambda msg: msg.data[3:]),
    "keep buffer": Keeper(memoryview),
    "keep cycle": keep_in_a_cycle,
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_messages_leave_nothing_behind(serve_both: Serve, name: str) -> None:
    """Over ten thousand of them: no objects, no memory."""
    on_msg = CALLBACKS[name]
    block = binary(b"7" * 300) * 100
    with connected(serve_both, on_msg) as (client, peer):

        def receive(blocks: int) -> None:
            target = client.stats()["messages"]
            for _ in range(blocks):
                target += 100
                peer.send(block)
                poll_until(client, lambda target=target: client.stats()["messages"] == target)
                if name == "keep cycle" and not GIL_ENABLED:
                    gc.collect()  # It would come if more were kept than the ring can hold.

        receive(5)
        gc.collect()
        objects = sys.getallocatedblocks()
        receive(100)
        gc.collect()
        assert sys.getallocatedblocks() - objects < 160


def test_hundred_thousand_messages_in_constant_memory(serve_both: Serve) -> None:
    """In small rings: under an emulator, the pages of a large one count from their first use."""
    count = 100_000

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        block = binary(b"7" * 300) * 1000
        for _ in range(count // 1000):
            peer.send(block)
        peer.close_handshake()

    seen = 0
    resident: list[int] = []

    def on_msg(msg: hftws.Message) -> None:
        nonlocal seen
        seen += 1
        if seen in (count // 10, count):
            resident.append(resident_bytes())
        assert msg.data[0] == 55

    with serve_both(script) as server, server.client(on_msg, **SMALL) as client:
        client.run()
    assert seen == count
    assert resident[1] - resident[0] < 4 * 1024 * 1024


def test_callback_and_constants_keep_their_reference_counts(serve_both: Serve) -> None:
    def on_msg(msg: hftws.Message) -> object:
        handle_everything(msg)
        return payload

    payload = b"x" * 1000
    with connected(serve_both, on_msg) as (client, peer):
        watched = [on_msg, client, payload, hftws.Message, BINARY, type(client)]
        before = [sys.getrefcount(thing) for thing in watched]
        for index in range(300):
            peer.send(text("t" * 9) + binary(b"b" * 9) + encode_frame(9, b"ping"))
            poll_until(client, lambda index=index: client.stats()["messages"] == 2 * index + 2)
            client.send(payload)
            client.ping(payload[:10])
            with client.reserve(10, text=False) as view:
                view[:] = payload[:10]
            for _ in range(4):
                peer.read_frame()
        after = [sys.getrefcount(thing) for thing in watched]
    assert [abs(now - then) < 10 for now, then in zip(after, before, strict=True)] == [True] * 6


def test_exceptions_leave_nothing_behind(serve_both: Serve) -> None:
    """Exceptions of callbacks, and those that the client raises itself."""

    def on_msg(msg: hftws.Message) -> None:
        raise LookupError(bytes(msg))

    with connected(serve_both, on_msg) as (client, peer):

        def fail() -> None:
            peer.send_text("x" * 100)
            with pytest.raises(LookupError):
                client.poll(SOON)
            for wrong in (None, 1, "\ud800", bytes(2**24)):
                with pytest.raises((TypeError, UnicodeError, ValueError)):
                    client.send(wrong)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="125"):
                client.ping(bytes(126))
            with pytest.raises(ValueError, match="code"):
                client.close(1005)
            with pytest.raises(ValueError, match="timeout"):
                client.poll(-1)
            with pytest.raises(ZeroDivisionError), client.reserve(5, text=True):
                1 / 0  # noqa: B018

        for _ in range(20):
            fail()
        gc.collect()
        objects = sys.getallocatedblocks()
        for _ in range(200):
            fail()
        gc.collect()
        assert sys.getallocatedblocks() - objects < 300


def test_clients_that_cannot_be_made_leave_nothing_behind(tmp_path: Path) -> None:
    bad_file = tmp_path / "bad.pem"
    bad_file.write_text("no certificate")
    cases: list[tuple[str, dict[str, Any], type[Exception]]] = [
        ("http://host/", {}, hftws.InvalidURL),
        ("ws://host/", {"headers": {"a": "b\r\nc"}}, ValueError),
        ("ws://host/", {"ring_size": 1}, ValueError),
        ("ws://host/", {"mask": "none"}, ValueError),
        ("ws://host/", {"on_msg": 1}, TypeError),
        ("wss://host/", {"ca_file": bad_file}, hftws.TLSError),
        ("wss://host/", {"ca_file": tmp_path / "missing.pem"}, hftws.TLSError),
    ]

    def fail() -> None:
        for url, options, error in cases:
            with pytest.raises(error):
                hftws.Client(url, **options)

    for _ in range(10):
        fail()
    gc.collect()
    before = (descriptors(), sys.getallocatedblocks(), resident_bytes())
    for _ in range(100):
        fail()
    gc.collect()
    after = (descriptors(), sys.getallocatedblocks(), resident_bytes())
    assert after[0] <= before[0] + 2
    assert after[1] - before[1] < 300
    assert after[2] - before[2] < 4 * 1024 * 1024


def test_reports_leave_nothing_behind(serve_both: Serve) -> None:
    looks, object_size_min = 600, 24

    with connected(serve_both, latency=True) as (client, _peer):

        def look() -> None:
            client.stats()
            client.info()
            _ = (client.response_headers, client.subprotocol, client.close_code, repr(client))

        def growth() -> int:
            gc.collect()
            tracemalloc.start()
            try:
                look()
                before, _ = tracemalloc.get_traced_memory()
                for _ in range(looks):
                    look()
                gc.collect()
                after, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            return after - before

        # The interpreter's own tables grow now and then, and without the GIL some of what is freed
        # is kept for a while; an object that is lost with each look would be more.
        assert min(growth() for _ in range(3)) < looks * object_size_min


def test_reservations_leave_nothing_behind(serve_both: Serve) -> None:
    with connected(serve_both) as (client, peer):

        def reserve() -> None:
            with client.reserve(10, text=True) as view:
                view[:] = b"0123456789"
            peer.expect_frame(TEXT, b"0123456789")
            client.reserve(10, text=True)
            dropped = client.reserve(10, text=True)
            dropped.__enter__()
            del dropped
            gc.collect()  # It holds its view, which holds it.

        for _ in range(3):
            reserve()
        objects = sys.getallocatedblocks()
        for _ in range(8):
            reserve()
        assert sys.getallocatedblocks() - objects < 16
