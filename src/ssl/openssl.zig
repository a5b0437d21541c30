//! OpenSSL's handshake, and the openssl engine, which has every cipher.
//!
//! LibreSSL works as well.
//!
//! OpenSSL reads and writes through a BIO that is made here, and serves it the slices of the call
//! under way. So one read of the socket is enough for many records, where SSL_set_fd would make
//! two system calls for each; and OpenSSL never reads ahead, so that no byte hides in its buffers
//! between records. It asks for a header, then for a body, and gets exactly that.

const std = @import("std");
const assert = std.debug.assert;
const ciphers = @import("ciphers.zig");
const constants = @import("../constants.zig");
const libssl = @import("libssl.zig");
const key_schedule = @import("key_schedule.zig");
const record_layer = @import("record.zig");
const types = @import("types.zig");
const CertificateNames = @import("certificate_names.zig").CertificateNames;
const Tickets = @import("tickets.zig").Tickets;
const tag_size = @import("aead/types.zig").tag_size;
const OnceType = @import("../once.zig").OnceType;

const Error = types.Error;
const ErrorWatch = libssl.ErrorWatch;
const Failure = types.Failure;
const Step = types.Step;

/// OpenSSL's reason when the peer speaks another version of TLS, or no TLS.
const wrong_version_reason = "wrong version number";

/// More than any record grows by when it is sealed: header, explicit nonce, padding, tag.
const seal_expansion_max = 512;

/// More than any record with an alert has.
const alert_record_size_max = constants.record_header_size + seal_expansion_max;

/// The Finished of TLS 1.2: type, length, 12 bytes (RFC 5246, section 7.4.9).
const finished_content_size = 1 + 3 + 12;

/// The Finished of a client in TLS 1.2, sealed with AES-GCM: explicit nonce, content, tag.
const finished_header = [_]u8{ 22, 3, 3, 0, 8 + finished_content_size + tag_size };
const finished_size = finished_header.len + 8 + finished_content_size + tag_size;

/// The traffic secrets of TLS 1.3; the sizes are 0 until OpenSSL has logged them.
const Secrets = struct {
    client: key_schedule.Secret = @splat(0),
    server: key_schedule.Secret = @splat(0),
    client_size: usize = 0,
    server_size: usize = 0,
};

