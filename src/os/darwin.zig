//! macOS: what os.zig promises, by kqueue, Mach and BSD socket options.
//!
//! Holds only what differs from Linux; the rest is os/posix.zig under the same names. What macOS
//! does not have is told, not pretended: TCP receive stamps, quick acknowledgements, busy polling
//! and locking all memory are `error.Unsupported`; binding a thread to a CPU is a hint at most.
//!
//! What is called and how it is laid out is spelled out here rather than taken from `std.c`: so it
//! can be compared with Apple's headers, and so tests on another system can play this kernel
//! (testing/darwin_on_linux.zig).

const std = @import("std");
const builtin = @import("builtin");
const assert = std.debug.assert;
const c = std.c;

const posix = @import("posix.zig");

pub const Descriptor = posix.Descriptor;
pub const Address = posix.Address;
pub const AddressList = posix.AddressList;
pub const KernelStamp = posix.KernelStamp;
pub const TimestampMode = posix.TimestampMode;
pub const SocketOptions = posix.SocketOptions;
pub const TlsDirection = posix.TlsDirection;
pub const ReceivedRecord = posix.ReceivedRecord;
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
pub const counterFrequency = posix.counterFrequency;

/// socket(2): non-blocking, closed on exec, and without SIGPIPE (SO_NOSIGPIPE). There are no flags
/// for that in socket(2) itself.
pub fn openSocket(address: *const Address) posix.OpenError!Descriptor {
    const descriptor = try posix.openSocket(address, 0);
    errdefer posix.close(descriptor);
    try setDescriptorFlags(descriptor);
    posix.setOption(descriptor, c.SOL.SOCKET, no_sigpipe, 1) catch |failure| switch (failure) {
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

/// Not on macOS; nor are the other three functions of kernel TLS.
pub fn attachTls(descriptor: Descriptor) posix.TlsError!void {
    assert(descriptor >= 0);
    return error.Unsupported;
}

pub fn setTlsKeys(
    descriptor: Descriptor,
    direction: TlsDirection,
    info: []const u8,
) posix.TlsError!void {
    assert(descriptor >= 0);
    assert(info.len > 0);
    return switch (direction) {
        .receive, .send => error.Unsupported,
    };
}

pub fn receiveRecord(_: Descriptor, _: []u8) posix.ReceiveRecordError!ReceivedRecord {
    unreachable; // There are no keys.
}

pub fn sendRecord(_: Descriptor, _: u8, _: []const u8) posix.SendError!void {
    unreachable; // There are no keys.
}

/// Keep-alive probes ask a silent peer, and TCP_RXT_CONNDROPTIME bounds how long it may leave data
/// unanswered (tcp(4)).
pub fn setPeerTimeout(descriptor: Descriptor, timeout_s: u32) posix.OptionError!void {
    const tcp = c.IPPROTO.TCP;
    try posix.setKeepAlive(descriptor, c.TCP.KEEPALIVE, timeout_s);
    try posix.setOption(descriptor, tcp, c.TCP.KEEPCNT, probes_max);
    try posix.setOption(descriptor, tcp, c.TCP.RXT_CONNDROPTIME, @intCast(timeout_s));
}

/// The options as the kernel has them now.
pub fn socketOptions(descriptor: Descriptor) SocketOptions {
    const no_delay = posix.getOption(descriptor, c.IPPROTO.TCP, c.TCP.NODELAY) orelse 0;
    return .{
        .no_delay = no_delay != 0,
        .peer_timeout_s = posix.peerTimeout(descriptor, c.TCP.RXT_CONNDROPTIME, 1),
        .quick_ack = null,
        .busy_poll_us = null,
        .receive_buffer_size = posix.getSizeOption(descriptor, c.SO.RCVBUF),
        .send_buffer_size = posix.getSizeOption(descriptor, c.SO.SNDBUF),
    };
}

/// CLOCK_UPTIME_RAW, which is mach_absolute_time(3) in nanoseconds and the clock of kqueue's
/// time-outs: it stands still while the machine sleeps. CLOCK_MONOTONIC has microseconds only.
pub inline fn monotonicNs() u64 {
    return libsystem.clock_gettime_nsec_np(clock_uptime_raw);
}

/// CLOCK_REALTIME, in microseconds at best.
pub inline fn realtimeNs() i64 {
    return posix.clockNs(.REALTIME);
}

/// arc4random_buf(3), which cannot fail.
pub fn random(buffer: []u8) void {
    c.arc4random_buf(buffer.ptr, buffer.len);
}

/// Shared anonymous memory, and mach_vm_remap(3) of it into the place behind. There is no name and
/// no descriptor as with POSIX shared memory, which an app's sandbox refuses. Both copies are put
/// over reserved address space in one step each, so that no other thread can come between; and they
/// are shared with what the process forks, as on Linux: a copy on write would part them.
/// Every page is touched before it returns, so that no page fault waits on the data path. Never on
/// huge pages. Asserts that the size is a multiple of the page size.
pub fn mapMirrored(size: usize, options: MapOptions) posix.MapError!Mapping {
    assert(size > 0);
    assert(size % std.heap.pageSize() == 0);
    _ = options.huge_pages;
    const memory = try posix.reserveGuarded(2 * size, std.heap.pageSize());
    errdefer posix.unmapGuarded(memory, 2 * size);
    const shared: c.MAP = .{ .TYPE = .SHARED, .ANONYMOUS = true, .FIXED = true };
    try posix.mapOver(memory, size, -1, shared);
    // Before there is a second copy: what was never touched has no object yet to be shared.
    touch(memory[0..size]);
    try remap(memory, @alignCast(memory + size), size);
    touch(memory[size .. 2 * size]);
    return .{ .memory = memory, .size = size, .huge_pages = false };
}

/// Maps the pages at `source` a second time, over what is at `target`.
fn remap(
    source: [*]align(std.heap.page_size_min) u8,
    target: [*]align(std.heap.page_size_min) u8,
    size: usize,
) posix.MapError!void {
    var address: u64 = @intFromPtr(target);
    var protection: c_int = 0;
    var protection_max: c_int = 0;
    const status = libsystem.mach_vm_remap(
        libsystem.mach_task_self_,
        &address,
        size,
        0,
        vm_flags_fixed | vm_flags_overwrite,
        libsystem.mach_task_self_,
        @intFromPtr(source),
        @intFromBool(false), // No copy.
        &protection,
        &protection_max,
        vm_inherit_share,
    );
    if (status != kern_success) return posix.mapError(errnoOf(status));
    assert(address == @intFromPtr(target));
    assert(protection & vm_prot_read_write == vm_prot_read_write);
}

fn touch(memory: []u8) void {
    var offset: usize = 0;
    while (offset < memory.len) : (offset += std.heap.pageSize()) {
        const byte: *volatile u8 = &memory[offset];
        byte.* = 0;
    }
}

/// What a `kern_return_t` is as an errno, in the way of xnu's own mmap(2).
fn errnoOf(status: c_int) c.E {
    return switch (status) {
        kern_success => .SUCCESS,
        kern_invalid_address, kern_no_space, kern_resource_shortage => .NOMEM,
        kern_protection_failure, kern_no_access => .ACCES,
        kern_not_supported => .OPNOTSUPP,
        else => .INVAL,
    };
}

/// munmap(2) of both copies and the guard pages: nothing may point there any more.
pub fn unmapMirrored(mapping: Mapping) void {
    posix.unmapGuarded(mapping.memory, 2 * mapping.size);
}

/// A hint, and on Intel only (THREAD_AFFINITY_POLICY): threads of this process that were given the
/// same CPU are put where they share a cache, those of different ones where they do not. Which CPU
/// it is remains the kernel's choice. `Unsupported` on Apple silicon, which has no such hint.
pub fn pinThread(cpu: u32) posix.TuneError!void {
    const count = std.Thread.getCpuCount() catch return error.Unexpected;
    if (cpu >= count) return error.InvalidCpu;
    const tag: c_int = @intCast(cpu + 1); // 0 would take the hint away.
    return setThreadPolicy(thread_affinity_policy, ThreadAffinity{ .affinity_tag = tag });
}

/// THREAD_TIME_CONSTRAINT_POLICY: the calling thread runs ahead of all ordinary ones, at once when
/// it wakes. There is one such class; `priority` has to be one of SCHED_FIFO's on Linux, 1 to 99,
/// and makes no difference. The kernel takes the thread out of it for about two seconds when it has
/// run for a second without any sleep: nothing for a thread that polls busily.
pub fn setRealtimePriority(priority: u8) posix.TuneError!void {
    if (priority < realtime_priority_min) return error.InvalidPriority;
    if (priority > realtime_priority_max) return error.InvalidPriority;
    const base = try timebase();
    return setThreadPolicy(thread_time_constraint_policy, ThreadTimeConstraint{
        .period = 0, // Messages come when they come.
        .computation = absoluteTime(base, realtime_computation_ns),
        .constraint = absoluteTime(base, realtime_constraint_ns),
        .preemptible = @intFromBool(true),
    });
}

fn setThreadPolicy(flavor: c_uint, policy: anytype) posix.TuneError!void {
    const count = @divExact(@sizeOf(@TypeOf(policy)), @sizeOf(c_int));
    const thread = libsystem.pthread_mach_thread_np(c.pthread_self());
    const status = libsystem.thread_policy_set(thread, flavor, @ptrCast(&policy), count);
    return switch (status) {
        kern_success => {},
        kern_not_supported => error.Unsupported,
        kern_protection_failure, kern_no_access => error.PermissionDenied,
        else => posix.unexpected(errnoOf(status)),
    };
}

fn timebase() error{Unexpected}!TimebaseInfo {
    var base: TimebaseInfo = undefined;
    const status = libsystem.mach_timebase_info(&base);
    if (status != kern_success) return posix.unexpected(errnoOf(status));
    assert(base.numer > 0);
    assert(base.denom > 0);
    return base;
}

/// In units of mach_absolute_time(3): 24 a microsecond on Apple silicon, 1000 on Intel.
fn absoluteTime(base: TimebaseInfo, ns: u32) u32 {
    return @intCast(@as(u64, ns) * base.denom / base.numer);
}

/// Not on macOS: its mlockall(2) is there and always fails.
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
    /// Reported for as long as the descriptor is ready, since there is no EV_CLEAR.
    pub const flag_add = 0x0001;
    pub const flag_delete = 0x0002;
    pub const flag_end_of_file = 0x8000;
};

/// Longest time-out that every version of the kernel takes.
pub const kqueue_timeout_ns_max = 100_000_000 * std.time.ns_per_s;

/// kqueue(2), closed on exec. The caller closes it.
pub fn kqueueCreate() posix.NotifierError!Descriptor {
    const kqueue = libsystem.kqueue();
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
    const status = libsystem.kevent(kqueue, @ptrCast(change), 1, null, 0, null);
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
    const count_max: c_int = @intCast(events.len);
    const status = libsystem.kevent(kqueue, null, 0, events.ptr, count_max, time_pointer);
    return switch (c.errno(status)) {
        .SUCCESS => @intCast(status),
        else => |cause| posix.pollError(cause),
    };
}

/// What this file calls beside the POSIX calls of `std.c`.
const libsystem = struct {
    pub extern "c" var mach_task_self_: c_uint;
    pub extern "c" fn clock_gettime_nsec_np(clock: c_uint) u64;
    pub extern "c" fn kqueue() c_int;
    pub extern "c" fn kevent(
        kqueue: c_int,
        changes: ?[*]const KernelEvent,
        changes_count: c_int,
        events: ?[*]KernelEvent,
        events_count: c_int,
        timeout: ?*const c.timespec,
    ) c_int;
    pub extern "c" fn mach_timebase_info(info: *TimebaseInfo) c_int;
    pub extern "c" fn mach_vm_remap(
        target_task: c_uint,
        target_address: *u64,
        size: u64,
        mask: u64,
        flags: c_int,
        source_task: c_uint,
        source_address: u64,
        copy: c_int,
        protection: *c_int,
        protection_max: *c_int,
        inheritance: c_uint,
    ) c_int;
    pub extern "c" fn pthread_mach_thread_np(thread: c.pthread_t) c_uint;
    pub extern "c" fn thread_policy_set(
        thread: c_uint,
        flavor: c_uint,
        policy: [*]const c_int,
        count: c_uint,
    ) c_int;
};

/// `struct mach_timebase_info`: nanoseconds are units of mach_absolute_time(3) times numer / denom.
const TimebaseInfo = extern struct { numer: u32, denom: u32 };

/// `struct thread_affinity_policy`.
const ThreadAffinity = extern struct { affinity_tag: c_int };

/// `struct thread_time_constraint_policy`, in units of mach_absolute_time(3).
const ThreadTimeConstraint = extern struct {
    period: u32,
    computation: u32,
    constraint: u32,
    preemptible: c_int,
};

/// How long the thread may run before others of its class get their turn. The kernel takes 50 us to
/// 50 ms. A burst of a thousand messages is through by then.
const realtime_computation_ns = 500 * std.time.ns_per_us;

/// By when that much has to be done. Among threads of the class the earliest goes first, and those
/// of audio have several milliseconds. No more than twice the above: the kernel would raise that.
const realtime_constraint_ns = std.time.ns_per_ms;

/// As Linux has them, so that a program need not know where it runs.
const realtime_priority_min = 1;
const realtime_priority_max = 99;

/// THREAD_TIME_CONSTRAINT_POLICY and THREAD_AFFINITY_POLICY, mach/thread_policy.h.
const thread_time_constraint_policy = 2;
const thread_affinity_policy = 4;

/// mach/kern_return.h.
const kern_success = 0;
const kern_invalid_address = 1;
const kern_protection_failure = 2;
const kern_no_space = 3;
const kern_resource_shortage = 6;
const kern_no_access = 8;
const kern_not_supported = 46;

/// mach/vm_statistics.h, mach/vm_inherit.h and mach/vm_prot.h.
const vm_flags_fixed = 0x0000;
const vm_flags_overwrite = 0x4000;
const vm_inherit_share = 0;
const vm_prot_read_write = 0x01 | 0x02;

/// CLOCK_UPTIME_RAW, time.h.
const clock_uptime_raw = 8;

/// SO_NOSIGPIPE, sys/socket.h.
const no_sigpipe = 0x1022;

/// IFNAMSIZ, with the terminating zero.
const interface_name_size_max = 16;

/// Those of `posix.setKeepAlive` until the timeout.
const probes_max = 4;

/// IP_BOUND_IF, netinet/in.h.
const ipv4_bound_interface = 25;

/// IPV6_BOUND_IF, netinet6/in6.h.
const ipv6_bound_interface = 125;

comptime {
    assert(realtime_constraint_ns >= realtime_computation_ns);
    assert(realtime_constraint_ns <= 2 * realtime_computation_ns);
}

const testing = std.testing;
/// What plays the kernel where there is no Mac.
const mach_shim = switch (builtin.os.tag) {
    .linux => @import("../testing/mach_shim.zig"),
    else => void,
};

test "darwin: both copies of a mirrored mapping are shared with what the process forks" {
    const size = 4 * std.heap.pageSize();
    const mapping = try mapMirrored(size, .{ .huge_pages = true });
    defer unmapMirrored(mapping);
    try testing.expect(!mapping.huge_pages);
    const child = c.fork();
    if (child == 0) {
        mapping.memory[1] = 7;
        mapping.memory[size + 2] = 8;
        const mirrored = mapping.memory[size + 1] == 7 and mapping.memory[2] == 8;
        c._exit(@intFromBool(!mirrored));
    }
    var status: c_int = undefined;
    try testing.expectEqual(child, c.waitpid(child, &status, 0));
    try testing.expectEqual(@as(c_int, 0), status);
    for ([_]usize{ 0, size }) |copy| {
        try testing.expectEqualSlices(u8, &.{ 0, 7, 8 }, mapping.memory[copy..][0..3]);
    }
}

test "darwin: a mapping that fails half-way says why, and leaves nothing behind" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    if (@import("test_options").emulated) return error.SkipZigTest; // Has its own address space.
    const size = 4 * std.heap.pageSize();
    const failures = .{
        .{ kern_no_space, error.OutOfMemory },
        .{ kern_resource_shortage, error.OutOfMemory },
        .{ kern_protection_failure, error.PermissionDenied },
        .{ kern_not_supported, error.Unsupported },
        .{ 5, error.Unexpected }, // KERN_FAILURE
    };
    // With the kernel's usual choice, a mapping that was left would move the next one.
    const before = try mapMirrored(size, .{ .huge_pages = false });
    unmapMirrored(before);
    inline for (failures) |pair| {
        mach_shim.failure_next = pair[0];
        try testing.expectError(pair[1], mapMirrored(size, .{ .huge_pages = false }));
    }
    const after = try mapMirrored(size, .{ .huge_pages = false });
    defer unmapMirrored(after);
    try testing.expectEqual(before.memory, after.memory);
}

