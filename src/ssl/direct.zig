//! The direct engine: opens and seals TLS records after OpenSSL's handshake.
//!
//! See RFC 8446, section 5, for TLS 1.3, and RFC 5246, section 6.2.3.3, for the AEAD suites of
//! TLS 1.2.
//!
//! A record is opened from where the socket put it to where the parser reads it, and sealed where
//! it was written: no byte is copied, nothing is allocated, and no plaintext is looked at before
//! its tag has been checked. Everything but data (tickets, KeyUpdates, alerts) leaves the hot path
//! at one branch: see `control.zig`. Cryptography is left to the providers of `aead.zig`.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("../constants.zig");
const aead = @import("aead.zig");
const control_layer = @import("control.zig");
const key_schedule = @import("key_schedule.zig");
const libssl = @import("libssl.zig");
const record = @import("record.zig");
const types = @import("types.zig");

const Aead = aead.Aead;
const ContentType = record.ContentType;
const Control = control_layer.Control;
const Error = types.Error;
const Keys = key_schedule.Keys;
const Secret = key_schedule.Secret;
const Step = types.Step;
const Suite = key_schedule.Suite;

const header_size = constants.record_header_size;
const tag_size = aead.tag_size;
const legacy_version = [2]u8{ 3, 3 }; // Of TLS 1.2, and in TLS 1.3 (RFC 8446, section 5.1).

/// The largest fragment: the largest plaintext and what sealing may add (RFC 8446, section 5.2).
const fragment_size_max = constants.record_plaintext_size_max + constants.record_expansion_max;

/// One direction: its keys, and the sequence number of the next record.
const Half = struct {
    aead: Aead,
    iv: [aead.nonce_size]u8,
    /// Of TLS 1.3: the next keys are derived from it.
    secret: Secret,
    sequence: u64,

    fn init(options: aead.Options, keys: *const Keys) Error!Half {
        return .{
            .aead = Aead.init(options, keys.key[0..options.algorithm.keySize()]) catch |err|
                switch (err) {
                    error.OutOfMemory => return error.OutOfMemory,
                    error.Unsupported => return error.TlsFailed,
                },
            .iv = keys.iv,
            .secret = @splat(0),
            .sequence = 0,
        };
    }

    fn deinit(half: *Half) void {
        half.wipe();
        half.aead.deinit();
        half.* = undefined;
    }

    /// What `aead` does not wipe by itself.
    pub fn wipe(half: *Half) void {
        std.crypto.secureZero(u8, &half.iv);
        std.crypto.secureZero(u8, &half.secret);
    }

    /// RFC 8446, section 5.3, and RFC 7905, section 2: the sequence number, XORed into the IV.
    inline fn nonce(half: *const Half) [aead.nonce_size]u8 {
        var result = half.iv;
        const low = std.mem.readInt(u64, half.iv[4..12], .big) ^ half.sequence;
        std.mem.writeInt(u64, result[4..12], low, .big);
        return result;
    }

    /// The next generation of keys (RFC 8446, section 7.2).
    pub fn update(half: *Half, suite: Suite) Error!void {
        key_schedule.updateSecret(suite, &half.secret);
        var keys = key_schedule.trafficKeys(suite, &half.secret);
        defer keys.wipe();
        half.aead.rekey(keys.key[0..suite.algorithm.keySize()]) catch return error.TlsFailed;
        half.iv = keys.iv;
        half.sequence = 0;
    }
};

