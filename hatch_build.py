"""Compiles the Zig core into the package: a hatchling build hook, and `python hatch_build.py`.

Facts about the interpreter reach build.zig as -D options only. Zig caches the configuration of a
build by its options, so a fact from the environment would go stale.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent
PACKAGE = "hftws"
MODULE = "_core"
OPTIMIZE = ("fast", "safe", "small", "debug")

#: The oldest musl that a wheel for it runs with: musllinux (PEP 656) counts by its versions.
MUSL = "1_2"


class Interpreter(NamedTuple):
    """The CPython that a module is built for: only headers and file names depend on it."""

    #: In the form of PEP 425: 313.
    version: str
    #: Without the global interpreter lock (PEP 703): another ABI, and another file name.
    free_threaded: bool
    #: The folder of its Python.h.
    include: Path

    @classmethod
    def running(cls) -> Interpreter:
        """The interpreter that runs this."""
        version = f"{sys.version_info.major}{sys.version_info.minor}"
        free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
        return cls(version, free_threaded, Path(sysconfig.get_path("include")))

    @classmethod
    def named(cls, name: str, include: Path) -> Interpreter:
        """From its usual name, 3.13 or 3.13t."""
        match = re.fullmatch(r"(\d)\.(\d+)(t?)", name)
        if match is None:
            raise SystemExit(f"{name!r} is not the name of a CPython, such as 3.13 or 3.13t")
        return cls(match[1] + match[2], match[3] == "t", include)

    @property
    def abi(self) -> str:
        """The version, with a t for the free-threaded ABI: 313t."""
        return self.version + ("t" if self.free_threaded else "")

    def tag(self, target: str) -> str:
        """The tag of a wheel for a Zig target."""
        return f"cp{self.version}-cp{self.abi}-{platform_tag(target)}"

    def extension_suffix(self, target: str) -> str:
        """EXT_SUFFIX of this interpreter's sysconfig on the machine of a target."""
        architecture, system, *_ = target.split("-")
        if system.startswith("macos"):
            return f".cpython-{self.abi}-darwin.so"
        # CPython 3.10 on musl uses the name for glibc, and looks for no other.
        musl = "linux-musl" in target and self.version != "310"
        return f".cpython-{self.abi}-{architecture}-linux-{'musl' if musl else 'gnu'}.so"


def build(
    *,
    prefix: Path,
    optimize: str = "fast",
    interpreter: Interpreter | None = None,
    target: str | None = None,
    valgrind: bool = False,
    kqueue_shim: bool = False,
) -> Path:
    """Builds for the running interpreter and machine, or for others, and returns the module."""
    interpreter = interpreter or Interpreter.running()
    include = interpreter.include
    if not (include / "Python.h").is_file():
        raise SystemExit(
            f"{include}/Python.h is missing: this Python came without its headers. "
            "Debian and Fedora have them in python3-dev and python3-devel; Pythons from "
            "python.org, uv, pyenv and conda include them."
        )
    suffix = (
        sysconfig.get_config_var("EXT_SUFFIX")
        if target is None
        else interpreter.extension_suffix(target)
    )
    module = f"{MODULE}{suffix}"
    command = [
        sys.executable, "-m", "ziglang", "build",
        "--prefix", str(prefix),
        f"-Doptimize={optimize}",
        f"-Dmodule-file={module}",
        f"-Dpython-include={include}",
        "-Din-place=false",
        # A wheel has to run on other machines, too; by default Zig compiles for this CPU.
        "-Dcpu=baseline",
    ]  # fmt: skip
    if valgrind:
        command.append("-Dvalgrind=true")
    if kqueue_shim:
        command.append("-Dkqueue-shim=true")
    if target is not None:
        command.append(f"-Dtarget={target}")
    if archive := os.environ.get("HFTWS_BUILD_IPSEC_MB"):
        command.append(f"-Dipsec-mb={Path(archive).resolve()}")
    if openssl := os.environ.get("HFTWS_BUILD_OPENSSL"):  # "link": see build.zig.
        command.append(f"-Dopenssl={openssl}")

    # Zig compiles its own build tool on first use: in debug mode that takes seconds, not minutes.
    # It has no effect on the code that the tool then produces.
    subprocess.run(command, cwd=ROOT, env={**os.environ, "ZIG_DEBUG_CMD": "1"}, check=True)
    return prefix / module


