//! Readiness of many descriptors: sleep in the kernel until one of them can be read or written, or
//! time is up.
//!
//! Design: each descriptor has a `Watch`, which its owner keeps in memory of its own, so that
//! nothing is allocated here. The watch remembers what the kernel was told: asking for the same
//! again is no system call. The kernel is given the address of the watch. `wait` notes in every
//! watch that is ready what it is ready for, before it returns: afterwards an owner may cancel any
//! watch, also one that has just become ready. Readiness is by level: nothing is lost when a caller
//! reads only a part of what is there. `descriptor` is itself readable when a watched one is ready,
//! so that a foreign event loop can watch a notifier.
//! Invariant: a watch does not move while the kernel watches its descriptor.

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
/// `watch` adds the descriptor, or changes what it is watched for. A watch that had another
/// descriptor lets go of that first. After an error the watch says what the kernel still watches.
/// A descriptor has at most one watch in a notifier.
///
/// `unwatch` does nothing when nothing is watched. It has to be called before the descriptor is
/// closed: if a forked process keeps the file open, the kernel goes on reporting it, with the
/// address of a watch that may be gone by then.
///
/// `wait` returns when a watched descriptor is ready, a signal came, or the time has passed, whole;
/// 0 only looks, null waits without end. `Watch.take` then says what is ready. No more than
/// `constants.events_per_wait_max` events are noted at once. A lock that the caller holds stays
/// held.
///
/// `disown` is for the copy in a forked process: the kernel goes on watching for the parent, and
/// the copy does not change that. Afterwards it may only be asked to `unwatch` and `deinit`.
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
