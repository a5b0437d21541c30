"""The steps of CI: targets of the Makefile."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FIRST", "STEPS", "TOTAL_LIMIT_S", "Step"]

#: For all steps together. CI kills what takes longer, and then nothing is reported.
TOTAL_LIMIT_S = 84 * 60


@dataclass(frozen=True)
class Step:
    """One target."""

    name: str
    #: A step that hangs is ended before it uses up the time of the others.
    limit_s: int = 40 * 60


#: The environment and the extension: the others need both, and then need not build them.
FIRST = Step("build")

#: In the order in which they begin: the longest first, so that the lanes end about together.
STEPS = (
    Step("test"),
    Step("arm-test"),
    Step("free-threading-test"),
    Step("test-valgrind"),
    Step("test-safe"),
    Step("ktls-test"),
    Step("wheels-test"),
    Step("test-kqueue"),
    Step("fuzz-smoke"),
)
