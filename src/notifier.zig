//! Readiness of one descriptor: sleep in the kernel until it can be read or written, or time is up.
//!
//! Design: a notifier belongs to a connection and watches one descriptor at a time, by level, so
//! that nothing is lost when a caller reads only a part of what is there. It remembers what it
//! watches for: asking for the same again is no system call. `descriptor` is itself readable when
//! the watched one is ready, so that other people's event loops can watch a connection.
//! Not used at all when busy polling.

const std = @import("std");

const os = @import("os.zig");

pub const Interest = os.Interest;
pub const Ready = os.Ready;
pub const NotifierError = os.NotifierError;
pub const WatchError = os.WatchError;
pub const WaitError = os.WaitError;

/// The platform's notifier: its own `Notifier` where it declares one (a scripted platform), else
/// by epoll or kqueue. All have
///
///     init() NotifierError!Notifier
///     deinit(notifier: *Notifier) void
///     watch(notifier: *Notifier, descriptor: Descriptor, interest: Interest) WatchError!void
///     unwatch(notifier: *Notifier, descriptor: Descriptor) void
///     disown(notifier: *Notifier) void
///     wait(notifier: *Notifier, timeout_ns: ?u64) WaitError!Ready
///     descriptor(notifier: *const Notifier) Descriptor
///
/// `watch` adds the descriptor or changes what it is watched for; before another one is watched, or
/// it is closed, it has to be unwatched. `wait` returns when the descriptor is ready, a signal
/// came, or the time has passed, whole; 0 only looks, null waits without end. It releases no lock
/// of its caller's: that is for the caller to do. `disown` is for the copy that a forked process
/// has, before its `deinit`: what the kernel watches, it watches for the parent, and goes on.
pub fn NotifierType(comptime Os: type) type {
    const Chosen = if (@hasDecl(Os, "Notifier"))
        Os.Notifier
    else if (@hasDecl(Os, "epollCreate"))
        @import("notifier/epoll.zig").NotifierType(Os)
    else
        @import("notifier/kqueue.zig").NotifierType(Os);
    comptime assertNotifier(Chosen);
    return Chosen;
}

fn assertNotifier(comptime Chosen: type) void {
    const functions = .{
        .init = fn () NotifierError!Chosen,
        .deinit = fn (*Chosen) void,
        .watch = fn (*Chosen, os.Descriptor, Interest) WatchError!void,
        .unwatch = fn (*Chosen, os.Descriptor) void,
        .disown = fn (*Chosen) void,
        .wait = fn (*Chosen, ?u64) WaitError!Ready,
        .descriptor = fn (*const Chosen) os.Descriptor,
    };
    for (@typeInfo(@TypeOf(functions)).@"struct".field_names) |name| {
        if (!@hasDecl(Chosen, name)) {
            @compileError(@typeName(Chosen) ++ " does not declare " ++ name);
        }
        if (@TypeOf(@field(Chosen, name)) != @field(functions, name)) {
            @compileError(@typeName(Chosen) ++ "." ++ name ++ " has another type");
        }
    }
}

const testing = std.testing;
const c = std.c;
const RealOs = os.Os;
const RealNotifier = NotifierType(RealOs);

test {
    _ = @import("notifier/epoll.zig");
    _ = @import("notifier/kqueue.zig");
}

/// A connected pair and a notifier for the client's end.
const TestBed = struct {
    client: os.Descriptor,
    server: os.Descriptor,
    notifier: RealNotifier,

    fn open() !TestBed {
        const listener: os.TestListener = .open(true);
        defer listener.deinit();
        var notifier: RealNotifier = try .init();
        errdefer notifier.deinit();
        const client = try RealOs.openSocket(&listener.address);
        errdefer RealOs.close(client);
        const state = try RealOs.connect(client, &listener.address);
        try notifier.watch(client, .{ .writable = true });
        if (state == .in_progress) {
            const ready = try notifier.wait(test_timeout_ns);
            try testing.expect(ready.writable);
        }
        try RealOs.connectResult(client);
        return .{ .client = client, .server = listener.accept(), .notifier = notifier };
    }

    fn deinit(bed: *TestBed) void {
        bed.notifier.unwatch(bed.client);
        bed.notifier.deinit();
        RealOs.close(bed.client);
        RealOs.close(bed.server);
    }

    fn give(bed: *const TestBed, bytes: []const u8) !void {
        try testing.expectEqual(bytes.len, try RealOs.send(bed.server, bytes));
    }
};

