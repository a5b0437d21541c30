"""What may come between the messages, and what ends the connection: as with the direct engine.

The inputs are those of test_tls_engines.py. The kernel opens each record, and tells its type.
"""

from __future__ import annotations

import random

import pytest
from servers import CLOSE, close_payload, encode_frame
from test_tls_engines import (
    CLOSE_NOTIFY_REASON,
    ENDINGS,
    ENDINGS_1_2,
    ENDINGS_1_3,
    EOF_REASON,
    FAILS_SILENTLY,
    GOES_ON,
    HARMLESS,
    HARMLESS_1_2,
    HARMLESS_1_3,
    KEY_UPDATES_MAX,
    Ending,
    Make,
    data,
    endings,
    harmless,
    over_1_3,
    over_all,
    refused,
    text,
)
from tls_peers import (
    CONTENT_SIZE_MAX,
    HEADER_SIZE,
    SUITES,
    SUITES_1_2,
    SUITES_1_3,
    LiteTls,
    Outcome,
    Suite,
)

from .support import KernelBed, TlsStat, has_rekey, needs_ktls

pytestmark = needs_ktls


def new_keys(name: str) -> bool:
    """Whether the input has a KeyUpdate that is in order."""
    return "KeyUpdate" in name and not name.startswith(("unknown", "empty", "long", "data within"))


UNCHANGED = {name: make for name, make in HARMLESS_1_3.items() if not new_keys(name)}
RENEWING = {name: make for name, make in HARMLESS_1_3.items() if new_keys(name)}

#: The kernel judges a KeyUpdate by its first byte.
IN_PIECES = RENEWING.pop("KeyUpdate in five records")

needs_rekey = pytest.mark.skipif(not has_rekey, reason="this kernel cannot replace keys")
needs_no_rekey = pytest.mark.skipif(has_rekey, reason="this kernel can replace keys")


def in_pieces(records: bytes, cuts_count: int, rng: random.Random) -> list[bytes]:
    """Cut at this many places, some of which may be equal."""
    cuts = sorted(rng.randrange(len(records) + 1) for _ in range(cuts_count))
    pairs = zip([0, *cuts], [*cuts, len(records)], strict=True)
    return [records[start:end] for start, end in pairs]


# ---- What does no harm. ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suite", "make"),
    harmless(SUITES_1_3, HARMLESS, UNCHANGED) + harmless(SUITES_1_2, HARMLESS, HARMLESS_1_2),
)
def test_what_does_no_harm(
    bed: KernelBed, engine: str, stat: TlsStat, suite: Suite, make: Make
) -> None:
    """Again and again, whole and in pieces."""
    stack, rng = bed.lite(suite), random.Random(1)
    with bed.converse(stack, engine) as conversation:
        for number in range(20):
            payload = b"%06d" % number
            records = make(stack, payload)
            conversation.exchange(*in_pieces(records, number % 4, rng), messages=[payload])
        conversation.hear(b"all the same")
        assert stack.alerts == []
    stat.expect(TlsTxSw=1, TlsRxSw=1)


@over_all
def test_what_does_no_harm_in_any_order(bed: KernelBed, engine: str, suite: Suite) -> None:
    stack, rng = bed.lite(suite), random.Random(2)
    others = UNCHANGED if suite.version == "TLSv1.3" else HARMLESS_1_2
    table = [*HARMLESS.values(), *others.values()]
    with bed.converse(stack, engine) as conversation:
        for number in range(30):
            payloads = [b"%d %d" % (number, index) for index in range(rng.randrange(1, 8))]
            records = b"".join(rng.choice(table)(stack, payload) for payload in payloads)
            conversation.exchange(records, messages=payloads)
        conversation.hear(b"all the same")


@over_1_3
def test_records_with_padding_that_are_read_at_once(
    bed: KernelBed, engine: str, suite: Suite
) -> None:
    """Linux 6.1 and 6.12 mix them up where they were told to expect none."""
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        for padding in (1, 5, 30, 1000):
            payloads = [b"%d" % number * (number + 1) for number in range(10)]
            records = b"".join(
                data(stack, payload, padding=padding * (number % 3))
                for number, payload in enumerate(payloads)
            )
            conversation.exchange(records, messages=payloads)


@over_1_3
def test_padding_of_every_size(bed: KernelBed, engine: str, suite: Suite) -> None:
    """The kernel finds the type of such a record only at its end."""
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        for size in [*range(20), 255, 256, CONTENT_SIZE_MAX - len(text(b"x"))]:
            conversation.exchange(data(stack, b"x", padding=size), messages=[b"x"])
        for size in (1, 15, 16, 100):
            zeros = bytes(size)
            conversation.exchange(data(stack, zeros, padding=size), messages=[zeros])


# ---- New keys. ---------------------------------------------------------------------------------


