"""A network that fails, at every stage by a plan and at random by seed.

Whatever happens, each message that is delivered is one that was sent, whole and in order, and the
end raises the right exception. ``--fault-seeds=100000`` takes longer; a failure at random names
its seed, and ``--fault-seed=N`` repeats it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from fault_proxy import Fault, FaultProxy, Plan, Record, Step, random_plan
from frames import SMALL, SOON, Inbox, fragmented, text, wait_until_reset
from servers import (
    BINARY,
    CLOSE,
    PATIENCE,
    PING,
    PONG,
    TEXT,
    Frame,
    Peer,
    Serve,
    accept_value,
    close_payload,
    encode_frame,
)

import hftws

#: Seconds that connecting and closing may take, where nothing is to run into its deadline.
IN_TIME = 4.0 * PATIENCE

#: Deadlines for a test that has to reach its deadline, but only in a certain stage: tried one after
#: the other, since when that stage is reached depends on what else the machine does.
DEADLINES = (0.1, 0.4, 1.6, 6.4 * PATIENCE)

ENDS = (Fault.CUT, Fault.HALF_CLOSE, Fault.RESET)

# What came before a RST is delivered before it: Linux keeps it in the socket.

#: Every form that a frame has, and so every place inside of one.
FRAMES = [
    text("one"),
    encode_frame(PING, b"there?"),
    fragmented(BINARY, [b"tw", b"", b"o"], between=encode_frame(PING, b"still?")),
    text("three" * 26),
    encode_frame(CLOSE, close_payload(1000, "bye")),
]
MESSAGES = {0: b"one", 2: b"two", 3: b"three" * 26}
FRAME_ENDS = list(itertools.accumulate(len(frame) for frame in FRAMES))

EOF_REASON = "the peer closed the TCP connection without a close frame"
RESET_REASON = "the peer reset the TCP connection"
UNANSWERED = {
    Fault.CUT: "the peer hung up without a close frame",
    Fault.HALF_CLOSE: "the peer hung up without a close frame",
    Fault.RESET: "the peer hung up without a close frame",
    Fault.STALL: "the peer did not answer the close frame in time",
}
#: Only in a stall do we wait for all of it.
CLOSE_TIMEOUTS = {fault: 0.05 if fault is Fault.STALL else IN_TIME for fault in UNANSWERED}


def head() -> bytes:
    """The answer to an upgrade; it is as long for every key."""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_value("").encode() + b"\r\n\r\n"
    )


def whatever_happens(script: Callable[[Peer], object]) -> Callable[[Peer], None]:
    """The script may end with any error of the connection: the client's side is tested."""

    def run(peer: Peer) -> None:
        with contextlib.suppress(OSError, EOFError):
            script(peer)

    return run


@whatever_happens
def say_frames(peer: Peer) -> None:
    peer.accept_upgrade()
    for frame in FRAMES:
        peer.send(frame)  # A record each.
    peer.hang_up()


@dataclass
class Outcome:
    """What happened to a client."""

    opened: bool = False
    inbox: Inbox = field(default_factory=Inbox)
    error: Exception | None = None
    close_code: int | None = None
    close_reason: str | None = None

    def open(self, client: hftws.Client) -> None:
        self.opened = True

    def note_close(self, client: hftws.Client) -> None:
        self.close_code, self.close_reason = client.close_code, client.close_reason


def client_for(proxy: FaultProxy, outcome: Outcome, scheme: str, **options: Any) -> hftws.Client:
    return hftws.Client(
        f"{scheme}://127.0.0.1:{proxy.port}/",
        outcome.inbox,
        on_open=outcome.open,
        **{**SMALL, "connect_timeout": IN_TIME, "close_timeout": IN_TIME, **options},
    )


def live(proxy: FaultProxy, scheme: str = "ws", **options: Any) -> Outcome:
    """Connects, and receives to the end."""
    outcome = Outcome()
    client = client_for(proxy, outcome, scheme, **options)
    try:
        client.connect()
        client.run()
    except hftws.Error as error:
        outcome.error = error
    finally:
        client.close()
    outcome.note_close(client)
    return outcome


