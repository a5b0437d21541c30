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
    """The engine that is tested: kTLS, unless an option chooses another, to test the tests."""
    return str(request.config.getoption("--tls-engine") or "ktls")


@pytest.fixture
def stat(engine: str) -> TlsStat:
    """What the kernel has counted since the test began."""
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
