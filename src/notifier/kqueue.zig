//! The notifier of macOS: kqueue(2), level-triggered: one filter to read, one to write.
//!
//! Invariant: the kernel has a filter for exactly what `watched` says.

const std = @import("std");
const assert = std.debug.assert;

const os = @import("../os.zig");

const Descriptor = os.Descriptor;
const Interest = os.Interest;
const Ready = os.Ready;

/// `Os` needs `kqueueCreate`, `kqueueChange`, `kqueueWait`, `KernelEvent`, `kqueue_timeout_ns_max`
/// and `close`.
pub fn NotifierType(comptime Os: type) type {
    return struct {
        kqueue: Descriptor,
        watched: ?Watched,

        const Notifier = @This();
        const KernelEvent = Os.KernelEvent;

        const Watched = struct { descriptor: Descriptor, interest: Interest };

        pub fn init() os.NotifierError!Notifier {
            return .{ .kqueue = try Os.kqueueCreate(), .watched = null };
        }

        pub fn deinit(notifier: *Notifier) void {
            Os.close(notifier.kqueue);
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
            if (notifier.watched) |watched| assert(watched.descriptor == watched_descriptor);
            // Kept up to date filter by filter, so that it is true also when the second one fails.
            if (notifier.watched == null) {
                notifier.watched = .{ .descriptor = watched_descriptor, .interest = .{} };
            }
            errdefer if (notifier.watched.?.interest == Interest{}) {
                notifier.watched = null;
            };
            const kept = &notifier.watched.?.interest;
            if (kept.readable != interest.readable) {
                try notifier.change(KernelEvent.filter_read, interest.readable);
                kept.readable = interest.readable;
            }
            if (kept.writable != interest.writable) {
                try notifier.change(KernelEvent.filter_write, interest.writable);
                kept.writable = interest.writable;
            }
            assert(kept.* == interest);
        }

        /// Nothing when it is not watched.
        pub fn unwatch(notifier: *Notifier, watched_descriptor: Descriptor) void {
            const watched = notifier.watched orelse return;
            if (watched.descriptor != watched_descriptor) return;
            notifier.watch(watched_descriptor, .{}) catch |failure| switch (failure) {
                // It was closed first, and its number belongs to something else now.
                error.WatchLimit, error.OutOfMemory, error.Unexpected => {},
            };
            notifier.watched = null;
        }

        fn change(notifier: *Notifier, filter: i16, add: bool) os.WatchError!void {
            const event: KernelEvent = .{
                .ident = @intCast(notifier.watched.?.descriptor),
                .filter = filter,
                .flags = if (add) KernelEvent.flag_add else KernelEvent.flag_delete,
                .fflags = 0,
                .data = 0,
                .udata = 0,
            };
            return Os.kqueueChange(notifier.kqueue, &event);
        }

        /// See notifier.zig.
        pub fn wait(notifier: *Notifier, timeout_ns: ?u64) os.WaitError!Ready {
            var events: [filters_max]KernelEvent = undefined;
            var rest_ns = timeout_ns;
            while (true) {
                const part_ns: ?u64 = if (rest_ns) |rest|
                    @min(rest, Os.kqueue_timeout_ns_max)
                else
                    null;
                const result = Os.kqueueWait(notifier.kqueue, &events, part_ns);
                const count = result catch |failure| switch (failure) {
                    error.Interrupted => return .{ .interrupted = true },
                    error.OutOfMemory => return error.OutOfMemory,
                    error.Unsupported, error.Unexpected => return error.Unexpected,
                };
                if (count > 0) return notifier.readyOf(events[0..count]);
                rest_ns = (rest_ns orelse continue) - part_ns.?;
                if (rest_ns.? == 0) return .{ .timed_out = true };
            }
        }

        fn readyOf(notifier: *const Notifier, events: []const KernelEvent) Ready {
            var ready: Ready = .{};
            for (events) |event| {
                switch (event.filter) {
                    KernelEvent.filter_read => ready.readable = true,
                    KernelEvent.filter_write => ready.writable = true,
                    else => unreachable,
                }
                // The writer's end of file is a dead connection, or a connect that failed: the
                // reader wants to know as well. The reader's is an ordinary end of the stream.
                if (event.flags & KernelEvent.flag_end_of_file != 0) ready.readable = true;
            }
            assert(notifier.watched != null);
            return ready;
        }

        /// Readable when the watched descriptor is ready. The notifier keeps it.
        pub fn descriptor(notifier: *const Notifier) Descriptor {
            return notifier.kqueue;
        }
    };
}

const filters_max = 2;

const testing = std.testing;
const c = std.c;

