//! The words of the record layer (RFC 8446, sections 4 to 6; RFC 5246, sections 6 and 7), and the
//! reader of what may still come once the handshake is over.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("../constants.zig");

pub const ContentType = enum(u8) {
    change_cipher_spec = 20,
    alert = 21,
    handshake = 22,
    application_data = 23,
    _,
};

/// RFC 8446, section 6, and what TLS 1.2 had besides.
pub const Alert = enum(u8) {
    close_notify = 0,
    unexpected_message = 10,
    bad_record_mac = 20,
    record_overflow = 22,
    handshake_failure = 40,
    bad_certificate = 42,
    unsupported_certificate = 43,
    certificate_revoked = 44,
    certificate_expired = 45,
    certificate_unknown = 46,
    illegal_parameter = 47,
    unknown_ca = 48,
    access_denied = 49,
    decode_error = 50,
    decrypt_error = 51,
    protocol_version = 70,
    insufficient_security = 71,
    internal_error = 80,
    inappropriate_fallback = 86,
    user_canceled = 90,
    no_renegotiation = 100,
    missing_extension = 109,
    unsupported_extension = 110,
    unrecognized_name = 112,
    bad_certificate_status_response = 113,
    unknown_psk_identity = 115,
    certificate_required = 116,
    no_application_protocol = 120,
    _,

    pub const size = 2; // Level and description.

    /// "alert from the peer: unknown_ca".
    pub fn describe(alert: Alert) [:0]const u8 {
        return switch (alert) {
            inline else => |named| "alert from the peer: " ++ @tagName(named),
            _ => "alert from the peer: one without a name",
        };
    }
};

pub const AlertLevel = enum(u8) { warning = 1, fatal = 2, _ };

/// What in a record has to end the connection.
pub const Violation = enum {
    bad_record_mac,
    record_overflow,
    unexpected_content_type,
    missing_content_type,
    interleaved_handshake,
    unexpected_handshake,
    too_many_records_without_data,
    too_many_key_updates,
    malformed_alert,
    malformed_handshake,
    malformed_key_update,
    wrong_version,

    /// What the peer is told.
    pub fn alert(violation: Violation) Alert {
        return switch (violation) {
            .bad_record_mac => .bad_record_mac,
            .record_overflow => .record_overflow,
            .malformed_alert, .malformed_handshake => .decode_error,
            .malformed_key_update => .illegal_parameter,
            .wrong_version => .protocol_version,
            .unexpected_content_type,
            .missing_content_type,
            .interleaved_handshake,
            .unexpected_handshake,
            .too_many_records_without_data,
            .too_many_key_updates,
            => .unexpected_message,
        };
    }

    /// What the caller is told, in OpenSSL's words where it has some.
    pub fn describe(violation: Violation) [:0]const u8 {
        return switch (violation) {
            .bad_record_mac => "decryption failed or bad record mac",
            .record_overflow => "data length too long",
            .unexpected_content_type => "unexpected record",
            .missing_content_type => "record without content type",
            .interleaved_handshake => "mixed handshake and non handshake data",
            .unexpected_handshake => "unexpected message",
            .too_many_records_without_data => "too many empty records",
            .too_many_key_updates => "too many key updates",
            .malformed_alert => "invalid alert",
            .malformed_handshake => "bad length",
            .malformed_key_update => "bad key update",
            .wrong_version => "wrong version number",
        };
    }
};

const HandshakeType = enum(u8) {
    hello_request = 0,
    new_session_ticket = 4,
    key_update = 24,
    _,
};

