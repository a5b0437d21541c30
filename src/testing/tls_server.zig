//! A TLS server in memory for tests, by the libssl of the client.
//!
//! Functions of libssl that the client does not use are looked up here. The server has no socket:
//! `give` it ciphertext, `take` what it wants to send.

const std = @import("std");
const builtin = @import("builtin");
const assert = std.debug.assert;
const libssl = @import("../ssl/libssl.zig");

/// Self-signed, valid from 2020 to 2120, for feed.test, *.wild.test and 127.0.0.1.
pub const certificate =
    \\-----BEGIN CERTIFICATE-----
    \\MIIBdjCCARygAwIBAgIBATAKBggqhkjOPQQDAjAVMRMwEQYDVQQDDApoZnR3cyB0
    \\ZXN0MCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAVMRMwEQYDVQQD
    \\DApoZnR3cyB0ZXN0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEGLBZVNCt4j7f
    \\hkZtcDWsSHaOqWM1cLlSkstUl01kVT19gn6ediIU4piYA1t3ucczXX4BxeoVWHb/
    \\sB+Vo6fu6aNbMFkwHQYDVR0OBBYEFGLddZ/AHBqfw2WZu1C+vNbdZgsWMA8GA1Ud
    \\EwEB/wQFMAMBAf8wJwYDVR0RBCAwHoIJZmVlZC50ZXN0ggsqLndpbGQudGVzdIcE
    \\fwAAATAKBggqhkjOPQQDAgNIADBFAiANBwLZUT382LMky5j5zYUs+EPQCpNeCfTj
    \\SI1+Ruo8ZgIhANJkLotirXP2Fry1ebBqFh3geysJLhMBbg28jTHFi0Wl
    \\-----END CERTIFICATE-----
;

/// The key of the certificate. It is only for tests.
pub const private_key =
    \\-----BEGIN PRIVATE KEY-----
    \\MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgIQ992kdAZw+Nza/5
    \\2DZLciQHdT43cvFg1fJMnJ+0AYWhRANCAAQYsFlU0K3iPt+GRm1wNaxIdo6pYzVw
    \\uVKSy1SXTWRVPX2Cfp52IhTimJgDW3e5xzNdfgHF6hVYdv+wH5Wjp+7p
    \\-----END PRIVATE KEY-----
;

const Context = libssl.Context;
const Ssl = libssl.Ssl;
const Bio = libssl.Bio;
const Certificate = opaque {}; // X509
const PrivateKey = opaque {}; // EVP_PKEY
const Store = opaque {}; // X509_STORE

/// The functions of libssl for a server: one field each, named as in C.
const Functions = struct {
    TLS_server_method: *const fn () callconv(.c) *const libssl.Method,
    SSL_CTX_use_certificate: *const fn (*Context, *Certificate) callconv(.c) c_int,
    SSL_CTX_use_PrivateKey: *const fn (*Context, *PrivateKey) callconv(.c) c_int,
    SSL_CTX_get_cert_store: *const fn (*const Context) callconv(.c) *Store,
    SSL_CTX_set_num_tickets: *const fn (*Context, usize) callconv(.c) c_int,
    SSL_set_accept_state: *const fn (*Ssl) callconv(.c) void,
    SSL_get_error: *const fn (*const Ssl, c_int) callconv(.c) c_int,
    SSL_get_servername: *const fn (*const Ssl, c_int) callconv(.c) ?[*:0]const u8,
    SSL_get_shutdown: *const fn (*const Ssl) callconv(.c) c_int,
    SSL_key_update: *const fn (*Ssl, c_int) callconv(.c) c_int,
    SSL_renegotiate: *const fn (*Ssl) callconv(.c) c_int,
    BIO_s_mem: *const fn () callconv(.c) *const libssl.BioMethod,
    BIO_new_mem_buf: *const fn ([*]const u8, c_int) callconv(.c) ?*Bio,
    BIO_read: *const fn (*Bio, [*]u8, c_int) callconv(.c) c_int,
    BIO_write: *const fn (*Bio, [*]const u8, c_int) callconv(.c) c_int,
    BIO_ctrl: *const fn (*Bio, c_int, c_long, ?*anyopaque) callconv(.c) c_long,
    BIO_free: *const fn (*Bio) callconv(.c) c_int,
    PEM_read_bio_X509: *const fn (
        *Bio,
        ?*anyopaque,
        ?*anyopaque,
        ?*anyopaque,
    ) callconv(.c) ?*Certificate,
    PEM_read_bio_PrivateKey: *const fn (
        *Bio,
        ?*anyopaque,
        ?*anyopaque,
        ?*anyopaque,
    ) callconv(.c) ?*PrivateKey,
    X509_free: *const fn (*Certificate) callconv(.c) void,
    EVP_PKEY_free: *const fn (*PrivateKey) callconv(.c) void,
    X509_STORE_add_cert: *const fn (*Store, *Certificate) callconv(.c) c_int,
    SSL_CTX_callback_ctrl: *const fn (*Context, c_int, *const TicketKeys) callconv(.c) c_long,
    EVP_aes_128_cbc: *const fn () callconv(.c) *const libssl.EvpCipher,
    EVP_sha256: *const fn () callconv(.c) *const Digest,
    HMAC_Init_ex: *const fn (
        *Hmac,
        [*]const u8,
        c_int,
        *const Digest,
        ?*libssl.Engine,
    ) callconv(.c) c_int,
};

