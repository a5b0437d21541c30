"""Every errno of every system call, and calls that do less than they were asked.

The core's own tests run on a scripted kernel, which speaks of errors by their causes. Here a shim
between hftws and libc (errnos/shim.c) gives the numbers themselves, in a process of its own.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from frames import text
from servers import PATIENCE, TEXT, Peer, ScriptServer, Serve, takes

FOLDER = Path(__file__).with_name("errnos")

#: Seconds for the compiler, which first compiles parts of itself.
BUILD_TIMEOUT = 300 * PATIENCE

Job = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim, built with the compiler that builds hftws."""
    if sys.platform != "linux":
        pytest.skip("the shim is for Linux")
    pytest.importorskip("ziglang", reason="no compiler for the shim: ziglang is not installed")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    compiler = [sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"]
    command = [*compiler, "-shared", "-fPIC", "-O1", "-o"]
    built = subprocess.run(
        [*command, str(library), str(FOLDER / "shim.c"), "-ldl"],
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT,
    )
    if built.returncode != 0:
        pytest.skip(f"the shim cannot be built here: {built.stderr[-300:]}")
    return library


@pytest.fixture
def job(shim: Path) -> Job:
    """Runs errnos/child.py under the shim, with the hftws of this process."""

    def run(work: dict[str, Any]) -> Any:
        path = os.pathsep.join(filter(None, (os.path.abspath(entry) for entry in sys.path)))
        environment = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": path}
        finished = subprocess.run(
            [sys.executable, str(FOLDER / "child.py")],
            input=json.dumps(work),
            capture_output=True,
            text=True,
            timeout=50 * PATIENCE,
            env=environment,
        )
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout)

    return run


UNEXPECTED = "unexpected error of the kernel"

#: call: errno: the client's message.
CONNECTING = {
    "socket": {
        "EMFILE": "no socket for 127.0.0.1: too many open files in this process",
        "ENFILE": "no socket for 127.0.0.1: too many open files in the system",
        "ENOMEM": "no socket for 127.0.0.1: the kernel is out of memory",
        "ENOBUFS": "no socket for 127.0.0.1: the kernel is out of memory",
        "EACCES": "no socket for 127.0.0.1: access denied",
        "EAFNOSUPPORT": "no socket for 127.0.0.1: the address family is not supported",
        "EXDEV": f"no socket for 127.0.0.1: {UNEXPECTED}: {os.strerror(errno.EXDEV)}",
    },
    "setsockopt": {
        "EPERM": "no socket for 127.0.0.1: a socket option needs a privilege",
        "ENOMEM": "no socket for 127.0.0.1: the kernel is out of memory",
        "EINVAL": "no socket for 127.0.0.1: a socket option has an invalid value",
    },
    "connect": {
        "ECONNREFUSED": "connection refused",
        "ENETUNREACH": "network unreachable",
        "EHOSTUNREACH": "host unreachable",
        "ETIMEDOUT": "timed out",
        "EADDRNOTAVAIL": "the local address is not available",
        "EAGAIN": "the local address is not available",
        "EADDRINUSE": "the local address is in use",
        "EPERM": "access denied",
        "ENOBUFS": "the kernel is out of memory",
        "ECONNRESET": "connection reset",
    },
}

RECEIVING = {
    "ECONNRESET": "the peer reset the TCP connection",
    "EPIPE": "the peer reset the TCP connection",
    "ETIMEDOUT": "the TCP connection timed out",
    "ENETDOWN": "the network became unreachable",
    "EHOSTUNREACH": "the peer became unreachable",
    "ENOMEM": "the kernel had no memory for the read",
    "ENOBUFS": "the kernel had no memory for the read",
    "EIO": "reading the socket failed",
}

SENDING = {
    "EPIPE": "the peer has closed the connection",
    "ECONNRESET": "the peer reset the connection",
    "ETIMEDOUT": "the peer does not answer",
    "ENOBUFS": "the kernel is out of memory",
    "ENOMEM": "the kernel is out of memory",
    "EPERM": "sending was forbidden",
    "ENETUNREACH": "the network is unreachable",
    "EIO": "unexpected error of the kernel",
}

#: stage, call, errno: what is raised. The connection is as before, and can be asked again.
ONCE_MORE = {
    ("connect", "epoll_create1", "EMFILE"): "OSError: [Errno 24] Too many open files",
    ("connect", "epoll_create1", "ENFILE"): "OSError: [Errno 23] Too many open files in system",
    ("connect", "epoll_create1", "ENOMEM"): "MemoryError: ",
    ("connect", "mmap", "ENOMEM"): "MemoryError: ",
    ("connect", "mmap", "EMFILE"): "OSError: [Errno 24] Too many open files",
    ("connect", "epoll_ctl", "ENOSPC"): "OSError: the kernel cannot wait for it",
    ("connect", "epoll_ctl", "ENOMEM"): "OSError: the kernel cannot wait for it",
    ("receive", "epoll_pwait2", "ENOMEM"): "OSError: the kernel cannot wait for it",
    ("receive", "epoll_pwait2", "EINTR"): "",
    ("receive", "epoll_pwait2", "ENOSYS"): "",
    ("receive", "epoll_pwait2", "EPERM"): "",
}

