//! One WebSocket connection: the data path from socket to message.
//!
//!     socket ─▶ transport.fill: read, open (TLS) ─▶ receive ring ─▶ parse ─▶ pump ─▶ sink
//!     send ─▶ outbox: frame in the send ring, seal (TLS), write ─▶ socket
//!
//! The owner pulls: `pump` gives all available messages to a sink, then returns the next event of
//! another kind; `nextMessage` and `next` return them one by one. `blocked` means that there is
//! nothing to do without the kernel: a `Loop` waits for what `interest` and `deadlineNs` return,
//! then calls `noteReady`. Nothing here sleeps, and nothing allocates once the connection is open.
//!
//! The steps are in `connection/`: `transport.zig` holds socket, TLS and rings, and receives;
//! `outbox.zig` sends; `lifecycle.zig` opens and closes.
//!
//! The bytes of a message stay in the receive ring (a compressed message's: in the inflated ring)
//! until the next call, and longer if they are pinned.
//!
//! The kernel is a parameter (`Os`), so that tests can use a scripted one.

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
const Seat = @import("connection/seat.zig").Seat;
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
        /// State, opening and closing, and how the connection ended.
        lifecycle: LifecycleType(Os) = .{},
        /// Socket, TLS, rings, and the sending half.
        transport: Transport,
        parser: ws.Parser,
        clock: Clock,
        latency: ?*Latency = null,
        /// What its loop remembers of it.
        seat: Seat = .{},

        pub fn init(options: Options) Connection {
            return .{
                .options = options,
                .transport = .{ .line = .{
                    .hasMoreFn = hasMore,
                    .isStampExactFn = isStampExact,
                } },
                .clock = Clock.init(),
                .parser = .init(options.parserOptions(false)),
            };
        }

        /// Closes the socket without a closing handshake and frees everything except rings with
        /// pinned bytes. Call it after it has left its loop.
        pub fn deinit(connection: *Connection) void {
            connection.lifecycle.drop(&connection.transport);
            connection.transport.retireRings();
            const tickets = &connection.lifecycle.opening.tickets;
            if (connection.options.tls) |context| tickets.deinit(context.api);
            connection.* = undefined;
        }

        /// Gives up the rings with pinned bytes; each is freed with its last pin. `start` does this
        /// too, but it may hold the lock of such a ring while another thread forks.
        pub fn leavePinnedRings(connection: *Connection) void {
            assert(connection.lifecycle.isAtRest());
            connection.transport.leavePinnedRings();
        }

        /// Frees the rings of a connection that will perhaps not be started again; another `start`
        /// maps new ones. A ring with pinned bytes is freed with its last pin.
        pub fn releaseRings(connection: *Connection) void {
            assert(connection.lifecycle.isAtRest());
            connection.transport.retireRings();
        }

        pub inline fn state(connection: *const Connection) State {
            return connection.lifecycle.machine.state;
        }

        /// Whether messages can be sent and received. False, too, once sending has failed, although
        /// what the peer sent before that is still delivered. Any thread may call it: it reads
        /// only single words.
        pub fn isUsable(connection: *const Connection) bool {
            if (connection.state() != .open) return false;
            const outbox = if (connection.transport.outbox) |*found| found else return false;
            return outbox.failure == null;
        }

        /// Why the connection failed; set already during its closing handshake.
        pub fn failure(connection: *const Connection) ?Failure {
            return connection.lifecycle.closing.failure;
        }

        /// How the connection ended; null until it has ended or the peer's CLOSE has come.
        pub fn closed(connection: *const Connection) ?Closed {
            return connection.lifecycle.closing.closed;
        }

        /// The subprotocol that the server chose from those in the options. Borrowed.
        pub fn subprotocol(connection: *const Connection) ?[]const u8 {
            return connection.lifecycle.opening.subprotocol;
        }

        /// Asserts what has to hold between two calls, in builds with assertions only: the fast
        /// build would keep some of the loads, 30 instructions per wake-up.
        pub inline fn invariants(connection: *const Connection) void {
            if (!std.debug.runtime_safety) return;
            connection.lifecycle.invariants(&connection.transport);
            assert(connection.state() == .idle or connection.clock.multiplier != 0);
        }

        /// Begins to look up the name; `next` connects. Blocks until the clock is 11 ms old, and
        /// for nothing else. A connection that has ended can be started again.
        pub fn start(connection: *Connection) StartError!void {
            assert(connection.lifecycle.isAtRest());
            // If there is no memory for the rings, the state stays `closed`, but not as a failure.
            connection.lifecycle.closing.failure = null;
            const options = &connection.options;
            try connection.transport.renew(options);
            connection.parser = .init(options.parserOptions(false));
            connection.clock.calibrate();
            const transport = &connection.transport;
            transport.line.rate = connection.clock.rate();
            transport.staged = transport.line.stamped and connection.latency != null;
            defer connection.invariants();
            return connection.lifecycle.begin(&connection.transport, options);
        }

        // ---- Receiving: read this from top to bottom. ------------------------------------------

        /// Gives all available messages to the sink (see sink.zig), then returns the next event of
        /// another kind. Returns the sink's error, too; the next call goes on after that message.
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

        /// The hot path: the next message, if it is in one frame that has arrived whole. Null in
        /// all other cases, which `next` handles. The bytes are borrowed until the next call of
        /// either. Inlined, and apart from `next`: else a message is copied through memory twice.
        pub inline fn nextMessage(connection: *Connection) ?Delivery {
            if (connection.state() != .open) return null;
            connection.takeBackLent();
            const waiting = connection.transport.receive_ring.?.readable();
            if (waiting.len > 0) return connection.wholeMessage(waiting);
            const filled = connection.fill() catch return null; // `next` meets the same error.
            if (!filled) return null;
            return connection.wholeMessage(connection.transport.receive_ring.?.readable());
        }

        inline fn wholeMessage(connection: *Connection, bytes: []u8) ?Delivery {
            const message = connection.parser.nextWhole(bytes) orelse return null;
            return connection.deliver(message, connection.transport.receive_ring.?);
        }

        /// Counts the message, and adds to it what a sink needs.
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

        /// Does what can be done without waiting, and returns the next event of any kind. The bytes
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

        /// Brings more plaintext into the receive ring: opens the next record, else reads the
        /// socket. False when there is nothing more now.
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

        /// Finds the next message in the receive ring, and handles control frames before it. Null
        /// when the ring has no whole message, or the state is no longer `open`.
        fn parse(connection: *Connection) NextError!?Event {
            while (true) {
                const ring = connection.transport.receive_ring.?;
                const bytes = ring.readable();
                if (bytes.len == 0) return null;
                const found = connection.parser.next(bytes) catch |err| {
                    connection.failProtocol(err, connection.parser.oversize);
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

        /// Inflates a message. Null after an error of the peer, which fails the connection.
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
                    connection.transport.pinned_ring = connection.transport.inflated_ring;
                    return error.ReceiveRingPinned;
                },
                error.OutOfMemory => return error.OutOfMemory,
                error.MessageTooBig, error.InvalidCompression, error.InvalidUtf8 => |cause| {
                    connection.failProtocol(cause, null);
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

        fn failProtocol(
            connection: *Connection,
            cause: ws.ParseError,
            oversize: ?ws.Parser.Oversize,
        ) void {
            const transport = &connection.transport;
            connection.lifecycle.failProtocol(transport, &connection.options, cause, oversize);
        }

        /// Frees the bytes of the last event in the ring.
        inline fn takeBackLent(connection: *Connection) void {
            connection.transport.takeBack(connection.parser.take());
        }

        /// Whether another message can be delivered without reading the socket. For use while a
        /// message is lent.
        pub fn moreWaiting(connection: *const Connection) bool {
            if (connection.transport.hasRecord()) return true;
            const bytes = connection.transport.receive_ring.?.readable();
            return connection.parser.completeFrameWaiting(bytes);
        }

        /// Whether something was read that `next` has not looked at, unless it has returned
        /// `blocked`.
        pub fn hasUnparsed(connection: *const Connection) bool {
            if (connection.transport.hasRecord()) return true;
            const seen_size = connection.transport.lent_size + connection.parser.parsed_size;
            return connection.transport.receive_ring.?.readable().len > seen_size;
        }

        /// `moreWaiting`, for `Line.hasMore`.
        fn hasMore(line: *const delivery.Line) bool {
            return ofLine(line).moreWaiting();
        }

        /// For `Line.isStampExact`. A TLS record is readable only when the whole of it is there: so
        /// all messages that end in one record were complete at the same moment.
        fn isStampExact(line: *const delivery.Line) bool {
            const connection = ofLine(line);
            const transport = &connection.transport;
            if (line.stamps.kernel_ns == 0 or !transport.openedAll()) return false;
            if (transport.link.tls != null) return true;
            return connection.parser.parsed_size == transport.receive_ring.?.readable().len;
        }

        fn ofLine(line: *const delivery.Line) *const Connection {
            const found: *const Transport = @alignCast(@fieldParentPtr("line", line));
            return @alignCast(@fieldParentPtr("transport", found));
        }

        /// Stamps the message that is about to be handed over, and records its latency.
        pub inline fn stampDelivery(connection: *Connection) void {
            const line = &connection.transport.line;
            if (!line.stamped) return;
            line.stamps.delivered_cycles = Os.cycles();
            if (connection.latency != null) connection.recordLatency();
        }

        /// Apart, so that it costs a message nothing when no latency is recorded.
        noinline fn recordLatency(connection: *const Connection) void {
            const line = &connection.transport.line;
            const turn_cycles = connection.transport.turn_cycles;
            connection.latency.?.record(line, turn_cycles, isStampExact(line));
        }

        // ---- Sending. --------------------------------------------------------------------------

        /// Queues one message, whole or not at all, and gives the kernel what it takes at once.
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

        /// False when the message has to be sent uncompressed.
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

        /// The place in the send ring for the payload of a frame. Follow it by `commit` or
        /// `cancel`; nothing else can be sent in between.
        pub fn reserve(connection: *Connection, opcode: ws.Opcode, size: usize) SendError![]u8 {
            if (connection.state() != .open) return error.NotOpen;
            return connection.transport.outbox.?.reserve(&connection.transport.link, opcode, size);
        }

        pub fn commit(connection: *Connection) SendError!void {
            assert(connection.state() == .open); // No call changes it during a reservation.
            const size = try connection.transport.outbox.?.commit(&connection.transport.link);
            connection.transport.counters.messages_sent += 1;
            connection.transport.counters.bytes_sent += size;
        }

        pub fn cancel(connection: *Connection) void {
            connection.transport.outbox.?.cancel();
        }

        /// Whether a reservation is open. Until `commit` or `cancel`, the owner may call nothing
        /// else of the connection.
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

        /// Begins the closing handshake (RFC 6455, section 7); `next` continues it. Messages that
        /// still arrive are dropped. A connection that is not open yet ends at once.
        pub fn close(connection: *Connection, code: u16, reason: []const u8) void {
            if (connection.state() == .open) connection.takeBackLent();
            const transport = &connection.transport;
            connection.lifecycle.close(transport, &connection.options, code, reason);
            connection.invariants();
        }

        /// Ends the connection at once, without a closing handshake.
        pub fn abort(connection: *Connection) void {
            if (connection.lifecycle.isAtRest()) return;
            connection.lifecycle.abandon(&connection.transport, "aborted");
            connection.invariants();
        }

        /// Ends a refused upgrade without the rest of the response's body, which may be endless.
        pub fn skipBody(connection: *Connection) void {
            assert(connection.state() == .reading_body);
            const options = &connection.options;
            assert(options.purpose == .websocket);
            _ = connection.lifecycle.finishResponse(&connection.transport, options, false);
            connection.invariants();
        }

        // ---- Waiting. --------------------------------------------------------------------------

        // A loop (loop.zig) sleeps, for many connections at once. Before its sleep it calls, in
        // this order: `beginWait`, `interest`, `deadlineNs`; afterwards `noteReady` of those that
        // are ready.

        /// Call it before each wait: `next` may then read the socket again, up to
        /// `reads_per_turn_max` times.
        pub inline fn beginWait(connection: *Connection) void {
            connection.transport.read_budget = constants.reads_per_turn_max;
            connection.lookAround();
        }

        /// Does what has to be done from time to time, whatever the peer does: at most every
        /// 100 ms, so that another call only reads the counter.
        inline fn lookAround(connection: *Connection) void {
            if (connection.state() == .closed) return;
            if (connection.clock.refine()) connection.transport.reviewPeer();
            connection.transport.line.rate = connection.clock.rate();
        }

        /// What a loop waits for. Null when there is nothing to wait for: `next` has not been
        /// called yet, or the connection is over.
        pub inline fn interest(connection: *const Connection) ?types.Interest {
            if (connection.state() == .connecting) return connection.lifecycle.opening.interest();
            return connection.transport.interest();
        }

        /// When `next` has to be called even if nothing has happened (monotonic clock).
        pub inline fn deadlineNs(connection: *const Connection) ?u64 {
            return connection.lifecycle.deadlineNs();
        }

        /// Call it after the sleep, if the descriptor of `interest` is ready.
        pub inline fn noteReady(connection: *Connection, ready: os.Ready) void {
            if (connection.state() == .connecting) {
                return connection.lifecycle.opening.noteReady(ready);
            }
            connection.transport.noteReady(ready);
            connection.invariants();
        }

        /// What the loop's notifier remembers of the socket, or while connecting, of what
        /// the dialer waits for. The connection must not move while something is watched.
        pub inline fn watch(connection: *Connection) *Transport.Watch {
            return &connection.transport.link.watch;
        }

        pub inline fn ofWatch(watched: *Transport.Watch) *Connection {
            const link: *Transport.Link = @alignCast(@fieldParentPtr("watch", watched));
            const found: *Transport = @alignCast(@fieldParentPtr("link", link));
            return @alignCast(@fieldParentPtr("transport", found));
        }

        /// Finds the room for a busy wait. The wait itself must not: during it, other threads may
        /// release messages, which moves the front of the ring that it reads into.
        inline fn willWait(connection: *Connection) Event {
            if (connection.options.busy_poll) connection.transport.findSpinTarget();
            return .blocked;
        }

        /// Whether the loop busy polls this connection with `look` instead of sleeping.
        pub inline fn spins(connection: *const Connection) bool {
            return connection.options.busy_poll and connection.state() != .connecting;
        }

        /// One step of a busy wait: reads the socket once, into the room that `next` found before.
        /// True when `next` has something to do.
        pub inline fn look(connection: *Connection) bool {
            return connection.transport.look();
        }

        pub fn flushIfWaiting(connection: *Connection) void {
            connection.transport.flushIfWaiting();
        }

        /// Whether queued bytes wait until the socket is writable.
        pub fn wantsWrite(connection: *const Connection) bool {
            return connection.transport.wantsWrite();
        }

        /// After `ReceiveRingPinned`: blocks until other threads have undone pins, so that the
        /// owner can go on, and returns true; or for this long, and returns false.
        pub fn waitForRoom(connection: *Connection, limit_ns: u64) bool {
            return connection.transport.waitForRoom(limit_ns);
        }

        /// Lets `next` read the socket again, for an owner with an event loop of its own.
        pub fn beginTurn(connection: *Connection) void {
            connection.transport.beginTurn();
            connection.lookAround();
        }

        /// Whether `next` stopped because of `reads_per_turn_max`, with perhaps more to read.
        pub fn turnSpent(connection: *const Connection) bool {
            return connection.transport.read_budget == 0;
        }
    };
}
