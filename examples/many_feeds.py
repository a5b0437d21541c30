"""Many feeds in one thread: each reconnects by itself, and a report is printed every second.

python examples/many_feeds.py wss://… wss://… wss://…
"""

from __future__ import annotations

import signal
import sys

import hftws

REPORT_S = 1.0
RECONNECT_S = 0.5


def main(urls: list[str]) -> None:
    """Runs until Ctrl-C or SIGTERM."""
    loop = hftws.Loop()
    counts = dict.fromkeys(urls, 0)

    def add(url: str) -> None:
        def on_msg(_: hftws.Message) -> None:
            counts[url] += 1

        def reconnect(client: hftws.Client) -> None:
            loop.call_later(RECONNECT_S, client.connect)

        def on_error(client: hftws.Client, error: Exception) -> None:
            print(error, file=sys.stderr)
            reconnect(client)

        def on_close(client: hftws.Client, code: int, _reason: str) -> None:
            if code in (1000, 1001):  # Other ends are errors: on_error is told.
                reconnect(client)

        loop.add(hftws.Client(url, on_msg, on_close=on_close, on_error=on_error))

    def report() -> None:
        print(" ".join(f"{count:,}" for count in counts.values()), flush=True)
        loop.call_later(REPORT_S, report)

    for url in urls:
        add(url)
    loop.call_later(REPORT_S, report)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.stop())
    with loop:  # Closes all connections at the end.
        loop.run()


if __name__ == "__main__":
    main(sys.argv[1:])
