//! Raises the errors of the core as Python exceptions.
//!
//! Each error set has one exhaustive `switch`, so that a new error does not compile until it has an
//! exception. These functions only raise: they run no callback. The caller calls `on_close` first
//! where it has to be called, and passes in what an exception contains.

const std = @import("std");
const core = @import("core");
const py = @import("py.zig");
const c = py.c;

const connection = core.connection;
const Failure = connection.Failure;

/// The classes of `hftws.exceptions`. Owned from the import on, and never freed.
const Classes = struct {
    InvalidURL: *py.Object,
    ConnectError: *py.Object,
    ConnectTimeout: *py.Object,
    TLSError: *py.Object,
    HandshakeError: *py.Object,
    ProtocolError: *py.Object,
    MessageTooBig: *py.Object,
    ConnectionClosed: *py.Object,
    Error: *py.Object,
};

var classes: ?Classes = null;

/// What exceptions contain about a connection. Borrowed from it.
pub const Facts = struct {
    state: connection.State,
    failure: ?Failure,
    closed: ?connection.Closed,
    /// The code of our CLOSE frame, once it was sent.
    close_sent: ?u16,
    /// Why nothing more can be sent.
    send_failure: ?core.os.SendError,
    options: *const connection.Options,
    /// The response of the server, if it was not an upgrade.
    refusal: Refusal,

    pub fn of(source: *const core.Connection, refusal: Refusal) Facts {
        return .{
            .state = source.state(),
            .failure = source.failure(),
            .closed = source.closed(),
            .close_sent = source.lifecycle.closing.close_sent,
            .send_failure = if (source.transport.outbox) |*outbox| outbox.failure else null,
            .options = &source.options,
            .refusal = refusal,
        };
    }
};

/// An HTTP response instead of the upgrade.
pub const Refusal = struct {
    status: u16,
    /// A list. Null before there is a response.
    headers: ?*py.Object,
    body: []const u8,
};

/// The sizes of a message that could not be sent and of its send ring.
pub const Unsent = struct {
    size: usize,
    /// Whether the message is too large even for an empty ring.
    never_fits: bool,
    /// The capacity of the ring; 0 before there is one.
    ring_capacity: usize,

    pub fn of(source: *const core.Connection, size: usize) Unsent {
        const outbox = if (source.transport.outbox) |*found| found else return .{
            .size = size,
            .never_fits = false,
            .ring_capacity = 0,
        };
        return .{
            .size = size,
            .never_fits = outbox.neverFits(size),
            .ring_capacity = outbox.ring.capacity,
        };
    }
};

/// Fetches the classes. Call it when the module is imported.
pub fn load() py.Error!void {
    if (classes != null) return;
    const module = try py.check(c.PyImport_ImportModule("hftws.exceptions"));
    defer py.decref(module);
    var found: Classes = undefined;
    inline for (@typeInfo(Classes).@"struct".field_names) |name| {
        @field(found, name) = try py.check(c.PyObject_GetAttrString(module, name));
    }
    classes = found;
}

/// The options whose URL an exception gets; null before there are any.
const About = ?*const connection.Options;

/// Raises `class(message, *arguments)`; takes the references of the arguments.
fn raiseWith(
    about: About,
    class: *py.Object,
    message: []const u8,
    arguments: anytype,
) py.Error {
    const text = py.string(message) catch |err| {
        inline for (arguments) |argument| py.decref(argument);
        return err;
    };
    return raiseCalled(about, class, .{text} ++ arguments);
}

/// Raises `class(*arguments)`; takes the references of the arguments.
fn raiseCalled(about: About, class: *py.Object, arguments: anytype) py.Error {
    var values: [arguments.len]*py.Object = undefined;
    inline for (arguments, 0..) |argument, index| values[index] = argument;
    defer for (values) |value| py.decref(value);
    const called = c.PyObject_Vectorcall(class, @ptrCast(&values), values.len, null);
    const exception = try py.check(called);
    defer py.decref(exception);
    if (about) |options| {
        const url = try shownUrl(&options.url);
        defer py.decref(url);
        try py.checkStatus(c.PyObject_SetAttrString(exception, "url", url));
    }
    c.PyErr_SetObject(class, exception);
    return error.PythonError;
}

