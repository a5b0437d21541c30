//! Parses a server's frames in place, and joins fragments.
//!
//! See RFC 6455, sections 5 and 8.1, for the client's role. `Parser` is a state machine over the
//! readable span of a ring: no I/O, no allocation. The caller hands in all bytes that were received
//! and not yet taken, gets one event at a time, and takes what no later event needs. A message in
//! one frame is a slice of those bytes. The fragments of a message are joined in place, over the
//! headers between them:
//!
//!     received                    |h1|p1|h2|p2|ping|h3|p3|h4|p4 (half)
//!     after h3, p3                |h1|p1 p2 p3 . . . . . |h4|p4 (half)
//!                                     ^ message_offset   ^ parsed_size
//!                                     [message_size]
//!
//! While a message is being joined, `take()` releases only the bytes in front of it: h1. Its last
//! fragment makes it an event, and `take()` then releases everything up to its end. Each payload
//! byte moves at most once, when its frame is complete. All places are offsets, so the bytes may be
//! at another address in the next call.
//!
//! With permessage-deflate (RFC 7692), a compressed message is an event of its own: the parser
//! joins it and limits its size; the owner inflates it and then checks the text.
//!
//! Invariant: message_offset + message_size <= parsed_size <= bytes.len

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("../constants.zig");
const frame = @import("frame.zig");
const utf8 = @import("utf8.zig");

const errors = @This();
const Opcode = frame.Opcode;
const CloseCode = frame.CloseCode;

/// What a server may not send. `closeCode` and `describe` have a code and a sentence for each.
pub const ParseError = error{
    ReservedBits,
    ReservedOpcode,
    FragmentedControlFrame,
    ControlFrameTooLong,
    MaskedServerFrame,
    NonMinimalLength,
    LengthTooLarge,
    UnexpectedContinuation,
    ExpectedContinuation,
    InvalidUtf8,
    InvalidCloseCode,
    InvalidClosePayload,
    InvalidCloseReason,
    InvalidCompression,
    MessageTooBig,
};

/// The code of the close frame with which the client answers. RFC 6455, section 7.4.1.
pub fn closeCode(parse_error: ParseError) u16 {
    const code: CloseCode = switch (parse_error) {
        error.ReservedBits,
        error.ReservedOpcode,
        error.FragmentedControlFrame,
        error.ControlFrameTooLong,
        error.MaskedServerFrame,
        error.NonMinimalLength,
        error.LengthTooLarge,
        error.UnexpectedContinuation,
        error.ExpectedContinuation,
        error.InvalidCloseCode,
        error.InvalidClosePayload,
        => .protocol_error,
        error.InvalidUtf8,
        error.InvalidCloseReason,
        error.InvalidCompression,
        => .invalid_payload,
        error.MessageTooBig => .message_too_big,
    };
    return @backingInt(code);
}

/// One plain sentence for people.
pub fn describe(parse_error: ParseError) [:0]const u8 {
    return switch (parse_error) {
        error.ReservedBits => "the server set reserved bits in a frame " ++
            "that no negotiated extension gives a meaning",
        error.ReservedOpcode => "the server sent a frame with a reserved opcode",
        error.FragmentedControlFrame => "the server sent a control frame in fragments",
        error.ControlFrameTooLong => "the server sent a control frame of more than 125 bytes",
        error.MaskedServerFrame => "the server sent a masked frame, which only a client may do",
        error.NonMinimalLength => "the server sent a frame whose length is not in its " ++
            "shortest form",
        error.LengthTooLarge => "the server sent a frame whose length has its highest bit set",
        error.UnexpectedContinuation => "the server sent a continuation frame, " ++
            "but there is no message to continue",
        error.ExpectedContinuation => "the server began a new message " ++
            "in the middle of a fragmented one",
        error.InvalidUtf8 => "the server sent a text message that is not valid UTF-8",
        error.InvalidCloseCode => "the server sent a close frame with a code " ++
            "that must not be sent",
        error.InvalidClosePayload => "the server sent a close frame with half a code",
        error.InvalidCloseReason => "the server sent a close frame whose reason " ++
            "is not valid UTF-8",
        error.InvalidCompression => "the server sent a compressed message " ++
            "that cannot be decompressed",
        error.MessageTooBig => "the server sent a message larger than the maximum message size",
    };
}

