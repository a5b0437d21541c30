"""What a program keeps of a message never changes; memory that it releases is used again.

`Message.data` is a view of the receive ring. The tests keep it in every way that Python has, let
the ring wrap around meanwhile, and look at the bytes afterwards.
"""

from __future__ import annotations

import array
import collections
import contextlib
import ctypes
import gc
import io
import os
import pickle
import queue
import random
import signal
import struct
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
    KIB,
    RING_MIN,
    SOON,
    Inbox,
    Serve,
    binary,
    connected,
    cut,
    fragmented,
    poll_until,
    receive,
    text,
)
from servers import PONG, Peer

import hftws

#: Numbered messages of 1 KiB, enough to fill the smallest ring and go around it.
COUNT = 1500
SIZE = 1024

WRAPPING = {"ring_size": RING_MIN, "max_message_size": 16 * KIB}


def numbered(index: int) -> bytes:
    """A message that differs from all others in nearly every byte."""
    return index.to_bytes(4, "big") + random.Random(index).randbytes(SIZE - 4)


def index_of(payload: bytes | memoryview) -> int:
    """The number of a message, by its first bytes alone."""
    return int.from_bytes(payload[:4], "big")


PAYLOADS = [numbered(index) for index in range(COUNT)]


def send_numbered(peer: Peer) -> None:
    """A script: all of the numbered messages."""
    peer.accept_upgrade()
    for start in range(0, COUNT, 50):
        peer.send(b"".join(map(binary, PAYLOADS[start : start + 50])))
    peer.close_handshake()


# ---- One thing kept. ---------------------------------------------------------------------------


def released_view(msg: hftws.Message) -> hftws.Message:
    with msg.data as view:
        assert view[0] == PAYLOADS[0][0]
    with pytest.raises(ValueError, match="released"):
        view[0]
    return msg


def view_of_a_released_view(msg: hftws.Message) -> memoryview:
    msg.data.release()
    assert bytes(msg.data) == PAYLOADS[0]
    return msg.data


def view_in_a_cycle(msg: hftws.Message) -> list[Any]:
    cycle: list[Any] = [msg.data]
    cycle.append(cycle)
    return cycle


#: What is kept of a message, and how to get its bytes, or a part of them, from that.
KEEPERS: dict[str, tuple[Callable[[hftws.Message], Any], Callable[[Any], bytes], slice]] = {
    "message": (lambda msg: msg, bytes, slice(None)),
    "message, whose view was used": (lambda msg: (msg.data, msg)[1], bytes, slice(None)),
    "message, read by its data": (lambda msg: msg, lambda msg: bytes(msg.data), slice(None)),
    "view": (lambda msg: msg.data, bytes, slice(None)),
    "two views": (lambda msg: (msg.data, msg.data), lambda two: bytes(two[1]), slice(None)),
    "slice": (lambda msg: msg.data[10:200], bytes, slice(10, 200)),
    "slice of a slice": (lambda msg: msg.data[10:][5:50], bytes, slice(15, 60)),
    "slice with a step": (lambda msg: msg.data[::-2], bytes, slice(None, None, -2)),
    "view by the buffer protocol": (memoryview, bytes, slice(None)),
    "slice by the buffer protocol": (lambda msg: memoryview(msg)[3:], bytes, slice(3, None)),
    "view of the view": (lambda msg: memoryview(msg.data), bytes, slice(None)),
    "cast view": (lambda msg: msg.data.cast("I"), lambda view: view.tobytes(), slice(None)),
    "read-only view": (lambda msg: msg.data.toreadonly(), bytes, slice(None)),
    "message after its view was released": (released_view, bytes, slice(None)),
    "view after a view was released": (view_of_a_released_view, bytes, slice(None)),
    "consumer of the view": (lambda msg: pickle.PickleBuffer(msg.data), bytes, slice(None)),
    "consumer of the message": (pickle.PickleBuffer, bytes, slice(None)),
    "consumer of a slice": (
        lambda msg: pickle.PickleBuffer(msg.data[7:]),
        bytes,
        slice(7, None),
    ),
    "reader": (lambda msg: iter(msg.data), lambda rest: bytes(rest), slice(None)),
    "unpacker": (
        lambda msg: struct.iter_unpack("B", msg.data),
        lambda rest: bytes(byte for (byte,) in rest),
        slice(None),
    ),
    "closure": (lambda msg: lambda: bytes(msg.data), lambda call: call(), slice(None)),
    "bound method": (lambda msg: msg.data.tobytes, lambda call: call(), slice(None)),
    "cycle": (view_in_a_cycle, lambda cycle: bytes(cycle[0]), slice(None)),
    # These copy, and have to be right as well.
    "bytes": (bytes, bytes, slice(None)),
    "bytearray": (lambda msg: bytearray(msg.data), bytes, slice(None)),
    "array": (lambda msg: array.array("B", msg.data), bytes, slice(None)),
    "ctypes": (
        lambda msg: (ctypes.c_char * SIZE).from_buffer_copy(msg.data),
        bytes,
        slice(None),
    ),
    "BytesIO": (lambda msg: io.BytesIO(msg.data), lambda file: file.read(), slice(None)),
}


