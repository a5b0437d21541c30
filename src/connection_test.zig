//! Tests of `connection.zig` on a scripted kernel: what the peer sends, when, and what the kernel
//! makes of what the client sends. Every byte of the client is decoded by `testing/frames.zig` and
//! compared. The kernel itself panics on calls that no client should make, see there.

const std = @import("std");
const constants = @import("constants.zig");
const connection_module = @import("connection.zig");
const os = @import("os.zig");
const ws = @import("ws.zig");
const types = @import("connection/types.zig");
const Pin = @import("ringbuffer.zig").Pin;
const RingBuffer = @import("ringbuffer.zig").RingBuffer;
const ScriptedOs = @import("testing/scripted_os.zig");
const bed_module = @import("testing/connection_bed.zig");
const frames = @import("testing/frames.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const expectEqualDeep = testing.expectEqualDeep;
const kernel = &ScriptedOs.kernel;
const s = std.time.ns_per_s;
const Bed = bed_module.Bed;
const Connection = bed_module.Connection;
const Seen = bed_module.Seen;
const closeFrame = bed_module.closeFrame;
const eof_reason = bed_module.eof_reason;
const get_options = bed_module.get_options;
const lost = bed_module.lost;
const lost_code = bed_module.lost_code;
const reset_reason = bed_module.reset_reason;
const textFrame = bed_module.textFrame;
const websocket_options = bed_module.websocket_options;
const Frame = frames.Frame;

test {
    _ = @import("connection_tls_test.zig");
    _ = @import("connection_fault_test.zig");
}

// ---- Opening. ----------------------------------------------------------------------------------

test "connection: opens, gives a message, sends one, and both close" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.start();
    try bed.drive();
    const request = kernel.sent.items;
    try expect(std.mem.startsWith(u8, request, "GET /stream?symbol=x HTTP/1.1\r\n"));
    try expect(std.mem.endsWith(u8, request, "\r\n\r\n"));
    kernel.feed(try bed.upgradeResponse());
    try bed.drive();
    try bed.feed(&.{textFrame("hello")});
    try bed.drive();
    try bed.expectSeen(&.{ .{ .opened = 101 }, .text("hello") });

    try bed.connection.send(.text, "order");
    try bed.connection.send(.binary, "\x00\x01");
    try bed.connection.ping("are you there");
    try bed.expectSent(&.{
        textFrame("order"),
        .{ .opcode = frames.binary, .payload = "\x00\x01" },
        .{ .opcode = frames.ping, .payload = "are you there" },
    });

    bed.connection.close(1000, "done");
    try bed.expectSent(&.{closeFrame(1000, "done")});
    try bed.feed(&.{closeFrame(1000, "")});
    kernel.then(.end);
    try bed.drive();
    try bed.expectSeen(&.{.{ .closed = .{ .code = 1000, .clean = true, .local = true } }});
    try expect(kernel.send_side_shut);
    try expectEqualDeep(types.Counters{
        .messages = 1,
        .bytes = 5,
        .reads = 3,
        .messages_sent = 2,
        .bytes_sent = 7,
        .pings_sent = 1,
    }, bed.connection.counters);
}

test "connection: the response and the first frames may be cut at every byte" {
    const list: []const Frame = &.{ textFrame("one"), closeFrame(1001, "bye") };
    const expected: []const Seen = &.{ .{ .opened = 101 }, .text("one") };
    var cut: usize = 0;
    while (true) : (cut += 1) {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        try bed.start();
        try bed.drive();
        const response = try bed.upgradeResponse();
        const bytes = try std.mem.concat(bed.arena(), u8, &.{ response, try bed.encode(list) });
        if (cut > bytes.len) break;
        kernel.feed(bytes[0..cut]);
        kernel.feed(bytes[cut..]);
        try bed.drive();
        try bed.expectSeen(expected);
        try bed.expectSent(&.{closeFrame(1001, "")});
    }
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.start();
    try bed.drive();
    kernel.feedByteByByte(try bed.upgradeResponse());
    kernel.feedByteByByte(try bed.encode(list));
    try bed.drive();
    try bed.expectSeen(expected);
}

test "connection: what comes in the same read as the response is not lost" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.start();
    try bed.drive();
    const half = try bed.encode(&.{textFrame("four")});
    kernel.feed(try std.mem.concat(bed.arena(), u8, &.{
        try bed.upgradeResponse(),
        try bed.encode(&.{
            textFrame("one"),
            .{ .opcode = frames.ping, .payload = "p" },
            textFrame("two"),
            textFrame(""),
        }),
        half[0..3],
    }));
    const receive_calls = kernel.receive_calls;
    try bed.drive();
    try expectEqual(receive_calls + 1, kernel.receive_calls);
    kernel.feed(half[3..]);
    try bed.drive();
    try bed.expectSeen(&.{
        .{ .opened = 101 }, .text("one"), .text("two"), .text(""), .text("four"),
    });
    try bed.expectSent(&.{.{ .opcode = frames.pong, .payload = "p" }});
}

/// As many addresses, 192.0.2.1 and on.
fn useAddresses(count: u8) void {
    kernel.addresses.count = 0;
    for (1..count + 1) |number| {
        var text: [16]u8 = undefined;
        const address = std.fmt.bufPrint(&text, "192.0.2.{d}", .{number}) catch unreachable;
        std.debug.assert(kernel.addresses.append(os.Address.parse(address, 80).?));
    }
}

test "connection: every address is tried, each with its share of the time" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    useAddresses(5);
    kernel.thenConnect(.{ .fails = error.NetworkUnreachable });
    kernel.thenConnect(.{ .answered = .{ .after_ns = s, .result = error.ConnectionRefused } });
    kernel.thenConnect(.silent);
    kernel.thenConnect(.{ .answered = .{ .after_ns = s / 2 } });
    const start_ns = kernel.now_ns;
    try bed.open();

    // 8 s in all: after 1 s there are 7 s left for three.
    const share_ns = (7 * s) / 3;
    const expected_ns = [_]u64{ 0, 0, s, s + share_ns };
    try expectEqual(expected_ns.len, kernel.dialled.items.len);
    for (expected_ns, kernel.dialled.items, 0..) |at_ns, dialled, index| {
        try expectEqual(start_ns + at_ns, dialled.at_ns);
        try expect(dialled.address.equal(&kernel.addresses.items[index]));
    }
    try expectEqual(start_ns + s + share_ns + s / 2, kernel.now_ns);
}

test "connection: when no address answers, the last one says why" {
    {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        useAddresses(2);
        const start_ns = kernel.now_ns;
        kernel.thenConnect(.silent);
        kernel.thenConnect(.silent);
        try bed.start();
        try bed.driveToEnd();
        try bed.expectFailure(.{ .timed_out = .connecting });
        try expectEqual(start_ns + 8 * s, kernel.now_ns);
        try expectEqual(start_ns + 4 * s, kernel.dialled.items[1].at_ns);
    }
    for ([_]ScriptedOs.ConnectStep{
        .{ .fails = error.HostUnreachable },
        .{ .answered = .{ .after_ns = 7, .result = error.HostUnreachable } },
    }) |step| {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        useAddresses(3);
        kernel.thenConnect(.{ .fails = error.ConnectionRefused });
        kernel.thenConnect(.silent);
        kernel.thenConnect(step);
        try bed.start();
        try bed.driveToEnd();
        try bed.expectFailure(.{ .connect = .{
            .cause = error.HostUnreachable,
            .address = kernel.addresses.items[2],
        } });
    }
}

