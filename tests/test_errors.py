"""What an exception says: the option or call, the value, what is allowed, and the URL."""

from __future__ import annotations

import functools
import os
import socket
import ssl
import subprocess
import sys
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme
from frames import Inbox, connected, poll_until, wait_until_arrived, wait_until_reset
from servers import TEXT, Peer, Serve, encode_frame

import hftws

URL = "ws://example.com/"


ErrorT = TypeVar("ErrorT", bound=BaseException)


def raised(error: type[ErrorT], call: Callable[[], object]) -> ErrorT:
    """The exception."""
    with pytest.raises(error) as caught:
        call()
    return caught.value


def said_by(error: type[BaseException], call: Callable[[], object]) -> str:
    """What the exception says."""
    return str(raised(error, call))


# ---- Options. ----------------------------------------------------------------------------------

#: Option, value, exception, what it says.
REFUSED: list[tuple[str, Any, type[Exception], str]] = [
    ("connect_timeout", None, TypeError, "connect_timeout has to be a number, not None"),
    ("connect_timeout", "5", TypeError, "connect_timeout has to be a number, not '5'"),
    ("connect_timeout", -1, ValueError, "connect_timeout has to be 0 or more seconds, not -1.0"),
    ("close_timeout", None, TypeError, "close_timeout has to be a number, not None"),
    ("close_timeout", float("nan"), ValueError, "close_timeout has to be 0 or more seconds"),
    ("peer_timeout", "5", TypeError, "peer_timeout has to be a number of seconds or None, not '5'"),
    ("peer_timeout", 0.5, ValueError, "peer_timeout has to lie between 1 and 86400 seconds"),
    ("ciphers", 5, TypeError, "ciphers has to be a str or None, not int"),
    ("max_message_size", None, TypeError, "max_message_size has to be an int, not None"),
    ("max_message_size", 1.5, TypeError, "max_message_size has to be an int, not 1.5"),
    ("max_message_size", 3, ValueError, "max_message_size has to lie between 125 and"),
    ("ring_size", "8", TypeError, "ring_size has to be an int, not '8'"),
    ("ring_size", 2**100, ValueError, f"ring_size has to be a smaller number, not {2**100}"),
    ("send_ring_size", 5, ValueError, "send_ring_size has to lie between"),
    ("receive_buffer_size", -1, ValueError, "receive_buffer_size has to lie between 0 and"),
    ("send_buffer_size", None, TypeError, "send_buffer_size has to be an int, not None"),
    ("socket_busy_poll_us", b"", TypeError, "socket_busy_poll_us has to be an int, not b''"),
    ("mask", "ones", ValueError, "mask has to be one of 'random' 'zero', not 'ones'"),
    ("mask", 0, TypeError, "mask has to be a str, not 0"),
    ("mask", None, ValueError, "mask has to be one of 'random' 'zero', not None"),
    ("timestamps", "off", ValueError, "'none' 'software' 'hardware', not 'off'"),
    ("tls", "rustls", ValueError, "'openssl', not 'rustls'"),
    ("tls", 1, ValueError, "'openssl', not 1"),
    ("local_address", "eth0", ValueError, "local_address has to be an IP address, not 'eth0'"),
    ("local_address", 5, TypeError, "local_address has to be a str, not 5"),
    ("local_address", "::1\0", ValueError, "local_address holds a null character"),
    ("interface", 5, TypeError, "interface has to be a str, not 5"),
    ("server_name", ".a.b", ValueError, "server_name has to be the name of a host, not '.a.b'"),
    ("server_name", b"a", TypeError, "server_name has to be a str, not b'a'"),
    ("headers", ["a: b"], TypeError, "item 0 of headers has to be a pair (name, value), not a str"),
    ("headers", "a: b", TypeError, "headers has to be a mapping or pairs (name, value), not a str"),
    ("headers", 5, TypeError, "headers has to be a mapping or pairs (name, value), not an int"),
    ("headers", ["ab"], TypeError, "item 0 of headers has to be a pair"),
    ("headers", [("a", "b"), ("c",)], ValueError, "item 1 of headers has to be a pair"),
    ("headers", [("a", "b"), 5], TypeError, "item 1 of headers has to be a pair"),
    ("headers", {"Upgrade": "h2"}, ValueError, "the header 'Upgrade' is one that the client sets"),
    ("headers", {"X-A": "a\n"}, ValueError, "the value of the header 'X-A' holds a character"),
    ("headers", {"X A": "a"}, ValueError, "the name of the header 'X A' holds a character"),
    ("headers", {"": "a"}, ValueError, "the name of a header is empty"),
    ("subprotocols", None, TypeError, "subprotocols has to be a sequence of str, not None"),
    ("subprotocols", "v1", TypeError, "subprotocols has to be a sequence of str, not 'v1'"),
    ("subprotocols", ["a", "a b"], ValueError, "'a b' in subprotocols holds a character"),
    ("subprotocols", ["a", ""], ValueError, "subprotocols has an empty name"),
    ("subprotocols", ["a", "b", "a"], ValueError, "'a' is in subprotocols more than once"),
    ("compression", "gzip", ValueError, "'deflate', a Deflate or None, not 'gzip'"),
    ("compression", hftws.Deflate(level=12), ValueError, "Deflate.level has to lie between 0 and"),
    ("compression", hftws.Deflate(threshold=-1), ValueError, "Deflate.threshold has to lie"),
    (
        "compression",
        hftws.Deflate(server_max_window_bits=0),
        ValueError,
        "Deflate.server_max_window_bits has to lie between 8 and 15, not 0",
    ),
    (
        "compression",
        hftws.Deflate(client_max_window_bits="9"),  # type: ignore[arg-type]
        TypeError,
        "Deflate.client_max_window_bits has to be an int, not '9'",
    ),
    (
        "compression",
        hftws.Deflate(level=None),  # type: ignore[arg-type]
        TypeError,
        "Deflate.level has to be an int, not None",
    ),
]