@needs_rekey
@pytest.mark.parametrize(("suite", "make"), harmless(SUITES_1_3, RENEWING))
def test_new_keys_are_the_kernels_too(
    bed: KernelBed, engine: str, stat: TlsStat, suite: Suite, make: Make
) -> None:
    stack, rng = bed.lite(suite), random.Random(3)
    with bed.converse(stack, engine) as conversation:
        for number in range(20):
            payload = b"%06d" % number
            records = make(stack, payload)
            conversation.exchange(*in_pieces(records, number % 4, rng), messages=[payload])
            conversation.hear(b"heard %d" % number)
        assert stack.alerts == []
        assert stack.key_updates == 0
    counted = stat.counted()
    assert counted["TlsRxRekeyOk"] in (20, 40) or engine != "ktls"
    assert counted["TlsTxRekeyOk"] == counted["TlsRxRekeyError"] == 0


@over_1_3
def test_a_key_update_in_pieces_is_too_much_for_the_kernel(
    bed: KernelBed, engine: str, suite: Suite
) -> None:
    """An error on every kernel. No real server sends this: a KeyUpdate has five bytes."""
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        if engine != "ktls":
            conversation.exchange(IN_PIECES(stack, b"new keys"), messages=[b"new keys"])
            return
        outcome = conversation.finish(data(stack, b"good") + IN_PIECES(stack, b"lost"))
    assert (outcome.messages, outcome.error) == ([b"good"], "TLSError")
    assert "KeyUpdate" in outcome.reason and "kernel" in outcome.reason, outcome.reason


@needs_rekey
@over_1_3
def test_a_key_update_that_asks_for_ours_is_answered(
    bed: KernelBed, engine: str, stat: TlsStat, suite: Suite
) -> None:
    """Before anything else is said, and with new keys for what follows."""
    stack, large = bed.lite(suite), bytes(range(128)) * 20
    with bed.converse(stack, engine) as conversation:
        for number in range(1, 21):
            payload = b"%d" % number
            conversation.exchange(stack.key_update(1), data(stack, payload), messages=[payload])
            conversation.hear(payload)
            assert stack.key_updates == number
        conversation.exchange(conversation.text(large), messages=[large])
        conversation.hear(large)
    stat.expect(TlsTxSw=1, TlsRxSw=1, TlsRxRekeyOk=20, TlsTxRekeyOk=20, TlsRxRekeyReceived=20)


@needs_rekey
@over_1_3
def test_key_updates_and_data_in_one_burst(bed: KernelBed, engine: str, suite: Suite) -> None:
    """What stands behind a KeyUpdate waits in the kernel for the key."""
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        burst = b"".join(stack.key_update(n % 2) + data(stack, b"%d" % n) for n in range(50))
        conversation.exchange(burst, messages=[b"%d" % n for n in range(50)])
        conversation.hear(b"with new keys")
        assert stack.key_updates > 0
        for payload in (b"one", b"two"):
            updates = b"".join(stack.key_update() for _ in range(KEY_UPDATES_MAX))
            conversation.exchange(updates, data(stack, payload), messages=[payload])


@needs_no_rekey
@over_1_3
@pytest.mark.parametrize("request_update", [0, 1], ids=["not requested", "requested"])
def test_a_kernel_that_cannot_replace_keys_says_so(
    bed: KernelBed, engine: str, suite: Suite, request_update: int
) -> None:
    """What came before is delivered. The server gets no alert: it did nothing wrong."""
    if engine != "ktls":
        pytest.skip(f"{engine} replaces keys by itself")
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        good = data(stack, b"good")
        records = good + stack.key_update(request_update) + data(stack, b"lost")
        outcome = conversation.finish(records)
    assert (outcome.messages, outcome.error) == ([b"good"], "TLSError")
    assert "KeyUpdate" in outcome.reason and "kernel" in outcome.reason, outcome.reason


# ---- What ends the connection. -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("suite", "ending"),
    endings(SUITES_1_3[2:], ENDINGS, ENDINGS_1_3) + endings(SUITES_1_2[:1], ENDINGS, ENDINGS_1_2),
)
def test_what_ends_the_connection(
    bed: KernelBed, engine: str, suite: Suite, ending: Ending
) -> None:
    """What came before is delivered, it and what follows are not, and the server gets an alert."""
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        conversation.exchange(data(stack, b"before"), messages=[b"before"])
        good = data(stack, b"good")
        outcome = conversation.finish(good + ending.make(stack), hang_up=True)
        judge(ending, outcome, suite, engine)


#: Where the kernel does not tell one cause from another; a version of TLS, or "" for both.
BY_KERNEL = {
    # It skips records without content, however many.
    ("", "empty records"): GOES_ON,
    # It waits for an explicit nonce before it looks at the size.
    ("TLSv1.2", "fragment longest"): GOES_ON,
    ("TLSv1.2", "nothing at all"): GOES_ON,
    # What cannot be opened, or has no type, is one error: EBADMSG.
    ("TLSv1.3", "no content type"): refused("bad_record_mac"),
    ("TLSv1.3", "nothing under the tag"): refused("bad_record_mac"),
    ("TLSv1.3", "change_cipher_spec in the open"): refused("bad_record_mac"),
    ("TLSv1.3", "alert in the open"): refused("bad_record_mac"),
    ("TLSv1.3", "handshake in the open"): refused("bad_record_mac"),
    ("TLSv1.3", "unknown type in the open"): refused("bad_record_mac"),
    # It authenticates the type of application data, whatever the header says.
    ("TLSv1.3", "sealed as a handshake"): refused("bad_record_mac"),
}

