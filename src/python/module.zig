//! The extension module `hftws._core`: types and functions that Python sees.

const std = @import("std");
const builtin = @import("builtin");
const core = @import("core");
const py = @import("py.zig");
const c = py.c;
const docs = @import("docs.zig");
const exceptions = @import("exceptions.zig");
const fork = @import("fork.zig");
const Client = @import("client.zig").Client;
const Loop = @import("loop.zig").Loop;
const Message = @import("message.zig").Message;
const ModuleState = @import("module_state.zig").ModuleState;
const options = @import("options.zig");
const Reservation = @import("reservation.zig").Reservation;

comptime {
    _ = @import("abi.zig");
}

/// For its stack trace, Zig's default panic pulls in a reader of debugging information and most of
/// `std.Io`: a third of the module, and calls such as statx that an older musl does not have. So a
/// build without debugging information prints only the message.
pub const panic = switch (builtin.mode) {
    .fast, .small => std.debug.FullPanic(panicBriefly),
    .safe, .debug => std.debug.FullPanic(std.debug.defaultPanic),
};

fn panicBriefly(message: []const u8, _: ?usize) noreturn {
    for ([_][]const u8{ "hftws: ", message, "\n" }) |part| {
        _ = std.c.write(std.c.STDERR_FILENO, part.ptr, part.len);
    }
    std.c.abort();
}

export fn PyInit__core() callconv(.c) ?*py.Object {
    return c.PyModuleDef_Init(&definition);
}

var definition: c.PyModuleDef = .{
    .m_name = "_core",
    .m_doc = "The Zig core of hftws.",
    .m_methods = &methods,
    .m_slots = &slots,
};

var slots = [_]c.PyModuleDef_Slot{
    .{ .slot = c.Py_mod_exec, .value = @ptrCast(@constCast(&execute)) },
} ++ single_interpreter ++ without_gil ++ [_]c.PyModuleDef_Slot{.{}};

/// Python 3.12 and later check this slot, and raise in an isolated sub-interpreter.
const single_interpreter = if (@hasDecl(c, "Py_mod_multiple_interpreters"))
    [_]c.PyModuleDef_Slot{.{ .slot = c.Py_mod_multiple_interpreters, .value = null }}
else
    [_]c.PyModuleDef_Slot{};

/// Python 3.13 and later check this slot: the module needs no GIL. Clients share only globals that
/// never change once made (tests/test_tidy.py lists them). One thread at a time is inside a client
/// (driving.zig). Other threads may use kept messages: their bytes do not change, fields that do
/// are read in a section (message.zig), and any thread may release a pin (ringbuffer.zig).
const without_gil = if (@hasDecl(c, "Py_mod_gil"))
    [_]c.PyModuleDef_Slot{.{ .slot = c.Py_mod_gil, .value = c.Py_MOD_GIL_NOT_USED }}
else
    [_]c.PyModuleDef_Slot{};

fn execute(module: *py.Object) callconv(.c) c_int {
    requireMainInterpreter() catch return -1;
    addTypes(module) catch return -1;
    return 0;
}

/// Refuses sub-interpreters: `ModuleState` has objects of one interpreter, which others must not
/// use.
fn requireMainInterpreter() py.Error!void {
    if (c.PyInterpreterState_Get() == c.PyInterpreterState_Main()) return;
    return py.raise(c.PyExc_ImportError, "hftws cannot be imported in a sub-interpreter");
}

fn addTypes(module: *py.Object) py.Error!void {
    if (!ModuleState.isSet()) {
        try exceptions.load();
        try fork.register();
        ModuleState.set(try makeState(module));
    }
    const state = ModuleState.get();
    const names = .{ "client_type", "loop_type", "message_type", "reservation_type" };
    inline for (names) |name| {
        try py.checkStatus(c.PyModule_AddType(module, @field(state, name)));
    }
    const version = core.constants.version;
    try py.checkStatus(c.PyModule_AddStringConstant(module, "__version__", version));
}

fn makeState(module: *py.Object) py.Error!ModuleState {
    const client_type = try makeType(module, &Client.spec);
    errdefer py.decref(@ptrCast(client_type));
    const loop_type = try makeType(module, &Loop.spec);
    errdefer py.decref(@ptrCast(loop_type));
    const message_type = try makeType(module, &Message.spec);
    errdefer py.decref(@ptrCast(message_type));
    return .{
        .client_type = client_type,
        .loop_type = loop_type,
        .message_type = message_type,
        .reservation_type = try makeType(module, &Reservation.spec),
        .clock = .init(),
    };
}

fn makeType(module: *py.Object, spec: *c.PyType_Spec) py.Error!*c.PyTypeObject {
    return @ptrCast(try py.check(c.PyType_FromModuleAndSpec(module, spec, null)));
}

fn pinThread(_: ?*py.Object, argument: *py.Object) callconv(.c) ?*py.Object {
    const cpu = py.integerArgument("cpu of pin_thread()", "an int", argument) catch return null;
    const number = std.math.cast(u32, cpu) orelse std.math.maxInt(u32);
    core.os.Os.pinThread(number) catch |err| {
        exceptions.raiseTune(err, "pin_thread()", argument) catch return null;
    };
    return py.none();
}

