//! What Linux and macOS share of os.zig: types, errors and POSIX calls.
//!
//! Design: one function for each system call, without state, and one `switch` for each error set,
//! so that each errno is named once. An error that no caller can act on is `error.Unexpected`; its
//! errno is kept for the message (`unexpectedErrno`). All calls go through libc, so that libraries
//! which replace libc's socket calls (kernel bypass) see them. This file does not know which kernel
//! it runs on: os/linux.zig and os/darwin.zig pass what differs as parameters.

const std = @import("std");
const assert = std.debug.assert;
const memcheck = std.valgrind.memcheck;
const c = std.c;

const constants = @import("../constants.zig");

/// A file descriptor.
pub const Descriptor = c.fd_t;

/// The address and port of one end of a TCP connection; a value, in the kernel's own form.
pub const Address = struct {
    storage: c.sockaddr.storage,
    size: c.socklen_t,

    pub const Family = enum { ipv4, ipv6 };

    /// Longest text of `format`, with the scope of a link-local address.
    pub const text_size_max =
        "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%4294967295]:65535".len;

    /// Reads `127.0.0.1` or `::1` (no brackets, no scope, no name); null when it is neither.
    pub fn parse(text: []const u8, port_number: u16) ?Address {
        var terminated: [text_size_max + 1]u8 = undefined;
        if (text.len >= terminated.len) return null;
        if (std.mem.findScalar(u8, text, 0) != null) return null;
        @memcpy(terminated[0..text.len], text);
        terminated[text.len] = 0;
        const string = terminated[0..text.len :0];

        var ipv4: c.sockaddr.in = .{ .port = std.mem.nativeToBig(u16, port_number), .addr = 0 };
        if (inet_pton(c.AF.INET, string, &ipv4.addr) == 1) return fromValue(c.sockaddr.in, ipv4);
        var ipv6: c.sockaddr.in6 = .{
            .port = std.mem.nativeToBig(u16, port_number),
            .flowinfo = 0,
            .addr = @splat(0),
            .scope_id = 0,
        };
        if (inet_pton(c.AF.INET6, string, &ipv6.addr) == 1) return fromValue(c.sockaddr.in6, ipv6);
        return null;
    }

    /// Copies the kernel's form; null when it is neither IPv4 nor IPv6, or too short.
    fn fromKernel(source: *const c.sockaddr, size: c.socklen_t) ?Address {
        const size_needed: c.socklen_t = switch (source.family) {
            c.AF.INET => @sizeOf(c.sockaddr.in),
            c.AF.INET6 => @sizeOf(c.sockaddr.in6),
            else => return null,
        };
        if (size < size_needed) return null;
        var address: Address = .{
            .storage = std.mem.zeroes(c.sockaddr.storage),
            .size = size_needed,
        };
        const bytes: [*]const u8 = @ptrCast(source);
        @memcpy(std.mem.asBytes(&address.storage)[0..size_needed], bytes[0..size_needed]);
        return address;
    }

    fn fromValue(comptime Value: type, value: Value) Address {
        return fromKernel(@ptrCast(&value), @sizeOf(Value)).?;
    }

    pub fn family(address: *const Address) Family {
        return switch (address.storage.family) {
            c.AF.INET => .ipv4,
            c.AF.INET6 => .ipv6,
            else => unreachable,
        };
    }

    pub fn port(address: *const Address) u16 {
        return switch (address.family()) {
            .ipv4 => std.mem.bigToNative(u16, address.viewConst(c.sockaddr.in).port),
            .ipv6 => std.mem.bigToNative(u16, address.viewConst(c.sockaddr.in6).port),
        };
    }

    fn setPort(address: *Address, port_number: u16) void {
        const port_big = std.mem.nativeToBig(u16, port_number);
        switch (address.family()) {
            .ipv4 => address.view(c.sockaddr.in).port = port_big,
            .ipv6 => address.view(c.sockaddr.in6).port = port_big,
        }
    }

    /// Same family, address, port and scope.
    pub fn equal(address: *const Address, other: *const Address) bool {
        if (address.family() != other.family() or address.port() != other.port()) return false;
        switch (address.family()) {
            .ipv4 => {
                const addr = address.viewConst(c.sockaddr.in).addr;
                return addr == other.viewConst(c.sockaddr.in).addr;
            },
            .ipv6 => {
                const left = address.viewConst(c.sockaddr.in6);
                const right = other.viewConst(c.sockaddr.in6);
                if (left.scope_id != right.scope_id) return false;
                return std.mem.eql(u8, &left.addr, &right.addr);
            },
        }
    }

    /// `127.0.0.1:443`, `[::1]:443`; a link-local address with its scope: `[fe80::1%2]:443`.
    /// For `{f}`; never longer than `text_size_max`.
    /// Such as `127.0.0.1:443` and `[::1]:443`.
    pub fn format(address: Address, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        switch (address.family()) {
            .ipv4 => try address.formatHost(writer),
            .ipv6 => {
                try writer.writeByte('[');
                try address.formatHost(writer);
                try writer.writeByte(']');
            },
        }
        try writer.print(":{d}", .{address.port()});
    }

    /// Without the port.
    pub fn formatHost(address: Address, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        var buffer: [text_size_max + 1:0]u8 = undefined;
        const source: *const anyopaque = switch (address.family()) {
            .ipv4 => &address.viewConst(c.sockaddr.in).addr,
            .ipv6 => &address.viewConst(c.sockaddr.in6).addr,
        };
        const text = inet_ntop(address.storage.family, source, &buffer, buffer.len);
        // Cannot fail: the family is known and the buffer is large enough.
        const ip_text = std.mem.span(text.?);
        try writer.writeAll(ip_text);
        if (address.family() == .ipv6) {
            const scope = address.viewConst(c.sockaddr.in6).scope_id;
            if (scope != 0) try writer.print("%{d}", .{scope});
        }
    }

    /// In the kernel's form for its family. Asserts that it is large enough for that.
    pub fn view(address: *Address, comptime Value: type) *Value {
        assert(address.size >= @sizeOf(Value));
        return @ptrCast(&address.storage);
    }

    fn viewConst(address: *const Address, comptime Value: type) *const Value {
        assert(address.size >= @sizeOf(Value));
        return @ptrCast(&address.storage);
    }

    fn kernelForm(address: *const Address) *const c.sockaddr {
        return @ptrCast(&address.storage);
    }
};

