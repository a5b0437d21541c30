//! Tests that `kqueue_shim.zig` does what kqueue(2) of macOS documents.

const std = @import("std");
const assert = std.debug.assert;
const c = std.c;
const linux = std.os.linux;
const shim = @import("darwin_on_linux").kqueue_shim;
const os = @import("../os.zig");
const TestListener = @import("listener.zig").TestListener;

const testing = std.testing;
const Event = shim.Event;
const filter_timer = shim.filter_timer;
const filter_user = shim.filter_user;
const flag_enable = shim.flag_enable;
const flag_disable = shim.flag_disable;
const flag_one_shot = shim.flag_one_shot;
const flag_clear = shim.flag_clear;
const flag_receipt = shim.flag_receipt;
const flag_error = shim.flag_error;
const note_trigger = shim.note_trigger;
const note_microseconds = shim.note_microseconds;
const note_nanoseconds = shim.note_nanoseconds;
const kqueue = shim.kqueue;
const kevent = shim.kevent;

/// Long enough for a busy machine.
const patience_ms = 10_000;

/// A kqueue and a connected pair of sockets.
const Bed = struct {
    queue: c_int,
    near: c_int,
    far: c_int,

    fn open() Bed {
        const queue = kqueue();
        assert(queue >= 0);
        const listener: TestListener = .open(true);
        defer listener.deinit();
        const near = os.Os.openSocket(&listener.address) catch unreachable;
        _ = os.Os.connect(near, &listener.address) catch unreachable;
        return .{ .queue = queue, .near = near, .far = listener.accept() };
    }

    fn close(bed: *const Bed) void {
        for ([_]c_int{ bed.queue, bed.near, bed.far }) |descriptor| _ = c.close(descriptor);
    }

    fn give(bed: *const Bed, bytes: []const u8) !void {
        const sent = c.send(bed.far, bytes.ptr, bytes.len, 0);
        try testing.expectEqual(@as(isize, @intCast(bytes.len)), sent);
        var list: [1]c.pollfd = .{.{ .fd = bed.near, .events = c.POLL.IN, .revents = 0 }};
        try testing.expectEqual(@as(c_int, 1), c.poll(&list, 1, 10_000));
    }

    fn take(bed: *const Bed, size: usize) !void {
        var buffer: [64]u8 = undefined;
        const taken = c.recv(bed.near, &buffer, size, 0);
        try testing.expectEqual(@as(isize, @intCast(size)), taken);
    }

    fn change(bed: *const Bed, filter: i16, flags: u16) c.E {
        return bed.changeEvent(.{
            .ident = @intCast(bed.near),
            .filter = filter,
            .flags = flags,
            .fflags = 0,
            .data = 0,
            .udata = 0x5eed,
        });
    }

    fn changeEvent(bed: *const Bed, event: Event) c.E {
        return c.errno(kevent(bed.queue, @ptrCast(&event), 1, null, 0, null));
    }

    fn changeElsewhere(bed: *const Bed, event: Event) void {
        assert(bed.changeEvent(event) == .SUCCESS);
    }

    /// The events that are ready within a time.
    fn wait(bed: *const Bed, buffer: []Event, timeout_ms: u32) ![]Event {
        const time: c.timespec = .{
            .sec = timeout_ms / std.time.ms_per_s,
            .nsec = @as(i64, timeout_ms % std.time.ms_per_s) * std.time.ns_per_ms,
        };
        const count = kevent(bed.queue, null, 0, buffer.ptr, @intCast(buffer.len), &time);
        if (count < 0) return error.TestUnexpectedResult;
        return buffer[0..@intCast(count)];
    }

    fn expectNone(bed: *const Bed) !void {
        var buffer: [4]Event = undefined;
        try testing.expectEqual(@as(usize, 0), (try bed.wait(&buffer, 0)).len);
    }

    fn expectOne(bed: *const Bed, filter: i16) !Event {
        var buffer: [4]Event = undefined;
        const events = try bed.wait(&buffer, patience_ms);
        try testing.expectEqual(@as(usize, 1), events.len);
        try testing.expectEqual(filter, events[0].filter);
        return events[0];
    }
};

test "kqueue shim: EVFILT_READ counts the bytes, level-triggered" {
    const bed: Bed = .open();
    defer bed.close();
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, Event.flag_add));
    try bed.expectNone();
    try bed.give("abc");
    for ([_]isize{ 3, 2, 1 }) |size| {
        const event = try bed.expectOne(Event.filter_read);
        try testing.expectEqual(@as(usize, @intCast(bed.near)), event.ident);
        try testing.expectEqual(size, event.data);
        try testing.expectEqual(@as(usize, 0x5eed), event.udata);
        try testing.expectEqual(@as(u16, 0), event.flags & Event.flag_end_of_file);
        try bed.take(1);
    }
    try bed.expectNone();
}

