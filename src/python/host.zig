//! What one thread at a time is inside of: a client alone, or a loop with all its clients.
//!
//! There is no lock. One thread at a time is inside, with or without the GIL; a second one gets a
//! RuntimeError and does not wait. The thread inside may enter again, from a callback or a signal
//! handler. A message costs nothing for this: run() enters once. While it waits, the host releases
//! the GIL.

const std = @import("std");
const assert = std.debug.assert;
const core = @import("core");
const py = @import("py.zig");
const c = py.c;
const exceptions = @import("exceptions.zig");
const fork = @import("fork.zig");

const constants = core.constants;
const monotonicNs = core.os.Os.monotonicNs;

pub const in_use = "another thread is using this client";
const in_log = "a log handler cannot use the client that it is told of";
const inherited = "this client belongs to another process: it was made before fork()";

/// Lets one thread at a time in, and only in the process that made the host.
pub const Door = struct {
    /// `fork.current()` of the process that made the host. In a process with another value, the
    /// host is a copy by fork().
    generation: u32,
    /// The thread inside; 0 when there is none, `log_handler` while the one inside logs.
    inside: std.atomic.Value(usize),

    /// No thread has this id: it is an address.
    const log_handler = 1;

    /// Whether a call came from outside, or from Python code that another call runs.
    pub const Entrance = enum { outer, inner };

    pub fn init() Door {
        return .{ .generation = fork.current(), .inside = .init(0) };
    }

    /// Raises if another thread is inside. Call `leave` after each success.
    pub inline fn enter(door: *Door) py.Error!Entrance {
        try door.requireOwn();
        const thread = py.currentThread();
        if (door.inside.load(.monotonic) == thread) return .inner;
        if (door.claim(thread)) return .outer;
        return door.refuse();
    }

    fn refuse(door: *const Door) py.Error {
        @branchHint(.cold);
        const logs = door.inside.load(.monotonic) == log_handler;
        return py.raise(c.PyExc_RuntimeError, if (logs) in_log else in_use);
    }

    /// Lets nobody in, not even the thread inside, until `reopen`.
    pub fn shut(door: *Door) void {
        assert(door.isInside());
        door.inside.store(log_handler, .monotonic);
    }

    pub fn reopen(door: *Door) void {
        door.inside.store(py.currentThread(), .monotonic);
    }

    inline fn claim(door: *Door, thread: usize) bool {
        if (py.free_threaded) {
            return door.inside.cmpxchgStrong(0, thread, .acquire, .monotonic) == null;
        }
        if (door.inside.load(.monotonic) != 0) return false;
        door.inside.store(thread, .monotonic); // No other thread runs since the load: the GIL.
        return true;
    }

    pub inline fn leave(door: *Door, entrance: Entrance) void {
        switch (entrance) {
            .outer => door.inside.store(0, .release),
            .inner => {},
        }
    }

    /// Whether the calling thread is the one inside.
    pub fn isInside(door: *const Door) bool {
        return door.inside.load(.monotonic) == py.currentThread();
    }

    /// Whether the host was made before a fork, in the parent.
    pub inline fn isInherited(door: *const Door) bool {
        return door.generation != fork.current();
    }

    pub inline fn requireOwn(door: *const Door) py.Error!void {
        if (door.isInherited()) return py.raise(c.PyExc_RuntimeError, inherited);
    }

    /// Whether what is inside can be freed. False in a forked child if a thread of the parent was
    /// inside: the state may be half changed, so it is leaked.
    pub fn isWhole(door: *const Door) bool {
        return !door.isInherited() or door.inside.load(.monotonic) == 0;
    }
};

