"""Builds a free-threaded CPython from Debian's sources, and runs tests on it.

    python -m tests.free_threading build     # the interpreter, once: build/free_threading/python
    python -m tests.free_threading test      # the extension for it, and the tests

Debian has no package of one, but the sources: the newest that the machine's own mirror still has.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from release.debian import PackageError, Unavailable, download_source
from tests import registry
from tests.ktls.host import cpus

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "free_threading"
PYTHON = BUILD / "python" / "bin" / "python3"
#: Debian's packages, the newest first, and the suites that have them.
SOURCES = ("python3.14", "python3.13")
SUITES = ("sid", "trixie")
#: Flags with which compiling takes a third of the time; the interpreter is fast enough for tests.
OPTIMIZATION = "OPT=-DNDEBUG -O1"
#: How many compilers run at a time: a machine with many CPUs may have little memory for each.
JOBS_MAX = 8
#: What the interpreter of the tests needs besides pytest.
PACKAGES = ("ziglang==0.17.1", "pytest>=8,<10", "websockets>=14.2,<18")
PACKAGES += ("tlslite-ng==0.8.2", "wsproto==1.3.2")
#: The tests: threads, messages, what is kept of them, how a client ends, and look-ups of names.
TESTS = ("threads", "callbacks", "pinning", "send", "close", "messages", "memory", "timestamps")
TESTS += ("lookup",)


def run(command: Sequence[str], log: str, **options: object) -> None:
    """Runs the command; its output goes to a file, whose end is shown when it fails."""
    with (BUILD / f"{log}.log").open("ab") as file:
        result = subprocess.run(command, stdout=file, stderr=file, **options)  # type: ignore[call-overload]
    if result.returncode != 0:
        text = (BUILD / f"{log}.log").read_text(errors="replace")
        raise SystemExit(f"{' '.join(command)} failed:\n{text[-4000:]}")


def build() -> None:
    """Builds it in a minute or two on two cores: without optimisations, which take twenty."""
    if PYTHON.is_file():
        return
    shutil.rmtree(BUILD, ignore_errors=True)
    source = BUILD / "source"
    source.mkdir(parents=True)
    archive = download_source(SOURCES, SUITES, BUILD)
    print(f"building a free-threaded CPython from {archive.name}", flush=True)
    run(["tar", "-xf", str(archive), "-C", str(source), "--strip-components=1"], "unpack")
    configure = ["./configure", f"--prefix={PYTHON.parents[1]}", "--disable-gil", OPTIMIZATION]
    run([*configure, "--disable-test-modules", "--with-ensurepip=install"], "make", cwd=source)
    run(["make", f"-j{min(cpus(), JOBS_MAX)}"], "make", cwd=source)
    run(["make", "install"], "make", cwd=source)
    shutil.rmtree(source)


def test(arguments: Sequence[str]) -> int:
    """Builds the extension into this checkout, beside those of other interpreters."""
    build()
    registry.pip(PYTHON, "install", "--root-user-action=ignore", *PACKAGES)
    run([str(PYTHON), "hatch_build.py"], "extension", cwd=ROOT)
    stand_in = Path(__file__).parent / "stand_in"
    path = os.pathsep.join([str(ROOT), str(stand_in)])
    files = list(arguments) or [f"tests/test_{name}.py" for name in TESTS]
    return subprocess.run(
        [str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path, "LD_BIND_NOW": "1"}, check=False,
    ).returncode  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["build", "test"])
    parser.epilog = "What follows `test` is for pytest: files and options."
    chosen, for_pytest = parser.parse_known_args()
    try:
        if chosen.what == "build":
            build()
            return 0
        return test(for_pytest)
    except Unavailable as error:
        print(f"free-threading-test is skipped: {error}.")
        return 0
    except PackageError as error:
        raise SystemExit(f"free-threading-test cannot begin: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
