//! The functions of libssl and libcrypto that hftws calls, looked up at run time.
//!
//! Building needs no OpenSSL headers and the extension links no OpenSSL: it uses the library that
//! Python's own `_ssl` module has loaded, so that a process has one TLS library, one that its
//! distribution keeps patched; or the one that the user names. The declarations are written by hand
//! after the manual pages (https://docs.openssl.org/master/man3/); from OpenSSL 1.1.1 on they have
//! stayed the same, and LibreSSL shares them. A build with `-Dopenssl=link` links the library.
//!
//! Invariant: a process uses one TLS library, and all of its functions come from that one.

const std = @import("std");
const builtin = @import("builtin");
const build_options = @import("build_options");
const dynamic_library = @import("../dynamic_library.zig");
const OnceType = @import("../once.zig").OnceType;

pub const Product = @import("product.zig").Product;
pub const ErrorCode = @import("product.zig").ErrorCode;

const os = builtin.os.tag;

pub const Context = opaque {}; // SSL_CTX
pub const Ssl = opaque {}; // SSL
pub const Method = opaque {}; // SSL_METHOD
pub const Cipher = opaque {}; // SSL_CIPHER
pub const Session = opaque {}; // SSL_SESSION
pub const Bio = opaque {}; // BIO
pub const BioMethod = opaque {}; // BIO_METHOD
pub const VerifyParameters = opaque {}; // X509_VERIFY_PARAM
pub const VerifyContext = opaque {}; // X509_STORE_CTX
pub const Certificate = opaque {}; // X509
pub const Extension = opaque {}; // X509_EXTENSION
pub const Asn1String = opaque {}; // ASN1_STRING
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
/// Whether the certificate is good so far, and what is checked; returns whether to go on.
pub const VerifyCallback = fn (c_int, *VerifyContext) callconv(.c) c_int;
pub const BioRead = fn (*Bio, [*]u8, c_int) callconv(.c) c_int;
pub const BioWrite = fn (*Bio, [*]const u8, c_int) callconv(.c) c_int;
pub const InfoCallback = fn (*const Ssl, c_int, c_int) callconv(.c) void;
/// Whether it is sent, version, type of the content, bytes, their size, connection, argument.
pub const MessageCallback = fn (
    c_int,
    c_int,
    c_int,
    ?[*]const u8,
    usize,
    *Ssl,
    ?*anyopaque,
) callconv(.c) void;
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

/// A field for each function, named as in C, so that a call reads like the manual page. An optional
/// field is null where the library lacks the function; no other function may be missing.
pub const Api = struct {
    OpenSSL_version: *const fn (c_int) callconv(.c) [*:0]const u8,
    OpenSSL_version_num: *const fn () callconv(.c) c_ulong,

    TLS_client_method: *const fn () callconv(.c) *const Method,
    /// Without a method the result is null, and the error is in the queue.
    SSL_CTX_new: *const fn (?*const Method) callconv(.c) ?*Context,
    SSL_CTX_free: *const fn (*Context) callconv(.c) void,
    SSL_CTX_ctrl: *const fn (*Context, c_int, c_long, ?*anyopaque) callconv(.c) c_long,
    SSL_CTX_set_info_callback: *const fn (*Context, *const InfoCallback) callconv(.c) void,
    SSL_CTX_set_msg_callback: *const fn (*Context, *const MessageCallback) callconv(.c) void,
    /// LibreSSL has it, and never calls back.
    SSL_CTX_set_keylog_callback: *const fn (*Context, *const KeyLogCallback) callconv(.c) void,
    SSL_CTX_set_verify: *const fn (*Context, c_int, ?*const VerifyCallback) callconv(.c) void,
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
    /// With a reference of its own.
    SSL_get1_session: *const fn (*Ssl) callconv(.c) ?*Session,
    SSL_get_session: *const fn (*const Ssl) callconv(.c) ?*Session,
    /// A macro in LibreSSL: `sessionReused` serves both.
    SSL_session_reused: ?*const fn (*const Ssl) callconv(.c) c_int,
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
    SSL_want: *const fn (*const Ssl) callconv(.c) c_int,
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
    X509_STORE_CTX_get_error: *const fn (*VerifyContext) callconv(.c) c_int,
    X509_STORE_CTX_get_current_cert: *const fn (*VerifyContext) callconv(.c) ?*Certificate,
    X509_STORE_CTX_get_ex_data: *const fn (*VerifyContext, c_int) callconv(.c) ?*anyopaque,
    SSL_get_ex_data_X509_STORE_CTX_idx: *const fn () callconv(.c) c_int,
    X509_get_ext_by_NID: *const fn (*const Certificate, c_int, c_int) callconv(.c) c_int,
    X509_get_ext: *const fn (*const Certificate, c_int) callconv(.c) ?*Extension,
    X509_EXTENSION_get_data: *const fn (*Extension) callconv(.c) ?*Asn1String,
    ASN1_STRING_get0_data: *const fn (*const Asn1String) callconv(.c) [*]const u8,
    ASN1_STRING_length: *const fn (*const Asn1String) callconv(.c) c_int,
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
    /// From OpenSSL 3 on, as the next.
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

    pub fn sessionReused(api: *const Api, session: *Ssl) bool {
        if (api.SSL_session_reused) |function| return function(session) == 1;
        return api.SSL_ctrl(session, control_get_session_reused, 0, null) == 1;
    }

    pub fn product(api: *const Api) Product {
        return .parse(api.OpenSSL_version_num(), std.mem.span(api.OpenSSL_version(version_text)));
    }

    /// The fields of an entry of the error queue.
    pub fn errorCode(api: *const Api, code: c_ulong) ErrorCode {
        return api.product().errorCode(code);
    }
};

