"""Packages of any Debian suite and architecture, unpacked into folders and never installed.

apt does it, with a configuration and a state of its own; of the machine's it reads only where the
mirror is, and which keys it trusts.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

SOURCES = """\
Types: deb
URIs: {mirror}
Suites: {suite}
Components: main
Architectures: {architecture}
Signed-By: {keyring}
"""

CONFIGURATION = """\
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{folder}/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
APT::Architecture "{architecture}";
APT::Architectures "{architecture}";
APT::Sandbox::User "root";
Acquire::Languages "none";
"""


class Unavailable(Exception):
    """This machine has no apt, or no mirror that can be reached, or the suite no such package."""


class Suite:
    """One suite for one architecture; what is fetched stays in `folder`."""

    def __init__(self, name: str, architecture: str, folder: Path) -> None:
        self._folder = folder.resolve() / f"{name}-{architecture}"
        self._environment = {**os.environ, "APT_CONFIG": str(self._folder / "apt.conf")}
        self._configure(name, architecture)

    def unpack(self, package: str, into: Path) -> None:
        """A package by itself."""
        archives = self._folder / "archives" / package
        archives.mkdir(parents=True, exist_ok=True)
        if not list(archives.glob("*.deb")):
            run("apt-get", "download", "-qq", package, cwd=archives, env=self._environment)
        for archive in archives.glob("*.deb"):
            extract(archive, into)

    def unpack_with_dependencies(self, packages: list[str], into: Path) -> None:
        """Packages and all that they need, into a root for chroot(2).

        No script of a package runs: this is for programs that need no set-up.
        """
        # /bin is a link to /usr/bin by now, and older packages still have files in /bin.
        for name in ("bin", "sbin", "lib", "lib64"):
            (into / "usr" / name).mkdir(parents=True, exist_ok=True)
            (into / name).symlink_to(f"usr/{name}")
        options = ("--no-install-recommends", "--download-only", "-y", "-qq")
        run("apt-get", "install", *options, *packages, cwd=into, env=self._environment)
        for archive in (self._folder / "cache" / "archives").glob("*.deb"):
            extract(archive, into)

    def _configure(self, name: str, architecture: str) -> None:
        folder = self._folder
        for part in ("sources", "state/lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        sources = SOURCES.format(
            mirror=mirror(), suite=name, architecture=architecture, keyring=KEYRING
        )
        (folder / "sources" / "debian.sources").write_text(sources)
        configuration = CONFIGURATION.format(folder=folder, architecture=architecture)
        (folder / "apt.conf").write_text(configuration)
        run("apt-get", "update", "-qq", cwd=folder, env=self._environment)


def mirror() -> str:
    """Where this machine gets its Debian packages from."""
    wanted = ("Created-By: Packages", "Origin: Debian", "Label: Debian")
    uris = run("apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted).split()
    if not uris:
        raise Unavailable("apt knows of no Debian mirror; has `apt-get update` been run?")
    return uris[0]


def extract(archive: Path, into: Path) -> None:
    """The files of a .deb. `dpkg-deb --extract` would replace the links /bin, /lib by folders."""
    into.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE
    ) as package:
        run("tar", "-x", "--keep-directory-symlink", "--no-same-owner", cwd=into, stdin=package)
    if package.returncode != 0:
        raise Unavailable(f"dpkg-deb could not read {archive.name}")


def run(
    *command: str,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: subprocess.Popen[bytes] | None = None,
) -> str:
    """The output of a command that has to succeed."""
    try:
        result = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL if stdin is None else stdin.stdout,
            capture_output=True,
            text=True,
            timeout=300,
        )
    except FileNotFoundError as error:
        raise Unavailable(f"there is no {command[0]} on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} took more than {error.timeout:g} s") from error
    if result.returncode != 0:
        raise Unavailable(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout
