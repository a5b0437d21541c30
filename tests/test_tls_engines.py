"""Both TLS engines against three servers by other authors, after the handshake.

What a test says holds for both engines, unless it names the difference. Inputs are also cut in two
at every byte, the first part being read before the second is sent. That a key is renewed before it
has sealed too much is tested in the core: 2^24 records are too many for here.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trustme
from servers import (
    BINARY,
    CLOSE,
    PEER_TIMEOUT,
    TEXT,
    Peer,
    Serve,
    accept_value,
    close_payload,
    encode_frame,
)
from tls_peers import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    CONTENT_SIZE_MAX,
    HANDSHAKE,
    HEADER_SIZE,
    HELLO_REQUEST,
    KEY_UPDATE,
    NEW_SESSION_TICKET,
    SUITES,
    SUITES_1_2,
    SUITES_1_3,
    WARNING,
    CollectingClient,
    Conversation,
    Identity,
    Listener,
    LiteTls,
    OpensslServer,
    OpensslTls,
    Outcome,
    PythonTls,
    Stack,
    Suite,
    lite_settings,
    message,
    openssl_program,
    python_context,
    ticket_message,
)

import hftws

ENGINES = ["direct", "openssl"]
#: The suites that a Python server can be made to choose.
PYTHON_SUITES = [suite for suite in SUITES if str(suite) != "TLSv1.3 CHACHA20-POLY1305"]

EOF_REASON = "the peer closed the TCP connection without a close frame"
CLOSE_NOTIFY_REASON = "the peer closed TLS without a close frame"

EMPTY_RECORDS_MAX = 32
WARNINGS_MAX = 32
KEY_UPDATES_MAX = 32

needs_openssl = pytest.mark.skipif(openssl_program() is None, reason="no openssl on this machine")


@dataclass
class Bed:
    """What the tests connect with."""

    identity: Identity
    listener: Listener
    _servers: dict[tuple[Any, ...], OpensslServer] = field(default_factory=dict)

    #: How a client and a server of it talk.
    conversation_type: ClassVar[type[Conversation]] = Conversation

    @contextlib.contextmanager
    def converse(
        self,
        stack: Stack,
        engine: str,
        *,
        client: CollectingClient | None = None,
        **options: Any,
    ) -> Iterator[Conversation]:
        """A client and a server that have shaken hands and upgraded."""
        client = client or self.client(engine)
        conversation = self.conversation_type(self.listener, client, stack, **options)
        try:
            conversation.connect()
            assert client.info()["engine"] == engine
            yield conversation
        finally:
            conversation.close()

    def client(self, engine: str, **options: Any) -> CollectingClient:
        """A client that is not connected yet."""
        url, ca_file = self.listener.url, self.identity.ca_file
        return CollectingClient(url, ca_file=ca_file, tls=engine, **options)

    def lite(self, suite: Suite, *, tickets: int = 0, **options: Any) -> LiteTls:
        return LiteTls(self.identity, lite_settings(suite, tickets=tickets), **options)

    def python(self, suite: Suite, **options: Any) -> PythonTls:
        return PythonTls(python_context(suite, self.identity, **options))

    def openssl(self, suite: Suite, *options: str) -> OpensslTls:
        """A connection to the one server with these options."""
        key = (suite, *options)
        if key not in self._servers:
            self._servers[key] = OpensslServer(suite, self.identity, *options)
        return OpensslTls(self._servers[key])

    def close(self) -> None:
        for server in self._servers.values():
            server.close()
        self.listener.close()


@pytest.fixture(scope="module")
def bed(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    bed = Bed(Identity(ca, tmp_path_factory.mktemp("tls")), Listener())
    yield bed
    bed.close()


class IdleTls:
    """A connection of Python's ``ssl`` that has nothing to read, with no socket."""

    def __init__(self, identity: Identity, suite: Suite) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=str(identity.ca_file))
        self.client = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        server = PythonTls(python_context(suite, identity, tickets=0))
        for _ in range(3):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            server.feed(outgoing.read())
            server.shake_hands()
            incoming.write(server.outgoing())

    def is_well(self) -> bool:
        """Whether a read finds nothing there, rather than an error of somebody else."""
        try:
            self.client.read(1)
        except ssl.SSLWantReadError:
            return True
        return False


@pytest.fixture(scope="module")
def idle_tls(bed: Bed) -> IdleTls:
    return IdleTls(bed.identity, SUITES_1_3[0])


@pytest.fixture(autouse=True)
def others_are_well(idle_tls: IdleTls) -> Iterator[None]:
    """Whatever happens, OpenSSL's error queue is left empty: it is shared with other code."""
    yield
    assert idle_tls.is_well()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


over_1_3 = pytest.mark.parametrize("suite", SUITES_1_3, ids=str)
over_1_2 = pytest.mark.parametrize("suite", SUITES_1_2, ids=str)
over_all = pytest.mark.parametrize("suite", SUITES, ids=str)


def text(payload: bytes) -> bytes:
    return encode_frame(TEXT, payload)


def data(stack: LiteTls, payload: bytes, **options: int) -> bytes:
    """A record with a text message."""
    return stack.record(APPLICATION_DATA, text(payload), **options)


def in_bytes(records: bytes) -> list[bytes]:
    return [records[place : place + 1] for place in range(len(records))]


def at_every_cut(conversation: Conversation, make: Callable[[bytes], bytes]) -> int:
    """What ``make`` makes of a payload arrives again and again, cut in two at each of its bytes.

    It brings the payload as one message. Once more, it comes byte by byte. Gives the times.
    """
    for cut in itertools.count(1):
        payload = b"%06d" % cut
        records = make(payload)
        conversation.exchange(records[:cut], records[cut:], messages=[payload])
        if cut >= len(records):
            break
    payload = b"the end"
    conversation.exchange(*in_bytes(make(payload)), messages=[payload])
    return cut + 1


# ---- What may come, and does no harm. ----------------------------------------------------------

Make = Callable[[LiteTls, bytes], bytes]


def in_two_records(stack: LiteTls, payload: bytes) -> bytes:
    frame = text(payload)
    return stack.seal(frame[:3]) + stack.seal(frame[3:])


HARMLESS: dict[str, Make] = {
    "data": lambda stack, payload: data(stack, payload),
    "data in two records": in_two_records,
    "empty records, then warnings": lambda stack, payload: (
        sealed(APPLICATION_DATA, b"", EMPTY_RECORDS_MAX)(stack)
        + alert(90, WARNING, 4)(stack)
        + data(stack, payload)
    ),
    "empty record": lambda stack, payload: (
        stack.record(APPLICATION_DATA, b"") + data(stack, payload)
    ),
}

#: RFC 8446, sections 4.6 and 5.4.
HARMLESS_1_3: dict[str, Make] = {
    "padding": lambda stack, payload: data(stack, payload, padding=19),
    "empty record, padded": lambda stack, payload: (
        stack.record(APPLICATION_DATA, b"", padding=5) + data(stack, payload)
    ),
    "ticket": lambda stack, payload: stack.fragments(ticket_message()) + data(stack, payload),
    "two tickets in one record": lambda stack, payload: (
        stack.fragments(ticket_message() * 2) + data(stack, payload)
    ),
    "ticket in four records": lambda stack, payload: (
        stack.fragments(ticket_message(), [1, 4, 9]) + data(stack, payload)
    ),
    "KeyUpdate": lambda stack, payload: stack.key_update() + data(stack, payload),
    "KeyUpdate in five records": lambda stack, payload: (
        stack.key_update(cuts=[1, 2, 3, 4]) + data(stack, payload)
    ),
    "KeyUpdate behind data": lambda stack, payload: (
        stack.seal(text(payload)[:4]) + stack.key_update() + stack.seal(text(payload)[4:])
    ),
    "KeyUpdate behind a ticket in one record": lambda stack, payload: (
        stack.key_update(before=ticket_message()) + data(stack, payload)
    ),
    "KeyUpdate behind a ticket, cut across records": lambda stack, payload: (
        stack.key_update(before=ticket_message(1), cuts=[3, 21]) + data(stack, payload)
    ),
    "two KeyUpdates": lambda stack, payload: (
        stack.key_update() + stack.key_update() + data(stack, payload)
    ),
    "user_canceled": lambda stack, payload: stack.alert(90, WARNING) + data(stack, payload),
}

#: RFC 5246, section 7.2: a warning does not have to end anything.
HARMLESS_1_2: dict[str, Make] = {
    "warning": lambda stack, payload: stack.alert(90, WARNING) + data(stack, payload),
    "warning with a fatal one's name": lambda stack, payload: (
        stack.alert(40, WARNING) + data(stack, payload)
    ),
}


def harmless(suites: list[Suite], *tables: dict[str, Make]) -> list[Any]:
    return [
        pytest.param(suite, make, id=f"{suite}-{name}")
        for suite in suites
        for table in tables
        for name, make in table.items()
    ]


@pytest.mark.parametrize(
    ("suite", "make"),
    harmless(SUITES_1_3, HARMLESS, HARMLESS_1_3) + harmless(SUITES_1_2, HARMLESS, HARMLESS_1_2),
)
def test_what_does_no_harm_is_read_however_it_is_cut(
    bed: Bed, engine: str, suite: Suite, make: Make
) -> None:
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        at_every_cut(conversation, lambda payload: make(stack, payload))
        conversation.hear(b"all the same")
        assert stack.alerts == []
        assert stack.key_updates == 0


@over_1_3
@pytest.mark.parametrize("cuts", [[], [2], [1, 2, 3, 4]], ids=["whole", "in two", "in bytes"])
def test_a_key_update_that_asks_for_ours_is_answered(
    bed: Bed, engine: str, suite: Suite, cuts: list[int]
) -> None:
    """Once, and before anything else is said (RFC 8446, section 4.6.3)."""
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        times = at_every_cut(
            conversation, lambda payload: stack.key_update(1, cuts=cuts) + data(stack, payload)
        )
        conversation.hear(b"with new keys")
        # OpenSSL answers when it is next called, so one answer may serve for two.
        assert stack.key_updates == times or engine == "openssl"
        assert 0 < stack.key_updates <= times


@over_1_3
def test_key_updates_and_data_go_both_ways(bed: Bed, engine: str, suite: Suite) -> None:
    """In a burst, and with large messages before and after new keys."""
    stack = bed.lite(suite)
    large = bytes(range(128)) * 200
    with bed.converse(stack, engine) as conversation:
        burst = b"".join(stack.key_update(n % 2) + data(stack, b"%d" % n) for n in range(50))
        conversation.exchange(burst, messages=[b"%d" % n for n in range(50)])
        conversation.hear(large)
        conversation.exchange(stack.key_update(1), messages=[])
        conversation.exchange(conversation.text(large), messages=[large])
        conversation.hear(large)
        conversation.exchange(data(stack, b"after"), messages=[b"after"])
        assert stack.key_updates > 1


def test_new_keys_come_behind_what_waits_to_be_sent(bed: Bed, engine: str) -> None:
    """What the kernel has not taken yet was sealed with the old keys, or will be with the new."""
    stack = bed.lite(SUITES_1_3[2])
    client = bed.client(engine, send_buffer_size=8192)
    with bed.converse(stack, engine, client=client) as conversation:
        chunk = b"chunk" * 6000
        count = 0
        while not client.wants_write:
            client.send(chunk)
            count += 1
        conversation.sock.sendall(stack.key_update(1) + data(stack, b"new keys"))
        assert client.poll(PEER_TIMEOUT) == 1
        client.send(chunk)
        size = (count + 1) * len(encode_frame(BINARY, chunk, mask=bytes(4)))
        while len(conversation.plaintext) < size:
            conversation.collect_more()
        conversation.expect(b"new keys")
        assert conversation.plaintext.count(chunk) == count + 1
        assert stack.key_updates == 1


@over_1_3
def test_as_many_key_updates_as_are_allowed(bed: Bed, engine: str, suite: Suite) -> None:
    """Data in between resets the count."""
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        for payload in (b"one", b"two"):
            updates = b"".join(stack.key_update() for _ in range(KEY_UPDATES_MAX))
            conversation.exchange(updates, data(stack, payload), messages=[payload])


@over_all
def test_as_many_empty_records_as_are_allowed(bed: Bed, engine: str, suite: Suite) -> None:
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        for payload in (b"one", b"two"):
            empty = b"".join(stack.record(APPLICATION_DATA, b"") for _ in range(EMPTY_RECORDS_MAX))
            conversation.exchange(empty, data(stack, payload), messages=[payload])


@over_1_3
def test_padding_of_every_size(bed: Bed, engine: str, suite: Suite) -> None:
    """Padding up to a full record, whose content is then one byte."""
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        for size in [*range(40), 255, 256, CONTENT_SIZE_MAX - len(text(b"x"))]:
            conversation.exchange(data(stack, b"x", padding=size), messages=[b"x"])


@over_1_3
def test_zeros_at_the_end_of_the_content_are_no_padding(
    bed: Bed, engine: str, suite: Suite
) -> None:
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        for size in (1, 15, 16, 100):
            conversation.exchange(data(stack, bytes(size), padding=size), messages=[bytes(size)])


@over_1_2
def test_a_hello_request_is_declined(bed: Bed, suite: Suite) -> None:
    """The direct engine does not renegotiate (RFC 5246, section 7.2.2)."""
    stack = bed.lite(suite)
    with bed.converse(stack, "direct") as conversation:
        hello_request = message(HELLO_REQUEST, b"")
        times = at_every_cut(
            conversation, lambda payload: stack.fragments(hello_request) + data(stack, payload)
        )
        for cuts in ((1,), (2,), (3,), (1, 2, 3)):
            records = stack.fragments(hello_request, cuts)
            conversation.exchange(records + data(stack, b"tick"), messages=[b"tick"])
            times += 1
        conversation.hear(b"all the same")
        assert stack.alerts == ["no_renegotiation"] * times


