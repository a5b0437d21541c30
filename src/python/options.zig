//! Checks the arguments of `_core.ClientBase`, and makes options of them.
//!
//! `hftws.Client` sets the defaults; types, and what the core relies on, are checked here. So are
//! some arguments of the methods.

const std = @import("std");
const core = @import("core");
const py = @import("py.zig");
const c = py.c;
const exceptions = @import("exceptions.zig");

const Allocator = std.mem.Allocator;
const constants = core.constants;
const http = core.http;
const libssl = core.ssl.libssl;

/// The parsed arguments of `__init__`.
pub const Parsed = struct {
    /// Its `tls` is null: the owner sets it once `tls_context` has its final place.
    core: core.connection.Options,
    /// Null for `ws://` and `http://`. Owned.
    tls_context: ?core.ssl.Context,
    /// Whether to keep a histogram of each stage.
    latency: bool,
    /// How many bytes of an HTTP response's body to keep.
    body_size_max: usize,
    /// Null if not given. Borrowed from the arguments, like the next two.
    on_msg: ?*py.Object,
    on_open: ?*py.Object,
    on_close: ?*py.Object,
    on_error: ?*py.Object,
};

/// The arguments by name. A field's type says what is taken; an argument that was not given leaves
/// the field as it is.
const Arguments = struct {
    /// First, because it decides what exceptions call the others.
    purpose: ?[:0]const u8 = null,
    url: ?*py.Object = null,
    on_msg: ?*py.Object = null,
    on_open: ?*py.Object = null,
    on_close: ?*py.Object = null,
    on_error: ?*py.Object = null,
    headers: ?*py.Object = null,
    subprotocols: ?*py.Object = null,
    deflate: ?*py.Object = null,
    zlib_libraries: ?*py.Object = null,
    ca_file: ?Path = null,
    cert_file: ?Path = null,
    key_file: ?Path = null,
    verify: bool = true,
    tls: ?[:0]const u8 = null,
    ciphers: ?[:0]const u8 = null,
    server_name: ?[:0]const u8 = null,
    connect_timeout: f64 = 0,
    close_timeout: f64 = 0,
    peer_timeout: ?*py.Object = null,
    max_message_size: c.Py_ssize_t = 0,
    max_body_size: c.Py_ssize_t = 0,
    ring_size: c.Py_ssize_t = 0,
    send_ring_size: c.Py_ssize_t = 0,
    huge_pages: bool = false,
    validate_utf8: bool = true,
    mask: ?[:0]const u8 = null,
    busy_poll: bool = false,
    timestamps: ?[:0]const u8 = null,
    latency: bool = false,
    quick_ack: bool = false,
    local_address: ?[:0]const u8 = null,
    interface: ?[:0]const u8 = null,
    receive_buffer_size: c.Py_ssize_t = 0,
    send_buffer_size: c.Py_ssize_t = 0,
    socket_busy_poll_us: c.Py_ssize_t = 0,
    tls_libraries: ?*py.Object = null,

    const field_names = @typeInfo(Arguments).@"struct".field_names;

    fn parse(arguments: *Arguments, positional: *py.Object, keywords: ?*py.Object) py.Error!void {
        var names: [field_names.len + 1]?[*:0]const u8 = undefined;
        inline for (field_names, 0..) |name, index| names[index] = name;
        names[field_names.len] = null;
        var objects: [field_names.len]?*py.Object = @splat(null);
        var places: @Tuple(&@as([field_names.len]type, @splat(*?*py.Object))) = undefined;
        inline for (&objects, 0..) |*object, index| places[index] = object;
        // All are objects to Python, whose own conversions name no argument in their exceptions.
        const format: [:0]const u8 = comptime "|$" ++ @as([field_names.len]u8, @splat('O'));
        const status = @call(.auto, c.PyArg_ParseTupleAndKeywords, .{
            positional,
            keywords orelse @as(?*py.Object, null),
            format.ptr,
            @as([*c][*c]u8, @ptrCast(@constCast(&names))),
        } ++ places);
        if (status == 0) return error.PythonError;
        inline for (field_names, objects) |name, object| {
            if (object) |found| {
                const Field = @FieldType(Arguments, name);
                @field(arguments, name) = try valueOf(Field, arguments.nameOf(name), found);
            }
        }
    }

    /// What the caller calls this argument.
    fn nameOf(arguments: *const Arguments, comptime field: [:0]const u8) [:0]const u8 {
        const is_get = std.mem.eql(u8, arguments.purpose orelse "", "get");
        if (is_get and comptime std.mem.eql(u8, field, "connect_timeout")) return "timeout";
        return field;
    }

    /// Borrows from the object.
    fn valueOf(comptime Field: type, name: [:0]const u8, object: *py.Object) py.Error!Field {
        switch (Field) {
            ?*py.Object => return object,
            ?[:0]const u8 => {
                if (py.isNone(object)) return null;
                const text = try py.textArgument(name, object);
                if (std.mem.findScalar(u8, text, 0) == null) return text;
                return py.raiseFormat(c.PyExc_ValueError, "{s} holds a null character", .{name});
            },
            ?Path => {
                if (py.isNone(object)) return null;
                return .{ .bytes = try py.pathBytes(object) };
            },
            bool => {
                // Who passes None may mean the default, which `verify` is not without.
                if (!py.isNone(object)) return py.isTrue(object, false);
                return py.raiseValue(c.PyExc_TypeError, name, "True or False", object);
            },
            f64 => return py.numberArgument(name, "a number", object),
            c.Py_ssize_t => return py.integerArgument(name, "an int", object),
            else => comptime unreachable,
        }
    }
};

