//! Which features the running CPU has, of those by which hftws chooses code (x86-64 only).
//!
//! A wheel is compiled for the oldest CPU, but also runs on newer ones. A vector extension may be
//! used only if the kernel saves its registers when it switches threads: CPUID tells what the CPU
//! has, and XGETBV what the kernel switched on. On other architectures than x86-64 the set is
//! empty.

const std = @import("std");
const builtin = @import("builtin");

pub const Feature = enum {
    sse4_2,
    aes,
    pclmulqdq,
    avx,
    avx2,
    bmi2,
    sha_ni,
    gfni,
    vaes,
    vpclmulqdq,
    avx512f,
    avx512dq,
    avx512cd,
    avx512bw,
    avx512vl,
    avx512_ifma,
};

pub const FeatureSet = std.EnumSet(Feature);

/// Asks the CPU, which takes about a microsecond, and much longer in a virtual machine.
pub fn features() FeatureSet {
    if (builtin.cpu.arch != .x86_64) return .empty;
    const leaf_max = cpuid(0).eax;
    const basic = cpuid(1);
    const extended: Leaf = if (leaf_max >= 7) cpuid(7) else .{};
    const os_saves_state = basic.ecx & (1 << 27) != 0; // OSXSAVE: else there is no XGETBV.
    return decode(.{
        .basic_ecx = basic.ecx,
        .extended_ebx = extended.ebx,
        .extended_ecx = extended.ecx,
        .state = if (os_saves_state) xgetbv() else 0,
    });
}

/// What the features are read from.
const Registers = struct {
    /// Leaf 1.
    basic_ecx: u32,
    /// Leaf 7, subleaf 0.
    extended_ebx: u32,
    extended_ecx: u32,
    /// XCR0: the register state that the kernel saves.
    state: u32,
};

/// Intel SDM, volume 1, section 14.3 (AVX) and 15.2 (AVX-512): bits of XCR0.
const state_ymm = 0x06; // XMM and the upper halves of YMM.
const state_zmm = state_ymm | 0xe0; // Also the masks, the upper halves of ZMM, and ZMM16 to 31.

fn decode(registers: Registers) FeatureSet {
    const ymm = registers.state & state_ymm == state_ymm;
    const zmm = registers.state & state_zmm == state_zmm;
    var set: FeatureSet = .empty;
    add(&set, registers.basic_ecx, true, &.{
        .{ 20, .sse4_2 }, .{ 25, .aes }, .{ 1, .pclmulqdq },
    });
    add(&set, registers.extended_ebx, true, &.{ .{ 8, .bmi2 }, .{ 29, .sha_ni } });
    add(&set, registers.extended_ecx, true, &.{.{ 8, .gfni }});

    add(&set, registers.basic_ecx, ymm, &.{.{ 28, .avx }});
    add(&set, registers.extended_ebx, ymm, &.{.{ 5, .avx2 }});
    add(&set, registers.extended_ecx, ymm, &.{ .{ 9, .vaes }, .{ 10, .vpclmulqdq } });

    add(&set, registers.extended_ebx, zmm, &.{
        .{ 16, .avx512f },  .{ 17, .avx512dq }, .{ 21, .avx512_ifma },
        .{ 28, .avx512cd }, .{ 30, .avx512bw }, .{ 31, .avx512vl },
    });
    return set;
}

fn add(
    set: *FeatureSet,
    register: u32,
    usable: bool,
    bits: []const struct { u5, Feature },
) void {
    for (bits) |bit| {
        const present = register >> bit[0] & 1 == 1;
        if (present and usable) set.insert(bit[1]);
    }
}

const Leaf = struct { eax: u32 = 0, ebx: u32 = 0, ecx: u32 = 0, edx: u32 = 0 };

/// Subleaf 0.
fn cpuid(leaf: u32) Leaf {
    var eax: u32 = undefined;
    var ebx: u32 = undefined;
    var ecx: u32 = undefined;
    var edx: u32 = undefined;
    asm volatile ("cpuid"
        : [eax] "={eax}" (eax),
          [ebx] "={ebx}" (ebx),
          [ecx] "={ecx}" (ecx),
          [edx] "={edx}" (edx),
        : [leaf] "{eax}" (leaf),
          [subleaf] "{ecx}" (@as(u32, 0)),
    );
    return .{ .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx };
}

/// The lower half of XCR0; the bits that matter here are all in it.
fn xgetbv() u32 {
    return asm volatile ("xgetbv"
        : [eax] "={eax}" (-> u32),
        : [ecx] "{ecx}" (@as(u32, 0)),
        : .{ .edx = true });
}

const testing = std.testing;

test "cpu: the features are those that Zig's own look at this CPU finds" {
    if (builtin.cpu.arch != .x86_64) return error.SkipZigTest;
    const native = try std.zig.system.resolveTargetQuery(testing.io, .{ .cpu_model = .native });
    const found = features();
    for (std.enums.values(Feature)) |feature| {
        const theirs: std.Target.x86.Feature = switch (feature) {
            .pclmulqdq => .pclmul,
            .sha_ni => .sha,
            .avx512_ifma => .avx512ifma,
            inline else => |same| @field(std.Target.x86.Feature, @tagName(same)),
        };
        const expected = std.Target.x86.featureSetHas(native.cpu.features, theirs);
        try testing.expectEqual(expected, found.contains(feature));
    }
}

test "cpu: a vector extension whose registers the kernel does not save is not used" {
    const all: u32 = std.math.maxInt(u32);
    var registers: Registers = .{
        .basic_ecx = all,
        .extended_ebx = all,
        .extended_ecx = all,
        .state = 0,
    };
    const none = decode(registers);
    registers.state = state_ymm;
    const avx = decode(registers);
    registers.state = state_zmm;
    const avx512 = decode(registers);

    try testing.expect(none.contains(.aes));
    try testing.expect(!none.contains(.avx) and !none.contains(.vaes));
    try testing.expect(avx.contains(.avx2) and avx.contains(.vaes));
    try testing.expect(!avx.contains(.avx512f));
    try testing.expectEqual(FeatureSet.full, avx512);
}
