//! Tests of `socket.zig` on this machine's kernel.

const std = @import("std");
const constants = @import("constants.zig");
const os = @import("os.zig");
const ScriptedOs = @import("testing/scripted_os.zig");
const TestListener = @import("testing/listener.zig").TestListener;
const socket_module = @import("socket.zig");
const Address = os.Address;
const Option = socket_module.Option;
const Options = socket_module.Options;
const SocketType = socket_module.SocketType;

const testing = std.testing;
const RealOs = os.Os;
const RealSocket = SocketType(RealOs);

/// A connected socket and its peer. It waits by poll(2), without a notifier.
const TestPair = struct {
    socket: RealSocket,
    server: os.Descriptor,
    address: Address,

    fn open(options: Options) !TestPair {
        const listener: TestListener = .open(true);
        defer listener.deinit();
        var refused: ?Option = null;
        var socket: RealSocket = try .open(&listener.address, options, &refused);
        errdefer socket.close();
        switch (try socket.connect(&listener.address)) {
            .connected => {},
            .in_progress => {
                try waitFor(socket.descriptor, std.c.POLL.OUT);
                try socket.finishConnect();
            },
        }
        return .{ .socket = socket, .server = listener.accept(), .address = listener.address };
    }

    fn deinit(pair: *TestPair) void {
        pair.socket.close();
        RealOs.close(pair.server);
    }

    fn give(pair: *const TestPair, bytes: []const u8) !void {
        try testing.expectEqual(bytes.len, try RealOs.send(pair.server, bytes));
        try waitFor(pair.socket.descriptor, std.c.POLL.IN);
    }
};

/// Waits until the kernel has brought the event; 10 s are never reached.
fn waitFor(descriptor: os.Descriptor, events: i16) !void {
    var list: [1]std.c.pollfd = .{.{ .fd = descriptor, .events = events, .revents = 0 }};
    try testing.expectEqual(@as(c_int, 1), std.c.poll(&list, 1, 10_000));
}

test "socket: connects, sends, receives, and sees the end of the stream" {
    var pair: TestPair = try .open(.{});
    defer pair.deinit();
    var buffer: [16]u8 = undefined;
    try testing.expectError(error.WouldBlock, pair.socket.receive(&buffer, null));
    try testing.expectEqual(@as(usize, 5), try pair.socket.send("hello"));
    try testing.expectEqual(@as(usize, 5), try RealOs.receive(pair.server, &buffer, null));
    try testing.expectEqualStrings("hello", buffer[0..5]);

    try pair.give("world");
    var stamp: os.KernelStamp = .{ .source = .hardware, .realtime_ns = 1 };
    try testing.expectEqual(@as(usize, 5), try pair.socket.receive(&buffer, &stamp));
    try testing.expectEqualStrings("world", buffer[0..5]);
    // No stamps were asked for: the result is `none` rather than the caller's old value.
    try testing.expectEqual(os.KernelStamp{}, stamp);

    pair.socket.shutdownSend();
    try testing.expectEqual(@as(usize, 0), try RealOs.receive(pair.server, &buffer, null));
    RealOs.shutdownSend(pair.server);
    try waitFor(pair.socket.descriptor, std.c.POLL.IN);
    try testing.expectEqual(@as(usize, 0), try pair.socket.receive(&buffer, null));
}

test "socket: TCP_NODELAY and keep-alive are on by default, sizes and addresses are as asked for" {
    const local = Address.parse("127.0.0.1", 0).?;
    var pair: TestPair = try .open(.{
        .local_address = local,
        .receive_buffer_size = 64 * 1024,
        .send_buffer_size = 96 * 1024,
    });
    defer pair.deinit();
    const options = pair.socket.kernelOptions();
    try testing.expect(options.no_delay);
    try testing.expectEqual(constants.peer_timeout_ms_default / 1000, options.peer_timeout_s);
    try testing.expect(options.receive_buffer_size >= 64 * 1024);
    try testing.expect(options.send_buffer_size >= 96 * 1024);
    try testing.expect(options.receive_buffer_size < options.send_buffer_size);
    try testing.expect(pair.socket.peerAddress().?.equal(&pair.address));
    const bound = pair.socket.localAddress().?;
    try testing.expect(RealOs.peerAddress(pair.server).?.equal(&bound));
}

test "socket: kernel stamps and quick acknowledgements, where there are any" {
    if (@import("builtin").os.tag != .linux) {
        const address = Address.parse("127.0.0.1", 0).?;
        var refused: ?Option = null;
        const result = RealSocket.open(&address, .{ .quick_ack = true }, &refused);
        try testing.expectError(error.Unsupported, result);
        try testing.expectEqual(.quick_ack, refused);
        return;
    }
    var pair: TestPair = try .open(.{ .timestamps = .software, .quick_ack = true });
    defer pair.deinit();
    try testing.expectEqual(true, pair.socket.kernelOptions().quick_ack.?);
    if (@import("test_options").emulated) return; // It hands no stamps on.
    var buffer: [16]u8 = undefined;
    var stamp: os.KernelStamp = .{};
    // The kernel starts to stamp in the background: the first segments may have none.
    const deadline_ns = RealOs.monotonicNs() + 10 * std.time.ns_per_s;
    while (stamp.source == .none and RealOs.monotonicNs() < deadline_ns) {
        try pair.give("x");
        try testing.expectEqual(@as(usize, 1), try pair.socket.receive(&buffer, &stamp));
    }
    try testing.expectEqual(os.KernelStamp.Source.software, stamp.source);
    try testing.expect(stamp.realtime_ns <= RealOs.realtimeNs());
}

