//! Linux: the functions of os.zig by epoll, memfd, TCP options and SO_TIMESTAMPING.
//!
//! Holds only what differs from macOS; the rest is os/posix.zig under the same names. Needs a
//! kernel of 4.14 or newer (receive stamps on TCP). Newer calls are used where they exist, with an
//! older call to fall back to.

const std = @import("std");
const assert = std.debug.assert;
const c = std.c;
const linux = std.os.linux;

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

/// socket(2): non-blocking, and closed on exec.
pub fn openSocket(address: *const Address) posix.OpenError!Descriptor {
    return posix.openSocket(address, c.SOCK.NONBLOCK | c.SOCK.CLOEXEC);
}

/// socketpair(2): two connected sockets of this machine, closed on exec.
pub fn socketPair() posix.OpenError![2]Descriptor {
    return posix.socketPair(c.SOCK.CLOEXEC);
}

/// SO_BINDTODEVICE (socket(7)). Needs CAP_NET_RAW before Linux 5.7.
pub fn bindToInterface(descriptor: Descriptor, name: []const u8) posix.BindError!void {
    // The kernel would cut off a longer name, and an empty one would mean any interface.
    if (name.len == 0 or name.len >= interface_name_size_max) return error.InterfaceNotFound;
    const option = linux.SO.BINDTODEVICE;
    const status = c.setsockopt(descriptor, c.SOL.SOCKET, option, name.ptr, @intCast(name.len));
    return switch (c.errno(status)) {
        .SUCCESS => {},
        else => |cause| posix.bindError(cause),
    };
}

/// recv(2), or recvmsg(2) when the kernel's stamp is asked for. 0: the peer closed its direction.
pub inline fn receive(
    descriptor: Descriptor,
    buffer: []u8,
    stamp: ?*KernelStamp,
) posix.ReceiveError!usize {
    const target = stamp orelse return posix.receive(descriptor, buffer);
    return receiveStamped(descriptor, buffer, target);
}

fn receiveStamped(
    descriptor: Descriptor,
    buffer: []u8,
    stamp: *KernelStamp,
) posix.ReceiveError!usize {
    assert(buffer.len > 0);
    var control: [control_size_max]u8 align(@alignOf(c.cmsghdr)) = undefined;
    var part: c.iovec = .{ .base = buffer.ptr, .len = buffer.len };
    var message = receivable(&part, &control);
    while (true) {
        const size = c.recvmsg(descriptor, &message, 0);
        if (size >= 0) {
            stamp.* = stampFromControl(control[0..@intCast(message.controllen)]);
            return @intCast(size);
        }
        try posix.receiveFailed();
    }
}

/// For recvmsg(2): into one buffer, with room for control messages.
fn receivable(part: *c.iovec, control: []u8) c.msghdr {
    return .{
        .name = null,
        .namelen = 0,
        .iov = part[0..1],
        .iovlen = 1,
        .control = control.ptr,
        .controllen = @intCast(control.len),
        .flags = 0,
    };
}

/// The stamp among the control messages of one recvmsg(2) (cmsg(3)).
fn stampFromControl(control: []align(@alignOf(c.cmsghdr)) const u8) KernelStamp {
    const header_size = std.mem.alignForward(usize, @sizeOf(c.cmsghdr), c.cmsg_align);
    var offset: usize = 0;
    while (offset + header_size <= control.len) {
        const header: *const c.cmsghdr = @ptrCast(@alignCast(control[offset..].ptr));
        if (header.len < header_size or header.len > control.len - offset) break;
        const data = control[offset + header_size .. offset + header.len];
        if (header.level == c.SOL.SOCKET) switch (header.type) {
            linux.SO.TIMESTAMPNS_OLD => return stampFromTimes(1, data),
            linux.SO.TIMESTAMPING_OLD => return stampFromTimes(3, data),
            else => {},
        };
        offset += std.mem.alignForward(usize, header.len, c.cmsg_align);
    }
    return .{};
}