/// kqueue on top of poll(2), for one kqueue and one descriptor, so that the code above runs against
/// real sockets on every system.
const PolledOs = struct {
    pub const KernelEvent = @import("../os/darwin.zig").KernelEvent;
    pub const kqueue_timeout_ns_max = 20 * std.time.ns_per_ms;
    pub const close = os.Os.close;

    var filters: [filters_max]?usize = @splat(null);
    var changes: u32 = 0;
    var waits: u32 = 0;

    fn filter(event: *const KernelEvent) *?usize {
        return &filters[if (event.filter == KernelEvent.filter_read) 0 else 1];
    }

    pub fn kqueueCreate() os.NotifierError!Descriptor {
        filters = @splat(null);
        changes = 0;
        waits = 0;
        const stand_in = c.dup(0);
        assert(stand_in >= 0);
        return stand_in;
    }

    pub fn kqueueChange(_: Descriptor, event: *const KernelEvent) os.WatchError!void {
        changes += 1;
        switch (event.flags) {
            KernelEvent.flag_add => filter(event).* = event.ident,
            KernelEvent.flag_delete => {
                assert(filter(event).* == event.ident);
                filter(event).* = null;
            },
            else => unreachable,
        }
    }

    pub fn kqueueWait(
        _: Descriptor,
        events: []KernelEvent,
        timeout_ns: ?u64,
    ) os.PollError!usize {
        waits += 1;
        const masks = [filters_max]i16{ c.POLL.IN, c.POLL.OUT };
        var list: [filters_max]c.pollfd = undefined;
        for (&list, filters, masks) |*item, ident, mask| {
            const watched: Descriptor = if (ident) |number| @intCast(number) else -1;
            item.* = .{ .fd = watched, .events = mask, .revents = 0 };
        }
        const timeout_ms: c_int = if (timeout_ns) |timeout|
            @intCast(std.math.divCeil(u64, timeout, std.time.ns_per_ms) catch unreachable)
        else
            -1;
        const status = c.poll(&list, list.len, timeout_ms);
        if (status < 0) return error.Interrupted;
        var count: usize = 0;
        const numbers = [filters_max]i16{ KernelEvent.filter_read, KernelEvent.filter_write };
        for (list, numbers) |item, number| {
            if (item.revents == 0) continue;
            const failed = item.revents & (c.POLL.HUP | c.POLL.ERR) != 0;
            events[count] = .{
                .ident = @intCast(item.fd),
                .filter = number,
                .flags = if (failed) KernelEvent.flag_end_of_file else 0,
                .fflags = 0,
                .data = 0,
                .udata = 0,
            };
            count += 1;
        }
        return count;
    }
};

const PolledNotifier = NotifierType(PolledOs);

/// Never reached.
const test_timeout_ns = 10 * std.time.ns_per_s;

test "kqueue: readiness follows the interest, and the same interest is no system call" {
    const listener: os.TestListener = .open(true);
    defer listener.deinit();
    const client = try os.Os.openSocket(&listener.address);
    defer os.Os.close(client);
    _ = try os.Os.connect(client, &listener.address);
    const server = listener.accept();
    defer os.Os.close(server);

    var notifier: PolledNotifier = try .init();
    defer notifier.deinit();
    try notifier.watch(client, .{ .readable = true, .writable = true });
    try testing.expectEqual(Ready{ .writable = true }, try notifier.wait(test_timeout_ns));
    try testing.expectEqual(@as(u32, 2), PolledOs.changes);
    try notifier.watch(client, .{ .readable = true });
    try notifier.watch(client, .{ .readable = true });
    try testing.expectEqual(@as(u32, 3), PolledOs.changes);
    try testing.expectEqual(Ready{ .timed_out = true }, try notifier.wait(0));

    try testing.expectEqual(@as(usize, 1), try os.Os.send(server, "x"));
    try testing.expectEqual(Ready{ .readable = true }, try notifier.wait(null));
    try notifier.watch(client, .{ .readable = true, .writable = true });
    const both: Ready = .{ .readable = true, .writable = true };
    try testing.expectEqual(both, try notifier.wait(null));

    notifier.unwatch(client + 1);
    notifier.unwatch(client);
    notifier.unwatch(client);
    try testing.expectEqual(@as(u32, 6), PolledOs.changes);
    try testing.expectEqual(Ready{ .timed_out = true }, try notifier.wait(0));
}

test "kqueue: a connect that fails is for the writer and the reader" {
    const listener: os.TestListener = .open(false);
    defer listener.deinit();
    const client = try os.Os.openSocket(&listener.address);
    defer os.Os.close(client);
    if (os.Os.connect(client, &listener.address)) |_| {
        var notifier: PolledNotifier = try .init();
        defer notifier.deinit();
        try notifier.watch(client, .{ .writable = true });
        const both: Ready = .{ .readable = true, .writable = true };
        try testing.expectEqual(both, try notifier.wait(test_timeout_ns));
        notifier.unwatch(client);
    } else |failure| try testing.expectEqual(error.ConnectionRefused, failure);
}

test "kqueue: a time-out longer than the kernel's is waited for in parts" {
    var notifier: PolledNotifier = try .init();
    defer notifier.deinit();
    const timeout_ns = 2 * PolledOs.kqueue_timeout_ns_max + 1;
    const before_ns = os.Os.monotonicNs();
    try testing.expectEqual(Ready{ .timed_out = true }, try notifier.wait(timeout_ns));
    try testing.expect(os.Os.monotonicNs() - before_ns >= timeout_ns);
    try testing.expectEqual(@as(u32, 3), PolledOs.waits);
}
