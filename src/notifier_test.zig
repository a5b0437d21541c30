//! Tests of the platform's notifier, on real sockets.

const std = @import("std");
const constants = @import("constants.zig");
const notifier_module = @import("notifier.zig");
const os = @import("os.zig");
const TestListener = @import("testing/listener.zig").TestListener;

const testing = std.testing;
const c = std.c;
const Interest = os.Interest;
const Ready = os.Ready;
const Wake = os.Wake;
const RealOs = os.Os;
const RealNotifier = notifier_module.NotifierType(RealOs);
const Watch = RealNotifier.Watch;

/// A connected pair and a notifier for the client's end.
const TestBed = struct {
    client: os.Descriptor,
    server: os.Descriptor,
    notifier: RealNotifier,
    watch: Watch = .{},

    fn open() !TestBed {
        const listener: TestListener = .open(true);
        defer listener.deinit();
        var notifier: RealNotifier = try .init();
        errdefer notifier.deinit();
        var connecting: Watch = .{};
        const client = try RealOs.openSocket(&listener.address);
        errdefer RealOs.close(client);
        const state = try RealOs.connect(client, &listener.address);
        try notifier.watch(&connecting, client, .{ .writable = true });
        if (state == .in_progress) {
            try testing.expectEqual(.ready, try notifier.wait(test_timeout_ns));
            try testing.expect(connecting.take().writable);
        }
        try RealOs.connectResult(client);
        connecting.cancel(); // The bed moves.
        return .{ .client = client, .server = listener.accept(), .notifier = notifier };
    }

    fn deinit(bed: *TestBed) void {
        bed.watch.cancel();
        bed.notifier.deinit();
        RealOs.close(bed.client);
        RealOs.close(bed.server);
    }

    fn watchFor(bed: *TestBed, interest: Interest) !void {
        try bed.notifier.watch(&bed.watch, bed.client, interest);
    }

    /// Waits until the client's end is ready for just this.
    fn expectReady(bed: *TestBed, expected: Ready) !void {
        try testing.expectEqual(.ready, try bed.notifier.wait(test_timeout_ns));
        try testing.expectEqual(expected, bed.watch.take());
    }

    fn expectReadable(bed: *TestBed) !void {
        try testing.expectEqual(.ready, try bed.notifier.wait(test_timeout_ns));
        try testing.expect(bed.watch.take().readable);
    }

    fn expectNothing(bed: *TestBed) !void {
        try testing.expectEqual(.timed_out, try bed.notifier.wait(0));
        try testing.expectEqual(Ready{}, bed.watch.take());
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
    try bed.watchFor(.{ .readable = true, .writable = true });
    try bed.expectReady(.{ .writable = true });

    try bed.watchFor(.{ .readable = true });
    try bed.expectNothing();
    try bed.give("x");
    try testing.expectEqual(.ready, try bed.notifier.wait(null));
    try testing.expectEqual(Ready{ .readable = true }, bed.watch.take());

    try bed.watchFor(.{ .readable = true, .writable = true });
    try bed.expectReady(.{ .readable = true, .writable = true });
}

test "notifier: a forked process leaves what is watched to its parent" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.watchFor(.{ .readable = true });
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
    try bed.expectReady(.{ .readable = true });
}

test "notifier: bytes left in the kernel are reported again and again" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.watchFor(.{ .readable = true });
    try bed.give("four");
    var byte: [1]u8 = undefined;
    for (0..4) |_| {
        try bed.expectReadable();
        try testing.expectEqual(@as(usize, 1), try RealOs.receive(bed.client, &byte, null));
    }
    try bed.expectNothing();
}

test "notifier: what is not watched for is not reported" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.watchFor(.{});
    try bed.give("x");
    try bed.expectNothing();
    try bed.watchFor(.{ .readable = true });
    try bed.expectReadable();
    bed.watch.cancel();
    try bed.expectNothing();
    bed.watch.cancel();
    try bed.watchFor(.{ .readable = true });
    try bed.expectReadable();
}

