"""The fuzzers' corpus is what its script writes, and small enough for the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fuzz import seeds

FUZZ = Path(__file__).parent / "fuzz"
SOURCE = FUZZ.parents[1] / "src" / "fuzz.zig"
SIZE_MAX = 1 << 20


def test_every_target_has_seeds_and_a_dictionary() -> None:
    if not SOURCE.exists():
        pytest.skip("the tests run without the sources")
    targets = re.findall(r"pub const (\w+) = @import\(\"fuzz/", SOURCE.read_text(encoding="utf-8"))
    assert sorted(targets) == sorted(seeds.TARGETS)
    for target in targets:
        assert (FUZZ / "dictionaries" / f"{target}.dict").is_file()


@pytest.mark.parametrize("target", seeds.TARGETS)
def test_seeds_are_up_to_date(target: str) -> None:
    """A seed that was changed by hand would be lost when the script runs the next time."""
    for name, content in seeds.TARGETS[target]().items():
        path = FUZZ / "corpus" / target / name
        assert path.read_bytes() == content, f"{path}: run tests/fuzz/seeds.py"


def test_corpus_is_small() -> None:
    files = [path for path in FUZZ.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < SIZE_MAX
