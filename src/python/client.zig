//! `hftws._core.ClientBase`, the base class of `hftws.Client`.
//!
//! It turns events into calls, arguments into options and errors into exceptions. The protocol is
//! in the core.

const std = @import("std");
const core = @import("core");
const py = @import("py.zig");
const c = py.c;
const docs = @import("docs.zig");
const driving = @import("driving.zig");
const exceptions = @import("exceptions.zig");
const options_parser = @import("options.zig");
const report = @import("report.zig");
const sinks = @import("sinks.zig");
const ModuleState = @import("module_state.zig").ModuleState;
const Reservation = @import("reservation.zig").Reservation;
const Response = @import("response.zig").Response;

pub const Client = struct {
    /// False until `__init__` has succeeded.
    ready: bool,
    driver: driving.Driver,
    tls_context: ?core.ssl.Context,
    /// Owns every string of the options.
    arena: std.heap.ArenaAllocator,
    callback: sinks.Callback,
    /// Null if the caller gave none. Owned, and so is `on_close`.
    on_open: ?*py.Object,
    on_close: ?*py.Object,
    /// True when `on_close` has been called for this connection, or it was never open.
    close_told: bool,
    /// Messages delivered since the last call of `poll`.
    messages: usize,
    /// The response to the upgrade, or to a GET.
    response: Response,

    pub const instance = py.Instance(Client);

    /// How a turn ended.
    const Outcome = enum { blocked, opened, finished, closed };

    // ---- Connecting and receiving. -------------------------------------------------------------

    fn connect(client: *Client) py.Error!*py.Object {
        try client.beginDriving();
        defer client.driver.end();
        switch (client.driver.connection.state()) {
            .idle, .closed => {},
            else => return py.raise(c.PyExc_RuntimeError, "already connected"),
        }
        try client.start();
        try client.awaitOpen();
        try client.tellOpen();
        return py.none();
    }

    /// Frees what is left of the last connection, and begins a new one.
    fn start(client: *Client) py.Error!void {
        client.response.forget();
        client.close_told = true;
        client.callback.dropSpare();
        client.driver.connection.leavePinnedRings();
        client.driver.start() catch |err| return exceptions.raiseStart(err, client.facts());
    }

    fn awaitOpen(client: *Client) py.Error!void {
        errdefer client.driver.giveUp(); // For example, a signal handler raised.
        while (true) switch (try client.turn()) {
            .blocked => try client.driver.wait(null),
            .opened => return,
            .finished, .closed => return exceptions.raiseClosed(client.facts()),
        };
    }

    fn run(client: *Client) py.Error!*py.Object {
        try client.beginDriving();
        defer client.driver.end();
        try client.requireStarted();
        const connection = &client.driver.connection;
        connection.beginTurn();
        while (connection.state() != .closed) switch (try client.turn()) {
            .blocked => try client.driver.wait(null),
            .opened, .finished, .closed => {},
        };
        const ordinary = connection.failure() == null and connection.closed().?.isOrdinary();
        return if (ordinary) py.none() else exceptions.raiseClosed(client.facts());
    }

    fn poll(client: *Client, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bindTo("poll()", &.{"timeout"}, 1);
        const timeout_ns = try options_parser.timeout("timeout of poll()", bound[0]);
        try client.beginDriving();
        defer client.driver.end();
        try client.requireStarted();
        const connection = &client.driver.connection;
        if (connection.state() == .closed) return exceptions.raiseClosed(client.facts());
        client.messages = 0;
        connection.beginTurn();
        const until_ns = if (timeout_ns) |timeout| core.os.Os.monotonicNs() +| timeout else null;
        while (true) {
            const outcome = try client.turn();
            if (outcome != .blocked or client.messages > 0) break;
            const left_ns = if (until_ns) |until| until -| core.os.Os.monotonicNs() else null;
            if (left_ns == 0) break;
            try client.driver.wait(left_ns);
        }
        try client.driver.checkSignals();
        return py.integer(client.messages);
    }

    fn waitForRoom(client: *Client, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bindTo("wait_for_room()", &.{"timeout"}, 1);
        const name = "timeout of wait_for_room()";
        const timeout_ns = if (bound[0]) |given| try options_parser.timeout(name, given) else null;
        try client.beginDriving();
        defer client.driver.end();
        return py.boolean(try client.driver.waitForRoom(timeout_ns));
    }

    fn close(client: *Client, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bindTo("close()", &.{ "code", "reason" }, 2);
        const code = try options_parser.closeCode(bound[0]);
        const reason = try options_parser.closeReason(bound[1]);
        try client.driver.requireUnreserved();
        if (client.driver.in_callback) { // The call that runs the callback does the rest.
            client.driver.connection.close(code, reason);
            return py.none();
        }
        try client.beginDriving();
        defer client.driver.end();
        client.driver.connection.close(code, reason);
        try client.finishClose();
        // Frees the memory of the rings now: a client in a cycle with its callback would keep it
        // until the garbage collector runs.
        client.callback.dropSpare();
        client.driver.connection.releaseRings();
        return py.none();
    }

    /// Finishes the closing handshake, for at most `close_timeout`. Errors of the peer raise
    /// nothing.
    fn finishClose(client: *Client) py.Error!void {
        client.driver.connection.beginTurn();
        while (client.driver.connection.state() == .closing) {
            const event = client.driver.connection.next() catch |err| switch (err) {
                error.Failed => break,
                error.ReceiveRingPinned => {
                    client.driver.connection.abort();
                    break;
                },
                error.OutOfMemory => |stall| return exceptions.raiseStall(stall),
            };
            if (event == .blocked) try client.driver.wait(null);
        }
        try client.tellClosed();
    }

    /// Handles messages and other events until there is nothing more to do without waiting.
    fn turn(client: *Client) py.Error!Outcome {
        if (client.callback.on_msg == null) return client.turnInto(.nowhere);
        return client.turnInto(.on_msg);
    }

    /// Not inlined: two such loops in one function would compete for registers.
    noinline fn turnInto(
        client: *Client,
        comptime target: enum { on_msg, nowhere },
    ) py.Error!Outcome {
        var sink = switch (target) {
            .on_msg => sinks.CallingSink{
                .callback = &client.callback,
                .driver = &client.driver,
                .count = &client.messages,
            },
            .nowhere => sinks.CountingSink{ .count = &client.messages },
        };
        while (true) switch (client.driver.connection.pump(&sink) catch |err| switch (err) {
            error.PythonError => return error.PythonError,
            else => |failure| return client.raiseNext(failure),
        }) {
            .message => unreachable, // The sink took them.
            .blocked => return .blocked,
            .opened => |head| {
                try client.response.setHead(head);
                return .opened;
            },
            .response => |head| try client.response.setHead(head),
            .body => |bytes| if (!try client.keepBody(bytes)) return .finished,
            .finished => return .finished,
            .closed => {
                try client.tellClosed();
                return .closed;
            },
        };
    }

    /// Keeps bytes of a response's body. False when no more of it is needed.
    fn keepBody(client: *Client, bytes: []const u8) py.Error!bool {
        const connection = &client.driver.connection;
        const fits = client.response.hasRoom(bytes);
        if (!fits and connection.options.purpose == .get) {
            connection.abort();
            const size_max = client.response.body_size_max;
            return exceptions.raiseBodyTooBig(size_max, &connection.options);
        }
        try client.response.appendBody(bytes);
        if (!fits) connection.skipBody(); // The beginning of a refusal's body is enough.
        return fits;
    }

    fn raiseNext(client: *Client, err: core.connection.NextError) py.Error {
        switch (err) {
            error.Failed => {
                try client.tellClosed();
                return exceptions.raiseClosed(client.facts());
            },
            error.ReceiveRingPinned, error.OutOfMemory => |stall| {
                return exceptions.raiseStall(stall);
            },
        }
    }

    fn facts(client: *const Client) exceptions.Facts {
        return .of(&client.driver.connection, client.response.refusal());
    }

    /// Call `driver.end()` after each success.
    fn beginDriving(client: *Client) py.Error!void {
        try client.requireReady();
        try client.driver.begin();
    }

    fn isReady(client: *const Client) bool {
        return @atomicLoad(bool, &client.ready, .acquire);
    }

    fn requireReady(client: *Client) py.Error!void {
        if (!client.isReady()) return py.raise(c.PyExc_RuntimeError, "__init__ was not called");
    }

    fn requireStarted(client: *Client) py.Error!void {
        if (client.driver.connection.state() == .idle) {
            return py.raise(c.PyExc_RuntimeError, "not connected: call connect() first");
        }
    }

    // ---- Callbacks for the beginning and the end. ----------------------------------------------

    fn tellOpen(client: *Client) py.Error!void {
        client.close_told = false;
        const on_open = client.on_open orelse return;
        try client.driver.callBack(on_open, &.{instance.objectOf(client)});
    }

    fn tellClosed(client: *Client) py.Error!void {
        if (client.close_told) return;
        client.close_told = true;
        const on_close = client.on_close orelse return;
        const closed = client.driver.connection.closed() orelse return;
        const code = try py.integer(closed.code);
        defer py.decref(code);
        const reason = try py.string(closed.reason);
        defer py.decref(reason);
        try client.driver.callBack(on_close, &.{ instance.objectOf(client), code, reason });
    }

    // ---- Sending. ------------------------------------------------------------------------------

    fn send(client: *Client, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bindTo("send()", &.{ "data", "text" }, 1);
        const data = bound[0] orelse return py.raise(c.PyExc_TypeError, "send() needs data");
        try client.requireReady();
        if (py.isUnicode(data)) {
            if (try py.isTrue(bound[1], true)) {
                try client.sendBytes(.text, try py.utf8(data));
                return py.none();
            }
            const message = "send() sends a str as text: text=False needs bytes-like data";
            return py.raise(c.PyExc_TypeError, message);
        }
        const opcode: core.ws.Opcode = if (try py.isTrue(bound[1], false)) .text else .binary;
        var bytes = try py.Bytes.ofArgument("data of send()", data);
        defer bytes.deinit();
        try client.sendBytes(opcode, bytes.slice());
        return py.none();
    }

    fn sendBytes(client: *Client, opcode: core.ws.Opcode, payload: []const u8) py.Error!void {
        client.driver.connection.send(opcode, payload) catch |err| {
            return client.raiseSend(err, payload.len);
        };
    }

    fn ping(client: *Client, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bindTo("ping()", &.{"payload"}, 1);
        try client.requireReady();
        const data = bound[0] orelse {
            try client.pingBytes("");
            return py.none();
        };
        if (py.isUnicode(data)) {
            try client.pingBytes(try py.utf8(data));
            return py.none();
        }
        var bytes = try py.Bytes.ofArgument("payload of ping()", data);
        defer bytes.deinit();
        try client.pingBytes(bytes.slice());
        return py.none();
    }

    fn pingBytes(client: *Client, payload: []const u8) py.Error!void {
        if (payload.len > core.constants.control_payload_size_max) {
            const message = "payload of ping() has at most 125 bytes, not {d}";
            return py.raiseFormat(c.PyExc_ValueError, message, .{payload.len});
        }
        client.driver.connection.ping(payload) catch |err| {
            return client.raiseSend(err, payload.len);
        };
    }

    fn reserve(client: *Client, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bindTo("reserve()", &.{ "n", "text" }, 1);
        const size_object = bound[0] orelse return py.raise(c.PyExc_TypeError, "reserve() needs n");
        const needs_text = "reserve() needs text=True or text=False";
        const text_object = bound[1] orelse return py.raise(c.PyExc_TypeError, needs_text);
        if (py.isNone(text_object)) return py.raise(c.PyExc_TypeError, needs_text);
        try client.requireReady();
        const size = try py.integerArgument("n of reserve()", "an int", size_object);
        if (size < 0) {
            const name = "n of reserve()";
            return py.raiseValue(c.PyExc_ValueError, name, "0 or more", size_object);
        }
        const opcode: core.ws.Opcode = if (try py.isTrue(text_object, false)) .text else .binary;
        const owner = instance.objectOf(client);
        return Reservation.create(owner, &client.driver, &client.response, opcode, @intCast(size));
    }

    fn raiseSend(client: *Client, err: core.connection.SendError, size: usize) py.Error {
        const unsent: exceptions.Unsent = .of(&client.driver.connection, size);
        return exceptions.raiseSend(err, unsent, client.facts());
    }

    // ---- The HTTP side. ------------------------------------------------------------------------

    /// One GET: (status, headers, body).
    fn fetch(client: *Client) py.Error!*py.Object {
        try client.beginDriving();
        defer client.driver.end();
        if (client.driver.connection.options.purpose != .get) {
            return py.raise(c.PyExc_RuntimeError, "fetch() is for hftws.get()");
        }
        try client.start();
        errdefer client.driver.giveUp();
        while (true) switch (try client.turn()) {
            .blocked => try client.driver.wait(null),
            .finished => break,
            .opened, .closed => unreachable, // A GET is never upgraded.
        };
        return client.response.toTuple();
    }

    // ---- Looking. ------------------------------------------------------------------------------
    // Any thread may call `is_open`, `stats` and `fileno`: they read only single words of memory
    // that is never freed.

    fn fileno(client: *Client) py.Error!*py.Object {
        try client.requireReady();
        if (client.driver.connection.transport.link.socket) |*socket| {
            return py.integer(@as(c_long, socket.descriptor));
        }
        return py.raise(c.PyExc_ValueError, "not connected: there is no file descriptor");
    }

    fn info(client: *Client) py.Error!*py.Object {
        try client.requireReady();
        return report.info(&client.driver.connection);
    }

    fn stats(client: *Client) py.Error!*py.Object {
        try client.requireReady();
        return report.stats(&client.driver.connection);
    }

    fn isOpen(client: *Client) py.Error!*py.Object {
        if (client.driver.door.isInherited() or !client.isReady()) return py.boolean(false);
        return py.boolean(client.driver.connection.isUsable());
    }

    fn wantsWrite(client: *Client) py.Error!*py.Object {
        return py.boolean(client.ready and client.driver.connection.wantsWrite());
    }

    fn subprotocol(client: *Client) py.Error!*py.Object {
        if (!client.ready) return py.none();
        return py.string(client.driver.connection.subprotocol() orelse return py.none());
    }

    fn responseHeaders(client: *Client) py.Error!*py.Object {
        return client.response.copyHeaders();
    }

    fn closeCode(client: *Client) py.Error!*py.Object {
        if (!client.ready) return py.none();
        return py.integer((client.ending() orelse return py.none()).code);
    }

    fn closeReason(client: *Client) py.Error!*py.Object {
        if (!client.ready) return py.none();
        return py.string((client.ending() orelse return py.none()).reason);
    }

    /// How the connection ended. Null during the closing handshake, also when the peer's CLOSE has
    /// come: it is not over, and may still end otherwise.
    fn ending(client: *const Client) ?core.connection.Closed {
        const connection = &client.driver.connection;
        return if (connection.state() == .closed) connection.closed() else null;
    }

    // ---- The life of the object. ---------------------------------------------------------------

    fn create(
        type_object: *c.PyTypeObject,
        _: ?*py.Object,
        _: ?*py.Object,
    ) callconv(.c) ?*py.Object {
        const object = py.allocate(type_object) catch return null;
        instance.of(object).driver.door = .init();
        return object;
    }

    fn initialize(
        object: *py.Object,
        arguments: *py.Object,
        keywords: ?*py.Object,
    ) callconv(.c) c_int {
        const client = instance.of(object);
        const entrance = client.driver.enter() catch return -1;
        defer client.driver.leave(entrance);
        if (client.ready or entrance == .inner) {
            c.PyErr_SetString(c.PyExc_RuntimeError, "__init__ was called before");
            return -1;
        }
        client.arena = .init(std.heap.c_allocator);
        client.build(arguments, keywords) catch {
            client.arena.deinit();
            return -1;
        };
        @atomicStore(bool, &client.ready, true, .release); // Other threads may read it.
        return 0;
    }

    /// Applies the arguments of `__init__`. On an error, only the arena is left to free.
    fn build(client: *Client, arguments: *py.Object, keywords: ?*py.Object) py.Error!void {
        const arena = client.arena.allocator();
        var parsed = try options_parser.parse(arena, arguments, keywords);
        errdefer if (parsed.tls_context) |*context| context.deinit();
        const latency = if (parsed.latency)
            arena.create(core.connection.Latency) catch return py.noMemory()
        else
            null;
        if (latency) |histograms| histograms.* = .{};

        try client.driver.init(parsed.core);
        const connection = &client.driver.connection;
        connection.clock = ModuleState.get().clock;
        connection.latency = latency;
        client.tls_context = parsed.tls_context;
        if (client.tls_context) |*context| connection.options.tls = context;
        client.response = .{ .body_size_max = parsed.body_size_max };
        client.callback = .{ .on_msg = c.Py_XNewRef(parsed.on_msg), .spare = null };
        client.on_open = c.Py_XNewRef(parsed.on_open);
        client.on_close = c.Py_XNewRef(parsed.on_close);
        client.close_told = true;
    }

    fn traverse(object: *py.Object, visit: c.visitproc, argument: ?*anyopaque) callconv(.c) c_int {
        const client = instance.of(object);
        return py.visitAll(.{
            py.typeObjectOf(object), client.callback.on_msg,  client.on_open,
            client.on_close,         client.response.headers,
        }, visit, argument);
    }

    fn clear(object: *py.Object) callconv(.c) c_int {
        const client = instance.of(object);
        py.clearReference(&client.callback.on_msg);
        py.clearReference(&client.on_open);
        py.clearReference(&client.on_close);
        return 0;
    }

    /// Warns, as the standard library's sockets do, when nobody closed the connection.
    fn finalize(object: *py.Object) callconv(.c) void {
        const client = instance.of(object);
        if (!client.ready or client.driver.door.isInherited()) return;
        switch (client.driver.connection.state()) {
            .idle, .closed => return,
            else => {},
        }
        var @"type": ?*py.Object = null;
        var value: ?*py.Object = null;
        var traceback: ?*py.Object = null;
        c.PyErr_Fetch(@ptrCast(&@"type"), @ptrCast(&value), @ptrCast(&traceback));
        const status = c.PyErr_WarnFormat(c.PyExc_ResourceWarning, 1, "unclosed client %R", object);
        if (status < 0) c.PyErr_WriteUnraisable(object);
        c.PyErr_Restore(@"type", value, traceback);
    }

    fn dealloc(object: *py.Object) callconv(.c) void {
        if (c.PyObject_CallFinalizerFromDealloc(object) < 0) return; // The finalizer revived it.
        c.PyObject_GC_UnTrack(object);
        const client = instance.of(object);
        _ = clear(object);
        if (client.driver.door.isWhole()) client.release();
        py.free(object);
    }

    fn release(client: *Client) void {
        if (!client.ready) return;
        client.callback.dropSpare();
        client.response.forget();
        client.driver.deinit();
        if (client.tls_context) |*context| context.deinit();
        client.arena.deinit();
    }

    fn onMsg(client: *Client) py.Error!*py.Object {
        return py.optional(client.callback.on_msg);
    }

    fn onOpen(client: *Client) py.Error!*py.Object {
        return py.optional(client.on_open);
    }

    fn onClose(client: *Client) py.Error!*py.Object {
        return py.optional(client.on_close);
    }

    const exclusive = driving.Exclusive(Client);

    var methods = [_]c.PyMethodDef{
        instance.noArguments("connect", exclusive.noArguments(connect), docs.connect),
        instance.noArguments("run", exclusive.noArguments(run), docs.run),
        instance.method("poll", exclusive.method(poll), docs.poll),
        instance.method("wait_for_room", exclusive.method(waitForRoom), docs.wait_for_room),
        instance.method("close", exclusive.method(close), docs.close),
        instance.method("send", exclusive.method(send), docs.send),
        instance.method("ping", exclusive.method(ping), docs.ping),
        instance.method("reserve", exclusive.method(reserve), docs.reserve),
        instance.noArguments("fetch", exclusive.noArguments(fetch), docs.fetch),
        instance.noArguments("fileno", fileno, docs.fileno),
        instance.noArguments("info", exclusive.noArguments(info), docs.info),
        instance.noArguments("stats", stats, docs.stats),
        .{},
    };

    var getters = [_]c.PyGetSetDef{
        instance.getter("on_msg", onMsg, "Called with each Message."),
        instance.getter("on_open", onOpen, "Called when it is connected."),
        instance.getter("on_close", onClose, "Called when it has ended."),
        instance.getter("is_open", isOpen, "Whether messages can be sent and received now."),
        instance.getter("wants_write", exclusive.noArguments(wantsWrite),
            \\Whether something waits in the send ring for the socket to be writable.
        ),
        instance.getter("subprotocol", exclusive.noArguments(subprotocol),
            \\The one that the server chose, or None.
        ),
        instance.getter("response_headers", exclusive.noArguments(responseHeaders),
            \\The headers of the server's answer to the upgrade, as a list of pairs.
        ),
        instance.getter("close_code", exclusive.noArguments(closeCode),
            \\How the connection ended (RFC 6455, section 7.1.5); None while it has not.
        ),
        instance.getter("close_reason", exclusive.noArguments(closeReason),
            \\The reason that came with close_code.
        ),
        .{},
    };

    var slots = [_]c.PyType_Slot{
        py.slot(c.Py_tp_doc, "The native part of hftws.Client."),
        py.slot(c.Py_tp_new, &create),
        py.slot(c.Py_tp_init, &initialize),
        py.slot(c.Py_tp_dealloc, &dealloc),
        py.slot(c.Py_tp_finalize, &finalize),
        py.slot(c.Py_tp_traverse, &traverse),
        py.slot(c.Py_tp_clear, &clear),
        py.slot(c.Py_tp_methods, &methods),
        py.slot(c.Py_tp_getset, &getters),
        .{},
    };

    pub var spec: c.PyType_Spec = .{
        .name = "hftws._core.ClientBase",
        .basicsize = instance.size,
        .flags = c.Py_TPFLAGS_DEFAULT | c.Py_TPFLAGS_HAVE_GC | c.Py_TPFLAGS_BASETYPE,
        .slots = &slots,
    };
};