test "notifier: a watch that is given another descriptor removes the first" {
    var bed = try TestBed.open();
    defer bed.deinit();
    var other = try TestBed.open();
    defer other.deinit();
    try bed.watchFor(.{ .readable = true });
    try bed.give("x");
    try bed.expectReadable();
    try bed.notifier.watch(&bed.watch, other.client, .{ .readable = true });
    try bed.expectNothing();
    try other.give("x");
    try bed.expectReadable();
    // The same for a descriptor that was closed, and whose number came again.
    bed.watch.cancel();
    RealOs.close(other.client);
    const listener: TestListener = .open(true);
    defer listener.deinit();
    const again = try RealOs.openSocket(&listener.address);
    try testing.expectEqual(other.client, again);
    _ = try RealOs.connect(again, &listener.address);
    const server = listener.accept();
    defer RealOs.close(server);
    try bed.notifier.watch(&bed.watch, again, .{ .readable = true });
    try bed.expectNothing();
    try testing.expectEqual(@as(usize, 1), try RealOs.send(server, "x"));
    try bed.expectReadable();
    bed.watch.cancel();
}

test "notifier: the end of the stream and a reset make it readable" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.watchFor(.{ .readable = true });
    RealOs.shutdownSend(bed.server);
    try bed.expectReadable();

    var other = try TestBed.open();
    try other.watchFor(.{ .readable = true });
    TestListener.reset(other.server);
    try other.expectReadable();
    other.watch.cancel();
    other.notifier.deinit();
    RealOs.close(other.client);
}

/// Many connected pairs, and one notifier for all clients.
const Crowd = struct {
    pairs: []TestBed,
    notifier: RealNotifier,

    fn open(size: usize) !Crowd {
        const pairs = try testing.allocator.alloc(TestBed, size);
        for (pairs) |*pair| pair.* = try .open();
        return .{ .pairs = pairs, .notifier = try .init() };
    }

    fn deinit(crowd: *Crowd) void {
        for (crowd.pairs) |*pair| pair.deinit();
        crowd.notifier.deinit();
        testing.allocator.free(crowd.pairs);
    }

    fn watchAll(crowd: *Crowd) !void {
        for (crowd.pairs) |*pair| {
            try crowd.notifier.watch(&pair.watch, pair.client, .{ .readable = true });
        }
    }

    /// Bytes are in the client's kernel: what follows finds all of them ready.
    fn give(crowd: *Crowd, bytes: []const u8) !void {
        for (crowd.pairs) |*pair| {
            try pair.give(bytes);
            var list: [1]c.pollfd = .{.{ .fd = pair.client, .events = c.POLL.IN, .revents = 0 }};
            try testing.expectEqual(@as(c_int, 1), c.poll(&list, 1, 10_000));
        }
    }
};

test "notifier: one wait tells all that are ready, and only those" {
    var crowd: Crowd = try .open(8);
    defer crowd.deinit();
    try crowd.watchAll();
    for (crowd.pairs[2..5]) |*pair| {
        try pair.give("x");
        var list: [1]c.pollfd = .{.{ .fd = pair.client, .events = c.POLL.IN, .revents = 0 }};
        try testing.expectEqual(@as(c_int, 1), c.poll(&list, 1, 10_000));
    }
    try testing.expectEqual(.ready, try crowd.notifier.wait(test_timeout_ns));
    for (crowd.pairs, 0..) |*pair, index| {
        const is_ready = index >= 2 and index < 5;
        try testing.expectEqual(Ready{ .readable = is_ready }, pair.watch.take());
    }
}

