//! Holds what `libsystem.zig` and `std.c` declare against Apple's headers, where those are.

const std = @import("std");
const builtin = @import("builtin");
const libsystem = @import("libsystem.zig");
const assert = std.debug.assert;
const c = std.c;

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

/// Of libsystem.zig, and of `std.c` as far as darwin.zig and posix.zig use it.
fn sameNumbers(comptime headers: type) void {
    for (.{
        .{ "EVFILT_READ", libsystem.KernelEvent.filter_read },
        .{ "EVFILT_WRITE", libsystem.KernelEvent.filter_write },
        .{ "EV_ADD", libsystem.KernelEvent.flag_add },
        .{ "EV_DELETE", libsystem.KernelEvent.flag_delete },
        .{ "EV_EOF", libsystem.KernelEvent.flag_end_of_file },
        .{ "THREAD_TIME_CONSTRAINT_POLICY", libsystem.thread_time_constraint_policy },
        .{ "THREAD_AFFINITY_POLICY", libsystem.thread_affinity_policy },
        .{ "THREAD_AFFINITY_TAG_NULL", 0 },
        .{ "KERN_SUCCESS", libsystem.kern_success },
        .{ "KERN_INVALID_ADDRESS", libsystem.kern_invalid_address },
        .{ "KERN_PROTECTION_FAILURE", libsystem.kern_protection_failure },
        .{ "KERN_NO_SPACE", libsystem.kern_no_space },
        .{ "KERN_RESOURCE_SHORTAGE", libsystem.kern_resource_shortage },
        .{ "KERN_NO_ACCESS", libsystem.kern_no_access },
        .{ "KERN_NOT_SUPPORTED", libsystem.kern_not_supported },
        .{ "VM_FLAGS_FIXED", libsystem.vm_flags_fixed },
        .{ "VM_FLAGS_OVERWRITE", libsystem.vm_flags_overwrite },
        .{ "VM_INHERIT_SHARE", libsystem.vm_inherit_share },
        .{ "CLOCK_UPTIME_RAW", libsystem.clock_uptime_raw },
        .{ "CLOCK_REALTIME", @backingInt(c.clockid_t.REALTIME) },
        .{ "SO_NOSIGPIPE", libsystem.no_sigpipe },
        .{ "IFNAMSIZ", libsystem.interface_name_size_max },
        .{ "IP_BOUND_IF", libsystem.ipv4_bound_interface },
        .{ "IPV6_BOUND_IF", libsystem.ipv6_bound_interface },
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
    assert(libsystem.vm_prot_read_write == read_write);
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
        .{ headers.struct_kevent, libsystem.KernelEvent },
        .{ headers.struct_mach_timebase_info, libsystem.TimebaseInfo },
        .{ headers.struct_thread_affinity_policy, libsystem.ThreadAffinity },
        .{ headers.struct_thread_time_constraint_policy, libsystem.ThreadTimeConstraint },
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
        if (@typeInfo(@TypeOf(@field(libsystem, name))) != .@"fn") continue;
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
