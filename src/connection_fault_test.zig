//! Tests of `connection.zig` when the kernel fails: one call at a time here, and at random below.

const std = @import("std");
const libssl = @import("ssl/libssl.zig");
const ssl = @import("ssl.zig");
const os = @import("os.zig");
const types = @import("connection/types.zig");
const ScriptedOs = @import("testing/scripted_os.zig");
const bed_module = @import("testing/connection_bed.zig");
const frames = @import("testing/frames.zig");
const tls_bed = @import("testing/tls_bed.zig");
const tls_server = @import("testing/tls_server.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const expectEqualDeep = testing.expectEqualDeep;
const kernel = &ScriptedOs.kernel;
const s = std.time.ns_per_s;
const Pin = @import("ringbuffer.zig").Pin;
const Bed = bed_module.Bed;
const Frame = frames.Frame;
const Seen = bed_module.Seen;
const TlsBed = tls_bed.TlsBed;
const lost = bed_module.lost;
const textFrame = bed_module.textFrame;

const plain_options = bed_module.websocket_options;
const secure_options = bed_module.optionsOf("wss://feed.test/stream");

// ---- One at a time. ----------------------------------------------------------------------------

test "connection: rings that cannot be mapped leave nothing behind, and can be had later" {
    for (0..4) |maps_left| {
        var bed = try Bed.init(secure_options);
        defer bed.deinit();
        kernel.maps_left = maps_left;
        try testing.expectError(error.OutOfMemory, bed.start());
        try expectEqual(.idle, bed.connection.state);
        kernel.maps_left = 4 - maps_left; // Those that were had are kept.
        try bed.start();
        try expectEqual(.connecting, bed.connection.state);
    }
}

test "connection: rings that are kept and cannot be replaced stay, and can be replaced later" {
    for (0..2) |maps_left| {
        var bed = try Bed.init(plain_options);
        defer bed.deinit();
        try bed.open();
        try bed.feed(&.{textFrame("kept")});
        kernel.then(.end);
        _ = try bed.connection.wait(null);
        const event = try bed.connection.next();
        const ring = bed.connection.receive_ring.?;
        const send_ring = bed.connection.outbox.?.ring;
        var pins: [2]Pin = undefined;
        ring.pin(&pins[0], event.message.payload);
        send_ring.pin(&pins[1], send_ring.writable()[0..0]);
        try bed.drive();

        kernel.clear();
        kernel.maps_left = maps_left;
        try testing.expectError(error.OutOfMemory, bed.start());
        try testing.expectEqualStrings("kept", event.message.payload);
        kernel.maps_left = 2 - maps_left;
        try bed.start();
        try testing.expectEqualStrings("kept", event.message.payload);
        ring.unpin(&pins[0]);
        send_ring.unpin(&pins[1]);
    }
}

test "connection: a wait that fails while it connects does not stay behind with its socket" {
    var bed = try Bed.init(plain_options);
    defer bed.deinit();
    try expect(kernel.addresses.append(os.Address.parse("192.0.2.2", 80).?));
    kernel.thenConnect(.silent);
    kernel.thenConnect(.{ .answered = .{} });
    try bed.start();
    try bed.pump();
    kernel.wait_failure = error.OutOfMemory;
    try testing.expectError(error.SystemResources, bed.connection.wait(null));
    kernel.wait_failure = null;
    kernel.now_ns += 5 * s; // The time of the first address is over.
    try bed.drive();
    kernel.feed(try bed.upgradeResponse());
    try bed.drive();
    try bed.expectSeen(&.{.{ .opened = 101 }});
}

/// libssl with a session that cannot be had.
const NoSession = struct {
    fn new(_: *libssl.Context) callconv(.c) ?*libssl.Ssl {
        return null;
    }
};

test "connection over tls: no memory for a session is told, and can be had later" {
    var tls: TlsBed = undefined;
    try tls.init(secure_options, .{});
    defer tls.deinit();
    var api = tls.context.api.*;
    const new = api.SSL_new;
    api.SSL_new = &NoSession.new;
    tls.context.api = &api;
    try tls.bed.start();
    for (0..2) |_| try testing.expectError(error.OutOfMemory, tls.bed.connection.next());
    try expectEqual(@as(usize, 1), kernel.dialled.items.len);
    api.SSL_new = new;
    try tls.exchange();
    try expect(tls.shaken);
}

test "connection: a reset that sending was told of is not taken for an end" {
    // The kernel tells it once; who reads afterwards sees the end of the stream.
    for ([_]os.SendError{ error.ConnectionReset, error.TimedOut, error.BrokenPipe }) |cause| {
        var bed = try Bed.init(plain_options);
        defer bed.deinit();
        try bed.open();
        try bed.feed(&.{textFrame("before")});
        kernel.then(.end);
        kernel.thenSend(.{ .fails = cause });
        try testing.expectError(error.Disconnected, bed.connection.send(.text, "x"));
        try bed.drive();
        try bed.expectSeen(&.{.text("before")});
        try bed.expectFailure(lost(switch (cause) {
            error.ConnectionReset => bed_module.reset_reason,
            error.TimedOut => "the TCP connection timed out",
            else => bed_module.eof_reason,
        }));
    }
}

test "connection: after a send that failed nothing more goes out, though the kernel would take it" {
    for (tls_bed.variants) |variant| {
        var tls: TlsBed = undefined;
        try tls.init(variant.with(secure_options), .{ .version = variant.version });
        defer tls.deinit();
        try tls.open();
        kernel.thenSend(.{ .takes = 10 });
        kernel.thenSend(.{ .fails_once = error.OutOfMemory });
        const order: [200]u8 = @splat('o');
        const sent = tls.bed.connection.send(.text, &order);
        try testing.expectError(error.Disconnected, sent);
        const sent_size = kernel.sent.items.len;
        try tls.sayFrames(&.{ .{ .opcode = frames.ping, .payload = "p" }, textFrame("x") });
        try tls.bed.drive();
        tls.bed.connection.close(1000, "");
        try tls.sayFrames(&.{bed_module.closeFrame(1000, "")});
        try tls.bed.driveToEnd();
        try expectEqual(sent_size, kernel.sent.items.len); // Not in the middle of a record.
        try expect(kernel.send_side_shut);
    }
}
