//! The fixture of the TLS tests: a connection to a TLS server in memory.
//!
//! It extends `connection_bed.zig`, and lists the variants of TLS that tests are run with.

const std = @import("std");
const ssl = @import("../ssl.zig");
const types = @import("../connection/types.zig");
const ScriptedOs = @import("scripted_os.zig");
const bed_module = @import("connection_bed.zig");
const frames = @import("frames.zig");
const tls_server = @import("tls_server.zig");

const testing = std.testing;
const kernel = &ScriptedOs.kernel;
const Bed = bed_module.Bed;
const Frame = frames.Frame;
const Server = tls_server.Server;

/// The variants that a test is run with, unless it has its own.
pub const variants = [_]Variant{
    .{ .version = .tls1_2, .engine = .direct },
    .{ .version = .tls1_3, .engine = .direct },
    .{ .version = .tls1_2, .engine = .ktls },
    .{ .version = .tls1_3, .engine = .ktls },
    .{ .version = .tls1_2, .engine = .openssl },
    .{ .version = .tls1_3, .engine = .openssl },
};

pub const Variant = struct {
    version: Server.Version,
    engine: ssl.Engine,

    pub fn with(variant: Variant, options: types.Options) types.Options {
        return withEngine(variant.engine, options);
    }
};

pub fn withEngine(engine: ssl.Engine, options: types.Options) types.Options {
    var result = options;
    result.tls_engine = engine;
    return result;
}

/// A `Bed` whose peer is a TLS server.
pub const TlsBed = struct {
    bed: Bed,
    context: ssl.Context,
    server: Server,
    options: Server.Options,
    /// Whether the server's ciphertext arrives one byte at a time.
    byte_by_byte: bool = false,
    /// How many of the client's bytes the server has been given.
    given_size: usize = 0,
    /// The plaintext that the server has read.
    plaintext: std.ArrayList(u8) = .empty,
    /// How much of it the test has checked.
    checked_size: usize = 0,
    shaken: bool = false,
    /// Whether the server's TLS has failed. It hangs up then, unless it is `stubborn`.
    server_failed: bool = false,
    stubborn: bool = false,

    /// The bed must not move afterwards.
    pub fn init(tls: *TlsBed, options: types.Options, server_options: Server.Options) !void {
        return tls.initWith(options, server_options, true);
    }

    pub fn initWith(
        tls: *TlsBed,
        options: types.Options,
        server_options: Server.Options,
        trusted: bool,
    ) !void {
        const api = try tls_server.clientApi();
        var failure: ssl.Failure = undefined;
        tls.* = .{
            .bed = undefined,
            .context = try .init(api, .{}, &failure),
            .server = undefined,
            .options = server_options,
        };
        errdefer tls.context.deinit();
        if (trusted) try tls_server.trust(tls.context.handle);
        tls.server = try .init(server_options);
        errdefer tls.server.deinit();
        var with_context = options;
        with_context.tls = &tls.context;
        tls.bed = try .init(with_context);
    }

    pub fn deinit(tls: *TlsBed) void {
        tls.bed.deinit();
        tls.server.deinit();
        tls.context.deinit();
    }

    /// Makes a new server, which knows no earlier session, for a new start.
    pub fn renewServer(tls: *TlsBed) !void {
        tls.server.deinit();
        tls.server = try .init(tls.options);
        tls.forgetConnection();
    }

    /// Lets the same server accept another connection, for a new start. It can resume sessions.
    pub fn renewConnection(tls: *TlsBed) !void {
        try tls.server.renew();
        tls.forgetConnection();
    }

    fn forgetConnection(tls: *TlsBed) void {
        tls.given_size = kernel.sent.items.len;
        tls.plaintext = .empty;
        tls.checked_size = 0;
        tls.shaken = false;
        tls.server_failed = false;
        kernel.clear();
    }

    /// Moves bytes in both directions until neither side has more to send.
    pub fn exchange(tls: *TlsBed) !void {
        while (true) {
            try tls.bed.drive();
            const said = try tls.listen();
            const bytes = try tls.server.take(tls.bed.arena());
            if (tls.byte_by_byte) kernel.feedByteByByte(bytes) else kernel.feed(bytes);
            if (!said and bytes.len == 0) return;
        }
    }

    /// Gives the server what the client has sent. False when that was nothing.
    pub fn listen(tls: *TlsBed) !bool {
        const bytes = kernel.sent.items[tls.given_size..];
        if (bytes.len == 0 or tls.server_failed) return false;
        tls.given_size += bytes.len;
        tls.server.give(bytes);
        tls.hear() catch |err| switch (err) {
            error.TlsServerFailed => {
                tls.server_failed = true;
                if (!tls.stubborn) kernel.then(.end);
            },
            error.OutOfMemory => return err,
        };
        return true;
    }

    fn hear(tls: *TlsBed) error{ TlsServerFailed, OutOfMemory }!void {
        if (!tls.shaken) tls.shaken = try tls.server.handshake();
        if (!tls.shaken) return;
        var buffer: [16 * 1024]u8 = undefined;
        while (try tls.server.read(&buffer)) |bytes| {
            try tls.plaintext.appendSlice(tls.bed.arena(), bytes);
        }
    }

    /// Lets the server send these bytes, in one segment.
    pub fn say(tls: *TlsBed, bytes: []const u8) !void {
        try tls.server.write(bytes);
        kernel.feed(try tls.server.take(tls.bed.arena()));
    }

    pub fn sayFrames(tls: *TlsBed, list: []const Frame) !void {
        try tls.say(try tls.bed.encode(list));
    }

    /// Starts the connection, and goes through handshake and upgrade.
    pub fn open(tls: *TlsBed) !void {
        try tls.bed.start();
        try tls.exchange();
        try testing.expect(tls.shaken);
        try testing.expect(std.mem.endsWith(u8, tls.plaintext.items, "\r\n\r\n"));
        try tls.server.write(try tls.bed.upgradeResponseTo(tls.plaintext.items));
        tls.checked_size = tls.plaintext.items.len;
        try tls.exchange();
        try tls.bed.expectSeen(&.{.{ .opened = 101 }});
    }

    pub fn takeSent(tls: *TlsBed) ![]const Frame {
        _ = try tls.listen();
        const size, const list = try tls.bed.decode(tls.plaintext.items[tls.checked_size..]);
        tls.checked_size += size;
        return list;
    }

    pub fn expectSent(tls: *TlsBed, expected: []const Frame) !void {
        try testing.expectEqualDeep(expected, try tls.takeSent());
    }
};
