//! The notifier of Linux: epoll(7), level-triggered, with time-outs in nanoseconds where the kernel
//! has them (epoll_pwait2, Linux 5.11) and rounded up to milliseconds where not.
//!
//! Invariant: `watched` is what the kernel watches.

const std = @import("std");
const assert = std.debug.assert;
const EPOLL = std.os.linux.EPOLL;

const os = @import("../os.zig");

const Descriptor = os.Descriptor;
const Interest = os.Interest;
const Ready = os.Ready;

/// `Os` needs `epollCreate`, `epollControl`, `epollWait`, `epollWaitNs` and `close`.
pub fn NotifierType(comptime Os: type) type {
    return struct {
        epoll: Descriptor,
        watched: ?Watched,
        /// False once the kernel has said that it does not know epoll_pwait2.
        nanoseconds: bool,

        const Notifier = @This();

        const Watched = struct { descriptor: Descriptor, interest: Interest };

        pub fn init() os.NotifierError!Notifier {
            return .{ .epoll = try Os.epollCreate(), .watched = null, .nanoseconds = true };
        }

        pub fn deinit(notifier: *Notifier) void {
            Os.close(notifier.epoll);
            notifier.* = undefined;
        }

        /// Adds the descriptor, or changes what it is watched for: no call when that is the same.
        /// Asserts that no other descriptor is watched.
        pub fn watch(
            notifier: *Notifier,
            watched_descriptor: Descriptor,
            interest: Interest,
        ) os.WatchError!void {
            assert(watched_descriptor >= 0);
            if (notifier.watched) |watched| {
                assert(watched.descriptor == watched_descriptor);
                if (watched.interest == interest) return;
            }
            const operation: Os.EpollOperation = if (notifier.watched == null) .add else .modify;
            const events = eventsOf(interest);
            try Os.epollControl(notifier.epoll, operation, watched_descriptor, events);
            notifier.watched = .{ .descriptor = watched_descriptor, .interest = interest };
        }

        /// Nothing when it is not watched.
        pub fn unwatch(notifier: *Notifier, watched_descriptor: Descriptor) void {
            const watched = notifier.watched orelse return;
            if (watched.descriptor != watched_descriptor) return;
            notifier.watched = null;
            Os.epollControl(notifier.epoll, .remove, watched_descriptor, 0) catch |failure| {
                switch (failure) {
                    // It was closed first, and its number belongs to something else now.
                    error.WatchLimit, error.OutOfMemory, error.Unexpected => {},
                }
            };
        }

        /// See notifier.zig. The instance is the parent's as well; the descriptor is our own.
        pub fn disown(notifier: *Notifier) void {
            notifier.watched = null;
        }

        /// See notifier.zig.
        pub fn wait(notifier: *Notifier, timeout_ns: ?u64) os.WaitError!Ready {
            const result = if (timeout_ns) |timeout|
                notifier.waitTimeout(timeout)
            else
                Os.epollWait(notifier.epoll, -1);
            const events = result catch |failure| switch (failure) {
                error.Interrupted => return .{ .interrupted = true },
                error.OutOfMemory => return error.OutOfMemory,
                error.Unsupported, error.Unexpected => return error.Unexpected,
            } orelse return .{ .timed_out = true };
            return notifier.readyOf(events);
        }

        fn waitTimeout(notifier: *Notifier, timeout_ns: u64) os.PollError!?u32 {
            if (timeout_ns == 0) return Os.epollWait(notifier.epoll, 0);
            if (notifier.nanoseconds) {
                if (Os.epollWaitNs(notifier.epoll, timeout_ns)) |events| {
                    return events;
                } else |failure| switch (failure) {
                    error.Unsupported => notifier.nanoseconds = false,
                    error.Interrupted, error.OutOfMemory, error.Unexpected => return failure,
                }
            }
            return notifier.waitMilliseconds(timeout_ns);
        }

        /// Rounds up, and waits in parts for what is longer than the kernel's 24 days.
        fn waitMilliseconds(notifier: *Notifier, timeout_ns: u64) os.PollError!?u32 {
            var rest_ms = std.math.divCeil(u64, timeout_ns, std.time.ns_per_ms) catch unreachable;
            while (true) {
                const part_ms = @min(rest_ms, std.math.maxInt(c_int));
                if (try Os.epollWait(notifier.epoll, @intCast(part_ms))) |events| return events;
                rest_ms -= part_ms;
                if (rest_ms == 0) return null;
            }
        }

        fn readyOf(notifier: *const Notifier, events: u32) Ready {
            // Errors and hang-ups come unasked. Whoever waits to write (a connect) must see them.
            const failed = events & (EPOLL.ERR | EPOLL.HUP) != 0;
            const writes = if (notifier.watched) |watched| watched.interest.writable else false;
            return .{
                .readable = failed or events & EPOLL.IN != 0,
                .writable = events & EPOLL.OUT != 0 or (failed and writes),
            };
        }

        /// Readable when the watched descriptor is ready. The notifier keeps it.
        pub fn descriptor(notifier: *const Notifier) Descriptor {
            return notifier.epoll;
        }
    };
}

