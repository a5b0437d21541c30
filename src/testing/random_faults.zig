//! Decides by seed which scripted system calls fail, and with which error.
//!
//! Every kind of call has its own rate of failure, which is 0 in many seeds: otherwise a connection
//! would seldom get far. All errors of a call are equally likely; they are taken from the error set
//! of the interface, so that a new one is tried as soon as it exists.

const std = @import("std");
const os = @import("../os.zig");

const RandomFaults = @This();

random: std.Random,
/// How many of 1000 calls fail.
rates: std.EnumArray(Call, u16) = .initFill(0),
counts: std.EnumArray(Call, u32) = .initFill(0),
/// The error of the last receive that failed, except WouldBlock.
receive_failure: ?os.ReceiveError = null,

pub const Call = enum {
    /// To begin a look-up, and its answer.
    lookup,
    resolve,
    open,
    option,
    /// Kernel TLS: to attach it, or to give it keys.
    tls,
    connect,
    connect_result,
    map,
    notifier,
    watch,
    wait,
    /// A wait that a signal ends.
    interrupt,
    receive,
    /// A read of less than there is.
    receive_short,
    send,
    /// A send that takes less than it could.
    send_short,
};

pub fn init(random: std.Random) RandomFaults {
    var faults: RandomFaults = .{ .random = random };
    for (std.enums.values(Call)) |call| {
        const rates: []const u16 = switch (call) {
            // These end a connection: it should get far before that.
            .receive, .send => &.{ 0, 0, 5, 50 },
            .lookup, .resolve, .open, .option => &.{ 0, 0, 0, 200 },
            .tls, .connect, .connect_result => &.{ 0, 0, 0, 200 },
            .map, .notifier, .watch, .wait => &.{ 0, 0, 100, 300 },
            .interrupt, .receive_short, .send_short => &.{ 0, 100, 500 },
        };
        faults.rates.set(call, rates[random.uintLessThan(usize, rates.len)]);
    }
    return faults;
}

pub fn strikes(faults: *RandomFaults, call: Call) bool {
    const rate = faults.rates.get(call);
    if (rate == 0 or faults.random.uintLessThan(u16, 1000) >= rate) return false;
    faults.counts.getPtr(call).* += 1;
    return true;
}

/// One of the errors of a call; null when this call does not fail.
pub fn strike(faults: *RandomFaults, call: Call, comptime Error: type) ?Error {
    if (!faults.strikes(call)) return null;
    const names = @typeInfo(Error).error_set.error_names.?;
    const chosen = faults.random.uintLessThan(usize, names.len);
    inline for (names, 0..) |name, index| {
        if (index == chosen) return @field(Error, name);
    }
    unreachable;
}
