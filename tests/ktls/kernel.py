"""Fetches a suite's user-mode-linux: program, C library, and the modules that kTLS needs."""

from __future__ import annotations

import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path

from release.debian import PackageError, Unavailable, unpack

__all__ = ["ARCHITECTURE", "SUITES", "Kernel", "check_machine", "provide"]

#: The newest comes last.
SUITES = ("bookworm", "trixie", "sid")

#: Changes from day to day: if its packages are not as expected, that is not our failure.
ROLLING = "sid"

#: Packages of user-mode-linux; nearly all programs in it are the host's.
ARCHITECTURE = "amd64"

#: In the order of loading, what they depend on apart. The kernel asks for its ciphers by the names
#: of algorithms, which nobody in the guest could turn into modules. So all are loaded beforehand.
MODULES = ("overlay", "gcm", "ghash-generic", "ctr", "seqiv", "ccm", "chacha", "chacha_generic")
MODULES += ("poly1305_generic", "chacha20poly1305", "tls")

#: The others are built in, or have another name, in some kernels.
REQUIRED = ("overlay", "gcm", "ctr", "chacha20poly1305", "tls")

INTERPRETER = b"/lib64/ld-linux-x86-64.so.2\0"


@dataclass(frozen=True)
class Kernel:
    """What is kept of a suite's kernel."""

    folder: Path

    @property
    def release(self) -> str:
        """As uname tells it."""
        return (self.folder / "release").read_text().strip()

    @property
    def libraries(self) -> Path:
        """The folder in which the program has to be started, and which has its C library."""
        return self.folder / "libraries"

    @property
    def program(self) -> Path:
        return self.folder / "linux"

    @property
    def busybox(self) -> Path:
        """The programs of the guest until it has a root."""
        return self.folder / "busybox"

    @property
    def modules(self) -> list[Path]:
        """In the order of loading."""
        return sorted((self.folder / "modules").iterdir())


def provide(suite: str, folder: Path) -> Kernel:
    """The suite's kernel; fetched unless it is in the folder already."""
    check_machine()
    kernel = Kernel(folder / suite)
    if not kernel.folder.is_dir():
        try:
            fetch(suite, kernel)
        except PackageError as error:
            if suite != ROLLING:
                raise
            raise Unavailable(f"{suite} has changed: {error}") from error
    return kernel


def fetch(suite: str, kernel: Kernel) -> None:
    """Leaves all of it there, or nothing."""
    with tempfile.TemporaryDirectory(prefix=f"{suite}-", dir=kernel.folder.parent) as name:
        packages, new = Path(name, "packages"), Kernel(Path(name, "kernel"))
        names = ("user-mode-linux", "libc6", "busybox-static")
        unpack(suite, names, packages, architecture=ARCHITECTURE)
        keep(packages, new)
        new.folder.rename(kernel.folder)


def check_machine() -> None:
    """Checks that the kernels can run here."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise Unavailable("the kernels are for Linux on x86_64")


def keep(unpacked: Path, kernel: Kernel) -> None:
    """Takes what is needed from the unpacked packages."""
    (kernel.folder / "modules").mkdir(parents=True)
    kernel.program.write_bytes(with_own_interpreter(find(unpacked, "linux.uml").read_bytes()))
    kernel.program.chmod(0o755)
    find(unpacked, "busybox").rename(kernel.busybox)
    find(unpacked, "libc.so.6").parent.rename(kernel.libraries)
    tree = find(unpacked, "modules.dep").parent
    for number, module in enumerate(in_loading_order(tree)):
        module.rename(kernel.folder / "modules" / f"{number:02}-{module.stem}.ko")
    (kernel.folder / "release").write_text(tree.name)


def find(folder: Path, name: str) -> Path:
    """The file of this name. Suites differ in where they put it."""
    for path in sorted(folder.rglob(name)):
        if path.is_file():
            return path.resolve()
    raise PackageError(f"the packages of Debian have no {name}")


def with_own_interpreter(program: bytes) -> bytes:
    """The program, with the dynamic loader of the folder where it is started.

    That of the host may be too old for it, and the loader cannot be told on its command line: then
    the end of the heap would be the loader's, and not where the program expects it.
    """
    own = b"./ld-linux-x86-64.so.2".ljust(len(INTERPRETER), b"\0")
    if program.count(INTERPRETER) != 1:
        raise PackageError("linux.uml does not name its loader as expected")
    return program.replace(INTERPRETER, own)


def in_loading_order(tree: Path) -> list[Path]:
    """The modules, each behind those that it depends on."""
    needs: dict[str, list[str]] = {}
    for line in (tree / "modules.dep").read_text().splitlines():
        module, _, others = line.partition(":")
        needs[module] = [*reversed(others.split()), module]
    by_name = {Path(module).stem: module for module in needs}
    if missing := [name for name in REQUIRED if name not in by_name]:
        raise PackageError(f"the kernel {tree.name} has no module {', '.join(missing)}")
    ordered = [part for name in MODULES if name in by_name for part in needs[by_name[name]]]
    return [tree / module for module in dict.fromkeys(ordered)]
