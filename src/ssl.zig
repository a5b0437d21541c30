//! TLS without I/O: ciphertext in, plaintext out, and back.
//!
//! A `Session` is one end of a TLS connection. It never sees a socket: its owner hands it the
//! ciphertext that has arrived and the room for what it wants to send, and does the rest. Behind
//! the one interface stand engines, which differ in who opens and seals the records; trust (the
//! handshake, certificates, host names) is OpenSSL's in each of them.
//!
//! Engines: `direct`, which takes over the records after the handshake and opens and seals them
//! where they lie; `ktls`, which has the kernel do that once the connection is open; and `openssl`,
//! SSL_read and SSL_write over our own BIO, for every other cipher.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("constants.zig");
const openssl = @import("ssl/openssl.zig");
const direct = @import("ssl/direct.zig");
const key_schedule = @import("ssl/key_schedule.zig");
const ktls = @import("ssl/ktls.zig");
const record = @import("ssl/record.zig");
const types = @import("ssl/types.zig");

pub const aead = @import("ssl/aead.zig");
pub const libssl = @import("ssl/libssl.zig");
pub const Context = openssl.Context;
pub const ContentType = record.ContentType;
pub const CryptoInfo = ktls.CryptoInfo;
pub const Engine = types.Engine;
pub const Error = types.Error;
pub const Failure = types.Failure;
pub const Info = types.Info;
pub const PendingRecord = direct.PendingRecord;
pub const SessionOptions = types.SessionOptions;
pub const Step = types.Step;
pub const Tickets = @import("ssl/tickets.zig").Tickets;
pub const Violation = record.Violation;
pub const firstRecord = record.firstRecord;
pub const sizeToRecordEnd = record.sizeToRecordEnd;

