"""Packages of any Debian suite and architecture: fetched, unpacked into a folder, never installed.

apt does the work, with its own configuration and state, which are removed afterwards. It checks
the signatures, and neither uses nor changes what the machine has installed. Of the
machine's own apt, only the mirror is read, and the keys that it trusts. The lists of packages are
kept for an hour, in build/debian-lists.

What cannot be fetched is :exc:`Unavailable`, a reason to skip a test. What was fetched and is not
as it should be is :exc:`PackageError`, and the test has failed.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

__all__ = ["PackageError", "Unavailable", "download_source", "own_suite", "unpack"]

#: Seconds for one command: a download, mostly.
COMMAND_TIMEOUT = 300

#: What apt knows of suites: the steps of one run ask for the same ones again and again.
LISTS = Path(__file__).parents[1] / "build" / "debian-lists"

#: Seconds after which it is fetched again. Mirrors keep a package for longer.
LISTS_AGE_MAX = 3600

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

NEEDED = ("apt-get", "apt-cache", "dpkg", "dpkg-deb", "tar")

#: Debian's names of architectures, by the kernel's.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

#: Links to the folders of these names in /usr, since Debian 12. Older packages have files in them.
MERGED = ("bin", "sbin", "lib", "lib64")

SOURCES = """\
Types: {types}
URIs: {mirror}
Suites: {suites}
Components: main
Signed-By: {keyring}
"""

CONFIGURATION = """\
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{folder}/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{folder}/state";
Dir::State::lists "{lists}";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
"""


class Unavailable(Exception):
    """Why what is needed cannot be fetched on this machine. Then tests are skipped."""


class PackageError(Exception):
    """The suite is there, but a package is missing or not as expected. Then tests fail."""


def unpack(
    suite: str,
    packages: Iterable[str],
    target: Path,
    *,
    architecture: str | None = None,
    dependencies: bool = False,
) -> None:
    """Unpacks the newest versions in the suite into `target`, unless that is there already.

    No script of a package is run: this is for what needs no set-up. The links /bin, /lib … are as
    Debian has them, so that the folder can be a root. All of it is there in the end, or nothing.

    :param architecture: ``amd64`` or ``arm64``; otherwise that of the machine.
    :param dependencies: whether all that the packages need comes along.
    """
    if target.is_dir():
        return
    with private_apt("deb", [suite], target.parent, architecture) as apt:
        root = apt.folder / "root"
        make_links(root)
        for archive in apt.download(packages, dependencies=dependencies):
            extract(archive, root)
        try:
            root.rename(target)
        except OSError:  # Another process may have been faster.
            if not target.is_dir():
                raise


def download_source(packages: Sequence[str], suites: Sequence[str], folder: Path) -> Path:
    """Upstream's archive of the first source package that is available, in its newest version.

    A mirror may list what it no longer has: then the next version, or package, is tried.
    """
    with private_apt("deb-src", suites, folder) as apt:
        for package in packages:
            for version in apt.source_versions(package):
                with contextlib.suppress(Unavailable):
                    archive = apt.download_source(package, version)
                    return Path(shutil.move(archive, folder / archive.name))
    raise Unavailable(f"the mirror has the sources of none of {', '.join(packages)}")


class Apt:
    """apt with one folder for all that it gets, and one for the lists of what there is."""

    def __init__(self, folder: Path, architecture: str, lists: Path) -> None:
        self.folder, self.lists = folder, lists
        configuration = folder / "apt.conf"
        text = CONFIGURATION.format(folder=folder, architecture=architecture, lists=lists)
        configuration.write_text(text, encoding="utf-8")
        self._environment = {**os.environ, "APT_CONFIG": str(configuration), "LC_ALL": "C"}

    def update(self, types: str, suites: Sequence[str]) -> None:
        """Gets the lists of the suites, of binary (``deb``) or source packages (``deb-src``).

        Unless they have been fetched a short while ago, perhaps by another process.
        """
        for name in ("sources", "state", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "status").touch()
        mirror, names = find_mirror(), " ".join(suites)
        sources = SOURCES.format(types=types, mirror=mirror, suites=names, keyring=KEYRING)
        (self.folder / "sources" / "debian.sources").write_text(sources, encoding="utf-8")
        with is_fresh(self.lists) as fresh:
            if fresh:
                return
            try:
                self._run("apt-get", "-qq", "update")
            except PackageError as error:
                raise Unavailable(f"{names} of {mirror} cannot be had: {error}") from error

    def download(self, packages: Iterable[str], *, dependencies: bool) -> list[Path]:
        """The archives of the packages, perhaps with all that they need."""
        archives = self.folder / "cache" / "archives"
        if dependencies:
            self._run("apt-get", "-qq", "--yes", "--download-only", "install", *packages)
        else:
            self._run("apt-get", "-qq", "download", *packages, cwd=archives)
        return sorted(archives.glob("*.deb"))

    def source_versions(self, package: str) -> list[str]:
        """The versions of a source package, the newest first."""
        try:
            shown = self._run("apt-cache", "showsrc", "--only-source", package)
        except PackageError:
            return []
        versions = set(re.findall(r"^Version: (\S+)", shown, re.MULTILINE))
        return sorted(versions, key=functools.cmp_to_key(compare_versions), reverse=True)

    def download_source(self, package: str, version: str) -> Path:
        """The upstream version, without what Debian has added."""
        target = self.folder / "source" / version
        target.mkdir(parents=True)
        options = ("-qq", "--download-only", "--tar-only")
        self._run("apt-get", *options, "source", f"{package}={version}", cwd=target)
        for archive in sorted(target.glob("*.orig.tar.*")):
            if archive.suffix != ".asc":
                return archive
        raise PackageError(f"{package} {version} has no archive of upstream's")

    def _run(self, *command: str, cwd: Path | None = None) -> str:
        return run(*command, cwd=cwd or self.folder, environment=self._environment)


@contextlib.contextmanager
def is_fresh(lists: Path) -> Iterator[bool]:
    """Whether the lists are fresh. If not, the block fetches them while other processes wait."""
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    # Beside the folder: apt removes unknown files from it.
    complete = lists.with_name(f"{lists.name}.complete")
    with lists.with_name(f"{lists.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh = complete.exists() and time.time() - complete.stat().st_mtime < LISTS_AGE_MAX
        yield fresh
        if not fresh:
            complete.touch()


@contextlib.contextmanager
def private_apt(
    types: str, suites: Sequence[str], folder: Path, architecture: str | None = None
) -> Iterator[Apt]:
    """An apt that knows these suites alone, for a time; its files are in `folder` meanwhile."""
    check_host()
    folder.mkdir(parents=True, exist_ok=True)
    architecture = architecture or own_architecture()
    with tempfile.TemporaryDirectory(prefix="apt-", dir=folder) as name:
        lists = LISTS / "-".join([types, *suites, architecture])
        apt = Apt(Path(name).resolve(), architecture, lists)
        apt.update(types, suites)
        yield apt


def check_host() -> None:
    """Checks that this machine has what is needed."""
    if platform.system() != "Linux" or own_release().get("ID") != "debian":
        raise Unavailable("this is not Debian, whose packages are needed")
    for program in NEEDED:
        if shutil.which(program) is None:
            raise Unavailable(f"there is no {program}")
    if not KEYRING.is_file():
        raise Unavailable(f"there is no {KEYRING} (package debian-archive-keyring)")


def own_release() -> dict[str, str]:
    """The contents of os-release."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def own_suite() -> str:
    """The suite that this machine runs."""
    return own_release().get("VERSION_CODENAME", "sid")


