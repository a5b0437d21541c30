"""What a message looks like when the recording is played again: its ids and times go on.

In each lap, the ids of a stream follow those of the lap before without a gap, and no time goes
back. All other bytes stay as recorded, except for the first change of each book: see
`order_book.BookHistory`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from .order_book import BookHistory
from .recording import Encoding, Message, Recording, TimeUnit, frame_of, with_time_unit

_NUMBER: Final = re.compile(rb'"([UutET])":(\d+)')
_TIMES: Final = (b"E", b"T")


class _Template(NamedTuple):
    """An event with its numbers taken out."""

    text: bytes
    """For the operator `%`."""
    first: list[int]
    """The numbers in the first lap; times in µs."""
    step: list[int]
    """How much they grow in each lap."""
    divisor: list[int]
    """What they are then divided by: 1,000 for times in ms."""


class Repeats:
    """Makes the frames of all laps after the first one."""

    def __init__(self, recording: Recording, histories: Mapping[str, BookHistory]) -> None:
        self._ids_per_lap = {
            symbol.lower(): history.ids_per_lap for symbol, history in histories.items()
        }
        self._trades_per_lap = _trades_per_lap(recording)
        self._us_per_lap = _us_per_lap(recording)
        self._events = {
            history.first_message: history.repeated_first_event() for history in histories.values()
        }
        self._templates: dict[tuple[Message, TimeUnit], _Template] = {}

    def frame(self, message: Message, encoding: Encoding, lap: int) -> bytes:
        """Return the frame of a recorded message in this lap, counted from zero."""
        if lap == 0:
            return message.frames[encoding]
        return frame_of(message.stream, self.event(message, encoding.time_unit, lap), encoding)

    def event(self, message: Message, unit: TimeUnit, lap: int) -> bytes:
        """Return the event of a recorded message in this lap, counted from zero."""
        if lap == 0:
            return with_time_unit(message.payload, unit)
        template = self._templates.get((message, unit))
        if template is None:
            template = self._templates[message, unit] = self._template(message, unit)
        return template.text % tuple(
            (first + lap * step) // divisor
            for first, step, divisor in zip(
                template.first, template.step, template.divisor, strict=True
            )
        )

    def _template(self, message: Message, unit: TimeUnit) -> _Template:
        payload = self._events.get(message, message.payload)
        payload = with_time_unit(payload, TimeUnit.MICROSECOND).replace(b"%", b"%%")
        symbol = message.stream.partition("@")[0]
        steps = {
            b"U": self._ids_per_lap[symbol],
            b"u": self._ids_per_lap[symbol],
            b"t": self._trades_per_lap.get(message.stream, 0),
            b"E": self._us_per_lap,
            b"T": self._us_per_lap,
        }
        numbers: list[tuple[bytes, bytes]] = _NUMBER.findall(payload)
        in_ms = unit is TimeUnit.MILLISECOND
        return _Template(
            _NUMBER.sub(rb'"\1":%d', payload),
            [int(digits) for _, digits in numbers],
            [steps[name] for name, _ in numbers],
            [1000 if in_ms and name in _TIMES else 1 for name, _ in numbers],
        )


def _trades_per_lap(recording: Recording) -> dict[str, int]:
    ids: dict[str, list[int]] = {}
    for message in recording.messages:
        if message.stream.endswith("@trade"):
            ids.setdefault(message.stream, []).append(json.loads(message.payload)["t"])
    return {stream: numbers[-1] - numbers[0] + 1 for stream, numbers in ids.items()}


def _us_per_lap(recording: Recording) -> int:
    """Return the time of a lap, or a little more if the times of a stream would go back."""
    times: dict[str, list[int]] = {}
    for message in recording.messages:
        event = json.loads(with_time_unit(message.payload, TimeUnit.MICROSECOND))
        if "E" in event:
            times.setdefault(message.stream, []).append(event["E"])
    spans = [max(of_stream) - min(of_stream) for of_stream in times.values()]
    return max(recording.lap_ns // 1000, *spans)
