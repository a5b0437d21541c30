//! What a notifier remembers of one descriptor; the owner provides the memory.

const std = @import("std");
const os = @import("../os.zig");

/// The same fields for every notifier. `.{}` has no descriptor yet.
pub fn WatchType(comptime Notifier: type) type {
    return struct {
        const Watch = @This();

        /// The notifier that watches; null when nothing is watched.
        notifier: ?*Notifier = null,
        /// What the kernel watches. Like all fields, only for the notifier.
        descriptor: os.Descriptor = none,
        interest: os.Interest = .{},
        /// What the last wait found the descriptor ready for, until `take`.
        ready: os.Ready = .{},
        /// The error that the kernel told with the end of the stream, which a read may not tell
        /// again; `SUCCESS` if it told none. kqueue only.
        told: std.c.E = .SUCCESS,

        pub const none: os.Descriptor = -1;

        /// Whether the kernel watches exactly this.
        pub inline fn matches(
            watch: *const Watch,
            descriptor: os.Descriptor,
            interest: os.Interest,
        ) bool {
            return watch.descriptor == descriptor and watch.interest == interest;
        }

        /// Returns what the last wait found the descriptor ready for, and clears it.
        pub inline fn take(watch: *Watch) os.Ready {
            const ready = watch.ready;
            watch.ready = .{};
            return ready;
        }

        /// Ends the watching; does nothing when nothing is watched. Call it before the descriptor
        /// is closed, and before the watch moves or its memory is freed.
        pub fn cancel(watch: *Watch) void {
            if (watch.notifier) |notifier| notifier.unwatch(watch);
        }
    };
}