const Digest = opaque {}; // EVP_MD
const Hmac = opaque {}; // HMAC_CTX

/// SSL_CTX_set_tlsext_ticket_key_cb(3): connection, name of the key, IV, cipher, MAC, and whether a
/// ticket is made.
const TicketKeys = fn (
    *Ssl,
    *[16]u8,
    *[16]u8,
    *libssl.CipherContext,
    *Hmac,
    c_int,
) callconv(.c) c_int;

const control_pending = 10; // BIO_CTRL_PENDING
const control_set_ticket_keys = 72; // SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB
const control_set_max_proto_version = 124;
const tls1_3_version = 0x0304;
const key_update_not_requested = 0; // SSL_KEY_UPDATE_NOT_REQUESTED
const key_update_requested = 1;
const received_shutdown = 2; // SSL_RECEIVED_SHUTDOWN
const verify_fail_if_no_peer_cert = 2;
const error_want_read = 2; // SSL_ERROR_WANT_READ
const error_zero_return = 6;

const Library = struct { client: *const libssl.Api, server: Functions };
var loaded: ?Library = null;

pub const Error = error{ SkipZigTest, TlsServerFailed, OutOfMemory };

/// Skips the test when there is no libssl.
fn library() error{ SkipZigTest, TlsServerFailed }!*const Library {
    if (loaded) |*found| return found;
    trustNobody();
    const client = libssl.load(&.{}) catch |err| switch (err) {
        error.LibraryNotFound => return error.SkipZigTest,
        error.SymbolMissing => return error.TlsServerFailed,
    };
    var info: SymbolInfo = undefined;
    if (dladdr(client.SSL_new, &info) == 0) return error.TlsServerFailed;
    const handle = std.c.dlopen(info.file_name, .{ .NOW = true }) orelse
        return error.TlsServerFailed;
    var server: Functions = undefined;
    inline for (@typeInfo(Functions).@"struct".field_names) |name| {
        const symbol = std.c.dlsym(handle, name) orelse return error.TlsServerFailed;
        @field(server, name) = @ptrCast(@alignCast(symbol));
    }
    loaded = .{ .client = client, .server = server };
    return &loaded.?;
}

/// Makes OpenSSL find no roots of the system: they differ between machines, and parsing them for
/// each client takes most of the time of the tests.
fn trustNobody() void {
    for ([_][*:0]const u8{ "SSL_CERT_FILE", "SSL_CERT_DIR" }) |variable| {
        if (setenv(variable, "/no/such/roots", 1) != 0) @panic("out of memory");
    }
}
extern "c" fn setenv(name: [*:0]const u8, value: [*:0]const u8, overwrite: c_int) c_int;

/// dladdr(3): which file a function is from.
const SymbolInfo = extern struct {
    file_name: [*:0]const u8,
    file_base: *anyopaque,
    symbol_name: ?[*:0]const u8,
    symbol_address: ?*anyopaque,
};
extern "c" fn dladdr(address: *const anyopaque, info: *SymbolInfo) c_int;

/// The client's functions.
pub fn clientApi() error{ SkipZigTest, TlsServerFailed }!*const libssl.Api {
    return (try library()).client;
}

/// Makes a client's context trust the server's certificate.
pub fn trust(context: *libssl.Context) Error!void {
    const functions = &(try library()).server;
    const parsed = try parseCertificate(functions);
    defer functions.X509_free(parsed);
    const store = functions.SSL_CTX_get_cert_store(context);
    if (functions.X509_STORE_add_cert(store, parsed) != 1) return error.TlsServerFailed;
}

/// Leaves an error of some other code in OpenSSL's queue of this thread.
pub fn leaveError() Error!void {
    const functions = &(try library()).server;
    const bio = functions.BIO_new_mem_buf("nonsense", 8) orelse return error.OutOfMemory;
    defer _ = functions.BIO_free(bio);
    assert(functions.PEM_read_bio_X509(bio, null, null, null) == null);
}

