//! The kernel, typed: sockets, clocks, memory and tuning. One file for each platform, all behind
//! one interface.
//!
//! Design: `Os` is the platform of this build, a struct of free functions. Everything above takes
//! it as a type (`SocketType(Os)`), so that a test can hand in a scripted one. `Interface` says
//! what a platform has to declare, and `assertPlatform` checks every platform, the real ones too.
//! Errors are named by cause, with a set for each operation; an error that no caller can act on is
//! `error.Unexpected`. Nothing here keeps state, except the errno of the last unexpected error.

const std = @import("std");
const builtin = @import("builtin");
const build_options = @import("build_options");

pub const linux = @import("os/linux.zig");
pub const darwin = @import("os/darwin.zig");
const posix = @import("os/posix.zig");

/// The platform of this build.
pub const Os = switch (builtin.os.tag) {
    .linux => if (build_options.platform_override) @import("platform_override") else linux,
    .macos => darwin,
    else => @compileError("hftws supports Linux and macOS"),
};

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
pub const ConnectState = posix.ConnectState;
pub const Interest = posix.Interest;
pub const Ready = posix.Ready;
pub const Wake = posix.Wake;

pub const ResolveError = posix.ResolveError;
pub const ThreadError = posix.ThreadError;
pub const OpenError = posix.OpenError;
pub const ConnectError = posix.ConnectError;
pub const BindError = posix.BindError;
pub const ReceiveError = posix.ReceiveError;
pub const ReceiveFailure = posix.ReceiveFailure;
pub const ReceiveRecordError = posix.ReceiveRecordError;
pub const SendError = posix.SendError;
pub const TlsError = posix.TlsError;
pub const OptionError = posix.OptionError;
pub const MapError = posix.MapError;
pub const TuneError = posix.TuneError;
pub const NotifierError = posix.NotifierError;
pub const WatchError = posix.WatchError;
pub const WaitError = posix.WaitError;
pub const PollError = posix.PollError;

pub const unexpectedErrno = posix.unexpectedErrno;
pub const connectError = posix.connectError;
pub const receiveFailure = posix.receiveFailure;
pub const ClockType = @import("os/clock.zig").ClockType;

/// The functions that a platform declares: for each a field, of the function's type. A platform may
/// declare more: a `Notifier` of its own is used instead of epoll and kqueue, a `Lookup` instead of
/// threads.
pub const Interface = struct {
    // Sockets. A descriptor of `openSocket` never blocks, and never raises SIGPIPE.

    /// Blocks. Fills the list with at least one address, in the order to try.
    resolve: fn (host: [:0]const u8, port: u16, list: *AddressList) ResolveError!void,
    /// The caller closes it.
    openSocket: fn (address: *const Address) OpenError!Descriptor,
    connect: fn (descriptor: Descriptor, address: *const Address) ConnectError!ConnectState,
    /// How a connect in progress ended, asked once the descriptor is writable.
    connectResult: fn (descriptor: Descriptor) ConnectError!void,
    bind: fn (descriptor: Descriptor, address: *const Address) BindError!void,
    bindToInterface: fn (descriptor: Descriptor, name: []const u8) BindError!void,
    /// 0: the peer closed its direction. Always fills a stamp that is passed, perhaps with `none`.
    receive: fn (Descriptor, buffer: []u8, stamp: ?*KernelStamp) ReceiveError!usize,
    /// How many bytes the kernel took, at least one.
    send: fn (descriptor: Descriptor, bytes: []const u8) SendError!usize,
    shutdownSend: fn (descriptor: Descriptor) void,
    close: fn (descriptor: Descriptor) void,
    setNoDelay: fn (descriptor: Descriptor) OptionError!void,
    /// From now on, the connection fails with `TimedOut` when the peer answers nothing for so long.
    setPeerTimeout: fn (descriptor: Descriptor, timeout_ms: u32) OptionError!void,
    /// Null: the timeout of this kernel is right, or it does not tell.
    peerProgress: fn (descriptor: Descriptor) ?PeerProgress,
    /// Leaves it to the caller how long data may stay unanswered; keep-alive stays the kernel's.
    liftUnansweredLimit: fn (descriptor: Descriptor) void,
    setQuickAck: fn (descriptor: Descriptor) OptionError!void,
    setBusyPoll: fn (descriptor: Descriptor, microseconds: u32) OptionError!void,
    setReceiveBufferSize: fn (descriptor: Descriptor, size: u32) OptionError!void,
    setSendBufferSize: fn (descriptor: Descriptor, size: u32) OptionError!void,
    enableReceiveStamps: fn (descriptor: Descriptor, mode: TimestampMode) OptionError!void,
    socketOptions: fn (descriptor: Descriptor) SocketOptions,
    localAddress: fn (descriptor: Descriptor) ?Address,
    peerAddress: fn (descriptor: Descriptor) ?Address,

    // Kernel TLS: the kernel opens and seals the records of a connected socket.

    /// Call it before the peer can have sent anything. Changes nothing until there are keys.
    attachTls: fn (descriptor: Descriptor) TlsError!void,
    /// `info`: struct tls12_crypto_info_* of <linux/tls.h>. From now on the kernel does the
    /// records of this direction. Call it again to change the keys (Linux 6.14).
    setTlsKeys: fn (Descriptor, direction: TlsDirection, info: []const u8) TlsError!void,
    /// Decrypted bytes of one record, or of several of the same type.
    receiveRecord: fn (descriptor: Descriptor, buffer: []u8) ReceiveRecordError!ReceivedRecord,
    /// Sends one record that is not application data: all of it, or nothing and an error.
    sendRecord: fn (descriptor: Descriptor, content_type: u8, content: []const u8) SendError!void,

    // Clocks.

    /// The CPU's counter: of constant rate, but not in nanoseconds (`ClockType` converts).
    cycles: fn () u64,
    /// Ticks of that counter in a second; null where the CPU does not tell, as on x86-64.
    counterFrequency: fn () ?u64,
    /// The clock of deadlines.
    monotonicNs: fn () u64,
    /// The clock of the kernel's receive stamps.
    realtimeNs: fn () i64,

    // Random bytes, memory, tuning.

    /// Good enough for keys and masks. Panics if the kernel has none.
    random: fn (buffer: []u8) void,
    /// The size is a multiple of the page size. The caller unmaps.
    mapMirrored: fn (size: usize, options: MapOptions) MapError!Mapping,
    unmapMirrored: fn (mapping: Mapping) void,
    /// Of the calling thread.
    pinThread: fn (cpu: u32) TuneError!void,
    /// Of the calling thread.
    setRealtimePriority: fn (priority: u8) TuneError!void,
    /// Of the whole process, now and later.
    lockMemory: fn () TuneError!void,
};