def expect_end(outcome: Outcome, fault: Fault, frames_whole: int) -> None:
    """After the upgrade: exactly the messages of the frames that arrived whole are delivered."""
    delivered = [MESSAGES[index] for index in range(frames_whole) if index in MESSAGES]
    assert outcome.opened
    assert outcome.inbox.payloads == delivered
    if frames_whole == len(FRAMES):
        assert outcome.error is None
        assert (outcome.close_code, outcome.close_reason) == (1000, "bye")
        return
    assert type(outcome.error) is hftws.ConnectionClosed
    reason = RESET_REASON if fault is Fault.RESET else EOF_REASON
    assert (outcome.error.code, outcome.error.reason) == (1006, reason)
    assert (outcome.close_code, outcome.close_reason) == (1006, reason)


def expect_never_open(outcome: Outcome, fault: Fault, stage: str) -> None:
    """Before the upgrade: the stage and the cause in the exception."""
    assert not outcome.opened
    assert outcome.inbox.payloads == []
    kind = hftws.TLSError if "TLS" in stage else hftws.HandshakeError
    reason = RESET_REASON if fault is Fault.RESET else "the peer closed the TCP connection"
    assert type(outcome.error) is kind
    assert outcome.error.args[0] == f"{reason} while {stage} 127.0.0.1"


REQUESTING = "waiting for the HTTP response of"
SECURING = "in the TLS handshake with"


def expect_timeout(connect: Callable[..., Outcome], proxy: FaultProxy, stage: str) -> None:
    """When this stage stalls, connecting times out in it."""
    for deadline in DEADLINES:
        outcome = connect(connect_timeout=deadline)
        proxy.go_on()
        assert type(outcome.error) is hftws.ConnectTimeout
        assert outcome.inbox.payloads == []
        if outcome.error.args[0].startswith(f"timed out {stage} 127.0.0.1: connect_timeout of"):
            return
    raise AssertionError(f"{outcome.error}, not {stage}")


def wait_for_fault(proxy: FaultProxy, fault: Fault, count: int) -> None:
    """Waits until the proxy has caused this fault so many times."""
    deadline = time.monotonic() + SOON
    while proxy.faults[fault] < count:
        assert time.monotonic() < deadline, "the proxy does not come to the fault"
        time.sleep(0.001)


# ---- At every byte of a plain connection. ------------------------------------------------------


@pytest.mark.parametrize("fault", ENDS, ids=lambda fault: fault.value)
def test_an_end_at_every_byte(serve: Serve, fault: Fault) -> None:
    """At every byte of response and frames: what was whole is delivered, and then the end."""
    places = range(len(head()) + FRAME_ENDS[-1] + 1)
    plans = [Plan(to_client=(Step(place, fault),)) for place in places]
    with serve(say_frames) as server, FaultProxy(server.port, plans.__getitem__) as proxy:
        for place in places:
            outcome = live(proxy)
            if place == 0 and type(outcome.error) is hftws.ConnectError:
                assert fault is Fault.RESET  # The fault may come before the client has read.
            elif place < len(head()):
                expect_never_open(outcome, fault, REQUESTING)
            else:
                whole = sum(end <= place - len(head()) for end in FRAME_ENDS)
                expect_end(outcome, fault, whole)
        assert proxy.faults[fault] >= len(plans) - 1  # The last fault may come too late.


def places_to_stop() -> list[int]:
    """Places around the ends of the response's lines, and around and inside of every frame."""
    line_ends = [index for index in range(len(head())) if head()[index : index + 2] == b"\r\n"]
    starts = [len(head()) + start for start in [0, *FRAME_ENDS[:-1]]]
    frame_places = [start + offset for start in starts for offset in (0, 1, 3)]
    return [0, 1, *(end + 1 for end in line_ends), len(head()) - 1, *frame_places]


def test_a_stall_before_the_upgrade_times_out(serve: Serve) -> None:
    places = [place for place in places_to_stop() if place < len(head())]
    plan: Plan
    with serve(say_frames) as server, FaultProxy(server.port, lambda _: plan) as proxy:
        for place in places:
            plan = Plan(to_client=(Step(place, Fault.STALL),))
            expect_timeout(functools.partial(live, proxy), proxy, REQUESTING)


