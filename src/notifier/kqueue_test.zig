//! Tests of `kqueue.zig`: on a Mac, and elsewhere on a stand-in for its kernel.

const std = @import("std");
const builtin = @import("builtin");

const constants = @import("../constants.zig");
const os = @import("../os.zig");
const TestListener = @import("../testing/listener.zig").TestListener;
const kqueue_module = @import("kqueue.zig");

const testing = std.testing;
const Descriptor = os.Descriptor;
const Interest = os.Interest;
const Ready = os.Ready;
const Watch = TestNotifier.Watch;
const TestOs = switch (builtin.os.tag) {
    .linux => @import("darwin_on_linux"),
    else => os.Os,
};
const TestNotifier = kqueue_module.NotifierType(CountingOs);

/// The platform, except that it counts its system calls and has a small limit on time-outs.
const CountingOs = struct {
    pub const KernelEvent = TestOs.KernelEvent;
    pub const kqueue_timeout_ns_max = 20 * std.time.ns_per_ms;
    pub const close = TestOs.close;
    pub const monotonicNs = TestOs.monotonicNs;

    var changes: u32 = 0;
    var waits: u32 = 0;
    /// The error of the next change, after this many that work.
    var failure: ?os.WatchError = null;
    var works: u32 = 0;

    pub fn kqueueCreate() os.NotifierError!Descriptor {
        changes = 0;
        waits = 0;
        failure = null;
        works = 0;
        return TestOs.kqueueCreate();
    }

    pub fn kqueueChange(kqueue: Descriptor, event: *const KernelEvent) os.WatchError!void {
        changes += 1;
        if (failure) |cause| {
            if (works == 0) return cause;
            works -= 1;
        }
        return TestOs.kqueueChange(kqueue, event);
    }

    pub fn kqueueWait(
        kqueue: Descriptor,
        events: []KernelEvent,
        timeout_ns: ?u64,
    ) os.PollError!usize {
        waits += 1;
        return TestOs.kqueueWait(kqueue, events, timeout_ns);
    }
};

/// A limit that is never reached.
const test_timeout_ns = 10 * std.time.ns_per_s;

/// A connected pair and a notifier for the client's end.
const TestBed = struct {
    client: Descriptor,
    server: Descriptor,
    notifier: TestNotifier,
    watch: Watch = .{},

    fn open() !TestBed {
        const listener: TestListener = .open(true);
        defer listener.deinit();
        var notifier: TestNotifier = try .init();
        errdefer notifier.deinit();
        const client = try TestOs.openSocket(&listener.address);
        errdefer TestOs.close(client);
        const state = try TestOs.connect(client, &listener.address);
        var connecting: Watch = .{};
        try notifier.watch(&connecting, client, .{ .writable = true });
        if (state == .in_progress) {
            try testing.expectEqual(.ready, try notifier.wait(test_timeout_ns));
            try testing.expectEqual(Ready{ .writable = true }, connecting.take());
        }
        try TestOs.connectResult(client);
        connecting.cancel(); // The bed moves.
        CountingOs.changes = 0;
        return .{ .client = client, .server = listener.accept(), .notifier = notifier };
    }

    fn deinit(bed: *TestBed) void {
        bed.watch.cancel();
        bed.notifier.deinit();
        TestOs.close(bed.client);
        TestOs.close(bed.server);
    }

    fn watchFor(bed: *TestBed, interest: Interest) !void {
        try bed.notifier.watch(&bed.watch, bed.client, interest);
    }

    /// Waits until the client's end is ready for exactly this.
    fn expectReady(bed: *TestBed, expected: Ready) !void {
        try testing.expectEqual(.ready, try bed.notifier.wait(test_timeout_ns));
        try testing.expectEqual(expected, bed.watch.take());
    }

    fn expectNothing(bed: *TestBed) !void {
        try testing.expectEqual(.timed_out, try bed.notifier.wait(0));
        try testing.expectEqual(Ready{}, bed.watch.take());
    }
};

test "kqueue: readiness follows the interest, and the same interest makes no system call" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.watchFor(.{ .readable = true, .writable = true });
    try bed.expectReady(.{ .writable = true });
    try testing.expectEqual(@as(u32, 2), CountingOs.changes);
    try bed.watchFor(.{ .readable = true });
    try bed.watchFor(.{ .readable = true });
    try testing.expectEqual(@as(u32, 3), CountingOs.changes);
    try bed.expectNothing();

    try testing.expectEqual(@as(usize, 1), try TestOs.send(bed.server, "x"));
    try testing.expectEqual(.ready, try bed.notifier.wait(null));
    try testing.expectEqual(Ready{ .readable = true }, bed.watch.take());
    try bed.watchFor(.{ .readable = true, .writable = true });
    try bed.expectReady(.{ .readable = true, .writable = true });

    var other: Watch = .{};
    other.cancel();
    bed.notifier.unwatch(&other);
    bed.watch.cancel();
    bed.watch.cancel();
    try testing.expectEqual(@as(u32, 6), CountingOs.changes);
    try bed.expectNothing();
}

