"""What the rig for the tests of kTLS (tests/ktls) says and decides. No kernel is booted."""

from __future__ import annotations

import os
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from ktls import console, host
from ktls.errors import RigError
from ktls.outcome import MISSING, Outcome, Plan, summary, why_failed

# ---- Why a kernel ended. The consoles are recorded. --------------------------------------------

#: Linux 6.1 on a host whose XSAVE area it has no room for.
TOO_LARGE = """\
SELinux: CONFIG_SECURITY_SELINUX_CHECKREQPROT_VALUE is non-zero.  This is deprecated and will be
mmapper_init - find_iomem failed
Failed to initialize ubd device 0 :Couldn't determine size of device's file
userspace - ptrace set fp regs failed, errno = 14
Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b
CPU: 0 PID: 1 Comm: init Not tainted 6.1.176 #1
Stack:
 606944ba 607e7fcd a048bb70 6067bb96
Call Trace:
 [<606944ba>] ? _printk+0x0/0x94
 [<6002c0dd>] new_thread_handler+0xae/0xb0

"""

#: Linux 7.2, where the file with its memory could not grow.
NO_ROOM = """\
Bus error - the host /dev/shm or /tmp mount likely just ran out of space
Kernel panic - not syncing: Kernel mode signal 7
CPU: 0 UID: 0 PID: 8 Comm: kworker/u4:0 Not tainted 7.2.7 #1 VOLUNTARY
Workqueue: events_unbound call_usermodehelper_exec_work
 [<60055997>] ? um_set_signals+0x24/0x38
"""

#: Linux 7.2 with a file that is not an initramfs.
NO_ROOT = """\
[    0.210000] Initramfs unpacking failed: invalid magic at start of compressed archive
[    0.290000] Failed to initialize ubd device 0 :Couldn't determine size of device's file
[    0.300000] /dev/root: Can't open blockdev
[    0.300000] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(98,0)
[    0.300000]  [<60040425>] new_thread_handler+0x44/0x5e
"""

#: The rig's init, which has no overlayfs.
NO_OVERLAY = """\
mmapper_init - find_iomem failed
mount: mounting none on /root failed: No such device
ktls: no root
reboot: Power down
"""