/// What all connections of a client share: trusted roots, its own certificate, ciphers.
pub const Context = struct {
    api: *const libssl.Api,
    product: libssl.Product,
    handle: *libssl.Context,
    method: *libssl.BioMethod,
    /// Whether the client can show a certificate.
    has_certificate: bool,

    pub const Options = struct {
        /// PEM file of trusted roots; null: the system's, where the TLS library looks for them.
        ca_file: ?[:0]const u8 = null,
        /// PEM file of the client's own certificate chain, for servers that ask for one.
        cert_file: ?[:0]const u8 = null,
        /// PEM file of its private key; null: it is in `cert_file`.
        key_file: ?[:0]const u8 = null,
        /// Whether the server has to prove who it is.
        verify: bool = true,
        /// The cipher suites to offer, see `ciphers.set`; null: the default.
        ciphers: ?[]const u8 = null,
    };

    pub const InitError = error{
        /// `ca_file` is not there, or holds no certificate.
        CaFileUnusable,
        CertFileUnusable,
        KeyFileUnusable,
        /// `ciphers` leaves nothing to offer, or cannot be parsed.
        CiphersUnusable,
        OutOfMemory,
    };

    /// On an error other than OutOfMemory, `failure` says why.
    pub fn init(api: *const libssl.Api, options: Options, failure: *Failure) InitError!Context {
        const watch: ErrorWatch = .beginEmpty(api);
        defer watch.endEmpty(api);
        const handle = api.SSL_CTX_new(api.TLS_client_method()) orelse return error.OutOfMemory;
        errdefer api.SSL_CTX_free(handle);

        // OpenSSL retries by default. Without that, a read that finds only a ticket fails.
        const mode = libssl.mode_enable_partial_write | libssl.mode_accept_moving_write_buffer |
            libssl.mode_auto_retry;
        const version = libssl.tls1_2_version;
        _ = api.SSL_CTX_ctrl(handle, libssl.control_set_mode, mode, null);
        _ = api.SSL_CTX_ctrl(handle, libssl.control_set_min_proto_version, version, null);
        ciphers.set(api, handle, options.ciphers) catch |err| {
            failure.* = failureOf(api, takeError(api, .oldest));
            return err;
        };
        if (options.verify) {
            api.SSL_CTX_set_verify(handle, libssl.verify_peer, &noteNames);
        } else api.SSL_CTX_set_verify(handle, libssl.verify_none, null);
        const product = api.product();
        if (product.tellsAlerts()) {
            api.SSL_CTX_set_info_callback(handle, &noteAlert);
        } else api.SSL_CTX_set_msg_callback(handle, &noteMessage);
        api.SSL_CTX_set_keylog_callback(handle, &noteSecret);
        api.SSL_CTX_sess_set_new_cb(handle, &keepTicket);
        const cache = libssl.session_cache_client | libssl.session_cache_no_internal;
        _ = api.SSL_CTX_ctrl(handle, libssl.control_set_session_cache_mode, cache, null);
        loadFiles(api, product, handle, options) catch |err| {
            failure.* = failureOf(api, takeError(api, .oldest));
            return err;
        };
        return .{
            .api = api,
            .product = product,
            .handle = handle,
            .method = try sharedMethod(api),
            .has_certificate = options.cert_file != null,
        };
    }

    pub fn deinit(context: *Context) void {
        context.api.SSL_CTX_free(context.handle);
        context.* = undefined;
    }

    fn loadFiles(
        api: *const libssl.Api,
        product: libssl.Product,
        handle: *libssl.Context,
        options: Options,
    ) InitError!void {
        if (options.ca_file) |file| {
            if (api.SSL_CTX_load_verify_locations(handle, file.ptr, null) != 1) {
                return error.CaFileUnusable;
            }
        } else {
            _ = api.SSL_CTX_set_default_verify_paths(handle);
            if (!product.heedsRootVariables()) loadNamedRoots(api, handle);
        }
        const cert_file = options.cert_file orelse return;
        api.SSL_CTX_set_default_passwd_cb(handle, &refusePassword);
        const key_file = options.key_file orelse cert_file;
        if (api.SSL_CTX_use_certificate_chain_file(handle, cert_file.ptr) != 1) {
            return error.CertFileUnusable;
        }
        const pem = libssl.filetype_pem;
        if (api.SSL_CTX_use_PrivateKey_file(handle, key_file.ptr, pem) != 1) {
            return error.KeyFileUnusable;
        }
        if (api.SSL_CTX_check_private_key(handle) != 1) return error.KeyFileUnusable;
    }
};

/// Does what OpenSSL does by itself: loads the roots that the environment names, if there are any.
fn loadNamedRoots(api: *const libssl.Api, handle: *libssl.Context) void {
    if (std.c.getenv(api.X509_get_default_cert_file_env())) |file| {
        _ = api.SSL_CTX_load_verify_locations(handle, file, null);
    }
    if (std.c.getenv(api.X509_get_default_cert_dir_env())) |directory| {
        _ = api.SSL_CTX_load_verify_locations(handle, null, directory);
    }
    api.ERR_clear_error();
}

/// An encrypted key is an error: OpenSSL would ask for its password on the terminal, and wait.
fn refusePassword(_: [*]u8, _: c_int, _: c_int, _: ?*anyopaque) callconv(.c) c_int {
    return -1;
}

