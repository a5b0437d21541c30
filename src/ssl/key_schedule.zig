//! Derives the keys of records from the secrets of a handshake.
//!
//! See RFC 8446, section 7.3, and RFC 5246, sections 5 and 6.3. The hashes and HMAC are those of
//! Zig's standard library.

const std = @import("std");
const assert = std.debug.assert;
const aead = @import("aead/types.zig");

const HmacSha256 = std.crypto.auth.hmac.sha2.HmacSha256;
const HmacSha384 = std.crypto.auth.hmac.sha2.HmacSha384;
const HkdfSha256 = std.crypto.kdf.hkdf.HkdfSha256;
const HkdfSha384 = std.crypto.kdf.hkdf.Hkdf(HmacSha384);
const hkdfExpandLabel = std.crypto.tls.hkdfExpandLabel;

pub const Version = enum { tls1_2, tls1_3 };
pub const Hash = enum { sha256, sha384 };

pub const secret_size_max = 48;
pub const master_secret_size = 48;
pub const random_size = 32;

/// A cipher suite whose records can be opened without OpenSSL.
pub const Suite = struct {
    version: Version,
    algorithm: aead.Algorithm,
    /// Of HKDF or of the pseudorandom function.
    hash: Hash,

    /// By its number in IANA's registry; null if only OpenSSL can open its records.
    pub fn of(number: u16) ?Suite {
        return switch (number) {
            0x1301 => .init(.tls1_3, .aes_128_gcm, .sha256),
            0x1302 => .init(.tls1_3, .aes_256_gcm, .sha384),
            0x1303 => .init(.tls1_3, .chacha20_poly1305, .sha256),
            // TLS_ECDHE_ECDSA_… and TLS_ECDHE_RSA_…: RFC 5289 and RFC 7905.
            0xc02b, 0xc02f => .init(.tls1_2, .aes_128_gcm, .sha256),
            0xc02c, 0xc030 => .init(.tls1_2, .aes_256_gcm, .sha384),
            0xcca9, 0xcca8 => .init(.tls1_2, .chacha20_poly1305, .sha256),
            else => null,
        };
    }

    fn init(version: Version, algorithm: aead.Algorithm, hash: Hash) Suite {
        return .{ .version = version, .algorithm = algorithm, .hash = hash };
    }

    pub fn secretSize(suite: Suite) usize {
        return switch (suite.hash) {
            .sha256 => 32,
            .sha384 => 48,
        };
    }

    /// Bytes of a nonce that the record itself carries (RFC 5288, section 3).
    pub fn explicitNonceSize(suite: Suite) usize {
        if (suite.version == .tls1_3) return 0;
        return switch (suite.algorithm) {
            .aes_128_gcm, .aes_256_gcm => 8,
            .chacha20_poly1305 => 0,
        };
    }

    fn fixedNonceSize(suite: Suite) usize {
        return aead.nonce_size - suite.explicitNonceSize();
    }
};

/// A traffic secret of TLS 1.3, as long as the hash of the suite.
pub const Secret = [secret_size_max]u8;

/// What one direction of a connection is sealed with.
pub const Keys = struct {
    key: [aead.key_size_max]u8 = @splat(0),
    /// The fixed part of the nonce, at the front.
    iv: [aead.nonce_size]u8 = @splat(0),

    pub fn wipe(keys: *Keys) void {
        std.crypto.secureZero(u8, &keys.key);
        std.crypto.secureZero(u8, &keys.iv);
    }
};

/// RFC 8446, section 7.3.
pub fn trafficKeys(suite: Suite, secret: *const Secret) Keys {
    assert(suite.version == .tls1_3);
    var keys: Keys = .{ .iv = expand(suite.hash, secret, "iv", aead.nonce_size) };
    switch (suite.algorithm) {
        .aes_128_gcm => keys.key[0..16].* = expand(suite.hash, secret, "key", 16),
        .aes_256_gcm, .chacha20_poly1305 => keys.key = expand(suite.hash, secret, "key", 32),
    }
    return keys;
}

/// The secret of the next generation of keys (RFC 8446, section 7.2).
pub fn updateSecret(suite: Suite, secret: *Secret) void {
    assert(suite.version == .tls1_3);
    switch (suite.hash) {
        .sha256 => secret[0..32].* = expand(.sha256, secret, "traffic upd", 32),
        .sha384 => secret.* = expand(.sha384, secret, "traffic upd", 48),
    }
}

fn expand(
    hash: Hash,
    secret: *const Secret,
    comptime label: []const u8,
    comptime size: usize,
) [size]u8 {
    return switch (hash) {
        .sha256 => hkdfExpandLabel(HkdfSha256, secret[0..32].*, label, "", size),
        .sha384 => hkdfExpandLabel(HkdfSha384, secret[0..48].*, label, "", size),
    };
}

pub const KeyBlock = struct {
    client: Keys = .{},
    server: Keys = .{},

    pub fn wipe(block: *KeyBlock) void {
        block.client.wipe();
        block.server.wipe();
    }
};

