//! Masks the payload of a client (RFC 6455, section 5.3).
//!
//! Byte `i` is XORed with `key[i % 4]`. A mask is its own inverse, and a key of zeros leaves the
//! payload as it is. One pass over the bytes in vectors, so that masking while the payload is
//! copied costs next to nothing. The caller provides the keys.

const std = @import("std");
const assert = std.debug.assert;

const block_size = 32;

/// Masks the payload in place.
pub fn apply(payload: []u8, key: [4]u8) void {
    xor(payload.ptr, payload.ptr, payload.len, key);
}

/// Copies `source` to the front of `target` and masks it on the way. They must not overlap, and
/// `target` must have room for `source`.
pub fn copy(target: []u8, source: []const u8, key: [4]u8) void {
    assert(target.len >= source.len);
    xor(target.ptr, source.ptr, source.len, key);
}

/// `target` and `source` are the same place or do not overlap. Every byte is read once, and
/// before its place is written: no step may overlap another, since the second XOR would undo the
/// first.
inline fn xor(target: [*]u8, source: [*]const u8, size: usize, key: [4]u8) void {
    var offset: usize = 0;
    while (size - offset >= block_size) : (offset += block_size) {
        xorPart(block_size, target[offset..], source[offset..], key);
    }
    // Ever smaller vectors for the rest. Each step begins at a multiple of four bytes, where the
    // key starts again.
    inline for (.{ 16, 8, 4 }) |part_size| {
        if (size - offset >= part_size) {
            xorPart(part_size, target[offset..], source[offset..], key);
            offset += part_size;
        }
    }
    const size_left = size - offset;
    assert(size_left < 4);
    if (size_left > 0) target[offset] = source[offset] ^ key[0];
    if (size_left > 1) target[offset + 1] = source[offset + 1] ^ key[1];
    if (size_left > 2) target[offset + 2] = source[offset + 2] ^ key[2];
}

inline fn xorPart(
    comptime part_size: usize,
    target: [*]u8,
    source: [*]const u8,
    key: [4]u8,
) void {
    const pattern: @Vector(part_size, u8) = @bitCast(@as([part_size / 4][4]u8, @splat(key)));
    const part: @Vector(part_size, u8) = source[0..part_size].*;
    target[0..part_size].* = part ^ pattern;
}

const testing = std.testing;

/// The definition in RFC 6455, section 5.3, word for word.
fn applyByDefinition(payload: []u8, key: [4]u8) void {
    for (payload, 0..) |*byte, index| byte.* ^= key[index % 4];
}

const test_size_max = 300;

test "mask: copy and apply do as the definition says, at every size and alignment" {
    var prng: std.Random.DefaultPrng = .init(6455);
    var source: [test_size_max + block_size]u8 = undefined;
    prng.random().bytes(&source);
    const keys = [_][4]u8{ @splat(0), @splat(0xff), .{ 0x37, 0xfa, 0x21, 0x3d }, .{ 0, 0, 0, 1 } };
    for (keys) |key| {
        for (0..test_size_max + 1) |size| {
            const shift = size % block_size;
            const plain = source[shift..][0..size];
            var expected: [test_size_max]u8 = undefined;
            @memcpy(expected[0..size], plain);
            applyByDefinition(expected[0..size], key);

            var target: [test_size_max + 2]u8 = @splat(0xa5);
            copy(target[1..], plain, key);
            try testing.expectEqualSlices(u8, expected[0..size], target[1..][0..size]);
            try testing.expectEqual(0xa5, target[0]);
            try testing.expectEqual(0xa5, target[1 + size]);

            apply(target[1..][0..size], key);
            try testing.expectEqualSlices(u8, plain, target[1..][0..size]);
            try testing.expectEqual(0xa5, target[0]);
            try testing.expectEqual(0xa5, target[1 + size]);
        }
    }
}

test "mask: the example of RFC 6455, section 5.7" {
    var payload = "Hello".*;
    apply(&payload, .{ 0x37, 0xfa, 0x21, 0x3d });
    try testing.expectEqualSlices(u8, &.{ 0x7f, 0x9f, 0x4d, 0x51, 0x58 }, &payload);
}
