//! AES-GCM by Intel's libipsec-mb (x86-64 Linux): one direct call opens or seals a whole record.
//!
//! The library exports the same functions for each vector extension. Once per process the fastest
//! is chosen that both the CPU and the library have, and that answers a published test vector
//! right, because a file that a user names may be any library. Either the archive was linked into
//! the extension, or the shared library is looked for when the program runs. `HFTWS_IPSEC_MB`
//! names another file; empty or "off", it turns the provider off.
//!
//! ChaCha20-Poly1305 is left to EVP: the function that starts a record is not exported.

const std = @import("std");
const assert = std.debug.assert;
const builtin = @import("builtin");
const build_options = @import("build_options");
const types = @import("types.zig");
const cpu = @import("../../cpu.zig");
const vectors = @import("vectors.zig");

const Error = types.Error;
const nonce_size = types.nonce_size;
const tag_size = types.tag_size;

const supported = builtin.cpu.arch == .x86_64 and builtin.os.tag == .linux;
const linked = supported and build_options.ipsec_mb_linked;

/// Named as in the names of the library's functions, the fastest first.
pub const Variant = enum {
    vaes_avx512,
    avx512,
    avx_gen4,
    avx_gen2,
    sse,

    fn title(variant: Variant) []const u8 {
        return switch (variant) {
            .vaes_avx512 => "AVX-512 VAES",
            .avx512 => "AVX-512",
            .avx_gen4 => "AVX2",
            .avx_gen2 => "AVX",
            .sse => "SSE",
        };
    }

    /// What the library itself requires before it uses the variant.
    fn required(variant: Variant) cpu.FeatureSet {
        const sse: cpu.FeatureSet = .initMany(&.{ .sse4_2, .aes, .pclmulqdq });
        const avx = sse.unionWith(.initOne(.avx));
        const avx2 = avx.unionWith(.initMany(&.{ .avx2, .bmi2 }));
        const avx512 = avx2.unionWith(.initMany(&.{
            .avx512f, .avx512dq, .avx512cd, .avx512bw, .avx512vl,
        }));
        return switch (variant) {
            .sse => sse,
            .avx_gen2 => avx,
            .avx_gen4 => avx2,
            .avx512 => avx512,
            .vaes_avx512 => avx512.unionWith(.initMany(&.{
                .vaes, .vpclmulqdq, .gfni, .avx512_ifma, .sha_ni,
            })),
        };
    }
};

/// What is linked in. The other variants are little faster than these, and each takes a quarter of
/// a megabyte or more.
const linked_variants = [_]Variant{ .vaes_avx512, .avx_gen4, .sse };

/// The library's working memory. Versions 1 and 2 need 1008 bytes for a key (`gcm_key_data`,
/// aligned to 64) and 88 for a record in progress (`gcm_context_data`); a later one may need more.
const Schedule = extern struct {
    context: Context align(64),
    key: Key align(64),

    const Context = [1024]u8;
    const Key = [3072]u8;
};

const ExpandKey = fn (key: [*]const u8, schedule: *Schedule.Key) callconv(.c) void;

/// The tag is an output in both directions.
const Crypt = fn (
    schedule: *const Schedule.Key,
    context: *Schedule.Context,
    target: [*]u8,
    source: [*]const u8,
    size: u64,
    nonce: *const [nonce_size]u8,
    additional: [*]const u8,
    additional_size: u64,
    tag: *[tag_size]u8,
    tag_size: u64,
) callconv(.c) void;

/// For one variant and one size of key.
const Functions = struct { expand: *const ExpandKey, open: *const Crypt, seal: *const Crypt };

const Implementation = struct {
    aes_128: Functions,
    aes_256: Functions,
    description: [:0]const u8,

    fn functions(
        implementation: *const Implementation,
        algorithm: types.Algorithm,
    ) ?*const Functions {
        return switch (algorithm) {
            .aes_128_gcm => &implementation.aes_128,
            .aes_256_gcm => &implementation.aes_256,
            .chacha20_poly1305 => null,
        };
    }
};

