//! Tests of `connection.zig` on a scripted kernel and its clock: what happens when time runs out.

const std = @import("std");
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");

const testing = std.testing;
const expectEqual = testing.expectEqual;
const kernel = &ScriptedOs.kernel;
const s = std.time.ns_per_s;
const Bed = bed_module.Bed;
const get_options = bed_module.get_options;
const textFrame = bed_module.textFrame;
const websocket_options = bed_module.websocket_options;

test "connection: a server that does not answer the request in time" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    const start_ns = kernel.now_ns;
    kernel.thenConnect(.{ .answered = .{ .after_ns = 3 * s } });
    try bed.start();
    try bed.driveToEnd();
    try bed.expectFailure(.{ .timed_out = .requesting });
    try expectEqual(start_ns + 8 * s, kernel.now_ns);
}

test "connection: a server that drips its answer does not get more time" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    const start_ns = kernel.now_ns;
    for ("HTTP/1.1 101 Switching Protocols\r\n") |byte| {
        kernel.then(.{ .pause_ns = s + 1 });
        kernel.feed(&.{byte});
    }
    try bed.start();
    try bed.driveToEnd();
    try bed.expectFailure(.{ .timed_out = .requesting });
    try expectEqual(start_ns + 8 * s, kernel.now_ns);
    try expectEqual(@as(u64, 7), bed.connection.transport.counters.reads);
}

test "connection: a body that does not come in time" {
    const head = "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\n";
    {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        const start_ns = kernel.now_ns;
        kernel.feed(head ++ "abc");
        try bed.start();
        try bed.driveToEnd();
        try bed.expectSeen(&.{ .{ .response = 403 }, .{ .body = "abc" }, .{ .finished = false } });
        try expectEqual(start_ns + 8 * s, kernel.now_ns);
    }
    var bed = try Bed.init(get_options);
    defer bed.deinit();
    kernel.feed(head ++ "abc");
    try bed.start();
    try bed.driveToEnd();
    try bed.expectSeen(&.{ .{ .response = 403 }, .{ .body = "abc" } });
    try bed.expectFailure(.{ .timed_out = .reading_body });
}

test "connection: an open connection has no deadline" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    kernel.then(.{ .pause_ns = 1_000_000 * s });
    try bed.feed(&.{textFrame("late")});
    try expectEqual(.timed_out, try bed.waitFor(5 * s));
    try expectEqual(.timed_out, try bed.waitFor(0));
    try bed.drive();
    try bed.expectSeen(&.{.text("late")});
}

test "connection: a signal ends a wait and harms nothing" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.thenConnect(.{ .answered = .{} });
    kernel.interrupts = 3;
    try bed.start();
    try bed.pump();
    for (0..3) |_| {
        try expectEqual(.interrupted, try bed.waitFor(null));
        try bed.pump();
    }
    try bed.drive();
    kernel.feed(try bed.upgradeResponse());
    try bed.drive();
    kernel.interrupts = 2;
    try bed.feed(&.{textFrame("x")});
    try expectEqual(.interrupted, try bed.waitFor(null));
    try bed.drive();
    try bed.expectSeen(&.{ .{ .opened = 101 }, .text("x") });
}

test "connection: a wait that fails is reported, and can be repeated" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.thenConnect(.{ .answered = .{} });
    try bed.start();
    try bed.pump();
    kernel.watch_failure = error.WatchLimit;
    try testing.expectError(error.SystemResources, bed.waitFor(null));
    kernel.watch_failure = null;
    kernel.wait_failure = error.OutOfMemory;
    try testing.expectError(error.SystemResources, bed.waitFor(null));
    kernel.wait_failure = null;
    try bed.drive();
    kernel.feed(try bed.upgradeResponse());
    try bed.drive();
    try bed.expectSeen(&.{.{ .opened = 101 }});
}