/// One connection. See `ssl.Session` for the contract of each function.
pub const Session = struct {
    api: *const libssl.Api,
    product: libssl.Product,
    handle: *libssl.Ssl,
    transfer: Transfer,
    /// OpenSSL holds plaintext of the record it opened last, for which there was no room; or
    /// perhaps, when the handshake is complete, messages behind Finished.
    plaintext_pending: bool,
    /// Kept until the direct engine has taken over, or is not going to.
    secrets: Secrets,
    /// The last bytes that the handshake has sent. In TLS 1.2 they are the Finished.
    sent_tail: [finished_size]u8,
    /// Counts the records that the handshake has received.
    received_records: record_layer.RecordCounter,
    has_certificate: bool,
    /// Where tickets are kept for the next connection. Not owned.
    tickets: ?*Tickets,
    /// The handshake under way has offered a session of an earlier connection.
    offers_session: bool,
    last_failure: Failure,
    /// Of the server's certificate, if it is for other hosts.
    certificate_names: ?CertificateNames,

    pub fn init(
        session: *Session,
        context: *const Context,
        options: types.SessionOptions,
    ) Error!void {
        const api = context.api;
        const watch: ErrorWatch = .beginEmpty(api);
        defer watch.endEmpty(api);
        const handle = api.SSL_new(context.handle) orelse return error.OutOfMemory;
        errdefer api.SSL_free(handle);

        session.* = .{
            .api = api,
            .product = context.product,
            .handle = handle,
            .transfer = .{ .api = api },
            .plaintext_pending = false,
            .secrets = .{},
            .sent_tail = @splat(0),
            .received_records = .{},
            .has_certificate = context.has_certificate,
            .tickets = options.tickets,
            .offers_session = false,
            .last_failure = .none,
            .certificate_names = null,
        };
        const bio = api.BIO_new(context.method) orelse return error.OutOfMemory;
        api.BIO_set_data(bio, session);
        api.BIO_set_init(bio, 1);
        api.SSL_set_bio(handle, bio, bio); // Owns it now.
        try session.expectServer(options);
        api.SSL_set_connect_state(handle);
        if (options.tickets) |tickets| session.offers_session = tickets.offer(api, handle);
    }

    pub fn deinit(session: *Session) void {
        const api = session.api;
        const watch: ErrorWatch = .begin(api);
        defer watch.end(api);
        // Otherwise OpenSSL invalidates the ticket of a connection that ended without close_notify.
        api.SSL_set_shutdown(session.handle, libssl.shutdown_sent_and_received);
        api.SSL_free(session.handle);
        session.dropSecrets();
        session.* = undefined;
    }

    /// Sets the name that the certificate has to be for (RFC 9525: no partial wildcards, no common
    /// names).
    fn expectServer(session: *Session, options: types.SessionOptions) Error!void {
        const api = session.api;
        const name = options.server_name;
        const parameters = api.SSL_get0_param(session.handle);
        if (options.server_name_is_address) {
            const status = api.X509_VERIFY_PARAM_set1_ip_asc(parameters, name.ptr);
            if (status != 1) return error.OutOfMemory;
            return;
        }
        const flags = libssl.host_flag_no_partial_wildcards |
            libssl.host_flag_never_check_subject;
        api.X509_VERIFY_PARAM_set_hostflags(parameters, flags);
        const status = api.X509_VERIFY_PARAM_set1_host(parameters, name.ptr, name.len);
        if (status != 1) return error.OutOfMemory;
        _ = api.SSL_ctrl(
            session.handle,
            libssl.control_set_tlsext_hostname,
            libssl.name_type_host_name,
            @constCast(name.ptr),
        );
    }

    pub fn handshake(session: *Session, received: []const u8, to_send: []u8) Error!Step {
        const api = session.api;
        const watch: ErrorWatch = .beginEmpty(api);
        defer watch.endEmpty(api);
        session.transfer.begin(received, to_send);
        var result = api.SSL_do_handshake(session.handle);
        // After a fatal alert within a handshake of TLS 1.2, LibreSSL leaves SSL_want at reading.
        if (session.hasPaused(result) and api.ERR_peek_error() == 0) {
            result = api.SSL_do_handshake(session.handle);
        }
        session.keepTail(to_send[0..session.transfer.to_send_size]);
        session.received_records.add(received[0..session.transfer.received_used]);
        const status = try session.meaningOf(result);
        if (status == .done) {
            session.settleSession();
            session.plaintext_pending = true;
        }
        return session.transfer.step(status, 0);
    }

    /// The handshake is complete, so the session that was offered has done no harm.
    fn settleSession(session: *Session) void {
        session.offers_session = false;
        const tickets = session.tickets orelse return;
        if (session.isResumed()) tickets.putBack(session.api, session.handle);
    }

    /// Gives up what earlier handshakes with this server have left, and this one.
    pub fn forgetTickets(session: *Session) void {
        if (session.tickets) |tickets| tickets.forget(session.api);
    }

    fn keepTail(session: *Session, sent: []const u8) void {
        const tail = &session.sent_tail;
        const size = @min(sent.len, tail.len);
        std.mem.copyForwards(u8, tail, tail[size..]);
        @memcpy(tail[tail.len - size ..], sent[sent.len - size ..]);
    }

    /// After the handshake: fills in what the direct engine needs to go on with the records.
    /// Returns the reason if it cannot have them. The caller wipes `takeover`.
    pub fn takeOver(session: *Session, takeover: *types.Takeover) ?[:0]const u8 {
        defer session.dropSecrets();
        const api = session.api;
        const watch: ErrorWatch = .begin(api);
        defer watch.end(api);
        const cipher = api.SSL_get_current_cipher(session.handle).?;
        const number: u16 = @truncate(api.SSL_CIPHER_get_id(cipher));
        const suite = key_schedule.Suite.of(number) orelse
            return "no AEAD that is known seals the records of this cipher suite";
        if (api.SSL_pending(session.handle) > 0) return "OpenSSL has read data already";
        takeover.suite = suite;
        return switch (suite.version) {
            .tls1_3 => session.takeOverCurrent(takeover),
            .tls1_2 => session.takeOverLegacy(takeover),
        };
    }

    fn takeOverCurrent(session: *Session, takeover: *types.Takeover) ?[:0]const u8 {
        const size = takeover.suite.secretSize();
        const secrets = &session.secrets;
        if (secrets.client_size != size or secrets.server_size != size) {
            if (session.product.tellsSecrets()) {
                return "the TLS library does not tell the traffic secrets";
            }
            return "LibreSSL does not tell the traffic secrets of TLS 1.3";
        }
        takeover.secrets = .{ .tls1_3 = .{ .client = secrets.client, .server = secrets.server } };
        return null;
    }

    fn takeOverLegacy(session: *Session, takeover: *types.Takeover) ?[:0]const u8 {
        if (session.has_certificate) {
            return "in TLS 1.2 a server may ask for the client's certificate by renegotiation";
        }
        if (session.hidesContent(takeover.suite)) {
            return "the server has sent more in the record of its Finished, which OpenSSL keeps";
        }
        const api = session.api;
        var explicit_nonce: u64 = 0;
        if (takeover.suite.explicitNonceSize() > 0) {
            // OpenSSL's nonces begin at random and count up. Ours continue after the last of them,
            // so that none is used twice.
            const tail = &session.sent_tail;
            if (!std.mem.startsWith(u8, tail, &finished_header)) return "no Finished was seen";
            explicit_nonce = std.mem.readInt(u64, tail[finished_header.len..][0..8], .big) +% 1;
        }
        const own = api.SSL_get_session(session.handle) orelse return "there is no session";
        var master_secret: [key_schedule.master_secret_size]u8 = undefined;
        defer std.crypto.secureZero(u8, &master_secret);
        var client_random: [key_schedule.random_size]u8 = undefined;
        var server_random: [key_schedule.random_size]u8 = undefined;
        const sizes = [_]usize{
            api.SSL_SESSION_get_master_key(own, &master_secret, master_secret.len),
            api.SSL_get_client_random(session.handle, &client_random, client_random.len),
            api.SSL_get_server_random(session.handle, &server_random, server_random.len),
        };
        if (!std.mem.eql(usize, &sizes, &.{ master_secret.len, 32, 32 })) {
            return "the TLS library does not tell the master secret";
        }
        const suite = takeover.suite;
        takeover.secrets = .{ .tls1_2 = .{
            .keys = key_schedule.keyBlock(suite, &master_secret, &client_random, &server_random),
            .explicit_nonce = explicit_nonce,
            .received_records = session.received_records.count,
        } };
        return null;
    }

    /// In TLS 1.2 a HelloRequest, or a part of one, may stand behind Finished in the same record.
    /// OpenSSL has opened it and looks at it in the next read. (In TLS 1.3 it refuses that.)
    fn hidesContent(session: *const Session, suite: key_schedule.Suite) bool {
        const received = &session.received_records;
        const around_size = suite.explicitNonceSize() + tag_size;
        return received.size != received.count * around_size + finished_content_size;
    }

    pub fn dropSecrets(session: *Session) void {
        std.crypto.secureZero(u8, &session.secrets.client);
        std.crypto.secureZero(u8, &session.secrets.server);
        session.secrets = .{};
    }

    /// A record with tickets, or with a part of one, that the direct engine has opened: shows it to
    /// OpenSSL. If that fails, `alertSent` is what OpenSSL would tell the peer. Its record is
    /// thrown away: it has used a nonce of the direct engine.
    pub fn giveTicket(session: *Session, received: []const u8) Error!void {
        const api = session.api;
        const watch: ErrorWatch = .beginEmpty(api);
        defer watch.endEmpty(api);
        var alert_record: [alert_record_size_max]u8 = undefined;
        defer std.crypto.secureZero(u8, &alert_record);
        session.transfer.begin(received, &alert_record);
        defer session.transfer.begin(&.{}, &.{});
        var scratch: [1]u8 = undefined;
        const result = api.SSL_read(session.handle, &scratch, scratch.len);
        switch (try session.meaningOf(result)) {
            .needs_received => if (session.transfer.to_send_size == 0) return,
            .done, .needs_room, .closed => {},
        }
        session.last_failure = .{ .reason = "the TLS library takes a ticket for something else" };
        return error.TlsFailed;
    }

    /// The alert that OpenSSL has sent last, close_notify excepted.
    pub fn alertSent(session: *const Session) ?record_layer.Alert {
        return session.transfer.alert_sent;
    }

    pub fn isResumed(session: *const Session) bool {
        return session.api.sessionReused(session.handle);
    }

    pub inline fn open(
        session: *Session,
        received: []const u8,
        plaintext: []u8,
        to_send: []u8,
    ) Error!Step {
        // OpenSSL gets one whole record a call: so no byte of the next one hides in its buffers,
        // and no call is made only to learn that bytes are missing, which costs as much.
        const record: []const u8 = record_layer.firstRecord(received) orelse none: {
            if (!session.plaintext_pending) return .needs_record;
            break :none "";
        };
        assert(plaintext.len > 0);
        if (to_send.len < alert_record_size_max) {
            @branchHint(.unlikely);
            session.api.ERR_clear_error(); // See `meaningOf`.
        }
        const watch: ErrorWatch = .begin(session.api);
        defer watch.end(session.api);
        session.transfer.begin(record, to_send);
        const size = clampSize(plaintext.len);
        var result = session.api.SSL_read(session.handle, plaintext.ptr, size);
        if (session.hasPaused(result) and session.isCurrent()) {
            result = session.api.SSL_read(session.handle, plaintext.ptr, size);
        }
        session.plaintext_pending = result == size and session.api.SSL_pending(session.handle) > 0;
        if (result > 0) return session.transfer.step(.done, @intCast(result));
        return session.transfer.step(try session.meaningOf(result), 0);
    }

    pub fn seal(session: *Session, plaintext: []const u8, to_send: []u8) Error!Step {
        const watch: ErrorWatch = .begin(session.api);
        defer watch.end(session.api);
        session.transfer.begin(&.{}, to_send);
        if (to_send.len <= seal_expansion_max) return session.transfer.step(.needs_room, 0);
        const size = @min(
            plaintext.len,
            constants.record_plaintext_size_max,
            to_send.len - seal_expansion_max,
        );
        const result = session.api.SSL_write(session.handle, plaintext.ptr, @intCast(size));
        if (result > 0) return session.transfer.step(.done, @intCast(result));
        return session.transfer.step(try session.meaningOf(result), 0);
    }

    pub fn shutdown(session: *Session, to_send: []u8) Step {
        const watch: ErrorWatch = .beginEmpty(session.api);
        defer watch.endEmpty(session.api); // It fails before the handshake is complete.
        session.transfer.begin(&.{}, to_send);
        _ = session.api.SSL_shutdown(session.handle);
        return session.transfer.step(.closed, 0);
    }

    pub inline fn recordWaiting(session: *const Session, received: []const u8) bool {
        return session.plaintext_pending or record_layer.firstRecord(received) != null;
    }

    pub fn info(session: *const Session) types.Info {
        const api = session.api;
        const watch: ErrorWatch = .begin(api);
        defer watch.end(api);
        const cipher = api.SSL_get_current_cipher(session.handle);
        return .{
            .library = std.mem.span(api.OpenSSL_version(libssl.version_text)),
            .version = std.mem.span(api.SSL_get_version(session.handle)),
            .cipher = std.mem.span(api.SSL_CIPHER_get_name(cipher)),
            .engine = .openssl,
            .engine_reason = "",
            .aead = switch (session.product.kind) {
                .openssl, .other => "OpenSSL, in SSL_read and SSL_write",
                .libressl => "LibreSSL, in SSL_read and SSL_write",
            },
            .resumed = session.isResumed(),
        };
    }

    /// Names the peer's alert as RFC 8446 and the direct engine do, whatever this library calls it:
    /// in "sslv3 alert handshake failure", sslv3 is only the version that introduced the alert.
    fn explainAlert(session: *Session, code: c_ulong) void {
        const number = session.product.errorCode(code).alert() orelse return;
        const alert: record_layer.Alert = @fromBackingInt(number);
        const received = session.transfer.alert orelse {
            // LibreSSL names its own error after the alert that it sends.
            if (alert == .protocol_version) session.last_failure.reason = wrong_version_reason;
            return;
        };
        if (alert == received) session.last_failure.reason = alert.describe();
    }

    /// Adds what is wrong with the certificate, when that is why the handshake failed.
    fn explainCertificate(session: *Session) void {
        const api = session.api;
        if (!std.mem.eql(u8, session.last_failure.reason, "certificate verify failed")) return;
        const code = api.SSL_get_verify_result(session.handle);
        session.last_failure.verify_code = code;
        session.last_failure.verify_reason = std.mem.span(api.X509_verify_cert_error_string(code));
        session.last_failure.names = session.certificate_names;
    }

    /// What a result of zero or less means. The BIO knows whether it was empty or full, and the
    /// callback whether the peer has sent close_notify. SSL_get_error would read the thread's error
    /// queue, in which other code may have left an error: it would have to be cleared before every
    /// record. If the BIO was full, the queue has to be looked at, and must have been empty before:
    /// then an error means that what did not fit was an alert.
    fn meaningOf(session: *Session, result: c_int) Error!Step.Status {
        if (result > 0) return .done;
        if (session.transfer.starved) return .needs_received;
        const code = takeError(session.api, .newest);
        if (session.transfer.full and code == 0) return .needs_room;
        if (session.transfer.closed) return .closed;
        session.last_failure = failureOf(session.api, code);
        session.explainAlert(code);
        session.explainCertificate();
        assert(session.last_failure.happened());
        return error.TlsFailed;
    }

    /// Whether this is TLS 1.3.
    fn isCurrent(session: *const Session) bool {
        const version = std.mem.span(session.api.SSL_get_version(session.handle));
        return std.mem.eql(u8, version, "TLSv1.3");
    }

    /// Whether the call may have to be made again. In TLS 1.3 LibreSSL returns after a record
    /// without data, and after a KeyUpdate before it answers; called again, it goes on, or asks for
    /// more. In TLS 1.2 that is no more than a hint: it does not reset SSL_want after each error.
    inline fn hasPaused(session: *const Session, result: c_int) bool {
        if (result > 0 or !session.product.pausesReads()) return false;
        const transfer = &session.transfer;
        if (transfer.starved or transfer.full or transfer.closed) return false;
        return session.api.SSL_want(session.handle) != libssl.want_nothing;
    }
};

