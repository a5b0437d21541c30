"""The Autobahn TestSuite: what a stranger's fuzzing server makes of hftws.

The suite is a WebSocket server that plays one case per connection. It sends what RFC 6455 allows
and what it forbids, the client echoes every message, and the server judges what came back and how
the connection was closed.

- ``make autobahn`` plays all 517 cases over ``ws://`` and over ``wss://`` with both TLS engines,
  and writes docs/conformance.md.
- ``python -m tests.autobahn --variants ws --cases 6.4,9.1.1`` plays some, from the root of a
  checkout. The server's own report, with what was on the wire, is in build/autobahn/.
- test_autobahn.py plays those that are quick enough for ``make test``.

The suite needs CPython 2.7. environment.py finds one and installs the suite beside it, into
``.venv-autobahn``; server.py is the only file here that runs under it.

- suite.py: the server's process, and the verdicts that it writes.
- echo.py: the client of a case.
- runner.py: cases one after another, or some at a time.
- verdicts.py: which verdicts pass.
- report.py: the table of them.
"""