/// The path of a file: any bytes but 0, as the system takes them.
const Path = struct { bytes: [:0]const u8 };

/// Reads the arguments of `__init__`. Every string of the result lies in the arena; on an error
/// nothing else has to be freed.
pub fn parse(arena: Allocator, positional: *py.Object, keywords: ?*py.Object) py.Error!Parsed {
    var arguments: Arguments = .{};
    try arguments.parse(positional, keywords);
    const options = buildOptions(arena, &arguments) catch |err| switch (err) {
        error.OutOfMemory => return py.noMemory(),
        error.PythonError => return error.PythonError,
    };
    try checkRequest(arena, &options);
    const secure = options.url.scheme.isSecure();
    var tls_context = if (secure) try tlsContext(arena, &arguments) else null;
    errdefer if (tls_context) |*context| context.deinit();
    return .{
        .core = options,
        .tls_context = tls_context,
        .latency = arguments.latency,
        .body_size_max = switch (options.purpose) {
            .websocket => constants.error_body_size_max,
            .get => try sizeBetween(
                "max_body_size",
                arguments.max_body_size,
                0,
                std.math.maxInt(c.Py_ssize_t),
            ),
        },
        .on_msg = callable(arguments.on_msg),
        .on_open = callable(arguments.on_open),
        .on_close = callable(arguments.on_close),
        .on_error = callable(arguments.on_error),
    };
}

/// The values of the option `tls`.
const Tls = enum { auto, direct, ktls, openssl };

const BuildError = py.Error || error{OutOfMemory};

