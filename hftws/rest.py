"""One HTTP request over the client's own stack, for snapshots beside a stream."""

from __future__ import annotations

from dataclasses import dataclass

from hftws import _core
from hftws.client import (
    MIB,
    FilePath,
    Headers,
    check_ciphers,
    check_key,
    check_url,
    file_path,
    find_roots,
    flatten_headers,
    tls_libraries,
)

__all__ = ["Response", "get"]


@dataclass(frozen=True)
class Response:
    """The answer to a request."""

    #: The HTTP status, such as 200 or 429.
    status: int
    #: The headers in their order, names as the server wrote them.
    headers: list[tuple[str, str]]
    #: The body, without its transfer coding.
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of this name, in upper or lower case; None if there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def get(
    url: str,
    *,
    headers: Headers | None = None,
    ca_file: FilePath | None = None,
    cert_file: FilePath | None = None,
    key_file: FilePath | None = None,
    verify: bool = True,
    ciphers: str | None = None,
    server_name: str | None = None,
    timeout: float = 10.0,
    max_body_size: int = 64 * MIB,
) -> Response:
    """Gets ``url`` with one HTTP/1.1 request, over a connection of its own.

    No status raises an exception: look at it. Redirects are not followed. The options are those of
    :class:`hftws.Client`; ``timeout`` is for the whole request, in seconds.

    :raises InvalidURL: when the URL is malformed or not ``http://`` or ``https://``.
    :raises ConnectError: when no connection can be made; ConnectTimeout when it took too long.
    :raises TLSError: when the server is not who it should be.
    :raises HandshakeError: when the answer is not valid HTTP, or was cut off.
    :raises ValueError: when the body is larger than ``max_body_size``, or an option is not valid.
    """
    check_url(url)
    check_key(cert_file, key_file)
    check_ciphers(ciphers)
    client = _core.ClientBase(
        url=url,
        purpose="get",
        headers=flatten_headers(headers),
        ca_file=find_roots(ca_file, verify=verify, url=url),
        cert_file=file_path("cert_file", cert_file),
        key_file=file_path("key_file", key_file),
        verify=verify,
        ciphers=ciphers,
        server_name=server_name,
        connect_timeout=timeout,
        close_timeout=0.0,
        max_message_size=MIB // 8,
        max_body_size=max_body_size,
        ring_size=MIB // 4,
        send_ring_size=MIB // 4,
        mask="random",
        timestamps="none",
        tls="auto",
        tls_libraries=tls_libraries(),
    )
    status, response_headers, body = _core.fetch(client)
    return Response(status, response_headers, body)
