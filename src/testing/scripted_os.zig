//! A fake kernel whose system calls return what a test has scripted.
//!
//! It is a platform, like os/linux.zig. It can be used wherever a `comptime Os: type` is expected.
//! The script is four queues, for look-ups, connects, reads and sends, and a clock that stands
//! still until a test or a wait moves it. What a client must never do panics at once, with the
//! client on the stack: use a closed descriptor, close a watched one, read again after a read that
//! found nothing, wait for what cannot come. Numbers of closed descriptors are used again at once,
//! as in real kernels. A process has one such kernel, `kernel`, which `reset` makes anew.

const std = @import("std");
const os = @import("../os.zig");
const lookup_module = @import("../lookup.zig");
const WatchType = @import("../notifier.zig").WatchType;
const KernelTls = @import("kernel_tls.zig");
pub const RandomFaults = @import("random_faults.zig");

pub const Descriptor = os.Descriptor;
pub const Address = os.Address;
pub const AddressList = os.AddressList;
pub const KernelStamp = os.KernelStamp;
pub const TimestampMode = os.TimestampMode;
pub const SocketOptions = os.SocketOptions;
pub const PeerProgress = os.PeerProgress;
pub const TlsDirection = os.TlsDirection;
pub const ReceivedRecord = os.ReceivedRecord;
pub const Mapping = os.Mapping;
pub const MapOptions = os.MapOptions;

/// When the answer to one look-up comes, which is `addresses` or `resolve_failure`. Without a step
/// it is there at once.
pub const LookupStep = union(enum) {
    /// It cannot begin.
    fails: lookup_module.Error,
    /// The host is an address in text form.
    literal,
    /// The answer comes this much later.
    answered: struct { after_ns: u64 = 0 },
    /// The answer never comes.
    silent,
};

/// The result of one connect. Without a step it succeeds at once.
pub const ConnectStep = union(enum) {
    connected,
    fails: os.ConnectError,
    /// In progress; the result comes this much later.
    answered: struct { after_ns: u64 = 0, result: os.ConnectError!void = {} },
    /// In progress forever.
    silent,
};

/// One thing to read from the socket. After the last step there is nothing, but it stays open.
pub const ReceiveStep = union(enum) {
    /// A segment: one read, or more if the buffer is small. The next step comes after that.
    bytes: []const u8,
    /// Nothing arrives for this long.
    pause_ns: u64,
    /// The notifier reports the socket as readable, but a read finds nothing.
    spurious,
    /// EOF, for this and all later reads.
    end,
    fails: os.ReceiveError,
};

/// The result of one send. Without a step it takes up to `send_room` bytes.
pub const SendStep = union(enum) {
    takes: usize,
    /// The send buffer is full until the next wait for it.
    would_block,
    /// This send and all later ones of the connection fail, unless the error is WouldBlock.
    fails: os.SendError,
    /// Only this send fails.
    fails_once: os.SendError,
};

