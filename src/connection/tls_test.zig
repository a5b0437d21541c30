//! Tests of `connection.zig` over TLS: on the scripted kernel, against a TLS server in memory.

const std = @import("std");
const constants = @import("../constants.zig");
const os = @import("../os.zig");
const ssl = @import("../ssl.zig");
const types = @import("types.zig");
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");
const frames = @import("../testing/frames.zig");
const tls_server = @import("../testing/tls_server.zig");
const tls_bed = @import("../testing/tls_bed.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const expectEqualDeep = testing.expectEqualDeep;
const kernel = &ScriptedOs.kernel;
const s = std.time.ns_per_s;
const Bed = bed_module.Bed;
const Frame = frames.Frame;
const Seen = bed_module.Seen;
const Server = tls_server.Server;
const closeFrame = bed_module.closeFrame;
const lost = bed_module.lost;
const textFrame = bed_module.textFrame;
const TlsBed = tls_bed.TlsBed;
const variants = tls_bed.variants;
const withEngine = tls_bed.withEngine;

const websocket_options = bed_module.optionsOf("wss://feed.test/stream");
const get_options = bed_module.optionsOf("https://feed.test/book");

const close_notify_reason = "the peer closed TLS without a close frame";

test "connection over tls: opens, exchanges messages and closes in both layers" {
    for (variants) |variant| {
        for ([_]bool{ false, true }) |byte_by_byte| {
            var tls: TlsBed = undefined;
            const server_options: Server.Options = .{ .version = variant.version, .tickets = 2 };
            try tls.init(variant.with(websocket_options), server_options);
            defer tls.deinit();
            tls.byte_by_byte = byte_by_byte;
            kernel.thenConnect(.{ .answered = .{} });
            try tls.open();
            try tls.server.write(try tls.bed.encode(&.{ textFrame("one"), textFrame("two") }));
            try tls.server.write(try tls.bed.encode(&.{
                .{ .opcode = frames.ping, .payload = "p" },
                textFrame("three"),
            }));
            try tls.exchange();
            try tls.bed.expectSeen(&.{ .text("one"), .text("two"), .text("three") });
            try tls.bed.connection.send(.text, "order");
            const place = try tls.bed.connection.reserve(.binary, 3);
            @memcpy(place, "abc");
            try tls.bed.connection.commit();
            try tls.expectSent(&.{
                .{ .opcode = frames.pong, .payload = "p" },
                textFrame("order"),
                .{ .opcode = frames.binary, .payload = "abc" },
            });

            tls.bed.connection.close(1000, "bye");
            try tls.expectSent(&.{closeFrame(1000, "bye")});
            try tls.sayFrames(&.{closeFrame(1000, "")});
            try tls.exchange();
            try expect(kernel.send_side_shut);
            try expect(tls.server.receivedCloseNotify());
            tls.server.sendCloseNotify();
            kernel.feed(try tls.server.take(tls.bed.arena()));
            kernel.then(.end);
            try tls.bed.drive();
            try tls.bed.expectSeen(&.{.{ .closed = .{
                .code = 1000,
                .clean = true,
                .local = true,
            } }});
        }
    }
}

test "connection over tls: one read brings many records, which are opened one at a time" {
    for (variants) |variant| {
        if (variant.engine == .ktls) continue; // The kernel opens several records at once.
        var tls: TlsBed = undefined;
        try tls.init(variant.with(websocket_options), .{ .version = variant.version });
        defer tls.deinit();
        try tls.open();
        const gpa = tls.bed.arena();
        var burst: std.ArrayList(u8) = .empty;
        for (0..10) |_| {
            try tls.server.write(try tls.bed.encode(&.{textFrame("tick")}));
            try burst.appendSlice(gpa, try tls.server.take(gpa));
        }
        const connection = &tls.bed.connection;
        const receive_calls = kernel.receive_calls;
        const records = connection.transport.counters.records;
        kernel.feed(burst.items);
        _ = try tls.bed.waitFor(null);
        for (1..11) |count| {
            try expect(try connection.next() == .message);
            try expectEqual(records + count, connection.transport.counters.records);
            try expectEqual(count < 10, connection.moreWaiting());
        }
        try expect(try connection.next() == .blocked);
        try expectEqual(receive_calls + 1, kernel.receive_calls);
    }
}

test "connection over tls: both sides learn of an invalid certificate" {
    for (variants) |variant| {
        var tls: TlsBed = undefined;
        try tls.initWith(variant.with(websocket_options), .{ .version = variant.version }, false);
        defer tls.deinit();
        try tls.bed.start();
        try tls.exchange();
        try expect(tls.bed.failed);
        const failure = tls.bed.connection.failure().?.tls;
        try expect(failure.in_handshake);
        try testing.expectEqualStrings("certificate verify failed", failure.cause.reason);
        try expect(failure.cause.verify_code != 0);
        try expect(tls.server_failed); // By our alert.
        try tls.bed.expectSeen(&.{});
    }
}

test "connection over tls: a handshake that stops half-way" {
    {
        var tls: TlsBed = undefined;
        try tls.init(websocket_options, .{});
        defer tls.deinit();
        const start_ns = kernel.now_ns;
        try tls.bed.start();
        try tls.bed.driveToEnd();
        try tls.bed.expectFailure(.{ .timed_out = .securing });
        try expectEqual(start_ns + 8 * s, kernel.now_ns);
    }
    for ([_]ScriptedOs.ReceiveStep{ .end, .{ .fails = error.ConnectionReset } }) |step| {
        var tls: TlsBed = undefined;
        try tls.init(websocket_options, .{});
        defer tls.deinit();
        kernel.then(step);
        try tls.bed.start();
        try tls.bed.drive();
        try tls.bed.expectFailure(.{ .ended = .{ .stage = .securing, .cause = switch (step) {
            .end => .eof,
            else => .{ .receive = error.ConnectionReset },
        } } });
    }
    var tls: TlsBed = undefined;
    try tls.init(websocket_options, .{});
    defer tls.deinit();
    kernel.feed("HTTP/1.1 400 Bad Request\r\n\r\n");
    try tls.bed.start();
    try tls.bed.drive();
    try expect(tls.bed.connection.failure().?.tls.in_handshake);
}

test "connection over tls: a handshake whose flights are sent in pieces" {
    for (variants) |variant| {
        var tls: TlsBed = undefined;
        try tls.init(variant.with(websocket_options), .{ .version = variant.version });
        defer tls.deinit();
        for (0..100) |_| {
            kernel.thenSend(.{ .takes = 1 });
            kernel.thenSend(.would_block);
            kernel.thenSend(.{ .takes = 30 });
        }
        try tls.open();
    }
}

test "connection over tls: the end of the stream" {
    for (variants) |variant| {
        for ([_]bool{ false, true }) |sends_close_notify| {
            var tls: TlsBed = undefined;
            try tls.init(variant.with(websocket_options), .{ .version = variant.version });
            defer tls.deinit();
            try tls.open();
            try tls.sayFrames(&.{textFrame("last")});
            if (sends_close_notify) tls.server.sendCloseNotify();
            kernel.feed(try tls.server.take(tls.bed.arena()));
            kernel.then(.end);
            try tls.bed.drive();
            try tls.bed.expectSeen(&.{.text("last")});
            const reason = if (sends_close_notify) close_notify_reason else bed_module.eof_reason;
            try tls.bed.expectFailure(lost(reason));
            _ = try tls.listen();
            try expectEqual(sends_close_notify, tls.server.receivedCloseNotify());
        }
    }
}

test "connection over tls: a body that ends with the stream is whole only after close_notify" {
    for (variants) |variant| {
        for ([_]bool{ false, true }) |sends_close_notify| {
            var tls: TlsBed = undefined;
            try tls.init(variant.with(get_options), .{ .version = variant.version });
            defer tls.deinit();
            try tls.bed.start();
            try tls.exchange();
            try tls.say("HTTP/1.1 200 OK\r\n\r\nsome");
            try tls.say(" bytes");
            if (sends_close_notify) tls.server.sendCloseNotify();
            kernel.feed(try tls.server.take(tls.bed.arena()));
            kernel.then(.end);
            try tls.bed.drive();
            try testing.expectEqualStrings("some bytes", try tls.bed.body());
            if (!sends_close_notify) {
                try tls.bed.expectFailure(.{ .body = error.Truncated });
            } else try expectEqualDeep(Seen{ .finished = true }, tls.bed.seen.items[3]);
        }
    }
}

test "connection over tls: a corrupted record ends it, after the messages before it" {
    for (variants) |variant| {
        var tls: TlsBed = undefined;
        try tls.init(variant.with(websocket_options), .{ .version = variant.version });
        defer tls.deinit();
        try tls.open();
        try tls.server.write(try tls.bed.encode(&.{textFrame("good")}));
        const good = try tls.server.take(tls.bed.arena());
        try tls.server.write(try tls.bed.encode(&.{textFrame("bad")}));
        const bad = try tls.server.take(tls.bed.arena());
        bad[bad.len - 1] ^= 1;
        kernel.feed(try std.mem.concat(tls.bed.arena(), u8, &.{ good, bad, good }));
        try tls.exchange();
        try tls.bed.expectSeen(&.{.text("good")});
        try expect(tls.bed.failed);
        const failure = tls.bed.connection.failure().?.tls;
        try expect(!failure.in_handshake);
        try testing.expectEqualStrings(
            "decryption failed or bad record mac",
            failure.cause.reason,
        );
        try expect(tls.server_failed);
    }
}

test "connection over tls: after the peer's close frame, a TLS error is not a failure" {
    for (variants) |variant| {
        var tls: TlsBed = undefined;
        try tls.init(variant.with(websocket_options), .{ .version = variant.version });
        defer tls.deinit();
        try tls.open();
        try tls.sayFrames(&.{ textFrame("last"), closeFrame(1001, "gone") });
        kernel.feed("\x17\x03\x03\x00\x20 and this was never a record at all.");
        kernel.then(.{ .fails = error.ConnectionReset });
        try tls.bed.drive();
        try tls.bed.expectSeen(&.{ .text("last"), .{ .closed = .{
            .code = 1001,
            .reason = "gone",
            .clean = true,
        } } });
    }
}

test "connection over tls: FIN waits for the whole of our close_notify" {
    for (variants) |variant| {
        var tls: TlsBed = undefined;
        try tls.init(variant.with(websocket_options), .{ .version = variant.version });
        defer tls.deinit();
        try tls.open();
        tls.bed.connection.close(1000, "");
        kernel.send_room = if (variant.engine == .ktls) 0 else 3; // ktls: whole or not at all.
        try tls.sayFrames(&.{closeFrame(1000, "")});
        try tls.bed.drive();
        try expect(!kernel.send_side_shut);
        kernel.send_room = std.math.maxInt(usize);
        try tls.bed.drive();
        try expect(kernel.send_side_shut);
        try tls.expectSent(&.{closeFrame(1000, "")});
        try expect(tls.server.receivedCloseNotify());
    }
}

test "connection over tls: an invalid record length is an error even when the ring is full" {
    for (variants) |variant| {
        var tight = websocket_options;
        tight.message_size_max = 200 * 1024;
        tight.receive_ring_capacity = 256 * 1024;
        var tls: TlsBed = undefined;
        try tls.init(variant.with(tight), .{ .version = variant.version });
        defer tls.deinit();
        try tls.open();
        const payload = try tls.bed.arena().alloc(u8, 200 * 1024);
        @memset(payload, 'x');
        const frame = try tls.bed.encode(&.{textFrame(payload)});
        try tls.say(frame[0 .. 199 * 1024]);
        try tls.exchange();
        const garbage: [64 * 1024]u8 = @splat(0xff);
        kernel.feed(&garbage);
        try tls.exchange();
        try expect(tls.bed.failed);
        try expect(tls.bed.connection.failure().? == .tls);
    }
}

test "connection over tls: the first failure is the one that is reported" {
    for (variants) |variant| {
        var tls: TlsBed = undefined;
        try tls.init(variant.with(websocket_options), .{ .version = variant.version });
        defer tls.deinit();
        try tls.open();
        try tls.sayFrames(&.{ textFrame("last"), .{ .opcode = 3 } });
        kernel.feed("\x17\x03\x03\x00\x20 and this was never a record at all.");
        kernel.then(.{ .fails = error.ConnectionReset });
        try tls.bed.drive();
        try tls.bed.expectSeen(&.{.text("last")});
        const cause = error.ReservedOpcode;
        try tls.bed.expectFailure(.{ .protocol = .{ .cause = cause, .code = 1002 } });
    }
}

test "connection over tls: a new start has a new session" {
    var tls: TlsBed = undefined;
    try tls.init(websocket_options, .{ .tickets = 2 });
    defer tls.deinit();
    for (0..4) |round| {
        if (round > 0) try tls.renewServer();
        try tls.open();
        // A part of a record, a part of a frame and unsent bytes are dropped.
        try tls.server.write(try tls.bed.encode(&.{textFrame("half")}));
        const record = try tls.server.take(tls.bed.arena());
        if (round % 2 == 0) kernel.feed(record[0..7]);
        kernel.send_room = 3;
        try tls.bed.connection.send(.text, "never heard");
        kernel.then(.{ .fails = error.ConnectionReset });
        try tls.bed.drive();
        try tls.bed.expectFailure(lost(bed_module.reset_reason));
        try tls.bed.expectSeen(&.{});
    }
}

test "connection over tls: much data in both directions, in small pieces" {
    for (variants) |variant| {
        var options = websocket_options;
        options.message_size_max = 200 * 1024;
        options.receive_ring_capacity = 256 * 1024;
        options.send_ring_capacity = 256 * 1024;
        var tls: TlsBed = undefined;
        try tls.init(variant.with(options), .{ .version = variant.version, .tickets = 1 });
        defer tls.deinit();
        try tls.open();
        const payload = try tls.bed.arena().alloc(u8, options.message_size_max);
        for (payload, 0..) |*byte, index| byte.* = @truncate(index *% 31);
        const frame: Frame = .{ .opcode = frames.binary, .payload = payload };
        kernel.send_room = 1000;
        try tls.bed.connection.send(.binary, payload);
        try tls.sayFrames(&.{ frame, frame });
        for (0..400) |_| {
            try tls.exchange();
            kernel.send_room += 1000;
        }
        const message: Seen = .{ .message = .{ .opcode = .binary, .payload = payload } };
        try tls.bed.expectSeen(&.{ message, message });
        try tls.expectSent(&.{frame});
        try expect(!tls.bed.connection.wantsWrite());
    }
}

test "connection over tls: a full ring takes no part of a message, and goes on" {
    for (variants) |variant| {
        var options = variant.with(websocket_options);
        options.send_ring_capacity = bed_module.ring_capacity_min;
        var tls: TlsBed = undefined;
        try tls.init(options, .{ .version = variant.version });
        defer tls.deinit();
        try tls.open();
        kernel.send_room = 0;
        var count: usize = 0;
        const payload = bed_module.quarterOfRing();
        while (tls.bed.connection.send(.text, payload)) : (count += 1) {} else |err| {
            try expectEqual(error.SendRingFull, err);
        }
        switch (variant.engine) {
            .direct, .ktls => try expectEqual(3, count),
            .openssl => try expect(count * payload.len > constants.ciphertext_ring_capacity / 2),
        }
        try tls.sayFrames(&.{ .{ .opcode = frames.ping, .payload = "p" }, textFrame("between") });
        try tls.bed.drive();
        try tls.bed.expectSeen(&.{.text("between")});
        kernel.send_room = std.math.maxInt(usize);
        try tls.exchange();
        const sent = try tls.takeSent();
        try expectEqual(count + 1, sent.len);
        for (sent[0..count]) |frame| try expectEqualDeep(textFrame(payload), frame);
        try expectEqual(frames.pong, sent[count].opcode);
    }
}

test "connection over tls: answers that the peer does not read do not stop receiving" {
    var tls: TlsBed = undefined;
    try tls.init(withEngine(.openssl, websocket_options), .{ .version = .tls1_2 });
    defer tls.deinit();
    try tls.open();
    kernel.send_room = 0;
    const payload: [1000]u8 = @splat('x');
    var count: usize = 0;
    while (tls.bed.connection.send(.text, &payload)) : (count += 1) {} else |err| {
        try expectEqual(error.SendRingFull, err);
    }
    try tls.server.renegotiate(); // Needs an answer, for which there is no room.
    kernel.feed(try tls.server.take(tls.bed.arena()));
    const flood: [16_000]u8 = @splat('y');
    for (0..20) |_| try tls.sayFrames(&.{textFrame(&flood)});
    for (0..50) |_| {
        try tls.bed.pump();
        if (tls.bed.isOver()) break;
        _ = try tls.bed.waitFor(0);
    }
    kernel.send_room = std.math.maxInt(usize);
    try tls.exchange();
    try expect(!tls.bed.isOver());
    try expectEqual(@as(usize, 20), tls.bed.seen.items.len);
    try expectEqual(count, (try tls.takeSent()).len);
}

test "connection over tls: what waits for a renegotiation does not wait for the socket" {
    var tls: TlsBed = undefined;
    try tls.init(withEngine(.openssl, websocket_options), .{ .version = .tls1_2 });
    defer tls.deinit();
    try tls.open();
    try tls.server.renegotiate();
    kernel.feed(try tls.server.take(tls.bed.arena()));
    try tls.bed.drive();
    try tls.bed.connection.send(.text, "order");
    tls.bed.connection.close(1000, "");
    try tls.bed.drive();
    try expectEqual(.timed_out, try tls.bed.waitFor(s));
    try expect(!kernel.send_side_shut);
    try tls.exchange(); // The server goes on with the handshake.
    try tls.expectSent(&.{ textFrame("order"), closeFrame(1000, "") });
    try tls.sayFrames(&.{closeFrame(1000, "")});
    try tls.exchange();
    try expect(kernel.send_side_shut);
    try expect(tls.server.receivedCloseNotify());
}

test "connection over tls: KeyUpdates between messages, in both directions" {
    for (std.enums.values(ssl.Engine)) |engine| {
        var tls: TlsBed = undefined;
        try tls.init(withEngine(engine, websocket_options), .{ .tickets = 2 });
        defer tls.deinit();
        try tls.open();
        for (0..20) |round| {
            tls.server.updateKeys(if (round % 2 == 0) .requested else .not_requested);
            try tls.sayFrames(&.{textFrame("tick")});
            try tls.exchange();
            try tls.bed.expectSeen(&.{.text("tick")});
            try tls.bed.connection.send(.text, "order");
            try tls.expectSent(&.{textFrame("order")});
        }
    }
}

test "connection over tls: a busy wait" {
    for (variants) |variant| {
        var options = websocket_options;
        options.busy_poll = true;
        var tls: TlsBed = undefined;
        try tls.init(variant.with(options), .{ .version = variant.version, .tickets = 1 });
        defer tls.deinit();
        kernel.spins_allowed = true;
        tls.byte_by_byte = true;
        try tls.open();
        const wait_calls = kernel.wait_calls;
        for (0..5) |_| {
            try tls.sayFrames(&.{textFrame("one")});
            try tls.sayFrames(&.{ textFrame("two"), .{ .opcode = frames.ping } });
            try tls.exchange();
            try tls.bed.expectSeen(&.{ .text("one"), .text("two") });
            try tls.expectSent(&.{.{ .opcode = frames.pong }});
        }
        try expectEqual(wait_calls, kernel.wait_calls);
    }
}
