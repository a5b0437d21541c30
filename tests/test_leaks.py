"""A day of trading in a few seconds leaks nothing.

A million messages, ten thousand connections, a hundred thousand exceptions: afterwards the process
holds what it held before.

test_memory.py asks the same of each single feature, with smaller numbers. Here the numbers are so
large that a leak of a byte a message, or of a page a connection, is more than chance.
"""

from __future__ import annotations

import collections
import functools
import gc
import os
import socket
import sys
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from footprint import Footprint, same_footprint
from frames import SMALL, SOON, Serve, binary, connected, text
from servers import BINARY, CLOSE, Peer, ScriptServer, close_payload, encode_frame

import hftws
from hftws import _core

pytestmark = [
    pytest.mark.usefixtures("small_pages"),
    pytest.mark.filterwarnings("ignore:unclosed client"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self (Linux)"),
]

MIB = 1024 * 1024
OnMsg = Callable[[hftws.Message], object]


def test_memory_is_counted_by_small_pages() -> None:
    """Otherwise a server thread that starts while memory is measured would be a leak of 2 MiB."""
    status = Path("/proc/self/status").read_text()
    if "THP_enabled" not in status:
        pytest.skip("this kernel (before 5.0) does not tell")
    assert "THP_enabled:\t0\n" in status


# ---- A million messages. -----------------------------------------------------------------------

#: Messages until memory is looked at for the first time.
WARM_UP = 50_000


def flood(block: bytes, extensions: str | None = None) -> Callable[[Peer], None]:
    """A script: the same frames again and again, until the client hangs up."""
    headers = [] if extensions is None else [("Sec-WebSocket-Extensions", extensions)]

    def script(peer: Peer) -> None:
        peer.accept_upgrade(headers=headers)
        peer.flood(block)

    return script


def receive(server: ScriptServer, count: int, on_msg: OnMsg, **options: Any) -> None:
    """Runs a client for this many messages, and compares its footprint with that after a few."""
    taken: list[Footprint] = []
    watched = [hftws.Message, memoryview, None, on_msg]
    references: list[list[int]] = []
    messages = 0

    def receive_one(msg: hftws.Message) -> None:
        nonlocal messages
        messages += 1
        on_msg(msg)
        if messages in (WARM_UP, count):
            taken.append(Footprint.take())
            references.append([sys.getrefcount(thing) for thing in watched])
            if messages == count:
                client.close()

    client = server.client(receive_one, close_timeout=0, **options)
    client.connect()
    with suppress(hftws.ConnectionClosed):  # The peer does not read our CLOSE.
        client.run()
    first, last = taken
    assert last.blocks - first.blocks < 200
    assert last.mappings == first.mappings
    assert last.descriptors == first.descriptors
    assert last.resident_bytes - first.resident_bytes < 1 * MIB
    for now, before in zip(references[1], references[0], strict=True):
        assert abs(now - before) < 100


def keep(what: Callable[[hftws.Message], object]) -> OnMsg:
    """A callback that keeps something of the last hundred messages, and drops older ones."""
    kept: collections.deque[object] = collections.deque([None] * 100, maxlen=100)
    return lambda msg: kept.append(what(msg))


def test_a_million_messages_leave_nothing_behind(serve: Serve) -> None:
    """A leak of a byte each would be nearly all that memory may grow by."""

    def on_msg(msg: hftws.Message) -> None:
        assert msg.data[0] == 55

    with serve(flood(binary(b"7" * 100) * 500)) as server:
        receive(server, 1_000_000, on_msg)


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(lambda msg: msg, id="message"),
        pytest.param(lambda msg: msg.data, id="view"),
        pytest.param(lambda msg: msg.data[3:], id="slice"),
        pytest.param(lambda msg: (msg, msg.data, memoryview(msg)[1:]), id="all of them"),
    ],
)
def test_messages_that_are_kept_and_let_go_leave_nothing_behind(
    serve: Serve, what: Callable[[hftws.Message], object]
) -> None:
    """Each is then a separate object, with a pin on the ring."""
    with serve(flood(binary(b"7" * 100) * 500)) as server:
        receive(server, 300_000, keep(what), timestamps="software")