/// Where connections wait, and what all of them share. Any thread may call `wake` and `stop`; all
/// else is for the thread inside. A host must not move once it has a loop.
pub const Host = struct {
    door: Door,
    /// Null until something has to wait, or to be watched.
    loop: ?core.Loop,
    /// The Python object that the host is a part of. Borrowed.
    owner: *py.Object,
    /// Whether a call drives the connections, such as `run`.
    driving: bool,
    /// Whether that call is running a callback.
    in_callback: bool,
    /// Whether another event loop may watch the descriptor.
    is_watched: std.atomic.Value(bool),
    /// Whether an end was found by a call that could not tell it: the next one does.
    has_untold: bool,
    /// When it last let other threads run (monotonic clock).
    released_ns: u64,
    /// When the owner's `_run_timers` has to be called (monotonic clock); null without timers.
    timer_ns: ?u64,
    /// Set by `stop`, until a call has returned because of it.
    stop_wanted: std.atomic.Value(bool),
    /// Set by a `wake` before there was a loop.
    woken_early: std.atomic.Value(bool),

    pub const Entrance = Door.Entrance;

    /// All else is zero.
    pub fn init(host: *Host, owner: *py.Object) void {
        host.door = .init();
        host.owner = owner;
        host.timer_ns = null;
        host.stop_wanted = .init(false);
        host.woken_early = .init(false);
        host.is_watched = .init(false);
        host.loop = null;
    }

    /// Closes the descriptors; in a forked child, without any effect on those of the parent.
    pub fn deinit(host: *Host) void {
        if (host.loop) |*loop| loop.deinit();
        host.loop = null;
    }

    /// In a forked child: what is freed from now on stays as it is for the parent.
    pub fn disownIfInherited(host: *Host) void {
        if (!host.door.isInherited()) return;
        if (host.loop) |*loop| loop.disown();
    }

    /// Makes the loop, unless there is one. True when it is new.
    pub fn requireLoop(host: *Host) py.Error!bool {
        if (host.loop != null) return false;
        host.loop = core.Loop.init() catch |err| return exceptions.raiseInit(err);
        if (host.woken_early.load(.acquire)) host.loop.?.wake();
        return true;
    }

    // ---- Coming in. ----------------------------------------------------------------------------

    pub inline fn leave(host: *Host, entrance: Door.Entrance) void {
        if (entrance == .outer and host.is_watched.load(.monotonic)) host.publish();
        host.door.leave(entrance);
    }

    /// Begins a call that drives the connections; there can be only one at a time. Call `end` after
    /// each success.
    pub fn begin(host: *Host) py.Error!void {
        if (host.driving) return py.raise(
            c.PyExc_RuntimeError,
            "connect(), run(), poll(), run_once(), wait_for_room() and a loop's close() cannot " ++
                "be called from a callback of the same client or loop",
        );
        host.driving = true;
    }

    pub fn end(host: *Host) void {
        host.driving = false;
    }

    // ---- Calling Python. -----------------------------------------------------------------------

    pub fn callBack(
        host: *Host,
        callable: *py.Object,
        arguments: []const *py.Object,
    ) py.Error!void {
        const outer = host.enterCallback();
        defer host.in_callback = outer;
        const values: [*]const ?*py.Object = @ptrCast(arguments.ptr);
        const result = c.PyObject_Vectorcall(callable, values, arguments.len, null);
        py.decref(try py.check(result));
        try host.door.requireOwn();
    }

    /// Returns what `in_callback` has to be afterwards.
    fn enterCallback(host: *Host) bool {
        const outer = host.in_callback;
        host.in_callback = true;
        return outer;
    }

    /// Runs Python's handlers of signals that have arrived. They may call what a callback may, such
    /// as close().
    pub fn checkSignals(host: *Host) py.Error!void {
        host.in_callback = true;
        defer host.in_callback = false;
        try py.checkStatus(c.PyErr_CheckSignals());
        try host.door.requireOwn();
    }

    pub fn callOwner(host: *Host, name: [:0]const u8) py.Error!void {
        const outer = host.enterCallback();
        defer host.in_callback = outer;
        py.decref(try py.check(c.PyObject_CallMethod(host.owner, name, null)));
        try host.door.requireOwn();
    }

    // ---- Waiting, while other threads run. -----------------------------------------------------

    /// Waits for the connections while other Python threads run; then lets signal handlers run,
    /// and what other threads or timers have for this one.
    pub inline fn wait(host: *Host, timeout_ns: ?u64) py.Error!void {
        const alone = !py.hasOtherThreads();
        if (host.goesOnAlone()) {
            // Without the GIL no thread asks for it, but the garbage collector waits for all.
            if (py.free_threaded) py.yieldLock();
        } else if (alone) {
            try host.waitUnlocked(timeout_ns);
        } else if (try host.waitLocked() == .timed_out) {
            const before_ns = monotonicNs();
            try host.waitUnlocked(timeout_ns);
            host.noteRelease(before_ns);
        }
        if (!alone) host.yieldLock();
        try host.checkSignals();
        if (host.loop.?.takeWake()) try host.callOwner("_run_soon");
        if (host.timer_ns != null) try host.runTimers();
    }

    /// Whether the only connection can go on: the kernel need not be asked.
    fn goesOnAlone(host: *const Host) bool {
        const loop = &host.loop.?;
        return loop.members == 1 and loop.hasAsked();
    }

    noinline fn runTimers(host: *Host) py.Error!void {
        if (monotonicNs() < host.timer_ns.?) return;
        host.timer_ns = null; // The call sets the next one.
        try host.callOwner("_run_timers");
    }

    /// Only checks whether there is more, and keeps the lock: taking it again costs time, and
    /// releasing it for too short a time disturbs the thread that waits for it.
    fn waitLocked(host: *Host) py.Error!core.loop.Wake {
        return host.sleep(0) catch |err| return exceptions.raiseWait(err);
    }

    inline fn waitUnlocked(host: *Host, timeout_ns: ?u64) py.Error!void {
        // A signal between the check and the sleep is noticed only after the sleep: so each sleep
        // is short.
        var limit_ns: u64 = @min(timeout_ns orelse constants.wait_max_ns, constants.wait_max_ns);
        if (host.timer_ns) |timer_ns| {
            @branchHint(.unlikely);
            limit_ns = @min(limit_ns, timer_ns -| monotonicNs());
        }
        _ = py.withoutLock(sleep, .{ host, limit_ns }) catch |err| {
            return exceptions.raiseWait(err);
        };
    }

    /// The only call that sleeps in the kernel. Uses no Python objects.
    fn sleep(host: *Host, limit_ns: u64) core.loop.WaitError!core.loop.Wake {
        return host.loop.?.wait(limit_ns);
    }

    /// Counts the wait as a release of the lock, if it was long enough for another thread to take
    /// the lock.
    fn noteRelease(host: *Host, before_ns: u64) void {
        const after_ns = monotonicNs();
        if (after_ns -| before_ns >= constants.lock_release_ns) host.released_ns = after_ns;
    }

    /// Lets other threads run from time to time, even if the peer never pauses.
    fn yieldLock(host: *Host) void {
        const now_ns = monotonicNs();
        if (now_ns -| host.released_ns < constants.lock_hold_max_ns) return;
        py.yieldLock();
        host.released_ns = now_ns;
    }

    // ---- Being woken, and being watched by another event loop. ---------------------------------

    /// Ends a wait: the owner's `_run_soon` is called. From any thread; not for a copy by fork().
    pub fn wake(host: *Host) void {
        if (host.loop) |*loop| loop.wake() else host.woken_early.store(true, .release);
    }

    /// Makes the call that drives the connections return, now or the next one. From any thread.
    pub fn stop(host: *Host) void {
        host.stop_wanted.store(true, .release);
        host.wake();
    }

    /// Whether `stop` was called since the last time.
    pub inline fn takeStop(host: *Host) bool {
        if (!host.stop_wanted.load(.monotonic)) return false;
        host.stop_wanted.store(false, .monotonic);
        return true;
    }

    /// From now on the descriptor shows when there is something to do. Returns it. Any thread may
    /// call it, once there is a loop.
    pub fn beWatched(host: *Host) c_long {
        host.is_watched.store(true, .release);
        return host.descriptor();
    }

    /// The descriptor for other event loops, for as long as the host lives.
    pub fn descriptor(host: *const Host) c_long {
        return host.loop.?.descriptor();
    }

    noinline fn publish(host: *Host) void {
        if (host.door.isInherited()) return;
        host.loop.?.publish(host.timer_ns, host.has_untold) catch {
            host.loop.?.wake(); // No alarm can be set: the next turn sets it.
        };
    }
};
