//! The byte ring that all data passes through: the kernel or TLS writes at one end, the parser
//! reads at the other, in place, and the user's program may keep bytes in between.
//!
//! The memory is mapped twice, back to back, so that free and readable bytes are always one span:
//! no frame is ever split at the end of the buffer, and nobody copies to put it together.
//! An empty ring starts over at its first byte, so that quiet feeds stay in the L1 cache.
//!
//! The ring knows no sockets and no frames. It belongs to one thread at a time, its owner: only the
//! owner writes, reads and pins. Any thread may let go of a pin, at any moment: the list of pins
//! has a lock. A ring with no pin takes none, because what the owner alone adds to stays empty.

const std = @import("std");
const builtin = @import("builtin");
const memcheck = std.valgrind.memcheck;
const assert = std.debug.assert;
const constants = @import("constants.zig");
const os = @import("os.zig");
const Os = os.Os;

/// Bytes that somebody still looks at: as long as a pin holds them they are not overwritten.
/// Embedded in whatever keeps the bytes, and linked by `RingBuffer.pin`, so that pinning allocates
/// nothing. It must not move or be freed while it is linked. All fields belong to the ring.
pub const Pin = struct {
    /// Offset of the first byte; nothing when `size` is 0.
    start: u64,
    size: usize,
    /// The neighbours by place: nothing older starts later.
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
/// Invariant: released <= consumed <= produced <= released + capacity, and released <= the start
/// of every pin. `released` is what the writer has been told: it moves in `writable` only, so what
/// was consumed since can still be pinned.
pub const RingBuffer = struct {
    /// Bytes that the ring holds: a power of two, of at least one page. Read only.
    capacity: usize,
    mapping: os.Mapping,

    released: u64,
    consumed: u64,
    produced: u64,

    /// Guards what follows, up to `retired`, and the links of the pins.
    lock: std.c.pthread_mutex_t,
    /// The pins that hold bytes, in order of place.
    oldest: ?*Pin,
    newest: ?*Pin,
    /// All pins, also those of no bytes: these keep the memory mapped and hold nothing else.
    pins_count: usize,
    /// The owner is done; the last pin frees the ring.
    retired: bool,

    /// Where the last `writable` span began: by which copy the writer reaches its bytes.
    written_from: if (builtin.valgrind_support) u64 else void,

    pub const Options = struct {
        /// Ask for huge pages: fewer TLB misses. Falls back to normal pages, see `info`.
        huge_pages: bool = false,
    };

    pub const CreateError = os.MapError;

    /// What the ring turned out to be.
    pub const Info = struct {
        capacity: usize,
        huge_pages: bool,
        /// Always true: there is no other kind.
        mirrored: bool,
    };

    /// An empty ring of at least `capacity` bytes: the next power of two that is not below a page.
    /// All of its memory is there from the start. Asserts that `capacity` is at most
    /// `constants.ring_capacity_max`. The caller owns the ring, until `retire`.
    pub fn create(capacity: usize, options: Options) CreateError!*RingBuffer {
        return createOn(Os, capacity, options);
    }

    /// The same on a given platform, so that a scripted one can refuse the memory.
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
            .retired = false,
            .written_from = if (builtin.valgrind_support) 0 else {},
        };
        ring.invariants();
        ring.tellMemcheck(.undefined, 0, ring.capacity);
        return ring;
    }

    /// The owner is done with the ring and must not use it again. The memory is freed now or, when
    /// bytes are pinned, by the `unpin` of the last pin. Pinned bytes stay as they are until then.
    pub fn retire(ring: *RingBuffer) void {
        ring.acquire();
        assert(!ring.retired);
        ring.retired = true;
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
    /// empty when the ring is full or pins leave no room. The whole span may be scribbled on.
    /// Valid until the next call of `writable` or `reset`; `consume`, `pin` and `unpin` leave it
    /// alone. Bytes that were consumed before this call can no longer be pinned after it.
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

    /// The reader is done with the first `size` readable bytes. The bytes stay as they are until
    /// the next `writable`, which also starts over at the first byte of the memory if the ring is
    /// empty and nothing pinned. Asserts that so many are readable.
    pub fn consume(ring: *RingBuffer, size: usize) void {
        assert(size <= ring.produced - ring.consumed);
        ring.consumed += size;
        ring.invariants();
    }

    /// Keeps `bytes` from being overwritten until `unpin`. They must be readable, or have been
    /// consumed since the last call of `writable`: asserted. Bytes may be pinned more than once.
    /// No bytes need no place and no room: their pin only keeps the memory mapped.
    ///
    /// The oldest pin holds everything after it, too: the writer gets no byte behind it.
    /// Takes constant time when pins are made in order of place, as messages arrive; a pin that
    /// comes late is put in its place by a search from the newest.
    pub fn pin(ring: *RingBuffer, node: *Pin, bytes: []const u8) void {
        node.* = .{ .start = 0, .size = bytes.len, .previous = null, .next = null };
        ring.acquire();
        defer ring.release();
        assert(!ring.retired);
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

    /// Lets go of what `pin` held, in any order, in constant time, and from any thread. Frees a
    /// retired ring with its last pin. The pin may be used again or freed afterwards.
    pub fn unpin(ring: *RingBuffer, node: *Pin) void {
        ring.acquire();
        if (node.size > 0) {
            if (node.previous) |previous| previous.next = node.next else ring.setOldest(node.next);
            if (node.next) |next| next.previous = node.previous else ring.newest = node.previous;
        }
        node.* = undefined;
        ring.setPinsCount(ring.pins_count - 1);
        ring.pinInvariants();
        const unused = ring.retired and ring.pins_count == 0;
        ring.release();
        if (unused) ring.destroy(); // Else it may be gone already: not a word more.
    }

    /// Whether anybody holds a pin, of bytes or of none. Once it is false it stays so, until the
    /// owner pins something.
    pub fn pinned(ring: *const RingBuffer) bool {
        return @atomicLoad(usize, &ring.pins_count, .acquire) > 0;
    }

    /// Whether `bytes` lie in the memory of this ring.
    pub fn contains(ring: *const RingBuffer, bytes: []const u8) bool {
        const distance = @intFromPtr(bytes.ptr) -% @intFromPtr(ring.mapping.memory);
        return distance < 2 * ring.capacity;
    }

    /// Offset of the first of `bytes`, which must be of this ring and not yet be released: asserted
    /// as for `pin`. Offsets compare by age, until the ring starts over.
    pub fn offsetOf(ring: *const RingBuffer, bytes: []const u8) u64 {
        const distance = @intFromPtr(bytes.ptr) -% @intFromPtr(ring.mapping.memory);
        assert(distance <= 2 * ring.capacity);
        // A place in memory stands for one offset among the last `capacity` ones. No bytes may
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

    /// The byte at `offset`, and behind it the `capacity` bytes of a span.
    fn at(ring: *const RingBuffer, offset: u64) [*]u8 {
        return ring.mapping.memory + (offset & (ring.capacity - 1));
    }

    /// From where on somebody holds the bytes; null when nobody does.
    inline fn heldFrom(ring: *RingBuffer) ?u64 {
        // Whoever let go of a pin has read its bytes before: the owner sees both, or neither.
        if (@atomicLoad(?*Pin, &ring.oldest, .acquire) == null) return null;
        return ring.oldestStart();
    }

    fn oldestStart(ring: *RingBuffer) ?u64 {
        ring.acquire();
        defer ring.release();
        return if (ring.oldest) |oldest| oldest.start else null;
    }

    /// Under the lock, for those who look without it.
    fn setOldest(ring: *RingBuffer, node: ?*Pin) void {
        @atomicStore(?*Pin, &ring.oldest, node, .release);
    }

    /// The same.
    fn setPinsCount(ring: *RingBuffer, count: usize) void {
        @atomicStore(usize, &ring.pins_count, count, .release);
    }

    fn acquire(ring: *RingBuffer) void {
        const status = std.c.pthread_mutex_lock(&ring.lock);
        assert(status == .SUCCESS); // A plain mutex has no way to fail.
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

    /// Where valgrind looks on (`-Dvalgrind`, else this is nothing): bytes that were not produced,
    /// or were released, are as good as never written, and to go by them is an error. Memcheck
    /// keeps its books by address, and would not see that both copies are the same memory.
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
        if (state == .defined) { // That must be so already, where the writer sees it.
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
        assert(ring.retired);
        assert(ring.pins_count == 0);
        assert(ring.oldest == null);
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

    /// Under the lock.
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

/// A ring outlives every scope: Python objects hold it. The tests look for those left behind.
const allocator = if (builtin.is_test) std.testing.allocator else std.heap.c_allocator;

comptime {
    assert(@bitSizeOf(usize) == 64); // offsets index memory as they are
}

// Tests: random operations against a model that keeps every byte it ever wrote at its own place.

const testing = std.testing;

/// Makes `size` bytes readable.
fn fill(ring: *RingBuffer, size: usize) void {
    @memset(ring.writable()[0..size], '.');
    ring.produce(size);
}

test "ringbuffer: the capacity is the next power of two, of at least a page, twice in memory" {
    const page = std.heap.pageSize();
    const asked = [_]usize{ 0, 1, page, page + 1, 4 * page, 5 * page };
    const given = [_]usize{ page, page, page, 2 * page, 4 * page, 8 * page };
    for (asked, given) |size, capacity| {
        const ring = try RingBuffer.create(size, .{});
        defer ring.retire();
        try testing.expectEqual(capacity, ring.capacity);
        try testing.expectEqualDeep(
            RingBuffer.Info{ .capacity = capacity, .huge_pages = false, .mirrored = true },
            ring.info(),
        );
        const span = ring.writable();
        try testing.expectEqual(capacity, span.len);
        try testing.expectEqual(0, ring.readable().len);
        span[0] = 17;
        ring.produce(1);
        try testing.expectEqual(17, span.ptr[span.len]);
    }
}

test "ringbuffer: huge pages are used or done without" {
    const ring = try RingBuffer.create(4096 * 1024, .{ .huge_pages = true });
    defer ring.retire();
    const span = ring.writable();
    try testing.expectEqual(4096 * 1024, span.len);
    @memset(span, 5);
    ring.produce(span.len);
    try testing.expectEqual(0, ring.writable().len);
    try testing.expectEqual(5, ring.readable()[span.len - 1]);
}

test "ringbuffer: a span that wraps is one slice" {
    const ring = try RingBuffer.create(0, .{});
    defer ring.retire();
    const capacity = ring.capacity;
    fill(ring, capacity);
    ring.consume(capacity - 2);
    @memcpy(ring.writable()[0..5], "hello");
    ring.produce(5);
    ring.consume(2);
    try testing.expectEqualStrings("hello", ring.readable());
    try testing.expectEqual(capacity - 5, ring.writable().len);
    try testing.expectEqual(capacity, ring.offsetOf(ring.readable()));
    try testing.expectEqual(capacity + 3, ring.offsetOf(ring.readable()[3..]));
    try testing.expectEqual(capacity + 5, ring.offsetOf(ring.readable()[5..]));
}

test "ringbuffer: starts over at its first byte when empty, and only then" {
    const ring = try RingBuffer.create(0, .{});
    defer ring.retire();
    const first = ring.writable().ptr;

    fill(ring, 100);
    ring.consume(60);
    try testing.expectEqual(first + 100, ring.writable().ptr);
    ring.consume(40);
    try testing.expectEqual(first, ring.writable().ptr);
    try testing.expectEqual(ring.capacity, ring.writable().len);

    // A span that is being filled does not move when the reader empties the ring.
    fill(ring, 100);
    const span = ring.writable();
    ring.consume(100);
    span[0] = 42;
    ring.produce(1);
    try testing.expectEqual(42, ring.readable()[0]);
    ring.consume(1);

    // Not while bytes are pinned.
    @memcpy(ring.writable()[0..4], "keep");
    ring.produce(4);
    var pin: Pin = undefined;
    ring.pin(&pin, ring.readable());
    ring.consume(4);
    try testing.expectEqual(first + 4, ring.writable().ptr);
    try testing.expectEqual(ring.capacity - 4, ring.writable().len);
    ring.unpin(&pin);
    try testing.expectEqual(first, ring.writable().ptr);
}

test "ringbuffer: reset forgets what was not consumed" {
    const ring = try RingBuffer.create(0, .{});
    defer ring.retire();
    const first = ring.writable().ptr;
    fill(ring, ring.capacity);
    ring.consume(10);
    ring.reset();
    try testing.expectEqual(0, ring.readable().len);
    try testing.expectEqual(ring.capacity, ring.writable().len);
    try testing.expectEqual(first, ring.writable().ptr);
}

test "ringbuffer: the oldest pin takes the room, whatever the order of letting go" {
    const ring = try RingBuffer.create(0, .{});
    defer ring.retire();
    const orders = [_][3]u8{
        .{ 0, 1, 2 }, .{ 0, 2, 1 }, .{ 1, 0, 2 }, .{ 1, 2, 0 }, .{ 2, 0, 1 }, .{ 2, 1, 0 },
    };
    for (orders) |order| for (orders) |order_pinned| {
        fill(ring, ring.capacity);
        var pins: [3]Pin = undefined;
        for (order_pinned) |index| {
            ring.pin(&pins[index], ring.readable()[@as(usize, index) * 100 ..][0..100]);
        }
        ring.consume(ring.capacity);

        var held: [3]bool = @splat(true);
        for (order) |index| {
            const oldest = std.mem.findScalar(bool, &held, true).?;
            try testing.expectEqual(oldest * 100, ring.writable().len);
            try testing.expect(ring.pinned());
            ring.unpin(&pins[index]);
            held[index] = false;
        }
        try testing.expect(!ring.pinned());
        try testing.expectEqual(ring.capacity, ring.writable().len);
    };
}

test "ringbuffer: a pin of no bytes takes no room" {
    const ring = try RingBuffer.create(0, .{});
    defer ring.retire();
    var pins: [2]Pin = undefined;
    fill(ring, 8);
    ring.pin(&pins[0], ring.readable()[8..]);
    ring.pin(&pins[1], &.{});
    ring.consume(8);
    try testing.expect(ring.pinned());
    try testing.expectEqual(ring.capacity, ring.writable().len);
    ring.unpin(&pins[0]);
    try testing.expect(ring.pinned());
    ring.unpin(&pins[1]);
    try testing.expect(!ring.pinned());
}

test "ringbuffer: consumed bytes can be pinned until the writer asks for room" {
    const ring = try RingBuffer.create(0, .{});
    defer ring.retire();
    const capacity = ring.capacity;
    // A message across the end of the memory, the ring then empty: the hardest place.
    fill(ring, capacity - 2);
    ring.consume(capacity - 3);
    @memcpy(ring.writable()[0..5], "order");
    ring.produce(5);
    ring.consume(1);
    const message = ring.readable();
    ring.consume(5);
    var pin: Pin = undefined;
    ring.pin(&pin, message);
    @memset(ring.writable(), 0xaa);
    try testing.expectEqual(capacity - 5, ring.writable().len);
    try testing.expectEqualStrings("order", message);
    ring.unpin(&pin);
}

test "ringbuffer: a retired ring lives as long as its last pin" {
    const ring = try RingBuffer.create(0, .{});
    const memory = ring.mapping.memory;
    const size = 2 * ring.capacity;
    @memcpy(ring.writable()[0..4], "keep");
    ring.produce(4);
    const bytes = ring.readable();
    var pins: [3]Pin = undefined;
    ring.pin(&pins[0], bytes[0..2]);
    ring.pin(&pins[1], bytes[2..]);
    ring.pin(&pins[2], bytes[4..]);
    ring.retire();
    try testing.expectEqualStrings("keep", bytes);
    ring.unpin(&pins[1]);
    ring.unpin(&pins[0]);
    try testing.expectEqualStrings("keep", bytes);
    try testing.expect(isMapped(memory, size));
    ring.unpin(&pins[2]);
    try testing.expect(!isMapped(memory, size));
}

test "ringbuffer: random operations against a model" {
    for (0..60) |seed| {
        var model: Model = try .init(seed);
        defer model.deinit();
        for (0..1500) |_| try model.step();
    }
}

/// The system refuses to synchronise what is not mapped: msync(2), ENOMEM.
fn isMapped(memory: [*]align(std.heap.page_size_min) u8, size: usize) bool {
    return std.c.msync(@ptrCast(memory), size, std.c.MSF.ASYNC) == 0;
}

/// Keeps all bytes ever produced by their number; the ring's offsets may start over, these do not.
const Model = struct {
    ring: *RingBuffer,
    prng: std.Random.DefaultPrng,
    stream: std.ArrayList(u8),
    consumed: usize,
    /// `RingBuffer.released`: what was consumed before the last call of `writable` is gone.
    released: usize,
    holds: std.ArrayList(*Hold),

    const Hold = struct { pin: Pin, bytes: []const u8, start: usize };
    const holds_max = 12;
    const gpa = testing.allocator;

    fn init(seed: u64) !Model {
        const ring = try RingBuffer.create(0, .{});
        return .{
            .ring = ring,
            .prng = .init(seed),
            .stream = .empty,
            .consumed = 0,
            .released = 0,
            .holds = .empty,
        };
    }

    fn deinit(model: *Model) void {
        model.ring.retire();
        for (model.holds.items) |hold| {
            model.ring.unpin(&hold.pin);
            gpa.destroy(hold);
        }
        model.holds.deinit(gpa);
        model.stream.deinit(gpa);
    }

    fn step(model: *Model) !void {
        switch (model.prng.random().uintLessThan(u8, 100)) {
            0...29 => try model.write(),
            30...64 => model.consume(),
            65...79 => try model.pin(),
            80...98 => try model.unpin(),
            else => model.reset(),
        }
        try model.check();
    }

    /// Fills the whole writable span with noise, so that an overlap shows, and produces a part.
    fn write(model: *Model) !void {
        const random = model.prng.random();
        model.released = model.consumed;
        for (model.holds.items) |hold| {
            if (hold.bytes.len > 0) model.released = @min(model.released, hold.start);
        }
        const span = model.ring.writable();
        const used = model.stream.items.len - model.released;
        try testing.expectEqual(model.ring.capacity - used, span.len);
        if (used == 0) try testing.expectEqual(model.ring.mapping.memory, span.ptr);

        random.bytes(span);
        const size = model.amount(span.len);
        const half = random.uintAtMost(usize, size);
        try model.stream.appendSlice(gpa, span[0..size]);
        model.ring.produce(half);
        model.ring.produce(size - half);
    }

    fn consume(model: *Model) void {
        const size = model.amount(model.stream.items.len - model.consumed);
        model.ring.consume(size);
        model.consumed += size;
    }

    fn pin(model: *Model) !void {
        if (model.holds.items.len == holds_max) return;
        const random = model.prng.random();
        const end = model.stream.items.len;
        // Mostly readable bytes, sometimes consumed ones that the writer has not been given.
        const lowest = if (random.uintLessThan(u8, 4) == 0) model.released else model.consumed;
        const start = lowest + random.uintAtMost(usize, end - lowest);
        const size = model.amount(end - start);

        const hold = try gpa.create(Hold);
        const readable = model.ring.readable();
        const address = if (start >= model.consumed)
            readable.ptr + (start - model.consumed)
        else
            model.placeBefore(readable.ptr, model.consumed - start);
        hold.* = .{ .pin = undefined, .bytes = address[0..size], .start = start };
        model.ring.pin(&hold.pin, hold.bytes);
        try model.holds.append(gpa, hold);
    }

    /// `distance` bytes before `pointer`, in the first copy of the memory.
    fn placeBefore(model: *Model, pointer: [*]u8, distance: usize) [*]u8 {
        const memory = model.ring.mapping.memory;
        const place = @intFromPtr(pointer) - @intFromPtr(memory);
        return memory + (place + model.ring.capacity - distance) % model.ring.capacity;
    }

    fn unpin(model: *Model) !void {
        if (model.holds.items.len == 0) return;
        const index = model.prng.random().uintLessThan(usize, model.holds.items.len);
        const hold = model.holds.swapRemove(index);
        model.ring.unpin(&hold.pin);
        gpa.destroy(hold);
    }

    fn reset(model: *Model) void {
        if (model.holds.items.len > 0) return;
        model.ring.reset();
        model.consumed = model.stream.items.len;
        model.released = model.consumed;
    }

    fn check(model: *Model) !void {
        const ring = model.ring;
        try testing.expectEqualSlices(u8, model.stream.items[model.consumed..], ring.readable());
        try testing.expectEqual(model.holds.items.len > 0, ring.pinned());
        try testing.expectEqual(model.holds.items.len, ring.pins_count);
        for (model.holds.items) |hold| {
            const expected = model.stream.items[hold.start..][0..hold.bytes.len];
            try testing.expectEqualSlices(u8, expected, hold.bytes);
        }

        var linked: usize = 0;
        var previous: ?*Pin = null;
        var node = ring.oldest;
        while (node) |current| : (node = current.next) {
            try testing.expectEqual(previous, current.previous);
            if (previous) |earlier| try testing.expect(earlier.start <= current.start);
            previous = current;
            linked += 1;
        }
        try testing.expectEqual(previous, ring.newest);
        for (model.holds.items) |hold| linked -= @intFromBool(hold.bytes.len > 0);
        try testing.expectEqual(0, linked);
    }

    /// Mostly little, sometimes nothing, everything or anything.
    fn amount(model: *Model, most: usize) usize {
        const random = model.prng.random();
        return switch (random.uintLessThan(u8, 8)) {
            0 => 0,
            1 => most,
            2, 3 => random.uintAtMost(usize, most),
            else => random.uintAtMost(usize, @min(most, 300)),
        };
    }
};

/// Pins that an owner hands to other threads, which look at the bytes and let go.
const TestKeepers = struct {
    ring: *RingBuffer,
    slots: [slots_count]Slot = @splat(.{}),
    /// The owner is done: what is still kept is let go of, and no more will come.
    over: std.atomic.Value(bool) = .init(false),
    changed_count: std.atomic.Value(u32) = .init(0),

    const slots_count = 8;

    const Slot = struct {
        state: std.atomic.Value(enum(u8) { empty, kept, looked_at }) = .init(.empty),
        pin: Pin = undefined,
        bytes: []const u8 = &.{},
        value: u8 = 0,
    };

    /// Called by the owner. False when every slot is taken.
    fn keep(keepers: *TestKeepers, bytes: []const u8) bool {
        for (&keepers.slots) |*slot| {
            if (slot.state.load(.acquire) != .empty) continue;
            keepers.ring.pin(&slot.pin, bytes);
            slot.bytes = bytes;
            slot.value = bytes[0];
            slot.state.store(.kept, .release);
            return true;
        }
        return false;
    }

    fn run(keepers: *TestKeepers, seed: u64) void {
        var prng: std.Random.DefaultPrng = .init(seed);
        const random = prng.random();
        while (true) {
            const over = keepers.over.load(.acquire);
            const found = keepers.takeAny(random.uintLessThan(usize, slots_count));
            if (over and !found) return;
            if (!found) std.Thread.yield() catch {};
        }
    }

    fn takeAny(keepers: *TestKeepers, first: usize) bool {
        for (0..slots_count) |index| {
            const slot = &keepers.slots[(first + index) % slots_count];
            if (slot.state.cmpxchgStrong(.kept, .looked_at, .acquire, .monotonic) != null) continue;
            const same = std.mem.allEqual(u8, slot.bytes, slot.value);
            if (!same) _ = keepers.changed_count.fetchAdd(1, .monotonic);
            keepers.ring.unpin(&slot.pin);
            slot.state.store(.empty, .release);
            return true;
        }
        return false;
    }
};

test "ringbuffer: other threads let go of pins, and no pinned byte is written over" {
    for (0..8) |seed| {
        var prng: std.Random.DefaultPrng = .init(seed);
        const random = prng.random();
        const ring = try RingBuffer.create(0, .{});
        var keepers: TestKeepers = .{ .ring = ring };
        var threads: [3]std.Thread = undefined;
        for (&threads, 0..) |*thread, index| {
            thread.* = try std.Thread.spawn(.{}, TestKeepers.run, .{ &keepers, index });
        }
        var written: usize = 0;
        while (written < 3_000) {
            const span = ring.writable();
            const size = random.intRangeAtMost(usize, 1, 700);
            if (span.len < size) { // Until enough has been let go of.
                std.Thread.yield() catch {};
                continue;
            }
            @memset(span[0..size], @truncate(written));
            ring.produce(size);
            const bytes = ring.readable();
            ring.consume(size);
            if (random.boolean()) _ = keepers.keep(bytes);
            written += 1;
        }
        ring.retire(); // The last pin frees it, in whichever thread that is.
        keepers.over.store(true, .release);
        for (threads) |thread| thread.join();
        try testing.expectEqual(0, keepers.changed_count.load(.monotonic));
    }
}