/// The URL without credentials, or its beginning: combined streams have URLs of many KiB.
pub fn shownUrl(url: *const core.http.Url) py.Error!*py.Object {
    const end = "...";
    var buffer: [256 + end.len]u8 = undefined;
    var writer: std.Io.Writer = .fixed(buffer[0 .. buffer.len - end.len]);
    url.writeShown(&writer) catch { // It is longer: what fits is there.
        const size = writer.end;
        @memcpy(buffer[size..][0..end.len], end);
        return py.string(buffer[0 .. size + end.len]);
    };
    return py.string(writer.buffered());
}

fn raiseText(
    about: About,
    class: *py.Object,
    comptime format: []const u8,
    arguments: anytype,
) py.Error {
    var buffer: [1024]u8 = undefined;
    return raiseWith(about, class, py.formatMessage(&buffer, format, arguments), .{});
}

// ---- Before a connection is open. --------------------------------------------------------------

pub fn raiseInvalidUrl(url: []const u8, problem: []const u8) py.Error {
    const shown: core.http.url.Shown = .init(url); // An exception ends up in logs.
    return raiseText(null, classes.?.InvalidURL, "{s}: {f}", .{ problem, shown });
}

/// Raises with the core's text, which explains what was tried and what to do.
pub fn raiseLibrary(err: core.ssl.libssl.LoadError) py.Error {
    return switch (err) {
        error.LibraryNotFound, error.SymbolMissing => {
            return raiseWith(null, classes.?.TLSError, core.ssl.libssl.failure(), .{});
        },
    };
}

pub fn raiseUse(err: core.ssl.libssl.UseError) py.Error {
    return switch (err) {
        error.LibraryNotFound, error.SymbolMissing => |e| raiseLibrary(e),
        error.AlreadyLoaded, error.LinkedIn => {
            return py.raiseFormat(c.PyExc_RuntimeError, "{s}", .{core.ssl.libssl.failure()});
        },
    };
}

pub fn raiseZlib(err: core.deflate.zlib.LoadError) py.Error {
    return py.raise(c.PyExc_OSError, switch (err) {
        error.LibraryNotFound => "compression needs zlib, and none was found: " ++
            "libz.so.1, or the file that HFTWS_ZLIB names",
        error.SymbolMissing => "the zlib found is too old: 1.2.6 or later is needed",
    });
}

/// Raises for a file that cannot be used, with its option and its path.
pub fn raiseContext(
    err: core.ssl.Context.InitError,
    failure: core.ssl.Failure,
    files: core.ssl.Context.Options,
) py.Error {
    var buffer: [1024]u8 = undefined;
    const mismatch = "key values mismatch"; // OpenSSL's words, and LibreSSL's.
    const message = switch (err) {
        error.OutOfMemory => return py.noMemory(),
        error.CaFileUnusable => describeFile(&buffer, "ca_file", files.ca_file.?, failure),
        error.CertFileUnusable => describeFile(&buffer, "cert_file", files.cert_file.?, failure),
        error.KeyFileUnusable => if (files.key_file == null and isWithoutKey(failure))
            py.formatMessage(
                &buffer,
                "cert_file '{s}' holds no private key, and key_file was not given",
                .{files.cert_file.?},
            )
        else if (std.mem.eql(u8, failure.reason, mismatch) and files.key_file != null)
            py.formatMessage(&buffer, "key_file '{s}' does not fit cert_file '{s}': {s}", .{
                files.key_file.?, files.cert_file.?, failure.reason,
            })
        else if (files.key_file) |file|
            describeFile(&buffer, "key_file", file, failure)
        else
            describeFile(&buffer, "cert_file", files.cert_file.?, failure),
        error.CiphersUnusable => return py.raiseFormat(
            c.PyExc_ValueError,
            "ciphers cannot be used: {s}",
            .{failure.reason},
        ),
    };
    return raiseTls(null, message, failure);
}

/// What OpenSSL 3, and what 1.1.1 and LibreSSL say of a file in which they find no key.
fn isWithoutKey(failure: core.ssl.Failure) bool {
    return std.mem.eql(u8, failure.reason, "unsupported") or
        std.mem.eql(u8, failure.reason, "no start line") or
        std.mem.eql(u8, failure.reason, "unknown cause");
}