WHOLE = {"messages": ["one", "two"], "end": "ConnectionClosed: 1000 (bye)", "leaked": 0}


def greet(peer: Peer) -> None:
    """Sends two messages when asked."""
    peer.accept_upgrade()
    peer.expect_frame(TEXT, b"go")
    peer.send(text("one") + text("two"))
    peer.close_handshake(1000, "bye")


def greet_or_lose(peer: Peer) -> None:
    try:
        greet(peer)
    except (OSError, EOFError):
        return  # The client has ended it.


def once(job: Job, server: ScriptServer, cases: list[tuple[str, str, str, dict[str, Any]]]) -> Any:
    listed = [(server.url(), *case) for case in cases]
    return job({"kind": "once", "cases": listed})


def test_errors_of_connecting(serve: Serve, job: Job) -> None:
    """Each error names its cause, leaves nothing open, and the next try connects."""
    pairs = [(call, name) for call, names in CONNECTING.items() for name in names]
    with serve(greet_or_lose) as server:
        outcomes = once(job, server, [("connect", call, name, {}) for call, name in pairs])
    for (call, name), outcome in zip(pairs, outcomes, strict=True):
        failure = outcome.pop("failure")
        assert failure.startswith("ConnectError: "), (call, name, failure)
        assert failure.endswith(CONNECTING[call][name]), (call, name, failure)
        assert outcome == WHOLE, (call, name)


@pytest.mark.parametrize("call", ["recv", "recvmsg"])
def test_errors_of_receiving(serve: Serve, job: Job, call: str) -> None:
    """With and without stamps of the kernel, which take another call."""
    options = {"timestamps": "none" if call == "recv" else "software"}
    with serve(greet_or_lose) as server:
        outcomes = once(job, server, [("receive", call, name, options) for name in RECEIVING])
    for name, outcome in zip(RECEIVING, outcomes, strict=True):
        assert outcome["failure"] == f"ConnectionClosed: 1006 ({RECEIVING[name]})", name
        assert outcome["messages"] == []
        assert outcome["leaked"] == 0


def test_errors_of_sending(serve: Serve, job: Job) -> None:
    """send() raises; what the peer sends is still delivered until it hangs up."""

    def say_and_hear_nothing(peer: Peer) -> None:
        peer.accept_upgrade(then=text("one"))
        peer.expect_eof()

    with serve(say_and_hear_nothing) as server:
        outcomes = once(job, server, [("send", "send", name, {}) for name in SENDING])
    told = {
        "ECONNRESET": "the peer reset the TCP connection",
        "ETIMEDOUT": "the TCP connection timed out",
        "ENETUNREACH": "the network became unreachable",
    }
    for name, outcome in zip(SENDING, outcomes, strict=True):
        assert (
            outcome["failure"]
            == f"ConnectionClosed: 1006 (the socket cannot be written: {SENDING[name]})"
        ), name
        assert outcome["messages"] == ["one"], name
        reason = told.get(name, "the peer closed the TCP connection without a close frame")
        assert outcome["end"] == f"ConnectionClosed: 1006 ({reason})", name
        assert outcome["leaked"] == 0


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_what_cannot_be_sent_before_it_is_open_is_told_at_once(
    serve: Serve, job: Job, ca_file: Path, tls: bool
) -> None:
    """Reading would show nothing: the peer waits for what was not sent, and so would the client."""
    reasons = {
        "EPERM": "sending was forbidden",
        "EACCES": "sending was forbidden",
        "ENOMEM": "the kernel had no memory to send",
        "ENOBUFS": "the kernel had no memory to send",
        "EIO": "writing the socket failed",
    }
    stage = "in the TLS handshake with" if tls else "waiting for the HTTP response of"
    options = {"connect_timeout": 20.0 * PATIENCE, "ca_file": str(ca_file)}
    with serve(greet_or_lose, tls=tls) as server, takes(0, 10):
        outcomes = once(job, server, [("connect", "send", name, options) for name in reasons])
    for (name, reason), outcome in zip(reasons.items(), outcomes, strict=True):
        kind = "TLSError" if tls else "HandshakeError"
        assert outcome.pop("failure") == f"{kind}: {reason} while {stage} 127.0.0.1", name
        assert outcome == WHOLE, name


def test_errors_after_which_it_goes_on(serve: Serve, job: Job) -> None:
    with serve(greet_or_lose) as server:
        outcomes = once(job, server, [(*case, {}) for case in ONCE_MORE])
    for (case, failure), outcome in zip(ONCE_MORE.items(), outcomes, strict=True):
        assert outcome == {"failure": failure, **WHOLE}, case


