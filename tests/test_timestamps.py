"""When a message passed its stages, and what the client has counted."""

from __future__ import annotations

import itertools
import os
import platform
import select
import ssl
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from frames import (
    SOON,
    Inbox,
    Serve,
    binary,
    connected,
    connected_by_record,
    fragmented,
    poll_until,
    receive,
    text,
)
from servers import BINARY, CONTINUATION, PING, PONG, TEXT, Peer, encode_frame

import hftws

#: The wall clock may be adjusted a little between two readings.
SLACK_NS = 50_000_000

#: Linux stamps TCP segments, and an emulator does not hand the stamps on (tests/arm).
KERNEL_STAMPS = sys.platform == "linux" and "HFTWS_TEST_EMULATED" not in os.environ
STAGES = ("kernel", "wait", "decrypt", "deliver", "total")


@dataclass
class Times:
    """An ``on_msg`` that notes the times of every message, and when it was called."""

    seen: list[tuple[Any, ...]] = field(default_factory=list)

    def __call__(self, msg: hftws.Message) -> None:
        called = time.time_ns()
        times = (msg.t_kernel, msg.t_received, msg.t_decrypted, msg.t_delivered)
        self.seen.append((*times, called, msg.cycles))


def warm_up(client: hftws.Client, peer: Peer, times: Times) -> None:
    """Waits until the kernel stamps: it begins a moment after the first socket has asked for it."""
    deadline = time.monotonic() + SOON
    while True:
        assert time.monotonic() < deadline, "the kernel gives no stamps"
        times.seen.clear()
        peer.send_text("warm up")
        poll_until(client, lambda: bool(times.seen))
        if times.seen[0][0] is not None or not KERNEL_STAMPS:
            break
    times.seen.clear()


@pytest.mark.parametrize("busy_poll", [False, True])
def test_stages_are_in_order_and_on_the_wall_clock(serve_both: Serve, busy_poll: bool) -> None:
    times = Times()
    with connected(serve_both, times, busy_poll=busy_poll) as (client, peer):
        warm_up(client, peer, times)
        sent: list[int] = []
        for index in range(200):
            sent += [time.time_ns()] * (index % 3 + 1)
            peer.send(text("x") * (index % 3 + 1))
            count = len(sent)
            poll_until(client, lambda count=count: len(times.seen) == count)
    for begun, (kernel, received, decrypted, delivered, called, _) in zip(
        sent, times.seen, strict=True
    ):
        if KERNEL_STAMPS:
            assert kernel is not None
        chain = [received, decrypted, delivered]
        if kernel is not None:
            chain.insert(0, kernel)
        assert all(isinstance(moment, int) for moment in chain)
        assert chain == sorted(chain)
        assert begun - SLACK_NS <= chain[0]
        assert delivered <= called + SLACK_NS


def test_cycles_are_monotonic_and_agree_with_the_times(serve_both: Serve) -> None:
    times = Times()
    with connected(serve_both, times) as (client, peer):
        warm_up(client, peer, times)
        for _ in range(100):
            peer.send(text("x") + text("y"))
            count = len(times.seen) + 2
            poll_until(client, lambda count=count: len(times.seen) == count)
        cycles_per_ns = client.info()["cycles_per_ns"]
        rate_source = client.info()["cycles_per_ns_source"]
    assert cycles_per_ns > 0.01
    # Arm tells the frequency of its counter, in a register; the clock checks it.
    assert rate_source == ("register" if platform.machine() == "aarch64" else "measured")
    flat = [moment for *_, cycles in times.seen for moment in cycles]
    for received, decrypted, delivered in (cycles for *_, cycles in times.seen):
        assert 0 < received <= decrypted <= delivered
    delivered_cycles = [cycles[2] for *_, cycles in times.seen]
    assert delivered_cycles == sorted(delivered_cycles)
    assert len(flat) == 600
    for _, received, decrypted, delivered, _, cycles in times.seen:
        for moment, counter in ((decrypted, cycles[1]), (delivered, cycles[2])):
            expected_ns = (counter - cycles[0]) / cycles_per_ns
            assert abs((moment - received) - expected_ns) <= 2 + expected_ns * 0.01


def test_messages_of_one_read_share_its_times(serve_both: Serve) -> None:
    times = Times()
    with connected(serve_both, times) as (client, peer):
        warm_up(client, peer, times)
        peer.send(text("x") * 5)
        assert client.poll(SOON) == 5
    assert (
        len({(kernel, received, decrypted) for kernel, received, decrypted, *_ in times.seen}) == 1
    )
    delivered = [seen[3] for seen in times.seen]
    assert delivered == sorted(set(delivered))


def test_each_record_has_its_own_time_of_decryption(
    serve: Serve, tls_context: ssl.SSLContext, ca_file: Path
) -> None:
    """The second record of a read is opened when the first message has been delivered."""
    times = Times()
    with connected_by_record(serve, tls_context, ca_file, times) as (client, peer):
        warm_up(client, peer, times)
        peer.sock.sendall(b"".join(peer.seal(text(str(index))) for index in range(5)))
        assert client.poll(SOON) == 5
    assert len({(kernel, received) for kernel, received, *_ in times.seen}) == 1
    for (*_, before), (*_, after) in itertools.pairwise(times.seen):
        # From the open record to the callback may be less than a tick of a slow counter.
        assert before[0] == after[0] < before[1] <= before[2] < after[1] <= after[2]


