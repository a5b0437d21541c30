"""`hftws.Loop`: many clients in one thread, and a client's own descriptor in other event loops.

The servers are in another process (feeds.py), so that Python's lock orders nothing between them and
the loop.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import select
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from feeds import Feeds
from frames import SMALL, SOON

import hftws


@pytest.fixture(scope="module")
def feeds(ca: Any, ca_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Feeds]:
    file = tmp_path_factory.mktemp("feeds") / "server.pem"
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(file)
    with Feeds(str(file), str(ca_file)) as found:
        yield found


@pytest.fixture(params=["ws", "wss"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Log:
    """What the callbacks of one client were told, in order."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def options(self) -> dict[str, Any]:
        return {
            "on_msg": lambda msg: self.events.append(bytes(msg).decode()),
            "on_open": lambda _: self.events.append("open"),
            "on_close": lambda _, code, reason: self.events.append((code, reason)),
            "on_error": lambda _, error: self.events.append(type(error).__name__),
        }


def make(feeds: Feeds, path: str, scheme: str = "ws", **options: Any) -> hftws.Client:
    merged = {**SMALL, **feeds.options(scheme), **options}
    return hftws.Client(feeds.url(path, scheme), **merged)


def run_until(loop: hftws.Loop, done: Callable[[], object]) -> None:
    """Runs the loop until it has come to that."""
    deadline = time.monotonic() + SOON
    while not done():
        assert time.monotonic() < deadline, "it did not come to that in time"
        loop.run_once(0.01)


# ---- Running. ----------------------------------------------------------------------------------

ENDINGS = {
    "close": [(1000, "bye")],
    "kick": [(4001, "kicked"), "ConnectionClosed"],
    "fin": [(1006, "the peer closed the TCP connection without a close frame"), "ConnectionClosed"],
    "reset": [(1006, "the peer reset the TCP connection"), "ConnectionClosed"],
}


def test_clients_with_every_kind_of_end_tell_it_themselves(feeds: Feeds) -> None:
    """One that fails does not disturb the others, and run() returns when nothing is left."""
    logs = {name: Log() for name in ENDINGS}
    loop = hftws.Loop()
    for name, log in logs.items():
        loop.add(make(feeds, f"/open/messages/3/hear/end/{name}", **log.options()))
        assert log.events == []
    refused, unheard = Log(), Log()
    loop.add(make(feeds, "/refuse", **refused.options()))
    loop.add(hftws.Client("ws://127.0.0.1:1/", **unheard.options()))
    assert len(loop) == len(loop.clients) == 6
    run_until(loop, lambda: all("2" in log.events for log in logs.values()))
    for client in loop.clients[:4]:
        client.send("go on")
    loop.run()
    for name, expected in ENDINGS.items():
        assert logs[name].events == ["open", "0", "1", "2", *expected]
    assert refused.events == ["HandshakeError"]
    assert unheard.events == ["ConnectError"]
    loop.close()


def test_a_client_connects_again_from_its_on_close(feeds: Feeds, scheme: str) -> None:
    opened: list[int] = []

    def on_close(client: hftws.Client, _code: int, _reason: str) -> None:
        if len(opened) < 5:
            client.connect()  # Returns at once: the loop does the rest.

    client = make(
        feeds,
        "/open/messages/1/end/close",
        scheme,
        on_open=lambda _: opened.append(1),
        on_close=on_close,
    )
    loop = hftws.Loop()
    loop.add(client)
    loop.run()
    assert len(opened) == 5
    assert client.stats()["messages"] == 5


def test_a_flood_does_not_starve_a_quiet_feed(feeds: Feeds) -> None:
    received: list[bytes] = []
    flooded = [make(feeds, "/open/flood", on_msg=lambda msg: None) for _ in range(3)]
    quiet = make(feeds, "/open/echo", on_msg=lambda msg: received.append(bytes(msg)))
    with hftws.Loop() as loop:
        for client in (*flooded, quiet):
            loop.add(client)
        run_until(loop, lambda: all(client.is_open for client in loop.clients))
        for index in range(20):
            quiet.send(f"{index}")
            before = sum(client.stats()["messages"] for client in flooded)
            run_until(loop, lambda index=index: len(received) > index)  # type: ignore[misc]
            assert sum(client.stats()["messages"] for client in flooded) > before
        for client in flooded:
            loop.remove(client)
    assert received == [b"%d" % index for index in range(20)]


