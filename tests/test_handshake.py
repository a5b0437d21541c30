"""The upgrade: the request, which answers are accepted, and what a refusal reports."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import socket
import struct
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any

import pytest
from deadlines import SOON, in_time
from servers import (
    CLOSE,
    PEER_TIMEOUT,
    PING,
    PONG,
    TEXT,
    Peer,
    Request,
    Serve,
    accept_value,
    close_payload,
    encode_frame,
    takes,
)

import hftws

KIB = 1024


def open_and_wait(peer: Peer) -> None:
    """Opens, and answers the client."""
    peer.accept_upgrade()
    peer.answer_close()


def answer(data: bytes, *, then_close: bool = False) -> Any:
    """A script that answers the request with these bytes, and waits for the client to go."""

    def script(peer: Peer) -> None:
        peer.read_request()
        with contextlib.suppress(OSError):
            peer.send(data)
        if then_close:
            peer.hang_up()
        else:
            peer.recv_all()

    return script


def switch(*lines: str, key: str | None = None) -> bytes:
    """A 101 response with these header lines, with the right accept value in place of ACCEPT."""
    text = "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines]) + "\r\n\r\n"
    return (text.replace("ACCEPT", accept_value(key)) if key else text).encode()


def switching(*lines: str) -> Any:
    """A script that answers with such a 101, and sees to the end."""

    def script(peer: Peer) -> None:
        key = peer.read_request().header("Sec-WebSocket-Key")
        peer.send(switch(*lines, key=key))
        with contextlib.suppress(EOFError):
            peer.answer_close()

    return script


GOOD = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: ACCEPT")


def without(name: str) -> tuple[str, ...]:
    return tuple(line for line in GOOD if not line.startswith(name + ":"))


# ---- The request. ------------------------------------------------------------------------------


@contextlib.contextmanager
def request_of(serve: Serve, target: str = "/", **options: Any) -> Iterator[Request]:
    """The request that a client with these options sends."""
    requests: list[Request] = []

    def script(peer: Peer) -> None:
        requests.append(peer.accept_upgrade())
        peer.answer_close()

    with serve(script) as server, server.client(url=server.url(target), **options):
        pass
    yield requests[0]


def test_the_request_is_that_of_rfc_6455(serve_both: Serve) -> None:
    with request_of(serve_both, "/ws/btcusdt@trade?a=b%20c&d=/?") as request:
        assert (request.method, request.version) == ("GET", "HTTP/1.1")
        assert request.target == "/ws/btcusdt@trade?a=b%20c&d=/?"
        assert request.header("Upgrade") == "websocket"
        assert request.header("Connection") == "Upgrade"
        assert request.header("Sec-WebSocket-Version") == "13"
        assert len(base64.b64decode(request.header("Sec-WebSocket-Key") or "", validate=True)) == 16
        assert (request.header("Host") or "").startswith("127.0.0.1:")
        assert request.header("User-Agent") == f"hftws/{hftws.__version__}"
        assert request.header("Sec-WebSocket-Extensions") is None
        assert request.header("Sec-WebSocket-Protocol") is None
        assert request.header("Origin") is None


@pytest.mark.parametrize(
    ("target", "sent"), [("", "/"), ("/", "/"), ("?a=b", "/?a=b"), ("//x", "//x")]
)
def test_the_target_begins_with_a_slash(serve: Serve, target: str, sent: str) -> None:
    with request_of(serve, target) as request:
        assert request.target == sent


def test_every_connection_has_a_key_of_its_own(serve: Serve) -> None:
    keys: list[str | None] = []

    def script(peer: Peer) -> None:
        keys.append(peer.accept_upgrade().header("Sec-WebSocket-Key"))
        peer.answer_close()

    with serve(script) as server:
        client = server.client()
        for _ in range(5):
            with client:
                pass
    assert len(set(keys)) == 5


@pytest.mark.parametrize("form", [dict, list, tuple, iter])
def test_headers_of_ones_own_are_sent_in_their_order(serve: Serve, form: Any) -> None:
    pairs = [("X-Api-Key", "a=b; c\t\u00e9"), ("Origin", "https://example.com"), ("Cookie", "a=b")]
    with request_of(serve, headers=form(pairs)) as request:
        names = [name for name, _ in request.headers]
        assert [name for name in names if name in dict(pairs)] == [name for name, _ in pairs]
        key = request.header("X-Api-Key")
        assert key is not None
        assert key.encode("latin-1").decode() == pairs[0][1]


def test_a_header_may_be_sent_more_than_once(serve: Serve) -> None:
    with request_of(serve, headers=[("X-A", "1"), ("x-b", ""), ("X-A", "2")]) as request:
        assert request.header_all("X-A") == ["1", "2"]
        assert request.header("X-B") == ""


def test_host_and_user_agent_of_ones_own_take_the_place_of_ours(serve: Serve) -> None:
    headers = {"host": "front.example", "User-agent": "mine/1"}
    with request_of(serve, headers=headers) as request:
        assert request.header("Host") == "front.example"
        assert request.header("User-Agent") == "mine/1"
        assert request.headers[0] == ("Host", "front.example")


def test_a_request_of_many_reads_arrives_whole(serve_both: Serve) -> None:
    with request_of(serve_both, headers={"X-Large": "a" * 60 * KIB}) as request:
        assert request.header("X-Large") == "a" * 60 * KIB


# ---- Subprotocols. -----------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", ["v2.json", "v1.json", None])
def test_the_subprotocol_that_the_server_chose(serve_both: Serve, chosen: str | None) -> None:
    offers: list[str | None] = []

    def script(peer: Peer) -> None:
        request = peer.accept_upgrade(subprotocol=chosen)
        offers.append(request.header("Sec-WebSocket-Protocol"))
        peer.answer_close()

    with serve_both(script) as server:
        with server.client(subprotocols=["v2.json", "v1.json"]) as client:
            assert client.subprotocol == chosen
    assert offers == ["v2.json, v1.json"]


@pytest.mark.parametrize("chosen", ["v3", "", "V1", "v1, v2", "v1 ,v2"])
@pytest.mark.parametrize("offered", [["v1", "v2"], []])
def test_a_subprotocol_that_was_not_offered(serve: Serve, offered: list[str], chosen: str) -> None:
    with serve(switching(*GOOD, f"Sec-WebSocket-Protocol: {chosen}")) as server:
        client = server.client(subprotocols=offered)
        with pytest.raises(hftws.HandshakeError, match="subprotocol"):
            client.connect()
        assert not client.is_open
        assert client.subprotocol is None


def test_two_subprotocols_are_one_too_many(serve: Serve) -> None:
    both = ("Sec-WebSocket-Protocol: v1", "Sec-WebSocket-Protocol: v2")
    with serve(switching(*GOOD, *both)) as server:
        with pytest.raises(hftws.HandshakeError, match="subprotocol"):
            server.client(subprotocols=["v1", "v2"]).connect()


# ---- A 101 that opens, and ones that do not. ---------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        GOOD,
        ("upgrade:WebSocket", "CONNECTION:keep-alive,  upgrade", "sec-websocket-accept:ACCEPT"),
        ("Connection: keep-alive", *GOOD),
        (*GOOD, "X-Odd: \xff", "X-Empty:", "Server: a"),
        tuple(reversed(GOOD)),
    ],
)
def test_a_good_101_opens(serve_both: Serve, lines: tuple[str, ...]) -> None:
    with serve_both(switching(*lines)) as server, server.client() as client:
        assert client.is_open


def test_the_headers_of_the_101_can_be_read(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade(headers=[("X-Node", "a"), ("x-node", "b"), ("X-Empty", "")])
        peer.answer_close()

    with serve_both(script) as server, server.client() as client:
        headers = client.response_headers
        assert headers[0] == ("Upgrade", "websocket")
        assert headers[-3:] == [("X-Node", "a"), ("x-node", "b"), ("X-Empty", "")]
        headers.clear()
        assert client.response_headers != []


@pytest.mark.parametrize(
    ("lines", "blamed"),
    [
        (without("Upgrade"), "Upgrade"),
        (without("Connection"), "Connection"),
        (without("Sec-WebSocket-Accept"), "Sec-WebSocket-Accept"),
        ((), "Upgrade"),
        ((*without("Upgrade"), "Upgrade: h2c"), "Upgrade"),
        ((*without("Upgrade"), "Upgrade: websocket, h2c"), "Upgrade"),
        ((*without("Upgrade"), "Upgrade: websocketx"), "Upgrade"),
        ((*without("Connection"), "Connection: close"), "Connection"),
        ((*without("Connection"), "Connection: notupgrade"), "Connection"),
        ((*without("Sec-WebSocket-Accept"), "Sec-WebSocket-Accept:"), "Sec-WebSocket-Accept"),
        (
            (*without("Sec-WebSocket-Accept"), "Sec-WebSocket-Accept: xACCEPT"),
            "Sec-WebSocket-Accept",
        ),
        ((*GOOD, "Sec-WebSocket-Accept: ACCEPT"), "Sec-WebSocket-Accept"),
        ((*GOOD, "Sec-WebSocket-Extensions: permessage-deflate"), "extension"),
        ((*GOOD, "Sec-WebSocket-Extensions: x-webkit-deflate-frame"), "extension"),
    ],
)
def test_a_101_that_lacks_something_is_refused(
    serve: Serve, lines: tuple[str, ...], blamed: str
) -> None:
    """The client hangs up, and sends nothing more."""
    after: list[bytes] = []

    def script(peer: Peer) -> None:
        key = peer.read_request().header("Sec-WebSocket-Key")
        peer.send(switch(*lines, key=key) + encode_frame(TEXT, b"never"))
        after.append(peer.recv_all())

    received: list[object] = []
    with serve(script) as server:
        client = server.client(received.append)
        with pytest.raises(hftws.HandshakeError, match=blamed) as caught:
            client.connect()
        assert not client.is_open
        assert isinstance(caught.value, ConnectionError)
    assert after == [b""]
    assert received == []


def test_an_accept_value_for_another_key_is_refused(serve_both: Serve) -> None:
    """A cache, or a server of another protocol, cannot compute the accept value."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(peer.upgrade_response(accept=accept_value("dGhlIHNhbXBsZSBub25jZQ==")))
        peer.recv_all()

    with serve_both(script) as server:
        with pytest.raises(hftws.HandshakeError, match="Sec-WebSocket-Accept"):
            server.client().connect()


