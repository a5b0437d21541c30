//! The compression of messages by zlib, one message at a time.
//!
//! The format is DEFLATE as RFC 7692, section 7.2, uses it. A sender ends every message with an
//! empty block, so that it ends at a byte, and leaves out the last four bytes of that. `Inflater`
//! adds them, `Deflater` removes them. Both write into the caller's memory, and allocate when they
//! are made, not for each message. Neither may be moved.
//!
//! No I/O. The size of an inflated message is not known beforehand: an inflater continues whenever
//! it gets more room, and its owner sets the limit.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("constants.zig");

pub const zlib = @import("deflate/zlib.zig");

/// The end of a message that is not sent: an empty block without compression.
const tail = [_]u8{ 0x00, 0x00, 0xff, 0xff };

/// The smallest window that zlib has. It can read what was written with a smaller one, but not
/// write it: see `Deflater.Options`.
const zlib_window_bits_min = 9;

comptime {
    assert(constants.ring_capacity_max <= std.math.maxInt(c_uint)); // zlib's sizes.
}

pub const InitError = error{OutOfMemory};

/// Decompresses messages of `Deflater`, or of any other deflater.
pub const Inflater = struct {
    api: *const zlib.Api,
    stream: zlib.Stream,
    /// Whether each message begins with an empty window.
    no_context_takeover: bool,
    /// How many bytes of `tail` were used for the current message.
    tail_used: usize,

    pub const Options = struct {
        /// Base-2 logarithm of the largest window that the peer uses.
        window_bits: u8,
        no_context_takeover: bool,
    };

    pub const Error = error{
        /// The peer sent what is not DEFLATE. The inflater cannot be used any further.
        InvalidCompression,
        OutOfMemory,
    };

    pub const Step = struct {
        input_used: usize,
        output_size: usize,
        /// The message is complete. Else it goes on when there is more room.
        done: bool,
    };

    /// Initialises in place, because zlib keeps the address.
    pub fn init(inflater: *Inflater, api: *const zlib.Api, options: Options) InitError!void {
        inflater.* = .{
            .api = api,
            .stream = .{},
            .no_context_takeover = options.no_context_takeover,
            .tail_used = 0,
        };
        const bits = @max(options.window_bits, zlib_window_bits_min);
        const status = api.inflateInit2_(
            &inflater.stream,
            -@as(c_int, bits), // Negative: no header and no checksum.
            api.zlibVersion(),
            @sizeOf(zlib.Stream),
        );
        if (status != zlib.ok) return error.OutOfMemory;
        errdefer inflater.deinit();
        try inflater.allocateWindow();
    }

    pub fn deinit(inflater: *Inflater) void {
        _ = inflater.api.inflateEnd(&inflater.stream);
        inflater.* = undefined;
    }

    /// zlib allocates its window with the first byte of output: this makes it do so now.
    fn allocateWindow(inflater: *Inflater) InitError!void {
        const one_byte = [_]u8{ 0x00, 0x01, 0x00, 0xfe, 0xff, 'x' }; // A stored block.
        var target: [1]u8 = undefined;
        const step = inflater.run(&one_byte, &target) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            error.InvalidCompression => unreachable,
        };
        assert(step.input_used == one_byte.len);
        assert(step.output_size == target.len);
        assert(inflater.api.inflateReset(&inflater.stream) == zlib.ok);
    }

    /// Continues a message: `input` is all of its payload that was not used yet. Writes to the
    /// front of `room`, which must not overlap it.
    pub fn next(inflater: *Inflater, input: []const u8, room: []u8) Error!Step {
        var step: Step = .{ .input_used = 0, .output_size = 0, .done = false };
        while (true) {
            const payload = input[step.input_used..];
            const source = if (payload.len > 0) payload else tail[inflater.tail_used..];
            const progress = try inflater.run(source, room[step.output_size..]);
            step.output_size += progress.output_size;
            if (payload.len > 0) {
                step.input_used += progress.input_used;
            } else {
                inflater.tail_used += progress.input_used;
            }
            if (progress.input_used == source.len) {
                if (payload.len > 0) continue;
                if (inflater.isBetweenBlocks()) break;
            }
            if (progress.input_used + progress.output_size > 0) continue;
            // No progress: there is no room, or the message ends within a block.
            return if (step.output_size == room.len) step else error.InvalidCompression;
        }
        inflater.finishMessage();
        step.done = true;
        return step;
    }

    const Progress = struct { input_used: usize, output_size: usize };

    /// One call of zlib.
    fn run(inflater: *Inflater, source: []const u8, room: []u8) Error!Progress {
        const stream = &inflater.stream;
        const source_size: c_uint = @intCast(source.len);
        const room_size: c_uint = @intCast(room.len);
        stream.next_in = source.ptr;
        stream.avail_in = source_size;
        stream.next_out = room.ptr;
        stream.avail_out = room_size;
        switch (inflater.api.inflate(stream, zlib.sync_flush)) {
            zlib.ok, zlib.buffer_error => {},
            // For zlib a final block ends the stream, but it does not end the message, and the next
            // block may refer to data before it (RFC 7692, section 7.2.3.4).
            zlib.stream_end => assert(inflater.api.inflateResetKeep(stream) == zlib.ok),
            zlib.memory_error => return error.OutOfMemory,
            else => return error.InvalidCompression,
        }
        return .{
            .input_used = source_size - stream.avail_in,
            .output_size = room_size - stream.avail_out,
        };
    }

    /// Whether all output was written, and the last byte of input was used to its last bit.
    fn isBetweenBlocks(inflater: *const Inflater) bool {
        const place = inflater.stream.data_type;
        return place & zlib.between_blocks != 0 and place & zlib.unused_bits_mask == 0;
    }

    fn finishMessage(inflater: *Inflater) void {
        inflater.tail_used = 0;
        if (!inflater.no_context_takeover) return;
        assert(inflater.api.inflateReset(&inflater.stream) == zlib.ok);
    }
};

