"""hftws.get: one request, one answer, over the same stack as the feed."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from deadlines import SHORT, SOON, times_out, unless_given_up
from servers import PATIENCE, PEER_TIMEOUT, Peer, Request, ScriptServer, Serve, has_ipv6, takes

import hftws

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no ::1 on this machine")
BOTH_FAMILIES = ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)]

KIB = 1024


def get(server: ScriptServer, target: str = "/", **options: Any) -> hftws.Response:
    """Makes a GET request to that server, and trusts it."""
    merged = {"timeout": 4.0 * PATIENCE, **server.client_options, **options}
    return hftws.get(server.http_url(target), **merged)


def answer(data: bytes, end: str = "wait") -> Callable[[Peer], None]:
    """A script that answers with these bytes; then waits for the client, or ends in some way."""

    def script(peer: Peer) -> None:
        peer.read_request()
        with contextlib.suppress(OSError):
            peer.send(data)
        finish(peer, end)

    return script


def finish(peer: Peer, end: str) -> None:
    if end == "wait":
        peer.recv_all()
    elif end == "hang up":
        peer.hang_up()
    elif end == "FIN":
        peer.shut_send_side()
        peer.recv_all()
    elif end == "RST":
        peer.reset()


def in_chunks(body: bytes, size: int, trailers: bytes = b"") -> bytes:
    chunks = [body[index : index + size] for index in range(0, len(body), size)]
    data = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"Transfer-Encoding: chunked\r\n\r\n" + data + b"0\r\n" + trailers + b"\r\n"


def sized(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


SNAPSHOT = b'{"lastUpdateId":160,"bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}'
OK = b"HTTP/1.1 200 OK\r\n"


# ---- The request. ------------------------------------------------------------------------------


def test_the_request(serve_both: Serve) -> None:
    requests: list[Request] = []

    def script(peer: Peer) -> None:
        requests.append(peer.read_request())
        peer.send(OK + sized(b""))
        peer.expect_eof()

    with serve_both(script) as server:
        headers = [("X-Api-Key", "k"), ("X-Api-Key", "l")]
        get(server, "/api/v3/depth?symbol=BTCUSDT&limit=1000", headers=headers)
    request = requests[0]
    assert (request.method, request.version) == ("GET", "HTTP/1.1")
    assert request.target == "/api/v3/depth?symbol=BTCUSDT&limit=1000"
    assert request.header("Host") == server.authority
    assert request.header("User-Agent") == f"hftws/{hftws.__version__}"
    assert request.header("Connection") == "close"
    assert request.header("Accept") == "*/*"
    assert request.header("Accept-Encoding") == "identity", "no coding is decoded"
    assert request.header("Upgrade") is None
    assert request.header_all("X-Api-Key") == ["k", "l"]


def test_a_fragment_is_not_sent(serve: Serve) -> None:
    targets: list[str] = []

    def script(peer: Peer) -> None:
        targets.append(peer.read_request().target)
        peer.send(OK + sized(b""))

    with serve(script) as server:
        get(server, "?a=b#fragment")
    assert targets == ["/?a=b"]


def test_headers_of_ones_own_take_the_place_of_ours(serve: Serve) -> None:
    requests: list[Request] = []

    def script(peer: Peer) -> None:
        requests.append(peer.read_request())
        peer.send(OK + sized(b""))

    headers = {
        "host": "front.example",
        "user-agent": "mine",
        "accept": "application/json",
        "accept-encoding": "gzip",
    }
    with serve(script) as server:
        get(server, headers=headers)
    for name, value in headers.items():
        assert requests[0].header_all(name) == [value]


# ---- The answer. -------------------------------------------------------------------------------


@pytest.mark.parametrize("host", BOTH_FAMILIES)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_body_of_known_size(serve: Serve, tls: bool, host: str) -> None:
    """The server keeps the connection: the size ends the body."""
    head = OK + b"Content-Type: application/json\r\nX-Weight: 50\r\nx-weight: 51\r\n"
    with serve(answer(head + sized(SNAPSHOT)), tls=tls, host=host) as server:
        with takes(0, SOON):
            response = get(server)
    assert response.status == 200
    assert response.body == SNAPSHOT
    assert response.headers == [
        ("Content-Type", "application/json"),
        ("X-Weight", "50"),
        ("x-weight", "51"),
        ("Content-Length", str(len(SNAPSHOT))),
    ]
    assert response.header("X-WEIGHT") == "50"
    assert response.header("Location") is None


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_body_in_chunks(serve_both: Serve, size: int) -> None:
    with serve_both(answer(OK + in_chunks(SNAPSHOT, size, b"X-Trailer: 1\r\n"))) as server:
        response = get(server)
    assert response.body == SNAPSHOT
    assert response.headers == [("Transfer-Encoding", "chunked")]


def test_a_body_up_to_the_end_of_the_connection(serve_both: Serve) -> None:
    with serve_both(answer(b"HTTP/1.0 200 OK\r\n\r\n" + SNAPSHOT, "hang up")) as server:
        assert get(server).body == SNAPSHOT


@pytest.mark.parametrize("data", [OK + sized(SNAPSHOT), OK + in_chunks(SNAPSHOT, 16)])
def test_an_answer_byte_by_byte(serve_both: Serve, data: bytes) -> None:
    """Over TLS each byte is its own record."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send_each(data)
        peer.recv_all()

    with serve_both(script) as server:
        assert get(server).body == SNAPSHOT


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"0\r\nX: 1\r\n\r\n"])
def test_chunks_split_at_every_byte(serve: Serve, end: bytes) -> None:
    """In two TLS records, and so in two reads of the plaintext."""
    body = b"5;name=value\r\nhello\r\n01\r\n,\r\n6\r\n world\r\n" + end

    def script(peer: Peer) -> None:
        cut = peer.server.accepted
        peer.read_request()
        peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n" + body[:cut])
        peer.send(body[cut:])
        peer.recv_all()

    with serve(script, tls=True) as server:
        for _ in range(1, len(body)):
            assert get(server).body == b"hello, world"


