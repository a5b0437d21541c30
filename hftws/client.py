"""The client: options with their defaults, over the native connection."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeVar

from hftws import _core
from hftws._core import Message
from hftws.loop import CallQueue
from hftws.types import Info

__all__ = ["Client", "Deflate"]

MIB = 1024 * 1024

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
FilePath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
ClientT = TypeVar("ClientT", bound="Client")
Timestamps = Literal["none", "software", "hardware"]


@dataclass(frozen=True)
class Deflate:
    """How messages are compressed: permessage-deflate (RFC 7692).

    The first four are offered to the server, which may refuse compression, but not change them;
    :meth:`Client.info` tells what was agreed on.
    """

    #: The server forgets its window after each message: each can be inflated without the others.
    server_no_context_takeover: bool = False
    #: The client forgets its window after each message that it sends.
    client_no_context_takeover: bool = False
    #: The server's window has at most 2 to the power of this many bytes: 8 to 15, None for any.
    server_max_window_bits: int | None = None
    #: The same for the client's window. Below 9, messages are sent uncompressed: zlib has no
    #: window that small.
    client_max_window_bits: int | None = None
    #: zlib's level for messages that are sent: 0 (no compression), 1 (fastest) to 9 (smallest).
    level: int = 1
    #: Messages of fewer bytes are sent uncompressed: to compress an order takes longer than to
    #: send it. What you write through :meth:`Client.reserve` is never compressed.
    threshold: int = 1024


class Client(_core.ClientBase):
    """A WebSocket client (RFC 6455) that hands each message to a callback.

    Constructing does no I/O; :meth:`connect`, or entering the client as a context manager, does.
    A client belongs to one thread at a time: a second one that uses it meanwhile gets
    ``RuntimeError``. Any thread may ask :attr:`is_open`, :meth:`stats` and :meth:`fileno`, and
    may keep, read and release messages.

    In an event loop of your own, wait until :meth:`fileno` is readable, then call :meth:`poll`. The
    descriptor is the same for the life of the client, and readable exactly when :meth:`poll` has
    something to do. Many clients in one thread are for a :class:`Loop`.

    What :meth:`reserve` lends is yours until the end of its block. A slice of it that lives longer,
    or an array that ``numpy.frombuffer`` made of it, could still write into the place: then the
    block ends in ``BufferError``, the message is not sent, and everything that sends, receives or
    closes raises ``RuntimeError`` until the last slice is gone. After that the message is dropped,
    and the client works as before.

    ``logging.getLogger("hftws")`` tells how connections open and end. A log handler must not use
    the client that it is told of: it gets ``RuntimeError``.

    Callbacks are arguments, and plain functions: they run to their end within the call, and what
    they return is dropped. An ``async def`` or a generator function is a ``TypeError``: nothing
    would run it. A subclass that has one as a method passes it on
    (``super().__init__(url, self.on_msg)``); otherwise constructing it is a ``TypeError``.

    :param url: ``ws://`` or ``wss://``.
    :param on_msg: called with each :class:`Message`; without it messages are dropped.
    :param on_open: called with the client when the connection is open.
    :param on_close: called with the client, the close code and the reason when an open
        connection has ended.
    :param on_error: in a :class:`Loop`, called with the client and the exception that :meth:`run`
        would raise, when it cannot connect or its connection fails. Without it, an exception that
        ``on_close`` does not tell of goes to :func:`sys.unraisablehook`.
    :param headers: sent with the upgrade request, as a mapping or as pairs.
    :param subprotocols: offered to the server, the preferred one first.
    :param compression: ``"deflate"``, or :class:`Deflate` with parameters, offers
        permessage-deflate (RFC 7692) to the server. That saves bytes, not time: to inflate a
        message takes longer than everything else that happens to it. Needs zlib, which every
        Linux and macOS has; ``HFTWS_ZLIB`` names another library with its functions, such as
        zlib-ng's. Compressed messages have a ring of their own, of ``ring_size``.
    :param ca_file: PEM file of trusted roots instead of the system's; like the next two a path as
        :func:`open` takes it: ``str``, ``bytes`` or ``os.PathLike``.
    :param cert_file: PEM file of our own certificate chain, for servers that ask for one.
    :param key_file: PEM file of its key, if it is not in ``cert_file``; not encrypted.
    :param verify: whether the server has to prove that it is the host of the URL.
        It costs nothing per message.
    :param server_name: the name in the certificate, when it is not the host of the URL.
    :param tls: what opens and seals the TLS records. ``"direct"``: hftws itself, with keys from
        OpenSSL's handshake; connecting fails where the cipher suite has no AEAD that it knows.
        ``"ktls"``: the Linux kernel, from when the connection is open; connecting fails, with the
        reason, where it cannot. The kernel then gives no receive stamps, and it can follow a
        server that changes its keys from Linux 6.14 on only: before, that ends the connection.
        ``"openssl"``: SSL_read and SSL_write. ``"auto"``: direct where it is possible, otherwise
        openssl; :meth:`info` tells ``engine`` and ``engine_reason``.
    :param ciphers: the cipher suites to offer instead of the default, as OpenSSL writes them: names
        with colons between, the preferred first, of TLS 1.2 (``ECDHE-RSA-AES128-GCM-SHA256``) and
        of TLS 1.3 (``TLS_AES_128_GCM_SHA256``). A version of which none is named keeps its
        default. That is AES-GCM and ChaCha20-Poly1305, with forward secrecy, AES-128-GCM first.
        Others are for a server that has none of these, and cost something: without forward secrecy
        (``AES128-GCM-SHA256``) whoever gets the server's key can read what was recorded, and a
        suite without one of these AEADs (``ECDHE-RSA-AES128-SHA256``) leaves the records to
        ``tls="openssl"``, which is slower; those with SHA-1, or with tags of 8 bytes (``CCM8``),
        protect less. Suites without a certificate or without encryption are never offered.
    :param connect_timeout: seconds for name, TCP, TLS and upgrade together; after that,
        :exc:`ConnectTimeout` says which of them it was. The system looks the name up in a thread of
        its own; one that is still at it then ends by itself.
    :param close_timeout: seconds to wait for the peer in the closing handshake, and for it to hang
        up after an error of the protocol or of TLS that it has been told of: the exception comes
        then.
    :param peer_timeout: seconds, 1 to 86400, after which a peer that TCP hears nothing of is taken
        for dead: :exc:`ConnectionClosed`. Whole seconds for a connection on which nothing is sent.
        A peer that answers, but has no room for what is sent, is waited for without a limit; in a
        loop of your own, call :meth:`poll` a few times in that time even if nothing is ready. None:
        no limit of its own and no keep-alive probes, the system's limits are left.
    :param max_message_size: a larger message fails with close code 1009; so does one that is
        larger when it is inflated.
    :param ring_size: bytes of the receive ring, rounded up to a power of two. It has to have room
        for a message of the largest size and one TLS record; with compression, for an eighth and
        a little more.
    :param send_ring_size: bytes of the send ring, rounded up to a power of two.
    :param huge_pages: put the rings on huge pages where the system has reserved some.
    :param validate_utf8: whether text from the peer is checked, as RFC 6455 asks.
    :param mask: ``"random"``, or ``"zero"`` to save nanoseconds per sent message. That gives up
        what masks are for: an attacker who chooses the payload then chooses the bytes on the
        wire, too (RFC 6455, section 10.3).
    :param busy_poll: spin on the socket instead of sleeping in the kernel. Takes a whole CPU.
    :param timestamps: ``"software"`` (the kernel stamps each segment), ``"hardware"`` (the network
        card does, if it is configured to), or ``"none"``, which saves some 10 ns per message.
    :param latency: whether :meth:`stats` has a histogram of each stage.
    :param quick_ack: re-arm TCP_QUICKACK after every read: one more system call.
    :param local_address: IP address to connect from.
    :param interface: name of the network interface to connect through.
    :param receive_buffer_size: bytes of the kernel's buffer; 0 for the system's choice.
    :param send_buffer_size: bytes of the kernel's buffer; 0 for the system's choice.
    :param socket_busy_poll_us: microseconds for SO_BUSY_POLL; 0 for the system's choice.

    :raises InvalidURL: when the URL is malformed.
    :raises TypeError: when an option has a type that it cannot have, such as a callback that is
        ``async``, or a callback is a method that was not passed.
    :raises ValueError: when an option, a header or a subprotocol is not valid.
    :raises TLSError: when a certificate or key file cannot be used.

    Each names the option, its value (but no value of a header) and what is allowed. Exceptions of a
    connection have its URL at their end and as :attr:`Error.url`, without keys and passwords.
    """

    def __init__(
        self,
        url: str,
        on_msg: Callable[[Message], None] | None = None,
        *,
        on_open: Callable[[Any], None] | None = None,
        on_close: Callable[[Any, int, str], None] | None = None,
        on_error: Callable[[Any, Exception], None] | None = None,
        headers: Headers | None = None,
        subprotocols: Sequence[str] = (),
        compression: Literal["deflate"] | Deflate | None = None,
        ca_file: FilePath | None = None,
        cert_file: FilePath | None = None,
        key_file: FilePath | None = None,
        verify: bool = True,
        server_name: str | None = None,
        tls: Literal["auto", "direct", "ktls", "openssl"] = "auto",
        ciphers: str | None = None,
        connect_timeout: float = 10.0,
        close_timeout: float = 5.0,
        peer_timeout: float | None = 30.0,
        max_message_size: int = 4 * MIB,
        ring_size: int = 8 * MIB,
        send_ring_size: int = 8 * MIB,
        huge_pages: bool = False,
        validate_utf8: bool = True,
        mask: Literal["random", "zero"] = "random",
        busy_poll: bool = False,
        timestamps: Timestamps = "software",
        latency: bool = False,
        quick_ack: bool = False,
        local_address: str | None = None,
        interface: str | None = None,
        receive_buffer_size: int = 0,
        send_buffer_size: int = 0,
        socket_busy_poll_us: int = 0,
    ) -> None:
        check_url(url)
        check_engine(tls)
        check_key(cert_file, key_file)
        check_ciphers(ciphers)
        check_callbacks(
            type(self), on_msg=on_msg, on_open=on_open, on_close=on_close, on_error=on_error
        )
        super().__init__(
            url=url,
            purpose="websocket",
            on_msg=on_msg,
            on_open=on_open,
            on_close=on_close,
            on_error=on_error,
            headers=flatten_headers(headers),
            subprotocols=check_names(subprotocols),
            deflate=deflate_options(compression),
            zlib_libraries=zlib_libraries(),
            ca_file=find_roots(ca_file, verify=verify, url=url),
            cert_file=file_path("cert_file", cert_file),
            key_file=file_path("key_file", key_file),
            verify=verify,
            tls=tls,
            ciphers=ciphers,
            server_name=server_name,
            connect_timeout=connect_timeout,
            close_timeout=close_timeout,
            peer_timeout=peer_timeout,
            max_message_size=max_message_size,
            ring_size=ring_size,
            send_ring_size=send_ring_size,
            huge_pages=huge_pages,
            validate_utf8=validate_utf8,
            mask=mask,
            busy_poll=busy_poll,
            timestamps=timestamps,
            latency=latency,
            quick_ack=quick_ack,
            local_address=local_address,
            interface=interface,
            receive_buffer_size=receive_buffer_size,
            send_buffer_size=send_buffer_size,
            socket_busy_poll_us=socket_busy_poll_us,
            tls_libraries=tls_libraries(),
        )
        self._url = url
        self._soon = CallQueue()

    @property
    def url(self) -> str:
        """The URL as it was given."""
        return self._url

    def info(self) -> Info:
        """What is in force: peer, TLS, rings, socket options as read back from the kernel.

        :class:`hftws.types.Info` has the keys and their meaning. The values are those of this
        moment; a connection that is not there has None.
        """
        return {"url": self._url, **super().info()}

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls ``callback(*args)`` in the thread that drives the client, as soon as it can.

        Any thread may call it, and a signal handler: ``client.call_soon_threadsafe(client.send,
        data)``. It is called from :meth:`run` or :meth:`poll`, and what it raises comes out of
        there. Raises RuntimeError when the client is in a loop: that has the same method.
        """
        self._wake()  # Raises in a loop, before anything is queued that nobody would call.
        self._soon.put(callback, args)
        self._wake()

    def _run_soon(self) -> None:
        """The core calls it after ``_wake``."""
        self._soon.run(self._wake)

    def __enter__(self: ClientT) -> ClientT:
        """Connects. If it is connected already, it stays so, and RuntimeError is raised.

        Raises what :meth:`connect` raises.
        """
        was_connected = is_connected(self)
        try:
            self.connect()
        except BaseException:  # From on_open, for example. Python will not call __exit__ then.
            if not was_connected:
                self.close()
            raise
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes, with the closing handshake: :meth:`close`."""
        self.close()

    def __repr__(self) -> str:
        url = _core.safe_url(self._url)
        return f"<hftws.Client {url} {'open' if self.is_open else 'not open'}>"


def is_connected(client: Client) -> bool:
    """Whether there is a connection, also while it is being opened or closed."""
    return client._descriptor() >= 0


def check_url(url: object) -> None:
    """A URL that is not a str is a TypeError; a malformed one is an InvalidURL."""
    if not isinstance(url, str):
        # Not the value: it may have a key in it.
        raise TypeError(f"the URL has to be a str, not {type(url).__name__}")


def check_key(cert_file: FilePath | None, key_file: FilePath | None) -> None:
    """A key without a certificate would be ignored, and the server would refuse the client."""
    if key_file is not None and cert_file is None:
        raise ValueError("key_file needs cert_file: a key without its certificate is of no use")


def check_ciphers(ciphers: object) -> None:
    """An empty list is refused: it would not say that the default is meant."""
    if ciphers is None:
        return
    if not isinstance(ciphers, str):
        raise TypeError(f"ciphers has to be a str or None, not {type(ciphers).__name__}")
    if not ciphers.strip(": ,;") or "\0" in ciphers:
        raise ValueError(f"ciphers has to name at least one cipher suite, not {ciphers!r}")


def check_engine(tls: object) -> None:
    """None is refused too: it would not say which engine is meant."""
    if tls not in ("auto", "direct", "ktls", "openssl"):
        raise ValueError(f"tls has to be 'auto', 'direct', 'ktls' or 'openssl', not {tls!r}")


def check_callbacks(client_class: type[Client], **callbacks: object) -> None:
    """A callback that could not be called is an error now, not at the first message."""
    for name, callback in callbacks.items():
        if callback is None:
            if getattr(client_class, name) is not getattr(_core.ClientBase, name):
                raise TypeError(
                    f"callbacks are arguments: the method {name} of {client_class.__name__} is "
                    f"called only if you pass {name}=self.{name}"
                )
        elif not callable(callback):
            raise TypeError(f"{name} is not callable: {callback!r:.100}")
        else:
            check_runs(name, callback)


def check_runs(name: str, callback: Callable[..., object]) -> None:
    """A function that a call does not run is refused: nothing would ever happen."""
    made = nobody = ""
    for function in (callback, type(callback).__call__):
        if inspect.iscoroutinefunction(function):
            made, nobody = "a coroutine", "nobody awaits"
        elif inspect.isgeneratorfunction(function):
            made, nobody = "a generator", "nobody runs"
        elif inspect.isasyncgenfunction(function):
            made, nobody = "an asynchronous generator", "nobody runs"
    if made:
        raise TypeError(
            f"a call of {name} only makes {made}, which {nobody}. Pass a plain function; "
            "it may put a copy, bytes(msg), into a queue, or start a task with "
            "asyncio.create_task()"
        )


def check_names(subprotocols: Sequence[str]) -> tuple[str, ...]:
    """A str is a sequence of str too, but never what the caller meant."""
    if isinstance(subprotocols, (str, bytes)) or not isinstance(subprotocols, Iterable):
        raise TypeError(f"subprotocols has to be a sequence of str, not {subprotocols!r}")
    return tuple(subprotocols)


def deflate_options(
    compression: Literal["deflate"] | Deflate | None,
) -> tuple[bool, bool, int | None, int | None, int, int] | None:
    """The fields of :class:`Deflate`, as the core takes them."""
    if compression is None:
        return None
    if compression == "deflate":
        compression = Deflate()
    if not isinstance(compression, Deflate):
        raise ValueError(f"compression has to be 'deflate', a Deflate or None, not {compression!r}")
    return (
        compression.server_no_context_takeover,
        compression.client_no_context_takeover,
        compression.server_max_window_bits,
        compression.client_max_window_bits,
        compression.level,
        compression.threshold,
    )


def flatten_headers(headers: Headers | None) -> tuple[str, ...]:
    """Name, value, name, value …, as the core takes them."""
    if headers is None:
        return ()
    if isinstance(headers, (str, bytes)) or not isinstance(headers, Iterable):
        kind = type(headers).__name__
        article = "an" if kind[0] in "aeiou" else "a"
        expected = "a mapping or pairs (name, value)"
        raise TypeError(f"headers has to be {expected}, not {article} {kind}")
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    flat: list[str] = []
    for index, pair in enumerate(pairs):
        expected = f"item {index} of headers has to be a pair (name, value)"
        # The values are not shown: they are often keys.
        if isinstance(pair, (str, bytes)) or not isinstance(pair, Iterable):
            raise TypeError(f"{expected}, not a {type(pair).__name__}")
        texts = tuple(pair)
        if len(texts) != 2:
            raise ValueError(f"{expected}, not {len(texts)} values")
        flat += texts
    return tuple(flat)


def file_path(option: str, file: FilePath | None) -> bytes | None:
    """A path as the system takes it: whatever :func:`open` takes, except descriptors."""
    if file is None:
        return None
    try:
        path = os.fsencode(file)
    except TypeError:
        raise TypeError(
            f"{option} has to be a str, bytes or os.PathLike, not {file!r:.100}"
        ) from None
    if b"\0" in path:
        raise ValueError(f"{option} holds a null character: {file!r:.100}")
    return path


def tls_libraries() -> tuple[bytes, ...]:
    """Where to look for the TLS library first: in the one that Python itself uses."""
    if os.environ.get("HFTWS_LIBSSL"):  # The core uses that one, and tries no other.
        return ()
    try:
        import _ssl
    except ImportError:  # A Python without TLS. The system may still have a library.
        return ()
    file = getattr(_ssl, "__file__", None)  # None where it is part of the interpreter.
    return () if file is None else (os.fsencode(file),)


def zlib_libraries() -> tuple[bytes, ...]:
    """Where to look for zlib first: in the one that Python itself uses."""
    try:
        import zlib
    except ImportError:  # A Python without it. The system may still have one.
        return ()
    file = getattr(zlib, "__file__", None)  # None where it is part of the interpreter.
    return () if file is None else (os.fsencode(file),)


def find_roots(ca_file: FilePath | None, *, verify: bool, url: str) -> bytes | None:
    """The file of trusted roots to load; None if the TLS library finds its own."""
    secure = url.lower().startswith(("wss:", "https:"))
    if ca_file is not None or not verify or not secure:
        return file_path("ca_file", ca_file)
    file_env, file, directory_env, directory = _core.default_roots(tls_libraries())
    if has_file(os.environ.get(file_env, file)):
        return None
    # A list, as in PATH.
    if any(map(has_roots, os.environ.get(directory_env, directory).split(os.pathsep))):
        return None
    try:
        import certifi
    except ImportError:  # The handshake will say that the issuer is unknown.
        return None
    return os.fsencode(certifi.where())


def has_file(file: str) -> bool:
    """Whether OpenSSL can read it. OpenSSL, too, passes over a file that it cannot read."""
    return os.path.isfile(file) and is_permitted(file, os.R_OK)


def has_roots(directory: str) -> bool:
    """Whether OpenSSL can look for roots there, and the directory is not empty."""
    try:
        with os.scandir(directory) as entries:
            return any(True for _ in entries)
    except PermissionError:  # OpenSSL does not list it: it opens files by the hash of the issuer.
        return is_permitted(directory, os.X_OK)
    except OSError:
        return False


def is_permitted(path: str, mode: int) -> bool:
    """Like os.access, for the user that the process acts as."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