def test_an_accept_value_in_other_letters_is_refused(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        key = peer.read_request().header("Sec-WebSocket-Key")
        assert key is not None
        peer.send(peer.upgrade_response(accept=accept_value(key).swapcase()))
        peer.recv_all()

    with serve(script) as server:
        with pytest.raises(hftws.HandshakeError, match="Sec-WebSocket-Accept"):
            server.client().connect()


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.0 101 Switching Protocols\r\n",
        b"HTTP/2 101 Switching Protocols\r\n",
        b"HTTP/1.1 1O1 Switching Protocols\r\n",
        b"HTTP/1.1 10\r\n",
        b"HTTP/1.1  101\r\n",
        b"http/1.1 101 Switching Protocols\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nX-Folded: a\r\n b\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nX-Space : a\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nX-Control: \x00\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nno colon\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n: a\r\n",
        b"HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\n\n",
    ],
)
def test_a_malformed_head_is_refused(serve: Serve, data: bytes) -> None:
    def script(peer: Peer) -> None:
        key = peer.read_request().header("Sec-WebSocket-Key")
        good = switch(*GOOD, key=key).partition(b"\r\n")[2]
        peer.send(data + good)
        peer.recv_all()

    with serve(script) as server:
        with pytest.raises(hftws.HandshakeError) as caught:
            server.client().connect()
        assert caught.value.status is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 smtp.example ESMTP\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"<html>",
        b"\x00",
        b"\x81\x05hello",
        b"\r\n",
    ],
)
def test_what_is_not_http_is_refused_at_once(serve: Serve, data: bytes) -> None:
    """Without waiting for a blank line that never comes; the server keeps the connection."""
    with serve(answer(data)) as server:
        with takes(0, SOON), pytest.raises(hftws.HandshakeError, match="not HTTP"):
            server.client().connect()


