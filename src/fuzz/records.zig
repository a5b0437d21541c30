//! Fuzz target: the direct engine and the records of a peer that has the keys.
//!
//! The peer seals whatever the input says, and some tags or headers are wrong. A model of the rules
//! (RFC 8446, sections 4.6, 5 and 6; RFC 5246, sections 6 and 7) gives the expected result: the
//! data sent before the first violation, and the alert for that. Records arrive in pieces, directly
//! in front of memory that must not be read.
//!
//! Payload: the number of a cipher suite and of a provider, then steps: what to seal (`Step`), a
//! size, and so many bytes of content.

const std = @import("std");
const Guarded = @import("guarded.zig").Guarded;
const Input = @import("input.zig").Input;
const Model = @import("records_model.zig").Model;
const aead = @import("../ssl/aead.zig");
const constants = @import("../constants.zig");
const direct = @import("../ssl/direct.zig");
const key_schedule = @import("../ssl/key_schedule.zig");
const libssl = @import("../ssl/libssl.zig");
const record = @import("../ssl/record.zig");
const types = @import("../ssl/types.zig");

const Bytes = std.ArrayList(u8);
const Gpa = std.mem.Allocator;
const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;

const header_size = constants.record_header_size;
const plaintext_size_max = constants.record_plaintext_size_max;

const suite_numbers = [_]u16{ 0x1301, 0x1302, 0x1303, 0xc02f, 0xc030, 0xcca8 };

/// The low bits of the first byte of a step.
const Step = enum(u3) {
    data,
    handshake,
    alert,
    /// The type is the first byte of the content.
    any_type,
    /// Data of a size close to a limit, which the size of the step chooses.
    long_data,
    /// Bytes that nobody has sealed. The last step.
    raw,
    /// Data, with a bit of the record changed. The last step.
    changed,
    /// As `any_type`, with as many zeros behind it as the size says; in TLS 1.2 the same as that.
    padded,
};

pub fn run(gpa: Gpa, bytes: []const u8) !void {
    var input: Input = .init(bytes);
    const suite = key_schedule.Suite.of(suite_numbers[input.takeByte() % suite_numbers.len]).?;
    const provider: ?aead.Provider = if (input.takeByte() & 1 == 0) .evp else null;
    var arena: std.heap.ArenaAllocator = .init(gpa);
    defer arena.deinit();
    var ends: Ends = undefined;
    try ends.init(arena.allocator(), suite, provider);
    defer ends.deinit();
    while (input.payload.len > 0 and ends.model.isGoingOn() and !ends.last) {
        try ends.perform(&input);
    }
    try ends.openAll(&input);
    try ends.judgeEnd();
}

