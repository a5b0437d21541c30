"""The steps of CI: targets of the Makefile."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FIRST", "STEPS", "TOTAL_LIMIT_S", "Step"]

#: All of them, the last one's end included. CI ends what takes longer, and then nothing is told.
TOTAL_LIMIT_S = 84 * 60


@dataclass(frozen=True)
class Step:
    """One target."""

    name: str
    #: A step that hangs is ended before it takes the time of the others.
    limit_s: int = 40 * 60


#: The environment and the extension: the others need both, and then find both as they are.
FIRST = Step("build")

#: In the order in which they begin, the longest first: so the lanes end at about the same time.
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
