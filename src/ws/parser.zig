//! What a server sends, read in place: RFC 6455, sections 5 and 8.1, for the client's role.
//!
//! `Parser` is a state machine over the readable span of a ring: no I/O, no allocation. The caller
//! hands in all bytes that were received and not yet taken, gets one event at a time, and takes
//! what no later event needs. A message in one frame is a slice of those bytes. The fragments of
//! a message are joined in place, over the headers between them:
//!
//!     received                    |h1|p1|h2|p2|ping|h3|p3|h4|p4 (half)
//!     after h3, p3                |h1|p1 p2 p3 . . . . . |h4|p4 (half)
//!                                     ^ message_offset   ^ parsed_size
//!                                     [message_size]
//!
//! While a message is being joined, `take()` gives up no more than what stands in front of it: h1.
//! With its last fragment it becomes an event, and `take()` then gives up everything up to there.
//! Each payload byte moves at most once, when its frame is complete. All places are offsets, so
//! the bytes may be at another address in the next call.
//!
//! With permessage-deflate (RFC 7692), a compressed message is an event of its own: it is joined
//! and measured here, and its owner inflates it, and judges the text then.
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

/// What a server may not send. Each has its `closeCode` and its sentence in `describe`.
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

/// See the head of this file. Use: `next` until it returns null, and after each event has been
/// handled `take`, and drop as many bytes at the front. More than one event may be handled before
/// a `take`. Borrows nothing between calls.
pub const Parser = struct {
    message_size_max: u64,
    /// The same for the payload of a compressed message. What becomes of it, its owner measures.
    compressed_size_max: u64,
    validate_utf8: bool,
    allows_compression: bool,

    stage: Stage = .between_messages,
    /// Bytes at the front that have been parsed: all whole frames up to here.
    parsed_size: usize = 0,
    /// Of the payload of the data frame at `parsed_size`: bytes that `validator` has judged.
    checked_size: usize = 0,
    /// Judges the text message that is incomplete, over all its fragments.
    validator: utf8.Validator = .{},
    /// The message that is being joined, in `Stage.within_message`, or is to be given again.
    message_opcode: Opcode = .continuation,
    message_compressed: bool = false,
    message_fragmented: bool = false,
    message_offset: usize = 0,
    message_size: usize = 0,
    /// Set in `Stage.failed`.
    failure: ?ParseError = null,

    pub const Error = ParseError;
    pub const closeCode = errors.closeCode;
    pub const describe = errors.describe;

    pub const Options = struct {
        /// Largest payload of a message, over all its fragments; of a compressed one, after it
        /// has been inflated.
        message_size_max: usize,
        /// Whether text is judged. The reason in a close frame always is.
        validate_utf8: bool,
        /// permessage-deflate was negotiated: RSV1 has a meaning.
        allows_compression: bool = false,
    };

    /// Slices borrow from the bytes that were handed to `next`, until the bytes are dropped after
    /// `take`; those of a control frame between fragments only until the next call of `next`.
    pub const Event = union(enum) {
        message: Message,
        /// The payload is what permessage-deflate made of the message's, without its last four
        /// bytes; `validate_utf8` did not apply to it.
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
        /// Null when the frame has no payload. Else one that may stand in a frame.
        code: ?u16,
        reason: []const u8,
    };

    const Stage = enum(u8) {
        between_messages,
        /// There was a first fragment, and there has to be another.
        within_message,
        /// The owner has asked for the last message once more.
        repeating,
        /// There was a close frame: RFC 6455, section 5.5.1, nothing may follow.
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
    /// and not taken; after null it is the same with more at its end. After a close event it is
    /// null for ever; an error is returned for ever. Messages in front of a violation come first.
    pub fn next(parser: *Parser, bytes: []u8) ParseError!?Event {
        if (parser.nextWhole(bytes)) |message| return .{ .message = message };
        return parser.nextOfAnyKind(bytes);
    }

    /// The next event, if it is what nearly all are: a valid message in one frame, all there, of
    /// which nothing was looked at before. Else null, and `next` tells.
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
    /// were handled: the next `bytes` begins behind them.
    pub fn take(parser: *Parser) usize {
        const size = switch (parser.stage) {
            .within_message, .repeating => parser.message_offset,
            .between_messages, .closed, .failed => parser.parsed_size,
        };
        parser.parsed_size -= size;
        parser.message_offset = 0;
        return size;
    }

    /// For a caller who could not deal with the compressed message that `next` has just given: it
    /// stays where it is through `take`, and `next` gives it again. `bytes` are those of `next`.
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
    /// moves what is joined up to the next frame, so that `take` gives up the headers and control
    /// frames in between. Then nothing is left but the joined payload and one incomplete frame.
    pub fn compact(parser: *Parser, bytes: []u8) void {
        parser.invariants(bytes);
        if (parser.stage != .within_message) return;
        const joined = bytes[parser.message_offset..][0..parser.message_size];
        const offset = parser.parsed_size - joined.len;
        @memmove(bytes[offset..][0..joined.len], joined);
        parser.message_offset = offset;
        parser.invariants(bytes);
    }

    /// Whether the frames in `bytes` that were not parsed yet end a further message, with nothing
    /// in front of it that ends the connection by its header. Payload is not looked at: a message
    /// with bad UTF-8 counts. For use after an event, with the bytes that `next` got, or after
    /// `take` with what is left of them. Looks at one header, as a rule.
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
        // Ends with the bytes: every turn but the last passes over a frame.
        while (true) {
            const progress = parser.parseFrame(bytes) catch |err| return parser.fail(err);
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

    /// Judges what arrived of a data frame and was not judged before: RFC 6455, section 8.1.
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
    /// RFC 7692, section 6: said by the first frame of a message.
    compressed: bool,
    /// Of the header itself.
    size: usize,
    payload_size: u64,

    /// What earlier frames mean for this one.
    const Predecessors = struct {
        within_message: bool,
        allows_compression: bool,
        /// What the payload of the message may still grow by.
        size_left: u64,
        /// The same for a message that this frame begins, and says to be compressed.
        compressed_size_max: u64,
    };

    /// Null when bytes are missing. Every rule is checked with the first byte that can break it,
    /// or together with its neighbours, but always in wire order: how the bytes were cut into
    /// pieces makes no difference.
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
            // Only the first frame of a message says that it is compressed.
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

/// A message in one frame of less than 64 KiB, when it is all there. Null for everything else,
/// which `Parser.nextOfAnyKind` judges: this is the short way, and it knows no errors.
inline fn wholeMessage(bytes: []const u8) ?WholeMessage {
    // The longer form of header is read before it is known to be one.
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

const testing = std.testing;
const fuzz = @import("parser_fuzz.zig");

const test_options: Parser.Options = .{ .message_size_max = 1 << 20, .validate_utf8 = true };

/// Expects the log of the frames (see `parser_fuzz.zig`), from the parser for every way to cut
/// the bytes into two, for single bytes and for all at once, and from the reference.
fn expectLog(options: Parser.Options, wire: []const u8, expected: []const u8) !void {
    const gpa = testing.allocator;
    var log: std.ArrayList(u8) = .empty;
    defer log.deinit(gpa);
    _ = try fuzz.reference(gpa, options, wire, &log);
    try testing.expectEqualStrings(expected, log.items);

    for (0..wire.len + 1) |split| {
        var feeder: fuzz.Feeder = .init(gpa, options, null);
        defer feeder.deinit();
        try feeder.feed(wire[0..split]);
        try feeder.feed(wire[split..]);
        try testing.expectEqualStrings(expected, feeder.log.items);
    }
    var feeder: fuzz.Feeder = .init(gpa, options, null);
    defer feeder.deinit();
    for (0..wire.len) |index| try feeder.feed(wire[index..][0..1]);
    try testing.expectEqualStrings(expected, feeder.log.items);
}

/// Expects the error with the last byte of `wire`, and not before. Whatever follows, and in
/// whatever pieces it came, makes no difference.
fn expectFailure(options: Parser.Options, wire: []const u8, expected: ParseError) !void {
    const gpa = testing.allocator;
    var feeder: fuzz.Feeder = .init(gpa, options, null);
    defer feeder.deinit();
    try feeder.feed(wire[0 .. wire.len - 1]);
    try testing.expect(!feeder.failed);
    try feeder.feed(wire[wire.len - 1 ..]);
    try testing.expect(feeder.failed);

    var log: std.ArrayList(u8) = .empty;
    defer log.deinit(gpa);
    try log.print(gpa, "failure:{t}\n", .{expected});
    try testing.expect(std.mem.endsWith(u8, feeder.log.items, log.items));
    var followed: std.ArrayList(u8) = .empty;
    defer followed.deinit(gpa);
    try followed.appendSlice(gpa, wire);
    try followed.appendSlice(gpa, "\x81\x05hello\x88\x00");
    try expectLog(options, followed.items, feeder.log.items);
}

test "parser: a compressed message is an event of its own, whose text is not judged" {
    const options: Parser.Options = .{
        .message_size_max = 4,
        .validate_utf8 = true,
        .allows_compression = true,
    };
    try expectLog(options, "\xc1\x02\xff\x00", "compressed text:\xff\x00\n");
    try expectLog(options, "\xc2\x00\x82\x01a", "compressed binary:\nbinary:a\n");
    try expectLog(
        options,
        "\x41\x01\xff\x00\x00\x89\x01p\x80\x01\xfe\x81\x01b",
        "ping:p\ncompressed text+:\xff\xfe\ntext:b\n",
    );
    try expectFailure(options, "\x41\x00\xc0", error.ReservedBits); // Said once, at the front.
    try expectFailure(options, "\xc9", error.ReservedBits);
    try expectFailure(options, "\xa1", error.ReservedBits);
    try expectFailure(options, "\xd1", error.ReservedBits);
    try expectFailure(options, "\xc3", error.ReservedBits);
    try expectFailure(options, "\x81\x05", error.MessageTooBig);
    try expectFailure(options, "\x41\x00\x81", error.ExpectedContinuation);
    try expectFailure(options, "\xc1\x01x\x81\x01\xff", error.InvalidUtf8);
}

test "parser: a compressed message is given again as often as its owner asks" {
    var parser: Parser = .init(.{
        .message_size_max = 100,
        .validate_utf8 = true,
        .allows_compression = true,
    });
    var wire = "\x81\x01a\x41\x01x\x80\x01y\x81\x01b".*;
    try testing.expectEqualStrings("a", (try parser.next(&wire)).?.message.payload);
    var bytes: []u8 = wire[parser.take()..];
    for (0..3) |_| {
        const message = (try parser.next(bytes)).?.compressed;
        try testing.expectEqualStrings("xy", message.payload);
        try testing.expect(message.fragmented);
        parser.repeat(bytes, message);
        try testing.expect(parser.completeFrameWaiting(bytes));
        bytes = bytes[parser.take()..];
        parser.compact(bytes);
    }
    _ = (try parser.next(bytes)).?.compressed;
    try testing.expectEqualStrings("b", (try parser.next(bytes)).?.message.payload);
    try testing.expectEqual(bytes.len, parser.take());
}

test "parser: every kind of frame" {
    try expectLog(test_options, "\x81\x05hello", "text:hello\n");
    try expectLog(test_options, "\x82\x03\x00\xff\x80", "binary:\x00\xff\x80\n");
    try expectLog(test_options, "\x81\x00\x82\x00", "text:\nbinary:\n");
    try expectLog(test_options, "\x81\x01a\x81\x01b", "text:a\ntext:b\n");
    try expectLog(test_options, "\x89\x02hi\x8a\x02ho\x89\x00", "ping:hi\npong:ho\nping:\n");
    try expectLog(test_options, "\x88\x00", "close:null:\n");
    try expectLog(test_options, "\x88\x05\x03\xe8bye", "close:1000:bye\n");
}

test "parser: the lengths on both sides of each border" {
    const gpa = testing.allocator;
    for ([_]usize{ 124, 125, 126, 127, 65_535, 65_536, 65_537 }) |size| {
        var wire: std.ArrayList(u8) = .empty;
        defer wire.deinit(gpa);
        const payload = try gpa.alloc(u8, size);
        defer gpa.free(payload);
        @memset(payload, 'x');
        try fuzz.appendFrame(gpa, &wire, true, .text, payload);
        var parser: Parser = .init(test_options);
        for (0..20) |prefix_size| {
            try testing.expectEqual(null, try parser.next(wire.items[0..prefix_size]));
        }
        try testing.expectEqual(null, try parser.next(wire.items[0 .. wire.items.len - 1]));
        const event = (try parser.next(wire.items)).?;
        try testing.expectEqualStrings(payload, event.message.payload);
        try testing.expectEqual(wire.items.len, parser.take());
    }
}

test "parser: fragments are joined, with control frames in between" {
    try expectLog(test_options, "\x01\x03abc\x80\x02de", "text+:abcde\n");
    try expectLog(test_options, "\x02\x01a\x00\x00\x00\x02bc\x80\x01d", "binary+:abcd\n");
    try expectLog(test_options, "\x01\x00\x80\x00", "text+:\n");
    try expectLog(test_options, "\x01\x00\x00\x01a\x80\x00", "text+:a\n");
    try expectLog(
        test_options,
        "\x01\x02ab\x89\x02hi\x00\x02cd\x8a\x00\x89\x01x\x80\x02ef\x81\x01g",
        "ping:hi\npong:\nping:x\ntext+:abcdef\ntext:g\n",
    );
    try expectLog(
        test_options,
        "\x01\x01a\x80\x01b\x02\x01c\x80\x01d",
        "text+:ab\nbinary+:cd\n",
    );
}

test "parser: nothing is parsed after a close frame" {
    try expectLog(test_options, "\x88\x00\x81\x01a\xff\xff\xff", "close:null:\n");
    try expectLog(test_options, "\x01\x01a\x88\x02\x03\xe9\x80\x01b", "close:1001:\n");

    var parser: Parser = .init(test_options);
    var wire = "\x01\x01a\x88\x00\x81\x01b".*;
    try testing.expect((try parser.next(&wire)) != null);
    try testing.expectEqual(5, parser.take());
    try testing.expectEqual(null, try parser.next(wire[5..]));
    try testing.expect(!parser.completeFrameWaiting(wire[5..]));
    try testing.expectEqual(0, parser.take());
}

test "parser: header violations fail with the byte that shows them" {
    const cases = [_]struct { []const u8, ParseError }{
        .{ "\xc1", error.ReservedBits },
        .{ "\xa1", error.ReservedBits },
        .{ "\x91", error.ReservedBits },
        .{ "\xd9", error.ReservedBits },
        .{ "\x83", error.ReservedOpcode },
        .{ "\x87", error.ReservedOpcode },
        .{ "\x8b", error.ReservedOpcode },
        .{ "\x0f", error.ReservedOpcode },
        .{ "\x08", error.FragmentedControlFrame },
        .{ "\x09", error.FragmentedControlFrame },
        .{ "\x0a", error.FragmentedControlFrame },
        .{ "\x81\x80", error.MaskedServerFrame },
        .{ "\x89\xfe", error.MaskedServerFrame },
        .{ "\x88\x7e", error.ControlFrameTooLong },
        .{ "\x89\x7e", error.ControlFrameTooLong },
        .{ "\x8a\x7f", error.ControlFrameTooLong },
        .{ "\x81\x7e\x00\x7d", error.NonMinimalLength },
        .{ "\x82\x7e\x00\x00", error.NonMinimalLength },
        .{ "\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", error.NonMinimalLength },
        .{ "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", error.LengthTooLarge },
        .{ "\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", error.LengthTooLarge },
        .{ "\x00", error.UnexpectedContinuation },
        .{ "\x80", error.UnexpectedContinuation },
        .{ "\x81\x01a\x80", error.UnexpectedContinuation },
        .{ "\x01\x01a\x80\x01b\x80", error.UnexpectedContinuation },
        .{ "\x01\x01a\x81", error.ExpectedContinuation },
        .{ "\x01\x01a\x89\x00\x02", error.ExpectedContinuation },
        .{ "\x02\x01a\x00\x01b\x01", error.ExpectedContinuation },
    };
    for (cases) |case| {
        const wire, const expected = case;
        try expectFailure(test_options, wire, expected);
    }
}

test "parser: messages in front of a violation are delivered first" {
    const wire = "\x81\x01a\x01\x01b\x89\x01p\x80\x01c\x83\x00";
    try expectLog(test_options, wire, "text:a\nping:p\ntext+:bc\nfailure:ReservedOpcode\n");
    const bad_text = "\x82\x01a\x81\x02\xff.\x81\x01b";
    try expectLog(test_options, bad_text, "binary:a\nfailure:InvalidUtf8\n");
}

test "parser: close payloads" {
    const cases = [_]struct { []const u8, ParseError }{
        .{ "\x88\x01\x03", error.InvalidClosePayload },
        .{ "\x88\x02\x00\x00", error.InvalidCloseCode },
        .{ "\x88\x02\x03\xe7", error.InvalidCloseCode },
        .{ "\x88\x02\x03\xec", error.InvalidCloseCode },
        .{ "\x88\x02\x03\xed", error.InvalidCloseCode },
        .{ "\x88\x02\x03\xee", error.InvalidCloseCode },
        .{ "\x88\x02\x03\xf7", error.InvalidCloseCode },
        .{ "\x88\x02\x0b\xb7", error.InvalidCloseCode },
        .{ "\x88\x02\x13\x88", error.InvalidCloseCode },
        .{ "\x88\x02\xff\xff", error.InvalidCloseCode },
        .{ "\x88\x03\x03\xe8\xff", error.InvalidCloseReason },
        .{ "\x88\x05\x03\xe8a\xe2\x82", error.InvalidCloseReason },
    };
    for (cases) |case| {
        const wire, const expected = case;
        // The reason is judged whatever the options say of text.
        for ([_]bool{ true, false }) |validate_utf8| {
            const options: Parser.Options = .{
                .message_size_max = 0,
                .validate_utf8 = validate_utf8,
            };
            try expectFailure(options, wire, expected);
        }
    }
    try expectLog(test_options, "\x88\x02\x0b\xb8", "close:3000:\n");
    try expectLog(test_options, "\x88\x02\x13\x87", "close:4999:\n");
    try expectLog(test_options, "\x88\x05\x03\xf6\xe2\x82\xac", "close:1014:\u{20ac}\n");
}

test "parser: a close frame of 125 bytes" {
    const reason: [123]u8 = @splat('r');
    try expectLog(test_options, "\x88\x7d\x03\xe8" ++ reason, "close:1000:" ++ reason ++ "\n");
}

test "parser: text is judged octet by octet, also in an incomplete frame" {
    const cases = [_][]const u8{
        "\x81\x7e\x01\x00abc\xff",
        "\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00\xce\xba\xe1\xbd\xb9\xcf\x83\xf4\x90",
        "\x81\x08ab\xed\xa0",
        "\x81\x08ab\xe0\x80",
        "\x81\x05a\xc0",
        // Over fragments, and over a control frame between them.
        "\x01\x02a\xe2\x80\x02\x28",
        "\x01\x01\xf4\x89\x00\x00\x05\x90",
        "\x01\x03\xce\xba\xe1\x00\x00\x80\x01\x41",
        // At the end: a sequence that is not complete.
        "\x81\x01\xc3",
        "\x81\x04ab\xe2\x82",
        "\x01\x01\xf0\x80\x02\x9f\x98",
    };
    for (cases) |wire| try expectFailure(test_options, wire, error.InvalidUtf8);
    const end_in_header = "\x01\x01\xc3\x80\x00";
    try expectFailure(test_options, end_in_header, error.InvalidUtf8);
}

test "parser: a sequence may be cut by fragments" {
    const wire = "\x01\x01\xf0\x00\x01\x9f\x89\x00\x00\x01\x98\x80\x01\x80";
    try expectLog(test_options, wire, "ping:\ntext+:\u{1f600}\n");
    // The next message starts afresh.
    const next_too = wire ++ "\x81\x02\xc3\xa9";
    try expectLog(test_options, next_too, "ping:\ntext+:\u{1f600}\ntext:\u{e9}\n");
}

test "parser: only text is judged, and only when asked" {
    try expectLog(test_options, "\x82\x02\xff\xfe", "binary:\xff\xfe\n");
    try expectLog(test_options, "\x02\x01\xff\x80\x01\xfe", "binary+:\xff\xfe\n");
    const options: Parser.Options = .{ .message_size_max = 100, .validate_utf8 = false };
    try expectLog(options, "\x81\x02\xff\xfe", "text:\xff\xfe\n");
    try expectLog(options, "\x01\x01\xff\x80\x01\xfe", "text+:\xff\xfe\n");
}

test "parser: each byte of text is judged only once" {
    // Bytes that were judged are broken afterwards: only a second look could find out.
    var wire = "\x81\x09 whatever\x81\x01a".*;
    var parser: Parser = .init(test_options);
    try testing.expectEqual(null, try parser.next(wire[0..7]));
    @memset(wire[2..7], 0xff);
    const event = (try parser.next(&wire)).?;
    try testing.expectEqualStrings("\xff\xff\xff\xff\xffever", event.message.payload);
    try testing.expectEqual(11, parser.take());
    try testing.expectEqualStrings("a", (try parser.next(wire[11..])).?.message.payload);
}

test "parser: a message beyond the maximum fails at its header" {
    const options: Parser.Options = .{ .message_size_max = 200, .validate_utf8 = true };
    try expectFailure(options, "\x82\x7e\x00\xc9", error.MessageTooBig);
    try expectFailure(options, "\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", error.MessageTooBig);
    try expectFailure(options, "\x01\x02ab\x80\x7e\x00\xc7", error.MessageTooBig);
    try expectFailure(options, "\x01\x02ab\x00\x03cde\x80\x7e\x00\xc4", error.MessageTooBig);
    const payload: [198]u8 = @splat('c');
    const exact = "\x01\x02ab\x80\x7e\x00\xc6" ++ payload;
    try expectLog(options, exact, "text+:ab" ++ payload ++ "\n");
    // Control frames do not count, and every message counts for itself.
    const none: Parser.Options = .{ .message_size_max = 0, .validate_utf8 = true };
    try expectLog(none, "\x01\x00\x89\x01a\x80\x00\x81\x00", "ping:a\ntext+:\ntext:\n");
    try expectFailure(none, "\x81\x01", error.MessageTooBig);
}

test "parser: a compressed message may be as much larger as DEFLATE makes noise" {
    const options: Parser.Options = .{
        .message_size_max = 200,
        .validate_utf8 = true,
        .allows_compression = true,
    };
    const size_max = comptime constants.compressedSizeMax(200);
    comptime assert(size_max == 242);
    const noise: [size_max]u8 = @splat(0xfe);
    try expectLog(options, "\xc2\x7e\x00\xf2" ++ noise, "compressed binary:" ++ noise ++ "\n");
    const rest = noise[2..];
    const in_fragments = "\x41\x02\xfe\xfe\x89\x00\x80\x7e\x00\xf0" ++ rest;
    try expectLog(options, in_fragments, "ping:\ncompressed text+:" ++ noise ++ "\n");
    try expectFailure(options, "\xc2\x7e\x00\xf3", error.MessageTooBig);
    try expectFailure(options, "\x41\x02ab\x80\x7e\x00\xf1", error.MessageTooBig);
    // The next message counts for itself again.
    try expectFailure(options, "\xc1\x01a\x81\x7e\x00\xc9", error.MessageTooBig);

    for ([_]struct { bool, u8 }{ .{ true, 0xf0 }, .{ false, 0xf1 } }) |case| {
        const expected, const size = case;
        var wire = ("\x81\x01a" ++ "\x41\x02ab\x80\x7e\x00\x00" ++ noise).*;
        wire[10] = size;
        var parser: Parser = .init(options);
        try testing.expect((try parser.next(&wire)) != null);
        try testing.expectEqual(expected, parser.completeFrameWaiting(&wire));
    }
}

test "parser: the largest sizes do not overflow" {
    const options: Parser.Options = .{
        .message_size_max = std.math.maxInt(usize),
        .validate_utf8 = true,
    };
    try expectLog(options, "\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xffabc", "");
    try expectLog(options, "\x01\x03abc\x80\x7f\x7f\xff\xff\xff\xff\xff\xff\xffabc", "");
    var wire = "\x81\x01a\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xffabc".*;
    var parser: Parser = .init(options);
    try testing.expect((try parser.next(&wire)) != null);
    try testing.expect(!parser.completeFrameWaiting(&wire));
}

test "parser: take gives up what no later event needs" {
    var wire = "\x81\x01a\x82\x01b\x01\x02cd\x89\x01p\x00\x01e\x80\x01f\x81\x01".*;
    var parser: Parser = .init(test_options);
    try testing.expectEqual(0, parser.take());
    // Two events, one take.
    try testing.expectEqualStrings("a", (try parser.next(&wire)).?.message.payload);
    try testing.expectEqualStrings("b", (try parser.next(&wire)).?.message.payload);
    try testing.expectEqual(6, parser.take());
    var rest: []u8 = wire[6..];
    // While a message is joined, only the header in front of it.
    try testing.expectEqualStrings("p", (try parser.next(rest)).?.ping);
    try testing.expectEqual(2, parser.take());
    rest = rest[2..];
    try testing.expectEqual(0, parser.take());
    const message = (try parser.next(rest)).?.message;
    try testing.expectEqualStrings("cdef", message.payload);
    try testing.expectEqual(rest.ptr, message.payload.ptr);
    try testing.expectEqual(11, parser.take());
    rest = rest[11..];
    try testing.expectEqual(null, try parser.next(rest));
    try testing.expectEqual(0, parser.take());
    try testing.expectEqual(2, rest.len);
}

test "parser: compact leaves the joined payload and one incomplete frame" {
    var wire = "\x01\x02ab\x89\x03png\x00\x01c\x89\x00\x80\x03de".*;
    var parser: Parser = .init(test_options);
    try testing.expect((try parser.next(&wire)) != null);
    try testing.expect((try parser.next(&wire)) != null);
    try testing.expectEqual(null, try parser.next(&wire));
    parser.compact(&wire);
    const rest = wire[parser.take()..];
    try testing.expectEqualStrings("abc\x80\x03de", rest);
    // A second time there is nothing to gain.
    parser.compact(rest);
    try testing.expectEqual(0, parser.take());

    var longer: [8]u8 = undefined;
    @memcpy(longer[0..rest.len], rest);
    longer[rest.len] = 'f';
    try testing.expectEqualStrings("abcdef", (try parser.next(&longer)).?.message.payload);
    try testing.expectEqual(longer.len, parser.take());
}

test "parser: completeFrameWaiting sees the end of a further message" {
    const cases = [_]struct { bool, []const u8 }{
        .{ false, "" },
        .{ false, "\x81" },
        .{ false, "\x81\x02b" },
        .{ true, "\x81\x02bc" },
        .{ true, "\x82\x00" },
        .{ true, "\x82\x00\xff" },
        // Control frames and fragments do not end a message.
        .{ false, "\x89\x01p" },
        .{ true, "\x89\x01p\x81\x00" },
        .{ false, "\x01\x01a\x00\x01b" },
        .{ true, "\x01\x01a\x8a\x00\x00\x01b\x80\x00" },
        // What ends the connection first.
        .{ false, "\x88\x00\x81\x00" },
        .{ false, "\x83\x00\x81\x00" },
        .{ false, "\x80\x00" },
        .{ false, "\x01\x00\x81\x00" },
        .{ false, "\x81\x04abcd" },
        .{ false, "\x01\x02ab\x80\x02cd" },
        .{ true, "\x01\x02ab\x80\x01c" },
        // Payload is not looked at.
        .{ true, "\x81\x01\xff" },
    };
    const options: Parser.Options = .{ .message_size_max = 3, .validate_utf8 = true };
    for (cases) |case| {
        const expected, const after = case;
        var buffer: [32]u8 = undefined;
        const bytes = std.fmt.bufPrint(&buffer, "\x81\x01a{s}", .{after}) catch unreachable;
        var parser: Parser = .init(options);
        try testing.expect((try parser.next(bytes)) != null);
        try testing.expectEqual(expected, parser.completeFrameWaiting(bytes));
        const rest = bytes[parser.take()..];
        try testing.expectEqual(expected, parser.completeFrameWaiting(rest));
    }
}

test "parser: 65,536 fragments, each with a ping behind it, in linear time" {
    const gpa = testing.allocator;
    const fragments = 65_536;
    var wire: std.ArrayList(u8) = .empty;
    defer wire.deinit(gpa);
    for (0..fragments) |index| {
        const opcode: Opcode = if (index == 0) .text else .continuation;
        try fuzz.appendFrame(gpa, &wire, false, opcode, "sixteen bytes...");
        try fuzz.appendFrame(gpa, &wire, true, .ping, "ping");
    }
    try fuzz.appendFrame(gpa, &wire, true, .continuation, "");
    var parser: Parser = .init(.{ .message_size_max = 16 * fragments, .validate_utf8 = true });
    var pings: usize = 0;
    var offset: usize = 0;
    var received_size: usize = 0;
    const message = received: while (received_size < wire.items.len) {
        received_size = @min(received_size + 11, wire.items.len);
        while (try parser.next(wire.items[offset..received_size])) |event| {
            offset += parser.take();
            switch (event) {
                .ping => |payload| try testing.expectEqualStrings("ping", payload),
                .message => |message| break :received message,
                .compressed, .pong, .close => return error.TestUnexpectedResult,
            }
            pings += 1;
        }
    } else return error.TestUnexpectedResult;
    try testing.expectEqual(fragments, pings);
    try testing.expect(message.fragmented);
    try testing.expectEqual(16 * fragments, message.payload.len);
    for (0..fragments) |index| {
        try testing.expectEqualStrings("sixteen bytes...", message.payload[16 * index ..][0..16]);
    }
}

test "parser: a frame of 1 MiB that arrives byte by byte, in linear time" {
    const gpa = testing.allocator;
    const payload = try gpa.alloc(u8, 1 << 20);
    defer gpa.free(payload);
    for (payload, 0..) |*byte, index| byte.* = if (index % 2 == 0) 0xc3 else 0xa9;
    var wire: std.ArrayList(u8) = .empty;
    defer wire.deinit(gpa);
    try fuzz.appendFrame(gpa, &wire, true, .text, payload);
    var parser: Parser = .init(test_options);
    for (0..wire.items.len) |size| {
        try testing.expectEqual(null, try parser.next(wire.items[0..size]));
    }
    const event = (try parser.next(wire.items)).?;
    try testing.expectEqualSlices(u8, payload, event.message.payload);
}

test "parser: every error has a close code and a sentence of its own" {
    const names = @typeInfo(ParseError).error_set.error_names.?;
    var sentences: [names.len][]const u8 = undefined;
    inline for (names, 0..) |name, index| {
        const parse_error = @field(ParseError, name);
        const code = closeCode(parse_error);
        const expected: u16 = if (std.mem.eql(u8, name, "MessageTooBig"))
            1009
        else if (std.mem.eql(u8, name, "InvalidUtf8") or
            std.mem.eql(u8, name, "InvalidCloseReason") or
            std.mem.eql(u8, name, "InvalidCompression"))
            1007
        else
            1002;
        try testing.expectEqual(expected, code);
        sentences[index] = describe(parse_error);
        for (sentences[0..index]) |other| {
            try testing.expect(!std.mem.eql(u8, other, sentences[index]));
        }
    }
}
