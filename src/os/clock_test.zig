//! Tests of `clock.zig` on a machine whose counter and clocks are what the test says.

const std = @import("std");
const clock_module = @import("clock.zig");
const RateSource = clock_module.RateSource;
const ClockType = clock_module.ClockType;
const brackets = clock_module.brackets;

const testing = std.testing;

/// A machine whose counter and clocks are what the test says.
const ScriptedOs = struct {
    var counter: u64 = 0;
    var monotonic_ns: u64 = 0;
    var frequency: ?u64 = null;
    /// What the next reads of the monotonic clock cost, in cycles.
    var costs: []const u64 = &.{};
    /// Time that passes with every read of the monotonic clock, at three cycles a nanosecond.
    var read_ns: u64 = 0;

    pub fn cycles() u64 {
        return counter;
    }
    pub fn counterFrequency() ?u64 {
        return frequency;
    }
    pub fn monotonicNs() u64 {
        if (costs.len > 0) {
            counter += costs[0];
            costs = costs[1..];
        }
        pass(read_ns, 3);
        return monotonic_ns;
    }
    fn reset() void {
        counter = 1_000_000;
        monotonic_ns = 5_000;
        frequency = null;
        read_ns = 0;
    }
    /// Sleeps: the counter goes on, the monotonic clock does not.
    fn sleep(ns: u64) void {
        counter += ns * 3;
    }
    /// Lets a tenth of a second pass, or nearly: the counter has a frequency, and is off by so many
    /// ticks.
    fn passTicks(frequency_hz: u64, ticks_off: i64) void {
        monotonic_ns += 100 * std.time.ns_per_ms;
        counter += frequency_hz / 10 +% @as(u64, @bitCast(ticks_off));
    }
    /// Lets time pass.
    fn pass(ns: u64, cycles_per_ns: u64) void {
        counter += ns * cycles_per_ns;
        monotonic_ns += ns;
    }
};

/// A clock at three cycles a nanosecond.
fn scriptedClock() ClockType(ScriptedOs) {
    ScriptedOs.reset();
    var clock: ClockType(ScriptedOs) = .init();
    ScriptedOs.pass(20 * std.time.ns_per_ms, 3);
    clock.calibrate();
    return clock;
}

test "clock: an anchor is the middle of the tightest bracket" {
    ScriptedOs.reset();
    const start = ScriptedOs.counter;
    ScriptedOs.costs = &.{ 5_000, 300, 90_000, 100, 200, 400, 200, 600 };
    try testing.expectEqual(@as(usize, brackets), ScriptedOs.costs.len);
    const clock: ClockType(ScriptedOs) = .init();
    try testing.expectEqual(start + 5_000 + 300 + 90_000 + 50, clock.first.cycles);
}

test "clock: converts by the ratio of two anchors, without overflow for years of cycles" {
    const clock = scriptedClock();
    try testing.expectApproxEqRel(3.0, clock.cyclesPerNs(), 1e-9);
    try testing.expectEqual(@as(u64, 0), clock.nanoseconds(0));
    try testing.expectApproxEqAbs(1e9, @as(f64, @floatFromInt(clock.nanoseconds(3e9))), 1);
    const year_ns = 365 * 24 * 3600 * std.time.ns_per_s;
    const converted: f64 = @floatFromInt(clock.nanoseconds(3 * year_ns));
    try testing.expectApproxEqRel(@as(f64, year_ns), converted, 1e-9);
}

test "clock: a counter slower than a nanosecond, as CNTVCT at 24 MHz" {
    ScriptedOs.reset();
    var clock: ClockType(ScriptedOs) = .init();
    ScriptedOs.counter += 24_000_000;
    ScriptedOs.monotonic_ns += std.time.ns_per_s;
    clock.calibrate();
    try testing.expectApproxEqRel(0.024, clock.cyclesPerNs(), 1e-9);
    try testing.expectEqual(@as(u64, 41), clock.nanoseconds(1));
}

/// The frequencies that machines are known to have: Raspberry Pi 3, Apple and Pi 4 (54 MHz), qemu,
/// Graviton 2, Graviton 3 and later.
const frequencies = [_]u64{ 19_200_000, 24_000_000, 54_000_000, 62_500_000, 121_875_000, 1e9 };