/// See the head of this file. Use: call `next` until it returns null; after handling an event, call
/// `take` and drop that many bytes at the front. More than one event may be handled before a
/// `take`. Borrows nothing between calls.
pub const Parser = struct {
    message_size_max: u64,
    /// The same for the payload of a compressed message. The owner limits the inflated size.
    compressed_size_max: u64,
    validate_utf8: bool,
    allows_compression: bool,

    stage: Stage = .between_messages,
    /// Bytes at the front that have been parsed: all whole frames up to here.
    parsed_size: usize = 0,
    /// How many payload bytes of the data frame at `parsed_size` the `validator` has checked.
    checked_size: usize = 0,
    /// Checks the incomplete text message, over all its fragments.
    validator: utf8.Validator = .{},
    /// The message that is being joined, in `Stage.within_message`, or is to be returned again.
    message_opcode: Opcode = .continuation,
    message_compressed: bool = false,
    message_fragmented: bool = false,
    message_offset: usize = 0,
    message_size: usize = 0,
    /// Set in `Stage.failed`.
    failure: ?ParseError = null,
    /// Set with `error.MessageTooBig`.
    oversize: ?Oversize = null,

    pub const Error = ParseError;
    pub const closeCode = errors.closeCode;
    pub const describe = errors.describe;

    pub const Options = struct {
        /// Largest payload of a message, over all its fragments; of a compressed one, after it
        /// has been inflated.
        message_size_max: usize,
        /// Whether text is checked. The reason in a close frame always is.
        validate_utf8: bool,
        /// permessage-deflate was negotiated: RSV1 marks a compressed message.
        allows_compression: bool = false,
    };

    /// Slices borrow from the bytes that were handed to `next`, until the bytes are dropped after
    /// `take`; those of a control frame between fragments only until the next call of `next`.
    pub const Event = union(enum) {
        message: Message,
        /// The payload is compressed (permessage-deflate), without the last four bytes;
        /// `validate_utf8` did not apply to it.
        compressed: Message,
        ping: []const u8,
        pong: []const u8,
        close: Close,
    };

    pub const Message = struct {
        /// `text` or `binary`.
        opcode: Opcode,
        payload: []u8,
        /// Whether it came in more than one frame.
        fragmented: bool,
    };

    pub const Close = struct {
        /// Null when the frame has no payload. Else one that is allowed in a frame.
        code: ?u16,
        reason: []const u8,
    };

    /// How large a message is that is too big.
    pub const Oversize = struct {
        /// Of all frames up to the one that is too much.
        size: u64,
        /// Whether that frame is the last. If not, the message is larger.
        is_whole: bool,
    };

    const Stage = enum(u8) {
        between_messages,
        /// There was a first fragment, and there has to be another.
        within_message,
        /// The owner has asked to get the last message again.
        repeating,
        /// There was a close frame: nothing may follow (RFC 6455, section 5.5.1).
        closed,
        failed,
    };

    pub fn init(options: Options) Parser {
        return .{
            .message_size_max = options.message_size_max,
            .compressed_size_max = constants.compressedSizeMax(options.message_size_max),
            .validate_utf8 = options.validate_utf8,
            .allows_compression = options.allows_compression,
        };
    }

    /// The next event, or null when it needs more bytes. `bytes` is everything that was received
    /// and not taken; after null it is the same with more at its end. After a close event every
    /// call returns null, after an error that error. Events before a violation come first.
    pub fn next(parser: *Parser, bytes: []u8) ParseError!?Event {
        if (parser.nextWhole(bytes)) |message| return .{ .message = message };
        return parser.nextOfAnyKind(bytes);
    }

    /// The next event, if it is of the usual kind: a valid message in one whole frame, no part of
    /// which was looked at before. Else null: call `next`.
    pub inline fn nextWhole(parser: *Parser, bytes: []u8) ?Message {
        assert(parser.parsed_size <= bytes.len);
        if (parser.stage != .between_messages or parser.checked_size > 0) return null;
        const whole = wholeMessage(bytes[parser.parsed_size..]) orelse return null;
        if (whole.payload_size > parser.message_size_max) return null;

        const payload = bytes[parser.parsed_size + whole.header_size ..][0..whole.payload_size];
        const judged = whole.opcode == .text and parser.validate_utf8;
        if (judged and !utf8.validate(payload)) return null;
        parser.parsed_size += whole.header_size + whole.payload_size;
        return .{ .opcode = whole.opcode, .payload = payload, .fragmented = false };
    }

    /// How many bytes at the front no later event needs. The caller drops them after the events
    /// were handled: the next `bytes` begins after them.
    pub fn take(parser: *Parser) usize {
        const size = switch (parser.stage) {
            .within_message, .repeating => parser.message_offset,
            .between_messages, .closed, .failed => parser.parsed_size,
        };
        parser.parsed_size -= size;
        parser.message_offset = 0;
        return size;
    }

    /// For a caller who could not handle the compressed message that `next` has just returned: it
    /// stays where it is, `take` keeps it, and `next` returns it again. `bytes` are those of
    /// `next`.
    pub fn repeat(parser: *Parser, bytes: []const u8, message: Message) void {
        assert(parser.stage == .between_messages);
        parser.message_opcode = message.opcode;
        parser.message_compressed = true;
        parser.message_fragmented = message.fragmented;
        parser.message_offset = message.payload.ptr - bytes.ptr;
        parser.message_size = message.payload.len;
        parser.stage = .repeating;
        parser.invariants(bytes);
    }

    /// For a caller who has no room for more bytes, while a message in fragments is incomplete:
    /// moves what is joined up to the next frame, so that `take` releases the headers and control
    /// frames in between. Then only the joined payload and one incomplete frame are left.
    pub fn compact(parser: *Parser, bytes: []u8) void {
        parser.invariants(bytes);
        if (parser.stage != .within_message) return;
        const joined = bytes[parser.message_offset..][0..parser.message_size];
        const offset = parser.parsed_size - joined.len;
        @memmove(bytes[offset..][0..joined.len], joined);
        parser.message_offset = offset;
        parser.invariants(bytes);
    }

    /// Whether the frames in `bytes` that were not parsed yet complete a further message, with no
    /// header before it that ends the connection. Payload is not looked at: a message with invalid
    /// UTF-8 counts. For use after an event, with the bytes that `next` got, or after `take` with
    /// what is left of them. Usually looks at one header.
    pub fn completeFrameWaiting(parser: *const Parser, bytes: []const u8) bool {
        assert(parser.parsed_size <= bytes.len);
        var rest = bytes[parser.parsed_size..];
        var before = switch (parser.stage) {
            .between_messages, .within_message => parser.predecessors(),
            .repeating => return true,
            .closed, .failed => return false,
        };
        while (true) {
            const header = (Header.decode(rest, before) catch return false) orelse return false;
            if (header.payload_size > rest.len - header.size) return false;
            switch (header.opcode) {
                .ping, .pong => {},
                .close => return false,
                else => {
                    if (header.fin) return true;
                    before.within_message = true;
                    if (header.compressed) before.size_left = before.compressed_size_max;
                    before.size_left -= header.payload_size;
                },
            }
            rest = rest[header.size + @as(usize, @intCast(header.payload_size)) ..];
        }
    }

    fn nextOfAnyKind(parser: *Parser, bytes: []u8) ParseError!?Event {
        switch (parser.stage) {
            .between_messages, .within_message => {},
            .repeating => return parser.finishMessage(bytes),
            .closed => return null,
            .failed => return parser.failure.?,
        }
        parser.invariants(bytes);
        defer parser.invariants(bytes);
        // Ends at the end of the bytes: every turn except the last skips a frame.
        while (true) {
            const progress = parser.parseFrame(bytes) catch |err| {
                switch (err) {
                    error.MessageTooBig => parser.noteOversize(bytes[parser.parsed_size..]),
                    else => {},
                }
                return parser.fail(err);
            };
            switch (progress) {
                .event => |event| return event,
                .fragment => {},
                .incomplete => return null,
            }
        }
    }

    const Progress = union(enum) { event: Event, fragment, incomplete };

    fn parseFrame(parser: *Parser, bytes: []u8) ParseError!Progress {
        const rest = bytes[parser.parsed_size..];
        const header = try Header.decode(rest, parser.predecessors()) orelse return .incomplete;
        const arrived = rest[header.size..];
        const complete = header.payload_size <= arrived.len;
        if (!header.opcode.isControl()) try parser.checkText(header, arrived);
        if (!complete) return .incomplete;

        const payload = arrived[0..@intCast(header.payload_size)];
        const payload_offset = parser.parsed_size + header.size;
        const event: Event = switch (header.opcode) {
            .ping => .{ .ping = payload },
            .pong => .{ .pong = payload },
            .close => .{ .close = try parseClose(payload) },
            else => {
                parser.parsed_size = payload_offset + payload.len;
                parser.join(header, bytes, payload_offset, payload.len);
                return if (header.fin) .{ .event = parser.finishMessage(bytes) } else .fragment;
            },
        };
        parser.parsed_size = payload_offset + payload.len;
        if (header.opcode == .close) {
            parser.forgetMessage();
            parser.stage = .closed;
        }
        return .{ .event = event };
    }

    /// Checks the bytes of a data frame that were not checked before: RFC 6455, section 8.1.
    fn checkText(parser: *Parser, header: Header, arrived: []const u8) ParseError!void {
        if (!parser.validate_utf8) return;
        const opcode, const compressed = switch (header.opcode) {
            .continuation => .{ parser.message_opcode, parser.message_compressed },
            else => .{ header.opcode, header.compressed },
        };
        if (opcode != .text or compressed) return;
        const complete = header.payload_size <= arrived.len;
        const size: usize = if (complete) @intCast(header.payload_size) else arrived.len;
        try parser.validator.update(arrived[parser.checked_size..size]);
        parser.checked_size = if (complete) 0 else size;
        if (complete and header.fin) try parser.validator.finish();
    }

    /// Adds a complete data frame to its message.
    fn join(parser: *Parser, header: Header, bytes: []u8, offset: usize, size: usize) void {
        parser.stage = .within_message;
        if (header.opcode != .continuation) {
            parser.message_opcode = header.opcode;
            parser.message_compressed = header.compressed;
            parser.message_fragmented = false;
            parser.message_offset = offset;
            parser.message_size = size;
        } else {
            const target = bytes[parser.message_offset + parser.message_size ..][0..size];
            @memmove(target, bytes[offset..][0..size]);
            parser.message_size += size;
            parser.message_fragmented = true;
        }
    }

    fn finishMessage(parser: *Parser, bytes: []u8) Event {
        const message: Message = .{
            .opcode = parser.message_opcode,
            .payload = bytes[parser.message_offset..][0..parser.message_size],
            .fragmented = parser.message_fragmented,
        };
        const compressed = parser.message_compressed;
        parser.forgetMessage();
        parser.stage = .between_messages;
        return if (compressed) .{ .compressed = message } else .{ .message = message };
    }

    fn forgetMessage(parser: *Parser) void {
        parser.message_opcode = .continuation;
        parser.message_compressed = false;
        parser.message_fragmented = false;
        parser.message_offset = 0;
        parser.message_size = 0;
    }

    /// `rest` begins with the frame that is too much, whose header is there in full.
    fn noteOversize(parser: *Parser, rest: []const u8) void {
        @branchHint(.cold);
        const head: frame.Header = .decode(rest[0..2].*);
        const frame_size: u64 = switch (head.length) {
            .extended_16 => std.mem.readInt(u16, rest[2..4], .big),
            .extended_64 => std.mem.readInt(u64, rest[2..10], .big),
            _ => @backingInt(head.length),
        };
        const size = parser.message_size + frame_size;
        parser.oversize = .{ .size = size, .is_whole = head.fin };
    }

    fn fail(parser: *Parser, parse_error: ParseError) ParseError {
        @branchHint(.cold);
        parser.forgetMessage();
        parser.checked_size = 0;
        parser.stage = .failed;
        parser.failure = parse_error;
        return parse_error;
    }

    fn predecessors(parser: *const Parser) Header.Predecessors {
        return .{
            .within_message = parser.stage == .within_message,
            .allows_compression = parser.allows_compression,
            .size_left = parser.presentSizeMax() - parser.message_size,
            .compressed_size_max = parser.compressed_size_max,
        };
    }

    fn presentSizeMax(parser: *const Parser) u64 {
        if (parser.message_compressed) return parser.compressed_size_max;
        return parser.message_size_max;
    }

    fn invariants(parser: *const Parser, bytes: []const u8) void {
        assert(parser.parsed_size <= bytes.len);
        assert(parser.checked_size <= bytes.len - parser.parsed_size);
        assert(parser.message_size <= parser.presentSizeMax());
        assert(parser.message_offset + parser.message_size <= parser.parsed_size);
        switch (parser.stage) {
            .within_message => assert(parser.message_opcode != .continuation),
            .repeating => assert(parser.message_compressed),
            .between_messages, .closed, .failed => {
                assert(parser.message_opcode == .continuation);
                assert(parser.message_size == 0);
            },
        }
        assert((parser.stage == .failed) == (parser.failure != null));
        if (!parser.validate_utf8) assert(parser.checked_size == 0);
        if (!parser.allows_compression) assert(!parser.message_compressed);
    }
};