/// Looks, in safe builds, whether calls leave an error in the thread's queue: other code, such as
/// Python's `ssl`, would take it for one of its own. What others have left there is another matter:
/// it is cleared before calls that are not for a message, and where a call fails.
pub const ErrorWatch = struct {
    newest: c_ulong,

    pub inline fn begin(api: *const Api) ErrorWatch {
        return .{ .newest = if (std.debug.runtime_safety) api.ERR_peek_last_error() else 0 };
    }

    /// The calls may clear the queue, and add nothing to it.
    pub inline fn end(watch: ErrorWatch, api: *const Api) void {
        if (!std.debug.runtime_safety) return;
        const newest = api.ERR_peek_last_error();
        std.debug.assert(newest == 0 or newest == watch.newest);
    }

    /// Begins calls that are not for a message, with an empty queue.
    pub fn beginEmpty(api: *const Api) ErrorWatch {
        api.ERR_clear_error();
        return .begin(api);
    }

    /// Empties the queue again: some calls that succeed leave an error in it.
    pub fn endEmpty(watch: ErrorWatch, api: *const Api) void {
        api.ERR_clear_error();
        watch.end(api);
    }
};

/// Values from openssl/{ssl,bio,evp,x509_vfy}.h; part of the stable ABI.
pub const tls1_2_version = 0x0303;
pub const filetype_pem = 1;
pub const verify_none = 0;
pub const verify_peer = 1;
pub const verify_hostname_mismatch = 62; // X509_V_ERR_HOSTNAME_MISMATCH
pub const verify_address_mismatch = 64; // X509_V_ERR_IP_ADDRESS_MISMATCH
pub const host_flag_no_partial_wildcards = 0x4;
pub const host_flag_never_check_subject = 0x20;
pub const control_aead_get_tag = 0x10; // EVP_CTRL_AEAD_GET_TAG
pub const control_aead_set_tag = 0x11;
pub const control_set_mode = 33; // SSL_CTRL_MODE
pub const control_set_session_cache_mode = 44; // SSL_CTRL_SET_SESS_CACHE_MODE
pub const session_cache_client = 0x1;
pub const session_cache_no_internal = 0x300; // Neither looked up nor stored by the library.
pub const control_get_session_reused = 8; // SSL_CTRL_GET_SESSION_REUSED
pub const shutdown_sent_and_received = 3;
pub const control_set_min_proto_version = 123;
pub const control_set_tlsext_hostname = 55;
pub const name_type_host_name = 0;
pub const mode_enable_partial_write = 0x1;
pub const mode_accept_moving_write_buffer = 0x2;
pub const mode_auto_retry = 0x4;
pub const want_nothing = 1; // SSL_NOTHING
pub const info_read_alert = 0x4004; // SSL_CB_READ_ALERT
pub const info_write_alert = 0x4008; // SSL_CB_WRITE_ALERT
pub const bio_type_source_sink = 0x0400;
pub const bio_flag_read = 0x1;
pub const bio_flag_write = 0x2;
pub const bio_flag_should_retry = 0x8;
pub const bio_flags_retry = 0xf; // READ, WRITE, IO_SPECIAL, SHOULD_RETRY
pub const bio_control_eof = 2;
pub const bio_control_flush = 11;
pub const version_text = 0; // OPENSSL_VERSION