/// The state of the kernel. A test may set and read all fields.
pub const Kernel = struct {
    arena: std.heap.ArenaAllocator,
    random: std.Random.DefaultPrng,
    now_ns: u64 = 1_000_000_000,

    addresses: AddressList = .{},
    resolve_failure: ?os.ResolveError = null,
    open_failure: ?os.OpenError = null,
    option_failure: ?os.OptionError = null,
    /// What `peerProgress` tells, and how often `liftUnansweredLimit` was called.
    peer_progress: ?os.PeerProgress = null,
    limits_lifted: u32 = 0,
    notifier_failure: ?os.NotifierError = null,
    watch_failure: ?os.WatchError = null,
    wait_failure: ?os.WaitError = null,
    /// Further failures, at random.
    faults: ?*RandomFaults = null,
    /// How many rings can still be mapped.
    maps_left: usize = std.math.maxInt(usize),
    /// How many waits a signal will interrupt.
    interrupts: u32 = 0,

    lookups: Queue(LookupStep) = .{},
    connects: Queue(ConnectStep) = .{},
    receives: Queue(ReceiveStep) = .{},
    sends: Queue(SendStep) = .{},
    /// How many bytes the socket's send buffer still takes.
    send_room: usize = std.math.maxInt(usize),
    send_dead: ?os.SendError = null,
    /// When the pause at the head of `receives` is over.
    pause_until_ns: ?u64 = null,
    /// The last read found nothing, or less than it asked for, and no wait has followed.
    drained: bool = false,
    /// Whether the client may read again then, as a busy wait does.
    spins_allowed: bool = false,
    /// What `receive` returns as the stamp, if one is asked for.
    stamp: KernelStamp = .{},

    /// Kernel TLS of the connected socket.
    tls: KernelTls = .{},

    sockets: [sockets_max]?Socket = @splat(null),
    /// The watches, in the order in which they were added.
    watches: [sockets_max]?*Watch = @splat(null),
    notifiers: u32 = 0,

    /// All bytes that the client has sent, on all its connections.
    sent: std.ArrayList(u8) = .empty,
    /// The addresses that the client tried, and when.
    dialled: std.ArrayList(Dialled) = .empty,
    send_side_shut: bool = false,
    receive_calls: u32 = 0,
    send_calls: u32 = 0,
    wait_calls: u32 = 0,
    watch_changes: u32 = 0,

    pub const Dialled = struct { address: Address, at_ns: u64 };
    const Watch = Notifier.Watch;
    const Socket = union(enum) {
        fresh,
        connecting: struct { answer_ns: ?u64, result: os.ConnectError!void },
        connected,
        /// The descriptor of a look-up.
        resolving: struct { answer_ns: ?u64 },
    };

    /// Adds bytes to read, as one segment.
    pub fn feed(state: *Kernel, bytes: []const u8) void {
        if (bytes.len == 0) return;
        state.then(.{ .bytes = state.keep(bytes) });
    }

    pub fn feedByteByByte(state: *Kernel, bytes: []const u8) void {
        const kept = state.keep(bytes);
        for (0..kept.len) |index| state.then(.{ .bytes = kept[index..][0..1] });
    }

    /// Adds a step for a read.
    pub fn then(state: *Kernel, step: ReceiveStep) void {
        state.receives.push(state.arena.allocator(), step);
    }

    pub fn thenLookUp(state: *Kernel, step: LookupStep) void {
        state.lookups.push(state.arena.allocator(), step);
    }

    pub fn thenConnect(state: *Kernel, step: ConnectStep) void {
        state.connects.push(state.arena.allocator(), step);
    }

    pub fn thenSend(state: *Kernel, step: SendStep) void {
        state.sends.push(state.arena.allocator(), step);
    }

    /// Drops the steps that are left, and empties the send buffer.
    pub fn clear(state: *Kernel) void {
        state.receives = .{};
        state.sends = .{};
        state.pause_until_ns = null;
        state.send_room = std.math.maxInt(usize);
    }

    /// Copies bytes. The copy is freed by `deinit`.
    pub fn keep(state: *Kernel, bytes: []const u8) []u8 {
        return state.arena.allocator().dupe(u8, bytes) catch @panic("out of memory");
    }

    /// Whether a wait could only time out. `wants_write`: whether the client has bytes to send.
    pub fn isIdle(state: *Kernel, wants_write: bool) bool {
        for (state.sockets) |place| {
            const socket = place orelse continue;
            if (socket == .connecting or socket == .resolving) return false;
        }
        state.endPauses();
        if (state.receives.head() != null or state.tls.isReadable()) return false;
        return !wants_write or state.send_room == 0;
    }

    /// Removes the pauses that are over from the head of `receives`.
    fn endPauses(state: *Kernel) void {
        while (state.receives.head()) |step| {
            const pause_ns = switch (step.*) {
                .pause_ns => |duration_ns| duration_ns,
                .bytes, .spurious, .end, .fails => return,
            };
            const until_ns = state.pause_until_ns orelse state.now_ns +| pause_ns;
            state.pause_until_ns = until_ns;
            if (state.now_ns < until_ns) return;
            state.pause_until_ns = null;
            state.receives.pop();
        }
    }

    /// Notes in each watch of the notifier what it is ready for. False when none is.
    fn noteReady(state: *Kernel, notifier: *Notifier) bool {
        for (state.watches) |place| {
            const watch = place orelse continue;
            if (watch.notifier != notifier) continue;
            watch.ready = state.readiness(watch);
            if (watch.ready == os.Ready{}) continue;
            notifier.ready[notifier.ready_count] = watch;
            notifier.ready_count += 1;
        }
        return notifier.ready_count > 0;
    }

    fn readiness(state: *Kernel, watched: *const Watch) os.Ready {
        const interest = watched.interest;
        switch (state.socketOf(watched.descriptor).*) {
            .fresh => return .{},
            .connecting => |attempt| {
                const answer_ns = attempt.answer_ns orelse return .{};
                if (state.now_ns < answer_ns) return .{};
                const failed = if (attempt.result) |_| false else |_| true;
                return .{ .readable = failed, .writable = interest.writable };
            },
            .resolving => |attempt| {
                if (interest.writable) @panic("waits for a look-up to be writable");
                const answer_ns = attempt.answer_ns orelse return .{};
                return .{ .readable = interest.readable and state.now_ns >= answer_ns };
            },
            .connected => {},
        }
        state.endPauses();
        const step = state.receives.head();
        const waiting = step != null and step.?.* != .pause_ns;
        const arrived = waiting or state.tls.isReadable();
        return .{
            .readable = interest.readable and arrived,
            .writable = interest.writable and state.hasRoom(),
        };
    }

    fn hasRoom(state: *Kernel) bool {
        if (state.sends.head()) |step| {
            if (step.* == .would_block) state.sends.pop();
        }
        return state.send_room > 0;
    }

    /// When the next scripted event happens on a socket that the notifier watches.
    fn nextHappeningNs(state: *Kernel, notifier: *const Notifier) ?u64 {
        var next_ns: ?u64 = null;
        for (state.watches) |place| {
            const watch = place orelse continue;
            if (watch.notifier != notifier) continue;
            const happening_ns = state.happeningNs(watch) orelse continue;
            next_ns = @min(happening_ns, next_ns orelse happening_ns);
        }
        return next_ns;
    }

    fn happeningNs(state: *Kernel, watched: *const Watch) ?u64 {
        return switch (state.socketOf(watched.descriptor).*) {
            .fresh => null,
            .connecting => |attempt| attempt.answer_ns,
            .resolving => |attempt| attempt.answer_ns,
            .connected => pause: {
                const step = state.receives.head() orelse break :pause null;
                const pauses = watched.interest.readable and step.* == .pause_ns;
                break :pause if (pauses) state.pause_until_ns else null;
            },
        };
    }

    fn socketOf(state: *Kernel, descriptor: Descriptor) *Socket {
        const index = descriptor - descriptor_first;
        if (index < 0 or index >= state.sockets.len) @panic("no such descriptor");
        if (state.sockets[@intCast(index)]) |*socket| return socket;
        @panic("the descriptor is closed");
    }

    /// Whether this call is one of those that fail at random.
    fn strikes(state: *Kernel, call: RandomFaults.Call) bool {
        const faults = state.faults orelse return false;
        return faults.strikes(call);
    }

    /// The error of a call that fails at random, if it does.
    fn strike(state: *Kernel, call: RandomFaults.Call, comptime Error: type) ?Error {
        const faults = state.faults orelse return null;
        return faults.strike(call, Error);
    }

    fn openCount(state: *const Kernel) u32 {
        var count: u32 = 0;
        for (state.sockets) |socket| count += @intFromBool(socket != null);
        return count;
    }
};

