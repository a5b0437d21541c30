"""The end of a connection: the closing handshake, from either side, and everything short of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from frames import wait_until_reset
from servers import (
    CLOSE,
    PATIENCE,
    PEER_TIMEOUT,
    PING,
    PONG,
    TEXT,
    Peer,
    Serve,
    close_payload,
    encode_frame,
    takes,
)

import hftws

#: Seconds, for a test that has to reach its deadline.
SHORT = 0.3

#: A deadline that must not be reached, and the seconds that ending without it may take.
LONG = 20.0 * PATIENCE
IN_TIME = 10.0


def open_and_wait(peer: Peer) -> None:
    """Opens, and does what the client wants."""
    peer.accept_upgrade()
    peer.answer_close()


class Calls(list[Any]):
    """Everything that a client calls back."""

    def options(self) -> dict[str, Any]:
        return {
            "on_msg": lambda msg: self.append(bytes(msg)),
            "on_open": lambda client: self.append("open"),
            "on_close": lambda client, code, reason: self.append((code, reason)),
        }


# ---- The server says CLOSE. --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1000, "bye ✓"), (1001, "going away"), (None, "")]
)
def test_run_returns_when_the_server_closes_in_the_ordinary_way(
    serve_both: Serve, code: int | None, reason: str
) -> None:
    """1000, 1001 and no code at all; the answer has the same code."""
    answers: list[int | None] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("last")
        answers.append(peer.close_handshake(code, reason).close_code)

    calls = Calls()
    expected = 1005 if code is None else code
    with serve_both(script) as server:
        client = server.client(**calls.options())
        client.connect()
        assert client.close_code is None
        client.run()
        assert client.close_code == expected
        assert client.close_reason == reason
        assert not client.is_open
        client.run()  # It has ended in the ordinary way, and every later call says so.
    assert answers == [code]
    assert calls == ["open", b"last", (expected, reason)]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1002, ""),
        (1003, "no binary"),
        (1007, ""),
        (1008, "policy"),
        (1009, ""),
        (1010, ""),
        (1011, "internal error"),
        (1012, "restart"),
        (1013, ""),
        (1014, ""),
        (3000, ""),
        (3999, ""),
        (4000, "listenKey expired"),
        (4999, "é" * 61),
    ],
)
def test_run_raises_when_the_server_closes_for_a_reason(
    serve_both: Serve, code: int, reason: str
) -> None:
    answers: list[int | None] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("last")
        answers.append(peer.close_handshake(code, reason).close_code)

    calls = Calls()
    with serve_both(script) as server:
        client = server.client(**calls.options())
        client.connect()
        for _ in range(2):
            with pytest.raises(hftws.ConnectionClosed) as caught:
                client.run()
            assert (caught.value.code, caught.value.reason) == (code, reason)
            assert str(code) in str(caught.value)
            assert reason in str(caught.value)
        assert (client.close_code, client.close_reason) == (code, reason)
    assert answers == [code]
    assert calls == ["open", b"last", (code, reason)]


def test_nothing_is_delivered_after_the_servers_close(serve_both: Serve) -> None:
    """RFC 6455, section 5.5.1."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        late = encode_frame(TEXT, b"late") + encode_frame(PING, b"late")
        peer.send(encode_frame(TEXT, b"last") + encode_frame(CLOSE, close_payload(1000)) + late)
        peer.expect_close(1000)
        peer.expect_eof()

    calls = Calls()
    with serve_both(script) as server:
        client = server.client(**calls.options())
        client.connect()
        client.run()
    assert calls == ["open", b"last", (1000, "")]


def test_a_server_that_closes_and_keeps_the_connection(serve_both: Serve) -> None:
    """The server should hang up first. We wait for close_timeout; the end is still a clean one."""
    over = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_close(1000)
        peer.expect_close(1000)
        peer.wait(over)

    with serve_both(script) as server:
        client = server.client(close_timeout=SHORT)
        client.connect()
        with takes(SHORT, IN_TIME):
            client.run()
        assert client.close_code == 1000
        over.set()


