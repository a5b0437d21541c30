"""The runner of CI: each step ends within its limit, and the last lines tell what failed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ci import __main__ as ci
from ci import findings, summary
from ci.lanes import Lanes, Result
from ci.steps import FIRST, STEPS, TOTAL_LIMIT_S, Step
from servers import PATIENCE

TESTS = Path(__file__).parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CI is Linux")

#: Seconds that no step here takes.
LONG_S = 50.0 * PATIENCE

Run = Callable[..., list[Result]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs shell scripts as steps, a name each, and gives the results as they end."""

    def run_all(scripts: dict[str, str], *, lanes: int = 1, deadline_s: float = LONG_S,
                limit_s: int = int(LONG_S)) -> list[Result]:  # fmt: skip
        results: list[Result] = []
        runner = Lanes(
            tmp_path,
            command=lambda step: ["sh", "-c", scripts[step.name]],
            deadline=time.monotonic() + deadline_s,
            folder=tmp_path,
        )
        runner.run([Step(name, limit_s) for name in scripts], lanes, ended=results.append)
        return results

    return run_all


# ---- Lanes. ------------------------------------------------------------------------------------


def test_every_step_runs_whatever_became_of_those_before_it(run: Run) -> None:
    results = run({"one": "echo out; echo err >&2; exit 3", "two": "true", "three": "kill -9 $$"})
    assert [(result.step.name, result.status) for result in results] == [
        ("one", 3), ("two", 0), ("three", -9),
    ]  # fmt: skip
    assert [result.passed for result in results] == [False, True, False]
    assert results[0].log.read_text(encoding="utf-8") == "out\nerr\n"


def test_two_lanes_run_side_by_side(run: Run, tmp_path: Path) -> None:
    """Each of the two waits for the other: one after the other, neither would end."""
    for name in ("here", "there"):
        os.mkfifo(tmp_path / name)
    results = run({"one": "echo >here; cat there", "two": "cat here; echo >there"}, lanes=2)
    assert all(result.passed for result in results)


def test_a_step_that_hangs_is_ended_with_all_of_its_processes(run: Run, tmp_path: Path) -> None:
    script = "sleep 1000 & echo $! >child; wait"
    (result,) = run({"hangs": script}, limit_s=1)
    assert not result.passed
    assert result.ended == "ended after its limit of 0 min"
    child = int((tmp_path / "child").read_text(encoding="utf-8"))
    assert not is_alive(child)


def test_what_a_step_leaves_running_is_ended(run: Run, tmp_path: Path) -> None:
    (result,) = run({"leaves": "sleep 1000 & echo $! >child"})
    assert result.passed
    assert not is_alive(int((tmp_path / "child").read_text(encoding="utf-8")))


def test_no_step_begins_when_the_time_is_over(run: Run) -> None:
    (result,) = run({"late": "true"}, deadline_s=0.0)
    assert not result.passed
    assert result.ended == "there was no time left"


def test_a_command_that_is_not_there_has_failed(tmp_path: Path) -> None:
    """Only the step fails, not its lane, which would skip the steps behind it."""
    results: list[Result] = []
    runner = Lanes(
        tmp_path,
        command=lambda step: [str(tmp_path / step.name)],
        deadline=time.monotonic() + LONG_S,
        folder=tmp_path,
    )
    runner.run([Step("one"), Step("two")], 1, ended=results.append)
    assert [result.passed for result in results] == [False, False]
    assert "No such file" in results[0].ended


def test_the_cpu_time_is_that_of_all_processes(run: Run) -> None:
    """A child that computes counts; one that sleeps does not."""
    spin = f"{sys.executable} -S -c 'import time\nwhile time.process_time() < 0.3: pass'; true"
    busy, idle = run({"busy": spin, "idle": "sleep 0.3"})
    assert busy.cpu_seconds >= 0.3
    assert idle.cpu_seconds < 0.3 * PATIENCE


def is_alive(pid: int) -> bool:
    """Whether it runs; a process that has ended may be waiting for its parent to ask."""
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        if state == "Z":
            return False
        time.sleep(0.01)
    return True


# ---- Steps. ------------------------------------------------------------------------------------


