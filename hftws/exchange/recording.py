"""Recorded market data: loaded once, encoded once, shared by every connection."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Final, NamedTuple

from .frames import text_frame

FILES: Final = {
    "busiest": ("binance-spot-btcusdt-busiest2s.jsonl",),
    "sample": ("binance-spot-btcusdt-sample-us.jsonl", "binance-spot-ethusdt-sample-us.jsonl"),
}

_ENVELOPE: Final = re.compile(rb'\{"stream":"([^"]+)","data":(.*)\}')
_TIME_FIELD: Final = re.compile(rb'("[ET]":)(\d+)')
_MILLISECOND_DIGITS: Final = 13


class TimeUnit(enum.Enum):
    """The unit of the time fields `E` and `T`."""

    MILLISECOND = 1_000
    MICROSECOND = 1_000_000

    def from_ns(self, time_ns: int) -> int:
        """Return a time in ns in this unit."""
        return time_ns * self.value // 1_000_000_000


class Encoding(NamedTuple):
    """What a client chooses about the form of its messages."""

    time_unit: TimeUnit = TimeUnit.MILLISECOND
    combined: bool = False


ENCODINGS: Final = tuple(
    Encoding(unit, combined) for unit in TimeUnit for combined in (False, True)
)


@dataclass(frozen=True, eq=False)
class Message:
    """One recorded message, ready to be sent in every encoding."""

    time_ns: int
    stream: str
    payload: bytes
    """The event as it was recorded, without the envelope of combined streams."""
    frames: dict[Encoding, bytes]
    """The event as a whole WebSocket frame, as it is sent the first time."""


@dataclass(frozen=True)
class Tape:
    """The messages of chosen streams in one encoding: parallel lists, in order of time."""

    offsets_ns: list[int]
    frames: list[bytes]
    messages: list[Message]


class Recording:
    """Recorded messages in order of time, to be played as an endless loop."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.messages = tuple(sorted(messages, key=lambda message: message.time_ns))
        self.streams = frozenset(message.stream for message in self.messages)
        first_ns, last_ns = self.messages[0].time_ns, self.messages[-1].time_ns
        # From the last message to the first one of the next lap passes an average gap.
        self.lap_ns = (last_ns - first_ns) * len(self.messages) // (len(self.messages) - 1)

    @classmethod
    def load(cls, name: str) -> Recording:
        """Load one of the recordings of this package: `busiest` or `sample`."""
        folder = resources.files(__package__).joinpath("data")
        lines = (line for file in FILES[name] for line in folder.joinpath(file).open("rb"))
        return cls(parse_message(line) for line in lines)

    def tape(self, streams: Collection[str], encoding: Encoding) -> Tape:
        """Return the messages of `streams`. A stream that was not recorded is silent."""
        chosen = [message for message in self.messages if message.stream in streams]
        start_ns = self.messages[0].time_ns
        return Tape(
            [message.time_ns - start_ns for message in chosen],
            [message.frames[encoding] for message in chosen],
            chosen,
        )


def parse_message(line: bytes) -> Message:
    """Parse a recorded line: `RECEIVE_TIME_NS {"stream":NAME,"data":EVENT}`."""
    time_ns, _, raw = line.strip().partition(b" ")
    envelope = _ENVELOPE.fullmatch(raw)
    if envelope is None:
        raise ValueError(f"not a recorded message: {line[:80]!r}")
    stream, payload = envelope.groups()
    name = stream.decode()
    frames = {
        encoding: frame_of(name, with_time_unit(payload, encoding.time_unit), encoding)
        for encoding in ENCODINGS
    }
    return Message(int(time_ns), name, payload, frames)


def with_time_unit(payload: bytes, unit: TimeUnit) -> bytes:
    """Convert the time fields of an event; all its other bytes stay as they are.

    Milliseconds become microseconds by three zeros: the recording does not know better.
    """

    def convert(field: re.Match[bytes]) -> bytes:
        name, digits = field.groups()
        milliseconds, microseconds = digits[:_MILLISECOND_DIGITS], digits[_MILLISECOND_DIGITS:]
        if unit is TimeUnit.MILLISECOND:
            return bytes(name + milliseconds)
        return bytes(name + milliseconds + (microseconds or b"000"))

    return _TIME_FIELD.sub(convert, payload)


def frame_of(stream: str, event: bytes, encoding: Encoding) -> bytes:
    """Return an event, whose times are in the right unit already, as a frame."""
    if encoding.combined:
        event = b'{"stream":"%b","data":%b}' % (stream.encode(), event)
    return text_frame(event)
