"""The house rules that a program can check (CONTRIBUTING.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from architecture.imports import is_zig_test, without_tests, zig_imports

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build.zig"
CORE = sorted((ROOT / "src").rglob("*.zig"))
SOURCES = [BUILD, *CORE]
LINE_LENGTH_MAX = 100
FUNCTION_LINES_MAX = 70

BANNED = {
    r"[!=]= error\.": "errors are handled by switch, so that a new one does not compile",
    r"\bFIXME\b|\bXXX\b|\bTODO\b": "unfinished",
    r"std\.debug\.print": "left from debugging",
    r"Self = @This\(\)": "a proper type name",
    r"\banyerror\b": "explicit error sets",
}

#: What outlives a client, by file: the core keeps no state that its clients share, so that one
#: client a thread needs no lock. Each of these is made once (once.zig, or under a lock of its own)
#: and never changes after that, or belongs to a thread.
GLOBAL_STATE = {
    "src/deflate/zlib.zig": {"loaded"},
    "src/os/posix.zig": {"unexpected_errno"},  # threadlocal
    "src/ssl/aead/ipsec_mb.zig": {"library"},
    "src/ssl/libssl.zig": {"last_report", "loaded"},  # The first is threadlocal.
    "src/ssl/openssl.zig": {"shared_method"},
    "src/python/exceptions.zig": {"classes"},
    "src/python/fork.zig": {"generation"},  # Changes in a child that has one thread.
    "src/python/module_state.zig": {"state"},
}
#: Tables that CPython wants to be variable, and does not change.
PYTHON_TABLES = {"definition", "getters", "methods", "slots", "spec"}


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    yield from enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)


def product_code(path: Path) -> str:
    """The file without its tests, which stand at its end."""
    if is_zig_test(relative(path)):
        return ""
    return without_tests(path.read_text(encoding="utf-8"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_are_sources() -> None:
    assert len(SOURCES) > 30


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_lines_fit(path: Path) -> None:
    long = [number for number, line in lines_of(path) if len(line) > LINE_LENGTH_MAX]
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_banned(path: Path) -> None:
    code = product_code(path)
    found = [
        f"{number}: {why}"
        for number, line in enumerate(code.splitlines(), start=1)
        for pattern, why in BANNED.items()
        if re.search(pattern, line)
    ]
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_functions_fit_on_a_screen(path: Path) -> None:
    too_long = []
    opened: list[tuple[int, str]] = []  # (line, indentation) of the functions around
    for number, line in lines_of(path):
        indentation = re.match(r" *", line)
        assert indentation is not None
        # A function that makes a type is as long as the type; one of one line ends there.
        function = re.match(r" *(pub |export |inline )*fn \w+\(", line)
        if function and "type {" not in line and not line.endswith("}"):
            opened.append((number, indentation[0]))
        elif opened and line.rstrip(",;") == f"{opened[-1][1]}}}":
            start, _ = opened.pop()
            if number - start + 1 > FUNCTION_LINES_MAX:
                too_long.append(start)
    assert not too_long


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_say_what_they_are(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("//! ")


def test_every_file_of_the_core_is_compiled() -> None:
    """Zig analyses what is referenced: a file that nobody imports has no tests and no errors."""
    roots = re.findall(r'"(src/[\w/]+\.zig)"', BUILD.read_text(encoding="utf-8"))
    reached = set(roots)
    new = [*roots]
    while new:
        path = new.pop()
        targets = zig_imports(path, (ROOT / path).read_text(encoding="utf-8"))
        new += [target for target in targets if target.endswith(".zig") and target not in reached]
        reached.update(targets, new)
    missing = [relative(path) for path in CORE if relative(path) not in reached]
    assert not missing


def test_every_file_of_tests_is_listed() -> None:
    """Zig runs the tests of a file only if a `test` block names the file, as this one does: `_ =
    @import("connection_test.zig");`."""
    listed = {
        target
        for path in CORE
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r" *(if \(.*\) )?_ = @import\(", line)
        for target in zig_imports(relative(path), line)
    }
    tests = [relative(path) for path in CORE if is_zig_test(relative(path))]
    missing = [path for path in tests if path not in listed]
    assert not missing


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_global_state_is_named(path: Path) -> None:
    """A variable outside of functions is shared by all threads: it has to be in the list above."""
    code = product_code(path)
    if relative(path).startswith(("src/testing/", "src/fuzz/", "src/fuzz.zig")):
        code = ""  # Not in the extension.
    found = set(global_variables(code))
    allowed = GLOBAL_STATE.get(relative(path), set())
    if relative(path).startswith("src/python/"):
        found -= PYTHON_TABLES
    assert found == allowed


CONTAINER = re.compile(r'(?<!")\b(struct|union|enum|opaque)\b[^"]*\{$')


def global_variables(code: str) -> Iterator[str]:
    """Each ``var`` of a file or a container, also where a function makes the container."""
    openers: list[tuple[int, str]] = []  # (indentation, line) of what the present line is in
    for line in filter(None, code.splitlines()):
        indentation = len(line) - len(line.lstrip())
        while openers and openers[-1][0] >= indentation:
            openers.pop()
        in_container = not openers or CONTAINER.search(openers[-1][1])
        variable = re.match(r" *(?:pub |export |extern |threadlocal )*var (@?[\w\"]+)", line)
        if variable and in_container:
            yield variable[1]
        openers.append((indentation, line))


def test_global_state_is_found_wherever_it_hides() -> None:
    code = """
threadlocal var a: u8 = 0;
pub const S = struct {
    pub var b: u8 = 0;
    fn f() void {
        var local: u8 = 0;
        const Counter = struct {
            var c: u8 = 0;
        };
    }
    var d: u8 = 0;
};
const table = blk: {
    var filled: [2]u8 = undefined;
    break :blk filled;
};
pub fn TypeOf(comptime Os: type) type {
    return struct {
        var e: Os = 0;
    };
}
"""
    assert list(global_variables(code)) == ["a", "b", "c", "d", "e"]
