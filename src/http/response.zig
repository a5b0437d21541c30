//! The response head: status line and headers up to the blank line, read from a growing span of
//! bytes (RFC 9112, sections 4 and 5).
//!
//! Two passes. The first looks for the blank line only, remembers how far it came, and so reads
//! each byte once however slowly the peer sends; the second judges the whole head. Wherever the
//! bytes are cut, the answer is the same. What recipients are known to read differently (a line end
//! without CR, a folded line, a space before the colon) is refused, not repaired. No copies.

const std = @import("std");
const constants = @import("../constants.zig");
const header_module = @import("header.zig");

const assert = std.debug.assert;
const Header = header_module.Header;

/// Why the bytes are not the head of a response. The connection is of no use afterwards.
pub const HeadError = error{
    NotHttp,
    UnsupportedHttpVersion,
    MalformedStatusLine,
    MalformedHeaderName,
    MalformedHeaderValue,
    FoldedHeader,
    BareLineFeed,
    TooManyHeaders,
    HeadTooLarge,
};

/// A response head. Every slice borrows from the bytes that were parsed. Made by `parseHead` only.
pub const Head = struct {
    /// 100 to 999.
    status: u16,
    /// The text after the status, often empty; for people only (RFC 9112, section 4).
    reason: []const u8,
    /// The x of HTTP/1.x.
    version_minor: u8,
    /// Bytes of the head with its blank line: the body, or the new protocol, starts there.
    size: usize,
    /// The header lines, all well formed, each with its line end, without the blank line.
    fields: []const u8,
    /// Number of header lines, at most `constants.response_headers_max`.
    field_count: u16,

    /// The value of the first header of that name (in any case), trimmed, or null.
    pub fn header(head: *const Head, name: []const u8) ?[]const u8 {
        var iterator = head.headersNamed(name);
        return iterator.next();
    }

    /// Every header, in order.
    pub fn headers(head: *const Head) HeaderIterator {
        return .{ .rest = head.fields };
    }

    /// The value of every header of that name (in any case), in order.
    pub fn headersNamed(head: *const Head, name: []const u8) ValueIterator {
        return .{ .headers = head.headers(), .name = name };
    }

    /// How many header lines have that name (in any case).
    pub fn headerCount(head: *const Head, name: []const u8) usize {
        var count: usize = 0;
        var iterator = head.headersNamed(name);
        while (iterator.next()) |_| count += 1;
        assert(count <= head.field_count);
        return count;
    }

    /// True when `token` (in any case) is in the comma-separated lists of the headers of that name,
    /// which count as one list (RFC 9110, section 5.3).
    pub fn hasToken(head: *const Head, name: []const u8, token: []const u8) bool {
        assert(header_module.isToken(token));
        var values = head.headersNamed(name);
        while (values.next()) |value| {
            var elements: header_module.ListIterator = .init(value);
            while (elements.next()) |element| {
                if (std.ascii.eqlIgnoreCase(element, token)) return true;
            }
        }
        return false;
    }
};

/// Walks the header lines of a head. The slices of what it returns borrow as the head does.
pub const HeaderIterator = struct {
    rest: []const u8,

    /// The next header, its value trimmed, or null after the last.
    pub fn next(iterator: *HeaderIterator) ?Header {
        if (iterator.rest.len == 0) return null;
        // `parseHead` has seen a line end and a colon on every line.
        const line, iterator.rest = std.mem.cut(u8, iterator.rest, "\r\n").?;
        const name, const value = std.mem.cutScalar(u8, line, ':').?;
        return .{ .name = name, .value = header_module.trim(value) };
    }
};

/// Walks the values of the headers of one name.
pub const ValueIterator = struct {
    headers: HeaderIterator,
    name: []const u8,

    /// The next value, trimmed, or null after the last.
    pub fn next(iterator: *ValueIterator) ?[]const u8 {
        while (iterator.headers.next()) |header| {
            if (std.ascii.eqlIgnoreCase(header.name, iterator.name)) return header.value;
        }
        return null;
    }
};

