"""What the program sends arrives as whole frames, in order, or not at all.

The peer's decoder (servers.py) unmasks, and shares no code with the client's encoder.
"""

from __future__ import annotations

import array
import gc
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from frames import (
    KIB,
    RING_MIN,
    SMALL,
    SOON,
    Inbox,
    Serve,
    connected,
    poll_until,
    receive,
    text,
)
from servers import BINARY, CLOSE, PING, PONG, TEXT, Frame, Peer, encode_frame

import hftws

# ---- Types. ------------------------------------------------------------------------------------

NUMBERS = array.array("d", [1.5, -2.5])


@pytest.mark.parametrize(
    ("data", "options", "opcode", "payload"),
    [
        ("grüße", {}, TEXT, "grüße".encode()),
        ("grüße", {"text": True}, TEXT, "grüße".encode()),
        ("grüße", {"text": None}, TEXT, "grüße".encode()),
        ("", {}, TEXT, b""),
        ("a\0b", {}, TEXT, b"a\0b"),
        (b"bytes", {}, BINARY, b"bytes"),
        (b"bytes", {"text": False}, BINARY, b"bytes"),
        (b"bytes", {"text": None}, BINARY, b"bytes"),
        (b"bytes", {"text": True}, TEXT, b"bytes"),
        (b"", {"text": True}, TEXT, b""),
        (b"", {}, BINARY, b""),
        (bytearray(b"array"), {}, BINARY, b"array"),
        (bytearray(b"array"), {"text": True}, TEXT, b"array"),
        (memoryview(b"view")[1:], {}, BINARY, b"iew"),
        (memoryview(b"12345678").cast("I"), {}, BINARY, b"12345678"),
        (NUMBERS, {}, BINARY, NUMBERS.tobytes()),
    ],
)
def test_data_goes_as_its_kind(
    serve_both: Serve, data: Any, options: dict[str, Any], opcode: int, payload: bytes
) -> None:
    with connected(serve_both) as (client, peer):
        assert client.send(data, **options) is None
        frame = peer.expect_frame(opcode, payload)
    assert (frame.fin, frame.rsv) == (True, 0)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {}),
        ((None,), {}),
        ((1,), {}),
        (([b"a", b"b"],), {}),
        ((object(),), {"text": True}),
        (("text",), {"text": False}),
        ((b"a", True), {}),
        ((b"a",), {"txt": True}),
    ],
)
def test_wrong_arguments_raise_typeerror_and_send_nothing(
    serve_both: Serve, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with connected(serve_both) as (client, peer):
        with pytest.raises(TypeError):
            client.send(*arguments, **options)
        client.send(b"next")
        peer.expect_frame(BINARY, b"next")


def test_what_has_no_flat_bytes_is_refused(serve_both: Serve) -> None:
    with connected(serve_both) as (client, peer):
        with pytest.raises(BufferError):
            client.send(memoryview(b"12345678")[::2])
        with pytest.raises(UnicodeEncodeError):
            client.send("lone surrogate \ud800")
        released = memoryview(b"x")
        released.release()
        with pytest.raises(ValueError, match="released"):
            client.send(released)
        client.send(b"next")
        peer.expect_frame(BINARY, b"next")


def test_buffers_are_let_go_of(serve_both: Serve) -> None:
    """A bytearray can be resized again after send() and ping(), also after they failed."""
    data = bytearray(b"resize me")
    with connected(serve_both) as (client, peer):
        client.send(data)
        client.ping(data)
        data += b"!"
        peer.expect_frame(BINARY, b"resize me")
        peer.expect_frame(PING, b"resize me")
        peer.close()
        client.close()
        with pytest.raises(hftws.ConnectionClosed):
            client.send(data)
        data += b"!"


def test_message_can_be_sent_on_without_a_copy(serve_both: Serve) -> None:
    def on_msg(msg: hftws.Message) -> None:
        client.send(msg)
        client.send(msg.data, text=msg.is_text)
        client.send(msg.data[1:3])

    with connected(serve_both, on_msg) as (client, peer):
        peer.send_text("echo")
        assert client.poll(SOON) == 1
        peer.expect_frame(BINARY, b"echo")
        peer.expect_frame(TEXT, b"echo")
        peer.expect_frame(BINARY, b"ch")


# ---- Sizes. ------------------------------------------------------------------------------------


def test_sizes_around_every_form_of_the_length(serve_both: Serve) -> None:
    sizes = [0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 65534, 65535, 65536, 65537, 100_000]
    payloads = [random.Random(size).randbytes(size) for size in sizes]
    with connected(serve_both) as (client, peer):
        for payload in payloads:
            client.send(payload)
            assert peer.expect_frame(BINARY).payload == payload


def test_many_messages_arrive_in_order(serve_both: Serve) -> None:
    count = 20_000

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for index in range(count):
            peer.expect_frame(BINARY, index.to_bytes(4, "big"))
        peer.answer_close()

    with serve_both(script) as server, server.client() as client:
        for index in range(count):
            client.send(index.to_bytes(4, "big"))
            if index % 100 == 0:
                client.poll()


def test_message_larger_than_the_socket_takes_waits_and_goes_out(serve_both: Serve) -> None:
    """The peer reads only when send() has returned: what the socket left goes out with polls."""
    size = 6 * 1024 * KIB
    payload = random.Random(6).randbytes(size)
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(go)
        assert peer.expect_frame(BINARY).payload == payload
        peer.expect_frame(TEXT, b"behind it")
        peer.send_text("thanks")
        peer.answer_close()

    inbox = Inbox()
    with serve_both(script) as server:
        with server.client(inbox, send_buffer_size=64 * KIB) as client:
            client.send(payload)
            client.send("behind it")
            assert client.wants_write
            client.poll()
            assert client.wants_write  # Nobody has read.
            go.set()
            receive(client, inbox, 1)
            assert not client.wants_write
    assert inbox.payloads == [b"thanks"]


@pytest.mark.parametrize("busy_poll", [False, True])
def test_run_sends_what_waits(serve_both: Serve, busy_poll: bool) -> None:
    payload = random.Random(5).randbytes(5 * 1024 * KIB)
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(go)
        assert peer.expect_frame(BINARY).payload == payload
        peer.close_handshake()

    with serve_both(script) as server:
        options = {"send_buffer_size": 64 * KIB, "busy_poll": busy_poll}
        with server.client(**options) as client:
            client.send(payload)
            assert client.wants_write
            go.set()
            client.run()


def test_close_sends_what_waits(serve_both: Serve) -> None:
    payload = random.Random(5).randbytes(3 * 1024 * KIB)
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(go)
        assert peer.expect_frame(BINARY).payload == payload
        assert peer.answer_close().close_code == 4000

    with serve_both(script) as server:
        client = server.client(send_buffer_size=64 * KIB)
        client.connect()
        client.send(payload)
        assert client.wants_write
        go.set()
        client.close(4000, "all said")
    assert client.close_code == 4000


# ---- A full ring. ------------------------------------------------------------------------------


def send_bytes(client: hftws.Client, payload: bytes) -> tuple[int, bytes]:
    client.send(payload)
    return BINARY, payload


def send_str(client: hftws.Client, payload: bytes) -> tuple[int, bytes]:
    client.send(payload.decode())
    return TEXT, payload


def send_reserved(client: hftws.Client, payload: bytes) -> tuple[int, bytes]:
    with client.reserve(len(payload), text=False) as view:
        view[:] = payload
    return BINARY, payload


WAYS = (send_bytes, send_str, send_reserved)


def fill(client: hftws.Client, size: int) -> list[tuple[int, bytes]]:
    """Sends in every way until the ring is full for a while; gives what was taken.

    For a while, because the kernel's buffers may take more later.
    """
    taken: list[tuple[int, bytes]] = []
    refusals = 0
    while refusals < 6:
        payload = (str(len(taken)) + "." * size)[:size].encode()
        before = client.stats()
        try:
            taken.append(WAYS[(len(taken) + refusals) % 3](client, payload))
        except BufferError as error:
            assert "full" in str(error)
            assert client.stats() == before
            refusals += 1
            client.poll(0.01)
        else:
            refusals = 0
    return taken


def expect_all(peer: Peer, taken: list[tuple[int, bytes]]) -> None:
    """Exactly these frames arrive, whole and in order."""
    for opcode, payload in taken:
        frame = peer.expect_frame(opcode)
        assert frame.payload == payload
        assert (frame.fin, frame.rsv) == (True, 0)


#: Small buffers, so that they are soon full.
NARROW = {"send_ring_size": RING_MIN, "send_buffer_size": 16 * KIB}


@pytest.mark.parametrize("size", [5, 100, 5000, 100_000])
def test_full_ring_raises_buffererror_and_half_sends_nothing(serve_both: Serve, size: int) -> None:
    """What the peer reads later are exactly the frames that were taken, in order."""
    go = threading.Event()
    taken: list[tuple[int, bytes]] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(go)
        expect_all(peer, taken)
        peer.send_text("got it")
        peer.expect_frame(TEXT, b"room again")
        peer.answer_close()

    inbox = Inbox()
    with serve_both(script) as server, server.client(inbox, **NARROW) as client:
        taken += fill(client, size)
        assert client.is_open
        assert client.wants_write
        stats = client.stats()
        assert (stats["messages_sent"], stats["bytes_sent"]) == (len(taken), len(taken) * size)
        go.set()
        receive(client, inbox, 1)
        client.send("room again")


def test_send_alone_goes_on_when_there_is_room_again(serve_both: Serve) -> None:
    """A program that only sends, and tries again after BufferError, must succeed in the end."""
    count = 300
    payload = bytes(50_000)
    refused = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(refused)
        for _ in range(count):
            assert peer.expect_frame(BINARY).payload == payload
        peer.answer_close()

    options = {"send_ring_size": RING_MIN, "send_buffer_size": 128 * KIB}
    with serve_both(script) as server, server.client(**options) as client:
        for _ in range(count):
            deadline = time.monotonic() + SOON
            while True:
                try:
                    client.send(payload)
                    break
                except BufferError:
                    refused.set()
                    assert time.monotonic() < deadline, "send() does not make room"
                    time.sleep(0.0001)  # Lets the server's thread run.
    assert refused.is_set()


@pytest.mark.parametrize("seed", range(4))
def test_random_sends_into_a_ring_that_is_often_full(serve_both: Serve, seed: int) -> None:
    """Whatever send() took arrives once, whole and in order; whatever it refused never.

    The peer reads some frames at a time, and goes on when the ring has been full once more.
    """
    rng = random.Random(seed)
    taken: list[tuple[int, bytes]] = []
    arrived: list[Frame] = []
    go_on, over = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        # Otherwise the kernel would soon have room for all of them.
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
        peer.accept_upgrade()
        while (frame := peer.read_frame()).opcode != CLOSE:
            arrived.append(frame)
            if len(arrived) % 60 == 0 and not over.is_set():
                peer.wait(go_on)
                go_on.clear()
        peer.send_frame(CLOSE, frame.payload)
        peer.hang_up()

    full = 0
    options = {"send_ring_size": RING_MIN, "send_buffer_size": 128 * KIB}
    with serve_both(script) as server, server.client(**options) as client:
        for index in range(1500):
            size = rng.choice([0, 1, 100, 126, 1000, 70_000, 130_000])
            payload = (str(index) + " " * size)[:size].encode()
            try:
                if rng.random() < 0.2:
                    with client.reserve(size, text=True) as view:
                        view[:] = payload
                    taken.append((TEXT, payload))
                elif rng.random() < 0.1:
                    client.ping(payload[:125])
                    taken.append((PING, payload[:125]))
                else:
                    client.send(payload)
                    taken.append((BINARY, payload))
            except BufferError:
                full += 1
                go_on.set()
                client.poll(0.001)
        over.set()
        go_on.set()
    assert full > 10
    assert [(frame.opcode, frame.payload) for frame in arrived] == taken
    assert all(frame.fin and frame.rsv == 0 for frame in arrived)


def never_fits(client: hftws.Client, size: int) -> bool:
    """Whether the error says that a message can never fit; then nothing is queued."""
    try:
        client.send(bytes(size))
    except ValueError as error:
        assert str(size) in str(error)
        return True
    except BufferError:
        return False
    return False


@pytest.mark.parametrize("size", [RING_MIN - 200, RING_MIN - 1, RING_MIN, RING_MIN + 1, 2**24])
def test_message_that_can_never_fit_raises_valueerror(serve_both: Serve, size: int) -> None:
    """Not BufferError: a program that waits for room and tries again would never end."""
    with connected(serve_both) as (client, peer):
        with pytest.raises(ValueError, match=str(size)):
            client.send(bytes(size))
        with pytest.raises(ValueError, match=str(size)):
            client.send("x" * size)
        with pytest.raises(ValueError, match=str(size)):
            with client.reserve(size, text=False):
                pytest.fail("there is no such room")
        client.send("fits")
        peer.expect_frame(TEXT, b"fits")


def test_largest_message_that_fits_an_empty_ring_is_sent(serve_both: Serve) -> None:
    """Between "can be sent" and "never fits" there is no size that only raises BufferError."""
    got: list[int] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        got.append(len(peer.expect_frame(BINARY).payload))
        peer.answer_close()

    with serve_both(script) as server, server.client(**SMALL) as client:
        size = RING_MIN
        while never_fits(client, size):
            size -= 1
        assert client.stats()["messages_sent"] == 1
        poll_until(client, lambda: bool(got))
    assert got == [size]
    assert size > RING_MIN - KIB


# ---- Masks. ------------------------------------------------------------------------------------


def test_masks_differ_from_frame_to_frame(serve_both: Serve) -> None:
    with connected(serve_both) as (client, peer):
        masks: Counter[bytes | None] = Counter()
        for index in range(3000):
            client.send(b"the same payload")
            masks[peer.expect_frame(BINARY, b"the same payload").mask] += 1
            if index % 3 == 0:
                client.ping(b"p")
                masks[peer.expect_frame(PING, b"p").mask] += 1
            if index % 3 == 1:
                with client.reserve(3, text=True) as view:
                    view[:] = b"abc"
                masks[peer.expect_frame(TEXT, b"abc").mask] += 1
    # 5000 of 2^32: a few may meet by chance (0.003 are to be expected), never many.
    assert len(masks) > 4990
    octets = Counter(octet for mask in masks for octet in mask or b"")
    assert len(octets) == 256
    assert max(octets.values()) < 2 * sum(octets.values()) / 256


def test_masks_are_other_ones_in_the_next_connection(serve_both: Serve) -> None:
    masks = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        masks.append(tuple(peer.expect_frame(TEXT, b"x").mask for _ in range(4)))
        peer.answer_close()

    with serve_both(script) as server:
        client = server.client()
        for _ in range(3):
            client.connect()
            for _ in range(4):
                client.send("x")
            client.close()
    assert len(set(masks)) == 3


def test_zero_mask_is_on_the_wire_as_such(serve: Serve) -> None:
    with connected(serve, mask="zero") as (client, peer):
        client.send("plain to see")
        assert peer.recv_exactly(6 + 12) == b"\x81\x8c\0\0\0\0plain to see"
        client.ping(b"p")
        assert peer.recv_exactly(7) == b"\x89\x81\0\0\0\0p"
        with client.reserve(4, text=False) as view:
            view[:] = b"abcd"
        assert peer.recv_exactly(10) == b"\x82\x84\0\0\0\0abcd"


def test_random_mask_hides_the_payload_on_the_wire(serve: Serve) -> None:
    with connected(serve) as (client, peer):
        client.send("secret" * 20)
        assert b"secret" not in peer.recv_exactly(6 + 120)


# ---- When it cannot be sent. -------------------------------------------------------------------


def every_way_to_send(client: hftws.Client) -> list[Any]:
    """The ways, as functions."""

    def reserve() -> None:
        with client.reserve(1, text=True) as view:
            view[0] = 65

    return [lambda: client.send("x"), lambda: client.send(b""), client.ping, reserve]


def test_nothing_can_be_sent_before_connect() -> None:
    client = hftws.Client("ws://127.0.0.1:9/")
    for way in every_way_to_send(client):
        with pytest.raises(RuntimeError, match="connect"):
            way()


def test_nothing_can_be_sent_after_close(serve_both: Serve) -> None:
    with connected(serve_both) as (client, peer):
        peer.close()
        client.close()
        for way in every_way_to_send(client):
            with pytest.raises(hftws.ConnectionClosed):
                way()


def test_nothing_can_be_sent_after_the_peer_said_close(serve_both: Serve) -> None:
    """The closing handshake is not over yet, but the client has sent CLOSE."""
    with connected(serve_both) as (client, peer):
        peer.send_close(1001, "restart")
        poll_until(client, lambda: not client.is_open)
        for way in every_way_to_send(client):
            with pytest.raises(hftws.ConnectionClosed) as caught:
                way()
            assert caught.value.code == 1001
        peer.expect_close(1001)
        peer.close()
        client.run()


CHILD = """
import select, sys, hftws
client = hftws.Client(sys.argv[1], ca_file=sys.argv[2] or None, close_timeout=0.2)
client.connect()
print("connected", flush=True)
poll = select.poll()
poll.register(client.info()["descriptor"], select.POLLHUP)
poll.poll()  # Until the kernel knows of the reset.
errors = set()
for _ in range(50):
    for way in (lambda: client.send(b"x" * 10_000), client.ping):
        try:
            way()
        except hftws.ConnectionClosed as error:
            errors.add(error.code)
try:
    client.run()
except hftws.ConnectionClosed as error:
    print("run:", error.code, error.reason, flush=True)
try:
    client.send("x")
except hftws.ConnectionClosed:
    client.close()
    print("alive", errors, flush=True)
"""


def test_broken_pipe_is_an_exception_not_a_signal(serve_both: Serve, ca_file: Path) -> None:
    """The peer resets, the client sends on and on, with SIGPIPE's default action: to die."""
    connected = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(connected)
        peer.reset()

    with serve_both(script) as server:
        command = [sys.executable, "-c", CHILD, server.url(), str(ca_file)]
        environment = {**os.environ, "PYTHONPATH": str(Path(hftws.__file__).parents[1])}
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            restore_signals=True,
            preexec_fn=default_sigpipe,
        ) as child:
            try:
                assert child.stdout is not None
                assert child.stdout.readline() == "connected\n"
                connected.set()
                output, _ = child.communicate(timeout=SOON)
            finally:
                child.kill()
    assert child.returncode == 0
    told, alive = output.splitlines()
    assert told.startswith("run: 1006 the peer ")
    assert alive == "alive {1006}"


