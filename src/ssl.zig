//! TLS without I/O: ciphertext in, plaintext out, and back.
//!
//! A `Session` is one end of a TLS connection. It never sees a socket: its owner hands it the
//! ciphertext that has arrived and the room for what it wants to send, and reads and writes the
//! socket. The engines differ in who opens and seals the records. Trust (the handshake,
//! certificates, host names) is OpenSSL's in each of them.
//!
//! Engines: `direct`, which takes over the records after the handshake and opens and seals them
//! where they lie; `ktls`, which has the kernel do that once the connection is open; and `openssl`,
//! SSL_read and SSL_write over our own BIO, for every other cipher.
//!
//! A further engine is more than a file in `ssl/`: a name in `types.Engine`, a variant of
//! `Session.Records` that is made from a `types.Takeover` in `chooseEngine`, and a case in each
//! switch that the compiler then reports. The connection knows three ways to seal (`sealsInPlace`,
//! `sealsApart`, or the kernel) and two to open (`opener`); a fourth or a third changes
//! `connection.zig` and `connection/outbox.zig` too. Users choose it by name: `python/options.zig`
//! and `hftws/client.py`.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("constants.zig");
const ciphers = @import("ssl/ciphers.zig");
const control = @import("ssl/control.zig");
const direct = @import("ssl/direct.zig");
const key_schedule = @import("ssl/key_schedule.zig");
const ktls = @import("ssl/ktls.zig");
const openssl = @import("ssl/openssl.zig");
const record = @import("ssl/record.zig");
const types = @import("ssl/types.zig");

pub const aead = @import("ssl/aead.zig");
pub const libssl = @import("ssl/libssl.zig");
pub const Context = openssl.Context;
pub const ContentType = record.ContentType;
pub const firstUnknownCipher = ciphers.firstUnknown;
pub const CryptoInfo = ktls.CryptoInfo;
pub const Engine = types.Engine;
pub const Error = types.Error;
pub const Failure = types.Failure;
pub const Info = types.Info;
pub const PendingRecord = control.PendingRecord;
pub const SessionOptions = types.SessionOptions;
pub const Step = types.Step;
pub const Tickets = @import("ssl/tickets.zig").Tickets;
pub const Violation = record.Violation;
pub const firstRecord = record.firstRecord;
pub const sizeToRecordEnd = record.sizeToRecordEnd;

/// Who opens the records, as far as the owner of the socket has to know.
pub const Opener = enum {
    /// `Session.open`: the socket has ciphertext.
    user_space,
    /// The socket has plaintext already, and `Session.accept` takes it. The kernel also seals what
    /// is sent: it takes over both directions at once.
    kernel,
};

