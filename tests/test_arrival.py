"""When a message arrived: `t_kernel`, and what a read's one stamp cannot tell.

Truth is what the sender notes, another process on this machine: CLOCK_REALTIME, as the stamps.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from frames import (
    SOON,
    Serve,
    connected,
    connected_by_record,
    fragmented,
    poll_until,
    text,
    wait_until_arrived,
)
from servers import PATIENCE, PING, TEXT, Peer, encode_frame

import hftws

#: Two clocks are compared, one of which the system may adjust meanwhile.
SLACK_NS = 5_000_000

#: Linux stamps TCP segments, and an emulator does not hand the stamps on (tests/arm).
KERNEL_STAMPS = sys.platform == "linux" and "HFTWS_TEST_EMULATED" not in os.environ
stamped_only = pytest.mark.skipif(not KERNEL_STAMPS, reason="the kernel gives no stamps")

#: Writes each part to the socket that is its standard output, a millisecond apart, and prints when.
SENDER = """
import json, os, sys, time
moments = []
for part in json.load(sys.stdin):
    moments.append(time.time_ns())
    os.write(1, bytes.fromhex(part))
    time.sleep(0.001)
print(json.dumps(moments), file=sys.stderr)
"""

COUNT = 100
BURSTY_STAGES = ("kernel", "total")

#: Where the messages come from: plain, or TLS whose records are opened in user space.
Kind = tuple[hftws.Client, Peer, Callable[[bytes], bytes]]


@dataclass(frozen=True)
class Arrival:
    """What a message tells of when it arrived."""

    kernel: int | None
    exact: bool
    earliest: int | None
    received: int | None


@dataclass
class Arrivals:
    """An ``on_msg`` that notes what every message tells, and keeps some of them."""

    keeps: bool = False
    seen: list[Arrival] = field(default_factory=list)
    kept: list[hftws.Message] = field(default_factory=list)

    def __call__(self, msg: hftws.Message) -> None:
        self.seen.append(arrival(msg))
        if self.keeps:
            self.kept.append(msg)


def arrival(msg: hftws.Message) -> Arrival:
    return Arrival(msg.t_kernel, msg.t_kernel_exact, msg.t_earliest, msg.t_received)


@contextlib.contextmanager
def connection(
    kind: str,
    serve: Serve,
    tls_context: ssl.SSLContext,
    ca_file: Path,
    on_msg: Any,
    **options: Any,
) -> Iterator[Kind]:
    """A connection that gets stamps already; the last part turns frames into what is sent."""
    if kind == "plain":
        with connected(serve, on_msg, **options) as (client, peer):
            warm_up(client, peer, on_msg)
            yield client, peer, lambda frames: frames
    else:
        with connected_by_record(serve, tls_context, ca_file, on_msg, tls=kind, **options) as (
            client,
            record_peer,
        ):
            warm_up(client, record_peer, on_msg)
            yield client, record_peer, record_peer.seal


def warm_up(client: hftws.Client, peer: Peer, arrivals: Arrivals) -> None:
    """Waits until the kernel stamps: it begins a moment after the first socket has asked for it."""
    deadline = time.monotonic() + SOON
    while True:
        assert time.monotonic() < deadline, "the kernel gives no stamps"
        arrivals.seen.clear()
        peer.send(text("warm up"))
        poll_until(client, lambda: bool(arrivals.seen))
        if arrivals.seen[0].kernel is not None or not KERNEL_STAMPS:
            break
    arrivals.seen.clear()
    arrivals.kept.clear()


def send_apart(peer: Peer, parts: Sequence[bytes]) -> list[int]:
    """Another process sends them, one by one; returns when."""
    sender = subprocess.run(
        [sys.executable, "-S", "-c", SENDER],
        input=json.dumps([part.hex() for part in parts]),
        stdout=peer.sock.fileno(),
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE * 30,
        check=True,
    )
    moments: list[int] = json.loads(sender.stderr)
    return moments


def together(client: hftws.Client, peer: Peer, data: bytes) -> None:
    """Sends it, and waits until all of it can be read at once."""
    peer.sock.sendall(data)
    wait_until_arrived(client, len(data))


def look(client: hftws.Client) -> tuple[int, int]:
    """The client finds its socket empty between these two moments."""
    before = time.time_ns()
    assert client.poll(0.0) == 0
    return before, time.time_ns()


kinds = pytest.mark.parametrize("kind", ["plain", "direct", "openssl"])


@kinds
@pytest.mark.parametrize("busy_poll", [False, True])
def test_age_of_what_waited_is_bounded_from_both_sides(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path, kind: str, busy_poll: bool
) -> None:
    """A read of messages that waited in the kernel has one stamp, that of the newest."""
    arrivals = Arrivals()
    options = {"busy_poll": busy_poll, "latency": True}
    with connection(kind, serve, tls_context, ca_file, arrivals, **options) as opened:
        client, peer, seal = opened
        before, after = look(client)
        latency = client.stats()["latency"]
        parts = [seal(text(f"{index}")) for index in range(COUNT)]
        sent = send_apart(peer, parts)
        wait_until_arrived(client, sum(map(len, parts)))
        assert client.poll(SOON) == COUNT
        stats = latency, client.stats()["latency"]
    for moment, seen in zip(sent, arrivals.seen, strict=True):
        assert seen.earliest is not None
        assert seen.received is not None
        assert before - SLACK_NS <= seen.earliest <= after + SLACK_NS
        assert moment - SLACK_NS <= seen.received
        if KERNEL_STAMPS:
            assert seen.kernel is not None
            assert moment - SLACK_NS <= seen.kernel <= seen.received
    last = arrivals.seen[-1]
    assert [seen.exact for seen in arrivals.seen] == [False] * (COUNT - 1) + [KERNEL_STAMPS]
    if KERNEL_STAMPS:  # What is wrong without the bound: the oldest seems as new as the newest.
        assert last.kernel is not None
        assert arrivals.seen[0].kernel == last.kernel >= sent[0] + 20_000_000
    for stage in BURSTY_STAGES if KERNEL_STAMPS else ("total",):
        counts = [found[stage]["count"] for found in stats]
        bounds = [found[stage]["lower_bounds"] for found in stats]
        exact = int(KERNEL_STAMPS)
        assert (counts[1] - counts[0], bounds[1] - bounds[0]) == (COUNT, COUNT - exact)
    for stage in ("decrypt", "deliver"):
        assert stats[1][stage]["lower_bounds"] == 0


@kinds
def test_message_on_its_own_is_exact(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path, kind: str
) -> None:
    """Also one that began in a read before, since it arrived when its end did."""
    arrivals = Arrivals()
    with connection(kind, serve, tls_context, ca_file, arrivals) as (client, peer, seal):
        for frames in (text("a"), fragmented(TEXT, [b"b", b"c"]), text("d" * 200)):
            data = seal(frames)
            together(client, peer, data[:2])
            assert client.poll(0.0) == 0
            between, after = look(client)
            together(client, peer, data[2:])
            assert client.poll(SOON) == 1
            seen = arrivals.seen.pop()
            assert seen.exact is KERNEL_STAMPS
            assert seen.earliest is not None
            assert between - SLACK_NS <= seen.earliest <= after + SLACK_NS
            if seen.kernel is not None:
                assert seen.kernel >= between - SLACK_NS


@stamped_only
@kinds
def test_only_what_ends_the_read_is_exact(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path, kind: str
) -> None:
    """Not what has the beginning of another message behind it, or a ping."""
    arrivals = Arrivals()
    with connection(kind, serve, tls_context, ca_file, arrivals) as (client, peer, seal):
        whole, begun = seal(text("a")) + seal(text("b")), seal(text("begun"))
        together(client, peer, whole + begun[:4])
        assert client.poll(SOON) == 2
        together(client, peer, begun[4:])
        assert client.poll(SOON) == 1
        together(client, peer, seal(text("c")) + seal(encode_frame(PING)))
        assert client.poll(SOON) == 1
        assert [seen.exact for seen in arrivals.seen] == [False, False, True, False]
        assert arrivals.seen[0].earliest == arrivals.seen[1].earliest


@stamped_only
@kinds
def test_messages_of_one_record_are_complete_together(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path, kind: str
) -> None:
    """None of them can be read before the whole record has arrived."""
    arrivals = Arrivals()
    with connection(kind, serve, tls_context, ca_file, arrivals) as (client, peer, seal):
        together(client, peer, seal(text("a") * 3) + seal(text("b") * 2))
        assert client.poll(SOON) == 5
    expected = [False] * 4 + [True] if kind == "plain" else [False] * 3 + [True] * 2
    assert [seen.exact for seen in arrivals.seen] == expected


@stamped_only
@kinds
def test_full_reads_carry_the_bound_on(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path, kind: str
) -> None:
    """A read that filled its room leaves more, which may be as old as what it took."""
    arrivals = Arrivals()
    options = {"receive_buffer_size": 400_000}
    with connection(kind, serve, tls_context, ca_file, arrivals, **options) as opened:
        client, peer, seal = opened
        before, after = look(client)
        reads = client.stats()["reads"]
        parts = [seal(text("x" * 9000)) for _ in range(16)]
        send_apart(peer, parts)  # So the reads are later than the empty socket by milliseconds.
        wait_until_arrived(client, sum(map(len, parts)))
        poll_until(client, lambda: len(arrivals.seen) == 16)
        assert client.stats()["reads"] > reads + 1
        for seen in arrivals.seen:
            assert seen.earliest is not None
            assert before - SLACK_NS <= seen.earliest <= after + SLACK_NS
        assert [seen.exact for seen in arrivals.seen] == [False] * 15 + [True]

        together(client, peer, seal(text("y")))
        assert client.poll(SOON) == 1
        assert arrivals.seen[-1].earliest is not None
        assert arrivals.seen[-1].earliest > after + SLACK_NS


@stamped_only
def test_exactly_full_read_is_not_taken_for_the_last(serve: Serve) -> None:
    """Whether more waits is not known then."""
    arrivals = Arrivals()
    with connected(serve, arrivals) as (client, peer):
        warm_up(client, peer, arrivals)
        together(client, peer, text("x" * (65536 - 4)))  # As much as a read takes at most.
        assert client.poll(SOON) == 1
    assert [seen.exact for seen in arrivals.seen] == [False]


@kinds
def test_kept_message_remembers_it(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path, kind: str
) -> None:
    arrivals = Arrivals(keeps=True)
    with connection(kind, serve, tls_context, ca_file, arrivals) as (client, peer, seal):
        for _ in range(3):
            together(client, peer, seal(text("a")) + seal(text("b")))
            assert client.poll(SOON) == 2
        assert [arrival(msg) for msg in arrivals.kept] == arrivals.seen
    assert [seen.exact for seen in arrivals.seen] == [False, KERNEL_STAMPS] * 3
    assert [arrival(msg) for msg in arrivals.kept] == arrivals.seen


def test_compressed_messages_are_told_apart_as_others(serve: Serve) -> None:
    """They lie in another ring than what came from the socket."""
    arrivals = Arrivals()
    extensions = "permessage-deflate; server_no_context_takeover"
    options = {"compression": "deflate", "extensions": extensions}
    with connected(serve, arrivals, **options) as (client, peer):
        warm_up(client, peer, arrivals)
        hello = encode_frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=4)  # RFC 7692, 7.2.3.1.
        together(client, peer, hello * 2)
        assert client.poll(SOON) == 2
    assert [seen.exact for seen in arrivals.seen] == [False, KERNEL_STAMPS]


def test_a_callback_that_raises_changes_nothing_for_the_rest(serve: Serve) -> None:
    """What it left is delivered by the next call, from the same read."""
    arrivals = Arrivals()

    def on_msg(msg: hftws.Message) -> None:
        arrivals(msg)
        raise LookupError

    with connected(serve, arrivals) as (client, peer):
        warm_up(client, peer, arrivals)  # It starts the kernel's stamps, for all sockets.
        with connected(serve, on_msg) as (raising, raising_peer):
            together(raising, raising_peer, text("x") * 3)
            for _ in range(3):
                with pytest.raises(LookupError):
                    raising.poll(SOON)
    assert [seen.exact for seen in arrivals.seen] == [False, False, KERNEL_STAMPS]
    assert len({seen.earliest for seen in arrivals.seen}) == 1


def test_first_read_is_bounded_by_the_beginning_of_the_connection(serve: Serve) -> None:
    arrivals = Arrivals()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(peer.upgrade_response() + text("a") + text("b"))
        peer.answer_close()

    with serve(script) as server:
        client = server.client(arrivals)
        before = time.time_ns()
        with client:
            poll_until(client, lambda: len(arrivals.seen) == 2)
    for seen in arrivals.seen:
        assert seen.earliest is not None
        assert seen.received is not None
        assert before - SLACK_NS <= seen.earliest <= seen.received


def test_another_thread_may_not_ask_while_the_message_is_lent(serve: Serve) -> None:
    """It would look at rings that this thread is changing."""
    answers: list[object] = []

    def ask(msg: hftws.Message) -> None:
        try:
            answers.append(msg.t_kernel_exact)
        except RuntimeError as error:
            answers.append(error)

    def on_msg(msg: hftws.Message) -> None:
        thread = threading.Thread(target=ask, args=(msg,))
        thread.start()
        thread.join()

    with connected(serve, on_msg) as (client, peer):
        peer.send(text("x"))
        assert client.poll(SOON) == 1
    assert [type(answer) for answer in answers] == [RuntimeError]


def test_without_timestamps_nothing_is_known(serve_both: Serve) -> None:
    arrivals = Arrivals(keeps=True)
    with connected(serve_both, arrivals, timestamps="none") as (client, peer):
        peer.send(text("x"))
        assert client.poll(SOON) == 1
    nothing = Arrival(kernel=None, exact=False, earliest=None, received=None)
    assert arrivals.seen == [nothing] == [arrival(msg) for msg in arrivals.kept]


# ---- Waiting, apart from decrypting. -----------------------------------------------------------

#: What a callback takes at least: longer than a record takes to open, on any machine.
SLOW_NS = 3_000_000


def slow(_: hftws.Message) -> None:
    until = time.perf_counter_ns() + SLOW_NS
    while time.perf_counter_ns() < until:
        pass


def stages_of_a_burst(client: hftws.Client, peer: Peer, data: bytes) -> dict[str, Any]:
    """The histograms of ten messages that were read together, and no others."""
    together(client, peer, data)
    assert client.poll(SOON) == 10
    stats = client.stats()
    assert stats["messages"] == 10
    latency: dict[str, Any] = stats["latency"]
    assert {histogram["count"] for name, histogram in latency.items() if name != "kernel"} == {10}
    return latency


@pytest.mark.parametrize("engine", ["direct", "openssl"])
def test_a_slow_callback_makes_others_wait_and_not_decrypt(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path, engine: str
) -> None:
    """The records of a read are opened one by one, each when the message before is delivered."""
    with connected_by_record(serve, tls_context, ca_file, slow, tls=engine, latency=True) as (
        client,
        peer,
    ):
        records = b"".join(peer.seal(text(str(index))) for index in range(10))
        latency = stages_of_a_burst(client, peer, records)
    wait, decrypt, deliver = (latency[stage] for stage in ("wait", "decrypt", "deliver"))
    assert wait["max"] >= 9 * SLOW_NS
    assert wait["mean"] >= 4.5 * SLOW_NS
    # Not all of them: the CPU may be taken away in any stage.
    assert decrypt["p50"] < SLOW_NS
    assert deliver["p50"] < SLOW_NS
    means = [latency[stage]["mean"] for stage in ("kernel", "wait", "decrypt", "deliver")]
    assert latency["total"]["mean"] == pytest.approx(sum(means), abs=1000)


def test_messages_of_one_record_have_its_turn(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path
) -> None:
    """They were decrypted together: what the later ones wait for is being delivered."""
    with connected_by_record(serve, tls_context, ca_file, slow, latency=True) as (client, peer):
        latency = stages_of_a_burst(client, peer, peer.seal(text("x") * 10))
    assert latency["wait"]["min"] == latency["wait"]["max"]
    assert latency["decrypt"]["min"] == latency["decrypt"]["max"]
    assert latency["deliver"]["max"] >= 9 * SLOW_NS


def test_plain_messages_have_no_turn(serve: Serve) -> None:
    """Nothing has to be opened; and a turn of the connection before does not count."""
    with connected(serve, slow, latency=True) as (client, peer):
        latency = stages_of_a_burst(client, peer, text("x") * 10)
    assert latency["wait"]["max"] == latency["decrypt"]["max"] == 0
    assert latency["deliver"]["max"] >= 9 * SLOW_NS
