"""A network that errs: bits are flipped, connections are cut. The server is Python's ssl."""

from __future__ import annotations

import contextlib
import ssl

import pytest
import trustme
from fault_proxy import Fault, FaultProxy, Plan, Record, Step
from frames import Inbox, poll_until
from servers import Peer, Serve
from test_tls_engines import EOF_REASON

import hftws

from .support import FlippingProxy, TlsStat, needs_ktls, server_context

pytestmark = needs_ktls

VERSIONS = ["TLSv1.2", "TLSv1.3"]

#: Behind the handshake, whose records are counted on a connection without faults.
COUNT = 20


def feed(peer: Peer) -> None:
    """A message in each record, and one large one in three."""
    peer.accept_upgrade()
    with contextlib.suppress(OSError, EOFError):
        for number in range(COUNT):
            peer.send_text(f"message {number}")
        peer.send_binary(bytes(40_000))
        peer.answer_close()


def records_of_the_handshake(tls_serve: Serve, engine: str, context: ssl.SSLContext) -> int:
    """The records that reach the client before its first message."""
    inbox = Inbox()
    counting = Plan(to_client=(Step(Record(1000), Fault.CUT),))
    with tls_serve(feed, tls_context=context) as server:
        with FaultProxy(server.port, counting) as proxy:
            client = server.client(inbox, tls=engine, url=f"wss://127.0.0.1:{proxy.port}/")
            client.connect()
            poll_until(client, lambda: len(inbox.messages) == COUNT + 1)
            records = len(proxy.records[0]) - 1  # With the end of the last one.
            client.close()
    return records - COUNT - 3


def run_to_its_end(client: hftws.Client) -> hftws.Error:
    """How the connection ended."""
    with pytest.raises(hftws.Error) as caught:
        client.connect()
        client.run()
    return caught.value


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("number", "offset"), [(0, 5), (3, -1), (7, 13), (20, 9000), (21, -1)])
def test_nothing_of_a_record_with_a_flipped_bit_is_delivered(
    tls_serve: Serve,
    ca: trustme.CA,
    engine: str,
    stat: TlsStat,
    version: str,
    number: int,
    offset: int,
) -> None:
    """The 20th record is the first of a large message."""
    context, inbox = server_context(ca, version), Inbox()
    before = records_of_the_handshake(tls_serve, engine, context)
    with tls_serve(feed, tls_context=context) as server:
        with FlippingProxy(server.port, before + number, offset, to_client=True) as proxy:
            client = server.client(inbox, tls=engine, url=f"wss://127.0.0.1:{proxy.port}/")
            error = run_to_its_end(client)
            assert proxy.flipped.is_set()
    assert isinstance(error, hftws.TLSError)
    assert error.reason == "decryption failed or bad record mac"
    expected = [b"message %d" % index for index in range(min(number, COUNT))]
    assert inbox.payloads == expected
    assert (stat.counted()["TlsDecryptError"] > 0) == (engine == "ktls")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_sees_that_a_bit_of_ours_was_flipped(
    tls_serve: Serve, ca: trustme.CA, engine: str, version: str
) -> None:
    """The server rejects a changed record of the kernel's, and the client reports its alert."""
    errors: list[ssl.SSLError] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("go on")
        try:
            peer.read_frame()
        except ssl.SSLError as error:
            errors.append(error)

    def on_msg(msg: hftws.Message) -> None:
        client.send("an order")

    # The client's records: ClientHello, (ClientKeyExchange,) ChangeCipherSpec, Finished, request.
    ours = {"TLSv1.2": 5, "TLSv1.3": 4}[version]
    with tls_serve(script, tls_context=server_context(ca, version)) as server:
        with FlippingProxy(server.port, ours, -1, to_client=False) as proxy:
            client = server.client(on_msg, tls=engine, url=f"wss://127.0.0.1:{proxy.port}/")
            error = run_to_its_end(client)
            assert proxy.flipped.is_set()
    assert len(errors) == 1
    assert isinstance(error, hftws.TLSError)
    assert error.reason == "alert from the peer: bad_record_mac"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("fault", [Fault.CUT, Fault.RESET])
@pytest.mark.parametrize(("number", "offset"), [(0, 0), (2, 1), (5, 5), (9, -1), (21, 8000)])
def test_a_cut_is_not_an_end(
    tls_serve: Serve,
    ca: trustme.CA,
    engine: str,
    version: str,
    fault: Fault,
    number: int,
    offset: int,
) -> None:
    """What came in whole records is delivered. What was cut is not, and the error says so."""
    context, inbox = server_context(ca, version), Inbox()
    before = records_of_the_handshake(tls_serve, engine, context)
    plan = Plan(to_client=(Step(Record(before + number, offset), fault),))
    with tls_serve(feed, tls_context=context) as server:
        with FaultProxy(server.port, plan) as proxy:
            client = server.client(inbox, tls=engine, url=f"wss://127.0.0.1:{proxy.port}/")
            error = run_to_its_end(client)
            assert proxy.faults[fault] == 1
    assert isinstance(error, hftws.ConnectionClosed)
    assert error.code == 1006
    if fault is Fault.CUT:
        assert error.reason == EOF_REASON
        assert inbox.payloads == [b"message %d" % index for index in range(min(number, COUNT))]
    else:  # What was read before the reset came; a part of the messages.
        expected = [b"message %d" % index for index in range(number)]
        assert inbox.payloads == expected[: len(inbox.payloads)]