@pytest.mark.parametrize("kept", [False, True], ids=["lent", "kept"])
def test_compressed_messages_leave_nothing_behind(serve: Serve, kept: bool) -> None:
    """zlib's state and the ring of inflated messages are those of the connection."""
    deflate = zlib.compressobj(wbits=-15)
    payload = deflate.compress(b"price and size " * 20) + deflate.flush(zlib.Z_SYNC_FLUSH)
    block = encode_frame(BINARY, payload[:-4], rsv=0b100) * 500
    agreement = "permessage-deflate; server_no_context_takeover"
    with serve(flood(block, agreement)) as server:
        on_msg = keep(lambda msg: msg.data[3:] if kept else len(msg))
        receive(server, 300_000, on_msg, compression="deflate")


# ---- Ten thousand connections. -----------------------------------------------------------------


def message_and_close(peer: Peer) -> None:
    """A script: one message and the end."""
    peer.accept_upgrade(then=text("hello") + encode_frame(CLOSE, close_payload(1000)))
    peer.recv_all()


@contextmanager
def warmed_up(function: Callable[[], object], *, rounds: int = 30, **limits: int) -> Iterator[None]:
    """`same_footprint`, measured when caches and pools have filled."""
    for _ in range(rounds):
        function()
    with same_footprint(**limits):
        yield


@pytest.mark.long
@pytest.mark.parametrize(
    ("reconnect", "count"),
    [pytest.param(False, 2000, id="new client"), pytest.param(True, 8000, id="same client")],
)
def test_ten_thousand_connections_leave_nothing_behind(
    serve: Serve, reconnect: bool, count: int
) -> None:
    """The rings of one are 1 MiB of address space; a page of each would exceed the limit."""
    messages = 0

    def on_msg(msg: hftws.Message) -> None:
        nonlocal messages
        messages += 1

    with serve(message_and_close) as server:
        lasting = server.client(on_msg, **SMALL)

        def live() -> None:
            client = lasting if reconnect else server.client(on_msg, **SMALL)
            client.connect()
            client.run()

        with warmed_up(live, bytes_max=1 * MIB):
            for _ in range(count):
                live()
    assert messages == count + 30


@pytest.mark.parametrize("engine", ["direct", "openssl"])
def test_connections_over_tls_leave_nothing_behind(serve: Serve, engine: str) -> None:
    """An SSL object of OpenSSL is some 10 KiB, its context far more."""
    with serve(message_and_close, tls=True) as server:

        def live() -> None:
            with server.client(tls=engine, **SMALL) as client:
                client.run()

        with warmed_up(live, bytes_max=2 * MIB):
            for _ in range(400):
                live()


def test_connections_with_compression_leave_nothing_behind(serve: Serve) -> None:
    """zlib takes 300 KiB for the two directions."""
    answer = [("Sec-WebSocket-Extensions", "permessage-deflate")]

    def script(peer: Peer) -> None:
        peer.accept_upgrade(headers=answer)
        peer.read_frame()
        peer.send(encode_frame(CLOSE, close_payload(1000)))
        peer.recv_all()

    with serve(script) as server:

        def live() -> None:
            with server.client(compression="deflate", **SMALL) as client:
                client.send("x" * 2000)
                client.run()

        with warmed_up(live, bytes_max=2 * MIB):
            for _ in range(500):
                live()


# ---- What fails. -------------------------------------------------------------------------------


def raises(
    error: type[Exception] | tuple[type[Exception], ...],
    function: Callable[..., object],
    *arguments: object,
    **options: object,
) -> None:
    """Like `pytest.raises`, which is slow and keeps the traceback for a while."""
    try:
        function(*arguments, **options)
    except error:
        return
    raise AssertionError(f"{function} did not raise")


def test_refused_connections_leave_nothing_behind() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # Nobody listens there.
        url = f"ws://127.0.0.1:{unused.getsockname()[1]}/"

        def fail() -> None:
            raises(hftws.ConnectError, hftws.Client(url, **SMALL).connect)

        with warmed_up(fail, bytes_max=1 * MIB):
            for _ in range(1000):
                fail()


