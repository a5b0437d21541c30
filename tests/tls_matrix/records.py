"""Records of odd sizes, tickets, KeyUpdates: all that a server may do, and few do."""

from __future__ import annotations

from typing import Any

from tls_peers import (
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    WARNING,
    LiteTls,
    split_records,
    ticket_message,
)

from tls_matrix.model import Connects, Row, altered, lite, openssl
from tls_matrix.negotiation import GCM_1_2, OPENSSL_1_2, OPENSSL_1_3, lite_1_2

USER_CANCELED, NO_CERTIFICATE, UNRECOGNIZED_NAME = 90, 41, 112
CHANGE_CIPHER_SPEC_RECORD = b"\x14\3\3\0\1\1"


def in_pieces(size: int) -> Any:
    """This much of a message in a record, 500 times; then the rest."""

    def seal(stack: LiteTls, plaintext: bytes) -> bytes:
        end = min(500 * size, len(plaintext))
        pieces = [plaintext[start : min(start + size, end)] for start in range(0, end, size)]
        records = [stack.record(APPLICATION_DATA, piece) for piece in pieces]
        return b"".join(records) + stack.seal(plaintext[end:])

    return seal


def with_empty_records(stack: LiteTls, plaintext: bytes) -> bytes:
    return amid(lambda stack: b"".join(stack.record(APPLICATION_DATA, b"") for _ in range(32)))(
        stack, plaintext
    )


def padded(stack: LiteTls, plaintext: bytes) -> bytes:
    """To the full size of a record (RFC 8446, section 5.4)."""
    first, rest = plaintext[:100], plaintext[100:]
    return stack.record(APPLICATION_DATA, first, padding=(1 << 14) - len(first)) + stack.seal(rest)


def after(make: Any) -> Any:
    """Each message behind what ``make`` makes."""
    return lambda stack, plaintext: make(stack) + stack.seal(plaintext)


def amid(make: Any) -> Any:
    """What ``make`` makes, in the middle of each message."""

    def seal(stack: LiteTls, plaintext: bytes) -> bytes:
        middle = len(plaintext) // 2
        return stack.seal(plaintext[:middle]) + make(stack) + stack.seal(plaintext[middle:])

    return seal


def ticket(stack: LiteTls) -> bytes:
    return stack.fragments(ticket_message())


def many_tickets(stack: LiteTls) -> bytes:
    return b"".join(ticket(stack) for _ in range(40))


def key_updates(count: int, request: int) -> Any:
    return lambda stack: b"".join(stack.key_update(request) for _ in range(count))


def behind_server_hello(what: bytes) -> Any:
    """Something unencrypted behind the first record."""

    def alter(flight: bytes) -> bytes:
        first = split_records(flight)[0]
        return first + what + flight[len(first) :]

    return alter


def without_change_cipher_spec(flight: bytes) -> bytes:
    return b"".join(record for record in split_records(flight) if record[0] != CHANGE_CIPHER_SPEC)


def before_server_hello(what: bytes) -> Any:
    return lambda flight: what + flight


def warning(description: int) -> bytes:
    return bytes([21, 3, 3, 0, 2, 1, description])


def has_updated(stack: LiteTls) -> bool:
    return stack.key_updates > 0


