//! Tests of `connection.zig` on a scripted kernel: messages, pongs and full send rings.

const std = @import("std");
const constants = @import("../constants.zig");
const os = @import("../os.zig");
const ws = @import("../ws.zig");
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");
const frames = @import("../testing/frames.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const expectEqualDeep = testing.expectEqualDeep;
const kernel = &ScriptedOs.kernel;
const s = std.time.ns_per_s;
const Bed = bed_module.Bed;
const closeFrame = bed_module.closeFrame;
const lost = bed_module.lost;
const reset_reason = bed_module.reset_reason;
const textFrame = bed_module.textFrame;
const websocket_options = bed_module.websocket_options;

test "connection: a kernel that takes a byte at a time gets every byte once" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    for (0..2000) |_| kernel.thenSend(.{ .takes = 1 });
    const payload: [300]u8 = @splat('a');
    try bed.connection.send(.text, &payload);
    try bed.connection.send(.text, "");
    try bed.connection.ping("");
    try expect(!bed.connection.wantsWrite());
    try bed.expectSent(&.{ textFrame(&payload), textFrame(""), .{ .opcode = frames.ping } });
}

test "connection: what the kernel does not take goes out with the next wait" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    kernel.thenSend(.{ .takes = 3 });
    kernel.thenSend(.would_block);
    try bed.connection.send(.text, "first");
    try expect(bed.connection.wantsWrite());
    try bed.connection.send(.text, "second"); // Tries to flush, and queues after the first.
    try expect(bed.connection.wantsWrite());
    try expectEqual(.ready, try bed.waitFor(null));
    try expect(!bed.connection.wantsWrite());
    try bed.expectSent(&.{ textFrame("first"), textFrame("second") });
    try expectEqual(.timed_out, try bed.waitFor(s));

    kernel.send_room = 0;
    try bed.connection.send(.text, "third");
    try expectEqual(.timed_out, try bed.waitFor(s));
    try bed.feed(&.{textFrame("in between")});
    try bed.drive();
    try bed.expectSeen(&.{.text("in between")});
    kernel.send_room = 4;
    try expectEqual(.ready, try bed.waitFor(null));
    try expect(bed.connection.wantsWrite());
    kernel.send_room = 1000;
    bed.connection.beginTurn(); // What an owner with its own event loop calls.
    try expect(!bed.connection.wantsWrite());
    try bed.expectSent(&.{textFrame("third")});
}

test "connection: a full ring takes no part of a message" {
    var options = websocket_options;
    options.send_ring_capacity = bed_module.ring_capacity_min;
    var bed = try Bed.init(options);
    defer bed.deinit();
    try bed.open();
    const capacity = bed.connection.transport.outbox.?.ring.capacity;
    const largest = capacity - constants.control_frames_room - ws.builder.headerSize(4000);
    const bytes_most: [bed_module.page_size_max]u8 = @splat('b');
    const bytes = bytes_most[0..capacity];
    const larger = bytes[0 .. largest + 1];
    try testing.expectError(error.SendRingFull, bed.connection.send(.text, larger));
    try testing.expectError(error.SendRingFull, bed.connection.send(.text, bytes));
    try testing.expectError(error.SendRingFull, bed.connection.reserve(.text, largest + 1));
    try expect(!bed.connection.isReserved());
    try bed.connection.send(.text, bytes[0..largest]);
    try bed.expectSent(&.{textFrame(bytes[0..largest])});

    for ([_]usize{ 0, 1, 100, 126, 500, largest }) |size| {
        kernel.send_room = 0;
        var count: usize = 0;
        while (true) : (count += 1) {
            const queued = bed.connection.transport.outbox.?.ring.readable().len;
            bed.connection.send(.text, bytes[0..size]) catch |err| {
                try expectEqual(error.SendRingFull, err);
                try expectEqual(queued, bed.connection.transport.outbox.?.ring.readable().len);
                break;
            };
        }
        try expect(count > 0);
        try testing.expectError(error.SendRingFull, bed.connection.reserve(.text, size));
        kernel.send_room = std.math.maxInt(usize);
        try bed.drive();
        const sent = try bed.takeSent();
        try expectEqual(count, sent.len);
        for (sent) |frame| try expectEqualDeep(textFrame(bytes[0..size]), frame);
    }
    const counters = bed.connection.transport.counters;
    try expectEqual(@as(usize, 0), bed.connection.transport.outbox.?.ring.readable().len);
    try expect(counters.messages_sent > 0);
}