/// Whether `Aead.init` would find the algorithm here.
pub fn available(algorithm: types.Algorithm) bool {
    const implementation = find(null) orelse return false;
    return implementation.functions(algorithm) != null;
}

/// One key in one direction. See `aead.Aead` for the contract of each function.
pub const Aead = struct {
    schedule: *Schedule,
    crypt: *const Crypt,
    expand: *const ExpandKey,
    direction: types.Direction,
    text: [:0]const u8,

    pub fn init(options: types.Options, key: []const u8) Error!Aead {
        return initVariant(null, options, key);
    }

    /// Null: the fastest. Unsupported: the CPU or the library lacks it.
    pub fn initVariant(variant: ?Variant, options: types.Options, key: []const u8) Error!Aead {
        assert(key.len == options.algorithm.keySize());
        const implementation = find(variant) orelse return error.Unsupported;
        const functions = implementation.functions(options.algorithm) orelse
            return error.Unsupported;
        const schedule = try std.heap.c_allocator.create(Schedule);
        functions.expand(key.ptr, &schedule.key);
        return .{
            .schedule = schedule,
            .crypt = switch (options.direction) {
                .open => functions.open,
                .seal => functions.seal,
            },
            .expand = functions.expand,
            .direction = options.direction,
            .text = implementation.description,
        };
    }

    pub fn rekey(provider: *Aead, key: []const u8) void {
        provider.expand(key.ptr, &provider.schedule.key);
    }

    pub fn deinit(provider: *Aead) void {
        std.crypto.secureZero(u8, std.mem.asBytes(provider.schedule));
        std.heap.c_allocator.destroy(provider.schedule);
        provider.* = undefined;
    }

    pub inline fn open(
        provider: *Aead,
        plaintext: []u8,
        ciphertext: []const u8,
        tag: *const [tag_size]u8,
        nonce: *const [nonce_size]u8,
        additional: []const u8,
    ) bool {
        assert(provider.direction == .open);
        assert(plaintext.len == ciphertext.len);
        var expected: [tag_size]u8 = undefined;
        const schedule = provider.schedule;
        call(provider.crypt, schedule, plaintext.ptr, ciphertext, &expected, nonce, additional);
        const opened = std.crypto.timing_safe.eql(@Vector(tag_size, u8), expected, tag.*);
        if (!opened) {
            @branchHint(.unlikely);
            std.crypto.secureZero(u8, plaintext);
        }
        return opened;
    }

    pub inline fn seal(
        provider: *Aead,
        bytes: []u8,
        tag: *[tag_size]u8,
        nonce: *const [nonce_size]u8,
        additional: []const u8,
    ) bool {
        assert(provider.direction == .seal);
        call(provider.crypt, provider.schedule, bytes.ptr, bytes, tag, nonce, additional);
        return true;
    }

    pub fn description(provider: *const Aead) [:0]const u8 {
        return provider.text;
    }
};

/// What was found. It is never freed.
const Library = struct {
    lock: std.c.pthread_mutex_t = .{}, // Connections may start on several threads.
    searched: bool = false,
    variants: std.EnumArray(Variant, ?Implementation) = .initFill(null),
    texts: std.EnumArray(Variant, [64]u8) = .initUndefined(),
};

var library: Library = .{};

/// The implementation by this variant, or by the fastest that works here.
fn find(variant: ?Variant) ?*const Implementation {
    if (!supported) return null;
    _ = std.c.pthread_mutex_lock(&library.lock);
    defer _ = std.c.pthread_mutex_unlock(&library.lock);

    if (!library.searched) search();
    library.searched = true;
    for (std.enums.values(Variant)) |candidate| {
        const slot = library.variants.getPtrConst(candidate);
        if (slot.* == null or candidate != variant orelse candidate) continue;
        return &slot.*.?;
    }
    return null;
}

