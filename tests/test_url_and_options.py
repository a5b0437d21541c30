"""What a client refuses before it does any I/O (URLs, headers, options), and what it raises."""

from __future__ import annotations

import copy
import inspect
import pickle
import socket
import typing
from typing import Any

import pytest

import hftws

KIB = 1024
MIB = 1024 * KIB

BAD_URLS = [
    "",
    "/",
    "example.com",
    "example.com/?next=ws://x",
    "//example.com/",
    "ws:/example.com",
    "ws:example.com",
    "ws//example.com",
    "://example.com",
    "ftp://example.com/",
    "wsx://example.com/",
    "ws://",
    "ws:///path",
    "ws://?query",
    "ws://:80/",
    "ws://user:secret@example.com/",
    "ws://user@example.com/",
    "ws://example.com/#fragment",
    "ws://example.com#fragment",
    "ws://exa mple.com/",
    "ws://example.com/a b",
    " ws://example.com/",
    "ws://example.com/ ",
    "ws://example.com/\r\nX-Injected: 1",
    "ws://example.com\r\n/",
    "ws://example.com/\n",
    "ws://example.com/\t",
    "ws://example.com/\x7f",
    "ws://example.com/ü",
    "ws://exämple.com/",
    "ws://example..com/",
    "ws://.example.com/",
    "ws://exa%6dple.com/",
    "ws://exa[mple.com/",
    f"ws://{'a' * 64}.com/",
    f"ws://{'a.' * 127}com/",
    "ws://256.1.1.1/",
    "ws://1.2.3/",
    "ws://1.2.3.4.5/",
    "ws://127.0.0.01/",
    "ws://0x7f.0.0.1/",
    "ws://2130706433/",
    "ws://::1/",
    "ws://::1:80/",
    "ws://[::1/",
    "ws://[]/",
    "ws://[::1]x/",
    "ws://[::g]/",
    "ws://[1::2::3]/",
    "ws://[1:2:3:4:5:6:7:8:9]/",
    "ws://[127.0.0.1]/",
    "ws://[fe80::1%25eth0]/",
]

BAD_PORTS = ["", "0", "00", "65536", "99999999999999999999", "-1", "+80", "8_0", "80a", "a", " 80"]


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(hftws.InvalidURL) as caught:
        hftws.Client(url)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) > len(url), "the message says what is wrong"
    assert "secret" not in str(caught.value), "a password has no place in a log"


def test_a_refused_url_is_shown_without_its_password() -> None:
    with pytest.raises(hftws.InvalidURL) as caught:
        hftws.Client("ws://user:secret@example.com/btcusdt@trade")
    assert str(caught.value).endswith(": ws://***@example.com/btcusdt@trade")


@pytest.mark.parametrize("port", BAD_PORTS)
@pytest.mark.parametrize("host", ["example.com", "127.0.0.1", "[::1]"])
def test_a_port_outside_1_to_65535_is_refused(host: str, port: str) -> None:
    with pytest.raises(hftws.InvalidURL):
        hftws.Client(f"ws://{host}:{port}/")


@pytest.mark.parametrize("url", ["http://example.com/", "https://example.com/", "HTTP://a/"])
def test_a_client_wants_the_scheme_of_a_websocket(url: str) -> None:
    with pytest.raises(hftws.InvalidURL, match="ws://"):
        hftws.Client(url)


@pytest.mark.parametrize("url", ["ws://example.com/", "wss://example.com/"])
def test_get_wants_the_scheme_of_http(url: str) -> None:
    with pytest.raises(hftws.InvalidURL, match="http://"):
        hftws.get(url)


def test_a_null_character_does_not_cut_the_url() -> None:
    with pytest.raises(ValueError):
        hftws.Client("ws://example.com/\x00.evil.com/")
    with pytest.raises(ValueError):
        hftws.Client("ws://example.com\x00.evil.com/")


@pytest.mark.parametrize("url", [None, 80, b"ws://example.com/", ["ws://example.com/"]])
def test_a_url_is_text(url: Any) -> None:
    with pytest.raises(TypeError):
        hftws.Client(url)
    with pytest.raises(TypeError):
        hftws.get(url)


