"""The simulated exchange, as a client sees it: over TLS, with certificates verified."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from exchange_wire import (
    TIMEOUT,
    Client,
    FrameClient,
    events,
    frames,
    get,
    open_socket,
    trust,
)
from servers import PATIENCE
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode

import hftws.exchange
from hftws import __main__ as command_line
from hftws.exchange import ExchangeError, RunningExchange, launch
from hftws.exchange.connection import InboundLimit
from hftws.exchange.frames import ping_frame, text_frame
from hftws.exchange.market import Market
from hftws.exchange.recording import ENCODINGS, Encoding, Recording, TimeUnit, with_time_unit
from hftws.exchange.replay import BATCH_MAX, Playback
from hftws.exchange.schedule import FixedRate, RecordedSpeed
from hftws.exchange.subscriptions import Subscriptions

ALL_BTC = ("btcusdt@trade", "btcusdt@bookTicker", "btcusdt@depth@100ms")


@pytest.fixture(scope="module")
def busiest() -> Recording:
    return Recording.load("busiest")


@pytest.fixture(scope="module")
def sample() -> Recording:
    return Recording.load("sample")


def close_frame(client: FrameClient) -> tuple[int, str]:
    """Read on until the server's close frame, and return its code and reason."""
    data = next(frame.data for frame in client.frames() if frame.opcode is Opcode.CLOSE)
    return int.from_bytes(data[:2], "big"), bytes(data[2:]).decode()


class TestRecording:
    def test_holds_what_its_readme_says(self, busiest: Recording, sample: Recording) -> None:
        assert len(busiest.messages) == 1920
        assert busiest.streams == set(ALL_BTC)
        assert len(sample.messages) == 900
        assert sample.streams == {*ALL_BTC, *(name.replace("btc", "eth") for name in ALL_BTC)}

    def test_is_in_order_of_time(self, sample: Recording) -> None:
        times = [message.time_ns for message in sample.messages]
        assert times == sorted(times)
        assert sample.lap_ns > times[-1] - times[0]

    @pytest.mark.parametrize(
        ("unit", "expected"),
        [
            (TimeUnit.MILLISECOND, b'{"E":1723161472512,"T":1723161255342,"t":17231614725129}'),
            (
                TimeUnit.MICROSECOND,
                b'{"E":1723161472512000,"T":1723161255342896,"t":17231614725129}',
            ),
        ],
    )
    def test_converts_time_fields_only(self, unit: TimeUnit, expected: bytes) -> None:
        event = b'{"E":1723161472512,"T":1723161255342896,"t":17231614725129}'
        assert with_time_unit(event, unit) == expected

    @pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
    def test_frames_are_those_of_the_websockets_package(self, size: int) -> None:
        assert text_frame(b"x" * size) == Frame(Opcode.TEXT, b"x" * size).serialize(mask=False)
        assert ping_frame(b"123") == Frame(Opcode.PING, b"123").serialize(mask=False)


class TestPlayback:
    """When messages are due, in made-up time."""

    def due_times(self, playback: Playback, count: int) -> list[float]:
        times: list[float] = []
        while len(times) < count:
            due_at = playback.due_at
            assert due_at is not None
            times += [due_at] * len(playback.take(due_at))
        return times[:count]

    @pytest.mark.parametrize("factor", [1.0, 10.0])
    def test_keeps_the_recorded_spacing_lap_after_lap(
        self, busiest: Recording, factor: float
    ) -> None:
        playback = Playback(Market(busiest, RecordedSpeed(factor)))
        playback.select(ALL_BTC, Encoding(), now=100.0)
        count = len(busiest.messages)
        start_ns = busiest.messages[0].time_ns
        expected = [
            100.0 + (lap * busiest.lap_ns + message.time_ns - start_ns) / factor / 1e9
            for lap in range(2)
            for message in busiest.messages
        ]
        assert self.due_times(playback, 2 * count) == pytest.approx(expected, abs=1e-5)

    def test_fixed_rate(self, busiest: Recording) -> None:
        playback = Playback(Market(busiest, FixedRate(1000.0)))
        playback.select(["btcusdt@trade"], Encoding(), now=5.0)
        expected = [5.0 + 0.001 * (number + 1) for number in range(3000)]
        assert self.due_times(playback, 3000) == pytest.approx(expected)

    def test_nothing_is_sent_early_and_a_backlog_in_batches(self, busiest: Recording) -> None:
        playback = Playback(Market(busiest, FixedRate(1000.0)))
        playback.select(ALL_BTC, Encoding(), now=0.0)
        assert playback.take(0.0009) == []
        batches = [playback.take(0.1005) for _ in range(3)]
        assert [len(batch) for batch in batches] == [BATCH_MAX, 100 - BATCH_MAX, 0]
        assert list(itertools.chain(*batches)) == [
            message.frames[Encoding()] for message in busiest.messages[:100]
        ]

    def test_waits_for_a_stream_that_was_recorded(self, busiest: Recording) -> None:
        playback = Playback(Market(busiest, RecordedSpeed()))
        playback.select([], Encoding(), now=0.0)
        assert playback.due_at is None
        playback.select(["xrpusdt@trade"], Encoding(), now=1.0)
        assert playback.due_at is None
        assert playback.take(1e9) == []

    def test_the_recording_starts_with_the_first_stream(self, busiest: Recording) -> None:
        playback = Playback(Market(busiest, RecordedSpeed()))
        playback.select([], Encoding(), now=0.0)
        playback.select(ALL_BTC, Encoding(), now=7.0)
        assert playback.due_at == 7.0

    def test_a_later_stream_joins_at_the_present(self, busiest: Recording) -> None:
        """A new selection repeats no message, and delivers none from before it was made."""
        playback = Playback(Market(busiest, RecordedSpeed()))
        playback.select(["btcusdt@depth@100ms"], Encoding(), now=0.0)
        assert len(playback.take(0.0)) == 1
        playback.select(ALL_BTC, Encoding(), now=0.040)
        start_ns = busiest.messages[0].time_ns
        expected = [
            message.frames[Encoding()]
            for message in busiest.messages
            if 40_000_000 < message.time_ns - start_ns <= 60_000_000
        ]
        assert playback.take(0.060) == expected

    def test_a_selection_loses_nothing_that_was_due(self, busiest: Recording) -> None:
        playback = Playback(Market(busiest, RecordedSpeed()))
        playback.select(ALL_BTC, Encoding(), now=0.0)
        received = playback.take(1.0)
        playback.select([*ALL_BTC, "xrpusdt@trade"], Encoding(), now=1.0)
        while due := playback.take(1.0):
            received += due
        start_ns = busiest.messages[0].time_ns
        assert received == [
            message.frames[Encoding()]
            for message in busiest.messages
            if message.time_ns - start_ns <= 1_000_000_000
        ]


