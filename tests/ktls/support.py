"""What the tests of kTLS share: the kernel's counters, and whether there are any."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from pathlib import Path

import pytest

__all__ = ["KERNEL", "TLS_STAT", "TlsStat", "has_rekey", "needs_ktls"]

TLS_STAT = Path("/proc/net/tls_stat")

#: Seconds until the kernel has counted what has happened.
COUNT_TIMEOUT = 5.0

#: The version of the running kernel.
KERNEL = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])

#: Since 6.14 the keys of a TLS 1.3 connection can be replaced.
has_rekey = KERNEL >= (6, 14)

needs_ktls = pytest.mark.skipif(
    not TLS_STAT.is_file(),
    reason=f"no kTLS: the module tls is not loaded (there is no {TLS_STAT})",
)


class TlsStat:
    """/proc/net/tls_stat since this object was made."""

    def __init__(self) -> None:
        self._before = read()

    def counted(self) -> Counter[str]:
        """What was counted since then, without what did not change."""
        changed = read()
        changed.subtract(self._before)
        return Counter({name: count for name, count in changed.items() if count})

    def expect(self, **counts: int) -> None:
        """Waits until exactly this was counted."""
        until = time.monotonic() + COUNT_TIMEOUT
        while self.counted() != counts and time.monotonic() < until:
            time.sleep(0.001)
        assert self.counted() == counts


def read() -> Counter[str]:
    """The counters by their names."""
    pairs = (line.split() for line in TLS_STAT.read_text(encoding="ascii").splitlines())
    return Counter({name: int(value) for name, value in pairs})
