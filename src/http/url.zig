//! Parses the URL of a client: `ws`, `wss`, `http` or `https`.
//!
//! See RFC 3986, of which a client needs a part, and RFC 6455, section 3.
//!
//! What cannot be used is refused here, with the cause, so that a parsed host can be resolved and a
//! parsed target can be written on the request line without a further check (neither holds a space
//! or a control character). Nothing is decoded, normalised or copied: the caller does the percent
//! encoding of the target, and every part is a slice of the text.

const std = @import("std");
const assert = std.debug.assert;
const Writer = std.Io.Writer;

/// RFC 1035, section 2.3.4: 255 octets on the wire are 253 characters of text.
pub const host_size_max = 253;

pub const label_size_max = 63;

/// Why a text is not a URL that can be connected to.
pub const ParseError = error{
    MissingScheme,
    UnknownScheme,
    MissingHost,
    InvalidHost,
    InvalidPort,
    UserInfoNotSupported,
    FragmentNotAllowed,
    InvalidCharacter,
};

/// What the URL is for, and whether TLS is under it.
pub const Scheme = enum {
    ws,
    wss,
    http,
    https,

    /// RFC 6455, section 3; RFC 9110, sections 4.2.1 and 4.2.2.
    pub fn defaultPort(scheme: Scheme) u16 {
        return switch (scheme) {
            .ws, .http => 80,
            .wss, .https => 443,
        };
    }

    /// True when the connection runs over TLS.
    pub fn isSecure(scheme: Scheme) bool {
        return switch (scheme) {
            .wss, .https => true,
            .ws, .http => false,
        };
    }

    /// True when the connection is upgraded to the WebSocket protocol.
    pub fn isWebSocket(scheme: Scheme) bool {
        return switch (scheme) {
            .ws, .wss => true,
            .http, .https => false,
        };
    }
};

/// A parsed URL. Every slice borrows from the text that was parsed.
pub const Url = struct {
    scheme: Scheme,
    /// A name, an IPv4 address, or an IPv6 address without its brackets. Never empty.
    host: []const u8,
    host_is_ipv6: bool,
    /// The port in the text, else the default of the scheme. Never 0.
    port: u16,
    /// True when the text names the port, even if it is the default.
    explicit_port: bool,
    /// Path and query, unchanged: "", "/path", "/path?query" or "?query", no fragment.
    /// `writeTarget` adds the "/" that the request line needs.
    target: []const u8,

    /// Cuts `text` into its parts. Linear in its length; allocates and resolves nothing.
    pub fn parse(text: []const u8) ParseError!Url {
        for (text) |byte| {
            // These would end the request line or the Host header early. RFC 3986 excludes more
            // (such as `|`), which servers accept and users paste: those are passed on unchanged.
            if (byte <= ' ' or byte >= 0x7f) return error.InvalidCharacter;
        }
        const scheme, const hierarchy = try parseScheme(text);
        const authority_end = std.mem.findAny(u8, hierarchy, "/?#") orelse hierarchy.len;
        const authority = try parseAuthority(hierarchy[0..authority_end]);

        var target = hierarchy[authority_end..];
        if (std.mem.findScalar(u8, target, '#')) |fragment_start| {
            // RFC 6455, section 3. For HTTP a fragment is never sent (RFC 9110, section 4.2.5).
            if (scheme.isWebSocket()) return error.FragmentNotAllowed;
            target = target[0..fragment_start];
        }
        assert(target.len == 0 or target[0] == '/' or target[0] == '?');
        assert(authority.host.len > 0);
        assert(authority.host.len <= host_size_max);

        return .{
            .scheme = scheme,
            .host = authority.host,
            .host_is_ipv6 = authority.host_is_ipv6,
            .port = authority.port orelse scheme.defaultPort(),
            .explicit_port = authority.port != null,
            .target = target,
        };
    }

    /// Writes the value of the Host header: the host, an IPv6 address in brackets, and the port
    /// unless it is the default of the scheme (RFC 9110, section 7.2; RFC 6455, section 4.1).
    pub fn writeHost(url: *const Url, writer: *Writer) Writer.Error!void {
        assert(url.host.len > 0);
        if (url.host_is_ipv6) try writer.writeByte('[');
        try writer.writeAll(url.host);
        if (url.host_is_ipv6) try writer.writeByte(']');
        if (url.port != url.scheme.defaultPort()) try writer.print(":{d}", .{url.port});
    }

    /// Writes the URL as it may be shown to people: see `Shown`.
    pub fn writeShown(url: *const Url, writer: *Writer) Writer.Error!void {
        try writer.print("{t}://", .{url.scheme});
        try url.writeHost(writer);
        const shown: Shown = .{
            .before_user_info = "",
            .has_user_info = false,
            .rest = url.target,
        };
        try shown.format(writer);
    }

    /// Writes the origin form for the request line (RFC 9112, section 3.2.1): path and query, with
    /// the "/" that an empty path stands for.
    pub fn writeTarget(url: *const Url, writer: *Writer) Writer.Error!void {
        if (url.target.len == 0 or url.target[0] != '/') try writer.writeByte('/');
        try writer.writeAll(url.target);
    }
};

