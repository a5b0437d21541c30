//! One TCP connection: a non-blocking descriptor with the chosen options.
//!
//! Design: thin. Options are set before the connect, so that the handshake already has them (the
//! receive buffer bounds the window that is announced in the SYN). An option that the system does
//! not give is an error rather than a hidden slow path. TCP_NODELAY is always on, and so are
//! keep-alive probes, by which the kernel notices that a silent peer is gone. The notifier waits;
//! the caller keeps the time.

const std = @import("std");
const assert = std.debug.assert;

const constants = @import("constants.zig");
const os = @import("os.zig");

const Address = os.Address;

pub const OpenError = os.OpenError || os.BindError || os.OptionError;
pub const ConnectError = os.ConnectError;
pub const ReceiveError = os.ReceiveError;
pub const SendError = os.SendError;

/// What a connection asks of the kernel; null leaves the system's default.
pub const Options = struct {
    /// The local address. Port 0: any.
    local_address: ?Address = null,
    /// A name such as `eth0`. Borrowed for the call.
    interface: ?[]const u8 = null,
    receive_buffer_size: ?u32 = null,
    send_buffer_size: ?u32 = null,
    /// Linux: how long a read may poll the network card's queue, in the kernel (SO_BUSY_POLL).
    busy_poll_us: ?u32 = null,
    /// Linux: acknowledge at once. Set again after every read, which costs a system call.
    quick_ack: bool = false,
    /// Linux: have `receive` fill kernel stamps. Elsewhere they say `none`.
    timestamps: os.TimestampMode = .none,
};

/// `Os` has to pass `os.assertPlatform`.
pub fn SocketType(comptime Os: type) type {
    comptime os.assertPlatform(Os);
    return struct {
        descriptor: Os.Descriptor,
        quick_ack: bool,
        stamped: bool,

        const Socket = @This();

        /// Makes a socket of the address's family and sets its options; `connect` comes next. The
        /// caller closes it.
        pub fn open(address: *const Address, options: Options) OpenError!Socket {
            const descriptor = try Os.openSocket(address);
            errdefer Os.close(descriptor);
            try Os.setNoDelay(descriptor);
            try Os.setPeerTimeout(descriptor, constants.peer_timeout_s);
            if (options.receive_buffer_size) |size| try Os.setReceiveBufferSize(descriptor, size);
            if (options.send_buffer_size) |size| try Os.setSendBufferSize(descriptor, size);
            if (options.busy_poll_us) |time_us| try Os.setBusyPoll(descriptor, time_us);
            if (options.quick_ack) try Os.setQuickAck(descriptor);
            const stamped = try enableStamps(descriptor, options.timestamps);
            if (options.interface) |name| try Os.bindToInterface(descriptor, name);
            if (options.local_address) |local| try Os.bind(descriptor, &local);
            return .{
                .descriptor = descriptor,
                .quick_ack = options.quick_ack,
                .stamped = stamped,
            };
        }

        /// No error on a system without kernel stamps (macOS): the stamps of a read then say
        /// `none`.
        fn enableStamps(descriptor: Os.Descriptor, mode: os.TimestampMode) os.OptionError!bool {
            if (mode == .none) return false;
            Os.enableReceiveStamps(descriptor, mode) catch |err| switch (err) {
                error.Unsupported => return false,
                else => |cause| return cause,
            };
            return true;
        }

        /// `in_progress`: wait until it is writable, then `finishConnect`.
        pub fn connect(
            socket: *const Socket,
            address: *const Address,
        ) ConnectError!os.ConnectState {
            return Os.connect(socket.descriptor, address);
        }

        /// How a connect in progress ended.
        pub fn finishConnect(socket: *const Socket) ConnectError!void {
            return Os.connectResult(socket.descriptor);
        }

        /// Reads at least one byte into the buffer, which is not empty; 0 when the peer closed its
        /// direction. Fills a stamp that is passed with the kernel's, for the newest segment of
        /// this read, or with `none`.
        pub inline fn receive(
            socket: *const Socket,
            buffer: []u8,
            stamp: ?*os.KernelStamp,
        ) ReceiveError!usize {
            assert(buffer.len > 0);
            const target = if (socket.stamped) stamp else null;
            const size = try Os.receive(socket.descriptor, buffer, target);
            if (!socket.stamped) if (stamp) |unstamped| {
                unstamped.* = .{};
            };
            if (socket.quick_ack) socket.acknowledgeQuickly();
            return size;
        }

        /// The kernel goes back to delayed acknowledgements by itself. If this fails after it
        /// worked in `open`, the connection is gone; the next read reports that.
        fn acknowledgeQuickly(socket: *const Socket) void {
            Os.setQuickAck(socket.descriptor) catch |failure| switch (failure) {
                error.Unsupported,
                error.PermissionDenied,
                error.InvalidValue,
                error.OutOfMemory,
                error.Unexpected,
                => {},
            };
        }

        /// Prepares the kernel to open and seal records, which begins when it gets keys.
        pub fn attachTls(socket: *const Socket) os.TlsError!void {
            return Os.attachTls(socket.descriptor);
        }

        /// `info` as in `os.Interface`.
        pub fn setTlsKeys(
            socket: *const Socket,
            direction: os.TlsDirection,
            info: []const u8,
        ) os.TlsError!void {
            return Os.setTlsKeys(socket.descriptor, direction, info);
        }

        /// Instead of `receive`, when the kernel opens the records.
        pub fn receiveRecord(
            socket: *const Socket,
            buffer: []u8,
        ) os.ReceiveRecordError!os.ReceivedRecord {
            assert(buffer.len > 0);
            const record = try Os.receiveRecord(socket.descriptor, buffer);
            if (socket.quick_ack) socket.acknowledgeQuickly();
            return record;
        }

        /// When the kernel seals the records: sends one that is not application data.
        pub fn sendRecord(
            socket: *const Socket,
            content_type: u8,
            content: []const u8,
        ) SendError!void {
            return Os.sendRecord(socket.descriptor, content_type, content);
        }

        /// Returns how many of the bytes the kernel took. `bytes` is not empty.
        pub inline fn send(socket: *const Socket, bytes: []const u8) SendError!usize {
            assert(bytes.len > 0);
            return Os.send(socket.descriptor, bytes);
        }

        /// Ends the sending direction: after all bytes the peer reads the end of the stream.
        pub fn shutdownSend(socket: *const Socket) void {
            Os.shutdownSend(socket.descriptor);
        }

        /// The socket is undefined afterwards. Its watch has to be cancelled first.
        pub fn close(socket: *Socket) void {
            Os.close(socket.descriptor);
            socket.* = undefined;
        }

        /// The options' current values in the kernel.
        pub fn kernelOptions(socket: *const Socket) os.SocketOptions {
            return Os.socketOptions(socket.descriptor);
        }

        pub fn localAddress(socket: *const Socket) ?Address {
            return Os.localAddress(socket.descriptor);
        }

        /// Null when not connected, or no longer.
        pub fn peerAddress(socket: *const Socket) ?Address {
            return Os.peerAddress(socket.descriptor);
        }
    };
}