fn buildOptions(
    arena: Allocator,
    arguments: *const Arguments,
) BuildError!core.connection.Options {
    const url_object = arguments.url orelse return py.raise(c.PyExc_TypeError, "url is needed");
    const url_text = try arena.dupe(u8, try py.textArgument("the URL", url_object));
    const url = http.Url.parse(url_text) catch |err| {
        return exceptions.raiseInvalidUrl(url_text, http.url.describe(err));
    };
    const purpose = try choice(core.connection.Options.Purpose, "purpose", arguments.purpose);
    if (url.scheme.isWebSocket() != (purpose == .websocket)) {
        return exceptions.raiseInvalidUrl(url_text, switch (purpose) {
            .websocket => "the scheme of a WebSocket is ws:// or wss://",
            .get => "the scheme of a request is http:// or https://",
        });
    }
    const host = try arena.dupeSentinel(u8, url.host, 0);
    const wanted_name = try copyText(arena, arguments.server_name) orelse host;
    // With an empty name OpenSSL checks no name at all, and with a dot in front it accepts a
    // certificate for any subdomain.
    if (!try isHost(arena, wanted_name)) {
        const format = "server_name has to be the name of a host, not '{s}'";
        return py.raiseFormat(c.PyExc_ValueError, format, .{cut(wanted_name)});
    }
    // The dot at the end of an absolute name is for the resolver only (RFC 6066, section 3).
    const relative_name = std.mem.cutSuffix(u8, wanted_name, ".") orelse wanted_name;
    const server_name = try arena.dupeSentinel(u8, relative_name, 0);
    return .{
        .purpose = purpose,
        .url = url,
        .host = host,
        .server_name = server_name,
        .server_name_is_address = core.os.Address.parse(server_name, 0) != null,
        .headers = try headerList(arena, arguments.headers),
        .subprotocols = try textList(arena, arguments.subprotocols),
        .compression = try compressionOptions(arena, arguments),
        .tls = null,
        .tls_engine = switch (try choice(Tls, "tls", arguments.tls)) {
            .auto => null,
            .direct => .direct,
            .ktls => .ktls,
            .openssl => .openssl,
        },
        .socket = try socketOptions(arena, arguments),
        .connect_timeout_ns = try nanoseconds(
            arguments.nameOf("connect_timeout"),
            arguments.connect_timeout,
        ),
        .close_timeout_ns = try nanoseconds("close_timeout", arguments.close_timeout),
        .message_size_max = try sizeBetween(
            "max_message_size",
            arguments.max_message_size,
            constants.control_payload_size_max,
            constants.ring_capacity_max,
        ),
        .receive_ring_capacity = try receiveCapacity(arguments),
        .send_ring_capacity = try ringCapacity("send_ring_size", arguments.send_ring_size),
        .huge_pages = arguments.huge_pages,
        .validate_utf8 = arguments.validate_utf8,
        .mask = try choice(core.connection.Options.Mask, "mask", arguments.mask),
        .busy_poll = arguments.busy_poll,
        .timestamps = try choice(core.os.TimestampMode, "timestamps", arguments.timestamps),
    };
}

/// Whether this could be the host of a URL. An IPv6 address is without brackets here.
fn isHost(arena: Allocator, text: []const u8) error{OutOfMemory}!bool {
    if (core.os.Address.parse(text, 0) != null) return true;
    const url = http.Url.parse(try std.mem.concat(arena, u8, &.{ "wss://", text })) catch {
        return false;
    };
    return std.mem.eql(u8, url.host, text);
}

/// Raises for what a request cannot contain, before any I/O, by writing the request once.
fn checkRequest(arena: Allocator, options: *const core.connection.Options) py.Error!void {
    const target = arena.alloc(u8, constants.request_size_max) catch return py.noMemory();
    defer arena.free(target);
    _ = writeRequest(target, options) catch |err| return raiseRequest(err, target, options);
}

fn writeRequest(
    target: []u8,
    options: *const core.connection.Options,
) core.ws.handshake.RequestError!usize {
    return switch (options.purpose) {
        .websocket => core.ws.handshake.writeRequest(
            target,
            options.upgradeRequest(&core.ws.handshake.keyFrom(&@splat(0))),
        ),
        .get => http.request.write(target, .{ .url = &options.url, .headers = options.headers }),
    };
}

