"""A TCP proxy on the loopback that breaks connections as networks do, at the bytes of a plan.

    with FaultProxy(server.port, Plan(to_client=(Step(200, Fault.RESET),))) as proxy:
        hftws.Client(f"ws://127.0.0.1:{proxy.port}/").connect()

A plan counts bytes, not time: 200 bytes go to the client, then the connection is reset, however
fast the kernel and the two ends are. Where TLS hides what a byte means, a place can also be counted
in records (:class:`Record`). Bytes are cut into segments, delayed and withheld, and never changed
or reordered, as TCP promises.

One thread serves all connections. Plans that are drawn from a seed are the same for the same seed.
"""

from __future__ import annotations

import contextlib
import enum
import random
import selectors
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

__all__ = ["Fault", "FaultProxy", "Place", "Plan", "Record", "Step", "random_plan"]

#: Bytes that the proxy holds of a direction before it stops to read.
PENDING_MAX = 256 * 1024

RECORD_HEADER_SIZE = 5

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Fault(enum.Enum):
    """What can happen to a connection at some byte."""

    #: FIN to both ends; what they still send goes nowhere.
    CUT = "cut"
    #: FIN in this direction. The other one goes on.
    HALF_CLOSE = "half-close"
    #: RST to both ends.
    RESET = "reset"
    #: Nothing more in this direction until :meth:`FaultProxy.go_on`.
    STALL = "stall"
    #: Nothing more in this direction for some time.
    DELAY = "delay"

    @property
    def ends(self) -> bool:
        """Whether this fault ends its direction."""
        return self in (Fault.CUT, Fault.HALF_CLOSE, Fault.RESET)


@dataclass(frozen=True)
class Record:
    """A place in a direction over TLS: so many bytes into its record of this number, from 0.

    Less than 0 counts from the end of the record: -1 is before its last byte.
    """

    index: int
    offset: int = 0


#: Bytes from the start of the direction, or a place in a record.
Place = int | Record


