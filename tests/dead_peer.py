"""Two clients of a peer that dies in a network of its own: one that waits for room, one in silence.

Takes the peer timeout in seconds, and how the peer dies. Says in JSON what each client said of it,
or with ``skip`` why this machine has no networks for it.
"""

from __future__ import annotations

import json
import multiprocessing
import socket
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import two_machines
from servers import PATIENCE, accept_value

import hftws

#: Seconds after which nothing is expected to come any more.
SOON = 10.0 * PATIENCE


def play_peer(parent: Connection, others_end: Connection) -> None:
    """Accepts two upgrades, never reads again, and dies as it is told."""
    others_end.close()  # So that the end of that process is noticed.
    two_machines.enter_another()
    parent.send("in a network of its own")
    parent.recv()
    two_machines.set_up(two_machines.PEER)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind((two_machines.PEER, 0))
        listener.listen()
        parent.send((listener.getsockname()[1], two_machines.hardware_address()))
        accepted = [accept(listener) for _ in range(2)]
        death = parent.recv()
        if death == "pulled cable":
            two_machines.take_down()
        else:
            two_machines.leave_network()
        parent.send("dead")
        parent.recv()
        for sock in accepted:
            sock.close()


def accept(listener: socket.socket) -> socket.socket:
    """One connection, after its upgrade."""
    sock, _ = listener.accept()
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        request += sock.recv(65536)
    key = next(line for line in request.decode().split("\r\n") if "-WebSocket-Key:" in line)
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_value(key.split(": ")[1]).encode() + b"\r\n\r\n"
    )
    return sock


def expect(peer: Connection) -> Any:
    """What the peer says next."""
    assert peer.poll(SOON), "the peer says nothing"
    return peer.recv()


def watch(clients: dict[str, hftws.Client], seconds: float) -> dict[str, str]:
    """How those ended that did, within this time."""
    ends: dict[str, str] = {}
    until = time.monotonic() + seconds
    while time.monotonic() < until and len(ends) < len(clients):
        for name, client in clients.items():
            if name not in ends:
                try:
                    client.poll(0.02)
                except hftws.ConnectionClosed as error:
                    ends[name] = str(error)
    return ends


def main(peer_timeout: float, death: str) -> dict[str, dict[str, str]]:
    """How the clients ended while the peer lived, and after that."""
    two_machines.enter()
    peer, other_end = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=play_peer, args=(other_end, peer), daemon=True
    )
    process.start()
    other_end.close()
    assert process.pid is not None
    expect(peer)
    two_machines.connect(process.pid)
    two_machines.set_up(two_machines.OWN)
    peer.send("connected")
    port, hardware = expect(peer)
    if death == "silence":
        two_machines.pin_peer(hardware)
    clients = {
        name: hftws.Client(
            f"ws://{two_machines.PEER}:{port}/",
            peer_timeout=peer_timeout,
            send_buffer_size=16384,
            connect_timeout=SOON,
        )
        for name in ("waits for room", "idle")
    }
    for client in clients.values():
        client.connect()
    while not clients["waits for room"].wants_write:
        clients["waits for room"].send(bytes(16384))
    before = watch(clients, 2.5 * peer_timeout)
    peer.send(death)
    expect(peer)
    after = watch(clients, SOON)
    peer.send("bye")
    process.join()
    return {"before": before, "after": after}


if __name__ == "__main__":
    try:
        print(json.dumps(main(float(sys.argv[1]), sys.argv[2])))
    except two_machines.Impossible as reason:
        print(json.dumps({"skip": str(reason)}))