test "darwin: real time is asked for in the clock's own units, within what the kernel takes" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    defer mach_shim.apple_silicon = true;
    for ([_]bool{ true, false }, [_]c_int{ 24, 1000 }) |apple_silicon, units_a_microsecond| {
        mach_shim.apple_silicon = apple_silicon;
        for ([_]u8{ realtime_priority_min, 50, realtime_priority_max }) |priority| {
            try setRealtimePriority(priority);
            try testing.expectEqual(thread_time_constraint_policy, mach_shim.policy_flavor);
            const policy = [_]c_int{ 0, 500 * units_a_microsecond, 1000 * units_a_microsecond, 1 };
            try testing.expectEqual(policy, mach_shim.policy);
        }
    }
    try testing.expectError(error.InvalidPriority, setRealtimePriority(0));
    try testing.expectError(error.InvalidPriority, setRealtimePriority(100));
    mach_shim.failure_next = kern_protection_failure;
    try testing.expectError(error.PermissionDenied, setRealtimePriority(1));
    mach_shim.failure_next = 4; // KERN_INVALID_ARGUMENT
    try testing.expectError(error.Unexpected, setRealtimePriority(1));
}

test "darwin: a CPU is a tag for Intel, and nothing for Apple silicon" {
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    defer mach_shim.apple_silicon = true;
    mach_shim.apple_silicon = true;
    try testing.expectError(error.Unsupported, pinThread(0));
    mach_shim.apple_silicon = false;
    try pinThread(0);
    try testing.expectEqual(thread_affinity_policy, mach_shim.policy_flavor);
    // No tag is 0.
    try testing.expectEqual([_]c_int{ 1, 0, 0, 0 }, mach_shim.policy);
    const count = try std.Thread.getCpuCount();
    try testing.expectError(error.InvalidCpu, pinThread(@intCast(count)));
    try testing.expectError(error.InvalidCpu, pinThread(std.math.maxInt(u32)));
}

