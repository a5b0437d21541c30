//! TLS without I/O: ciphertext in, plaintext out, and back.
//!
//! A `Session` is one end of a TLS connection. It never sees a socket: its owner hands it the
//! ciphertext that has arrived and the room for what it wants to send, and does the rest. Behind
//! the one interface stand engines, which differ in who opens and seals the records; trust (the
//! handshake, certificates, host names) is OpenSSL's in each of them.
//!
//! Engines today: `openssl`, SSL_read and SSL_write over our own BIO. An engine that takes over
//! the record layer after the handshake fits in beside it: one more field of `Session`.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("constants.zig");
const openssl = @import("ssl/openssl.zig");

pub const libssl = @import("ssl/libssl.zig");
pub const Context = openssl.Context;

pub const Engine = enum { openssl };

pub const Error = error{
    /// TLS failed; `Session.failure` says why. The session is of no further use.
    TlsFailed,
    OutOfMemory,
};

/// Why TLS failed. The texts belong to the TLS library and stay valid.
pub const Failure = struct {
    /// OpenSSL's reason, such as "certificate verify failed".
    reason: [:0]const u8,
    /// X509_V_ERR_*, 0 when the certificate was not the cause.
    verify_code: c_long = 0,
    /// What is wrong with the certificate, such as "certificate has expired"; "" when nothing is.
    verify_reason: [:0]const u8 = "",
};

/// What one call did with the bytes it was given.
pub const Step = struct {
    status: Status,
    /// Ciphertext taken from the front of `received`.
    received_used: usize,
    /// Ciphertext put at the front of `to_send`.
    to_send_size: usize,
    /// Plaintext given (`open`) or taken (`seal`).
    plaintext_size: usize = 0,

    pub const Status = enum {
        /// Done: the handshake is complete, a record is open or sealed.
        done,
        /// More ciphertext has to arrive first.
        needs_received,
        /// `to_send` has to be sent first.
        needs_room,
        /// The peer said close_notify: nothing follows (RFC 8446, section 6.1).
        closed,
    };
};

/// What was negotiated. The texts belong to the TLS library.
pub const Info = struct {
    library: [:0]const u8,
    version: [:0]const u8,
    cipher: [:0]const u8,
    engine: Engine,
    /// What opens and seals the records.
    aead: [:0]const u8,
};

pub const SessionOptions = struct {
    /// The name or the address that the certificate has to be for. Names are also sent (SNI).
    server_name: [:0]const u8,
    server_name_is_address: bool,
};

pub const Session = union(Engine) {
    openssl: openssl.Session,

    /// `session` must not move afterwards. The context has to outlive it.
    pub fn init(session: *Session, context: *const Context, options: SessionOptions) Error!void {
        session.* = .{ .openssl = undefined };
        try session.openssl.init(context, options);
    }

    pub fn deinit(session: *Session) void {
        switch (session.*) {
            inline else => |*engine| engine.deinit(),
        }
        session.* = undefined;
    }

    /// Goes on with the handshake as far as `received` allows. On an error there may be an alert
    /// in `to_send`: see `alertSize`.
    pub fn handshake(session: *Session, received: []const u8, to_send: []u8) Error!Step {
        return switch (session.*) {
            inline else => |*engine| engine.handshake(received, to_send),
        };
    }

    /// Opens at most one record of `received` into `plaintext`. Nothing is written there before
    /// its tag has been checked.
    pub inline fn open(
        session: *Session,
        received: []const u8,
        plaintext: []u8,
        to_send: []u8,
    ) Error!Step {
        return switch (session.*) {
            inline else => |*engine| engine.open(received, plaintext, to_send),
        };
    }

    /// Seals the front of `plaintext`, at most one record, into `to_send`.
    pub fn seal(session: *Session, plaintext: []const u8, to_send: []u8) Error!Step {
        assert(plaintext.len > 0);
        return switch (session.*) {
            inline else => |*engine| engine.seal(plaintext, to_send),
        };
    }

    /// Writes close_notify. Nothing can be sealed afterwards.
    pub fn shutdown(session: *Session, to_send: []u8) Step {
        return switch (session.*) {
            inline else => |*engine| engine.shutdown(to_send),
        };
    }

    /// Why the last call failed.
    pub fn failure(session: *const Session) Failure {
        return switch (session.*) {
            inline else => |*engine| engine.last_failure,
        };
    }

    /// How much the failed call put into its `to_send`: an alert that tells the peer why.
    pub fn alertSize(session: *const Session) usize {
        return switch (session.*) {
            inline else => |*engine| engine.transfer.to_send_size,
        };
    }

    /// Whether a further message could be opened without new ciphertext.
    pub fn recordWaiting(session: *const Session, received: []const u8) bool {
        return switch (session.*) {
            inline else => |*engine| engine.recordWaiting(received),
        };
    }

    pub fn info(session: *const Session) Info {
        return switch (session.*) {
            inline else => |*engine| engine.info(),
        };
    }
};

/// The whole record that `received` begins with, judged by its length field (RFC 8446, section
/// 5.1); null while its end is missing. A length that no record may have gives all there is: the
/// engine is to see and refuse it.
pub inline fn firstRecord(received: []const u8) ?[]const u8 {
    const header_size = constants.record_header_size;
    if (received.len < header_size) return null;
    const size = header_size + @as(usize, std.mem.readInt(u16, received[3..5], .big));
    if (size > constants.record_size_max) return received;
    if (size > received.len) return null;
    return received[0..size];
}

test {
    _ = openssl;
    _ = libssl;
}

test "ssl: a record is whole when its last byte is there" {
    var record: [5 + 20]u8 = @splat(0);
    record[0..5].* = .{ 23, 3, 3, 0, 20 };
    for (0..record.len) |size| try std.testing.expect(firstRecord(record[0..size]) == null);
    try std.testing.expectEqual(record.len, firstRecord(&record).?.len);
    const longer = record ++ [_]u8{23};
    try std.testing.expectEqual(record.len, firstRecord(&longer).?.len);
}

test "ssl: a record that is too long is for the engine to refuse" {
    try std.testing.expectEqual(@as(usize, 5), firstRecord(&.{ 23, 3, 3, 0xff, 0xff }).?.len);
    try std.testing.expect(firstRecord(&.{ 23, 3, 3, 0xff }) == null);
}
