//! Counts forks, so that a client in a forked child can tell that the parent made it.
//!
//! A forked child shares the client's socket and its rings: both processes would read one stream,
//! and seal with the same nonces. So a client can only be used in the process that made it.
//! Comparing process ids would take a system call for every sent message; instead, a hook that
//! Python calls in the child counts the forks.

const py = @import("py.zig");
const c = py.c;

/// The number of forks between the process that imported the module and this one. It changes only
/// while the child has no second thread.
var generation: u32 = 0;

pub inline fn current() u32 {
    return generation;
}

/// Registers the hook. Call it once, when the module is imported.
pub fn register() py.Error!void {
    const os = try py.check(c.PyImport_ImportModule("os"));
    defer py.decref(os);
    const function = try py.check(c.PyObject_GetAttrString(os, "register_at_fork"));
    defer py.decref(function);
    const hook = try py.check(c.PyCMethod_New(&methods[0], null, null, null));
    defer py.decref(hook);
    const keywords = try py.check(c.Py_BuildValue("{sO}", "after_in_child", hook));
    defer py.decref(keywords);
    const arguments = try py.check(c.PyTuple_New(0));
    defer py.decref(arguments);
    py.decref(try py.check(c.PyObject_Call(function, arguments, keywords)));
}

fn afterInChild(_: ?*py.Object, _: ?*py.Object) callconv(.c) ?*py.Object {
    generation +%= 1;
    return py.none();
}

var methods = [_]c.PyMethodDef{.{
    .ml_name = "after_in_child",
    .ml_meth = @ptrCast(&afterInChild),
    .ml_flags = c.METH_NOARGS,
    .ml_doc = null,
}};
