"""The wheels of a release: one for each CPython on each platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Python:
    """A CPython to build for."""

    #: As in the name of its command: 3.13, or 3.13t without the global interpreter lock (PEP 703).
    name: str
    #: The Debian suite that has its headers, where it is not installed.
    suite: str | None = None

    @property
    def version(self) -> str:
        """The version of language and library: 3.13 for both of its builds."""
        return self.name.removesuffix("t")

    @property
    def free_threaded(self) -> bool:
        """Whether it is the build without the lock."""
        return self.name.endswith("t")

    @property
    def tag(self) -> str:
        """The front of a wheel's tag: cp313-cp313t."""
        return f"cp{self.version}-cp{self.name}".replace(".", "")


@dataclass(frozen=True)
class Platform:
    """A system to build for."""

    name: str
    #: Zig's name of it, with the oldest version of the C library or system that is supported.
    target: str


PYTHONS: Final = (
    Python("3.10"),
    Python("3.11", suite="bookworm"),
    Python("3.12"),
    Python("3.13", suite="trixie"),
    Python("3.14", suite="sid"),
    Python("3.13t", suite="trixie"),
    Python("3.14t", suite="sid"),
)

PLATFORMS: Final = (
    Platform("manylinux_x86_64", "x86_64-linux-gnu.2.28"),
    Platform("manylinux_aarch64", "aarch64-linux-gnu.2.28"),
    Platform("musllinux_x86_64", "x86_64-linux-musl"),
    Platform("macos_x86_64", "x86_64-macos.12.0"),
    Platform("macos_arm64", "aarch64-macos.12.0"),
)
