//! Tests of `os.zig`: what a platform promises, on this machine's kernel.

const std = @import("std");
const builtin = @import("builtin");
const os = @import("os.zig");
const TestListener = @import("testing/listener.zig").TestListener;

const assert = std.debug.assert;
const testing = std.testing;
const linux = os.linux;
const ClockType = os.ClockType;
const Os = os.Os;
const Descriptor = os.Descriptor;
const Address = os.Address;
const KernelStamp = os.KernelStamp;
const TimestampMode = os.TimestampMode;
const ConnectState = os.ConnectState;
const TuneError = os.TuneError;

test {
    inline for (test_platforms) |Platform| os.assertPlatform(Platform);
    // Also what no test calls has to compile, on either platform.
    testing.refAllDecls(Os);
}

/// This platform; and on Linux also macOS's memory and clock, over stand-ins for its kernel.
const test_platforms = switch (builtin.os.tag) {
    // The stand-ins map over memory in use: under valgrind that causes additional page faults, and
    // under qemu-user other bytes show there.
    .linux => if (builtin.valgrind_support or @import("test_options").emulated)
        .{linux}
    else
        .{ linux, @import("darwin_on_linux") },
    else => .{Os},
};

/// A connection to a listener, both ends: the client's does not block, the server's does.
const TestPair = struct {
    client: Descriptor,
    server: Descriptor,

    fn open() !TestPair {
        const listener: TestListener = .open(true);
        defer listener.deinit();
        const client = try Os.openSocket(&listener.address);
        errdefer Os.close(client);
        const state = try Os.connect(client, &listener.address);
        const server = listener.accept();
        errdefer Os.close(server);
        switch (state) {
            .connected => {},
            .in_progress => {
                try waitFor(client, std.c.POLL.OUT);
                try Os.connectResult(client);
            },
        }
        return .{ .client = client, .server = server };
    }

    fn deinit(pair: *const TestPair) void {
        Os.close(pair.client);
        Os.close(pair.server);
    }

    /// Sends all of them to the client.
    fn give(pair: *const TestPair, bytes: []const u8) !void {
        try testing.expectEqual(bytes.len, try Os.send(pair.server, bytes));
        try waitFor(pair.client, std.c.POLL.IN);
    }
};

/// Waits until the kernel has brought the event; 10 s are never reached.
fn waitFor(descriptor: Descriptor, events: i16) !void {
    var list: [1]std.c.pollfd = .{.{ .fd = descriptor, .events = events, .revents = 0 }};
    try testing.expectEqual(@as(c_int, 1), std.c.poll(&list, 1, 10_000));
}

test "os: a refused connect says so, at once or later" {
    const listener: TestListener = .open(false);
    defer listener.deinit();
    const client = try Os.openSocket(&listener.address);
    defer Os.close(client);
    if (Os.connect(client, &listener.address)) |state| {
        try testing.expectEqual(ConnectState.in_progress, state);
        try waitFor(client, std.c.POLL.OUT);
        try testing.expectError(error.ConnectionRefused, Os.connectResult(client));
    } else |failure| {
        try testing.expectEqual(error.ConnectionRefused, failure);
    }
}

test "os: bytes go both ways, and a read without any would block" {
    const pair = try TestPair.open();
    defer pair.deinit();
    var buffer: [64]u8 = undefined;
    var stamp: KernelStamp = .{};
    try testing.expectError(error.WouldBlock, Os.receive(pair.client, &buffer, null));
    try testing.expectError(error.WouldBlock, Os.receive(pair.client, &buffer, &stamp));

    try testing.expectEqual(@as(usize, 4), try Os.send(pair.client, "ping"));
    const size = try Os.receive(pair.server, &buffer, null);
    try testing.expectEqualStrings("ping", buffer[0..size]);
    try pair.give("pong");
    try testing.expectEqual(@as(usize, 2), try Os.receive(pair.client, buffer[0..2], null));
    try testing.expectEqual(@as(usize, 2), try Os.receive(pair.client, buffer[2..4], &stamp));
    try testing.expectEqualStrings("pong", buffer[0..4]);
    // Nobody asked the kernel for stamps.
    try testing.expectEqual(KernelStamp.Source.none, stamp.source);
}

test "os: a send that finds no room would block" {
    const pair = try TestPair.open();
    defer pair.deinit();
    const bytes: [64 * 1024]u8 = @splat(7);
    var sent: usize = 0;
    const limit = 1024 * 1024 * 1024;
    while (sent < limit) {
        sent += Os.send(pair.client, &bytes) catch |failure| {
            try testing.expectEqual(error.WouldBlock, failure);
            break;
        };
    }
    try testing.expect(sent > 0);
    try testing.expect(sent < limit);
}

