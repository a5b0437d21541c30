//! TLS in the kernel: hands over the keys, then reads and sends control records.
//!
//! With `tls="ktls"` the kernel opens and seals the records once the connection is open
//! (Documentation/networking/tls.rst of Linux).
//!
//!     attach ─▶ handshakes, by the direct engine ─▶ handOver ─▶ read, accept, sendPending
//!
//! Each read returns the type of the record, too: data goes to the receive ring, all else to the
//! session, which handles alerts and KeyUpdates. An alert or KeyUpdate that the client sends is a
//! record by itself, and waits until the send ring is empty.

const std = @import("std");
const assert = std.debug.assert;
const os = @import("../os.zig");
const ssl = @import("../ssl.zig");
const types = @import("types.zig");
const SocketType = @import("../socket.zig").SocketType;

/// The result of one read of a socket whose records the kernel opens.
pub const Accepted = union(enum) {
    /// Nothing to read now.
    nothing,
    /// The number of bytes of data, at the front of the target.
    data: usize,
    /// A record that is not data; the session has handled it.
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

        /// The handshake is done, but the socket has not yet taken all that we have sealed. The
        /// kernel gets the keys after that. Until then nothing may be read: the kernel has to open
        /// what arrives.
        handover_waits: bool = false,
        /// Control records wait: the socket was full, or frames have to go out first.
        records_unsent: bool = false,

        /// Switches the socket to kernel TLS. Call it before the handshake, so that a connection
        /// fails early on a kernel without TLS.
        pub fn attach(socket: *Socket, tls: *ssl.Session) error{TlsFailed}!void {
            socket.attachTls() catch |err| {
                tls.refuseKernel(switch (err) {
                    error.NotConnected => return, // Already over: the next read returns the cause.
                    error.Unsupported => .no_kernel_tls,
                    error.KeysFixed, error.OutOfMemory, error.Unexpected => .unexpected,
                });
                return error.TlsFailed;
            };
        }

        /// Gives the kernel the keys of both directions: it opens and seals all further records.
        pub fn handOver(socket: *Socket, tls: *ssl.Session) error{TlsFailed}!void {
            try giveKeys(socket, tls, .receive);
            try giveKeys(socket, tls, .send);
            tls.enterKernel();
        }

        /// Gives the kernel the present keys of one direction. On an error, `tls.failure` has the
        /// cause.
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
                    // This kernel takes the first keys of this cipher, and no later ones.
                    error.Unsupported => if (tls.opener() == .kernel) .keys_fixed else .no_cipher,
                    error.NotConnected, error.OutOfMemory, error.Unexpected => .unexpected,
                });
                return error.TlsFailed;
            };
        }

        /// Reads data of one or more records, or one record of another type.
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

        /// Handles the result of a read. After a KeyUpdate of the peer, gives the kernel its new
        /// keys.
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
                // The kernel opens nothing after a KeyUpdate until it has new keys, and got them
                // when the KeyUpdate was read. But it takes more for a KeyUpdate: it looks only at
                // the first byte of each handshake record, also in the middle of a message.
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

        /// Sends the pending control records, one system call each: the kernel builds them, so they
        /// do not go through the send ring, which has to be empty. What the kernel does not take
        /// now stays pending.
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
                    // After our KeyUpdate, the kernel has to seal with the next keys. If it does
                    // not take them, the receiving half reports why.
                    .key_update => giveKeys(socket, tls, .send) catch return error.BrokenPipe,
                    .no_renegotiation, .alert => {},
                }
            }
        }
    };
}
