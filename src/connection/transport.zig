//! Reads the socket, and opens TLS records into the receive ring.
//!
//! The other direction, sealing and writing, is `outbox.zig`.
//!
//!     socket ─▶ receive ─▶ ciphertext ring ─▶ openRecord ─▶ receive ring      (user space)
//!     socket ─▶ receive ─▶ receive ring                         (ws://, or kernel TLS)
//!
//! `fill` brings the next piece of plaintext. One record is opened at a time, so that the first
//! message of a burst does not wait for the last. The transport also holds what both directions
//! share: the socket, the TLS session and the rings.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("../constants.zig");
const os = @import("../os.zig");
const ssl = @import("../ssl.zig");
const types = @import("types.zig");
const ws = @import("../ws.zig");
const Compression = @import("compression.zig").Compression;
const Line = @import("../delivery.zig").Line;
const KernelTlsType = @import("kernel_tls.zig").KernelTlsType;
const LinkType = @import("link.zig").LinkType;
const NotifierType = @import("../notifier.zig").NotifierType;
const Opener = @import("link.zig").Opener;
const OutboxType = @import("outbox.zig").OutboxType;
const RingBuffer = @import("../ringbuffer.zig").RingBuffer;

pub const FillError = error{
    /// The peer will send nothing more; `Transport.end` has the cause.
    StreamEnded,
    /// TLS has failed; `ssl.Session.failure` returns the cause.
    TlsFailed,
    /// The receive ring has less than `Transport.room_needed` bytes of room.
    RingFull,
};

