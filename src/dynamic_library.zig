//! Looks up libraries at run time, and fills tables of their functions.
//!
//! A table is a struct with a field for each function, named as in C. An optional field is null
//! where the library lacks the function; a library that lacks any other function is skipped.

const std = @import("std");
const builtin = @import("builtin");

pub const LoadError = error{
    /// No file of the list could be loaded.
    LibraryNotFound,
    /// A library was found, but cannot be used: it lacks a function, is too old or another product.
    SymbolMissing,
};

/// A loaded file. A handle also finds the symbols of everything the file depends on (dlsym(3)), so
/// it may be a library, or anything that is linked against one, such as an extension module of
/// Python.
pub const Library = struct {
    handle: *anyopaque,

    pub const Options = struct {
        /// Its own functions come before functions of the same name that the program or a preloaded
        /// library exports (RTLD_DEEPBIND). Only glibc needs and has that; macOS always does so.
        own_functions_first: bool = false,
    };

    /// Null when it cannot be loaded: `lastError` says why.
    pub fn open(file: [:0]const u8, options: Options) ?Library {
        var mode: std.c.RTLD = .{ .NOW = true };
        if (builtin.os.tag == .linux) mode.DEEPBIND = options.own_functions_first;
        return .{ .handle = std.c.dlopen(file.ptr, mode) orelse return null };
    }

    /// No symbol of it may be used afterwards.
    pub fn close(library: Library) void {
        _ = std.c.dlclose(library.handle);
    }

    pub fn symbol(library: Library, comptime Function: type, name: [*:0]const u8) ?*const Function {
        return @ptrCast(@alignCast(std.c.dlsym(library.handle, name) orelse return null));
    }

    /// Fills the table and returns null, or returns the name of a needed function that is missing.
    pub fn fill(library: Library, comptime Api: type, api: *Api) ?[:0]const u8 {
        inline for (
            @typeInfo(Api).@"struct".field_names,
            @typeInfo(Api).@"struct".field_types,
        ) |name, Field| {
            if (std.c.dlsym(library.handle, name)) |found| {
                @field(api, name) = @ptrCast(@alignCast(found));
            } else if (@typeInfo(Field) == .optional) {
                @field(api, name) = null;
            } else return name;
        }
        return null;
    }
};

/// Why the last `Library.open` failed, in the loader's words. Valid until the next call.
pub fn lastError() []const u8 {
    return std.mem.span(std.c.dlerror() orelse return "unknown cause");
}

/// The file that a function was loaded from, as the loader names it. Valid as long as it is loaded.
pub fn fileOf(function: *const anyopaque) ?[:0]const u8 {
    var info: SymbolInfo = undefined;
    if (dladdr(function, &info) == 0) return null;
    return std.mem.span(info.file_name orelse return null);
}

/// Dl_info of dladdr(3).
const SymbolInfo = extern struct {
    file_name: ?[*:0]const u8,
    file_base: ?*anyopaque,
    symbol_name: ?[*:0]const u8,
    symbol_address: ?*anyopaque,
};
extern "c" fn dladdr(address: *const anyopaque, info: *SymbolInfo) c_int;

/// The functions of the first file of these lists that has them all. The library stays loaded as
/// long as the process.
pub fn loadFirst(comptime Api: type, lists: []const []const [:0]const u8) LoadError!Api {
    var last_error: LoadError = error.LibraryNotFound;
    for (lists) |files| {
        for (files) |file| {
            const library = Library.open(file, .{}) orelse continue;
            var api: Api = undefined;
            if (library.fill(Api, &api) == null) return api;
            library.close();
            last_error = error.SymbolMissing;
        }
    }
    return last_error;
}

const testing = std.testing;

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
    const expectError = testing.expectError;

    const api = try loadFirst(Api, &.{ &.{"no-such-library.so"}, &.{libc_file} });
    try testing.expectEqual(5, api.strlen("hello"));
    try testing.expectEqual(null, api.no_such_function);

    try expectError(error.LibraryNotFound, loadFirst(Api, &.{}));
    try expectError(error.LibraryNotFound, loadFirst(Api, &.{&.{"no-such-library.so"}}));
    const found_first = [_][]const [:0]const u8{ &.{libc_file}, &.{"no-such-library.so"} };
    try expectError(error.SymbolMissing, loadFirst(Other, &found_first));
}

test "dynamic_library: the error names what is missing, a file or a function" {
    const Api = struct { no_such_function: *const fn () callconv(.c) void };
    const name = "no-such-library.so";
    try testing.expectEqual(null, Library.open(name, .{}));
    try testing.expect(std.mem.indexOf(u8, lastError(), name) != null);

    const library = Library.open(libc_file, .{}).?;
    defer library.close();
    var api: Api = undefined;
    try testing.expectEqualStrings("no_such_function", library.fill(Api, &api).?);
    try testing.expectEqual(null, library.symbol(fn () callconv(.c) void, "no_such_function"));
    const strlen = library.symbol(fn ([*:0]const u8) callconv(.c) usize, "strlen").?;
    try testing.expect(std.mem.indexOf(u8, fileOf(strlen).?, "lib") != null);
}