/// What a name resolved to, in the order to try; at most `constants.addresses_max`.
pub const AddressList = struct {
    items: [constants.addresses_max]Address = undefined,
    count: usize = 0,

    pub fn slice(list: *const AddressList) []const Address {
        return list.items[0..list.count];
    }

    /// False when the list is full: further addresses are not tried.
    pub fn append(list: *AddressList, address: Address) bool {
        assert(list.count <= list.items.len);
        if (list.count == list.items.len) return false;
        list.items[list.count] = address;
        list.count += 1;
        return true;
    }
};

/// When the kernel or the network card got the newest segment of a read, by CLOCK_REALTIME
/// (`software`) or by the card's own clock (`hardware`).
pub const KernelStamp = struct {
    source: Source = .none,
    realtime_ns: i64 = 0,

    /// `none`: the kernel gave no stamp, and `realtime_ns` means nothing.
    pub const Source = enum { none, software, hardware };
};

/// Which half of a connection kernel TLS is given keys for.
pub const TlsDirection = enum { receive, send };

/// The result of one read from a socket whose records the kernel opens.
pub const ReceivedRecord = struct {
    /// May be 0, for a record without content.
    size: usize,
    /// The content type of all of these bytes (RFC 8446, section 5.1). Null: the peer closed its
    /// direction.
    content_type: ?u8,
};

/// Which receive stamps to ask the kernel for. `hardware` includes the kernel's own stamps, for
/// segments that the card does not stamp. An administrator has to switch on the card's stamps
/// (SIOCSHWTSTAMP).
pub const TimestampMode = enum { none, software, hardware };

/// The options' values in the kernel, which may differ from what was asked for. Null: this system
/// does not have the option.
pub const SocketOptions = struct {
    no_delay: bool,
    peer_timeout_s: ?u32,
    quick_ack: ?bool,
    busy_poll_us: ?u32,
    receive_buffer_size: u32,
    send_buffer_size: u32,
};

/// How far the peer has come with what was sent to it.
pub const PeerProgress = struct {
    /// Data has had to wait because the peer had no room for it, now or earlier.
    had_no_room: bool,
    /// It has not answered the last data, or the last probe that asks whether there is room now.
    has_unanswered: bool,
    /// How long ago its last acknowledgement came.
    silent_ms: u32,
};

/// A mirrored mapping: the bytes at [size, 2 * size) are those at [0, size). On either side lies a
/// guard page: an access beyond the edge is a SIGSEGV and does not reach other memory.
pub const Mapping = struct {
    memory: [*]align(std.heap.page_size_min) u8,
    /// The size of one copy.
    size: usize,
    /// Whether it really lies on huge pages.
    huge_pages: bool,
};

pub const MapOptions = struct { huge_pages: bool };

/// `in_progress`: wait until the descriptor is writable, then ask `connectResult`.
pub const ConnectState = enum { connected, in_progress };

/// What a notifier watches a descriptor for.
pub const Interest = packed struct {
    readable: bool = false,
    writable: bool = false,
};

