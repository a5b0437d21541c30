//! Fuzz target: URLs and headers, as a user gives them.
//!
//! An accepted URL has a host without bytes that could end a line or mean something to a resolver;
//! written out and parsed again it is the same. A written request has the given lines, each ended
//! by CRLF, and no others; else the caller's headers are refused.
//!
//! Payload: the URL; then lines: those with a colon are headers, the others subprotocols.

const std = @import("std");
const Input = @import("input.zig").Input;
const constants = @import("../constants.zig");
const http = @import("../http.zig");
const handshake = @import("../ws/handshake.zig");

const testing = std.testing;
const expect = testing.expect;

const lines_max = 16;

pub fn run(_: std.mem.Allocator, bytes: []const u8) !void {
    const input: Input = .init(bytes);
    var lines = std.mem.splitScalar(u8, input.payload, '\n');
    const text = lines.first();
    const url = http.Url.parse(text) catch |err| {
        return expect(http.url.describe(err).len > 0);
    };
    try judgeParts(&url, text);
    try judgeWritten(&url);

    var headers: [lines_max]http.Header = undefined;
    var headers_count: usize = 0;
    var subprotocols: [lines_max][]const u8 = undefined;
    var subprotocols_count: usize = 0;
    while (lines.next()) |line| {
        if (std.mem.cutScalar(u8, line, ':')) |parts| {
            if (headers_count == headers.len) continue;
            headers[headers_count] = .{ .name = parts[0], .value = parts[1] };
            headers_count += 1;
        } else if (subprotocols_count < subprotocols.len) {
            subprotocols[subprotocols_count] = line;
            subprotocols_count += 1;
        }
    }
    try judgeRequest(&url, headers[0..headers_count], subprotocols[0..subprotocols_count]);
}

fn judgeParts(url: *const http.Url, text: []const u8) !void {
    try expect(url.host.len > 0);
    try expect(url.host.len <= http.url.host_size_max);
    try expect(url.port != 0);
    for (url.host) |byte| {
        const allowed = std.ascii.isAlphanumeric(byte) or byte == '.' or
            (!url.host_is_ipv6 and (byte == '-' or byte == '_')) or
            (url.host_is_ipv6 and byte == ':');
        try expect(allowed);
    }
    for (url.target) |byte| try expect(byte > ' ' and byte < 0x7f and byte != '#');
    try expect(isWithin(url.host, text));
    try expect(isWithin(url.target, text));
    if (url.host_is_ipv6) try expect(http.url.isIpv6(url.host));
    // A host that a resolver reads as an address has to be a valid one.
    for (url.host) |byte| {
        if (!std.ascii.isDigit(byte) and byte != '.') break;
    } else try expect(http.url.isIpv4(url.host));
}

fn isWithin(part: []const u8, text: []const u8) bool {
    if (part.len == 0) return true;
    const start = @intFromPtr(part.ptr);
    const end = @intFromPtr(text.ptr) + text.len;
    return start >= @intFromPtr(text.ptr) and start + part.len <= end;
}

fn judgeWritten(url: *const http.Url) !void {
    var buffer: [2 * constants.request_size_max]u8 = undefined;
    var writer: std.Io.Writer = .fixed(&buffer);
    try writer.print("{t}://", .{url.scheme});
    try url.writeHost(&writer);
    try url.writeTarget(&writer);
    const again = try http.Url.parse(writer.buffered());
    try testing.expectEqual(url.scheme, again.scheme);
    try testing.expectEqualStrings(url.host, again.host);
    try testing.expectEqual(url.host_is_ipv6, again.host_is_ipv6);
    try testing.expectEqual(url.port, again.port);
    const slash_added = url.target.len == 0 or url.target[0] != '/';
    try testing.expectEqualStrings(url.target, again.target[@intFromBool(slash_added)..]);
}

fn judgeRequest(
    url: *const http.Url,
    headers: []const http.Header,
    subprotocols: []const []const u8,
) !void {
    var buffer: [constants.request_size_max + 1]u8 = undefined;
    if (!url.scheme.isWebSocket()) {
        const size = http.request.write(&buffer, .{ .url = url, .headers = headers }) catch |err| {
            return expect(http.request.describe(err).len > 0);
        };
        return judgeLines(buffer[0..size], url, headers);
    }
    const key = handshake.keyFrom("0123456789abcdef");
    const size = handshake.writeRequest(&buffer, .{
        .url = url,
        .key = &key,
        .headers = headers,
        .subprotocols = subprotocols,
    }) catch |err| return expect(handshake.describe(err).len > 0);
    try judgeLines(buffer[0..size], url, headers);
    const own = [_][]const u8{ "Upgrade", "Connection", "Sec-WebSocket-Key" };
    for (own) |name| try testing.expectEqual(1, countLines(buffer[0..size], name));
    const offers = countLines(buffer[0..size], "Sec-WebSocket-Protocol");
    try testing.expectEqual(@intFromBool(subprotocols.len > 0), offers);
}

/// One request line of three words, header lines, and one blank line at the end.
fn judgeLines(request: []const u8, url: *const http.Url, headers: []const http.Header) !void {
    try expect(request.len <= constants.request_size_max);
    try expect(std.mem.endsWith(u8, request, "\r\n\r\n"));
    var lines = std.mem.splitSequence(u8, request[0 .. request.len - 4], "\r\n");
    var words = std.mem.splitScalar(u8, lines.first(), ' ');
    try testing.expectEqualStrings("GET", words.next().?);
    try expect(std.mem.endsWith(u8, words.next().?, url.target));
    try testing.expectEqualStrings("HTTP/1.1", words.next().?);
    try testing.expectEqual(null, words.next());
    while (lines.next()) |line| {
        const name, const value = std.mem.cut(u8, line, ": ") orelse return error.NoHeader;
        try expect(http.isToken(name));
        try expect(http.header.isFieldValue(value));
    }
    for (request, 0..) |byte, index| {
        if (byte == '\n') try expect(request[index - 1] == '\r');
        if (byte == '\r') try expect(request[index + 1] == '\n');
    }
    try testing.expectEqual(1, countLines(request, "Host"));
    for (headers) |header| {
        var given: usize = 0;
        for (headers) |other| {
            given += @intFromBool(std.ascii.eqlIgnoreCase(other.name, header.name));
        }
        try testing.expectEqual(given, countLines(request, header.name));
    }
}

fn countLines(request: []const u8, name: []const u8) usize {
    var count: usize = 0;
    var lines = std.mem.splitSequence(u8, request, "\r\n");
    while (lines.next()) |line| {
        const found, _ = std.mem.cutScalar(u8, line, ':') orelse continue;
        count += @intFromBool(std.ascii.eqlIgnoreCase(found, name));
    }
    return count;
}