fn setRealtimePriority(_: ?*py.Object, argument: *py.Object) callconv(.c) ?*py.Object {
    const name = "priority of set_realtime_priority()";
    const priority = py.integerArgument(name, "an int", argument) catch return null;
    const number = std.math.cast(u8, priority) orelse 0;
    core.os.Os.setRealtimePriority(number) catch |err| {
        exceptions.raiseTune(err, "set_realtime_priority()", argument) catch return null;
    };
    return py.none();
}

fn lockMemory(_: ?*py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    core.os.Os.lockMemory() catch |err| {
        exceptions.raiseTune(err, "lock_memory()", null) catch return null;
    };
    return py.none();
}

/// Where the TLS library looks for trusted roots: (file_env, file, directory_env, directory).
fn defaultRoots(_: ?*py.Object, libraries: *py.Object) callconv(.c) ?*py.Object {
    return defaultRootsOf(libraries) catch null;
}

fn defaultRootsOf(libraries: *py.Object) py.Error!*py.Object {
    var arena: std.heap.ArenaAllocator = .init(std.heap.c_allocator);
    defer arena.deinit();
    const api = try options.loadLibrary(arena.allocator(), libraries);
    const file = try py.path(std.mem.span(api.X509_get_default_cert_file()));
    defer py.decref(file);
    const directory = try py.path(std.mem.span(api.X509_get_default_cert_dir()));
    defer py.decref(directory);
    return py.check(c.Py_BuildValue(
        "(sOsO)",
        api.X509_get_default_cert_file_env(),
        file,
        api.X509_get_default_cert_dir_env(),
        directory,
    ));
}

/// A URL without credentials.
fn safeUrl(_: ?*py.Object, url: *py.Object) callconv(.c) ?*py.Object {
    return safeUrlOf(url) catch null;
}

fn safeUrlOf(url: *py.Object) py.Error!*py.Object {
    const text = try py.utf8(url);
    const shown: core.http.url.Shown = .init(text);
    var writer: std.Io.Writer.Allocating = .init(std.heap.c_allocator);
    defer writer.deinit();
    writer.writer.print("{f}", .{shown}) catch return py.noMemory();
    return py.string(writer.written());
}

/// One GET by a client that was made for it.
fn fetch(_: ?*py.Object, object: *py.Object) callconv(.c) ?*py.Object {
    return fetchOf(object) catch null;
}

fn fetchOf(object: *py.Object) py.Error!*py.Object {
    const client_type: *py.Object = @ptrCast(ModuleState.get().client_type);
    const is_client = c.PyObject_IsInstance(object, client_type);
    try py.checkStatus(is_client);
    if (is_client == 0) {
        const name = "the argument of fetch()";
        return py.raiseValue(c.PyExc_TypeError, name, "a client", object);
    }
    return Client.fetchExclusively(Client.instance.of(object));
}

fn useLibssl(_: ?*py.Object, file: *py.Object) callconv(.c) ?*py.Object {
    return useLibsslFile(file) catch null;
}

fn useLibsslFile(file: *py.Object) py.Error!*py.Object {
    _ = core.ssl.libssl.use(try py.pathBytes(file)) catch |err| return exceptions.raiseUse(err);
    return py.none();
}

fn function(
    name: [:0]const u8,
    implementation: anytype,
    flags: c_int,
    doc: [:0]const u8,
) c.PyMethodDef {
    return .{
        .ml_name = name.ptr,
        .ml_meth = @ptrCast(implementation),
        .ml_flags = flags,
        .ml_doc = doc.ptr,
    };
}

var methods = [_]c.PyMethodDef{
    function("pin_thread", &pinThread, c.METH_O,
        \\pin_thread(cpu, /)
        \\--
        \\
        \\Keeps the calling thread on one CPU, and on Linux the threads with which the system looks
        \\up names for clients that connect in it: these run there while it sleeps.
        \\
        \\On Intel Macs it is a hint: threads given the same CPU share a cache, others do not.
        \\Raises ValueError for a CPU that this process may not use, NotImplementedError on Apple
        \\silicon, which has no such thing.
    ),
    function("set_realtime_priority", &setRealtimePriority, c.METH_O,
        \\set_realtime_priority(priority, /)
        \\--
        \\
        \\Runs the calling thread ahead of all ordinary ones (SCHED_FIFO, 1 to 99).
        \\
        \\On macOS by a time constraint of 0.5 ms in 1 ms, whatever the number: it is not for
        \\busy_poll=True, since the kernel demotes a thread that runs for a second without sleep.
        \\Raises PermissionError without the privilege, which macOS does not ask for.
    ),
    function("lock_memory", &lockMemory, c.METH_NOARGS,
        \\lock_memory()
        \\--
        \\
        \\Keeps all memory of this process, present and future, out of the swap (mlockall).
        \\
        \\Raises OSError where a limit forbids it, NotImplementedError on macOS.
    ),
    function("fetch", &fetch, c.METH_O, docs.fetch),
    function("default_roots", &defaultRoots, c.METH_O,
        \\default_roots(tls_libraries, /)
        \\--
        \\
        \\Where the TLS library looks for trusted roots: file_env, file, directory_env, directory.
    ),
    function("safe_url", &safeUrl, c.METH_O,
        \\safe_url(url, /)
        \\--
        \\
        \\The URL as it may be shown: without what looks like a password or a key.
    ),
    function("use_libssl", &useLibssl, c.METH_O,
        \\use_libssl(file, /)
        \\--
        \\
        \\Loads this libssl and no other. See hftws.use_libssl.
    ),
    .{},
};
