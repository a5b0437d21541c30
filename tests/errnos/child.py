"""Runs a client whose system calls fail, under the shim. Prints what happened, as JSON."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import sys
from typing import Any

import hftws

shim = ctypes.CDLL(None)
shim.shim_disturb.argtypes = [ctypes.c_uint64, ctypes.c_uint]

SMALL = {"ring_size": 1 << 18, "send_ring_size": 1 << 18, "max_message_size": 1 << 17}


def force(call: str, name: str, times: int = 1) -> None:
    """Makes the next calls fail with this errno."""
    shim.shim_force(call.encode(), getattr(errno, name), times)


def count(call: str) -> int:
    """How many calls have failed or were disturbed."""
    return int(shim.shim_count(call.encode()))


def describe(error: BaseException) -> str:
    text = str(error).removesuffix(f" [{getattr(error, 'url', '')}]")
    return f"{type(error).__name__}: {text}"


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Once:
    """Uses a client after a failure, when its system calls work again."""

    def __init__(self, url: str, stage: str, call: str, name: str, **options: Any) -> None:
        self.url, self.stage, self.call, self.name = url, stage, call, name
        self.options = {**SMALL, **options}
        self.inbox: list[str] = []
        self.failure = ""

    def attempt(self, stage: str, action: Any) -> Any:
        if stage != self.stage:
            return action()
        before = count(self.call)
        force(self.call, self.name)
        try:
            return action()
        except Exception as error:
            self.failure = describe(error)
            return None
        finally:
            shim.shim_clear()
            assert count(self.call) == before + 1, f"{self.call} was not called"

    def run(self) -> dict[str, Any]:
        client = self.attempt("init", self.make) or self.make()
        if self.call != "epoll_create1":
            client.fileno()  # Makes what connect() would make, with other calls of epoll_ctl.
        self.attempt("connect", client.connect)
        if not client.is_open:
            client.connect()
        end = ""
        try:
            self.attempt("receive", lambda: client.poll(0.01))  # Waits: nothing has arrived.
            self.attempt("send", lambda: client.send("go"))
            if self.stage == "send":
                self.end_sending(client)
            while True:
                client.poll(5.0)
        except hftws.Error as error:
            end = describe(error)
        client.close()
        return {"failure": self.failure, "messages": self.inbox, "end": end}

    def end_sending(self, client: hftws.Client) -> None:
        """Tells the server that it need not wait any longer."""
        with socket.socket(fileno=os.dup(client.info()["descriptor"])) as sock:
            sock.shutdown(socket.SHUT_WR)

    def make(self) -> hftws.Client:
        return hftws.Client(
            self.url, lambda m: self.inbox.append(bytes(m).decode()), **self.options
        )


def refused(options: dict[str, Any], level: int, name: int, errno_name: str) -> list[str]:
    """What a client says when the kernel refuses it a socket option, and of which URL.

    Level -1 stands for bind(2).
    """
    before = descriptors()
    client = hftws.Client("ws://127.0.0.1:1/", lambda m: None, **options)
    if level == -1:
        force("bind", errno_name)
    else:
        shim.shim_force_option(level, name, getattr(errno, errno_name))
    try:
        client.connect()
    except hftws.ConnectError as error:
        shim.shim_clear()
        client.close()
        del client
        return [str(error), f"{descriptors() - before} are open"]
    raise AssertionError("it was not refused")


def main() -> None:
    job = json.loads(sys.stdin.read())
    if job["kind"] == "refused":
        print(json.dumps([refused(*case) for case in job["cases"]]))
        return
    if job["kind"] == "once":
        outcomes = []
        for url, stage, call, name, options in job["cases"]:
            before = descriptors()
            outcome = Once(url, stage, call, name, **options).run()
            outcome["leaked"] = descriptors() - before
            outcomes.append(outcome)
        print(json.dumps(outcomes))
        return
    counts: dict[str, int] = {}
    results = []
    for seed in range(job["seeds"]):
        inbox: list[bytes] = []
        client = hftws.Client(
            job["url"], lambda m, inbox=inbox: inbox.append(bytes(m)), **SMALL, **job["options"]
        )
        shim.shim_disturb(seed, job["per_mille"])
        client.connect()
        for number in range(job["orders"]):
            client.send(str(number) * 50)
        end = ""
        try:
            while True:
                client.poll(5.0)
        except hftws.Error as error:
            end = describe(error)
        client.close()
        shim.shim_clear()
        results.append({"messages": [len(message) for message in inbox], "end": end})
    for call in ("connect", "recv", "recvmsg", "send", "epoll_wait", "epoll_pwait2"):
        counts[call] = count(call)
    print(json.dumps({"results": results, "counts": counts}))


if __name__ == "__main__":
    main()
