"""Deadlines in tests: short, so that tests are, and fair to a machine that is busy.

On such a machine a process is not run for a second now and then. A deadline of a third of that may
come in an earlier stage than the one that a test is about, and that is no fault of the client:
:func:`times_out` and :func:`in_time` then try again, with more time. A client that is at fault is
so with any deadline.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import TypeVar

import pytest
from servers import PATIENCE, Peer, takes

import hftws

__all__ = ["SHORT", "SOON", "TIMEOUTS", "in_time", "times_out", "unless_given_up"]

#: Seconds, for a test that has to reach its deadline.
SHORT = 0.3

#: What is tried, one after the other, until nothing else was in the way. All are shorter than the
#: time that a peer waits.
TIMEOUTS = (SHORT, 5 * SHORT, 12 * SHORT * PATIENCE)

#: Seconds after which what happens at once has happened, for :func:`servers.takes`: less than any
#: peer or client waits by default.
SOON = 3.0

Result = TypeVar("Result")


def times_out(attempt: Callable[[float], object], stage: str, *, busy: bool = False) -> None:
    """Checks that the attempt times out, in this stage, with the deadline that it is given."""
    for timeout in TIMEOUTS:
        with takes(timeout, timeout + SOON, busy=busy):
            with pytest.raises(hftws.ConnectTimeout) as caught:
                attempt(timeout)
        assert isinstance(caught.value, TimeoutError)
        if stage in str(caught.value):
            return
    raise AssertionError(f"not in the stage {stage!r}: {caught.value}")


def in_time(attempt: Callable[[float], Result]) -> Result:
    """The result of an attempt that should succeed; tried again with more time if it times out.

    The attempt must not catch ConnectTimeout, and has to start its own server.
    """
    for timeout in TIMEOUTS[:-1]:
        with contextlib.suppress(hftws.ConnectTimeout):
            return attempt(timeout)
    return attempt(TIMEOUTS[-1])


def unless_given_up(script: Callable[[Peer], object]) -> Callable[[Peer], None]:
    """Makes the script end without an error when the client, whose deadline is short, is gone."""

    @functools.wraps(script)
    def play(peer: Peer) -> None:
        with contextlib.suppress(EOFError, OSError):
            script(peer)

    return play
