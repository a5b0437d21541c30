//! Fuzz target: the response to a request, its head and its body.
//!
//! The head is the same however its bytes are cut; its headers lie within it and hold no byte that
//! could end a line. The body is the same however it is cut, and the same as from a decoder written
//! in the simplest way. A framing that could be read in two ways is refused.
//!
//! Payload: a byte of options, then the bytes of the server.

const std = @import("std");
const Guarded = @import("guarded.zig").Guarded;
const Input = @import("input.zig").Input;
const http = @import("../http.zig");
const handshake = @import("../ws/handshake.zig");
const permessage_deflate = @import("../ws/permessage_deflate.zig");

const Bytes = std.ArrayList(u8);
const Gpa = std.mem.Allocator;
const testing = std.testing;
const expect = testing.expect;

pub fn run(gpa: Gpa, bytes: []const u8) !void {
    var input: Input = .init(bytes);
    const flags = input.takeByte();
    var guarded: Guarded = try .init(input.payload.len);
    defer guarded.deinit();
    const wire = guarded.place(input.payload);

    const whole = parseWhole(wire) catch |err| {
        try testing.expectError(err, parsePieces(wire, &input));
        return expect(http.response.describe(err).len > 0);
    };
    const pieces = try parsePieces(wire, &input);
    try testing.expectEqualDeep(whole, pieces);
    const head = whole orelse return;
    try judgeHead(&head, wire);
    try judgeUpgrade(&head, flags);
    try judgeBody(gpa, &head, flags & 1 == 1, wire[head.size..], &input);
}

fn parseWhole(wire: []const u8) !?http.Head {
    var searched: usize = 0;
    return http.response.parseHead(wire, &searched);
}

fn parsePieces(wire: []const u8, input: *Input) !?http.Head {
    var searched: usize = 0;
    var arrived: usize = 0;
    while (arrived < wire.len) {
        arrived += input.choosePieceSize(wire.len - arrived);
        if (try http.response.parseHead(wire[0..arrived], &searched)) |head| return head;
        try testing.expectEqual(arrived, searched);
    }
    return null;
}

fn judgeHead(head: *const http.Head, wire: []const u8) !void {
    try expect(head.size <= wire.len);
    try expect(std.mem.endsWith(u8, wire[0..head.size], "\r\n\r\n"));
    try expect(head.status >= 100 and head.status <= 999);
    try expect(http.header.isFieldValue(head.reason));
    var count: usize = 0;
    var headers = head.headers();
    while (headers.next()) |header| {
        count += 1;
        try expect(http.isToken(header.name));
        try expect(http.header.isFieldValue(header.value));
        try expect(http.header.trim(header.value).len == header.value.len);
        if (count > 8) continue; // Each search by name goes through all headers.
        try expect(head.headerCount(header.name) >= 1);
        try expect(head.header(header.name) != null);
    }
    try testing.expectEqual(head.field_count, count);
}

/// Only a complete answer may open a WebSocket, with nothing that was not offered.
fn judgeUpgrade(head: *const http.Head, flags: u8) !void {
    if (head.status != 101) return;
    const url = try http.Url.parse("ws://localhost");
    const key = handshake.keyFrom("0123456789abcdef");
    const offer: permessage_deflate.Offer = .{
        .server_no_context_takeover = flags & 4 != 0,
        .client_no_context_takeover = flags & 8 != 0,
        .server_max_window_bits = if (flags & 16 != 0) 10 else null,
        .client_max_window_bits = if (flags & 32 != 0) 11 else null,
    };
    const agreement = handshake.checkResponse(head, .{
        .url = &url,
        .key = &key,
        .subprotocols = &.{ "trade", "book" },
        .compression = if (flags & 2 != 0) offer else null,
    }) catch |err| return expect(handshake.describe(err).len > 0);

    try testing.expectEqual(1, head.headerCount("Sec-WebSocket-Accept"));
    const accept = handshake.acceptValue(&key);
    try testing.expectEqualStrings(&accept, head.header("Sec-WebSocket-Accept").?);
    const subprotocols = head.headerCount("Sec-WebSocket-Protocol");
    try testing.expectEqual(@intFromBool(agreement.subprotocol != null), subprotocols);
    const compression = agreement.compression orelse
        return expect(!head.hasToken("Sec-WebSocket-Extensions", permessage_deflate.name));
    try expect(flags & 2 != 0);
    try expect(head.headerCount("Sec-WebSocket-Extensions") > 0);
    for ([_]u8{ compression.server_max_window_bits, compression.client_max_window_bits }) |bits| {
        try expect(bits >= 8 and bits <= 15);
    }
    // What was asked for is granted.
    if (flags & 4 != 0) try expect(compression.server_no_context_takeover);
    if (flags & 8 != 0) try expect(compression.client_no_context_takeover);
    if (flags & 16 != 0) try expect(compression.server_max_window_bits <= 10);
    if (flags & 32 != 0) try expect(compression.client_max_window_bits <= 11);
}

