//! Every provider of AEADs, each against published vectors and against the others.

const std = @import("std");
const aead = @import("aead.zig");
const ipsec_mb = @import("aead/ipsec_mb.zig");
const libssl = @import("libssl.zig");
const vectors = @import("aead/vectors.zig");

const testing = std.testing;
const Aead = aead.Aead;
const Algorithm = aead.Algorithm;
const Provider = aead.Provider;
const key_size_max = aead.key_size_max;
const nonce_size = aead.nonce_size;
const tag_size = aead.tag_size;

/// Every provider, and every variant of libipsec-mb: null is EVP.
const candidates = [_]?ipsec_mb.Variant{ null, .vaes_avx512, .avx512, .avx_gen4, .avx_gen2, .sse };

/// Null: not on this machine.
fn initCandidate(variant: ?ipsec_mb.Variant, options: aead.Options, key: []const u8) !?Aead {
    const provider = if (variant) |named|
        ipsec_mb.Aead.initVariant(named, options, key)
    else
        return Aead.init(options, key) catch |err| switch (err) {
            error.Unsupported => null,
            error.OutOfMemory => err,
        };
    return .{ .ipsec_mb = provider catch |err| switch (err) {
        error.Unsupported => return null,
        error.OutOfMemory => return err,
    } };
}

fn testApi() !*const libssl.Api {
    return libssl.load(&.{}) catch |err| switch (err) {
        error.LibraryNotFound => error.SkipZigTest,
        error.SymbolMissing => err,
    };
}

/// Both directions of one candidate.
const Pair = struct {
    sealing: Aead,
    opening: Aead,

    fn init(
        api: *const libssl.Api,
        variant: ?ipsec_mb.Variant,
        algorithm: Algorithm,
        key: []const u8,
    ) !?Pair {
        var options: aead.Options = .{
            .api = api,
            .algorithm = algorithm,
            .direction = .seal,
            .provider = .evp,
        };
        const sealing = try initCandidate(variant, options, key) orelse return null;
        options.direction = .open;
        const opening = try initCandidate(variant, options, key) orelse return null;
        return .{ .sealing = sealing, .opening = opening };
    }

    fn deinit(pair: *Pair) void {
        pair.sealing.deinit();
        pair.opening.deinit();
    }
};

test "aead: every provider answers the published vectors" {
    const api = try testApi();
    for (candidates) |candidate| {
        for (vectors.all) |vector| {
            var pair = try Pair.init(api, candidate, vector.algorithm, vector.key) orelse continue;
            defer pair.deinit();
            var buffer: [256]u8 = undefined;
            const bytes = buffer[0..vector.plaintext.len];
            const nonce = &vector.nonce;
            var tag: [tag_size]u8 = undefined;
            @memcpy(bytes, vector.plaintext);

            try testing.expect(pair.sealing.seal(bytes, &tag, nonce, vector.additional));
            try testing.expectEqualSlices(u8, vector.ciphertext, bytes);
            try testing.expectEqual(vector.tag, tag);
            try testing.expect(pair.opening.open(bytes, bytes, &tag, nonce, vector.additional));
            try testing.expectEqualSlices(u8, vector.plaintext, bytes);
        }
    }
}

/// More room than the largest record, and bytes on both sides that must not change.
const Guarded = struct {
    const margin = 64;
    const size_max = 16_640;
    memory: [margin + size_max + margin]u8 = @splat(0xa5),

    fn bytes(guarded: *Guarded, size: usize) []u8 {
        return guarded.memory[margin..][0..size];
    }

    fn expectUntouched(guarded: *const Guarded, size: usize) !void {
        for ([_][]const u8{
            guarded.memory[0..margin],
            guarded.memory[margin + size ..][0..margin],
        }) |guard| try testing.expect(std.mem.allEqual(u8, guard, 0xa5));
    }

    fn restore(guarded: *Guarded, size: usize) void {
        @memset(guarded.memory[margin..][0 .. size + margin], 0xa5);
    }
};

