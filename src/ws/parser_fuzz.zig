//! What the tests of `parser.zig` share, and its tests with random input.
//!
//! Events are logged as text, a line for each, so that the parser, the reference and a test's
//! expectation can be compared. `reference` is RFC 6455 in its simplest form: all bytes at once,
//! with copies. `Feeder` is the most difficult caller that the contract allows: the bytes are at
//! another address whenever more of them arrive.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("../constants.zig");
const frame = @import("frame.zig");
const parser_module = @import("parser.zig");

const Opcode = frame.Opcode;
const Parser = parser_module.Parser;
const Bytes = std.ArrayList(u8);
const Gpa = std.mem.Allocator;

/// Appends a frame as a server writes it.
pub fn appendFrame(gpa: Gpa, wire: *Bytes, fin: bool, opcode: Opcode, payload: []const u8) !void {
    const length: frame.Length = switch (payload.len) {
        0...125 => @fromBackingInt(@as(u7, @intCast(payload.len))),
        126...65_535 => .extended_16,
        else => .extended_64,
    };
    const header: frame.Header = .{
        .opcode = opcode,
        .fin = fin,
        .length = length,
        .masked = false,
    };
    try wire.appendSlice(gpa, &header.encode());
    var size_bytes: [8]u8 = undefined;
    std.mem.writeInt(u64, &size_bytes, payload.len, .big);
    switch (length) {
        .extended_16 => try wire.appendSlice(gpa, size_bytes[6..]),
        .extended_64 => try wire.appendSlice(gpa, &size_bytes),
        _ => {},
    }
    try wire.appendSlice(gpa, payload);
}

/// A line of the log: `text:payload`, `text+:payload` when it came in fragments, `close:1000:why`.
pub fn logEvent(gpa: Gpa, log: *Bytes, event: Parser.Event) !void {
    switch (event) {
        .message => |message| try logMessage(gpa, log, message),
        .compressed => |message| {
            try log.print(gpa, "compressed ", .{});
            try logMessage(gpa, log, message);
        },
        .ping => |payload| try log.print(gpa, "ping:{s}\n", .{payload}),
        .pong => |payload| try log.print(gpa, "pong:{s}\n", .{payload}),
        .close => |close| try log.print(gpa, "close:{?d}:{s}\n", .{ close.code, close.reason }),
    }
}

fn logMessage(gpa: Gpa, log: *Bytes, message: Parser.Message) !void {
    const mark = if (message.fragmented) "+" else "";
    try log.print(gpa, "{t}{s}:{s}\n", .{ message.opcode, mark, message.payload });
}