test "kqueue: a disowned notifier closes and changes nothing" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.watchFor(.{ .readable = true });
    const kept = .{ bed.notifier, bed.watch };
    bed.notifier.disown(); // As in the copy in a forked process.
    bed.watch.cancel();
    bed.notifier.deinit();
    try testing.expectEqual(@as(u32, 1), CountingOs.changes);
    bed.notifier, bed.watch = kept;
    try testing.expectEqual(@as(usize, 1), try TestOs.send(bed.server, "x"));
    try bed.expectReady(.{ .readable = true });
}

test "kqueue: unread bytes are reported again, because it is level-triggered" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.watchFor(.{ .readable = true });
    try testing.expectEqual(@as(usize, 2), try TestOs.send(bed.server, "xy"));
    var byte: [1]u8 = undefined;
    for (0..2) |_| {
        try bed.expectReady(.{ .readable = true });
        try testing.expectEqual(@as(usize, 1), try TestOs.receive(bed.client, &byte, null));
    }
    try bed.expectNothing();
    try testing.expectEqual(@as(u32, 1), CountingOs.changes);
}

test "kqueue: the end of the stream makes only readable, a reset at least readable" {
    var bed = try TestBed.open();
    defer bed.deinit();
    TestOs.shutdownSend(bed.server);
    try bed.watchFor(.{ .readable = true });
    try bed.expectReady(.{ .readable = true });
    try testing.expectEqual(.SUCCESS, bed.watch.told);

    var other = try TestBed.open();
    try other.watchFor(.{ .readable = true });
    TestListener.reset(other.server);
    try testing.expectEqual(.ready, try other.notifier.wait(test_timeout_ns));
    try testing.expect(other.watch.take().readable);
    try testing.expectEqual(.CONNRESET, other.watch.told);
    other.watch.cancel();
    other.notifier.deinit();
    TestOs.close(other.client);
}

test "kqueue: a failed connect makes readable and writable" {
    const listener: TestListener = .open(false);
    defer listener.deinit();
    const client = try TestOs.openSocket(&listener.address);
    defer TestOs.close(client);
    if (TestOs.connect(client, &listener.address)) |_| {
        var notifier: TestNotifier = try .init();
        defer notifier.deinit();
        var watch: Watch = .{};
        try notifier.watch(&watch, client, .{ .writable = true });
        try testing.expectEqual(.ready, try notifier.wait(test_timeout_ns));
        try testing.expectEqual(Ready{ .readable = true, .writable = true }, watch.take());
        try testing.expectEqual(.CONNREFUSED, watch.told);
        watch.cancel();
        try testing.expectEqual(.SUCCESS, watch.told); // The next socket starts without it.
    } else |failure| try testing.expectEqual(error.ConnectionRefused, failure);
}

test "kqueue: unwatch works after the descriptor was closed" {
    var bed = try TestBed.open();
    const client = bed.client;
    try bed.watchFor(.{ .readable = true, .writable = true });
    TestOs.close(client);
    bed.watch.cancel();
    try bed.expectNothing();
    // A new socket gets the same number, and is watched for one thing only.
    const listener: TestListener = .open(true);
    defer listener.deinit();
    const again = try TestOs.openSocket(&listener.address);
    try testing.expectEqual(client, again);
    bed.client = again;
    defer bed.deinit();
    _ = try TestOs.connect(again, &listener.address);
    TestOs.close(listener.accept());
    try bed.watchFor(.{ .readable = true });
    try bed.expectReady(.{ .readable = true });
}

test "kqueue: when half of a change fails, the watch says what the kernel still watches" {
    var bed = try TestBed.open();
    defer bed.deinit();
    CountingOs.failure = error.OutOfMemory;
    CountingOs.works = 1;
    const both: Interest = .{ .readable = true, .writable = true };
    try testing.expectError(error.OutOfMemory, bed.watchFor(both));
    try testing.expect(bed.watch.matches(bed.client, .{ .readable = true }));
    CountingOs.failure = null;
    try bed.expectNothing();
    try bed.watchFor(both);
    try testing.expectEqual(@as(u32, 3), CountingOs.changes);
    try bed.expectReady(.{ .writable = true });

    // When the first change fails entirely, nothing is watched.
    bed.watch.cancel();
    CountingOs.failure = error.OutOfMemory;
    try testing.expectError(error.OutOfMemory, bed.watchFor(both));
    try testing.expectEqualDeep(Watch{}, bed.watch);
    try testing.expectEqual(@as(u32, 0), bed.notifier.watches);
}

