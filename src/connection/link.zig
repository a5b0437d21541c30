//! The way to the peer: a socket, and TLS over it where the URL asks for it.

const std = @import("std");
const ssl = @import("../ssl.zig");
const KernelTlsType = @import("kernel_tls.zig").KernelTlsType;
const NotifierType = @import("../notifier.zig").NotifierType;
const SocketType = @import("../socket.zig").SocketType;

/// What opens the records of TLS. `ssl.Session` decides, once there is one.
pub const Opener = enum {
    /// There are no records: `ws://`, or TLS has not begun.
    none,
    /// OpenSSL or the direct engine, from the ciphertext ring into the receive ring.
    user_space,
    /// The kernel: plaintext comes out of the socket.
    kernel,
};

pub fn LinkType(comptime Os: type) type {
    return struct {
        const Link = @This();

        socket: ?SocketType(Os) = null,
        /// Of the socket, or of the dialer's; cancelled before either is closed.
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

        pub inline fn inKernel(link: *const Link) bool {
            const tls = if (link.tls) |*session| session else return false;
            return tls.inKernel();
        }

        /// Where content has to lie in the send ring, from its front.
        pub inline fn contentOffset(link: *const Link, content_size: usize) usize {
            return if (link.sealsInPlace()) link.tls.?.contentOffset(content_size) else 0;
        }

        /// The bytes of the send ring that content takes.
        pub inline fn sealedSize(link: *const Link, content_size: usize) usize {
            if (!link.sealsInPlace()) return content_size;
            return link.tls.?.sealedSize(content_size);
        }
    };
}
