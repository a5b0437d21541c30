//! Tests of `response.zig`: heads that are read, refused, and cut.

const std = @import("std");
const constants = @import("../constants.zig");
const header_module = @import("header.zig");
const response_module = @import("response.zig");
const HeadError = response_module.HeadError;
const Head = response_module.Head;
const parseHead = response_module.parseHead;
const describe = response_module.describe;

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

test "response: bytes that cannot be HTTP are an error at the first of them" {
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
    // A search that starts again at each call would read 2^31 bytes for a head of this size.
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

        // What the iterator returns is, written again, the head but for white space around values.
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
