//! Splits a fuzzer's input into the bytes under test and the choices of a target.
//!
//!     | payload: bytes of a peer or a user         | choices: 0 to 31 bytes | their number |
//!
//! The payload stands at the front, so that a seed can be read, and a fuzzer can change it, without
//! the choices. These are used one after the other and then again from the first: wherever a target
//! has to decide something (how many bytes arrive next, whether to send now), it asks for one.

const std = @import("std");

const choices_max = 31;

/// Borrows from the bytes it was made of.
pub const Input = struct {
    payload: []const u8,
    choices: []const u8,
    choices_used: usize = 0,
    /// Bytes that `random` has given.
    draws: usize = 0,

    pub fn init(bytes: []const u8) Input {
        if (bytes.len == 0) return .{ .payload = "", .choices = "" };
        const rest = bytes[0 .. bytes.len - 1];
        const choices_size = @min(bytes[rest.len] & choices_max, rest.len);
        const payload_size = rest.len - choices_size;
        return .{ .payload = rest[0..payload_size], .choices = rest[payload_size..] };
    }

    /// Takes the first byte off the payload; 0 when there is none.
    pub fn takeByte(input: *Input) u8 {
        if (input.payload.len == 0) return 0;
        defer input.payload = input.payload[1..];
        return input.payload[0];
    }

    /// Takes the first bytes off the payload: `size`, or as many as there are.
    pub fn take(input: *Input, size: usize) []const u8 {
        const taken = input.payload[0..@min(size, input.payload.len)];
        input.payload = input.payload[taken.len..];
        return taken;
    }

    /// The next choice; 0 for an input without any.
    pub fn choose(input: *Input) u8 {
        if (input.choices.len == 0) return 0;
        defer input.choices_used += 1;
        return input.choices[input.choices_used % input.choices.len];
    }

    pub fn chooseBool(input: *Input) bool {
        return input.choose() & 1 == 1;
    }

    /// How many of so many bytes arrive next: at least one, and all for an input without choices.
    pub fn choosePieceSize(input: *Input, size_left: usize) usize {
        std.debug.assert(size_left > 0);
        if (input.choices.len == 0) return size_left;
        const choice: usize = input.choose();
        const size = switch (choice >> 6) {
            0 => 1,
            1 => 1 + choice % 64,
            2 => 64 * (1 + choice % 64),
            else => size_left,
        };
        return @min(size, size_left);
    }

    /// A `std.Random` for code that decides by booleans. (Numbers with other bounds are drawn until
    /// one fits, which repeated choices may never do.) Booleans do not stay the same forever.
    pub fn random(input: *Input) std.Random {
        return .init(input, fill);
    }

    fn fill(input: *Input, buffer: []u8) void {
        for (buffer) |*byte| {
            byte.* = input.choose() ^ @as(u8, if (input.draws / 8 % 2 == 1) 0xff else 0);
            input.draws += 1;
        }
    }
};

test "fuzz input: payload and choices" {
    const expectEqualStrings = std.testing.expectEqualStrings;
    var input: Input = .init("hello\x01\x80\x02");
    try expectEqualStrings("hello", input.payload);
    for ([_]u8{ 1, 0x80, 1 }) |choice| try std.testing.expectEqual(choice, input.choose());
    try std.testing.expectEqual(64, input.choosePieceSize(100));
    try std.testing.expectEqual('h', input.takeByte());
    try expectEqualStrings("ello", input.take(9));
    try std.testing.expectEqual(0, input.takeByte());

    for ([_][]const u8{ "", "\x00", "\x1f" }) |bytes| {
        var empty: Input = .init(bytes);
        try expectEqualStrings("", empty.payload);
        try std.testing.expectEqual(0, empty.choose());
        try std.testing.expectEqual(7, empty.choosePieceSize(7));
    }
    const all_choices: Input = .init("ab\xff");
    try expectEqualStrings("ab", all_choices.choices);
}