def own_architecture() -> str:
    """The architecture of this machine, as Debian calls it."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise Unavailable(f"packages are known for {', '.join(ARCHITECTURES)}, not for {machine}")
    return ARCHITECTURES[machine]


def find_mirror() -> str:
    """The mirror from which this machine gets its own packages."""
    names = (own_suite(), "stable", "testing", "unstable", "sid")
    wanted = ("Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main")
    targets = run("apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", *wanted)
    for line in targets.splitlines():
        suite, mirror = line.split(" ", 1)
        if suite in names:
            return mirror
    raise Unavailable("apt knows no mirror of Debian; has `apt-get update` been run?")


def compare_versions(one: str, other: str) -> int:
    """Compares two versions by Debian's rules: below zero when the first one is older."""
    if one == other:
        return 0
    command = ["dpkg", "--compare-versions", one, "lt", other]
    return -1 if subprocess.run(command, check=False).returncode == 0 else 1


def make_links(root: Path) -> None:
    """A root in which /bin is a link to /usr/bin, and so on."""
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")


def extract(archive: Path, root: Path) -> None:
    """The files of a package. `dpkg-deb --extract` would put folders in the place of the links."""
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE
    ) as reader:
        options = ("--keep-directory-symlink", "--no-same-owner")
        run("tar", "--extract", *options, cwd=root, stdin=reader)
    if reader.returncode != 0:
        raise PackageError(f"dpkg-deb cannot read {archive.name}")


def run(
    *command: str,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
    stdin: subprocess.Popen[bytes] | None = None,
    timeout: float = COMMAND_TIMEOUT,
    error_prefix: str = "E: ",
    unavailable: Sequence[str] = ("Failed to fetch",),
) -> str:
    """The output of a command. What cannot be fetched is unavailable; all else is an error.

    :param error_prefix: what the line begins with that tells the reason; apt's, unless told.
    :param unavailable: what the command says of what cannot be fetched.
    """
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL if stdin is None else stdin.stdout,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} took more than {timeout} s") from error
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.splitlines() or [f"{command[0]} failed"]
    reason = next((line for line in said if line.startswith(error_prefix)), said[0])
    fetching = any(sign in done.stderr for sign in unavailable)
    raise (Unavailable if fetching else PackageError)(reason)