class TestControlMessages:
    """Requests and their exact replies."""

    METHODS = "`SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"

    @pytest.mark.parametrize(
        ("message", "reply"),
        [
            (
                '{"method":"SUBSCRIBE","params":["bnbusdt@trade"],"id":1}',
                '{"result":null,"id":1}',
            ),
            (
                '{"method":"UNSUBSCRIBE","params":["ethusdt@trade"],"id":312}',
                '{"result":null,"id":312}',
            ),
            (
                '{"method":"LIST_SUBSCRIPTIONS","id":3}',
                '{"result":["btcusdt@trade"],"id":3}',
            ),
            ('{"method":"GET_PROPERTY","params":["combined"],"id":2}', '{"result":false,"id":2}'),
            (
                '{"method":"SET_PROPERTY","params":["combined",true],"id":5}',
                '{"result":null,"id":5}',
            ),
            (b'{"method":"LIST_SUBSCRIPTIONS","id":3}', '{"result":["btcusdt@trade"],"id":3}'),
        ],
    )
    def test_success(self, message: str | bytes, reply: str) -> None:
        assert Subscriptions(["btcusdt@trade"]).handle(message) == reply

    @pytest.mark.parametrize(
        "request_id",
        [0, -(1 << 63), (1 << 63) - 1, "abc", "6f0d4c5e-8f6b-4c0a-9d5a-0a1b2c3d4e5f", None],
    )
    def test_id_may_be_an_integer_a_string_or_null(self, request_id: object) -> None:
        message = json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": request_id})
        assert json.loads(Subscriptions().handle(message)) == {"result": [], "id": request_id}

    @pytest.mark.parametrize(
        "fields",
        [{}, {"id": 1.5}, {"id": True}, {"id": 1 << 63}, {"id": "a" * 37}, {"id": ""}, {"id": []}],
    )
    def test_bad_id(self, fields: dict[str, object]) -> None:
        message = json.dumps({"method": "LIST_SUBSCRIPTIONS", **fields})
        assert json.loads(Subscriptions().handle(message)) == {
            "code": 2,
            "msg": "Invalid request: request ID must be an unsigned integer",
        }

    @pytest.mark.parametrize(
        ("fields", "code", "reason"),
        [
            (
                {"method": "SUBSCRIBE", "params": ["not asdfads"]},
                2,
                "Invalid request: invalid stream",
            ),
            ({"method": "SUBSCRIBE", "params": [7]}, 2, "Invalid request: invalid stream"),
            ({"method": "SUBSCRIBE", "params": "x"}, 2, "Invalid request: params must be an array"),
            ({"method": "SUBSCRIBE"}, 2, "Invalid request: missing field `params`"),
            (
                {"method": "LIST_SUBSCRIPTIONS", "params": ["x"]},
                2,
                "Invalid request: too many parameters",
            ),
            (
                {"method": "GET_PROPERTY", "params": [1]},
                2,
                "Invalid request: property name must be a string",
            ),
            ({"method": "GET_PROPERTY"}, 2, "Invalid request: property name must be a string"),
            ({"method": "GET_PROPERTY", "params": ["x"]}, 0, "Unknown property"),
            (
                {"method": "GET_PROPERTY", "params": ["combined", True]},
                2,
                "Invalid request: too many parameters",
            ),
            (
                {"method": "SET_PROPERTY", "params": ["combined", 1]},
                1,
                "Invalid value type: expected Boolean",
            ),
            (
                {"method": "SET_PROPERTY", "params": ["combined"]},
                1,
                "Invalid value type: expected Boolean",
            ),
            (
                {"method": "SUBSCRIB"},
                2,
                f"Invalid request: unknown variant `SUBSCRIB`, expected one of {METHODS}"
                " at line 1 column 30",
            ),
            ({}, 2, "Invalid request: missing field `method` at line 1 column 9"),
        ],
    )
    def test_refused(self, fields: dict[str, object], code: int, reason: str) -> None:
        message = json.dumps({"id": 9, **fields})
        reply = json.loads(Subscriptions(["btcusdt@trade"]).handle(message))
        assert reply == {"error": {"code": code, "msg": reason}, "id": 9}

    @pytest.mark.parametrize(
        ("message", "place"),
        [
            ("x", "line 1 column 1"),
            ('{\n"method":}', "line 2 column 10"),
            ('{"id":NaN}', "line 1 column 1"),
            (b"\xff", "line 1 column 1"),
            ("[" * 100_000, "line 1 column"),
        ],
    )
    def test_not_json(self, message: str | bytes, place: str) -> None:
        reply = json.loads(Subscriptions().handle(message))
        assert reply["code"] == 3
        assert reply["msg"].startswith(f"Invalid JSON: expected value at {place}")

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
    def test_a_binary_request_is_utf_8(self, encoding: str) -> None:
        """Python's json would take all of these, RFC 8259 does not."""
        message = '{"method":"LIST_SUBSCRIPTIONS","id":1}'.encode(encoding)
        assert json.loads(Subscriptions().handle(message))["code"] == 3

    def test_a_surrogate_is_not_utf_8(self) -> None:
        message = b'{"method":"\xed\xa0\x80","id":1}'
        assert json.loads(Subscriptions().handle(message))["code"] == 3

    @pytest.mark.parametrize("message", ["[]", "7", "null"])
    def test_not_an_object(self, message: str) -> None:
        assert json.loads(Subscriptions().handle(message))["code"] == 2

    @pytest.mark.parametrize(
        "stream",
        [
            "btcusdt@trade",
            "btcusdt@aggTrade",
            "btcusdt@kline_1m",
            "btcusdt@kline_1M@+08:00",
            "btcusdt@depth",
            "btcusdt@depth@1000ms",
            "btcusdt@depth20@100ms",
            "btcusdt@ticker_4h",
            "!miniTicker@arr",
            "!ticker_1d@arr",
            "BTCUSDT@trade",
        ],
    )
    def test_well_formed_stream(self, stream: str) -> None:
        assert Subscriptions([stream]).streams == [stream]

    @pytest.mark.parametrize(
        "stream",
        ["", "btcusdt", "btcusdt@", "@trade", "btcusdt@trades", "btcusdt@depth7", "a b@trade",
         "btcusdt@trade\n", "btcusdt@kline_7m", "!trade@arr"],
    )  # fmt: skip
    def test_malformed_stream(self, stream: str) -> None:
        message = json.dumps({"method": "SUBSCRIBE", "params": [stream], "id": 1})
        assert json.loads(Subscriptions().handle(message))["error"]["code"] == 2

    def test_a_refused_subscription_changes_nothing(self) -> None:
        subscriptions = Subscriptions(["btcusdt@trade"])
        subscriptions.handle('{"method":"SUBSCRIBE","params":["ethusdt@trade","x"],"id":1}')
        assert subscriptions.streams == ["btcusdt@trade"]

    def test_at_most_1024_streams(self) -> None:
        subscriptions = Subscriptions(f"s{number}@trade" for number in range(1024))
        again = json.dumps({"method": "SUBSCRIBE", "params": ["s0@trade"], "id": 1})
        one_more = json.dumps({"method": "SUBSCRIBE", "params": ["x@trade"], "id": 2})
        assert json.loads(subscriptions.handle(again)) == {"result": None, "id": 1}
        assert json.loads(subscriptions.handle(one_more)) == {
            "error": {"code": 4, "msg": "Too many subscriptions"},
            "id": 2,
        }
        assert len(subscriptions.streams) == 1024