/// What a descriptor is ready for. An error or a hang-up makes it `readable`, and also `writable`
/// where that is watched: the next call on the descriptor returns the error.
pub const Ready = packed struct {
    readable: bool = false,
    writable: bool = false,
};

/// Why a wait ended.
pub const Wake = enum {
    /// Something that is watched is ready.
    ready,
    /// The whole time has passed and nothing happened.
    timed_out,
    /// A signal came (EINTR): let its handler run, then wait again for the rest of the time.
    interrupted,
};

pub const ResolveError = error{
    /// The name, or an address for it, does not exist.
    NameNotFound,
    /// No name server answered in time.
    TemporaryFailure,
    /// The name server refused, or its answer made no sense: trying again does not help.
    ResolverFailure,
    OutOfMemory,
    Unexpected,
};

pub const ThreadError = error{
    /// No more threads: RLIMIT_NPROC, a control group's limit, or no memory for a stack.
    ThreadLimit,
    Unexpected,
};

pub const OpenError = error{
    AddressFamilyNotSupported,
    /// This process has too many open descriptors (RLIMIT_NOFILE).
    TooManyOpenFiles,
    /// The whole system has too many open descriptors.
    TooManyOpenFilesInSystem,
    AccessDenied,
    OutOfMemory,
    Unexpected,
};

pub const ConnectError = error{
    ConnectionRefused,
    ConnectionReset,
    NetworkUnreachable,
    HostUnreachable,
    TimedOut,
    /// No local address or port for this peer.
    AddressNotAvailable,
    AddressInUse,
    AddressFamilyNotSupported,
    /// Forbidden by a firewall or a security policy.
    AccessDenied,
    OutOfMemory,
    Unexpected,
};

pub const BindError = error{
    AddressInUse,
    /// Not an address of this machine.
    AddressNotAvailable,
    /// An IPv4 address for an IPv6 socket, or the other way.
    AddressFamilyNotSupported,
    AccessDenied,
    /// `bindToInterface`: no interface of that name.
    InterfaceNotFound,
    OutOfMemory,
    Unexpected,
};

pub const ReceiveError = error{WouldBlock} || ReceiveFailure;

/// What may end a stream.
pub const ReceiveFailure = error{
    ConnectionReset,
    /// The peer stopped acknowledging (keep-alive, retransmission limit).
    TimedOut,
    NetworkUnreachable,
    HostUnreachable,
    OutOfMemory,
    Unexpected,
};

/// Errors of reading from a socket whose records the kernel opens.
pub const ReceiveRecordError = ReceiveError || error{
    /// The tag of a record was wrong.
    BadRecord,
    RecordTooLong,
    /// The version in the header of a record is another.
    WrongVersion,
    /// The peer has changed its keys, and the kernel has not been given the new ones.
    KeysExpired,
};

/// Errors of giving keys to the kernel.
pub const TlsError = error{
    /// This system has no kernel TLS, or none for this version and cipher.
    Unsupported,
    /// The kernel has keys already and cannot change them.
    KeysFixed,
    NotConnected,
    OutOfMemory,
    Unexpected,
};

pub const SendError = error{
    WouldBlock,
    /// The connection is shut down for sending, by the peer's RST or by this client.
    BrokenPipe,
    ConnectionReset,
    TimedOut,
    NetworkUnreachable,
    HostUnreachable,
    /// Forbidden by a firewall or a security policy.
    AccessDenied,
    OutOfMemory,
    Unexpected,
};

pub const OptionError = error{
    /// This system does not have the option.
    Unsupported,
    /// The option needs a privilege (busy polling: CAP_NET_ADMIN).
    PermissionDenied,
    InvalidValue,
    OutOfMemory,
    Unexpected,
};

pub const MapError = error{
    OutOfMemory,
    TooManyOpenFiles,
    TooManyOpenFilesInSystem,
    PermissionDenied,
    Unsupported,
    Unexpected,
};

pub const TuneError = error{
    /// Not allowed without a privilege or a higher limit.
    PermissionDenied,
    /// No such CPU, or none that this process may use.
    InvalidCpu,
    /// Outside of what SCHED_FIFO allows (Linux: 1 to 99).
    InvalidPriority,
    /// More memory than RLIMIT_MEMLOCK allows.
    MemoryLockLimit,
    Unsupported,
    Unexpected,
};

pub const NotifierError = error{
    TooManyOpenFiles,
    TooManyOpenFilesInSystem,
    OutOfMemory,
    Unexpected,
};

pub const WatchError = error{
    /// Linux: /proc/sys/fs/epoll/max_user_watches.
    WatchLimit,
    OutOfMemory,
    Unexpected,
};

pub const WaitError = error{ OutOfMemory, Unexpected };

/// Errors of the system call in a notifier's wait, which does not pass on the first two.
pub const PollError = error{
    Interrupted,
    /// This kernel does not have the call.
    Unsupported,
} || WaitError;