@dataclass(frozen=True)
class Step:
    """A fault that happens when all bytes before its place have gone through, and none after it."""

    place: Place
    fault: Fault
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What happens to one connection: the steps of each direction, in the order of their places."""

    to_client: tuple[Step, ...] = ()
    to_server: tuple[Step, ...] = ()
    #: Segments are no larger than one of these, at random. Empty: as they come.
    pieces: tuple[int, ...] = ()
    seed: int = 0


def random_plan(rng: random.Random, sizes: tuple[int, int], stalls_from: tuple[int, int]) -> Plan:
    """A plan for a connection of about so many bytes to the client and to the server.

    At most one step is an end. Stalls come only after so many bytes: until the connection is open,
    nobody could say that it is time to go on.
    """
    steps: tuple[list[Step], list[Step]] = ([], [])
    for _ in range(rng.randrange(3)):
        side = rng.randrange(2)
        place = rng.randrange(sizes[side])
        stalls = place >= stalls_from[side] and rng.random() < 0.5
        fault = Fault.STALL if stalls else Fault.DELAY
        steps[side].append(Step(place, fault, rng.random() * 0.003))
    end_side = rng.choice((0, 0, 1, None))
    if end_side is not None:
        fault = rng.choice((Fault.CUT, Fault.HALF_CLOSE, Fault.RESET))
        steps[end_side].append(Step(rng.randrange(sizes[end_side]), fault))
    to_client, to_server = (tuple(sorted(side, key=_bytes_before)) for side in steps)
    pieces = rng.choice(((), (1, 50, 2000), (1, 2, 3, 1000), (100, 1400), (16384,)))
    return Plan(to_client, to_server, pieces, rng.getrandbits(32))


def _bytes_before(step: Step) -> int:
    assert isinstance(step.place, int)
    return step.place


@dataclass
class _Direction:
    """One half of a connection: bytes from ``source`` that have to go to ``target``."""

    source: socket.socket
    target: socket.socket
    steps: list[Step]
    pieces: tuple[int, ...]
    rng: random.Random
    pending: bytearray = field(default_factory=bytearray)
    #: Bytes that have gone through.
    passed: int = 0
    #: The source has ended.
    ended: bool = False
    #: That end has been passed on to the target.
    shut: bool = False
    stalled: bool = False
    resume_at: float | None = None
    #: The socket of the target is full.
    full: bool = False
    #: Where each record starts, and the bytes behind the last of these starts.
    records: list[int] = field(default_factory=lambda: [0])
    head: bytearray = field(default_factory=bytearray)
    #: Where the last of them ends, when its header is there and its end is not.
    open_end: int | None = None

    def add(self, data: bytes) -> None:
        if any(isinstance(step.place, Record) for step in self.steps):
            self._find_records(data)
        if not self.shut:
            self.pending += data

    def _find_records(self, data: bytes) -> None:
        self.head += data
        self.open_end = None
        while len(self.head) >= RECORD_HEADER_SIZE:
            size = RECORD_HEADER_SIZE + int.from_bytes(self.head[3:5], "big")
            if len(self.head) < size:
                self.open_end = self.records[-1] + size
                return
            self.records.append(self.records[-1] + size)
            del self.head[:size]

    def place_of(self, step: Step) -> int | None:
        """The place in bytes; None while it is unknown, and so behind all that was received."""
        place = step.place
        if isinstance(place, int):
            return place
        if place.index >= len(self.records):
            return None
        if place.offset >= 0:
            return self.records[place.index] + place.offset
        last = place.index + 1 == len(self.records)
        end = self.open_end if last else self.records[place.index + 1]
        return None if end is None else end + place.offset


class _Link:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket, plan: Plan) -> None:
        self.client, self.server = client, server
        # One for each direction: otherwise the cuts of one would depend on the pace of the other.
        rngs = [random.Random(plan.seed), random.Random(plan.seed + 1)]
        self.directions = [
            _Direction(server, client, list(plan.to_client), plan.pieces, rngs[0]),
            _Direction(client, server, list(plan.to_server), plan.pieces, rngs[1]),
        ]
        self.closed = False

    def reset(self) -> None:
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.closed = True
        self.client.close()
        self.server.close()


class FaultProxy:
    """Forwards connections to a port of this machine, each by its plan.

    ``plan`` is the plan of every connection, or gives that of connection 0, 1, 2 …
    """

    def __init__(self, port: int, plan: Plan | Callable[[int], Plan] = Plan()) -> None:
        self.target_port = port
        self.plan = plan
        #: How often each fault was done.
        self.faults: Counter[Fault] = Counter()
        #: Connections that were accepted.
        self.accepted = 0
        #: Bytes that went through to the client, and to the server, of all connections.
        self.passed = [0, 0]
        #: Where the records of the last connection started, to the client and to the server, and
        #: where the last one ended; of directions whose plan has a place in a record.
        self.records: list[list[int]] = [[], []]
        self._links: list[_Link] = []
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._stopping = False
        self._going_on = False
        self._error: BaseException | None = None

    def __enter__(self) -> FaultProxy:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        self._wake()
        self._thread.join(10)
        alive = self._thread.is_alive()
        for sock in (self._listener, self._wake_read, self._wake_write):
            sock.close()
        self._selector.close()
        assert not alive, "the proxy did not stop"
        if self._error is not None:
            raise self._error

    def go_on(self) -> None:
        """Ends the stalls of all connections."""
        self._going_on = True
        self._wake()

    def _wake(self) -> None:
        self._wake_write.send(b"\0")

    # ---- In the thread of the proxy.

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except BaseException as error:
            self._error = error
        finally:
            for link in self._links:
                link.close()

    def _turn(self) -> None:
        self._watch()
        for key, _ in self._selector.select(self._until_next()):
            self._handle(key)
        if self._going_on:
            self._going_on = False
            for link in self._links:
                for direction in link.directions:
                    direction.stalled = False
        for link in self._links:
            self._advance(link)
        self._links = [link for link in self._links if not link.closed]

    def _watch(self) -> None:
        wanted: dict[socket.socket, int] = {
            self._listener: selectors.EVENT_READ,
            self._wake_read: selectors.EVENT_READ,
        }
        for link in self._links:
            for direction in link.directions:
                if not direction.ended and len(direction.pending) < PENDING_MAX:
                    wanted[direction.source] = wanted.get(direction.source, 0) | _READ
                if direction.full:
                    wanted[direction.target] = wanted.get(direction.target, 0) | _WRITE
        watched = {key.fileobj: key for key in self._selector.get_map().values()}
        for sock, key in watched.items():
            if sock not in wanted:
                self._selector.unregister(key.fileobj)
        for sock, events in wanted.items():
            if sock not in watched:
                self._selector.register(sock, events)
            elif watched[sock].events != events:
                self._selector.modify(sock, events)

    def _until_next(self) -> float | None:
        times = [
            direction.resume_at
            for link in self._links
            for direction in link.directions
            if direction.resume_at is not None
        ]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _handle(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._listener:
            self._accept()
        elif key.fileobj is self._wake_read:
            self._wake_read.recv(4096)
        else:
            for link in self._links:
                for direction in link.directions:
                    if direction.target is key.fileobj:
                        direction.full = False
                    if direction.source is key.fileobj:
                        self._receive(link, direction)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        plan = self.plan if isinstance(self.plan, Plan) else self.plan(self.accepted)
        self.accepted += 1
        try:
            server = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
        except OSError:
            client.close()
            return
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
        self._links.append(_Link(client, server, plan))

    def _receive(self, link: _Link, direction: _Direction) -> None:
        if link.closed or direction.ended:
            return
        try:
            data = direction.source.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            link.reset()  # Reset by one end, so reset the other one too.
            return
        if data:
            direction.add(data)
        else:
            direction.ended = True

    def _advance(self, link: _Link) -> None:
        for number, direction in enumerate(link.directions):
            before = direction.passed
            while not link.closed and self._advance_once(link, direction):
                pass
            self.passed[number] += direction.passed - before
            if link is self._links[-1]:
                self.records[number] = direction.records
        if not link.closed and all(
            direction.ended and direction.shut for direction in link.directions
        ):
            link.close()

    def _advance_once(self, link: _Link, direction: _Direction) -> bool:
        """One step or one piece; False when there is nothing to do now."""
        if direction.shut or direction.stalled or direction.full:
            return False
        if direction.resume_at is not None:
            if time.monotonic() < direction.resume_at:
                return False
            direction.resume_at = None
        size = len(direction.pending)
        if direction.steps:
            place = direction.place_of(direction.steps[0])
            if place is not None and place <= direction.passed:
                self._do(link, direction, direction.steps.pop(0))
                return True
            if place is not None:
                size = min(size, place - direction.passed)
        if size == 0:
            if direction.ended:
                self._shut(link, direction)
            return False
        if direction.pieces:
            size = min(size, direction.rng.choice(direction.pieces))
        return self._send(link, direction, size)

    def _send(self, link: _Link, direction: _Direction, size: int) -> bool:
        try:
            sent = direction.target.send(direction.pending[:size])
        except BlockingIOError:
            direction.full = True
            return False
        except OSError:
            link.reset()
            return False
        del direction.pending[:sent]
        direction.passed += sent
        return True

    def _do(self, link: _Link, direction: _Direction, step: Step) -> None:
        self.faults[step.fault] += 1
        if step.fault is Fault.CUT:
            for each in link.directions:
                self._shut(link, each)
        elif step.fault is Fault.HALF_CLOSE:
            self._shut(link, direction)
        elif step.fault is Fault.RESET:
            link.reset()
        elif step.fault is Fault.STALL:
            direction.stalled = True
        else:
            direction.resume_at = time.monotonic() + step.seconds

    def _shut(self, link: _Link, direction: _Direction) -> None:
        if direction.shut or link.closed:
            return
        direction.shut = True
        direction.pending.clear()
        direction.full = False
        with contextlib.suppress(OSError):
            direction.target.shutdown(socket.SHUT_WR)
