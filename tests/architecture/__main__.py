"""Rewrites the generated sections of ARCHITECTURE.md: `make map`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from .imports import imports
from .order import drawing
from .tree import tree

__all__ = ["COMMAND", "PAGE", "ROOT", "generated", "rewritten", "section"]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "ARCHITECTURE.md"
COMMAND = "make map"

SECTION = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def generated(root: Path) -> dict[str, str]:
    """The sections by their names, as they should be."""
    return {"order": drawing(imports(root)), "map": tree(root)}


def section(page: str, name: str) -> str:
    """What a page has in a section now."""
    found = [match[0] for match in SECTION.finditer(page) if match[2] == name]
    if len(found) != 1:
        raise ValueError(f"{len(found)} sections begin with <!-- generated: {name} -->, not one")
    return "\n".join(found[0].splitlines()[1:-1]).strip("\n")


def rewritten(page: str, sections: dict[str, str]) -> str:
    """The page with its sections as they should be, and nothing else changed."""
    for name in sections:
        section(page, name)  # Raises if it is not there.
    return SECTION.sub(lambda match: f"{match[1]}\n{sections[match[2]]}\n\n{match[3]}", page)


def main() -> int:
    before = PAGE.read_text("utf-8")
    after = rewritten(before, generated(ROOT))
    PAGE.write_text(after, "utf-8")
    print(f"{PAGE.name}: {'changed' if after != before else 'nothing to change'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
