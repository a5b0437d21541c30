"""What a callback may do: nearly everything, except to drive the client that calls it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from frames import (
    SOON,
    Inbox,
    Serve,
    binary,
    connected,
    poll_until,
    receive,
    text,
)
from servers import BINARY, CLOSE, PING, PONG, TEXT, Peer, close_payload, encode_frame

import hftws


class Stop(Exception):
    """Raised by a callback."""


def talk(*messages: bytes) -> Callable[[Peer], None]:
    """A script: these messages in one write, then CLOSE."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(b"".join(map(text, messages)))
        peer.close_handshake()

    return script


# ---- Raising. ----------------------------------------------------------------------------------


@pytest.mark.parametrize("drive", ["run", "poll"])
def test_exception_comes_out_and_the_next_message_comes_next(serve_both: Serve, drive: str) -> None:
    """All messages are in one read: nothing is lost, nothing comes twice."""
    inbox = Inbox()

    def on_msg(msg: hftws.Message) -> None:
        inbox(msg)
        if msg.data[0] in b"26":
            raise Stop(bytes(msg))

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(b"".join(map(text, b"1 2 3 4 5 6 7".split())))
        for _ in range(2):
            peer.expect_frame(TEXT, b"still usable")
        peer.close_handshake()

    raised: list[bytes] = []
    with serve_both(script) as server, server.client(on_msg) as client:
        while client.is_open:
            try:
                if drive == "run":
                    client.run()
                else:
                    client.poll(SOON)
            except Stop as stop:
                raised.append(stop.args[0])
                assert inbox.payloads[-1] == raised[-1]
                assert client.is_open
                client.send("still usable")
            except hftws.ConnectionClosed as end:
                assert (drive, end.code) == ("poll", 1000)
    assert inbox.payloads == b"1 2 3 4 5 6 7".split()
    assert raised == [b"2", b"6"]


def test_every_message_may_raise(serve_both: Serve) -> None:
    count = 500
    seen: list[bytes] = []

    def on_msg(msg: hftws.Message) -> None:
        seen.append(bytes(msg))
        raise Stop

    with serve_both(talk(*(str(index).encode() for index in range(count)))) as server:
        with server.client(on_msg) as client:
            for _ in range(count):
                with pytest.raises(Stop):
                    client.poll(SOON)
            client.run()
    assert seen == [str(index).encode() for index in range(count)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError])
def test_exceptions_of_every_kind_come_out(serve_both: Serve, error: type[BaseException]) -> None:
    def on_msg(msg: hftws.Message) -> None:
        if msg.is_text:
            raise error("from the callback")

    with connected(serve_both, on_msg) as (client, peer):
        peer.send(binary(b"1") + text("2") + binary(b"3"))
        with pytest.raises(error, match="from the callback"):
            client.run()
        assert client.poll(SOON) == 1
        assert client.is_open


def test_what_a_callback_returns_is_no_matter(serve_both: Serve) -> None:
    results = iter([None, True, 0, NotImplemented, ValueError("not raised"), object()])
    with connected(serve_both, lambda msg: next(results)) as (client, peer):
        peer.send(text("x") * 6)
        assert client.poll(SOON) == 6


def test_callback_that_takes_other_arguments_raises_typeerror(serve_both: Serve) -> None:
    with connected(serve_both, lambda: None) as (client, peer):  # type: ignore[arg-type]
        peer.send(text("x") + text("y"))
        for _ in range(2):
            with pytest.raises(TypeError, match="argument"):
                client.poll(SOON)
        assert client.is_open


def test_exception_in_on_open_leaves_the_connection_open(serve_both: Serve) -> None:
    def on_open(client: hftws.Client) -> None:
        assert client.is_open
        raise Stop

    inbox = Inbox()
    with serve_both(talk(b"hello")) as server:
        client = server.client(inbox, on_open=on_open)
        with pytest.raises(Stop):
            client.connect()
        assert client.is_open
        client.run()
    assert inbox.payloads == [b"hello"]