SIZES = [
    Row(
        "TLS 1.3, records of 512 bytes", openssl(*OPENSSL_1_3, "-max_send_frag", "512"), Connects()
    ),
    Row("TLS 1.2, records of 512 bytes", openssl(*OPENSSL_1_2, "-max_send_frag", "512"), GCM_1_2),
    Row("TLS 1.3, one byte a record", lite("one byte a record"), Connects(), seal=in_pieces(1)),
    Row("TLS 1.2, one byte a record", lite_1_2("one byte a record"), GCM_1_2, seal=in_pieces(1)),
    Row(
        "TLS 1.3, the handshake one byte a record",
        lite("one byte a record in the handshake", record_size=1),
        Connects(),
    ),
    Row(
        "TLS 1.2, the handshake one byte a record",
        lite_1_2("one byte a record in the handshake", record_size=1),
        GCM_1_2,
    ),
    Row("TLS 1.3, records of 64 bytes", lite("64 bytes a record"), Connects(), seal=in_pieces(64)),
    Row("TLS 1.3, records of 2^14 bytes", lite("2^14 a record"), Connects(), seal=in_pieces(16384)),
    Row(
        "TLS 1.2, records of 2^14 bytes", lite_1_2("2^14 a record"), GCM_1_2, seal=in_pieces(16384)
    ),
    Row("TLS 1.3, padded to blocks", openssl(*OPENSSL_1_3, "-record_padding", "512"), Connects()),
    Row("TLS 1.3, padded to the full size", lite("padded"), Connects(), seal=padded),
    Row(
        "TLS 1.3, 32 empty records in a message",
        lite("empty records"),
        Connects(),
        seal=with_empty_records,
    ),
    Row(
        "TLS 1.2, 32 empty records in a message",
        lite_1_2("empty records"),
        GCM_1_2,
        seal=with_empty_records,
    ),
]

BETWEEN = [
    *(
        Row(
            f"{count} tickets",
            openssl(*OPENSSL_1_3, "-num_tickets", str(count)),
            Connects(resumed=(False, count > 0)),
        )
        for count in (0, 1, 2, 20)
    ),
    Row("40 tickets before the response", lite("40 tickets"), Connects(), before=many_tickets),
    Row("40 tickets amid a message", lite("40 tickets"), Connects(), seal=amid(many_tickets)),
    Row("a ticket before each message", lite("tickets"), Connects(), seal=after(ticket)),
    Row("a ticket amid each message", lite("tickets"), Connects(), seal=amid(ticket)),
    Row(
        "a ticket in pieces",
        lite("tickets in five records"),
        Connects(),
        seal=after(lambda stack: stack.fragments(ticket_message(), [1, 4, 9, 20])),
    ),
    Row(
        "a ticket of 16 KB",
        lite("large tickets"),
        Connects(),
        seal=after(lambda stack: stack.fragments(ticket_message(16_000), [9_000])),
    ),
    Row("KeyUpdate amid each message", lite("KeyUpdate"), Connects(), seal=amid(key_updates(1, 0))),
    Row(
        "32 KeyUpdates before each message",
        lite("KeyUpdates"),
        Connects(),
        seal=after(key_updates(32, 0)),
    ),
    Row(
        "KeyUpdate that asks for ours",
        lite("KeyUpdate, requested"),
        Connects(holds=has_updated),
        seal=after(key_updates(1, 1)),
    ),
    Row("KeyUpdate before the response", lite("KeyUpdate"), Connects(), before=key_updates(1, 0)),
    Row(
        "KeyUpdate that asks for ours before the response",
        lite("KeyUpdate, requested"),
        Connects(holds=has_updated),
        before=key_updates(1, 1),
    ),
    Row(
        "user_canceled, which ends nothing",
        lite("user_canceled"),
        Connects(),
        seal=after(lambda stack: stack.alert(USER_CANCELED, WARNING)),
    ),
    Row(
        "TLS 1.2, a warning that ends nothing",
        lite_1_2("no_certificate"),
        GCM_1_2,
        seal=after(lambda stack: stack.alert(NO_CERTIFICATE, WARNING)),
    ),
    Row(
        "TLS 1.2, a warning before its hello: it does not know our name",
        altered(
            lite_1_2(), "unrecognized_name first", before_server_hello(warning(UNRECOGNIZED_NAME))
        ),
        GCM_1_2,
    ),
    Row(
        "TLS 1.3, no change_cipher_spec in the handshake",
        altered(lite(), "without change_cipher_spec", without_change_cipher_spec),
        Connects(),
    ),
    Row(
        "TLS 1.3, change_cipher_spec twice in the handshake",
        altered(
            lite(), "one more change_cipher_spec", behind_server_hello(CHANGE_CIPHER_SPEC_RECORD)
        ),
        Connects(),
    ),
]

SECTIONS = {"Sizes of records": SIZES, "Between the messages": BETWEEN}
