//! Tests of `loop.zig` with several connections: deadlines on the scripted kernel, and data on real
//! sockets with the notifier of each platform.

const std = @import("std");
const builtin = @import("builtin");
const ConnectionType = @import("connection.zig").ConnectionType;
const LoopType = @import("loop.zig").LoopType;
const bed_module = @import("testing/connection_bed.zig");
const frames = @import("testing/frames.zig");
const os = @import("os.zig");
const TestListener = @import("testing/listener.zig").TestListener;
const ScriptedOs = @import("testing/scripted_os.zig");
const types = @import("connection/types.zig");
const ws = @import("ws.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const kernel = &ScriptedOs.kernel;
const ms = std.time.ns_per_ms;
const s = std.time.ns_per_s;

// ---- On the scripted kernel, with connections that are not open yet. ---------------------------

/// Three connections on one scripted machine.
const Trio = struct {
    loop: bed_module.Loop,
    connections: [3]bed_module.Connection,

    fn init(trio: *Trio) !void {
        ScriptedOs.reset(testing.allocator, 1);
        trio.loop = try .init();
        for (&trio.connections, 1..) |*connection, seconds| {
            var options = bed_module.websocket_options;
            options.connect_timeout_ns = seconds * s;
            connection.* = .init(options);
            trio.loop.join(connection);
        }
        kernel.now_ns += 20 * ms; // Otherwise the clock spins until it is calibrated.
    }

    fn deinit(trio: *Trio) void {
        for (&trio.connections) |*connection| {
            trio.loop.leave(connection);
            connection.deinit();
        }
        trio.loop.deinit();
        ScriptedOs.deinit();
    }

    /// Makes all three begin to connect; the script has the results.
    fn start(trio: *Trio) !void {
        for (&trio.connections) |*connection| {
            try connection.start();
            trio.loop.ask(connection);
        }
        try trio.expectRound("012");
    }

    /// Asks those that have something to do, in this order; `!` is behind one that has failed.
    fn expectRound(trio: *Trio, expected: []const u8) !void {
        var buffer: [16]u8 = undefined;
        var list: std.ArrayList(u8) = .initBuffer(&buffer);
        trio.loop.beginRound();
        while (trio.loop.take()) |connection| {
            const index = connection - &trio.connections[0];
            list.appendAssumeCapacity(@intCast('0' + index));
            if (connection.next()) |event| {
                try expectEqual(.blocked, event);
            } else |err| {
                try expectEqual(error.Failed, err);
                list.appendAssumeCapacity('!');
            }
            try trio.loop.settle(connection);
        }
        try testing.expectEqualStrings(expected, list.items);
    }

    fn wait(trio: *Trio, timeout_ns: ?u64) !types.Wake {
        return trio.loop.wait(timeout_ns);
    }
};

test "loop: the first deadline of several ends a wait, and the others go on" {
    var trio: Trio = undefined;
    try trio.init();
    defer trio.deinit();
    for (0..3) |_| kernel.thenConnect(.silent);
    const start_ns = kernel.now_ns;
    try trio.start();
    try expectEqual(.timed_out, try trio.wait(s / 2));
    try expectEqual(start_ns + s / 2, kernel.now_ns);
    try trio.expectRound("");
    for ([_][]const u8{ "0!", "1!", "2!" }, 1..) |expected, seconds| {
        try expectEqual(start_ns + seconds * s, trio.loop.deadlineNs().?);
        try expectEqual(.timed_out, try trio.wait(null));
        try expectEqual(start_ns + seconds * s, kernel.now_ns);
        try trio.expectRound(expected);
        const failed = &trio.connections[seconds - 1];
        try expectEqual(types.Failure{ .timed_out = .connecting }, failed.failure().?);
    }
    try expectEqual(null, trio.loop.deadlineNs());
}

test "loop: a connection that can go on ends a wait at once, and the others are still checked" {
    var trio: Trio = undefined;
    try trio.init();
    defer trio.deinit();
    kernel.thenConnect(.silent);
    kernel.thenConnect(.{ .answered = .{} });
    kernel.thenConnect(.silent);
    const start_ns = kernel.now_ns;
    try trio.start();
    // A call has changed it: the owner says so.
    trio.connections[0].abort();
    trio.loop.ask(&trio.connections[0]);
    trio.loop.ask(&trio.connections[0]); // It is asked once.
    try expectEqual(.ready, try trio.wait(null));
    try expectEqual(start_ns, kernel.now_ns);
    try trio.expectRound("0!1");
    try expectEqual(.requesting, trio.connections[1].state());
    // One that is over waits for nothing.
    try expectEqual(.timed_out, try trio.wait(s / 2));
    try expectEqual(start_ns + s / 2, kernel.now_ns);
    try trio.expectRound("");
}

test "loop: a round has only what was there when it began" {
    var trio: Trio = undefined;
    try trio.init();
    defer trio.deinit();
    for (0..3) |_| kernel.thenConnect(.silent);
    try trio.start();
    const loop = &trio.loop;
    const connection = &trio.connections;
    for ([_]usize{ 2, 0, 1 }) |index| loop.ask(&connection[index]);
    loop.beginRound();
    try expectEqual(&connection[2], loop.take().?);
    loop.ask(&connection[2]); // It goes on in the next round.
    loop.unask(&connection[0]); // It left meanwhile.
    try expectEqual(&connection[1], loop.take().?);
    try expectEqual(null, loop.take());
    try expectEqual(null, loop.take());
    try expect(loop.hasAsked());
    // A round that an error has interrupted begins anew.
    loop.ask(&connection[1]);
    loop.beginRound();
    try expectEqual(&connection[2], loop.take().?);
    loop.beginRound();
    try expectEqual(&connection[1], loop.take().?);
    try expectEqual(null, loop.take());
    try expect(!loop.hasAsked());
}

test "loop: an answer reaches the connection that it is for" {
    var trio: Trio = undefined;
    try trio.init();
    defer trio.deinit();
    kernel.thenConnect(.{ .answered = .{ .after_ns = 3 * ms } });
    kernel.thenConnect(.{ .answered = .{ .after_ns = ms, .result = error.ConnectionRefused } });
    kernel.thenConnect(.{ .answered = .{ .after_ns = 2 * ms } });
    try trio.start();
    try expectEqual(.ready, try trio.wait(null));
    try trio.expectRound("1!");
    // The next socket gets the number of the closed one, and has to be watched again.
    kernel.thenConnect(.silent);
    try trio.connections[1].start();
    trio.loop.ask(&trio.connections[1]);
    try trio.expectRound("1");
    try expectEqual(.ready, try trio.wait(null));
    try trio.expectRound("2");
    try expectEqual(.ready, try trio.wait(null));
    try trio.expectRound("0");
    try expect(!trio.connections[1].lifecycle.opening.dialer.answered);
}

test "loop: a signal and a failed wait are reported, and change no connection" {
    var trio: Trio = undefined;
    try trio.init();
    defer trio.deinit();
    for (0..3) |_| kernel.thenConnect(.{ .answered = .{} });
    for (&trio.connections) |*connection| {
        try connection.start();
        try expectEqual(.blocked, try connection.next());
    }
    kernel.watch_failure = error.WatchLimit;
    for (&trio.connections) |*connection| {
        try testing.expectError(error.SystemResources, trio.loop.settle(connection));
    }
    kernel.watch_failure = null;
    for (&trio.connections) |*connection| try trio.loop.settle(connection);
    kernel.wait_failure = error.OutOfMemory;
    try testing.expectError(error.SystemResources, trio.wait(null));
    kernel.wait_failure = null;
    kernel.interrupts = 1;
    try expectEqual(.interrupted, try trio.wait(null));
    try trio.expectRound("");
    try expectEqual(.ready, try trio.wait(null));
    const changes = kernel.watch_changes;
    for (&trio.connections) |*connection| {
        try expect(connection.lifecycle.opening.dialer.answered);
        trio.loop.unask(connection);
        try trio.loop.settle(connection); // The kernel is asked for nothing new.
    }
    try expectEqual(changes, kernel.watch_changes);
}

test "loop: wake ends a wait, once, and also one that comes later" {
    var trio: Trio = undefined;
    try trio.init();
    defer trio.deinit();
    for (0..3) |_| kernel.thenConnect(.silent);
    try trio.start();
    const start_ns = kernel.now_ns;
    trio.loop.wake();
    trio.loop.wake();
    try expectEqual(.ready, try trio.wait(null));
    try expectEqual(start_ns, kernel.now_ns);
    try expect(trio.loop.takeWake());
    try expect(!trio.loop.takeWake());
    try trio.expectRound("");
    try expectEqual(.timed_out, try trio.wait(s / 2));
    try expectEqual(start_ns + s / 2, kernel.now_ns);
}

test "loop: what another event loop is told" {
    var trio: Trio = undefined;
    try trio.init();
    defer trio.deinit();
    for (0..3) |_| kernel.thenConnect(.silent);
    const start_ns = kernel.now_ns;
    try trio.start();
    const notifier = &trio.loop.notifier;
    try trio.loop.publish(null, false);
    try expect(!notifier.raised);
    try expectEqual(start_ns + s, notifier.alarm_ns.?);
    try trio.loop.publish(start_ns + s / 2, false); // The owner's own deadline is earlier.
    try expectEqual(start_ns + s / 2, notifier.alarm_ns.?);
    // Something to do without waiting: a connection's, then the owner's own.
    trio.loop.ask(&trio.connections[1]);
    try trio.loop.publish(null, false);
    try expect(notifier.raised);
    try trio.expectRound("1");
    try trio.loop.publish(null, false);
    try expect(!notifier.raised);
    try trio.loop.publish(null, true);
    try expect(notifier.raised);
    // A wake-up is neither lost nor covered by that.
    trio.loop.wake();
    try trio.loop.publish(null, false);
    try expect(notifier.raised);
    try expect(trio.loop.takeWake());
    try trio.loop.publish(null, false);
    try expect(!notifier.raised);
    // Without deadlines there is no alarm.
    for (&trio.connections) |*connection| {
        connection.abort();
        try trio.loop.settle(connection);
    }
    try trio.loop.publish(null, false);
    try expectEqual(null, notifier.alarm_ns);
}

// ---- On real sockets. --------------------------------------------------------------------------

/// A limit for what otherwise takes less than a second; never reached.
const patience_ns = 30 * s;

/// On Linux also macOS's notifier, where its stand-ins are linked: see os.zig.
const platforms = switch (builtin.os.tag) {
    .linux => if (builtin.valgrind_support or @import("test_options").emulated)
        .{os.Os}
    else
        .{ os.Os, @import("darwin_on_linux") },
    else => .{os.Os},
};

fn FeedsType(comptime Os: type) type {
    return struct {
        const Feeds = @This();
        const Connection = ConnectionType(Os);
        const count = 4;

        listener: TestListener,
        loop: LoopType(Os),
        connections: [count]Connection,
        servers: [count]os.Descriptor,
        arena: std.heap.ArenaAllocator,
        /// How many messages each connection has delivered.
        heard: [count]u32,

        fn init(feeds: *Feeds, busy: [count]bool) !void {
            feeds.listener = .open(true);
            feeds.loop = try .init();
            feeds.arena = .init(testing.allocator);
            feeds.heard = @splat(0);
            for (&feeds.connections, &busy) |*connection, busy_poll| {
                var options = bed_module.websocket_options;
                options.host = "127.0.0.1";
                options.url.port = feeds.listener.address.port();
                options.busy_poll = busy_poll;
                connection.* = .init(options);
                feeds.loop.join(connection);
            }
            for (0..count) |index| try feeds.open(index);
        }

        fn deinit(feeds: *Feeds) void {
            for (&feeds.connections) |*connection| {
                feeds.loop.leave(connection);
                connection.deinit();
            }
            for (feeds.servers) |server| Os.close(server);
            feeds.loop.deinit();
            feeds.listener.deinit();
            feeds.arena.deinit();
        }

        /// Connects one of them alone, and answers its request.
        fn open(feeds: *Feeds, index: usize) !void {
            const connection = &feeds.connections[index];
            try connection.start();
            while (connection.state() != .requesting) {
                try expectEqual(.blocked, try connection.next());
                if (connection.state() == .requesting) break;
                try feeds.sleep(connection);
            }
            const server = feeds.listener.accept();
            feeds.servers[index] = server;
            try feeds.answer(server);
            while (try connection.next() != .opened) try feeds.sleep(connection);
            try expectEqual(.blocked, try connection.next());
            feeds.loop.unask(connection);
            try feeds.loop.settle(connection);
        }

        /// Waits for this connection; what comes for others meanwhile is not lost.
        fn sleep(feeds: *Feeds, connection: *Connection) !void {
            feeds.loop.unask(connection);
            try feeds.loop.settle(connection);
            _ = try feeds.loop.wait(patience_ns);
        }

        fn answer(feeds: *Feeds, server: os.Descriptor) !void {
            var request: [1024]u8 = undefined;
            var size: usize = 0;
            while (std.mem.find(u8, request[0..size], "\r\n\r\n") == null) {
                size += try Os.receive(server, request[size..], null);
            }
            const name = "Sec-WebSocket-Key: ";
            const start = std.mem.find(u8, request[0..size], name).? + name.len;
            const key = request[start..][0..@sizeOf(ws.handshake.Key)];
            const response = try feeds.arena.allocator().print("HTTP/1.1 101 OK\r\n" ++
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {s}\r\n\r\n", .{
                &ws.handshake.acceptValue(key),
            });
            try expectEqual(response.len, try Os.send(server, response));
        }

        /// Sends one message to a client, and waits until it is in the client's socket.
        fn give(feeds: *Feeds, index: usize) !void {
            var bytes: std.ArrayList(u8) = .empty;
            const gpa = feeds.arena.allocator();
            try frames.append(&bytes, gpa, bed_module.textFrame("tick"));
            try expectEqual(bytes.items.len, try Os.send(feeds.servers[index], bytes.items));
            var list: [1]std.c.pollfd = .{.{
                .fd = feeds.connections[index].transport.link.socket.?.descriptor,
                .events = std.c.POLL.IN,
                .revents = 0,
            }};
            try expectEqual(@as(c_int, 1), std.c.poll(&list, 1, 10_000));
        }

        /// Delivers all that the last wait has found. False when there was nothing.
        fn pump(feeds: *Feeds) !bool {
            const before = feeds.heard;
            feeds.loop.beginRound();
            while (feeds.loop.take()) |connection| {
                const index = connection - &feeds.connections[0];
                while (true) switch (try connection.next()) {
                    .message => |message| {
                        try testing.expectEqualStrings("tick", message.payload);
                        feeds.heard[index] += 1;
                    },
                    .blocked => break,
                    else => return error.UnexpectedEvent,
                };
                try feeds.loop.settle(connection);
            }
            return !std.mem.eql(u32, &before, &feeds.heard);
        }

        fn wait(feeds: *Feeds, timeout_ns: ?u64) !types.Wake {
            return feeds.loop.wait(timeout_ns);
        }

        /// Waits until each connection has delivered as many messages as expected.
        fn expectHeard(feeds: *Feeds, expected: [count]u32) !void {
            const until_ns = Os.monotonicNs() + patience_ns;
            while (!std.mem.eql(u32, &expected, &feeds.heard)) {
                try expect(Os.monotonicNs() < until_ns);
                _ = try feeds.wait(patience_ns);
                _ = try feeds.pump();
            }
        }
    };
}

