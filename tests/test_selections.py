"""Selections of tests name tests that there are: one with a new name would drop out unseen."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from arm.selection import NOT_ON_ARM, PAGES_FILTERS

TESTS = Path(__file__).parent
ROOT = TESTS.parent

#: A list of files and a `-k` in the Makefile, by the variable that has them.
BY_WORDS = {
    "KQUEUE_TESTS": [
        *(f"test_{name}.py" for name in ("system", "connect", "messages", "close")),
        *(f"test_{name}.py" for name in ("send", "callbacks", "tls")),
        "kqueue/test_kqueue.py",
    ],
    "VALGRIND_TESTS": ["test_pinning.py", "test_compression.py"],
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these selections are for Linux")


@cache
def functions(path: Path) -> list[str]:
    """The names of the test functions of a file."""
    tree = ast.parse(path.read_text("utf-8"))
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [name for name in names if name.startswith("test_")]


def core_tests() -> list[str]:
    """The names of all tests of the core."""
    sources = (path.read_text("utf-8") for path in (ROOT / "src").rglob("*.zig"))
    return [name for source in sources for name in re.findall(r'^test "(.+)" \{$', source, re.M)]


@pytest.mark.parametrize("part", PAGES_FILTERS)
def test_a_filter_of_the_core_s_tests_chooses_some(part: str) -> None:
    assert any(part in name for name in core_tests())


@pytest.mark.parametrize("name", NOT_ON_ARM)
def test_what_is_left_out_on_arm_is_there(name: str) -> None:
    file, _, function = name.partition("::")
    (path,) = [path for path in TESTS.rglob("test_*.py") if path.name == file]
    assert not function or function in functions(path)


@pytest.mark.parametrize("variable", BY_WORDS)
def test_the_words_of_the_makefile_choose_some(variable: str) -> None:
    """Each word of a `-k` is a part of a name: of a file, a function, or its parameters."""
    assert set(BY_WORDS[variable]) <= {str(path.relative_to(TESTS)) for path in TESTS.rglob("*.py")}
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    found = re.search(rf'^{variable} = (.*) -k "(.*)"$', makefile, re.M)
    assert found is not None
    words = re.findall(r"(?!(?:not|and|or)\b)\b\w+", found[2])
    assert words
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    listed = subprocess.run(
        [*command, *BY_WORDS[variable]], cwd=TESTS, capture_output=True, text=True, check=False
    )
    names = [line.lower() for line in listed.stdout.splitlines() if "::" in line]
    assert names, listed.stdout
    for word in words:
        assert any(word.lower() in name for name in names), word
