//! Tests of `lookup.zig`: on a platform whose answers wait until the test lets them come, and on
//! this machine's.

const std = @import("std");
const lookup_module = @import("lookup.zig");
const notifier_module = @import("notifier.zig");
const os = @import("os.zig");

const testing = std.testing;
const c = std.c;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const Os = os.Os;
const AddressList = os.AddressList;
const Descriptor = os.Descriptor;
const Lookup = lookup_module.LookupType(HeldOs);
const Notifier = notifier_module.NotifierType(Os);

/// The platform, except that each answer waits in `resolve` for the test, and descriptors, threads
/// and signals are counted.
const HeldOs = struct {
    pub const resolveLiteral = Os.resolveLiteral;

    var lock: c.pthread_mutex_t = .{};
    var changed: c.pthread_cond_t = .{};
    /// How many threads may answer, wait for that, and have answered.
    var allowed: u32 = 0;
    var waiting: u32 = 0;
    var answered: u32 = 0;
    var failure: ?os.ResolveError = null;
    var open_count: std.atomic.Value(i32) = .init(0);
    var pair_failure: ?os.OpenError = null;
    var thread_failure: ?os.ThreadError = null;
    /// The signals that the last thread had blocked.
    var blocked: c.sigset_t = undefined;

    fn reset() void {
        allowed = 0;
        waiting = 0;
        answered = 0;
        failure = null;
        open_count.store(0, .monotonic);
        pair_failure = null;
        thread_failure = null;
    }

    /// Lets so many look-ups have their answer.
    fn allow(count: u32) void {
        _ = c.pthread_mutex_lock(&lock);
        defer _ = c.pthread_mutex_unlock(&lock);
        allowed += count;
        _ = c.pthread_cond_broadcast(&changed);
    }

    /// Waits until so many threads wait in `resolve`.
    fn awaitWaiting(count: u32) void {
        _ = c.pthread_mutex_lock(&lock);
        defer _ = c.pthread_mutex_unlock(&lock);
        while (waiting < count) _ = c.pthread_cond_wait(&changed, &lock);
    }

    /// Waits until the last thread has closed what it had.
    fn awaitClosed() void {
        while (open_count.load(.acquire) != 0) std.Thread.yield() catch {};
    }

    pub fn resolve(_: [:0]const u8, port: u16, list: *AddressList) os.ResolveError!void {
        _ = c.pthread_mutex_lock(&lock);
        defer _ = c.pthread_mutex_unlock(&lock);
        var none: c.sigset_t = undefined;
        _ = c.sigemptyset(&none);
        _ = c.pthread_sigmask(c.SIG.BLOCK, &none, &blocked);
        waiting += 1;
        _ = c.pthread_cond_broadcast(&changed);
        while (answered == allowed) _ = c.pthread_cond_wait(&changed, &lock);
        answered += 1;
        if (failure) |cause| return cause;
        _ = list.append(os.Address.parse("192.0.2.7", port).?);
    }

    pub fn socketPair() os.OpenError![2]Descriptor {
        if (pair_failure) |cause| return cause;
        const pair = try Os.socketPair();
        _ = open_count.fetchAdd(2, .monotonic);
        return pair;
    }

    pub fn startThread(
        run: *const fn (?*anyopaque) callconv(.c) ?*anyopaque,
        argument: *anyopaque,
    ) os.ThreadError!void {
        if (thread_failure) |cause| return cause;
        return Os.startThread(run, argument);
    }

    pub fn shutdownSend(descriptor: Descriptor) void {
        Os.shutdownSend(descriptor);
    }

    pub fn close(descriptor: Descriptor) void {
        Os.close(descriptor);
        _ = open_count.fetchSub(1, .release);
    }
};

fn begin() !*Lookup {
    var list: AddressList = .{};
    const lookup = try Lookup.begin("feed.test", 443, &list);
    try expectEqual(0, list.count);
    return lookup.?;
}

test "lookup: the answer makes the descriptor readable, and not before" {
    HeldOs.reset();
    var notifier: Notifier = try .init();
    defer notifier.deinit();
    var watch: Notifier.Watch = .{};
    const lookup = try begin();
    try notifier.watch(&watch, lookup.descriptor(), .{ .readable = true });
    HeldOs.awaitWaiting(1);
    var list: AddressList = .{};
    try expectEqual(.timed_out, try notifier.wait(0));
    try expect(lookup.answer(&list) == null);

    HeldOs.allow(1);
    try expectEqual(.ready, try notifier.wait(null));
    try expectEqual(os.Ready{ .readable = true }, watch.take());
    try expectEqual(c.E.SUCCESS, watch.told);
    try lookup.answer(&list).?;
    try expectEqual(1, list.count);
    try expect(list.items[0].equal(&os.Address.parse("192.0.2.7", 443).?));
    // It is level-triggered: whoever waits again is told again.
    try expectEqual(.ready, try notifier.wait(0));
    watch.cancel();
    lookup.drop();
    HeldOs.awaitClosed();
}

test "lookup: an error is an answer" {
    HeldOs.reset();
    HeldOs.failure = error.TemporaryFailure;
    HeldOs.allow(1);
    const lookup = try begin();
    var notifier: Notifier = try .init();
    defer notifier.deinit();
    var watch: Notifier.Watch = .{};
    try notifier.watch(&watch, lookup.descriptor(), .{ .readable = true });
    try expectEqual(.ready, try notifier.wait(null));
    watch.cancel();
    var list: AddressList = .{};
    try testing.expectError(error.TemporaryFailure, lookup.answer(&list).?);
    try expectEqual(0, list.count);
    lookup.drop();
    HeldOs.awaitClosed();
}

