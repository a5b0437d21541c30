//! What OpenSSL's versions do differently through the EVP calls, and what happens when they fail.

const std = @import("std");
const evp = @import("evp.zig");
const libssl = @import("../libssl.zig");
const types = @import("types.zig");
const vectors = @import("vectors.zig");

const testing = std.testing;
const tag_size = types.tag_size;

test "evp: the control calls of OpenSSL 1.1.1 and LibreSSL give the same tag" {
    const loaded = libssl.load(&.{}) catch |err| switch (err) {
        error.LibraryNotFound => return error.SkipZigTest,
        error.SymbolMissing => return err,
    };
    var api = loaded.*;
    api.EVP_CIPHER_CTX_set_params = null;
    api.EVP_CIPHER_CTX_get_params = null;
    for (vectors.all) |vector| {
        var options: types.Options = .{
            .api = &api,
            .algorithm = vector.algorithm,
            .direction = .seal,
        };
        var sealing = try evp.Aead.init(options, vector.key);
        defer sealing.deinit();
        options.direction = .open;
        var opening = try evp.Aead.init(options, vector.key);
        defer opening.deinit();
        var buffer: [256]u8 = undefined;
        const bytes = buffer[0..vector.plaintext.len];
        var tag: [tag_size]u8 = undefined;
        @memcpy(bytes, vector.plaintext);

        try testing.expect(sealing.seal(bytes, &tag, &vector.nonce, vector.additional));
        try testing.expectEqual(vector.tag, tag);
        try testing.expect(opening.open(bytes, bytes, &tag, &vector.nonce, vector.additional));
        tag[0] ^= 1;
        try testing.expect(!opening.open(bytes, bytes, &tag, &vector.nonce, vector.additional));
    }
}

test "evp: an algorithm that the library lacks is an error" {
    const loaded = libssl.load(&.{}) catch |err| switch (err) {
        error.LibraryNotFound => return error.SkipZigTest,
        error.SymbolMissing => return err,
    };
    var api = loaded.*;
    api.EVP_chacha20_poly1305 = null;
    const key: [types.key_size_max]u8 = @splat(0);
    try testing.expectError(error.Unsupported, evp.Aead.init(.{
        .api = &api,
        .algorithm = .chacha20_poly1305,
        .direction = .open,
    }, &key));
}

test "evp: the error queue is emptied after a wrong tag, and left alone otherwise" {
    const Count = struct {
        var calls: u32 = 0;
        fn clear() callconv(.c) void {
            calls += 1;
        }
    };
    const loaded = libssl.load(&.{}) catch |err| switch (err) {
        error.LibraryNotFound => return error.SkipZigTest,
        error.SymbolMissing => return err,
    };
    var api = loaded.*;
    api.ERR_clear_error = &Count.clear;
    const vector = vectors.aes_128_gcm;
    var opening = try evp.Aead.init(.{
        .api = &api,
        .algorithm = vector.algorithm,
        .direction = .open,
    }, vector.key);
    defer opening.deinit();
    var target: [vector.ciphertext.len]u8 = undefined;
    var tag = vector.tag;
    const nonce = &vector.nonce;

    Count.calls = 0;
    try testing.expect(
        opening.open(&target, vector.ciphertext, &tag, nonce, vector.additional),
    );
    try testing.expectEqual(0, Count.calls);
    tag[15] ^= 1;
    try testing.expect(
        !opening.open(&target, vector.ciphertext, &tag, nonce, vector.additional),
    );
    try testing.expectEqual(1, Count.calls);
}
