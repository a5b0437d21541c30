//! Histograms of how long a message takes, from the kernel to the callback.

const std = @import("std");
const Histogram = @import("../histogram.zig").Histogram;
const Line = @import("../delivery.zig").Line;
const Stamps = @import("../delivery.zig").Stamps;

pub const Latency = struct {
    /// From the kernel's stamp to the return of the read.
    kernel: Histogram = .empty,
    /// From there until the turn of the message's last TLS record comes: those in front of it in
    /// the same read are opened before, and their messages delivered.
    wait: Histogram = .empty,
    /// From there to the open record.
    decrypt: Histogram = .empty,
    /// From the open record to the callback, with the callbacks of the messages in front of it in
    /// the same record (without TLS: in the same read).
    deliver: Histogram = .empty,
    /// From the kernel's stamp (or the return of the read, without a stamp) to the callback.
    total: Histogram = .empty,
    /// How many values of `kernel` are lower bounds: a read has one stamp, that of its last byte,
    /// and messages with more behind them in the read may have arrived earlier.
    kernel_lower_bounds: u64 = 0,
    /// How many values of `total` are: those, and all without a stamp.
    total_lower_bounds: u64 = 0,

    /// For the message of the line that is about to be delivered. `newest_turn_cycles` is the turn
    /// of its record; a moment before the read, if it has none. Takes a few nanoseconds a stage.
    pub fn record(
        latency: *Latency,
        line: *const Line,
        newest_turn_cycles: u64,
        stamp_exact: bool,
    ) void {
        const stamps = &line.stamps;
        const turn_cycles = @max(newest_turn_cycles, stamps.received_cycles);
        const wait_ns = elapsed(line, stamps.received_cycles, turn_cycles);
        const decrypt_ns = elapsed(line, turn_cycles, stamps.decrypted_cycles);
        const deliver_ns = elapsed(line, stamps.decrypted_cycles, stamps.delivered_cycles);
        latency.wait.record(wait_ns);
        latency.decrypt.record(decrypt_ns);
        latency.deliver.record(deliver_ns);
        var total_ns = wait_ns + decrypt_ns + deliver_ns;
        if (stamps.kernel_ns != 0) {
            // The wall clock may have been set back in between.
            const kernel_ns: u64 = @intCast(@max(stamps.received_ns - stamps.kernel_ns, 0));
            latency.kernel.record(kernel_ns);
            latency.kernel_lower_bounds += @intFromBool(!stamp_exact);
            total_ns += kernel_ns;
        }
        latency.total.record(total_ns);
        latency.total_lower_bounds += @intFromBool(!stamp_exact);
    }

    fn elapsed(line: *const Line, from_cycles: u64, to_cycles: u64) u64 {
        return line.rate.nanoseconds(to_cycles -| from_cycles);
    }
};

fn lineOf(stamps: Stamps, cycles_per_ns: u64) Line {
    return .{
        .stamps = stamps,
        .rate = .{ .multiplier = (1 << 48) / cycles_per_ns },
        .hasMoreFn = undefined,
        .isStampExactFn = undefined,
    };
}

test "latency: each stage gets its share" {
    var latency: Latency = .{};
    const line = lineOf(.{
        .kernel_ns = 1_000,
        .received_ns = 1_030,
        .received_cycles = 100,
        .decrypted_cycles = 140,
        .delivered_cycles = 160,
    }, 2);
    latency.record(&line, 116, true);
    try std.testing.expectEqual(@as(u64, 30), latency.kernel.max);
    try std.testing.expectEqual(@as(u64, 8), latency.wait.max);
    try std.testing.expectEqual(@as(u64, 12), latency.decrypt.max);
    try std.testing.expectEqual(@as(u64, 10), latency.deliver.max);
    try std.testing.expectEqual(@as(u64, 60), latency.total.max);
}

test "latency: without a kernel stamp the total begins at the read" {
    var latency: Latency = .{};
    const line = lineOf(.{
        .received_ns = 1_030,
        .received_cycles = 100,
        .decrypted_cycles = 140,
        .delivered_cycles = 160,
    }, 1);
    latency.record(&line, 0, false);
    try std.testing.expectEqual(@as(u64, 0), latency.kernel.count);
    try std.testing.expectEqual(@as(u64, 0), latency.kernel_lower_bounds);
    try std.testing.expectEqual(@as(u64, 60), latency.total.max);
    try std.testing.expectEqual(@as(u64, 1), latency.total_lower_bounds);
}

test "latency: what only has a lower bound is counted" {
    var latency: Latency = .{};
    const line = lineOf(.{ .kernel_ns = 1_000, .received_ns = 1_030 }, 1);
    for ([_]bool{ false, false, true }) |stamp_exact| latency.record(&line, 0, stamp_exact);
    try std.testing.expectEqual(@as(u64, 3), latency.kernel.count);
    try std.testing.expectEqual(@as(u64, 2), latency.kernel_lower_bounds);
    try std.testing.expectEqual(@as(u64, 2), latency.total_lower_bounds);
}