test "kqueue: if one filter cannot be deleted, the other one still is" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.watchFor(.{ .readable = true, .writable = true });
    CountingOs.failure = error.OutOfMemory;
    bed.watch.cancel();
    try testing.expectEqual(@as(u32, 4), CountingOs.changes);
    try testing.expectEqualDeep(Watch{}, bed.watch);
}

test "kqueue: many descriptors with two filters each, after some watches changed descriptor" {
    var beds: [constants.events_per_wait_max / 2 + 3]TestBed = undefined;
    for (&beds) |*bed| bed.* = try .open();
    defer for (&beds) |*bed| bed.deinit();
    var notifier: TestNotifier = try .init();
    defer notifier.deinit();
    var watches: [beds.len]Watch = @splat(.{});
    const both: Interest = .{ .readable = true, .writable = true };
    for (&beds, &watches) |*bed, *watch| {
        try testing.expectEqual(@as(usize, 1), try TestOs.send(bed.server, "x"));
        try notifier.watch(watch, bed.client, both);
    }
    watches[0].cancel();
    try notifier.watch(&watches[1], beds[0].client, .{ .writable = true });
    defer for (&watches) |*watch| watch.cancel();
    // Each filter is an event: they do not all fit into one wait, and nothing is read.
    var told: [beds.len]Ready = @splat(.{});
    var whole: usize = 0;
    for (0..1000) |_| {
        if (whole == beds.len - 2) break;
        try testing.expectEqual(.ready, try notifier.wait(test_timeout_ns));
        for (&watches, &told) |*watch, *ready| {
            const now = watch.take();
            ready.readable = ready.readable or now.readable;
            ready.writable = ready.writable or now.writable;
        }
        whole = 0;
        for (told[2..]) |ready| whole += @intFromBool(ready.readable and ready.writable);
    } else return error.TestUnexpectedResult;
    try testing.expectEqual(Ready{}, told[0]);
    try testing.expectEqual(Ready{ .writable = true }, told[1]);
}

test "kqueue: a signal and an alarm, with a filter each" {
    var notifier: TestNotifier = try .init();
    defer notifier.deinit();
    try testing.expectEqual(.timed_out, try notifier.wait(0));
    for (0..2) |_| {
        notifier.raise();
        notifier.raise();
        try testing.expectEqual(.ready, try notifier.wait(null));
        try testing.expectEqual(.ready, try notifier.wait(null));
        notifier.lower();
        try testing.expectEqual(.timed_out, try notifier.wait(0));
    }
    const start_ns = TestOs.monotonicNs();
    try notifier.arm(null);
    try notifier.arm(start_ns + std.time.ns_per_hour);
    try testing.expectEqual(.timed_out, try notifier.wait(0));
    try notifier.arm(start_ns + std.time.ns_per_ms);
    try testing.expectEqual(.ready, try notifier.wait(null));
    try testing.expect(TestOs.monotonicNs() >= start_ns + std.time.ns_per_ms);
    try testing.expectEqual(.timed_out, try notifier.wait(0)); // It is reported once.
    try notifier.arm(0);
    try notifier.arm(null);
    try testing.expectEqual(.timed_out, try notifier.wait(0));
    try testing.expectEqual(@as(usize, 0), notifier.found().len);
}

test "kqueue: a time-out longer than the kernel's limit is waited for in parts" {
    var notifier: TestNotifier = try .init();
    defer notifier.deinit();
    const timeout_ns = 2 * CountingOs.kqueue_timeout_ns_max + 1;
    const before_ns = TestOs.monotonicNs();
    try testing.expectEqual(.timed_out, try notifier.wait(timeout_ns));
    try testing.expect(TestOs.monotonicNs() - before_ns >= timeout_ns);
    try testing.expectEqual(@as(u32, 3), CountingOs.waits);
}

test "kqueue: a local socket whose peer has shut down is readable, and tells no error" {
    const pair = try TestOs.socketPair();
    defer for (pair) |end| TestOs.close(end);
    var notifier: TestNotifier = try .init();
    defer notifier.deinit();
    var watch: Watch = .{};
    defer watch.cancel();
    try notifier.watch(&watch, pair[0], .{ .readable = true });
    try testing.expectEqual(.timed_out, try notifier.wait(0));
    TestOs.shutdownSend(pair[1]);
    for (0..2) |_| {
        try testing.expectEqual(.ready, try notifier.wait(test_timeout_ns));
        try testing.expectEqual(Ready{ .readable = true }, watch.take());
        try testing.expectEqual(std.c.E.SUCCESS, watch.told);
    }
}
