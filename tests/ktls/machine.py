"""Boots a kernel as a process, has it run one command, and tells how that went."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from . import console
from .errors import RigError
from .host import MEMORY_MIB
from .initramfs import Task, build
from .kernel import Kernel

__all__ = ["Result", "boot", "stop_all"]

#: Seconds that a guest has to end when it is asked to.
STOP_TIMEOUT = 5

#: Each is in its own session, where no signal to this process reaches it.
_running: set[subprocess.Popen[bytes]] = set()


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
    memory: Path,
    output: IO[bytes],
    timeout_s: float,
    without: Iterable[str] = (),
    preload: Path | None = None,
) -> Result:
    """Boots, runs the command, and gives its exit status.

    :param shared: a folder that the guest sees as :data:`~.initramfs.CONTROL` and can write to.
    :param memory: the folder for the guest's memory (:func:`~.host.place`).
    :param output: gets what the command says while it runs. Has to be a file.
    :param without: names of modules that are not loaded.
    :param preload: a library for the kernel's process. Its guest's programs know nothing of it.
    """
    modules = [module for module in kernel.modules if module_name(module) not in without]
    initramfs = shared / "initramfs"
    initramfs.write_bytes(build(kernel.busybox, modules, shared, task))
    log = shared / "console"
    started = time.monotonic()
    with log.open("wb") as file:
        command = command_line(kernel, initramfs, shared)
        variables = environment(kernel, memory, preload)
        exit_code = run(command, kernel, variables, output, file, timeout_s)
    seconds = time.monotonic() - started
    if exit_code is None:
        raise RigError(f"the command took more than {timeout_s:.0f} s")
    status = shared / "status"
    if not status.is_file():
        raise RigError(console.report(log.read_text(errors="replace"), exit_code))
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


def environment(kernel: Kernel, memory: Path, preload: Path | None) -> dict[str, str]:
    """The environment of the kernel's process. The guest's programs have another one."""
    variables = {
        "LD_LIBRARY_PATH": str(kernel.libraries),
        "TMPDIR": str(memory),
        "HOME": "/root",
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    }
    if preload is not None:
        # Relative to where the kernel is started: a blank in the path would split it in two.
        variables["LD_PRELOAD"] = os.path.relpath(preload, kernel.libraries)
    return variables


def run(
    command: list[str],
    kernel: Kernel,
    variables: dict[str, str],
    output: IO[bytes],
    log: IO[bytes],
    timeout_s: float,
) -> int | None:
    """The exit code, if it ended by itself. In any case none of its processes stays."""
    process = subprocess.Popen(
        command,
        cwd=kernel.libraries,  # Where its loader is.
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=log,
        start_new_session=True,
    )
    _running.add(process)
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        stop(process)
        _running.discard(process)


def stop_all() -> None:
    """Kills every kernel. For those who booted them, the guest ends without a result."""
    for process in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Asks it to end, which ends its processes too; then kills what is left."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_tls_stat(file: Path) -> dict[str, int]:
    """The counters by their names."""
    if not file.is_file():
        return {}
    pairs = (line.split() for line in file.read_text().splitlines())
    return {name: int(value) for name, value in pairs}