test "connection: a frame is written in place, or not at all" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    const place = try bed.connection.reserve(.binary, 300);
    try expectEqual(@as(usize, 300), place.len);
    try expect(bed.connection.isReserved());
    @memset(place, 'r');
    try testing.expectError(error.Reserved, bed.connection.send(.text, "no"));
    try testing.expectError(error.Reserved, bed.connection.reserve(.text, 1));
    try testing.expectError(error.Reserved, bed.connection.ping(""));
    try bed.expectSent(&.{});
    try bed.connection.commit();
    try expect(!bed.connection.isReserved());
    const expected: [300]u8 = @splat('r');
    try bed.expectSent(&.{.{ .opcode = frames.binary, .payload = &expected }});

    @memset(try bed.connection.reserve(.text, 20), 'c');
    bed.connection.cancel();
    try expect(!bed.connection.isReserved());
    try bed.connection.send(.text, "after");
    _ = try bed.connection.reserve(.text, 0);
    try bed.connection.commit();
    try bed.expectSent(&.{ textFrame("after"), textFrame("") });
    try expectEqual(@as(u64, 3), bed.connection.transport.counters.messages_sent);
    try expectEqual(@as(u64, 305), bed.connection.transport.counters.bytes_sent);
}

test "connection: nothing can be sent unless the connection is open" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try testing.expectError(error.NotOpen, bed.connection.send(.text, "x"));
    try bed.start();
    try testing.expectError(error.NotOpen, bed.connection.send(.text, "x"));
    try bed.drive();
    try testing.expectError(error.NotOpen, bed.connection.reserve(.text, 1));
    kernel.feed(try bed.upgradeResponse());
    try bed.drive();
    bed.connection.close(1000, "");
    try testing.expectError(error.NotOpen, bed.connection.send(.text, "x"));
    kernel.then(.end);
    try bed.drive();
    try testing.expectError(error.NotOpen, bed.connection.ping(""));
    try bed.expectSent(&.{closeFrame(1000, "")});
}

test "connection: each mask is random, or zero with that option" {
    {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        try bed.open();
        const sent_size = kernel.sent.items.len;
        for (0..2) |_| try bed.connection.send(.text, "");
        const sent = kernel.sent.items[sent_size..];
        try expectEqual(@as(usize, 12), sent.len);
        try expect(!std.mem.eql(u8, sent[2..6], sent[8..12]));
    }
    var options = websocket_options;
    options.mask = .zero;
    var bed = try Bed.init(options);
    defer bed.deinit();
    try bed.open();
    try bed.connection.send(.text, "plain");
    try expect(std.mem.endsWith(u8, kernel.sent.items, "\x81\x85\x00\x00\x00\x00plain"));
    try bed.expectSent(&.{textFrame("plain")});
}

