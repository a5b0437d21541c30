"""Messages come out as they were sent, however the bytes were cut on their way."""

from __future__ import annotations

import functools
import random
import ssl
import threading
import time
from pathlib import Path

import pytest
from frames import (
    KIB,
    RING_MIN,
    SOON,
    Inbox,
    Serve,
    ServerFrames,
    binary,
    connected,
    connected_by_record,
    cut,
    cut_randomly,
    expect_failure,
    feed_like_messages,
    feed_like_stream,
    fragmented,
    poll_until,
    receive,
    text,
    wait_until_arrived,
)
from servers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PATIENCE,
    PING,
    PONG,
    TEXT,
    Frame,
    Peer,
    close_payload,
    encode_frame,
    takes,
)

import hftws

# ---- What a message is. ------------------------------------------------------------------------


def test_message_has_opcode_kind_length_and_conversions(serve_both: Serve) -> None:
    seen = []

    def on_msg(msg: hftws.Message) -> None:
        seen.append((msg.opcode, msg.is_text, len(msg), bytes(msg), bytes(msg.data), str(msg)))
        assert isinstance(msg, hftws.Message)
        assert repr(msg) == f"<hftws.Message opcode={msg.opcode} size={len(msg)}>"

    with connected(serve_both, on_msg) as (client, peer):
        peer.send_text("grüße 😀")
        peer.send_binary(b"price")
        poll_until(client, lambda: len(seen) == 2)
    raw = "grüße 😀".encode()
    assert seen == [
        (TEXT, True, len(raw), raw, raw, "grüße 😀"),
        (BINARY, False, 5, b"price", b"price", "price"),
    ]


def test_str_of_a_binary_message_that_is_no_utf8_raises(serve_both: Serve) -> None:
    errors = []

    def on_msg(msg: hftws.Message) -> None:
        with pytest.raises(UnicodeDecodeError) as caught:
            str(msg)
        errors.append(caught.value.start)

    with connected(serve_both, on_msg) as (client, peer):
        peer.send_binary(b"ab\xff")
        assert client.poll(SOON) == 1
    assert errors == [2]


def test_data_is_a_flat_read_only_view_of_bytes(serve_both: Serve) -> None:
    shapes = []

    def on_msg(msg: hftws.Message) -> None:
        view = msg.data
        assert view is msg.data
        shapes.append((view.format, view.itemsize, view.ndim, view.shape, view.contiguous))
        assert view.readonly
        assert view.obj is msg
        with pytest.raises(TypeError):
            view[0] = 1
        with pytest.raises(TypeError):
            memoryview(msg)[0] = 1
        with pytest.raises(TypeError):
            memoryview(msg).cast("H")[0] = 1

    with connected(serve_both, on_msg) as (client, peer):
        peer.send_binary(b"12345678")
        assert client.poll(SOON) == 1
    assert shapes == [("B", 1, 1, (8,), True)]


def test_a_message_cannot_be_made_or_changed_from_python(serve_both: Serve) -> None:
    def on_msg(msg: hftws.Message) -> None:
        for name in ("data", "opcode", "is_last", "t_kernel", "other"):
            with pytest.raises(AttributeError):
                setattr(msg, name, 1)

    with pytest.raises(TypeError):
        hftws.Message()
    with pytest.raises(TypeError):
        hftws.Message.opcode = 1
    with connected(serve_both, on_msg) as (client, peer):
        peer.send_text("x")
        assert client.poll(SOON) == 1


