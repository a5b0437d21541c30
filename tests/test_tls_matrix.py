"""The servers of `tls_matrix`, each of them with both engines.

A row says how a server is made and what is expected; what is here connects, and looks.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import CLOSE, PEER_TIMEOUT, TEXT, close_payload, encode_frame
from tls_matrix import ROWS, Connects, Ends, Fails, Row, Workshop
from tls_matrix.__main__ import table
from tls_peers import (
    CollectingClient,
    Conversation,
    OpensslTls,
    Outcome,
    Stack,
    openssl_program,
)

import hftws

ENGINES = ["direct", "openssl"]
TABLE = Path(__file__).parents[1] / "docs" / "tls-servers.md"

#: Digits: openssl s_server takes some letters at the front of its input for commands.
PAYLOADS = [b"0123456789" * times for times in (1, 40, 2000)]

needs_openssl = pytest.mark.skipif(openssl_program() is None, reason="no openssl on this machine")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path_factory.mktemp("matrix"))
    yield workshop
    workshop.close()


def rows(*kinds: type) -> Any:
    """A test for each row of which this is expected."""
    chosen = [
        pytest.param(row, id=row.name, marks=[needs_openssl] * row.server.needs_openssl_program)
        for row in ROWS
        if isinstance(row.expected, kinds)
    ]
    return pytest.mark.parametrize("row", chosen)


over_engines = pytest.mark.parametrize("engine", ENGINES)


def client_of(workshop: Workshop, row: Row, engine: str, **changes: Any) -> CollectingClient:
    port = workshop.listener.sock.getsockname()[1]
    options = {"ca_file": workshop.ca_file, **row.client, **changes}
    options = {
        name: value(workshop) if callable(value) else value for name, value in options.items()
    }
    return CollectingClient(f"{row.scheme}://{row.host}:{port}/", tls=engine, **options)


def conversation_of(
    workshop: Workshop, row: Row, client: CollectingClient, number: int = 0
) -> Conversation:
    stack = row.server.make(workshop, number)
    return Conversation(workshop.listener, client, stack, before=row.before)


# ---- What is expected. -------------------------------------------------------------------------


def converse(row: Row, conversation: Conversation) -> None:
    """Messages of several sizes, both ways."""
    stack: Stack = conversation.stack
    for payload in PAYLOADS:
        frame = encode_frame(TEXT, payload)
        if isinstance(stack, OpensslTls):
            stack.server.write(frame)
            conversation.relay(lambda: conversation.messages)
            conversation.expect(payload)
        else:
            records = stack.seal(frame) if row.seal is None else row.seal(stack, frame)
            conversation.exchange(records, messages=[payload])
        conversation.hear(payload)


def part(conversation: Conversation) -> None:
    """The ordinary end: CLOSE both ways, and close_notify."""
    stack, frame = conversation.stack, encode_frame(CLOSE, close_payload(1000))
    if isinstance(stack, OpensslTls):
        stack.server.write(frame)
        conversation.relay(lambda: stack.has_said(rb"alert read:warning:close notify"))
        outcome = conversation.finish(hang_up=True)
    else:
        outcome = conversation.finish(stack.seal(frame), hang_up=True)
        assert outcome.alerts == ["close_notify"]
    assert (outcome.error, conversation.client.close_code) == ("ConnectionClosed", 1000)


def check_connection(row: Row, conversation: Conversation, engine: str, resumed: bool) -> None:
    expected = row.expected
    assert isinstance(expected, Connects)
    info = conversation.client.info()
    assert (info["tls_version"], info["cipher"]) == (expected.version, expected.cipher)
    assert (info["engine"], info["engine_reason"]) == (
        ("openssl", expected.engine_reason) if engine == "auto" else (engine, "")
    )
    assert (info["tls_resumed"], conversation.stack.resumed) == (resumed, resumed)
    converse(row, conversation)
    assert expected.holds(conversation.stack)
    part(conversation)


@over_engines
@rows(Connects)
def test_servers_that_are_understood(workshop: Workshop, engine: str, row: Row) -> None:
    expected = row.expected
    assert isinstance(expected, Connects)
    if expected.engine_reason and engine == "direct":
        check_that_it_says_so(workshop, row, expected.engine_reason)
        engine = "auto"
    client = client_of(workshop, row, engine)
    for number, resumed in enumerate(expected.resumed):
        conversation = conversation_of(workshop, row, client, number)
        try:
            conversation.connect()
            check_connection(row, conversation, engine, resumed)
        finally:
            conversation.close()


def check_that_it_says_so(workshop: Workshop, row: Row, reason: str) -> None:
    """With tls="direct" connecting fails rather than leave the records to another engine."""
    conversation = conversation_of(workshop, row, client_of(workshop, row, "direct"))
    try:
        with pytest.raises(hftws.TLSError) as caught:
            conversation.connect()
        assert caught.value.args[0] == f"the TLS handshake failed: {reason}"
    finally:
        conversation.close()


#: X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH: the exception has the names.
WRONG_NAME = (62, 64)


def check_words(found: str, expected: str) -> None:
    """Another OpenSSL than 3.0 may use other words, but not none."""
    if ssl.OPENSSL_VERSION_INFO[:2] == (3, 0) or "peer" in expected:
        assert found == expected
    else:
        prefix, _, _ = expected.rpartition(": ")
        assert found.startswith(prefix)
        assert len(found) > len(prefix)


@over_engines
@rows(Fails)
def test_servers_that_are_refused(workshop: Workshop, engine: str, row: Row) -> None:
    expected = row.expected
    assert isinstance(expected, Fails)
    # Behind the response the server waits for the test, and does not see that it should hang up.
    client = client_of(workshop, row, engine, close_timeout=0.1)
    conversation = conversation_of(workshop, row, client)
    try:
        with pytest.raises(hftws.Error) as caught:
            conversation.connect()
        if conversation.sock.fileno() >= 0:
            conversation.drain()
        assert type(caught.value).__name__ == expected.error
        message, _, names = caught.value.args[0].partition(": the certificate is for ")
        assert bool(names) == (expected.verify_code in WRONG_NAME)
        check_words(message, expected.message)
        assert getattr(caught.value, "verify_code", 0) == expected.verify_code
        assert conversation.stack.alerts == [expected.alert] * bool(expected.alert)
        assert not client.is_open
    finally:
        conversation.close()


UNVERIFIED = [
    pytest.param(row, id=row.name)
    for row in ROWS
    if isinstance(row.expected, Fails) and row.expected.connects_unverified
]


@pytest.mark.parametrize("row", UNVERIFIED)
def test_without_verification_no_certificate_is_refused(workshop: Workshop, row: Row) -> None:
    conversation = conversation_of(workshop, row, client_of(workshop, row, "auto", verify=False))
    try:
        conversation.connect()
        converse(row, conversation)
        part(conversation)
    finally:
        conversation.close()


def reset(conversation: Conversation) -> Outcome:
    """RST, and how it is reported."""
    linger = struct.pack("ii", 1, 0)
    conversation.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    conversation.sock.close()
    with pytest.raises(hftws.ConnectionClosed) as caught:
        while True:
            conversation.client.poll(PEER_TIMEOUT)
    return Outcome([], "ConnectionClosed", caught.value.reason, [])


@over_engines
@rows(Ends)
def test_servers_that_end_the_connection(workshop: Workshop, engine: str, row: Row) -> None:
    """What came before is delivered."""
    expected = row.expected
    assert isinstance(expected, Ends)
    conversation = conversation_of(workshop, row, client_of(workshop, row, engine))
    try:
        conversation.connect()
        info = conversation.client.info()
        assert (info["tls_version"], info["engine"]) == (expected.version, engine)
        converse(row, conversation)
        stack = conversation.stack
        last = stack.seal(encode_frame(TEXT, b"good")) + expected.make(stack)
        if expected.hang_up == "RST":
            conversation.exchange(last, messages=[b"good"])
            outcome = reset(conversation)
        else:
            outcome = conversation.finish(last, hang_up=expected.hang_up == "FIN")
            assert outcome.messages == [b"good"]
        assert outcome.error == expected.error
        reason = (engine == "openssl" and expected.openssl_reason) or expected.reason
        check_words(outcome.reason, reason)
        assert outcome.alerts == [expected.alert] * bool(expected.alert)
    finally:
        conversation.close()


# ---- The table. --------------------------------------------------------------------------------


def test_no_two_rows_have_the_same_name() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)


def test_the_table_is_that_of_the_rows() -> None:
    """`PYTHONPATH=tests python -m tls_matrix > docs/tls-servers.md` makes it."""
    if not TABLE.parent.exists():
        pytest.skip("no docs in this distribution")
    assert TABLE.read_text(encoding="utf-8") == table()
