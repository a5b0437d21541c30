"""A soak: recorded data many times faster, over a network that fails, for as long as you like.

    python tests/soak --seconds 600 --speed 20 --seed 1

One subscription for each way to connect: ws:// and wss:// with both TLS engines, without and with
compression. Each connects again after every fault, and goes on at the message that it wants next. A
message that is lost, repeated, reordered or changed ends the soak; so does a connection that says
nothing for long. In the end the descriptors have to be as many as before, and the memory must not
have grown. Exits with 1 when anything was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # For `fault_proxy`, here and in feed.py.

from sequence import Checker, Messages, WrongMessageError, order, recorded

import hftws

KIB, MIB = 1024, 1024 * 1024

#: Rings for messages of this size: small ones, so that a leak beside them is easier to see.
OPTIONS = {"ring_size": 512 * KIB, "send_ring_size": 256 * KIB, "max_message_size": 256 * KIB}

#: More growth than this, from 10 % of the time to the end, is a leak.
RSS_DRIFT_MAX = 8 * MIB

#: Seconds without a message: stalls are much shorter.
SILENCE_MAX = 15.0

MESSAGES_PER_ORDER = 20


@dataclass(frozen=True)
class Variant:
    """One way to connect."""

    scheme: str
    tls: str = "auto"
    compression: str | None = None

    @property
    def name(self) -> str:
        engine = "" if self.scheme == "ws" else f" {self.tls}"
        return f"{self.scheme}{engine}{' deflate' if self.compression else ''}"

    def options(self, ca_file: str) -> dict[str, Any]:
        options: dict[str, Any] = {**OPTIONS, "tls": self.tls, "ca_file": ca_file}
        if self.compression:
            options["compression"] = self.compression
        return options


def variants() -> list[Variant]:
    ways = [("ws", "auto"), ("wss", "direct"), ("wss", "openssl")]
    return [Variant(*way, compression) for compression in (None, "deflate") for way in ways]


class Subscription(threading.Thread):
    """Receives the messages of one variant, in its own thread, over all its connections."""

    def __init__(self, variant: Variant, feed: dict[str, Any], messages: Messages, seed: int):
        super().__init__(daemon=True)
        self.variant = variant
        self.url = f"{variant.scheme}://127.0.0.1:{feed[variant.scheme]}/"
        self.options = variant.options(feed["ca_file"])
        self.checker = Checker(messages)
        self.random = random.Random(f"{seed} {variant.name}")
        self.stopping = False
        self.connections = 0
        self.orders = 0
        self.orders_sent = 0
        #: How connections ended.
        self.ends: Counter[str] = Counter()
        self.last_message = time.monotonic()
        self.client: hftws.Client | None = None
        #: What ends the soak.
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stopping:
                self.use(self.new_client())
        except BaseException as error:
            self.error = error

    def new_client(self) -> hftws.Client:
        return hftws.Client(
            self.url,
            self.on_msg,
            on_open=self.on_open,
            connect_timeout=5.0,
            close_timeout=0.5,
            **self.options,
        )

    def use(self, client: hftws.Client) -> None:
        """A client for some connections, one after the other."""
        for _ in range(self.random.randrange(1, 8)):
            try:
                client.connect()
                self.follow(client)
            except hftws.ConnectionClosed as error:
                self.ends[f"ConnectionClosed {error.code}"] += 1
            except hftws.Error as error:
                self.ends[type(error).__name__] += 1
            finally:
                client.close()
            if self.stopping:
                return

    def follow(self, client: hftws.Client) -> None:
        until = self.random.choice((0.5, 2.0, 20.0)) + time.monotonic()
        while not self.stopping and time.monotonic() < until:
            client.poll(0.1)
            if time.monotonic() - self.last_message > SILENCE_MAX:
                raise WrongMessageError(f"silence after message {self.checker.next - 1}")
        self.ends["closed by us"] += 1

    def on_open(self, client: hftws.Client) -> None:
        self.connections += 1
        self.orders = 0
        self.client = client
        self.last_message = time.monotonic()
        client.send(f"resume {self.checker.next}")

    def on_msg(self, message: hftws.Message) -> None:
        self.checker.check(bytes(message.data))
        self.last_message = time.monotonic()
        if self.checker.next % MESSAGES_PER_ORDER == 0:
            # If the socket is broken, the next read says so.
            assert self.client is not None
            with contextlib.suppress(hftws.ConnectionClosed):
                self.client.send(order(self.orders))
                self.orders += 1
                self.orders_sent += 1


# ---- What the process takes. -------------------------------------------------------------------


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def resident() -> int | None:
    """Bytes of memory; None on a system that has no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


class Memory:
    """Samples over time. Clients come and go, so that one sample says little: medians do."""

    def __init__(self) -> None:
        self.samples: list[int] = []

    def sample(self) -> None:
        if (size := resident()) is not None:
            self.samples.append(size)

    def around(self, first: float, last: float) -> int:
        count = len(self.samples)
        return round(statistics.median(self.samples[int(first * count) : round(last * count)]))