def test_the_last_step_runs_when_the_others_have_ended(tmp_path: Path, signals: None) -> None:
    """It measures time, so nothing may run beside it."""
    scripts = {"one": "touch one.runs; sleep 0.2; rm one.runs", "build": "true"}
    scripts |= {"two": "exit 1", "last": "test ! -e one.runs && touch ran"}
    plan = ci.Plan(Step("build"), [Step("one"), Step("two")], [Step("last")])
    status = ci.run(
        plan,
        lanes=2,
        logs=tmp_path,
        command=lambda step: ["sh", "-c", f"cd {tmp_path}; {scripts[step.name]}"],
    )
    assert status == 1
    assert (tmp_path / "ran").exists()


def test_every_step_is_a_target_of_the_makefile() -> None:
    targets = re.findall(
        r"^([\w-]+):", (TESTS.parent / "Makefile").read_text(encoding="utf-8"), re.M
    )
    assert {FIRST.name, *(step.name for step in STEPS)} <= set(targets)


def test_no_step_may_take_the_time_of_all() -> None:
    assert all(step.limit_s <= TOTAL_LIMIT_S / 2 for step in STEPS)


def test_a_failed_first_step_is_the_last_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], signals: None
) -> None:
    """Without the extension every other step would fail, and bury the reason."""
    plan = ci.Plan(Step("build"), [Step("test")])
    status = ci.run(plan, lanes=1, logs=tmp_path, command=lambda step: ["false"])
    assert status == 1
    printed = capfd.readouterr().out
    assert printed.splitlines()[-1] == "Failed: build; not begun: 1"
    assert "test " not in printed


@pytest.fixture
def signals() -> Iterator[None]:
    """As they were before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_ends_the_steps_and_the_end_says_so(tmp_path: Path) -> None:
    """When CI is cancelled, no process stays, and it reports what had run."""
    program = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
from ci import __main__ as ci
from ci.steps import Step
scripts = {{"build": "true", "hangs": "echo $$ >new; mv new begun; exec sleep 1000"}}
ci.ROOT = Path({str(tmp_path)!r})
plan = ci.Plan(Step("build"), [Step("hangs"), Step("waits")])
sys.exit(ci.run(plan, lanes=1, logs=ci.ROOT,
                command=lambda step: ["sh", "-c", scripts[step.name]]))
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=LONG_S)
    assert process.returncode == 1
    assert printed.splitlines()[-1] == "Failed: hangs waits"
    assert re.search(r"^hangs +ended by a signal ", printed, re.M)
    assert re.search(r"^===== hangs begins; .*hangs\.log$", printed, re.M)
    assert "waits begins" not in printed
    assert not is_alive(int((tmp_path / "begun").read_text(encoding="utf-8")))


# ---- What failed. ------------------------------------------------------------------------------

PYTEST = """\
tests/test_send.py ..F
=========================== short test summary info ============================
SKIPPED [3] tests/test_dist.py:80: no release was given
FAILED tests/test_send.py::test_it[wss] - BufferError: the send ring is full
ERROR tests/test_new.py - ModuleNotFoundError: No module named 'new'
============= 1 failed, 5 passed, 3 skipped, 1 error in 61.00s =============
make: *** [Makefile:55: test-python] Error 1
"""

ZIG = """\
test
+- run test 470 pass, 1 fail (471 total)
error: 'connection_test.test.a ping is answered' failed:
       /checkout/src/connection_test.zig:100:5: 0x1234 in test.a ping is answered (test)
src/ws/parser.zig:71:9: error: expected type 'u8', found 'u16'
"""

KTLS = """\
12 of 13 boots ran, 0 skipped, 1 failed
bookworm-openssl-host-ktls: Kernel panic - not syncing: no init: the guest ended without a word
make: *** [Makefile:124: ktls-test] Error 1
"""

MEMCHECK = """\
InvalidRead: Invalid read of size 8
    read (ringbuffer.zig:100)
