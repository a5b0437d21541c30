//! Zig wrappers for the parts of the CPython API that are awkward to call directly.
//!
//! Rule of the binding: a Zig function that can raise returns `Error!T` with the Python exception
//! already set; the wrappers here turn that into what CPython expects. `c` is the translated
//! Python.h, which no other folder imports.

const std = @import("std");
const builtin = @import("builtin");
const assert = std.debug.assert;
pub const c = @import("python");

pub const Object = c.PyObject;

/// Whether this CPython was built to run without the GIL (PEP 703). It may still have been started
/// with the GIL.
pub const free_threaded = @hasDecl(c, "Py_GIL_DISABLED");

/// The id that CPython writes into the header of each object that this thread makes: `_Py_ThreadId`
/// of object.h, which Zig cannot translate. Never 0.
pub inline fn currentThread() usize {
    return switch (builtin.cpu.arch) {
        .x86_64 => switch (builtin.os.tag) {
            .macos => asm ("movq %%gs:0, %[id]"
                : [id] "=r" (-> usize),
            ),
            else => asm ("movq %%fs:0, %[id]"
                : [id] "=r" (-> usize),
            ),
        },
        .aarch64 => switch (builtin.os.tag) {
            .macos => asm ("mrs %[id], tpidrro_el0"
                : [id] "=r" (-> usize),
            ),
            else => asm ("mrs %[id], tpidr_el0"
                : [id] "=r" (-> usize),
            ),
        },
        else => @compileError("hftws supports x86-64 and AArch64"),
    };
}

/// A Python exception is set. One member is enough: the exception has the details.
pub const Error = error{PythonError};

/// Turns a null from the C API into an error. The exception is already set then.
pub fn check(object: ?*Object) Error!*Object {
    return object orelse error.PythonError;
}

/// Turns a -1 from the C API into an error. The exception is already set then.
pub fn checkStatus(status: c_int) Error!void {
    if (status < 0) return error.PythonError;
}

/// The message may hold bytes that are not UTF-8, such as a path.
pub noinline fn raise(exception: ?*Object, message: []const u8) Error {
    @branchHint(.cold);
    const text = try string(message);
    defer decref(text);
    c.PyErr_SetObject(exception, text);
    return error.PythonError;
}

/// Raises with a formatted message of at most 1023 bytes, which is enough for all messages here.
pub fn raiseFormat(exception: ?*Object, comptime format: []const u8, arguments: anytype) Error {
    var buffer: [1024]u8 = undefined;
    return raise(exception, formatMessage(&buffer, format, arguments));
}

/// Raises "`name` has to be `allowed`, not" and the value, or its beginning.
pub fn raiseValue(
    exception: ?*Object,
    name: [:0]const u8,
    allowed: [:0]const u8,
    value: *Object,
) Error {
    const format = "%s has to be %s, not %.100R";
    _ = c.PyErr_Format(exception, format, name.ptr, allowed.ptr, value);
    return error.PythonError;
}

pub fn noMemory() Error {
    _ = c.PyErr_NoMemory();
    return error.PythonError;
}

/// Takes the exception that is set; a new reference.
pub fn takeException() *Object {
    var class: ?*Object = null;
    var value: ?*Object = null;
    var traceback: ?*Object = null;
    c.PyErr_Fetch(@ptrCast(&class), @ptrCast(&value), @ptrCast(&traceback));
    c.PyErr_NormalizeException(@ptrCast(&class), @ptrCast(&value), @ptrCast(&traceback));
    if (traceback) |found| _ = c.PyException_SetTraceback(value, found);
    decrefOptional(class);
    decrefOptional(traceback);
    return value.?;
}

/// Sets an exception that was taken.
pub fn setException(exception: *Object) void {
    c.PyErr_SetObject(typeObjectOf(exception), exception);
}

pub fn formatMessage(
    buffer: []u8,
    comptime format: []const u8,
    arguments: anytype,
) [:0]const u8 {
    var writer: std.Io.Writer = .fixed(buffer[0 .. buffer.len - 1]);
    writer.print(format, arguments) catch {}; // The rest is cut off.
    const size = writer.buffered().len;
    buffer[size] = 0;
    return buffer[0..size :0];
}

pub fn none() *Object {
    return c.Py_NewRef(c.Py_None()).?;
}

