//! Tests of `histogram.zig`: against sorted arrays of random values, which is the definition of
//! nearest rank; and the edges.

const std = @import("std");
const histogram_module = @import("histogram.zig");
const Histogram = histogram_module.Histogram;
const buckets_count = histogram_module.buckets_count;
const bucketOf = histogram_module.bucketOf;
const upperEdge = histogram_module.upperEdge;
const rankOf = histogram_module.rankOf;

const testing = std.testing;

test "histogram: nothing recorded" {
    var histogram: Histogram = .empty;
    try testing.expectEqual(0, histogram.count);
    try testing.expectEqual(0, histogram.mean());
    for ([_]f64{ 0, 50, 100 }) |p| try testing.expectEqual(0, histogram.percentile(p));
    histogram.record(7);
    histogram.reset();
    try testing.expectEqualDeep(Histogram.empty, histogram);
}

test "histogram: a single value is exact at every percentile, also beyond the last bucket" {
    const values = [_]u64{
        0,             1,                 127,                      128,
        255,           256,               257,                      999,
        (1 << 40) - 1, 1 << 40,           (1 << 40) + 1,            1 << 63,
        1_000_000_007, (1 << 39) + 12345, std.math.maxInt(u64) - 1, std.math.maxInt(u64),
    };
    for (values) |value| {
        var histogram: Histogram = .empty;
        histogram.record(value);
        for ([_]f64{ 0, 1, 50, 99.999, 100 }) |p| {
            try testing.expectEqual(value, histogram.percentile(p));
        }
        try testing.expectEqual(value, histogram.min);
        try testing.expectEqual(value, histogram.max);
        try testing.expectEqual(value, histogram.sum);
        try testing.expectEqual(1, histogram.count);
        try testing.expectEqual(@as(f64, @floatFromInt(value)), histogram.mean());
    }
}

test "histogram: the buckets partition all values and none is wider than 1/128 of its values" {
    var lower: u64 = 0;
    for (0..buckets_count) |bucket| {
        const upper = upperEdge(bucket);
        try testing.expect(upper >= lower);
        try testing.expectEqual(bucket, bucketOf(lower));
        try testing.expectEqual(bucket, bucketOf(upper));
        if (bucket == buckets_count - 1) {
            try testing.expectEqual(1 << 40, lower);
            try testing.expectEqual(std.math.maxInt(u64), upper);
        } else {
            // The width less one is the largest error; the smallest value is the worst case.
            try testing.expect((upper - lower) * 128 <= lower);
            try testing.expectEqual(bucket + 1, bucketOf(upper + 1));
            lower = upper + 1;
        }
    }
}

test "histogram: percentiles agree with a sorted array, on random values of every magnitude" {
    const gpa = testing.allocator;
    const histogram = try gpa.create(Histogram);
    defer gpa.destroy(histogram);
    histogram.* = .empty;
    for (0..200) |seed| {
        var prng = std.Random.DefaultPrng.init(seed);
        const random = prng.random();
        const values = try gpa.alloc(u64, random.intRangeAtMost(usize, 1, 3000));
        defer gpa.free(values);

        histogram.reset();
        var sum: u128 = 0;
        const bits_max = random.intRangeAtMost(u6, 1, 40);
        for (values) |*value| {
            const bits = random.intRangeAtMost(u6, 0, bits_max);
            value.* = random.int(u64) & ((@as(u64, 1) << bits) - 1);
            sum += value.*;
            histogram.record(value.*);
        }
        std.mem.sort(u64, values, {}, std.sort.asc(u64));

        try testing.expectEqual(values.len, histogram.count);
        try testing.expectEqual(sum, histogram.sum);
        try testing.expectEqual(values[0], histogram.min);
        try testing.expectEqual(values[values.len - 1], histogram.max);
        try testing.expectEqual(values[0], histogram.percentile(0));
        try testing.expectEqual(values[values.len - 1], histogram.percentile(100));

        for ([_]u64{ 1, 100, 1000, 2500, 5000, 9000, 9900, 9990, 9999, 10_000 }) |hundredths| {
            const rank = std.math.divCeil(u64, hundredths * values.len, 10_000) catch unreachable;
            const expected = values[rank - 1];
            const actual = histogram.percentile(@as(f64, @floatFromInt(hundredths)) / 100);
            try testing.expect(actual >= expected);
            try testing.expect((actual - expected) * 128 <= expected);
            if (expected < 256) try testing.expectEqual(expected, actual);
        }
    }
}

test "histogram: the smallest and the largest of a bucket are exact" {
    var histogram: Histogram = .empty;
    for ([_]u64{ 1_000_000, 1_000_002, 1_000_001 }) |value| histogram.record(value);
    try testing.expectEqual(bucketOf(1_000_000), bucketOf(1_000_002));
    try testing.expectEqual(1_000_000, histogram.percentile(0));
    try testing.expectEqual(1_000_002, histogram.percentile(50));
    try testing.expectEqual(1_000_002, histogram.percentile(100));
    try testing.expectEqual(1_000_001, histogram.mean());
}

test "histogram: values beyond the range leave the percentiles below it as they are" {
    var histogram: Histogram = .empty;
    for (0..98) |_| histogram.record(1000);
    histogram.record(1 << 41);
    histogram.record(std.math.maxInt(u64));
    try testing.expectEqual(1003, histogram.percentile(98));
    try testing.expectEqual(std.math.maxInt(u64), histogram.percentile(99));
    try testing.expectEqual(std.math.maxInt(u64), histogram.percentile(100));
    try testing.expectEqual(98_000 + (1 << 41) + std.math.maxInt(u64), histogram.sum);
}

test "histogram: the rank of a whole number is not lifted by the rounding of a decimal fraction" {
    for (1..10_000) |hundredths| {
        const p = @as(f64, @floatFromInt(hundredths)) / 100;
        for ([_]u64{ 1, 3, 100, 1000, 9999, 10_000, 1_000_000, 7_000_000_000 }) |count| {
            const expected = std.math.divCeil(u64, hundredths * count, 10_000) catch unreachable;
            try testing.expectEqual(expected, rankOf(p, count));
        }
    }
    for ([_]u64{ 1, 1 << 53, (1 << 53) + 1, std.math.maxInt(u64) }) |count| {
        try testing.expectEqual(count, rankOf(100, count));
        try testing.expect(rankOf(std.math.nextAfter(f64, 100, 0), count) <= count);
        try testing.expectEqual(1, rankOf(0, count));
    }
}