test "clock: what the CPU tells of its counter is the ratio, exact for years, if it is borne out" {
    for (frequencies) |frequency| {
        for ([_]i64{ -100, -1, 0, 1, 100 }) |ticks_off| {
            ScriptedOs.reset();
            ScriptedOs.frequency = frequency;
            var clock: ClockType(ScriptedOs) = .init();
            ScriptedOs.passTicks(frequency, ticks_off);
            clock.calibrate();
            try testing.expectEqual(RateSource.register, clock.source);
            // A tick is cut to whole nanoseconds, never rounded up; many ticks are cut once.
            for ([_]u64{ 0, 1, 2, 3, 1000, frequency, 3600 * frequency }) |ticks| {
                const exact = @as(u128, ticks) * std.time.ns_per_s / frequency;
                const found = clock.nanoseconds(ticks);
                try testing.expect(found <= exact and found + 1 >= exact);
            }
            const year_s = 365 * 24 * 3600;
            const year_ns: u64 = year_s * std.time.ns_per_s;
            const found = clock.nanoseconds(year_s * frequency);
            try testing.expect(found <= year_ns and found + 200 >= year_ns);
            try testing.expectApproxEqRel(
                @as(f64, @floatFromInt(frequency)) / std.time.ns_per_s,
                clock.cyclesPerNs(),
                1e-12,
            );
        }
    }
}

test "clock: a wrong frequency register is noticed, and the measured ratio is used" {
    const real = 24_000_000;
    for ([_]u64{ 0, 1, 1_000, 23_000_000, 25_000_000, 1e9, std.math.maxInt(u64) }) |told| {
        ScriptedOs.reset();
        ScriptedOs.frequency = told;
        var clock: ClockType(ScriptedOs) = .init();
        ScriptedOs.passTicks(real, 0);
        clock.calibrate();
        try testing.expectEqual(RateSource.measured_register_wrong, clock.source);
        try testing.expectApproxEqRel(0.024, clock.cyclesPerNs(), 1e-9);
    }
}

test "clock: a counter that changes its rate is measured, whatever the register says" {
    ScriptedOs.reset();
    ScriptedOs.frequency = 24_000_000;
    var clock: ClockType(ScriptedOs) = .init();
    ScriptedOs.passTicks(24_000_000, 0);
    clock.calibrate();
    try testing.expectEqual(RateSource.register, clock.source);
    // A virtual machine that moved: the new counter is four times as fast.
    for (0..4) |_| {
        ScriptedOs.passTicks(100_000_000, 0);
        ScriptedOs.passTicks(100_000_000, 0);
        _ = clock.refine();
    }
    try testing.expectEqual(RateSource.measured_register_wrong, clock.source);
    try testing.expectApproxEqRel(0.1, clock.cyclesPerNs(), 1e-9);
}

test "clock: times are exact to a tick of a slow counter" {
    ScriptedOs.reset();
    ScriptedOs.frequency = 24_000_000;
    var clock: ClockType(ScriptedOs) = .init();
    ScriptedOs.passTicks(24_000_000, 0);
    clock.calibrate();
    const tick_ns = 42;
    var random: std.Random.DefaultPrng = .init(24);
    for (0..1000) |_| {
        const ticks = random.random().uintAtMost(u64, 24_000_000);
        const expected_ns = ticks * std.time.ns_per_s / 24_000_000;
        const found_ns = clock.nanoseconds(ticks);
        try testing.expect(@max(found_ns, expected_ns) - @min(found_ns, expected_ns) <= tick_ns);
    }
}

test "clock: a clock that stands still counts a cycle as a nanosecond" {
    ScriptedOs.reset();
    var clock: ClockType(ScriptedOs) = .init();
    clock.calibrate();
    try testing.expectEqual(@as(u64, 12_345), clock.nanoseconds(12_345));
}

