"""Two machines with a cable between them, as network namespaces of Linux: for links that go down.

A process leaves the machine's network with :func:`enter`, one that it starts leaves that again
with :func:`enter_another`, and :func:`connect` lays a cable (a pair of veth devices) between the
two. No program is needed, and root only where user namespaces are forbidden. The addresses are
those for examples (RFC 5737): outside of such namespaces nothing has them.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

__all__ = [
    "OWN",
    "PEER",
    "Impossible",
    "connect",
    "enter",
    "enter_another",
    "hardware_address",
    "leave_network",
    "pin_peer",
    "set_up",
    "take_down",
]

#: The addresses of the two ends.
OWN, PEER = "192.0.2.1", "192.0.2.2"

#: The name of the device at either end.
DEVICE = "cable"

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
SIOCSIFADDR, SIOCSIFNETMASK, SIOCGIFHWADDR = 0x8916, 0x891C, 0x8927
SIOCSARP, ATF_COM, ATF_PERM = 0x8955, 2, 4

NETLINK_ROUTE, RTM_NEWLINK, NLMSG_ERROR = 0, 16, 2
REQUEST_NEW = 0x1 | 0x4 | 0x200 | 0x400  # NLM_F_REQUEST, ACK, EXCL and CREATE.
IFLA_IFNAME, IFLA_LINKINFO, IFLA_NET_NS_PID = 3, 18, 19
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1


class Impossible(Exception):
    """Why this machine cannot have such networks. Then tests are skipped."""


def enter() -> None:
    """The process, which has one thread, gets a network of its own, without any cable."""
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
    except OSError as as_user:
        try:
            unshare(CLONE_NEWNET)
        except OSError as as_root:
            reason = f"{as_user.strerror}; without a user namespace: {as_root.strerror}"
            raise Impossible(f"this machine allows no network namespaces: {reason}") from as_root


def enter_another() -> None:
    """The same for a process that one with a network of its own has started."""
    unshare(CLONE_NEWNET)


def unshare(flags: int) -> None:
    """As os.unshare, which came with Python 3.12."""
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def connect(peer_pid: int) -> None:
    """Lays a cable to the network of another process. Both ends are still down."""
    device = attribute(IFLA_IFNAME, DEVICE.encode() + b"\0")
    other_end = bytes(16) + device + attribute(IFLA_NET_NS_PID, struct.pack("=I", peer_pid))
    data = attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, other_end))
    info = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"veth") + data)
    body = bytes(16) + device + info
    header = struct.pack("=IHHII", 16 + len(body), RTM_NEWLINK, REQUEST_NEW, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        netlink.send(header + body)
        answer = netlink.recv(65536)
    kind, error = struct.unpack_from("=4xH10xi", answer)
    assert kind == NLMSG_ERROR, answer
    if error != 0:
        raise Impossible(f"the kernel makes no pair of veth devices: {os.strerror(-error)}")


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute of netlink, padded to a multiple of four bytes."""
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


def set_up(address: str) -> None:
    """This end of the cable gets an address, and goes up."""
    control(SIOCSIFADDR, internet(address))
    control(SIOCSIFNETMASK, internet("255.255.255.0"))
    set_flags(flags() | IFF_UP)


def take_down() -> None:
    """As if the cable were pulled: the other end sees that there is no carrier."""
    set_flags(flags() & ~IFF_UP)


def leave_network() -> None:
    """This end has no address any more: it drops what comes, as a machine without power does."""
    control(SIOCSIFADDR, internet("0.0.0.0"))


def hardware_address() -> bytes:
    """The Ethernet address of this end."""
    return control(SIOCGIFHWADDR, bytes(16))[18:24]


def pin_peer(hardware: bytes) -> None:
    """The peer is at this Ethernet address for ever, so that the kernel does not ask for it.

    As behind a router, where nobody tells that the last machine of the way is gone.
    """
    request = internet(PEER) + struct.pack("=H", 1) + hardware + bytes(8)
    request += struct.pack("=I", ATF_COM | ATF_PERM) + bytes(16) + DEVICE.encode().ljust(16, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSARP, request)


def internet(address: str) -> bytes:
    """A sockaddr_in."""
    return struct.pack("=HH", socket.AF_INET, 0) + socket.inet_aton(address) + bytes(8)


def flags() -> int:
    """The flags of this end."""
    (value,) = struct.unpack_from("=H", control(SIOCGIFFLAGS, bytes(16)), 16)
    assert isinstance(value, int)
    return value


def set_flags(value: int) -> None:
    """Changes them."""
    control(SIOCSIFFLAGS, struct.pack("=H", value).ljust(16, b"\0"))


def control(request: int, value: bytes) -> bytes:
    """An ioctl about this end: a ``struct ifreq``, as the kernel leaves it."""
    name = DEVICE.encode().ljust(16, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return fcntl.ioctl(any_socket, request, (name + value).ljust(40, b"\0"))
