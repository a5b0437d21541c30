//! macOS: what os.zig promises, by kqueue, POSIX shared memory and BSD socket options.
//!
//! Holds only what differs from Linux; the rest is os/posix.zig under the same names. What macOS
//! does not have is told, not pretended: TCP receive stamps, quick acknowledgements, busy polling,
//! binding a thread to a CPU and locking all memory are `error.Unsupported`.

const std = @import("std");
const assert = std.debug.assert;
const c = std.c;

const posix = @import("posix.zig");

pub const Descriptor = posix.Descriptor;
pub const Address = posix.Address;
pub const AddressList = posix.AddressList;
pub const KernelStamp = posix.KernelStamp;
pub const TimestampMode = posix.TimestampMode;
pub const SocketOptions = posix.SocketOptions;
pub const Mapping = posix.Mapping;
pub const MapOptions = posix.MapOptions;

pub const resolve = posix.resolve;
pub const connect = posix.connect;
pub const connectResult = posix.connectResult;
pub const bind = posix.bind;
pub const shutdownSend = posix.shutdownSend;
pub const close = posix.close;
pub const setNoDelay = posix.setNoDelay;
pub const setReceiveBufferSize = posix.setReceiveBufferSize;
pub const setSendBufferSize = posix.setSendBufferSize;
pub const localAddress = posix.localAddress;
pub const peerAddress = posix.peerAddress;
pub const cycles = posix.cycles;

/// socket(2): non-blocking, closed on exec, and without SIGPIPE (SO_NOSIGPIPE). There are no flags
/// for that in socket(2) itself.
pub fn openSocket(address: *const Address) posix.OpenError!Descriptor {
    const descriptor = try posix.openSocket(address, 0);
    errdefer posix.close(descriptor);
    try setDescriptorFlags(descriptor);
    posix.setOption(descriptor, c.SOL.SOCKET, c.SO.NOSIGPIPE, 1) catch |failure| switch (failure) {
        error.OutOfMemory => return error.OutOfMemory,
        error.PermissionDenied => return error.AccessDenied,
        error.Unsupported, error.InvalidValue, error.Unexpected => return error.Unexpected,
    };
    return descriptor;
}

fn setDescriptorFlags(descriptor: Descriptor) error{Unexpected}!void {
    const close_on_exec: c_int = c.FD_CLOEXEC;
    switch (c.errno(c.fcntl(descriptor, c.F.SETFD, close_on_exec))) {
        .SUCCESS => {},
        else => |cause| return posix.unexpected(cause),
    }
    const flags_old = c.fcntl(descriptor, c.F.GETFL);
    switch (c.errno(flags_old)) {
        .SUCCESS => {},
        else => |cause| return posix.unexpected(cause),
    }
    const non_blocking: c.O = .{ .NONBLOCK = true };
    const flags = flags_old | @as(c_int, @bitCast(non_blocking));
    switch (c.errno(c.fcntl(descriptor, c.F.SETFL, flags))) {
        .SUCCESS => {},
        else => |cause| return posix.unexpected(cause),
    }
}

/// IP_BOUND_IF (ip(4)) or IPV6_BOUND_IF (ip6(4)), by the socket's own family.
pub fn bindToInterface(descriptor: Descriptor, name: []const u8) posix.BindError!void {
    if (name.len == 0 or name.len >= interface_name_size_max) return error.InterfaceNotFound;
    var terminated: [interface_name_size_max:0]u8 = @splat(0);
    @memcpy(terminated[0..name.len], name);
    const index = c.if_nametoindex(&terminated);
    if (index == 0) return error.InterfaceNotFound;

    const local = posix.localAddress(descriptor) orelse return error.AddressFamilyNotSupported;
    const level: i32, const option: u32 = switch (local.family()) {
        .ipv4 => .{ c.IPPROTO.IP, ipv4_bound_interface },
        .ipv6 => .{ c.IPPROTO.IPV6, ipv6_bound_interface },
    };
    return switch (c.errno(c.setsockopt(descriptor, level, option, &index, @sizeOf(c_int)))) {
        .SUCCESS => {},
        else => |cause| posix.bindError(cause),
    };
}

/// recv(2). 0: the peer closed its direction. macOS stamps datagrams, and no TCP segments: the
/// stamp's source is always `none`.
pub inline fn receive(
    descriptor: Descriptor,
    buffer: []u8,
    stamp: ?*KernelStamp,
) posix.ReceiveError!usize {
    const size = try posix.receive(descriptor, buffer);
    if (stamp) |target| target.* = .{};
    return size;
}

/// send(2). The socket has SO_NOSIGPIPE: a dead connection is an error, not a SIGPIPE.
pub inline fn send(descriptor: Descriptor, bytes: []const u8) posix.SendError!usize {
    return posix.send(descriptor, bytes, 0);
}