def test_empty_messages_are_messages(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        peer.send(text("") + binary(b"") + fragmented(TEXT, [b"", b"", b""]) + text("end"))
        receive(client, inbox, 4)
    assert inbox.messages == [(TEXT, b""), (BINARY, b""), (TEXT, b""), (TEXT, b"end")]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_sizes_around_every_form_of_the_length(serve_both: Serve, opcode: int) -> None:
    sizes = [0, 1, 2, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537, 100_000]
    payloads = [random.Random(size).randbytes(size).replace(b"\xff", b"").hex() for size in sizes]
    sent = [payload[:size].encode() for payload, size in zip(payloads, sizes, strict=True)]
    inbox = Inbox()
    received = []
    with connected(serve_both, inbox) as (client, peer):
        for payload in sent:
            peer.send_frame(opcode, payload)
            receive(client, inbox, 1)
            received += inbox.messages
            inbox.messages.clear()
    assert received == [(opcode, payload) for payload in sent]
    assert [len(payload) for _, payload in received] == sizes


def test_messages_come_in_order_and_once(serve_both: Serve) -> None:
    count = 20_000

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(b"".join(binary(index.to_bytes(4, "big")) for index in range(count)))
        peer.close_handshake()

    numbers: list[int] = []
    with serve_both(script) as server:
        client = server.client(lambda msg: numbers.append(int.from_bytes(msg.data, "big")))
        client.connect()
        client.run()
    assert numbers == list(range(count))


def test_messages_that_came_with_the_101_are_delivered(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade(then=text("first") + text("second") + encode_frame(PING, b"!"))
        assert peer.read_frame() == Frame(PONG, b"!", mask=peer_mask)
        peer.close_handshake()

    peer_mask = b"\0\0\0\0"
    inbox = Inbox()
    with serve_both(script) as server, server.client(inbox, mask="zero") as client:
        client.run()
    assert inbox.payloads == [b"first", b"second"]


# ---- Limits. -----------------------------------------------------------------------------------


def test_largest_message_is_delivered(serve_both: Serve) -> None:
    size = 200 * KIB
    payload = random.Random(1).randbytes(size)

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for _ in range(5):
            peer.send_binary(payload)
            peer.send(fragmented(BINARY, cut(payload, 30_000)))
        peer.close_handshake()

    inbox = Inbox()
    with serve_both(script) as server:
        with server.client(inbox, ring_size=RING_MIN, max_message_size=size) as client:
            client.run()
    assert inbox.payloads == [payload] * 10


LIMIT = 1000


@pytest.mark.parametrize("length", [LIMIT + 1, RING_MIN, 5 * 1024 * KIB, 2**40, 2**63 - 1])
def test_frame_beyond_the_limit_is_refused_at_its_header(serve_both: Serve, length: int) -> None:
    """It fails before any payload arrives, and what came before is delivered."""
    inbox = Inbox()
    with connected(serve_both, inbox, max_message_size=LIMIT) as (client, peer):
        fits = binary(bytes(LIMIT))
        peer.send(fits + encode_frame(BINARY, length=length))
        error = expect_failure(client, peer, 1009)
    assert isinstance(error, hftws.MessageTooBig)
    assert isinstance(error, ValueError)
    assert inbox.payloads == [bytes(LIMIT)]


@pytest.mark.parametrize("header_only", [True, False])
def test_fragments_beyond_the_limit_are_refused(serve_both: Serve, header_only: bool) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox, max_message_size=LIMIT) as (client, peer):
        exact = [bytes(LIMIT - 1), b"", b"x"]
        peer.send(fragmented(BINARY, exact))
        poll_until(client, lambda: len(inbox.messages) == 1)
        peer.send(encode_frame(BINARY, bytes(LIMIT), fin=False))
        assert client.poll(0.0) == 0
        last = encode_frame(CONTINUATION, b"y")
        peer.send(last[:2] if header_only else last)
        assert isinstance(expect_failure(client, peer, 1009), hftws.MessageTooBig)
    assert inbox.payloads == [bytes(LIMIT - 1) + b"x"]


def test_limit_of_the_default_is_4_mib(serve_both: Serve) -> None:
    payload = random.Random(4).randbytes(4 * 1024 * KIB)

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_binary(payload)
        peer.send(encode_frame(BINARY, length=len(payload) + 1))
        peer.expect_close(1009)
        peer.hang_up()

    inbox = Inbox()
    with serve_both(script) as server, server.client(inbox) as client:
        with pytest.raises(hftws.MessageTooBig):
            client.run()
    assert inbox.payloads == [payload]


# ---- Fragments. --------------------------------------------------------------------------------


def test_fragments_are_joined(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        peer.send(text("before") + fragmented(TEXT, [b"a", b"", b"bc", b"d" * 300]) + text("after"))
        peer.send(fragmented(BINARY, [b"", b"\xff\xfe"]))
        receive(client, inbox, 4)
    assert inbox.messages == [
        (TEXT, b"before"),
        (TEXT, b"abc" + b"d" * 300),
        (TEXT, b"after"),
        (BINARY, b"\xff\xfe"),
    ]


def test_code_point_may_lie_across_fragments(serve_both: Serve) -> None:
    inbox = Inbox()
    payload = "a😀b".encode()
    with connected(serve_both, inbox) as (client, peer):
        for size in range(1, len(payload)):
            peer.send(fragmented(TEXT, cut(payload, size)))
        receive(client, inbox, len(payload) - 1)
    assert inbox.payloads == [payload] * (len(payload) - 1)


def test_pings_between_fragments_are_answered_before_later_replies(serve_both: Serve) -> None:
    with connected(serve_both, lambda msg: client.send(msg.data)) as (client, peer):
        peer.send(
            encode_frame(TEXT, b"he", fin=False)
            + encode_frame(PING, b"one")
            + encode_frame(CONTINUATION, b"ll", fin=False)
            + encode_frame(PING, b"")
            + encode_frame(PONG, b"unasked")
            + encode_frame(CONTINUATION, b"o")
            + encode_frame(PING, b"\xff" * 125)
        )
        client.poll(SOON)
        peer.expect_frame(PONG, b"one")
        peer.expect_frame(PONG, b"")
        peer.expect_frame(BINARY, b"hello")
        peer.expect_frame(PONG, b"\xff" * 125)


def test_ping_is_answered_while_the_message_around_it_is_incomplete(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        peer.send(encode_frame(TEXT, b"half", fin=False) + encode_frame(PING, b"alive?"))
        poll_until(client, lambda: client.stats()["pings"] == 1)
        peer.expect_frame(PONG, b"alive?")
        assert inbox.messages == []
        peer.send(encode_frame(CONTINUATION, b" and half"))
        receive(client, inbox, 1)
    assert inbox.payloads == [b"half and half"]


@pytest.mark.parametrize("count", [10_000, 65_536])
def test_many_tiny_fragments_are_joined(serve_both: Serve, count: int) -> None:
    payload = random.Random(count).randbytes(count)
    stream = bytearray()
    for index, piece in enumerate(cut(payload, 1)):
        opcode = BINARY if index == 0 else CONTINUATION
        stream += encode_frame(opcode, piece, fin=index == count - 1)
        if index % 5000 == 0:
            stream += encode_frame(PING, str(index).encode())

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(bytes(stream))
        for index in range(0, count, 5000):
            peer.expect_frame(PONG, str(index).encode())
        peer.close_handshake()

    inbox = Inbox()
    with serve_both(script) as server, server.client(inbox) as client:
        client.run()
    assert inbox.messages == [(BINARY, payload)]


def test_fragments_with_their_headers_may_pass_the_ring(serve_both: Serve) -> None:
    """The message fits, but not together with the headers and pings between its fragments."""
    payload = random.Random(7).randbytes(100 * KIB)
    stream = fragmented(BINARY, cut(payload, 1), between=b"")
    between = encode_frame(PING, b"p" * 100)
    padded = fragmented(BINARY, cut(payload, 100), between)
    assert len(stream) > RING_MIN
    assert len(padded) > 200 * KIB

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(stream)
        peer.send(padded)
        pings = len(cut(payload, 100)) - 1
        for _ in range(pings):
            peer.expect_frame(PONG, b"p" * 100)
        peer.close_handshake()

    inbox = Inbox()
    with serve_both(script) as server:
        limits = {"ring_size": RING_MIN, "max_message_size": 100 * KIB}
        with server.client(inbox, **limits) as client:
            client.run()
    assert inbox.payloads == [payload, payload]


@pytest.mark.parametrize("count", [51, 100])
def test_burst_of_fragments_followed_by_silence_is_delivered(serve_both: Serve, count: int) -> None:
    """Real clients leave the end of it in the buffer of the TLS library."""
    fragments = [bytes([index]) * 1300 for index in range(count)]
    inbox = Inbox()
    with connected(serve_both, inbox, max_message_size=200 * KIB) as (client, peer):
        for index, fragment in enumerate(fragments):
            opcode = BINARY if index == 0 else CONTINUATION
            peer.send(encode_frame(opcode, fragment, fin=index == count - 1))
        receive(client, inbox, 1)
    assert inbox.payloads == [b"".join(fragments)]


@pytest.mark.parametrize("tls", ["direct", "openssl"])
@pytest.mark.parametrize("in_one_write", [False, True])
@pytest.mark.parametrize("count", [51, 100])
def test_fragments_over_tls_are_delivered_by_one_poll(
    serve: Serve, tls: str, in_one_write: bool, count: int
) -> None:
    """There is no later read, and the program does not call again: it has to be delivered now."""
    fragments = [bytes([index]) * 1300 for index in range(count)]
    frames = [
        encode_frame(CONTINUATION if index else BINARY, fragment, fin=index == count - 1)
        for index, fragment in enumerate(fragments)
    ]
    inbox = Inbox()
    with connected(functools.partial(serve, tls=True), inbox, tls=tls) as (client, peer):
        assert client.info()["engine"] == tls
        # One write is cut into the largest records; separate ones give each fragment its own.
        for data in [b"".join(frames)] if in_one_write else frames:
            peer.send(data)
        assert client.poll(SOON) == 1
    assert inbox.payloads == [b"".join(fragments)]


def test_burst_in_one_segment_is_delivered_by_one_poll(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        data = b"".join(text(f"message {index}") for index in range(200))
        peer.send(data)
        wait_until_arrived(client, len(data))
        assert client.poll(SOON) == 200
        assert client.poll(0.0) == 0


def test_burst_of_records_is_delivered_by_one_poll(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path
) -> None:
    """Not one record per readiness event, which drained it at one message per 100 ms."""
    inbox = Inbox()
    with connected_by_record(serve, tls_context, ca_file, inbox) as (client, peer):
        data = b"".join(peer.seal(text(f"message {index}")) for index in range(200))
        peer.sock.sendall(data)
        wait_until_arrived(client, len(data))
        assert client.poll(SOON) == 200
        assert client.poll(0.0) == 0


def test_burst_of_segments_is_delivered_in_no_time(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        for index in range(200):
            peer.send_text(f"message {index}")
        receive(client, inbox, 200)


# ---- Cuts. -------------------------------------------------------------------------------------

SMALL_MESSAGES = [(TEXT, "ü😀".encode()), (BINARY, b""), (BINARY, b"\xff" * 130), (TEXT, b"end")]


def small_stream() -> bytes:
    """Every kind of header, in few bytes."""
    return (
        text("ü😀")
        + encode_frame(PING, b"p")
        + binary(b"")
        + fragmented(BINARY, [b"\xff" * 3, b"\xff" * 127], between=encode_frame(PONG, b"q"))
        + text("end")
    )


def test_stream_in_single_bytes(serve_both: Serve) -> None:
    """Over TLS, each byte is a record. The client polls after each one."""
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        for byte in cut(small_stream(), 1):
            peer.send(byte)
            client.poll(0.0)
        receive(client, inbox, len(SMALL_MESSAGES))
        peer.expect_frame(PONG, b"p")
    assert inbox.messages == SMALL_MESSAGES


def test_stream_cut_in_two_at_every_place(serve_both: Serve) -> None:
    inbox = Inbox()
    stream = small_stream()
    with connected(serve_both, inbox) as (client, peer):
        for place in range(1, len(stream)):
            peer.send(stream[:place])
            client.poll(0.0)
            peer.send(stream[place:])
            receive(client, inbox, len(SMALL_MESSAGES))
            peer.expect_frame(PONG, b"p")
            assert inbox.messages == SMALL_MESSAGES, f"cut at {place}"
            inbox.messages.clear()


def test_record_in_single_bytes(serve: Serve, tls_context: ssl.SSLContext, ca_file: Path) -> None:
    """Nothing of a record is delivered before it is whole."""
    inbox = Inbox()
    with connected_by_record(serve, tls_context, ca_file, inbox) as (client, peer):
        record = peer.seal(small_stream())
        for byte in cut(record[:-1], 1):
            peer.sock.sendall(byte)
            assert client.poll(0.0) == 0
        assert inbox.messages == []
        peer.sock.sendall(record[-1:])
        assert client.poll(SOON) == len(SMALL_MESSAGES)
        peer.expect_frame(PONG, b"p")
    assert inbox.messages == SMALL_MESSAGES


def test_many_messages_in_one_record(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path
) -> None:
    inbox = Inbox()
    with connected_by_record(serve, tls_context, ca_file, inbox) as (client, peer):
        sent = [str(index).encode() for index in range(1000)]
        plaintext = b"".join(map(text, sent))
        assert len(plaintext) < 16 * KIB
        before = client.stats()["records"]
        peer.send(plaintext)
        assert client.poll(SOON) == 1000
        assert client.stats()["records"] == before + 1
    assert inbox.payloads == sent


def test_record_with_whole_messages_and_a_part(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path
) -> None:
    inbox = Inbox()
    with connected_by_record(serve, tls_context, ca_file, inbox) as (client, peer):
        partial = text("three" * 100)
        for place in (1, 2, 3, 4, 5, 250):
            peer.send(text("one") + text("two") + partial[:place])
            assert client.poll(SOON) == 2
            assert client.poll(0.0) == 0
            peer.send(partial[place:] + text("four"))
            assert client.poll(SOON) == 2
            assert inbox.payloads == [b"one", b"two", b"three" * 100, b"four"]
            inbox.messages.clear()


def test_one_message_over_several_records(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path
) -> None:
    inbox = Inbox()
    payload = random.Random(3).randbytes(3000)
    with connected_by_record(serve, tls_context, ca_file, inbox) as (client, peer):
        for size in (1, 7, 100, 1000, 2999):
            wire = binary(payload)
            peer.sock.sendall(b"".join(peer.seal(piece) for piece in cut(wire, size)))
            receive(client, inbox, 1)
            assert inbox.payloads == [payload], f"{size} bytes a record"
            inbox.messages.clear()


def test_records_cut_anywhere_between_reads(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path
) -> None:
    inbox = Inbox()
    rng = random.Random(17)
    messages = feed_like_messages(rng, 60)
    with connected_by_record(serve, tls_context, ca_file, inbox) as (client, peer):
        pieces = cut_randomly(feed_like_stream(rng, messages), rng, 3000)
        ciphertext = b"".join(map(peer.seal, pieces))
        for chunk in cut_randomly(ciphertext, rng, 9000):
            peer.sock.sendall(chunk)
            client.poll(0.0)
        receive(client, inbox, len(messages))
    assert inbox.messages == messages


@pytest.mark.parametrize("seed", range(8))
def test_random_chunks_of_a_feed_against_the_model(serve_both: Serve, seed: int) -> None:
    """Random messages, fragments and control frames, cut at random: the model says what comes."""
    rng = random.Random(seed)
    stream = feed_like_stream(rng, feed_like_messages(rng, 250))
    chunks = cut_randomly(stream, rng, rng.choice([16, 200, 5000, 70_000]))[:4000]
    whole = b"".join(chunks)
    rest = stream[len(whole) :]
    model = ServerFrames.decode(stream)
    pongs: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for chunk in chunks:
            peer.send(chunk)
        if rest:
            peer.send(rest)
        pongs.extend(peer.expect_frame(PONG).payload for _ in model.pings)
        peer.close_handshake()

    inbox = Inbox()
    with serve_both(script) as server:
        limits = {"ring_size": RING_MIN, "max_message_size": 64 * KIB}
        with server.client(inbox, **limits) as client:
            client.run()
            stats = client.stats()
    assert inbox.messages == model.messages
    assert pongs == model.pings
    assert (stats["pings"], stats["pongs"]) == (len(model.pings), len(model.pongs))
    assert stats["messages"] == len(model.messages)
    assert stats["bytes"] == sum(len(payload) for _, payload in model.messages)


def test_utf8_is_not_checked_when_told_so(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox, validate_utf8=False) as (client, peer):
        peer.send(text(b"\xff") + fragmented(TEXT, [b"\xc3", b"\x28"]) + text("ü"))
        receive(client, inbox, 3)
    assert inbox.messages == [(TEXT, b"\xff"), (TEXT, b"\xc3\x28"), (TEXT, "ü".encode())]


# ---- is_last. ----------------------------------------------------------------------------------


def last_flags(client: hftws.Client, flags: list[bool], count: int) -> list[bool]:
    """The flags of the next messages."""
    flags.clear()
    poll_until(client, lambda: len(flags) >= count)
    return flags


def test_is_last_marks_the_last_message_of_what_was_read(serve_both: Serve) -> None:
    flags: list[bool] = []
    with connected(serve_both, lambda msg: flags.append(msg.is_last)) as (client, peer):
        peer.send(text("alone"))
        assert last_flags(client, flags, 1) == [True]
        peer.send(text("1") + binary(b"2" * 200) + text("3"))
        assert last_flags(client, flags, 3) == [False, False, True]


def test_is_last_does_not_wait_for_what_is_incomplete(serve_both: Serve) -> None:
    flags: list[bool] = []
    with connected(serve_both, lambda msg: flags.append(msg.is_last)) as (client, peer):
        partial = text("partial" * 50)
        for place in (1, 2, 3, 100):
            peer.send(text("1") + text("2") + partial[:place])
            assert last_flags(client, flags, 2) == [False, True]
            peer.send(partial[place:])
            assert last_flags(client, flags, 1) == [True]
        peer.send(text("1") + encode_frame(TEXT, b"a", fin=False) + encode_frame(PING))
        assert last_flags(client, flags, 1) == [True]
        peer.send(encode_frame(CONTINUATION, b"b"))
        assert last_flags(client, flags, 1) == [True]


def test_is_last_looks_past_control_frames(serve_both: Serve) -> None:
    flags: list[bool] = []
    with connected(serve_both, lambda msg: flags.append(msg.is_last)) as (client, peer):
        peer.send(text("1") + encode_frame(PING, b"x"))
        assert last_flags(client, flags, 1) == [True]
        peer.send(text("1") + encode_frame(PING, b"x") + fragmented(TEXT, [b"2", b"3"]))
        assert last_flags(client, flags, 2) == [False, True]
        peer.send(text("1") + encode_frame(CLOSE, close_payload(1000)))
        assert last_flags(client, flags, 1) == [True]


def test_is_last_over_several_records_in_one_read(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path
) -> None:
    flags: list[bool] = []

    def on_msg(msg: hftws.Message) -> None:
        flags.append(msg.is_last)

    with connected_by_record(serve, tls_context, ca_file, on_msg) as (client, peer):
        records = [peer.seal(text(str(index))) for index in range(4)]
        peer.sock.sendall(b"".join(records))
        assert last_flags(client, flags, 4) == [False, False, False, True]
        first, second = peer.seal(text("whole")), peer.seal(text("cut off"))
        peer.sock.sendall(first + second[:-1])
        assert last_flags(client, flags, 1) == [True]
        peer.sock.sendall(second[-1:])
        assert last_flags(client, flags, 1) == [True]


# ---- poll() and run(). -------------------------------------------------------------------------


def test_poll_without_timeout_does_not_wait(serve_both: Serve) -> None:
    """It does not wait even 5 ms: that would be 10 s for all of them."""
    with connected(serve_both) as (client, _peer):
        with takes(0, 10, busy=True):
            for _ in range(1000):
                assert client.poll() == 0
                assert client.poll(0) == 0


def expect_poll_to_wait(client: hftws.Client, timeout: float) -> None:
    """Never shorter. A poll that waits too long does so every time; a busy machine does not."""
    for _ in range(10):
        start = time.monotonic()
        assert client.poll(timeout) == 0
        elapsed = time.monotonic() - start
        assert timeout <= elapsed
        if elapsed < timeout + 0.2 * PATIENCE:
            return
    raise AssertionError(f"poll({timeout}) lasted {elapsed} s")


def test_poll_waits_for_its_timeout_and_no_longer(serve_both: Serve) -> None:
    with connected(serve_both) as (client, _peer):
        for timeout in (0.001, 0.05, 0.3):  # The last is longer than one look for signals.
            expect_poll_to_wait(client, timeout)


def test_poll_ends_with_the_first_message(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(polling)
        peer.send_text("x")
        peer.answer_close()

    polling = threading.Event()
    inbox = Inbox()
    for timeout in (None, 30.0):
        polling.clear()
        with serve_both(script) as server, server.client(inbox) as client:
            polling.set()
            start = time.monotonic()
            assert client.poll(timeout) == 1
            assert time.monotonic() - start < SOON
    assert inbox.payloads == [b"x", b"x"]


def test_poll_counts_the_messages_of_its_turn(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        peer.send(text("1") + text("2") + encode_frame(PING) + text("3"))
        assert client.poll(SOON) == 3
        peer.send(encode_frame(PING) + encode_frame(PONG) + text("half")[:3])
        assert client.poll(0.05) == 0
        peer.send(text("half")[3:])
        assert client.poll(timeout=SOON) == 1


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
def test_poll_refuses_a_timeout_that_is_none(serve_both: Serve, timeout: float) -> None:
    with connected(serve_both) as (client, _peer):
        with pytest.raises(ValueError, match="timeout"):
            client.poll(timeout)
        with pytest.raises(TypeError):
            client.poll("soon")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            client.poll(0.0, 0.0)  # type: ignore[call-arg]


def test_poll_with_an_infinite_timeout_waits(serve_both: Serve) -> None:
    with connected(serve_both) as (client, peer):
        peer.send_text("x")
        assert client.poll(float("inf")) == 1


def test_poll_and_run_need_a_connection(serve_both: Serve) -> None:
    client = hftws.Client("ws://127.0.0.1:9/")
    with pytest.raises(RuntimeError, match="connect"):
        client.poll()
    with pytest.raises(RuntimeError, match="connect"):
        client.run()
    client.close()


def test_poll_after_the_end_says_how_it_ended(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        peer.send(text("last words") + encode_frame(CLOSE, close_payload(1000, "done")))
        assert client.poll(SOON) == 1
        peer.expect_close(1000)
        peer.close()
        assert client.poll(SOON) == 0
        for _ in range(2):
            with pytest.raises(hftws.ConnectionClosed) as caught:
                client.poll(SOON)
            assert (caught.value.code, caught.value.reason) == (1000, "done")
        client.run()  # An ordinary end raises nothing here.
    assert inbox.payloads == [b"last words"]
    assert (client.close_code, client.close_reason) == (1000, "done")
    assert not client.is_open


@pytest.mark.parametrize("busy_poll", [False, True])
def test_run_returns_after_an_ordinary_end(serve_both: Serve, busy_poll: bool) -> None:
    for code in (1000, 1001, None):

        def script(peer: Peer, code: int | None = code) -> None:
            peer.accept_upgrade()
            peer.send_text("x")
            peer.close_handshake(code)

        inbox = Inbox()
        with serve_both(script) as server:
            with server.client(inbox, busy_poll=busy_poll) as client:
                client.run()
        assert inbox.payloads == [b"x"]
        assert client.close_code == (code or 1005)


def test_run_raises_after_another_end(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.close_handshake(4001, "kicked: ü")

    with serve_both(script) as server, server.client() as client:
        with pytest.raises(hftws.ConnectionClosed, match="kicked") as caught:
            client.run()
        assert (caught.value.code, caught.value.reason) == (4001, "kicked: ü")
        assert isinstance(caught.value, ConnectionError)


def test_busy_poll_receives_and_answers(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox, busy_poll=True) as (client, peer):
        assert client.info()["busy_poll"] is True
        expect_poll_to_wait(client, 0.05)
        peer.send(text("1") + encode_frame(PING, b"!") + text("2"))
        assert client.poll(SOON) == 2
        peer.expect_frame(PONG, b"!")
        client.send("reply")
        peer.expect_frame(TEXT, b"reply")
    assert inbox.payloads == [b"1", b"2"]


def test_without_on_msg_messages_are_dropped_and_counted(serve_both: Serve) -> None:
    with connected(serve_both, None) as (client, peer):
        peer.send(text("1") + text("22") + encode_frame(PING, b"x"))
        assert client.poll(SOON) == 2
        peer.expect_frame(PONG, b"x")
        assert (client.stats()["messages"], client.stats()["bytes"]) == (2, 3)


def test_fileno_serves_the_loop_of_somebody_else(serve_both: Serve) -> None:
    import select

    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        while select.select([client], [], [], 0)[0]:  # Session tickets of TLS 1.3.
            client.poll()
        peer.send(text("x") * 3)
        assert select.select([client], [], [], SOON)[0] == [client]
        assert client.poll() == 3
        assert select.select([client], [], [], 0)[0] == []


def test_what_came_with_the_answer_is_there_without_a_wait(serve_both: Serve) -> None:
    """It has been read already: the descriptor is readable though the socket is not."""
    import select

    def script(peer: Peer) -> None:
        peer.accept_upgrade(then=text("x") * 3)
        peer.answer_close()

    inbox = Inbox()
    with serve_both(script) as server, server.client(inbox) as client:
        assert select.select([client], [], [], 0)[0] == [client]
        assert client.poll(0) == 3
        assert select.select([client], [], [], 0)[0] == []
    assert inbox.payloads == [b"x"] * 3


def test_what_is_left_after_an_exception_is_there_without_a_wait(serve_both: Serve) -> None:
    import select

    received: list[bytes] = []

    def on_msg(msg: hftws.Message) -> None:
        received.append(bytes(msg))
        if msg.data != b"last":
            raise LookupError("mine")

    with connected(serve_both, on_msg) as (client, peer):
        while select.select([client], [], [], 0)[0]:  # Session tickets of TLS 1.3.
            client.poll()
        peer.send(text("1") + text("2") + text("last"))
        assert select.select([client], [], [], SOON)[0] == [client]
        with pytest.raises(LookupError, match="mine"):
            client.poll(0)
        assert select.select([client], [], [], 0)[0] == [client]
        with pytest.raises(LookupError, match="mine"):
            client.poll(0)
        assert select.select([client], [], [], 0)[0] == [client]
        assert client.poll(0) == 1
        assert select.select([client], [], [], 0)[0] == []
    assert received == [b"1", b"2", b"last"]


def test_the_end_makes_the_descriptor_readable_and_is_told_once(serve_both: Serve) -> None:
    """Also an end that comes with the last messages. The descriptor stays what it is."""
    import select

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(text("last words"))
        peer.close_handshake(1000, "bye")

    inbox = Inbox()
    with serve_both(script) as server:
        client = server.client(inbox)
        descriptor = client.fileno()
        assert select.select([client], [], [], 0)[0] == []
        client.connect()
        with pytest.raises(hftws.ConnectionClosed, match="bye"):
            while True:
                assert select.select([client], [], [], SOON)[0] == [client]
                client.poll(0)
        assert select.select([client], [], [], 0)[0] == []
        assert client.fileno() == descriptor
    assert inbox.payloads == [b"last words"]


def test_a_closing_handshake_that_is_not_answered_ends_with_a_poll(serve_both: Serve) -> None:
    """Nothing comes that would wake a loop: the deadline makes the descriptor readable."""
    import select

    def on_msg(msg: hftws.Message) -> None:
        client.close()

    def script(peer: Peer) -> None:
        peer.accept_upgrade(then=text("x"))
        peer.expect_close(1000)
        peer.recv_all()

    with serve_both(script) as server:
        client = server.client(on_msg, close_timeout=0.05)
        client.connect()
        assert select.select([client], [], [], 0)[0] == [client]
        assert client.poll(0) == 1
        with pytest.raises(hftws.ConnectionClosed) as caught:
            while True:
                assert select.select([client], [], [], SOON)[0] == [client]
                assert client.poll(0) == 0
    assert caught.value.code == 1006