@pytest.mark.parametrize(("option", "value", "error", "said"), REFUSED)
def test_a_refused_option_is_named(
    option: str, value: Any, error: type[Exception], said: str
) -> None:
    """The option, its value and what is allowed: the caller sees only the message."""
    text = said_by(error, lambda: hftws.Client(URL, **{option: value}))
    assert said in text
    assert option in text or "Deflate" in text or "header" in text


def test_the_values_of_headers_are_not_shown() -> None:
    """They are often keys."""
    refused: list[Any] = [
        ["Authorization: secret"],
        [("Authorization", "secret", "x")],
        {"Authorization": "secret\n"},
        {"Upgrade": "secret"},
        "Authorization: secret",
    ]
    for headers in refused:
        text = said_by(Exception, lambda headers=headers: hftws.Client(URL, headers=headers))
        assert "secret" not in text, text


def test_get_names_its_own_options() -> None:
    text = said_by(ValueError, lambda: hftws.get("http://127.0.0.1:1/", timeout=-1))
    assert text == "timeout has to be 0 or more seconds, not -1.0"
    none: Any = None
    text = said_by(TypeError, lambda: hftws.get("http://127.0.0.1:1/", timeout=none))
    assert text == "timeout has to be a number, not None"
    text = said_by(ValueError, lambda: hftws.get("http://127.0.0.1:1/", max_body_size=-1))
    assert text.startswith("max_body_size has to lie between 0 and")


def test_a_url_of_another_type_is_not_shown() -> None:
    url: Any = b"ws://user:secret@example.com/"
    assert said_by(TypeError, lambda: hftws.Client(url)) == "the URL has to be a str, not bytes"


def test_a_huge_value_is_cut() -> None:
    mask: Any = "x" * 10_000
    assert len(said_by(ValueError, lambda: hftws.Client(URL, mask=mask))) < 300


# ---- Calls. ------------------------------------------------------------------------------------


@pytest.fixture
def client() -> hftws.Client:
    """A client that is not connected."""
    return hftws.Client(URL)


