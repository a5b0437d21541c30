//! Fuzz target: a whole connection that gets any bytes from its server.
//!
//! A scripted kernel gives it the input in pieces, while its owner sends, pings, keeps messages and
//! closes.
//!
//! It ends, and reports how. The messages are those that the parser finds in all bytes at once, and
//! none is missing unless somebody ended the connection early. Bytes that the owner keeps do not
//! change. The client sends whole frames, only those that were asked for, and none after CLOSE.
//!
//! Payload: a byte for the kind of conversation, a byte of options, then the bytes of the server.

const std = @import("std");
const Inflater = @import("../deflate.zig").Inflater;
const Input = @import("input.zig").Input;
const Parser = @import("../ws/parser.zig").Parser;
const Pin = @import("../ringbuffer.zig").Pin;
const RingBuffer = @import("../ringbuffer.zig").RingBuffer;
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");
const Delivery = @import("../delivery.zig").Delivery;
const frames = @import("../testing/frames.zig");
const http = @import("../http.zig");
const types = @import("../connection/types.zig");
const ws = @import("../ws.zig");
const zlib = @import("../deflate.zig").zlib;

const Bed = bed_module.Bed;
const Gpa = std.mem.Allocator;
const Seen = bed_module.Seen;
const kernel = &ScriptedOs.kernel;
const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;

/// The low bits of the first byte.
const Kind = enum(u2) {
    /// The bytes come after the response that opens the connection.
    open,
    /// The same, and the owner sends, pings and closes.
    open_and_answered,
    /// The bytes are the response, in which `accept_place` is replaced by the accept value for the
    /// client's key.
    upgrade,
    /// The bytes are the response to a plain GET.
    get,
};

const accept_place = "{accept}";

const turns_max = 100_000;

pub fn run(gpa: Gpa, bytes: []const u8) !void {
    var input: Input = .init(bytes);
    const kind: Kind = @fromBackingInt(@as(u2, @truncate(input.takeByte())));
    var owner: Owner = .{ .gpa = gpa, .input = &input, .bed = undefined };
    // Kept bytes outlive the connection.
    defer owner.releaseAll();
    owner.bed = try .initWith(gpa, optionsOf(kind, input.takeByte()), 1);
    defer owner.bed.deinit();
    kernel.spins_allowed = owner.bed.connection.options.busy_poll;

    try owner.bed.start();
    try owner.drive();
    const request_size = kernel.sent.items.len;
    switch (kind) {
        .open, .open_and_answered => kernel.feed(try owner.upgradeResponse()),
        .upgrade => input.payload = try withAccept(&owner.bed, input.payload),
        .get => {},
    }
    try owner.drive();
    try owner.converse(kind == .open_and_answered);
    try owner.end();
    switch (kind) {
        .open, .open_and_answered => try owner.judgeMessages(),
        .upgrade => {},
        .get => try owner.judgeBody(),
    }
    const deflates = owner.bed.connection.options.compression != null;
    if (kind != .get and !deflates) try owner.judgeSent(kernel.sent.items[request_size..]);
}

fn withAccept(bed: *Bed, response: []const u8) ![]const u8 {
    const accept = ws.handshake.acceptValue(&bed.connection.lifecycle.opening.handshake_key);
    return std.mem.replaceOwned(u8, bed.arena(), response, accept_place, &accept);
}

fn optionsOf(kind: Kind, flags: u8) types.Options {
    var options = switch (kind) {
        .open, .open_and_answered, .upgrade => bed_module.websocket_options,
        .get => bed_module.get_options,
    };
    options.validate_utf8 = flags & 1 == 0;
    if (flags & 2 != 0) {
        // Spinning takes real time.
        options.busy_poll = true;
        options.close_timeout_ns = 10 * std.time.ns_per_us;
    }
    if (flags & 4 != 0) options.timestamps = .software;
    if (flags & 8 != 0) {
        // A page: a few messages and kept bytes fill it.
        options.receive_ring_capacity = 4096;
        options.message_size_max = 1000;
    }
    if (flags & 16 != 0) options.send_ring_capacity = 4096;
    if (flags & 32 != 0) options.subprotocols = &.{ "trade", "book" };
    if (flags & 64 != 0) {
        const api = zlib.load(&.{}) catch return options; // Compression is then not offered.
        options.compression = .{ .api = api, .offer = .{}, .level = 6, .size_min = 0 };
    }
    return options;
}

/// The response of a server that accepts the offer of compression.
const compression_line = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

