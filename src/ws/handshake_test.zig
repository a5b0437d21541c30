//! Tests of `handshake.zig`: the request, and which answers open a connection.

const std = @import("std");
const constants = @import("../constants.zig");
const http = @import("../http.zig");
const permessage_deflate = @import("permessage_deflate.zig");
const handshake = @import("handshake.zig");
const Writer = std.Io.Writer;
const Key = handshake.Key;
const Accept = handshake.Accept;
const RequestError = handshake.RequestError;
const ResponseError = handshake.ResponseError;
const RequestOptions = handshake.RequestOptions;
const keyFrom = handshake.keyFrom;
const acceptValue = handshake.acceptValue;
const writeRequest = handshake.writeRequest;
const checkResponse = handshake.checkResponse;
const describe = handshake.describe;

/// The example of RFC 6455, section 1.3.
const test_key: Key = "dGhlIHNhbXBsZSBub25jZQ==".*;
const test_accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

test "handshake: key and accept value are those of the RFC's example" {
    try std.testing.expectEqualStrings(&test_key, &keyFrom("the sample nonce"));
    try std.testing.expectEqualStrings(test_accept, &acceptValue(&test_key));
    try std.testing.expectEqual(24, @sizeOf(Key));
    try std.testing.expectEqual(28, @sizeOf(Accept));
}

test "handshake: the request has the headers that the RFC asks for" {
    const url = try http.Url.parse("wss://stream.example.com:9443/ws?streams=a/b");
    var target: [512]u8 = undefined;
    const size = try writeRequest(&target, .{ .url = &url, .key = &test_key });
    try std.testing.expectEqualStrings("GET /ws?streams=a/b HTTP/1.1\r\n" ++
        "Host: stream.example.com:9443\r\n" ++
        "User-Agent: hftws/" ++ constants.version ++ "\r\n" ++
        "Upgrade: websocket\r\n" ++
        "Connection: Upgrade\r\n" ++
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" ++
        "Sec-WebSocket-Version: 13\r\n" ++
        "\r\n", target[0..size]);
}

test "handshake: subprotocols and the caller's headers are in the request" {
    const url = try http.Url.parse("ws://[::1]");
    var target: [512]u8 = undefined;
    const size = try writeRequest(&target, .{
        .url = &url,
        .key = &test_key,
        .headers = &.{
            .{ .name = "Origin", .value = "https://example.com" },
            .{ .name = "host", .value = "front.example" },
            .{ .name = "Cookie", .value = "a=b" },
            .{ .name = "User-agent", .value = "mine" },
        },
        .subprotocols = &.{ "v2.json", "v1.JSON", "V1.json" },
    });
    try std.testing.expectEqualStrings("GET / HTTP/1.1\r\n" ++
        "Host: front.example\r\n" ++
        "Upgrade: websocket\r\n" ++
        "Connection: Upgrade\r\n" ++
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" ++
        "Sec-WebSocket-Version: 13\r\n" ++
        "Sec-WebSocket-Protocol: v2.json, v1.JSON, V1.json\r\n" ++
        "Origin: https://example.com\r\n" ++
        "Cookie: a=b\r\n" ++
        "User-agent: mine\r\n" ++
        "\r\n", target[0..size]);
}