/// Not on macOS.
pub fn setQuickAck(descriptor: Descriptor) posix.OptionError!void {
    assert(descriptor >= 0);
    return error.Unsupported;
}

/// Not on macOS.
pub fn setBusyPoll(descriptor: Descriptor, microseconds: u32) posix.OptionError!void {
    assert(descriptor >= 0);
    return if (microseconds > 0) error.Unsupported;
}

/// Not on macOS, which stamps no TCP segments; `none` is what it always does.
pub fn enableReceiveStamps(descriptor: Descriptor, mode: TimestampMode) posix.OptionError!void {
    assert(descriptor >= 0);
    return switch (mode) {
        .none => {},
        .software, .hardware => error.Unsupported,
    };
}

/// The options as the kernel has them now.
pub fn socketOptions(descriptor: Descriptor) SocketOptions {
    const no_delay = posix.getOption(descriptor, c.IPPROTO.TCP, c.TCP.NODELAY) orelse 0;
    return .{
        .no_delay = no_delay != 0,
        .quick_ack = null,
        .busy_poll_us = null,
        .receive_buffer_size = posix.getSizeOption(descriptor, c.SO.RCVBUF),
        .send_buffer_size = posix.getSizeOption(descriptor, c.SO.SNDBUF),
    };
}

/// CLOCK_UPTIME_RAW: the clock of kqueue's time-outs. CLOCK_MONOTONIC has microseconds only.
pub inline fn monotonicNs() u64 {
    return @intCast(posix.clockNs(.UPTIME_RAW));
}

/// CLOCK_REALTIME, in microseconds at best.
pub inline fn realtimeNs() i64 {
    return posix.clockNs(.REALTIME);
}

/// arc4random_buf(3), which cannot fail.
pub fn random(buffer: []u8) void {
    c.arc4random_buf(buffer.ptr, buffer.len);
}

/// shm_open(2) of an object whose name is gone at once, mapped twice. Every page is touched before
/// it returns, so that no page fault waits on the data path. Never on huge pages.
/// Asserts that the size is a multiple of the page size.
pub fn mapMirrored(size: usize, options: MapOptions) posix.MapError!Mapping {
    assert(size > 0);
    assert(size % std.heap.pageSize() == 0);
    _ = options.huge_pages;
    const object = try openObject();
    defer posix.close(object);
    while (true) switch (c.errno(c.ftruncate(object, @intCast(size)))) {
        .SUCCESS => break,
        .INTR => {},
        else => |cause| return posix.mapError(cause),
    };
    const memory = try posix.reserveGuarded(2 * size, std.heap.pageSize());
    errdefer posix.unmapGuarded(memory, 2 * size);
    try posix.mapTwice(memory, size, object, .{ .TYPE = .SHARED, .FIXED = true });

    var offset: usize = 0;
    while (offset < 2 * size) : (offset += std.heap.pageSize()) {
        const byte: *volatile u8 = &memory[offset];
        byte.* = 0;
    }
    return .{ .memory = memory, .size = size, .huge_pages = false };
}

fn openObject() posix.MapError!Descriptor {
    var attempt: usize = 0;
    while (attempt < object_name_attempts_max) : (attempt += 1) {
        var number: [8]u8 = undefined;
        random(&number);
        var buffer: [object_name_size_max:0]u8 = undefined;
        const name = std.fmt.bufPrintSentinel(&buffer, "/hftws-{x}", .{&number}, 0) catch
            unreachable;
        const flags: c.O = .{ .ACCMODE = .RDWR, .CREAT = true, .EXCL = true };
        // By the C calling convention, a `mode_t` arrives as an `int`.
        const mode: c_int = 0o600;
        const object = c.shm_open(name.ptr, @bitCast(flags), mode);
        switch (c.errno(object)) {
            .SUCCESS => {
                _ = c.shm_unlink(name.ptr);
                return object;
            },
            .EXIST, .INTR => {},
            else => |cause| return posix.mapError(cause),
        }
    }
    return error.Unexpected;
}

/// munmap(2) of both copies and the guard pages: nothing may point there any more.
pub fn unmapMirrored(mapping: Mapping) void {
    posix.unmapGuarded(mapping.memory, 2 * mapping.size);
}

/// Not on macOS, which has hints (thread affinity tags) and no binding.
pub fn pinThread(cpu: u32) posix.TuneError!void {
    _ = cpu;
    return error.Unsupported;
}

