"""What has to be compiled, by the pinned ziglang: the floors, and picows's Cython listener."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

FOLDER = Path(__file__).parent
BUILD = FOLDER / "build"

FLOOR = BUILD / "floor"
LISTENER = BUILD / f"picows_listener{sysconfig.get_config_var('EXT_SUFFIX')}"


class BuildError(Exception):
    """A compiler's message."""


def build_floor() -> None:
    source = FOLDER / "floors" / "floor.c"
    if is_stale(FLOOR, source):
        compile_c(source, FLOOR, ["-ldl"])


def build_listener() -> None:
    """The listener belongs to one version of picows, and to one of Python."""
    source = FOLDER / "clients" / "picows_listener.pyx"
    picows = importlib.util.find_spec("picows")
    assert picows is not None
    assert picows.origin is not None
    if not is_stale(LISTENER, source, Path(picows.origin)):
        return
    generated = BUILD / "picows_listener.c"
    packages = str(Path(picows.origin).parents[1])
    BUILD.mkdir(exist_ok=True)
    run([sys.executable, "-m", "cython", "-3", "-I", packages, str(source), "-o", str(generated)])
    include = sysconfig.get_path("include")
    compile_c(generated, LISTENER, ["-shared", "-fPIC", f"-I{include}"])


def is_stale(target: Path, *sources: Path) -> bool:
    return not target.exists() or any(
        target.stat().st_mtime < source.stat().st_mtime for source in sources
    )


def compile_c(source: Path, target: Path, options: list[str]) -> None:
    BUILD.mkdir(exist_ok=True)
    compiler = [sys.executable, "-m", "ziglang", "cc", "-O3", "-DNDEBUG", "-w"]
    run([*compiler, str(source), "-o", str(target), *options])


def run(command: list[str]) -> None:
    environment = {**os.environ, "ZIG_DEBUG_CMD": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command[:4])} …: {done.stderr.strip()}")


def libssl() -> str:
    """The path of the OpenSSL that Python's own ssl module has loaded."""
    import ssl  # noqa: F401

    path = loaded("libssl")
    if path is None:
        raise BuildError("Python's ssl module has OpenSSL built in: there is no library to compare")
    return path


def libz() -> str:
    """The zlib that Python's own zlib module has loaded; if it has one built in, the system's."""
    import zlib  # noqa: F401

    return loaded("libz.so") or "libz.so.1"


def loaded(name: str) -> str | None:
    """The path of a library of this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split()[-1]
        if Path(path).name.startswith(name):
            return path
    return None