/// One record of this size by the candidate, against the same by EVP.
fn compare(
    reference: *Pair,
    pair: *Pair,
    guarded: *Guarded,
    size: usize,
    random: std.Random,
) !void {
    var plaintext: [Guarded.size_max]u8 = undefined;
    var expected: [Guarded.size_max]u8 = undefined;
    var nonce: [nonce_size]u8 = undefined;
    var additional_buffer: [13]u8 = undefined;
    var expected_tag: [tag_size]u8 = undefined;
    random.bytes(plaintext[0..size]);
    random.bytes(&nonce);
    random.bytes(&additional_buffer);
    const additional = additional_buffer[0..if (random.boolean()) 5 else 13];
    @memcpy(expected[0..size], plaintext[0..size]);
    const ciphertext = expected[0..size];
    try testing.expect(reference.sealing.seal(ciphertext, &expected_tag, &nonce, additional));

    // With the tag right behind the record, as in a send ring.
    const whole = guarded.bytes(size + tag_size);
    const tag = whole[size..][0..tag_size];
    @memcpy(whole[0..size], plaintext[0..size]);
    try testing.expect(pair.sealing.seal(whole[0..size], tag, &nonce, additional));
    try testing.expectEqualSlices(u8, ciphertext, whole[0..size]);
    try testing.expectEqual(expected_tag, tag.*);
    try guarded.expectUntouched(size + tag_size);

    try testing.expect(pair.opening.open(whole[0..size], whole[0..size], tag, &nonce, additional));
    try testing.expectEqualSlices(u8, plaintext[0..size], whole[0..size]);
    try guarded.expectUntouched(size + tag_size);

    guarded.restore(size + tag_size);
    const target = guarded.bytes(size + 1); // Larger than needed.
    try testing.expect(pair.opening.open(target, ciphertext, &expected_tag, &nonce, additional));
    try testing.expectEqualSlices(u8, plaintext[0..size], target[0..size]);
    try guarded.expectUntouched(size);
    guarded.restore(size);
}

test "aead: all providers agree on records of every size, and write nowhere else" {
    const api = try testApi();
    var prng: std.Random.DefaultPrng = .init(0x5eed_aead);
    const random = prng.random();
    var guarded: Guarded = .{};
    for (std.enums.values(Algorithm)) |algorithm| {
        var key_buffer: [key_size_max]u8 = undefined;
        random.bytes(&key_buffer);
        const key = key_buffer[0..algorithm.keySize()];
        var reference = try Pair.init(api, null, algorithm, key) orelse continue;
        defer reference.deinit();
        for (candidates) |candidate| {
            var pair = try Pair.init(api, candidate, algorithm, key) orelse continue;
            defer pair.deinit();
            for (0..2101) |size| try compare(&reference, &pair, &guarded, size, random);
            for ([_]usize{ 4096, 8191, 16_384, 16_385, 16_401, 16_623 }) |size| {
                try compare(&reference, &pair, &guarded, size, random);
            }
            for (0..20) |_| {
                const size = random.uintLessThan(usize, Guarded.size_max - tag_size);
                try compare(&reference, &pair, &guarded, size, random);
            }
        }
    }
}

/// What `open` is given, and a bit of it to flip.
const Forgery = struct {
    bytes: [65]u8,
    tag: [tag_size]u8 = undefined,
    nonce: [nonce_size]u8,
    additional: [13]u8,

    const bits = 8 * (65 + tag_size + nonce_size + 13);

    fn flip(forgery: *Forgery, bit: usize) void {
        var index = bit / 8;
        for ([_][]u8{
            &forgery.bytes,
            &forgery.tag,
            &forgery.nonce,
            &forgery.additional,
        }) |part| {
            if (index < part.len) {
                part[index] ^= @as(u8, 1) << @intCast(bit % 8);
                return;
            }
            index -= part.len;
        }
        unreachable;
    }

    fn open(forgery: *const Forgery, opening: *Aead, target: []u8) bool {
        const nonce = &forgery.nonce;
        return opening.open(target, &forgery.bytes, &forgery.tag, nonce, &forgery.additional);
    }
};

test "aead: any bit changed anywhere: refused, wiped, and nothing left in OpenSSL's errors" {
    const api = try testApi();
    var prng: std.Random.DefaultPrng = .init(0xf1_1b);
    const random = prng.random();
    for (std.enums.values(Algorithm)) |algorithm| for (candidates) |candidate| {
        var key: [key_size_max]u8 = undefined;
        random.bytes(&key);
        var pair = try Pair.init(api, candidate, algorithm, key[0..algorithm.keySize()]) orelse
            continue;
        defer pair.deinit();
        var record: Forgery = .{
            .bytes = @splat('x'),
            .nonce = @splat(1),
            .additional = @splat(2),
        };
        const nonce = &record.nonce;
        const additional = &record.additional;
        try testing.expect(pair.sealing.seal(&record.bytes, &record.tag, nonce, additional));

        api.ERR_clear_error();
        for (0..Forgery.bits) |bit| {
            var target: [record.bytes.len + 1]u8 = @splat(0xa5);
            var forged = record;
            forged.flip(bit);
            try testing.expect(!forged.open(&pair.opening, &target));
            try testing.expect(std.mem.allEqual(u8, target[0..record.bytes.len], 0));
            try testing.expectEqual(0xa5, target[record.bytes.len]);
        }
        try testing.expectEqual(0, api.ERR_peek_error());

        var target: [record.bytes.len]u8 = undefined;
        try testing.expect(record.open(&pair.opening, &target));
        try testing.expect(std.mem.allEqual(u8, &target, 'x'));
    };
}

