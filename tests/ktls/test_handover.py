"""From OpenSSL's handshake to the kernel's records: exact to the byte, and sessions are resumed."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from test_tls_engines import (
    BETWEEN,
    PYTHON_SUITES,
    Plan,
    lite_servers,
    over_1_2,
    python_servers,
    text,
)
from tls_peers import (
    SUITES,
    SUITES_1_2,
    SUITES_1_3,
    PythonTls,
    Suite,
    python_context,
    split_records,
)

from .support import KernelBed, TlsStat, needs_ktls

pytestmark = needs_ktls

#: Between two places where a flight is cut. Prime, so that no field is always spared.
STEP = 7


@pytest.mark.parametrize("suite", [SUITES_1_3[0], SUITES_1_2[0]], ids=str)
def test_messages_right_behind_the_response(
    bed: KernelBed, engine: str, stat: TlsStat, suite: Suite
) -> None:
    """In the same write, in one record or their own, whole or cut: nothing of them is lost.

    What has been read already when the keys are handed over, the kernel will never see.
    """
    payloads = [b"%d" % number * (number * 40 + 1) for number in range(8)]
    then = b"".join(map(text, payloads))
    for piece in (1, 40, 500, 100_000):
        stack = bed.lite(suite)
        records = [then[start : start + piece] for start in range(0, len(then), piece)]
        records = records[:40] + ([b"".join(records[40:])] if records[40:] else [])

        def seal(plaintext: bytes, stack: Any = stack, records: Any = records) -> bytes:
            head = plaintext[: len(plaintext) - len(then)]
            return b"".join(stack.record(23, content) for content in [head, *records])

        stack.seal, original = seal, stack.seal
        with bed.converse(stack, engine, then=then) as conversation:
            stack.seal = original
            conversation.expect(*payloads)
            conversation.exchange(conversation.text(b"next"), messages=[b"next"])
            conversation.hear(b"and you")
    stat.expect_connections(4)


@pytest.mark.parametrize("suite", [SUITES_1_3[0], SUITES_1_2[0]], ids=str)
def test_the_handover_is_exact_wherever_it_is_cut(
    bed: KernelBed, engine: str, stat: TlsStat, suite: Suite
) -> None:
    """Response, tickets and first messages come in one flight, of which a part arrives first."""
    context, client = python_context(suite, bed.identity, tickets=1), bed.client(engine)
    then, messages = text(b"first") + text(b"second" * 30), [b"first", b"second" * 30]
    sizes: list[int] = []

    def split(records: bytes) -> list[bytes]:
        sizes.append(len(records))
        edge = sum(map(len, split_records(records)[:-1]))
        place = edge if cut == 0 else cut
        return [records[:place], records[place:]]

    for cut in itertools.count(0, STEP):
        stack, holds = PythonTls(context), suite.version == "TLSv1.3"
        options: dict[str, Any] = {"holds": holds, "split": split, "then": then}
        with bed.converse(stack, engine, client=client, **options) as conversation:
            assert client.info()["tls_resumed"] == (cut > 0)
            conversation.expect(*messages)
            conversation.exchange(conversation.text(b"hello"), messages=[b"hello"])
            conversation.hear(b"and you")
        if cut == 0:
            sizes.clear()  # The only one with a certificate in it.
        elif cut >= max(sizes):
            break
    stat.expect_connections(cut // STEP + 1)


@pytest.mark.parametrize("first", BETWEEN)
def test_whatever_comes_before_the_response(
    bed: KernelBed, engine: str, stat: TlsStat, first: str
) -> None:
    """The kernel gets replaced keys, and counts of records, as they are at the handover."""
    for second in ("ticket", "KeyUpdate, asking", "empty record"):
        stack = bed.lite(SUITES_1_3[0])
        options: dict[str, Any] = {
            "before": lambda stack, second=second: BETWEEN[first](stack) + BETWEEN[second](stack)
        }
        with bed.converse(stack, engine, **options) as conversation:
            conversation.exchange(conversation.text(b"hello"), messages=[b"hello"])
            conversation.hear(b"and you")
            assert stack.key_updates == sum(
                "asking" in name or "bytes" in name for name in (first, second)
            )
    stat.expect_connections(3)


@over_1_2
@pytest.mark.parametrize("size", [1, 5, 16])
def test_a_finished_in_pieces(bed: KernelBed, engine: str, suite: Suite, size: int) -> None:
    """Each is a record with a number of its own, where the kernel has to count on."""
    stack = bed.lite(suite)
    stack.connection.recordSize = size
    with bed.converse(stack, engine) as conversation:
        conversation.exchange(stack.record(23, text(b"hello")), messages=[b"hello"])
        conversation.hear(b"and you")


@pytest.mark.parametrize("seed", range(24))
def test_any_handshake_can_be_handed_over(
    bed: KernelBed, engine: str, client_files: dict[str, Path], stat: TlsStat, seed: int
) -> None:
    """By three servers, and whatever came right behind it, in whatever pieces."""
    rng = random.Random(seed)
    plan = Plan(bed, rng, client_files)
    client = bed.client(engine, **plan.client_files)
    for _ in range(2):
        stack = plan.stack()
        early = plan.payloads(300)
        options: dict[str, Any] = {"split": plan.split()}
        if plan.suite.version == "TLSv1.3":
            options["holds"] = rng.random() < 0.5
        then = b"".join(text(payload) for payload in early)
        with bed.converse(stack, engine, client=client, then=then, **options) as conversation:
            info = client.info()
            assert info["cipher"] == plan.suite.cipher
            assert info["tls_resumed"] == stack.resumed
            conversation.expect(*early)
            payload = plan.payload(3000)
            parts = plan.cut(conversation.text(payload), rng.choice(["in two", "often"]))
            conversation.exchange(*parts, messages=[payload])
            conversation.hear(b"heard " + payload)
            assert stack.alerts == []
    stat.expect_connections(2)


# ---- Sessions. ---------------------------------------------------------------------------------

SERVERS = [
    *(pytest.param(python_servers, suite, id=f"ssl-{suite}") for suite in PYTHON_SUITES),
    *(pytest.param(lite_servers, suite, id=f"tlslite-{suite}") for suite in SUITES),
]


@pytest.mark.parametrize(("make", "suite"), SERVERS)
def test_a_reconnect_resumes_the_session(
    bed: KernelBed, engine: str, stat: TlsStat, make: Any, suite: Suite
) -> None:
    """Tickets are read before the keys are handed over; afterwards nobody reads them."""
    servers, client = make(bed, suite), bed.client(engine)
    for replaced, resumed in ((False, False), (False, True), (False, True), (True, False)):
        stack = servers(replaced)
        with bed.converse(stack, engine, client=client) as conversation:
            conversation.exchange(conversation.text(b"hello"), messages=[b"hello"])
            conversation.hear(b"and you")
            assert (client.info()["tls_resumed"], stack.resumed) == (resumed, resumed)
    stat.expect_connections(4)
