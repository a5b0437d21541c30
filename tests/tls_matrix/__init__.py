"""Servers of every kind that a client may meet over TLS, and what has to come of each.

A :class:`Row` is a server by its name, how it is made, and what is expected of the client; for
both engines it is the same. `tests/test_tls_matrix.py` connects to them; ``PYTHONPATH=tests python
-m tls_matrix`` prints them as a table, which is `docs/tls-servers.md`.

Expected is what the RFCs ask of a client, so far as they do: 8446 (TLS 1.3), 5246 (TLS 1.2), 5280
(certificates), 9525 (names), 6066 (extensions).
"""

from __future__ import annotations

from tls_matrix import endings, negotiation, records, trust
from tls_matrix.model import Connects, Ends, Fails, Row, Workshop

__all__ = ["ROWS", "Connects", "Ends", "Fails", "Row", "Workshop"]

#: By the heading they stand under.
SECTIONS: dict[str, list[Row]] = {
    **negotiation.SECTIONS,
    **records.SECTIONS,
    **trust.SECTIONS,
    **endings.SECTIONS,
}

ROWS = [row for rows in SECTIONS.values() for row in rows]
