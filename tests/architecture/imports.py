"""Reads which file imports which: of the core, the binding, the package and the build.

A file is named by its path from the root of the project, with slashes. Imports of tests, and of
anything outside of the project, do not count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["Graph", "imports", "is_product", "is_zig_test", "without_tests", "zig_imports"]

#: The files that each file imports.
Graph = dict[str, set[str]]

#: Modules that build.zig names, and the file behind each.
NAMED_MODULES = {"core": "src/core.zig", "python": "src/c/python.h"}
#: What Python imports as `hftws._core`.
EXTENSION = "src/python/module.zig"

ZIG_IMPORT = re.compile(r'@import\("([^"]+)"\)')
COMMENT = re.compile(r"^\s*//.*$", re.MULTILINE)
TESTS = re.compile(r"^(?:test\b|const testing\b)", re.MULTILINE)
#: Folders of Python, in which imports are resolved.
PYTHON_ROOTS = ("hftws", "release", "tests")


def is_zig_test(path: str) -> bool:
    """Whether the file holds nothing but tests of a Zig file."""
    return PurePosixPath(path).name == "test.zig" or path.endswith(("_test.zig", "_fuzz.zig"))


def is_product(path: str) -> bool:
    """Whether the file is a part of what is built or builds it, and not of the tests."""
    return not is_zig_test(path) and not path.startswith(("src/testing/", "src/fuzz"))


def without_tests(code: str) -> str:
    """The code of a Zig file without its tests, which stand at its end."""
    return TESTS.split(code, maxsplit=1)[0]


def imports(root: Path) -> Graph:
    """What each product file under `root` imports."""
    graph: Graph = {}
    for file in sorted(root.glob("src/**/*.zig")):
        path = file.relative_to(root).as_posix()
        if is_product(path):
            graph[path] = set(zig_imports(path, without_tests(file.read_text("utf-8"))))
    python = [*root.glob("hftws/**/*.py"), *root.glob("release/*.py"), *root.glob("hatch_build.py")]
    for file in sorted(python):
        path = file.relative_to(root).as_posix()
        graph[path] = set(python_imports(root, path)) - {path}
    return graph


def zig_imports(path: str, code: str) -> Iterator[str]:
    """The files that the code of the Zig file at `path` imports."""
    for target in ZIG_IMPORT.findall(COMMENT.sub("", code)):
        if target.endswith(".zig"):
            yield normal(PurePosixPath(path).parent / target)
        elif target in NAMED_MODULES:
            yield NAMED_MODULES[target]


def python_imports(root: Path, path: str) -> Iterator[str]:
    """The files that a Python file imports, also where it does so within a function."""
    package = PurePosixPath(path).parent.parts
    for node in ast.walk(ast.parse((root / path).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from file_of(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = [*above, *(node.module or "").split(".")] if node.module else [*above]
            for alias in node.names:
                yield from file_of(root, [*module, alias.name]) or file_of(root, module)


def file_of(root: Path, module: list[str]) -> list[str]:
    """The file of a Python module of this project; nothing if it is not one."""
    if module == ["hftws", "_core"]:
        return [EXTENSION]
    if module == ["hatch_build"]:
        return ["hatch_build.py"]
    if not module or module[0] not in PYTHON_ROOTS:
        return []
    name = "/".join(module)
    return [path for path in (f"{name}.py", f"{name}/__init__.py") if (root / path).is_file()][:1]


def normal(path: PurePosixPath) -> str:
    """The path without `..`."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
