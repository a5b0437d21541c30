//! Alerts, handshake messages and the ends of records, however the stream is cut.

const std = @import("std");
const record = @import("record.zig");

const Alert = record.Alert;
const HandshakeReader = record.HandshakeReader;
const RecordCounter = record.RecordCounter;
const Violation = record.Violation;
const testing = std.testing;

fn readAll(reader: *HandshakeReader, parts: []const []const u8) !HandshakeReader.Found {
    var found: HandshakeReader.Found = .tickets;
    for (parts) |part| {
        var violation: Violation = undefined;
        found = reader.read(part, &violation) orelse return error.Refused;
    }
    return found;
}

fn violationOf(parts: []const []const u8) !Violation {
    var reader: HandshakeReader = .{};
    for (parts) |part| {
        var violation: Violation = undefined;
        if (reader.read(part, &violation) == null) return violation;
    }
    return error.NotRefused;
}

const ticket = [_]u8{ 4, 0, 0, 3, 'a', 'b', 'c' };

test "record: tickets and a KeyUpdate are read however they are cut" {
    const stream = ticket ++ ticket ++ [_]u8{ 24, 0, 0, 1, 1 };
    for (0..stream.len + 1) |cut| {
        var reader: HandshakeReader = .{};
        const parts = [_][]const u8{ stream[0..cut], stream[cut..] };
        const first: usize = if (cut == 0) 1 else 0;
        const last: usize = if (cut == stream.len) 1 else 2;
        const found = try readAll(&reader, parts[first..last]);
        try testing.expectEqual(.key_update_requested, found);
        try testing.expect(!reader.inMessage());
    }
    var reader: HandshakeReader = .{};
    for (0..stream.len) |index| {
        const found = try readAll(&reader, &.{stream[index..][0..1]});
        const is_last = index == stream.len - 1;
        try testing.expectEqual(is_last, found == .key_update_requested);
        try testing.expectEqual(is_last or index % 7 == 6, !reader.inMessage());
    }
}

test "record: handshake messages that are not allowed" {
    const cases = [_]struct { Violation, []const []const u8 }{
        .{ .malformed_handshake, &.{""} },
        .{ .malformed_handshake, &.{&.{ 4, 0, 0, 0 }} },
        .{ .malformed_handshake, &.{&.{ 4, 0xff, 0xff, 0xff }} },
        .{ .malformed_handshake, &.{&.{ 24, 0, 0, 0 }} },
        .{ .malformed_handshake, &.{&.{ 24, 0, 0, 2, 0, 0 }} },
        .{ .malformed_key_update, &.{&.{ 24, 0, 0, 1, 2 }} },
        .{ .malformed_key_update, &.{ &.{ 24, 0, 0, 1 }, &.{0xff} } },
        .{ .unexpected_handshake, &.{&.{ 24, 0, 0, 1, 0, 24, 0, 0, 1, 0 }} },
        .{ .unexpected_handshake, &.{&([_]u8{ 24, 0, 0, 1, 0 } ++ ticket)} },
        .{ .unexpected_handshake, &.{&.{ 13, 0, 0, 1, 0 }} }, // CertificateRequest: not offered.
        .{ .unexpected_handshake, &.{&.{ 0, 0, 0, 0 }} },
    };
    for (cases) |case| try testing.expectEqual(case[0], try violationOf(case[1]));
}

test "record: HelloRequests of TLS 1.2, however they are cut" {
    var reader: HandshakeReader = .{};
    const zeros: [12]u8 = @splat(0);
    for ([_]usize{ 4, 8, 1, 3, 2, 6, 3, 5 }, [_]usize{ 1, 2, 0, 1, 0, 2, 0, 2 }) |size, count| {
        try testing.expectEqual(count, reader.readHelloRequests(zeros[0..size]).?);
    }
    try testing.expect(!reader.inMessage());
    try testing.expectEqual(0, reader.readHelloRequests(zeros[0..3]).?);
    try testing.expect(reader.inMessage());
    try testing.expectEqual(null, reader.readHelloRequests("\x01"));
}

test "record: records after change_cipher_spec are counted, however they are cut" {
    const stream = "\x16\x03\x03\x00\x02ab" ++ "\x14\x03\x03\x00\x01\x01" ++
        "\x16\x03\x03\x00\x03abc" ++ "\x16\x03\x03\x00\x00" ++ "\x16\x03\x03\x00\x01d";
    for (0..stream.len + 1) |cut| {
        var counter: RecordCounter = .{};
        counter.add(stream[0..cut]);
        counter.add(stream[cut..]);
        try testing.expectEqual(3, counter.count);
        try testing.expectEqual(4, counter.size);
        try testing.expectEqual(0, counter.fragment_left);
    }
    var counter: RecordCounter = .{};
    for (0..stream.len) |index| counter.add(stream[index..][0..1]);
    try testing.expectEqual(3, counter.count);
}

test "record: every alert has a description, also an unknown one" {
    const known = Alert.unknown_ca;
    try testing.expectEqualStrings("alert from the peer: unknown_ca", known.describe());
    for (0..256) |code| {
        const alert: Alert = @fromBackingInt(@as(u8, @intCast(code)));
        try testing.expect(std.mem.startsWith(u8, alert.describe(), "alert from the peer: "));
    }
}

test "record: reading only what is missing ends where the record ends" {
    var record_bytes: [5 + 20]u8 = @splat(0);
    record_bytes[0..5].* = .{ 23, 3, 3, 0, 20 };
    var size: usize = 0;
    const expected = [_]usize{ 5, 20 };
    for (expected) |missing| {
        try testing.expectEqual(missing, record.sizeToRecordEnd(record_bytes[0..size]));
        size += missing;
    }
    try testing.expectEqual(record_bytes.len, size);
    for (0..record_bytes.len) |have| {
        const missing = record.sizeToRecordEnd(record_bytes[0..have]);
        try testing.expect(missing >= 1 and have + missing <= record_bytes.len);
    }
    try testing.expectEqual(@as(usize, 1), record.sizeToRecordEnd(&.{ 23, 3, 3, 0xff, 0xff }));
}

test "record: a record is whole when its last byte has arrived" {
    var whole: [5 + 20]u8 = @splat(0);
    whole[0..5].* = .{ 23, 3, 3, 0, 20 };
    for (0..whole.len) |size| try testing.expect(record.firstRecord(whole[0..size]) == null);
    try testing.expectEqual(whole.len, record.firstRecord(&whole).?.len);
    const longer = whole ++ [_]u8{23};
    try testing.expectEqual(whole.len, record.firstRecord(&longer).?.len);
}

test "record: the engine gets a record that is too long, to refuse it" {
    try testing.expectEqual(@as(usize, 5), record.firstRecord(&.{ 23, 3, 3, 0xff, 0xff }).?.len);
    try testing.expect(record.firstRecord(&.{ 23, 3, 3, 0xff }) == null);
}