test "os: the end of the stream is a read of no bytes, after all bytes" {
    const pair = try TestPair.open();
    defer pair.deinit();
    try pair.give("last");
    Os.shutdownSend(pair.server);
    var buffer: [64]u8 = undefined;
    try testing.expectEqual(@as(usize, 4), try Os.receive(pair.client, &buffer, null));
    try waitFor(pair.client, std.c.POLL.IN);
    var stamp: KernelStamp = .{ .source = .software };
    try testing.expectEqual(@as(usize, 0), try Os.receive(pair.client, &buffer, null));
    try testing.expectEqual(@as(usize, 0), try Os.receive(pair.client, &buffer, &stamp));
    try testing.expectEqual(KernelStamp.Source.none, stamp.source);
    // The other direction is still open.
    try testing.expectEqual(@as(usize, 3), try Os.send(pair.client, "bye"));
    try testing.expectEqual(@as(usize, 3), try Os.receive(pair.server, &buffer, null));
}

var signals_seen: std.atomic.Value(u32) = .init(0);

fn countSignal(_: std.c.SIG) callconv(.c) void {
    _ = signals_seen.fetchAdd(1, .monotonic);
}

test "os: a reset is an error of the read and then of the send, and never a SIGPIPE" {
    const action: std.c.Sigaction = .{
        .handler = .{ .handler = countSignal },
        .mask = std.mem.zeroes(std.c.sigset_t),
        .flags = 0,
    };
    var action_old: std.c.Sigaction = undefined;
    try testing.expectEqual(@as(c_int, 0), std.c.sigaction(.PIPE, &action, &action_old));
    defer _ = std.c.sigaction(.PIPE, &action_old, null);
    signals_seen.store(0, .monotonic);

    const pair = try TestPair.open();
    defer Os.close(pair.client);
    TestListener.reset(pair.server);
    try waitFor(pair.client, std.c.POLL.IN);
    var buffer: [64]u8 = undefined;
    try testing.expectError(error.ConnectionReset, Os.receive(pair.client, &buffer, null));
    try testing.expectError(error.BrokenPipe, Os.send(pair.client, "x"));
    try testing.expectEqual(@as(u32, 0), signals_seen.load(.monotonic));
    try testing.expectEqual(null, Os.peerAddress(pair.client));

    // The handler does count: without MSG_NOSIGNAL or SO_NOSIGPIPE there would have been one.
    try testing.expectEqual(@as(c_int, 0), std.c.raise(.PIPE));
    try testing.expectEqual(@as(u32, 1), signals_seen.load(.monotonic));
}

test "os: the kernel stamps what it received, before we read it and after it was sent" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    // An emulator that does not know the options refuses them.
    if (@import("test_options").emulated) return error.SkipZigTest;
    inline for (.{ TimestampMode.software, TimestampMode.hardware }) |mode| {
        const pair = try TestPair.open();
        defer pair.deinit();
        try Os.enableReceiveStamps(pair.client, mode);
        const stamp_first = try expectStamp(&pair);
        const stamp_second = try expectStamp(&pair);
        try testing.expect(stamp_first.realtime_ns < stamp_second.realtime_ns);

        // Switched off, there are none.
        try Os.enableReceiveStamps(pair.client, .none);
        try pair.give("third");
        var buffer: [64]u8 = undefined;
        var stamp: KernelStamp = stamp_second;
        try testing.expectEqual(@as(usize, 5), try Os.receive(pair.client, &buffer, &stamp));
        try testing.expectEqual(KernelStamp.Source.none, stamp.source);
    }
}

/// The kernel starts and stops to stamp in the background, for all sockets of the machine at once:
/// some segments may have none, soon after a socket asked for them or gave them up.
fn expectStamp(pair: *const TestPair) !KernelStamp {
    const deadline_ns = Os.monotonicNs() + 10 * std.time.ns_per_s;
    while (Os.monotonicNs() < deadline_ns) {
        const before_ns = Os.realtimeNs();
        try pair.give("bytes");
        var buffer: [64]u8 = undefined;
        var stamp: KernelStamp = .{};
        try testing.expectEqual(@as(usize, 5), try Os.receive(pair.client, &buffer, &stamp));
        const after_ns = Os.realtimeNs();
        if (stamp.source == .none) continue;
        // The loopback interface is no card: its stamps are the kernel's in both modes.
        try testing.expectEqual(KernelStamp.Source.software, stamp.source);
        try testing.expect(before_ns <= stamp.realtime_ns);
        try testing.expect(stamp.realtime_ns <= after_ns);
        return stamp;
    }
    return error.TestUnexpectedResult;
}