/// The slices of the call under way, which the BIO serves.
const Transfer = struct {
    api: *const libssl.Api,
    received: []const u8 = &.{},
    received_used: usize = 0,
    to_send: []u8 = &.{},
    to_send_size: usize = 0,
    /// OpenSSL wanted more ciphertext than there is.
    starved: bool = false,
    /// OpenSSL wanted to send more than there is room for.
    full: bool = false,
    /// The peer has sent close_notify. Never reset.
    closed: bool = false,
    /// The last alert that the peer has sent, close_notify excepted. Never reset.
    alert: ?record_layer.Alert = null,
    /// The last alert that OpenSSL has sent, close_notify excepted. Never reset.
    alert_sent: ?record_layer.Alert = null,

    fn begin(transfer: *Transfer, received: []const u8, to_send: []u8) void {
        transfer.received = received;
        transfer.received_used = 0;
        transfer.to_send = to_send;
        transfer.to_send_size = 0;
        transfer.starved = false;
        transfer.full = false;
    }

    fn note(transfer: *Transfer, alert: record_layer.Alert) void {
        if (alert == .close_notify) transfer.closed = true else transfer.alert = alert;
    }

    fn step(transfer: *const Transfer, status: Step.Status, plaintext_size: usize) Step {
        assert(transfer.received_used <= transfer.received.len);
        assert(transfer.to_send_size <= transfer.to_send.len);
        return .{
            .status = status,
            .received_used = transfer.received_used,
            .to_send_size = transfer.to_send_size,
            .plaintext_size = plaintext_size,
        };
    }
};

