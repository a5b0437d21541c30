//! From CPU cycles to nanoseconds, by two anchors and one multiplication.
//!
//! Design: an anchor is one moment read on two clocks, cycles and nanoseconds, taken several times
//! and kept where the reads lie closest together. Two anchors give the ratio; the further apart,
//! the better, so that `refine` moves only the later one. The counters run at a constant rate
//! (invariant TSC, CNTVCT); when the ratio jumps nevertheless (a moved virtual machine, a suspended
//! laptop), the earlier anchor is dropped and the measurement starts again. On macOS the CPU's
//! counter is read directly; mach_absolute_time(3) would be a call, and leaves out the time asleep.
//! Where the CPU tells the frequency (CNTFRQ on Arm), the ratio comes from that, exact from the
//! start, as long as the anchors confirm it: some firmware sets it wrongly, and then the measured
//! ratio is used. No sleep, no system call beyond the vDSO's clock.
//!
//! Invariant: first.cycles <= last.cycles.

const std = @import("std");
const assert = std.debug.assert;

/// Where the ratio of a clock comes from.
pub const RateSource = enum {
    /// From two anchors: the CPU does not tell.
    measured,
    /// The CPU's register, which the anchors confirm.
    register,
    /// From two anchors, because the CPU's register says something else.
    measured_register_wrong,
};

/// How long a cycle of the counter takes.
pub const Rate = struct {
    /// Nanoseconds a cycle, in units of 2^-multiplier_shift; 0 when it is not known yet.
    multiplier: u64 = 0,

    /// How long that many cycles take. Asserts that the rate is known.
    pub inline fn nanoseconds(rate: Rate, cycles_delta: u64) u64 {
        assert(rate.multiplier != 0);
        return @truncate((@as(u128, cycles_delta) * rate.multiplier) >> multiplier_shift);
    }
};

/// `Os` needs `cycles`, `counterFrequency` and `monotonicNs`.
pub fn ClockType(comptime Os: type) type {
    return struct {
        /// The earlier end of the base line, on the monotonic clock.
        first: Anchor,
        /// The later end.
        last: Anchor,
        /// Nanoseconds a cycle, in units of 2^-multiplier_shift; 0 before the first fit.
        multiplier: u64,
        /// Whether `multiplier` is good enough to check the next measurement against.
        settled: bool,
        /// Where `multiplier` comes from, once it is not 0.
        source: RateSource,

        const Clock = @This();

        /// One moment on two clocks.
        const Anchor = struct { cycles: u64, ns: i64 };

        /// Takes the first anchor. Nothing can be converted before `calibrate`.
        pub fn init() Clock {
            const anchor = takeAnchor();
            return .{
                .first = anchor,
                .last = anchor,
                .multiplier = 0,
                .settled = false,
                .source = .measured,
            };
        }

        /// Waits until the anchors lie far enough apart, and fits. Spins for 11 ms at most the
        /// first time, for 22 if the machine has slept since `init`; does what `refine` does later.
        /// Off the hot path.
        pub fn calibrate(clock: *Clock) void {
            if (clock.multiplier != 0) {
                _ = clock.refine();
                return;
            }
            for (0..2) |_| { // Twice: a sleep since the first anchor makes the first try fail.
                spinUntil(clock.first.ns + base_line_ns_min);
                clock.refit();
                if (clock.multiplier != 0) return;
            }
            // A clock that stands still: a cycle is a nanosecond.
            clock.multiplier = 1 << multiplier_shift;
        }

        /// Moves the later anchor to now. Only reads the counter, and returns false, if that was
        /// done within the last 100 ms; spins for a millisecond to confirm a new ratio after a
        /// jump. Call it where time does not matter: before waiting.
        pub fn refine(clock: *Clock) bool {
            const now = Os.cycles();
            if (clock.multiplier != 0 and now >= clock.last.cycles) {
                if (clock.nanoseconds(now - clock.last.cycles) < refit_interval_ns) return false;
            }
            clock.refit();
            return true;
        }

        fn refit(clock: *Clock) void {
            const now = takeAnchor();
            if (now.cycles < clock.last.cycles) {
                // The counter went back: nothing measured with the old one holds any more.
                clock.restart(now);
                return;
            }
            const base_line_ns = now.ns - clock.first.ns;
            const base_line_cycles = now.cycles - clock.first.cycles;
            if (base_line_ns < base_line_ns_min or base_line_cycles == 0) return;
            const measured = ratio(@intCast(base_line_ns), base_line_cycles);
            const refuted = if (clock.settled) clock.strayed(now) else isRefuted(measured, now);
            if (refuted) {
                clock.restart(now);
                return;
            }
            clock.last = now;
            clock.multiplier, clock.source = choose(measured, Os.counterFrequency());
            clock.settled = true;
            clock.invariants();
        }

        /// Whether the counter and the clock have drifted apart since the last anchor. The whole
        /// base line would not show it: five minutes of sleep are less than 1 % of ten hours.
        fn strayed(clock: *const Clock, now: Anchor) bool {
            const recent_ns = now.ns - clock.last.ns;
            const recent_cycles = now.cycles - clock.last.cycles;
            if (recent_ns <= 0 or recent_cycles == 0) return true;
            return jumped(clock.multiplier, ratio(@intCast(recent_ns), recent_cycles));
        }

        /// Whether the next millisecond shows another ratio. Nothing else tells whether the machine
        /// has slept since the first anchor, when there is no ratio yet that can be trusted.
        fn isRefuted(measured: u64, now: Anchor) bool {
            spinUntil(now.ns + proof_ns);
            const later = takeAnchor();
            if (later.cycles < now.cycles) return true;
            if (later.ns - now.ns < proof_ns or later.cycles == now.cycles) return false;
            return jumped(measured, ratio(@intCast(later.ns - now.ns), later.cycles - now.cycles));
        }

        /// Ends early if the clock stands still, as a scripted one may.
        fn spinUntil(deadline: i64) void {
            var before = monotonic();
            var still_reads: u32 = 0;
            while (before < deadline and still_reads < still_reads_max) {
                const now = monotonic();
                still_reads = if (now == before) still_reads + 1 else 0;
                before = now;
            }
        }

        /// Keeps the ratio until there is a better one, but no longer checks others against it.
        fn restart(clock: *Clock, now: Anchor) void {
            clock.first = now;
            clock.last = now;
            clock.settled = false;
            clock.invariants();
        }

        fn invariants(clock: *const Clock) void {
            assert(clock.first.cycles <= clock.last.cycles);
            if (clock.settled) assert(clock.multiplier != 0);
        }

        /// As it is known now. It changes with `refine`.
        pub inline fn rate(clock: *const Clock) Rate {
            return .{ .multiplier = clock.multiplier };
        }

        /// How long that many cycles take. Asserts that `calibrate` was called.
        pub inline fn nanoseconds(clock: *const Clock, cycles_delta: u64) u64 {
            return clock.rate().nanoseconds(cycles_delta);
        }

        /// How many cycles a nanosecond has: 0.024 (CNTVCT at 24 MHz) to 5. For reports. They are
        /// cycles of the counter, not of the CPU's own clock.
        pub fn cyclesPerNs(clock: *const Clock) f64 {
            assert(clock.multiplier != 0);
            const unit: f64 = @floatFromInt(@as(u64, 1) << multiplier_shift);
            return unit / @as(f64, @floatFromInt(clock.multiplier));
        }

        fn monotonic() i64 {
            return @intCast(Os.monotonicNs());
        }

        /// The tightest of a few brackets: an interrupt between the reads widens one, not all.
        fn takeAnchor() Anchor {
            var anchor: Anchor = undefined;
            var width_min: u64 = std.math.maxInt(u64);
            for (0..brackets) |_| {
                const before = Os.cycles();
                const ns = monotonic();
                const width = Os.cycles() -% before;
                if (width <= width_min) {
                    width_min = width;
                    anchor = .{ .cycles = before +% width / 2, .ns = ns };
                }
            }
            return anchor;
        }
    };
}

