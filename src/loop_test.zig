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
        }
        kernel.now_ns += 20 * ms; // Otherwise the clock spins until it is calibrated.
    }

    fn deinit(trio: *Trio) void {
        for (&trio.connections) |*connection| connection.deinit();
        trio.loop.deinit();
        ScriptedOs.deinit();
    }

    /// Makes all three begin to connect; the script has the results.
    fn start(trio: *Trio) !void {
        for (&trio.connections) |*connection| {
            try connection.start();
            try expectEqual(.blocked, try connection.next());
        }
    }

    fn pointers(trio: *Trio) [3]*bed_module.Connection {
        const list = &trio.connections;
        return .{ &list[0], &list[1], &list[2] };
    }

    fn wait(trio: *Trio, timeout_ns: ?u64) !types.Wake {
        return trio.loop.wait(&trio.pointers(), timeout_ns);
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
    var list: []const *bed_module.Connection = &trio.pointers();
    for (1..4) |seconds| {
        try expectEqual(.timed_out, try trio.loop.wait(list, null));
        try expectEqual(start_ns + seconds * s, kernel.now_ns);
        try testing.expectError(error.Failed, list[0].next());
        try expectEqual(types.Failure{ .timed_out = .connecting }, list[0].failure().?);
        for (list[1..]) |connection| try expectEqual(.blocked, try connection.next());
        list = list[1..];
    }
}

test "loop: a connection that can go on ends a wait at once, and the others are still checked" {
    var trio: Trio = undefined;
    try trio.init();
    defer trio.deinit();
    const start_ns = kernel.now_ns;
    const connection = &trio.connections;
    // None has called `next`: there is nothing to ask the kernel.
    for (connection) |*each| try each.start();
    try expectEqual(.ready, try trio.wait(null));
    try expectEqual(@as(u32, 0), kernel.wait_calls);
    kernel.thenConnect(.{ .answered = .{} });
    kernel.thenConnect(.silent);
    for (connection[1..]) |*each| try expectEqual(.blocked, try each.next());
    try expectEqual(.ready, try trio.wait(null));
    try expectEqual(@as(u32, 1), kernel.wait_calls);
    try expectEqual(start_ns, kernel.now_ns);
    try expect(connection[1].lifecycle.opening.dialer.answered);
    try expect(!connection[2].lifecycle.opening.dialer.answered);
    // A connection that is over ends a wait at once, too.
    connection[0].abort();
    try expectEqual(.blocked, try connection[1].next());
    try expectEqual(.requesting, connection[1].state());
    try expectEqual(.ready, try trio.wait(null));
    try expectEqual(.blocked, try connection[2].next());
    try expectEqual(start_ns, kernel.now_ns);
}

test "loop: an answer reaches the connection that it is for" {
    var trio: Trio = undefined;
    try trio.init();
    defer trio.deinit();
    kernel.thenConnect(.{ .answered = .{ .after_ns = 3 * ms } });
    kernel.thenConnect(.{ .answered = .{ .after_ns = ms, .result = error.ConnectionRefused } });
    kernel.thenConnect(.{ .answered = .{ .after_ns = 2 * ms } });
    try trio.start();
    const connection = &trio.connections;
    try expectEqual(.ready, try trio.wait(null));
    for (connection, [_]bool{ false, true, false }) |*each, answered| {
        try expectEqual(answered, each.lifecycle.opening.dialer.answered);
    }
    try testing.expectError(error.Failed, connection[1].next());
    // The next socket gets the number of the closed one, and has to be watched again.
    kernel.thenConnect(.silent);
    try connection[1].start();
    try expectEqual(.blocked, try connection[1].next());
    try expectEqual(.ready, try trio.wait(null));
    for (connection, [_]bool{ false, false, true }) |*each, answered| {
        try expectEqual(answered, each.lifecycle.opening.dialer.answered);
    }
    try expectEqual(.blocked, try connection[2].next());
    try expectEqual(.ready, try trio.wait(null));
    try expect(connection[0].lifecycle.opening.dialer.answered);
    try expect(!connection[1].lifecycle.opening.dialer.answered);
}

test "loop: a signal and a failed wait are reported, and change no connection" {
    var trio: Trio = undefined;
    try trio.init();
    defer trio.deinit();
    for (0..3) |_| kernel.thenConnect(.{ .answered = .{} });
    try trio.start();
    kernel.watch_failure = error.WatchLimit;
    try testing.expectError(error.SystemResources, trio.wait(null));
    kernel.watch_failure = null;
    kernel.wait_failure = error.OutOfMemory;
    try testing.expectError(error.SystemResources, trio.wait(null));
    kernel.wait_failure = null;
    kernel.interrupts = 1;
    try expectEqual(.interrupted, try trio.wait(null));
    for (&trio.connections) |*connection| try expect(!connection.lifecycle.opening.dialer.answered);
    try expectEqual(.ready, try trio.wait(null));
    for (&trio.connections) |*connection| try expect(connection.lifecycle.opening.dialer.answered);
    const changes = kernel.watch_changes;
    try expectEqual(.ready, try trio.wait(null)); // The kernel is asked for nothing new.
    try expectEqual(changes, kernel.watch_changes);
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
            }
            for (0..count) |index| try feeds.open(index);
        }

        fn deinit(feeds: *Feeds) void {
            for (&feeds.connections) |*connection| connection.deinit();
            for (feeds.servers) |server| Os.close(server);
            feeds.loop.deinit();
            feeds.listener.deinit();
            feeds.arena.deinit();
        }

        fn pointers(feeds: *Feeds) [count]*Connection {
            var list: [count]*Connection = undefined;
            for (&list, &feeds.connections) |*pointer, *connection| pointer.* = connection;
            return list;
        }

        /// Connects one of them alone, and answers its request.
        fn open(feeds: *Feeds, index: usize) !void {
            const connection = &feeds.connections[index];
            try connection.start();
            while (connection.state() != .requesting) {
                try expectEqual(.blocked, try connection.next());
                if (connection.state() == .requesting) break;
                _ = try feeds.loop.wait(&.{connection}, patience_ns);
            }
            const server = feeds.listener.accept();
            feeds.servers[index] = server;
            try feeds.answer(server);
            while (try connection.next() != .opened) {
                _ = try feeds.loop.wait(&.{connection}, patience_ns);
            }
            try expectEqual(.blocked, try connection.next());
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

        /// Delivers all that is there without waiting. False when there was nothing.
        fn pump(feeds: *Feeds) !bool {
            const before = feeds.heard;
            for (&feeds.connections, &feeds.heard) |*connection, *heard| {
                while (true) switch (try connection.next()) {
                    .message => |message| {
                        try testing.expectEqualStrings("tick", message.payload);
                        heard.* += 1;
                    },
                    .blocked => break,
                    else => return error.UnexpectedEvent,
                };
            }
            return !std.mem.eql(u32, &before, &feeds.heard);
        }

        fn wait(feeds: *Feeds, timeout_ns: ?u64) !types.Wake {
            return feeds.loop.wait(&feeds.pointers(), timeout_ns);
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
            }
            try feeds.give(0);
            const others = [_]*ConnectionType(Os){ &feeds.connections[0], &feeds.connections[1] };
            try expectEqual(.ready, try feeds.loop.wait(&others, patience_ns));
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
        // One that is over ends the wait at once; the others are still checked.
        feeds.connections[3].abort();
        try feeds.give(0);
        try expectEqual(.ready, try feeds.wait(patience_ns));
        try expect(!feeds.connections[0].transport.socket_drained);
    }
}