/// SCM_TIMESTAMPNS has one time, by software. SCM_TIMESTAMPING has three: by software, unused since
/// Linux 3.17, by hardware; the card's is wanted, where there is one.
fn stampFromTimes(comptime count: usize, data: []const u8) KernelStamp {
    if (data.len < count * @sizeOf(c.timespec)) return .{};
    const times = std.mem.bytesToValue([count]c.timespec, data[0 .. count * @sizeOf(c.timespec)]);
    const ns_hardware = nanosecondsOf(times[count - 1]);
    if (count == 3 and ns_hardware != 0) {
        return .{ .source = .hardware, .realtime_ns = ns_hardware };
    }
    const ns_software = nanosecondsOf(times[0]);
    if (ns_software == 0) return .{};
    return .{ .source = .software, .realtime_ns = ns_software };
}

fn nanosecondsOf(time: c.timespec) i64 {
    return posix.nanosecondsOf(time.sec, time.nsec);
}

/// send(2) with MSG_NOSIGNAL: a dead connection is an error, not a SIGPIPE.
pub inline fn send(descriptor: Descriptor, bytes: []const u8) posix.SendError!usize {
    return posix.send(descriptor, bytes, c.MSG.NOSIGNAL);
}

/// TCP_ULP (Documentation/networking/tls.rst): kernel TLS, still without keys. The kernel loads its
/// module `tls` by itself where it may.
pub fn attachTls(descriptor: Descriptor) posix.TlsError!void {
    const name = "tls";
    const status = c.setsockopt(descriptor, c.IPPROTO.TCP, linux.TCP.ULP, name, name.len);
    return switch (c.errno(status)) {
        .SUCCESS => {},
        else => |cause| tlsError(cause),
    };
}

/// TLS_RX and TLS_TX. The kernel then opens the records that have already arrived, too: no part of
/// them may have been read. TLS_RX_EXPECT_NO_PAD would save the kernel a copy, but with it Linux
/// 6.1 writes the data after an empty, padded record to the wrong place.
pub fn setTlsKeys(
    descriptor: Descriptor,
    direction: TlsDirection,
    info: []const u8,
) posix.TlsError!void {
    const option: u32 = switch (direction) {
        .receive => tls_receive,
        .send => tls_send,
    };
    const size: c.socklen_t = @intCast(info.len);
    const status = c.setsockopt(descriptor, sol_tls, option, info.ptr, size);
    return switch (c.errno(status)) {
        .SUCCESS => {},
        else => |cause| tlsError(cause),
    };
}

fn tlsError(cause: c.E) posix.TlsError {
    return switch (cause) {
        // No module `tls`; the kernel lacks the cipher; the module lacks the version or cipher.
        .NOENT, .NOPROTOOPT, .OPNOTSUPP, .INVAL, .PERM => error.Unsupported,
        .BUSY, .EXIST => error.KeysFixed,
        .NOTCONN => error.NotConnected,
        .NOMEM, .NOBUFS => error.OutOfMemory,
        else => posix.unexpected(cause),
    };
}

/// recvmsg(2) with room for the type of the record, without which anything but data is EIO.
pub fn receiveRecord(
    descriptor: Descriptor,
    buffer: []u8,
) posix.ReceiveRecordError!ReceivedRecord {
    assert(buffer.len > 0);
    var control: TlsControl = undefined;
    var part: c.iovec = .{ .base = buffer.ptr, .len = buffer.len };
    var message = receivable(&part, std.mem.asBytes(&control));
    while (true) {
        const size = c.recvmsg(descriptor, &message, 0);
        if (size >= 0) {
            const told = message.controllen >= TlsControl.used_size and
                control.header.level == sol_tls and control.header.type == tls_get_record_type;
            // Bytes without a type are data. Every kernel with TLS_RX reports the type of a record.
            const data_type: ?u8 = if (size > 0) content_type_data else null;
            return .{
                .size = @intCast(size),
                .content_type = if (told) control.content_type else data_type,
            };
        }
        const failure = switch (c.errno(size)) {
            .BADMSG => error.BadRecord,
            .MSGSIZE => error.RecordTooLong,
            .INVAL => error.WrongVersion,
            .KEYEXPIRED => return error.KeysExpired,
            else => {
                try posix.receiveFailed();
                continue;
            },
        };
        // Clears SO_ERROR, which would fail the next call: the one that sends the alert.
        _ = posix.getOption(descriptor, c.SOL.SOCKET, c.SO.ERROR);
        return failure;
    }
}

