//! The tests of `deflate.zig`: the examples of RFC 7692, section 7.2.3, round trips by seed, and
//! invalid input.

const std = @import("std");
const deflate = @import("deflate.zig");

const testing = std.testing;
const Deflater = deflate.Deflater;
const Inflater = deflate.Inflater;

/// The system's zlib; the test is skipped where there is none.
fn library() !*const deflate.zlib.Api {
    return deflate.zlib.load(&.{}) catch error.SkipZigTest;
}

/// Both ends of one direction.
const Pair = struct {
    deflater: Deflater,
    inflater: Inflater,

    const Options = struct {
        window_bits: u8 = 15,
        no_context_takeover: bool = false,
        level: u8 = 6,
    };

    fn init(pair: *Pair, options: Options) !void {
        try pair.inflater.init(try library(), .{
            .window_bits = options.window_bits,
            .no_context_takeover = options.no_context_takeover,
        });
        errdefer pair.inflater.deinit();
        try pair.deflater.init(try library(), .{
            .window_bits = options.window_bits,
            .no_context_takeover = options.no_context_takeover,
            .level = options.level,
        });
    }

    fn deinit(pair: *Pair) void {
        pair.inflater.deinit();
        pair.deflater.deinit();
    }

    /// Returns the size on the wire.
    fn expectRoundTrip(pair: *Pair, payload: []const u8) !usize {
        const gpa = testing.allocator;
        const wire = try gpa.alloc(u8, pair.deflater.bound(payload.len));
        defer gpa.free(wire);
        const size = pair.deflater.message(payload, wire).?;
        try expectInflated(&pair.inflater, payload, wire[0..size]);
        return size;
    }
};

/// Inflates a message with exactly the room that it needs.
fn expectInflated(inflater: *Inflater, expected: []const u8, wire: []const u8) !void {
    const target = try testing.allocator.alloc(u8, expected.len);
    defer testing.allocator.free(target);
    const step = try inflater.next(wire, target);
    try testing.expect(step.done);
    try testing.expectEqual(wire.len, step.input_used);
    try testing.expectEqualStrings(expected, target[0..step.output_size]);
}

fn expectInvalid(wire: []const u8) !void {
    var inflater: Inflater = undefined;
    try inflater.init(try library(), .{ .window_bits = 15, .no_context_takeover = false });
    defer inflater.deinit();
    var target: [1024]u8 = undefined;
    try testing.expectError(error.InvalidCompression, inflater.next(wire, &target));
}

