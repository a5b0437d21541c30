"""The JSON control messages of Binance's market streams, and their replies.

Errors: the documentation lists them bare, `{"code":2,"msg":"..."}`. On the wire they have been seen
inside `{"error":{...},"id":1}`. A client must cope with both, so both are used here: an error
that can be tied to a request carries its `id`, any other comes in the documented form. Where the
documentation has no words for an error, those seen on the wire are used.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NoReturn

from .recording import Encoding, TimeUnit

STREAMS_MAX: Final = 1024
"""Streams that one connection may listen to."""

_INTERVAL: Final = r"(?:1s|1m|3m|5m|15m|30m|1h|2h|4h|6h|8h|12h|1d|3d|1w|1M)"
_WINDOW: Final = r"(?:1h|4h|1d)"
_STREAM: Final = re.compile(
    # Symbols in upper case are well formed, but never match a stream.
    r"[\w.-]{1,40}@(?:"
    r"trade|aggTrade|blockTrade|bookTicker|avgPrice|referencePrice|miniTicker"
    rf"|ticker(?:_{_WINDOW})?"
    rf"|kline_{_INTERVAL}(?:@\+08:00)?"
    r"|depth(?:5|10|20)?(?:@100ms|@1000ms)?"
    r")"
    rf"|!(?:miniTicker|ticker(?:_{_WINDOW})?)@arr"
)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,36}")

logger = logging.getLogger(__name__)


class RequestError(Exception):
    """A request that Binance refuses, with its code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def to_json(self) -> dict[str, object]:
        """Return the error in Binance's form."""
        return {"code": self.code, "msg": self.message}


class Subscriptions:
    """What one connection listens to, and in which form.

    `served` are the streams that there are; None stands for all. Binance takes any other and is
    silent, which here would only hide a mistake: so it is refused, and said on standard error.
    """

    def __init__(
        self,
        streams: Iterable[str] = (),
        *,
        combined: bool = False,
        served: Collection[str] | None = None,
        time_unit: TimeUnit = TimeUnit.MILLISECOND,
    ) -> None:
        self._streams: dict[str, None] = {}  # a set that keeps its order
        self._combined = combined
        self._served = served
        self._time_unit = time_unit
        self._methods: Final[dict[str, Callable[[list[Any]], object]]] = {
            "SUBSCRIBE": self._subscribe,
            "UNSUBSCRIBE": self._unsubscribe,
            "LIST_SUBSCRIPTIONS": self._list,
            "SET_PROPERTY": self._set_property,
            "GET_PROPERTY": self._get_property,
        }
        self.add(streams)

    @property
    def streams(self) -> list[str]:
        """The streams, in the order in which they were asked for."""
        return list(self._streams)

    @property
    def encoding(self) -> Encoding:
        """The form of the events."""
        return Encoding(self._time_unit, self._combined)

    def add(self, streams: Iterable[str]) -> None:
        """Subscribe to all of `streams` or, on a `RequestError`, to none."""
        wanted = dict(self._streams)
        for stream in streams:
            if _STREAM.fullmatch(stream) is None:
                raise _invalid("invalid stream")
            wanted[stream] = None
        if len(wanted) > STREAMS_MAX:
            raise RequestError(4, "Too many subscriptions")
        self._check_served(wanted)
        self._streams = wanted

    def _check_served(self, wanted: Iterable[str]) -> None:
        if self._served is None:
            return
        for stream in wanted:
            if stream not in self._served:
                known = ", ".join(sorted(self._served))
                reason = f"the recording has no stream `{stream}`, only {known}"
                logger.warning("a subscription was refused: %s", reason)
                raise _invalid(reason)

    def handle(self, message: str | bytes) -> str:
        """Carry out a control message and return the reply."""
        try:
            text = _decode(message)
            request = _parse(text)
            request_id = _request_id(request)
        except RequestError as error:
            return _compact(error.to_json())
        try:
            result = self._call(request, text)
        except RequestError as error:
            return _compact({"error": error.to_json(), "id": request_id})
        return _compact({"result": result, "id": request_id})

    def _call(self, request: dict[str, Any], text: str) -> object:
        if "method" not in request:
            raise _invalid(f"missing field `method` at {_position(text, len(text.rstrip()))}")
        method = request["method"]
        if not isinstance(method, str) or method not in self._methods:
            name = method if isinstance(method, str) else _compact(method)
            expected = ", ".join(f"`{known}`" for known in self._methods)
            # The position is that of the end of the value, as Binance's parser reports it.
            end = re.search(r'"method"\s*:\s*("[^"]*"|[^,}\s]*)', text)
            place = _position(text, end.end() if end else 0)
            raise _invalid(f"unknown variant `{name}`, expected one of {expected} at {place}")
        params = request.get("params")
        if params is None:
            params = []
        if not isinstance(params, list):
            raise _invalid("params must be an array")
        return self._methods[method](params)

    def _subscribe(self, params: list[Any]) -> None:
        self.add(_stream_names(params))

    def _unsubscribe(self, params: list[Any]) -> None:
        for stream in _stream_names(params):
            self._streams.pop(stream, None)

    def _list(self, params: list[Any]) -> list[str]:
        if params:
            raise _invalid("too many parameters")
        return self.streams

    def _set_property(self, params: list[Any]) -> None:
        _check_property(params, values=1)
        if len(params) != 2 or not isinstance(params[1], bool):
            raise RequestError(1, "Invalid value type: expected Boolean")
        self._combined = params[1]

    def _get_property(self, params: list[Any]) -> bool:
        _check_property(params, values=0)
        return self._combined


def _invalid(reason: str) -> RequestError:
    return RequestError(2, f"Invalid request: {reason}")


def _decode(message: str | bytes) -> str:
    """Return the text of a message, which is UTF-8 in a binary frame, too."""
    if isinstance(message, str):
        return message
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise RequestError(3, "Invalid JSON: expected value at line 1 column 1") from None


def _parse(text: str) -> dict[str, Any]:
    def refuse_constant(name: str) -> NoReturn:
        raise json.JSONDecodeError(name, name, 0)  # NaN and Infinity are not JSON

    try:
        request = json.loads(text, parse_constant=refuse_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise RequestError(3, f"Invalid JSON: expected value at {place}") from None
    except (RecursionError, ValueError):
        raise RequestError(3, "Invalid JSON: expected value at line 1 column 1") from None
    if not isinstance(request, dict):
        raise _invalid("expected an object")
    return request


def _request_id(request: dict[str, Any]) -> int | str | None:
    """Return the `id`: a signed 64-bit integer, an alphanumeric string (or UUID), or null."""
    request_id = request.get("id", False)
    if request_id is None:
        return None
    if type(request_id) is int and -(1 << 63) <= request_id < 1 << 63:
        return request_id
    if isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id):
        return request_id
    # These are Binance's words, although it takes more than unsigned integers.
    raise _invalid("request ID must be an unsigned integer")


def _stream_names(params: list[Any]) -> list[str]:
    if not params:
        raise _invalid("missing field `params`")
    if not all(isinstance(name, str) for name in params):
        raise _invalid("invalid stream")
    return params


def _check_property(params: list[Any], *, values: int) -> None:
    if not params or not isinstance(params[0], str):
        raise _invalid("property name must be a string")
    if len(params) > 1 + values:
        raise _invalid("too many parameters")
    if params[0] != "combined":
        raise RequestError(0, "Unknown property")


def _position(text: str, offset: int) -> str:
    line = text.count("\n", 0, offset) + 1
    column = offset - (text.rfind("\n", 0, offset) + 1)
    return f"line {line} column {column}"


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
