"""Prints docs/tls-servers.md: the rows as Markdown."""

from __future__ import annotations

from tls_matrix import ROWS, SECTIONS

INTRODUCTION = f"""\
# TLS servers, and what hftws makes of them

{len(ROWS)} servers that `tests/test_tls_matrix.py` makes and connects to, and what is expected: the
same with `tls="direct"` and with `tls="openssl"`, but for a few words of OpenSSL's own. What
connects also exchanges messages both ways, and is closed in the ordinary way. The messages are
those of OpenSSL 3.0.

Made by `PYTHONPATH=tests python -m tls_matrix > docs/tls-servers.md`; a test holds it to the rows.
"""


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def table() -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    for section, rows in SECTIONS.items():
        lines += [f"## {section}", "", "| server | made with | expected |", "| --- | --- | --- |"]
        for row in rows:
            cells = map(cell, (row.name, row.server.description, str(row.expected)))
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(), end="")
