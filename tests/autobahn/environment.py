"""Where the suite runs: a CPython 2.7 that is on this machine, and a virtualenv made for it.

The virtualenv is made once, and again when requirements.txt changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Unavailable", "provide"]

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
FOLDER = HERE.parents[1] / ".venv-autobahn"

#: The last one that makes environments for CPython 2.7.
VIRTUALENV = "virtualenv==20.21.1"

#: Seconds for one step of the installation.
STEP_TIMEOUT = 300


class Unavailable(Exception):
    """The suite cannot run on this machine, and why."""


def provide() -> Path:
    """The Python that has the suite; installed first where it is not yet."""
    suite = FOLDER / "suite" / "bin" / "python"
    stamp = FOLDER / "installed.txt"  # What was installed, written when it was complete.
    wanted = f"# {VIRTUALENV}\n{REQUIREMENTS.read_text(encoding='utf-8')}"
    if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted and works(suite)):
        install(find_python())
        stamp.write_text(wanted, encoding="utf-8")
    return suite


def install(python: Path) -> None:
    """Makes the environment from nothing."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    tool, suite = FOLDER / "virtualenv", FOLDER / "suite"
    pip_options = ["--quiet", "--disable-pip-version-check"]
    step(sys.executable, "-m", "venv", tool)
    step(tool / "bin" / "pip", "install", *pip_options, VIRTUALENV)
    step(tool / "bin" / "virtualenv", "--quiet", "--python", python, suite)
    step(suite / "bin" / "pip", "install", *pip_options, "--no-deps", "-r", REQUIREMENTS)


def step(*command: str | Path) -> None:
    """Runs one step; what it says is shown only when it fails."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=STEP_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{Path(command[0]).name} took more than {STEP_TIMEOUT} s") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip() or error.stdout.strip() or "nothing").splitlines()[-1]
        raise Unavailable(f"{Path(command[0]).name} failed and said: {said}") from error


def find_python() -> Path:
    """The first CPython 2.7 that runs."""
    for python in candidates():
        if works(python):
            return python
    raise Unavailable("there is no CPython 2.7, neither on the path nor from pyenv")


def candidates() -> Iterator[Path]:
    """Where a CPython 2.7 may be. One on the path may be a shim of pyenv that does not run."""
    on_path = shutil.which("python2.7")
    if on_path is not None:
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob("versions/2.7.*/bin/python2.7"), reverse=True)


def works(python: Path) -> bool:
    """Whether this is a CPython 2.7."""
    program = "import platform; print(platform.python_implementation() + platform.python_version())"
    try:
        done = subprocess.run([python, "-c", program], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.startswith("CPython2.7.")
