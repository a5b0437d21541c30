"""Boots a kernel as a process, has it run one command, and tells how that went."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .initramfs import Task, build
from .kernel import Kernel

__all__ = ["Result", "RigError", "boot", "stop_all"]

MEMORY_MIB = 1536

#: Seconds that a guest has to end by itself once it is told to.
STOP_TIMEOUT = 5

CONSOLE_LINES = 30

#: Each in a session of its own, where no signal to this process reaches it.
_running: set[subprocess.Popen[bytes]] = set()


class RigError(Exception):
    """The rig itself does not work, and why. Then tests have failed."""


@dataclass(frozen=True)
class Result:
    """How a command in the guest went."""

    status: int
    seconds: float
    #: /proc/net/tls_stat at the end; empty without the module.
    tls_stat: dict[str, int]


def boot(
    kernel: Kernel,
    task: Task,
    *,
    shared: Path,
    output: IO[bytes],
    timeout_s: float,
    without: Iterable[str] = (),
) -> Result:
    """Boots, runs the command, and gives its exit status.

    :param shared: a folder that the guest sees as :data:`~.initramfs.CONTROL` and can write to.
    :param output: gets what the command says while it runs. Has to be a file.
    :param without: names of modules that are not loaded.
    """
    modules = [module for module in kernel.modules if module_name(module) not in without]
    initramfs = shared / "initramfs"
    initramfs.write_bytes(build(kernel.busybox, modules, shared, task))
    console = shared / "console"
    started = time.monotonic()
    with console.open("wb") as log:
        ended = run(command_line(kernel, initramfs, shared), kernel, output, log, timeout_s)
    seconds = time.monotonic() - started
    if not ended:
        raise RigError(f"the command took more than {timeout_s:.0f} s")
    status = shared / "status"
    if not status.is_file():
        raise RigError(f"the guest ended without a word; its kernel said:\n{tail(console)}")
    return Result(int(status.read_text()), seconds, read_tls_stat(shared / "tls_stat"))


def module_name(file: Path) -> str:
    """The files are numbered."""
    return file.stem.partition("-")[2]


def command_line(kernel: Kernel, initramfs: Path, shared: Path) -> list[str]:
    """The first terminal is the kernel's log, the second one what the command says."""
    return [
        str(kernel.program),
        f"mem={MEMORY_MIB}M",
        f"initrd={initramfs}",
        f"uml_dir={shared}",
        "umid=uml",
        "con=null",
        "con0=null,fd:2",
        "con1=null,fd:1",
        "ssl=null",
        "quiet",
        "panic=-1",
    ]


def run(
    command: list[str], kernel: Kernel, output: IO[bytes], log: IO[bytes], timeout_s: float
) -> bool:
    """Whether the kernel ended by itself. Whatever happens, none of its processes stays."""
    environment = {
        "LD_LIBRARY_PATH": str(kernel.libraries),
        "TMPDIR": str(memory_folder()),
        "HOME": "/root",
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    }
    process = subprocess.Popen(
        command,
        cwd=kernel.libraries,  # Where its loader is.
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=log,
        start_new_session=True,
    )
    _running.add(process)
    try:
        process.wait(timeout_s)
        return True
    except subprocess.TimeoutExpired:
        return False
    finally:
        stop(process)
        _running.discard(process)


def stop_all() -> None:
    """Kills every kernel; those who booted them find that the guest ended without a word."""
    for process in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Told to end, it takes its processes along; the rest is killed."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def memory_folder() -> Path:
    """Where the guest's memory can lie: a file that is mapped, as executable, too."""
    size = MEMORY_MIB << 20
    for folder in (Path("/dev/shm"), Path(tempfile.gettempdir()), Path("/var/tmp")):
        with contextlib.suppress(OSError):
            executable = not os.statvfs(folder).f_flag & os.ST_NOEXEC
            if executable and shutil.disk_usage(folder).free > size:
                return folder
    raise RigError(f"no folder has room for {MEMORY_MIB} MiB that may be executed")


def read_tls_stat(file: Path) -> dict[str, int]:
    """The counters by their names."""
    if not file.is_file():
        return {}
    pairs = (line.split() for line in file.read_text().splitlines())
    return {name: int(value) for name, value in pairs}


def tail(file: Path) -> str:
    """The last lines of a log."""
    return "\n".join(file.read_text(errors="replace").splitlines()[-CONSOLE_LINES:])