/// Feeds a parser piece by piece and writes the log of what comes out.
pub const Feeder = struct {
    gpa: Gpa,
    parser: Parser,
    /// Makes the caller irregular: events without `take`, `take` without events, `compact`, and
    /// compressed messages that are put off once.
    random: ?std.Random,
    log: Bytes = .empty,
    /// The bytes not taken, at the front of one side. With every piece they change sides.
    sides: [2]Bytes = .{ .empty, .empty },
    side: u1 = 0,
    failed: bool = false,
    /// The compressed message was put off, which must not be repeated: choices repeat, so that
    /// could go on forever.
    postponed: bool = false,

    pub fn init(gpa: Gpa, options: Parser.Options, random: ?std.Random) Feeder {
        return .{ .gpa = gpa, .parser = .init(options), .random = random };
    }

    pub fn deinit(feeder: *Feeder) void {
        feeder.log.deinit(feeder.gpa);
        for (&feeder.sides) |*side| side.deinit(feeder.gpa);
    }

    /// More bytes arrive; then every event that they complete is handled.
    pub fn feed(feeder: *Feeder, piece: []const u8) !void {
        const before = &feeder.sides[feeder.side];
        feeder.side ^= 1;
        const after = &feeder.sides[feeder.side];
        after.clearRetainingCapacity();
        try after.appendSlice(feeder.gpa, before.items);
        try after.appendSlice(feeder.gpa, piece);
        @memset(before.items, 0xaa);
        try feeder.drain();
    }

    /// What was received and not taken.
    pub fn span(feeder: *Feeder) []u8 {
        return feeder.sides[feeder.side].items;
    }

    pub fn take(feeder: *Feeder) void {
        feeder.sides[feeder.side].replaceRangeAssumeCapacity(0, feeder.parser.take(), &.{});
    }

    fn drain(feeder: *Feeder) !void {
        while (true) {
            const result = feeder.parser.next(feeder.span()) catch |err| {
                if (!feeder.failed) try feeder.log.print(feeder.gpa, "failure:{t}\n", .{err});
                feeder.failed = true;
                try std.testing.expectError(err, feeder.parser.next(feeder.span()));
                return;
            };
            try std.testing.expect(!feeder.failed);
            const event = result orelse break;
            if (feeder.postpones(event)) continue;
            try logEvent(feeder.gpa, &feeder.log, event);
            const irregular = if (feeder.random) |random| random.boolean() else false;
            if (irregular) try feeder.expectWaitingAgrees(event);
            if (!irregular) feeder.take();
            if (!irregular) try feeder.expectWaitingAgrees(event);
        }
        const random = feeder.random orelse return;
        if (random.boolean()) feeder.parser.compact(feeder.span());
        if (random.boolean()) feeder.take();
    }

    fn postpones(feeder: *Feeder, event: Parser.Event) bool {
        const random = feeder.random orelse return false;
        switch (event) {
            .compressed => |message| {
                feeder.postponed = !feeder.postponed and random.boolean();
                if (!feeder.postponed) return false;
                feeder.parser.repeat(feeder.span(), message);
                if (random.boolean()) feeder.take();
                return true;
            },
            .message, .ping, .pong, .close => return false,
        }
    }

    /// `completeFrameWaiting` after a message: does the reference find one in what is left?
    fn expectWaitingAgrees(feeder: *Feeder, event: Parser.Event) !void {
        switch (event) {
            .message, .compressed => {},
            .ping, .pong, .close => return,
        }
        const span_left = feeder.span();
        const waiting = feeder.parser.completeFrameWaiting(span_left);
        var log: Bytes = .empty;
        defer log.deinit(feeder.gpa);
        const options: Parser.Options = .{
            .message_size_max = @intCast(feeder.parser.message_size_max),
            .validate_utf8 = false,
            .allows_compression = feeder.parser.allows_compression,
        };
        const span_unparsed = span_left[feeder.parser.parsed_size..];
        const messages = try reference(feeder.gpa, options, span_unparsed, &log);
        try std.testing.expectEqual(messages > 0, waiting);
    }
};

/// Everything that the bytes contain, by the most obvious way. Returns the number of messages.
pub fn reference(gpa: Gpa, options: Parser.Options, input: []const u8, log: *Bytes) !usize {
    var messages: usize = 0;
    var message: Bytes = .empty;
    defer message.deinit(gpa);
    var message_opcode: u8 = 0;
    var compressed = false;
    var rest = input;
    while (true) {
        const within_message = message_opcode != 0;
        if (!within_message) compressed = rest.len > 0 and rest[0] & 0x40 != 0;
        const size_max = options.message_size_max;
        const joined_max = if (compressed) constants.compressedSizeMax(size_max) else size_max;
        const size_left = joined_max - message.items.len;
        const header = switch (referenceHeader(options, rest, within_message, size_left)) {
            .header => |header| header,
            .incomplete => return messages,
            .failure => |name| {
                try log.print(gpa, "failure:{s}\n", .{name});
                return messages;
            },
        };
        const arrived = rest[header.size..];
        const complete = arrived.len >= header.payload_size;
        const payload = if (complete) arrived[0..@intCast(header.payload_size)] else arrived;
        if (header.opcode >= 8) {
            if (!complete) return messages;
            if (try referenceControl(gpa, header.opcode, payload, log)) return messages;
        } else {
            const fragmented = header.opcode == 0;
            if (!fragmented) message_opcode = header.opcode;
            try message.appendSlice(gpa, payload);
            if (options.validate_utf8 and message_opcode == 1 and !compressed) {
                const whole = complete and header.fin;
                const valid = if (whole)
                    std.unicode.utf8ValidateSlice(message.items)
                else
                    try textCanBeginWith(gpa, &message);
                if (!valid) {
                    try log.print(gpa, "failure:InvalidUtf8\n", .{});
                    return messages;
                }
            }
            if (!complete) return messages;
            if (header.fin) {
                if (compressed) try log.print(gpa, "compressed ", .{});
                try logMessage(gpa, log, .{
                    .opcode = if (message_opcode == 1) .text else .binary,
                    .payload = message.items,
                    .fragmented = fragmented,
                });
                message.clearRetainingCapacity();
                message_opcode = 0;
                messages += 1;
            }
        }
        rest = arrived[payload.len..];
    }
}

