"""What the benchmarks ask of Linux: CPUs, socket buffers, and how much lies in a socket."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import socket
import termios
import time
from pathlib import Path

_FORCED = {"send": 32, "receive": 33}  # SO_SNDBUFFORCE and SO_RCVBUFFORCE.
_LIMITED = {"send": socket.SO_SNDBUF, "receive": socket.SO_RCVBUF}

CLIENT_CPU = min(os.sched_getaffinity(0))
SERVER_CPU = max(os.sched_getaffinity(0))


def claim_cpu(cpu: int) -> None:
    """Runs this process on one CPU, before others where that is allowed."""
    os.sched_setaffinity(0, {cpu})
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)


def set_buffer_size(connection: socket.socket, direction: str, size: int) -> int:
    """Sets a buffer of the kernel, past the system's limit where that is allowed.

    Returns the bytes of payload that it surely holds: half of what the kernel counts.
    """
    try:
        connection.setsockopt(socket.SOL_SOCKET, _FORCED[direction], size)
    except PermissionError:
        connection.setsockopt(socket.SOL_SOCKET, _LIMITED[direction], size)
    return connection.getsockopt(socket.SOL_SOCKET, _LIMITED[direction]) // 2


def set_descriptor_buffer_size(descriptor: int, size: int) -> None:
    """Sets the receive buffer of a socket that belongs to a library."""
    connection = socket.socket(fileno=descriptor)
    try:
        set_buffer_size(connection, "receive", size)
    finally:
        connection.detach()


def receive_capacity(size: int) -> int:
    """How many of these bytes one of our sockets can hold unread."""
    with socket.socket() as probe:
        return set_buffer_size(probe, "receive", size)


def descriptors(port: int) -> list[int]:
    """This process's sockets that are connected to this port, also those inside of a library."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # No socket, or not connected.
            connection = socket.socket(fileno=int(entry.name))
            try:
                internet = connection.family in (socket.AF_INET, socket.AF_INET6)
                if internet and connection.getpeername()[1] == port:
                    found.append(int(entry.name))
            finally:
                connection.detach()
    return found


def signal_ready(descriptor: int) -> None:
    """Tells the server that the client does not read any more.

    It is an urgent byte of TCP: beside the stream, and sent without the library's help.
    """
    connection = socket.socket(fileno=descriptor)
    try:
        connection.send(b"!", socket.MSG_OOB)
    finally:
        connection.detach()


def wait_until_ready(connection: socket.socket, timeout: float = 10.0) -> None:
    """The server's side of `signal_ready`."""
    urgent = select.poll()
    urgent.register(connection, select.POLLPRI)
    urgent.poll(timeout * 1000)
    try:
        connection.recv(1, socket.MSG_OOB)
    except OSError as error:  # No urgent byte: the poll has timed out, or the client is gone.
        raise ConnectionResetError("the client asked for a burst and never was ready") from error


def wait_until_queued(descriptor: int, size: int, timeout: float = 10.0) -> None:
    """Waits until this many bytes lie unread in a socket."""
    queued = array.array("i", [0])
    deadline = time.monotonic() + timeout
    while queued[0] < size:
        fcntl.ioctl(descriptor, termios.FIONREAD, queued)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{queued[0]} of {size} bytes arrived")
        time.sleep(0.0005)
    if queued[0] > size:
        raise RuntimeError(f"{queued[0]} bytes arrived instead of {size}")