/// The result of decoding a body.
const Outcome = struct {
    body: Bytes = .empty,
    used: usize = 0,
    done: bool = false,
    failure: ?http.body.DecodeError = null,
};

fn judgeBody(
    gpa: Gpa,
    head: *const http.Head,
    method_is_head: bool,
    wire: []const u8,
    input: *Input,
) !void {
    const decoder = http.body.Decoder.init(head, method_is_head) catch |err| {
        return expect(http.body.describe(err).len > 0);
    };
    try judgeFraming(head, &decoder);
    var whole = try decode(gpa, decoder, wire, null);
    defer whole.body.deinit(gpa);
    var pieces = try decode(gpa, decoder, wire, input);
    defer pieces.body.deinit(gpa);
    try testing.expectEqual(whole.failure, pieces.failure);
    try testing.expectEqual(whole.done, pieces.done);
    try testing.expectEqualSlices(u8, whole.body.items, pieces.body.items);
    if (whole.failure) |failure| {
        try expect(http.body.describe(failure).len > 0);
    } else try testing.expectEqual(whole.used, pieces.used);
    try judgeByReference(gpa, &decoder, wire, &whole);
}

fn judgeByReference(
    gpa: Gpa,
    decoder: *const http.body.Decoder,
    wire: []const u8,
    outcome: *const Outcome,
) !void {
    var expected: Bytes = .empty;
    defer expected.deinit(gpa);
    const size = switch (decoder.framing) {
        .chunked => switch (try referenceChunks(gpa, wire, &expected)) {
            .complete => |size| size,
            .incomplete => return expect(!outcome.done and outcome.failure == null),
            .malformed => return expect(outcome.failure != null),
        },
        .none => 0,
        .until_close => wire.len,
        .content_length => @min(decoder.remaining, wire.len),
    };
    if (decoder.framing != .chunked) try expected.appendSlice(gpa, wire[0..@intCast(size)]);
    try testing.expectEqual(null, outcome.failure);
    try testing.expectEqual(size, outcome.used);
    try testing.expectEqualSlices(u8, expected.items, outcome.body.items);
    const is_done = switch (decoder.framing) {
        .none, .chunked => true,
        .until_close => false,
        .content_length => size == decoder.remaining,
    };
    try testing.expectEqual(is_done, outcome.done);
}

/// A length or chunks are declared once, or several times the same.
fn judgeFraming(head: *const http.Head, decoder: *const http.body.Decoder) !void {
    const encodings = head.headerCount("Transfer-Encoding");
    switch (decoder.framing) {
        .none => {},
        .until_close => try expect(encodings + head.headerCount("Content-Length") == 0),
        .chunked => {
            try testing.expectEqual(1, encodings);
            try testing.expectEqual(0, head.headerCount("Content-Length"));
            try expect(head.version_minor > 0);
        },
        .content_length => {
            try testing.expectEqual(0, encodings);
            var values = head.headersNamed("Content-Length");
            while (values.next()) |value| {
                var numbers = std.mem.splitScalar(u8, value, ',');
                while (numbers.next()) |number| {
                    const size = try std.fmt.parseInt(u64, http.header.trim(number), 10);
                    try testing.expectEqual(size, decoder.remaining);
                }
            }
        },
    }
}