threadlocal var unexpected_errno: u16 = 0;

/// The errno behind this thread's last `error.Unexpected`; 0 when there was none.
pub fn unexpectedErrno() u16 {
    return unexpected_errno;
}

/// Keeps the errno for `unexpectedErrno`. Not inline: the address of a thread's variable would cost
/// the calls that do not fail two instructions.
pub noinline fn unexpected(cause: c.E) error{Unexpected} {
    @branchHint(.cold);
    assert(cause != .SUCCESS);
    unexpected_errno = @truncate(@as(u32, @intCast(@backingInt(cause))));
    return error.Unexpected;
}

/// Fills the list with the one address that the host is in text form, perhaps with a scope
/// (`fe80::1%eth0`). False when it is a name. Asks no server and never blocks.
pub fn resolveLiteral(host: [:0]const u8, port: u16, list: *AddressList) ResolveError!bool {
    list.count = 0;
    if (Address.parse(host, port)) |address| {
        const appended = list.append(address);
        assert(appended);
        return true;
    }
    if (std.mem.findScalar(u8, host, ':') == null) return false; // No name has one.
    try resolveWith(host, port, list, .{ .NUMERICHOST = true });
    if (list.count == 0) return error.NameNotFound;
    return true;
}

/// getaddrinfo(3) for TCP. Blocks, unless the host is an address in text form.
pub fn resolve(host: [:0]const u8, port: u16, list: *AddressList) ResolveError!void {
    if (try resolveLiteral(host, port, list)) return;
    // First only the families of which this machine has an address (AI_ADDRCONFIG). On a machine
    // that has only the loopback interface that finds nothing, hence the second try.
    resolveWith(host, port, list, .{ .ADDRCONFIG = true }) catch |failure| switch (failure) {
        error.NameNotFound => {},
        error.TemporaryFailure,
        error.ResolverFailure,
        error.OutOfMemory,
        error.Unexpected,
        => |other| return other,
    };
    if (list.count == 0) try resolveWith(host, port, list, .{});
    if (list.count == 0) return error.NameNotFound;
}

fn resolveWith(host: [:0]const u8, port: u16, list: *AddressList, flags: c.AI) ResolveError!void {
    assert(list.count == 0);
    var hints: c.addrinfo = std.mem.zeroes(c.addrinfo);
    hints.flags = flags;
    hints.family = c.AF.UNSPEC;
    hints.socktype = c.SOCK.STREAM;
    hints.protocol = c.IPPROTO.TCP;
    var first: ?*c.addrinfo = null;
    const status = c.getaddrinfo(host.ptr, null, &hints, &first);
    if (@backingInt(status) != 0) return resolveError(status);
    defer if (first) |information| c.freeaddrinfo(information);

    var next = first;
    while (next) |information| : (next = information.next) {
        const source = information.addr orelse continue;
        var address = Address.fromKernel(source, information.addrlen) orelse continue;
        address.setPort(port);
        if (!list.append(address)) break;
    }
}

/// For getaddrinfo(3).
pub fn resolveError(status: c.EAI) ResolveError {
    return switch (status) {
        .NONAME, .NODATA, .ADDRFAMILY, .OVERFLOW => error.NameNotFound,
        .AGAIN => error.TemporaryFailure,
        .FAIL => error.ResolverFailure,
        .MEMORY => error.OutOfMemory,
        .SYSTEM => switch (c.errno(-1)) {
            .NOMEM, .NOBUFS => error.OutOfMemory,
            .AGAIN, .INTR, .TIMEDOUT => error.TemporaryFailure,
            .SUCCESS => error.ResolverFailure,
            else => |cause| unexpected(cause),
        },
        else => error.ResolverFailure,
    };
}

/// pthread_create(3): a thread that nobody joins, in which every signal is blocked: handlers run on
/// the threads of the program, which they interrupt there.
pub fn startThread(
    run: *const fn (?*anyopaque) callconv(.c) ?*anyopaque,
    argument: *anyopaque,
) ThreadError!void {
    var attributes: c.pthread_attr_t = undefined;
    if (c.pthread_attr_init(&attributes) != .SUCCESS) return error.ThreadLimit; // No memory.
    defer _ = c.pthread_attr_destroy(&attributes);
    if (c.pthread_attr_setstacksize(&attributes, constants.lookup_stack_size) != .SUCCESS) {
        return error.ThreadLimit;
    }

    // A new thread has the signal mask of the one that makes it.
    var all: c.sigset_t = undefined;
    var before: c.sigset_t = undefined;
    _ = c.sigfillset(&all);
    if (c.pthread_sigmask(c.SIG.SETMASK, &all, &before) != 0) return error.Unexpected;
    defer {
        var dropped: c.sigset_t = undefined;
        _ = c.pthread_sigmask(c.SIG.SETMASK, &before, &dropped);
    }
    var thread: c.pthread_t = undefined;
    switch (c.pthread_create(&thread, &attributes, run, argument)) {
        .SUCCESS => {},
        .AGAIN, .NOMEM => return error.ThreadLimit,
        else => |cause| return unexpected(cause),
    }
    _ = c.pthread_detach(thread);
}

