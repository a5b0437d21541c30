//! Tests of `connection.zig` on a scripted kernel: name look-up, addresses, request and upgrade.

const std = @import("std");
const constants = @import("../constants.zig");
const os = @import("../os.zig");
const ws = @import("../ws.zig");
const types = @import("types.zig");
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
const Connection = bed_module.Connection;
const Seen = bed_module.Seen;
const closeFrame = bed_module.closeFrame;
const textFrame = bed_module.textFrame;
const websocket_options = bed_module.websocket_options;
const Frame = frames.Frame;

test "connection: opens, receives a message, sends one, and both sides close" {
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
    }, bed.connection.transport.counters);
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

test "connection: frames in the same read as the response are not lost" {
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

/// The addresses from 192.0.2.1 on, as many as `count`.
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

test "connection: when no address connects, the failure is that of the last one" {
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

test "connection: a failure while connecting is reported, and leaves nothing open" {
    {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        kernel.resolve_failure = error.TemporaryFailure;
        try bed.start();
        try bed.driveToEnd();
        try bed.expectFailure(.{ .resolve = error.TemporaryFailure });
        kernel.resolve_failure = null;
        kernel.addresses.count = 0;
        try bed.start();
        try bed.driveToEnd();
        try bed.expectFailure(.{ .resolve = error.NameNotFound });
        try expectEqual(.ready, try bed.waitFor(null));
    }
    {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        kernel.open_failure = error.TooManyOpenFiles;
        try bed.start();
        try bed.driveToEnd();
        try bed.expectFailure(.{ .open_socket = .{ .cause = error.TooManyOpenFiles } });
    }
    {
        var bed = try Bed.init(websocket_options);
        defer bed.deinit();
        kernel.option_failure = error.PermissionDenied;
        try bed.start();
        try bed.driveToEnd();
        try bed.expectFailure(.{ .open_socket = .{ .cause = error.PermissionDenied } });
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
    try testing.expectError(error.TooManyOpenFiles, bed_module.Loop.init());
    ScriptedOs.deinit();
}

test "connection: a wait before the first call of next is harmless" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.thenConnect(.{ .answered = .{} });
    try bed.start();
    _ = try bed.waitFor(0);
    _ = try bed.waitFor(null);
    try bed.drive();
    kernel.feed(try bed.upgradeResponse());
    try bed.drive();
    try bed.expectSeen(&.{.{ .opened = 101 }});
}

test "connection: the request is sent in pieces" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.thenSend(.{ .takes = 10 });
    kernel.thenSend(.would_block);
    for (0..100) |_| kernel.thenSend(.{ .takes = 1 });
    kernel.thenSend(.would_block);
    kernel.thenSend(.would_block);
    try bed.open();
}

test "connection: the response to the upgrade is checked" {
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
        const key = bed.connection.lifecycle.opening.handshake_key;
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
    try testing.expectEqualStrings("sbe", bed.connection.subprotocol().?);
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