/// The engine, its peer, and the model of what the engine has to do with the peer's records.
const Ends = struct {
    arena: Gpa,
    suite: key_schedule.Suite,
    engine: direct.Session,
    /// An engine, too, with the keys of the other direction; but its records are sealed here.
    peer: direct.Session,
    wire: Bytes = .empty,
    model: Model,
    last: bool = false,
    opened: Bytes = .empty,
    end: Model.End = .going_on,

    fn init(
        ends: *Ends,
        arena: Gpa,
        suite: key_schedule.Suite,
        provider: ?aead.Provider,
    ) !void {
        const api = libssl.load(&.{}) catch |err| switch (err) {
            error.LibraryNotFound => return error.SkipZigTest,
            error.SymbolMissing => return err,
        };
        const client = takeoverOf(suite, "client", "server");
        const server = takeoverOf(suite, "server", "client");
        ends.* = .{
            .arena = arena,
            .suite = suite,
            .engine = try .init(api, provider, &client),
            .peer = undefined,
            .model = .{ .arena = arena, .version = suite.version },
        };
        errdefer ends.engine.deinit();
        ends.peer = try .init(api, .evp, &server);
    }

    fn deinit(ends: *Ends) void {
        ends.engine.deinit();
        ends.peer.deinit();
    }

    fn takeoverOf(
        suite: key_schedule.Suite,
        comptime sending: []const u8,
        comptime receiving: []const u8,
    ) types.Takeover {
        return .{ .suite = suite, .secrets = switch (suite.version) {
            .tls1_3 => .{ .tls1_3 = .{
                .client = fill(48, sending),
                .server = fill(48, receiving),
            } },
            .tls1_2 => .{ .tls1_2 = .{
                .keys = .{
                    .client = .{ .key = fill(32, sending), .iv = fill(12, sending) },
                    .server = .{ .key = fill(32, receiving), .iv = fill(12, receiving) },
                },
                .explicit_nonce = 7,
                .received_records = 1,
            } },
        } };
    }

    fn fill(comptime size: usize, comptime pattern: []const u8) [size]u8 {
        var bytes: [size]u8 = undefined;
        for (&bytes, 0..) |*byte, index| byte.* = pattern[index % pattern.len];
        return bytes;
    }

    /// The peer does the next step of the input.
    fn perform(ends: *Ends, input: *Input) !void {
        const step: Step = @fromBackingInt(@as(u3, @truncate(input.takeByte())));
        const size = input.takeByte();
        switch (step) {
            .data => try ends.say(23, input.take(size), 0),
            .handshake => try ends.say(22, input.take(size), 0),
            .alert => try ends.say(21, input.take(size), 0),
            .any_type => try ends.say(input.takeByte(), input.take(size), 0),
            .long_data => try ends.sayLong(size),
            .raw => try ends.sayRaw(input.take(size)),
            .changed => {
                const bit = input.takeByte();
                const bytes = try ends.seal(23, input.take(size), 0);
                bytes[bit / 8 % bytes.len] ^= @as(u8, 1) << @truncate(bit);
                try ends.sayRaw(bytes);
            },
            .padded => try ends.say(input.takeByte(), input.take(3), size),
        }
    }

    fn say(ends: *Ends, content_type: u8, content: []const u8, padding_size: usize) !void {
        try ends.wire.appendSlice(ends.arena, try ends.seal(content_type, content, padding_size));
        // The type of the content is the last byte of the inner plaintext that is not zero.
        var inner = content;
        var inner_type = content_type;
        if (ends.suite.version == .tls1_3 and content_type == 0) {
            inner = std.mem.trimEnd(u8, content, "\x00");
            if (inner.len == 0) return ends.model.acceptWithoutType();
            inner_type = inner[inner.len - 1];
            inner = inner[0 .. inner.len - 1];
        }
        const new_keys = try ends.model.accept(inner_type, inner);
        if (new_keys) try ends.peer.sending.update(ends.suite);
    }

    fn sayLong(ends: *Ends, choice: u8) !void {
        const sizes = [_]usize{ 1000, plaintext_size_max - 1, plaintext_size_max };
        const sizes_too_long = [_]usize{ plaintext_size_max + 1, plaintext_size_max + 200 };
        const all = sizes ++ sizes_too_long;
        const content = try ends.arena.alloc(u8, all[choice % all.len]);
        for (content, 0..) |*byte, index| byte.* = @truncate(index *% 167 +% choice);
        try ends.say(23, content, 0);
    }

    fn sayRaw(ends: *Ends, bytes: []const u8) !void {
        ends.last = true;
        try ends.wire.appendSlice(ends.arena, bytes);
        ends.model.acceptUnsealed(bytes);
    }

    /// A record around any content, also one that the client's own sealing would refuse.
    fn seal(ends: *Ends, content_type: u8, content: []const u8, padding_size: usize) ![]u8 {
        const is_current = ends.suite.version == .tls1_3;
        const explicit_size = ends.suite.explicitNonceSize();
        const padded_size = content.len + if (is_current) 1 + padding_size else 0;
        const size = header_size + explicit_size + padded_size + aead.tag_size;
        const place = try ends.arena.alloc(u8, size);
        @memset(place, 0);
        place[0..3].* = .{ if (is_current) 23 else content_type, 3, 3 };
        std.mem.writeInt(u16, place[3..5], @intCast(size - header_size), .big);
        const sealed = place[header_size + explicit_size ..][0..padded_size];
        @memcpy(sealed[0..content.len], content);
        if (is_current) sealed[content.len] = content_type;

        const sending = &ends.peer.sending;
        var sequence: [8]u8 = undefined;
        std.mem.writeInt(u64, &sequence, sending.sequence, .big);
        var nonce = sending.iv;
        for (nonce[4..], sequence) |*byte, other| byte.* ^= other;
        if (explicit_size > 0) nonce = sending.iv[0..4].* ++ place[5..13].*;
        var legacy = sequence ++ [_]u8{ content_type, 3, 3, 0, 0 };
        std.mem.writeInt(u16, legacy[11..13], @intCast(content.len), .big);
        const additional: []const u8 = if (is_current) place[0..header_size] else &legacy;
        const tag = place[size - aead.tag_size ..][0..aead.tag_size];
        try expect(sending.aead.seal(sealed, tag, &nonce, additional));
        sending.sequence += 1;
        return place;
    }

    /// The engine opens what arrives, piece by piece, until it does not want to go on.
    fn openAll(ends: *Ends, input: *Input) !void {
        var arrived: Guarded = try .init(ends.wire.items.len);
        defer arrived.deinit();
        var rooms: Guarded = try .init(constants.record_size_max);
        defer rooms.deinit();
        var opened_size: usize = 0;
        var arrived_size: usize = 0;
        while (ends.end == .going_on) {
            const bytes = arrived.place(ends.wire.items[opened_size..arrived_size]);
            const room = rooms.room(roomFor(bytes));
            if (bytes.len >= header_size + room.len) @memset(room, 0);
            const step = ends.engine.open(bytes, room) catch |err| {
                try expectEqual(error.TlsFailed, err);
                if (ends.isWiped()) try expect(std.mem.allEqual(u8, room, 0));
                const control = &ends.engine.control;
                ends.end = .{ .failed = if (control.pending.alert) control.alert else null };
                return;
            };
            opened_size += step.received_used;
            switch (step.status) {
                .done => {
                    const plaintext = room[0..step.plaintext_size];
                    try ends.opened.appendSlice(ends.arena, plaintext);
                    try ends.receivePending();
                },
                .closed => ends.end = .closed,
                .needs_room => return error.EngineNeedsNoRoom,
                .needs_received => {
                    try expectEqual(0, step.received_used);
                    const left = ends.wire.items.len - arrived_size;
                    if (left == 0) return;
                    // No less than a part of the rest: each piece copies all that has arrived.
                    arrived_size += @max(input.choosePieceSize(left), left / 64);
                },
            }
        }
    }

    /// What `ssl.Session.roomToOpen` asks for: the whole fragment of the record.
    fn roomFor(bytes: []const u8) usize {
        if (bytes.len < header_size) return 0;
        const fragment_size = std.mem.readInt(u16, bytes[3..5], .big);
        return @min(fragment_size, constants.record_size_max - header_size);
    }

    /// Bytes whose tag was wrong must be gone.
    fn isWiped(ends: *const Ends) bool {
        const reason = ends.engine.control.last_failure.reason;
        return std.mem.eql(u8, reason, record.Violation.bad_record_mac.describe());
    }

    /// What the engine sends while it goes on: new keys, or that it refuses to renegotiate.
    fn receivePending(ends: *Ends) !void {
        var target: [256]u8 = undefined;
        const size = try ends.engine.writePending(&target);
        try expect(!ends.engine.hasPending());
        var rest: []u8 = target[0..size];
        var room: [256]u8 = undefined;
        while (rest.len > 0) {
            const step = try ends.peer.open(rest, &room);
            try expectEqual(.done, step.status);
            try expectEqual(0, step.plaintext_size);
            rest = rest[step.received_used..];
            ends.model.answers_due -|= 1;
        }
    }

    fn judgeEnd(ends: *Ends) !void {
        try expect(std.mem.eql(u8, ends.model.data.items, ends.opened.items));
        try testing.expectEqualDeep(ends.model.end, ends.end);
        switch (ends.end) {
            .going_on => try expectEqual(0, ends.model.answers_due),
            .closed => {
                ends.engine.control.shutdown();
                try expectEqual(.close_notify, try ends.hearAlert());
            },
            .failed => |alert| if (alert) |expected| {
                try expectEqual(expected, try ends.hearAlert());
            } else {
                try expect(!ends.engine.hasPending());
            },
        }
    }

    /// The peer gets the alert, sealed like any record, and nothing after it.
    fn hearAlert(ends: *Ends) !record.Alert {
        var target: [256]u8 = undefined;
        const size = try ends.engine.writePending(&target);
        try expect(!ends.engine.hasPending());
        var rest: []u8 = target[0..size];
        var room: [256]u8 = undefined;
        while (rest.len > 0) {
            const step = ends.peer.open(rest, &room) catch {
                for (std.enums.values(record.Alert)) |alert| {
                    const reason = ends.peer.control.last_failure.reason;
                    if (std.mem.eql(u8, alert.describe(), reason)) return alert;
                }
                return error.NoAlert;
            };
            if (step.status == .closed) return .close_notify;
            rest = rest[step.received_used..];
        }
        return error.NoAlert;
    }
};