/// One method serves every connection of the process. It is never freed.
var shared_method: OnceType(*libssl.BioMethod) = .{};

fn sharedMethod(api: *const libssl.Api) error{OutOfMemory}!*libssl.BioMethod {
    return (try shared_method.getOrMake(error{OutOfMemory}, makeMethod, .{api})).*;
}

fn makeMethod(api: *const libssl.Api) error{OutOfMemory}!*libssl.BioMethod {
    const index = api.BIO_get_new_index();
    const bio_type = index | libssl.bio_type_source_sink;
    const method = api.BIO_meth_new(bio_type, "hftws") orelse return error.OutOfMemory;
    _ = api.BIO_meth_set_read(method, &bioRead);
    _ = api.BIO_meth_set_write(method, &bioWrite);
    _ = api.BIO_meth_set_ctrl(method, &bioControl);
    return method;
}

fn sessionOf(bio: *libssl.Bio) *Session {
    return @ptrCast(@alignCast(libssl.get().?.BIO_get_data(bio).?));
}

fn sessionOfHandle(handle: *const libssl.Ssl) *Session {
    return sessionOf(libssl.get().?.SSL_get_rbio(handle).?);
}

/// Called during handshakes and for alerts, not for records of data.
fn noteAlert(handle: *const libssl.Ssl, place: c_int, value: c_int) callconv(.c) void {
    if (place != libssl.info_read_alert and place != libssl.info_write_alert) return;
    const alert: record_layer.Alert = @fromBackingInt(@as(u8, @intCast(value & 0xff)));
    const transfer = &sessionOfHandle(handle).transfer; // Above it in the value: the level.
    if (place == libssl.info_read_alert) return transfer.note(alert);
    if (alert != .close_notify) transfer.alert_sent = alert;
}