fn describeFile(
    buffer: []u8,
    option: []const u8,
    file: []const u8,
    failure: core.ssl.Failure,
) []const u8 {
    return py.formatMessage(buffer, "cannot use {s} '{s}': {s}", .{ option, file, failure.reason });
}

pub fn raiseInit(err: core.loop.InitError) py.Error {
    return switch (err) {
        error.OutOfMemory => py.noMemory(),
        error.TooManyOpenFiles => raiseErrno(.MFILE),
        error.TooManyOpenFilesInSystem => raiseErrno(.NFILE),
        error.Unexpected => py.raise(c.PyExc_OSError, "the kernel refused a poller"),
    };
}

pub fn raiseStart(err: connection.StartError, facts: Facts) py.Error {
    return switch (err) {
        error.Failed => raiseFailure(facts.failure.?, facts),
        error.OutOfMemory => py.noMemory(),
        error.TooManyOpenFiles => raiseErrno(.MFILE),
        error.TooManyOpenFilesInSystem => raiseErrno(.NFILE),
        error.PermissionDenied => raiseErrno(.PERM),
        error.Unsupported => py.raise(c.PyExc_OSError, "the kernel has no memory to map twice"),
        error.Unexpected => py.raise(c.PyExc_OSError, "the kernel refused the ring buffers"),
    };
}

// ---- Once it is open. --------------------------------------------------------------------------

/// Raises for what stops a connection from going on without ending it.
pub const StallError = error{ ReceiveRingPinned, OutOfMemory };

pub fn raiseStall(err: StallError) py.Error {
    return switch (err) {
        error.ReceiveRingPinned => py.raise(
            c.PyExc_BufferError,
            "the receive ring is full of messages that are kept: let go of some and go on, " ++
                "or let wait_for_room() wait until another thread has",
        ),
        error.OutOfMemory => py.noMemory(),
    };
}

pub fn raiseWait(err: core.loop.WaitError) py.Error {
    return switch (err) {
        error.SystemResources => py.raise(c.PyExc_OSError, "the kernel cannot wait for it"),
    };
}

/// Raises how the connection ended; also when it ended in the ordinary way.
pub fn raiseClosed(facts: Facts) py.Error {
    if (facts.failure) |failure| return raiseFailure(failure, facts);
    const closed = facts.closed.?;
    return raiseConnectionClosed(facts, closed.code, closed.reason);
}

pub fn raiseSend(err: connection.SendError, unsent: Unsent, facts: Facts) py.Error {
    switch (err) {
        error.NotOpen => {
            if (facts.closed != null) return raiseClosed(facts);
            if (facts.state == .closing) {
                return raiseConnectionClosed(facts, facts.close_sent orelse 1006, "closing");
            }
            return py.raise(c.PyExc_RuntimeError, "not connected: call connect() first");
        },
        error.Disconnected => {
            var buffer: [128]u8 = undefined;
            const cause = if (facts.send_failure) |failure| describeSend(failure) else "";
            const reason = py.formatMessage(&buffer, "the socket cannot be written{s}", .{cause});
            return raiseConnectionClosed(facts, 1006, reason);
        },
        error.Reserved => return py.raise(c.PyExc_RuntimeError, "a reservation is open"),
        error.SendRingFull => {
            if (unsent.never_fits) return py.raiseFormat(
                c.PyExc_ValueError,
                "a message of {d} bytes never fits the send ring of {d}",
                .{ unsent.size, unsent.ring_capacity },
            );
            const message = "the send ring is full: the peer reads too slowly";
            return py.raise(c.PyExc_BufferError, message);
        },
    }
}

pub fn raiseBodyTooBig(size_max: usize, options: *const connection.Options) py.Error {
    const url = try shownUrl(&options.url);
    defer py.decref(url);
    const message = "the body is larger than max_body_size ({d}) [{s}]";
    return py.raiseFormat(c.PyExc_ValueError, message, .{ size_max, try py.utf8(url) });
}