test "darwin: what is declared here is what Apple's headers declare" {
    if (builtin.os.tag != .macos) return error.SkipZigTest;
    comptime {
        @setEvalBranchQuota(200_000);
        const headers = @import("darwin_headers");
        sameNumbers(headers);
        sameLayouts(headers);
        sameCalls(headers);
    }
}

/// Of this file, and of `std.c` as far as it is used here and in os/posix.zig.
fn sameNumbers(comptime headers: type) void {
    for (.{
        .{ "EVFILT_READ", KernelEvent.filter_read },
        .{ "EVFILT_WRITE", KernelEvent.filter_write },
        .{ "EV_ADD", KernelEvent.flag_add },
        .{ "EV_DELETE", KernelEvent.flag_delete },
        .{ "EV_EOF", KernelEvent.flag_end_of_file },
        .{ "THREAD_TIME_CONSTRAINT_POLICY", thread_time_constraint_policy },
        .{ "THREAD_AFFINITY_POLICY", thread_affinity_policy },
        .{ "THREAD_AFFINITY_TAG_NULL", 0 },
        .{ "KERN_SUCCESS", kern_success },
        .{ "KERN_INVALID_ADDRESS", kern_invalid_address },
        .{ "KERN_PROTECTION_FAILURE", kern_protection_failure },
        .{ "KERN_NO_SPACE", kern_no_space },
        .{ "KERN_RESOURCE_SHORTAGE", kern_resource_shortage },
        .{ "KERN_NO_ACCESS", kern_no_access },
        .{ "KERN_NOT_SUPPORTED", kern_not_supported },
        .{ "VM_FLAGS_FIXED", vm_flags_fixed },
        .{ "VM_FLAGS_OVERWRITE", vm_flags_overwrite },
        .{ "VM_INHERIT_SHARE", vm_inherit_share },
        .{ "CLOCK_UPTIME_RAW", clock_uptime_raw },
        .{ "CLOCK_REALTIME", @backingInt(c.clockid_t.REALTIME) },
        .{ "SO_NOSIGPIPE", no_sigpipe },
        .{ "IFNAMSIZ", interface_name_size_max },
        .{ "IP_BOUND_IF", ipv4_bound_interface },
        .{ "IPV6_BOUND_IF", ipv6_bound_interface },
        .{ "AF_UNSPEC", c.AF.UNSPEC },
        .{ "AF_INET", c.AF.INET },
        .{ "AF_INET6", c.AF.INET6 },
        .{ "SOCK_STREAM", c.SOCK.STREAM },
        .{ "IPPROTO_IP", c.IPPROTO.IP },
        .{ "IPPROTO_IPV6", c.IPPROTO.IPV6 },
        .{ "IPPROTO_TCP", c.IPPROTO.TCP },
        .{ "TCP_NODELAY", c.TCP.NODELAY },
        .{ "TCP_KEEPALIVE", c.TCP.KEEPALIVE },
        .{ "TCP_KEEPINTVL", c.TCP.KEEPINTVL },
        .{ "TCP_KEEPCNT", c.TCP.KEEPCNT },
        .{ "TCP_RXT_CONNDROPTIME", c.TCP.RXT_CONNDROPTIME },
        .{ "SO_KEEPALIVE", c.SO.KEEPALIVE },
        .{ "SOL_SOCKET", c.SOL.SOCKET },
        .{ "SO_ERROR", c.SO.ERROR },
        .{ "SO_RCVBUF", c.SO.RCVBUF },
        .{ "SO_SNDBUF", c.SO.SNDBUF },
        .{ "SHUT_WR", c.SHUT.WR },
        .{ "F_SETFD", c.F.SETFD },
        .{ "F_GETFL", c.F.GETFL },
        .{ "F_SETFL", c.F.SETFL },
        .{ "FD_CLOEXEC", c.FD_CLOEXEC },
        .{ "O_NONBLOCK", bits(c.O{ .NONBLOCK = true }) },
        .{ "AI_ADDRCONFIG", bits(c.AI{ .ADDRCONFIG = true }) },
        .{ "MAP_SHARED", bits(c.MAP{ .TYPE = .SHARED }) },
        .{ "PROT_NONE", bits(c.PROT{}) },
        .{ "MAP_PRIVATE", bits(c.MAP{ .TYPE = .PRIVATE }) },
    }) |pair| {
        if (@field(headers, pair[0]) != pair[1]) @compileError(pair[0] ++ " is another number");
    }
    const read_write = headers.VM_PROT_READ | headers.VM_PROT_WRITE;
    assert(vm_prot_read_write == read_write);
    assert(bits(c.PROT{ .READ = true, .WRITE = true }) == headers.PROT_READ | headers.PROT_WRITE);
    const shared = headers.MAP_SHARED;
    assert(bits(c.MAP{ .TYPE = .SHARED, .FIXED = true }) == shared | headers.MAP_FIXED);
    assert(bits(c.MAP{ .TYPE = .SHARED, .ANONYMOUS = true }) == shared | headers.MAP_ANON);
    assert(bits(c.MAP{ .TYPE = .SHARED, .NORESERVE = true }) == shared | headers.MAP_NORESERVE);
    sameEnum(headers, "E", c.E);
    assert(headers.ENOTSUP == @backingInt(c.E.OPNOTSUPP));
    sameEnum(headers, "EAI_", c.EAI);
}