@pytest.mark.parametrize("name", KEEPERS)
def test_what_is_kept_of_a_message_never_changes(serve_both: Serve, name: str) -> None:
    """Kept while the ring is filled behind it and then goes around many times."""
    keep, read, part = KEEPERS[name]
    kept: list[Any] = []
    inbox = Inbox()

    def on_msg(msg: hftws.Message) -> None:
        inbox(msg)
        if len(inbox.messages) == 1:
            kept.append(keep(msg))

    with connected(serve_both, on_msg, **WRAPPING) as (client, peer):
        peer.send(b"".join(map(binary, PAYLOADS[:100])))
        receive(client, inbox, 100)
        peer.send(b"".join(map(binary, PAYLOADS[100:200])))
        receive(client, inbox, 200)
        assert read(kept[0]) == PAYLOADS[0][part]
        kept.clear()
        gc.collect()
        for start in range(200, COUNT, 100):
            peer.send(b"".join(map(binary, PAYLOADS[start : start + 100])))
            receive(client, inbox, start + 100)
    assert inbox.payloads == PAYLOADS


def test_bytes_are_not_taken_by_writable_consumers(serve_both: Serve) -> None:
    refused = []

    def on_msg(msg: hftws.Message) -> None:
        for source in (msg, msg.data, msg.data[1:]):
            with pytest.raises(TypeError):
                (ctypes.c_char * 1).from_buffer(source)
            with pytest.raises((TypeError, BufferError)):
                io.BytesIO(b"x").readinto(source)
            refused.append(source)
        refused.clear()

    with connected(serve_both, on_msg) as (client, peer):
        peer.send_binary(b"0123456789")
        assert client.poll(SOON) == 1


def test_kept_message_answers_as_it_did(serve_both: Serve) -> None:
    """Its times and its flags, too, after many others have come."""
    kept: list[hftws.Message] = []
    facts: list[tuple[Any, ...]] = []

    def look(msg: hftws.Message) -> tuple[Any, ...]:
        arrived = (msg.t_kernel, msg.t_kernel_exact, msg.t_earliest)
        times = (*arrived, msg.t_received, msg.t_decrypted, msg.t_delivered, msg.cycles)
        return (msg.opcode, msg.is_text, msg.is_last, len(msg), bytes(msg), str(msg), *times)

    def on_msg(msg: hftws.Message) -> None:
        kept.append(msg)
        facts.append(look(msg))

    with connected(serve_both, on_msg) as (client, peer):
        for index in range(20):
            peer.send(text(f"{index} ü") + binary(b"") + binary(str(index).encode() * 100))
            poll_until(client, lambda index=index: len(kept) == 3 * (index + 1))
    del client
    gc.collect()
    assert [look(msg) for msg in kept] == facts
    assert len({id(msg) for msg in kept}) == len(kept)
    assert [bytes(msg.data) for msg in kept] == [fact[4] for fact in facts]