def test_three_hundred_clients_in_one_thread(feeds: Feeds) -> None:
    """All get what is theirs, in order."""
    count = 300
    logs = [Log() for _ in range(count)]
    loop = hftws.Loop()
    for log in logs:
        loop.add(make(feeds, "/open/messages/5/echo", **log.options()))
    run_until(loop, lambda: all("4" in log.events for log in logs))
    for index, client in enumerate(loop.clients):
        client.send(f"to {index}")
    run_until(loop, lambda: all(len(log.events) == 7 for log in logs))
    for index, log in enumerate(logs):
        assert log.events == ["open", "0", "1", "2", "3", "4", f"to {index}"]
    loop.close()
    assert len(loop) == 0
    assert all(log.events[-1] == (1000, "") for log in logs)


def test_busy_polling_clients_and_sleeping_ones(feeds: Feeds, scheme: str) -> None:
    logs = [Log() for _ in range(4)]
    with hftws.Loop() as loop:
        for index, log in enumerate(logs):
            options = {"busy_poll": index % 2 == 0, **log.options()}
            loop.add(make(feeds, "/open/echo", scheme, **options))
        run_until(loop, lambda: all(client.is_open for client in loop.clients))
        for number in range(10):
            for client in loop.clients:
                client.send(f"{number}")
            run_until(loop, lambda: all(log.events[-1] == f"{number}" for log in logs))  # noqa: B023
    assert all(log.events[1:11] == [f"{n}" for n in range(10)] for log in logs)


def test_what_a_callback_raises_comes_out_and_nothing_is_lost(feeds: Feeds) -> None:
    seen: list[bytes] = []

    def on_msg(msg: hftws.Message) -> None:
        seen.append(bytes(msg))
        raise LookupError(bytes(msg).decode())

    other = Log()
    loop = hftws.Loop()
    loop.add(make(feeds, "/open/messages/3/end/close", on_msg=on_msg))
    loop.add(make(feeds, "/open/messages/3/end/close", **other.options()))
    raised = []
    while True:
        try:
            loop.run()
            break
        except LookupError as error:
            raised.append(error.args[0])
    assert raised == ["0", "1", "2"]
    assert seen == [b"0", b"1", b"2"]
    assert other.events == ["open", "0", "1", "2", (1000, "bye")]


def test_without_on_error_a_failure_is_not_lost(
    feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_value))
    loop = hftws.Loop()
    loop.add(make(feeds, "/refuse"))
    loop.run()
    assert [type(error) for error in told] == [hftws.HandshakeError]


def test_kept_messages_that_fill_the_ring_are_told_once(feeds: Feeds) -> None:
    """The client rests meanwhile, and goes on when there is room again."""
    kept: list[hftws.Message] = []
    errors: list[str] = []
    other = Log()
    client = make(
        feeds,
        "/open/flood",
        on_msg=kept.append,
        on_error=lambda _, error: errors.append(type(error).__name__),
    )
    with hftws.Loop() as loop:
        loop.add(client)
        loop.add(make(feeds, "/open/messages/3/echo", **other.options()))
        run_until(loop, lambda: errors and len(other.events) == 4)
        for _ in range(5):
            loop.run_once(0.01)
        assert errors == ["BufferError"]
        count = client.stats()["messages"]
        kept.clear()
        run_until(loop, lambda: client.stats()["messages"] > count)
        kept.clear()
        loop.remove(client)


def test_the_logger_tells_of_connections_in_a_loop(
    feeds: Feeds, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hftws")
    loop = hftws.Loop()
    loop.add(make(feeds, "/open/end/close"))
    loop.add(make(feeds, "/refuse", on_error=lambda *_: None))
    loop.run()
    texts = [record.getMessage() for record in caplog.records if record.name == "hftws"]
    for words in (("open",), ("1000", "bye"), ("403",)):
        assert any(all(word in text for word in words) for text in texts), texts


# ---- Adding and removing. ----------------------------------------------------------------------


def test_what_cannot_be_added_or_removed(feeds: Feeds) -> None:
    loop, other = hftws.Loop(), hftws.Loop()
    client = make(feeds, "/open/echo")
    with pytest.raises(TypeError, match=r"add\(\) takes a hftws.Client, not str"):
        loop.add("ws://127.0.0.1/")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"remove\(\): the client is not in this loop"):
        loop.remove(client)
    loop.add(client)
    with pytest.raises(ValueError, match="in this loop already"):
        loop.add(client)
    with pytest.raises(ValueError, match="in another loop"):
        other.add(client)
    for call in (client.run, client.poll, client.wait_for_room):
        with pytest.raises(RuntimeError, match="in a loop"):
            call()
    for look in (client.fileno, client.stop, lambda: client.call_soon_threadsafe(print)):
        with pytest.raises(RuntimeError, match="of the loop"):
            look()
    loop.close()
    with pytest.raises(RuntimeError, match="the loop is closed"):
        loop.add(client)
    with pytest.raises(RuntimeError, match="the loop is closed"):
        loop.run()
    loop.close()


