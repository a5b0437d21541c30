"""The addresses of market streams: `/ws/...` for raw events, `/stream?streams=...` for combined."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from .recording import TimeUnit
from .subscriptions import RequestError, Subscriptions

_TIME_UNITS: Final = {
    **{unit.name: unit for unit in TimeUnit},
    **{unit.name.lower(): unit for unit in TimeUnit},
}


class UnknownAddressError(Exception):
    """Nothing is served at this path."""


def parse_address(target: str, served: Collection[str] | None = None) -> Subscriptions:
    """Return what a connection to this request target listens to at first.

    `served` are the streams that there are; None stands for all.

    Raises `UnknownAddressError` or `RequestError`. That a stream which is not well formed is
    refused at once is a simplification: Binance also takes the keys of user data streams here.
    """
    url = urlsplit(target)
    query = parse_qs(url.query)
    path, *names = url.path.strip("/").split("/")
    if path == "stream" and not names:
        names = "/".join(query.get("streams", [])).split("/")
    elif path != "ws":
        raise UnknownAddressError(url.path)
    return Subscriptions(
        [unquote(name) for name in names if name],
        combined=path == "stream",
        served=served,
        time_unit=_time_unit(query.get("timeUnit", ["MILLISECOND"])),
    )


def _time_unit(values: list[str]) -> TimeUnit:
    try:
        return _TIME_UNITS[values[-1]]
    except KeyError:
        expected = "expected either MICROSECOND or MILLISECOND"
        raise RequestError(-1194, f"Invalid value for time unit; {expected}.") from None