@pytest.mark.parametrize("framing", [sized, lambda body: in_chunks(body, 50_000)])
def test_a_body_larger_than_the_ring(serve_both: Serve, framing: Callable[[bytes], bytes]) -> None:
    body = bytes(range(256)) * 8 * KIB  # 2 MiB
    with serve_both(answer(OK + framing(body))) as server:
        assert get(server).body == body


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body(serve_both: Serve, status: int) -> None:
    with serve_both(answer(b"HTTP/1.1 %d x\r\nContent-Length: 5\r\n\r\n" % status)) as server:
        response = get(server)
    assert (response.status, response.body) == (status, b"")


def test_an_empty_body(serve_both: Serve) -> None:
    with serve_both(answer(OK + sized(b""))) as server:
        assert get(server).body == b""


@pytest.mark.parametrize("status", [400, 401, 404, 418, 429, 451, 500, 503])
def test_whatever_the_status_it_is_an_answer(serve_both: Serve, status: int) -> None:
    data = b"HTTP/1.1 %d Odd\r\nRetry-After: 7\r\n" % status + sized(b'{"code":-1003}')
    with serve_both(answer(data)) as server:
        response = get(server)
    assert response.status == status
    assert response.header("retry-after") == "7"
    assert response.body == b'{"code":-1003}'


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(serve: Serve, status: int) -> None:
    data = b"HTTP/1.1 %d Moved\r\nLocation: /elsewhere\r\n" % status + sized(b"moved")
    with serve([answer(data)]) as server:
        response = get(server)
    assert response.status == status
    assert response.header("Location") == "/elsewhere"
    assert server.accepted == 1


def test_interim_responses_are_skipped(serve_both: Serve) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    with serve_both(answer(interim + OK + sized(SNAPSHOT))) as server:
        response = get(server)
    assert response.body == SNAPSHOT
    assert response.header("Link") is None


def test_what_follows_the_body_is_not_part_of_it(serve_both: Serve) -> None:
    with serve_both(answer(OK + sized(SNAPSHOT) + OK + sized(b"another"))) as server:
        assert get(server).body == SNAPSHOT


# ---- No answer, or half of one. ----------------------------------------------------------------


@pytest.mark.parametrize("end", ["hang up", "FIN", "RST"])
@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 10\r\n\r\n12345",
        OK + b"Content-Length: 10\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n",
    ],
)
def test_a_body_that_is_cut_is_an_error(serve_both: Serve, data: bytes, end: str) -> None:
    with serve_both(answer(data, end)) as server:
        with pytest.raises(hftws.HandshakeError):
            get(server)


@pytest.mark.parametrize("end", ["FIN", "RST"])
def test_over_tls_only_close_notify_ends_a_body_of_unknown_size(serve: Serve, end: str) -> None:
    """RFC 9112, section 9.8: anybody on the way can cut the connection."""
    with serve(answer(OK + b"\r\n" + SNAPSHOT, end), tls=True) as server:
        with pytest.raises(hftws.HandshakeError):
            get(server)


