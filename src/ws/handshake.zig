//! Writes the upgrade request, and checks the server's response to it.
//!
//! This is the client's part of the opening handshake (RFC 6455, section 4.1).
//!
//! The answer is checked strictly. Its accept value proves that the server has read this key:
//! neither a cache nor a server of another protocol can have sent it. What was not offered (an
//! extension, another subprotocol) must not be chosen. The caller provides the random bytes of the
//! key, and checks the status: answers other than 101 have a body and mean something else.

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
    /// Sent in this order, after the client's own headers. Host and User-Agent replace those;
    /// headers that belong to the handshake, or announce a body, are refused.
    headers: []const http.Header = &.{},
    /// Offered in this order of preference: different tokens. None: the header is left out.
    subprotocols: []const []const u8 = &.{},
    /// Null: the header is left out.
    compression: ?permessage_deflate.Offer = null,
};

/// What the two sides have agreed on, beyond the protocol itself.
pub const Agreement = struct {
    /// One of the slices that were offered.
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

/// Headers of the handshake itself, which would contradict the client's, and those that announce a
/// body: the server would read the client's first frames as that.
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

/// "websocket", and nothing else: a second protocol in the list would be one more layer, which this
/// client does not speak (RFC 9110, section 7.8).
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

/// Exactly one header, whose trimmed value is the accept value. Case matters in base64.
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

/// At most one header, whose trimmed value is exactly one of those offered.
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