class TestStreams:
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_recorded_messages_come_exact_and_in_order(
        self, sample: Recording, encoding: Encoding
    ) -> None:
        """More than two laps of all streams, byte by byte."""
        names = "/".join(sorted(sample.streams))
        path = f"/stream?streams={names}&" if encoding.combined else f"/ws/{names}?"
        with (
            launch(recording="sample", rate=10_000) as exchange,
            Client(exchange, f"{path}timeUnit={encoding.time_unit.name}") as connection,
        ):
            first = connection.recv()
            assert isinstance(first, str)
            received = [first.encode(), *connection.receive(1999)]
        expected = itertools.islice(frames(sample, encoding), 2000)
        assert [text_frame(event) for event in received] == list(expected)
        for event, message in zip(received, sample.messages, strict=False):
            recorded = with_time_unit(message.payload, encoding.time_unit)
            if encoding.combined:
                recorded = b'{"stream":"%b","data":%b}' % (message.stream.encode(), recorded)
            assert event == recorded

    @pytest.mark.parametrize(
        ("unit", "digits"),
        [("MICROSECOND", 16), ("microsecond", 16), ("MILLISECOND", 13), ("millisecond", 13)],
    )
    def test_time_unit(self, exchange: RunningExchange, unit: str, digits: int) -> None:
        with Client(exchange, f"/ws/btcusdt@trade?timeUnit={unit}") as connection:
            event = connection.receive_json()
        assert [len(str(event[field])) for field in "ET"] == [digits, digits]

    def test_percent_encoded_names(self, exchange: RunningExchange) -> None:
        for target in ("/ws/btcusdt%40trade", "/stream?streams=btcusdt%40trade%2Fbtcusdt@trade"):
            with Client(exchange, target) as connection:
                event = connection.receive_json()
                assert event.get("data", event)["e"] == "trade"

    def test_no_compression(self, exchange: RunningExchange) -> None:
        with Client(exchange, "/ws", compression="deflate") as client:
            assert client.connection.protocol.extensions == []

    def test_the_reply_comes_before_the_first_event(self, exchange: RunningExchange) -> None:
        with Client(exchange, "/ws") as connection:
            assert connection.request("SUBSCRIBE", "btcusdt@trade") == {"result": None, "id": 1}
            assert connection.receive_json()["e"] == "trade"

    def test_no_event_comes_after_the_reply_to_unsubscribe(self, exchange: RunningExchange) -> None:
        with Client(exchange, "/ws/btcusdt@trade") as connection:
            assert connection.receive_json()["e"] == "trade"
            connection.send('{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":"u"}')
            while connection.receive_json() != {"result": None, "id": "u"}:
                pass
            assert connection.request("LIST_SUBSCRIPTIONS") == {"result": [], "id": 1}

    def test_combined_may_be_switched(self, exchange: RunningExchange) -> None:
        def reply(connection: Client) -> Any:
            while "result" not in (message := connection.receive_json()):
                pass
            return message["result"]

        with Client(exchange, "/ws/ethusdt@trade") as connection:
            assert connection.receive_json()["e"] == "trade"
            connection.send('{"method":"GET_PROPERTY","params":["combined"],"id":1}')
            assert reply(connection) is False
            connection.send('{"method":"SET_PROPERTY","params":["combined",true],"id":2}')
            assert reply(connection) is None
            assert connection.receive_json()["stream"] == "ethusdt@trade"
            connection.send('{"method":"GET_PROPERTY","params":["combined"],"id":3}')
            assert reply(connection) is True

    @pytest.mark.parametrize("target", ["/stream", "/stream/", "/stream?streams="])
    def test_stream_without_names_waits_for_them(
        self, exchange: RunningExchange, target: str
    ) -> None:
        with Client(exchange, target) as connection:
            assert connection.request("SUBSCRIBE", "ethusdt@trade", id=None)["id"] is None
            assert connection.receive_json()["stream"] == "ethusdt@trade"

    @pytest.mark.parametrize("target", ["/ws/{}", "/stream?streams=btcusdt@trade/{}"])
    @pytest.mark.parametrize("stream", ["ethusdt@trade", "btcusdt@depth", "BTCUSDT@trade"])
    def test_an_unrecorded_stream_is_refused_by_name(
        self, default_exchange: RunningExchange, target: str, stream: str
    ) -> None:
        """Silence, as on Binance, would look like a client that does not work."""
        with pytest.raises(InvalidStatus) as refused:
            Client(default_exchange, target.format(stream))
        assert refused.value.response.status_code == 400
        error = json.loads(refused.value.response.body or b"")
        known = ", ".join(sorted(ALL_BTC))
        reason = f"the recording has no stream `{stream}`, only {known}"
        assert error == {"code": 2, "msg": f"Invalid request: {reason}"}
        assert reason in default_exchange.stderr

    def test_subscribing_to_an_unrecorded_stream_is_refused_by_name(
        self, default_exchange: RunningExchange
    ) -> None:
        with Client(default_exchange, "/ws") as connection:
            error = connection.request("SUBSCRIBE", "btcusdt@trade", "xrpusdt@trade")["error"]
            assert error["code"] == 2
            assert "`xrpusdt@trade`, only btcusdt@" in error["msg"]
            assert connection.request("LIST_SUBSCRIPTIONS", id=2) == {"result": [], "id": 2}

    def test_the_start_line_names_the_streams(
        self, exchange: RunningExchange, sample: Recording
    ) -> None:
        assert exchange.streams == sorted(sample.streams)

    def test_a_connection_survives_bad_requests(self, exchange: RunningExchange) -> None:
        with Client(exchange, "/ws") as connection:
            connection.send("{")
            assert connection.receive_json()["code"] == 3
            assert connection.request("SUBSCRIBE", "x")["error"]["code"] == 2
            streams = [f"s{number}@trade" for number in range(1025)]
            assert connection.request("SUBSCRIBE", *streams)["error"]["code"] == 4
            assert connection.request("LIST_SUBSCRIPTIONS") == {"result": [], "id": 1}

    @pytest.mark.parametrize(
        ("target", "status", "code"),
        [
            ("/", 404, None),
            ("/wss/btcusdt@trade", 404, None),
            ("/stream/btcusdt@trade", 404, None),
            ("/api/v3/nothing", 404, None),
            ("/ws/btcusdt@trade?timeUnit=NANOSECOND", 400, -1194),
            ("/stream?streams=btcusdt@trade&timeUnit=Microsecond", 400, -1194),
            ("/ws/btcusdt", 400, 2),
            ("/ws/" + "/".join(["btcusdt@trade"] * 550), 101, None),
        ],
    )
    def test_addresses(
        self, exchange: RunningExchange, target: str, status: int, code: int | None
    ) -> None:
        if status == 101:
            Client(exchange, target).close()
            return
        with pytest.raises(InvalidStatus) as refused:
            Client(exchange, target)
        response = refused.value.response
        assert response.status_code == status
        if code is not None:
            assert response.body is not None
            error = json.loads(response.body)
            assert error["code"] == code
            assert error["msg"]

    def test_a_rate_is_not_exceeded(self) -> None:
        """Whether a rate is reached depends on this machine, so only the upper bound is tested."""
        with launch(rate=500) as exchange:
            start = time.monotonic()  # Measured before it sends: later, messages may wait.
            with Client(exchange, "/ws/btcusdt@trade") as connection:
                connection.receive(100)
            assert time.monotonic() - start > 0.19

    def test_precise_spacing_sends_the_same(self, busiest: Recording) -> None:
        with (
            launch(speed=20, precise=True) as exchange,
            Client(exchange, f"/ws/{'/'.join(ALL_BTC)}") as connection,
        ):
            received = connection.receive(500)
        assert received == [message.payload for message in busiest.messages[:500]]

    def test_a_seed_starts_elsewhere_but_always_there(self) -> None:
        def first_event(seed: int | None) -> str | bytes:
            with (
                launch(rate=1000, seed=seed) as exchange,
                Client(exchange, f"/ws/{'/'.join(ALL_BTC)}") as connection,
            ):
                return connection.recv()

        assert first_event(7) == first_event(7) != first_event(None)

    def test_a_client_that_reads_late_misses_nothing(self, busiest: Recording) -> None:
        """Its messages fill all buffers first; meanwhile another client is served."""
        target = f"/ws/{'/'.join(ALL_BTC)}"
        with launch(rate=float("inf")) as exchange, FrameClient(exchange, target) as late:
            with FrameClient(exchange, target) as other:
                assert sum(1 for _ in itertools.islice(other.frames(), 30_000)) == 30_000
            received = [bytes(frame.data) for frame in itertools.islice(late.frames(), 30_000)]
        assert received == list(itertools.islice(events(busiest), 30_000))


