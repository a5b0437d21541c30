//! The types of a connection: its options, events, errors, counters and endings.

const std = @import("std");
const constants = @import("../constants.zig");
const os = @import("../os.zig");
const http = @import("../http.zig");
const lookup = @import("../lookup.zig");
const ssl = @import("../ssl.zig");
const ws = @import("../ws.zig");
const socket = @import("../socket.zig");
const state = @import("state.zig");
const Delivery = @import("../delivery.zig").Delivery;

/// The options of a connection. Slices and pointers belong to the owner and outlive the connection.
pub const Options = struct {
    purpose: Purpose,
    url: http.Url,
    /// The host of the URL, for the resolver.
    host: [:0]const u8,
    /// The name that the certificate has to have; the host unless the owner chooses another.
    server_name: [:0]const u8,
    server_name_is_address: bool,
    /// Sent with the request, after the headers that the handshake needs.
    headers: []const http.Header,
    /// Offered in this order.
    subprotocols: []const []const u8,
    /// Null: permessage-deflate is not offered.
    compression: ?CompressionOptions = null,
    /// Null for `ws://` and `http://`.
    tls: ?*const ssl.Context,
    /// Null: the best one that the cipher allows.
    tls_engine: ?ssl.Engine,
    socket: SocketOptions,
    connect_timeout_ns: u64,
    close_timeout_ns: u64,
    message_size_max: usize,
    receive_ring_capacity: usize,
    send_ring_capacity: usize,
    huge_pages: bool,
    validate_utf8: bool,
    mask: Mask,
    /// Spin on the socket instead of sleeping in the kernel.
    busy_poll: bool,
    timestamps: os.TimestampMode,

    /// What the upgrade request contains, and what its answer is checked against.
    pub fn upgradeRequest(
        options: *const Options,
        key: *const ws.handshake.Key,
    ) ws.handshake.RequestOptions {
        return .{
            .url = &options.url,
            .key = key,
            .headers = options.headers,
            .subprotocols = options.subprotocols,
            .compression = if (options.compression) |wanted| wanted.offer else null,
        };
    }

    pub fn parserOptions(options: *const Options, allows_compression: bool) ws.Parser.Options {
        return .{
            .message_size_max = options.message_size_max,
            .validate_utf8 = options.validate_utf8,
            .allows_compression = allows_compression,
        };
    }

    pub const Purpose = enum { websocket, get };
    /// `zero` saves a few nanoseconds, but then an attacker who chooses the payload also chooses
    /// the bytes on the wire, which masks exist to prevent (RFC 6455, section 10.3).
    pub const Mask = enum { random, zero };
};

pub const SocketOptions = socket.Options;
pub const Stage = state.Stage;
pub const CompressionOptions = @import("compression.zig").Options;

pub const Event = union(enum) {
    /// There is nothing more to do without the kernel: wait.
    blocked,
    /// The upgrade is done. The head of its response, borrowed.
    opened: http.Head,
    /// A whole message; its payload is borrowed.
    message: Delivery,
    /// The answer is a plain response. The head, borrowed.
    response: http.Head,
    /// The next bytes of that response's body, borrowed.
    body: []const u8,
    /// The plain response is over; `complete` is false if a part of it is missing.
    finished: struct { complete: bool },
    /// The closing handshake is over.
    closed: Closed,
};

/// How a connection ended.
pub const Closed = struct {
    /// RFC 6455, section 7.1.5: 1005 when the peer named none, 1006 when it sent no CLOSE.
    code: u16,
    reason: []const u8 = "",
    /// Whether both sides sent CLOSE.
    clean: bool,
    /// Whether we ended the connection: by the first CLOSE, or without one.
    local: bool = false,

    /// Whether this is an ordinary end, which raises no exception.
    pub fn isOrdinary(closed: Closed) bool {
        if (!closed.clean) return false;
        if (closed.local) return true;
        return switch (closed.code) {
            1000, 1001, 1005 => true,
            else => false,
        };
    }
};

/// Why a connection failed, with what an exception needs to explain it.
pub const Failure = union(enum) {
    /// The look-up of the name failed, or could not begin.
    resolve: lookup.Error,
    open_socket: struct { cause: socket.OpenError, option: ?socket.Option = null },
    connect: struct { cause: os.ConnectError, address: os.Address },
    timed_out: Stage,
    tls: struct { cause: ssl.Failure, in_handshake: bool },
    /// The stream ended before there was a response.
    ended: struct { stage: Stage, cause: StreamEnd },
    request: RequestError,
    response: http.response.HeadError,
    /// The server sent too many 1xx responses.
    too_many_interim_responses,
    body: BodyError,
    upgrade: UpgradeError,
    /// The server answered the upgrade with a plain response, which the owner got as events.
    refused,
    /// The peer broke the protocol.
    protocol: ProtocolFailure,
    /// The stream ended without a closing handshake.
    closed: Closed,
};

