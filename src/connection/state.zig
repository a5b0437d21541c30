//! The states of a connection and the moves between them, as one table.
//!
//!     idle ─▶ connecting ─▶ securing ─▶ requesting ─▶ open ─▶ closing ─▶ closed
//!                  └────────────────────▶ │ ▲           └───────────────────▶ ▲
//!                   (no TLS)              └─┼─▶ reading_body ─────────────────┘
//!
//! Every state before `closed` may also fail, which is a move to `closed`; where TLS has failed and
//! the peer is still to learn why, it is one to `closing`. A connection that has ended may be
//! started again.

const std = @import("std");
const assert = std.debug.assert;

pub const State = enum {
    /// Never started.
    idle,
    /// The name is being looked up, or TCP is being set up.
    connecting,
    /// TLS is being set up.
    securing,
    /// The HTTP request has been sent.
    requesting,
    /// The response is no upgrade: its body is being read.
    reading_body,
    /// Frames go both ways.
    open,
    /// CLOSE has been sent, or the alert of a TLS failure; the peer has not hung up yet.
    closing,
    /// Ended or failed.
    closed,

    /// Whether the connection is on its way to `open`, or to the end of a plain response.
    pub fn isOpening(state: State) bool {
        return switch (state) {
            .connecting, .securing, .requesting, .reading_body => true,
            .idle, .open, .closing, .closed => false,
        };
    }

    /// The stage of a connection that is not open yet, once its name has been looked up.
    pub fn stage(state: State) Stage {
        return switch (state) {
            .connecting => .connecting,
            .securing => .securing,
            .requesting => .requesting,
            .reading_body => .reading_body,
            .idle, .open, .closing, .closed => unreachable,
        };
    }
};

/// The stages of opening in which a connection can time out or end.
pub const Stage = enum { resolving, connecting, securing, requesting, reading_body };

const States = std.EnumSet(State);

/// Where a connection may go from each state.
const moves: std.EnumArray(State, States) = .init(.{
    .idle = .initMany(&.{.connecting}),
    .connecting = .initMany(&.{ .securing, .requesting, .closed }),
    .securing = .initMany(&.{ .requesting, .closing, .closed }),
    .requesting = .initMany(&.{ .reading_body, .open, .closing, .closed }),
    .reading_body = .initMany(&.{ .closing, .closed }),
    .open = .initMany(&.{ .closing, .closed }),
    .closing = .initMany(&.{.closed}),
    .closed = .initMany(&.{.connecting}),
});

pub fn isAllowed(from: State, to: State) bool {
    return moves.get(from).contains(to);
}

/// The state of a connection. Only `move` changes it.
pub const Machine = struct {
    state: State = .idle,

    /// Asserts that the table allows the move.
    pub inline fn move(machine: *Machine, to: State) void {
        assert(isAllowed(machine.state, to));
        machine.state = to;
    }
};

const testing = std.testing;

/// All states that can be reached from this one, in any number of moves.
fn reachable(from: State) States {
    var found: States = .empty;
    var left: std.ArrayList(State) = .empty;
    defer left.deinit(testing.allocator);
    left.append(testing.allocator, from) catch unreachable;
    while (left.pop()) |state| {
        var targets = moves.get(state).iterator();
        while (targets.next()) |target| {
            if (found.contains(target)) continue;
            found.insert(target);
            left.append(testing.allocator, target) catch unreachable;
        }
    }
    return found;
}

test "state: every state can be reached, and leads to closed and to a new start" {
    for (std.enums.values(State)) |state| {
        const after = reachable(state);
        try testing.expect(after.contains(.closed));
        try testing.expect(after.contains(.connecting));
        if (state != .idle) try testing.expect(reachable(.idle).contains(state));
    }
}

test "state: no move leads to idle or stays, and only idle and closed can be started" {
    for (std.enums.values(State)) |from| {
        try testing.expect(!isAllowed(from, .idle));
        try testing.expect(!isAllowed(from, from));
        const starts = isAllowed(from, .connecting);
        try testing.expectEqual(from == .idle or from == .closed, starts);
    }
}

test "state: only a response opens a connection, and only after TCP can there be a last word" {
    for (std.enums.values(State)) |from| {
        try testing.expectEqual(from == .requesting, isAllowed(from, .open));
        try testing.expectEqual(from == .requesting, isAllowed(from, .reading_body));
        const has_peer = switch (from) {
            .securing, .requesting, .reading_body, .open => true,
            .idle, .connecting, .closing, .closed => false,
        };
        try testing.expectEqual(has_peer, isAllowed(from, .closing));
        // Every state between the start and the end can fail.
        const can_end = from != .idle and from != .closed;
        try testing.expectEqual(can_end, isAllowed(from, .closed));
    }
}

test "state: TLS comes after TCP and before the request" {
    try testing.expect(isAllowed(.connecting, .securing));
    try testing.expect(isAllowed(.connecting, .requesting)); // ws:// has no TLS.
    try testing.expect(!isAllowed(.securing, .open));
    for (std.enums.values(State)) |from| {
        try testing.expectEqual(from == .connecting, isAllowed(from, .securing));
    }
}