fn search() void {
    if (std.c.getenv("HFTWS_IPSEC_MB")) |file| {
        const name = std.mem.span(file);
        if (name.len == 0 or std.mem.eql(u8, name, "off")) return;
        if (std.c.dlopen(name.ptr, .{ .NOW = true })) |handle| searchLibrary(handle);
        return;
    }
    if (linked) return takeLinked();
    for ([_][*:0]const u8{ "libIPSec_MB.so.2", "libIPSec_MB.so.1", "libIPSec_MB.so" }) |name| {
        if (std.c.dlopen(name, .{ .NOW = true })) |handle| return searchLibrary(handle);
    }
}

const VersionText = fn () callconv(.c) [*:0]const u8;

fn searchLibrary(handle: *anyopaque) void {
    const version = symbol(handle, VersionText, "imb_get_version_str") orelse return;
    const features = cpu.features();
    inline for (comptime std.enums.values(Variant)) |variant| {
        if (lookUp(handle, variant, "128")) |aes_128| {
            if (lookUp(handle, variant, "256")) |aes_256| {
                take(variant, features, version(), aes_128, aes_256);
            }
        }
    }
}

fn lookUp(handle: *anyopaque, comptime variant: Variant, comptime bits: []const u8) ?Functions {
    const ending = bits ++ "_" ++ @tagName(variant);
    return .{
        .expand = symbol(handle, ExpandKey, "aes_gcm_pre_" ++ ending) orelse return null,
        .open = symbol(handle, Crypt, "aes_gcm_dec_" ++ ending) orelse return null,
        .seal = symbol(handle, Crypt, "aes_gcm_enc_" ++ ending) orelse return null,
    };
}

fn symbol(handle: *anyopaque, comptime Function: type, name: [*:0]const u8) ?*const Function {
    const address = std.c.dlsym(handle, name) orelse return null;
    return @ptrCast(@alignCast(address));
}

fn takeLinked() void {
    const version = @extern(*const VersionText, .{ .name = "imb_get_version_str" });
    const features = cpu.features();
    inline for (linked_variants) |variant| {
        take(variant, features, version(), linkedTo(variant, "128"), linkedTo(variant, "256"));
    }
}

/// `aes_gcm_pre_*` are not used: they share an object with all their siblings and would pull every
/// variant into the extension, 4.4 MB of code in place of 1.6 MB. Each is these two calls.
fn linkedTo(comptime variant: Variant, comptime bits: []const u8) Functions {
    const Expansion = struct {
        fn expand(key: [*]const u8, schedule: *Schedule.Key) callconv(.c) void {
            const round_keys = @extern(*const ExpandKey, .{
                .name = "aes_keyexp_" ++ bits ++ "_enc_" ++ switch (variant) {
                    .sse => "sse",
                    .avx_gen2 => "avx",
                    .avx_gen4, .avx512, .vaes_avx512 => "avx2",
                },
            });
            const hash_keys = @extern(*const fn (*Schedule.Key) callconv(.c) void, .{
                .name = "aes_gcm_precomp_" ++ bits ++ "_" ++ @tagName(variant),
            });
            round_keys(key, schedule);
            hash_keys(schedule);
        }
    };
    const ending = bits ++ "_" ++ @tagName(variant);
    return .{
        .expand = &Expansion.expand,
        .open = @extern(*const Crypt, .{ .name = "aes_gcm_dec_" ++ ending }),
        .seal = @extern(*const Crypt, .{ .name = "aes_gcm_enc_" ++ ending }),
    };
}

fn take(
    variant: Variant,
    features: cpu.FeatureSet,
    version: [*:0]const u8,
    aes_128: Functions,
    aes_256: Functions,
) void {
    if (!works(variant, features, &aes_128, &aes_256)) return;
    const text = library.texts.getPtr(variant);
    const version_text = std.mem.span(version);
    library.variants.set(variant, .{
        .aes_128 = aes_128,
        .aes_256 = aes_256,
        .description = std.fmt.bufPrintSentinel(text, "libipsec-mb {s}, {s}", .{
            version_text[0..@min(version_text.len, 32)],
            variant.title(),
        }, 0) catch unreachable, // 64 bytes hold 32 and the longest title.
    });
}

