//! Declarations of libSystem for os/darwin.zig, beside those of `std.c`.
//!
//! It is spelled out here rather than taken from `std.c`, so that it can be compared with Apple's
//! headers (libsystem_test.zig), and so that tests on Linux can put stand-ins in its place
//! (testing/darwin_on_linux.zig).

const c = @import("std").c;

/// One change or event of kqueue(2), as `struct kevent` has it.
pub const KernelEvent = extern struct {
    ident: usize,
    filter: i16,
    flags: u16,
    fflags: u32,
    data: isize,
    udata: usize,

    pub const filter_read = -1;
    pub const filter_write = -2;
    /// Reported for as long as the descriptor is ready, since there is no EV_CLEAR.
    pub const flag_add = 0x0001;
    pub const flag_delete = 0x0002;
    pub const flag_end_of_file = 0x8000;

    pub const filter_timer = -7;
    pub const filter_user = -10;
    /// EV_ONESHOT: deleted once it was reported.
    pub const flag_one_shot = 0x0010;
    /// NOTE_TRIGGER of `filter_user`: it is reported from then on.
    pub const note_trigger = 0x01000000;
    /// NOTE_NSECONDS of `filter_timer`: the unit of `data`.
    pub const note_nanoseconds = 0x00000004;
};

/// `struct mach_timebase_info`: nanoseconds are units of mach_absolute_time(3) times numer / denom.
pub const TimebaseInfo = extern struct { numer: u32, denom: u32 };

/// `struct thread_affinity_policy`.
pub const ThreadAffinity = extern struct { affinity_tag: c_int };

/// `struct thread_time_constraint_policy`, in units of mach_absolute_time(3).
pub const ThreadTimeConstraint = extern struct {
    period: u32,
    computation: u32,
    constraint: u32,
    preemptible: c_int,
};

pub extern "c" var mach_task_self_: c_uint;
pub extern "c" fn clock_gettime_nsec_np(clock: c_uint) u64;
pub extern "c" fn kqueue() c_int;
pub extern "c" fn kevent(
    kqueue: c_int,
    changes: ?[*]const KernelEvent,
    changes_count: c_int,
    events: ?[*]KernelEvent,
    events_count: c_int,
    timeout: ?*const c.timespec,
) c_int;
pub extern "c" fn mach_timebase_info(info: *TimebaseInfo) c_int;
pub extern "c" fn mach_vm_remap(
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
) c_int;
pub extern "c" fn pthread_mach_thread_np(thread: c.pthread_t) c_uint;
pub extern "c" fn thread_policy_set(
    thread: c_uint,
    flavor: c_uint,
    policy: [*]const c_int,
    count: c_uint,
) c_int;

/// THREAD_TIME_CONSTRAINT_POLICY and THREAD_AFFINITY_POLICY, mach/thread_policy.h.
pub const thread_time_constraint_policy = 2;
pub const thread_affinity_policy = 4;

/// mach/kern_return.h.
pub const kern_success = 0;
pub const kern_invalid_address = 1;
pub const kern_protection_failure = 2;
pub const kern_no_space = 3;
pub const kern_resource_shortage = 6;
pub const kern_no_access = 8;
pub const kern_not_supported = 46;

/// mach/vm_statistics.h, mach/vm_inherit.h and mach/vm_prot.h.
pub const vm_flags_fixed = 0x0000;
pub const vm_flags_overwrite = 0x4000;
pub const vm_inherit_share = 0;
pub const vm_prot_read_write = 0x01 | 0x02;

/// CLOCK_UPTIME_RAW, time.h.
pub const clock_uptime_raw = 8;

/// SO_NOSIGPIPE, sys/socket.h.
pub const no_sigpipe = 0x1022;

/// IFNAMSIZ, with the terminating zero.
pub const interface_name_size_max = 16;

/// IP_BOUND_IF, netinet/in.h.
pub const ipv4_bound_interface = 25;

/// IPV6_BOUND_IF, netinet6/in6.h.
pub const ipv6_bound_interface = 125;
