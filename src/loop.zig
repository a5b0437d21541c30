//! Sleeps until something happens on one of many connections.
//!
//! It is the only place that waits for I/O. The owner pulls events from each connection (`pump`, or
//! `nextMessage` and `next`). When all of them return `blocked`, it calls `wait`, and then asks
//! them again. For each connection, a wait calls `beginWait`, `interest` and `deadlineNs`, sleeps,
//! and calls `noteReady`. A connection that busy polls (`spins`) keeps the loop awake: it calls
//! `look` again and again.
//!
//! A loop allocates nothing. What the kernel watches is remembered in the `watch` of each
//! connection. A loop outlives its connections, and must not move while one is watched. A wait
//! touches no messages and no rings that they lie in, so that other threads may release messages
//! during it; a busy wait reads into room that was found before.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("constants.zig");
const os = @import("os.zig");
const types = @import("connection/types.zig");
const ConnectionType = @import("connection.zig").ConnectionType;
const NotifierType = @import("notifier.zig").NotifierType;

pub const InitError = os.NotifierError;
pub const WaitError = error{
    /// The kernel has no memory left for waiting, or watches too many descriptors already.
    SystemResources,
};
pub const Wake = types.Wake;

pub fn LoopType(comptime Os: type) type {
    return struct {
        const Loop = @This();
        const Connection = ConnectionType(Os);
        const Notifier = NotifierType(Os);

        notifier: Notifier,

        /// What the connections of one wait need.
        const Plan = struct {
            /// Connections that wait in the kernel.
            sleepers: usize = 0,
            /// Connections that busy poll.
            spinners: usize = 0,
            /// The earliest of their deadlines, on the monotonic clock.
            deadline_ns: ?u64 = null,
        };

        pub fn init() InitError!Loop {
            return .{ .notifier = try .init() };
        }

        /// Call it after the `deinit` of every connection that has waited in this loop.
        pub fn deinit(loop: *Loop) void {
            loop.notifier.deinit();
            loop.* = undefined;
        }

        /// For the copy in a forked process, before any other call of the loop or of a connection
        /// that has waited in it. Afterwards both may only be deinitialized, which then has no
        /// effect on those of the parent.
        pub fn disown(loop: *Loop) void {
            loop.notifier.disown();
        }

        /// Waits until the kernel has something for one of the connections, a connection has
        /// something to do without waiting, the first of their deadlines or the timeout has passed,
        /// or a signal came. Afterwards call `next` of each. Touches only the loop and the
        /// connections: the binding releases Python's lock around it.
        ///
        /// A connection that is left out of later waits still ends them, until its `watch` is
        /// cancelled; before that, no other loop may watch it.
        pub fn wait(
            loop: *Loop,
            connections: []const *Connection,
            timeout_ns: ?u64,
        ) WaitError!Wake {
            assert(connections.len > 0);
            var plan: Plan = .{};
            for (connections) |connection| try loop.prepare(connection, &plan);
            const limit_ns = untilDeadline(plan.deadline_ns, timeout_ns);
            if (plan.sleepers < connections.len) return loop.waitAwake(connections, plan, limit_ns);
            // Inlined, since with a call each wake-up takes 18 instructions more.
            return @call(.always_inline, sleep, .{ loop, connections, limit_ns });
        }

        inline fn prepare(loop: *Loop, connection: *Connection, plan: *Plan) WaitError!void {
            connection.beginWait();
            const wanted = connection.interest() orelse return; // `next` has something to do.
            if (connection.spins()) {
                connection.watch().cancel(); // It slept while it was connecting.
                plan.spinners += 1;
            } else {
                const watch = connection.watch();
                loop.notifier.watch(watch, wanted.descriptor, wanted.events) catch
                    return error.SystemResources;
                plan.sleepers += 1;
            }
            const deadline_ns = connection.deadlineNs() orelse return;
            plan.deadline_ns = @min(deadline_ns, plan.deadline_ns orelse deadline_ns);
        }

        fn untilDeadline(deadline_ns: ?u64, timeout_ns: ?u64) ?u64 {
            const left_ns = (deadline_ns orelse return timeout_ns) -| Os.monotonicNs();
            return @min(left_ns, timeout_ns orelse left_ns);
        }

        fn sleep(loop: *Loop, connections: []const *Connection, limit_ns: ?u64) WaitError!Wake {
            const wake = loop.notifier.wait(limit_ns) catch return error.SystemResources;
            if (wake == .ready) for (connections) |connection| {
                const ready = connection.watch().take();
                if (ready != os.Ready{}) connection.noteReady(ready);
            };
            return wake;
        }

        /// A wait in which not all connections sleep. When one of them can go on at once, the
        /// others are still checked, so that it cannot starve them.
        noinline fn waitAwake(
            loop: *Loop,
            connections: []const *Connection,
            plan: Plan,
            limit_ns: ?u64,
        ) WaitError!Wake {
            const can_go_on = plan.sleepers + plan.spinners < connections.len;
            const wake = if (plan.spinners > 0)
                try loop.spin(connections, plan.sleepers, if (can_go_on) 0 else limit_ns)
            else if (plan.sleepers > 0)
                try loop.sleep(connections, 0)
            else
                return .ready;
            return if (can_go_on) .ready else wake;
        }

        /// Busy polls: a wake-up by the kernel costs microseconds, a spin does not. The connections
        /// that sleep are checked whenever the clock is, and before the spin ends.
        fn spin(
            loop: *Loop,
            connections: []const *Connection,
            sleepers: usize,
            limit_ns: ?u64,
        ) WaitError!Wake {
            const turn_ns = @min(limit_ns orelse constants.spin_turn_ns, constants.spin_turn_ns);
            const until_ns = Os.monotonicNs() + turn_ns;
            while (true) {
                const found = lookUntilFound(connections);
                if (sleepers > 0) switch (try loop.sleep(connections, 0)) {
                    .timed_out => {},
                    .ready => return .ready,
                    .interrupted => if (!found) return .interrupted,
                };
                if (found) return .ready;
                for (connections) |connection| {
                    if (connection.spins()) connection.flushIfWaiting();
                }
                if (Os.monotonicNs() >= until_ns) return .timed_out;
            }
        }

        /// Calls `look` of each connection that busy polls, until one has something. False when it
        /// is time to check the clock.
        fn lookUntilFound(connections: []const *Connection) bool {
            for (0..constants.spins_per_clock_read) |_| {
                var found = false;
                for (connections) |connection| {
                    if (connection.spins() and connection.look()) found = true;
                }
                if (found) return true;
                std.atomic.spinLoopHint();
            }
            return false;
        }
    };
}

test {
    _ = @import("loop_test.zig");
}
