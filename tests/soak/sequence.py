"""What both sides of a soak share: the number and the bytes of each message."""

from __future__ import annotations

from dataclasses import dataclass

from hftws.exchange.recording import Recording


class WrongMessageError(Exception):
    """A message was lost, repeated, reordered or changed."""


@dataclass(frozen=True)
class Messages:
    """The recording as an endless sequence."""

    times_ns: list[int]
    payloads: list[bytes]
    lap_ns: int

    def text(self, number: int) -> str:
        """The message of this number, as it goes over the wire."""
        return f"{number} {self.payload(number).decode()}"

    def payload(self, number: int) -> bytes:
        """What was recorded."""
        return self.payloads[number % len(self.payloads)]

    def time_ns(self, number: int) -> int:
        """When it is sent, from the start of the first lap, at the speed of the recording."""
        laps, index = divmod(number, len(self.payloads))
        return laps * self.lap_ns + self.times_ns[index] - self.times_ns[0]


def recorded() -> Messages:
    recording = Recording.load("sample")
    times_ns = [message.time_ns for message in recording.messages]
    return Messages(times_ns, [message.payload for message in recording.messages], recording.lap_ns)


def order(number: int) -> bytes:
    """What a client sends upstream as its message of this number."""
    return b"order %d " % number + bytes([number % 251]) * (number * 7 % 400)


class Checker:
    """Compares the messages of one subscription with the recording, across its connections."""

    def __init__(self, messages: Messages) -> None:
        self.messages = messages
        #: The number of the next message.
        self.next = 0
        self.bytes = 0

    def check(self, data: bytes) -> None:
        number, _, payload = data.partition(b" ")
        if number != b"%d" % self.next:
            raise WrongMessageError(f"message {number[:20]!r} came in place of {self.next}")
        if payload != self.messages.payload(self.next):
            raise WrongMessageError(f"message {self.next} was changed: {payload[:100]!r}")
        self.next += 1
        self.bytes += len(data)