/// Reads the response head at the front of `bytes`; null when it has not all arrived. `bytes` is
/// everything received so far and may grow, not shrink, from call to call; `searched` starts at 0
/// and is this function's to keep between the calls for one head.
///
/// Bytes that cannot be HTTP are told at once; every other defect when the head is complete, but a
/// line end without CR (the blank line of such a head would never be found) and the size.
pub fn parseHead(bytes: []const u8, searched: *usize) HeadError!?Head {
    assert(searched.* <= bytes.len);
    try checkStart(bytes);

    const window = bytes[0..@min(bytes.len, constants.response_head_size_max)];
    const size = try findEnd(window, searched) orelse {
        if (window.len == constants.response_head_size_max) return error.HeadTooLarge;
        return null;
    };
    assert(size <= window.len);
    return try parseComplete(window[0..size]);
}

/// One plain sentence for the user.
pub fn describe(err: HeadError) [:0]const u8 {
    return switch (err) {
        error.NotHttp => "the server's answer is not HTTP (is it the right port, and should the " ++
            "connection use TLS?)",
        error.UnsupportedHttpVersion => "the server answered with an HTTP version other than 1.x",
        error.MalformedStatusLine => "the server's status line is malformed",
        error.MalformedHeaderName => "a header line of the server's response has no valid name " ++
            "before a colon",
        error.MalformedHeaderValue => "a header of the server's response holds a control character",
        error.FoldedHeader => "a header of the server's response is folded over several lines",
        error.BareLineFeed => "a line of the server's response ends without a carriage return",
        error.TooManyHeaders => "the server's response has more headers than the client takes",
        error.HeadTooLarge => "the head of the server's response is larger than the client takes",
    };
}

const version_prefix = "HTTP/1.";

/// Refuses what cannot become a status line, as early as the bytes allow: a TLS alert, a banner of
/// another protocol or an HTTP/2 frame never ends in a blank line that we could wait for.
fn checkStart(bytes: []const u8) HeadError!void {
    const protocol_size = comptime std.mem.findScalar(u8, version_prefix, '/').? + 1;
    const size = @min(bytes.len, version_prefix.len);
    for (bytes[0..size], version_prefix[0..size], 0..) |byte, expected, index| {
        if (byte == expected) continue;
        if (index < protocol_size) return error.NotHttp;
        return error.UnsupportedHttpVersion;
    }
}

/// The size of the head with its blank line, or null when the blank line is not in `window`. Each
/// line feed is looked at once: `searched` stays behind the last one seen.
fn findEnd(window: []const u8, searched: *usize) HeadError!?usize {
    while (std.mem.findScalarPos(u8, window, searched.*, '\n')) |line_feed| {
        // Past the prefix that `checkStart` compared, so there are bytes to look back at.
        assert(line_feed >= version_prefix.len);
        if (window[line_feed - 1] != '\r') return error.BareLineFeed;
        if (window[line_feed - 2] == '\n') return line_feed + 1;
        searched.* = line_feed + 1;
    }
    searched.* = window.len;
    return null;
}

/// Judges a complete head: `text` ends with the blank line, and every line feed follows a CR.
fn parseComplete(text: []const u8) HeadError!Head {
    assert(std.mem.endsWith(u8, text, "\r\n\r\n"));

    const status_line, const rest = std.mem.cut(u8, text, "\r\n").?;
    var head = try parseStatusLine(status_line);
    head.size = text.len;
    head.fields = rest[0 .. rest.len - "\r\n".len];

    var fields = head.fields;
    while (fields.len > 0) {
        const line, fields = std.mem.cut(u8, fields, "\r\n").?;
        if (head.field_count == constants.response_headers_max) return error.TooManyHeaders;
        head.field_count += 1;
        try checkFieldLine(line);
    }
    return head;
}

