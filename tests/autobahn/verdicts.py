"""Which of the suite's verdicts pass, and the table of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["SECTION_SIZES", "Verdict", "failures", "section_of", "summary"]

#: How many cases each section has, so that a missing one is noticed. There is no 8 and 11.
SECTION_SIZES = {
    1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1, 12: 90, 13: 126,
}  # fmt: skip

OK, INFORMATIONAL = "OK", "INFORMATIONAL"

#: Cases whose outcome RFC 6455 leaves open: data behind a CLOSE, and close codes of 5000 and more.
INFORMATIONAL_CASES = {"7.1.6", "7.13.1", "7.13.2"}


@dataclass(frozen=True)
class Verdict:
    """The suite's words for one case."""

    #: Its verdict on the messages: OK, NON-STRICT, INFORMATIONAL, UNIMPLEMENTED or FAILED.
    behavior: str
    #: Its verdict on the end: OK, INFORMATIONAL, WRONG CODE, UNCLEAN, FAILED …
    behavior_close: str

    def __str__(self) -> str:
        if self.behavior == self.behavior_close:
            return self.behavior
        return f"{self.behavior}, close {self.behavior_close}"


def section_of(case: str) -> int:
    """The number of the section, which begins the name of a case."""
    return int(case.partition(".")[0])


def expected(case: str) -> Verdict:
    """The only verdict that passes: OK twice, except where the RFC leaves it open."""
    word = INFORMATIONAL if case in INFORMATIONAL_CASES else OK
    return Verdict(word, word)


def failures(cases: Iterable[str], verdicts: Mapping[str, Verdict]) -> dict[str, str]:
    """The verdicts of these cases that do not pass; a case without one does not pass, either."""
    return {
        case: str(verdicts.get(case, "no verdict"))
        for case in cases
        if verdicts.get(case) != expected(case)
    }


def missing_cases(cases: Iterable[str]) -> list[str]:
    """Where these are not all the cases that the suite is known to have."""
    sizes = Counter(map(section_of, cases))
    return [
        f"section {number} has {sizes[number]} cases, not {SECTION_SIZES.get(number, 0)}"
        for number in sorted(SECTION_SIZES.keys() | sizes.keys())
        if sizes[number] != SECTION_SIZES.get(number, 0)
    ]


def summary(cases: Iterable[str], verdicts: Mapping[str, Verdict]) -> str:
    """As in "34 OK, 3 INFORMATIONAL"; what does not pass is told with its cases."""
    cases = list(cases)
    failed = failures(cases, verdicts)
    counts = Counter(str(verdicts[case]) for case in cases if case not in failed)
    parts = [f"{counts[word]} {word}" for word in (OK, INFORMATIONAL) if counts[word]]
    kinds = Counter(failed.values())
    for kind in sorted(kinds):
        named = [case for case in cases if failed.get(case) == kind]
        parts.append(f"**{kinds[kind]} {kind}** ({shorten(named)})")
    return ", ".join(parts)


def shorten(cases: list[str], most: int = 6) -> str:
    """The first few."""
    return ", ".join(cases[:most]) + (", …" if len(cases) > most else "")