test "loop: one wait finds all connections that have something, and only they are read" {
    inline for (platforms) |Os| {
        var feeds: FeedsType(Os) = undefined;
        try feeds.init(@splat(false));
        defer feeds.deinit();
        try expectEqual(.timed_out, try feeds.wait(0));
        try feeds.give(1);
        try feeds.give(3);
        var reads: [4]u64 = undefined;
        for (&reads, &feeds.connections) |*count, *connection| {
            count.* = connection.transport.counters.reads;
        }
        try expectEqual(.ready, try feeds.wait(patience_ns));
        try expect(!feeds.connections[1].transport.socket_drained);
        try expect(feeds.connections[0].transport.socket_drained);
        try expect(try feeds.pump());
        try testing.expectEqualSlices(u32, &.{ 0, 1, 0, 1 }, &feeds.heard);
        for (&feeds.connections, reads, 0..) |*connection, before, index| {
            try expectEqual(before + index % 2, connection.transport.counters.reads);
        }
        try expectEqual(.timed_out, try feeds.wait(ms));
        for (0..4) |index| try feeds.give(index);
        try feeds.expectHeard(.{ 1, 2, 1, 2 });
    }
}

test "loop: a connection ends and starts again, among others that stay open" {
    inline for (platforms) |Os| {
        var feeds: FeedsType(Os) = undefined;
        try feeds.init(@splat(false));
        defer feeds.deinit();
        for (0..3) |round| {
            Os.close(feeds.servers[2]);
            const ended = &feeds.connections[2];
            while (ended.state() == .open) {
                try expectEqual(.ready, try feeds.wait(patience_ns));
                try testing.expectError(error.Failed, ended.next());
                feeds.loop.unask(ended);
                try feeds.loop.settle(ended);
            }
            try feeds.give(0);
            try expectEqual(.ready, try feeds.wait(patience_ns));
            try feeds.open(2);
            try feeds.give(2);
            const heard: u32 = @intCast(round + 1);
            try feeds.expectHeard(.{ heard, 0, heard, 0 });
        }
    }
}