@pytest.mark.parametrize(
    ("tls", "timestamps"),
    [(None, "none"), (None, "software"), ("direct", "none"), ("openssl", "software")],
)
def test_interrupted_and_short_calls_change_nothing(
    serve: Serve, job: Job, ca_file: Path, tls: str | None, timestamps: str
) -> None:
    """A third of all calls is interrupted, would block, or takes a part of what it could."""
    seeds, orders = 40, 20
    sizes = [0, 1, 125, 126, 5_000, 40_000, 100_000]

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for size in sizes:
            peer.send_text("x" * size)
        for number in range(orders):
            peer.expect_frame(TEXT, str(number).encode() * 50)
        peer.close_handshake(1000, "bye")

    options: dict[str, Any] = {"timestamps": timestamps}
    if tls is not None:
        options |= {"tls": tls, "ca_file": str(ca_file)}
    with serve(script, tls=tls is not None) as server:
        work = {"url": server.url(), "seeds": seeds, "orders": orders, "options": options}
        outcome = job({"kind": "disturbed", "per_mille": 333, **work})
    expected = {"messages": sizes, "end": "ConnectionClosed: 1000 (bye)"}
    assert outcome["results"] == [expected] * seeds
    counts = outcome["counts"]
    reading = "recv" if timestamps == "none" else "recvmsg"
    assert counts["connect"] > 0 and counts[reading] > seeds and counts["send"] > seeds
    assert counts["epoll_wait"] + counts["epoll_pwait2"] > 0


SOL_TCP, SOL_SOCKET, BIND = socket.IPPROTO_TCP, socket.SOL_SOCKET, -1
SO_BINDTODEVICE, SO_TIMESTAMPNS, SO_BUSY_POLL = 25, 35, 46
TCP_KEEPIDLE, TCP_QUICKACK, TCP_USER_TIMEOUT = 4, 12, 18

PRIVILEGE = "not permitted without a privilege"
UNSUPPORTED = "not supported on this system"
BAD_VALUE = "this system does not take the value"

#: The option; how the message begins; the kernel's level, option and errno; how the message ends.
REFUSED: list[tuple[dict[str, Any], str, int, int, str, str]] = [
    ({}, "peer_timeout=30", SOL_TCP, TCP_USER_TIMEOUT, "ENOPROTOOPT", UNSUPPORTED),
    ({"peer_timeout": 2.5}, "peer_timeout=2.5", SOL_TCP, TCP_KEEPIDLE, "EINVAL", BAD_VALUE),
    (
        {"receive_buffer_size": 4096},
        "receive_buffer_size=4096",
        SOL_SOCKET,
        socket.SO_RCVBUF,
        "ENOBUFS",
        "the kernel is out of memory",
    ),
    (
        {"send_buffer_size": 4096},
        "send_buffer_size=4096",
        SOL_SOCKET,
        socket.SO_SNDBUF,
        "EPERM",
        PRIVILEGE,
    ),
    (
        {"socket_busy_poll_us": 50},
        "socket_busy_poll_us=50",
        SOL_SOCKET,
        SO_BUSY_POLL,
        "EPERM",
        PRIVILEGE,
    ),
    ({"quick_ack": True}, "quick_ack=True", SOL_TCP, TCP_QUICKACK, "EOPNOTSUPP", UNSUPPORTED),
    (
        {"timestamps": "software"},
        "timestamps='software'",
        SOL_SOCKET,
        SO_TIMESTAMPNS,
        "EINVAL",
        BAD_VALUE,
    ),
    ({"interface": "lo"}, "interface='lo'", SOL_SOCKET, SO_BINDTODEVICE, "EPERM", PRIVILEGE),
    (
        {"interface": "lo"},
        "interface='lo'",
        SOL_SOCKET,
        SO_BINDTODEVICE,
        "EIO",
        f"{UNEXPECTED}: {os.strerror(errno.EIO)}",
    ),
    (
        {"local_address": "127.0.0.9"},
        "local_address='127.0.0.9'",
        BIND,
        0,
        "EADDRINUSE",
        "the local address is in use",
    ),
    ({"local_address": "127.0.0.9"}, "local_address='127.0.0.9'", BIND, 0, "EACCES", PRIVILEGE),
]


def test_a_socket_option_that_the_kernel_refuses_is_named(job: Job) -> None:
    """With its value, the reason, and the URL; nothing stays open."""
    cases = [(options, level, name, error) for options, _, level, name, error, _ in REFUSED]
    for case, outcome in zip(REFUSED, job({"kind": "refused", "cases": cases}), strict=True):
        _, begin, *_, reason = case
        message = f"{begin}: {reason} [ws://127.0.0.1:1/]"
        assert outcome == [message, "0 are open"]