class TestTls:
    def test_nobody_else_trusts_the_certificate(self, exchange: RunningExchange) -> None:
        with open_socket(exchange) as tcp, pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(tcp, server_hostname="127.0.0.1")

    def test_version_and_ciphers_can_be_set(self) -> None:
        suite = "ECDHE-ECDSA-AES256-GCM-SHA384"
        with (
            launch(max_version="TLS1.2", ciphers=suite) as exchange,
            FrameClient(exchange, "/ws") as client,
        ):
            assert isinstance(client.socket, ssl.SSLSocket)
            assert client.socket.version() == "TLSv1.2"
            cipher = client.socket.cipher()
            assert cipher is not None
            assert cipher[0] == suite

    def test_without_tls(self) -> None:
        with launch(tls=False, rate=1000) as exchange:
            assert exchange.url.startswith("ws://")
            assert exchange.http_url.startswith("http://")
            assert exchange.ca_file is None
            with Client(exchange, "/ws/btcusdt@trade") as connection:
                assert connection.receive_json()["e"] == "trade"
            assert get(exchange, "/api/v3/ping")[2] == b"{}"

    def test_a_tls_record_holds_one_frame(self, exchange: RunningExchange) -> None:
        """Decrypt record by record: no frame is split, and none shares a record."""
        whole = 0
        for plaintext in itertools.islice(self.opened_records(exchange, "/ws/btcusdt@trade"), 200):
            size = plaintext[1] if plaintext[1] < 126 else int.from_bytes(plaintext[2:4], "big")
            header = 2 if plaintext[1] < 126 else 4
            assert plaintext[0] == 0x81
            assert len(plaintext) == header + size
            whole += 1
        assert whole == 200

    def opened_records(self, exchange: RunningExchange, target: str) -> Iterator[bytes]:
        """Yield the plaintext of each TLS record that comes after the response."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = trust(exchange)
        assert context is not None
        host = urlsplit(exchange.url).hostname
        tls = context.wrap_bio(incoming, outgoing, server_hostname=host)
        with open_socket(exchange) as tcp, tcp.makefile("rb") as stream:

            def attempt(operation: Callable[[], Any]) -> Any:
                while True:
                    try:
                        result = operation()
                    except ssl.SSLWantReadError:
                        tcp.sendall(outgoing.read())
                        head = stream.read(5)
                        incoming.write(head + stream.read(int.from_bytes(head[3:], "big")))
                    else:
                        tcp.sendall(outgoing.read())
                        return result

            attempt(tls.do_handshake)
            tls.write(
                f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            tcp.sendall(outgoing.read())
            response = attempt(lambda: tls.read(1 << 16))
            assert response.startswith(b"HTTP/1.1 101 ")
            assert response.endswith(b"\r\n\r\n")
            while True:
                yield attempt(lambda: tls.read(1 << 16))


class TestPings:
    COUNT = 14
    """So many pings that together they take longer than a pong may."""

    def kept_alive(self, pong: Callable[[FrameClient, int, Frame], None]) -> list[bytes]:
        """The pings of a connection that outlives the timeout, for `pong` answers them in time.

        On a busy machine, half a second may pass before it does: then there is more time.
        """
        for timeout in (0.5, 3.0 * PATIENCE):
            options = {"ping_interval": timeout / 10, "ping_timeout": timeout, "inbound_limit": 0}
            frames: list[Frame] = []
            with (
                launch(**options) as exchange,
                FrameClient(exchange, "/ws", pong=False) as client,
                contextlib.suppress(OSError),  # Of a connection that has ended.
            ):
                for number, frame in enumerate(itertools.islice(client.frames(), self.COUNT)):
                    frames.append(frame)
                    pong(client, number, frame)
            if [frame.opcode for frame in frames] == [Opcode.PING] * self.COUNT:
                return [bytes(frame.data) for frame in frames]
        raise AssertionError(f"the connection ended: {frames}")

    def test_pings_hold_the_time_and_pongs_keep_the_connection(self) -> None:
        def pong(client: FrameClient, number: int, ping: Frame) -> None:
            client.protocol.send_pong(ping.data)
            client.flush()

        before_ms = time.time_ns() // 1_000_000
        times = [int(ping) for ping in self.kept_alive(pong)]
        assert before_ms <= times[0]
        assert all(earlier < later for earlier, later in itertools.pairwise(times))
        assert times[-1] <= time.time_ns() // 1_000_000

    @pytest.mark.parametrize("unsolicited", [b"", b"1723161472512"])
    def test_without_its_pong_a_client_is_disconnected(self, unsolicited: bytes) -> None:
        """A pong that answers no ping does not help."""
        with (
            launch(ping_interval=0.05, ping_timeout=0.2, inbound_limit=0) as exchange,
            FrameClient(exchange, "/ws", pong=False) as client,
        ):
            client.protocol.send_pong(unsolicited)
            with contextlib.suppress(ConnectionError):  # A busy machine may be too late.
                client.flush()
            assert close_frame(client) == (1008, "Pong timeout")

    def test_a_client_that_does_not_read_is_disconnected(self) -> None:
        options = {"ping_interval": 0.05, "ping_timeout": 0.2, "rate": float("inf")}
        with (
            launch(tls=False, **options) as exchange,
            FrameClient(exchange, "/ws/btcusdt@trade", pong=False) as client,
        ):
            # It never sees the close frame either: only a write tells that it is gone.
            with pytest.raises(ConnectionError):
                self.write_until_refused(client)

    def write_until_refused(self, client: FrameClient) -> None:
        poller = select.poll()
        poller.register(client.socket, select.POLLHUP)
        while not poller.poll(20):
            client.protocol.send_pong(b"")
            client.flush()
        raise ConnectionResetError

    def test_the_pong_to_a_later_ping_settles_earlier_ones(self) -> None:
        def pong(client: FrameClient, number: int, ping: Frame) -> None:
            if number % 3 == 2:
                client.protocol.send_pong(ping.data)
                client.flush()

        assert self.kept_alive(pong)


class TestInboundLimit:
    LIST = b'{"method":"LIST_SUBSCRIPTIONS","id":1}'

    def test_counts_over_any_second(self) -> None:
        limit = InboundLimit(5)
        assert [limit.exceeded(now) for now in (0.0, 0.0, 0.9, 0.9, 0.9)] == [False] * 5
        assert limit.exceeded(1.0) is False
        assert limit.exceeded(1.0) is False
        assert limit.exceeded(1.8) is True

    def test_zero_is_no_limit(self) -> None:
        limit = InboundLimit(0)
        assert not any(limit.exceeded(0.0) for _ in range(100))

    @pytest.mark.parametrize("kind", ["text", "binary", "ping", "pong", "mixed"])
    def test_the_sixth_message_within_a_second_disconnects(
        self, default_exchange: RunningExchange, kind: str
    ) -> None:
        with FrameClient(default_exchange, "/ws") as client:
            self.send(client, [kind] * 6 if kind != "mixed" else ["text", "ping", "pong"] * 2)
            assert close_frame(client) == (1008, "Too many requests")

    def test_five_messages_within_a_second_do_not(self, default_exchange: RunningExchange) -> None:
        with FrameClient(default_exchange, "/ws") as client:
            self.send(client, ["pong", "text", "ping", "text", "ping"])
            opcodes = [frame.opcode for frame in itertools.islice(client.frames(), 4)]
        assert sorted(opcodes) == [Opcode.TEXT] * 2 + [Opcode.PONG] * 2

    def send(self, client: FrameClient, kinds: list[str]) -> None:
        """Send all of it in one write."""
        for kind in kinds:
            data = self.LIST if kind in ("text", "binary") else b""
            getattr(client.protocol, f"send_{kind}")(data)
        client.flush()


class TestGoingAway:
    def test_a_connection_is_cut_at_its_age(self) -> None:
        with (
            launch(max_connection_age=0.2) as exchange,
            Client(exchange, "/ws/btcusdt@trade") as connection,
        ):
            assert connection.closed_by_server() == (1001, "")

    @pytest.mark.parametrize(("unit", "digits"), [("MILLISECOND", 13), ("MICROSECOND", 16)])
    def test_sigterm_is_announced_to_all(self, unit: str, digits: int) -> None:
        with launch() as exchange:
            target = f"?timeUnit={unit}"
            with (
                Client(exchange, "/ws" + target) as raw,
                Client(exchange, "/stream" + target) as combined,
            ):
                for connection in (raw, combined):
                    connection.request("LIST_SUBSCRIPTIONS")
                exchange.process.send_signal(signal.SIGTERM)
                for connection in (raw, combined):
                    assert re.fullmatch(
                        rf'{{"event":{{"e":"serverShutdown","E":\d{{{digits}}}}}}}',
                        str(connection.recv()),
                    )
                    assert connection.closed_by_server() == (1001, "")
            assert exchange.stop() == 0

    def test_another_sigterm_changes_nothing(self) -> None:
        """Also when it comes after the event loop has ended, which handled the first one."""
        with launch() as exchange:
            while exchange.process.returncode is None:
                exchange.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    exchange.process.wait(0.001)
            assert exchange.process.returncode == 0

    def test_shutdown_after(self) -> None:
        with launch(shutdown_after=0.2) as exchange:
            assert exchange.process.wait(TIMEOUT) == 0

    def test_streams_go_on_during_the_notice(self) -> None:
        with (
            launch(shutdown_notice=0.2, rate=1000) as exchange,
            Client(exchange, "/ws/btcusdt@trade") as connection,
        ):
            connection.recv()
            exchange.process.terminate()
            while "event" not in connection.receive_json():
                pass
            assert connection.receive_json()["e"] == "trade"
            with pytest.raises(ConnectionRefusedError):
                open_socket(exchange)
            assert connection.closed_by_server() == (1001, "")

    def test_a_client_that_does_not_read_cannot_hold_it_up(self) -> None:
        with (
            launch(tls=False, rate=float("inf")) as exchange,
            FrameClient(exchange, "/ws/btcusdt@trade"),
        ):
            assert exchange.stop() == 0


class TestRest:
    def test_ping_and_time(self, exchange: RunningExchange) -> None:
        status, headers, body = get(exchange, "/api/v3/ping")
        assert (status, body) == (200, b"{}")
        assert headers["Content-Length"] == "2"
        assert headers["Content-Type"] == "application/json;charset=UTF-8"
        before_ms = time.time_ns() // 1_000_000
        server_time = json.loads(get(exchange, "/api/v3/time")[2])["serverTime"]
        assert before_ms <= server_time <= time.time_ns() // 1_000_000

    @pytest.mark.parametrize("framing", ["", "&chunked=true"])
    def test_depth(self, exchange: RunningExchange, framing: str) -> None:
        status, headers, body = get(exchange, f"/api/v3/depth?symbol=BTCUSDT&limit=50{framing}")
        assert status == 200
        assert ("Content-Length" in headers) != bool(framing)
        assert headers.get("Transfer-Encoding") == ("chunked" if framing else None)
        snapshot = json.loads(body)
        assert list(snapshot) == ["lastUpdateId", "bids", "asks"]
        assert [len(snapshot["bids"]), len(snapshot["asks"])] == [50, 50]

    def test_depth_limits(self, exchange: RunningExchange) -> None:
        def count(query: str) -> int:
            return len(json.loads(get(exchange, f"/api/v3/depth?symbol=ETHUSDT{query}")[2])["bids"])

        assert count("&limit=1") == 1
        assert count("") == 100
        assert count("&limit=99999") == count("&limit=5000") > 100

    @pytest.mark.parametrize(
        ("query", "code", "reason"),
        [
            ("symbol=NOPE", -1121, "Invalid symbol."),
            ("", -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."),
            (
                "symbol=btcusdt",
                -1100,
                "Illegal characters found in parameter 'symbol';"
                " legal range is '^[A-Z0-9-_.]{1,20}$'.",
            ),
            (
                "symbol=BTCUSDT&limit=x",
                -1100,
                "Illegal characters found in parameter 'limit'; legal range is '^[0-9]{1,20}$'.",
            ),
            ("symbol=BTCUSDT&limit=0", -1130, "Data sent for parameter 'limit' is not valid."),
        ],
    )
    def test_bad_parameters(
        self, exchange: RunningExchange, query: str, code: int, reason: str
    ) -> None:
        status, _, body = get(exchange, f"/api/v3/depth?{query}")
        assert status == 400
        assert json.loads(body) == {"code": code, "msg": reason}


class TestLaunch:
    def test_a_temporary_ca_file_is_removed(self) -> None:
        with launch() as exchange:
            assert exchange.ca_file is not None
            ca_file = Path(exchange.ca_file)
            assert ca_file.exists()
        assert not ca_file.exists()

    def test_a_ca_file_that_was_named_stays(self, tmp_path: Path) -> None:
        with launch(ca_file=tmp_path / "ca.pem") as exchange:
            assert exchange.ca_file == str(tmp_path / "ca.pem")
            assert get(exchange, "/api/v3/ping")[0] == 200
        assert (tmp_path / "ca.pem").exists()

    def test_stop_may_be_repeated(self) -> None:
        with launch() as exchange:
            assert exchange.stop() == 0
            assert exchange.stop() == 0

    def test_a_failed_start_tells_why(self, default_exchange: RunningExchange) -> None:
        port = urlsplit(default_exchange.url).port
        assert port is not None
        with pytest.raises(ExchangeError, match="cannot start the exchange"), launch(port=port):
            pass
        with pytest.raises(ExchangeError, match="is not positive"), launch(rate=-1):
            pass

    def test_a_later_failure_tells_why(self) -> None:
        def kill() -> None:
            with launch() as exchange:
                exchange.process.kill()
                exchange.process.wait(TIMEOUT)

        with pytest.raises(ExchangeError, match="exit code -9"):
            kill()

    def test_an_unknown_option_is_refused(self) -> None:
        with pytest.raises(TypeError, match="'speeed'"), launch(speeed=2):
            pass

    def test_it_goes_when_its_parent_does(self) -> None:
        with launch() as exchange:
            assert exchange.process.stdin is not None
            exchange.process.stdin.close()
            assert exchange.process.wait(TIMEOUT) == 0

    def test_it_is_gone_after_a_failure(self) -> None:
        with pytest.raises(ZeroDivisionError), launch() as exchange:
            raise ZeroDivisionError
        assert exchange.process.poll() is not None


class TestCommandLine:
    def test_exchange_is_a_subcommand(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exited:
            command_line.main(["exchange", "--help"])
        assert exited.value.code == 0
        assert "--max-connection-age" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "arguments",
        [[], ["nothing"], ["exchange", "--speed=0"], ["exchange", "--speed=inf"],
         ["exchange", "--speed=nan"], ["exchange", "--speed=x"], ["exchange", "--ping-interval=-1"],
         ["exchange", "--speed=1", "--rate=1"], ["exchange", "--recording=none"],
         ["exchange", "--port=65536"], ["exchange", "--port=-1"], ["exchange", "--port=x"],
         ["exchange", "--inbound-limit=-1"], ["exchange", "--inbound-limit=1.5"]],
    )  # fmt: skip
    def test_usage_errors(self, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as exited:
            command_line.main(arguments)
        assert exited.value.code == 2

    def test_the_package_needs_nothing_of_hftws(self, tmp_path: Path) -> None:
        """All of it, also the server, can be imported where hftws and its extension cannot."""
        # A folder with nothing else: hftws has a types.py.
        (tmp_path / "exchange").symlink_to(Path(hftws.exchange.__file__).parent)
        code = "import sys; sys.modules['hftws'] = None; import exchange.server"
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=TIMEOUT)

    def test_launching_needs_neither_websockets_nor_trustme(self) -> None:
        code = (
            "import sys; sys.modules.update(websockets=None, trustme=None);"
            "from hftws.exchange import cli, launch; import argparse;"
            "parser = argparse.ArgumentParser(); cli.add_arguments(parser);"
            "sys.exit(cli.run(parser.parse_args([])))"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            timeout=TIMEOUT,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert process.returncode == 1
        assert "pip install 'hftws[exchange]'" in process.stderr


@pytest.fixture(scope="module")
def default_exchange() -> Iterator[RunningExchange]:
    with launch() as running:
        yield running