/// socketpair(2) of the local family; `flags` are the kernel's own, beside SOCK_STREAM.
pub fn socketPair(flags: c_uint) OpenError![2]Descriptor {
    var pair: [2]Descriptor = undefined;
    return switch (c.errno(c.socketpair(c.AF.UNIX, c.SOCK.STREAM | flags, 0, &pair))) {
        .SUCCESS => pair,
        else => |cause| openError(cause),
    };
}

/// socket(2) for TCP, of the address's family; `flags` are the kernel's own, beside SOCK_STREAM.
pub fn openSocket(address: *const Address, flags: c_uint) OpenError!Descriptor {
    const family: c_uint = address.storage.family;
    const descriptor = c.socket(family, c.SOCK.STREAM | flags, c.IPPROTO.TCP);
    return switch (c.errno(descriptor)) {
        .SUCCESS => descriptor,
        else => |cause| openError(cause),
    };
}

fn openError(cause: c.E) OpenError {
    return switch (cause) {
        .AFNOSUPPORT, .PROTONOSUPPORT => error.AddressFamilyNotSupported,
        .MFILE => error.TooManyOpenFiles,
        .NFILE => error.TooManyOpenFilesInSystem,
        .ACCES, .PERM => error.AccessDenied,
        .NOMEM, .NOBUFS => error.OutOfMemory,
        else => |other| unexpected(other),
    };
}

/// connect(2). Never blocks on a descriptor of `openSocket`.
pub fn connect(descriptor: Descriptor, address: *const Address) ConnectError!ConnectState {
    return switch (c.errno(c.connect(descriptor, address.kernelForm(), address.size))) {
        .SUCCESS => .connected,
        // An interrupted connect goes on in the background; calling it again would be an error.
        .INPROGRESS, .INTR => .in_progress,
        else => |cause| connectError(cause),
    };
}

/// SO_ERROR: how the connect ended. Ask once, after the descriptor became writable.
pub fn connectResult(descriptor: Descriptor) ConnectError!void {
    var code: c_int = 0;
    var size: c.socklen_t = @sizeOf(c_int);
    switch (c.errno(c.getsockopt(descriptor, c.SOL.SOCKET, c.SO.ERROR, &code, &size))) {
        .SUCCESS => {},
        else => |cause| return connectError(cause),
    }
    switch (@as(c.E, @fromBackingInt(@intCast(code)))) {
        .SUCCESS => {},
        else => |cause| return connectError(cause),
    }
}

/// For connect(2), and for SO_ERROR after it.
pub fn connectError(cause: c.E) ConnectError {
    return switch (cause) {
        .CONNREFUSED => error.ConnectionRefused,
        .CONNRESET, .CONNABORTED, .NETRESET, .PIPE => error.ConnectionReset,
        .NETUNREACH, .NETDOWN => error.NetworkUnreachable,
        .HOSTUNREACH, .HOSTDOWN => error.HostUnreachable,
        .TIMEDOUT => error.TimedOut,
        // EAGAIN: no free local port; EINVAL: a link-local address without its scope.
        .ADDRNOTAVAIL, .AGAIN, .INVAL => error.AddressNotAvailable,
        .ADDRINUSE => error.AddressInUse,
        .AFNOSUPPORT => error.AddressFamilyNotSupported,
        .ACCES, .PERM => error.AccessDenied,
        .NOMEM, .NOBUFS => error.OutOfMemory,
        else => |other| unexpected(other),
    };
}

/// bind(2), for the local end of a connection.
pub fn bind(descriptor: Descriptor, address: *const Address) BindError!void {
    return switch (c.errno(c.bind(descriptor, address.kernelForm(), address.size))) {
        .SUCCESS => {},
        else => |cause| bindError(cause),
    };
}

/// For `bind` and for the calls by which the kernels bind to an interface.
pub fn bindError(cause: c.E) BindError {
    return switch (cause) {
        .ADDRINUSE => error.AddressInUse,
        .ADDRNOTAVAIL => error.AddressNotAvailable,
        // The socket is new, so EINVAL can only be about the address.
        .AFNOSUPPORT, .INVAL => error.AddressFamilyNotSupported,
        .ACCES, .PERM => error.AccessDenied,
        .NODEV, .NXIO => error.InterfaceNotFound,
        .NOMEM, .NOBUFS => error.OutOfMemory,
        else => |other| unexpected(other),
    };
}