# ---- What ends the connection. -----------------------------------------------------------------


@dataclass(frozen=True)
class Ending:
    """An input that ends the connection, and how."""

    name: str
    make: Callable[[LiteTls], bytes]
    #: The alert that the client sends; empty if it only raises.
    alert: str
    #: The direct engine's words.
    reason: str
    error: str = "TLSError"
    #: Where OpenSSL differs, perhaps by version: the error, and the alerts.
    openssl: tuple[tuple[str, str], ...] = ()

    def judge(self, outcome: Outcome, engine: str, delivered: list[bytes]) -> None:
        """Compares it with what happened. OpenSSL's words are not checked."""
        assert outcome.messages == delivered
        expected = [(self.error, self.alert)]
        if engine == "openssl":
            expected += self.openssl
        assert (outcome.error, ", ".join(outcome.alerts)) in expected
        if engine == "direct":
            assert outcome.reason == self.reason
        elif outcome.error == "ConnectionClosed":
            assert outcome.reason in (self.reason, EOF_REASON)


GOES_ON = ("ConnectionClosed", "")
FAILS_SILENTLY = ("TLSError", "")


def refused(alert: str) -> tuple[str, str]:
    return "TLSError", alert


def forged(stack: LiteTls) -> bytes:
    record = data(stack, b"forged")
    return record[:-1] + bytes([record[-1] ^ 1])


def handshake(kind: int, body: bytes = b"") -> Callable[[LiteTls], bytes]:
    return lambda stack: stack.fragments(message(kind, body))


def sealed(content_type: int, content: bytes, times: int = 1) -> Callable[[LiteTls], bytes]:
    return lambda stack: b"".join(stack.record(content_type, content) for _ in range(times))


def sealed_and_padded(padding: int) -> Callable[[LiteTls], bytes]:
    """An empty record; the type of its content is one byte more."""
    return lambda stack: stack.record(APPLICATION_DATA, b"", padding=padding)


def alert(description: int, level: int = 2, times: int = 1) -> Callable[[LiteTls], bytes]:
    return sealed(ALERT, bytes([level, description]), times)


def plain(record: bytes) -> Callable[[LiteTls], bytes]:
    return lambda stack: record


UNEXPECTED = (refused("unexpected_message"),)
BAD_MAC = "decryption failed or bad record mac"
OVERFLOW = "data length too long"
UNEXPECTED_RECORD = "unexpected record"
UNEXPECTED_MESSAGE = "unexpected message"
MIXED = "mixed handshake and non handshake data"

ENDINGS = [
    Ending("forged tag", forged, "bad_record_mac", BAD_MAC),
    Ending(
        "content too long",
        sealed(APPLICATION_DATA, bytes(CONTENT_SIZE_MAX + 1)),
        "record_overflow",
        OVERFLOW,
    ),
    # In TLS 1.2 it is for OpenSSL to read the body first: there it could be longer.
    Ending(
        "fragment too long",
        plain(b"\x17\x03\x03\x41\x01" + bytes(CONTENT_SIZE_MAX + 257)),
        "record_overflow",
        OVERFLOW,
        openssl=(refused("bad_record_mac"), GOES_ON),
    ),
    Ending("fragment longest", plain(b"\x17\x03\x03\xff\xff"), "record_overflow", OVERFLOW),
    Ending(
        "no room for a tag",
        plain(b"\x17\x03\x03\x00\x0f" + bytes(15)),
        "bad_record_mac",
        BAD_MAC,
        openssl=(refused("internal_error"),),
    ),
    Ending(
        "nothing at all",
        plain(b"\x17\x03\x03\x00\x00"),
        "bad_record_mac",
        BAD_MAC,
        openssl=(refused("internal_error"),),
    ),
    Ending(
        "change_cipher_spec, sealed",
        sealed(CHANGE_CIPHER_SPEC, b"\1"),
        "unexpected_message",
        UNEXPECTED_RECORD,
    ),
    Ending("unknown type", sealed(99, b"abc"), "unexpected_message", UNEXPECTED_RECORD),
    Ending("heartbeat", sealed(24, b"\1\0\0"), "unexpected_message", UNEXPECTED_RECORD),
    Ending(
        "empty records",
        sealed(APPLICATION_DATA, b"", EMPTY_RECORDS_MAX + 1),
        "unexpected_message",
        "too many empty records",
    ),
    Ending("fatal alert", alert(40), "", "alert from the peer: handshake_failure"),
    Ending("unknown_ca", alert(48), "", "alert from the peer: unknown_ca"),
    Ending("alert without a name", alert(200), "", "alert from the peer: one without a name"),
    Ending(
        "warnings",
        alert(90, WARNING, WARNINGS_MAX + 1),
        "unexpected_message",
        "too many warn alerts",
    ),
    # RFC 8446, section 6: "decode_error" for what cannot be parsed. OpenSSL sees it otherwise.
    Ending(
        "short alert", sealed(ALERT, b"\2"), "decode_error", "invalid alert", openssl=UNEXPECTED
    ),
    Ending(
        "long alert",
        sealed(ALERT, b"\2\x28\0"),
        "decode_error",
        "invalid alert",
        openssl=UNEXPECTED,
    ),
    Ending(
        "two alerts in one record",
        sealed(ALERT, b"\1\x5a\1\0"),
        "decode_error",
        "invalid alert",
        openssl=UNEXPECTED,
    ),
    Ending("ClientHello", handshake(1, bytes(40)), "unexpected_message", UNEXPECTED_MESSAGE),
    Ending("Finished", handshake(20, bytes(32)), "unexpected_message", UNEXPECTED_MESSAGE),
    Ending("unknown message", handshake(99, b"abc"), "unexpected_message", UNEXPECTED_MESSAGE),
    Ending(
        "close_notify",
        alert(0, WARNING),
        "close_notify",
        CLOSE_NOTIFY_REASON,
        error="ConnectionClosed",
    ),
    Ending(
        "close_notify, fatal",
        alert(0),
        "close_notify",
        CLOSE_NOTIFY_REASON,
        openssl=(GOES_ON,),  # In TLS 1.2 it obeys a fatal alert.
        error="ConnectionClosed",
    ),
    Ending(
        "close_notify, then data",
        lambda stack: stack.alert(0, WARNING) + data(stack, b"ignored"),
        "close_notify",
        CLOSE_NOTIFY_REASON,
        error="ConnectionClosed",
    ),
    Ending("a cut", plain(b""), "", EOF_REASON, error="ConnectionClosed"),
]

