//! Negotiates permessage-deflate (RFC 7692).
//!
//! It compresses WebSocket messages. The client offers it once, in the upgrade request, and the
//! server accepts it with parameters of its own, or ignores it. What it may answer depends on the
//! offer. The answer is checked strictly, because both sides have to agree on every bit of what
//! follows.

const std = @import("std");
const http = @import("../http.zig");

const assert = std.debug.assert;
const Writer = std.Io.Writer;

/// The token of the extension.
pub const name = "permessage-deflate";

/// RFC 7692, section 7.1.2: the base-2 logarithm of the size of the LZ77 window.
pub const window_bits_min = 8;
pub const window_bits_max = 15;

/// What the client asks for. RFC 7692, section 7.1.
pub const Offer = struct {
    /// The server has to forget its window after each message.
    server_no_context_takeover: bool = false,
    /// The client will forget its own; a hint, so that the server need not keep one.
    client_no_context_takeover: bool = false,
    /// The server may use a window no larger than this.
    server_max_window_bits: ?u8 = null,
    /// The client will use a window no larger than this; a hint, so that the server need not keep a
    /// larger one. Null: the server decides.
    client_max_window_bits: ?u8 = null,

    pub fn invariants(offer: *const Offer) void {
        for ([_]?u8{ offer.server_max_window_bits, offer.client_max_window_bits }) |bits| {
            assert(isWindow(bits orelse continue));
        }
    }
};

/// The parameters that both sides have agreed on.
pub const Agreement = struct {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: u8,
    client_max_window_bits: u8,
};

/// Why the server's answer does not fit the offer.
pub const ResponseError = error{
    MalformedExtension,
    UnexpectedExtension,
    RepeatedExtension,
    InvalidExtensionParameter,
};

/// Writes the value of the request's Sec-WebSocket-Extensions.
pub fn writeOffer(writer: *Writer, offer: Offer) Writer.Error!void {
    offer.invariants();
    try writer.writeAll(name);
    // Without it, the server may not limit the client's window (RFC 7692, section 7.1.2.2).
    try writer.writeAll("; client_max_window_bits");
    if (offer.client_max_window_bits) |bits| try writer.print("={d}", .{bits});
    if (offer.server_max_window_bits) |bits| {
        try writer.print("; server_max_window_bits={d}", .{bits});
    }
    if (offer.server_no_context_takeover) try writer.writeAll("; server_no_context_takeover");
    if (offer.client_no_context_takeover) try writer.writeAll("; client_no_context_takeover");
}

/// What the head of the server's answer agrees to; null when the server ignored the offer.
pub fn parseResponse(head: *const http.Head, offer: Offer) ResponseError!?Agreement {
    offer.invariants();
    var agreement: ?Agreement = null;
    var values = head.headersNamed("Sec-WebSocket-Extensions");
    while (values.next()) |value| {
        var extensions: http.ListIterator = .init(value);
        while (extensions.next()) |extension| {
            const accepted = try Parameters.parse(extension);
            if (agreement != null) return error.RepeatedExtension;
            agreement = try accepted.agree(&offer);
        }
    }
    return agreement;
}

/// The parameters of a response, before they are compared with the offer.
const Parameters = struct {
    server_no_context_takeover: bool = false,
    client_no_context_takeover: bool = false,
    server_max_window_bits: ?u8 = null,
    client_max_window_bits: ?u8 = null,

    /// RFC 6455, section 9.1: a token, and parameters behind semicolons.
    fn parse(extension: []const u8) ResponseError!Parameters {
        var parts = std.mem.splitScalar(u8, extension, ';');
        const token = http.trim(parts.first());
        if (!http.isToken(token)) return error.MalformedExtension;
        if (!std.mem.eql(u8, token, name)) return error.UnexpectedExtension;

        var parameters: Parameters = .{};
        while (parts.next()) |part| {
            const key, const value = std.mem.cutScalar(u8, part, '=') orelse .{ part, null };
            try parameters.set(http.trim(key), if (value) |text| http.trim(text) else null);
        }
        return parameters;
    }

    /// RFC 7692, section 7.1: unknown, repeated or invalid parameters fail the negotiation.
    fn set(parameters: *Parameters, key: []const u8, value: ?[]const u8) ResponseError!void {
        if (!http.isToken(key)) return error.MalformedExtension;
        inline for (.{ "server_no_context_takeover", "client_no_context_takeover" }) |flag| {
            if (std.mem.eql(u8, key, flag)) {
                if (value != null) return error.InvalidExtensionParameter;
                if (@field(parameters, flag)) return error.InvalidExtensionParameter;
                @field(parameters, flag) = true;
                return;
            }
        }
        inline for (.{ "server_max_window_bits", "client_max_window_bits" }) |bits| {
            if (std.mem.eql(u8, key, bits)) {
                if (@field(parameters, bits) != null) return error.InvalidExtensionParameter;
                @field(parameters, bits) = try parseWindow(value);
                return;
            }
        }
        return error.InvalidExtensionParameter;
    }

    fn agree(parameters: *const Parameters, offer: *const Offer) ResponseError!Agreement {
        // A server that accepts a parameter for itself has to repeat it (sections 7.1.1.1 and
        // 7.1.2.1).
        if (offer.server_no_context_takeover and !parameters.server_no_context_takeover) {
            return error.InvalidExtensionParameter;
        }
        const server_bits_max = offer.server_max_window_bits orelse window_bits_max;
        if (offer.server_max_window_bits != null and parameters.server_max_window_bits == null) {
            return error.InvalidExtensionParameter;
        }
        const server_bits = parameters.server_max_window_bits orelse window_bits_max;
        if (server_bits > server_bits_max) return error.InvalidExtensionParameter;

        // For the client's window the offer is only a hint (section 7.1.2.2): a server may allow a
        // larger one. The smaller of the two is used.
        const client_bits = @min(
            offer.client_max_window_bits orelse window_bits_max,
            parameters.client_max_window_bits orelse window_bits_max,
        );
        return .{
            .server_no_context_takeover = parameters.server_no_context_takeover,
            .client_no_context_takeover = parameters.client_no_context_takeover or
                offer.client_no_context_takeover,
            .server_max_window_bits = server_bits,
            .client_max_window_bits = client_bits,
        };
    }
};

/// A decimal number without leading zeroes (section 7.1.2), perhaps in quotes (RFC 6455, section
/// 9.1).
fn parseWindow(value: ?[]const u8) ResponseError!u8 {
    const text = value orelse return error.InvalidExtensionParameter;
    const quoted = text.len >= 2 and text[0] == '"' and text[text.len - 1] == '"';
    const digits = if (quoted) text[1 .. text.len - 1] else text;
    for (window_bits_min..window_bits_max + 1) |bits| {
        var buffer: [2]u8 = undefined;
        const expected = std.fmt.bufPrint(&buffer, "{d}", .{bits}) catch unreachable;
        if (std.mem.eql(u8, digits, expected)) return @intCast(bits);
    }
    return error.InvalidExtensionParameter;
}

pub fn isWindow(bits: u8) bool {
    return window_bits_min <= bits and bits <= window_bits_max;
}