/// sendmsg(2) with the type of the record.
pub fn sendRecord(
    descriptor: Descriptor,
    content_type: u8,
    content: []const u8,
) posix.SendError!void {
    assert(content.len > 0);
    var control: TlsControl = .{
        .header = .{
            .len = TlsControl.used_size,
            .level = sol_tls,
            .type = tls_set_record_type,
        },
        .content_type = content_type,
    };
    var part: c.iovec_const = .{ .base = content.ptr, .len = content.len };
    const message: c.msghdr_const = .{
        .name = null,
        .namelen = 0,
        .iov = @ptrCast(&part),
        .iovlen = 1,
        .control = &control,
        .controllen = @sizeOf(TlsControl),
        .flags = 0,
    };
    while (true) {
        const size = c.sendmsg(descriptor, &message, c.MSG.NOSIGNAL);
        if (size >= 0) {
            assert(size == content.len); // A record of a few bytes is not cut.
            return;
        }
        try posix.sendFailed();
    }
}

/// A control message (cmsg(3)) with the type of a record.
const TlsControl = extern struct {
    /// musl's cmsghdr is less aligned.
    header: c.cmsghdr align(c.cmsg_align),
    content_type: u8,

    const used_size = @sizeOf(c.cmsghdr) + 1;

    comptime {
        assert(@offsetOf(TlsControl, "content_type") == @sizeOf(c.cmsghdr));
        assert(@sizeOf(TlsControl) == std.mem.alignForward(usize, used_size, c.cmsg_align));
    }
};

/// Keep-alive probes ask a silent peer; TCP_USER_TIMEOUT bounds how long it may owe an answer to
/// them, or to data (tcp(7)). It also counts answered probes of a closed window: see
/// `liftUnansweredLimit`, after which
/// the count of keep-alive probes is the limit.
pub fn setPeerTimeout(descriptor: Descriptor, timeout_ms: u32) posix.OptionError!void {
    try posix.setKeepAlive(descriptor, linux.TCP.KEEPIDLE, timeout_ms);
    try posix.setOption(descriptor, c.IPPROTO.TCP, c.TCP.KEEPCNT, keep_alive_probes);
    const limit_ms: c_int = @intCast(timeout_ms);
    try posix.setOption(descriptor, c.IPPROTO.TCP, linux.TCP.USER_TIMEOUT, limit_ms);
    // Probes of a closed window otherwise come up to two minutes apart, and one that is lost would
    // be taken for the death of the peer.
    const pause_ms = std.math.clamp(@divTrunc(limit_ms, 4), rto_max_ms_min, rto_max_ms_max);
    posix.setOption(descriptor, c.IPPROTO.TCP, tcp_rto_max_ms, pause_ms) catch |failure|
        switch (failure) {
            error.Unsupported, // Before Linux 6.15.
            error.InvalidValue,
            error.PermissionDenied,
            error.OutOfMemory,
            error.Unexpected,
            => {},
        };
}

/// TCP_INFO (tcp(7)). Null where an emulator does not have it.
pub fn peerProgress(descriptor: Descriptor) ?PeerProgress {
    var info: TcpInfo = undefined;
    var size: c.socklen_t = @sizeOf(TcpInfo);
    const status = c.getsockopt(descriptor, c.IPPROTO.TCP, linux.TCP.INFO, &info, &size);
    if (status != 0 or size < @sizeOf(TcpInfo)) return null;
    // Nothing is under way although there is something to send.
    const waits = info.unacked == 0 and info.notsent_bytes > 0;
    // A peer that has taken its window back answers what is sent again, and still has no room.
    const owes_data = info.unacked > 0 and info.last_ack_recv > info.last_data_sent;
    return .{
        .had_no_room = waits or info.rwnd_limited > 0,
        .has_unanswered = owes_data or info.probes > 0,
        .silent_ms = info.last_ack_recv,
    };
}

/// TCP_USER_TIMEOUT of 0. The kernel's own limits, of minutes, are left.
pub fn liftUnansweredLimit(descriptor: Descriptor) void {
    posix.setOption(descriptor, c.IPPROTO.TCP, linux.TCP.USER_TIMEOUT, 0) catch |failure|
        switch (failure) { // It worked in `setPeerTimeout`: the connection is gone.
            error.Unsupported,
            error.InvalidValue,
            error.PermissionDenied,
            error.OutOfMemory,
            error.Unexpected,
            => {},
        };
}

/// struct tcp_info of <linux/tcp.h>, as far as it is used here; the names are the kernel's.
const TcpInfo = extern struct {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    unused_before_unacked: [20]u8,
    unacked: u32,
    unused_before_sent: [16]u8,
    /// Milliseconds ago, as is the next.
    last_data_sent: u32,
    unused_before_ack: [8]u8,
    last_ack_recv: u32,
    unused_before_notsent: [84]u8,
    notsent_bytes: u32,
    unused_before_limited: [28]u8,
    /// Microseconds in all.
    rwnd_limited: u64,

    comptime {
        assert(@offsetOf(TcpInfo, "unacked") == 24);
        assert(@offsetOf(TcpInfo, "last_data_sent") == 44);
        assert(@offsetOf(TcpInfo, "last_ack_recv") == 56);
        assert(@offsetOf(TcpInfo, "notsent_bytes") == 144);
        assert(@offsetOf(TcpInfo, "rwnd_limited") == 176);
        assert(@sizeOf(TcpInfo) == 184);
    }
};

/// How many keep-alive probes fit into the timeout: see `posix.setKeepAlive`.
const keep_alive_probes = 4;

/// TCP_RTO_MAX_MS of <linux/tcp.h>, and its limits.
const tcp_rto_max_ms = 44;
const rto_max_ms_min = 1_000;
const rto_max_ms_max = 120_000;

/// TCP_QUICKACK (tcp(7)). Not permanent: the kernel goes back to delayed acknowledgements.
pub fn setQuickAck(descriptor: Descriptor) posix.OptionError!void {
    return posix.setOption(descriptor, c.IPPROTO.TCP, linux.TCP.QUICKACK, 1);
}

/// SO_BUSY_POLL (socket(7)). To raise it above net.core.busy_read needs CAP_NET_ADMIN.
pub fn setBusyPoll(descriptor: Descriptor, microseconds: u32) posix.OptionError!void {
    const value = std.math.cast(c_int, microseconds) orelse return error.InvalidValue;
    return posix.setOption(descriptor, c.SOL.SOCKET, linux.SO.BUSY_POLL, value);
}

/// SO_TIMESTAMPNS or SO_TIMESTAMPING (Documentation/networking/timestamping.rst); they exclude one
/// another, so that the other is switched off. The kernel starts and stops to stamp in the
/// background, for all sockets at once: the first segments after this call may have no stamp.
pub fn enableReceiveStamps(descriptor: Descriptor, mode: TimestampMode) posix.OptionError!void {
    const flags_hardware = stamping_rx_hardware | stamping_rx_software |
        stamping_software | stamping_raw_hardware;
    const flags: c_int = if (mode == .hardware) flags_hardware else 0;
    try posix.setOption(descriptor, c.SOL.SOCKET, linux.SO.TIMESTAMPING_OLD, flags);
    const software: c_int = @intFromBool(mode == .software);
    try posix.setOption(descriptor, c.SOL.SOCKET, linux.SO.TIMESTAMPNS_OLD, software);
}

