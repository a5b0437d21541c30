//! The notifier of Linux, by epoll(7), level-triggered.
//!
//! Time-outs are in nanoseconds where the kernel has epoll_pwait2 (Linux 5.11), and rounded up to
//! milliseconds on older ones.
//!
//! Invariant: the kernel watches exactly what the watches say, and its event carries the address of
//! the watch, or one of the two numbers below that are no address.

const std = @import("std");
const assert = std.debug.assert;
const EPOLL = std.os.linux.EPOLL;

const constants = @import("../constants.zig");
const os = @import("../os.zig");
const WatchType = @import("watch.zig").WatchType;

const Descriptor = os.Descriptor;
const Interest = os.Interest;
const Ready = os.Ready;
const Wake = os.Wake;

/// What the events of the signal and of the alarm carry instead of an address.
const signal_mark = 1;
const alarm_mark = 2;

/// `Os` needs `EpollEvent`, `epollCreate`, `epollControl`, `epollWait`, `epollWaitNs`,
/// `eventCreate`, `eventRaise`, `eventLower`, `timerCreate`, `timerSet` and `close`.
pub fn NotifierType(comptime Os: type) type {
    return struct {
        epoll: Descriptor,
        /// An eventfd, which `raise` makes readable.
        signal: Descriptor,
        /// A timerfd; null before the first `arm`.
        alarm: ?Descriptor = null,
        /// What the last wait found ready.
        ready: [constants.events_per_wait_max]*Watch = undefined,
        ready_count: usize = 0,
        /// How many descriptors are watched.
        watches: u32 = 0,
        /// False once the kernel has turned out not to have epoll_pwait2.
        nanoseconds: bool = true,
        /// Set in a forked process: the epoll instance is shared with the parent.
        disowned: bool = false,

        const Notifier = @This();
        const EpollEvent = Os.EpollEvent;
        pub const Watch = WatchType(Notifier);

        pub fn init() os.NotifierError!Notifier {
            const epoll = try Os.epollCreate();
            errdefer Os.close(epoll);
            const signal = try Os.eventCreate();
            errdefer Os.close(signal);
            try addMark(epoll, signal, signal_mark);
            return .{ .epoll = epoll, .signal = signal };
        }

        fn addMark(epoll: Descriptor, watched: Descriptor, mark: usize) os.NotifierError!void {
            const event: EpollEvent = .{ .events = EPOLL.IN, .data = .{ .ptr = mark } };
            return Os.epollControl(epoll, .add, watched, event) catch |failure| switch (failure) {
                error.OutOfMemory => error.OutOfMemory,
                error.WatchLimit, error.Unexpected => error.Unexpected,
            };
        }

        pub fn deinit(notifier: *Notifier) void {
            assert(notifier.watches == 0);
            if (notifier.alarm) |alarm| Os.close(alarm);
            Os.close(notifier.signal);
            Os.close(notifier.epoll);
            notifier.* = undefined;
        }

        /// See notifier.zig.
        pub fn watch(
            notifier: *Notifier,
            target: *Watch,
            watched: Descriptor,
            interest: Interest,
        ) os.WatchError!void {
            assert(watched >= 0);
            if (!target.matches(watched, interest)) {
                return notifier.change(target, watched, interest);
            }
            assert(target.notifier == notifier);
        }

        noinline fn change(
            notifier: *Notifier,
            target: *Watch,
            watched: Descriptor,
            interest: Interest,
        ) os.WatchError!void {
            assert(!notifier.disowned);
            if (target.notifier) |owner| assert(owner == notifier);
            if (target.descriptor != watched) notifier.unwatch(target);
            const is_new = target.notifier == null;
            try Os.epollControl(notifier.epoll, if (is_new) .add else .modify, watched, .{
                .events = eventsOf(interest),
                .data = .{ .ptr = @intFromPtr(target) },
            });
            if (is_new) notifier.watches += 1;
            target.notifier = notifier;
            target.descriptor = watched;
            target.interest = interest;
        }

        /// See notifier.zig.
        pub fn unwatch(notifier: *Notifier, target: *Watch) void {
            if (target.notifier == null) return;
            assert(target.notifier == notifier);
            const unwatched = target.descriptor;
            target.* = .{};
            notifier.watches -= 1;
            if (notifier.disowned) return;
            const no_event: EpollEvent = .{ .events = 0, .data = .{ .ptr = 0 } };
            Os.epollControl(notifier.epoll, .remove, unwatched, no_event) catch |failure| {
                switch (failure) {
                    // Only for a closed descriptor, which is gone: removing needs no memory.
                    error.WatchLimit, error.OutOfMemory, error.Unexpected => {},
                }
            };
        }

        /// See notifier.zig. Parent and child have a descriptor each of the same epoll instance.
        pub fn disown(notifier: *Notifier) void {
            notifier.disowned = true;
        }

        /// See notifier.zig.
        pub fn wait(notifier: *Notifier, timeout_ns: ?u64) os.WaitError!Wake {
            assert(!notifier.disowned);
            var events: [constants.events_per_wait_max]EpollEvent = undefined;
            const count = notifier.poll(&events, timeout_ns) catch |failure| switch (failure) {
                error.Interrupted => return .interrupted,
                error.OutOfMemory => return error.OutOfMemory,
                error.Unsupported, error.Unexpected => return error.Unexpected,
            };
            notifier.ready_count = 0;
            for (events[0..count]) |*event| {
                switch (event.data.ptr) {
                    signal_mark, alarm_mark => continue,
                    else => {},
                }
                const target: *Watch = @ptrFromInt(event.data.ptr);
                assert(target.notifier == notifier);
                target.ready = readyOf(event.events, target.interest);
                notifier.ready[notifier.ready_count] = target;
                notifier.ready_count += 1;
            }
            return if (count > 0) .ready else .timed_out;
        }

        /// See notifier.zig.
        pub fn found(notifier: *Notifier) []const *Watch {
            return notifier.ready[0..notifier.ready_count];
        }

        /// See notifier.zig.
        pub fn raise(notifier: *Notifier) void {
            Os.eventRaise(notifier.signal);
        }

        /// See notifier.zig.
        pub fn lower(notifier: *Notifier) void {
            assert(!notifier.disowned);
            Os.eventLower(notifier.signal);
        }

        /// See notifier.zig.
        pub fn arm(notifier: *Notifier, deadline_ns: ?u64) os.NotifierError!void {
            assert(!notifier.disowned);
            const alarm = notifier.alarm orelse created: {
                if (deadline_ns == null) return;
                const alarm = try Os.timerCreate();
                errdefer Os.close(alarm);
                try addMark(notifier.epoll, alarm, alarm_mark);
                notifier.alarm = alarm;
                break :created alarm;
            };
            Os.timerSet(alarm, deadline_ns);
        }

        inline fn poll(
            notifier: *Notifier,
            events: []EpollEvent,
            timeout_ns: ?u64,
        ) os.PollError!usize {
            const timeout = timeout_ns orelse return Os.epollWait(notifier.epoll, events, -1);
            if (timeout == 0) return Os.epollWait(notifier.epoll, events, 0);
            if (notifier.nanoseconds) {
                if (Os.epollWaitNs(notifier.epoll, events, timeout)) |count| {
                    return count;
                } else |failure| switch (failure) {
                    error.Unsupported => notifier.nanoseconds = false,
                    error.Interrupted, error.OutOfMemory, error.Unexpected => return failure,
                }
            }
            return notifier.pollMilliseconds(events, timeout);
        }

        /// Rounds up to milliseconds, and waits in parts if that is more than the kernel's 24 days.
        noinline fn pollMilliseconds(
            notifier: *Notifier,
            events: []EpollEvent,
            timeout_ns: u64,
        ) os.PollError!usize {
            var rest_ms = std.math.divCeil(u64, timeout_ns, std.time.ns_per_ms) catch unreachable;
            while (true) {
                const part_ms = @min(rest_ms, std.math.maxInt(c_int));
                const count = try Os.epollWait(notifier.epoll, events, @intCast(part_ms));
                if (count > 0) return count;
                rest_ms -= part_ms;
                if (rest_ms == 0) return 0;
            }
        }

        /// Readable when a watched descriptor is ready. The notifier keeps it.
        pub fn descriptor(notifier: *const Notifier) Descriptor {
            return notifier.epoll;
        }
    };
}

fn readyOf(events: u32, interest: Interest) Ready {
    // Errors and hang-ups are always reported. A caller that waits to write, as for a connect, has
    // to see them, too.
    const failed = events & (EPOLL.ERR | EPOLL.HUP) != 0;
    return .{
        .readable = failed or events & EPOLL.IN != 0,
        .writable = events & EPOLL.OUT != 0 or (failed and interest.writable),
    };
}

fn eventsOf(interest: Interest) u32 {
    var events: u32 = 0;
    if (interest.readable) events |= EPOLL.IN;
    if (interest.writable) events |= EPOLL.OUT;
    return events;
}

test {
    _ = @import("epoll_test.zig");
}