/// Never reached.
const test_timeout_ns = 10 * std.time.ns_per_s;

test "notifier: a connection is writable at once, and readable when bytes came" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.notifier.watch(bed.client, .{ .readable = true, .writable = true });
    const before = try bed.notifier.wait(test_timeout_ns);
    try testing.expectEqual(Ready{ .writable = true }, before);

    try bed.notifier.watch(bed.client, .{ .readable = true });
    try testing.expectEqual(Ready{ .timed_out = true }, try bed.notifier.wait(0));
    try bed.give("x");
    try testing.expectEqual(Ready{ .readable = true }, try bed.notifier.wait(null));

    try bed.notifier.watch(bed.client, .{ .readable = true, .writable = true });
    const both: Ready = .{ .readable = true, .writable = true };
    try testing.expectEqual(both, try bed.notifier.wait(test_timeout_ns));
}

test "notifier: a forked process leaves what is watched to its parent" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.notifier.watch(bed.client, .{ .readable = true });
    const child = c.fork();
    if (child == 0) {
        bed.notifier.disown();
        bed.deinit();
        c._exit(0);
    }
    var status: c_int = undefined;
    try testing.expectEqual(child, c.waitpid(child, &status, 0));
    try testing.expectEqual(@as(c_int, 0), status);
    try bed.give("x");
    const ready = try bed.notifier.wait(test_timeout_ns);
    try testing.expectEqual(Ready{ .readable = true }, ready);
}

test "notifier: bytes left in the kernel are reported again and again" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.notifier.watch(bed.client, .{ .readable = true });
    try bed.give("four");
    var byte: [1]u8 = undefined;
    for (0..4) |_| {
        try testing.expect((try bed.notifier.wait(test_timeout_ns)).readable);
        try testing.expectEqual(@as(usize, 1), try RealOs.receive(bed.client, &byte, null));
    }
    try testing.expectEqual(Ready{ .timed_out = true }, try bed.notifier.wait(0));
}

test "notifier: what is not watched for is not reported" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.notifier.watch(bed.client, .{});
    try bed.give("x");
    try testing.expectEqual(Ready{ .timed_out = true }, try bed.notifier.wait(0));
    try bed.notifier.watch(bed.client, .{ .readable = true });
    try testing.expect((try bed.notifier.wait(test_timeout_ns)).readable);
    bed.notifier.unwatch(bed.client);
    try testing.expectEqual(Ready{ .timed_out = true }, try bed.notifier.wait(0));
    bed.notifier.unwatch(bed.client);
    try bed.notifier.watch(bed.client, .{ .readable = true });
    try testing.expect((try bed.notifier.wait(test_timeout_ns)).readable);
}

test "notifier: a descriptor that was unwatched and closed makes room for the next" {
    var bed = try TestBed.open();
    defer bed.deinit();
    const client_first = bed.client;
    var other = try TestBed.open();
    defer other.deinit();
    bed.notifier.unwatch(client_first);
    try bed.notifier.watch(other.client, .{ .readable = true });
    try bed.give("x");
    try testing.expectEqual(Ready{ .timed_out = true }, try bed.notifier.wait(0));
    try other.give("x");
    try testing.expect((try bed.notifier.wait(test_timeout_ns)).readable);
    bed.notifier.unwatch(other.client);
}

test "notifier: the end of the stream and a reset make it readable" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.notifier.watch(bed.client, .{ .readable = true });
    RealOs.shutdownSend(bed.server);
    try testing.expect((try bed.notifier.wait(test_timeout_ns)).readable);

    var other = try TestBed.open();
    try other.notifier.watch(other.client, .{ .readable = true });
    os.TestListener.reset(other.server);
    try testing.expect((try other.notifier.wait(test_timeout_ns)).readable);
    other.notifier.unwatch(other.client);
    other.notifier.deinit();
    RealOs.close(other.client);
}

