"""What the tests fetch with pip: tried again, and skipped or failed rightly."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from release.debian import PackageError, Unavailable
from tests import registry

UNREACHABLE = """\
WARNING: Retrying (Retry(total=0, …)) after connection broken by 'NewConnectionError': /simple/a/
ERROR: Could not find a version that satisfies the requirement a (from versions: none)
"""
WRONG_VERSION = """\
ERROR: Could not find a version that satisfies the requirement a==9 (from versions: 1.0, 1.1)
ERROR: No matching distribution found for a==9
"""
NO_ANSWER = "ERROR: HTTP error 503 while getting a-1.0-py3-none-any.whl\n"
BROKEN = "ERROR: Could not install packages due to an OSError: no space left on device\n"


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python whose pip fails once for each file `said-N`, and prints what is in it."""
    monkeypatch.setattr(registry, "PAUSE", 0.0)
    program = tmp_path / "python"
    program.write_text(
        "#!/bin/sh\n"
        'cd "$(dirname "$0")"\n'
        'echo "$@" >> calls\n'
        "number=$(wc -l < calls)\n"
        '[ ! -e "said-$((number))" ] || { cat "said-$((number))" >&2; exit 1; }\n'
    )
    program.chmod(0o755)
    return program


def calls(python: Path) -> list[str]:
    return (python.parent / "calls").read_text().splitlines()


def test_pip_is_asked_once_when_it_succeeds(python: Path) -> None:
    registry.pip(python, "download", "--dest", python.parent, "a")
    (call,) = calls(python)
    assert call.startswith("-m pip download --quiet ")
    assert call.endswith(f" --dest {python.parent} a")


@pytest.mark.parametrize("said", [UNREACHABLE, NO_ANSWER])
def test_a_registry_that_fails_once_is_asked_again(python: Path, said: str) -> None:
    (python.parent / "said-1").write_text(said)
    registry.pip(python, "install", "a")
    assert len(calls(python)) == 2


@pytest.mark.parametrize("said", [UNREACHABLE, NO_ANSWER])
def test_a_registry_that_fails_twice_is_a_reason_to_skip(python: Path, said: str) -> None:
    for number in (1, 2):
        (python.parent / f"said-{number}").write_text(said)
    with pytest.raises(Unavailable, match=r"^ERROR: "):
        registry.pip(python, "install", "a")
    assert len(calls(python)) == 2


@pytest.mark.parametrize("said", [WRONG_VERSION, BROKEN])
def test_what_is_no_fault_of_the_registry_is_none(python: Path, said: str) -> None:
    (python.parent / "said-1").write_text(said)
    with pytest.raises(PackageError, match="ERROR: Could not"):
        registry.pip(python, "install", "a")
    assert len(calls(python)) == 1


def test_a_registry_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real pip's words are the expected ones: nobody listens on port 1."""
    monkeypatch.setattr(registry, "PAUSE", 0.0)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    options = ("--retries=0", "--index-url=http://127.0.0.1:1/simple/", "--dest", tmp_path)
    with pytest.raises(Unavailable, match=r"^ERROR: .*certifi"):
        registry.pip(sys.executable, "download", "--no-deps", *options, "certifi")
