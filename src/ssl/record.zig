//! TLS records: their types, where they end, and post-handshake messages.
//!
//! See RFC 8446, sections 4 to 6; RFC 5246, sections 6 and 7.

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

/// RFC 8446, section 6, and those that only TLS 1.2 has.
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

/// What is wrong with a record, so that the connection has to end.
pub const Violation = enum {
    bad_record_mac,
    record_overflow,
    unexpected_content_type,
    missing_content_type,
    interleaved_handshake,
    unexpected_handshake,
    too_many_empty_records,
    too_many_warnings,
    too_many_key_updates,
    too_many_hello_requests,
    malformed_alert,
    malformed_handshake,
    malformed_key_update,
    wrong_version,

    /// Tells the peer.
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
            .too_many_empty_records,
            .too_many_warnings,
            .too_many_key_updates,
            .too_many_hello_requests,
            => .unexpected_message,
        };
    }

    /// Tells the caller, in OpenSSL's words where it has an error for this.
    pub fn describe(violation: Violation) [:0]const u8 {
        return switch (violation) {
            .bad_record_mac => "decryption failed or bad record mac",
            .record_overflow => "data length too long",
            .unexpected_content_type => "unexpected record",
            .missing_content_type => "record without content type",
            .interleaved_handshake => "mixed handshake and non handshake data",
            .unexpected_handshake => "unexpected message",
            .too_many_empty_records => "too many empty records",
            .too_many_warnings => "too many warn alerts",
            .too_many_key_updates => "too many key updates",
            .too_many_hello_requests => "too many requests to renegotiate",
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

/// Reads the handshake messages that may follow a handshake. They may be cut into any number of
/// records. The content of tickets is skipped: OpenSSL reads it.
pub const HandshakeReader = struct {
    header: [header_size]u8 = undefined,
    header_filled: u8 = 0,
    body_left: u32 = 0,

    const header_size = 4;

    pub const Found = enum {
        /// Tickets, or parts of them.
        tickets,
        /// A KeyUpdate at the end of the record, which asks for no answer.
        key_update,
        /// The same, and we have to answer with ours.
        key_update_requested,
    };

    /// Whether a message has begun: records of another kind may not come in between (RFC 8446,
    /// section 5.1).
    pub fn inMessage(reader: *const HandshakeReader) bool {
        return reader.header_filled > 0;
    }

    /// They hold until `read` has found a violation.
    pub fn invariants(reader: *const HandshakeReader) void {
        assert(reader.header_filled <= header_size);
        // Only a HelloRequest has no body, and `readHelloRequests` never keeps a whole header.
        assert((reader.header_filled == header_size) == (reader.body_left > 0));
    }

    /// TLS 1.3: reads the content of one record. A violation leaves the reader undefined.
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

    /// TLS 1.2: how many HelloRequests end in this record; null if there is another message. A
    /// HelloRequest is a header of zeros (RFC 5246, section 7.4.1.1).
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

    /// The header is complete. Returns what is wrong with it, if anything.
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
    /// The bytes of these records, without their headers.
    size: u64 = 0,
    header: [constants.record_header_size]u8 = undefined,
    header_filled: usize = 0,
    fragment_left: usize = 0,

    /// The next bytes of the stream, which may be cut anywhere.
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
        counter.fragment_left = std.mem.readInt(u16, counter.header[3..5], .big);
        counter.header_filled = 0;
        if (content_type == .change_cipher_spec) {
            counter.count = 0;
            counter.size = 0;
        } else {
            counter.count += 1;
            counter.size += counter.fragment_left;
        }
    }
};

/// A KeyUpdate that asks for no answer (RFC 8446, section 4.6.3).
pub const key_update_message = [_]u8{ @backingInt(HandshakeType.key_update), 0, 0, 1, 0 };

/// The whole record that `received` begins with, by its length field (RFC 8446, section 5.1); null
/// while its end is missing. If no record may be that long, it is all of `received`, so that the
/// engine sees and refuses it.
pub inline fn firstRecord(received: []const u8) ?[]const u8 {
    const header_size = constants.record_header_size;
    if (received.len < header_size) return null;
    const size = header_size + @as(usize, std.mem.readInt(u16, received[3..5], .big));
    if (size > constants.record_size_max) return received;
    if (size > received.len) return null;
    return received[0..size];
}

/// How many bytes are missing of the record that `received` begins with, or of its header. Reading
/// no more than these leaves the next record in the socket. At least 1.
pub fn sizeToRecordEnd(received: []const u8) usize {
    const header_size = constants.record_header_size;
    if (received.len < header_size) return header_size - received.len;
    const size = header_size + @as(usize, std.mem.readInt(u16, received[3..5], .big));
    if (size > constants.record_size_max) return 1; // The engine refuses it.
    return @max(1, size -| received.len);
}

/// How many records so much content takes.
pub inline fn countOf(content_size: usize) usize {
    assert(content_size > 0);
    const size_max = constants.record_plaintext_size_max;
    if (content_size <= size_max) return 1;
    return (content_size - 1) / size_max + 1;
}