fn parseCertificate(functions: *const Functions) Error!*Certificate {
    const bio = functions.BIO_new_mem_buf(certificate, certificate.len) orelse
        return error.OutOfMemory;
    defer _ = functions.BIO_free(bio);
    return functions.PEM_read_bio_X509(bio, null, null, null) orelse error.TlsServerFailed;
}

fn parsePrivateKey(functions: *const Functions) Error!*PrivateKey {
    const bio = functions.BIO_new_mem_buf(private_key, private_key.len) orelse
        return error.OutOfMemory;
    defer _ = functions.BIO_free(bio);
    return functions.PEM_read_bio_PrivateKey(bio, null, null, null) orelse error.TlsServerFailed;
}

/// The tickets of servers that renew them. Each ticket has a number.
pub const RenewedTickets = struct {
    /// The number of the last ticket that was made, and of the last that a client offered.
    pub var made: u8 = 0;
    pub var offered: ?u8 = null;

    fn use(
        _: *Ssl,
        name: *[16]u8,
        iv: *[16]u8,
        cipher: *libssl.CipherContext,
        hmac: *Hmac,
        makes: c_int,
    ) callconv(.c) c_int {
        const both = &loaded.?;
        const key: [16]u8 = @splat(1);
        const aes = both.server.EVP_aes_128_cbc();
        const done = 1;
        const done_renew_it = 2;
        if (makes == 1) {
            made += 1;
            name.* = @splat(0);
            iv.* = @splat(made);
            assert(both.client.EVP_EncryptInit_ex(cipher, aes, null, &key, iv) == 1);
        } else {
            offered = iv[0];
            assert(both.client.EVP_DecryptInit_ex(cipher, aes, null, &key, iv) == 1);
        }
        const sha256 = both.server.EVP_sha256();
        assert(both.server.HMAC_Init_ex(hmac, &key, key.len, sha256, null) == 1);
        return if (makes == 1) done else done_renew_it;
    }
};

