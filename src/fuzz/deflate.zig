//! Fuzz target: compressed messages (RFC 7692, section 7.2).
//!
//! A peer's bytes are inflated to the same message, or refused, however the output room is cut, and
//! to the same message as by Zig's own inflater. Messages that the deflater has compressed inflate
//! to themselves, one after the other, whatever room it was given.
//!
//! Payload: a byte of options, a byte for the windows and the level, then messages, each with its
//! size in front: compressed ones to inflate, or others to deflate.

const std = @import("std");
const deflate = @import("../deflate.zig");
const Guarded = @import("guarded.zig").Guarded;
const Input = @import("input.zig").Input;

const Bytes = std.ArrayList(u8);
const Deflater = deflate.Deflater;
const Gpa = std.mem.Allocator;
const Inflater = deflate.Inflater;
const testing = std.testing;
const expect = testing.expect;

/// Largest inflated message: a kilobyte can become a megabyte.
const inflated_size_max = 1 << 16;

const Options = struct {
    api: *const deflate.zlib.Api,
    window_bits: u8,
    no_context_takeover: bool,
    level: u8,

    fn inflater(options: *const Options) Inflater.Options {
        return .{
            .window_bits = options.window_bits,
            .no_context_takeover = options.no_context_takeover,
        };
    }
};

pub fn run(gpa: Gpa, bytes: []const u8) !void {
    var input: Input = .init(bytes);
    const flags = input.takeByte();
    const sizes = input.takeByte();
    const options: Options = .{
        .api = deflate.zlib.load(&.{}) catch |err| switch (err) {
            error.LibraryNotFound => return error.SkipZigTest,
            error.SymbolMissing => return err,
        },
        .window_bits = 8 + (sizes & 7),
        .no_context_takeover = flags & 2 != 0,
        .level = (sizes >> 3) % 10,
    };
    if (flags & 1 == 0) return inflateMessages(gpa, &options, &input);
    if (Deflater.supports(options.window_bits)) try deflateMessages(gpa, &options, &input);
}

/// The messages of the input: each has one byte for its size, or two (from 128 on).
fn takeMessage(input: *Input) ?[]const u8 {
    if (input.payload.len == 0) return null;
    var size: usize = input.takeByte();
    if (size >= 128) size = (size - 128) * 256 + input.takeByte();
    return input.take(size);
}

// ---- Bytes of a peer. --------------------------------------------------------------------------

fn inflateMessages(gpa: Gpa, options: *const Options, input: *Input) !void {
    var whole: Inflater = undefined;
    try whole.init(options.api, options.inflater());
    defer whole.deinit();
    var pieces: Inflater = undefined;
    try pieces.init(options.api, options.inflater());
    defer pieces.deinit();
    const room = try gpa.alloc(u8, inflated_size_max);
    defer gpa.free(room);

    // With the window that later messages may refer to.
    var compressed: Bytes = .empty;
    defer compressed.deinit(gpa);
    var inflated: Bytes = .empty;
    defer inflated.deinit(gpa);
    while (takeMessage(input)) |message| {
        var guarded: Guarded = try .init(message.len);
        defer guarded.deinit();
        const payload = guarded.place(message);
        const step = whole.next(payload, room) catch |err| {
            return testing.expectError(err, inflatePieces(gpa, &pieces, payload, input));
        };
        try expect(step.output_size <= room.len);
        try expect(step.input_used <= payload.len);
        if (!step.done) return expect(step.output_size == room.len); // At the limit.
        try testing.expectEqual(payload.len, step.input_used);
        var other = try inflatePieces(gpa, &pieces, payload, input);
        defer other.deinit(gpa);
        try expect(std.mem.eql(u8, room[0..step.output_size], other.items));

        if (options.no_context_takeover) {
            compressed.clearRetainingCapacity();
            inflated.clearRetainingCapacity();
        }
        try compressed.appendSlice(gpa, payload);
        try compressed.appendSlice(gpa, &.{ 0x00, 0x00, 0xff, 0xff });
        try inflated.appendSlice(gpa, other.items);
        try judgeByReference(gpa, compressed.items, inflated.items);
    }
}

/// Into rooms of sizes that the input chooses.
fn inflatePieces(gpa: Gpa, inflater: *Inflater, payload: []const u8, input: *Input) !Bytes {
    var output: Bytes = .empty;
    errdefer output.deinit(gpa);
    var guarded: Guarded = try .init(inflated_size_max);
    defer guarded.deinit();
    var used: usize = 0;
    while (true) {
        const room = guarded.room(input.choosePieceSize(inflated_size_max));
        const step = try inflater.next(payload[used..], room);
        used += step.input_used;
        try output.appendSlice(gpa, room[0..step.output_size]);
        if (step.done) return output;
        try testing.expectEqual(room.len, step.output_size);
        if (output.items.len > 2 * inflated_size_max) return error.DoesNotEnd;
    }
}

/// All messages so far as one stream, by Zig's inflater. It stops at a final block, which does not
/// end a message; then it has read less, and there is nothing to compare.
fn judgeByReference(gpa: Gpa, compressed: []const u8, inflated: []const u8) !void {
    const final_block = [_]u8{ 0x01, 0x00, 0x00, 0xff, 0xff };
    const stream = try std.mem.concat(gpa, u8, &.{ compressed, &final_block });
    defer gpa.free(stream);
    var reader: std.Io.Reader = .fixed(stream);
    const window = try gpa.alloc(u8, std.compress.flate.max_window_len);
    defer gpa.free(window);
    var reference: std.compress.flate.Decompress = .init(&reader, .raw, window);
    var writer: std.Io.Writer.Allocating = .init(gpa);
    defer writer.deinit();
    _ = reference.reader.streamRemaining(&writer.writer) catch return error.ReferenceRefuses;
    if (reader.bufferedLen() > 0) return;
    try expect(std.mem.eql(u8, inflated, writer.written()));
}

// ---- Messages of the client. -------------------------------------------------------------------

fn deflateMessages(gpa: Gpa, options: *const Options, input: *Input) !void {
    var deflater: Deflater = undefined;
    try deflater.init(options.api, .{
        .window_bits = options.window_bits,
        .no_context_takeover = options.no_context_takeover,
        .level = options.level,
    });
    defer deflater.deinit();
    var inflater: Inflater = undefined;
    try inflater.init(options.api, options.inflater());
    defer inflater.deinit();

    while (takeMessage(input)) |message| {
        if (message.len == 0) continue;
        const bound = deflater.bound(message.len);
        const is_short = input.chooseBool();
        const size = if (is_short) input.choosePieceSize(bound) else bound;
        var guarded: Guarded = try .init(size);
        defer guarded.deinit();
        const target = guarded.room(size);
        const deflated_size = deflater.message(message, target) orelse {
            try expect(is_short);
            continue;
        };
        var output = try inflatePieces(gpa, &inflater, target[0..deflated_size], input);
        defer output.deinit(gpa);
        try testing.expectEqualSlices(u8, message, output.items);
    }
}