pub const LoadError = dynamic_library.LoadError;

pub const UseError = LoadError || error{
    /// Another library is in use already.
    AlreadyLoaded,
    /// The library was chosen when hftws was built.
    LinkedIn,
};

/// The library is one of the extension's dependencies.
const linked = build_options.openssl_linked;

/// The environment variable with the file to use instead of Python's own and the system's.
const file_variable = "HFTWS_LIBSSL";

/// Where to look after the files that the caller names. On macOS never by a bare name, which dyld
/// may look for in /usr/lib and in the working directory.
const system_names: []const [:0]const u8 = switch (os) {
    .linux => &.{ "libssl.so.3", "libssl.so.1.1", "libssl.so" },
    .macos => &.{
        "/opt/homebrew/opt/openssl@3/lib/libssl.3.dylib",
        "/usr/local/opt/openssl@3/lib/libssl.3.dylib",
        "/opt/local/libexec/openssl3/lib/libssl.3.dylib", // MacPorts
    },
    else => @compileError("hftws supports Linux and macOS"),
};

/// What to do where no library is found.
const advice = switch (os) {
    .linux => "Install OpenSSL: `apt install libssl3` on Debian and Ubuntu (libssl3t64 from " ++
        "Debian 13 and Ubuntu 24.04 on), `dnf install openssl-libs` on Fedora and RHEL, " ++
        "`apk add libssl3` on Alpine. Or name a libssl with " ++ file_variable ++ ".",
    else => "Install OpenSSL: `brew install openssl@3`. Or name a libssl with " ++
        file_variable ++ ".",
};

/// Whether the loader can be told to bind a library to its own functions first (RTLD_DEEPBIND).
/// On macOS it always does; musl cannot.
const can_isolate = os == .linux and builtin.abi.isGnu();

const Loaded = struct {
    api: Api,
    /// The file that has the functions of libssl, as the loader names it.
    file: [:0]const u8,
};

var loaded: OnceType(Loaded) = .{};

/// Of this thread's last `load` or `use`.
threadlocal var last_report: Report = .{};

/// What was tried, and why each failed.
const Report = struct {
    buffer: [4096]u8 = undefined,
    size: usize = 0,

    /// What does not fit is left out.
    fn print(report: *Report, comptime format: []const u8, arguments: anytype) void {
        var writer: std.Io.Writer = .fixed(report.buffer[report.size..]);
        writer.print(format, arguments) catch {}; // It keeps what did fit.
        report.size += writer.end;
    }

    fn text(report: *const Report) []const u8 {
        return report.buffer[0..report.size];
    }
};

/// The functions of the library that was loaded first. It stays loaded as long as the process.
///
/// The file that `HFTWS_LIBSSL` names is the only one to be tried; without it `files` in order, and
/// then the system's own names. Each may be a library or anything that is linked against one, such
/// as Python's `_ssl` module. On an error `failure` says why.
pub fn load(files: []const [:0]const u8) LoadError!*const Api {
    const found = try loaded.getOrMake(LoadError, find, .{files});
    return &found.api;
}

/// Loads this file and no other. Succeeds also if it is in use already.
pub fn use(named: [:0]const u8) UseError!*const Api {
    last_report = .{};
    if (linked) {
        last_report.print("this hftws was built with -Dopenssl=link, for the libssl of the " ++
            "system: {s} cannot be used in its place", .{named});
        return error.LinkedIn;
    }
    var chosen = false;
    const found = try loaded.getOrMake(LoadError, tryChosen, .{ named, &chosen });
    if (chosen or isSameFile(named, found.file)) return &found.api;
    last_report.print("{s} is in use already, and a process uses one TLS library: choose " ++
        "before the first client and the first request", .{found.file});
    return error.AlreadyLoaded;
}

fn tryChosen(named: [:0]const u8, chosen: *bool) LoadError!Loaded {
    const found = try tryFile(named, .chosen);
    chosen.* = true;
    return found;
}

