//! The functions of libssl and libcrypto that hftws calls, looked up when the program runs.
//!
//! Building needs no OpenSSL headers and the extension links no OpenSSL: it uses the library that
//! Python's own `_ssl` module has loaded, so that a process has one TLS library, one that its
//! distribution keeps patched. The declarations are written by hand after the manual pages
//! (https://docs.openssl.org/master/man3/); from OpenSSL 1.1.1 on they have stayed the same, and
//! LibreSSL shares them.

const std = @import("std");
const dynamic_library = @import("../dynamic_library.zig");

pub const Context = opaque {}; // SSL_CTX
pub const Ssl = opaque {}; // SSL
pub const Method = opaque {}; // SSL_METHOD
pub const Cipher = opaque {}; // SSL_CIPHER
pub const Session = opaque {}; // SSL_SESSION
pub const Bio = opaque {}; // BIO
pub const BioMethod = opaque {}; // BIO_METHOD
pub const VerifyParameters = opaque {}; // X509_VERIFY_PARAM
pub const CipherContext = opaque {}; // EVP_CIPHER_CTX
pub const EvpCipher = opaque {}; // EVP_CIPHER
pub const Engine = opaque {}; // ENGINE

/// OSSL_PARAM(3), OpenSSL 3. An array of them ends with `end`.
pub const Parameter = extern struct {
    key: ?[*:0]const u8,
    data_type: c_uint,
    data: ?*anyopaque,
    data_size: usize,
    return_size: usize,

    pub const end: Parameter = .{
        .key = null,
        .data_type = 0,
        .data = null,
        .data_size = 0,
        .return_size = 0,
    };

    pub fn octetString(key: [*:0]const u8, bytes: []u8) Parameter {
        return .{
            .key = key,
            .data_type = 5, // OSSL_PARAM_OCTET_STRING
            .data = bytes.ptr,
            .data_size = bytes.len,
            .return_size = std.math.maxInt(usize), // OSSL_PARAM_UNMODIFIED
        };
    }
};

pub const PasswordCallback = fn ([*]u8, c_int, c_int, ?*anyopaque) callconv(.c) c_int;
pub const BioRead = fn (*Bio, [*]u8, c_int) callconv(.c) c_int;
pub const BioWrite = fn (*Bio, [*]const u8, c_int) callconv(.c) c_int;
pub const InfoCallback = fn (*const Ssl, c_int, c_int) callconv(.c) void;
pub const KeyLogCallback = fn (*const Ssl, [*:0]const u8) callconv(.c) void;
pub const NewSessionCallback = fn (*Ssl, *Session) callconv(.c) c_int;
pub const BioControl = fn (*Bio, c_int, c_long, ?*anyopaque) callconv(.c) c_long;

/// Cipher, engine, key, nonce: each may be null, and then stays as it is.
pub const CipherInit = fn (
    *CipherContext,
    ?*const EvpCipher,
    ?*Engine,
    ?[*]const u8,
    ?[*]const u8,
) callconv(.c) c_int;
/// Output (null: the input is additional data), bytes written, input, its size.
pub const CipherUpdate = fn (
    *CipherContext,
    ?[*]u8,
    *c_int,
    [*]const u8,
    c_int,
) callconv(.c) c_int;
pub const CipherFinal = fn (*CipherContext, [*]u8, *c_int) callconv(.c) c_int;

