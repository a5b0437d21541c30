//! Looks up the server's name, and tries its addresses in order until one connects.
//!
//! Each address gets an equal share of the time that is left, so that one which never answers does
//! not use up all of it.

const std = @import("std");
const assert = std.debug.assert;
const os = @import("../os.zig");
const types = @import("types.zig");
const LookupError = @import("../lookup.zig").Error;
const LookupType = @import("../lookup.zig").LookupType;
const NotifierType = @import("../notifier.zig").NotifierType;
const socket_module = @import("../socket.zig");
const SocketType = socket_module.SocketType;

pub fn DialerType(comptime Os: type) type {
    return struct {
        const Dialer = @This();
        const Lookup = LookupType(Os);
        const Socket = SocketType(Os);
        const Watch = NotifierType(Os).Watch;

        /// The look-up of the name, until its answer has been taken.
        lookup: ?*Lookup = null,
        addresses: os.AddressList = .{},
        index: usize = 0,
        /// The socket that is connecting; `Progress.connected` hands it over.
        socket: ?Socket = null,
        /// Whether the kernel knows how that connect ended.
        answered: bool = false,
        /// When the look-up, or the present address, is given up (monotonic clock).
        address_deadline_ns: u64 = 0,
        /// When the last address is given up (monotonic clock).
        deadline_ns: u64 = 0,

        pub const Progress = union(enum) {
            /// Wait for what `interest` says, or until the deadline of the address.
            pending,
            /// The caller owns the socket now.
            connected: Socket,
            /// No address is left; why the last one failed.
            failed: types.Failure,
        };

        /// Begins to look up the name.
        pub fn begin(
            dialer: *Dialer,
            host: [:0]const u8,
            port: u16,
            deadline_ns: u64,
        ) LookupError!void {
            dialer.* = .{ .address_deadline_ns = deadline_ns, .deadline_ns = deadline_ns };
            dialer.lookup = try Lookup.begin(host, port, &dialer.addresses);
        }

        /// Whether there is neither a look-up nor a socket.
        pub fn isIdle(dialer: *const Dialer) bool {
            return dialer.lookup == null and dialer.socket == null;
        }

        /// Cancels the watch, and gives up the look-up or closes the socket that is connecting.
        pub fn deinit(dialer: *Dialer, watch: *Watch) void {
            dialer.dropLookup(watch);
            dialer.dropSocket(watch);
        }

        fn dropLookup(dialer: *Dialer, watch: *Watch) void {
            if (dialer.lookup) |lookup| {
                watch.cancel();
                lookup.drop();
            }
            dialer.lookup = null;
        }

        fn dropSocket(dialer: *Dialer, watch: *Watch) void {
            if (dialer.socket) |*socket| {
                watch.cancel();
                socket.close();
            }
            dialer.socket = null;
        }

        /// What to wait for. Null when there is something to do.
        pub fn interest(dialer: *const Dialer) ?types.Interest {
            if (dialer.lookup) |lookup| {
                return .{ .descriptor = lookup.descriptor(), .events = .{ .readable = true } };
            }
            const socket = if (dialer.socket) |*found| found else return null;
            return .{ .descriptor = socket.descriptor, .events = .{ .writable = true } };
        }

        /// Call it when what `interest` said is ready. A look-up knows by itself when it is over.
        pub fn noteReady(dialer: *Dialer, ready: os.Ready) void {
            if (dialer.lookup == null) dialer.answered = ready.readable or ready.writable;
        }

        /// Goes on as far as it can without waiting. `watch` is what a loop waits for the look-up
        /// and the socket with; it stays valid for a socket that is handed over.
        pub fn next(dialer: *Dialer, options: types.SocketOptions, watch: *Watch) Progress {
            if (dialer.lookup) |lookup| {
                if (lookup.answer(&dialer.addresses)) |answer| {
                    dialer.dropLookup(watch);
                    answer catch |err| return .{ .failed = .{ .resolve = err } };
                } else {
                    if (Os.monotonicNs() < dialer.deadline_ns) return .pending;
                    return .{ .failed = .{ .timed_out = .resolving } };
                }
            }
            assert(dialer.addresses.count > 0);
            return dialer.connect(options, watch);
        }

        fn connect(dialer: *Dialer, options: types.SocketOptions, watch: *Watch) Progress {
            var last: types.Failure = .{ .timed_out = .connecting };
            while (dialer.index < dialer.addresses.count) {
                const address = &dialer.addresses.items[dialer.index];
                if (dialer.socket == null) {
                    if (dialer.tryAddress(address, options)) |failure| {
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
                dialer.dropSocket(watch);
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
        fn tryAddress(
            dialer: *Dialer,
            address: *const os.Address,
            options: types.SocketOptions,
        ) ?types.Failure {
            var refused: ?socket_module.Option = null;
            var socket = Socket.open(address, options, &refused) catch |err|
                return .{ .open_socket = .{ .cause = err, .option = refused } };
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