test "os: options are what was set" {
    const pair = try TestPair.open();
    defer pair.deinit();
    const before = Os.socketOptions(pair.client);
    try testing.expect(!before.no_delay);
    try testing.expectEqual(null, before.peer_timeout_s);
    try Os.setNoDelay(pair.client);
    try Os.setPeerTimeout(pair.client, 42_000);
    try Os.setReceiveBufferSize(pair.client, 32 * 1024);
    try Os.setSendBufferSize(pair.client, 48 * 1024);
    const after = Os.socketOptions(pair.client);
    try testing.expect(after.no_delay);
    try testing.expectEqual(42, after.peer_timeout_s);
    try testing.expect(after.receive_buffer_size >= 32 * 1024);
    try testing.expect(after.send_buffer_size >= 48 * 1024);
    try testing.expect(after.receive_buffer_size != before.receive_buffer_size);
    try testing.expect(after.send_buffer_size != before.send_buffer_size);
}

test "os: quick acknowledgements and busy polling work, or are error.Unsupported" {
    const pair = try TestPair.open();
    defer pair.deinit();
    switch (builtin.os.tag) {
        .linux => {
            try Os.setQuickAck(pair.client);
            try testing.expectEqual(true, Os.socketOptions(pair.client).quick_ack.?);
            if (Os.setBusyPoll(pair.client, 50)) {
                try testing.expectEqual(@as(u32, 50), Os.socketOptions(pair.client).busy_poll_us.?);
            } else |failure| switch (failure) {
                // Without the privilege, or in a kernel without CONFIG_NET_RX_BUSY_POLL.
                error.PermissionDenied, error.Unsupported => {},
                error.InvalidValue, error.OutOfMemory, error.Unexpected => return failure,
            }
            const value = std.math.maxInt(u32);
            try testing.expectError(error.InvalidValue, Os.setBusyPoll(pair.client, value));
        },
        else => {
            try testing.expectError(error.Unsupported, Os.setQuickAck(pair.client));
            try testing.expectError(error.Unsupported, Os.setBusyPoll(pair.client, 50));
        },
    }
}

test "os: a socket binds to an address and an interface of this machine only" {
    const listener: TestListener = .open(true);
    defer listener.deinit();
    const client = try Os.openSocket(&listener.address);
    defer Os.close(client);
    // No machine has an address of TEST-NET-1 (RFC 5737).
    const foreign = Address.parse("192.0.2.1", 0).?;
    try testing.expectError(error.AddressNotAvailable, Os.bind(client, &foreign));
    const ipv6 = Address.parse("::1", 0).?;
    try testing.expectError(error.AddressFamilyNotSupported, Os.bind(client, &ipv6));
    const local = Address.parse("127.0.0.1", 0).?;
    try Os.bind(client, &local);
    const bound = Os.localAddress(client).?;
    try testing.expect(bound.port() != 0);

    for ([_][]const u8{ "", "no-such-device", "a-name-longer-than-the-kernel-takes" }) |name| {
        if (Os.bindToInterface(client, name)) {
            return error.TestUnexpectedResult;
        } else |failure| switch (failure) {
            error.InterfaceNotFound, error.AccessDenied => {},
            error.AddressInUse,
            error.AddressNotAvailable,
            error.AddressFamilyNotSupported,
            error.OutOfMemory,
            error.Unexpected,
            => return failure,
        }
    }
    _ = try Os.connect(client, &listener.address);
    const server = listener.accept();
    defer Os.close(server);
    try testing.expect(Os.peerAddress(server).?.equal(&bound));
    try testing.expect(Os.peerAddress(client).?.equal(&listener.address));
}

test "os: descriptors are closed on exec and do not block" {
    const address = Address.parse("127.0.0.1", 0).?;
    const descriptor = try Os.openSocket(&address);
    defer Os.close(descriptor);
    const flags = std.c.fcntl(descriptor, std.c.F.GETFD);
    try testing.expect(flags & std.c.FD_CLOEXEC != 0);
    const status: std.c.O = @bitCast(std.c.fcntl(descriptor, std.c.F.GETFL));
    try testing.expect(status.NONBLOCK);
}

test "os: a mirrored mapping shows the same bytes twice, with huge pages or without" {
    inline for (test_platforms) |Platform| try testMirroring(Platform);
}