def default_sigpipe() -> None:
    """Python ignores SIGPIPE, and children inherit that."""
    import signal

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def test_reason_of_the_peer_is_told_although_sending_failed(serve_both: Serve) -> None:
    """The peer sends CLOSE and hangs up; the client, which does not read, finds a broken socket."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(text("last") + encode_frame(CLOSE, b"\x0f\xa1banned"))
        peer.close()
        closed.set()

    closed = threading.Event()
    inbox = Inbox()
    with serve_both(script) as server:
        client = server.client(inbox)
        client.connect()
        assert closed.wait(SOON)
        client.send("into the void")
        with pytest.raises(hftws.ConnectionClosed) as caught:
            client.run()
    # A reset may overtake what the peer has sent; what has arrived is reported.
    if inbox.messages:
        assert inbox.payloads == [b"last"]
    assert caught.value.code in (4001, 1006)


# ---- Pings. ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "payload"),
    [
        ((), b""),
        ((b"",), b""),
        ((b"payload",), b"payload"),
        (("grüße",), "grüße".encode()),
        ((bytearray(b"x" * 125),), b"x" * 125),
        ((memoryview(b"view"),), b"view"),
    ],
)
def test_ping_carries_its_payload(
    serve_both: Serve, arguments: tuple[Any, ...], payload: bytes
) -> None:
    with connected(serve_both) as (client, peer):
        client.ping(*arguments)
        assert peer.expect_frame(PING, payload).fin
        assert client.stats()["pings_sent"] == 1


def test_ping_refuses_what_no_control_frame_can_carry(serve_both: Serve) -> None:
    with connected(serve_both) as (client, peer):
        for payload in (b"x" * 126, "ü" * 63, bytes(10_000)):
            with pytest.raises(ValueError, match="125"):
                client.ping(payload)
        for payload in (1, None, [1]):
            with pytest.raises(TypeError):
                client.ping(payload)  # type: ignore[arg-type]
        client.ping(b"fine")
        peer.expect_frame(PING, b"fine")


def test_pong_is_counted(serve_both: Serve) -> None:
    with connected(serve_both) as (client, peer):
        client.ping(b"p")
        peer.send_frame(PONG, peer.expect_frame(PING).payload)
        poll_until(client, lambda: client.stats()["pongs"] == 1)
        assert client.stats()["messages"] == 0


# ---- Control frames and a full ring. -----------------------------------------------------------


def test_pongs_fit_a_ring_that_is_full_of_messages(serve_both: Serve) -> None:
    """Room is reserved for control frames; when it is used up, the newest ping gets its pong."""
    go = threading.Event()
    sent: list[tuple[int, bytes]] = []
    pongs: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(full)
        peer.send(b"".join(encode_frame(PING, str(i).encode() * 10) for i in range(50)))
        peer.send_text("pinged")
        peer.wait(go)
        messages = []
        while len(messages) < len(sent) or pongs[-1:] != [b"49" * 10]:
            frame = peer.read_frame()
            if frame.opcode == PONG:
                pongs.append(frame.payload)
            else:
                messages.append((frame.opcode, frame.payload))
        assert messages == sent
        peer.send_text("done")
        peer.expect_frame(TEXT, b"nothing in between")
        peer.answer_close()

    full = threading.Event()
    inbox = Inbox()
    with serve_both(script) as server, server.client(inbox, **NARROW) as client:
        sent += fill(client, 1000)
        sent += fill(client, 1)
        full.set()
        receive(client, inbox, 1)
        go.set()
        receive(client, inbox, 2)
        client.send("nothing in between")
    assert client.stats()["pings"] == 50
    # Each at most once, in order, and the newest for certain (RFC 6455, section 5.5.3).
    assert pongs == sorted(set(pongs), key=lambda pong: int(pong[: len(pong) // 10]))
    assert pongs[-1] == b"49" * 10


@pytest.mark.parametrize("ping_size", [0, 2, 20, 125])
def test_close_goes_out_although_pings_filled_the_ring(serve_both: Serve, ping_size: int) -> None:
    """Pongs must not take the room that the CLOSE needs."""
    pinged = threading.Event()
    go = threading.Event()
    sent: list[tuple[int, bytes]] = []
    closed: list[Frame] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(pinged)
        peer.send(encode_frame(PING, bytes(ping_size)) * 100)
        peer.send_text("pinged")
        peer.wait(go)
        messages = []
        while (frame := peer.read_frame()).opcode != CLOSE:
            if frame.opcode != PONG:
                messages.append((frame.opcode, frame.payload))
        closed.append(frame)
        assert messages == sent
        peer.send_frame(CLOSE, frame.payload)
        peer.hang_up()

    inbox = Inbox()
    with serve_both(script) as server:
        client = server.client(inbox, **NARROW)
        client.connect()
        sent += fill(client, 1000)
        sent += fill(client, 1)
        pinged.set()
        receive(client, inbox, 1)
        go.set()
        client.close(4000, "r" * 123)
    assert [(frame.close_code, frame.close_reason) for frame in closed] == [(4000, "r" * 123)]
    assert client.close_code == 4000


# ---- reserve(). --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
@pytest.mark.parametrize("as_text", [False, True])
def test_reserved_frame_is_sent_at_the_end_of_the_block(
    serve_both: Serve, size: int, as_text: bool
) -> None:
    payload = random.Random(size).randbytes(size)
    with connected(serve_both) as (client, peer):
        client.send("before")
        with client.reserve(size, text=as_text) as view:
            assert (len(view), view.readonly, view.format) == (size, False, "B")
            view[:] = payload
        poll_until(client, lambda: not client.wants_write)
        assert peer.expect_frame(TEXT).payload == b"before"
        assert peer.expect_frame(TEXT if as_text else BINARY).payload == payload
        with pytest.raises(ValueError, match="released"):
            view[:1] = b"x"
        client.send("after")
        peer.expect_frame(TEXT, b"after")
        assert client.stats()["messages_sent"] == 3
        assert client.stats()["bytes_sent"] == 11 + size


def test_reserved_view_takes_every_kind_of_writing(serve_both: Serve) -> None:
    import io
    import struct

    with connected(serve_both) as (client, peer):
        with client.reserve(24, text=False) as view:
            struct.pack_into(">QQ", view, 0, 1, 2)
            assert io.BytesIO(b"tail").readinto(view[16:20]) == 4
            view[20:24].cast("I")[0] = 7
        payload = peer.expect_frame(BINARY).payload
    assert payload == struct.pack(
        ">QQ4sI", 1, 2, b"tail", int.from_bytes(struct.pack("=I", 7), "big")
    )


def test_exception_in_the_block_drops_the_frame(serve_both: Serve) -> None:
    with connected(serve_both) as (client, peer):
        with pytest.raises(ZeroDivisionError):
            with client.reserve(4, text=False) as view:
                view[:] = b"half"
                1 / 0  # noqa: B018
        with pytest.raises(ValueError, match="released"):
            view[0]
        client.send("next")
        peer.expect_frame(TEXT, b"next")
        assert client.stats()["messages_sent"] == 1


def test_nothing_else_happens_inside_the_block(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        peer.send_text("waits")
        with client.reserve(4, text=True) as view:
            others = [*every_way_to_send(client), client.poll, client.run, client.close]
            for other in [*others, client.connect]:
                with pytest.raises(RuntimeError, match=r"reserv|connected"):
                    other()
            view[:] = b"abcd"
        peer.expect_frame(TEXT, b"abcd")
        client.send("after")
        peer.expect_frame(TEXT, b"after")
        receive(client, inbox, 1)
    assert inbox.payloads == [b"waits"]


def test_reserve_inside_a_callback(serve_both: Serve) -> None:
    def on_msg(msg: hftws.Message) -> None:
        with client.reserve(len(msg), text=msg.is_text) as view:
            view[:] = msg.data

    with connected(serve_both, on_msg) as (client, peer):
        peer.send(text("1") + text("22") + encode_frame(PING, b"p") + text("333"))
        assert client.poll(SOON) == 3
        for opcode, payload in [(TEXT, b"1"), (TEXT, b"22"), (PONG, b"p"), (TEXT, b"333")]:
            peer.expect_frame(opcode, payload)


@pytest.mark.parametrize(
    "slicing", [lambda view: view[1:], memoryview, lambda view: view.cast("c")]
)
def test_slice_kept_beyond_the_block_stops_the_frame(serve_both: Serve, slicing: Any) -> None:
    """The slice could still be written through: the frame is not sent, and the block raises."""
    with connected(serve_both) as (client, peer):
        kept = []
        with pytest.raises(BufferError, match="slice"):
            with client.reserve(4, text=False) as view:
                view[:] = b"evil"
                kept.append(slicing(view))
        for way in [*every_way_to_send(client), client.poll, client.close]:
            with pytest.raises(RuntimeError, match="reserv"):
                way()
        kept[0][0:1] = kept[0][0:1]  # Writing is harmless: the place is still blocked.
        kept.clear()
        client.send("usable again")
        peer.expect_frame(TEXT, b"usable again")
        with client.reserve(4, text=False) as view:
            view[:] = b"good"
        peer.expect_frame(BINARY, b"good")


def test_an_array_kept_beyond_the_block_keeps_the_client_from_closing(serve_both: Serve) -> None:
    """Such as numpy.frombuffer's: when it is gone, the frame is dropped, and all works again."""
    import ctypes

    with connected(serve_both) as (client, peer):
        with pytest.raises(BufferError, match="not sent"):
            with client.reserve(4, text=False) as view:
                kept = (ctypes.c_char * 4).from_buffer(view)
        for way in [*every_way_to_send(client), client.poll, client.run, client.close]:
            with pytest.raises(RuntimeError, match="reserv"):
                way()
        with pytest.raises(RuntimeError, match="reserv"):
            client.__exit__(None, None, None)
        assert client.is_open
        del kept
        gc.collect()
        client.send("usable again")
        peer.expect_frame(TEXT, b"usable again")
        assert client.stats()["messages_sent"] == 1


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((), {"text": True}, TypeError),
        ((1,), {}, TypeError),
        ((1,), {"text": None}, TypeError),
        ((1, True), {}, TypeError),
        (("1",), {"text": True}, TypeError),
        ((1.5,), {"text": True}, TypeError),
        ((-1,), {"text": True}, ValueError),
        ((2**70,), {"text": True}, ValueError),
    ],
)
def test_reserve_refuses_wrong_arguments(
    serve_both: Serve, arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception]
) -> None:
    with connected(serve_both) as (client, peer):
        with pytest.raises(error):
            client.reserve(*arguments, **options)
        client.send("next")
        peer.expect_frame(TEXT, b"next")


