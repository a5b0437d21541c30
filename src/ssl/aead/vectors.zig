//! Published test vectors, for tests and to check a library before its use.
//!
//! Sources: NIST CAVP gcmEncryptExtIV; "The Galois/Counter Mode of Operation" (McGrew, Viega),
//! appendix B; RFC 8448, section 3 (a TLS 1.3 record); RFC 8439, section 2.8.2. Nonces of 12 bytes
//! only, because TLS has no other.

const std = @import("std");
const types = @import("types.zig");

pub const Vector = struct {
    algorithm: types.Algorithm,
    key: []const u8,
    nonce: [types.nonce_size]u8,
    additional: []const u8 = "",
    plaintext: []const u8 = "",
    ciphertext: []const u8 = "",
    tag: [types.tag_size]u8,
};

/// Several blocks, the last one partial, and additional data.
pub const aes_128_gcm: Vector = .{
    .algorithm = .aes_128_gcm,
    .key = &hex("feffe9928665731c6d6a8f9467308308"),
    .nonce = hex("cafebabefacedbaddecaf888"),
    .additional = &hex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
    .plaintext = gcm_plaintext[0..60],
    .ciphertext = aes_128_gcm_ciphertext[0..60],
    .tag = hex("5bc94fbc3221a5db94fae95ae7121a47"),
};
pub const aes_256_gcm: Vector = .{
    .algorithm = .aes_256_gcm,
    .key = &hex("feffe9928665731c6d6a8f9467308308" ++ "feffe9928665731c6d6a8f9467308308"),
    .nonce = hex("cafebabefacedbaddecaf888"),
    .additional = &hex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
    .plaintext = gcm_plaintext[0..60],
    .ciphertext = aes_256_gcm_ciphertext[0..60],
    .tag = hex("76fc6ece0f4e1768cddf8853bb2d551b"),
};

pub const all = [_]Vector{
    // CAVP, Keylen 128 and 256, PTlen 0, AADlen 0.
    .{
        .algorithm = .aes_128_gcm,
        .key = &hex("11754cd72aec309bf52f7687212e8957"),
        .nonce = hex("3c819d9a9bed087615030b65"),
        .tag = hex("250327c674aaf477aef2675748cf6971"),
    },
    .{
        .algorithm = .aes_256_gcm,
        .key = &hex("b52c505a37d78eda5dd34f20c22540ea1b58963cf8e5bf8ffa85f9f2492505b4"),
        .nonce = hex("516c33929df5a3284ff463d7"),
        .tag = hex("bdc1ac884d332457a1d2664f168c76f0"),
    },
    // CAVP, Keylen 128, PTlen 128, AADlen 0.
    .{
        .algorithm = .aes_128_gcm,
        .key = &hex("7fddb57453c241d03efbed3ac44e371c"),
        .nonce = hex("ee283a3fc75575e33efd4887"),
        .plaintext = &hex("d5de42b461646c255c87bd2962d3b9a2"),
        .ciphertext = &hex("2ccda4a5415cb91e135c2a0f78c9b2fd"),
        .tag = hex("b36d1df9b9d5e596f83e8b7f52971cb3"),
    },
    // McGrew and Viega: cases 1 to 4.
    .{
        .algorithm = .aes_128_gcm,
        .key = &@as([16]u8, @splat(0)),
        .nonce = @splat(0),
        .tag = hex("58e2fccefa7e3061367f1d57a4e7455a"),
    },
    .{
        .algorithm = .aes_128_gcm,
        .key = &@as([16]u8, @splat(0)),
        .nonce = @splat(0),
        .plaintext = &@as([16]u8, @splat(0)),
        .ciphertext = &hex("0388dace60b6a392f328c2b971b2fe78"),
        .tag = hex("ab6e47d42cec13bdf53a67b21257bddf"),
    },
    .{
        .algorithm = .aes_128_gcm,
        .key = aes_128_gcm.key,
        .nonce = aes_128_gcm.nonce,
        .plaintext = &gcm_plaintext,
        .ciphertext = &aes_128_gcm_ciphertext,
        .tag = hex("4d5c2af327cd64a62cf35abd2ba6fab4"),
    },
    aes_128_gcm,
    // McGrew and Viega: cases 13 to 16.
    .{
        .algorithm = .aes_256_gcm,
        .key = &@as([32]u8, @splat(0)),
        .nonce = @splat(0),
        .tag = hex("530f8afbc74536b9a963b4f1c4cb738b"),
    },
    .{
        .algorithm = .aes_256_gcm,
        .key = &@as([32]u8, @splat(0)),
        .nonce = @splat(0),
        .plaintext = &@as([16]u8, @splat(0)),
        .ciphertext = &hex("cea7403d4d606b6e074ec5d3baf39d18"),
        .tag = hex("d0d1c8a799996bf0265b98b5d48ab919"),
    },
    .{
        .algorithm = .aes_256_gcm,
        .key = aes_256_gcm.key,
        .nonce = aes_256_gcm.nonce,
        .plaintext = &gcm_plaintext,
        .ciphertext = &aes_256_gcm_ciphertext,
        .tag = hex("b094dac5d93471bdec1a502270e3cc6c"),
    },
    aes_256_gcm,
    // RFC 8448: the client's application data, its first record under that key.
    .{
        .algorithm = .aes_128_gcm,
        .key = &hex("17422dda596ed5d9acd890e3c63f5051"),
        .nonce = hex("5b78923dee08579033e523d9"),
        .additional = &hex("1703030043"),
        .plaintext = &hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" ++
            "202122232425262728292a2b2c2d2e2f3031" ++ "17"),
        .ciphertext = &hex("a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5" ++
            "b46b395bd54a9a20441e2b62974e1f5a6292a2"),
        .tag = hex("977014bd1e3deae63aeebb21694915e4"),
    },
    .{
        .algorithm = .chacha20_poly1305,
        .key = &hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"),
        .nonce = hex("070000004041424344454647"),
        .additional = &hex("50515253c0c1c2c3c4c5c6c7"),
        .plaintext = "Ladies and Gentlemen of the class of '99: If I could offer you " ++
            "only one tip for the future, sunscreen would be it.",
        .ciphertext = &hex("d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6" ++
            "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36" ++
            "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc" ++
            "3ff4def08e4b7a9de576d26586cec64b6116"),
        .tag = hex("1ae10b594f09e26a7e902ecbd0600691"),
    },
};

const gcm_plaintext = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72" ++
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255");
const aes_128_gcm_ciphertext = hex("42831ec2217774244b7221b784d0d49c" ++
    "e3aa212f2c02a4e035c17e2329aca12e" ++
    "21d514b25466931c7d8f6a5aac84aa05" ++ "1ba30b396a0aac973d58e091473f5985");
const aes_256_gcm_ciphertext = hex("522dc1f099567d07f47f37a32a84427d" ++
    "643a8cdcbfe5c0c97598a2bd2555d1aa" ++
    "8cb08e48590dbb3da7b08b1056828838" ++ "c5f61e6393ba7a0abcc9f662898015ad");

fn hex(comptime digits: []const u8) [digits.len / 2]u8 {
    @setEvalBranchQuota(100_000);
    var bytes: [digits.len / 2]u8 = undefined;
    _ = std.fmt.hexToBytes(&bytes, digits) catch unreachable; // The digits are above.
    return bytes;
}