test "clock: refine moves the later anchor, and only after 100 ms" {
    var clock = scriptedClock();
    const anchor = clock.last;
    ScriptedOs.pass(99 * std.time.ns_per_ms, 3);
    _ = clock.refine();
    try testing.expectEqual(anchor, clock.last);
    ScriptedOs.pass(2 * std.time.ns_per_ms, 3);
    _ = clock.refine();
    try testing.expectEqual(ScriptedOs.counter, clock.last.cycles);
    try testing.expectEqual(@as(i64, @intCast(ScriptedOs.monotonic_ns)), clock.last.ns);
}

test "clock: a ratio that jumps is measured anew, a counter that goes back too" {
    var clock = scriptedClock();
    ScriptedOs.pass(200 * std.time.ns_per_ms, 2);
    _ = clock.refine();
    try testing.expectApproxEqRel(3.0, clock.cyclesPerNs(), 1e-9);
    try testing.expectEqual(ScriptedOs.counter, clock.first.cycles);
    ScriptedOs.pass(200 * std.time.ns_per_ms, 2);
    _ = clock.refine();
    try testing.expectApproxEqRel(2.0, clock.cyclesPerNs(), 1e-9);

    ScriptedOs.counter = 7;
    _ = clock.refine();
    try testing.expectEqual(@as(u64, 7), clock.first.cycles);
    ScriptedOs.pass(200 * std.time.ns_per_ms, 4);
    _ = clock.refine();
    try testing.expectApproxEqRel(4.0, clock.cyclesPerNs(), 1e-9);
}

test "clock: a sleep is seen that is short beside the base line, and of which no clock has passed" {
    var clock = scriptedClock();
    for (0..600) |_| {
        ScriptedOs.pass(60 * std.time.ns_per_s, 3);
        _ = clock.refine();
    }
    const ratio_before = clock.multiplier;
    for ([_]u64{ 0, std.time.ns_per_s }) |awake_ns| {
        ScriptedOs.sleep(180 * std.time.ns_per_s);
        ScriptedOs.pass(awake_ns, 3);
        _ = clock.refine();
        try testing.expectEqual(ScriptedOs.counter, clock.first.cycles);
        try testing.expectEqual(ratio_before, clock.multiplier);
        try testing.expectEqual(ScriptedOs.counter, clock.last.cycles);
        try testing.expectEqual(@as(i64, @intCast(ScriptedOs.monotonic_ns)), clock.last.ns);
        ScriptedOs.pass(200 * std.time.ns_per_ms, 3);
        _ = clock.refine();
        try testing.expectApproxEqRel(3.0, clock.cyclesPerNs(), 1e-9);
    }
}

test "clock: a sleep before the first fit, or between two, is in none of them" {
    ScriptedOs.reset();
    ScriptedOs.read_ns = 100;
    var clock: ClockType(ScriptedOs) = .init();
    ScriptedOs.pass(10 * std.time.ns_per_s, 3);
    ScriptedOs.sleep(8 * 3600 * std.time.ns_per_s);
    clock.calibrate();
    try testing.expectApproxEqRel(3.0, clock.cyclesPerNs(), 1e-3);

    ScriptedOs.sleep(std.time.ns_per_s);
    _ = clock.refine();
    try testing.expect(!clock.settled);
    ScriptedOs.pass(200 * std.time.ns_per_ms, 3);
    ScriptedOs.sleep(8 * 3600 * std.time.ns_per_s);
    _ = clock.refine();
    try testing.expectApproxEqRel(3.0, clock.cyclesPerNs(), 1e-3);
    ScriptedOs.pass(200 * std.time.ns_per_ms, 3);
    _ = clock.refine();
    try testing.expect(clock.settled);
    try testing.expectApproxEqRel(3.0, clock.cyclesPerNs(), 1e-3);
}

test "clock: a counter that goes back before the first fit" {
    ScriptedOs.reset();
    ScriptedOs.read_ns = 100;
    var clock: ClockType(ScriptedOs) = .init();
    ScriptedOs.pass(std.time.ns_per_s, 3);
    ScriptedOs.counter = 7;
    clock.calibrate();
    try testing.expectApproxEqRel(3.0, clock.cyclesPerNs(), 1e-3);
}
