"""permessage-deflate, RFC 7692: what is offered, what is agreed on, and the messages after it.

The peer of most tests is the test itself, with Python's ``zlib``; at the end it is ``websockets``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
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
    expect_failure,
    poll_until,
    receive,
)
from servers import BINARY, CONTINUATION, PING, PONG, TEXT, Frame, Peer, encode_frame
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

import hftws

#: The answer of a server that accepts the offer unchanged.
PLAIN = "permessage-deflate"

#: RSV1: a compressed message.
COMPRESSED = 0b100

#: What ends a message and is not sent (RFC 7692, section 7.2.1).
TAIL = b"\x00\x00\xff\xff"

#: A message as exchanges send them.
TRADE = b'{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","m":true}'


class ZlibPeer:
    """The other side's two contexts."""

    def __init__(self, *, window_bits: int = 15, level: int = 6) -> None:
        self.compressor = zlib.compressobj(level, zlib.DEFLATED, -window_bits)
        self.decompressor = zlib.decompressobj(-window_bits)

    def compress(self, payload: bytes) -> bytes:
        data = self.compressor.compress(payload) + self.compressor.flush(zlib.Z_SYNC_FLUSH)
        assert data.endswith(TAIL)
        return data[: -len(TAIL)]

    def frame(self, opcode: int, payload: bytes) -> bytes:
        return encode_frame(opcode, self.compress(payload), rsv=COMPRESSED)

    def decompress(self, frame: Frame) -> bytes:
        return self.decompressor.decompress(frame.payload + TAIL)


def compress(payload: bytes, **options: Any) -> bytes:
    """A message, compressed without the others."""
    return ZlibPeer(**options).compress(payload)


def compressed(opcode: int, payload: bytes) -> bytes:
    """The frame of a message that is compressed without the others."""
    return encode_frame(opcode, compress(payload), rsv=COMPRESSED)


def is_compressed(frame: Frame) -> bool:
    return frame.rsv == COMPRESSED


# ---- The negotiation.

OFFERS = {
    "nothing is offered by default": (None, None),
    "deflate": ("deflate", "permessage-deflate; client_max_window_bits"),
    "defaults": (hftws.Deflate(), "permessage-deflate; client_max_window_bits"),
    "everything": (
        hftws.Deflate(
            server_no_context_takeover=True,
            client_no_context_takeover=True,
            server_max_window_bits=9,
            client_max_window_bits=10,
        ),
        "permessage-deflate; client_max_window_bits=10; server_max_window_bits=9; "
        "server_no_context_takeover; client_no_context_takeover",
    ),
}


@pytest.mark.parametrize(("compression", "offer"), OFFERS.values(), ids=OFFERS)
def test_what_is_offered(serve_both: Serve, compression: Any, offer: str | None) -> None:
    with connected(serve_both, compression=compression) as (client, peer):
        assert peer.request is not None
        assert peer.request.header("Sec-WebSocket-Extensions") == offer
        assert client.info()["compression"] is None


def agreement(server_bits: int, client_bits: int, *, takeover: bool) -> dict[str, Any]:
    return {
        "server_no_context_takeover": not takeover,
        "client_no_context_takeover": not takeover,
        "server_max_window_bits": server_bits,
        "client_max_window_bits": client_bits,
    }


ANSWERS = {
    "as it is": (PLAIN, agreement(15, 15, takeover=True)),
    "windows": (
        f"{PLAIN}; server_max_window_bits=8; client_max_window_bits=11",
        agreement(8, 11, takeover=True),
    ),
    "all four, oddly spaced": (
        f"{PLAIN} ;client_max_window_bits=9 ;  server_no_context_takeover;"
        'server_max_window_bits="12";client_no_context_takeover',
        agreement(12, 9, takeover=False),
    ),
}


