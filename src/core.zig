//! The root of the core: all modules that the binding uses.
//!
//! It imports nothing of Python: `src/python/` makes an extension module of it.

pub const connection = @import("connection.zig");
pub const constants = @import("constants.zig");
pub const delivery = @import("delivery.zig");
pub const deflate = @import("deflate.zig");
pub const histogram = @import("histogram.zig");
pub const http = @import("http.zig");
pub const lookup = @import("lookup.zig");
pub const loop = @import("loop.zig");
pub const notifier = @import("notifier.zig");
pub const os = @import("os.zig");
pub const clock = @import("os/clock.zig");
pub const ringbuffer = @import("ringbuffer.zig");
pub const sink = @import("sink.zig");
pub const socket = @import("socket.zig");
pub const ssl = @import("ssl.zig");
pub const ws = @import("ws.zig");

/// A connection on this machine's kernel.
pub const Connection = connection.ConnectionType(os.Os);
/// Where connections wait.
pub const Loop = loop.LoopType(os.Os);

test {
    if (@import("builtin").os.tag == .linux) _ = @import("testing/kqueue_shim_test.zig");
    // So that `zig build check` type checks all of its functions, for every target.
    @import("std").testing.refAllDecls(Connection);
    @import("std").testing.refAllDecls(Loop);
    _ = connection;
    _ = constants;
    _ = deflate;
    _ = histogram;
    _ = http;
    _ = lookup;
    _ = loop;
    _ = notifier;
    _ = os;
    _ = clock;
    _ = ringbuffer;
    _ = sink;
    _ = socket;
    _ = ssl;
    _ = ws;
    _ = @import("connection/busy_poll_test.zig");
    _ = @import("connection/closing_test.zig");
    _ = @import("connection/compression.zig");
    _ = @import("connection/compression_test.zig");
    _ = @import("connection/deadlines_test.zig");
    _ = @import("connection/dialer.zig");
    _ = @import("connection/endings_test.zig");
    _ = @import("connection/fault_test.zig");
    _ = @import("connection/ktls_test.zig");
    _ = @import("connection/last_word_test.zig");
    _ = @import("connection/latency.zig");
    _ = @import("connection/lookup_test.zig");
    _ = @import("connection/opening_test.zig");
    _ = @import("connection/closing.zig");
    _ = @import("connection/kernel_tls.zig");
    _ = @import("connection/lifecycle.zig");
    _ = @import("connection/link.zig");
    _ = @import("connection/opening.zig");
    _ = @import("connection/outbox.zig");
    _ = @import("connection/state.zig");
    _ = @import("connection/transport.zig");
    _ = @import("connection/plain_response_test.zig");
    _ = @import("connection/random_test.zig");
    _ = @import("connection/receiving_test.zig");
    _ = @import("connection/sending_test.zig");
    _ = @import("connection/sessions_test.zig");
    _ = @import("connection/tls_test.zig");
    _ = @import("connection/types.zig");
    _ = @import("cpu.zig");
    _ = @import("dynamic_library.zig");
    _ = @import("histogram_test.zig");
    _ = @import("once.zig");
    _ = @import("ringbuffer_test.zig");
    _ = @import("socket_test.zig");
    _ = @import("ssl/aead.zig");
    _ = @import("ssl/aead/evp.zig");
    _ = @import("ssl/aead/ipsec_mb.zig");
    _ = @import("ssl/aead/vectors.zig");
}
