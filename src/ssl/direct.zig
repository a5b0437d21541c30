//! The engine that opens and seals the records itself, with keys that OpenSSL's handshake agreed
//! on: RFC 8446, section 5, for TLS 1.3, and RFC 5246, section 6.2.3.3, for the AEAD suites of
//! TLS 1.2.
//!
//! A record is opened from where the socket put it to where the parser reads it, and sealed where
//! it was written: no byte is copied, nothing is allocated, and no plaintext is looked at before
//! its tag has been checked. What is no data (tickets, new keys, alerts) leaves the hot path at
//! one branch. No cryptography is here: that is `aead.zig`'s providers'.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("../constants.zig");
const aead = @import("aead.zig");
const key_schedule = @import("key_schedule.zig");
const libssl = @import("libssl.zig");
const record = @import("record.zig");
const types = @import("types.zig");

const Aead = aead.Aead;
const Alert = record.Alert;
const ContentType = record.ContentType;
const Error = types.Error;
const Keys = key_schedule.Keys;
const Secret = key_schedule.Secret;
const Step = types.Step;
const Suite = key_schedule.Suite;

const header_size = constants.record_header_size;
const tag_size = aead.tag_size;
const legacy_version = [2]u8{ 3, 3 }; // RFC 8446, section 5.1; TLS 1.2 by itself.

/// The largest fragment: a whole plaintext and what sealing may add (RFC 8446, section 5.2).
const fragment_size_max = constants.record_plaintext_size_max + constants.record_expansion_max;

