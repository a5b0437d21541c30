//! One TCP connection: a non-blocking descriptor with the chosen options.
//!
//! Design: thin. Options are set before the connect, so that the handshake already has them (the
//! receive buffer bounds the window that is announced in the SYN). An option that the system does
//! not give is an error rather than a hidden slow path. TCP_NODELAY is always on. By keep-alive
//! probes and a limit on unanswered data the kernel notices that a peer is gone, and `reviewPeer`
//! keeps it from taking a peer that does not read for one. The notifier waits; the caller keeps the
//! time.

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
    /// How long the peer may leave data, or probes, without an answer. Null: as long as it likes.
    peer_timeout_ms: ?u32 = constants.peer_timeout_ms_default,
    /// Linux: how long a read may poll the network card's queue, in the kernel (SO_BUSY_POLL).
    busy_poll_us: ?u32 = null,
    /// Linux: acknowledge at once. Set again after every read, which costs a system call.
    quick_ack: bool = false,
    /// Linux: have `receive` fill kernel stamps. Elsewhere they say `none`.
    timestamps: os.TimestampMode = .none,
};

/// Which of them the system refused. The names are those of the Python API.
pub const Option = enum {
    peer_timeout,
    receive_buffer_size,
    send_buffer_size,
    socket_busy_poll_us,
    quick_ack,
    timestamps,
    interface,
    local_address,
};

/// `Os` has to pass `os.assertPlatform`.
pub fn SocketType(comptime Os: type) type {
    comptime os.assertPlatform(Os);
    return struct {
        descriptor: Os.Descriptor,
        quick_ack: bool,
        stamped: bool,
        peer_timeout_ms: ?u32,
        /// When `reviewPeer` has something to do again (monotonic clock).
        review_ns: u64 = 0,
        /// Whether `reviewPeer` judges instead of the kernel.
        limit_lifted: bool = false,
        /// Since when the peer is known to leave something unanswered; null when it does not.
        unanswered_since_ns: ?u64 = null,

        const Socket = @This();

        /// Makes a socket of the address's family and sets its options; `connect` comes next. The
        /// caller closes it. With an error, `refused` says which option it is about, or null.
        pub fn open(
            address: *const Address,
            options: Options,
            refused: *?Option,
        ) OpenError!Socket {
            refused.* = null;
            const descriptor = try Os.openSocket(address);
            errdefer Os.close(descriptor);
            try Os.setNoDelay(descriptor);
            var socket: Socket = .{
                .descriptor = descriptor,
                .quick_ack = options.quick_ack,
                .stamped = false,
                .peer_timeout_ms = options.peer_timeout_ms,
            };
            for (std.enums.values(Option)) |option| {
                refused.* = option;
                try socket.set(option, options);
            }
            refused.* = null;
            return socket;
        }

        /// In the order of `Option`: an address is bound on the interface that was chosen.
        fn set(socket: *Socket, option: Option, options: Options) OpenError!void {
            const descriptor = socket.descriptor;
            switch (option) {
                .peer_timeout => if (options.peer_timeout_ms) |time_ms| {
                    try Os.setPeerTimeout(descriptor, time_ms);
                },
                .receive_buffer_size => if (options.receive_buffer_size) |size| {
                    try Os.setReceiveBufferSize(descriptor, size);
                },
                .send_buffer_size => if (options.send_buffer_size) |size| {
                    try Os.setSendBufferSize(descriptor, size);
                },
                .socket_busy_poll_us => if (options.busy_poll_us) |time_us| {
                    try Os.setBusyPoll(descriptor, time_us);
                },
                .quick_ack => if (options.quick_ack) try Os.setQuickAck(descriptor),
                .timestamps => socket.stamped = try enableStamps(descriptor, options.timestamps),
                .interface => if (options.interface) |name| {
                    try Os.bindToInterface(descriptor, name);
                },
                .local_address => if (options.local_address) |local| {
                    try Os.bind(descriptor, &local);
                },
            }
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

        /// Whether the peer is gone. Call it at least `peer_reviews` times in the timeout; most
        /// calls only compare the time.
        ///
        /// A peer that has no room is alive as long as it answers probes (RFC 1122, 4.2.2.17), but
        /// Linux ends the connection when it has probed for the timeout, whatever the answers; and
        /// it goes on counting where it once began if there was never room for a whole segment.
        /// So once the peer had no room, its answers are looked at here.
        pub fn reviewPeer(socket: *Socket, now_ns: u64) bool {
            const timeout_ms = socket.peer_timeout_ms orelse return false;
            if (now_ns < socket.review_ns) return false;
            const interval_ms = timeout_ms / constants.peer_reviews;
            socket.review_ns = now_ns + @as(u64, interval_ms) * std.time.ns_per_ms;
            const progress = Os.peerProgress(socket.descriptor) orelse return false;
            if (!socket.limit_lifted) {
                if (!progress.had_no_room) return false;
                socket.limit_lifted = true;
                Os.liftUnansweredLimit(socket.descriptor);
            }
            if (!progress.has_unanswered) {
                socket.unanswered_since_ns = null;
                return false;
            }
            const since_ns = socket.unanswered_since_ns orelse now_ns;
            const unanswered_ms = (now_ns - since_ns) / std.time.ns_per_ms;
            // An answer since then means that what is unanswered now is younger.
            const answered = progress.silent_ms < unanswered_ms;
            socket.unanswered_since_ns = if (answered) now_ns else since_ns;
            return !answered and unanswered_ms >= timeout_ms;
        }

        /// The socket is undefined afterwards. Its watch has to be cancelled first.
        pub fn close(socket: *Socket) void {
            Os.close(socket.descriptor);
            socket.* = undefined;
        }

        /// The options' current values in the kernel, and the timeout also while it is kept here.
        pub fn kernelOptions(socket: *const Socket) os.SocketOptions {
            var options = Os.socketOptions(socket.descriptor);
            if (socket.limit_lifted) {
                options.peer_timeout_s = socket.peer_timeout_ms.? / std.time.ms_per_s;
            }
            return options;
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
