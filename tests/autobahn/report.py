"""The verdicts as a page of Markdown. The same verdicts give the same page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import hftws

from .echo import LARGE_CASES
from .runner import Outcome
from .verdicts import INFORMATIONAL_CASES, SECTION_SIZES, section_of, summary

__all__ = ["markdown"]

#: We measured these in the same suite, but not with this program.
OTHER_CLIENTS = [
    ("client", "OK", "non-strict", "informational", "unimplemented", "failed", "close not OK"),
    ("aiohttp 3.14.5", 509, 4, 3, 0, 1, 1),
    ("ws 8.23 (Node.js)", 506, 4, 3, 0, 4, 4),
    ("websockets 17.4", 496, 11, 3, 0, 7, 7),
    ("picows.websockets 2.3.1", 496, 12, 3, 0, 6, 8),
    ("websocket-client 1.9.2", 274, 4, 3, 216, 20, 117),
    ("picows 2.3.1", 208, 6, 3, 216, 84, 96),
]

PAGE = """\
# Conformance

hftws {hftws_version} in the Autobahn TestSuite {suite_version}: a fuzzing server that sends what
RFC 6455 and RFC 7692 allow and what they forbid, and judges the answers. These are all of its
{count} cases for clients. This page is written by `make autobahn`.

{table}

- OK: the suite says so both of the messages and of how the connection was closed. NON-STRICT,
  WRONG CODE and UNCLEAN are not OK, and would be named here with their cases.
- INFORMATIONAL: the RFC leaves the outcome open, so the suite never says anything else:
  {informational}.
- `tls="direct"` and `tls="openssl"` are the engines of the TLS records. Over `ws://` there is none.
- The client has its default options, but for two things. In sections 12 and 13 it has
  `compression=Deflate(threshold=1)`, so that small messages are compressed, too. It has larger
  rings and a larger `max_message_size` for messages of 8 and 16 MiB: {large}.

## Other clients

Measured once, by ourselves, in the same suite; `make autobahn` does not repeat that.

{others}
"""


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The page for runs of all cases, a column each."""
    first = outcomes[0]
    rows: list[Sequence[object]] = [
        ("section", "", "cases", *(outcome.variant.title for outcome in outcomes))
    ]
    for section in SECTION_SIZES:
        cases = [case for case in first.cases if section_of(case) == section]
        rows.append((section, first.titles[section], len(cases), *cells(outcomes, cases)))
    rows.append(("**all**", "", len(first.cases), *cells(outcomes, first.cases)))
    return PAGE.format(
        hftws_version=hftws.__version__,
        suite_version=first.version,
        count=len(first.cases),
        table=table(rows, numbers={0, 2}),
        informational=", ".join(sorted(INFORMATIONAL_CASES)),
        large=", ".join(sorted(LARGE_CASES)),
        others=table(OTHER_CLIENTS, numbers=set(range(1, 7))),
    )


def cells(outcomes: Iterable[Outcome], cases: list[str]) -> list[str]:
    """A cell for each outcome."""
    return [summary(cases, outcome.verdicts) for outcome in outcomes]


def table(rows: Sequence[Sequence[object]], numbers: set[int]) -> str:
    """The first row is the head; the columns with numbers are set to the right."""
    rule = ["---:" if column in numbers else "---" for column in range(len(rows[0]))]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (rows[0], rule, *rows[1:]))