const ReferenceHeader = union(enum) {
    header: struct { fin: bool, opcode: u8, size: usize, payload_size: u64 },
    incomplete,
    failure: []const u8,
};

fn referenceHeader(
    options: Parser.Options,
    bytes: []const u8,
    within_message: bool,
    size_left: usize,
) ReferenceHeader {
    if (bytes.len < 1) return .incomplete;
    const fin = bytes[0] & 0x80 != 0;
    const opcode = bytes[0] & 0x0f;
    const starts_message = opcode == 1 or opcode == 2;
    const known: u8 = if (options.allows_compression and starts_message) 0x40 else 0;
    if (bytes[0] & 0x70 & ~known != 0) return .{ .failure = "ReservedBits" };
    if (opcode >= 3 and opcode <= 7) return .{ .failure = "ReservedOpcode" };
    if (opcode >= 11) return .{ .failure = "ReservedOpcode" };
    if (opcode >= 8 and !fin) return .{ .failure = "FragmentedControlFrame" };
    if (opcode == 0 and !within_message) return .{ .failure = "UnexpectedContinuation" };
    if (opcode == 1 and within_message) return .{ .failure = "ExpectedContinuation" };
    if (opcode == 2 and within_message) return .{ .failure = "ExpectedContinuation" };

    if (bytes.len < 2) return .incomplete;
    if (bytes[1] >= 128) return .{ .failure = "MaskedServerFrame" };
    if (opcode >= 8 and bytes[1] > 125) return .{ .failure = "ControlFrameTooLong" };
    const number_size: usize = if (bytes[1] == 126) 2 else if (bytes[1] == 127) 8 else 0;
    if (bytes.len < 2 + number_size) return .incomplete;
    var payload_size: u64 = 0;
    for (bytes[2..][0..number_size]) |byte| payload_size = payload_size * 256 + byte;
    if (number_size == 0) payload_size = bytes[1];
    if (number_size == 2 and payload_size < 126) return .{ .failure = "NonMinimalLength" };
    if (number_size == 8 and payload_size < 65_536) return .{ .failure = "NonMinimalLength" };
    if (payload_size >= 1 << 63) return .{ .failure = "LengthTooLarge" };
    if (opcode < 8 and payload_size > size_left) return .{ .failure = "MessageTooBig" };
    return .{ .header = .{
        .fin = fin,
        .opcode = opcode,
        .size = 2 + number_size,
        .payload_size = payload_size,
    } };
}

/// Returns whether it was the last frame.
fn referenceControl(gpa: Gpa, opcode: u8, payload: []const u8, log: *Bytes) !bool {
    if (opcode == 9) try log.print(gpa, "ping:{s}\n", .{payload});
    if (opcode == 10) try log.print(gpa, "pong:{s}\n", .{payload});
    if (opcode != 8) return false;
    if (payload.len == 0) {
        try log.print(gpa, "close:null:\n", .{});
        return true;
    }
    if (payload.len == 1) {
        try log.print(gpa, "failure:InvalidClosePayload\n", .{});
        return true;
    }
    const code = @as(u32, payload[0]) * 256 + payload[1];
    const code_valid = switch (code) {
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014 => true,
        else => code >= 3000 and code <= 4999,
    };
    if (!code_valid) {
        try log.print(gpa, "failure:InvalidCloseCode\n", .{});
    } else if (!std.unicode.utf8ValidateSlice(payload[2..])) {
        try log.print(gpa, "failure:InvalidCloseReason\n", .{});
    } else {
        try log.print(gpa, "close:{d}:{s}\n", .{ code, payload[2..] });
    }
    return true;
}

