//! The notifier of macOS, by kqueue(2), level-triggered.
//!
//! It uses one filter to read, and one to write.
//!
//! Invariant: the kernel has exactly the filters that the watches say, and each carries the address
//! of its watch; the signal and the alarm have a filter each.

const std = @import("std");
const assert = std.debug.assert;

const constants = @import("../constants.zig");
const os = @import("../os.zig");
const WatchType = @import("watch.zig").WatchType;

const Descriptor = os.Descriptor;
const Interest = os.Interest;
const Wake = os.Wake;

/// `Os` needs `kqueueCreate`, `kqueueChange`, `kqueueWait`, `KernelEvent`, `kqueue_timeout_ns_max`,
/// `monotonicNs` and `close`.
pub fn NotifierType(comptime Os: type) type {
    return struct {
        /// `none` once it is disowned.
        kqueue: Descriptor,
        /// How many descriptors are watched.
        watches: u32 = 0,
        /// Whether the kernel has a filter for the alarm.
        is_armed: bool = false,
        /// What the last wait found ready.
        ready: [constants.events_per_wait_max]*Watch = undefined,
        ready_count: usize = 0,

        const Notifier = @This();
        const KernelEvent = Os.KernelEvent;
        pub const Watch = WatchType(Notifier);

        const none: Descriptor = -1;

        pub fn init() os.NotifierError!Notifier {
            const notifier: Notifier = .{ .kqueue = try Os.kqueueCreate() };
            errdefer Os.close(notifier.kqueue);
            try notifier.changeOwn(KernelEvent.filter_user, KernelEvent.flag_add, 0, 0);
            return notifier;
        }

        /// Changes the filter of the signal or of the alarm.
        fn changeOwn(
            notifier: *const Notifier,
            filter: i16,
            flags: u16,
            fflags: u32,
            data: isize,
        ) os.NotifierError!void {
            const event: KernelEvent = .{
                .ident = 0,
                .filter = filter,
                .flags = flags,
                .fflags = fflags,
                .data = data,
                .udata = 0,
            };
            return Os.kqueueChange(notifier.kqueue, &event) catch |failure| switch (failure) {
                error.OutOfMemory => error.OutOfMemory,
                error.WatchLimit, error.Unexpected => error.Unexpected,
            };
        }

        pub fn deinit(notifier: *Notifier) void {
            assert(notifier.watches == 0);
            if (notifier.kqueue != none) Os.close(notifier.kqueue);
            notifier.* = undefined;
        }

        /// See notifier.zig.
        pub fn watch(
            notifier: *Notifier,
            target: *Watch,
            watched: Descriptor,
            interest: Interest,
        ) os.WatchError!void {
            assert(watched >= 0);
            if (target.notifier) |owner| assert(owner == notifier);
            if (target.matches(watched, interest)) return;
            assert(notifier.kqueue != none);
            if (target.descriptor != watched) notifier.unwatch(target);
            if (target.notifier == null) {
                target.notifier = notifier;
                target.descriptor = watched;
                notifier.watches += 1;
            }
            // If the first change fails, nothing is watched; if the second one does, the watch
            // has the first.
            errdefer if (target.interest == Interest{}) notifier.forget(target);
            try notifier.change(target, interest);
        }

        /// Changes the filters to the new interest, one by one.
        fn change(notifier: *Notifier, target: *Watch, interest: Interest) os.WatchError!void {
            const kept = &target.interest;
            if (kept.readable != interest.readable) {
                try notifier.changeFilter(target, KernelEvent.filter_read, interest.readable);
                kept.readable = interest.readable;
            }
            if (kept.writable != interest.writable) {
                try notifier.changeFilter(target, KernelEvent.filter_write, interest.writable);
                kept.writable = interest.writable;
            }
            assert(kept.* == interest);
        }

        fn changeFilter(
            notifier: *Notifier,
            target: *Watch,
            filter: i16,
            add: bool,
        ) os.WatchError!void {
            const event: KernelEvent = .{
                .ident = @intCast(target.descriptor),
                .filter = filter,
                .flags = if (add) KernelEvent.flag_add else KernelEvent.flag_delete,
                .fflags = 0,
                .data = 0,
                .udata = @intFromPtr(target),
            };
            return Os.kqueueChange(notifier.kqueue, &event);
        }

        /// See notifier.zig.
        pub fn unwatch(notifier: *Notifier, target: *Watch) void {
            if (target.notifier == null) return;
            assert(target.notifier == notifier);
            if (notifier.kqueue != none) {
                if (target.interest.readable) notifier.drop(target, KernelEvent.filter_read);
                if (target.interest.writable) notifier.drop(target, KernelEvent.filter_write);
            }
            notifier.forget(target);
        }

        fn drop(notifier: *Notifier, target: *Watch, filter: i16) void {
            notifier.changeFilter(target, filter, false) catch |failure| switch (failure) {
                // Only for a closed descriptor, whose filters are gone: deleting needs no memory.
                error.WatchLimit, error.OutOfMemory, error.Unexpected => {},
            };
        }

        fn forget(notifier: *Notifier, target: *Watch) void {
            target.* = .{};
            notifier.watches -= 1;
        }

        /// See notifier.zig. fork does not copy a kqueue: in the child, its number may be that of
        /// another descriptor.
        pub fn disown(notifier: *Notifier) void {
            notifier.kqueue = none;
        }

        /// See notifier.zig.
        pub fn wait(notifier: *Notifier, timeout_ns: ?u64) os.WaitError!Wake {
            assert(notifier.kqueue != none);
            var events: [constants.events_per_wait_max]KernelEvent = undefined;
            var rest_ns = timeout_ns;
            notifier.ready_count = 0;
            while (true) {
                const part_ns: ?u64 = if (rest_ns) |rest|
                    @min(rest, Os.kqueue_timeout_ns_max)
                else
                    null;
                const result = Os.kqueueWait(notifier.kqueue, &events, part_ns);
                const count = result catch |failure| switch (failure) {
                    error.Interrupted => return .interrupted,
                    error.OutOfMemory => return error.OutOfMemory,
                    error.Unsupported, error.Unexpected => return error.Unexpected,
                };
                for (events[0..count]) |*event| notifier.note(event);
                if (count > 0) return .ready;
                rest_ns = (rest_ns orelse continue) - part_ns.?;
                if (rest_ns.? == 0) return .timed_out;
            }
        }

        /// Notes one event. The two filters of a descriptor are two events, maybe from two waits.
        fn note(notifier: *Notifier, event: *const KernelEvent) void {
            switch (event.filter) {
                KernelEvent.filter_user => return,
                KernelEvent.filter_timer => {
                    notifier.is_armed = false;
                    return;
                },
                else => {},
            }
            const target: *Watch = @ptrFromInt(event.udata);
            assert(target.notifier == notifier);
            if (target.ready == os.Ready{}) {
                notifier.ready[notifier.ready_count] = target;
                notifier.ready_count += 1;
            }
            switch (event.filter) {
                KernelEvent.filter_read => target.ready.readable = true,
                KernelEvent.filter_write => target.ready.writable = true,
                else => unreachable,
            }
            // EV_EOF of the write filter is a dead connection or a failed connect, which makes the
            // descriptor readable, too. That of the read filter is an ordinary end of the stream.
            if (event.flags & KernelEvent.flag_end_of_file == 0) return;
            target.ready.readable = true;
            // The socket's error, if it has one. macOS tells it again by a read; libkqueue cannot.
            if (event.fflags != 0) {
                target.told = @fromBackingInt(@as(u16, @truncate(event.fflags)));
            }
        }

        /// See notifier.zig.
        pub fn found(notifier: *Notifier) []const *Watch {
            return notifier.ready[0..notifier.ready_count];
        }

        /// See notifier.zig.
        pub fn raise(notifier: *Notifier) void {
            const trigger = KernelEvent.note_trigger;
            notifier.changeOwn(KernelEvent.filter_user, 0, trigger, 0) catch |failure| {
                switch (failure) {
                    // Between the two changes of `lower`, whose caller looks afterwards.
                    error.TooManyOpenFiles, error.TooManyOpenFilesInSystem => unreachable,
                    error.OutOfMemory, error.Unexpected => {},
                }
            };
        }

        /// See notifier.zig. A filter that was triggered is reported until it is deleted.
        pub fn lower(notifier: *Notifier) void {
            assert(notifier.kqueue != none);
            const filter = KernelEvent.filter_user;
            notifier.changeOwn(filter, KernelEvent.flag_delete, 0, 0) catch unreachable;
            // The kernel has just freed as much memory as this takes.
            notifier.changeOwn(filter, KernelEvent.flag_add, 0, 0) catch unreachable;
        }

        /// See notifier.zig.
        pub fn arm(notifier: *Notifier, deadline_ns: ?u64) os.NotifierError!void {
            assert(notifier.kqueue != none);
            const filter = KernelEvent.filter_timer;
            if (notifier.is_armed) {
                try notifier.changeOwn(filter, KernelEvent.flag_delete, 0, 0);
                notifier.is_armed = false;
            }
            const deadline = deadline_ns orelse return;
            const left_ns: u63 = @intCast(@max(1, deadline -| Os.monotonicNs()));
            const flags = KernelEvent.flag_add | KernelEvent.flag_one_shot;
            try notifier.changeOwn(filter, flags, KernelEvent.note_nanoseconds, left_ns);
            notifier.is_armed = true;
        }

        /// Readable when a watched descriptor is ready. The notifier keeps it.
        pub fn descriptor(notifier: *const Notifier) Descriptor {
            return notifier.kqueue;
        }
    };
}

test {
    _ = @import("kqueue_test.zig");
}
