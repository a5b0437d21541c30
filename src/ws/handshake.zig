//! The opening handshake of a WebSocket client: the upgrade request, and whether the server's
//! answer to it opens a WebSocket connection (RFC 6455, section 4.1).
//!
//! The answer is checked to the letter. Its accept value proves that the server has read this key:
//! neither a cache nor a server of another protocol can have sent it. What was not offered (an
//! extension, another subprotocol) must not be chosen. The random bytes of the key come from the
//! caller, and the status is judged by the caller too: other answers than 101 have a body and a
//! meaning of their own.

const std = @import("std");
const constants = @import("../constants.zig");
const http = @import("../http.zig");
const permessage_deflate = @import("permessage_deflate.zig");

const assert = std.debug.assert;
const Writer = std.Io.Writer;
const base64 = std.base64.standard;

/// The value of Sec-WebSocket-Key: 16 random bytes in base64.
pub const Key = [base64.Encoder.calcSize(key_random_size)]u8;

/// The value of Sec-WebSocket-Accept: a SHA-1 digest in base64.
pub const Accept = [base64.Encoder.calcSize(std.crypto.hash.Sha1.digest_length)]u8;

/// How many random bytes are in a key.
pub const key_random_size = 16;

/// Why the upgrade request cannot be written.
pub const RequestError = http.request.WriteError || error{
    InvalidSubprotocol,
    RepeatedSubprotocol,
};

/// Why the server's 101 answer opens no WebSocket connection.
pub const ResponseError = error{
    UpgradeInHttp10,
    MissingUpgrade,
    MissingConnection,
    MissingAccept,
    RepeatedAccept,
    WrongAccept,
    UnexpectedSubprotocol,
    SeveralSubprotocols,
} || permessage_deflate.ResponseError;

/// Everything that can be wrong with a handshake.
pub const Error = RequestError || ResponseError;

/// An upgrade request. Everything is borrowed for the call only.
pub const RequestOptions = struct {
    url: *const http.Url,
    key: *const Key,
    /// Sent in this order after our own. Host and User-Agent take the place of ours; headers that
    /// belong to the handshake, or announce a body, are refused.
    headers: []const http.Header = &.{},
    /// Offered in this order of preference: different tokens. None: the header is left out.
    subprotocols: []const []const u8 = &.{},
    /// Null: the header is left out.
    compression: ?permessage_deflate.Offer = null,
};

/// What the two sides have agreed on, beyond the protocol itself.
pub const Agreement = struct {
    /// The slice of what was offered.
    subprotocol: ?[]const u8,
    compression: ?permessage_deflate.Agreement,
};

/// The key that these random bytes make. A key is used once (RFC 6455, section 4.1, item 7).
pub fn keyFrom(random: *const [key_random_size]u8) Key {
    var key: Key = undefined;
    const encoded = base64.Encoder.encode(&key, random);
    assert(encoded.len == key.len);
    return key;
}

/// What a server that has read `key` answers (RFC 6455, section 4.2.2, item 5.4).
pub fn acceptValue(key: *const Key) Accept {
    const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    var digest: [std.crypto.hash.Sha1.digest_length]u8 = undefined;
    std.crypto.hash.Sha1.hash(key ++ guid, &digest, .{});

    var accept: Accept = undefined;
    const encoded = base64.Encoder.encode(&accept, &digest);
    assert(encoded.len == accept.len);
    return accept;
}

/// Writes the upgrade request to the front of `target` and returns its size. After an error the
/// content of `target` is undefined.
pub fn writeRequest(target: []u8, options: RequestOptions) RequestError!usize {
    assert(options.url.scheme.isWebSocket());
    try http.request.checkHeaders(options.headers, isReserved);
    try checkSubprotocols(options.subprotocols);

    var writer: Writer = .fixed(target[0..@min(target.len, constants.request_size_max)]);
    writeAll(&writer, options) catch |err| switch (err) {
        error.WriteFailed => return error.NoSpaceLeft,
    };
    assert(writer.end <= constants.request_size_max);
    return writer.end;
}

/// Checks the answer to the request with these options, and returns what it agrees to. Asserts that
/// the status is 101.
pub fn checkResponse(head: *const http.Head, request: RequestOptions) ResponseError!Agreement {
    assert(head.status == 101);
    // The Upgrade header means nothing there (RFC 9110, section 7.8).
    if (head.version_minor == 0) return error.UpgradeInHttp10;

    try checkUpgrade(head);
    if (!head.hasToken("Connection", "upgrade")) return error.MissingConnection;
    try checkAccept(head, request.key);
    return .{
        .compression = try agreedCompression(head, request.compression),
        .subprotocol = try chosenSubprotocol(head, request.subprotocols),
    };
}