pub const Session = struct {
    /// The engine in charge: `openssl` until the handshake is complete, and `direct` from then on
    /// until the kernel has been given the keys.
    engine: Engine,
    openssl: openssl.Session,
    /// Defined when it or the kernel is in charge.
    direct: direct.Session,
    /// Of TLS 1.2, for the kernel.
    legacy_keys: key_schedule.KeyBlock,
    /// The kernel has not done what it was told. Nothing can be received or sent any more.
    kernel_failed: bool,
    engine_wanted: ?Engine,
    engine_reason: [:0]const u8,

    /// `session` must not move afterwards. The context has to outlive it.
    pub fn init(session: *Session, context: *const Context, options: SessionOptions) Error!void {
        session.* = .{
            .engine = .openssl,
            .openssl = undefined,
            .direct = undefined,
            .legacy_keys = .{},
            .kernel_failed = false,
            .engine_wanted = options.engine,
            .engine_reason = "",
        };
        try session.openssl.init(context, options);
    }

    pub fn deinit(session: *Session) void {
        switch (session.engine) {
            .direct, .ktls => session.direct.deinit(),
            .openssl => {},
        }
        session.dropLegacyKeys();
        session.openssl.deinit();
        session.* = undefined;
    }

    /// Goes on with the handshake as far as `received` allows. On an error there may be an alert
    /// in `to_send`: see `alertSize`. With the last step the engine for the records takes over.
    pub fn handshake(session: *Session, received: []const u8, to_send: []u8) Error!Step {
        assert(session.engine == .openssl);
        const step = try session.openssl.handshake(received, to_send);
        if (step.status == .done) try session.chooseEngine();
        return step;
    }

    fn chooseEngine(session: *Session) Error!void {
        const wanted = session.engine_wanted orelse .direct;
        switch (wanted) {
            .openssl => session.openssl.dropSecrets(),
            .direct, .ktls => {
                session.engine_reason = try session.takeOver() orelse return;
                if (session.engine_wanted == null) return;
                session.openssl.last_failure = .{ .reason = session.engine_reason };
                return error.TlsFailed;
            },
        }
    }

    /// Why it could not be, if so.
    fn takeOver(session: *Session) Error!?[:0]const u8 {
        var takeover: types.Takeover = undefined;
        if (session.openssl.takeOver(&takeover)) |reason| return reason;
        defer takeover.wipe();
        const api = session.openssl.api;
        session.direct = direct.Session.init(api, null, &takeover) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            error.TlsFailed => return "the TLS library lacks the AEAD",
        };
        session.engine = .direct;
        if (session.wantsKernel()) switch (takeover.secrets) {
            .tls1_2 => |*found| session.legacy_keys = found.keys,
            .tls1_3 => {}, // They follow from the secrets.
        };
        return null;
    }

    fn dropLegacyKeys(session: *Session) void {
        session.legacy_keys.client.wipe();
        session.legacy_keys.server.wipe();
    }

    // ---- The kernel as the engine. -------------------------------------------------------------

    /// Whether the kernel is to have the records, once the connection is open. Until then no byte
    /// behind the record under way may be read: see `sizeToRecordEnd`.
    pub fn wantsKernel(session: *const Session) bool {
        const wanted = session.engine_wanted orelse return false;
        return wanted == .ktls;
    }

    /// What the kernel has to be told of one direction. The caller wipes it.
    pub fn cryptoInfo(session: *const Session, direction: aead.Direction) CryptoInfo {
        assert(session.engine == .direct or session.engine == .ktls);
        const engine = &session.direct;
        const half, const legacy_keys = switch (direction) {
            .open => .{ &engine.receiving, &session.legacy_keys.server },
            .seal => .{ &engine.sending, &session.legacy_keys.client },
        };
        var keys = switch (engine.suite.version) {
            .tls1_3 => key_schedule.trafficKeys(engine.suite, &half.secret),
            .tls1_2 => legacy_keys.*,
        };
        defer keys.wipe();
        return .init(engine.suite, &keys, engine.explicit_nonce, half.sequence);
    }

    /// The kernel has the keys of both directions. From now on it is `accept` instead of `open`,
    /// and what is to be sent needs no sealing.
    pub fn enterKernel(session: *Session) void {
        assert(session.engine == .direct);
        session.dropLegacyKeys();
        session.direct.receive_keys_changed = false; // It gets the keys as they are now.
        session.engine = .ktls;
    }

    /// The kernel does not do what it was told, for this reason. Fails the session.
    pub fn refuseKernel(session: *Session, refusal: ktls.Refusal) void {
        const suite = if (session.engine == .openssl) null else session.direct.suite;
        const refused: Failure = .{ .reason = refusal.describe(suite), .of_kernel = true };
        session.openssl.last_failure = refused;
        if (session.engine != .openssl) session.direct.last_failure = refused;
        session.kernel_failed = true;
    }

    /// What the kernel has opened: one record, or several with data. It is data if the step has
    /// `plaintext_size`.
    pub fn accept(
        session: *Session,
        content_type: ContentType,
        content: []const u8,
    ) Error!Step {
        assert(session.engine == .ktls);
        return session.direct.acceptOpened(content_type, content, 0);
    }

    /// The kernel has found this in a record.
    pub fn refuse(session: *Session, violation: Violation) error{TlsFailed} {
        assert(session.engine == .ktls);
        return session.direct.refuse(violation);
    }

    /// Whether the kernel has to be told new keys to receive by: once, after a KeyUpdate.
    pub fn takeReceiveKeysChanged(session: *Session) bool {
        defer session.direct.receive_keys_changed = false;
        return session.direct.receive_keys_changed;
    }

    /// What has to be sent before anything else; `markSent` follows. Instead of `writePending`.
    pub fn pendingRecord(session: *const Session) ?PendingRecord {
        assert(session.engine == .ktls);
        if (session.kernel_failed) return null;
        return session.direct.pendingRecord();
    }

    pub fn markSent(session: *Session, pending_record: PendingRecord) Error!void {
        assert(session.engine == .ktls);
        return session.direct.markSent(pending_record);
    }

    /// The kernel has made records out of so much data.
    pub fn countSealed(session: *Session, content_size: usize) void {
        assert(session.engine == .ktls);
        session.direct.sending.sequence += record.countOf(content_size);
    }

    // ---- Opening and sealing here. -------------------------------------------------------------

    /// Opens at most one record of `received` into `plaintext`, which has `roomToOpen` bytes. What
    /// lies there means nothing before its tag has been checked, and is wiped if that fails.
    /// The direct engine leaves `to_send` alone: see `hasPending`.
    pub inline fn open(
        session: *Session,
        received: []const u8,
        plaintext: []u8,
        to_send: []u8,
    ) Error!Step {
        switch (session.engine) {
            .openssl => return session.openssl.open(received, plaintext, to_send),
            .direct => {
                const step = try session.direct.open(received, plaintext);
                if (session.direct.ticket_opened) try session.passTicket(received, step);
                return step;
            },
            .ktls => unreachable, // `accept`.
        }
    }

    /// OpenSSL reads tickets, and keeps them for the next connection. It sees each record before
    /// the first data, and so is at the same sequence number.
    fn passTicket(session: *Session, received: []const u8, step: Step) Error!void {
        @branchHint(.cold);
        session.direct.ticket_opened = false;
        session.openssl.giveTicket(received[0..step.received_used]) catch |err| {
            session.direct.last_failure = session.openssl.last_failure;
            session.direct.pending.alert = .decode_error;
            return err;
        };
    }

    /// The bytes that `open` wants for what `received` begins with; null when there is nothing to
    /// open yet.
    pub inline fn roomToOpen(session: *const Session, received: []const u8) ?usize {
        switch (session.engine) {
            .openssl => return if (session.openssl.recordWaiting(received)) 1 else null,
            .direct => {
                const whole = firstRecord(received) orelse return null;
                return if (whole.len <= constants.record_size_max) whole.len else 0;
            },
            .ktls => return null,
        }
    }

    /// Whether the owner lays records out by himself: `contentOffset`, `sealInPlace`.
    pub inline fn sealsInPlace(session: *const Session) bool {
        return session.engine == .direct;
    }

    /// Whether it is `seal` that makes the records, in another place.
    pub inline fn sealsApart(session: *const Session) bool {
        return session.engine == .openssl;
    }

    /// Whether the kernel has failed to do what it was told.
    pub inline fn kernelFailed(session: *const Session) bool {
        return session.kernel_failed;
    }

    /// Whether the kernel opens and seals the records.
    pub inline fn inKernel(session: *const Session) bool {
        return session.engine == .ktls;
    }

    /// Seals the front of `plaintext`, at most one record, into `to_send`.
    pub fn seal(session: *Session, plaintext: []const u8, to_send: []u8) Error!Step {
        assert(plaintext.len > 0);
        assert(session.engine == .openssl);
        return session.openssl.seal(plaintext, to_send);
    }

    /// The bytes that so much content becomes.
    pub inline fn sealedSize(session: *const Session, content_size: usize) usize {
        const around_size = session.direct.prefixSize() + session.direct.suffixSize();
        return content_size + record.countOf(content_size) * around_size;
    }

    /// Where the content has to lie for `sealInPlace`, from the front of what it becomes.
    pub inline fn contentOffset(session: *const Session, content_size: usize) usize {
        const count = record.countOf(content_size);
        const prefix_size = session.direct.prefixSize();
        return count * prefix_size + (count - 1) * session.direct.suffixSize();
    }

    /// Makes records out of content that lies at its `contentOffset`. `target` has `sealedSize`.
    pub inline fn sealInPlace(
        session: *Session,
        target: []u8,
        content_size: usize,
    ) Error!void {
        assert(session.sealsInPlace());
        assert(target.len == session.sealedSize(content_size));
        if (content_size > constants.record_plaintext_size_max) {
            return session.sealMany(target, content_size);
        }
        return session.direct.sealRecord(target, .application_data);
    }

    /// Each record's content moves up a little, to make room for what goes around the next one's.
    fn sealMany(session: *Session, target: []u8, content_size: usize) Error!void {
        const prefix_size = session.direct.prefixSize();
        const suffix_size = session.direct.suffixSize();
        var content = target[session.contentOffset(content_size)..][0..content_size];
        var rest = target;
        while (content.len > 0) {
            const size = @min(content.len, constants.record_plaintext_size_max);
            @memmove(rest[prefix_size..][0..size], content[0..size]);
            const record_size = prefix_size + size + suffix_size;
            try session.direct.sealRecord(rest[0..record_size], .application_data);
            rest = rest[record_size..];
            content = content[size..];
        }
        assert(rest.len == 0);
    }

    /// Whether there is something to say before anything else: new keys, an alert. Always false
    /// for an engine that writes it into the `to_send` of the call.
    pub inline fn hasPending(session: *const Session) bool {
        return session.engine != .openssl and session.direct.hasPending();
    }

    /// Says it at the front of `target`, as far as there is room, and returns the size.
    pub fn writePending(session: *Session, target: []u8) Error!usize {
        return session.direct.writePending(target);
    }

    /// Writes close_notify, or makes it pending. Nothing can be sealed afterwards.
    pub fn shutdown(session: *Session, to_send: []u8) Step {
        switch (session.engine) {
            .openssl => return session.openssl.shutdown(to_send),
            .direct, .ktls => {
                session.direct.shutdown();
                return .{ .status = .closed, .received_used = 0, .to_send_size = 0 };
            },
        }
    }

    /// Why the last call failed.
    pub fn failure(session: *const Session) Failure {
        return switch (session.engine) {
            .openssl => session.openssl.last_failure,
            .direct, .ktls => session.direct.last_failure,
        };
    }

    /// How much the failed call put into its `to_send`: an alert that tells the peer why.
    pub fn alertSize(session: *const Session) usize {
        return switch (session.engine) {
            .openssl => session.openssl.transfer.to_send_size,
            .direct, .ktls => 0,
        };
    }

    /// Whether a further message could be opened without new ciphertext.
    pub inline fn recordWaiting(session: *const Session, received: []const u8) bool {
        return session.roomToOpen(received) != null;
    }

    pub fn info(session: *const Session) Info {
        var found = session.openssl.info();
        found.engine = session.engine;
        found.engine_reason = session.engine_reason;
        found.aead = switch (session.engine) {
            .openssl => found.aead,
            .direct => session.direct.sending.aead.description(),
            .ktls => ktls.description,
        };
        return found;
    }
};

test {
    _ = aead;
    _ = direct;
    _ = key_schedule;
    _ = ktls;
    _ = libssl;
    _ = openssl;
    _ = record;
    _ = types;
    _ = @import("ssl/aead_test.zig");
    _ = @import("ssl/aead/evp.zig");
    _ = @import("ssl/aead/evp_test.zig");
    _ = @import("ssl/aead/ipsec_mb.zig");
    _ = @import("ssl/aead/vectors.zig");
    _ = @import("ssl/direct_test.zig");
    _ = @import("ssl/openssl_test.zig");
    _ = @import("ssl/product.zig");
    _ = @import("ssl/record_test.zig");
}
