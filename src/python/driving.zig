//! Lets one thread at a time use a client, alone or in a loop.

const std = @import("std");
const core = @import("core");
const py = @import("py.zig");
const c = py.c;
const exceptions = @import("exceptions.zig");
const Door = @import("host.zig").Door;
const Host = @import("host.zig").Host;

const constants = core.constants;
const monotonicNs = core.os.Os.monotonicNs;

/// A connection, and the host that it waits in. Any thread may call `enter` and
/// `abandonReservation`; all else is for the thread inside the host.
pub const Driver = struct {
    /// `own`, or that of the loop that the client is in.
    host: *Host,
    own: Host,
    connection: core.Connection,
    /// Whether the last turn has done all that it could: else there may be more to do.
    is_blocked: bool,
    /// Set when the last slice of a reserved place is freed after its block: the reservation can
    /// then be cancelled.
    reservation_abandoned: std.atomic.Value(bool),

    /// `own` and `host` are set already; all else is zero. The driver must not move afterwards.
    pub fn init(driver: *Driver, options: core.connection.Options) void {
        driver.connection = .init(options);
    }

    /// Closes the socket without a closing handshake; in a forked child, without any effect on the
    /// parent's connection.
    pub fn deinit(driver: *Driver) void {
        driver.own.disownIfInherited();
        if (driver.own.loop) |*loop| loop.leave(&driver.connection);
        driver.connection.deinit();
        driver.own.deinit();
    }

    // ---- Where it waits. -----------------------------------------------------------------------

    pub fn isInLoop(driver: *const Driver) bool {
        return driver.host != &driver.own;
    }

    /// The client's own loop, which is made for the first call that needs one.
    pub fn requireOwnLoop(driver: *Driver) py.Error!void {
        if (!try driver.own.requireLoop()) return;
        driver.own.loop.?.takes = false;
        driver.own.loop.?.join(&driver.connection);
    }

    /// Moves the connection into the loop of `host`, which has one. The caller is inside both.
    pub fn moveTo(driver: *Driver, host: *Host) void {
        driver.leaveLoop();
        driver.setHost(host);
        host.loop.?.join(&driver.connection);
        host.loop.?.ask(&driver.connection);
    }

    /// Moves it back into its own loop, if it has one.
    pub fn moveHome(driver: *Driver) void {
        driver.leaveLoop();
        driver.setHost(&driver.own);
        if (driver.own.loop) |*loop| {
            loop.join(&driver.connection);
            loop.ask(&driver.connection);
        }
    }

    fn leaveLoop(driver: *Driver) void {
        if (driver.host.loop) |*loop| loop.leave(&driver.connection);
    }

    fn setHost(driver: *Driver, host: *Host) void {
        @atomicStore(*Host, &driver.host, host, .release);
    }

    // ---- Coming in. ----------------------------------------------------------------------------

    /// Raises if another thread is inside. Call `leave` after each success.
    pub inline fn enter(driver: *Driver) py.Error!Door.Entrance {
        const entrance = if (py.free_threaded)
            try driver.enterShared()
        else
            try driver.host.door.enter();
        if (driver.reservation_abandoned.load(.monotonic)) driver.settleReservation();
        return entrance;
    }

    /// Without the GIL another thread may move the client into a loop or out of it meanwhile, and
    /// free that loop.
    noinline fn enterShared(driver: *Driver) py.Error!Door.Entrance {
        while (true) {
            const host = @atomicLoad(*Host, &driver.host, .acquire);
            if (host == &driver.own) {
                const entrance = try host.door.enter();
                if (driver.host == host) return entrance;
                host.door.leave(entrance);
                continue;
            }
            const loop = driver.takeLoopObject() orelse continue;
            defer py.decref(loop);
            const entrance = try host.door.enter();
            if (driver.host == host) return entrance;
            host.door.leave(entrance);
        }
    }

    /// A new reference to the loop that the client is in.
    fn takeLoopObject(driver: *Driver) ?*py.Object {
        var section: py.Section = undefined;
        section.enter(driver.own.owner);
        defer section.leave();
        const host = @atomicLoad(*Host, &driver.host, .acquire);
        return if (host == &driver.own) null else c.Py_NewRef(host.owner);
    }

    pub inline fn leave(driver: *Driver, entrance: Door.Entrance) void {
        driver.host.leave(entrance);
    }

    /// Begins a call that drives the client alone. Call `end` after each success.
    pub fn begin(driver: *Driver) py.Error!void {
        if (driver.isInLoop()) return py.raise(
            c.PyExc_RuntimeError,
            "the client is in a loop, which runs it: call run() or run_once() of the loop",
        );
        if (!driver.host.driving) try driver.requireUnreserved();
        try driver.host.begin();
        errdefer driver.host.end();
        try driver.requireOwnLoop();
    }

    /// What the call has left undone is for the next one, and shows at the descriptor.
    pub fn end(driver: *Driver) void {
        driver.host.end();
        if (driver.own.is_watched.load(.monotonic)) driver.settle();
    }

    /// Shows at the descriptor what the last call has left undone.
    pub fn settle(driver: *Driver) void {
        if (driver.own.door.isInherited()) return;
        const connection = &driver.connection;
        const loop = &driver.own.loop.?;
        const has_more = !driver.is_blocked and switch (connection.state()) {
            .idle, .closed => false,
            .open => connection.hasUnparsed(),
            .connecting, .securing, .requesting, .reading_body, .closing => true,
        };
        loop.unask(connection);
        if (has_more) return loop.ask(connection);
        loop.settle(connection) catch loop.ask(connection); // The next call meets the same error.
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
        try driver.host.callBack(callable, arguments);
        try driver.requireUnreserved();
    }

    /// Lets nobody in, not even this thread, until `endLog`: log handlers may be any code, and run
    /// where the connection must not change.
    pub fn beginLog(driver: *Driver) void {
        driver.host.door.shut();
    }

    pub fn endLog(driver: *Driver) void {
        driver.host.door.reopen();
    }

    /// Reports the exception that logging has set, as that of a `__del__`: it does not end a
    /// connection. Returns the error if it has to come out, such as KeyboardInterrupt, which the
    /// handler of a signal has raised just then.
    pub fn settleLog(about: ?*py.Object, err: py.Error) py.Error!void {
        if (c.PyErr_ExceptionMatches(c.PyExc_Exception) == 0) return err;
        c.PyErr_WriteUnraisable(about);
    }

    // ---- Waiting, alone. -----------------------------------------------------------------------

    /// Starts the connection. Other Python threads run during that: to map the rings, and to learn
    /// the rate of the CPU's counter, takes milliseconds.
    pub fn start(driver: *Driver) core.connection.StartError!void {
        return py.withoutLock(core.Connection.start, .{&driver.connection});
    }

    /// Aborts a setup that failed or was interrupted.
    pub fn giveUp(driver: *Driver) void {
        driver.own.disownIfInherited();
        driver.connection.abort();
    }

    /// Waits for the connection while other Python threads run, then lets signal handlers run.
    pub fn wait(driver: *Driver, timeout_ns: ?u64) py.Error!void {
        const loop = &driver.own.loop.?;
        loop.settle(&driver.connection) catch |err| return exceptions.raiseWait(err);
        try driver.own.wait(timeout_ns);
        loop.unask(&driver.connection);
        try driver.requireUnreserved();
    }

    /// Call it after everything that is sent: what the socket does not take now has to go out when
    /// the socket is writable.
    pub inline fn afterSend(driver: *Driver) void {
        if (driver.connection.wantsWrite()) driver.watchForRoom();
    }

    noinline fn watchForRoom(driver: *Driver) void {
        const loop = if (driver.host.loop) |*found| found else return;
        const connection = &driver.connection;
        loop.update(connection) catch loop.ask(connection); // The next turn meets the same error.
    }

    /// Says that a call has changed the connection, so that the next turn has something to do.
    pub fn ask(driver: *Driver) void {
        if (driver.host.loop) |*loop| loop.ask(&driver.connection);
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
            try driver.host.checkSignals();
            try driver.requireUnreserved();
            if (found) return true;
            if (left_ns == 0) return false;
        }
    }
};

/// Wraps methods and getters of `T` so that one thread at a time runs them. `T` has `enter` and
/// `leave`.
pub fn Exclusive(comptime T: type) type {
    return struct {
        pub fn noArguments(
            comptime function: fn (*T) py.Error!*py.Object,
        ) fn (*T) py.Error!*py.Object {
            return struct {
                fn call(instance: *T) py.Error!*py.Object {
                    const entrance = try instance.enter();
                    defer instance.leave(entrance);
                    return function(instance);
                }
            }.call;
        }

        pub fn method(
            comptime function: fn (*T, py.Arguments) py.Error!*py.Object,
        ) fn (*T, py.Arguments) py.Error!*py.Object {
            return struct {
                fn call(instance: *T, arguments: py.Arguments) py.Error!*py.Object {
                    const entrance = try instance.enter();
                    defer instance.leave(entrance);
                    return function(instance, arguments);
                }
            }.call;
        }
    };
}