test "notifier: a watch that is ready can be cancelled and gone before the next one is asked" {
    var crowd: Crowd = try .open(3);
    defer crowd.deinit();
    try crowd.watchAll();
    try crowd.give("x");
    try testing.expectEqual(.ready, try crowd.notifier.wait(test_timeout_ns));
    try testing.expect(crowd.pairs[0].watch.take().readable);
    crowd.pairs[1].watch.cancel();
    try testing.expectEqual(Ready{}, crowd.pairs[1].watch.take());
    try testing.expect(crowd.pairs[2].watch.take().readable);
    for (0..2) |_| {
        try testing.expectEqual(.ready, try crowd.notifier.wait(test_timeout_ns));
        try testing.expect(crowd.pairs[0].watch.take().readable);
        try testing.expectEqual(Ready{}, crowd.pairs[1].watch.take());
        try testing.expect(crowd.pairs[2].watch.take().readable);
    }
}

test "notifier: more ready at once than one wait tells, and everyone has its turn" {
    var crowd: Crowd = try .open(constants.events_per_wait_max + 3);
    defer crowd.deinit();
    try crowd.watchAll();
    try crowd.give("x");
    var told: [constants.events_per_wait_max + 3]u32 = @splat(0);
    // Nothing is read: descriptors stay ready after they were reported, and must not hide others.
    for (0..64) |_| {
        try testing.expectEqual(.ready, try crowd.notifier.wait(test_timeout_ns));
        var told_now: usize = 0;
        for (crowd.pairs, &told) |*pair, *count| {
            const readable = pair.watch.take().readable;
            count.* += @intFromBool(readable);
            told_now += @intFromBool(readable);
        }
        try testing.expect(told_now > 0);
        try testing.expect(told_now <= constants.events_per_wait_max);
        if (std.mem.findScalar(u32, &told, 0) == null) break;
    } else return error.TestUnexpectedResult;
}

test "notifier: a connect that fails makes it writable" {
    const listener: TestListener = .open(false);
    defer listener.deinit();
    const client = try RealOs.openSocket(&listener.address);
    defer RealOs.close(client);
    if (RealOs.connect(client, &listener.address)) |_| {
        var notifier: RealNotifier = try .init();
        defer notifier.deinit();
        var watch: Watch = .{};
        defer watch.cancel();
        try notifier.watch(&watch, client, .{ .writable = true });
        try testing.expectEqual(.ready, try notifier.wait(test_timeout_ns));
        try testing.expect(watch.take().writable);
        try testing.expectError(error.ConnectionRefused, RealOs.connectResult(client));
    } else |failure| try testing.expectEqual(error.ConnectionRefused, failure);
}

test "notifier: a time-out has passed when it is reported" {
    var notifier: RealNotifier = try .init();
    defer notifier.deinit();
    for ([_]u64{ 0, 1, 999, 1_500_000, 10_000_001 }) |timeout_ns| {
        const before_ns = RealOs.monotonicNs();
        try testing.expectEqual(.timed_out, try notifier.wait(timeout_ns));
        try testing.expect(RealOs.monotonicNs() - before_ns >= timeout_ns);
    }
}

test "notifier: the longest time-out is one" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.watchFor(.{ .writable = true });
    try testing.expectEqual(.ready, try bed.notifier.wait(std.math.maxInt(u64)));
    try testing.expectEqual(Ready{ .writable = true }, bed.watch.take());
}

test "notifier: its descriptor is readable when the watched one is ready" {
    var bed = try TestBed.open();
    defer bed.deinit();
    try bed.watchFor(.{ .readable = true });
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
        const wake = notifier.wait(timeout_ns);
        stop.store(true, .release);
        thread.join();
        try testing.expectEqual(.interrupted, try wake);
    }
}

/// Whether `descriptor` is readable now, or becomes so within this time.
fn isReadable(notifier: *const RealNotifier, timeout_ms: c_int) bool {
    var list: [1]c.pollfd = .{.{
        .fd = notifier.descriptor(),
        .events = c.POLL.IN,
        .revents = 0,
    }};
    return c.poll(&list, 1, timeout_ms) == 1;
}