ENDINGS_1_3 = [
    Ending(
        "no content type",
        lambda stack: stack.inner(bytes(20)),
        "unexpected_message",
        "record without content type",
    ),
    Ending(
        "padding too long",
        sealed_and_padded(CONTENT_SIZE_MAX + 1),
        "record_overflow",
        OVERFLOW,
        openssl=(GOES_ON,),  # It measures what is left without the padding.
    ),
    Ending(
        "nothing under the tag",
        lambda stack: stack.inner(b""),
        "unexpected_message",
        "record without content type",
        openssl=(refused("bad_record_mac"),),
    ),
    Ending(
        "change_cipher_spec in the open",
        plain(b"\x14\x03\x03\x00\x01\x01"),
        "unexpected_message",
        UNEXPECTED_RECORD,
        openssl=(GOES_ON,),  # 3.5 drops it, as it has to before the handshake's end.
    ),
    Ending(
        "alert in the open",
        plain(b"\x15\x03\x03\x00\x02\x02\x28"),
        "unexpected_message",
        UNEXPECTED_RECORD,
    ),
    Ending(
        "handshake in the open",
        plain(b"\x16\x03\x03\x00\x05\x18\x00\x00\x01\x00"),
        "unexpected_message",
        UNEXPECTED_RECORD,
    ),
    Ending(
        "unknown type in the open",
        plain(b"\x63\x03\x03\x00\x02\x00\x00"),
        "unexpected_message",
        UNEXPECTED_RECORD,
    ),
    Ending(
        "sealed as a handshake",
        lambda stack: stack.inner(text(b"x") + b"\x17", outer_type=HANDSHAKE),
        "unexpected_message",
        UNEXPECTED_RECORD,
    ),
    Ending(
        "unknown KeyUpdate",
        handshake(KEY_UPDATE, b"\2"),
        "illegal_parameter",
        "bad key update",
    ),
    Ending("empty KeyUpdate", handshake(KEY_UPDATE), "decode_error", "bad length"),
    Ending(
        "long KeyUpdate",
        handshake(KEY_UPDATE, b"\0\0"),
        "decode_error",
        "bad length",
        openssl=(refused("illegal_parameter"),),
    ),
    Ending(
        "two KeyUpdates in one record",
        lambda stack: stack.record(HANDSHAKE, message(KEY_UPDATE, b"\0") * 2),
        "unexpected_message",
        UNEXPECTED_MESSAGE,
    ),
    Ending(
        "ticket behind a KeyUpdate in one record",
        lambda stack: stack.record(HANDSHAKE, message(KEY_UPDATE, b"\0") + ticket_message()),
        "unexpected_message",
        UNEXPECTED_MESSAGE,
    ),
    Ending(
        "data with the old keys behind a KeyUpdate",
        lambda stack: stack.fragments(message(KEY_UPDATE, b"\0")) + data(stack, b"old"),
        "bad_record_mac",
        BAD_MAC,
    ),
    Ending(
        "flood of KeyUpdates",
        lambda stack: b"".join(stack.key_update() for _ in range(KEY_UPDATES_MAX + 1)),
        "unexpected_message",
        "too many key updates",
        openssl=(GOES_ON,),
    ),
    Ending(
        "flood of KeyUpdates that ask for ours",
        lambda stack: b"".join(stack.key_update(1) for _ in range(KEY_UPDATES_MAX + 1)),
        "unexpected_message",
        "too many key updates",
        openssl=(GOES_ON,),
    ),
    Ending(
        "data within a KeyUpdate",
        lambda stack: stack.record(HANDSHAKE, b"\x18\0") + data(stack, b"x"),
        "unexpected_message",
        MIXED,
    ),
    Ending(
        "alert within a ticket",
        lambda stack: stack.record(HANDSHAKE, ticket_message()[:9]) + stack.alert(40),
        "unexpected_message",
        MIXED,
        openssl=(FAILS_SILENTLY,),
    ),
    # RFC 8446, section 5.4: records without content are for data only.
    Ending(
        "empty handshake record", sealed(HANDSHAKE, b""), "unexpected_message", UNEXPECTED_RECORD
    ),
    Ending(
        "empty handshake record, padded",
        lambda stack: stack.record(HANDSHAKE, b"", padding=7),
        "unexpected_message",
        UNEXPECTED_RECORD,
    ),
    Ending("empty alert record", sealed(ALERT, b""), "unexpected_message", UNEXPECTED_RECORD),
    Ending(
        "CertificateRequest",
        handshake(13, b"\0\0\0"),
        "unexpected_message",
        UNEXPECTED_MESSAGE,
    ),
    Ending("EndOfEarlyData", handshake(5), "unexpected_message", UNEXPECTED_MESSAGE),
    Ending("HelloRequest", handshake(HELLO_REQUEST), "unexpected_message", UNEXPECTED_MESSAGE),
    Ending("empty ticket", handshake(NEW_SESSION_TICKET), "decode_error", "bad length"),
    Ending(
        "endless ticket",
        lambda stack: stack.record(HANDSHAKE, b"\4\xff\xff\xff"),
        "decode_error",
        "bad length",
        openssl=(refused("illegal_parameter"),),
    ),
    # After the first data only OpenSSL looks into a ticket.
    Ending(
        "bad ticket",
        handshake(NEW_SESSION_TICKET, b"abc"),
        "",
        EOF_REASON,
        openssl=(refused("decode_error"),),
        error="ConnectionClosed",
    ),
    # The level says nothing (RFC 8446, section 6).
    Ending("alert as a warning", alert(40, WARNING), "", "alert from the peer: handshake_failure"),
    Ending("alert of no level", alert(40, 7), "", "alert from the peer: handshake_failure"),
    Ending(
        "user_canceled, then close_notify",
        lambda stack: stack.alert(90, WARNING) + stack.alert(0, WARNING),
        "close_notify",
        CLOSE_NOTIFY_REASON,
        error="ConnectionClosed",
    ),
]


def other_version(stack: LiteTls) -> bytes:
    record = data(stack, b"x")
    return record[:2] + b"\2" + record[3:]


ENDINGS_1_2 = [
    Ending("wrong version", other_version, "protocol_version", "wrong version number"),
    Ending(
        "long HelloRequest",
        handshake(HELLO_REQUEST, b"x"),
        "unexpected_message",
        UNEXPECTED_MESSAGE,
        openssl=(refused("illegal_parameter"),),
    ),
    Ending("KeyUpdate", handshake(KEY_UPDATE, b"\0"), "unexpected_message", UNEXPECTED_MESSAGE),
    Ending(
        "ticket",
        handshake(NEW_SESSION_TICKET, b"abc"),
        "unexpected_message",
        UNEXPECTED_MESSAGE,
    ),
    Ending(
        "empty handshake record",
        sealed(HANDSHAKE, b""),
        "unexpected_message",
        UNEXPECTED_RECORD,
        openssl=(GOES_ON,),
    ),
    Ending(
        "empty alert record",
        sealed(ALERT, b""),
        "unexpected_message",
        UNEXPECTED_RECORD,
    ),
    Ending(
        "alert of no level",
        alert(40, 7),
        "",
        "alert from the peer: handshake_failure",
        openssl=(refused("illegal_parameter"),),
    ),
]


def endings(suites: list[Suite], *tables: list[Ending]) -> list[Any]:
    return [
        pytest.param(suite, ending, id=f"{suite}-{ending.name}")
        for suite in suites
        for table in tables
        for ending in table
    ]