/// One direction: its keys, and how many records have been sealed with them.
const Half = struct {
    aead: Aead,
    iv: [aead.nonce_size]u8,
    /// Of TLS 1.3: what the next keys come from.
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

/// A record that has to go out before any other.
pub const PendingRecord = union(enum) {
    /// New keys for what we send (RFC 8446, section 4.6.3).
    key_update,
    /// A warning of TLS 1.2: we shake hands no more.
    no_renegotiation,
    /// The last word, `close_notify` among them.
    alert: Alert,

    pub const Buffer = [@max(record.key_update_message.len, Alert.size)]u8;

    pub fn contentType(pending: PendingRecord) ContentType {
        return switch (pending) {
            .key_update => .handshake,
            .no_renegotiation, .alert => .alert,
        };
    }

    pub fn content(pending: PendingRecord, buffer: *Buffer) []const u8 {
        const level: record.AlertLevel, const alert: Alert = switch (pending) {
            .key_update => {
                buffer[0..record.key_update_message.len].* = record.key_update_message;
                return buffer[0..record.key_update_message.len];
            },
            .no_renegotiation => .{ .warning, .no_renegotiation },
            .alert => |alert| .{ if (alert == .close_notify) .warning else .fatal, alert },
        };
        buffer[0..Alert.size].* = .{ @backingInt(level), @backingInt(alert) };
        return buffer[0..Alert.size];
    }
};

/// The record layer of one connection. See `ssl.Session` for the contract of each function.
pub const Session = struct {
    suite: Suite,
    receiving: Half,
    sending: Half,
    /// The next explicit nonce of TLS 1.2 (RFC 5288, section 3).
    explicit_nonce: u64,
    records_per_key_max: u64,
    handshake: record.HandshakeReader,
    /// Records in a row without content.
    empty_records: u32,
    /// KeyUpdates of the peer's since its last data.
    key_updates: u32,
    /// No data has come yet: tickets are passed on to OpenSSL.
    wants_tickets: bool,
    /// The last record opened was such a ticket, or a part of one.
    ticket_opened: bool,
    /// The peer has changed its keys since whoever opens the records was told: the kernel, if it
    /// is not us.
    receive_keys_changed: bool,
    /// What has to be said to the peer before anything else.
    pending: Pending,
    last_failure: types.Failure,

    const Pending = struct {
        key_update: bool = false,
        /// A warning of TLS 1.2: we shake hands no more.
        no_renegotiation: bool = false,
        alert: ?Alert = null,
        /// An alert has been said, which is the last word (RFC 8446, section 6).
        alert_sent: bool = false,
    };

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
                sending.sequence = 1; // Our Finished, which OpenSSL does not cut.
                explicit_nonce = found.explicit_nonce;
            },
            .tls1_3 => |*found| {
                receiving.secret = found.server;
                sending.secret = found.client;
            },
        }
        return .{
            .suite = suite,
            .receiving = receiving,
            .sending = sending,
            .explicit_nonce = explicit_nonce,
            .records_per_key_max = switch (suite.version) {
                .tls1_3 => constants.records_per_key_max,
                .tls1_2 => std.math.maxInt(u64), // It has no KeyUpdate.
            },
            .handshake = .{},
            .empty_records = 0,
            .key_updates = 0,
            .wants_tickets = suite.version == .tls1_3,
            .ticket_opened = false,
            .receive_keys_changed = false,
            .pending = .{},
            .last_failure = .{ .reason = "" },
        };
    }

    pub fn deinit(session: *Session) void {
        session.receiving.deinit();
        session.sending.deinit();
        session.* = undefined;
    }

    // ---- Opening. ------------------------------------------------------------------------------

    /// `plaintext` needs `ssl.Session.roomToOpen` bytes.
    pub inline fn open(session: *Session, received: []const u8, plaintext: []u8) Error!Step {
        if (received.len < header_size) return .needs_record;
        const header = received[0..header_size];
        const fragment_size: usize = std.mem.readInt(u16, header[3..5], .big);
        if (fragment_size > fragment_size_max) return session.refuse(.record_overflow);
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
            return session.refuse(.unexpected_content_type);
        }
        if (fragment.len < tag_size) return session.refuse(.bad_record_mac);
        const inner_size = fragment.len - tag_size;
        const receiving = &session.receiving;
        const nonce = receiving.nonce();
        const tag = fragment[inner_size..][0..tag_size];
        if (!receiving.aead.open(plaintext, fragment[0..inner_size], tag, &nonce, header)) {
            return session.refuse(.bad_record_mac);
        }
        receiving.sequence += 1;
        const inner = std.mem.trimEnd(u8, plaintext[0..inner_size], &.{0});
        if (inner.len == 0) return session.refuse(.missing_content_type);
        const content = inner[0 .. inner.len - 1];
        const content_type: ContentType = @fromBackingInt(inner[content.len]);
        return session.accept(content_type, content, header_size + fragment.len);
    }

    /// TLS 1.2: the type is in the open, the sequence number in what is authenticated besides.
    inline fn openLegacy(
        session: *Session,
        header: *const [header_size]u8,
        fragment: []const u8,
        plaintext: []u8,
    ) Error!Step {
        if (!std.mem.eql(u8, header[1..3], &legacy_version)) return session.refuse(.wrong_version);
        const explicit_size = session.suite.explicitNonceSize();
        if (fragment.len < explicit_size + tag_size) return session.refuse(.bad_record_mac);
        const content_size = fragment.len - explicit_size - tag_size;
        const receiving = &session.receiving;
        var nonce = receiving.nonce();
        if (explicit_size > 0) nonce = receiving.iv[0..4].* ++ fragment[0..8].*;
        const ciphertext = fragment[explicit_size..][0..content_size];
        const tag = fragment[explicit_size + content_size ..][0..tag_size];
        const additional = additionalData(receiving.sequence, header[0], content_size);
        if (!receiving.aead.open(plaintext, ciphertext, tag, &nonce, &additional)) {
            return session.refuse(.bad_record_mac);
        }
        receiving.sequence += 1;
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
        if (content.len > constants.record_plaintext_size_max) {
            return session.refuse(.record_overflow);
        }
        return session.acceptOpened(content_type, content, record_size);
    }

    /// What somebody has opened, we or the kernel, who gives the data of several records at once.
    /// It is data if the step has a size of it.
    pub inline fn acceptOpened(
        session: *Session,
        content_type: ContentType,
        content: []const u8,
        record_size: usize,
    ) Error!Step {
        const is_data = content_type == .application_data and content.len > 0;
        if (!is_data or session.handshake.inMessage()) {
            @branchHint(.unlikely);
            return session.acceptControl(content_type, content, record_size);
        }
        session.empty_records = 0;
        session.key_updates = 0;
        session.wants_tickets = false;
        return .{
            .status = .done,
            .received_used = record_size,
            .to_send_size = 0,
            .plaintext_size = content.len,
        };
    }

    /// Whatever is not data. Gives no plaintext.
    fn acceptControl(
        session: *Session,
        content_type: ContentType,
        content: []const u8,
        record_size: usize,
    ) Error!Step {
        if (content_type != .application_data and content.len == 0) {
            return session.refuse(.unexpected_content_type); // RFC 8446, section 5.4.
        }
        if (content_type != .handshake) {
            if (session.handshake.inMessage()) return session.refuse(.interleaved_handshake);
            session.wants_tickets = false; // OpenSSL has not seen this record.
        }
        var step: Step = .{ .status = .done, .received_used = record_size, .to_send_size = 0 };
        switch (content_type) {
            .application_data => try session.countEmpty(),
            .alert => step.status = try session.acceptAlert(content),
            .handshake => switch (session.suite.version) {
                .tls1_3 => try session.acceptHandshake(content),
                .tls1_2 => try session.acceptHelloRequest(content),
            },
            .change_cipher_spec, _ => return session.refuse(.unexpected_content_type),
        }
        return step;
    }

    fn acceptAlert(session: *Session, content: []const u8) Error!Step.Status {
        if (content.len != Alert.size) return session.refuse(.malformed_alert);
        const level: record.AlertLevel = @fromBackingInt(content[0]);
        const alert: Alert = @fromBackingInt(content[1]);
        if (alert == .close_notify) return .closed;
        // In TLS 1.3 the level says nothing: all are the end, but for this one (section 6).
        const harmless = switch (session.suite.version) {
            .tls1_3 => alert == .user_canceled,
            .tls1_2 => level == .warning,
        };
        if (harmless) {
            try session.countEmpty();
            return .done;
        }
        session.last_failure = .{ .reason = alert.describe() };
        return error.TlsFailed;
    }

    fn acceptHandshake(session: *Session, content: []const u8) Error!void {
        var violation: record.Violation = undefined;
        const found = session.handshake.read(content, &violation) orelse
            return session.refuse(violation);
        switch (found) {
            .tickets => session.ticket_opened = session.wants_tickets,
            .key_update, .key_update_requested => {
                // OpenSSL is not told of new keys: what it is given ends here.
                session.wants_tickets = false;
                session.key_updates += 1;
                if (session.key_updates > constants.key_updates_max) {
                    return session.refuse(.too_many_key_updates);
                }
                try session.receiving.update(session.suite);
                session.receive_keys_changed = true;
                if (found == .key_update_requested) session.pending.key_update = true;
            },
        }
    }

    /// The server would like another handshake. Who needs that takes the openssl engine.
    fn acceptHelloRequest(session: *Session, content: []const u8) Error!void {
        const found = session.handshake.readHelloRequests(content) orelse
            return session.refuse(.unexpected_handshake);
        try session.countEmpty();
        if (found > 0) session.pending.no_renegotiation = true;
    }

    /// A record that brings nothing: allowed, but not without end.
    fn countEmpty(session: *Session) error{TlsFailed}!void {
        session.empty_records += 1;
        if (session.empty_records <= constants.empty_records_max) return;
        return session.refuse(.too_many_records_without_data);
    }

    pub fn refuse(session: *Session, violation: record.Violation) error{TlsFailed} {
        @branchHint(.cold);
        session.last_failure = .{ .reason = violation.describe() };
        session.pending.alert = violation.alert();
        return error.TlsFailed;
    }

    // ---- Sealing. ------------------------------------------------------------------------------

    /// Bytes in front of the content of a record.
    pub inline fn prefixSize(session: *const Session) usize {
        return header_size + session.suite.explicitNonceSize();
    }

    /// Bytes behind it.
    pub inline fn suffixSize(session: *const Session) usize {
        return switch (session.suite.version) {
            .tls1_3 => 1 + tag_size,
            .tls1_2 => tag_size,
        };
    }

    /// Seals a record where it stands: the content lies in `place`, between prefix and suffix.
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
        if (sealed) return;
        session.last_failure = .{ .reason = "sealing failed" };
        return error.TlsFailed;
    }

    /// Whether `writePending` has something to say.
    pub inline fn hasPending(session: *const Session) bool {
        const pending = &session.pending;
        if (pending.alert_sent) return false;
        return pending.key_update or pending.no_renegotiation or pending.alert != null or
            session.keysAreSpent();
    }

    inline fn keysAreSpent(session: *const Session) bool {
        return session.sending.sequence >= session.records_per_key_max;
    }

    /// The first of what is pending. `markSent` follows, once it is on its way.
    pub fn pendingRecord(session: *const Session) ?PendingRecord {
        const pending = &session.pending;
        if (pending.alert_sent) return null;
        if (pending.key_update or session.keysAreSpent()) return .key_update;
        if (pending.no_renegotiation) return .no_renegotiation;
        return if (pending.alert) |alert| .{ .alert = alert } else null;
    }

    /// After a KeyUpdate, what is sealed next is sealed with new keys.
    pub fn markSent(session: *Session, pending_record: PendingRecord) Error!void {
        switch (pending_record) {
            .key_update => {
                session.pending.key_update = false;
                try session.sending.update(session.suite);
            },
            .no_renegotiation => session.pending.no_renegotiation = false,
            .alert => session.pending = .{ .alert_sent = true },
        }
    }

    /// Writes what is pending at the front of `target`, as far as there is room. Gives its size.
    pub fn writePending(session: *Session, target: []u8) Error!usize {
        var size: usize = 0;
        while (session.pendingRecord()) |pending_record| {
            var buffer: PendingRecord.Buffer = undefined;
            const content = pending_record.content(&buffer);
            const content_type = pending_record.contentType();
            const written = try session.writeSmall(target[size..], content, content_type);
            if (written == 0) break;
            try session.markSent(pending_record);
            size += written;
        }
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

    /// close_notify: nothing can be sealed behind it.
    pub fn shutdown(session: *Session) void {
        if (!session.pending.alert_sent) session.pending = .{ .alert = .close_notify };
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
