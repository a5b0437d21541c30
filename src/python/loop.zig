//! `hftws._core.LoopBase`, the base class of `hftws.Loop`: many clients in one thread.
//!
//! It asks the clients that have something to do, in turn, and sleeps when none has. Timers and the
//! calls of other threads are the Python class's: `_run_timers` and `_run_soon` are called when it
//! is time.

const std = @import("std");
const core = @import("core");
const py = @import("py.zig");
const c = py.c;
const docs = @import("docs.zig");
const options_parser = @import("options.zig");
const Client = @import("client.zig").Client;
const Door = @import("host.zig").Door;
const Host = @import("host.zig").Host;
const ModuleState = @import("module_state.zig").ModuleState;

const monotonicNs = core.os.Os.monotonicNs;

pub const Loop = struct {
    host: Host,
    /// The nodes are in the clients' memberships. The loop has a reference to each.
    clients: std.DoublyLinkedList,
    count: usize,
    /// Whose turn it is.
    current: ?*Client,
    /// Whether the client of this turn is to be removed after it.
    removes_current: bool,
    is_closed: bool,
    /// Messages that all clients have delivered.
    messages: usize,

    pub const instance = py.Instance(Loop);

    // ---- Which clients there are. --------------------------------------------------------------

    fn add(loop: *Loop, arguments: py.Arguments) py.Error!*py.Object {
        const object = try clientArgument("add()", arguments);
        try loop.requireOpen();
        const client = Client.instance.of(object);
        const entrance = try client.driver.enter();
        const old_host = client.driver.host;
        defer old_host.door.leave(entrance);
        try loop.requireFree(client);
        try client.driver.requireUnreserved();

        client.callback.dropSpare(); // It belongs to the old host.
        _ = setMembership(client, instance.objectOf(loop));
        client.driver.moveTo(&loop.host);
        loop.clients.append(&client.membership.node);
        loop.count += 1;
        _ = c.Py_NewRef(object);
        switch (client.driver.connection.state()) {
            .idle, .closed => client.beginInLoop() catch |err| {
                loop.detach(client);
                return err;
            },
            else => {},
        }
        return py.none();
    }

    fn requireFree(loop: *const Loop, client: *const Client) py.Error!void {
        const own = instance.objectOf(@constCast(loop));
        if (client.membership.loop) |found| return py.raise(c.PyExc_ValueError, if (found == own)
            "add(): the client is in this loop already"
        else
            "add(): the client is in another loop: remove() it there first");
        if (client.driver.connection.options.purpose == .get) {
            return py.raise(c.PyExc_ValueError, "add() takes a hftws.Client");
        }
        if (!client.driver.host.driving) return;
        const message = "add(): the client is running: a loop takes one that nothing else drives";
        return py.raise(c.PyExc_RuntimeError, message);
    }

    fn remove(loop: *Loop, arguments: py.Arguments) py.Error!*py.Object {
        const object = try clientArgument("remove()", arguments);
        const client = Client.instance.of(object);
        if (client.membership.loop != instance.objectOf(loop)) {
            return py.raise(c.PyExc_ValueError, "remove(): the client is not in this loop");
        }
        try client.driver.requireUnreserved();
        if (loop.current == client) { // Its turn ends with this callback.
            loop.removes_current = true;
            client.membership.turn_left = 0;
        } else loop.detach(client);
        return py.none();
    }

    fn clientArgument(comptime name: []const u8, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bindTo(name, &.{"client"}, 1);
        const missing = name ++ " needs a client";
        const object = bound[0] orelse return py.raise(c.PyExc_TypeError, missing);
        const client_type = ModuleState.get().client_type;
        if (c.PyObject_TypeCheck(object, client_type) == 0) {
            const type_name = py.typeOf(object).tp_name;
            const message = name ++ " takes a hftws.Client, not {s}";
            return py.raiseFormat(c.PyExc_TypeError, message, .{std.mem.span(type_name)});
        }
        try Client.instance.of(object).requireReady();
        return object;
    }

    /// The client leaves; its connection stays as it is.
    fn detach(loop: *Loop, client: *Client) void {
        client.callback.dropSpare();
        client.driver.moveHome();
        loop.clients.remove(&client.membership.node);
        loop.count -= 1;
        const own = setMembership(client, null);
        py.decref(Client.instance.objectOf(client));
        py.decrefOptional(own);
    }

    /// Returns the old reference.
    fn setMembership(client: *Client, loop: ?*py.Object) ?*py.Object {
        var section: py.Section = undefined;
        section.enter(Client.instance.objectOf(client));
        defer section.leave();
        const old = client.membership.loop;
        client.membership.loop = c.Py_XNewRef(loop);
        return old;
    }

    fn clientOf(node: *std.DoublyLinkedList.Node) *Client {
        const membership: *Client.Membership = @alignCast(@fieldParentPtr("node", node));
        return @alignCast(@fieldParentPtr("membership", membership));
    }

    fn listClients(loop: *Loop) py.Error!*py.Object {
        const list = try py.check(c.PyList_New(0));
        errdefer py.decref(list);
        var place = loop.clients.first;
        while (place) |node| : (place = node.next) {
            const object = Client.instance.objectOf(clientOf(node));
            try py.checkStatus(c.PyList_Append(list, object));
        }
        return list;
    }

    // ---- Running. ------------------------------------------------------------------------------

    fn run(loop: *Loop) py.Error!*py.Object {
        try loop.begin();
        defer loop.host.end();
        while (true) {
            try loop.round();
            if (loop.host.takeStop() or loop.isIdle()) return py.none();
            try loop.host.wait(null);
        }
    }

    fn runOnce(loop: *Loop, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bindTo("run_once()", &.{"timeout"}, 1);
        const timeout_ns = try options_parser.timeout("timeout of run_once()", bound[0]);
        try loop.begin();
        defer loop.host.end();
        const before = loop.messages;
        const until_ns = if (timeout_ns) |timeout| monotonicNs() +| timeout else null;
        while (true) {
            const left_ns = if (until_ns) |until| until -| monotonicNs() else null;
            // First what the kernel has: those that have more to do already must not hide it.
            try loop.host.wait(if (loop.isIdle()) 0 else left_ns);
            try loop.round();
            if (loop.messages != before or loop.host.takeStop()) break;
            if (left_ns == 0 or loop.isIdle()) break;
        }
        return py.integer(loop.messages - before);
    }

    /// Gives each client that has something to do its turn.
    fn round(loop: *Loop) py.Error!void {
        const core_loop = &loop.host.loop.?;
        core_loop.beginRound();
        while (core_loop.take()) |connection| {
            const driver: *@FieldType(Client, "driver") = @alignCast(
                @fieldParentPtr("connection", connection),
            );
            try loop.turn(@alignCast(@fieldParentPtr("driver", driver)));
            if (loop.host.stop_wanted.load(.monotonic)) return;
        }
    }

    fn turn(loop: *Loop, client: *Client) py.Error!void {
        loop.current = client;
        defer {
            loop.current = null;
            if (loop.removes_current) {
                loop.removes_current = false;
                loop.detach(client);
            }
        }
        client.messages = 0;
        defer loop.messages += client.messages;
        return client.turnInLoop();
    }

    /// Whether nothing is left to wait for: no connection, and no timer.
    fn isIdle(loop: *const Loop) bool {
        return loop.host.timer_ns == null and loop.host.loop.?.isIdle();
    }

    fn begin(loop: *Loop) py.Error!void {
        try loop.requireOpen();
        return loop.host.begin();
    }

    fn requireOpen(loop: *Loop) py.Error!void {
        if (loop.host.loop == null) {
            return py.raise(c.PyExc_RuntimeError, "__init__ was not called");
        }
        if (loop.is_closed) return py.raise(c.PyExc_RuntimeError, "the loop is closed");
    }

    // ---- Closing. ------------------------------------------------------------------------------

    fn close(loop: *Loop) py.Error!*py.Object {
        if (loop.is_closed) return py.none();
        try loop.begin();
        defer loop.host.end();
        while (true) {
            try loop.closeConnections(); // Also those that a callback has begun meanwhile.
            try loop.round();
            if (loop.host.loop.?.isIdle()) break;
            try loop.host.wait(null);
        }
        while (loop.clients.first) |node| loop.detach(clientOf(node));
        loop.host.timer_ns = null;
        loop.is_closed = true;
        return py.none();
    }

    fn closeConnections(loop: *Loop) py.Error!void {
        var place = loop.clients.first;
        while (place) |node| : (place = node.next) {
            const driver = &clientOf(node).driver;
            switch (driver.connection.state()) {
                .idle, .closing, .closed => continue,
                .connecting, .securing, .requesting, .reading_body, .open => {},
            }
            try driver.requireUnreserved();
            driver.connection.close(1000, "");
            driver.ask();
        }
    }

    // ---- For any thread. -----------------------------------------------------------------------

    fn stop(loop: *Loop) py.Error!*py.Object {
        try loop.host.door.requireOwn();
        loop.host.stop();
        return py.none();
    }

    fn wake(loop: *Loop) py.Error!*py.Object {
        try loop.host.door.requireOwn();
        loop.host.wake();
        return py.none();
    }

    fn fileno(loop: *Loop) py.Error!*py.Object {
        try loop.requireOpen();
        return py.integer(loop.host.beWatched());
    }

    fn setTimer(loop: *Loop, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bindTo("_set_timer()", &.{"when_ns"}, 1);
        const object = bound[0] orelse c.Py_None();
        if (py.isNone(object)) {
            loop.host.timer_ns = null;
            return py.none();
        }
        const when_ns = try py.integerArgument("when_ns of _set_timer()", "an int", object);
        loop.host.timer_ns = @intCast(@max(0, when_ns));
        return py.none();
    }

    fn length(object: *py.Object) callconv(.c) c.Py_ssize_t {
        return @intCast(instance.of(object).count);
    }

    // ---- The life of the object. ---------------------------------------------------------------

    fn create(
        type_object: *c.PyTypeObject,
        _: ?*py.Object,
        _: ?*py.Object,
    ) callconv(.c) ?*py.Object {
        const object = py.allocate(type_object) catch return null;
        const loop = instance.of(object);
        loop.host.init(object);
        loop.clients = .{};
        return object;
    }

    fn initialize(
        object: *py.Object,
        arguments: *py.Object,
        keywords: ?*py.Object,
    ) callconv(.c) c_int {
        if (c.PyTuple_Size(arguments) > 0 or keywords != null) {
            c.PyErr_SetString(c.PyExc_TypeError, "Loop() takes no arguments");
            return -1;
        }
        const loop = instance.of(object);
        const entrance = loop.enter() catch return -1;
        defer loop.leave(entrance);
        _ = loop.host.requireLoop() catch return -1;
        return 0;
    }

    pub inline fn enter(loop: *Loop) py.Error!Door.Entrance {
        return loop.host.door.enter();
    }

    pub inline fn leave(loop: *Loop, entrance: Door.Entrance) void {
        loop.host.leave(entrance);
    }

    fn traverse(object: *py.Object, visit: c.visitproc, argument: ?*anyopaque) callconv(.c) c_int {
        const loop = instance.of(object);
        var place = loop.clients.first;
        while (place) |node| : (place = node.next) {
            const status = py.visitAll(.{
                Client.instance.objectOf(clientOf(node)),
            }, visit, argument);
            if (status != 0) return status;
        }
        return py.visitAll(.{py.typeObjectOf(object)}, visit, argument);
    }

    fn clear(object: *py.Object) callconv(.c) c_int {
        const loop = instance.of(object);
        loop.host.disownIfInherited();
        while (loop.clients.first) |node| loop.detach(clientOf(node));
        return 0;
    }

    fn dealloc(object: *py.Object) callconv(.c) void {
        c.PyObject_GC_UnTrack(object);
        const loop = instance.of(object);
        if (loop.host.door.isWhole()) {
            _ = clear(object);
            loop.host.deinit();
        }
        py.free(object);
    }

    const exclusive = @import("driving.zig").Exclusive(Loop);

    var methods = [_]c.PyMethodDef{
        instance.method("add", exclusive.method(add), docs.loop_add),
        instance.method("remove", exclusive.method(remove), docs.loop_remove),
        instance.noArguments("run", exclusive.noArguments(run), docs.loop_run),
        instance.method("run_once", exclusive.method(runOnce), docs.loop_run_once),
        instance.noArguments("close", exclusive.noArguments(close), docs.loop_close),
        instance.noArguments("stop", stop, docs.loop_stop),
        instance.noArguments("fileno", exclusive.noArguments(fileno), docs.loop_fileno),
        instance.noArguments("_wake", wake, "For call_soon_threadsafe()."),
        instance.method("_set_timer", exclusive.method(setTimer), "When to call _run_timers()."),
        .{},
    };

    var getters = [_]c.PyGetSetDef{
        instance.getter("clients", exclusive.noArguments(listClients),
            \\The clients, in the order in which they were added; a new list.
        ),
        .{},
    };

    var slots = [_]c.PyType_Slot{
        py.slot(c.Py_tp_doc, "The native part of hftws.Loop."),
        py.slot(c.Py_tp_new, &create),
        py.slot(c.Py_tp_init, &initialize),
        py.slot(c.Py_tp_dealloc, &dealloc),
        py.slot(c.Py_tp_traverse, &traverse),
        py.slot(c.Py_tp_clear, &clear),
        py.slot(c.Py_tp_methods, &methods),
        py.slot(c.Py_tp_getset, &getters),
        py.slot(c.Py_sq_length, &length),
        .{},
    };

    pub var spec: c.PyType_Spec = .{
        .name = "hftws._core.LoopBase",
        .basicsize = instance.size,
        .flags = c.Py_TPFLAGS_DEFAULT | c.Py_TPFLAGS_HAVE_GC | c.Py_TPFLAGS_BASETYPE,
        .slots = &slots,
    };
};