def test_a_running_client_cannot_be_added(feeds: Feeds) -> None:
    loop = hftws.Loop()

    def on_msg(_: hftws.Message) -> None:
        with pytest.raises(RuntimeError, match="the client is running"):
            loop.add(client)

    client = make(feeds, "/open/messages/1/end/close", on_msg=on_msg)
    client.connect()
    client.run()
    assert len(loop) == 0


def test_an_open_connection_moves_into_a_loop_and_out_again(feeds: Feeds, scheme: str) -> None:
    log = Log()
    client = make(feeds, "/open/echo", scheme, **log.options())
    loop = hftws.Loop()
    with client:
        for number in range(3):
            client.send(f"alone {number}")
            while log.events[-1] != f"alone {number}":
                client.poll(SOON)
            loop.add(client)
            client.send(f"in the loop {number}")
            run_until(loop, lambda: log.events[-1] == f"in the loop {number}")  # noqa: B023
            loop.remove(client)
    assert log.events[0] == "open"
    assert log.events[-1] == (1000, "")


def test_a_client_may_be_removed_by_any_callback(feeds: Feeds) -> None:
    """By its own: it gets no further message in the loop."""
    seen: list[bytes] = []

    def on_msg(msg: hftws.Message) -> None:
        seen.append(bytes(msg))
        if len(seen) == 2:
            loop.remove(client)
            loop.remove(other)

    client = make(feeds, "/open/messages/5/answer_close", on_msg=on_msg)
    other = make(feeds, "/open/idle")
    loop = hftws.Loop()
    loop.add(other)
    run_until(loop, lambda: other.is_open)
    loop.add(client)
    run_until(loop, lambda: len(seen) == 2)
    assert len(loop) == 0
    for _ in range(3):
        assert loop.run_once(0.01) == 0
    assert len(seen) == 2
    while len(seen) < 5:
        client.poll(SOON)
    client.close()
    other.close()


def test_a_loop_and_its_clients_are_freed(feeds: Feeds) -> None:
    holder: list[hftws.Loop] = [hftws.Loop()]  # The callback refers to the loop, too.
    client = make(feeds, "/open/end/close", on_msg=lambda _: holder)
    holder[0].add(client)
    holder[0].run()
    gone = [weakref.ref(client), weakref.ref(holder[0])]
    holder = []
    del client
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


# ---- Timers, and other threads. ----------------------------------------------------------------


def test_timers_are_called_in_their_order(feeds: Feeds) -> None:
    called: list[str] = []
    with hftws.Loop() as loop:
        loop.call_later(0.03, called.append, "third")
        loop.call_at(loop.time() + 0.02, called.append, "second")
        loop.call_later(0, called.append, "first")
        cancelled = loop.call_later(0.01, called.append, "never")
        cancelled.cancel()
        assert cancelled.cancelled()
        began = time.monotonic()
        loop.run()
        assert time.monotonic() - began >= 0.03
    assert called == ["first", "second", "third"]


def test_a_timer_that_raises_does_not_stop_the_others(feeds: Feeds) -> None:
    called: list[str] = []
    loop = hftws.Loop()
    loop.call_later(0, lambda: 1 / 0)
    loop.call_later(0, called.append, "second")
    with pytest.raises(ZeroDivisionError):
        loop.run()
    loop.run()
    assert called == ["second"]
    with pytest.raises(TypeError, match="callable"):
        loop.call_later(1, "soon")  # type: ignore[arg-type]


@pytest.mark.parametrize("busy_poll", [False, True])
def test_stop_from_another_thread(feeds: Feeds, busy_poll: bool) -> None:
    client = make(feeds, "/open/idle", busy_poll=busy_poll)
    with hftws.Loop() as loop:
        loop.add(client)
        run_until(loop, lambda: client.is_open)
        for _ in range(20):
            thread = threading.Thread(target=loop.stop)
            thread.start()
            loop.run()
            thread.join()
        loop.stop()  # Before the call.
        loop.run()
        assert client.is_open