@pytest.mark.parametrize("how", ["EOF", "RST", "half-close"])
def test_a_server_that_ends_right_after_its_close_frame(serve_both: Serve, how: str) -> None:
    """Without waiting for our CLOSE: it has sent all it had to send."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_close(4000, "enough")
        if how == "RST":
            peer.expect_close(4000)  # A reset could overtake what was sent before it.
            peer.reset()
        elif how == "half-close":
            peer.shut_send_side()
            peer.expect_close(4000)
            peer.recv_all()

    with serve_both(script) as server:
        client = server.client(close_timeout=LONG)
        client.connect()
        with takes(0, IN_TIME), pytest.raises(hftws.ConnectionClosed) as caught:
            client.run()
        assert (caught.value.code, caught.value.reason) == (4000, "enough")


@pytest.mark.parametrize("timeout", [0.0, 5.0, None])
def test_poll_tells_the_end_and_raises_from_then_on(
    serve_both: Serve, timeout: float | None
) -> None:
    """Also after an ordinary end: a user's own loop has to notice it."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("last")
        peer.close_handshake(1000, "bye")

    calls = Calls()
    with serve_both(script) as server:
        client = server.client(**calls.options())
        client.connect()
        count = 0
        deadline = time.monotonic() + PEER_TIMEOUT
        with pytest.raises(hftws.ConnectionClosed) as caught:
            while time.monotonic() < deadline:
                count += client.poll(timeout)
        assert (caught.value.code, caught.value.reason) == (1000, "bye")
        assert count == 1
        for _ in range(3):
            with pytest.raises(hftws.ConnectionClosed) as caught:
                client.poll(timeout)
            assert (caught.value.code, caught.value.reason) == (1000, "bye")
    assert calls == ["open", b"last", (1000, "bye")]


# ---- The client says CLOSE. --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, ""), (1000, "done"), (1001, ""), (1011, ""), (3000, ""), (4999, "é" * 61 + "x")],
)
def test_close_says_code_and_reason(serve_both: Serve, code: int, reason: str) -> None:
    frames = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        frames.append(peer.answer_close())

    calls = Calls()
    with serve_both(script) as server:
        client = server.client(close_timeout=LONG, **calls.options())
        client.connect()
        with takes(0, IN_TIME):
            client.close(code, reason)
        assert not client.is_open
        assert (client.close_code, client.close_reason) == (code, reason)
        client.run()  # The ordinary end: this side wanted it.
    frame = frames[0]
    assert (frame.close_code, frame.close_reason) == (code, reason)
    assert frame.fin
    assert frame.rsv == 0
    assert calls == ["open", (code, reason)]