memcheck: 1 errors of ours, 30 of others
"""

FUZZ = """\
frames: exit code 77, see /checkout/build/fuzz/frames/log
again: HFTWS_FUZZ_TARGET=frames build/fuzz/targets build/fuzz/frames/crash-1
"""


@pytest.mark.parametrize(
    ("output", "named"),
    [
        pytest.param(PYTEST, [4, 5, 7], id="pytest"),
        pytest.param(ZIG, [3, 5], id="zig"),
        pytest.param("8/9 os.test.a.name...FAIL (Unexpected)\n", [1], id="zig by itself"),
        pytest.param(KTLS, [2, 3], id="ktls"),
        pytest.param(MEMCHECK, [1, 3], id="memcheck"),
        pytest.param(FUZZ, [1, 2], id="fuzz"),
        pytest.param("hftws/client.py:3: error: Missing return statement\n", [1], id="mypy"),
        pytest.param("  /a/b.py:3:22 - error: Expected 1 positional\n", [1], id="pyright"),
        pytest.param("unformatted: File would be …\n   --> a.py:142:1\n", [2], id="ruff format"),
        pytest.param("F401 `os` imported but unused\n --> a.py:1:8\n", [1, 2], id="ruff check"),
        pytest.param("src/ws.zig\n", [1], id="zig fmt"),
        pytest.param("On Arm: core exit 0, extension exit 1, 9 s\n", [1], id="arm"),
        pytest.param("On Arm with pages of 16384 bytes: exit 0\n", [], id="arm passed"),
        pytest.param("not built: 3.11 for macOS: no headers\n", [1], id="wheels"),
        pytest.param("make -j2 failed:\n/bin/sh: no gcc\n", [1], id="free-threading"),
    ],
)
def test_the_lines_that_name_what_failed_come_first(output: str, named: list[int]) -> None:
    lines = output.splitlines()
    wanted = [lines[number - 1].strip() for number in named]
    assert findings.find(output, lines_max=50)[: len(wanted)] == wanted
    assert [line.strip() for line in lines if findings.is_name(line)] == wanted


def test_an_output_that_names_nothing_is_shown_from_its_end() -> None:
    output = "\n".join(f"line {number}" for number in range(1000))
    assert findings.find(output, lines_max=3) == ["line 997", "line 998", "line 999"]


def test_more_failures_than_there_is_room_for_are_counted() -> None:
    output = "".join(f"FAILED a.py::test_{number} - no\n" for number in range(100)) + "the end\n"
    output += "SKIPPED [3] a.py:3: not here\n1.10s call     a.py::test_200\n"
    assert findings.find(output, lines_max=4) == [
        "FAILED a.py::test_0 - no",
        "FAILED a.py::test_1 - no",
        "… and 98 more",
        "the end",
    ]


def test_a_long_line_is_cut() -> None:
    (line,) = findings.find("x" * 10_000, lines_max=4)
    assert line == "x" * (findings.LINE_LENGTH_MAX - 1) + "…"


# ---- The end of the output. --------------------------------------------------------------------


def result_of(tmp_path: Path, name: str, output: str, **fields: object) -> Result:
    log = tmp_path / f"{name}.log"
    log.write_text(output, encoding="utf-8")
    given = {"status": 2, "seconds": 61.4, "cpu_seconds": 70.0, **fields}
    return Result(Step(name), log, **given)  # type: ignore[arg-type]


def test_the_end_fits_into_the_last_hundred_lines(tmp_path: Path) -> None:
    """Even if every step fails, each one's reason is there."""
    output = "".join(f"FAILED a.py::test_{number} - no\n" for number in range(500))
    results = [result_of(tmp_path, step.name, output) for step in (FIRST, *STEPS)]
    lines = summary.describe(results, lanes=2, seconds=1500.0)
    assert len(lines) <= 100
    for result in results:
        heading = next(index for index, line in enumerate(lines) if
                       line.startswith(f"--- {result.step.name}: "))  # fmt: skip
        assert lines[heading + 1].startswith("FAILED a.py::test_0")


def test_the_table_has_every_step_and_the_last_line_the_failed_ones(tmp_path: Path) -> None:
    results = [
        result_of(tmp_path, "build", "", status=0),
        result_of(tmp_path, "test", PYTEST),
        result_of(tmp_path, "arm-test", "", ended="ended after its limit of 40 min"),
    ]
    lines = summary.describe(results, lanes=2, seconds=1500.0)
    table = "\n".join(lines)
    assert re.search(r"^build +passed +61 +70$", table, re.M)
    assert re.search(r"^test +FAILED, exit status 2 +61 +70$", table, re.M)
    assert re.search(r"^arm-test +ended after its limit of 40 min +61 +70$", table, re.M)
    assert lines[-1] == "Failed: test arm-test"


def test_nothing_is_called_failed_where_all_passed(tmp_path: Path) -> None:
    lines = summary.describe([result_of(tmp_path, "test", PYTEST, status=0)], lanes=1, seconds=1.0)
    assert not any("FAILED" in line or "Failed" in line for line in lines)
