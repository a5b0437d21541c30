"""Runs steps, some at a time, each with its own log, a time limit, and its CPU time."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .steps import Step

__all__ = ["Lanes", "Result"]

#: Seconds from SIGTERM, which lets a step clean up, to SIGKILL.
STOP_TIMEOUT_S = 30.0

#: Seconds between two looks of a lane at its step.
LOOK_S = 0.1


@dataclass(frozen=True)
class Result:
    """How a step went."""

    step: Step
    log: Path
    #: Its exit status; negative when a signal has ended it.
    status: int
    seconds: float
    #: CPU seconds of all its processes that have been waited for.
    cpu_seconds: float
    #: Why it was stopped, or did not begin; empty when it ended normally.
    ended: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing in it failed; what this machine cannot run does not count."""
        return self.status == 0 and not self.ended


class Lanes:
    """Some steps at a time, until all have run, or the time is over, or :meth:`stop`."""

    def __init__(
        self, logs: Path, *, command: Callable[[Step], Sequence[str]], deadline: float, folder: Path
    ) -> None:
        """Prepares to run in ``folder``; ``deadline`` is a time of :func:`time.monotonic`."""
        self.logs, self.command, self.deadline, self.folder = logs, command, deadline, folder
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends the running steps, as their limit would. No further step begins."""
        self._stopped.set()

    def run(
        self,
        steps: Iterable[Step],
        count: int,
        *,
        begins: Callable[[Step], None] = lambda step: None,
        ended: Callable[[Result], None],
    ) -> None:
        """Runs them in ``count`` lanes, and tells of each; by one lane at a time.

        What does not begin, since the time is over or :meth:`stop` was called, has ended as well.
        """
        waiting: queue.SimpleQueue[Step] = queue.SimpleQueue()
        for step in steps:
            waiting.put(step)
        telling = threading.Lock()

        def lane() -> None:
            with contextlib.suppress(queue.Empty):
                while True:
                    step = waiting.get_nowait()
                    if not self.why_end():
                        with telling:
                            begins(step)
                    result = self.run_step(step)
                    with telling:
                        ended(result)

        lanes = [threading.Thread(target=lane) for _ in range(count)]
        for thread in lanes:
            thread.start()
        for thread in lanes:
            thread.join()

    def run_step(self, step: Step) -> Result:
        """Runs one, and leaves none of its processes behind."""
        log = self.logs / f"{step.name}.log"
        with log.open("wb") as output:
            if reason := self.why_end():
                return Result(step, log, 1, 0.0, 0.0, reason)
            began = time.monotonic()
            try:
                process = subprocess.Popen(
                    self.command(step),
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # A process group, which can be ended as a whole.
                )
            except OSError as error:
                return Result(step, log, 1, 0.0, 0.0, f"did not begin: {error}")
            status, cpu_seconds, ended = self.wait(process, step.limit_s)
        return Result(step, log, status, time.monotonic() - began, cpu_seconds, ended)

    def wait(self, process: subprocess.Popen[bytes], limit_s: float) -> tuple[int, float, str]:
        """Exit status, CPU time, and why it was ended."""
        limit = time.monotonic() + limit_s
        ended, kill_at = "", 0.0
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            now = time.monotonic()
            if not ended:
                ended = self.why_end()
                if not ended and now >= limit:
                    ended = f"ended after its limit of {limit_s / 60:.0f} min"
                if ended:
                    signal_group(process.pid, signal.SIGTERM)
                    kill_at = now + STOP_TIMEOUT_S
            elif now >= kill_at:
                signal_group(process.pid, signal.SIGKILL)
            time.sleep(LOOK_S)
        signal_group(process.pid, signal.SIGKILL)  # Processes that the step has left running.
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, used.ru_utime + used.ru_stime, ended

    def why_end(self) -> str:
        """Why all steps have to end; empty while they may run."""
        if self._stopped.is_set():
            return "ended by a signal"
        return "there was no time left" if time.monotonic() >= self.deadline else ""


def signal_group(group: int, signum: int) -> None:
    """Sends the signal to every process of the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signum)
