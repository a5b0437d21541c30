"""From the constructor to an open connection, and every way in which connecting fails."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from ssl import SSLContext
from typing import Any

import pytest
from deadlines import SHORT, SOON, in_time, times_out, unless_given_up
from frames import wait_until_reset
from servers import (
    PATIENCE,
    PEER_TIMEOUT,
    TEXT,
    Peer,
    ScriptServer,
    Serve,
    encode_frame,
    has_ipv6,
    takes,
)

import hftws

#: Seconds for a connect that a signal has to end.
LONG = 20.0 * PATIENCE

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no ::1 on this machine")
BOTH_FAMILIES = ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)]
on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="all of 127.0.0.0/8 is here only on Linux"
)


def greet(peer: Peer) -> None:
    """Opens, says hello, and closes in the ordinary way."""
    peer.accept_upgrade()
    peer.send_text("hello")
    peer.close_handshake()


def open_and_wait(peer: Peer) -> None:
    """Opens, and answers the client."""
    peer.accept_upgrade()
    peer.answer_close()


def interrupt(peer: Peer, signum: int = signal.SIGINT) -> None:
    """Sends this process a signal once the client has said something."""
    assert peer.recv_some()
    peer.interrupt(signum)
    peer.recv_all()


def closed_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as bound:
        bound.bind((host, 0))
        port: int = bound.getsockname()[1]
        return port


@contextlib.contextmanager
def blackhole(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port whose queue of connections is full: a SYN gets no answer."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(16):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.05)
            try:
                filler.connect(listener.getsockname())
            except TimeoutError:
                break
        else:
            pytest.fail("the queue of connections does not fill up")
        yield listener.getsockname()[1]


# ---- Getting there. ----------------------------------------------------------------------------


def test_connects_and_receives(serve_both: Serve) -> None:
    received: list[bytes] = []
    with serve_both(greet) as server:
        client = server.client(on_msg=lambda msg: received.append(bytes(msg)))
        assert not client.is_open
        client.connect()
        assert client.is_open
        client.run()
        assert not client.is_open
    assert received == [b"hello"]


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("host", BOTH_FAMILIES)
def test_an_address_in_the_url_is_connected_to(serve: Serve, host: str, tls: bool) -> None:
    """An IPv6 address stands in brackets, in the URL and in the Host header."""
    hosts: list[str | None] = []

    def script(peer: Peer) -> None:
        hosts.append(peer.accept_upgrade().header("Host"))
        peer.answer_close()

    with serve(script, host=host, tls=tls) as server, server.client() as client:
        assert client.info()["peer_address"] == server.authority
    assert hosts == [server.authority]


def test_a_name_is_resolved(serve_both: Serve) -> None:
    with serve_both(open_and_wait) as server:
        scheme = "wss" if server.tls_context else "ws"
        url = f"{scheme}://localhost:{server.port}/"
        with server.client(url=url) as client:
            assert client.info()["peer_address"] == server.authority


@on_linux
def test_connects_from_the_local_address(serve: Serve) -> None:
    peers: list[Any] = []

    def script(peer: Peer) -> None:
        peers.append(peer.sock.getpeername()[0])
        open_and_wait(peer)

    with serve(script) as server, server.client(local_address="127.0.0.9") as client:
        assert client.info()["local_address"].startswith("127.0.0.9:")
    assert peers == ["127.0.0.9"]


def test_a_local_address_that_is_not_of_this_machine(serve: Serve) -> None:
    with serve([]) as server, pytest.raises(hftws.ConnectError, match="local address"):
        server.client(local_address="192.0.2.1").connect()


def test_an_interface_that_does_not_exist(serve: Serve) -> None:
    with serve([]) as server, pytest.raises(hftws.ConnectError):
        server.client(interface="no-such-device").connect()


# ---- Refused, or no such name. -----------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("host", BOTH_FAMILIES)
def test_refused(scheme: str, host: str) -> None:
    authority = f"[{host}]" if ":" in host else host
    client = hftws.Client(f"{scheme}://{authority}:{closed_port(host)}/", verify=False)
    with pytest.raises(hftws.ConnectError, match="refused") as caught:
        client.connect()
    assert not isinstance(caught.value, TimeoutError)
    assert not client.is_open


RESOLVER = r"""
#include <arpa/inet.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

