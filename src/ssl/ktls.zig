//! The ktls engine: the kernel's keys, and the control records of kernel TLS.
//!
//! See Documentation/networking/tls.rst of Linux, and <linux/tls.h>.
//!
//! The direct engine has the records until the WebSocket connection is open. Then the kernel gets
//! the keys of both directions and the sequence numbers of their next records. Alerts, tickets and
//! KeyUpdates stay with `Session`: the kernel opens their records, and does not look into them.

const std = @import("std");
const assert = std.debug.assert;
const aead = @import("aead/types.zig");
const control_layer = @import("control.zig");
const direct = @import("direct.zig");
const key_schedule = @import("key_schedule.zig");
const record = @import("record.zig");
const types = @import("types.zig");

const Control = control_layer.Control;
const Keys = key_schedule.Keys;
const PendingRecord = control_layer.PendingRecord;
const Secret = key_schedule.Secret;
const Suite = key_schedule.Suite;

pub const description: [:0]const u8 = "Linux kernel TLS";

/// struct tls12_crypto_info_aes_gcm_128, …_256 or …_chacha20_poly1305. Holds a key: wipe it.
pub const CryptoInfo = struct {
    buffer: [size_max]u8 = undefined,
    size: usize = 0,

    /// Version, cipher, nonce, key, sequence number of the next record.
    const size_max = 2 + 2 + aead.nonce_size + aead.key_size_max + 8;

    /// `explicit_nonce` and `sequence` are the next record's. Only TLS 1.2 with AES-GCM has the
    /// first.
    pub fn init(suite: Suite, keys: *const Keys, explicit_nonce: u64, sequence: u64) CryptoInfo {
        var info: CryptoInfo = .{};
        info.append(&std.mem.toBytes(versionNumber(suite.version)));
        info.append(&std.mem.toBytes(cipherNumber(suite.algorithm)));
        const key = keys.key[0..suite.algorithm.keySize()];
        switch (suite.algorithm) {
            // The kernel takes the front of the nonce apart, as the salt.
            .aes_128_gcm, .aes_256_gcm => {
                if (suite.explicitNonceSize() > 0) {
                    info.append(&bigEndian(explicit_nonce));
                } else {
                    info.append(keys.iv[salt_size..]);
                }
                info.append(key);
                info.append(keys.iv[0..salt_size]);
            },
            .chacha20_poly1305 => {
                info.append(&keys.iv);
                info.append(key);
            },
        }
        info.append(&bigEndian(sequence));
        return info;
    }

    pub fn bytes(info: *const CryptoInfo) []const u8 {
        return info.buffer[0..info.size];
    }

    pub fn wipe(info: *CryptoInfo) void {
        std.crypto.secureZero(u8, &info.buffer);
    }

    fn append(info: *CryptoInfo, part: []const u8) void {
        @memcpy(info.buffer[info.size..][0..part.len], part);
        info.size += part.len;
    }

    fn bigEndian(number: u64) [8]u8 {
        return std.mem.toBytes(std.mem.nativeToBig(u64, number));
    }
};

/// What the kernel needs to take over one direction from the direct engine. The caller wipes it.
pub fn handoverInfo(engine: *const direct.Session, direction: aead.Direction) CryptoInfo {
    const suite = engine.suite;
    const half = switch (direction) {
        .open => &engine.receiving,
        .seal => &engine.sending,
    };
    var keys = switch (suite.version) {
        .tls1_3 => key_schedule.trafficKeys(suite, &half.secret),
        .tls1_2 => switch (direction) {
            .open => engine.legacy_keys.?.server,
            .seal => engine.legacy_keys.?.client,
        },
    };
    defer keys.wipe();
    return .init(suite, &keys, engine.explicit_nonce, half.sequence);
}