test "kqueue shim: EVFILT_WRITE is ready while there is room, and reports how much" {
    const bed: Bed = .open();
    defer bed.close();
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_write, Event.flag_add));
    for (0..2) |_| try testing.expect((try bed.expectOne(Event.filter_write)).data > 0);
    const bytes: [64 * 1024]u8 = @splat(1);
    while (c.send(bed.near, &bytes, bytes.len, 0) > 0) {}
    try bed.expectNone();
}

test "kqueue shim: with EV_CLEAR each change is reported once" {
    const bed: Bed = .open();
    defer bed.close();
    const flags = Event.flag_add | flag_clear;
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, flags));
    try bed.give("ab");
    try testing.expectEqual(@as(isize, 2), (try bed.expectOne(Event.filter_read)).data);
    try bed.expectNone();
    try bed.give("c");
    try testing.expectEqual(@as(isize, 3), (try bed.expectOne(Event.filter_read)).data);
    try bed.expectNone();
    // Adding it again makes it check again.
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, flags));
    _ = try bed.expectOne(Event.filter_read);
}

test "kqueue shim: EV_EOF comes with the end of the stream, after its bytes, and stays" {
    const bed: Bed = .open();
    defer bed.close();
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, Event.flag_add));
    try bed.give("ab");
    try testing.expectEqual(@as(c_int, 0), c.shutdown(bed.far, c.SHUT.WR));
    for ([_]isize{ 2, 1, 0, 0 }) |size| {
        var event = try bed.expectOne(Event.filter_read);
        // The end is a segment of its own.
        while (event.flags & Event.flag_end_of_file == 0) {
            event = try bed.expectOne(Event.filter_read);
        }
        try testing.expectEqual(size, event.data);
        if (size > 0) try bed.take(1);
    }
}

test "kqueue shim: a reset is EV_EOF for the reader and the writer" {
    const bed: Bed = .open();
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, Event.flag_add));
    TestListener.reset(bed.far);
    const event = try bed.expectOne(Event.filter_read);
    try testing.expect(event.flags & Event.flag_end_of_file != 0);
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_write, Event.flag_add));
    var buffer: [4]Event = undefined;
    const events = try bed.wait(&buffer, patience_ms);
    try testing.expectEqual(@as(usize, 2), events.len);
    // Both have the socket's error, as often as they are asked.
    for (events) |each| {
        try testing.expect(each.flags & Event.flag_end_of_file != 0);
        try testing.expectEqual(@as(u32, @backingInt(c.E.CONNRESET)), each.fflags);
    }
    for ([_]c_int{ bed.queue, bed.near }) |descriptor| _ = c.close(descriptor);
}

test "kqueue shim: EV_ONESHOT, EV_DISABLE, EV_ENABLE and EV_DELETE" {
    const bed: Bed = .open();
    defer bed.close();
    try bed.give("x");
    const once = Event.flag_add | flag_one_shot;
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, once));
    _ = try bed.expectOne(Event.filter_read);
    try bed.expectNone();
    try testing.expectEqual(c.E.NOENT, bed.change(Event.filter_read, Event.flag_delete));

    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, Event.flag_add));
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, flag_disable));
    try bed.expectNone();
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, flag_enable));
    _ = try bed.expectOne(Event.filter_read);
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, Event.flag_delete));
    try bed.expectNone();
    try testing.expectEqual(c.E.NOENT, bed.change(Event.filter_read, Event.flag_delete));
    try testing.expectEqual(c.E.NOENT, bed.change(Event.filter_read, flag_enable));
}

test "kqueue shim: both filters of a socket, and no more events than there is room for" {
    const bed: Bed = .open();
    defer bed.close();
    try bed.give("x");
    for ([_]u16{ 0, flag_clear }) |clear| {
        const flags = Event.flag_add | clear;
        try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, flags));
        try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_write, flags));
        var buffer: [2]Event = undefined;
        try testing.expectEqual(@as(usize, 2), (try bed.wait(&buffer, patience_ms)).len);
        try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, flags));
        try testing.expectEqual(@as(usize, 1), (try bed.wait(buffer[0..1], patience_ms)).len);
        try testing.expect((try bed.wait(&buffer, patience_ms)).len > 0);
        try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, Event.flag_delete));
        _ = bed.change(Event.filter_write, Event.flag_delete);
    }
}

test "kqueue shim: errors and receipts are events where there is room, else errno" {
    const bed: Bed = .open();
    defer bed.close();
    try testing.expectEqual(c.E.INVAL, bed.change(-100, Event.flag_add));
    var bad: Event = .{
        .ident = 10_000,
        .filter = Event.filter_read,
        .flags = Event.flag_add,
        .fflags = 0,
        .data = 0,
        .udata = 7,
    };
    try testing.expectEqual(c.E.BADF, bed.changeEvent(bad));
    var good = bad;
    good.ident = @intCast(bed.near);
    good.flags |= flag_receipt;
    bad.flags |= flag_receipt;
    var events: [2]Event = undefined;
    const changes = [_]Event{ good, bad };
    try bed.give("x");
    try testing.expectEqual(@as(c_int, 2), kevent(bed.queue, &changes, 2, &events, 2, null));
    for (events, [_]c.E{ .SUCCESS, .BADF }) |event, cause| {
        try testing.expectEqual(@as(u16, flag_error), event.flags);
        try testing.expectEqual(@as(isize, @backingInt(cause)), event.data);
        try testing.expectEqual(@as(usize, 7), event.udata);
    }
    _ = try bed.expectOne(Event.filter_read);
}

