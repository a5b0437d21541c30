"""The three REST requests that go with the market streams: ping, time and depth."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from .order_book import OrderBook
from .recording import TimeUnit
from .subscriptions import RequestError

_DEPTH_DEFAULT: Final = 100
_DEPTH_MAX: Final = 5000
_SYMBOL: Final = r"^[A-Z0-9-_.]{1,20}$"
_NUMBER: Final = r"^[0-9]{1,20}$"
_CHUNK_SIZE: Final = 1000


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json;charset=UTF-8"
    chunked: bool = False

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The header fields; they say how the body is framed."""
        framing = (
            ("Transfer-Encoding", "chunked")
            if self.chunked
            else ("Content-Length", str(len(self.body)))
        )
        return [("Content-Type", self.content_type), framing, ("Connection", "close")]

    @property
    def encoded_body(self) -> bytes:
        """The body as it is sent."""
        return b"".join(_chunks(self.body)) if self.chunked else self.body


class RestApi:
    """Answers the requests below `/api/v3`."""

    def __init__(self, book_of: Callable[[str], OrderBook | None]) -> None:
        """`book_of` returns the present book of a symbol, or None if there is none."""
        self._book_of = book_of

    def get(self, target: str) -> Reply | None:
        """Answer a GET request, or return None if its path is unknown here."""
        url = urlsplit(target)
        parameters = dict(parse_qsl(url.query, keep_blank_values=True))
        try:
            if url.path == "/api/v3/ping":
                return json_reply({})
            if url.path == "/api/v3/time":
                return json_reply({"serverTime": TimeUnit.MILLISECOND.from_ns(time.time_ns())})
            if url.path == "/api/v3/depth":
                return self._depth(parameters)
        except RequestError as error:
            return json_reply(error.to_json(), HTTPStatus.BAD_REQUEST)
        return None

    def _depth(self, parameters: dict[str, str]) -> Reply:
        symbol = parameters.get("symbol", "")
        if not symbol:
            reason = "was not sent, was empty/null, or malformed."
            raise RequestError(-1102, f"Mandatory parameter 'symbol' {reason}")
        _check_characters("symbol", symbol, _SYMBOL)
        limit = parameters.get("limit", str(_DEPTH_DEFAULT))
        _check_characters("limit", limit, _NUMBER)
        if int(limit) == 0:
            raise RequestError(-1130, "Data sent for parameter 'limit' is not valid.")
        book = self._book_of(symbol)
        if book is None:
            raise RequestError(-1121, "Invalid symbol.")
        snapshot = book.to_json(min(int(limit), _DEPTH_MAX))
        # Binance has no parameter `chunked`: it chooses how this server frames its response.
        return json_reply(snapshot, chunked=parameters.get("chunked") == "true")


def json_reply(
    value: object, status: HTTPStatus = HTTPStatus.OK, *, chunked: bool = False
) -> Reply:
    """Return `value` as an HTTP response."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return Reply(status, body, chunked=chunked)


def not_found() -> Reply:
    """Return the response for a path at which nothing is served."""
    return Reply(HTTPStatus.NOT_FOUND, b"Not Found\n", "text/plain")


def _check_characters(name: str, value: str, legal: str) -> None:
    if re.fullmatch(legal, value) is None:
        message = f"Illegal characters found in parameter '{name}'; legal range is '{legal}'."
        raise RequestError(-1100, message)


def _chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _CHUNK_SIZE):
        chunk = body[start : start + _CHUNK_SIZE]
        yield b"%x\r\n%b\r\n" % (len(chunk), chunk)
    yield b"0\r\n\r\n"
