//! The core of hftws. It knows nothing of Python; `src/python/` is what makes it importable.

pub const constants = @import("constants.zig");
pub const histogram = @import("histogram.zig");
pub const http = @import("http.zig");
pub const notifier = @import("notifier.zig");
pub const os = @import("os.zig");
pub const clock = @import("os/clock.zig");
pub const ringbuffer = @import("ringbuffer.zig");
pub const socket = @import("socket.zig");
pub const ssl = @import("ssl.zig");
pub const ws = @import("ws.zig");

test {
    _ = constants;
    _ = histogram;
    _ = http;
    _ = notifier;
    _ = os;
    _ = clock;
    _ = ringbuffer;
    _ = socket;
    _ = ssl;
    _ = ws;
}
