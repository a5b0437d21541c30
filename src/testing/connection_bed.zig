//! The fixture of the connection tests: a connection on a scripted kernel.
//!
//! `drive` lets a connection do all that the script allows; then a test compares the events with
//! those that it expects, and decodes every byte that the client has sent.

const std = @import("std");
const connection_module = @import("../connection.zig");
const loop_module = @import("../loop.zig");
const http = @import("../http.zig");
const ws = @import("../ws.zig");
const types = @import("../connection/types.zig");
const ScriptedOs = @import("scripted_os.zig");
const frames = @import("frames.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const expectEqualDeep = testing.expectEqualDeep;
const Frame = frames.Frame;
const kernel = &ScriptedOs.kernel;
const s = std.time.ns_per_s;

pub const Connection = connection_module.ConnectionType(ScriptedOs);
pub const Loop = loop_module.LoopType(ScriptedOs);

pub fn optionsOf(comptime url: []const u8) types.Options {
    return .{
        .purpose = if (std.mem.startsWith(u8, url, "ws")) .websocket else .get,
        .url = http.Url.parse(url) catch unreachable,
        .host = "feed.test",
        .server_name = "feed.test",
        .server_name_is_address = false,
        .headers = &.{},
        .subprotocols = &.{},
        .tls = null,
        .tls_engine = null,
        .socket = .{},
        .connect_timeout_ns = 8 * s,
        .close_timeout_ns = 2 * s,
        .message_size_max = 32 * 1024,
        .receive_ring_capacity = 64 * 1024,
        .send_ring_capacity = 64 * 1024,
        .huge_pages = false,
        .validate_utf8 = true,
        .mask = .random,
        .busy_poll = false,
        .timestamps = .none,
    };
}

pub const websocket_options = optionsOf("ws://feed.test/stream?symbol=x");
pub const get_options = optionsOf("http://feed.test/book");

/// The smallest ring has the size of a page, even if less is asked for. A page has 4 KiB on x86-64,
/// and 4, 16 or 64 on Arm: a test that fills a ring has to use the capacity of the ring.
pub const ring_capacity_min = 4096;
pub const page_size_max = 64 * 1024;

/// The size of a payload of which three fit into the smallest ring, as frames or records, not four.
pub fn quarterOfRing() []const u8 {
    const capacity = @max(ring_capacity_min, std.heap.pageSize());
    const payload: *const [page_size_max / 4]u8 = &@splat('q');
    return payload[0 .. capacity / 4 - 24];
}

/// An event with copies of what it borrowed.
pub const Seen = union(enum) {
    opened: u16,
    message: struct { opcode: ws.Opcode, payload: []const u8, fragmented: bool = false },
    response: u16,
    body: []const u8,
    finished: bool,
    closed: types.Closed,

    pub fn of(event: types.Event) Seen {
        return switch (event) {
            .blocked => unreachable,
            .opened => |head| .{ .opened = head.status },
            .message => |message| .{ .message = .{
                .opcode = message.opcode,
                .payload = kernel.keep(message.payload),
                .fragmented = message.fragmented,
            } },
            .response => |head| .{ .response = head.status },
            .body => |bytes| .{ .body = kernel.keep(bytes) },
            .finished => |finished| .{ .finished = finished.complete },
            .closed => |closed| .{ .closed = .{
                .code = closed.code,
                .reason = kernel.keep(closed.reason),
                .clean = closed.clean,
                .local = closed.local,
            } },
        };
    }

    /// The event of a message, for tests that parse by themselves.
    pub fn ofMessage(message: ws.Parser.Message) Seen {
        return .{ .message = .{
            .opcode = message.opcode,
            .payload = kernel.keep(message.payload),
            .fragmented = message.fragmented,
        } };
    }

    pub fn text(payload: []const u8) Seen {
        return .{ .message = .{ .opcode = .text, .payload = payload } };
    }
};

/// A connection on a scripted kernel of its own, and its events.
pub const Bed = struct {
    loop: Loop,
    connection: Connection,
    seen: std.ArrayList(Seen) = .empty,
    failed: bool = false,
    /// Whether `nextMessage` is called before `next`: every second time.
    asks_for_message: bool = false,
    /// How many of the client's bytes the test has checked.
    checked_size: usize = 0,
    /// Whether the connection has joined the loop; the bed moves before that.
    joined: bool = false,

    pub fn init(options: types.Options) !Bed {
        return initSeeded(options, 1);
    }

    pub fn initSeeded(options: types.Options, seed: u64) !Bed {
        return initWith(testing.allocator, options, seed);
    }

    pub fn initWith(gpa: std.mem.Allocator, options: types.Options, seed: u64) !Bed {
        ScriptedOs.reset(gpa, seed);
        const connection: Connection = .init(options);
        kernel.now_ns += 20 * std.time.ns_per_ms; // Or the clock would spin to calibrate itself.
        return .{ .loop = try .init(), .connection = connection };
    }

    pub fn deinit(bed: *Bed) void {
        if (bed.joined) bed.loop.leave(&bed.connection);
        bed.connection.deinit();
        bed.loop.deinit();
        ScriptedOs.deinit();
    }

    pub fn arena(_: *Bed) std.mem.Allocator {
        return kernel.arena.allocator();
    }

    pub fn start(bed: *Bed) !void {
        bed.failed = false;
        bed.connection.start() catch |err| switch (err) {
            error.Failed => bed.failed = true,
            else => |other| return other,
        };
    }

    pub fn isOver(bed: *const Bed) bool {
        return bed.failed or bed.connection.state() == .closed;
    }

    /// Does all that can be done without waiting.
    pub fn pump(bed: *Bed) !void {
        while (!bed.isOver()) {
            bed.asks_for_message = !bed.asks_for_message;
            if (bed.asks_for_message) {
                if (bed.connection.nextMessage()) |message| {
                    try bed.seen.append(bed.arena(), .of(.{ .message = message }));
                    continue;
                }
            }
            const event = bed.connection.next() catch |err| switch (err) {
                error.Failed => {
                    bed.failed = true;
                    try expectEqual(.closed, bed.connection.state());
                    try expect(bed.connection.failure() != null);
                    return;
                },
                else => |other| return other,
            };
            if (event == .blocked) return;
            try bed.seen.append(bed.arena(), .of(event));
        }
    }

    /// Does all that can be done, with waits, until only a deadline could bring more.
    pub fn drive(bed: *Bed) !void {
        for (0..turns_max) |_| {
            try bed.pump();
            if (bed.isOver() or kernel.isIdle(bed.connection.wantsWrite())) return;
            try bed.wait();
        }
        return error.TooManyTurns;
    }

    /// Lets time pass until the connection is over.
    pub fn driveToEnd(bed: *Bed) !void {
        for (0..turns_max) |_| {
            try bed.pump();
            if (bed.isOver()) return;
            try bed.wait();
        }
        return error.TooManyTurns;
    }

    pub fn wait(bed: *Bed) !void {
        _ = try bed.waitFor(null);
    }

    /// Waits until something happens, or for this long.
    pub fn waitFor(bed: *Bed, timeout_ns: ?u64) loop_module.WaitError!types.Wake {
        if (!bed.joined) bed.loop.join(&bed.connection);
        bed.joined = true;
        bed.loop.unask(&bed.connection);
        try bed.loop.settle(&bed.connection);
        // One that waits for nothing has not been asked yet, or is over.
        if (bed.connection.interest() == null) return .ready;
        return bed.loop.wait(timeout_ns);
    }

    /// Starts the connection, and goes through the upgrade.
    pub fn open(bed: *Bed) !void {
        try bed.start();
        try bed.drive();
        kernel.feed(try bed.upgradeResponse());
        try bed.drive();
        try bed.expectSeen(&.{.{ .opened = 101 }});
    }

    /// The response to the upgrade request that was sent last.
    pub fn upgradeResponse(bed: *Bed) ![]const u8 {
        bed.checked_size = kernel.sent.items.len;
        return bed.upgradeResponseTo(kernel.sent.items);
    }

    /// The response to the last upgrade request in `sent`.
    pub fn upgradeResponseTo(bed: *Bed, sent: []const u8) ![]const u8 {
        const name = "Sec-WebSocket-Key: ";
        const start_index = std.mem.findLast(u8, sent, name) orelse return error.NoRequest;
        const key = sent[start_index + name.len ..][0..@sizeOf(ws.handshake.Key)];
        return bed.arena().print("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n" ++
            "Connection: Upgrade\r\nSec-WebSocket-Accept: {s}\r\n\r\n", .{
            &ws.handshake.acceptValue(key),
        });
    }

    pub fn encode(bed: *Bed, list: []const Frame) ![]const u8 {
        var bytes: std.ArrayList(u8) = .empty;
        for (list) |frame| try frames.append(&bytes, bed.arena(), frame);
        return bytes.items;
    }

    /// Lets the peer send frames, in one segment.
    pub fn feed(bed: *Bed, list: []const Frame) !void {
        kernel.feed(try bed.encode(list));
    }

    pub fn expectSeen(bed: *Bed, expected: []const Seen) !void {
        try expectEqualDeep(expected, @as([]const Seen, bed.seen.items));
        bed.seen.clearRetainingCapacity();
    }

    /// The frames that the client has sent since the last check; an error for all other bytes.
    pub fn takeSent(bed: *Bed) ![]const Frame {
        const size, const list = try bed.decode(kernel.sent.items[bed.checked_size..]);
        bed.checked_size += size;
        return list;
    }

    pub fn decode(bed: *Bed, bytes: []const u8) !struct { usize, []const Frame } {
        var list: std.ArrayList(Frame) = .empty;
        var decoded_size: usize = 0;
        while (decoded_size < bytes.len) {
            const frame, const size = try frames.read(bed.arena(), bytes[decoded_size..]);
            try list.append(bed.arena(), frame);
            decoded_size += size;
        }
        return .{ decoded_size, list.items };
    }

    pub fn expectSent(bed: *Bed, expected: []const Frame) !void {
        try expectEqualDeep(expected, try bed.takeSent());
    }

    pub fn expectFailure(bed: *Bed, expected: types.Failure) !void {
        try expect(bed.failed);
        try expectEqual(.closed, bed.connection.state());
        try expectEqualDeep(expected, bed.connection.failure().?);
    }

    pub fn body(bed: *Bed) ![]const u8 {
        var bytes: std.ArrayList(u8) = .empty;
        for (bed.seen.items) |seen| switch (seen) {
            .body => |part| try bytes.appendSlice(bed.arena(), part),
            else => {},
        };
        return bytes.items;
    }

    const turns_max = 1_000_000;
};

pub fn textFrame(payload: []const u8) Frame {
    return .{ .opcode = frames.text, .payload = payload };
}

/// The payload of a close frame.
pub fn closeFrame(comptime code: u16, comptime reason: []const u8) Frame {
    const bytes = [_]u8{ code >> 8, code & 0xff } ++ reason;
    return .{ .opcode = frames.close, .payload = bytes };
}

pub const lost_code = 1006;

pub fn lost(reason: []const u8) types.Failure {
    return .{ .closed = .{ .code = lost_code, .reason = reason, .clean = false } };
}

pub const eof_reason = "the peer closed the TCP connection without a close frame";
pub const reset_reason = "the peer reset the TCP connection";