@pytest.mark.parametrize("size", [64 * KIB, 64 * KIB + 1, 1024 * KIB])
def test_a_101_over_64_kib_is_refused(serve_both: Serve, size: int) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        head = peer.upgrade_response(headers=[("X-Large", "")])
        head = head[:-4] + b"a" * (size - len(head)) + b"\r\n\r\n"
        assert len(head) == size
        with contextlib.suppress(OSError):
            peer.send(head)
        if size > 64 * KIB:
            peer.recv_all()
        else:
            peer.answer_close()

    with serve_both(script) as server:
        client = server.client()
        if size <= 64 * KIB:
            with client:
                assert client.is_open
            return
        with pytest.raises(hftws.HandshakeError, match="larger than the client takes"):
            client.connect()


@pytest.mark.parametrize("count", [124, 125, 126])
def test_a_101_of_more_than_128_headers_is_refused(serve: Serve, count: int) -> None:
    """Three of the headers are the client's own."""
    extra = [f"X-{index}: a" for index in range(count)]
    with serve(switching(*GOOD, *extra)) as server:
        client = server.client()
        if count + 3 > 128:
            with pytest.raises(hftws.HandshakeError, match="more headers"):
                client.connect()
            return
        with client:
            assert len(client.response_headers) == count + 3


# ---- How the bytes come. -----------------------------------------------------------------------