/// Raises for a request that cannot be written, and names what is wrong with it.
fn raiseRequest(
    err: core.ws.handshake.RequestError,
    target: []u8,
    options: *const core.connection.Options,
) py.Error {
    switch (err) {
        error.InvalidHeaderName, error.InvalidHeaderValue => unreachable, // See `headerList`.
        error.ReservedHeader => for (options.headers) |header| {
            var single = options.*;
            single.headers = &.{header};
            _ = writeRequest(target, &single) catch |problem| switch (problem) {
                error.ReservedHeader => return py.raiseFormat(
                    c.PyExc_ValueError,
                    "the header '{s}' is one that the client sets itself",
                    .{cut(header.name)},
                ),
                else => continue,
            };
        } else unreachable,
        error.DuplicateHost => {
            return py.raise(c.PyExc_ValueError, "the header 'Host' is given more than once");
        },
        error.NoSpaceLeft => return py.raiseFormat(
            c.PyExc_ValueError,
            "the request (URL, headers, subprotocols) is larger than the client sends: {d} bytes",
            .{target.len},
        ),
        error.InvalidSubprotocol => for (options.subprotocols) |name| {
            if (name.len == 0) {
                return py.raise(c.PyExc_ValueError, "subprotocols has an empty name");
            }
            if (http.isToken(name)) continue;
            return py.raiseFormat(
                c.PyExc_ValueError,
                "'{f}' in subprotocols holds a character that is not allowed in a name",
                .{std.ascii.hexEscape(cut(name), .lower)},
            );
        } else unreachable,
        error.RepeatedSubprotocol => for (options.subprotocols, 0..) |name, index| {
            for (options.subprotocols[0..index]) |other| {
                if (!std.mem.eql(u8, name, other)) continue;
                const format = "'{s}' is in subprotocols more than once";
                return py.raiseFormat(c.PyExc_ValueError, format, .{cut(name)});
            }
        } else unreachable,
    }
}

/// The beginning of a text, if it is long: exceptions are read by people.
fn cut(text: []const u8) []const u8 {
    return text[0..@min(text.len, 100)];
}

/// Reads the fields of `hftws.Deflate`: a tuple in their order.
fn compressionOptions(
    arena: Allocator,
    arguments: *const Arguments,
) BuildError!?core.connection.CompressionOptions {
    const tuple = arguments.deflate orelse return null;
    if (py.isNone(tuple)) return null;
    var fields: [6]*py.Object = undefined; // Borrowed.
    for (&fields, 0..) |*field, index| {
        field.* = try py.check(c.PyTuple_GetItem(tuple, @intCast(index)));
    }
    const level = try py.integerArgument("Deflate.level", "an int", fields[4]);
    const threshold = try py.integerArgument("Deflate.threshold", "an int", fields[5]);
    const libraries = try pathList(arena, arguments.zlib_libraries);
    return .{
        .api = core.deflate.zlib.load(libraries) catch |err| {
            return exceptions.raiseZlib(err);
        },
        .offer = .{
            .server_no_context_takeover = try py.isTrue(fields[0], false),
            .client_no_context_takeover = try py.isTrue(fields[1], false),
            .server_max_window_bits = try windowBits("Deflate.server_max_window_bits", fields[2]),
            .client_max_window_bits = try windowBits("Deflate.client_max_window_bits", fields[3]),
        },
        .level = @intCast(try sizeBetween("Deflate.level", level, 0, constants.deflate_level_max)),
        .size_min = try sizeBetween("Deflate.threshold", threshold, 0, constants.ring_capacity_max),
    };
}

/// Null for None: any size.
fn windowBits(name: [:0]const u8, object: *py.Object) py.Error!?u8 {
    if (py.isNone(object)) return null;
    const min = core.ws.permessage_deflate.window_bits_min;
    const max = core.ws.permessage_deflate.window_bits_max;
    const bits = try py.integerArgument(name, "an int", object);
    return @intCast(try sizeBetween(name, bits, min, max));
}

fn socketOptions(arena: Allocator, arguments: *const Arguments) BuildError!core.socket.Options {
    var local_address: ?core.os.Address = null;
    if (try copyText(arena, arguments.local_address)) |text| {
        local_address = core.os.Address.parse(text, 0) orelse {
            const format = "local_address has to be an IP address, not '{s}'";
            return py.raiseFormat(c.PyExc_ValueError, format, .{cut(text)});
        };
    }
    return .{
        .local_address = local_address,
        .interface = try copyText(arena, arguments.interface),
        .receive_buffer_size = try optionalSize(
            "receive_buffer_size",
            arguments.receive_buffer_size,
        ),
        .send_buffer_size = try optionalSize("send_buffer_size", arguments.send_buffer_size),
        .peer_timeout_ms = try peerTimeout(arguments.peer_timeout),
        .busy_poll_us = try optionalSize("socket_busy_poll_us", arguments.socket_busy_poll_us),
        .quick_ack = arguments.quick_ack,
        .timestamps = try choice(core.os.TimestampMode, "timestamps", arguments.timestamps),
    };
}