/// The options' current values in the kernel.
pub fn socketOptions(descriptor: Descriptor) SocketOptions {
    const tcp = c.IPPROTO.TCP;
    const no_delay = posix.getOption(descriptor, tcp, linux.TCP.NODELAY) orelse 0;
    const quick_ack = posix.getOption(descriptor, tcp, linux.TCP.QUICKACK);
    const busy_poll = posix.getOption(descriptor, c.SOL.SOCKET, linux.SO.BUSY_POLL);
    return .{
        .no_delay = no_delay != 0,
        .peer_timeout_s = posix.peerTimeout(descriptor, linux.TCP.USER_TIMEOUT, 1000),
        .quick_ack = if (quick_ack) |value| value != 0 else null,
        .busy_poll_us = if (busy_poll) |value| @intCast(@max(value, 0)) else null,
        .receive_buffer_size = posix.getSizeOption(descriptor, c.SO.RCVBUF),
        .send_buffer_size = posix.getSizeOption(descriptor, c.SO.SNDBUF),
    };
}

/// CLOCK_MONOTONIC: the clock of deadlines and of epoll's time-outs.
pub inline fn monotonicNs() u64 {
    return @intCast(posix.clockNs(.MONOTONIC));
}

/// CLOCK_REALTIME: the clock of the kernel's receive stamps.
pub inline fn realtimeNs() i64 {
    return posix.clockNs(.REALTIME);
}

/// getrandom(2). Fails on no kernel that this runs on: panics rather than give bad bytes.
pub fn random(buffer: []u8) void {
    var filled: usize = 0;
    while (filled < buffer.len) {
        const rest = buffer[filled..];
        const size = linux.getrandom(rest.ptr, rest.len, 0);
        switch (linux.errno(size)) {
            .SUCCESS => filled += size,
            .INTR => {},
            else => @panic("getrandom failed"),
        }
    }
}

/// memfd_create(2), mapped twice. Every page is there when it returns, so that neither a page fault
/// nor a lack of memory waits on the data path. On huge pages if they are asked for, the size is a
/// multiple of their size, and the system has reserved some (hugetlbfs, vm.nr_hugepages).
/// Asserts that the size is a multiple of the page size.
pub fn mapMirrored(size: usize, options: MapOptions) posix.MapError!Mapping {
    assert(size > 0);
    assert(size % std.heap.pageSize() == 0);
    if (options.huge_pages and size % huge_page_size == 0) {
        if (mapObject(size, .{ .huge_pages = true })) |mapping| {
            return mapping;
        } else |failure| switch (failure) {
            // No reason to fail: `Mapping.huge_pages` tells which pages these are.
            error.OutOfMemory,
            error.TooManyOpenFiles,
            error.TooManyOpenFilesInSystem,
            error.PermissionDenied,
            error.Unsupported,
            error.Unexpected,
            => {},
        }
    }
    return mapObject(size, .{ .huge_pages = false });
}

fn mapObject(size: usize, options: MapOptions) posix.MapError!Mapping {
    const flags_huge: c_uint = linux.MFD.HUGETLB | linux.MFD.HUGE_2MB;
    const flags = linux.MFD.CLOEXEC | if (options.huge_pages) flags_huge else 0;
    const object: Descriptor = descriptor: {
        const status = linux.memfd_create("hftws", flags);
        break :descriptor switch (linux.errno(status)) {
            .SUCCESS => @intCast(status),
            else => |cause| return posix.mapError(cause),
        };
    };
    defer posix.close(object);
    // Allocates the pages now: too few are an error here, and not a SIGBUS later.
    try setObjectSize(object, size);

    // Huge pages can be mapped only at a multiple of their size.
    const alignment: usize = if (options.huge_pages) huge_page_size else std.heap.pageSize();
    const memory = try posix.reserveGuarded(2 * size, alignment);
    errdefer posix.unmapGuarded(memory, 2 * size);
    const shared: c.MAP = .{ .TYPE = .SHARED, .FIXED = true, .POPULATE = true };
    try posix.mapOver(memory, size, object, shared);
    try posix.mapOver(@alignCast(memory + size), size, object, shared);
    return .{ .memory = memory, .size = size, .huge_pages = options.huge_pages };
}

