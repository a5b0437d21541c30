//! A value that is made once in a process, by the thread that asks first.
//!
//! The core's only state that connections share: the libraries that are looked up at run time, and
//! what is known about them. Reading a value takes one atomic load; the lock is for threads that
//! ask while it is being made.
//!
//! Invariant: a value that has been made never changes, and lasts as long as the process.

const std = @import("std");

pub fn OnceType(comptime T: type) type {
    return struct {
        lock: std.c.pthread_mutex_t = .{},
        made: std.atomic.Value(bool) = .init(false),
        value: T = undefined,

        const Once = @This();

        /// The value, if it has been made. For any thread.
        pub fn get(once: *Once) ?*const T {
            return if (once.made.load(.acquire)) &once.value else null;
        }

        /// The value, which `make` makes if it does not exist yet. After an error the next call
        /// tries again. For any thread; `make` must not wait for another thread.
        pub fn getOrMake(
            once: *Once,
            comptime MakeError: type,
            make: anytype,
            arguments: anytype,
        ) MakeError!*const T {
            if (once.get()) |value| return value;
            _ = std.c.pthread_mutex_lock(&once.lock);
            defer _ = std.c.pthread_mutex_unlock(&once.lock);
            if (once.get()) |value| return value;
            once.value = try @call(.auto, make, arguments);
            once.made.store(true, .release);
            return &once.value;
        }
    };
}

const testing = std.testing;

test "once: of many threads one makes the value, and all get that" {
    const Test = struct {
        once: OnceType(u32) = .{},
        made_count: std.atomic.Value(u32) = .init(0),
        started: std.atomic.Value(u32) = .init(0),
        found: [threads_count]?*const u32 = @splat(null),

        const threads_count = 4;
        const Test = @This();

        fn make(shared: *Test) error{}!u32 {
            return 42 + shared.made_count.fetchAdd(1, .monotonic);
        }

        fn run(shared: *Test, index: usize) void {
            _ = shared.started.fetchAdd(1, .monotonic);
            while (shared.started.load(.monotonic) < threads_count) std.Thread.yield() catch {};
            shared.found[index] = shared.once.getOrMake(error{}, make, .{shared}) catch |err|
                switch (err) {};
        }
    };
    for (0..50) |_| {
        var shared: Test = .{};
        var threads: [Test.threads_count]std.Thread = undefined;
        for (&threads, 0..) |*thread, index| {
            thread.* = try std.Thread.spawn(.{}, Test.run, .{ &shared, index });
        }
        for (threads) |thread| thread.join();
        try testing.expectEqual(1, shared.made_count.load(.monotonic));
        for (shared.found) |found| {
            try testing.expectEqual(shared.once.get(), found);
            try testing.expectEqual(42, found.?.*);
        }
    }
}

test "once: what could not be made is tried again" {
    const Maker = struct {
        fn make(works: bool) error{NotYet}!u32 {
            return if (works) 7 else error.NotYet;
        }
    };
    var once: OnceType(u32) = .{};
    const failed = once.getOrMake(error{NotYet}, Maker.make, .{false});
    try testing.expectError(error.NotYet, failed);
    try testing.expectEqual(null, once.get());
    try testing.expectEqual(7, (try once.getOrMake(error{NotYet}, Maker.make, .{true})).*);
    try testing.expectEqual(7, (try once.getOrMake(error{NotYet}, Maker.make, .{false})).*);
}