test "socket: an option that the system lacks is an error, and leaks no descriptor" {
    const address = Address.parse("127.0.0.1", 0).?;
    const descriptor_next = try RealOs.openSocket(&address);
    RealOs.close(descriptor_next);

    const foreign = Address.parse("192.0.2.1", 0).?;
    var refused: ?Option = null;
    const foreign_result = RealSocket.open(&address, .{ .local_address = foreign }, &refused);
    try testing.expectError(error.AddressNotAvailable, foreign_result);
    try testing.expectEqual(.local_address, refused);
    const ipv6 = Address.parse("::1", 0).?;
    const ipv6_result = RealSocket.open(&address, .{ .local_address = ipv6 }, &refused);
    try testing.expectError(error.AddressFamilyNotSupported, ipv6_result);
    if (RealSocket.open(&address, .{ .interface = "no-such-device" }, &refused)) |_| {
        return error.TestUnexpectedResult;
    } else |failure| switch (failure) {
        error.InterfaceNotFound, error.AccessDenied => {
            try testing.expectEqual(.interface, refused);
        },
        else => return failure,
    }
    const descriptor = try RealOs.openSocket(&address);
    defer RealOs.close(descriptor);
    try testing.expectEqual(descriptor_next, descriptor);
}

test "socket: an interface of this machine carries the connection" {
    const name = if (@import("builtin").os.tag == .macos) "lo0" else "lo";
    var pair: TestPair = TestPair.open(.{ .interface = name }) catch |failure| switch (failure) {
        // Kernels before 5.7 require a privilege for it.
        error.AccessDenied => return error.SkipZigTest,
        else => return failure,
    };
    defer pair.deinit();
    try pair.give("x");
    var buffer: [16]u8 = undefined;
    try testing.expectEqual(@as(usize, 1), try pair.socket.receive(&buffer, null));
}

test "socket: a peer that has no room is alive while it answers, and gone when it does not" {
    const ms = std.time.ns_per_ms;
    const kernel = &ScriptedOs.kernel;
    ScriptedOs.reset(testing.allocator, 0);
    defer ScriptedOs.deinit();
    const address = Address.parse("127.0.0.1", 0).?;
    var refused: ?Option = null;
    const options: Options = .{ .peer_timeout_ms = 10_000 };
    var socket: SocketType(ScriptedOs) = try .open(&address, options, &refused);
    defer socket.close();

    // The kernel's own limit is right.
    kernel.peer_progress = .{ .had_no_room = false, .has_unanswered = true, .silent_ms = 90_000 };
    try testing.expect(!socket.reviewPeer(1));
    try testing.expect(!socket.reviewPeer(90_000 * ms));
    try testing.expectEqual(0, kernel.limits_lifted);

    // It answers probes, each after a while, for as long as it likes.
    kernel.peer_progress = .{ .had_no_room = true, .has_unanswered = false, .silent_ms = 7_000 };
    try testing.expect(!socket.reviewPeer(90_999 * ms)); // Too early to look again.
    try testing.expectEqual(0, kernel.limits_lifted);
    for (91..200) |second| {
        kernel.peer_progress.?.has_unanswered = second % 2 == 0;
        try testing.expect(!socket.reviewPeer(second * 1_000 * ms));
    }
    try testing.expectEqual(1, kernel.limits_lifted);

    // It owes an answer whenever it is looked at, but it has answered in between.
    kernel.peer_progress = .{ .had_no_room = true, .has_unanswered = true, .silent_ms = 900 };
    for (200..300) |second| try testing.expect(!socket.reviewPeer(second * 1_000 * ms));

    // The last answer was before it owed this one, long before: only then the time begins.
    kernel.peer_progress = .{ .had_no_room = true, .has_unanswered = false, .silent_ms = 50_000 };
    try testing.expect(!socket.reviewPeer(400_000 * ms));
    kernel.peer_progress.?.has_unanswered = true;
    try testing.expect(!socket.reviewPeer(401_000 * ms));
    try testing.expect(!socket.reviewPeer(410_000 * ms));
    try testing.expect(socket.reviewPeer(411_000 * ms));
}

test "socket: without a limit the peer is not looked at" {
    const kernel = &ScriptedOs.kernel;
    ScriptedOs.reset(testing.allocator, 0);
    defer ScriptedOs.deinit();
    const address = Address.parse("127.0.0.1", 0).?;
    var refused: ?Option = null;
    const options: Options = .{ .peer_timeout_ms = null };
    var socket: SocketType(ScriptedOs) = try .open(&address, options, &refused);
    defer socket.close();
    kernel.peer_progress = .{ .had_no_room = true, .has_unanswered = true, .silent_ms = 1_000_000 };
    for (1..5) |hour| try testing.expect(!socket.reviewPeer(hour * std.time.ns_per_hour));
    try testing.expectEqual(0, kernel.limits_lifted);
}
