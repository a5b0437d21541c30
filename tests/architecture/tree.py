"""The map of the tree: what each file is for, in the first sentence that it says of itself."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path, PurePosixPath

from .imports import is_zig_test

__all__ = ["first_sentence", "purpose", "tree", "undescribed"]

#: What the map shows, in its order.
PARTS = ("src", "hftws", "release", "tests", "bench")
AT_THE_TOP = ("build.zig", "hatch_build.py", "Makefile", "noxfile.py", ".ci/run")
SUFFIXES = {".zig", ".py", ".pyi", ".pyx", ".c", ".h"}
WIDTH = 100
#: Less than this would be a title, not what a file is for.
CLAUSE_MIN = 20

#: Folders that no file speaks for: no `folder.zig` beside them, no `__init__.py` in them.
FOLDERS = {
    "bench/floors": "C programs for the benchmarks: the least that a message can cost",
    "src": "The core and its Python binding, in Zig",
    "src/c": "C headers that Zig translates when it builds",
    "src/python": "The binding, `hftws._core`: the only code that sees Python.h",
    "src/testing": "What the tests of the core share: scripted kernels, servers in memory",
    "tests": "The tests of the extension, and the tools that run tests in other places",
    "tests/errnos": "System calls that fail as a test wants it, by a shim over libc",
    "tests/lookup": "Look-ups of names that are answered when a test lets them be",
    "tests/exchange": "Tests of the simulated exchange",
    "tests/fake_libssl": "Stand-ins in C for other TLS libraries",
    "tests/free_threading/stand_in": "What has no wheels for a free-threaded CPython",
    "tests/fuzz": "The fuzzers' seeds, corpus and dictionaries, and what runs them",
    "tests/integration": "The test against the real exchange, or the simulated one",
    "tests/kqueue": "Tests of the client on macOS's notifier, without a Mac",
    "tests/package": "Tests of wheels, and of what is fetched for tests",
    "tests/soak": "Hours of recorded data over a network that fails",
    "tests/valgrind": "Runs tests under valgrind",
}  # fmt: skip


def purpose(path: str, text: str) -> str:
    """The first paragraph that a file says of itself; empty if it says nothing."""
    suffix = PurePosixPath(path).suffix
    if suffix == ".zig":
        lines = re.match(r"(?://! .+\n)*", text)
        said = lines[0].replace("//!", "") if lines else ""
    elif suffix in (".py", ".pyi", ".pyx"):
        docstring = re.match(r'(?:#.*\n|\s*\n)*r?"""(.*?)(?:"""|\n\n)', text, re.DOTALL)
        said = docstring[1] if docstring else ""
    elif suffix in (".c", ".h"):
        comment = re.match(r"/\*(.*?)(?:\*/|\n \*\n)", text, re.DOTALL)
        said = re.sub(r"^ \* ?", "", comment[1], flags=re.MULTILINE) if comment else ""
    elif suffix == ".md":
        paragraph = re.search(r"^[^#\s].*?(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
        said = paragraph[0] if paragraph else ""
    else:
        comment = re.match(r"(?:#!.*\n)?((?:# .+\n)*)", text)
        said = comment[1].replace("# ", "") if comment else ""
    return " ".join(said.split())


def first_sentence(text: str, room: int = WIDTH) -> str:
    """Up to the first full stop. Where there is no room for that, without what is in parentheses,
    and else up to its last colon, semicolon or comma that leaves it short enough."""
    sentence = re.split(r"\.(?:\s|$)", text, maxsplit=1)[0]
    if len(sentence) <= room:
        return sentence
    sentence = re.sub(r" \([^()]*\)", "", sentence)
    if len(sentence) <= room:
        return sentence
    for ends in (":;", ","):
        clause = re.match(rf"(.{{{CLAUSE_MIN},{room}}})[{ends}] ", sentence)
        if clause:
            return clause[1]
    return textwrap.shorten(sentence, room, placeholder=" …")


def files(root: Path) -> list[str]:
    """What the map shows, sorted."""
    found = [root / name for name in AT_THE_TOP]
    for part in PARTS:
        found += [file for file in (root / part).rglob("*") if file.suffix in SUFFIXES]
    return sorted(file.relative_to(root).as_posix() for file in found if file.is_file())


def undescribed(root: Path) -> list[str]:
    """Files and folders of which nothing says what they are for, and folders that are no more."""
    paths = files(root)
    folders = {str(parent) for path in paths if "/" in path
               for parent in PurePosixPath(path).parents}  # fmt: skip
    faults = [f"{path} does not begin with a sentence that says what it is for"
              for path in paths if not described(root, path)]  # fmt: skip
    faults += [f"{folder}/ has no line in FOLDERS of tests/architecture/tree.py"
               for folder in sorted(folders - {".", ".ci"})
               if not folder_purpose(root, folder)]  # fmt: skip
    faults += [f"{folder}/ is in FOLDERS of tests/architecture/tree.py, and not in the tree"
               for folder in sorted(FOLDERS.keys() - folders)]  # fmt: skip
    return faults


def described(root: Path, path: str) -> str:
    return purpose(path, (root / path).read_text("utf-8"))


def folder_purpose(root: Path, folder: str) -> str:
    """What the file that stands for a folder says, or the line in FOLDERS."""
    for name in (f"{folder}.zig", f"{folder}/__init__.py", f"{folder}/README.md"):
        if folder not in FOLDERS and (root / name).is_file():
            return described(root, name)
    return FOLDERS.get(folder, "")


def tested_file(path: str, paths: list[str]) -> str | None:
    """The file beside which a file of Zig tests is named."""
    file = PurePosixPath(path)
    words = file.stem.split("_")[:-1]
    while words:
        beside = str(file.with_name("_".join(words) + ".zig"))
        if beside in paths:
            return beside
        words.pop()
    above = f"{file.parent}.zig"
    return above if above in paths else None


def tree(root: Path) -> str:
    """The map as Markdown: a list for each part."""
    paths = files(root)
    tests: dict[str, list[str]] = {}
    for path in paths:
        if is_zig_test(path) and (beside := tested_file(path, paths)):
            tests.setdefault(beside, []).append(path)
    beside_another = {path for names in tests.values() for path in names}
    shown = [path for path in paths if path not in beside_another]
    sections = [[bullet([path], described(root, path)) for path in AT_THE_TOP if path in paths]]
    for part in PARTS:
        lines = branch(root, part, shown, tests)
        title = first_sentence(folder_purpose(root, part))
        sections.append([f"**`{part}/`** {title}.", "", *lines])
    return "\n\n".join("\n".join(lines) for lines in sections)


def branch(root: Path, folder: str, paths: list[str], tests: dict[str, list[str]],
           depth: int = 0) -> list[str]:  # fmt: skip
    """The lines of a folder; those of a folder in it come behind `folder.zig`, if that exists.

    Beside `ring.zig`, `_test` stands for `ring_test.zig`.
    """
    start = f"{folder}/"
    within = [path.removeprefix(start) for path in paths if path.startswith(start)]
    folders = {name.split("/")[0] for name in within if "/" in name}
    files = {name for name in within if "/" not in name and name != "__init__.py"}
    python_tests = sorted(name for name in files if re.fullmatch(r"test_\w+\.py", name))
    files.difference_update(python_tests)
    lines = []
    for name in sorted({*folders, *(name.removesuffix(".zig") for name in files)}):
        path = start + name
        names = [f"{name}/"] if name in folders else []
        file = next((file for file in (f"{path}.zig", path) if file in paths), None)
        if file:
            names = [file.removeprefix(start), *names]
        text = described(root, file) if file else folder_purpose(root, path)
        of_file = {test.removeprefix(start).removesuffix(".zig") for test in tests.get(file, [])}
        endings = sorted(of_file & {f"{name}_test", f"{name}_fuzz"})
        names += [ending.removeprefix(name) for ending in endings]
        lines.append(bullet(names, text, depth))
        if others := sorted(of_file.difference(endings)):
            listed = ", ".join(f"`{test.removeprefix(f'{name}/')}.zig`" for test in others)
            lines.append(filled(f"tests: {listed}", depth + 1))
        if name in folders:
            lines += branch(root, path, paths, tests, depth + 1)
    if python_tests:
        listed = ", ".join(f"`{name}`" for name in python_tests)
        lines.append(filled(f"tests: {listed}", depth))
    return lines


def bullet(names: list[str], text: str, depth: int = 0) -> str:
    """One line: the names, and as much of what they are for as there is room for."""
    start = f"{', '.join(f'`{name}`' for name in names)}: "
    return filled(start + first_sentence(text, WIDTH - len(start) - 2 * depth - 2), depth)


def filled(text: str, depth: int) -> str:
    indent = "  " * depth
    return textwrap.fill(f"{indent}- {text}", WIDTH, subsequent_indent=f"{indent}  ",
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip
