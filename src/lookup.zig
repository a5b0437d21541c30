//! Looks up a name without making its owner wait: on a thread of its own.
//!
//! The system's look-up, getaddrinfo(3), asks what the machine's owner has set up (files, DNS,
//! LDAP, mDNS), and can only block, for as long as its name servers are silent. So each look-up has
//! a thread, the only kind that there is; no message ever passes it. An address in text form needs
//! none.
//!
//! Design: a look-up lies on the heap and belongs to two, its owner and its thread; the last one
//! frees it. Between them are two connected sockets. When the answer is there, the thread shuts its
//! end down, so that the owner's becomes readable: a loop waits for an answer as it does for any
//! descriptor, and no loop has to be woken from another thread. Closing the end would not do: a
//! forked child may have a copy of it. An owner that gives up closes its own end and goes away; the
//! thread ends when the system has answered.
//!
//! Invariant: the thread touches nothing but the look-up. It calls neither Python nor a connection.

const std = @import("std");
const assert = std.debug.assert;
const os = @import("os.zig");

const AddressList = os.AddressList;
const Descriptor = os.Descriptor;

/// Why there is no answer, or why the look-up could not begin.
pub const Error = os.ResolveError || os.ThreadError || error{
    TooManyOpenFiles,
    TooManyOpenFilesInSystem,
};

/// The look-ups of a platform: its `Lookup` if it declares one (a scripted platform), else by
/// threads. All have
///
///     begin(host: [:0]const u8, port: u16, list: *AddressList) Error!?*Lookup
///     descriptor(lookup: *const Lookup) Descriptor
///     answer(lookup: *const Lookup, list: *AddressList) ?(Error!void)
///     drop(lookup: *Lookup) void
///
/// `begin` fills the list and returns null if the host is an address in text form. It copies the
/// host, and never blocks.
///
/// `descriptor` is readable once there is an answer. The look-up keeps it, until `drop`.
///
/// `answer` is null until the answer is there; then the list has at least one address, or the error
/// says why there is none.
///
/// `drop` comes last, answer or not, and after the watch of the descriptor has been cancelled. In
/// the copy of a forked process it has no effect on the look-up of the parent, and does not wait
/// for the thread, which is not there.
pub fn LookupType(comptime Os: type) type {
    const Chosen = if (@hasDecl(Os, "Lookup")) Os.Lookup else ThreadedLookupType(Os);
    comptime assertLookup(Chosen);
    return Chosen;
}

fn assertLookup(comptime Chosen: type) void {
    const functions = .{
        .begin = fn ([:0]const u8, u16, *AddressList) Error!?*Chosen,
        .descriptor = fn (*const Chosen) Descriptor,
        .answer = fn (*const Chosen, *AddressList) ?(Error!void),
        .drop = fn (*Chosen) void,
    };
    for (@typeInfo(@TypeOf(functions)).@"struct".field_names) |name| {
        if (!@hasDecl(Chosen, name)) {
            @compileError(@typeName(Chosen) ++ " does not declare " ++ name);
        }
        if (@TypeOf(@field(Chosen, name)) != @field(functions, name)) {
            @compileError(@typeName(Chosen) ++ "." ++ name ++ " has another type");
        }
    }
}

/// `Os` needs `resolve`, `resolveLiteral`, `socketPair`, `startThread`, `shutdownSend` and `close`.
fn ThreadedLookupType(comptime Os: type) type {
    return struct {
        /// How many of owner and thread still use it.
        references: std.atomic.Value(u32) = .init(2),
        host: [:0]u8,
        port: u16,
        /// A process with another id is a forked one, without the thread.
        process: std.c.pid_t,
        /// The owner's end, which becomes readable, and the thread's.
        pair: [2]Descriptor,
        /// Set by the thread, after it has written `failure` and `addresses` for the last time.
        answered: std.atomic.Value(bool) = .init(false),
        failure: ?os.ResolveError = null,
        addresses: AddressList = .{},

        const Lookup = @This();
        /// Of libc, since the memory is freed by another thread than the one that got it.
        const allocator = std.heap.c_allocator;

        pub fn begin(host: [:0]const u8, port: u16, list: *AddressList) Error!?*Lookup {
            if (try Os.resolveLiteral(host, port, list)) return null;
            const lookup = try allocator.create(Lookup);
            errdefer allocator.destroy(lookup);
            const host_kept = try allocator.dupeSentinel(u8, host, 0);
            errdefer allocator.free(host_kept);
            const pair = Os.socketPair() catch |err| switch (err) {
                error.TooManyOpenFiles => return error.TooManyOpenFiles,
                error.TooManyOpenFilesInSystem => return error.TooManyOpenFilesInSystem,
                error.OutOfMemory => return error.OutOfMemory,
                error.AddressFamilyNotSupported, error.AccessDenied, error.Unexpected => {
                    return error.Unexpected;
                },
            };
            errdefer for (pair) |end| Os.close(end);
            lookup.* = .{
                .host = host_kept,
                .port = port,
                .process = std.c.getpid(),
                .pair = pair,
            };
            try Os.startThread(run, lookup);
            return lookup;
        }

        pub fn descriptor(lookup: *const Lookup) Descriptor {
            return lookup.pair[0];
        }

        pub fn answer(lookup: *const Lookup, list: *AddressList) ?(Error!void) {
            if (!lookup.answered.load(.acquire)) return null;
            if (lookup.failure) |failure| return failure;
            assert(lookup.addresses.count > 0);
            list.* = lookup.addresses;
            return {};
        }

        pub fn drop(lookup: *Lookup) void {
            Os.close(lookup.pair[0]);
            if (lookup.process != std.c.getpid()) return lookup.destroy();
            lookup.release();
        }

        fn release(lookup: *Lookup) void {
            if (lookup.references.fetchSub(1, .acq_rel) == 1) lookup.destroy();
        }

        /// The thread's end is open for as long as the look-up exists, in each process: whoever
        /// comes last closes it, so that its number cannot be another descriptor's.
        fn destroy(lookup: *Lookup) void {
            Os.close(lookup.pair[1]);
            allocator.free(lookup.host);
            allocator.destroy(lookup);
        }

        /// All that the thread does.
        fn run(argument: ?*anyopaque) callconv(.c) ?*anyopaque {
            const lookup: *Lookup = @ptrCast(@alignCast(argument.?));
            Os.resolve(lookup.host, lookup.port, &lookup.addresses) catch |err| {
                lookup.failure = err;
            };
            lookup.answered.store(true, .release);
            Os.shutdownSend(lookup.pair[1]);
            lookup.release();
            return null;
        }
    };
}

test {
    _ = @import("lookup_test.zig");
}