def test_a_reset_does_not_end_a_body_of_unknown_size(serve: Serve) -> None:
    with serve(answer(OK + b"\r\n" + SNAPSHOT, "RST")) as server:
        with pytest.raises(hftws.HandshakeError):
            get(server)


def test_a_body_that_is_whole_needs_no_close_notify(serve: Serve) -> None:
    with serve(answer(OK + sized(SNAPSHOT), "FIN"), tls=True) as server:
        assert get(server).body == SNAPSHOT


@pytest.mark.parametrize("end", ["hang up", "FIN", "RST"])
@pytest.mark.parametrize("data", [b"", b"H", b"HTTP/1.1 200", OK, OK + b"X-A: 1\r\n\r"])
def test_a_head_that_is_cut_is_an_error(serve_both: Serve, data: bytes, end: str) -> None:
    with serve_both(answer(data, end)) as server:
        with pytest.raises(hftws.HandshakeError) as caught:
            get(server)
        assert caught.value.status is None


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: abc\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: +5\r\n\r\nhello",
        b"Content-Length: 5, 6\r\n\r\nhello",
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"Content-Length: 99999999999999999999999\r\n\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: gzip\r\n\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
        b"Transfer-Encoding: chunked\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloo\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
        b"X-Folded: a\r\n b\r\n\r\n",
        b"X-A : 1\r\n\r\n",
        b"\nX-A: 1\n\n",
    ],
)
def test_an_answer_that_can_be_read_in_two_ways_is_an_error(serve: Serve, lines: bytes) -> None:
    with serve(answer(OK + lines)) as server:
        with takes(0, SOON), pytest.raises(hftws.HandshakeError) as caught:
            get(server)
        assert str(caught.value)


@pytest.mark.parametrize("data", [b"<html>", b"\x15\x03\x01\x00\x02\x02\x46", b"ICY 200 OK\r\n"])
def test_what_is_not_http_is_an_error(serve: Serve, data: bytes) -> None:
    with serve(answer(data)) as server:
        with takes(0, SOON), pytest.raises(hftws.HandshakeError, match="not HTTP"):
            get(server)


def test_a_101_is_an_answer_without_a_body(serve_both: Serve) -> None:
    """No upgrade was asked for, so what follows the response is not read."""
    data = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nrest"
    with serve_both(answer(data)) as server:
        with takes(0, SOON):
            response = get(server)
    assert (response.status, response.body) == (101, b"")


# ---- Bounds. -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "framing", [sized, lambda body: in_chunks(body, 300), lambda body: b"\r\n" + body]
)
@pytest.mark.parametrize("room", [-1, 0, 1])
def test_a_body_larger_than_max_body_size_is_an_error(
    serve_both: Serve, framing: Callable[[bytes], bytes], room: int
) -> None:
    body = b"a" * 1000
    with serve_both(answer(OK + framing(body), "hang up")) as server:
        if room >= 0:
            assert get(server, max_body_size=1000 + room).body == body
            return
        with pytest.raises(ValueError, match="max_body_size"):
            get(server, max_body_size=1000 + room)


