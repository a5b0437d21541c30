//! One connection, from the socket to the message. The data path, which is all that is here:
//!
//!     socket ─▶ transport.fill: read, open (TLS) ─▶ receive ring ─▶ parse ─▶ pump ─▶ sink
//!     send ─▶ outbox: frame in the send ring, seal (TLS), write ─▶ socket
//!
//! The owner pulls: `pump` gives every message that is there to a sink, and then the next event of
//! another kind; or `nextMessage` and `next` give them one by one. On `blocked` there is nothing
//! to do without the kernel: then a `Loop` waits for what `interest` and `deadlineNs` say, and
//! `noteReady` goes on. Nothing here sleeps, and nothing allocates once the connection is open.
//!
//! The steps are in `connection/`: `transport.zig` owns the bytes and receives, `outbox.zig` sends;
//! what happens before a connection is open, and how it ends, is `lifecycle.zig`'s.
//!
//! A message stays in the receive ring until the next call, and longer if its bytes are pinned; one
//! that came compressed, in the ring that it was inflated into.
//!
//! The kernel is a parameter (`Os`), so that the tests can drive a connection with a scripted one.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("constants.zig");
const delivery = @import("delivery.zig");
const os = @import("os.zig");
const sink_module = @import("sink.zig");
const types = @import("connection/types.zig");
const ws = @import("ws.zig");
const ClockType = @import("os/clock.zig").ClockType;
const FillError = @import("connection/transport.zig").FillError;
const LifecycleType = @import("connection/lifecycle.zig").LifecycleType;
const RingBuffer = @import("ringbuffer.zig").RingBuffer;
const TransportType = @import("connection/transport.zig").TransportType;

pub const CompressionOptions = types.CompressionOptions;
pub const Closed = types.Closed;
pub const Counters = types.Counters;
pub const Delivery = delivery.Delivery;
pub const Event = types.Event;
pub const Failure = types.Failure;
pub const Latency = @import("connection/latency.zig").Latency;
pub const NextError = types.NextError;
pub const Options = types.Options;
pub const SendError = types.SendError;
pub const Stage = types.Stage;
pub const Stamps = delivery.Stamps;
pub const StartError = types.StartError;
pub const State = @import("connection/state.zig").State;