/// The record layer of one connection. See `ssl.Session` for the contract of each function.
pub const Session = struct {
    control: Control,
    suite: Suite,
    receiving: Half,
    sending: Half,
    /// The next explicit nonce of TLS 1.2 (RFC 5288, section 3).
    explicit_nonce: u64,
    /// Of TLS 1.2, if the kernel is to get them. In TLS 1.3 they are derived from the secrets.
    legacy_keys: ?key_schedule.KeyBlock,
    /// No data has come yet: tickets are passed on to OpenSSL.
    wants_tickets: bool,
    /// The last record opened was such a ticket, or a part of one.
    ticket_opened: bool,

    pub fn init(
        api: *const libssl.Api,
        provider: ?aead.Provider,
        takeover: *const types.Takeover,
    ) Error!Session {
        const suite = takeover.suite;
        var client_keys: Keys, var server_keys: Keys = switch (takeover.secrets) {
            .tls1_2 => |found| .{ found.keys.client, found.keys.server },
            .tls1_3 => |*found| .{
                key_schedule.trafficKeys(suite, &found.client),
                key_schedule.trafficKeys(suite, &found.server),
            },
        };
        defer client_keys.wipe();
        defer server_keys.wipe();
        var options: aead.Options = .{
            .api = api,
            .algorithm = suite.algorithm,
            .direction = .open,
            .provider = provider,
        };
        var receiving: Half = try .init(options, &server_keys);
        errdefer receiving.deinit();
        options.direction = .seal;
        var sending: Half = try .init(options, &client_keys);
        var explicit_nonce: u64 = 0;
        switch (takeover.secrets) {
            .tls1_2 => |found| {
                receiving.sequence = found.received_records;
                sending.sequence = 1; // Our Finished: OpenSSL sends it in one record.
                explicit_nonce = found.explicit_nonce;
            },
            .tls1_3 => |*found| {
                receiving.secret = found.server;
                sending.secret = found.client;
            },
        }
        return .{
            .control = .init(suite.version),
            .suite = suite,
            .receiving = receiving,
            .sending = sending,
            .explicit_nonce = explicit_nonce,
            .legacy_keys = null,
            .wants_tickets = suite.version == .tls1_3,
            .ticket_opened = false,
        };
    }

    pub fn deinit(session: *Session) void {
        session.receiving.deinit();
        session.sending.deinit();
        if (session.legacy_keys) |*keys| keys.wipe();
        session.* = undefined;
    }

    pub fn invariants(session: *const Session) void {
        session.control.invariants();
        assert(session.control.version == session.suite.version);
        switch (session.suite.version) {
            .tls1_3 => assert(session.legacy_keys == null),
            .tls1_2 => assert(!session.wants_tickets and !session.ticket_opened),
        }
    }

    /// Keeps the keys that the kernel will be given. The direct engine needs them no more.
    pub fn keepKeys(session: *Session, takeover: *const types.Takeover) void {
        switch (takeover.secrets) {
            .tls1_2 => |*found| session.legacy_keys = found.keys,
            .tls1_3 => {},
        }
    }

    // ---- Opening. ------------------------------------------------------------------------------

    /// `plaintext` needs `ssl.Session.roomToOpen` bytes.
    pub inline fn open(session: *Session, received: []const u8, plaintext: []u8) Error!Step {
        if (received.len < header_size) return .needs_record;
        const header = received[0..header_size];
        const fragment_size: usize = std.mem.readInt(u16, header[3..5], .big);
        if (fragment_size > fragment_size_max) return session.control.refuse(.record_overflow);
        if (received.len - header_size < fragment_size) return .needs_record;
        const fragment = received[header_size..][0..fragment_size];
        return switch (session.suite.version) {
            .tls1_3 => session.openCurrent(header, fragment, plaintext),
            .tls1_2 => session.openLegacy(header, fragment, plaintext),
        };
    }

    /// TLS 1.3: the type of the content is sealed, at its end, and zeros may follow it.
    inline fn openCurrent(
        session: *Session,
        header: *const [header_size]u8,
        fragment: []const u8,
        plaintext: []u8,
    ) Error!Step {
        if (header[0] != @backingInt(ContentType.application_data)) {
            return session.control.refuse(.unexpected_content_type);
        }
        if (fragment.len < tag_size) return session.control.refuse(.bad_record_mac);
        const inner_size = fragment.len - tag_size;
        const receiving = &session.receiving;
        const nonce = receiving.nonce();
        const tag = fragment[inner_size..][0..tag_size];
        if (!receiving.aead.open(plaintext, fragment[0..inner_size], tag, &nonce, header)) {
            return session.control.refuse(.bad_record_mac);
        }
        receiving.sequence += 1;
        // Padding counts (RFC 8446, section 5.4).
        if (inner_size > constants.record_plaintext_size_max + 1) {
            return session.control.refuse(.record_overflow);
        }
        const inner = std.mem.trimEnd(u8, plaintext[0..inner_size], &.{0});
        if (inner.len == 0) return session.control.refuse(.missing_content_type);
        const content = inner[0 .. inner.len - 1];
        const content_type: ContentType = @fromBackingInt(inner[content.len]);
        return session.accept(content_type, content, header_size + fragment.len);
    }

    /// TLS 1.2: the content type is not encrypted, and the sequence number is additional data.
    inline fn openLegacy(
        session: *Session,
        header: *const [header_size]u8,
        fragment: []const u8,
        plaintext: []u8,
    ) Error!Step {
        if (!std.mem.eql(u8, header[1..3], &legacy_version)) {
            return session.control.refuse(.wrong_version);
        }
        const explicit_size = session.suite.explicitNonceSize();
        if (fragment.len < explicit_size + tag_size) return session.control.refuse(.bad_record_mac);
        const content_size = fragment.len - explicit_size - tag_size;
        const receiving = &session.receiving;
        var nonce = receiving.nonce();
        if (explicit_size > 0) nonce = receiving.iv[0..4].* ++ fragment[0..8].*;
        const ciphertext = fragment[explicit_size..][0..content_size];
        const tag = fragment[explicit_size + content_size ..][0..tag_size];
        const additional = additionalData(receiving.sequence, header[0], content_size);
        if (!receiving.aead.open(plaintext, ciphertext, tag, &nonce, &additional)) {
            return session.control.refuse(.bad_record_mac);
        }
        receiving.sequence += 1;
        if (content_size > constants.record_plaintext_size_max) {
            return session.control.refuse(.record_overflow);
        }
        const content_type: ContentType = @fromBackingInt(header[0]);
        const content = plaintext[0..content_size];
        return session.accept(content_type, content, header_size + fragment.len);
    }

    inline fn accept(
        session: *Session,
        content_type: ContentType,
        content: []const u8,
        record_size: usize,
    ) Error!Step {
        assert(content.len <= constants.record_plaintext_size_max);
        if (!session.control.acceptData(content_type, content)) {
            @branchHint(.unlikely);
            return session.acceptControl(content_type, content, record_size);
        }
        session.wants_tickets = false;
        return .{
            .status = .done,
            .received_used = record_size,
            .to_send_size = 0,
            .plaintext_size = content.len,
        };
    }

    /// Gives no plaintext.
    fn acceptControl(
        session: *Session,
        content_type: ContentType,
        content: []const u8,
        record_size: usize,
    ) Error!Step {
        const meaning = try session.control.accept(content_type, content);
        switch (meaning) {
            .tickets => session.ticket_opened = session.wants_tickets,
            // OpenSSL is shown neither this record nor those behind it.
            .nothing, .close_notify => session.wants_tickets = false,
            .new_keys => {
                session.wants_tickets = false;
                try session.receiving.update(session.suite);
            },
        }
        session.invariants();
        return .{
            .status = if (meaning == .close_notify) .closed else .done,
            .received_used = record_size,
            .to_send_size = 0,
        };
    }

    // ---- Sealing. ------------------------------------------------------------------------------

    /// Bytes in front of the content of a record.
    pub inline fn prefixSize(session: *const Session) usize {
        return header_size + session.suite.explicitNonceSize();
    }

    /// Bytes behind the content of a record.
    pub inline fn suffixSize(session: *const Session) usize {
        return switch (session.suite.version) {
            .tls1_3 => 1 + tag_size,
            .tls1_2 => tag_size,
        };
    }

    /// Seals a record in place: `place` has the content between the room for prefix and suffix.
    pub inline fn sealRecord(
        session: *Session,
        place: []u8,
        content_type: ContentType,
    ) Error!void {
        const prefix_size = session.prefixSize();
        const content_size = place.len - prefix_size - session.suffixSize();
        assert(content_size <= constants.record_plaintext_size_max);
        place[1..3].* = legacy_version;
        const fragment_size: u16 = @intCast(place.len - header_size);
        std.mem.writeInt(u16, place[3..5], fragment_size, .big);
        const tag = place[place.len - tag_size ..][0..tag_size];
        const sending = &session.sending;
        var nonce = sending.nonce();
        const sealed = switch (session.suite.version) {
            .tls1_3 => sealed: {
                place[0] = @backingInt(ContentType.application_data);
                place[prefix_size + content_size] = @backingInt(content_type);
                const inner = place[prefix_size..][0 .. content_size + 1];
                break :sealed sending.aead.seal(inner, tag, &nonce, place[0..header_size]);
            },
            .tls1_2 => sealed: {
                place[0] = @backingInt(content_type);
                if (prefix_size > header_size) {
                    std.mem.writeInt(u64, place[header_size..][0..8], session.explicit_nonce, .big);
                    session.explicit_nonce +%= 1;
                    nonce = sending.iv[0..4].* ++ place[header_size..][0..8].*;
                }
                const content = place[prefix_size..][0..content_size];
                const additional = additionalData(sending.sequence, place[0], content_size);
                break :sealed sending.aead.seal(content, tag, &nonce, &additional);
            },
        };
        sending.sequence += 1;
        session.control.noteSealed(sending.sequence);
        if (sealed) return;
        session.control.last_failure = .{ .reason = "sealing failed" };
        return error.TlsFailed;
    }

    /// See `ssl.Session.sealedSize`.
    pub inline fn sealedSize(session: *const Session, content_size: usize) usize {
        const around_size = session.prefixSize() + session.suffixSize();
        return content_size + record.countOf(content_size) * around_size;
    }

    /// See `ssl.Session.contentOffset`.
    pub inline fn contentOffset(session: *const Session, content_size: usize) usize {
        const count = record.countOf(content_size);
        return count * session.prefixSize() + (count - 1) * session.suffixSize();
    }

    /// Makes records out of data that lies at its `contentOffset`. `target` has `sealedSize`.
    pub inline fn seal(session: *Session, target: []u8, content_size: usize) Error!void {
        assert(target.len == session.sealedSize(content_size));
        if (content_size > constants.record_plaintext_size_max) {
            return session.sealMany(target, content_size);
        }
        return session.sealRecord(target, .application_data);
    }

    /// Each record's content moves up a little, to make room for what goes around the next one's.
    fn sealMany(session: *Session, target: []u8, content_size: usize) Error!void {
        const prefix_size = session.prefixSize();
        const suffix_size = session.suffixSize();
        var content = target[session.contentOffset(content_size)..][0..content_size];
        var rest = target;
        while (content.len > 0) {
            const size = @min(content.len, constants.record_plaintext_size_max);
            @memmove(rest[prefix_size..][0..size], content[0..size]);
            const record_size = prefix_size + size + suffix_size;
            try session.sealRecord(rest[0..record_size], .application_data);
            rest = rest[record_size..];
            content = content[size..];
        }
        assert(rest.len == 0);
    }

    pub inline fn hasPending(session: *const Session) bool {
        return session.control.hasPending();
    }

    /// Seals what is pending at the front of `target`, as far as there is room. Gives its size.
    pub fn writePending(session: *Session, target: []u8) Error!usize {
        var size: usize = 0;
        while (session.control.pendingRecord()) |pending| {
            var buffer: control_layer.PendingRecord.Buffer = undefined;
            const content = pending.content(&buffer);
            const written = try session.writeSmall(target[size..], content, pending.contentType());
            if (written == 0) break;
            session.control.markSent(pending);
            switch (pending) {
                .key_update => try session.sending.update(session.suite),
                .no_renegotiation, .alert => {},
            }
            size += written;
        }
        session.invariants();
        return size;
    }

    /// One record of a few bytes; 0 when there is no room for it.
    fn writeSmall(
        session: *Session,
        target: []u8,
        content: []const u8,
        content_type: ContentType,
    ) Error!usize {
        const prefix_size = session.prefixSize();
        const size = prefix_size + content.len + session.suffixSize();
        if (target.len < size) return 0;
        @memcpy(target[prefix_size..][0..content.len], content);
        try session.sealRecord(target[0..size], content_type);
        return size;
    }
};

/// RFC 5246, section 6.2.3.3.
inline fn additionalData(sequence: u64, content_type: u8, content_size: usize) [13]u8 {
    var bytes: [13]u8 = undefined;
    std.mem.writeInt(u64, bytes[0..8], sequence, .big);
    bytes[8] = content_type;
    bytes[9..11].* = legacy_version;
    std.mem.writeInt(u16, bytes[11..13], @intCast(content_size), .big);
    return bytes;
}
