"""Threads: one client for each works at full speed; a second one in a client gets an error.

The tests are the same with the GIL and without (``make free-threading-test``). Which thread runs
when is for the machine to say; what each of them does comes from a seed.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import queue
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from servers import (
    BINARY,
    CLOSE,
    PATIENCE,
    PING,
    PONG,
    TEXT,
    Peer,
    ScriptServer,
    Serve,
    encode_frame,
)

import hftws

IN_USE = "another thread is using this client"

#: Seconds within which anything here happens.
SOON = 20 * PATIENCE

GIL_ENABLED = getattr(sys, "_is_gil_enabled", lambda: True)()


def run_together(*functions: Callable[[], object]) -> None:
    """Runs each in its own thread, all started together. What one raises is raised here."""
    start = threading.Barrier(len(functions))
    errors: list[BaseException] = []

    def run(function: Callable[[], object]) -> None:
        try:
            start.wait(SOON)
            function()
        except BaseException as error:
            errors.append(error)

    threads = [
        # Daemons, so that a thread that hangs does not keep the interpreter from ending.
        threading.Thread(target=run, args=(function,), daemon=True)
        for function in functions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def payload_of(number: int, size: int) -> bytes:
    """A payload that is recognisable at every place, so that a byte of another message shows."""
    return b"%08d" % number * (1 + size // 8)


def is_whole(data: bytes) -> bool:
    """Whether these are the bytes of one message."""
    return len(data) >= 8 and data == data[:8] * (len(data) // 8)


def echo(peer: Peer) -> None:
    """Sends every message back, answers pings and CLOSE, and accepts any kind of end."""
    with contextlib.suppress(OSError, EOFError):
        peer.accept_upgrade()
        while True:
            frame = peer.read_frame()
            if frame.opcode == CLOSE:
                peer.send_frame(CLOSE, frame.payload)
                return peer.hang_up()
            opcode = PONG if frame.opcode == PING else frame.opcode
            peer.send_frame(opcode, frame.payload)


# ---- Two threads, one client. ------------------------------------------------------------------


def write_reserved(client: hftws.Client) -> None:
    with client.reserve(64, text=False) as view:
        view[:] = payload_of(7, 56)


def leave_a_slice(client: hftws.Client) -> None:
    """The place stays blocked until the slice is gone, which is at once."""
    with client.reserve(64, text=False) as view:
        rest = view[8:]
        assert len(rest) == 56


#: The uses of a client. Those that only look may be called by any thread at any time.
USES: dict[str, Callable[[hftws.Client], object]] = {
    "connect": lambda client: client.connect(),
    "poll": lambda client: client.poll(0.001),
    "run": lambda client: client.run(),
    "send": lambda client: client.send(payload_of(1, 300)),
    "ping": lambda client: client.ping(b"?"),
    "reserve": write_reserved,
    "leave a slice": leave_a_slice,
    "close": lambda client: client.close(),
    "info": lambda client: client.info(),
    "wants_write": lambda client: client.wants_write,
    "subprotocol": lambda client: client.subprotocol,
    "response_headers": lambda client: client.response_headers,
    "close_code": lambda client: client.close_code,
    "close_reason": lambda client: client.close_reason,
}
LOOKS: dict[str, Callable[[hftws.Client], object]] = {
    "is_open": lambda client: client.is_open,
    "stats": lambda client: client.stats(),
    "fileno": lambda client: client.fileno(),
    "repr": repr,
    "collect": lambda client: gc.collect(),
}

#: What a use may raise when another one comes between its steps, not at the same time.
FITTING = {
    IN_USE,
    "already connected",
    "not connected: call connect() first",
    "not connected: there is no file descriptor",
    "a reservation is open",
    "a slice of the reserved view is still in use: the frame is not sent",
    "the reservation is not entered",
}


@pytest.mark.parametrize("where", ["in a callback", "waiting"])
def test_who_comes_second_is_told(serve_both: Serve, where: str) -> None:
    """Each use gets its exact error; looking is allowed. The thread inside is not disturbed."""
    told: dict[str, str] = {}
    looked: set[str] = set()
    tried, in_callback = threading.Event(), threading.Event()

    def on_msg(msg: hftws.Message) -> None:
        received.append(bytes(msg))
        in_callback.set()
        if where == "in a callback":
            assert tried.wait(SOON)

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("first")
        assert in_callback.wait(SOON)
        for name, use in USES.items():
            try:
                use(client)
            except RuntimeError as error:
                told[name] = str(error)
        for name, look in LOOKS.items():
            look(client)
            looked.add(name)
        tried.set()
        peer.send_text("second")
        peer.close_handshake()

    received: list[bytes] = []
    with serve_both(script) as server:
        client = server.client(on_msg, latency=True)
        client.connect()
        client.run()
    assert told == dict.fromkeys(USES, IN_USE)
    assert looked == set(LOOKS)
    assert received == [b"first", b"second"]
    assert client.close_code == 1000


def test_a_callback_may_use_the_client_that_calls_it(serve_both: Serve) -> None:
    """It is the same thread, at any depth."""
    told: list[str] = []

    def on_msg(msg: hftws.Message) -> None:
        client.send(b"one")
        write_reserved(client)
        assert client.info()["peer_address"]
        for again in (client.run, client.poll, client.connect):
            with pytest.raises(RuntimeError) as caught:
                again()
            told.append(str(caught.value))
        client.close(1001)

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("go")
        peer.expect_frame(BINARY, b"one")
        peer.expect_frame(BINARY, payload_of(7, 56))
        assert peer.answer_close().close_code == 1001

    with serve_both(script) as server:
        client = server.client(on_msg)
        client.connect()
        client.run()
    assert len(told) == 3
    assert all("callback" in text for text in told)


PAIRS = list(itertools.combinations_with_replacement([*USES, *LOOKS], 2))


@pytest.fixture(scope="module")
def echo_server() -> Iterator[ScriptServer]:
    """Echoes, for one client after the other."""
    with ScriptServer(echo) as server:
        yield server


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " and ".join(pair))
def test_every_pair_of_uses_at_the_same_time(
    echo_server: ScriptServer, pair: tuple[str, str]
) -> None:
    """No crash, no damaged message, no wrong error; afterwards the client still works."""
    whole: list[bool] = []
    client = echo_server.client(lambda msg: whole.append(is_whole(bytes(msg))), latency=True)
    client.connect()

    finished = [threading.Event(), threading.Event()]

    def hammer(index: int) -> None:
        use = {**USES, **LOOKS}[pair[index]]
        try:
            for _ in range(10):
                try:
                    use(client)
                except hftws.ConnectionClosed:
                    pass
                except (RuntimeError, BufferError, ValueError) as error:
                    assert str(error) in FITTING, error
        finally:
            finished[index].set()

    def end_run() -> None:
        """When one is done, the other may be in a run() that nothing else would end."""
        while not any(event.wait(0.005) for event in finished):
            pass
        while not all(event.wait(0.005) for event in finished):
            shut(client)

    run_together(lambda: hammer(0), lambda: hammer(1), *([end_run] if "run" in pair else []))
    assert all(whole)

    client.close()
    client.connect()
    client.send(payload_of(3, 8))
    before = len(whole)
    while len(whole) == before:
        client.poll(SOON)
    assert all(whole)
    client.close()


def shut(client: hftws.Client) -> None:
    """Ends both directions of its socket, as a peer does that hangs up."""
    with contextlib.suppress(OSError):  # Not connected, or no longer.
        with socket.socket(fileno=os.dup(client._descriptor())) as sock:
            sock.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("seed", range(6))
def test_four_threads_do_what_they_like(echo_server: ScriptServer, seed: int) -> None:
    """All uses and looks mixed, by four threads on one client that connects again and again."""
    whole: list[bool] = []
    client = echo_server.client(lambda msg: whole.append(is_whole(bytes(msg))), latency=True)
    uses = {**USES, **LOOKS}
    del uses["run"]  # It would never return.

    def hammer(random_: random.Random) -> None:
        for _ in range(250):
            name = random_.choice(list(uses))
            try:
                uses[name](client)
            except (hftws.ConnectionClosed, hftws.ConnectError, hftws.HandshakeError):
                pass
            except (RuntimeError, BufferError, ValueError) as error:
                assert str(error) in FITTING, error

    run_together(
        *(lambda i=i: hammer(random.Random(f"{seed} {i}")) for i in range(4))  # type: ignore[misc]
    )
    assert all(whole)
    client.close()


# ---- What a callback hands to other threads. ---------------------------------------------------


KEEPS: dict[str, Callable[[hftws.Message], Any]] = {
    "message": lambda msg: msg,
    "view": lambda msg: msg.data,
    "slice": lambda msg: msg.data[8:],
    "slice of a slice": lambda msg: msg.data[8:][8:],
    "buffer": memoryview,
}


@pytest.mark.parametrize("seed", range(4))
def test_kept_messages_are_let_go_of_in_other_threads(serve_both: Serve, seed: int) -> None:
    """While the owner receives into the same ring. Their bytes stay as they were."""
    random_ = random.Random(seed)
    count, blocks = 4000, 40
    sizes = [random_.choice([8, 40, 300, 3000]) for _ in range(count)]
    keeps = list(KEEPS.values())
    kept: queue.Queue[tuple[Any, bytes] | None] = queue.Queue(64)
    numbers: list[int] = []
    damaged: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for block in range(blocks):
            each = range(block * count // blocks, (block + 1) * count // blocks)
            data = [encode_frame(BINARY, payload_of(index, sizes[index])) for index in each]
            peer.send(b"".join(data))
        peer.close_handshake()

    def on_msg(msg: hftws.Message) -> None:
        data = bytes(msg)
        numbers.append(int(data[:8]))
        if random_.random() < 0.5:
            keep = random_.choice(keeps)
            kept.put((keep(msg), data), timeout=SOON)

    def check(item: tuple[Any, bytes]) -> None:
        view, data = item
        if bytes(view) not in (data, data[8:], data[16:]):
            damaged.append(data[:8])

    def let_go(own: random.Random) -> None:
        held: list[tuple[Any, bytes]] = []
        while True:
            try:
                item = kept.get(timeout=0.02)
            except queue.Empty:  # The oldest message that is held may be what the owner waits for.
                while held:
                    check(held.pop())
                continue
            if item is None:
                break
            held.append(item)
            del item  # It would hold the message while this thread waits for the next.
            while len(held) > 8 or (held and own.random() < 0.3):
                check(held.pop(own.randrange(len(held))))
        kept.put(None)

    def receive(client: hftws.Client) -> None:
        try:
            while client.is_open:
                with contextlib.suppress(BufferError, hftws.ConnectionClosed):
                    client.run()
        finally:
            kept.put(None, timeout=SOON)

    with serve_both(script) as server:
        client = server.client(on_msg, max_message_size=16384, ring_size=262144)
        client.connect()
        run_together(
            lambda: receive(client),
            *(lambda i=i: let_go(random.Random(f"{seed} {i}")) for i in range(2)),
        )
    assert numbers == list(range(count))
    assert damaged == []


@pytest.mark.parametrize("seed", range(3))
def test_messages_outlive_their_connection_in_other_threads(serve: Serve, seed: int) -> None:
    """connect() makes new rings while other threads release the last pins of the old ones."""
    random_ = random.Random(seed)
    rounds, each = 60, 5
    kept: queue.Queue[tuple[Any, bytes] | None] = queue.Queue()
    damaged: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for number in range(each):
            peer.send_binary(payload_of(number, 200))
        peer.expect_frame(TEXT, b"next")
        peer.answer_close()

    def on_msg(msg: hftws.Message) -> None:
        keep = random_.choice(list(KEEPS.values()))
        kept.put((keep(msg), bytes(msg)))

    def let_go() -> None:
        while (item := kept.get(timeout=SOON)) is not None:
            view, data = item
            if bytes(view) not in (data, data[8:], data[16:]):
                damaged.append(data[:8])
            del view, item
        kept.put(None)

    def reconnect(client: hftws.Client) -> None:
        try:
            for _ in range(rounds):
                client.connect()
                seen = client.stats()["messages"] + each
                while client.stats()["messages"] < seen:
                    client.poll(SOON)
                client.send("next")
                client.close()
        finally:
            kept.put(None)

    with serve(script) as server:
        client = server.client(on_msg, max_message_size=4096, ring_size=262144)
        run_together(lambda: reconnect(client), let_go, let_go)
    assert damaged == []


def test_a_message_is_read_in_another_thread_while_its_callback_runs(serve_both: Serve) -> None:
    """All except `is_last`, which needs the connection, and is fixed once the message is kept."""
    read: dict[str, object] = {}
    given: queue.Queue[hftws.Message] = queue.Queue()
    done = threading.Event()

    def on_msg(msg: hftws.Message) -> None:
        given.put(msg)
        assert done.wait(SOON)

    def look() -> None:
        msg = given.get(timeout=SOON)
        read["data"] = bytes(msg.data)
        read["same view"] = msg.data is msg.data
        read["bytes"], read["text"], read["size"] = bytes(msg), str(msg), len(msg)
        read["ordered"] = msg.t_received <= msg.t_decrypted <= msg.t_delivered
        read["cycles"] = len(msg.cycles)
        with pytest.raises(RuntimeError, match=IN_USE):
            _ = msg.is_last
        done.set()
        assert returned.wait(SOON)
        read["is_last"] = msg.is_last

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("hello")
        peer.close_handshake()

    returned = threading.Event()

    def receive() -> None:
        client.run()
        returned.set()

    with serve_both(script) as server:
        client = server.client(on_msg)
        client.connect()
        run_together(receive, look)
    assert read.pop("is_last") in (True, False)  # Whether the CLOSE came with it, or later.
    assert read == {
        "data": b"hello",
        "same view": True,
        "bytes": b"hello",
        "text": "hello",
        "size": 5,
        "ordered": True,
        "cycles": 3,
    }


@pytest.mark.parametrize("seed", range(4))
def test_a_reserved_place_is_given_back_by_another_thread(
    echo_server: ScriptServer, seed: int
) -> None:
    """The last slice goes there, while the owner tries to send."""
    random_ = random.Random(seed)
    given: queue.Queue[memoryview | None] = queue.Queue()
    client = echo_server.client(lambda msg: None)

    def let_go() -> None:
        while (view := given.get(timeout=SOON)) is not None:
            for _ in range(random_.randrange(200)):
                pass
            view.release()
            del view

    def send() -> None:
        sent = 0
        try:
            for _ in range(200):
                with pytest.raises(BufferError, match="still in use"):
                    with client.reserve(16, text=False) as view:
                        rest = view[8:]
                given.put(rest)
                del rest
                while True:
                    try:
                        client.send(b"through")
                    except RuntimeError as error:
                        assert str(error) == "a reservation is open"
                        time.sleep(0.0001)  # Lets the thread run that has the slice.
                    else:
                        sent += 1
                        break
        finally:
            given.put(None)
        assert sent == 200

    with client:
        run_together(send, let_go)


def test_a_client_goes_from_thread_to_thread(serve: Serve) -> None:
    """What one thread had of the last message keeps no place in the ring from the next thread.

    Without the GIL, the message that is lent again belongs to the thread that made it; and that
    thread stays alive here, and does nothing.
    """
    payload = payload_of(1, 992)
    turns, per_turn = 20, 200  # Many times as much as the ring holds.
    received = 0

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for _ in range(turns):
            peer.read_frame()
            peer.send(encode_frame(BINARY, payload) * per_turn)
        peer.answer_close()

    def on_msg(message: hftws.Message) -> None:
        nonlocal received
        received += 1
        assert message.data == payload

    over = threading.Event()
    threads = []
    with serve(script) as server:
        client = server.client(on_msg, ring_size=256 * 1024, max_message_size=16 * 1024)
        client.connect()

        def take_turn(turn: int, done: threading.Event) -> None:
            client.send(b"go on")
            while received < per_turn * (turn + 1):
                client.poll(SOON)
            done.set()
            over.wait(SOON)

        try:
            for turn in range(turns):
                done = threading.Event()
                thread = threading.Thread(target=take_turn, args=(turn, done), daemon=True)
                threads.append(thread)
                thread.start()
                assert done.wait(SOON), f"turn {turn}: {received} messages"
        finally:
            over.set()
            for thread in threads:
                thread.join(SOON)
        client.close()
    assert received == per_turn * turns


def test_a_client_ends_in_another_thread(serve_both: Serve) -> None:
    """The last reference to the client goes in one thread, its messages in two others."""
    kept: list[Any] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for number in range(300):
            peer.send_binary(payload_of(number, 100))
        peer.answer_close()

    with serve_both(script) as server:
        clients = [server.client(lambda msg: kept.append(msg.data))]
        clients[0].connect()
        while len(kept) < 300:
            clients[0].poll(SOON)
        clients[0].close()
        run_together(clients.clear, lambda: drop_half(kept), lambda: drop_half(kept))
    assert all(is_whole(bytes(view)) for view in kept)


def drop_half(kept: list[Any]) -> None:
    """Each of the two threads a quarter, to be exact."""
    for _ in range(len(kept) // 4):
        with contextlib.suppress(IndexError):
            assert is_whole(bytes(kept.pop()))


# ---- One client a thread. ----------------------------------------------------------------------


@pytest.mark.parametrize("threads_count", [2, 4])
def test_one_client_a_thread(serve_both: Serve, threads_count: int) -> None:
    """Each with its own feed, made, connected and run at the same time: every message arrives."""
    count = 3000
    received: list[list[int]] = [[] for _ in range(threads_count)]
    damaged: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        for block in range(0, count, 100):
            frames = (
                encode_frame(BINARY, payload_of(number, 8 + 37 * number % 1500))
                for number in range(block, block + 100)
            )
            peer.send(b"".join(frames))
        for _ in range(count // 10):
            assert is_whole(peer.expect_frame(BINARY).payload)
        peer.close_handshake()

    def receive(index: int, server: ScriptServer) -> None:
        def on_msg(msg: hftws.Message) -> None:
            data = bytes(msg.data)
            received[index].append(int(data[:8]))
            if not is_whole(data):
                damaged.append(data)
            if len(received[index]) % 10 == 0:
                client.send(data)

        client = server.client(on_msg)
        client.connect()
        client.run()

    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serve_both(script)) for _ in range(threads_count)]
        jobs = [lambda i=i, s=s: receive(i, s) for i, s in enumerate(servers)]
        run_together(*jobs)
    assert received == [list(range(count))] * threads_count
    assert damaged == []


FIRST_USE = """
import sys, threading
start = threading.Barrier(4)
made = []