pub fn TransportType(comptime Os: type) type {
    return struct {
        const Transport = @This();
        const KernelTls = KernelTlsType(Os);
        pub const Link = LinkType(Os);
        const Outbox = OutboxType(Os);
        pub const Watch = NotifierType(Os).Watch;

        link: Link = .{},
        /// Plaintext from the peer: the HTTP response, then frames. Null before the first `renew`.
        receive_ring: ?*RingBuffer = null,
        /// Ciphertext that is not opened yet. Null before the first `renew` for TLS.
        ciphertext_ring: ?*RingBuffer = null,
        /// The sending half. Null before the first `renew`.
        outbox: ?Outbox = null,
        /// permessage-deflate, if the server agreed to it.
        compression: ?Compression = null,
        /// The inflated messages. Null before the first `renew` with compression.
        inflated_ring: ?*RingBuffer = null,
        /// Bytes at the front of the receive ring that the last event borrowed, if it was part of
        /// an HTTP response. (Those of a message are counted by the parser.)
        lent_size: usize = 0,

        /// The last read took all there was: no further read until the kernel reports more.
        socket_drained: bool = false,
        /// Reads left until `next` has to return to the owner.
        read_budget: u32 = constants.reads_per_turn_max,
        /// Why the peer will send nothing more; null while it may.
        end: ?types.StreamEnd = null,
        /// All that arrives is dropped until the stream ends.
        discard_received: bool = false,
        /// TLS has failed: what arrives is dropped as it comes from the socket.
        discard_unopened: bool = false,
        /// The ring in which pins leave no room, after `ReceiveRingPinned`; null once it was waited
        /// for, and when the owner goes on.
        pinned_ring: ?*RingBuffer = null,
        /// How many free bytes the receive ring needs after `RingFull`.
        room_needed: usize = 0,
        /// Where a busy wait may read to, and the result of its read, which `receive` handles.
        spin_target: []u8 = &.{},
        early_read: ?types.Read = null,

        line: Line,
        kernel_stamp: os.KernelStamp = .{},
        /// The last moment at which the socket is known to have been empty, if stamps are taken;
        /// 0 when it is not known.
        empty_cycles: u64 = 0,
        /// Whether `turn_cycles` is taken.
        staged: bool = false,
        /// When the newest TLS record's turn to be opened came: those in front of it in the same
        /// read were opened before, and their messages delivered.
        turn_cycles: u64 = 0,
        /// The sum of all connections since `init`.
        counters: types.Counters = .{},

        /// Makes rings and fresh state for the next connection. A ring with pinned bytes is
        /// replaced; it is freed with its last pin.
        pub fn renew(transport: *Transport, options: *const types.Options) os.MapError!void {
            assert(transport.link.socket == null);
            assert(transport.compression == null);
            const secure = options.url.scheme.isSecure();
            const stamped = options.timestamps != .none;
            const capacity = constants.ciphertext_ring_capacity;
            var send_ring = if (transport.outbox) |*outbox| outbox.ring else null;
            const sealed_ring = if (transport.outbox) |*outbox| outbox.ciphertext else null;
            // Each new ring goes into the transport at once, because mapping the next may fail.
            const receive_capacity = options.receive_ring_capacity;
            try renewRing(Os, &transport.receive_ring, receive_capacity, options);
            if (options.compression != null) {
                try renewRing(Os, &transport.inflated_ring, receive_capacity, options);
            }
            if (secure) try renewRing(Os, &transport.ciphertext_ring, capacity, options);
            try renewRing(Os, &send_ring, options.send_ring_capacity, options);
            transport.outbox = .{
                .ring = send_ring.?,
                .ciphertext = sealed_ring,
                .mask = options.mask,
            };
            if (secure) try renewRing(Os, &transport.outbox.?.ciphertext, capacity, options);
            transport.* = .{
                .receive_ring = transport.receive_ring,
                .ciphertext_ring = transport.ciphertext_ring,
                .outbox = transport.outbox,
                .inflated_ring = transport.inflated_ring,
                .line = .{
                    .stamped = stamped,
                    .rate = transport.line.rate,
                    .hasMoreFn = transport.line.hasMoreFn,
                    .isStampExactFn = transport.line.isStampExactFn,
                },
                .empty_cycles = if (stamped) Os.cycles() else 0, // There is no socket yet.
                .counters = transport.counters,
            };
        }

        /// Frees the rings; one with pinned bytes is freed with its last pin.
        pub fn retireRings(transport: *Transport) void {
            if (transport.receive_ring) |ring| ring.retire();
            if (transport.ciphertext_ring) |ring| ring.retire();
            if (transport.inflated_ring) |ring| ring.retire();
            if (transport.outbox) |*outbox| {
                outbox.ring.retire();
                if (outbox.ciphertext) |ring| ring.retire();
            }
            transport.pinned_ring = null;
            transport.receive_ring = null;
            transport.ciphertext_ring = null;
            transport.inflated_ring = null;
            transport.outbox = null;
        }

        /// Gives up the rings with pinned bytes; each is freed with its last pin.
        pub fn leavePinnedRings(transport: *Transport) void {
            transport.pinned_ring = null;
            inline for (.{ &transport.receive_ring, &transport.inflated_ring }) |place| {
                if (place.*) |ring| if (ring.pinned()) {
                    ring.retire();
                    place.* = null;
                };
            }
        }

        /// Sets up compression with the parameters that the server agreed to.
        pub fn beginCompression(
            transport: *Transport,
            options: *const types.Options,
            agreement: ws.permessage_deflate.Agreement,
        ) error{OutOfMemory}!void {
            transport.compression = @as(Compression, undefined);
            const ring = transport.inflated_ring.?;
            transport.compression.?.init(&options.compression.?, agreement, ring) catch |err| {
                transport.compression = null;
                return err;
            };
        }

        /// Frees all but the rings. Closes the socket without a closing handshake.
        pub fn drop(transport: *Transport) void {
            if (transport.compression) |*compression| compression.deinit();
            transport.compression = null;
            if (transport.link.tls) |*tls| tls.deinit();
            transport.link.tls = null;
            if (transport.link.socket) |*socket| {
                transport.link.watch.cancel();
                socket.close();
            }
            transport.link.socket = null;
            transport.lent_size = 0;
            transport.pinned_ring = null;
            transport.spin_target = &.{}; // `look` must not read a closed socket.
        }

        /// Asserts what has to hold between two calls.
        pub inline fn invariants(transport: *const Transport) void {
            if (!std.debug.runtime_safety) return;
            if (transport.link.tls != null) {
                assert(transport.link.socket != null);
                assert(transport.ciphertext_ring != null);
            }
            if (transport.link.socket != null) {
                assert(transport.receive_ring != null);
                transport.outbox.?.invariants(&transport.link);
            }
            // All records that were read before the handover have been opened in user space.
            if (transport.link.opener() == .kernel) {
                assert(transport.ciphertext_ring.?.readable().len == 0);
                assert(!transport.link.kernel_tls.handover_waits);
            }
            if (transport.compression != null) assert(transport.inflated_ring != null);
            if (transport.lent_size > 0) {
                assert(transport.lent_size <= transport.receive_ring.?.readable().len);
            }
            assert(transport.read_budget <= constants.reads_per_turn_max);
        }

        // ---- Receiving: read this from top to bottom. ------------------------------------------

        /// Brings more plaintext into the receive ring: opens the next record, else reads the
        /// socket. False when there is nothing more now.
        pub inline fn fill(transport: *Transport) FillError!bool {
            switch (transport.link.opener()) {
                .none => return transport.receive(.none),
                .kernel => return transport.receive(.kernel),
                .user_space => while (true) {
                    if (try transport.openRecord()) return true;
                    if (!try transport.receive(.user_space)) return false;
                },
            }
        }

        /// Reads the socket once. False when there is nothing to read now. Compiled for each
        /// opener, so that the others cost it no branches.
        pub fn receive(transport: *Transport, comptime opener: Opener) FillError!bool {
            if (transport.early_read) |read| {
                transport.early_read = null;
                return transport.acceptRead(opener, read);
            }
            if (opener == .kernel and transport.link.tls.?.kernelFailed()) return error.TlsFailed;
            if (transport.socket_drained or transport.read_budget == 0) return false;
            if (transport.end != null) return false;
            const target = transport.readTarget(opener);
            if (target.len == 0) return switch (opener) {
                .none => transport.lacksRoom(1),
                .user_space => false, // Full of what can be opened only after our answer is sent.
                .kernel => transport.lacksRoom(transport.kernelRoomMin()),
            };
            return transport.acceptRead(opener, transport.readSocket(opener, target));
        }

        /// Reads the socket once, and drops what it gives. False when there is nothing to read now.
        pub fn dropRead(transport: *Transport) error{StreamEnded}!bool {
            const ring = transport.ciphertext_ring.?; // Empty while the kernel opens the records.
            ring.consume(ring.readable().len);
            const read = transport.early_read orelse read: {
                if (transport.socket_drained or transport.read_budget == 0) return false;
                const room = ring.writable();
                const target = room[0..@min(room.len, constants.read_size_max)];
                break :read switch (transport.link.opener()) {
                    inline else => |opener| transport.readSocket(opener, target),
                };
            };
            transport.early_read = null;
            const size = read.result catch |err| switch (err) {
                error.WouldBlock => {
                    transport.socket_drained = true;
                    return false;
                },
                // A kernel that has failed to open a record gives nothing more of the stream, not
                // even its end. Alert and FIN are under way: the socket is closed.
                error.BadRecord,
                error.RecordTooLong,
                error.WrongVersion,
                error.KeysExpired,
                => return transport.endStream(.eof),
                else => |cause| return transport.endStream(.{ .receive = cause }),
            };
            const in_kernel = transport.link.opener() == .kernel;
            const is_end = if (in_kernel) read.content_type == null else size == 0;
            if (is_end) return transport.endStream(transport.endFound());
            transport.counters.reads += 1;
            transport.read_budget -= 1;
            transport.socket_drained = !in_kernel and size < read.target.len;
            return true;
        }

        /// The ring that the socket is read into.
        inline fn socketRing(transport: *const Transport, comptime opener: Opener) *RingBuffer {
            return switch (opener) {
                .none, .kernel => transport.receive_ring.?,
                .user_space => transport.ciphertext_ring.?,
            };
        }

        /// The free bytes for the next read; empty when there are too few.
        inline fn readTarget(transport: *Transport, comptime opener: Opener) []u8 {
            const room = transport.socketRing(opener).writable();
            const size = @min(room.len, constants.read_size_max);
            return switch (opener) {
                .none => room[0..size],
                .user_space => if (transport.link.tls.?.wantsKernel())
                    room[0..transport.sizeToRecordEnd(size)]
                else
                    room[0..size],
                .kernel => if (size < transport.kernelRoomMin()) room[0..0] else room[0..size],
            };
        }

        /// Before the kernel has the keys, no read goes past the end of a record: the next record
        /// may be one that the kernel has to open.
        fn sizeToRecordEnd(transport: *const Transport, size: usize) usize {
            return @min(size, ssl.sizeToRecordEnd(transport.ciphertext_ring.?.readable()));
        }

        /// A record that is not data has to fit whole: a read does not show where the record ends.
        fn kernelRoomMin(transport: *const Transport) usize {
            return if (transport.discard_received) 1 else constants.record_plaintext_size_max;
        }

        /// Finds room for a busy wait to read into.
        pub fn findSpinTarget(transport: *Transport) void {
            transport.spin_target = &.{};
            if (transport.link.socket == null or !transport.wantsRead()) return;
            transport.spin_target = switch (transport.link.opener()) {
                inline else => |opener| transport.readTarget(opener),
            };
        }

        /// Reads the socket once for a busy wait, and leaves the result to `receive`. False when
        /// there is nothing to read.
        pub inline fn look(transport: *Transport) bool {
            const target = transport.spin_target;
            if (target.len == 0 or transport.end != null) {
                transport.flushIfWaiting();
                transport.socket_drained = false; // `next` has to make room, or fail.
                return true;
            }
            const read = switch (transport.link.opener()) {
                inline else => |opener| transport.readSocket(opener, target),
            };
            if (read.foundNothing()) return false;
            transport.early_read = read;
            transport.spin_target = &.{}; // Another `look` must not overwrite it.
            return true;
        }

        inline fn readSocket(
            transport: *Transport,
            comptime opener: Opener,
            target: []u8,
        ) types.Read {
            if (opener == .kernel) return transport.readKernel(target);
            const line = &transport.line;
            const begun_cycles = if (line.stamped) Os.cycles() else 0;
            const stamp = if (line.stamped) &transport.kernel_stamp else null;
            const size = transport.link.socket.?.receive(target, stamp) catch |err| {
                switch (err) {
                    error.WouldBlock => transport.empty_cycles = begun_cycles,
                    else => {},
                }
                return .{ .target = target, .result = err };
            };
            if (line.stamped and size > 0) transport.stampRead();
            line.took_all = size < target.len;
            // What is not in this read came after it began. A full read may have left more.
            if (line.took_all) transport.empty_cycles = begun_cycles;
            return .{ .target = target, .result = size };
        }

        /// Reads what the kernel has opened. It gives no stamps then, and finding nothing does not
        /// mean that nothing has arrived: some kernels look for records in the background.
        fn readKernel(transport: *Transport, target: []u8) types.Read {
            const read = KernelTls.read(&transport.link.socket.?, target);
            if (read.result) |_| {
                if (transport.line.stamped) transport.stampRead();
            } else |_| {}
            return read;
        }

        inline fn acceptRead(
            transport: *Transport,
            comptime opener: Opener,
            read: types.Read,
        ) FillError!bool {
            if (opener == .kernel) return transport.acceptKernelRead(read);
            const size = read.result catch |err| switch (err) {
                error.WouldBlock => {
                    transport.socket_drained = true;
                    return false;
                },
                error.BadRecord,
                error.RecordTooLong,
                error.WrongVersion,
                error.KeysExpired,
                => unreachable, // Only kernel TLS returns these.
                else => |cause| return transport.endStream(.{ .receive = cause }),
            };
            if (size == 0) return transport.endStream(transport.endFound());

            transport.socketRing(opener).produce(size);
            transport.counters.reads += 1;
            transport.read_budget -= 1;
            transport.socket_drained = size < read.target.len; // A short read took all there was.
            return true;
        }

        fn acceptKernelRead(transport: *Transport, read: types.Read) FillError!bool {
            const link = &transport.link;
            if (read.content_type != null) {
                transport.counters.reads += 1;
                transport.read_budget -= 1;
            }
            switch (try KernelTls.accept(&link.socket.?, &link.tls.?, read)) {
                .nothing => {
                    transport.socket_drained = true;
                    return false;
                },
                .eof => return transport.endStream(transport.endFound()),
                .failed => |cause| return transport.endStream(.{ .receive = cause }),
                // A short read does not mean that the socket is empty: a record of another type may
                // be next, and if that is a KeyUpdate, a poll does not report it. So it is read
                // until there is nothing.
                .data => |size| {
                    transport.receive_ring.?.produce(size);
                    transport.counters.records += 1;
                    return true;
                },
                .control => {
                    if (link.tls.?.hasPending()) transport.outbox.?.sendPending(link);
                    return true;
                },
                .close_notify => return transport.endStream(.close_notify),
            }
        }

        /// Opens one record into the receive ring. False when no whole one has arrived.
        inline fn openRecord(transport: *Transport) FillError!bool {
            const link = &transport.link;
            const tls = &link.tls.?;
            const received = transport.ciphertext_ring.?;
            const bytes = received.readable();
            const needed = tls.roomToOpen(bytes) orelse return false;
            const room = transport.receive_ring.?.writable();
            if (room.len < needed) return transport.lacksRoom(needed);

            const outbox = &transport.outbox.?;
            const to_send = outbox.openTarget(link);
            if (transport.staged) transport.turn_cycles = Os.cycles();
            const step = tls.open(bytes, room, to_send) catch return error.TlsFailed;
            received.consume(step.received_used);
            if (step.to_send_size > 0) outbox.sendSealed(link, step.to_send_size);
            if (tls.hasPending()) outbox.sendPending(link);
            switch (step.status) {
                .done => {
                    transport.receive_ring.?.produce(step.plaintext_size);
                    transport.counters.records += @intFromBool(step.plaintext_size > 0);
                    if (transport.line.stamped) {
                        transport.line.stamps.decrypted_cycles = Os.cycles();
                    }
                    return true;
                },
                .needs_received => {
                    if (outbox.awaits_peer) outbox.flush(link); // The peer may have answered.
                    return step.received_used > 0;
                },
                .needs_room => { // Until the socket has taken some of our ciphertext.
                    // The record gets the stamps of a later read, but has arrived before it.
                    transport.empty_cycles = transport.line.earliest_cycles;
                    return false;
                },
                .closed => return transport.endStream(.close_notify),
            }
        }

        /// Hands the records over to the kernel after the handshakes, if the engine is ktls. False
        /// while the socket has not taken all that we have sealed.
        pub fn handOverToKernel(transport: *Transport) error{TlsFailed}!bool {
            const link = &transport.link;
            const tls = if (link.tls) |*session| session else return true;
            if (!tls.wantsKernel() or tls.opener() == .kernel) return true;
            const outbox = &transport.outbox.?;
            outbox.sendPending(link);
            link.kernel_tls.handover_waits = outbox.hasUnsent(link);
            if (link.kernel_tls.handover_waits) return false;
            assert(transport.ciphertext_ring.?.readable().len == 0); // See `sizeToRecordEnd`.
            try KernelTls.handOver(&link.socket.?, tls);
            transport.kernel_stamp = .{};
            transport.empty_cycles = 0;
            transport.socket_drained = false;
            return true;
        }

        fn lacksRoom(transport: *Transport, needed: usize) FillError {
            @branchHint(.cold);
            transport.room_needed = needed;
            return error.RingFull;
        }

        /// Notes why the peer will send nothing more, and returns the error for it.
        pub fn endStream(transport: *Transport, cause: types.StreamEnd) error{StreamEnded} {
            @branchHint(.cold);
            transport.end = cause;
            return error.StreamEnded;
        }

        /// What a read of 0 bytes means: EOF, unless the notifier or a send has already got the
        /// socket's error, which the kernel reports only once.
        fn endFound(transport: *const Transport) types.StreamEnd {
            switch (transport.link.watch.told) {
                .SUCCESS => {},
                else => |cause| return .{ .receive = os.receiveFailure(cause) },
            }
            return switch (transport.outbox.?.failure orelse return .eof) {
                error.ConnectionReset,
                error.TimedOut,
                error.NetworkUnreachable,
                error.HostUnreachable,
                => |cause| .{ .receive = cause },
                error.WouldBlock => unreachable, // Never noted as a failure.
                error.BrokenPipe, error.AccessDenied, error.OutOfMemory, error.Unexpected => .eof,
            };
        }

        inline fn stampRead(transport: *Transport) void {
            // The wall clock and the counter are read side by side: the kernel's stamp is on the
            // wall clock, so this stamp cannot drift away from it.
            const stamps = &transport.line.stamps;
            stamps.received_ns = Os.realtimeNs();
            stamps.received_cycles = Os.cycles();
            stamps.decrypted_cycles = stamps.received_cycles;
            transport.line.earliest_cycles = transport.empty_cycles;
            stamps.kernel_ns = switch (transport.kernel_stamp.source) {
                .none => 0,
                .software, .hardware => transport.kernel_stamp.realtime_ns,
            };
        }

        /// Frees the bytes of the last event in the receive ring: `parsed_size` that the parser is
        /// done with, and those of an HTTP response.
        pub inline fn takeBack(transport: *Transport, parsed_size: usize) void {
            const size = parsed_size + transport.lent_size;
            transport.lent_size = 0;
            if (size > 0) transport.receive_ring.?.consume(size);
        }

        /// Whether a whole record has been read and is not opened yet.
        pub inline fn hasRecord(transport: *const Transport) bool {
            const tls = if (transport.link.tls) |*session| session else return false;
            return tls.recordWaiting(transport.ciphertext_ring.?.readable());
        }

        /// Whether what was opened last ends with the last byte that the socket had: nothing of
        /// its read waits to be opened.
        pub inline fn openedAll(transport: *const Transport) bool {
            if (!transport.line.took_all) return false;
            if (transport.link.tls == null) return true;
            return transport.ciphertext_ring.?.readable().len == 0;
        }

        /// What a loop waits for. Null when there is no socket.
        pub inline fn interest(transport: *const Transport) ?types.Interest {
            const socket = if (transport.link.socket) |*found| found else return null;
            return .{ .descriptor = socket.descriptor, .events = .{
                .readable = transport.wantsRead(),
                .writable = transport.outbox.?.isWaiting(&transport.link),
            } };
        }

        pub inline fn noteReady(transport: *Transport, ready: os.Ready) void {
            if (ready.readable) transport.socket_drained = false;
            if (ready.writable) transport.outbox.?.flush(&transport.link);
        }

        /// Waits until pins that left no room are undone, at most for so long. True when the owner
        /// should go on: there is more room, or pins are not what it waits for.
        pub fn waitForRoom(transport: *Transport, limit_ns: u64) bool {
            const ring = transport.pinned_ring orelse return true;
            const until_ns = Os.monotonicNs() +| limit_ns;
            while (ring.waitForRelease(until_ns -| Os.monotonicNs())) {
                // A small message alone frees too little, and the next read would fail again.
                const room = ring.writable().len;
                const enough = ring != transport.receive_ring or room >= transport.room_needed;
                if (!enough and ring.holdsBytes()) continue;
                transport.pinned_ring = null;
                return true;
            }
            return false;
        }

        /// Call it from time to time: see `Socket.reviewPeer`. If the peer is gone, the next read
        /// finds that.
        pub noinline fn reviewPeer(transport: *Transport) void {
            const socket = if (transport.link.socket) |*found| found else return;
            if (!socket.reviewPeer(Os.monotonicNs()) or transport.early_read != null) return;
            transport.early_read = .{ .target = &.{}, .result = error.TimedOut };
            transport.spin_target = &.{};
        }

        /// Whether the socket should be read when it is readable.
        pub fn wantsRead(transport: *const Transport) bool {
            return transport.end == null and !transport.link.kernel_tls.handover_waits;
        }

        /// Whether queued bytes wait until the socket is writable.
        pub fn wantsWrite(transport: *const Transport) bool {
            if (transport.link.socket == null) return false;
            return transport.outbox.?.isWaiting(&transport.link);
        }

        pub fn flushIfWaiting(transport: *Transport) void {
            if (transport.wantsWrite()) transport.outbox.?.flush(&transport.link);
        }

        /// Lets the socket be read again, up to `reads_per_turn_max` times.
        pub fn beginTurn(transport: *Transport) void {
            transport.read_budget = constants.reads_per_turn_max;
            transport.socket_drained = false;
            transport.pinned_ring = null;
            transport.flushIfWaiting();
        }
    };
}

/// Makes the ring at `place` ready for a new connection. One with pinned bytes is replaced, and
/// freed with its last pin. After an error, `place` is as it was.
pub fn renewRing(
    comptime Os: type,
    place: *?*RingBuffer,
    capacity: usize,
    options: *const types.Options,
) os.MapError!void {
    if (place.*) |ring| if (!ring.pinned()) return ring.reset();
    const fresh = try RingBuffer.createOn(Os, capacity, .{ .huge_pages = options.huge_pages });
    if (place.*) |ring| ring.retire();
    place.* = fresh;
}
