"""`python -m hftws demo`: its table in made-up time, what it shows, and how it ends."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from servers import PATIENCE

from hftws import __main__ as command_line
from hftws import demo

STAGE = dict.fromkeys((*demo.COLUMNS, "lower_bounds"), 0)


class Terminal(io.StringIO):
    """What is drawn, frame by frame."""

    def __init__(self, *, live: bool) -> None:
        super().__init__()
        self.live = live

    def isatty(self) -> bool:
        return self.live

    @property
    def frames(self) -> int:
        return self.getvalue().count("latency, µs")


class SlowClient:
    """Gets nothing: each poll takes its timeout, and some a pause (Ctrl-Z, fg) more."""

    def __init__(self, pauses: dict[int, float]) -> None:
        self.now = 1000.0
        self.pauses = pauses
        self.timeouts: list[float] = []
        self.drawing_s = 0.0

    def poll(self, timeout: float) -> int:
        if timeout < 0:
            raise ValueError("timeout has to be 0 or more")
        self.now += timeout + self.pauses.get(len(self.timeouts), 0.0)
        self.timeouts.append(timeout)
        return 0

    def stats(self) -> dict[str, Any]:
        self.now += self.drawing_s
        return {"latency": dict.fromkeys(demo.STAGES, STAGE)}


def watch(
    monkeypatch: pytest.MonkeyPatch,
    pauses: dict[int, float],
    *,
    live: bool = True,
    drawing_s: float = 0.0,
) -> tuple[SlowClient, Terminal]:
    client: Any = SlowClient(pauses)
    client.drawing_s = drawing_s
    output = Terminal(live=live)
    monkeypatch.setattr(demo, "time", SimpleNamespace(monotonic=lambda: client.now))
    demo.watch(client, demo.Feed(), 10.0, output)
    return client, output


def test_the_table_is_drawn_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    client, output = watch(monkeypatch, {})
    assert client.timeouts == [0.5] * 20
    assert output.frames == 20


@pytest.mark.parametrize("pause", [0.7, 1.6, 5.0])
def test_after_a_pause_it_goes_on_as_before(monkeypatch: pytest.MonkeyPatch, pause: float) -> None:
    """After a pause, missed frames are not drawn one by one, and no timeout is negative."""
    client, output = watch(monkeypatch, {2: pause})
    assert client.now == pytest.approx(1010.0)
    assert client.timeouts[:-1] == pytest.approx([0.5] * (len(client.timeouts) - 1))
    assert output.frames == len(client.timeouts) < 20


def test_drawing_may_take_longer_than_a_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that was stopped with Ctrl-S, for example: messages are still received."""
    client, output = watch(monkeypatch, {}, drawing_s=2.0)
    assert client.timeouts == [0.5, 0.0, 0.0, 0.0, 0.0]
    assert output.frames == 5


def test_a_pause_beyond_the_end_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    client, output = watch(monkeypatch, {2: 60.0})
    assert len(client.timeouts) == output.frames == 3


@pytest.mark.parametrize("pauses", [{}, {3: 0.3}, {2: 5.2}])
def test_a_file_gets_the_first_table_and_the_last(
    monkeypatch: pytest.MonkeyPatch, pauses: dict[int, float]
) -> None:
    _, output = watch(monkeypatch, pauses, live=False)
    assert output.frames == 2
    assert "\x1b" not in output.getvalue()


# ---- What it shows. ----------------------------------------------------------------------------


def table(**changes: int) -> list[str]:
    stage = {**STAGE, **changes}
    return demo.latency_table(dict.fromkeys(demo.STAGES, stage))


@pytest.mark.parametrize("duration_us", [0, 1, 99_998, 99_999, 10_000_000, 99_999_999])
def test_the_table_fits_80_columns_whatever_is_in_it(duration_us: int) -> None:
    columns = dict.fromkeys(demo.COLUMNS[1:], duration_us * 1000)
    lines = table(count=99_999_999, **columns)
    assert {len(line) for line in lines} == {demo.WIDTH}
    assert all(len(line.split()) > len(columns) for line in lines)  # No two columns touch.


def test_all_that_is_printed_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """The longest names that there are, for the connection, too."""
    info = {
        "peer_address": "[fe80:1234:5678:9abc:def0:1234:5678:9abc]:65535",
        "tls_version": "TLSv1.3",
        "cipher": "ECDHE-ECDSA-CHACHA20-POLY1305",
        "tls_library": "OpenSSL 3.5.0-beta1 25 Mar 2026",
        "engine": "openssl",
        "aead": "libipsec-mb 1.3.0, AVX-512 VAES",
        "kernel_stamp_source": "hardware",
    }
    client: Any = SimpleNamespace(info=lambda: info)
    feed = demo.Feed()
    feed.newest = '{"µ":"…"}'.encode() * 20
    feed.by_stream = dict.fromkeys(demo.STREAMS, 99_999_999)
    demo.show_connection(client)
    print(demo.newest_line(feed))
    counters = dict.fromkeys(("messages", "records", "reads"), 9_999_999) | {"bytes": 10**10}
    kernel = {**STAGE, "count": 99_999_999, "lower_bounds": 99_999_999}
    stats: dict[str, Any] = {**counters, "latency": {"kernel": kernel}}
    demo.show_summary(stats, feed, 1234.5)
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= demo.WIDTH


# ---- How it ends. ------------------------------------------------------------------------------


@contextlib.contextmanager
def running(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """The demo in a session of its own, so that a signal to its group is as Ctrl-C."""
    path = os.pathsep.join(filter(None, [variables.pop("first_path", ""), *sys.path]))
    with subprocess.Popen(
        [sys.executable, "-m", "hftws", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def end_of(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=PATIENCE * 30.0)
    return process.returncode, output, errors


def test_ctrl_c_ends_it_with_the_summary() -> None:
    with running("--seconds=inf") as process:
        assert process.stdout is not None
        while "latency, µs" not in process.stdout.readline():
            pass
        os.killpg(process.pid, signal.SIGINT)
        code, output, errors = end_of(process)
    assert (code, errors) == (130, "")
    assert "TLS records in" in output


def test_ctrl_c_at_the_start_ends_it_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "launch", interrupted)
    assert command_line.main(["demo"]) == 130


@pytest.mark.parametrize("seconds", ["0.6", "inf"])
def test_it_ends_when_nobody_reads_on(seconds: str) -> None:
    """As in `| head`, whether it is found out while it runs or at the end."""
    with running(f"--seconds={seconds}") as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("newest:"):
            pass
        process.stdout.close()
        process.stdout = None
        if seconds == "inf":  # It draws only twice when this is no terminal: so end it.
            os.killpg(process.pid, signal.SIGINT)
        code, _, errors = end_of(process)
    assert (code, errors) == (141, "")


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "websockets.py").write_text("raise ImportError('No module named websockets')")
    with running(first_path=str(tmp_path)) as process:
        code, output, errors = end_of(process)
    assert (code, output) == (1, "")
    assert "pip install 'hftws[exchange]'" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "argument",
    ["--rate=0", "--rate=-1", "--rate=nan", "--rate=x",
     "--seconds=0", "--seconds=-1", "--seconds=nan", "--seconds=x"],
)  # fmt: skip
def test_numbers_that_make_no_sense_are_refused(
    argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        command_line.main(["demo", argument])
    assert exited.value.code == 2
    name, _, value = argument.partition("=")
    assert re.search(rf"argument {name}: '?{value}'? is not", capsys.readouterr().err)
