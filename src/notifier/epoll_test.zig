//! Tests of `epoll.zig` on a kernel that counts its calls, and returns what the test has set.

const std = @import("std");
const assert = std.debug.assert;
const EPOLL = std.os.linux.EPOLL;

const os = @import("../os.zig");
const constants = @import("../constants.zig");
const epoll = @import("epoll.zig");

const testing = std.testing;
const Descriptor = os.Descriptor;
const Notifier = epoll.NotifierType(ScriptedOs);
const Ready = os.Ready;
const Watch = Notifier.Watch;

const ScriptedOs = struct {
    pub const EpollOperation = enum { add, modify, remove };
    pub const EpollEvent = std.os.linux.epoll_event;

    var changes: u32 = 0;
    var operation_last: ?EpollOperation = null;
    var descriptor_last: Descriptor = -1;
    var event_last: EpollEvent = undefined;
    var failure: ?os.WatchError = null;
    var waits: [8]c_int = undefined;
    var waits_count: usize = 0;
    var waits_ns: u32 = 0;
    var events_ready: []const EpollEvent = &.{};

    /// The notifier's own descriptors. No other one has these numbers.
    const signal = 1000;
    const alarm = 1001;

    fn reset() void {
        changes = 0;
        operation_last = null;
        waits_count = 0;
        waits_ns = 0;
        events_ready = &.{};
        failure = null;
    }

    pub fn epollCreate() os.NotifierError!Descriptor {
        return 3;
    }
    pub fn eventCreate() os.NotifierError!Descriptor {
        return signal;
    }
    pub fn eventRaise(_: Descriptor) void {}
    pub fn eventLower(_: Descriptor) void {}
    pub fn timerCreate() os.NotifierError!Descriptor {
        return alarm;
    }
    pub fn timerSet(_: Descriptor, _: ?u64) void {}
    pub fn close(_: Descriptor) void {}
    pub fn epollControl(
        descriptor: Descriptor,
        operation: EpollOperation,
        watched: Descriptor,
        event: EpollEvent,
    ) os.WatchError!void {
        assert(descriptor == 3);
        if (watched == signal or watched == alarm) return;
        changes += 1;
        operation_last = operation;
        descriptor_last = watched;
        event_last = event;
        if (failure) |cause| return cause;
    }
    pub fn epollWait(
        _: Descriptor,
        events: []EpollEvent,
        timeout_ms: c_int,
    ) os.PollError!usize {
        waits[waits_count] = timeout_ms;
        waits_count += 1;
        const count = @min(events.len, events_ready.len);
        @memcpy(events[0..count], events_ready[0..count]);
        return count;
    }
    pub fn epollWaitNs(_: Descriptor, _: []EpollEvent, _: u64) os.PollError!usize {
        waits_ns += 1;
        return error.Unsupported;
    }
};

fn eventOf(watch: *Watch, events: u32) ScriptedOs.EpollEvent {
    return .{ .events = events, .data = .{ .ptr = @intFromPtr(watch) } };
}

test "epoll: watching for the same interest again makes no system call" {
    ScriptedOs.reset();
    var notifier: Notifier = try .init();
    defer notifier.deinit();
    var watch: Watch = .{};
    try notifier.watch(&watch, 5, .{ .readable = true });
    try testing.expectEqual(ScriptedOs.EpollOperation.add, ScriptedOs.operation_last.?);
    for (0..3) |_| try notifier.watch(&watch, 5, .{ .readable = true });
    try testing.expectEqual(@as(u32, 1), ScriptedOs.changes);
    try notifier.watch(&watch, 5, .{ .readable = true, .writable = true });
    try testing.expectEqual(ScriptedOs.EpollOperation.modify, ScriptedOs.operation_last.?);
    try testing.expectEqual(@as(u32, EPOLL.IN | EPOLL.OUT), ScriptedOs.event_last.events);
    try testing.expectEqual(@intFromPtr(&watch), ScriptedOs.event_last.data.ptr);
    var other: Watch = .{};
    other.cancel();
    notifier.unwatch(&other);
    try testing.expectEqual(@as(u32, 2), ScriptedOs.changes);
    watch.cancel();
    watch.cancel();
    try testing.expectEqual(@as(u32, 3), ScriptedOs.changes);
    try testing.expectEqual(ScriptedOs.EpollOperation.remove, ScriptedOs.operation_last.?);
}

test "epoll: a watch that is given another descriptor removes the first" {
    ScriptedOs.reset();
    var notifier: Notifier = try .init();
    defer notifier.deinit();
    var watch: Watch = .{};
    try notifier.watch(&watch, 5, .{ .readable = true });
    watch.ready = .{ .readable = true };
    ScriptedOs.failure = error.WatchLimit;
    // Then nothing is watched, and the next try adds it.
    const result = notifier.watch(&watch, 6, .{ .readable = true });
    try testing.expectError(error.WatchLimit, result);
    try testing.expectEqual(@as(u32, 3), ScriptedOs.changes);
    try testing.expectEqualDeep(Watch{}, watch);
    ScriptedOs.failure = null;
    try notifier.watch(&watch, 6, .{ .readable = true });
    try testing.expectEqual(ScriptedOs.EpollOperation.add, ScriptedOs.operation_last.?);
    try testing.expectEqual(@as(Descriptor, 6), ScriptedOs.descriptor_last);
    try testing.expectEqual(Ready{}, watch.take());
    watch.cancel();
}