/// A new reference to `object`, or to None.
pub fn optional(object: ?*Object) *Object {
    return c.Py_NewRef(object orelse c.Py_None()).?;
}

pub fn isNone(object: *Object) bool {
    return object == @as(?*Object, c.Py_None());
}

/// The truth of an object; `default` if it is null or None.
pub fn isTrue(object: ?*Object, default: bool) Error!bool {
    const value = object orelse return default;
    if (isNone(value)) return default;
    const truth = c.PyObject_IsTrue(value);
    try checkStatus(truth);
    return truth != 0;
}

pub fn boolean(value: bool) *Object {
    return c.PyBool_FromLong(@intFromBool(value)).?; // Never fails.
}

pub fn integer(value: anytype) Error!*Object {
    return check(switch (@typeInfo(@TypeOf(value)).int.signedness) {
        .signed => c.PyLong_FromLongLong(value),
        .unsigned => c.PyLong_FromUnsignedLongLong(value),
    });
}

/// A str of UTF-8 from the peer, such as a close reason or a header.
pub fn string(text: []const u8) Error!*Object {
    return check(c.PyUnicode_DecodeUTF8(text.ptr, @intCast(text.len), "surrogateescape"));
}

pub fn bytes(data: []const u8) Error!*Object {
    return check(c.PyBytes_FromStringAndSize(data.ptr, @intCast(data.len)));
}

/// The UTF-8 of a str, which the object owns.
pub fn utf8(object: *Object) Error![:0]const u8 {
    var size: c.Py_ssize_t = 0;
    const text = c.PyUnicode_AsUTF8AndSize(object, &size) orelse return error.PythonError;
    return text[0..@intCast(size) :0];
}

/// A str of a path, as `os.fsdecode` makes it.
pub fn path(file: []const u8) Error!*Object {
    return check(c.PyUnicode_DecodeFSDefaultAndSize(file.ptr, @intCast(file.len)));
}

/// The bytes of a path that Python has encoded (`os.fsencode`), without a 0.
pub fn pathBytes(object: *Object) Error![:0]const u8 {
    const text = c.PyBytes_AsString(object) orelse return error.PythonError;
    return std.mem.span(@as([*:0]const u8, @ptrCast(text)));
}

/// The UTF-8 of an argument that has to be a str. `name` is for exceptions.
pub fn textArgument(name: [:0]const u8, object: *Object) Error![:0]const u8 {
    if (!isUnicode(object)) return raiseValue(c.PyExc_TypeError, name, "a str", object);
    return utf8(object) catch |err| {
        if (c.PyErr_ExceptionMatches(c.PyExc_UnicodeEncodeError) == 0) return err;
        c.PyErr_Clear();
        return raiseFormat(c.PyExc_ValueError, "{s} holds a lone surrogate", .{name});
    };
}

/// The value of an argument that has to be a number. `allowed` is for exceptions.
pub fn numberArgument(name: [:0]const u8, allowed: [:0]const u8, object: *Object) Error!f64 {
    const number = c.PyFloat_AsDouble(object);
    if (number != -1.0 or c.PyErr_Occurred() == null) return number;
    return raiseBadNumber(name, allowed, object);
}

/// The value of an argument that has to be an integer. `allowed` is for exceptions.
pub fn integerArgument(
    name: [:0]const u8,
    allowed: [:0]const u8,
    object: *Object,
) Error!c.Py_ssize_t {
    const number = c.PyNumber_AsSsize_t(object, c.PyExc_OverflowError);
    if (number != -1 or c.PyErr_Occurred() == null) return number;
    return raiseBadNumber(name, allowed, object);
}

/// Raises in place of the exception that is set, because Python's names neither the argument nor
/// the value. An exception of the object's own methods is left as it is.
fn raiseBadNumber(name: [:0]const u8, allowed: [:0]const u8, object: *Object) Error {
    const exception, const said = if (c.PyErr_ExceptionMatches(c.PyExc_TypeError) != 0)
        .{ c.PyExc_TypeError, allowed }
    else if (c.PyErr_ExceptionMatches(c.PyExc_OverflowError) != 0)
        .{ c.PyExc_ValueError, "a smaller number" }
    else
        return error.PythonError;
    c.PyErr_Clear();
    return raiseValue(exception, name, said, object);
}

pub fn isUnicode(object: *Object) bool {
    return hasFeature(typeOf(object), c.Py_TPFLAGS_UNICODE_SUBCLASS);
}