/// `input` chooses the pieces; null: all at once.
fn decode(gpa: Gpa, start: http.body.Decoder, wire: []const u8, input: ?*Input) !Outcome {
    var outcome: Outcome = .{};
    errdefer outcome.body.deinit(gpa);
    var decoder = start;
    outcome.done = decoder.isDone();
    // It decodes in place, within the bytes that it was given.
    var guarded: Guarded = try .init(wire.len);
    defer guarded.deinit();
    while (outcome.used < wire.len and !outcome.done) {
        const left = wire.len - outcome.used;
        const size = if (input) |chooser| chooser.choosePieceSize(left) else left;
        const piece = guarded.place(wire[outcome.used..][0..size]);
        const step = decoder.next(piece) catch |err| {
            try testing.expectError(err, decoder.next(piece));
            outcome.failure = err;
            return outcome;
        };
        try expect(step.used <= size);
        try expect(step.done or step.used == size or step.body.len > 0);
        try outcome.body.appendSlice(gpa, step.body);
        outcome.used += step.used;
        outcome.done = step.done;
    }
    try testing.expectEqual(outcome.body.items.len, decoder.body_size);
    return outcome;
}

const Chunks = union(enum) {
    /// The size of the body on the wire.
    complete: usize,
    /// More bytes could make it complete.
    incomplete,
    malformed,
};

/// RFC 9112, section 7.1, over all bytes at once.
fn referenceChunks(gpa: Gpa, wire: []const u8, body: *Bytes) !Chunks {
    var rest = wire;
    while (true) {
        const line: Line = .take(&rest);
        if (!isChunkLine(line)) return .malformed;
        if (!line.complete) return .incomplete;
        const digits_size = std.mem.findNone(u8, line.text, "0123456789abcdefABCDEF");
        const digits = line.text[0 .. digits_size orelse line.text.len];
        const size = try std.fmt.parseInt(u64, digits, 16);
        if (size == 0) break;
        if (rest.len < size) return .incomplete;
        try body.appendSlice(gpa, rest[0..@intCast(size)]);
        rest = rest[@intCast(size)..];
        const end = rest[0..@min(rest.len, 2)];
        if (!std.mem.startsWith(u8, "\r\n", end)) return .malformed;
        if (end.len < 2) return .incomplete;
        rest = rest[2..];
    }
    while (true) {
        const trailer: Line = .take(&rest);
        if (!http.header.isFieldValue(trailer.text)) return .malformed;
        if (!trailer.complete) return .incomplete;
        if (trailer.text.len == 0) return .{ .complete = wire.len - rest.len };
    }
}

/// A line up to its CRLF, or as much as there is of it.
const Line = struct {
    text: []const u8,
    /// The CR is there.
    ended: bool,
    /// The LF too.
    complete: bool,

    fn take(rest: *[]const u8) Line {
        if (std.mem.cut(u8, rest.*, "\r\n")) |parts| {
            rest.* = parts[1];
            return .{ .text = parts[0], .ended = true, .complete = true };
        }
        const text = std.mem.cutSuffix(u8, rest.*, "\r") orelse rest.*;
        return .{ .text = text, .ended = text.len < rest.len, .complete = false };
    }
};

/// chunk-size [ BWS chunk-ext ], or the beginning of one.
fn isChunkLine(line: Line) bool {
    var digits: usize = 0;
    while (digits < line.text.len and std.ascii.isHex(line.text[digits])) digits += 1;
    if (digits > 16) return false;
    const behind = line.text[digits..];
    if (digits == 0) return behind.len == 0 and !line.ended;
    const extension = std.mem.trimStart(u8, behind, " \t");
    if (extension.len == 0) return behind.len == 0 or !line.ended;
    return extension[0] == ';' and http.header.isFieldValue(extension);
}
