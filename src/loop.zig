//! Sleeps until something happens on one of many connections.
//!
//! It is the only place that waits for I/O. The owner pulls events from a connection (`pump`, or
//! `nextMessage` and `next`) until it returns `blocked`, then calls `settle`: the loop notes what
//! the connection waits for in the kernel, and until when. `wait` sleeps. Then `take` returns one
//! by one the connections that have something to do: what a turn costs does not depend on how
//! many others there are. A connection that busy polls (`spins`) keeps the loop awake: `wait` calls
//! its `look` again and again.
//!
//! A loop allocates nothing. What it remembers of a connection lies in the connection: in its
//! `seat`, and in its `watch` what the kernel watches. A loop outlives its connections, and must
//! not move once one has joined. A wait touches no messages and no rings that they lie in, so that
//! other threads may release messages during it; a busy wait reads into room that was found before.
//!
//! Other event loops can watch `descriptor`: after `publish` it is readable when a turn would do
//! something. Any thread may `wake` the loop.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("constants.zig");
const os = @import("os.zig");
const types = @import("connection/types.zig");
const ConnectionType = @import("connection.zig").ConnectionType;
const NotifierType = @import("notifier.zig").NotifierType;
const Seat = @import("connection/seat.zig").Seat;

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
        const List = std.DoublyLinkedList;

        notifier: Notifier,
        /// Connections that have to be asked, the first one next; `round_end` may be among them.
        asked: List = .{},
        /// Where this round ends: those behind it are asked in the next one.
        round_end: List.Node = .{},
        in_round: bool = false,
        /// Connections that busy poll.
        spinners: List = .{},
        /// When connections have to be asked even if nothing happens.
        deadlines: Seat.Deadlines = .{},
        /// How many connections have joined.
        members: u32 = 0,
        /// Whether the owner calls `take`. The owner of one connection may ask it after each wait
        /// instead, without the list.
        takes: bool = true,
        /// Set by `wake`.
        woken: std.atomic.Value(bool) = .init(false),
        /// What `publish` has told the notifier: whether `descriptor` is readable anyway, and from
        /// when on.
        raised: bool = false,
        armed_ns: ?u64 = null,

        pub fn init() InitError!Loop {
            return .{ .notifier = try .init() };
        }

        /// Call it after the `leave` of every connection that has joined.
        pub fn deinit(loop: *Loop) void {
            assert(loop.members == 0);
            loop.notifier.deinit();
            loop.* = undefined;
        }

        /// For the copy in a forked process, before any other call of the loop or of a connection
        /// that has joined it. Afterwards the connections may only be deinitialized or `leave`, and
        /// the loop be deinitialized, which then has no effect on those of the parent.
        pub fn disown(loop: *Loop) void {
            loop.notifier.disown();
        }

        // ---- Which connections there are. ------------------------------------------------------

        /// From now on the loop watches this connection, which must be in no other.
        pub fn join(loop: *Loop, connection: *Connection) void {
            assert(connection.seat.isFree());
            loop.members += 1;
        }

        /// The opposite, before the connection moves, is freed or joins another loop.
        pub fn leave(loop: *Loop, connection: *Connection) void {
            loop.unask(connection);
            loop.rest(connection);
            loop.members -= 1;
        }

        // ---- Which connection is next. ---------------------------------------------------------

        /// Says that the connection has something to do without waiting: a call has changed it, or
        /// it was stopped in the middle of a turn.
        pub inline fn ask(loop: *Loop, connection: *Connection) void {
            const seat = &connection.seat;
            if (seat.is_asked) return;
            seat.is_asked = true;
            loop.asked.append(&seat.asked);
        }

        /// Takes it out of those that have to be asked: the caller asks it.
        pub inline fn unask(loop: *Loop, connection: *Connection) void {
            const seat = &connection.seat;
            if (!seat.is_asked) return;
            seat.is_asked = false;
            loop.asked.remove(&seat.asked);
        }

        /// Begins a round: `take` returns each connection that has something to do now.
        pub fn beginRound(loop: *Loop) void {
            if (loop.in_round) loop.asked.remove(&loop.round_end);
            loop.asked.append(&loop.round_end);
            loop.in_round = true;
        }

        /// The next connection of this round; null when it is over. `settle` it afterwards.
        pub fn take(loop: *Loop) ?*Connection {
            if (!loop.in_round) return null;
            const node = loop.asked.popFirst().?;
            if (node == &loop.round_end) {
                loop.in_round = false;
                return null;
            }
            const seat: *Seat = @alignCast(@fieldParentPtr("asked", node));
            seat.is_asked = false;
            return connectionOf(seat);
        }

        /// Whether a connection has to be asked.
        pub fn hasAsked(loop: *const Loop) bool {
            const first = loop.asked.first orelse return false;
            return first != &loop.round_end or loop.asked.last != first;
        }

        /// Whether there is nothing to wait for, and nothing to ask.
        pub fn isIdle(loop: *const Loop) bool {
            return !loop.hasAsked() and loop.spinners.first == null and
                loop.deadlines.root == null and loop.notifier.watches == 0;
        }

        fn connectionOf(seat: *Seat) *Connection {
            return @alignCast(@fieldParentPtr("seat", seat));
        }

        // ---- What a connection waits for. ------------------------------------------------------

        /// Call it when the connection has returned `blocked`, or is over. A connection that was
        /// stopped by `reads_per_turn_max` is asked again.
        pub inline fn settle(loop: *Loop, connection: *Connection) WaitError!void {
            if (connection.turnSpent()) {
                connection.beginTurn();
                return loop.ask(connection);
            }
            connection.beginWait();
            return loop.update(connection);
        }

        /// Tells the kernel what the connection waits for now. Call it after any other call that
        /// may have changed that, such as a send.
        pub inline fn update(loop: *Loop, connection: *Connection) WaitError!void {
            const seat = &connection.seat;
            const wanted = connection.interest() orelse return loop.rest(connection);
            const spins = connection.spins();
            if (seat.spins != spins) loop.setSpinning(seat, spins);
            const watch = connection.watch();
            if (spins) {
                watch.cancel(); // It slept while it was connecting.
            } else {
                loop.notifier.watch(watch, wanted.descriptor, wanted.events) catch
                    return error.SystemResources;
            }
            const deadline_ns = connection.deadlineNs();
            if (deadline_ns != seat.deadline_ns) loop.setDeadline(seat, deadline_ns);
        }

        /// Does not watch the connection, and asks it again at this time (monotonic clock): for one
        /// that cannot go on now, whatever the kernel has for it.
        pub fn askLater(loop: *Loop, connection: *Connection, at_ns: u64) void {
            loop.rest(connection);
            loop.setDeadline(&connection.seat, at_ns);
        }

        /// The connection waits for nothing.
        noinline fn rest(loop: *Loop, connection: *Connection) void {
            connection.watch().cancel();
            loop.setSpinning(&connection.seat, false);
            loop.setDeadline(&connection.seat, null);
        }

        noinline fn setSpinning(loop: *Loop, seat: *Seat, spins: bool) void {
            if (seat.spins == spins) return;
            seat.spins = spins;
            if (spins) loop.spinners.append(&seat.spin) else loop.spinners.remove(&seat.spin);
        }

        noinline fn setDeadline(loop: *Loop, seat: *Seat, deadline_ns: ?u64) void {
            if (seat.deadline_ns != null) {
                var entry = loop.deadlines.getEntryForExisting(&seat.deadline);
                entry.set(null);
            }
            seat.deadline_ns = deadline_ns;
            const ns = deadline_ns orelse return;
            var entry = loop.deadlines.getEntryFor(.{ .ns = ns, .address = @intFromPtr(seat) });
            entry.set(&seat.deadline);
        }

        /// The earliest deadline of a connection (monotonic clock).
        pub inline fn deadlineNs(loop: *const Loop) ?u64 {
            if (loop.deadlines.root == null) return null;
            return loop.deadlines.getMin().?.key.ns;
        }

        // ---- Sleeping. -------------------------------------------------------------------------

        /// Waits until the kernel has something for one of the connections, a deadline or the
        /// timeout has passed, another thread has called `wake`, or a signal came. When a
        /// connection has something to do without waiting, it only looks for what else there is.
        /// Touches only the loop and the connections: the binding releases Python's lock around it.
        pub fn wait(loop: *Loop, timeout_ns: ?u64) WaitError!Wake {
            const limit_ns = loop.limitNs(timeout_ns);
            if (loop.spinners.first != null) return loop.spin(limit_ns);
            // Inlined, since with a call each wake-up takes 18 instructions more.
            return @call(.always_inline, sleep, .{ loop, limit_ns });
        }

        inline fn limitNs(loop: *const Loop, timeout_ns: ?u64) ?u64 {
            if (loop.hasAsked() or loop.woken.load(.monotonic)) return 0;
            const deadline_ns = loop.deadlineNs() orelse return timeout_ns;
            const left_ns = deadline_ns -| Os.monotonicNs();
            return @min(left_ns, timeout_ns orelse left_ns);
        }

        fn sleep(loop: *Loop, limit_ns: ?u64) WaitError!Wake {
            const cause = @call(.always_inline, Notifier.wait, .{
                &loop.notifier, limit_ns,
            }) catch return error.SystemResources;
            if (cause == .ready) for (loop.notifier.found()) |watch| {
                const ready = watch.take();
                if (ready == os.Ready{}) continue; // Two events of one descriptor.
                const connection = Connection.ofWatch(watch);
                connection.noteReady(ready);
                if (loop.takes) loop.ask(connection);
            };
            if (loop.deadlines.root != null) loop.askLate();
            return cause;
        }

        /// Asks the connections whose deadline has passed.
        noinline fn askLate(loop: *Loop) void {
            const now_ns = Os.monotonicNs();
            while (loop.deadlines.getMin()) |node| {
                if (node.key.ns > now_ns) return;
                const seat: *Seat = @alignCast(@fieldParentPtr("deadline", node));
                loop.setDeadline(seat, null); // `settle` sets the next one.
                loop.ask(connectionOf(seat));
            }
        }

        /// Busy polls: a wake-up by the kernel costs microseconds, a spin does not. The connections
        /// that sleep are checked whenever the clock is, and before the spin ends.
        noinline fn spin(loop: *Loop, limit_ns: ?u64) WaitError!Wake {
            const turn_ns = @min(limit_ns orelse constants.spin_turn_ns, constants.spin_turn_ns);
            const until_ns = Os.monotonicNs() + turn_ns;
            while (true) {
                const found = loop.lookUntilFound();
                if (loop.notifier.watches > 0) switch (try loop.sleep(0)) {
                    .timed_out => {},
                    .ready => return .ready,
                    .interrupted => if (!found) return .interrupted,
                };
                if (found or loop.hasAsked() or loop.woken.load(.monotonic)) return .ready;
                var place = loop.spinners.first;
                while (place) |node| : (place = node.next) spinnerOf(node).flushIfWaiting();
                const now_ns = Os.monotonicNs();
                if (now_ns < until_ns) continue;
                if (loop.deadlines.root != null) loop.askLate();
                return .timed_out;
            }
        }

        /// Calls `look` of each connection that busy polls, until one has something. False when it
        /// is time to check the clock.
        fn lookUntilFound(loop: *Loop) bool {
            for (0..constants.spins_per_clock_read) |_| {
                var found = false;
                var place = loop.spinners.first;
                while (place) |node| : (place = node.next) {
                    const connection = spinnerOf(node);
                    if (!connection.look()) continue;
                    loop.ask(connection);
                    found = true;
                }
                if (found) return true;
                std.atomic.spinLoopHint();
            }
            return false;
        }

        fn spinnerOf(node: *List.Node) *Connection {
            const seat: *Seat = @alignCast(@fieldParentPtr("spin", node));
            return connectionOf(seat);
        }

        // ---- Being woken, and being watched by another event loop. -----------------------------

        /// Ends a wait, now or the next one. What the owner shall do has to be noted before. Any
        /// thread may call it.
        pub fn wake(loop: *Loop) void {
            if (loop.woken.swap(true, .acq_rel)) return; // It has not gone on since.
            loop.notifier.raise();
        }

        /// Whether `wake` was called since the last time.
        pub inline fn takeWake(loop: *Loop) bool {
            if (!loop.woken.load(.monotonic)) return false;
            return loop.attend();
        }

        noinline fn attend(loop: *Loop) bool {
            loop.lower();
            return loop.woken.swap(false, .acq_rel);
        }

        fn lower(loop: *Loop) void {
            loop.raised = false;
            loop.notifier.lower();
        }

        /// Makes `descriptor` readable exactly when a turn would do something: for an owner that
        /// goes back to another event loop. `until_ns` is a deadline of the owner's own, and
        /// `has_more` says that the owner itself has something to do.
        pub fn publish(loop: *Loop, until_ns: ?u64, has_more: bool) InitError!void {
            const ready = has_more or loop.hasAsked() or loop.spinners.first != null;
            if (ready != loop.raised) {
                if (ready) loop.notifier.raise() else loop.lower();
                loop.raised = ready;
                // A `wake` between the two is not lost.
                if (loop.woken.load(.acquire)) loop.notifier.raise();
            }
            const own_ns = until_ns orelse std.math.maxInt(u64);
            const first_ns = @min(loop.deadlineNs() orelse own_ns, own_ns);
            const deadline_ns = if (first_ns == std.math.maxInt(u64)) null else first_ns;
            if (deadline_ns == loop.armed_ns) return;
            try loop.notifier.arm(deadline_ns);
            loop.armed_ns = deadline_ns;
        }

        /// Of the notifier, for as long as the loop lives: see `publish`.
        pub fn descriptor(loop: *const Loop) os.Descriptor {
            return loop.notifier.descriptor();
        }
    };
}

test {
    _ = @import("loop_test.zig");
}
