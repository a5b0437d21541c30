"""Which cipher suites are offered, and the option that changes them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from servers import Peer, Serve

import hftws

GCM_128, GCM_256, CHACHA20 = 0x1301, 0x1302, 0x1303
RENEGOTIATION_INFO = 0x00FF  # No suite: RFC 5746, section 3.3.

#: RFC 5289 and RFC 7905, in the client's order.
DEFAULT_1_2 = [0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8]


def offer(serve: Serve, **options: Any) -> list[int]:
    """The suites in the ClientHello, in their order."""
    hellos: list[bytes] = []

    def script(peer: Peer) -> None:
        size = int.from_bytes(peer.recv_exactly(5)[3:], "big")
        hellos.append(peer.recv_exactly(size))

    with serve(script) as server:
        with pytest.raises(hftws.TLSError):
            server.client(url=server.url("/", "wss"), **options).connect()
    sessions = 4 + 2 + 32  # Type and length, version, random.
    start = sessions + 1 + hellos[0][sessions]
    size = int.from_bytes(hellos[0][start : start + 2], "big")
    body = hellos[0][start + 2 : start + 2 + size]
    suites = [int.from_bytes(body[place : place + 2], "big") for place in range(0, size, 2)]
    return [suite for suite in suites if suite != RENEGOTIATION_INFO]


def test_only_aeads_with_forward_secrecy_are_offered(serve: Serve) -> None:
    """RFC 9325, section 4.2; and AES-128-GCM first, the cheapest."""
    assert offer(serve) == [GCM_128, GCM_256, CHACHA20, *DEFAULT_1_2]


@pytest.mark.parametrize(
    ("ciphers", "suites"),
    [
        ("TLS_AES_256_GCM_SHA384", [GCM_256, *DEFAULT_1_2]),
        ("ECDHE-RSA-AES128-SHA256", [GCM_128, GCM_256, CHACHA20, 0xC027]),
        (
            "ECDHE-RSA-AES256-GCM-SHA384:TLS_CHACHA20_POLY1305_SHA256:ECDHE-RSA-AES128-GCM-SHA256",
            [CHACHA20, 0xC030, 0xC02F],
        ),
        ("ECDHE+AESGCM:!AES128:TLS_AES_256_GCM_SHA384", [GCM_256, 0xC02C, 0xC030]),
    ],
)
def test_a_list_replaces_the_default_of_its_versions(
    serve: Serve, ciphers: str, suites: list[int]
) -> None:
    assert offer(serve, ciphers=ciphers) == suites


def test_suites_without_a_certificate_are_never_offered(serve: Serve) -> None:
    """With them anybody could be the server, whatever ``verify`` says."""
    ciphers = "aNULL:ECDHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0"
    assert offer(serve, ciphers=ciphers) == [GCM_128, GCM_256, CHACHA20, 0xC02F]
    with pytest.raises(ValueError, match=r"^ciphers cannot be used: no cipher match"):
        hftws.Client("wss://example.com/", ciphers="aNULL")


@pytest.mark.parametrize(
    ("ciphers", "name"),
    [
        ("ECDHE-RSA-AES128-GCM-SHA265", "ECDHE-RSA-AES128-GCM-SHA265"),
        ("ECDHE-RSA-AES128-GCM-SHA256:nonsense", "nonsense"),
        ("TLS_AES_128_GCM_SHA256,TLS_NONSENSE", "TLS_NONSENSE"),
        ("Grüße", r"Gr\\xc3\\xbc\\xc3\\x9fe"),
    ],
)
def test_a_name_that_is_unknown_is_an_error_that_shows_it(ciphers: str, name: str) -> None:
    """OpenSSL would ignore it, as long as another one is known."""
    for make in (hftws.Client, hftws.get):
        scheme = "wss" if make is hftws.Client else "https"
        with pytest.raises(ValueError, match=rf"^ciphers: '{name}' is no cipher suite that .*SSL"):
            make(f"{scheme}://127.0.0.1:1/", ciphers=ciphers)  # type: ignore[operator]


@pytest.mark.parametrize("ciphers", ["", " ", ":", "x\0", "A:" * 2049 + "A"])
def test_a_list_that_names_nothing_or_too_much(ciphers: str) -> None:
    with pytest.raises(ValueError, match=r"^ciphers has"):
        hftws.Client("wss://example.com/", ciphers=ciphers)


@pytest.mark.parametrize("ciphers", [5, b"ECDHE-RSA-AES128-GCM-SHA256", ["x"]])
def test_a_list_that_is_no_text(ciphers: Any) -> None:
    with pytest.raises(TypeError, match=r"^ciphers has to be a str or None, not"):
        hftws.Client("wss://example.com/", ciphers=ciphers)


def test_an_operation_that_is_none_says_why() -> None:
    with pytest.raises(ValueError, match=r"^ciphers cannot be used: "):
        hftws.Client("wss://example.com/", ciphers="ECDHE+AESGCM:@NONSENSE")


def test_the_default_is_none() -> None:
    for callable_ in (hftws.Client, hftws.get):
        assert inspect.signature(callable_).parameters["ciphers"].default is None
