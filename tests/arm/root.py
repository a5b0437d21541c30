"""Unpacks Debian's Python for arm64, its headers, and the packages that the tests import.

The suite is that of the machine.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from release import debian
from release.headers import from_debian
from release.matrix import Python
from tests import registry

ARCHITECTURE = "arm64"

#: What the root is made of; apt adds what they depend on. `openssl` is the server of some tests.
PACKAGES = ("python3", "openssl")

#: A wheel for any of these runs on the libc of Debian 12 and later.
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


def make_root(root: Path) -> None:
    """Unpacks Debian's Python into `root`, unless that has been done."""
    debian.unpack(debian.own_suite(), PACKAGES, root, architecture=ARCHITECTURE, dependencies=True)


def python_version(root: Path) -> str:
    """`3.11` for Debian 12."""
    return os.readlink(root / "usr/bin/python3").removeprefix("python")


def include_folder(root: Path, folder: Path) -> Path:
    """The folder of Python.h; fetched into `folder`, unless that has been done."""
    python = Python(python_version(root), suite=debian.own_suite())
    return from_debian(python, ARCHITECTURE, folder)


def install_packages(target: Path, version: str, project: Path) -> None:
    """Installs the packages that the tests import, from wheels for that machine."""
    complete = target / ".complete"
    if complete.exists():
        return
    shutil.rmtree(target, ignore_errors=True)
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    try:
        registry.pip(
            sys.executable, "install", "--target", target, *platforms, "--implementation", "cp",
            "--python-version", version, "--only-binary", ":all:",
            "--group", f"{project / 'pyproject.toml'}:test",
        )  # fmt: skip
    except (debian.PackageError, debian.Unavailable) as error:
        raise debian.Unavailable(
            f"the wheels of the tests cannot be had for arm64 ({error})"
        ) from error
    complete.touch()