fn setObjectSize(object: Descriptor, size: usize) posix.MapError!void {
    while (true) switch (linux.errno(linux.ftruncate(object, @intCast(size)))) {
        .SUCCESS => break,
        .INTR => {},
        else => |cause| return posix.mapError(cause),
    };
    while (true) switch (linux.errno(linux.fallocate(object, 0, 0, @intCast(size)))) {
        .SUCCESS => break,
        .INTR => {},
        else => |cause| return posix.mapError(cause),
    };
}

/// munmap(2) of both copies and the guard pages. Nothing may point there afterwards.
pub fn unmapMirrored(mapping: Mapping) void {
    posix.unmapGuarded(mapping.memory, 2 * mapping.size);
}

/// sched_setaffinity(2) of the calling thread to one CPU.
pub fn pinThread(cpu: u32) posix.TuneError!void {
    var set: linux.cpu_set_t = @splat(0);
    if (cpu >= @bitSizeOf(linux.cpu_set_t)) return error.InvalidCpu;
    const bit: std.math.Log2Int(usize) = @intCast(cpu % @bitSizeOf(usize));
    set[cpu / @bitSizeOf(usize)] = @as(usize, 1) << bit;
    const size = @sizeOf(linux.cpu_set_t);
    return switch (linux.errno(linux.syscall3(.sched_setaffinity, 0, size, @intFromPtr(&set)))) {
        .SUCCESS => {},
        .INVAL => error.InvalidCpu,
        .PERM => error.PermissionDenied,
        .NOSYS => error.Unsupported,
        else => |cause| posix.unexpected(cause),
    };
}

/// sched_setscheduler(2): SCHED_FIFO for the calling thread, not for what it forks.
/// Needs CAP_SYS_NICE or RLIMIT_RTPRIO.
pub fn setRealtimePriority(priority: u8) posix.TuneError!void {
    const policy: linux.SCHED = .{ .mode = .FIFO, .RESET_ON_FORK = true };
    const parameters: linux.sched_param = .{ .priority = priority };
    return switch (linux.errno(linux.sched_setscheduler(0, policy, &parameters))) {
        .SUCCESS => {},
        .INVAL => error.InvalidPriority,
        .PERM => error.PermissionDenied,
        .NOSYS => error.Unsupported,
        else => |cause| posix.unexpected(cause),
    };
}

/// mlockall(2): the memory of this process, now and later, is never swapped out.
/// Needs CAP_IPC_LOCK or a high enough RLIMIT_MEMLOCK.
pub fn lockMemory() posix.TuneError!void {
    return switch (linux.errno(linux.mlockall(.{ .CURRENT = true, .FUTURE = true }))) {
        .SUCCESS => {},
        .NOMEM, .AGAIN => error.MemoryLockLimit,
        .PERM => error.PermissionDenied,
        .NOSYS => error.Unsupported,
        else => |cause| posix.unexpected(cause),
    };
}

/// One event of epoll(7). For notifier/epoll.zig, like all that follows.
pub const EpollEvent = linux.epoll_event;

pub const EpollOperation = enum(c_uint) {
    add = linux.EPOLL.CTL_ADD,
    modify = linux.EPOLL.CTL_MOD,
    remove = linux.EPOLL.CTL_DEL,
};

/// epoll_create1(2), closed on exec. The caller closes it.
pub fn epollCreate() posix.NotifierError!Descriptor {
    const epoll = c.epoll_create1(linux.EPOLL.CLOEXEC);
    return switch (c.errno(epoll)) {
        .SUCCESS => epoll,
        else => |cause| posix.notifierError(cause),
    };
}

/// epoll_ctl(2). Removing what is not there is no error: closing a descriptor has removed it, too.
pub fn epollControl(
    epoll: Descriptor,
    operation: EpollOperation,
    descriptor: Descriptor,
    event: EpollEvent,
) posix.WatchError!void {
    var copy = event;
    switch (c.errno(c.epoll_ctl(epoll, @backingInt(operation), descriptor, &copy))) {
        .SUCCESS => {},
        .NOENT, .BADF => |cause| switch (operation) {
            .remove => {},
            .add, .modify => return posix.watchError(cause),
        },
        else => |cause| return posix.watchError(cause),
    }
}