/// RFC 5246, section 6.3, for suites without a MAC key.
pub fn keyBlock(
    suite: Suite,
    master_secret: *const [master_secret_size]u8,
    client_random: *const [random_size]u8,
    server_random: *const [random_size]u8,
) KeyBlock {
    assert(suite.version == .tls1_2);
    var bytes: [2 * (aead.key_size_max + aead.nonce_size)]u8 = undefined;
    defer std.crypto.secureZero(u8, &bytes);
    const seed = "key expansion" ++ server_random ++ client_random;
    switch (suite.hash) {
        .sha256 => pseudorandom(HmacSha256, &bytes, master_secret, seed),
        .sha384 => pseudorandom(HmacSha384, &bytes, master_secret, seed),
    }
    const key_size = suite.algorithm.keySize();
    const iv_size = suite.fixedNonceSize();
    var block: KeyBlock = .{};
    var reader: std.Io.Reader = .fixed(&bytes);
    for ([_][]u8{
        block.client.key[0..key_size], block.server.key[0..key_size],
        block.client.iv[0..iv_size],   block.server.iv[0..iv_size],
    }) |part| reader.readSliceAll(part) catch unreachable; // Enough for the longest.
    return block;
}

/// The pseudorandom function (RFC 5246, section 5): P_hash with the label in front of the seed.
fn pseudorandom(comptime Hmac: type, target: []u8, secret: []const u8, seed: []const u8) void {
    var chain: [Hmac.mac_length]u8 = undefined; // A(i)
    var block: [Hmac.mac_length]u8 = undefined;
    defer std.crypto.secureZero(u8, &chain);
    defer std.crypto.secureZero(u8, &block);
    Hmac.create(&chain, seed, secret);
    var offset: usize = 0;
    while (offset < target.len) : (offset += block.len) {
        var mac = Hmac.init(secret);
        mac.update(&chain);
        mac.update(seed);
        mac.final(&block);
        const size = @min(block.len, target.len - offset);
        @memcpy(target[offset..][0..size], block[0..size]);
        Hmac.create(&chain, &chain, secret);
    }
}

const testing = std.testing;

fn bytesOf(comptime hex: []const u8) [hex.len / 2]u8 {
    var bytes: [hex.len / 2]u8 = undefined;
    _ = std.fmt.hexToBytes(&bytes, hex) catch unreachable;
    return bytes;
}

fn secretOf(comptime hex: []const u8) Secret {
    var secret: Secret = @splat(0);
    const bytes = bytesOf(hex);
    @memcpy(secret[0..bytes.len], &bytes);
    return secret;
}

test "key schedule: the traffic keys of RFC 8448, section 3" {
    const suite = Suite.of(0x1301).?;
    const server = secretOf("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
    const server_keys = trafficKeys(suite, &server);
    const server_key = bytesOf("9f02283b6c9c07efc26bb9f2ac92e356");
    try testing.expectEqualSlices(u8, &server_key, server_keys.key[0..16]);
    try testing.expectEqual(bytesOf("cf782b88dd83549aadf1e984"), server_keys.iv);
    const client = secretOf("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5");
    const client_keys = trafficKeys(suite, &client);
    const client_key = bytesOf("17422dda596ed5d9acd890e3c63f5051");
    try testing.expectEqualSlices(u8, &client_key, client_keys.key[0..16]);
    try testing.expectEqual(bytesOf("5b78923dee08579033e523d9"), client_keys.iv);
}

test "key schedule: the published example of the pseudorandom function with SHA-256" {
    const secret = bytesOf("9bbe436ba940f017b17652849a71db35");
    const seed = "test label" ++ bytesOf("a0ba9f936cda311827a6f796ffd5198c");
    const expected = bytesOf("e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a" ++
        "6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17abfd3797c0564bab" ++
        "4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701" ++ "87347b66");
    var target: [expected.len]u8 = undefined;
    pseudorandom(HmacSha256, &target, &secret, seed);
    try testing.expectEqualSlices(u8, &expected, &target);
}

test "key schedule: every suite that is offered is known, and no other" {
    var known: usize = 0;
    for (0..0x10000) |number| {
        const suite = Suite.of(@intCast(number)) orelse continue;
        known += 1;
        try testing.expectEqual(number < 0x2000, suite.version == .tls1_3);
        const is_gcm = suite.algorithm != .chacha20_poly1305;
        const carries_nonce = suite.version == .tls1_2 and is_gcm;
        try testing.expectEqual(carries_nonce, suite.explicitNonceSize() == 8);
        try testing.expectEqual(suite.algorithm == .aes_256_gcm, suite.hash == .sha384);
    }
    try testing.expectEqual(9, known);
}

test "key schedule: an update leaves another secret, and only as long as the hash" {
    for ([_]u16{ 0x1301, 0x1302, 0x1303 }) |number| {
        const suite = Suite.of(number).?;
        var secret: Secret = @splat(0);
        @memset(secret[0..suite.secretSize()], 7);
        const before = secret;
        updateSecret(suite, &secret);
        try testing.expect(!std.mem.eql(u8, before[0..32], secret[0..32]));
        for (secret[suite.secretSize()..]) |byte| try testing.expectEqual(0, byte);
    }
}
