//! Tests of `connection.zig` on a scripted kernel: waiting with the option `busy_poll`.

const std = @import("std");
const constants = @import("../constants.zig");
const Pin = @import("../ringbuffer.zig").Pin;
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");
const frames = @import("../testing/frames.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const expectEqualDeep = testing.expectEqualDeep;
const kernel = &ScriptedOs.kernel;
const s = std.time.ns_per_s;
const Bed = bed_module.Bed;
const Seen = bed_module.Seen;
const eof_reason = bed_module.eof_reason;
const lost = bed_module.lost;
const lost_code = bed_module.lost_code;
const textFrame = bed_module.textFrame;
const websocket_options = bed_module.websocket_options;

test "connection: a busy wait works without the notifier" {
    var options = websocket_options;
    options.busy_poll = true;
    var bed = try Bed.init(options);
    defer bed.deinit();
    kernel.spins_allowed = true;
    kernel.thenConnect(.{ .answered = .{ .after_ns = 1000 } });
    try bed.open();
    const wait_calls = kernel.wait_calls;
    try expectEqual(.timed_out, try bed.waitFor(null)); // A busy wait is never without end.
    kernel.then(.{ .pause_ns = 300_000 });
    try bed.feed(&.{ textFrame("one"), .{ .opcode = frames.ping, .payload = "p" } });
    kernel.send_room = 0;
    try bed.connection.send(.text, "order");
    try bed.drive();
    try bed.expectSeen(&.{.text("one")});
    kernel.send_room = 1000;
    try expectEqual(.timed_out, try bed.waitFor(0));
    try bed.expectSent(&.{ textFrame("order"), .{ .opcode = frames.pong, .payload = "p" } });

    bed.connection.close(1000, "");
    const start_ns = kernel.now_ns;
    try bed.driveToEnd();
    try expect(kernel.now_ns - start_ns >= 2 * s);
    try expect(kernel.now_ns - start_ns < 3 * s);
    try expectEqual(wait_calls, kernel.wait_calls);
    try bed.expectSeen(&.{.{ .closed = .{
        .code = lost_code,
        .reason = "the peer did not answer the close frame in time",
        .clean = false,
        .local = true,
    } }});

    try bed.open();
    try bed.feed(&.{textFrame("two")});
    kernel.then(.end);
    try bed.drive();
    try bed.expectFailure(lost(eof_reason));
}

test "connection: a busy wait's turn does not end when the next message of a steady feed comes" {
    var options = websocket_options;
    options.busy_poll = true;
    var bed = try Bed.init(options);
    defer bed.deinit();
    kernel.spins_allowed = true;
    try bed.open();
    // Each message begins a new turn. The next one, this much later, ends a turn that has long
    // begun and would go on for long: what is between two turns takes microseconds.
    for ([_]u64{ 1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1_000, 2_000, 3_000 }) |spacing_ms| {
        const spacing_ns = spacing_ms * std.time.ns_per_ms;
        const into_turn_ns = spacing_ns % constants.spin_turn_ns;
        try expect(into_turn_ns >= 500 * std.time.ns_per_us);
        try expect(constants.spin_turn_ns - into_turn_ns >= 500 * std.time.ns_per_us);
        if (spacing_ns > constants.spin_turn_ns) continue;
        kernel.then(.{ .pause_ns = spacing_ns });
        try bed.feed(&.{textFrame("tick")});
        try expectEqual(.ready, try bed.waitFor(null));
        try bed.drive();
        try bed.expectSeen(&.{.text("tick")});
    }
}

test "connection: two waits in a row lose nothing, busy or not" {
    for ([_]bool{ false, true }) |busy_poll| {
        var options = websocket_options;
        options.busy_poll = busy_poll;
        var bed = try Bed.init(options);
        defer bed.deinit();
        kernel.spins_allowed = busy_poll;
        try bed.open();
        try bed.feed(&.{textFrame("one")});
        try bed.feed(&.{textFrame("two")});
        try bed.feed(&.{textFrame("three")});
        kernel.then(.end);
        for (0..3) |_| try expectEqual(.ready, try bed.waitFor(null));
        try bed.driveToEnd();
        try bed.expectSeen(&.{ .text("one"), .text("two"), .text("three") });
        try bed.expectFailure(lost(eof_reason));
    }
}

test "connection: a busy wait does not overwrite pinned bytes" {
    var options = websocket_options;
    options.busy_poll = true;
    var payload_most: [bed_module.page_size_max]u8 = undefined;
    const payload = payload_most[0..bed_module.quarterOfRing().len];
    options.receive_ring_capacity = bed_module.ring_capacity_min;
    options.message_size_max = 2 * payload.len;
    var bed = try Bed.init(options);
    defer bed.deinit();
    kernel.spins_allowed = true;
    try bed.open();
    const ring = bed.connection.transport.receive_ring.?;
    var pin: Pin = undefined;
    for (0..8) |index| {
        @memset(payload, @intCast('a' + index));
        try bed.feed(&.{textFrame(payload)});
    }
    _ = try bed.waitFor(null);
    ring.pin(&pin, (try bed.connection.next()).message.payload);
    try testing.expectError(error.ReceiveRingPinned, bed.drive());
    // Another wait, or a turn of an owner's own loop, meets the same error again.
    for (0..3) |_| {
        try expectEqual(.ready, try bed.waitFor(null));
        try testing.expectError(error.ReceiveRingPinned, bed.pump());
        bed.connection.beginTurn();
        try testing.expectError(error.ReceiveRingPinned, bed.pump());
    }
    ring.unpin(&pin);
    try bed.drive();
    try expectEqual(@as(usize, 7), bed.seen.items.len);
    for (bed.seen.items, 1..) |seen, index| {
        @memset(payload, @intCast('a' + index));
        try expectEqualDeep(Seen.text(payload), seen);
    }
}