@pytest.mark.parametrize(("answer", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_what_is_agreed_on(serve: Serve, answer: str, expected: dict[str, Any]) -> None:
    with connected(serve, compression="deflate", extensions=answer) as (client, _):
        info = client.info()["compression"]
        assert info.pop("zlib_version").startswith("1.")
        assert info == expected
        assert client.info()["inflated_ring"] == client.info()["receive_ring"]


WRONG_ANSWERS = {
    "another extension": ("x-webkit-deflate-frame", "not offered"),
    "twice": (f"{PLAIN}, {PLAIN}", "more than once"),
    "no syntax": (f"{PLAIN};;", "malformed"),
    "unknown parameter": (f"{PLAIN}; mux", "parameters"),
    "a window of 16 bits": (f"{PLAIN}; server_max_window_bits=16", "parameters"),
    "a window without a value": (f"{PLAIN}; client_max_window_bits", "parameters"),
    "a flag with a value": (f"{PLAIN}; server_no_context_takeover=1", "parameters"),
}


@pytest.mark.parametrize(("answer", "problem"), WRONG_ANSWERS.values(), ids=WRONG_ANSWERS)
def test_an_answer_that_is_none_to_the_offer_is_refused(
    serve: Serve, answer: str, problem: str
) -> None:
    with pytest.raises(hftws.HandshakeError, match=problem):
        with connected(serve, compression="deflate", extensions=answer):
            pass


def test_a_server_has_to_grant_what_was_asked_of_it(serve: Serve) -> None:
    asked = hftws.Deflate(server_max_window_bits=10)
    with pytest.raises(hftws.HandshakeError, match="parameters"):
        with connected(serve, compression=asked, extensions=PLAIN):
            pass


def test_an_extension_that_was_not_offered_is_refused(serve: Serve) -> None:
    with pytest.raises(hftws.HandshakeError, match="not offered"):
        with connected(serve, extensions=PLAIN):
            pass


WRONG_OPTIONS = {
    "name": ("gzip", "compression"),
    "bool": (True, "compression"),
    "small window": (hftws.Deflate(server_max_window_bits=7), "server_max_window_bits"),
    "large window": (hftws.Deflate(client_max_window_bits=16), "client_max_window_bits"),
    "no window": (hftws.Deflate(client_max_window_bits=0), "window"),
    "level": (hftws.Deflate(level=10), "level"),
    "threshold": (hftws.Deflate(threshold=-1), "threshold"),
}


@pytest.mark.parametrize(("compression", "problem"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_what_cannot_be_offered_is_refused_at_once(compression: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        hftws.Client("ws://localhost", compression=compression)


def test_without_zlib_only_compression_is_missing() -> None:
    script = (
        "import hftws\n"
        "hftws.Client('ws://localhost')\n"
        "try: hftws.Client('ws://localhost', compression='deflate')\n"
        "except OSError as error: print(error)\n"
    )
    environment = {**os.environ, "HFTWS_ZLIB": "/no/such/library.so"}
    output = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert output.stdout.startswith("compression needs zlib, and none was found")


# ---- What arrives.


def test_messages_compressed_or_not_arrive_in_order(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox, compression="deflate", extensions=PLAIN) as (client, peer):
        other = ZlibPeer()
        peer.send(
            other.frame(TEXT, TRADE) + encode_frame(TEXT, b"plain") + other.frame(TEXT, TRADE)
        )
        peer.send(other.frame(BINARY, b"\xff\x00" * 5000) + encode_frame(BINARY, b""))
        receive(client, inbox, 5)
        assert inbox.messages == [
            (TEXT, TRADE),
            (TEXT, b"plain"),
            (TEXT, TRADE),
            (BINARY, b"\xff\x00" * 5000),
            (BINARY, b""),
        ]
        stats = client.stats()
        assert stats["messages"] == 5
        assert stats["bytes"] == 2 * len(TRADE) + 5 + 10_000
        assert stats["messages_inflated"] == 3
        assert 0 < stats["bytes_before_inflation"] < 200


@pytest.mark.parametrize("takeover", [True, False])
def test_the_servers_window_goes_on_or_not(serve: Serve, takeover: bool) -> None:
    answer = PLAIN if takeover else f"{PLAIN}; server_no_context_takeover"
    inbox = Inbox()
    with connected(serve, inbox, compression="deflate", extensions=answer) as (client, peer):
        other = ZlibPeer()
        for _ in range(3):
            peer.send((other if takeover else ZlibPeer()).frame(TEXT, TRADE))
        assert receive(client, inbox, 3) == [TRADE] * 3


def test_without_context_takeover_nothing_of_an_old_message_can_be_referred_to(
    serve: Serve,
) -> None:
    answer = f"{PLAIN}; server_no_context_takeover"
    with connected(serve, compression="deflate", extensions=answer) as (client, peer):
        other = ZlibPeer()
        peer.send(other.frame(TEXT, TRADE) + other.frame(TEXT, TRADE))
        expect_failure(client, peer, 1007)


@pytest.mark.parametrize("bits", range(9, 16))
def test_every_window_is_read(serve: Serve, bits: int) -> None:
    answer = f"{PLAIN}; server_max_window_bits={bits}"
    inbox = Inbox()
    # The second half repeats the first from as far back as this window allows.
    payload = random.Random(bits).randbytes(2**bits - 300)
    with connected(serve, inbox, compression="deflate", extensions=answer) as (client, peer):
        other = ZlibPeer(window_bits=bits)
        peer.send(other.frame(BINARY, payload) + other.frame(BINARY, payload[:200]))
        assert receive(client, inbox, 2) == [payload, payload[:200]]


def test_a_reference_beyond_the_agreed_window_is_refused(serve: Serve) -> None:
    answer = f"{PLAIN}; server_max_window_bits=9"
    noise = random.Random(1).randbytes(3000)
    with connected(serve, compression="deflate", extensions=answer) as (client, peer):
        other = ZlibPeer(window_bits=15)
        peer.send(other.frame(BINARY, noise) + other.frame(BINARY, noise))
        error = expect_failure(client, peer, 1007)
        assert "cannot be decompressed" in str(error)


def test_fragments_with_control_frames_in_between(serve_both: Serve) -> None:
    inbox = Inbox()
    payload = TRADE * 50
    data = compress(payload)
    with connected(serve_both, inbox, compression="deflate", extensions=PLAIN) as (client, peer):
        peer.send_frame(TEXT, data[:1], fin=False, rsv=COMPRESSED)
        for index in range(1, len(data) - 1):
            peer.send_frame(PING, bytes([index]))
            peer.send_frame(CONTINUATION, data[index : index + 1], fin=False)
        peer.send_frame(CONTINUATION, data[-1:])
        assert receive(client, inbox, 1) == [payload]
        for index in range(1, len(data) - 1):
            peer.expect_frame(PONG, bytes([index]))


def test_a_message_in_any_blocks_of_any_kind(serve: Serve) -> None:
    # RFC 7692, section 7.2.3: stored, final, and several blocks, each "Hello".
    wires = [
        b"\xf2\x48\xcd\xc9\xc9\x07\x00",
        b"\x00\x05\x00\xfa\xffHello\x00",
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
        b"\xf2\x00\x11\x00\x00",
    ]
    inbox = Inbox()
    with connected(serve, inbox, compression="deflate", extensions=PLAIN) as (client, peer):
        for wire in wires:
            peer.send_frame(TEXT, wire, rsv=COMPRESSED)
        peer.send_frame(TEXT, b"\x00", rsv=COMPRESSED)
        assert receive(client, inbox, 6) == [b"Hello"] * 5 + [b""]


def test_every_cut_of_the_bytes_gives_the_same_messages(serve: Serve) -> None:
    other = ZlibPeer()
    wire = other.frame(TEXT, TRADE) + other.frame(TEXT, TRADE)
    inbox = Inbox()
    for cut in range(1, len(wire)):
        inbox.messages.clear()
        with connected(serve, inbox, compression="deflate", extensions=PLAIN) as (client, peer):
            peer.send(wire[:cut])
            client.poll(0.001)
            peer.send(wire[cut:])
            assert receive(client, inbox, 2) == [TRADE, TRADE]


# ---- What must not arrive.


@pytest.mark.parametrize("size", [16 * KIB, 16 * KIB + 1, 100 * KIB, 64 * 1024 * KIB])
def test_the_limit_is_on_the_inflated_size(serve: Serve, size: int) -> None:
    inbox = Inbox()
    options = {"max_message_size": 16 * KIB, "compression": "deflate", "extensions": PLAIN}
    with connected(serve, inbox, **options) as (client, peer):
        payload = bytes(size)
        peer.send(compressed(BINARY, payload))
        if size <= 16 * KIB:
            assert receive(client, inbox, 1) == [payload]
            return
        error = expect_failure(client, peer, 1009)
        assert isinstance(error, hftws.MessageTooBig)
        assert not inbox.messages


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("memory_level", [1, 2, 8])
@pytest.mark.parametrize("excess", [0, 1])
def test_the_limit_is_exact_for_what_does_not_compress(
    serve: Serve, level: int, memory_level: int, excess: int
) -> None:
    """DEFLATE makes noise larger; how much is up to the peer, and does not count."""
    inbox = Inbox()
    options = {"max_message_size": 16 * KIB, "compression": "deflate", "extensions": PLAIN}
    with connected(serve, inbox, **options) as (client, peer):
        payload = random.Random(excess).randbytes(16 * KIB + excess)
        deflater = zlib.compressobj(level, zlib.DEFLATED, -15, memory_level)
        data = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
        data = data.removesuffix(b"\x00\x00\xff\xff")
        assert len(data) > len(payload)
        peer.send_frame(BINARY, data, rsv=COMPRESSED)
        if not excess:
            assert receive(client, inbox, 1) == [payload]
            return
        expect_failure(client, peer, 1009)
        assert not inbox.messages


def test_the_ring_has_room_for_the_largest_message_as_it_is_sent() -> None:
    limits = {"ring_size": RING_MIN, "max_message_size": 230 * KIB}
    hftws.Client("ws://example.com/", **limits)
    with pytest.raises(ValueError, match="ring_size"):
        hftws.Client("ws://example.com/", compression="deflate", **limits)
    limits["max_message_size"] = 200 * KIB
    hftws.Client("ws://example.com/", compression="deflate", **limits)


def test_a_bomb_in_fragments_is_stopped(serve: Serve) -> None:
    options = {"max_message_size": 16 * KIB, "compression": "deflate", "extensions": PLAIN}
    with connected(serve, **options) as (client, peer):
        data = compress(bytes(10_000 * KIB), level=9)
        assert len(data) < 16 * KIB
        peer.send_frame(BINARY, data[:100], fin=False, rsv=COMPRESSED)
        peer.send_frame(CONTINUATION, data[100:])
        expect_failure(client, peer, 1009)


NO_DEFLATE = {
    "a reserved type of block": b"\x06",
    "sizes that contradict each other": b"\x00\x05\x00\xfa\xfeHello\x00",
    "a reference to what was not there": b"\xf2\x00\x11\x00\x00",
    "the end of the message within a block": compress(TRADE)[:-5],
    "nothing at all": b"",
    "noise": b"\xff" * 50,
}


@pytest.mark.parametrize("wire", NO_DEFLATE.values(), ids=NO_DEFLATE)
def test_what_no_deflater_makes_is_refused(serve_both: Serve, wire: bytes) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox, compression="deflate", extensions=PLAIN) as (client, peer):
        peer.send_text("before it")
        peer.send_frame(BINARY, wire, rsv=COMPRESSED)
        error = expect_failure(client, peer, 1007)
        assert "cannot be decompressed" in str(error)
        assert inbox.payloads == [b"before it"]


@pytest.mark.parametrize("validate", [True, False])
def test_text_is_judged_after_it_was_inflated(serve: Serve, validate: bool) -> None:
    inbox = Inbox()
    options = {"compression": "deflate", "extensions": PLAIN, "validate_utf8": validate}
    with connected(serve, inbox, **options) as (client, peer):
        other = ZlibPeer()
        peer.send(other.frame(TEXT, "größer".encode()) + other.frame(BINARY, b"\xff"))
        peer.send(other.frame(TEXT, b"\xc3"))
        if not validate:
            assert receive(client, inbox, 3)[2] == b"\xc3"
            return
        assert receive(client, inbox, 2) == ["größer".encode(), b"\xff"]
        error = expect_failure(client, peer, 1007)
        assert "UTF-8" in str(error)


RESERVED_BITS = {
    "RSV1 in a continuation": (
        encode_frame(TEXT, compress(TRADE)[:3], fin=False, rsv=COMPRESSED)
        + encode_frame(CONTINUATION, compress(TRADE)[3:], rsv=COMPRESSED)
    ),
    "RSV1 in a ping": encode_frame(PING, b"", rsv=COMPRESSED),
    "RSV2": encode_frame(TEXT, b"", rsv=0b010),
    "RSV1 and RSV3": encode_frame(TEXT, compress(TRADE), rsv=0b101),
}


@pytest.mark.parametrize("wire", RESERVED_BITS.values(), ids=RESERVED_BITS)
def test_reserved_bits_without_a_meaning_are_refused(serve: Serve, wire: bytes) -> None:
    with connected(serve, compression="deflate", extensions=PLAIN) as (client, peer):
        peer.send(wire)
        expect_failure(client, peer, 1002)


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_without_an_agreement_rsv1_has_no_meaning(serve: Serve, compression: Any) -> None:
    with connected(serve, compression=compression) as (client, peer):
        peer.send(compressed(TEXT, TRADE))
        expect_failure(client, peer, 1002)


# ---- What is kept of it.


def numbered(index: int) -> bytes:
    return index.to_bytes(4, "big") + random.Random(index).randbytes(500) * 2


def test_a_message_that_is_kept_stays_as_it_is(serve_both: Serve) -> None:
    kept: list[hftws.Message] = []
    everything = Inbox()
    other = ZlibPeer()

    def on_msg(msg: hftws.Message) -> None:
        everything(msg)
        if len(everything.messages) % 10 == 0:
            kept.append(msg)
        if len(kept) > 12:  # Half of the ring.
            assert bytes(kept[0].data) == numbered(int.from_bytes(kept[0].data[:4], "big"))
            del kept[0]

    options = {"compression": "deflate", "extensions": PLAIN, "ring_size": RING_MIN}
    with connected(serve_both, on_msg, **options) as (client, peer):
        for index in range(2000):  # Around the ring eight times.
            peer.send(other.frame(BINARY, numbered(index)))
            if index % 20 == 19:
                poll_until(client, lambda sent=index + 1: len(everything.messages) == sent)
        assert everything.payloads == [numbered(index) for index in range(2000)]
    assert [bytes(msg.data) for msg in kept] == [numbered(n) for n in range(1889, 2000, 10)]


def test_what_is_kept_may_leave_no_room_and_then_it_goes_on(serve: Serve) -> None:
    kept: list[hftws.Message] = []
    options = {
        "compression": "deflate",
        "extensions": PLAIN,
        "ring_size": RING_MIN,
        "max_message_size": 128 * KIB,
    }
    payloads = [random.Random(index).randbytes(1000) * 100 for index in range(6)]
    with connected(serve, kept.append, **options) as (client, peer):
        other = ZlibPeer()
        peer.send(b"".join(other.frame(BINARY, payload) for payload in payloads))
        for round_ in range(3):
            # Two messages fill it, and the third stops half-way, every time it is tried.
            for _ in range(3 if round_ < 2 else 0):
                with pytest.raises(BufferError, match="let go of some"):
                    poll_until(client, lambda: False)
            poll_until(client, lambda: len(kept) == 2)
            assert [bytes(msg.data) for msg in kept] == payloads[2 * round_ : 2 * round_ + 2]
            kept.clear()


def test_is_last_looks_behind_a_compressed_message(serve: Serve) -> None:
    seen: list[bool] = []
    options = {"compression": "deflate", "extensions": PLAIN}
    with connected(serve, lambda msg: seen.append(msg.is_last), **options) as (client, peer):
        other = ZlibPeer()
        wire = b"".join(other.frame(TEXT, TRADE) for _ in range(3))
        peer.send(wire + other.frame(TEXT, TRADE)[:-1])
        poll_until(client, lambda: len(seen) == 3)
        assert seen == [False, False, True]


# ---- What is sent.


def test_messages_from_the_threshold_on_are_compressed(serve_both: Serve) -> None:
    options = {"compression": hftws.Deflate(threshold=100), "extensions": PLAIN}
    with connected(serve_both, **options) as (client, peer):
        other = ZlibPeer()
        client.send("a" * 99)
        plain = peer.expect_frame(TEXT, b"a" * 99)
        assert plain.rsv == 0
        for opcode, payload in ((TEXT, b"b" * 100), (BINARY, TRADE * 3), (BINARY, TRADE * 3)):
            client.send(payload, text=opcode == TEXT)
            frame = peer.expect_frame(opcode)
            assert is_compressed(frame)
            assert other.decompress(frame) == payload
        stats = client.stats()
        assert stats["messages_sent"] == 4
        assert stats["bytes_sent"] == 199 + 6 * len(TRADE)
        assert stats["messages_deflated"] == 3
        assert 0 < stats["bytes_after_deflation"] < 150


def test_by_default_an_order_is_sent_as_it_is(serve: Serve) -> None:
    with connected(serve, compression="deflate", extensions=PLAIN) as (client, peer):
        client.send(TRADE)
        assert peer.expect_frame(BINARY, TRADE).rsv == 0
        client.send(TRADE * 20)
        assert is_compressed(peer.expect_frame(BINARY))


@pytest.mark.parametrize("takeover", [True, False])
def test_our_own_window_goes_on_or_not(serve: Serve, takeover: bool) -> None:
    answer = PLAIN if takeover else f"{PLAIN}; client_no_context_takeover"
    options = {"compression": hftws.Deflate(threshold=1), "extensions": answer}
    with connected(serve, **options) as (client, peer):
        frames = []
        for _ in range(3):
            client.send(TRADE)
            frames.append(peer.expect_frame(BINARY))
        other = ZlibPeer()
        for frame in frames:
            assert (other if takeover else ZlibPeer()).decompress(frame) == TRADE
        sizes = [len(frame.payload) for frame in frames]
        assert sizes[1] < sizes[0] / 3 if takeover else sizes[1] == sizes[0]


@pytest.mark.parametrize("bits", range(8, 16))
def test_no_window_of_ours_is_larger_than_agreed_on(serve: Serve, bits: int) -> None:
    options = {
        "compression": hftws.Deflate(threshold=1),
        "extensions": f"{PLAIN}; client_max_window_bits={bits}",
    }
    noise = random.Random(bits).randbytes(3000)
    with connected(serve, **options) as (client, peer):
        client.send(noise + noise)
        frame = peer.expect_frame(BINARY)
        if bits == 8:  # zlib cannot write with such a window, and compressing is optional.
            assert frame.rsv == 0
            return
        assert is_compressed(frame)
        other = ZlibPeer(window_bits=bits)  # Python's zlib refuses what reaches back further.
        assert other.decompress(frame) == noise + noise


@pytest.mark.parametrize("answer", [PLAIN, f"{PLAIN}; client_max_window_bits=15"])
def test_a_window_that_we_offered_holds_whatever_the_server_has_room_for(
    serve: Serve, answer: str
) -> None:
    """RFC 7692, section 7.1.2.2: in the offer it is a hint, so the answer may well be larger."""
    asked = hftws.Deflate(client_max_window_bits=10, threshold=1)
    noise = random.Random(10).randbytes(3000)
    with connected(serve, compression=asked, extensions=answer) as (client, peer):
        assert client.info()["compression"]["client_max_window_bits"] == 10
        client.send(noise + noise)
        frame = peer.expect_frame(BINARY)
        assert is_compressed(frame)
        assert ZlibPeer(window_bits=10).decompress(frame) == noise + noise


def test_what_is_reserved_is_sent_as_it_was_written(serve: Serve) -> None:
    options = {"compression": hftws.Deflate(threshold=1), "extensions": PLAIN}
    with connected(serve, **options) as (client, peer):
        with client.reserve(len(TRADE), text=True) as place:
            place[:] = TRADE
        assert peer.expect_frame(TEXT, TRADE).rsv == 0


def test_a_message_that_might_not_fit_compressed_is_sent_as_it_is(serve: Serve) -> None:
    options = {
        "compression": hftws.Deflate(threshold=1, level=0),
        "extensions": PLAIN,
        "send_ring_size": RING_MIN,
    }
    payload = random.Random(1).randbytes(RING_MIN - 700)
    received: list[Frame] = []
    with connected(serve, **options) as (client, peer):
        reader = threading.Thread(
            target=lambda: received.append(peer.expect_frame(BINARY)), daemon=True
        )
        reader.start()
        client.send(payload)
        poll_until(client, lambda: not client.wants_write)
        reader.join(SOON)
        assert received[0].payload == payload
        assert received[0].rsv == 0
        assert client.stats()["messages_sent"] == 1
        assert client.stats()["messages_deflated"] == 0


@pytest.mark.parametrize("level", range(10))
def test_every_level_can_be_read(serve: Serve, level: int) -> None:
    options = {"compression": hftws.Deflate(threshold=1, level=level), "extensions": PLAIN}
    with connected(serve, **options) as (client, peer):
        client.send(TRADE * 30)
        assert ZlibPeer().decompress(peer.expect_frame(BINARY)) == TRADE * 30


def test_a_new_connection_begins_with_empty_windows(serve: Serve) -> None:
    inbox = Inbox()

    def script(peer: Peer) -> None:
        peer.accept_upgrade(headers=[("Sec-WebSocket-Extensions", PLAIN)])
        other = ZlibPeer()
        frame = peer.expect_frame(TEXT)
        assert other.decompress(frame) == TRADE
        peer.send(other.frame(TEXT, TRADE))
        peer.close_handshake()

    with serve([script, script]) as server:
        client = server.client(inbox, compression=hftws.Deflate(threshold=1), **SMALL)
        for count in (1, 2):
            client.connect()
            client.send(TRADE, text=True)
            receive(client, inbox, count)
            client.run()
    assert inbox.payloads == [TRADE, TRADE]


# ---- Against another implementation.

COMBINATIONS = [
    hftws.Deflate(
        server_no_context_takeover=bool(number & 1),
        client_no_context_takeover=bool(number & 2),
        server_max_window_bits=None if number & 4 else 9 + number % 7,
        client_max_window_bits=None if number & 8 else 15 - number % 7,
        level=number % 10,
        threshold=1,
    )
    for number in range(16)
]


@contextlib.contextmanager
def websockets_echo() -> Iterator[str]:
    """The URL of an echo server by ``websockets``, in its own thread."""
    url: list[str] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def main() -> None:
        factory = ServerPerMessageDeflateFactory()
        async with serve_websockets(
            echo, "127.0.0.1", 0, max_size=None, compression=None, extensions=[factory]
        ) as server:
            host, port = server.sockets[0].getsockname()
            url.append(f"ws://{host}:{port}")
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    try:
        assert started.wait(SOON)
        yield url[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_websockets_and_we_understand_each_other() -> None:
    with websockets_echo() as url:
        for seed, parameters in enumerate(COMBINATIONS):
            randomness = random.Random(seed)
            inbox = Inbox()
            sent = []
            with hftws.Client(url, on_msg=inbox, compression=parameters) as client:
                assert client.info()["compression"] is not None
                for _ in range(20):
                    size = randomness.choice((1, 10, 125, 126, 1000, 65_535, 65_536, 200_000))
                    symbols = bytes(randomness.choices(range(256), k=randomness.randint(1, 256)))
                    payload = bytes(randomness.choices(symbols, k=size))
                    sent.append((BINARY, payload))
                    client.send(payload)
                poll_until(client, lambda: len(inbox.messages) == 20)  # noqa: B023 - called here.
            assert inbox.messages == sent
