//! Tests of `connection.zig` when system calls fail: one at a time, and many at random.

const std = @import("std");
const test_options = @import("test_options");
const libssl = @import("../ssl/libssl.zig");
const ssl = @import("../ssl.zig");
const deflate = @import("../deflate.zig");
const loop = @import("../loop.zig");
const os = @import("../os.zig");
const types = @import("types.zig");
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");
const frames = @import("../testing/frames.zig");
const tls_bed = @import("../testing/tls_bed.zig");
const tls_server = @import("../testing/tls_server.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const expectEqualDeep = testing.expectEqualDeep;
const kernel = &ScriptedOs.kernel;
const s = std.time.ns_per_s;
const Pin = @import("../ringbuffer.zig").Pin;
const Bed = bed_module.Bed;
const Frame = frames.Frame;
const Seen = bed_module.Seen;
const RandomFaults = ScriptedOs.RandomFaults;
const TlsBed = tls_bed.TlsBed;
const lost = bed_module.lost;
const textFrame = bed_module.textFrame;

const plain_options = bed_module.websocket_options;
const secure_options = bed_module.optionsOf("wss://feed.test/stream");

// ---- One at a time. ----------------------------------------------------------------------------

test "connection: a start that cannot map its rings leaks nothing, and works later" {
    var options = secure_options;
    options.compression = .{
        .api = deflate.zlib.load(&.{}) catch return error.SkipZigTest,
        .offer = .{},
        .level = 1,
        .size_min = 1,
    };
    for (0..5) |maps_left| {
        var bed = try Bed.init(options);
        defer bed.deinit();
        kernel.maps_left = maps_left;
        try testing.expectError(error.OutOfMemory, bed.start());
        try expectEqual(.idle, bed.connection.state());
        kernel.maps_left = 5 - maps_left; // Rings that were mapped are kept.
        try bed.start();
        try expectEqual(.connecting, bed.connection.state());
    }
}

test "connection: a pinned ring that cannot be replaced stays, and is replaced later" {
    for (0..2) |maps_left| {
        var bed = try Bed.init(plain_options);
        defer bed.deinit();
        try bed.open();
        try bed.feed(&.{textFrame("kept")});
        kernel.then(.end);
        _ = try bed.waitFor(null);
        const event = try bed.connection.next();
        const ring = bed.connection.transport.receive_ring.?;
        const send_ring = bed.connection.transport.outbox.?.ring;
        var pins: [2]Pin = undefined;
        ring.pin(&pins[0], event.message.payload);
        send_ring.pin(&pins[1], send_ring.writable()[0..0]);
        try bed.drive();

        kernel.clear();
        kernel.maps_left = maps_left;
        try testing.expectError(error.OutOfMemory, bed.start());
        try testing.expectEqualStrings("kept", event.message.payload);
        kernel.maps_left = 2 - maps_left;
        try bed.start();
        try testing.expectEqualStrings("kept", event.message.payload);
        ring.unpin(&pins[0]);
        send_ring.unpin(&pins[1]);
    }
}

test "connection: a failed wait while connecting leaves no watch of the closed socket" {
    var bed = try Bed.init(plain_options);
    defer bed.deinit();
    try expect(kernel.addresses.append(os.Address.parse("192.0.2.2", 80).?));
    kernel.thenConnect(.silent);
    kernel.thenConnect(.{ .answered = .{} });
    try bed.start();
    try bed.pump();
    kernel.wait_failure = error.OutOfMemory;
    try testing.expectError(error.SystemResources, bed.waitFor(null));
    kernel.wait_failure = null;
    kernel.now_ns += 5 * s; // The time of the first address is over.
    try bed.drive();
    kernel.feed(try bed.upgradeResponse());
    try bed.drive();
    try bed.expectSeen(&.{.{ .opened = 101 }});
}

/// libssl without memory for a session.
const NoSession = struct {
    fn new(_: *libssl.Context) callconv(.c) ?*libssl.Ssl {
        return null;
    }
};

test "connection over tls: without memory for a session it fails, and goes on later" {
    var tls: TlsBed = undefined;
    try tls.init(secure_options, .{});
    defer tls.deinit();
    var api = tls.context.api.*;
    const new = api.SSL_new;
    api.SSL_new = &NoSession.new;
    tls.context.api = &api;
    try tls.bed.start();
    for (0..2) |_| try testing.expectError(error.OutOfMemory, tls.bed.connection.next());
    try expectEqual(@as(usize, 1), kernel.dialled.items.len);
    api.SSL_new = new;
    try tls.exchange();
    try expect(tls.shaken);
}

test "connection: a reset that a send has returned is not taken for EOF" {
    // The kernel reports it once; a read after that returns 0.
    for ([_]os.SendError{ error.ConnectionReset, error.TimedOut, error.BrokenPipe }) |cause| {
        var bed = try Bed.init(plain_options);
        defer bed.deinit();
        try bed.open();
        try bed.feed(&.{textFrame("before")});
        kernel.then(.end);
        kernel.thenSend(.{ .fails = cause });
        try testing.expectError(error.Disconnected, bed.connection.send(.text, "x"));
        try bed.drive();
        try bed.expectSeen(&.{.text("before")});
        try bed.expectFailure(lost(switch (cause) {
            error.ConnectionReset => bed_module.reset_reason,
            error.TimedOut => "the TCP connection timed out",
            else => bed_module.eof_reason,
        }));
    }
}

test "connection: a send error before it is open is reported at once" {
    for ([_]types.SendFailure{
        error.AccessDenied,
        error.OutOfMemory,
        error.Unexpected,
    }) |cause| {
        {
            var bed = try Bed.init(plain_options);
            defer bed.deinit();
            kernel.thenSend(.{ .fails = cause });
            try bed.start();
            try bed.drive();
            try bed.expectFailure(.{ .ended = .{
                .stage = .requesting,
                .cause = .{ .send = cause },
            } });
        }
        var tls: TlsBed = undefined;
        try tls.init(secure_options, .{});
        defer tls.deinit();
        kernel.thenSend(.{ .fails = cause });
        try tls.bed.start();
        try tls.exchange();
        try tls.bed.expectFailure(.{ .ended = .{
            .stage = .securing,
            .cause = .{ .send = cause },
        } });
    }
}

test "connection: after a failed send nothing more goes out, even if the kernel would take it" {
    for (tls_bed.variants) |variant| {
        var tls: TlsBed = undefined;
        try tls.init(variant.with(secure_options), .{ .version = variant.version });
        defer tls.deinit();
        try tls.open();
        kernel.thenSend(.{ .takes = 10 });
        kernel.thenSend(.{ .fails_once = error.OutOfMemory });
        const order: [200]u8 = @splat('o');
        const sent = tls.bed.connection.send(.text, &order);
        try testing.expectError(error.Disconnected, sent);
        const sent_size = kernel.sent.items.len;
        try tls.sayFrames(&.{ .{ .opcode = frames.ping, .payload = "p" }, textFrame("x") });
        try tls.bed.drive();
        tls.bed.connection.close(1000, "");
        try tls.sayFrames(&.{bed_module.closeFrame(1000, "")});
        try tls.bed.driveToEnd();
        try expectEqual(sent_size, kernel.sent.items.len); // Not in the middle of a record.
        try expect(kernel.send_side_shut);
    }
}

// ---- At random. --------------------------------------------------------------------------------

/// Counts what happened in the runs of a test: one in which nothing failed would prove nothing.
const Tally = struct {
    faults: std.EnumArray(RandomFaults.Call, u32) = .initFill(0),
    opened: u32 = 0,
    whole: u32 = 0,
    cut: u32 = 0,
    never_open: u32 = 0,
    messages: u32 = 0,
    messages_sent: u32 = 0,

    fn add(tally: *Tally, faults: *const RandomFaults) void {
        for (std.enums.values(RandomFaults.Call)) |call| {
            tally.faults.getPtr(call).* += faults.counts.get(call);
        }
    }

    /// Expects every kind of fault and of end, if there were enough seeds for that.
    fn expectEverything(tally: *const Tally, over_tls: bool) !void {
        if (test_options.fault_seeds < 500) return;
        for (std.enums.values(RandomFaults.Call)) |call| {
            if (call == .tls and !over_tls) continue;
            try expect(tally.faults.get(call) > 0);
        }
        const counts = .{ "opened", "whole", "cut", "never_open", "messages", "messages_sent" };
        inline for (counts) |name| try expect(@field(tally, name) > 0);
    }
};

/// One connection on a kernel that fails at random, and its server, over TLS or not.
const Ordeal = struct {
    bed: *Bed,
    tls: ?*TlsBed,
    random: std.Random,
    faults: *RandomFaults,
    /// What the server has sent, as the client has to see it.
    expected: std.ArrayList(Seen) = .empty,
    /// Messages that the client has sent, up to the one that failed.
    sent: std.ArrayList(Frame) = .empty,
    /// Sending the last one failed: it may have gone out, or not.
    last_unsure: bool = false,
    /// All bytes from the client to the server, in plaintext.
    heard: []const u8 = "",
    answered: bool = false,
    sent_close_notify: bool = false,

    const turns_max = 20_000;

    /// Runs the connection from its start to its end.
    fn run(ordeal: *Ordeal) !void {
        try ordeal.startUntilItWorks();
        for (0..turns_max) |_| {
            try ordeal.bed.pump();
            if (ordeal.bed.isOver()) return;
            try ordeal.serve();
            if (ordeal.random.uintLessThan(u8, 4) == 0) try ordeal.send();
            if (kernel.isIdle(ordeal.bed.connection.wantsWrite())) {
                kernel.then(.end);
                ordeal.sent_close_notify = true;
            }
            ordeal.wait() catch |err| switch (err) {
                error.SystemResources => {}, // The next wait goes on.
            };
        }
        return error.TooManyTurns;
    }

    fn startUntilItWorks(ordeal: *Ordeal) !void {
        for (0..1000) |_| return ordeal.bed.start() catch {
            try expect(ordeal.faults.rates.get(.map) > 0);
            continue;
        };
        return error.TooManyTurns;
    }

    fn wait(ordeal: *Ordeal) loop.WaitError!void {
        _ = try ordeal.bed.waitFor(s);
    }

    /// Lets the server answer the request, and then send its frames.
    fn serve(ordeal: *Ordeal) !void {
        if (ordeal.tls) |tls| {
            _ = try tls.listen();
            ordeal.heard = tls.plaintext.items;
            kernel.feed(try tls.server.take(ordeal.bed.arena()));
        } else ordeal.heard = kernel.sent.items[ordeal.bed.checked_size..];
        if (ordeal.answered) return;
        const request_end = std.mem.find(u8, ordeal.heard, "\r\n\r\n") orelse return;
        ordeal.answered = true;
        try ordeal.say(try ordeal.bed.upgradeResponseTo(ordeal.heard[0 .. request_end + 4]));
        for (0..ordeal.random.uintAtMost(usize, 12)) |_| try ordeal.sayMessage();
    }

    fn sayMessage(ordeal: *Ordeal) !void {
        const random = ordeal.random;
        const size = random.uintAtMost(usize, if (random.boolean()) 100 else 4000);
        const payload = try ordeal.bed.arena().alloc(u8, size);
        for (payload) |*byte| byte.* = random.intRangeAtMost(u8, ' ', '~');
        try ordeal.expected.append(ordeal.bed.arena(), .text(payload));
        const frame = textFrame(payload);
        const ping: Frame = .{ .opcode = frames.ping, .payload = "p" };
        const said: []const Frame = if (random.boolean()) &.{frame} else &.{ frame, ping };
        try ordeal.say(try ordeal.bed.encode(said));
    }

    /// In segments of any size.
    fn say(ordeal: *Ordeal, bytes: []const u8) !void {
        const tls = ordeal.tls orelse return ordeal.feed(bytes);
        try tls.server.write(bytes);
        ordeal.feed(try tls.server.take(ordeal.bed.arena()));
    }

    fn feed(ordeal: *Ordeal, bytes: []const u8) void {
        const random = ordeal.random;
        var rest = bytes;
        while (rest.len > 0) {
            const size = random.intRangeAtMost(usize, 1, if (random.boolean()) rest.len else 20);
            kernel.feed(rest[0..@min(size, rest.len)]);
            rest = rest[@min(size, rest.len)..];
            if (random.uintLessThan(u8, 8) == 0) kernel.then(.spurious);
        }
    }

    fn send(ordeal: *Ordeal) !void {
        if (ordeal.last_unsure) return;
        const payload = try ordeal.bed.arena().alloc(u8, ordeal.random.uintAtMost(usize, 2000));
        ordeal.random.bytes(payload);
        ordeal.bed.connection.send(.binary, payload) catch |err| switch (err) {
            error.NotOpen, error.SendRingFull => return,
            error.Disconnected => ordeal.last_unsure = true,
            error.Reserved => return err,
        };
        const frame: Frame = .{ .opcode = frames.binary, .payload = payload };
        try ordeal.sent.append(ordeal.bed.arena(), frame);
    }

    // ---- What has to hold afterwards.

    fn check(ordeal: *Ordeal, tally: *Tally) !void {
        tally.add(ordeal.faults);
        const connection = &ordeal.bed.connection;
        try expectEqual(.closed, connection.state());
        try expect(ordeal.bed.failed);
        const seen = ordeal.bed.seen.items;
        if (seen.len == 0) {
            tally.never_open += 1;
            return ordeal.checkNeverOpen(connection.failure().?);
        }
        tally.opened += 1;
        try expectEqualDeep(Seen{ .opened = 101 }, seen[0]);
        const messages = seen[1..];
        tally.messages += @intCast(messages.len);
        try expectEqualDeep(ordeal.expected.items[0..messages.len], messages);
        const told: types.StreamEnd = ordeal.toldEnd();
        try ordeal.bed.expectFailure(lost(told.describeUnclosed()));
        const whole = ordeal.faults.receive_failure == null;
        if (whole) {
            tally.whole += 1;
            try expect(ordeal.sent_close_notify);
            try expectEqual(ordeal.expected.items.len, messages.len);
        } else tally.cut += 1;
        try ordeal.checkSent(tally, whole);
    }

    /// The end of the stream, as the system calls reported it.
    fn toldEnd(ordeal: *const Ordeal) types.StreamEnd {
        if (ordeal.faults.receive_failure) |failure| switch (failure) {
            error.WouldBlock => unreachable,
            else => |cause| return .{ .receive = cause },
        };
        const failure = ordeal.bed.connection.transport.outbox.?.failure orelse return .eof;
        return switch (failure) {
            error.ConnectionReset => .{ .receive = error.ConnectionReset },
            error.TimedOut => .{ .receive = error.TimedOut },
            error.NetworkUnreachable => .{ .receive = error.NetworkUnreachable },
            error.HostUnreachable => .{ .receive = error.HostUnreachable },
            else => .eof,
        };
    }

    fn checkNeverOpen(ordeal: *const Ordeal, failure: types.Failure) !void {
        const counts = &ordeal.faults.counts;
        switch (failure) {
            .resolve => try expect(counts.get(.lookup) + counts.get(.resolve) > 0),
            .open_socket => try expect(counts.get(.open) + counts.get(.option) > 0),
            .connect => try expect(counts.get(.connect) + counts.get(.connect_result) > 0),
            .timed_out => |stage| try expectEqual(.connecting, stage),
            .ended => |ended| {
                const sent = ordeal.bed.connection.transport.outbox.?.failure;
                switch (ended.cause) {
                    .send => |cause| try expectEqual(sent.?, cause),
                    else => try expectEqualDeep(ordeal.toldEnd(), ended.cause),
                }
            },
            .tls => |tls| {
                try expect(counts.get(.tls) > 0);
                try expect(tls.cause.of_kernel);
            },
            else => return error.UnexpectedFailure,
        }
    }

    /// Expects whole messages in order, with nothing between; all of them, if no send failed.
    fn checkSent(ordeal: *Ordeal, tally: *Tally, whole: bool) !void {
        try ordeal.serve();
        const request_end = std.mem.find(u8, ordeal.heard, "\r\n\r\n").? + 4;
        const bytes = ordeal.heard[request_end..];
        var size: usize = 0;
        var count: usize = 0;
        while (true) {
            const found = frames.read(ordeal.bed.arena(), bytes[size..]) catch |err| switch (err) {
                error.NotWhole => break,
                else => |other| return other,
            };
            const frame, const frame_size = found;
            size += frame_size;
            if (frame.opcode == frames.pong) continue;
            try expectEqualDeep(ordeal.sent.items[count], frame);
            count += 1;
        }
        tally.messages_sent += @intCast(count);
        if (!whole or ordeal.bed.connection.transport.outbox.?.failure != null) return;
        try expectEqual(bytes.len, size);
        try expectEqual(ordeal.sent.items.len, count);
    }
};

/// Small rings, so that they fill.
fn small(options: types.Options) types.Options {
    var result = options;
    result.receive_ring_capacity = 32 * 1024;
    result.send_ring_capacity = 8 * 1024;
    result.message_size_max = 4000;
    return result;
}

fn endure(seed: u64, tally: *Tally) !void {
    var prng: std.Random.DefaultPrng = .init(seed);
    const random = prng.random();
    var bed = try Bed.initSeeded(small(plain_options), seed);
    defer bed.deinit();
    for (0..2) |_| { // The second connection reuses the rings of the first.
        var faults: RandomFaults = .init(random);
        try live(&bed, null, &faults, tally);
    }
}

fn endureTls(seed: u64, tally: *Tally) !void {
    var prng: std.Random.DefaultPrng = .init(seed);
    const random = prng.random();
    const variant = tls_bed.variants[random.uintLessThan(usize, tls_bed.variants.len)];
    var options = small(variant.with(secure_options));
    options.send_ring_capacity = 64 * 1024; // At least the request and a record.
    var tls: TlsBed = undefined;
    try tls.init(options, .{ .version = variant.version, .tickets = 2 });
    defer tls.deinit();
    for (0..2) |_| {
        var faults: RandomFaults = .init(random);
        try live(&tls.bed, &tls, &faults, tally);
        try tls.renewServer();
    }
}

fn live(bed: *Bed, tls: ?*TlsBed, faults: *RandomFaults, tally: *Tally) !void {
    kernel.clear();
    bed.seen = .empty;
    bed.checked_size = kernel.sent.items.len;
    if (kernel.addresses.count == 1) { // The second is tried when the first does not answer.
        try expect(kernel.addresses.append(os.Address.parse("192.0.2.2", 80).?));
    }
    if (faults.random.uintLessThan(u8, 4) == 0) kernel.thenConnect(.silent);
    if (faults.random.boolean()) kernel.thenConnect(.{ .answered = .{ .after_ns = s / 100 } });
    var ordeal: Ordeal = .{
        .bed = bed,
        .tls = tls,
        .random = faults.random,
        .faults = faults,
    };
    kernel.faults = faults;
    defer kernel.faults = null;
    try ordeal.run();
    kernel.faults = null;
    try ordeal.check(tally);
}

/// Makes a loop, whose notifier may fail to be made.
fn beginUntilItWorks(seed: u64, tally: *Tally) !void {
    ScriptedOs.reset(testing.allocator, seed);
    defer ScriptedOs.deinit();
    var faults: RandomFaults = .init(kernel.random.random());
    kernel.faults = &faults;
    for (0..1000) |_| {
        var made = bed_module.Loop.init() catch {
            try expect(faults.counts.get(.notifier) > 0);
            continue;
        };
        made.deinit();
        return tally.add(&faults);
    }
    return error.TooManyTurns;
}

test "connection: when system calls fail at random, no message is lost, repeated or reordered" {
    var tally: Tally = .{};
    for (0..test_options.fault_seeds) |seed| {
        errdefer std.debug.print("seed {d}\n", .{seed});
        try beginUntilItWorks(seed, &tally);
        try endure(seed, &tally);
    }
    try tally.expectEverything(false);
}

test "connection over tls: failing system calls lose, repeat and reorder no message" {
    var tally: Tally = .{};
    for (0..test_options.fault_seeds / 10) |seed| {
        errdefer std.debug.print("seed {d}\n", .{seed});
        try beginUntilItWorks(seed, &tally);
        try endureTls(seed, &tally);
    }
    try tally.expectEverything(true);
}