/// One field a function, named as in C, so that a call reads like the manual page. An optional
/// field is null where the library lacks the function; it lacks no other.
pub const Api = struct {
    OpenSSL_version: *const fn (c_int) callconv(.c) [*:0]const u8,
    OpenSSL_version_num: *const fn () callconv(.c) c_ulong,

    TLS_client_method: *const fn () callconv(.c) *const Method,
    SSL_CTX_new: *const fn (*const Method) callconv(.c) ?*Context,
    SSL_CTX_free: *const fn (*Context) callconv(.c) void,
    SSL_CTX_ctrl: *const fn (*Context, c_int, c_long, ?*anyopaque) callconv(.c) c_long,
    SSL_CTX_set_info_callback: *const fn (*Context, *const InfoCallback) callconv(.c) void,
    /// LibreSSL has it, and never calls back.
    SSL_CTX_set_keylog_callback: *const fn (*Context, *const KeyLogCallback) callconv(.c) void,
    SSL_CTX_set_verify: *const fn (*Context, c_int, ?*const anyopaque) callconv(.c) void,
    SSL_CTX_set_default_verify_paths: *const fn (*Context) callconv(.c) c_int,
    SSL_CTX_load_verify_locations: *const fn (
        *Context,
        ?[*:0]const u8,
        ?[*:0]const u8,
    ) callconv(.c) c_int,
    SSL_CTX_use_certificate_chain_file: *const fn (*Context, [*:0]const u8) callconv(.c) c_int,
    SSL_CTX_use_PrivateKey_file: *const fn (*Context, [*:0]const u8, c_int) callconv(.c) c_int,
    SSL_CTX_set_default_passwd_cb: *const fn (
        *Context,
        *const PasswordCallback,
    ) callconv(.c) void,
    SSL_CTX_check_private_key: *const fn (*const Context) callconv(.c) c_int,
    SSL_CTX_set_cipher_list: *const fn (*Context, [*:0]const u8) callconv(.c) c_int,
    SSL_CTX_set_ciphersuites: *const fn (*Context, [*:0]const u8) callconv(.c) c_int,

    SSL_new: *const fn (*Context) callconv(.c) ?*Ssl,
    SSL_free: *const fn (*Ssl) callconv(.c) void,
    SSL_ctrl: *const fn (*Ssl, c_int, c_long, ?*anyopaque) callconv(.c) c_long,
    SSL_set_bio: *const fn (*Ssl, *Bio, *Bio) callconv(.c) void,
    SSL_CTX_sess_set_new_cb: *const fn (*Context, *const NewSessionCallback) callconv(.c) void,
    SSL_set_session: *const fn (*Ssl, *Session) callconv(.c) c_int,
    SSL_get_session: *const fn (*const Ssl) callconv(.c) ?*Session,
    SSL_session_reused: *const fn (*const Ssl) callconv(.c) c_int,
    SSL_set_shutdown: *const fn (*Ssl, c_int) callconv(.c) void,
    SSL_SESSION_free: *const fn (*Session) callconv(.c) void,
    SSL_SESSION_get_protocol_version: *const fn (*const Session) callconv(.c) c_int,
    SSL_SESSION_get_master_key: *const fn (*const Session, [*]u8, usize) callconv(.c) usize,
    SSL_get_client_random: *const fn (*const Ssl, [*]u8, usize) callconv(.c) usize,
    SSL_get_server_random: *const fn (*const Ssl, [*]u8, usize) callconv(.c) usize,
    SSL_get_rbio: *const fn (*const Ssl) callconv(.c) ?*Bio,
    SSL_set_connect_state: *const fn (*Ssl) callconv(.c) void,
    SSL_do_handshake: *const fn (*Ssl) callconv(.c) c_int,
    SSL_read: *const fn (*Ssl, [*]u8, c_int) callconv(.c) c_int,
    SSL_write: *const fn (*Ssl, [*]const u8, c_int) callconv(.c) c_int,
    SSL_pending: *const fn (*const Ssl) callconv(.c) c_int,
    SSL_shutdown: *const fn (*Ssl) callconv(.c) c_int,
    SSL_get_version: *const fn (*const Ssl) callconv(.c) [*:0]const u8,
    SSL_get_current_cipher: *const fn (*const Ssl) callconv(.c) ?*const Cipher,
    SSL_CIPHER_get_name: *const fn (?*const Cipher) callconv(.c) [*:0]const u8,
    SSL_CIPHER_get_id: *const fn (*const Cipher) callconv(.c) u32,
    SSL_get_verify_result: *const fn (*const Ssl) callconv(.c) c_long,
    SSL_get0_param: *const fn (*Ssl) callconv(.c) *VerifyParameters,
    X509_VERIFY_PARAM_set_hostflags: *const fn (*VerifyParameters, c_uint) callconv(.c) void,
    X509_VERIFY_PARAM_set1_host: *const fn (
        *VerifyParameters,
        [*]const u8,
        usize,
    ) callconv(.c) c_int,
    X509_VERIFY_PARAM_set1_ip_asc: *const fn (
        *VerifyParameters,
        [*:0]const u8,
    ) callconv(.c) c_int,
    X509_verify_cert_error_string: *const fn (c_long) callconv(.c) [*:0]const u8,
    X509_get_default_cert_dir: *const fn () callconv(.c) [*:0]const u8,
    X509_get_default_cert_dir_env: *const fn () callconv(.c) [*:0]const u8,
    X509_get_default_cert_file: *const fn () callconv(.c) [*:0]const u8,
    X509_get_default_cert_file_env: *const fn () callconv(.c) [*:0]const u8,

    BIO_get_new_index: *const fn () callconv(.c) c_int,
    BIO_meth_new: *const fn (c_int, [*:0]const u8) callconv(.c) ?*BioMethod,
    BIO_meth_set_read: *const fn (*BioMethod, *const BioRead) callconv(.c) c_int,
    BIO_meth_set_write: *const fn (*BioMethod, *const BioWrite) callconv(.c) c_int,
    BIO_meth_set_ctrl: *const fn (*BioMethod, *const BioControl) callconv(.c) c_int,
    BIO_new: *const fn (*const BioMethod) callconv(.c) ?*Bio,
    BIO_set_data: *const fn (*Bio, ?*anyopaque) callconv(.c) void,
    BIO_get_data: *const fn (*Bio) callconv(.c) ?*anyopaque,
    BIO_set_init: *const fn (*Bio, c_int) callconv(.c) void,
    BIO_set_flags: *const fn (*Bio, c_int) callconv(.c) void,
    BIO_clear_flags: *const fn (*Bio, c_int) callconv(.c) void,

    EVP_aes_128_gcm: *const fn () callconv(.c) *const EvpCipher,
    EVP_aes_256_gcm: *const fn () callconv(.c) *const EvpCipher,
    /// Absent from LibreSSL before 3.7, and where OpenSSL was built without ChaCha20.
    EVP_chacha20_poly1305: ?*const fn () callconv(.c) *const EvpCipher,
    EVP_CIPHER_CTX_new: *const fn () callconv(.c) ?*CipherContext,
    EVP_CIPHER_CTX_free: *const fn (*CipherContext) callconv(.c) void,
    EVP_CIPHER_CTX_ctrl: *const fn (*CipherContext, c_int, c_int, ?*anyopaque) callconv(.c) c_int,
    /// OpenSSL 3; so is the next.
    EVP_CIPHER_CTX_set_params: ?*const fn (
        *CipherContext,
        [*]const Parameter,
    ) callconv(.c) c_int,
    EVP_CIPHER_CTX_get_params: ?*const fn (*CipherContext, [*]Parameter) callconv(.c) c_int,
    EVP_DecryptInit_ex: *const CipherInit,
    EVP_DecryptUpdate: *const CipherUpdate,
    EVP_DecryptFinal_ex: *const CipherFinal,
    EVP_EncryptInit_ex: *const CipherInit,
    EVP_EncryptUpdate: *const CipherUpdate,
    EVP_EncryptFinal_ex: *const CipherFinal,

    ERR_clear_error: *const fn () callconv(.c) void,
    ERR_peek_error: *const fn () callconv(.c) c_ulong,
    ERR_peek_last_error: *const fn () callconv(.c) c_ulong,
    ERR_reason_error_string: *const fn (c_ulong) callconv(.c) ?[*:0]const u8,
};