static struct addrinfo list[32];
static union { struct sockaddr_in v4; struct sockaddr_in6 v6; } places[32];

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **result) {
    char text[1024] = "";
    strncpy(text, getenv("FAKE_ADDRESSES"), sizeof text - 1);
    if (text[0] == '-') return atoi(text);
    int count = 0;
    for (char *word = strtok(text, ","); word; word = strtok(NULL, ","), count++) {
        struct addrinfo *entry = &list[count];
        entry->ai_socktype = SOCK_STREAM;
        entry->ai_protocol = IPPROTO_TCP;
        entry->ai_next = NULL;
        entry->ai_addr = (struct sockaddr *)&places[count];
        if (strchr(word, ':')) {
            entry->ai_family = places[count].v6.sin6_family = AF_INET6;
            entry->ai_addrlen = sizeof places[count].v6;
            inet_pton(AF_INET6, word, &places[count].v6.sin6_addr);
        } else {
            entry->ai_family = places[count].v4.sin_family = AF_INET;
            entry->ai_addrlen = sizeof places[count].v4;
            inet_pton(AF_INET, word, &places[count].v4.sin_addr);
        }
        if (count > 0) list[count - 1].ai_next = entry;
    }
    *result = list;
    return 0;
}

void freeaddrinfo(struct addrinfo *first) {}
"""

PROGRAM = """
import json, sys, time, hftws
began = time.monotonic()
try:
    with hftws.Client(sys.argv[1], connect_timeout=float(sys.argv[2])) as client:
        result = {"peer": client.info()["peer_address"]}
except hftws.Error as error:
    result = {"error": type(error).__name__, "message": str(error)}
print(json.dumps({**result, "elapsed": time.monotonic() - began}))
"""

Resolved = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that resolves every name to the addresses in FAKE_ADDRESSES."""
    if not sys.platform.startswith("linux"):
        pytest.skip("LD_PRELOAD is Linux's")
    folder = tmp_path_factory.mktemp("resolver")
    (folder / "resolver.c").write_text(RESOLVER)
    options = ["-shared", "-nostdlib", "-fPIC", "-O1", "-o", "resolver.so", "resolver.c"]
    zig = [sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"]
    compilers = [zig, [shutil.which("cc") or "cc"]]
    for compiler in compilers:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command, limit = [*compiler, *options], 300 * PATIENCE
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=limit)
            return folder / "resolver.so"
    pytest.skip("no C compiler: neither ziglang nor cc")


@pytest.fixture
def connect_to(resolver: Path) -> Resolved:
    """Connects, in another process, to a name with the given addresses."""

    def connect(addresses: str, port: int, timeout: float) -> dict[str, Any]:
        environment = {
            **os.environ,
            "LD_PRELOAD": str(resolver),
            "FAKE_ADDRESSES": addresses,
            "PYTHONPATH": str(Path(hftws.__file__).parent.parent),
        }
        arguments = [f"ws://feed.example:{port}/", str(timeout)]
        command = [sys.executable, "-c", PROGRAM, *arguments]
        limit = 20 * PATIENCE
        ended = subprocess.run(command, env=environment, capture_output=True, timeout=limit)
        assert ended.returncode == 0, ended.stderr.decode()
        result: dict[str, Any] = json.loads(ended.stdout)
        return result

    return connect


def test_every_address_of_a_name_is_tried(serve: Serve, connect_to: Resolved) -> None:
    """Two refuse, of either family, and the third one answers."""
    with serve(open_and_wait) as server:
        result = connect_to("127.0.0.2,::1,127.0.0.1", server.port, 4 * PATIENCE)
    assert result["peer"] == server.authority


@needs_ipv6
def test_the_first_address_that_answers_is_taken(serve: Serve, connect_to: Resolved) -> None:
    with serve(open_and_wait, host="::1") as server:
        result = connect_to("::1,127.0.0.1", server.port, 4 * PATIENCE)
    assert result["peer"] == server.authority


def test_an_address_that_never_answers_leaves_time_for_the_others(
    serve: Serve, connect_to: Resolved
) -> None:
    """Of two addresses, the first one gets half of the time."""
    with serve(unless_given_up(open_and_wait)) as server, blackhole("127.0.0.3", server.port):
        for timeout in (1, 4 * PATIENCE):  # On a busy machine, half a second may be too short.
            result = connect_to("127.0.0.3,127.0.0.1", server.port, timeout)
            if result["elapsed"] < timeout:
                break
    assert result.get("peer") == server.authority, result
    assert 0.4 * timeout <= result["elapsed"] < timeout