fn testMirroring(comptime Platform: type) !void {
    for ([_]bool{ false, true }) |huge_pages| {
        for ([_]usize{ std.heap.pageSize(), 2 * 1024 * 1024, 8 * 1024 * 1024 }) |size| {
            const mapping = try Platform.mapMirrored(size, .{ .huge_pages = huge_pages });
            defer Platform.unmapMirrored(mapping);
            try testing.expectEqual(size, mapping.size);
            if (!huge_pages) try testing.expect(!mapping.huge_pages);
            const memory = mapping.memory[0 .. 2 * size];
            try testing.expect(std.mem.allEqual(u8, memory, 0));
            // A span over the end of the first copy is one span, and wraps to the start.
            @memcpy(memory[size - 3 ..][0..6], "abcdef");
            try testing.expectEqualStrings("def", memory[0..3]);
            try testing.expectEqualStrings("abc", memory[2 * size - 3 ..]);
            memory[size / 2] = 42;
            try testing.expectEqual(@as(u8, 42), memory[size + size / 2]);
        }
    }
}

test "os: a byte before or behind a mirrored mapping cannot be read or written" {
    inline for (test_platforms) |Platform| try testGuards(Platform);
}

fn testGuards(comptime Platform: type) !void {
    for ([_]bool{ false, true }) |huge_pages| {
        const size = 2 * 1024 * 1024;
        const mapping = try Platform.mapMirrored(size, .{ .huge_pages = huge_pages });
        defer Platform.unmapMirrored(mapping);
        const behind = mapping.memory + 2 * size;
        const before = mapping.memory - 1;
        for ([_]bool{ false, true }) |write| {
            try testing.expectEqual(std.c.SIG.SEGV, signalOfAccess(&behind[0], write));
            try testing.expectEqual(std.c.SIG.SEGV, signalOfAccess(&before[0], write));
            try testing.expectEqual(null, signalOfAccess(&mapping.memory[0], write));
            try testing.expectEqual(null, signalOfAccess(&(behind - 1)[0], write));
        }
    }
}

/// What kills a process that reads a byte, or writes it; null when it lives.
fn signalOfAccess(byte: *volatile u8, write: bool) ?std.c.SIG {
    const child = std.c.fork();
    if (child == 0) {
        const default: std.posix.Sigaction = .{
            .handler = .{ .handler = std.posix.SIG.DFL },
            .mask = std.posix.sigemptyset(),
            .flags = 0,
        };
        std.posix.sigaction(.SEGV, &default, null); // Else the test runner reports it.
        if (write) byte.* = 1 else std.mem.doNotOptimizeAway(byte.*);
        std.c._exit(0);
    }
    var status: c_int = undefined;
    assert(std.c.waitpid(child, &status, 0) == child);
    const bits: u32 = @bitCast(status);
    if (std.c.W.IFSIGNALED(bits)) return std.c.W.TERMSIG(bits);
    assert(std.c.W.EXITSTATUS(bits) == 0);
    return null;
}

test "os: a mirrored mapping takes no page fault" {
    // An emulator has faults of its own, and may leave out MAP_POPULATE.
    if (@import("test_options").emulated) return error.SkipZigTest;
    inline for (test_platforms) |Platform| try testFaults(Platform);
}

fn testFaults(comptime Platform: type) !void {
    const size = 8 * 1024 * 1024;
    const mapping = try Platform.mapMirrored(size, .{ .huge_pages = false });
    defer Platform.unmapMirrored(mapping);

    const faults_before = pageFaults();
    var offset: usize = 0;
    while (offset < 2 * size) : (offset += std.heap.pageSize()) {
        const byte: *volatile u8 = &mapping.memory[offset];
        byte.* += 1;
    }
    // The test itself may take a few: its stack, its code.
    try testing.expect(pageFaults() - faults_before < 16);
}

test "os: a mirrored mapping leaves nothing behind" {
    inline for (test_platforms) |Platform| try testUnmap(Platform);
}

fn testUnmap(comptime Platform: type) !void {
    const address = Address.parse("127.0.0.1", 0).?;
    const descriptor_next = try Os.openSocket(&address);
    Os.close(descriptor_next);
    const size = 8 * 1024 * 1024;
    const mapping = try Platform.mapMirrored(size, .{ .huge_pages = false });
    Platform.unmapMirrored(mapping);
    const page_size = std.heap.pageSize();
    const guarded = mapping.memory - page_size;
    for ([_]usize{ 0, page_size, size, 2 * size, page_size + 2 * size }) |place| {
        const page: [*]align(std.heap.page_size_min) u8 = @alignCast(guarded + place);
        const status = std.c.msync(@ptrCast(page), std.heap.page_size_min, std.c.MSF.ASYNC);
        try testing.expectEqual(std.c.E.NOMEM, std.c.errno(status));
    }
    const descriptor = try Os.openSocket(&address);
    defer Os.close(descriptor);
    try testing.expectEqual(descriptor_next, descriptor);
}