def platform_tag(target: str) -> str:
    """The wheel's platform for a Zig target: x86_64-linux-gnu.2.28, aarch64-macos.12.0."""
    if match := re.fullmatch(r"(\w+)-linux-gnu\.(\d+)\.(\d+)", target):
        arch, major, minor = match.groups()
        return f"manylinux_{major}_{minor}_{arch}"
    if match := re.fullmatch(r"(\w+)-linux-musl", target):
        return f"musllinux_{MUSL}_{match[1]}"
    if match := re.fullmatch(r"(\w+)-macos\.(\d+)\.(\d+)", target):
        arch, major, minor = match.groups()
        return f"macosx_{major}_{minor}_{'arm64' if arch == 'aarch64' else arch}"
    raise ValueError(f"no wheel tag for the target {target!r}")


#: The text is recognised by its owner and by the demand to go with the binary.
IPSEC_MB_LICENCE_PARTS = ("Intel Corporation", "Redistributions in binary form must reproduce")


def ipsec_mb_licence(archive: Path) -> str:
    """The licence of libipsec-mb (BSD-3-Clause), which has to go with its code.

    It is looked for in the file that HFTWS_BUILD_IPSEC_MB_LICENCE names, else where Intel's source
    tree and Debian's package have it. A wheel without it is not built.
    """
    named = os.environ.get("HFTWS_BUILD_IPSEC_MB_LICENCE")
    places = [Path(named)] if named else [
        archive.parent / "LICENSE",
        archive.parent.parent / "LICENSE",  # The archive is in lib/ there.
        Path("/usr/share/doc/libipsec-mb-dev/copyright"),
    ]  # fmt: skip
    for place in places:
        if not place.is_file():
            continue
        text = place.read_text(encoding="utf-8")
        words = " ".join(text.split())
        if all(part in words for part in IPSEC_MB_LICENCE_PARTS):
            return text.partition("\nFiles: debian/")[0]  # What follows is about the packaging.
    raise SystemExit(
        f"The licence of {archive} is in none of {', '.join(map(str, places))}. Its code may not "
        "be given to others without it: name its file in HFTWS_BUILD_IPSEC_MB_LICENCE."
    )


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # Run by hand, in an environment without the build requirements.
    pass
else:

    class ZigBuildHook(BuildHookInterface[Any]):
        """Adds the extension to the wheel.

        ZIG_TARGET builds it for another machine; HFTWS_BUILD_PYTHON (3.13, 3.13t) with
        HFTWS_BUILD_PYTHON_INCLUDE for another CPython than the running one.
        """

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Called by hatchling before it collects the files."""
            if version == "editable":
                build(prefix=ROOT / PACKAGE)
                return

            target = os.environ.get("ZIG_TARGET")
            interpreter = Interpreter.running()
            if name := os.environ.get("HFTWS_BUILD_PYTHON"):
                if target is None:
                    raise SystemExit("HFTWS_BUILD_PYTHON needs ZIG_TARGET")
                include = Path(os.environ["HFTWS_BUILD_PYTHON_INCLUDE"])
                interpreter = Interpreter.named(name, include)
            if archive := os.environ.get("HFTWS_BUILD_IPSEC_MB"):
                self.add_licence(ipsec_mb_licence(Path(archive).resolve()))

            folder = f"cp{interpreter.abi}-{target or platform.machine()}"
            prefix = ROOT / "build" / "wheel" / folder
            module = build(prefix=prefix, interpreter=interpreter, target=target)
            build_data["force_include"][str(module)] = f"{PACKAGE}/{module.name}"
            build_data["pure_python"] = False
            if target is None:
                build_data["infer_tag"] = True
            else:
                build_data["tag"] = interpreter.tag(target)

        def add_licence(self, text: str) -> None:
            """Puts a licence that only this build needs beside those of pyproject.toml."""
            path = ROOT / "build" / "licences" / "LICENSE-libipsec-mb"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            files = self.metadata.core.license_files
            files.append(path.relative_to(ROOT).as_posix())


def main() -> None:
    """Builds the module into a folder, by default into the package of this checkout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--optimize", default="fast", choices=OPTIMIZE)
    parser.add_argument("--prefix", type=Path, default=ROOT / PACKAGE)
    parser.add_argument("--valgrind", action="store_true", help="for `make test-valgrind`")
    parser.add_argument("--kqueue-shim", action="store_true", help="for `make test-kqueue`")
    parser.add_argument("--target", help="another machine, such as aarch64-macos.12.0")
    arguments = parser.parse_args()
    build(
        prefix=arguments.prefix.resolve(),
        optimize=arguments.optimize,
        target=arguments.target,
        valgrind=arguments.valgrind,
        kqueue_shim=arguments.kqueue_shim,
    )


if __name__ == "__main__":
    main()