/// A message that the owner keeps, and a copy of its bytes when it came.
const Kept = struct {
    pin: Pin,
    ring: *RingBuffer,
    payload: []const u8,
    copy: []u8,
};

const Owner = struct {
    gpa: Gpa,
    input: *Input,
    bed: Bed,
    kept: std.ArrayList(*Kept) = .empty,
    keeps: bool = false,
    /// Some of the peer's bytes were never read, or not delivered.
    cut_short: bool = false,

    /// The server accepts compression if that was offered.
    fn upgradeResponse(owner: *Owner) ![]const u8 {
        const response = try owner.bed.upgradeResponse();
        if (owner.bed.connection.options.compression == null) return response;
        const fields = response[0 .. response.len - "\r\n".len];
        return std.mem.concat(owner.bed.arena(), u8, &.{ fields, compression_line, "\r\n" });
    }

    /// The server's bytes, piece by piece, and what happens between the pieces.
    fn converse(owner: *Owner, takes_part: bool) !void {
        var rest = owner.input.payload;
        while (rest.len > 0 and !owner.bed.isOver()) {
            const size = owner.input.choosePieceSize(rest.len);
            kernel.feed(rest[0..size]);
            rest = rest[size..];
            if (takes_part) try owner.act();
            if (owner.input.chooseBool()) try owner.drive();
        }
    }

    fn act(owner: *Owner) !void {
        const connection = &owner.bed.connection;
        switch (owner.input.choose() >> 4) {
            0 => connection.close(1000, "done"),
            1, 2 => owner.send(.text, "order"),
            3 => owner.send(.binary, &@as([300]u8, @splat(7))),
            4 => connection.ping("are you there") catch {},
            5, 6 => owner.keeps = true,
            7 => owner.keeps = false,
            8 => owner.releaseAll(),
            9 => kernel.thenSend(.{ .takes = 3 }),
            // The scripted kernel takes more after a wait, and a spin does not wait.
            10 => if (!kernel.spins_allowed) kernel.thenSend(.would_block),
            11 => kernel.thenSend(.{ .fails = error.BrokenPipe }),
            12 => if (!kernel.spins_allowed) kernel.then(.{ .pause_ns = std.time.ns_per_s }),
            13 => kernel.then(.spurious),
            14 => if (owner.input.choose() == 1) {
                owner.cut_short = true;
                kernel.then(.{ .fails = error.ConnectionReset });
            },
            else => {
                connection.beginTurn();
                kernel.drained = false; // An owner with its own loop has polled the descriptor.
            },
        }
    }

    fn send(owner: *Owner, opcode: ws.Opcode, payload: []const u8) void {
        // Refused, closed or full: other tests check which.
        owner.bed.connection.send(opcode, payload) catch {};
    }

    /// Does everything that is possible without the clock going on.
    fn drive(owner: *Owner) !void {
        for (0..turns_max) |_| {
            try owner.pump();
            const bed = &owner.bed;
            if (bed.isOver() or kernel.isIdle(bed.connection.wantsWrite())) return;
            try bed.wait();
        }
        return error.TooManyTurns;
    }

    fn end(owner: *Owner) !void {
        kernel.send_room = std.math.maxInt(usize);
        kernel.then(.end);
        for (0..turns_max) |_| {
            try owner.pump();
            if (owner.bed.isOver()) break;
            try owner.bed.wait();
        } else return error.TooManyTurns;
        const connection = &owner.bed.connection;
        try expectEqual(.closed, connection.state());
        try expect(connection.closed() != null);
        // A refusal is reported as a response.
        const failed = if (connection.failure()) |failure| failure != .refused else false;
        try expectEqual(owner.bed.failed, failed);
    }

    fn pump(owner: *Owner) !void {
        const bed = &owner.bed;
        while (!bed.isOver()) {
            const event = bed.connection.next() catch |err| switch (err) {
                error.Failed => {
                    bed.failed = true;
                    return;
                },
                error.ReceiveRingPinned => {
                    try expect(owner.kept.items.len > 0);
                    owner.releaseAll();
                    continue;
                },
                else => |other| return other,
            };
            switch (event) {
                .blocked => return,
                .message => |message| if (owner.keeps) try owner.keep(message),
                else => {},
            }
            try bed.seen.append(bed.arena(), .of(event));
        }
    }

    fn keep(owner: *Owner, message: Delivery) !void {
        const kept = try owner.gpa.create(Kept);
        errdefer owner.gpa.destroy(kept);
        const ring = message.ring;
        const payload = message.payload;
        kept.* = .{
            .pin = undefined,
            .ring = ring,
            .payload = payload,
            .copy = try owner.gpa.dupe(u8, payload),
        };
        errdefer owner.gpa.free(kept.copy);
        try owner.kept.append(owner.gpa, kept);
        ring.pin(&kept.pin, payload);
    }

    fn releaseAll(owner: *Owner) void {
        for (owner.kept.items) |kept| {
            if (!std.mem.eql(u8, kept.payload, kept.copy)) @panic("kept bytes were overwritten");
            kept.ring.unpin(&kept.pin);
            owner.gpa.free(kept.copy);
            owner.gpa.destroy(kept);
        }
        owner.kept.clearAndFree(owner.gpa);
    }

    fn judgeMessages(owner: *Owner) !void {
        const bed = &owner.bed;
        var seen = bed.seen.items;
        try expectEqual(Seen{ .opened = 101 }, seen[0]);
        seen = seen[1..];
        for (try owner.expectedMessages()) |expected| {
            if (seen.len == 0 or seen[0] != .message) {
                const closing = &bed.connection.lifecycle.closing;
                return expect(owner.cut_short or closing.close_sent != null);
            }
            try testing.expectEqualDeep(expected, seen[0]);
            seen = seen[1..];
        }
        for (seen) |event| try expect(event == .closed);
    }

    /// The messages that the parser, and after it the inflater, make of all bytes at once.
    fn expectedMessages(owner: *Owner) ![]const Seen {
        const arena = owner.bed.arena();
        const options = &owner.bed.connection.options;
        const wire = kernel.keep(owner.input.payload);
        var parser: Parser = .init(.{
            .message_size_max = options.message_size_max,
            .validate_utf8 = options.validate_utf8,
            .allows_compression = options.compression != null,
        });
        var inflater: Inflater = undefined;
        if (options.compression) |compression| {
            const window: Inflater.Options = .{ .window_bits = 15, .no_context_takeover = false };
            try inflater.init(compression.api, window);
        }
        defer if (options.compression != null) inflater.deinit();

        var expected: std.ArrayList(Seen) = .empty;
        while (parser.next(wire) catch null) |event| switch (event) {
            .message => |message| try expected.append(arena, .ofMessage(message)),
            .compressed => |compressed| {
                var message = compressed;
                message.payload = try arena.alloc(u8, options.message_size_max);
                const step = inflater.next(compressed.payload, message.payload) catch break;
                if (!step.done) break;
                message.payload = message.payload[0..step.output_size];
                const judged = message.opcode == .text and options.validate_utf8;
                if (judged and !std.unicode.utf8ValidateSlice(message.payload)) break;
                try expected.append(arena, .ofMessage(message));
            },
            .ping, .pong, .close => {},
        };
        return expected.items;
    }

    /// A body that is reported as complete is what the decoder makes of all bytes at once.
    fn judgeBody(owner: *Owner) !void {
        const seen = owner.bed.seen.items;
        const complete = seen.len > 0 and seen[seen.len - 1] == .finished and
            seen[seen.len - 1].finished;
        if (!complete) return;
        var wire = kernel.keep(owner.input.payload);
        const head = while (true) {
            var searched: usize = 0;
            const head = (try http.response.parseHead(wire, &searched)).?;
            wire = wire[head.size..];
            if (head.status >= 200 or head.status == 101) break head;
        };
        var decoder: http.body.Decoder = try .init(&head, false);
        const step = try decoder.next(wire);
        try testing.expectEqualSlices(u8, step.body, try owner.bed.body());
    }

    fn judgeSent(owner: *Owner, bytes: []const u8) !void {
        var rest = bytes;
        var closed = false;
        while (rest.len > 0) {
            const read = frames.read(owner.bed.arena(), rest);
            const frame, const size = read catch |err| switch (err) {
                error.NotWhole => return, // The kernel took no more of it.
                else => return err,
            };
            rest = rest[size..];
            try expect(!closed);
            try expect(frame.fin);
            switch (frame.opcode) {
                frames.text => try testing.expectEqualStrings("order", frame.payload),
                frames.binary => try expectEqual(300, frame.payload.len),
                frames.ping => try testing.expectEqualStrings("are you there", frame.payload),
                frames.pong => try expect(frame.payload.len <= 125),
                frames.close => closed = true,
                else => return error.UnknownFrame,
            }
        }
    }
};
