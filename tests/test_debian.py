"""What the tests fetch from Debian: unpacked whole or not at all, and skipped or failed rightly."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers import PATIENCE

from release import debian
from release.debian import Apt, PackageError, Unavailable

CONTROL = "Package: old\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: a test\n"

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="there is no dpkg-deb")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with a file in /lib, as they were before /lib was a link to /usr/lib."""
    tree = tmp_path / "tree"
    for folder in ("DEBIAN", "lib/old"):
        (tree / folder).mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(CONTROL, encoding="utf-8")
    (tree / "lib" / "old" / "file").write_text("content", encoding="utf-8")
    archive = tmp_path / "old.deb"
    subprocess.run(["dpkg-deb", "--build", tree, archive], check=True, capture_output=True)
    return archive


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The archives that a download brings: no network is used."""
    archives: list[Path] = []
    monkeypatch.setattr(debian, "check_host", lambda: None)
    monkeypatch.setattr(Apt, "update", lambda self, types, suites: None)
    monkeypatch.setattr(Apt, "download", lambda self, packages, dependencies: archives)
    return archives


@needs_dpkg
def test_links_stay_links(package: Path, fetched: list[Path], tmp_path: Path) -> None:
    """Otherwise a root has a /lib without the C library, which is in /usr/lib."""
    fetched.append(package)
    target = tmp_path / "cache" / "root"
    debian.unpack("sid", ["old"], target, architecture="amd64")
    assert (target / "lib").is_symlink()
    assert (target / "usr" / "lib" / "old" / "file").read_text(encoding="utf-8") == "content"


@needs_dpkg
def test_what_is_there_is_not_fetched_again(
    package: Path, fetched: list[Path], tmp_path: Path
) -> None:
    fetched.append(package)
    for _ in range(2):
        debian.unpack("sid", ["old"], tmp_path / "cache" / "root", architecture="amd64")
        fetched[:] = [tmp_path / "no such archive"]


@needs_dpkg
def test_all_of_it_is_there_or_nothing(package: Path, fetched: list[Path], tmp_path: Path) -> None:
    """No half-finished root stays that could be taken for a whole one."""
    cut = tmp_path / "cut.deb"
    cut.write_bytes(package.read_bytes()[:-20])
    fetched.extend([package, cut])
    with pytest.raises(PackageError):
        debian.unpack("sid", ["old"], tmp_path / "cache" / "root", architecture="amd64")
    assert not list((tmp_path / "cache").iterdir())


def test_lists_are_fetched_once_and_again_when_they_are_old(tmp_path: Path) -> None:
    """Every step of CI asks for the same few suites."""
    lists = tmp_path / "deb-sid-amd64"
    seen = []
    for age in (0, 0, debian.LISTS_AGE_MAX + 1, 0):
        with debian.is_fresh(lists) as fresh:
            seen.append(fresh)
        before = time.time() - age
        os.utime(tmp_path / "deb-sid-amd64.complete", (before, before))
    assert seen == [False, True, True, False]


def test_lists_that_could_not_be_fetched_are_asked_for_again(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(Unavailable):
            with debian.is_fresh(tmp_path / "lists") as fresh:
                assert not fresh
                raise Unavailable("no network")


def test_others_wait_while_lists_are_fetched(tmp_path: Path) -> None:
    """In another process, as steps of CI are."""
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(debian.__file__).parent)!r})\n"
        "import debian\n"
        "from pathlib import Path\n"
        "print('asks', flush=True)\n"
        "with debian.is_fresh(Path(sys.argv[1])) as fresh: print(fresh)\n"
    )
    with debian.is_fresh(tmp_path / "lists") as fresh:
        command = [sys.executable, "-c", program, str(tmp_path / "lists")]
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "asks\n"
        assert not fresh
    assert other.communicate(timeout=50 * PATIENCE)[0] == "True\n"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("W: a remark\nE: Failed to fetch a/b.deb  404  Not Found", Unavailable),
        ("W: a remark\nE: Unable to locate package nothing", PackageError),
    ],
)
def test_a_network_is_a_reason_to_skip_and_a_wrong_name_is_none(
    said: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=r"^E: "):
        debian.run("sh", "-c", f"echo '{said}' >&2; exit 100")


@needs_dpkg
def test_versions_are_compared_as_debian_does() -> None:
    versions = ["1:3.0-1", "3.10.0-1", "3.10.0~rc1-1", "3.9.1-1", "3.10.0-1+deb13u1"]
    ordered = sorted(versions, key=functools.cmp_to_key(debian.compare_versions))
    assert ordered == ["3.9.1-1", "3.10.0~rc1-1", "3.10.0-1", "3.10.0-1+deb13u1", "1:3.0-1"]
