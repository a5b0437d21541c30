//! Tests of `connection.zig` on a scripted kernel: responses that are not an upgrade, and bodies.

const std = @import("std");
const types = @import("types.zig");
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const expectEqualDeep = testing.expectEqualDeep;
const kernel = &ScriptedOs.kernel;
const Bed = bed_module.Bed;
const Seen = bed_module.Seen;
const get_options = bed_module.get_options;
const websocket_options = bed_module.websocket_options;

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

test "connection: a plain response in pieces of any size, without waiting for the end of stream" {
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
            try expectEqual(.closed, bed.connection.state());
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

test "connection: a plain response whose body ends with the stream" {
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

test "connection: a plain response without a body, and invalid ones" {
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

test "connection: a refused upgrade returns the response and as much of its body as arrives" {
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

/// A refusal is a failure, even if its response is whole; later calls report it, too.
fn expectRefused(bed: *Bed) !void {
    try expectEqual(.closed, bed.connection.state());
    try expectEqualDeep(types.Failure.refused, bed.connection.failure().?);
    try expectEqualDeep(types.Closed{ .code = 1006, .clean = false }, bed.connection.closed().?);
    try testing.expectError(error.Failed, bed.connection.next());
}

test "connection: the body of a refused upgrade can be skipped" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.feed("HTTP/1.1 403 Forbidden\r\n\r\nendless");
    try bed.start();
    try bed.drive();
    try bed.expectSeen(&.{ .{ .response = 403 }, .{ .body = "endless" } });
    bed.connection.skipBody();
    try expectRefused(&bed);
}

test "connection: the next start clears a refusal, even a start that has no memory" {
    var bed = try Bed.init(websocket_options);
    defer bed.deinit();
    kernel.feed("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    try bed.start();
    try bed.drive();
    try expectRefused(&bed);

    bed.connection.releaseRings();
    kernel.maps_left = 0;
    try testing.expectError(error.OutOfMemory, bed.connection.start());
    try expectEqual(null, bed.connection.failure()); // The owner has dropped its response.
    try expect(!bed.connection.closed().?.isOrdinary());
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

test "connection: a refused upgrade with an invalid body is still reported as refused" {
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
        try expectEqual(.closed, bed.connection.state());
        try expectEqualDeep(Seen{ .response = 503 }, bed.seen.items[0]);
        try expect(bed.seen.items[bed.seen.items.len - 1] == .finished);
        const readable = std.mem.find(u8, rest, "hello") != null;
        try testing.expectEqualStrings(if (readable) "hello" else "", try bed.body());
        try expectRefused(&bed);
    }
}
