//! The docstrings of what `hftws.Client` has from its base class, methods with their signatures.
//!
//! `hftws/_core.pyi` has the same texts, for editors: `make stubs` copies them.

pub const connect =
    \\connect($self, /)
    \\--
    \\
    \\Connects: name, TCP, TLS, WebSocket upgrade (RFC 6455, section 4.1). Blocks until done.
    \\
    \\Every address that the name resolves to is tried. A client whose connection has ended can
    \\connect again. At the end on_open(client) is called.
    \\
    \\Raises ConnectError, ConnectTimeout after connect_timeout seconds, TLSError or
    \\HandshakeError; RuntimeError when it is connected already; what on_open raises, and then it
    \\is connected.
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
    \\raises comes out of here, and run() can be called again to go on. Raises RuntimeError before
    \\connect(), and from a callback of the same client.
;

pub const poll =
    \\poll($self, /, timeout=0.0)
    \\--
    \\
    \\Delivers what is there to on_msg, and returns how many messages that were.
    \\
    \\When there is nothing, waits up to timeout seconds for the first; None waits without end.
    \\Raises what run() raises, and ConnectionClosed also after an ordinary end; ValueError when
    \\timeout is negative or NaN.
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
    \\
    \\The code is 1000 to 1003, 1007 to 1014 or 3000 to 4999; the reason has at most 123 bytes of
    \\UTF-8: ValueError otherwise. Raises what on_close raises, and nothing for what the peer
    \\does.
;

pub const send =
    \\send($self, /, data, *, text=None)
    \\--
    \\
    \\Sends one message: a str as text, bytes-like data as binary, or as text with text=True.
    \\
    \\Copies the data and returns at once. What the socket does not take waits in the send ring
    \\and goes out with the next call of run(), poll() or send(). Data sent as text is not
    \\checked to be UTF-8.
    \\
    \\Raises BufferError when the ring has no room, and ValueError when it is too small for the
    \\message: nothing of it is sent then. Raises ConnectionClosed when the connection has ended
    \\or cannot be written, RuntimeError before connect(), and TypeError for other data.
;

pub const ping =
    \\ping($self, /, payload=b'')
    \\--
    \\
    \\Sends a ping (RFC 6455, section 5.5.2). Pings of the peer are answered without help.
    \\
    \\The payload has at most 125 bytes: ValueError otherwise. stats() counts the pongs. Raises
    \\what send() raises.
;

pub const reserve =
    \\reserve($self, /, n, *, text)
    \\--
    \\
    \\A context manager that gives the place of a message of n bytes in the send ring.
    \\
    \\The block gets a writable memoryview. The message is masked and sent at the end of the
    \\block, without a copy; after an exception it is dropped. Nothing else can be sent in
    \\between. The block itself takes some 400 ns: it pays for messages of many KiB, or where it
    \\saves you a buffer of your own.
    \\
    \\The place is lent until the end of the block. A slice of the view (numpy.frombuffer) that
    \\outlives it ends the block in BufferError: the message is not sent, and send, poll, run and
    \\close raise RuntimeError until the slice is gone. Entering the block raises what send()
    \\raises.
;

pub const fetch =
    \\fetch(client, /)
    \\--
    \\
    \\The one GET of a client that was made for it, as (status, headers, body). See hftws.get.
;

pub const fileno =
    \\fileno($self, /)
    \\--
    \\
    \\A descriptor for another event loop: when it is readable, call poll().
    \\
    \\It is the same for the life of the client, also before connect() and after the end of a
    \\connection. It is readable exactly when poll() has something to do: messages, a deadline,
    \\room in the socket for what waits to be sent, or an end to tell; with busy_poll=True always.
    \\It is not the socket: see Client.info()["descriptor"]. Any thread may call it. Raises
    \\RuntimeError when the client is in a loop.
;

pub const info =
    \\info($self, /)
    \\--
    \\
    \\What is in force: peer, TLS, rings, socket options as read back from the kernel.
    \\
    \\hftws.types.Info has the keys and their meaning. The values are those of this moment; a
    \\connection that is not there has None.