/// status-line = HTTP-version SP status-code SP [ reason-phrase ] (RFC 9112, section 4). The second
/// space may be missing with the reason, as many servers leave it out.
fn parseStatusLine(line: []const u8) HeadError!Head {
    const status_start = version_prefix.len + "1 ".len;
    const status_end = status_start + "200".len;
    assert(std.mem.startsWith(u8, line, version_prefix));

    if (line.len < status_end) return error.MalformedStatusLine;
    const version_minor = line[version_prefix.len];
    if (!std.ascii.isDigit(version_minor)) return error.MalformedStatusLine;
    if (line[status_start - 1] != ' ') return error.MalformedStatusLine;

    var status: u16 = 0;
    for (line[status_start..status_end]) |byte| {
        if (!std.ascii.isDigit(byte)) return error.MalformedStatusLine;
        status = status * 10 + (byte - '0');
    }
    if (status < 100) return error.MalformedStatusLine;

    var reason = line[status_end..];
    if (reason.len > 0) {
        if (reason[0] != ' ') return error.MalformedStatusLine;
        reason = reason[1..];
    }
    if (!header_module.isFieldValue(reason)) return error.MalformedStatusLine;
    return .{
        .status = status,
        .reason = reason,
        .version_minor = version_minor - '0',
        .size = 0,
        .fields = "",
        .field_count = 0,
    };
}

/// field-line = field-name ":" OWS field-value OWS (RFC 9112, section 5). A name is a token, which
/// leaves no room for a space before the colon (section 5.1).
fn checkFieldLine(line: []const u8) HeadError!void {
    assert(line.len > 0);
    if (line[0] == ' ' or line[0] == '\t') return error.FoldedHeader;

    const name, const value = std.mem.cutScalar(u8, line, ':') orelse
        return error.MalformedHeaderName;
    if (!header_module.isToken(name)) return error.MalformedHeaderName;
    if (!header_module.isFieldValue(value)) return error.MalformedHeaderValue;
}

test "response: status line, headers and size of a head are found" {
    const text = "HTTP/1.1 101 Switching Protocols\r\n" ++
        "Upgrade: websocket\r\n" ++
        "connection:keep-alive,\t Upgrade\r\n" ++
        "X-Empty:\r\n" ++
        "Set-Cookie: a=b; c \t\r\n" ++
        "set-cookie:\t d=\xff:\r\n" ++
        "\r\n" ++ "\x81\x01x";
    var searched: usize = 0;
    const head = (try parseHead(text, &searched)).?;
    try std.testing.expectEqual(101, head.status);
    try std.testing.expectEqualStrings("Switching Protocols", head.reason);
    try std.testing.expectEqual(1, head.version_minor);
    try std.testing.expectEqualStrings("\x81\x01x", text[head.size..]);
    try std.testing.expectEqual(5, head.field_count);

    try std.testing.expectEqualStrings("websocket", head.header("upgrade").?);
    try std.testing.expectEqualStrings("", head.header("x-empty").?);
    try std.testing.expectEqualStrings("a=b; c", head.header("SET-COOKIE").?);
    try std.testing.expectEqual(null, head.header("X-Emp"));
    try std.testing.expectEqual(2, head.headerCount("Set-Cookie"));
    try std.testing.expectEqual(0, head.headerCount("Cookie"));

    var cookies = head.headersNamed("set-cookie");
    try std.testing.expectEqualStrings("a=b; c", cookies.next().?);
    try std.testing.expectEqualStrings("d=\xff:", cookies.next().?);
    try std.testing.expectEqual(null, cookies.next());

    var headers = head.headers();
    const names = [_][]const u8{ "Upgrade", "connection", "X-Empty", "Set-Cookie", "set-cookie" };
    for (names) |name| try std.testing.expectEqualStrings(name, headers.next().?.name);
    try std.testing.expectEqual(null, headers.next());

    try std.testing.expect(head.hasToken("Connection", "upgrade"));
    try std.testing.expect(head.hasToken("Connection", "Keep-Alive"));
    try std.testing.expect(!head.hasToken("Connection", "up"));
    try std.testing.expect(!head.hasToken("Connections", "upgrade"));
}

