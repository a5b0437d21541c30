//! Opens, closes and fails a connection: what all states but `open` do.
//!
//! `opening.zig` and `closing.zig` do the work of their states and return its result, which becomes
//! an event or the end of the connection here. `state.zig` has the moves between states.

const std = @import("std");
const assert = std.debug.assert;
const types = @import("types.zig");
const ws = @import("../ws.zig");
const ClosingType = @import("closing.zig").ClosingType;
const FillError = @import("transport.zig").FillError;
const Machine = @import("state.zig").Machine;
const OpeningType = @import("opening.zig").OpeningType;
const State = @import("state.zig").State;
const Step = @import("opening.zig").Step;
const TransportType = @import("transport.zig").TransportType;
const code_lost = @import("closing.zig").code_lost;

const Closed = types.Closed;
const Event = types.Event;
const Failure = types.Failure;
const NextError = types.NextError;
const Options = types.Options;

pub fn LifecycleType(comptime Os: type) type {
    return struct {
        const Lifecycle = @This();
        const Transport = TransportType(Os);

        machine: Machine = .{},
        opening: OpeningType(Os) = .{},
        closing: ClosingType(Os) = .{},

        pub inline fn invariants(lifecycle: *const Lifecycle, transport: *const Transport) void {
            if (!std.debug.runtime_safety) return;
            const state = lifecycle.machine.state;
            lifecycle.closing.invariants(state);
            transport.invariants();
            if (lifecycle.isAtRest()) {
                assert(transport.link.socket == null);
                assert(lifecycle.opening.dialer.isIdle());
            } else {
                assert(transport.receive_ring != null);
            }
            if (state != .connecting) assert(lifecycle.opening.dialer.isIdle());
            if (transport.compression != null) assert(state == .open or state == .closing);
        }

        /// Whether there is no connection: it was never started, or has ended.
        pub fn isAtRest(lifecycle: *const Lifecycle) bool {
            return switch (lifecycle.machine.state) {
                .idle, .closed => true,
                .connecting, .securing, .requesting, .reading_body, .open, .closing => false,
            };
        }

        /// Begins to look up the name; `next` goes on.
        pub fn begin(
            lifecycle: *Lifecycle,
            transport: *Transport,
            options: *const Options,
        ) error{Failed}!void {
            lifecycle.closing = .{};
            lifecycle.machine.move(.connecting);
            lifecycle.opening.begin(options) catch |err| {
                return lifecycle.fail(transport, .{ .resolve = err });
            };
        }

        /// The next event of a connection that is not open; `.blocked` when there is nothing to do
        /// without the kernel.
        pub fn next(
            lifecycle: *Lifecycle,
            transport: *Transport,
            options: *const Options,
            parser: *ws.Parser,
        ) NextError!Event {
            assert(lifecycle.machine.state != .idle);
            while (true) {
                if (lifecycle.isAtRest()) return error.Failed; // Nothing is lent any more.
                transport.takeBack(parser.take());
                const event = switch (lifecycle.machine.state) {
                    .connecting, .securing, .requesting, .reading_body => try lifecycle.open(
                        transport,
                        options,
                        parser,
                    ),
                    .closing => try lifecycle.awaitClose(transport, options, parser),
                    .idle, .closed => unreachable,
                    .open => unreachable, // The move to it returns `opened` from here.
                };
                if (event) |found| return found;
            }
        }

        /// Handles an error of `fill`. True when the caller should try again.
        pub fn recover(
            lifecycle: *Lifecycle,
            transport: *Transport,
            options: *const Options,
            parser: *ws.Parser,
            err: FillError,
        ) NextError!bool {
            @branchHint(.cold);
            return switch (err) {
                error.RingFull => makeRoom(transport, parser),
                error.StreamEnded => lifecycle.endOfStream(transport, options),
                error.TlsFailed => lifecycle.endOfRecords(transport, options),
            };
        }

        /// The receive ring is full. Removes headers and control frames between the fragments of a
        /// message; if that is not enough, the ring is full of bytes that the owner has pinned.
        fn makeRoom(transport: *Transport, parser: *ws.Parser) error{ReceiveRingPinned}!bool {
            const ring = transport.receive_ring.?;
            parser.compact(ring.readable());
            transport.takeBack(parser.take());
            if (ring.writable().len >= transport.room_needed) return true;
            transport.spin_target = &.{};
            transport.pinned_ring = ring;
            return error.ReceiveRingPinned;
        }

        /// When `next` has to be called even if nothing has happened (monotonic clock).
        pub fn deadlineNs(lifecycle: *const Lifecycle) ?u64 {
            return switch (lifecycle.machine.state) {
                .connecting => lifecycle.opening.dialer.address_deadline_ns,
                .securing, .requesting, .reading_body => lifecycle.opening.deadline_ns,
                .closing => lifecycle.closing.deadline_ns,
                .idle, .open, .closed => null,
            };
        }

        // ---- Before it is open. ----------------------------------------------------------------

        /// One step of opening. Null when the caller should go on with the next one.
        fn open(
            lifecycle: *Lifecycle,
            transport: *Transport,
            options: *const Options,
            parser: *ws.Parser,
        ) NextError!?Event {
            const machine = &lifecycle.machine;
            const step = lifecycle.opening.next(machine, transport, options) catch |err|
                switch (err) {
                    error.OutOfMemory => return error.OutOfMemory,
                    error.RingFull, error.StreamEnded, error.TlsFailed => |cause| {
                        _ = try lifecycle.recover(transport, options, parser, cause);
                        return null;
                    },
                };
            switch (step) {
                .advanced => return null,
                .blocked => {
                    const why = lifecycle.opening.whyOver(machine, transport, options) orelse
                        return .blocked;
                    return try lifecycle.afterStep(transport, options, parser, why);
                },
                else => return try lifecycle.afterStep(transport, options, parser, step),
            }
        }

        fn afterStep(
            lifecycle: *Lifecycle,
            transport: *Transport,
            options: *const Options,
            parser: *ws.Parser,
            step: Step,
        ) NextError!Event {
            switch (step) {
                .advanced, .blocked => unreachable,
                .opened => |opened| {
                    if (opened.agreement.compression) |agreement| {
                        try transport.beginCompression(options, agreement);
                        parser.* = .init(options.parserOptions(true));
                    }
                    transport.lent_size = opened.head.size;
                    lifecycle.machine.move(.open);
                    return .{ .opened = opened.head };
                },
                .response => |head| {
                    transport.lent_size = head.size;
                    return .{ .response = head };
                },
                .body => |body| {
                    transport.lent_size = body.lent_size;
                    return .{ .body = body.bytes };
                },
                .response_over => |over| {
                    return lifecycle.finishResponse(transport, options, over.complete);
                },
                .failed => |failure| return lifecycle.fail(transport, failure),
            }
        }

        /// Ends the connection after a plain response: the success of a GET, the failure of an
        /// upgrade.
        pub fn finishResponse(
            lifecycle: *Lifecycle,
            transport: *Transport,
            options: *const Options,
            complete: bool,
        ) Event {
            switch (options.purpose) {
                .get => lifecycle.finish(transport, .{ .code = 1000, .clean = true }),
                .websocket => {
                    lifecycle.closing.failure = .refused;
                    lifecycle.finish(transport, .{ .code = code_lost, .clean = false });
                },
            }
            return .{ .finished = .{ .complete = complete } };
        }

        // ---- Closing (RFC 6455, section 7). ----------------------------------------------------

        /// Begins the closing handshake; before the connection is open, ends it at once, because
        /// only WebSocket has CLOSE.
        pub fn close(
            lifecycle: *Lifecycle,
            transport: *Transport,
            options: *const Options,
            code: u16,
            reason: []const u8,
        ) void {
            switch (lifecycle.machine.state) {
                .idle, .closing, .closed => {},
                .connecting, .securing, .requesting, .reading_body => {
                    lifecycle.abandon(transport, "closed before it was open");
                },
                .open => lifecycle.beginClosing(transport, options, code, reason),
            }
        }

        /// Ends the connection at once, without a closing handshake.
        pub fn abandon(lifecycle: *Lifecycle, transport: *Transport, reason: []const u8) void {
            lifecycle.finish(transport, .{
                .code = code_lost, // RFC 6455, section 7.1.5: no CLOSE was received.
                .reason = reason,
                .clean = false,
                .local = true,
            });
        }

        fn beginClosing(
            lifecycle: *Lifecycle,
            transport: *Transport,
            options: *const Options,
            code: ?u16,
            reason: []const u8,
        ) void {
            const timeout_ns = options.close_timeout_ns;
            lifecycle.closing.begin(&lifecycle.machine, transport, timeout_ns, code, reason);
        }

        /// Answers the CLOSE of the peer with the same code. The connection is open.
        pub fn answerClose(
            lifecycle: *Lifecycle,
            transport: *Transport,
            options: *const Options,
            close_frame: ws.Parser.Close,
        ) void {
            lifecycle.closing.noteClose(transport, close_frame);
            lifecycle.beginClosing(transport, options, close_frame.code, "");
        }

        /// Fails the WebSocket connection (RFC 6455, section 7.1.7): sends CLOSE with the fitting
        /// code. The failure is reported once the peer has hung up or the time is over.
        pub fn failProtocol(
            lifecycle: *Lifecycle,
            transport: *Transport,
            options: *const Options,
            cause: ws.ParseError,
            oversize: ?ws.Parser.Oversize,
        ) void {
            const code = ws.closeCode(cause);
            lifecycle.closing.failProtocol(options, .{
                .cause = cause,
                .code = code,
                .oversize = oversize,
            });
            lifecycle.beginClosing(transport, options, code, "");
        }

        fn awaitClose(
            lifecycle: *Lifecycle,
            transport: *Transport,
            options: *const Options,
            parser: *ws.Parser,
        ) NextError!?Event {
            const closing = &lifecycle.closing;
            const is_over = closing.next(transport, options, parser) catch |err| {
                _ = try lifecycle.recover(transport, options, parser, err);
                return null;
            };
            if (!is_over and !closing.isLate()) return .blocked;
            if (closing.failure) |failure| return lifecycle.fail(transport, failure);
            const closed = closing.outcome(is_over);
            lifecycle.finish(transport, closed);
            return .{ .closed = closed };
        }

        // ---- Endings. --------------------------------------------------------------------------

        /// Handles the end of the stream, whose meaning depends on the state.
        fn endOfStream(
            lifecycle: *Lifecycle,
            transport: *Transport,
            options: *const Options,
        ) NextError!bool {
            const cause = transport.end.?;
            switch (cause) {
                .close_notify => lifecycle.closing.answerCloseNotify(transport),
                .eof, .receive, .send => {},
            }
            switch (lifecycle.machine.state) {
                .closing => return false,
                .reading_body => {
                    const is_secure = transport.link.isSecure();
                    lifecycle.opening.endBody(cause, is_secure) catch |err| {
                        switch (options.purpose) {
                            .get => return lifecycle.fail(transport, .{ .body = err }),
                            .websocket => {}, // Refused anyway; `readBody` reports that.
                        }
                    };
                    return true;
                },
                .open => {
                    const reason = cause.describeUnclosed();
                    const closed: Closed = .{ .code = code_lost, .reason = reason, .clean = false };
                    lifecycle.finish(transport, closed);
                    return lifecycle.fail(transport, .{ .closed = closed });
                },
                .connecting, .securing, .requesting => {
                    const stage = lifecycle.machine.state.stage();
                    const ended: Failure = .{ .ended = .{ .stage = stage, .cause = cause } };
                    return lifecycle.fail(transport, ended);
                },
                .idle, .closed => unreachable, // There is no stream.
            }
        }

        /// Handles a failure of TLS. It is not reported after the peer's CLOSE or an earlier
        /// failure: then the connection only waits for its end. If an alert tells the peer why, it
        /// is reported once the peer has hung up or the time is over.
        fn endOfRecords(
            lifecycle: *Lifecycle,
            transport: *Transport,
            options: *const Options,
        ) NextError!bool {
            if (lifecycle.closing.awaitsOnlyEnd()) {
                transport.discard_unopened = true;
                return false;
            }
            const tls = &transport.link.tls.?;
            const in_handshake = lifecycle.machine.state == .securing;
            const cause = tls.failure();
            const failure: Failure = .{ .tls = .{ .cause = cause, .in_handshake = in_handshake } };
            const is_told = transport.outbox.?.sendAlert(&transport.link);
            if (!is_told or transport.end != null) return lifecycle.fail(transport, failure);
            const close_by_ns = Os.monotonicNs() +| options.close_timeout_ns;
            const deadline_ns = if (lifecycle.machine.state.isOpening())
                @min(close_by_ns, lifecycle.opening.deadline_ns)
            else
                close_by_ns;
            const machine = &lifecycle.machine;
            lifecycle.closing.beginAfterAlert(machine, transport, failure, deadline_ns);
            return false;
        }

        fn fail(
            lifecycle: *Lifecycle,
            transport: *Transport,
            failure: Failure,
        ) error{Failed} {
            lifecycle.closing.failure = failure;
            if (lifecycle.machine.state != .closed) {
                lifecycle.finish(transport, lifecycle.closing.outcomeOf(failure));
            }
            return error.Failed;
        }

        /// Notes how the connection ended, and closes the socket.
        fn finish(lifecycle: *Lifecycle, transport: *Transport, closed: Closed) void {
            lifecycle.closing.closed = closed;
            lifecycle.machine.move(.closed);
            lifecycle.drop(transport);
        }

        /// Frees everything but the rings; how the connection ended can still be asked.
        pub fn drop(lifecycle: *Lifecycle, transport: *Transport) void {
            lifecycle.opening.dialer.deinit(&transport.link.watch);
            transport.drop();
        }
    };
}