/// LibreSSL calls this for handshakes and alerts, and has no other call for alerts of TLS 1.3.
/// OpenSSL would call it for every record.
fn noteMessage(
    is_sent: c_int,
    _: c_int,
    content_type: c_int,
    content: ?[*]const u8,
    size: usize,
    handle: *libssl.Ssl,
    _: ?*anyopaque,
) callconv(.c) void {
    if (is_sent != 0 or content_type != @backingInt(record_layer.ContentType.alert)) return;
    if (size != record_layer.Alert.size) return;
    sessionOfHandle(handle).transfer.note(@fromBackingInt(content.?[1]));
}

/// Called for each certificate of the server, and for what is wrong with it. Decides nothing.
fn noteNames(is_good: c_int, context: *libssl.VerifyContext) callconv(.c) c_int {
    if (is_good == 1) return is_good;
    const api = libssl.get().?;
    switch (api.X509_STORE_CTX_get_error(context)) {
        libssl.verify_hostname_mismatch, libssl.verify_address_mismatch => {},
        else => return is_good,
    }
    const certificate = api.X509_STORE_CTX_get_current_cert(context) orelse return is_good;
    const index = api.SSL_get_ex_data_X509_STORE_CTX_idx();
    const handle = api.X509_STORE_CTX_get_ex_data(context, index) orelse return is_good;
    sessionOfHandle(@ptrCast(handle)).certificate_names = .of(api, certificate);
    return is_good;
}