def test_each_kept_view_is_of_its_own_message(serve_both: Serve) -> None:
    views: list[memoryview] = []
    with connected(serve_both, lambda msg: views.append(msg.data)) as (client, peer):
        sent = [b"", b"1", b"22", b"", b"333"]
        peer.send(b"".join(map(binary, sent)))
        poll_until(client, lambda: len(views) == len(sent))
        assert [bytes(view) for view in views] == sent
        assert [view.obj.data.nbytes for view in views] == [len(payload) for payload in sent]


def test_weak_reference_to_a_view_dies_with_its_message(serve_both: Serve) -> None:
    """It must not become a view of the next message."""
    references: list[weakref.ref[memoryview]] = []
    seen: list[bytes | None] = []

    def on_msg(msg: hftws.Message) -> None:
        for reference in references:
            view = reference()
            seen.append(None if view is None else bytes(view))
        references.append(weakref.ref(msg.data))

    with connected(serve_both, on_msg) as (client, peer):
        for word in ("first", "second", "third"):
            peer.send_text(word)
            assert client.poll(SOON) == 1
    assert seen == [None] * 3


def test_hash_of_a_view_is_that_of_its_bytes(serve_both: Serve) -> None:
    """A memoryview remembers its hash: a view that is used again must not."""
    hashes = []
    with connected(serve_both, lambda msg: hashes.append(hash(msg.data))) as (client, peer):
        peer.send(text("one") + text("two") + text("three"))
        assert client.poll(SOON) == 3
    assert hashes == [hash(b"one"), hash(b"two"), hash(b"three")]


# ---- Nothing kept. -----------------------------------------------------------------------------


def test_message_and_view_are_used_again_when_not_kept(serve_both: Serve) -> None:
    """No allocation per message, whatever was done with the view inside the callback."""
    identities = []
    first: list[hftws.Message] = []

    def on_msg(msg: hftws.Message) -> None:
        view = msg.data
        assert bytes(view[2:]) == PAYLOADS[len(identities)][2:]
        struct.unpack_from("<Q", view, 8)
        assert view[:4].cast("I")[0] == struct.unpack("I", view[:4])[0]
        identities.append((id(msg), id(view)))
        if not first:
            first.append(msg)

    with connected(serve_both, on_msg) as (client, peer):
        for start in range(0, 60, 20):
            peer.send(b"".join(map(binary, PAYLOADS[start : start + 20])))
            poll_until(client, lambda start=start: len(identities) == start + 20)
    # The first one was kept, so the second is a new object, and all later ones reuse that.
    assert len(set(identities[1:])) == 1
    assert identities[0] != identities[1]
    assert bytes(first[0]) == PAYLOADS[0]


def test_message_is_not_used_again_while_kept(serve_both: Serve) -> None:
    kept: list[hftws.Message] = []

    def on_msg(msg: hftws.Message) -> None:
        assert all(msg is not other for other in kept)
        kept.append(msg)

    with connected(serve_both, on_msg) as (client, peer):
        for index in range(30):
            peer.send_text(str(index))
            assert client.poll(SOON) == 1
            if index % 10 == 9:
                assert [str(msg) for msg in kept] == [str(i) for i in range(index - 9, index + 1)]
                kept.clear()


def test_kept_message_that_is_let_go_gives_its_room_back(serve_both: Serve) -> None:
    """The callback keeps only the newest one: the ring goes around without end."""
    newest: list[memoryview] = []
    count = 0

    def on_msg(msg: hftws.Message) -> None:
        nonlocal count
        newest[:] = [msg.data]
        assert newest[0] == PAYLOADS[count]
        count += 1

    with serve_both(send_numbered) as server, server.client(on_msg, **WRAPPING) as client:
        client.run()
    assert count == COUNT


# ---- Many kept, and the ring goes around. ------------------------------------------------------