fn works(
    variant: Variant,
    features: cpu.FeatureSet,
    aes_128: *const Functions,
    aes_256: *const Functions,
) bool {
    return features.supersetOf(variant.required()) and
        answersRight(aes_128, &vectors.aes_128_gcm) and
        answersRight(aes_256, &vectors.aes_256_gcm);
}

/// Whether the functions seal and open a published vector.
fn answersRight(functions: *const Functions, vector: *const vectors.Vector) bool {
    var schedule: Schedule = undefined;
    functions.expand(vector.key.ptr, &schedule.key);
    const sealed = answers(functions.seal, &schedule, vector, vector.plaintext, vector.ciphertext);
    const opened = answers(functions.open, &schedule, vector, vector.ciphertext, vector.plaintext);
    return sealed and opened;
}

fn answers(
    crypt: *const Crypt,
    schedule: *Schedule,
    vector: *const vectors.Vector,
    source: []const u8,
    expected: []const u8,
) bool {
    var bytes: [64]u8 = undefined;
    var tag: [tag_size]u8 = undefined;
    const target = bytes[0..source.len];
    call(crypt, schedule, target.ptr, source, &tag, &vector.nonce, vector.additional);
    return std.mem.eql(u8, target, expected) and std.mem.eql(u8, &tag, &vector.tag);
}

/// The library's ten arguments, in one place.
inline fn call(
    crypt: *const Crypt,
    schedule: *Schedule,
    target: [*]u8,
    source: []const u8,
    tag: *[tag_size]u8,
    nonce: *const [nonce_size]u8,
    additional: []const u8,
) void {
    crypt(
        &schedule.key,
        &schedule.context,
        target,
        source.ptr,
        source.len,
        nonce,
        additional.ptr,
        additional.len,
        tag,
        tag_size,
    );
}

test "ipsec_mb: a library that answers wrong is not used" {
    Wrong.calls = 0;
    try std.testing.expect(!works(.sse, .full, &Wrong.functions, &Wrong.functions));
    try std.testing.expect(Wrong.calls > 0);
}

/// A library whose functions do something else.
const Wrong = struct {
    var calls: u32 = 0;
    const functions: Functions = .{ .expand = &expand, .open = &crypt, .seal = &crypt };

    fn expand(_: [*]const u8, _: *Schedule.Key) callconv(.c) void {
        calls += 1;
    }

    fn crypt(
        _: *const Schedule.Key,
        _: *Schedule.Context,
        target: [*]u8,
        source: [*]const u8,
        size: u64,
        _: *const [nonce_size]u8,
        _: [*]const u8,
        _: u64,
        tag: *[tag_size]u8,
        _: u64,
    ) callconv(.c) void {
        calls += 1;
        @memcpy(target[0..@intCast(size)], source[0..@intCast(size)]);
        tag.* = @splat(0);
    }
};

test "ipsec_mb: a variant is not tried on a CPU without its instructions" {
    Wrong.calls = 0;
    for (std.enums.values(Variant)) |variant| {
        var required = variant.required().iterator();
        while (required.next()) |feature| {
            var features: cpu.FeatureSet = .full;
            features.remove(feature);
            try std.testing.expect(!works(variant, features, &Wrong.functions, &Wrong.functions));
        }
    }
    try std.testing.expectEqual(0, Wrong.calls);
}

test "ipsec_mb: the description names the library and the instructions" {
    const options: types.Options = .{
        .api = undefined, // Not used.
        .algorithm = .aes_128_gcm,
        .direction = .open,
    };
    var provider = Aead.init(options, vectors.aes_128_gcm.key) catch |err| switch (err) {
        error.Unsupported => return error.SkipZigTest,
        error.OutOfMemory => return err,
    };
    defer provider.deinit();
    try std.testing.expect(std.mem.startsWith(u8, provider.description(), "libipsec-mb "));
    try std.testing.expect(std.mem.indexOf(u8, provider.description(), ", ") != null);
}

test "ipsec_mb: ChaCha20-Poly1305 is left to EVP" {
    try std.testing.expect(!available(.chacha20_poly1305));
}
