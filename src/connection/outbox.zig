//! The sending half of a connection: frames are built in the send ring, sealed from there, and
//! given to the kernel; what it does not take waits in the rings.
//!
//!     frame in the send ring ─▶ seal (TLS) ─▶ ciphertext ring ─▶ kernel
//!
//! A frame is in the ring whole or not at all. Sending that has failed stays failed, and the
//! connection lives on until its receiving half ends: what the peer sent before, such as its
//! reason, may still be there to be read.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("../constants.zig");
const os = @import("../os.zig");
const ssl = @import("../ssl.zig");
const types = @import("types.zig");
const ws = @import("../ws.zig");
const RingBuffer = @import("../ringbuffer.zig").RingBuffer;
const SocketType = @import("../socket.zig").SocketType;

const SendError = types.SendError;

pub fn OutboxType(comptime Os: type) type {
    return struct {
        const Outbox = @This();
        const Socket = SocketType(Os);

        /// Plaintext for the peer: request, frames.
        ring: *RingBuffer,
        /// Ciphertext that is not sent yet. Null for `ws://`.
        ciphertext: ?*RingBuffer,
        mask: types.Options.Mask,
        masks: types.MaskPool(Os) = .{},
        /// The frame that the owner is writing, at the front of the free part of the ring.
        reservation: ?types.Reservation = null,
        pong_pending: ?types.Pong = null,
        failure: ?os.SendError = null,
        /// TLS 1.2 shakes hands again: nothing can be sealed before the peer has answered.
        awaits_peer: bool = false,

        /// Where the bytes go. Borrowed from the connection for a call.
        pub const Link = struct { socket: *Socket, tls: ?*ssl.Session };

        /// One frame with a copy of the payload; flushed. All or nothing.
        pub fn send(
            outbox: *Outbox,
            link: Link,
            opcode: ws.Opcode,
            payload: []const u8,
        ) SendError!void {
            const target = try outbox.roomFor(link, payload.len);
            const key = outbox.nextMask();
            const size = ws.builder.writeFrame(target, opcode, payload, key);
            outbox.ring.produce(size);
            outbox.flush(link);
            if (outbox.failure != null) return error.Disconnected;
        }

        /// The place of a payload in the ring. To be followed by `commit` or `cancel`; nothing else
        /// can be sent in between.
        pub fn reserve(
            outbox: *Outbox,
            link: Link,
            opcode: ws.Opcode,
            size: usize,
        ) SendError![]u8 {
            const target = try outbox.roomFor(link, size);
            const header_size = ws.builder.headerSize(size);
            outbox.reservation = .{
                .opcode = opcode,
                .payload_size = size,
                .place = target[0 .. header_size + size],
            };
            return target[header_size..][0..size];
        }

        /// The payload is written: masks it where it stands, and sends it. Gives its size.
        pub fn commit(outbox: *Outbox, link: Link) SendError!usize {
            const reservation = outbox.reservation.?;
            outbox.reservation = null;
            const place = reservation.place;
            const key = outbox.nextMask();
            const header_size = ws.builder.writeHeader(place, .{
                .opcode = reservation.opcode,
                .fin = true,
                .payload_size = reservation.payload_size,
                .mask_key = key,
            });
            assert(header_size + reservation.payload_size == place.len);
            ws.mask.apply(place[header_size..], key);
            outbox.ring.produce(place.len);
            outbox.flush(link);
            if (outbox.failure != null) return error.Disconnected;
            return reservation.payload_size;
        }

        pub fn cancel(outbox: *Outbox) void {
            outbox.reservation = null;
        }

        /// A control frame has to go out even when the owner has filled the ring, unless he is
        /// writing into it right now or the room kept free for it is used up.
        pub fn sendControl(
            outbox: *Outbox,
            link: Link,
            opcode: ws.Opcode,
            payload: []const u8,
        ) bool {
            if (outbox.reservation != null or outbox.failure != null) return false;
            const target = outbox.ring.writable();
            // Pongs, of which there may be any number, leave room for the one CLOSE.
            const spare: usize = if (opcode == .close) 0 else constants.control_frames_room / 2;
            const needed = ws.builder.headerSize(payload.len) + payload.len + spare;
            if (target.len < needed) return false;
            const size = ws.builder.writeFrame(target, opcode, payload, outbox.nextMask());
            outbox.ring.produce(size);
            outbox.flush(link);
            return true;
        }

        /// Answers with the same payload (RFC 6455, section 5.5.3). When there is no room, only
        /// the newest ping is remembered, which the RFC allows.
        pub fn answerPing(outbox: *Outbox, link: Link, payload: []const u8) void {
            outbox.pong_pending = null;
            if (outbox.sendControl(link, .pong, payload)) return;
            outbox.pong_pending = .init(payload);
        }

        /// Room for a frame of the owner's, with enough left that a control frame always fits.
        fn roomFor(outbox: *Outbox, link: Link, payload_size: usize) SendError![]u8 {
            if (outbox.reservation != null) return error.Reserved;
            if (outbox.failure != null) return error.Disconnected;
            const needed = roomNeeded(payload_size);
            const target = outbox.ring.writable();
            if (target.len >= needed) return target;

            outbox.flush(link); // The peer may have read meanwhile.
            if (outbox.failure != null) return error.Disconnected;
            const flushed = outbox.ring.writable();
            return if (flushed.len >= needed) flushed else error.SendRingFull;
        }

        fn roomNeeded(payload_size: usize) usize {
            const frame_size = ws.builder.headerSize(payload_size) +| payload_size;
            return frame_size +| constants.control_frames_room;
        }

        /// Whether a message of this size does not even fit an empty ring.
        pub fn neverFits(outbox: *const Outbox, payload_size: usize) bool {
            return roomNeeded(payload_size) > outbox.ring.capacity;
        }

        fn nextMask(outbox: *Outbox) [4]u8 {
            return switch (outbox.mask) {
                .random => outbox.masks.next(),
                .zero => .{ 0, 0, 0, 0 },
            };
        }

        /// Whether something waits for the socket to be writable.
        pub fn isWaiting(outbox: *const Outbox) bool {
            if (outbox.failure != null) return false;
            if (outbox.ciphertext) |ring| {
                if (ring.readable().len > 0) return true;
            }
            return !outbox.awaits_peer and outbox.ring.readable().len > 0;
        }

        /// Whether anything has still to go out.
        pub fn hasUnsent(outbox: *const Outbox) bool {
            if (outbox.failure != null) return false;
            return outbox.isWaiting() or outbox.ring.readable().len > 0;
        }

        /// Seals what is queued and gives the kernel what it takes. The rest stays in the rings.
        pub fn flush(outbox: *Outbox, link: Link) void {
            while (outbox.sealRecord(link)) {
                if (!outbox.push(link, outbox.ciphertext.?)) break;
            }
            _ = outbox.push(link, outbox.ciphertext orelse outbox.ring);
            if (outbox.pong_pending) |pong| {
                outbox.pong_pending = null;
                outbox.answerPing(link, pong.payload());
            }
        }

        /// Moves the front of the send ring, at most a record, into the ring of ciphertext.
        fn sealRecord(outbox: *Outbox, link: Link) bool {
            const ciphertext = outbox.ciphertext orelse return false;
            const plaintext = outbox.ring.readable();
            if (plaintext.len == 0) return false;
            const step = link.tls.?.seal(plaintext, ciphertext.writable()) catch {
                outbox.abandon(error.BrokenPipe); // The receiving half tells why.
                return false;
            };
            ciphertext.produce(step.to_send_size);
            outbox.ring.consume(step.plaintext_size);
            outbox.awaits_peer = step.status == .needs_received;
            return step.status == .done;
        }

        /// Ciphertext that is no frame: handshake, alerts, the answer to a KeyUpdate. `size` bytes
        /// have been written to the front of the free part of the ciphertext ring.
        pub fn sendSealed(outbox: *Outbox, link: Link, size: usize) void {
            outbox.ciphertext.?.produce(size);
            _ = outbox.push(link, outbox.ciphertext.?);
        }

        /// False when the kernel did not take everything.
        fn push(outbox: *Outbox, link: Link, ring: *RingBuffer) bool {
            while (true) {
                const bytes = ring.readable();
                if (bytes.len == 0) return true;
                const size = link.socket.send(bytes) catch |err| {
                    switch (err) {
                        error.WouldBlock => {},
                        else => |cause| outbox.abandon(cause),
                    }
                    return false;
                };
                ring.consume(size);
            }
        }

        fn abandon(outbox: *Outbox, cause: os.SendError) void {
            outbox.failure = cause;
            outbox.pong_pending = null;
            outbox.ring.consume(outbox.ring.readable().len);
            if (outbox.ciphertext) |ring| ring.consume(ring.readable().len);
        }
    };
}
