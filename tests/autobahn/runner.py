"""Plays cases against one server, and collects its verdicts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hftws

from .echo import CASE_TIMEOUT, COMPRESSION_SECTIONS, Echo, options_of
from .suite import Suite
from .verdicts import Verdict, section_of

__all__ = ["VARIANTS", "Outcome", "Variant", "run"]

#: Cases of these sections are played alone. They keep the server, which is a single thread, busy
#: for so long that it would miss the closing handshakes of others: it waits a second for those.
HEAVY_SECTIONS = {9, *COMPRESSION_SECTIONS}

#: How many of the others are played at a time. Some of them mostly wait.
WORKERS = 4


@dataclass(frozen=True)
class Variant:
    """One way to connect."""

    #: Under this name the server keeps its verdicts.
    name: str
    title: str
    scheme: Literal["ws", "wss"]
    #: For :class:`hftws.Client`.
    options: dict[str, Any]


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("ws", "`ws://`", "ws", {}),
        Variant("wss-direct", '`wss://`, `tls="direct"`', "wss", {"tls": "direct"}),
        Variant("wss-openssl", '`wss://`, `tls="openssl"`', "wss", {"tls": "openssl"}),
    )
}


@dataclass(frozen=True)
class Outcome:
    """The result of a run."""

    variant: Variant
    #: The version of the suite.
    version: str
    #: What the suite calls its sections.
    titles: dict[int, str]
    #: Every case that the suite has.
    cases: list[str]
    #: Those that were picked.
    picked: list[str]
    verdicts: dict[str, Verdict]


def run(
    python: Path,
    variant: Variant,
    wanted: Callable[[str], bool],
    folder: Path,
    show: Callable[[str], object],
) -> Outcome:
    """Plays the wanted cases.

    :param python: the one that has the suite.
    :param folder: where the server's report and output go.
    :param show: called with each case when it has been played; what it raises ends the run.
    """
    with Suite(python, variant.scheme, folder) as suite:
        picked = [case for case in suite.cases if wanted(case)]

        def play_and_show(case: str) -> None:
            play(suite, variant, case)
            show(case)

        with ThreadPoolExecutor(WORKERS) as pool:
            drain(pool.map(play_and_show, (case for case in picked if not is_heavy(case))))
        drain(map(play_and_show, (case for case in picked if is_heavy(case))))
        update_reports(suite, variant)
        return Outcome(
            variant=variant,
            version=suite.version,
            titles=suite.titles,
            cases=suite.cases,
            picked=picked,
            verdicts=suite.verdicts(variant.name),
        )


def is_heavy(case: str) -> bool:
    """Whether this case leaves the server no time for others."""
    return section_of(case) in HEAVY_SECTIONS


def drain(results: Iterable[None]) -> None:
    """Waits for all of them, and raises what any of them raised."""
    for _ in results:
        pass


def play(suite: Suite, variant: Variant, case: str) -> None:
    """Plays one case. How the connection ends is for the server to judge."""
    url = suite.url(f"runCase?casetuple={case}&agent={variant.name}")
    echo = Echo(url, suite.ca_file, {**variant.options, **options_of(case)})
    with contextlib.suppress(hftws.Error):
        echo.run()


def update_reports(suite: Suite, variant: Variant) -> None:
    """Has the server write its verdicts down. It answers when it is done."""
    url = suite.url(f"updateReports?agent={variant.name}")
    try:
        Echo(url, suite.ca_file, {**variant.options, "connect_timeout": CASE_TIMEOUT}).run()
    except hftws.Error as error:
        raise suite.error(f"the server cannot be told to write its report: {error}") from error
