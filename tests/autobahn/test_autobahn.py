"""The cases of the Autobahn TestSuite that are quick: all of sections 1 to 10, some of 12 and 13.

`make autobahn` plays all of them (see the package's docstring). Each way to connect is played once,
when the first of its tests asks for it; the tests then look at one section each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from frames import RING_MIN
from servers import BINARY, PATIENCE, TEXT, Peer, Serve

import hftws

from . import environment, report
from .__main__ import is_wanted, main
from .echo import COMPRESSION_SECTIONS, Echo
from .runner import VARIANTS, Outcome, Variant, run
from .suite import Suite, SuiteError
from .verdicts import (
    INFORMATIONAL_CASES,
    SECTION_SIZES,
    Verdict,
    expected,
    failures,
    missing_cases,
    section_of,
    summary,
)

#: Every kind of data, every set of parameters, small and large messages, whole and in fragments.
COMPRESSION_CASES = {
    "12.1.1", "12.1.4", "12.2.3", "12.3.5", "12.4.6", "12.5.11",
    "13.1.2", "13.2.3", "13.3.3", "13.4.2", "13.5.4", "13.6.11", "13.7.5",
}  # fmt: skip

PASSED = Verdict("OK", "OK")

#: Seconds for all quick cases of one way to connect, of which each has a limit of its own.
OUTCOME_TIMEOUT = 300 * PATIENCE

# ---- What the server says of the client. -------------------------------------------------------


@pytest.fixture(scope="module")
def python() -> Path:
    """The CPython 2.7 that has the suite."""
    try:
        return environment.provide()
    except environment.Unavailable as error:
        pytest.skip(f"no Autobahn TestSuite: {error}")


@pytest.fixture(scope="module", params=VARIANTS)
def outcome(
    request: pytest.FixtureRequest, python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    """All quick cases in one way to connect."""
    variant = VARIANTS[request.param]
    deadline = time.monotonic() + OUTCOME_TIMEOUT

    def played(case: str) -> None:
        print(case)
        assert time.monotonic() < deadline, "the time for all cases is over"

    return run(python, variant, is_quick, tmp_path_factory.mktemp(variant.name), played)


def is_quick(case: str) -> bool:
    return case in COMPRESSION_CASES or section_of(case) not in COMPRESSION_SECTIONS


@pytest.mark.parametrize("section", SECTION_SIZES)
def test_section(outcome: Outcome, section: int) -> None:
    cases = [case for case in outcome.picked if section_of(case) == section]
    assert cases
    assert not failures(cases, outcome.verdicts)


def test_the_suite_has_all_cases(outcome: Outcome) -> None:
    assert len(outcome.cases) == 517
    assert not missing_cases(outcome.cases)


def test_a_client_that_leaves_out_a_check_is_noticed(python: Path, tmp_path: Path) -> None:
    """Without this, the tests above could not fail."""
    lax = Variant("lax", "", "ws", {"validate_utf8": False})
    outcome = run(python, lax, {"6.2.1", "6.3.1"}.__contains__, tmp_path, print)
    assert set(failures(outcome.picked, outcome.verdicts)) == {"6.3.1"}


# ---- Machines without it. ----------------------------------------------------------------------


def test_without_cpython_2_7_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shim of pyenv, which is there but does not run, is not taken for one."""
    shim = tmp_path / "python2.7"
    shim.write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    shim.chmod(0o755)
    monkeypatch.setattr(environment, "FOLDER", tmp_path / "nothing")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert main(["--cases", "1.1.1", "--reports", str(tmp_path)]) == 1
    assert "there is no CPython 2.7" in capsys.readouterr().err


def test_what_pip_says_is_told_when_it_fails() -> None:
    with pytest.raises(environment.Unavailable, match="failed and said: no such package"):
        environment.step(sys.executable, "-c", "raise SystemExit('no such package')")


def test_server_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    """This Python is not the one that has the suite."""
    with pytest.raises(SuiteError, match=r"did not start; .*No module named"):
        Suite(Path(sys.executable), "ws", tmp_path).__enter__()


# ---- The echo. ---------------------------------------------------------------------------------


class CountingEcho(Echo):
    """Counts the messages for which the send ring had no room."""

    refused = 0

    def send(self, data: bytes | memoryview, text: bool) -> bool:
        sent = super().send(data, text)
        self.refused += not sent
        return sent