/// The ring has to hold the largest message, its header and one more record; otherwise a connection
/// could stall although the peer does nothing wrong.
fn receiveCapacity(arguments: *const Arguments) py.Error!usize {
    const capacity = try ringCapacity("ring_size", arguments.ring_size);
    const compresses = if (arguments.deflate) |deflate| !py.isNone(deflate) else false;
    const size_max: usize = @intCast(@max(arguments.max_message_size, 0));
    const payload_max = if (compresses) constants.compressedSizeMax(size_max) else size_max;
    const needed = payload_max +| constants.frame_header_size_max +| constants.record_size_max;
    if (capacity >= needed) return capacity;
    const message = "ring_size ({d}) has no room for max_message_size ({d}) and a TLS record";
    return py.raiseFormat(c.PyExc_ValueError, message, .{ capacity, arguments.max_message_size });
}

/// Rounds up to a capacity that can be mapped twice: a power of two of pages.
fn ringCapacity(name: []const u8, size: c.Py_ssize_t) py.Error!usize {
    const bounded = try sizeBetween(
        name,
        size,
        constants.ring_capacity_min,
        constants.ring_capacity_max,
    );
    return std.math.ceilPowerOfTwoAssert(usize, bounded);
}

fn sizeBetween(name: []const u8, size: c.Py_ssize_t, min: usize, max: usize) py.Error!usize {
    if (size >= min and size <= max) return @intCast(size);
    const message = "{s} has to lie between {d} and {d}, not {d}";
    return py.raiseFormat(c.PyExc_ValueError, message, .{ name, min, max, size });
}

/// 0 means the system's default.
fn optionalSize(name: []const u8, size: c.Py_ssize_t) py.Error!?u32 {
    if (size == 0) return null;
    return @intCast(try sizeBetween(name, size, 0, std.math.maxInt(i32)));
}

/// A time-out in seconds as nanoseconds. Raises for negative ones and NaN.
fn nanoseconds(name: [:0]const u8, seconds: f64) py.Error!u64 {
    if (!(seconds >= 0)) {
        const value = try py.check(c.PyFloat_FromDouble(seconds));
        defer py.decref(value);
        return py.raiseValue(c.PyExc_ValueError, name, "0 or more seconds", value);
    }
    const seconds_max = 1e9; // About thirty years: no overflow, and longer than any wait.
    return @intFromFloat(@min(seconds, seconds_max) * std.time.ns_per_s);
}

/// In milliseconds; null (None) means that the peer may be silent for ever.
fn peerTimeout(object: ?*py.Object) py.Error!?u32 {
    const number = object orelse return constants.peer_timeout_ms_default;
    if (py.isNone(number)) return null;
    const seconds = try py.numberArgument("peer_timeout", "a number of seconds or None", number);
    const min = constants.peer_timeout_s_min;
    const max = constants.peer_timeout_s_max;
    if (seconds >= min and seconds <= max) return @intFromFloat(seconds * std.time.ms_per_s);
    const message = "peer_timeout has to lie between {d} and {d} seconds, or be None, not {d}";
    return py.raiseFormat(c.PyExc_ValueError, message, .{ min, max, seconds });
}

/// The time-out of a call in nanoseconds: null (None) is forever, 0 the default. `name` is for
/// exceptions.
pub fn timeout(name: [:0]const u8, object: ?*py.Object) py.Error!?u64 {
    const seconds_object = object orelse return 0;
    if (py.isNone(seconds_object)) return null;
    return try nanoseconds(name, try py.numberArgument(name, "a number or None", seconds_object));
}