# ---- The run. ----------------------------------------------------------------------------------


@contextlib.contextmanager
def running_feed(speed: float, seed: int) -> Iterator[subprocess.Popen[str]]:
    """Starts feed.py, which imports hftws and `fault_proxy` from where we do."""
    command = [sys.executable, str(Path(__file__).with_name("feed.py"))]
    command += ["--speed", str(speed), "--seed", str(seed)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"the feed has died: exit code {process.wait()}")
    result: dict[str, Any] = json.loads(line)
    return result


def watch(subscriptions: list[Subscription], memory: Memory, seconds: float) -> None:
    """Waits until the time is over or something is wrong; prints progress every 10 s."""
    began = time.monotonic()
    line_due = began + 10
    while time.monotonic() < began + seconds:
        time.sleep(min(0.5, seconds / 40))
        memory.sample()
        if any(subscription.error for subscription in subscriptions):
            return
        if time.monotonic() >= line_due:
            line_due += 10
            messages = sum(subscription.checker.next for subscription in subscriptions)
            connections = sum(subscription.connections for subscription in subscriptions)
            size = f", {memory.samples[-1] / MIB:.1f} MiB" if memory.samples else ""
            elapsed = time.monotonic() - began
            print(f"{elapsed:5.0f} s: {messages} messages, {connections} connections{size}")


def print_subscriptions(subscriptions: list[Subscription], seconds: float) -> None:
    columns = "{:22} {:>10} {:>10} {:>9} {:>12} {:>8} {:>6}"
    titles = ("variant", "messages", "per s", "MB", "connections", "orders", "lost")
    print(columns.format(*titles))
    for subscription in subscriptions:
        checker = subscription.checker
        wrong = isinstance(subscription.error, WrongMessageError)
        print(
            columns.format(
                subscription.variant.name,
                checker.next,
                round(checker.next / seconds),
                f"{checker.bytes / 1e6:.1f}",
                subscription.connections,
                subscription.orders_sent,
                "yes" if wrong else 0,
            )
        )


def print_counts(title: str, counts: dict[str, int]) -> None:
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    print(f"{title}: {listed or 'none'}")


def judge(
    subscriptions: list[Subscription], result: dict[str, Any], memory: Memory, leaked: int
) -> list[str]:
    """What was wrong."""
    problems = [
        f"{subscription.variant.name}: {subscription.error!r}"
        for subscription in subscriptions
        if subscription.error is not None
    ]
    idle = [each.variant.name for each in subscriptions if each.checker.next == 0]
    problems += [f"{name}: no message at all" for name in idle]
    problems += [f"upstream: {error}" for error in result["errors"]]
    if leaked:
        problems.append(f"{leaked} descriptors more than at the start")
    if len(memory.samples) >= 20:
        early, late = memory.around(0.05, 0.15), memory.around(0.9, 1.0)
        drift = late - early
        print(
            f"RSS: {early / MIB:.1f} MiB at 10 %, {late / MIB:.1f} MiB at the end, "
            f"drift {drift / MIB:+.1f} MiB (at most {RSS_DRIFT_MAX / MIB:.0f})"
        )
        if drift > RSS_DRIFT_MAX:
            problems.append(f"memory has grown by {drift / MIB:.1f} MiB")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--speed", type=float, default=20.0, help="times that of the recording")
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    messages, memory = recorded(), Memory()
    with running_feed(arguments.speed, arguments.seed) as process:
        feed = read_line(process)
        descriptors_before = open_descriptors()
        subscriptions = [
            Subscription(variant, feed, messages, arguments.seed) for variant in variants()
        ]
        for subscription in subscriptions:
            subscription.start()
        watch(subscriptions, memory, arguments.seconds)
        for subscription in subscriptions:
            subscription.stopping = True
        for subscription in subscriptions:
            subscription.join(20)
        stuck = sum(subscription.is_alive() for subscription in subscriptions)
        for subscription in subscriptions:
            subscription.client = None
        gc.collect()
        descriptors_after = open_descriptors()
        assert process.stdin is not None
        process.stdin.close()
        result = read_line(process)

    print_subscriptions(subscriptions, arguments.seconds)
    ends = sum((subscription.ends for subscription in subscriptions), Counter())
    print_counts("faults", {**result["faults"], "ordinary ends": result["counts"]["ordinary ends"]})
    print_counts("how connections ended", ends)
    print_counts("the feed", result["counts"])
    print(f"descriptors: {descriptors_before} at the start, {descriptors_after} at the end")
    leaked = descriptors_after - descriptors_before
    problems = judge(subscriptions, result, memory, leaked)
    if stuck:
        problems.append(f"{stuck} subscriptions did not stop")
    for problem in problems:
        print(f"WRONG: {problem}")
    print(f"seed {arguments.seed}: {'FAILED' if problems else 'nothing lost'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
