"""What README.md shows works: its code is run as it stands there."""

from __future__ import annotations

import asyncio
import os
import re
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from frames import SOON
from servers import PATIENCE, PEER_TIMEOUT, TEXT, Peer, Serve, encode_frame

import hftws

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
#: Seconds in which another process has done its work.
START_TIMEOUT = 30.0 * PATIENCE
#: More than the buffers of a connection over the loopback hold while nobody reads.
LARGE = 16 * 2**20


def python_block(word: str) -> str:
    """The one block of code with this word in it."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if word in block)
    return str(block)


#: Each `name=value, name=value` of the text. Names in capitals are environment variables.
OPTIONS = re.findall(r"`([a-z_]+=[^`]+)`", README)


# ---- What it shows of the client. --------------------------------------------------------------


def test_the_readme_shows_options() -> None:
    assert len(OPTIONS) >= 5
    assert any("send_ring_size" in options for options in OPTIONS)


@pytest.mark.parametrize("options", OPTIONS)
def test_options_of_the_readme_are_taken(options: str) -> None:
    hftws.Client("wss://example.com/", **eval(f"dict({options})"))


def test_the_first_example_runs(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        assert "btcusdt@trade" in peer.accept_upgrade().target
        peer.send_text('{"p":"1"}')
        peer.close_handshake()

    with serve(script) as server:
        code, count = re.subn(
            r"wss://[^/]+", server.url("").rstrip("/"), python_block("client.run")
        )
        assert count == 1
        names: dict[str, Any] = {}
        exec(code, names)
    assert names["client"].close_code == 1000
    assert names["client"].stats()["messages"] == 1


def test_the_exchange_is_launched_as_shown() -> None:
    """In a process that has imported nothing else from hftws."""
    statements = re.findall(r"`((?:import|with) hftws\.exchange[^`]*)`", README)
    code = "\n".join(statements)
    assert "launch()" in code
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", f"import hftws\n{code}"],
        env=environment,
        check=True,
        timeout=START_TIMEOUT,
    )


# ---- asyncio. ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def feed_class() -> Any:
    """The class of the recipe for asyncio."""
    names: dict[str, Any] = {}
    exec(python_block("add_reader"), names)
    return names["Feed"]


async def until_ended(feed: Any) -> None:
    """Waits for the end; if none came, the peer would have given up long before."""
    try:
        await asyncio.wait_for(feed.ended, 4 * PEER_TIMEOUT)
    finally:
        feed.detach()


def test_asyncio_recipe_receives_all_and_says_how_it_ended(
    serve_both: Serve, feed_class: Any
) -> None:
    """The first messages come in one write with the server's answer, the others much later."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade(then=encode_frame(TEXT, b"1") + encode_frame(TEXT, b"2"))
        peer.expect_frame(TEXT, b"got 2")
        peer.send_text("3")
        peer.expect_frame(TEXT, b"got 3")
        peer.close_handshake(4000, "enough")

    received: list[bytes] = []

    def on_msg(msg: hftws.Message) -> None:
        received.append(bytes(msg))
        if msg.data != b"1":
            client.send(f"got {msg}")

    async def main() -> None:
        client.connect()
        await until_ended(feed_class(client))

    with serve_both(script) as server:
        client = server.client(on_msg)
        with pytest.raises(hftws.ConnectionClosed, match="enough"):
            asyncio.run(main())
    assert received == [b"1", b"2", b"3"]


def test_asyncio_recipe_tells_of_an_ordinary_end(serve_both: Serve, feed_class: Any) -> None:
    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.close_handshake(1000, "bye")

    async def main() -> None:
        client.connect()
        await until_ended(feed_class(client))

    with serve_both(script) as server:
        client = server.client()
        with pytest.raises(hftws.ConnectionClosed, match="bye"):
            asyncio.run(main())


class Paused:
    """A client whose program does not run from the peer's CLOSE until the peer has hung up."""

    def __init__(self, client: hftws.Client) -> None:
        self.client, self.paused = client, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def poll(self) -> int:
        if not self.client.is_open and not self.paused:
            self.paused = True
            assert select.select([self.client], [], [], SOON)[0] == [self.client]
        return self.client.poll()


def test_asyncio_recipe_tells_of_an_end_that_comes_between_two_polls(
    serve: Serve, feed_class: Any
) -> None:
    """The program comes late: everything has happened, and the descriptor still tells."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.close_handshake(1000, "bye")

    async def main() -> None:
        client.connect()
        await until_ended(feed_class(Paused(client)))

    with serve(script) as server:
        client = server.client()
        with pytest.raises(hftws.ConnectionClosed, match="bye"):
            asyncio.run(main())


def test_asyncio_recipe_sends_what_the_socket_did_not_take(
    serve_both: Serve, feed_class: Any
) -> None:
    """Nothing is received meanwhile: only a writable socket can wake the loop."""
    sent = threading.Event()
    payload = bytes(range(256)) * (LARGE // 256)
    read: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.wait(sent)
        read.append(peer.read_frame().payload)
        peer.close_handshake(4000, "got it")

    async def main() -> None:
        client.connect()
        feed = feed_class(client)
        client.send(payload)
        assert client.wants_write
        sent.set()
        await until_ended(feed)

    with serve_both(script) as server:
        client = server.client(send_ring_size=2 * LARGE)
        with pytest.raises(hftws.ConnectionClosed, match="got it"):
            asyncio.run(main())
    assert read == [payload]


def test_asyncio_recipe_gives_what_on_msg_raised(serve_both: Serve, feed_class: Any) -> None:
    """The connection is unchanged, and the rest of the messages can still be received."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade(then=encode_frame(TEXT, b"bad") + encode_frame(TEXT, b"good"))
        peer.answer_close()

    received: list[bytes] = []

    def on_msg(msg: hftws.Message) -> None:
        if msg.data == b"bad":
            raise LookupError("mine")
        received.append(bytes(msg))

    async def main() -> None:
        with client:
            with pytest.raises(LookupError, match="mine"):
                await until_ended(feed_class(client))
            assert client.is_open
            feed = feed_class(client)
            while not received:
                await asyncio.wait_for(asyncio.sleep(0.001), SOON)
            assert received == [b"good"]
            feed.detach()

    with serve_both(script) as server:
        client = server.client(on_msg)
        asyncio.run(main())