test "response: a token is looked for in every header line of the name" {
    const text = "HTTP/1.1 200 OK\r\nConnection: a\r\nX: y\r\nCONNECTION: b, ,UPGRADE\r\n\r\n";
    var searched: usize = 0;
    const head = (try parseHead(text, &searched)).?;
    try std.testing.expect(head.hasToken("connection", "Upgrade"));
    try std.testing.expect(head.hasToken("connection", "a"));
    try std.testing.expect(!head.hasToken("connection", "y"));
}

test "response: a status line is taken with and without a reason" {
    const Case = struct { line: []const u8, status: u16, version_minor: u8, reason: []const u8 };
    const odd = " \xe9\t!";
    const cases = [_]Case{
        .{ .line = "HTTP/1.1 200 OK", .status = 200, .version_minor = 1, .reason = "OK" },
        .{ .line = "HTTP/1.0 100 ", .status = 100, .version_minor = 0, .reason = "" },
        .{ .line = "HTTP/1.9 999", .status = 999, .version_minor = 9, .reason = "" },
        .{ .line = "HTTP/1.1 404 " ++ odd, .status = 404, .version_minor = 1, .reason = odd },
    };
    for (cases) |case| {
        var buffer: [64]u8 = undefined;
        var writer: std.Io.Writer = .fixed(&buffer);
        try writer.print("{s}\r\n\r\n", .{case.line});
        const text = writer.buffered();
        var searched: usize = 0;
        const head = (try parseHead(text, &searched)).?;
        try std.testing.expectEqual(case.status, head.status);
        try std.testing.expectEqual(case.version_minor, head.version_minor);
        try std.testing.expectEqualStrings(case.reason, head.reason);
        try std.testing.expectEqual(0, head.field_count);
        try std.testing.expectEqual(text.len, head.size);
    }
}

test "response: each defect has its own error, wherever the bytes are cut" {
    const Case = struct { HeadError, []const u8 };
    const cases = [_]Case{
        .{ error.NotHttp, "\x15\x03\x01\x00\x02\x02\x28" },
        .{ error.NotHttp, "SSH-2.0-x\r\n" },
        .{ error.NotHttp, "http/1.1 200 OK\r\n\r\n" },
        .{ error.NotHttp, "\r\nHTTP/1.1 200 OK\r\n\r\n" },
        .{ error.NotHttp, "\n" },
        .{ error.NotHttp, "HTTP 200" },
        .{ error.UnsupportedHttpVersion, "HTTP/2.0 200 OK\r\n\r\n" },
        .{ error.UnsupportedHttpVersion, "HTTP/0.9 200 OK\r\n\r\n" },
        .{ error.UnsupportedHttpVersion, "HTTP/11.1 200 OK\r\n\r\n" },
        .{ error.UnsupportedHttpVersion, "HTTP/\r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.\r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.1\r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.1 \r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.1 20\r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.1  200 OK\r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.1\t200 OK\r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.10 200 OK\r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.x 200 OK\r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.1 099 OK\r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.1 2000 OK\r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.1 +20 OK\r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.1 200\tOK\r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.1 200 O\x00K\r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.1 200 O\rK\r\n\r\n" },
        .{ error.MalformedStatusLine, "HTTP/1.1 200 OK\r\r\n\r\n" },
        .{ error.MalformedHeaderName, "HTTP/1.1 200 OK\r\nContent-Length\r\n\r\n" },
        .{ error.MalformedHeaderName, "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\n" },
        .{ error.MalformedHeaderName, "HTTP/1.1 200 OK\r\nContent Length: 1\r\n\r\n" },
        .{ error.MalformedHeaderName, "HTTP/1.1 200 OK\r\n: 1\r\n\r\n" },
        .{ error.MalformedHeaderName, "HTTP/1.1 200 OK\r\nA: 1\r\n\x00: 1\r\n\r\n" },
        .{ error.MalformedHeaderName, "HTTP/1.1 200 OK\r\n\rA: 1\r\n\r\n" },
        .{ error.MalformedHeaderName, "HTTP/1.1 200 OK\r\n\xe9: 1\r\n\r\n" },
        .{ error.MalformedHeaderValue, "HTTP/1.1 200 OK\r\nA: 1\x00\r\n\r\n" },
        .{ error.MalformedHeaderValue, "HTTP/1.1 200 OK\r\nA: 1\rB: 2\r\n\r\n" },
        .{ error.MalformedHeaderValue, "HTTP/1.1 200 OK\r\nA: 1\r\r\n\r\n" },
        .{ error.MalformedHeaderValue, "HTTP/1.1 200 OK\r\nA: \x7f\r\n\r\n" },
        .{ error.FoldedHeader, "HTTP/1.1 200 OK\r\nA: 1\r\n 2\r\n\r\n" },
        .{ error.FoldedHeader, "HTTP/1.1 200 OK\r\nA: 1\r\n\t2: 3\r\n\r\n" },
        .{ error.FoldedHeader, "HTTP/1.1 200 OK\r\n A: 1\r\n\r\n" },
        .{ error.FoldedHeader, "HTTP/1.1 200 OK\r\nA: 1\r\n \r\n\r\n" },
        .{ error.BareLineFeed, "HTTP/1.1 200 OK\n" },
        .{ error.BareLineFeed, "HTTP/1.1 200 OK\r\nA: 1\n" },
        .{ error.BareLineFeed, "HTTP/1.1 200 OK\r\nA: 1\r\n\n" },
        .{ error.BareLineFeed, "HTTP/1.\n" },
    };
    for (cases) |case| {
        const expected, const text = case;
        errdefer std.debug.print("head: {q}\n", .{text});
        try std.testing.expect(describe(expected).len > 0);

        var searched: usize = 0;
        try std.testing.expectError(expected, parseHead(text, &searched));
        for (0..text.len) |cut| {
            searched = 0;
            const result = parseHead(text[0..cut], &searched) catch |err| {
                try std.testing.expectEqual(expected, err);
                continue;
            };
            try std.testing.expectEqual(null, result);
            try std.testing.expectError(expected, parseHead(text, &searched));
        }
        try std.testing.expectEqual(expected, testByteByByte(text));
    }
}