const sockets_max = 8;
const descriptor_first = 100;
const notifier_descriptor = 99;

/// The kernel of the test that is running.
pub var kernel: Kernel = undefined;

/// Makes a new kernel, whose resolver has one address.
pub fn reset(gpa: std.mem.Allocator, seed: u64) void {
    kernel = .{ .arena = .init(gpa), .random = .init(seed) };
    std.debug.assert(kernel.addresses.append(Address.parse("192.0.2.1", 80).?));
}

/// Panics when the client has left anything open.
pub fn deinit() void {
    if (kernel.openCount() != 0) @panic("a socket was left open");
    if (kernel.notifiers != 0) @panic("a notifier was left open");
    kernel.tls.deinit();
    kernel.arena.deinit();
    kernel = undefined;
}

/// First in, first out.
fn Queue(comptime Step: type) type {
    return struct {
        steps: std.ArrayList(Step) = .empty,
        done: usize = 0,

        fn push(queue: *@This(), arena: std.mem.Allocator, step: Step) void {
            queue.steps.append(arena, step) catch @panic("out of memory");
        }

        fn head(queue: *@This()) ?*Step {
            if (queue.done == queue.steps.items.len) return null;
            return &queue.steps.items[queue.done];
        }

        fn pop(queue: *@This()) void {
            queue.done += 1;
        }

        fn take(queue: *@This()) ?Step {
            const step = queue.head() orelse return null;
            queue.pop();
            return step.*;
        }
    };
}

// ---- The functions of `os.Interface`, which the client calls. ----------------------------------

pub fn resolve(_: [:0]const u8, _: u16, list: *AddressList) os.ResolveError!void {
    if (kernel.resolve_failure) |failure| return failure;
    if (kernel.strike(.resolve, os.ResolveError)) |failure| return failure;
    list.* = kernel.addresses;
}

/// See lookup.zig. Its descriptor is one of the sockets.
pub const Lookup = struct {
    watched: Descriptor,

    pub fn begin(
        host: [:0]const u8,
        port: u16,
        list: *AddressList,
    ) lookup_module.Error!?*Lookup {
        const step = kernel.lookups.take() orelse LookupStep{ .answered = .{} };
        const answer_ns: ?u64 = switch (step) {
            .fails => |failure| return failure,
            .literal => {
                try resolve(host, port, list);
                return null;
            },
            .answered => |answered| kernel.now_ns + answered.after_ns,
            .silent => null,
        };
        if (kernel.strike(.lookup, lookup_module.Error)) |failure| return failure;
        const begun = kernel.arena.allocator().create(Lookup) catch return error.OutOfMemory;
        const found = openDescriptor() orelse return error.TooManyOpenFiles;
        begun.* = .{ .watched = found };
        kernel.socketOf(found).* = .{ .resolving = .{ .answer_ns = answer_ns } };
        return begun;
    }

    pub fn descriptor(lookup: *const Lookup) Descriptor {
        return lookup.watched;
    }

    pub fn answer(lookup: *const Lookup, list: *AddressList) ?(lookup_module.Error!void) {
        const answer_ns = kernel.socketOf(lookup.watched).resolving.answer_ns orelse return null;
        if (kernel.now_ns < answer_ns) return null;
        resolve("", 0, list) catch |err| return err;
        if (list.count == 0) return error.NameNotFound;
        return {};
    }

    pub fn drop(lookup: *Lookup) void {
        close(lookup.watched);
        lookup.* = undefined;
    }
};

pub fn openSocket(_: *const Address) os.OpenError!Descriptor {
    if (kernel.open_failure) |failure| return failure;
    if (kernel.strike(.open, os.OpenError)) |failure| return failure;
    return openDescriptor() orelse error.TooManyOpenFiles;
}

fn openDescriptor() ?Descriptor {
    for (&kernel.sockets, descriptor_first..) |*place, descriptor| {
        if (place.* != null) continue;
        place.* = .fresh;
        return @intCast(descriptor);
    }
    return null;
}

pub fn connect(descriptor: Descriptor, address: *const Address) os.ConnectError!os.ConnectState {
    const socket = kernel.socketOf(descriptor);
    if (socket.* != .fresh) @panic("connected twice");
    kernel.dialled.append(kernel.arena.allocator(), .{
        .address = address.*,
        .at_ns = kernel.now_ns,
    }) catch return error.OutOfMemory;
    if (kernel.strike(.connect, os.ConnectError)) |failure| return failure;
    switch (kernel.connects.take() orelse .connected) {
        .connected => socket.* = .connected,
        .fails => |failure| return failure,
        .answered => |answer| socket.* = .{ .connecting = .{
            .answer_ns = kernel.now_ns + answer.after_ns,
            .result = answer.result,
        } },
        .silent => socket.* = .{ .connecting = .{ .answer_ns = null, .result = {} } },
    }
    kernel.send_side_shut = false;
    kernel.send_dead = null;
    kernel.drained = false;
    kernel.tls.detach();
    return if (socket.* == .connected) .connected else .in_progress;
}

pub fn connectResult(descriptor: Descriptor) os.ConnectError!void {
    const socket = kernel.socketOf(descriptor);
    switch (socket.*) {
        .fresh, .resolving => @panic("asked how a connect went that never was"),
        .connected => {},
        .connecting => |attempt| {
            const answer_ns = attempt.answer_ns orelse @panic("the connect has not ended");
            if (kernel.now_ns < answer_ns) @panic("the connect has not ended yet");
            if (kernel.strike(.connect_result, os.ConnectError)) |failure| return failure;
            try attempt.result;
            socket.* = .connected;
        },
    }
}

pub fn bind(_: Descriptor, _: *const Address) os.BindError!void {}
pub fn bindToInterface(_: Descriptor, _: []const u8) os.BindError!void {}

pub fn receive(
    descriptor: Descriptor,
    buffer: []u8,
    stamp: ?*KernelStamp,
) os.ReceiveError!usize {
    if (kernel.tls.receiving != null) @panic("read past the kernel's TLS");
    if (kernel.drained and !kernel.spins_allowed) @panic("a read that can give nothing");
    const size = try receiveBytes(descriptor, buffer);
    if (stamp) |target| target.* = kernel.stamp;
    kernel.drained = size > 0 and size < buffer.len;
    return size;
}

/// Reads what the script has for the socket, plaintext or ciphertext.
fn receiveBytes(descriptor: Descriptor, buffer: []u8) os.ReceiveError!usize {
    if (kernel.socketOf(descriptor).* != .connected) @panic("read before it was connected");
    kernel.receive_calls += 1;
    kernel.endPauses();
    if (kernel.strike(.receive, os.ReceiveError)) |failure| switch (failure) {
        error.WouldBlock => return wouldBlock(),
        else => |cause| {
            kernel.faults.?.receive_failure = cause;
            return cause;
        },
    };
    const step = kernel.receives.head() orelse return wouldBlock();
    switch (step.*) {
        .bytes => |*bytes| {
            var size = @min(buffer.len, bytes.len);
            if (kernel.strikes(.receive_short)) size = @max(1, size / 2);
            @memcpy(buffer[0..size], bytes.*[0..size]);
            bytes.* = bytes.*[size..];
            if (bytes.len == 0) kernel.receives.pop();
            return size;
        },
        .pause_ns => return wouldBlock(),
        .spurious => {
            kernel.receives.pop();
            return wouldBlock();
        },
        .end => return 0,
        .fails => |failure| {
            kernel.receives.pop();
            return failure;
        },
    }
}

fn wouldBlock() error{WouldBlock} {
    kernel.drained = true;
    return error.WouldBlock;
}

pub fn attachTls(descriptor: Descriptor) os.TlsError!void {
    if (kernel.socketOf(descriptor).* != .connected) @panic("TLS before it was connected");
    if (kernel.strike(.tls, os.TlsError)) |failure| return failure;
    return kernel.tls.attach();
}

pub fn setTlsKeys(
    descriptor: Descriptor,
    direction: TlsDirection,
    info: []const u8,
) os.TlsError!void {
    _ = kernel.socketOf(descriptor);
    if (kernel.strike(.tls, os.TlsError)) |failure| return failure;
    return kernel.tls.setKeys(direction, info);
}

/// Reads until a record is whole, as the kernel does by itself.
pub fn receiveRecord(
    descriptor: Descriptor,
    buffer: []u8,
) os.ReceiveRecordError!ReceivedRecord {
    if (kernel.drained and !kernel.spins_allowed) @panic("a read that can give nothing");
    const gpa = kernel.arena.allocator();
    while (true) {
        const record = kernel.tls.read(gpa, buffer) catch |err| switch (err) {
            error.Starved => {
                var segment: [64 * 1024]u8 = undefined;
                const size = try receiveBytes(descriptor, &segment);
                if (size == 0) return .{ .size = 0, .content_type = null };
                kernel.tls.feed(gpa, segment[0..size]);
                continue;
            },
            else => |cause| return cause,
        };
        return record;
    }
}

pub fn sendRecord(
    descriptor: Descriptor,
    content_type: u8,
    content: []const u8,
) os.SendError!void {
    const size = try sendBytes(descriptor, content_type, content);
    if (size != content.len) @panic("a control record was cut");
}

pub fn send(descriptor: Descriptor, bytes: []const u8) os.SendError!usize {
    return sendBytes(descriptor, 23, bytes);
}

fn sendBytes(descriptor: Descriptor, content_type: u8, bytes: []const u8) os.SendError!usize {
    if (kernel.socketOf(descriptor).* != .connected) @panic("sent before it was connected");
    if (kernel.send_side_shut) @panic("sent after the end");
    if (bytes.len == 0) @panic("sent nothing");
    kernel.send_calls += 1;
    if (kernel.send_dead) |failure| return failure;
    if (kernel.strike(.send, os.SendError)) |failure| return failure;
    var size = @min(bytes.len, kernel.send_room);
    if (kernel.strikes(.send_short)) size = @min(size, @max(1, bytes.len / 2));
    if (kernel.sends.head()) |step| switch (step.*) {
        .takes => |limit| {
            kernel.sends.pop();
            size = @min(size, limit);
        },
        .would_block => return error.WouldBlock,
        .fails => |failure| {
            kernel.sends.pop();
            switch (failure) {
                error.WouldBlock => {},
                else => kernel.send_dead = failure,
            }
            return failure;
        },
        .fails_once => |failure| {
            kernel.sends.pop();
            return failure;
        },
    };
    if (size == 0) return error.WouldBlock;
    const gpa = kernel.arena.allocator();
    if (content_type != 23) size = bytes.len; // Linux takes so small a record whole.
    const wire = if (kernel.tls.sending != null)
        try kernel.tls.seal(gpa, content_type, bytes[0..size])
    else
        bytes[0..size];
    try kernel.sent.appendSlice(gpa, wire);
    if (kernel.send_room != std.math.maxInt(usize)) kernel.send_room -|= size;
    return size;
}

pub fn shutdownSend(descriptor: Descriptor) void {
    if (kernel.socketOf(descriptor).* != .connected) @panic("shut before it was connected");
    kernel.send_side_shut = true;
}

pub fn close(descriptor: Descriptor) void {
    _ = kernel.socketOf(descriptor);
    if (watchOf(descriptor) != null) @panic("closed while it is watched");
    kernel.sockets[@intCast(descriptor - descriptor_first)] = null;
}

pub fn setNoDelay(descriptor: Descriptor) os.OptionError!void {
    _ = kernel.socketOf(descriptor);
    if (kernel.option_failure) |failure| return failure;
    if (kernel.strike(.option, os.OptionError)) |failure| return failure;
}

pub fn setPeerTimeout(_: Descriptor, _: u32) os.OptionError!void {}

pub fn peerProgress(_: Descriptor) ?PeerProgress {
    return kernel.peer_progress;
}

pub fn liftUnansweredLimit(_: Descriptor) void {
    kernel.limits_lifted += 1;
}

pub fn setQuickAck(_: Descriptor) os.OptionError!void {}
pub fn setBusyPoll(_: Descriptor, _: u32) os.OptionError!void {}
pub fn setReceiveBufferSize(_: Descriptor, _: u32) os.OptionError!void {}
pub fn setSendBufferSize(_: Descriptor, _: u32) os.OptionError!void {}
pub fn enableReceiveStamps(_: Descriptor, _: TimestampMode) os.OptionError!void {}

pub fn socketOptions(_: Descriptor) SocketOptions {
    return .{
        .no_delay = true,
        .peer_timeout_s = null,
        .quick_ack = null,
        .busy_poll_us = null,
        .receive_buffer_size = 65_536,
        .send_buffer_size = 65_536,
    };
}

pub fn localAddress(_: Descriptor) ?Address {
    return null;
}

pub fn peerAddress(_: Descriptor) ?Address {
    return null;
}

/// Three cycles per nanosecond.
pub fn cycles() u64 {
    return kernel.now_ns * 3;
}

/// Unknown, as on machines whose kernel does not report it.
pub fn counterFrequency() ?u64 {
    return null;
}

/// A spin never waits: where spins are allowed, each call of this function moves the clock.
pub fn monotonicNs() u64 {
    if (kernel.spins_allowed) kernel.now_ns += 1_000;
    return kernel.now_ns;
}

pub fn realtimeNs() i64 {
    return epoch_ns + @as(i64, @intCast(kernel.now_ns));
}

/// What `realtimeNs` returns when `monotonicNs` returns 0.
pub const epoch_ns = 1_700_000_000_000_000_000;

/// The same bytes for the same seed.
pub fn random(buffer: []u8) void {
    kernel.random.random().bytes(buffer);
}

pub fn mapMirrored(size: usize, options: MapOptions) os.MapError!Mapping {
    if (kernel.maps_left == 0) return error.OutOfMemory;
    if (kernel.strike(.map, os.MapError)) |failure| return failure;
    kernel.maps_left -= 1;
    return os.Os.mapMirrored(size, options);
}

pub const unmapMirrored = os.Os.unmapMirrored;

pub fn pinThread(_: u32) os.TuneError!void {}
pub fn setRealtimePriority(_: u8) os.TuneError!void {}
pub fn lockMemory() os.TuneError!void {}

/// See notifier.zig.
pub const Notifier = struct {
    /// What the last wait found ready.
    ready: [sockets_max]*Watch = undefined,
    ready_count: usize = 0,
    /// How many descriptors are watched.
    watches: u32 = 0,
    /// What `raise` and `arm` were called for.
    raised: bool = false,
    alarm_ns: ?u64 = null,

    pub const Watch = WatchType(Notifier);

    pub fn init() os.NotifierError!Notifier {
        if (kernel.notifier_failure) |failure| return failure;
        if (kernel.strike(.notifier, os.NotifierError)) |failure| return failure;
        kernel.notifiers += 1;
        return .{};
    }

    pub fn deinit(notifier: *Notifier) void {
        for (kernel.watches) |place| {
            const watch_left = place orelse continue;
            if (watch_left.notifier == notifier) @panic("something is watched still");
        }
        kernel.notifiers -= 1;
    }

    pub fn watch(
        notifier: *Notifier,
        target: *Watch,
        watched: Descriptor,
        interest: os.Interest,
    ) os.WatchError!void {
        _ = kernel.socketOf(watched);
        if (target.notifier) |owner| {
            if (owner != notifier) @panic("a watch of two notifiers");
        }
        if (target.matches(watched, interest)) return;
        if (target.descriptor != watched) notifier.unwatch(target);
        if (kernel.watch_failure) |failure| return failure;
        if (kernel.strike(.watch, os.WatchError)) |failure| return failure;
        kernel.watch_changes += 1;
        if (target.notifier == null) {
            if (watchOf(watched) != null) @panic("two watches of one descriptor");
            const place = std.mem.findScalar(?*Watch, &kernel.watches, null);
            kernel.watches[place orelse @panic("too many watches")] = target;
            notifier.watches += 1;
        }
        target.notifier = notifier;
        target.descriptor = watched;
        target.interest = interest;
    }

    pub fn unwatch(notifier: *Notifier, target: *Watch) void {
        if (target.notifier == null) return;
        target.* = .{};
        notifier.watches -= 1;
        for (&kernel.watches) |*place| {
            if (place.* == target) place.* = null;
        }
    }

    pub fn disown(_: *Notifier) void {}

    pub fn wait(notifier: *Notifier, timeout_ns: ?u64) os.WaitError!os.Wake {
        kernel.wait_calls += 1;
        kernel.drained = false;
        notifier.ready_count = 0;
        if (kernel.wait_failure) |failure| return failure;
        if (kernel.strike(.wait, os.WaitError)) |failure| return failure;
        if (kernel.strikes(.interrupt)) return .interrupted;
        if (kernel.interrupts > 0) {
            kernel.interrupts -= 1;
            return .interrupted;
        }
        const is_watching = for (kernel.watches) |place| {
            if (place) |watched| if (watched.notifier == notifier) break true;
        } else false;
        if (notifier.raised) {
            _ = kernel.noteReady(notifier);
            return .ready;
        }
        if (!is_watching and timeout_ns != 0) @panic("waits for nothing");
        const end_ns = kernel.now_ns +| (timeout_ns orelse std.math.maxInt(u64));
        var paused = false;
        while (true) {
            if (kernel.noteReady(notifier)) return .ready;
            const happening_ns = kernel.nextHappeningNs(notifier) orelse std.math.maxInt(u64);
            if (happening_ns == std.math.maxInt(u64) and timeout_ns == null) {
                if (paused) return .interrupted; // A test that ends its script with a pause.
                @panic("waits for what cannot come");
            }
            kernel.now_ns = @max(kernel.now_ns, @min(happening_ns, end_ns));
            if (happening_ns > end_ns) return .timed_out;
            paused = true;
        }
    }

    pub fn found(notifier: *Notifier) []const *Watch {
        return notifier.ready[0..notifier.ready_count];
    }

    pub fn raise(notifier: *Notifier) void {
        notifier.raised = true;
    }

    pub fn lower(notifier: *Notifier) void {
        notifier.raised = false;
    }

    pub fn arm(notifier: *Notifier, deadline_ns: ?u64) os.NotifierError!void {
        notifier.alarm_ns = deadline_ns;
    }

    pub fn descriptor(_: *const Notifier) Descriptor {
        return notifier_descriptor;
    }
};

/// The watch of a descriptor, in any notifier.
fn watchOf(watched: Descriptor) ?*Notifier.Watch {
    for (kernel.watches) |place| {
        const watch = place orelse continue;
        if (watch.descriptor == watched) return watch;
    }
    return null;
}

comptime {
    os.assertPlatform(@This());
}
