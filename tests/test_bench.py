"""The benchmarks work, notice wrong data, and write what can be read. The numbers do not matter."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import ssl
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from servers import PATIENCE

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.skipif(not (ROOT / "bench").is_dir(), reason="only a checkout has the benchmarks"),
    pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks ask Linux what has arrived"),
]

sys.path.append(str(ROOT))  # Last, so that an installed hftws is still the one that is tested.

#: Seconds for a run of the benchmarks. The first one compiles, and the compiler makes itself ready.
RUN_TIMEOUT = 300 * PATIENCE

FLOORS = ["C read", "C SSL_read"] if importlib.util.find_spec("ziglang") else []


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a tiny run has written."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "bench", "--tiny", "--output", str(folder)]
    clients = ",".join(["hftws", "hftws (not compressed)", *FLOORS])
    done = subprocess.run(
        [*command, "--only", "drain,compression,replay,burst", "--clients", clients],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def document(output: Path) -> Any:
    return json.loads((output / "results.json").read_text(encoding="utf-8"))


def test_json_is_complete(document: Any) -> None:
    assert set(document) == {
        "machine",
        "targets",
        "summary",
        "left_out",
        "failures",
        "processes",
    }
    assert set(document["machine"]) >= {"date", "commit", "cpu", "kernel", "python", "openssl"}
    assert document["failures"] == []
    assert document["left_out"] == {}
    ran = {line["benchmark"] for line in document["summary"]}
    assert ran == {"drain", "compression", "replay", "burst"}


def test_every_client_is_measured(document: Any) -> None:
    figures = {(s["client"], s["benchmark"], s["figure"]) for s in document["summary"]}
    for client in ["hftws", *FLOORS]:
        assert (client, "drain", "count") in figures
        assert (client, "compression", "count") in figures
        assert (client, "compression", "inflate") in figures or client == "hftws"
        if client != "C read":  # It has no TLS.
            assert (client, "replay", "p99") in figures
            assert (client, "burst", "first_queued") in figures
    assert ("hftws", "drain", "parse") in figures
    assert all(line["median"] > 0 for line in document["summary"] if "late" not in line["figure"])


def test_everyone_has_the_same_cipher_suite(document: Any) -> None:
    ciphers = {
        process["info"]["cipher"]
        for process in document["processes"]
        if process["client"] == "hftws" and not process["case"].startswith("plain")
    }
    assert ciphers == {"TLS_AES_128_GCM_SHA256"}


@pytest.mark.parametrize("transport", ["plain", "TLS, AES-128-GCM"])
def test_compression_saves_bytes(document: Any, transport: str) -> None:
    """Every client that offers compression gets the same bytes; others get plain messages."""

    def on_the_wire(takeover: str, client: str) -> float:
        (found,) = (
            line["median"]
            for line in document["summary"]
            if (line["benchmark"], line["case"], line["client"], line["figure"])
            == ("compression", f"{transport}, {takeover} context takeover", client, "wire")
        )
        assert isinstance(found, float)
        return found

    whole = on_the_wire("with", "hftws (not compressed)")
    assert on_the_wire("without", "hftws (not compressed)") == whole
    assert on_the_wire("with", "hftws") < on_the_wire("without", "hftws") < whole
    for floor in FLOORS:
        if (floor == "C read") == (transport == "plain"):
            for takeover in ("with", "without"):
                assert on_the_wire(takeover, floor) == on_the_wire(takeover, "hftws")


def test_compression_is_agreed_on_as_the_case_says(document: Any) -> None:
    agreed = {
        (process["client"], process["case"]): process["info"]["compression"]
        for process in document["processes"]
        if process["benchmark"] == "compression" and process["client"] not in FLOORS
    }
    assert len(agreed) == 8
    for (client, case), agreement in agreed.items():
        if client == "hftws (not compressed)":
            assert agreement is None
        else:
            assert agreement["server_no_context_takeover"] == ("without" in case)
            assert agreement["server_max_window_bits"] == 15


def test_only_those_who_can_inflate_take_part() -> None:
    """On any other, it would fail, and the whole run with it."""
    from bench.benchmarks import compression
    from bench.case import SCALES
    from bench.clients import SPECS

    with_takeover, without = list(compression.cases(SCALES["tiny"]))[:2]
    assert with_takeover.parameters["context_takeover"]
    assert not without.parameters["context_takeover"]
    assert not SPECS["websocket-rs"].takes_part(with_takeover)
    assert SPECS["websocket-rs"].takes_part(without)
    for name in ("hftws", "hftws (not compressed)", "websockets", "aiohttp", "C read"):
        assert SPECS[name].takes_part(with_takeover)
    for name in ("picows", "picows (Cython)", "websocket-client", "hftws (busy poll)"):
        assert not SPECS[name].takes_part(without)


def test_markdown_tables_are_whole(output: Path) -> None:
    lines = (output / "results.md").read_text(encoding="utf-8").splitlines()
    columns = 0
    tables = 0
    for line in lines:
        if not line.startswith("|"):
            columns = 0
            continue
        tables += columns == 0
        columns = columns or line.count("|")
        assert line.count("|") == columns, line
    assert tables >= 5
    for name in re.findall(r"!\[.*\]\((.*)\)", "\n".join(lines)):
        assert (output / name).is_file()


def test_charts_are_svg(output: Path) -> None:
    charts = sorted(output.glob("*.svg"))
    assert charts
    for chart in charts:
        root = ElementTree.parse(chart).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert "hftws" in texts


def test_wrong_data_ends_the_run() -> None:
    """A byte that differs from what should have been sent: nothing may be reported."""
    from bench import clients, runner
    from bench.benchmarks import drain
    from bench.case import SCALES

    scale = SCALES["tiny"]
    cases = [case for case in drain.cases(scale) if case.transport == "plain"]
    plan = runner.Plan([clients.SPECS["hftws"]], cases, scale, rounds=1, more={"corrupt": 1})
    with pytest.raises(runner.ChecksumMismatch, match="hftws"):
        runner.run(plan, lambda line: None)


def test_rounds_are_interleaved() -> None:
    from bench import clients, runner
    from bench.case import SCALES, Case

    specs = [clients.SPECS["hftws"], clients.SPECS["C read"]]
    cases = [Case("drain", "plain"), Case("drain", "aes128")]
    plan = runner.Plan(specs, cases, SCALES["tiny"], rounds=2)
    order = [(number, case.transport, spec.name) for number, case, spec in plan.steps()]
    a_round = [("plain", "hftws"), ("plain", "C read"), ("aes128", "hftws")]
    assert order == [(number, *step) for number in (1, 2) for step in a_round]


def test_ratios_are_made_within_a_round() -> None:
    """Ratios of medians would contain a slow minute of the machine."""
    from bench import report, runner
    from bench.case import Case, Cell

    case = Case("drain", "plain")
    outcomes = [
        runner.Outcome(case, client, number, {"count": value}, {})
        for client, values in (("hftws", (10.0, 100.0, 10.0)), ("picows", (20.0, 200.0, 20.0)))
        for number, value in enumerate(values)
    ]
    results = report.Results(outcomes)
    ours, theirs = (Cell(name, "drain", "plain", "count") for name in ("hftws", "picows"))
    assert results.ratios(ours, theirs) == [0.5, 0.5, 0.5]


def test_messages_have_their_size_and_differ() -> None:
    from bench import wire

    messages = wire.market_messages(100, 300)
    assert {len(message) for message in messages} == {300}
    assert len(set(messages)) == 100
    assert all(json.loads(message)["s"] == "BTCUSDT" for message in messages)
    assert messages == wire.market_messages(100, 300)


def test_size_on_the_wire_is_what_tls_makes_of_it(tmp_path: Path) -> None:
    """A message can be larger than a record: the drain waits for exactly so many bytes."""
    from bench import server, wire

    certificates = server.Certificates.make(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(certificates.certificate)
    tls = wire.TLSServer(context)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    trust = ssl.create_default_context(cafile=str(certificates.ca_file))
    client = trust.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    done = False
    while not done:
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        tls.feed(outgoing.read())
        done, answer = tls.handshake()
        incoming.write(answer)
    for size in (1, wire.RECORD_MAX, wire.RECORD_MAX + 1, 3 * wire.RECORD_MAX):
        unit = bytes(size)
        assert wire.wire_size([unit], secure=True) == len(tls.seal(unit))
        assert wire.wire_size([unit], secure=False) == size


def test_a_compressed_burst_fits_where_the_kernel_gives_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also the client that gets it uncompressed must find all of it in its buffer."""
    from bench import draining, wire
    from bench.benchmarks import compression

    monkeypatch.setattr(draining, "burst_capacity", lambda: 10_000)
    messages = compression.fitting(1000)

    def size(count: int) -> int:
        units = compression.units({"messages": count}, compressed=False)
        return wire.wire_size(units, secure=True)

    assert size(messages) <= 10_000 < size(messages + 1)
    assert compression.fitting(messages - 1) == messages - 1


