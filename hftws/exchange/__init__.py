"""A simulated exchange: recorded market data, served as Binance spot serves it.

Run it with `python -m hftws exchange`, or from Python with `launch()`. It needs the packages of the
extra `hftws[exchange]`; importing this package does not. Nothing here uses the extension module.
"""

from __future__ import annotations

from .launcher import ExchangeError, RunningExchange, launch
from .options import Options

__all__ = ["ExchangeError", "Options", "RunningExchange", "launch"]