/// A line of the NSS key log, the only way to the secrets of TLS 1.3: "SERVER_TRAFFIC_SECRET_0",
/// the client's random, the secret, in hexadecimal.
fn noteSecret(handle: *const libssl.Ssl, line: [*:0]const u8) callconv(.c) void {
    const secrets = &sessionOfHandle(handle).secrets;
    var words = std.mem.splitScalar(u8, std.mem.span(line), ' ');
    const label = words.first();
    _ = words.next();
    const hex = words.next() orelse return;
    if (std.mem.eql(u8, label, "CLIENT_TRAFFIC_SECRET_0")) {
        secrets.client_size = decodeSecret(&secrets.client, hex);
    } else if (std.mem.eql(u8, label, "SERVER_TRAFFIC_SECRET_0")) {
        secrets.server_size = decodeSecret(&secrets.server, hex);
    }
}

fn decodeSecret(target: *key_schedule.Secret, hex: []const u8) usize {
    if (hex.len > 2 * target.len) return 0;
    const bytes = std.fmt.hexToBytes(target, hex) catch return 0;
    return bytes.len;
}

/// Returns 1 when it keeps the reference.
fn keepTicket(handle: *libssl.Ssl, ticket: *libssl.Session) callconv(.c) c_int {
    const session = sessionOfHandle(handle);
    const tickets = session.tickets orelse return 0;
    tickets.add(session.api, ticket);
    return 1;
}

