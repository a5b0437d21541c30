//! A stand-in for macOS's kqueue(2) on Linux, for tests.
//!
//! It is made of epoll, timerfd and eventfd. It exports `kqueue` and `kevent` with macOS's
//! structures and numbers, and is linked in place of libSystem, so that os/darwin.zig runs
//! unchanged.
//!
//! Design: a kqueue is an epoll descriptor, which is readable when something is ready, as a kqueue
//! is. Every (ident, filter) is a knote in one table. What a knote waits for is its source: the
//! socket itself, an eventfd (EVFILT_USER) or a timerfd (EVFILT_TIMER). epoll finds the sources
//! that are ready, and their knotes determine the events.
//! Invariant: epoll watches a source for exactly what its enabled knotes ask for.
//!
//! Differences from macOS: `fflags` of an EV_EOF is the socket's error, as there, but Linux returns
//! that only once (SO_ERROR), so that no read tells it again; so it is with libkqueue. With
//! EV_CLEAR, a change for one filter of a socket may also bring an event of its other one.
//! EV_DISPATCH, the NOTE_FF* of EVFILT_USER and NOTE_ABSOLUTE are missing. A knote stays in the
//! table when its descriptor is closed, until the number of the descriptor or the kqueue is used
//! again.

const std = @import("std");
const assert = std.debug.assert;
const c = std.c;
const linux = std.os.linux;
const EPOLL = linux.EPOLL;

pub const Event = @import("core").os.darwin.KernelEvent;

/// From sys/event.h of macOS, what `KernelEvent` does not have.
pub const filter_timer = Event.filter_timer;
pub const filter_user = Event.filter_user;
pub const flag_enable = 0x0004;
pub const flag_disable = 0x0008;
pub const flag_one_shot = 0x0010;
pub const flag_clear = 0x0020;
pub const flag_receipt = 0x0040;
pub const flag_error = 0x4000;
pub const note_trigger = 0x01000000;
pub const note_seconds = 0x00000001;
pub const note_microseconds = 0x00000002;
pub const note_nanoseconds = 0x00000004;

const Knote = struct {
    /// -1: this place of the table is free.
    kqueue: c_int = -1,
    /// The event with which it was added.
    event: Event = undefined,
    enabled: bool = true,
    source: c_int = -1,
    /// The error of the socket, once it was asked for.
    failure: u32 = 0,

    fn ownsSource(knote: *const Knote) bool {
        return knote.event.filter == filter_user or knote.event.filter == filter_timer;
    }

    fn release(knote: *Knote) void {
        if (knote.ownsSource()) _ = c.close(knote.source);
        knote.kqueue = -1;
    }

    fn epollEvents(knote: *const Knote) u32 {
        if (!knote.enabled) return 0;
        const cleared = knote.event.flags & flag_clear != 0 and !knote.ownsSource();
        const edge: u32 = if (cleared) EPOLL.ET else 0;
        return edge | switch (knote.event.filter) {
            Event.filter_write => EPOLL.OUT,
            else => EPOLL.IN | @as(u32, EPOLL.RDHUP),
        };
    }
};

var knotes: [4096]Knote = @splat(.{});
/// All knotes lie before this place of the table.
var knotes_end: usize = 0;
var lock: c.pthread_mutex_t = .{};

/// How often `kevent` was called, so that a test can tell that it was.
export var kqueue_shim_calls: u64 = 0;

pub export fn kqueue() c_int {
    const created = c.epoll_create1(0);
    if (created < 0) return -1;
    acquire();
    defer release();
    // Drops the knotes of an earlier kqueue with this number.
    for (knotes[0..knotes_end]) |*knote| {
        if (knote.kqueue == created) knote.release();
    }
    return created;
}

