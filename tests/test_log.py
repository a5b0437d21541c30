"""What the loggers tell, what they hide, and that no handler breaks a connection."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from frames import Inbox, Serve
from servers import Peer

import hftws

SECRET = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"


class Listener(logging.Handler):
    """Keeps records, and may do something at each."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.then: Callable[[logging.LogRecord], object] = lambda record: None

    def handle(self, record: logging.LogRecord) -> bool:
        """Not `emit`, whose exceptions the caller of that catches."""
        self.records.append(record)
        self.then(record)
        return True

    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def listener() -> Iterator[Listener]:
    logger = logging.getLogger("hftws")
    found = Listener()
    logger.addHandler(found)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.removeHandler(found)
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was reported instead of raised."""
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: found.append(report.exc_value))
    return found


def talk(peer: Peer) -> None:
    peer.accept_upgrade()
    peer.send_text("hello")
    peer.close_handshake(1001, "bye\nforged")


# ---- What is told. -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["direct", "openssl"])
def test_a_connection_over_tls(serve: Serve, listener: Listener, engine: str) -> None:
    """Each stage, with what was agreed on; and a second connection, which is resumed."""
    with serve([talk, talk], tls=True) as server:
        client = server.client(tls=engine)
        for resumed in (False, True):
            listener.records.clear()
            client.connect()
            info = client.info()
            client.run()
            url = f"[{server.url()}]"
            kind = "resumed" if resumed else "not resumed"
            tls = f"{info['tls_version']}, {info['cipher']}, {kind}, {engine} engine"
            assert listener.texts() == [
                f"connecting {url}",
                f"connected: {info['peer_address']} from {info['local_address']} {url}",
                f"TLS: {tls}, {info['tls_library']} {url}",
                f"open: HTTP 101, subprotocol none, extensions none {url}",
                f"ended by the server: code 1001, reason 'bye\\nforged' {url}",
            ]
    assert [record.levelname for record in listener.records] == [
        "DEBUG", "DEBUG", "DEBUG", "INFO", "INFO",
    ]  # fmt: skip


def test_what_was_agreed_on(serve: Serve, listener: Listener) -> None:
    def script(peer: Peer) -> None:
        extensions = ("Sec-WebSocket-Extensions", "permessage-deflate")
        peer.accept_upgrade(headers=[("Sec-WebSocket-Protocol", "v2"), extensions])
        peer.hang_up()

    with serve(script) as server:
        client = server.client(subprotocols=["v1", "v2"], compression="deflate")
        client.connect()
        with pytest.raises(hftws.ConnectionClosed):
            client.run()
    opened, ended = listener.texts()[-2:]
    assert opened.startswith("open: HTTP 101, subprotocol 'v2', extensions 'permessage-deflate' [")
    assert ended.startswith("ended by the server: code 1006, reason 'the peer closed the TCP")


def test_who_ended_it(serve: Serve, listener: Listener) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.answer_close()

    with serve(script) as server, server.client():
        pass
    assert listener.texts()[-1].startswith("ended by the client: code 1000, reason '' [")


def test_failures(serve: Serve, listener: Listener) -> None:
    """With the words of the exception; those of the server cannot begin a line."""

    def refuse(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")

    with serve(refuse) as server, pytest.raises(hftws.HandshakeError) as caught:
        server.client().connect()
    last = listener.records[-1]
    assert last.getMessage() == f"failed: HandshakeError: {caught.value}"
    assert last.levelname == "INFO"
    with pytest.raises(hftws.ConnectError) as refused:
        hftws.Client("ws://127.0.0.1:1/").connect()
    assert listener.texts()[-1] == f"failed: ConnectError: {refused.value}"


def test_a_get_is_told_too(serve: Serve, listener: Listener) -> None:
    def answer(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with serve(answer) as server:
        assert hftws.get(server.http_url()).status == 404
        url = server.http_url()
    first, second, third = listener.texts()
    assert first == f"connecting [{url}]"
    assert second.startswith("connected: 127.0.0.1:")
    assert third == f"answered: HTTP 404 [{url}]"


# ---- What is hidden. ---------------------------------------------------------------------------


def test_no_record_has_a_secret(serve: Serve, listener: Listener) -> None:
    """In the URL as in headers of both sides, whether it works or fails; also for GETs."""

    def accept(peer: Peer) -> None:
        peer.accept_upgrade(headers=[("Set-Cookie", f"session={SECRET}")])
        peer.hang_up()

    def refuse(peer: Peer) -> None:
        peer.read_request()
        head = f"HTTP/1.1 401 Unauthorized\r\nSet-Cookie: a={SECRET}\r\nContent-Length: 0\r\n\r\n"
        peer.send(head.encode())

    headers = {"Authorization": f"Bearer {SECRET}", "Cookie": f"a={SECRET}", "X-MBX-APIKEY": SECRET}
    target = f"/ws/{SECRET}?listenKey={SECRET}&token=shorttoken"
    with serve([accept, refuse, refuse]) as server:
        url = server.url(target)
        client = hftws.Client(url, headers=headers)
        client.connect()
        with pytest.raises(hftws.ConnectionClosed):
            client.run()
        with pytest.raises(hftws.HandshakeError):
            client.connect()
        hftws.get(url.replace("ws://", "http://"), headers=headers)
    assert len(listener.records) == 10
    told = "\n".join(f"{vars(record)} {record.getMessage()}" for record in listener.records)
    for secret in (SECRET, SECRET[:20], "shorttoken"):
        assert secret not in told
    assert "/ws/***?listenKey=***&token=***]" in told


# ---- Handlers. ---------------------------------------------------------------------------------


def test_a_handler_that_raises_breaks_nothing(
    serve_both: Serve, listener: Listener, unraisable: list[Any]
) -> None:
    """It is reported like an exception of a `__del__`, and everything else goes on."""
    inbox = Inbox()
    ends: list[int] = []

    def fail(record: logging.LogRecord) -> None:
        raise ZeroDivisionError(record.getMessage())

    listener.then = fail
    with serve_both([talk, lambda peer: peer.hang_up()]) as server:
        client = server.client(inbox, on_close=lambda client, code, reason: ends.append(code))
        client.connect()
        client.run()
        with pytest.raises(hftws.Error):
            client.connect()
    assert inbox.payloads == [b"hello"]
    assert ends == [1001]
    assert [type(error) for error in unraisable] == [ZeroDivisionError] * len(listener.records)
    assert listener.texts()[-1].startswith("failed: ")


def test_a_handler_cannot_use_the_client(serve_both: Serve, listener: Listener) -> None:
    """It would find the connection in the middle of a step. Looking is allowed."""
    refused: list[str] = []

    def use(record: logging.LogRecord) -> None:
        for call in (
            client.connect, client.run, client.poll, client.close, client.ping, client.info,
            lambda: client.send("x"), lambda: client.reserve(1, text=True).__enter__(),
        ):  # fmt: skip
            with pytest.raises(RuntimeError, match="a log handler cannot use the client"):
                call()
        refused.append(record.getMessage())
        client.stats()
        assert client.is_open == record.getMessage().startswith("open")

    inbox = Inbox()
    listener.then = use
    with serve_both(talk) as server:
        client = server.client(inbox)
        client.connect()
        client.run()
        client.close()
    assert inbox.payloads == [b"hello"]
    assert refused == listener.texts()
    assert len(refused) >= 4


def test_a_handler_may_use_another_client(serve_both: Serve, listener: Listener) -> None:
    inbox = Inbox()
    with serve_both([talk, talk]) as server:
        other = server.client(inbox)

        def use(record: logging.LogRecord) -> None:
            listener.then = lambda record: None
            other.connect()
            other.run()

        listener.then = use
        client = server.client(inbox)
        client.connect()
        client.run()
    assert inbox.payloads == [b"hello"] * 2


@pytest.mark.parametrize("stage", ["connecting", "connected", "open", "ended"])
def test_ctrl_c_in_a_handler_comes_out(serve: Serve, listener: Listener, stage: str) -> None:
    """Python runs the handlers of signals in the midst of any code. This one is not lost, and
    the client can be used again."""

    def interrupt(record: logging.LogRecord) -> None:
        if record.getMessage().startswith(stage):
            listener.then = lambda record: None
            os.kill(os.getpid(), signal.SIGINT)

    def script(peer: Peer) -> None:
        if stage in ("open", "ended"):
            talk(peer)
        else:  # The client goes away before it asks for anything.
            peer.server.stopping.wait()

    ends: list[int] = []
    with serve(script) as server:
        client = server.client(on_close=lambda client, code, reason: ends.append(code))
        listener.then = interrupt
        with pytest.raises(KeyboardInterrupt):
            client.connect()
            client.run()
        client.close()
        assert len(ends) == (stage in ("open", "ended"))
        assert not client.is_open


# ---- What it costs. ----------------------------------------------------------------------------


def test_logging_is_not_imported_for_nothing() -> None:
    """Nobody can listen in a program that has not imported it; importing it takes milliseconds."""
    program = (
        "import sys, hftws\n"
        "client = hftws.Client('ws://127.0.0.1:1/')\n"
        "try: client.connect()\n"
        "except hftws.ConnectError: pass\n"
        "assert 'logging' not in sys.modules\n"
        "assert 'hftws.log' not in sys.modules\n"
        "import logging\n"
        "try: client.connect()\n"
        "except hftws.ConnectError: pass\n"
        "assert logging.getLogger('hftws').handlers\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_program_without_handlers_hears_nothing(serve: Serve, caplog: Any) -> None:
    """Python's default level is WARNING, and no record has that."""
    with serve(talk) as server:
        client = server.client()
        client.connect()
        client.run()
    assert caplog.records == []


def test_a_module_of_the_same_name_breaks_nothing() -> None:
    """A program may have a logging.py of its own."""
    program = (
        "import sys, types\n"
        "sys.modules['logging'] = types.ModuleType('logging')\n"
        "import hftws\n"
        "try: hftws.Client('ws://127.0.0.1:1/').connect()\n"
        "except hftws.ConnectError: print('as ever')\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "as ever\n"
    assert "AttributeError" in run.stderr