/// epoll_wait(2): how many events there are, 0 when the time passed; -1 waits without end.
pub inline fn epollWait(
    epoll: Descriptor,
    events: []EpollEvent,
    timeout_ms: c_int,
) posix.PollError!usize {
    return eventsCount(c.epoll_wait(epoll, events.ptr, @intCast(events.len), timeout_ms));
}

/// epoll_pwait2(2), the same with nanoseconds. `Unsupported` before Linux 5.11 or glibc 2.35.
pub inline fn epollWaitNs(
    epoll: Descriptor,
    events: []EpollEvent,
    timeout_ns: u64,
) posix.PollError!usize {
    // Weak: the module must load where libc does not have it.
    const call = @extern(?EpollPwait2, .{ .name = "epoll_pwait2", .linkage = .weak }) orelse
        return error.Unsupported;
    const timeout = posix.timespecOf(timeout_ns);
    return eventsCount(call(epoll, events.ptr, @intCast(events.len), &timeout, null));
}

inline fn eventsCount(status: c_int) posix.PollError!usize {
    if (status < 0) return pollFailed();
    return @intCast(status);
}

/// A function of its own, so that the wait itself is short enough to be inlined.
noinline fn pollFailed() posix.PollError {
    return posix.pollError(c.errno(-1));
}

/// eventfd(2), not blocking, closed on exec. The caller closes it.
pub fn eventCreate() posix.NotifierError!Descriptor {
    const event = c.eventfd(0, linux.EFD.CLOEXEC | linux.EFD.NONBLOCK);
    return switch (c.errno(event)) {
        .SUCCESS => event,
        else => |cause| posix.notifierError(cause),
    };
}

/// Makes an eventfd readable, until `eventLower`. Any thread may call it, and a signal handler.
pub fn eventRaise(event: Descriptor) void {
    const count: u64 = 1;
    // It fails only when the count is at its limit: then it is readable.
    _ = c.write(event, @ptrCast(&count), @sizeOf(u64));
}

pub fn eventLower(event: Descriptor) void {
    var count: u64 = undefined;
    _ = c.read(event, @ptrCast(&count), @sizeOf(u64)); // It fails when it is not raised.
}

/// timerfd_create(2) on the clock of deadlines, not blocking, closed on exec. The caller closes it.
pub fn timerCreate() posix.NotifierError!Descriptor {
    const flags: linux.TFD = .{ .CLOEXEC = true, .NONBLOCK = true };
    const timer = c.timerfd_create(.MONOTONIC, @bitCast(flags));
    return switch (c.errno(timer)) {
        .SUCCESS => timer,
        else => |cause| posix.notifierError(cause),
    };
}

/// Makes a timerfd readable from then on; null: not before it is set again.
pub fn timerSet(timer: Descriptor, deadline_ns: ?u64) void {
    const setting: c.itimerspec = .{
        .it_interval = .{ .sec = 0, .nsec = 0 },
        // A time of 0 would switch the timer off.
        .it_value = if (deadline_ns) |deadline| posix.timespecOf(@max(deadline, 1)) else .{
            .sec = 0,
            .nsec = 0,
        },
    };
    const flags: linux.TFD.TIMER = .{ .ABSTIME = true };
    const status = c.timerfd_settime(timer, @bitCast(flags), &setting, null);
    assert(c.errno(status) == .SUCCESS); // The descriptor and the time are valid.
}

const EpollPwait2 = *const fn (
    epoll: Descriptor,
    events: [*]EpollEvent,
    events_max: c_int,
    timeout: ?*const c.timespec,
    signal_mask: ?*const anyopaque,
) callconv(.c) c_int;

/// IFNAMSIZ, with the terminating zero.
const interface_name_size_max = 16;

/// MFD_HUGE_2MB rather than the system's default size, which may be 1 GiB.
const huge_page_size = 2 * 1024 * 1024;