/// The functions, if `load` or `use` has succeeded before.
pub fn get() ?*const Api {
    return if (loaded.get()) |found| &found.api else null;
}

/// The file of `get`'s functions, as the loader names it; null if `get` is.
pub fn file() ?[:0]const u8 {
    return if (loaded.get()) |found| found.file else null;
}

/// Why this thread's last `load` or `use` failed, as a text for users. Valid until its next one.
pub fn failure() []const u8 {
    return last_report.text();
}

// ---- Finding one. ------------------------------------------------------------------------------

fn find(files: []const [:0]const u8) LoadError!Loaded {
    last_report = .{};
    const report = &last_report;
    const named = if (std.c.getenv(file_variable)) |name| std.mem.span(name) else "";
    if (linked) {
        if (named.len == 0) return useLinked();
        report.print(file_variable ++ " names {s}, but this hftws was built with " ++
            "-Dopenssl=link, for the libssl of the system", .{named});
        return error.LibraryNotFound;
    }
    if (named.len > 0) {
        report.print(file_variable ++ ": ", .{});
        return tryFile(named, .chosen);
    }

    var last_error: LoadError = error.LibraryNotFound;
    report.print("no TLS library can be used. Tried ", .{});
    for ([_][]const [:0]const u8{ files, system_names }) |list| {
        for (list) |name| {
            if (tryFile(name, .default)) |found| return found else |err| switch (err) {
                error.LibraryNotFound => {},
                error.SymbolMissing => last_error = error.SymbolMissing,
            }
            report.print("; ", .{});
        }
    }
    report.size -= "; ".len;
    report.print(". " ++ advice, .{});
    return last_error;
}

/// On an error, adds the reason to the report.
fn tryFile(name: [:0]const u8, how: enum { chosen, default }) LoadError!Loaded {
    const report = &last_report;
    report.print("{s}: ", .{name});
    if (isApples(os, name)) {
        report.print("macOS ends a process that loads its own libssl. " ++
            "Name another by its whole path: `brew install openssl@3` brings one", .{});
        return error.LibraryNotFound;
    }
    const isolated = can_isolate and exportsOthers(null);
    const options: dynamic_library.Library.Options = .{ .own_functions_first = isolated };
    const beside: Beside = if (how == .chosen) .open(name, options) else .none;
    defer beside.close();
    const library = dynamic_library.Library.open(name, options) orelse {
        const reason = dynamic_library.lastError();
        // Most loaders put the name in front.
        const rest = std.mem.cutPrefix(u8, reason, name) orelse reason;
        report.print("{s}", .{std.mem.trimStart(u8, rest, ": ")});
        beside.explain(report);
        return error.LibraryNotFound;
    };
    errdefer library.close();
    return take(library, &beside);
}

fn take(library: dynamic_library.Library, beside: *const Beside) LoadError!Loaded {
    const report = &last_report;
    try checkProduct(library);
    var found: Loaded = undefined;
    if (library.fill(Api, &found.api)) |missing| {
        report.print("it lacks {s}", .{missing});
        return error.SymbolMissing;
    }
    found.file = dynamic_library.fileOf(found.api.SSL_new) orelse "unknown file";
    if (beside.file()) |expected| {
        const crypto = dynamic_library.fileOf(found.api.OpenSSL_version_num) orelse "unknown file";
        if (!isSameFile(expected, crypto)) {
            report.print("it would run on another libcrypto, {s}", .{crypto});
            beside.explain(report);
            return error.SymbolMissing;
        }
    }
    const may_mix = os == .linux and !can_isolate;
    if (!isOnePiece(&found.api) or (may_mix and exportsOthers(&found.api))) {
        report.print("its functions mix with those of another TLS library that this process " ++
            "exports", .{});
        return error.SymbolMissing;
    }
    return found;
}

/// Comes first: a library that is too old, or another product, lacks many functions, and its
/// version says more than the name of the first one that is missing.
fn checkProduct(library: dynamic_library.Library) LoadError!void {
    const report = &last_report;
    const VersionNumber = @typeInfo(@FieldType(Api, "OpenSSL_version_num")).pointer.child;
    const VersionText = @typeInfo(@FieldType(Api, "OpenSSL_version")).pointer.child;
    if (library.symbol(anyopaque, "SSL_new") == null) {
        report.print("it is no TLS library, and not linked against one", .{});
        return error.LibraryNotFound;
    }
    const number = library.symbol(VersionNumber, "OpenSSL_version_num");
    const text = library.symbol(VersionText, "OpenSSL_version");
    if (number == null or text == null) {
        report.print("it does not tell its version: {s} is needed", .{needed});
        return error.SymbolMissing;
    }
    return checkVersion(number.?(), std.mem.span(text.?(version_text)));
}