pub const Server = struct {
    api: *const libssl.Api,
    functions: *const Functions,
    context: *Context,
    handle: *Ssl,
    incoming: *Bio,
    outgoing: *Bio,

    pub const Version = enum { tls1_2, tls1_3 };
    pub const Options = struct {
        version: Version = .tls1_3,
        /// How many tickets to send after a handshake of TLS 1.3.
        tickets: usize = 0,
        /// Whether the client has to send a certificate, the same one as the server's.
        asks_certificate: bool = false,
        /// Whether it renews the ticket of a session that it resumes (RFC 5077, section 3.3).
        renews_tickets: bool = false,
    };

    pub fn init(options: Options) Error!Server {
        // Under valgrind, handshakes take seconds; the tests of the extension have enough.
        if (builtin.valgrind_support) return error.SkipZigTest;
        const both = try library();
        const api = both.client;
        const functions = &both.server;
        const context = api.SSL_CTX_new(functions.TLS_server_method()) orelse
            return error.OutOfMemory;
        errdefer api.SSL_CTX_free(context);
        try setUp(api, functions, context, options);

        var server: Server = .{
            .api = api,
            .functions = functions,
            .context = context,
            .handle = undefined,
            .incoming = undefined,
            .outgoing = undefined,
        };
        try server.begin();
        return server;
    }

    fn begin(server: *Server) Error!void {
        const api = server.api;
        const functions = server.functions;
        server.handle = api.SSL_new(server.context) orelse return error.OutOfMemory;
        errdefer api.SSL_free(server.handle);
        server.incoming = api.BIO_new(functions.BIO_s_mem()) orelse return error.OutOfMemory;
        server.outgoing = api.BIO_new(functions.BIO_s_mem()) orelse return error.OutOfMemory;
        api.SSL_set_bio(server.handle, server.incoming, server.outgoing);
        functions.SSL_set_accept_state(server.handle);
    }

    /// Begins the next connection, on the same server: its tickets can be resumed.
    pub fn renew(server: *Server) Error!void {
        server.api.SSL_free(server.handle);
        try server.begin();
    }

    fn setUp(
        api: *const libssl.Api,
        functions: *const Functions,
        context: *Context,
        options: Options,
    ) Error!void {
        const own_certificate = try parseCertificate(functions);
        defer functions.X509_free(own_certificate);
        const own_key = try parsePrivateKey(functions);
        defer functions.EVP_PKEY_free(own_key);
        const used = functions.SSL_CTX_use_certificate(context, own_certificate);
        if (used != 1) return error.TlsServerFailed;
        if (functions.SSL_CTX_use_PrivateKey(context, own_key) != 1) return error.TlsServerFailed;
        const version: c_long = switch (options.version) {
            .tls1_2 => libssl.tls1_2_version,
            .tls1_3 => tls1_3_version,
        };
        for ([_]c_int{
            libssl.control_set_min_proto_version,
            control_set_max_proto_version,
        }) |control| assert(api.SSL_CTX_ctrl(context, control, version, null) == 1);
        _ = functions.SSL_CTX_set_num_tickets(context, options.tickets);
        if (options.renews_tickets) {
            const control = control_set_ticket_keys;
            assert(functions.SSL_CTX_callback_ctrl(context, control, &RenewedTickets.use) == 1);
        }
        if (!options.asks_certificate) return;
        const mode = libssl.verify_peer | verify_fail_if_no_peer_cert;
        api.SSL_CTX_set_verify(context, mode, null);
        try trust(context);
    }

    pub fn deinit(server: *Server) void {
        server.api.SSL_free(server.handle);
        server.api.SSL_CTX_free(server.context);
        server.api.ERR_clear_error();
        server.* = undefined;
    }

    /// Gives the server ciphertext from the client.
    pub fn give(server: *Server, bytes: []const u8) void {
        if (bytes.len == 0) return;
        const size = server.functions.BIO_write(server.incoming, bytes.ptr, @intCast(bytes.len));
        assert(size == bytes.len);
    }

    /// Takes all ciphertext for the client so far.
    pub fn take(server: *Server, gpa: std.mem.Allocator) error{OutOfMemory}![]u8 {
        const functions = server.functions;
        const size = functions.BIO_ctrl(server.outgoing, control_pending, 0, null);
        const bytes = try gpa.alloc(u8, @intCast(size));
        if (bytes.len == 0) return bytes;
        assert(functions.BIO_read(server.outgoing, bytes.ptr, @intCast(bytes.len)) == size);
        return bytes;
    }

    /// Continues the handshake. True when it is complete; an error when either side refuses.
    pub fn handshake(server: *Server) error{TlsServerFailed}!bool {
        return try server.meaningOf(server.api.SSL_do_handshake(server.handle)) != null;
    }

    /// Sends data, in one record for each 16 KiB.
    pub fn write(server: *Server, bytes: []const u8) error{TlsServerFailed}!void {
        const size = server.api.SSL_write(server.handle, bytes.ptr, @intCast(bytes.len));
        if (size != bytes.len) return error.TlsServerFailed;
    }

    /// Reads data from the client; null when there is no more.
    pub fn read(server: *Server, buffer: []u8) error{TlsServerFailed}!?[]u8 {
        const result = server.api.SSL_read(server.handle, buffer.ptr, @intCast(buffer.len));
        const size = try server.meaningOf(result) orelse return null;
        return buffer[0..size];
    }

    fn meaningOf(server: *Server, result: c_int) error{TlsServerFailed}!?usize {
        if (result > 0) return @intCast(result);
        const meaning = server.functions.SSL_get_error(server.handle, result);
        server.api.ERR_clear_error();
        return switch (meaning) {
            error_want_read, error_zero_return => null,
            else => error.TlsServerFailed,
        };
    }

    /// Sends a KeyUpdate with the next write (RFC 8446, section 4.6.3).
    pub fn updateKeys(server: *Server, answer: enum { requested, not_requested }) void {
        const kind: c_int = switch (answer) {
            .requested => key_update_requested,
            .not_requested => key_update_not_requested,
        };
        assert(server.functions.SSL_key_update(server.handle, kind) == 1);
        _ = server.api.SSL_do_handshake(server.handle);
    }

    /// The name that the client has asked for (SNI).
    pub fn nameAsked(server: *const Server) ?[]const u8 {
        const name = server.functions.SSL_get_servername(server.handle, libssl.name_type_host_name);
        return std.mem.span(name orelse return null);
    }

    /// Asks for a renegotiation, which only TLS 1.2 has.
    pub fn renegotiate(server: *Server) error{TlsServerFailed}!void {
        assert(server.functions.SSL_renegotiate(server.handle) == 1);
        _ = try server.handshake();
    }

    pub fn sendCloseNotify(server: *Server) void {
        _ = server.api.SSL_shutdown(server.handle);
        server.api.ERR_clear_error();
    }

    /// Whether the client's close_notify has been read.
    pub fn receivedCloseNotify(server: *const Server) bool {
        return server.functions.SSL_get_shutdown(server.handle) & received_shutdown != 0;
    }
};
