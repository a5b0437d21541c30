//! Tests of `ringbuffer.zig`: random operations against a model that keeps every byte it ever wrote
//! at its own place.

const std = @import("std");
const ringbuffer = @import("ringbuffer.zig");
const Pin = ringbuffer.Pin;
const RingBuffer = ringbuffer.RingBuffer;

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

test "ringbuffer: the oldest pin keeps the room, in whatever order pins are released" {
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

/// msync(2) fails with ENOMEM for what is not mapped.
fn isMapped(memory: [*]align(std.heap.page_size_min) u8, size: usize) bool {
    return std.c.msync(@ptrCast(memory), size, std.c.MSF.ASYNC) == 0;
}

/// Keeps all bytes ever produced, numbered from the first: the ring's offsets may start over, these
/// numbers do not.
const Model = struct {
    ring: *RingBuffer,
    prng: std.Random.DefaultPrng,
    stream: std.ArrayList(u8),
    consumed: usize,
    /// As `RingBuffer.released`: what was consumed before the last call of `writable` is gone.
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
        // Mostly readable bytes, sometimes consumed ones that the writer has not been given yet.
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

    /// Mostly a small size, sometimes 0, the largest or any.
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

/// Pins that an owner hands to other threads, which check the bytes and unpin them.
const TestKeepers = struct {
    ring: *RingBuffer,
    slots: [slots_count]Slot = @splat(.{}),
    /// The owner has finished: the threads unpin what is left, and no more pins will come.
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

test "ringbuffer: other threads release pins, and no pinned byte is overwritten" {
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
            if (span.len < size) { // Wait until enough was unpinned.
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
        ring.retire(); // The last `unpin` frees it, in whichever thread that is.
        keepers.over.store(true, .release);
        for (threads) |thread| thread.join();
        try testing.expectEqual(0, keepers.changed_count.load(.monotonic));
    }
}

test "ringbuffer: the owner waits until the pin that is in its way is undone, by another thread" {
    const ring = try RingBuffer.create(0, .{});
    defer ring.retire();
    const half = ring.capacity / 2;
    @memset(ring.writable(), 0);
    ring.produce(ring.writable().len);
    var pins: [2]Pin = undefined;
    for (&pins) |*pin| {
        ring.pin(pin, ring.readable()[0..half]);
        ring.consume(half);
    }
    try testing.expectEqual(0, ring.writable().len);
    try testing.expect(!ring.waitForRelease(0));

    // The younger one is not in the way.
    ring.unpin(&pins[1]);
    try testing.expect(!ring.waitForRelease(std.time.ns_per_ms));
    const thread = try std.Thread.spawn(.{}, RingBuffer.unpin, .{ ring, &pins[0] });
    try testing.expect(ring.waitForRelease(10 * std.time.ns_per_s));
    thread.join();
    try testing.expectEqual(ring.capacity, ring.writable().len);
    try testing.expect(ring.waitForRelease(std.math.maxInt(u64))); // Nothing is in the way.
}
