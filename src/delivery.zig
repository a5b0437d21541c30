//! One message as a sink gets it: its bytes, timestamps and connection.
//!
//! A sink needs to know nothing else of the core. The bytes are borrowed until the connection is
//! asked for the next message, and so are the stamps of the line; a sink that needs the bytes for
//! longer pins them in `ring`.

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
    /// The ring that the payload lies in.
    ring: *RingBuffer,
    /// The connection that the message came from.
    line: *const Line,
};

/// When a message passed each stage. A read has one kernel stamp, that of the segment with its last
/// byte, which all messages in it share: see `Line.isStampExact`.
pub const Stamps = struct {
    /// When the kernel or the NIC received the segment, ns since the epoch; 0 when unknown.
    kernel_ns: i64 = 0,
    /// When the read returned, ns since the epoch; 0 when stamps are off.
    received_ns: i64 = 0,
    /// The same moment, and the following ones, in cycles of the CPU's counter.
    received_cycles: u64 = 0,
    decrypted_cycles: u64 = 0,
    delivered_cycles: u64 = 0,
};

/// What a sink may know of a connection. Owned by the connection.
pub const Line = struct {
    /// The stamps of the message that is lent.
    stamps: Stamps = .{},
    /// Whether stamps are taken.
    stamped: bool = false,
    /// Converts the cycles of the stamps to nanoseconds; 0 before the first start.
    rate: Rate = .{},
    /// The connection's part of `hasMore`, so that a line does not depend on the connection's type.
    hasMoreFn: *const fn (line: *const Line) bool,
    /// The same for `isStampExact`.
    isStampExactFn: *const fn (line: *const Line) bool,
    /// Whether the read took all that was in the socket.
    took_all: bool = false,
    /// The last moment at which the socket is known to have held nothing of what the read took;
    /// 0 when unknown. Each message in it arrived later. Not a stamp: those are copied for each
    /// message.
    earliest_cycles: u64 = 0,

    /// Whether another message can be delivered without reading the socket. For use while a
    /// message is lent, by the thread that receives.
    pub fn hasMore(line: *const Line) bool {
        return line.hasMoreFn(line);
    }

    /// Whether the kernel's stamp is that of the segment which completed the message. Of a message
    /// with more behind it in the read, it is only the latest that is possible: the message is at
    /// least as old as the stamp. For use as `hasMore`.
    pub fn isStampExact(line: *const Line) bool {
        return line.isStampExactFn(line);
    }
};
