//! The types that the engines share with `ssl.Session`.
//!
//! The result of a call, why TLS failed, what was negotiated, and what one engine hands over to the
//! next.

const std = @import("std");
const key_schedule = @import("key_schedule.zig");
const CertificateNames = @import("certificate_names.zig").CertificateNames;
const Tickets = @import("tickets.zig").Tickets;

/// What opens and seals the records.
pub const Engine = enum { direct, ktls, openssl };

pub const Error = error{
    /// TLS failed; `ssl.Session.failure` says why. The session is of no further use.
    TlsFailed,
    OutOfMemory,
};

/// Why TLS failed. The texts are static, or the TLS library's, and stay valid.
pub const Failure = struct {
    /// OpenSSL's reason, such as "certificate verify failed", or the direct engine's.
    reason: [:0]const u8,
    /// X509_V_ERR_*, 0 when the certificate was not the cause.
    verify_code: c_long = 0,
    /// The kernel cannot do what kernel TLS needs. The peer did nothing wrong.
    of_kernel: bool = false,
    /// What is wrong with the certificate, such as "certificate has expired"; "" when nothing is.
    verify_reason: [:0]const u8 = "",
    /// Which hosts the certificate is for, where the one that was wanted is not among them.
    names: ?CertificateNames = null,

    pub const none: Failure = .{ .reason = "" };

    pub fn happened(failure: Failure) bool {
        return failure.reason.len > 0;
    }
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
        /// The peer sent close_notify: nothing follows (RFC 8446, section 6.1).
        closed,
    };

    /// No record is complete yet: nothing was taken, nothing was written.
    pub const needs_record: Step = .{
        .status = .needs_received,
        .received_used = 0,
        .to_send_size = 0,
    };
};

/// What was negotiated. The texts are static, or the TLS library's.
pub const Info = struct {
    library: [:0]const u8,
    version: [:0]const u8,
    cipher: [:0]const u8,
    engine: Engine,
    /// Why OpenSSL opens and seals the records although the direct engine was to; else "".
    engine_reason: [:0]const u8,
    /// The implementation that opens and seals the records.
    aead: [:0]const u8,
    /// Whether a ticket of an earlier connection was accepted.
    resumed: bool,
};

pub const SessionOptions = struct {
    /// The name or the address that the certificate has to be for. Names are also sent (SNI).
    server_name: [:0]const u8,
    server_name_is_address: bool,
    /// Null: `direct` if it can, else `openssl`. An engine that is named and cannot be used is an
    /// error.
    engine: ?Engine = null,
    /// Of earlier connections to the same server name. Has to outlive the session.
    tickets: ?*Tickets = null,
};

/// What an engine needs to go on with the records after OpenSSL's handshake. Its maker wipes it.
pub const Takeover = struct {
    suite: key_schedule.Suite,
    secrets: union(key_schedule.Version) {
        tls1_2: struct {
            keys: key_schedule.KeyBlock,
            /// The explicit nonce of the next record we seal; any number for ChaCha20-Poly1305.
            explicit_nonce: u64,
            /// Sealed records that OpenSSL has received: the server's Finished, mostly in one.
            received_records: u64,
        },
        tls1_3: struct { client: key_schedule.Secret, server: key_schedule.Secret },
    },

    pub fn wipe(takeover: *Takeover) void {
        switch (takeover.secrets) {
            .tls1_2 => |*found| found.keys.wipe(),
            .tls1_3 => |*found| {
                std.crypto.secureZero(u8, &found.client);
                std.crypto.secureZero(u8, &found.server);
            },
        }
    }
};
