//! `hftws._core.ClientBase`, the base of `hftws.Client`: turns events into calls, arguments into
//! options and errors into exceptions. No protocol logic: that is in the core.
//!
//! A client has no lock, and one thread at a time is inside it, with or without the GIL: whoever
//! comes second is told so. `exclusive` is the door. The thread inside may come again, from a
//! callback or a signal handler. To receive a message costs nothing more: run() enters once.

const std = @import("std");
const assert = std.debug.assert;
const core = @import("core");
const py = @import("py.zig");
const c = py.c;
const exceptions = @import("exceptions.zig");
const fork = @import("fork.zig");
const options_parser = @import("options.zig");
const report = @import("report.zig");
const Message = @import("message.zig").Message;
const Reservation = @import("reservation.zig").Reservation;
const ModuleState = @import("module.zig").ModuleState;

const ns_per_s = std.time.ns_per_s;

pub const Client = struct {
    /// False until `__init__` is through.
    ready: bool,
    /// Where the connection waits.
    loop: core.Loop,
    connection: core.Connection,
    tls_context: ?core.ssl.Context,
    /// Owns every string of the options.
    arena: std.heap.ArenaAllocator,
    /// Null where the caller gave none. Owned.
    on_msg: ?*py.Object,
    on_open: ?*py.Object,
    on_close: ?*py.Object,
    /// The message that was lent last and that nobody kept. Owned.
    spare: ?*py.Object,
    /// Of the process that made it: in any other, this is a copy that fork() made.
    generation: u32,
    /// The thread that is inside a method, 0 when none is.
    inside: std.atomic.Value(usize),
    /// The last slice of a reserved place went after its block: the place can be had back.
    reservation_abandoned: std.atomic.Value(bool),
    /// A call that drives the connection is under way. For the thread inside; so is the next.
    driving: bool,
    /// A callback is under way, inside that call.
    in_callback: bool,
    /// When it last let other threads run, on the monotonic clock.
    released_ns: u64,
    /// `on_close` has been called for this connection, or the connection was never open.
    close_told: bool,
    /// Messages delivered in the present turn.
    turn_messages: usize,
    /// The HTTP response of the upgrade, of its refusal, or of a GET.
    response: Response,
    body_size_max: usize,

    pub const instance = py.Instance(Client);

    const Response = struct {
        status: u16 = 0,
        /// A list of pairs of str. Owned.
        headers: ?*py.Object = null,
        body: std.ArrayList(u8) = .empty,
        complete: bool = false,
    };

    /// What a turn ended with.
    const Outcome = enum { blocked, opened, finished, closed };

    /// Whether a call came into the client, or was made by one that had.
    const Entrance = enum { outer, inner };

    pub const in_use = "another thread is using this client";
    const inherited = "this client belongs to another process: it was made before fork()";

    // ---- The door. -----------------------------------------------------------------------------

    /// Lets this thread in, unless another one is: nobody waits. To be followed by `leave`.
    pub inline fn enter(client: *Client) py.Error!Entrance {
        if (client.isInherited()) return py.raise(c.PyExc_RuntimeError, inherited);
        const thread = py.currentThread();
        const entrance: Entrance = if (client.inside.load(.monotonic) == thread)
            .inner
        else if (client.claim(thread))
            .outer
        else
            return py.raise(c.PyExc_RuntimeError, in_use);
        if (client.reservation_abandoned.load(.monotonic)) client.settleReservation();
        return entrance;
    }

    inline fn claim(client: *Client, thread: usize) bool {
        if (py.free_threaded) {
            return client.inside.cmpxchgStrong(0, thread, .acquire, .monotonic) == null;
        }
        if (client.inside.load(.monotonic) != 0) return false;
        client.inside.store(thread, .monotonic); // The GIL lets nobody in between.
        return true;
    }

    pub inline fn leave(client: *Client, entrance: Entrance) void {
        switch (entrance) {
            .outer => client.inside.store(0, .release),
            .inner => {},
        }
    }

    /// Whether the calling thread is the one inside.
    pub fn isInside(client: *const Client) bool {
        return client.inside.load(.monotonic) == py.currentThread();
    }

    /// Whether a parent of this process has made the client: then it is not ours to use.
    inline fn isInherited(client: *const Client) bool {
        return client.generation != fork.current();
    }

    /// To be called when Python code has run inside: it may have forked, or left the place of a
    /// frame open.
    inline fn afterCallback(client: *Client) py.Error!void {
        if (client.isInherited()) return py.raise(c.PyExc_RuntimeError, inherited);
        try client.requireUnreserved();
    }

    /// Half a connection is of no use.
    fn giveUp(client: *Client) void {
        if (client.isInherited()) client.loop.disown();
        client.connection.abort();
    }

    fn settleReservation(client: *Client) void {
        if (client.reservation_abandoned.swap(false, .acquire)) client.connection.cancel();
    }

    /// A method or getter that two threads cannot be in at once.
    fn exclusive(
        comptime function: fn (*Client) py.Error!*py.Object,
    ) fn (*Client) py.Error!*py.Object {
        return struct {
            fn call(client: *Client) py.Error!*py.Object {
                const entrance = try client.enter();
                defer client.leave(entrance);
                return function(client);
            }
        }.call;
    }

    /// The same for a method with arguments.
    fn exclusiveWith(
        comptime function: fn (*Client, py.Arguments) py.Error!*py.Object,
    ) fn (*Client, py.Arguments) py.Error!*py.Object {
        return struct {
            fn call(client: *Client, arguments: py.Arguments) py.Error!*py.Object {
                const entrance = try client.enter();
                defer client.leave(entrance);
                return function(client, arguments);
            }
        }.call;
    }

    // ---- Driving. ------------------------------------------------------------------------------

    fn connect(client: *Client) py.Error!*py.Object {
        try client.beginDriving();
        defer client.driving = false;
        try client.open();
        return py.none();
    }

    fn open(client: *Client) py.Error!void {
        switch (client.connection.state()) {
            .idle, .closed => {},
            else => return py.raise(c.PyExc_RuntimeError, "already connected"),
        }
        try client.start();
        try client.awaitOpen();
        try client.tellOpen();
    }

    /// Forgets the connection before, and begins anew.
    fn start(client: *Client) py.Error!void {
        client.forgetResponse();
        client.close_told = true;
        client.dropSpare();
        client.connection.leavePinnedRings();
        py.withoutLock(core.Connection.start, .{&client.connection}) catch |err| {
            return exceptions.raiseStart(client, err);
        };
    }

    fn awaitOpen(client: *Client) py.Error!void {
        errdefer client.giveUp(); // Such as interrupted.
        while (true) switch (try client.turn()) {
            .blocked => _ = try client.waitFor(null),
            .opened => return,
            .finished, .closed => return exceptions.raiseClosed(client),
        };
    }

    fn run(client: *Client) py.Error!*py.Object {
        try client.beginDriving();
        defer client.driving = false;
        try client.requireStarted();
        client.connection.beginTurn();
        while (client.connection.state() != .closed) switch (try client.turn()) {
            .blocked => _ = try client.waitFor(null),
            .opened, .finished, .closed => {},
        };
        try client.raiseUnlessOrdinary();
        return py.none();
    }

    fn poll(client: *Client, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bind(&.{"timeout"}, 1);
        const timeout_ns = try timeoutOf(bound[0]);
        try client.beginDriving();
        defer client.driving = false;
        try client.requireStarted();
        if (client.connection.state() == .closed) return exceptions.raiseClosed(client);

        client.turn_messages = 0;
        client.connection.beginTurn();
        const until_ns = if (timeout_ns) |timeout| core.os.Os.monotonicNs() +| timeout else null;
        while (true) {
            const outcome = try client.turn();
            if (outcome != .blocked or client.turn_messages > 0) break;
            const left_ns = if (until_ns) |until| until -| core.os.Os.monotonicNs() else null;
            if (left_ns == 0) break;
            _ = try client.waitFor(left_ns);
        }
        try client.checkSignals();
        return py.integer(client.turn_messages);
    }

    fn close(client: *Client, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bind(&.{ "code", "reason" }, 2);
        const code = try closeCodeOf(bound[0]);
        const reason = if (bound[1]) |object| try py.utf8(object) else "";
        if (reason.len > core.constants.close_reason_size_max) {
            const message = "a close reason has at most 123 bytes of UTF-8";
            return py.raise(c.PyExc_ValueError, message);
        }
        try client.requireUnreserved();
        if (client.in_callback) { // The call that is under way sees to the rest.
            client.connection.close(code, reason);
            return py.none();
        }
        try client.beginDriving();
        defer client.driving = false;
        client.connection.close(code, reason);
        try client.finishClose();
        // Whoever goes on, and does not close, has them again at once. A client in a cycle with its
        // callback would keep them until the garbage collector comes.
        client.dropSpare();
        client.connection.releaseRings();
        return py.none();
    }

    /// The closing handshake, up to `close_timeout`. How it goes is no matter to raise.
    fn finishClose(client: *Client) py.Error!void {
        client.connection.beginTurn();
        while (client.connection.state() == .closing) {
            const event = client.connection.next() catch |err| switch (err) {
                error.Failed => break,
                error.ReceiveRingPinned => {
                    client.connection.abort();
                    break;
                },
                error.OutOfMemory => return exceptions.raiseNext(client, err),
            };
            if (event == .blocked) _ = try client.waitFor(null);
        }
        try client.tellClosed();
    }

    /// Events until there is nothing more to do without waiting. Calls back for each message.
    fn turn(client: *Client) py.Error!Outcome {
        while (true) {
            if (client.connection.nextMessage()) |message| {
                try client.deliver(message);
                continue;
            }
            const event = client.connection.next() catch |err| {
                return exceptions.raiseNext(client, err);
            };
            switch (event) {
                .message => |message| try client.deliver(message),
                .blocked => return .blocked,
                .opened => |head| {
                    try client.rememberHead(head);
                    return .opened;
                },
                .response => |head| try client.rememberHead(head),
                .body => |bytes| if (!try client.rememberBody(bytes)) return .finished,
                .finished => |finished| {
                    client.response.complete = finished.complete;
                    return .finished;
                },
                .closed => {
                    try client.tellClosed();
                    return .closed;
                },
            }
        }
    }

    /// Hands one message to `on_msg`.
    inline fn deliver(client: *Client, found: core.delivery.Delivery) py.Error!void {
        client.turn_messages += 1;
        const on_msg = client.on_msg orelse return;
        const object = try client.messageToLend();
        const message = Message.instance.of(object);
        client.connection.stampDelivery();
        message.lend(&found, client);

        client.in_callback = true;
        const result = py.callWithOne(on_msg, object);
        if (message.isUnused()) client.spare = object else message.keep();
        if (result) |returned| py.decref(returned); // Its `__del__` may ask what a callback may.
        client.in_callback = false;

        _ = try py.check(result);
        try client.afterCallback();
    }

    /// The spare one, or else a new one.
    inline fn messageToLend(client: *Client) py.Error!*py.Object {
        const spare = client.spare orelse return newMessage();
        client.spare = null;
        if (py.isOwn(spare)) return spare;
        Message.instance.of(spare).discard();
        return newMessage();
    }

    /// To be called before the ring goes that its view points into.
    fn dropSpare(client: *Client) void {
        const spare = client.spare orelse return;
        client.spare = null;
        Message.instance.of(spare).discard();
    }

    fn newMessage() py.Error!*py.Object {
        const object = try py.allocate(@ptrCast(ModuleState.get().message_type));
        const message = Message.instance.of(object);
        message.view = null;
        message.pinned = false;
        message.has_stamps = false;
        return object;
    }

    /// Sleeps while other Python threads run, then lets signal handlers have their turn.
    fn waitFor(client: *Client, timeout_ns: ?u64) py.Error!void {
        const alone = !py.hasOtherThreads();
        if (client.connection.turnSpent()) {
            client.connection.beginTurn();
            // Without the GIL nobody asks for it, but the garbage collector waits for all threads.
            if (py.free_threaded) py.yieldLock();
        } else if (alone) {
            try client.waitUnlocked(timeout_ns);
        } else if (try client.waitLocked() == .timed_out) {
            const before_ns = core.os.Os.monotonicNs();
            try client.waitUnlocked(timeout_ns);
            client.noteRelease(before_ns);
        }
        if (!alone) client.yieldLock();
        try client.checkSignals();
    }

    /// Only looks. Where there is more at once, Python's lock is better kept: to take it back
    /// costs, and a release too short to be used disturbs the thread that waits for it.
    fn waitLocked(client: *Client) py.Error!core.loop.Wake {
        const connections = [_]*core.Connection{&client.connection};
        return client.loop.wait(&connections, 0) catch |err| return exceptions.raiseWait(err);
    }

    fn waitUnlocked(client: *Client, timeout_ns: ?u64) py.Error!void {
        // A signal that comes between the check and the sleep would be noticed only when the sleep
        // ends: it never lasts long.
        const wait_max_ns = core.constants.wait_max_ns;
        const limit_ns = @min(timeout_ns orelse wait_max_ns, wait_max_ns);
        const connections = [_]*core.Connection{&client.connection};
        const arguments = .{ &client.loop, &connections, limit_ns };
        _ = py.withoutLock(core.Loop.wait, arguments) catch |err| return exceptions.raiseWait(err);
    }

    fn noteRelease(client: *Client, before_ns: u64) void {
        const after_ns = core.os.Os.monotonicNs();
        if (after_ns -| before_ns >= core.constants.lock_release_ns) client.released_ns = after_ns;
    }

    /// A peer that never pauses must not keep the other threads out for ever.
    fn yieldLock(client: *Client) void {
        const now_ns = core.os.Os.monotonicNs();
        if (now_ns -| client.released_ns < core.constants.lock_hold_max_ns) return;
        py.yieldLock();
        client.released_ns = now_ns;
    }

    /// A signal handler may ask of the client what a callback may, such as to close it.
    fn checkSignals(client: *Client) py.Error!void {
        client.in_callback = true;
        defer client.in_callback = false;
        try py.checkStatus(c.PyErr_CheckSignals());
        try client.afterCallback();
    }

    fn beginDriving(client: *Client) py.Error!void {
        try client.requireReady();
        if (client.driving) return py.raise(
            c.PyExc_RuntimeError,
            "connect(), run() and poll() cannot be called from a callback of the same client",
        );
        try client.requireUnreserved();
        client.driving = true;
    }

    /// While the place of a frame is written to, nothing goes on: a CLOSE could not be sent, and
    /// the end of the connection would take the place away.
    inline fn requireUnreserved(client: *Client) py.Error!void {
        if (!client.connection.isReserved()) return;
        client.settleReservation();
        if (!client.connection.isReserved()) return;
        return py.raise(c.PyExc_RuntimeError, "a reservation is open");
    }

    fn isReady(client: *const Client) bool {
        return @atomicLoad(bool, &client.ready, .acquire);
    }

    fn requireReady(client: *Client) py.Error!void {
        if (!client.isReady()) return py.raise(c.PyExc_RuntimeError, "__init__ was not called");
    }

    fn requireStarted(client: *Client) py.Error!void {
        if (client.connection.state() == .idle) {
            return py.raise(c.PyExc_RuntimeError, "not connected: call connect() first");
        }
    }

    fn raiseUnlessOrdinary(client: *Client) py.Error!void {
        const closed = client.connection.closed().?;
        if (client.connection.failure() != null or !closed.isOrdinary()) {
            return exceptions.raiseClosed(client);
        }
    }

    // ---- Callbacks for the beginning and the end. ----------------------------------------------

    fn tellOpen(client: *Client) py.Error!void {
        client.close_told = false;
        const on_open = client.on_open orelse return;
        try client.callBack(on_open, .{Client.instance.objectOf(client)});
    }

    pub fn tellClosed(client: *Client) py.Error!void {
        if (client.close_told) return;
        client.close_told = true;
        const on_close = client.on_close orelse return;
        const closed = client.connection.closed() orelse return;
        const code = try py.integer(closed.code);
        defer py.decref(code);
        const reason = try py.string(closed.reason);
        defer py.decref(reason);
        try client.callBack(on_close, .{ Client.instance.objectOf(client), code, reason });
    }

    fn callBack(client: *Client, callable: *py.Object, arguments: anytype) py.Error!void {
        const values: [arguments.len]?*py.Object = arguments;
        client.in_callback = true;
        defer client.in_callback = false;
        const result = c.PyObject_Vectorcall(callable, @ptrCast(&values), values.len, null);
        py.decref(try py.check(result));
        try client.afterCallback();
    }

    // ---- Sending. ------------------------------------------------------------------------------

    fn send(client: *Client, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bind(&.{ "data", "text" }, 1);
        const data = bound[0] orelse return py.raise(c.PyExc_TypeError, "send() needs data");
        try client.requireReady();
        if (py.isUnicode(data)) {
            if (try isTrue(bound[1], true)) {
                try client.sendBytes(.text, try py.utf8(data));
                return py.none();
            }
            return py.raise(c.PyExc_TypeError, "a str is always sent as text");
        }
        const opcode: core.ws.Opcode = if (try isTrue(bound[1], false)) .text else .binary;
        var bytes = try py.Bytes.init(data);
        defer bytes.deinit();
        try client.sendBytes(opcode, bytes.slice());
        return py.none();
    }

    fn sendBytes(client: *Client, opcode: core.ws.Opcode, payload: []const u8) py.Error!void {
        client.connection.send(opcode, payload) catch |err| {
            return exceptions.raiseSend(client, err, payload.len);
        };
    }

    fn ping(client: *Client, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bind(&.{"payload"}, 1);
        try client.requireReady();
        const data = bound[0] orelse {
            try client.pingBytes("");
            return py.none();
        };
        if (py.isUnicode(data)) {
            try client.pingBytes(try py.utf8(data));
            return py.none();
        }
        var bytes = try py.Bytes.init(data);
        defer bytes.deinit();
        try client.pingBytes(bytes.slice());
        return py.none();
    }

    fn pingBytes(client: *Client, payload: []const u8) py.Error!void {
        if (payload.len > core.constants.control_payload_size_max) {
            return py.raise(c.PyExc_ValueError, "the payload of a ping has at most 125 bytes");
        }
        client.connection.ping(payload) catch |err| {
            return exceptions.raiseSend(client, err, payload.len);
        };
    }

    fn reserve(client: *Client, arguments: py.Arguments) py.Error!*py.Object {
        const bound = try arguments.bind(&.{ "n", "text" }, 1);
        const size_object = bound[0] orelse return py.raise(c.PyExc_TypeError, "reserve() needs n");
        const needs_text = "reserve() needs text=True or text=False";
        const text_object = bound[1] orelse return py.raise(c.PyExc_TypeError, needs_text);
        if (py.isNone(text_object)) return py.raise(c.PyExc_TypeError, needs_text);
        try client.requireReady();
        const size = c.PyLong_AsSsize_t(size_object);
        if (size == -1 and c.PyErr_Occurred() != null) return error.PythonError;
        if (size < 0) return py.raise(c.PyExc_ValueError, "n is negative");
        const opcode: core.ws.Opcode = if (try isTrue(text_object, false)) .text else .binary;
        const type_object: *c.PyTypeObject = @ptrCast(ModuleState.get().reservation_type);
        return Reservation.create(type_object, client, opcode, @intCast(size));
    }

    pub fn reservePayload(client: *Client, opcode: core.ws.Opcode, size: usize) py.Error![]u8 {
        try client.requireReady();
        return client.connection.reserve(opcode, size) catch |err| {
            return exceptions.raiseSend(client, err, size);
        };
    }

    pub fn commitReservation(client: *Client) py.Error!void {
        client.connection.commit() catch |err| return exceptions.raiseSend(client, err, 0);
    }

    // ---- The HTTP side. ------------------------------------------------------------------------

    /// One GET: (status, headers, body).
    fn fetch(client: *Client) py.Error!*py.Object {
        try client.beginDriving();
        defer client.driving = false;
        if (client.connection.options.purpose != .get) {
            return py.raise(c.PyExc_RuntimeError, "fetch() is for hftws.get()");
        }
        try client.start();
        errdefer client.giveUp();
        while (true) switch (try client.turn()) {
            .blocked => _ = try client.waitFor(null),
            .finished => break,
            .opened, .closed => unreachable, // A GET is never upgraded.
        };
        const body = try py.bytes(client.response.body.items);
        const headers = client.response.headers.?;
        const status: c_int = client.response.status;
        return py.check(c.Py_BuildValue("(iON)", status, headers, body));
    }

    fn rememberHead(client: *Client, head: core.http.Head) py.Error!void {
        client.response.status = head.status;
        const list = try py.check(c.PyList_New(0));
        const headers_before = client.response.headers;
        client.response.headers = list;
        py.decrefOptional(headers_before);
        var headers = head.headers();
        while (headers.next()) |header| {
            const name = try py.string(header.name);
            defer py.decref(name);
            const value = try py.string(header.value);
            defer py.decref(value);
            const pair = try py.check(c.PyTuple_Pack(2, name, value));
            defer py.decref(pair);
            try py.checkStatus(c.PyList_Append(list, pair));
        }
    }

    /// False when no more of it is wanted.
    fn rememberBody(client: *Client, bytes: []const u8) py.Error!bool {
        const body = &client.response.body;
        const room = client.body_size_max - body.items.len;
        if (bytes.len > room and client.connection.options.purpose == .get) {
            client.connection.abort();
            return exceptions.raiseBodyTooBig(client);
        }
        body.appendSlice(std.heap.c_allocator, bytes[0..@min(bytes.len, room)]) catch {
            _ = c.PyErr_NoMemory();
            return error.PythonError;
        };
        if (bytes.len <= room) return true;
        client.connection.skipBody(); // Of a refusal, the beginning is enough.
        return false;
    }

    fn forgetResponse(client: *Client) void {
        const headers = client.response.headers;
        client.response.body.deinit(std.heap.c_allocator);
        client.response = .{};
        py.decrefOptional(headers);
    }

    // ---- Looking. ------------------------------------------------------------------------------
    // Any thread may ask `is_open`, `stats` and `fileno`: whole words, and nothing that is freed.

    fn fileno(client: *Client) py.Error!*py.Object {
        try client.requireReady();
        if (client.connection.transport.link.socket) |*socket| {
            return py.integer(@as(c_long, socket.descriptor));
        }
        return py.raise(c.PyExc_ValueError, "not connected: there is no file descriptor");
    }

    fn info(client: *Client) py.Error!*py.Object {
        try client.requireReady();
        return report.info(client);
    }

    fn stats(client: *Client) py.Error!*py.Object {
        try client.requireReady();
        return report.stats(client);
    }

    fn isOpen(client: *Client) py.Error!*py.Object {
        if (client.isInherited() or !client.isReady()) return py.boolean(false);
        return py.boolean(client.connection.state() == .open);
    }

    fn wantsWrite(client: *Client) py.Error!*py.Object {
        return py.boolean(client.ready and client.connection.wantsWrite());
    }

    fn subprotocol(client: *Client) py.Error!*py.Object {
        if (!client.ready) return py.none();
        return py.string(client.connection.subprotocol() orelse return py.none());
    }

    fn responseHeaders(client: *Client) py.Error!*py.Object {
        const headers = client.response.headers orelse return py.check(c.PyList_New(0));
        return py.check(c.PyList_GetSlice(headers, 0, c.PyList_Size(headers)));
    }

    fn closeCode(client: *Client) py.Error!*py.Object {
        if (!client.ready) return py.none();
        const closed = client.connection.closed() orelse return py.none();
        return py.integer(closed.code);
    }

    fn closeReason(client: *Client) py.Error!*py.Object {
        if (!client.ready) return py.none();
        const closed = client.connection.closed() orelse return py.none();
        return py.string(closed.reason);
    }

    // ---- The life of the object. ---------------------------------------------------------------

    fn create(
        type_object: *c.PyTypeObject,
        _: ?*py.Object,
        _: ?*py.Object,
    ) callconv(.c) ?*py.Object {
        const object = py.allocate(type_object) catch return null;
        instance.of(object).generation = fork.current();
        return object;
    }

    fn initialize(
        object: *py.Object,
        arguments: *py.Object,
        keywords: ?*py.Object,
    ) callconv(.c) c_int {
        const client = instance.of(object);
        const entrance = client.enter() catch return -1;
        defer client.leave(entrance);
        if (client.ready or entrance == .inner) {
            c.PyErr_SetString(c.PyExc_RuntimeError, "__init__ was called before");
            return -1;
        }
        client.arena = .init(std.heap.c_allocator);
        options_parser.initialize(client, arguments, keywords) catch {
            client.arena.deinit();
            return -1;
        };
        @atomicStore(bool, &client.ready, true, .release); // For those who only look.
        return 0;
    }

    fn traverse(object: *py.Object, visit: c.visitproc, argument: ?*anyopaque) callconv(.c) c_int {
        const client = instance.of(object);
        const type_object: ?*py.Object = @ptrCast(py.typeOf(object));
        inline for (.{
            type_object,             client.on_msg, client.on_open, client.on_close,
            client.response.headers,
        }) |member| {
            if (member) |found| {
                const status = visit.?(found, argument);
                if (status != 0) return status;
            }
        }
        return 0;
    }

    fn clear(object: *py.Object) callconv(.c) c_int {
        const client = instance.of(object);
        inline for (.{ "on_msg", "on_open", "on_close" }) |name| {
            const member = @field(client, name);
            @field(client, name) = null;
            py.decrefOptional(member);
        }
        return 0;
    }

    /// Warns, as the standard library's sockets do, when nobody closed the connection.
    fn finalize(object: *py.Object) callconv(.c) void {
        const client = instance.of(object);
        if (!client.ready or client.isInherited()) return;
        switch (client.connection.state()) {
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
        if (c.PyObject_CallFinalizerFromDealloc(object) < 0) return; // Somebody took it back.
        c.PyObject_GC_UnTrack(object);
        const client = instance.of(object);
        _ = clear(object);
        if (client.isWhole()) client.release();
        py.free(object);
    }

    /// Not so when it was forked while a thread was inside, that is no more: what that thread was
    /// about to change is best left alone, until the process ends.
    fn isWhole(client: *const Client) bool {
        return !client.isInherited() or client.inside.load(.monotonic) == 0;
    }

    fn release(client: *Client) void {
        if (!client.ready) return;
        client.dropSpare();
        if (client.isInherited()) client.loop.disown();
        client.forgetResponse();
        client.connection.deinit();
        client.loop.deinit();
        if (client.tls_context) |*context| context.deinit();
        client.arena.deinit();
    }

    fn callbackGetter(comptime field: []const u8) fn (*Client) py.Error!*py.Object {
        return struct {
            fn get(client: *Client) py.Error!*py.Object {
                return c.Py_NewRef(@field(client, field) orelse return py.none()).?;
            }
        }.get;
    }

    var methods = [_]c.PyMethodDef{
        instance.noArguments("connect", exclusive(connect), doc.connect),
        instance.noArguments("run", exclusive(run), doc.run),
        instance.method("poll", exclusiveWith(poll), doc.poll),
        instance.method("close", exclusiveWith(close), doc.close),
        instance.method("send", exclusiveWith(send), doc.send),
        instance.method("ping", exclusiveWith(ping), doc.ping),
        instance.method("reserve", exclusiveWith(reserve), doc.reserve),
        instance.noArguments("fetch", exclusive(fetch),
            \\fetch($self, /)
            \\--
            \\
            \\One GET; see hftws.get().
        ),
        instance.noArguments("fileno", fileno, doc.fileno),
        instance.noArguments("info", exclusive(info), doc.info),
        instance.noArguments("stats", stats, doc.stats),
        .{},
    };

    var getters = [_]c.PyGetSetDef{
        instance.getter("on_msg", callbackGetter("on_msg"), "Called with each Message."),
        instance.getter("on_open", callbackGetter("on_open"), "Called when it is connected."),
        instance.getter("on_close", callbackGetter("on_close"), "Called when it has ended."),
        instance.getter("is_open", isOpen, "Whether messages can be sent and received now."),
        instance.getter("wants_write", exclusive(wantsWrite),
            \\Whether something waits in the send ring for the socket to be writable.
        ),
        instance.getter("subprotocol", exclusive(subprotocol),
            \\The one that the server chose, or None.
        ),
        instance.getter("response_headers", exclusive(responseHeaders),
            \\The headers of the server's answer to the upgrade, as a list of pairs.
        ),
        instance.getter("close_code", exclusive(closeCode),
            \\How the connection ended (RFC 6455, section 7.1.5); None while it has not.
        ),
        instance.getter("close_reason", exclusive(closeReason),
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

/// Seconds as a float; None is forever.
fn timeoutOf(object: ?*py.Object) py.Error!?u64 {
    const seconds_object = object orelse return 0;
    if (py.isNone(seconds_object)) return null;
    const seconds = c.PyFloat_AsDouble(seconds_object);
    if (seconds == -1.0 and c.PyErr_Occurred() != null) return error.PythonError;
    return try options_parser.nanoseconds("timeout", seconds);
}

/// Codes that a program may send (RFC 6455, section 7.4.2, and the IANA registry).
fn closeCodeOf(object: ?*py.Object) py.Error!u16 {
    const code_object = object orelse return 1000;
    const code = c.PyLong_AsLong(code_object);
    if (code == -1 and c.PyErr_Occurred() != null) return error.PythonError;
    if (code >= 0 and code <= 4999) {
        const value: u16 = @intCast(code);
        if (core.ws.CloseCode.isAllowedInFrame(value)) return value;
    }
    return py.raiseFormat(c.PyExc_ValueError, "{d} is no close code that can be sent", .{code});
}

fn isTrue(object: ?*py.Object, default: bool) py.Error!bool {
    const value = object orelse return default;
    if (py.isNone(value)) return default;
    const truth = c.PyObject_IsTrue(value);
    try py.checkStatus(truth);
    return truth != 0;
}

const doc = struct {
    const connect =
        \\connect($self, /)
        \\--
        \\
        \\Connects: name, TCP, TLS, WebSocket upgrade. Blocks until done.
        \\
        \\Every address that the name resolves to is tried. A client whose connection has ended can
        \\connect again. Then on_open(client) is called.
        \\
        \\Raises ConnectError, ConnectTimeout, TLSError or HandshakeError.
    ;
    const run =
        \\run($self, /)
        \\--
        \\
        \\Receives until the connection ends, and calls on_msg for each message.
        \\
        \\Returns when the connection ends in the ordinary way: close() was called, or the peer
        \\said 1000, 1001 or gave no code. Raises ConnectionClosed when it ends otherwise,
        \\ProtocolError or MessageTooBig when the peer misbehaves, TLSError when a record is bad,
        \\and BufferError when kept messages leave no room. What a callback raises comes out of
        \\here, and run() can be called again to go on.
    ;
    const poll =
        \\poll($self, /, timeout=0.0)
        \\--
        \\
        \\Delivers what is there and returns how many messages that were.
        \\
        \\When there is nothing, waits up to timeout seconds for the first; None waits without end.
        \\Raises what run() raises, and ConnectionClosed also after an ordinary end.
    ;
    const close =
        \\close($self, /, code=1000, reason='')
        \\--
        \\
        \\Closes the connection: the handshake of RFC 6455, section 7, for at most close_timeout s.
        \\
        \\Messages that still arrive are dropped. When the connection has ended, it only gives back
        \\the memory of the rings, which another connect() maps anew. From a callback it returns at
        \\once, and the call under way finishes the handshake.
    ;
    const send =
        \\send($self, data, /, *, text=None)
        \\--
        \\
        \\Sends one message: a str as text, bytes-like data as binary, or as text with text=True.
        \\
        \\Returns at once. What the socket does not take waits in the send ring and goes out with
        \\the next call of run(), poll() or send(). Raises BufferError when the ring has no room:
        \\nothing of the message is sent then. Data sent as text is not checked to be UTF-8.
    ;
    const ping =
        \\ping($self, payload=b'', /)
        \\--
        \\
        \\Sends a ping with at most 125 bytes. Pings of the peer are answered without help.
    ;
    const reserve =
        \\reserve($self, n, /, *, text)
        \\--
        \\
        \\A context manager that gives the place of a message of n bytes in the send ring.
        \\
        \\The message is masked and sent at the end of the block, without a copy; after an exception
        \\it is dropped. Nothing else can be sent in between. The block itself takes some 400 ns: it
        \\pays for messages of many KiB, or where it saves you a buffer of your own. A slice of the
        \\view (numpy.frombuffer) that outlives the block ends it in BufferError: the message is not
        \\sent, and send, poll, run and close raise RuntimeError until the slice is gone.
    ;
    const fileno =
        \\fileno($self, /)
        \\--
        \\
        \\The socket's file descriptor, for a loop of your own: when it is readable, or writable
        \\while wants_write is true, call poll(). Messages that have been read already do not make
        \\it readable: call poll(0) once after connect() and after every exception of a callback,
        \\before you wait, and every few milliseconds when is_open is false, until it raises.
    ;
    const info =
        \\info($self, /)
        \\--
        \\
        \\What is in force, as a dict: peer, TLS, rings, socket options as read back.
    ;
    const stats =
        \\stats($self, /)
        \\--
        \\
        \\Counters, and with latency=True a histogram of each stage, in nanoseconds.
    ;
};