test "connection: what fails before there is a connection is told, and leaves nothing open" {
    {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        kernel.resolve_failure = error.TemporaryFailure;
        try bed.start();
        try bed.expectFailure(.{ .resolve = error.TemporaryFailure });
        kernel.resolve_failure = null;
        kernel.addresses.count = 0;
        try bed.start();
        try bed.expectFailure(.{ .resolve = error.NameNotFound });
        try expectEqual(.ready, try bed.connection.wait(null));
    }
    {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        kernel.open_failure = error.TooManyOpenFiles;
        try bed.start();
        try bed.driveToEnd();
        try bed.expectFailure(.{ .open_socket = error.TooManyOpenFiles });
    }
    {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        kernel.option_failure = error.PermissionDenied;
        try bed.start();
        try bed.driveToEnd();
        try bed.expectFailure(.{ .open_socket = error.PermissionDenied });
    }
    {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        bed.connection.options.headers = &.{.{ .name = "X", .value = "a\r\nb" }};
        try bed.start();
        try bed.driveToEnd();
        try bed.expectFailure(.{ .request = error.InvalidHeaderValue });
    }
    ScriptedOs.reset(testing.allocator, 1);
    kernel.notifier_failure = error.TooManyOpenFiles;
    try testing.expectError(error.TooManyOpenFiles, Connection.init(websocket_options));
    ScriptedOs.deinit();
}

test "connection: waiting before the first look at it is no harm" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.thenConnect(.{ .answered = .{} });
    try bed.start();
    _ = try bed.connection.wait(0);
    _ = try bed.connection.wait(null);
    try bed.drive();
    kernel.feed(try bed.upgradeResponse());
    try bed.drive();
    try bed.expectSeen(&.{.{ .opened = 101 }});
}

test "connection: a request that goes out in pieces" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.thenSend(.{ .takes = 10 });
    kernel.thenSend(.would_block);
    for (0..100) |_| kernel.thenSend(.{ .takes = 1 });
    kernel.thenSend(.would_block);
    kernel.thenSend(.would_block);
    try bed.open();
}

test "connection: the server's answer is checked" {
    const start_line = "HTTP/1.1 101 Switching Protocols\r\n";
    const upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    const accept = "Sec-WebSocket-Accept: {s}\r\n";
    inline for (.{
        .{ start_line ++ upgrade ++ "\r\n", types.Failure{ .upgrade = error.MissingAccept } },
        .{
            start_line ++ upgrade ++ "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
            types.Failure{ .upgrade = error.WrongAccept },
        },
        .{
            start_line ++ upgrade ++ accept ++
                "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            types.Failure{ .upgrade = error.UnexpectedExtension },
        },
        .{
            start_line ++ upgrade ++ accept ++ "Sec-WebSocket-Protocol: other\r\n\r\n",
            types.Failure{ .upgrade = error.UnexpectedSubprotocol },
        },
        .{ "\x15\x03\x01\x00\x02\x02\x46", types.Failure{ .response = error.NotHttp } },
    }) |case| {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        try bed.start();
        try bed.drive();
        const key = bed.connection.handshake_key;
        const bytes = try std.mem.replaceOwned(
            u8,
            bed.arena(),
            case[0],
            "{s}",
            &ws.handshake.acceptValue(&key),
        );
        kernel.feed(bytes);
        try bed.drive();
        try bed.expectFailure(case[1]);
        try bed.expectSeen(&.{});
    }
}

test "connection: the subprotocol that the server chose" {
    var options = websocket_options;
    options.subprotocols = &.{ "json", "sbe" };
    var bed = try Bed.init(options);
    defer bed.deinit();
    try bed.start();
    try bed.drive();
    const response = try bed.upgradeResponse();
    kernel.feed(response[0 .. response.len - 2]);
    kernel.feed("Sec-WebSocket-Protocol: sbe\r\n\r\n");
    try bed.drive();
    try bed.expectSeen(&.{.{ .opened = 101 }});
    try testing.expectEqualStrings("sbe", bed.connection.subprotocol.?);
}

test "connection: interim responses are skipped, and bounded" {
    const interim = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    for ([_]usize{ 1, constants.interim_responses_max }) |count| {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        try bed.start();
        try bed.drive();
        for (0..count) |_| kernel.feed(interim);
        kernel.feed("HTTP/1.1 100 Continue\r\n\r\n"[0..if (count == 1) 25 else 0]);
        kernel.feed(try bed.upgradeResponse());
        try bed.feed(&.{textFrame("x")});
        try bed.drive();
        try bed.expectSeen(&.{ .{ .opened = 101 }, .text("x") });
    }
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.start();
    try bed.drive();
    for (0..constants.interim_responses_max + 1) |_| kernel.feed(interim);
    try bed.drive();
    try bed.expectFailure(.too_many_interim_responses);
}

// ---- Deadlines. --------------------------------------------------------------------------------

test "connection: a server that does not answer the request in time" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    const start_ns = kernel.now_ns;
    kernel.thenConnect(.{ .answered = .{ .after_ns = 3 * s } });
    try bed.start();
    try bed.driveToEnd();
    try bed.expectFailure(.{ .timed_out = .requesting });
    try expectEqual(start_ns + 8 * s, kernel.now_ns);
}

test "connection: a server that drips its answer does not get more time" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    const start_ns = kernel.now_ns;
    for ("HTTP/1.1 101 Switching Protocols\r\n") |byte| {
        kernel.then(.{ .pause_ns = s + 1 });
        kernel.feed(&.{byte});
    }
    try bed.start();
    try bed.driveToEnd();
    try bed.expectFailure(.{ .timed_out = .requesting });
    try expectEqual(start_ns + 8 * s, kernel.now_ns);
    try expectEqual(@as(u64, 7), bed.connection.counters.reads);
}

test "connection: a body that does not come in time" {
    const head = "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\n";
    {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        const start_ns = kernel.now_ns;
        kernel.feed(head ++ "abc");
        try bed.start();
        try bed.driveToEnd();
        try bed.expectSeen(&.{ .{ .response = 403 }, .{ .body = "abc" }, .{ .finished = false } });
        try expectEqual(start_ns + 8 * s, kernel.now_ns);
    }
    var bed = try Bed.init(get_options);
    defer bed.deinit();
    kernel.feed(head ++ "abc");
    try bed.start();
    try bed.driveToEnd();
    try bed.expectSeen(&.{ .{ .response = 403 }, .{ .body = "abc" } });
    try bed.expectFailure(.{ .timed_out = .reading_body });
}

test "connection: an open connection has no deadline" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    kernel.then(.{ .pause_ns = 1_000_000 * s });
    try bed.feed(&.{textFrame("late")});
    try expectEqual(.timed_out, try bed.connection.wait(5 * s));
    try expectEqual(.timed_out, try bed.connection.wait(0));
    try bed.drive();
    try bed.expectSeen(&.{.text("late")});
}

test "connection: a signal ends a wait and harms nothing" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.thenConnect(.{ .answered = .{} });
    kernel.interrupts = 3;
    try bed.start();
    try bed.pump();
    for (0..3) |_| {
        try expectEqual(.interrupted, try bed.connection.wait(null));
        try bed.pump();
    }
    try bed.drive();
    kernel.feed(try bed.upgradeResponse());
    try bed.drive();
    kernel.interrupts = 2;
    try bed.feed(&.{textFrame("x")});
    try expectEqual(.interrupted, try bed.connection.wait(null));
    try bed.drive();
    try bed.expectSeen(&.{ .{ .opened = 101 }, .text("x") });
}

