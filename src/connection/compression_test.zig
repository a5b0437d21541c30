//! Tests of `compression.zig`: both ends of a connection, over the smallest ring.

const std = @import("std");
const deflate = @import("../deflate.zig");
const ws = @import("../ws.zig");
const RingBuffer = @import("../ringbuffer.zig").RingBuffer;
const compression_module = @import("compression.zig");
const Options = compression_module.Options;
const Compression = compression_module.Compression;

const testing = std.testing;

/// Both ends of a connection, over the smallest ring.
const Bed = struct {
    ring: *RingBuffer,
    compression: Compression,
    wire: [4096]u8,

    fn init(bed: *Bed, agreement: ws.permessage_deflate.Agreement) !void {
        const api = deflate.zlib.load(&.{}) catch return error.SkipZigTest;
        bed.ring = try RingBuffer.create(0, .{});
        errdefer bed.ring.retire();
        const options: Options = .{ .api = api, .offer = .{}, .level = 6, .size_min = 10 };
        try bed.compression.init(&options, agreement, bed.ring);
    }

    fn deinit(bed: *Bed) void {
        bed.compression.deinit();
        bed.ring.retire();
    }

    fn deflated(bed: *Bed, payload: []const u8) []const u8 {
        const deflater = bed.compression.deflaterFor(payload.len).?;
        return bed.wire[0..deflater.message(payload, &bed.wire).?];
    }
};

const full: ws.permessage_deflate.Agreement = .{
    .server_no_context_takeover = false,
    .client_no_context_takeover = false,
    .server_max_window_bits = 15,
    .client_max_window_bits = 15,
};

test "compression: each message is one span, wherever in the ring it starts" {
    var bed: Bed = undefined;
    try bed.init(full);
    defer bed.deinit();
    var message: [1000]u8 = undefined;
    for (0..100) |index| {
        @memset(&message, @truncate(index));
        const inflated = try bed.compression.inflate(bed.deflated(&message), message.len);
        try testing.expectEqualStrings(&message, inflated);
        try testing.expect(bed.ring.contains(inflated));
    }
}

test "compression: a message without room in the ring goes on when there is some" {
    var bed: Bed = undefined;
    try bed.init(full);
    defer bed.deinit();
    const size_max = bed.ring.capacity;
    const size = size_max / 4 * 3;
    const message = try testing.allocator.alloc(u8, size);
    defer testing.allocator.free(message);
    @memset(message, 'x');
    const kept = try bed.compression.inflate(bed.deflated(message), size_max);
    var pin: @import("../ringbuffer.zig").Pin = undefined;
    bed.ring.pin(&pin, kept);

    @memset(message, 'y');
    const payload = bed.deflated(message);
    for (0..3) |_| {
        try testing.expectError(error.NoRoom, bed.compression.inflate(payload, size_max));
        for (kept) |byte| try testing.expectEqual('x', byte);
    }
    bed.ring.unpin(&pin);
    const inflated = try bed.compression.inflate(payload, size_max);
    try testing.expectEqualStrings(message, inflated);
}

test "compression: the size limit is exact, whatever room the ring has" {
    for ([_]usize{ 999, 1000, 1001 }) |size_max| {
        var bed: Bed = undefined;
        try bed.init(full);
        defer bed.deinit();
        const payload = bed.deflated(&@as([1000]u8, @splat('x')));
        const result = bed.compression.inflate(payload, size_max);
        if (size_max < 1000) {
            try testing.expectError(error.MessageTooBig, result);
        } else {
            try testing.expectEqual(1000, (try result).len);
        }
    }
}

test "compression: small messages, and all without a fitting window, are sent uncompressed" {
    var bed: Bed = undefined;
    try bed.init(full);
    try testing.expectEqual(null, bed.compression.deflaterFor(9));
    try testing.expect(bed.compression.deflaterFor(10) != null);
    bed.deinit();

    var agreement = full;
    agreement.client_max_window_bits = 8;
    agreement.server_max_window_bits = 8;
    try bed.init(agreement);
    defer bed.deinit();
    try testing.expectEqual(null, bed.compression.deflaterFor(10));
}