/// A header whose every rule has been checked.
const Header = struct {
    opcode: Opcode,
    fin: bool,
    /// Set in the first frame of a message: RFC 7692, section 6.
    compressed: bool,
    /// The size of the header itself.
    size: usize,
    payload_size: u64,

    /// What this frame's rules need to know of earlier frames.
    const Predecessors = struct {
        within_message: bool,
        allows_compression: bool,
        /// How many bytes the payload of the message may still grow by.
        size_left: u64,
        /// The same for a compressed message that begins with this frame.
        compressed_size_max: u64,
    };

    /// Null when bytes are missing. The rules are checked in wire order, each as soon as its bytes
    /// are there, so that it makes no difference how the bytes were cut into pieces.
    fn decode(bytes: []const u8, before: Predecessors) ParseError!?Header {
        if (bytes.len == 0) return null;
        const second = if (bytes.len > 1) bytes[1] else 0;
        const head: frame.Header = .decode(.{ bytes[0], second });
        try checkReserved(head, before.allows_compression);
        try checkOpcode(head, before.within_message);
        if (bytes.len < 2) return null;

        if (head.masked) return error.MaskedServerFrame;
        if (head.opcode.isControl()) {
            if (@backingInt(head.length) > constants.control_payload_size_max) {
                return error.ControlFrameTooLong;
            }
        }
        const size: usize, const payload_size: u64 = switch (head.length) {
            .extended_16 => extended: {
                if (bytes.len < 4) return null;
                const value = std.mem.readInt(u16, bytes[2..4], .big);
                if (value < @backingInt(frame.Length.extended_16)) return error.NonMinimalLength;
                break :extended .{ 4, value };
            },
            .extended_64 => extended: {
                if (bytes.len < 10) return null;
                const value = std.mem.readInt(u64, bytes[2..10], .big);
                if (value <= std.math.maxInt(u16)) return error.NonMinimalLength;
                if (value > std.math.maxInt(i64)) return error.LengthTooLarge;
                break :extended .{ 10, value };
            },
            _ => .{ 2, @backingInt(head.length) },
        };
        if (!head.opcode.isControl()) {
            // Only the first frame of a message has the bit that says it is compressed.
            const compressed = head.reserved != 0;
            const size_left = if (compressed) before.compressed_size_max else before.size_left;
            if (payload_size > size_left) return error.MessageTooBig;
        }
        return .{
            .opcode = head.opcode,
            .fin = head.fin,
            .compressed = head.reserved != 0,
            .size = size,
            .payload_size = payload_size,
        };
    }

    fn checkReserved(head: frame.Header, allows_compression: bool) ParseError!void {
        if (head.reserved == 0) return;
        const starts_message = head.opcode == .text or head.opcode == .binary;
        if (head.reserved == frame.reserved_1 and allows_compression and starts_message) return;
        return error.ReservedBits;
    }

    fn checkOpcode(head: frame.Header, within_message: bool) ParseError!void {
        switch (head.opcode) {
            .continuation => if (!within_message) return error.UnexpectedContinuation,
            .text, .binary => if (within_message) return error.ExpectedContinuation,
            .close, .ping, .pong => if (!head.fin) return error.FragmentedControlFrame,
            _ => return error.ReservedOpcode,
        }
    }
};