#: Call, positional arguments, keyword arguments, exception, what it says.
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ("close", (), {"reason": 5}, TypeError, "reason of close() has to be a str, not 5"),
    ("close", (), {"reason": b"x"}, TypeError, "reason of close() has to be a str, not b'x'"),
    ("close", (), {"reason": "é" * 62}, ValueError, "at most 123 bytes of UTF-8, not 124"),
    ("close", ("1000",), {}, TypeError, "code of close() has to be an int, not '1000'"),
    ("close", (None,), {}, TypeError, "code of close() has to be an int, not None"),
    ("close", (1006,), {}, ValueError, "code of close() has to be 1000 to 1003, 1007 to 1014 or"),
    ("close", (2**80,), {}, ValueError, f"3000 to 4999, not {2**80}"),
    ("close", (1, "", 3), {}, TypeError, "close() takes at most 2 positional arguments (3 given)"),
    ("close", (), {"why": 1}, TypeError, "close() got an unexpected keyword argument 'why'"),
    ("poll", ("1",), {}, TypeError, "timeout of poll() has to be a number or None, not '1'"),
    ("poll", (-1,), {}, ValueError, "timeout of poll() has to be 0 or more seconds, not -1.0"),
    ("wait_for_room", ("1",), {}, TypeError, "timeout of wait_for_room() has to be a number or No"),
    ("wait_for_room", (1, 2), {}, TypeError, "wait_for_room() takes at most 1 positional argument"),
    ("send", (), {}, TypeError, "send() needs data"),
    ("send", (None,), {}, TypeError, "data of send() has to be a str or bytes-like, not None"),
    ("send", (5,), {}, TypeError, "data of send() has to be a str or bytes-like, not 5"),
    ("send", ("a",), {"text": False}, TypeError, "send() sends a str as text: text=False needs"),
    ("ping", (5,), {}, TypeError, "payload of ping() has to be a str or bytes-like, not 5"),
    ("ping", (b"x" * 126,), {}, ValueError, "payload of ping() has at most 125 bytes, not 126"),
    ("reserve", (), {"text": True}, TypeError, "reserve() needs n"),
    ("reserve", (5,), {}, TypeError, "reserve() needs text=True or text=False"),
    ("reserve", ("5",), {"text": True}, TypeError, "n of reserve() has to be an int, not '5'"),
    ("reserve", (-1,), {"text": True}, ValueError, "n of reserve() has to be 0 or more, not -1"),
    ("reserve", (2**80,), {"text": True}, ValueError, "n of reserve() has to be a smaller number"),
]


@pytest.mark.parametrize(("call", "arguments", "keywords", "error", "said"), CALLS)
def test_a_refused_argument_is_named(
    client: hftws.Client,
    call: str,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    assert said in said_by(error, lambda: getattr(client, call)(*arguments, **keywords))


def test_a_refused_cpu_or_priority_is_named() -> None:
    wrong: Any = "0"
    assert said_by(ValueError, lambda: hftws.pin_thread(99_999)) == (
        "cpu of pin_thread() has to be a CPU that this process may use, not 99999"
    )
    assert said_by(ValueError, lambda: hftws.pin_thread(-1)).endswith("may use, not -1")
    assert said_by(TypeError, lambda: hftws.pin_thread(wrong)) == (
        "cpu of pin_thread() has to be an int, not '0'"
    )
    assert said_by(ValueError, lambda: hftws.set_realtime_priority(100)) == (
        "priority of set_realtime_priority() has to lie between 1 and 99, not 100"
    )
    assert said_by(TypeError, lambda: hftws.set_realtime_priority(wrong)) == (
        "priority of set_realtime_priority() has to be an int, not '0'"
    )


# ---- Files. ------------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_its_path(
    tmp_path: Path, client_files: dict[str, Path]
) -> None:
    missing = tmp_path / "missing.pem"
    for options in (
        {"ca_file": missing},
        {"cert_file": missing},
        {**client_files, "key_file": missing},
    ):
        name = list(options)[-1]
        text = said_by(
            hftws.TLSError,
            lambda options=options: hftws.Client("wss://example.com/", **options),
        )
        assert text == f"cannot use {name} '{missing}': No such file or directory"


