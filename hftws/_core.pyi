"""The extension module: native types and functions that the package is built on.

`hftws.Client` and `hftws.get` document the arguments.
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, final

from typing_extensions import Buffer, disjoint_base

from hftws.types import ConnectionInfo, Stats

__version__: str

@final
class Message:
    """A message from the peer.

    len(), bytes() and str() work on it; so does everything that takes a buffer.
    """
    @property
    def data(self) -> memoryview:
        """The payload: a read-only memoryview of the receive ring, not a copy.

        Its bytes stay as they are for as long as the view, a slice of it or the message
        is kept; a view that is kept takes room in the ring.
        """
    @property
    def opcode(self) -> int:
        """1 for text, 2 for binary (RFC 6455, section 5.2)."""
    @property
    def is_text(self) -> bool:
        """Whether this is a text message."""
    @property
    def is_last(self) -> bool:
        """Whether nothing more was waiting behind it in this read of the socket.

        Over TLS a whole record counts as more, whatever is in it.
        """
    @property
    def t_kernel(self) -> int | None:
        """When the kernel or the NIC got the segment that ends the read, ns since the epoch.

        All messages of a read share it, since a read has only one. So it is the latest moment
        at which this message can have arrived, and its age is at least the time since then:
        t_kernel_exact says whether it is more, t_earliest how much more it can be. None when
        there is no such stamp: see Client.info()["kernel_stamp_source"].
        """
    @property
    def t_kernel_exact(self) -> bool:
        """Whether t_kernel is the moment at which this message had arrived whole.

        True for the message that ends with the last byte of a read that took all there was.
        A TLS record cannot be opened before all of it has arrived, so over TLS it is true
        for all messages of the last record. False when t_kernel is None. While a message is
        lent to on_msg, RuntimeError in other threads.
        """
    @property
    def t_earliest(self) -> int | None:
        """The earliest moment at which this message can have arrived, ns since the epoch.

        That is the last one at which the socket was known to be empty: the beginning of the
        newest read before that took all there was, or found nothing. The message arrived
        between it and t_kernel (or t_received, without a stamp). On the clock of the system,
        also with stamps of the NIC. None without timestamps, and with TLS in the kernel.
        """
    @property
    def t_received(self) -> int | None:
        """When the read of the socket returned, ns since the epoch; None without timestamps."""
    @property
    def t_decrypted(self) -> int | None:
        """When the TLS record was open, ns since the epoch; None without timestamps."""
    @property
    def t_delivered(self) -> int | None:
        """When on_msg was about to be called, ns since the epoch; None without timestamps."""
    @property
    def cycles(self) -> tuple[int, int, int] | None:
        """The CPU's counter at (t_received, t_decrypted, t_delivered); None without timestamps."""
    def __len__(self) -> int: ...
    def __bytes__(self) -> bytes:
        """A copy of the payload."""
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Reservation:
    """A frame under construction in the send ring. See Client.reserve."""
    def __enter__(self) -> memoryview:
        """The place of the payload, a writable memoryview that is yours until the block ends.

        Raises what Client.send() raises.
        """
    def __exit__(
        self,
        type: type[BaseException] | None = None,
        value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Sends the message, or drops it after an exception.

        Raises BufferError, and drops it, when a slice of the view is still in use.
        """
    def __buffer__(self, flags: int, /) -> memoryview: ...

@disjoint_base
class ClientBase:
    """The native part of hftws.Client."""
    def __init__(
        self,
        *,
        url: str,
        purpose: str,
        on_msg: Callable[[Message], None] | None = None,
        on_open: Callable[[Any], None] | None = None,
        on_close: Callable[[Any, int, str], None] | None = None,
        on_error: Callable[[Any, Exception], None] | None = None,
        headers: Sequence[str] = (),
        subprotocols: Sequence[str] = (),
        deflate: tuple[bool, bool, int | None, int | None, int, int] | None = None,
        zlib_libraries: Sequence[bytes] = (),
        ca_file: bytes | None = None,
        cert_file: bytes | None = None,
        key_file: bytes | None = None,
        verify: bool = True,
        tls: str | None = None,
        ciphers: str | None = None,
        server_name: str | None = None,
        connect_timeout: float = 0.0,
        close_timeout: float = 0.0,
        peer_timeout: float | None = 30.0,
        max_message_size: int = 0,
        max_body_size: int = 0,
        ring_size: int = 0,
        send_ring_size: int = 0,
        huge_pages: bool = False,
        validate_utf8: bool = True,
        mask: str | None = None,
        busy_poll: bool = False,
        timestamps: str | None = None,
        latency: bool = False,
        quick_ack: bool = False,
        local_address: str | None = None,
        interface: str | None = None,
        receive_buffer_size: int = 0,
        send_buffer_size: int = 0,
        socket_busy_poll_us: int = 0,
        tls_libraries: Sequence[bytes] = (),
    ) -> None: ...
    # Read-only. Any, because a property, or a variable of another type, must not be overridden by a
    # method, which a subclass may want to pass.
    on_msg: Any
    """The on_msg that was given to the client, or None. It is called with each Message."""
    on_open: Any
    """The on_open that was given to the client, or None. It is called with the client."""
    on_close: Any
    """The on_close that was given to the client, or None.

    It is called once for each connection that was open, when it has ended, with the client,
    close_code and close_reason.
    """
    on_error: Any
    """The on_error that was given to the client, or None.

    In a hftws.Loop, it is called with the client and the exception that run() would raise.
    """
    @property
    def is_open(self) -> bool:
        """Whether messages can be sent and received now. Any thread may ask.

        False, too, once sending has failed, although messages that came before that are still
        delivered.
        """
    @property
    def wants_write(self) -> bool:
        """Whether something waits in the send ring for the socket to be writable."""
    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose (RFC 6455, section 1.9), or None."""
    @property
    def response_headers(self) -> list[tuple[str, str]]:
        """The headers of the server's answer to the upgrade, as a list of pairs: name, value.

        In their order, names as the server wrote them. Each access makes a new list.
        """
    @property
    def close_code(self) -> int | None:
        """How the connection ended (RFC 6455, section 7.1.5); None while it has not.

        1005 when the peer gave no code, 1006 when it sent no CLOSE.
        """
    @property
    def close_reason(self) -> str | None:
        """The reason that came with close_code, or with 1006 what happened; None before the end."""
    def connect(self) -> None:
        """Connects: name, TCP, TLS, WebSocket upgrade (RFC 6455, section 4.1). Blocks until done.

        Every address that the name resolves to is tried. A client whose connection has ended can
        connect again. At the end on_open(client) is called.

        Raises ConnectError, ConnectTimeout after connect_timeout seconds, TLSError or
        HandshakeError; RuntimeError when it is connected already; what on_open raises, and then it
        is connected.
        """
    def run(self) -> None:
        """Receives until the connection ends, and calls on_msg for each message.

        Returns when the connection ends in the ordinary way: close() was called, or the peer
        closed with 1000, 1001 or no code. Raises ConnectionClosed when it ends otherwise,
        ProtocolError or MessageTooBig when the peer misbehaves, TLSError when a record is bad,
        and BufferError when kept messages leave no room (see wait_for_room). What a callback
        raises comes out of here, and run() can be called again to go on. Raises RuntimeError before
        connect(), and from a callback of the same client.
        """
    def poll(self, timeout: float | None = 0.0) -> int:
        """Delivers what is there to on_msg, and returns how many messages that were.

        When there is nothing, waits up to timeout seconds for the first; None waits without end.
        Raises what run() raises, and ConnectionClosed also after an ordinary end; ValueError when
        timeout is negative or NaN.
        """
    def wait_for_room(self, timeout: float | None = None) -> bool:
        """After run() or poll() raised BufferError: waits until kept messages are released.

        For a program that hands messages to another thread, which is slower: sleeps until that
        thread has let go of so many that there is room again, and returns True; False after timeout
        seconds. None waits without end. Returns True at once when messages are not what is in the
        way. Nothing is received meanwhile, and no ping is answered. Raises RuntimeError from a
        callback of the same client.
        """
    def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes the connection: the handshake of RFC 6455, section 7, for at most close_timeout s.

        Messages that still arrive are dropped. When the connection has ended, it only gives back
        the memory of the rings, which another connect() maps anew. From a callback it returns at
        once, and the call under way finishes the handshake.

        The code is 1000 to 1003, 1007 to 1014 or 3000 to 4999; the reason has at most 123 bytes of
        UTF-8: ValueError otherwise. Raises what on_close raises, and nothing for what the peer
        does.
        """
    def send(self, data: str | Buffer, *, text: bool | None = None) -> None:
        """Sends one message: a str as text, bytes-like data as binary, or as text with text=True.

        Copies the data and returns at once. What the socket does not take waits in the send ring
        and goes out with the next call of run(), poll() or send(). Data sent as text is not
        checked to be UTF-8.

        Raises BufferError when the ring has no room, and ValueError when it is too small for the
        message: nothing of it is sent then. Raises ConnectionClosed when the connection has ended
        or cannot be written, RuntimeError before connect(), and TypeError for other data.
        """
    def ping(self, payload: str | Buffer = b"") -> None:
        """Sends a ping (RFC 6455, section 5.5.2). Pings of the peer are answered without help.

        The payload has at most 125 bytes: ValueError otherwise. stats() counts the pongs. Raises
        what send() raises.
        """
    def reserve(self, n: int, *, text: bool) -> Reservation:
        """A context manager that gives the place of a message of n bytes in the send ring.

        The block gets a writable memoryview. The message is masked and sent at the end of the
        block, without a copy; after an exception it is dropped. Nothing else can be sent in
        between. The block itself takes some 400 ns: it pays for messages of many KiB, or where it
        saves you a buffer of your own.

        The place is lent until the end of the block. A slice of the view (numpy.frombuffer) that
        outlives it ends the block in BufferError: the message is not sent, and send, poll, run and
        close raise RuntimeError until the slice is gone. Entering the block raises what send()
        raises.
        """
    def fileno(self) -> int:
        """A descriptor for another event loop: when it is readable, call poll().

        It is the same for the life of the client, also before connect() and after the end of a
        connection. It is readable exactly when poll() has something to do: messages, a deadline,
        room in the socket for what waits to be sent, or an end to tell; with busy_poll=True always.
        It is not the socket: see Client.info()["descriptor"]. Any thread may call it. Raises
        RuntimeError when the client is in a loop.
        """
    def stop(self) -> None:
        """Makes run() return, or a poll() that waits; the next one, if none does now.

        The connection stays open, and another run() goes on. Any thread may call it, and a signal
        handler. Raises RuntimeError when the client is in a loop: stop that.
        """
    def _descriptor(self) -> int:
        """The socket's number, or -1."""
    def _wake(self) -> None:
        """For call_soon_threadsafe()."""
    def info(self) -> ConnectionInfo:
        """What is in force: peer, TLS, rings, socket options as read back from the kernel.

        hftws.types.Info has the keys and their meaning. The values are those of this moment; a
        connection that is not there has None.
        """
    def stats(self) -> Stats:
        """Counters of all its connections, and with latency=True a histogram of each stage, in ns.

        hftws.types.Stats has the keys and their meaning. Any thread may call it: each number is
        right by itself, but another thread that receives may change some between two of them.
        """

@disjoint_base
class LoopBase:
    """The native part of hftws.Loop."""
    @property
    def clients(self) -> list[Any]:
        """The clients, in the order in which they were added; a new list."""
    def add(self, client: ClientBase) -> None:
        """Takes a client into the loop, which connects it if it is not connected.

        Returns at once. The client's own callbacks tell what becomes of it: on_open, on_close and
        on_error. Raises ValueError when it is in a loop already, RuntimeError when it is running or
        another thread uses it.
        """
    def remove(self, client: ClientBase) -> None:
        """Gives a client back. Its connection stays as it is, for run() or poll() of the client.

        From a callback of that client: when the callback has returned. Raises ValueError when the
        client is not in this loop.
        """
    def run(self) -> None:
        """Receives for all clients, until stop() is called or nothing is left to wait for.

        That is when no client is connected or connecting, and no timer is set. What a callback
        raises comes out of here, and run() can be called again to go on: nothing is lost.
        """
    def run_once(self, timeout: float | None = 0.0) -> int:
        """Delivers what is there and returns how many messages that were.

        When there is nothing, waits up to timeout seconds for the first; None waits without end.
        Raises what a callback raises.
        """
    def close(self) -> None:
        """Closes all connections, each with its closing handshake, and gives all clients back.

        Takes at most the longest close_timeout. Raises RuntimeError from a callback.
        """
    def stop(self) -> None:
        """Makes run() return, or a run_once() that waits; the next one, if none does now.

        All connections stay as they are. Any thread may call it, and a signal handler.
        """
    def fileno(self) -> int:
        """A descriptor for another event loop: when it is readable, call run_once().

        It is the same for the life of the loop, and readable exactly when run_once() has something
        to do; with a client that busy polls, always.
        """
    def _wake(self) -> None:
        """For call_soon_threadsafe()."""
    def _set_timer(self, when_ns: int | None = None) -> None:
        """When to call _run_timers()."""
    def __len__(self) -> int: ...

def pin_thread(cpu: int, /) -> None:
    """Keeps the calling thread on one CPU, and on Linux the threads with which the system looks
    up names for clients that connect in it: these run there while it sleeps.

    On Intel Macs it is a hint: threads given the same CPU share a cache, others do not.
    Raises ValueError for a CPU that this process may not use, NotImplementedError on Apple
    silicon, which has no such thing.
    """

def set_realtime_priority(priority: int, /) -> None:
    """Runs the calling thread ahead of all ordinary ones (SCHED_FIFO, 1 to 99).

    On macOS by a time constraint of 0.5 ms in 1 ms, whatever the number: it is not for
    busy_poll=True, since the kernel demotes a thread that runs for a second without sleep.
    Raises PermissionError without the privilege, which macOS does not ask for.
    """

def lock_memory() -> None:
    """Keeps all memory of this process, present and future, out of the swap (mlockall).

    Raises OSError where a limit forbids it, NotImplementedError on macOS.
    """

def fetch(client: ClientBase, /) -> tuple[int, list[tuple[str, str]], bytes]:
    """The one GET of a client that was made for it, as (status, headers, body). See hftws.get."""

def default_roots(tls_libraries: Sequence[bytes], /) -> tuple[str, str, str, str]:
    """Where the TLS library looks for trusted roots: file_env, file, directory_env, directory."""

def safe_url(url: str, /) -> str:
    """The URL as it may be shown: without what looks like a password or a key."""

def use_libssl(file: bytes, /) -> None:
    """Loads this libssl and no other. See hftws.use_libssl."""
