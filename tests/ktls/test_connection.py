"""A connection whose keys the kernel has: how it opens, what info() says, how it closes."""

from __future__ import annotations

import pytest
import trustme
from frames import SOON, Inbox, connected, receive
from servers import Peer, Serve
from test_tls_engines import over_all
from test_types import check_client
from tls_peers import Suite

import hftws

from .support import KernelBed, TlsStat, needs_ktls

pytestmark = needs_ktls


@over_all
def test_the_kernel_has_the_keys_of_both_directions(
    bed: KernelBed, engine: str, stat: TlsStat, suite: Suite
) -> None:
    """As long as the connection is open. We ask the kernel's counters, not the client."""
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        stat.expect(TlsTxSw=1, TlsRxSw=1, TlsCurrTxSw=1, TlsCurrRxSw=1)
        conversation.exchange(conversation.text(b"hello"), messages=[b"hello"])
        conversation.hear(b"and you")
    stat.expect_connections()


@over_all
def test_info_names_the_kernel(bed: KernelBed, engine: str, suite: Suite) -> None:
    in_kernel = engine == "ktls"
    with bed.converse(bed.lite(suite), engine) as conversation:
        info, _ = check_client(conversation.client)
        assert (info["engine"], info["engine_reason"]) == (engine, "")
        assert (info["tls_version"], info["cipher"]) == (suite.version, suite.cipher)
        assert info["ktls_sending"] is info["ktls_receiving"] is in_kernel
        assert ("kernel" in info["aead"]) == in_kernel


def test_info_without_tls(serve: Serve, engine: str, stat: TlsStat) -> None:
    """The option selects what opens TLS records. Without TLS, it has no effect."""
    with connected(serve, tls=engine) as (client, _):
        info = client.info()
        assert info["engine"] is info["ktls_sending"] is info["ktls_receiving"] is None
    stat.expect()


@pytest.mark.parametrize("other", ["auto", "direct", "openssl"])
def test_other_engines_leave_the_kernel_alone(tls_serve: Serve, stat: TlsStat, other: str) -> None:
    inbox = Inbox()
    with connected(tls_serve, inbox, tls=other) as (client, peer):
        info = client.info()
        assert info["engine"] == ("direct" if other == "auto" else other)
        assert info["ktls_sending"] is info["ktls_receiving"] is False
        peer.send_text("hello")
        receive(client, inbox, 1)
    assert stat.counted() == {}


@pytest.mark.parametrize("timestamps", ["software", "hardware", "none"])
def test_the_kernel_stamps_nothing(tls_serve: Serve, engine: str, timestamps: str) -> None:
    """The kernel loses its stamp of a segment with the record's cover. Our own stamps are there."""
    stamps = []
    arrivals = []

    def on_msg(msg: hftws.Message) -> None:
        stamps.append((msg.t_kernel, msg.t_received, msg.t_decrypted, msg.t_delivered))
        arrivals.append((msg.t_kernel_exact, msg.t_earliest))

    with connected(tls_serve, on_msg, timestamps=timestamps, tls=engine) as (client, peer):
        assert client.info()["kernel_stamp_source"] == "none" or engine != "ktls"
        for _ in range(3):
            peer.send_text("tick")
            assert client.poll(SOON) == 1
    for kernel, received, decrypted, delivered in stamps:
        assert kernel is None or engine != "ktls"
        if timestamps == "none":
            assert received is decrypted is delivered is None
        else:
            assert received <= decrypted <= delivered
    for exact, earliest in arrivals:
        assert not exact or engine != "ktls"
        assert earliest is None or (engine != "ktls" and timestamps != "none")


def test_a_client_connects_again_and_again(tls_serve: Serve, engine: str, stat: TlsStat) -> None:
    """Nothing of a connection stays in the kernel."""

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("hello")
        peer.answer_close()

    inbox = Inbox()
    with tls_serve(script) as server:
        client = server.client(inbox, tls=engine)
        for count in range(1, 21):
            client.connect()
            receive(client, inbox, count)
            client.close()
    stat.expect_connections(20)


def test_two_connections_do_not_share_keys(tls_serve: Serve, engine: str, stat: TlsStat) -> None:
    first, second = Inbox(), Inbox()
    with (
        connected(tls_serve, first, tls=engine) as (one, one_peer),
        connected(tls_serve, second, tls=engine) as (two, two_peer),
    ):
        for number in range(20):
            one_peer.send_text(f"one {number}")
            two_peer.send_text(f"two {number}")
            one.send(f"from one {number}")
            two.send(f"from two {number}")
            receive(one, first, number + 1)
            receive(two, second, number + 1)
            assert one_peer.read_frame().payload == b"from one %d" % number
            assert two_peer.read_frame().payload == b"from two %d" % number
    assert first.payloads == [b"one %d" % number for number in range(20)]
    assert second.payloads == [b"two %d" % number for number in range(20)]
    stat.expect_connections(2)


def test_a_certificate_is_checked_before_any_key_is_given_away(
    tls_serve: Serve, engine: str, stat: TlsStat
) -> None:
    """The handshake is OpenSSL's, in user space."""
    stranger = trustme.CA()
    with tls_serve(lambda peer: None) as server, stranger.cert_pem.tempfile() as ca_file:
        with pytest.raises(hftws.TLSError) as caught:
            server.client(tls=engine, ca_file=ca_file).connect()
    assert caught.value.verify_code != 0
    stat.expect()
