"""A program that keeps an order book can follow the simulated exchange for ever, and after gaps."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from exchange_wire import TIMEOUT, Client, events, get
from order_book_program import OrderBookProgram, sides

import hftws
from hftws import __main__ as command_line
from hftws.exchange import RunningExchange, launch
from hftws.exchange.market import Market
from hftws.exchange.order_book import OrderBook, book_histories
from hftws.exchange.recording import Encoding, Recording, TimeUnit
from hftws.exchange.replay import Playback
from hftws.exchange.schedule import FixedRate, RecordedSpeed

DEPTH = "btcusdt@depth@100ms"
NAMES = pytest.mark.parametrize("name", ["busiest", "sample"])


def laps(recording: Recording, count: int, unit: TimeUnit) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the stream and the event of each message, in so many laps."""
    streams = [message.stream for message in recording.messages] * count
    for stream, event in zip(streams, events(recording, unit), strict=False):
        yield stream, json.loads(event)


class TestLaps:
    """Each lap goes on where the last one ended."""

    @NAMES
    def test_ids_grow_without_a_gap(self, name: str) -> None:
        last: dict[str, int] = {}
        for stream, event in laps(Recording.load(name), 3, TimeUnit.MILLISECOND):
            if stream.endswith("bookTicker"):
                assert event["u"] > last.get(stream, 0)
                last[stream] = event["u"]
            else:
                first, final = (event["t"],) * 2 if "t" in event else (event["U"], event["u"])
                assert first == last.get(stream, first - 1) + 1
                last[stream] = final

    @NAMES
    @pytest.mark.parametrize("unit", TimeUnit)
    def test_times_do_not_go_back_between_laps(self, name: str, unit: TimeUnit) -> None:
        recording = Recording.load(name)
        times: dict[str, list[int]] = {}
        for stream, event in laps(recording, 3, unit):
            if "E" in event:
                times.setdefault(stream, []).append(event["E"])
        for of_stream in times.values():
            size = len(of_stream) // 3
            for lap in (1, 2):
                assert max(of_stream[: lap * size]) <= min(of_stream[lap * size :])

    def test_all_else_is_as_recorded(self) -> None:
        """But for the first change of a book, which also takes back what the lap has done."""
        recording = Recording.load("busiest")
        size = len(recording.messages)
        of_laps = list(laps(recording, 2, TimeUnit.MILLISECOND))
        differing = [
            stream
            for (stream, first), (_, second) in zip(of_laps[:size], of_laps[size:], strict=True)
            if {**first, **dict.fromkeys("UutET")} != {**second, **dict.fromkeys("UutET")}
        ]
        assert differing == [DEPTH]