def test_all_addresses_refuse(connect_to: Resolved) -> None:
    result = connect_to("::1,127.0.0.2,127.0.0.3", closed_port(), 4 * PATIENCE)
    assert result["error"] == "ConnectError"
    assert "feed.example" in result["message"]
    assert "refused" in result["message"]
    assert result["elapsed"] < SOON * PATIENCE


def test_no_address_answers(connect_to: Resolved) -> None:
    """All of them together have connect_timeout, not each."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(blackhole("127.0.0.3"))
        hosts = [f"127.0.0.{number}" for number in range(3, 11)]
        for host in hosts[1:]:
            stack.enter_context(blackhole(host, port))
        timeout = 0.5 * PATIENCE
        result = connect_to(",".join(hosts), port, timeout)
    assert result["error"] == "ConnectTimeout"
    assert 0.9 * timeout <= result["elapsed"] < 0.9 * timeout * len(hosts)


@pytest.mark.parametrize(
    ("status", "message"),
    [(-2, "does not resolve"), (-3, "no name server answered"), (-4, "name server failed")],
)
def test_a_name_that_does_not_resolve(connect_to: Resolved, status: int, message: str) -> None:
    result = connect_to(str(status), 80, 4 * PATIENCE)
    assert result["error"] == "ConnectError"
    assert message in result["message"]
    assert "feed.example" in result["message"]


# ---- Stalls: each stage has to end with the deadline. ------------------------------------------


def silent(peer: Peer) -> None:
    """Accepts, and sends nothing."""
    peer.recv_all()


def stalls(new_client: Callable[[float], hftws.Client], stage: str) -> None:
    """Clients with deadlines do not get beyond this stage, and are not open then."""

    def connect(timeout: float) -> None:
        client = new_client(timeout)
        try:
            client.connect()
        finally:
            assert not client.is_open

    times_out(connect, stage)


def silent_after_request(peer: Peer) -> None:
    peer.read_request()
    peer.recv_all()


def trickle_of_http(peer: Peer) -> None:
    peer.read_request()
    peer.trickle(b"HTTP/1.1 101 Switching Protocols\r\nX-Slow: " + b"a" * 999, 0.02)


def silent_in_http(peer: Peer) -> None:
    peer.read_request()
    peer.send(peer.upgrade_response()[:-1])
    peer.recv_all()


@pytest.mark.parametrize(
    "script", [silent_after_request, trickle_of_http, silent_in_http], ids=lambda s: s.__name__
)
def test_a_stall_in_the_upgrade_ends_with_the_deadline(
    serve_both: Serve, script: Callable[[Peer], None]
) -> None:
    with serve_both(unless_given_up(script)) as server:
        stalls(lambda timeout: server.client(connect_timeout=timeout), "HTTP response")


def test_a_stall_of_tcp_ends_with_the_deadline() -> None:
    with blackhole() as port:
        url = f"ws://127.0.0.1:{port}/"
        stalls(lambda timeout: hftws.Client(url, connect_timeout=timeout), "connecting to")


def test_a_stall_in_the_accept_queue_ends_with_the_deadline() -> None:
    """The kernel answers the SYN, but no program answers the request."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        stalls(lambda timeout: hftws.Client(url, connect_timeout=timeout), "HTTP response")