def representative_cuts(records: bytes) -> list[list[bytes]]:
    """Within the first header, behind it, before the last byte; in bytes."""
    if len(records) < 2:
        return [[records]]
    places = {1, HEADER_SIZE, len(records) - 1}
    ways = [[records[:place], records[place:]] for place in sorted(places)]
    return [*ways, in_bytes(records)] if len(records) < 400 else ways


@pytest.mark.parametrize(
    ("suite", "ending"),
    endings(SUITES_1_3, ENDINGS, ENDINGS_1_3) + endings(SUITES_1_2, ENDINGS, ENDINGS_1_2),
)
def test_what_ends_the_connection(bed: Bed, engine: str, suite: Suite, ending: Ending) -> None:
    """What came before is delivered, it and what follows are not, and the server gets an alert."""
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        conversation.exchange(data(stack, b"before"), messages=[b"before"])
        good = data(stack, b"good")
        outcome = conversation.finish(good + ending.make(stack), hang_up=True)
        ending.judge(outcome, engine, [b"good"])


@pytest.mark.parametrize(
    ("suite", "ending"),
    endings(SUITES_1_3[:1], ENDINGS, ENDINGS_1_3) + endings(SUITES_1_2[:1], ENDINGS, ENDINGS_1_2),
)
def test_what_ends_the_connection_ends_it_however_it_is_cut(
    bed: Bed, engine: str, suite: Suite, ending: Ending
) -> None:
    for index in itertools.count():
        stack = bed.lite(suite)
        with bed.converse(stack, engine) as conversation:
            records = ending.make(stack)
            ways = representative_cuts(records)
            ending.judge(conversation.finish(*ways[index], hang_up=True), engine, [])
        if index == len(ways) - 1:
            break


@pytest.mark.parametrize("suite", PYTHON_SUITES, ids=str)
def test_no_byte_of_a_record_can_be_changed(bed: Bed, engine: str, suite: Suite) -> None:
    ending = Ending("", forged, "bad_record_mac", BAD_MAC)
    context = python_context(suite, bed.identity)
    for place in itertools.count(HEADER_SIZE):
        stack = PythonTls(context)
        with bed.converse(stack, engine) as conversation:
            good, record = conversation.text(b"good"), bytearray(conversation.text(b"x"))
            record[place] ^= 1 << place % 8
            ending.judge(conversation.finish(good + bytes(record)), engine, [b"good"])
        if place == len(record) - 1:
            break


@pytest.mark.parametrize("suite", PYTHON_SUITES, ids=str)
@pytest.mark.parametrize(
    "order", [[0, 0], [1, 0], [0, 2], [0, 1, 1, 2], [0, 1, 0]], ids=lambda order: str(order)
)
def test_records_come_once_and_in_their_order(
    bed: Bed, engine: str, suite: Suite, order: list[int]
) -> None:
    """The sequence number is in what is authenticated."""
    ending = Ending("", forged, "bad_record_mac", BAD_MAC)
    good = next(place for place, number in enumerate(order) if place != number)
    with bed.converse(bed.python(suite), engine) as conversation:
        records = [conversation.text(b"%d" % number) for number in range(3)]
        outcome = conversation.finish(b"".join(records[number] for number in order))
        ending.judge(outcome, engine, [b"%d" % number for number in range(good)])


@pytest.mark.parametrize("suite", [PYTHON_SUITES[0], PYTHON_SUITES[2]], ids=str)
def test_a_cut_is_told_from_close_notify_wherever_it_is(
    bed: Bed, engine: str, suite: Suite
) -> None:
    """RFC 8446, section 6.1: what could be a truncation attack."""
    context = python_context(suite, bed.identity)
    for kept in itertools.count():
        stack = PythonTls(context)
        with bed.converse(stack, engine) as conversation:
            good, close_notify = conversation.text(b"good"), stack.close_notify()
            outcome = conversation.finish(good + close_notify[:kept], hang_up=True)
        whole = kept == len(close_notify)
        reason = CLOSE_NOTIFY_REASON if whole else EOF_REASON
        answer = ["close_notify"] if whole else []
        assert outcome == Outcome([b"good"], "ConnectionClosed", reason, answer)
        if whole:
            break


@over_all
def test_the_client_says_close_notify(bed: Bed, engine: str, suite: Suite) -> None:
    """After the closing handshake. What comes after the server's CLOSE changes nothing."""
    inputs = [plain(b""), forged, handshake(99), alert(40), sealed(APPLICATION_DATA, b"x")]
    if suite.version == "TLSv1.3":
        inputs.append(lambda stack: stack.key_update(1))
    for make in inputs:
        stack = bed.lite(suite)
        with bed.converse(stack, engine) as conversation:
            close = stack.seal(encode_frame(CLOSE, close_payload(1000)))
            outcome = conversation.finish(close, make(stack), hang_up=True)
            assert (outcome.error, outcome.alerts[:1]) == ("ConnectionClosed", ["close_notify"])
            assert conversation.client.close_code == 1000


# ---- Data. -------------------------------------------------------------------------------------

SIZES = [0, 1, 15, 16, 17, 125, 126, 1000, 16360, 16383, 16384, 16385, 65535, 65536, 200_000]


@pytest.mark.parametrize("suite", PYTHON_SUITES, ids=str)
def test_messages_of_every_size_go_both_ways(bed: Bed, engine: str, suite: Suite) -> None:
    with bed.converse(bed.python(suite), engine) as conversation:
        for size in SIZES:
            payload = bytes(97 + place % 26 for place in range(size))
            conversation.exchange(conversation.text(payload), messages=[payload])
            conversation.hear(payload)


@pytest.mark.parametrize("suite", PYTHON_SUITES, ids=str)
def test_sequence_numbers_count_on(bed: Bed, engine: str, suite: Suite) -> None:
    """Past the lowest two bytes of the sequence numbers, both ways."""
    with bed.converse(bed.python(suite), engine) as conversation:
        for _ in range(70):
            payloads = [b"%d" % number for number in range(1000)]
            records = b"".join(conversation.text(payload) for payload in payloads)
            conversation.exchange(records, messages=payloads)
            for payload in payloads:
                conversation.client.send(payload)
            sent = b"".join(encode_frame(BINARY, payload, mask=bytes(4)) for payload in payloads)
            while len(conversation.plaintext) < len(sent):
                conversation.collect_more()
            assert conversation.plaintext == sent
            conversation.plaintext = b""


# ---- OpenSSL's own server. ---------------------------------------------------------------------


@needs_openssl
@over_all
@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="as it comes"),
        pytest.param(["-num_tickets", "0"], id="no tickets"),
        pytest.param(["-num_tickets", "5"], id="five tickets"),
        pytest.param(["-record_padding", "64"], id="padded"),
    ],
)
def test_openssls_server_is_understood(
    bed: Bed, engine: str, suite: Suite, options: list[str]
) -> None:
    with bed.converse(bed.openssl(suite, *options), engine) as conversation:
        conversation.exchange(conversation.text(b"hello"), messages=[b"hello"])
        conversation.hear(b"and you")
        conversation.exchange(*in_bytes(conversation.text(b"hello")), messages=[b"hello"])
        conversation.hear(bytes(20_000))


