//! Tests of `connection.zig` on a scripted kernel: messages, control frames and full receive rings.

const std = @import("std");
const constants = @import("../constants.zig");
const connection_module = @import("../connection.zig");
const Pin = @import("../ringbuffer.zig").Pin;
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");
const frames = @import("../testing/frames.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const expectEqualDeep = testing.expectEqualDeep;
const kernel = &ScriptedOs.kernel;
const Bed = bed_module.Bed;
const textFrame = bed_module.textFrame;
const websocket_options = bed_module.websocket_options;
const Frame = frames.Frame;

test "connection: one message is one read and one wait" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    const receive_calls = kernel.receive_calls;
    const wait_calls = kernel.wait_calls;
    const watch_changes = kernel.watch_changes;
    for (0..10) |_| {
        try bed.feed(&.{ textFrame("tick"), textFrame("tock") });
        try bed.drive();
        try bed.expectSeen(&.{ .text("tick"), .text("tock") });
    }
    try expectEqual(receive_calls + 10, kernel.receive_calls);
    try expectEqual(wait_calls + 10, kernel.wait_calls);
    try expectEqual(watch_changes, kernel.watch_changes);

    const send_calls = kernel.send_calls;
    for (0..10) |_| try bed.connection.send(.text, "order");
    try expectEqual(send_calls + 10, kernel.send_calls);
    try expectEqual(receive_calls + 10, kernel.receive_calls);
}

test "connection: only a read that filled its buffer is followed by another" {
    var options = websocket_options;
    options.receive_ring_capacity = 512 * 1024;
    var bed = try Bed.init(options);
    defer bed.deinit();
    try bed.open();
    const size = constants.read_size_max;
    const zeros: [size / 8 - 4]u8 = @splat('0');
    const frame: Frame = .{ .opcode = frames.binary, .payload = &zeros };
    const burst = try bed.encode(&@as([24]Frame, @splat(frame)));
    try expectEqual(3 * size, burst.len);

    const receive_calls = kernel.receive_calls;
    kernel.feed(burst); // Three full reads; the fourth finds nothing.
    try bed.drive();
    try expectEqual(@as(usize, 24), bed.seen.items.len);
    try expectEqual(receive_calls + 4, kernel.receive_calls);
    kernel.feed(burst[0 .. burst.len - 1]); // The third read is short: no fourth.
    try bed.drive();
    try expectEqual(receive_calls + 4 + 3, kernel.receive_calls);
    kernel.feed(burst[burst.len - 1 ..]);
    try bed.drive();
    try expectEqual(@as(usize, 48), bed.seen.items.len);
}

test "connection: a peer that never pauses does not keep next from returning to the owner" {
    var options = websocket_options;
    options.receive_ring_capacity = 512 * 1024;
    var bed = try Bed.init(options);
    defer bed.deinit();
    try bed.open();
    const zeros: [constants.read_size_max / 4 - 4]u8 = @splat('0');
    const frame: Frame = .{ .opcode = frames.binary, .payload = &zeros };
    const reads_max = constants.reads_per_turn_max;
    kernel.feed(try bed.encode(&@as([4 * (reads_max + 2)]Frame, @splat(frame))));

    _ = try bed.waitFor(null);
    const receive_calls = kernel.receive_calls;
    try bed.pump();
    try expectEqual(receive_calls + reads_max, kernel.receive_calls);
    try expectEqual(@as(usize, 4 * reads_max), bed.seen.items.len);
    try expect(bed.connection.turnSpent());
    try bed.pump(); // Reads nothing more.
    try expectEqual(receive_calls + reads_max, kernel.receive_calls);

    bed.connection.beginTurn(); // Goes on without a wait.
    try expect(!bed.connection.turnSpent());
    try bed.pump();
    try expectEqual(@as(usize, 4 * (reads_max + 2)), bed.seen.items.len);
    try expect(!bed.connection.turnSpent());
}