test "aead: a new key replaces the old one, also in a moved Aead" {
    const api = try testApi();
    const old: [key_size_max]u8 = @splat(1);
    const new: [key_size_max]u8 = @splat(2);
    for (std.enums.values(Algorithm)) |algorithm| for (candidates) |candidate| {
        const size = algorithm.keySize();
        var first = try Pair.init(api, candidate, algorithm, old[0..size]) orelse continue;
        var pair = first;
        first = undefined;
        defer pair.deinit();
        var fresh = (try Pair.init(api, candidate, algorithm, new[0..size])).?;
        defer fresh.deinit();
        var bytes = "NewSessionTicket".*;
        var tag: [tag_size]u8 = undefined;

        try pair.sealing.rekey(new[0..size]);
        try testing.expect(pair.sealing.seal(&bytes, &tag, &@splat(3), "head!"));
        var target: [bytes.len]u8 = undefined;
        try testing.expect(!pair.opening.open(&target, &bytes, &tag, &@splat(3), "head!"));
        try testing.expect(fresh.opening.open(&target, &bytes, &tag, &@splat(3), "head!"));
        try pair.opening.rekey(new[0..size]);
        try testing.expect(pair.opening.open(&target, &bytes, &tag, &@splat(3), "head!"));
        try testing.expectEqualStrings("NewSessionTicket", &target);
    };
}

test "aead: nothing is read behind the end of a slice" {
    const api = try testApi();
    const page = std.heap.pageSize();
    const memory = try std.posix.mmap(
        null,
        2 * page,
        .{ .READ = true, .WRITE = true },
        .{ .TYPE = .PRIVATE, .ANONYMOUS = true },
        -1,
        0,
    );
    defer std.posix.munmap(memory);
    const edge = memory[page..];
    try testing.expectEqual(0, std.c.mprotect(@ptrCast(@alignCast(edge.ptr)), page, .{}));

    const key: [key_size_max]u8 = @splat(7);
    for (std.enums.values(Algorithm)) |algorithm| for (candidates) |candidate| {
        const size = algorithm.keySize();
        const end = memory[0..page];
        @memcpy(end[page - size ..], key[0..size]);
        var pair = try Pair.init(api, candidate, algorithm, end[page - size ..]) orelse continue;
        defer pair.deinit();
        for (0..600) |length| {
            const bytes = end[page - length ..];
            var tag: [tag_size]u8 = undefined;
            @memset(bytes, 'x');
            try testing.expect(pair.sealing.seal(bytes, &tag, &@splat(3), "head!"));
            try testing.expect(pair.opening.open(bytes, bytes, &tag, &@splat(3), "head!"));
            try testing.expect(std.mem.allEqual(u8, bytes, 'x'));
        }
        for ([_]usize{ 5, 13 }) |length| {
            const additional = end[page - length ..];
            const nonce = end[page - nonce_size ..][0..nonce_size];
            const tag = end[page - tag_size ..][0..tag_size];
            var bytes: [33]u8 = @splat('y');
            var copy: [tag_size]u8 = undefined;
            try testing.expect(pair.sealing.seal(&bytes, &copy, &@splat(3), additional));
            try testing.expect(pair.opening.open(&bytes, &bytes, &copy, &@splat(3), additional));
            try testing.expect(pair.sealing.seal(&bytes, &copy, nonce, "head!"));
            try testing.expect(pair.opening.open(&bytes, &bytes, &copy, nonce, "head!"));
            try testing.expect(pair.sealing.seal(&bytes, tag, &@splat(3), "head!"));
            try testing.expect(pair.opening.open(&bytes, &bytes, tag, &@splat(3), "head!"));
        }
    };
}

test "aead: the fastest provider is chosen, unless one is named" {
    const api = try testApi();
    const key: [16]u8 = @splat(0);
    var options: aead.Options = .{ .api = api, .algorithm = .aes_128_gcm, .direction = .open };
    var chosen = try Aead.init(options, &key);
    defer chosen.deinit();
    options.provider = .evp;
    var named = try Aead.init(options, &key);
    defer named.deinit();

    const fastest: Provider = if (ipsec_mb.available(.aes_128_gcm)) .ipsec_mb else .evp;
    try testing.expectEqual(fastest, @as(Provider, chosen));
    try testing.expectEqual(Provider.evp, @as(Provider, named));
    const libressl = api.product().kind == .libressl;
    const description = if (libressl) "LibreSSL EVP" else "OpenSSL EVP";
    try testing.expectEqualStrings(description, named.description());
    options = .{ .api = api, .algorithm = .chacha20_poly1305, .direction = .open };
    options.provider = .ipsec_mb;
    const wide: [key_size_max]u8 = @splat(0);
    try testing.expectError(error.Unsupported, Aead.init(options, &wide));
}
