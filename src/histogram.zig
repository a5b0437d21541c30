//! A histogram of latencies: how long a stage took, at any percentile. A record costs a few ns.
//!
//! Log-linear, as HdrHistogram: every power of two is cut into 128 buckets of equal width, so the
//! bucket of a value is found by one count of leading zeros and one shift, and a reported value is
//! at most 1/128 (0.79 %) above the recorded one. Values below 256 have a bucket each. Values
//! from 2^40 ns on (18 minutes) share the last bucket; `min`, `max`, `sum` and `count` stay exact.
//!
//! Fixed size, no allocation, no clock, no locks: one thread records and reads. Another may take a
//! `snapshot`, and read that.
//!
//! Invariant: the buckets add up to `count`; `min <= max` unless nothing was recorded.

const std = @import("std");
const assert = std.debug.assert;

/// Counts of u64 values, by default nanoseconds: 34,864 bytes, so keep it in a struct that lives
/// on the heap rather than on the stack. Start with `.empty`.
pub const Histogram = struct {
    /// Number of recorded values.
    count: u64,
    /// Sum of the values: u128, because `maxInt(u64)` may be recorded more than once.
    sum: u128,
    /// Smallest value, exact; `maxInt(u64)` when nothing was recorded.
    min: u64,
    /// Largest value, exact; 0 when nothing was recorded.
    max: u64,
    // u64, not u32: a bucket that takes a million records a second would overflow 32 bits after 71
    // minutes. That costs only memory: a record touches two cache lines either way.
    buckets: [buckets_count]u64,

    /// Nothing recorded.
    pub const empty: Histogram = .{
        .count = 0,
        .sum = 0,
        .min = std.math.maxInt(u64),
        .max = 0,
        .buckets = @splat(0),
    };

    /// Counts one value. Any value is accepted.
    pub fn record(histogram: *Histogram, value: u64) void {
        histogram.count += 1;
        histogram.sum += value;
        histogram.min = @min(histogram.min, value);
        histogram.max = @max(histogram.max, value);
        histogram.buckets[bucketOf(value)] += 1;
    }

    /// A copy that may be taken while another thread records. It may lack a part of the newest
    /// record, but the invariants hold.
    pub fn snapshot(histogram: *const Histogram, copy: *Histogram) void {
        copy.* = .empty;
        for (&histogram.buckets, &copy.buckets) |*source, *target| {
            target.* = @atomicLoad(u64, source, .monotonic);
            copy.count += target.*;
        }
        if (copy.count == 0) return;
        copy.max = @atomicLoad(u64, &histogram.max, .monotonic);
        copy.min = @min(copy.max, @atomicLoad(u64, &histogram.min, .monotonic));
        copy.sum = histogram.sum;
    }

    /// Arithmetic mean of the values; 0 when nothing was recorded.
    pub fn mean(histogram: *const Histogram) f64 {
        if (histogram.count == 0) return 0;
        const sum: f64 = @floatFromInt(histogram.sum);
        const count: f64 = @floatFromInt(histogram.count);
        return sum / count;
    }

    /// The value at the nearest rank: the smallest recorded value that at least `p` percent of the
    /// values do not exceed, rounded up to the upper edge of its bucket (less than 1/128 above it)
    /// but never above `max`. Exact for the smallest (`p` = 0) and the largest (`p` = 100) value,
    /// and for any value below 256. In the last bucket (2^40 and above) it is `max`.
    /// 0 when nothing was recorded. Reads the buckets from the front: about a microsecond, not
    /// for the hot path. Asserts that `p` lies in 0 to 100.
    pub fn percentile(histogram: *const Histogram, p: f64) u64 {
        assert(p >= 0 and p <= 100);
        if (histogram.count == 0) return 0;

        const rank = rankOf(p, histogram.count);
        if (rank == 1) return histogram.min;

        var seen: u64 = 0;
        for (histogram.buckets, 0..) |records, bucket| {
            seen += records;
            if (seen < rank) continue;
            return std.math.clamp(upperEdge(bucket), histogram.min, histogram.max);
        }
        unreachable; // The buckets add up to `count`, and the rank is at most that.
    }

    /// Removes every record.
    pub fn reset(histogram: *Histogram) void {
        histogram.* = .empty;
    }
};

const sub_bucket_bits = 7;
const sub_buckets_count = 1 << sub_bucket_bits;
const value_clamped = 1 << 40;
pub const buckets_count = bucketOf(value_clamped) + 1;

/// Values of the same bit length share a shift, which leaves `sub_bucket_bits` bits below the
/// leading one; the sum continues where the range of the smaller shift ended. Below 256: no shift.
pub fn bucketOf(value: u64) usize {
    const clamped: u64 = @min(value, value_clamped);
    const shift: u6 = @intCast(63 - sub_bucket_bits - @clz(clamped | sub_buckets_count));
    return (@as(usize, shift) << sub_bucket_bits) + (clamped >> shift);
}

/// The largest value in `bucket`.
pub fn upperEdge(bucket: usize) u64 {
    assert(bucket < buckets_count);
    if (bucket == buckets_count - 1) return std.math.maxInt(u64);
    if (bucket < 2 * sub_buckets_count) return bucket;
    const shift: u6 = @intCast((bucket >> sub_bucket_bits) - 1);
    const lower: u64 = bucket - (@as(usize, shift) << sub_bucket_bits);
    return ((lower + 1) << shift) - 1;
}

/// Nearest rank, from 1: the `p`-th percentile of `count` sorted values is the value at this rank.
pub fn rankOf(p: f64, count: u64) u64 {
    assert(count > 0);
    if (p == 100) return count;
    const exact = p * @as(f64, @floatFromInt(count)) / 100;
    // 99.9 has no exact binary form: without a margin of two rounding errors, a rank that should be
    // a whole number could be one too high. It also keeps the rank within the count.
    const margin = 2 * std.math.floatEps(f64);
    const rank: u64 = @intFromFloat(@ceil(exact * (1 - margin)));
    assert(rank <= count);
    return @max(1, rank);
}

comptime {
    assert(buckets_count == 4353);
    assert(@sizeOf(Histogram) == 34_864);
    assert(100 < sub_buckets_count); // a relative error below 1 %
}