pub const Session = struct {
    /// The handshake, in all engines; then tickets.
    openssl: openssl.Session,
    records: Records,
    engine_wanted: ?Engine,
    engine_reason: [:0]const u8,

    /// The engine in charge of the records, with all that only it needs: `openssl` until the
    /// handshake is complete, then `direct`, and `ktls` once the kernel has the keys. Entering the
    /// next one consumes the current one and wipes its keys.
    const Records = union(Engine) {
        direct: direct.Session,
        ktls: ktls.Session,
        openssl,
    };

    /// `session` must not move afterwards. The context has to outlive it.
    pub fn init(session: *Session, context: *const Context, options: SessionOptions) Error!void {
        session.* = .{
            .openssl = undefined,
            .records = .openssl,
            .engine_wanted = options.engine,
            .engine_reason = "",
        };
        try session.openssl.init(context, options);
        session.invariants();
    }

    pub fn deinit(session: *Session) void {
        if (session.endsResumption()) session.openssl.forgetTickets();
        switch (session.records) {
            .openssl => {},
            inline .direct, .ktls => |*engine| engine.deinit(),
        }
        session.openssl.deinit();
        session.* = undefined;
    }

    /// Whether the next connection has to make a full handshake. After a fatal alert, sent or
    /// received, that is a MUST (RFC 5246, section 7.2.2; RFC 8446, section 6.2). And a session
    /// that was offered may be why the handshake did not end well.
    fn endsResumption(session: *const Session) bool {
        if (session.openssl.offers_session) return true;
        const why = session.failure();
        return why.happened() and !why.of_kernel;
    }

    fn invariants(session: *const Session) void {
        const wanted = session.engine_wanted;
        switch (session.records) {
            .openssl => return, // In every handshake.
            .direct => |*engine| {
                engine.invariants();
                assert(wanted != .openssl);
                assert(engine.legacy_keys == null or wanted == .ktls);
            },
            .ktls => |*engine| {
                engine.invariants();
                assert(wanted == .ktls);
            },
        }
        assert(session.engine_reason.len == 0);
        assert(session.openssl.secrets.client_size == 0);
        assert(session.openssl.secrets.server_size == 0);
    }

    /// Goes on with the handshake as far as `received` allows. On an error there may be an alert
    /// in `to_send`: see `alertSize`. With the last step the engine for the records takes over.
    pub fn handshake(session: *Session, received: []const u8, to_send: []u8) Error!Step {
        assert(session.records == .openssl);
        const step = try session.openssl.handshake(received, to_send);
        if (step.status == .done) {
            try session.chooseEngine();
            session.invariants();
        }
        return step;
    }

    fn chooseEngine(session: *Session) Error!void {
        const wanted = session.engine_wanted orelse .direct;
        switch (wanted) {
            .openssl => session.openssl.dropSecrets(),
            .direct, .ktls => {
                session.engine_reason = try session.enterDirect() orelse return;
                if (session.engine_wanted == null) return;
                session.openssl.last_failure = .{ .reason = session.engine_reason };
                return error.TlsFailed;
            },
        }
    }

    /// Returns the reason when the records are left to OpenSSL.
    fn enterDirect(session: *Session) Error!?[:0]const u8 {
        var takeover: types.Takeover = undefined;
        if (session.openssl.takeOver(&takeover)) |reason| return reason;
        defer takeover.wipe();
        const api = session.openssl.api;
        var engine = direct.Session.init(api, null, &takeover) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            error.TlsFailed => return "the TLS library lacks the AEAD",
        };
        session.records = .{ .direct = engine };
        engine.receiving.wipe(); // The secrets of the copy.
        engine.sending.wipe();
        if (session.wantsKernel()) session.records.direct.keepKeys(&takeover);
        return null;
    }

    /// Whom the records that arrive next are for.
    pub inline fn opener(session: *const Session) Opener {
        return switch (session.records) {
            .direct, .openssl => .user_space,
            .ktls => .kernel,
        };
    }

    // ---- Kernel TLS. ---------------------------------------------------------------------------

    /// Whether the kernel is to have the records, once the connection is open. Until then the
    /// socket is read to the end of a record and no further: see `sizeToRecordEnd`.
    pub inline fn wantsKernel(session: *const Session) bool {
        const wanted = session.engine_wanted orelse return false;
        return wanted == .ktls;
    }

    /// The keys of one direction, for the kernel: at the handover, and after a KeyUpdate. The
    /// caller wipes it.
    pub fn cryptoInfo(session: *const Session, direction: aead.Direction) CryptoInfo {
        return switch (session.records) {
            .direct => |*engine| ktls.handoverInfo(engine, direction),
            .ktls => |*engine| engine.cryptoInfo(direction),
            .openssl => unreachable, // Nobody has the keys yet.
        };
    }

    /// The kernel has the keys of both directions: it opens and seals the next records. `accept`
    /// takes the place of `open`, and nothing has to be sealed.
    pub fn enterKernel(session: *Session) void {
        var kernel: ktls.Session = undefined;
        kernel.init(&session.records.direct);
        defer kernel.wipe();
        session.records = .{ .ktls = kernel };
        session.invariants();
    }

    /// The kernel cannot do what it has to, for this reason. Fails the session.
    pub fn refuseKernel(session: *Session, refusal: ktls.Refusal) void {
        const failed: *Failure, const suite = switch (session.records) {
            .openssl => .{ &session.openssl.last_failure, null },
            inline .direct, .ktls => |*engine| .{ &engine.control.last_failure, engine.suite },
        };
        failed.* = .{ .reason = refusal.describe(suite), .of_kernel = true };
        switch (session.records) {
            .openssl, .direct => {},
            .ktls => |*engine| engine.failed = true,
        }
    }

    /// When the kernel has the records: whether `refuseKernel` was called since.
    pub inline fn kernelFailed(session: *const Session) bool {
        return session.records.ktls.failed;
    }

    /// What the kernel has opened: one record, or the data of several. It is data if the step has
    /// a `plaintext_size`.
    pub fn accept(
        session: *Session,
        content_type: ContentType,
        content: []const u8,
    ) Error!Step {
        return session.records.ktls.accept(content_type, content);
    }

    /// The kernel has refused a record of the peer's for this violation. Fails the session.
    pub fn refuse(session: *Session, violation: Violation) error{TlsFailed} {
        return session.records.ktls.control.refuse(violation);
    }

    /// Whether the kernel has to be given new keys to open with: true once after a KeyUpdate.
    pub fn takeReceiveKeysChanged(session: *Session) bool {
        const engine = &session.records.ktls;
        defer engine.receive_keys_changed = false;
        return engine.receive_keys_changed;
    }

    /// A record that has to be sent before any other; `markSent` follows. In place of
    /// `writePending`.
    pub fn pendingRecord(session: *const Session) ?PendingRecord {
        return session.records.ktls.pendingRecord();
    }

    /// After a KeyUpdate, the kernel has to be given new keys to seal with.
    pub fn markSent(session: *Session, pending_record: PendingRecord) void {
        session.records.ktls.markSent(pending_record);
    }

    /// The kernel has made records out of so much data.
    pub fn countSealed(session: *Session, content_size: usize) void {
        session.records.ktls.countSealed(content_size);
    }

    // ---- Opening and sealing in user space. ----------------------------------------------------

    /// Opens at most one record of `received` into `plaintext`, which has `roomToOpen` bytes. What
    /// lies there means nothing before its tag has been checked, and is wiped if that fails.
    /// The direct engine leaves `to_send` alone: see `hasPending`.
    pub inline fn open(
        session: *Session,
        received: []const u8,
        plaintext: []u8,
        to_send: []u8,
    ) Error!Step {
        switch (session.records) {
            .direct => |*engine| {
                const step = try engine.open(received, plaintext);
                if (engine.ticket_opened) try session.passTicket(received, step);
                return step;
            },
            .openssl => return session.openssl.open(received, plaintext, to_send),
            .ktls => unreachable, // `accept`.
        }
    }

    /// OpenSSL reads tickets, and keeps them for the next connection. It is shown each record
    /// before the first data, and so is at the same sequence number.
    fn passTicket(session: *Session, received: []const u8, step: Step) Error!void {
        @branchHint(.cold);
        const engine = &session.records.direct;
        engine.ticket_opened = false;
        session.openssl.giveTicket(received[0..step.received_used]) catch {
            const alert = session.openssl.alertSent() orelse .internal_error;
            return engine.control.fail(session.openssl.last_failure, alert);
        };
    }

    /// The bytes that `open` wants for what `received` begins with; null when there is nothing to
    /// open yet.
    pub inline fn roomToOpen(session: *const Session, received: []const u8) ?usize {
        switch (session.records) {
            .direct => {
                const whole = firstRecord(received) orelse return null;
                return if (whole.len <= constants.record_size_max) whole.len else 0;
            },
            .openssl => return if (session.openssl.recordWaiting(received)) 1 else null,
            .ktls => return null,
        }
    }

    /// Whether the owner writes content at its `contentOffset`, for `sealInPlace`.
    pub inline fn sealsInPlace(session: *const Session) bool {
        return session.records == .direct;
    }

    /// Whether `seal` makes the records, in another place.
    pub inline fn sealsApart(session: *const Session) bool {
        return session.records == .openssl;
    }

    /// Seals the front of `plaintext`, at most one record, into `to_send`.
    pub fn seal(session: *Session, plaintext: []const u8, to_send: []u8) Error!Step {
        assert(plaintext.len > 0);
        assert(session.sealsApart());
        return session.openssl.seal(plaintext, to_send);
    }

    /// The bytes that so much content becomes in `sealInPlace`.
    pub inline fn sealedSize(session: *const Session, content_size: usize) usize {
        return session.records.direct.sealedSize(content_size);
    }

    /// Where the content has to lie for `sealInPlace`, from the front of what it becomes.
    pub inline fn contentOffset(session: *const Session, content_size: usize) usize {
        return session.records.direct.contentOffset(content_size);
    }

    /// Makes records out of content that lies at its `contentOffset`. `target` has `sealedSize`.
    pub inline fn sealInPlace(
        session: *Session,
        target: []u8,
        content_size: usize,
    ) Error!void {
        return session.records.direct.seal(target, content_size);
    }

    /// Whether a KeyUpdate or an alert has to be sent before anything else. Always false with the
    /// openssl engine, which writes them into the `to_send` of the call.
    pub inline fn hasPending(session: *const Session) bool {
        return switch (session.records) {
            .openssl => false,
            inline .direct, .ktls => |*engine| engine.hasPending(),
        };
    }

    /// Seals what is pending at the front of `target`, as far as there is room. Gives its size.
    pub fn writePending(session: *Session, target: []u8) Error!usize {
        return session.records.direct.writePending(target);
    }

    /// Writes close_notify, or makes it pending. Nothing can be sealed afterwards.
    pub fn shutdown(session: *Session, to_send: []u8) Step {
        switch (session.records) {
            .openssl => return session.openssl.shutdown(to_send),
            inline .direct, .ktls => |*engine| {
                engine.control.shutdown();
                return .{ .status = .closed, .received_used = 0, .to_send_size = 0 };
            },
        }
    }

    /// Why the last call failed.
    pub fn failure(session: *const Session) Failure {
        return switch (session.records) {
            .openssl => session.openssl.last_failure,
            inline .direct, .ktls => |*engine| engine.control.last_failure,
        };
    }

    /// The bytes that the failed call wrote into its `to_send`: an alert that tells the peer why.
    pub fn alertSize(session: *const Session) usize {
        return switch (session.records) {
            .openssl => session.openssl.transfer.to_send_size,
            .direct, .ktls => 0, // It is pending.
        };
    }

    /// After a failure: whether an alert of ours tells the peer why. It may still be pending.
    pub fn hasAlerted(session: *const Session) bool {
        return switch (session.records) {
            // A named engine that cannot be used is no fault of the peer's.
            .openssl => session.engine_reason.len == 0 and session.alertSize() > 0,
            inline .direct, .ktls => |*engine| engine.control.hasAlerted(),
        };
    }

    /// Whether a further message could be opened without new ciphertext.
    pub inline fn recordWaiting(session: *const Session, received: []const u8) bool {
        return session.roomToOpen(received) != null;
    }

    pub fn info(session: *const Session) Info {
        var found = session.openssl.info();
        found.engine = session.records;
        found.engine_reason = session.engine_reason;
        found.aead = switch (session.records) {
            .openssl => found.aead,
            .direct => |*engine| engine.sending.aead.description(),
            .ktls => ktls.description,
        };
        return found;
    }
};

test {
    _ = aead;
    _ = ciphers;
    _ = control;
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
    _ = @import("ssl/certificate_names.zig");
    _ = @import("ssl/direct_test.zig");
    _ = @import("ssl/handover_test.zig");
    _ = @import("ssl/openssl_test.zig");
    _ = @import("ssl/product.zig");
    _ = @import("ssl/record_test.zig");
}