pub fn ConnectionType(comptime Os: type) type {
    return struct {
        const Connection = @This();
        const Clock = ClockType(Os);
        const Transport = TransportType(Os);

        options: Options,
        /// From start to end: opening, closing, and how it ended.
        lifecycle: LifecycleType(Os) = .{},
        /// The bytes: socket, TLS, rings, the sending half.
        transport: Transport,
        parser: ws.Parser,
        clock: Clock,
        latency: ?*Latency = null,

        pub fn init(options: Options) Connection {
            return .{
                .options = options,
                .transport = .{ .line = .{ .hasMoreFn = hasMore } },
                .clock = Clock.init(),
                .parser = .init(options.parserOptions(false)),
            };
        }

        /// Drops the connection without a word to the peer. Pinned bytes outlive it. To be called
        /// before the `deinit` of its loop.
        pub fn deinit(connection: *Connection) void {
            connection.lifecycle.drop(&connection.transport);
            connection.transport.retireRings();
            const tickets = &connection.lifecycle.opening.tickets;
            if (connection.options.tls) |context| tickets.deinit(context.api);
            connection.* = undefined;
        }

        /// Leaves the rings with pinned bytes to those who hold them. `start` does, too; but then
        /// the lock of such a ring may be held at the very moment when another thread forks.
        pub fn leavePinnedRings(connection: *Connection) void {
            assert(connection.lifecycle.isAtRest());
            connection.transport.leavePinnedRings();
        }

        /// Gives the memory of the rings back, for an owner who may not come again. Pinned bytes
        /// stay; another `start` maps rings anew.
        pub fn releaseRings(connection: *Connection) void {
            assert(connection.lifecycle.isAtRest());
            connection.transport.retireRings();
        }

        pub inline fn state(connection: *const Connection) State {
            return connection.lifecycle.machine.state;
        }

        /// Why the connection failed; also set during its closing handshake.
        pub fn failure(connection: *const Connection) ?Failure {
            return connection.lifecycle.closing.failure;
        }

        /// How the connection ended, once it has, or the peer's CLOSE has come.
        pub fn closed(connection: *const Connection) ?Closed {
            return connection.lifecycle.closing.closed;
        }

        /// The one that the server chose of those in the options.
        pub fn subprotocol(connection: *const Connection) ?[]const u8 {
            return connection.lifecycle.opening.subprotocol;
        }

        /// What has to hold between two calls. Asked in builds with assertions only: the fast one
        /// would keep some of the loads, 30 instructions per wake-up.
        pub inline fn invariants(connection: *const Connection) void {
            if (!std.debug.runtime_safety) return;
            connection.lifecycle.invariants(&connection.transport);
            assert(connection.state() == .idle or connection.clock.multiplier != 0);
        }

        /// Resolves the name and begins to connect. Blocks while the name is looked up, and for the
        /// first 11 ms of the clock's life. A connection that has ended can be started again.
        pub fn start(connection: *Connection) StartError!void {
            assert(connection.lifecycle.isAtRest());
            // Without memory for a new connection, the old one is over still, but did not fail.
            connection.lifecycle.closing.failure = null;
            const options = &connection.options;
            try connection.transport.renew(options);
            connection.parser = .init(options.parserOptions(false));
            connection.clock.calibrate();
            connection.transport.line.rate = connection.clock.rate();
            defer connection.invariants();
            return connection.lifecycle.begin(&connection.transport, options);
        }

        // ---- Receiving: read this from top to bottom. ------------------------------------------

        /// Gives every message that is there to the sink (see sink.zig); then the next event that
        /// is no message. What a sink raises comes out of here; the next call goes on behind its
        /// message.
        pub inline fn pump(
            connection: *Connection,
            sink: anytype,
        ) (NextError || sink_module.ErrorOf(@TypeOf(sink.*)))!Event {
            while (true) {
                if (connection.nextMessage()) |message| {
                    try connection.handOver(sink, &message);
                } else switch (try connection.next()) {
                    .message => |message| try connection.handOver(sink, &message),
                    else => |event| return event,
                }
            }
        }

        inline fn handOver(
            connection: *Connection,
            sink: anytype,
            message: *const Delivery,
        ) sink_module.ErrorOf(@TypeOf(sink.*))!void {
            try sink.prepare();
            if (@TypeOf(sink.*).delivers) connection.stampDelivery();
            return sink.take(message);
        }

        /// The hot path: the next message, where it is a whole frame that has arrived. Null for
        /// whatever else is next, which `next` tells. Its bytes are borrowed until the next call of
        /// either. Inlined, and apart from `next`: else a message goes through memory twice.
        pub inline fn nextMessage(connection: *Connection) ?Delivery {
            if (connection.state() != .open) return null;
            connection.takeBackLent();
            const waiting = connection.transport.receive_ring.?.readable();
            if (waiting.len > 0) return connection.wholeMessage(waiting);
            const filled = connection.fill() catch return null; // `next` fails the same way.
            if (!filled) return null;
            return connection.wholeMessage(connection.transport.receive_ring.?.readable());
        }

        inline fn wholeMessage(connection: *Connection, bytes: []u8) ?Delivery {
            const message = connection.parser.nextWhole(bytes) orelse return null;
            return connection.deliver(message, connection.transport.receive_ring.?);
        }

        /// A message as it leaves the core.
        inline fn deliver(
            connection: *Connection,
            message: ws.Parser.Message,
            ring: *RingBuffer,
        ) Delivery {
            connection.transport.counters.messages += 1;
            connection.transport.counters.bytes += message.payload.len;
            return .{
                .payload = message.payload,
                .opcode = message.opcode,
                .fragmented = message.fragmented,
                .ring = ring,
                .line = &connection.transport.line,
            };
        }

        /// Does what can be done without waiting, and gives the next event, of whatever kind. Bytes
        /// of an event are borrowed until the next call.
        pub fn next(connection: *Connection) NextError!Event {
            defer connection.invariants();
            if (connection.state() != .open) return connection.nextOutsideOpen();
            connection.takeBackLent();
            while (true) {
                if (try connection.parse()) |event| return event;
                if (connection.state() != .open) return connection.nextOutsideOpen();
                if (try connection.fill()) continue;
                if (connection.state() != .open) return connection.nextOutsideOpen();
                return connection.willWait();
            }
        }

        /// More plaintext into the receive ring: the next record, or else the next read. False when
        /// there is nothing more now.
        inline fn fill(connection: *Connection) NextError!bool {
            return connection.transport.fill() catch |err| return connection.recover(err);
        }

        fn recover(connection: *Connection, err: FillError) NextError!bool {
            @branchHint(.cold);
            const transport = &connection.transport;
            const options = &connection.options;
            return connection.lifecycle.recover(transport, options, &connection.parser, err);
        }

        fn nextOutsideOpen(connection: *Connection) NextError!Event {
            const event = try connection.lifecycle.next(
                &connection.transport,
                &connection.options,
                &connection.parser,
            );
            return if (event == .blocked) connection.willWait() else event;
        }

        /// Finds the next message in the receive ring, and deals with control frames on the way.
        fn parse(connection: *Connection) NextError!?Event {
            while (true) {
                const ring = connection.transport.receive_ring.?;
                const bytes = ring.readable();
                if (bytes.len == 0) return null;
                const found = connection.parser.next(bytes) catch |err| {
                    connection.failProtocol(err);
                    return null;
                };
                switch (found orelse return null) {
                    .message => |message| {
                        return .{ .message = connection.deliver(message, ring) };
                    },
                    .compressed => |compressed| {
                        const message = try connection.inflate(compressed) orelse return null;
                        const inflated_ring = connection.transport.inflated_ring.?;
                        return .{ .message = connection.deliver(message, inflated_ring) };
                    },
                    .ping => |payload| {
                        connection.transport.counters.pings += 1;
                        const link = &connection.transport.link;
                        connection.transport.outbox.?.answerPing(link, payload);
                    },
                    .pong => connection.transport.counters.pongs += 1,
                    .close => |close_frame| {
                        const transport = &connection.transport;
                        const options = &connection.options;
                        connection.lifecycle.answerClose(transport, options, close_frame);
                        connection.takeBackLent();
                        return null;
                    },
                }
                connection.takeBackLent();
            }
        }

        /// The message that a compressed one stands for; null when it fails the connection.
        fn inflate(
            connection: *Connection,
            compressed: ws.Parser.Message,
        ) NextError!?ws.Parser.Message {
            const options = &connection.options;
            const payload = connection.transport.compression.?.message(compressed, .{
                .size_max = options.message_size_max,
                .validate_utf8 = options.validate_utf8,
            }) catch |err| switch (err) {
                error.NoRoom => {
                    const bytes = connection.transport.receive_ring.?.readable();
                    connection.parser.repeat(bytes, compressed);
                    return error.ReceiveRingPinned;
                },
                error.OutOfMemory => return error.OutOfMemory,
                error.MessageTooBig, error.InvalidCompression, error.InvalidUtf8 => |cause| {
                    connection.failProtocol(cause);
                    return null;
                },
            };
            connection.transport.counters.messages_inflated += 1;
            connection.transport.counters.bytes_before_inflation += compressed.payload.len;
            return .{
                .opcode = compressed.opcode,
                .payload = payload,
                .fragmented = compressed.fragmented,
            };
        }

        fn failProtocol(connection: *Connection, cause: ws.ParseError) void {
            const transport = &connection.transport;
            connection.lifecycle.failProtocol(transport, &connection.options, cause);
        }

        /// Gives the bytes of the last event back to the ring.
        inline fn takeBackLent(connection: *Connection) void {
            connection.transport.takeBack(connection.parser.take());
        }

        /// Whether a further message can be delivered from what has been read already. To be asked
        /// while a message is lent.
        pub fn moreWaiting(connection: *const Connection) bool {
            if (connection.transport.hasRecord()) return true;
            const bytes = connection.transport.receive_ring.?.readable();
            return connection.parser.completeFrameWaiting(bytes);
        }

        /// `moreWaiting`, for those who know the line only.
        fn hasMore(line: *const delivery.Line) bool {
            const found: *const Transport = @alignCast(@fieldParentPtr("line", line));
            const connection: *const Connection = @alignCast(@fieldParentPtr("transport", found));
            return connection.moreWaiting();
        }

        /// To be called right before a message is handed over.
        pub inline fn stampDelivery(connection: *Connection) void {
            const line = &connection.transport.line;
            if (!line.stamped) return;
            line.stamps.delivered_cycles = Os.cycles();
            if (connection.latency) |latency| latency.record(&line.stamps, line.rate);
        }

        // ---- Sending. --------------------------------------------------------------------------

        /// Queues one message and gives the kernel what it takes at once. All or nothing.
        pub fn send(
            connection: *Connection,
            opcode: ws.Opcode,
            payload: []const u8,
        ) SendError!void {
            if (connection.state() != .open) return error.NotOpen;
            const deflated = connection.transport.compression != null and
                try connection.sendDeflated(opcode, payload);
            if (!deflated) {
                const link = &connection.transport.link;
                try connection.transport.outbox.?.send(link, opcode, payload);
            }
            connection.transport.counters.messages_sent += 1;
            connection.transport.counters.bytes_sent += payload.len;
        }

        /// False when the message is to go out as it is.
        fn sendDeflated(
            connection: *Connection,
            opcode: ws.Opcode,
            payload: []const u8,
        ) SendError!bool {
            const compression = &connection.transport.compression.?;
            const deflater = compression.deflaterFor(payload.len) orelse return false;
            const link = &connection.transport.link;
            const outbox = &connection.transport.outbox.?;
            const sent = try outbox.sendDeflated(link, deflater, opcode, payload);
            const size = sent orelse return false;
            connection.transport.counters.messages_deflated += 1;
            connection.transport.counters.bytes_after_deflation += size;
            return true;
        }

        /// The place in the send ring where the payload of a frame belongs. To be followed by
        /// `commit` or `cancel`; nothing else can be sent in between.
        pub fn reserve(connection: *Connection, opcode: ws.Opcode, size: usize) SendError![]u8 {
            if (connection.state() != .open) return error.NotOpen;
            return connection.transport.outbox.?.reserve(&connection.transport.link, opcode, size);
        }

        pub fn commit(connection: *Connection) SendError!void {
            assert(connection.state() == .open); // Nothing goes on during a reservation.
            const size = try connection.transport.outbox.?.commit(&connection.transport.link);
            connection.transport.counters.messages_sent += 1;
            connection.transport.counters.bytes_sent += size;
        }

        pub fn cancel(connection: *Connection) void {
            connection.transport.outbox.?.cancel();
        }

        /// Whether the owner is writing a frame. Until it is committed or cancelled, nothing else
        /// may be asked of the connection.
        pub fn isReserved(connection: *const Connection) bool {
            if (connection.transport.outbox) |*outbox| return outbox.reservation != null;
            return false;
        }

        pub fn ping(connection: *Connection, payload: []const u8) SendError!void {
            assert(payload.len <= constants.control_payload_size_max);
            if (connection.state() != .open) return error.NotOpen;
            const link = &connection.transport.link;
            try connection.transport.outbox.?.send(link, .ping, payload);
            connection.transport.counters.pings_sent += 1;
        }

        // ---- Closing. --------------------------------------------------------------------------

        /// Begins the closing handshake (RFC 6455, section 7); `next` goes on with it. Messages
        /// that still arrive are dropped. A connection that is not open yet is over at once.
        pub fn close(connection: *Connection, code: u16, reason: []const u8) void {
            if (connection.state() == .open) connection.takeBackLent();
            const transport = &connection.transport;
            connection.lifecycle.close(transport, &connection.options, code, reason);
            connection.invariants();
        }

        /// Ends the connection here and now, without a word to the peer.
        pub fn abort(connection: *Connection) void {
            if (connection.lifecycle.isAtRest()) return;
            connection.lifecycle.abandon(&connection.transport, "aborted");
            connection.invariants();
        }

        /// For an owner who wants no more of the body of a refusal, which may be endless.
        pub fn skipBody(connection: *Connection) void {
            assert(connection.state() == .reading_body);
            const options = &connection.options;
            assert(options.purpose == .websocket);
            _ = connection.lifecycle.finishResponse(&connection.transport, options, false);
            connection.invariants();
        }

        // ---- Waiting. --------------------------------------------------------------------------

        // The owner's loop sleeps (loop.zig), for many connections at once. Around its sleep it
        // calls, in this order: `beginWait`, `interest`, `deadlineNs`, `noteReady`.

        /// Before each wait: the turn of `next` begins anew.
        pub inline fn beginWait(connection: *Connection) void {
            connection.transport.read_budget = constants.reads_per_turn_max;
            if (connection.state() == .closed) return;
            connection.clock.refine();
            connection.transport.line.rate = connection.clock.rate();
        }

        /// What ends the sleep. Null when there is nothing to wait for: `next` has not begun yet,
        /// or the connection is over.
        pub inline fn interest(connection: *const Connection) ?types.Interest {
            if (connection.state() == .connecting) return connection.lifecycle.opening.interest();
            return connection.transport.interest();
        }

        /// When `next` has to be called even if nothing has happened, on the monotonic clock.
        pub inline fn deadlineNs(connection: *const Connection) ?u64 {
            return connection.lifecycle.deadlineNs();
        }

        /// After the sleep, if the descriptor of `interest` was found ready.
        pub inline fn noteReady(connection: *Connection, ready: os.Ready) void {
            if (connection.state() == .connecting) {
                return connection.lifecycle.opening.noteReady(ready);
            }
            connection.transport.noteReady(ready);
            connection.invariants();
        }

        /// What the loop's notifier knows of the socket, or of the dialer's. The connection does
        /// not move while something is watched.
        pub inline fn watch(connection: *Connection) *Transport.Watch {
            return &connection.transport.link.watch;
        }

        /// Finds the room for a busy wait. The wait itself must not: other threads may let go of
        /// messages meanwhile, which moves the front of the ring that it reads into.
        inline fn willWait(connection: *Connection) Event {
            if (connection.options.busy_poll) connection.transport.findSpinTarget();
            return .blocked;
        }

        /// Whether the loop busy polls for this connection, by `look`, instead of sleeping.
        pub inline fn spins(connection: *const Connection) bool {
            return connection.options.busy_poll and connection.state() != .connecting;
        }

        /// One step of a busy wait: reads the socket once, into the room that was found before.
        /// True when there is something for `next` to do.
        pub inline fn look(connection: *Connection) bool {
            return connection.transport.look();
        }

        pub fn flushIfWaiting(connection: *Connection) void {
            connection.transport.flushIfWaiting();
        }

        /// Whether something waits for the socket to be writable.
        pub fn wantsWrite(connection: *const Connection) bool {
            return connection.transport.wantsWrite();
        }

        /// Lets `next` read the socket again, for an owner with a loop of its own.
        pub fn beginTurn(connection: *Connection) void {
            connection.transport.beginTurn();
        }

        /// Whether the turn ended because it was long enough, not because there was nothing to do.
        pub fn turnSpent(connection: *const Connection) bool {
            return connection.transport.read_budget == 0;
        }
    };
}
