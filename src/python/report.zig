//! The dicts that `Client.info()` and `Client.stats()` return.

const std = @import("std");
const core = @import("core");
const py = @import("py.zig");
const c = py.c;

const Histogram = core.histogram.Histogram;

/// The quantiles of each stage, by their names in the dict.
const percentiles = .{ .{ "p50", 50.0 }, .{ "p90", 90.0 }, .{ "p99", 99.0 }, .{ "p99_9", 99.9 } };

pub fn info(connection: *const core.Connection) py.Error!*py.Object {
    const dict = try py.check(c.PyDict_New());
    errdefer py.decref(dict);
    const link = &connection.transport.link;
    try setAddress(dict, "peer_address", if (link.socket) |s| s.peerAddress() else null);
    try setAddress(dict, "local_address", if (link.socket) |s| s.localAddress() else null);
    try setTls(dict, connection);
    try py.setItem(dict, "descriptor", if (link.socket) |*socket|
        py.integer(@as(c_long, socket.descriptor))
    else
        py.none());
    try py.setItem(dict, "compression", compressionInfo(connection));
    const source = if (connection.options.timestamps == .none)
        .none
    else
        connection.transport.kernel_stamp.source;
    try py.setItem(dict, "kernel_stamp_source", py.string(@tagName(source)));
    // Known once the clock has been calibrated, by the first connect.
    const calibrated = connection.clock.multiplier != 0;
    const clock = &connection.clock;
    const cycles_per_ns = if (calibrated) floatObject(clock.cyclesPerNs()) else py.none();
    try py.setItem(dict, "cycles_per_ns", cycles_per_ns);
    const rate_source = if (calibrated) py.string(@tagName(clock.source)) else py.none();
    try py.setItem(dict, "cycles_per_ns_source", rate_source);
    try py.setItem(dict, "receive_ring", ringInfo(connection.transport.receive_ring));
    const send_ring = if (connection.transport.outbox) |*outbox| outbox.ring else null;
    try py.setItem(dict, "send_ring", ringInfo(send_ring));
    try py.setItem(dict, "inflated_ring", ringInfo(connection.transport.inflated_ring));
    try py.setItem(dict, "socket_options", socketInfo(connection));
    try py.setItem(dict, "busy_poll", py.boolean(connection.options.busy_poll));
    return dict;
}

fn setAddress(dict: *py.Object, key: [:0]const u8, address: ?core.os.Address) py.Error!void {
    const found = address orelse return py.setItem(dict, key, py.none());
    var buffer: [128]u8 = undefined;
    try py.setItem(dict, key, py.string(py.formatMessage(&buffer, "{f}", .{found})));
}

fn setTls(dict: *py.Object, connection: *const core.Connection) py.Error!void {
    const keys = .{ "tls_library", "tls_version", "cipher", "engine", "engine_reason", "aead" };
    const more_keys = .{ "tls_library_file", "tls_resumed", "ktls_receiving", "ktls_sending" };
    const tls = if (connection.transport.link.tls) |*session| session.info() else {
        inline for (keys ++ more_keys) |key| try py.setItem(dict, key, py.none());
        return;
    };
    const engine = @tagName(tls.engine);
    const reason = tls.engine_reason;
    const values = .{ tls.library, tls.version, tls.cipher, engine, reason, tls.aead };
    inline for (keys, values) |key, value| try py.setItem(dict, key, py.string(value));
    try py.setItem(dict, "tls_library_file", py.path(core.ssl.libssl.file().?));
    try py.setItem(dict, "tls_resumed", py.boolean(tls.resumed));
    // The kernel has both directions or none; two keys, so that a user need not know that.
    const in_kernel = tls.engine == .ktls;
    try py.setItem(dict, "ktls_receiving", py.boolean(in_kernel));
    try py.setItem(dict, "ktls_sending", py.boolean(in_kernel));
}

