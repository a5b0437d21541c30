//! The socket of a connection, its watch, and the TLS session over it.

const std = @import("std");
const ssl = @import("../ssl.zig");
const KernelTlsType = @import("kernel_tls.zig").KernelTlsType;
const NotifierType = @import("../notifier.zig").NotifierType;
const SocketType = @import("../socket.zig").SocketType;

/// What opens the records of TLS; `ssl.Session` decides, once there is one.
pub const Opener = enum {
    /// There are no records: `ws://`, or TLS has not begun.
    none,
    /// OpenSSL or the direct engine, from the ciphertext ring into the receive ring.
    user_space,
    /// The kernel, which seals, too: plaintext comes out of the socket, and goes into it.
    kernel,
};

pub fn LinkType(comptime Os: type) type {
    return struct {
        const Link = @This();

        socket: ?SocketType(Os) = null,
        /// Watches the socket, or while connecting, what the dialer waits for; cancelled before
        /// that is closed.
        watch: NotifierType(Os).Watch = .{},
        tls: ?ssl.Session = null,
        kernel_tls: KernelTlsType(Os) = .{},

        pub inline fn opener(link: *const Link) Opener {
            const tls = if (link.tls) |*session| session else return .none;
            return switch (tls.opener()) {
                .user_space => .user_space,
                .kernel => .kernel,
            };
        }

        pub inline fn isSecure(link: *const Link) bool {
            return link.tls != null;
        }

        pub inline fn sealsInPlace(link: *const Link) bool {
            const tls = if (link.tls) |*session| session else return false;
            return tls.sealsInPlace();
        }

        pub inline fn sealsApart(link: *const Link) bool {
            const tls = if (link.tls) |*session| session else return false;
            return tls.sealsApart();
        }

        /// The offset of content in the free part of the send ring: room for the record's header.
        pub inline fn contentOffset(link: *const Link, content_size: usize) usize {
            return if (link.sealsInPlace()) link.tls.?.contentOffset(content_size) else 0;
        }

        /// How many bytes of the send ring content takes, with its record's header and tag.
        pub inline fn sealedSize(link: *const Link, content_size: usize) usize {
            if (!link.sealsInPlace()) return content_size;
            return link.tls.?.sealedSize(content_size);
        }
    };
}
