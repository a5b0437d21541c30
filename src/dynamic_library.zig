//! Libraries that are looked for when the program runs: a table of their functions, filled by name.
//!
//! A table is a struct with a field for each function, named as in C. An optional field is null
//! where the library lacks the function; a library that lacks another one is passed over.

const std = @import("std");
const builtin = @import("builtin");

pub const LoadError = error{
    /// No file of the list could be loaded.
    LibraryNotFound,
    /// A library was found, and it lacks a function that is needed: too old, or another product.
    SymbolMissing,
};

/// The functions of the first file of these lists that has them all. Each may be a library, or
/// anything that is linked against one, such as a module of Python's: a handle also finds the
/// symbols of what its file depends on (dlsym(3)). The library stays loaded as long as the process.
pub fn loadFirst(comptime Api: type, lists: []const []const [:0]const u8) LoadError!Api {
    var last_error: LoadError = error.LibraryNotFound;
    for (lists) |files| {
        for (files) |file| {
            if (load(Api, file)) |api| return api else |err| switch (err) {
                error.LibraryNotFound => {},
                error.SymbolMissing => last_error = error.SymbolMissing,
            }
        }
    }
    return last_error;
}

fn load(comptime Api: type, file: [:0]const u8) LoadError!Api {
    const handle = std.c.dlopen(file.ptr, .{ .NOW = true }) orelse return error.LibraryNotFound;
    var api: Api = undefined;
    inline for (
        @typeInfo(Api).@"struct".field_names,
        @typeInfo(Api).@"struct".field_types,
    ) |field_name, Field| {
        if (std.c.dlsym(handle, field_name)) |symbol| {
            @field(api, field_name) = @ptrCast(@alignCast(symbol));
        } else if (@typeInfo(Field) == .optional) {
            @field(api, field_name) = null;
        } else {
            _ = std.c.dlclose(handle);
            return error.SymbolMissing;
        }
    }
    return api;
}

const libc_file = switch (builtin.os.tag) {
    .linux => "libc.so.6",
    else => "libSystem.B.dylib",
};

test "dynamic_library: a file is passed over that is none, or has not all that is needed" {
    const Api = struct {
        strlen: *const fn ([*:0]const u8) callconv(.c) usize,
        no_such_function: ?*const fn () callconv(.c) void,
    };
    const Other = struct { no_such_function: *const fn () callconv(.c) void };
    const expectError = std.testing.expectError;

    const api = try loadFirst(Api, &.{ &.{"no-such-library.so"}, &.{libc_file} });
    try std.testing.expectEqual(5, api.strlen("hello"));
    try std.testing.expectEqual(null, api.no_such_function);

    try expectError(error.LibraryNotFound, loadFirst(Api, &.{}));
    try expectError(error.LibraryNotFound, loadFirst(Api, &.{&.{"no-such-library.so"}}));
    const found_first = [_][]const [:0]const u8{ &.{libc_file}, &.{"no-such-library.so"} };
    try expectError(error.SymbolMissing, loadFirst(Other, &found_first));
}
