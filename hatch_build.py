"""Compiles the Zig core into the package: a hatchling build hook, and `python hatch_build.py`.

Facts about the interpreter reach build.zig as -D options only. Zig caches the configuration of a
build and keys it by the options, so a fact that came through the environment would go stale.
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
from typing import Any

ROOT = Path(__file__).parent
PACKAGE = "hftws"
MODULE = "_core"
OPTIMIZE = ("fast", "safe", "small", "debug")


def build(
    *,
    prefix: Path,
    optimize: str = "fast",
    target: str | None = None,
    valgrind: bool = False,
    kqueue_shim: bool = False,
) -> Path:
    """Builds for the running interpreter, or for `target`, and returns the path of the module."""
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").is_file():
        raise SystemExit(
            f"{include}/Python.h is missing: this Python came without its headers. "
            "Debian and Fedora have them in python3-dev and python3-devel; Pythons from "
            "python.org, uv, pyenv and conda bring them along."
        )
    # Every Unix CPython accepts the bare suffix, whichever host built it.
    suffix = ".so" if target is not None else sysconfig.get_config_var("EXT_SUFFIX")
    module = f"{MODULE}{suffix}"
    command = [
        sys.executable, "-m", "ziglang", "build",
        "--prefix", str(prefix),
        f"-Doptimize={optimize}",
        f"-Dmodule-file={module}",
        f"-Dpython-include={include}",
        "-Din-place=false",
        # A wheel runs on other machines than this one; without this, Zig compiles for this CPU.
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
    if match := re.fullmatch(r"(\w+)-macos\.(\d+)\.(\d+)", target):
        arch, major, minor = match.groups()
        return f"macosx_{major}_{minor}_{'arm64' if arch == 'aarch64' else arch}"
    raise ValueError(f"no wheel tag for the target {target!r}")


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # Run by hand, in an environment without the build requirements.
    pass
else:

    class ZigBuildHook(BuildHookInterface[Any]):
        """Adds the extension to the wheel. ZIG_TARGET builds it for another machine."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Called by hatchling before it collects the files."""
            if version == "editable":
                build(prefix=ROOT / PACKAGE)
                return

            target = os.environ.get("ZIG_TARGET")
            python = f"cp{sys.version_info.major}{sys.version_info.minor}"
            prefix = ROOT / "build" / "wheel" / f"{python}-{target or platform.machine()}"
            module = build(prefix=prefix, target=target)
            build_data["force_include"][str(module)] = f"{PACKAGE}/{module.name}"
            build_data["pure_python"] = False
            if target is None:
                build_data["infer_tag"] = True
            else:
                build_data["tag"] = f"{python}-{python}-{platform_tag(target)}"


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