/// Puts `value` into a dict; takes its reference. `value` may be an error, which is returned.
pub fn setItem(dict: *Object, key: [:0]const u8, value: Error!*Object) Error!void {
    const object = try value;
    defer decref(object);
    try checkStatus(c.PyDict_SetItemString(dict, key.ptr, object));
}

/// A Python object with a Zig struct behind its header.
pub fn Instance(comptime T: type) type {
    return struct {
        comptime {
            assert(@alignOf(T) <= 16); // The alignment of CPython's allocators.
        }
        const offset = std.mem.alignForward(usize, @sizeOf(Object), @alignOf(T));
        pub const size = offset + @sizeOf(T);

        pub fn of(object: *Object) *T {
            return @ptrFromInt(@intFromPtr(object) + offset);
        }

        pub fn objectOf(instance: *T) *Object {
            return @ptrFromInt(@intFromPtr(instance) - offset);
        }

        /// A METH_NOARGS method.
        pub fn noArguments(
            comptime name: [:0]const u8,
            comptime function: fn (*T) Error!*Object,
            comptime doc: [:0]const u8,
        ) c.PyMethodDef {
            const wrapper = struct {
                fn call(self: *Object, _: ?*Object) callconv(.c) ?*Object {
                    return function(of(self)) catch null;
                }
            };
            return .{
                .ml_name = name.ptr,
                .ml_meth = @ptrCast(&wrapper.call),
                .ml_flags = c.METH_NOARGS,
                .ml_doc = doc.ptr,
            };
        }

        /// A METH_FASTCALL | METH_KEYWORDS method.
        pub fn method(
            comptime name: [:0]const u8,
            comptime function: fn (*T, Arguments) Error!*Object,
            comptime doc: [:0]const u8,
        ) c.PyMethodDef {
            const wrapper = struct {
                fn call(
                    self: *Object,
                    values: [*]const *Object,
                    count: c.Py_ssize_t,
                    names: ?*Object,
                ) callconv(.c) ?*Object {
                    return function(of(self), .{
                        .values = values,
                        .positional_count = @intCast(count),
                        .names = names,
                    }) catch null;
                }
            };
            return .{
                .ml_name = name.ptr,
                .ml_meth = @ptrCast(&wrapper.call),
                .ml_flags = c.METH_FASTCALL | c.METH_KEYWORDS,
                .ml_doc = doc.ptr,
            };
        }

        pub fn getter(
            comptime name: [:0]const u8,
            comptime function: fn (*T) Error!*Object,
            comptime doc: [:0]const u8,
        ) c.PyGetSetDef {
            const wrapper = struct {
                fn get(self: *Object, _: ?*anyopaque) callconv(.c) ?*Object {
                    return function(of(self)) catch null;
                }
            };
            return .{ .name = name.ptr, .get = @ptrCast(&wrapper.get), .doc = doc.ptr };
        }
    };
}

/// The arguments of a METH_FASTCALL | METH_KEYWORDS method. They are borrowed from the caller.
pub const Arguments = struct {
    values: [*]const *Object,
    positional_count: usize,
    names: ?*Object,

    /// Returns the arguments in the order of the names. The first `positional_max` names may be
    /// given by position.
    pub fn bind(
        arguments: Arguments,
        comptime names: []const [:0]const u8,
        comptime positional_max: usize,
    ) Error![names.len]?*Object {
        return arguments.bindTo("the method", names, positional_max);
    }

    /// The same, where exceptions begin with the name of the method.
    pub fn bindTo(
        arguments: Arguments,
        comptime method: []const u8,
        comptime names: []const [:0]const u8,
        comptime positional_max: usize,
    ) Error![names.len]?*Object {
        var bound: [names.len]?*Object = @splat(null);
        if (arguments.positional_count > positional_max) {
            const plural = if (positional_max == 1) "" else "s";
            const message = method ++ " takes at most {d} positional argument" ++ plural ++
                " ({d} given)";
            return raiseFormat(c.PyExc_TypeError, message, .{
                positional_max, arguments.positional_count,
            });
        }
        const positional = arguments.values[0..arguments.positional_count];
        for (positional, bound[0..positional.len]) |value, *place| place.* = value;
        const keywords = arguments.names orelse return bound;
        const count: usize = @intCast(c.PyTuple_Size(keywords));
        for (arguments.values[arguments.positional_count..][0..count], 0..) |value, index| {
            const name = try utf8(c.PyTuple_GetItem(keywords, @intCast(index)).?);
            try placeByName(method, names, &bound, name, value);
        }
        return bound;
    }

    fn placeByName(
        comptime method: []const u8,
        comptime names: []const [:0]const u8,
        bound: *[names.len]?*Object,
        name: []const u8,
        value: *Object,
    ) Error!void {
        inline for (names, bound) |known, *place| {
            if (std.mem.eql(u8, known, name)) {
                if (place.* == null) {
                    place.* = value;
                    return;
                }
                const message = method ++ " got '{s}' twice";
                return raiseFormat(c.PyExc_TypeError, message, .{name});
            }
        }
        const message = method ++ " got an unexpected keyword argument '{s}'";
        return raiseFormat(c.PyExc_TypeError, message, .{name});
    }
};