@pytest.mark.parametrize("window", [1, 7, 100, 180])
def test_sliding_window_of_kept_views(serve_both: Serve, window: int) -> None:
    """The last few are always kept: the ring wraps around under them, and none changes."""
    kept: collections.deque[memoryview] = collections.deque(maxlen=window)
    count = 0

    def on_msg(msg: hftws.Message) -> None:
        nonlocal count
        kept.append(msg.data if count % 2 else msg.data[:])
        count += 1
        oldest = count - len(kept)
        assert kept[0] == PAYLOADS[oldest]
        if count % 50 == 0:
            assert list(kept) == PAYLOADS[oldest:count]

    with serve_both(send_numbered) as server, server.client(on_msg, **WRAPPING) as client:
        client.run()
    assert count == COUNT


@pytest.mark.parametrize("seed", range(4))
def test_random_keeping_and_letting_go(serve_both: Serve, seed: int) -> None:
    """Against a model: a dict of what is kept. Old ones are dropped when the ring is full."""
    rng = random.Random(seed)
    kept: dict[int, Any] = {}
    delivered: list[int] = []
    full = 0

    def on_msg(msg: hftws.Message) -> None:
        index = index_of(bytes(msg.data))
        delivered.append(index)
        if rng.random() < 0.5:
            kept[index] = rng.choice([lambda: msg, lambda: msg.data, lambda: msg.data[0:]])()
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            if kept:
                kept.pop(rng.choice(list(kept)))
        for known, value in rng.sample(sorted(kept.items()), min(len(kept), 3)):
            assert bytes(value) == PAYLOADS[known]

    with serve_both(send_numbered) as server, server.client(on_msg, **WRAPPING) as client:
        while client.is_open:
            try:
                client.run()
            except BufferError:
                full += 1
                assert all(bytes(value) == PAYLOADS[known] for known, value in kept.items())
                for known in sorted(kept)[: len(kept) // 2 + 1]:
                    del kept[known]
    assert delivered == list(range(COUNT))
    assert full < COUNT


def test_thousand_kept_views_raise_bufferror_and_it_goes_on(serve_both: Serve) -> None:
    """Nothing is lost, nothing comes twice, and everything kept stays as it was."""
    kept: list[memoryview] = []
    rounds: list[int] = []
    payloads: list[bytes] = []

    with serve_both(send_numbered) as server:
        with server.client(lambda msg: kept.append(msg.data), **WRAPPING) as client:
            while client.is_open:
                try:
                    client.run()
                except BufferError as error:
                    assert "kept" in str(error)
                    with pytest.raises(BufferError):  # And again, as long as nothing is released.
                        client.poll(0.01)
                    assert client.is_open
                rounds.append(len(kept))
                payloads += [bytes(view) for view in kept]
                kept.clear()
    assert payloads == PAYLOADS
    assert len(rounds) > COUNT * SIZE // RING_MIN
    # Nearly the whole ring can be kept before it is too much.
    assert max(rounds) * SIZE > RING_MIN - WRAPPING["max_message_size"] - 20 * KIB


def test_a_thousand_small_kept_views_fit_the_default_ring(serve_both: Serve) -> None:
    views: list[memoryview] = []
    with connected(serve_both, lambda msg: views.append(msg.data)) as (client, peer):
        expected = [f"view {index}".encode() for index in range(1000)]
        peer.send(b"".join(map(text, expected)))
        poll_until(client, lambda: len(views) == 1000)
        peer.send(b"".join(map(text, expected)))
        poll_until(client, lambda: len(views) == 2000)
        assert views == expected * 2


def test_full_ring_can_be_closed(serve_both: Serve) -> None:
    kept: list[memoryview] = []
    with serve_both(send_flood) as server:
        client = server.client(lambda msg: kept.append(msg.data), close_timeout=0.3, **WRAPPING)
        client.connect()
        with pytest.raises(BufferError):
            client.run()
        client.close()
        assert not client.is_open
        assert client.close_code is not None
    assert kept == PAYLOADS[: len(kept)]


def send_flood(peer: Peer) -> None:
    """A script: sends more than fits, and reads nothing of the client."""
    peer.accept_upgrade()
    try:
        for payload in PAYLOADS:
            peer.send_binary(payload)
        peer.recv_all()
    except OSError:
        pass


def test_one_old_view_blocks_the_ring_and_its_going_frees_it(serve_both: Serve) -> None:
    """Only the first message is kept, which is old when the ring gets around to it."""
    kept: list[memoryview] = []
    inbox = Inbox()

    def on_msg(msg: hftws.Message) -> None:
        if not inbox.messages:
            kept.append(msg.data)
        inbox(msg)

    with serve_both(send_numbered) as server, server.client(on_msg, **WRAPPING) as client:
        with pytest.raises(BufferError):
            client.run()
        assert len(inbox.messages) * SIZE > 200 * KIB
        assert kept == PAYLOADS[:1]
        kept.clear()
        client.run()
    assert inbox.payloads == PAYLOADS


def test_fragmented_messages_are_kept_like_others(serve_both: Serve) -> None:
    """Joining fragments moves bytes, but never those of a message that is kept."""
    payloads = [random.Random(index).randbytes(5000) for index in range(200)]

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for index, payload in enumerate(payloads):
            peer.send(fragmented(2, cut(payload, 100 + 7 * index), between=b"\x89\0"))
        for index, payload in enumerate(payloads):
            for _ in range(len(cut(payload, 100 + 7 * index)) - 1):
                peer.expect_frame(PONG, b"")
        peer.close_handshake()

    kept: collections.deque[memoryview] = collections.deque(maxlen=20)
    count = 0

    def on_msg(msg: hftws.Message) -> None:
        nonlocal count
        kept.append(msg.data)
        count += 1
        assert list(kept) == payloads[count - len(kept) : count]

    with serve_both(script) as server, server.client(on_msg, **WRAPPING) as client:
        client.run()
    assert count == 200


# ---- Views that outlive. -----------------------------------------------------------------------


def test_views_outlive_the_client(serve_both: Serve) -> None:
    views: list[memoryview] = []
    with serve_both(send_numbered) as server:
        client = server.client(lambda msg: views.append(msg.data[:]))
        client.connect()
        client.run()
        del client
        gc.collect()
    assert views == PAYLOADS
    del views[1:-1]
    gc.collect()
    assert views == [PAYLOADS[0], PAYLOADS[-1]]


@pytest.mark.filterwarnings("ignore:unclosed client")
def test_view_outlives_a_client_that_was_not_closed(serve_both: Serve) -> None:
    kept: list[hftws.Message] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_binary(PAYLOADS[0])
        assert peer.recv_all() == b""

    with serve_both(script) as server:
        client = server.client(kept.append)
        client.connect()
        assert client.poll(SOON) == 1
        del client
        gc.collect()
    assert bytes(kept[0]) == PAYLOADS[0]
    assert kept[0].data == PAYLOADS[0]


def test_views_outlive_a_reconnect(serve_both: Serve) -> None:
    """Those of every connection, while later connections fill their rings."""
    views: list[memoryview] = []

    def script(peer: Peer) -> None:
        first = (peer.server.accepted - 1) * 100
        peer.accept_upgrade(then=b"".join(map(binary, PAYLOADS[first : first + 100])))
        peer.close_handshake()

    with serve_both(script) as server:
        client = server.client(lambda msg: views.append(msg.data), **WRAPPING)
        for connection in range(10):
            client.connect()
            client.run()
            assert views == PAYLOADS[: 100 * (connection + 1)]
            if connection == 5:
                del views[:]
                views += map(memoryview, PAYLOADS[:600])
    assert views == PAYLOADS[:1000]


def test_view_is_let_go_after_the_client_is_gone_in_another_thread(serve_both: Serve) -> None:
    """The last of the pins frees the memory of the ring, wherever that happens."""
    views: list[memoryview] = []
    with serve_both(send_numbered) as server:
        client = server.client(lambda msg: views.append(msg.data))
        client.connect()
        client.run()
        del client
    thread = threading.Thread(target=views.clear, daemon=True)
    thread.start()
    thread.join()
    assert views == []


@pytest.mark.parametrize("busy_poll", [False, True])
def test_views_are_let_go_in_another_thread_while_the_client_waits(
    serve_both: Serve, busy_poll: bool
) -> None:
    """A worker gets the messages, looks at them and drops them, while run() receives the next.

    While run() waits without Python's lock, it must not touch what the worker changes by dropping.
    """
    total = 20_000
    bad: list[int] = []
    todo: collections.deque[memoryview] = collections.deque()
    worked = 0
    stop = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for start in range(0, total, 4):
            peer.send(
                b"".join(binary(index.to_bytes(4, "big") * 80) for index in range(start, start + 4))
            )
        peer.close_handshake()

    def work() -> None:
        nonlocal worked
        while todo or not stop.is_set():
            try:
                view = todo.popleft()
            except IndexError:
                time.sleep(0)  # Releases Python's lock; there is nothing to wait for.
                continue
            if bytes(view) != view[:4].tobytes() * 80 or index_of(view) != worked:
                bad.append(worked)
            worked += 1
            del view

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        with serve_both(script) as server:
            options = {**WRAPPING, "busy_poll": busy_poll}
            client = server.client(lambda msg: todo.append(msg.data), **options)
            client.connect()
            while client.is_open:
                try:
                    client.run()
                except BufferError:
                    time.sleep(0)
    finally:
        stop.set()
        worker.join()
    assert (worked, bad) == (total, [])


# ---- Views that nobody kept. -------------------------------------------------------------------

#: The program of a separate interpreter, which may crash. Finds the view that the client has
#: left over from the last message, after the memory of the ring has gone.
FIND_VIEWS = """
import gc, sys
import hftws

def views():
    return [o for o in gc.get_objects() if type(o) is memoryview and type(o.obj) is hftws.Message]

def on_msg(msg):
    assert msg.data[0]
    if {keep} and not kept:
        kept.append(msg)

url, ca_file = sys.argv[1:]
options = dict(ring_size=262144, send_ring_size=262144, max_message_size=131072)
kept = []
client = hftws.Client(url, on_msg, ca_file=ca_file, **options)
client.connect()
client.run()
assert len(views()) == 1
{end}
print(len([bytes(view) for view in views()]))
"""


@pytest.mark.parametrize(
    ("keep", "end", "left"),
    [
        (False, "client.close()", 0),
        (False, "del client", 0),
        # A ring with a kept message stays with it, and a new one takes its place.
        (True, "client.connect(); kept.clear()", 0),
        (True, "client.connect(); client.run(); kept.clear(); client.close()", 0),
        # If the view is found, the memory stays, but its contents are undefined.
        (False, "held = views(); client.close()", 1),
        (False, "held = views(); del client", 1),
        (False, "held = views(); client.connect(); client.close()", 1),
        (False, "held = views()[0].obj; client.close(); bytes(held)", 0),
        (False, "held = views()[0][1:]; client.close(); bytes(held)", 1),
    ],
)
def test_the_garbage_collector_knows_no_view_of_a_ring_that_is_gone(
    serve_both: Serve, ca_file: Path, keep: bool, end: str, left: int
) -> None:
    def script(peer: Peer) -> None:
        with contextlib.suppress(OSError, EOFError):  # Some clients do not wait for the end.
            peer.accept_upgrade(then=text("first") + text("second"))
            peer.close_handshake()

    with serve_both(script) as server:
        code = FIND_VIEWS.format(keep=keep, end=end)
        result = subprocess.run(
            [sys.executable, "-c", code, server.url(), str(ca_file)],
            env={**os.environ, "PYTHONPATH": str(Path(hftws.__file__).parents[1])},
            capture_output=True,
            text=True,
            timeout=3 * SOON,
        )
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{left}\n"


# ---- Exceptions hold frames, which hold messages. ----------------------------------------------


def test_message_held_by_a_traceback_is_kept(serve_both: Serve) -> None:
    inbox = Inbox()

    def on_msg(msg: hftws.Message) -> None:
        view = msg.data[2:]
        inbox(msg)
        if len(inbox.messages) == 1:
            raise LookupError(view)

    with connected(serve_both, on_msg, **WRAPPING) as (client, peer):
        peer.send(b"".join(map(binary, PAYLOADS[:100])))
        with pytest.raises(LookupError) as caught:
            client.poll(SOON)
        receive(client, inbox, 100)
        assert caught.value.args[0] == PAYLOADS[0][2:]
        frame = caught.value.__traceback__
        assert frame is not None
        while frame.tb_next is not None:
            frame = frame.tb_next
        assert bytes(frame.tb_frame.f_locals["msg"]) == PAYLOADS[0]
    assert inbox.payloads == PAYLOADS[:100]


# ---- Waiting until another thread has released messages. ---------------------------------------


def test_a_thread_that_is_slower_is_waited_for(serve_both: Serve) -> None:
    """It has every message and lets go of one at a time: a few exceptions, not one for each."""
    handed: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
    seen: list[bytes] = []

    def work() -> None:
        while (view := handed.get()) is not None:
            seen.append(bytes(view))
            time.sleep(0)  # Others run meanwhile.

    worker = threading.Thread(target=work, daemon=True)
    full = 0
    with (
        serve_both(send_numbered) as server,
        server.client(lambda msg: handed.put(msg.data), **WRAPPING) as client,
    ):
        while client.is_open:
            try:
                client.run()
            except BufferError as error:
                assert "wait_for_room" in str(error)
                full += 1
                if full == 1:
                    assert not client.wait_for_room(0)
                    assert not client.wait_for_room(0.01)
                    worker.start()
                assert client.wait_for_room(SOON)
        handed.put(None)
        worker.join()
    assert seen == PAYLOADS
    assert 1 <= full < COUNT


def test_waiting_for_room_returns_when_nothing_is_in_the_way(serve_both: Serve) -> None:
    kept: list[memoryview] = []
    with connected(serve_both, lambda msg: kept.append(msg.data)) as (client, peer):
        assert client.wait_for_room()
        peer.send_text("kept")
        assert client.poll(SOON) == 1
        assert client.wait_for_room()  # One message is no lack of room.
    assert client.wait_for_room()


def test_released_before_it_waits_is_not_missed(serve_both: Serve) -> None:
    kept: list[memoryview] = []
    inbox = Inbox()

    def on_msg(msg: hftws.Message) -> None:
        inbox(msg)
        kept.append(msg.data)

    with serve_both(send_numbered) as server, server.client(on_msg, **WRAPPING) as client:
        while client.is_open:
            try:
                client.run()
            except BufferError:
                kept.clear()
                assert client.wait_for_room()
    assert inbox.payloads == PAYLOADS


def test_waiting_for_room_lets_signal_handlers_run(serve: Serve) -> None:
    """Of the main thread: a handler that raises ends the wait, another one can release."""
    kept: list[memoryview] = []
    handled: list[int] = []

    def release(number: int, frame: object) -> None:
        handled.append(number)
        kept.clear()

    before = signal.signal(signal.SIGUSR1, release)
    try:
        with serve(send_numbered) as server:
            client = server.client(lambda msg: kept.append(msg.data), **WRAPPING)
            client.connect()
            with pytest.raises(BufferError):
                client.run()
            timer = threading.Timer(0.02, os.kill, [os.getpid(), signal.SIGUSR1])
            timer.start()
            assert client.wait_for_room(SOON)
            timer.join()
            assert handled == [signal.SIGUSR1]
            with contextlib.suppress(BufferError):
                client.run()
            kept.clear()
            client.close()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_callback_cannot_wait_for_room(serve: Serve) -> None:
    caught: list[BaseException] = []

    def on_msg(_: hftws.Message) -> None:
        try:
            client.wait_for_room()
        except RuntimeError as error:
            caught.append(error)

    with connected(serve, on_msg) as (client, peer):
        peer.send_text("x")
        assert client.poll(SOON) == 1
    assert "callback" in str(caught[0])