test "connection: a kernel that cannot wait is told, and can be asked again" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.thenConnect(.{ .answered = .{} });
    try bed.start();
    try bed.pump();
    kernel.watch_failure = error.WatchLimit;
    try testing.expectError(error.SystemResources, bed.connection.wait(null));
    kernel.watch_failure = null;
    kernel.wait_failure = error.OutOfMemory;
    try testing.expectError(error.SystemResources, bed.connection.wait(null));
    kernel.wait_failure = null;
    try bed.drive();
    kernel.feed(try bed.upgradeResponse());
    try bed.drive();
    try bed.expectSeen(&.{.{ .opened = 101 }});
}

// ---- Receiving. --------------------------------------------------------------------------------

test "connection: one message is one read and one wait" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    const receive_calls = kernel.receive_calls;
    const wait_calls = kernel.wait_calls;
    const watch_changes = kernel.watch_changes;
    for (0..10) |_| {
        try bed.feed(&.{ textFrame("tick"), textFrame("tock") });
        try bed.drive();
        try bed.expectSeen(&.{ .text("tick"), .text("tock") });
    }
    try expectEqual(receive_calls + 10, kernel.receive_calls);
    try expectEqual(wait_calls + 10, kernel.wait_calls);
    try expectEqual(watch_changes, kernel.watch_changes);

    const send_calls = kernel.send_calls;
    for (0..10) |_| try bed.connection.send(.text, "order");
    try expectEqual(send_calls + 10, kernel.send_calls);
    try expectEqual(receive_calls + 10, kernel.receive_calls);
}

test "connection: only a read that filled its room is followed by another" {
    var options = websocket_options;
    options.receive_ring_capacity = 512 * 1024;
    var bed = try Bed.init(options);
    defer bed.deinit();
    try bed.open();
    const size = constants.read_size_max;
    const zeros: [size / 8 - 4]u8 = @splat('0');
    const frame: Frame = .{ .opcode = frames.binary, .payload = &zeros };
    const burst = try bed.encode(&@as([24]Frame, @splat(frame)));
    try expectEqual(3 * size, burst.len);

    const receive_calls = kernel.receive_calls;
    kernel.feed(burst); // Three full reads; the fourth learns that this was all.
    try bed.drive();
    try expectEqual(@as(usize, 24), bed.seen.items.len);
    try expectEqual(receive_calls + 4, kernel.receive_calls);
    kernel.feed(burst[0 .. burst.len - 1]); // The third is short: no fourth.
    try bed.drive();
    try expectEqual(receive_calls + 4 + 3, kernel.receive_calls);
    kernel.feed(burst[burst.len - 1 ..]);
    try bed.drive();
    try expectEqual(@as(usize, 48), bed.seen.items.len);
}

test "connection: a peer that never pauses cannot keep the turn for itself" {
    var options = websocket_options;
    options.receive_ring_capacity = 512 * 1024;
    var bed = try Bed.init(options);
    defer bed.deinit();
    try bed.open();
    const zeros: [constants.read_size_max / 4 - 4]u8 = @splat('0');
    const frame: Frame = .{ .opcode = frames.binary, .payload = &zeros };
    const reads_max = constants.reads_per_turn_max;
    kernel.feed(try bed.encode(&@as([4 * (reads_max + 2)]Frame, @splat(frame))));

    _ = try bed.connection.wait(null);
    const receive_calls = kernel.receive_calls;
    try bed.pump();
    try expectEqual(receive_calls + reads_max, kernel.receive_calls);
    try expectEqual(@as(usize, 4 * reads_max), bed.seen.items.len);
    try expect(bed.connection.turnSpent());
    try bed.pump(); // Asking again brings nothing.
    try expectEqual(receive_calls + reads_max, kernel.receive_calls);

    bed.connection.beginTurn(); // Nor does it take a wait to go on.
    try expect(!bed.connection.turnSpent());
    try bed.pump();
    try expectEqual(@as(usize, 4 * (reads_max + 2)), bed.seen.items.len);
    try expect(!bed.connection.turnSpent());
}

test "connection: readiness that was none is waited for again" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.then(.spurious);
    try bed.open();
    for (0..3) |_| kernel.then(.spurious);
    try bed.feed(&.{textFrame("x")});
    kernel.then(.spurious);
    try bed.drive();
    try bed.expectSeen(&.{.text("x")});
}

test "connection: fragments are joined, and control frames between them are dealt with" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    kernel.feedByteByByte(try bed.encode(&.{
        .{ .fin = false, .opcode = frames.text, .payload = "ab" },
        .{ .opcode = frames.ping, .payload = "p" },
        .{ .fin = false, .opcode = frames.continuation, .payload = "" },
        .{ .opcode = frames.pong, .payload = "q" },
        .{ .opcode = frames.continuation, .payload = "cd" },
        textFrame("ef"),
    }));
    try bed.drive();
    try bed.expectSeen(&.{
        .{ .message = .{ .opcode = .text, .payload = "abcd", .fragmented = true } },
        .text("ef"),
    });
    try bed.expectSent(&.{.{ .opcode = frames.pong, .payload = "p" }});
    try expectEqual(@as(u64, 1), bed.connection.counters.pings);
    try expectEqual(@as(u64, 1), bed.connection.counters.pongs);
}

test "connection: headers and pings between fragments do not fill the ring" {
    var options = websocket_options;
    options.receive_ring_capacity = 8 * 1024;
    options.message_size_max = 6 * 1024;
    var bed = try Bed.init(options);
    defer bed.deinit();
    try bed.open();
    const ping_payload: [125]u8 = @splat('p');
    const payload = try bed.arena().alloc(u8, options.message_size_max);
    for (payload, 0..) |*byte, index| byte.* = @intCast('a' + index % 26);
    for (0..2) |_| {
        var list: std.ArrayList(Frame) = .empty;
        for (0..payload.len / 4) |index| {
            try list.append(bed.arena(), .{
                .fin = index == payload.len / 4 - 1,
                .opcode = if (index == 0) frames.binary else frames.continuation,
                .payload = payload[4 * index ..][0..4],
            });
            try list.append(bed.arena(), .{ .opcode = frames.ping, .payload = &ping_payload });
        }
        try bed.feed(list.items);
        try bed.drive();
        try bed.expectSeen(&.{.{ .message = .{
            .opcode = .binary,
            .payload = payload,
            .fragmented = true,
        } }});
        try expectEqual(payload.len / 4, (try bed.takeSent()).len);
    }
}

test "connection: more is waiting only when a whole message is" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    const bytes = try bed.encode(&.{ textFrame("one"), textFrame("two"), textFrame("three") });
    kernel.feed(bytes[0 .. bytes.len - 1]);
    kernel.feed(bytes[bytes.len - 1 ..]);
    _ = try bed.connection.wait(null);
    const expected = [_]bool{ true, false };
    for (expected) |more| {
        try expect(try bed.connection.next() == .message);
        try expectEqual(more, bed.connection.moreWaiting());
    }
    try bed.drive();
    try bed.expectSeen(&.{.text("three")});
}

