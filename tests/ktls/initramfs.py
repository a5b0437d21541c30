"""Makes what the guest starts with: an archive of a shell, modules, and its init script."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["CONTROL", "Task", "build"]

#: Where the guest finds the folder that it shares with the host.
CONTROL = "/run/ktls"

DIRECTORY, FILE = 0o040755, 0o100755

#: The root is the host's, which the guest cannot change: it writes to memory. No module is loaded
#: on demand, so that a module that was left out is not there.
INIT = """\
#!/bin/busybox sh
bb=/bin/busybox
root=/root
say() {{ echo "<3>ktls: $*" >/dev/kmsg; }}
fail() {{ say "$*"; $bb poweroff -f; }}
$bb mount -t devtmpfs dev /dev || $bb poweroff -f
$bb mount -t proc proc /proc || fail "no /proc"
$bb mount -t sysfs sys /sys || fail "no /sys"
echo >/proc/sys/kernel/modprobe
for module in /modules/*; do
    $bb insmod $module || fail "no $module"
done
$bb mount -t hostfs -o ro,/ none /lower || fail "no root of the host's"
$bb mount -t tmpfs -o mode=755 none /upper || fail "no memory for the root"
$bb mkdir /upper/changed /upper/work
$bb mount -t overlay -o lowerdir=/lower,upperdir=/upper/changed,workdir=/upper/work none $root ||
    fail "no root"
$bb mount -t tmpfs -o mode=755 none $root/run || fail "no /run"
$bb mkdir $root{control}
$bb mount -t hostfs -o {shared} none $root{control} || fail "no shared folder"
for mounted in dev proc sys; do
    $bb mkdir -p $root/$mounted
    $bb mount --move /$mounted $root/$mounted || fail "no /$mounted"
done
$bb mkdir -p $root/dev/pts $root/dev/shm
$bb mount -t devpts none $root/dev/pts
$bb mount -t tmpfs -o mode=1777 none $root/dev/shm
$bb ln -sf /proc/self/fd $root/dev/fd
$bb ip link set lo up || fail "no loopback"
$bb cp $bb /task $root/run
say "the root is ready"
exec $bb switch_root $root /run/busybox sh /run/task
"""

#: Through a pipe, so that the command sees no terminal.
TASK = """\
bb=/run/busybox
$bb stty -opost </dev/tty1
{{
    (
        cd {directory}
        {environment}
        exec {command}
    ) </dev/null 2>&1
    echo $? >/run/status
}} | $bb cat >/dev/tty1
$bb cp /proc/net/tls_stat {control}/tls_stat
$bb cp /run/status {control}/status
$bb sync
$bb poweroff -f
"""


@dataclass(frozen=True)
class Task:
    """What the guest has to do."""

    command: list[str]
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    def script(self) -> str:
        exports = (f"export {name}={shlex.quote(to)}" for name, to in self.environment.items())
        return TASK.format(
            directory=shlex.quote(str(self.directory)),
            environment="\n        ".join(exports) or ":",
            command=shlex.join(self.command),
            control=CONTROL,
        )


def build(busybox: Path, modules: Iterable[Path], shared: Path, task: Task) -> bytes:
    """The archive; ``shared`` is the folder of the host's that both see."""
    folders = ("bin", "dev", "proc", "sys", "modules", "lower", "upper", "root")
    init = INIT.format(shared=shlex.quote(str(shared)), control=CONTROL)
    files = {"bin/busybox": busybox.read_bytes(), "init": init.encode()}
    files["task"] = task.script().encode()
    files |= {f"modules/{module.name}": module.read_bytes() for module in modules}
    entries = [entry(name, DIRECTORY) for name in folders]
    entries += [entry(name, FILE, content) for name, content in files.items()]
    return b"".join([*entries, entry("TRAILER!!!", 0)])


def entry(name: str, mode: int, content: bytes = b"") -> bytes:
    """One entry of a cpio archive (the format "newc" of cpio(5)).

    The fields are inode, mode, user, group, links, time, size, four of device numbers, the size of
    the name, and a checksum that this format does not have.
    """
    path = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + b"".join(b"%08x" % value for value in fields)
    return padded(header + path) + padded(content)


def padded(data: bytes) -> bytes:
    """Padded to a multiple of four bytes."""
    return data + bytes(-len(data) % 4)
