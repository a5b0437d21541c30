//! Waits in the kernel until one of many descriptors is ready.
//!
//! Design: each descriptor has a `Watch`, in memory that its owner provides, so that nothing is
//! allocated here. The watch remembers what the kernel watches: asking for the same again makes no
//! system call. The kernel gets the address of the watch. Before `wait` returns, it notes in each
//! ready watch what it is ready for; afterwards the owner may cancel any watch, also a ready one.
//! Readiness is level-triggered: nothing is lost when a caller reads only a part of what is there.
//! `descriptor` is itself readable when a watched one is ready, so that another event loop can
//! watch a notifier. A signal, which any thread may raise, and an alarm make it readable, too.
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

/// The notifier of a platform: its `Notifier` if it declares one (a scripted platform), else by
/// epoll or kqueue. All have
///
///     Watch = WatchType(Notifier)
///     init() NotifierError!Notifier
///     deinit(notifier: *Notifier) void
///     watch(notifier: *Notifier, *Watch, Descriptor, Interest) WatchError!void
///     unwatch(notifier: *Notifier, *Watch) void
///     disown(notifier: *Notifier) void
///     wait(notifier: *Notifier, timeout_ns: ?u64) WaitError!Wake
///     found(notifier: *Notifier) []const *Watch
///     raise(notifier: *Notifier) void
///     lower(notifier: *Notifier) void
///     arm(notifier: *Notifier, deadline_ns: ?u64) NotifierError!void
///     descriptor(notifier: *const Notifier) Descriptor
///
/// A notifier does not move once it watches something; `deinit` asserts that nothing is watched.
///
/// `watch` adds the descriptor, or changes what it is watched for. If the watch had another
/// descriptor, that one is removed first. After an error the watch says what the kernel still
/// watches. A descriptor has at most one watch in a notifier.
///
/// `unwatch` does nothing when nothing is watched. It has to be called before the descriptor is
/// closed: if a forked process keeps the file open, the kernel goes on reporting it, with the
/// address of a watch that may be gone by then.
///
/// `wait` returns when a watched descriptor is ready, a signal came, or the whole time has passed;
/// 0 only checks, null waits without end. `found` then returns the watches that are ready, valid
/// until one is cancelled, and `Watch.take` what each is ready for. One call notes at most
/// `constants.events_per_wait_max` events. It does not release any lock of the caller.
///
/// `raise` ends a wait, and makes `descriptor` readable, until `lower`. Any thread may call it.
/// What it tells has to be noted elsewhere before, and looked for after `lower`.
///
/// `arm` makes `descriptor` readable from then on (monotonic clock), until the alarm is armed anew;
/// null: not at all. A wait may end by it, too.
///
/// `disown` is for the copy in a forked process: the kernel goes on watching for the parent, and
/// the copy does not change that. Afterwards only `unwatch` and `deinit` may be called.
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
        .found = fn (*Chosen) []const *WatchType(Chosen),
        .raise = fn (*Chosen) void,
        .lower = fn (*Chosen) void,
        .arm = fn (*Chosen, ?u64) NotifierError!void,
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
