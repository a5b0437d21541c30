//! The AEADs of OpenSSL or LibreSSL, through the EVP calls.
//!
//! They have every algorithm, on every machine. A context is keyed once and given a nonce for each
//! record. OpenSSL 3 takes and gives the tag as a parameter, which saves a tenth of a small record
//! against the control call that it translates into one; 1.1.1 and LibreSSL have only the control
//! call. EVP_Cipher would save 45 ns of 640 on a small ChaCha20 record and nothing with AES-GCM,
//! and its manual page advises against it.

const std = @import("std");
const assert = std.debug.assert;
const types = @import("types.zig");
const libssl = @import("../libssl.zig");

const Error = types.Error;
const nonce_size = types.nonce_size;
const tag_size = types.tag_size;

/// One key in one direction. See `aead.Aead` for the contract of each function.
pub const Aead = struct {
    api: *const libssl.Api,
    context: *libssl.CipherContext,
    direction: types.Direction,

    pub fn init(options: types.Options, key: []const u8) Error!Aead {
        const api = options.api;
        const watch: libssl.ErrorWatch = .beginEmpty(api);
        defer watch.endEmpty(api);
        const cipher = switch (options.algorithm) {
            .aes_128_gcm => api.EVP_aes_128_gcm(),
            .aes_256_gcm => api.EVP_aes_256_gcm(),
            .chacha20_poly1305 => chacha20_poly1305: {
                const function = api.EVP_chacha20_poly1305 orelse return error.Unsupported;
                break :chacha20_poly1305 function();
            },
        };
        const context = api.EVP_CIPHER_CTX_new() orelse return error.OutOfMemory;
        errdefer api.EVP_CIPHER_CTX_free(context);
        var result: Aead = .{ .api = api, .context = context, .direction = options.direction };
        try result.start(cipher, key);
        return result;
    }

    pub fn rekey(provider: *Aead, key: []const u8) Error!void {
        try provider.start(null, key);
    }

    /// Nonces have 12 bytes unless another size is asked for, in all three algorithms.
    fn start(provider: *Aead, cipher: ?*const libssl.EvpCipher, key: []const u8) Error!void {
        const initialise = switch (provider.direction) {
            .open => provider.api.EVP_DecryptInit_ex,
            .seal => provider.api.EVP_EncryptInit_ex,
        };
        const watch: libssl.ErrorWatch = .begin(provider.api);
        defer watch.end(provider.api);
        if (initialise(provider.context, cipher, null, key.ptr, null) == 1) return;
        provider.api.ERR_clear_error();
        return error.Unsupported; // Such as ChaCha20-Poly1305 where only FIPS ciphers are allowed.
    }

    pub fn deinit(provider: *Aead) void {
        provider.api.EVP_CIPHER_CTX_free(provider.context); // Wipes the key schedule.
        provider.* = undefined;
    }

    pub fn open(
        provider: *Aead,
        plaintext: []u8,
        ciphertext: []const u8,
        tag: *const [tag_size]u8,
        nonce: *const [nonce_size]u8,
        additional: []const u8,
    ) bool {
        assert(provider.direction == .open);
        assert(plaintext.len == ciphertext.len);
        const api = provider.api;
        const watch: libssl.ErrorWatch = .begin(api);
        defer watch.end(api);
        const context = provider.context;
        const size: c_int = @intCast(ciphertext.len);
        var written: c_int = 0;
        var rest: [tag_size]u8 = undefined; // Stays unused: a counter mode leaves no rest.
        const opened = api.EVP_DecryptInit_ex(context, null, null, null, nonce) == 1 and
            api.EVP_DecryptUpdate(
                context,
                null,
                &written,
                additional.ptr,
                @intCast(additional.len),
            ) == 1 and
            api.EVP_DecryptUpdate(context, plaintext.ptr, &written, ciphertext.ptr, size) == 1 and
            expectTag(api, context, tag) and
            api.EVP_DecryptFinal_ex(context, &rest, &written) == 1;
        if (!opened) {
            @branchHint(.unlikely);
            std.crypto.secureZero(u8, plaintext);
            api.ERR_clear_error(); // Other code would take the error for one of its own.
        }
        return opened;
    }

    pub fn seal(
        provider: *Aead,
        bytes: []u8,
        tag: *[tag_size]u8,
        nonce: *const [nonce_size]u8,
        additional: []const u8,
    ) bool {
        assert(provider.direction == .seal);
        const api = provider.api;
        const watch: libssl.ErrorWatch = .begin(api);
        defer watch.end(api);
        const context = provider.context;
        const size: c_int = @intCast(bytes.len);
        var written: c_int = 0;
        var rest: [tag_size]u8 = undefined;
        const sealed = api.EVP_EncryptInit_ex(context, null, null, null, nonce) == 1 and
            api.EVP_EncryptUpdate(
                context,
                null,
                &written,
                additional.ptr,
                @intCast(additional.len),
            ) == 1 and
            api.EVP_EncryptUpdate(context, bytes.ptr, &written, bytes.ptr, size) == 1 and
            api.EVP_EncryptFinal_ex(context, &rest, &written) == 1 and
            takeTag(api, context, tag);
        if (!sealed) {
            @branchHint(.unlikely);
            api.ERR_clear_error();
        }
        return sealed;
    }

    pub fn description(provider: *const Aead) [:0]const u8 {
        return switch (provider.api.product().kind) {
            .openssl, .other => "OpenSSL EVP",
            .libressl => "LibreSSL EVP",
        };
    }
};

inline fn expectTag(
    api: *const libssl.Api,
    context: *libssl.CipherContext,
    tag: *const [tag_size]u8,
) bool {
    // The library only reads it: the parameter has one type for setting and getting.
    const bytes: *[tag_size]u8 = @constCast(tag);
    if (api.EVP_CIPHER_CTX_set_params) |set_params| {
        const parameters = tagParameters(bytes);
        return set_params(context, &parameters) == 1;
    }
    const control = libssl.control_aead_set_tag;
    return api.EVP_CIPHER_CTX_ctrl(context, control, tag_size, bytes) == 1;
}

inline fn takeTag(
    api: *const libssl.Api,
    context: *libssl.CipherContext,
    tag: *[tag_size]u8,
) bool {
    if (api.EVP_CIPHER_CTX_get_params) |get_params| {
        var parameters = tagParameters(tag);
        return get_params(context, &parameters) == 1;
    }
    const control = libssl.control_aead_get_tag;
    return api.EVP_CIPHER_CTX_ctrl(context, control, tag_size, tag) == 1;
}

inline fn tagParameters(tag: *[tag_size]u8) [2]libssl.Parameter {
    return .{ .octetString("tag", tag), .end };
}