test "handshake: what the caller must not send is refused by cause" {
    const url = try http.Url.parse("ws://a");
    var target: [512]u8 = undefined;

    const reserved = [_][]const u8{
        "Upgrade",
        "CONNECTION",
        "content-length",
        "Transfer-Encoding",
        "Sec-WebSocket-",
        "Sec-WebSocket-Key",
        "Sec-Websocket-Version",
        "Sec-WebSocket-Protocol",
        "sec-websocket-accept",
        "SEC-WEBSOCKET-EXTENSIONS",
    };
    for (reserved) |name| {
        const headers = [_]http.Header{
            .{ .name = "Origin", .value = "a" },
            .{ .name = name, .value = "a" },
        };
        const options: RequestOptions = .{ .url = &url, .key = &test_key, .headers = &headers };
        try std.testing.expectError(error.ReservedHeader, writeRequest(&target, options));
    }
    const HeaderCase = struct { RequestError, http.Header };
    const header_cases = [_]HeaderCase{
        .{ error.InvalidHeaderName, .{ .name = "a b", .value = "" } },
        .{ error.InvalidHeaderName, .{ .name = "Upgrade ", .value = "" } },
        .{ error.InvalidHeaderValue, .{ .name = "Cookie", .value = "a\r\nUpgrade: h2c" } },
    };
    for (header_cases) |case| {
        const expected, const header = case;
        const options: RequestOptions = .{ .url = &url, .key = &test_key, .headers = &.{header} };
        try std.testing.expectError(expected, writeRequest(&target, options));
    }
    const SubprotocolCase = struct { RequestError, []const []const u8 };
    const subprotocol_cases = [_]SubprotocolCase{
        .{ error.InvalidSubprotocol, &.{""} },
        .{ error.InvalidSubprotocol, &.{ "a", "b, c" } },
        .{ error.InvalidSubprotocol, &.{"a\r\nb"} },
        .{ error.RepeatedSubprotocol, &.{ "a", "b", "a" } },
    };
    for (subprotocol_cases) |case| {
        const expected, const list = case;
        const options: RequestOptions = .{ .url = &url, .key = &test_key, .subprotocols = list };
        try std.testing.expectError(expected, writeRequest(&target, options));
        try std.testing.expect(describe(expected).len > 0);
    }
}

test "handshake: every target that is too small is an error" {
    const url = try http.Url.parse("ws://a/b");
    const options: RequestOptions = .{
        .url = &url,
        .key = &test_key,
        .headers = &.{.{ .name = "Origin", .value = "a" }},
        .subprotocols = &.{ "a", "b" },
    };
    var target: [512]u8 = undefined;
    const size = try writeRequest(&target, options);
    for (0..size) |target_size| {
        const result = writeRequest(target[0..target_size], options);
        try std.testing.expectError(error.NoSpaceLeft, result);
    }
    try std.testing.expectEqual(size, try writeRequest(target[0..size], options));
}

test "handshake: an answer that opens the connection is taken in any lawful spelling" {
    const Case = struct { fields: []const u8, chosen: ?[]const u8 };
    const accept = "Sec-WebSocket-Accept: " ++ test_accept ++ "\r\n";
    const cases = [_]Case{
        .{
            .fields = "Upgrade: websocket\r\nConnection: Upgrade\r\n" ++ accept,
            .chosen = null,
        },
        .{
            .fields = "SEC-websocket-ACCEPT:\t" ++ test_accept ++ " \r\n" ++
                "connection: keep-alive, UPGRADE\r\nUPGRADE:WebSocket\r\n",
            .chosen = null,
        },
        .{
            .fields = accept ++ "Connection: keep-alive\r\nUpgrade: , websocket\r\n" ++
                "Connection: upgrade,\r\nSec-WebSocket-Protocol: json \r\nContent-Length: 0\r\n",
            .chosen = "json",
        },
    };
    const offered = [_][]const u8{ "JSON", "json" };
    for (cases) |case| {
        errdefer std.debug.print("fields: {s}\n", .{case.fields});
        const chosen = try testCheck("1.1", case.fields, &offered);
        if (case.chosen) |expected| {
            try std.testing.expectEqualStrings(expected, chosen.?);
            // It is the caller's own slice, which outlives the received bytes.
            try std.testing.expectEqual(offered[1].ptr, chosen.?.ptr);
        } else try std.testing.expectEqual(null, chosen);
    }
}