@needs_openssl
@over_all
def test_openssls_small_records_are_put_together(bed: Bed, engine: str, suite: Suite) -> None:
    stack = bed.openssl(suite, "-max_send_frag", "512")
    with bed.converse(stack, engine) as conversation:
        payload = bytes(97 + place % 26 for place in range(1500))
        records = stack.seal(text(payload), records=3)
        for cut in range(1, len(records), 97):
            conversation.exchange(records[:cut], records[cut:], messages=[payload])
            records = stack.seal(text(payload), records=3)
        conversation.exchange(records, messages=[payload])


@needs_openssl
@over_1_3
@pytest.mark.parametrize("command", ["k", "K"])
def test_openssls_key_updates_are_followed(
    bed: Bed, engine: str, suite: Suite, command: str
) -> None:
    """K asks for our new keys, too. Each time cut at another byte."""
    stack = bed.openssl(suite)
    with bed.converse(stack, engine) as conversation:
        at_every_cut(
            conversation, lambda payload: stack.command(command) + stack.seal(text(payload))
        )
        conversation.hear(b"with new keys")
        said = stack.server.said[stack.begin :]
        assert (b"read client key update" in said) == (command == "K")


@needs_openssl
@over_all
def test_openssls_ways_to_end(bed: Bed, engine: str, suite: Suite) -> None:
    """A cut; and CLOSE, whereupon both say close_notify."""
    stack = bed.openssl(suite)
    with bed.converse(stack, engine) as conversation:
        records = conversation.text(b"good")
        stack.server.write(b"q\n")
        assert stack.sock.recv(1) == b""
        outcome = conversation.finish(records, hang_up=True)
        assert outcome == Outcome([b"good"], "ConnectionClosed", EOF_REASON, [])
    stack = bed.openssl(suite)
    with bed.converse(stack, engine) as conversation:
        conversation.deliver(stack.seal(encode_frame(CLOSE, close_payload(1000, "bye"))))
        conversation.wait_for(rb"alert read:warning:close notify")
        outcome = conversation.finish(stack.read_records(1), hang_up=True)
        assert (outcome.error, outcome.reason) == ("ConnectionClosed", "bye")
        assert conversation.client.close_code == 1000


@needs_openssl
@over_all
def test_plain_text_amid_the_records_is_refused(bed: Bed, engine: str, suite: Suite) -> None:
    stack = bed.openssl(suite)
    with bed.converse(stack, engine) as conversation:
        records = conversation.text(b"good")
        stack.server.write(b"P\n")
        plain_text = stack.sock.recv(100)
        assert plain_text.startswith(b"Lets print")
        outcome = conversation.finish(records + plain_text)
        assert (outcome.messages, outcome.error) == ([b"good"], "TLSError")
        conversation.wait_for(rb"alert read:fatal:")


@needs_openssl
@over_all
def test_openssl_is_told_why_a_record_is_refused(bed: Bed, engine: str, suite: Suite) -> None:
    stack = bed.openssl(suite)
    with bed.converse(stack, engine) as conversation:
        record = bytearray(conversation.text(b"forged"))
        record[-1] ^= 1
        assert conversation.finish(bytes(record)).error == "TLSError"
        conversation.wait_for(rb"alert read:fatal:bad record mac")


@needs_openssl
@over_1_2
def test_a_server_that_shakes_hands_again(bed: Bed, engine: str, suite: Suite) -> None:
    """The direct engine refuses, and OpenSSL's server then ends the connection."""
    stack = bed.openssl(suite)
    with bed.converse(stack, engine) as conversation:
        conversation.deliver(stack.command("r"))
        if engine == "direct":
            conversation.wait_for(rb"alert read:warning:no renegotiation")
            outcome = conversation.finish(stack.read_records(1))
            assert outcome.error == "TLSError"
            assert outcome.reason == "alert from the peer: handshake_failure"
            return
        conversation.relay(lambda: stack.has_said(rb"read client hello.*read finished"))
        stack.server.write(text(b"hello"))
        conversation.relay(lambda: conversation.messages)
        conversation.expect(b"hello")
        conversation.hear(b"and you")


# ---- Tickets, and what they are for. -----------------------------------------------------------


def python_servers(bed: Bed, suite: Suite) -> Callable[[bool], Stack]:
    before, after = (python_context(suite, bed.identity) for _ in range(2))
    return lambda replaced: PythonTls(after if replaced else before)


def lite_servers(bed: Bed, suite: Suite) -> Callable[[bool], Stack]:
    before, after = (lite_settings(suite, tickets=2, key=key * 32) for key in (b"1", b"2"))
    return lambda replaced: LiteTls(bed.identity, after if replaced else before)


def openssl_servers(bed: Bed, suite: Suite) -> Callable[[bool], Stack]:
    return lambda replaced: bed.openssl(suite, *(["-record_padding", "64"] if replaced else []))


RESTARTS = (
    [pytest.param(python_servers, suite, id=f"ssl-{suite}") for suite in PYTHON_SUITES]
    + [pytest.param(lite_servers, suite, id=f"tlslite-{suite}") for suite in SUITES]
    + [
        pytest.param(openssl_servers, suite, id=f"openssl-{suite}", marks=needs_openssl)
        for suite in SUITES
    ]
)


@pytest.mark.parametrize(("make", "suite"), RESTARTS)
def test_a_reconnect_resumes_the_session(
    bed: Bed,
    engine: str,
    make: Callable[[Bed, Suite], Callable[[bool], Stack]],
    suite: Suite,
) -> None:
    """If the server has forgotten the session, the handshake is a full one."""
    servers, client = make(bed, suite), bed.client(engine)
    for replaced, resumed in ((False, False), (False, True), (False, True), (True, False)):
        stack = servers(replaced)
        with bed.converse(stack, engine, client=client) as conversation:
            conversation.exchange(conversation.text(b"hello"), messages=[b"hello"])
            conversation.hear(b"and you")
            info = client.info()
            assert (info["tls_resumed"], stack.resumed) == (resumed, resumed)
            assert info["cipher"] == suite.cipher


@over_1_3
def test_tickets_after_the_first_data(bed: Bed, engine: str, suite: Suite) -> None:
    """OpenSSL keeps them. The direct engine skips them, and the next handshake is a full one."""
    client, settings = bed.client(engine), lite_settings(suite, tickets=1)
    without = lite_settings(suite)
    for chosen, resumed in ((without, False), (settings, engine == "openssl")):
        stack = LiteTls(bed.identity, chosen)
        with bed.converse(stack, engine, client=client) as conversation:
            tickets = stack.tickets(settings)
            conversation.exchange(tickets + data(stack, b"hello"), messages=[b"hello"])
            assert client.info()["tls_resumed"] == resumed