/// Compresses messages.
pub const Deflater = struct {
    api: *const zlib.Api,
    stream: zlib.Stream,
    no_context_takeover: bool,

    pub const Options = struct {
        /// Base-2 logarithm of the window. zlib does not have 8: then there is no deflater, and
        /// messages are sent uncompressed, which is always allowed (RFC 7692, section 6).
        window_bits: u8,
        no_context_takeover: bool,
        /// 0 (none) to 9 (best).
        level: u8,
    };

    pub fn supports(window_bits: u8) bool {
        return window_bits >= zlib_window_bits_min;
    }

    /// Initialises in place, because zlib keeps the address. Asserts that zlib has such a window.
    pub fn init(deflater: *Deflater, api: *const zlib.Api, options: Options) InitError!void {
        assert(supports(options.window_bits));
        assert(options.level <= constants.deflate_level_max);
        deflater.* = .{
            .api = api,
            .stream = .{},
            .no_context_takeover = options.no_context_takeover,
        };
        const status = api.deflateInit2_(
            &deflater.stream,
            options.level,
            zlib.deflated,
            -@as(c_int, options.window_bits), // Negative: no header and no checksum.
            constants.deflate_memory_level,
            zlib.default_strategy,
            api.zlibVersion(),
            @sizeOf(zlib.Stream),
        );
        if (status != zlib.ok) return error.OutOfMemory;
    }

    pub fn deinit(deflater: *Deflater) void {
        _ = deflater.api.deflateEnd(&deflater.stream);
        deflater.* = undefined;
    }

    /// How much room `message` needs for so many bytes.
    pub fn bound(deflater: *Deflater, size: usize) usize {
        // zlib's bound is for a stream that ends with a final block. A flush may add the empty
        // block once more for each full buffer of symbols.
        const flushes_size = size / 1024 + 16;
        return deflater.api.deflateBound(&deflater.stream, size) + flushes_size;
    }

    /// Compresses a whole message, of at least one byte, to the front of `target`, which must not
    /// overlap it, and returns the size. Null when it does not fit; then the output must not be
    /// sent, and the next message begins with an empty window.
    pub fn message(deflater: *Deflater, payload: []const u8, target: []u8) ?usize {
        assert(payload.len > 0);
        const stream = &deflater.stream;
        const target_size: c_uint = @intCast(target.len);
        stream.next_in = payload.ptr;
        stream.avail_in = @intCast(payload.len);
        stream.next_out = target.ptr;
        stream.avail_out = target_size;
        const status = deflater.api.deflate(stream, zlib.sync_flush);
        // Only if room is left is the flush known to be complete.
        if (status != zlib.ok or stream.avail_out == 0) {
            deflater.forget();
            return null;
        }
        assert(stream.avail_in == 0);
        const size = target_size - stream.avail_out;
        assert(std.mem.endsWith(u8, target[0..size], &tail));
        if (deflater.no_context_takeover) deflater.forget();
        return size - tail.len;
    }

    fn forget(deflater: *Deflater) void {
        assert(deflater.api.deflateReset(&deflater.stream) == zlib.ok);
    }
};

test {
    _ = zlib;
    _ = @import("deflate_test.zig");
}