test "handshake: an answer that opens no connection is refused by cause" {
    const Case = struct { ResponseError, []const u8 };
    const upgrade = "Upgrade: websocket\r\n";
    const connection = "Connection: Upgrade\r\n";
    const accept = "Sec-WebSocket-Accept: " ++ test_accept ++ "\r\n";
    const good = upgrade ++ connection ++ accept;
    const accept_start = "Sec-WebSocket-Accept: ";
    const cases = [_]Case{
        .{ error.MissingUpgrade, connection ++ accept },
        .{ error.MissingUpgrade, "Upgrade:\r\n" ++ connection ++ accept },
        .{ error.MissingUpgrade, "Upgrade: websockets\r\n" ++ connection ++ accept },
        .{ error.MissingUpgrade, "Upgrade: web socket\r\n" ++ connection ++ accept },
        .{ error.MissingUpgrade, "Upgrade: websocket/13\r\n" ++ connection ++ accept },
        .{ error.MissingUpgrade, "Upgrade: h2c, websocket\r\n" ++ connection ++ accept },
        .{ error.MissingUpgrade, good ++ "Upgrade: h2c\r\n" },
        .{ error.MissingConnection, upgrade ++ accept },
        .{ error.MissingConnection, upgrade ++ "Connection: keep-alive\r\n" ++ accept },
        .{ error.MissingConnection, upgrade ++ "Connection: no upgrade\r\n" ++ accept },
        .{ error.MissingConnection, upgrade ++ "X-Connection: Upgrade\r\n" ++ accept },
        .{ error.MissingAccept, upgrade ++ connection },
        .{ error.RepeatedAccept, good ++ accept },
        .{ error.WrongAccept, upgrade ++ connection ++ accept_start ++ "\r\n" },
        .{ error.WrongAccept, upgrade ++ connection ++ accept_start ++ test_key ++ "\r\n" },
        .{
            error.WrongAccept,
            upgrade ++ connection ++ accept_start ++ "S3PPLMBITXAQ9KYGZZHZRBK+XOO=\r\n",
        },
        .{ error.WrongAccept, upgrade ++ connection ++ accept_start ++ test_accept ++ "=\r\n" },
        .{ error.WrongAccept, upgrade ++ connection ++ accept[0 .. accept.len - 3] ++ "\r\n" },
        .{
            error.WrongAccept,
            upgrade ++ connection ++ accept_start ++ test_accept ++ ", " ++ test_accept ++ "\r\n",
        },
        .{ error.UnexpectedExtension, good ++ "Sec-WebSocket-Extensions: permessage-deflate\r\n" },
        .{ error.UnexpectedExtension, good ++ "sec-websocket-extensions:\r\n" },
        .{ error.UnexpectedSubprotocol, good ++ "Sec-WebSocket-Protocol: xml\r\n" },
        .{ error.UnexpectedSubprotocol, good ++ "Sec-WebSocket-Protocol: JSON\r\n" },
        .{ error.UnexpectedSubprotocol, good ++ "Sec-WebSocket-Protocol:\r\n" },
        .{ error.UnexpectedSubprotocol, good ++ "Sec-WebSocket-Protocol: json, text\r\n" },
        .{
            error.SeveralSubprotocols,
            good ++ "Sec-WebSocket-Protocol: json\r\nSec-WebSocket-Protocol: json\r\n",
        },
    };
    for (cases) |case| {
        const expected, const fields = case;
        errdefer std.debug.print("fields: {s}\n", .{fields});
        const result = testCheck("1.1", fields, &.{ "json", "text" });
        try std.testing.expectError(expected, result);
        try std.testing.expect(describe(expected).len > 0);
    }
    try std.testing.expectError(error.UpgradeInHttp10, testCheck("1.0", good, &.{}));

    // Nothing was offered: nothing may be chosen.
    const chosen = good ++ "Sec-WebSocket-Protocol: json\r\n";
    try std.testing.expectError(error.UnexpectedSubprotocol, testCheck("1.1", chosen, &.{}));
}

