"""Fixtures of the tests of kTLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trustme
from servers import Serve
from tls_peers import Identity, Listener

from .support import KernelBed, TlsStat


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """What is tested: kTLS, unless the option says that the tests themselves are."""
    return str(request.config.getoption("--tls-engine") or "ktls")


@pytest.fixture
def stat(engine: str) -> TlsStat:
    """The kernel's counters since the test has begun."""
    return TlsStat(engine)


@pytest.fixture
def tls_serve(serve: Serve) -> Serve:
    """``serve`` over TLS."""
    return lambda scripts, **options: serve(scripts, tls=True, **options)


@pytest.fixture(scope="module")
def bed(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelBed]:
    bed = KernelBed(Identity(ca, tmp_path_factory.mktemp("tls")), Listener())
    yield bed
    bed.close()