test "lookup: what is given up leaves nothing open once the system has answered" {
    HeldOs.reset();
    for (0..count_given_up) |_| (try begin()).drop();
    // The owner's ends are closed at once, the others by the threads.
    try expectEqual(count_given_up, HeldOs.open_count.load(.monotonic));
    HeldOs.awaitWaiting(count_given_up);
    HeldOs.allow(count_given_up);
    HeldOs.awaitClosed();
}

const count_given_up = 20;

test "lookup: signals are left to the threads of the program" {
    HeldOs.reset();
    const lookup = try begin();
    HeldOs.awaitWaiting(1);
    for ([_]c.SIG{ .INT, .TERM, .ALRM, .USR1, .PIPE }) |signal| {
        try expectEqual(1, c.sigismember(&HeldOs.blocked, signal));
    }
    var mine: c.sigset_t = undefined;
    var none: c.sigset_t = undefined;
    _ = c.sigemptyset(&none);
    _ = c.pthread_sigmask(c.SIG.BLOCK, &none, &mine);
    try expectEqual(0, c.sigismember(&mine, .INT));
    lookup.drop();
    HeldOs.allow(1);
    HeldOs.awaitClosed();
}

test "lookup: an address in text form is known at once, without a thread" {
    HeldOs.reset();
    HeldOs.pair_failure = error.TooManyOpenFiles;
    var list: AddressList = .{};
    for ([_][:0]const u8{ "192.0.2.1", "2001:db8::1", "::1" }) |host| {
        try expectEqual(null, try Lookup.begin(host, 443, &list));
        try expectEqual(1, list.count);
        try expect(list.items[0].equal(&os.Address.parse(host, 443).?));
    }
    const scoped = "fe80::1%1";
    try expectEqual(null, try Lookup.begin(scoped, 443, &list));
    var text: [os.Address.text_size_max]u8 = undefined;
    const written = try std.fmt.bufPrint(&text, "{f}", .{list.items[0]});
    try testing.expectEqualStrings("[" ++ scoped ++ "]:443", written);
    const unknown = Lookup.begin("fe80::1%no-such-device", 443, &list);
    try testing.expectError(error.NameNotFound, unknown);
}

test "lookup: what cannot begin is an error, and leaves nothing open" {
    HeldOs.reset();
    for ([_]os.OpenError{ error.TooManyOpenFiles, error.TooManyOpenFilesInSystem }) |cause| {
        HeldOs.pair_failure = cause;
        try testing.expectError(cause, begin());
    }
    HeldOs.pair_failure = null;
    HeldOs.thread_failure = error.ThreadLimit;
    try testing.expectError(error.ThreadLimit, begin());
    try expectEqual(0, HeldOs.open_count.load(.monotonic));
    try expectEqual(0, HeldOs.waiting);
}

test "lookup: a forked child frees its copy, and the parent still gets its answer" {
    HeldOs.reset();
    const lookup = try begin();
    HeldOs.awaitWaiting(1);
    const child = c.fork();
    if (child == 0) {
        lookup.drop();
        const left = HeldOs.open_count.load(.monotonic);
        c._exit(@intCast(left));
    }
    var status: c_int = undefined;
    try expectEqual(child, c.waitpid(child, &status, 0));
    try expectEqual(0, status);
    var list: AddressList = .{};
    try expect(lookup.answer(&list) == null);
    HeldOs.allow(1);
    var notifier: Notifier = try .init();
    defer notifier.deinit();
    var watch: Notifier.Watch = .{};
    try notifier.watch(&watch, lookup.descriptor(), .{ .readable = true });
    try expectEqual(.ready, try notifier.wait(null));
    watch.cancel();
    try lookup.answer(&list).?;
    lookup.drop();
    HeldOs.awaitClosed();
}

test "lookup: a child that lives on does not keep the answer from the parent" {
    HeldOs.reset();
    const lookup = try begin();
    HeldOs.awaitWaiting(1);
    const life = try Os.socketPair(); // The child lives until its end of this is closed.
    const child = c.fork();
    if (child == 0) {
        Os.close(life[0]);
        var byte: [1]u8 = undefined;
        _ = c.read(life[1], &byte, 1);
        c._exit(0);
    }
    Os.close(life[1]);
    HeldOs.allow(1);
    var notifier: Notifier = try .init();
    defer notifier.deinit();
    var watch: Notifier.Watch = .{};
    try notifier.watch(&watch, lookup.descriptor(), .{ .readable = true });
    try expectEqual(.ready, try notifier.wait(null));
    watch.cancel();
    lookup.drop();
    HeldOs.awaitClosed();
    Os.close(life[0]);
    var status: c_int = undefined;
    try expectEqual(child, c.waitpid(child, &status, 0));
    try expectEqual(0, status);
}

test "lookup: this machine's resolver answers from its files" {
    const Real = lookup_module.LookupType(Os);
    var list: AddressList = .{};
    const lookup = (try Real.begin("localhost", 9000, &list)).?;
    var notifier: Notifier = try .init();
    defer notifier.deinit();
    var watch: Notifier.Watch = .{};
    try notifier.watch(&watch, lookup.descriptor(), .{ .readable = true });
    try expectEqual(.ready, try notifier.wait(null));
    watch.cancel();
    try lookup.answer(&list).?;
    try expect(list.count > 0);
    lookup.drop();
}
