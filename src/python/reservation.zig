//! The context manager of `Client.reserve`: a writable view of the send ring.
//!
//! The frame is built where it is sent from, so the payload is never copied. Nothing else can be
//! sent while the view exists. A slice that outlives the block could still write into the ring:
//! then the frame is not sent, and the place stays blocked until the slice is freed.

const std = @import("std");
const assert = std.debug.assert;
const core = @import("core");
const py = @import("py.zig");
const c = py.c;
const exceptions = @import("exceptions.zig");
const Driver = @import("driving.zig").Driver;
const ModuleState = @import("module_state.zig").ModuleState;
const Response = @import("response.zig").Response;

pub const Reservation = struct {
    /// The object that `driver` and `response` are parts of. Owned; null once cleared.
    owner: ?*py.Object,
    driver: *Driver,
    /// For exceptions, if the server has refused the upgrade.
    response: *const Response,
    /// The view that `__enter__` returned. Owned.
    view: ?*py.Object,
    payload: []u8,
    size: usize,
    opcode: core.ws.Opcode,
    /// This and `exports` change in the critical section of the reservation: a slice may be freed
    /// in any thread.
    phase: enum { new, entered, left },
    /// How many buffers of `payload` are in use.
    exports: usize,

    pub const instance = py.Instance(Reservation);

    /// Reserves nothing yet: `__enter__` does. Keeps `owner` alive, which `driver` and `response`
    /// are parts of.
    pub fn create(
        owner: *py.Object,
        driver: *Driver,
        response: *const Response,
        opcode: core.ws.Opcode,
        size: usize,
    ) py.Error!*py.Object {
        const object = try py.allocate(ModuleState.get().reservation_type);
        instance.of(object).* = .{
            .owner = c.Py_NewRef(owner).?,
            .driver = driver,
            .response = response,
            .view = null,
            .payload = &.{},
            .size = size,
            .opcode = opcode,
            .phase = .new,
            .exports = 0,
        };
        return object;
    }

    fn enter(reservation: *Reservation) py.Error!*py.Object {
        if (reservation.owner == null) { // The garbage collector has cleared it.
            return py.raise(c.PyExc_RuntimeError, "the client of the reservation is gone");
        }
        const driver = reservation.driver;
        const entrance = try driver.enter();
        defer driver.leave(entrance);
        if (reservation.phase != .new) {
            return py.raise(c.PyExc_RuntimeError, "a reservation can be entered once");
        }
        const size = reservation.size;
        reservation.payload = driver.connection.reserve(reservation.opcode, size) catch |err| {
            return reservation.raiseSend(err, size);
        };
        _ = reservation.setPhase(.entered);
        errdefer {
            _ = reservation.setPhase(.left);
            driver.connection.cancel();
        }
        reservation.view = try py.check(c.PyMemoryView_FromObject(instance.objectOf(reservation)));
        return c.Py_NewRef(reservation.view.?).?;
    }

    fn exit(reservation: *Reservation, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bind(&.{ "type", "value", "traceback" }, 3);
        const driver = reservation.driver;
        if (reservation.phase != .entered) {
            return py.raise(c.PyExc_RuntimeError, "the reservation is not entered");
        }
        try reservation.releaseView();
        const exports = reservation.setPhase(.left);
        const entrance = driver.enter() catch |err| {
            // Another thread is inside: the next call of the client drops the frame.
            if (exports == 0) reservation.abandon();
            return err;
        };
        defer driver.leave(entrance);
        if (exports > 0) {
            return py.raise(
                c.PyExc_BufferError,
                "a slice of the reserved view is still in use: the frame is not sent",
            );
        }
        const failed = if (bound[0]) |exception| !py.isNone(exception) else false;
        if (failed) {
            driver.connection.cancel();
        } else {
            driver.connection.commit() catch |err| return reservation.raiseSend(err, 0);
        }
        return py.none();
    }

    fn raiseSend(reservation: *Reservation, err: core.connection.SendError, size: usize) py.Error {
        const connection = &reservation.driver.connection;
        const unsent: exceptions.Unsent = .of(connection, size);
        return exceptions.raiseSend(err, unsent, .of(connection, reservation.response.refusal()));
    }

    /// Returns how many buffers are in use at that moment.
    fn setPhase(reservation: *Reservation, phase: @FieldType(Reservation, "phase")) usize {
        var section: py.Section = undefined;
        section.enter(instance.objectOf(reservation));
        defer section.leave();
        reservation.phase = phase;
        return reservation.exports;
    }

    fn releaseView(reservation: *Reservation) py.Error!void {
        const view = reservation.view orelse return;
        reservation.view = null;
        defer py.decref(view);
        const released = c.PyObject_CallMethod(view, "release", null) orelse {
            // Another object uses the view itself: `exports` counts it, and `exit` raises.
            if (c.PyErr_ExceptionMatches(c.PyExc_BufferError) == 0) return error.PythonError;
            c.PyErr_Clear();
            return;
        };
        py.decref(released);
    }

    fn getBuffer(object: *py.Object, buffer: *c.Py_buffer, flags: c_int) callconv(.c) c_int {
        const reservation = instance.of(object);
        var section: py.Section = undefined;
        section.enter(object);
        defer section.leave();
        if (reservation.phase != .entered) {
            buffer.obj = null;
            c.PyErr_SetString(c.PyExc_BufferError, "the reservation is not entered");
            return -1;
        }
        const payload = reservation.payload;
        const size: c.Py_ssize_t = @intCast(payload.len);
        const status = c.PyBuffer_FillInfo(buffer, object, payload.ptr, size, 0, flags);
        if (status == 0) reservation.exports += 1;
        return status;
    }

    fn releaseBuffer(object: *py.Object, _: *c.Py_buffer) callconv(.c) void {
        const reservation = instance.of(object);
        var section: py.Section = undefined;
        section.enter(object);
        defer section.leave();
        assert(reservation.exports > 0);
        reservation.exports -= 1;
        // The block has ended, and no slice is left that could write into the place.
        if (reservation.exports == 0 and reservation.phase == .left) reservation.abandon();
    }

    /// Any thread may call it: so the driver only notes it, and drops the frame at the next call.
    fn abandon(reservation: *Reservation) void {
        if (reservation.owner == null) return;
        reservation.driver.abandonReservation();
    }

    fn traverse(object: *py.Object, visit: c.visitproc, argument: ?*anyopaque) callconv(.c) c_int {
        const reservation = instance.of(object);
        const members = .{ py.typeObjectOf(object), reservation.owner, reservation.view };
        return py.visitAll(members, visit, argument);
    }

    fn clear(object: *py.Object) callconv(.c) c_int {
        const reservation = instance.of(object);
        if (reservation.phase == .entered) {
            reservation.phase = .left;
            reservation.abandon();
        }
        py.clearReference(&reservation.view);
        py.clearReference(&reservation.owner);
        return 0;
    }

    fn dealloc(object: *py.Object) callconv(.c) void {
        c.PyObject_GC_UnTrack(object);
        _ = clear(object);
        py.free(object);
    }

    var methods = [_]c.PyMethodDef{
        instance.noArguments("__enter__", enter,
            \\__enter__($self, /)
            \\--
            \\
            \\The place of the payload, a writable memoryview that is yours until the block ends.
            \\
            \\Raises what Client.send() raises.
        ),
        instance.method("__exit__", exit,
            \\__exit__($self, /, type=None, value=None, traceback=None)
            \\--
            \\
            \\Sends the message, or drops it after an exception.
            \\
            \\Raises BufferError, and drops it, when a slice of the view is still in use.
        ),
        .{},
    };

    var slots = [_]c.PyType_Slot{
        py.slot(c.Py_tp_doc, "A frame under construction in the send ring. See Client.reserve."),
        py.slot(c.Py_tp_dealloc, &dealloc),
        py.slot(c.Py_tp_traverse, &traverse),
        py.slot(c.Py_tp_clear, &clear),
        py.slot(c.Py_tp_methods, &methods),
        py.slot(c.Py_bf_getbuffer, &getBuffer),
        py.slot(c.Py_bf_releasebuffer, &releaseBuffer),
        .{},
    };

    pub var spec: c.PyType_Spec = .{
        .name = "hftws.Reservation",
        .basicsize = instance.size,
        .flags = c.Py_TPFLAGS_DEFAULT | c.Py_TPFLAGS_HAVE_GC | c.Py_TPFLAGS_IMMUTABLETYPE |
            c.Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = &slots,
    };
};
