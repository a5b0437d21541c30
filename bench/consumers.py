"""The callbacks that are measured: the same few lines of Python for every client.

They come in the forms in which the libraries hand over a message. A form has its own functions,
since one more call would be a good part of what is measured.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.wire import Checksum


class Form(enum.Enum):
    """What a callback is given."""

    PAYLOAD = "payload"
    """The payload itself."""
    MESSAGE = "message"
    """hftws's ``Message``, whose payload is ``message.data``."""
    FRAME = "frame"
    """picows's transport and frame."""
    BUFFER = "buffer"
    """An object with the buffer protocol, which orjson does not take as it is."""


class Kind(enum.Enum):
    """What a callback does."""

    COUNT = "count"
    """Adds one."""
    PARSE = "parse"
    """Adds one, and calls ``orjson.loads``."""
    CHECK = "check"
    """Adds to a checksum."""
    STAMP = "stamp"
    """Takes the time, and stops the client after the last message, whose payload it keeps."""
    WAKE = "wake"
    """Only stops the client, after as many messages as ``expect`` was given."""
    ECHO = "echo"
    """Takes the time, and sends the next order, or after the last one stops the client."""


@dataclass
class Consumer:
    """A callback, and its results."""

    callback: Any
    count: Callable[[], int]
    checksum: Checksum = field(default_factory=Checksum)
    stamps: list[int] = field(default_factory=list)
    last: Callable[[], bytes] = lambda: b""
    #: For WAKE: how many messages there will be.
    expect: Callable[[int], None] = lambda messages: None
    #: For ECHO: sends an order. If sending has to be awaited, the callback returns what to await.
    order: Callable[[], Any] = lambda: None


def make(kind: Kind, form: Form, total: int, stop: Callable[[], None]) -> Consumer:
    """A consumer; STAMP and ECHO call `stop` with message number `total`."""
    if kind is Kind.COUNT:
        return counting(form)
    if kind is Kind.PARSE:
        return parsing(form)
    if kind is Kind.CHECK:
        return checking(form)
    if kind is Kind.WAKE:
        return waking(form, stop)
    if kind is Kind.ECHO:
        return echoing(form, total, stop)
    return stamping(form, total, stop)


def counting(form: Form) -> Consumer:
    count = 0

    def on_message(message: Any) -> None:
        nonlocal count
        count += 1

    def on_frame(transport: Any, frame: Any) -> None:
        nonlocal count
        count += 1

    return Consumer(on_frame if form is Form.FRAME else on_message, lambda: count)


def parsing(form: Form) -> Consumer:
    from orjson import loads

    count = 0

    def on_payload(payload: Any) -> None:
        nonlocal count
        loads(payload)
        count += 1

    def on_message(message: Any) -> None:
        nonlocal count
        loads(message.data)
        count += 1

    def on_frame(transport: Any, frame: Any) -> None:
        nonlocal count
        loads(frame.get_payload_as_bytes())
        count += 1

    def on_buffer(buffer: Any) -> None:
        nonlocal count
        loads(bytes(buffer))
        count += 1

    callbacks = {
        Form.PAYLOAD: on_payload,
        Form.MESSAGE: on_message,
        Form.FRAME: on_frame,
        Form.BUFFER: on_buffer,
    }
    return Consumer(callbacks[form], lambda: count)


def checking(form: Form) -> Consumer:
    consumer = Consumer(None, lambda: consumer.checksum.messages)
    checksum = consumer.checksum

    def on_message(message: Any) -> None:
        checksum.add(message.data)

    def on_frame(transport: Any, frame: Any) -> None:
        checksum.add(frame.get_payload_as_bytes())

    def on_buffer(buffer: Any) -> None:
        checksum.add(memoryview(buffer))

    callbacks = {
        Form.PAYLOAD: checksum.add,
        Form.MESSAGE: on_message,
        Form.FRAME: on_frame,
        Form.BUFFER: on_buffer,
    }
    consumer.callback = callbacks[form]
    return consumer


def stamping(form: Form, total: int, stop: Callable[[], None]) -> Consumer:
    last: Any = b""
    consumer = Consumer(None, lambda: len(stamps), last=lambda: bytes(last))
    stamps, now = consumer.stamps, time.monotonic_ns

    def on_payload(payload: Any) -> None:
        nonlocal last
        stamps.append(now())
        if len(stamps) == total:
            last = payload
            stop()

    def on_message(message: Any) -> None:
        nonlocal last
        stamps.append(now())
        if len(stamps) == total:
            last = bytes(message)
            stop()

    def on_frame(transport: Any, frame: Any) -> None:
        nonlocal last
        stamps.append(now())
        if len(stamps) == total:
            last = frame.get_payload_as_bytes()
            stop()

    callbacks = {
        Form.PAYLOAD: on_payload,
        Form.MESSAGE: on_message,
        Form.FRAME: on_frame,
        Form.BUFFER: on_payload,
    }
    consumer.callback = callbacks[form]
    return consumer


def waking(form: Form, stop: Callable[[], None]) -> Consumer:
    left = 0

    def expect(messages: int) -> None:
        nonlocal left
        left = messages

    def on_message(message: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            stop()

    def on_frame(transport: Any, frame: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            stop()

    callback = on_frame if form is Form.FRAME else on_message
    return Consumer(callback, lambda: left, expect=expect)


def echoing(form: Form, total: int, stop: Callable[[], None]) -> Consumer:
    """Stamps alternate between an order and its echo; the caller sends the first order."""
    consumer = Consumer(None, lambda: len(stamps))
    stamps, now = consumer.stamps, time.monotonic_ns

    def on_message(message: Any) -> Any:
        stamps.append(now())
        if len(stamps) == 2 * total:
            return stop()
        stamps.append(now())
        return consumer.order()

    def on_frame(transport: Any, frame: Any) -> Any:
        return on_message(frame)

    consumer.callback = on_frame if form is Form.FRAME else on_message
    return consumer