def test_a_certificate_without_a_key_is_told(ca: trustme.CA, tmp_path: Path) -> None:
    certificate = ca.issue_cert("client@example.org")
    file = tmp_path / "certificate.pem"
    certificate.cert_chain_pems[0].write_to_path(file)
    text = said_by(hftws.TLSError, lambda: hftws.Client("wss://example.com/", cert_file=file))
    assert text == f"cert_file '{file}' holds no private key, and key_file was not given"


def test_a_key_of_another_certificate_is_told(ca: trustme.CA, tmp_path: Path) -> None:
    cert_file, key_file = tmp_path / "certificate.pem", tmp_path / "key.pem"
    ca.issue_cert("a@example.org").cert_chain_pems[0].write_to_path(cert_file)
    ca.issue_cert("b@example.org").private_key_pem.write_to_path(key_file)
    text = said_by(
        hftws.TLSError,
        lambda: hftws.Client("wss://example.com/", cert_file=cert_file, key_file=key_file),
    )
    assert text.startswith(f"key_file '{key_file}' does not fit cert_file '{cert_file}': ")


# ---- How a connection ended. -------------------------------------------------------------------


def refusing(peer: Peer) -> None:
    """Answers 429 with the request's target in no header."""
    peer.read_request()
    peer.send(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")


def test_a_refusal_has_the_url(serve: Serve) -> None:
    with serve(refusing) as server:
        client = server.client()
        text = said_by(hftws.HandshakeError, client.connect)
    assert text == f"the server refused the upgrade: HTTP 429 [{server.url()}]"


def test_a_connection_that_ended_has_the_url(serve_both: Serve) -> None:
    with connected(serve_both) as (client, peer):
        peer.send_close(4000, "bye")
        poll_until(client, lambda: not client.is_open)
        peer.close()
        text = said_by(hftws.ConnectionClosed, lambda: poll_until(client, lambda: False))
        assert text == f"4000 (bye) [{client.url}]"
        again = said_by(hftws.ConnectionClosed, lambda: client.send(b"x"))
        assert again == text


def test_no_tcp_connection_has_the_url() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # Does not listen.
        url = f"ws://127.0.0.1:{probe.getsockname()[1]}/stream?symbol=BTC"
        error = raised(hftws.ConnectError, hftws.Client(url).connect)
    assert str(error).endswith(f": connection refused [{url}]")
    assert error.url == url


def test_an_interface_that_is_missing_is_named(serve: Serve) -> None:
    with serve([]) as server:
        client = server.client(interface="nope0")
        text = said_by(hftws.ConnectError, client.connect)
    assert text == f"interface='nope0': no such network interface [{client.url}]"


def test_a_local_address_that_cannot_be_had_is_named(serve: Serve) -> None:
    with serve([]) as server:
        client = server.client(local_address="192.0.2.1")
        text = said_by(hftws.ConnectError, client.connect)
        assert text == (
            f"local_address='192.0.2.1': the local address is not available [{client.url}]"
        )
        client = server.client(local_address="::1")
        text = said_by(hftws.ConnectError, client.connect)
        assert text == (
            f"local_address='::1': the server's address is of another family [{client.url}]"
        )


def test_a_timeout_names_its_option_and_its_length(serve: Serve) -> None:
    with serve(lambda peer: peer.server.stopping.wait()) as server:
        client = server.client(connect_timeout=0.02)
        text = said_by(hftws.ConnectTimeout, client.connect)
        assert "connect_timeout of 0.02 s" in text
        url = server.url().replace("ws", "http", 1)
        text = said_by(hftws.ConnectTimeout, lambda: hftws.get(url, timeout=0.02))
        assert " timeout of 0.02 s" in text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://a.b/ws/btcusdt@trade", "ws://a.b/ws/btcusdt@trade"),
        ("ws://a.b/stream?streams=a@depth/b@trade", "ws://a.b/stream?streams=a@depth/b@trade"),
        ("ws://a.b/?token=abc&symbol=BTC", "ws://a.b/?token=***&symbol=BTC"),
        ("ws://a.b/?apiKey=abc", "ws://a.b/?apiKey=***"),
        ("ws://a.b/?x=1&API-KEY=abc&y=2", "ws://a.b/?x=1&API-KEY=***&y=2"),
        ("ws://a.b/?signature=abc&recvWindow=5000", "ws://a.b/?signature=***&recvWindow=5000"),
        (
            "ws://a.b/ws/pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61cv6a81va65sdf19v8a65a1/x",
            "ws://a.b/ws/***/x",
        ),
        ("ws://a.b/?id=0123456789abcdef0123456789abcdef", "ws://a.b/?id=***"),
        ("ws://a.b/?token", "ws://a.b/?token"),
        ("ws://a.b/?token=", "ws://a.b/?token="),
    ],
)
def test_credentials_in_a_url_are_not_shown(url: str, shown: str) -> None:
    """A listen key in the path, a token in the query: exceptions and reprs end up in logs."""
    client = hftws.Client(url.replace("a.b", "127.0.0.1:1"))
    error = raised(hftws.ConnectError, client.connect)
    assert error.url == shown.replace("a.b", "127.0.0.1:1")
    assert str(error).endswith(f"[{error.url}]")
    assert error.url in repr(client)
    assert client.url == url.replace("a.b", "127.0.0.1:1")