class TestBooks:
    @NAMES
    def test_the_book_is_that_of_the_moment(self, name: str) -> None:
        """Before and after an update: the book that all updates of three laps have made.

        Looked at around the ends of laps, and here and there between.
        """
        recording = Recording.load(name)
        start_ns = recording.messages[0].time_ns
        for symbol in {stream.partition("@")[0] for stream in recording.streams}:
            market = Market(recording, FixedRate(1.0))
            program = OrderBookProgram("", symbol, None)
            book = self.book(market, symbol)
            program.bids, program.asks = sides(book.to_json(5000))
            program.last_id = book.last_update_id
            of_laps = laps(recording, 3, TimeUnit.MILLISECOND)
            size = len(recording.messages)
            for number, (stream, event) in enumerate(of_laps):
                if stream != f"{symbol}@depth@100ms":
                    continue
                if 40 < number % size < size - 40 and number % 13:
                    program.handle(event)
                    continue
                lap, index = divmod(number, len(recording.messages))
                offset_ns = recording.messages[index].time_ns - start_ns
                place_ns = lap * recording.lap_ns + offset_ns
                market.reach(place_ns, 0.0)
                assert self.book(market, symbol).last_update_id == event["U"] - 1
                market.reach(place_ns + 1, 0.0)
                program.handle(event)
                book = self.book(market, symbol)
                assert book.last_update_id == event["u"] == program.last_id
                assert sides(book.to_json(5000)) == (program.bids, program.asks)
            assert program.gaps == 0

    def book(self, market: Market, symbol: str) -> OrderBook:
        book = market.book(symbol.upper(), 0.0)
        assert book is not None
        return book

    @NAMES
    def test_bids_and_asks_are_sorted_and_not_crossed(self, name: str) -> None:
        recording = Recording.load(name)
        market = Market(recording, FixedRate(1.0))
        for step in range(30):
            market.reach(step * recording.lap_ns // 10, 0.0)
            for symbol in {stream.partition("@")[0] for stream in recording.streams}:
                book = self.book(market, symbol)
                bids = [float(price) for price, _ in book.bids]
                asks = [float(price) for price, _ in book.asks]
                assert bids == sorted(set(bids), reverse=True)
                assert asks == sorted(set(asks))
                assert bids[0] < asks[0]
                assert all(float(quantity) > 0 for _, quantity in book.bids + book.asks)

    def test_what_a_connection_gets_follows_the_book_of_its_start(self) -> None:
        """At any moment of two laps, nothing is between the two and nothing is in both."""
        recording = Recording.load("busiest")
        market = Market(recording, RecordedSpeed())
        first = Playback(market)
        first.select([DEPTH], Encoding(), now=0.0)
        for step in range(1, 80):
            now = step * 0.05
            playback = Playback(market)
            playback.select([DEPTH], Encoding(), now)
            book = market.book("BTCUSDT", now)
            assert book is not None
            assert playback.due_at is not None
            frame = playback.take(playback.due_at)[0]
            event = json.loads(frame[frame.index(b"{") :])
            assert event["U"] == book.last_update_id + 1

    def test_the_market_goes_on_while_nobody_listens(self) -> None:
        """A client that was away for a while finds a gap."""
        market = Market(Recording.load("busiest"), RecordedSpeed())
        assert market.place_ns(100.0) == 0
        market.join(100.0)
        assert market.place_ns(103.5) == 3_500_000_000

    def test_at_a_rate_the_market_is_where_the_furthest_connection_is(self) -> None:
        market = Market(Recording.load("busiest"), FixedRate(1000.0))
        fast, slow = Playback(market), Playback(market)
        for playback in (fast, slow):
            playback.select([DEPTH], Encoding(), now=0.0)
        assert len(slow.take(0.0015)) == 1
        assert len(fast.take(0.0305)) == 30
        place_ns = market.place_ns(50.0)
        assert place_ns > market.recording.lap_ns
        slow.take(0.0105)
        assert market.place_ns(50.0) == place_ns

    def test_drop_leaves_out_every_nth_depth_update(self) -> None:
        def received(drop: int) -> list[bytes]:
            market = Market(Recording.load("busiest"), FixedRate(1000.0))
            playback = Playback(market, drop=drop)
            playback.select([DEPTH, "btcusdt@trade"], Encoding(), now=0.0)
            due: list[bytes] = []
            while len(due) < 2000:
                due += playback.take(1e9)
            return due[:2000]

        def is_depth(frame: bytes) -> bool:
            return b"depthUpdate" in frame

        every, some = received(0), received(3)
        kept = [frame for frame in every if is_depth(frame)]
        del kept[2::3]
        assert [frame for frame in some if is_depth(frame)][: len(kept)] == kept
        trades = [frame for frame in every if not is_depth(frame)]
        assert [frame for frame in some if not is_depth(frame)][: len(trades)] == trades


@contextmanager
def following(
    exchange: RunningExchange, symbol: str = "btcusdt", others: str = ""
) -> Iterator[tuple[OrderBookProgram, Callable[[Callable[[], bool]], None]]]:
    """An order-book program at work, and what runs it until something holds."""
    program = OrderBookProgram(exchange.http_url, symbol, exchange.ca_file)
    streams = f"{symbol}@depth@100ms{others}"

    def on_msg(msg: hftws.Message) -> None:
        if b"depthUpdate" in bytes(msg.data):
            program.on_msg(msg)

    def run_until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not holds():
            assert time.monotonic() < deadline, vars(program)
            client.poll(1.0)
            program.synchronise()

    url = f"{exchange.url}/stream?streams={streams}"
    with hftws.Client(url, on_msg, ca_file=exchange.ca_file) as client:
        yield program, run_until


def check_book(program: OrderBookProgram, recording: str = "busiest") -> None:
    """Compare the program's book with what the recorded updates make of it, up to the same id."""
    recorded = Recording.load(recording)
    symbol = program.symbol
    history = book_histories(recorded)[symbol.upper()]
    start_ns = recorded.messages[0].time_ns
    assert program.last_id is not None
    for message in recorded.messages:
        if message.stream == f"{symbol}@depth@100ms":
            book = history.at(message.time_ns - start_ns + 1)
            if (program.last_id - book.last_update_id) % history.ids_per_lap == 0:
                assert (program.bids, program.asks) == sides(book.to_json(5000))
                return
    raise AssertionError(f"{program.last_id} is not the end of an update")


class TestOrderBookProgram:
    """The exchange is another process, and the program asks it only what Binance would answer."""

    @pytest.mark.parametrize("others", ["", "/btcusdt@trade/btcusdt@bookTicker"])
    def test_one_snapshot_is_enough_for_many_laps(self, others: str) -> None:
        with (
            launch(rate=10_000 if others else 400, ping_interval=0) as exchange,
            following(exchange, others=others) as (program, run_until),
        ):
            run_until(lambda: program.applied >= 70)  # Three laps of 21 updates, and more.
            assert (program.snapshots, program.stale_snapshots, program.gaps) == (1, 0, 0)
            check_book(program)

    @pytest.mark.parametrize("options", [{"rate": 300}, {"speed": 20.0, "seed": 3}])
    def test_it_is_right_again_after_each_gap(self, options: dict[str, float]) -> None:
        with (
            launch(**options, drop=10, ping_interval=0) as exchange,
            following(exchange) as (program, run_until),
        ):
            run_until(lambda: program.gaps >= 5 and program.last_id is not None)
            assert program.applied > 0
            assert program.stale_snapshots == 0
            assert program.snapshots == program.gaps + 1
            check_book(program)

    def test_a_second_program_joins_the_same_market(self) -> None:
        """Also after the first one has gone."""
        with launch(speed=20.0, ping_interval=0) as exchange:
            with following(exchange) as (first, run_first):
                run_first(lambda: first.applied >= 25)
                with following(exchange) as (second, run_second):
                    run_second(lambda: second.applied >= 5)
                    assert second.snapshots == 1
                    check_book(second)
                assert first.last_id is not None
                assert second.last_id is not None
                assert second.last_id > first.last_id
            with following(exchange) as (third, run_third):
                run_third(lambda: third.applied >= 5)
                assert third.snapshots == 1
                assert third.last_id is not None
                assert third.last_id > second.last_id
                check_book(third)

    def test_books_of_two_symbols(self) -> None:
        with (
            launch(recording="sample", rate=1000, ping_interval=0) as exchange,
            following(exchange, "ethusdt", "/btcusdt@depth@100ms") as (program, run_until),
        ):
            program.on_msg = only("ETHUSDT", program.on_msg)  # type: ignore[method-assign]
            run_until(lambda: program.applied >= 200)
            assert (program.snapshots, program.gaps) == (1, 0)
            check_book(program, "sample")

    def test_before_anybody_listens_there_is_the_first_book(self) -> None:
        with launch(rate=1000, ping_interval=0) as exchange:
            before = json.loads(get(exchange, "/api/v3/depth?symbol=BTCUSDT")[2])
            with Client(exchange, f"/ws/{DEPTH}") as connection:
                assert connection.receive_json()["U"] == before["lastUpdateId"] + 1


def only(symbol: str, on_msg: Callable[[hftws.Message], None]) -> Callable[[hftws.Message], None]:
    def filtered(msg: hftws.Message) -> None:
        if json.loads(bytes(msg.data))["data"]["s"] == symbol:
            on_msg(msg)

    return filtered


@pytest.mark.parametrize("drop", ["1", "-1", "x", "0.5"])
def test_a_drop_that_makes_no_sense_is_refused(
    drop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        command_line.main(["exchange", f"--drop={drop}"])
    assert exited.value.code == 2
    assert "--drop" in capsys.readouterr().err


def test_events_of_both_helpers_start_as_recorded() -> None:
    recording = Recording.load("busiest")
    first = [message.payload for message in recording.messages]
    assert list(itertools.islice(events(recording), len(first))) == first
