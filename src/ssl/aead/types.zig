//! What the providers of AEADs and their users have in common.

const libssl = @import("../libssl.zig");

pub const key_size_max = 32;
pub const nonce_size = 12;
pub const tag_size = 16;

pub const Algorithm = enum {
    aes_128_gcm,
    aes_256_gcm,
    chacha20_poly1305,

    /// Bytes.
    pub fn keySize(algorithm: Algorithm) usize {
        return switch (algorithm) {
            .aes_128_gcm => 16,
            .aes_256_gcm, .chacha20_poly1305 => 32,
        };
    }
};

pub const Provider = enum { ipsec_mb, evp };

pub const Direction = enum { open, seal };

pub const Error = error{
    /// No provider that may be used has this algorithm on this machine.
    Unsupported,
    OutOfMemory,
};

pub const Options = struct {
    api: *const libssl.Api,
    algorithm: Algorithm,
    direction: Direction,
    /// Null: the fastest on this machine.
    provider: ?Provider = null,
};
