"""Messages through a kernel that seals and opens: nothing is lost, doubled or changed."""

from __future__ import annotations

import gc
import hashlib
import random
import select
import socket
import threading
from collections.abc import Iterator

import pytest
import trustme
from frames import KIB, RING_MIN, SOON, Inbox, connected, fragmented, poll_until, receive, text
from servers import BINARY, CLOSE, PING, PONG, TEXT, Peer, Serve, encode_frame
from test_compression import ZlibPeer
from test_tls_engines import PYTHON_SUITES
from tls_peers import CONTENT_SIZE_MAX, SUITES, Suite

import hftws

from .support import KernelBed, TlsStat, needs_ktls, server_context

pytestmark = needs_ktls

MIB = 1024 * KIB

#: Around every form of a frame's length, and every number of records.
EDGES = (0, 1, 2, 125, 126, 127, 16_383, 16_384, 16_385, 32_768, 65_535, 65_536, MIB)

#: What may be under way while the client waits for answers.
AHEAD = 200


def sizes(rng: random.Random, count: int) -> Iterator[int]:
    """Most of them small, as in a feed; one in 400 is anything up to 1 MiB."""
    yield from EDGES
    for index in range(count - len(EDGES)):
        yield int(2 ** (rng.random() * (20 if index % 400 == 0 else 11)))


def noise(rng: random.Random, size: int) -> bytes:
    """A payload; large ones are cut from the same random bytes, which take time to make."""
    start = rng.randrange(len(NOISE) - size)
    return NOISE[start : start + size]


def letters(rng: random.Random, size: int) -> bytes:
    """A text."""
    return bytes(rng.choices(b"abcdefgh", k=size))


NOISE = random.Random(0).randbytes(MIB + 4 * KIB)


class Echo:
    """The server's side: echoes each message, in fragments, with pings in between."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.pongs_due: list[bytes] = []
        self.messages = 0

    def __call__(self, peer: Peer) -> None:
        peer.accept_upgrade()
        while (frame := peer.read_frame()).opcode != CLOSE:
            if frame.opcode == PONG:
                assert frame.payload == self.pongs_due.pop(0)
            elif frame.opcode == PING:
                peer.send_frame(PONG, frame.payload)
            else:
                self.messages += 1
                peer.send(self.answer(frame.payload))
        assert not self.pongs_due
        peer.send_frame(CLOSE, frame.payload)
        peer.hang_up()

    def answer(self, payload: bytes) -> bytes:
        if self.rng.random() < 0.9:
            return encode_frame(BINARY, payload)
        cuts = sorted(self.rng.randrange(len(payload) + 1) for _ in range(self.rng.randrange(4)))
        pairs = zip([0, *cuts], [*cuts, len(payload)], strict=True)
        ping = self.rng.randbytes(self.rng.randrange(126))
        self.pongs_due += [ping] * len(cuts)
        pieces = [payload[start:end] for start, end in pairs]
        return fragmented(BINARY, pieces, encode_frame(PING, ping))


@pytest.mark.parametrize(("version", "count"), [("TLSv1.3", 10_000), ("TLSv1.2", 2_500)])
def test_thousands_of_messages_there_and_back(
    tls_serve: Serve, ca: trustme.CA, engine: str, stat: TlsStat, version: str, count: int
) -> None:
    """Of all sizes up to 1 MiB, byte for byte; then the closing handshake."""
    rng, answers = random.Random(1), hashlib.sha256()
    said, heard = hashlib.sha256(), 0

    def on_msg(msg: hftws.Message) -> None:
        nonlocal heard
        answers.update(msg.data)
        heard += 1

    echo = Echo(seed=2)
    with tls_serve(echo, tls_context=server_context(ca, version)) as server:
        client = server.client(on_msg, tls=engine)
        client.connect()
        for number, size in enumerate(sizes(rng, count)):
            payload = noise(rng, size)
            said.update(payload)
            client.send(payload)
            if number % 100 == 0:
                client.ping(b"%d" % number)
            wanted = number - AHEAD if size < 64 * KIB else number
            poll_until(client, lambda wanted=wanted: heard >= wanted, 20.0)
        poll_until(client, lambda: heard == count, 20.0)
        client.close()
    assert (echo.messages, answers.hexdigest()) == (count, said.hexdigest())
    assert client.close_code == 1000
    stat.expect_connections()


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_sizes_around_every_edge(bed: KernelBed, engine: str, suite: Suite) -> None:
    """With every cipher."""
    stack = bed.python(suite) if suite in PYTHON_SUITES else bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        for size in (0, 1, 125, 126, 1000, 16_360, 16_383, 16_384, 16_385, 65_536):
            payload = bytes(97 + place % 26 for place in range(size))
            conversation.exchange(conversation.text(payload), messages=[payload])
            conversation.hear(payload)


# ---- Frames and records. -----------------------------------------------------------------------


@pytest.mark.parametrize("suite", [SUITES[0], SUITES[3]], ids=str)
def test_frames_do_not_care_about_records(bed: KernelBed, engine: str, suite: Suite) -> None:
    """Many in a record; one in many; and records in pieces, or several at once."""
    stack = bed.lite(suite)
    rng = random.Random(3)
    with bed.converse(stack, engine) as conversation:
        for _ in range(60):
            payloads = [letters(rng, rng.randrange(600)) for _ in range(rng.randrange(1, 9))]
            plaintext = b"".join(map(text, payloads))
            record_max = rng.choice([1, 7, 100, 1000, CONTENT_SIZE_MAX])
            if record_max == 1:
                payloads, plaintext = payloads[:1], text(payloads[0][:30])
                payloads[0] = payloads[0][:30]
            records = b"".join(
                stack.seal(plaintext[start : start + record_max])
                for start in range(0, len(plaintext), record_max)
            )
            cuts = sorted(rng.randrange(len(records) + 1) for _ in range(rng.randrange(6)))
            pairs = zip([0, *cuts], [*cuts, len(records)], strict=True)
            parts = [records[start:end] for start, end in pairs]
            conversation.exchange(*parts, messages=payloads)


def test_a_record_that_is_larger_than_what_is_free_in_the_ring(bed: KernelBed, engine: str) -> None:
    """The kernel keeps what did not fit, and nothing of it gets lost at the ring's edge."""
    client = bed.client(engine, ring_size=RING_MIN, max_message_size=100 * KIB)
    with bed.converse(bed.python(SUITES[0]), engine, client=client) as conversation:
        for number in range(60):
            payload = bytes([number]) * (16_000 + number * 1_000)
            conversation.exchange(conversation.text(payload), messages=[payload])