/// Whether a text can begin with this: whether it is valid, or valid with the lowest or the highest
/// continuation bytes added. One or the other completes every unfinished sequence.
fn textCanBeginWith(gpa: Gpa, message: *Bytes) !bool {
    const size = message.items.len;
    defer message.shrinkRetainingCapacity(size);
    for ([_]u8{ 0x80, 0xbf }) |byte| {
        message.shrinkRetainingCapacity(size);
        for (0..4) |_| {
            if (std.unicode.utf8ValidateSlice(message.items)) return true;
            try message.append(gpa, byte);
        }
    }
    return false;
}

/// Random frames that keep all rules, and the log that they have to give.
const Conversation = struct {
    gpa: Gpa,
    random: std.Random,
    /// Whether some of the messages say that they are compressed.
    compresses: bool = false,
    wire: Bytes = .empty,
    log: Bytes = .empty,
    /// Where frames begin: the best places to break something.
    frame_offsets: std.ArrayList(usize) = .empty,

    fn deinit(conversation: *Conversation) void {
        conversation.wire.deinit(conversation.gpa);
        conversation.log.deinit(conversation.gpa);
        conversation.frame_offsets.deinit(conversation.gpa);
    }

    fn write(conversation: *Conversation) !void {
        const random = conversation.random;
        for (0..random.uintLessThan(usize, 8)) |_| {
            if (random.uintLessThan(usize, 4) == 0) try conversation.control();
            try conversation.message();
        }
        if (random.boolean()) return;
        try conversation.close();
        // Whatever follows a close frame is not looked at.
        var garbage: [20]u8 = undefined;
        random.bytes(&garbage);
        try conversation.wire.appendSlice(conversation.gpa, &garbage);
    }

    fn message(conversation: *Conversation) !void {
        const gpa = conversation.gpa;
        const random = conversation.random;
        const is_text = random.boolean();
        var payload: Bytes = .empty;
        defer payload.deinit(gpa);
        const size_max = randomSize(random);
        while (payload.items.len < size_max) {
            if (is_text) {
                var sequence: [4]u8 = undefined;
                const size = std.unicode.utf8Encode(randomCodePoint(random), &sequence) catch
                    unreachable;
                try payload.appendSlice(gpa, sequence[0..size]);
            } else {
                try payload.append(gpa, random.int(u8));
            }
        }
        const opcode: Opcode = if (is_text) .text else .binary;
        const compressed = conversation.compresses and random.boolean();
        const fragments = if (random.boolean()) 1 else random.intRangeAtMost(usize, 1, 6);
        var rest: []const u8 = payload.items;
        for (0..fragments) |index| {
            const last = index + 1 == fragments;
            const size = if (last) rest.len else random.uintAtMost(usize, rest.len);
            if (index > 0 and random.uintLessThan(usize, 4) == 0) try conversation.control();
            const fragment_opcode = if (index == 0) opcode else .continuation;
            const offset = conversation.wire.items.len;
            try conversation.frameOf(last, fragment_opcode, rest[0..size]);
            if (index == 0 and compressed) conversation.wire.items[offset] |= 0x40;
            rest = rest[size..];
        }
        const sent: Parser.Message = .{
            .opcode = opcode,
            .payload = payload.items,
            .fragmented = fragments > 1,
        };
        if (compressed) try conversation.log.print(gpa, "compressed ", .{});
        try logMessage(gpa, &conversation.log, sent);
    }

    fn control(conversation: *Conversation) !void {
        const random = conversation.random;
        var buffer: [125]u8 = undefined;
        const payload = buffer[0..random.uintAtMost(usize, buffer.len)];
        random.bytes(payload);
        const is_ping = random.boolean();
        try conversation.frameOf(true, if (is_ping) .ping else .pong, payload);
        const event: Parser.Event = if (is_ping) .{ .ping = payload } else .{ .pong = payload };
        try logEvent(conversation.gpa, &conversation.log, event);
    }

    fn close(conversation: *Conversation) !void {
        const random = conversation.random;
        var payload = "..but why".*;
        const code: u16 = if (random.boolean()) 1000 else random.intRangeAtMost(u16, 3000, 4999);
        std.mem.writeInt(u16, payload[0..2], code, .big);
        const empty = random.boolean();
        try conversation.frameOf(true, .close, if (empty) "" else &payload);
        try logEvent(conversation.gpa, &conversation.log, .{ .close = .{
            .code = if (empty) null else code,
            .reason = if (empty) "" else payload[2..],
        } });
    }

    fn frameOf(conversation: *Conversation, fin: bool, opcode: Opcode, payload: []const u8) !void {
        const gpa = conversation.gpa;
        try conversation.frame_offsets.append(gpa, conversation.wire.items.len);
        try appendFrame(gpa, &conversation.wire, fin, opcode, payload);
    }

    /// Breaks something, most often near the beginning of a frame.
    fn mutate(conversation: *Conversation) !void {
        const random = conversation.random;
        const wire = &conversation.wire;
        for (0..random.intRangeAtMost(usize, 1, 3)) |_| {
            if (wire.items.len == 0) return;
            var place = random.uintLessThan(usize, wire.items.len);
            const offsets = conversation.frame_offsets.items;
            if (offsets.len > 0 and random.uintLessThan(usize, 4) > 0) {
                const offset = offsets[random.uintLessThan(usize, offsets.len)];
                place = @min(offset + random.uintLessThan(usize, 6), wire.items.len - 1);
            }
            switch (random.uintLessThan(usize, 6)) {
                0 => wire.items[place] = random.int(u8),
                1, 2 => wire.items[place] ^= @as(u8, 1) << random.int(u3),
                3 => try wire.insert(conversation.gpa, place, random.int(u8)),
                4 => _ = wire.orderedRemove(place),
                5 => if (random.boolean()) wire.shrinkRetainingCapacity(place),
                else => unreachable,
            }
        }
    }
};

