//! Tests of the handovers: from OpenSSL's handshake to the direct engine, and on to the kernel. The
//! judge is OpenSSL's server in memory.

const std = @import("std");
const constants = @import("../constants.zig");
const ssl = @import("../ssl.zig");
const tls_server = @import("../testing/tls_server.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const expectEqualStrings = testing.expectEqualStrings;
const Server = tls_server.Server;

const plaintext_size_max = constants.record_plaintext_size_max;
const room_size = constants.record_size_max;

fn patternOf(gpa: std.mem.Allocator, size: usize) ![]u8 {
    const bytes = try gpa.alloc(u8, size);
    for (bytes, 0..) |*byte, index| byte.* = @truncate(index *% 167 +% index / 256);
    return bytes;
}

/// A client's session over the direct engine, and its server.
const Shaken = struct {
    arena: std.heap.ArenaAllocator,
    context: ssl.Context,
    session: ssl.Session,
    server: Server,
    tickets: ssl.Tickets = .{},
    received: std.ArrayList(u8) = .empty,

    const Options = struct {
        server: Server.Options = .{},
        ciphers: ?[:0]const u8 = null,
        engine: ?ssl.Engine = .direct,
        /// Data that the server sends right after its handshake.
        early: []const u8 = "",
        /// The stream reaches the client in pieces of random sizes up to this one.
        piece_max: usize = std.math.maxInt(usize),
        random: ?std.Random = null,
    };

    fn init(shaken: *Shaken, options: Options) !void {
        const api = try tls_server.clientApi();
        shaken.* = .{
            .arena = .init(testing.allocator),
            .server = try .init(options.server),
            .context = undefined,
            .session = undefined,
        };
        errdefer shaken.arena.deinit();
        errdefer shaken.server.deinit();
        var failure: ssl.Failure = undefined;
        shaken.context = try .init(api, .{}, &failure);
        errdefer shaken.context.deinit();
        if (options.ciphers) |names| {
            _ = api.SSL_CTX_set_ciphersuites(shaken.context.handle, names);
            _ = api.SSL_CTX_set_cipher_list(shaken.context.handle, names);
        }
        try tls_server.trust(shaken.context.handle);
        try shaken.begin(options);
        errdefer shaken.session.deinit();
        try shaken.shake(options);
    }

    fn begin(shaken: *Shaken, options: Options) !void {
        try shaken.session.init(&shaken.context, .{
            .server_name = "feed.test",
            .server_name_is_address = false,
            .engine = options.engine,
            .tickets = &shaken.tickets,
        });
    }

    /// Completes the handshake; what the server has sent after it is in `received`.
    fn shake(shaken: *Shaken, options: Options) !void {
        const gpa = shaken.arena.allocator();
        var to_send: [16 * 1024]u8 = undefined;
        var held: std.ArrayList(u8) = .empty;
        var said = false;
        for (0..100_000) |_| {
            const step = try shaken.session.handshake(shaken.received.items, &to_send);
            shaken.received.replaceRangeAssumeCapacity(0, step.received_used, "");
            shaken.server.give(to_send[0..step.to_send_size]);
            const complete = try shaken.server.handshake();
            if (complete and !said) {
                said = true;
                if (options.early.len > 0) try shaken.server.write(options.early);
            }
            try held.appendSlice(gpa, try shaken.server.take(gpa));
            const size = if (options.random) |random|
                @min(held.items.len, random.uintLessThan(usize, options.piece_max) + 1)
            else
                held.items.len;
            try shaken.received.appendSlice(gpa, held.items[0..size]);
            held.replaceRangeAssumeCapacity(0, size, "");
            if (step.status == .done) break;
        } else return error.TooManyTurns;
        try shaken.received.appendSlice(gpa, held.items);
    }

    fn deinit(shaken: *Shaken) void {
        shaken.session.deinit();
        shaken.tickets.deinit(shaken.context.api);
        shaken.context.deinit();
        shaken.server.deinit();
        shaken.arena.deinit();
    }

    fn fetch(shaken: *Shaken) !void {
        const gpa = shaken.arena.allocator();
        try shaken.received.appendSlice(gpa, try shaken.server.take(gpa));
    }

    fn openAll(shaken: *Shaken) ![]const u8 {
        const gpa = shaken.arena.allocator();
        var plaintext: std.ArrayList(u8) = .empty;
        var room: [room_size]u8 = undefined;
        while (true) {
            const step = try shaken.session.open(shaken.received.items, &room, &.{});
            shaken.received.replaceRangeAssumeCapacity(0, step.received_used, "");
            if (step.status != .done) return plaintext.items;
            try plaintext.appendSlice(gpa, room[0..step.plaintext_size]);
        }
    }

    fn expectOpened(shaken: *Shaken, expected: []const u8) !void {
        try testing.expectEqualSlices(u8, expected, try shaken.openAll());
        try expectEqual(0, shaken.received.items.len);
    }

    /// Seals it into as many records as it takes; the server has to read the same.
    fn expectHeard(shaken: *Shaken, content: []const u8) !void {
        const gpa = shaken.arena.allocator();
        var pending: [256]u8 = undefined;
        shaken.server.give(pending[0..try shaken.session.writePending(&pending)]);
        const target = try gpa.alloc(u8, shaken.session.sealedSize(content.len));
        const offset = shaken.session.contentOffset(content.len);
        @memcpy(target[offset..][0..content.len], content);
        try shaken.session.sealInPlace(target, content.len);
        shaken.server.give(target);
        var read_size: usize = 0;
        var buffer: [20_000]u8 = undefined;
        while (try shaken.server.read(&buffer)) |bytes| {
            try testing.expectEqualSlices(u8, content[read_size..][0..bytes.len], bytes);
            read_size += bytes.len;
        }
        try expectEqual(content.len, read_size);
    }
};

const cipher_names = [_]struct { Server.Version, [:0]const u8 }{
    .{ .tls1_3, "TLS_AES_128_GCM_SHA256" },
    .{ .tls1_3, "TLS_AES_256_GCM_SHA384" },
    .{ .tls1_3, "TLS_CHACHA20_POLY1305_SHA256" },
    .{ .tls1_2, "ECDHE-ECDSA-AES128-GCM-SHA256" },
    .{ .tls1_2, "ECDHE-ECDSA-AES256-GCM-SHA384" },
    .{ .tls1_2, "ECDHE-ECDSA-CHACHA20-POLY1305" },
};

test "handover: the direct engine takes over from OpenSSL with every suite" {
    for (cipher_names) |entry| {
        var shaken: Shaken = undefined;
        try shaken.init(.{ .server = .{ .version = entry[0], .tickets = 2 }, .ciphers = entry[1] });
        defer shaken.deinit();
        const info = shaken.session.info();
        try expectEqual(.direct, info.engine);
        try expectEqualStrings(entry[1], info.cipher);
        try expectEqualStrings("", info.engine_reason);
        try expect(info.aead.len > 0);
        const sizes = [_]usize{ 1, 300, plaintext_size_max, plaintext_size_max + 1, 50_000 };
        for (sizes) |size| {
            const content = try patternOf(shaken.arena.allocator(), size);
            try shaken.server.write(content);
            try shaken.fetch();
            try shaken.expectOpened(content);
            try shaken.expectHeard(content);
        }
        shaken.server.sendCloseNotify();
        try shaken.fetch();
        var room: [room_size]u8 = undefined;
        const step = try shaken.session.open(shaken.received.items, &room, &.{});
        try expectEqual(.closed, step.status);
        _ = shaken.session.shutdown(&.{});
        var close_notify: [64]u8 = undefined;
        shaken.server.give(close_notify[0..try shaken.session.writePending(&close_notify)]);
        try expectEqual(null, try shaken.server.read(&room));
        try expect(shaken.server.receivedCloseNotify());
    }
}

test "handover: records of an unknown cipher are left to OpenSSL, and the reason is given" {
    for ([_]?ssl.Engine{ null, .direct, .openssl }) |engine| {
        var shaken: Shaken = undefined;
        const result = shaken.init(.{
            .server = .{ .version = .tls1_2 },
            .ciphers = "ECDHE-ECDSA-AES128-SHA256",
            .engine = engine,
        });
        if (engine == .direct) {
            try testing.expectError(error.TlsFailed, result);
            continue;
        }
        try result;
        defer shaken.deinit();
        const info = shaken.session.info();
        try expectEqual(.openssl, info.engine);
        try expectEqual(engine == null, info.engine_reason.len > 0);
    }
}

test "handover: the openssl engine can be chosen, and keeps no secrets" {
    var shaken: Shaken = undefined;
    try shaken.init(.{ .engine = .openssl });
    defer shaken.deinit();
    try expectEqual(.openssl, shaken.session.info().engine);
    try expectEqualStrings("", shaken.session.info().engine_reason);
    for (shaken.session.openssl.secrets.server) |byte| try expectEqual(0, byte);
}

test "handover: each side follows the KeyUpdates of the other" {
    for (cipher_names[0..3]) |entry| {
        var shaken: Shaken = undefined;
        try shaken.init(.{ .ciphers = entry[1] });
        defer shaken.deinit();
        for (0..4) |round| {
            shaken.server.updateKeys(if (round % 2 == 0) .requested else .not_requested);
            try shaken.server.write("tick");
            try shaken.fetch();
            try shaken.expectOpened("tick");
            try expectEqual(round % 2 == 0, shaken.session.hasPending());
            try shaken.expectHeard("order");
        }
        shaken.session.records.direct.control.records_per_key_max = 2;
        for (0..7) |_| try shaken.expectHeard("order");
    }
}

test "handover: OpenSSL's server gets the alert for a wrong tag" {
    var shaken: Shaken = undefined;
    try shaken.init(.{});
    defer shaken.deinit();
    try shaken.server.write("tick");
    try shaken.fetch();
    shaken.received.items[7] ^= 1;
    try testing.expectError(error.TlsFailed, shaken.openAll());
    try expectEqualStrings("decryption failed or bad record mac", shaken.session.failure().reason);
    var alert: [64]u8 = undefined;
    shaken.server.give(alert[0..try shaken.session.writePending(&alert)]);
    var buffer: [64]u8 = undefined;
    try testing.expectError(error.TlsServerFailed, shaken.server.read(&buffer));
}

test "handover: tickets reach OpenSSL, and the next connection resumes" {
    for (cipher_names) |entry| {
        var shaken: Shaken = undefined;
        const options: Shaken.Options = .{
            .server = .{ .version = entry[0], .tickets = 2 },
            .ciphers = entry[1],
        };
        try shaken.init(options);
        defer shaken.deinit();
        try expect(!shaken.session.info().resumed);
        try shaken.expectHeard("order");
        try shaken.server.write("tick");
        try shaken.fetch();
        try shaken.expectOpened("tick");
        try expect(shaken.tickets.count > 0);

        for (0..3) |_| {
            shaken.session.deinit();
            try shaken.server.renew();
            try shaken.begin(options);
            try shaken.shake(options);
            try expect(shaken.session.info().resumed);
            try expectEqual(.direct, shaken.session.info().engine);
            try shaken.expectHeard("order");
            try shaken.server.write("tick");
            try shaken.fetch();
            try shaken.expectOpened("tick");
        }
    }
}

test "handover: no byte is lost, however the handshake is cut and whatever follows at once" {
    for (0..200) |seed| {
        errdefer std.debug.print("seed {d}\n", .{seed});
        var prng: std.Random.DefaultPrng = .init(seed);
        const random = prng.random();
        const entry = cipher_names[random.uintLessThan(usize, cipher_names.len)];
        var early: [40_000]u8 = undefined;
        random.bytes(&early);
        const early_size = if (random.boolean()) random.uintLessThan(usize, early.len) else 0;
        var shaken: Shaken = undefined;
        try shaken.init(.{
            .server = .{ .version = entry[0], .tickets = random.uintLessThan(usize, 6) },
            .ciphers = entry[1],
            .early = early[0..early_size],
            .piece_max = ([_]usize{ 1, 10, 1000, 10_000 })[random.uintLessThan(usize, 4)],
            .random = random,
        });
        defer shaken.deinit();
        try expectEqual(.direct, shaken.session.info().engine);
        try shaken.expectOpened(early[0..early_size]);
        for (0..random.uintLessThan(usize, 5)) |_| {
            const size = random.uintLessThan(usize, early.len) + 1;
            if (random.boolean()) {
                try shaken.expectHeard(early[0..size]);
            } else {
                try shaken.server.write(early[0..size]);
                try shaken.fetch();
                try shaken.expectOpened(early[0..size]);
            }
        }
    }
}

test "handover: the kernel is given the keys, and the session keeps none of them" {
    for (cipher_names) |entry| {
        var shaken: Shaken = undefined;
        try shaken.init(.{
            .server = .{ .version = entry[0] },
            .ciphers = entry[1],
            .engine = .ktls,
        });
        defer shaken.deinit();
        const session = &shaken.session;
        try expectEqual(.user_space, session.opener());
        try expectEqual(.direct, session.info().engine);
        try shaken.expectHeard("GET");
        const bytes = std.mem.asBytes(session);
        const direct = &session.records.direct;
        const ivs = [_][12]u8{ direct.receiving.iv, direct.sending.iv };
        const legacy_keys = direct.legacy_keys;
        try expectEqual(entry[0] == .tls1_2, legacy_keys != null);
        const sealed_records = direct.sending.sequence;
        for ([_]ssl.aead.Direction{ .open, .seal }) |direction| {
            var info = session.cryptoInfo(direction);
            defer info.wipe();
            const half = if (direction == .open) &direct.receiving else &direct.sending;
            const sequence = std.mem.toBytes(std.mem.nativeToBig(u64, half.sequence));
            try expect(std.mem.endsWith(u8, info.bytes(), &sequence));
        }

        session.enterKernel();
        try expectEqual(.kernel, session.opener());
        try expectEqual(.ktls, session.info().engine);
        try expectEqual(sealed_records, session.records.ktls.sealed_records);
        for (ivs) |iv| {
            if (std.mem.endsWith(u8, &iv, &@as([8]u8, @splat(0)))) continue; // Only 4 bytes of it.
            try expect(std.mem.find(u8, bytes, &iv) == null);
        }
        if (legacy_keys) |keys| for ([_]*const [32]u8{ &keys.client.key, &keys.server.key }) |key| {
            try expect(std.mem.find(u8, bytes, key[0..16]) == null);
        };
    }
}

test "handover: after a KeyUpdate the kernel is given the next keys, once" {
    var shaken: Shaken = undefined;
    try shaken.init(.{ .engine = .ktls });
    defer shaken.deinit();
    const session = &shaken.session;
    var old = session.cryptoInfo(.open);
    defer old.wipe();
    session.enterKernel();
    try expect(!session.takeReceiveKeysChanged());

    const step = try session.accept(.handshake, &.{ 24, 0, 0, 1, 1 });
    try expectEqual(0, step.plaintext_size);
    try expect(session.takeReceiveKeysChanged());
    try expect(!session.takeReceiveKeysChanged());
    var new = session.cryptoInfo(.open);
    defer new.wipe();
    try expect(!std.mem.eql(u8, old.bytes(), new.bytes()));
    try expect(std.mem.endsWith(u8, new.bytes(), &@as([8]u8, @splat(0)))); // Record 0.

    try expectEqual(.key_update, session.pendingRecord().?);
    session.markSent(.key_update);
    try expectEqual(null, session.pendingRecord());
    try expectEqual(0, session.records.ktls.sealed_records);
}