def test_plain_messages_are_decrypted_when_received(serve: Serve) -> None:
    times = Times()
    with connected(serve, times) as (client, peer):
        peer.send(text("x"))
        assert client.poll(SOON) == 1
    ((_, received, decrypted, _, _, cycles),) = times.seen
    assert received == decrypted
    assert cycles[0] == cycles[1]


def test_kernel_stamp_is_of_the_arrival_not_of_the_read(serve_both: Serve) -> None:
    times = Times()
    with connected(serve_both, times) as (client, peer):
        warm_up(client, peer, times)
        begun = time.time_ns()
        peer.send(text("x"))
        assert select.select([client], [], [], SOON)[0] == [client]  # It has arrived.
        time.sleep(0.03)  # It stays in the socket for this long.
        assert client.poll(SOON) == 1
    ((kernel, received, *_),) = times.seen
    if kernel is not None:
        assert begun - SLACK_NS <= kernel <= received - 25_000_000
        assert KERNEL_STAMPS


def test_delivery_is_stamped_per_message(serve_both: Serve) -> None:
    """A slow callback shows in the times of the messages behind it."""
    delivered: list[int] = []

    def on_msg(msg: hftws.Message) -> None:
        assert msg.t_delivered is not None
        delivered.append(msg.t_delivered)
        time.sleep(0.01)

    with connected(serve_both, on_msg) as (client, peer):
        peer.send(text("x") * 3)
        assert client.poll(SOON) == 3
    assert all(after - before >= 9_000_000 for before, after in itertools.pairwise(delivered))


def test_without_timestamps_there_are_none(serve_both: Serve) -> None:
    times = Times()
    with connected(serve_both, times, timestamps="none", latency=True) as (client, peer):
        peer.send(text("x") + text("y"))
        assert client.poll(SOON) == 2
        assert client.info()["kernel_stamp_source"] == "none"
        latency = client.stats()["latency"]
    assert [seen[:4] + seen[5:] for seen in times.seen] == [(None,) * 5] * 2
    assert [latency[stage]["count"] for stage in STAGES] == [0] * len(STAGES)


def test_source_of_the_kernel_stamps_is_named(serve_both: Serve) -> None:
    times = Times()
    with connected(serve_both, times) as (client, peer):
        warm_up(client, peer, times)
        expected = "software" if KERNEL_STAMPS else "none"
        peer.send_text("x")
        assert client.poll(SOON) == 1
        assert client.info()["kernel_stamp_source"] == expected
        assert client.poll(0.0) == 0  # A read that finds nothing has no stamp.
        assert client.info()["kernel_stamp_source"] == expected


def test_times_are_right_after_a_long_silence(serve_both: Serve) -> None:
    """The counter's rate is measured over and over: no drift against the wall clock."""
    times = Times()
    sent: list[int] = []
    with connected(serve_both, times) as (client, peer):
        warm_up(client, peer, times)
        for _ in range(3):
            client.poll(0.11)
            sent.append(time.time_ns())
            peer.send_text("x")
            assert client.poll(SOON) == 1
    for begun, (*_, delivered, called, _) in zip(sent, times.seen, strict=True):
        assert begun - SLACK_NS <= delivered <= called + SLACK_NS


# ---- Histograms. -------------------------------------------------------------------------------


def test_histograms_count_every_message(serve_both: Serve) -> None:
    times = Times()
    with connected(serve_both, times, latency=True) as (client, peer):
        before = client.stats()["latency"]
        assert {stage: before[stage]["count"] for stage in STAGES} == dict.fromkeys(STAGES, 0)
        assert all(value == 0 for stage in STAGES for value in before[stage].values())
        for index in range(50):
            peer.send(text("x") * (index % 4 + 1))
            count = len(times.seen) + index % 4 + 1
            poll_until(client, lambda count=count: len(times.seen) == count)
        latency = client.stats()["latency"]
        assert set(latency) == set(STAGES)
    stamped = sum(1 for kernel, *_ in times.seen if kernel is not None)
    for stage, values in latency.items():
        count = stamped if stage == "kernel" else len(times.seen)
        assert values["count"] == count
        names = ("min", "p50", "p90", "p99", "p99_9", "max")
        if count:
            assert [values[name] for name in names] == sorted(values[name] for name in names)
            assert values["min"] <= values["mean"] <= values["max"]
    # The same messages: total is the sum of the times of the messages themselves.
    totals = [
        delivered - (received if kernel is None else kernel)
        for kernel, received, _, delivered, *_ in times.seen
    ]
    assert abs(latency["total"]["max"] - max(totals)) <= max(totals) * 0.05 + 1000
    assert abs(latency["total"]["min"] - min(totals)) <= min(totals) * 0.05 + 1000
    mean = sum(totals) / len(totals)
    assert abs(latency["total"]["mean"] - mean) <= mean * 0.05 + 1000


