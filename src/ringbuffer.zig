//! The ring buffer that all data passes through; its bytes can be pinned.
//!
//! The kernel or TLS writes at one end, the parser reads in place at the other, and the user's
//! program may keep bytes in between.
//!
//! The memory is mapped twice, back to back, so that free and readable bytes are always one span:
//! no frame is split at the end of the buffer, and none has to be copied into one piece.
//! An empty ring starts over at its first byte, so that quiet feeds stay in the L1 cache.
//!
//! The ring knows no sockets and no frames. It belongs to one thread at a time, its owner: only the
//! owner writes, reads and pins. Any thread may unpin, at any moment: the list of pins has a lock.
//! A ring without pins does not take it, because only the owner adds to the list.

const std = @import("std");
const builtin = @import("builtin");
const memcheck = std.valgrind.memcheck;
const assert = std.debug.assert;
const constants = @import("constants.zig");
const os = @import("os.zig");
const Os = os.Os;

/// Bytes that somebody still reads: they are not overwritten as long as a pin holds them.
/// Embedded in whatever keeps the bytes, and linked by `RingBuffer.pin`, so that pinning allocates
/// nothing. It must not move or be freed while it is linked. All fields belong to the ring.
pub const Pin = struct {
    /// Offset of the first byte; without meaning when `size` is 0.
    start: u64,
    size: usize,
    /// The neighbours in the list, which is sorted by offset.
    previous: ?*Pin,
    next: ?*Pin,
};

