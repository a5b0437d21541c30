//! Tests of `connection.zig` on a scripted kernel: connections that end without a closing
//! handshake, and connections that are used again.

const std = @import("std");
const types = @import("types.zig");
const Pin = @import("../ringbuffer.zig").Pin;
const RingBuffer = @import("../ringbuffer.zig").RingBuffer;
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");
const frames = @import("../testing/frames.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const expectEqualDeep = testing.expectEqualDeep;
const kernel = &ScriptedOs.kernel;
const Bed = bed_module.Bed;
const closeFrame = bed_module.closeFrame;
const eof_reason = bed_module.eof_reason;
const lost = bed_module.lost;
const lost_code = bed_module.lost_code;
const reset_reason = bed_module.reset_reason;
const textFrame = bed_module.textFrame;
const websocket_options = bed_module.websocket_options;

test "connection: the end of the stream before there was a response" {
    const Ending = struct { step: ScriptedOs.ReceiveStep, cause: types.StreamEnd };
    for ([_]Ending{
        .{ .step = .end, .cause = .eof },
        .{
            .step = .{ .fails = error.ConnectionReset },
            .cause = .{ .receive = error.ConnectionReset },
        },
        .{ .step = .{ .fails = error.OutOfMemory }, .cause = .{ .receive = error.OutOfMemory } },
    }) |ending| {
        for ([_][]const u8{ "", "HTTP/1.1 101 Switching Pro" }) |part| {
            var bed = try Bed.init(websocket_options);
            defer bed.deinit();
            kernel.feed(part);
            kernel.then(ending.step);
            try bed.start();
            try bed.drive();
            try bed.expectFailure(.{ .ended = .{ .stage = .requesting, .cause = ending.cause } });
        }
    }
}

test "connection: the end of the stream without a close frame" {
    const Ending = struct { step: ScriptedOs.ReceiveStep, reason: []const u8 };
    for ([_]Ending{
        .{ .step = .end, .reason = eof_reason },
        .{ .step = .{ .fails = error.ConnectionReset }, .reason = reset_reason },
        .{ .step = .{ .fails = error.TimedOut }, .reason = "the TCP connection timed out" },
        .{ .step = .{ .fails = error.Unexpected }, .reason = "reading the socket failed" },
    }) |ending| {
        for ([_]usize{ 0, 1, 3 }) |rest_size| {
            var bed = try Bed.init(websocket_options);
            defer bed.deinit();
            try bed.open();
            const bytes = try bed.encode(&.{ textFrame("one"), textFrame("half") });
            kernel.feed(bytes[0 .. 5 + rest_size]);
            kernel.then(ending.step);
            try bed.drive();
            try bed.expectSeen(&.{.text("one")});
            try bed.expectFailure(lost(ending.reason));
            try expectEqualDeep(types.Closed{
                .code = lost_code,
                .reason = ending.reason,
                .clean = false,
            }, bed.connection.closed().?);
        }
    }
}

test "connection: the end of the stream while closing" {
    for ([_]ScriptedOs.ReceiveStep{ .end, .{ .fails = error.ConnectionReset } }) |step| {
        for ([_]bool{ false, true }) |answered| {
            var bed = try Bed.init(websocket_options);
            defer bed.deinit();
            try bed.open();
            bed.connection.close(1000, "");
            if (answered) try bed.feed(&.{closeFrame(1000, "")});
            kernel.then(step);
            try bed.drive();
            try bed.expectSeen(&.{.{ .closed = if (answered) .{
                .code = 1000,
                .clean = true,
                .local = true,
            } else .{
                .code = lost_code,
                .reason = "the peer hung up without a close frame",
                .clean = false,
                .local = true,
            } }});
        }
    }
}

test "connection: a new start keeps nothing of the last connection" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    for (0..6) |round| {
        kernel.clear();
        try bed.open();
        try bed.connection.send(.text, "hello");
        try bed.expectSent(&.{textFrame("hello")});
        // Ends in a different way each time, with something unfinished.
        const bytes = try bed.encode(&.{
            textFrame("one"),
            .{ .fin = false, .opcode = frames.text, .payload = "half" },
        });
        kernel.feed(bytes[0 .. bytes.len - round % 2]);
        try bed.drive();
        try bed.expectSeen(&.{.text("one")});
        switch (round) {
            0, 1 => kernel.then(.end),
            2 => try bed.feed(&.{.{ .opcode = 7 }}),
            3 => {
                kernel.send_room = 0;
                try bed.connection.send(.text, "never");
                kernel.then(.{ .fails = error.ConnectionReset });
            },
            4 => try bed.feed(&.{closeFrame(1001, "")}),
            else => bed.connection.abort(),
        }
        kernel.then(.end);
        try bed.drive();
        try expect(bed.isOver());
        try expectEqual(round < 4, bed.failed);
        kernel.send_room = std.math.maxInt(usize);
        bed.seen.clearRetainingCapacity();
        try expectEqual(@as(u64, round + 1), bed.connection.transport.counters.messages);
    }
}

test "connection: pinned bytes outlive a new start and the connection" {
    var pins: [2]Pin = undefined;
    var payloads: [2][]const u8 = undefined;
    var rings: [2]*RingBuffer = undefined;
    {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        for (&pins, &payloads, &rings) |*pin, *payload, *ring| {
            kernel.clear();
            try bed.open();
            try bed.feed(&.{textFrame("kept")});
            _ = try bed.waitFor(null);
            payload.* = (try bed.connection.next()).message.payload;
            ring.* = bed.connection.transport.receive_ring.?;
            ring.*.pin(pin, payload.*);
            kernel.then(.end);
            try bed.drive();
        }
        try expect(rings[0] != rings[1]);
    }
    for (&pins, payloads, rings) |*pin, payload, ring| {
        try testing.expectEqualStrings("kept", payload);
        ring.unpin(pin);
    }
}