test "connection: after a send error, what the peer sent before is still received" {
    for ([_]os.SendError{ error.BrokenPipe, error.ConnectionReset, error.Unexpected }) |cause| {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        try bed.open();
        try bed.feed(&.{ textFrame("one"), .{ .opcode = frames.ping }, textFrame("two") });
        try bed.feed(&.{closeFrame(1008, "too slow")});
        kernel.then(.end);
        kernel.thenSend(.{ .takes = 2 });
        kernel.thenSend(.{ .fails = cause });
        try testing.expectError(error.Disconnected, bed.connection.send(.text, "order"));
        const send_calls = kernel.send_calls;
        try testing.expectError(error.Disconnected, bed.connection.send(.text, "order"));
        try testing.expectError(error.Disconnected, bed.connection.reserve(.text, 1));
        try expect(!bed.connection.wantsWrite());
        try bed.drive();
        try expectEqual(send_calls, kernel.send_calls);
        try bed.expectSeen(&.{ .text("one"), .text("two"), .{ .closed = .{
            .code = 1008,
            .reason = "too slow",
            .clean = true,
        } } });
    }
    // The error may also come during a wait; then the stream ends without CLOSE.
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    kernel.thenSend(.would_block);
    kernel.thenSend(.{ .fails = error.BrokenPipe });
    try bed.connection.send(.text, "order");
    kernel.then(.{ .pause_ns = 5 });
    try bed.feed(&.{textFrame("last")});
    kernel.then(.{ .fails = error.ConnectionReset });
    try bed.drive();
    try bed.expectSeen(&.{.text("last")});
    try bed.expectFailure(lost(reset_reason));
}

test "connection: a pong goes out ahead of later messages" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    kernel.send_room = 0;
    try bed.connection.send(.text, "before");
    try bed.feed(&.{.{ .opcode = frames.ping, .payload = "p" }});
    try bed.drive();
    try bed.connection.send(.text, "after");
    kernel.send_room = 1000;
    try bed.drive();
    try bed.expectSent(&.{
        textFrame("before"),
        .{ .opcode = frames.pong, .payload = "p" },
        textFrame("after"),
    });
}

/// Queues messages until no more fit.
fn fillSendRing(bed: *Bed, size: usize) !usize {
    const bytes: [128]u8 = @splat('f');
    var count: usize = 0;
    while (bed.connection.send(.text, bytes[0..size])) : (count += 1) {} else |err| {
        try expectEqual(error.SendRingFull, err);
    }
    return count;
}

test "connection: the newest ping is remembered when there is no room for its pong" {
    var options = websocket_options;
    options.send_ring_capacity = bed_module.ring_capacity_min;
    for ([_]usize{ 0, 1, 7, 125 }) |ping_size| {
        var bed = try Bed.init(options);
        defer bed.deinit();
        try bed.open();
        kernel.send_room = 0;
        const count = try fillSendRing(&bed, 1);
        for (0..60) |index| {
            const payload = try bed.arena().alloc(u8, ping_size);
            @memset(payload, @intCast(index));
            try bed.feed(&.{.{ .opcode = frames.ping, .payload = payload }});
        }
        try bed.drive();
        kernel.send_room = std.math.maxInt(usize);
        try bed.drive();
        const sent = try bed.takeSent();
        try expect(sent.len > count);
        for (sent[0..count]) |frame| try expectEqualDeep(textFrame("f"), frame);
        for (sent[count..]) |frame| {
            try expectEqual(frames.pong, frame.opcode);
            try expectEqual(ping_size, frame.payload.len);
        }
        if (ping_size > 0) try expectEqual(@as(u8, 59), sent[sent.len - 1].payload[0]);
        try expectEqual(@as(u64, 60), bed.connection.transport.counters.pings);
    }
}

test "connection: pongs leave room for the close frame" {
    var options = websocket_options;
    options.send_ring_capacity = bed_module.ring_capacity_min;
    const reason: [constants.close_reason_size_max]u8 = @splat('r');
    for ([_]usize{ 0, 1, 2, 5, 60, 125 }) |ping_size| {
        var bed = try Bed.init(options);
        defer bed.deinit();
        try bed.open();
        kernel.send_room = 0;
        _ = try fillSendRing(&bed, 0);
        const payload: [125]u8 = @splat('p');
        for (0..80) |_| {
            try bed.feed(&.{.{ .opcode = frames.ping, .payload = payload[0..ping_size] }});
        }
        try bed.drive();
        bed.connection.close(4000, &reason);
        kernel.send_room = std.math.maxInt(usize);
        try bed.drive();
        const sent = try bed.takeSent();
        const last = sent[sent.len - 1];
        try expectEqual(frames.close, last.opcode);
        try testing.expectEqualStrings("\x0f\xa0" ++ reason, last.payload);
    }
}