def unread_size(client: hftws.Client) -> int:
    """How many bytes the kernel holds that the client has not read."""
    place = struct.pack("i", 0)
    descriptor = client._descriptor()
    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, place))[0])


def send_apart(peer: Peer, client: hftws.Client, parts: list[bytes]) -> None:
    """Sends each part when the client has read the previous one."""
    for part in parts:
        peer.send(part)
        deadline = time.monotonic() + PEER_TIMEOUT
        # Not acknowledged, or not read yet: the client has not seen it.
        while unsent_size(peer) > 0 or unread_size(client) > 0:
            assert time.monotonic() < deadline, "the client does not read"
            time.sleep(20e-6)  # Gives up Python's lock, which the client may want.


def unsent_size(peer: Peer) -> int:
    """How many bytes have not reached the client's kernel."""
    if not sys.platform.startswith("linux"):
        return 0
    place = struct.pack("i", 0)
    return int(struct.unpack("i", fcntl.ioctl(peer.sock, termios.TIOCOUTQ, place))[0])


FIRST = encode_frame(TEXT, b"first") + encode_frame(PING, b"beat") + encode_frame(TEXT, b"second")


def test_a_101_may_come_byte_by_byte(serve_both: Serve) -> None:
    """The frames after it, too. Over TLS each byte is its own record."""
    received: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.read_request()
        data = peer.upgrade_response() + FIRST
        send_apart(peer, client, [data[index : index + 1] for index in range(len(data))])
        peer.expect_frame(PONG, b"beat")
        peer.close_handshake()

    with serve_both(script) as server:
        client = server.client(lambda msg: received.append(bytes(msg)))
        client.connect()
        client.run()
    assert received == [b"first", b"second"]


def test_a_101_may_be_split_at_every_byte(serve: Serve) -> None:
    """Wherever the second read begins, in the head or in the frames."""
    received: list[bytes] = []
    size = 0

    def script(peer: Peer) -> None:
        nonlocal size
        peer.read_request()
        data = peer.upgrade_response() + FIRST
        size = len(data)
        cut = peer.server.accepted % size
        send_apart(peer, client, [data[:cut], data[cut:]] if cut else [data])
        peer.expect_frame(PONG, b"beat")
        peer.close_handshake()

    with serve(script) as server:
        client = server.client(
            lambda msg: received.append(bytes(msg)),
            ring_size=512 * KIB,
            max_message_size=64 * KIB,
            send_ring_size=256 * KIB,
        )
        client.connect()
        client.run()
        for _ in range(1, size):
            client.connect()
            client.run()
    assert size > 130
    assert received == [b"first", b"second"] * size


