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
        /// `none` once it is disowned.
        kqueue: Descriptor,
        watched: ?Watched,

        const Notifier = @This();
        const KernelEvent = Os.KernelEvent;

        const Watched = struct { descriptor: Descriptor, interest: Interest };

        const none: Descriptor = -1;

        pub fn init() os.NotifierError!Notifier {
            return .{ .kqueue = try Os.kqueueCreate(), .watched = null };
        }

        pub fn deinit(notifier: *Notifier) void {
            if (notifier.kqueue != none) Os.close(notifier.kqueue);
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

        /// See notifier.zig. A queue is not inherited: its number may be another descriptor's.
        pub fn disown(notifier: *Notifier) void {
            notifier.watched = null;
            notifier.kqueue = none;
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
const builtin = @import("builtin");
const TestOs = switch (builtin.os.tag) {
    .linux => @import("../testing/darwin_on_linux.zig"),
    else => os.Os,
};
const TestNotifier = NotifierType(CountingOs);

/// The platform, but that it counts its system calls and knows no long time-out.
const CountingOs = struct {
    pub const KernelEvent = TestOs.KernelEvent;
    pub const kqueue_timeout_ns_max = 20 * std.time.ns_per_ms;
    pub const close = TestOs.close;

    var changes: u32 = 0;
    var waits: u32 = 0;
    /// What the next change fails with, after this many that work.
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

/// Never reached.
const test_timeout_ns = 10 * std.time.ns_per_s;

/// A connected pair and a notifier for the client's end.
const TestBed = struct {
    client: Descriptor,
    server: Descriptor,
    notifier: TestNotifier,

    fn open() !TestBed {
        const listener: os.TestListener = .open(true);
        defer listener.deinit();
        var notifier: TestNotifier = try .init();
        errdefer notifier.deinit();
        const client = try TestOs.openSocket(&listener.address);
        errdefer TestOs.close(client);
        const state = try TestOs.connect(client, &listener.address);
        try notifier.watch(client, .{ .writable = true });
        if (state == .in_progress) {
            try testing.expectEqual(Ready{ .writable = true }, try notifier.wait(test_timeout_ns));
        }
        try TestOs.connectResult(client);
        notifier.unwatch(client);
        CountingOs.changes = 0;
        return .{ .client = client, .server = listener.accept(), .notifier = notifier };
    }

    fn deinit(bed: *TestBed) void {
        bed.notifier.deinit();
        TestOs.close(bed.client);
        TestOs.close(bed.server);
    }
};

test "kqueue: readiness follows the interest, and the same interest is no system call" {
    var bed = try TestBed.open();
    defer bed.deinit();
    const notifier = &bed.notifier;
    try notifier.watch(bed.client, .{ .readable = true, .writable = true });
    try testing.expectEqual(Ready{ .writable = true }, try notifier.wait(test_timeout_ns));
    try testing.expectEqual(@as(u32, 2), CountingOs.changes);
    try notifier.watch(bed.client, .{ .readable = true });
    try notifier.watch(bed.client, .{ .readable = true });
    try testing.expectEqual(@as(u32, 3), CountingOs.changes);
    try testing.expectEqual(Ready{ .timed_out = true }, try notifier.wait(0));

    try testing.expectEqual(@as(usize, 1), try TestOs.send(bed.server, "x"));
    try testing.expectEqual(Ready{ .readable = true }, try notifier.wait(null));
    try notifier.watch(bed.client, .{ .readable = true, .writable = true });
    const both: Ready = .{ .readable = true, .writable = true };
    try testing.expectEqual(both, try notifier.wait(null));

    notifier.unwatch(bed.client + 1);
    notifier.unwatch(bed.client);
    notifier.unwatch(bed.client);
    try testing.expectEqual(@as(u32, 6), CountingOs.changes);
    try testing.expectEqual(Ready{ .timed_out = true }, try notifier.wait(0));
}

test "kqueue: what is disowned, nobody closes or changes" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.notifier.watch(bed.client, .{ .readable = true });
    var copy = bed.notifier;
    copy.disown();
    copy.unwatch(bed.client);
    copy.deinit();
    try testing.expectEqual(@as(u32, 1), CountingOs.changes);
    try testing.expectEqual(@as(usize, 1), try TestOs.send(bed.server, "x"));
    const ready = try bed.notifier.wait(test_timeout_ns);
    try testing.expectEqual(Ready{ .readable = true }, ready);
}

test "kqueue: bytes that were left are reported again, by level" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.notifier.watch(bed.client, .{ .readable = true });
    try testing.expectEqual(@as(usize, 2), try TestOs.send(bed.server, "xy"));
    var byte: [1]u8 = undefined;
    for (0..2) |_| {
        try testing.expect((try bed.notifier.wait(test_timeout_ns)).readable);
        try testing.expectEqual(@as(usize, 1), try TestOs.receive(bed.client, &byte, null));
    }
    try testing.expectEqual(Ready{ .timed_out = true }, try bed.notifier.wait(0));
    try testing.expectEqual(@as(u32, 1), CountingOs.changes);
}

test "kqueue: the end of the stream is for the reader only, a reset for the reader at least" {
    var bed = try TestBed.open();
    defer bed.deinit();
    TestOs.shutdownSend(bed.server);
    try bed.notifier.watch(bed.client, .{ .readable = true });
    try testing.expectEqual(Ready{ .readable = true }, try bed.notifier.wait(test_timeout_ns));

    var other = try TestBed.open();
    try other.notifier.watch(other.client, .{ .readable = true });
    os.TestListener.reset(other.server);
    const ready = try other.notifier.wait(test_timeout_ns);
    try testing.expect(ready.readable);
    var buffer: [1]u8 = undefined;
    const result = TestOs.receive(other.client, &buffer, null);
    try testing.expectError(error.ConnectionReset, result);
    other.notifier.deinit();
    TestOs.close(other.client);
}

test "kqueue: a connect that fails is for the writer and the reader" {
    const listener: os.TestListener = .open(false);
    defer listener.deinit();
    const client = try TestOs.openSocket(&listener.address);
    defer TestOs.close(client);
    if (TestOs.connect(client, &listener.address)) |_| {
        var notifier: TestNotifier = try .init();
        defer notifier.deinit();
        try notifier.watch(client, .{ .writable = true });
        const both: Ready = .{ .readable = true, .writable = true };
        try testing.expectEqual(both, try notifier.wait(test_timeout_ns));
        notifier.unwatch(client);
        try testing.expectError(error.ConnectionRefused, TestOs.connectResult(client));
    } else |failure| try testing.expectEqual(error.ConnectionRefused, failure);
}

test "kqueue: a descriptor that was closed first is unwatched all the same" {
    var bed = try TestBed.open();
    const client = bed.client;
    try bed.notifier.watch(client, .{ .readable = true, .writable = true });
    TestOs.close(client);
    bed.notifier.unwatch(client);
    try testing.expectEqual(Ready{ .timed_out = true }, try bed.notifier.wait(0));
    // Its number comes again, for a socket that is watched for one thing only.
    const listener: os.TestListener = .open(true);
    defer listener.deinit();
    const again = try TestOs.openSocket(&listener.address);
    try testing.expectEqual(client, again);
    bed.client = again;
    defer bed.deinit();
    _ = try TestOs.connect(again, &listener.address);
    TestOs.close(listener.accept());
    try bed.notifier.watch(again, .{ .readable = true });
    try testing.expectEqual(Ready{ .readable = true }, try bed.notifier.wait(test_timeout_ns));
}

test "kqueue: what the kernel watches is remembered also when half of a change fails" {
    var bed = try TestBed.open();
    defer bed.deinit();
    CountingOs.failure = error.OutOfMemory;
    CountingOs.works = 1;
    const both: Interest = .{ .readable = true, .writable = true };
    try testing.expectError(error.OutOfMemory, bed.notifier.watch(bed.client, both));
    try testing.expectEqual(Interest{ .readable = true }, bed.notifier.watched.?.interest);
    CountingOs.failure = null;
    try testing.expectEqual(Ready{ .timed_out = true }, try bed.notifier.wait(0));
    try bed.notifier.watch(bed.client, both);
    try testing.expectEqual(@as(u32, 3), CountingOs.changes);
    try testing.expectEqual(Ready{ .writable = true }, try bed.notifier.wait(test_timeout_ns));

    // When nothing of the first change went well, nothing is watched.
    bed.notifier.unwatch(bed.client);
    CountingOs.failure = error.OutOfMemory;
    try testing.expectError(error.OutOfMemory, bed.notifier.watch(bed.client, both));
    try testing.expectEqual(null, bed.notifier.watched);
}

test "kqueue: a time-out longer than the kernel's is waited for in parts" {
    var notifier: TestNotifier = try .init();
    defer notifier.deinit();
    const timeout_ns = 2 * CountingOs.kqueue_timeout_ns_max + 1;
    const before_ns = TestOs.monotonicNs();
    try testing.expectEqual(Ready{ .timed_out = true }, try notifier.wait(timeout_ns));
    try testing.expect(TestOs.monotonicNs() - before_ns >= timeout_ns);
    try testing.expectEqual(@as(u32, 3), CountingOs.waits);
}