pub export fn kevent(
    queue: c_int,
    changes: ?[*]const Event,
    changes_count: c_int,
    events: ?[*]Event,
    events_count: c_int,
    timeout: ?*const c.timespec,
) c_int {
    _ = @atomicRmw(u64, &kqueue_shim_calls, .Add, 1, .monotonic);
    const room: []Event = if (events) |list| list[0..@intCast(events_count)] else &.{};
    var told: usize = 0;
    if (changes) |list| for (list[0..@intCast(changes_count)]) |*change| {
        const cause = apply(queue, change);
        if (cause == .SUCCESS and change.flags & flag_receipt == 0) continue;
        if (told == room.len) {
            if (cause == .SUCCESS) continue;
            return fail(cause);
        }
        room[told] = change.*;
        room[told].flags = flag_error;
        room[told].data = @backingInt(cause);
        told += 1;
    };
    // Errors and receipts (EV_RECEIPT) are returned at once.
    if (told > 0 or room.len == 0) return @intCast(told);
    return waitFor(queue, room, timeout);
}

fn fail(cause: c.E) c_int {
    c._errno().* = @backingInt(cause);
    return -1;
}

/// Applies one change. Returns SUCCESS or the errno.
fn apply(queue: c_int, change: *const Event) c.E {
    switch (change.filter) {
        Event.filter_read, Event.filter_write, filter_timer, filter_user => {},
        else => return .INVAL,
    }
    acquire();
    defer release();
    const knote = find(queue, change) orelse {
        if (change.flags & Event.flag_add == 0) return .NOENT;
        return add(queue, change);
    };
    if (change.flags & Event.flag_delete != 0) {
        const source = knote.source;
        const cause = watch(queue, source, knote);
        knote.release();
        return cause;
    }
    if (change.flags & Event.flag_add != 0) {
        const flags_kept = change.flags & (flag_clear | flag_one_shot);
        knote.event = change.*;
        knote.event.flags = flags_kept;
        knote.enabled = true;
        if (change.filter == filter_timer) start(knote);
    }
    if (change.flags & flag_enable != 0) knote.enabled = true;
    if (change.flags & flag_disable != 0) knote.enabled = false;
    trigger(knote, change);
    return watch(queue, knote.source, null);
}

fn add(queue: c_int, change: *const Event) c.E {
    const source: c_int = switch (change.filter) {
        filter_user => @intCast(linux.eventfd(0, linux.EFD.NONBLOCK | linux.EFD.CLOEXEC)),
        filter_timer => @intCast(linux.timerfd_create(.MONOTONIC, .{
            .NONBLOCK = true,
            .CLOEXEC = true,
        })),
        else => @intCast(change.ident),
    };
    assert(source >= 0);
    if (change.filter == filter_user or change.filter == filter_timer) forget(queue, source, null);
    const knote = for (&knotes, 0..) |*place, index| {
        if (place.kqueue != -1) continue;
        knotes_end = @max(knotes_end, index + 1);
        break place;
    } else @panic("too many knotes for the tests' kqueue");
    knote.* = .{ .kqueue = queue, .event = change.*, .source = source };
    knote.enabled = change.flags & flag_disable == 0;
    if (change.filter == filter_timer) {
        knote.event.flags |= flag_clear;
        start(knote);
    }
    trigger(knote, change);
    const cause = watch(queue, source, null);
    if (cause != .SUCCESS) knote.release();
    return cause;
}

fn find(queue: c_int, change: *const Event) ?*Knote {
    for (knotes[0..knotes_end]) |*knote| {
        if (knote.kqueue != queue) continue;
        if (knote.event.ident == change.ident and knote.event.filter == change.filter) return knote;
    }
    return null;
}