/// Raises for a plain response of the server instead of the upgrade.
fn raiseRefused(facts: Facts) py.Error {
    const refusal = facts.refusal;
    var buffer: [128]u8 = undefined;
    const message = py.formatMessage(&buffer, "the server refused the upgrade: HTTP {d}", .{
        refusal.status,
    });
    const status = try py.integer(refusal.status);
    const headers = try py.check(c.PyList_GetSlice(
        refusal.headers.?, // A new list for each exception: the same refusal may raise again.
        0,
        c.PyList_Size(refusal.headers.?),
    ));
    const body = try py.bytes(refusal.body);
    const class = classes.?.HandshakeError;
    return raiseWith(facts.options, class, message, .{ status, headers, body });
}

fn raiseFailure(failure: Failure, facts: Facts) py.Error {
    const options = facts.options;
    const known = classes.?;
    switch (failure) {
        .resolve => |err| return raiseText(options, known.ConnectError, "{s}: {s}", .{
            describeResolve(err), options.host,
        }),
        .open_socket => |open| return raiseOpenSocket(open.cause, open.option, options),
        .connect => |connect| return raiseText(options, known.ConnectError, "{s} ({f}): {f}", .{
            options.host, connect.address, Cause{ .err = connect.cause },
        }),
        .timed_out => |stage| return raiseTimeout(stage, options),
        .tls => |tls| return raiseTlsFailure(tls.cause, tls.in_handshake, options),
        .ended => |ended| return raiseEnded(ended.stage, ended.cause.describe(), options),
        .request => |err| {
            const text = core.ws.handshake.describe(err);
            return raiseText(null, c.PyExc_ValueError, "{s}", .{text});
        },
        .response => |err| return raiseHandshake(core.http.response.describe(err), options),
        .too_many_interim_responses => return raiseHandshake(
            "the server sent more interim responses (1xx) than the client takes",
            options,
        ),
        .body => |err| return raiseHandshake(core.http.body.describe(err), options),
        .upgrade => |err| return raiseHandshake(core.ws.handshake.describe(err), options),
        .refused => return raiseRefused(facts),
        .protocol => |protocol| {
            const class = switch (protocol.cause) {
                error.MessageTooBig => known.MessageTooBig,
                else => known.ProtocolError,
            };
            var buffer: [core.constants.control_payload_size_max]u8 = undefined;
            const text = protocol.describe(&buffer, options.message_size_max);
            const code = try py.integer(protocol.code);
            return raiseWith(options, class, text, .{code});
        },
        .closed => |closed| return raiseConnectionClosed(facts, closed.code, closed.reason),
    }
}

fn raiseConnectionClosed(facts: Facts, code: u16, reason: []const u8) py.Error {
    const number = try py.integer(code);
    const text = py.string(reason) catch |err| {
        py.decref(number);
        return err;
    };
    return raiseCalled(facts.options, classes.?.ConnectionClosed, .{ number, text });
}

/// Raises for a socket that could not be made, and names the option that the system refused.
fn raiseOpenSocket(
    err: core.socket.OpenError,
    refused: ?core.socket.Option,
    options: *const connection.Options,
) py.Error {
    const class = classes.?.ConnectError;
    const option = refused orelse return raiseText(options, class, "no socket for {s}: {f}", .{
        options.host, Cause{ .err = err },
    });
    const shown: ShownOption = .{ .option = option, .options = &options.socket };
    return raiseText(options, class, "{f}: {f}", .{ shown, RefusedBecause{ .err = err } });
}

/// An option of the socket as Python's user gave it.
const ShownOption = struct {
    option: core.socket.Option,
    options: *const core.socket.Options,

    pub fn format(shown: ShownOption, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        const options = shown.options;
        try writer.print("{t}=", .{shown.option});
        switch (shown.option) {
            .peer_timeout => {
                const time_ms: f64 = @floatFromInt(options.peer_timeout_ms.?);
                try writer.print("{d}", .{time_ms / std.time.ms_per_s});
            },
            .receive_buffer_size => try writer.print("{d}", .{options.receive_buffer_size.?}),
            .send_buffer_size => try writer.print("{d}", .{options.send_buffer_size.?}),
            .socket_busy_poll_us => try writer.print("{d}", .{options.busy_poll_us.?}),
            .quick_ack => try writer.writeAll("True"),
            .timestamps => try writer.print("'{t}'", .{options.timestamps}),
            .interface => try writer.print("'{s}'", .{options.interface.?}),
            .local_address => {
                try writer.writeByte('\'');
                try options.local_address.?.formatHost(writer);
                try writer.writeByte('\'');
            },
        }
    }
};