# ---- Sending. ----------------------------------------------------------------------------------


class SlowReader:
    """A server that reads only when the test lets it, into a small buffer."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.go = threading.Event()
        self.digest = hashlib.sha256()

    def __call__(self, peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(self.go)
        left = self.size
        while left > 0:
            frame = peer.expect_frame(BINARY)
            self.digest.update(frame.payload)
            left -= len(frame.payload)
        peer.send_text("all of it")
        peer.answer_close()


def test_much_to_send_to_a_server_that_is_slow_to_read(
    tls_serve: Serve, engine: str, stat: TlsStat
) -> None:
    """What the kernel takes only a part of goes on where it stopped."""
    rng, digest, inbox = random.Random(5), hashlib.sha256(), Inbox()
    payloads = [noise(rng, size) for size in [*EDGES, *(rng.randrange(80_000) for _ in range(150))]]
    reader = SlowReader(sum(map(len, payloads)))
    with tls_serve(reader) as server:
        client = server.client(inbox, tls=engine, send_buffer_size=16 * KIB)
        client.connect()
        waited = False
        for payload in payloads:
            digest.update(payload)
            while True:
                try:
                    client.send(payload)
                    break
                except BufferError:  # The send ring is full.
                    reader.go.set()
                    client.poll(0.01)
            waited = waited or client.wants_write
        reader.go.set()
        poll_until(client, lambda: bool(inbox.messages), 2 * SOON)
        assert waited and not client.wants_write
        client.close()
    assert reader.digest.digest() == digest.digest()
    stat.expect_connections()


def test_reserved_frames_and_sent_ones_keep_their_order(
    tls_serve: Serve, engine: str, stat: TlsStat
) -> None:
    rng = random.Random(6)
    payloads = [noise(rng, rng.choice([1, 100, 126, 5_000, 16_384, 100_000])) for _ in range(100)]

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for payload in payloads:
            assert peer.expect_frame(BINARY).payload == payload
        peer.answer_close()

    with tls_serve(script) as server, server.client(tls=engine) as client:
        for number, payload in enumerate(payloads):
            if number % 2:
                client.send(payload)
            else:
                with client.reserve(len(payload), text=False) as place:
                    place[:] = payload
    stat.expect_connections()


def test_what_is_sent_is_in_the_kernels_hands_at_once(tls_serve: Serve, engine: str) -> None:
    """No poll is needed for a small message."""
    with connected(tls_serve, tls=engine) as (client, peer):
        for number in range(50):
            client.send(f"order {number}")
            assert not client.wants_write
            peer.expect_frame(TEXT, b"order %d" % number)


# ---- Receiving. --------------------------------------------------------------------------------


@pytest.mark.parametrize("busy_poll", [False, True])
def test_both_ways_to_wait(tls_serve: Serve, engine: str, busy_poll: bool, stat: TlsStat) -> None:
    """run() over both: asleep, and spinning."""
    count, messages = 1000, []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for number in range(count):
            peer.send_text(f"{number}")
            if number % 10 == 0:
                peer.expect_frame(TEXT, b"%d" % number)
        peer.close_handshake()

    def on_msg(msg: hftws.Message) -> None:
        messages.append(bytes(msg))
        if (len(messages) - 1) % 10 == 0:
            client.send(msg.data, text=True)

    with tls_serve(script) as server:
        client = server.client(on_msg, tls=engine, busy_poll=busy_poll)
        client.connect()
        client.run()
    assert messages == [b"%d" % number for number in range(count)]
    stat.expect_connections()


def test_what_a_program_keeps_never_changes(tls_serve: Serve, engine: str) -> None:
    """Records are opened into the ring beside the views, while it goes round and round."""
    rng = random.Random(7)
    payloads = [rng.randbytes(rng.choice([10, 200, 1_000, 20_000])) for _ in range(600)]
    kept: list[tuple[int, memoryview]] = []
    seen: list[bool] = []

    def on_msg(msg: hftws.Message) -> None:
        number = len(seen)
        seen.append(msg.data == payloads[number])
        if number % 3 == 0:
            kept.append((number, msg.data[1:-1]))
        if len(kept) > 4:
            del kept[0]
        assert all(view == payloads[index][1:-1] for index, view in kept)

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for payload in payloads:
            peer.send_binary(payload)
        peer.close_handshake()

    options = {"ring_size": RING_MIN, "max_message_size": 64 * KIB}
    with tls_serve(script) as server:
        with server.client(on_msg, tls=engine, **options) as client:
            client.run()
    assert len(seen) == len(payloads) and all(seen)
    gc.collect()
    assert all(view == payloads[index][1:-1] for index, view in kept)


def test_compressed_messages(tls_serve: Serve, engine: str, stat: TlsStat) -> None:
    """Inflated from what the kernel opened, and the other way round."""
    peer_zlib, inbox, rng = ZlibPeer(), Inbox(), random.Random(8)
    payloads = [bytes(rng.choices(b"0123456789", k=rng.randrange(40_000))) for _ in range(40)]
    agreed = {"extensions": "permessage-deflate", "compression": "deflate"}
    with connected(tls_serve, inbox, tls=engine, **agreed) as (client, peer):
        assert client.info()["compression"] is not None
        for number, payload in enumerate(payloads, start=1):
            peer.send(peer_zlib.frame(BINARY, payload))
            receive(client, inbox, number)
            client.send(payload)
            frame = peer.expect_frame(BINARY)
            if frame.rsv:
                assert peer_zlib.decompress(frame) == payload
            else:
                assert frame.payload == payload
        assert frame.rsv
    assert inbox.payloads == payloads
    stat.expect_connections()


def test_a_server_that_hangs_up_amid_what_is_sent(tls_serve: Serve, engine: str) -> None:
    """What the peer sent before is still delivered."""
    inbox = Inbox()
    with connected(tls_serve, inbox, tls=engine) as (client, peer):
        peer.send_text("last words")
        peer.sock.shutdown(socket.SHUT_WR)
        poll = select.poll()
        poll.register(client.info()["descriptor"], select.POLLRDHUP)
        assert poll.poll(1000 * SOON), "the end does not arrive"
        with pytest.raises(hftws.Error):
            for _ in range(100):  # What is sent fits into the buffers, though nobody reads it.
                client.send(bytes(1000))
                client.poll(0)
        assert inbox.payloads == [b"last words"]
