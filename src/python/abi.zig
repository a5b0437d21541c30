//! What the binding assumes about CPython's ABI, checked when it is compiled.
//!
//! The headers may come from another machine than the target. Their pyconfig.h has to be right for
//! the target, and the structures that the binding accesses have to be those of the CPython that
//! will load it. Their sizes are a part of its ABI, the same on every LP64 system.

const std = @import("std");
const assert = std.debug.assert;
const c = @import("python");

comptime {
    assert(c.SIZEOF_LONG == @sizeOf(c_long));
    assert(c.SIZEOF_LONG_LONG == @sizeOf(c_longlong));
    assert(c.SIZEOF_VOID_P == @sizeOf(*anyopaque));
    assert(c.SIZEOF_SIZE_T == @sizeOf(usize));
    assert(c.SIZEOF_WCHAR_T == @sizeOf(c.wchar_t));
    assert(@sizeOf(c.Py_ssize_t) == @sizeOf(*anyopaque));
}

/// Without the GIL (PEP 703), an object begins with a thread, a mutex and two reference counts.
const header_size = if (@hasDecl(c, "Py_GIL_DISABLED")) 32 else 16;

comptime {
    assert(@sizeOf(c.PyObject) == header_size);
    assert(@offsetOf(c.PyTypeObject, "tp_flags") == header_size + 152);
    assert(@offsetOf(c.PyTypeObject, "tp_vectorcall_offset") == header_size + 40);
    assert(@sizeOf(c.Py_buffer) == 80);
    assert(@offsetOf(c.PyMemoryViewObject, "view") == header_size + 40);
}
