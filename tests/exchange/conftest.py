"""Fixtures: the simulated exchange that most tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hftws.exchange import RunningExchange, launch

# The helper module beside this file is found in every import mode of pytest.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def exchange() -> Iterator[RunningExchange]:
    """Both symbols at a good rate; as many control messages as a test likes."""
    with launch(recording="sample", rate=10_000, inbound_limit=0) as running:
        yield running
