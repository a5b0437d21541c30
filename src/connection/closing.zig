//! The closing handshakes of WebSocket and TLS, and how a connection ended.
//!
//! See RFC 6455, section 7, and for close_notify RFC 8446, section 6.1.
//!
//!     CLOSE sent ─▶ the peer's CLOSE ─▶ close_notify ─▶ FIN ─▶ the peer hangs up ─▶ closed
//!
//! The peer may send CLOSE first. After its CLOSE everything is read and dropped until it hangs up:
//! closing a socket with unread bytes makes the kernel reset the connection, which might lose our
//! own CLOSE. All of that takes at most `close_timeout`.
//!
//! If TLS fails, our last word is an alert, and the same holds for it, in every state:
//!
//!     alert sent ─▶ FIN ─▶ the peer hangs up ─▶ closed
//!
//! But a kernel that cannot open a record gives nothing more to read: after FIN comes the end.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("../constants.zig");
const types = @import("types.zig");
const ws = @import("../ws.zig");
const FillError = @import("transport.zig").FillError;
const Machine = @import("state.zig").Machine;
const State = @import("state.zig").State;
const TransportType = @import("transport.zig").TransportType;

const Closed = types.Closed;
const Failure = types.Failure;

/// RFC 6455, section 7.4.1: reported when no code or no CLOSE came; never sent.
const code_missing = 1005;
pub const code_lost = 1006;

