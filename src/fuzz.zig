//! Coverage-guided fuzzing: the list of targets, and the entry points of libFuzzer.
//!
//! A test here runs each target on everything that fuzzers have found.
//!
//! A target is a file in `fuzz/` with one function, `run`: bytes in, an error or a panic when a
//! property does not hold. `zig build fuzz` compiles all of them, with assertions and counters of
//! edges, into one program for libFuzzer, whose `main` calls the two exported functions below. An
//! environment variable selects the target, because libFuzzer starts itself again for merging and
//! minimising, with arguments of its own but the same environment.
//!
//! The corpus in `tests/fuzz/` needs no fuzzer: the test below replays it.

const std = @import("std");
const builtin = @import("builtin");

const Gpa = std.mem.Allocator;

const targets = struct {
    pub const connection = @import("fuzz/connection.zig");
    pub const deflate = @import("fuzz/deflate.zig");
    pub const frames = @import("fuzz/frames.zig");
    pub const http = @import("fuzz/http.zig");
    pub const records = @import("fuzz/records.zig");
    pub const url = @import("fuzz/url.zig");
};

const target_names = @typeInfo(targets).@"struct".decl_names;

/// The target that the environment selects.
const variable = "HFTWS_FUZZ_TARGET";

var target_name: []const u8 = "";

fn runTarget(name: []const u8, gpa: Gpa, bytes: []const u8) !void {
    inline for (target_names) |known| {
        if (std.mem.eql(u8, name, known)) return @field(targets, known).run(gpa, bytes);
    }
    return error.UnknownTarget;
}

comptime {
    if (!builtin.is_test) {
        @export(&initialize, .{ .name = "LLVMFuzzerInitialize" });
        @export(&testOneInput, .{ .name = "LLVMFuzzerTestOneInput" });
    }
}

/// The counters that the compiler has added, and their places in the code.
const instrumentation = struct {
    extern var __start___sancov_cntrs: u8;
    extern var __stop___sancov_cntrs: u8;
    extern const __start___sancov_pcs1: usize;
    extern const __stop___sancov_pcs1: usize;

    extern fn __sanitizer_cov_8bit_counters_init(start: *u8, stop: *u8) void;
    extern fn __sanitizer_cov_pcs_init(start: [*]const Place, stop: [*]const Place) void;

    /// In the format of LLVM's own instrumentation. Zig does not have the flags.
    const Place = extern struct { address: usize, flags: usize };

    /// Zig emits counters, but no call that tells libFuzzer of them.
    fn register() !void {
        const start: [*]const usize = @ptrCast(&__start___sancov_pcs1);
        const size = (@intFromPtr(&__stop___sancov_pcs1) - @intFromPtr(start)) / @sizeOf(usize);
        const places = try std.heap.c_allocator.alloc(Place, size); // Never freed.
        for (places, start[0..size]) |*place, address| {
            place.* = .{ .address = address, .flags = 0 };
        }
        __sanitizer_cov_8bit_counters_init(&__start___sancov_cntrs, &__stop___sancov_cntrs);
        __sanitizer_cov_pcs_init(places.ptr, places.ptr + places.len);
    }
};

fn initialize(_: *c_int, _: *[*][*:0]u8) callconv(.c) c_int {
    instrumentation.register() catch @panic("out of memory");
    const value = std.c.getenv(variable) orelse "";
    target_name = std.mem.span(@as([*:0]const u8, value));
    for (target_names) |known| {
        if (std.mem.eql(u8, known, target_name)) return 0;
    }
    std.debug.panic(variable ++ " is {q}: it has to be the name of a target", .{target_name});
}

fn testOneInput(bytes: [*]const u8, size: usize) callconv(.c) c_int {
    runTarget(target_name, std.heap.c_allocator, bytes[0..size]) catch |err| {
        if (@errorReturnTrace()) |trace| std.debug.dumpErrorReturnTrace(trace);
        std.debug.panic("{s}: {t}", .{ target_name, err });
    };
    return 0;
}

// Every seed, and every crash that was ever found.
test "fuzz corpus: connection" {
    try replayAll("connection");
}

test "fuzz corpus: deflate" {
    try replayAll("deflate");
}

test "fuzz corpus: frames" {
    try replayAll("frames");
}

test "fuzz corpus: http" {
    try replayAll("http");
}

test "fuzz corpus: records" {
    try replayAll("records");
}

test "fuzz corpus: url" {
    try replayAll("url");
}

fn replayAll(comptime name: []const u8) !void {
    try std.testing.expect(try replay("tests/fuzz/corpus/" ++ name, name) > 0);
    _ = try replay("tests/fuzz/crashes/" ++ name, name);
}

fn replay(path: []const u8, name: []const u8) !usize {
    const gpa = std.testing.allocator;
    const io = std.testing.io;
    var folder = std.Io.Dir.cwd().openDir(io, path, .{ .iterate = true }) catch |err| switch (err) {
        error.FileNotFound => return 0, // No crashes yet.
        else => return err,
    };
    defer folder.close(io);
    var count: usize = 0;
    var entries = folder.iterate();
    while (try entries.next(io)) |entry| {
        errdefer std.debug.print("{s}/{s}\n", .{ path, entry.name });
        const bytes = try folder.readFileAlloc(io, entry.name, gpa, .limited(1 << 20));
        defer gpa.free(bytes);
        try runTarget(name, gpa, bytes);
        count += 1;
    }
    return count;
}

test {
    _ = @import("fuzz/input.zig");
    _ = @import("fuzz/guarded.zig");
}
