"""Connects to a name in a network whose only name server never answers. Prints how that went.

For the namespaces of ``unshare --user --map-root-user --mount --net``: the name server is a socket
that nobody reads, and /etc/resolv.conf names it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
import tempfile
import time

import hftws

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
MS_BIND = 0x1000


def bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
        flags = struct.unpack("16sH14x", request)[1] | IFF_UP
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags))


def use_instead_of(path: str, text: str) -> None:
    """Puts another file in its place, in this mount namespace."""
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(file.name.encode(), path.encode(), None, MS_BIND, None) != 0:
        raise OSError(ctypes.get_errno(), path)
    os.unlink(file.name)


def main(timeout: float) -> object:
    """How a connect fails, and whether the name server was asked."""
    bring_up_loopback()
    use_instead_of("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:30 attempts:3\n")
    use_instead_of("/etc/nsswitch.conf", "hosts: files dns\n")
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    began = time.monotonic()
    try:
        hftws.Client("wss://feed.example/", connect_timeout=timeout).connect()
    except hftws.Error as error:
        elapsed = time.monotonic() - began
        server.setblocking(False)
        asked = server.recv(512)
        return {
            "error": type(error).__name__,
            "message": str(error),
            "elapsed": elapsed,
            "asked for": b"\4feed\7example\0" in asked,
        }
    return None


if __name__ == "__main__":
    print(json.dumps(main(float(sys.argv[1]))))