/// recv(2). 0 when the peer closed its direction. Asserts that the buffer has room.
pub inline fn receive(descriptor: Descriptor, buffer: []u8) ReceiveError!usize {
    assert(buffer.len > 0);
    while (true) {
        const size = c.recv(descriptor, buffer.ptr, buffer.len, 0);
        if (size >= 0) {
            // Memcheck assumes that all of the buffer was written.
            memcheck.makeMemUndefined(buffer[@intCast(size)..]);
            return @intCast(size);
        }
        try receiveFailed();
    }
}

/// The error of the last recv(2) or recvmsg(2). No error after a signal (EINTR): try again.
pub noinline fn receiveFailed() ReceiveError!void {
    return switch (c.errno(-1)) {
        .INTR => {},
        .AGAIN => error.WouldBlock,
        else => |cause| receiveFailure(cause),
    };
}

/// For recv(2) and recvmsg(2), and for what a notifier tells with the end of the stream.
pub fn receiveFailure(failure: c.E) ReceiveFailure {
    return switch (failure) {
        // EPIPE: reset after the peer had closed its direction. ECONNREFUSED: a late answer.
        .CONNRESET, .CONNABORTED, .NETRESET, .PIPE, .CONNREFUSED => error.ConnectionReset,
        .TIMEDOUT => error.TimedOut,
        .NETUNREACH, .NETDOWN => error.NetworkUnreachable,
        .HOSTUNREACH, .HOSTDOWN => error.HostUnreachable,
        .NOMEM, .NOBUFS => error.OutOfMemory,
        else => |cause| unexpected(cause),
    };
}

/// send(2); how many bytes the kernel took. Asserts that there is something to send.
pub inline fn send(descriptor: Descriptor, bytes: []const u8, flags: u32) SendError!usize {
    assert(bytes.len > 0);
    while (true) {
        const size = c.send(descriptor, bytes.ptr, bytes.len, flags);
        if (size >= 0) return @intCast(size);
        try sendFailed();
    }
}

/// The error of the last send(2) or sendmsg(2). No error after a signal (EINTR): try again.
pub noinline fn sendFailed() SendError!void {
    return switch (c.errno(-1)) {
        .INTR => {},
        .AGAIN => error.WouldBlock,
        .PIPE, .SHUTDOWN, .NOTCONN => error.BrokenPipe,
        .CONNRESET, .CONNABORTED, .NETRESET, .CONNREFUSED => error.ConnectionReset,
        .TIMEDOUT => error.TimedOut,
        .NETUNREACH, .NETDOWN => error.NetworkUnreachable,
        .HOSTUNREACH, .HOSTDOWN => error.HostUnreachable,
        .ACCES, .PERM => error.AccessDenied,
        .NOMEM, .NOBUFS => error.OutOfMemory,
        else => |cause| unexpected(cause),
    };
}

/// shutdown(2) of the sending direction: the peer sees the end of the stream. An error would mean
/// that the connection is already gone; the next read reports that.
pub fn shutdownSend(descriptor: Descriptor) void {
    _ = c.shutdown(descriptor, c.SHUT.WR);
}

/// close(2). Not retried when interrupted: the descriptor is gone either way.
pub fn close(descriptor: Descriptor) void {
    assert(descriptor >= 0);
    const status = c.close(descriptor);
    assert(c.errno(status) != .BADF);
}

/// setsockopt(2) of a number.
pub fn setOption(descriptor: Descriptor, level: i32, name: u32, value: c_int) OptionError!void {
    return switch (c.errno(c.setsockopt(descriptor, level, name, &value, @sizeOf(c_int)))) {
        .SUCCESS => {},
        .NOPROTOOPT, .OPNOTSUPP => error.Unsupported,
        .PERM, .ACCES => error.PermissionDenied,
        .INVAL, .DOM => error.InvalidValue,
        .NOMEM, .NOBUFS => error.OutOfMemory,
        else => |cause| unexpected(cause),
    };
}

/// getsockopt(2) of a number; null when this system does not have it.
pub fn getOption(descriptor: Descriptor, level: i32, name: u32) ?c_int {
    var value: c_int = 0;
    var size: c.socklen_t = @sizeOf(c_int);
    const status = c.getsockopt(descriptor, level, name, &value, &size);
    return if (status == 0) value else null;
}

/// TCP_NODELAY: no waiting for a full segment (Nagle).
pub fn setNoDelay(descriptor: Descriptor) OptionError!void {
    return setOption(descriptor, c.IPPROTO.TCP, c.TCP.NODELAY, 1);
}