/// Why the system refused an option, after its name.
const RefusedBecause = struct {
    err: core.socket.OpenError,

    pub fn format(refusal: RefusedBecause, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        switch (refusal.err) {
            error.Unsupported => try writer.writeAll("not supported on this system"),
            error.PermissionDenied, error.AccessDenied => try writer.writeAll(
                "not permitted without a privilege",
            ),
            error.InvalidValue => try writer.writeAll("this system does not take the value"),
            error.AddressFamilyNotSupported => try writer.writeAll(
                "the server's address is of another family",
            ),
            else => |err| try writer.print("{f}", .{Cause{ .err = err }}),
        }
    }
};

/// Why a socket could not be made or connected. What has no name is told in the system's words.
const Cause = struct {
    err: SocketError,

    pub fn format(cause: Cause, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        try writer.writeAll(describeCause(cause.err));
        switch (cause.err) {
            error.Unexpected => {
                const text = std.mem.span(strerror(core.os.unexpectedErrno()));
                try writer.print(": {s}", .{text});
            },
            else => {},
        }
    }
};

extern "c" fn strerror(errno: c_int) [*:0]const u8;

fn raiseTimeout(stage: connection.Stage, options: *const connection.Options) py.Error {
    const option = switch (options.purpose) {
        .websocket => "connect_timeout",
        .get => "timeout",
    };
    const seconds = @as(f64, @floatFromInt(options.connect_timeout_ns)) / std.time.ns_per_s;
    const format = "timed out {s} {s}: {s} of {d} s";
    return raiseText(options, classes.?.ConnectTimeout, format, .{
        describeStage(stage), options.host, option, seconds,
    });
}

fn raiseEnded(
    stage: connection.Stage,
    what: []const u8,
    options: *const connection.Options,
) py.Error {
    const class = switch (stage) {
        .resolving, .connecting => classes.?.ConnectError,
        .securing => classes.?.TLSError,
        .requesting, .reading_body => classes.?.HandshakeError,
    };
    const arguments = .{ what, describeStage(stage), options.host };
    return raiseText(options, class, "{s} while {s} {s}", arguments);
}

fn raiseHandshake(problem: []const u8, options: *const connection.Options) py.Error {
    return raiseText(options, classes.?.HandshakeError, "{s}", .{problem});
}

fn raiseTlsFailure(
    failure: core.ssl.Failure,
    in_handshake: bool,
    options: *const connection.Options,
) py.Error {
    const prefix = if (failure.of_kernel)
        "kernel TLS"
    else if (in_handshake)
        "the TLS handshake failed"
    else
        "a TLS record is bad";
    const is_plain = std.mem.eql(u8, failure.reason, "wrong version number");
    const asks = in_handshake and is_plain;
    const hint = if (asks) " (does the server speak TLS on this port?)" else "";
    var buffer: [1024]u8 = undefined;
    const separator = if (failure.verify_reason.len > 0) ": " else "";
    var writer: std.Io.Writer = .fixed(&buffer);
    writer.print("{s}: {s}{s}{s}{s}", .{
        prefix, failure.reason, separator, failure.verify_reason, hint,
    }) catch {}; // The rest is cut off.
    if (failure.names) |*names| {
        const others = if (names.size > 0) names.text() else "no host";
        const format = ": the certificate is for {s}, not for '{s}'";
        writer.print(format, .{ others, options.server_name }) catch {};
    }
    return raiseTls(options, writer.buffered(), failure);
}

fn raiseTls(about: About, message: []const u8, failure: core.ssl.Failure) py.Error {
    const reason = try py.string(failure.reason);
    const verify_code = try py.integer(@as(i64, failure.verify_code));
    const verify_reason = try py.string(failure.verify_reason);
    const class = classes.?.TLSError;
    return raiseWith(about, class, message, .{ reason, verify_code, verify_reason });
}