test "connection: kept bytes are not overwritten, and reading goes on when they are let go" {
    var options = websocket_options;
    options.receive_ring_capacity = bed_module.ring_capacity_min;
    options.message_size_max = 2 * bed_module.quarterOfRing().len;
    var bed = try Bed.init(options);
    defer bed.deinit();
    try bed.open();
    const ring = bed.connection.receive_ring.?;
    const payload: [100]u8 = @splat('k');
    const kept_frame: Frame = .{ .opcode = frames.binary, .payload = &payload };
    for (0..5) |round| {
        try bed.feed(&.{kept_frame});
        _ = try bed.connection.wait(null);
        const message = (try bed.connection.next()).message;
        var pin: Pin = undefined;
        ring.pin(&pin, message.payload);

        const other = bed_module.quarterOfRing();
        for (0..8) |_| try bed.feed(&.{.{ .opcode = frames.binary, .payload = other }});
        try testing.expectError(error.ReceiveRingPinned, bed.drive());
        try testing.expectError(error.ReceiveRingPinned, bed.drive());
        const before = bed.seen.items.len;
        try expect(before < 8);
        try testing.expectEqualStrings(&payload, message.payload);
        try bed.connection.send(.text, "alive"); // The other direction does not care.
        ring.unpin(&pin);
        try bed.drive();
        try expectEqual(@as(usize, 8), bed.seen.items.len);
        for (bed.seen.items) |seen| try expectEqualDeep(other, seen.message.payload);
        bed.seen.clearRetainingCapacity();
        try expectEqual(9 * (round + 1), bed.connection.counters.messages);
    }
}

test "connection: stamps of the kernel go with the messages of their read" {
    var options = websocket_options;
    options.timestamps = .software;
    options.socket.timestamps = .software;
    var bed = try Bed.init(options);
    defer bed.deinit();
    var latency: connection_module.Latency = .{};
    bed.connection.latency = &latency;
    try bed.open();
    try bed.feed(&.{textFrame("x")});
    kernel.stamp = .{ .source = .software, .realtime_ns = ScriptedOs.realtimeNs() - 700 };
    _ = try bed.connection.wait(null);
    try expect(try bed.connection.next() == .message);
    kernel.now_ns += 50;
    bed.connection.stampDelivery();
    const stamps = bed.connection.stamps;
    try expectEqual(@as(i64, 700), stamps.received_ns - stamps.kernel_ns);
    try expectEqual(stamps.received_cycles, stamps.decrypted_cycles);
    try expectEqual(@as(u64, 150), stamps.delivered_cycles - stamps.received_cycles);
    try expectEqual(@as(u64, 1), latency.total.count);

    kernel.stamp = .{};
    try bed.feed(&.{textFrame("y")});
    _ = try bed.connection.wait(null);
    try expect(try bed.connection.next() == .message);
    try expectEqual(@as(i64, 0), bed.connection.stamps.kernel_ns);
}

// ---- Sending. ----------------------------------------------------------------------------------

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
    try bed.connection.send(.text, "second"); // Tries, and queues behind the first.
    try expect(bed.connection.wantsWrite());
    try expectEqual(.ready, try bed.connection.wait(null));
    try expect(!bed.connection.wantsWrite());
    try bed.expectSent(&.{ textFrame("first"), textFrame("second") });
    try expectEqual(.timed_out, try bed.connection.wait(s));

    kernel.send_room = 0;
    try bed.connection.send(.text, "third");
    try expectEqual(.timed_out, try bed.connection.wait(s));
    try bed.feed(&.{textFrame("in between")});
    try bed.drive();
    try bed.expectSeen(&.{.text("in between")});
    kernel.send_room = 4;
    try expectEqual(.ready, try bed.connection.wait(null));
    try expect(bed.connection.wantsWrite());
    kernel.send_room = 1000;
    bed.connection.beginTurn(); // For an owner with a loop of its own.
    try expect(!bed.connection.wantsWrite());
    try bed.expectSent(&.{textFrame("third")});
}