ANSWERS = {
    "refused": b"HTTP/1.1 429 Slow down\r\nContent-Length: 4\r\nA: b\r\n\r\nwait",
    "wrong accept": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: bm90IHRoZSByaWdodCBrZXk=\r\n\r\n"
    ),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_failed_handshakes_leave_nothing_behind(serve: Serve, answer: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(answer)

    with serve(script) as server:

        def fail() -> None:
            raises(hftws.HandshakeError, server.client(**SMALL).connect)

        with warmed_up(fail, bytes_max=1 * MIB):
            for _ in range(1000):
                fail()


@pytest.mark.parametrize("engine", ["direct", "openssl"])
def test_bad_certificates_leave_nothing_behind(serve: Serve, tmp_path: Path, engine: str) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    with serve(message_and_close, tls=True) as server:

        def fail() -> None:
            client = server.client(tls=engine, ca_file=stranger, **SMALL)
            raises(hftws.TLSError, client.connect)
            server.tls_errors.clear()

        with warmed_up(fail, bytes_max=2 * MIB):
            for _ in range(300):
                fail()


def nothing(*_arguments: object) -> None:
    """A callback."""


#: One invalid option each; all others are right, so that it is found as late as can be.
INVALID: list[tuple[str, dict[str, Any]]] = [
    ("http://host/", {}),
    ("ws://host:99999/", {}),
    ("ws://host/", {"on_msg": 1}),
    ("ws://host/", {"on_open": "no"}),
    ("ws://host/", {"on_close": 0}),
    ("ws://host/", {"headers": {"a": "b\r\nc"}}),
    ("ws://host/", {"headers": {"a b": "c"}}),
    ("ws://host/", {"headers": {"a": "\ud800"}}),
    ("ws://host/", {"headers": {"a": "b" * 100_000}}),
    ("ws://host/", {"subprotocols": ["a b"]}),
    ("ws://host/", {"compression": "gzip"}),
    ("ws://host/", {"compression": hftws.Deflate(level=10)}),
    ("ws://host/", {"compression": hftws.Deflate(server_max_window_bits=16)}),
    ("ws://host/", {"server_name": ""}),
    ("ws://host/", {"tls": "none"}),
    ("ws://host/", {"connect_timeout": -1.0}),
    ("ws://host/", {"close_timeout": float("nan")}),
    ("ws://host/", {"max_message_size": 0}),
    ("ws://host/", {"ring_size": 1}),
    ("ws://host/", {"ring_size": 2**62}),
    ("ws://host/", {"send_ring_size": -1}),
    ("ws://host/", {"mask": "none"}),
    ("ws://host/", {"timestamps": "atomic"}),
    ("ws://host/", {"local_address": "here"}),
    ("ws://host/", {"receive_buffer_size": -1}),
    ("ws://host/", {"socket_busy_poll_us": 2**40}),
    ("wss://host/", {"ca_file": "/no/such/file.pem"}),
]


def test_ten_thousand_clients_that_cannot_be_made_leave_nothing_behind() -> None:
    def fail() -> None:
        for url, options in INVALID:
            merged = {"on_msg": nothing, "latency": True, **options}
            raises((ValueError, TypeError, hftws.TLSError), hftws.Client, url, **merged)

    references = sys.getrefcount(nothing)
    with warmed_up(fail, rounds=10, bytes_max=1 * MIB):
        for _ in range(10_000 // len(INVALID) + 1):
            fail()
    assert sys.getrefcount(nothing) == references


def test_client_whose_making_failed_can_be_made_later(serve: Serve) -> None:
    """The first `__init__` gives back what it took: only the callback of the second stays."""
    client = hftws.Client.__new__(hftws.Client)
    for _ in range(1000):
        with pytest.raises(ValueError, match="mask"):
            client.__init__("ws://host/", nothing, mask="none")  # type: ignore[misc]
    references = sys.getrefcount(nothing)
    client.__init__("ws://host/", nothing)  # type: ignore[misc]
    assert sys.getrefcount(nothing) == references + 1
    del client
    assert sys.getrefcount(nothing) == references


# ---- Callbacks that raise. ---------------------------------------------------------------------


class CallbackError(Exception):
    """An exception that a callback raises, and that counts its instances."""

    alive = 0

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        CallbackError.alive += 1

    def __del__(self) -> None:
        CallbackError.alive -= 1


class Interrupt(CallbackError, KeyboardInterrupt):
    """As if Ctrl-C was pressed in the callback."""


RAISED: dict[str, Callable[[hftws.Message], CallbackError]] = {
    "error": lambda msg: CallbackError("as it is"),
    "interrupt": lambda msg: Interrupt(),
    "with the message": lambda msg: CallbackError(msg),
    "with its view": lambda msg: CallbackError(msg.data[5:]),
}


@pytest.mark.parametrize("make", RAISED.values(), ids=RAISED)
def test_hundred_thousand_exceptions_leave_nothing_behind(
    serve: Serve, make: Callable[[hftws.Message], CallbackError]
) -> None:
    """25,000 of each kind, in the middle of a burst; each goes as soon as it is handled."""
    raised = 0

    def on_msg(msg: hftws.Message) -> None:
        nonlocal raised
        local = msg.data  # The traceback holds this frame, the frame holds the view.
        assert local[0] == 55
        assert CallbackError.alive == 0
        raised += 1
        raise make(msg)

    with serve(flood(binary(b"7" * 100) * 500)) as server:
        client = server.client(on_msg, close_timeout=0, **SMALL)
        client.connect()

        def fail() -> None:
            try:
                client.run()
            except CallbackError as error:
                assert error.__traceback__ is not None

        with warmed_up(fail, rounds=1000, bytes_max=1 * MIB):
            while raised < 25_000:
                fail()
            assert CallbackError.alive == 0
        client.close()


def test_exceptions_in_cycles_go_with_the_garbage(serve: Serve) -> None:
    """An error that is caught and kept holds its frames, which hold it."""
    kept: list[CallbackError] = []

    def on_msg(msg: hftws.Message) -> None:
        error = CallbackError(msg, client)
        kept.append(error)
        raise error

    with serve(flood(binary(b"7" * 100) * 500)) as server:
        client = server.client(on_msg, close_timeout=0, **SMALL)
        client.connect()

        def fail() -> None:
            for _ in range(20):
                raises(CallbackError, client.run)
            assert [bytes(error.args[0])[:1] for error in kept] == [b"7"] * 20
            kept.clear()
            gc.collect()
            assert CallbackError.alive == 0

        with warmed_up(fail, rounds=5, bytes_max=1 * MIB):
            for _ in range(50):
                fail()
        client.close()


@pytest.mark.parametrize("where", ["on_open", "on_close"])
def test_exceptions_of_other_callbacks_leave_nothing_behind(serve: Serve, where: str) -> None:
    def fail_there(*arguments: object) -> None:
        raise CallbackError(*arguments)

    with serve(message_and_close) as server:

        def fail() -> None:
            client = server.client(nothing, **SMALL, **{where: fail_there})
            raises(CallbackError, lambda: (client.connect(), client.run()))
            client.close()

        with warmed_up(fail, bytes_max=1 * MIB):
            for _ in range(500):
                fail()
    gc.collect()
    assert CallbackError.alive == 0


# ---- The garbage collector. --------------------------------------------------------------------


class Strategy:
    """A program's own object around a client: it holds the client, and the client holds it."""

    def __init__(self, client_of: Callable[..., hftws.Client]) -> None:
        self.kept: list[object] = []
        self.error: Exception | None = None
        self.client = client_of(self.on_msg, on_open=self.on_open, on_close=self.on_close)

    def on_msg(self, msg: hftws.Message) -> None:
        self.kept += [msg, msg.data[1:], self]

    def on_open(self, client: hftws.Client) -> None:
        self.kept.append(client)

    def on_close(self, client: hftws.Client, code: int, reason: str) -> None:
        """Does nothing: it only has to be a bound method."""


class RaisingStrategy(Strategy):
    """Catches what it raised itself: the traceback holds frames that hold the client."""

    def on_msg(self, msg: hftws.Message) -> None:
        super().on_msg(msg)
        raise CallbackError(self, self.client)


class PartialStrategy(Strategy):
    """Callbacks that are neither functions nor methods."""

    def __init__(self, client_of: Callable[..., hftws.Client]) -> None:
        self.kept = []
        self.error = None
        self.client = client_of(
            functools.partial(type(self).on_msg, self),
            on_open=lambda client: self.kept.append(client),
        )


@pytest.mark.parametrize("kind", [Strategy, RaisingStrategy, PartialStrategy])
@pytest.mark.parametrize("collector", ["enabled", "disabled", "frozen"])
def test_cycles_through_client_message_and_error_are_collected(
    serve_both: Serve, kind: type[Strategy], collector: str
) -> None:
    """Whatever the collector's settings, the cycle stays until it runs, and is then freed."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade(then=text("hello"))
        peer.recv_all()

    with serve_both(script) as server:
        if collector != "enabled":
            gc.disable()
        try:
            strategy = kind(server.client)
            strategy.client.connect()
            try:
                strategy.client.poll(SOON)
            except CallbackError as error:
                strategy.error = error
            reservation = strategy.client.reserve(10, text=True)
            strategy.kept += [reservation, reservation.__enter__()]
            descriptor = strategy.client.info()["descriptor"]
            gone = [weakref.ref(strategy), weakref.ref(strategy.client)]
            if collector == "frozen":
                gc.freeze()
            del strategy, reservation
            if collector == "frozen":
                gc.collect()
                assert None not in [reference() for reference in gone]
                gc.unfreeze()
            gc.collect()
        finally:
            gc.unfreeze()
            gc.enable()
        assert [reference() for reference in gone] == [None, None]
        assert not is_socket_of(descriptor, server)
    assert CallbackError.alive == 0


def is_socket_of(descriptor: int, server: ScriptServer) -> bool:
    """Whether it is still the client's end of a connection to this server."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            return bool(sock.getpeername()[1] == server.port)
    except OSError:
        return False


def test_client_that_is_collected_while_open_warns_and_hangs_up(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        assert peer.recv_all() == b""

    with serve_both(script) as server:
        strategy = Strategy(server.client)
        strategy.client.connect()
        descriptor = strategy.client.info()["descriptor"]
        with pytest.warns(ResourceWarning, match="unclosed client"):
            del strategy
            gc.collect()
        assert not is_socket_of(descriptor, server)


def test_client_that_its_own_warning_brings_back_lives_on(serve: Serve) -> None:
    """A finalizer may revive an object (PEP 442): it then works as before, and is freed later."""
    messages: list[bytes] = []

    class Phoenix(hftws.Client):
        saved: Phoenix | None = None

        def __del__(self) -> None:
            Phoenix.saved = self

    with serve(message_and_close) as server:
        client: Phoenix | None = Phoenix(server.url(), lambda msg: messages.append(bytes(msg)))
        assert client is not None
        client.connect()
        client = None
        assert Phoenix.saved is not None
        Phoenix.saved.run()
        gone = weakref.ref(Phoenix.saved)
        Phoenix.saved = None
        gc.collect()
        assert gone() is None
    assert messages == [b"hello"]


def test_what_holds_references_is_known_to_the_collector(serve: Serve) -> None:
    """The collector sees every reference of each type; messages have none, and are not tracked."""
    seen: list[hftws.Message] = []
    with connected(serve, seen.append, on_open=nothing, on_close=nothing) as (client, peer):
        peer.send_text("hello")
        client.poll(SOON)
        assert gc.is_tracked(client)
        for held in (client.on_msg, client.on_open, client.on_close, type(client)):
            assert any(found is held for found in gc.get_referents(client))

        reservation = client.reserve(10, text=True)
        assert gc.is_tracked(reservation)
        view = reservation.__enter__()
        for held in (client, view, type(reservation)):
            assert any(found is held for found in gc.get_referents(reservation))
        del view
        with pytest.raises(LookupError), reservation_left(reservation):
            raise LookupError

        assert not gc.is_tracked(seen[0])
        assert gc.get_referents(seen[0]) == []
        assert any(found is seen[0] for found in referents_below(seen[0].data))


@contextmanager
def reservation_left(reservation: Any) -> Iterator[None]:
    """Exits a reservation that was entered by hand."""
    try:
        yield
    except LookupError as error:
        reservation.__exit__(type(error), error, error.__traceback__)
        raise


def referents_below(view: memoryview) -> list[object]:
    """What the view's buffer refers to."""
    return [found for buffer in gc.get_referents(view) for found in gc.get_referents(buffer)]


def test_types_have_the_flags_of_what_they_hold() -> None:
    """Py_TPFLAGS_HAVE_GC: bit 14 (object.h)."""
    have_gc = 1 << 14
    assert hftws.Client.__flags__ & have_gc
    assert _core.ClientBase.__flags__ & have_gc
    assert _core.Reservation.__flags__ & have_gc
    assert not hftws.Message.__flags__ & have_gc
