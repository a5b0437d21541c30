//! Tests of `connection.zig` on a scripted kernel, random by seed: messages of many forms in both
//! directions, and failures at any moment.

const std = @import("std");
const ws = @import("../ws.zig");
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");
const frames = @import("../testing/frames.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const expectEqualDeep = testing.expectEqualDeep;
const kernel = &ScriptedOs.kernel;
const s = std.time.ns_per_s;
const Bed = bed_module.Bed;
const Seen = bed_module.Seen;
const closeFrame = bed_module.closeFrame;
const get_options = bed_module.get_options;
const textFrame = bed_module.textFrame;
const websocket_options = bed_module.websocket_options;
const Frame = frames.Frame;

/// A random size: mostly small, sometimes up to the limit.
fn randomSize(random: std.Random, limit: usize) usize {
    const bound: usize = switch (random.uintLessThan(u8, 8)) {
        0...3 => 20,
        4...5 => 200,
        6 => 2000,
        else => limit,
    };
    return random.uintAtMost(usize, @min(bound, limit));
}

/// What a server sends, as frames, and the events that a client has to return for it.
const Speech = struct {
    arena: std.mem.Allocator,
    random: std.Random,
    frames: std.ArrayList(Frame) = .empty,
    expected: std.ArrayList(Seen) = .empty,
    pings: std.ArrayList([]const u8) = .empty,

    fn addMessage(speech: *Speech, size_max: usize) !void {
        const random = speech.random;
        const payload = try speech.arena.alloc(u8, randomSize(random, size_max));
        for (payload) |*byte| byte.* = random.intRangeAtMost(u8, ' ', '~');
        const opcode: ws.Opcode = if (random.boolean()) .text else .binary;
        const fragmented = random.uintLessThan(u8, 3) == 0;
        try speech.expected.append(speech.arena, .{ .message = .{
            .opcode = opcode,
            .payload = payload,
            .fragmented = fragmented,
        } });
        var rest: []const u8 = payload;
        var first = true;
        while (true) {
            const last = !fragmented or (!first and random.uintLessThan(u8, 4) == 0);
            const size = if (last) rest.len else random.uintAtMost(usize, rest.len);
            try speech.frames.append(speech.arena, .{
                .fin = last,
                .opcode = if (first) @backingInt(opcode) else frames.continuation,
                .payload = rest[0..size],
            });
            if (last) return;
            rest = rest[size..];
            first = false;
            try speech.maybePing();
        }
    }

    fn maybePing(speech: *Speech) !void {
        if (speech.random.uintLessThan(u8, 5) != 0) return;
        const payload = try speech.arena.alloc(u8, speech.random.uintAtMost(usize, 125));
        speech.random.bytes(payload);
        const is_ping = speech.random.boolean();
        const opcode: u4 = if (is_ping) frames.ping else frames.pong;
        try speech.frames.append(speech.arena, .{ .opcode = opcode, .payload = payload });
        if (is_ping) try speech.pings.append(speech.arena, payload);
    }
};

/// Gives the kernel the bytes in pieces of any size, with pauses and spurious wake-ups in between.
fn feedAtRandom(random: std.Random, bytes: []const u8) void {
    var rest = bytes;
    while (rest.len > 0) {
        const size = @min(rest.len, 1 + randomSize(random, 10_000));
        kernel.feed(rest[0..size]);
        rest = rest[size..];
        switch (random.uintLessThan(u8, 6)) {
            0 => kernel.then(.{ .pause_ns = random.uintAtMost(u64, s) }),
            1 => kernel.then(.spurious),
            else => {},
        }
    }
}

fn scriptSendsAtRandom(random: std.Random, count: usize) void {
    for (0..count) |_| {
        if (random.uintLessThan(u8, 3) == 0) {
            kernel.thenSend(.would_block);
        } else kernel.thenSend(.{ .takes = 1 + randomSize(random, 5000) });
    }
}

/// Sends a message by `send` or `reserve`. Null when there was no room for it.
fn sendAtRandom(bed: *Bed, random: std.Random) !?Frame {
    const payload = try bed.arena().alloc(u8, randomSize(random, 5000));
    random.bytes(payload);
    const opcode: ws.Opcode = if (random.boolean()) .text else .binary;
    const frame: Frame = .{ .opcode = @backingInt(opcode), .payload = payload };
    if (random.boolean()) {
        bed.connection.send(opcode, payload) catch |err| {
            try expectEqual(error.SendRingFull, err);
            return null;
        };
        return frame;
    }
    const place = bed.connection.reserve(opcode, payload.len) catch |err| {
        try expectEqual(error.SendRingFull, err);
        return null;
    };
    @memcpy(place, payload);
    if (random.uintLessThan(u8, 8) == 0) {
        bed.connection.cancel();
        return null;
    }
    try bed.connection.commit();
    return frame;
}

/// Expects all messages in order, and pongs in the order of pings, with that of the newest one.
fn expectConversation(
    bed: *Bed,
    messages: []const Frame,
    pings: []const []const u8,
) !void {
    var messages_count: usize = 0;
    var pings_count: usize = 0;
    for (try bed.takeSent()) |frame| switch (frame.opcode) {
        frames.text, frames.binary => {
            try expectEqualDeep(messages[messages_count], frame);
            messages_count += 1;
        },
        frames.pong => {
            while (!std.mem.eql(u8, pings[pings_count], frame.payload)) pings_count += 1;
            pings_count += 1;
        },
        else => return error.UnexpectedFrame,
    };
    try expectEqual(messages.len, messages_count);
    try expectEqual(pings.len, pings_count);
}

fn converseAtRandom(seed: u64) !void {
    var prng: std.Random.DefaultPrng = .init(seed);
    const random = prng.random();
    var options = websocket_options;
    if (random.boolean()) {
        options.receive_ring_capacity = bed_module.ring_capacity_min;
        options.message_size_max = 3500;
    }
    if (random.boolean()) options.send_ring_capacity = 8192;
    var bed = try Bed.initSeeded(options, seed);
    defer bed.deinit();
    scriptSendsAtRandom(random, 3);
    try bed.open();

    var speech: Speech = .{ .arena = bed.arena(), .random = random };
    for (0..20) |_| {
        try speech.addMessage(options.message_size_max);
        try speech.maybePing();
    }
    feedAtRandom(random, try bed.encode(speech.frames.items));
    scriptSendsAtRandom(random, 40);
    var messages: std.ArrayList(Frame) = .empty;
    for (0..60) |_| switch (random.uintLessThan(u8, 4)) {
        0 => try bed.pump(),
        1 => _ = try bed.waitFor(random.uintAtMost(u64, s)),
        2 => if (try sendAtRandom(&bed, random)) |frame| try messages.append(bed.arena(), frame),
        else => {
            bed.connection.beginTurn();
            kernel.drained = false; // As after a wait of the owner's own event loop.
            try bed.pump();
        },
    };
    try bed.drive();
    try bed.expectSeen(speech.expected.items);
    try expectConversation(&bed, messages.items, speech.pings.items);
}

test "connection: random messages in both directions, in pieces of any size, arrive as sent" {
    for (0..400) |seed| {
        errdefer std.debug.print("seed {d}\n", .{seed});
        try converseAtRandom(seed);
    }
}

/// One random event that may happen at any time.
fn happenAtRandom(bed: *Bed, random: std.Random) !void {
    switch (random.uintLessThan(u8, 24)) {
        0 => kernel.thenSend(.{ .fails = switch (random.uintLessThan(u8, 3)) {
            0 => error.BrokenPipe,
            1 => error.OutOfMemory,
            else => error.Unexpected,
        } }),
        1 => kernel.then(.{ .fails = switch (random.uintLessThan(u8, 3)) {
            0 => error.ConnectionReset,
            1 => error.OutOfMemory,
            else => error.Unexpected,
        } }),
        2 => kernel.then(.end),
        3 => kernel.interrupts += 1,
        4 => kernel.send_room = randomSize(random, 1000),
        5 => kernel.watch_failure = if (random.boolean()) error.OutOfMemory else null,
        6 => kernel.wait_failure = if (random.boolean()) error.Unexpected else null,
        7 => bed.connection.close(1000, "at random"),
        8 => if (random.uintLessThan(u8, 8) == 0) bed.connection.abort(),
        9 => {
            var garbage: [40]u8 = undefined;
            random.bytes(&garbage);
            kernel.feed(garbage[0..randomSize(random, garbage.len)]);
        },
        10 => try bed.feed(&.{closeFrame(1011, "at random")}),
        11...13 => try bed.feed(&.{.{ .opcode = frames.ping, .payload = "p" }}),
        14...17 => try bed.feed(&.{ textFrame("abc"), textFrame("def") }),
        18, 19 => scriptSendsAtRandom(random, 3),
        20 => kernel.then(.{ .pause_ns = s }),
        21 => kernel.then(.spurious),
        22 => kernel.now_ns += random.uintAtMost(u64, s),
        else => kernel.send_room = std.math.maxInt(usize),
    }
}

/// One random call that an owner may make at any time.
fn actAtRandom(bed: *Bed, random: std.Random) !void {
    switch (random.uintLessThan(u8, 5)) {
        0, 1 => if (!bed.isOver()) try bed.pump(),
        2 => if (!bed.isOver()) {
            _ = bed.waitFor(random.uintAtMost(u64, s)) catch |err| {
                try expectEqual(error.SystemResources, err);
            };
        },
        3 => bed.connection.send(.text, "order") catch |err| switch (err) {
            error.NotOpen, error.Disconnected, error.SendRingFull => {},
            error.Reserved => return err,
        },
        else => {
            const place = bed.connection.reserve(.binary, 10) catch |err| switch (err) {
                error.NotOpen, error.Disconnected, error.SendRingFull => return,
                error.Reserved => return err,
            };
            @memset(place, 0);
            if (random.boolean()) return bed.connection.cancel();
            bed.connection.commit() catch |err| try expectEqual(error.Disconnected, err);
        },
    }
}

fn sufferAtRandom(seed: u64) !void {
    var prng: std.Random.DefaultPrng = .init(seed);
    const random = prng.random();
    var options = if (random.uintLessThan(u8, 4) == 0) get_options else websocket_options;
    options.send_ring_capacity = bed_module.ring_capacity_min;
    options.receive_ring_capacity = 8192;
    options.message_size_max = 4000;
    var bed = try Bed.initSeeded(options, seed);
    defer bed.deinit();
    for (0..3) |_| {
        kernel.clear();
        kernel.watch_failure = null;
        kernel.wait_failure = null;
        if (random.boolean()) kernel.thenConnect(.{ .answered = .{ .after_ns = s } });
        try bed.start();
        if (random.uintLessThan(u8, 4) != 0) {
            try bed.drive();
            if (!bed.isOver() and options.purpose == .websocket) {
                kernel.feed(try bed.upgradeResponse());
            } else kernel.feed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n");
        }
        for (0..random.uintAtMost(usize, 60)) |_| {
            if (random.boolean()) try happenAtRandom(&bed, random);
            try actAtRandom(&bed, random);
        }
        kernel.watch_failure = null;
        kernel.wait_failure = null;
        kernel.interrupts = 0;
        kernel.then(.end);
        try bed.driveToEnd();
        try expectEqual(.closed, bed.connection.state());
        try expect(bed.connection.closed() != null);
    }
}

test "connection: whatever fails at any time, it ends with a reason" {
    for (0..2000) |seed| {
        errdefer std.debug.print("seed {d}\n", .{seed});
        try sufferAtRandom(seed);
    }
}
