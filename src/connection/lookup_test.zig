//! Tests of `connection.zig` on a scripted kernel: the look-up of the name, and every way in which
//! it can be dropped.

const std = @import("std");
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");
const lookup_module = @import("../lookup.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const kernel = &ScriptedOs.kernel;
const ms = std.time.ns_per_ms;
const s = std.time.ns_per_s;
const Bed = bed_module.Bed;
const Connection = bed_module.Connection;
const get_options = bed_module.get_options;
const websocket_options = bed_module.websocket_options;

test "lookup: start returns at once, and the answer is waited for like any descriptor" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.thenLookUp(.{ .answered = .{ .after_ns = 3 * s } });
    const start_ns = kernel.now_ns;
    try bed.start();
    try expectEqual(start_ns, kernel.now_ns);
    try expect(bed.connection.interest().?.events.readable);
    try expectEqual(start_ns + 8 * s, bed.connection.deadlineNs().?);
    try expectEqual(.timed_out, try bed.waitFor(s));
    try bed.pump();
    try expectEqual(.connecting, bed.connection.state());
    try bed.drive();
    kernel.feed(try bed.upgradeResponse());
    try bed.drive();
    try bed.expectSeen(&.{.{ .opened = 101 }});
    try expectEqual(start_ns + 3 * s, kernel.dialled.items[0].at_ns);
}

test "lookup: an address in text form needs none" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.thenLookUp(.literal);
    try bed.start();
    try expectEqual(null, bed.connection.interest());
    try bed.pump();
    try expectEqual(.requesting, bed.connection.state());
}

test "lookup: the time that it takes is not the addresses'" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try expect(kernel.addresses.append(kernel.addresses.items[0]));
    kernel.thenLookUp(.{ .answered = .{ .after_ns = 6 * s } });
    kernel.thenConnect(.silent);
    kernel.thenConnect(.silent);
    const start_ns = kernel.now_ns;
    try bed.start();
    try bed.driveToEnd();
    try bed.expectFailure(.{ .timed_out = .connecting });
    try expectEqual(start_ns + 8 * s, kernel.now_ns);
    try expectEqual(start_ns + 6 * s, kernel.dialled.items[0].at_ns);
    try expectEqual(start_ns + 7 * s, kernel.dialled.items[1].at_ns);
}

test "lookup: one without an answer ends with the deadline, and is named" {
    for ([_]@TypeOf(websocket_options){ websocket_options, get_options }) |options| {
        var bed = try Bed.init(options);
        defer bed.deinit();
        kernel.thenLookUp(.silent);
        const start_ns = kernel.now_ns;
        try bed.start();
        try bed.driveToEnd();
        try bed.expectFailure(.{ .timed_out = .resolving });
        try expectEqual(start_ns + 8 * s, kernel.now_ns);
        try expectEqual(0, kernel.dialled.items.len);
        try expectEqual(0, openSockets());

        // The next try has a look-up of its own.
        kernel.thenLookUp(.{ .answered = .{ .after_ns = s } });
        try bed.start();
        try bed.drive();
        try expectEqual(.requesting, bed.connection.state());
    }
}

test "lookup: an answer that came in time counts, however late it is taken" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.thenLookUp(.{ .answered = .{ .after_ns = s } });
    try bed.start();
    try bed.pump();
    kernel.now_ns += 7 * s;
    try bed.pump();
    try expectEqual(.requesting, bed.connection.state());
}

test "lookup: one that cannot begin fails the connection" {
    for ([_]lookup_module.Error{
        error.ThreadLimit,
        error.TooManyOpenFiles,
        error.OutOfMemory,
        error.NameNotFound,
    }) |cause| {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        kernel.thenLookUp(.{ .fails = cause });
        try bed.start();
        try bed.expectFailure(.{ .resolve = cause });
        try expectEqual(.ready, try bed.waitFor(null));
    }
}

/// Ways to drop a connection whose name is being looked up.
const Drop = enum { close, abort, deinit };
/// How far it is: not asked yet, asked, waited for, and answered.
const Moment = enum { begun, asked, watched, answered, noted };

test "lookup: it is dropped in every way and at every moment, and leaves nothing" {
    for (std.enums.values(Drop)) |drop| for (std.enums.values(Moment)) |moment| {
        var bed = try Bed.init(websocket_options);
        var is_dropped = false;
        defer if (is_dropped) {
            bed.loop.deinit();
            ScriptedOs.deinit(); // Panics if a descriptor is open, or something is watched.
        } else bed.deinit();
        kernel.thenLookUp(.{ .answered = .{ .after_ns = s } });
        try bed.start();
        if (moment != .begun) try bed.pump();
        switch (moment) {
            .begun, .asked => {},
            .watched => try expectEqual(.timed_out, try bed.waitFor(ms)),
            .answered => {
                try expectEqual(.timed_out, try bed.waitFor(ms));
                kernel.now_ns += s;
            },
            .noted => try expectEqual(.ready, try bed.waitFor(null)),
        }
        try expectEqual(.connecting, bed.connection.state());
        switch (drop) {
            .close => bed.connection.close(1000, ""),
            .abort => bed.connection.abort(),
            .deinit => {
                if (bed.joined) bed.loop.leave(&bed.connection);
                bed.connection.deinit();
                is_dropped = true;
                continue;
            },
        }
        try expectEqual(.closed, bed.connection.state());
        try expect(bed.connection.failure() == null);
        try expectEqual(0, openSockets());
        try expectEqual(.ready, try bed.waitFor(null)); // There is nothing to wait for.
        try bed.start();
        try bed.drive();
        try expectEqual(.requesting, bed.connection.state());
    };
}

test "lookup: of two connections in a loop, one does not wait for the other's name" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    var other: Connection = .init(get_options);
    defer other.deinit();
    kernel.thenLookUp(.silent);
    try bed.start();
    try bed.pump();
    kernel.thenLookUp(.{ .answered = .{ .after_ns = s } });
    kernel.thenConnect(.{ .answered = .{ .after_ns = s } });
    const start_ns = kernel.now_ns;
    try other.start();
    bed.loop.join(&other);
    defer bed.loop.leave(&other);
    while (other.state() == .connecting) {
        try expectEqual(.blocked, try other.next());
        if (other.state() != .connecting) break;
        bed.loop.unask(&other);
        try bed.loop.settle(&other);
        try bed.wait();
        try bed.pump();
    }
    try expectEqual(start_ns + 2 * s, kernel.now_ns);
    try expectEqual(.requesting, other.state());
    try expectEqual(.connecting, bed.connection.state());
}

test "lookup: a signal ends a wait for it and harms nothing" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.thenLookUp(.{ .answered = .{ .after_ns = s } });
    kernel.interrupts = 2;
    try bed.start();
    for (0..2) |_| {
        try bed.pump();
        try expectEqual(.interrupted, try bed.waitFor(null));
    }
    try bed.drive();
    try expectEqual(.requesting, bed.connection.state());
}

test "lookup: a connection that busy polls sleeps until the name is known" {
    var options = websocket_options;
    options.busy_poll = true;
    var bed = try Bed.init(options);
    defer bed.deinit();
    kernel.thenLookUp(.{ .answered = .{ .after_ns = s } });
    try bed.start();
    try bed.pump();
    try expect(!bed.connection.spins());
    try expectEqual(.ready, try bed.waitFor(null));
    try bed.pump();
    try expectEqual(.requesting, bed.connection.state());
}

fn openSockets() usize {
    var count: usize = 0;
    for (kernel.sockets) |socket| count += @intFromBool(socket != null);
    return count;
}