test "deflate: the examples of the RFC, one after the other" {
    var inflater: Inflater = undefined;
    try inflater.init(try library(), .{ .window_bits = 15, .no_context_takeover = false });
    defer inflater.deinit();
    // 7.2.3.1: one block. 7.2.3.2: with the window of the previous message.
    try expectInflated(&inflater, "Hello", "\xf2\x48\xcd\xc9\xc9\x07\x00");
    try expectInflated(&inflater, "Hello", "\xf2\x00\x11\x00\x00");
    // 7.2.3.3: a block without compression. 7.2.3.4: a final block. 7.2.3.5: two blocks.
    try expectInflated(&inflater, "Hello", "\x00\x05\x00\xfa\xffHello\x00");
    try expectInflated(&inflater, "Hello", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00");
    try expectInflated(&inflater, "Hello", "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00");
    // The window goes on behind a final block. 7.2.3.6: a message of no bytes.
    try expectInflated(&inflater, "Hello", "\xf2\x00\x11\x00\x00");
    try expectInflated(&inflater, "", "\x00");
}

test "deflate: without context takeover, each message stands alone" {
    var inflater: Inflater = undefined;
    try inflater.init(try library(), .{ .window_bits = 15, .no_context_takeover = true });
    defer inflater.deinit();
    for (0..3) |_| try expectInflated(&inflater, "Hello", "\xf2\x48\xcd\xc9\xc9\x07\x00");
    var target: [16]u8 = undefined;
    const refers_back = inflater.next("\xf2\x00\x11\x00\x00", &target);
    try testing.expectError(error.InvalidCompression, refers_back);

    var pair: Pair = undefined;
    try pair.init(.{ .no_context_takeover = true });
    defer pair.deinit();
    const first_size = try pair.expectRoundTrip("a message that repeats itself");
    try testing.expectEqual(first_size, try pair.expectRoundTrip("a message that repeats itself"));
}

test "deflate: with context takeover, a message that was seen before costs next to nothing" {
    var pair: Pair = undefined;
    try pair.init(.{});
    defer pair.deinit();
    const message = "{\"e\":\"trade\",\"E\":123456789,\"s\":\"BNBBTC\",\"t\":12345}";
    const first_size = try pair.expectRoundTrip(message);
    try testing.expect(try pair.expectRoundTrip(message) < first_size / 3);
}

test "deflate: what no deflater makes is refused" {
    try expectInvalid("\x06"); // A block of the reserved type.
    try expectInvalid("\x00\x05\x00\xfa\xfeHello\x00"); // Sizes that contradict each other.
    try expectInvalid("\xf2\x00\x11\x00\x00"); // Back beyond the beginning.
    try expectInvalid("\x00\x05\x00\xfa\xffHel"); // The message ends within a block:
    try expectInvalid("\xf2\x48\xcd\xc9\xc9"); // of stored bytes, of symbols,
    try expectInvalid("\xf2\x48\xcd\xc9\xc9\x07"); // before the empty block,
    try expectInvalid(""); // and where there is none.
    try expectInvalid("\x05"); // A table that is cut off.
}

test "deflate: an inflater goes on however small the room is" {
    const gpa = testing.allocator;
    var pair: Pair = undefined;
    try pair.init(.{});
    defer pair.deinit();
    var payload: [5000]u8 = undefined;
    for (&payload, 0..) |*byte, index| byte.* = @truncate(index * index / 7);
    const wire = try gpa.alloc(u8, pair.deflater.bound(payload.len));
    defer gpa.free(wire);
    for ([_]usize{ 1, 2, 3, 257, 258, 259, 4999, 5000 }) |room| {
        var rest: []const u8 = wire[0..pair.deflater.message(&payload, wire).?];
        var target: [5000]u8 = undefined;
        var size: usize = 0;
        while (true) {
            const end = @min(size + room, target.len);
            const step = try pair.inflater.next(rest, target[size..end]);
            rest = rest[step.input_used..];
            size += step.output_size;
            if (step.done) break;
            try testing.expectEqual(end, size); // It stops only when there is no room.
        }
        try testing.expectEqual(0, rest.len);
        try testing.expectEqualStrings(&payload, target[0..size]);
    }
}

test "deflate: messages of all kinds come back as they were, by seed" {
    const gpa = testing.allocator;
    for (0..60) |seed| {
        errdefer std.debug.print("seed {d}\n", .{seed});
        var prng: std.Random.DefaultPrng = .init(seed);
        const random = prng.random();
        var pair: Pair = undefined;
        try pair.init(.{
            .window_bits = random.intRangeAtMost(u8, 9, 15),
            .no_context_takeover = random.boolean(),
            .level = random.uintAtMost(u8, 9),
        });
        defer pair.deinit();
        const payload = try gpa.alloc(u8, 200_000);
        defer gpa.free(payload);
        for (0..20) |_| {
            const size_max: usize = if (random.uintLessThan(u8, 5) == 0) payload.len else 2_000;
            const size = random.intRangeAtMost(usize, 1, size_max);
            // From bytes that are all the same to noise: the bound has to hold for both.
            const kinds = random.intRangeAtMost(u8, 1, 255);
            for (payload[0..size]) |*byte| byte.* = random.uintLessThan(u8, kinds);
            _ = try pair.expectRoundTrip(payload[0..size]);
        }
    }
}

test "deflate: a message that finds no room leaves nothing behind" {
    var pair: Pair = undefined;
    try pair.init(.{});
    defer pair.deinit();
    var noise: [3000]u8 = undefined;
    var prng: std.Random.DefaultPrng = .init(7);
    prng.random().bytes(&noise);
    var small: [100]u8 = undefined;
    try testing.expectEqual(null, pair.deflater.message(&noise, &small));
    _ = try pair.expectRoundTrip(&noise);
    _ = try pair.expectRoundTrip("and on it goes");
}

test "deflate: random bytes are refused or inflated, and never more than there is room for" {
    var prng: std.Random.DefaultPrng = .init(1);
    const random = prng.random();
    var inflated_count: usize = 0;
    for (0..20_000) |_| {
        var inflater: Inflater = undefined;
        try inflater.init(try library(), .{ .window_bits = 9, .no_context_takeover = false });
        defer inflater.deinit();
        var wire: [40]u8 = undefined;
        const input = wire[0..random.uintLessThan(usize, wire.len)];
        random.bytes(input);
        var target: [300]u8 = undefined;
        @memset(&target, 0xaa);
        const room = random.uintLessThan(usize, 200);
        const step = inflater.next(input, target[0..room]) catch |err| switch (err) {
            error.InvalidCompression => continue,
            error.OutOfMemory => return err,
        };
        if (step.done) inflated_count += 1 else try testing.expectEqual(room, step.output_size);
        for (target[room..]) |byte| try testing.expectEqual(0xaa, byte);
    }
    try testing.expect(inflated_count > 0);
}