def test_frames_that_come_with_the_101_are_delivered(serve_both: Serve) -> None:
    """In the same write; many, and one that is not all there."""
    messages = [b"%d" % index for index in range(200)] + [b"a" * 100_000]
    whole = b"".join(encode_frame(TEXT, message) for message in messages)

    def script(peer: Peer) -> None:
        peer.accept_upgrade(then=whole[:-5])
        peer.expect_frame(TEXT, b"go on")
        peer.send(whole[-5:])
        peer.close_handshake()

    received: list[bytes] = []

    def on_msg(msg: hftws.Message) -> None:
        received.append(bytes(msg))
        if len(received) == 200:
            client.send("go on")

    with serve_both(script) as server:
        client = server.client(on_msg)
        client.connect()
        assert received == []
        client.run()
    assert received == messages


def test_frames_that_come_with_the_101_are_there_for_the_first_poll(serve_both: Serve) -> None:
    """Without another readable event."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade(then=FIRST)
        peer.expect_frame(PONG, b"beat")
        peer.answer_close()

    received: list[bytes] = []
    with serve_both(script) as server:
        with server.client(lambda msg: received.append(bytes(msg))) as client:
            while len(received) < 2:
                assert client.poll(PEER_TIMEOUT) > 0
    assert received == [b"first", b"second"]


def test_a_close_frame_that_comes_with_the_101(serve_both: Serve) -> None:
    calls: list[object] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade(then=FIRST + encode_frame(CLOSE, close_payload(4001, "full")))
        peer.expect_frame(PONG, b"beat")
        peer.expect_close(4001)
        peer.hang_up()

    with serve_both(script) as server:
        client = server.client(
            lambda msg: calls.append(bytes(msg)),
            on_open=lambda client: calls.append("open"),
            on_close=lambda client, code, reason: calls.append((code, reason)),
        )
        client.connect()
        with pytest.raises(hftws.ConnectionClosed) as caught:
            client.run()
        assert (caught.value.code, caught.value.reason) == (4001, "full")
    assert calls == ["open", b"first", b"second", (4001, "full")]


def test_a_server_that_ends_right_after_the_101_and_a_message(serve_both: Serve) -> None:
    received: list[bytes] = []
    with serve_both(lambda peer: peer.accept_upgrade(then=FIRST)) as server:
        client = server.client(lambda msg: received.append(bytes(msg)))
        client.connect()
        with pytest.raises(hftws.ConnectionClosed):
            client.run()
    assert received == [b"first", b"second"]


# ---- Interim responses. ------------------------------------------------------------------------

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_interim_responses_come_before_the_101(serve_both: Serve, count: int, apart: bool) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        parts = [*(INTERIM[index % 2] for index in range(count)), peer.upgrade_response() + FIRST]
        send_apart(peer, client, parts if apart else [b"".join(parts)])
        peer.expect_frame(PONG, b"beat")
        peer.close_handshake()

    received: list[bytes] = []
    with serve_both(script) as server:
        client = server.client(lambda msg: received.append(bytes(msg)))
        client.connect()
        assert ("Upgrade", "websocket") in client.response_headers
        assert ("Link", "</a>") not in client.response_headers
        client.run()
    assert received == [b"first", b"second"]


def test_interim_responses_have_an_end(serve: Serve) -> None:
    with serve(answer(INTERIM[0] * 9)) as server:
        with pytest.raises(hftws.HandshakeError, match=r"more interim responses \(1xx\)"):
            server.client().connect()


# ---- Refusals. ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {"Content-Type": "text/html"}, b"<html>hello</html>"),
        (301, {"Location": "wss://elsewhere.example/"}, b"moved"),
        (400, {}, b"bad request"),
        (401, {"WWW-Authenticate": "Basic"}, b""),
        (404, {}, b"not found"),
        (418, {"Retry-After": "120"}, b'{"code":-1003,"msg":"banned"}'),
        (426, {"Sec-WebSocket-Version": "13"}, b""),
        (429, {"Retry-After": "7"}, b'{"code":-1003,"msg":"Too much request weight used"}'),
        (451, {}, b"Service unavailable from a restricted location"),
        (500, {}, b"\x00\xff" * 100),
        (999, {}, b"odd"),
    ],
)
def test_a_refusal_says_why(
    serve_both: Serve, status: int, headers: dict[str, str], body: bytes
) -> None:
    """With status, headers and body; the server keeps the connection."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"HTTP/1.1 {status} Odd Reason", *lines, f"Content-Length: {len(body)}"])
    with serve_both(answer(f"{head}\r\n\r\n".encode() + body)) as server:
        client = server.client()
        with takes(0, SOON):
            with pytest.raises(hftws.HandshakeError, match=str(status)) as caught:
                client.connect()
        assert not client.is_open
        error = caught.value
        assert error.status == status
        assert error.headers == [*headers.items(), ("Content-Length", str(len(body)))]
        assert error.body == body
        for name, value in headers.items():
            assert error.header(name.lower()) == value
    assert server.accepted == 1, "a redirect is not followed"