const WholeMessage = struct { opcode: Opcode, header_size: usize, payload_size: usize };

/// A message in one whole frame of less than 64 KiB. Null for everything else, errors included,
/// which `Parser.nextOfAnyKind` handles: this is the short way.
inline fn wholeMessage(bytes: []const u8) ?WholeMessage {
    // Reads the longer form of header before checking that it is one.
    if (bytes.len < 4) return null;
    const head: frame.Header = .decode(bytes[0..2].*);
    if (!head.fin or head.reserved != 0) return null;
    if (head.opcode != .text and head.opcode != .binary) return null;
    const header_size: usize, const payload_size: usize = switch (bytes[1]) {
        0...125 => |size| .{ 2, size },
        126 => .{ 4, std.mem.readInt(u16, bytes[2..4], .big) },
        else => return null,
    };
    if (header_size == 4 and payload_size < 126) return null;
    if (payload_size > bytes.len - header_size) return null;
    return .{ .opcode = head.opcode, .header_size = header_size, .payload_size = payload_size };
}

/// RFC 6455, sections 5.5.1 and 7.4.
fn parseClose(payload: []const u8) ParseError!Parser.Close {
    assert(payload.len <= constants.control_payload_size_max);
    if (payload.len == 0) return .{ .code = null, .reason = payload };
    if (payload.len == 1) return error.InvalidClosePayload;
    const code = std.mem.readInt(u16, payload[0..2], .big);
    if (!CloseCode.isAllowedInFrame(code)) return error.InvalidCloseCode;
    const reason = payload[2..];
    if (!utf8.validate(reason)) return error.InvalidCloseReason;
    return .{ .code = code, .reason = reason };
}
