//! Tells Python's `logging` how connections open and end; `hftws/log.py` words it.
//!
//! A log handler may be any code. What it raises is reported like the exception of a `__del__`, and
//! goes no further, except what is no Exception, such as KeyboardInterrupt. It cannot use the
//! client that it is told of (`Driver.beginLog`).

const core = @import("core");
const py = @import("py.zig");
const c = py.c;
const exceptions = @import("exceptions.zig");
const report = @import("report.zig");
const Driver = @import("driving.zig").Driver;

pub const Journal = struct {
    driver: *Driver,
    /// `hftws.log`. Owned.
    module: *py.Object,
    has_told_address: bool = false,
    has_told_tls: bool = false,

    /// Null when nobody listens. Costs one look into a dict where the program has not imported
    /// `logging`, and a microsecond or two elsewhere.
    pub fn open(driver: *Driver) py.Error!?Journal {
        const modules = c.PyImport_GetModuleDict() orelse return null;
        if (c.PyDict_GetItemString(modules, "logging") == null) return null;
        driver.beginLog();
        defer driver.endLog();
        return ask(driver) catch |err| {
            try Driver.settleLog(null, err);
            return null;
        };
    }

    fn ask(driver: *Driver) py.Error!?Journal {
        const module = try py.check(c.PyImport_ImportModule("hftws.log"));
        errdefer py.decref(module);
        const asked = try py.check(c.PyObject_CallMethod(module, "asked", null));
        defer py.decref(asked);
        if (try py.isTrue(asked, false)) return .{ .driver = driver, .module = module };
        py.decref(module);
        return null;
    }

    pub fn deinit(journal: *Journal) void {
        py.decref(journal.module);
        journal.* = undefined;
    }

    pub fn tellConnecting(journal: *const Journal) py.Error!void {
        return journal.tell("connecting", .{});
    }

    /// Tells which stages the connection has passed since the last call.
    pub fn tellStages(journal: *Journal) py.Error!void {
        const connection = &journal.driver.connection;
        const has_tls = connection.transport.link.tls != null;
        const address_known, const tls_known = switch (connection.state()) {
            .idle, .connecting, .closed => .{ false, false },
            .securing => .{ true, false },
            .requesting, .reading_body, .open, .closing => .{ true, has_tls },
        };
        if (address_known and !journal.has_told_address) {
            journal.has_told_address = true;
            try journal.tell("connected", .{report.info(connection)});
        }
        if (tls_known and !journal.has_told_tls) {
            journal.has_told_tls = true;
            try journal.tell("secured", .{report.info(connection)});
        }
    }

    /// The response to the upgrade has this status and these headers (a list).
    pub fn tellOpen(journal: *const Journal, status: u16, headers: *py.Object) py.Error!void {
        const chosen = journal.driver.connection.subprotocol();
        const subprotocol = if (chosen) |name| py.string(name) else py.none();
        const list = c.Py_NewRef(headers).?;
        return journal.tell("opened", .{ py.integer(status), subprotocol, list });
    }

    pub fn tellAnswered(journal: *const Journal, status: u16) py.Error!void {
        return journal.tell("answered", .{py.integer(status)});
    }

    /// Tells of the exception that is set. It stays set; so this returns an error in every case.
    pub fn tellFailed(journal: *const Journal) py.Error {
        const exception = py.takeException();
        defer py.decref(exception);
        try journal.tellFailure(exception);
        py.setException(exception);
        return error.PythonError;
    }

    pub fn tellFailure(journal: *const Journal, exception: *py.Object) py.Error!void {
        return journal.tell("failed", .{c.Py_NewRef(exception).?});
    }

    pub fn tellEnd(journal: *const Journal, closed: core.connection.Closed) py.Error!void {
        const code = py.integer(closed.code);
        const local = py.boolean(closed.local);
        return journal.tell("ended", .{ code, py.string(closed.reason), local });
    }

    /// Calls the function of `hftws.log` with the URL and the arguments, whose references it takes.
    /// An argument may be an error.
    fn tell(
        journal: *const Journal,
        comptime event: [:0]const u8,
        arguments: anytype,
    ) py.Error!void {
        journal.driver.beginLog();
        defer journal.driver.endLog();
        journal.call(event, arguments) catch |err| try Driver.settleLog(journal.module, err);
    }

    fn call(
        journal: *const Journal,
        comptime event: [:0]const u8,
        arguments: anytype,
    ) py.Error!void {
        const url_index = 0;
        var objects: [arguments.len + 1]?*py.Object = @splat(null);
        defer for (objects) |object| py.decrefOptional(object);
        var failure: py.Error!void = {};
        inline for (arguments, 1..) |argument, index| {
            if (@as(py.Error!*py.Object, argument)) |object| {
                objects[index] = object;
            } else |err| failure = err;
        }
        try failure;
        objects[url_index] = try exceptions.shownUrl(&journal.driver.connection.options.url);
        const function = try py.check(c.PyObject_GetAttrString(journal.module, event.ptr));
        defer py.decref(function);
        const result = c.PyObject_Vectorcall(function, &objects, objects.len, null);
        py.decref(try py.check(result));
    }
};
