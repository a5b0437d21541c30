"""Servers that break off, break the protocol, or are no TLS servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tls_peers import (
    APPLICATION_DATA,
    HANDSHAKE,
    KEY_UPDATE,
    WARNING,
    Change,
    LiteTls,
    message,
    split_records,
    ticket_message,
)

from tls_matrix.model import Ends, Fails, Row, altered, lite, no_handshake, wire
from tls_matrix.negotiation import lite_1_2
from tls_matrix.records import CHANGE_CIPHER_SPEC_RECORD, behind_server_hello

CERTIFICATE, SERVER_KEY_EXCHANGE, CERTIFICATE_VERIFY, FINISHED = 11, 12, 15, 20
CERTIFICATE_REQUEST, ENCRYPTED_EXTENSIONS, SERVER_HELLO = 13, 8, 2

FATAL_ALERTS = {
    10: "unexpected_message",
    20: "bad_record_mac",
    40: "handshake_failure",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    71: "insufficient_security",
    80: "internal_error",
    109: "missing_extension",
    112: "unrecognized_name",
    120: "no_application_protocol",
    200: "one without a name",
}


def plain_alert(description: int, level: int = 2) -> bytes:
    return bytes([21, 3, 3, 0, 2, level, description])


def flipped(place: int) -> Change:
    """With a bit changed."""

    def change(body: bytes) -> bytes:
        index = place % len(body)
        return body[:index] + bytes([body[index] ^ 1]) + body[index + 1 :]

    return change


WHILE_SECURING = " while in the TLS handshake with 127.0.0.1"
CUT = Fails(f"the peer closed the TCP connection{WHILE_SECURING}")
RESET = Fails(f"the peer reset the TCP connection{WHILE_SECURING}")


def only_first_record(flight: bytes) -> bytes:
    return split_records(flight)[0]


def all_but_a_byte(flight: bytes) -> bytes:
    return flight[:-1]


def changed_record(index: int, place: int) -> Callable[[bytes], bytes]:
    """A bit of this byte of this record."""

    def alter(flight: bytes) -> bytes:
        records = split_records(flight)
        records[index] = flipped(place)(records[index])
        return b"".join(records)

    return alter


HANDSHAKES = [
    *(
        Row(
            f"fatal alert before its hello: {name}",
            wire(f"alert {code}", plain_alert(code)),
            no_handshake(f"alert from the peer: {name}"),
        )
        for code, name in FATAL_ALERTS.items()
    ),
    Row(
        "close_notify before its hello",
        wire("close_notify", plain_alert(0, WARNING)),
        Fails(f"the peer closed TLS{WHILE_SECURING}"),
    ),
    Row(
        "fatal alert behind its hello, in the open",
        altered(lite(), "handshake_failure behind the hello", behind_server_hello(plain_alert(40))),
        no_handshake("bad record type", "unexpected_message"),
    ),
    Row(
        "TLS 1.2, fatal alert behind its hello",
        altered(lite_1_2(), "internal_error behind the hello",
                behind_server_hello(plain_alert(80))),
        no_handshake("alert from the peer: internal_error"),
    ),
    Row("FIN at once", wire("nothing, then FIN", end="FIN"), CUT),
    Row("RST at once", wire("nothing, then RST", end="RST"), RESET),
    Row("FIN within its hello", wire("half a header, then FIN", b"\x16\3\3", end="FIN"), CUT),
    Row("RST within its hello", wire("half a header, then RST", b"\x16\3\3", end="RST"), RESET),
    Row(
        "FIN behind its hello",
        altered(lite(), "cut behind the hello", only_first_record, hangs_up=True),
        CUT,
    ),
    Row(
        "FIN within the handshake",
        altered(lite(), "cut within the last record", all_but_a_byte, hangs_up=True),
        CUT,
    ),
    Row(
        "TLS 1.2, FIN within the handshake",
        altered(lite_1_2(), "cut within the last record", all_but_a_byte, hangs_up=True),
        CUT,
    ),
    Row(
        "a record of the handshake forged",
        altered(lite(), "a bit changed", changed_record(-1, -1)),
        no_handshake("decryption failed or bad record mac", "bad_record_mac"),
    ),
    Row(
        "its hello changed on the way",
        altered(lite(), "a bit of the key share changed", changed_record(0, -10)),
        no_handshake("decryption failed or bad record mac", "bad_record_mac"),
    ),
    *(
        Row(f"{name}: {what}", make(what, changes={kind: change}), no_handshake(reason, alert))
        for name, make, what, kind, change, reason, alert in (
            ("TLS 1.3", lite, "its Finished is wrong", FINISHED, flipped(0),
             "digest check failed", "decrypt_error"),
            ("TLS 1.3", lite, "its Finished is short", FINISHED, lambda body: body[:-1],
             "bad digest length", "decode_error"),
            ("TLS 1.3", lite, "its CertificateVerify is wrong", CERTIFICATE_VERIFY, flipped(-1),
             "bad signature", "decrypt_error"),
            ("TLS 1.3", lite, "signed with an algorithm that was not offered", CERTIFICATE_VERIFY,
             lambda body: b"\2\1" + body[2:], "wrong signature type", "illegal_parameter"),
            ("TLS 1.3", lite, "no certificate", CERTIFICATE, lambda body: bytes(4),
             "length mismatch", "decode_error"),
            ("TLS 1.3", lite, "a certificate that is none", CERTIFICATE,
             lambda body: b"\0\0\0\x09\0\0\4abcd\0\0", "ASN1 lib", "bad_certificate"),
            ("TLS 1.3", lite, "EncryptedExtensions that cannot be parsed", ENCRYPTED_EXTENSIONS,
             lambda body: b"\0\5abc", "length mismatch", "decode_error"),
            ("TLS 1.3", lite, "its hello too short", SERVER_HELLO, lambda body: body[:20],
             "length mismatch", "decode_error"),
            ("TLS 1.3", lite, "its hello too long", SERVER_HELLO, lambda body: body + b"x",
             "bad length", "decode_error"),
            ("TLS 1.2", lite_1_2, "its key is not the signed one", SERVER_KEY_EXCHANGE, flipped(10),
             "bad signature", "decrypt_error"),
            ("TLS 1.2", lite_1_2, "its key's signature is wrong", SERVER_KEY_EXCHANGE, flipped(-1),
             "bad signature", "decrypt_error"),
            ("TLS 1.2", lite_1_2, "no certificate", CERTIFICATE, lambda body: bytes(3),
             "length mismatch", "decode_error"),
            ("TLS 1.2", lite_1_2, "its Finished is wrong", FINISHED, flipped(0),
             "digest check failed", "decrypt_error"),
        )
    ),
    Row(
        "a handshake message too long",
        wire("a ServerHello of 16 MB", b"\x16\3\3\0\4\2\xff\xff\xff"),
        no_handshake("excessive message size", "illegal_parameter"),
    ),
    Row(
        "a record too long",
        wire("a handshake record of 65535 bytes", b"\x16\3\3\xff\xff" + bytes(100)),
        no_handshake("packet length too long", "record_overflow"),
    ),
    Row(
        "data before the handshake is complete",
        wire("a record of data", b"\x17\3\3\0\1x"),
        no_handshake("unexpected message", "unexpected_message"),
    ),
    Row(
        "Finished instead of its hello",
        wire("a Finished", b"\x16\3\3\0\x10" + message(FINISHED, bytes(12))),
        no_handshake("unexpected message", "unexpected_message"),
    ),
    Row(
        "change_cipher_spec instead of its hello",
        wire("change_cipher_spec", CHANGE_CIPHER_SPEC_RECORD),
        no_handshake("unexpected message", "unexpected_message"),
    ),
    Row(
        "a record of a type that nobody knows",
        wire("type 99", b"\x63\3\3\0\1x"),
        no_handshake("unexpected message", "unexpected_message"),
    ),
]  # fmt: skip

NOT_TLS = no_handshake("wrong version number (does the server speak TLS on this port?)")

NO_TLS = [
    Row(f"{name} on the port", wire(name, answer), NOT_TLS)
    for name, answer in (
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
        ("an upgrade in the open", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("SMTP", b"220 mail.example ESMTP\r\n"),
        ("a line feed, then nothing much", b"\n" * 11),
    )
] + [
    Row(
        "zeros on the port",
        wire("zeros", bytes(64)),
        NOT_TLS,
    ),
    Row(
        "TLS where the URL says ws://",
        wire("an alert, as TLS servers do", plain_alert(10)),
        Fails(
            "the server's answer is not HTTP (is it the right port, and should the connection use "
            "TLS?)",
            error="HandshakeError",
        ),
        scheme="ws",
    ),
    Row(
        "an echo of what we say",
        wire("our own hello", lambda hello: hello),
        no_handshake("unexpected message", "unexpected_message"),
    ),
]

# ---- Once it is open. --------------------------------------------------------------------------

EOF_REASON = "the peer closed the TCP connection without a close frame"
RESET_REASON = "the peer reset the TCP connection"
BAD_MAC = "decryption failed or bad record mac"


def forged(stack: LiteTls) -> bytes:
    record = stack.seal(b"\x81\5hello")
    return record[:-1] + bytes([record[-1] ^ 1])


def sealed(content_type: int, content: bytes) -> Callable[[LiteTls], bytes]:
    return lambda stack: stack.record(content_type, content)


def many(make: Callable[[LiteTls], bytes], count: int) -> Callable[[LiteTls], bytes]:
    return lambda stack: b"".join(make(stack) for _ in range(count))


def row(name: str, reason: str, make: Any = lambda stack: b"", **options: Any) -> list[Row]:
    """In both versions of TLS."""
    return [current(name, reason, make, **options), legacy(name, reason, make, **options)]


def current(name: str, reason: str, make: Any, **options: Any) -> Row:
    return Row(f"TLS 1.3, {name}", lite(name), Ends(reason, make=make, **options))


def legacy(name: str, reason: str, make: Any, **options: Any) -> Row:
    expected = Ends(reason, make=make, version="TLSv1.2", **options)
    return Row(f"TLS 1.2, {name}", lite_1_2(name), expected)


CLOSED = "ConnectionClosed"
UNEXPECTED = "unexpected_message"

ENDINGS = [
    *row("close_notify without a close frame", "the peer closed TLS without a close frame",
         lambda stack: stack.alert(0, WARNING), error=CLOSED, alert="close_notify"),
    *row("FIN", EOF_REASON, error=CLOSED, hang_up="FIN"),
    *row("FIN within a record", EOF_REASON, lambda stack: stack.seal(b"\x81\5hello")[:-1],
         error=CLOSED, hang_up="FIN"),
    *row("RST", RESET_REASON, error=CLOSED, hang_up="RST"),
    *row("a forged record", BAD_MAC, forged, alert="bad_record_mac"),
    *row("a record too long", "data length too long",
         sealed(APPLICATION_DATA, bytes((1 << 14) + 1)), alert="record_overflow"),
    *row("a fatal alert", "alert from the peer: internal_error",
         lambda stack: stack.alert(80)),
    *row("a fatal alert that nobody knows", "alert from the peer: one without a name",
         lambda stack: stack.alert(200)),
    current("a record of a type that nobody knows", "unexpected record", sealed(99, b"x"),
            alert=UNEXPECTED, openssl_reason="bad record type"),
    legacy("a record of a type that nobody knows", "unexpected record", sealed(99, b"x"),
           alert=UNEXPECTED),
    current("change_cipher_spec amid data", "unexpected record", sealed(20, b"\1"),
            alert=UNEXPECTED, openssl_reason="bad record type"),
    legacy("change_cipher_spec amid data", "unexpected record", sealed(20, b"\1"),
           alert=UNEXPECTED, openssl_reason="ccs received early"),
    *row("a Finished amid data", "unexpected message",
         lambda stack: stack.fragments(message(FINISHED, bytes(12))), alert=UNEXPECTED),
    *row("33 empty records", "too many empty records",
         many(sealed(APPLICATION_DATA, b""), 33), alert=UNEXPECTED,
         openssl_reason="record too small"),
    current("a warning that is none there", "alert from the peer: handshake_failure",
            lambda stack: stack.alert(40, WARNING)),
    current("change_cipher_spec in the open", "unexpected record",
            lambda stack: CHANGE_CIPHER_SPEC_RECORD, alert=UNEXPECTED,
            openssl_reason="bad record type"),
    current("data in the open", BAD_MAC,
            lambda stack: b"\x17\3\3\0\x20" + b"\x81\5hello" + bytes(25),
            alert="bad_record_mac"),
    current("a certificate asked for after the handshake", "unexpected message",
            lambda stack: stack.fragments(message(CERTIFICATE_REQUEST, b"\0\0\0")),
            alert=UNEXPECTED),
    current("a ticket cut by data", "mixed handshake and non handshake data",
            lambda stack: stack.record(HANDSHAKE, ticket_message()[:9]) + stack.seal(b"\x81\0"),
            alert=UNEXPECTED, openssl_reason="unexpected record"),
    current("a KeyUpdate of no kind", "bad key update",
            lambda stack: stack.fragments(message(KEY_UPDATE, b"\2")), alert="illegal_parameter"),
    current("old keys behind a KeyUpdate", BAD_MAC,
            lambda stack: stack.fragments(message(KEY_UPDATE, b"\0")) + stack.seal(b"\x81\0"),
            alert="bad_record_mac"),
]  # fmt: skip

BEFORE_THE_RESPONSE = [
    Row(
        "an alert instead of the response",
        lite("access_denied"),
        Fails("a TLS record is bad: alert from the peer: access_denied"),
        before=lambda stack: stack.alert(49),
    ),
    Row(
        "a forged record instead of the response",
        lite("a bit changed"),
        Fails(f"a TLS record is bad: {BAD_MAC}", alert="bad_record_mac"),
        before=forged,
    ),
    Row(
        "close_notify instead of the response",
        lite("close_notify"),
        Fails(
            "the peer closed TLS while waiting for the HTTP response of 127.0.0.1",
            error="HandshakeError",
            alert="close_notify",
        ),
        before=lambda stack: stack.alert(0, WARNING),
    ),
]

SECTIONS = {
    "Handshakes that fail": HANDSHAKES,
    "No TLS": NO_TLS,
    "Instead of the response": BEFORE_THE_RESPONSE,
    "Ends of a connection": ENDINGS,
}
