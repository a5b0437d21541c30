//! Tests of `request.zig`: every byte of a request head.

const std = @import("std");
const constants = @import("../constants.zig");
const header_module = @import("header.zig");
const url_module = @import("url.zig");
const request_module = @import("request.zig");
const Header = header_module.Header;
const Url = url_module.Url;
const WriteError = request_module.WriteError;
const Options = request_module.Options;
const write = request_module.write;
const describe = request_module.describe;

test "request: a GET is written with the headers that it needs" {
    var target: [256]u8 = undefined;
    const url = try Url.parse("https://api.example.com:8443?symbol=BTC%20USD");
    const size = try write(&target, .{ .url = &url });
    try std.testing.expectEqualStrings("GET /?symbol=BTC%20USD HTTP/1.1\r\n" ++
        "Host: api.example.com:8443\r\n" ++
        "User-Agent: hftws/" ++ constants.version ++ "\r\n" ++
        "Accept: */*\r\n" ++
        "Accept-Encoding: identity\r\n" ++
        "Connection: close\r\n" ++
        "\r\n", target[0..size]);
}

test "request: the caller's headers follow in order and replace the default ones" {
    var target: [256]u8 = undefined;
    const url = try Url.parse("http://[::1]/depth");
    const size = try write(&target, .{ .method = .head, .url = &url, .headers = &.{
        .{ .name = "X-Key", .value = "1" },
        .{ .name = "user-agent", .value = "mine" },
        .{ .name = "HOST", .value = "front.example" },
        .{ .name = "connection", .value = "keep-alive" },
        .{ .name = "ACCEPT", .value = "" },
        .{ .name = "accept-encoding", .value = "gzip" },
        .{ .name = "X-Key", .value = "2" },
    } });
    try std.testing.expectEqualStrings("HEAD /depth HTTP/1.1\r\n" ++
        "Host: front.example\r\n" ++
        "X-Key: 1\r\n" ++
        "user-agent: mine\r\n" ++
        "connection: keep-alive\r\n" ++
        "ACCEPT: \r\n" ++
        "accept-encoding: gzip\r\n" ++
        "X-Key: 2\r\n" ++
        "\r\n", target[0..size]);
}

test "request: a header that cannot be sent is refused by cause" {
    const Case = struct { WriteError, []const Header };
    const host: Header = .{ .name = "Host", .value = "a" };
    const cases = [_]Case{
        .{ error.InvalidHeaderName, &.{.{ .name = "", .value = "a" }} },
        .{ error.InvalidHeaderName, &.{ host, .{ .name = "a b", .value = "a" } } },
        .{ error.InvalidHeaderValue, &.{.{ .name = "a", .value = "b\r\nc: d" }} },
        .{ error.InvalidHeaderValue, &.{.{ .name = "Host", .value = "b\n" }} },
        .{ error.ReservedHeader, &.{.{ .name = "content-length", .value = "1" }} },
        .{ error.ReservedHeader, &.{.{ .name = "Transfer-Encoding", .value = "chunked" }} },
        .{ error.ReservedHeader, &.{ host, .{ .name = "UPGRADE", .value = "h2c" } } },
        .{ error.DuplicateHost, &.{ host, .{ .name = "host", .value = "a" } } },
    };
    const url = try Url.parse("http://a");
    var target: [256]u8 = undefined;
    for (cases) |case| {
        const expected, const headers = case;
        const result = write(&target, .{ .url = &url, .headers = headers });
        try std.testing.expectError(expected, result);
        try std.testing.expect(describe(expected).len > 0);
    }
}

test "request: every target that is too small is an error, and nothing is written past it" {
    const url = try Url.parse("http://example.com/path");
    const options: Options = .{ .url = &url, .headers = &.{.{ .name = "X", .value = "y" }} };
    var whole: [256]u8 = undefined;
    const size = try write(&whole, options);

    for (0..size) |target_size| {
        var target: [256]u8 = @splat(0xaa);
        try std.testing.expectError(error.NoSpaceLeft, write(target[0..target_size], options));
        for (target[target_size..]) |byte| try std.testing.expectEqual(0xaa, byte);
    }
    try std.testing.expectEqual(size, try write(whole[0..size], options));
}

test "request: a request of exactly the largest size is written, one byte more is refused" {
    const url = try Url.parse("http://a");
    var target: [constants.request_size_max + 16]u8 = undefined;
    const size_empty = try write(&target, .{ .url = &url, .headers = &.{
        .{ .name = "X", .value = "" },
    } });

    const filler: [constants.request_size_max]u8 = @splat('v');
    for ([_]usize{ 0, 1 }) |excess| {
        const value = filler[0 .. constants.request_size_max - size_empty + excess];
        const options: Options = .{ .url = &url, .headers = &.{.{ .name = "X", .value = value }} };
        if (excess == 0) {
            try std.testing.expectEqual(constants.request_size_max, try write(&target, options));
        } else {
            try std.testing.expectError(error.NoSpaceLeft, write(&target, options));
        }
    }
}

test "request: random headers never change how many lines a request has" {
    var prng: std.Random.DefaultPrng = .init(0x72657175);
    const random = prng.random();
    const url = try Url.parse("http://example.com/path?query");
    var written_count: usize = 0;
    for (0..20_000) |_| {
        const name_alphabet = "HostXaccept-";
        const value_alphabet = "abc, :;=\"\t\xff\xc3aaaaaaaaaaaaaaaaaaa\r\n\x00";
        var names: [3][4]u8 = undefined;
        var values: [3][6]u8 = undefined;
        var headers: [3]Header = undefined;
        const header_count = random.uintAtMost(usize, headers.len);
        for (headers[0..header_count], names[0..header_count], values[0..header_count]) |
            *header,
            *name,
            *value,
        | {
            for (name) |*byte| {
                byte.* = name_alphabet[random.uintLessThan(usize, name_alphabet.len)];
            }
            for (value) |*byte| {
                byte.* = value_alphabet[random.uintLessThan(usize, value_alphabet.len)];
            }
            header.* = .{ .name = name, .value = value[0..random.uintAtMost(usize, value.len)] };
        }
        var target: [256]u8 = undefined;
        const options: Options = .{ .url = &url, .headers = headers[0..header_count] };
        const size = write(&target, options) catch continue;
        written_count += 1;

        // Request line, Host, User-Agent, Accept, Accept-Encoding, Connection, and the blank line.
        // A random name of four letters can be "Host", which replaces the client's own.
        const host_given = hasHost(options.headers);
        const expected = 7 + header_count - @intFromBool(host_given);
        try std.testing.expectEqual(expected, std.mem.count(u8, target[0..size], "\n"));
        try std.testing.expectEqual(expected, std.mem.count(u8, target[0..size], "\r\n"));
        try std.testing.expectEqual(expected, std.mem.count(u8, target[0..size], "\r"));
        try std.testing.expectEqual(size - 4, std.mem.find(u8, target[0..size], "\r\n\r\n").?);
    }
    try std.testing.expect(written_count > 1_000);
}

fn hasHost(headers: []const Header) bool {
    for (headers) |header| {
        if (std.ascii.eqlIgnoreCase(header.name, "Host")) return true;
    }
    return false;
}