/// Reads the handshake messages that may follow a handshake of TLS 1.3, in however many records
/// they come. The content of tickets is passed over: OpenSSL reads it.
pub const HandshakeReader = struct {
    header: [header_size]u8 = undefined,
    header_filled: u8 = 0,
    body_left: u32 = 0,

    const header_size = 4;

    pub const Found = enum {
        /// Tickets, or parts of them.
        tickets,
        /// A KeyUpdate at the end of the record; no answer is asked for.
        key_update,
        /// The same, and ours is asked for.
        key_update_requested,
    };

    /// Whether a message has begun: records of another kind may not come in between (RFC 8446,
    /// section 5.1).
    pub fn inMessage(reader: *const HandshakeReader) bool {
        return reader.header_filled > 0;
    }

    /// The content of one record. A violation leaves the reader undefined.
    pub fn read(reader: *HandshakeReader, content: []const u8, violation: *Violation) ?Found {
        var rest = content;
        var found: Found = .tickets;
        if (rest.len == 0) return refuse(violation, .malformed_handshake);
        while (rest.len > 0) {
            // New keys apply to the next record: nothing may follow in this one (section 5.1).
            if (found != .tickets) return refuse(violation, .unexpected_handshake);
            if (reader.header_filled < header_size) {
                const size = @min(header_size - reader.header_filled, rest.len);
                @memcpy(reader.header[reader.header_filled..][0..size], rest[0..size]);
                reader.header_filled += @intCast(size);
                rest = rest[size..];
                if (reader.header_filled < header_size) break;
                if (reader.begin()) |problem| return refuse(violation, problem);
            }
            const size = @min(reader.body_left, rest.len);
            if (reader.kind() == .key_update and size > 0) {
                assert(reader.body_left == 1);
                found = switch (rest[0]) {
                    0 => .key_update,
                    1 => .key_update_requested,
                    else => return refuse(violation, .malformed_key_update),
                };
            }
            reader.body_left -= @intCast(size);
            rest = rest[size..];
            if (reader.body_left == 0) reader.header_filled = 0;
        }
        return found;
    }

    /// TLS 1.2: how many of the one message that may come end here, in whatever records they are;
    /// null for any other. It is a header of zeros (RFC 5246, section 7.4.1.1).
    pub fn readHelloRequests(reader: *HandshakeReader, content: []const u8) ?usize {
        comptime assert(@backingInt(HandshakeType.hello_request) == 0);
        for (content) |byte| if (byte != 0) return null;
        const size = reader.header_filled + content.len;
        reader.header_filled = @intCast(size % header_size);
        return size / header_size;
    }

    fn kind(reader: *const HandshakeReader) HandshakeType {
        return @fromBackingInt(reader.header[0]);
    }

    /// The header is there. What is wrong with it, if anything.
    fn begin(reader: *HandshakeReader) ?Violation {
        reader.body_left = std.mem.readInt(u24, reader.header[1..4], .big);
        switch (reader.kind()) {
            .new_session_ticket => {
                if (reader.body_left == 0) return .malformed_handshake;
                if (reader.body_left > constants.session_ticket_size_max) {
                    return .malformed_handshake;
                }
            },
            .key_update => if (reader.body_left != 1) return .malformed_handshake,
            .hello_request, _ => return .unexpected_handshake,
        }
        return null;
    }

    fn refuse(violation: *Violation, problem: Violation) ?Found {
        violation.* = problem;
        return null;
    }
};

/// Counts the records behind the last change_cipher_spec in a stream of them: in TLS 1.2 that is
/// the sequence number (RFC 5246, section 6.1).
pub const RecordCounter = struct {
    count: u64 = 0,
    header: [constants.record_header_size]u8 = undefined,
    header_filled: usize = 0,
    fragment_left: usize = 0,

    /// What follows in the stream, however it is cut.
    pub fn add(counter: *RecordCounter, bytes: []const u8) void {
        var rest = bytes;
        while (rest.len > 0) {
            const skipped = @min(counter.fragment_left, rest.len);
            counter.fragment_left -= skipped;
            rest = rest[skipped..];
            const size = @min(counter.header.len - counter.header_filled, rest.len);
            @memcpy(counter.header[counter.header_filled..][0..size], rest[0..size]);
            counter.header_filled += size;
            rest = rest[size..];
            if (counter.header_filled == counter.header.len) counter.begin();
        }
    }

    fn begin(counter: *RecordCounter) void {
        const content_type: ContentType = @fromBackingInt(counter.header[0]);
        counter.count = if (content_type == .change_cipher_spec) 0 else counter.count + 1;
        counter.fragment_left = std.mem.readInt(u16, counter.header[3..5], .big);
        counter.header_filled = 0;
    }
};

/// A KeyUpdate of ours (RFC 8446, section 4.6.3): no answer is asked for.
pub const key_update_message = [_]u8{ @backingInt(HandshakeType.key_update), 0, 0, 1, 0 };

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

test "record: handshake messages that may not come" {
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

test "record: requests of TLS 1.2 to shake hands again, however they are cut" {
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

test "record: records are counted from change_cipher_spec on, however they are cut" {
    const stream = "\x16\x03\x03\x00\x02ab" ++ "\x14\x03\x03\x00\x01\x01" ++
        "\x16\x03\x03\x00\x03abc" ++ "\x16\x03\x03\x00\x00" ++ "\x16\x03\x03\x00\x01d";
    for (0..stream.len + 1) |cut| {
        var counter: RecordCounter = .{};
        counter.add(stream[0..cut]);
        counter.add(stream[cut..]);
        try testing.expectEqual(3, counter.count);
        try testing.expectEqual(0, counter.fragment_left);
    }
    var counter: RecordCounter = .{};
    for (0..stream.len) |index| counter.add(stream[index..][0..1]);
    try testing.expectEqual(3, counter.count);
}

test "record: every alert has its name, also those without" {
    const known = Alert.unknown_ca;
    try testing.expectEqualStrings("alert from the peer: unknown_ca", known.describe());
    for (0..256) |code| {
        const alert: Alert = @fromBackingInt(@as(u8, @intCast(code)));
        try testing.expect(std.mem.startsWith(u8, alert.describe(), "alert from the peer: "));
    }
}
