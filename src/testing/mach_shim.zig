//! A stand-in for macOS's Mach calls on Linux: memory, time and threads, for tests.
//!
//! It has the calls of os/darwin.zig with the checks that xnu makes, and is linked in place of
//! libSystem. Mapping pages a second time really works: both places become mappings of one memfd.
//! (mremap(2) of 0 bytes would do without, but valgrind does not know it.) The policy of a thread
//! has no effect: the last one is kept for the test.

const std = @import("std");
const c = std.c;
const linux = std.os.linux;

const this_task = 0x0203;

const kern_success = 0;
const kern_invalid_argument = 4;
const kern_not_supported = 46;

const policy_time_constraint = 2;
const policy_affinity = 4;

/// The error of the next `mach_vm_remap` or `thread_policy_set`, unless it is `kern_success`.
pub var failure_next: c_int = kern_success;
/// Whether this is a Mac with Apple silicon: it has no affinity, and its clock runs at 24 MHz.
pub var apple_silicon: bool = true;
/// The flavor and the numbers that the last `thread_policy_set` set.
pub var policy_flavor: c_uint = 0;
pub var policy: [4]c_int = @splat(0);

fn takeFailure() c_int {
    defer failure_next = kern_success;
    return failure_next;
}

export var mach_task_self_: c_uint = this_task;

export fn mach_vm_remap(
    target_task: c_uint,
    target_address: *u64,
    size: u64,
    mask: u64,
    flags: c_int,
    source_task: c_uint,
    source_address: u64,
    copy: c_int,
    protection: *c_int,
    protection_max: *c_int,
    inheritance: c_uint,
) c_int {
    const fixed_and_overwrite = 0x4000;
    const inherit_max = 2;
    const failure = takeFailure();
    if (failure != kern_success) return failure;
    const page = std.heap.pageSize();
    if (target_task != this_task or source_task != this_task) return kern_invalid_argument;
    if (size == 0 or inheritance > inherit_max) return kern_invalid_argument;
    if ((target_address.* | source_address | size) % page != 0) return kern_invalid_argument;
    // Only this is implemented: to replace an existing mapping, shared and not copied.
    if (flags != fixed_and_overwrite or mask != 0 or copy != 0) return kern_invalid_argument;
    if (!mapTwice(source_address, target_address.*, size)) return kern_invalid_argument;
    protection.* = 0x01 | 0x02;
    protection_max.* = 0x01 | 0x02 | 0x04;
    return kern_success;
}

/// Copies the pages at `source` into a memfd, and maps that over both places.
fn mapTwice(source: u64, target: u64, size: u64) bool {
    const opened = linux.memfd_create("mach_vm_remap", linux.MFD.CLOEXEC);
    if (linux.errno(opened) != .SUCCESS) return false;
    const object: c_int = @intCast(opened);
    defer _ = c.close(object);
    const bytes: [*]const u8 = @ptrFromInt(source);
    if (c.write(object, bytes, size) != size) return false;
    for ([_]u64{ source, target }) |place| {
        const access: c.PROT = .{ .READ = true, .WRITE = true };
        const flags: c.MAP = .{ .TYPE = .SHARED, .FIXED = true, .POPULATE = true };
        const pages: *align(std.heap.page_size_min) anyopaque = @ptrFromInt(place);
        if (c.mmap(pages, size, access, flags, object, 0) == c.MAP_FAILED) return false;
    }
    return true;
}

const TimebaseInfo = extern struct { numer: u32, denom: u32 };

export fn mach_timebase_info(info: *TimebaseInfo) c_int {
    info.* = if (apple_silicon) .{ .numer = 125, .denom = 3 } else .{ .numer = 1, .denom = 1 };
    return kern_success;
}

export fn clock_gettime_nsec_np(clock: c_uint) u64 {
    const uptime_raw = 8;
    if (clock != uptime_raw) return 0;
    var time: c.timespec = undefined;
    if (c.clock_gettime(.MONOTONIC, &time) != 0) return 0;
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

export fn pthread_mach_thread_np(_: c.pthread_t) c_uint {
    return this_task + @as(c_uint, @intCast(linux.gettid()));
}

/// What xnu refuses (osfmk/kern/thread_policy.c).
export fn thread_policy_set(
    thread: c_uint,
    flavor: c_uint,
    numbers: [*]const c_int,
    count: c_uint,
) c_int {
    const failure = takeFailure();
    if (failure != kern_success) return failure;
    if (thread != pthread_mach_thread_np(c.pthread_self())) return kern_invalid_argument;
    const count_needed: c_uint = switch (flavor) {
        policy_affinity => 1,
        policy_time_constraint => 4,
        else => return kern_invalid_argument,
    };
    if (flavor == policy_affinity and apple_silicon) return kern_not_supported;
    if (count < count_needed) return kern_invalid_argument;
    if (flavor == policy_time_constraint) {
        const units_a_second: c_int = if (apple_silicon) 24_000_000 else 1_000_000_000;
        const computation_min = @divExact(units_a_second, 20_000); // 50 us
        const computation_max = @divExact(units_a_second, 20); // 50 ms
        const computation, const constraint = .{ numbers[1], numbers[2] };
        if (constraint < computation) return kern_invalid_argument;
        if (computation < computation_min) return kern_invalid_argument;
        if (computation > computation_max) return kern_invalid_argument;
    }
    policy_flavor = flavor;
    policy = @splat(0);
    @memcpy(policy[0..count_needed], numbers[0..count_needed]);
    return kern_success;
}
