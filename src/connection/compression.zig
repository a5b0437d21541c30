//! Inflates and deflates the messages of a connection (RFC 7692).
//!
//! Received messages are inflated into a ring of their own, because a message has to be one span
//! and only the socket or TLS writes into the receive ring. Those to send are deflated in the send
//! ring.
//!
//!     receive ring: compressed payload ─▶ inflate ─▶ inflated ring: the message that is lent
//!
//! A message stays readable in the inflated ring until the next one begins, or longer if it is
//! pinned. A `Compression` is made when the connection opens, with the agreed parameters, and must
//! not move.

const std = @import("std");
const assert = std.debug.assert;
const deflate = @import("../deflate.zig");
const ws = @import("../ws.zig");
const RingBuffer = @import("../ringbuffer.zig").RingBuffer;

const Deflater = deflate.Deflater;
const Inflater = deflate.Inflater;

/// What the owner of a connection chooses.
pub const Options = struct {
    api: *const deflate.zlib.Api,
    offer: ws.permessage_deflate.Offer,
    /// 0 (none) to 9 (best).
    level: u8,
    /// Messages of fewer bytes are sent uncompressed.
    size_min: usize,
};

pub const Compression = struct {
    agreement: ws.permessage_deflate.Agreement,
    inflater: Inflater,
    /// Null where zlib has no window as small as the agreed one: nothing is compressed then.
    deflater: ?Deflater,
    size_min: usize,
    /// Receives the inflated messages. Owned by the connection.
    ring: *RingBuffer,
    /// How much of the present message's payload is inflated.
    input_used: usize,

    pub const InflateError = error{
        /// Pinned bytes leave no room in the ring. A later call can continue the message.
        NoRoom,
        MessageTooBig,
        InvalidCompression,
        OutOfMemory,
    };

    pub fn init(
        compression: *Compression,
        options: *const Options,
        agreement: ws.permessage_deflate.Agreement,
        ring: *RingBuffer,
    ) deflate.InitError!void {
        compression.* = .{
            .agreement = agreement,
            .inflater = undefined,
            .deflater = null,
            .size_min = @max(options.size_min, 1),
            .ring = ring,
            .input_used = 0,
        };
        try compression.inflater.init(options.api, .{
            .window_bits = agreement.server_max_window_bits,
            .no_context_takeover = agreement.server_no_context_takeover,
        });
        errdefer compression.inflater.deinit();
        if (!Deflater.supports(agreement.client_max_window_bits)) return;

        compression.deflater = @as(Deflater, undefined);
        try compression.deflater.?.init(options.api, .{
            .window_bits = agreement.client_max_window_bits,
            .no_context_takeover = agreement.client_no_context_takeover,
            .level = options.level,
        });
    }

    pub fn deinit(compression: *Compression) void {
        compression.inflater.deinit();
        if (compression.deflater) |*deflater| deflater.deinit();
        compression.* = undefined;
    }

    /// Inflates this payload to at most `size_max` bytes, which stay in the ring until the call
    /// for the next payload. After `NoRoom`, call it again with the same payload.
    pub fn inflate(
        compression: *Compression,
        payload: []const u8,
        size_max: usize,
    ) InflateError![]u8 {
        const ring = compression.ring;
        if (compression.input_used == 0) ring.consume(ring.readable().len); // The last message.
        const free = ring.writable();
        const size_left = size_max - ring.readable().len;
        const room = free[0..@min(free.len, size_left)];
        const step = try compression.inflater.next(payload[compression.input_used..], room);
        ring.produce(step.output_size);
        compression.input_used += step.input_used;
        if (!step.done) return if (room.len == size_left) error.MessageTooBig else error.NoRoom;
        assert(compression.input_used == payload.len);
        compression.input_used = 0;
        return ring.readable();
    }

    /// `inflate`, and the check that text is UTF-8 (RFC 6455, section 8.1), which is on the
    /// inflated bytes (RFC 7692, section 6.2).
    pub fn message(
        compression: *Compression,
        compressed: ws.Parser.Message,
        options: struct { size_max: usize, validate_utf8: bool },
    ) (InflateError || error{InvalidUtf8})![]u8 {
        const payload = try compression.inflate(compressed.payload, options.size_max);
        const judged = compressed.opcode == .text and options.validate_utf8;
        if (judged and !ws.utf8.validate(payload)) return error.InvalidUtf8;
        return payload;
    }

    /// The deflater for a message of this size; null when it has to be sent uncompressed.
    pub fn deflaterFor(compression: *Compression, payload_size: usize) ?*Deflater {
        if (payload_size < compression.size_min) return null;
        return if (compression.deflater) |*deflater| deflater else null;
    }
};