/// Room for SCM_TIMESTAMPING (64 bytes) and for another small message beside it.
const control_size_max = 128;

/// <linux/socket.h> and <linux/tls.h>.
const sol_tls = 282;
const tls_send = 1; // TLS_TX
const tls_receive = 2; // TLS_RX
const tls_set_record_type = 1;
const tls_get_record_type = 2;

/// RFC 8446, section 5.1.
const content_type_data = 23;

/// SOF_TIMESTAMPING_*, include/uapi/linux/net_tstamp.h.
const stamping_rx_hardware = 1 << 2;
const stamping_rx_software = 1 << 3;
const stamping_software = 1 << 4;
const stamping_raw_hardware = 1 << 6;

comptime {
    // The kernel's time structures are those of libc only where both have 64 bits.
    assert(@sizeOf(c.timespec) == 16);
    assert(control_size_max >= 2 * 64);
    assert(c.MSG.NOSIGNAL != 0);
}

const testing = std.testing;

/// Control messages as the kernel lays them out, one after the other.
const ControlWriter = struct {
    buffer: [control_size_max]u8 align(@alignOf(c.cmsghdr)) = @splat(0),
    size: usize = 0,

    fn append(writer: *ControlWriter, level: i32, kind: i32, data: []const u8) void {
        const header: c.cmsghdr = .{
            .len = @intCast(@sizeOf(c.cmsghdr) + data.len),
            .level = level,
            .type = kind,
        };
        const target = writer.buffer[writer.size..];
        @memcpy(target[0..@sizeOf(c.cmsghdr)], std.mem.asBytes(&header));
        @memcpy(target[@sizeOf(c.cmsghdr)..][0..data.len], data);
        const size = @sizeOf(c.cmsghdr) + data.len;
        writer.size += std.mem.alignForward(usize, size, c.cmsg_align);
    }

    fn stamp(writer: *const ControlWriter) KernelStamp {
        return stampFromControl(writer.buffer[0..writer.size]);
    }
};

test "stamp: the card's time is taken before the kernel's" {
    var times: [3]c.timespec = @splat(.{ .sec = 0, .nsec = 0 });
    times[0] = .{ .sec = 10, .nsec = 1 };
    times[2] = .{ .sec = 9, .nsec = 999_999_999 };
    var both: ControlWriter = .{};
    both.append(c.SOL.SOCKET, linux.SO.TIMESTAMPING_OLD, std.mem.asBytes(&times));
    const hardware: KernelStamp = .{ .source = .hardware, .realtime_ns = 9_999_999_999 };
    try testing.expectEqual(hardware, both.stamp());

    times[2] = .{ .sec = 0, .nsec = 0 };
    var software_only: ControlWriter = .{};
    software_only.append(c.SOL.SOCKET, linux.SO.TIMESTAMPING_OLD, std.mem.asBytes(&times));
    const software: KernelStamp = .{ .source = .software, .realtime_ns = 10_000_000_001 };
    try testing.expectEqual(software, software_only.stamp());

    times[0] = .{ .sec = 0, .nsec = 0 };
    var neither: ControlWriter = .{};
    neither.append(c.SOL.SOCKET, linux.SO.TIMESTAMPING_OLD, std.mem.asBytes(&times));
    try testing.expectEqual(KernelStamp.Source.none, neither.stamp().source);
}

test "stamp: found behind another control message, and not in one that is cut" {
    const time: c.timespec = .{ .sec = 2, .nsec = 3 };
    var writer: ControlWriter = .{};
    writer.append(c.IPPROTO.IP, 8, "tos!!");
    writer.append(c.SOL.SOCKET, linux.SO.TIMESTAMPNS_OLD, std.mem.asBytes(&time));
    const stamp: KernelStamp = .{ .source = .software, .realtime_ns = 2_000_000_003 };
    try testing.expectEqual(stamp, writer.stamp());
    for (0..writer.size) |size| {
        const cut = stampFromControl(writer.buffer[0..size]);
        try testing.expectEqual(KernelStamp.Source.none, cut.source);
    }
}