@pytest.mark.parametrize("size", [4, 65 * KIB])
def test_a_refused_connection_stays_refused(serve_both: Serve, size: int) -> None:
    """It is a failure like one to connect: nothing reports an ordinary end."""
    head = f"HTTP/1.1 429 Slow\r\nContent-Length: {size}\r\n\r\n"
    ends: list[int] = []
    with serve_both(answer(head.encode() + b"s" * size)) as server:
        client = server.client(on_close=lambda _, code, reason: ends.append(code))
        again = [client.run, client.poll, lambda: client.send("x"), client.ping]
        for call in [client.connect, *again]:
            with pytest.raises(hftws.HandshakeError) as caught:
                call()
            error = caught.value
            assert error.status == 429
            assert error.headers == [("Content-Length", str(size))]
            assert error.body == b"s" * min(size, 64 * KIB)
            error.headers.clear()  # The next one has its own.
            assert (client.close_code, client.close_reason) == (1006, "")
            assert client.response_headers == [("Content-Length", str(size))]
        client.close()
        with pytest.raises(hftws.HandshakeError):
            client.run()
        assert client.close_code == 1006
    assert ends == []


CHUNKED = (
    b"HTTP/1.1 429 Too Many Requests\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4;ext=1\r\nslow\r\n5\r\n down\r\n0\r\nX-Trailer: 1\r\n\r\n"
)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_the_body_of_a_refusal_in_chunks(serve_both: Serve, one_by_one: bool) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        parts = [CHUNKED]
        if one_by_one:
            parts = [CHUNKED[index : index + 1] for index in range(len(CHUNKED))]
            last = parts.pop()  # With that one the client goes.
            send_apart(peer, client, parts)
            parts = [last]
        peer.send(parts[0])
        peer.recv_all()

    with serve_both(script) as server:
        client = server.client()
        with pytest.raises(hftws.HandshakeError) as caught:
            client.connect()
        assert (caught.value.status, caught.value.body) == (429, b"slow down")


def test_the_body_of_a_refusal_up_to_the_end_of_the_connection(serve_both: Serve) -> None:
    script = answer(b"HTTP/1.0 403 Forbidden\r\n\r\ngo away", then_close=True)
    with serve_both(script) as server:
        with pytest.raises(hftws.HandshakeError) as caught:
            server.client().connect()
        assert (caught.value.status, caught.value.body) == (403, b"go away")


@pytest.mark.parametrize("status", [204, 304])
def test_a_refusal_without_a_body(serve: Serve, status: int) -> None:
    with serve(answer(b"HTTP/1.1 %d x\r\n\r\n" % status)) as server:
        with pytest.raises(hftws.HandshakeError) as caught:
            server.client().connect()
        assert (caught.value.status, caught.value.body) == (status, b"")