/// Nanoseconds a cycle as a fixed-point number; exact to 2^-48 of one.
fn ratio(base_line_ns: u64, base_line_cycles: u64) u64 {
    assert(base_line_ns > 0);
    assert(base_line_cycles > 0);
    const scaled = (@as(u128, base_line_ns) << multiplier_shift) / base_line_cycles;
    return @intCast(std.math.clamp(scaled, 1, std.math.maxInt(u64)));
}

/// The ratio to go by: the register's, when that is plausible and agrees with what was measured.
fn choose(measured: u64, frequency_told: ?u64) struct { u64, RateSource } {
    const frequency = frequency_told orelse return .{ measured, .measured };
    if (frequency == 0) return .{ measured, .measured_register_wrong };
    const told = ratio(std.time.ns_per_s, frequency);
    if (jumped(told, measured)) return .{ measured, .measured_register_wrong };
    return .{ told, .register };
}

/// Off by more than 1 %. Adjustments of a clock are smaller: at most 500 parts in a million.
fn jumped(before: u64, after: u64) bool {
    const difference = @max(before, after) - @min(before, after);
    return difference > before / 100;
}

/// Leaves 16 bits for the nanoseconds a cycle: CNTVCT at 24 MHz needs six.
const multiplier_shift = 48;

/// Anchors that are 100 ns wide give the ratio to 1e-5.
const base_line_ns_min = 10 * std.time.ns_per_ms;

/// How long a new ratio is checked: gives it to 1e-4, even with a counter of 24 MHz.
const proof_ns = std.time.ns_per_ms;

/// How often `refine` does more than read the counter.
const refit_interval_ns = 100 * std.time.ns_per_ms;

/// How often an anchor is read.
pub const brackets = 8;

/// A clock that moves changes within so many reads: they take half a millisecond.
const still_reads_max = 20_000;