/// Makes epoll watch what the knotes of a source ask for, without one that will be deleted.
fn watch(queue: c_int, source: c_int, without: ?*const Knote) c.E {
    var events: u32 = 0;
    var newest: ?*Knote = null;
    for (knotes[0..knotes_end]) |*knote| {
        if (knote.kqueue != queue or knote.source != source or knote == without) continue;
        const wanted = knote.epollEvents();
        // epoll has one trigger for a descriptor, kqueue one for a filter.
        if (events != 0 and wanted != 0) assert(events & EPOLL.ET == wanted & EPOLL.ET);
        events |= wanted;
        newest = knote;
    }
    var event: linux.epoll_event = .{ .events = events, .data = .{ .fd = source } };
    if (events == 0) {
        const status = c.epoll_ctl(queue, EPOLL.CTL_DEL, source, null);
        if (without == null) return .SUCCESS; // Only disabled, perhaps earlier.
        return c.errno(status);
    }
    switch (c.errno(c.epoll_ctl(queue, EPOLL.CTL_MOD, source, &event))) {
        .NOENT => {},
        else => |cause| return cause,
    }
    // epoll does not know the descriptor: the knotes with its number are of a closed one.
    if (without != null) {
        forget(queue, source, without);
        return .NOENT;
    }
    return c.errno(c.epoll_ctl(queue, EPOLL.CTL_ADD, source, &event));
}

/// Drops the knotes of a descriptor that was closed.
fn forget(queue: c_int, source: c_int, but: ?*const Knote) void {
    for (knotes[0..knotes_end]) |*knote| {
        if (knote.kqueue != queue or knote.source != source or knote == but) continue;
        knote.kqueue = -1; // Its source is closed.
    }
}

fn trigger(knote: *const Knote, change: *const Event) void {
    if (change.filter != filter_user or change.fflags & note_trigger == 0) return;
    const one: u64 = 1;
    const size = c.write(knote.source, std.mem.asBytes(&one), @sizeOf(u64));
    assert(size == @sizeOf(u64));
}

/// A timer that repeats, unless it is EV_ONESHOT.
fn start(knote: *const Knote) void {
    const unit: u64 = if (knote.event.fflags & note_seconds != 0)
        std.time.ns_per_s
    else if (knote.event.fflags & note_microseconds != 0)
        std.time.ns_per_us
    else if (knote.event.fflags & note_nanoseconds != 0)
        1
    else
        std.time.ns_per_ms;
    const period_ns = @max(1, @as(u64, @intCast(knote.event.data)) * unit);
    const period: linux.timespec = .{
        .sec = @intCast(period_ns / std.time.ns_per_s),
        .nsec = @intCast(period_ns % std.time.ns_per_s),
    };
    const once = knote.event.flags & flag_one_shot != 0;
    const setting: linux.itimerspec = .{
        .it_interval = if (once) .{ .sec = 0, .nsec = 0 } else period,
        .it_value = period,
    };
    const status = linux.timerfd_settime(knote.source, .{}, &setting, null);
    assert(linux.errno(status) == .SUCCESS);
}

fn waitFor(queue: c_int, room: []Event, timeout: ?*const c.timespec) c_int {
    const end_ns = if (timeout) |time| nowNs() +| nanosecondsOf(time) else 0;
    while (true) {
        var list: [1]linux.pollfd = .{.{ .fd = queue, .events = linux.POLL.IN, .revents = 0 }};
        const left_ns = end_ns -| nowNs();
        var left: linux.timespec = .{
            .sec = @intCast(left_ns / std.time.ns_per_s),
            .nsec = @intCast(left_ns % std.time.ns_per_s),
        };
        const status = linux.ppoll(&list, 1, if (timeout == null) null else &left, null);
        switch (linux.errno(status)) {
            .SUCCESS => {},
            else => |cause| return fail(cause),
        }
        const count = collect(queue, room) catch |failure| switch (failure) {
            error.BadDescriptor => return fail(.BADF),
        };
        if (count > 0) return @intCast(count);
        // Something was ready, but another thread took it.
        if (timeout != null and nowNs() >= end_ns) return 0;
    }
}