test "kqueue shim: EVFILT_USER is triggered from another thread, once with EV_CLEAR" {
    const bed: Bed = .open();
    defer bed.close();
    var user: Event = .{
        .ident = 1,
        .filter = filter_user,
        .flags = Event.flag_add | flag_clear,
        .fflags = 0,
        .data = 0,
        .udata = 9,
    };
    try testing.expectEqual(c.E.SUCCESS, bed.changeEvent(user));
    try bed.expectNone();
    user.flags = 0;
    user.fflags = note_trigger;
    const thread = try std.Thread.spawn(.{}, Bed.changeElsewhere, .{ &bed, user });
    const event = try bed.expectOne(filter_user);
    thread.join();
    try testing.expectEqual(@as(usize, 1), event.ident);
    try testing.expectEqual(@as(usize, 9), event.udata);
    try bed.expectNone();

    user.ident = 2;
    user.flags = Event.flag_add;
    try testing.expectEqual(c.E.SUCCESS, bed.changeEvent(user));
    for (0..2) |_| _ = try bed.expectOne(filter_user);
    user.flags = Event.flag_delete;
    user.fflags = 0;
    try testing.expectEqual(c.E.SUCCESS, bed.changeEvent(user));
    try bed.expectNone();
}

test "kqueue shim: EVFILT_TIMER repeats, or comes once, and counts missed periods" {
    const bed: Bed = .open();
    defer bed.close();
    const units = [_]u32{ 0, note_microseconds, note_nanoseconds };
    for (units, [_]isize{ 1, 1000, 1_000_000 }) |unit, data| {
        var timer: Event = .{
            .ident = 3,
            .filter = filter_timer,
            .flags = Event.flag_add,
            .fflags = unit,
            .data = data,
            .udata = 0,
        };
        const before_ns = os.Os.monotonicNs();
        try testing.expectEqual(c.E.SUCCESS, bed.changeEvent(timer));
        var expirations: isize = 0;
        while (expirations < 3) expirations += (try bed.expectOne(filter_timer)).data;
        try testing.expect(os.Os.monotonicNs() - before_ns >= 3 * std.time.ns_per_ms);
        timer.flags = Event.flag_add | flag_one_shot;
        try testing.expectEqual(c.E.SUCCESS, bed.changeEvent(timer));
        _ = try bed.expectOne(filter_timer);
        timer.flags = Event.flag_delete;
        try testing.expectEqual(c.E.NOENT, bed.changeEvent(timer));
    }
}

test "kqueue shim: a wait takes its whole time-out, and a ready kqueue is readable" {
    const bed: Bed = .open();
    defer bed.close();
    const before_ns = os.Os.monotonicNs();
    var buffer: [1]Event = undefined;
    try testing.expectEqual(@as(usize, 0), (try bed.wait(&buffer, 5)).len);
    try testing.expect(os.Os.monotonicNs() - before_ns >= 5 * std.time.ns_per_ms);
    // Without room for events it does not wait.
    try testing.expectEqual(@as(c_int, 0), kevent(bed.queue, null, 0, null, 0, null));

    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, Event.flag_add));
    var list: [1]c.pollfd = .{.{ .fd = bed.queue, .events = c.POLL.IN, .revents = 0 }};
    try testing.expectEqual(@as(c_int, 0), c.poll(&list, 1, 0));
    try bed.give("x");
    try testing.expectEqual(@as(c_int, 1), c.poll(&list, 1, 10_000));
}

test "kqueue shim: closing a descriptor removes its filters" {
    const bed: Bed = .open();
    defer bed.close();
    try bed.give("x");
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, Event.flag_add));
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_write, Event.flag_add));
    const kept = c.dup(bed.far);
    defer _ = c.close(kept);
    _ = c.close(bed.near);
    try bed.expectNone();
    try testing.expectEqual(c.E.BADF, bed.change(Event.filter_read, Event.flag_delete));
    // A new socket gets the number, and is watched for one thing only.
    try testing.expectEqual(bed.near, c.dup2(kept, bed.near));
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_write, Event.flag_add));
    _ = try bed.expectOne(Event.filter_write);
    try testing.expectEqual(c.E.NOENT, bed.change(Event.filter_read, Event.flag_delete));
}

test "kqueue shim: a new kqueue has no filters of an earlier one with its number" {
    const bed: Bed = .open();
    defer bed.close();
    try bed.give("x");
    try testing.expectEqual(c.E.SUCCESS, bed.change(Event.filter_read, Event.flag_add));
    _ = c.close(bed.queue);
    try testing.expectEqual(bed.queue, kqueue());
    try bed.expectNone();
    try testing.expectEqual(c.E.NOENT, bed.change(Event.filter_read, Event.flag_delete));
}
