//! Tests of `utf8.zig` against the definition, and against `std.unicode`.

const std = @import("std");
const utf8 = @import("utf8.zig");
const Validator = utf8.Validator;
const validate = utf8.validate;
const block_size = utf8.block_size;
const run_size = utf8.run_size;

const testing = std.testing;

/// The bytes at which the ranges of RFC 3629 begin and end, and their neighbours.
const border_bytes = [_]u8{
    0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2,
    0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5,
    0xff,
};

/// How many of the bytes a valid text can begin with: by definition, trying every continuation.
fn viableSize(bytes: []const u8) usize {
    var offset: usize = 0;
    while (offset < bytes.len) {
        const size = std.unicode.utf8ByteSequenceLength(bytes[offset]) catch return offset;
        const there = @min(size, bytes.len - offset);
        for (1..there + 1) |prefix_size| {
            if (!canBeCompleted(bytes[offset..][0..prefix_size], size)) {
                return offset + prefix_size - 1;
            }
        }
        offset += there;
    }
    return offset;
}

fn canBeCompleted(prefix: []const u8, size: usize) bool {
    if (prefix.len == size) return std.unicode.utf8ValidateSlice(prefix);
    var longer: [4]u8 = undefined;
    @memcpy(longer[0..prefix.len], prefix);
    for ([_]u8{ 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf }) |byte| {
        longer[prefix.len] = byte;
        if (canBeCompleted(longer[0 .. prefix.len + 1], size)) return true;
    }
    return false;
}

/// How many bytes `Validator` takes when it gets them one by one.
fn acceptedSize(bytes: []const u8) usize {
    var validator: Validator = .{};
    for (0..bytes.len) |index| validator.update(bytes[index..][0..1]) catch return index;
    return bytes.len;
}

test "utf8: every sequence of border bytes is rejected at its first bad byte" {
    for (border_bytes) |first| for (border_bytes) |second| {
        for (border_bytes) |third| for (border_bytes) |fourth| {
            const bytes: [4]u8 = .{ first, second, third, fourth };
            errdefer std.debug.print("bytes {x}\n", .{&bytes});
            try testing.expectEqual(viableSize(&bytes), acceptedSize(&bytes));
            for (1..5) |size| {
                const valid = std.unicode.utf8ValidateSlice(bytes[0..size]);
                try testing.expectEqual(valid, validate(bytes[0..size]));
            }
        };
    };
}

test "utf8: every code point is valid, every surrogate is not" {
    var code_point: u21 = 0;
    while (code_point <= 0x10ffff) : (code_point += 1) {
        var bytes: [4]u8 = undefined;
        const size = std.unicode.wtf8Encode(code_point, &bytes) catch unreachable;
        const surrogate = code_point >= 0xd800 and code_point <= 0xdfff;
        try testing.expectEqual(!surrogate, validate(bytes[0..size]));
        if (size > 1) try testing.expect(!validate(bytes[0 .. size - 1]));
    }
}

test "utf8: one odd byte or sequence is found at every place of texts of every size" {
    const cases = [_][]const u8{ "\x80", "\xff", "\xc3", "\xe2\x82", "\xed\xa0\x80", "\xc3\xa9" };
    var text: [100]u8 = undefined;
    for (cases) |case| {
        const valid = std.unicode.utf8ValidateSlice(case);
        for (0..text.len + 1) |size| {
            @memset(&text, 'a');
            try testing.expect(validate(text[0..size]));
            if (size < case.len) continue;
            for (0..size - case.len + 1) |place| {
                @memset(&text, 'a');
                @memcpy(text[place..][0..case.len], case);
                try testing.expectEqual(valid, validate(text[0..size]));
            }
        }
    }
}

test "utf8: a sequence that ASCII of any size cuts off is found, also when it would go on behind" {
    for ([_][]const u8{ "\xc3", "\xe2\x82", "\xf0\x9f\x98" }) |beginning| {
        for (1..2 * run_size + block_size) |size| {
            var text: [3 * run_size]u8 = @splat('a');
            for (0..block_size) |place| {
                const whole = text[0 .. place + beginning.len + size + 1];
                @memset(whole, 'a');
                @memcpy(whole[place..][0..beginning.len], beginning);
                whole[whole.len - 1] = 0x80;
                try testing.expect(!validate(whole));
            }
            @memset(&text, 'a');
            var validator: Validator = .{};
            try validator.update(beginning);
            try testing.expectError(error.InvalidUtf8, validator.update(text[0..size]));
        }
    }
}

test "utf8: pieces of any size are judged as the whole" {
    var prng: std.Random.DefaultPrng = .init(3629);
    const random = prng.random();
    for (0..2_000) |_| {
        var text: [200]u8 = undefined;
        const size = randomText(random, &text);
        if (size > 0 and random.boolean()) text[random.uintLessThan(usize, size)] = random.int(u8);
        const viable_size = viableSize(text[0..size]);

        var validator: Validator = .{};
        var offset: usize = 0;
        while (offset < size) {
            const piece_size = random.uintAtMost(usize, @min(size - offset, 70));
            const piece = text[offset..][0..piece_size];
            offset += piece_size;
            if (validator.update(piece)) |_| {
                try testing.expect(offset <= viable_size);
            } else |err| {
                try testing.expectEqual(error.InvalidUtf8, err);
                try testing.expect(offset > viable_size);
            }
        }
        const whole = std.unicode.utf8ValidateSlice(text[0..size]);
        try testing.expectEqual(whole, if (validator.finish()) |_| true else |_| false);
        try testing.expectEqual(whole, validate(text[0..size]));
    }
}

/// Runs of ASCII and of other characters; returns the size.
fn randomText(random: std.Random, target: []u8) usize {
    var size: usize = 0;
    const size_max = random.uintAtMost(usize, target.len);
    while (size + 4 <= size_max) {
        const ascii = random.boolean();
        for (0..random.uintLessThan(usize, if (ascii) 50 else 8)) |_| {
            if (size + 4 > size_max) break;
            const code_point: u21 = if (ascii) random.uintLessThan(u21, 0x80) else other: {
                const value = random.uintAtMost(u21, 0x10ffff);
                break :other if (value >= 0xd800 and value <= 0xdfff) 0x20ac else value;
            };
            size += std.unicode.utf8Encode(code_point, target[size..]) catch unreachable;
        }
    }
    return size;
}

test "utf8: a failed validator stays failed" {
    var validator: Validator = .{};
    try testing.expectError(error.InvalidUtf8, validator.update("\xff"));
    try testing.expectError(error.InvalidUtf8, validator.update("plain"));
    try testing.expectError(error.InvalidUtf8, validator.update(""));
    try testing.expectError(error.InvalidUtf8, validator.finish());
}
