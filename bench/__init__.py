"""What hftws costs beside other WebSocket clients, and beside what C can do. See README.md."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# An installed hftws comes before the checkout's, which may be built for another Python.
sys.path.sort(key=lambda entry: Path(entry).resolve() == ROOT)
