//! A TCP listener on 127.0.0.1: the peer of a socket under test, on the real kernel.

const std = @import("std");
const assert = std.debug.assert;
const c = std.c;
const posix = @import("../os/posix.zig");
const Address = posix.Address;
const Descriptor = posix.Descriptor;

/// A listener on 127.0.0.1. Its accepted connections block.
pub const TestListener = struct {
    descriptor: Descriptor,
    address: Address,

    /// Binds to a port that the kernel chooses. With `listening` false, connecting is refused.
    pub fn open(listening: bool) TestListener {
        const any_port = Address.parse("127.0.0.1", 0).?;
        const descriptor = posix.openSocket(&any_port, 0) catch unreachable;
        posix.bind(descriptor, &any_port) catch unreachable;
        if (listening and c.listen(descriptor, 8) != 0) unreachable;
        return .{ .descriptor = descriptor, .address = posix.localAddress(descriptor).? };
    }

    /// Blocks until there is a connection. The caller closes it.
    pub fn accept(listener: *const TestListener) Descriptor {
        const descriptor = c.accept(listener.descriptor, null, null);
        assert(descriptor >= 0);
        return descriptor;
    }

    /// Closes a connection by RST instead of FIN (SO_LINGER of 0 s).
    pub fn reset(descriptor: Descriptor) void {
        const linger: extern struct { enabled: c_int, seconds: c_int } = .{
            .enabled = 1,
            .seconds = 0,
        };
        const size = @sizeOf(@TypeOf(linger));
        if (c.setsockopt(descriptor, c.SOL.SOCKET, c.SO.LINGER, &linger, size) != 0) unreachable;
        posix.close(descriptor);
    }

    pub fn deinit(listener: *const TestListener) void {
        posix.close(listener.descriptor);
    }
};
