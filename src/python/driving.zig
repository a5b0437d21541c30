//! Lets one thread at a time use a client; releases the GIL while it waits.
//!
//! A client has no lock. One thread at a time is inside it, with or without the GIL; a second one
//! gets a RuntimeError and does not wait. The thread inside may enter again, from a callback or a
//! signal handler. A message costs nothing for this: run() enters once.

const std = @import("std");
const core = @import("core");
const py = @import("py.zig");
const c = py.c;
const exceptions = @import("exceptions.zig");
const fork = @import("fork.zig");

const constants = core.constants;
const monotonicNs = core.os.Os.monotonicNs;

pub const in_use = "another thread is using this client";
const inherited = "this client belongs to another process: it was made before fork()";

/// Lets one thread at a time in, and only in the process that made the client.
pub const Door = struct {
    /// `fork.current()` of the process that made the client. In a process with another value, the
    /// client is a copy by fork().
    generation: u32,
    /// The thread inside; 0 when there is none.
    inside: std.atomic.Value(usize),

    /// Whether a call came from outside, or from Python code that another call of the client runs.
    pub const Entrance = enum { outer, inner };

    pub fn init() Door {
        return .{ .generation = fork.current(), .inside = .init(0) };
    }

    /// Raises if another thread is inside. Call `leave` after each success.
    inline fn enter(door: *Door) py.Error!Entrance {
        try door.requireOwn();
        const thread = py.currentThread();
        if (door.inside.load(.monotonic) == thread) return .inner;
        if (door.claim(thread)) return .outer;
        return py.raise(c.PyExc_RuntimeError, in_use);
    }

    inline fn claim(door: *Door, thread: usize) bool {
        if (py.free_threaded) {
            return door.inside.cmpxchgStrong(0, thread, .acquire, .monotonic) == null;
        }
        if (door.inside.load(.monotonic) != 0) return false;
        door.inside.store(thread, .monotonic); // No other thread runs since the load: the GIL.
        return true;
    }

    inline fn leave(door: *Door, entrance: Entrance) void {
        switch (entrance) {
            .outer => door.inside.store(0, .release),
            .inner => {},
        }
    }

    /// Whether the calling thread is the one inside.
    pub fn isInside(door: *const Door) bool {
        return door.inside.load(.monotonic) == py.currentThread();
    }

    /// Whether the client was made before a fork, in the parent.
    pub inline fn isInherited(door: *const Door) bool {
        return door.generation != fork.current();
    }

    inline fn requireOwn(door: *const Door) py.Error!void {
        if (door.isInherited()) return py.raise(c.PyExc_RuntimeError, inherited);
    }

    /// Whether the client can be freed. False in a forked child if a thread of the parent was
    /// inside: the state may be half changed, so the client is leaked.
    pub fn isWhole(door: *const Door) bool {
        return !door.isInherited() or door.inside.load(.monotonic) == 0;
    }
};

