"""What the peer must not send: each ends the connection with the right code, and loses nothing.

RFC 6455, section 7.1.7: the client sends CLOSE with the code, waits for the peer to hang up, and
raises. What came before the violation, in the same read, is delivered first.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from deadlines import TIMEOUTS
from frames import (
    Inbox,
    Serve,
    binary,
    connected,
    connected_by_record,
    cut,
    expect_failure,
    fragmented,
    poll_until,
    receive,
    text,
)
from servers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Peer,
    close_payload,
    encode_frame,
)

import hftws

START = encode_frame(TEXT, b"start", fin=False)

VIOLATIONS: dict[str, tuple[int, bytes]] = {
    # RFC 6455, section 5.2: no extension was agreed on that could use them.
    **{
        f"rsv{rsv:03b} on {name}": (1002, frame)
        for rsv in (1, 2, 4, 7)
        for name, frame in {
            "text": encode_frame(TEXT, b"x", rsv=rsv),
            "binary": encode_frame(BINARY, b"", rsv=rsv),
            "ping": encode_frame(PING, b"x", rsv=rsv),
            "close": encode_frame(CLOSE, close_payload(1000), rsv=rsv),
            "continuation": START + encode_frame(CONTINUATION, b"x", rsv=rsv),
        }.items()
    },
    **{
        f"opcode {opcode:#x}": (1002, encode_frame(opcode, b"x"))
        for opcode in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)
    },
    "opcode 0x3 in a message": (1002, START + encode_frame(3, b"x")),
    # Section 5.5: control frames are whole and short.
    "fragmented ping": (1002, encode_frame(PING, b"x", fin=False)),
    "fragmented pong": (1002, encode_frame(PONG, b"", fin=False)),
    "fragmented close": (1002, encode_frame(CLOSE, close_payload(1000), fin=False)),
    "fragmented ping in a message": (1002, START + encode_frame(PING, b"x", fin=False)),
    "ping of 126 bytes": (1002, encode_frame(PING, bytes(126))),
    "pong of 126 bytes": (1002, encode_frame(PONG, bytes(126))),
    "pong of 65536 bytes": (1002, encode_frame(PONG, length=65536)),
    "close of 126 bytes": (1002, encode_frame(CLOSE, close_payload(1000, "r" * 124))),
    # Section 7.4: codes that must not stand in a frame.
    **{
        f"close code {code}": (1002, encode_frame(CLOSE, close_payload(code, "why")))
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "half a close code": (1002, encode_frame(CLOSE, b"\x03")),
    "close reason that is no UTF-8": (1007, encode_frame(CLOSE, b"\x03\xe8ab\xff")),
    "close reason cut off": (1007, encode_frame(CLOSE, b"\x03\xe8\xe2\x82")),
    # Section 5.1: only the client masks.
    "masked text": (1002, encode_frame(TEXT, b"x", mask=b"\1\2\3\4")),
    "masked empty text": (1002, encode_frame(TEXT, b"", mask=b"\0\0\0\0")),
    "masked ping": (1002, encode_frame(PING, b"x", mask=b"\1\2\3\4")),
    "masked close": (1002, encode_frame(CLOSE, close_payload(1000), mask=b"\1\2\3\4")),
    # Section 5.2: the shortest form of a length is the only one.
    "length 0 in 16 bits": (1002, encode_frame(BINARY, b"", length_form=16)),
    "length 125 in 16 bits": (1002, encode_frame(BINARY, bytes(125), length_form=16)),
    "length 0 in 64 bits": (1002, encode_frame(BINARY, b"", length_form=64)),
    "length 126 in 64 bits": (1002, encode_frame(TEXT, b"x" * 126, length_form=64)),
    "length 65535 in 64 bits": (1002, encode_frame(TEXT, length=65535, length_form=64)),
    "length 2^63": (1002, encode_frame(BINARY, length=2**63)),
    "length 2^64 - 1": (1002, encode_frame(TEXT, length=2**64 - 1)),
    "ping of 1 byte in 16 bits": (1002, encode_frame(PING, b"x", length_form=16)),
    # Section 5.4: the order of fragments.
    "continuation without a start": (1002, encode_frame(CONTINUATION, b"x")),
    "open continuation without a start": (1002, encode_frame(CONTINUATION, b"x", fin=False)),
    "text in a message": (1002, START + text("new")),
    "binary in a message": (1002, START + encode_frame(BINARY, b"new", fin=False)),
    "empty text in a message": (1002, encode_frame(BINARY, b"", fin=False) + text("")),
    # Section 8.1.
    "UTF-8: lone continuation byte": (1007, text(b"\x80")),
    "UTF-8: impossible byte": (1007, text(b"a" * 200 + b"\xff")),
    "UTF-8: overlong": (1007, text(b"\xc0\xaf")),
    "UTF-8: overlong in three bytes": (1007, text(b"\xe0\x80\xaf")),
    "UTF-8: surrogate": (1007, text(b"\xed\xa0\x80")),
    "UTF-8: beyond U+10FFFF": (1007, text(b"\xf4\x90\x80\x80")),
    "UTF-8: five bytes": (1007, text(b"\xf8\x88\x80\x80\x80")),
    "UTF-8: cut off": (1007, text("€".encode()[:2])),
    "UTF-8: cut off in the last fragment": (1007, fragmented(TEXT, [b"a", b"\xf0\x9f\x98"])),
    "UTF-8: cut off before an empty last": (1007, fragmented(TEXT, [b"\xc3", b""])),
    "UTF-8: broken across fragments": (1007, fragmented(TEXT, [b"ok \xe2\x82", b"\x28"])),
    "UTF-8: broken in the second": (1007, fragmented(TEXT, [b"ok", b"\xc3\x28", b"ok"])),
}

violations = pytest.mark.parametrize(
    ("code", "wire"), VIOLATIONS.values(), ids=[name.replace(" ", "-") for name in VIOLATIONS]
)


@violations
def test_violation_ends_the_connection(serve_both: Serve, code: int, wire: bytes) -> None:
    """The messages in front of it, in the same write, are delivered; what follows it is not."""
    inbox = Inbox()
    ends = []
    options = {"on_close": lambda *end: ends.append(end)}
    with connected(serve_both, inbox, **options) as (client, peer):
        before = text("one") + fragmented(BINARY, [b"tw", b"o"]) + text("three")
        peer.send(before + wire + text("after") + encode_frame(PING, b"after"))
        error = expect_failure(client, peer, code)
        assert type(error) is hftws.ProtocolError
        assert "server" in str(error)
        with pytest.raises(hftws.ProtocolError):
            client.poll()  # It raises again at every call.
        with pytest.raises(hftws.ProtocolError):
            client.run()
        with pytest.raises(hftws.ProtocolError):
            client.send("too late")
        assert ends == [(client, client.close_code, client.close_reason)]
        assert client.stats()["pings"] == 0
    assert inbox.messages == [(TEXT, b"one"), (BINARY, b"two"), (TEXT, b"three")]


@violations
def test_violation_is_seen_however_it_is_cut(serve_both: Serve, code: int, wire: bytes) -> None:
    """Sent byte by byte, with a poll after each, it ends in the same way."""
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        for byte in cut(text("before") + wire[:16], 1):
            peer.send(byte)
            client.poll(0.0)
            if not client.is_open:
                break
        else:
            peer.send(wire[16:])
        expect_failure(client, peer, code)
    assert inbox.payloads == [b"before"]


@pytest.mark.parametrize(
    ("fine", "bad"),
    [
        (encode_frame(TEXT, b"ab", length=5000), b"\xff"),
        (encode_frame(TEXT, b"a" * 40_000 + b"\xed", length=70_000), b"\xa0"),
        (
            encode_frame(TEXT, b"\xe2\x82", fin=False) + encode_frame(CONTINUATION, length=500),
            b"\x28",
        ),
        (
            encode_frame(TEXT, b"fine", fin=False)
            + encode_frame(PING, b"!")
            + encode_frame(CONTINUATION, b"fine ", fin=False, length=300),
            b"\xc0",
        ),
    ],
    ids=["short", "long", "continuation", "after-a-ping"],
)
def test_bad_utf8_fails_before_its_frame_is_complete(
    serve_both: Serve, fine: bytes, bad: bytes
) -> None:
    """Checked byte by byte: the client does not wait for the rest, which may never come."""
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        peer.send(text("before") + fine)
        receive(client, inbox, 1)
        if encode_frame(PING, b"!") in fine:
            poll_until(client, lambda: client.stats()["pings"] == 1)
            peer.expect_frame(PONG, b"!")
        client.poll(0.02)
        assert client.is_open
        peer.send(bad)
        expect_failure(client, peer, 1007)
    assert inbox.payloads == [b"before"]


def test_code_point_cut_off_by_the_read_is_no_violation(serve_both: Serve) -> None:
    inbox = Inbox()
    wire = text("a€😀")
    with connected(serve_both, inbox) as (client, peer):
        for byte in cut(wire, 1):
            assert client.is_open
            peer.send(byte)
            client.poll(0.0)
        receive(client, inbox, 1)
    assert inbox.payloads == ["a€😀".encode()]


def test_only_text_is_judged_as_utf8(serve_both: Serve) -> None:
    inbox = Inbox()
    bad = b"\xff\xc0\x80"
    with connected(serve_both, inbox) as (client, peer):
        peer.send(binary(bad) + fragmented(BINARY, [bad, bad]) + encode_frame(PING, bad))
        receive(client, inbox, 2)
        peer.expect_frame(PONG, bad)
    assert inbox.payloads == [bad, bad + bad]


@pytest.mark.parametrize("name", ["close reason that is no UTF-8", "close reason cut off"])
def test_close_reason_is_judged_even_when_text_is_not(serve_both: Serve, name: str) -> None:
    code, wire = VIOLATIONS[name]
    with connected(serve_both, validate_utf8=False) as (client, peer):
        peer.send(wire)
        expect_failure(client, peer, code)


VALID_CODES = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]


@pytest.mark.parametrize("code", VALID_CODES)
def test_valid_close_code_is_answered_with_the_same(serve_both: Serve, code: int) -> None:
    with connected(serve_both) as (client, peer):
        peer.send(encode_frame(CLOSE, close_payload(code, "r" * 120 + "ü€"[:1])))
        poll_until(client, lambda: not client.is_open)
        frame = peer.expect_close(code)
        assert frame.close_reason == ""
        peer.close()
        with pytest.raises(hftws.ConnectionClosed) as caught:
            poll_until(client, lambda: False)
    assert caught.value.code == client.close_code == code
    assert caught.value.reason == client.close_reason == "r" * 120 + "ü"


def test_close_without_a_code_is_answered_without(serve_both: Serve) -> None:
    with connected(serve_both) as (client, peer):
        peer.send(encode_frame(CLOSE))
        poll_until(client, lambda: not client.is_open)
        assert peer.expect_frame(CLOSE).payload == b""
        peer.close()
        client.run()
    assert (client.close_code, client.close_reason) == (1005, "")


def test_nothing_after_a_close_frame_counts(serve_both: Serve) -> None:
    """Neither messages nor violations count: the peer has sent CLOSE."""
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        peer.send(
            text("before")
            + encode_frame(CLOSE, close_payload(1000))
            + text("after")
            + encode_frame(PING, b"after")
            + encode_frame(0xF, b"\xff", rsv=7)
        )
        poll_until(client, lambda: not client.is_open)
        assert peer.expect_frame(CLOSE).close_code == 1000
        peer.close()
        client.run()
    assert inbox.payloads == [b"before"]
    assert client.stats()["pings"] == 0


def test_peer_that_does_not_hang_up_is_left_after_close_timeout(serve_both: Serve) -> None:
    """The failure is reported anyway."""
    with connected(serve_both, close_timeout=0.1) as (client, peer):
        peer.send(encode_frame(0xF))
        with pytest.raises(hftws.ProtocolError) as caught:
            client.run()
        peer.expect_close(1002)
        peer.expect_eof()
    assert caught.value.code == 1002


def test_peer_that_talks_on_after_its_violation_is_left_after_close_timeout(
    serve_both: Serve,
) -> None:
    """A peer whose process does not run for all of a short timeout gets a longer one."""
    talked = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(encode_frame(0xF))
        try:
            while not peer.server.stopping.is_set():
                peer.send(text("and another thing " * 1000))
                talked.append(1)
        except OSError:
            pass

    for close_timeout in TIMEOUTS:
        inbox = Inbox()
        with serve_both(script) as server:
            with server.client(inbox, close_timeout=close_timeout) as client:
                with pytest.raises(hftws.ProtocolError) as caught:
                    client.run()
        assert caught.value.code == 1002
        assert inbox.messages == []
        if talked:
            return
    raise AssertionError("the peer never came to talk on")


def test_client_can_connect_again_after_a_violation(serve_both: Serve) -> None:
    """Half a message and half a code point of the old connection are forgotten."""

    def bad(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(encode_frame(TEXT, b"old \xe2", fin=False) + encode_frame(PING, fin=False))
        peer.expect_close(1002)
        peer.hang_up()

    def good(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("new")
        peer.close_handshake()

    inbox = Inbox()
    with serve_both([bad, good]) as server:
        client = server.client(inbox)
        client.connect()
        with pytest.raises(hftws.ProtocolError):
            client.run()
        client.connect()
        assert client.close_code is None
        client.run()
    assert inbox.payloads == [b"new"]


def test_violation_split_over_records(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path
) -> None:
    """Messages of earlier records are delivered, although all came in one read."""
    inbox = Inbox()
    with connected_by_record(serve, tls_context, ca_file, inbox) as (client, peer):
        bad = encode_frame(BINARY, bytes(125), length_form=16)
        plaintexts = [text("one"), text("two") + bad[:1], bad[1:3], bad[3:] + text("after")]
        peer.sock.sendall(b"".join(map(peer.seal, plaintexts)))
        expect_failure(client, peer, 1002)
    assert inbox.payloads == [b"one", b"two"]


def test_bad_record_delivers_what_stood_in_front(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path
) -> None:
    """A record with a bad tag ends the connection; neither it nor what follows is delivered."""
    inbox = Inbox()
    with connected_by_record(serve, tls_context, ca_file, inbox) as (client, peer):
        good, bad, after = (peer.seal(text(word)) for word in ("good", "bad", "after"))
        peer.sock.sendall(good + bad[:-1] + bytes([bad[-1] ^ 1]) + after)
        with pytest.raises(hftws.TLSError) as caught:
            poll_until(client, lambda: False)
        with pytest.raises(hftws.TLSError):
            client.run()
    assert "mac" in caught.value.reason
    assert inbox.payloads == [b"good"]
    assert client.close_code == 1006
