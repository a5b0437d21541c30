//! The two sinks of the binding: one calls `on_msg`, the other only counts messages.
//!
//! The connection's `pump` calls `prepare`, which may allocate, stamps the delivery if the sink
//! `delivers` at all, and calls `take`.

const core = @import("core");
const py = @import("py.zig");
const Driver = @import("driving.zig").Driver;
const Host = @import("host.zig").Host;
const Message = @import("message.zig").Message;

const Delivery = core.delivery.Delivery;

/// A client's `on_msg`, and the message object that is reused from one call to the next.
pub const Callback = struct {
    /// Null if the caller gave none. Owned.
    on_msg: ?*py.Object,
    /// A message to lend again, which the callback did not keep, or a new one. Owned.
    spare: ?*py.Object,

    /// Call it before freeing the ring that the view of the spare message points into.
    pub fn dropSpare(callback: *Callback) void {
        const spare = callback.spare orelse return;
        callback.spare = null;
        Message.instance.of(spare).discard();
    }
};

/// Calls `on_msg` with each message. It exists for one turn, so that its fields stay in registers.
pub const CallingSink = struct {
    callback: *Callback,
    driver: *Driver,
    host: *Host,
    count: *usize,
    /// The message to lend next. Owned between `prepare` and `take`.
    prepared: *py.Object = undefined,

    pub const delivers = true;

    pub inline fn prepare(sink: *CallingSink) py.Error!void {
        if (sink.callback.spare) |spare| {
            sink.callback.spare = null;
            if (py.isOwn(spare)) {
                sink.prepared = spare;
                return;
            }
            Message.instance.of(spare).discard();
        }
        sink.prepared = try Message.create(&sink.host.door);
    }

    pub inline fn take(sink: *CallingSink, delivery: *const Delivery) py.Error!void {
        sink.count.* += 1;
        const message = Message.instance.of(sink.prepared);
        message.lend(delivery);

        sink.host.in_callback = true;
        const result = py.callWithOne(sink.callback.on_msg.?, sink.prepared);
        if (message.isUnused()) sink.callback.spare = sink.prepared else message.keep();
        if (result) |returned| py.decref(returned); // Its `__del__` may call what a callback may.
        sink.host.in_callback = false;

        _ = try py.check(result);
        try sink.host.door.requireOwn();
        try sink.driver.requireUnreserved();
    }
};

/// The same for a client in a loop: after so many messages, others have their turn.
pub const BoundedSink = struct {
    inner: CallingSink,
    /// How many messages are left in this turn. In the client, so that a callback can end the turn.
    left: *usize,

    pub const delivers = true;

    pub inline fn prepare(sink: *BoundedSink) py.Error!void {
        return sink.inner.prepare();
    }

    pub inline fn take(
        sink: *BoundedSink,
        delivery: *const Delivery,
    ) (py.Error || error{TurnOver})!void {
        try sink.inner.take(delivery);
        sink.left.* -|= 1;
        if (sink.left.* == 0) return error.TurnOver;
    }
};

/// Counts messages, for a client without `on_msg`.
pub const CountingSink = struct {
    count: *usize,

    pub const delivers = false;

    pub inline fn prepare(_: *CountingSink) py.Error!void {}

    pub inline fn take(sink: *CountingSink, _: *const Delivery) py.Error!void {
        sink.count.* += 1;
    }
};