test "handshake: compression is offered, and agreed on or left" {
    const url = try http.Url.parse("ws://a");
    const options: RequestOptions = .{
        .url = &url,
        .key = &test_key,
        .compression = .{ .server_max_window_bits = 10 },
    };
    var target: [512]u8 = undefined;
    const request = target[0..try writeRequest(&target, options)];
    try std.testing.expect(std.mem.find(u8, request, "\r\nSec-WebSocket-Extensions: " ++
        "permessage-deflate; client_max_window_bits; server_max_window_bits=10\r\n") != null);

    const good = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" ++
        "Sec-WebSocket-Accept: " ++ test_accept ++ "\r\n";
    var searched: usize = 0;
    const without = (try http.response.parseHead(good ++ "\r\n", &searched)).?;
    try std.testing.expectEqual(null, (try checkResponse(&without, options)).compression);

    const line = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n";
    searched = 0;
    const with = (try http.response.parseHead(good ++ line ++ "\r\n", &searched)).?;
    const agreement = (try checkResponse(&with, options)).compression.?;
    try std.testing.expectEqual(9, agreement.server_max_window_bits);

    const errors = [_]permessage_deflate.ResponseError{
        error.MalformedExtension,
        error.RepeatedExtension,
        error.InvalidExtensionParameter,
    };
    for (errors) |err| try std.testing.expect(describe(err).len > 0);
}

test "handshake: no other accept value is taken, wherever one byte differs" {
    for (0..test_accept.len) |place| {
        for (0..256) |code| {
            const byte: u8 = @intCast(code);
            if (!http.isToken(&.{byte})) continue;
            var fields = ("Upgrade: websocket\r\nConnection: Upgrade\r\n" ++
                "Sec-WebSocket-Accept: " ++ test_accept ++ "\r\n").*;
            fields[fields.len - 2 - test_accept.len + place] = byte;
            const result = testCheck("1.1", &fields, &.{});
            if (byte == test_accept[place]) {
                try std.testing.expectEqual(null, try result);
            } else {
                try std.testing.expectError(error.WrongAccept, result);
            }
        }
    }
}

test "handshake: a mutated answer is taken only with all that the RFC asks for" {
    const seed = "Upgrade: websocket\r\nConnection: a, Upgrade\r\nSec-WebSocket-Accept: " ++
        test_accept ++ "\r\nSec-WebSocket-Protocol: json\r\n";
    const alphabet = "\r\n :,\tabUWSsp-A\x00\xff";
    var prng: std.Random.DefaultPrng = .init(0x68616e64);
    const random = prng.random();
    var taken_count: usize = 0;
    for (0..50_000) |_| {
        var fields = seed.*;
        for (0..random.uintAtMost(usize, 3)) |_| {
            const replacement = alphabet[random.uintLessThan(usize, alphabet.len)];
            fields[random.uintLessThan(usize, fields.len)] = replacement;
        }
        const chosen = testCheck("1.1", &fields, &.{ "json", "j" }) catch continue;
        taken_count += 1;

        // No change of a few bytes gives another valid form of the required headers.
        var lower: [seed.len]u8 = undefined;
        _ = std.ascii.lowerString(&lower, &fields);
        try std.testing.expect(std.mem.find(u8, &fields, test_accept) != null);
        try std.testing.expect(std.mem.find(u8, &lower, "websocket\r\n") != null);
        try std.testing.expect(std.mem.find(u8, &lower, "upgrade") != null);
        if (chosen) |subprotocol| {
            try std.testing.expect(std.mem.find(u8, &fields, subprotocol) != null);
        }
    }
    try std.testing.expect(taken_count > 1_000);
}

/// Checks the 101 answer made of the parts; `error.NotAHead` when it is no head at all.
fn testCheck(
    version: []const u8,
    fields: []const u8,
    offered: []const []const u8,
) !?[]const u8 {
    var buffer: [512]u8 = undefined;
    var writer: Writer = .fixed(&buffer);
    writer.print("HTTP/{s} 101 Switching Protocols\r\n{s}\r\n", .{ version, fields }) catch
        return error.NotAHead;
    var searched: usize = 0;
    const result = http.response.parseHead(writer.buffered(), &searched) catch
        return error.NotAHead;
    const head = result orelse return error.NotAHead;
    const url = http.Url.parse("ws://a") catch unreachable;
    const agreement = try checkResponse(&head, .{
        .url = &url,
        .key = &test_key,
        .subprotocols = offered,
    });
    try std.testing.expectEqual(null, agreement.compression);
    return agreement.subprotocol;
}
