//! Resolves the server's name, and tries its addresses in order until one connects.
//!
//! Each address gets an equal share of the time that is left, so that one which never answers does
//! not use up all of it.

const std = @import("std");
const assert = std.debug.assert;
const os = @import("../os.zig");
const types = @import("types.zig");
const NotifierType = @import("../notifier.zig").NotifierType;
const SocketType = @import("../socket.zig").SocketType;

pub fn DialerType(comptime Os: type) type {
    return struct {
        const Dialer = @This();
        const Socket = SocketType(Os);
        const Watch = NotifierType(Os).Watch;

        addresses: os.AddressList = .{},
        index: usize = 0,
        /// The socket that is connecting; `Progress.connected` hands it over.
        socket: ?Socket = null,
        /// Whether the kernel knows how that connect ended.
        answered: bool = false,
        /// When the present address is given up (monotonic clock).
        address_deadline_ns: u64 = 0,
        /// When the last address is given up (monotonic clock).
        deadline_ns: u64 = 0,

        pub const Progress = union(enum) {
            /// Wait until the socket is writable, or until the deadline of the address.
            pending,
            /// The caller owns the socket now.
            connected: Socket,
            /// No address is left; why the last one failed.
            failed: types.Failure,
        };

        /// Looks up the name, and blocks until the answer is there.
        pub fn resolve(
            dialer: *Dialer,
            host: [:0]const u8,
            port: u16,
            deadline_ns: u64,
        ) os.ResolveError!void {
            dialer.* = .{ .deadline_ns = deadline_ns };
            try Os.resolve(host, port, &dialer.addresses);
            if (dialer.addresses.count == 0) return error.NameNotFound;
        }

        /// Cancels the watch and closes the socket, if one is connecting.
        pub fn deinit(dialer: *Dialer, watch: *Watch) void {
            if (dialer.socket) |*socket| {
                watch.cancel();
                socket.close();
            }
            dialer.socket = null;
        }

        /// Goes on as far as it can without waiting. `watch` is what a loop waits for the socket
        /// with; it stays valid for a socket that is handed over.
        pub fn next(dialer: *Dialer, options: types.SocketOptions, watch: *Watch) Progress {
            var last: types.Failure = .{ .timed_out = .connecting };
            while (dialer.index < dialer.addresses.count) {
                const address = &dialer.addresses.items[dialer.index];
                if (dialer.socket == null) {
                    if (dialer.begin(address, options)) |failure| {
                        last = failure;
                        dialer.index += 1;
                        continue;
                    }
                }
                if (!dialer.answered) {
                    if (Os.monotonicNs() < dialer.address_deadline_ns) return .pending;
                    last = .{ .timed_out = .connecting };
                } else if (dialer.finishConnect(watch)) {
                    const socket = dialer.socket.?;
                    dialer.socket = null;
                    return .{ .connected = socket };
                } else |err| {
                    last = .{ .connect = .{ .cause = err, .address = address.* } };
                }
                dialer.deinit(watch);
                dialer.index += 1;
            }
            return .{ .failed = last };
        }

        /// How the connect ended, which the notifier may have been told already.
        fn finishConnect(dialer: *const Dialer, watch: *const Watch) os.ConnectError!void {
            switch (watch.told) {
                .SUCCESS => return dialer.socket.?.finishConnect(),
                else => |cause| return os.connectError(cause),
            }
        }

        /// Begins to connect. Null when that is in progress or done already.
        fn begin(
            dialer: *Dialer,
            address: *const os.Address,
            options: types.SocketOptions,
        ) ?types.Failure {
            var socket = Socket.open(address, options) catch |err| return .{ .open_socket = err };
            const state = socket.connect(address) catch |err| {
                socket.close();
                return .{ .connect = .{ .cause = err, .address = address.* } };
            };
            dialer.socket = socket;
            dialer.answered = state == .connected;
            const now_ns = Os.monotonicNs();
            const left_count = dialer.addresses.count - dialer.index;
            assert(left_count > 0);
            dialer.address_deadline_ns = now_ns + (dialer.deadline_ns -| now_ns) / left_count;
            return null;
        }
    };
}
