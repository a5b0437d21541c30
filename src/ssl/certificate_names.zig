//! Reads which hosts a certificate is for: an exception about a wrong one names them.

const std = @import("std");
const libssl = @import("libssl.zig");
const Writer = std.Io.Writer;

const subject_alt_name = 85; // NID_subject_alt_name
const sequence_tag = 0x30;
/// The choices of GeneralName (RFC 5280, section 4.2.1.6) that name hosts.
const dns_tag = 0x82;
const address_tag = 0x87;

/// The names and addresses of a certificate as a text, or as many as have room.
pub const CertificateNames = struct {
    buffer: [200]u8 = @splat(0),
    size: u8 = 0,

    pub fn of(api: *const libssl.Api, certificate: *const libssl.Certificate) CertificateNames {
        var names: CertificateNames = .{};
        const place = api.X509_get_ext_by_NID(certificate, subject_alt_name, -1);
        if (place < 0) return names;
        const extension = api.X509_get_ext(certificate, place) orelse return names;
        const value = api.X509_EXTENSION_get_data(extension) orelse return names;
        const size: usize = @intCast(@max(api.ASN1_STRING_length(value), 0));
        names.read(api.ASN1_STRING_get0_data(value)[0..size]);
        return names;
    }

    pub fn text(names: *const CertificateNames) []const u8 {
        return names.buffer[0..names.size];
    }

    /// Reads the DER of a subjectAltName.
    fn read(names: *CertificateNames, der: []const u8) void {
        const end = ", ...";
        var writer: Writer = .fixed(names.buffer[0 .. names.buffer.len - end.len]);
        const sequence = Element.first(der) orelse return;
        var rest = if (sequence.tag == sequence_tag) sequence.content else return;
        while (Element.first(rest)) |element| : (rest = rest[element.size..]) {
            const before = writer.end;
            writeName(&writer, element) catch {
                writer.end = before;
                @memcpy(names.buffer[before..][0..end.len], end);
                names.size = @intCast(before + end.len);
                return;
            };
        }
        names.size = @intCast(writer.end);
    }

    fn writeName(writer: *Writer, element: Element) Writer.Error!void {
        const content = element.content;
        const is_address = element.tag == address_tag and (content.len == 4 or content.len == 16);
        if (element.tag != dns_tag and !is_address) return;
        if (writer.end > 0) try writer.writeAll(", ");
        if (!is_address) {
            for (content) |byte| try writer.writeByte(if (std.ascii.isPrint(byte)) byte else '?');
        } else if (content.len == 4) {
            const b = content[0..4];
            try writer.print("{d}.{d}.{d}.{d}", .{ b[0], b[1], b[2], b[3] });
        } else for (0..8) |index| {
            if (index > 0) try writer.writeByte(':');
            try writer.print("{x}", .{std.mem.readInt(u16, content[2 * index ..][0..2], .big)});
        }
    }
};

/// One element of DER, whose tag is one byte.
const Element = struct {
    tag: u8,
    content: []const u8,
    /// With tag and length.
    size: usize,

    /// Null at the end, and where it is malformed.
    fn first(der: []const u8) ?Element {
        if (der.len < 2) return null;
        const short = der[1] < 0x80;
        const length_size: usize = if (short) 0 else der[1] & 0x7f;
        if (length_size > 4 or der.len < 2 + length_size) return null;
        var length: usize = if (short) der[1] else 0;
        for (der[2..][0..length_size]) |byte| length = length << 8 | byte;
        const start = 2 + length_size;
        if (length > der.len - start) return null;
        return .{ .tag = der[0], .content = der[start..][0..length], .size = start + length };
    }
};

const testing = std.testing;

fn expectNames(expected: []const u8, der: []const u8) !void {
    var names: CertificateNames = .{};
    names.read(der);
    try testing.expectEqualStrings(expected, names.text());
}

test "certificate names: names and addresses, and nothing else" {
    try expectNames("a.b, 10.0.0.1, 2001:db8:0:0:0:0:0:1", "\x30\x20\x82\x03a.b" ++
        "\x86\x01x" ++ "\x87\x04\x0a\x00\x00\x01" ++
        "\x87\x10\x20\x01\x0d\xb8" ++ @as([11]u8, @splat(0)) ++ "\x01");
    try expectNames("a?b", "\x30\x05\x82\x03a\x00b");
    try expectNames("", "\x30\x00");
}

test "certificate names: what is cut off or malformed is left out, without reading past the end" {
    const whole = "\x30\x81\x0a\x82\x03a.b\x82\x03c.d";
    for (0..whole.len) |size| try expectNames("", whole[0..size]);
    try expectNames("a.b, c.d", whole);
    try expectNames("a.b", "\x30\x0a\x82\x03a.b\x82\x7fc.d");
    try expectNames("", "\x30\x85\xff\xff\xff\xff\xff");
}

test "certificate names: more than there is room for" {
    const many: [20][12]u8 = @splat("\x82\x0a0123456789".*);
    const der = "\x30\x81\xf0" ++ @as([240]u8, @bitCast(many));
    var names: CertificateNames = .{};
    names.read(der);
    try testing.expect(std.mem.endsWith(u8, names.text(), "0123456789, ..."));
}