/// A mirrored ring of bytes, on the heap, because pins may outlive its owner (see `retire`).
///
///                      released   consumed        produced     released + capacity
///                         |          |               |                |
///     ... overwritten ... | pinned   |   readable    |    writable    |
///                         ^
///                         the oldest pin starts here; no pins: released = consumed
///
///     memory   0                        capacity                   2 * capacity
///              +---------------------------+---------------------------+
///              | dable |  writable | rea   | dable |  writable | rea   |   the same pages twice
///              +---------------------------+---------------------------+
///                                  <-- one span -->
///
/// Offsets count bytes and only grow; the byte at an offset lies at `offset % capacity`. When
/// nothing is readable or pinned, `writable` lets them start again from 0.
///
/// Invariant: released <= consumed <= produced <= released + capacity, and released <= the start of
/// every pin. The writer may overwrite what is before `released`. It moves only in `writable`, so
/// that what was consumed since can still be pinned.
pub const RingBuffer = struct {
    /// How many bytes the ring holds: a power of two, at least a page. Read only.
    capacity: usize,
    mapping: os.Mapping,

    released: u64,
    consumed: u64,
    produced: u64,

    /// Guards the fields that follow, up to `attention`, and the links of the pins.
    lock: std.c.pthread_mutex_t,
    /// The pins that hold bytes, sorted by offset.
    oldest: ?*Pin,
    newest: ?*Pin,
    /// All pins, with those of no bytes, which only keep the memory mapped.
    pins_count: usize,
    /// What an `unpin` has to see to. One field, so that it costs one look when there is nothing.
    attention: Attention,
    /// Signalled when something is unpinned while the owner waits for that.
    unpinned: std.c.pthread_cond_t,

    /// Where the last `writable` span began: tells which copy the writer uses.
    written_from: if (builtin.valgrind_support) u64 else void,

    pub const Options = struct {
        /// Ask for huge pages: fewer TLB misses. Falls back to normal pages, see `info`.
        huge_pages: bool = false,
    };

    const Attention = packed struct {
        /// The owner no longer uses the ring; the last `unpin` frees it.
        retired: bool = false,
        /// The owner is in `waitForRelease`.
        awaited: bool = false,
    };

    pub const CreateError = os.MapError;

    /// What the ring turned out to be.
    pub const Info = struct {
        capacity: usize,
        huge_pages: bool,
        /// Always true: there is no other kind.
        mirrored: bool,
    };

    /// An empty ring of at least `capacity` bytes: the next power of two, and at least a page.
    /// All of its memory is allocated from the start. Asserts that `capacity` is at most
    /// `constants.ring_capacity_max`. The caller owns the ring, until `retire`.
    pub fn create(capacity: usize, options: Options) CreateError!*RingBuffer {
        return createOn(Os, capacity, options);
    }

    /// The same on a given platform, so that a scripted one can refuse the memory in a test.
    pub fn createOn(
        comptime Platform: type,
        capacity: usize,
        options: Options,
    ) CreateError!*RingBuffer {
        assert(capacity <= constants.ring_capacity_max);
        const size = std.math.ceilPowerOfTwoAssert(usize, @max(capacity, std.heap.pageSize()));

        const mapping = try Platform.mapMirrored(size, .{ .huge_pages = options.huge_pages });
        errdefer Os.unmapMirrored(mapping);
        assert(mapping.size >= size);

        const ring = try allocator.create(RingBuffer);
        ring.* = .{
            .capacity = mapping.size,
            .mapping = mapping,
            .released = 0,
            .consumed = 0,
            .produced = 0,
            .lock = .{},
            .oldest = null,
            .newest = null,
            .pins_count = 0,
            .attention = .{},
            .unpinned = .{},
            .written_from = if (builtin.valgrind_support) 0 else {},
        };
        ring.invariants();
        ring.tellMemcheck(.undefined, 0, ring.capacity);
        return ring;
    }

    /// The owner must not use the ring after this. The memory is freed now or, if there are pins,
    /// by the last `unpin`. Pinned bytes stay unchanged until then.
    pub fn retire(ring: *RingBuffer) void {
        ring.acquire();
        assert(ring.attention == Attention{});
        ring.attention.retired = true;
        const unpinned = ring.pins_count == 0;
        ring.release();
        if (unpinned) ring.destroy();
    }

    /// Empties the ring, for a new connection over the same memory. Asserts that nothing is pinned.
    pub fn reset(ring: *RingBuffer) void {
        assert(!ring.pinned());
        ring.tellMemcheck(.undefined, ring.released, ring.produced);
        ring.rewind();
        ring.invariants();
    }

    /// All free bytes, as one span, for the writer to fill from the front and then to `produce`;
    /// empty when the ring is full or pins leave no room. All of the span may be overwritten. Valid
    /// until the next call of `writable` or `reset`; `consume`, `pin` and `unpin` do not change it.
    /// Bytes that were consumed before this call cannot be pinned after it.
    pub fn writable(ring: *RingBuffer) []u8 {
        const held_from = ring.heldFrom();
        const releasable = @min(held_from orelse ring.consumed, ring.consumed);
        ring.tellMemcheck(.undefined, ring.released, releasable);
        if (held_from == null and ring.consumed == ring.produced) {
            ring.rewind();
        } else {
            ring.released = releasable;
        }
        ring.invariants();
        if (builtin.valgrind_support) ring.written_from = ring.produced;

        const free = ring.capacity - (ring.produced - ring.released);
        return ring.at(ring.produced)[0..free];
    }

    /// Makes the first `size` bytes of the last `writable` span readable. May be called several
    /// times for one span. Asserts that they are not more than the span had.
    pub fn produce(ring: *RingBuffer, size: usize) void {
        assert(size <= ring.capacity - (ring.produced - ring.released));
        ring.tellMemcheck(.defined, ring.produced, ring.produced + size);
        ring.produced += size;
        ring.invariants();
    }

    /// All bytes that were produced and not consumed, as one span, oldest first. They may be
    /// changed in place. Valid until they are consumed and `writable` is called, longer if pinned.
    pub fn readable(ring: *const RingBuffer) []u8 {
        return ring.at(ring.consumed)[0 .. ring.produced - ring.consumed];
    }

    /// The reader no longer needs the first `size` readable bytes. They stay unchanged until the
    /// next `writable`, which also starts over at the first byte of the memory if the ring is empty
    /// and nothing is pinned. Asserts that so many are readable.
    pub fn consume(ring: *RingBuffer, size: usize) void {
        assert(size <= ring.produced - ring.consumed);
        ring.consumed += size;
        ring.invariants();
    }

    /// Keeps `bytes` from being overwritten until `unpin`. Asserts that they are readable, or were
    /// consumed since the last call of `writable`. Bytes may be pinned more than once. A pin of no
    /// bytes takes no room: it only keeps the memory mapped.
    ///
    /// The oldest pin holds everything after it, too: the writer gets no byte beyond its start.
    /// Takes constant time when pins are made in the order of their bytes, as messages arrive; any
    /// other is put into its place by a search from the newest.
    pub fn pin(ring: *RingBuffer, node: *Pin, bytes: []const u8) void {
        node.* = .{ .start = 0, .size = bytes.len, .previous = null, .next = null };
        ring.acquire();
        defer ring.release();
        assert(!ring.attention.retired);
        ring.setPinsCount(ring.pins_count + 1);
        if (bytes.len == 0) return;

        node.start = ring.offsetOf(bytes);
        node.previous = ring.newest;
        while (node.previous) |previous| {
            if (previous.start <= node.start) break;
            node.next = previous;
            node.previous = previous.previous;
        }
        if (node.previous) |previous| previous.next = node else ring.setOldest(node);
        if (node.next) |next| next.previous = node else ring.newest = node;
        ring.pinInvariants();
        assert(ring.oldest.?.start >= ring.released);
        assert(ring.newest.?.start + ring.newest.?.size <= ring.produced);
    }

    /// Undoes `pin`: in any order, in constant time, and from any thread. The last one frees a
    /// retired ring. The pin may be used again or freed afterwards.
    pub fn unpin(ring: *RingBuffer, node: *Pin) void {
        ring.acquire();
        if (node.size > 0) {
            if (node.previous) |previous| previous.next = node.next else ring.setOldest(node.next);
            if (node.next) |next| next.previous = node.previous else ring.newest = node.previous;
        }
        node.* = undefined;
        ring.setPinsCount(ring.pins_count - 1);
        ring.pinInvariants();
        const unused = ring.attention != Attention{} and ring.attend();
        ring.release();
        if (unused) ring.destroy(); // Else another thread may free it: do not touch it after this.
    }

    /// For the owner, after `writable` gave too little: blocks until the pin that was in the way is
    /// undone by another thread, which the next `writable` shows. False when it is still there
    /// after this time, or about this time: the clock may be set meanwhile.
    pub fn waitForRelease(ring: *RingBuffer, limit_ns: u64) bool {
        const end_ns = @as(u64, @intCast(Os.realtimeNs())) +| limit_ns;
        const end: std.c.timespec = .{
            .sec = @intCast(@min(end_ns / std.time.ns_per_s, std.math.maxInt(i32))),
            .nsec = @intCast(end_ns % std.time.ns_per_s),
        };
        ring.acquire();
        defer ring.release();
        ring.attention.awaited = true;
        defer ring.attention.awaited = false;
        while (ring.oldest) |oldest| {
            if (oldest.start > ring.released) break;
            switch (std.c.pthread_cond_timedwait(&ring.unpinned, &ring.lock, &end)) {
                .SUCCESS => {},
                .TIMEDOUT => return false,
                else => unreachable, // The lock is held, and the time is valid.
            }
        }
        return true;
    }

    /// Whether there is a pin of bytes.
    pub fn holdsBytes(ring: *RingBuffer) bool {
        return ring.heldFrom() != null;
    }

    /// Whether there is a pin, of bytes or of none. Once it is false it stays false, until the
    /// owner pins something.
    pub fn pinned(ring: *const RingBuffer) bool {
        return @atomicLoad(usize, &ring.pins_count, .acquire) > 0;
    }

    /// Whether `bytes` lie in the memory of this ring.
    pub fn contains(ring: *const RingBuffer, bytes: []const u8) bool {
        const distance = @intFromPtr(bytes.ptr) -% @intFromPtr(ring.mapping.memory);
        return distance < 2 * ring.capacity;
    }

    /// Offset of the first of `bytes`. Asserts, as `pin` does, that they are of this ring and not
    /// yet released. A larger offset means younger bytes, until the ring starts over.
    pub fn offsetOf(ring: *const RingBuffer, bytes: []const u8) u64 {
        const distance = @intFromPtr(bytes.ptr) -% @intFromPtr(ring.mapping.memory);
        assert(distance <= 2 * ring.capacity);
        // Among the last `capacity` offsets, each has its own place in memory. An empty slice may
        // begin at the end.
        const last = ring.produced -% @intFromBool(bytes.len > 0);
        const age = (last -% distance) & (ring.capacity - 1);
        const offset = last -% age;
        assert(offset >= ring.released);
        assert(offset <= ring.produced);
        assert(bytes.len <= ring.produced - offset);
        return offset;
    }

    /// What the ring turned out to be, for the user to look at.
    pub fn info(ring: *const RingBuffer) Info {
        return .{
            .capacity = ring.capacity,
            .huge_pages = ring.mapping.huge_pages,
            .mirrored = true,
        };
    }

    /// The byte at `offset`, the first of the `capacity` bytes of a span.
    fn at(ring: *const RingBuffer, offset: u64) [*]u8 {
        return ring.mapping.memory + (offset & (ring.capacity - 1));
    }

    /// Where the oldest pin begins; null without one.
    inline fn heldFrom(ring: *RingBuffer) ?u64 {
        // Acquire: a thread reads pinned bytes before it unpins them, and that order holds here.
        if (@atomicLoad(?*Pin, &ring.oldest, .acquire) == null) return null;
        return ring.oldestStart();
    }

    fn oldestStart(ring: *RingBuffer) ?u64 {
        ring.acquire();
        defer ring.release();
        return if (ring.oldest) |oldest| oldest.start else null;
    }

    /// Called under the lock; atomic for readers that do not take it.
    fn setOldest(ring: *RingBuffer, node: ?*Pin) void {
        @atomicStore(?*Pin, &ring.oldest, node, .release);
    }

    /// Called under the lock; atomic for readers that do not take it.
    fn setPinsCount(ring: *RingBuffer, count: usize) void {
        @atomicStore(usize, &ring.pins_count, count, .release);
    }

    /// Wakes an owner that waits. Whether the ring is to be freed. Called under the lock.
    noinline fn attend(ring: *RingBuffer) bool {
        if (ring.attention.awaited) {
            const status = std.c.pthread_cond_signal(&ring.unpinned);
            assert(status == .SUCCESS);
        }
        return ring.attention.retired and ring.pins_count == 0;
    }

    fn acquire(ring: *RingBuffer) void {
        const status = std.c.pthread_mutex_lock(&ring.lock);
        assert(status == .SUCCESS); // A plain mutex cannot fail.
    }

    fn release(ring: *RingBuffer) void {
        const status = std.c.pthread_mutex_unlock(&ring.lock);
        assert(status == .SUCCESS);
    }

    fn rewind(ring: *RingBuffer) void {
        ring.released = 0;
        ring.consumed = 0;
        ring.produced = 0;
    }

    /// For valgrind (`-Dvalgrind`; else this does nothing): marks bytes that were not produced, or
    /// were released, as undefined, so that memcheck reports code that depends on them. Done for
    /// both copies, because memcheck keeps its state by address and does not know that they are the
    /// same.
    inline fn tellMemcheck(
        ring: *const RingBuffer,
        comptime state: enum { defined, undefined },
        from: u64,
        to: u64,
    ) void {
        if (!builtin.valgrind_support) return;
        const start = from & (ring.capacity - 1);
        const before_end = @min(to - from, ring.capacity - start);
        const wrapped = to - from - before_end;
        if (state == .defined) { // In the writer's copy they must be defined already.
            const written = ring.at(ring.written_from) + (from - ring.written_from);
            _ = memcheck.checkMemIsDefined(written[0 .. to - from]);
        }
        for ([_]usize{ 0, ring.capacity }) |copy| {
            const memory = ring.mapping.memory + copy;
            const parts = [_][]const u8{ memory[start..][0..before_end], memory[0..wrapped] };
            for (parts) |part| switch (state) {
                .defined => memcheck.makeMemDefined(part),
                .undefined => memcheck.makeMemUndefined(part),
            };
        }
    }

    fn destroy(ring: *RingBuffer) void {
        assert(ring.attention.retired);
        assert(ring.pins_count == 0);
        assert(ring.oldest == null);
        _ = std.c.pthread_cond_destroy(&ring.unpinned);
        _ = std.c.pthread_mutex_destroy(&ring.lock);
        Os.unmapMirrored(ring.mapping);
        allocator.destroy(ring);
    }

    fn invariants(ring: *const RingBuffer) void {
        assert(std.math.isPowerOfTwo(ring.capacity));
        assert(ring.capacity == ring.mapping.size);
        assert(ring.released <= ring.consumed);
        assert(ring.consumed <= ring.produced);
        assert(ring.produced - ring.released <= ring.capacity);
    }

    /// Called under the lock.
    fn pinInvariants(ring: *const RingBuffer) void {
        assert((ring.oldest == null) == (ring.newest == null));
        if (ring.oldest) |oldest| {
            assert(ring.pins_count > 0);
            assert(oldest.previous == null);
            assert(ring.newest.?.next == null);
            assert(ring.newest.?.start >= oldest.start);
        }
    }
};

/// Python objects keep rings, so no scope owns them. The tests find rings that were not freed.
const allocator = if (builtin.is_test) std.testing.allocator else std.heap.c_allocator;

comptime {
    assert(@bitSizeOf(usize) == 64); // offsets index memory as they are
}