test "connection: a full ring refuses a message whole" {
    var options = websocket_options;
    options.send_ring_capacity = bed_module.ring_capacity_min;
    var bed = try Bed.init(options);
    defer bed.deinit();
    try bed.open();
    const capacity = bed.connection.outbox.?.ring.capacity;
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
            const queued = bed.connection.outbox.?.ring.readable().len;
            bed.connection.send(.text, bytes[0..size]) catch |err| {
                try expectEqual(error.SendRingFull, err);
                try expectEqual(queued, bed.connection.outbox.?.ring.readable().len);
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
    const counters = bed.connection.counters;
    try expectEqual(@as(usize, 0), bed.connection.outbox.?.ring.readable().len);
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
    try expectEqual(@as(u64, 3), bed.connection.counters.messages_sent);
    try expectEqual(@as(u64, 305), bed.connection.counters.bytes_sent);
}

test "connection: nothing can be sent unless it is open" {
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

test "connection: masks are drawn anew, or zero when asked for" {
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

test "connection: after the sending half has died, what the peer said before is still heard" {
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
    // It may also be noticed while waiting; then the stream ends without a word.
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
        try expectEqual(@as(u64, 60), bed.connection.counters.pings);
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

// ---- Closing. ----------------------------------------------------------------------------------

test "connection: closed by us, and what still comes is dropped" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    bed.connection.close(4321, "enough");
    bed.connection.close(1000, "again"); // Says nothing twice.
    try bed.feed(&.{
        textFrame("late"),
        .{ .opcode = frames.ping, .payload = "p" },
        .{ .fin = false, .opcode = frames.text, .payload = "never" },
    });
    try bed.drive();
    try expectEqual(.closing, bed.connection.state);
    try expect(!kernel.send_side_shut); // The server closes TCP first (RFC 6455, section 7.1.1).
    try bed.feed(&.{closeFrame(4321, "so be it")});
    try bed.drive();
    try expect(kernel.send_side_shut);
    try expectEqual(.closing, bed.connection.state);
    kernel.then(.end);
    try bed.drive();
    try bed.expectSeen(&.{.{ .closed = .{
        .code = 4321,
        .reason = "so be it",
        .clean = true,
        .local = true,
    } }});
    try bed.expectSent(&.{closeFrame(4321, "enough")});
    try expectEqual(@as(u64, 1), bed.connection.counters.messages_dropped);
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
        // Nothing counts that comes after it.
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

test "connection: closed by both at once" {
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

test "connection: a peer that floods us cannot put off the end" {
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
            _ = try bed.connection.wait(null);
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
        try expectEqual(.closing, bed.connection.state);
        try expect(!kernel.send_side_shut); // What is queued comes before the end.
        kernel.send_room = 1000;
        try bed.drive();
        try expect(kernel.send_side_shut);
        kernel.then(.end);
        try bed.drive();
        try bed.expectSent(&.{ textFrame("order"), closeFrame(1000, "") });
        try bed.expectSeen(&.{.{ .closed = .{ .code = 1000, .clean = true, .local = local } }});
    }
}

test "connection: closing before it is open ends it at once, and not in the ordinary way" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    bed.connection.close(1000, "");
    bed.connection.abort();
    try expectEqual(.idle, bed.connection.state);
    for (0..2) |step| {
        for (0..2) |ending| {
            kernel.thenConnect(if (step == 0) .silent else .connected);
            try bed.start();
            try bed.pump();
            if (ending == 0) bed.connection.close(1000, "") else bed.connection.abort();
            try expectEqual(.closed, bed.connection.state);
            try expectEqual(lost_code, bed.connection.closed.?.code);
            try expect(!bed.connection.closed.?.isOrdinary());
            try expectEqual(null, bed.connection.failure);
            try expectEqual(.ready, try bed.connection.wait(null));
            try testing.expectError(error.Failed, bed.connection.next());
        }
    }
    bed.checked_size = kernel.sent.items.len;
    try bed.open();
    bed.connection.abort();
    try expectEqual(.closed, bed.connection.state);
    bed.connection.abort();
    bed.connection.close(1000, "");
    try bed.expectSent(&.{});
}

test "connection: a peer that breaks the protocol is told so, and the failure comes last" {
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
            try expectEqual(.closing, bed.connection.state);
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
            try bed.expectFailure(.{ .protocol = .{ .cause = case.cause, .code = case.code } });
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
    try bed.expectFailure(.{ .protocol = .{ .cause = error.ReservedOpcode, .code = 1000 } });
}

test "connection: bad text is told before its frame is whole" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    try bed.open();
    const bytes = try bed.encode(&.{textFrame("abc\xff and so on")});
    kernel.feed(bytes[0 .. 2 + 4]);
    try bed.drive();
    try expectEqual(.closing, bed.connection.state);
    try bed.expectSent(&.{closeFrame(1007, "")});
}

// ---- Ends. -------------------------------------------------------------------------------------

test "connection: the end of the stream before there was an answer" {
    const Ending = struct { step: ScriptedOs.ReceiveStep, cause: types.StreamEnd };
    for ([_]Ending{
        .{ .step = .end, .cause = .eof },
        .{
            .step = .{ .fails = error.ConnectionReset },
            .cause = .{ .receive = error.ConnectionReset },
        },
        .{ .step = .{ .fails = error.OutOfMemory }, .cause = .{ .receive = error.OutOfMemory } },
    }) |ending| {
        for ([_][]const u8{ "", "HTTP/1.1 101 Switching Pro" }) |part| {
            var bed = try Bed.init(websocket_options);
            defer bed.deinit();
            kernel.feed(part);
            kernel.then(ending.step);
            try bed.start();
            try bed.drive();
            try bed.expectFailure(.{ .ended = .{ .stage = .requesting, .cause = ending.cause } });
        }
    }
}

test "connection: the end of the stream without a close frame" {
    const Ending = struct { step: ScriptedOs.ReceiveStep, reason: []const u8 };
    for ([_]Ending{
        .{ .step = .end, .reason = eof_reason },
        .{ .step = .{ .fails = error.ConnectionReset }, .reason = reset_reason },
        .{ .step = .{ .fails = error.TimedOut }, .reason = "the TCP connection timed out" },
        .{ .step = .{ .fails = error.Unexpected }, .reason = "reading the socket failed" },
    }) |ending| {
        for ([_]usize{ 0, 1, 3 }) |rest_size| {
            var bed = try Bed.init(websocket_options);
            defer bed.deinit();
            try bed.open();
            const bytes = try bed.encode(&.{ textFrame("one"), textFrame("half") });
            kernel.feed(bytes[0 .. 5 + rest_size]);
            kernel.then(ending.step);
            try bed.drive();
            try bed.expectSeen(&.{.text("one")});
            try bed.expectFailure(lost(ending.reason));
            try expectEqualDeep(types.Closed{
                .code = lost_code,
                .reason = ending.reason,
                .clean = false,
            }, bed.connection.closed.?);
        }
    }
}

test "connection: the end of the stream while closing" {
    for ([_]ScriptedOs.ReceiveStep{ .end, .{ .fails = error.ConnectionReset } }) |step| {
        for ([_]bool{ false, true }) |answered| {
            var bed = try Bed.init(websocket_options);
            defer bed.deinit();
            try bed.open();
            bed.connection.close(1000, "");
            if (answered) try bed.feed(&.{closeFrame(1000, "")});
            kernel.then(step);
            try bed.drive();
            try bed.expectSeen(&.{.{ .closed = if (answered) .{
                .code = 1000,
                .clean = true,
                .local = true,
            } else .{
                .code = lost_code,
                .reason = "the peer hung up without a close frame",
                .clean = false,
                .local = true,
            } }});
        }
    }
}

test "connection: started again, it knows nothing of before" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    for (0..6) |round| {
        kernel.clear();
        try bed.open();
        try bed.connection.send(.text, "hello");
        try bed.expectSent(&.{textFrame("hello")});
        // Ends in a different way each time, with something half done.
        const bytes = try bed.encode(&.{
            textFrame("one"),
            .{ .fin = false, .opcode = frames.text, .payload = "half" },
        });
        kernel.feed(bytes[0 .. bytes.len - round % 2]);
        try bed.drive();
        try bed.expectSeen(&.{.text("one")});
        switch (round) {
            0, 1 => kernel.then(.end),
            2 => try bed.feed(&.{.{ .opcode = 7 }}),
            3 => {
                kernel.send_room = 0;
                try bed.connection.send(.text, "never");
                kernel.then(.{ .fails = error.ConnectionReset });
            },
            4 => try bed.feed(&.{closeFrame(1001, "")}),
            else => bed.connection.abort(),
        }
        kernel.then(.end);
        try bed.drive();
        try expect(bed.isOver());
        try expectEqual(round < 4, bed.failed);
        kernel.send_room = std.math.maxInt(usize);
        bed.seen.clearRetainingCapacity();
        try expectEqual(@as(u64, round + 1), bed.connection.counters.messages);
    }
}

test "connection: kept bytes outlive a new start and the connection" {
    var pins: [2]Pin = undefined;
    var payloads: [2][]const u8 = undefined;
    var rings: [2]*RingBuffer = undefined;
    {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        for (&pins, &payloads, &rings) |*pin, *payload, *ring| {
            kernel.clear();
            try bed.open();
            try bed.feed(&.{textFrame("kept")});
            _ = try bed.connection.wait(null);
            payload.* = (try bed.connection.next()).message.payload;
            ring.* = bed.connection.receive_ring.?;
            ring.*.pin(pin, payload.*);
            kernel.then(.end);
            try bed.drive();
        }
        try expect(rings[0] != rings[1]);
    }
    for (&pins, payloads, rings) |*pin, payload, ring| {
        try testing.expectEqualStrings("kept", payload);
        ring.unpin(pin);
    }
}

// ---- Plain responses. --------------------------------------------------------------------------

const Body = struct { head: []const u8, bytes: []const u8, decoded: []const u8 };
const bodies = [_]Body{
    .{ .head = "Content-Length: 10", .bytes = "0123456789", .decoded = "0123456789" },
    .{
        .head = "Transfer-Encoding: chunked",
        .bytes = "4\r\n0123\r\n6;x=y\r\n456789\r\n0\r\nT: x\r\n\r\n",
        .decoded = "0123456789",
    },
};

fn responseOf(bed: *Bed, comptime status: []const u8, body: Body) ![]const u8 {
    const format = "HTTP/1.1 " ++ status ++ "\r\n{s}\r\n\r\n{s}";
    return bed.arena().print(format, .{ body.head, body.bytes });
}

test "connection: a plain response, however it is cut, without waiting for the end" {
    for (bodies) |body| {
        var cut: usize = 0;
        while (true) : (cut += 1) {
            var bed = try Bed.init(get_options);
            defer bed.deinit();
            const bytes = try responseOf(&bed, "200 OK", body);
            if (cut > bytes.len) break;
            kernel.feed("HTTP/1.1 103 Early Hints\r\n\r\n");
            kernel.feed(bytes[0..cut]);
            kernel.feed(bytes[cut..]);
            try bed.start();
            try bed.drive();
            try expectEqualDeep(Seen{ .response = 200 }, bed.seen.items[0]);
            try testing.expectEqualStrings(body.decoded, try bed.body());
            try expectEqualDeep(Seen{ .finished = true }, bed.seen.items[bed.seen.items.len - 1]);
            try expect(std.mem.startsWith(u8, kernel.sent.items, "GET /book HTTP/1.1\r\n"));
            try expectEqual(.closed, bed.connection.state);
        }
        var bed = try Bed.init(get_options);
        defer bed.deinit();
        kernel.feedByteByByte(try responseOf(&bed, "200 OK", body));
        try bed.start();
        try bed.drive();
        try testing.expectEqualStrings(body.decoded, try bed.body());
    }
}

test "connection: a plain response that is cut off" {
    for (bodies) |body| {
        for ([_]ScriptedOs.ReceiveStep{ .end, .{ .fails = error.ConnectionReset } }) |step| {
            for (0..body.bytes.len) |size| {
                var bed = try Bed.init(get_options);
                defer bed.deinit();
                const bytes = try responseOf(&bed, "200 OK", body);
                kernel.feed(bytes[0 .. bytes.len - body.bytes.len + size]);
                kernel.then(step);
                try bed.start();
                try bed.drive();
                try bed.expectFailure(.{ .body = error.Truncated });
                try expect(std.mem.startsWith(u8, body.decoded, try bed.body()));
            }
        }
    }
}

test "connection: a plain response that lasts until the end of the stream" {
    for ([_]bool{ true, false }) |whole| {
        var bed = try Bed.init(get_options);
        defer bed.deinit();
        kernel.feed("HTTP/1.1 200 OK\r\n\r\nsome");
        kernel.feed(" bytes");
        kernel.then(if (whole) .end else .{ .fails = error.ConnectionReset });
        try bed.start();
        try bed.drive();
        try testing.expectEqualStrings("some bytes", try bed.body());
        if (whole) {
            try expectEqualDeep(Seen{ .finished = true }, bed.seen.items[bed.seen.items.len - 1]);
            try expect(!bed.failed);
        } else try bed.expectFailure(.{ .body = error.Truncated });
    }
}

test "connection: a plain response without a body, and one that makes no sense" {
    {
        var bed = try Bed.init(get_options);
        defer bed.deinit();
        kernel.feed("HTTP/1.1 204 No Content\r\n\r\n");
        try bed.start();
        try bed.drive();
        try bed.expectSeen(&.{ .{ .response = 204 }, .{ .finished = true } });
    }
    {
        var bed = try Bed.init(get_options);
        defer bed.deinit();
        kernel.feed("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n");
        try bed.start();
        try bed.drive();
        try bed.expectFailure(.{ .body = error.InvalidContentLength });
    }
    var bed = try Bed.init(get_options);
    defer bed.deinit();
    kernel.feed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense");
    try bed.start();
    try bed.drive();
    try bed.expectFailure(.{ .body = error.MalformedChunkSize });
    try testing.expectEqualStrings("abc", try bed.body());
}

test "connection: a refused upgrade gives the response and as much of its body as comes" {
    for (bodies) |body| {
        for ([_]bool{ true, false }) |whole| {
            var bed = try Bed.init(websocket_options);
            defer bed.deinit();
            const bytes = try responseOf(&bed, "429 Too Many Requests", body);
            kernel.feedByteByByte(bytes[0 .. bytes.len - if (whole) 0 else body.bytes.len - 5]);
            kernel.then(.end);
            try bed.start();
            try bed.drive();
            try expect(!bed.failed);
            try expectEqualDeep(Seen{ .response = 429 }, bed.seen.items[0]);
            try expectEqualDeep(Seen{ .finished = whole }, bed.seen.items[bed.seen.items.len - 1]);
            try expect(std.mem.startsWith(u8, body.decoded, try bed.body()));
            if (whole) try testing.expectEqualStrings(body.decoded, try bed.body());
            try testing.expectError(error.NotOpen, bed.connection.send(.text, "x"));
            try expectRefused(&bed);
        }
    }
}

/// A refusal is a failure, even if its response came whole: whoever asks later is told so.
fn expectRefused(bed: *Bed) !void {
    try expectEqual(.closed, bed.connection.state);
    try expectEqualDeep(types.Failure.refused, bed.connection.failure.?);
    try expectEqualDeep(types.Closed{ .code = 1006, .clean = false }, bed.connection.closed.?);
    try testing.expectError(error.Failed, bed.connection.next());
}

test "connection: the body of a refusal need not be read to its end" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.feed("HTTP/1.1 403 Forbidden\r\n\r\nendless");
    try bed.start();
    try bed.drive();
    try bed.expectSeen(&.{ .{ .response = 403 }, .{ .body = "endless" } });
    bed.connection.skipBody();
    try expectRefused(&bed);
}