/// Sizes around the limits of the length forms, more often than others.
fn randomSize(random: std.Random) usize {
    return switch (random.uintLessThan(usize, 40)) {
        0...9 => random.uintLessThan(usize, 8),
        10...24 => random.uintLessThan(usize, 200),
        25...37 => random.intRangeAtMost(usize, 120, 130),
        38 => random.uintLessThan(usize, 3_000),
        39 => if (random.uintLessThan(usize, 8) > 0)
            0
        else
            random.intRangeAtMost(usize, 65_530, 65_540),
        else => unreachable,
    };
}

fn randomCodePoint(random: std.Random) u21 {
    return switch (random.uintLessThan(usize, 8)) {
        0...3 => random.intRangeAtMost(u21, 0x20, 0x7e),
        4, 5 => random.uintAtMost(u21, 0x7ff),
        6 => random.uintLessThan(u21, 0xd800),
        7 => random.intRangeAtMost(u21, 0xe000, 0x10ffff),
        else => unreachable,
    };
}

const testing = std.testing;

/// Feeds in pieces of random sizes and expects the log.
fn expectLog(
    options: Parser.Options,
    wire: []const u8,
    random: std.Random,
    expected: []const u8,
) !void {
    var feeder: Feeder = .init(testing.allocator, options, random);
    defer feeder.deinit();
    const piece_size_max: usize = switch (random.uintLessThan(usize, 3)) {
        0 => if (wire.len < 2_000) 1 else 100,
        1 => @max(10, wire.len / 100),
        2 => @max(wire.len, 1),
        else => unreachable,
    };
    var rest = wire;
    while (rest.len > 0) {
        const size = @min(rest.len, random.intRangeAtMost(usize, 1, piece_size_max));
        try feeder.feed(rest[0..size]);
        rest = rest[size..];
    }
    try testing.expectEqualStrings(expected, feeder.log.items);
}

