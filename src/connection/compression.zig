//! The compressed messages of a connection (permessage-deflate, RFC 7692): those that arrive are
//! inflated into a ring of their own, because nobody but TLS writes into the receive ring and
//! because a message has to be one span; those that go out are deflated where they are sent from.
//!
//!     receive ring: compressed payload ─▶ inflate ─▶ inflated ring: the message that is lent
//!
//! A message stays readable in the inflated ring until the next one is begun, or longer if it is
//! pinned. Made when the connection opens, for the parameters that were agreed on; must not move.

const std = @import("std");
const assert = std.debug.assert;
const deflate = @import("../deflate.zig");
const ws = @import("../ws.zig");
const RingBuffer = @import("../ringbuffer.zig").RingBuffer;

const Deflater = deflate.Deflater;
const Inflater = deflate.Inflater;

/// What the owner of a connection asks for.
pub const Options = struct {
    api: *const deflate.zlib.Api,
    offer: ws.permessage_deflate.Offer,
    /// 0 (none) to 9 (best).
    level: u8,
    /// Messages of fewer bytes go out as they are.
    size_min: usize,
};

pub const Compression = struct {
    agreement: ws.permessage_deflate.Agreement,
    inflater: Inflater,
    /// Null where zlib has no window as small as the agreed one: messages go out as they are.
    deflater: ?Deflater,
    size_min: usize,
    /// Of the connection, which owns it.
    ring: *RingBuffer,
    /// Of the payload of the present message.
    input_used: usize,

    pub const InflateError = error{
        /// What is pinned leaves no room. The same message can be gone on with later.
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

    /// The message that this payload stands for: at most `size_max` bytes, in the ring until the
    /// next call for another payload. After `NoRoom`, the same payload has to come again.
    pub fn inflate(
        compression: *Compression,
        payload: []const u8,
        size_max: usize,
    ) InflateError![]u8 {
        const ring = compression.ring;
        if (compression.input_used == 0) ring.consume(ring.readable().len); // The one before.
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

    /// `inflate`, and what else holds for a message: text has to be UTF-8 (RFC 7692, section 6.2,
    /// leaves that check where RFC 6455, section 8.1, has it).
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

    /// What a message of this size is to be compressed by; null when it goes out as it is.
    pub fn deflaterFor(compression: *Compression, payload_size: usize) ?*Deflater {
        if (payload_size < compression.size_min) return null;
        return if (compression.deflater) |*deflater| deflater else null;
    }
};
