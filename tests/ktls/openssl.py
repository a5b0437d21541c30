"""Runs the host's Python with the OpenSSL of another suite, unpacked beside the host's."""

from __future__ import annotations

import sys
from pathlib import Path

from release.debian import unpack

from .kernel import ARCHITECTURE, check_machine

__all__ = ["HOST", "VERSIONS", "provide"]

#: The version of OpenSSL that the host's Python has.
HOST = "host"

#: OpenSSL's version, the suite that has it, and the package.
VERSIONS = {"3.5": ("trixie", "libssl3t64")}

#: What libssl needs besides. It is newer than the host's.
COMPANIONS = ("libc6", "zlib1g", "libzstd1")

LIBRARIES = Path("usr/lib/x86_64-linux-gnu")


def provide(version: str, folder: Path) -> list[str]:
    """The command that starts Python with this OpenSSL; fetched unless it is in the folder.

    That is the loader of the suite, with its libraries and then the host's. What Python starts by
    itself has the host's again.
    """
    if version == HOST:
        return [sys.executable]
    kept = folder / f"openssl-{version}"
    suite, package = VERSIONS[version]
    check_machine()
    unpack(suite, (package, *COMPANIONS), kept, architecture=ARCHITECTURE)
    libraries = kept / LIBRARIES
    loader = libraries / "ld-linux-x86-64.so.2"
    arguments = ["--library-path", str(libraries), "--argv0", sys.executable, sys.executable]
    return [str(loader), *arguments]
