//! TLS in the kernel: with `tls="ktls"` it opens and seals the records once the connection is open
//! (Documentation/networking/tls.rst of Linux).
//!
//!     attach ─▶ handshakes, by the direct engine ─▶ handOver ─▶ read, accept, sendPending
//!
//! What the kernel has opened comes with its type: data goes to the receive ring, the rest to the
//! session, which tells what follows from it. An alert or KeyUpdate that we send is a record by
//! itself, and goes out when the send ring is empty.

const std = @import("std");
const assert = std.debug.assert;
const os = @import("../os.zig");
const ssl = @import("../ssl.zig");
const types = @import("types.zig");
const SocketType = @import("../socket.zig").SocketType;

/// What one read of a socket has brought whose records the kernel opens.
pub const Accepted = union(enum) {
    /// Nothing to read now.
    nothing,
    /// So many bytes of data, at the front of the target.
    data: usize,
    /// A record that is not data; the session has read it.
    control,
    /// The peer has sent close_notify.
    close_notify,
    /// The stream has ended without close_notify.
    eof,
    failed: types.ReceiveFailure,
};

pub fn KernelTlsType(comptime Os: type) type {
    return struct {
        const KernelTls = @This();
        const Socket = SocketType(Os);

        /// The kernel gets the keys as soon as it has taken what we have sealed. Records that
        /// arrive meanwhile are left to it: nothing may be read until then.
        handover_waits: bool = false,
        /// Records of ours are pending: the kernel was full, or had frames to take first.
        records_unsent: bool = false,

        /// To be called before the handshake begins: without kernel TLS it is not worth a start.
        pub fn attach(socket: *Socket, tls: *ssl.Session) error{TlsFailed}!void {
            socket.attachTls() catch |err| {
                tls.refuseKernel(switch (err) {
                    error.NotConnected => return, // Already over: the next read says how.
                    error.Unsupported => .no_kernel_tls,
                    error.KeysFixed, error.OutOfMemory, error.Unexpected => .unexpected,
                });
                return error.TlsFailed;
            };
        }

        /// The handshakes are over: the kernel opens and seals the records from the next ones on.
        pub fn handOver(socket: *Socket, tls: *ssl.Session) error{TlsFailed}!void {
            try giveKeys(socket, tls, .receive);
            try giveKeys(socket, tls, .send);
            tls.enterKernel();
        }

        /// Tells the kernel the present keys of one direction. `tls` knows why it did not take
        /// them.
        fn giveKeys(
            socket: *Socket,
            tls: *ssl.Session,
            direction: os.TlsDirection,
        ) error{TlsFailed}!void {
            var info = tls.cryptoInfo(switch (direction) {
                .receive => .open,
                .send => .seal,
            });
            defer info.wipe();
            socket.setTlsKeys(direction, info.bytes()) catch |err| {
                tls.refuseKernel(switch (err) {
                    error.KeysFixed => .keys_fixed,
                    // It takes the first keys of this cipher, and then no others.
                    error.Unsupported => if (tls.inKernel()) .keys_fixed else .no_cipher,
                    error.NotConnected, error.OutOfMemory, error.Unexpected => .unexpected,
                });
                return error.TlsFailed;
            };
        }

        /// Data of one record or more, or one record of another type.
        pub fn read(socket: *Socket, target: []u8) types.Read {
            const record = socket.receiveRecord(target) catch |err| {
                return .{ .target = target, .result = err };
            };
            return .{
                .target = target,
                .result = record.size,
                .content_type = record.content_type,
            };
        }

        /// Judges a read. Where the peer has changed its keys, the kernel has been told the next.
        pub fn accept(
            socket: *Socket,
            tls: *ssl.Session,
            read_done: types.Read,
        ) error{TlsFailed}!Accepted {
            const size = read_done.result catch |err| switch (err) {
                error.WouldBlock => return .nothing,
                error.BadRecord => return tls.refuse(.bad_record_mac),
                error.RecordTooLong => return tls.refuse(.record_overflow),
                error.WrongVersion => return tls.refuse(.wrong_version),
                // It got new keys when a KeyUpdate was read. But it takes more for a KeyUpdate: it
                // looks at the first byte of each handshake record, whatever came before.
                error.KeysExpired => {
                    tls.refuseKernel(.handshake_in_parts);
                    return error.TlsFailed;
                },
                else => |cause| return .{ .failed = cause },
            };
            const content_type = read_done.content_type orelse return .eof;
            const content = read_done.target[0..size];
            const step = tls.accept(@fromBackingInt(content_type), content) catch
                return error.TlsFailed;
            if (step.plaintext_size > 0) return .{ .data = size };
            if (tls.takeReceiveKeysChanged()) try giveKeys(socket, tls, .receive);
            return switch (step.status) {
                .done => .control,
                .closed => .close_notify,
                .needs_received, .needs_room => unreachable, // The record was whole.
            };
        }

        /// Sends the records that are pending, each by itself: the kernel makes them, so they have
        /// no place in the send ring, and that has to be empty. What it does not take now stays
        /// pending.
        pub fn sendPending(
            kernel_tls: *KernelTls,
            socket: *Socket,
            tls: *ssl.Session,
        ) os.SendError!void {
            kernel_tls.records_unsent = false;
            while (tls.pendingRecord()) |pending| {
                var buffer: ssl.PendingRecord.Buffer = undefined;
                const content = pending.content(&buffer);
                socket.sendRecord(@backingInt(pending.contentType()), content) catch |err| {
                    switch (err) {
                        error.WouldBlock => kernel_tls.records_unsent = true,
                        else => |cause| return cause,
                    }
                    return;
                };
                tls.markSent(pending);
                switch (pending) {
                    // Behind our KeyUpdate, the kernel has to seal with the next keys. If it does
                    // not take them, the receiving half reports why.
                    .key_update => giveKeys(socket, tls, .send) catch return error.BrokenPipe,
                    .no_renegotiation, .alert => {},
                }
            }
        }
    };
}