test "connection: a spurious wake-up leads to another wait" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.then(.spurious);
    try bed.open();
    for (0..3) |_| kernel.then(.spurious);
    try bed.feed(&.{textFrame("x")});
    kernel.then(.spurious);
    try bed.drive();
    try bed.expectSeen(&.{.text("x")});
}

test "connection: fragments are joined, and control frames between them handled" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    kernel.feedByteByByte(try bed.encode(&.{
        .{ .fin = false, .opcode = frames.text, .payload = "ab" },
        .{ .opcode = frames.ping, .payload = "p" },
        .{ .fin = false, .opcode = frames.continuation, .payload = "" },
        .{ .opcode = frames.pong, .payload = "q" },
        .{ .opcode = frames.continuation, .payload = "cd" },
        textFrame("ef"),
    }));
    try bed.drive();
    try bed.expectSeen(&.{
        .{ .message = .{ .opcode = .text, .payload = "abcd", .fragmented = true } },
        .text("ef"),
    });
    try bed.expectSent(&.{.{ .opcode = frames.pong, .payload = "p" }});
    try expectEqual(@as(u64, 1), bed.connection.transport.counters.pings);
    try expectEqual(@as(u64, 1), bed.connection.transport.counters.pongs);
}

test "connection: headers and pings between fragments do not fill the ring" {
    var options = websocket_options;
    options.receive_ring_capacity = 8 * 1024;
    options.message_size_max = 6 * 1024;
    var bed = try Bed.init(options);
    defer bed.deinit();
    try bed.open();
    const ping_payload: [125]u8 = @splat('p');
    const payload = try bed.arena().alloc(u8, options.message_size_max);
    for (payload, 0..) |*byte, index| byte.* = @intCast('a' + index % 26);
    for (0..2) |_| {
        var list: std.ArrayList(Frame) = .empty;
        for (0..payload.len / 4) |index| {
            try list.append(bed.arena(), .{
                .fin = index == payload.len / 4 - 1,
                .opcode = if (index == 0) frames.binary else frames.continuation,
                .payload = payload[4 * index ..][0..4],
            });
            try list.append(bed.arena(), .{ .opcode = frames.ping, .payload = &ping_payload });
        }
        try bed.feed(list.items);
        try bed.drive();
        try bed.expectSeen(&.{.{ .message = .{
            .opcode = .binary,
            .payload = payload,
            .fragmented = true,
        } }});
        try expectEqual(payload.len / 4, (try bed.takeSent()).len);
    }
}

test "connection: moreWaiting is true only for a whole message" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    const bytes = try bed.encode(&.{ textFrame("one"), textFrame("two"), textFrame("three") });
    kernel.feed(bytes[0 .. bytes.len - 1]);
    kernel.feed(bytes[bytes.len - 1 ..]);
    _ = try bed.waitFor(null);
    const expected = [_]bool{ true, false };
    for (expected) |more| {
        try expect(try bed.connection.next() == .message);
        try expectEqual(more, bed.connection.moreWaiting());
    }
    try bed.drive();
    try bed.expectSeen(&.{.text("three")});
}

test "connection: pinned bytes are not overwritten, and reading goes on when they are released" {
    var options = websocket_options;
    options.receive_ring_capacity = bed_module.ring_capacity_min;
    options.message_size_max = 2 * bed_module.quarterOfRing().len;
    var bed = try Bed.init(options);
    defer bed.deinit();
    try bed.open();
    const ring = bed.connection.transport.receive_ring.?;
    const payload: [100]u8 = @splat('k');
    const kept_frame: Frame = .{ .opcode = frames.binary, .payload = &payload };
    for (0..5) |round| {
        try bed.feed(&.{kept_frame});
        _ = try bed.waitFor(null);
        const message = (try bed.connection.next()).message;
        var pin: Pin = undefined;
        ring.pin(&pin, message.payload);

        const other = bed_module.quarterOfRing();
        for (0..8) |_| try bed.feed(&.{.{ .opcode = frames.binary, .payload = other }});
        try testing.expectError(error.ReceiveRingPinned, bed.drive());
        try testing.expectError(error.ReceiveRingPinned, bed.drive());
        const before = bed.seen.items.len;
        try expect(before < 8);
        try testing.expectEqualStrings(&payload, message.payload);
        try bed.connection.send(.text, "alive"); // The other direction is not affected.
        ring.unpin(&pin);
        try bed.drive();
        try expectEqual(@as(usize, 8), bed.seen.items.len);
        for (bed.seen.items) |seen| try expectEqualDeep(other, seen.message.payload);
        bed.seen.clearRetainingCapacity();
        try expectEqual(9 * (round + 1), bed.connection.transport.counters.messages);
    }
}