def test_an_endless_body_ends_with_max_body_size(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(OK + b"\r\n")
        peer.flood(b"a" * 1000)

    with serve(script) as server:
        limit = 3 * SOON * PATIENCE
        with takes(0, 3 * SOON, busy=True), pytest.raises(ValueError, match="max_body_size"):
            get(server, max_body_size=1024 * KIB, timeout=limit)


def test_a_max_body_size_of_zero_takes_only_an_empty_body(serve: Serve) -> None:
    with serve([answer(OK + sized(b"")), answer(OK + sized(b"a"))]) as server:
        assert get(server, max_body_size=0).body == b""
        with pytest.raises(ValueError, match="max_body_size"):
            get(server, max_body_size=0)


def test_a_negative_max_body_size_is_refused() -> None:
    with pytest.raises(ValueError, match="max_body_size"):
        hftws.get("http://127.0.0.1:1/", max_body_size=-1)


@pytest.mark.parametrize(
    ("data", "stage"),
    [
        (b"", "waiting for the HTTP response"),
        (b"HTTP/1.1 200", "waiting for the HTTP response"),
        (OK + b"Content-Length: 10\r\n\r\n12345", "reading the HTTP body"),
        (OK + b"\r\n" + SNAPSHOT, "reading the HTTP body"),
    ],
    ids=["no answer", "half a head", "half a body", "no end"],
)
def test_a_server_that_stalls_ends_with_the_timeout(
    serve_both: Serve, data: bytes, stage: str
) -> None:
    with serve_both(unless_given_up(answer(data))) as server:
        times_out(lambda timeout: get(server, timeout=timeout), stage)


def test_a_body_that_trickles_ends_with_the_timeout(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(OK + b"Content-Length: 1000\r\n\r\n")
        peer.trickle(b"a" * 1000, 0.02)

    with serve_both(unless_given_up(script)) as server:
        times_out(lambda timeout: get(server, timeout=timeout), "reading the HTTP body")


def test_a_body_that_never_stops_ends_with_the_timeout(serve: Serve) -> None:
    """Even when there is always something to read."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        peer.flood(b"1\r\na\r\n")

    with serve(unless_given_up(script)) as server:
        for _ in range(5):  # Whether there is always something depends on who is faster.
            with takes(0.1, SOON, busy=True), pytest.raises(hftws.ConnectTimeout):
                get(server, timeout=0.15, max_body_size=2**40)


def test_ctrl_c_ends_get(serve_both: Serve) -> None:
    """Nothing is left open, either."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.interrupt()
        peer.recv_all()

    with serve_both(script) as server:
        with takes(0, SOON), pytest.raises(KeyboardInterrupt):
            get(server, timeout=20.0 * PATIENCE)


# ---- Not even a connection. --------------------------------------------------------------------


def test_refused() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    with pytest.raises(hftws.ConnectError, match="refused"):
        hftws.get(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("end", ["EOF", "FIN", "RST"])
def test_the_server_ends_at_once(serve_both: Serve, end: str) -> None:
    with serve_both(lambda peer: finish(peer, end)) as server:
        with pytest.raises((hftws.HandshakeError, hftws.ConnectError)):
            get(server)


def test_certificates_are_checked(serve: Serve, ca: trustme.CA, ca_file: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("feed.example").configure_cert(context)
    with serve(answer(OK + sized(SNAPSHOT)), tls_context=context) as server:
        with pytest.raises(hftws.TLSError) as caught:
            get(server)
        assert "mismatch" in caught.value.verify_reason
        with pytest.raises(hftws.TLSError) as caught:
            hftws.get(server.http_url())
        assert caught.value.reason == "certificate verify failed"
        assert get(server, server_name="feed.example").body == SNAPSHOT
        assert hftws.get(server.http_url(), verify=False).body == SNAPSHOT


def test_a_client_certificate_is_shown(
    serve: Serve, ca: trustme.CA, tls_context: ssl.SSLContext, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    own = tmp_path / "own.pem"
    ca.issue_cert(common_name="trader").private_key_and_cert_chain_pem.write_to_path(own)
    with serve(answer(OK + sized(SNAPSHOT)), tls_context=context) as server:
        assert get(server, cert_file=own).body == SNAPSHOT
        with pytest.raises(hftws.TLSError):
            get(server)


def test_plain_http_on_a_tls_port(serve: Serve) -> None:
    with serve(lambda peer: (peer.recv_some(), peer.send(OK + sized(b"")))) as server:
        with pytest.raises(hftws.TLSError, match="speak TLS"):
            hftws.get(server.url("/", "https"))


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_nothing_is_left_behind(serve_both: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor and no unclosed connection, however it ends."""
    gc.collect()  # What other tests have left behind is not told here.
    unraisable: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    scripts = [
        answer(OK + sized(SNAPSHOT)),
        answer(OK + sized(SNAPSHOT)),
        answer(b"", "RST"),
        unless_given_up(answer(b"")),
        answer(b"<html>"),
    ]
    with serve_both(scripts) as server:
        before = len(os.listdir("/dev/fd"))
        get(server)
        with pytest.raises(ValueError):
            get(server, max_body_size=10)
        with pytest.raises(hftws.HandshakeError):
            get(server)
        with pytest.raises(hftws.ConnectTimeout):
            get(server, timeout=SHORT)
        with pytest.raises(hftws.HandshakeError):
            get(server)
        gc.collect()
        deadline = time.monotonic() + PEER_TIMEOUT
        while len(os.listdir("/dev/fd")) > before and time.monotonic() < deadline:
            time.sleep(0.001)  # The server's end of the last connection goes, too.
        assert len(os.listdir("/dev/fd")) == before
    assert unraisable == []
