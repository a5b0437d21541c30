"""The order of the modules: who may import whom, circles, and the drawing of it.

A module is a name at the top of `src/`, such as `ssl` with `ssl.zig` and `ssl/`, or the package
`hftws`. Nobody writes the order down: a module stands above all that it imports.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from .imports import Graph

__all__ = ["Layers", "broken_rules", "circles", "drawing", "drawn", "graphs", "layers", "upward"]

#: The names of each layer, the top one first.
Layers = list[list[str]]

#: Modules whose files have a drawing of their own.
DRAWN_INSIDE = ("connection", "ssl", "python")
#: Known to all, so no arrow shows it.
CONSTANTS = "constants"
ARROW = "─▶"
WIDTH = 100

#: These turn bytes into values and values into bytes. Their callers read, write and wait.
NO_IO = ("ws", "http", "ssl", "deflate", "decode", "feed")
IO = ("os", "socket", "notifier", "loop")
FOR_TESTS = ("src/testing/", "src/fuzz", "tests/")
#: Declares all that CPython has.
PYTHON_H = "src/c/python.h"


def module_of(path: str) -> str | None:
    """The module that a file belongs to: None for files that are not drawn."""
    parts = PurePosixPath(path).parts
    if parts[0] == "src" and path.endswith(".zig"):
        return PurePosixPath(parts[1]).stem
    return "hftws" if parts[0] == "hftws" else None


def inside(module: str) -> Callable[[str], str | None]:
    """Names the files of one module: `outbox`, and `connection.zig` for the one on top."""

    def name(path: str) -> str | None:
        if path == f"src/{module}.zig":
            return f"{module}.zig"
        folder = f"src/{module}/"
        return path.removeprefix(folder).removesuffix(".zig") if path.startswith(folder) else None

    return name


def condensed(graph: Graph, name: Callable[[str], str | None]) -> Graph:
    """The graph of the names that files have, with one node for all files of a name."""
    nodes: Graph = {node: set() for node in map(name, graph) if node}
    for path, targets in graph.items():
        if node := name(path):
            names = {target for target in map(name, targets) if target in nodes}
            nodes[node] |= names - {node}
    return nodes


def graphs(files: Graph) -> dict[str, Graph]:
    """What is drawn, by its title: the modules, and the files inside of some."""
    drawings = {"modules": condensed(files, module_of)}
    for module in DRAWN_INSIDE:
        if any(map(inside(module), files)):
            drawings[f"inside {module}"] = condensed(files, inside(module))
    return drawings


def components(graph: Graph) -> list[list[str]]:
    """Tarjan: groups that import each other in circles, each after all groups that it imports."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in number:
                visit(target)
            if target in stack:
                lowest[node] = min(lowest[node], lowest[target])
        if lowest[node] == number[node]:
            start = stack.index(node)
            found.append(sorted(stack[start:]))
            del stack[start:]

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return found


def circles(graph: Graph) -> list[str]:
    """A shortest circle of each group of files or modules that import each other."""
    groups = [group for group in components(graph) if len(group) > 1]
    return sorted(f" {ARROW} ".join(circle(graph, group)) for group in groups)


def circle(graph: Graph, group: list[str]) -> list[str]:
    """The shortest way within a group from its first member back to it."""
    start = group[0]
    ways = [[start]]
    for way in ways:  # Grows while it is walked: breadth first.
        for target in sorted(graph[way[-1]].intersection(group)):
            if target == start:
                return [*way, start]
            if target not in way:
                ways.append([*way, target])
    raise AssertionError(group)


def layers(graph: Graph) -> Layers:
    """Each name one layer above the highest that it imports; circles share a layer."""
    height: dict[str, int] = {}
    for group in components(graph):
        below = {target for node in group for target in graph.get(node, ())} - set(group)
        height.update(dict.fromkeys(group, max((height[name] + 1 for name in below), default=0)))
    top = max(height.values(), default=-1)
    return [sorted(name for name in height if height[name] == level)
            for level in range(top, -1, -1)]  # fmt: skip


def drawing(files: Graph) -> str:
    """Every graph as text: a paragraph for each layer, and what each name in it imports."""
    parts = []
    for title, graph in graphs(files).items():
        arrows = {name: targets - {CONSTANTS} for name, targets in graph.items()}
        constants = arrows.pop(CONSTANTS, None)
        paragraphs = [paragraph(layer, arrows) for layer in layers(arrows)]
        if constants is not None:
            paragraphs.append(f"    {CONSTANTS}")
        parts.append("\n\n".join([f"{title}:".capitalize(), *paragraphs]))
    return "\n\n".join(parts)


def paragraph(layer: list[str], arrows: Graph) -> str:
    """The lines of one layer: names with arrows, and last those that import nothing drawn."""
    width = max(map(len, arrows))
    lines = []
    for name in layer:
        if arrows.get(name):
            start = f"    {name:{width}} {ARROW} "
            lines.append(wrapped(sorted(arrows[name]), start))
    if leaves := [name for name in layer if not arrows.get(name)]:
        lines.append(wrapped(leaves, "    "))
    return "\n".join(lines)


def wrapped(names: Iterable[str], start: str) -> str:
    return textwrap.fill("  ".join(names), WIDTH, initial_indent=start,
                         subsequent_indent=" " * len(start), break_on_hyphens=False)  # fmt: skip


def drawn(section: str) -> dict[str, Layers]:
    """The layers of each graph as a drawing shows them."""
    orders: dict[str, Layers] = {}
    title = ""
    for block in section.split("\n\n"):
        if not block.startswith("    "):
            title = block.removesuffix(":").lower()
            continue
        lines = [line for line in block.splitlines() if len(line) - len(line.lstrip()) == 4]
        names = [name for line in lines for name in line.split(ARROW)[0].split()]
        orders.setdefault(title, []).append(names)
    return orders


def upward(graph: Graph, order: Layers) -> list[str]:
    """Imports of what stands higher in an order that was drawn before."""
    height = {name: -depth for depth, names in enumerate(order) for name in names}
    return [
        f"{name} imports {target}, which is drawn above it"
        for name, targets in sorted(graph.items())
        for target in sorted(targets)
        if name in height and target in height and height[name] < height[target]
    ]


def broken_rules(files: Graph) -> list[str]:
    """What no order allows: the rules that name a module."""
    broken = []
    for path, targets in sorted(files.items()):
        for target in sorted(targets):
            if target == PYTHON_H and not path.startswith("src/python/"):
                broken.append(f"{path} imports Python.h, which only src/python/ may see")
            if target.startswith(FOR_TESTS):
                broken.append(f"{path} imports {target}, which is for tests")
            if module_of(path) == CONSTANTS:
                broken.append(f"{path} imports {target}: constants import nothing")
    modules = condensed(files, module_of)
    for name in NO_IO:
        for target in sorted(reachable(modules, name).intersection(IO)):
            broken.append(f"{name} imports {target}, perhaps through others: it does no I/O")
    return broken


def reachable(graph: Graph, start: str) -> set[str]:
    """All that a name imports, and what that imports."""
    seen: set[str] = set()
    new = [start]
    while new:
        for target in graph.get(new.pop(), set()) - seen:
            seen.add(target)
            new.append(target)
    return seen
