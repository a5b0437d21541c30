//! UTF-8 (RFC 3629) checked as it arrives, for RFC 6455, section 8.1.
//!
//! A state machine over bytes that rejects at the first byte which no valid text can have there,
//! also in the middle of a sequence. Its whole state is one number, so that text may arrive in any
//! pieces. A step is a load and a shift: `transitions[byte]` holds the next state for every state,
//! side by side, and a state is the position of its own bits in there. Runs of ASCII, which is most
//! of what markets send, are skipped a few vectors at a time.

const std = @import("std");
const assert = std.debug.assert;

/// Checks text that arrives in pieces. Starts as `.{}`.
pub const Validator = struct {
    state: State = .accept,

    /// Checks the next bytes. Once it fails, it always fails.
    pub fn update(validator: *Validator, bytes: []const u8) error{InvalidUtf8}!void {
        validator.state = advance(validator.state, bytes);
        if (validator.state == .reject) return error.InvalidUtf8;
    }

    /// The text ends here: fails in the middle of a sequence, or if `update` has failed.
    pub fn finish(validator: *const Validator) error{InvalidUtf8}!void {
        if (validator.state != .accept) return error.InvalidUtf8;
    }
};

/// Whether the bytes as a whole are valid UTF-8.
pub fn validate(bytes: []const u8) bool {
    return advance(.accept, bytes) == .accept;
}

/// What may come next. The value is the bit at which an entry of `transitions` has the state after
/// this one. `reject` is zero, so that whatever is not in the table is rejected.
const State = enum(u6) {
    reject = 0 * state_bits,
    accept = 1 * state_bits,
    /// So many continuation bytes of any value have to follow.
    one_more = 2 * state_bits,
    two_more = 3 * state_bits,
    three_more = 4 * state_bits,
    /// After E0: no overlong form. After ED: no surrogate.
    after_e0 = 5 * state_bits,
    after_ed = 6 * state_bits,
    /// After F0: no overlong form. After F4: nothing beyond U+10FFFF.
    after_f0 = 7 * state_bits,
    after_f4 = 8 * state_bits,
    _,
};

const state_bits = 6;

comptime {
    assert(@backingInt(State.after_f4) + state_bits <= 64);
}

/// Blocks that are not all ASCII are checked byte by byte; a run of blocks is skipped at once.
pub const block_size = 32;
pub const run_size = 4 * block_size;

/// The state after the bytes. `reject` never changes, so it need not be looked for at every byte.
fn advance(state_before: State, bytes: []const u8) State {
    var state = state_before;
    var rest = bytes;
    while (rest.len >= block_size) : (rest = rest[block_size..]) {
        if (state == .accept) {
            while (rest.len >= run_size and isAscii(run_size, rest[0..run_size])) {
                rest = rest[run_size..];
            }
            if (rest.len < block_size) break;
            if (isAscii(block_size, rest[0..block_size])) continue;
        }
        for (rest[0..block_size]) |byte| state = step(state, byte);
        if (state == .reject) return .reject;
    }
    if (state == .accept and bytes.len >= block_size) {
        // The last vector may overlap what was checked already: that costs less than single steps.
        if (isAscii(block_size, bytes[bytes.len - block_size ..][0..block_size])) return .accept;
    } else if (state == .accept) {
        if (isAsciiShort(bytes)) return .accept;
    }
    for (rest) |byte| state = step(state, byte);
    return state;
}

inline fn step(state: State, byte: u8) State {
    return @fromBackingInt(@as(u6, @truncate(transitions[byte] >> @backingInt(state))));
}

/// Whether no byte has its highest bit set. ORs all into one vector of the machine's width first,
/// because testing the bits of a vector costs more than an OR.
inline fn isAscii(comptime size: usize, bytes: *const [size]u8) bool {
    const lanes = @min(size, std.simd.suggestVectorLength(u8) orelse 16);
    var collected: @Vector(lanes, u8) = bytes[0..lanes].*;
    inline for (1..size / lanes) |index| {
        const part: @Vector(lanes, u8) = bytes[index * lanes ..][0..lanes].*;
        collected |= part;
    }
    const signs: @Vector(lanes, i8) = @bitCast(collected);
    const negative: @Int(.unsigned, lanes) = @bitCast(signs < @as(@Vector(lanes, i8), @splat(0)));
    return negative == 0;
}

/// For less than a block: two halves that may overlap. May return false for very few bytes.
inline fn isAsciiShort(bytes: []const u8) bool {
    assert(bytes.len < block_size);
    inline for (.{ 16, 8 }) |size| {
        if (bytes.len >= size) {
            return isAscii(size, bytes[0..size]) and
                isAscii(size, bytes[bytes.len - size ..][0..size]);
        }
    }
    return bytes.len == 0;
}

/// RFC 3629, section 4, as a table.
const transitions: [256]u64 = table: {
    @setEvalBranchQuota(10_000);
    var table: [256]u64 = @splat(0);
    const rules = [_]struct { State, u8, u8, State }{
        .{ .accept, 0x00, 0x7f, .accept },
        .{ .accept, 0xc2, 0xdf, .one_more },
        .{ .accept, 0xe0, 0xe0, .after_e0 },
        .{ .accept, 0xe1, 0xec, .two_more },
        .{ .accept, 0xed, 0xed, .after_ed },
        .{ .accept, 0xee, 0xef, .two_more },
        .{ .accept, 0xf0, 0xf0, .after_f0 },
        .{ .accept, 0xf1, 0xf3, .three_more },
        .{ .accept, 0xf4, 0xf4, .after_f4 },
        .{ .one_more, 0x80, 0xbf, .accept },
        .{ .two_more, 0x80, 0xbf, .one_more },
        .{ .three_more, 0x80, 0xbf, .two_more },
        .{ .after_e0, 0xa0, 0xbf, .one_more },
        .{ .after_ed, 0x80, 0x9f, .one_more },
        .{ .after_f0, 0x90, 0xbf, .two_more },
        .{ .after_f4, 0x80, 0x8f, .two_more },
    };
    for (rules) |rule| {
        const state, const byte_min, const byte_max, const state_next = rule;
        for (byte_min..@as(usize, byte_max) + 1) |byte| {
            table[byte] |= @as(u64, @backingInt(state_next)) << @backingInt(state);
        }
    }
    break :table table;
};