fn bioRead(bio: *libssl.Bio, target: [*]u8, target_size: c_int) callconv(.c) c_int {
    const transfer = &sessionOf(bio).transfer;
    const rest = transfer.received[transfer.received_used..];
    const size = @min(rest.len, @as(usize, @intCast(@max(target_size, 0))));
    if (size == 0) {
        transfer.starved = true;
        transfer.api.BIO_set_flags(bio, libssl.bio_flag_read | libssl.bio_flag_should_retry);
        return -1;
    }
    @memcpy(target[0..size], rest[0..size]);
    transfer.received_used += size;
    transfer.api.BIO_clear_flags(bio, libssl.bio_flags_retry);
    return @intCast(size);
}

fn bioWrite(bio: *libssl.Bio, source: [*]const u8, source_size: c_int) callconv(.c) c_int {
    const transfer = &sessionOf(bio).transfer;
    const room = transfer.to_send[transfer.to_send_size..];
    const size = @min(room.len, @as(usize, @intCast(@max(source_size, 0))));
    if (size == 0) {
        transfer.full = true;
        transfer.api.BIO_set_flags(bio, libssl.bio_flag_write | libssl.bio_flag_should_retry);
        return -1;
    }
    @memcpy(room[0..size], source[0..size]);
    transfer.to_send_size += size;
    transfer.api.BIO_clear_flags(bio, libssl.bio_flags_retry);
    return @intCast(size);
}

fn bioControl(_: *libssl.Bio, command: c_int, _: c_long, _: ?*anyopaque) callconv(.c) c_long {
    return switch (command) {
        libssl.bio_control_flush => 1, // The owner sends when the call returns.
        libssl.bio_control_eof => 0, // The owner sees the end of the stream; OpenSSL need not.
        else => 0,
    };
}

/// Takes an error out of the thread's error queue, and clears it. The oldest entry is the cause of
/// the later ones; where the queue was not cleared before the call, only the newest is certainly
/// from it.
fn takeError(api: *const libssl.Api, which: enum { oldest, newest }) c_ulong {
    defer api.ERR_clear_error();
    return switch (which) {
        .oldest => api.ERR_peek_error(),
        .newest => api.ERR_peek_last_error(),
    };
}

fn failureOf(api: *const libssl.Api, code: c_ulong) Failure {
    if (api.ERR_reason_error_string(code)) |text| {
        if (text[0] != 0) return .{ .reason = std.mem.span(text) };
    }
    // The text of an errno is libc's, and static.
    if (api.errorCode(code).errno) |errno| return .{ .reason = std.mem.span(strerror(errno)) };
    return .{ .reason = "unknown cause" };
}

extern "c" fn strerror(errno: c_int) [*:0]const u8;

fn clampSize(size: usize) c_int {
    return @intCast(@min(size, std.math.maxInt(c_int)));
}