test "response: bytes that cannot be HTTP are told at the first of them" {
    var searched: usize = 0;
    try std.testing.expectEqual(null, try parseHead("", &searched));
    try std.testing.expectError(error.NotHttp, parseHead("\x15", &searched));
    try std.testing.expectError(error.NotHttp, parseHead("HTTPS", &searched));
    try std.testing.expectEqual(null, try parseHead("HTTP/", &searched));
    try std.testing.expectError(error.UnsupportedHttpVersion, parseHead("HTTP/2", &searched));
}

test "response: a head cut at any two places is found as soon as its last byte is there" {
    const text = "HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 10\r\n\r\n\r\nbody\r\n\r\n";
    const head_size = std.mem.find(u8, text, "\r\n\r\n").? + 4;
    for (0..text.len + 1) |first| {
        for (first..text.len + 1) |second| {
            var searched: usize = 0;
            var found: ?Head = null;
            for ([_]usize{ first, second, text.len }) |cut| {
                if (found != null) break;
                found = try parseHead(text[0..cut], &searched);
                try std.testing.expectEqual(cut >= head_size, found != null);
            }
            try std.testing.expectEqual(head_size, found.?.size);
            try std.testing.expectEqual(2, found.?.field_count);
            try std.testing.expectEqualStrings("10", found.?.header("content-length").?);
        }
    }
}