test "connection: a refusal is forgotten by the next start, even one without memory" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.feed("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    try bed.start();
    try bed.drive();
    try expectRefused(&bed);

    bed.connection.releaseRings();
    kernel.maps_left = 0;
    try testing.expectError(error.OutOfMemory, bed.connection.start());
    try expectEqual(null, bed.connection.failure); // Its response is the owner's no more.
    try expect(!bed.connection.closed.?.isOrdinary());
}

test "connection: a body much larger than the ring" {
    var options = get_options;
    options.receive_ring_capacity = 8 * 1024;
    var bed = try Bed.init(options);
    defer bed.deinit();
    const size = 300_000;
    const content = try bed.arena().alloc(u8, size);
    for (content, 0..) |*byte, index| byte.* = @truncate(index *% 31);
    kernel.feed("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n");
    kernel.feed(content);
    try bed.start();
    try bed.drive();
    try testing.expectEqualSlices(u8, content, try bed.body());
}

test "connection: a refused upgrade whose body makes no sense is refused all the same" {
    for ([_][]const u8{
        "Content-Length: x\r\n\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "Transfer-Encoding: chunked\r\n\r\nnonsense",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense",
    }) |rest| {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        kernel.feed("HTTP/1.1 503 Service Unavailable\r\n");
        kernel.feed(rest);
        kernel.then(.end);
        try bed.start();
        try bed.drive();
        try expect(!bed.failed);
        try expectEqual(.closed, bed.connection.state);
        try expectEqualDeep(Seen{ .response = 503 }, bed.seen.items[0]);
        try expect(bed.seen.items[bed.seen.items.len - 1] == .finished);
        const readable = std.mem.find(u8, rest, "hello") != null;
        try testing.expectEqualStrings(if (readable) "hello" else "", try bed.body());
        try expectRefused(&bed);
    }
}

// ---- Busy waiting. -----------------------------------------------------------------------------