/// What is ready now.
fn collect(queue: c_int, room: []Event) error{BadDescriptor}!usize {
    var ready: [16]linux.epoll_event = undefined;
    const count = c.epoll_wait(queue, &ready, @intCast(@min(ready.len, room.len)), 0);
    if (count < 0) return error.BadDescriptor;
    acquire();
    defer release();
    var told: usize = 0;
    for (ready[0..@intCast(count)]) |source| {
        for (knotes[0..knotes_end]) |*knote| {
            if (knote.kqueue != queue or knote.source != source.data.fd) continue;
            if (!knote.enabled) continue;
            const event = report(knote, source.events) orelse continue;
            if (told == room.len) {
                // It is reported next time: the change makes epoll check again, even with EV_CLEAR.
                _ = watch(queue, knote.source, null);
                break;
            }
            room[told] = event;
            told += 1;
            if (knote.event.flags & flag_one_shot == 0) continue;
            _ = watch(queue, knote.source, knote);
            knote.release();
        }
    }
    return told;
}

/// The event of a knote whose source is ready, or null if another knote of it is meant.
fn report(knote: *Knote, events: u32) ?Event {
    var event = knote.event;
    event.flags &= ~@as(u16, Event.flag_end_of_file | flag_error);
    event.fflags = 0;
    const failed = events & (EPOLL.ERR | EPOLL.HUP) != 0;
    if (failed and !knote.ownsSource()) {
        keepFailure(knote);
        event.fflags = knote.failure;
    }
    switch (event.filter) {
        Event.filter_read => {
            if (events & (EPOLL.IN | EPOLL.RDHUP) == 0 and !failed) return null;
            if (failed or events & EPOLL.RDHUP != 0) event.flags |= Event.flag_end_of_file;
            event.data = askSize(knote.source, linux.T.FIONREAD);
        },
        Event.filter_write => {
            if (events & EPOLL.OUT == 0 and !failed) return null;
            if (failed) event.flags |= Event.flag_end_of_file;
            event.data = spaceOf(knote.source);
        },
        else => {
            // A user's event without EV_CLEAR stays, and so does its eventfd's count.
            var count: u64 = 1;
            if (event.flags & flag_clear != 0) {
                const size = c.read(knote.source, std.mem.asBytes(&count), @sizeOf(u64));
                if (size != @sizeOf(u64)) return null;
            }
            event.data = if (event.filter == filter_timer) @intCast(count) else knote.event.data;
        },
    }
    return event;
}

/// Takes the socket's error, for all knotes of it.
fn keepFailure(knote: *Knote) void {
    var code: c_int = 0;
    var size: c.socklen_t = @sizeOf(c_int);
    const status = c.getsockopt(knote.source, c.SOL.SOCKET, c.SO.ERROR, &code, &size);
    var failure: u32 = if (status == 0) @intCast(code) else 0;
    for (knotes[0..knotes_end]) |*each| {
        if (each.kqueue != knote.kqueue or each.source != knote.source) continue;
        if (failure == 0) failure = each.failure;
        each.failure = failure;
    }
    knote.failure = failure;
}

fn askSize(descriptor: c_int, request: u32) isize {
    var size: c_int = 0;
    const status = linux.ioctl(descriptor, request, @intFromPtr(&size));
    return if (linux.errno(status) == .SUCCESS) size else 0;
}

/// About how much can be written: Linux counts its own overhead, too.
fn spaceOf(descriptor: c_int) isize {
    var size: c_int = 0;
    var length: c.socklen_t = @sizeOf(c_int);
    if (c.getsockopt(descriptor, c.SOL.SOCKET, c.SO.SNDBUF, &size, &length) != 0) return 0;
    const waiting = askSize(descriptor, linux.T.IOCOUTQ);
    return @max(0, size - waiting);
}

fn nowNs() u64 {
    var time: c.timespec = undefined;
    const status = c.clock_gettime(.MONOTONIC, &time);
    assert(status == 0);
    return nanosecondsOf(&time);
}

fn nanosecondsOf(time: *const c.timespec) u64 {
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

fn acquire() void {
    const status = c.pthread_mutex_lock(&lock);
    assert(status == .SUCCESS);
}

fn release() void {
    const status = c.pthread_mutex_unlock(&lock);
    assert(status == .SUCCESS);
}