@pytest.mark.parametrize("context_takeover", [True, False])
def test_messages_are_compressed_as_negotiated(context_takeover: bool) -> None:
    """With context takeover each needs those before it; without, each can be inflated alone."""
    from bench import wire

    messages = wire.market_messages(20, 300)
    deflated = wire.deflate(messages, context_takeover=context_takeover)
    assert deflated == wire.deflate(messages, context_takeover=context_takeover)
    common = zlib.decompressobj(-15)
    for message, data in zip(messages, deflated, strict=True):
        assert common.decompress(data + b"\x00\x00\xff\xff") == message
    alone = zlib.decompressobj(-15)
    last = deflated[-1] + b"\x00\x00\xff\xff"
    if context_takeover:
        with pytest.raises(zlib.error):
            alone.decompress(last)
    else:
        assert alone.decompress(last) == messages[-1]


def test_the_server_inflates_what_clients_send() -> None:
    """Those that compress also their requests are understood, in the order of their window."""
    from bench import wire

    texts = [b"go", b"go", b"report report report"]
    reader = wire.FrameReader()
    for data in wire.deflate(texts, context_takeover=True):
        frame = wire.text_frame(data, compressed=True)
        mask = b"\x12\x34\x56\x78"
        reader.feed(bytes((frame[0], frame[1] | 0x80)) + mask + wire.unmask(frame[2:], mask))
    assert [reader.next() for _ in texts] == [(0x1, text) for text in texts]
    assert reader.next() is None


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], float]:
    """What the benchmarks after the first three say of hftws: benchmark, case and figure."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "bench", "--tiny", "--output", str(folder)]
    only = "latency,echo,connections,memory" + (",send" if FLOORS else "")
    done = subprocess.run(
        [*command, "--only", only, "--clients", "hftws,hftws (stages)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert document["failures"] == []
    return {(s["benchmark"], s["case"], s["figure"]): s["median"] for s in document["summary"]}


AES128 = "TLS, AES-128-GCM"


def test_latency_is_told_by_stage(further: dict[tuple[str, str, str], float]) -> None:
    assert 0 < further["latency", AES128, "p50"] <= further["latency", AES128, "p999"]
    assert further["latency", AES128, "kernel_p50"] > 0
    assert further["latency", AES128, "decrypt_p50"] > 0


@pytest.mark.parametrize("case", ["plain", AES128])
def test_echo_makes_round_trips(further: dict[tuple[str, str, str], float], case: str) -> None:
    assert 0 < further["echo", case, "p50"] <= further["echo", case, "p99"]


@pytest.mark.skipif(not FLOORS, reason="nothing to compile the shim with")
def test_send_is_cheaper_without_the_system_call(
    further: dict[tuple[str, str, str], float],
) -> None:
    """Nothing is lost either: a frame and a record for each order, in one write."""
    assert 0 < further["send", AES128, "data_user"] < further["send", AES128, "data"]
    assert further["send", "plain", "written"] == 106
    assert further["send", AES128, "written"] == 128
    assert further["send", AES128, "writes"] == 1


def test_many_connections_are_driven_together(
    further: dict[tuple[str, str, str], float],
) -> None:
    for case in (f"{AES128}, 1 connection", f"{AES128}, 4 connections"):
        assert further["connections", case, "waiting"] > 0
        assert further["connections", case, "single"] > 0


def test_a_small_connection_is_smaller(further: dict[tuple[str, str, str], float]) -> None:
    assert further["memory", AES128, "import_memory"] > 0
    sizes = [further["memory", AES128, name] for name in ("small_connection", "connection")]
    assert 0 < sizes[0] < sizes[1] / 2


@pytest.fixture(scope="module")
def traced() -> Any:
    """A run under valgrind: by a fixture, since a test may not take as long."""
    from bench import clients, runner
    from bench.benchmarks import instructions
    from bench.case import SCALES

    if not FLOORS or instructions.missing():
        pytest.skip("neither valgrind nor a compiler, or only one of them")
    scale = SCALES["tiny"]
    cases = [case for case in instructions.cases(scale) if case.transport == "aes128"]
    plan = runner.Plan([clients.SPECS["hftws"]], cases, scale, rounds=2)
    (outcome,) = runner.run(plan, lambda line: None)
    return outcome


def test_instructions_are_counted(traced: Any) -> None:
    """The sender waits for each sleep: otherwise a message would take less than a wake-up."""
    assert traced.failure == ""
    assert 1000 < traced.figures["wake_up"] < 20_000


def test_a_sleeper_is_seen_asleep_once_for_each_sleep() -> None:
    from bench.benchmarks.instructions import Sleeper

    code = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        sleeper = Sleeper(process.pid)
        sleeper.settle()
        for _ in range(3):
            process.stdin.write("wake up\n")
            sleeper.wait()
            assert process.stdout.readline() == "wake up\n"


def test_messages_of_the_latency_benchmark_come_irregularly_and_alike_for_all() -> None:
    """A constant pace falls together with what a client does every so often, or never does."""
    from bench.benchmarks import latency

    spacings = latency.spacings(2000)
    assert spacings == latency.spacings(2000)
    assert len(set(spacings)) > 1990
    assert min(spacings) >= latency.SPACING_MIN_NS
    assert abs(sum(spacings) / 2000 / latency.SPACING_MEAN_NS - 1) < 0.1