@pytest.mark.parametrize("how", ["hang up", "EOF", "RST"])
@pytest.mark.parametrize(
    "head", [b"Content-Length: 100\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n64\r\n"]
)
def test_a_refusal_whose_body_is_cut_still_says_why(
    serve_both: Serve, head: bytes, how: str
) -> None:
    """The error has as much of the body as arrived."""

    def script(peer: Peer) -> None:
        peer.read_request()
        send_apart(peer, client, [b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\n" + head + b"slow d"])
        if how == "hang up":
            peer.hang_up()
        elif how == "RST":
            peer.reset()

    with serve_both(script) as server:
        client = server.client()
        with pytest.raises(hftws.HandshakeError) as caught:
            client.connect()
        assert caught.value.status == 429
        assert caught.value.header("Retry-After") == "7"
        assert caught.value.body == b"slow d"


@pytest.mark.parametrize("head", [b"", b"Content-Length: 100\r\n"])
def test_a_refusal_whose_body_never_ends_still_says_why(serve_both: Serve, head: bytes) -> None:
    """The deadline ends the wait for the body. The answer is known, so it is no timeout."""

    def be_refused(timeout: float) -> hftws.HandshakeError:
        with serve_both(answer(b"HTTP/1.1 503 Busy\r\n" + head + b"\r\nbusy")) as server:
            client = server.client(connect_timeout=timeout)
            with takes(timeout, timeout + SOON):
                with pytest.raises(hftws.HandshakeError) as caught:
                    client.connect()
        return caught.value

    error = in_time(be_refused)
    assert (error.status, error.body) == (503, b"busy")


@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
def test_of_a_large_body_the_first_64_kib_are_kept(serve_both: Serve, framing: str) -> None:
    body = bytes(range(256)) * 1024  # 256 KiB
    if framing == "chunked":
        lines = b"Transfer-Encoding: chunked\r\n"
        chunks = [body[index : index + 10_000] for index in range(0, len(body), 10_000)]
        data = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    else:
        lines = b"Content-Length: %d\r\n" % len(body) if framing == "content-length" else b""
        data = body
    script = answer(
        b"HTTP/1.1 403 Forbidden\r\n" + lines + b"\r\n" + data, then_close=framing == "until-close"
    )
    with serve_both(script) as server:
        with pytest.raises(hftws.HandshakeError) as caught:
            server.client().connect()
        assert caught.value.status == 403
        assert caught.value.body == body[: 64 * KIB]


def test_an_endless_body_does_not_keep_the_client(serve_both: Serve) -> None:
    """At most 64 KiB are kept, and they are there long before connect_timeout is over."""

    def script(peer: Peer) -> None:
        peer.read_request()
        with contextlib.suppress(OSError):
            peer.send(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            while not peer.server.stopping.is_set():
                peer.send(b"a" * 65536)

    with serve_both(script) as server:
        with takes(0, SOON, busy=True), pytest.raises(hftws.HandshakeError) as caught:
            server.client().connect()
        assert (caught.value.status, caught.value.body) == (403, b"a" * 64 * KIB)


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: abc\r\n",
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
    ],
)
def test_a_refusal_with_a_body_of_unclear_size_is_still_a_refusal(
    serve: Serve, lines: bytes
) -> None:
    with serve(answer(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\n" + lines + b"\r\nslow")) as server:
        with pytest.raises(hftws.HandshakeError) as caught:
            server.client().connect()
        assert caught.value.status == 429
        assert caught.value.header("Retry-After") == "7"


def test_a_refusal_with_bad_chunks_is_still_a_refusal(serve: Serve) -> None:
    data = b"HTTP/1.1 429 Slow\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nslow\r\nxyz\r\n"
    with serve(answer(data)) as server:
        with pytest.raises(hftws.HandshakeError) as caught:
            server.client().connect()
        assert caught.value.status == 429
        assert caught.value.body == b"slow"


def test_the_refusal_of_one_attempt_is_not_that_of_the_next(serve: Serve) -> None:
    refuse = answer(b"HTTP/1.1 429 Slow\r\nContent-Length: 4\r\n\r\nslow")
    shorter = answer(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
    with serve([refuse, shorter, open_and_wait]) as server:
        client = server.client()
        errors = []
        for _ in range(2):
            with pytest.raises(hftws.HandshakeError) as caught:
                client.connect()
            errors.append((caught.value.status, caught.value.body))
        assert errors == [(429, b"slow"), (403, b"")]
        with client:
            assert ("Content-Length", "4") not in client.response_headers


def test_half_a_close_does_not_matter_to_a_refusal(serve: Serve) -> None:
    """A server that ends its direction right after the answer."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        peer.sock.shutdown(socket.SHUT_WR)
        peer.recv_all()

    with serve(script) as server:
        with pytest.raises(hftws.HandshakeError) as caught:
            server.client().connect()
        assert (caught.value.status, caught.value.body) == (403, b"no")