/// A URL as it may be shown to people: without the name and the password in its authority (RFC
/// 3986, section 3.2.1), and without what looks like a key in its path or query. Takes any text,
/// because malformed ones are shown as well.
pub const Shown = struct {
    before_user_info: []const u8,
    has_user_info: bool,
    rest: []const u8,

    pub fn init(text: []const u8) Shown {
        const start = if (std.mem.find(u8, text, "//")) |slashes| slashes + 2 else 0;
        const size = std.mem.findAny(u8, text[start..], "/?#") orelse text.len - start;
        // The last "@": a password that is not percent encoded may hold others.
        const at = std.mem.findScalarLast(u8, text[start..][0..size], '@') orelse {
            return .{ .before_user_info = "", .has_user_info = false, .rest = text };
        };
        return .{
            .before_user_info = text[0..start],
            .has_user_info = true,
            .rest = text[start + at ..],
        };
    }

    pub fn format(shown: Shown, writer: *Writer) Writer.Error!void {
        try writer.writeAll(shown.before_user_info);
        if (shown.has_user_info) try writer.writeAll(redacted);
        const query = std.mem.findScalar(u8, shown.rest, '?') orelse shown.rest.len;
        var path = std.mem.splitScalar(u8, shown.rest[0..query], '/');
        while (path.next()) |segment| {
            try writer.writeAll(if (looksSecret(segment)) redacted else segment);
            if (path.peek() != null) try writer.writeByte('/');
        }
        if (query == shown.rest.len) return;
        try writer.writeByte('?');
        var pairs = std.mem.splitScalar(u8, shown.rest[query + 1 ..], '&');
        while (pairs.next()) |pair| {
            try writePair(writer, pair);
            if (pairs.peek() != null) try writer.writeByte('&');
        }
    }

    const redacted = "***";

    /// Keys of exchanges have 32 characters and more; names of streams have other characters
    /// between their words.
    const secret_size_min = 28;

    fn writePair(writer: *Writer, pair: []const u8) Writer.Error!void {
        const equals = std.mem.findScalar(u8, pair, '=') orelse {
            return writer.writeAll(if (looksSecret(pair)) redacted else pair);
        };
        const value = pair[equals + 1 ..];
        const is_secret = value.len > 0 and (isSecretName(pair[0..equals]) or looksSecret(value));
        try writer.writeAll(pair[0 .. equals + 1]);
        try writer.writeAll(if (is_secret) redacted else value);
    }

    /// Whether it has a long run of letters and digits, mixed.
    fn looksSecret(text: []const u8) bool {
        var letters: usize = 0;
        var digits: usize = 0;
        for (text) |byte| {
            switch (byte) {
                'a'...'z', 'A'...'Z' => letters += 1,
                '0'...'9' => digits += 1,
                else => {
                    letters = 0;
                    digits = 0;
                },
            }
            if (letters > 0 and digits > 0 and letters + digits >= secret_size_min) return true;
        }
        return false;
    }

    fn isSecretName(name: []const u8) bool {
        for ([_][]const u8{ "key", "sign", "sig", "pass", "pwd", "code", "jwt" }) |word| {
            if (std.ascii.eqlIgnoreCase(name, word)) return true;
        }
        const words = [_][]const u8{
            "token",     "secret",     "signature",  "password",  "passphrase", "auth",
            "session",   "api-key",    "api_key",    "apikey",    "access-key", "access_key",
            "accesskey", "listen-key", "listen_key", "listenkey", "credential",
        };
        for (words) |word| {
            if (std.ascii.findIgnoreCase(name, word) != null) return true;
        }
        return false;
    }
};

