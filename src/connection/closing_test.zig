//! Tests of `connection.zig` on a scripted kernel: the closing handshake, begun by either side.

const std = @import("std");
const constants = @import("../constants.zig");
const ws = @import("../ws.zig");
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");
const frames = @import("../testing/frames.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const kernel = &ScriptedOs.kernel;
const s = std.time.ns_per_s;
const Bed = bed_module.Bed;
const closeFrame = bed_module.closeFrame;
const lost_code = bed_module.lost_code;
const textFrame = bed_module.textFrame;
const websocket_options = bed_module.websocket_options;
const Frame = frames.Frame;

test "connection: one that is over gives nothing more, also when its rings are given back" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    try bed.feed(&.{ textFrame("lent"), textFrame("never asked for") });
    try bed.wait();
    try expect(bed.connection.nextMessage() != null);
    bed.connection.abort();
    bed.connection.releaseRings();
    try testing.expectError(error.Failed, bed.connection.next());
    try expect(bed.connection.nextMessage() == null);
}

test "connection: after our close, messages that still arrive are dropped" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    bed.connection.close(4321, "enough");
    bed.connection.close(1000, "again"); // No second CLOSE.
    try bed.feed(&.{
        textFrame("late"),
        .{ .opcode = frames.ping, .payload = "p" },
        .{ .fin = false, .opcode = frames.text, .payload = "never" },
    });
    try bed.drive();
    try expectEqual(.closing, bed.connection.state());
    try expect(!kernel.send_side_shut); // The server closes TCP first (RFC 6455, section 7.1.1).
    try bed.feed(&.{closeFrame(4321, "so be it")});
    try bed.drive();
    try expect(kernel.send_side_shut);
    try expectEqual(.closing, bed.connection.state());
    kernel.then(.end);
    try bed.drive();
    try bed.expectSeen(&.{.{ .closed = .{
        .code = 4321,
        .reason = "so be it",
        .clean = true,
        .local = true,
    } }});
    try bed.expectSent(&.{closeFrame(4321, "enough")});
    try expectEqual(@as(u64, 1), bed.connection.transport.counters.messages_dropped);
}

test "connection: closed by the peer, with every kind of code" {
    inline for (.{
        .{ closeFrame(1000, ""), closeFrame(1000, ""), 1000, "" },
        .{ closeFrame(4999, "Grüße"), closeFrame(4999, ""), 4999, "Grüße" },
        .{ Frame{ .opcode = frames.close }, Frame{ .opcode = frames.close }, 1005, "" },
    }) |case| {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        try bed.open();
        // All that arrives after it is ignored.
        try bed.feed(&.{ textFrame("before"), case[0], textFrame("after") });
        kernel.feed("\xff\xff");
        try bed.drive();
        try bed.expectSent(&.{case[1]});
        try expect(kernel.send_side_shut);
        kernel.then(.end);
        try bed.drive();
        try bed.expectSeen(&.{ .text("before"), .{ .closed = .{
            .code = case[2],
            .reason = case[3],
            .clean = true,
        } } });
        try expect(!bed.failed);
        try testing.expectError(error.Failed, bed.connection.next());
    }
}

test "connection: both sides close at the same time" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    try bed.feed(&.{ textFrame("dropped"), closeFrame(3000, "mine") });
    bed.connection.close(1000, "");
    kernel.then(.end);
    try bed.drive();
    try bed.expectSent(&.{closeFrame(1000, "")});
    try bed.expectSeen(&.{.{ .closed = .{
        .code = 3000,
        .reason = "mine",
        .clean = true,
        .local = true,
    } }});
}

test "connection: a peer that does not answer the close frame, or does not hang up" {
    for ([_]bool{ false, true }) |answers| {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        try bed.open();
        bed.connection.close(1000, "");
        const start_ns = kernel.now_ns;
        kernel.then(.{ .pause_ns = s });
        if (answers) try bed.feed(&.{closeFrame(1000, "")}) else try bed.feed(&.{textFrame("")});
        try bed.driveToEnd();
        try expectEqual(start_ns + 2 * s, kernel.now_ns);
        try expectEqual(answers, kernel.send_side_shut);
        try bed.expectSeen(&.{.{ .closed = if (answers) .{
            .code = 1000,
            .clean = true,
            .local = true,
        } else .{
            .code = lost_code,
            .reason = "the peer did not answer the close frame in time",
            .clean = false,
            .local = true,
        } }});
    }
}

test "connection: a flood from the peer does not delay the end" {
    var options = websocket_options;
    options.receive_ring_capacity = 256 * 1024;
    for ([_]bool{ false, true }) |answers| {
        var bed = try Bed.init(options);
        defer bed.deinit();
        try bed.open();
        const zeros: [constants.read_size_max / 4 - 4]u8 = @splat('0');
        const frame: Frame = .{ .opcode = frames.binary, .payload = &zeros };
        bed.connection.close(1000, "");
        if (answers) try bed.feed(&.{closeFrame(1000, "")});
        const flood: [4 * constants.reads_per_turn_max * 9]Frame = @splat(frame);
        kernel.feed(try bed.encode(&flood));
        var turns: u32 = 0;
        while (!bed.isOver()) : (turns += 1) {
            try bed.pump();
            kernel.now_ns += s;
            _ = try bed.waitFor(null);
        }
        try expect(turns <= 4);
        try expectEqual(answers, bed.seen.items[0].closed.clean);
    }
}