fn hasFeature(type_object: *c.PyTypeObject, feature: c_ulong) bool {
    return @atomicLoad(c_ulong, &type_object.tp_flags, .monotonic) & feature != 0;
}

/// The type of `object`, borrowed.
pub fn typeOf(object: *Object) *c.PyTypeObject {
    return object.ob_type;
}

/// The same as an object, for the garbage collector.
pub fn typeObjectOf(object: *Object) *Object {
    return @ptrCast(typeOf(object));
}

/// PyObject_CallOneArg, directly by the slot of the vectorcall protocol (PEP 590). The C function
/// makes checks around the call that the callee makes again.
pub inline fn callWithOne(callable: *Object, argument: *Object) ?*Object {
    const type_object = typeOf(callable);
    if (hasFeature(type_object, c.Py_TPFLAGS_HAVE_VECTORCALL)) {
        const offset: usize = @intCast(type_object.tp_vectorcall_offset);
        const place: *align(1) const c.vectorcallfunc = @ptrFromInt(@intFromPtr(callable) + offset);
        if (place.*) |function| {
            // The free place before the arguments is for the object of a bound method.
            var arguments = [_]?*Object{ null, argument };
            const count = 1 | c.PY_VECTORCALL_ARGUMENTS_OFFSET;
            return function(callable, @ptrCast(arguments[1..]), count, null);
        }
    }
    return c.PyObject_CallOneArg(callable, argument);
}

/// Gives a reference back. Does not use the inline function of Python.h: Zig mistranslates its
/// variant without the GIL, because of C's atomics, and that of a debug build has other arguments.
pub inline fn decref(object: *Object) void {
    if (free_threaded or @hasDecl(c, "Py_REF_DEBUG")) {
        c.Py_DecRef(object);
    } else {
        c.Py_DECREF(object);
    }
}

pub inline fn decrefOptional(object: ?*Object) void {
    if (object) |found| decref(found);
}

/// Whether `hasReferences` can count. Without the GIL, only the thread that made the object can.
pub inline fn isOwn(object: *Object) bool {
    if (!free_threaded) return true;
    return @atomicLoad(usize, &object.ob_tid, .monotonic) == currentThread();
}

/// Whether there are exactly `count` references. The caller knows all of these, so that if true, no
/// other thread has one or can get one. False when they cannot be counted.
pub inline fn hasReferences(object: *Object, count: c.Py_ssize_t) bool {
    if (!free_threaded) return referenceCount(object) == count;
    // The owning thread counts its references in one field, all others in another (PEP 703). In
    // another thread, both may change between two reads. Acquire: all use of a reference happened
    // before it was given up.
    if (!isOwn(object)) return false;
    const own: c.Py_ssize_t = @atomicLoad(u32, &object.ob_ref_local, .monotonic);
    const shared = @atomicLoad(c.Py_ssize_t, &object.ob_ref_shared, .acquire);
    return own + (shared >> c._Py_REF_SHARED_SHIFT) == count;
}

/// The number of references. Up to Python 3.11 this is a field, later a function.
fn referenceCount(object: *Object) c.Py_ssize_t {
    if (comptime @hasField(Object, "ob_refcnt")) return object.ob_refcnt;
    return c.Py_REFCNT(object);
}