test "epoll: a change that fails leaves what was watched" {
    ScriptedOs.reset();
    var notifier: Notifier = try .init();
    defer notifier.deinit();
    var watch: Watch = .{};
    try notifier.watch(&watch, 5, .{ .readable = true });
    ScriptedOs.failure = error.OutOfMemory;
    const result = notifier.watch(&watch, 5, .{ .writable = true });
    try testing.expectError(error.OutOfMemory, result);
    try testing.expect(watch.matches(5, .{ .readable = true }));
    ScriptedOs.failure = null;
    watch.cancel();
}

test "epoll: a disowned notifier changes nothing in the kernel" {
    ScriptedOs.reset();
    var notifier: Notifier = try .init();
    var watch: Watch = .{};
    try notifier.watch(&watch, 5, .{ .readable = true });
    notifier.disown();
    watch.cancel();
    try testing.expectEqualDeep(Watch{}, watch);
    notifier.deinit();
    try testing.expectEqual(@as(u32, 1), ScriptedOs.changes);
}

test "epoll: one wait notes readiness in every watch, up to the limit of events" {
    ScriptedOs.reset();
    var notifier: Notifier = try .init();
    defer notifier.deinit();
    var watches: [constants.events_per_wait_max + 1]Watch = @splat(.{});
    var events: [watches.len]ScriptedOs.EpollEvent = undefined;
    for (&watches, &events, 10..) |*watch, *event, descriptor| {
        try notifier.watch(watch, @intCast(descriptor), .{ .readable = true, .writable = true });
        event.* = eventOf(watch, if (descriptor % 2 == 0) EPOLL.IN else EPOLL.OUT);
    }
    defer for (&watches) |*watch| watch.cancel();
    ScriptedOs.events_ready = &events;
    try testing.expectEqual(.ready, try notifier.wait(null));
    for (watches[0..constants.events_per_wait_max], 10..) |*watch, descriptor| {
        const is_even = descriptor % 2 == 0;
        const expected: Ready = .{ .readable = is_even, .writable = !is_even };
        try testing.expectEqual(expected, watch.take());
        try testing.expectEqual(Ready{}, watch.take());
    }
    try testing.expectEqual(Ready{}, watches[constants.events_per_wait_max].take());
}

test "epoll: without epoll_pwait2, which is tried once, time-outs are rounded up to ms" {
    ScriptedOs.reset();
    var notifier: Notifier = try .init();
    defer notifier.deinit();
    const milliseconds = std.time.ns_per_ms;
    for ([_]u64{ 1, milliseconds, milliseconds + 1 }) |timeout_ns| {
        try testing.expectEqual(.timed_out, try notifier.wait(timeout_ns));
    }
    try testing.expectEqual(.timed_out, try notifier.wait(0));
    try testing.expectEqual(@as(u32, 1), ScriptedOs.waits_ns);
    try testing.expectEqualSlices(c_int, &.{ 1, 1, 2, 0 }, ScriptedOs.waits[0..4]);
}

test "epoll: a time-out longer than the kernel's limit is waited for in parts" {
    ScriptedOs.reset();
    var notifier: Notifier = try .init();
    defer notifier.deinit();
    const timeout_ms = 2 * @as(u64, std.math.maxInt(c_int)) + 5;
    try testing.expectEqual(.timed_out, try notifier.wait(timeout_ms * std.time.ns_per_ms));
    const waits = [_]c_int{ std.math.maxInt(c_int), std.math.maxInt(c_int), 5 };
    try testing.expectEqualSlices(c_int, &waits, ScriptedOs.waits[0..ScriptedOs.waits_count]);
}

test "epoll: an error makes a descriptor readable, and writable if that is waited for" {
    ScriptedOs.reset();
    var notifier: Notifier = try .init();
    defer notifier.deinit();
    var watch: Watch = .{};
    defer watch.cancel();
    for ([_]u32{ EPOLL.ERR, EPOLL.HUP }) |events| {
        ScriptedOs.events_ready = &.{eventOf(&watch, events)};
        try notifier.watch(&watch, 5, .{ .readable = true });
        try testing.expectEqual(.ready, try notifier.wait(null));
        try testing.expectEqual(Ready{ .readable = true }, watch.take());
        try notifier.watch(&watch, 5, .{ .writable = true });
        try testing.expectEqual(.ready, try notifier.wait(null));
        try testing.expectEqual(Ready{ .readable = true, .writable = true }, watch.take());
    }
}
