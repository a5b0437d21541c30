//! macOS: the functions of os.zig by kqueue, Mach and BSD socket options.
//!
//! Holds only what differs from Linux; the rest is os/posix.zig under the same names. What macOS
//! does not have is reported, not faked: TCP receive stamps, quick acknowledgements, busy polling
//! and locking all memory are `error.Unsupported`; binding a thread to a CPU is a hint at most.
//! The declarations beyond POSIX are in os/libsystem.zig.

const std = @import("std");
const assert = std.debug.assert;
const c = std.c;

const libsystem = @import("libsystem.zig");
const posix = @import("posix.zig");

pub const Descriptor = posix.Descriptor;
pub const Address = posix.Address;
pub const AddressList = posix.AddressList;
pub const KernelStamp = posix.KernelStamp;
pub const TimestampMode = posix.TimestampMode;
pub const SocketOptions = posix.SocketOptions;
pub const PeerProgress = posix.PeerProgress;
pub const TlsDirection = posix.TlsDirection;
pub const ReceivedRecord = posix.ReceivedRecord;
pub const Mapping = posix.Mapping;
pub const MapOptions = posix.MapOptions;

pub const resolve = posix.resolve;
pub const resolveLiteral = posix.resolveLiteral;
pub const startThread = posix.startThread;
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
    const option = libsystem.no_sigpipe;
    posix.setOption(descriptor, c.SOL.SOCKET, option, 1) catch |failure| switch (failure) {
        error.OutOfMemory => return error.OutOfMemory,
        error.PermissionDenied => return error.AccessDenied,
        error.Unsupported, error.InvalidValue, error.Unexpected => return error.Unexpected,
    };
    return descriptor;
}

/// socketpair(2): two connected sockets of this machine, closed on exec.
pub fn socketPair() posix.OpenError![2]Descriptor {
    const pair = try posix.socketPair(0);
    errdefer for (pair) |descriptor| posix.close(descriptor);
    for (pair) |descriptor| try setDescriptorFlags(descriptor);
    return pair;
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
    const size_max = libsystem.interface_name_size_max;
    if (name.len == 0 or name.len >= size_max) return error.InterfaceNotFound;
    var terminated: [size_max:0]u8 = @splat(0);
    @memcpy(terminated[0..name.len], name);
    const index = c.if_nametoindex(&terminated);
    if (index == 0) return error.InterfaceNotFound;

    const local = posix.localAddress(descriptor) orelse return error.AddressFamilyNotSupported;
    const level: i32, const option: u32 = switch (local.family()) {
        .ipv4 => .{ c.IPPROTO.IP, libsystem.ipv4_bound_interface },
        .ipv6 => .{ c.IPPROTO.IPV6, libsystem.ipv6_bound_interface },
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
pub fn setPeerTimeout(descriptor: Descriptor, timeout_ms: u32) posix.OptionError!void {
    const tcp = c.IPPROTO.TCP;
    const timeout_s: c_int = @intCast(timeout_ms / std.time.ms_per_s);
    try posix.setKeepAlive(descriptor, c.TCP.KEEPALIVE, timeout_ms);
    try posix.setOption(descriptor, tcp, c.TCP.KEEPCNT, probes_max);
    try posix.setOption(descriptor, tcp, c.TCP.RXT_CONNDROPTIME, timeout_s);
}

/// TCP_RXT_CONNDROPTIME does not count the probes of a closed window.
pub fn peerProgress(_: Descriptor) ?PeerProgress {
    return null;
}

pub fn liftUnansweredLimit(_: Descriptor) void {
    unreachable; // `peerProgress` tells nothing.
}

/// The options' current values in the kernel.
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
    return libsystem.clock_gettime_nsec_np(libsystem.clock_uptime_raw);
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
    // Touched before there is a second copy: untouched pages have no object that could be shared.
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
        libsystem.vm_flags_fixed | libsystem.vm_flags_overwrite,
        libsystem.mach_task_self_,
        @intFromPtr(source),
        @intFromBool(false), // No copy.
        &protection,
        &protection_max,
        libsystem.vm_inherit_share,
    );
    if (status != libsystem.kern_success) return posix.mapError(errnoOf(status));
    assert(address == @intFromPtr(target));
    assert(protection & libsystem.vm_prot_read_write == libsystem.vm_prot_read_write);
}

fn touch(memory: []u8) void {
    var offset: usize = 0;
    while (offset < memory.len) : (offset += std.heap.pageSize()) {
        const byte: *volatile u8 = &memory[offset];
        byte.* = 0;
    }
}