def make():
    start.wait(20)
    import hftws
    secure = hftws.Client("wss://127.0.0.1:1/", verify=False, compression="deflate")
    made.append((hftws.Client, type(secure), secure))

threads = [threading.Thread(target=make) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(made) == 4 and len(set(type_ for _, type_, _ in made)) == 1, made
print("GIL" if getattr(sys, "_is_gil_enabled", lambda: True)() else "no GIL")
"""


def run_python(code: str, *arguments: str, **environment: str) -> str:
    """In a new interpreter, with the hftws of this one."""
    path = os.pathsep.join([str(Path(hftws.__file__).parents[1]), *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=SOON * 3,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("attempt", range(5))
def test_the_first_use_may_be_in_many_threads_at_once(attempt: int) -> None:
    """The import, and the libraries that are looked for with the first client that needs them."""
    assert run_python(FIRST_USE) == ("GIL\n" if GIL_ENABLED else "no GIL\n")


def test_the_extension_needs_nothing_that_the_interpreter_has_not() -> None:
    """A function that Zig could not translate from Python.h would be missed only when called."""
    run_python("import hftws", LD_BIND_NOW="1")


def test_the_module_may_be_imported_again() -> None:
    """As some test runners do. The types of the module stay the same."""
    run_python(
        "import sys, hftws._core as first\n"
        "for name in [name for name in sys.modules if name.startswith('hftws')]:\n"
        "    del sys.modules[name]\n"
        "import hftws._core as second\n"
        "assert first.ClientBase is second.ClientBase and first.Message is second.Message\n"
    )


#: Imports the module in a sub-interpreter; before that in the main one, if asked to.
SUB_INTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

IMPORT = (
    "import os\\n"
    "try:\\n"
    "    import hftws._core\\n"
    "except ImportError:\\n"
    "    os.write(1, b'refused ')\\n"
    "else:\\n"
    "    os.write(1, b'imported ')\\n"
)
if sys.argv[1:] == ["after"]:
    import hftws
for isolated in (True, False):
    if sys.version_info >= (3, 13):
        interpreter = interpreters.create("isolated" if isolated else "legacy")
    else:
        interpreter = interpreters.create(isolated=isolated)
    interpreters.run_string(interpreter, IMPORT)
    interpreters.destroy(interpreter)
"""


@pytest.mark.skipif(
    all(find_spec(name) is None for name in ("_interpreters", "_xxsubinterpreters")),
    reason="this CPython has no sub-interpreters that Python can make",
)
@pytest.mark.parametrize("arguments", [[], ["after"]])
def test_a_sub_interpreter_cannot_import_the_module(arguments: list[str]) -> None:
    """Its types, and the objects in them, belong to one interpreter."""
    assert run_python(SUB_INTERPRETER, *arguments) == "refused refused "


@pytest.mark.skipif(GIL_ENABLED, reason="this CPython has a GIL, and uses it")
def test_the_module_leaves_the_gil_off() -> None:
    """An extension that does not declare that it needs no GIL would switch it on (PEP 703)."""
    assert run_python("import sys, hftws; print(sys._is_gil_enabled())") == "False\n"