/// Compiles only if `Platform` declares every type and function of the interface, each with exactly
/// that type; else the error names what is missing or different. For scripted platforms, too.
pub fn assertPlatform(comptime Platform: type) void {
    comptime {
        @setEvalBranchQuota(10_000);
        const types = .{
            .Descriptor = Descriptor,
            .Address = Address,
            .AddressList = AddressList,
            .KernelStamp = KernelStamp,
            .TimestampMode = TimestampMode,
            .SocketOptions = SocketOptions,
            .PeerProgress = PeerProgress,
            .TlsDirection = TlsDirection,
            .ReceivedRecord = ReceivedRecord,
            .Mapping = Mapping,
            .MapOptions = MapOptions,
        };
        for (@typeInfo(@TypeOf(types)).@"struct".field_names) |name| {
            assertDeclared(Platform, name);
            if (@field(Platform, name) != @field(types, name)) {
                @compileError(@typeName(Platform) ++ "." ++ name ++ " is not os." ++ name);
            }
        }
        const interface = @typeInfo(Interface).@"struct";
        for (interface.field_names, interface.field_types) |name, Function| {
            assertDeclared(Platform, name);
            if (!sameFunction(@TypeOf(@field(Platform, name)), Function)) {
                const place = @typeName(Platform) ++ "." ++ name;
                @compileError(place ++ " is no " ++ @typeName(Function));
            }
        }
    }
}

fn assertDeclared(comptime Platform: type, comptime name: []const u8) void {
    if (!@hasDecl(Platform, name)) {
        @compileError(@typeName(Platform) ++ " does not declare " ++ name);
    }
}

/// The same parameters and result, whether it is inline or not.
fn sameFunction(comptime Left: type, comptime Right: type) bool {
    const left = @typeInfo(Left).@"fn";
    const right = @typeInfo(Right).@"fn";
    if (left.return_type != right.return_type) return false;
    if (left.param_types.len != right.param_types.len) return false;
    for (left.param_types, right.param_types) |parameter_left, parameter_right| {
        if (parameter_left != parameter_right) return false;
    }
    return true;
}

comptime {
    assertPlatform(Os);
    // The other platform's types are checked when it is the target; its names are checked here.
    for (@typeInfo(Interface).@"struct".field_names) |name| {
        assertDeclared(linux, name);
        assertDeclared(darwin, name);
    }
}

test {
    _ = darwin;
    _ = posix;
    _ = @import("os/clock.zig");
    _ = @import("os/clock_test.zig");
    _ = @import("os/darwin_test.zig");
    _ = @import("os/libsystem_test.zig");
    _ = @import("os/posix_test.zig");
    _ = @import("os_test.zig");
}
