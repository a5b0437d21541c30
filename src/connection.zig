//! One connection, from the socket to the message: the only file that joins the modules.
//!
//!     kernel ─▶ receive ─▶ open (TLS) ─▶ receive ring ─▶ parse ─▶ nextMessage()
//!     send() ─▶ frame in the send ring ─▶ flush: seal (TLS) ─▶ kernel
//!
//! The owner pulls: `nextMessage` gives the next message; when it has none, `next` does all else
//! that can be done without waiting and gives one event; on `blocked` the owner calls `wait`, the
//! only function that sleeps, and goes on. One record is opened, parsed and delivered before the
//! next is opened, so that the first message of a burst does not wait for the last. For `ws://`,
//! and where the kernel opens the records, the socket is read straight into the receive ring.
//!
//! A message stays in the receive ring until the next call, and longer if its bytes are pinned; one
//! that came compressed, in the ring that it was inflated into. Nothing here allocates once the
//! connection is open.
//!
//! The kernel is a parameter (`Os`), so that the tests can drive a connection with a scripted one.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("constants.zig");
const os = @import("os.zig");
const http = @import("http.zig");
const ssl = @import("ssl.zig");
const ws = @import("ws.zig");
const ClockType = @import("os/clock.zig").ClockType;
const NotifierType = @import("notifier.zig").NotifierType;
const SocketType = @import("socket.zig").SocketType;
const RingBuffer = @import("ringbuffer.zig").RingBuffer;
const types = @import("connection/types.zig");
const Compression = @import("connection/compression.zig").Compression;
const DialerType = @import("connection/dialer.zig").DialerType;
const OutboxType = @import("connection/outbox.zig").OutboxType;
pub const Latency = @import("connection/latency.zig").Latency;
pub const Options = types.Options;
pub const CompressionOptions = types.CompressionOptions;
pub const State = types.State;
pub const Stage = types.Stage;
pub const Failure = types.Failure;
pub const Closed = types.Closed;
pub const Event = types.Event;
pub const Counters = types.Counters;
pub const Stamps = types.Stamps;
pub const InitError = types.InitError;
pub const NextError = types.NextError;
pub const StartError = types.StartError;
pub const SendError = types.SendError;
pub const Wake = types.Wake;