fn bits(value: anytype) u32 {
    return @bitCast(value);
}

fn sameEnum(comptime headers: type, comptime prefix: []const u8, comptime Enum: type) void {
    var count: usize = 0;
    for (@typeInfo(Enum).@"enum".field_names) |name| {
        if (!@hasDecl(headers, prefix ++ name)) continue;
        // `std.c` means Apple's ENOTSUP, as this file does, and has no name for EOPNOTSUPP, which
        // is another number there. No call of this client fails with it.
        if (std.mem.eql(u8, name, "OPNOTSUPP")) continue;
        count += 1;
        const number = @backingInt(@field(Enum, name));
        if (@field(headers, prefix ++ name) != number) @compileError(prefix ++ name ++ " differs");
    }
    if (count < 10) @compileError("the headers have other names than " ++ prefix);
}

fn sameLayouts(comptime headers: type) void {
    for (.{
        .{ headers.struct_kevent, KernelEvent },
        .{ headers.struct_mach_timebase_info, TimebaseInfo },
        .{ headers.struct_thread_affinity_policy, ThreadAffinity },
        .{ headers.struct_thread_time_constraint_policy, ThreadTimeConstraint },
        .{ headers.struct_timespec, c.timespec },
        .{ headers.struct_addrinfo, c.addrinfo },
        .{ headers.struct_sockaddr_in, c.sockaddr.in },
        .{ headers.struct_sockaddr_in6, c.sockaddr.in6 },
        .{ headers.struct_pollfd, c.pollfd },
    }) |pair| {
        const theirs = @typeInfo(pair[0]).@"struct".field_names;
        const ours = @typeInfo(pair[1]).@"struct".field_names;
        assert(theirs.len == ours.len);
        assert(@sizeOf(pair[0]) == @sizeOf(pair[1]));
        for (theirs, ours) |name, own| {
            if (@offsetOf(pair[0], name) == @offsetOf(pair[1], own)) continue;
            @compileError(@typeName(pair[1]) ++ "." ++ own ++ " lies elsewhere");
        }
    }
    const Storage = c.sockaddr.storage;
    assert(@sizeOf(headers.struct_sockaddr_storage) == @sizeOf(Storage));
    assert(@offsetOf(headers.struct_sockaddr_storage, "ss_family") == @offsetOf(Storage, "family"));
}