test "connection: busy waiting does the same without the notifier" {
    var options = websocket_options;
    options.busy_poll = true;
    var bed = try Bed.init(options);
    defer bed.deinit();
    kernel.spins_allowed = true;
    kernel.thenConnect(.{ .answered = .{ .after_ns = 1000 } });
    try bed.open();
    const wait_calls = kernel.wait_calls;
    try expectEqual(.timed_out, try bed.connection.wait(null)); // The owner gets its turn.
    kernel.then(.{ .pause_ns = 300_000 });
    try bed.feed(&.{ textFrame("one"), .{ .opcode = frames.ping, .payload = "p" } });
    kernel.send_room = 0;
    try bed.connection.send(.text, "order");
    try bed.drive();
    try bed.expectSeen(&.{.text("one")});
    kernel.send_room = 1000;
    try expectEqual(.timed_out, try bed.connection.wait(0));
    try bed.expectSent(&.{ textFrame("order"), .{ .opcode = frames.pong, .payload = "p" } });

    bed.connection.close(1000, "");
    const start_ns = kernel.now_ns;
    try bed.driveToEnd();
    try expect(kernel.now_ns - start_ns >= 2 * s);
    try expect(kernel.now_ns - start_ns < 3 * s);
    try expectEqual(wait_calls, kernel.wait_calls);
    try bed.expectSeen(&.{.{ .closed = .{
        .code = lost_code,
        .reason = "the peer did not answer the close frame in time",
        .clean = false,
        .local = true,
    } }});

    try bed.open();
    try bed.feed(&.{textFrame("two")});
    kernel.then(.end);
    try bed.drive();
    try bed.expectFailure(lost(eof_reason));
}

test "connection: waiting twice loses nothing, with and without busy waiting" {
    for ([_]bool{ false, true }) |busy_poll| {
        var options = websocket_options;
        options.busy_poll = busy_poll;
        var bed = try Bed.init(options);
        defer bed.deinit();
        kernel.spins_allowed = busy_poll;
        try bed.open();
        try bed.feed(&.{textFrame("one")});
        try bed.feed(&.{textFrame("two")});
        try bed.feed(&.{textFrame("three")});
        kernel.then(.end);
        for (0..3) |_| try expectEqual(.ready, try bed.connection.wait(null));
        try bed.driveToEnd();
        try bed.expectSeen(&.{ .text("one"), .text("two"), .text("three") });
        try bed.expectFailure(lost(eof_reason));
    }
}

test "connection: busy waiting writes over nothing that is kept" {
    var options = websocket_options;
    options.busy_poll = true;
    var payload_most: [bed_module.page_size_max]u8 = undefined;
    const payload = payload_most[0..bed_module.quarterOfRing().len];
    options.receive_ring_capacity = bed_module.ring_capacity_min;
    options.message_size_max = 2 * payload.len;
    var bed = try Bed.init(options);
    defer bed.deinit();
    kernel.spins_allowed = true;
    try bed.open();
    const ring = bed.connection.receive_ring.?;
    var pin: Pin = undefined;
    for (0..8) |index| {
        @memset(payload, @intCast('a' + index));
        try bed.feed(&.{textFrame(payload)});
    }
    _ = try bed.connection.wait(null);
    ring.pin(&pin, (try bed.connection.next()).message.payload);
    try testing.expectError(error.ReceiveRingPinned, bed.drive());
    // An owner who waits nevertheless, or has a loop of its own, is told the same again.
    for (0..3) |_| {
        try expectEqual(.ready, try bed.connection.wait(null));
        try testing.expectError(error.ReceiveRingPinned, bed.pump());
        bed.connection.beginTurn();
        try testing.expectError(error.ReceiveRingPinned, bed.pump());
    }
    ring.unpin(&pin);
    try bed.drive();
    try expectEqual(@as(usize, 7), bed.seen.items.len);
    for (bed.seen.items, 1..) |seen, index| {
        @memset(payload, @intCast('a' + index));
        try expectEqualDeep(Seen.text(payload), seen);
    }
}

// ---- At random. --------------------------------------------------------------------------------

/// Mostly small, now and then up to the limit.
fn randomSize(random: std.Random, limit: usize) usize {
    const bound: usize = switch (random.uintLessThan(u8, 8)) {
        0...3 => 20,
        4...5 => 200,
        6 => 2000,
        else => limit,
    };
    return random.uintAtMost(usize, @min(bound, limit));
}

/// What a server says, as frames, and what a client has to make of it.
const Speech = struct {
    arena: std.mem.Allocator,
    random: std.Random,
    frames: std.ArrayList(Frame) = .empty,
    expected: std.ArrayList(Seen) = .empty,
    pings: std.ArrayList([]const u8) = .empty,

    fn addMessage(speech: *Speech, size_max: usize) !void {
        const random = speech.random;
        const payload = try speech.arena.alloc(u8, randomSize(random, size_max));
        for (payload) |*byte| byte.* = random.intRangeAtMost(u8, ' ', '~');
        const opcode: ws.Opcode = if (random.boolean()) .text else .binary;
        const fragmented = random.uintLessThan(u8, 3) == 0;
        try speech.expected.append(speech.arena, .{ .message = .{
            .opcode = opcode,
            .payload = payload,
            .fragmented = fragmented,
        } });
        var rest: []const u8 = payload;
        var first = true;
        while (true) {
            const last = !fragmented or (!first and random.uintLessThan(u8, 4) == 0);
            const size = if (last) rest.len else random.uintAtMost(usize, rest.len);
            try speech.frames.append(speech.arena, .{
                .fin = last,
                .opcode = if (first) @backingInt(opcode) else frames.continuation,
                .payload = rest[0..size],
            });
            if (last) return;
            rest = rest[size..];
            first = false;
            try speech.maybePing();
        }
    }

    fn maybePing(speech: *Speech) !void {
        if (speech.random.uintLessThan(u8, 5) != 0) return;
        const payload = try speech.arena.alloc(u8, speech.random.uintAtMost(usize, 125));
        speech.random.bytes(payload);
        const is_ping = speech.random.boolean();
        const opcode: u4 = if (is_ping) frames.ping else frames.pong;
        try speech.frames.append(speech.arena, .{ .opcode = opcode, .payload = payload });
        if (is_ping) try speech.pings.append(speech.arena, payload);
    }
};

/// Hands the bytes to the kernel in pieces of any size, with pauses and false alarms in between.
fn feedAtRandom(random: std.Random, bytes: []const u8) void {
    var rest = bytes;
    while (rest.len > 0) {
        const size = @min(rest.len, 1 + randomSize(random, 10_000));
        kernel.feed(rest[0..size]);
        rest = rest[size..];
        switch (random.uintLessThan(u8, 6)) {
            0 => kernel.then(.{ .pause_ns = random.uintAtMost(u64, s) }),
            1 => kernel.then(.spurious),
            else => {},
        }
    }
}

fn scriptSendsAtRandom(random: std.Random, count: usize) void {
    for (0..count) |_| {
        if (random.uintLessThan(u8, 3) == 0) {
            kernel.thenSend(.would_block);
        } else kernel.thenSend(.{ .takes = 1 + randomSize(random, 5000) });
    }
}