test "connection: a close frame waits for its turn in the send ring" {
    for ([_]bool{ false, true }) |local| {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        try bed.open();
        kernel.send_room = 3;
        try bed.connection.send(.text, "order");
        if (local) bed.connection.close(1000, "");
        try bed.feed(&.{closeFrame(1000, "")});
        try bed.drive();
        try expectEqual(.closing, bed.connection.state());
        try expect(!kernel.send_side_shut); // What is queued goes out before FIN.
        kernel.send_room = 1000;
        try bed.drive();
        try expect(kernel.send_side_shut);
        kernel.then(.end);
        try bed.drive();
        try bed.expectSent(&.{ textFrame("order"), closeFrame(1000, "") });
        try bed.expectSeen(&.{.{ .closed = .{ .code = 1000, .clean = true, .local = local } }});
    }
}

test "connection: closing before it is open ends it at once, which is not an ordinary end" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    bed.connection.close(1000, "");
    bed.connection.abort();
    try expectEqual(.idle, bed.connection.state());
    for (0..2) |step| {
        for (0..2) |ending| {
            kernel.thenConnect(if (step == 0) .silent else .connected);
            try bed.start();
            try bed.pump();
            if (ending == 0) bed.connection.close(1000, "") else bed.connection.abort();
            try expectEqual(.closed, bed.connection.state());
            try expectEqual(lost_code, bed.connection.closed().?.code);
            try expect(!bed.connection.closed().?.isOrdinary());
            try expectEqual(null, bed.connection.failure());
            try expectEqual(.ready, try bed.waitFor(null));
            try testing.expectError(error.Failed, bed.connection.next());
        }
    }
    bed.checked_size = kernel.sent.items.len;
    try bed.open();
    bed.connection.abort();
    try expectEqual(.closed, bed.connection.state());
    bed.connection.abort();
    bed.connection.close(1000, "");
    try bed.expectSent(&.{});
}

test "connection: a protocol error is answered with CLOSE, and raised once the peer hangs up" {
    const big: [32 * 1024 + 1]u8 = @splat('x');
    const Case = struct { bad: Frame, cause: ws.ParseError, code: u16 };
    const cases = [_]Case{
        .{ .bad = .{ .opcode = 1, .reserved = 4 }, .cause = error.ReservedBits, .code = 1002 },
        .{ .bad = .{ .opcode = 3 }, .cause = error.ReservedOpcode, .code = 1002 },
        .{ .bad = .{ .opcode = 0 }, .cause = error.UnexpectedContinuation, .code = 1002 },
        .{ .bad = textFrame("\xc0\xaf"), .cause = error.InvalidUtf8, .code = 1007 },
        .{ .bad = textFrame(&big), .cause = error.MessageTooBig, .code = 1009 },
        .{ .bad = closeFrame(1005, ""), .cause = error.InvalidCloseCode, .code = 1002 },
        .{ .bad = closeFrame(1000, "\xff"), .cause = error.InvalidCloseReason, .code = 1007 },
    };
    for (cases) |case| {
        for ([_]enum { end, reset, silence }{ .end, .reset, .silence }) |ending| {
            var bed = try Bed.init(websocket_options);
            defer bed.deinit();
            try bed.open();
            try bed.feed(&.{ textFrame("before"), case.bad, textFrame("after") });
            try bed.drive();
            try bed.expectSeen(&.{.text("before")});
            try expectEqual(.closing, bed.connection.state());
            const code: [2]u8 = .{ @intCast(case.code >> 8), @truncate(case.code) };
            try bed.expectSent(&.{.{ .opcode = frames.close, .payload = &code }});
            try expect(kernel.send_side_shut);
            try testing.expectError(error.NotOpen, bed.connection.send(.text, "x"));
            try bed.feed(&.{ textFrame("more"), closeFrame(1000, "") });
            switch (ending) {
                .end => kernel.then(.end),
                .reset => kernel.then(.{ .fails = error.ConnectionReset }),
                .silence => {},
            }
            const start_ns = kernel.now_ns;
            try bed.driveToEnd();
            const passed_ns: u64 = if (ending == .silence) 2 * s else 0;
            try expectEqual(start_ns + passed_ns, kernel.now_ns);
            try bed.expectSeen(&.{});
            const is_big = case.cause == error.MessageTooBig;
            try bed.expectFailure(.{ .protocol = .{
                .cause = case.cause,
                .code = case.code,
                .oversize = if (is_big) .{ .size = big.len, .is_whole = true } else null,
            } });
            try expectEqual(case.code, bed.connection.closed().?.code);
        }
    }
}

test "connection: a peer that breaks the protocol while we wait for its close frame" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    bed.connection.close(1000, "");
    try bed.feed(&.{ textFrame("late"), .{ .opcode = 3 }, closeFrame(1000, "") });
    kernel.then(.end);
    try bed.drive();
    try bed.expectSent(&.{closeFrame(1000, "")});
    try bed.expectSeen(&.{});
    try bed.expectFailure(.{ .protocol = .{ .cause = error.ReservedOpcode, .code = 1006 } });
}

test "connection: bad text is answered before its frame is whole" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    const bytes = try bed.encode(&.{textFrame("abc\xff and so on")});
    kernel.feed(bytes[0 .. 2 + 4]);
    try bed.drive();
    try expectEqual(.closing, bed.connection.state());
    try bed.expectSent(&.{closeFrame(1007, "")});
}
