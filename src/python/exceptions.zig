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
    host: []const u8,
    /// The response of the server, if it was not an upgrade.
    refusal: Refusal,

    pub fn of(source: *const core.Connection, refusal: Refusal) Facts {
        return .{
            .state = source.state(),
            .failure = source.failure(),
            .closed = source.closed(),
            .close_sent = source.lifecycle.closing.close_sent,
            .host = source.options.host,
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

/// Raises `class(message, *arguments)`; takes the references of the arguments.
fn raiseWith(class: *py.Object, message: []const u8, arguments: anytype) py.Error {
    var values: [1 + arguments.len]?*py.Object = undefined;
    values[0] = try py.string(message);
    defer for (values) |value| py.decrefOptional(value);
    inline for (arguments, 1..) |argument, index| values[index] = argument;
    const called = c.PyObject_Vectorcall(class, @ptrCast(&values), values.len, null);
    const exception = try py.check(called);
    defer py.decref(exception);
    c.PyErr_SetObject(class, exception);
    return error.PythonError;
}

fn raiseText(class: *py.Object, comptime format: []const u8, arguments: anytype) py.Error {
    var buffer: [1024]u8 = undefined;
    return raiseWith(class, py.formatMessage(&buffer, format, arguments), .{});
}

// ---- Before a connection is open. --------------------------------------------------------------

pub fn raiseInvalidUrl(url: []const u8, problem: []const u8) py.Error {
    const shown: core.http.url.Shown = .init(url); // An exception ends up in logs.
    return raiseText(classes.?.InvalidURL, "{s}: {f}", .{ problem, shown });
}

/// Raises with the core's text, which explains what was tried and what to do.
pub fn raiseLibrary(err: core.ssl.libssl.LoadError) py.Error {
    return switch (err) {
        error.LibraryNotFound, error.SymbolMissing => {
            return raiseWith(classes.?.TLSError, core.ssl.libssl.failure(), .{});
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

pub fn raiseContext(err: core.ssl.Context.InitError, failure: core.ssl.Failure) py.Error {
    const file = switch (err) {
        error.OutOfMemory => return py.noMemory(),
        error.CaFileUnusable => "ca_file",
        error.CertFileUnusable => "cert_file",
        error.KeyFileUnusable => "key_file",
        error.CiphersUnusable => return py.raiseFormat(
            c.PyExc_ValueError,
            "ciphers cannot be used: {s}",
            .{failure.reason},
        ),
    };
    return raiseTls("cannot use ", file, failure, "");
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
    return raiseConnectionClosed(closed.code, closed.reason);
}

pub fn raiseSend(err: connection.SendError, unsent: Unsent, facts: Facts) py.Error {
    switch (err) {
        error.NotOpen => {
            if (facts.closed != null) return raiseClosed(facts);
            if (facts.state == .closing) {
                return raiseConnectionClosed(facts.close_sent orelse 1006, "closing");
            }
            return py.raise(c.PyExc_RuntimeError, "not connected: call connect() first");
        },
        error.Disconnected => return raiseConnectionClosed(1006, "the socket cannot be written"),
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

pub fn raiseBodyTooBig(size_max: usize) py.Error {
    const message = "the body is larger than max_body_size ({d})";
    return py.raiseFormat(c.PyExc_ValueError, message, .{size_max});
}

/// Raises for a plain response of the server instead of the upgrade.
fn raiseRefused(refusal: Refusal) py.Error {
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
    return raiseWith(classes.?.HandshakeError, message, .{ status, headers, body });
}

fn raiseFailure(failure: Failure, facts: Facts) py.Error {
    const host = facts.host;
    const known = classes.?;
    switch (failure) {
        .resolve => |err| return raiseText(known.ConnectError, "{s}: {s}", .{
            describeResolve(err), host,
        }),
        .open_socket => |err| return raiseText(known.ConnectError, "no socket for {s}: {s}", .{
            host, describeCause(err),
        }),
        .connect => |connect| return raiseText(known.ConnectError, "{s} ({f}): {s}", .{
            host, connect.address, describeCause(connect.cause),
        }),
        .timed_out => |stage| return raiseText(known.ConnectTimeout, "timed out: {s} {s}", .{
            describeStage(stage), host,
        }),
        .tls => |tls| return raiseTls(
            if (tls.cause.of_kernel)
                "kernel TLS: "
            else if (tls.in_handshake)
                "the TLS handshake failed: "
            else
                "a TLS record is bad: ",
            "",
            tls.cause,
            if (tls.in_handshake) hintFor(tls.cause) else "",
        ),
        .ended => |ended| return raiseEnded(ended.stage, ended.cause.describe(), host),
        .request => |err| {
            return raiseText(c.PyExc_ValueError, "{s}", .{core.ws.handshake.describe(err)});
        },
        .response => |err| return raiseHandshake(core.http.response.describe(err)),
        .too_many_interim_responses => {
            return raiseHandshake("the server sent more interim responses (1xx) than the " ++
                "client takes");
        },
        .body => |err| return raiseHandshake(core.http.body.describe(err)),
        .upgrade => |err| return raiseHandshake(core.ws.handshake.describe(err)),
        .refused => return raiseRefused(facts.refusal),
        .protocol => |protocol| {
            const class = switch (protocol.cause) {
                error.MessageTooBig => known.MessageTooBig,
                else => known.ProtocolError,
            };
            const code = try py.integer(protocol.code);
            return raiseWith(class, core.ws.describe(protocol.cause), .{code});
        },
        .closed => |closed| return raiseConnectionClosed(closed.code, closed.reason),
    }
}

fn raiseConnectionClosed(code: u16, reason: []const u8) py.Error {
    const class = classes.?.ConnectionClosed;
    const exception = try py.check(c.PyObject_CallFunction(
        class,
        "is#",
        @as(c_int, code),
        reason.ptr,
        @as(c.Py_ssize_t, @intCast(reason.len)),
    ));
    defer py.decref(exception);
    c.PyErr_SetObject(class, exception);
    return error.PythonError;
}

fn raiseEnded(stage: connection.Stage, what: []const u8, host: []const u8) py.Error {
    const format = "{s} while {s} {s}";
    const arguments = .{ what, describeStage(stage), host };
    return switch (stage) {
        .connecting => raiseText(classes.?.ConnectError, format, arguments),
        .securing => raiseText(classes.?.TLSError, format, arguments),
        .requesting, .reading_body => raiseText(classes.?.HandshakeError, format, arguments),
    };
}

fn raiseHandshake(problem: []const u8) py.Error {
    return raiseText(classes.?.HandshakeError, "{s}", .{problem});
}

/// What may have gone wrong if the handshake failed like this.
fn hintFor(failure: core.ssl.Failure) []const u8 {
    const is_no_record = std.mem.eql(u8, failure.reason, "wrong version number");
    return if (is_no_record) " (does the server speak TLS on this port?)" else "";
}

fn raiseTls(
    prefix: []const u8,
    subject: []const u8,
    failure: core.ssl.Failure,
    hint: []const u8,
) py.Error {
    var buffer: [512]u8 = undefined;
    const separator = if (subject.len > 0) ": " else "";
    const verify_separator = if (failure.verify_reason.len > 0) ": " else "";
    const message = py.formatMessage(&buffer, "{s}{s}{s}{s}{s}{s}{s}", .{
        prefix,           subject,               separator, failure.reason,
        verify_separator, failure.verify_reason, hint,
    });
    const reason = try py.string(failure.reason);
    const verify_code = try py.integer(@as(i64, failure.verify_code));
    const verify_reason = try py.string(failure.verify_reason);
    return raiseWith(classes.?.TLSError, message, .{ reason, verify_code, verify_reason });
}

fn describeStage(stage: connection.Stage) []const u8 {
    return switch (stage) {
        .connecting => "connecting to",
        .securing => "in the TLS handshake with",
        .requesting => "waiting for the HTTP response of",
        .reading_body => "reading the HTTP body of",
    };
}

fn describeResolve(err: core.os.ResolveError) []const u8 {
    return switch (err) {
        error.NameNotFound => "the name does not resolve",
        error.TemporaryFailure => "no name server answered",
        error.ResolverFailure => "the name server failed",
        error.OutOfMemory => "no memory to resolve the name",
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

pub fn raiseTune(err: core.os.TuneError) py.Error {
    return switch (err) {
        error.PermissionDenied => raiseErrno(.PERM),
        error.MemoryLockLimit => raiseErrno(.NOMEM),
        error.InvalidCpu => py.raise(c.PyExc_ValueError, "no such CPU, or not one of this process"),
        error.InvalidPriority => py.raise(c.PyExc_ValueError, "a priority lies between 1 and 99"),
        error.Unsupported => py.raise(c.PyExc_NotImplementedError, "not on this system"),
        error.Unexpected => py.raise(c.PyExc_OSError, "unexpected error of the kernel"),
    };
}