/// A critical section of an object, which excludes other threads where there is no GIL. As with the
/// GIL, a thread that blocks inside lets others in: nothing in a section may call back into Python.
pub const Section = if (free_threaded) struct {
    state: c.PyCriticalSection,

    pub inline fn enter(section: *Section, object: *Object) void {
        c.PyCriticalSection_Begin(&section.state, object);
    }

    pub inline fn leave(section: *Section) void {
        c.PyCriticalSection_End(&section.state);
    }
} else struct {
    pub inline fn enter(_: *Section, _: *Object) void {}

    pub inline fn leave(_: *Section) void {}
};

/// The function in a slot of a type. The second cast is for targets where functions are aligned,
/// which a void pointer is not.
pub fn typeSlot(
    type_object: *c.PyTypeObject,
    comptime id: c_int,
    comptime Function: type,
) *const Function {
    return @ptrCast(@alignCast(c.PyType_GetSlot(type_object, id).?));
}

/// A new, zeroed instance of a heap type.
pub fn allocate(type_object: *c.PyTypeObject) Error!*Object {
    const Allocate = fn (*c.PyTypeObject, c.Py_ssize_t) callconv(.c) ?*Object;
    return check(typeSlot(type_object, c.Py_tp_alloc, Allocate)(type_object, 0));
}

/// Gives the memory of an instance back, and its reference to the type: the end of a deallocator.
pub fn free(object: *Object) void {
    const type_object = typeObjectOf(object);
    typeSlot(typeOf(object), c.Py_tp_free, fn (*Object) callconv(.c) void)(object);
    decref(type_object);
}

/// What Py_VISIT does, for each of `members`, a tuple of optional objects.
pub fn visitAll(members: anytype, visit: c.visitproc, argument: ?*anyopaque) c_int {
    inline for (members) |member| {
        if (@as(?*Object, member)) |found| {
            const status = visit.?(found, argument);
            if (status != 0) return status;
        }
    }
    return 0;
}

/// What Py_CLEAR does: empties the place, then gives the reference back, which may run Python code.
pub fn clearReference(place: *?*Object) void {
    const object = place.*;
    place.* = null;
    decrefOptional(object);
}

pub fn slot(comptime id: c_int, value: *const anyopaque) c.PyType_Slot {
    return .{ .slot = id, .pfunc = @constCast(value) };
}

/// The bytes of an object with the buffer protocol. Release it when done.
pub const Bytes = struct {
    view: c.Py_buffer,

    pub fn init(object: *Object) Error!Bytes {
        var result: Bytes = undefined;
        try checkStatus(c.PyObject_GetBuffer(object, &result.view, c.PyBUF_SIMPLE));
        return result;
    }

    /// The same, where a TypeError names the argument.
    pub fn ofArgument(name: [:0]const u8, object: *Object) Error!Bytes {
        return init(object) catch |err| {
            if (c.PyErr_ExceptionMatches(c.PyExc_TypeError) == 0) return err;
            c.PyErr_Clear();
            return raiseValue(c.PyExc_TypeError, name, "a str or bytes-like", object);
        };
    }

    pub fn deinit(self: *Bytes) void {
        c.PyBuffer_Release(&self.view);
        self.* = undefined;
    }

    pub fn slice(self: *const Bytes) []const u8 {
        const pointer: [*]const u8 = @ptrCast(self.view.buf orelse return &.{});
        return pointer[0..@intCast(self.view.len)];
    }
};

/// Whether this interpreter has other threads, which might wait for the GIL.
pub fn hasOtherThreads() bool {
    if (free_threaded) return false; // None waits for a GIL; their list could change here.
    const newest = c.PyInterpreterState_ThreadHead(c.PyInterpreterState_Get());
    return c.PyThreadState_Next(newest) != null;
}

/// Gives Python's lock to another thread, if one has asked for it.
pub fn yieldLock() void {
    c.PyEval_RestoreThread(c.PyEval_SaveThread());
}

/// Runs `function` while other Python threads may run.
pub fn withoutLock(
    function: anytype,
    arguments: anytype,
) @TypeOf(@call(.auto, function, arguments)) {
    const state = c.PyEval_SaveThread();
    defer c.PyEval_RestoreThread(state);
    return @call(.auto, function, arguments);
}

/// Without the GIL, an object whose last reference another thread drops is freed by the thread that
/// made it, the next time that it runs Python code (PEP 703, "Biased reference counting").
pub fn freeReleased() Error!void {
    const globals = try check(c.PyDict_New());
    defer decref(globals);
    const input = c.Py_eval_input;
    decref(try check(c.PyRun_StringFlags("None", input, globals, globals, null)));
}
