//! What a loop remembers of a connection.

const std = @import("std");

/// Lies in the connection, so that a loop allocates nothing. All fields belong to the loop.
pub const Seat = struct {
    /// In the list of those that have to be asked, if `is_asked`.
    asked: std.DoublyLinkedList.Node = .{},
    is_asked: bool = false,
    /// In the list of those that busy poll, if `spins`.
    spin: std.DoublyLinkedList.Node = .{},
    spins: bool = false,
    /// In the loop's deadlines, if `deadline_ns` is not null.
    deadline: Deadlines.Node = undefined,
    deadline_ns: ?u64 = null,

    pub const Deadlines = std.Treap(DeadlineKey, DeadlineKey.order);

    /// The earliest first. The address only tells equal deadlines apart.
    pub const DeadlineKey = struct {
        ns: u64,
        address: usize,

        pub fn order(left: DeadlineKey, right: DeadlineKey) std.math.Order {
            const by_time = std.math.order(left.ns, right.ns);
            return if (by_time == .eq) std.math.order(left.address, right.address) else by_time;
        }
    };

    /// Whether it is in no list.
    pub fn isFree(seat: *const Seat) bool {
        return !seat.is_asked and !seat.spins and seat.deadline_ns == null;
    }
};
