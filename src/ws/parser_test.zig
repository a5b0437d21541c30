//! Tests of `parser.zig`, cut at every byte and against a reference (`parser_fuzz.zig`).

const std = @import("std");
const constants = @import("../constants.zig");
const frame = @import("frame.zig");
const fuzz = @import("parser_fuzz.zig");
const parser_module = @import("parser.zig");
const assert = std.debug.assert;
const Opcode = frame.Opcode;
const ParseError = parser_module.ParseError;
const closeCode = parser_module.closeCode;
const describe = parser_module.describe;
const Parser = parser_module.Parser;

const testing = std.testing;

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

/// Expects the error with the last byte of `wire`, and not before, whatever follows and however the
/// bytes were cut.
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
    try expectFailure(options, "\x41\x00\xc0", error.ReservedBits); // Only in the first frame.
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
        // The reason is checked, whatever the options say about text.
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
    // Bytes are made invalid after they were checked: only a second check would notice.
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
    // A second time nothing is left to move.
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
