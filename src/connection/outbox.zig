//! Sends frames: builds them in the send ring, seals them, writes the socket.
//!
//! What the kernel does not take waits in the rings.
//!
//!     frame in the send ring, sealed in place (TLS, direct engine) ─▶ kernel
//!     frame in the send ring ─▶ kernel, which seals it (TLS, ktls engine)
//!     frame in the send ring ─▶ seal (TLS, openssl engine) ─▶ ciphertext ring ─▶ kernel
//!
//! A frame is in the ring whole or not at all. After a send error nothing is sent any more, but the
//! connection goes on until the stream from the peer ends: what the peer sent before, such as a
//! CLOSE with its reason, may still be there to read.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("../constants.zig");
const deflate = @import("../deflate.zig");
const os = @import("../os.zig");
const ssl = @import("../ssl.zig");
const types = @import("types.zig");
const ws = @import("../ws.zig");
const RingBuffer = @import("../ringbuffer.zig").RingBuffer;
const LinkType = @import("link.zig").LinkType;

const SendError = types.SendError;

pub fn OutboxType(comptime Os: type) type {
    return struct {
        const Outbox = @This();
        const Link = LinkType(Os);

        /// The request and frames for the peer, sealed in place if the engine does that.
        ring: *RingBuffer,
        /// Records that OpenSSL has sealed: the handshake, and with the openssl engine all others.
        /// They go out before anything in `ring`. Null for `ws://`.
        ciphertext: ?*RingBuffer,
        mask: types.Options.Mask,
        masks: MaskPoolType(Os) = .{},
        /// The frame that the owner is writing, at the front of the free part of `ring`.
        reservation: ?Reservation = null,
        pong_pending: ?Pong = null,
        failure: ?os.SendError = null,
        /// TLS 1.2 is renegotiating: nothing can be sealed before the peer has answered.
        awaits_peer: bool = false,

        /// Asserts what has to hold between two calls.
        pub inline fn invariants(outbox: *const Outbox, link: *const Link) void {
            if (!std.debug.runtime_safety) return;
            if (outbox.failure != null) { // `abandon` drops what can never be sent.
                assert(outbox.ring.readable().len == 0);
                assert(outbox.pong_pending == null);
                if (outbox.ciphertext) |ring| assert(ring.readable().len == 0);
            }
            if (outbox.reservation) |*reservation| {
                const place = @intFromPtr(reservation.place.ptr);
                const target = @intFromPtr(reservation.target.ptr);
                assert(target == @intFromPtr(outbox.ring.writable().ptr));
                assert(place >= target);
                assert(place + reservation.place.len <= target + reservation.target.len);
                assert(reservation.payload_size < reservation.place.len);
            }
            if (link.isSecure()) assert(outbox.ciphertext != null);
            if (outbox.awaits_peer) assert(link.sealsApart());
            if (link.kernel_tls.records_unsent) assert(link.opener() == .kernel);
        }

        /// Sends one frame with a copy of the payload: queued whole or not at all, then flushed.
        pub fn send(
            outbox: *Outbox,
            link: *Link,
            opcode: ws.Opcode,
            payload: []const u8,
        ) SendError!void {
            const target = try outbox.roomFor(link, payload.len);
            outbox.writeFrame(link, target, opcode, payload);
            outbox.flush(link);
            outbox.invariants(link);
            if (outbox.failure != null) return error.Disconnected;
        }

        /// Sends one frame with the deflated payload and returns its deflated size. Null, and
        /// nothing is sent, if the ring might have no room to deflate it.
        pub fn sendDeflated(
            outbox: *Outbox,
            link: *Link,
            deflater: *deflate.Deflater,
            opcode: ws.Opcode,
            payload: []const u8,
        ) SendError!?usize {
            const bound = deflater.bound(payload.len);
            const target = outbox.roomFor(link, bound) catch |err| switch (err) {
                error.SendRingFull => return null,
                error.NotOpen, error.Disconnected, error.Reserved => |cause| return cause,
            };
            // It is deflated behind room for the largest header, then moved behind its own header.
            const frame_size_max = ws.builder.headerSize(bound) + bound;
            const offset = link.contentOffset(frame_size_max) + ws.builder.headerSize(bound);
            const place = target[offset..][0..bound];
            const size = deflater.message(payload, place) orelse return null;
            outbox.writeDeflated(link, target, opcode, place[0..size]);
            outbox.flush(link);
            outbox.invariants(link);
            if (outbox.failure != null) return error.Disconnected;
            return size;
        }

        /// Writes the frame of `deflated`, which lies in `target`, at or behind its final place.
        fn writeDeflated(
            outbox: *Outbox,
            link: *Link,
            target: []u8,
            opcode: ws.Opcode,
            deflated: []const u8,
        ) void {
            const header_size = ws.builder.headerSize(deflated.len);
            const frame = target[link.contentOffset(header_size + deflated.len)..];
            const payload = frame[header_size..][0..deflated.len];
            @memmove(payload, deflated);
            const key = outbox.nextMask();
            _ = ws.builder.writeHeader(frame, .{
                .opcode = opcode,
                .fin = true,
                .compressed = true,
                .payload_size = payload.len,
                .mask_key = key,
            });
            ws.mask.apply(payload, key);
            outbox.produce(link, target, header_size + payload.len);
        }

        inline fn writeFrame(
            outbox: *Outbox,
            link: *Link,
            target: []u8,
            opcode: ws.Opcode,
            payload: []const u8,
        ) void {
            const frame_size = ws.builder.headerSize(payload.len) + payload.len;
            const place = target[link.contentOffset(frame_size)..];
            const size = ws.builder.writeFrame(place, opcode, payload, outbox.nextMask());
            assert(size == frame_size);
            outbox.produce(link, target, frame_size);
        }

        /// Queues the content at its offset in `target`, and seals it first if the engine seals in
        /// place.
        inline fn produce(outbox: *Outbox, link: *Link, target: []u8, content_size: usize) void {
            const size = link.sealedSize(content_size);
            if (link.sealsInPlace()) {
                link.tls.?.sealInPlace(target[0..size], content_size) catch {
                    return outbox.abandon(error.BrokenPipe); // The receiving half reports it.
                };
            }
            outbox.ring.produce(size);
        }

        /// A place of at most `size_max` bytes in the ring, for the HTTP request. Follow it by
        /// `sendContent`.
        pub fn contentPlace(outbox: *Outbox, link: *Link, size_max: usize) []u8 {
            outbox.queuePending(link);
            const target = outbox.ring.writable();
            const around_size = link.sealedSize(size_max) - size_max;
            const size = @min(size_max, target.len - around_size);
            return target[link.contentOffset(size)..][0..size];
        }

        /// Sends `content`, which lies in the place from `contentPlace`.
        pub fn sendContent(outbox: *Outbox, link: *Link, content: []const u8) void {
            if (outbox.failure != null) return;
            const target = outbox.ring.writable();
            const place = target[link.contentOffset(content.len)..][0..content.len];
            @memmove(place, content);
            outbox.produce(link, target, content.len);
            outbox.flush(link);
            outbox.invariants(link);
        }

        /// The place of a payload in the ring. Follow it by `commit` or `cancel`; nothing else can
        /// be sent in between.
        pub fn reserve(
            outbox: *Outbox,
            link: *Link,
            opcode: ws.Opcode,
            size: usize,
        ) SendError![]u8 {
            const target = try outbox.roomFor(link, size);
            const header_size = ws.builder.headerSize(size);
            const offset = link.contentOffset(header_size + size);
            outbox.reservation = .{
                .opcode = opcode,
                .payload_size = size,
                .target = target,
                .place = target[offset..][0 .. header_size + size],
            };
            outbox.invariants(link);
            return target[offset + header_size ..][0..size];
        }

        /// Masks the written payload in place, and sends the frame. Returns the payload's size.
        pub fn commit(outbox: *Outbox, link: *Link) SendError!usize {
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
            outbox.produce(link, reservation.target, place.len);
            outbox.flush(link);
            outbox.invariants(link);
            if (outbox.failure != null) return error.Disconnected;
            return reservation.payload_size;
        }

        pub fn cancel(outbox: *Outbox) void {
            outbox.reservation = null;
        }

        /// Sends a control frame, also when the owner has filled the ring: `roomFor` keeps room for
        /// it. False during a reservation, and when that room is used up.
        pub fn sendControl(
            outbox: *Outbox,
            link: *Link,
            opcode: ws.Opcode,
            payload: []const u8,
        ) bool {
            if (outbox.reservation != null) return false;
            outbox.queuePending(link);
            if (outbox.failure != null) return false;
            const target = outbox.ring.writable();
            // There may be any number of pongs: they leave room for the one CLOSE.
            const spare: usize = if (opcode == .close) 0 else constants.control_frames_room / 2;
            const frame_size = ws.builder.headerSize(payload.len) + payload.len;
            if (target.len < link.sealedSize(frame_size) + spare) return false;
            outbox.writeFrame(link, target, opcode, payload);
            outbox.flush(link);
            outbox.invariants(link);
            return true;
        }

        /// Sends a pong with the same payload. When there is no room, only the newest ping is
        /// remembered, which RFC 6455 allows (section 5.5.3).
        pub fn answerPing(outbox: *Outbox, link: *Link, payload: []const u8) void {
            outbox.pong_pending = null;
            if (outbox.sendControl(link, .pong, payload)) return;
            if (outbox.failure == null) outbox.pong_pending = .init(payload);
        }

        /// Room for a frame of the owner, such that control frames still fit behind it.
        fn roomFor(outbox: *Outbox, link: *Link, payload_size: usize) SendError![]u8 {
            if (outbox.reservation != null) return error.Reserved;
            outbox.queuePending(link);
            if (outbox.failure != null) return error.Disconnected;
            const needed = outbox.roomNeeded(payload_size);
            const target = outbox.ring.writable();
            if (target.len >= needed) return target;

            outbox.flush(link); // The kernel may have room again.
            if (outbox.failure != null) return error.Disconnected;
            const flushed = outbox.ring.writable();
            return if (flushed.len >= needed) flushed else error.SendRingFull;
        }

        fn roomNeeded(outbox: *const Outbox, payload_size: usize) usize {
            const frame_size = ws.builder.headerSize(payload_size) +| payload_size;
            const needed = frame_size +| constants.control_frames_room;
            if (outbox.ciphertext == null) return needed;
            const records = frame_size / constants.record_plaintext_size_max + 1;
            return needed +| records *| constants.record_overhead_max;
        }

        /// Whether a message of this size is too large even for an empty ring.
        pub fn neverFits(outbox: *const Outbox, payload_size: usize) bool {
            return outbox.roomNeeded(payload_size) > outbox.ring.capacity;
        }

        fn nextMask(outbox: *Outbox) [4]u8 {
            return switch (outbox.mask) {
                .random => outbox.masks.next(),
                .zero => .{ 0, 0, 0, 0 },
            };
        }

        /// Whether queued bytes wait until the socket is writable.
        pub fn isWaiting(outbox: *const Outbox, link: *const Link) bool {
            if (outbox.failure != null) return false;
            if (link.kernel_tls.records_unsent) return true;
            if (outbox.ciphertext) |ring| {
                if (ring.readable().len > 0) return true;
            }
            return !outbox.awaits_peer and outbox.ring.readable().len > 0;
        }

        /// Whether anything is still unsent, whatever it waits for.
        pub fn hasUnsent(outbox: *const Outbox, link: *const Link) bool {
            if (outbox.failure != null) return false;
            if (link.tls) |*tls| if (tls.hasPending()) return true;
            return outbox.isWaiting(link) or outbox.ring.readable().len > 0;
        }

        /// Seals what is queued and gives the kernel as much as it takes. The rest stays queued.
        pub fn flush(outbox: *Outbox, link: *Link) void {
            outbox.flushRings(link);
            if (outbox.pong_pending) |pong| {
                @branchHint(.unlikely);
                outbox.pong_pending = null;
                outbox.answerPing(link, pong.payload());
            }
        }

        inline fn flushRings(outbox: *Outbox, link: *Link) void {
            if (outbox.ciphertext) |ciphertext| {
                if (link.sealsApart()) {
                    while (outbox.sealRecord(link)) {
                        if (!outbox.push(link, ciphertext)) break;
                    }
                    _ = outbox.push(link, ciphertext);
                    return;
                }
                if (!outbox.push(link, ciphertext)) return; // The handshake has to go out first.
            }
            const everything = outbox.push(link, outbox.ring);
            if (everything and link.kernel_tls.records_unsent) outbox.sendPendingRecords(link);
        }

        /// Queues the records that TLS has pending, such as the answer to a KeyUpdate: they have to
        /// be sealed before anything else.
        pub inline fn queuePending(outbox: *Outbox, link: *Link) void {
            const tls = if (link.tls) |*session| session else return;
            if (!tls.hasPending()) return;
            switch (tls.opener()) {
                .kernel => outbox.sendPendingRecords(link),
                .user_space => outbox.writePending(tls),
            }
        }

        /// With kernel TLS, sends the pending control records, or waits until the ring is empty.
        fn sendPendingRecords(outbox: *Outbox, link: *Link) void {
            @branchHint(.cold);
            if (outbox.failure != null) return;
            if (outbox.ring.readable().len > 0) {
                link.kernel_tls.records_unsent = link.tls.?.pendingRecord() != null;
                return;
            }
            const socket = &link.socket.?;
            link.kernel_tls.sendPending(socket, &link.tls.?) catch |err| outbox.abandon(err);
        }

        fn writePending(outbox: *Outbox, tls: *ssl.Session) void {
            @branchHint(.cold);
            assert(outbox.reservation == null);
            if (outbox.failure != null) return;
            const size = tls.writePending(outbox.ring.writable()) catch {
                return outbox.abandon(error.BrokenPipe); // The receiving half reports the cause.
            };
            outbox.ring.produce(size);
        }

        /// Seals the front of the send ring, at most one record, into the ciphertext ring. False
        /// when nothing more can be sealed now.
        fn sealRecord(outbox: *Outbox, link: *Link) bool {
            const ciphertext = outbox.ciphertext orelse return false;
            const plaintext = outbox.ring.readable();
            if (plaintext.len == 0) return false;
            const step = link.tls.?.seal(plaintext, ciphertext.writable()) catch {
                outbox.abandon(error.BrokenPipe); // The receiving half reports the cause.
                return false;
            };
            ciphertext.produce(step.to_send_size);
            outbox.ring.consume(step.plaintext_size);
            outbox.awaits_peer = step.status == .needs_received;
            return step.status == .done;
        }

        /// Sends what TLS has pending: an alert, the answer to a KeyUpdate.
        pub fn sendPending(outbox: *Outbox, link: *Link) void {
            outbox.queuePending(link);
            outbox.flush(link);
        }

        /// TLS has failed: sends the alert that tells the peer why. False when there is none, or
        /// the peer cannot get it.
        pub fn sendAlert(outbox: *Outbox, link: *Link) bool {
            const tls = &link.tls.?;
            if (tls.sealsApart()) outbox.ring.consume(outbox.ring.readable().len); // Unsealed.
            outbox.sendSealed(link, tls.alertSize());
            outbox.sendPending(link);
            return tls.hasAlerted() and outbox.failure == null;
        }

        /// Sends close_notify.
        pub fn sendCloseNotify(outbox: *Outbox, link: *Link) void {
            const step = link.tls.?.shutdown(outbox.ciphertext.?.writable());
            outbox.sendSealed(link, step.to_send_size);
            outbox.sendPending(link);
        }

        /// Where an engine that does not seal in place may write answers while it opens records.
        pub inline fn openTarget(outbox: *Outbox, link: *Link) []u8 {
            return if (link.sealsApart()) outbox.ciphertext.?.writable() else &.{};
        }

        /// Sends handshake records and alerts of OpenSSL: `size` bytes at the front of the free
        /// part of the ciphertext ring.
        pub fn sendSealed(outbox: *Outbox, link: *Link, size: usize) void {
            if (outbox.failure != null) return; // It might land in the middle of a record.
            outbox.ciphertext.?.produce(size);
            _ = outbox.push(link, outbox.ciphertext.?);
        }

        /// Gives the bytes of the ring to the kernel. False when it did not take all of them.
        fn push(outbox: *Outbox, link: *Link, ring: *RingBuffer) bool {
            while (true) {
                const bytes = ring.readable();
                if (bytes.len == 0) return true;
                const size = link.socket.?.send(bytes) catch |err| {
                    switch (err) {
                        error.WouldBlock => {},
                        else => |cause| outbox.abandon(cause),
                    }
                    return false;
                };
                ring.consume(size);
                if (link.opener() == .kernel) link.tls.?.countSealed(size);
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

/// A frame that the owner of the connection is writing into the send ring.
const Reservation = struct {
    opcode: ws.Opcode,
    payload_size: usize,
    /// The free part of the ring.
    target: []u8,
    /// Where the frame lies in it, header first.
    place: []u8,
};

/// The payload of a pong that did not fit into the send ring.
const Pong = struct {
    bytes: [constants.control_payload_size_max]u8,
    size: u8,

    pub fn init(source: []const u8) Pong {
        assert(source.len <= constants.control_payload_size_max);
        var pong: Pong = .{ .bytes = undefined, .size = @intCast(source.len) };
        @memcpy(pong.bytes[0..source.len], source);
        return pong;
    }

    pub fn payload(pong: *const Pong) []const u8 {
        return pong.bytes[0..pong.size];
    }
};

/// Unpredictable masking keys (RFC 6455, section 5.3), drawn from the kernel's generator a few
/// hundred at a time, because a system call for each would cost more than building the frame.
fn MaskPoolType(comptime Os: type) type {
    return struct {
        const Pool = @This();

        bytes: [constants.mask_pool_size]u8 = undefined,
        used: usize = constants.mask_pool_size,

        pub fn next(pool: *Pool) [4]u8 {
            comptime assert(constants.mask_pool_size % 4 == 0);
            if (pool.used == pool.bytes.len) {
                Os.random(&pool.bytes);
                pool.used = 0;
            }
            const key = pool.bytes[pool.used..][0..4].*;
            pool.used += key.len;
            return key;
        }
    };
}

test "outbox: masking keys differ and the pool refills" {
    const Counting = struct {
        var calls: u8 = 0;
        fn random(buffer: []u8) void {
            calls += 1;
            @memset(buffer, calls);
        }
    };
    var pool: MaskPoolType(Counting) = .{};
    const first = pool.next();
    for (1..constants.mask_pool_size / 4) |_| _ = pool.next();
    const second = pool.next();
    try std.testing.expectEqual(@as(u8, 2), Counting.calls);
    try std.testing.expect(!std.mem.eql(u8, &first, &second));
}