def test_reservation_is_entered_once(serve_both: Serve) -> None:
    with connected(serve_both) as (client, peer):
        reservation = client.reserve(1, text=True)
        with pytest.raises(RuntimeError, match="not entered"):
            reservation.__exit__(None, None, None)
        with pytest.raises(BufferError, match="not entered"):
            memoryview(reservation)
        with reservation as view:
            with pytest.raises(RuntimeError, match="once"):
                reservation.__enter__()
            view[0] = 65
        peer.expect_frame(TEXT, b"A")
        with pytest.raises(RuntimeError, match="once"):
            reservation.__enter__()
        with pytest.raises(RuntimeError, match="not entered"):
            reservation.__exit__(None, None, None)
        with pytest.raises(BufferError, match="not entered"):
            memoryview(reservation)


def test_reservation_that_is_never_entered_takes_nothing(serve_both: Serve) -> None:
    with connected(serve_both) as (client, peer):
        reservation = client.reserve(100, text=True)
        client.send("meanwhile")
        peer.expect_frame(TEXT, b"meanwhile")
        del reservation
        gc.collect()
        client.send("after")
        peer.expect_frame(TEXT, b"after")


@pytest.mark.parametrize("keep_view", [False, True])
def test_reservation_that_is_dropped_while_entered_is_cancelled(
    serve_both: Serve, keep_view: bool
) -> None:
    with connected(serve_both) as (client, peer):
        reservation: Any = client.reserve(100, text=True)
        view = reservation.__enter__()
        view[:5] = b"never"
        with pytest.raises(RuntimeError, match="reserv"):
            client.send("blocked")
        if keep_view:
            del reservation
            gc.collect()
            with pytest.raises(RuntimeError, match="reserv"):
                client.send("blocked still: the view can be written")
            view[:] = bytes(100)
            del view
        else:
            del view, reservation
        gc.collect()
        client.send("free")
        peer.expect_frame(TEXT, b"free")
        assert client.stats()["messages_sent"] == 1


