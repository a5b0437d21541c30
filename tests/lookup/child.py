"""Clients whose names are looked up as long as the test wants. Prints what happened, as JSON.

Run with held.so preloaded, as ``child.py FUNCTION PORT``.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import hftws

HOST = "held.example"
SMALL = {"ring_size": 1 << 18, "send_ring_size": 1 << 18, "max_message_size": 1 << 17}
#: Seconds: a deadline that is never reached.
LONG = 500.0

held = ctypes.CDLL(None)
url = f"ws://{HOST}:{sys.argv[2]}/"


def client_of(timeout: float = LONG) -> hftws.Client:
    return hftws.Client(url, connect_timeout=timeout, **SMALL)


def fails(action: Callable[[], Any]) -> dict[str, Any]:
    """How the call failed, and how long that took."""
    began, cpu_began = time.monotonic(), time.process_time()
    try:
        action()
    except BaseException as error:
        return {
            "error": type(error).__name__,
            "message": str(error),
            "elapsed": time.monotonic() - began,
            "cpu": time.process_time() - cpu_began,
        }
    return {"error": None}


def when_asked(action: Callable[[], Any]) -> None:
    """Calls it in another thread as soon as a look-up has begun."""

    def wait() -> None:
        held.held_await(1)
        action()

    threading.Thread(target=wait, daemon=True).start()


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Mallinfo2(ctypes.Structure):
    """Of mallinfo(3), glibc's counts of its heaps."""

    #: ``uordblks`` is the eighth of ten.
    _fields_ = [(f"field_{index}", ctypes.c_size_t) for index in range(10)]


def allocated_bytes() -> int:
    """What was got of malloc(3) and not freed; 0 where that cannot be told.

    Resident memory says less: heaps with holes grow for many rounds.
    """
    if not hasattr(held, "mallinfo2"):  # glibc 2.33 and later.
        return 0
    held.mallinfo2.restype = Mallinfo2
    return int(held.mallinfo2().field_7)


# ---- What the tests run. -----------------------------------------------------------------------


def timeout() -> object:
    """The look-up is never answered. The process ends all the same."""
    result = fails(client_of(1.0).connect)
    result["threads"] = threads()
    return result


def timeout_of_get() -> object:
    return fails(lambda: hftws.get(url.replace("ws://", "http://"), timeout=0.2))


def answered() -> object:
    """Another thread of Python runs meanwhile, and has the answer come."""
    when_asked(lambda: held.held_allow(1))
    with client_of() as client:
        return client.is_open


def interrupted() -> object:
    """Ctrl-C."""
    client = client_of()
    when_asked(lambda: os.kill(os.getpid(), signal.SIGINT))
    result = fails(client.connect)
    held.held_allow(2)  # For the first look-up, which is nobody's now, and the next one.
    client.connect()
    result["opens later"] = client.is_open
    client.close()
    return result


def closed_by_a_handler() -> object:
    client = client_of()
    signal.signal(signal.SIGUSR1, lambda *_: client.close())
    when_asked(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    return fails(client.connect)


def forked() -> object:
    """A handler forks while the name is looked up: the child frees its copy of the client."""
    client = client_of()
    children: list[int] = []
    reader, writer = os.pipe()

    def fork(*_: object) -> None:
        child = os.fork()
        if child:
            children.append(child)
            held.held_allow(1)

    signal.signal(signal.SIGUSR1, fork)
    when_asked(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    message = fails(client.connect)
    if not children:
        faulthandler.dump_traceback_later(20, exit=True)
        before = descriptors()
        fork_of_client = [client]
        del client
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        fork_of_client.clear()
        gc.collect()
        report = {"message": message, "freed": before - descriptors()}
        os.write(writer, json.dumps(report).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = json.loads(pipe.read() or b"null")
    _, status = os.waitpid(children[0], 0)
    result = {"child": told, "status": status, "is_open": client.is_open}
    client.close()
    return result


def given_up() -> object:
    """Twice 200 clients that do not wait for their names. Then these are answered."""

    def round_of(count: int) -> None:
        clients = [client_of(0.001) for _ in range(count)]
        for client in clients:
            with contextlib.suppress(hftws.ConnectTimeout):
                client.connect()
        clients.clear()
        gc.collect()
        held.held_allow(count)
        while threads() > 1:
            time.sleep(0.001)

    round_of(200)
    before = descriptors(), allocated_bytes()
    round_of(200)
    return {
        "descriptors": descriptors() - before[0],
        "allocated_bytes": allocated_bytes() - before[1],
    }


def no_descriptors() -> object:
    """One descriptor is left, which is not enough for a look-up."""
    client = client_of()
    client.fileno()  # The descriptors that it has for life.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    result = fails(client.connect)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held.held_allow(1)
    client.connect()
    result["opens later"] = client.is_open
    client.close()
    return result


def no_threads() -> object:
    client = client_of()
    client.fileno()  # The descriptors that it has for life.
    before = descriptors()
    held.held_no_threads(1)
    result = fails(client.connect)
    held.held_no_threads(0)
    result["descriptors"] = descriptors() - before
    held.held_allow(1)
    client.connect()
    result["opens later"] = client.is_open
    client.close()
    return result


if __name__ == "__main__":
    result = globals()[sys.argv[1]]()
    print(json.dumps(result))
