"""Which TLS sessions are resumed, and which never again, with a server in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libssls
import pytest
import trustme
from servers import PATIENCE, PEER_TIMEOUT

import hftws

VERSIONS = ["TLSv1_2", "TLSv1_3"]
ENGINES = ["direct", "openssl"]

#: What a server does when it sees the offer of a session.
WAYS = ["hang up", "reset", "alert", "garbage", "half an answer"]


class SessionServer:
    """The program `session_server.py`."""

    def __init__(self, file: Path, version: str, *options: str) -> None:
        program = Path(__file__).with_name("session_server.py")
        command = [sys.executable, str(program), str(file), version, *options]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        #: The numbers of all tickets that were shown to it, where they have numbers.
        self.shown: list[int] = []
        self.url = f"wss://127.0.0.1:{int(self.output.readline())}/"

    def tell(self, command: str) -> None:
        """What it does with the next connection."""
        print(command, file=self.input, flush=True)

    def hear(self) -> tuple[bool, bool]:
        """Of the last connection: whether a session was offered, and whether it was resumed."""
        result = json.loads(self.output.readline())
        self.shown = result.get("shown", [])
        return result["offered"], result["resumed"]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def server_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sessions") / "server.pem"
    certificate = ca.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(file)
    return file


@pytest.fixture(params=VERSIONS)
def server(server_file: Path, request: pytest.FixtureRequest) -> Iterator[SessionServer]:
    server = SessionServer(server_file, request.param)
    yield server
    server.close()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def client_of(server: SessionServer, ca_file: Path, engine: str, **options: Any) -> hftws.Client:
    merged = {"connect_timeout": PEER_TIMEOUT, "ca_file": ca_file, "tls": engine, **options}
    return hftws.Client(server.url, lambda msg: None, **merged)


def visit(client: hftws.Client, server: SessionServer, command: str = "serve") -> tuple[bool, bool]:
    """An ordinary connection, that ends in the ordinary way."""
    server.tell(command)
    client.connect()
    client.run()
    assert client.close_code == 1000
    return server.hear()


def fail(client: hftws.Client, server: SessionServer, command: str) -> None:
    """A connection that ends badly, whenever that is."""
    server.tell(command)
    with pytest.raises(hftws.Error):
        client.connect()
        while True:
            client.poll(PEER_TIMEOUT)


@pytest.mark.parametrize("way", WAYS)
def test_a_session_that_breaks_the_handshake_is_not_offered_again(
    server: SessionServer, ca_file: Path, engine: str, way: str
) -> None:
    """The next attempt connects, as that of a new client would."""
    client, command = client_of(server, ca_file, engine), f"at an offer: {way}"
    assert visit(client, server) == (False, False)
    fail(client, server, command)
    assert server.hear() == (True, False)
    assert visit(client, server, command) == (False, False)
    assert visit(client, server) == (True, True)


def test_a_session_that_the_server_answers_with_silence_is_not_offered_again(
    server: SessionServer, ca_file: Path
) -> None:
    client = client_of(server, ca_file, "direct", connect_timeout=1.5 * PATIENCE)
    assert visit(client, server) == (False, False)
    server.tell("at an offer: stall")
    with pytest.raises(hftws.ConnectTimeout):
        client.connect()
    assert server.hear() == (True, False)
    assert visit(client, server, "at an offer: stall") == (False, False)


@pytest.mark.parametrize("command", ["bad record", "alert"])
def test_no_session_survives_a_fatal_alert(
    server: SessionServer, ca_file: Path, engine: str, command: str
) -> None:
    """Neither one that we send nor one that comes (RFC 5246, section 7.2.2; RFC 8446, 6.2)."""
    client = client_of(server, ca_file, engine)
    for resumed in (False, True):
        if resumed:
            assert visit(client, server) == (False, False)
        fail(client, server, command)
        assert server.hear() == (resumed, resumed)
    assert visit(client, server) == (False, False)


def test_what_ends_without_an_alert_is_resumed(
    server: SessionServer, ca_file: Path, engine: str
) -> None:
    client = client_of(server, ca_file, engine)
    for round_ in range(4):
        assert visit(client, server) == (round_ > 0, round_ > 0)


def test_a_ticket_that_is_renewed_as_it_is_used_takes_the_place_of_the_old_one(
    server_file: Path, ca_file: Path, engine: str
) -> None:
    """RFC 5077, section 3.3: such a server will soon forget the key of the old one."""
    libssls.machines_libssl()  # Its calls are needed.
    server = SessionServer(server_file, "TLSv1_2", "numbered")
    try:
        client = client_of(server, ca_file, engine)
        assert visit(client, server) == (False, False)
        for count in (1, 2, 3):
            assert visit(client, server) == (True, True)
            assert server.shown == list(range(1, count + 1))
        for _ in range(2):  # What is not renewed is kept.
            assert visit(client, server, "keep") == (True, True)
        assert server.shown == [1, 2, 3, 4, 4]
    finally:
        server.close()