def test_reservation_left_open_by_a_callback_is_told(serve_both: Serve) -> None:
    """Pings, a close or the end of the stream would need the place that is still written to."""
    left: list[Any] = []

    def on_msg(msg: hftws.Message) -> None:
        if not left:
            left.append(client.reserve(10, text=True))
            left.append(left[0].__enter__())

    with connected(serve_both, on_msg) as (client, peer):
        peer.send(text("1") + encode_frame(PING, b"p") + text("2"))
        with pytest.raises(RuntimeError, match="reserv"):
            client.poll(SOON)
        with pytest.raises(RuntimeError, match="reserv"):
            client.run()
        left[1][:] = b"0123456789"
        left[0].__exit__(None, None, None)
        peer.expect_frame(TEXT, b"0123456789")
        assert client.poll(SOON) == 1
        peer.expect_frame(PONG, b"p")


@pytest.mark.parametrize(
    "wire",
    [encode_frame(CLOSE, b"\x03\xe8"), encode_frame(0xF), b""],
    ids=["close", "violation", "end-of-stream"],
)
def test_connection_does_not_end_under_an_open_reservation(serve_both: Serve, wire: bytes) -> None:
    """CLOSE, a violation, or the end of the stream, behind the message that opened it."""
    left: list[Any] = []

    def on_msg(msg: hftws.Message) -> None:
        left.append(client.reserve(10, text=True))
        left.append(left[0].__enter__())

    with connected(serve_both, on_msg) as (client, peer):
        peer.send(text("1") + wire)
        if not wire:
            socket.socket.shutdown(peer.sock, socket.SHUT_WR)  # TLS does not notice.
        with pytest.raises(RuntimeError, match="reserv"):
            poll_until(client, lambda: False)
        left[1][:] = b"0123456789"
        left[0].__exit__(None, None, None)
        peer.expect_frame(TEXT, b"0123456789")
        if wire:
            poll_until(client, lambda: not client.is_open)
            peer.expect_frame(CLOSE)
        peer.close()
        with pytest.raises((hftws.ConnectionClosed, hftws.ProtocolError)):
            poll_until(client, lambda: False)


def test_reservation_in_a_raising_callback_does_not_end_with_it(serve_both: Serve) -> None:
    left: list[Any] = []

    def on_msg(msg: hftws.Message) -> None:
        left.append(client.reserve(10, text=True))
        left.append(left[0].__enter__())
        raise LookupError

    with connected(serve_both, on_msg) as (client, peer):
        peer.send(text("1") + encode_frame(CLOSE, b"\x03\xe8"))
        with pytest.raises(LookupError):
            client.poll(SOON)
        with pytest.raises(RuntimeError, match="reserv"):
            client.poll(SOON)
        left.clear()
        gc.collect()
        poll_until(client, lambda: not client.is_open)
        peer.expect_close(1000)


def test_reservation_after_the_end_cannot_be_had(serve_both: Serve) -> None:
    with connected(serve_both) as (client, peer):
        reservation = client.reserve(10, text=True)
        peer.close()
        client.close()
        with pytest.raises(hftws.ConnectionClosed):
            reservation.__enter__()
        with pytest.raises(RuntimeError, match="not entered"):
            reservation.__exit__(None, None, None)