/// Sends a message, in one of the two ways. Null when there was no room for it.
fn sendAtRandom(bed: *Bed, random: std.Random) !?Frame {
    const payload = try bed.arena().alloc(u8, randomSize(random, 5000));
    random.bytes(payload);
    const opcode: ws.Opcode = if (random.boolean()) .text else .binary;
    const frame: Frame = .{ .opcode = @backingInt(opcode), .payload = payload };
    if (random.boolean()) {
        bed.connection.send(opcode, payload) catch |err| {
            try expectEqual(error.SendRingFull, err);
            return null;
        };
        return frame;
    }
    const place = bed.connection.reserve(opcode, payload.len) catch |err| {
        try expectEqual(error.SendRingFull, err);
        return null;
    };
    @memcpy(place, payload);
    if (random.uintLessThan(u8, 8) == 0) {
        bed.connection.cancel();
        return null;
    }
    try bed.connection.commit();
    return frame;
}

/// Messages are all there, in order; pongs answer pings in order, the newest one for sure.
fn expectConversation(
    bed: *Bed,
    messages: []const Frame,
    pings: []const []const u8,
) !void {
    var messages_count: usize = 0;
    var pings_count: usize = 0;
    for (try bed.takeSent()) |frame| switch (frame.opcode) {
        frames.text, frames.binary => {
            try expectEqualDeep(messages[messages_count], frame);
            messages_count += 1;
        },
        frames.pong => {
            while (!std.mem.eql(u8, pings[pings_count], frame.payload)) pings_count += 1;
            pings_count += 1;
        },
        else => return error.UnexpectedFrame,
    };
    try expectEqual(messages.len, messages_count);
    try expectEqual(pings.len, pings_count);
}

fn converseAtRandom(seed: u64) !void {
    var prng: std.Random.DefaultPrng = .init(seed);
    const random = prng.random();
    var options = websocket_options;
    if (random.boolean()) {
        options.receive_ring_capacity = bed_module.ring_capacity_min;
        options.message_size_max = 3500;
    }
    if (random.boolean()) options.send_ring_capacity = 8192;
    var bed = try Bed.initSeeded(options, seed);
    defer bed.deinit();
    scriptSendsAtRandom(random, 3);
    try bed.open();

    var speech: Speech = .{ .arena = bed.arena(), .random = random };
    for (0..20) |_| {
        try speech.addMessage(options.message_size_max);
        try speech.maybePing();
    }
    feedAtRandom(random, try bed.encode(speech.frames.items));
    scriptSendsAtRandom(random, 40);
    var messages: std.ArrayList(Frame) = .empty;
    for (0..60) |_| switch (random.uintLessThan(u8, 4)) {
        0 => try bed.pump(),
        1 => _ = try bed.connection.wait(random.uintAtMost(u64, s)),
        2 => if (try sendAtRandom(&bed, random)) |frame| try messages.append(bed.arena(), frame),
        else => {
            bed.connection.beginTurn();
            kernel.drained = false; // The owner has a loop of its own, and that looked.
            try bed.pump();
        },
    };
    try bed.drive();
    try bed.expectSeen(speech.expected.items);
    try expectConversation(&bed, messages.items, speech.pings.items);
}

test "connection: random messages both ways, however they are cut, arrive as they were sent" {
    for (0..400) |seed| {
        errdefer std.debug.print("seed {d}\n", .{seed});
        try converseAtRandom(seed);
    }
}

/// One of the things that may happen at any time.
fn happenAtRandom(bed: *Bed, random: std.Random) !void {
    switch (random.uintLessThan(u8, 24)) {
        0 => kernel.thenSend(.{ .fails = switch (random.uintLessThan(u8, 3)) {
            0 => error.BrokenPipe,
            1 => error.OutOfMemory,
            else => error.Unexpected,
        } }),
        1 => kernel.then(.{ .fails = switch (random.uintLessThan(u8, 3)) {
            0 => error.ConnectionReset,
            1 => error.OutOfMemory,
            else => error.Unexpected,
        } }),
        2 => kernel.then(.end),
        3 => kernel.interrupts += 1,
        4 => kernel.send_room = randomSize(random, 1000),
        5 => kernel.watch_failure = if (random.boolean()) error.OutOfMemory else null,
        6 => kernel.wait_failure = if (random.boolean()) error.Unexpected else null,
        7 => bed.connection.close(1000, "at random"),
        8 => if (random.uintLessThan(u8, 8) == 0) bed.connection.abort(),
        9 => {
            var garbage: [40]u8 = undefined;
            random.bytes(&garbage);
            kernel.feed(garbage[0..randomSize(random, garbage.len)]);
        },
        10 => try bed.feed(&.{closeFrame(1011, "at random")}),
        11...13 => try bed.feed(&.{.{ .opcode = frames.ping, .payload = "p" }}),
        14...17 => try bed.feed(&.{ textFrame("abc"), textFrame("def") }),
        18, 19 => scriptSendsAtRandom(random, 3),
        20 => kernel.then(.{ .pause_ns = s }),
        21 => kernel.then(.spurious),
        22 => kernel.now_ns += random.uintAtMost(u64, s),
        else => kernel.send_room = std.math.maxInt(usize),
    }
}

/// One of the things that an owner may do at any time.
fn actAtRandom(bed: *Bed, random: std.Random) !void {
    switch (random.uintLessThan(u8, 5)) {
        0, 1 => if (!bed.isOver()) try bed.pump(),
        2 => if (!bed.isOver()) {
            _ = bed.connection.wait(random.uintAtMost(u64, s)) catch |err| {
                try expectEqual(error.SystemResources, err);
            };
        },
        3 => bed.connection.send(.text, "order") catch |err| switch (err) {
            error.NotOpen, error.Disconnected, error.SendRingFull => {},
            error.Reserved => return err,
        },
        else => {
            const place = bed.connection.reserve(.binary, 10) catch |err| switch (err) {
                error.NotOpen, error.Disconnected, error.SendRingFull => return,
                error.Reserved => return err,
            };
            @memset(place, 0);
            if (random.boolean()) return bed.connection.cancel();
            bed.connection.commit() catch |err| try expectEqual(error.Disconnected, err);
        },
    }
}

fn sufferAtRandom(seed: u64) !void {
    var prng: std.Random.DefaultPrng = .init(seed);
    const random = prng.random();
    var options = if (random.uintLessThan(u8, 4) == 0) get_options else websocket_options;
    options.send_ring_capacity = bed_module.ring_capacity_min;
    options.receive_ring_capacity = 8192;
    options.message_size_max = 4000;
    var bed = try Bed.initSeeded(options, seed);
    defer bed.deinit();
    for (0..3) |_| {
        kernel.clear();
        kernel.watch_failure = null;
        kernel.wait_failure = null;
        if (random.boolean()) kernel.thenConnect(.{ .answered = .{ .after_ns = s } });
        try bed.start();
        if (random.uintLessThan(u8, 4) != 0) {
            try bed.drive();
            if (!bed.isOver() and options.purpose == .websocket) {
                kernel.feed(try bed.upgradeResponse());
            } else kernel.feed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n");
        }
        for (0..random.uintAtMost(usize, 60)) |_| {
            if (random.boolean()) try happenAtRandom(&bed, random);
            try actAtRandom(&bed, random);
        }
        kernel.watch_failure = null;
        kernel.wait_failure = null;
        kernel.interrupts = 0;
        kernel.then(.end);
        try bed.driveToEnd();
        try expectEqual(.closed, bed.connection.state);
        try expect(bed.connection.closed != null);
    }
}

test "connection: whatever fails and whenever, it ends with a reason" {
    for (0..2000) |seed| {
        errdefer std.debug.print("seed {d}\n", .{seed});
        try sufferAtRandom(seed);
    }
}