test "response: a head of exactly the largest size is taken, one byte more is refused" {
    const start = "HTTP/1.1 200 OK\r\nA: ";
    var text: [constants.response_head_size_max + 1]u8 = @splat('a');
    @memcpy(text[0..start.len], start);

    @memcpy(text[text.len - 5 .. text.len - 1], "\r\n\r\n");
    var searched: usize = 0;
    const head = (try parseHead(&text, &searched)).?;
    try std.testing.expectEqual(constants.response_head_size_max, head.size);
    searched = 0;
    try std.testing.expectEqual(null, try parseHead(text[0 .. head.size - 1], &searched));
    try std.testing.expectEqual(head.size, (try parseHead(&text, &searched)).?.size);

    text[text.len - 5] = 'a';
    @memcpy(text[text.len - 4 ..], "\r\n\r\n");
    searched = 0;
    try std.testing.expectError(error.HeadTooLarge, parseHead(&text, &searched));
    searched = 0;
    const largest = text[0..constants.response_head_size_max];
    try std.testing.expectError(error.HeadTooLarge, parseHead(largest, &searched));
    searched = 0;
    try std.testing.expectEqual(null, try parseHead(largest[0 .. largest.len - 1], &searched));
}

test "response: the largest number of headers is taken, one more is refused" {
    const start = "HTTP/1.1 200 OK\r\n";
    const field = "A: b\r\n";
    var text: [start.len + field.len * (constants.response_headers_max + 1) + 2]u8 = undefined;
    for ([_]usize{ constants.response_headers_max, constants.response_headers_max + 1 }) |count| {
        var writer: std.Io.Writer = .fixed(&text);
        try writer.writeAll(start);
        for (0..count) |_| try writer.writeAll(field);
        try writer.writeAll("\r\n");

        var searched: usize = 0;
        const result = parseHead(writer.buffered(), &searched);
        if (count == constants.response_headers_max) {
            try std.testing.expectEqual(count, (try result).?.field_count);
        } else {
            try std.testing.expectError(error.TooManyHeaders, result);
        }
    }
}

test "response: a slow peer costs one look at each byte" {
    // A search that starts over at each call would take 2^31 looks in a head of this size.
    var text: [constants.response_head_size_max - 1]u8 = @splat('a');
    @memcpy(text[0..16], "HTTP/1.1 200 OK\r");
    var searched: usize = 0;
    for (0..text.len) |size| {
        try std.testing.expectEqual(null, try parseHead(text[0..size], &searched));
        try std.testing.expectEqual(size, searched);
    }
}

test "response: a mutated head gives one answer, whole or byte by byte" {
    const seed = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA:b\r\n" ++
        "Connection: a, close \r\n\r\nhello";
    const alphabet = "\r\n\n :\tHTP/1.20a,\x00\xff";
    var prng: std.Random.DefaultPrng = .init(0x72657370);
    const random = prng.random();
    var parsed_count: usize = 0;
    for (0..50_000) |_| {
        var text = seed.*;
        for (0..random.uintAtMost(usize, 4)) |_| {
            const replacement = alphabet[random.uintLessThan(usize, alphabet.len)];
            text[random.uintLessThan(usize, text.len)] = replacement;
        }
        var searched: usize = 0;
        const whole = parseHead(&text, &searched) catch |err| {
            try std.testing.expectEqual(err, testByteByByte(&text));
            continue;
        };
        const head = whole orelse {
            try std.testing.expectEqual(null, try testByteByByte(&text));
            continue;
        };
        parsed_count += 1;
        try std.testing.expectEqualDeep(head, (try testByteByByte(&text)).?);

        // What the iterator gives, written again, is the head up to the white space around values.
        var headers = head.headers();
        var count: usize = 0;
        while (headers.next()) |header| : (count += 1) {
            try std.testing.expect(header_module.isToken(header.name));
            try std.testing.expect(header_module.isFieldValue(header.value));
            try std.testing.expectEqualStrings(header_module.trim(header.value), header.value);
            try std.testing.expect(head.headerCount(header.name) > 0);
        }
        try std.testing.expectEqual(head.field_count, count);
        try std.testing.expect(std.mem.endsWith(u8, text[0..head.size], "\r\n\r\n"));
        try std.testing.expectEqual(head.size - 4, std.mem.find(u8, &text, "\r\n\r\n").?);
    }
    try std.testing.expect(parsed_count > 1_000);
}

fn testByteByByte(text: []const u8) HeadError!?Head {
    var searched: usize = 0;
    for (0..text.len + 1) |size| {
        if (try parseHead(text[0..size], &searched)) |head| return head;
    }
    return null;
}
