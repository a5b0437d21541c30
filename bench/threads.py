"""One client a thread: does a second thread double what a process takes in?

    python -m bench.threads [--threads 1 2] [--rounds 20]

The messages of a round wait in the kernel when the threads begin: no sender has a part in it. Run
it with a Python that has the GIL and with one that has none: with the GIL, two threads take turns;
without it, nothing of hftws stands between them. Needs as many CPUs as threads.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import threading
import time

import hftws
from bench import kernel
from bench.wire import market_messages, text_frame, upgrade_response

MESSAGE_SIZE = 300

#: Bytes of a client's buffer in the kernel, where so many are allowed.
BUFFER_SIZE = 32 << 20


class Feed:
    """A client, and the server at the other end of its connection."""

    def __init__(self) -> None:
        self.count = 0
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            self.client = hftws.Client(f"ws://127.0.0.1:{port}/", on_msg=self.on_msg)
            accepting = threading.Thread(target=self._accept, args=(listener,))
            accepting.start()
            self.client.connect()
            accepting.join()
        for descriptor in kernel.descriptors(port):
            kernel.set_descriptor_buffer_size(descriptor, BUFFER_SIZE)

    def _accept(self, listener: socket.socket) -> None:
        self.server, _ = listener.accept()
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += self.server.recv(65536)
        self.server.sendall(upgrade_response(request))

    def on_msg(self, message: hftws.Message) -> None:
        self.count += 1

    def drain(self, count: int, cpu: int, start: threading.Barrier) -> None:
        """Receives what waits, once all threads are ready.

        Each thread gets its own CPU: the kernel may leave two on the same one for milliseconds.
        """
        hftws.pin_thread(cpu)
        start.wait()
        while self.count < count:
            self.client.poll(1.0)

    def close(self) -> None:
        self.server.close()
        self.client.close()


def drain_all(feeds: list[Feed], frames: bytes, count: int) -> tuple[float, float]:
    """Messages a second of wall clock, and of CPU, all threads together."""
    for feed in feeds:
        feed.count = 0
        feed.server.sendall(frames)
    start = threading.Barrier(len(feeds) + 1)
    cpus = sorted(os.sched_getaffinity(0))
    threads = [
        threading.Thread(target=feed.drain, args=(count, cpus[index % len(cpus)], start))
        for index, feed in enumerate(feeds)
    ]
    for thread in threads:
        thread.start()
    start.wait()
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.join()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return len(feeds) * count / wall, len(feeds) * count / cpu


def main() -> None:
    """Measures each number of threads in turn, round by round, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()

    frame = text_frame(market_messages(1, MESSAGE_SIZE)[0])
    # The kernel counts what a segment takes, not what it holds: half of the room is for that.
    count = kernel.receive_capacity(BUFFER_SIZE) // 2 // len(frame)
    feeds = [Feed() for _ in range(max(options.threads))]
    results: dict[int, list[tuple[float, float]]] = {number: [] for number in options.threads}
    for _ in range(options.rounds):
        for number in options.threads:
            results[number].append(drain_all(feeds[:number], frame * count, count))
    for feed in feeds:
        feed.close()

    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"{sys.version.split()[0]}, {'GIL' if gil else 'no GIL'}; {os.cpu_count()} CPUs;")
    print(f"{count:,} messages of {MESSAGE_SIZE} bytes a thread and round; medians of a second:")
    base_wall = base_cpu = 0.0
    for number, rates in results.items():
        wall = statistics.median(rate for rate, _ in rates)
        cpu = statistics.median(rate for _, rate in rates)
        base_wall, base_cpu = base_wall or wall, base_cpu or cpu
        print(
            f"{number} threads: {wall:12,.0f} of wall clock ({wall / base_wall:.2f}),"
            f"{cpu:12,.0f} of CPU ({cpu / base_cpu:.2f})"
        )


if __name__ == "__main__":
    main()