test "loop: a busy wait reads all connections" {
    inline for (platforms) |Os| {
        var feeds: FeedsType(Os) = undefined;
        try feeds.init(@splat(true));
        defer feeds.deinit();
        try expectEqual(.timed_out, try feeds.wait(patience_ns)); // After `spin_turn_ns`.
        for (0..4) |index| try feeds.give(index);
        try expectEqual(.ready, try feeds.wait(patience_ns));
        for (&feeds.connections) |*connection| try expect(connection.transport.early_read != null);
        // Another wait does not overwrite what was read.
        try expectEqual(.ready, try feeds.wait(patience_ns));
        try expect(try feeds.pump());
        try testing.expectEqualSlices(u32, &.{ 1, 1, 1, 1 }, &feeds.heard);
        try feeds.give(2);
        try feeds.expectHeard(.{ 1, 1, 2, 1 });
    }
}

test "loop: connections that sleep are not starved by one that busy polls" {
    inline for (platforms) |Os| {
        var feeds: FeedsType(Os) = undefined;
        try feeds.init(.{ false, true, false, true });
        defer feeds.deinit();
        try expectEqual(.timed_out, try feeds.wait(ms));
        try feeds.give(2);
        try feeds.expectHeard(.{ 0, 0, 1, 0 });
        for (1..9) |round| {
            try feeds.give(0);
            try feeds.give(1);
            try expectEqual(.ready, try feeds.wait(patience_ns));
            try expect(try feeds.pump());
            const heard: u32 = @intCast(round);
            try testing.expectEqualSlices(u32, &.{ heard, heard, 1, 0 }, &feeds.heard);
        }
        // One that has something to do ends the wait at once; the others are still checked.
        feeds.loop.ask(&feeds.connections[3]);
        try feeds.give(0);
        try expectEqual(.ready, try feeds.wait(patience_ns));
        try expect(!feeds.connections[0].transport.socket_drained);
    }
}