fn pageFaults() isize {
    var usage: std.c.rusage = undefined;
    const status = std.c.getrusage(std.c.rusage.SELF, &usage);
    assert(status == 0);
    return usage.minflt + usage.majflt;
}

test "os: the clock converts cycles to within 1 % of the system's" {
    inline for (test_platforms) |Platform| try testClock(Platform);
}

fn testClock(comptime Platform: type) !void {
    var clock: ClockType(Platform) = .init();
    clock.calibrate();
    if (builtin.cpu.arch == .x86_64) try testing.expectEqual(.measured, clock.source);
    if (builtin.cpu.arch == .aarch64) try testing.expectEqual(.register, clock.source);
    try testing.expect(clock.cyclesPerNs() > 0.01);
    try testing.expect(clock.cyclesPerNs() < 10);

    // Each reading of the counter is between two readings of the system's clock, so the comparison
    // holds even if the process is suspended between them.
    const outer_start_ns = Platform.monotonicNs();
    const start = Platform.cycles();
    const inner_start_ns = Platform.monotonicNs();
    while (Platform.monotonicNs() - inner_start_ns < 20 * std.time.ns_per_ms) {}
    const inner_end_ns = Platform.monotonicNs();
    const end = Platform.cycles();
    const outer_end_ns = Platform.monotonicNs();
    const converted: f64 = @floatFromInt(clock.nanoseconds(end - start));
    const inner: f64 = @floatFromInt(inner_end_ns - inner_start_ns);
    const outer: f64 = @floatFromInt(outer_end_ns - outer_start_ns);
    try testing.expect(converted >= 0.99 * inner);
    try testing.expect(converted <= 1.01 * outer);
}

test "os: random bytes differ, and every byte is filled" {
    var left: [300]u8 = @splat(0);
    var right: [300]u8 = @splat(0);
    Os.random(&left);
    Os.random(&right);
    try testing.expect(!std.mem.eql(u8, &left, &right));
    try testing.expect(!std.mem.allEqual(u8, left[290..], 0));
    Os.random(left[0..0]);
}

/// The result of each tuning call, as the exit status of a child process, so that the other tests
/// keep their CPUs, priority and memory.
const Tuned = packed struct(u8) {
    pinned: bool = false,
    realtime: bool = false,
    locked: bool = false,
    unexpected: bool = false,
    unused: u4 = 0,

    fn done(tuned: *Tuned, result: TuneError!void) bool {
        if (result) return true else |failure| switch (failure) {
            error.PermissionDenied, error.MemoryLockLimit, error.Unsupported => {},
            // A process that may not use CPU 0.
            error.InvalidCpu => {},
            error.InvalidPriority, error.Unexpected => tuned.unexpected = true,
        }
        return false;
    }
};

fn tuneAll() Tuned {
    var tuned: Tuned = .{};
    tuned.pinned = tuned.done(Os.pinThread(0));
    tuned.realtime = tuned.done(Os.setRealtimePriority(20));
    tuned.locked = tuned.done(Os.lockMemory());
    if (Os != linux) return tuned;

    var cpus: std.c.cpu_set_t = @splat(0);
    if (std.c.sched_getaffinity(0, @sizeOf(std.c.cpu_set_t), &cpus) != 0) tuned.unexpected = true;
    if (tuned.pinned and cpus[0] != 1) tuned.unexpected = true;
    const policy: u32 = @truncate(std.os.linux.sched_getscheduler(0));
    const policy_fifo = 1;
    if (tuned.realtime != (policy & 0xff == policy_fifo)) tuned.unexpected = true;
    return tuned;
}

test "os: tuning works, or says why not" {
    const process = std.c.fork();
    if (process == 0) std.c._exit(@as(u8, @bitCast(tuneAll())));
    try testing.expect(process > 0);
    var status: c_int = 0;
    try testing.expectEqual(process, std.c.waitpid(process, &status, 0));
    try testing.expectEqual(@as(c_int, 0), status & 0x7f);
    const tuned: Tuned = @bitCast(@as(u8, @truncate(@as(c_uint, @bitCast(status)) >> 8)));
    try testing.expect(!tuned.unexpected);
    if (Os != linux) try testing.expect(tuned.realtime and !tuned.locked);
}

test "os: tuning refuses what there is not" {
    try testing.expectError(error.InvalidCpu, Os.pinThread(std.math.maxInt(u32)));
    try testing.expectError(error.InvalidPriority, Os.setRealtimePriority(0));
    try testing.expectError(error.InvalidPriority, Os.setRealtimePriority(255));
}
