"""`python -m release`: fills dist/ with wheels and the source distribution, or with some."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .build import ROOT, build_sdist, build_wheel
from .debian import PackageError, Unavailable
from .headers import Missing
from .matrix import PLATFORMS, PYTHONS


def parse_arguments() -> argparse.Namespace:
    """Which part of the table to build, and into which folder."""
    parser = argparse.ArgumentParser(prog="release", description=__doc__)
    pythons = [python.name for python in PYTHONS]
    platforms = [platform.name for platform in PLATFORMS]
    parser.add_argument("--python", nargs="+", choices=pythons, default=pythons)
    parser.add_argument("--platform", nargs="+", choices=platforms, default=platforms)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("--no-sdist", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Builds all that it can; returns 1 if something is missing."""
    arguments = parse_arguments()
    arguments.dist.mkdir(parents=True, exist_ok=True)
    missing = []
    for python in PYTHONS:
        for platform in PLATFORMS:
            if python.name not in arguments.python or platform.name not in arguments.platform:
                continue
            began = time.monotonic()
            try:
                path = build_wheel(python, platform, arguments.dist)
            except (Missing, PackageError, Unavailable) as error:
                missing.append(f"{python.name} for {platform.name}: {error}")
                continue
            report(path, time.monotonic() - began)
    if not arguments.no_sdist:
        began = time.monotonic()
        report(build_sdist(arguments.dist), time.monotonic() - began)
    for line in missing:
        print(f"not built: {line}", file=sys.stderr)
    return 1 if missing else 0


def report(path: Path, seconds: float) -> None:
    """A line about what was built."""
    print(f"{path.name:<60} {path.stat().st_size / 1024:7.1f} KiB {seconds:6.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
