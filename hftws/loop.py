"""Many clients in one thread, with timers and calls from other threads."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from hftws import _core

__all__ = ["Loop", "TimerHandle"]

LoopT = TypeVar("LoopT", bound="Loop")

NS = 1_000_000_000


class CallQueue:
    """What other threads want to be called in the thread of a client or loop."""

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def put(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Any thread may call it, and a signal handler."""
        if not callable(callback):
            raise TypeError(
                "callback of call_soon_threadsafe() has to be callable, "
                f"not {type(callback).__name__}"
            )
        self._calls.append((callback, args))

    def run(self, wake: Callable[[], None]) -> None:
        """Calls what is there now. After an exception, ``wake`` lets the rest have its turn."""
        for _ in range(len(self._calls)):
            callback, args = self._calls.popleft()
            try:
                callback(*args)
            except BaseException:
                if self._calls:
                    wake()
                raise


class TimerHandle:
    """A call that :meth:`Loop.call_later` or :meth:`Loop.call_at` has planned."""

    __slots__ = ("_args", "_callback", "_when_ns")

    def __init__(
        self, when_ns: int, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self._when_ns = when_ns
        self._callback: Callable[..., object] | None = callback
        self._args = args

    def cancel(self) -> None:
        """The call will not be made. Does nothing when it was made already."""
        self._callback = None
        self._args = ()

    def cancelled(self) -> bool:
        """Whether the call was made or cancelled."""
        return self._callback is None

    def when(self) -> float:
        """When the call is due, in seconds of :meth:`Loop.time`."""
        return self._when_ns / NS

    def _run(self) -> None:
        callback, args = self._callback, self._args
        self.cancel()
        if callback is not None:
            callback(*args)


class Loop(_core.LoopBase):
    """Many clients in one thread, with one wait for all of them.

    :meth:`add` takes a client in and connects it without blocking. From then on its own callbacks
    tell what becomes of it: ``on_open``, ``on_msg``, ``on_close``, and ``on_error`` with the
    exception that ``run()`` would raise; a client that fails does not disturb the others. After its
    end it stays in the loop, and ``connect()`` begins anew, without blocking, also from its
    ``on_close`` or ``on_error``. In a loop, ``close()`` of a client begins the closing handshake
    and returns; its ``run()`` and ``poll()`` raise ``RuntimeError``.

    A loop, with all its clients, belongs to one thread at a time: a second one that uses it
    meanwhile gets ``RuntimeError``. Any thread, and a signal handler, may call :meth:`stop` and
    :meth:`call_soon_threadsafe`.

    No client can keep the others waiting: a turn delivers at most 256 messages and reads at most
    1 MiB. An ``on_msg`` that takes long delays all.

    As a context manager it closes all connections at the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._soon = CallQueue()
        self._timers: list[tuple[int, int, TimerHandle]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        """The clock of :meth:`call_at`: seconds of ``time.monotonic()``."""
        return time.monotonic()

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> TimerHandle:
        """Calls ``callback(*args)`` in ``delay`` seconds, from :meth:`run` or :meth:`run_once`."""
        return self._call_at_ns(time.monotonic_ns() + int(delay * NS), callback, args)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> TimerHandle:
        """Calls ``callback(*args)`` at ``when``, in seconds of :meth:`time`."""
        return self._call_at_ns(int(when * NS), callback, args)

    def _call_at_ns(
        self, when_ns: int, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> TimerHandle:
        if not callable(callback):
            raise TypeError(f"a timer needs a callable, not {type(callback).__name__}")
        timer = TimerHandle(when_ns, callback, args)
        heapq.heappush(self._timers, (when_ns, next(self._numbers), timer))
        try:
            self._set_next_timer()
        except RuntimeError:  # Another thread is inside.
            timer.cancel()
            raise
        return timer

    def _set_next_timer(self) -> None:
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        self._set_timer(self._timers[0][0] if self._timers else None)

    def _run_timers(self) -> None:
        """Calls what is due. The core calls it."""
        now_ns = time.monotonic_ns()
        try:
            while self._timers and self._timers[0][0] <= now_ns:
                heapq.heappop(self._timers)[2]._run()
        finally:
            self._set_next_timer()

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls ``callback(*args)`` in the thread that runs the loop, as soon as it can.

        Any thread may call it, and a signal handler: ``loop.call_soon_threadsafe(client.send, b)``.
        What the callback raises comes out of :meth:`run`.
        """
        self._soon.put(callback, args)
        self._wake()

    def _run_soon(self) -> None:
        """The core calls it after ``_wake``."""
        self._soon.run(self._wake)

    def __enter__(self: LoopT) -> LoopT:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes all connections."""
        self.close()

    def __repr__(self) -> str:
        return f"<hftws.Loop with {len(self)} clients>"
