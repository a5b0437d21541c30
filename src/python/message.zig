//! `hftws.Message`, the argument of `on_msg`: a view of the receive ring, not a copy.
//!
//! If the callback keeps neither the message nor its memoryview, both are reused for the next
//! payload. Otherwise the bytes are pinned in the ring until the message, its view and the slices
//! of that view are all freed: each of them keeps the message alive, and the message has the pin.
//!
//! A kept message may be used in other threads. The payload does not change, so they read it
//! without a lock; fields that change when the callback returns are read in the section of the
//! message.

const std = @import("std");
const assert = std.debug.assert;
const core = @import("core");
const py = @import("py.zig");
const c = py.c;
const host_module = @import("host.zig");
const ModuleState = @import("module_state.zig").ModuleState;

const Delivery = core.delivery.Delivery;
const Line = core.delivery.Line;
const Rate = core.clock.Rate;
const RingBuffer = core.ringbuffer.RingBuffer;
const Stamps = core.delivery.Stamps;

pub const Message = struct {
    payload: []const u8,
    opcode: u8,
    /// Set when the message is kept. While it is lent, `line.hasMore` has the answer.
    is_last: bool,
    /// Whether `stamps.kernel_ns` is exact; set as `is_last` is.
    stamp_exact: bool,
    pinned: bool,
    /// The memoryview that `data` returns, once it was used. Owned while the message is lent.
    view: ?*py.Object,
    /// Zeros if the connection takes no timestamps.
    stamps: Stamps,
    /// The door of the client whose messages this object is lent for.
    door: *const host_module.Door,
    /// Set while the message is lent, null once it is kept.
    line: ?*const Line,
    /// Copies of the line's, from when the message was kept.
    rate: Rate,
    earliest_cycles: u64,
    /// The ring that the payload lies in.
    ring: *RingBuffer,
    /// In `ring`, while `pinned`.
    pin: core.ringbuffer.Pin,

    pub const instance = py.Instance(Message);

    /// Makes a message object, to be lent for one client only. It has no payload until the first
    /// `lend`: only `discard` may be called before.
    pub fn create(door: *const host_module.Door) py.Error!*py.Object {
        const object = try py.allocate(ModuleState.get().message_type);
        const message = instance.of(object);
        message.payload = &.{};
        message.pinned = false;
        message.view = null;
        message.stamps = .{};
        message.door = door;
        message.line = null;
        return object;
    }

    /// Points the message at the payload that has just arrived.
    pub inline fn lend(message: *Message, delivery: *const Delivery) void {
        assert(!message.pinned);
        message.opcode = @backingInt(delivery.opcode);
        message.ring = delivery.ring;
        message.line = delivery.line;
        // A connection takes stamps for all messages or for none, so old stamps never remain.
        if (delivery.line.stamped) message.stamps = delivery.line.stamps;
        message.show(delivery.payload);
    }

    fn show(message: *Message, payload: []const u8) void {
        message.payload = payload;
        if (message.view) |view| moveView(view, payload);
    }

    /// Whether the callback has kept nothing, so that the message can be lent again. Then there
    /// are only two references to it: the caller's, and that of its own view.
    pub fn isUnused(message: *Message) bool {
        const object = instance.objectOf(message);
        const view = message.view orelse return py.hasReferences(object, 1);
        if (!py.hasReferences(object, 2) or !py.hasReferences(view, 1)) return false;
        const memory_view: *c.PyMemoryViewObject = @ptrCast(view);
        if (memory_view.exports != 0) return false;
        if (memory_view.weakreflist != null) return false; // It would show the next payload.
        if (memory_view.flags & memory_view_released != 0) return false;
        // A slice of the view would be a second export, and a second reference. Only the count of
        // references is safe to read while another thread makes slices of slices.
        const managed: *c._PyManagedBufferObject = memory_view.mbuf;
        if (py.free_threaded) return py.hasReferences(@ptrCast(managed), 1);
        return managed.exports == 1;
    }

    /// Pins the bytes of a message that the callback has kept. Takes the caller's reference.
    pub noinline fn keep(message: *Message) void {
        const line = message.line.?;
        message.stamp_exact = line.stamped and line.isStampExact();
        message.leave(message.payload, !line.hasMore());
    }

    /// Frees a message that is not lent, before its ring is freed. Takes the caller's reference.
    /// `gc.get_objects()` can expose the view of such a message: then its holder keeps the memory
    /// valid, but not the contents.
    pub fn discard(message: *Message) void {
        const object = instance.objectOf(message);
        const own = py.isOwn(object);
        message.stamp_exact = false; // Nobody can tell any more.
        if (own and !message.isUnused()) return message.leave(message.payload[0..0], true);
        // Another thread made it, without the GIL: this one cannot tell whether it is unused. It
        // must not have a pin, since the thread that frees it may do so late or never.
        if (!own) message.forget();
        message.dropView();
        py.decref(object);
    }

    /// From now on nothing of it points into its client, which may go first.
    fn forget(message: *Message) void {
        var section: py.Section = undefined;
        section.enter(instance.objectOf(message));
        defer section.leave();
        message.show(&.{});
        message.is_last = true;
        if (message.line) |line| message.copyOf(line);
        message.line = null;
    }

    fn leave(message: *Message, pinned: []const u8, is_last: bool) void {
        const object = instance.objectOf(message);
        var section: py.Section = undefined;
        section.enter(object);
        message.is_last = is_last;
        if (message.payload.len > 0) {
            message.ring.pin(&message.pin, pinned);
            message.pinned = true;
        }
        message.copyOf(message.line.?);
        message.line = null;
        const view = message.view;
        message.view = null;
        section.leave();
        py.decrefOptional(view);
        py.decref(object);
    }

    fn copyOf(message: *Message, line: *const Line) void {
        message.rate = line.rate;
        message.earliest_cycles = line.earliest_cycles;
    }

    /// Drops the view: an unused message and its view would keep each other alive.
    fn dropView(message: *Message) void {
        const view = message.view orelse return;
        message.view = null;
        py.decref(view);
    }

    // ---- What Python sees. ---------------------------------------------------------------------

    fn data(message: *Message) py.Error!*py.Object {
        const object = instance.objectOf(message);
        var section: py.Section = undefined;
        section.enter(object);
        const given = message.viewInUse();
        section.leave();
        if (given) |view| return view;

        const fresh = try py.check(c.PyMemoryView_FromObject(object));
        section.enter(object);
        const reusable = message.line != null and message.payload.len > 0;
        const replaced = if (reusable) message.view else null; // Released, or another thread's.
        if (reusable) message.view = c.Py_NewRef(fresh).?;
        section.leave();
        py.decrefOptional(replaced);
        return fresh;
    }

    /// A new reference to the view that `data` returned before, unless it was released, as by
    /// `with msg.data as view:` at the end of the block.
    fn viewInUse(message: *Message) ?*py.Object {
        const view = message.view orelse return null;
        const memory_view: *c.PyMemoryViewObject = @ptrCast(view);
        if (memory_view.flags & memory_view_released != 0) return null;
        return c.Py_NewRef(view).?;
    }

    fn opcodeOf(message: *Message) py.Error!*py.Object {
        return py.integer(message.opcode);
    }

    fn isText(message: *Message) py.Error!*py.Object {
        return py.boolean(message.opcode == @backingInt(core.ws.Opcode.text));
    }

    fn isLast(message: *Message) py.Error!*py.Object {
        var section: py.Section = undefined;
        section.enter(instance.objectOf(message));
        defer section.leave();
        const line = try message.lineToAsk() orelse return py.boolean(message.is_last);
        return py.boolean(!line.hasMore());
    }

    fn isStampExact(message: *Message) py.Error!*py.Object {
        var section: py.Section = undefined;
        section.enter(instance.objectOf(message));
        defer section.leave();
        const line = try message.lineToAsk() orelse return py.boolean(message.stamp_exact);
        return py.boolean(line.isStampExact());
    }

    /// Null when the message is kept. Raises in another thread than the one that receives: only
    /// that may check what else has arrived.
    fn lineToAsk(message: *const Message) py.Error!?*const Line {
        const line = message.line orelse return null;
        if (!message.door.isInside()) return py.raise(c.PyExc_RuntimeError, host_module.in_use);
        return line;
    }

    fn earliestTime(message: *Message) py.Error!*py.Object {
        if (!message.hasStamps()) return py.none();
        var section: py.Section = undefined;
        section.enter(instance.objectOf(message));
        defer section.leave();
        const kept = message.earliest_cycles;
        const moment_cycles = if (message.line) |line| line.earliest_cycles else kept;
        if (moment_cycles == 0) return py.none();
        const before_ns = message.nanoseconds(message.stamps.received_cycles -| moment_cycles);
        const earliest_ns = message.stamps.received_ns - before_ns;
        // A segment that came out of order, or was stamped just before, has an earlier stamp.
        const kernel_ns = message.stamps.kernel_ns;
        return py.integer(if (kernel_ns == 0) earliest_ns else @min(earliest_ns, kernel_ns));
    }

    fn kernelTime(message: *Message) py.Error!*py.Object {
        if (!message.hasStamps() or message.stamps.kernel_ns == 0) return py.none();
        return py.integer(message.stamps.kernel_ns);
    }

    fn receivedTime(message: *Message) py.Error!*py.Object {
        return message.timeOf(message.stamps.received_cycles);
    }

    fn decryptedTime(message: *Message) py.Error!*py.Object {
        return message.timeOf(message.stamps.decrypted_cycles);
    }

    fn deliveredTime(message: *Message) py.Error!*py.Object {
        return message.timeOf(message.stamps.delivered_cycles);
    }

    fn timeOf(message: *Message, moment_cycles: u64) py.Error!*py.Object {
        if (!message.hasStamps()) return py.none();
        var section: py.Section = undefined;
        section.enter(instance.objectOf(message));
        defer section.leave();
        const elapsed_ns = message.nanoseconds(moment_cycles -| message.stamps.received_cycles);
        return py.integer(message.stamps.received_ns + elapsed_ns);
    }

    /// For a caller in the section of the message.
    fn nanoseconds(message: *const Message, elapsed_cycles: u64) i64 {
        const rate = if (message.line) |line| line.rate else message.rate;
        return std.math.lossyCast(i64, rate.nanoseconds(elapsed_cycles));
    }

    fn cycles(message: *Message) py.Error!*py.Object {
        if (!message.hasStamps()) return py.none();
        return py.check(c.Py_BuildValue(
            "(KKK)",
            message.stamps.received_cycles,
            message.stamps.decrypted_cycles,
            message.stamps.delivered_cycles,
        ));
    }

    fn hasStamps(message: *const Message) bool {
        return message.stamps.received_ns != 0;
    }

    fn toBytes(message: *Message) py.Error!*py.Object {
        return py.bytes(message.payload);
    }

    fn toString(object: *py.Object) callconv(.c) ?*py.Object {
        const message = instance.of(object);
        return c.PyUnicode_DecodeUTF8(message.payload.ptr, @intCast(message.payload.len), null);
    }

    fn represent(object: *py.Object) callconv(.c) ?*py.Object {
        const message = instance.of(object);
        const size: c_ulonglong = message.payload.len;
        const opcode: c_int = message.opcode;
        return c.PyUnicode_FromFormat("<hftws.Message opcode=%d size=%llu>", opcode, size);
    }

    fn length(object: *py.Object) callconv(.c) c.Py_ssize_t {
        return @intCast(instance.of(object).payload.len);
    }

    fn getBuffer(object: *py.Object, buffer: *c.Py_buffer, flags: c_int) callconv(.c) c_int {
        const payload = instance.of(object).payload;
        const start: ?*anyopaque = @ptrCast(@constCast(payload.ptr));
        return c.PyBuffer_FillInfo(buffer, object, start, @intCast(payload.len), 1, flags);
    }

    fn dealloc(object: *py.Object) callconv(.c) void {
        const message = instance.of(object);
        assert(message.view == null); // A view would have a reference to the message.
        if (message.pinned) message.ring.unpin(&message.pin);
        py.free(object);
    }

    var methods = [_]c.PyMethodDef{
        instance.noArguments("__bytes__", toBytes,
            \\__bytes__($self, /)
            \\--
            \\
            \\A copy of the payload.
        ),
        .{},
    };

    var getters = [_]c.PyGetSetDef{
        instance.getter("data", data,
            \\The payload: a read-only memoryview of the receive ring, not a copy.
            \\
            \\Its bytes stay as they are for as long as the view, a slice of it or the message
            \\is kept; a view that is kept takes room in the ring.
        ),
        instance.getter("opcode", opcodeOf, "1 for text, 2 for binary (RFC 6455, section 5.2)."),
        instance.getter("is_text", isText, "Whether this is a text message."),
        instance.getter("is_last", isLast,
            \\Whether nothing more was waiting behind it in this read of the socket.
            \\
            \\Over TLS a whole record counts as more, whatever is in it.
        ),
        instance.getter("t_kernel", kernelTime,
            \\When the kernel or the NIC got the segment that ends the read, ns since the epoch.
            \\
            \\All messages of a read share it, since a read has only one. So it is the latest moment
            \\at which this message can have arrived, and its age is at least the time since then:
            \\t_kernel_exact says whether it is more, t_earliest how much more it can be. None when
            \\there is no such stamp: see Client.info()["kernel_stamp_source"].
        ),
        instance.getter("t_kernel_exact", isStampExact,
            \\Whether t_kernel is the moment at which this message had arrived whole.
            \\
            \\True for the message that ends with the last byte of a read that took all there was.
            \\A TLS record cannot be opened before all of it has arrived, so over TLS it is true
            \\for all messages of the last record. False when t_kernel is None. While a message is
            \\lent to on_msg, RuntimeError in other threads.
        ),
        instance.getter("t_earliest", earliestTime,
            \\The earliest moment at which this message can have arrived, ns since the epoch.
            \\
            \\That is the last one at which the socket was known to be empty: the beginning of the
            \\newest read before that took all there was, or found nothing. The message arrived
            \\between it and t_kernel (or t_received, without a stamp). On the clock of the system,
            \\also with stamps of the NIC. None without timestamps, and with TLS in the kernel.
        ),
        instance.getter("t_received", receivedTime,
            \\When the read of the socket returned, ns since the epoch; None without timestamps.
        ),
        instance.getter("t_decrypted", decryptedTime,
            \\When the TLS record was open, ns since the epoch; None without timestamps.
        ),
        instance.getter("t_delivered", deliveredTime,
            \\When on_msg was about to be called, ns since the epoch; None without timestamps.
        ),
        instance.getter("cycles", cycles,
            \\The CPU's counter at (t_received, t_decrypted, t_delivered); None without timestamps.
        ),
        .{},
    };

    var slots = [_]c.PyType_Slot{
        py.slot(c.Py_tp_doc,
            \\A message from the peer.
            \\
            \\len(), bytes() and str() work on it; so does everything that takes a buffer.
        ),
        py.slot(c.Py_tp_dealloc, &dealloc),
        py.slot(c.Py_tp_methods, &methods),
        py.slot(c.Py_tp_getset, &getters),
        py.slot(c.Py_tp_str, &toString),
        py.slot(c.Py_tp_repr, &represent),
        py.slot(c.Py_sq_length, &length),
        py.slot(c.Py_bf_getbuffer, &getBuffer),
        .{},
    };

    pub var spec: c.PyType_Spec = .{
        .name = "hftws.Message",
        .basicsize = instance.size,
        .flags = c.Py_TPFLAGS_DEFAULT | c.Py_TPFLAGS_IMMUTABLETYPE |
            c.Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = &slots,
    };
};

/// _Py_MEMORYVIEW_RELEASED of CPython's memoryobject.h: release() was called on it.
const memory_view_released = 0x1;

/// Points a memoryview without other references at other bytes. That takes four stores, where a new
/// view takes an allocation. Later slices and buffers of the view read these fields, so they see
/// the new payload.
fn moveView(view: *py.Object, payload: []const u8) void {
    const memory_view: *c.PyMemoryViewObject = @ptrCast(view);
    assert(memory_view.view.ndim == 1);
    assert(memory_view.view.itemsize == 1);
    assert(memory_view.view.readonly == 1);
    memory_view.view.buf = @ptrCast(@constCast(payload.ptr));
    memory_view.view.len = @intCast(payload.len);
    memory_view.view.shape[0] = @intCast(payload.len);
    memory_view.hash = -1;
}
