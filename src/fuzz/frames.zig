//! Fuzz target: frames, as a server sends them.
//!
//! The parser returns the same events for all bytes at once, for pieces with a caller who takes,
//! compacts and asks at unusual moments, and as the reference in `ws/parser_fuzz.zig`. Its offsets
//! stay within the bytes.
//!
//! Payload: a byte of options, a byte for the largest message, then the bytes of the server.

const std = @import("std");
const Guarded = @import("guarded.zig").Guarded;
const Input = @import("input.zig").Input;
const parser_fuzz = @import("../ws/parser_fuzz.zig");
const Parser = @import("../ws/parser.zig").Parser;

const testing = std.testing;

pub fn run(gpa: std.mem.Allocator, bytes: []const u8) !void {
    var input: Input = .init(bytes);
    const flags = input.takeByte();
    const size_choice: usize = input.takeByte();
    const options: Parser.Options = .{
        .validate_utf8 = flags & 1 == 0,
        .message_size_max = if (flags & 2 == 0) 1 << 20 else size_choice,
        .allows_compression = flags & 4 != 0,
    };
    var expected: std.ArrayList(u8) = .empty;
    defer expected.deinit(gpa);
    _ = try parser_fuzz.reference(gpa, options, input.payload, &expected);

    try judgePieces(gpa, options, &input, expected.items);
    try judgeWhole(gpa, options, input.payload, expected.items);
}

fn judgePieces(
    gpa: std.mem.Allocator,
    options: Parser.Options,
    input: *Input,
    expected: []const u8,
) !void {
    var feeder: parser_fuzz.Feeder = .init(gpa, options, input.random());
    defer feeder.deinit();
    var rest = input.payload;
    while (rest.len > 0) {
        const size = input.choosePieceSize(rest.len);
        try feeder.feed(rest[0..size]);
        rest = rest[size..];
        const parser = &feeder.parser;
        try testing.expect(parser.parsed_size <= feeder.span().len);
        try testing.expect(parser.message_offset + parser.message_size <= parser.parsed_size);
        try testing.expect(parser.message_size <= parser.compressed_size_max);
    }
    try testing.expectEqualStrings(expected, feeder.log.items);
}

/// All at once, right in front of memory that must not be read, and all events before one `take`.
fn judgeWhole(
    gpa: std.mem.Allocator,
    options: Parser.Options,
    wire: []const u8,
    expected: []const u8,
) !void {
    var guarded: Guarded = try .init(wire.len);
    defer guarded.deinit();
    const span = guarded.place(wire);
    var parser: Parser = .init(options);
    var log: std.ArrayList(u8) = .empty;
    defer log.deinit(gpa);
    while (true) {
        const result = parser.next(span) catch |err| {
            try log.print(gpa, "failure:{t}\n", .{err});
            try testing.expect(Parser.describe(err).len > 0);
            try testing.expect(Parser.closeCode(err) >= 1002);
            break;
        };
        const event = result orelse break;
        try parser_fuzz.logEvent(gpa, &log, event);
    }
    try testing.expect(parser.take() <= span.len);
    try testing.expectEqualStrings(expected, log.items);
}