#: Bodies of tickets, and the alert that OpenSSL sends: its own checks are those of both engines.
BAD_TICKETS = [
    pytest.param(b"abc", "decode_error", id="cut off"),
    pytest.param(ticket_message()[4:-1], "decode_error", id="without its end"),
    pytest.param(bytes(13), "decode_error", id="no ticket in it"),
    # server_name and key_share have no place in it.
    pytest.param(
        ticket_message()[4:-2] + b"\0\4\0\0\0\0", "illegal_parameter", id="forbidden extension"
    ),
    pytest.param(
        ticket_message()[4:-2] + b"\0\4\0\x2a\0\0", "decode_error", id="malformed extension"
    ),
]


@pytest.mark.parametrize(("body", "alert"), BAD_TICKETS)
def test_a_bad_ticket_before_the_first_data_is_refused(
    bed: Bed, engine: str, body: bytes, alert: str
) -> None:
    """OpenSSL gets it with either engine, so it has to be valid. The reason is OpenSSL's."""
    stack = bed.lite(SUITES_1_3[0])
    client = bed.client(engine, close_timeout=0.1)  # The server waits for the test.
    record = handshake(NEW_SESSION_TICKET, body)
    conversation = Conversation(bed.listener, client, stack, before=record)
    try:
        with pytest.raises(hftws.TLSError) as caught:
            conversation.connect()
        assert re.search(r": \w[\w ]+ \[wss:", str(caught.value))
        assert caught.value.reason != "unknown cause"
        conversation.drain()
        assert stack.alerts == [alert]
    finally:
        conversation.close()


# ---- The handover. -----------------------------------------------------------------------------

EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"

#: All that a server may send between its Finished and the response.
BETWEEN: dict[str, Callable[[LiteTls], bytes]] = {
    "ticket": lambda stack: stack.fragments(ticket_message()),
    "large ticket": lambda stack: stack.fragments(ticket_message(1000)),
    "ticket in four records": lambda stack: stack.fragments(ticket_message(), [1, 4, 9]),
    "two tickets in two records": lambda stack: stack.fragments(ticket_message() * 2, [40]),
    "KeyUpdate": lambda stack: stack.key_update(),
    "KeyUpdate, asking": lambda stack: stack.key_update(1),
    "KeyUpdate in bytes": lambda stack: stack.key_update(1, cuts=[1, 2, 3, 4]),
    "KeyUpdate behind a ticket": lambda stack: stack.key_update(before=ticket_message()),
    "empty record": lambda stack: stack.record(APPLICATION_DATA, b""),
    "user_canceled": lambda stack: stack.alert(90, WARNING),
    "early hints": lambda stack: stack.record(APPLICATION_DATA, EARLY_HINTS),
}

OPENSSL_SERVERS = [
    (SUITES_1_3[0], ("-num_tickets", "0")),
    (SUITES_1_3[0], ("-num_tickets", "1", "-groups", "P-384", "-record_padding", "16")),
    (SUITES_1_3[1], ("-num_tickets", "5")),
    (SUITES_1_3[2], ("-num_tickets", "3", "-verify", "1", "-groups", "P-256")),
    (SUITES_1_2[0], ("-groups", "P-521")),
    (SUITES_1_2[2], ("-no_ticket",)),
]


class Plan:
    """One random handshake after the other, with one client and one server."""

    def __init__(self, bed: Bed, random_: random.Random, client_files: dict[str, Path]) -> None:
        self.bed, self.random = bed, random_
        self.suite = random_.choice(SUITES)
        self.tickets = random_.randrange(6)
        certificate = self.suite.version == "TLSv1.3" and random_.random() < 0.3
        self.client_files = client_files if certificate else {}
        kinds: list[Callable[[], Callable[[], Stack]]] = [self.python, self.lite]
        if openssl_program() is not None:
            kinds.append(self.openssl)
        self.stack = random_.choice(kinds)()

    def python(self) -> Callable[[], Stack]:
        self.suite = self.random.choice(PYTHON_SUITES)
        context = python_context(self.suite, self.bed.identity, tickets=self.tickets)
        curve = self.random.choice(["X25519", "prime256v1", "secp384r1", "secp521r1"])
        # Some of the older Pythons know no curve of that name, and use it all the same.
        unknown = (ssl.SSLError, ValueError) if curve == "X25519" else ()
        with contextlib.suppress(*unknown):
            context.set_ecdh_curve(curve)
        if self.suite.version == "TLSv1.2":
            self.client_files = {}
        if self.client_files:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.bed.identity.ca_file)
        return lambda: PythonTls(context)

    def lite(self) -> Callable[[], Stack]:
        settings = lite_settings(self.suite, tickets=self.tickets)
        curves = [["x25519"], ["secp256r1"], ["secp384r1"], ["x25519", "secp256r1"]]
        settings.eccCurves = self.random.choice(curves)
        settings.keyShares = settings.eccCurves[:1]
        early = EARLY_HINTS if self.random.random() < 0.5 else b""
        certificate = bool(self.client_files)
        return lambda: LiteTls(
            self.bed.identity, settings, client_certificate=certificate, early=early
        )

    def openssl(self) -> Callable[[], Stack]:
        self.suite, options = self.random.choice(OPENSSL_SERVERS)
        if self.suite.version == "TLSv1.2":
            self.client_files = {}
        return lambda: self.bed.openssl(self.suite, *options)

    def payloads(self, size_max: int) -> list[bytes]:
        return [self.payload(size_max) for _ in range(self.random.randrange(7))]

    def payload(self, size_max: int) -> bytes:
        size = self.random.choice([0, 1, 20, 125, 126, self.random.randrange(size_max)])
        return bytes(self.random.choices(b"abcdefgh", k=size))

    def between(self, stack: LiteTls) -> bytes:
        names = self.random.choices(list(BETWEEN), k=self.random.randrange(5))
        return b"".join(BETWEEN[name](stack) for name in names)

    def split(self) -> Callable[[bytes], list[bytes]] | None:
        """How what the server sends meanwhile is cut."""
        kind = self.random.choice(["not", "in two", "often", "in bytes"])
        if kind == "not":
            return None
        return lambda records: self.cut(records, kind)

    def cut(self, records: bytes, kind: str) -> list[bytes]:
        if kind == "in bytes" and len(records) <= 400:
            return in_bytes(records)
        count = 1 if kind == "in two" else 9
        places = sorted(self.random.randrange(len(records) + 1) for _ in range(count))
        pairs = zip([0, *places], [*places, len(records)], strict=True)
        return [records[start:end] for start, end in pairs if start < end]


@pytest.mark.parametrize("suite", [SUITES_1_3[0], SUITES_1_2[0]], ids=str)
def test_the_handover_is_exact_wherever_it_is_cut(bed: Bed, suite: Suite) -> None:
    """Each flight of the server is cut in two at each byte. No ticket is lost: all resume."""
    context, client = python_context(suite, bed.identity, tickets=1), bed.client("direct")
    sizes: list[int] = []

    def split(records: bytes) -> list[bytes]:
        sizes.append(len(records))
        return [records[:cut], records[cut:]]

    for cut in itertools.count():
        stack, holds = PythonTls(context), suite.version == "TLSv1.3"
        with bed.converse(stack, "direct", client=client, holds=holds, split=split) as conversation:
            assert client.info()["tls_resumed"] == (cut > 0)
            conversation.exchange(conversation.text(b"hello"), messages=[b"hello"])
            conversation.hear(b"and you")
        if cut == 0:
            sizes.clear()  # The only one with a certificate in it.
        elif cut >= max(sizes):
            break