/// What is left to do for a connection whose records the kernel opens and seals.
pub const Session = struct {
    control: Control,
    suite: Suite,
    /// Of TLS 1.3: the next keys of each direction are derived from these.
    receive_secret: Secret,
    send_secret: Secret,
    /// How many records the keys in use have sealed.
    sealed_records: u64,
    /// Peer keys changed; the kernel has not been given them yet.
    receive_keys_changed: bool,
    /// The kernel has refused keys or records. Nothing can be received or sent any more.
    failed: bool,

    /// Consumes the direct engine: the kernel has been given the keys of both directions.
    pub fn init(session: *Session, predecessor: *direct.Session) void {
        defer predecessor.deinit();
        session.* = .{
            .control = predecessor.control,
            .suite = predecessor.suite,
            .receive_secret = predecessor.receiving.secret,
            .send_secret = predecessor.sending.secret,
            .sealed_records = predecessor.sending.sequence,
            .receive_keys_changed = false, // The kernel has the keys as they are now.
            .failed = false,
        };
        session.invariants();
    }

    pub fn deinit(session: *Session) void {
        session.wipe();
        session.* = undefined;
    }

    pub fn wipe(session: *Session) void {
        std.crypto.secureZero(u8, &session.receive_secret);
        std.crypto.secureZero(u8, &session.send_secret);
    }

    pub fn invariants(session: *const Session) void {
        session.control.invariants();
        assert(session.control.version == session.suite.version);
        if (session.receive_keys_changed) assert(session.suite.version == .tls1_3);
    }

    /// What the kernel needs for the keys after a KeyUpdate, which begin at record 0. The caller
    /// wipes it.
    pub fn cryptoInfo(session: *const Session, direction: aead.Direction) CryptoInfo {
        const secret = switch (direction) {
            .open => &session.receive_secret,
            .seal => &session.send_secret,
        };
        if (direction == .seal) assert(session.sealed_records == 0);
        var keys = key_schedule.trafficKeys(session.suite, secret);
        defer keys.wipe();
        return .init(session.suite, &keys, 0, 0);
    }

    /// See `ssl.Session.accept`.
    pub inline fn accept(
        session: *Session,
        content_type: record.ContentType,
        content: []const u8,
    ) types.Error!types.Step {
        if (!session.control.acceptData(content_type, content)) {
            @branchHint(.unlikely);
            return session.acceptControl(content_type, content);
        }
        return .{
            .status = .done,
            .received_used = 0,
            .to_send_size = 0,
            .plaintext_size = content.len,
        };
    }

    fn acceptControl(
        session: *Session,
        content_type: record.ContentType,
        content: []const u8,
    ) types.Error!types.Step {
        const meaning = try session.control.accept(content_type, content);
        switch (meaning) {
            .nothing, .close_notify => {},
            .tickets => {}, // OpenSSL cannot read them: it has not seen the records in between.
            .new_keys => {
                key_schedule.updateSecret(session.suite, &session.receive_secret);
                session.receive_keys_changed = true;
            },
        }
        session.invariants();
        return .{
            .status = if (meaning == .close_notify) .closed else .done,
            .received_used = 0,
            .to_send_size = 0,
        };
    }

    /// The kernel has made records out of so much data.
    pub inline fn countSealed(session: *Session, content_size: usize) void {
        session.sealed_records += record.countOf(content_size);
        session.control.noteSealed(session.sealed_records);
    }

    pub inline fn hasPending(session: *const Session) bool {
        return session.control.hasPending();
    }

    pub fn pendingRecord(session: *const Session) ?PendingRecord {
        if (session.failed) return null;
        return session.control.pendingRecord();
    }

    /// After a KeyUpdate the kernel has to be given the next keys: `cryptoInfo`.
    pub fn markSent(session: *Session, pending_record: PendingRecord) void {
        session.control.markSent(pending_record);
        switch (pending_record) {
            .key_update => {
                key_schedule.updateSecret(session.suite, &session.send_secret);
                session.sealed_records = 0;
            },
            .no_renegotiation, .alert => {},
        }
        session.invariants();
    }
};

const salt_size = 4; // TLS_CIPHER_AES_GCM_128_SALT_SIZE