/// The code of `close`: one that a program may send (RFC 6455, section 7.4.2, and the registry of
/// IANA).
pub fn closeCode(object: ?*py.Object) py.Error!u16 {
    const code_object = object orelse return 1000;
    const name = "code of close()";
    const index = c.PyNumber_Index(code_object) orelse {
        if (c.PyErr_ExceptionMatches(c.PyExc_TypeError) == 0) return error.PythonError;
        c.PyErr_Clear();
        return py.raiseValue(c.PyExc_TypeError, name, "an int", code_object);
    };
    defer py.decref(index);
    var overflow: c_int = 0;
    const code = c.PyLong_AsLongAndOverflow(index, &overflow);
    if (code >= 0 and code <= 4999) {
        const value: u16 = @intCast(code);
        if (core.ws.CloseCode.isAllowedInFrame(value)) return value;
    }
    const allowed = "1000 to 1003, 1007 to 1014 or 3000 to 4999";
    return py.raiseValue(c.PyExc_ValueError, name, allowed, index);
}

/// The reason of `close`.
pub fn closeReason(object: ?*py.Object) py.Error![]const u8 {
    const name = "reason of close()";
    const reason = try py.textArgument(name, object orelse return "");
    const size_max = constants.close_reason_size_max;
    if (reason.len <= size_max) return reason;
    const message = "{s} has at most {d} bytes of UTF-8, not {d}";
    return py.raiseFormat(c.PyExc_ValueError, message, .{ name, size_max, reason.len });
}

fn choice(comptime E: type, name: []const u8, text: ?[]const u8) py.Error!E {
    if (text) |word| {
        if (std.meta.stringToEnum(E, word)) |value| return value;
    }
    var buffer: [256]u8 = undefined;
    var writer: std.Io.Writer = .fixed(&buffer);
    for (std.enums.values(E)) |value| writer.print(" '{t}'", .{value}) catch {};
    const allowed = writer.buffered();
    const word = text orelse {
        const message = "{s} has to be one of{s}, not None";
        return py.raiseFormat(c.PyExc_ValueError, message, .{ name, allowed });
    };
    const message = "{s} has to be one of{s}, not '{s}'";
    return py.raiseFormat(c.PyExc_ValueError, message, .{ name, allowed, cut(word) });
}

/// Copies a text, because the core borrows its strings and Python may free them.
fn copyText(arena: Allocator, text: ?[:0]const u8) error{OutOfMemory}!?[:0]const u8 {
    return try arena.dupeSentinel(u8, text orelse return null, 0);
}

fn copyPath(arena: Allocator, path: ?Path) error{OutOfMemory}!?[:0]const u8 {
    const found = path orelse return null;
    return try arena.dupeSentinel(u8, found.bytes, 0);
}

/// Copies a sequence of subprotocols.
fn textList(arena: Allocator, object: ?*py.Object) BuildError![]const [:0]const u8 {
    const sequence = object orelse return &.{};
    const count = c.PySequence_Size(sequence);
    if (count < 0) return error.PythonError;
    const list = try arena.alloc([:0]const u8, @intCast(count));
    for (list, 0..) |*place, index| {
        place.* = try textAt(arena, sequence, index, "a subprotocol", .{});
    }
    return list;
}

/// Copies a sequence of paths as bytes.
fn pathList(arena: Allocator, object: ?*py.Object) BuildError![]const [:0]const u8 {
    const sequence = object orelse return &.{};
    const count = c.PySequence_Size(sequence);
    if (count < 0) return error.PythonError;
    const list = try arena.alloc([:0]const u8, @intCast(count));
    for (list, 0..) |*place, index| {
        const item = try py.check(c.PySequence_GetItem(sequence, @intCast(index)));
        defer py.decref(item);
        place.* = try arena.dupeSentinel(u8, try py.pathBytes(item), 0);
    }
    return list;
}