test "connection: all messages of a read have its kernel stamp" {
    var options = websocket_options;
    options.timestamps = .software;
    options.socket.timestamps = .software;
    var bed = try Bed.init(options);
    defer bed.deinit();
    var latency: connection_module.Latency = .{};
    bed.connection.latency = &latency;
    try bed.open();
    try bed.feed(&.{textFrame("x")});
    kernel.stamp = .{ .source = .software, .realtime_ns = ScriptedOs.realtimeNs() - 700 };
    _ = try bed.waitFor(null);
    try expect(try bed.connection.next() == .message);
    kernel.now_ns += 50;
    bed.connection.stampDelivery();
    const stamps = bed.connection.transport.line.stamps;
    try expectEqual(@as(i64, 700), stamps.received_ns - stamps.kernel_ns);
    try expectEqual(stamps.received_cycles, stamps.decrypted_cycles);
    try expectEqual(@as(u64, 150), stamps.delivered_cycles - stamps.received_cycles);
    try expectEqual(@as(u64, 1), latency.total.count);

    kernel.stamp = .{};
    try bed.feed(&.{textFrame("y")});
    _ = try bed.waitFor(null);
    try expect(try bed.connection.next() == .message);
    try expectEqual(@as(i64, 0), bed.connection.transport.line.stamps.kernel_ns);
}

test "connection: what is read arrived after the last moment at which the socket was empty" {
    var options = websocket_options;
    options.timestamps = .software;
    options.socket.timestamps = .software;
    options.receive_ring_capacity = 512 * 1024;
    options.busy_poll = true; // So that a read may find nothing.
    var bed = try Bed.init(options);
    defer bed.deinit();
    kernel.spins_allowed = true;
    try bed.open();
    const transport = &bed.connection.transport;
    var empty_cycles = try emptyLook(&bed);
    kernel.feed(try bed.encode(&@as([3]Frame, @splat(textFrame(quarterOfRead())))));
    try expect(transport.look());
    try bed.pump();
    try expectEqual(empty_cycles, transport.line.earliest_cycles);

    // Three reads, the first two of them full: what those left was as old.
    empty_cycles = try emptyLook(&bed);
    kernel.feed(try bed.encode(&@as([9]Frame, @splat(textFrame(quarterOfRead())))));
    bed.connection.beginTurn();
    for (0..3) |index| {
        kernel.now_ns += 1_000;
        try expect(try transport.receive(.none));
        try expectEqual(empty_cycles, transport.line.earliest_cycles);
        try expectEqual(index == 2, transport.line.took_all);
    }
    const read_cycles = ScriptedOs.cycles(); // The last read was short, and took no time.
    try bed.pump();
    kernel.now_ns += 1_000;
    try bed.feed(&.{textFrame("x")});
    bed.connection.beginTurn();
    try bed.pump();
    try expectEqual(read_cycles, transport.line.earliest_cycles);
}

/// A read that finds nothing; returns when.
fn emptyLook(bed: *Bed) !u64 {
    const transport = &bed.connection.transport;
    kernel.now_ns += 1_000;
    bed.connection.beginTurn();
    const cycles = ScriptedOs.cycles();
    try bed.pump();
    try expectEqual(cycles, transport.empty_cycles);
    try expect(transport.spin_target.len > 0);
    return cycles;
}

/// The payload of a text frame; four of those fill a read.
fn quarterOfRead() []const u8 {
    return &(struct {
        const payload: [constants.read_size_max / 4 - 4]u8 = @splat('0');
    }.payload);
}