/// TLS_1_2_VERSION, TLS_1_3_VERSION.
fn versionNumber(version: key_schedule.Version) u16 {
    return switch (version) {
        .tls1_2 => 0x0303,
        .tls1_3 => 0x0304,
    };
}

/// TLS_CIPHER_AES_GCM_128 and so on.
fn cipherNumber(algorithm: aead.Algorithm) u16 {
    return switch (algorithm) {
        .aes_128_gcm => 51,
        .aes_256_gcm => 52,
        .chacha20_poly1305 => 54,
    };
}

/// Why the kernel cannot open and seal the records.
pub const Refusal = enum {
    no_kernel_tls,
    no_cipher,
    keys_fixed,
    handshake_in_parts,
    unexpected,

    pub fn describe(refusal: Refusal, suite: ?Suite) [:0]const u8 {
        return switch (refusal) {
            .no_kernel_tls => "there is none: it needs Linux with the module tls",
            .no_cipher => switch (suite.?.algorithm) {
                inline else => |algorithm| switch (suite.?.version) {
                    inline else => |version| comptime "this kernel cannot do " ++
                        name(algorithm) ++ " in " ++ versionName(version),
                },
            },
            .keys_fixed => "this kernel cannot change keys (KeyUpdate): Linux 6.14 can",
            .handshake_in_parts => "a KeyUpdate or a ticket came in several records, which the " ++
                "kernel cannot follow",
            .unexpected => "it failed without a reason that is known",
        };
    }
};

fn name(algorithm: aead.Algorithm) []const u8 {
    return switch (algorithm) {
        .aes_128_gcm => "AES-128-GCM",
        .aes_256_gcm => "AES-256-GCM",
        .chacha20_poly1305 => "ChaCha20-Poly1305",
    };
}

fn versionName(version: key_schedule.Version) []const u8 {
    return switch (version) {
        .tls1_2 => "TLS 1.2",
        .tls1_3 => "TLS 1.3",
    };
}

const testing = std.testing;

/// Bytes that count up from a number.
fn counting(comptime size: usize, first: u8) [size]u8 {
    var result: [size]u8 = undefined;
    for (&result, first..) |*byte, value| byte.* = @intCast(value);
    return result;
}

test "ktls: the kernel's structures, field by field" {
    const keys: Keys = .{ .key = counting(32, 0x40), .iv = counting(12, 0x10) };
    const Case = struct { number: u16, nonce: u64, expected: []const u8 };
    const sequence = "\x00\x00\x00\x00\x00\x00\x01\x02";
    const little = @import("builtin").cpu.arch.endian() == .little;
    try testing.expect(little); // The numbers at the front are in the machine's byte order.
    const cases = [_]Case{
        .{ .number = 0x1301, .nonce = 7, .expected = "\x04\x03\x33\x00" ++
            counting(8, 0x14) ++ counting(16, 0x40) ++ counting(4, 0x10) ++ sequence },
        .{ .number = 0x1302, .nonce = 7, .expected = "\x04\x03\x34\x00" ++
            counting(8, 0x14) ++ counting(32, 0x40) ++ counting(4, 0x10) ++ sequence },
        .{ .number = 0x1303, .nonce = 7, .expected = "\x04\x03\x36\x00" ++
            counting(12, 0x10) ++ counting(32, 0x40) ++ sequence },
        .{ .number = 0xc02b, .nonce = 7, .expected = "\x03\x03\x33\x00" ++
            "\x00\x00\x00\x00\x00\x00\x00\x07" ++
            counting(16, 0x40) ++ counting(4, 0x10) ++ sequence },
        .{ .number = 0xcca8, .nonce = 7, .expected = "\x03\x03\x36\x00" ++
            counting(12, 0x10) ++ counting(32, 0x40) ++ sequence },
    };
    for (cases) |case| {
        var info: CryptoInfo = .init(Suite.of(case.number).?, &keys, case.nonce, 0x0102);
        defer info.wipe();
        try testing.expectEqualSlices(u8, case.expected, info.bytes());
    }
    assert(CryptoInfo.size_max == 56);
}