/// One plain sentence for the user.
pub fn describe(err: ParseError) [:0]const u8 {
    return switch (err) {
        error.MissingScheme => "the URL does not start with ws://, wss://, http:// or https://",
        error.UnknownScheme => "the URL's scheme is not ws, wss, http or https",
        error.MissingHost => "the URL names no host",
        error.InvalidHost => "the URL's host is not a valid name, IPv4 address or " ++
            "IPv6 address in brackets",
        error.InvalidPort => "the URL's port is not a number from 1 to 65535",
        error.UserInfoNotSupported => "the URL holds a user name or password: " ++
            "send credentials in a header such as Authorization",
        error.FragmentNotAllowed => "a WebSocket URL must not have a fragment: " ++
            "write a literal # as %23",
        error.InvalidCharacter => "the URL holds a space, a control character or a character " ++
            "outside ASCII: percent-encode it, and write a host name in its xn-- form",
    };
}

/// Scheme, and what follows its "://" (RFC 3986, section 3.1).
fn parseScheme(text: []const u8) ParseError!struct { Scheme, []const u8 } {
    const name, const hierarchy = std.mem.cut(u8, text, "://") orelse return error.MissingScheme;

    // In "host/?next=http://x" the first "://" does not end a scheme.
    if (name.len == 0) return error.MissingScheme;
    if (!std.ascii.isAlphabetic(name[0])) return error.MissingScheme;
    for (name) |byte| {
        switch (byte) {
            'a'...'z', 'A'...'Z', '0'...'9', '+', '-', '.' => {},
            else => return error.MissingScheme,
        }
    }
    for (std.enums.values(Scheme)) |scheme| {
        if (std.ascii.eqlIgnoreCase(name, @tagName(scheme))) return .{ scheme, hierarchy };
    }
    return error.UnknownScheme;
}

const Authority = struct {
    host: []const u8,
    host_is_ipv6: bool,
    port: ?u16,
};

/// Host and port (RFC 3986, section 3.2).
fn parseAuthority(text: []const u8) ParseError!Authority {
    if (text.len == 0) return error.MissingHost;
    if (std.mem.findScalar(u8, text, '@') != null) return error.UserInfoNotSupported;

    if (text[0] == '[') {
        const end = std.mem.findScalar(u8, text, ']') orelse return error.InvalidHost;
        const host = text[1..end];
        // A zone ("%eth0") means nothing outside this machine and may not be in a Host header.
        if (!isIpv6(host)) return error.InvalidHost;

        const port_text = text[end + 1 ..];
        if (port_text.len == 0) return .{ .host = host, .host_is_ipv6 = true, .port = null };
        if (port_text[0] != ':') return error.InvalidHost;
        const port = try parsePort(port_text[1..]);
        return .{ .host = host, .host_is_ipv6 = true, .port = port };
    }

    const host, const port_text = std.mem.cutScalar(u8, text, ':') orelse .{ text, null };
    if (port_text) |digits| {
        // More than one colon: an IPv6 address without brackets, whose last group is no port.
        if (std.mem.findScalar(u8, digits, ':') != null) return error.InvalidHost;
    }
    if (host.len == 0) return error.MissingHost;
    if (!isName(host) and !isIpv4(host)) return error.InvalidHost;
    const port = if (port_text) |digits| try parsePort(digits) else null;
    return .{ .host = host, .host_is_ipv6 = false, .port = port };
}