@pytest.mark.parametrize("stall", ["silent", "silent after hello", "half a flight", "trickle"])
def test_a_stall_in_the_tls_handshake_ends_with_the_deadline(
    serve: Serve, tls_context: SSLContext, stall: str
) -> None:
    def script(peer: Peer) -> None:
        if stall == "silent":
            peer.recv_all()
            return
        flight = peer.tls_first_flight(tls_context)
        if stall == "trickle":
            assert peer.trickle(flight, 0.02) < len(flight)
            return
        if stall == "half a flight":
            peer.send(flight[: len(flight) // 2])
        peer.recv_all()

    with serve(unless_given_up(script)) as server:
        options = {"url": server.url("/", "wss"), "verify": False}
        stalls(lambda timeout: server.client(connect_timeout=timeout, **options), "TLS handshake")


def test_the_deadline_is_for_all_stages_together(serve: Serve, tls_context: SSLContext) -> None:
    """Each stage alone is quick enough."""

    def script(peer: Peer) -> None:
        peer.server.stopping.wait(0.25)
        peer.sock = tls_context.wrap_socket(peer.sock, server_side=True)
        peer.read_request()
        peer.server.stopping.wait(0.25)
        peer.send(peer.upgrade_response())
        peer.recv_all()

    with serve(unless_given_up(script)) as server:
        client = server.client(url=server.url("/", "wss"), connect_timeout=0.4, verify=False)
        with takes(0.4, 0.4 + SOON), pytest.raises(hftws.ConnectTimeout):
            client.connect()


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_timeout_of_zero_is_over_at_once(serve: Serve, scheme: str) -> None:
    with serve(silent) as server:
        client = server.client(url=server.url("/", scheme), connect_timeout=0, verify=False)
        with takes(0, SOON), pytest.raises(hftws.ConnectTimeout):
            client.connect()


def test_the_deadline_ends_with_the_upgrade(serve: Serve) -> None:
    """An open connection may be silent for longer."""

    def receive(timeout: float) -> list[bytes]:
        def script(peer: Peer) -> None:
            peer.accept_upgrade()
            peer.server.stopping.wait(2 * timeout)
            peer.send_text("late")
            peer.close_handshake()

        received: list[bytes] = []
        with serve(script) as server:
            client = server.client(lambda msg: received.append(bytes(msg)), connect_timeout=timeout)
            with takes(2 * timeout, 2 * timeout + SOON):
                client.connect()
                client.run()
        return received

    assert in_time(receive) == [b"late"]


@pytest.mark.parametrize("driver", ["poll", "run"])
def test_waiting_takes_no_cpu(serve_both: Serve, driver: str) -> None:
    """Waiting for the peer to send, and for it to read what is queued."""
    queued, over = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        if driver == "run":
            peer.wait(queued)
            peer.server.stopping.wait(SHORT)
            peer.close()
        peer.wait(over)

    with serve_both(script) as server:
        client = server.client(send_buffer_size=128 * 1024, close_timeout=SHORT)
        client.connect()
        client.send(b"a" * 7_000_000)
        assert client.wants_write
        if driver == "poll":
            with takes(SHORT, SHORT + SOON):
                assert client.poll(SHORT) == 0
            with takes(SHORT, SHORT + SOON):
                client.close()
        else:
            with takes(SHORT, SHORT + SOON), pytest.raises(hftws.ConnectionClosed):
                queued.set()  # From now on the server waits.
                client.run()
        over.set()


# ---- The peer goes away. -----------------------------------------------------------------------

EOF, RST, HALF = "EOF", "RST", "half-close"
ENDINGS = [EOF, RST, HALF]


def end(peer: Peer, how: str) -> None:
    """Ends the TCP connection below TLS."""
    if how == RST:
        peer.reset()
    elif how == EOF:
        peer.close()
    else:
        peer.shut_send_side()
        peer.recv_all()


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_the_peer_ends_right_after_tcp(serve: Serve, scheme: str, how: str) -> None:
    with serve(lambda peer: end(peer, how)) as server:
        client = server.client(url=server.url("/", scheme), verify=False)
        expected = hftws.HandshakeError if scheme == "ws" else hftws.TLSError
        with takes(0, SOON), pytest.raises((expected, hftws.ConnectError)) as caught:
            client.connect()
        assert not isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("part", ["nothing", "a byte", "half", "all"])
def test_the_peer_ends_in_the_tls_handshake(
    serve: Serve, tls_context: SSLContext, part: str, how: str
) -> None:
    def script(peer: Peer) -> None:
        flight = peer.tls_first_flight(tls_context)
        sizes = {"nothing": 0, "a byte": 1, "half": len(flight) // 2, "all": len(flight)}
        peer.send(flight[: sizes[part]])
        end(peer, how)

    with serve(script) as server:
        client = server.client(url=server.url("/", "wss"), verify=False)
        # After the whole flight, the handshake may be done on our side.
        expected = (hftws.TLSError, hftws.HandshakeError) if part == "all" else hftws.TLSError
        with takes(0, SOON), pytest.raises(expected) as caught:
            client.connect()
        assert "clos" in str(caught.value) or "reset" in str(caught.value)


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("part", [0, 1, 20, -1])
def test_the_peer_ends_in_the_response(serve_both: Serve, part: int, how: str) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(peer.upgrade_response()[:part])
        end(peer, how)

    with serve_both(script) as server:
        client = server.client()
        with takes(0, SOON), pytest.raises(hftws.HandshakeError) as caught:
            client.connect()
        assert caught.value.status is None
        assert "clos" in str(caught.value) or "reset" in str(caught.value)


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("partial", [b"", b"\x81", b"\x81\x05hel"])
def test_the_peer_ends_when_open(serve_both: Serve, how: str, partial: bytes) -> None:
    """The end is noticed at once, and what came before it is delivered."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send(encode_frame(TEXT, b"last") + partial)
        peer.expect_frame(TEXT, b"got it")
        end(peer, how)

    closes: list[tuple[int, str]] = []
    received: list[bytes] = []

    def on_msg(msg: hftws.Message) -> None:
        received.append(bytes(msg))
        client.send("got it")

    with serve_both(script) as server:
        client = server.client(on_msg, on_close=lambda _, *how: closes.append(how))
        client.connect()
        with takes(0, SOON), pytest.raises(hftws.ConnectionClosed) as caught:
            client.run()
        assert caught.value.code == 1006
        assert caught.value.reason
        assert ("reset" in caught.value.reason) == (how == RST)
        assert not client.is_open
    assert received == [b"last"]
    assert closes == [(1006, caught.value.reason)]


@pytest.mark.parametrize("how", [EOF, RST])
def test_sending_to_a_peer_that_is_gone_raises_and_never_kills(serve_both: Serve, how: str) -> None:
    """SIGPIPE would end the process. After EOF, the answer to the first message is a reset."""
    connected, gone = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(connected)
        end(peer, how)
        gone.set()

    previous = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with serve_both(script) as server:
            client = server.client()
            client.connect()
            connected.set()
            assert gone.wait(PEER_TIMEOUT)
            if how == EOF:
                client.send(b"a" * 1000)
            wait_until_reset(client)
            with pytest.raises(hftws.ConnectionClosed) as caught:
                client.send(b"a" * 1000)
            assert caught.value.code == 1006
            with pytest.raises(hftws.ConnectionClosed) as caught:
                client.run()
            assert caught.value.code == 1006
    finally:
        signal.signal(signal.SIGPIPE, previous)


# ---- Again, in the wrong order, interrupted. ---------------------------------------------------


def test_a_client_connects_again_after_an_ordinary_end(serve_both: Serve) -> None:
    received: list[bytes] = []
    opened: list[hftws.Client] = []
    closes: list[tuple[hftws.Client, int, str]] = []
    with serve_both(greet) as server:
        client = server.client(
            lambda msg: received.append(bytes(msg)),
            on_open=opened.append,
            on_close=lambda *how: closes.append(how),
        )
        for _ in range(3):
            client.connect()
            client.run()
            assert client.close_code == 1000
    assert server.accepted == 3
    assert received == [b"hello"] * 3
    assert opened == [client] * 3
    assert closes == [(client, 1000, "")] * 3


def test_a_client_connects_again_after_every_failure(serve_both: Serve) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")

    def drop(peer: Peer) -> None:
        peer.accept_upgrade(then=b"\x81\x05hel", subprotocol="v2")

    def misbehave(peer: Peer) -> None:
        peer.accept_upgrade(then=b"\x83\x00")
        peer.recv_all()

    silent = unless_given_up(silent_after_request)
    scripts = [Peer.reset, silent, refuse, drop, misbehave, greet]

    def fail_and_connect(timeout: float) -> list[bytes]:
        received: list[bytes] = []
        with serve_both(scripts) as server:
            client = server.client(
                lambda msg: received.append(bytes(msg)),
                connect_timeout=timeout,
                subprotocols=["v2"],
            )
            with pytest.raises(ConnectionError):
                client.connect()
            with pytest.raises(hftws.ConnectTimeout):
                client.connect()
            with pytest.raises(hftws.HandshakeError) as refused:
                client.connect()
            assert refused.value.body == b"busy"
            client.connect()
            assert client.subprotocol == "v2"
            with pytest.raises(hftws.ConnectionClosed):
                client.run()
            client.connect()
            assert client.subprotocol is None
            assert client.close_code is None
            with pytest.raises(hftws.ProtocolError):
                client.run()
            client.connect()
            client.run()
            assert client.close_code == 1000
        return received

    assert in_time(fail_and_connect) == [b"hello"]


def test_connecting_twice_is_refused_and_harmless(serve_both: Serve) -> None:
    with serve_both(open_and_wait) as server, server.client() as client:
        with pytest.raises(RuntimeError, match="already connected"):
            client.connect()
        assert client.is_open


def test_what_needs_a_connection_says_so() -> None:
    client = hftws.Client("ws://127.0.0.1:1/")
    for call in (
        client.run,
        client.poll,
        lambda: client.send("a"),
        client.ping,
        lambda: client.reserve(10, text=True).__enter__(),
    ):
        with pytest.raises(RuntimeError, match=r"connect\(\)"):
            call()
    assert client.info()["descriptor"] is None
    assert not client.wants_write
    assert client.subprotocol is None
    assert client.response_headers == []
    assert client.close_code is None
    assert client.close_reason is None
    client.close()
    assert client.close_code is None


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_ctrl_c_ends_connect(serve: Serve, tls_context: SSLContext, scheme: str) -> None:
    """In the upgrade, and in the TLS handshake. Then the client can connect again."""

    def open_over_either(peer: Peer) -> None:
        if scheme == "wss":
            peer.sock = tls_context.wrap_socket(peer.sock, server_side=True)
        open_and_wait(peer)

    with serve([interrupt, open_over_either]) as server:
        url = server.url("/", scheme)
        client = server.client(url=url, connect_timeout=LONG, verify=False)
        with takes(0, SOON), pytest.raises(KeyboardInterrupt):
            client.connect()
        assert not client.is_open
        with client:
            assert client.is_open


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_ctrl_c_ends_connect_while_tcp_is_set_up() -> None:
    """And the client can try again, until it is interrupted again."""
    with blackhole() as port:
        client = hftws.Client(f"ws://127.0.0.1:{port}/", connect_timeout=LONG)
        for _ in range(2):
            timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
            try:
                with takes(0, SOON), pytest.raises(KeyboardInterrupt):
                    timer.start()
                    client.connect()
            finally:
                timer.cancel()  # If connect() failed at once: spare other tests.
            assert not client.is_open


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_signal_handler_may_close_what_is_not_open_yet(serve: Serve, scheme: str) -> None:
    """Neither side sent CLOSE, so the code is 1006; for run() it is no ordinary end."""
    before = signal.signal(signal.SIGUSR1, lambda *_: client.close(1000, "stop"))
    try:
        with serve(lambda peer: interrupt(peer, signal.SIGUSR1)) as server:
            url = server.url("/", scheme)
            client = server.client(url=url, connect_timeout=LONG, verify=False)
            for call in (client.connect, client.run, client.poll):
                with pytest.raises(hftws.ConnectionClosed, match="before it was open") as caught:
                    call()
                assert caught.value.code == client.close_code == 1006
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_ctrl_c_ends_run_and_leaves_the_client_usable(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("first")
        peer.expect_frame(TEXT, b"ready")
        peer.interrupt()
        peer.expect_frame(TEXT, b"go on")
        peer.send_text("second")
        peer.close_handshake()

    received: list[bytes] = []

    def on_msg(msg: hftws.Message) -> None:
        received.append(bytes(msg))
        if len(received) == 1:
            client.send("ready")

    with serve_both(script) as server:
        client = server.client(on_msg)
        client.connect()
        with takes(0, SOON), pytest.raises(KeyboardInterrupt):
            client.run()
        assert client.is_open
        client.send("go on")
        client.run()
    assert received == [b"first", b"second"]


def test_busy_polling_connects_and_ends_with_the_deadline(serve_both: Serve) -> None:

    def connect(timeout: float) -> None:
        received: list[bytes] = []
        with serve_both([greet, unless_given_up(silent_after_request)]) as server:
            client = server.client(
                lambda msg: received.append(bytes(msg)), busy_poll=True, connect_timeout=timeout
            )
            client.connect()
            client.run()
            assert received == [b"hello"]
            with takes(timeout, timeout + SOON, busy=True), pytest.raises(hftws.ConnectTimeout):
                client.connect()

    in_time(connect)


def test_a_client_is_driven_by_one_thread_at_a_time(serve_both: Serve) -> None:
    """A second thread gets an exception, and does no harm."""
    in_run = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("first")
        peer.wait(in_run)
        for call in (client.run, client.poll, client.connect, client.close):
            with pytest.raises(RuntimeError, match=r"thread|callback"):
                call()
        peer.send_text("second")
        peer.close_handshake()

    received: list[bytes] = []

    def on_msg(msg: hftws.Message) -> None:
        received.append(bytes(msg))
        in_run.set()

    with serve_both(script) as server:
        client = server.client(on_msg)
        client.connect()
        client.run()
        assert client.close_code == 1000
    assert received == [b"first", b"second"]


# ---- Callbacks at the beginning. ---------------------------------------------------------------


def test_on_open_is_called_once_with_the_open_client(serve_both: Serve) -> None:
    calls: list[tuple[object, ...]] = []

    def on_open(*given: hftws.Client) -> None:
        calls.append((*given, given[0].is_open))

    with serve_both(open_and_wait) as server:
        client = server.client(on_open=on_open)
        with client:
            assert calls == [(client, True)]
            client.poll()
    assert calls == [(client, True)]


def test_on_open_can_send(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.expect_frame(TEXT, b"subscribe")
        peer.answer_close()

    with serve_both(script) as server:
        with server.client(on_open=lambda client: client.send("subscribe")):
            pass


def test_what_on_open_raises_comes_out_of_connect(serve_both: Serve) -> None:
    def fail(client: hftws.Client) -> None:
        raise LookupError("mine")

    with serve_both(greet) as server:
        client = server.client(on_open=fail)
        with pytest.raises(LookupError, match="mine"):
            client.connect()
        assert client.is_open
        client.run()
        assert client.close_code == 1000


def test_no_callback_of_an_open_connection_for_one_that_never_was(serve_both: Serve) -> None:
    calls: list[object] = []

    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")

    with serve_both([refuse, Peer.reset]) as server:
        client = server.client(
            calls.append, on_open=calls.append, on_close=lambda *_: calls.append("closed")
        )
        for _ in range(2):
            with pytest.raises(ConnectionError):
                client.connect()
        client.close()
    assert calls == []


@pytest.mark.parametrize("name", ["connect", "run", "poll"])
def test_a_callback_cannot_drive_its_own_client(serve: Serve, name: str) -> None:
    errors: list[str] = []

    def on_open(client: hftws.Client) -> None:
        with pytest.raises(RuntimeError) as caught:
            getattr(client, name)()
        errors.append(str(caught.value))

    with serve(open_and_wait) as server, server.client(on_open=on_open) as client:
        assert client.is_open
    assert len(errors) == 1
    assert "callback" in errors[0]


# ---- What it looks like from outside. ----------------------------------------------------------


def test_fileno_is_readable_when_there_is_something_to_poll(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.expect_frame(TEXT, b"ready")
        peer.send_text("now")
        peer.answer_close()

    received: list[bytes] = []
    with serve_both(script) as server:
        client = server.client(lambda msg: received.append(bytes(msg)))
        client.connect()
        descriptor = client.fileno()
        assert isinstance(descriptor, int)
        assert os.fstat(descriptor)
        assert client.fileno() == descriptor
        assert client.poll() == 0
        client.send("ready")
        while not received:
            assert select.select([client], [], [], PEER_TIMEOUT)[0] == [client]
            client.poll()
        assert received == [b"now"]
        client.close()
        assert client.fileno() == descriptor


def test_info_says_what_is_in_force(serve_both: Serve) -> None:
    with serve_both(open_and_wait) as server:
        options: dict[str, Any] = {
            "ring_size": 5 * 2**20,
            "send_ring_size": 2**20 - 1,
            "receive_buffer_size": 128 * 1024,
            "quick_ack": True,
        }
        with server.client(**options) as client:
            info = client.info()
            peer = socket.socket(fileno=os.dup(client.info()["descriptor"]))
            local = peer.getsockname()
            peer.close()
    assert info["url"] == server.url()
    assert info["peer_address"] == server.authority
    assert info["local_address"] == f"{local[0]}:{local[1]}"
    assert info["receive_ring"]["size"] == 8 * 2**20
    assert info["send_ring"]["size"] == 2**20
    assert info["receive_ring"]["mirrored"] is True
    assert info["receive_ring"]["huge_pages"] is False
    assert info["socket_options"]["no_delay"] is True
    assert info["socket_options"]["peer_timeout_s"] == 30  # Keep-alive probes and unanswered data.
    assert info["socket_options"]["receive_buffer_size"] >= 128 * 1024
    assert info["busy_poll"] is False
    assert info["cycles_per_ns"] > 0
    tls = {key: info[key] for key in ("tls_library", "tls_version", "cipher", "engine", "aead")}
    if server.tls_context is None:
        assert set(tls.values()) == {None}
    else:
        assert tls["tls_version"] == "TLSv1.3"
        assert "SSL" in tls["tls_library"]
        assert tls["cipher"].startswith("TLS_")
        assert tls["engine"] == "direct"
        assert tls["aead"]


@pytest.mark.parametrize("timestamps", ["none", "software"])
def test_info_names_the_source_of_the_kernel_stamps(serve: Serve, timestamps: str) -> None:
    with serve(greet) as server:
        client = server.client(timestamps=timestamps)
        client.connect()
        client.run()
        assert client.info()["kernel_stamp_source"] in ("none", timestamps)


def test_info_works_in_every_state(serve_both: Serve) -> None:
    with serve_both(greet) as server:
        client = server.client()
        before = client.info()
        client.connect()
        opened = client.info()
        client.run()
        after = client.info()
    assert before.keys() == opened.keys() == after.keys()
    for info in (before, after):
        assert info["peer_address"] is None
        assert info["socket_options"] is None
        assert info["tls_version"] is None


def test_no_descriptor_is_left_behind(serve_both: Serve) -> None:
    """No descriptor is lost, neither by an end nor by a failure in any stage."""
    if not os.path.isdir("/dev/fd"):
        pytest.skip("no /dev/fd to count descriptors in")
    silent = unless_given_up(silent_after_request)
    scripts = [greet, Peer.reset, silent, open_and_wait, Peer.close]

    def use(timeout: float) -> None:
        with serve_both(scripts) as server:
            gc.collect()
            before = len(os.listdir("/dev/fd"))
            client = server.client(connect_timeout=timeout)
            client.connect()
            client.run()
            for _ in range(2):
                with pytest.raises(ConnectionError):
                    client.connect()
            client.connect()
            client.close()
            with pytest.raises(ConnectionError):
                client.connect()
            refused = hftws.Client(f"ws://127.0.0.1:{closed_port()}/")
            with pytest.raises(hftws.ConnectError):
                refused.connect()
            del client, refused
            gc.collect()
            server.stopping.set()
            deadline = time.monotonic() + PEER_TIMEOUT
            while len(os.listdir("/dev/fd")) > before and time.monotonic() < deadline:
                time.sleep(0.001)  # The server's end of the last connection goes, too.
            assert len(os.listdir("/dev/fd")) == before

    in_time(use)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_no_memory_is_left_behind(serve_both: Serve) -> None:
    """Nothing is lost with each connection, neither a ring nor an object."""

    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 429 Slow\r\nA: b\r\nContent-Length: 4\r\n\r\nslow")
        peer.recv_all()

    def script(peer: Peer) -> None:
        refuse(peer) if peer.server.accepted % 2 else greet(peer)

    def use(server: ScriptServer) -> None:
        client = server.client(bytes, on_close=lambda *_: None, headers={"a": "b"})
        with pytest.raises(hftws.HandshakeError):
            client.connect()
        client.connect()
        client.run()

    def measure() -> tuple[int, int]:
        gc.collect()
        return len(Path("/proc/self/maps").read_text().splitlines()), sys.getallocatedblocks()

    rounds = 20
    with serve_both(script) as server:
        for _ in range(10):
            use(server)
        maps_before, blocks_before = measure()
        for _ in range(rounds):
            use(server)
        maps_after, blocks_after = measure()
    assert maps_after - maps_before < rounds / 4
    assert blocks_after - blocks_before < 2 * rounds


def test_an_unclosed_client_is_warned_about(serve: Serve) -> None:
    with serve(lambda peer: (peer.accept_upgrade(), peer.recv_all())) as server:
        client = server.client()
        client.connect()
        with pytest.warns(ResourceWarning, match=r"unclosed client <hftws.Client ws://"):
            del client
            gc.collect()


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_a_closed_client_is_not_warned_about(
    serve_both: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with serve_both([open_and_wait, greet, Peer.close]) as server:
        with server.client() as client:
            pass
        ended = server.client()
        ended.connect()
        ended.run()
        failed = server.client()
        with pytest.raises(ConnectionError):
            failed.connect()
        never = server.client()
        del client, ended, failed, never
        gc.collect()
    assert unraisable == []
