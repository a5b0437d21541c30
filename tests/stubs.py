"""Copies the docstrings of the extension into its stub, where editors look: `make stubs`."""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hftws import _core

STUB = Path(__file__).parents[1] / "hftws" / "_core.pyi"

Named = ast.ClassDef | ast.FunctionDef | ast.AnnAssign


def named(body: list[ast.stmt], owner: Any) -> Iterator[tuple[Named, Any, ast.stmt | None]]:
    """What the stub declares: the node, the object at run time, and what follows the node."""
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef):
            found = getattr(owner, node.name)
            yield node, found, after
            yield from named(node.body, found)
        elif isinstance(node, ast.FunctionDef):
            yield node, inspect.getattr_static(owner, node.name, None), after
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node, inspect.getattr_static(owner, node.target.id), after


def has_docstring(found: object) -> bool:
    """Not what Python itself explains, such as len(), and no plain value."""
    return found is not None and not isinstance(found, (types.WrapperDescriptorType, str))


def docstring_of(node: Named, after: ast.stmt | None) -> ast.stmt | None:
    """The statement; that of a variable stands behind it."""
    place = after if isinstance(node, ast.AnnAssign) else node.body[0]
    is_text = (
        isinstance(place, ast.Expr)
        and isinstance(place.value, ast.Constant)
        and isinstance(place.value.value, str)
    )
    return place if is_text else None


def with_docstrings(source: str) -> str:
    """The stub with the docstring that each object has at run time."""
    lines = source.splitlines()
    for node, found, after in reversed(list(named(ast.parse(source).body, _core))):
        if not has_docstring(found):
            continue
        there = docstring_of(node, after)
        if there is not None:
            assert there.end_lineno is not None
            del lines[there.lineno - 1 : there.end_lineno]
        if isinstance(node, ast.AnnAssign):
            last, indent = node.end_lineno, node.col_offset
        elif isinstance(node, ast.ClassDef):
            last, indent = node.lineno, node.col_offset + 4
        else:
            # The signature ends in the line above a docstring, or in that of "...".
            last, indent = node.body[0].lineno - (there is not None), node.col_offset + 4
        assert last is not None
        if lines[last - 1].endswith(": ..."):
            lines[last - 1] = lines[last - 1].removesuffix(" ...")
        lines[last:last] = quoted(inspect.getdoc(found) or "", indent)
    return "\n".join(lines) + "\n"


def quoted(doc: str, indent: int) -> list[str]:
    """A docstring in the house format."""
    assert "\\" not in doc
    assert '"""' not in doc
    end = '"""' if "\n" not in doc else '\n"""'
    return [" " * indent + line if line else line for line in f'"""{doc}{end}'.splitlines()]


if __name__ == "__main__":
    STUB.write_text(with_docstrings(STUB.read_text(encoding="utf-8")), encoding="utf-8")
