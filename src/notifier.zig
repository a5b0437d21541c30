//! Readiness of many descriptors: sleep in the kernel until one of them can be read or written, or
//! time is up.
//!
//! Design: each descriptor has a `Watch`, which its owner keeps in memory of its own, so that
//! nothing is allocated here. The watch remembers what the kernel was told: asking for the same
//! again is no system call. The kernel is given the address of the watch, and `wait` notes in each
//! what it is ready for, in all of them before it returns: so an owner may cancel any watch at any
//! other time, also one that has just become ready. By level: nothing is lost when a caller reads
//! only a part of what is there. `descriptor` is itself readable when a watched one is ready, so
//! that other people's event loops can watch a notifier.
//! Invariant: as long as the kernel has a descriptor, its watch stays where it is.

const constants = @import("constants.zig");
const os = @import("os.zig");

pub const Interest = os.Interest;
pub const Ready = os.Ready;
pub const Wake = os.Wake;
pub const NotifierError = os.NotifierError;
pub const WatchError = os.WatchError;
pub const WaitError = os.WaitError;
pub const WatchType = @import("notifier/watch.zig").WatchType;

/// The platform's notifier: its own `Notifier` where it declares one (a scripted platform), else
/// by epoll or kqueue. All have
///
///     Watch = WatchType(Notifier)
///     init() NotifierError!Notifier
///     deinit(notifier: *Notifier) void
///     watch(notifier: *Notifier, *Watch, Descriptor, Interest) WatchError!void
///     unwatch(notifier: *Notifier, *Watch) void
///     disown(notifier: *Notifier) void
///     wait(notifier: *Notifier, timeout_ns: ?u64) WaitError!Wake
///     descriptor(notifier: *const Notifier) Descriptor
///
/// A notifier does not move once it watches something; `deinit` asserts that nothing is watched.
///
/// `watch` adds the descriptor or changes what it is watched for, and puts it in the place of
/// another one that the watch had. When that fails, the watch is as it was, or has nothing. A
/// descriptor has one watch in a notifier.
///
/// `unwatch` does nothing when the watch has nothing. It has to be called before the descriptor is
/// closed: where a forked process keeps the file open, the kernel would go on reporting it, and its
/// watch may be gone by then.
///
/// `wait` returns when a watched descriptor is ready, a signal came, or the time has passed, whole;
/// 0 only looks, null waits without end. `Watch.take` then says what is ready. No more than
/// `constants.events_per_wait_max` events are noted at once. It releases no lock of its caller's:
/// that is for the caller to do.
///
/// `disown` is for the copy that a forked process has: what the kernel watches, it watches for the
/// parent, and goes on. From then on the copy can unwatch and be ended, and nothing else.
pub fn NotifierType(comptime Os: type) type {
    const Chosen = if (@hasDecl(Os, "Notifier"))
        Os.Notifier
    else if (@hasDecl(Os, "epollCreate"))
        @import("notifier/epoll.zig").NotifierType(Os)
    else
        @import("notifier/kqueue.zig").NotifierType(Os);
    comptime assertNotifier(Chosen);
    return Chosen;
}

fn assertNotifier(comptime Chosen: type) void {
    const functions = .{
        .init = fn () NotifierError!Chosen,
        .deinit = fn (*Chosen) void,
        .watch = fn (*Chosen, *WatchType(Chosen), os.Descriptor, Interest) WatchError!void,
        .unwatch = fn (*Chosen, *WatchType(Chosen)) void,
        .disown = fn (*Chosen) void,
        .wait = fn (*Chosen, ?u64) WaitError!Wake,
        .descriptor = fn (*const Chosen) os.Descriptor,
    };
    for (@typeInfo(@TypeOf(functions)).@"struct".field_names) |name| {
        if (!@hasDecl(Chosen, name)) {
            @compileError(@typeName(Chosen) ++ " does not declare " ++ name);
        }
        if (@TypeOf(@field(Chosen, name)) != @field(functions, name)) {
            @compileError(@typeName(Chosen) ++ "." ++ name ++ " has another type");
        }
    }
    if (Chosen.Watch != WatchType(Chosen)) {
        @compileError(@typeName(Chosen) ++ ".Watch is not WatchType of it");
    }
}

comptime {
    // Two filters of a descriptor on kqueue: at least one descriptor is reported whole.
    if (constants.events_per_wait_max < 2) @compileError("too few events for one descriptor");
}

test {
    _ = @import("notifier/epoll.zig");
    _ = @import("notifier/kqueue.zig");
    _ = @import("notifier/watch.zig");
    _ = @import("notifier_test.zig");
}
