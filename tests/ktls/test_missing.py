"""A kernel that lacks something for kTLS: connecting says what, and nothing goes out in the open.

The rig boots kernels without the module ``tls``, and without the cipher ``gcm(aes)``.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trustme
from servers import Peer, Serve

import hftws

from .support import TLS_STAT, TlsStat, server_context


def lacks(request: pytest.FixtureRequest, module: str) -> None:
    """Skips the test unless the rig has left this module out."""
    if request.config.getoption("--ktls-without", None) != module:
        pytest.skip(f"this kernel was not booted without {module}")


def refusal(serve: Serve) -> str:
    """The error of connecting; at most the upgrade request has reached the server."""

    def script(peer: Peer) -> None:
        with contextlib.suppress(EOFError):
            peer.accept_upgrade()
            peer.expect_eof()

    with serve(script, tls=True) as server:
        client = server.client(tls="ktls")
        with pytest.raises(hftws.TLSError) as caught:
            client.connect()
        assert not client.is_open
    return str(caught.value)


def test_a_kernel_without_the_module(request: pytest.FixtureRequest, serve: Serve) -> None:
    lacks(request, "tls")
    assert not TLS_STAT.exists()
    text = refusal(serve)
    assert "kernel" in text and "module" in text and "tls" in text, text


def test_a_kernel_without_the_cipher(request: pytest.FixtureRequest, serve: Serve) -> None:
    """The kernel accepts the ULP and refuses the keys: the ULP alone proves nothing."""
    lacks(request, "gcm")
    stat = TlsStat()
    text = refusal(serve)
    assert "kernel" in text and "AES-256-GCM" in text, text
    stat.expect()


def test_another_cipher_of_a_kernel_without_one(
    request: pytest.FixtureRequest, serve: Serve, ca: trustme.CA
) -> None:
    lacks(request, "gcm")
    context = server_context(ca, "TLSv1.2")
    context.set_ciphers("ECDHE+CHACHA20")
    stat = TlsStat()
    assert hello(serve, "ktls", tls_context=context) == "ktls"
    stat.expect(TlsTxSw=1, TlsRxSw=1)


@pytest.mark.parametrize("engine", ["auto", "direct", "openssl"])
def test_the_other_engines_do_without(serve: Serve, engine: str) -> None:
    assert hello(serve, engine) == ("direct" if engine == "auto" else engine)


def hello(serve: Serve, tls: str, **options: Any) -> str:
    """Checks that a message arrives; returns the engine."""
    messages: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.send_text("hello")
        peer.close_handshake()

    with serve(script, tls=True, **options) as server:
        with server.client(lambda msg: messages.append(bytes(msg)), tls=tls) as client:
            engine = str(client.info()["engine"])
            client.run()
    assert messages == [b"hello"]
    return engine