def test_close_says_1000_unless_told_otherwise(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        assert peer.expect_close(1000).close_reason == ""
        peer.send_close(1000)
        peer.expect_eof()  # Nothing follows CLOSE.

    with serve_both(script) as server:
        client = server.client()
        client.connect()
        client.close()
        assert client.close_code == 1000


def test_what_was_sent_before_close_arrives_before_it(serve_both: Serve) -> None:
    """Even when it is more than the socket takes at once."""
    size = 6_000_000
    go_on = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(go_on)
        assert peer.read_frame().payload == b"a" * size
        peer.answer_close()

    with serve_both(script) as server:
        client = server.client(send_buffer_size=256 * 1024)
        client.connect()
        client.send(b"a" * size)
        assert client.wants_write
        go_on.set()
        client.close()
        assert client.close_code == 1000


@pytest.mark.parametrize(
    "code", [-1, 0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536 + 1000, 2**70]
)
def test_a_close_code_that_must_not_be_sent_is_refused(serve: Serve, code: int) -> None:
    """And the connection stays open."""
    with serve(open_and_wait) as server, server.client() as client:
        with pytest.raises((ValueError, OverflowError)):
            client.close(code)
        assert client.is_open


@pytest.mark.parametrize("reason", ["a" * 124, "é" * 62])
def test_a_reason_that_does_not_fit_is_refused(serve: Serve, reason: str) -> None:
    """It is 123 bytes of UTF-8 at most."""
    with serve(open_and_wait) as server, server.client() as client:
        with pytest.raises(ValueError, match="123"):
            client.close(1000, reason)
        assert client.is_open


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("1000",), TypeError),
        ((None,), TypeError),
        ((1000.0,), TypeError),
        ((1000, b"bye"), TypeError),
        ((1000, None), TypeError),
        ((1000, "\ud800"), ValueError),
        ((1000, "bye", 1), TypeError),
    ],
)
def test_close_takes_a_number_and_a_text(
    serve: Serve, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    with serve(open_and_wait) as server, server.client() as client:
        with pytest.raises(error):
            client.close(*arguments)
        assert client.is_open
        client.close(code=1001, reason="by name")


def test_the_answer_counts_not_what_was_asked(serve_both: Serve) -> None:
    """RFC 6455, section 7.1.5: the code is the one in the close frame received."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.expect_close(1000)
        peer.send_close(1011, "oh")
        peer.hang_up()

    calls = Calls()
    with serve_both(script) as server:
        client = server.client(**calls.options())
        client.connect()
        client.close()
        assert (client.close_code, client.close_reason) == (1011, "oh")
    assert calls == ["open", (1011, "oh")]


def test_both_close_at_once(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade(then=encode_frame(CLOSE, close_payload(1001, "me too")))
        peer.expect_close(1000)
        peer.expect_eof()

    calls = Calls()
    with serve_both(script) as server:
        client = server.client(**calls.options())
        client.connect()
        client.close()
        assert client.close_code == 1001
    assert calls == ["open", (1001, "me too")]


def test_messages_that_arrive_after_close_are_dropped(serve_both: Serve) -> None:
    """Pings, too: nothing may follow our close frame."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.expect_close(1000)
        for index in range(3):
            peer.send_text(f"late {index}")
            peer.send_frame(PING, b"late")
            peer.send_frame(PONG)
        peer.send_close(1000)
        peer.expect_eof()

    calls = Calls()
    with serve_both(script) as server:
        client = server.client(**calls.options())
        client.connect()
        client.close()
        assert client.stats()["messages_dropped"] == 3
    assert calls == ["open", (1000, "")]


@pytest.mark.parametrize("how", ["silent", "EOF", "RST", "half-close", "half a frame", "garbage"])
def test_close_of_a_peer_that_does_not_answer(serve_both: Serve, how: str) -> None:
    """Never raises, and lasts for close_timeout at most."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.expect_close(1000)
        if how == "RST":
            peer.reset()
        elif how == "half-close":
            peer.shut_send_side()
        elif how == "half a frame":
            peer.send(b"\x88\x02\x03")
        elif how == "garbage":
            peer.send(b"\xff\xff\xff")
        if how in ("silent", "half-close", "half a frame", "garbage"):
            peer.recv_all()

    calls = Calls()
    waits = how in ("silent", "half a frame")
    with serve_both(script) as server:
        client = server.client(close_timeout=SHORT if waits else LONG, **calls.options())
        client.connect()
        with takes(SHORT if waits else 0, IN_TIME):
            client.close()
        assert not client.is_open
        assert client.close_code == 1006
        client.close()
    assert len(calls) == 2
    assert calls[1][0] == 1006


@pytest.mark.parametrize("size", [1, 60_000])
def test_close_of_a_peer_that_never_stops_sending(serve: Serve, size: int) -> None:
    """close_timeout is kept even when there is always something to read."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.flood(encode_frame(TEXT, b"a" * size))

    received: list[int] = []
    with serve(script) as server:
        client = server.client(lambda msg: received.append(len(msg)), close_timeout=SHORT)
        client.connect()
        while not received:
            client.poll(1)
        with takes(SHORT, IN_TIME, busy=True):
            client.close()
        assert client.close_code == 1006


def test_a_close_timeout_of_zero_does_not_wait(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.expect_close(1000)
        peer.recv_all()

    with serve_both(script) as server:
        client = server.client(close_timeout=0)
        client.connect()
        with takes(0, 4.0):
            client.close()
        assert client.close_code == 1006


def test_close_of_a_connection_that_has_died_meanwhile(serve_both: Serve) -> None:
    """The client has not read the end yet."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.expect_frame(TEXT, b"ready")
        peer.reset()

    calls = Calls()
    with serve_both(script) as server:
        client = server.client(close_timeout=LONG, **calls.options())
        client.connect()
        client.send("ready")
        wait_until_reset(client)
        with takes(0, IN_TIME):
            client.close()
        assert client.close_code == 1006
    assert len(calls) == 2


def test_close_in_every_other_state_does_nothing(serve_both: Serve) -> None:
    """Never connected, refused, closed already, dropped by the peer."""

    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")

    calls = Calls()
    with serve_both([refuse, open_and_wait, lambda peer: peer.accept_upgrade()]) as server:
        client = server.client(**calls.options())
        client.close()
        with pytest.raises(hftws.HandshakeError):
            client.connect()
        client.close()
        client.connect()
        client.close(1000, "mine")
        client.close(4000, "again")
        assert client.close_code == 1000
        assert client.close_reason == "mine"
        client.connect()
        with pytest.raises(hftws.ConnectionClosed):
            client.run()
        client.close(4000)
        assert client.close_code == 1006
    assert calls[:3] == ["open", (1000, "mine"), "open"]
    assert len(calls) == 4


@pytest.mark.parametrize("name", ["send", "ping", "reserve"])
def test_nothing_can_be_sent_after_the_end(serve_both: Serve, name: str) -> None:
    with serve_both(open_and_wait) as server:
        client = server.client()
        client.connect()
        client.close(1001, "bye")
        sends: dict[str, Callable[[], Any]] = {
            "send": lambda: client.send("a"),
            "ping": client.ping,
            "reserve": lambda: client.reserve(1, text=True).__enter__(),
        }
        with pytest.raises(hftws.ConnectionClosed) as caught:
            sends[name]()
        assert (caught.value.code, caught.value.reason) == (1001, "bye")


def test_ctrl_c_ends_close_and_close_can_go_on(serve_both: Serve) -> None:
    interrupted = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.expect_close(1000)
        peer.interrupt()
        peer.wait(interrupted)
        peer.send_close(1000)
        peer.hang_up()

    calls = Calls()
    with serve_both(script) as server:
        client = server.client(close_timeout=LONG, **calls.options())
        client.connect()
        with takes(0, IN_TIME), pytest.raises(KeyboardInterrupt):
            client.close()
        assert not client.is_open
        interrupted.set()
        client.close()
        assert client.close_code == 1000
    assert calls == ["open", (1000, "")]


# ---- Callbacks. --------------------------------------------------------------------------------


def test_on_close_gets_the_client_the_code_and_the_reason(serve_both: Serve) -> None:
    given: list[tuple[Any, ...]] = []

    def on_close(*arguments: Any) -> None:
        client = arguments[0]
        given.append((*arguments, client.is_open, client.close_code, client.close_reason))

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.close_handshake(1000, "bye")

    with serve_both(script) as server:
        client = server.client(on_close=on_close)
        client.connect()
        client.run()
        client.run()
        client.close()
        with pytest.raises(hftws.ConnectionClosed):
            client.poll()
    assert given == [(client, 1000, "bye", False, 1000, "bye")]


@pytest.mark.parametrize("driver", ["run", "poll", "close"])
def test_what_on_close_raises_comes_out_once(serve_both: Serve, driver: str) -> None:
    """The connection is over, and known to be."""
    count = 0

    def on_close(client: hftws.Client, code: int, reason: str) -> None:
        nonlocal count
        count += 1
        raise LookupError("mine")

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        if driver == "close":
            peer.answer_close()
        else:
            peer.close_handshake()

    with serve_both(script) as server:
        client = server.client(on_close=on_close)
        client.connect()
        with pytest.raises(LookupError, match="mine"):
            if driver == "poll":
                while True:
                    client.poll(1)
            getattr(client, driver)()
        assert not client.is_open
        assert client.close_code == 1000
        client.run()
        client.close()
    assert count == 1


def test_on_close_may_connect_again_later_but_not_now(serve_both: Serve) -> None:
    """It is called from within run(); the next run() has a connection of its own."""
    errors: list[str] = []

    def on_close(client: hftws.Client, code: int, reason: str) -> None:
        with pytest.raises(RuntimeError) as caught:
            client.connect()
        errors.append(str(caught.value))

    def greet(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.close_handshake()

    with serve_both(greet) as server:
        client = server.client(on_close=on_close)
        for _ in range(2):
            client.connect()
            client.run()
    assert len(errors) == 2


@pytest.mark.parametrize("driver", ["run", "poll"])
def test_close_in_on_msg(serve_both: Serve, driver: str) -> None:
    """Returns at once; what came in the same read is dropped, and the handshake still done."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade(then=encode_frame(TEXT, b"a") * 3)
        assert peer.answer_close().close_reason == "had enough"

    calls = Calls()

    def on_msg(msg: hftws.Message) -> None:
        calls.append(bytes(msg))
        with takes(0, IN_TIME):
            client.close(1000, "had enough")
        client.close(4000, "too late")
        assert not client.is_open

    with serve_both(script) as server:
        client = server.client(**{**calls.options(), "on_msg": on_msg, "close_timeout": LONG})
        client.connect()
        if driver == "run":
            client.run()
        else:
            with pytest.raises(hftws.ConnectionClosed) as caught:
                while True:
                    client.poll(1)
            assert caught.value.code == 1000
    assert calls == ["open", b"a", (1000, "had enough")]


def test_close_in_on_open(serve_both: Serve) -> None:
    with serve_both(open_and_wait) as server:
        client = server.client(on_open=lambda client: client.close(1001, "at once"))
        client.connect()
        assert not client.is_open
        client.run()
        assert client.close_code == 1001


def test_close_in_on_close(serve_both: Serve) -> None:
    with serve_both(open_and_wait) as server:
        client = server.client(on_close=lambda client, code, reason: client.close(4000, "again"))
        client.connect()
        client.close()
        assert client.close_code == 1000


def test_close_in_a_callback_has_its_deadline(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade(then=encode_frame(TEXT, b"a"))
        peer.recv_all()

    with serve_both(script) as server:
        client = server.client(lambda msg: client.close(), close_timeout=SHORT)
        client.connect()
        with takes(SHORT, IN_TIME), pytest.raises(hftws.ConnectionClosed) as caught:
            client.run()
        assert caught.value.code == 1006


# ---- As a context manager. ---------------------------------------------------------------------


def test_enter_connects_and_exit_closes(serve_both: Serve) -> None:
    frames = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        frames.append(peer.answer_close())

    with serve_both(script) as server:
        client = server.client()
        with client as entered:
            assert entered is client
            assert client.is_open
        assert not client.is_open
        assert client.close_code == 1000
    assert [(frame.close_code, frame.close_reason) for frame in frames] == [(1000, "")]


def test_an_exception_leaves_the_block_after_a_clean_close(serve_both: Serve) -> None:
    with serve_both(open_and_wait) as server:
        client = server.client()
        with pytest.raises(LookupError, match="mine"):
            with client:
                raise LookupError("mine")
        assert client.close_code == 1000


def test_exit_does_not_hide_how_the_connection_ended(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.close_handshake(4000, "expired")

    with serve_both(script) as server:
        with pytest.raises(hftws.ConnectionClosed, match="expired"):
            with server.client() as client:
                client.run()


def test_a_failed_connect_comes_out_of_enter(serve_both: Serve) -> None:
    with serve_both(Peer.reset) as server:
        with pytest.raises(ConnectionError):
            with server.client():
                pytest.fail("entered")


def test_a_client_can_be_entered_again(serve_both: Serve) -> None:
    with serve_both(open_and_wait) as server:
        client = server.client()
        for _ in range(3):
            with client:
                assert client.is_open
        assert client.close_code == 1000
    assert server.accepted == 3


def test_entering_a_connected_client_is_refused_and_harmless(serve_both: Serve) -> None:
    """The connection is not that of the second block, which must not close it."""
    with serve_both(open_and_wait) as server, server.client() as client:
        with pytest.raises(RuntimeError, match="already connected"):
            with client:
                pytest.fail("entered")
        assert client.is_open


def test_entering_a_client_in_its_callback_is_refused_and_harmless(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("1")
        peer.send_text("2")
        peer.close_handshake()

    received: list[bytes] = []

    def on_msg(msg: hftws.Message) -> None:
        received.append(bytes(msg))
        with pytest.raises(RuntimeError, match="callback"):
            with client:
                pytest.fail("entered")

    with serve_both(script) as server:
        client = server.client(on_msg)
        client.connect()
        client.run()
    assert received == [b"1", b"2"]
    assert client.close_code == 1000


def test_what_on_open_raises_in_enter_closes_the_connection(serve_both: Serve) -> None:
    """There is no exit to close it."""

    def fail(client: hftws.Client) -> None:
        raise LookupError("mine")

    with serve_both(open_and_wait) as server:
        client = server.client(on_open=fail)
        with pytest.raises(LookupError, match="mine"):
            with client:
                pytest.fail("entered")
        assert client.close_code == 1000