fn compressionInfo(connection: *const core.Connection) py.Error!*py.Object {
    const compression = &connection.transport.compression;
    const agreement = if (compression.*) |*found| found.agreement else return py.none();
    const dict = try py.check(c.PyDict_New());
    errdefer py.decref(dict);
    inline for (.{ "server_no_context_takeover", "client_no_context_takeover" }) |name| {
        try py.setItem(dict, name, py.boolean(@field(agreement, name)));
    }
    inline for (.{ "server_max_window_bits", "client_max_window_bits" }) |name| {
        try py.setItem(dict, name, py.integer(@field(agreement, name)));
    }
    try py.setItem(dict, "zlib_version", py.string(core.deflate.zlib.version().?));
    return dict;
}

fn ringInfo(ring: ?*core.ringbuffer.RingBuffer) py.Error!*py.Object {
    const found = (ring orelse return py.none()).info();
    const dict = try py.check(c.PyDict_New());
    errdefer py.decref(dict);
    try py.setItem(dict, "size", py.integer(found.capacity));
    try py.setItem(dict, "mirrored", py.boolean(found.mirrored));
    try py.setItem(dict, "huge_pages", py.boolean(found.huge_pages));
    return dict;
}

fn socketInfo(connection: *const core.Connection) py.Error!*py.Object {
    const socket = connection.transport.link.socket orelse return py.none();
    const options = socket.kernelOptions();
    const dict = try py.check(c.PyDict_New());
    errdefer py.decref(dict);
    try py.setItem(dict, "no_delay", py.boolean(options.no_delay));
    const peer_timeout_s = if (options.peer_timeout_s) |value| py.integer(value) else py.none();
    try py.setItem(dict, "peer_timeout_s", peer_timeout_s);
    const quick_ack = if (options.quick_ack) |value| py.boolean(value) else py.none();
    try py.setItem(dict, "quick_ack", quick_ack);
    const busy_poll_us = if (options.busy_poll_us) |value| py.integer(value) else py.none();
    try py.setItem(dict, "busy_poll_us", busy_poll_us);
    try py.setItem(dict, "receive_buffer_size", py.integer(options.receive_buffer_size));
    try py.setItem(dict, "send_buffer_size", py.integer(options.send_buffer_size));
    return dict;
}

/// Any thread may call it: it reads only single words of memory that is never freed.
pub fn stats(connection: *const core.Connection) py.Error!*py.Object {
    const dict = try py.check(c.PyDict_New());
    errdefer py.decref(dict);
    inline for (@typeInfo(core.connection.Counters).@"struct".field_names) |name| {
        try py.setItem(dict, name, py.integer(@field(connection.transport.counters, name)));
    }
    const latency = connection.latency orelse {
        try py.setItem(dict, "latency", py.none());
        return dict;
    };
    const stages = try py.check(c.PyDict_New());
    defer py.decref(stages);
    // Only where the kernel's stamp is the beginning can a value be a lower bound.
    try py.setItem(stages, "kernel", histogramInfo(&latency.kernel, latency.kernel_lower_bounds));
    inline for (.{ "wait", "decrypt", "deliver" }) |name| {
        try py.setItem(stages, name, histogramInfo(&@field(latency, name), 0));
    }
    try py.setItem(stages, "total", histogramInfo(&latency.total, latency.total_lower_bounds));
    try py.checkStatus(c.PyDict_SetItemString(dict, "latency", stages));
    return dict;
}

fn histogramInfo(source: *const Histogram, lower_bounds: u64) py.Error!*py.Object {
    var snapshot: Histogram = undefined; // Another thread may be using the client.
    source.snapshot(&snapshot);
    const histogram = &snapshot;
    const dict = try py.check(c.PyDict_New());
    errdefer py.decref(dict);
    const min = if (histogram.count == 0) 0 else histogram.min;
    try py.setItem(dict, "count", py.integer(histogram.count));
    try py.setItem(dict, "min", py.integer(min));
    try py.setItem(dict, "mean", floatObject(histogram.mean()));
    inline for (percentiles) |entry| {
        try py.setItem(dict, entry[0], py.integer(histogram.percentile(entry[1])));
    }
    try py.setItem(dict, "max", py.integer(histogram.max));
    try py.setItem(dict, "lower_bounds", py.integer(@min(lower_bounds, histogram.count)));
    return dict;
}

fn floatObject(value: f64) py.Error!*py.Object {
    return py.check(c.PyFloat_FromDouble(value));
}
