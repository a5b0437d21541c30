//! Tests of `darwin.zig`: on Linux over stand-ins for its kernel.

const std = @import("std");
const builtin = @import("builtin");
const darwin = @import("darwin.zig");
const libsystem = @import("libsystem.zig");
const c = std.c;

const testing = std.testing;

/// What plays the kernel where there is no Mac.
const mach_shim = switch (builtin.os.tag) {
    .linux => @import("darwin_on_linux").mach_shim,
    else => void,
};

test "darwin: both copies of a mirrored mapping are shared with what the process forks" {
    const size = 4 * std.heap.pageSize();
    const mapping = try darwin.mapMirrored(size, .{ .huge_pages = true });
    defer darwin.unmapMirrored(mapping);
    try testing.expect(!mapping.huge_pages);
    const child = c.fork();
    if (child == 0) {
        mapping.memory[1] = 7;
        mapping.memory[size + 2] = 8;
        const mirrored = mapping.memory[size + 1] == 7 and mapping.memory[2] == 8;
        c._exit(@intFromBool(!mirrored));
    }
    var status: c_int = undefined;
    try testing.expectEqual(child, c.waitpid(child, &status, 0));
    try testing.expectEqual(@as(c_int, 0), status);
    for ([_]usize{ 0, size }) |copy| {
        try testing.expectEqualSlices(u8, &.{ 0, 7, 8 }, mapping.memory[copy..][0..3]);
    }
}

test "darwin: a mapping that fails half-way says why, and leaves nothing behind" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    if (@import("test_options").emulated) return error.SkipZigTest; // Has its own address space.
    const size = 4 * std.heap.pageSize();
    const failures = .{
        .{ libsystem.kern_no_space, error.OutOfMemory },
        .{ libsystem.kern_resource_shortage, error.OutOfMemory },
        .{ libsystem.kern_protection_failure, error.PermissionDenied },
        .{ libsystem.kern_not_supported, error.Unsupported },
        .{ 5, error.Unexpected }, // KERN_FAILURE
    };
    // With the kernel's usual choice, a mapping that was left would move the next one.
    const before = try darwin.mapMirrored(size, .{ .huge_pages = false });
    darwin.unmapMirrored(before);
    inline for (failures) |pair| {
        mach_shim.failure_next = pair[0];
        try testing.expectError(pair[1], darwin.mapMirrored(size, .{ .huge_pages = false }));
    }
    const after = try darwin.mapMirrored(size, .{ .huge_pages = false });
    defer darwin.unmapMirrored(after);
    try testing.expectEqual(before.memory, after.memory);
}

test "darwin: real time is asked for in the clock's own units, within what the kernel takes" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    defer mach_shim.apple_silicon = true;
    for ([_]bool{ true, false }, [_]c_int{ 24, 1000 }) |apple_silicon, units_a_microsecond| {
        mach_shim.apple_silicon = apple_silicon;
        for ([_]u8{ 1, 50, 99 }) |priority| {
            try darwin.setRealtimePriority(priority);
            const flavor = libsystem.thread_time_constraint_policy;
            try testing.expectEqual(flavor, mach_shim.policy_flavor);
            const policy = [_]c_int{ 0, 500 * units_a_microsecond, 1000 * units_a_microsecond, 1 };
            try testing.expectEqual(policy, mach_shim.policy);
        }
    }
    try testing.expectError(error.InvalidPriority, darwin.setRealtimePriority(0));
    try testing.expectError(error.InvalidPriority, darwin.setRealtimePriority(100));
    mach_shim.failure_next = libsystem.kern_protection_failure;
    try testing.expectError(error.PermissionDenied, darwin.setRealtimePriority(1));
    mach_shim.failure_next = 4; // KERN_INVALID_ARGUMENT
    try testing.expectError(error.Unexpected, darwin.setRealtimePriority(1));
}

test "darwin: a CPU is a tag for Intel, and nothing for Apple silicon" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    defer mach_shim.apple_silicon = true;
    mach_shim.apple_silicon = true;
    try testing.expectError(error.Unsupported, darwin.pinThread(0));
    mach_shim.apple_silicon = false;
    try darwin.pinThread(0);
    try testing.expectEqual(libsystem.thread_affinity_policy, mach_shim.policy_flavor);
    // No tag is 0.
    try testing.expectEqual([_]c_int{ 1, 0, 0, 0 }, mach_shim.policy);
    const count = try std.Thread.getCpuCount();
    try testing.expectError(error.InvalidCpu, darwin.pinThread(@intCast(count)));
    try testing.expectError(error.InvalidCpu, darwin.pinThread(std.math.maxInt(u32)));
}