def test_a_long_url_is_cut() -> None:
    client = hftws.Client("ws://127.0.0.1:1/stream?streams=" + "btcusdt@trade/" * 500)
    text = said_by(hftws.ConnectError, client.connect)
    assert len(text) < 500
    assert text.endswith("...]")


# ---- A message that is too big. ----------------------------------------------------------------


@pytest.mark.parametrize("frames", ["one", "two", "more"])
def test_a_message_too_big_tells_size_and_option(serve: Serve, frames: str) -> None:
    """Its code is the same wherever it is asked for."""
    ended: list[tuple[int, str]] = []

    def on_close(client: hftws.Client, code: int, reason: str) -> None:
        ended.append((code, reason))

    with connected(serve, on_close=on_close, max_message_size=1000) as (client, peer):
        if frames == "one":
            peer.send(encode_frame(TEXT, b"x" * 1100))
        else:
            peer.send(encode_frame(TEXT, b"x" * 600, fin=False))
            peer.send(encode_frame(0, b"x" * 500, fin=frames == "two"))
        error = _until_raised(client, peer, hftws.MessageTooBig)
        least = "at least " if frames == "more" else ""
        said = f"the server sent a message of {least}1100 bytes; max_message_size is 1000"
        assert str(error) == f"{said} [{client.url}]"
        assert error.code == client.close_code == 1009
        assert ended == [(1009, said)]
        assert client.close_reason == said


def test_the_code_of_a_protocol_error_is_the_same_everywhere(serve: Serve) -> None:
    ended: list[int] = []

    def on_close(client: hftws.Client, code: int, reason: str) -> None:
        ended.append(code)

    with connected(serve, on_close=on_close) as (client, peer):
        peer.send(encode_frame(TEXT, b"\xff"))
        error = _until_raised(client, peer, hftws.ProtocolError)
        assert error.code == client.close_code == 1007
        assert ended == [1007]


def _until_raised(client: hftws.Client, peer: Peer, error: type[Any]) -> Any:
    """Polls until the client has sent CLOSE, hangs up, and polls until that is noticed."""
    with pytest.raises(error) as caught:
        poll_until(client, lambda: not client.is_open)
        peer.close()
        poll_until(client, lambda: False)
    return caught.value


# ---- Names in certificates. --------------------------------------------------------------------