/// pthread_setschedparam(3): SCHED_FIFO for the calling thread.
pub fn setRealtimePriority(priority: u8) posix.TuneError!void {
    const parameters: SchedulingParameters = .{ .priority = priority };
    const status = pthread_setschedparam(c.pthread_self(), policy_fifo, &parameters);
    return switch (@as(c.E, @fromBackingInt(@intCast(status)))) {
        .SUCCESS => {},
        .INVAL => error.InvalidPriority,
        .PERM => error.PermissionDenied,
        .OPNOTSUPP, .NOSYS => error.Unsupported,
        else => |cause| posix.unexpected(cause),
    };
}

/// Not on macOS: its mlockall(2) exists and does nothing.
pub fn lockMemory() posix.TuneError!void {
    return error.Unsupported;
}

/// One change or event of kqueue(2), as `struct kevent` has it. For notifier/kqueue.zig, like all
/// that follows. Spelled out so that a test on another system can play the kernel.
pub const KernelEvent = extern struct {
    ident: usize,
    filter: i16,
    flags: u16,
    fflags: u32,
    data: isize,
    udata: usize,

    pub const filter_read = -1;
    pub const filter_write = -2;
    pub const flag_add = 0x0001;
    pub const flag_delete = 0x0002;
    pub const flag_end_of_file = 0x8000;
};

/// Longest time-out that every version of the kernel takes.
pub const kqueue_timeout_ns_max = 100_000_000 * std.time.ns_per_s;

/// kqueue(2), closed on exec. The caller closes it.
pub fn kqueueCreate() posix.NotifierError!Descriptor {
    const kqueue = c.kqueue();
    switch (c.errno(kqueue)) {
        .SUCCESS => {},
        else => |cause| return posix.notifierError(cause),
    }
    const close_on_exec: c_int = c.FD_CLOEXEC;
    _ = c.fcntl(kqueue, c.F.SETFD, close_on_exec);
    return kqueue;
}

/// One change by kevent(2). To delete what is gone is no error: closing a descriptor deletes it as
/// well.
pub fn kqueueChange(kqueue: Descriptor, change: *const KernelEvent) posix.WatchError!void {
    var unused: [1]c.Kevent = undefined;
    const status = c.kevent(kqueue, @ptrCast(change), 1, &unused, 0, null);
    switch (c.errno(status)) {
        // A signal interrupts the wait for events, after the changes were made.
        .SUCCESS, .INTR => {},
        .NOENT, .BADF => |cause| {
            if (change.flags & KernelEvent.flag_delete == 0) return posix.watchError(cause);
        },
        else => |cause| return posix.watchError(cause),
    }
}

/// kevent(2): the events that are ready, none when the time passed; null waits without end.
pub fn kqueueWait(
    kqueue: Descriptor,
    events: []KernelEvent,
    timeout_ns: ?u64,
) posix.PollError!usize {
    if (timeout_ns) |timeout| assert(timeout <= kqueue_timeout_ns_max);
    const time = posix.timespecOf(timeout_ns orelse 0);
    const time_pointer = if (timeout_ns == null) null else &time;
    const changes: [1]c.Kevent = undefined;
    const target: [*]c.Kevent = @ptrCast(events.ptr);
    const status = c.kevent(kqueue, &changes, 0, target, @intCast(events.len), time_pointer);
    return switch (c.errno(status)) {
        .SUCCESS => @intCast(status),
        else => |cause| posix.pollError(cause),
    };
}

const SchedulingParameters = extern struct {
    priority: c_int,
    unused: [4]u8 = @splat(0),
};

extern "c" fn pthread_setschedparam(
    thread: c.pthread_t,
    policy: c_int,
    parameters: *const SchedulingParameters,
) c_int;

/// SCHED_FIFO, pthread_impl.h.
const policy_fifo = 4;

/// IFNAMSIZ, with the terminating zero.
const interface_name_size_max = 16;

/// IP_BOUND_IF, netinet/in.h.
const ipv4_bound_interface = 25;

/// IPV6_BOUND_IF, netinet6/in6.h.
const ipv6_bound_interface = 125;

/// PSHMNAMLEN, sys/posix_shm.h.
const object_name_size_max = 31;

/// Two processes that draw the same 64 bits once are unlikely, twice impossible.
const object_name_attempts_max = 4;

comptime {
    if (@import("builtin").os.tag == .macos) {
        assert(@sizeOf(KernelEvent) == @sizeOf(c.Kevent));
        assert(@offsetOf(KernelEvent, "udata") == @offsetOf(c.Kevent, "udata"));
        assert(KernelEvent.filter_read == c.EVFILT.READ);
        assert(KernelEvent.filter_write == c.EVFILT.WRITE);
        assert(KernelEvent.flag_add == c.EV.ADD);
        assert(KernelEvent.flag_delete == c.EV.DELETE);
        assert(KernelEvent.flag_end_of_file == c.EV.EOF);
    }
}
