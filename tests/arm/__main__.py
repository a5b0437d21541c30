"""`python -m tests.arm`: runs the tests that `selection.py` chooses, or a command, on Arm."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import tests.arm
from release.debian import Unavailable
from tests.arm.root import include_folder, install_packages, make_root, python_version
from tests.arm.selection import PAGES_FILTERS

PROJECT = Path(__file__).parents[2]
WORK = PROJECT / "build" / "arm"
ROOT = WORK / "root"
SITE = WORK / "site"
PACKAGE = WORK / "package"
CORE_TEST = WORK / "core" / "core-test"

#: The tests that depend on the size of a page: `PAGES_FILTERS`.
PAGES_TEST = WORK / "pages" / "core-test"

#: Linux on Arm has pages of 4, 16 or 64 KiB.
PAGE_SIZES = (16 * 1024, 64 * 1024)

PYTEST = (
    "-q", "-p", "no:cacheprovider", "-p", "tests.arm.selection", "--fault-seeds=20",
    *(f"--ignore=tests/{folder}" for folder in ("autobahn", "exchange", "integration", "package")),
    "tests",
)  # fmt: skip

#: How much of a core's log is shown: failures are counted at its end.
OUTPUT_SHOWN = 4_000

#: A CPU of data centres. qemu's own choice has pointer authentication, and computes its signatures
#: so slowly that a TLS handshake takes four times as long.
CPU = "neoverse-n1"

#: The target of the wheels.
TARGET = "aarch64-linux-gnu.2.28"


def find_qemu() -> str:
    """The emulator, by either of its names."""
    if platform.machine() in ("aarch64", "arm64"):
        raise Unavailable("this machine is Arm itself: `make test` is the test")
    for name in ("qemu-aarch64", "qemu-aarch64-static"):
        if path := shutil.which(name):
            return path
    raise Unavailable("there is no qemu-aarch64 (Debian: qemu-user or qemu-user-static)")


def zig_build(*arguments: str) -> None:
    """`zig build` for Arm."""
    command = [sys.executable, "-m", "ziglang", "build", f"-Dtarget={TARGET}", *arguments]
    subprocess.run(command, cwd=PROJECT, env={**os.environ, "ZIG_DEBUG_CMD": "1"}, check=True)


def build_core() -> None:
    """Compiles the tests of the core, without those that an emulator cannot run."""
    options = ("install-test", "-Demulated=true", "-Dfault-seeds=100")
    filters = [f"-Dtest-filter={name}" for name in PAGES_FILTERS]
    zig_build(*options, "--prefix", str(CORE_TEST.parent))
    zig_build(*options, *filters, "--prefix", str(PAGES_TEST.parent))


def build_extension() -> None:
    """Makes the package, its extension with every assertion on, also those about alignment."""
    shutil.rmtree(PACKAGE, ignore_errors=True)
    shutil.copytree(
        PROJECT / "hftws", PACKAGE / "hftws", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    zig_build(
        "-Doptimize=safe",
        "-Dmodule-file=_core.so",
        f"-Dpython-include={include_folder(ROOT, WORK)}",
        "-Din-place=false",
        "--prefix",
        str(PACKAGE / "hftws"),
    )


def write_python(qemu: str) -> Path:
    """A program that is the emulated Python, also for a child that is started by `sys.executable`.

    It stands in the root, and says that it is `argv[0]`: so Python finds its library from there.
    """
    script = ROOT / "usr/bin/python"
    interpreter = ROOT / "usr/bin" / f"python{python_version(ROOT)}"
    script.write_text(
        f'#!/bin/sh\nexec "{qemu}" -cpu {CPU} -L "{ROOT}" -0 "$0" "{interpreter}" "$@"\n',
        encoding="utf-8",
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return script


def environment() -> dict[str, str]:
    """The environment of the emulated Python, which is slower than the tests' limits allow for."""
    path = os.pathsep.join(map(str, (PACKAGE, SITE, PROJECT)))
    return {
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONSAFEPATH": "1",  # The checkout, with no extension for Arm, must not come first.
        "HFTWS_TEST_PATIENCE": "10",
        "HFTWS_TEST_EMULATED": "1",
    }


def command_on_arm(qemu: str, words: list[str], page_size: int | None) -> list[str]:
    """`python` is the emulated Python; anything else is a program for Arm."""
    if words[0] == "python":
        return [str(write_python(qemu)), *words[1:]]
    options = ["-p", str(page_size)] if page_size is not None else []
    return [qemu, "-cpu", CPU, "-L", str(ROOT), *options, *words]


def prepare() -> str:
    """Fetches and builds everything; returns the emulator's path."""
    qemu = find_qemu()
    make_root(ROOT)
    include_folder(ROOT, WORK)
    install_packages(SITE, python_version(ROOT), PROJECT)
    return qemu


def run_all(qemu: str) -> int:
    """Tests core and extension side by side: 0 when neither has failed."""
    log = WORK / "core.log"
    core = command_on_arm(qemu, [str(CORE_TEST)], None)
    python = command_on_arm(qemu, ["python", "-m", "pytest", *PYTEST], None)
    with log.open("wb") as output:
        begin = time.monotonic()
        running = subprocess.Popen(core, cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT)
        try:
            status_python = subprocess.run(python, cwd=PROJECT, env=environment()).returncode
            status_core = running.wait()
        finally:
            running.kill()
    print(log.read_text(encoding="utf-8", errors="replace")[-OUTPUT_SHOWN:])
    print(
        f"On Arm: core exit {status_core}, extension exit {status_python}, "
        f"{time.monotonic() - begin:.0f} s"
    )
    return int(status_core != 0 or status_python != 0 or run_pages(qemu) != 0)


def run_pages(qemu: str) -> int:
    """Runs the tests of memory again with Arm's largest pages: 0 when none has failed."""
    for page_size in PAGE_SIZES:
        command = command_on_arm(qemu, [str(PAGES_TEST)], page_size)
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
        print(f"On Arm with pages of {page_size} bytes: exit {done.returncode}")
        if done.returncode != 0:
            print(done.stderr[-OUTPUT_SHOWN:])
            return done.returncode
    return 0


def main() -> int:
    """The exit code of the command; or of the tests, 0 also when they are skipped."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.arm",
        description=tests.arm.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--page-size", type=int, help="that the program is told (not Python's)")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    try:
        qemu = prepare()
    except Unavailable as reason:
        print(f"arm-test is skipped: {reason}.")
        return 0 if not arguments.command else 1
    if arguments.command:
        build_extension() if arguments.command[0] == "python" else build_core()
        words = command_on_arm(qemu, arguments.command, arguments.page_size)
        return subprocess.run(words, cwd=PROJECT, env=environment()).returncode
    build_core()
    build_extension()
    return run_all(qemu)


if __name__ == "__main__":
    sys.exit(main())
