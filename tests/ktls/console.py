"""Finds on a kernel's console why it ended."""

from __future__ import annotations

import re

__all__ = ["reason", "report"]

LINES = 30

#: A message, behind the time that some kernels put in front.
MESSAGE = re.compile(r"^(?:\[ *\d+\.\d+\] )?(.*?)\s*$")

#: What says why the kernel ended, the most telling first. Of several lines the first counts, since
#: it has caused the others. A healthy kernel also reports failures, so each pattern is specific.
REASONS = (
    # The rig's own init, which has failed.
    re.compile(r"ktls: (?!the root is ready)."),
    # User-mode-linux, about the host's process in which it runs programs.
    re.compile(r"\w+ - (?:ptrace|wait).* failed\b"),
    # Its memory is a file, and the host has no room for all of it.
    re.compile(r"Bus error - "),
    re.compile(r"Kernel panic - not syncing: "),
)


def reason(text: str) -> str:
    """Why the kernel ended, in one line: the last one, if none of them says why."""
    messages = [MESSAGE.sub(r"\1", line) for line in text.splitlines() if line.strip()]
    for pattern in REASONS:
        for message in messages:
            if pattern.match(message):
                return message
    return messages[-1] if messages else "nothing on its console"


def report(text: str, exit_code: int) -> str:
    """The message for a kernel that ended before its guest said anything: the reason first."""
    why = f"{reason(text)}: the guest ended without a word (exit code {exit_code})"
    return "\n".join([why, "Its kernel said:", *text.splitlines()[-LINES:]])