def test_a_stall_after_the_upgrade_is_no_end(serve: Serve) -> None:
    """Nothing is delivered before it is whole, and everything once the network goes on."""
    places = [place for place in places_to_stop() if place >= len(head())]
    plans = [Plan(to_client=(Step(place, Fault.STALL),)) for place in places]
    with serve(say_frames) as server, FaultProxy(server.port, plans.__getitem__) as proxy:
        for number, place in enumerate(places, start=1):
            outcome = Outcome()
            client = client_for(proxy, outcome, "ws")
            client.connect()
            whole = sum(end <= place - len(head()) for end in FRAME_ENDS)
            expected = [MESSAGES[index] for index in range(whole) if index in MESSAGES]
            while len(outcome.inbox.payloads) < len(expected):
                client.poll(1.0)
            wait_for_fault(proxy, Fault.STALL, number)  # Before go_on(), which would miss it.
            client.poll(0.005)
            assert outcome.inbox.payloads == expected
            assert client.is_open
            proxy.go_on()
            client.run()
            outcome.note_close(client)
            expect_end(outcome, Fault.STALL, len(FRAMES))
        assert proxy.faults[Fault.STALL] == len(places)


@pytest.mark.parametrize("piece", [1, 2, 3, 7])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_segments_of_every_size(serve: Serve, ca_file: Path, scheme: str, piece: int) -> None:
    with serve(say_frames, tls=scheme == "wss") as server:
        with FaultProxy(server.port, Plan(pieces=(piece,))) as proxy:
            outcome = live(proxy, scheme, ca_file=ca_file)
            expect_end(outcome, Fault.DELAY, len(FRAMES))


# ---- At every record of a connection over TLS. -------------------------------------------------