pub fn ClosingType(comptime Os: type) type {
    return struct {
        const Closing = @This();
        const Transport = TransportType(Os);

        /// Why the connection failed; set already during its closing handshake.
        failure: ?Failure = null,
        /// How the connection ended; null until it has ended or the peer's CLOSE has come.
        closed: ?Closed = null,
        /// The code of our CLOSE; null until it is sent, and if TLS fails first.
        close_sent: ?u16 = null,
        close_received: bool = false,
        reason_buffer: [constants.control_payload_size_max]u8 = undefined,
        /// How the peer broke the protocol. Static, or in `reason_buffer`.
        failure_text: []const u8 = "",
        close_notify_sent: bool = false,
        send_side_shut: bool = false,
        /// How long to wait for the peer to hang up (monotonic clock). Set in `closing`.
        deadline_ns: u64 = 0,

        pub inline fn invariants(closing: *const Closing, state: State) void {
            if (!std.debug.runtime_safety) return;
            if (state == .open) {
                assert(closing.close_sent == null);
                assert(closing.closed == null);
            }
            if (state == .closing) assert(closing.hasLastWord());
            if (state == .closed) assert(closing.closed != null);
            if (closing.close_received) assert(closing.closed.?.clean or state == .closed);
            if (closing.send_side_shut) assert(closing.hasLastWord());
        }

        /// Whether what ends the connection has been said, or queued.
        fn hasLastWord(closing: *const Closing) bool {
            return closing.close_sent != null or closing.failure.? == .tls;
        }

        /// Sends CLOSE and moves to `closing`. Without a code, the frame is empty.
        pub fn begin(
            closing: *Closing,
            machine: *Machine,
            transport: *Transport,
            timeout_ns: u64,
            code: ?u16,
            reason: []const u8,
        ) void {
            var payload: [constants.control_payload_size_max]u8 = undefined;
            var size: usize = 0;
            if (code) |value| {
                std.mem.writeInt(u16, payload[0..2], value, .big);
                @memcpy(payload[2..][0..reason.len], reason);
                size = 2 + reason.len;
            }
            const outbox = &transport.outbox.?;
            assert(outbox.reservation == null); // The caller has committed or cancelled it.
            machine.move(.closing);
            closing.close_sent = code orelse code_missing;
            closing.deadline_ns = Os.monotonicNs() +| timeout_ns;
            outbox.pong_pending = null;
            _ = outbox.sendControl(&transport.link, .close, payload[0..size]);
        }

        /// TLS has failed, and its alert is queued: moves to `closing`. All that arrives is dropped
        /// unopened.
        pub fn beginAfterAlert(
            closing: *Closing,
            machine: *Machine,
            transport: *Transport,
            failure: Failure,
            deadline_ns: u64,
        ) void {
            closing.failure = failure;
            if (machine.state != .closing) {
                machine.move(.closing);
                closing.deadline_ns = deadline_ns;
            }
            closing.close_notify_sent = true; // Nothing follows a fatal alert.
            transport.outbox.?.pong_pending = null;
            transport.discard_unopened = true;
        }

        /// Notes the peer's CLOSE. All that arrives after it is dropped.
        pub fn noteClose(
            closing: *Closing,
            transport: *Transport,
            close_frame: ws.Parser.Close,
        ) void {
            const reason = close_frame.reason;
            @memcpy(closing.reason_buffer[0..reason.len], reason);
            closing.close_received = true;
            closing.closed = .{
                .code = close_frame.code orelse code_missing,
                .reason = closing.reason_buffer[0..reason.len],
                .clean = true,
                .local = closing.close_sent != null,
            };
            transport.discard_received = true;
        }

        /// Whether all that arrives is dropped until the stream ends: the peer has sent CLOSE, or
        /// has broken the protocol.
        pub fn awaitsOnlyEnd(closing: *const Closing) bool {
            return closing.close_received or closing.failure != null;
        }

        /// Reads on until the peer has sent CLOSE and then hung up. True when it has, false when
        /// there is nothing more to read now.
        pub fn next(
            closing: *Closing,
            transport: *Transport,
            options: *const types.Options,
            parser: *ws.Parser,
        ) FillError!bool {
            const ring = transport.receive_ring.?;
            while (transport.end == null) {
                ring.consume(parser.take());
                if (transport.discard_unopened) {
                    closing.shutSendSide(transport);
                    if (!try transport.dropRead()) return false;
                    continue;
                }
                if (!closing.awaitsOnlyEnd() and closing.parse(transport, options, parser)) {
                    continue;
                }
                if (closing.awaitsOnlyEnd()) {
                    ring.consume(ring.readable().len);
                    closing.shutSendSide(transport);
                }
                if (!try transport.fill()) return false;
            }
            return true;
        }

        /// True when it has parsed a frame of any kind, or found a protocol error.
        fn parse(
            closing: *Closing,
            transport: *Transport,
            options: *const types.Options,
            parser: *ws.Parser,
        ) bool {
            const counters = &transport.counters;
            const bytes = transport.receive_ring.?.readable();
            if (bytes.len == 0) return false;
            const found = parser.next(bytes) catch |err| {
                closing.failProtocol(options, .{
                    .cause = err,
                    // Our CLOSE is sent already: no second one can tell the peer.
                    .code = code_lost,
                    .oversize = parser.oversize,
                });
                return true;
            };
            switch (found orelse return false) {
                .message, .compressed => counters.messages_dropped += 1,
                .ping => counters.pings += 1, // No pong: nothing may follow our CLOSE.
                .pong => counters.pongs += 1,
                .close => |close_frame| closing.noteClose(transport, close_frame),
            }
            return true;
        }

        /// After both CLOSE frames: sends close_notify once our CLOSE has gone out, then FIN once
        /// close_notify has. After an alert: sends FIN once it has gone out.
        fn shutSendSide(closing: *Closing, transport: *Transport) void {
            const outbox = &transport.outbox.?;
            const link = &transport.link;
            if (closing.send_side_shut) return;
            outbox.sendPending(link);
            if (outbox.hasUnsent(link)) return;
            if (link.isSecure() and !closing.close_notify_sent) {
                closing.close_notify_sent = true;
                outbox.sendCloseNotify(link);
                if (outbox.hasUnsent(link)) return;
            }
            closing.send_side_shut = true;
            link.socket.?.shutdownSend();
        }

        /// Each side sends close_notify before it closes its own direction (RFC 8446, section 6.1).
        pub fn answerCloseNotify(closing: *Closing, transport: *Transport) void {
            if (closing.close_notify_sent) return;
            transport.outbox.?.sendCloseNotify(&transport.link);
        }

        pub fn isLate(closing: *const Closing) bool {
            return Os.monotonicNs() >= closing.deadline_ns;
        }

        /// Notes that the peer has broken the protocol. All that it sends from now on is dropped.
        pub fn failProtocol(
            closing: *Closing,
            options: *const types.Options,
            failure: types.ProtocolFailure,
        ) void {
            closing.failure = .{ .protocol = failure };
            closing.failure_text = failure.describe(
                &closing.reason_buffer,
                options.message_size_max,
            );
        }

        /// How a connection ended that failed. After a protocol error the code is that of our
        /// CLOSE, so that it is the same wherever it is asked for.
        pub fn outcomeOf(closing: *const Closing, failure: Failure) Closed {
            return switch (failure) {
                .protocol => |protocol| .{
                    .code = protocol.code,
                    .reason = closing.failure_text,
                    .clean = false,
                    .local = true,
                },
                .tls => |tls| .{ .code = code_lost, .reason = tls.cause.reason, .clean = false },
                else => .{ .code = code_lost, .clean = false },
            };
        }

        /// How the closing handshake ended. `hung_up`: the stream ended, not the time.
        pub fn outcome(closing: *const Closing, hung_up: bool) Closed {
            return closing.closed orelse .{
                .code = code_lost,
                .reason = if (hung_up)
                    "the peer hung up without a close frame"
                else
                    "the peer did not answer the close frame in time",
                .clean = false,
                .local = true,
            };
        }
    };
}
