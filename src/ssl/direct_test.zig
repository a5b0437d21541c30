//! Tests of the direct engine: a scripted peer seals whatever a server could send, well-formed or
//! not. With OpenSSL's server in memory: handover_test.zig.

const std = @import("std");
const constants = @import("../constants.zig");
const aead = @import("aead.zig");
const direct = @import("direct.zig");
const key_schedule = @import("key_schedule.zig");
const record = @import("record.zig");
const types = @import("types.zig");
const tls_server = @import("../testing/tls_server.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const expectEqualStrings = testing.expectEqualStrings;
const ContentType = record.ContentType;
const Suite = key_schedule.Suite;

const suite_numbers = [_]u16{ 0x1301, 0x1302, 0x1303, 0xc02f, 0xc030, 0xcca8 };
const current_numbers = suite_numbers[0..3];
const legacy_numbers = suite_numbers[3..6];
const plaintext_size_max = constants.record_plaintext_size_max;
const room_size = constants.record_size_max;

/// Both ends of a connection without a handshake: the engine, and a peer that follows the script.
/// The peer is an engine of its own with the keys the other way round.
const Pair = struct {
    arena: std.heap.ArenaAllocator,
    engine: direct.Session,
    peer: direct.Session,
    /// Records of the peer that the engine has not opened.
    wire: std.ArrayList(u8) = .empty,

    fn init(pair: *Pair, number: u16, seed: u64) !void {
        const api = try tls_server.clientApi();
        const suite = Suite.of(number).?;
        var prng: std.Random.DefaultPrng = .init(seed);
        var secrets: [2]key_schedule.Secret = @splat(@splat(0));
        for (&secrets) |*secret| prng.random().bytes(secret[0..suite.secretSize()]);
        var takeovers: [2]types.Takeover = undefined;
        for (&takeovers, [_]usize{ 0, 1 }, [_]usize{ 1, 0 }) |*takeover, own, other| {
            takeover.* = .{ .suite = suite, .secrets = switch (suite.version) {
                .tls1_3 => .{ .tls1_3 = .{ .client = secrets[own], .server = secrets[other] } },
                .tls1_2 => .{ .tls1_2 = .{
                    .keys = .{
                        .client = keysOf(&secrets[own]),
                        .server = keysOf(&secrets[other]),
                    },
                    .explicit_nonce = prng.random().int(u64),
                    .received_records = 1,
                } },
            } };
        }
        pair.* = .{ .arena = .init(testing.allocator), .engine = undefined, .peer = undefined };
        pair.engine = try .init(api, null, &takeovers[0]);
        errdefer pair.engine.deinit();
        pair.peer = try .init(api, .evp, &takeovers[1]);
    }

    fn keysOf(secret: *const key_schedule.Secret) key_schedule.Keys {
        return .{ .key = secret[0..32].*, .iv = secret[0..12].* };
    }

    fn deinit(pair: *Pair) void {
        pair.engine.deinit();
        pair.peer.deinit();
        pair.arena.deinit();
    }

    fn isCurrent(pair: *const Pair) bool {
        return pair.engine.suite.version == .tls1_3;
    }

    /// The peer seals a record and sends it.
    fn say(pair: *Pair, content_type: ContentType, content: []const u8) !void {
        const bytes = try pair.seal(content_type, content);
        try pair.wire.appendSlice(pair.arena.allocator(), bytes);
    }

    fn seal(pair: *Pair, content_type: ContentType, content: []const u8) ![]u8 {
        const prefix_size = pair.peer.prefixSize();
        const size = prefix_size + content.len + pair.peer.suffixSize();
        const place = try pair.arena.allocator().alloc(u8, size);
        @memcpy(place[prefix_size..][0..content.len], content);
        try pair.peer.sealRecord(place, content_type);
        return place;
    }

    /// With zeros behind the type of the content, and any size (RFC 8446, section 5.4).
    fn sayPadded(
        pair: *Pair,
        content_type: u8,
        content: []const u8,
        padding_size: usize,
    ) !void {
        const gpa = pair.arena.allocator();
        const inner_size = content.len + 1 + padding_size;
        const place = try gpa.alloc(u8, 5 + inner_size + aead.tag_size);
        @memset(place, 0);
        place[0..3].* = .{ 23, 3, 3 };
        std.mem.writeInt(u16, place[3..5], @intCast(place.len - 5), .big);
        @memcpy(place[5..][0..content.len], content);
        place[5 + content.len] = content_type;
        const sending = &pair.peer.sending;
        const nonce = nonceOf(sending.iv, sending.sequence);
        const tag = place[5 + inner_size ..][0..aead.tag_size];
        try expect(sending.aead.seal(place[5..][0..inner_size], tag, &nonce, place[0..5]));
        sending.sequence += 1;
        try pair.wire.appendSlice(gpa, place);
    }

    fn nonceOf(iv: [12]u8, sequence: u64) [12]u8 {
        var nonce = iv;
        for (nonce[4..], 0..) |*byte, index| {
            byte.* ^= @truncate(sequence >> @intCast(56 - 8 * index));
        }
        return nonce;
    }

    /// The engine opens everything that has arrived. Returns the data of all records.
    fn openAll(pair: *Pair) ![]const u8 {
        var plaintext: std.ArrayList(u8) = .empty;
        const gpa = pair.arena.allocator();
        const room = try gpa.alloc(u8, room_size);
        while (true) {
            const step = try pair.engine.open(pair.wire.items, room);
            pair.wire.replaceRangeAssumeCapacity(0, step.received_used, "");
            switch (step.status) {
                .done => try plaintext.appendSlice(gpa, room[0..step.plaintext_size]),
                .needs_received => return plaintext.items,
                .needs_room => return error.TestUnexpectedResult,
                .closed => return error.Closed,
            }
        }
    }

    fn expectOpened(pair: *Pair, expected: []const u8) !void {
        try testing.expectEqualSlices(u8, expected, try pair.openAll());
        try expectEqual(0, pair.wire.items.len);
    }

    fn expectRefused(pair: *Pair, violation: record.Violation) !void {
        try testing.expectError(error.TlsFailed, pair.openAll());
        try expectEqualStrings(violation.describe(), pair.engine.control.last_failure.reason);
        try expectEqual(violation.alert(), pair.engine.control.alert);
        try expectEqual(violation.alert(), try pair.heardAlert());
    }

    /// The peer opens the records that the engine has pending. Returns the alert that is the last.
    fn heardAlert(pair: *Pair) !record.Alert {
        var target: [256]u8 = undefined;
        const size = try pair.engine.writePending(&target);
        try expect(!pair.engine.hasPending());
        var room: [room_size]u8 = undefined;
        var rest: []u8 = target[0..size];
        while (rest.len > 0) {
            const step = pair.peer.open(rest, &room) catch |err| {
                try expectEqual(error.TlsFailed, err);
                const reason = pair.peer.control.last_failure.reason;
                for (std.enums.values(record.Alert)) |alert| {
                    if (std.mem.eql(u8, alert.describe(), reason)) return alert;
                }
                return error.TestUnexpectedResult;
            };
            if (step.status == .closed) return .close_notify;
            rest = rest[step.received_used..];
        }
        return error.NoAlert;
    }

    /// The engine seals a record of data, and the peer reads it.
    fn expectHeard(pair: *Pair, content: []const u8) !void {
        var place: [room_size]u8 = undefined;
        var room: [room_size]u8 = undefined;
        const pending_size = try pair.engine.writePending(&place);
        var rest: []u8 = place[0..pending_size];
        while (rest.len > 0) {
            const step = try pair.peer.open(rest, &room);
            try expectEqual(0, step.plaintext_size);
            rest = rest[step.received_used..];
        }
        const prefix_size = pair.engine.prefixSize();
        @memcpy(place[prefix_size..][0..content.len], content);
        const sealed = place[0 .. prefix_size + content.len + pair.engine.suffixSize()];
        try pair.engine.sealRecord(sealed, .application_data);
        const step = try pair.peer.open(sealed, &room);
        try expectEqual(.done, step.status);
        try testing.expectEqualSlices(u8, content, room[0..step.plaintext_size]);
    }
};

const key_update = [_]u8{ 24, 0, 0, 1, 0 };
const key_update_requested = [_]u8{ 24, 0, 0, 1, 1 };
const ticket = [_]u8{ 4, 0, 0, 3, 'a', 'b', 'c' };
const fatal = @backingInt(record.AlertLevel.fatal);
const warning = @backingInt(record.AlertLevel.warning);

fn patternOf(gpa: std.mem.Allocator, size: usize) ![]u8 {
    const bytes = try gpa.alloc(u8, size);
    for (bytes, 0..) |*byte, index| byte.* = @truncate(index *% 167 +% index / 256);
    return bytes;
}

test "direct: data of every size, both ways, with every suite" {
    for (suite_numbers) |number| {
        var pair: Pair = undefined;
        try pair.init(number, number);
        defer pair.deinit();
        for ([_]usize{ 1, 2, 15, 16, 17, 300, 4096, plaintext_size_max }) |size| {
            const content = try patternOf(pair.arena.allocator(), size);
            try pair.say(.application_data, content);
            try pair.expectOpened(content);
            try pair.expectHeard(content);
        }
    }
}

test "direct: a record is opened when its last byte has arrived, and not before" {
    for (suite_numbers) |number| {
        var pair: Pair = undefined;
        try pair.init(number, 1);
        defer pair.deinit();
        const content = try patternOf(pair.arena.allocator(), 40);
        const bytes = try pair.seal(.application_data, content);
        var room: [room_size]u8 = @splat(0xa5);
        for (0..bytes.len) |size| {
            const step = try pair.engine.open(bytes[0..size], &room);
            try expectEqual(.needs_received, step.status);
            try expectEqual(0, step.received_used);
            for (room) |byte| try expectEqual(0xa5, byte);
        }
        const step = try pair.engine.open(bytes, &room);
        try expectEqual(.done, step.status);
        try expectEqual(bytes.len, step.received_used);
        try testing.expectEqualSlices(u8, content, room[0..step.plaintext_size]);
    }
}

test "direct: a record with any wrong bit is refused, and nothing of it stays" {
    for (suite_numbers) |number| {
        var size: usize = 1;
        var bit: usize = 0;
        while (bit < 8 * size) : (bit += 1) {
            var pair: Pair = undefined;
            try pair.init(number, 2);
            defer pair.deinit();
            const bytes = try pair.seal(.application_data, "buy 100 at 42");
            size = bytes.len;
            if (bit / 8 == 3 or bit / 8 == 4) continue; // The length has a test of its own.
            bytes[bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
            var room: [room_size]u8 = @splat(0);
            try testing.expectError(error.TlsFailed, pair.engine.open(bytes, &room));
            for (room) |byte| try expectEqual(0, byte);
            try expect(pair.engine.control.pending.alert);
        }
    }
}

test "direct: records twice, in another order, or left out are refused" {
    for (suite_numbers) |number| {
        for ([_][]const usize{ &.{ 0, 0 }, &.{1}, &.{ 0, 2 }, &.{ 0, 1, 0 } }) |order| {
            var pair: Pair = undefined;
            try pair.init(number, 3);
            defer pair.deinit();
            var records: [3][]u8 = undefined;
            for (&records) |*place| place.* = try pair.seal(.application_data, "tick");
            for (order) |index| {
                try pair.wire.appendSlice(pair.arena.allocator(), records[index]);
            }
            try pair.expectRefused(.bad_record_mac);
        }
    }
}

test "direct: lengths that no record may have" {
    for (suite_numbers) |number| {
        for ([_]u16{ 0, 1, 15 }) |size| {
            var pair: Pair = undefined;
            try pair.init(number, 4);
            defer pair.deinit();
            const header = [_]u8{ 23, 3, 3, 0, @intCast(size) };
            try pair.wire.appendSlice(pair.arena.allocator(), &header);
            try pair.wire.appendNTimes(pair.arena.allocator(), 7, size);
            try pair.expectRefused(.bad_record_mac);
        }
        // A record that is too long is refused when its header has arrived.
        for ([_]u16{ plaintext_size_max + 257, 0xffff }) |size| {
            var pair: Pair = undefined;
            try pair.init(number, 4);
            defer pair.deinit();
            const header = [_]u8{ 23, 3, 3, @intCast(size >> 8), @truncate(size) };
            try pair.wire.appendSlice(pair.arena.allocator(), &header);
            try pair.expectRefused(.record_overflow);
        }
        // The record is not too long, but its plaintext is.
        var pair: Pair = undefined;
        try pair.init(number, 4);
        defer pair.deinit();
        const content = try patternOf(pair.arena.allocator(), plaintext_size_max + 1);
        if (pair.isCurrent()) {
            try pair.sayPadded(23, content, 0);
        } else {
            try sayTooLong(&pair, content);
        }
        try pair.expectRefused(.record_overflow);
    }
}

/// In TLS 1.2; our own sealing would refuse it.
fn sayTooLong(pair: *Pair, content: []const u8) !void {
    const explicit_size = pair.peer.suite.explicitNonceSize();
    const place = try pair.arena.allocator().alloc(u8, 5 + explicit_size + content.len + 16);
    @memset(place, 0);
    place[0..3].* = .{ 23, 3, 3 };
    std.mem.writeInt(u16, place[3..5], @intCast(place.len - 5), .big);
    @memcpy(place[5 + explicit_size ..][0..content.len], content);
    const sending = &pair.peer.sending;
    var nonce = Pair.nonceOf(sending.iv, sending.sequence);
    if (explicit_size > 0) nonce = sending.iv[0..4].* ++ place[5..13].*;
    var additional = [_]u8{ 0, 0, 0, 0, 0, 0, 0, 1, 23, 3, 3, 0, 0 };
    std.mem.writeInt(u16, additional[11..13], @intCast(content.len), .big);
    const tag = place[place.len - 16 ..][0..16];
    const bytes = place[5 + explicit_size ..][0..content.len];
    try expect(sending.aead.seal(bytes, tag, &nonce, &additional));
    try pair.wire.appendSlice(pair.arena.allocator(), place);
}

test "direct: padding of any size is taken off" {
    for (current_numbers) |number| {
        var pair: Pair = undefined;
        try pair.init(number, 5);
        defer pair.deinit();
        for ([_]usize{ 0, 1, 2, 255, plaintext_size_max - 4 }) |padding_size| {
            try pair.sayPadded(23, "tick", padding_size);
            try pair.expectOpened("tick");
            try pair.sayPadded(23, "\x00\x00", padding_size);
            try pair.expectOpened("\x00\x00");
        }
        try pair.sayPadded(0, "", 40);
        try pair.expectRefused(.missing_content_type);
        // Padding counts (RFC 8446, section 5.4): a byte more than any record may have.
        for ([_]u8{ 23, 0 }) |content_type| {
            var other: Pair = undefined;
            try other.init(number, 5);
            defer other.deinit();
            try other.sayPadded(content_type, "tick", plaintext_size_max - 3);
            try other.expectRefused(.record_overflow);
        }
    }
}

test "direct: empty records are accepted, but not any number in a row" {
    for (suite_numbers) |number| {
        var pair: Pair = undefined;
        try pair.init(number, 6);
        defer pair.deinit();
        for (0..3) |_| {
            for (0..constants.empty_records_max) |_| try pair.say(.application_data, "");
            try pair.say(.application_data, "tick");
            try pair.expectOpened("tick");
        }
        for (0..constants.empty_records_max + 1) |_| try pair.say(.application_data, "");
        try pair.expectRefused(.too_many_empty_records);
    }
}

test "direct: empty records, warnings and requests do not add up" {
    for (suite_numbers) |number| {
        var pair: Pair = undefined;
        try pair.init(number, 6);
        defer pair.deinit();
        const harmless: record.Alert = if (pair.isCurrent()) .user_canceled else .unrecognized_name;
        for (0..2) |_| {
            for (0..constants.warning_alerts_max) |_| {
                for (0..constants.empty_records_max) |_| try pair.say(.application_data, "");
                try pair.say(.alert, &.{ warning, @backingInt(harmless) });
            }
            if (!pair.isCurrent()) {
                for (0..constants.hello_requests_max) |_| {
                    try pair.say(.handshake, &.{ 0, 0, 0, 0 });
                }
            }
            try pair.say(.application_data, "tick");
            try pair.expectOpened("tick");
            var pending: [128]u8 = undefined;
            _ = try pair.engine.writePending(&pending);
        }
    }
}

test "direct: content types that are not allowed" {
    for (suite_numbers) |number| {
        for ([_]u8{ 20, 24, 0x80, 0xff }) |content_type| {
            var pair: Pair = undefined;
            try pair.init(number, 7);
            defer pair.deinit();
            try pair.say(@fromBackingInt(content_type), "\x01");
            try pair.expectRefused(.unexpected_content_type);
        }
    }
    // In TLS 1.3 every record after the handshake has to be sealed.
    for ([_]u8{ 20, 21, 22, 24 }) |content_type| {
        var pair: Pair = undefined;
        try pair.init(0x1301, 7);
        defer pair.deinit();
        const bytes = [_]u8{ content_type, 3, 3, 0, 1, 1 };
        try pair.wire.appendSlice(pair.arena.allocator(), &bytes);
        try pair.expectRefused(.unexpected_content_type);
    }
    for (legacy_numbers) |number| {
        var pair: Pair = undefined;
        try pair.init(number, 7);
        defer pair.deinit();
        const bytes = try pair.seal(.application_data, "x");
        bytes[2] = 4;
        try pair.wire.appendSlice(pair.arena.allocator(), bytes);
        try pair.expectRefused(.wrong_version);
    }
}

test "direct: alerts end the connection, with their names" {
    for (suite_numbers) |number| {
        for ([_]record.Alert{ .bad_record_mac, .internal_error, .unknown_ca }) |alert| {
            var pair: Pair = undefined;
            try pair.init(number, 8);
            defer pair.deinit();
            try pair.say(.application_data, "tick");
            try pair.say(.alert, &.{ fatal, @backingInt(alert) });
            try testing.expectError(error.TlsFailed, pair.openAll());
            try expectEqualStrings(alert.describe(), pair.engine.control.last_failure.reason);
            try expect(!pair.engine.hasPending()); // An alert is not answered.
        }
        for ([_][]const u8{ "\x02", "\x02\x14\x00" }) |content| {
            var pair: Pair = undefined;
            try pair.init(number, 8);
            defer pair.deinit();
            try pair.say(.alert, content);
            try pair.expectRefused(.malformed_alert);
        }
    }
}

test "direct: warnings that are not fatal in their version are ignored" {
    for (suite_numbers) |number| {
        var pair: Pair = undefined;
        try pair.init(number, 9);
        defer pair.deinit();
        const harmless: record.Alert = if (pair.isCurrent()) .user_canceled else .unrecognized_name;
        try pair.say(.alert, &.{ warning, @backingInt(harmless) });
        try pair.say(.application_data, "tick");
        try pair.expectOpened("tick");
        for (0..constants.warning_alerts_max + 1) |_| {
            try pair.say(.alert, &.{ warning, @backingInt(harmless) });
        }
        try pair.expectRefused(.too_many_warnings);
    }
    var pair: Pair = undefined;
    try pair.init(0x1301, 9);
    defer pair.deinit();
    try pair.say(.alert, &.{ warning, @backingInt(record.Alert.internal_error) });
    try testing.expectError(error.TlsFailed, pair.openAll()); // The level is ignored.
}

test "direct: close_notify is the end, both ways" {
    for (suite_numbers) |number| {
        var pair: Pair = undefined;
        try pair.init(number, 10);
        defer pair.deinit();
        try pair.say(.alert, &.{ warning, 0 });
        try testing.expectError(error.Closed, pair.openAll());
        pair.engine.control.shutdown();
        try expectEqual(.close_notify, try pair.heardAlert());
    }
}

test "direct: nothing is sent after an alert, whatever the peer asks for" {
    for (current_numbers) |number| {
        var pair: Pair = undefined;
        try pair.init(number, 20);
        defer pair.deinit();
        pair.engine.control.shutdown();
        try expectEqual(.close_notify, try pair.heardAlert());
        try pair.say(.handshake, &key_update_requested);
        try pair.expectOpened("");
        try expect(!pair.engine.hasPending());
        pair.engine.control.shutdown();
        try expect(!pair.engine.hasPending());
        var target: [256]u8 = undefined;
        try expectEqual(0, try pair.engine.writePending(&target));
    }
}

test "direct: tickets are skipped, however they are cut and wherever they come" {
    for (current_numbers) |number| {
        const stream = ticket ++ ticket;
        for (1..stream.len) |cut| {
            var pair: Pair = undefined;
            try pair.init(number, 11);
            defer pair.deinit();
            try pair.say(.handshake, stream[0..cut]);
            try pair.say(.handshake, stream[cut..]);
            try pair.say(.application_data, "tick");
            try pair.expectOpened("tick");
            try pair.say(.handshake, &ticket);
            try pair.say(.application_data, "tock");
            try pair.expectOpened("tock");
        }
    }
}

test "direct: only tickets before the first data are for OpenSSL" {
    var pair: Pair = undefined;
    try pair.init(0x1301, 12);
    defer pair.deinit();
    try pair.say(.handshake, &ticket);
    try pair.expectOpened("");
    try expect(pair.engine.ticket_opened);
    pair.engine.ticket_opened = false;
    try pair.say(.application_data, "");
    try pair.say(.handshake, &ticket);
    try pair.expectOpened("");
    // OpenSSL was not shown the empty record, and so expects a lower sequence number.
    try expect(!pair.engine.ticket_opened);
    try pair.say(.application_data, "tick");
    try pair.say(.handshake, &ticket);
    try pair.expectOpened("tick");
    try expect(!pair.engine.ticket_opened);
}

test "direct: handshake messages that are not allowed, or malformed" {
    const Case = struct { record.Violation, []const []const u8 };
    const cases = [_]Case{
        .{ .unexpected_content_type, &.{""} },
        .{ .malformed_handshake, &.{&.{ 24, 0, 0, 2, 0, 0 }} },
        .{ .malformed_key_update, &.{&.{ 24, 0, 0, 1, 7 }} },
        .{ .unexpected_handshake, &.{&(key_update ++ key_update)} },
        .{ .unexpected_handshake, &.{&.{ 1, 0, 0, 1, 0 }} },
        .{ .unexpected_handshake, &.{&.{ 0, 0, 0, 0 }} },
    };
    for (current_numbers) |number| for (cases) |case| {
        var pair: Pair = undefined;
        try pair.init(number, 13);
        defer pair.deinit();
        for (case[1]) |content| try pair.say(.handshake, content);
        try pair.expectRefused(case[0]);
    };
    for ([_]ContentType{ .application_data, .alert }) |content_type| {
        var pair: Pair = undefined;
        try pair.init(0x1301, 13);
        defer pair.deinit();
        try pair.say(.handshake, ticket[0..5]);
        try pair.say(content_type, "\x01\x00");
        try pair.expectRefused(.interleaved_handshake);
    }
}

test "direct: a KeyUpdate of the peer, in one record, in two, and after data" {
    for (current_numbers) |number| {
        var pair: Pair = undefined;
        try pair.init(number, 14);
        defer pair.deinit();
        for (0..key_update.len) |cut| {
            try pair.say(.application_data, "before");
            if (cut > 0) try pair.say(.handshake, key_update[0..cut]);
            try pair.say(.handshake, key_update[cut..]);
            try pair.peer.sending.update(pair.peer.suite);
            try pair.say(.application_data, "after");
            try pair.expectOpened("beforeafter");
            try expectEqual(1, pair.engine.receiving.sequence);
            try expect(!pair.engine.hasPending());
        }
        // A record that is still sealed with the old keys.
        try pair.say(.handshake, &key_update);
        try pair.say(.application_data, "stale");
        try pair.expectRefused(.bad_record_mac);
    }
}

test "direct: KeyUpdates that ask for an answer get one, before anything else is sent" {
    for (current_numbers) |number| {
        var pair: Pair = undefined;
        try pair.init(number, 15);
        defer pair.deinit();
        try pair.expectHeard("old keys");
        for (0..3) |_| {
            try pair.say(.handshake, &key_update_requested);
            try pair.peer.sending.update(pair.peer.suite);
        }
        try pair.say(.application_data, "tick");
        try pair.expectOpened("tick");
        try expect(pair.engine.hasPending());
        var little_room: [20]u8 = undefined;
        try expectEqual(0, try pair.engine.writePending(&little_room));
        try expect(pair.engine.hasPending());
        try pair.expectHeard("new keys");
        try expectEqual(1, pair.peer.receiving.sequence);
        try expect(!pair.engine.hasPending());
        try pair.expectHeard("and more");
    }
}

test "direct: too many KeyUpdates in a row are refused" {
    for (current_numbers) |number| {
        var pair: Pair = undefined;
        try pair.init(number, 16);
        defer pair.deinit();
        for (0..constants.key_updates_max) |_| {
            try pair.say(.handshake, &key_update);
            try pair.peer.sending.update(pair.peer.suite);
        }
        try pair.say(.application_data, "tick");
        try pair.expectOpened("tick");
        for (0..constants.key_updates_max + 1) |_| {
            try pair.say(.handshake, &key_update);
            try pair.peer.sending.update(pair.peer.suite);
        }
        try pair.expectRefused(.too_many_key_updates);
    }
}

test "direct: our keys are replaced before they have sealed too many records" {
    for (current_numbers) |number| {
        var pair: Pair = undefined;
        try pair.init(number, 17);
        defer pair.deinit();
        pair.engine.control.records_per_key_max = 3;
        for (0..10) |index| {
            try expectEqual(index > 0 and index % 3 == 0, pair.engine.hasPending());
            try pair.expectHeard("order");
        }
        try expectEqual(1, pair.peer.receiving.sequence);
    }
    try expect(constants.records_per_key_max < 23_726_566); // 2^24.5
}

test "direct: a request of TLS 1.2 to renegotiate is answered with no_renegotiation" {
    for (legacy_numbers) |number| {
        var pair: Pair = undefined;
        try pair.init(number, 18);
        defer pair.deinit();
        try pair.say(.handshake, &.{ 0, 0, 0, 0 });
        try pair.say(.application_data, "tick");
        try pair.expectOpened("tick");
        try expect(pair.engine.hasPending());
        try pair.expectHeard("order"); // After a warning, which the peer ignores.
        for (0..5) |size| {
            if (size > 0) try pair.say(.handshake, (&[_]u8{ 0, 0, 0, 0 })[0..size]);
            if (size < 4) try pair.say(.handshake, (&[_]u8{ 0, 0, 0, 0 })[size..]);
            try pair.expectOpened("");
            try expect(pair.engine.hasPending());
            try pair.expectHeard("order");
        }
        try pair.say(.handshake, &ticket);
        try pair.expectRefused(.unexpected_handshake);
    }
}

test "direct: explicit nonces continue after OpenSSL's" {
    var pair: Pair = undefined;
    try pair.init(0xc02f, 19);
    defer pair.deinit();
    const first = pair.engine.explicit_nonce;
    for (0..3) |index| {
        var place: [64]u8 = undefined;
        try pair.engine.sealRecord(&place, .application_data);
        try expectEqual(first +% index, std.mem.readInt(u64, place[5..13], .big));
    }
}

test "direct: secrets are wiped" {
    const api = try tls_server.clientApi();
    var takeover: types.Takeover = .{
        .suite = Suite.of(0x1302).?,
        .secrets = .{ .tls1_3 = .{ .client = @splat(0x5a), .server = @splat(0x5a) } },
    };
    var place: [1]direct.Session = .{try .init(api, .evp, &takeover)};
    takeover.wipe();
    try expect(std.mem.findScalar(u8, std.mem.asBytes(&takeover.secrets.tls1_3), 0x5a) == null);
    const ivs = [_][12]u8{ place[0].receiving.iv, place[0].sending.iv };
    place[0].receiving.wipe();
    place[0].sending.wipe();
    const bytes = std.mem.asBytes(&place);
    for (ivs) |iv| try expect(std.mem.find(u8, bytes, &iv) == null);
    try expect(std.mem.find(u8, bytes, &@as([8]u8, @splat(0x5a))) == null);
    place[0].receiving.aead.deinit();
    place[0].sending.aead.deinit();
}