test "notifier: a connect that fails makes it writable" {
    const listener: os.TestListener = .open(false);
    defer listener.deinit();
    const client = try RealOs.openSocket(&listener.address);
    defer RealOs.close(client);
    if (RealOs.connect(client, &listener.address)) |_| {
        var notifier: RealNotifier = try .init();
        defer notifier.deinit();
        try notifier.watch(client, .{ .writable = true });
        try testing.expect((try notifier.wait(test_timeout_ns)).writable);
        try testing.expectError(error.ConnectionRefused, RealOs.connectResult(client));
        notifier.unwatch(client);
    } else |failure| try testing.expectEqual(error.ConnectionRefused, failure);
}

test "notifier: a time-out has passed when it is reported" {
    var notifier: RealNotifier = try .init();
    defer notifier.deinit();
    for ([_]u64{ 0, 1, 999, 1_500_000, 10_000_001 }) |timeout_ns| {
        const before_ns = RealOs.monotonicNs();
        try testing.expectEqual(Ready{ .timed_out = true }, try notifier.wait(timeout_ns));
        try testing.expect(RealOs.monotonicNs() - before_ns >= timeout_ns);
    }
}

test "notifier: the longest time-out is one" {
    var bed = try TestBed.open();
    defer bed.deinit();
    const ready = try bed.notifier.wait(std.math.maxInt(u64));
    try testing.expectEqual(Ready{ .writable = true }, ready);
}

test "notifier: its descriptor is readable when the watched one is ready" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.notifier.watch(bed.client, .{ .readable = true });
    var list: [1]c.pollfd = .{.{
        .fd = bed.notifier.descriptor(),
        .events = c.POLL.IN,
        .revents = 0,
    }};
    try testing.expectEqual(@as(c_int, 0), c.poll(&list, 1, 0));
    try bed.give("x");
    try testing.expectEqual(@as(c_int, 1), c.poll(&list, 1, 10_000));
}

fn ignoreSignal(_: c.SIG) callconv(.c) void {}

/// Signals until told to stop: a signal before the wait has begun interrupts nothing.
fn signalThread(target: c.pthread_t, stop: *std.atomic.Value(bool)) void {
    while (!stop.load(.acquire)) {
        _ = c.pthread_kill(target, .USR1);
        std.Thread.yield() catch {};
    }
}

test "notifier: a signal interrupts a wait without end" {
    const action: c.Sigaction = .{
        .handler = .{ .handler = ignoreSignal },
        .mask = std.mem.zeroes(c.sigset_t),
        .flags = 0,
    };
    var action_old: c.Sigaction = undefined;
    try testing.expectEqual(@as(c_int, 0), c.sigaction(.USR1, &action, &action_old));
    defer _ = c.sigaction(.USR1, &action_old, null);

    var notifier: RealNotifier = try .init();
    defer notifier.deinit();
    for ([_]?u64{ null, test_timeout_ns }) |timeout_ns| {
        var stop: std.atomic.Value(bool) = .init(false);
        const thread = try std.Thread.spawn(.{}, signalThread, .{ c.pthread_self(), &stop });
        const ready = notifier.wait(timeout_ns);
        stop.store(true, .release);
        thread.join();
        try testing.expectEqual(Ready{ .interrupted = true }, try ready);
    }
}

/// A platform with a notifier of its own.
const ScriptedOs = struct {
    pub const Notifier = struct {
        pub fn init() NotifierError!ScriptedOs.Notifier {
            return .{};
        }
        pub fn deinit(_: *ScriptedOs.Notifier) void {}
        pub fn watch(_: *ScriptedOs.Notifier, _: os.Descriptor, _: Interest) WatchError!void {}
        pub fn unwatch(_: *ScriptedOs.Notifier, _: os.Descriptor) void {}
        pub fn disown(_: *ScriptedOs.Notifier) void {}
        pub fn wait(_: *ScriptedOs.Notifier, _: ?u64) WaitError!Ready {
            return .{ .interrupted = true };
        }
        pub fn descriptor(_: *const ScriptedOs.Notifier) os.Descriptor {
            return 7;
        }
    };
};

test "notifier: a scripted platform brings its own" {
    var notifier: NotifierType(ScriptedOs) = try .init();
    defer notifier.deinit();
    try testing.expectEqual(@as(os.Descriptor, 7), notifier.descriptor());
    try testing.expect((try notifier.wait(null)).interrupted);
}