/// Copies the str at this place of a sequence. `what`, with its arguments, names it in exceptions.
fn textAt(
    arena: Allocator,
    sequence: *py.Object,
    index: usize,
    comptime what: []const u8,
    what_arguments: anytype,
) BuildError![:0]const u8 {
    const item = try py.check(c.PySequence_GetItem(sequence, @intCast(index)));
    defer py.decref(item);
    if (!py.isUnicode(item)) {
        const message = what ++ " has to be a str, not {s}";
        const type_name = std.mem.span(py.typeOf(item).tp_name);
        return py.raiseFormat(c.PyExc_TypeError, message, what_arguments ++ .{type_name});
    }
    return arena.dupeSentinel(u8, try py.utf8(item), 0);
}

/// Parses a sequence of name, value, name, value … Raises for what cannot be sent.
fn headerList(arena: Allocator, object: ?*py.Object) BuildError![]const http.Header {
    const sequence = object orelse return &.{};
    const count = c.PySequence_Size(sequence);
    if (count < 0) return error.PythonError;
    const headers = try arena.alloc(http.Header, @intCast(@divTrunc(count, 2)));
    for (headers, 0..) |*header, index| {
        const name = try textAt(arena, sequence, 2 * index, "the name of a header", .{});
        const value_of = "the value of the header '{f}'";
        const shown = .{std.ascii.hexEscape(name, .lower)};
        const value = try textAt(arena, sequence, 2 * index + 1, value_of, shown);
        header.* = .{ .name = name, .value = value };
        http.validateHeader(header.*) catch |err| {
            if (name.len == 0) return py.raise(c.PyExc_ValueError, "the name of a header is empty");
            const part = switch (err) {
                error.InvalidHeaderName => "name",
                error.InvalidHeaderValue => "value", // Not shown: it may be a key.
            };
            const message = "the {s} of the header '{f}' holds a character that must not be sent";
            return py.raiseFormat(c.PyExc_ValueError, message, .{
                part, std.ascii.hexEscape(cut(name), .lower),
            });
        };
    }
    return headers;
}

/// The TLS library in use, otherwise the first of these files (a sequence of bytes) that works.
pub fn loadLibrary(arena: Allocator, files: ?*py.Object) py.Error!*const libssl.Api {
    const list = pathList(arena, files) catch |err| switch (err) {
        error.OutOfMemory => return py.noMemory(),
        error.PythonError => return error.PythonError,
    };
    return libssl.load(list) catch |err| exceptions.raiseLibrary(err);
}

fn tlsContext(arena: Allocator, arguments: *const Arguments) py.Error!core.ssl.Context {
    const api = try loadLibrary(arena, arguments.tls_libraries);
    const ciphers = copyText(arena, arguments.ciphers) catch return py.noMemory();
    if (ciphers) |list| try checkCiphers(api, list);
    var failure: core.ssl.Failure = .{ .reason = "" };
    const files: core.ssl.Context.Options = .{
        .ca_file = copyPath(arena, arguments.ca_file) catch return py.noMemory(),
        .cert_file = copyPath(arena, arguments.cert_file) catch return py.noMemory(),
        .key_file = copyPath(arena, arguments.key_file) catch return py.noMemory(),
        .verify = arguments.verify,
        .ciphers = ciphers,
    };
    return core.ssl.Context.init(api, files, &failure) catch |err| {
        return exceptions.raiseContext(err, failure, files);
    };
}

fn checkCiphers(api: *const libssl.Api, list: []const u8) py.Error!void {
    if (list.len > constants.ciphers_size_max) return py.raiseFormat(
        c.PyExc_ValueError,
        "ciphers has {d} bytes; {d} are allowed",
        .{ list.len, constants.ciphers_size_max },
    );
    const found = core.ssl.firstUnknownCipher(api, list) catch return py.noMemory();
    const name = found orelse return;
    const library = std.mem.span(api.OpenSSL_version(libssl.version_text));
    return py.raiseFormat(
        c.PyExc_ValueError,
        "ciphers: '{f}' is no cipher suite that {s} knows",
        .{ std.ascii.hexEscape(name, .lower), library },
    );
}

fn callable(object: ?*py.Object) ?*py.Object {
    const found = object orelse return null;
    return if (py.isNone(found)) null else found;
}
