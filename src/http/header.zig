//! Checks the names and values of header fields, and reads comma-separated lists.
//!
//! One table of bytes (RFC 9110, section 5) checks both what is sent and what is received, so that
//! no byte that could end a line early (CR, LF, NUL: request splitting) passes in either direction.
//! Values stay raw bytes: bytes from 0x80 on are allowed (obs-text) and never interpreted.

const std = @import("std");

/// One header field. Both slices are borrowed.
pub const Header = struct {
    name: []const u8,
    value: []const u8,
};

/// Why a caller's header cannot be sent.
pub const InvalidHeaderError = error{ InvalidHeaderName, InvalidHeaderValue };

/// Checks a header that is about to be sent: the name is a token, the value holds no control
/// character other than the tab (RFC 9110, sections 5.1 and 5.5).
pub fn validateHeader(header: Header) InvalidHeaderError!void {
    if (!isToken(header.name)) return error.InvalidHeaderName;
    if (!isFieldValue(header.value)) return error.InvalidHeaderValue;
}

/// True when `text` is a token: at least one byte, and only token bytes (RFC 9110, section 5.6.2).
pub fn isToken(text: []const u8) bool {
    if (text.len == 0) return false;
    for (text) |byte| {
        switch (byte) {
            'a'...'z', 'A'...'Z', '0'...'9' => {},
            '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~' => {},
            else => return false,
        }
    }
    return true;
}

/// True when `text` may stand in a field value or a reason phrase: visible characters, spaces, tabs
/// and obs-text (RFC 9110, section 5.5). The empty text may.
pub fn isFieldValue(text: []const u8) bool {
    for (text) |byte| {
        if (!isFieldByte(byte)) return false;
    }
    return true;
}

/// True when `byte` may stand in a field value (RFC 9110, section 5.5).
pub fn isFieldByte(byte: u8) bool {
    return switch (byte) {
        '\t', ' '...'~', 0x80...0xff => true,
        else => false,
    };
}

/// `text` without optional white space at its ends (OWS: spaces and tabs, RFC 9110, section 5.6.3).
pub fn trim(text: []const u8) []const u8 {
    return std.mem.trim(u8, text, " \t");
}

/// The elements of a comma-separated list, trimmed; empty ones are left out, as RFC 9110, section
/// 5.6.1.2 asks of a recipient. For lists of tokens: a comma in a quoted string is a separator,
/// too.
pub const ListIterator = struct {
    rest: ?[]const u8,

    /// Starts at the first element of `value`, which stays borrowed.
    pub fn init(value: []const u8) ListIterator {
        return .{ .rest = value };
    }

    /// The next element, a slice of the value, or null after the last.
    pub fn next(iterator: *ListIterator) ?[]const u8 {
        while (iterator.rest) |rest| {
            const end = std.mem.findScalar(u8, rest, ',') orelse rest.len;
            iterator.rest = if (end < rest.len) rest[end + 1 ..] else null;

            const element = trim(rest[0..end]);
            if (element.len > 0) return element;
        }
        return null;
    }
};

test "header: every byte of a name and of a value is judged as RFC 9110 does" {
    // The two sets as the RFC writes them, against the tables above.
    const token_specials = "!#$%&'*+-.^_`|~";
    for (0..256) |code| {
        const byte: u8 = @intCast(code);
        const text = [_]u8{byte};
        const expected_token = std.ascii.isAlphanumeric(byte) or
            std.mem.findScalar(u8, token_specials, byte) != null;
        const expected_field = (byte >= 0x20 and byte != 0x7f) or byte == 0x09;

        try std.testing.expectEqual(expected_token, isToken(&text));
        try std.testing.expectEqual(expected_field, isFieldValue(&text));
        try std.testing.expectEqual(expected_token, isToken(&[_]u8{ 'a', byte, 'z' }));
        try std.testing.expectEqual(expected_field, isFieldValue(&[_]u8{ 'a', byte, 'z' }));
    }
    try std.testing.expect(!isToken(""));
    try std.testing.expect(isFieldValue(""));
}

test "header: a header that would split the request is refused by cause" {
    try validateHeader(.{ .name = "X-Api-Key", .value = "abc=\xc3\xa9\t, x" });
    try validateHeader(.{ .name = "X-Empty", .value = "" });

    const bad_names = [_][]const u8{ "", "a b", "a:", "a\r\nHost", "é", "a\x00", " a", "a(" };
    for (bad_names) |name| {
        const result = validateHeader(.{ .name = name, .value = "x" });
        try std.testing.expectError(error.InvalidHeaderName, result);
    }
    const bad_values = [_][]const u8{ "a\r\nb: c", "\n", "a\x00", "\r", "\x7f", "a\x1b[0m" };
    for (bad_values) |value| {
        const result = validateHeader(.{ .name = "X", .value = value });
        try std.testing.expectError(error.InvalidHeaderValue, result);
    }
}

test "header: a list is cut at its commas, trimmed, and without its empty elements" {
    const Case = struct { value: []const u8, elements: []const []const u8 };
    const cases = [_]Case{
        .{ .value = "", .elements = &.{} },
        .{ .value = " , ,\t,", .elements = &.{} },
        .{ .value = "upgrade", .elements = &.{"upgrade"} },
        .{ .value = "keep-alive, Upgrade", .elements = &.{ "keep-alive", "Upgrade" } },
        .{ .value = ",a,, b\t,c c ,", .elements = &.{ "a", "b", "c c" } },
    };
    for (cases) |case| {
        var iterator: ListIterator = .init(case.value);
        for (case.elements) |element| {
            try std.testing.expectEqualStrings(element, iterator.next().?);
        }
        try std.testing.expectEqual(null, iterator.next());
        try std.testing.expectEqual(null, iterator.next());
    }
}

test "header: no random value makes the list iterator run on or leave the value" {
    var prng: std.Random.DefaultPrng = .init(0x68656164);
    const random = prng.random();
    var value_buffer: [24]u8 = undefined;
    for (0..5_000) |_| {
        const value = value_buffer[0..random.uintAtMost(usize, value_buffer.len)];
        for (value) |*byte| byte.* = ", \tabc"[random.uintLessThan(usize, 6)];

        var model = std.mem.tokenizeAny(u8, value, ",");
        var iterator: ListIterator = .init(value);
        while (model.next()) |piece| {
            const expected = std.mem.trim(u8, piece, " \t");
            if (expected.len == 0) continue;
            const element = iterator.next().?;
            try std.testing.expectEqual(expected.ptr, element.ptr);
            try std.testing.expectEqual(expected.len, element.len);
        }
        try std.testing.expectEqual(null, iterator.next());
    }
}