def test_a_wrong_name_is_told_with_both_names(serve: Serve, ca: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("a.example", "*.b.example", "10.0.0.1", "2001:db8::1").configure_cert(context)
    with serve(lambda peer: None, tls_context=context) as server:
        client = server.client(server_name="c.example")
        error = raised(hftws.TLSError, client.connect)
    assert isinstance(error, hftws.TLSError)
    assert "hostname mismatch" in error.verify_reason.lower()
    assert "'c.example'" in str(error)
    assert "a.example, *.b.example, 10.0.0.1, 2001:db8:0:0:0:0:0:1, not for 'c.example'" in str(
        error
    )


# ---- Paths. ------------------------------------------------------------------------------------


class InBytes(os.PathLike[bytes]):
    """A path object of bytes."""

    def __init__(self, path: bytes) -> None:
        self.path = path

    def __fspath__(self) -> bytes:
        return self.path


#: Every kind of path that open() takes.
KINDS: list[Callable[[bytes], Any]] = [
    os.fsdecode,
    bytes,
    lambda path: Path(os.fsdecode(path)),
    InBytes,
]


@pytest.mark.parametrize("kind", KINDS, ids=["str", "bytes", "Path", "PathLike[bytes]"])
@pytest.mark.parametrize("name", [b"ca.pem", b"k\xe9.pem", b"\xff\xfe.pem"])
def test_a_path_is_what_open_takes(
    ca: trustme.CA, tmp_path: Path, kind: Callable[[bytes], Any], name: bytes
) -> None:
    """Also where a name is not UTF-8 (PEP 383)."""
    file = os.fsencode(tmp_path / os.fsdecode(name))
    key = file + b".key"
    certificate = ca.issue_cert("client@example.org")
    with open(file, "wb") as target:
        target.write(ca.cert_pem.bytes() + certificate.cert_chain_pems[0].bytes())
    with open(key, "wb") as target:
        target.write(certificate.private_key_pem.bytes())
    hftws.Client("wss://example.com/", ca_file=kind(file))
    own = file + b".own"
    with open(own, "wb") as target:
        target.write(certificate.cert_chain_pems[0].bytes())
    hftws.Client("wss://example.com/", cert_file=kind(own), key_file=kind(key))
    text = said_by(
        hftws.TLSError,
        lambda: hftws.Client("wss://example.com/", ca_file=kind(file + b".missing")),
    )
    assert os.fsdecode(file) in text


@pytest.mark.parametrize("option", ["ca_file", "cert_file", "key_file"])
def test_a_path_that_is_none_is_refused_by_name(option: str, client_files: dict[str, Path]) -> None:
    for value, error, said in [
        (5, TypeError, f"{option} has to be a str, bytes or os.PathLike, not 5"),
        (["a"], TypeError, f"{option} has to be a str, bytes or os.PathLike, not ['a']"),
        ("a\0b", ValueError, f"{option} holds a null character"),
        (b"a\0b", ValueError, f"{option} holds a null character"),
    ]:
        options: dict[str, Any] = {**client_files, option: value}
        text = said_by(error, lambda options=options: hftws.Client("wss://a/", **options))
        assert said in text
        text = said_by(error, lambda options=options: hftws.get("https://a/", **options))
        assert said in text


def test_the_path_of_a_library_is_named_and_may_be_bytes() -> None:
    wrong: Any = 5
    text = said_by(TypeError, lambda: hftws.use_libssl(wrong))
    assert text == "the path of use_libssl() has to be a str, bytes or os.PathLike, not 5"
    none: Any = None
    assert "use_libssl()" in said_by(TypeError, lambda: hftws.use_libssl(none))
    code = (
        "import hftws\n"
        "try: hftws.use_libssl(b'/nowhere/lib\\xff.so')\n"
        "except hftws.TLSError as error: print(ascii(str(error)))\n"
    )
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "/nowhere/lib\\udcff.so" in ran.stdout


# ---- Callbacks that would never run. -----------------------------------------------------------


async def a_coroutine(*arguments: object) -> None:
    """Waits for nothing."""


def a_generator(*arguments: object) -> Iterator[None]:
    """Yields nothing of use."""
    yield


async def an_asynchronous_generator(*arguments: object) -> AsyncIterator[None]:
    """Yields nothing of use."""
    yield


class CallsLater:
    """An object whose call makes a coroutine."""

    async def __call__(self, *arguments: object) -> None: ...

    async def method(self, *arguments: object) -> None: ...


@pytest.mark.parametrize("name", ["on_msg", "on_open", "on_close"])
@pytest.mark.parametrize(
    ("callback", "made"),
    [
        (a_coroutine, "a coroutine"),
        (a_generator, "a generator"),
        (an_asynchronous_generator, "an asynchronous generator"),
        (CallsLater(), "a coroutine"),
        (CallsLater().method, "a coroutine"),
        (functools.partial(a_coroutine, 1), "a coroutine"),
    ],
    ids=["async", "generator", "async generator", "object", "method", "partial"],
)
def test_a_callback_that_would_never_run_is_refused(name: str, callback: Any, made: str) -> None:
    text = said_by(TypeError, lambda: hftws.Client(URL, **{name: callback}))
    assert text.startswith(f"a call of {name} only makes {made}, which nobody ")
    assert "plain function" in text


def test_callables_of_every_other_kind_are_taken() -> None:
    inbox: list[hftws.Message] = []
    callbacks: list[Any] = [
        inbox.append,
        print,
        lambda msg: None,
        functools.partial(print, 1),
        list,
    ]
    for callback in callbacks:
        assert hftws.Client(URL, callback).on_msg is callback or callback == inbox.append


def test_type_checkers_object_to_callbacks_that_return_something() -> None:
    """A coroutine is an object too: only `None` tells an `async def` from a function."""
    hints = typing.get_type_hints(hftws.Client.__init__)
    for name in ("on_msg", "on_open", "on_close"):
        (function,) = [kind for kind in typing.get_args(hints[name]) if kind is not type(None)]
        assert typing.get_args(function)[-1] in (None, type(None))


# ---- What a client says of itself. -------------------------------------------------------------


def test_a_client_that_can_send_no_more_is_not_open(serve: Serve) -> None:
    """What the peer sent before is still delivered, and then how it ended is raised."""
    inbox = Inbox()
    with connected(serve, inbox) as (client, peer):
        peer.send_text("last words")
        wait_until_arrived(client, 12)
        peer.reset()
        wait_until_reset(client)
        with pytest.raises(hftws.ConnectionClosed, match="cannot be written: the peer"):
            for _ in range(2):  # The first may only learn of the reset.
                client.send(b"x")
        assert not client.is_open
        assert "not open" in repr(client)
        assert client.close_code is None, "it has not ended yet"
        with pytest.raises(hftws.ConnectionClosed):
            poll_until(client, lambda: False)
        assert client.close_code == 1006


def test_there_is_no_close_code_while_the_handshake_runs(serve_both: Serve) -> None:
    """Neither after our CLOSE nor after the peer's: it may still end otherwise."""
    with connected(serve_both) as (client, peer):
        assert client.close_code is None
        peer.send_close(4000, "bye")
        poll_until(client, lambda: not client.is_open)
        assert client.close_code is None
        assert client.close_reason is None
        peer.close()
        with pytest.raises(hftws.ConnectionClosed, match="bye"):
            poll_until(client, lambda: False)
        assert (client.close_code, client.close_reason) == (4000, "bye")


def test_an_end_in_the_tls_handshake_is_not_one_of_a_websocket(serve: Serve) -> None:
    """There can be no close frame yet."""
    with serve(lambda peer: peer.sock.close()) as server:
        url = server.url().replace("ws:", "wss:", 1)
        error = raised(hftws.TLSError, hftws.Client(url).connect)
    said = "the peer closed the TCP connection while in the TLS handshake with 127.0.0.1"
    reset = "the peer reset the TCP connection while in the TLS handshake with 127.0.0.1"
    assert error.args[0] in (said, reset)
