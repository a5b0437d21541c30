"""What a kernel's console tells of its end."""

from __future__ import annotations

import re

__all__ = ["reason", "report"]

LINES = 30

#: A message, behind the time that some kernels put in front.
MESSAGE = re.compile(r"^(?:\[ *\d+\.\d+\] )?(.*?)\s*$")

#: What says why the kernel ended: first what says most. Of several the first counts, which has
#: caused the others. That much fails in a healthy kernel, too, so each of them is named.
REASONS = (
    # The rig's own init, which could not do what it has to.
    re.compile(r"ktls: (?!the root is ready)."),
    # User-mode-linux, about the process of the host's that it runs programs in.
    re.compile(r"\w+ - (?:ptrace|wait).* failed\b"),
    # Its memory is a file, and the host has no room for all of it.
    re.compile(r"Bus error - "),
    re.compile(r"Kernel panic - not syncing: "),
)


def reason(text: str) -> str:
    """Why the kernel ended, in one line. It is its last one, where none says so."""
    messages = [MESSAGE.sub(r"\1", line) for line in text.splitlines() if line.strip()]
    for pattern in REASONS:
        for message in messages:
            if pattern.match(message):
                return message
    return messages[-1] if messages else "nothing on its console"


def report(text: str, exit_code: int) -> str:
    """What is said of a kernel that ended without a word of its guest's: the reason first."""
    why = f"{reason(text)}: the guest ended without a word (exit code {exit_code})"
    return "\n".join([why, "Its kernel said:", *text.splitlines()[-LINES:]])
