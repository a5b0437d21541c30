//! The vocabulary of RFC 6455, section 5.2: what the bits of a frame mean.
//!
//! Only names, and rules that need no state. `parser.zig` reads frames, `builder.zig` writes them.

const std = @import("std");

/// What a frame carries. RFC 6455, section 5.2; the unnamed values are reserved.
pub const Opcode = enum(u4) {
    continuation = 0x0,
    text = 0x1,
    binary = 0x2,
    close = 0x8,
    ping = 0x9,
    pong = 0xa,
    _,

    /// Control frames may come between the fragments of a message. RFC 6455, section 5.5.
    /// True for the reserved control opcodes too.
    pub fn isControl(opcode: Opcode) bool {
        return @backingInt(opcode) & 0x8 != 0;
    }
};

/// The seven bits of length, in which the two largest values announce a longer form.
pub const Length = enum(u7) {
    extended_16 = 126,
    extended_64 = 127,
    _,
};

/// The two bytes that every frame begins with; fields from the lowest bit of the first byte up.
/// RFC 6455, section 5.2.
pub const Header = packed struct(u16) {
    opcode: Opcode,
    reserved: u3 = 0,
    fin: bool,
    length: Length,
    masked: bool,

    /// Reads the two bytes in the order of the wire.
    pub fn decode(bytes: [2]u8) Header {
        return @bitCast(std.mem.readInt(u16, &bytes, .little));
    }

    /// The two bytes in the order of the wire.
    pub fn encode(header: Header) [2]u8 {
        var bytes: [2]u8 = undefined;
        std.mem.writeInt(u16, &bytes, @bitCast(header), .little);
        return bytes;
    }
};

/// RSV1 among the reserved bits: with permessage-deflate, a compressed message (RFC 7692, section
/// 6).
pub const reserved_1: u3 = 0b100;

/// Why a connection was closed. RFC 6455, section 7.4.1, and the IANA registry of close codes.
pub const CloseCode = enum(u16) {
    normal = 1000,
    going_away = 1001,
    protocol_error = 1002,
    unsupported_data = 1003,
    /// Never in a frame: stands for a close frame without a code.
    no_status = 1005,
    /// Never in a frame: stands for a connection that ended without a close frame.
    abnormal = 1006,
    invalid_payload = 1007,
    policy_violation = 1008,
    message_too_big = 1009,
    mandatory_extension = 1010,
    internal_error = 1011,
    service_restart = 1012,
    try_again_later = 1013,
    bad_gateway = 1014,
    /// Never in a frame: stands for a failed TLS handshake.
    tls_handshake = 1015,
    _,

    /// Whether a close frame may have the code, from either side. RFC 6455, section 7.4:
    /// the registered ones, and 3000 to 4999 for libraries and applications.
    pub fn isAllowedInFrame(code: u16) bool {
        return switch (code) {
            1000...1003, 1007...1014, 3000...4999 => true,
            else => false,
        };
    }
};

const testing = std.testing;

test "frame: the header decodes and encodes in wire order" {
    const final_text = Header.decode(.{ 0x81, 0x7e });
    try testing.expect(final_text.fin);
    try testing.expectEqual(0, final_text.reserved);
    try testing.expectEqual(Opcode.text, final_text.opcode);
    try testing.expect(!final_text.masked);
    try testing.expectEqual(Length.extended_16, final_text.length);

    const odd = Header.decode(.{ 0x2f, 0x83 });
    try testing.expect(!odd.fin);
    try testing.expectEqual(0b010, odd.reserved);
    try testing.expectEqual(0xf, @backingInt(odd.opcode));
    try testing.expect(odd.masked);
    try testing.expectEqual(3, @backingInt(odd.length));

    for (0..1 << 16) |value| {
        const bytes: [2]u8 = .{ @truncate(value), @truncate(value >> 8) };
        try testing.expectEqual(bytes, Header.decode(bytes).encode());
    }
}

test "frame: control opcodes are those with the highest bit" {
    for (0..16) |value| {
        const opcode: Opcode = @fromBackingInt(@as(u4, @intCast(value)));
        try testing.expectEqual(value >= 8, opcode.isControl());
    }
}

test "frame: every close code is allowed or not as the registry says" {
    const allowed = [_]u16{
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014,
    };
    for (0..1 << 16) |value| {
        const code: u16 = @intCast(value);
        const registered = std.mem.findScalar(u16, &allowed, code) != null;
        const private = code >= 3000 and code < 5000;
        try testing.expectEqual(registered or private, CloseCode.isAllowedInFrame(code));
    }
}