#: A healthy kernel, whose guest was killed.
WELL = """\
mmapper_init - find_iomem failed
Failed to initialize ubd device 0 :Couldn't determine size of device's file
ktls: the root is ready
reboot: Power down
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TOO_LARGE, "userspace - ptrace set fp regs failed, errno = 14"),
        (NO_ROOM, "Bus error - the host /dev/shm or /tmp mount likely just ran out of space"),
        (
            NO_ROOT,
            "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(98,0)",
        ),
        (NO_OVERLAY, "ktls: no root"),
        (WELL, "reboot: Power down"),
        ("\n \n", "nothing on its console"),
    ],
)
def test_the_reason_is_the_cause_and_not_what_follows_it(text: str, expected: str) -> None:
    assert console.reason(text) == expected


def test_the_reason_comes_first_and_the_console_with_it() -> None:
    """The table shows the first line alone."""
    first, *rest = console.report(TOO_LARGE, -6).splitlines()
    assert first.startswith("userspace - ptrace set fp regs failed, errno = 14: ")
    assert "exit code -6" in first
    assert TOO_LARGE.splitlines()[-2] in rest


def test_a_long_console_is_cut_and_its_reason_is_not() -> None:
    """The trace behind a panic may be as long as all that is shown."""
    text = TOO_LARGE + " [<606944ba>] ? panic+0x0/0x376\n" * 100
    report = console.report(text, -6).splitlines()
    assert report[0].startswith("userspace - ptrace set fp regs failed")
    assert len(report) < 50


# ---- The report at the end. --------------------------------------------------------------------

REPORT = {"release": "6.1", "openssl": "3.0.1", "passed": 3, "failed": 0, "skipped": 1, "names": []}
PASSED = Outcome(Plan("bookworm", "host"), seconds=2.0, report=REPORT, tls_stat={"TlsTxSw": 7})
SKIPPED = Outcome(Plan("sid", "host"), skipped="there is no mirror")
PANICKED = Outcome(Plan("trixie", "3.5"), failed="Kernel panic - not syncing: it")


def test_the_summary_counts_the_boots_and_ends_with_what_failed() -> None:
    failed = Outcome(Plan("sid", "host", MISSING, ("gcm",)), seconds=1.0, failed="1 of 2 failed")
    lines = summary([PASSED, SKIPPED, SKIPPED, PANICKED, failed], ["a note"])
    assert lines[6:] == [
        "a note",
        "skipped: there is no mirror (2 boots)",
        "2 of 5 boots ran, 2 skipped, 2 failed",
        "trixie-openssl-3.5-ktls: Kernel panic - not syncing: it",
        "sid-openssl-host-missing-gcm: 1 of 2 failed",
    ]


def test_a_summary_of_what_passed_ends_with_the_counts() -> None:
    lines = summary([PASSED, PASSED], ["a note"])
    assert lines[1].split() == ["6.1", "3.0.1", "ktls", "3", "0", "1", "2.0", "7", *"----"]
    assert lines[3:] == ["a note", "2 of 2 boots ran, 0 skipped, 0 failed"]


@pytest.mark.parametrize(
    ("status", "report", "expected"),
    [
        (0, REPORT, ""),
        (139, {}, "exit status 139, and no report of the tests"),
        (3, REPORT, "exit status 3, though no test failed"),
        (0, {**REPORT, "passed": 0}, "no test passed"),
        (1, {**REPORT, "failed": 2, "names": ["a", "b"]}, "2 of 5 tests failed: a, b"),
        (
            1,
            {**REPORT, "failed": 7, "names": list("abcdefg")},
            "7 of 10 tests failed: a, b, c, d, e and 2 more",
        ),
    ],
)
def test_a_boot_has_failed_unless_tests_passed(
    status: int, report: dict[str, object], expected: str
) -> None:
    """Also if all of them were skipped, or the process crashed after the last one."""
    assert why_failed(status, report) == expected


# ---- What the machine has room for. ------------------------------------------------------------

Usage = namedtuple("Usage", "free")

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the rig is for Linux")


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        ({"shm": 6.1, "tmp": 99.0}, ("shm", 4)),
        ({"shm": 5.9, "tmp": 99.0}, ("tmp", 4)),  # Of a container, mostly: one is not enough.
        ({"shm": 4.6, "tmp": 1.6}, ("shm", 3)),
        ({"shm": 0.1, "tmp": 3.1}, ("tmp", 2)),
    ],
)
def test_all_guests_have_room_for_their_memory(
    monkeypatch: pytest.MonkeyPatch, free: dict[str, float], expected: tuple[str, int]
) -> None:
    """One folder for all of them, and no more guests than fit there: a GiB and a half each."""
    prepare(monkeypatch, free, cpus=4, memory=64.0)
    folder, jobs = host.place()
    assert (str(folder), jobs) == expected


def test_no_guest_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, {"shm": 0.1, "tmp": 1.4}, cpus=4, memory=64.0)
    with pytest.raises(RigError, match="no folder has room"):
        host.place()


@pytest.mark.parametrize(
    ("wanted", "memory", "expected"),
    [(None, 64.0, 4), (2, 64.0, 2), (9, 64.0, 9), (9, 3.1, 2), (4, 0.5, 1)],
)
def test_guests_share_the_memory(
    monkeypatch: pytest.MonkeyPatch, wanted: int | None, memory: float, expected: int
) -> None:
    """A folder in memory may have more room than there is memory. One guest always runs."""
    prepare(monkeypatch, {"shm": 99.0}, cpus=4, memory=memory)
    assert host.place(wanted)[1] == expected


def prepare(
    monkeypatch: pytest.MonkeyPatch, free: dict[str, float], *, cpus: int, memory: float
) -> None:
    """A machine of so many CPUs, GiB of memory, and GiB that are free in its folders."""
    monkeypatch.setattr(host, "folders", lambda: [Path(name) for name in free])
    usage = {name: Usage(int(size * (1 << 30))) for name, size in free.items()}
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage[str(folder)])
    monkeypatch.setattr(host, "cpus", lambda: cpus)
    monkeypatch.setattr(host, "memory", lambda: int(memory * (1 << 30)))


@needs_linux
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
def test_a_container_has_fewer_cpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    write(tmp_path / "sys/fs/cgroup", files)
    assert host.cpus(tmp_path) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4 << 30),
        ({"memory.max": "max\n"}, 4 << 30),
        ({"memory.max": f"{1 << 30}\n"}, 1 << 30),
        ({"memory/memory.limit_in_bytes": f"{(1 << 63) - 4096}\n"}, 4 << 30),
        ({"memory/memory.limit_in_bytes": f"{2 << 30}\n"}, 2 << 30),
    ],
)
def test_a_container_has_less_memory(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    write(tmp_path / "sys/fs/cgroup", files)
    write(tmp_path / "proc", {"meminfo": f"MemTotal: 1 kB\nMemAvailable:  {4 << 20} kB\n"})
    assert host.memory(tmp_path) == expected


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="ascii")