test "notifier: a signal that is raised ends waits and shows at the descriptor until lowered" {
    var notifier: RealNotifier = try .init();
    defer notifier.deinit();
    for (0..3) |_| {
        try testing.expect(!isReadable(&notifier, 0));
        try testing.expectEqual(.timed_out, try notifier.wait(0));
        notifier.raise();
        notifier.raise();
        for (0..2) |_| {
            try testing.expect(isReadable(&notifier, 0));
            try testing.expectEqual(.ready, try notifier.wait(null));
            try testing.expectEqual(@as(usize, 0), notifier.found().len);
        }
        notifier.lower();
        notifier.lower();
    }
}

test "notifier: a signal of another thread ends a wait" {
    var notifier: RealNotifier = try .init();
    defer notifier.deinit();
    for (0..20) |_| {
        const thread = try std.Thread.spawn(.{}, RealNotifier.raise, .{&notifier});
        defer thread.join();
        try testing.expectEqual(.ready, try notifier.wait(test_timeout_ns));
        notifier.lower();
    }
}

test "notifier: an alarm makes the descriptor readable, until it is armed anew" {
    var notifier: RealNotifier = try .init();
    defer notifier.deinit();
    try notifier.arm(null);
    const start_ns = RealOs.monotonicNs();
    try notifier.arm(start_ns + test_timeout_ns);
    try testing.expect(!isReadable(&notifier, 0));
    for ([_]u64{ start_ns + 5 * std.time.ns_per_ms, start_ns, 0 }) |deadline_ns| {
        try notifier.arm(deadline_ns);
        try testing.expect(isReadable(&notifier, 10_000));
        try testing.expect(RealOs.monotonicNs() >= deadline_ns);
        try testing.expect(isReadable(&notifier, 0));
        try notifier.arm(null);
        try testing.expect(!isReadable(&notifier, 0));
    }
    try notifier.arm(0);
    try testing.expectEqual(.ready, try notifier.wait(test_timeout_ns));
    try notifier.arm(null);
    try testing.expectEqual(.timed_out, try notifier.wait(0));
}

/// A platform with a notifier of its own.
const ScriptedOs = struct {
    pub const Notifier = struct {
        pub const Watch = notifier_module.WatchType(ScriptedOs.Notifier);

        pub fn init() os.NotifierError!ScriptedOs.Notifier {
            return .{};
        }
        pub fn deinit(_: *ScriptedOs.Notifier) void {}
        pub fn watch(
            _: *ScriptedOs.Notifier,
            _: *ScriptedOs.Notifier.Watch,
            _: os.Descriptor,
            _: Interest,
        ) os.WatchError!void {}
        pub fn unwatch(_: *ScriptedOs.Notifier, _: *ScriptedOs.Notifier.Watch) void {}
        pub fn disown(_: *ScriptedOs.Notifier) void {}
        pub fn wait(_: *ScriptedOs.Notifier, _: ?u64) os.WaitError!Wake {
            return .interrupted;
        }
        pub fn found(_: *ScriptedOs.Notifier) []const *ScriptedOs.Notifier.Watch {
            return &.{};
        }
        pub fn raise(_: *ScriptedOs.Notifier) void {}
        pub fn lower(_: *ScriptedOs.Notifier) void {}
        pub fn arm(_: *ScriptedOs.Notifier, _: ?u64) os.NotifierError!void {}
        pub fn descriptor(_: *const ScriptedOs.Notifier) os.Descriptor {
            return 7;
        }
    };
};

test "notifier: a scripted platform brings its own" {
    var notifier: notifier_module.NotifierType(ScriptedOs) = try .init();
    defer notifier.deinit();
    try testing.expectEqual(@as(os.Descriptor, 7), notifier.descriptor());
    try testing.expectEqual(.interrupted, try notifier.wait(null));
}
