//! Histograms of how long a message takes, from the kernel to the callback.

const std = @import("std");
const Histogram = @import("../histogram.zig").Histogram;
const Stamps = @import("../delivery.zig").Stamps;

pub const Latency = struct {
    /// From the kernel's stamp to the return of the read.
    kernel: Histogram = .empty,
    /// From the return of the read to the open record.
    decrypt: Histogram = .empty,
    /// From the open record to the callback.
    deliver: Histogram = .empty,
    /// From the kernel's stamp (or the return of the read, without a stamp) to the callback.
    total: Histogram = .empty,

    /// Takes a few nanoseconds a stage.
    pub fn record(latency: *Latency, stamps: *const Stamps, rate: anytype) void {
        const decrypt_ns = elapsed(rate, stamps.received_cycles, stamps.decrypted_cycles);
        const deliver_ns = elapsed(rate, stamps.decrypted_cycles, stamps.delivered_cycles);
        latency.decrypt.record(decrypt_ns);
        latency.deliver.record(deliver_ns);
        var total_ns = decrypt_ns + deliver_ns;
        if (stamps.kernel_ns != 0) {
            // The wall clock may have been set back in between.
            const kernel_ns: u64 = @intCast(@max(stamps.received_ns - stamps.kernel_ns, 0));
            latency.kernel.record(kernel_ns);
            total_ns += kernel_ns;
        }
        latency.total.record(total_ns);
    }

    fn elapsed(rate: anytype, from_cycles: u64, to_cycles: u64) u64 {
        return rate.nanoseconds(to_cycles -| from_cycles);
    }
};

test "latency: each stage gets its share" {
    const Clock = struct {
        fn nanoseconds(_: @This(), cycles: u64) u64 {
            return cycles / 2;
        }
    };
    var latency: Latency = .{};
    latency.record(&.{
        .kernel_ns = 1_000,
        .received_ns = 1_030,
        .received_cycles = 100,
        .decrypted_cycles = 140,
        .delivered_cycles = 160,
    }, Clock{});
    try std.testing.expectEqual(@as(u64, 30), latency.kernel.max);
    try std.testing.expectEqual(@as(u64, 20), latency.decrypt.max);
    try std.testing.expectEqual(@as(u64, 10), latency.deliver.max);
    try std.testing.expectEqual(@as(u64, 60), latency.total.max);
}

test "latency: without a kernel stamp the total begins at the read" {
    const Clock = struct {
        fn nanoseconds(_: @This(), cycles: u64) u64 {
            return cycles;
        }
    };
    var latency: Latency = .{};
    latency.record(&.{
        .received_ns = 1_030,
        .received_cycles = 100,
        .decrypted_cycles = 140,
        .delivered_cycles = 160,
    }, Clock{});
    try std.testing.expectEqual(@as(u64, 0), latency.kernel.count);
    try std.testing.expectEqual(@as(u64, 60), latency.total.max);
}
