//! Tests of `Connection.pump` with sinks of several kinds.

const std = @import("std");
const bed_module = @import("testing/connection_bed.zig");
const ScriptedOs = @import("testing/scripted_os.zig");
const Delivery = @import("delivery.zig").Delivery;
const Latency = @import("connection/latency.zig").Latency;
const Pin = @import("ringbuffer.zig").Pin;

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const Bed = bed_module.Bed;
const kernel = &ScriptedOs.kernel;
const textFrame = bed_module.textFrame;

/// Keeps copies, and fails at the calls that a test chooses.
const Collector = struct {
    bytes: std.ArrayList(u8) = .empty,
    prepared: usize = 0,
    taken: usize = 0,
    delivered_cycles: u64 = 0,
    fail_prepare_at: ?usize = null,
    fail_take_at: ?usize = null,

    const Error = error{ PrepareFailed, TakeFailed };

    pub const delivers = true;

    pub fn prepare(collector: *Collector) Error!void {
        expectEqual(collector.prepared, collector.taken) catch unreachable;
        if (collector.fail_prepare_at == collector.prepared) return error.PrepareFailed;
        collector.prepared += 1;
    }

    pub fn take(collector: *Collector, delivery: *const Delivery) Error!void {
        collector.taken += 1;
        collector.delivered_cycles = delivery.line.stamps.delivered_cycles;
        if (collector.fail_take_at == collector.taken) return error.TakeFailed;
        collector.bytes.appendSlice(testing.allocator, delivery.payload) catch unreachable;
    }
};

/// Only counts the messages.
const Counter = struct {
    count: usize = 0,

    pub const delivers = false;

    pub fn prepare(_: *Counter) error{}!void {}

    pub fn take(counter: *Counter, _: *const Delivery) error{}!void {
        counter.count += 1;
    }
};

/// Pins every message in its ring.
const Keeper = struct {
    pins: [8]Pin = undefined,
    kept: [8]Delivery = undefined,
    count: usize = 0,

    pub const delivers = true;

    pub fn prepare(_: *Keeper) error{}!void {}

    pub fn take(keeper: *Keeper, delivery: *const Delivery) error{}!void {
        keeper.kept[keeper.count] = delivery.*;
        delivery.ring.pin(&keeper.pins[keeper.count], delivery.payload);
        keeper.count += 1;
    }
};

test "sink: prepare and take are called once for each message, in order, before the event" {
    var bed = try Bed.init(bed_module.websocket_options);
    defer bed.deinit();
    try bed.open();
    try bed.feed(&.{ textFrame("a"), textFrame("b"), textFrame("c") });
    try bed.wait();
    var collector: Collector = .{};
    defer collector.bytes.deinit(testing.allocator);
    try expectEqual(.blocked, std.meta.activeTag(try bed.connection.pump(&collector)));
    try testing.expectEqualStrings("abc", collector.bytes.items);
    try expectEqual(3, collector.prepared);

    kernel.then(.end);
    try bed.wait();
    try testing.expectError(error.Failed, bed.connection.pump(&collector));
    try expectEqual(3, collector.taken);
}

test "sink: pump returns the sink's error, and the next one goes on after that message" {
    var bed = try Bed.init(bed_module.websocket_options);
    defer bed.deinit();
    try bed.open();
    try bed.feed(&.{ textFrame("a"), textFrame("b"), textFrame("c"), textFrame("d") });
    try bed.wait();
    var collector: Collector = .{ .fail_take_at = 2 };
    defer collector.bytes.deinit(testing.allocator);
    try testing.expectError(error.TakeFailed, bed.connection.pump(&collector));
    try testing.expectEqualStrings("a", collector.bytes.items);
    collector.fail_prepare_at = 2;
    try testing.expectError(error.PrepareFailed, bed.connection.pump(&collector));
    collector.fail_prepare_at = null;
    try expectEqual(.blocked, std.meta.activeTag(try bed.connection.pump(&collector)));
    try testing.expectEqualStrings("ad", collector.bytes.items);
}

test "sink: bytes that it pins stay, and a delivery names its connection" {
    var bed = try Bed.init(bed_module.websocket_options);
    defer bed.deinit();
    try bed.open();
    try bed.feed(&.{ textFrame("first"), textFrame("second") });
    try bed.wait();
    var keeper: Keeper = .{};
    try expectEqual(.blocked, std.meta.activeTag(try bed.connection.pump(&keeper)));
    try expectEqual(2, keeper.count);
    try testing.expectEqualStrings("first", keeper.kept[0].payload);
    try testing.expectEqualStrings("second", keeper.kept[1].payload);
    for (keeper.kept[0..2], keeper.pins[0..2]) |*delivery, *pin| {
        try expectEqual(&bed.connection.transport.line, delivery.line);
        try expect(delivery.ring.contains(delivery.payload));
        delivery.ring.unpin(pin);
    }
}

test "sink: hasMore is true when another message waits after the lent one" {
    var bed = try Bed.init(bed_module.websocket_options);
    defer bed.deinit();
    try bed.open();
    try bed.feed(&.{ textFrame("first"), textFrame("second") });
    try bed.wait();
    for ([_]bool{ true, false }) |more| {
        const delivery = bed.connection.nextMessage().?;
        try expectEqual(more, delivery.line.hasMore());
    }
}

test "sink: only a sink that delivers gets stamped messages" {
    var options = bed_module.websocket_options;
    options.timestamps = .software;
    var bed = try Bed.init(options);
    defer bed.deinit();
    var latency: Latency = .{};
    bed.connection.latency = &latency;
    try bed.open();
    try bed.feed(&.{textFrame("a")});
    try bed.wait();
    var counter: Counter = .{};
    try expectEqual(.blocked, std.meta.activeTag(try bed.connection.pump(&counter)));
    try expectEqual(1, counter.count);
    try expectEqual(0, latency.total.count);

    try bed.feed(&.{textFrame("b")});
    try bed.wait();
    var collector: Collector = .{};
    defer collector.bytes.deinit(testing.allocator);
    try expectEqual(.blocked, std.meta.activeTag(try bed.connection.pump(&collector)));
    try expectEqual(1, latency.total.count);
    const stamps = &bed.connection.transport.line.stamps;
    try expect(stamps.received_cycles <= collector.delivered_cycles);
    try expectEqual(stamps.delivered_cycles, collector.delivered_cycles);
}