fn eventsOf(interest: Interest) u32 {
    var events: u32 = 0;
    if (interest.readable) events |= EPOLL.IN;
    if (interest.writable) events |= EPOLL.OUT;
    return events;
}

const testing = std.testing;

/// A kernel that counts, and answers what the test says.
const ScriptedOs = struct {
    pub const EpollOperation = enum { add, modify, remove };

    var changes: u32 = 0;
    var operation_last: ?EpollOperation = null;
    var events_last: u32 = 0;
    var waits: [8]c_int = undefined;
    var waits_count: usize = 0;
    var waits_ns: u32 = 0;
    var events_ready: ?u32 = null;

    fn reset() void {
        changes = 0;
        operation_last = null;
        waits_count = 0;
        waits_ns = 0;
        events_ready = null;
    }

    pub fn epollCreate() os.NotifierError!Descriptor {
        return 3;
    }
    pub fn close(_: Descriptor) void {}
    pub fn epollControl(
        epoll: Descriptor,
        operation: EpollOperation,
        _: Descriptor,
        events: u32,
    ) os.WatchError!void {
        assert(epoll == 3);
        changes += 1;
        operation_last = operation;
        events_last = events;
    }
    pub fn epollWait(_: Descriptor, timeout_ms: c_int) os.PollError!?u32 {
        waits[waits_count] = timeout_ms;
        waits_count += 1;
        return events_ready;
    }
    pub fn epollWaitNs(_: Descriptor, _: u64) os.PollError!?u32 {
        waits_ns += 1;
        return error.Unsupported;
    }
};

test "epoll: the same interest again is no system call" {
    ScriptedOs.reset();
    var notifier: NotifierType(ScriptedOs) = try .init();
    defer notifier.deinit();
    try notifier.watch(5, .{ .readable = true });
    try testing.expectEqual(ScriptedOs.EpollOperation.add, ScriptedOs.operation_last.?);
    for (0..3) |_| try notifier.watch(5, .{ .readable = true });
    try testing.expectEqual(@as(u32, 1), ScriptedOs.changes);
    try notifier.watch(5, .{ .readable = true, .writable = true });
    try testing.expectEqual(ScriptedOs.EpollOperation.modify, ScriptedOs.operation_last.?);
    try testing.expectEqual(@as(u32, EPOLL.IN | EPOLL.OUT), ScriptedOs.events_last);
    notifier.unwatch(6);
    try testing.expectEqual(@as(u32, 2), ScriptedOs.changes);
    notifier.unwatch(5);
    notifier.unwatch(5);
    try testing.expectEqual(@as(u32, 3), ScriptedOs.changes);
    try testing.expectEqual(ScriptedOs.EpollOperation.remove, ScriptedOs.operation_last.?);
}

test "epoll: without epoll_pwait2, which is tried once, milliseconds rounded up" {
    ScriptedOs.reset();
    var notifier: NotifierType(ScriptedOs) = try .init();
    defer notifier.deinit();
    const milliseconds = std.time.ns_per_ms;
    for ([_]u64{ 1, milliseconds, milliseconds + 1 }) |timeout_ns| {
        try testing.expect((try notifier.wait(timeout_ns)).timed_out);
    }
    try testing.expect((try notifier.wait(0)).timed_out);
    try testing.expectEqual(@as(u32, 1), ScriptedOs.waits_ns);
    try testing.expectEqualSlices(c_int, &.{ 1, 1, 2, 0 }, ScriptedOs.waits[0..4]);
}

test "epoll: a time-out longer than the kernel's is waited for in parts" {
    ScriptedOs.reset();
    var notifier: NotifierType(ScriptedOs) = try .init();
    defer notifier.deinit();
    const timeout_ms = 2 * @as(u64, std.math.maxInt(c_int)) + 5;
    try testing.expect((try notifier.wait(timeout_ms * std.time.ns_per_ms)).timed_out);
    const waits = [_]c_int{ std.math.maxInt(c_int), std.math.maxInt(c_int), 5 };
    try testing.expectEqualSlices(c_int, &waits, ScriptedOs.waits[0..ScriptedOs.waits_count]);
}

test "epoll: an error is for the reader, and for the writer who waits" {
    ScriptedOs.reset();
    var notifier: NotifierType(ScriptedOs) = try .init();
    defer notifier.deinit();
    for ([_]u32{ EPOLL.ERR, EPOLL.HUP }) |events| {
        ScriptedOs.events_ready = events;
        try notifier.watch(5, .{ .readable = true });
        try testing.expectEqual(Ready{ .readable = true }, try notifier.wait(null));
        try notifier.watch(5, .{ .writable = true });
        const both: Ready = .{ .readable = true, .writable = true };
        try testing.expectEqual(both, try notifier.wait(null));
    }
}