if has_rekey:  # It waits for new keys when a handshake message begins as a KeyUpdate does.
    BY_KERNEL["TLSv1.3", "data within a KeyUpdate"] = FAILS_SILENTLY
else:  # The first KeyUpdate is the end.
    BY_KERNEL["TLSv1.3", "data with the old keys behind a KeyUpdate"] = FAILS_SILENTLY
    BY_KERNEL["TLSv1.3", "flood of KeyUpdates"] = FAILS_SILENTLY
    BY_KERNEL["TLSv1.3", "flood of KeyUpdates that ask for ours"] = FAILS_SILENTLY


def judge(ending: Ending, outcome: Outcome, suite: Suite, engine: str) -> None:
    """As with the direct engine, except for what the kernel does not report."""
    key = (suite.version, ending.name)
    other = BY_KERNEL.get(key) or BY_KERNEL.get(("", ending.name))
    if engine != "ktls" or other is None:
        ending.judge(outcome, engine, [b"good"])
    else:
        assert outcome.messages == [b"good"]
        assert (outcome.error, ", ".join(outcome.alerts)) == other


@over_all
def test_no_byte_of_a_record_can_be_changed(bed: KernelBed, engine: str, suite: Suite) -> None:
    """Of its header neither, but that the kernel takes any type of TLS 1.3's for application data.

    Of the two records in one segment, the first one is delivered.
    """
    size = len(data(lite_of(bed, suite, engine), b"x"))
    first = 1 if suite.version == "TLSv1.3" else 0
    for place in [*range(first, HEADER_SIZE), *range(HEADER_SIZE, size - 1, 5), size - 1]:
        stack = bed.lite(suite)
        with bed.converse(stack, engine) as conversation:
            good, record = data(stack, b"good"), bytearray(data(stack, b"x"))
            record[place] ^= 1 << place % 8
            outcome = conversation.finish(good + bytes(record), hang_up=True)
            assert outcome.messages == [b"good"]
            assert outcome.error == "TLSError" or (place in (3, 4) and outcome.reason == EOF_REASON)


def lite_of(bed: KernelBed, suite: Suite, engine: str) -> LiteTls:
    """A server whose handshake is done."""
    stack = bed.lite(suite)
    with bed.converse(stack, engine):
        return stack


@pytest.mark.parametrize("suite", SUITES, ids=str)
@pytest.mark.parametrize("order", [[0, 0], [1, 0], [0, 2], [0, 1, 1, 2]], ids=str)
def test_records_come_once_and_in_their_order(
    bed: KernelBed, engine: str, suite: Suite, order: list[int]
) -> None:
    """The kernel counts on from where the handshake has stopped."""
    stack = bed.lite(suite)
    good = next(place for place, number in enumerate(order) if place != number)
    with bed.converse(stack, engine) as conversation:
        records = [data(stack, b"%d" % number) for number in range(3)]
        outcome = conversation.finish(b"".join(records[number] for number in order))
    assert outcome.messages == [b"%d" % number for number in range(good)]
    assert (outcome.error, outcome.alerts) == ("TLSError", ["bad_record_mac"])


@over_all
def test_a_cut_is_told_from_close_notify_wherever_it_is(
    bed: KernelBed, engine: str, suite: Suite
) -> None:
    """RFC 8446, section 6.1: what could be a truncation attack."""
    close_notify_size = len(lite_of(bed, suite, engine).alert(0, 1))
    for kept in {0, 1, 5, close_notify_size - 1, close_notify_size}:
        stack = bed.lite(suite)
        with bed.converse(stack, engine) as conversation:
            good, close_notify = data(stack, b"good"), stack.alert(0, 1)
            outcome = conversation.finish(good + close_notify[:kept], hang_up=True)
        whole = kept == close_notify_size
        reason = CLOSE_NOTIFY_REASON if whole else EOF_REASON
        answer = ["close_notify"] if whole else []
        assert outcome == Outcome([b"good"], "ConnectionClosed", reason, answer)


@pytest.mark.parametrize("suite", [SUITES[0], SUITES[3]], ids=str)
def test_the_client_says_close_notify(bed: KernelBed, engine: str, suite: Suite) -> None:
    """After the closing handshake, as an alert that the kernel has sealed."""
    stack = bed.lite(suite)
    with bed.converse(stack, engine) as conversation:
        close = stack.seal(encode_frame(CLOSE, close_payload(1000)))
        outcome = conversation.finish(close, hang_up=True)
        assert (outcome.error, outcome.alerts[:1]) == ("ConnectionClosed", ["close_notify"])
        assert conversation.client.close_code == 1000
