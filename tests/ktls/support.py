"""What the tests of kTLS share: the kernel's counters, servers, and a network that errs."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType

import pytest
import trustme
from servers import PATIENCE, PEER_TIMEOUT
from test_tls_engines import Bed
from tls_peers import HEADER_SIZE, Conversation, record_size

__all__ = [
    "KERNEL",
    "TLS_STAT",
    "FlippingProxy",
    "KernelBed",
    "TlsStat",
    "has_rekey",
    "needs_ktls",
    "server_context",
]

TLS_STAT = Path("/proc/net/tls_stat")

#: Records that the kernel opened twice, because they were padded or no data: not tested here.
DETOURS = ("TlsDecryptRetry", "TlsRxNoPadViolation")

#: Seconds until the kernel has counted what has happened.
COUNT_TIMEOUT = 5.0 * PATIENCE

#: The version of the running kernel.
KERNEL = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])

#: Since 6.14 the keys of a TLS 1.3 connection can be replaced.
has_rekey = KERNEL >= (6, 14)

needs_ktls = pytest.mark.skipif(
    not TLS_STAT.is_file(),
    reason=f"no kTLS: the module tls is not loaded (there is no {TLS_STAT})",
)


class TlsStat:
    """What /proc/net/tls_stat has counted since this object was made; 0 with other engines."""

    def __init__(self, engine: str = "ktls") -> None:
        self.engine = engine
        self._before = read_tls_stat()

    def counted(self) -> Counter[str]:
        """What was counted since then, without what did not change."""
        changed = read_tls_stat()
        changed.subtract(self._before)
        return Counter({k: count for k, count in changed.items() if count and k not in DETOURS})

    def expect(self, **counts: int) -> None:
        """Waits until exactly this was counted."""
        expected = counts if self.engine == "ktls" else {}
        until = time.monotonic() + COUNT_TIMEOUT
        while self.counted() != expected and time.monotonic() < until:
            time.sleep(0.001)
        assert self.counted() == expected, f"not {expected}: {self.counted()}"

    def expect_connections(self, count: int = 1) -> None:
        """Expects that this many connections had both keys in the kernel, and are closed."""
        self.expect(TlsTxSw=count, TlsRxSw=count)


def read_tls_stat() -> Counter[str]:
    """The counters by their names."""
    pairs = (line.split() for line in TLS_STAT.read_text(encoding="ascii").splitlines())
    return Counter({name: int(value) for name, value in pairs})


# ---- Servers. ----------------------------------------------------------------------------------


def server_context(ca: trustme.CA, version: str) -> ssl.SSLContext:
    """A server of one version of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    only = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}[version]
    context.minimum_version = context.maximum_version = only
    return context


class KernelConversation(Conversation):
    """The kernel reports only whole records to the client: a part of one does not wake it."""

    def turn(self) -> None:
        self.client.poll(0)  # expect() waits for what is still on its way.
        self.collect()


class KernelBed(Bed):
    """The servers of test_tls_engines.py, for clients whose records the kernel opens."""

    conversation_type = KernelConversation


# ---- The network. ------------------------------------------------------------------------------


class FlippingProxy:
    """Forwards one connection, and flips one bit of one record in one direction.

    :param record: which record, from 0. The handshake's count, too.
    :param offset: the byte in the record; less than 0 counts from its end.
    :param to_client: in which direction.
    """

    def __init__(self, port: int, record: int, offset: int, *, to_client: bool) -> None:
        self.target_port = port
        self.record, self.offset, self.to_client = record, offset, to_client
        self.flipped = threading.Event()

    def __enter__(self) -> FlippingProxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PEER_TIMEOUT)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()
        for thread in self._threads:
            thread.join(PEER_TIMEOUT + 1)
            assert not thread.is_alive(), "the proxy did not come to its end"

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self.target_port), timeout=PEER_TIMEOUT)
        client.settimeout(PEER_TIMEOUT)
        with client, server:
            back = threading.Thread(
                target=self._forward, args=(client, server, not self.to_client), daemon=True
            )
            self._threads.append(back)
            back.start()
            self._forward(server, client, self.to_client)
            back.join(PEER_TIMEOUT)

    def _forward(self, source: socket.socket, target: socket.socket, flips: bool) -> None:
        """Record by record."""
        with contextlib.suppress(OSError), source.makefile("rb") as file:
            for number in range(1 << 30):
                header = file.read(HEADER_SIZE)
                if len(header) < HEADER_SIZE:
                    break
                record = bytearray(header + file.read(record_size(header) - HEADER_SIZE))
                if flips and number == self.record:
                    record[self.offset] ^= 1
                    self.flipped.set()
                target.sendall(record)
            target.shutdown(socket.SHUT_WR)
