"""What one message costs to receive when it is waiting in the socket already.

A server in a process of its own sends a burst; the client waits until all of it lies in the
kernel, and then the drain is timed: read, decrypt, parse, call back. Medians over rounds, one line
a case. ``python bench/drain.py --help`` has the options.
"""

from __future__ import annotations

import argparse
import array
import fcntl
import os
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import trustme

import hftws

SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32
KERNEL_BUFFER_SIZE = 32 << 20
RECORD_OVERHEAD = 22  # Header, content type and tag of a TLS 1.3 record.


def encode_frame(payload: bytes) -> bytes:
    """An unmasked text frame, as a server sends it."""
    if len(payload) < 126:
        return bytes((0x81, len(payload))) + payload
    return b"\x81\x7e" + struct.pack("!H", len(payload)) + payload


def serve(arguments: argparse.Namespace) -> None:
    """One connection: the upgrade, then a burst for each frame that the client sends."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, KERNEL_BUFFER_SIZE)
    print(listener.getsockname()[1], flush=True)
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if arguments.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.certificate)
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE  # The client's: AES-128-GCM first.
        context.num_tickets = 0
        connection = context.wrap_socket(connection, server_side=True)
    from websockets.server import ServerProtocol

    protocol = ServerProtocol()
    while not (events := protocol.events_received()):
        protocol.receive_data(connection.recv(65536))
    protocol.send_response(protocol.accept(events[0]))
    connection.sendall(b"".join(protocol.data_to_send()))
    record = encode_frame(b"x" * arguments.size) * arguments.messages_per_record
    while connection.recv(65536):
        for _ in range(arguments.count // arguments.messages_per_record):
            connection.sendall(record)


def wait_until_queued(fd: int, size: int) -> None:
    """Until this many bytes lie in the socket."""
    queued = array.array("i", [0])
    deadline = time.monotonic() + 10
    while queued[0] < size:
        fcntl.ioctl(fd, termios.FIONREAD, queued)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{queued[0]} of {size} bytes arrived")
        time.sleep(0.001)


def measure(arguments: argparse.Namespace) -> list[float]:
    """ns a message, one figure a round."""
    authority = trustme.CA()
    with tempfile.TemporaryDirectory() as directory:
        certificate, roots = Path(directory, "cert.pem"), Path(directory, "ca.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        authority.cert_pem.write_to_path(roots)
        command = [sys.executable, __file__, "--serve", "--certificate", str(certificate)]
        for name in ("size", "count", "messages_per_record"):
            command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
        if arguments.tls:
            command.append("--tls")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            os.sched_setaffinity(server.pid, {os.cpu_count() - 1})
            port = int(server.stdout.readline())
            try:
                return drain(arguments, port, str(roots))
            finally:
                server.kill()


def drain(arguments: argparse.Namespace, port: int, roots: str) -> list[float]:
    count = 0

    def on_msg(msg: hftws.Message) -> None:
        nonlocal count
        count += 1

    url = f"{'wss' if arguments.tls else 'ws'}://127.0.0.1:{port}/"
    client = hftws.Client(url, on_msg, ca_file=roots, timestamps=arguments.timestamps)
    client.connect()
    with socket.socket(fileno=os.dup(client.fileno())) as raw:
        raw.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, KERNEL_BUFFER_SIZE)
    os.sched_setaffinity(0, {0})
    frame_size = len(encode_frame(b"x" * arguments.size))
    per_record = frame_size * arguments.messages_per_record
    per_record += RECORD_OVERHEAD if arguments.tls else 0
    burst_size = per_record * (arguments.count // arguments.messages_per_record)
    results = []
    for _ in range(arguments.rounds):
        count = 0
        client.send("go")
        wait_until_queued(client.fileno(), burst_size)
        start = time.perf_counter_ns()
        while count < arguments.count:
            client.poll()
        results.append((time.perf_counter_ns() - start) / count)
    client.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--size", type=int, default=300, help="payload bytes of a message")
    parser.add_argument("--count", type=int, default=8000, help="messages in a burst")
    parser.add_argument("--messages-per-record", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--timestamps", default="software", choices=("none", "software"))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--certificate", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments)
        return
    results = measure(arguments)
    print(
        f"hftws {'wss' if arguments.tls else 'ws'} size={arguments.size} "
        f"per_record={arguments.messages_per_record} timestamps={arguments.timestamps}: "
        f"min {min(results):.0f} median {statistics.median(results):.0f} ns a message"
    )


if __name__ == "__main__":
    main()