@over_1_2
@pytest.mark.parametrize("size", [1, 5, 15, 16])
def test_a_finished_in_pieces(bed: Bed, engine: str, suite: Suite, size: int) -> None:
    """Each is a record with its own sequence number (RFC 5246, section 6.2.1)."""
    stack = bed.lite(suite)
    stack.connection.recordSize = size
    with bed.converse(stack, engine) as conversation:
        conversation.exchange(data(stack, b"hello"), messages=[b"hello"])
        conversation.hear(b"and you")


@pytest.mark.parametrize("first", BETWEEN)
@pytest.mark.parametrize("second", BETWEEN)
def test_whatever_comes_before_the_response(bed: Bed, first: str, second: str) -> None:
    """OpenSSL is given tickets only as long as it has seen every record."""
    stack = bed.lite(SUITES_1_3[0])
    options: dict[str, Any] = {
        "before": lambda stack: BETWEEN[first](stack) + BETWEEN[second](stack)
    }
    with bed.converse(stack, "direct", **options) as conversation:
        conversation.exchange(conversation.text(b"hello"), messages=[b"hello"])
        conversation.hear(b"and you")
        assert stack.key_updates == sum(
            "asking" in name or "bytes" in name for name in (first, second)
        )


@pytest.mark.parametrize("seed", range(160))
def test_the_handover_is_exact(bed: Bed, client_files: dict[str, Path], seed: int) -> None:
    """After any handshake, with anything right behind it, in pieces of any size."""
    random_ = random.Random(seed)
    plan = Plan(bed, random_, client_files)
    client = bed.client("direct", **plan.client_files)
    for _ in range(random_.choice([1, 1, 2, 3])):
        stack = plan.stack()
        early = plan.payloads(300 if isinstance(stack, OpensslTls) else 30_000)
        options: dict[str, Any] = {"split": plan.split()}
        if plan.suite.version == "TLSv1.3":
            options["holds"] = random_.random() < 0.5
            options["before"] = plan.between if isinstance(stack, LiteTls) else None
        then = b"".join(text(payload) for payload in early)
        with bed.converse(stack, "direct", client=client, then=then, **options) as conversation:
            info = client.info()
            assert info["cipher"] == plan.suite.cipher
            assert info["tls_resumed"] == stack.resumed
            conversation.expect(*early)
            for _ in range(3):
                payload = plan.payload(3000)
                records = conversation.text(payload)
                parts = plan.cut(records, random_.choice(["in two", "often"]))
                conversation.exchange(*parts, messages=[payload])
                conversation.hear(b"heard " + payload)
            assert stack.alerts == []


# ---- Behind Finished. --------------------------------------------------------------------------

#: What stands behind the server's Finished in its record, and what is in the next one.
HELLO = message(HELLO_REQUEST, b"")
BEHIND_FINISHED = {"nothing": (b"", b""), "all": (HELLO, b""), "half": (HELLO[:2], HELLO[2:])}
MORE_BEHIND = "the server has sent more in the record of its Finished, which OpenSSL keeps"

over_behind = pytest.mark.parametrize(
    ("behind", "rest"), BEHIND_FINISHED.values(), ids=list(BEHIND_FINISHED)
)


def shaken(peer: Peer, bed: Bed, suite: Suite, behind: bytes) -> LiteTls:
    """The server after its handshake."""
    stack = bed.lite(suite, behind_finished=behind)
    while not stack.complete:
        stack.feed(peer.recv_some())
        stack.shake_hands()
        peer.send(stack.outgoing())
    return stack


@over_1_2
@over_behind
def test_what_is_behind_finished_is_not_lost(
    bed: Bed, serve: Serve, suite: Suite, behind: bytes, rest: bytes
) -> None:
    """It stays inside OpenSSL, to which the records are left then; a named engine says so."""

    def script(peer: Peer) -> None:
        stack = shaken(peer, bed, suite, behind)
        header = peer.recv_exactly(HEADER_SIZE)
        stack.feed(header + peer.recv_exactly(int.from_bytes(header[3:], "big")))
        request = stack.open()
        key = re.search(rb"Sec-WebSocket-Key: ([^\r]+)", request)
        assert key is not None
        response = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_value(key[1].decode())}\r\n\r\n"
        )
        records = stack.fragments(rest) if rest else b""
        peer.send(records + stack.seal(response.encode() + text(b"first")))
        peer.recv_all()

    with serve(script) as server:
        options = {"ca_file": bed.identity.ca_file}
        received: list[bytes] = []
        client = server.client(
            lambda msg: received.append(bytes(msg)), url=server.url("/", "wss"), **options
        )
        client.connect()
        while not received:
            assert client.poll(PEER_TIMEOUT)
        assert received == [b"first"]
        info = client.info()
        assert (info["engine"], info["engine_reason"]) == (
            ("openssl", MORE_BEHIND) if behind else ("direct", "")
        )
        del client
    if behind:
        with serve(lambda peer: shaken(peer, bed, suite, behind)) as server:
            client = server.client(url=server.url("/", "wss"), tls="direct", **options)
            with pytest.raises(hftws.TLSError, match=MORE_BEHIND):
                client.connect()


@over_1_2
def test_a_hello_request_behind_finished_is_answered_before_the_next_record(
    bed: Bed, serve: Serve, suite: Suite
) -> None:
    """The server may wait for the answer."""
    types: list[int] = []

    def script(peer: Peer) -> None:
        shaken(peer, bed, suite, HELLO)
        while types[-1:] in ([], [APPLICATION_DATA]):  # The request.
            header = peer.recv_exactly(HEADER_SIZE)
            types.append(header[0])
            peer.recv_exactly(int.from_bytes(header[3:], "big"))

    with serve(script) as server:
        client = server.client(
            url=server.url("/", "wss"), tls="openssl", ca_file=bed.identity.ca_file
        )
        with pytest.raises(hftws.Error):
            client.connect()
    assert types[-1] in (HANDSHAKE, ALERT)


@over_1_3
def test_nothing_may_stand_behind_finished_in_tls_1_3(
    bed: Bed, serve: Serve, engine: str, suite: Suite
) -> None:
    """The keys change there (RFC 8446, section 5.1)."""
    alerts: list[bytes] = []

    def script(peer: Peer) -> None:
        stack = bed.lite(suite, behind_finished=ticket_message())
        stack.feed(peer.recv_some())
        stack.shake_hands()
        peer.send(stack.outgoing())
        alerts.append(peer.recv_all())

    with serve(script) as server:
        client = server.client(url=server.url("/", "wss"), tls=engine, ca_file=bed.identity.ca_file)
        with pytest.raises(hftws.TLSError, match="not on record boundary"):
            client.connect()
    assert alerts != [b""]