def test_exception_in_on_close_comes_out_once(serve_both: Serve) -> None:
    def on_close(client: hftws.Client, code: int, reason: str) -> None:
        raise Stop(code, reason)

    with serve_both(talk(b"hello")) as server:
        client = server.client(on_close=on_close)
        client.connect()
        with pytest.raises(Stop) as caught:
            client.run()
        assert caught.value.args == (1000, "")
        client.run()
        client.close()
    assert client.close_code == 1000


# ---- on_open and on_close. ---------------------------------------------------------------------


def test_on_open_comes_first_and_on_close_last(serve_both: Serve) -> None:
    """They are called once for each connection, in order, with the client."""
    calls: list[tuple[Any, ...]] = []
    with serve_both(talk(b"1", b"2")) as server:
        client = server.client(
            lambda msg: calls.append(("msg", bytes(msg))),
            on_open=lambda *args: calls.append(("open", *args)),
            on_close=lambda *args: calls.append(("close", *args)),
        )
        for _ in range(2):
            client.connect()
            client.run()
            with pytest.raises(hftws.ConnectionClosed):
                client.poll()
            client.close()
    once = [("open", client), ("msg", b"1"), ("msg", b"2"), ("close", client, 1000, "")]
    assert calls == once * 2


def test_on_close_is_told_every_kind_of_end(serve_both: Serve) -> None:
    ends: list[tuple[int, str]] = []

    def said_close(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.close_handshake(4000, "bye: ü")

    def hung_up(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.hang_up()

    def reset(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(connected_now)
        peer.reset()

    def violated(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(encode_frame(0xF))
        peer.expect_close(1002)
        peer.hang_up()

    connected_now = threading.Event()
    with serve_both([said_close, hung_up, reset, violated]) as server:
        client = server.client(on_close=lambda _, code, reason: ends.append((code, reason)))
        for code in (4000, 1006, 1006, 1002):
            connected_now.clear()
            client.connect()
            connected_now.set()
            with pytest.raises((hftws.ConnectionClosed, hftws.ProtocolError)):
                client.run()
            assert ends[-1][0] == client.close_code == code
            assert ends[-1][1] == client.close_reason
    assert len(ends) == 4
    assert ends[0][1] == "bye: ü"


def test_on_close_is_not_called_when_there_was_no_open_connection(serve_both: Serve) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    calls: list[Any] = []
    with serve_both(refuse) as server:
        client = server.client(on_open=calls.append, on_close=lambda *end: calls.append(end))
        with pytest.raises(hftws.HandshakeError):
            client.connect()
        client.close()
    assert calls == []


def test_client_can_connect_again_from_scratch_after_on_close(serve_both: Serve) -> None:
    """Not inside of the callback: the call that is under way has to end first."""
    refused: list[str] = []

    def on_close(client: hftws.Client, code: int, reason: str) -> None:
        with pytest.raises(RuntimeError) as caught:
            client.connect()
        refused.append(str(caught.value))

    inbox = Inbox()
    with serve_both(talk(b"x")) as server:
        client = server.client(inbox, on_close=on_close)
        for _ in range(3):
            client.connect()
            client.run()
    assert inbox.payloads == [b"x"] * 3
    assert len(refused) == 3
    assert all("callback" in problem for problem in refused)


# ---- What the callback asks of its client. -----------------------------------------------------


@pytest.mark.parametrize("drive", ["run", "poll"])
def test_close_in_a_callback_ends_the_call_cleanly(serve_both: Serve, drive: str) -> None:
    """Messages behind it, in the same read or later, are dropped and counted."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(text("1") + text("2") + text("3") + text("4"))
        frame = peer.expect_frame(CLOSE)
        assert (frame.close_code, frame.close_reason) == (4001, "enough")
        peer.send(text("5"))
        peer.send_frame(CLOSE, frame.payload)
        peer.hang_up()

    inbox = Inbox()
    results: list[Any] = []

    def on_msg(msg: hftws.Message) -> None:
        inbox(msg)
        if msg.data == b"2":
            results.append(client.close(4001, "enough"))
            results.append(client.close())  # Calling it twice has the same effect.
            assert not client.is_open
            assert msg.data == b"2"
            with pytest.raises(hftws.ConnectionClosed):
                client.send("too late")

    with serve_both(script) as server:
        client = server.client(on_msg, on_close=lambda *end: results.append(end))
        client.connect()
        if drive == "run":
            client.run()
        else:
            assert client.poll(SOON) == 2
            poll_until_closed(client)
    assert inbox.payloads == [b"1", b"2"]
    assert results == [None, None, (client, 4001, "enough")]
    assert client.stats()["messages_dropped"] == 3


def test_what_on_msg_returns_may_close_the_client_when_it_goes(serve_both: Serve) -> None:
    """Its ``__del__`` runs within the callback, and may ask what a callback may."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(text("1") + text("2"))
        assert peer.answer_close().close_code == 4001

    problems: list[BaseException] = []

    class Result:
        def __del__(self) -> None:
            try:
                client.close(4001, "gone")
            except RuntimeError as error:
                problems.append(error)

    inbox = Inbox()

    def on_msg(msg: hftws.Message) -> Result:
        inbox(msg)
        return Result()

    with serve_both(script) as server:
        client = server.client(on_msg)
        client.connect()
        client.run()
    assert problems == []
    assert inbox.payloads == [b"1"]
    assert (client.close_code, client.close_reason) == (4001, "gone")


def poll_until_closed(client: hftws.Client) -> None:
    """ConnectionClosed reports the end, also when it is an ordinary one."""
    with pytest.raises(hftws.ConnectionClosed):
        poll_until(client, lambda: False)


def test_close_in_a_callback_keeps_a_kept_message(serve_both: Serve) -> None:
    kept: list[hftws.Message] = []

    def on_msg(msg: hftws.Message) -> None:
        client.close()
        kept.append(msg)

    with serve_both(answer_after(text("keep me") + text("drop me"))) as server:
        with server.client(on_msg) as client:
            client.run()
    assert [bytes(msg) for msg in kept] == [b"keep me"]


def answer_after(wire: bytes) -> Callable[[Peer], None]:
    """A script: this, and then the CLOSE handshake of the client."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(wire)
        peer.answer_close()

    return script


def test_close_in_on_open_ends_the_connection(serve_both: Serve) -> None:
    inbox = Inbox()
    with serve_both(answer_after(text("unwanted"))) as server:
        client = server.client(inbox, on_open=lambda client: client.close(1001))
        client.connect()
        assert not client.is_open
        client.run()
    assert client.close_code == 1001
    assert inbox.payloads == []


def test_send_and_ping_in_callbacks(serve_both: Serve) -> None:
    def on_msg(msg: hftws.Message) -> None:
        client.send(b"echo: " + bytes(msg.data), text=msg.is_text)
        client.ping(msg)

    def on_open(opened: hftws.Client) -> None:
        opened.send("subscribe")

    with connected(serve_both, on_msg, on_open=on_open) as (client, peer):
        peer.expect_frame(TEXT, b"subscribe")
        peer.send(text("1") + encode_frame(PING, b"p") + binary(b"2"))
        assert client.poll(SOON) == 2
        expected = [
            (TEXT, b"echo: 1"),
            (PING, b"1"),
            (PONG, b"p"),
            (BINARY, b"echo: 2"),
            (PING, b"2"),
        ]
        for opcode, payload in expected:
            peer.expect_frame(opcode, payload)


def test_driving_from_a_callback_is_refused(serve_both: Serve) -> None:
    refused: list[str] = []

    def on_msg(msg: hftws.Message) -> None:
        for drive in (client.poll, client.run, client.connect):
            with pytest.raises(RuntimeError, match="callback") as caught:
                drive()
            refused.append(str(caught.value))
        assert msg.data == b"x"

    with connected(serve_both, on_msg) as (client, peer):
        peer.send(text("x") * 3)
        assert client.poll(SOON) == 3
    assert len(refused) == 9


def test_driving_another_client_from_a_callback_is_fine(serve_both: Serve) -> None:
    inner = Inbox()
    outer = Inbox()

    def on_msg(msg: hftws.Message) -> None:
        outer(msg)
        with serve_both(talk(b"inner " + bytes(msg))) as server:
            with server.client(inner) as other:
                other.run()
        assert msg.data == outer.payloads[-1]

    with serve_both(talk(b"1", b"2")) as server:
        with server.client(on_msg) as client:
            client.run()
    assert outer.payloads == [b"1", b"2"]
    assert inner.payloads == [b"inner 1", b"inner 2"]


def test_looking_at_the_client_in_a_callback_is_fine(serve_both: Serve) -> None:
    def on_msg(msg: hftws.Message) -> None:
        assert client.is_open
        assert client.stats()["messages"] == 1
        assert client.info()["url"] == client.url
        assert client.fileno() >= 0
        assert not client.wants_write
        assert repr(client).endswith(" open>")
        assert client.close_code is None

    with connected(serve_both, on_msg) as (client, peer):
        peer.send_text("x")
        assert client.poll(SOON) == 1


def test_callback_may_drop_the_last_reference_to_its_client(serve_both: Serve) -> None:
    """The call that is under way keeps it alive to its end."""
    holder: list[hftws.Client] = []
    inbox = Inbox()

    def on_msg(msg: hftws.Message) -> None:
        inbox(msg)
        holder.clear()
        gc.collect()
        assert msg.data == inbox.payloads[-1]

    with serve_both(talk(b"1", b"2", b"3")) as server:
        holder.append(server.client(on_msg))
        gone = weakref.ref(holder[0])
        holder[0].connect()
        holder[0].run()
        gc.collect()
        assert gone() is None
    assert inbox.payloads == [b"1", b"2", b"3"]


def test_callback_may_drop_the_last_reference_to_an_open_client(serve_both: Serve) -> None:
    """The client is freed when poll() returns, and warns that nobody has closed it."""
    holder: list[hftws.Client] = []
    inbox = Inbox()

    def on_msg(msg: hftws.Message) -> None:
        inbox(msg)
        holder.clear()
        gc.collect()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(text("1") + text("2"))
        assert peer.recv_all() == b""

    with serve_both(script) as server:
        holder.append(server.client(on_msg))
        gone = weakref.ref(holder[0])
        holder[0].connect()
        with pytest.warns(ResourceWarning, match="unclosed client"):
            assert holder[0].poll(SOON) == 2
        assert gone() is None
    assert inbox.payloads == [b"1", b"2"]


def test_callbacks_cannot_be_replaced(serve_both: Serve) -> None:
    """An error is better than accepting the new one and never calling it."""
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        assert client.on_msg is inbox
        for name in ("on_msg", "on_open", "on_close"):
            with pytest.raises(AttributeError):
                setattr(client, name, print)
            with pytest.raises(AttributeError):
                delattr(client, name)
        peer.send_text("x")
        receive(client, inbox, 1)


@pytest.mark.parametrize("name", ["on_msg", "on_open", "on_close"])
def test_callback_that_cannot_be_called_is_told_at_once(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        hftws.Client("ws://127.0.0.1:9/", **{name: 17})


def test_slow_callback_loses_nothing(serve_both: Serve) -> None:
    """The peer sends meanwhile, more than the buffers hold: then it only has to wait."""
    count = 400
    payloads = [index.to_bytes(4, "big") * 2048 for index in range(count)]
    done = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for payload in payloads:
            peer.send_binary(payload)
        done.set()
        peer.close_handshake()

    seen: list[bytes] = []

    def on_msg(msg: hftws.Message) -> None:
        if not seen:
            done.wait(0.2)  # The peer is blocked meanwhile, or all is buffered.
        seen.append(bytes(msg.data))

    with serve_both(script) as server:
        limits = {"ring_size": 256 * 1024, "max_message_size": 10_000}
        with server.client(on_msg, **limits, receive_buffer_size=65536) as client:
            client.run()
    assert seen == payloads


# ---- Ctrl-C and other signals. -----------------------------------------------------------------

CHILD = """
import sys, time
import hftws

url, ca_file, mode, busy_poll = sys.argv[1:]

def on_msg(msg):
    print("running", flush=True)

client = hftws.Client(url, on_msg, ca_file=ca_file, busy_poll=busy_poll == "True")
client.connect()
try:
    if mode == "run":
        client.run()
    elif mode == "poll":
        while True:
            client.poll(60.0)
    elif mode == "poll(None)":
        while True:
            client.poll(None)
except KeyboardInterrupt:
    print("interrupted", client.is_open, flush=True)
client.send("leaving")
client.close()
print("closed", client.close_code, flush=True)
"""


def wait_until_asleep(pid: int) -> None:
    """Waits until the process waits in the kernel, where that can be seen."""
    stat = Path(f"/proc/{pid}/stat")
    deadline = time.monotonic() + 0.5
    while stat.exists() and time.monotonic() < deadline:
        if stat.read_text().rpartition(")")[2].split()[0] == "S":
            return
        time.sleep(0.001)


@pytest.mark.parametrize("busy_poll", [False, True])
@pytest.mark.parametrize("mode", ["run", "poll", "poll(None)"])
def test_ctrl_c_interrupts_and_leaves_the_client_usable(
    serve_both: Serve, ca_file: Path, mode: str, busy_poll: bool
) -> None:
    received: list[str] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("x")
        received.append(peer.expect_frame(TEXT).payload.decode())
        peer.answer_close()

    with serve_both(script) as server:
        command = [sys.executable, "-c", CHILD, server.url(), str(ca_file), mode, str(busy_poll)]
        environment = {**os.environ, "PYTHONPATH": str(Path(hftws.__file__).parents[1])}
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, text=True, env=environment) as child:
            try:
                assert child.stdout is not None
                assert child.stdout.readline() == "running\n"
                if not busy_poll:
                    wait_until_asleep(child.pid)
                child.send_signal(signal.SIGINT)  # The peer will not wait long for what follows.
                assert child.stdout.readline() == "interrupted True\n"
                assert child.stdout.readline() == "closed 1000\n"
                assert child.wait(SOON) == 0
            finally:
                child.kill()
    assert received == ["leaving"]


@pytest.mark.parametrize("busy_poll", [False, True])
def test_signal_handler_that_does_not_raise_lets_run_go_on(
    serve_both: Serve, busy_poll: bool
) -> None:
    caught: list[int] = []
    handled = threading.Event()

    def handler(signum: int, frame: object) -> None:
        caught.append(signum)
        handled.set()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for _ in range(3):
            handled.clear()
            os.kill(os.getpid(), signal.SIGUSR1)
            peer.wait(handled)
        peer.send_text("after")
        peer.close_handshake()

    inbox = Inbox()
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with serve_both(script) as server:
            with server.client(inbox, busy_poll=busy_poll) as client:
                client.run()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught == [signal.SIGUSR1] * 3
    assert inbox.payloads == [b"after"]


@pytest.mark.parametrize("busy_poll", [False, True])
def test_signal_handler_may_close_the_client(serve_both: Serve, busy_poll: bool) -> None:
    """As a service does that is stopped: run() sends CLOSE and returns."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("x")
        peer.wait(running)
        os.kill(os.getpid(), signal.SIGUSR1)
        frame = peer.answer_close()
        assert (frame.close_code, frame.close_reason) == (1001, "stopping")

    running = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: client.close(1001, "stopping"))
    try:
        with serve_both(script) as server:
            client = server.client(lambda msg: running.set(), busy_poll=busy_poll)
            client.connect()
            client.run()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert client.close_code == 1001


# ---- Threads. ----------------------------------------------------------------------------------


@pytest.mark.parametrize("busy_poll", [False, True])
def test_other_threads_run_while_the_client_waits(serve_both: Serve, busy_poll: bool) -> None:
    counted = threading.Event()

    def count() -> None:
        for _ in range(2000):
            time.sleep(0)
        counted.set()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(counted)
        peer.close_handshake()

    thread = threading.Thread(target=count, daemon=True)
    with serve_both(script) as server:
        with server.client(busy_poll=busy_poll) as client:
            thread.start()
            client.run()
            assert counted.is_set()
    thread.join()


FLOOD = """
import select, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sock = listener.accept()[0]
import base64, hashlib
request = b""
while b"\\r\\n\\r\\n" not in request:
    request += sock.recv(65536)
key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\\r\\n")[0]
accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
sock.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\n"
    b"Connection: Upgrade\\r\\nSec-WebSocket-Accept: " + accept + b"\\r\\n\\r\\n")
block = b"\\x82\\x04tick" * 50_000
for index in range(int(sys.argv[1])):
    if index > 2 and select.select([sys.stdin], [], [], 0)[0]:
        break
    sock.sendall(block)
sock.sendall(b"\\x88\\x00")
"""


@pytest.mark.parametrize(
    ("on_msg", "blocks_max"),  # Ten times as many as are needed.
    [(None, 10_000), (id, 4_000)],
    ids=["no-callback", "builtin"],
)
def test_other_threads_run_while_a_peer_never_pauses(
    on_msg: Callable[[Any], Any] | None, blocks_max: int
) -> None:
    """There is always more to read, so run() never waits; it must let other threads run anyway.

    The peer goes on until the other thread has had its turns, or so long that it gets none.
    """
    ticked = threading.Event()

    def tick() -> None:
        while client.stats()["messages"] == 0:
            time.sleep(0.001)
        for _ in range(30):
            time.sleep(0.001)
        ticked.set()
        assert flood.stdin is not None
        flood.stdin.close()

    command = [sys.executable, "-c", FLOOD, str(blocks_max)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as flood:
        try:
            assert flood.stdout is not None
            client = hftws.Client(f"ws://127.0.0.1:{int(flood.stdout.readline())}/", on_msg)
            client.connect()
            thread = threading.Thread(target=tick, daemon=True)
            thread.start()
            client.run()
            assert ticked.is_set()
            thread.join()
        finally:
            flood.kill()
    assert client.stats()["messages"] > 100_000


def test_a_client_is_driven_by_one_thread_at_a_time(serve_both: Serve) -> None:
    """While one thread waits in run(), another may only read the client's state."""
    refused: dict[str, BaseException | None] = {}

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("x")
        peer.wait(tried)
        peer.close_handshake()

    def reserve() -> None:
        with client.reserve(1, text=True) as view:
            view[0] = 65

    def try_all() -> None:
        assert waiting.wait(SOON)
        time.sleep(0.05)  # Now run() has surely come to its wait.
        ways: dict[str, Callable[[], Any]] = {
            "run": client.run,
            "poll": client.poll,
            "connect": client.connect,
            "close": client.close,
            "send": lambda: client.send("x"),
            "ping": client.ping,
            "reserve": reserve,
        }
        for name, way in ways.items():
            try:
                refused[name] = way()
            except BaseException as error:
                refused[name] = error
        assert client.is_open
        assert client.stats()["messages"] == 1
        tried.set()

    waiting, tried = threading.Event(), threading.Event()
    thread = threading.Thread(target=try_all, daemon=True)
    with serve_both(script) as server:
        with server.client(lambda msg: waiting.set()) as client:
            thread.start()
            client.run()
    thread.join()
    assert len(refused) == 7
    assert {name for name, error in refused.items() if type(error) is not RuntimeError} == set()
    assert {name for name, error in refused.items() if "thread" not in str(error)} == set()


def test_client_may_move_from_thread_to_thread(serve_both: Serve) -> None:
    """Using it one after the other is fine: no thread owns it."""
    inbox = Inbox()
    counts: list[int] = []
    with connected(serve_both, inbox) as (client, peer):
        for index in range(5):
            peer.send_text(str(index))
            thread = threading.Thread(target=lambda: counts.append(client.poll(SOON)), daemon=True)
            thread.start()
            thread.join()
            client.send(b"between")
            peer.expect_frame(BINARY, b"between")
    assert counts == [1] * 5
    assert inbox.payloads == [b"0", b"1", b"2", b"3", b"4"]


def test_close_frame_and_messages_in_one_read_end_in_order(serve_both: Serve) -> None:
    """A callback that raises on the last message does not lose the close behind it."""

    def on_msg(msg: hftws.Message) -> None:
        raise Stop

    with connected(serve_both, on_msg) as (client, peer):
        peer.send(text("x") + encode_frame(CLOSE, close_payload(4000, "bye")))
        with pytest.raises(Stop):
            client.run()
        assert client.is_open
        poll_until(client, lambda: not client.is_open)
        peer.expect_close(4000)
        peer.close()
        with pytest.raises(hftws.ConnectionClosed) as caught:
            client.run()
    assert (caught.value.code, caught.value.reason) == (4000, "bye")
