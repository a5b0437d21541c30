//! The docstrings of the methods of `hftws.Client`, with their signatures.

pub const connect =
    \\connect($self, /)
    \\--
    \\
    \\Connects: name, TCP, TLS, WebSocket upgrade. Blocks until done.
    \\
    \\Every address that the name resolves to is tried. A client whose connection has ended can
    \\connect again. Then on_open(client) is called.
    \\
    \\Raises ConnectError, ConnectTimeout, TLSError or HandshakeError.
;

pub const run =
    \\run($self, /)
    \\--
    \\
    \\Receives until the connection ends, and calls on_msg for each message.
    \\
    \\Returns when the connection ends in the ordinary way: close() was called, or the peer
    \\closed with 1000, 1001 or no code. Raises ConnectionClosed when it ends otherwise,
    \\ProtocolError or MessageTooBig when the peer misbehaves, TLSError when a record is bad,
    \\and BufferError when kept messages leave no room (see wait_for_room). What a callback
    \\raises comes out of here, and run() can be called again to go on.
;

pub const poll =
    \\poll($self, /, timeout=0.0)
    \\--
    \\
    \\Delivers what is there and returns how many messages that were.
    \\
    \\When there is nothing, waits up to timeout seconds for the first; None waits without end.
    \\Raises what run() raises, and ConnectionClosed also after an ordinary end.
;

pub const wait_for_room =
    \\wait_for_room($self, /, timeout=None)
    \\--
    \\
    \\After run() or poll() raised BufferError: waits until kept messages are released.
    \\
    \\For a program that hands messages to another thread, which is slower: sleeps until that
    \\thread has let go of so many that there is room again, and returns True; False after timeout
    \\seconds. None waits without end. Returns True at once when messages are not what is in the
    \\way. Nothing is received meanwhile, and no ping is answered. Raises RuntimeError from a
    \\callback of the same client.
;

pub const close =
    \\close($self, /, code=1000, reason='')
    \\--
    \\
    \\Closes the connection: the handshake of RFC 6455, section 7, for at most close_timeout s.
    \\
    \\Messages that still arrive are dropped. When the connection has ended, it only gives back
    \\the memory of the rings, which another connect() maps anew. From a callback it returns at
    \\once, and the call under way finishes the handshake.
;

pub const send =
    \\send($self, data, /, *, text=None)
    \\--
    \\
    \\Sends one message: a str as text, bytes-like data as binary, or as text with text=True.
    \\
    \\Returns at once. What the socket does not take waits in the send ring and goes out with
    \\the next call of run(), poll() or send(). Raises BufferError when the ring has no room:
    \\nothing of the message is sent then. Data sent as text is not checked to be UTF-8.
;

pub const ping =
    \\ping($self, payload=b'', /)
    \\--
    \\
    \\Sends a ping with at most 125 bytes. Pings of the peer are answered without help.
;

pub const reserve =
    \\reserve($self, n, /, *, text)
    \\--
    \\
    \\A context manager that gives the place of a message of n bytes in the send ring.
    \\
    \\The message is masked and sent at the end of the block, without a copy; after an exception
    \\it is dropped. Nothing else can be sent in between. The block itself takes some 400 ns: it
    \\pays for messages of many KiB, or where it saves you a buffer of your own. A slice of the
    \\view (numpy.frombuffer) that outlives the block ends it in BufferError: the message is not
    \\sent, and send, poll, run and close raise RuntimeError until the slice is gone.
;

pub const fetch =
    \\fetch($self, /)
    \\--
    \\
    \\One GET; see hftws.get().
;

pub const fileno =
    \\fileno($self, /)
    \\--
    \\
    \\The socket's file descriptor, for a loop of your own: when it is readable, or writable
    \\while wants_write is true, call poll(). Messages that have been read already do not make
    \\it readable: call poll(0) once after connect() and after every exception of a callback,
    \\before you wait, and every few milliseconds when is_open is false, until it raises.
;

pub const info =
    \\info($self, /)
    \\--
    \\
    \\What is in force, as a dict: peer, TLS, rings, socket options as read back.
;

pub const stats =
    \\stats($self, /)
    \\--
    \\
    \\Counters, and with latency=True a histogram of each stage, in nanoseconds.
;