def test_echo_keeps_what_the_send_ring_has_no_room_for(serve: Serve) -> None:
    messages = [(index % 2 == 0, b"%09d" % index * 3000) for index in range(400)]

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for is_text, payload in messages:
            peer.send_frame(TEXT if is_text else BINARY, payload)
        for is_text, payload in messages:
            peer.expect_frame(TEXT if is_text else BINARY, payload)
        peer.close_handshake()

    with serve(script) as server:
        echo = CountingEcho(server.url(), None, {"send_ring_size": RING_MIN})
        echo.run()
    assert echo.refused > 0


# ---- The judgement. ----------------------------------------------------------------------------


def all_cases() -> Iterator[str]:
    """As many in each section as the suite has, with the three that are informational."""
    for section, size in SECTION_SIZES.items():
        named = [case for case in sorted(INFORMATIONAL_CASES) if section_of(case) == section]
        yield from named
        yield from (f"{section}.100.{number}" for number in range(size - len(named)))


@pytest.mark.parametrize(
    ("case", "verdict"),
    [
        ("1.1.1", Verdict("NON-STRICT", "OK")),
        ("1.1.1", Verdict("FAILED", "OK")),
        ("1.1.1", Verdict("UNIMPLEMENTED", "OK")),
        ("1.1.1", Verdict("OK", "WRONG CODE")),
        ("1.1.1", Verdict("OK", "UNCLEAN")),
        ("1.1.1", Verdict("INFORMATIONAL", "INFORMATIONAL")),
        ("7.1.6", PASSED),
    ],
)
def test_only_the_expected_verdict_passes(case: str, verdict: Verdict) -> None:
    verdicts = {case: verdict, "2.1": PASSED, "7.13.1": expected("7.13.1")}
    assert failures(verdicts, verdicts) == {case: str(verdict)}


def test_a_case_without_a_verdict_fails() -> None:
    assert failures(["1.1.1", "1.1.2"], {"1.1.1": PASSED}) == {"1.1.2": "no verdict"}


def test_a_section_with_other_cases_than_known_is_told() -> None:
    cases = list(all_cases())
    assert not missing_cases(cases)
    assert missing_cases(cases[1:]) == ["section 1 has 15 cases, not 16"]
    assert missing_cases([*cases, "14.1"]) == ["section 14 has 1 cases, not 0"]


def test_summary_names_what_failed() -> None:
    verdicts = {"1.1.1": PASSED, "7.1.6": expected("7.1.6"), "9.1.1": Verdict("FAILED", "UNCLEAN")}
    assert summary([*verdicts, "10.1.1", "12.1.1"], verdicts) == (
        "1 OK, 1 INFORMATIONAL, **1 FAILED, close UNCLEAN** (9.1.1), "
        "**2 no verdict** (10.1.1, 12.1.1)"
    )


@pytest.mark.parametrize(
    ("case", "patterns", "wanted"),
    [
        ("1.1.1", None, True),
        ("1.1.1", ["1"], True),
        ("10.1.1", ["1"], False),
        ("9.1.1", ["2", "9.1"], True),
        ("12.1.1", ["12.1.1"], True),
        ("12.1.10", ["12.1.1"], False),
    ],
)
def test_cases_are_picked_by_their_first_numbers(
    case: str, patterns: list[str] | None, wanted: bool
) -> None:
    assert is_wanted(case, patterns) is wanted


def test_the_page_has_a_row_for_each_section_and_no_date() -> None:
    cases = list(all_cases())
    verdicts = {case: expected(case) for case in cases}
    titles = {section: f"title {section}" for section in SECTION_SIZES}
    outcomes = [
        Outcome(variant, "0.8.2", titles, cases, cases, verdicts) for variant in VARIANTS.values()
    ]
    page = report.markdown(outcomes)
    assert f"hftws {hftws.__version__} in the Autobahn TestSuite 0.8.2" in page
    assert "| 7 | title 7 | 37 |" + " 34 OK, 3 INFORMATIONAL |" * 3 in page
    assert "| **all** |  | 517 |" + " 514 OK, 3 INFORMATIONAL |" * 3 in page
    assert page == report.markdown(outcomes)
