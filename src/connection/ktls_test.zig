//! Tests of `connection.zig` with the ktls engine: which keys the kernel gets, when, and how a
//! connection fails on a kernel that lacks a part of TLS. `tls_test.zig` tests what all engines do.

const std = @import("std");
const constants = @import("../constants.zig");
const os = @import("../os.zig");
const ssl = @import("../ssl.zig");
const types = @import("types.zig");
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");
const tls_bed = @import("../testing/tls_bed.zig");
const tls_server = @import("../testing/tls_server.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const expectError = testing.expectError;
const kernel = &ScriptedOs.kernel;
const closeFrame = bed_module.closeFrame;
const textFrame = bed_module.textFrame;
const Pin = @import("../ringbuffer.zig").Pin;
const TlsBed = tls_bed.TlsBed;
const Server = tls_server.Server;

const options: types.Options = tls_bed.withEngine(
    .ktls,
    bed_module.optionsOf("wss://feed.test/stream"),
);
const versions = [_]Server.Version{ .tls1_2, .tls1_3 };

const gone: bed_module.Seen = .{ .closed = .{ .code = 1001, .reason = "gone", .clean = true } };

fn expectRefused(tls: *TlsBed, reason: []const u8) !void {
    try expect(tls.bed.failed);
    const cause = tls.bed.connection.failure().?.tls.cause;
    try expect(cause.of_kernel);
    try testing.expectEqualStrings(reason, cause.reason);
}

test "connection over ktls: the kernel gets the keys of both directions when it opens" {
    for (versions) |version| {
        var tls: TlsBed = undefined;
        try tls.init(options, .{ .version = version, .tickets = 2 });
        defer tls.deinit();
        try tls.bed.start();
        try tls.exchange();
        try expect(kernel.tls.attached); // Before anything is sent.
        try expect(kernel.tls.receiving == null and kernel.tls.sending == null);
        try expectEqual(ssl.Engine.direct, tls.bed.connection.transport.link.tls.?.info().engine);

        // What follows the response at once, the kernel has to open.
        try tls.server.write(try tls.bed.upgradeResponseTo(tls.plaintext.items));
        try tls.server.write(try tls.bed.encode(&.{textFrame("one")}));
        try tls.server.write(try tls.bed.encode(&.{ textFrame("two"), textFrame("three") }));
        tls.checked_size = tls.plaintext.items.len;
        try tls.exchange();
        try tls.bed.expectSeen(&.{
            .{ .opened = 101 }, .text("one"), .text("two"), .text("three"),
        });
        try expect(kernel.tls.receiving != null and kernel.tls.sending != null);
        const info = tls.bed.connection.transport.link.tls.?.info();
        try expectEqual(ssl.Engine.ktls, info.engine);
        try testing.expectEqualStrings("Linux kernel TLS", info.aead);
        const ciphertext_ring = tls.bed.connection.transport.ciphertext_ring.?;
        try expectEqual(@as(usize, 0), ciphertext_ring.readable().len);
    }
}

test "connection over ktls: a 1xx response does not hand the keys over" {
    for (versions) |version| {
        var tls: TlsBed = undefined;
        try tls.init(options, .{ .version = version });
        defer tls.deinit();
        kernel.tls.changes_keys = false;
        try tls.bed.start();
        try tls.exchange();
        try tls.say("HTTP/1.1 103 Early Hints\r\n\r\n");
        try tls.exchange();
        try expect(kernel.tls.receiving == null);
        // So the direct engine handles a KeyUpdate here.
        if (version == .tls1_3) tls.server.updateKeys(.requested);
        try tls.say(try tls.bed.upgradeResponseTo(tls.plaintext.items));
        try tls.exchange();
        try tls.sayFrames(&.{textFrame("one")});
        try tls.exchange();
        try tls.bed.expectSeen(&.{ .{ .opened = 101 }, .text("one") });
        try expect(kernel.tls.receiving != null);
        // The kernel does not get those keys again with the next record that is not data.
        try tls.sayFrames(&.{closeFrame(1001, "gone")});
        tls.server.sendCloseNotify();
        try tls.exchange();
        kernel.then(.end);
        try tls.bed.drive();
        try tls.bed.expectSeen(&.{gone});
    }
}

test "connection over ktls: a KeyUpdate after the peer's close frame does no harm" {
    var tls: TlsBed = undefined;
    try tls.init(options, .{});
    defer tls.deinit();
    kernel.tls.changes_keys = false;
    try tls.open();
    try tls.sayFrames(&.{closeFrame(1001, "gone")});
    tls.server.updateKeys(.not_requested);
    try tls.exchange();
    kernel.then(.end);
    try tls.bed.drive();
    try tls.bed.expectSeen(&.{gone});
}

test "connection over ktls: the handover waits until the kernel has taken all that is sealed" {
    for ([_]bool{ false, true }) |busy_poll| {
        var waiting = options;
        waiting.busy_poll = busy_poll;
        var tls: TlsBed = undefined;
        try tls.init(waiting, .{});
        defer tls.deinit();
        kernel.spins_allowed = busy_poll;
        try tls.bed.start();
        try tls.exchange();
        kernel.send_room = 0;
        tls.server.updateKeys(.requested); // Has to be answered before the kernel gets the keys.
        try tls.server.write(try tls.bed.upgradeResponseTo(tls.plaintext.items));
        try tls.server.write(try tls.bed.encode(&.{textFrame("one")}));
        tls.checked_size = tls.plaintext.items.len;
        kernel.feed(try tls.server.take(tls.bed.arena()));
        for (0..20) |_| {
            _ = try tls.bed.waitFor(0);
            try expect(try tls.bed.connection.next() == .blocked);
        }
        try expect(kernel.tls.receiving == null);
        // What the kernel has to open stays in the socket, and does not end a wait.
        if (!busy_poll) try expectEqual(.timed_out, try tls.bed.waitFor(0));
        kernel.send_room = std.math.maxInt(usize);
        try tls.exchange();
        try tls.bed.expectSeen(&.{ .{ .opened = 101 }, .text("one") });
    }
}

test "connection over ktls: after an answer to a KeyUpdate that failed, nothing goes out" {
    var tls: TlsBed = undefined;
    try tls.init(options, .{});
    defer tls.deinit();
    try tls.open();
    for (0..2) |_| kernel.thenSend(.{ .fails_once = error.WouldBlock });
    tls.server.updateKeys(.requested);
    try tls.sayFrames(&.{textFrame("tick")});
    _ = try tls.bed.waitFor(0);
    _ = try tls.bed.connection.next();
    try expect(tls.bed.connection.wantsWrite());
    kernel.thenSend(.{ .fails_once = error.AccessDenied });
    try expectError(error.Disconnected, tls.bed.connection.send(.text, "order"));
    try tls.expectSent(&.{});
}

test "connection over ktls: what a busy wait has read stays in place when a pin is released" {
    var spinning = options;
    spinning.busy_poll = true;
    var tls: TlsBed = undefined;
    try tls.init(spinning, .{});
    defer tls.deinit();
    kernel.spins_allowed = true;
    try tls.open();
    try tls.sayFrames(&.{textFrame("kept")});
    _ = try tls.bed.waitFor(null);
    const first = try tls.bed.connection.next();
    const ring = tls.bed.connection.transport.receive_ring.?;
    var pin: Pin = undefined;
    ring.pin(&pin, first.message.payload);
    try expect(try tls.bed.connection.next() == .blocked);
    try tls.sayFrames(&.{textFrame("read early")});
    _ = try tls.bed.waitFor(null);
    ring.unpin(&pin); // Another thread may do this; the ring could start at its beginning again.
    const second = try tls.bed.connection.next();
    try testing.expectEqualStrings("read early", second.message.payload);
}

test "connection over ktls: frames in the same record as the response are delivered" {
    for (versions) |version| {
        var tls: TlsBed = undefined;
        try tls.init(options, .{ .version = version });
        defer tls.deinit();
        try tls.bed.start();
        try tls.exchange();
        const response = try tls.bed.upgradeResponseTo(tls.plaintext.items);
        const frame = try tls.bed.encode(&.{textFrame("early")});
        try tls.say(try std.mem.concat(tls.bed.arena(), u8, &.{ response, frame }));
        try tls.exchange();
        try tls.bed.expectSeen(&.{ .{ .opened = 101 }, .text("early") });
    }
}

test "connection over ktls: on a kernel without TLS it fails before anything is sent" {
    var tls: TlsBed = undefined;
    try tls.init(options, .{});
    defer tls.deinit();
    kernel.tls.attach_failure = error.Unsupported;
    try tls.bed.start();
    try tls.bed.drive();
    try expectRefused(&tls, "there is none: it needs Linux with the module tls");
    try expectEqual(@as(usize, 0), kernel.sent.items.len);
    try tls.bed.expectSeen(&.{});
}

test "connection over ktls: on a kernel without the cipher, the failure names the cipher" {
    const reasons = [_][]const u8{
        "this kernel cannot do AES-128-GCM in TLS 1.2",
        "this kernel cannot do AES-128-GCM in TLS 1.3",
    };
    for (versions, reasons) |version, reason| {
        var tls: TlsBed = undefined;
        try tls.init(options, .{ .version = version });
        defer tls.deinit();
        kernel.tls.keys_failure = error.Unsupported;
        try tls.bed.start();
        try tls.exchange();
        try tls.server.write(try tls.bed.upgradeResponseTo(tls.plaintext.items));
        try tls.exchange();
        try expectRefused(&tls, reason);
        try tls.bed.expectSeen(&.{});
    }
}

test "connection over ktls: a KeyUpdate that arrives together with data is noticed" {
    var tls: TlsBed = undefined;
    try tls.init(options, .{});
    defer tls.deinit();
    try tls.open();
    const gpa = tls.bed.arena();
    try tls.server.write(try tls.bed.encode(&.{textFrame("before")}));
    tls.server.updateKeys(.requested);
    try tls.server.write(try tls.bed.encode(&.{textFrame("behind")}));
    kernel.feed(try tls.server.take(gpa));
    try tls.exchange();
    try tls.bed.expectSeen(&.{ .text("before"), .text("behind") });
    try tls.bed.connection.send(.text, "order");
    try tls.expectSent(&.{textFrame("order")});
}

test "connection over ktls: a part of a message that the kernel takes for a KeyUpdate ends it" {
    var tls: TlsBed = undefined;
    try tls.init(options, .{});
    defer tls.deinit();
    try tls.open();
    kernel.tls.awaits_keys = true;
    try tls.sayFrames(&.{textFrame("never")});
    kernel.then(.spurious);
    try expectError(error.Failed, readOnce(&tls));
    tls.bed.failed = true;
    try expectRefused(
        &tls,
        "a KeyUpdate or a ticket came in several records, which the kernel cannot follow",
    );
}

fn readOnce(tls: *TlsBed) !void {
    _ = try tls.bed.waitFor(0);
    _ = try tls.bed.connection.next();
}

test "connection over ktls: a KeyUpdate on a kernel that cannot change keys fails it" {
    var tls: TlsBed = undefined;
    try tls.init(options, .{});
    defer tls.deinit();
    kernel.tls.changes_keys = false;
    try tls.open();
    try tls.sayFrames(&.{textFrame("before")});
    tls.server.updateKeys(.not_requested);
    try tls.sayFrames(&.{textFrame("after")});
    try tls.exchange();
    try tls.bed.expectSeen(&.{.text("before")});
    try expectRefused(&tls, "this kernel cannot change keys (KeyUpdate): Linux 6.14 can");
}

test "connection over ktls: the answer to a KeyUpdate goes out after frames that are queued" {
    var tls: TlsBed = undefined;
    try tls.init(options, .{});
    defer tls.deinit();
    try tls.open();
    kernel.send_room = 3;
    try tls.bed.connection.send(.text, "queued");
    tls.server.updateKeys(.requested);
    try tls.sayFrames(&.{textFrame("tick")});
    try tls.exchange();
    try tls.bed.expectSeen(&.{.text("tick")});
    try expect(tls.bed.connection.wantsWrite());
    kernel.send_room = std.math.maxInt(usize);
    try tls.exchange();
    try tls.bed.connection.send(.text, "next");
    try tls.expectSent(&.{ textFrame("queued"), textFrame("next") });
    try expect(!tls.bed.connection.wantsWrite());
    try expect(!tls.bed.connection.transport.link.tls.?.hasPending());
}

test "connection over ktls: an answer to a KeyUpdate that finds no room goes out later" {
    var tls: TlsBed = undefined;
    try tls.init(options, .{});
    defer tls.deinit();
    try tls.open();
    kernel.thenSend(.{ .fails_once = error.WouldBlock });
    tls.server.updateKeys(.requested);
    try tls.sayFrames(&.{textFrame("tick")});
    try tls.bed.drive();
    try tls.bed.connection.send(.text, "order");
    try tls.exchange();
    try tls.expectSent(&.{textFrame("order")});
    try expect(!tls.bed.connection.wantsWrite());
}

test "connection over ktls: keys are changed at their limit, or the connection fails" {
    for ([_]bool{ true, false }) |changes_keys| {
        var tls: TlsBed = undefined;
        try tls.init(options, .{});
        defer tls.deinit();
        try tls.open();
        kernel.tls.changes_keys = changes_keys;
        const engine = &tls.bed.connection.transport.link.tls.?.records.ktls;
        const spent = constants.records_per_key_max - engine.sealed_records;
        engine.sealed_records += spent - 2; // As if that many had been sent.
        try tls.bed.connection.send(.text, "one");
        try tls.bed.connection.send(.text, "two");
        if (changes_keys) {
            try tls.bed.connection.send(.text, "three");
            try expectEqual(@as(u64, 1), engine.sealed_records);
            try tls.expectSent(&.{ textFrame("one"), textFrame("two"), textFrame("three") });
        } else {
            const result = tls.bed.connection.send(.text, "three");
            try expectError(error.Disconnected, result);
            try tls.bed.drive();
            try expectRefused(&tls, "this kernel cannot change keys (KeyUpdate): Linux 6.14 can");
        }
    }
}

test "connection over ktls: pinned bytes can take the room that the largest record needs" {
    var with_small_ring = options;
    with_small_ring.receive_ring_capacity = 64 * 1024;
    var tls: TlsBed = undefined;
    try tls.init(with_small_ring, .{});
    defer tls.deinit();
    try tls.open();
    const payload: [25_000]u8 = @splat('x');
    try tls.sayFrames(&.{ textFrame(&payload), textFrame(&payload) });
    _ = try tls.bed.waitFor(null);
    const first = try tls.bed.connection.next();
    const ring = tls.bed.connection.transport.receive_ring.?;
    var pins: [2]Pin = undefined;
    ring.pin(&pins[0], first.message.payload);
    const second = try tls.bed.connection.next();
    ring.pin(&pins[1], second.message.payload);
    // 15 KiB are free: not enough for the largest record.
    tls.server.sendCloseNotify();
    kernel.feed(try tls.server.take(tls.bed.arena()));
    _ = try tls.bed.waitFor(0);
    try expectError(error.ReceiveRingPinned, tls.bed.connection.next());
    ring.unpin(&pins[0]);
    ring.unpin(&pins[1]);
    kernel.then(.end);
    try tls.bed.drive();
    try expect(tls.bed.failed);
}