/// Values from openssl/{ssl,bio,evp,x509_vfy}.h; part of the stable ABI.
pub const tls1_2_version = 0x0303;
pub const filetype_pem = 1;
pub const verify_none = 0;
pub const verify_peer = 1;
pub const host_flag_no_partial_wildcards = 0x4;
pub const host_flag_never_check_subject = 0x20;
pub const control_aead_get_tag = 0x10; // EVP_CTRL_AEAD_GET_TAG
pub const control_aead_set_tag = 0x11;
pub const control_set_mode = 33; // SSL_CTRL_MODE
pub const control_set_session_cache_mode = 44; // SSL_CTRL_SET_SESS_CACHE_MODE
pub const session_cache_client = 0x1;
pub const session_cache_no_internal = 0x300; // Neither looked up nor stored by the library.
pub const shutdown_sent_and_received = 3;
pub const control_set_min_proto_version = 123;
pub const control_set_tlsext_hostname = 55;
pub const name_type_host_name = 0;
pub const mode_enable_partial_write = 0x1;
pub const mode_accept_moving_write_buffer = 0x2;
pub const info_read_alert = 0x4004; // SSL_CB_READ_ALERT
pub const alert_reason_offset = 1000; // SSL_AD_REASON_OFFSET
/// Of an error's code. In every version there is room for the reasons of alerts.
pub const error_reason_mask = 0xfff;
/// ERR_SYSTEM_FLAG, OpenSSL 3.
pub const error_system_flag = 0x8000_0000;
pub const bio_type_source_sink = 0x0400;
pub const bio_flag_read = 0x1;
pub const bio_flag_write = 0x2;
pub const bio_flag_should_retry = 0x8;
pub const bio_flags_retry = 0xf; // READ, WRITE, IO_SPECIAL, SHOULD_RETRY
pub const bio_control_eof = 2;
pub const bio_control_flush = 11;
pub const version_text = 0; // OPENSSL_VERSION

pub const LoadError = dynamic_library.LoadError;

/// Where to look after the files that the caller names.
const system_names: []const [:0]const u8 = switch (@import("builtin").os.tag) {
    .linux => &.{ "libssl.so.3", "libssl.so.1.1", "libssl.so" },
    .macos => &.{
        "/opt/homebrew/opt/openssl@3/lib/libssl.3.dylib",
        "/usr/local/opt/openssl@3/lib/libssl.3.dylib",
        "libssl.3.dylib",
    },
    else => @compileError("hftws supports Linux and macOS"),
};

var loaded: ?Api = null;

/// The functions of the library that was loaded first. It stays loaded as long as the process.
/// `files` are tried in order, before the system's own names; each may be a library or anything
/// that is linked against one, such as Python's `_ssl` module.
pub fn load(files: []const [:0]const u8) LoadError!*const Api {
    if (loaded == null) loaded = try dynamic_library.loadFirst(Api, &.{ files, system_names });
    return &loaded.?;
}

/// The functions, if `load` has succeeded before.
pub fn get() ?*const Api {
    return if (loaded) |*api| api else null;
}

test "libssl: the system's library has every function" {
    const api = load(&.{}) catch |err| switch (err) {
        error.LibraryNotFound => return error.SkipZigTest, // Python may still bring one.
        error.SymbolMissing => return err,
    };

    try std.testing.expect(api.OpenSSL_version_num() >= 0x10101000);
    try std.testing.expectEqual(api, get().?);
}
