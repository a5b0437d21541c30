//! Writes a request: the request line and headers, into the caller's buffer.
//!
//! See RFC 9112, section 3. Requests of this client have no body.
//!
//! Everything is checked before the first byte is written, and nothing that could start a second
//! request passes: the target comes from a parsed `Url`, names are tokens, values hold no line
//! ends, and headers that would announce a body are refused.

const std = @import("std");
const constants = @import("../constants.zig");
const header_module = @import("header.zig");
const url_module = @import("url.zig");

const assert = std.debug.assert;
const Header = header_module.Header;
const Url = url_module.Url;
const Writer = std.Io.Writer;

/// The methods without a body.
pub const Method = enum {
    get,
    head,

    /// The name on the request line.
    pub fn name(method: Method) []const u8 {
        return switch (method) {
            .get => "GET",
            .head => "HEAD",
        };
    }
};

/// Why the caller's headers cannot be sent.
pub const HeadersError = header_module.InvalidHeaderError || error{ ReservedHeader, DuplicateHost };

/// Why a request cannot be written.
pub const WriteError = HeadersError || error{NoSpaceLeft};

/// A request. Everything is borrowed for the call only.
pub const Options = struct {
    method: Method = .get,
    url: *const Url,
    /// Sent in this order, after the client's own headers. Host, User-Agent, Accept,
    /// Accept-Encoding and Connection replace those.
    headers: []const Header = &.{},
};

/// Writes a whole request to the front of `target` and returns its size. After an error the content
/// of `target` is undefined. Unless the caller's headers say otherwise, the server is asked to
/// close the connection afterwards, so that a body without a length ends too.
pub fn write(target: []u8, options: Options) WriteError!usize {
    try checkHeaders(options.headers, isReserved);

    var writer: Writer = .fixed(target[0..@min(target.len, constants.request_size_max)]);
    writeAll(&writer, options) catch |err| switch (err) {
        error.WriteFailed => return error.NoSpaceLeft,
    };
    assert(writer.end <= constants.request_size_max);
    return writer.end;
}

/// One plain sentence for the user.
pub fn describe(err: WriteError) [:0]const u8 {
    return switch (err) {
        error.InvalidHeaderName => "a header's name is empty or holds a character that is not " ++
            "allowed in a name",
        error.InvalidHeaderValue => "a header's value holds a line end or another control " ++
            "character",
        error.ReservedHeader => "a header was given that the client sets itself",
        error.DuplicateHost => "the Host header was given more than once",
        error.NoSpaceLeft => "the request is larger than the client sends",
    };
}

/// Checks every header of the caller before anything is written. `reserved` tells by name which the
/// caller may not set.
pub fn checkHeaders(
    headers: []const Header,
    reserved: *const fn (name: []const u8) bool,
) HeadersError!void {
    var host_count: usize = 0;
    for (headers) |header| {
        try header_module.validateHeader(header);
        if (reserved(header.name)) return error.ReservedHeader;
        if (std.ascii.eqlIgnoreCase(header.name, "Host")) host_count += 1;
    }
    // A server must refuse two Hosts (RFC 9112, section 3.2), and proxies may pick either.
    if (host_count > 1) return error.DuplicateHost;
}

/// Writes the request line, Host first among the headers (RFC 9110, section 7.2), and User-Agent;
/// the latter two from `headers` if they are in it. Called before `writeHeaders`.
pub fn writeStart(
    writer: *Writer,
    method: Method,
    url: *const Url,
    headers: []const Header,
) Writer.Error!void {
    try writer.writeAll(method.name());
    try writer.writeByte(' ');
    try url.writeTarget(writer);
    try writer.writeAll(" HTTP/1.1\r\n");

    if (find(headers, "Host")) |host| {
        try writeHeader(writer, .{ .name = "Host", .value = host });
    } else {
        try writer.writeAll("Host: ");
        try url.writeHost(writer);
        try writer.writeAll("\r\n");
    }
    if (find(headers, "User-Agent") == null) {
        try writeHeader(writer, .{ .name = "User-Agent", .value = "hftws/" ++ constants.version });
    }
}

/// Writes the caller's headers except Host, which `writeStart` has written, and the blank line.
/// `headers` have passed `checkHeaders`.
pub fn writeHeaders(writer: *Writer, headers: []const Header) Writer.Error!void {
    for (headers) |header| {
        if (std.ascii.eqlIgnoreCase(header.name, "Host")) continue;
        try writeHeader(writer, header);
    }
    try writer.writeAll("\r\n");
}

/// Writes one header line.
pub fn writeHeader(writer: *Writer, header: Header) Writer.Error!void {
    assert(header.name.len > 0);
    try writer.writeAll(header.name);
    try writer.writeAll(": ");
    try writer.writeAll(header.value);
    try writer.writeAll("\r\n");
}

fn writeAll(writer: *Writer, options: Options) Writer.Error!void {
    try writeStart(writer, options.method, options.url, options.headers);
    if (find(options.headers, "Accept") == null) {
        try writeHeader(writer, .{ .name = "Accept", .value = "*/*" });
    }
    if (find(options.headers, "Accept-Encoding") == null) {
        // Without it, the server may use any coding (RFC 9110, section 12.5.3), and none is
        // decoded.
        try writeHeader(writer, .{ .name = "Accept-Encoding", .value = "identity" });
    }
    if (find(options.headers, "Connection") == null) {
        try writeHeader(writer, .{ .name = "Connection", .value = "close" });
    }
    try writeHeaders(writer, options.headers);
}

/// Headers that announce a body, which these requests do not have (the server would wait for it, or
/// read the next request as the body), or another protocol, which this client does not speak.
fn isReserved(name: []const u8) bool {
    const names = [_][]const u8{ "Content-Length", "Transfer-Encoding", "Upgrade" };
    for (names) |reserved| {
        if (std.ascii.eqlIgnoreCase(name, reserved)) return true;
    }
    return false;
}

/// The value of the first header of that name.
fn find(headers: []const Header, name: []const u8) ?[]const u8 {
    for (headers) |header| {
        if (std.ascii.eqlIgnoreCase(header.name, name)) return header.value;
    }
    return null;
}
