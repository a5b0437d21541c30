//! What leaves the core for one message: a value that says where the bytes lie, when they came,
//! and which connection they came from. Whoever takes it needs to know nothing else of the core.
//!
//! The bytes, and the line, are borrowed until the connection is asked for the next message. A
//! sink that needs the bytes for longer pins them in `ring`.

const std = @import("std");
const ws = @import("ws.zig");
const Rate = @import("os/clock.zig").Rate;
const RingBuffer = @import("ringbuffer.zig").RingBuffer;

pub const Delivery = struct {
    /// The whole message, in one piece.
    payload: []const u8,
    opcode: ws.Opcode,
    /// Whether it came in several frames.
    fragmented: bool,
    /// What the payload lies in.
    ring: *RingBuffer,
    /// The connection that it came from.
    line: *const Line,
};

/// When a message passed the stages of its way. A read has one kernel stamp: with several messages
/// in it, that of the newest segment.
pub const Stamps = struct {
    /// When the kernel or the NIC got the segment, ns since the epoch; 0 when unknown.
    kernel_ns: i64 = 0,
    /// When the read returned, ns since the epoch; 0 when stamps are off.
    received_ns: i64 = 0,
    /// The same moment, and the following ones, in CPU cycles.
    received_cycles: u64 = 0,
    decrypted_cycles: u64 = 0,
    delivered_cycles: u64 = 0,
};

/// A connection, as far as those who take its messages may ask. Owned by the connection.
pub const Line = struct {
    /// Of the message that is lent.
    stamps: Stamps = .{},
    /// Whether stamps are taken.
    stamped: bool = false,
    /// From the cycles of the stamps to nanoseconds; 0 before the first start.
    rate: Rate = .{},
    /// `hasMore` of the connection that the line belongs to.
    hasMoreFn: *const fn (line: *const Line) bool,

    /// Whether a further message can be delivered from what has been read already. To be asked
    /// while a message is lent, by the thread that receives.
    pub fn hasMore(line: *const Line) bool {
        return line.hasMoreFn(line);
    }
};