@pytest.mark.parametrize("busy_poll", [False, True])
def test_a_client_alone_can_be_stopped_and_told_to_send(feeds: Feeds, busy_poll: bool) -> None:
    received: list[bytes] = []

    def on_msg(msg: hftws.Message) -> None:
        received.append(bytes(msg))
        client.stop()

    with make(feeds, "/open/echo", on_msg=on_msg, busy_poll=busy_poll) as client:
        for number in range(20):
            text = f"{number}"
            thread = threading.Thread(target=client.call_soon_threadsafe, args=(client.send, text))
            thread.start()
            client.run()
            thread.join()
    assert received == [b"%d" % number for number in range(20)]


def test_what_is_called_before_the_first_connect_is_not_lost(feeds: Feeds) -> None:
    called: list[int] = []
    client = make(feeds, "/open/echo")
    client.call_soon_threadsafe(called.append, 1)
    with client:
        client.poll()
        assert called == [1]


def test_a_loop_that_closes_ends_what_its_callbacks_begin(feeds: Feeds) -> None:
    """A client that connects again for ever."""
    client = make(feeds, "/open/idle", on_close=lambda client, _code, _reason: client.connect())
    with hftws.Loop() as loop:
        loop.add(client)
        run_until(loop, lambda: client.is_open)
    assert not client.is_open
    assert len(loop) == 0


def test_a_signal_handler_may_stop_a_loop(feeds: Feeds) -> None:
    with hftws.Loop() as loop:
        loop.add(make(feeds, "/open/idle"))
        old = signal.signal(signal.SIGALRM, lambda *_: loop.stop())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            loop.run()
        finally:
            signal.signal(signal.SIGALRM, old)


def test_calls_of_four_threads_all_arrive(feeds: Feeds) -> None:
    received: list[bytes] = []
    client = make(feeds, "/open/echo", on_msg=lambda msg: received.append(bytes(msg)))

    def call(number: int) -> None:
        for index in range(100):
            loop.call_soon_threadsafe(client.send, f"{number} {index}")

    with hftws.Loop() as loop:
        loop.add(client)
        run_until(loop, lambda: client.is_open)
        threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        run_until(loop, lambda: len(received) == 400)
        for thread in threads:
            thread.join()
    for number in range(4):
        mine = [text for text in received if text.startswith(b"%d " % number)]
        assert mine == [f"{number} {index}".encode() for index in range(100)]


def test_a_call_that_raises_does_not_keep_the_others(feeds: Feeds) -> None:
    called: list[int] = []
    loop = hftws.Loop()
    loop.call_soon_threadsafe(lambda: 1 / 0)
    loop.call_soon_threadsafe(called.append, 1)
    with pytest.raises(ZeroDivisionError):
        loop.run_once(SOON)
    loop.run_once(0)
    assert called == [1]


def test_a_second_thread_is_told(feeds: Feeds) -> None:
    """While the loop runs, a call of it or of one of its clients raises, and disturbs nothing."""
    told: list[str] = []
    client = make(feeds, "/open/echo")

    def intrude() -> None:
        for call in (loop.run, lambda: loop.add(client), lambda: client.send("x"), client.close):
            try:
                call()
            except RuntimeError as error:
                told.append(str(error))
        loop.stop()

    with hftws.Loop() as loop:
        loop.add(client)
        run_until(loop, lambda: client.is_open)
        thread = threading.Thread(target=intrude)
        loop.call_later(0, thread.start)
        loop.run()
        thread.join()
        assert told == ["another thread is using this client"] * 4
        assert client.is_open


def test_a_loop_cannot_be_run_or_closed_from_a_callback(feeds: Feeds) -> None:
    told: list[str] = []

    def on_msg(_: hftws.Message) -> None:
        for call in (loop.run, loop.run_once, loop.close):
            with pytest.raises(RuntimeError, match="from a callback") as caught:
                call()
            told.append(str(caught.value))

    loop = hftws.Loop()
    loop.add(make(feeds, "/open/messages/1/end/close", on_msg=on_msg))
    loop.run()
    assert len(told) == 3


# ---- In other event loops: the end is always told. ---------------------------------------------


class AsyncioDriver:
    """asyncio's add_reader, with the client's own poll()."""

    def __call__(self, client: hftws.Client) -> BaseException | None:
        return asyncio.run(self._main(client))

    async def _main(self, client: hftws.Client) -> BaseException | None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException] = loop.create_future()

        def on_readable() -> None:
            try:
                client.poll()
            except hftws.Error as error:
                loop.remove_reader(client.fileno())
                ended.set_result(error)

        client.connect()
        loop.add_reader(client.fileno(), on_readable)
        return await asyncio.wait_for(ended, SOON)


def by_selectors(client: hftws.Client) -> BaseException | None:
    client.connect()
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ)
        while selector.select(SOON):
            try:
                client.poll()
            except hftws.Error as error:
                return error
    return None


