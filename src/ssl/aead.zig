//! Authenticated encryption of TLS records, behind one interface.
//!
//! An `Aead` has one key, for one direction. No cryptography is written here. libipsec-mb opens a
//! small AES-GCM record in a seventh of the time of OpenSSL's EVP calls; EVP is everywhere and has
//! every algorithm. The provider is chosen by a branch that always goes the same way, which costs
//! nothing next to the record.
//!
//! Invariant: bytes whose tag is wrong are wiped before `open` returns.

const std = @import("std");
const assert = std.debug.assert;
const evp = @import("aead/evp.zig");
const ipsec_mb = @import("aead/ipsec_mb.zig");
const types = @import("aead/types.zig");

pub const Algorithm = types.Algorithm;
pub const Direction = types.Direction;
pub const Error = types.Error;
pub const Options = types.Options;
pub const Provider = types.Provider;
pub const key_size_max = types.key_size_max;
pub const nonce_size = types.nonce_size;
pub const tag_size = types.tag_size;

/// One key in one direction. It may be moved, not copied.
pub const Aead = union(Provider) {
    ipsec_mb: ipsec_mb.Aead,
    evp: evp.Aead,

    /// The only place that allocates. `key` is read, not kept.
    pub fn init(options: Options, key: []const u8) Error!Aead {
        assert(key.len == options.algorithm.keySize());
        const provider = options.provider orelse fastest: {
            const available = ipsec_mb.available(options.algorithm);
            break :fastest if (available) Provider.ipsec_mb else Provider.evp;
        };
        return switch (provider) {
            .ipsec_mb => .{ .ipsec_mb = try .init(options, key) },
            .evp => .{ .evp = try .init(options, key) },
        };
    }

    /// Replaces the key (KeyUpdate). Allocates nothing.
    pub fn rekey(aead: *Aead, key: []const u8) Error!void {
        switch (aead.*) {
            .ipsec_mb => |*provider| provider.rekey(key),
            .evp => |*provider| try provider.rekey(key),
        }
    }

    /// Wipes the key schedule and frees it.
    pub fn deinit(aead: *Aead) void {
        switch (aead.*) {
            inline else => |*provider| provider.deinit(),
        }
        aead.* = undefined;
    }

    /// Opens `ciphertext`, without its tag, into the front of `plaintext`: the same place, or one
    /// that does not overlap. Nothing behind `ciphertext.len` bytes is written. False: the tag is
    /// wrong, and what was written is wiped.
    pub inline fn open(
        aead: *Aead,
        plaintext: []u8,
        ciphertext: []const u8,
        tag: *const [tag_size]u8,
        nonce: *const [nonce_size]u8,
        additional: []const u8,
    ) bool {
        assert(plaintext.len >= ciphertext.len);
        const target = plaintext[0..ciphertext.len];
        return switch (aead.*) {
            inline else => |*provider| provider.open(target, ciphertext, tag, nonce, additional),
        };
    }

    /// Seals `bytes` in place and writes the tag, which may lie right behind them. False: the
    /// provider failed, and neither `bytes` nor `tag` may be used.
    pub inline fn seal(
        aead: *Aead,
        bytes: []u8,
        tag: *[tag_size]u8,
        nonce: *const [nonce_size]u8,
        additional: []const u8,
    ) bool {
        return switch (aead.*) {
            inline else => |*provider| provider.seal(bytes, tag, nonce, additional),
        };
    }

    /// For users: "libipsec-mb 1.3.0, AVX-512 VAES", "OpenSSL EVP", "LibreSSL EVP".
    pub fn description(aead: *const Aead) [:0]const u8 {
        return switch (aead.*) {
            inline else => |*provider| provider.description(),
        };
    }
};