;

pub const stats =
    \\stats($self, /)
    \\--
    \\
    \\Counters of all its connections, and with latency=True a histogram of each stage, in ns.
    \\
    \\hftws.types.Stats has the keys and their meaning. Any thread may call it: each number is
    \\right by itself, but another thread that receives may change some between two of them.
;

pub const on_msg =
    \\The on_msg that was given to the client, or None. It is called with each Message.
;

pub const on_open =
    \\The on_open that was given to the client, or None. It is called with the client.
;

pub const on_close =
    \\The on_close that was given to the client, or None.
    \\
    \\It is called once for each connection that was open, when it has ended, with the client,
    \\close_code and close_reason.
;

pub const is_open =
    \\Whether messages can be sent and received now. Any thread may ask.
    \\
    \\False, too, once sending has failed, although messages that came before that are still
    \\delivered.
;

pub const wants_write =
    \\Whether something waits in the send ring for the socket to be writable.
;

pub const subprotocol =
    \\The subprotocol that the server chose (RFC 6455, section 1.9), or None.
;

pub const response_headers =
    \\The headers of the server's answer to the upgrade, as a list of pairs: name, value.
    \\
    \\In their order, names as the server wrote them. Each access makes a new list.
;

pub const close_code =
    \\How the connection ended (RFC 6455, section 7.1.5); None while it has not.
    \\
    \\1005 when the peer gave no code, 1006 when it sent no CLOSE.
;

pub const close_reason =
    \\The reason that came with close_code, or with 1006 what happened; None before the end.
;

pub const on_error =
    \\The on_error that was given to the client, or None.
    \\
    \\In a hftws.Loop, it is called with the client and the exception that run() would raise.
;

pub const stop =
    \\stop($self, /)
    \\--
    \\
    \\Makes run() return, or a poll() that waits; the next one, if none does now.
    \\
    \\The connection stays open, and another run() goes on. Any thread may call it, and a signal
    \\handler. Raises RuntimeError when the client is in a loop: stop that.
;

pub const loop_add =
    \\add($self, client)
    \\--
    \\
    \\Takes a client into the loop, which connects it if it is not connected.
    \\
    \\Returns at once. The client's own callbacks tell what becomes of it: on_open, on_close and
    \\on_error. Raises ValueError when it is in a loop already, RuntimeError when it is running or
    \\another thread uses it.
;

pub const loop_remove =
    \\remove($self, client)
    \\--
    \\
    \\Gives a client back. Its connection stays as it is, for run() or poll() of the client.
    \\
    \\From a callback of that client: when the callback has returned. Raises ValueError when the
    \\client is not in this loop.
;

pub const loop_run =
    \\run($self, /)
    \\--
    \\
    \\Receives for all clients, until stop() is called or nothing is left to wait for.
    \\
    \\That is when no client is connected or connecting, and no timer is set. What a callback
    \\raises comes out of here, and run() can be called again to go on: nothing is lost.
;

pub const loop_run_once =
    \\run_once($self, /, timeout=0.0)
    \\--
    \\
    \\Delivers what is there and returns how many messages that were.
    \\
    \\When there is nothing, waits up to timeout seconds for the first; None waits without end.
    \\Raises what a callback raises.
;

pub const loop_close =
    \\close($self, /)
    \\--
    \\
    \\Closes all connections, each with its closing handshake, and gives all clients back.
    \\
    \\Takes at most the longest close_timeout. Raises RuntimeError from a callback.
;

pub const loop_stop =
    \\stop($self, /)
    \\--
    \\
    \\Makes run() return, or a run_once() that waits; the next one, if none does now.
    \\
    \\All connections stay as they are. Any thread may call it, and a signal handler.
;

pub const loop_fileno =
    \\fileno($self, /)
    \\--
    \\
    \\A descriptor for another event loop: when it is readable, call run_once().
    \\
    \\It is the same for the life of the loop, and readable exactly when run_once() has something
    \\to do; with a client that busy polls, always.
;