/// SO_KEEPALIVE: after a third of the timeout without anything from the peer, the kernel sends it a
/// probe, and four of them until the timeout. `idle_option`: this system's name for that third.
pub fn setKeepAlive(descriptor: Descriptor, idle_option: u32, timeout_ms: u32) OptionError!void {
    const timeout_s = timeout_ms / std.time.ms_per_s;
    const interval_s: c_int = @intCast(@max(timeout_s / 6, 1));
    try setOption(descriptor, c.SOL.SOCKET, c.SO.KEEPALIVE, 1);
    try setOption(descriptor, c.IPPROTO.TCP, idle_option, @intCast(@max(timeout_s / 3, 1)));
    try setOption(descriptor, c.IPPROTO.TCP, c.TCP.KEEPINTVL, interval_s);
}

/// The timeout of a socket that has SO_KEEPALIVE, read from an option that counts in such units.
pub fn peerTimeout(descriptor: Descriptor, option: u32, units_per_s: c_int) ?u32 {
    const keeps_alive = getOption(descriptor, c.SOL.SOCKET, c.SO.KEEPALIVE) orelse 0;
    const time = getOption(descriptor, c.IPPROTO.TCP, option) orelse 0;
    return if (keeps_alive != 0 and time > 0) @intCast(@divTrunc(time, units_per_s)) else null;
}

/// SO_RCVBUF. The kernel may choose more or less: see `socketOptions`.
pub fn setReceiveBufferSize(descriptor: Descriptor, size: u32) OptionError!void {
    return setOption(descriptor, c.SOL.SOCKET, c.SO.RCVBUF, sizeOption(size));
}

/// SO_SNDBUF. The kernel may choose more or less: see `socketOptions`.
pub fn setSendBufferSize(descriptor: Descriptor, size: u32) OptionError!void {
    return setOption(descriptor, c.SOL.SOCKET, c.SO.SNDBUF, sizeOption(size));
}

fn sizeOption(size: u32) c_int {
    return @intCast(@min(size, std.math.maxInt(c_int)));
}

/// An option's value that is a size; 0 without one, as for a descriptor that is no socket.
pub fn getSizeOption(descriptor: Descriptor, name: u32) u32 {
    const size = getOption(descriptor, c.SOL.SOCKET, name) orelse return 0;
    return @intCast(@max(size, 0));
}

/// getsockname(2); null when the descriptor is no IPv4 or IPv6 socket.
pub fn localAddress(descriptor: Descriptor) ?Address {
    return askAddress(c.getsockname, descriptor);
}

/// getpeername(2); null when not connected (any more).
pub fn peerAddress(descriptor: Descriptor) ?Address {
    return askAddress(c.getpeername, descriptor);
}

fn askAddress(comptime ask: anytype, descriptor: Descriptor) ?Address {
    var storage: c.sockaddr.storage = std.mem.zeroes(c.sockaddr.storage);
    var size: c.socklen_t = @sizeOf(c.sockaddr.storage);
    if (ask(descriptor, @ptrCast(&storage), &size) != 0) return null;
    return Address.fromKernel(@ptrCast(&storage), size);
}

/// clock_gettime(2) in nanoseconds. The clock has to exist.
pub inline fn clockNs(clock: c.clockid_t) i64 {
    var time: c.timespec = undefined;
    const status = c.clock_gettime(clock, &time);
    assert(status == 0);
    return nanosecondsOf(time.sec, time.nsec);
}

/// A `timespec` as one number.
pub inline fn nanosecondsOf(seconds: i64, nanoseconds: i64) i64 {
    return seconds * std.time.ns_per_s + nanoseconds;
}

/// A time-out as a `timespec`.
pub fn timespecOf(nanoseconds: u64) c.timespec {
    return .{
        .sec = @intCast(nanoseconds / std.time.ns_per_s),
        .nsec = @intCast(nanoseconds % std.time.ns_per_s),
    };
}

/// The counter of this CPU: TSC, or CNTVCT, which counts at 24 MHz to 1 GHz, so that a stamp is no
/// finer than a tick. No system call, and no fence (LFENCE, ISB): the reading may be early by less
/// than a fence would cost, since between two stamps lies a system call, a record or a callback.
pub inline fn cycles() u64 {
    switch (@import("builtin").cpu.arch) {
        .x86_64 => {
            var low: u32 = undefined;
            var high: u32 = undefined;
            asm volatile ("rdtsc"
                : [low] "={eax}" (low),
                  [high] "={edx}" (high),
            );
            return @as(u64, high) << 32 | low;
        },
        .aarch64 => return asm volatile ("mrs %[count], cntvct_el0"
            : [count] "=r" (-> u64),
        ),
        else => @compileError("hftws supports x86_64 and aarch64"),
    }
}

