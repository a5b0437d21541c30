"""Packages of any Debian suite, from the mirror that the host uses, unpacked and not installed.

apt does the work, with a configuration and a state of its own: it checks the signatures, and what
the host has installed is neither asked for nor changed.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["RigError", "Unavailable", "unpack"]

#: Seconds for one call of apt.
APT_TIMEOUT = 120

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

NEEDED = ("apt-get", "dpkg-deb")

SOURCE = """\
Types: deb
URIs: {mirror}
Suites: {suite}
Components: main
Architectures: amd64
Signed-By: {keyring}
"""

CONFIGURATION = """\
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{folder}/parts";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Acquire::Languages "none";
Acquire::Retries "2";
APT::Update::Error-Mode "any";
APT::Sandbox::User "";
"""


class Unavailable(Exception):
    """What is needed cannot be had on this machine, and why. Then tests are skipped."""


class RigError(Exception):
    """The rig itself does not work, and why. Then tests have failed."""


def unpack(suite: str, packages: Iterable[str], folder: Path) -> None:
    """The files of the newest versions in the suite, in the folder; no script of theirs is run."""
    mirror = find_mirror()
    with tempfile.TemporaryDirectory(prefix="apt-", dir=folder.parent) as name:
        apt = Path(name).resolve()
        configure(apt, mirror, suite)
        try:
            call_apt(apt, "update")
        except RigError as error:
            raise Unavailable(f"{suite} of {mirror} cannot be had: {error}") from error
        call_apt(apt, "download", *packages)
        for package in apt.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)


def configure(apt: Path, mirror: str, suite: str) -> None:
    """A folder in which apt knows this suite, and nothing that is installed."""
    for name in ("parts", "state/lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    source = SOURCE.format(mirror=mirror, suite=suite, keyring=KEYRING)
    (apt / "parts" / "suite.sources").write_text(source)
    (apt / "apt.conf").write_text(CONFIGURATION.format(folder=apt))


def call_apt(apt: Path, *arguments: str) -> None:
    """apt-get, in such a folder."""
    environment = {**os.environ, "APT_CONFIG": str(apt / "apt.conf"), "LC_ALL": "C"}
    command = ["apt-get", "--quiet=2", *arguments]
    try:
        done = subprocess.run(
            command, cwd=apt, env=environment, capture_output=True, text=True, timeout=APT_TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise RigError(f"apt-get took more than {APT_TIMEOUT} s") from error
    if done.returncode != 0:
        raise RigError((done.stderr.strip() or "apt-get failed").splitlines()[0])


def find_mirror() -> str:
    """Where the host has the packages of its own Debian from."""
    check_host()
    release = platform.freedesktop_os_release()
    format_ = "$(RELEASE) $(COMPONENT) $(REPO_URI)"
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", format_], capture_output=True, text=True, check=True
    )
    names = (release.get("VERSION_CODENAME"), "stable", "testing", "unstable", "sid")
    for line in targets.stdout.splitlines():
        suite, component, mirror = line.split(" ", 2)
        if suite in names and component == "main":
            return mirror
    raise Unavailable("apt knows no mirror of Debian")


def check_host() -> None:
    """Whether this is a machine that the kernels are for."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise Unavailable("the kernels are for Linux on x86_64")
    if platform.freedesktop_os_release().get("ID") != "debian":
        raise Unavailable("this is not Debian, whose kernels are used")
    for program in NEEDED:
        if shutil.which(program) is None:
            raise Unavailable(f"there is no {program}")
    if not KEYRING.is_file():
        raise Unavailable(f"there is no {KEYRING} (package debian-archive-keyring)")
