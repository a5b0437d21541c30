"""Headers of every CPython, for any platform.

`Include/` is the same on every machine and for every configuration of a CPython; only pyconfig.h
has what its configure script found out about one machine. An extension needs little of that: the
sizes of the C types, which all our platforms (LP64) share, that there are POSIX threads, and
whether this is the free-threaded build (PEP 703). So the headers of one machine, with a pyconfig.h
that has only this, serve for every platform.

That is checked twice: src/python/abi.zig compares the sizes with the target's own when it compiles,
and a test compares the module with that of a real pyconfig.h, byte for byte.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from . import debian
from .matrix import PYTHONS, Python

PYCONFIG = """\
#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 8
#define SIZEOF_LONG_LONG 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_VOID_P 8
#define SIZEOF_WCHAR_T 4
#define SIZEOF_PID_T 4
#define HAVE_PTHREAD_H 1
"""
PYCONFIG_FREE_THREADED = "#define Py_GIL_DISABLED 1\n"


class Missing(Exception):
    """The headers of a CPython are not installed, and Debian does not have them."""


@cache
def headers(python: Python, folder: Path) -> Path:
    """A folder with the headers of a CPython for every platform, made in `folder`."""
    made = folder / python.name
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(original(python, folder), made)
    configuration = PYCONFIG + (PYCONFIG_FREE_THREADED if python.free_threaded else "")
    (made / "pyconfig.h").write_text(configuration)
    return made


def original(python: Python, folder: Path) -> Path:
    """The unchanged headers of its version, with the pyconfig.h of one machine."""
    for executable in installed(python.version):
        include = Path(facts(executable)["include"])
        if (include / "Python.h").is_file():
            return include
    if python.suite is None:
        raise Missing(f"CPython {python.version} is not installed, and no Debian suite has it")
    return from_debian(python, "amd64", folder)


@cache
def from_debian(python: Python, architecture: str, folder: Path) -> Path:
    """The headers of its version in Debian, with the pyconfig.h of one architecture."""
    unpacked = folder / f"debian-{python.version}-{architecture}"
    include = unpacked / "usr" / "include"
    assert python.suite is not None
    package = f"libpython{python.version}-dev"
    debian.unpack(python.suite, [package], unpacked, architecture=architecture)
    # Debian's pyconfig.h only includes the one of the architecture, by a path below /usr.
    (configuration,) = include.glob(f"*-linux-gnu/python{python.version}/pyconfig.h")
    shutil.copy(configuration, include / f"python{python.version}" / "pyconfig.h")
    return include / f"python{python.version}"


def installed(version: str) -> Iterator[Path]:
    """The interpreters of a version on this machine: on the path, or where pyenv puts them."""
    found = shutil.which(f"python{version}")
    candidates = [Path(found)] if found else []
    candidates += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    for candidate in candidates:
        try:
            if facts(candidate)["version"] == version:
                yield candidate
        except (OSError, subprocess.SubprocessError):
            continue  # A shim of pyenv's, for a version that is not active.


@cache
def facts(executable: Path) -> dict[str, str]:
    """An interpreter's version, and the folder of its headers."""
    code = (
        "import json, sys, sysconfig\n"
        "threads = 't' if sysconfig.get_config_var('Py_GIL_DISABLED') else ''\n"
        "version = '%d.%d' % sys.version_info[:2] + threads\n"
        "include = sysconfig.get_path('include')\n"
        "print(json.dumps({'version': version, 'include': include}))\n"
    )
    result = subprocess.run(
        [str(executable), "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    answer: dict[str, str] = json.loads(result.stdout)
    return answer


def named(name: str) -> Python:
    """A row of the table, by its name."""
    return next(python for python in PYTHONS if python.name == name)