pub fn ConnectionType(comptime Os: type) type {
    return struct {
        const Connection = @This();
        const Clock = ClockType(Os);
        const Dialer = DialerType(Os);
        const Notifier = NotifierType(Os);
        const Outbox = OutboxType(Os);
        const Socket = SocketType(Os);

        options: Options,
        state: State = .idle,
        /// Why the connection failed; also set during its closing handshake.
        failure: ?Failure = null,
        /// How the connection ended, once it has.
        closed: ?Closed = null,

        dialer: Dialer = .{},
        socket: ?Socket = null,
        notifier: Notifier,
        /// Of the socket, or of the dialer's; cancelled before either is closed.
        watch: Notifier.Watch = .{},
        tls: ?ssl.Session = null,
        /// Who opens the records of TLS, if there are any.
        records: enum { none, user_space, kernel } = .none,
        /// The kernel gets the keys as soon as it has taken what we have sealed. What arrives until
        /// then is for it to open.
        handover_waits: bool = false,
        /// Of the connections before, to this server.
        tickets: ssl.Tickets = .{},

        /// Plaintext from the peer: HTTP head, frames. Null before the first `start`.
        receive_ring: ?*RingBuffer = null,
        /// Ciphertext that is not opened yet. Null for `ws://`.
        ciphertext_ring: ?*RingBuffer = null,
        /// The sending half. Null before the first `start`.
        outbox: ?Outbox = null,

        /// permessage-deflate, if the server agreed to it.
        compression: ?Compression = null,
        /// What compressed messages become. Null unless the owner asked for compression.
        inflated_ring: ?*RingBuffer = null,

        parser: ws.Parser,
        handshake_key: ws.handshake.Key = undefined,
        /// The one that the server chose of those in the options.
        subprotocol: ?[]const u8 = null,
        interim_responses: u32 = 0,
        body: http.body.Decoder = undefined,
        /// How far the search for the end of the response head has come.
        head_searched: usize = 0,
        /// Bytes at the front of the receive ring that the last event borrowed.
        lent_size: usize = 0,

        /// When the present stage has to be over, on the monotonic clock.
        deadline_ns: ?u64 = null,
        /// The last read took all there was: no further system call before the kernel says so.
        socket_drained: bool = false,
        /// Reads left until the owner gets its turn.
        read_budget: u32 = 0,
        /// Where a busy wait may read to, and the read that it did.
        spin_target: []u8 = &.{},
        early_read: ?types.Read = null,
        /// The peer will send nothing more.
        peer_ended: bool = false,

        close_sent: ?u16 = null,
        close_received: bool = false,
        close_reason_buffer: [constants.control_payload_size_max]u8 = undefined,
        close_notify_sent: bool = false,
        send_side_shut: bool = false,
        clock: Clock,
        kernel_stamp: os.KernelStamp = .{},
        stamps: Stamps = .{},
        counters: Counters = .{},
        latency: ?*Latency = null,

        pub fn init(options: Options) InitError!Connection {
            return .{
                .options = options,
                .notifier = try Notifier.init(),
                .clock = Clock.init(),
                .parser = newParser(&options, false),
            };
        }

        /// Drops the connection without a word to the peer. Pinned bytes outlive it.
        pub fn deinit(connection: *Connection) void {
            connection.dropTransport();
            connection.retireRings();
            if (connection.options.tls) |context| connection.tickets.deinit(context.api);
            connection.notifier.deinit();
            connection.* = undefined;
        }

        /// For the copy that a forked process has, before anything else is done with it: from now
        /// on it can be ended, and the parent's connection notices nothing of that.
        pub fn disown(connection: *Connection) void {
            connection.notifier.disown();
        }

        /// Leaves the rings with pinned bytes to those who hold them. `start` does, too; but then
        /// the lock of such a ring may be held at the very moment when another thread forks.
        pub fn leavePinnedRings(connection: *Connection) void {
            assert(connection.state == .idle or connection.state == .closed);
            inline for (.{ "receive_ring", "inflated_ring" }) |name| {
                const place = &@field(connection, name);
                if (place.*) |ring| if (ring.pinned()) {
                    ring.retire();
                    place.* = null;
                };
            }
        }

        /// Gives the memory of the rings back, for an owner who may not come again. Pinned bytes
        /// stay; another `start` maps rings anew.
        pub fn releaseRings(connection: *Connection) void {
            assert(connection.state == .idle or connection.state == .closed);
            connection.retireRings();
            connection.receive_ring = null;
            connection.ciphertext_ring = null;
            connection.inflated_ring = null;
            connection.outbox = null;
        }

        fn retireRings(connection: *Connection) void {
            if (connection.receive_ring) |ring| ring.retire();
            if (connection.ciphertext_ring) |ring| ring.retire();
            if (connection.inflated_ring) |ring| ring.retire();
            if (connection.outbox) |*outbox| {
                outbox.ring.retire();
                if (outbox.ciphertext) |ring| ring.retire();
            }
        }

        // ---- Receiving: read this from top to bottom. ------------------------------------------

        /// The hot path: the next message, where it is a whole frame that has arrived. Null for
        /// whatever else is next, which `next` tells. Its bytes are borrowed until the next call of
        /// either. Inlined, and apart from `next`: else a message goes through memory twice.
        pub inline fn nextMessage(connection: *Connection) ?ws.Parser.Message {
            if (connection.state != .open) return null;
            connection.takeBackLent();
            const waiting = connection.receive_ring.?.readable();
            if (waiting.len > 0) return connection.wholeMessage(waiting);
            const filled = connection.fill() catch return null; // `next` fails the same way.
            if (!filled) return null;
            return connection.wholeMessage(connection.receive_ring.?.readable());
        }

        inline fn wholeMessage(connection: *Connection, bytes: []u8) ?ws.Parser.Message {
            return connection.counted(connection.parser.nextWhole(bytes) orelse return null);
        }

        inline fn counted(connection: *Connection, message: ws.Parser.Message) ws.Parser.Message {
            connection.counters.messages += 1;
            connection.counters.bytes += message.payload.len;
            return message;
        }

        /// Does what can be done without waiting, and gives the next event, of whatever kind. Bytes
        /// of an event are borrowed until the next call.
        pub fn next(connection: *Connection) NextError!Event {
            if (connection.state != .open) return connection.nextOutsideOpen();
            connection.takeBackLent();
            while (true) {
                if (try connection.parse()) |event| return event;
                if (connection.state != .open) return connection.nextOutsideOpen();
                if (try connection.fill()) continue;
                if (connection.state != .open) return connection.nextOutsideOpen();
                return connection.willWait();
            }
        }

        fn nextOutsideOpen(connection: *Connection) NextError!Event {
            assert(connection.state != .idle);
            while (true) {
                const event: ?Event = switch (connection.state) {
                    .connecting => try connection.awaitConnect(),
                    .securing => try connection.awaitTls(),
                    .requesting => try connection.awaitResponse(),
                    .reading_body => try connection.readBody(),
                    .closing => try connection.awaitClose(),
                    .idle, .closed => return error.Failed,
                    .open => unreachable, // It begins with an event, and with a new call.
                };
                if (event) |found| return found;
            }
        }

        /// More plaintext into the receive ring: the next record, or else the next read.
        inline fn fill(connection: *Connection) NextError!bool {
            if (connection.records != .user_space) return connection.receive();
            while (true) {
                if (try connection.openRecord()) return true;
                if (!try connection.receive()) return false;
            }
        }

        /// Reads the socket once. False when there is nothing to read now.
        fn receive(connection: *Connection) NextError!bool {
            if (connection.early_read) |read| {
                connection.early_read = null;
                return connection.acceptRead(read);
            }
            if (connection.records == .kernel and connection.tls.?.kernel_failed) {
                return connection.endOfRecords();
            }
            if (connection.socket_drained or connection.read_budget == 0) return false;
            if (connection.peer_ended) return false;
            const target = connection.readTarget();
            if (target.len == 0) return switch (connection.records) {
                .none => connection.makeRoom(1),
                .user_space => false, // What cannot be opened until our answer has gone out.
                .kernel => connection.makeRoom(connection.kernelRoomMin()),
            };
            return connection.acceptRead(connection.readSocket(target));
        }

        /// What the socket is read into.
        inline fn socketRing(connection: *const Connection) *RingBuffer {
            return switch (connection.records) {
                .none, .kernel => connection.receive_ring.?,
                .user_space => connection.ciphertext_ring.?,
            };
        }

        /// The free bytes that the next read goes to; none when there are too few.
        inline fn readTarget(connection: *Connection) []u8 {
            const room = connection.socketRing().writable();
            const size = @min(room.len, constants.read_size_max);
            if (connection.options.tls_engine != .ktls) return room[0..size];
            return room[0..connection.recordReadSize(size)];
        }

        /// Before the kernel has the keys, the end of a record is not read over: what lies behind
        /// is the kernel's. Afterwards, a record that is no data has to fit.
        fn recordReadSize(connection: *const Connection, size: usize) usize {
            return switch (connection.records) {
                .none => size,
                .user_space => size: {
                    const received = connection.ciphertext_ring.?.readable();
                    break :size @min(size, ssl.sizeToRecordEnd(received));
                },
                .kernel => if (size < connection.kernelRoomMin()) 0 else size,
            };
        }

        /// A ticket comes whole, so that its reader sees where it ends. Behind the peer's CLOSE
        /// nothing matters but that it ends.
        fn kernelRoomMin(connection: *const Connection) usize {
            return if (connection.close_received) 1 else constants.record_plaintext_size_max;
        }

        inline fn readSocket(connection: *Connection, target: []u8) types.Read {
            if (connection.records == .kernel) return connection.readKernel(target);
            const stamped = connection.options.timestamps != .none;
            const stamp = if (stamped) &connection.kernel_stamp else null;
            const size = connection.socket.?.receive(target, stamp) catch |err| {
                return .{ .target = target, .result = err };
            };
            if (stamped and size > 0) connection.stampRead();
            return .{ .target = target, .result = size };
        }

        inline fn acceptRead(connection: *Connection, read: types.Read) NextError!bool {
            if (connection.records == .kernel) return connection.acceptKernelRead(read);
            const size = read.result catch |err| switch (err) {
                error.WouldBlock => {
                    connection.socket_drained = true;
                    return false;
                },
                error.BadRecord,
                error.RecordTooLong,
                error.WrongVersion,
                error.KeysExpired,
                => unreachable, // Of `readKernel`.
                else => |cause| return connection.endOfStream(.{ .receive = cause }),
            };
            if (size == 0) return connection.endOfStream(connection.endFound());

            connection.socketRing().produce(size);
            connection.counters.reads += 1;
            connection.read_budget -= 1;
            connection.socket_drained = size < read.target.len; // A short read took all there was.
            return true;
        }

        /// The kernel has opened the records, and gives no stamps.
        fn readKernel(connection: *Connection, target: []u8) types.Read {
            const record = connection.socket.?.receiveRecord(target) catch |err| {
                return .{ .target = target, .result = err };
            };
            if (connection.options.timestamps != .none) connection.stampRead();
            return .{
                .target = target,
                .result = record.size,
                .content_type = record.content_type,
            };
        }

        fn acceptKernelRead(connection: *Connection, read: types.Read) NextError!bool {
            const tls = &connection.tls.?;
            const size = read.result catch |err| switch (err) {
                error.WouldBlock => {
                    connection.socket_drained = true;
                    return false;
                },
                error.BadRecord => return connection.refuseRecord(.bad_record_mac),
                error.RecordTooLong => return connection.refuseRecord(.record_overflow),
                error.WrongVersion => return connection.refuseRecord(.wrong_version),
                // It got new ones when a KeyUpdate was read. But it takes more for one: it looks at
                // the first byte of each record, whatever came before.
                error.KeysExpired => {
                    tls.refuseKernel(.handshake_in_parts);
                    return connection.endOfRecords();
                },
                else => |cause| return connection.endOfStream(.{ .receive = cause }),
            };
            const content_type = read.content_type orelse
                return connection.endOfStream(connection.endFound());
            connection.counters.reads += 1;
            connection.read_budget -= 1;

            const content = read.target[0..size];
            const step = tls.accept(@fromBackingInt(content_type), content) catch
                return connection.endOfRecords();
            // A short read says nothing here: a record of another type may be next, and when that
            // is a KeyUpdate, polls keep quiet about it. So it is read until there is nothing.
            if (step.plaintext_size > 0) {
                connection.receive_ring.?.produce(size);
                connection.counters.records += 1;
                return true;
            }
            if (tls.takeReceiveKeysChanged()) {
                connection.giveKeys(.receive) catch return connection.endOfRecords();
            }
            if (tls.hasPending()) connection.outbox.?.sendPending(connection.link());
            return switch (step.status) {
                .closed => connection.endOfStream(.close_notify),
                .done => true,
                .needs_received, .needs_room => unreachable, // The record was whole.
            };
        }

        fn refuseRecord(connection: *Connection, violation: ssl.Violation) NextError!bool {
            connection.tls.?.refuse(violation) catch return connection.endOfRecords();
        }

        /// Opens one record into the receive ring. False when no whole one has arrived.
        inline fn openRecord(connection: *Connection) NextError!bool {
            const tls = &connection.tls.?;
            const received = connection.ciphertext_ring.?;
            const bytes = received.readable();
            const needed = tls.roomToOpen(bytes) orelse return false;
            const room = connection.receive_ring.?.writable();
            if (room.len < needed) return connection.makeRoom(needed);

            const to_send = connection.outbox.?.openTarget(connection.link());
            const step = tls.open(bytes, room, to_send) catch return connection.endOfRecords();
            received.consume(step.received_used);
            if (step.to_send_size > 0) {
                connection.outbox.?.sendSealed(connection.link(), step.to_send_size);
            }
            if (tls.hasPending()) connection.outbox.?.sendPending(connection.link());
            switch (step.status) {
                .done => {
                    connection.receive_ring.?.produce(step.plaintext_size);
                    connection.counters.records += @intFromBool(step.plaintext_size > 0);
                    if (connection.options.timestamps != .none) {
                        connection.stamps.decrypted_cycles = Os.cycles();
                    }
                    return true;
                },
                .needs_received => {
                    const outbox = &connection.outbox.?;
                    if (outbox.awaits_peer) outbox.flush(connection.link()); // It may have come.
                    return step.received_used > 0;
                },
                .needs_room => return false, // Goes on when the socket has taken some.
                .closed => return connection.endOfStream(.close_notify),
            }
        }

        /// TLS has failed; `tls` knows why. Nobody asks once the peer has said CLOSE, or has failed
        /// before: then the connection only waits for its end.
        fn endOfRecords(connection: *Connection) NextError!bool {
            const is_over = connection.close_received or connection.failure != null;
            if (!is_over) return connection.failTls();
            connection.peer_ended = true;
            return false;
        }

        /// The receive ring is full. Between the fragments of a message there may be headers and
        /// control frames to give up; if not, it is full of what the owner has kept.
        fn makeRoom(connection: *Connection, needed: usize) error{ReceiveRingPinned}!bool {
            const ring = connection.receive_ring.?;
            connection.parser.compact(ring.readable());
            connection.takeBackLent();
            if (ring.writable().len < needed) {
                connection.spin_target = &.{};
                return error.ReceiveRingPinned;
            }
            return true;
        }

        /// Finds the next message in the receive ring, and deals with control frames on the way.
        fn parse(connection: *Connection) NextError!?Event {
            while (true) {
                const bytes = connection.receive_ring.?.readable();
                if (bytes.len == 0) return null;
                const found = connection.parser.next(bytes) catch |err| {
                    connection.failProtocol(err);
                    return null;
                };
                switch (found orelse return null) {
                    .message => |message| return .{ .message = connection.counted(message) },
                    .compressed => |compressed| {
                        const message = try connection.inflate(compressed) orelse return null;
                        return .{ .message = connection.counted(message) };
                    },
                    else => |control| {
                        connection.handleControl(control);
                        connection.takeBackLent();
                        if (connection.state != .open) return null;
                    },
                }
            }
        }

        /// The message that a compressed one stands for: RFC 7692, section 7.2.2.
        fn inflate(
            connection: *Connection,
            compressed: ws.Parser.Message,
        ) NextError!?ws.Parser.Message {
            const options = &connection.options;
            const compression = &connection.compression.?;
            const inflated = compression.inflate(compressed.payload, options.message_size_max);
            const payload = inflated catch |err| switch (err) {
                error.NoRoom => {
                    const bytes = connection.receive_ring.?.readable();
                    connection.parser.repeat(bytes, compressed);
                    return error.ReceiveRingPinned;
                },
                error.OutOfMemory => return error.OutOfMemory,
                error.MessageTooBig,
                error.InvalidCompression,
                => |cause| {
                    connection.failProtocol(cause);
                    return null;
                },
            };
            const judged = compressed.opcode == .text and options.validate_utf8;
            if (judged and !ws.utf8.validate(payload)) {
                connection.failProtocol(error.InvalidUtf8);
                return null;
            }
            connection.counters.messages_inflated += 1;
            connection.counters.bytes_before_inflation += compressed.payload.len;
            return .{
                .opcode = compressed.opcode,
                .payload = payload,
                .fragmented = compressed.fragmented,
            };
        }

        /// Where the payload of a message lies that is lent.
        pub fn ringOf(connection: *const Connection, payload: []const u8) *RingBuffer {
            if (connection.inflated_ring) |ring| {
                if (ring.contains(payload)) return ring;
            }
            return connection.receive_ring.?;
        }

        fn handleControl(connection: *Connection, control: ws.Parser.Event) void {
            switch (control) {
                .message, .compressed => unreachable,
                .ping => |payload| {
                    connection.counters.pings += 1;
                    if (connection.close_sent == null) {
                        connection.outbox.?.answerPing(connection.link(), payload);
                    }
                },
                .pong => connection.counters.pongs += 1,
                .close => |close_frame| connection.handleClose(close_frame),
            }
        }

        /// Gives the bytes of the last event back to the ring.
        inline fn takeBackLent(connection: *Connection) void {
            const size = connection.parser.take() + connection.lent_size;
            connection.lent_size = 0;
            if (size > 0) connection.receive_ring.?.consume(size);
        }

        /// Whether a further message can be delivered from what has been read already. To be asked
        /// while a message is lent.
        pub fn moreWaiting(connection: *const Connection) bool {
            if (connection.tls) |*tls| {
                if (tls.recordWaiting(connection.ciphertext_ring.?.readable())) return true;
            }
            const bytes = connection.receive_ring.?.readable();
            return connection.parser.completeFrameWaiting(bytes);
        }

        // ---- Time. -----------------------------------------------------------------------------

        inline fn stampRead(connection: *Connection) void {
            // The wall clock and the counter are read side by side: the kernel's stamp is on the
            // wall clock, so no drift between the two can come between it and this one.
            connection.stamps.received_ns = Os.realtimeNs();
            connection.stamps.received_cycles = Os.cycles();
            connection.stamps.decrypted_cycles = connection.stamps.received_cycles;
            connection.stamps.kernel_ns = switch (connection.kernel_stamp.source) {
                .none => 0,
                .software, .hardware => connection.kernel_stamp.realtime_ns,
            };
        }

        /// To be called right before a message is handed over.
        pub inline fn stampDelivery(connection: *Connection) void {
            if (connection.options.timestamps == .none) return;
            connection.stamps.delivered_cycles = Os.cycles();
            if (connection.latency) |latency| latency.record(&connection.stamps, &connection.clock);
        }

        // ---- Connecting: resolve → TCP → TLS → upgrade. ----------------------------------------

        /// Resolves the name and begins to connect. Blocks while the name is looked up, and only
        /// then. A connection that has ended can be started again.
        pub fn start(connection: *Connection) StartError!void {
            assert(connection.state == .idle or connection.state == .closed);
            connection.failure = null; // Without memory for a new one, the old one is over still.
            try connection.prepare();
            const deadline_ns = Os.monotonicNs() +| connection.options.connect_timeout_ns;
            connection.deadline_ns = deadline_ns;
            connection.state = .connecting;
            const options = &connection.options;
            connection.dialer.resolve(options.host, options.url.port, deadline_ns) catch |err| {
                return connection.fail(.{ .resolve = err });
            };
        }

        /// Rings and fresh state, so that an ended connection can be started again.
        fn prepare(connection: *Connection) StartError!void {
            const options = &connection.options;
            const secure = options.url.scheme.isSecure();
            const capacity = constants.ciphertext_ring_capacity;
            var send_ring = if (connection.outbox) |*outbox| outbox.ring else null;
            const sealed_ring = if (connection.outbox) |*outbox| outbox.ciphertext else null;
            // Each belongs to the connection at once, because the next one may not be had.
            try renewRing(Os, &connection.receive_ring, options.receive_ring_capacity, options);
            if (options.compression != null) {
                const inflated_capacity = options.receive_ring_capacity;
                try renewRing(Os, &connection.inflated_ring, inflated_capacity, options);
            }
            if (secure) try renewRing(Os, &connection.ciphertext_ring, capacity, options);
            try renewRing(Os, &send_ring, options.send_ring_capacity, options);
            connection.outbox = .{
                .ring = send_ring.?,
                .ciphertext = sealed_ring,
                .mask = options.mask,
            };
            if (secure) try renewRing(Os, &connection.outbox.?.ciphertext, capacity, options);
            connection.clock.calibrate();
            const fresh: Connection = .{
                .options = options.*,
                .notifier = connection.notifier,
                .clock = connection.clock,
                .parser = newParser(options, false),
                .latency = connection.latency,
                .counters = connection.counters,
                .tickets = connection.tickets,
                .receive_ring = connection.receive_ring,
                .ciphertext_ring = connection.ciphertext_ring,
                .inflated_ring = connection.inflated_ring,
                .outbox = connection.outbox,
            };
            connection.* = fresh;
        }

        fn newParser(options: *const Options, allows_compression: bool) ws.Parser {
            return .init(.{
                .message_size_max = options.message_size_max,
                .validate_utf8 = options.validate_utf8,
                .allows_compression = allows_compression,
            });
        }

        fn awaitConnect(connection: *Connection) NextError!?Event {
            if (connection.socket == null) { // Else there was no memory for TLS, the last time.
                const options = connection.options.socket;
                connection.socket = switch (connection.dialer.next(options, &connection.watch)) {
                    .pending => return .blocked,
                    .failed => |failure| return connection.fail(failure),
                    .connected => |socket| socket,
                };
            }
            connection.read_budget = constants.reads_per_turn_max;
            if (connection.options.url.scheme.isSecure()) {
                try connection.beginTls();
            } else {
                try connection.beginRequest();
            }
            return null;
        }

        fn beginTls(connection: *Connection) NextError!void {
            connection.tls = @as(ssl.Session, undefined);
            ssl.Session.init(&connection.tls.?, connection.options.tls.?, .{
                .server_name = connection.options.server_name,
                .server_name_is_address = connection.options.server_name_is_address,
                .engine = connection.options.tls_engine,
                .tickets = &connection.tickets,
            }) catch |err| {
                connection.tls = null;
                return switch (err) {
                    error.OutOfMemory => error.OutOfMemory,
                    error.TlsFailed => unreachable, // Nothing has been said yet.
                };
            };
            connection.state = .securing;
            connection.records = .user_space;
            if (connection.tls.?.wantsKernel()) try connection.attachKernelTls();
        }

        /// Before anything is said: without it, there is no reason to bother the peer.
        fn attachKernelTls(connection: *Connection) NextError!void {
            connection.socket.?.attachTls() catch |err| switch (err) {
                error.NotConnected => {}, // Already over: the next read tells how.
                error.Unsupported => {
                    connection.tls.?.refuseKernel(.no_kernel_tls);
                    return connection.failTls();
                },
                error.KeysFixed, error.OutOfMemory, error.Unexpected => {
                    connection.tls.?.refuseKernel(.unexpected);
                    return connection.failTls();
                },
            };
        }

        fn awaitTls(connection: *Connection) NextError!?Event {
            const received = connection.ciphertext_ring.?;
            const outbox = &connection.outbox.?;
            while (true) {
                const step = connection.tls.?.handshake(
                    received.readable(),
                    outbox.ciphertext.?.writable(),
                ) catch return connection.failTls();
                received.consume(step.received_used);
                outbox.sendSealed(connection.link(), step.to_send_size);
                switch (step.status) {
                    .done => {
                        try connection.beginRequest();
                        return null;
                    },
                    .needs_received => {
                        if (!try connection.receive()) return try connection.blocked();
                    },
                    .needs_room => return try connection.blocked(),
                    .closed => _ = try connection.endOfStream(.close_notify),
                }
            }
        }

        /// The handshakes are over: the kernel opens and seals the records from the next ones on.
        /// False while it still has to take what we have sealed; true for any other engine.
        fn enterKernelTls(connection: *Connection) NextError!bool {
            const tls = if (connection.tls) |*session| session else return true;
            if (!tls.wantsKernel()) return true;
            const outbox = &connection.outbox.?;
            outbox.sendPending(connection.link());
            connection.handover_waits = outbox.hasUnsent();
            if (connection.handover_waits) return false;
            assert(connection.ciphertext_ring.?.readable().len == 0); // See `recordReadSize`.
            connection.giveKeys(.receive) catch return connection.failTls();
            connection.giveKeys(.send) catch return connection.failTls();
            tls.enterKernel();
            connection.records = .kernel;
            connection.kernel_stamp = .{};
            connection.socket_drained = false;
            return true;
        }

        /// `tls` knows why they were not taken.
        fn giveKeys(
            connection: *Connection,
            direction: os.TlsDirection,
        ) error{KernelRefused}!void {
            const tls = &connection.tls.?;
            var info = tls.cryptoInfo(switch (direction) {
                .receive => .open,
                .send => .seal,
            });
            defer info.wipe();
            connection.socket.?.setTlsKeys(direction, info.bytes()) catch |err| {
                tls.refuseKernel(switch (err) {
                    error.Unsupported => .no_cipher,
                    error.KeysFixed => .keys_fixed,
                    error.NotConnected, error.OutOfMemory, error.Unexpected => .unexpected,
                });
                return error.KernelRefused;
            };
        }

        fn beginRequest(connection: *Connection) NextError!void {
            const outbox = &connection.outbox.?;
            const place = outbox.contentPlace(connection.link(), constants.request_size_max);
            const size = connection.writeRequest(place) catch |err|
                return connection.fail(.{ .request = err });
            outbox.sendContent(connection.link(), place[0..size]);
            connection.state = .requesting;
        }

        fn writeRequest(connection: *Connection, target: []u8) types.RequestError!usize {
            const options = &connection.options;
            switch (options.purpose) {
                .websocket => {
                    var nonce: [ws.handshake.key_random_size]u8 = undefined;
                    Os.random(&nonce);
                    connection.handshake_key = ws.handshake.keyFrom(&nonce);
                    return ws.handshake.writeRequest(target, connection.upgradeRequest());
                },
                .get => return http.request.write(target, .{
                    .url = &options.url,
                    .headers = options.headers,
                }),
            }
        }

        fn upgradeRequest(connection: *const Connection) ws.handshake.RequestOptions {
            return connection.options.upgradeRequest(&connection.handshake_key);
        }

        fn awaitResponse(connection: *Connection) NextError!?Event {
            const bytes = connection.receive_ring.?.readable();
            const parsed = http.response.parseHead(bytes, &connection.head_searched) catch |err|
                return connection.fail(.{ .response = err });
            const head = parsed orelse {
                if (try connection.fill()) return null;
                return try connection.blocked();
            };
            const is_websocket = connection.options.purpose == .websocket;
            const is_interim = head.status < 200 and head.status != 101;
            if (!is_interim and !try connection.enterKernelTls()) return try connection.blocked();
            connection.lent_size = head.size;
            if (is_websocket and head.status == 101) {
                const agreement = ws.handshake.checkResponse(
                    &head,
                    connection.upgradeRequest(),
                ) catch |err| return connection.fail(.{ .upgrade = err });
                connection.subprotocol = agreement.subprotocol;
                if (agreement.compression) |parameters| try connection.beginCompression(parameters);
                connection.deadline_ns = null;
                connection.state = .open;
                return .{ .opened = head };
            }
            if (is_interim) return connection.skipInterim();
            connection.body = http.body.Decoder.init(&head, false) catch |err|
                switch (connection.options.purpose) {
                    .get => return connection.fail(.{ .body = err }),
                    .websocket => .none, // Refused all the same; the head says why.
                };
            connection.state = .reading_body;
            return .{ .response = head };
        }

        fn beginCompression(
            connection: *Connection,
            agreement: ws.permessage_deflate.Agreement,
        ) NextError!void {
            const options = &connection.options;
            connection.compression = @as(Compression, undefined);
            connection.compression.?.init(
                &options.compression.?,
                agreement,
                connection.inflated_ring.?,
            ) catch |err| {
                connection.compression = null;
                return err;
            };
            connection.parser = newParser(options, true);
        }

        /// 1xx announces the real response (RFC 9110, section 15.2).
        fn skipInterim(connection: *Connection) NextError!?Event {
            connection.takeBackLent();
            connection.head_searched = 0;
            connection.interim_responses += 1;
            if (connection.interim_responses <= constants.interim_responses_max) return null;
            return connection.fail(.too_many_interim_responses);
        }

        /// The body of a plain response: what was asked for, or why the upgrade was refused.
        fn readBody(connection: *Connection) NextError!?Event {
            connection.takeBackLent();
            if (connection.body.isDone()) return connection.finishResponse(true);
            const step = connection.body.next(connection.receive_ring.?.readable()) catch |err|
                return switch (connection.options.purpose) {
                    .get => connection.fail(.{ .body = err }),
                    .websocket => connection.finishResponse(false),
                };
            connection.lent_size = step.used;
            if (step.body.len > 0) return .{ .body = step.body };
            if (step.used > 0 or step.done) return null;
            if (connection.peer_ended) return connection.finishResponse(false);
            if (try connection.fill() or connection.peer_ended) return null;
            return try connection.blocked();
        }

        fn finishResponse(connection: *Connection, complete: bool) Event {
            switch (connection.options.purpose) {
                .get => connection.finish(.{ .code = 1000, .clean = true }),
                .websocket => {
                    connection.failure = .refused;
                    connection.finish(.{ .code = 1006, .clean = false });
                },
            }
            return .{ .finished = .{ .complete = complete } };
        }

        /// For an owner who wants no more of the body of a refusal, which may be endless.
        pub fn skipBody(connection: *Connection) void {
            assert(connection.state == .reading_body);
            assert(connection.options.purpose == .websocket);
            _ = connection.finishResponse(false);
        }

        /// Nothing to do without the kernel, unless the deadline has passed.
        fn blocked(connection: *Connection) NextError!Event {
            if (connection.unsent()) |cause| {
                const stopped = connection.stage();
                return connection.fail(.{ .ended = .{ .stage = stopped, .cause = cause } });
            }
            const deadline_ns = connection.deadline_ns orelse return connection.willWait();
            if (Os.monotonicNs() < deadline_ns) return connection.willWait();
            // What has arrived counts, even if we are late to read it; not that of a peer that
            // floods us with a body without end, or instead of answering CLOSE.
            const bounded = switch (connection.state) {
                .connecting, .securing, .requesting => true,
                .idle, .reading_body, .open, .closing, .closed => false,
            };
            if (bounded and connection.read_budget == 0) return connection.willWait();
            return switch (connection.state) {
                .connecting => connection.fail(.{ .timed_out = .connecting }),
                .securing => connection.fail(.{ .timed_out = .securing }),
                .requesting => connection.fail(.{ .timed_out = .requesting }),
                .reading_body => switch (connection.options.purpose) {
                    .websocket => connection.finishResponse(false), // Refused is known already.
                    .get => connection.fail(.{ .timed_out = .reading_body }),
                },
                .closing => connection.finishClosing(.timeout),
                .idle, .open, .closed => unreachable, // No deadline there.
            };
        }

        // ---- Waiting. --------------------------------------------------------------------------

        /// Waits until the kernel has something for this connection, the present deadline or the
        /// timeout has passed, or a signal came. Touches nothing of the owner's: Python releases
        /// its lock around it.
        pub fn wait(connection: *Connection, timeout_ns: ?u64) NextError!types.Wake {
            connection.read_budget = constants.reads_per_turn_max;
            if (connection.state == .closed) return .ready;
            connection.clock.refine();
            const limit_ns = connection.untilDeadline(timeout_ns);
            if (connection.options.busy_poll and connection.state != .connecting) {
                return connection.spin(limit_ns);
            }
            const connecting = connection.state == .connecting;
            const place = if (connecting) connection.dialer.socket else connection.socket;
            const socket = place orelse return .ready; // `next` has not begun yet.
            connection.notifier.watch(&connection.watch, socket.descriptor, .{
                .readable = !connecting and connection.wantsRead(),
                .writable = connecting or connection.outbox.?.isWaiting(),
            }) catch return error.SystemResources;
            const wake = connection.notifier.wait(limit_ns) catch return error.SystemResources;
            const ready = connection.watch.take();
            if (connecting) {
                connection.dialer.answered = ready.readable or ready.writable;
            } else {
                if (ready.readable) connection.socket_drained = false;
                if (ready.writable) connection.outbox.?.flush(connection.link());
            }
            return wake;
        }

        /// Whether what arrives is to be read now.
        fn wantsRead(connection: *const Connection) bool {
            return !connection.peer_ended and !connection.handover_waits;
        }

        /// Finds out what `wait` must not: an owner with threads may let go of messages during the
        /// wait, which moves the front of the ring that a busy wait reads into.
        inline fn willWait(connection: *Connection) Event {
            if (connection.options.busy_poll) {
                connection.spin_target = if (connection.wantsRead())
                    connection.readTarget()
                else
                    &.{};
            }
            return .blocked;
        }

        /// Waits without the kernel's help: the wake-up costs microseconds, the spin does not.
        fn spin(connection: *Connection, limit_ns: ?u64) types.Wake {
            const turn_ns = @min(limit_ns orelse constants.spin_turn_ns, constants.spin_turn_ns);
            const until_ns = Os.monotonicNs() + turn_ns;
            if (connection.spin_target.len == 0 or connection.peer_ended) {
                connection.flushIfWaiting();
                connection.socket_drained = false; // `next` has to make room, or to say why not.
                return .ready;
            }
            while (true) {
                for (0..constants.spins_per_clock_read) |_| {
                    const read = connection.readSocket(connection.spin_target);
                    if (!read.foundNothing()) {
                        connection.early_read = read;
                        connection.spin_target = &.{}; // Another wait must not read over it.
                        return .ready;
                    }
                    std.atomic.spinLoopHint();
                }
                connection.flushIfWaiting();
                if (Os.monotonicNs() >= until_ns) return .timed_out;
            }
        }

        fn untilDeadline(connection: *const Connection, timeout_ns: ?u64) ?u64 {
            const deadline_ns = switch (connection.state) {
                .connecting => connection.dialer.address_deadline_ns,
                else => connection.deadline_ns orelse return timeout_ns,
            };
            const left_ns = deadline_ns -| Os.monotonicNs();
            return @min(left_ns, timeout_ns orelse left_ns);
        }

        /// Lets `next` read the socket again, for an owner with a loop of its own.
        pub fn beginTurn(connection: *Connection) void {
            connection.read_budget = constants.reads_per_turn_max;
            connection.socket_drained = false;
            connection.flushIfWaiting();
        }

        /// Whether the turn ended because it was long enough, not because there was nothing to do.
        pub fn turnSpent(connection: *const Connection) bool {
            return connection.read_budget == 0;
        }

        // ---- Sending. --------------------------------------------------------------------------

        /// Queues one message and gives the kernel what it takes at once. All or nothing.
        pub fn send(
            connection: *Connection,
            opcode: ws.Opcode,
            payload: []const u8,
        ) SendError!void {
            if (connection.state != .open) return error.NotOpen;
            const deflated = connection.compression != null and
                try connection.sendDeflated(opcode, payload);
            if (!deflated) try connection.outbox.?.send(connection.link(), opcode, payload);
            connection.counters.messages_sent += 1;
            connection.counters.bytes_sent += payload.len;
        }

        /// False when the message is to go out as it is.
        fn sendDeflated(
            connection: *Connection,
            opcode: ws.Opcode,
            payload: []const u8,
        ) SendError!bool {
            const deflater = connection.compression.?.deflaterFor(payload.len) orelse return false;
            const outbox = &connection.outbox.?;
            const sent = try outbox.sendDeflated(connection.link(), deflater, opcode, payload);
            const size = sent orelse return false;
            connection.counters.messages_deflated += 1;
            connection.counters.bytes_after_deflation += size;
            return true;
        }

        /// The place in the send ring where the payload of a frame belongs. To be followed by
        /// `commit` or `cancel`; nothing else can be sent in between.
        pub fn reserve(connection: *Connection, opcode: ws.Opcode, size: usize) SendError![]u8 {
            if (connection.state != .open) return error.NotOpen;
            return connection.outbox.?.reserve(connection.link(), opcode, size);
        }

        pub fn commit(connection: *Connection) SendError!void {
            assert(connection.state == .open); // Nothing goes on while a reservation is open.
            const size = try connection.outbox.?.commit(connection.link());
            connection.counters.messages_sent += 1;
            connection.counters.bytes_sent += size;
        }

        pub fn cancel(connection: *Connection) void {
            connection.outbox.?.cancel();
        }

        /// Whether the owner is writing a frame. Until it is committed or cancelled, nothing else
        /// may be asked of the connection.
        pub fn isReserved(connection: *const Connection) bool {
            if (connection.outbox) |*outbox| return outbox.reservation != null;
            return false;
        }

        pub fn ping(connection: *Connection, payload: []const u8) SendError!void {
            assert(payload.len <= constants.control_payload_size_max);
            if (connection.state != .open) return error.NotOpen;
            try connection.outbox.?.send(connection.link(), .ping, payload);
            connection.counters.pings_sent += 1;
        }

        /// Whether something waits for the socket to be writable.
        pub fn wantsWrite(connection: *const Connection) bool {
            if (connection.socket == null) return false;
            return connection.outbox.?.isWaiting();
        }

        fn flushIfWaiting(connection: *Connection) void {
            if (connection.wantsWrite()) connection.outbox.?.flush(connection.link());
        }

        fn link(connection: *Connection) Outbox.Link {
            return .{
                .socket = &connection.socket.?,
                .tls = if (connection.tls) |*tls| tls else null,
            };
        }

        // ---- Closing (RFC 6455, section 7). ----------------------------------------------------

        /// Begins the closing handshake; `next` goes on with it. Messages that still arrive are
        /// dropped. Before the connection is open there is no peer to send CLOSE to.
        pub fn close(connection: *Connection, code: u16, reason: []const u8) void {
            switch (connection.state) {
                .idle, .closing, .closed => {},
                .connecting, .securing, .requesting, .reading_body => connection.finish(.{
                    .code = 1006, // RFC 6455, section 7.1.5: no CLOSE was received.
                    .reason = "closed before it was open",
                    .clean = false,
                    .local = true,
                }),
                .open => {
                    connection.takeBackLent();
                    connection.beginClosing(code, reason);
                },
            }
        }

        /// Ends the connection here and now, without a word.
        pub fn abort(connection: *Connection) void {
            if (connection.state == .idle or connection.state == .closed) return;
            const reason = "aborted";
            connection.finish(.{ .code = 1006, .reason = reason, .clean = false, .local = true });
        }

        fn beginClosing(connection: *Connection, code: ?u16, reason: []const u8) void {
            var payload: [constants.control_payload_size_max]u8 = undefined;
            var size: usize = 0;
            if (code) |value| {
                std.mem.writeInt(u16, payload[0..2], value, .big);
                @memcpy(payload[2..][0..reason.len], reason);
                size = 2 + reason.len;
            }
            assert(!connection.isReserved()); // The owner finishes his frame first.
            connection.close_sent = code orelse 1005;
            const timeout_ns = connection.options.close_timeout_ns;
            connection.deadline_ns = Os.monotonicNs() +| timeout_ns;
            connection.state = .closing;
            const outbox = &connection.outbox.?;
            outbox.pong_pending = null;
            _ = outbox.sendControl(connection.link(), .close, payload[0..size]);
        }

        /// The peer's CLOSE: answered with the same code, unless ours went out first.
        fn handleClose(connection: *Connection, close_frame: ws.Parser.Close) void {
            const reason = close_frame.reason;
            @memcpy(connection.close_reason_buffer[0..reason.len], reason);
            const local = connection.close_sent != null;
            connection.close_received = true;
            connection.closed = .{
                .code = close_frame.code orelse 1005,
                .reason = connection.close_reason_buffer[0..reason.len],
                .clean = true,
                .local = local,
            };
            if (!local) connection.beginClosing(close_frame.code, "");
        }

        /// Reads on until the peer has said CLOSE and then hung up: a socket closed with bytes
        /// unread makes the kernel reset the connection, and our own CLOSE might be lost.
        fn awaitClose(connection: *Connection) NextError!?Event {
            while (!connection.peer_ended) {
                connection.takeBackLent();
                if (connection.close_received or connection.failure != null) {
                    connection.discardReceived();
                    connection.shutSendSide();
                } else if (try connection.parseClosing()) continue;
                if (connection.peer_ended) break;
                if (!try connection.fill()) {
                    if (connection.peer_ended) break;
                    return try connection.blocked();
                }
            }
            return try connection.finishClosing(.peer_ended);
        }

        /// True when a frame was found, of whatever kind, or what can be none.
        fn parseClosing(connection: *Connection) NextError!bool {
            const bytes = connection.receive_ring.?.readable();
            if (bytes.len == 0) return false;
            const found = connection.parser.next(bytes) catch |err| {
                const code = connection.close_sent.?;
                connection.failure = .{ .protocol = .{ .cause = err, .code = code } };
                return true; // Nothing more to wait for: the caller hangs up.
            };
            switch (found orelse return false) {
                .message, .compressed => connection.counters.messages_dropped += 1,
                else => |control| connection.handleControl(control),
            }
            return true;
        }

        fn discardReceived(connection: *Connection) void {
            const ring = connection.receive_ring.?;
            ring.consume(ring.readable().len);
        }

        /// All is said: close_notify once our CLOSE has gone out, then FIN once that has.
        fn shutSendSide(connection: *Connection) void {
            const outbox = &connection.outbox.?;
            if (connection.send_side_shut or outbox.hasUnsent()) return;
            if (connection.tls != null and !connection.close_notify_sent) {
                connection.close_notify_sent = true;
                outbox.sendCloseNotify(connection.link());
                if (outbox.hasUnsent()) return;
            }
            connection.send_side_shut = true;
            connection.socket.?.shutdownSend();
        }

        fn finishClosing(
            connection: *Connection,
            why: enum { peer_ended, timeout },
        ) NextError!Event {
            if (connection.failure) |failure| return connection.fail(failure);
            connection.finish(connection.closed orelse .{
                .code = 1006,
                .reason = switch (why) {
                    .peer_ended => "the peer hung up without a close frame",
                    .timeout => "the peer did not answer the close frame in time",
                },
                .clean = false,
                .local = true,
            });
            return .{ .closed = connection.closed.? };
        }

        // ---- Endings. --------------------------------------------------------------------------

        /// The stream ends here. What that means depends on how far the connection has come.
        fn endOfStream(connection: *Connection, cause: types.StreamEnd) NextError!bool {
            connection.peer_ended = true;
            switch (cause) {
                .close_notify => connection.answerCloseNotify(),
                .eof, .receive, .send => {},
            }
            switch (connection.state) {
                .closing => return false,
                .reading_body => {
                    connection.endBody(cause) catch |err| {
                        switch (connection.options.purpose) {
                            .get => return connection.fail(.{ .body = err }),
                            .websocket => {}, // Refused all the same; `readBody` tells.
                        }
                    };
                    return true;
                },
                .open => {
                    connection.finish(.{
                        .code = 1006,
                        .reason = cause.describe(),
                        .clean = false,
                        .local = false,
                    });
                    return connection.fail(.{ .closed = connection.closed.? });
                },
                .connecting, .securing, .requesting => {
                    const stopped = connection.stage();
                    return connection.fail(.{ .ended = .{ .stage = stopped, .cause = cause } });
                },
                .idle, .closed => unreachable, // There is no stream.
            }
        }

        /// Each side says close_notify before it closes its own direction (RFC 8446, section 6.1).
        fn answerCloseNotify(connection: *Connection) void {
            if (connection.close_notify_sent) return; // Ours went out before.
            connection.outbox.?.sendCloseNotify(connection.link());
        }

        /// What a read of nothing means. The kernel tells only once that a connection is broken:
        /// when sending was told, the next read finds no more than an end.
        fn endFound(connection: *const Connection) types.StreamEnd {
            return switch (connection.outbox.?.failure orelse return .eof) {
                error.ConnectionReset,
                error.TimedOut,
                error.NetworkUnreachable,
                error.HostUnreachable,
                => |cause| .{ .receive = cause },
                error.WouldBlock => unreachable, // Is no failure.
                error.BrokenPipe, error.AccessDenied, error.OutOfMemory, error.Unexpected => .eof,
            };
        }

        /// What keeps the peer from ever answering. Of a broken connection, reading tells.
        fn unsent(connection: *const Connection) ?types.StreamEnd {
            switch (connection.state) {
                .securing, .requesting => {},
                .idle, .connecting, .reading_body, .open, .closing, .closed => return null,
            }
            return switch (connection.outbox.?.failure orelse return null) {
                error.AccessDenied, error.OutOfMemory, error.Unexpected => |cause| .{
                    .send = cause,
                },
                error.WouldBlock => unreachable, // Is no failure.
                error.BrokenPipe,
                error.ConnectionReset,
                error.TimedOut,
                error.NetworkUnreachable,
                error.HostUnreachable,
                => null,
            };
        }

        fn endBody(connection: *Connection, cause: types.StreamEnd) http.body.FinishError!void {
            if (cause.isTruncation(connection.tls != null) and !connection.body.isDone()) {
                return error.Truncated;
            }
            return connection.body.finish();
        }

        fn stage(connection: *const Connection) Stage {
            return switch (connection.state) {
                .connecting => .connecting,
                .securing => .securing,
                .requesting => .requesting,
                else => .reading_body,
            };
        }

        fn failTls(connection: *Connection) error{Failed} {
            const tls = &connection.tls.?;
            // An alert tells the peer why.
            connection.outbox.?.sendSealed(connection.link(), tls.alertSize());
            connection.outbox.?.sendPending(connection.link());
            const in_handshake = connection.state == .securing;
            const cause = tls.failure();
            return connection.fail(.{ .tls = .{ .cause = cause, .in_handshake = in_handshake } });
        }

        /// Fails the WebSocket connection (RFC 6455, section 7.1.7): CLOSE with the code that
        /// fits, then the failure is told once the peer has hung up or the time is over.
        fn failProtocol(connection: *Connection, cause: ws.ParseError) void {
            const code = ws.closeCode(cause);
            connection.failure = .{ .protocol = .{ .cause = cause, .code = code } };
            connection.beginClosing(code, "");
        }

        fn fail(connection: *Connection, failure: Failure) error{Failed} {
            connection.failure = failure;
            if (connection.state != .closed) {
                connection.finish(.{ .code = 1006, .clean = false });
            }
            return error.Failed;
        }

        /// The connection is over.
        fn finish(connection: *Connection, closed: Closed) void {
            connection.closed = closed;
            connection.state = .closed;
            connection.deadline_ns = null;
            connection.dropTransport();
        }

        fn dropTransport(connection: *Connection) void {
            if (connection.tls) |*tls| tls.deinit();
            connection.tls = null;
            if (connection.compression) |*compression| compression.deinit();
            connection.compression = null;
            connection.dialer.deinit(&connection.watch);
            if (connection.socket) |*socket| {
                connection.watch.cancel();
                socket.close();
            }
            connection.socket = null;
        }
    };
}

/// A ring for a new connection. One with pinned bytes is left to those who hold them, once there is
/// another.
fn renewRing(
    comptime Os: type,
    place: *?*RingBuffer,
    capacity: usize,
    options: *const Options,
) StartError!void {
    if (place.*) |ring| if (!ring.pinned()) return ring.reset();
    const fresh = try RingBuffer.createOn(Os, capacity, .{ .huge_pages = options.huge_pages });
    if (place.*) |ring| ring.retire();
    place.* = fresh;
}