@pytest.mark.parametrize(
    "url",
    [
        "ws://example.com",
        "WSS://EXAMPLE.com:443",
        "ws://example.com./?a=/?&b=%20|[]",
        "ws://a_b.example:65535/x//y",
        "ws://[2001:db8::1]:1/",
        "ws://[::ffff:127.0.0.1]/",
        "ws://xn--bcher-kva.example/",
    ],
)
def test_a_good_url_is_taken_and_given_back(url: str) -> None:
    client = hftws.Client(url, verify=False)
    assert client.url == url
    assert client.info()["url"] == url
    assert url in repr(client)


def test_constructing_does_no_io() -> None:
    """If the client connected, its connection would be there by now: the kernel accepts it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        client = hftws.Client(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert not client.is_open
        assert client.info()["peer_address"] is None


# ---- Headers and subprotocols. -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "a\r\nX-Injected: 1"),
        ("X-A", "a\n"),
        ("X-A", "\r"),
        ("X-A", "a\x00"),
        ("X-A", "a\x1b[0m"),
        ("X-A", "a\x7f"),
        ("X-A\r\nX-Injected", "1"),
        ("X A", "1"),
        ("X-A:", "1"),
        ("", "1"),
        ("Ü", "1"),
        ("X-A\x00", "1"),
    ],
)
def test_a_header_that_would_split_the_request_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError):
        hftws.Client("ws://example.com/", headers={name: value})
    with pytest.raises(ValueError):
        hftws.Client("ws://example.com/", headers=[("X-Good", "1"), (name, value)])
    with pytest.raises(ValueError):
        hftws.get("http://example.com/", headers={name: value})


@pytest.mark.parametrize(
    "name",
    [
        "Upgrade",
        "connection",
        "Sec-WebSocket-Key",
        "sec-websocket-version",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "Content-Length",
        "Transfer-Encoding",
    ],
)
def test_a_header_of_the_handshake_itself_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        hftws.Client("ws://example.com/", headers={name: "1"})


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Upgrade"])
def test_a_get_has_no_body_and_no_upgrade(name: str) -> None:
    with pytest.raises(ValueError):
        hftws.get("http://127.0.0.1:1/", headers={name: "1"})


def test_two_host_headers_are_refused() -> None:
    with pytest.raises(ValueError):
        hftws.Client("ws://example.com/", headers=[("Host", "a"), ("host", "b")])


def test_headers_larger_than_a_request_can_be_are_refused() -> None:
    with pytest.raises(ValueError):
        hftws.Client("ws://example.com/", headers={"X-A": "a" * 64 * KIB})


@pytest.mark.parametrize("headers", [{"X-A": 1}, {"X-A": b"1"}, {1: "a"}, {"X-A": None}, 1])
def test_headers_are_text(headers: Any) -> None:
    with pytest.raises(TypeError):
        hftws.Client("ws://example.com/", headers=headers)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"X-A": 1}, "the value of the header 'X-A' has to be a str, not int"),
        ([("X-A", "1"), ("X-B", b"1")], "the value of the header 'X-B' has to be a str, not bytes"),
        ({"X-A": None}, "the value of the header 'X-A' has to be a str, not NoneType"),
        ({1: "a"}, "the name of a header has to be a str, not int"),
    ],
)
def test_a_header_that_is_no_text_is_named(headers: Any, said: str) -> None:
    with pytest.raises(TypeError) as caught:
        hftws.Client("ws://example.com/", headers=headers)
    assert str(caught.value) == said
    with pytest.raises(TypeError) as caught:
        hftws.get("http://example.com/", headers=headers)
    assert str(caught.value) == said


def test_a_subprotocol_that_is_no_text_is_named() -> None:
    names: Any = ["a", 1]
    with pytest.raises(TypeError) as caught:
        hftws.Client("ws://example.com/", subprotocols=names)
    assert str(caught.value) == "a subprotocol has to be a str, not int"


@pytest.mark.parametrize("headers", [["ab", "c"], [("a",)], [("a", "b", "c")], "X-A: 1"])
def test_headers_are_pairs(headers: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="headers"):
        hftws.Client("ws://example.com/", headers=headers)


@pytest.mark.parametrize("subprotocols", [[""], ["a b"], ["a,b"], ["a\r\nb"], ["ü"], ["a", "a"]])
def test_a_subprotocol_that_cannot_be_offered_is_refused(subprotocols: list[str]) -> None:
    with pytest.raises(ValueError):
        hftws.Client("ws://example.com/", subprotocols=subprotocols)


@pytest.mark.parametrize("subprotocols", ["v1.json", [1], [b"a"], 1])
def test_subprotocols_are_a_sequence_of_text(subprotocols: Any) -> None:
    with pytest.raises(TypeError):
        hftws.Client("ws://example.com/", subprotocols=subprotocols)


# ---- Options. ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"ring_size": 1 * MIB},
        {"ring_size": 4 * MIB},
        {"ring_size": 4 * MIB, "max_message_size": 4 * MIB - 1},
        {"ring_size": 256 * KIB, "max_message_size": 256 * KIB},
        {"ring_size": 8 * MIB, "max_message_size": 9 * MIB},
        {"max_message_size": 2**62},
    ],
)
def test_a_ring_that_the_largest_message_does_not_fit_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="size"):
        hftws.Client("ws://example.com/", **options)


@pytest.mark.parametrize("size", [-1, 0, 1, 4096, 2**31, 2**62])
@pytest.mark.parametrize("name", ["ring_size", "send_ring_size"])
def test_a_ring_size_out_of_bounds_is_refused(name: str, size: Any) -> None:
    with pytest.raises(ValueError, match=name):
        hftws.Client("ws://example.com/", **{"max_message_size": 4 * KIB, name: size})


@pytest.mark.parametrize("size", [-1, 0, -(2**40)])
def test_a_max_message_size_that_is_none_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="max_message_size"):
        hftws.Client("ws://example.com/", max_message_size=size)


@pytest.mark.parametrize("seconds", [-1, -0.001, float("-inf"), float("nan")])
@pytest.mark.parametrize("name", ["connect_timeout", "close_timeout"])
def test_a_negative_timeout_is_refused(name: str, seconds: Any) -> None:
    with pytest.raises(ValueError, match=name):
        hftws.Client("ws://example.com/", **{name: seconds})


def test_a_negative_timeout_of_get_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout"):
        hftws.get("http://127.0.0.1:1/", timeout=-1)


@pytest.mark.parametrize("seconds", [0, 1e-12, 1e300, float("inf")])
def test_any_other_timeout_is_taken(seconds: float) -> None:
    hftws.Client("ws://example.com/", connect_timeout=seconds, close_timeout=seconds)


@pytest.mark.parametrize("value", ["", "RANDOM", "ones", "none", "zeroes"])
def test_an_unknown_mask_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"mask.*random.*zero"):
        hftws.Client("ws://example.com/", mask=value)


@pytest.mark.parametrize("value", ["", "Software", "kernel", "off"])
def test_an_unknown_timestamps_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"timestamps.*none.*software.*hardware"):
        hftws.Client("ws://example.com/", timestamps=value)


@pytest.mark.parametrize("value", ["", "OpenSSL", "rustls", None])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_an_unknown_tls_engine_is_refused(scheme: str, value: Any) -> None:
    with pytest.raises(ValueError, match="tls"):
        hftws.Client(f"{scheme}://example.com/", tls=value)


@pytest.mark.parametrize("value", ["example.com", "127.0.0.1:80", "", "[::1]", "1.2.3"])
def test_a_local_address_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="local_address"):
        hftws.Client("ws://example.com/", local_address=value)


@pytest.mark.parametrize("name", ["receive_buffer_size", "send_buffer_size", "socket_busy_poll_us"])
@pytest.mark.parametrize("value", [-1, 2**31, 2**62])
def test_a_socket_option_out_of_bounds_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        hftws.Client("ws://example.com/", **{name: value})


@pytest.mark.parametrize("name", ["on_msg", "on_open", "on_close"])
@pytest.mark.parametrize("value", [1, "print", [print]])
def test_a_callback_that_cannot_be_called_is_refused(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        hftws.Client("ws://example.com/", **{name: value})


@pytest.mark.parametrize("name", ["on_msg", "on_open", "on_close"])
def test_a_callback_that_is_a_method_is_refused(name: str) -> None:
    """It would not be called, and every message would be dropped silently."""
    mine = type("Mine", (hftws.Client,), {name: lambda self, *arguments: None})
    heir = type("Heir", (mine,), {})
    for subclass in (mine, heir):
        with pytest.raises(TypeError, match=rf"{name}=self\.{name}"):
            subclass("ws://example.com/")


def test_a_callback_that_is_a_method_can_be_passed() -> None:
    class Mine(hftws.Client):
        def __init__(self, url: str) -> None:
            super().__init__(url, self.on_msg)

        def on_msg(self, msg: hftws.Message) -> None: ...

    client = Mine("ws://example.com/")
    assert hftws.Client.on_msg.__get__(client) == client.on_msg


def test_a_subclass_without_callbacks_has_nothing_to_pass() -> None:
    class Mine(hftws.Client):
        def send_order(self) -> None: ...

    assert Mine("ws://example.com/").on_msg is None


def test_a_key_without_a_certificate_is_refused() -> None:
    """It would be ignored, and the server would refuse the client."""
    with pytest.raises(ValueError, match="cert_file"):
        hftws.Client("wss://example.com/", key_file="key.pem")


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError):
        hftws.Client("ws://example.com/", ping_interval=20)  # type: ignore[call-arg]


def test_a_client_whose_constructor_failed_can_be_thrown_away() -> None:
    client = hftws.Client.__new__(hftws.Client)
    for call in (client.connect, client.run, client.poll, client.close, client.fileno):
        with pytest.raises(RuntimeError):
            call()
    assert not client.is_open
    assert client.close_code is None
    del client


def test_a_client_is_not_initialised_twice() -> None:
    client = hftws.Client("ws://example.com/")
    with pytest.raises(RuntimeError):
        client.__init__("ws://example.org/")  # type: ignore[misc]
    assert client.info()["url"] == "ws://example.com/"


def test_the_names_and_defaults_of_the_options_are_those_promised() -> None:
    parameters = inspect.signature(hftws.Client).parameters
    promised = {
        "on_msg": None,
        "on_open": None,
        "on_close": None,
        "headers": None,
        "subprotocols": (),
        "ca_file": None,
        "cert_file": None,
        "key_file": None,
        "verify": True,
        "server_name": None,
        "tls": "auto",
        "ciphers": None,
        "connect_timeout": 10.0,
        "close_timeout": 5.0,
        "peer_timeout": 30.0,
        "max_message_size": 4 * MIB,
        "ring_size": 8 * MIB,
        "send_ring_size": 8 * MIB,
        "validate_utf8": True,
        "mask": "random",
        "busy_poll": False,
        "timestamps": "software",
    }
    assert {name: parameters[name].default for name in promised} == promised
    positional = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["url", "on_msg"]


def test_entering_a_subclass_gives_that_class_to_type_checkers() -> None:
    hints = typing.get_type_hints(hftws.Client.__enter__)
    assert isinstance(hints["return"], typing.TypeVar)
    assert hints["return"] is hints["self"]


# ---- Exceptions. -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("InvalidURL", [ValueError]),
        ("ConnectError", [ConnectionError, OSError]),
        ("ConnectTimeout", [hftws.ConnectError, ConnectionError, TimeoutError]),
        ("TLSError", [ConnectionError]),
        ("HandshakeError", [ConnectionError]),
        ("ProtocolError", [ConnectionError]),
        ("MessageTooBig", [hftws.ProtocolError, ConnectionError, ValueError]),
        ("ConnectionClosed", [ConnectionError]),
    ],
)
def test_an_exception_is_also_the_built_in_that_a_caller_expects(
    name: str, bases: list[type]
) -> None:
    exception = getattr(hftws, name)
    for base in [hftws.Error, *bases]:
        assert issubclass(exception, base)


@pytest.mark.parametrize(
    "error",
    [
        hftws.InvalidURL("no"),
        hftws.ConnectError("no"),
        hftws.ConnectTimeout("no"),
        hftws.TLSError("no", "certificate verify failed", 10, "certificate has expired"),
        hftws.HandshakeError("no", 429, [("Retry-After", "7")], b"slow down"),
        hftws.ProtocolError("no", 1002),
        hftws.MessageTooBig("no", 1009),
        hftws.ConnectionClosed(4000, "bye"),
        hftws.ConnectionClosed(1006),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_survives_pickle_and_copy(error: hftws.Error) -> None:
    """Process pools and loggers pickle exceptions."""
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)


def test_the_headers_of_a_refusal_are_found_in_any_case() -> None:
    error = hftws.HandshakeError("no", 429, [("Retry-After", "7"), ("retry-after", "8")])
    assert error.header("RETRY-AFTER") == "7"
    assert error.header("Location") is None
    assert hftws.HandshakeError("no").headers == []