/// One plain sentence for the user.
pub fn describe(err: Error) [:0]const u8 {
    return switch (err) {
        error.InvalidHeaderName,
        error.InvalidHeaderValue,
        error.ReservedHeader,
        error.DuplicateHost,
        error.NoSpaceLeft,
        => |request_error| http.request.describe(request_error),
        error.InvalidSubprotocol => "a subprotocol is empty or holds a character that is not " ++
            "allowed in its name",
        error.RepeatedSubprotocol => "a subprotocol was given more than once",
        error.UpgradeInHttp10 => "the server's upgrade response is HTTP/1.0",
        error.MissingUpgrade => "the server's upgrade response does not say Upgrade: websocket",
        error.MissingConnection => "the server's upgrade response does not say Connection: Upgrade",
        error.MissingAccept => "the server's upgrade response has no Sec-WebSocket-Accept header",
        error.RepeatedAccept => "the server's upgrade response has more than one " ++
            "Sec-WebSocket-Accept header",
        error.WrongAccept => "the server's Sec-WebSocket-Accept does not match the key of " ++
            "the request",
        error.UnexpectedExtension => "the server chose an extension that was not offered",
        error.MalformedExtension => "the server's Sec-WebSocket-Extensions is malformed",
        error.RepeatedExtension => "the server chose permessage-deflate more than once",
        error.InvalidExtensionParameter => "the server's parameters of permessage-deflate " ++
            "do not answer those that were offered",
        error.UnexpectedSubprotocol => "the server chose a subprotocol that was not offered",
        error.SeveralSubprotocols => "the server chose more than one subprotocol",
    };
}

fn writeAll(writer: *Writer, options: RequestOptions) Writer.Error!void {
    try http.request.writeStart(writer, .get, options.url, options.headers);
    const own = [_]http.Header{
        .{ .name = "Upgrade", .value = "websocket" },
        .{ .name = "Connection", .value = "Upgrade" },
        .{ .name = "Sec-WebSocket-Key", .value = options.key },
        .{ .name = "Sec-WebSocket-Version", .value = "13" },
    };
    for (own) |header| try http.request.writeHeader(writer, header);

    for (options.subprotocols, 0..) |subprotocol, index| {
        try writer.writeAll(if (index == 0) "Sec-WebSocket-Protocol: " else ", ");
        try writer.writeAll(subprotocol);
    }
    if (options.subprotocols.len > 0) try writer.writeAll("\r\n");

    if (options.compression) |offer| {
        try writer.writeAll("Sec-WebSocket-Extensions: ");
        try permessage_deflate.writeOffer(writer, offer);
        try writer.writeAll("\r\n");
    }
    try http.request.writeHeaders(writer, options.headers);
}

/// Headers of the handshake itself, which would contradict ours, and those that announce a body,
/// which the server would take our first frames for.
fn isReserved(name: []const u8) bool {
    const prefix = "Sec-WebSocket-";
    if (std.ascii.startsWithIgnoreCase(name, prefix)) return true;
    const names = [_][]const u8{ "Upgrade", "Connection", "Content-Length", "Transfer-Encoding" };
    for (names) |reserved| {
        if (std.ascii.eqlIgnoreCase(name, reserved)) return true;
    }
    return false;
}

/// RFC 6455, section 4.1, item 10: tokens, each once.
fn checkSubprotocols(subprotocols: []const []const u8) RequestError!void {
    for (subprotocols, 0..) |subprotocol, index| {
        if (!http.isToken(subprotocol)) return error.InvalidSubprotocol;
        for (subprotocols[0..index]) |other| {
            if (std.mem.eql(u8, subprotocol, other)) return error.RepeatedSubprotocol;
        }
    }
}

/// "websocket", and nothing else: a second protocol in the list would be one more layer, that we do
/// not speak (RFC 9110, section 7.8).
fn checkUpgrade(head: *const http.Head) ResponseError!void {
    var found = false;
    var values = head.headersNamed("Upgrade");
    while (values.next()) |value| {
        var elements: http.ListIterator = .init(value);
        while (elements.next()) |element| {
            if (!std.ascii.eqlIgnoreCase(element, "websocket")) return error.MissingUpgrade;
            found = true;
        }
    }
    if (!found) return error.MissingUpgrade;
}

/// One header, whose trimmed value is the accept value to the letter: base64 has capitals.
fn checkAccept(head: *const http.Head, key: *const Key) ResponseError!void {
    const count = head.headerCount("Sec-WebSocket-Accept");
    if (count == 0) return error.MissingAccept;
    if (count > 1) return error.RepeatedAccept;

    const expected = acceptValue(key);
    const value = head.header("Sec-WebSocket-Accept").?;
    if (!std.mem.eql(u8, value, &expected)) return error.WrongAccept;
}

fn agreedCompression(
    head: *const http.Head,
    offered: ?permessage_deflate.Offer,
) ResponseError!?permessage_deflate.Agreement {
    if (offered) |offer| return permessage_deflate.parseResponse(head, offer);
    if (head.headerCount("Sec-WebSocket-Extensions") > 0) return error.UnexpectedExtension;
    return null;
}

/// At most one header, whose trimmed value is one of those offered, to the letter.
fn chosenSubprotocol(
    head: *const http.Head,
    offered: []const []const u8,
) ResponseError!?[]const u8 {
    const count = head.headerCount("Sec-WebSocket-Protocol");
    if (count == 0) return null;
    if (count > 1) return error.SeveralSubprotocols;

    const value = head.header("Sec-WebSocket-Protocol").?;
    for (offered) |subprotocol| {
        if (std.mem.eql(u8, value, subprotocol)) return subprotocol;
    }
    return error.UnexpectedSubprotocol;
}

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

test "handshake: every target that is too small is told" {
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
            // The caller's own text: it outlives the received bytes.
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

        // No mutation of a few bytes makes another spelling of what must be there.
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

/// Checks the 101 answer that the parts make; `error.NotAHead` when they make no head at all.
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