@pytest.fixture(params=["1.2", "1.3"])
def counted_context(request: pytest.FixtureRequest, ca: trustme.CA) -> ssl.SSLContext:
    """A server whose records can be counted: without tickets, it sends none unasked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    version = ssl.TLSVersion.TLSv1_2 if request.param == "1.2" else ssl.TLSVersion.TLSv1_3
    context.minimum_version = context.maximum_version = version
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    ca.issue_cert("127.0.0.1").configure_cert(context)
    return context


#: A step that never comes: it has the proxy count records.
COUNTING = (Step(Record(1_000_000), Fault.DELAY),)


class Plans:
    """The plan of the next connection, set by the test."""

    def __init__(self) -> None:
        self.next = Plan(to_client=COUNTING, to_server=COUNTING)

    def __call__(self, connection: int) -> Plan:
        return self.next


class Counted:
    """Equal connections over TLS through a proxy, with faults record by record."""

    def __init__(self, proxy: FaultProxy, plans: Plans, **options: Any) -> None:
        self.proxy, self.plans, self.options = proxy, plans, options
        expect_end(self.live(), Fault.DELAY, len(FRAMES))
        #: The sizes of all records of a connection to which nothing happens.
        self.to_client, self.to_server = (
            [end - start for start, end in itertools.pairwise(starts)] for starts in proxy.records
        )
        #: The server's records before it has the request: all but response, frames, close_notify.
        self.handshake_count = len(self.to_client) - 1 - len(FRAMES) - 1

    def live(self, **options: Any) -> Outcome:
        """One connection, by the present plan."""
        return live(self.proxy, "wss", **self.options, **options)


@pytest.fixture(params=["direct", "openssl"])
def counted(
    request: pytest.FixtureRequest,
    serve: Serve,
    counted_context: ssl.SSLContext,
    ca_file: Path,
) -> Iterator[Counted]:
    plans = Plans()
    with serve(say_frames, tls_context=counted_context) as server:
        with FaultProxy(server.port, plans) as proxy:
            yield Counted(proxy, plans, ca_file=ca_file, tls=request.param)


@pytest.mark.parametrize("fault", ENDS, ids=lambda fault: fault.value)
def test_an_end_at_every_record(counted: Counted, fault: Fault) -> None:
    """Before each record of the server, in its header, in its middle, before its last byte."""
    assert counted.handshake_count >= 4
    for index, size in enumerate(counted.to_client):
        for offset in {0, 3, size // 2, -1}:
            counted.plans.next = Plan(to_client=(Step(Record(index, offset), fault),))
            outcome = counted.live()
            if index < counted.handshake_count:
                if index == offset == 0 and type(outcome.error) is hftws.ConnectError:
                    continue
                expect_never_open(outcome, fault, SECURING)
            elif index == counted.handshake_count:
                expect_never_open(outcome, fault, REQUESTING)
            else:
                expect_end(outcome, fault, index - counted.handshake_count - 1)


@pytest.mark.parametrize("fault", ENDS, ids=lambda fault: fault.value)
def test_an_end_at_every_record_of_the_client(
    counted: Counted, counted_context: ssl.SSLContext, fault: Fault
) -> None:
    """The server does not get all of the handshake or of the request."""
    tls_1_3 = counted_context.minimum_version == ssl.TLSVersion.TLSv1_3
    # ClientHello; ClientKeyExchange in TLS 1.2; ChangeCipherSpec and Finished; request.
    request_index = 3 if tls_1_3 else 4
    # The last Finished of TLS 1.3 is the client's, which then waits for nothing more.
    securing_until = 1 if tls_1_3 else request_index
    for index, size in enumerate(counted.to_server[: request_index + 1]):
        # Not at 0: that would be before the server has answered the record before.
        for offset in {3, size // 2, -1} if size > 6 else {3}:
            counted.plans.next = Plan(to_server=(Step(Record(index, offset), fault),))
            outcome = counted.live()
            if fault is Fault.HALF_CLOSE:  # The server goes on, and may send an alert.
                assert type(outcome.error) in (hftws.TLSError, hftws.HandshakeError)
                continue
            stage = SECURING if index < securing_until else REQUESTING
            expect_never_open(outcome, fault, stage)


def test_a_stall_in_the_tls_handshake_times_out(counted: Counted) -> None:
    for index in range(counted.handshake_count + 1):
        counted.plans.next = Plan(to_client=(Step(Record(index, 3), Fault.STALL),))
        stage = SECURING if index < counted.handshake_count else REQUESTING
        expect_timeout(counted.live, counted.proxy, stage)


# ---- In the client's CLOSE, and in what it sends. -----------------------------------------------


@whatever_happens
def answer_close(peer: Peer) -> None:
    peer.accept_upgrade(then=text("hello"))
    peer.answer_close()


def close_through(proxy: FaultProxy, close_timeout: float = IN_TIME) -> Outcome:
    outcome = Outcome()
    client = client_for(proxy, outcome, "ws", close_timeout=close_timeout)
    client.connect()
    while not outcome.inbox.payloads:
        client.poll(1.0)
    client.close(1000, "bye")
    outcome.note_close(client)
    return outcome


@pytest.mark.parametrize("fault", [*ENDS, Fault.STALL], ids=lambda fault: fault.value)
def test_our_close_is_not_answered(serve: Serve, fault: Fault) -> None:
    """However much of the answer arrives, close() does not raise, and close_code says what came."""
    size = len(encode_frame(CLOSE, close_payload(1000, "bye")))
    start = len(head()) + len(text("hello"))
    plan: Plan
    with serve(answer_close) as server, FaultProxy(server.port, lambda _: plan) as proxy:
        # Not at 0: that would be before our CLOSE.
        for offset in range(1, size):
            plan = Plan(to_client=(Step(start + offset, fault),))
            outcome = close_through(proxy, CLOSE_TIMEOUTS[fault])
            assert outcome.close_code == 1006
            assert outcome.close_reason == UNANSWERED[fault]
            proxy.go_on()
        # All of the answer comes. Where only the end of the connection stalls, we wait for it.
        plan = Plan(to_client=(Step(start + size, fault),))
        for deadline in DEADLINES:
            outcome = close_through(proxy, deadline)
            proxy.go_on()
            if outcome.close_code != 1006:
                break
        assert (outcome.close_code, outcome.close_reason) == (1000, "bye")


@pytest.mark.parametrize("fault", [*ENDS, Fault.STALL], ids=lambda fault: fault.value)
def test_our_close_does_not_arrive(serve: Serve, fault: Fault) -> None:
    requests: list[int] = []

    @whatever_happens
    def script(peer: Peer) -> None:
        requests.append(len(peer.read_request().raw))
        peer.send(peer.upgrade_response() + text("hello"))
        peer.answer_close()

    plans = Plans()
    size = len(encode_frame(CLOSE, close_payload(1000, "bye"), mask=bytes(4)))
    with serve(script) as server, FaultProxy(server.port, plans) as proxy:
        close_through(proxy)
        for offset in range(1, size):
            plans.next = Plan(to_server=(Step(requests[0] + offset, fault),))
            outcome = close_through(proxy, CLOSE_TIMEOUTS[fault])
            assert (outcome.close_code, outcome.close_reason) == (1006, UNANSWERED[fault])
            proxy.go_on()


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_reset_that_send_was_told_of(serve: Serve, scheme: str) -> None:
    """The kernel reports a reset only once; the client does so even if a read finds the end."""
    connected = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(connected)
        peer.reset()

    with serve(script, tls=scheme == "wss") as server:
        client = server.client(**SMALL)
        client.connect()
        connected.set()
        wait_until_reset(client)
        with pytest.raises(hftws.ConnectionClosed, match="cannot be written"):
            client.send("order")
        with pytest.raises(hftws.ConnectionClosed) as caught:
            client.poll(1.0)
        assert caught.value.reason == RESET_REASON


# ---- At random. --------------------------------------------------------------------------------


@dataclass
class Conversation:
    """What both sides of a connection say, drawn from a seed."""

    seed: int
    scheme: str
    #: The server's frames, and the messages in them with the place where each is whole.
    stream: bytes = b""
    messages: list[tuple[int, bytes]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    orders: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        for _ in range(rng.randrange(12)):
            self._add_message(rng)
        self.stream += encode_frame(CLOSE, close_payload(1000, "end"))
        self.ends.append(len(self.stream))
        self.orders = [
            rng.randbytes(rng.choice((0, 9, 130, 3000))) for _ in range(rng.randrange(6))
        ]
        before = (len(head()), 300) if self.scheme == "ws" else (4000, 2000)
        orders_size = sum(len(order) + 40 for order in self.orders)
        sizes = (before[0] + len(self.stream), before[1] + orders_size)
        self.plan = random_plan(rng, sizes, stalls_from=before)

    def _add_message(self, rng: random.Random) -> None:
        payload = rng.randbytes(rng.choice((0, 5, 125, 126, 1000, 20_000)))
        if rng.random() < 0.2:
            self.stream += encode_frame(PING, b"ping")
        if rng.random() < 0.3:
            middle = rng.randrange(len(payload) + 1)
            self.stream += fragmented(BINARY, [payload[:middle], payload[middle:]])
        else:
            self.stream += encode_frame(BINARY, payload)
        self.messages.append((BINARY, payload))
        self.ends.append(len(self.stream))


class PreparedServer:
    """Sends what was prepared for the next connection, and keeps all that it receives."""

    def __init__(self, tls_context: ssl.SSLContext | None) -> None:
        self.tls_context = tls_context
        self.stream = b""
        self.heard = b""
        self.done = threading.Event()

    def __enter__(self) -> PreparedServer:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def prepare(self, stream: bytes) -> None:
        self.stream, self.heard = stream, b""
        self.done.clear()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(SOON)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError, EOFError):
                self._talk(sock)
            self.done.set()

    def _talk(self, plain: socket.socket) -> None:
        sock = plain
        with plain:
            if self.tls_context is not None:
                sock = self.tls_context.wrap_socket(
                    plain, server_side=True, suppress_ragged_eofs=False
                )
            try:
                self._answer(sock)
            finally:
                sock.close()

    def _answer(self, sock: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            data = sock.recv(65536)
            if not data:
                return
            request += data
        key = request.partition(b"Sec-WebSocket-Key: ")[2][:24].decode()
        answer = head().replace(accept_value("").encode(), accept_value(key).encode())
        self.heard = request.partition(b"\r\n\r\n")[2]
        with contextlib.suppress(ConnectionError):  # What the client has sent has arrived anyway.
            sock.sendall(answer)  # A record of its own: the client must not wait for the next.
            sock.sendall(self.stream)
            # An SSLSocket would forget its TLS.
            socket.socket.shutdown(sock, socket.SHUT_WR)
        while data := sock.recv(65536):
            self.heard += data


def frames_of(data: bytes) -> Iterator[Frame]:
    """The whole frames of a client at the front of the data."""
    while len(data) >= 6:
        size, start = data[1] & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        if len(data) < start + 4 + size:
            return
        key = data[start : start + 4]
        payload = data[start + 4 : start + 4 + size]
        unmasked = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
        yield Frame(data[0] & 0xF, unmasked, bool(data[0] & 0x80))
        data = data[start + 4 + size :]


def converse(proxy: FaultProxy, talk: Conversation, scheme: str, options: Any) -> Outcome:
    """Sends all orders and receives to the end; stalls of the network end after a while."""
    outcome = Outcome()
    client = client_for(proxy, outcome, scheme, **options)
    try:
        client.connect()
        with contextlib.suppress(hftws.Error):  # What was received says why.
            for order in talk.orders:
                client.send(order)
        while True:
            if client.poll(0.01) == 0:
                proxy.go_on()
    except hftws.Error as error:
        outcome.error = error
    finally:
        client.close()
    outcome.note_close(client)
    return outcome


def expect_invariant(talk: Conversation, outcome: Outcome, heard: bytes, scheme: str) -> None:
    """What arrived is what was sent, in order, and the connection ended as planned."""
    delivered = outcome.inbox.messages
    assert delivered == talk.messages[: len(delivered)]
    orders = [frame.payload for frame in frames_of(heard) if frame.opcode in (TEXT, BINARY)]
    assert orders == talk.orders[: len(orders)]
    assert all(f.payload == b"ping" for f in frames_of(heard) if f.opcode == PONG)

    steps = talk.plan.to_client + talk.plan.to_server
    end = next((step for step in steps if step.fault.ends), None)
    error = outcome.error
    if outcome.close_code == 1000:  # All came in time.
        assert delivered == talk.messages
        assert type(error) is hftws.ConnectionClosed and error.reason == "end"
        return
    assert end is not None, error
    reason = RESET_REASON if end.fault is Fault.RESET else EOF_REASON
    alerted = scheme == "wss" and end.fault is Fault.HALF_CLOSE and end in talk.plan.to_server
    if alerted and type(error) is hftws.TLSError and "decode" in error.reason:
        return  # The server has seen an end without close_notify, and could still send an alert.
    if outcome.opened:
        assert type(error) is hftws.ConnectionClosed
        assert (error.code, error.reason) == (1006, reason)
    elif type(error) is not hftws.ConnectError or end.fault is not Fault.RESET:
        kinds = (
            (hftws.HandshakeError,) if scheme == "ws" else (hftws.HandshakeError, hftws.TLSError)
        )
        assert type(error) in kinds
        assert str(error).startswith(reason.removesuffix(" without a close frame"))
    if scheme == "ws" and end in talk.plan.to_client and end.fault is not Fault.RESET:
        assert isinstance(end.place, int)
        whole = sum(place <= end.place - len(head()) for place in talk.ends[:-1])
        assert len(delivered) == whole, "what came before the end was not delivered"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seeds" not in metafunc.fixturenames:
        return
    config = metafunc.config
    count, only = config.getoption("fault_seeds"), config.getoption("fault_seed")
    if "tls" in metafunc.function.__name__:
        count //= 10
    blocks = [range(start, min(start + 250, count)) for start in range(0, count, 250)]
    if only is not None:
        blocks = [range(only, only + 1)]
    metafunc.parametrize("seeds", blocks, ids=lambda block: f"{block.start}-{block.stop - 1}")


def suffer(seeds: range, scheme: str, context: ssl.SSLContext | None, options: Any) -> None:
    talk: Conversation
    with PreparedServer(context) as server, FaultProxy(server.port, lambda _: talk.plan) as proxy:
        for seed in seeds:
            talk = Conversation(seed, scheme)
            server.prepare(talk.stream)
            outcome = converse(proxy, talk, scheme, options)
            deadline = time.monotonic() + 2 * SOON
            proxy.go_on()
            while not server.done.wait(0.02):  # There may be more than one stall.
                assert time.monotonic() < deadline, f"--fault-seed={seed}: the server does not end"
                proxy.go_on()
            try:
                expect_invariant(talk, outcome, server.heard, scheme)
            except AssertionError as error:
                raise AssertionError(
                    f"--fault-seed={seed}: {talk.plan}, {outcome.error!r}"
                ) from error
        if len(seeds) >= 100:
            assert all(proxy.faults[fault] > 0 for fault in Fault), proxy.faults


def test_whatever_happens_at_random(seeds: range) -> None:
    suffer(seeds, "ws", None, {})


@pytest.mark.parametrize("engine", ["direct", "openssl"])
def test_whatever_happens_at_random_over_tls(
    seeds: range, engine: str, tls_context: ssl.SSLContext, ca_file: Path
) -> None:
    options = {"ca_file": ca_file, "tls": engine}
    suffer(seeds, "wss", tls_context, options)
