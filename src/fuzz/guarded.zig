//! Memory that ends at an inaccessible page, so that reading beyond the end crashes.
//!
//! That finds what Zig does not check: vector instructions, and code in libraries.

const std = @import("std");
const assert = std.debug.assert;

pub const Guarded = struct {
    memory: []align(std.heap.page_size_min) u8,
    capacity: usize,

    pub fn init(capacity_min: usize) std.posix.MMapError!Guarded {
        const page_size = std.heap.pageSize();
        const capacity = std.mem.alignForward(usize, capacity_min, page_size);
        const memory = try std.posix.mmap(
            null,
            capacity + page_size,
            .{ .READ = true, .WRITE = true },
            .{ .TYPE = .PRIVATE, .ANONYMOUS = true },
            -1,
            0,
        );
        const guard = memory.ptr + capacity;
        const result = std.c.mprotect(@ptrCast(@alignCast(guard)), page_size, .{});
        assert(result == 0); // It was mapped a moment ago.
        return .{ .memory = memory, .capacity = capacity };
    }

    pub fn deinit(guarded: *Guarded) void {
        std.posix.munmap(guarded.memory);
        guarded.* = undefined;
    }

    /// The last `size` bytes in front of the guard.
    pub fn room(guarded: *Guarded, size: usize) []u8 {
        return guarded.memory[guarded.capacity - size .. guarded.capacity];
    }

    /// A copy of `bytes` there, which replaces the previous one.
    pub fn place(guarded: *Guarded, bytes: []const u8) []u8 {
        const target = guarded.room(bytes.len);
        @memcpy(target, bytes);
        return target;
    }
};

test "fuzz guard: bytes end where the guard begins" {
    var guarded: Guarded = try .init(10);
    defer guarded.deinit();
    const placed = guarded.place("hello");
    try std.testing.expectEqualStrings("hello", placed);
    try std.testing.expectEqual(guarded.memory.ptr + guarded.capacity, placed.ptr + placed.len);
}