/// A connection and the door that guards it. Any thread may call `enter` and `abandonReservation`;
/// all else is for the thread inside.
pub const Driver = struct {
    door: Door,
    /// The loop that the connection waits in.
    loop: core.Loop,
    connection: core.Connection,
    /// Whether a call drives the connection, such as `run`.
    driving: bool,
    /// Whether that call is running a callback.
    in_callback: bool,
    /// When it last let other threads run (monotonic clock).
    released_ns: u64,
    /// Set when the last slice of a reserved place is freed after its block: the reservation can
    /// then be cancelled.
    reservation_abandoned: std.atomic.Value(bool),

    /// The caller is inside already, so `door` is set; all else is zero. The driver must not move
    /// afterwards.
    pub fn init(driver: *Driver, options: core.connection.Options) py.Error!void {
        driver.loop = core.Loop.init() catch |err| return exceptions.raiseInit(err);
        driver.connection = .init(options);
    }

    /// Closes the socket without a closing handshake; in a forked child, without any effect on the
    /// parent's connection.
    pub fn deinit(driver: *Driver) void {
        if (driver.door.isInherited()) driver.loop.disown();
        driver.connection.deinit();
        driver.loop.deinit();
    }

    // ---- Coming in. ----------------------------------------------------------------------------

    /// Raises if another thread is inside. Call `leave` after each success.
    pub inline fn enter(driver: *Driver) py.Error!Door.Entrance {
        const entrance = try driver.door.enter();
        if (driver.reservation_abandoned.load(.monotonic)) driver.settleReservation();
        return entrance;
    }

    pub inline fn leave(driver: *Driver, entrance: Door.Entrance) void {
        driver.door.leave(entrance);
    }

    /// Begins a call that drives the connection; there can be only one at a time. Call `end` after
    /// each success.
    pub fn begin(driver: *Driver) py.Error!void {
        if (driver.driving) return py.raise(
            c.PyExc_RuntimeError,
            "connect(), run(), poll() and wait_for_room() cannot be called from a callback of " ++
                "the same client",
        );
        try driver.requireUnreserved();
        driver.driving = true;
    }

    pub fn end(driver: *Driver) void {
        driver.driving = false;
    }

    // ---- Reservations: frames that Python writes in the send ring. -----------------------------

    /// Raises while a reservation is open: a CLOSE could not be sent, and the end of the connection
    /// would free the reserved place.
    pub inline fn requireUnreserved(driver: *Driver) py.Error!void {
        if (!driver.connection.isReserved()) return;
        driver.settleReservation();
        if (!driver.connection.isReserved()) return;
        return py.raise(c.PyExc_RuntimeError, "a reservation is open");
    }

    /// Notes that nothing refers to the reserved place any more. Any thread may call it; the next
    /// call of the client drops the frame.
    pub fn abandonReservation(driver: *Driver) void {
        driver.reservation_abandoned.store(true, .release);
    }

    fn settleReservation(driver: *Driver) void {
        if (driver.reservation_abandoned.swap(false, .acquire)) driver.connection.cancel();
    }

    // ---- Calling Python. -----------------------------------------------------------------------

    pub fn callBack(
        driver: *Driver,
        callable: *py.Object,
        arguments: []const *py.Object,
    ) py.Error!void {
        driver.in_callback = true;
        defer driver.in_callback = false;
        const values: [*]const ?*py.Object = @ptrCast(arguments.ptr);
        const result = c.PyObject_Vectorcall(callable, values, arguments.len, null);
        py.decref(try py.check(result));
        try driver.afterCallback();
    }

    /// Call it after Python code has run inside, which may have forked, or left a reservation open.
    pub inline fn afterCallback(driver: *Driver) py.Error!void {
        try driver.door.requireOwn();
        try driver.requireUnreserved();
    }

    /// Runs Python's handlers of signals that have arrived. They may call what a callback may, such
    /// as close().
    pub fn checkSignals(driver: *Driver) py.Error!void {
        driver.in_callback = true;
        defer driver.in_callback = false;
        try py.checkStatus(c.PyErr_CheckSignals());
        try driver.afterCallback();
    }

    // ---- Letting other threads run. ------------------------------------------------------------

    /// Starts the connection. Other Python threads run during that: a name look-up may take long.
    pub fn start(driver: *Driver) core.connection.StartError!void {
        return py.withoutLock(core.Connection.start, .{&driver.connection});
    }

    /// Aborts a setup that failed or was interrupted.
    pub fn giveUp(driver: *Driver) void {
        if (driver.door.isInherited()) driver.loop.disown();
        driver.connection.abort();
    }

    /// Waits for the connection while other Python threads run, then lets signal handlers run.
    pub fn wait(driver: *Driver, timeout_ns: ?u64) py.Error!void {
        const alone = !py.hasOtherThreads();
        if (driver.connection.turnSpent()) {
            driver.connection.beginTurn();
            // Without the GIL no thread asks for it, but the garbage collector waits for all.
            if (py.free_threaded) py.yieldLock();
        } else if (alone) {
            try driver.waitUnlocked(timeout_ns);
        } else if (try driver.waitLocked() == .timed_out) {
            const before_ns = monotonicNs();
            try driver.waitUnlocked(timeout_ns);
            driver.noteRelease(before_ns);
        }
        if (!alone) driver.yieldLock();
        try driver.checkSignals();
    }

    /// Waits until other threads have released messages, and lets them run meanwhile. False after
    /// the timeout.
    pub fn waitForRoom(driver: *Driver, timeout_ns: ?u64) py.Error!bool {
        const until_ns = if (timeout_ns) |timeout| monotonicNs() +| timeout else null;
        const slice_ns = if (py.free_threaded) constants.merge_wait_ns else constants.wait_max_ns;
        while (true) {
            const left_ns = if (until_ns) |until| until -| monotonicNs() else slice_ns;
            const limit_ns = @min(left_ns, slice_ns);
            if (py.free_threaded) try py.freeReleased();
            const wait_args = .{ &driver.connection, limit_ns };
            const found = py.withoutLock(core.Connection.waitForRoom, wait_args);
            try driver.checkSignals();
            if (found) return true;
            if (left_ns == 0) return false;
        }
    }

    /// Only checks whether there is more, and keeps the lock: taking it again costs time, and
    /// releasing it for too short a time disturbs the thread that waits for it.
    fn waitLocked(driver: *Driver) py.Error!core.loop.Wake {
        return driver.sleep(0) catch |err| return exceptions.raiseWait(err);
    }

    fn waitUnlocked(driver: *Driver, timeout_ns: ?u64) py.Error!void {
        // A signal between the check and the sleep is noticed only after the sleep: so each sleep
        // is short.
        const limit_ns = @min(timeout_ns orelse constants.wait_max_ns, constants.wait_max_ns);
        _ = py.withoutLock(sleep, .{ driver, limit_ns }) catch |err| {
            return exceptions.raiseWait(err);
        };
    }

    /// The only call that sleeps in the kernel. Uses no Python objects.
    fn sleep(driver: *Driver, limit_ns: u64) core.loop.WaitError!core.loop.Wake {
        return driver.loop.wait(&.{&driver.connection}, limit_ns);
    }

    /// Counts the wait as a release of the lock, if it was long enough for another thread to take
    /// the lock.
    fn noteRelease(driver: *Driver, before_ns: u64) void {
        const after_ns = monotonicNs();
        if (after_ns -| before_ns >= constants.lock_release_ns) driver.released_ns = after_ns;
    }

    /// Lets other threads run from time to time, even if the peer never pauses.
    fn yieldLock(driver: *Driver) void {
        const now_ns = monotonicNs();
        if (now_ns -| driver.released_ns < constants.lock_hold_max_ns) return;
        py.yieldLock();
        driver.released_ns = now_ns;
    }
};

/// Wraps methods and getters of `T` so that one thread at a time runs them. `T` has a `driver`.
pub fn Exclusive(comptime T: type) type {
    return struct {
        pub fn noArguments(
            comptime function: fn (*T) py.Error!*py.Object,
        ) fn (*T) py.Error!*py.Object {
            return struct {
                fn call(instance: *T) py.Error!*py.Object {
                    const entrance = try instance.driver.enter();
                    defer instance.driver.leave(entrance);
                    return function(instance);
                }
            }.call;
        }

        pub fn method(
            comptime function: fn (*T, py.Arguments) py.Error!*py.Object,
        ) fn (*T, py.Arguments) py.Error!*py.Object {
            return struct {
                fn call(instance: *T, arguments: py.Arguments) py.Error!*py.Object {
                    const entrance = try instance.driver.enter();
                    defer instance.driver.leave(entrance);
                    return function(instance, arguments);
                }
            }.call;
        }
    };
}