/// How the peer broke the protocol.
pub const ProtocolFailure = struct {
    cause: ws.ParseError,
    /// The code of our CLOSE; 1006 if one had been sent before.
    code: u16,
    /// With `error.MessageTooBig`, unless the message is too big only when it is inflated.
    oversize: ?ws.Parser.Oversize = null,

    /// One sentence, in the buffer or static. It calls the limit what the user calls it.
    pub fn describe(failure: *const ProtocolFailure, buffer: []u8, size_max: usize) []const u8 {
        switch (failure.cause) {
            error.MessageTooBig => {},
            else => |cause| return ws.describe(cause),
        }
        const oversize = failure.oversize orelse {
            const format = "the server sent a message of more than {0d} bytes when inflated; " ++
                "max_message_size is {0d}";
            return std.fmt.bufPrint(buffer, format, .{size_max}) catch unreachable;
        };
        const least = if (oversize.is_whole) "" else "at least ";
        const format = "the server sent a message of {s}{d} bytes; max_message_size is {d}";
        const values = .{ least, oversize.size, size_max };
        return std.fmt.bufPrint(buffer, format, values) catch unreachable;
    }
};

/// What ended the stream of bytes from the peer.
pub const StreamEnd = union(enum) {
    /// FIN without close_notify.
    eof,
    /// TLS close_notify.
    close_notify,
    receive: ReceiveFailure,
    /// The client could not send what it had to send before the connection is open.
    send: SendFailure,

    /// Over TLS, only close_notify proves that nothing was cut off (RFC 8446, section 6.1).
    pub fn isTruncation(end: StreamEnd, secure: bool) bool {
        return switch (end) {
            .eof => secure,
            .close_notify => false,
            .receive, .send => true,
        };
    }

    /// The end of a connection that was open, where a close frame had to come first.
    pub fn describeUnclosed(end: StreamEnd) []const u8 {
        return switch (end) {
            .eof => "the peer closed the TCP connection without a close frame",
            .close_notify => "the peer closed TLS without a close frame",
            .receive, .send => end.describe(),
        };
    }

    pub fn describe(end: StreamEnd) []const u8 {
        return switch (end) {
            .eof => "the peer closed the TCP connection",
            .close_notify => "the peer closed TLS",
            .receive => |cause| switch (cause) {
                error.ConnectionReset => "the peer reset the TCP connection",
                error.TimedOut => "the TCP connection timed out",
                error.NetworkUnreachable => "the network became unreachable",
                error.HostUnreachable => "the peer became unreachable",
                error.OutOfMemory => "the kernel had no memory for the read",
                error.Unexpected => "reading the socket failed",
            },
            .send => |cause| switch (cause) {
                error.AccessDenied => "sending was forbidden",
                error.OutOfMemory => "the kernel had no memory to send",
                error.Unexpected => "writing the socket failed",
            },
        };
    }
};

/// The errors of a read, besides having nothing to read.
pub const ReceiveFailure = os.ReceiveFailure;

/// The errors of a send that leave the connection intact: no read would report them.
pub const SendFailure = error{ AccessDenied, OutOfMemory, Unexpected };

pub const RequestError = ws.handshake.RequestError || http.request.WriteError;
pub const UpgradeError = ws.handshake.ResponseError;
pub const BodyError = http.body.Error;

pub const NextError = error{
    /// The connection has failed; `Connection.failure` returns the cause.
    Failed,
    /// The owner holds so many received bytes that no more fit. It can release some and go on.
    ReceiveRingPinned,
    OutOfMemory,
};

/// `os.MapError`, because the first `start` maps the rings.
pub const StartError = error{Failed} || os.MapError;

pub const SendError = error{
    /// Not open yet, or closing already.
    NotOpen,
    /// Sending has failed; the receiving half will report how the connection ended.
    Disconnected,
    /// No room for the frame until the kernel takes what is queued.
    SendRingFull,
    /// A reservation is open.
    Reserved,
};

/// The result of one read of the socket, and its buffer.
pub const Read = struct {
    target: []u8,
    result: os.ReceiveRecordError!usize,
    /// The type of a record that the kernel has opened; null at the end of the stream.
    content_type: ?u8 = null,

    pub fn foundNothing(read: Read) bool {
        _ = read.result catch |err| return switch (err) {
            error.WouldBlock => true,
            else => false,
        };
        return false;
    }
};

/// What a connection waits for in the kernel.
pub const Interest = struct { descriptor: os.Descriptor, events: os.Interest };

/// What ended a wait.
pub const Wake = os.Wake;

pub const Counters = struct {
    /// Messages delivered, and their payload bytes.
    messages: u64 = 0,
    bytes: u64 = 0,
    /// Of these messages, the ones that came compressed, and their bytes on the wire.
    messages_inflated: u64 = 0,
    bytes_before_inflation: u64 = 0,
    /// Messages that arrived after `close` had been called.
    messages_dropped: u64 = 0,
    /// Reads of the socket that returned something.
    reads: u64 = 0,
    /// Opened TLS records that had data in them.
    records: u64 = 0,
    /// Pings and pongs received.
    pings: u64 = 0,
    pongs: u64 = 0,
    messages_sent: u64 = 0,
    bytes_sent: u64 = 0,
    /// Of these messages, the ones that went out compressed, and their bytes on the wire.
    messages_deflated: u64 = 0,
    bytes_after_deflation: u64 = 0,
    pings_sent: u64 = 0,
};

test "types: which ends are ordinary" {
    const expect = std.testing.expect;
    try expect((Closed{ .code = 1000, .clean = true }).isOrdinary());
    try expect((Closed{ .code = 1005, .clean = true }).isOrdinary());
    try expect((Closed{ .code = 4000, .clean = true, .local = true }).isOrdinary());
    try expect(!(Closed{ .code = 1011, .clean = true }).isOrdinary());
    try expect(!(Closed{ .code = 1000, .clean = false }).isOrdinary());
}
