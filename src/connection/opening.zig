//! Opens a connection: name look-up, TCP, TLS, request and response.
//!
//!     dial ─▶ secure ─▶ request ─▶ response ─▶ 101: open
//!                                     └──────▶ anything else: its body, then over
//!
//! Holds what only opening needs, and moves the state from `connecting` up to `requesting` or
//! `reading_body`. It never waits: each call goes on as far as it can.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("../constants.zig");
const http = @import("../http.zig");
const os = @import("../os.zig");
const ssl = @import("../ssl.zig");
const types = @import("types.zig");
const ws = @import("../ws.zig");
const DialerType = @import("dialer.zig").DialerType;
const FillError = @import("transport.zig").FillError;
const LookupError = @import("../lookup.zig").Error;
const KernelTlsType = @import("kernel_tls.zig").KernelTlsType;
const Machine = @import("state.zig").Machine;
const TransportType = @import("transport.zig").TransportType;

const Failure = types.Failure;
const Options = types.Options;

/// The result of one step.
pub const Step = union(enum) {
    /// There is progress: call again.
    advanced,
    /// There is nothing more to do without the kernel.
    blocked,
    /// The server has agreed to the upgrade. The head is borrowed.
    opened: struct { head: http.Head, agreement: ws.handshake.Agreement },
    /// The head of a response that is no upgrade, borrowed.
    response: http.Head,
    /// Bytes of the body, borrowed, and how many bytes of the receive ring to free after them.
    body: struct { bytes: []const u8, lent_size: usize },
    /// The response is over; `complete` is false if a part of it is missing.
    response_over: struct { complete: bool },
    failed: Failure,
};

pub const Error = FillError || error{OutOfMemory};