fn sameCalls(comptime headers: type) void {
    // The headers beside Zig lack mach_vm.h: this is the same call, with the machine's addresses.
    sameCall(headers.vm_remap, libsystem.mach_vm_remap);
    assert(@sizeOf(headers.vm_address_t) == @sizeOf(u64));
    assert(@TypeOf(headers.mach_task_self_) == @TypeOf(libsystem.mach_task_self_));
    for (@typeInfo(libsystem).@"struct".decl_names) |name| {
        if (std.mem.eql(u8, name, "mach_vm_remap")) continue;
        if (std.mem.eql(u8, name, "mach_task_self_")) continue;
        sameCall(@field(headers, name), @field(libsystem, name));
    }
    for (.{
        "arc4random_buf", "bind",           "clock_gettime", "close",       "connect",
        "freeaddrinfo",   "getaddrinfo",    "getpeername",   "getsockname", "getsockopt",
        "mmap",           "if_nametoindex", "munmap",        "recv",        "send",
        "setsockopt",     "shutdown",       "socket",
    }) |name| sameCall(@field(headers, name), @field(c, name));
}

/// As many parameters, each and the result of the same size.
fn sameCall(comptime theirs: anytype, comptime ours: anytype) void {
    const left = @typeInfo(@TypeOf(theirs)).@"fn";
    const right = @typeInfo(@TypeOf(ours)).@"fn";
    assert(left.param_types.len == right.param_types.len);
    for (left.param_types, right.param_types) |parameter, own| {
        assert(@sizeOf(parameter.?) == @sizeOf(own.?));
    }
    assert(@sizeOf(left.return_type.?) == @sizeOf(right.return_type.?));
}