test "parser fuzz: what a server says is heard, however it is cut into pieces" {
    const gpa = testing.allocator;
    for (0..1_000) |seed| {
        errdefer std.debug.print("seed {d}\n", .{seed});
        var prng: std.Random.DefaultPrng = .init(seed);
        const random = prng.random();
        const compresses = random.boolean();
        var conversation: Conversation = .{
            .gpa = gpa,
            .random = random,
            .compresses = compresses,
        };
        defer conversation.deinit();
        try conversation.write();
        const options: Parser.Options = .{
            .message_size_max = 70_000,
            .validate_utf8 = random.boolean(),
            .allows_compression = compresses,
        };
        var log: Bytes = .empty;
        defer log.deinit(gpa);
        _ = try reference(gpa, options, conversation.wire.items, &log);
        try testing.expectEqualStrings(conversation.log.items, log.items);
        try expectLog(options, conversation.wire.items, random, log.items);
    }
}

test "parser fuzz: broken input is judged as by the reference" {
    const gpa = testing.allocator;
    var failures: usize = 0;
    for (0..4_000) |seed| {
        errdefer std.debug.print("seed {d}\n", .{seed});
        var prng: std.Random.DefaultPrng = .init(seed);
        const random = prng.random();
        var conversation: Conversation = .{
            .gpa = gpa,
            .random = random,
            .compresses = random.uintLessThan(usize, 4) == 0,
        };
        defer conversation.deinit();
        try conversation.write();
        try conversation.mutate();
        const options: Parser.Options = .{
            .message_size_max = switch (random.uintLessThan(usize, 4)) {
                0 => random.uintLessThan(usize, 300),
                1 => std.math.maxInt(usize),
                else => 70_000,
            },
            .validate_utf8 = random.uintLessThan(usize, 4) > 0,
            .allows_compression = random.boolean(),
        };
        var log: Bytes = .empty;
        defer log.deinit(gpa);
        _ = try reference(gpa, options, conversation.wire.items, &log);
        if (std.mem.indexOf(u8, log.items, "failure:") != null) failures += 1;
        try expectLog(options, conversation.wire.items, random, log.items);
    }
    // Else the mutations would be too mild to test anything.
    try testing.expect(failures > 1_000);
}

test "parser fuzz: random bytes are judged as by the reference" {
    const gpa = testing.allocator;
    var prng: std.Random.DefaultPrng = .init(0);
    const random = prng.random();
    const first_bytes = [_]u8{ 0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a, 0x41, 0xc2 };
    for (0..10_000) |_| {
        var wire: [24]u8 = undefined;
        random.bytes(&wire);
        // Short frames of few kinds, so that many follow each other before one fails.
        for (&wire) |*byte| switch (random.uintLessThan(usize, 4)) {
            0 => byte.* = first_bytes[random.uintLessThan(usize, first_bytes.len)],
            1, 2 => byte.* = random.uintLessThan(u8, 6),
            else => {},
        };
        const options: Parser.Options = .{
            .message_size_max = random.uintLessThan(usize, 20),
            .validate_utf8 = random.boolean(),
            .allows_compression = random.boolean(),
        };
        var log: Bytes = .empty;
        defer log.deinit(gpa);
        _ = try reference(gpa, options, &wire, &log);
        try expectLog(options, &wire, random, log.items);
    }
}

test "parser fuzz: whatever the fuzzer thinks of is judged as by the reference" {
    try testing.fuzz({}, judgeFuzzed, .{});
}

fn judgeFuzzed(_: void, smith: *testing.Smith) anyerror!void {
    const gpa = testing.allocator;
    var buffer: [1024]u8 = undefined;
    const wire = buffer[0..smith.slice(&buffer)];
    const options: Parser.Options = .{
        .message_size_max = smith.value(u10),
        .validate_utf8 = smith.value(bool),
        .allows_compression = smith.value(bool),
    };
    var prng: std.Random.DefaultPrng = .init(smith.value(u64));
    var log: Bytes = .empty;
    defer log.deinit(gpa);
    _ = try reference(gpa, options, wire, &log);
    try expectLog(options, wire, prng.random(), log.items);
}
