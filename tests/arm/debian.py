"""Debian's Python for arm64 in a folder of its own, and what the tests import.

apt works with a configuration, a state and a cache of its own, so that it neither needs nor changes
what the machine has installed. The mirror and the suite are those of the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

#: What the root is made of; apt adds what they depend on. `openssl` is the server of some tests.
PACKAGES = ("python3", "openssl")

#: A wheel for any of these runs on the libc of Debian 12 and later.
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


class Missing(Exception):
    """Something that this machine does not have. The message is the reason to skip."""


def make_root(root: Path, work: Path) -> None:
    """Unpacks Debian's Python with its headers into `root`, unless that has been done."""
    complete = root / ".complete"
    if complete.exists():
        return
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Missing(f"there is no {tool} on this machine")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    environment = configure_apt(work / "apt")
    archives = work / "apt" / "cache" / "archives"
    try:
        apt(environment, "update")
        apt(environment, "install", "--yes", "--download-only", *PACKAGES)
        unpack(archives, root)
        # Only its headers are wanted: not the compiler's and the kernel's, on which it depends.
        package = f"libpython{python_version(root)}-dev"
        apt(environment, "download", package, cwd=archives)
    except subprocess.CalledProcessError as failure:
        last = (failure.stderr or failure.stdout or "").strip().splitlines()[-1:]
        raise Missing(f"Debian's arm64 packages cannot be had ({''.join(last)})") from failure
    unpack(archives, root, f"{package}_*.deb")
    choose_headers(root)
    complete.touch()


def configure_apt(folder: Path) -> Mapping[str, str]:
    """An apt that knows only arm64 and where this machine gets its Debian packages from."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("sources", "state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    sources = debian_sources()
    if not sources:
        raise Missing("this machine does not get its packages from Debian")
    for source in sources:
        shutil.copy(source, folder / "sources")
    (folder / "status").touch()
    configuration = folder / "apt.conf"
    configuration.write_text(
        f"""APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{folder}/sources";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
""",
        encoding="utf-8",
    )
    return {**os.environ, "APT_CONFIG": str(configuration), "LC_ALL": "C"}


def debian_sources() -> list[Path]:
    """The files of this machine's apt that are about Debian itself, and not about others."""
    folder = Path("/etc/apt")
    candidates = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    marks = ("debian-archive-keyring", "/debian ", "/debian/ ")
    return [
        path
        for path in candidates
        if path.suffix in (".list", ".sources")
        and path.is_file()
        and any(mark in path.read_text(encoding="utf-8") for mark in marks)
    ]


def apt(environment: Mapping[str, str], *arguments: str, cwd: Path | None = None) -> None:
    """apt-get; its output is shown only in what it raises."""
    subprocess.run(
        ["apt-get", "-qq", *arguments],
        env=environment, cwd=cwd, check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def unpack(archives: Path, root: Path, pattern: str = "*.deb") -> None:
    """Files only: what a package would do when it is installed is not needed."""
    for archive in sorted(archives.glob(pattern)):
        subprocess.run(["dpkg-deb", "--extract", archive, root], check=True)


def python_version(root: Path) -> str:
    """`3.11` for Debian 12."""
    return os.readlink(root / "usr/bin/python3").removeprefix("python")


def include_folder(root: Path) -> Path:
    """Where Python.h is."""
    return root / "usr/include" / f"python{python_version(root)}"


def choose_headers(root: Path) -> None:
    """Debian's pyconfig.h includes that of the architecture from a folder nobody searches here."""
    name = f"aarch64-linux-gnu/python{python_version(root)}/pyconfig.h"
    shutil.copy(root / "usr/include" / name, include_folder(root) / "pyconfig.h")


def install_packages(target: Path, version: str, project: Path) -> None:
    """What the tests import, as wheels for that machine; compiled ones among them."""
    complete = target / ".complete"
    if complete.exists():
        return
    shutil.rmtree(target, ignore_errors=True)
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--target", str(target), *platforms, "--implementation", "cp",
        "--python-version", version, "--only-binary", ":all:", "--group", "test",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        raise Missing(f"the wheels of the tests cannot be had for arm64 ({''.join(last)})")
    complete.touch()
