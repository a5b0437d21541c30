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
const Host = @import("host.zig").Host;
const exceptions = @import("exceptions.zig");
const options_parser = @import("options.zig");
const report = @import("report.zig");
const sinks = @import("sinks.zig");
const Journal = @import("journal.zig").Journal;
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
    /// Null if the caller gave none. Owned, and so are the next two.
    on_open: ?*py.Object,
    on_close: ?*py.Object,
    on_error: ?*py.Object,
    /// The loop that it is in, and its place there. The loop has a reference to the client, too.
    membership: Membership,
    /// True when `on_close` has been called for this connection, or it was never open.
    close_told: bool,
    /// Whether this connection was open once.
    was_open: bool,
    /// Messages delivered since the last call of `poll`.
    messages: usize,
    /// The response to the upgrade, or to a GET.
    response: Response,

    pub const instance = py.Instance(Client);

    /// How a turn ended. `more`: by its bound, with perhaps more to do.
    const Outcome = enum { blocked, more, opened, finished, closed };

    pub const Membership = struct {
        /// Owned; null when the client is in no loop.
        loop: ?*py.Object = null,
        node: std.DoublyLinkedList.Node = .{},
        /// Messages that its turn may still deliver.
        turn_left: usize = 0,
        /// Whether the connection failed, in this turn, with the exception that is set.
        failed: enum { no, stalled, over } = .no,
        /// Whether kept messages leave no room, and that was told.
        is_stalled: bool = false,
    };

    // ---- Connecting and receiving. -------------------------------------------------------------

    fn connect(client: *Client) py.Error!*py.Object {
        if (client.driver.isInLoop()) {
            try client.beginInLoop();
            return py.none();
        }
        try client.beginDriving();
        defer client.driver.end();
        try client.requireEnded();
        var journal = try Journal.open(&client.driver);
        defer if (journal) |*found| found.deinit();
        const told = if (journal) |*found| found else null;
        client.startAndAwaitOpen(told) catch |err| return if (told) |to| to.tellFailed() else err;
        try client.tellOpen(told);
        return py.none();
    }

    fn requireEnded(client: *Client) py.Error!void {
        switch (client.driver.connection.state()) {
            .idle, .closed => {},
            else => return py.raise(c.PyExc_RuntimeError, "already connected"),
        }
    }

    fn startAndAwaitOpen(client: *Client, journal: ?*Journal) py.Error!void {
        if (journal) |told| try told.tellConnecting();
        try client.start();
        try client.awaitOpen(journal);
    }

    /// Frees what is left of the last connection, and begins a new one.
    fn start(client: *Client) py.Error!void {
        client.response.forget();
        client.close_told = true;
        client.was_open = false;
        client.callback.dropSpare();
        client.driver.connection.leavePinnedRings();
        client.driver.start() catch |err| return exceptions.raiseStart(err, client.facts());
    }

    fn awaitOpen(client: *Client, journal: ?*Journal) py.Error!void {
        errdefer client.driver.giveUp(); // For example, a signal handler raised.
        while (true) {
            const outcome = try client.turn();
            if (journal) |told| try told.tellStages();
            switch (outcome) {
                .blocked => try client.driver.wait(null),
                .opened => return,
                .finished, .closed => return exceptions.raiseClosed(client.facts()),
                .more => unreachable, // Alone, a turn has no such bound.
            }
        }
    }

    fn run(client: *Client) py.Error!*py.Object {
        try client.beginDriving();
        defer client.driver.end();
        try client.requireStarted();
        const connection = &client.driver.connection;
        connection.beginTurn();
        while (connection.state() != .closed) switch (try client.turn()) {
            .blocked => {
                try client.driver.wait(null);
                if (client.driver.own.takeStop()) return py.none();
            },
            .opened, .finished, .closed, .more => {},
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
        const host = &client.driver.own;
        host.has_untold = false;
        if (connection.state() == .closed) return exceptions.raiseClosed(client.facts());
        if (host.loop.?.takeWake()) try host.callOwner("_run_soon");
        client.messages = 0;
        connection.beginTurn();
        const until_ns = if (timeout_ns) |timeout| core.os.Os.monotonicNs() +| timeout else null;
        while (true) {
            const outcome = try client.turn();
            if (outcome == .closed) host.has_untold = true; // The next call tells it.
            if (outcome != .blocked or client.messages > 0) break;
            const left_ns = if (until_ns) |until| until -| core.os.Os.monotonicNs() else null;
            if (left_ns == 0) break;
            try client.driver.wait(left_ns);
            if (host.takeStop()) break;
        }
        try host.checkSignals();
        try client.driver.requireUnreserved();
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
        // The call that runs the callback does the rest, or the loop.
        if (client.driver.host.in_callback or client.driver.isInLoop()) {
            client.driver.connection.close(code, reason);
            client.driver.ask();
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
        comptime target: enum { on_msg, nowhere, bounded },
    ) py.Error!Outcome {
        client.driver.is_blocked = false;
        var sink = switch (target) {
            .on_msg => client.callingSink(),
            .nowhere => sinks.CountingSink{ .count = &client.messages },
            .bounded => sinks.BoundedSink{
                .inner = client.callingSink(),
                .left = &client.membership.turn_left,
            },
        };
        while (true) switch (client.driver.connection.pump(&sink) catch |err| {
            return client.afterPump(err);
        }) {
            .message => unreachable, // The sink took them.
            .blocked => {
                client.driver.is_blocked = true;
                return .blocked;
            },
            .opened => |head| {
                try client.response.setHead(head);
                return .opened;
            },
            .response => |head| try client.response.setHead(head),
            .body => |bytes| if (!try client.keepBody(bytes)) return .finished,
            .finished => return .finished,
            .closed => |closed| {
                if (client.driver.isInLoop() and !closed.isOrdinary()) return client.failInLoop();
                try client.tellClosed();
                return .closed;
            },
        };
    }

    fn callingSink(client: *Client) sinks.CallingSink {
        return .{
            .callback = &client.callback,
            .driver = &client.driver,
            .host = client.driver.host,
            .count = &client.messages,
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

    /// What an error of `pump` means for the turn.
    fn afterPump(
        client: *Client,
        err: (core.connection.NextError || py.Error || error{TurnOver}),
    ) py.Error!Outcome {
        switch (err) {
            error.PythonError => return error.PythonError,
            error.TurnOver => return .more,
            error.Failed => {
                if (client.driver.isInLoop()) return client.failInLoop();
                try client.tellClosed();
                return exceptions.raiseClosed(client.facts());
            },
            error.ReceiveRingPinned, error.OutOfMemory => |stall| {
                client.membership.failed = .stalled;
                return exceptions.raiseStall(stall);
            },
        }
    }

    /// Tells on_close first, which may connect anew: so the exception is made before.
    fn failInLoop(client: *Client) py.Error!Outcome {
        const connection = &client.driver.connection;
        if (connection.failure() == null and connection.closed().?.local) {
            try client.tellClosed(); // We ended it: that is no failure.
            return .closed;
        }
        exceptions.raiseClosed(client.facts()) catch {};
        const exception = py.takeException();
        defer py.decref(exception);
        try client.tellClosed();
        client.membership.failed = .over;
        py.setException(exception);
        return error.PythonError;
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

    pub inline fn enter(client: *Client) py.Error!Host.Entrance {
        return client.driver.enter();
    }

    pub inline fn leave(client: *Client, entrance: Host.Entrance) void {
        client.driver.leave(entrance);
    }

    pub fn requireReady(client: *Client) py.Error!void {
        if (!client.isReady()) return py.raise(c.PyExc_RuntimeError, "__init__ was not called");
    }

    fn requireStarted(client: *Client) py.Error!void {
        if (client.driver.connection.state() == .idle) {
            return py.raise(c.PyExc_RuntimeError, "not connected: call connect() first");
        }
    }

    // ---- In a loop. ----------------------------------------------------------------------------

    /// Begins to connect; the loop does the rest.
    pub fn beginInLoop(client: *Client) py.Error!void {
        try client.requireReady();
        try client.requireEnded();
        client.membership.is_stalled = false;
        if (try Journal.open(&client.driver)) |found| {
            var journal = found;
            defer journal.deinit();
            try journal.tellConnecting();
        }
        client.start() catch |err| {
            // What goes wrong with the name or the address is told by on_error.
            if (client.driver.connection.failure() == null) return err;
            c.PyErr_Clear();
        };
        client.driver.ask();
    }

    /// One turn: delivers what is there, within bounds, and tells the client's own callbacks what
    /// has happened to the connection. Raises what a callback raises; the next turn goes on.
    pub fn turnInLoop(client: *Client) py.Error!void {
        const membership = &client.membership;
        const loop = &client.driver.host.loop.?;
        const connection = &client.driver.connection;
        if (connection.state() == .idle) return;
        membership.failed = .no;
        membership.turn_left = core.constants.messages_per_turn_max;
        const outcome = client.boundedTurn() catch |err| {
            if (membership.failed == .no) {
                loop.ask(connection);
                return err;
            }
            // A callback may have begun a new connection, or begins one now.
            defer if (connection.state() == .connecting) loop.ask(connection);
            try client.tellFailure();
            return client.settleInLoop();
        };
        membership.is_stalled = false;
        switch (outcome) {
            .blocked => {},
            .more => return loop.ask(connection),
            .opened => {
                loop.ask(connection);
                var journal = try Journal.open(&client.driver);
                defer if (journal) |*found| found.deinit();
                const told = if (journal) |*found| found else null;
                if (told) |to| try to.tellStages();
                try client.tellOpen(told);
            },
            .finished => { // The server has refused the upgrade.
                exceptions.raiseClosed(client.facts()) catch {};
                membership.failed = .over;
                try client.tellFailure();
            },
            .closed => {},
        }
        if (connection.state() == .connecting and outcome != .blocked) return loop.ask(connection);
        return client.settleInLoop();
    }

    fn logFailure(client: *Client, exception: *py.Object) py.Error!void {
        var journal = try Journal.open(&client.driver) orelse return;
        defer journal.deinit();
        return journal.tellFailure(exception);
    }

    fn boundedTurn(client: *Client) py.Error!Outcome {
        if (client.callback.on_msg == null) return client.turnInto(.nowhere);
        return client.turnInto(.bounded);
    }

    fn settleInLoop(client: *Client) py.Error!void {
        const host = client.driver.host;
        const connection = &client.driver.connection;
        if (client.membership.is_stalled) return host.loop.?.askLater(
            connection,
            core.os.Os.monotonicNs() + core.constants.stall_retry_ns,
        );
        host.loop.?.settle(connection) catch |err| return exceptions.raiseWait(err);
    }

    /// Gives the exception that is set to `on_error`; without one, or if on_close was not called,
    /// to sys.unraisablehook, so that it is never lost.
    fn tellFailure(client: *Client) py.Error!void {
        const exception = py.takeException();
        defer py.decref(exception);
        const is_over = client.membership.failed == .over;
        if (!is_over) {
            if (client.membership.is_stalled) return; // It was told.
            client.membership.is_stalled = true;
        } else if (!client.was_open) try client.logFailure(exception);
        const object = instance.objectOf(client);
        if (client.on_error) |on_error| {
            return client.driver.callBack(on_error, &.{ object, exception });
        }
        if (is_over and client.on_close != null and client.was_open) return;
        py.setException(exception);
        c.PyErr_WriteUnraisable(object);
    }

    // ---- Callbacks for the beginning and the end. ----------------------------------------------

    fn tellOpen(client: *Client, journal: ?*Journal) py.Error!void {
        client.close_told = false;
        client.was_open = true;
        const response = &client.response;
        if (journal) |told| try told.tellOpen(response.status, response.headers.?);
        const on_open = client.on_open orelse return;
        try client.driver.callBack(on_open, &.{instance.objectOf(client)});
    }

    fn tellClosed(client: *Client) py.Error!void {
        if (client.close_told) return;
        client.close_told = true;
        const closed = client.driver.connection.closed() orelse return;
        client.logEnd(closed) catch |err| {
            client.close_told = false; // close() tells it.
            return err;
        };
        const on_close = client.on_close orelse return;
        const code = try py.integer(closed.code);
        defer py.decref(code);
        const reason = try py.string(closed.reason);
        defer py.decref(reason);
        try client.driver.callBack(on_close, &.{ instance.objectOf(client), code, reason });
    }

    fn logEnd(client: *Client, closed: core.connection.Closed) py.Error!void {
        var journal = try Journal.open(&client.driver) orelse return;
        defer journal.deinit();
        try journal.tellEnd(closed);
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
        client.driver.afterSend();
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
        client.driver.afterSend();
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

    /// One GET: (status, headers, body). A function of the module, not a method: a client of
    /// WebSockets, which inherits this type, has no use for it.
    pub const fetchExclusively = exclusive.noArguments(fetch);

    fn fetch(client: *Client) py.Error!*py.Object {
        try client.beginDriving();
        defer client.driver.end();
        if (client.driver.connection.options.purpose != .get) {
            return py.raise(c.PyExc_RuntimeError, "fetch() is for hftws.get()");
        }
        var journal = try Journal.open(&client.driver);
        defer if (journal) |*found| found.deinit();
        const told = if (journal) |*found| found else null;
        client.getAnswer(told) catch |err| return if (told) |to| to.tellFailed() else err;
        if (told) |to| try to.tellAnswered(client.response.status);
        return client.response.toTuple();
    }

    fn getAnswer(client: *Client, journal: ?*Journal) py.Error!void {
        if (journal) |told| try told.tellConnecting();
        try client.start();
        errdefer client.driver.giveUp();
        while (true) {
            const outcome = try client.turn();
            if (journal) |told| try told.tellStages();
            switch (outcome) {
                .blocked => try client.driver.wait(null),
                .finished => return,
                .opened, .closed, .more => unreachable, // A GET is never upgraded.
            }
        }
    }

    // ---- Looking. ------------------------------------------------------------------------------
    // Any thread may call `is_open`, `stats` and `fileno`: they read only single words of memory
    // that is never freed.

    fn fileno(client: *Client) py.Error!*py.Object {
        try client.requireReady();
        const own = &client.driver.own;
        if (own.is_watched.load(.acquire)) return py.integer(own.descriptor());
        const entrance = client.driver.enter() catch |err| {
            // Another thread is inside, in a call that has made the loop: it tells what to do when
            // it leaves.
            if (own.door.isInherited() or client.driver.isInLoop()) return err;
            c.PyErr_Clear();
            return py.integer(own.beWatched());
        };
        defer client.driver.leave(entrance);
        if (client.driver.isInLoop()) {
            const message = "the client is in a loop: fileno() of the loop is for both";
            return py.raise(c.PyExc_RuntimeError, message);
        }
        try client.driver.requireOwnLoop();
        const descriptor = own.beWatched();
        if (!own.driving) client.driver.settle();
        return py.integer(descriptor);
    }

    /// The number of the socket. Any thread may call it: it reads only single words.
    fn descriptorOf(client: *Client) py.Error!*py.Object {
        try client.requireReady();
        if (client.driver.connection.transport.link.socket) |*socket| {
            return py.integer(@as(c_long, socket.descriptor));
        }
        return py.integer(@as(c_long, -1));
    }

    /// Makes run() return. Any thread may call it.
    fn stop(client: *Client) py.Error!*py.Object {
        const host = try client.ownHost("stop()");
        host.stop();
        return py.none();
    }

    /// Lets `_run_soon` be called by the thread that drives the client. Any thread may call it.
    fn wake(client: *Client) py.Error!*py.Object {
        const host = try client.ownHost("call_soon_threadsafe()");
        host.wake();
        return py.none();
    }

    fn ownHost(client: *Client, name: []const u8) py.Error!*Host {
        try client.requireReady();
        if (@atomicLoad(*Host, &client.driver.host, .acquire) == &client.driver.own) {
            try client.driver.own.door.requireOwn();
            return &client.driver.own;
        }
        const message = "the client is in a loop: call {s} of the loop";
        return py.raiseFormat(c.PyExc_RuntimeError, message, .{name});
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
        if (client.driver.own.door.isInherited() or !client.isReady()) return py.boolean(false);
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
        const client = instance.of(object);
        client.driver.own.init(object);
        client.driver.host = &client.driver.own;
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

        client.driver.init(parsed.core);
        const connection = &client.driver.connection;
        connection.clock = ModuleState.get().clock;
        connection.latency = latency;
        client.tls_context = parsed.tls_context;
        if (client.tls_context) |*context| connection.options.tls = context;
        client.response = .{ .body_size_max = parsed.body_size_max };
        client.callback = .{ .on_msg = c.Py_XNewRef(parsed.on_msg), .spare = null };
        client.on_open = c.Py_XNewRef(parsed.on_open);
        client.on_close = c.Py_XNewRef(parsed.on_close);
        client.on_error = c.Py_XNewRef(parsed.on_error);
        client.close_told = true;
    }

    fn traverse(object: *py.Object, visit: c.visitproc, argument: ?*anyopaque) callconv(.c) c_int {
        const client = instance.of(object);
        return py.visitAll(.{
            py.typeObjectOf(object), client.callback.on_msg,  client.on_open,
            client.on_close,         client.response.headers, client.on_error,
            client.membership.loop,
        }, visit, argument);
    }

    fn clear(object: *py.Object) callconv(.c) c_int {
        const client = instance.of(object);
        py.clearReference(&client.callback.on_msg);
        py.clearReference(&client.on_open);
        py.clearReference(&client.on_close);
        py.clearReference(&client.on_error);
        return 0;
    }

    /// Warns, as the standard library's sockets do, when nobody closed the connection.
    fn finalize(object: *py.Object) callconv(.c) void {
        const client = instance.of(object);
        if (!client.ready or client.driver.own.door.isInherited()) return;
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
        if (client.driver.own.door.isWhole()) client.release();
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

    fn onError(client: *Client) py.Error!*py.Object {
        return py.optional(client.on_error);
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
        instance.noArguments("fileno", fileno, docs.fileno),
        instance.noArguments("stop", stop, docs.stop),
        instance.noArguments("_wake", wake, "For call_soon_threadsafe()."),
        instance.noArguments("_descriptor", descriptorOf, "The socket's number, or -1."),
        instance.noArguments("info", exclusive.noArguments(info), docs.info),
        instance.noArguments("stats", stats, docs.stats),
        .{},
    };

    var getters = [_]c.PyGetSetDef{
        instance.getter("on_msg", onMsg, docs.on_msg),
        instance.getter("on_open", onOpen, docs.on_open),
        instance.getter("on_close", onClose, docs.on_close),
        instance.getter("on_error", onError, docs.on_error),
        instance.getter("is_open", isOpen, docs.is_open),
        instance.getter("wants_write", exclusive.noArguments(wantsWrite), docs.wants_write),
        instance.getter("subprotocol", exclusive.noArguments(subprotocol), docs.subprotocol),
        instance.getter(
            "response_headers",
            exclusive.noArguments(responseHeaders),
            docs.response_headers,
        ),
        instance.getter("close_code", exclusive.noArguments(closeCode), docs.close_code),
        instance.getter("close_reason", exclusive.noArguments(closeReason), docs.close_reason),
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