/// Ticks of `cycles` in a second: CNTFRQ, which firmware sets for CNTVCT, sometimes wrongly. No
/// register that a program may read has the frequency of the TSC.
pub fn counterFrequency() ?u64 {
    return switch (@import("builtin").cpu.arch) {
        .aarch64 => asm volatile ("mrs %[frequency], cntfrq_el0"
            : [frequency] "=r" (-> u64),
        ),
        else => null,
    };
}

/// mmap(2) of address space that cannot be accessed, to be replaced by other mappings.
fn reserveMemory(size: usize) MapError![*]align(std.heap.page_size_min) u8 {
    const flags: c.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true, .NORESERVE = true };
    const address = c.mmap(null, size, .{}, flags, -1, 0);
    if (address == c.MAP_FAILED) return mapError(c.errno(-1));
    return @ptrCast(@alignCast(address));
}

/// Reserves address space for a mirrored mapping and its guard pages, and returns the place of the
/// mapping, a multiple of `alignment`. `unmapGuarded` undoes it.
pub fn reserveGuarded(size: usize, alignment: usize) MapError![*]align(std.heap.page_size_min) u8 {
    const page = std.heap.pageSize();
    assert(alignment % page == 0);
    const surplus = alignment - page;
    const reserved = try reserveMemory(size + 2 * page + surplus);
    const start = std.mem.alignForward(usize, @intFromPtr(reserved) + page, alignment);
    const before = start - page - @intFromPtr(reserved);
    assert(before <= surplus);
    const memory: [*]align(std.heap.page_size_min) u8 = @alignCast(reserved + before + page);
    if (before > 0) unmap(reserved, before);
    if (surplus > before) unmap(@alignCast(memory + size + page), surplus - before);
    return memory;
}

/// munmap(2) of what `reserveGuarded` reserved, with everything that was mapped there since.
pub fn unmapGuarded(memory: [*]align(std.heap.page_size_min) u8, size: usize) void {
    const page = std.heap.pageSize();
    unmap(@alignCast(memory - page), size + 2 * page);
}

/// mmap(2) of an object, or of anonymous memory, over a part of what `reserveGuarded` reserved.
pub fn mapOver(
    reserved: [*]align(std.heap.page_size_min) u8,
    size: usize,
    descriptor: Descriptor,
    flags: c.MAP,
) MapError!void {
    assert(flags.FIXED);
    assert(flags.ANONYMOUS == (descriptor == -1));
    const access: c.PROT = .{ .READ = true, .WRITE = true };
    const address = c.mmap(@ptrCast(reserved), size, access, flags, descriptor, 0);
    if (address == c.MAP_FAILED) return mapError(c.errno(-1));
    assert(@intFromPtr(address) == @intFromPtr(reserved));
}

/// munmap(2) of memory that this module mapped, which cannot fail.
fn unmap(memory: [*]align(std.heap.page_size_min) u8, size: usize) void {
    const status = c.munmap(@ptrCast(memory), size);
    assert(status == 0);
}

/// For mmap(2), and for making the object that is mapped.
pub fn mapError(cause: c.E) MapError {
    return switch (cause) {
        .NOMEM, .NOSPC, .NOBUFS, .FBIG, .AGAIN => error.OutOfMemory,
        .MFILE => error.TooManyOpenFiles,
        .NFILE => error.TooManyOpenFilesInSystem,
        .ACCES, .PERM => error.PermissionDenied,
        .NOSYS, .OPNOTSUPP => error.Unsupported,
        else => |other| unexpected(other),
    };
}

/// For making an epoll or kqueue descriptor.
pub fn notifierError(cause: c.E) NotifierError {
    return switch (cause) {
        .MFILE => error.TooManyOpenFiles,
        .NFILE => error.TooManyOpenFilesInSystem,
        .NOMEM => error.OutOfMemory,
        else => |other| unexpected(other),
    };
}

/// For changing what an epoll or kqueue descriptor watches.
pub fn watchError(cause: c.E) WatchError {
    return switch (cause) {
        .NOSPC => error.WatchLimit,
        .NOMEM => error.OutOfMemory,
        else => |other| unexpected(other),
    };
}

/// For waiting on an epoll or kqueue descriptor. EPERM is `Unsupported`, because a wait needs no
/// permission: only a sandbox that forbids the system call answers so.
pub fn pollError(cause: c.E) PollError {
    return switch (cause) {
        .INTR => error.Interrupted,
        .NOSYS, .PERM => error.Unsupported,
        .NOMEM => error.OutOfMemory,
        else => |other| unexpected(other),
    };
}

extern "c" fn inet_pton(family: c_int, text: [*:0]const u8, target: *anyopaque) c_int;
extern "c" fn inet_ntop(
    family: c_int,
    source: *const anyopaque,
    text: [*]u8,
    size: c.socklen_t,
) ?[*:0]const u8;
