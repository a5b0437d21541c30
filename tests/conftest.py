"""Fixtures shared by all tests: scripted servers, certificates, and a limit for each test."""

from __future__ import annotations

import gc
import signal
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trustme

sys.path.insert(0, str(Path(__file__).parent))  # Where `servers` is, in any import mode.
# Where `release` is. Last: the hftws there may not be the one under test.
sys.path.append(str(Path(__file__).parents[1]))

from footprint import no_huge_pages
from servers import PATIENCE, Scripts, ScriptServer, Serve

#: Seconds after which a test that hangs is ended. The client lets signal handlers run.
TEST_TIMEOUT = int(60 * PATIENCE)

#: The same for a test with the mark `long`, which alone takes more than a few seconds.
LONG_TEST_TIMEOUT = 5 * TEST_TIMEOUT


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options: how long the fault tests take, which seed to repeat, where a release is."""
    group = parser.getgroup("faults")
    group.addoption("--fault-seeds", type=int, default=3000, help="seeds of test_faults.py")
    group.addoption("--fault-seed", type=int, default=None, help="only this one")
    parser.addoption("--tls-engine", help="what the clients of `serve` have for the option tls")
    group = parser.getgroup("package")
    group.addoption("--dist", default=None, help="the folder of a release, for test_dist.py")


def pytest_configure() -> None:
    """Restores Ctrl-C, which is tested: a shell that starts us in the background has it ignored."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Makes gc.collect(), which many tests call, skip all that exists before the first test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ends a test that hangs, so that it fails rather than blocks all others."""
    marker = request.node.get_closest_marker("long")
    limit = TEST_TIMEOUT if marker is None else LONG_TEST_TIMEOUT

    def end(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test took more than {limit} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(limit)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def small_pages() -> Iterator[None]:
    """For modules that measure what the process has in memory."""
    with no_huge_pages():
        yield


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """The authority that signs the certificates of the test servers."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authority's certificate, for the option ``ca_file``."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="session")
def client_files(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Options of a client that has a certificate."""
    file = tmp_path_factory.mktemp("client") / "client.pem"
    ca.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(file)
    return {"cert_file": file}


@pytest.fixture(scope="session")
def tls_context(ca: trustme.CA) -> ssl.SSLContext:
    """TLS for a server on the loopback, whichever way it is named."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1", "::1").configure_cert(context)
    return context


@pytest.fixture
def serve(request: pytest.FixtureRequest, ca_file: Path, tls_context: ssl.SSLContext) -> Serve:
    """``with serve(script) as server``: a scripted server, over TLS with ``tls=True``.

    ``server.client(...)`` makes a client for it that trusts it.
    """
    engine = request.config.getoption("--tls-engine")
    client_options = {"ca_file": ca_file, **({} if engine is None else {"tls": engine})}

    def make(scripts: Scripts, *, tls: bool = False, **options: Any) -> ScriptServer:
        if tls:
            options.setdefault("tls_context", tls_context)
        if options.get("tls_context") is not None:
            options.setdefault("client_options", client_options)
        return ScriptServer(scripts, **options)

    return make


@pytest.fixture(params=["ws", "wss"])
def serve_both(request: pytest.FixtureRequest, serve: Serve) -> Serve:
    """Like ``serve``; the test runs twice, over plain TCP and over TLS."""

    def make(scripts: Scripts, **options: Any) -> ScriptServer:
        return serve(scripts, tls=request.param == "wss", **options)

    return make
