//! Tests of `connection.zig` on a scripted kernel: our last word reaches the peer if TLS fails.
//!
//! A socket that is closed with unread bytes is reset, and the peer may never see our alert.

const std = @import("std");
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");
const tls_bed = @import("../testing/tls_bed.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const kernel = &ScriptedOs.kernel;
const s = std.time.ns_per_s;
const TlsBed = tls_bed.TlsBed;
const closeFrame = bed_module.closeFrame;
const textFrame = bed_module.textFrame;
const variants = tls_bed.variants;
const withEngine = tls_bed.withEngine;

const options = bed_module.optionsOf("wss://feed.test/stream");
const get_options = bed_module.optionsOf("https://feed.test/book");
const not_a_record = "\x17\x03\x03\x00\x20 and this was never a record at all.";
const much: [200 * 1024]u8 = @splat('x');

/// Opens a connection to a server that reads our alert and does not hang up.
fn openStubborn(tls: *TlsBed, variant: tls_bed.Variant) !void {
    try tls.init(variant.with(options), .{ .version = variant.version });
    errdefer tls.deinit();
    tls.stubborn = true;
    try tls.open();
}

fn expectTlsFailure(tls: *TlsBed, in_handshake: bool) !void {
    try expect(tls.bed.failed);
    try expectEqual(in_handshake, tls.bed.connection.failure().?.tls.in_handshake);
}

test "connection over tls: after our alert everything is read until the peer hangs up" {
    for (variants) |variant| {
        if (variant.engine == .ktls) continue; // See the next test.
        var tls: TlsBed = undefined;
        try openStubborn(&tls, variant);
        defer tls.deinit();
        kernel.feed(not_a_record);
        kernel.feed(&much);
        kernel.feed(&much);
        try tls.exchange();
        try expectEqual(.closing, tls.bed.connection.state());
        try expect(tls.server_failed); // By our alert.
        try expect(kernel.send_side_shut);
        try expect(kernel.isIdle(false)); // Nothing is left unread.
        try testing.expectError(error.NotOpen, tls.bed.connection.send(.text, "late"));
        tls.bed.connection.close(1000, "late"); // No CLOSE follows the alert.
        kernel.feed("still talking");
        try tls.exchange();
        try expectEqual(.closing, tls.bed.connection.state());
        kernel.then(.end);
        try tls.bed.drive();
        try expectTlsFailure(&tls, false);
        try expectEqual(bed_module.lost_code, tls.bed.connection.closed().?.code);
    }
}

test "connection over ktls: after our alert it ends where the kernel gives nothing more" {
    for (variants) |variant| {
        if (variant.engine != .ktls) continue;
        var tls: TlsBed = undefined;
        try openStubborn(&tls, variant);
        defer tls.deinit();
        kernel.feed(not_a_record);
        try tls.exchange();
        try expect(tls.server_failed);
        try expect(kernel.send_side_shut);
        try expectTlsFailure(&tls, false);
    }
}

test "connection over tls: a peer that does not hang up after our alert costs close_timeout" {
    for (variants) |variant| {
        if (variant.engine == .ktls) continue;
        var tls: TlsBed = undefined;
        try openStubborn(&tls, variant);
        defer tls.deinit();
        kernel.feed(not_a_record);
        try tls.exchange();
        const failed_ns = kernel.now_ns;
        for (0..10) |_| { // What still arrives does not extend it.
            kernel.then(.{ .pause_ns = s / 2 });
            kernel.feed("more");
        }
        try tls.bed.driveToEnd();
        try expectTlsFailure(&tls, false);
        try expectEqual(failed_ns + options.close_timeout_ns, kernel.now_ns);
    }
}

test "connection over tls: our alert in the handshake, within both timeouts" {
    const waits_ns = [_]u64{ 0, options.connect_timeout_ns - s };
    const lasts_ns = [_]u64{ options.close_timeout_ns, s };
    for (waits_ns, lasts_ns) |wait_ns, last_ns| {
        var tls: TlsBed = undefined;
        try tls.init(options, .{});
        defer tls.deinit();
        if (wait_ns > 0) kernel.then(.{ .pause_ns = wait_ns });
        kernel.feed("\x16\x03\x03\x00\x05hello"); // No ServerHello.
        kernel.feed(&much);
        const start_ns = kernel.now_ns;
        try tls.bed.start();
        try tls.bed.drive();
        try expectEqual(.closing, tls.bed.connection.state());
        try expect(kernel.send_side_shut);
        try expect(kernel.isIdle(false));
        const alert = kernel.sent.items[kernel.sent.items.len - 7 ..];
        try testing.expectEqualStrings("\x15\x03", alert[0..2]);
        try tls.bed.driveToEnd();
        try expectTlsFailure(&tls, true);
        try expectEqual(start_ns + wait_ns + last_ns, kernel.now_ns);
    }
}

test "connection over tls: an untrusted server gets our alert, then its hanging up ends it" {
    for (variants) |variant| {
        var tls: TlsBed = undefined;
        try tls.initWith(variant.with(options), .{ .version = variant.version }, false);
        defer tls.deinit();
        tls.stubborn = true;
        try tls.bed.start();
        try tls.exchange();
        try expect(tls.server_failed);
        try expectEqual(.closing, tls.bed.connection.state());
        kernel.feed(&much);
        kernel.then(.end);
        try tls.bed.drive();
        try expectTlsFailure(&tls, true);
    }
}

test "connection over tls: in the body of a response, too" {
    for (variants) |variant| {
        if (variant.engine == .ktls) continue;
        var tls: TlsBed = undefined;
        try tls.init(variant.with(get_options), .{ .version = variant.version });
        defer tls.deinit();
        try tls.bed.start();
        try tls.exchange();
        try tls.say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome");
        kernel.feed(not_a_record);
        kernel.feed(&much);
        try tls.exchange();
        try expect(tls.server_failed);
        try expect(kernel.send_side_shut);
        try expectTlsFailure(&tls, false);
    }
}

test "connection over tls: FIN waits for the whole of our alert" {
    for (variants) |variant| {
        if (variant.engine == .ktls) continue; // There it goes out whole or not at all.
        var tls: TlsBed = undefined;
        try openStubborn(&tls, variant);
        defer tls.deinit();
        kernel.send_room = 3;
        try tls.bed.connection.send(.text, "queued");
        kernel.feed(not_a_record);
        try tls.bed.drive();
        try expect(!kernel.send_side_shut);
        kernel.send_room = std.math.maxInt(usize);
        try tls.exchange();
        try expect(kernel.send_side_shut);
        try expect(tls.server_failed);
    }
}

test "connection over tls: a peer that cannot be told is not waited for" {
    for (variants) |variant| {
        var tls: TlsBed = undefined;
        try openStubborn(&tls, variant);
        defer tls.deinit();
        kernel.thenSend(.{ .fails = error.ConnectionReset });
        kernel.feed(not_a_record);
        try tls.bed.drive();
        try expectTlsFailure(&tls, false);
    }
}

test "connection over tls: the peer's own alert ends it at once" {
    var tls: TlsBed = undefined;
    try tls.init(options, .{});
    defer tls.deinit();
    kernel.feed("\x15\x03\x03\x00\x02\x02\x28"); // handshake_failure
    try tls.bed.start();
    try tls.bed.drive();
    try expectTlsFailure(&tls, true);
}

test "connection over tls: broken TLS behind the peer's CLOSE is dropped until it hangs up" {
    for (variants) |variant| {
        if (variant.engine == .ktls) continue;
        var tls: TlsBed = undefined;
        try openStubborn(&tls, variant);
        defer tls.deinit();
        try tls.sayFrames(&.{closeFrame(1001, "gone")});
        kernel.feed(not_a_record);
        kernel.feed(&much);
        try tls.exchange();
        try expectEqual(.closing, tls.bed.connection.state());
        try expect(tls.server.receivedCloseNotify());
        try expect(kernel.send_side_shut);
        try expect(kernel.isIdle(false));
        kernel.then(.end);
        try tls.bed.drive();
        try expect(!tls.bed.failed);
    }
}

test "connection over tls: TLS that fails after our CLOSE does not extend its time" {
    for (variants) |variant| {
        if (variant.engine == .ktls) continue;
        var tls: TlsBed = undefined;
        try openStubborn(&tls, variant);
        defer tls.deinit();
        const closed_ns = kernel.now_ns;
        tls.bed.connection.close(1000, "");
        kernel.then(.{ .pause_ns = s });
        kernel.feed(not_a_record);
        try tls.bed.driveToEnd();
        try expectTlsFailure(&tls, false);
        try expectEqual(closed_ns + options.close_timeout_ns, kernel.now_ns);
    }
}

test "connection over tls: a busy wait drops what follows our alert, too" {
    for (variants) |variant| {
        if (variant.engine == .ktls) continue;
        var busy = variant.with(options);
        busy.busy_poll = true;
        var tls: TlsBed = undefined;
        try tls.init(busy, .{ .version = variant.version });
        defer tls.deinit();
        kernel.spins_allowed = true;
        try tls.open();
        kernel.feed(not_a_record);
        kernel.feed(&much);
        try tls.exchange();
        try expect(kernel.send_side_shut);
        try expectTlsFailure(&tls, false);
    }
}