/// Why nothing can be sent, as the end of a sentence.
fn describeSend(err: core.os.SendError) []const u8 {
    return switch (err) {
        error.WouldBlock => unreachable, // No failure.
        error.BrokenPipe => ": the peer has closed the connection",
        error.ConnectionReset => ": the peer reset the connection",
        error.TimedOut => ": the peer does not answer",
        error.NetworkUnreachable => ": the network is unreachable",
        error.HostUnreachable => ": the peer is unreachable",
        error.AccessDenied => ": sending was forbidden",
        error.OutOfMemory => ": the kernel is out of memory",
        error.Unexpected => ": unexpected error of the kernel",
    };
}

fn describeStage(stage: connection.Stage) []const u8 {
    return switch (stage) {
        .resolving => "looking up the name",
        .connecting => "connecting to",
        .securing => "in the TLS handshake with",
        .requesting => "waiting for the HTTP response of",
        .reading_body => "reading the HTTP body of",
    };
}

fn describeResolve(err: core.lookup.Error) []const u8 {
    return switch (err) {
        error.NameNotFound => "the name does not resolve",
        error.TemporaryFailure => "no name server answered",
        error.ResolverFailure => "the name server failed",
        error.OutOfMemory => "no memory to look up the name",
        error.ThreadLimit => "the system has no more threads to look up the name",
        error.TooManyOpenFiles => "too many open files in this process to look up the name",
        error.TooManyOpenFilesInSystem => "too many open files in the system to look up the name",
        error.Unexpected => "the name could not be looked up",
    };
}

const SocketError = core.socket.OpenError || core.os.ConnectError;

fn describeCause(err: SocketError) []const u8 {
    return switch (err) {
        error.ConnectionRefused => "connection refused",
        error.ConnectionReset => "connection reset",
        error.NetworkUnreachable => "network unreachable",
        error.HostUnreachable => "host unreachable",
        error.TimedOut => "timed out",
        error.AddressNotAvailable => "the local address is not available",
        error.AddressInUse => "the local address is in use",
        error.AddressFamilyNotSupported => "the address family is not supported",
        error.AccessDenied => "access denied",
        error.InterfaceNotFound => "no such network interface",
        error.TooManyOpenFiles => "too many open files in this process",
        error.TooManyOpenFilesInSystem => "too many open files in the system",
        error.Unsupported => "a socket option is not supported on this system",
        error.PermissionDenied => "a socket option needs a privilege",
        error.InvalidValue => "a socket option has an invalid value",
        error.OutOfMemory => "the kernel is out of memory",
        error.Unexpected => "unexpected error of the kernel",
    };
}

/// Raises OSError with an errno; Python chooses the subclass by it.
fn raiseErrno(errno: std.c.E) py.Error {
    std.c._errno().* = @backingInt(errno);
    _ = c.PyErr_SetFromErrno(c.PyExc_OSError);
    return error.PythonError;
}

/// Raises for what `call`, such as "pin_thread()", cannot do. `value` is its argument.
pub fn raiseTune(err: core.os.TuneError, comptime call: []const u8, value: ?*py.Object) py.Error {
    return switch (err) {
        error.PermissionDenied => raiseOsError(.PERM, call ++ " needs a privilege"),
        error.MemoryLockLimit => raiseOsError(.NOMEM, call ++ ": RLIMIT_MEMLOCK is too low"),
        error.InvalidCpu => py.raiseValue(
            c.PyExc_ValueError,
            "cpu of " ++ call,
            "a CPU that this process may use",
            value.?,
        ),
        error.InvalidPriority => py.raiseFormat(
            c.PyExc_ValueError,
            "priority of " ++ call ++ " has to lie between 1 and 99, not {d}",
            .{c.PyLong_AsLong(value.?)},
        ),
        error.Unsupported => py.raise(c.PyExc_NotImplementedError, call ++ ": not on this system"),
        error.Unexpected => py.raise(c.PyExc_OSError, call ++ ": unexpected error of the kernel"),
    };
}

/// Raises OSError with an errno and a text; Python chooses the subclass by the errno.
fn raiseOsError(errno: std.c.E, text: [:0]const u8) py.Error {
    const number: c_int = @intCast(@backingInt(errno));
    const made = c.PyObject_CallFunction(c.PyExc_OSError, "is", number, text.ptr);
    const exception = try py.check(made);
    defer py.decref(exception);
    c.PyErr_SetObject(@ptrCast(py.typeOf(exception)), exception);
    return error.PythonError;
}