/// The errno for a `kern_return_t`, as xnu's own mmap(2) has it.
fn errnoOf(status: c_int) c.E {
    return switch (status) {
        libsystem.kern_success => .SUCCESS,
        libsystem.kern_invalid_address,
        libsystem.kern_no_space,
        libsystem.kern_resource_shortage,
        => .NOMEM,
        libsystem.kern_protection_failure, libsystem.kern_no_access => .ACCES,
        libsystem.kern_not_supported => .OPNOTSUPP,
        else => .INVAL,
    };
}

/// munmap(2) of both copies and the guard pages. Nothing may point there afterwards.
pub fn unmapMirrored(mapping: Mapping) void {
    posix.unmapGuarded(mapping.memory, 2 * mapping.size);
}

/// A hint, and on Intel only (THREAD_AFFINITY_POLICY): threads of this process that were given the
/// same CPU are put where they share a cache, those of different ones where they do not. Which CPU
/// it is remains the kernel's choice. `Unsupported` on Apple silicon, which has no such hint.
pub fn pinThread(cpu: u32) posix.TuneError!void {
    const count = std.Thread.getCpuCount() catch return error.Unexpected;
    if (cpu >= count) return error.InvalidCpu;
    const tag: c_int = @intCast(cpu + 1); // 0 would remove the hint.
    const policy: libsystem.ThreadAffinity = .{ .affinity_tag = tag };
    return setThreadPolicy(libsystem.thread_affinity_policy, policy);
}

/// THREAD_TIME_CONSTRAINT_POLICY: the calling thread runs ahead of all ordinary ones, at once when
/// it wakes. There is one such class; `priority` has to be one of SCHED_FIFO's on Linux, 1 to 99,
/// and makes no difference. The kernel takes a thread out of the class for about two seconds when
/// it has run for a second without any sleep, so it is no help to a thread that polls busily.
pub fn setRealtimePriority(priority: u8) posix.TuneError!void {
    if (priority < realtime_priority_min) return error.InvalidPriority;
    if (priority > realtime_priority_max) return error.InvalidPriority;
    const base = try timebase();
    const policy: libsystem.ThreadTimeConstraint = .{
        .period = 0, // Messages have none.
        .computation = absoluteTime(base, realtime_computation_ns),
        .constraint = absoluteTime(base, realtime_constraint_ns),
        .preemptible = @intFromBool(true),
    };
    return setThreadPolicy(libsystem.thread_time_constraint_policy, policy);
}

fn setThreadPolicy(flavor: c_uint, policy: anytype) posix.TuneError!void {
    const count = @divExact(@sizeOf(@TypeOf(policy)), @sizeOf(c_int));
    const thread = libsystem.pthread_mach_thread_np(c.pthread_self());
    const status = libsystem.thread_policy_set(thread, flavor, @ptrCast(&policy), count);
    return switch (status) {
        libsystem.kern_success => {},
        libsystem.kern_not_supported => error.Unsupported,
        libsystem.kern_protection_failure, libsystem.kern_no_access => error.PermissionDenied,
        else => posix.unexpected(errnoOf(status)),
    };
}

fn timebase() error{Unexpected}!libsystem.TimebaseInfo {
    var base: libsystem.TimebaseInfo = undefined;
    const status = libsystem.mach_timebase_info(&base);
    if (status != libsystem.kern_success) return posix.unexpected(errnoOf(status));
    assert(base.numer > 0);
    assert(base.denom > 0);
    return base;
}

/// In units of mach_absolute_time(3): 24 a microsecond on Apple silicon, 1000 on Intel.
fn absoluteTime(base: libsystem.TimebaseInfo, ns: u32) u32 {
    return @intCast(@as(u64, ns) * base.denom / base.numer);
}

/// Not on macOS: its mlockall(2) is there and always fails.
pub fn lockMemory() posix.TuneError!void {
    return error.Unsupported;
}

/// For notifier/kqueue.zig, like all that follows.
pub const KernelEvent = libsystem.KernelEvent;

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

/// One change by kevent(2). Deleting what is not there is no error, because closing a descriptor
/// has deleted it, too.
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

/// kevent(2): the number of ready events; 0 when the time has passed. Null waits without limit.
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

/// How long the thread may run before others of its class get their turn. The kernel takes 50 us to
/// 50 ms. A burst of a thousand messages is through by then.
const realtime_computation_ns = 500 * std.time.ns_per_us;

/// By when that much has to be done. Among threads of the class the earliest deadline goes first;
/// audio threads have several milliseconds. At most twice the above, or the kernel would raise
/// that.
const realtime_constraint_ns = std.time.ns_per_ms;

/// The limits of SCHED_FIFO on Linux, so that a program need not know where it runs.
const realtime_priority_min = 1;
const realtime_priority_max = 99;

/// How many keep-alive probes fit into the timeout: see `posix.setKeepAlive`.
const probes_max = 4;

comptime {
    assert(realtime_constraint_ns >= realtime_computation_ns);
    assert(realtime_constraint_ns <= 2 * realtime_computation_ns);
}