const needed = "OpenSSL 1.1.1 or later, or LibreSSL 3.9 or later";

fn checkVersion(number: c_ulong, text: []const u8) LoadError!void {
    const product: Product = .parse(number, text);
    if (product.isSupported()) return;
    last_report.print("{s} is {s}: {s} is needed", .{
        text,
        if (product.kind == .other) "another product" else "too old",
        needed,
    });
    return error.SymbolMissing;
}

/// Whether libssl is bound to the libcrypto whose functions are in `api`: it leaves its errors in
/// the queue of that. Two libraries that are mixed crash later, or do worse.
fn isOnePiece(api: *const Api) bool {
    api.ERR_clear_error();
    const context = api.SSL_CTX_new(null);
    defer api.ERR_clear_error();
    return context == null and api.ERR_peek_error() != 0;
}

/// Whether the program, or a preloaded library, exports functions of a TLS library that are not
/// those of `ours`, as a Python with OpenSSL linked in may do. The loader would bind the library
/// that is loaded next to as many of them as there are. Nor can they be used: some may be missing.
fn exportsOthers(ours: ?*const Api) bool {
    const default_scope = null; // RTLD_DEFAULT of Linux
    inline for (.{ "SSL_new", "BIO_new", "ERR_clear_error", "EVP_DecryptUpdate" }) |name| {
        if (std.c.dlsym(default_scope, name)) |exported| {
            const own: ?*const anyopaque = if (ours) |api| @field(api, name) else null;
            if (exported != own) return true;
        }
    }
    return false;
}

/// Apple's own libssl and libcrypto abort the process that loads them. A bare name may be theirs.
fn isApples(system: std.Target.Os.Tag, name: []const u8) bool {
    if (system != .macos) return false;
    return std.mem.startsWith(u8, name, "/usr/lib/") or std.mem.findScalar(u8, name, '/') == null;
}

/// The libcrypto that lies beside a libssl which was named by its path: they belong together. The
/// loader would take any of the same name (soname) that is loaded already, or that it finds first.
const Beside = struct {
    library: ?dynamic_library.Library,
    /// Set only if its name has the same version.
    path_buffer: [path_size_max]u8 = undefined,
    path_size: usize = 0,

    const none: Beside = .{ .library = null };
    const unversioned = if (os == .macos) ".dylib" else ".so";

    fn open(libssl_file: []const u8, options: dynamic_library.Library.Options) Beside {
        var beside: Beside = .none;
        const directory_size = std.mem.findScalarLast(u8, libssl_file, '/') orelse return beside;
        const base_name = libssl_file[directory_size + 1 ..];
        const version = std.mem.cutPrefix(u8, base_name, "libssl") orelse return beside;
        // LibreSSL numbers its libraries apart: libssl.so.60 needs libcrypto.so.57.
        for ([_][]const u8{ version, unversioned }) |ending| {
            const path = std.fmt.bufPrintSentinel(&beside.path_buffer, "{s}/libcrypto{s}", .{
                libssl_file[0..directory_size],
                ending,
            }, 0) catch return beside;
            beside.library = dynamic_library.Library.open(path, options) orelse continue;
            if (std.mem.eql(u8, ending, version)) beside.path_size = path.len;
            return beside;
        }
        return beside;
    }

    /// The libssl that needs it has its own reference.
    fn close(beside: *const Beside) void {
        if (beside.library) |library| library.close();
    }

    fn file(beside: *const Beside) ?[]const u8 {
        return if (beside.path_size == 0) null else beside.path_buffer[0..beside.path_size];
    }

    fn explain(beside: *const Beside, report: *Report) void {
        const path = beside.file() orelse return;
        const directory = path[0..std.mem.findScalarLast(u8, path, '/').?];
        report.print(". Should another libcrypto of that name be loaded, as by Python's ssl and " ++
            "hashlib: choose before they are imported, or start Python with " ++
            "LD_LIBRARY_PATH={s}, and all of it uses one", .{directory});
    }
};

