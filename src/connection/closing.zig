//! The end of a connection: the closing handshakes of WebSocket (RFC 6455, section 7) and of TLS
//! (close_notify, RFC 8446, section 6.1), and what is known of how it ended.
//!
//!     CLOSE sent ─▶ the peer's CLOSE ─▶ close_notify ─▶ FIN ─▶ the peer hangs up ─▶ closed
//!
//! The peer may be first. After its CLOSE everything is read and dropped until it hangs up: a
//! socket closed with bytes unread makes the kernel reset the connection, and then our own CLOSE
//! might be lost. All of that takes `close_timeout` at most.

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

/// RFC 6455, section 7.4.1: never sent, but reported.
const code_missing = 1005;
pub const code_lost = 1006;

pub fn ClosingType(comptime Os: type) type {
    return struct {
        const Closing = @This();
        const Transport = TransportType(Os);

        /// Why the connection failed; also set during its closing handshake.
        failure: ?Failure = null,
        /// How the connection ended, once it has, or the peer's CLOSE has come.
        closed: ?Closed = null,
        /// The code of our CLOSE.
        close_sent: ?u16 = null,
        close_received: bool = false,
        reason_buffer: [constants.control_payload_size_max]u8 = undefined,
        close_notify_sent: bool = false,
        send_side_shut: bool = false,
        /// When the peer has to have hung up, on the monotonic clock. Set with `close_sent`.
        deadline_ns: u64 = 0,

        pub inline fn invariants(closing: *const Closing, state: State) void {
            if (!std.debug.runtime_safety) return;
            if (state == .open) {
                assert(closing.close_sent == null);
                assert(closing.closed == null);
            }
            if (state == .closing) assert(closing.close_sent != null);
            if (state == .closed) assert(closing.closed != null);
            if (closing.close_received) assert(closing.closed.?.clean or state == .closed);
            if (closing.send_side_shut) assert(closing.close_sent != null);
        }

        /// Sends CLOSE, and from then on waits for the end. Without a code, the frame is empty.
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
            assert(outbox.reservation == null); // The owner finishes the frame first.
            machine.move(.closing);
            closing.close_sent = code orelse code_missing;
            closing.deadline_ns = Os.monotonicNs() +| timeout_ns;
            outbox.pong_pending = null;
            _ = outbox.sendControl(&transport.link, .close, payload[0..size]);
        }

        /// Notes the peer's CLOSE: from now on, only the end of the stream matters.
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
            transport.discards = true;
        }

        /// Whether only the end of the stream matters any more.
        pub fn isSettled(closing: *const Closing) bool {
            return closing.close_received or closing.failure != null;
        }

        /// Reads on until the peer has sent CLOSE and then hung up. True when it has, false when
        /// there is nothing more to read now.
        pub fn next(
            closing: *Closing,
            transport: *Transport,
            parser: *ws.Parser,
        ) FillError!bool {
            const ring = transport.receive_ring.?;
            while (transport.end == null) {
                ring.consume(parser.take());
                if (!closing.isSettled() and closing.parse(transport, parser)) continue;
                if (closing.isSettled()) {
                    ring.consume(ring.readable().len);
                    closing.shutSendSide(transport);
                }
                if (!try transport.fill()) return false;
            }
            return true;
        }

        /// True when a frame was found, of whatever kind, or bytes that are none.
        fn parse(
            closing: *Closing,
            transport: *Transport,
            parser: *ws.Parser,
        ) bool {
            const counters = &transport.counters;
            const bytes = transport.receive_ring.?.readable();
            if (bytes.len == 0) return false;
            const found = parser.next(bytes) catch |err| {
                const code = closing.close_sent.?;
                closing.failure = .{ .protocol = .{ .cause = err, .code = code } };
                return true; // No answer can come any more: all that is left is to hang up.
            };
            switch (found orelse return false) {
                .message, .compressed => counters.messages_dropped += 1,
                .ping => counters.pings += 1, // Behind our CLOSE there is no pong.
                .pong => counters.pongs += 1,
                .close => |close_frame| closing.noteClose(transport, close_frame),
            }
            return true;
        }

        /// Both CLOSE frames are through: sends close_notify once ours has gone out, then FIN once
        /// that has.
        fn shutSendSide(closing: *Closing, transport: *Transport) void {
            const outbox = &transport.outbox.?;
            const link = &transport.link;
            if (closing.send_side_shut or outbox.hasUnsent(link)) return;
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

        /// How the closing handshake has ended.
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
