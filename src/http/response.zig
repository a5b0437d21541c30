//! Parses the head of a response: status line and headers.
//!
//! It reads a growing span of bytes (RFC 9112, sections 4 and 5).
//!
//! Two passes. The first only looks for the blank line and remembers how far it came, so that it
//! reads each byte once however slowly the peer sends; the second checks the whole head. Wherever
//! the bytes are cut, the result is the same. What recipients are known to read differently (a line
//! end without CR, a folded line, a space before the colon) is refused, not repaired. No copies.

const std = @import("std");
const constants = @import("../constants.zig");
const header_module = @import("header.zig");

const assert = std.debug.assert;
const Header = header_module.Header;

/// Why the bytes are not the head of a response. The connection cannot be used afterwards.
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
    /// The text after the status, often empty; only for people to read (RFC 9112, section 4).
    reason: []const u8,
    /// The x of HTTP/1.x.
    version_minor: u8,
    /// Bytes of the head with its blank line: the body, or the new protocol, starts there.
    size: usize,
    /// The header lines, all of them valid, each with its line end, without the blank line.
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
        // `parseHead` has checked that every line has a line end and a colon.
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
/// everything received so far and may grow, not shrink, from call to call. `searched` starts at 0
/// and is kept, but not changed, by the caller between the calls for one head.
///
/// Bytes that cannot be HTTP, a line end without CR (the blank line of such a head would never be
/// found) and too long a head are errors at once; every other error comes when the head is
/// complete.
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
/// another protocol or an HTTP/2 frame never ends in the blank line that the client waits for.
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
/// line feed is looked at once: `searched` is the place after the last one seen.
fn findEnd(window: []const u8, searched: *usize) HeadError!?usize {
    while (std.mem.findScalarPos(u8, window, searched.*, '\n')) |line_feed| {
        // After the prefix that `checkStart` compared, so there are bytes before it to look at.
        assert(line_feed >= version_prefix.len);
        if (window[line_feed - 1] != '\r') return error.BareLineFeed;
        if (window[line_feed - 2] == '\n') return line_feed + 1;
        searched.* = line_feed + 1;
    }
    searched.* = window.len;
    return null;
}

/// Checks a complete head: `text` ends with the blank line, and every line feed follows a CR.
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
/// space may be missing together with the reason: many servers leave both out.
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