def by_select(client: hftws.Client) -> BaseException | None:
    client.connect()
    while select.select([client], [], [], SOON)[0]:
        try:
            client.poll()
        except hftws.Error as error:
            return error
    return None


def by_loop(client: hftws.Client) -> BaseException | None:
    """A loop's descriptor, waited for from outside."""
    ends: list[BaseException] = []
    loop = hftws.Loop()
    loop.add(client)
    while select.select([loop], [], [], SOON)[0]:
        loop.run_once()
        if client.close_code is not None:
            ends.append(hftws.ConnectionClosed(client.close_code, client.close_reason or ""))
            break
    loop.remove(client)
    return ends[0] if ends else None


DRIVERS: dict[str, Callable[[hftws.Client], BaseException | None]] = {
    "asyncio": AsyncioDriver(),
    "selectors": by_selectors,
    "select": by_select,
    "loop": by_loop,
}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("end", ["close", "kick", "keep", "fin", "reset", "garbage"])
def test_every_end_is_told_in_every_event_loop(
    feeds: Feeds, scheme: str, end: str, driver: str
) -> None:
    """With nothing but "readable: poll()". Twenty times: it is a race of two processes."""
    codes = {"close": 1000, "kick": 4001, "keep": 1000, "garbage": 1002}
    for round_number in range(20):
        seen: list[bytes] = []
        path = f"/open/messages/{round_number % 3}/end/{end}"
        client = make(
            feeds,
            path,
            scheme,
            on_msg=lambda msg, seen=seen: seen.append(bytes(msg)),  # type: ignore[misc]
            on_error=lambda *_: None,
            close_timeout=0.02,
        )
        error = DRIVERS[driver](client)
        assert isinstance(error, hftws.Error), f"round {round_number}: no end was told"
        assert client.close_code == codes.get(end, 1006)
        if end != "reset":  # A reset may overtake what was sent before.
            assert len(seen) == round_number % 3
        client.close()


def test_the_descriptor_is_the_same_for_life(feeds: Feeds, scheme: str) -> None:
    """Also in a loop of others that never unregisters it."""
    seen: list[bytes] = []
    client = make(
        feeds,
        "/open/messages/2/end/close",
        scheme,
        on_msg=lambda msg: seen.append(bytes(msg)),
    )
    descriptor = client.fileno()
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    assert poller.poll(0) == []
    for _ in range(5):
        client.connect()
        with pytest.raises(hftws.ConnectionClosed):
            while poller.poll(SOON * 1000):
                client.poll()
        assert poller.poll(0) == []
        assert client.fileno() == descriptor
    assert seen == [b"0", b"1"] * 5


def test_a_client_that_waits_for_nothing_is_not_readable(feeds: Feeds, scheme: str) -> None:
    """A descriptor that is readable without a reason makes another loop spin."""
    with make(feeds, "/open/echo", scheme) as client:
        while select.select([client], [], [], 0.05)[0]:  # Session tickets of TLS 1.3.
            client.poll()
        client.send("x")
        assert select.select([client], [], [], SOON)[0] == [client]
        assert client.poll() == 1
        assert select.select([client], [], [], 0)[0] == []
        client.call_soon_threadsafe(client.send, "y")
        assert select.select([client], [], [], SOON)[0] == [client]
        assert client.poll(SOON) == 1
        assert select.select([client], [], [], 0)[0] == []


def test_what_waits_to_be_sent_makes_the_descriptor_readable(feeds: Feeds) -> None:
    """When the socket has room again: a loop needs to wait for nothing but readability."""
    data = bytes(64 * 1024)
    with make(feeds, "/open/echo", send_buffer_size=4096, send_ring_size=8 << 20) as client:
        sent = 0
        while not client.wants_write:
            client.send(data)
            sent += len(data)
        received = 0
        while received < sent:
            assert select.select([client], [], [], SOON)[0] == [client]
            before = client.stats()["bytes"]
            client.poll()
            received += client.stats()["bytes"] - before
        assert not client.wants_write


# ---- The example. ------------------------------------------------------------------------------


def test_the_example_runs_and_ends_by_a_signal(feeds: Feeds) -> None:
    """It reconnects to a feed that ends, counts another one, and closes at SIGTERM."""
    program = Path(__file__).parents[1] / "examples" / "many_feeds.py"
    urls = [feeds.url("/open/messages/3/echo"), feeds.url("/open/messages/1/end/close")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, str(program), *urls],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            steady, ending = map(int, line.split())
            if steady == 3 and ending >= 2:
                break
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=SOON)
    assert (process.returncode, errors) == (0, "")