def test_without_latency_there_are_no_histograms(serve_both: Serve) -> None:
    with connected(serve_both) as (client, _):
        assert client.stats()["latency"] is None


def test_histograms_count_what_a_callback_got_although_it_raised(serve_both: Serve) -> None:
    def on_msg(msg: hftws.Message) -> None:
        raise LookupError

    with connected(serve_both, on_msg, latency=True) as (client, peer):
        peer.send(text("x") * 3)
        for _ in range(3):
            with pytest.raises(LookupError):
                client.poll(SOON)
        assert client.stats()["latency"]["total"]["count"] == 3


# ---- Counters. ---------------------------------------------------------------------------------

ZERO = {
    "messages": 0,
    "bytes": 0,
    "messages_inflated": 0,
    "bytes_before_inflation": 0,
    "messages_dropped": 0,
    "records": 0,
    "pings": 0,
    "pongs": 0,
    "messages_sent": 0,
    "bytes_sent": 0,
    "messages_deflated": 0,
    "bytes_after_deflation": 0,
    "pings_sent": 0,
}


def counters(client: hftws.Client) -> dict[str, int]:
    """All of them except the reads, whose number depends on the kernel."""
    stats = client.stats()
    assert stats.pop("latency") is None
    assert stats.pop("reads") >= 0
    return stats


def test_counters_are_zero_before_the_first_connection() -> None:
    client = hftws.Client("ws://127.0.0.1:9/")
    assert counters(client) == ZERO
    assert client.stats()["reads"] == 0


def test_counters_of_a_scripted_exchange_are_exact(serve_both: Serve) -> None:
    inbox = Inbox()
    with connected(serve_both, inbox) as (client, peer):
        tls = peer.server.scheme == "wss"
        expected = {**ZERO, "records": counters(client)["records"]}
        assert expected["records"] == (1 if tls else 0)  # The response to the upgrade.
        assert counters(client) == expected

        peer.send(
            text("12345") + binary(b"") + fragmented(TEXT, [b"ab", b"cd"], encode_frame(PING))
        )
        receive(client, inbox, 3)
        peer.send(encode_frame(PONG, b"unasked"))
        poll_until(client, lambda: counters(client)["pongs"] == 1)
        client.send("four")
        client.send(b"")
        with client.reserve(10, text=False):
            pass
        client.ping(b"not a message")
        for opcode in (PONG, TEXT, BINARY, BINARY, PING):
            peer.expect_frame(opcode)
        expected |= {"messages": 3, "bytes": 9, "pings": 1, "pongs": 1}
        expected |= {"messages_sent": 3, "bytes_sent": 14, "pings_sent": 1}
        expected["records"] += 2 if tls else 0
        assert counters(client) == expected

        with pytest.raises(TypeError):
            client.send(None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="125"):
            client.ping(bytes(126))
        with pytest.raises(LookupError), client.reserve(10, text=False):
            raise LookupError
        reads = client.stats()["reads"]
        peer.send(encode_frame(TEXT, b"incomplete", fin=False))
        poll_until(client, lambda: client.stats()["reads"] > reads)
        expected["records"] += 1 if tls else 0
        assert counters(client) == expected


def test_reads_are_counted_when_they_gave_something(serve: Serve) -> None:
    with connected(serve) as (client, peer):
        before = client.stats()["reads"]
        assert before >= 1
        for index in range(10):
            peer.send_text("x")
            assert client.poll(SOON) == 1
            assert client.poll(0.0) == 0
            assert client.stats()["reads"] == before + index + 1


def test_counters_go_on_over_connections(serve_both: Serve) -> None:
    """Counters belong to the client, not to one connection."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.expect_frame(TEXT, b"hello")
        peer.send(text("abc") + encode_frame(PING))
        peer.expect_frame(PONG)
        peer.close_handshake()

    with serve_both(script) as server:
        client = server.client(on_open=lambda client: client.send("hello"))
        for connection in range(1, 4):
            client.connect()
            client.run()
            stats = client.stats()
            assert stats["messages"] == connection
            assert stats["bytes"] == 3 * connection
            assert stats["pings"] == connection
            assert stats["messages_sent"] == connection


def test_messages_after_close_are_counted_as_dropped(serve_both: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.expect_frame(TEXT, b"go")
        peer.send(text("dropped") + encode_frame(TEXT, b"and", fin=False))
        peer.send(encode_frame(CONTINUATION, b"this") + encode_frame(PING, b"unanswered"))
        sent.set()
        peer.answer_close()

    inbox = Inbox()
    sent = threading.Event()
    with serve_both(script) as server:
        client = server.client(inbox)
        client.connect()
        client.send("go")
        assert sent.wait(SOON)
        client.close()
        stats = client.stats()
    assert inbox.messages == []
    assert (stats["messages"], stats["bytes"], stats["messages_dropped"]) == (0, 0, 2)
    assert stats["pings"] == 1
