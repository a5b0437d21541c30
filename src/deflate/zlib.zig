//! The functions of zlib that hftws calls, looked up when the program runs.
//!
//! Every Linux and macOS has the library, because their package managers need it, and usually
//! Python's own `zlib` module has loaded it: so nothing has to be installed or bundled, and the
//! distribution keeps it patched. zlib-ng and other libraries with zlib's functions work as well:
//! `HFTWS_ZLIB` names the file. The declarations are written by hand after the manual
//! (https://zlib.net/manual.html); the ABI has been the same since 1.2.6.

const std = @import("std");
const builtin = @import("builtin");
const dynamic_library = @import("../dynamic_library.zig");
const OnceType = @import("../once.zig").OnceType;

/// z_stream. zlib keeps a pointer to it: it must not move while it is in use.
pub const Stream = extern struct {
    next_in: ?[*]const u8 = null,
    avail_in: c_uint = 0,
    total_in: c_ulong = 0,
    next_out: ?[*]u8 = null,
    avail_out: c_uint = 0,
    total_out: c_ulong = 0,
    msg: ?[*:0]const u8 = null,
    state: ?*anyopaque = null,
    zalloc: ?*anyopaque = null,
    zfree: ?*anyopaque = null,
    @"opaque": ?*anyopaque = null,
    data_type: c_int = 0,
    adler: c_ulong = 0,
    reserved: c_ulong = 0,
};

/// A field for each function, named as in C, so that a call reads like the manual.
pub const Api = struct {
    zlibVersion: *const fn () callconv(.c) [*:0]const u8,

    inflateInit2_: *const fn (*Stream, c_int, [*:0]const u8, c_int) callconv(.c) c_int,
    inflate: *const fn (*Stream, c_int) callconv(.c) c_int,
    inflateReset: *const fn (*Stream) callconv(.c) c_int,
    /// Not in the manual, but exported since 1.2.6: resets everything except the window.
    inflateResetKeep: *const fn (*Stream) callconv(.c) c_int,
    inflateEnd: *const fn (*Stream) callconv(.c) c_int,

    deflateInit2_: *const fn (
        *Stream,
        c_int,
        c_int,
        c_int,
        c_int,
        c_int,
        [*:0]const u8,
        c_int,
    ) callconv(.c) c_int,
    deflate: *const fn (*Stream, c_int) callconv(.c) c_int,
    deflateBound: *const fn (*Stream, c_ulong) callconv(.c) c_ulong,
    deflateReset: *const fn (*Stream) callconv(.c) c_int,
    deflateEnd: *const fn (*Stream) callconv(.c) c_int,
};

/// Values from zlib.h.
pub const sync_flush = 2; // Z_SYNC_FLUSH
pub const ok = 0; // Z_OK
pub const stream_end = 1; // Z_STREAM_END
pub const data_error = -3; // Z_DATA_ERROR
pub const memory_error = -4; // Z_MEM_ERROR
pub const buffer_error = -5; // Z_BUF_ERROR: no progress was possible
pub const deflated = 8; // Z_DEFLATED
pub const default_strategy = 0; // Z_DEFAULT_STRATEGY
/// In `data_type` after inflate: the flag for being between two blocks; and the mask for the number
/// of unused bits in the last byte.
pub const between_blocks = 128;
pub const unused_bits_mask = 7;

pub const LoadError = dynamic_library.LoadError;

/// Which files to try after those that the caller names.
const system_names: []const [:0]const u8 = switch (builtin.os.tag) {
    .linux => &.{ "libz.so.1", "libz.so" },
    .macos => &.{ "/usr/lib/libz.1.dylib", "libz.1.dylib" },
    else => @compileError("hftws supports Linux and macOS"),
};

const Library = struct { api: Api, version: [:0]const u8 };

var loaded: OnceType(Library) = .{};

/// The functions of the library that was loaded first. It stays loaded as long as the process.
/// The file that `HFTWS_ZLIB` names is the only one to be tried; without it `files`, each a library
/// or anything that is linked against one, such as Python's `zlib` module, and then the system's.
/// For any thread.
pub fn load(files: []const [:0]const u8) LoadError!*const Api {
    return &(try loaded.getOrMake(LoadError, loadFirst, .{files})).api;
}

fn loadFirst(files: []const [:0]const u8) LoadError!Library {
    const named = std.c.getenv("HFTWS_ZLIB");
    const api = if (named) |file|
        try dynamic_library.loadFirst(Api, &.{&.{std.mem.span(file)}})
    else
        try dynamic_library.loadFirst(Api, &.{ files, system_names });
    return .{ .api = api, .version = std.mem.span(api.zlibVersion()) };
}

/// Such as "1.2.13" or "1.3.1.zlib-ng". Null before `load` has succeeded.
pub fn version() ?[:0]const u8 {
    return if (loaded.get()) |library| library.version else null;
}

test "zlib: the system's library has every function" {
    const api = load(&.{}) catch |err| switch (err) {
        error.LibraryNotFound => return error.SkipZigTest, // A machine may lack it.
        error.SymbolMissing => return err,
    };
    try std.testing.expectEqual(api, try load(&.{"not looked at any more"}));
    try std.testing.expect(version().?.len > 0);
}
