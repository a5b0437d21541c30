//! Writes a client's frames at their final place.
//!
//! They are always masked, and have the shortest length form. RFC 6455, sections 5.1 to 5.3.
//! Stateless: the caller keeps the rules of which frame may follow which. Nothing is written beyond
//! the size that is returned.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("../constants.zig");
const frame = @import("frame.zig");
const mask = @import("mask.zig");

const Opcode = frame.Opcode;

/// The content of a client's frame header.
pub const HeaderInfo = struct {
    opcode: Opcode,
    fin: bool,
    /// The message is compressed: RSV1 (RFC 7692, section 6).
    compressed: bool = false,
    payload_size: usize,
    mask_key: [4]u8,
};

/// Bytes in front of a payload of this size: 2, 4 or 10 for the length, and 4 for the mask.
pub fn headerSize(payload_size: usize) usize {
    const size: usize = switch (payload_size) {
        0...125 => 2,
        126...std.math.maxInt(u16) => 4,
        else => 10,
    };
    return size + 4;
}

/// Writes the header to the front of `target` and returns its size. Asserts that it fits, and
/// that a control frame is short and whole (RFC 6455, section 5.5).
pub fn writeHeader(target: []u8, info: HeaderInfo) usize {
    const size = headerSize(info.payload_size);
    assert(target.len >= size);
    assert(size <= constants.frame_header_size_max);
    if (info.opcode.isControl()) {
        assert(info.fin);
        assert(!info.compressed);
        assert(info.payload_size <= constants.control_payload_size_max);
    }
    const length: frame.Length = switch (size) {
        2 + 4 => @fromBackingInt(@as(u7, @intCast(info.payload_size))),
        4 + 4 => .extended_16,
        else => .extended_64,
    };
    const header: frame.Header = .{
        .opcode = info.opcode,
        .reserved = if (info.compressed) frame.reserved_1 else 0,
        .fin = info.fin,
        .length = length,
        .masked = true,
    };
    target[0..2].* = header.encode();
    switch (length) {
        .extended_16 => std.mem.writeInt(u16, target[2..4], @intCast(info.payload_size), .big),
        .extended_64 => std.mem.writeInt(u64, target[2..10], info.payload_size, .big),
        _ => {},
    }
    target[size - 4 ..][0..4].* = info.mask_key;
    return size;
}

/// Writes a whole final frame, header and masked copy of `payload`, to the front of `target` and
/// returns its size. Asserts that it fits. `payload` must not overlap `target`.
pub fn writeFrame(target: []u8, opcode: Opcode, payload: []const u8, key: [4]u8) usize {
    const header_size = writeHeader(target, .{
        .opcode = opcode,
        .fin = true,
        .payload_size = payload.len,
        .mask_key = key,
    });
    assert(target.len - header_size >= payload.len);
    mask.copy(target[header_size..], payload, key);
    return header_size + payload.len;
}

const testing = std.testing;

test "builder: the masked example of RFC 6455, section 5.7" {
    var target: [12]u8 = @splat(0xa5);
    const size = writeFrame(&target, .text, "Hello", .{ 0x37, 0xfa, 0x21, 0x3d });
    const expected = "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    try testing.expectEqualSlices(u8, expected, target[0..size]);
    try testing.expectEqual(0xa5, target[size]);
}

test "builder: the length has its shortest form on both sides of each border" {
    const key: [4]u8 = .{ 1, 2, 3, 4 };
    const cases = [_]struct { payload_size: usize, header: []const u8 }{
        .{ .payload_size = 0, .header = "\x02\x80\x01\x02\x03\x04" },
        .{ .payload_size = 125, .header = "\x02\xfd\x01\x02\x03\x04" },
        .{ .payload_size = 126, .header = "\x02\xfe\x00\x7e\x01\x02\x03\x04" },
        .{ .payload_size = 65_535, .header = "\x02\xfe\xff\xff\x01\x02\x03\x04" },
        .{
            .payload_size = 65_536,
            .header = "\x02\xff\x00\x00\x00\x00\x00\x01\x00\x00\x01\x02\x03\x04",
        },
        .{
            .payload_size = 0x0102_0304_0506,
            .header = "\x02\xff\x00\x00\x01\x02\x03\x04\x05\x06\x01\x02\x03\x04",
        },
    };
    for (cases) |case| {
        // Exactly enough room: a byte more would fail the bounds check.
        var buffer: [constants.frame_header_size_max]u8 = undefined;
        const target = buffer[0..headerSize(case.payload_size)];
        const size = writeHeader(target, .{
            .opcode = .binary,
            .fin = false,
            .payload_size = case.payload_size,
            .mask_key = key,
        });
        try testing.expectEqual(target.len, size);
        try testing.expectEqualSlices(u8, case.header, target[0..size]);
    }
}

test "builder: every opcode and fin bit end up in the first byte" {
    const opcodes = [_]Opcode{ .continuation, .text, .binary, .close, .ping, .pong };
    const first_bytes = [_]u8{ 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a };
    for (opcodes, first_bytes) |opcode, first_byte| {
        var target: [8]u8 = undefined;
        try testing.expectEqual(8, writeFrame(&target, opcode, "ab", @splat(0)));
        try testing.expectEqual(first_byte, target[0]);
        try testing.expectEqualSlices(u8, "\x82\x00\x00\x00\x00ab", target[1..]);
    }
}

test "builder: a frame unmasks to its payload at many sizes" {
    const gpa = testing.allocator;
    var prng: std.Random.DefaultPrng = .init(7);
    const payload = try gpa.alloc(u8, 70_000);
    defer gpa.free(payload);
    prng.random().bytes(payload);
    const target = try gpa.alloc(u8, payload.len + constants.frame_header_size_max);
    defer gpa.free(target);
    for ([_]usize{ 0, 1, 31, 125, 126, 127, 4096, 65_535, 65_536, 70_000 }) |payload_size| {
        var key: [4]u8 = undefined;
        prng.random().bytes(&key);
        const size = writeFrame(target, .binary, payload[0..payload_size], key);
        try testing.expectEqual(headerSize(payload_size) + payload_size, size);
        const masked = target[headerSize(payload_size)..size];
        try testing.expectEqualSlices(u8, &key, target[headerSize(payload_size) - 4 ..][0..4]);
        mask.apply(masked, key);
        try testing.expectEqualSlices(u8, payload[0..payload_size], masked);
    }
}