const path_size_max = std.Io.Dir.max_path_bytes;

/// Whether two paths lead to one file. A bare name is only itself.
fn isSameFile(one: []const u8, other: []const u8) bool {
    if (std.mem.eql(u8, one, other)) return true;
    const paths = [_][]const u8{ one, other };
    var real: [2][path_size_max]u8 = undefined;
    var found: [2]?[*:0]u8 = undefined;
    for (paths, &real, &found) |path, *buffer, *result| {
        var path_z: [path_size_max]u8 = undefined;
        const terminated = std.fmt.bufPrintSentinel(&path_z, "{s}", .{path}, 0) catch return false;
        result.* = std.c.realpath(terminated, buffer);
    }
    const first = found[0] orelse return false;
    const second = found[1] orelse return false;
    return std.mem.eql(u8, std.mem.span(first), std.mem.span(second));
}

// ---- Linked in. --------------------------------------------------------------------------------

/// A function that the library may lack is a weak reference: null where it is missing.
fn useLinked() LoadError!Loaded {
    var api: Api = undefined;
    inline for (
        @typeInfo(Api).@"struct".field_names,
        @typeInfo(Api).@"struct".field_types,
    ) |name, Field| {
        const is_optional = @typeInfo(Field) == .optional;
        @field(api, name) = @extern(Field, .{
            .name = name,
            .linkage = if (is_optional) .weak else .strong,
        });
    }
    try checkVersion(api.OpenSSL_version_num(), std.mem.span(api.OpenSSL_version(version_text)));
    return .{
        .api = api,
        .file = dynamic_library.fileOf(api.SSL_new) orelse "linked in",
    };
}

const testing = std.testing;

test "libssl: the system's library has every function" {
    const api = load(&.{}) catch |err| switch (err) {
        error.LibraryNotFound => return error.SkipZigTest, // Python may still bring one.
        error.SymbolMissing => return err,
    };

    try testing.expect(api.product().isSupported());
    try testing.expectEqual(api, get().?);
    try testing.expectEqual(api, try load(&.{"not looked at any more"}));
    try testing.expect(std.mem.indexOf(u8, file().?, "libssl") != null);
}

test "libssl: no other library can be loaded once one is in use" {
    const api = load(&.{}) catch |err| switch (err) {
        error.LibraryNotFound => return error.SkipZigTest,
        error.SymbolMissing => return err,
    };
    if (linked) return error.SkipZigTest;
    try testing.expectEqual(api, try use(file().?));
    try testing.expectError(error.AlreadyLoaded, use("another.so"));
    try testing.expect(std.mem.indexOf(u8, failure(), file().?) != null);
    try testing.expectEqual(api, get().?);
}

test "libssl: Apple's own library is never loaded" {
    const cases = [_]struct { [:0]const u8, bool }{
        .{ "/usr/lib/libssl.dylib", true },
        .{ "/usr/lib/libssl.46.dylib", true },
        .{ "libssl.dylib", true },
        .{ "libssl.3.dylib", true },
        .{ "/opt/homebrew/opt/openssl@3/lib/libssl.3.dylib", false },
        .{ "./libssl.3.dylib", false },
        .{ "/usr/local/lib/libssl.3.dylib", false },
    };
    for (cases) |case| {
        try testing.expectEqual(case[1], isApples(.macos, case[0]));
        try testing.expect(!isApples(.linux, case[0]));
    }
    if (os == .macos) for (system_names) |name| try testing.expect(!isApples(os, name));
}

test "libssl: the report names a product that is unknown or too old" {
    const cases = [_]struct { c_ulong, [:0]const u8, []const u8 }{
        .{ 0x101000cf, "OpenSSL 1.1.0l  10 Sep 2019", "OpenSSL 1.1.0l  10 Sep 2019 is too old" },
        .{ 0x20000000, "LibreSSL 3.8.4", "LibreSSL 3.8.4 is too old" },
        .{ 0x1010107f, "BoringSSL", "BoringSSL is another product" },
    };
    for (cases) |case| {
        last_report = .{};
        try testing.expectError(error.SymbolMissing, checkVersion(case[0], case[1]));
        try testing.expect(std.mem.startsWith(u8, failure(), case[2]));
        try testing.expect(std.mem.endsWith(u8, failure(), needed ++ " is needed"));
    }
}