pub fn OpeningType(comptime Os: type) type {
    return struct {
        const Opening = @This();
        const KernelTls = KernelTlsType(Os);
        const Transport = TransportType(Os);

        dialer: DialerType(Os) = .{},
        /// When opening times out (monotonic clock).
        deadline_ns: u64 = 0,
        handshake_key: ws.handshake.Key = undefined,
        /// The subprotocol that the server chose from those in the options. Borrowed from them.
        subprotocol: ?[]const u8 = null,
        interim_responses: u32 = 0,
        /// How many bytes have been searched for the end of the response head.
        head_searched: usize = 0,
        body: http.body.Decoder = undefined,
        /// TLS sessions of earlier connections to this server, which the next one can resume.
        tickets: ssl.Tickets = .{},

        /// Begins to look up the name.
        pub fn begin(opening: *Opening, options: *const Options) LookupError!void {
            opening.* = .{
                .deadline_ns = Os.monotonicNs() +| options.connect_timeout_ns,
                .tickets = opening.tickets,
            };
            const port = options.url.port;
            return opening.dialer.begin(options.host, port, opening.deadline_ns);
        }

        /// Goes on as far as it can without waiting.
        pub fn next(
            opening: *Opening,
            machine: *Machine,
            transport: *Transport,
            options: *const Options,
        ) Error!Step {
            return switch (machine.state) {
                .connecting => opening.dial(machine, transport, options),
                .securing => opening.secure(machine, transport, options),
                .requesting => opening.awaitResponse(machine, transport, options),
                .reading_body => opening.readBody(transport, options),
                .idle, .open, .closing, .closed => unreachable,
            };
        }

        // ---- Name and TCP. ---------------------------------------------------------------------

        fn dial(
            opening: *Opening,
            machine: *Machine,
            transport: *Transport,
            options: *const Options,
        ) Error!Step {
            const link = &transport.link;
            if (link.socket == null) { // Already connected if TLS ran out of memory last time.
                link.socket = switch (opening.dialer.next(options.socket, &link.watch)) {
                    .pending => return .blocked,
                    .failed => |failure| return .{ .failed = failure },
                    .connected => |socket| socket,
                };
            }
            transport.read_budget = constants.reads_per_turn_max;
            if (!options.url.scheme.isSecure()) {
                return opening.sendRequest(machine, transport, options);
            }
            try opening.beginTls(transport, options);
            machine.move(.securing);
            const tls = &link.tls.?;
            if (tls.wantsKernel()) try KernelTls.attach(&link.socket.?, tls);
            return .advanced;
        }

        /// What a loop waits for until TCP is set up. Null if `next` has something to do.
        pub inline fn interest(opening: *const Opening) ?types.Interest {
            return opening.dialer.interest();
        }

        pub inline fn noteReady(opening: *Opening, ready: os.Ready) void {
            opening.dialer.noteReady(ready);
        }

        /// The stage that opening has reached.
        fn stageOf(opening: *const Opening, machine: *const Machine) types.Stage {
            if (opening.dialer.lookup != null) return .resolving;
            return machine.state.stage();
        }

        // ---- TLS. ------------------------------------------------------------------------------

        fn beginTls(
            opening: *Opening,
            transport: *Transport,
            options: *const Options,
        ) error{OutOfMemory}!void {
            const link = &transport.link;
            link.tls = @as(ssl.Session, undefined);
            ssl.Session.init(&link.tls.?, options.tls.?, .{
                .server_name = options.server_name,
                .server_name_is_address = options.server_name_is_address,
                .engine = options.tls_engine,
                .tickets = &opening.tickets,
            }) catch |err| {
                link.tls = null;
                return switch (err) {
                    error.OutOfMemory => error.OutOfMemory,
                    error.TlsFailed => unreachable, // Nothing has been sent yet.
                };
            };
        }

        fn secure(
            opening: *Opening,
            machine: *Machine,
            transport: *Transport,
            options: *const Options,
        ) Error!Step {
            const received = transport.ciphertext_ring.?;
            const outbox = &transport.outbox.?;
            while (true) {
                const step = transport.link.tls.?.handshake(
                    received.readable(),
                    outbox.ciphertext.?.writable(),
                ) catch return error.TlsFailed;
                received.consume(step.received_used);
                outbox.sendSealed(&transport.link, step.to_send_size);
                switch (step.status) {
                    .done => return opening.sendRequest(machine, transport, options),
                    .needs_received => if (!try transport.receive(.user_space)) return .blocked,
                    .needs_room => return .blocked,
                    .closed => return transport.endStream(.close_notify),
                }
            }
        }

        // ---- The request. ----------------------------------------------------------------------

        fn sendRequest(
            opening: *Opening,
            machine: *Machine,
            transport: *Transport,
            options: *const Options,
        ) Step {
            const outbox = &transport.outbox.?;
            const place = outbox.contentPlace(&transport.link, constants.request_size_max);
            const size = opening.writeRequest(options, place) catch |err|
                return .{ .failed = .{ .request = err } };
            outbox.sendContent(&transport.link, place[0..size]);
            machine.move(.requesting);
            return .advanced;
        }

        fn writeRequest(
            opening: *Opening,
            options: *const Options,
            target: []u8,
        ) types.RequestError!usize {
            switch (options.purpose) {
                .websocket => {
                    var nonce: [ws.handshake.key_random_size]u8 = undefined;
                    Os.random(&nonce);
                    opening.handshake_key = ws.handshake.keyFrom(&nonce);
                    const request = options.upgradeRequest(&opening.handshake_key);
                    return ws.handshake.writeRequest(target, request);
                },
                .get => return http.request.write(target, .{
                    .url = &options.url,
                    .headers = options.headers,
                }),
            }
        }

        // ---- The response. ---------------------------------------------------------------------

        fn awaitResponse(
            opening: *Opening,
            machine: *Machine,
            transport: *Transport,
            options: *const Options,
        ) Error!Step {
            const bytes = transport.receive_ring.?.readable();
            const parsed = http.response.parseHead(bytes, &opening.head_searched) catch |err|
                return .{ .failed = .{ .response = err } };
            const head = parsed orelse return if (try transport.fill()) .advanced else .blocked;
            const switches = head.status == 101;
            if (head.status < 200 and !switches) return opening.skipInterim(transport, head.size);
            if (!try transport.handOverToKernel()) return .blocked;
            if (options.purpose == .websocket and switches) {
                const request = options.upgradeRequest(&opening.handshake_key);
                const agreement = ws.handshake.checkResponse(&head, request) catch |err|
                    return .{ .failed = .{ .upgrade = err } };
                opening.subprotocol = agreement.subprotocol;
                return .{ .opened = .{ .head = head, .agreement = agreement } };
            }
            opening.body = http.body.Decoder.init(&head, false) catch |err|
                switch (options.purpose) {
                    .get => return .{ .failed = .{ .body = err } },
                    .websocket => .none, // The upgrade is refused anyway; report the head alone.
                };
            machine.move(.reading_body);
            return .{ .response = head };
        }

        /// Skips a 1xx response: the final one follows it (RFC 9110, section 15.2).
        fn skipInterim(opening: *Opening, transport: *Transport, head_size: usize) Step {
            transport.receive_ring.?.consume(head_size);
            opening.head_searched = 0;
            opening.interim_responses += 1;
            if (opening.interim_responses <= constants.interim_responses_max) return .advanced;
            return .{ .failed = .too_many_interim_responses };
        }

        /// Reads the body of a plain response: the result of a GET, or of a refused upgrade.
        fn readBody(opening: *Opening, transport: *Transport, options: *const Options) Error!Step {
            const ring = transport.receive_ring.?;
            if (opening.body.isDone()) return .{ .response_over = .{ .complete = true } };
            const step = opening.body.next(ring.readable()) catch |err|
                return switch (options.purpose) {
                    .get => .{ .failed = .{ .body = err } },
                    .websocket => .{ .response_over = .{ .complete = false } },
                };
            if (step.body.len > 0) {
                return .{ .body = .{ .bytes = step.body, .lent_size = step.used } };
            }
            ring.consume(step.used);
            if (step.used > 0 or step.done) return .advanced;
            if (transport.end != null) return .{ .response_over = .{ .complete = false } };
            return if (try transport.fill()) .advanced else .blocked;
        }

        /// The stream has ended while the body was read: an error unless the body may end there.
        pub fn endBody(
            opening: *Opening,
            cause: types.StreamEnd,
            is_secure: bool,
        ) http.body.FinishError!void {
            if (cause.isTruncation(is_secure) and !opening.body.isDone()) return error.Truncated;
            return opening.body.finish();
        }

        // ---- Time. -----------------------------------------------------------------------------

        /// Whether waiting is useless, because sending failed or the time is over: then the last
        /// step. Null when the connection should wait.
        pub fn whyOver(
            opening: *const Opening,
            machine: *const Machine,
            transport: *const Transport,
            options: *const Options,
        ) ?Step {
            const stage = opening.stageOf(machine);
            if (sendFailure(machine, transport)) |cause| {
                return .{ .failed = .{ .ended = .{ .stage = stage, .cause = cause } } };
            }
            if (Os.monotonicNs() < opening.deadline_ns) return null;
            if (stage == .reading_body) return switch (options.purpose) {
                .websocket => .{ .response_over = .{ .complete = false } }, // Refused anyway.
                .get => .{ .failed = .{ .timed_out = .reading_body } },
            };
            // Late data counts, but a flooding peer cannot extend the deadline of a body.
            if (transport.read_budget == 0) return null;
            return .{ .failed = .{ .timed_out = stage } };
        }

        /// A send error that no read will report, and after which the peer will never answer.
        fn sendFailure(
            machine: *const Machine,
            transport: *const Transport,
        ) ?types.StreamEnd {
            switch (machine.state) {
                .securing, .requesting => {},
                .idle, .connecting, .reading_body, .open, .closing, .closed => return null,
            }
            return switch (transport.outbox.?.failure orelse return null) {
                error.AccessDenied, error.OutOfMemory, error.Unexpected => |cause| .{
                    .send = cause,
                },
                error.WouldBlock => unreachable, // Never noted as a failure.
                error.BrokenPipe,
                error.ConnectionReset,
                error.TimedOut,
                error.NetworkUnreachable,
                error.HostUnreachable,
                => null,
            };
        }
    };
}