/// 1 to 65535 in one to five digits. `std.fmt.parseInt` would take signs and underscores.
fn parsePort(text: []const u8) ParseError!u16 {
    if (text.len == 0) return error.InvalidPort;
    if (text.len > 5) return error.InvalidPort;

    var port: u32 = 0;
    for (text) |byte| {
        if (!std.ascii.isDigit(byte)) return error.InvalidPort;
        port = port * 10 + (byte - '0');
    }
    if (port == 0) return error.InvalidPort;
    if (port > std.math.maxInt(u16)) return error.InvalidPort;
    return @intCast(port);
}

/// A name to resolve: labels of letters, digits, hyphens and underscores (which DNS allows and some
/// hosts have), with an optional dot at the end. A last label that looks like a number is refused:
/// resolvers read "127.1", "0x7f.1" and "2130706433" as addresses, by different rules.
pub fn isName(text: []const u8) bool {
    if (text.len > host_size_max) return false;

    const relative = std.mem.cutSuffix(u8, text, ".") orelse text;
    var label: []const u8 = "";
    var labels = std.mem.splitScalar(u8, relative, '.');
    while (labels.next()) |next_label| {
        label = next_label;
        if (label.len == 0) return false;
        if (label.len > label_size_max) return false;
        for (label) |byte| {
            switch (byte) {
                'a'...'z', 'A'...'Z', '0'...'9', '-', '_' => {},
                else => return false,
            }
        }
    }
    return !isNumeric(label);
}

/// True when a resolver could take the label as a number: all digits, or hexadecimal after "0x".
fn isNumeric(label: []const u8) bool {
    assert(label.len > 0);
    const prefixed = label.len >= 2 and label[0] == '0' and (label[1] == 'x' or label[1] == 'X');
    for (label[if (prefixed) 2 else 0..]) |byte| {
        if (prefixed and !std.ascii.isHex(byte)) return false;
        if (!prefixed and !std.ascii.isDigit(byte)) return false;
    }
    return true;
}

/// IPv4address of RFC 3986, section 3.2.2: four numbers to 255, without leading zeros (which some
/// resolvers read as octal).
pub fn isIpv4(text: []const u8) bool {
    var count: usize = 0;
    var numbers = std.mem.splitScalar(u8, text, '.');
    while (numbers.next()) |number| {
        count += 1;
        if (count > 4) return false;
        if (number.len == 0) return false;
        if (number.len > 3) return false;
        if (number.len > 1 and number[0] == '0') return false;

        var value: u32 = 0;
        for (number) |byte| {
            if (!std.ascii.isDigit(byte)) return false;
            value = value * 10 + (byte - '0');
        }
        if (value > 255) return false;
    }
    return count == 4;
}

/// IPv6address of RFC 3986, section 3.2.2: eight groups, or fewer and one "::"; the last two may be
/// written as an IPv4 address.
pub fn isIpv6(text: []const u8) bool {
    var group_count: usize = 0;
    var compressed = false;
    var rest = text;
    if (std.mem.cutPrefix(u8, rest, "::")) |after| {
        compressed = true;
        rest = after;
        if (rest.len == 0) return true;
    }
    while (group_count < 8) {
        const end = std.mem.findScalar(u8, rest, ':') orelse rest.len;
        const group = rest[0..end];
        if (end == rest.len and isIpv4(group)) {
            group_count += 2;
            break;
        }
        if (group.len == 0) return false;
        if (group.len > 4) return false;
        for (group) |byte| {
            if (!std.ascii.isHex(byte)) return false;
        }
        group_count += 1;
        if (end == rest.len) break;

        rest = rest[end + 1 ..];
        if (std.mem.cutPrefix(u8, rest, ":")) |after| {
            if (compressed) return false;
            compressed = true;
            rest = after;
            if (rest.len == 0) break;
        }
    } else return false; // A ninth group begins here.

    return if (compressed) group_count <= 7 else group_count == 8;
}
