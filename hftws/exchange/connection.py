"""One client's connection: what Binance adds to the WebSocket protocol.

Built on the `websockets` package. Market data goes around its `send()`: the frames are encoded
beforehand, and each is handed to the transport on its own, so that it gets a TLS record of its own.
asyncio has set TCP_NODELAY on the socket.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from .frames import ping_frame
from .recording import TimeUnit
from .subscriptions import Subscriptions

CLOSE_TIMEOUT: Final = 1.0
"""How long a client may take to answer a close frame."""

POLICY_VIOLATION: Final = 1008
GOING_AWAY: Final = 1001

_COUNTED: Final = (Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG)


class InboundLimit:
    """Allows `messages_max` messages within any second; zero allows all."""

    def __init__(self, messages_max: int) -> None:
        self._arrivals: deque[float] = deque(maxlen=messages_max)

    def exceeded(self, now: float) -> bool:
        """Count a message that arrives now, and tell whether it is one too many."""
        arrivals = self._arrivals
        too_many = len(arrivals) == arrivals.maxlen and bool(arrivals) and now - arrivals[0] < 1.0
        arrivals.append(now)
        return too_many


class ExchangeConnection(ServerConnection):
    """A `websockets` connection with an inbound limit, Binance's pings and a fast way to send."""

    subscriptions: Subscriptions

    def __init__(self, *args: Any, inbound_limit: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._inbound_limit = InboundLimit(inbound_limit)
        self._dismissal: asyncio.Task[None] | None = None
        self._unanswered: dict[bytes, asyncio.TimerHandle] = {}
        self._writable = asyncio.Event()
        self._writable.set()

    def send_frames(self, frames: list[bytes]) -> None:
        """Send encoded frames, each in a TLS record of its own."""
        if self.protocol.state is not State.OPEN or self.transport.is_closing():
            return
        if sys.version_info >= (3, 11):
            self.transport.writelines(frames)
        else:  # joins the frames
            for frame in frames:
                self.transport.write(frame)

    async def writable(self) -> None:
        """Let other tasks run, and wait until the client has taken enough of what is buffered."""
        await asyncio.sleep(0)
        await self._writable.wait()

    async def keep_alive(self, interval: float, timeout: float) -> None:
        """Ping with the time as payload; disconnect if a pong does not come back in time."""
        sent_ms = 0
        while True:
            await asyncio.sleep(interval)
            # Each payload is new, so that a pong answers one ping only.
            sent_ms = max(sent_ms + 1, TimeUnit.MILLISECOND.from_ns(time.time_ns()))
            payload = str(sent_ms).encode()
            # `ping()` would wait for a client that does not read, which has to be disconnected.
            self.send_frames([ping_frame(payload)])
            if timeout:
                self._unanswered[payload] = self.loop.call_later(
                    timeout, self.dismiss, POLICY_VIOLATION, "Pong timeout"
                )

    def dismiss(self, code: int, reason: str) -> asyncio.Task[None]:
        """Disconnect the client, even if it no longer reads."""
        if self._dismissal is None:
            self._dismissal = self.loop.create_task(self._dismiss(code, reason))
        return self._dismissal

    async def _dismiss(self, code: int, reason: str) -> None:
        try:
            await asyncio.wait_for(self.close(code, reason), CLOSE_TIMEOUT)
        except (asyncio.TimeoutError, ConnectionClosed):
            self.transport.abort()

    def _pong_received(self, payload: bytes) -> None:
        """Take this ping and those before it as answered; ignore a pong that answers no ping."""
        if payload not in self._unanswered:
            return
        for ping in list(self._unanswered):
            self._unanswered.pop(ping).cancel()
            if ping == payload:
                break

    # What websockets and asyncio call.

    def process_event(self, event: Event) -> None:
        """Count frames and match pongs; ignore everything once the client is being disconnected."""
        if self._dismissal is not None:
            return
        if isinstance(event, Frame):
            if event.opcode in _COUNTED and self._inbound_limit.exceeded(self.loop.time()):
                self.dismiss(POLICY_VIOLATION, "Too many requests")
                return
            if event.opcode is Opcode.PONG:
                self._pong_received(bytes(event.data))
        super().process_event(event)

    def pause_writing(self) -> None:
        """Note that the client does not keep up."""
        super().pause_writing()
        self._writable.clear()

    def resume_writing(self) -> None:
        """Note that the client has caught up."""
        super().resume_writing()
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake the replay, and expect no pongs any more."""
        super().connection_lost(exc)
        self._writable.set()
        for watchdog in self._unanswered.values():
            watchdog.cancel()
