//! Tests of the openssl engine against a server in memory: what may come, however it is cut, and
//! what must not. They run over `ssl.Session`, the one interface that all engines share.

const std = @import("std");
const constants = @import("../constants.zig");
const libssl = @import("libssl.zig");
const ssl = @import("../ssl.zig");
const tls_server = @import("../testing/tls_server.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const Server = tls_server.Server;
const versions = [_]Server.Version{ .tls1_2, .tls1_3 };

const hostname_mismatch = 62; // X509_V_ERR_HOSTNAME_MISMATCH
const address_mismatch = 64; // X509_V_ERR_IP_ADDRESS_MISMATCH
const self_signed = 18; // X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT

const Options = struct {
    server: Server.Options = .{},
    context: ssl.Context.Options = .{},
    trusted: bool = true,
    name: [:0]const u8 = "feed.test",
    is_address: bool = false,
    engine: ssl.Engine = .openssl,
    tickets: ?*ssl.Tickets = null,
    /// Null: the library that was found.
    api: ?*const libssl.Api = null,
};

/// A client's session and its server, with the wire between them in our hands.
const Pair = struct {
    arena: std.heap.ArenaAllocator,
    context: ssl.Context,
    session: ssl.Session,
    server: Server,
    /// Ciphertext that has arrived and that the client has not used.
    received: std.ArrayList(u8) = .empty,
    /// Bytes of ciphertext that the server has sent in total.
    wire_size: usize = 0,

    /// Where the stream from the server is cut.
    const Cut = union(enum) { nowhere, at: usize, everywhere };

    fn init(pair: *Pair, options: Options) !void {
        const api = options.api orelse try tls_server.clientApi();
        pair.* = .{
            .arena = .init(testing.allocator),
            .server = try .init(options.server),
            .context = undefined,
            .session = undefined,
        };
        errdefer pair.server.deinit();
        var failure: ssl.Failure = undefined;
        pair.context = try .init(api, options.context, &failure);
        errdefer pair.context.deinit();
        if (options.trusted) try tls_server.trust(pair.context.handle);
        try pair.session.init(&pair.context, .{
            .server_name = options.name,
            .server_name_is_address = options.is_address,
            .engine = options.engine,
            .tickets = options.tickets,
        });
    }

    fn initShaken(pair: *Pair, options: Options) !void {
        try pair.init(options);
        errdefer pair.deinit();
        try pair.shake(.nowhere, 16 * 1024);
        try pair.expectNothingBehindFinished();
    }

    /// OpenSSL is asked once what it holds.
    fn expectNothingBehindFinished(pair: *Pair) !void {
        if (pair.session.records != .openssl) return;
        var plaintext: [64]u8 = undefined;
        var to_send: [1024]u8 = undefined;
        try expect(pair.session.recordWaiting(""));
        const step = try pair.session.open("", &plaintext, &to_send);
        try expectEqual(.needs_received, step.status);
        try expectEqual(@as(usize, 0), step.to_send_size);
        try expect(!pair.session.recordWaiting(""));
    }

    fn deinit(pair: *Pair) void {
        pair.session.deinit();
        pair.context.deinit();
        pair.server.deinit();
        pair.arena.deinit();
    }

    fn allocator(pair: *Pair) std.mem.Allocator {
        return pair.arena.allocator();
    }

    /// Moves what the server has sent to the client.
    fn fetch(pair: *Pair) !void {
        const bytes = try pair.server.take(pair.allocator());
        pair.wire_size += bytes.len;
        try pair.received.appendSlice(pair.allocator(), bytes);
    }

    fn drop(pair: *Pair, size: usize) void {
        pair.received.replaceRangeAssumeCapacity(0, size, "");
    }

    /// Runs the handshake to its end on both sides.
    fn shake(pair: *Pair, cut: Cut, room: usize) !void {
        var held: std.ArrayList(u8) = .empty;
        const to_send = try pair.allocator().alloc(u8, room);
        for (0..turns_max) |_| {
            const step = try pair.session.handshake(pair.received.items, to_send);
            pair.drop(step.received_used);
            pair.server.give(to_send[0..step.to_send_size]);
            _ = try pair.server.handshake();
            const before = pair.wire_size - held.items.len - pair.received.items.len;
            const bytes = try pair.server.take(pair.allocator());
            pair.wire_size += bytes.len;
            try held.appendSlice(pair.allocator(), bytes);
            if (step.status == .done) {
                // The rest of the stream still arrives.
                try pair.received.appendSlice(pair.allocator(), held.items);
                return;
            }
            if (step.status == .needs_room) continue;
            try expectEqual(.needs_received, step.status);
            const size = switch (cut) {
                .nowhere => held.items.len,
                .everywhere => @min(held.items.len, 1),
                .at => |place| part: {
                    const at = before + pair.received.items.len;
                    if (at < place and place < at + held.items.len) break :part place - at;
                    break :part held.items.len;
                },
            };
            try pair.received.appendSlice(pair.allocator(), held.items[0..size]);
            held.replaceRangeAssumeCapacity(0, size, "");
        }
        return error.TooManyTurns;
    }

    /// Opens everything that has arrived; the server gets the client's answers.
    fn openAll(pair: *Pair, room: usize) ![]const u8 {
        var plaintext: std.ArrayList(u8) = .empty;
        const target = try pair.allocator().alloc(u8, room);
        var to_send: [1024]u8 = undefined;
        for (0..turns_max) |_| {
            const waiting = pair.session.recordWaiting(pair.received.items);
            const step = try pair.session.open(pair.received.items, target, &to_send);
            pair.drop(step.received_used);
            pair.server.give(to_send[0..step.to_send_size]);
            switch (step.status) {
                .done => {
                    try expect(waiting);
                    try expect(step.plaintext_size > 0);
                    try plaintext.appendSlice(pair.allocator(), target[0..step.plaintext_size]);
                },
                .needs_received => if (step.received_used == 0) {
                    try expect(!waiting);
                    return plaintext.items;
                },
                .needs_room, .closed => return error.UnexpectedStatus,
            }
        }
        return error.TooManyTurns;
    }

    /// Seals all of it; the server has to read the same.
    fn expectSealed(pair: *Pair, plaintext: []const u8, room: usize) !void {
        const to_send = try pair.allocator().alloc(u8, room);
        var sealed_size: usize = 0;
        while (sealed_size < plaintext.len) {
            const step = try pair.session.seal(plaintext[sealed_size..], to_send);
            try expectEqual(.done, step.status);
            try expect(step.plaintext_size > 0);
            try expect(step.plaintext_size <= constants.record_plaintext_size_max);
            pair.server.give(to_send[0..step.to_send_size]);
            sealed_size += step.plaintext_size;
        }
        var read_size: usize = 0;
        var buffer: [20_000]u8 = undefined;
        while (try pair.server.read(&buffer)) |bytes| {
            try testing.expectEqualSlices(u8, plaintext[read_size..][0..bytes.len], bytes);
            read_size += bytes.len;
        }
        try expectEqual(plaintext.len, read_size);
    }

    /// The server sends it; the client has to open the same.
    fn expectOpened(pair: *Pair, plaintext: []const u8, room: usize) !void {
        try pair.server.write(plaintext);
        try pair.fetch();
        try testing.expectEqualSlices(u8, plaintext, try pair.openAll(room));
    }

    /// The record is refused with this reason (null: any) and an alert, no plaintext comes out, and
    /// a second call fails too.
    fn expectRefused(pair: *Pair, reason: ?[]const u8) !void {
        var plaintext: [constants.record_plaintext_size_max]u8 = @splat(0xa5);
        var to_send: [1024]u8 = undefined;
        for (0..2) |round| {
            const result = pair.session.open(pair.received.items, &plaintext, &to_send);
            try testing.expectError(error.TlsFailed, result);
            try expectEqual(0, pair.server.api.ERR_peek_error());
            for (plaintext) |byte| try expectEqual(@as(u8, 0xa5), byte);
            if (round > 0) break;
            try expect(pair.session.failure().reason.len > 0);
            try expect(!std.mem.eql(u8, "unknown cause", pair.session.failure().reason));
            if (reason) |text| try testing.expectEqualStrings(text, pair.session.failure().reason);
            try expectEqual(@as(c_long, 0), pair.session.failure().verify_code);
            try expect(pair.session.alertSize() > 0);
            pair.server.give(to_send[0..pair.session.alertSize()]);
            var buffer: [64]u8 = undefined;
            try testing.expectError(error.TlsServerFailed, pair.server.read(&buffer));
        }
    }

    const turns_max = 100_000;
};

fn patternOf(gpa: std.mem.Allocator, size: usize) ![]u8 {
    const bytes = try gpa.alloc(u8, size);
    for (bytes, 0..) |*byte, index| byte.* = @truncate(index *% 167 +% index / 256);
    return bytes;
}

// ---- Handshake. --------------------------------------------------------------------------------

test "openssl: the handshake, and what was negotiated" {
    for (versions, [_][]const u8{ "TLSv1.2", "TLSv1.3" }, [_][]const u8{
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_AES_128_GCM_SHA256",
    }) |version, version_name, cipher_name| {
        var pair: Pair = undefined;
        try pair.initShaken(.{ .server = .{ .version = version } });
        defer pair.deinit();
        const info = pair.session.info();
        try testing.expectEqualStrings(version_name, info.version);
        try testing.expectEqualStrings(cipher_name, info.cipher);
        try expect(info.library.len > 0);
        try expectEqual(.openssl, info.engine);
        try pair.expectOpened("hello", 64);
        try pair.expectSealed("hello", 1024);
    }
}

test "openssl: the handshake may be cut at every byte" {
    // Under an emulator a handshake takes a hundred times as long.
    const step: usize = if (@import("test_options").emulated) 64 else 1;
    for (versions) |version| {
        const options: Options = .{ .server = .{ .version = version, .tickets = 1 } };
        var size: usize = 1;
        var cut: usize = 0;
        while (cut < size) : (cut += step) {
            var pair: Pair = undefined;
            try pair.init(options);
            defer pair.deinit();
            try pair.shake(.{ .at = cut }, 16 * 1024);
            size = pair.wire_size - pair.received.items.len; // Not the rest.
            if (cut % 64 == 0) try pair.expectOpened("hello", 64);
        }
        var pair: Pair = undefined;
        try pair.init(options);
        defer pair.deinit();
        try pair.shake(.everywhere, 16 * 1024);
        try pair.expectOpened("hello", 64);
        try pair.expectSealed("hello", 1024);
    }
}

test "openssl: the handshake goes on when there is room to send again" {
    for (versions) |version| {
        for ([_]usize{ 1, 2, 7, 100, 250 }) |room| {
            for ([_]Pair.Cut{ .nowhere, .everywhere }) |cut| {
                var pair: Pair = undefined;
                try pair.init(.{ .server = .{ .version = version } });
                defer pair.deinit();
                try pair.shake(cut, room);
                try pair.expectOpened("hello", 64);
                try pair.expectSealed("hello", 1024);
            }
        }
    }
}

test "openssl: a certificate for another host is refused, with the reason" {
    const Case = struct { name: [:0]const u8, is_address: bool = false, code: ?c_long = null };
    const cases = [_]Case{
        .{ .name = "feed.test" },
        .{ .name = "FEED.test" },
        .{ .name = "a.wild.test" },
        .{ .name = "127.0.0.1", .is_address = true },
        .{ .name = "a.b.wild.test", .code = hostname_mismatch },
        .{ .name = "wild.test", .code = hostname_mismatch },
        .{ .name = "feed.test.example", .code = hostname_mismatch },
        .{ .name = "xfeed.test", .code = hostname_mismatch },
        .{ .name = "127.0.0.2", .is_address = true, .code = address_mismatch },
        .{ .name = "::1", .is_address = true, .code = address_mismatch },
    };
    for (versions) |version| for (cases) |case| {
        var pair: Pair = undefined;
        try pair.init(.{
            .server = .{ .version = version },
            .name = case.name,
            .is_address = case.is_address,
        });
        defer pair.deinit();
        if (case.code) |code| {
            try expectCertificateRefused(&pair, code);
            continue;
        }
        try pair.shake(.nowhere, 16 * 1024);
        // An address is not sent (RFC 6066, section 3).
        const asked = pair.server.nameAsked() orelse "";
        try testing.expectEqualStrings(if (case.is_address) "" else case.name, asked);
    };
}

fn expectCertificateRefused(pair: *Pair, code: c_long) !void {
    try testing.expectError(error.TlsFailed, pair.shake(.nowhere, 16 * 1024));
    const failure = pair.session.failure();
    try testing.expectEqualStrings("certificate verify failed", failure.reason);
    try expectEqual(code, failure.verify_code);
    try expect(failure.verify_reason.len > 0);
    try expect(pair.session.alertSize() > 0);
}

test "openssl: an untrusted certificate is refused, unless verification is off" {
    for (versions) |version| {
        for ([_]bool{ true, false }) |verify| {
            var pair: Pair = undefined;
            try pair.init(.{
                .server = .{ .version = version },
                .context = .{ .verify = verify },
                .trusted = false,
                .name = if (verify) "feed.test" else "other.example",
            });
            defer pair.deinit();
            if (verify) {
                try expectCertificateRefused(&pair, self_signed);
            } else try pair.shake(.nowhere, 16 * 1024);
        }
    }
}

test "openssl: an error that other code left in the queue is ignored" {
    for (versions) |version| {
        var pair: Pair = undefined;
        try pair.init(.{ .server = .{ .version = version } });
        defer pair.deinit();
        var to_send: [4096]u8 = undefined;
        try tls_server.leaveError();
        const step = try pair.session.handshake("", &to_send);
        try expectEqual(.needs_received, step.status);
        pair.server.give(to_send[0..step.to_send_size]);
        _ = try pair.server.handshake();
        try tls_server.leaveError();
        pair.shake(.nowhere, 16 * 1024) catch |err| switch (err) {
            error.TlsServerFailed => {}, // It takes that error for its own.
            else => |other| return other,
        };
        pair.server.api.ERR_clear_error();
        try pair.shake(.nowhere, 16 * 1024);

        try pair.server.write("hello");
        pair.server.sendCloseNotify();
        try pair.fetch();
        try tls_server.leaveError();
        var plaintext: [64]u8 = undefined;
        const opened = try pair.session.open(pair.received.items, &plaintext, &to_send);
        try expectEqual(.done, opened.status);
        pair.drop(opened.received_used);
        const last = try pair.session.open(pair.received.items, &plaintext, &to_send);
        try expectEqual(.closed, last.status);
        pair.server.api.ERR_clear_error();
    }
}

test "openssl: without room for its alert, a failure is still told from a full buffer" {
    for (versions) |version| {
        var pair: Pair = undefined;
        try pair.initShaken(.{ .server = .{ .version = version } });
        defer pair.deinit();
        try pair.server.write("never read");
        try pair.fetch();
        pair.received.items[pair.received.items.len - 1] ^= 1;
        var plaintext: [64]u8 = undefined;
        const result = pair.session.open(pair.received.items, &plaintext, &.{});
        try testing.expectError(error.TlsFailed, result);
        const reason = pair.session.failure().reason;
        try testing.expectEqualStrings("decryption failed or bad record mac", reason);
        try expectEqual(0, pair.server.api.ERR_peek_error());
    }
    // It is full, and other code has left an error.
    var pair: Pair = undefined;
    try pair.initShaken(.{ .server = .{ .version = .tls1_2 } });
    defer pair.deinit();
    try pair.server.renegotiate();
    try pair.fetch();
    try tls_server.leaveError();
    var plaintext: [64]u8 = undefined;
    const step = try pair.session.open(pair.received.items, &plaintext, &.{});
    try expectEqual(.needs_room, step.status);
    try expectEqual(0, pair.server.api.ERR_peek_error());
}

test "openssl: a peer that does not speak TLS is refused" {
    for ([_][]const u8{
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "\x00\x00\x00\x00\x00\x00\x00\x00",
        "\x16\x03\x03\xff\xff",
        "\x17\x03\x03\x00\x01\x00",
        "SSH-2.0-OpenSSH_9.2\r\n",
    }) |garbage| {
        for ([_]usize{ 1, garbage.len }) |size_max| {
            var pair: Pair = undefined;
            try pair.init(.{});
            defer pair.deinit();
            var to_send: [4096]u8 = undefined;
            var rest = garbage;
            var failed = false;
            while (rest.len > 0 and !failed) {
                const size = @min(size_max, rest.len);
                if (pair.session.handshake(rest[0..size], &to_send)) |step| {
                    try expectEqual(.needs_received, step.status);
                    try expectEqual(size, step.received_used);
                    rest = rest[size..];
                } else |err| {
                    try expectEqual(error.TlsFailed, err);
                    failed = true;
                }
            }
            try expect(failed);
            try expect(pair.session.failure().reason.len > 0);
            try expectEqual(@as(c_long, 0), pair.session.failure().verify_code);
            try testing.expectError(error.TlsFailed, pair.session.handshake("", &to_send));
        }
    }
}

test "openssl: the alert of a server that refuses the client is the reason" {
    for (versions) |version| {
        var pair: Pair = undefined;
        try pair.init(.{ .server = .{ .version = version, .asks_certificate = true } });
        defer pair.deinit();
        // In TLS 1.3 the client's handshake is complete before the server misses a certificate.
        if (pair.shake(.nowhere, 16 * 1024)) |_| return error.TestUnexpectedResult else |err| {
            try expectEqual(error.TlsServerFailed, err);
        }
        try pair.fetch();
        var plaintext: [64]u8 = undefined;
        var to_send: [4096]u8 = undefined;
        const failed = switch (version) {
            .tls1_2 => pair.session.handshake(pair.received.items, &to_send),
            .tls1_3 => pair.session.open(pair.received.items, &plaintext, &to_send),
        };
        try testing.expectError(error.TlsFailed, failed);
        try expect(std.mem.find(u8, pair.session.failure().reason, "alert") != null);
    }
}

// ---- Files. ------------------------------------------------------------------------------------

/// A PEM file in a folder of its own.
const PemFile = struct {
    folder: testing.TmpDir,
    buffer: [128]u8 = undefined,
    path: [:0]const u8 = "",

    fn init(file: *PemFile, content: []const u8) !void {
        file.* = .{ .folder = testing.tmpDir(.{}) };
        errdefer file.folder.cleanup();
        try file.folder.dir.writeFile(testing.io, .{ .sub_path = "x.pem", .data = content });
        const arguments = .{&file.folder.sub_path};
        const format = ".zig-cache/tmp/{s}/x.pem";
        file.path = try std.fmt.bufPrintSentinel(&file.buffer, format, arguments, 0);
    }
};

test "openssl: roots and the client's certificate are read from files" {
    _ = try tls_server.clientApi();
    var file: PemFile = undefined;
    try file.init(tls_server.certificate ++ "\n" ++ tls_server.private_key ++ "\n");
    defer file.folder.cleanup();
    for (versions) |version| {
        var pair: Pair = undefined;
        try pair.initShaken(.{
            .server = .{ .version = version, .asks_certificate = true },
            .context = .{ .ca_file = file.path, .cert_file = file.path },
            .trusted = false,
        });
        defer pair.deinit();
        try pair.expectSealed("hello", 1024);
        try pair.expectOpened("hello", 64);
    }
}

test "openssl: the error for an unusable file says which one and why" {
    const api = try tls_server.clientApi();
    var failure: ssl.Failure = undefined;
    var file: PemFile = undefined;
    try file.init(tls_server.certificate ++ "\n");
    defer file.folder.cleanup();
    const missing = "no-such-file.pem";
    try testing.expectError(
        error.CaFileUnusable,
        ssl.Context.init(api, .{ .ca_file = missing }, &failure),
    );
    try expect(failure.reason.len > 0);
    try testing.expectError(
        error.CertFileUnusable,
        ssl.Context.init(api, .{ .cert_file = missing }, &failure),
    );
    try testing.expectError(
        error.KeyFileUnusable,
        ssl.Context.init(api, .{ .cert_file = file.path }, &failure),
    );
    try testing.expectError(
        error.KeyFileUnusable,
        ssl.Context.init(api, .{ .cert_file = file.path, .key_file = missing }, &failure),
    );
    try expectEqual(@as(c_ulong, 0), api.ERR_peek_error());
}

// ---- Records. ----------------------------------------------------------------------------------

const sizes = [_]usize{ 1, 2, 15, 16, 17, 100, 16_383, 16_384, 16_385, 32_768, 40_000 };

test "openssl: data of every size, both ways" {
    for (versions) |version| {
        var pair: Pair = undefined;
        try pair.initShaken(.{ .server = .{ .version = version } });
        defer pair.deinit();
        for (sizes) |size| {
            const plaintext = try patternOf(pair.allocator(), size);
            for ([_]usize{ 17_000, 40_000 }) |room| try pair.expectOpened(plaintext, room);
            for ([_]usize{ 600, 17_000, 40_000 }) |room| try pair.expectSealed(plaintext, room);
        }
    }
}

test "openssl: a call takes one record, and no byte of the next" {
    for (versions) |version| {
        var pair: Pair = undefined;
        try pair.initShaken(.{ .server = .{ .version = version } });
        defer pair.deinit();
        var ends: std.ArrayList(usize) = .empty;
        for (1..50) |size| {
            try pair.server.write(try patternOf(pair.allocator(), size * 7));
            try pair.fetch();
            try ends.append(pair.allocator(), pair.received.items.len);
        }
        var plaintext: [1024]u8 = undefined;
        var to_send: [64]u8 = undefined;
        var used: usize = 0;
        for (1..50, ends.items) |size, end| {
            const step = try pair.session.open(pair.received.items, &plaintext, &to_send);
            used += step.received_used;
            pair.drop(step.received_used);
            try expectEqual(.done, step.status);
            try expectEqual(end, used);
            try expectEqual(size * 7, step.plaintext_size);
            try expectEqual(size < 49, pair.session.recordWaiting(pair.received.items));
        }
    }
}

test "openssl: a record is opened when its last byte has arrived, and not before" {
    for (versions) |version| {
        var pair: Pair = undefined;
        try pair.initShaken(.{ .server = .{ .version = version } });
        defer pair.deinit();
        try pair.server.write("hello");
        try pair.fetch();
        const record = pair.received.items;
        var plaintext: [64]u8 = undefined;
        var to_send: [64]u8 = undefined;
        for (0..record.len) |size| {
            try expect(!pair.session.recordWaiting(record[0..size]));
            const step = try pair.session.open(record[0..size], &plaintext, &to_send);
            try expectEqual(.needs_received, step.status);
            try expectEqual(@as(usize, 0), step.received_used);
        }
        const step = try pair.session.open(record, &plaintext, &to_send);
        try expectEqual(.done, step.status);
        try testing.expectEqualStrings("hello", plaintext[0..step.plaintext_size]);
    }
}

test "openssl: a record that is larger than the room comes in parts" {
    for (versions) |version| {
        var pair: Pair = undefined;
        try pair.initShaken(.{ .server = .{ .version = version } });
        defer pair.deinit();
        const plaintext = try patternOf(pair.allocator(), 16_384);
        for ([_]usize{ 1, 3, 1000, 8192, 16_383, 16_384 }) |room| {
            try pair.expectOpened(plaintext[0..@min(plaintext.len, room * 100)], room);
        }
        // The plaintext fills the room exactly.
        try pair.server.write(plaintext[0..100]);
        try pair.server.write(plaintext[0..100]);
        try pair.fetch();
        var target: [100]u8 = undefined;
        for (0..2) |round| {
            const step = try pair.session.open(pair.received.items, &target, &.{});
            pair.drop(step.received_used);
            try expectEqual(@as(usize, 100), step.plaintext_size);
            try expectEqual(round == 0, pair.session.recordWaiting(pair.received.items));
        }
        // In parts, when the next record has already arrived.
        try pair.server.write("abcdef");
        try pair.server.write("ghi");
        try pair.fetch();
        try testing.expectEqualStrings("abcdefghi", try pair.openAll(4));
    }
}

test "openssl: tickets before the data are skipped" {
    var pair: Pair = undefined;
    try pair.initShaken(.{ .server = .{ .tickets = 3 } });
    defer pair.deinit();
    try pair.server.write("hello");
    try pair.fetch();
    var plaintext: [64]u8 = undefined;
    var to_send: [64]u8 = undefined;
    for (0..3) |_| {
        try expect(pair.session.recordWaiting(pair.received.items));
        const step = try pair.session.open(pair.received.items, &plaintext, &to_send);
        try expectEqual(.needs_received, step.status);
        try expect(step.received_used > 0);
        try expectEqual(@as(usize, 0), step.to_send_size);
        pair.drop(step.received_used);
    }
    try testing.expectEqualStrings("hello", try pair.openAll(64));
}

/// How many records there are in a row.
fn recordCount(bytes: []const u8) !usize {
    var count: usize = 0;
    var rest = bytes;
    while (rest.len > 0) : (count += 1) {
        const record = ssl.firstRecord(rest) orelse return error.NotWhole;
        rest = rest[record.len..];
    }
    return count;
}

test "openssl: a KeyUpdate is followed, and answered before our next data if it asks for that" {
    var pair: Pair = undefined;
    try pair.initShaken(.{});
    defer pair.deinit();
    for (0..100) |round| {
        const requested = round % 2 == 0;
        pair.server.updateKeys(if (requested) .requested else .not_requested);
        try pair.server.write("hello");
        try pair.fetch();
        var plaintext: [64]u8 = undefined;
        var to_send: [2048]u8 = undefined;
        const step = try pair.session.open(pair.received.items, &plaintext, &to_send);
        try expectEqual(.needs_received, step.status);
        pair.drop(step.received_used);
        try testing.expectEqualStrings("hello", try pair.openAll(64));

        const answer = to_send[step.to_send_size..];
        const sealed = try pair.session.seal("world", answer[0 .. 517 + round]);
        try expectEqual(@as(usize, 5), sealed.plaintext_size);
        const sent = to_send[0 .. step.to_send_size + sealed.to_send_size];
        try expectEqual(@as(usize, if (requested) 2 else 1), try recordCount(sent));
        pair.server.give(sent);
        const heard = try pair.server.read(&plaintext);
        try testing.expectEqualStrings("world", heard.?);
    }
}

test "openssl: a server of TLS 1.2 that renegotiates" {
    for ([_]usize{ 16 * 1024, 20 }) |room| {
        var pair: Pair = undefined;
        try pair.initShaken(.{ .server = .{ .version = .tls1_2 } });
        defer pair.deinit();
        try pair.server.write("before");
        try pair.server.renegotiate();
        try pair.fetch();
        var plaintext: [64]u8 = undefined;
        const to_send = try pair.allocator().alloc(u8, room);
        var heard: std.ArrayList(u8) = .empty;
        for (0..1000) |turn| {
            const step = try pair.session.open(pair.received.items, &plaintext, to_send);
            pair.drop(step.received_used);
            pair.server.give(to_send[0..step.to_send_size]);
            try heard.appendSlice(pair.allocator(), plaintext[0..step.plaintext_size]);
            var buffer: [64]u8 = undefined;
            try expectEqual(null, try pair.server.read(&buffer));
            if (turn == 500) try pair.server.write("after");
            try pair.fetch();
        }
        try testing.expectEqualStrings("beforeafter", heard.items);
        try pair.expectSealed("order", 1024);
    }
}

test "openssl: sealing without room for a record reports needs_room" {
    for (versions) |version| {
        var pair: Pair = undefined;
        try pair.initShaken(.{ .server = .{ .version = version } });
        defer pair.deinit();
        const plaintext = try patternOf(pair.allocator(), 20_000);
        const to_send = try pair.allocator().alloc(u8, 20_000);
        for ([_]usize{ 0, 1, 100, 512 }) |room| {
            const step = try pair.session.seal(plaintext, to_send[0..room]);
            try expectEqual(.needs_room, step.status);
            try expectEqual(@as(usize, 0), step.plaintext_size);
            try expectEqual(@as(usize, 0), step.to_send_size);
        }
        for ([_]usize{ 513, 514, 1000, 16_000, 16_896, 20_000 }) |room| {
            try pair.expectSealed(plaintext, room);
        }
    }
}

test "openssl: close_notify ends the stream" {
    for (versions) |version| {
        var pair: Pair = undefined;
        try pair.initShaken(.{ .server = .{ .version = version } });
        defer pair.deinit();
        try pair.server.write("last");
        pair.server.sendCloseNotify();
        try pair.fetch();
        var plaintext: [64]u8 = undefined;
        var to_send: [64]u8 = undefined;
        for ([_]ssl.Step.Status{ .done, .closed }) |status| {
            while (true) {
                const step = try pair.session.open(pair.received.items, &plaintext, &to_send);
                pair.drop(step.received_used);
                if (step.status == .needs_received) continue; // A ticket of TLS 1.3.
                try expectEqual(status, step.status);
                break;
            }
        }
        try expectEqual(@as(usize, 0), pair.received.items.len);
    }
}

test "openssl: our own close_notify arrives" {
    for (versions) |version| {
        var pair: Pair = undefined;
        try pair.initShaken(.{ .server = .{ .version = version } });
        defer pair.deinit();
        try pair.expectSealed("last", 1024);
        var to_send: [64]u8 = undefined;
        const step = pair.session.shutdown(&to_send);
        try expect(step.to_send_size > 0);
        pair.server.give(to_send[0..step.to_send_size]);
        var buffer: [64]u8 = undefined;
        try expectEqual(null, try pair.server.read(&buffer));
        try expect(pair.server.receivedCloseNotify());
        // What the peer sends afterwards is still received.
        try pair.expectOpened("late", 64);
        // A second call does nothing, and needs no room.
        try expectEqual(@as(usize, 0), pair.session.shutdown(&.{}).to_send_size);
        try expectEqual(@as(c_ulong, 0), pair.server.api.ERR_peek_error());
    }
    var pair: Pair = undefined;
    try pair.init(.{});
    defer pair.deinit();
    var to_send: [64]u8 = undefined;
    _ = pair.session.shutdown(&to_send); // Before the handshake.
    try expectEqual(@as(c_ulong, 0), pair.server.api.ERR_peek_error());
}

test "openssl: a record with a wrong bit is refused, and gives no plaintext" {
    for (versions) |version| {
        var position: usize = constants.record_header_size;
        var size: usize = position + 1;
        while (position < size) : (position += 1) {
            var pair: Pair = undefined;
            try pair.initShaken(.{ .server = .{ .version = version } });
            defer pair.deinit();
            try pair.server.write("12345");
            try pair.fetch();
            size = pair.received.items.len;
            pair.received.items[position] ^= 0x10;
            try pair.expectRefused("decryption failed or bad record mac");
        }
        try expect(size > constants.record_header_size + 5 + 16);
        // A large record, whose last bit is wrong.
        var pair: Pair = undefined;
        try pair.initShaken(.{ .server = .{ .version = version } });
        defer pair.deinit();
        try pair.server.write(try patternOf(pair.allocator(), 16_384));
        try pair.fetch();
        pair.received.items[pair.received.items.len - 1] ^= 1;
        try pair.expectRefused("decryption failed or bad record mac");
    }
}

test "openssl: records in the wrong order, twice, or left out are refused" {
    for (versions) |version| {
        for ([_]enum { swapped, doubled, dropped }{ .swapped, .doubled, .dropped }) |mischief| {
            var pair: Pair = undefined;
            try pair.initShaken(.{ .server = .{ .version = version } });
            defer pair.deinit();
            var records: [2][]const u8 = undefined;
            for (&records, [_][]const u8{ "one", "two" }) |*record, text| {
                try pair.server.write(text);
                record.* = try pair.server.take(pair.allocator());
            }
            const gpa = pair.allocator();
            switch (mischief) {
                .swapped => for ([_]u1{ 1, 0 }) |index| {
                    try pair.received.appendSlice(gpa, records[index]);
                },
                .doubled => {
                    for (0..2) |_| try pair.received.appendSlice(gpa, records[0]);
                    var plaintext: [64]u8 = undefined;
                    const step = try pair.session.open(pair.received.items, &plaintext, &.{});
                    try testing.expectEqualStrings("one", plaintext[0..step.plaintext_size]);
                    pair.drop(step.received_used);
                },
                .dropped => try pair.received.appendSlice(gpa, records[1]),
            }
            try pair.expectRefused("decryption failed or bad record mac");
        }
    }
}

test "openssl: a record that is too long is refused when its header has arrived" {
    for (versions) |version| {
        for ([_]u16{ constants.record_plaintext_size_max + 2049, 0x8000, 0xffff }) |length| {
            for ([_]usize{ 5, 6, 70_000 }) |size| {
                var pair: Pair = undefined;
                try pair.initShaken(.{ .server = .{ .version = version } });
                defer pair.deinit();
                const record = try patternOf(pair.allocator(), size);
                record[0..5].* = .{ 23, 3, 3, @truncate(length >> 8), @truncate(length) };
                try pair.received.appendSlice(pair.allocator(), record);
                try expect(pair.session.recordWaiting(pair.received.items));
                try pair.expectRefused(null);
            }
        }
    }
}

test "openssl: a record as long as TLS 1.2 allows is waited for" {
    for ([_]u16{ constants.record_plaintext_size_max + 257, 18_432 }) |length| {
        var pair: Pair = undefined;
        try pair.initShaken(.{ .server = .{ .version = .tls1_2 } });
        defer pair.deinit();
        const record = try patternOf(pair.allocator(), 5 + @as(usize, length));
        record[0..5].* = .{ 23, 3, 3, @truncate(length >> 8), @truncate(length) };
        try pair.received.appendSlice(pair.allocator(), record[0 .. record.len - 1]);
        try testing.expectEqualStrings("", try pair.openAll(64));
        try pair.received.append(pair.allocator(), record[record.len - 1]);
        try pair.expectRefused(null); // Its tag is wrong.
    }
}

test "openssl: a malformed header is refused" {
    for (versions) |version| {
        for ([_][]const u8{
            "HTTP/1.1 200 OK\r\n\r\n",
            "\x00\x00\x00\x00\x00",
            "\x17\x02\x00\x00\x20" ++ "x" ++ "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
            "\x63\x03\x03\x00\x03abc",
        }) |garbage| {
            var pair: Pair = undefined;
            try pair.initShaken(.{ .server = .{ .version = version } });
            defer pair.deinit();
            try pair.received.appendSlice(pair.allocator(), garbage);
            try pair.expectRefused(null);
        }
    }
}

// ---- LibreSSL. ---------------------------------------------------------------------------------

/// The library that was found, made to behave as LibreSSL where that matters: a function that is a
/// macro there, callbacks that it does not call, and reads that return between two records.
const Libressl = struct {
    var real: *const libssl.Api = undefined;
    var pausing = true;
    /// The real library's code for the error that was peeked at last.
    var real_code: c_ulong = 0;

    fn api() !libssl.Api {
        real = try tls_server.clientApi();
        pausing = true;
        var result = real.*;
        result.OpenSSL_version = &version;
        result.SSL_session_reused = null;
        result.SSL_ctrl = &control;
        result.ERR_peek_last_error = &peekLastError;
        result.ERR_reason_error_string = &reasonText;
        result.SSL_CTX_set_keylog_callback = &ignoreKeyLog;
        result.SSL_CTX_set_info_callback = &ignoreInfo;
        result.SSL_read = &read;
        result.SSL_want = &want;
        return result;
    }

    fn version(_: c_int) callconv(.c) [*:0]const u8 {
        return "LibreSSL 4.3.2";
    }

    /// The macro SSL_session_reused is a control call that OpenSSL no longer has.
    fn control(
        handle: *libssl.Ssl,
        command: c_int,
        number: c_long,
        pointer: ?*anyopaque,
    ) callconv(.c) c_long {
        if (command != libssl.control_get_session_reused) {
            return real.SSL_ctrl(handle, command, number, pointer);
        }
        return @intFromBool(real.sessionReused(handle));
    }

    /// ERR_PACK of LibreSSL: eight bits for the library, twelve each for function and reason.
    fn peekLastError() callconv(.c) c_ulong {
        real_code = real.ERR_peek_last_error();
        const code = real.errorCode(real_code);
        return @as(c_ulong, code.library) << 24 | 0xfff << 12 | code.reason;
    }

    fn reasonText(_: c_ulong) callconv(.c) ?[*:0]const u8 {
        return real.ERR_reason_error_string(real_code);
    }

    fn ignoreKeyLog(_: *libssl.Context, _: *const libssl.KeyLogCallback) callconv(.c) void {}

    fn ignoreInfo(_: *libssl.Context, _: *const libssl.InfoCallback) callconv(.c) void {}

    /// In TLS 1.3 every other call pauses.
    fn read(handle: *libssl.Ssl, target: [*]u8, size: c_int) callconv(.c) c_int {
        const is_current = std.mem.eql(u8, std.mem.span(real.SSL_get_version(handle)), "TLSv1.3");
        pausing = !pausing or !is_current; // False: this call pauses.
        return if (pausing) real.SSL_read(handle, target, size) else -1;
    }

    fn want(handle: *const libssl.Ssl) callconv(.c) c_int {
        const want_reading = 2; // SSL_READING
        return if (pausing) real.SSL_want(handle) else want_reading;
    }
};

test "openssl: LibreSSL's alerts are reported: close_notify, and why it is refused" {
    const api = try Libressl.api();
    for (versions) |version| {
        var pair: Pair = undefined;
        try pair.initShaken(.{ .api = &api, .server = .{ .version = version } });
        defer pair.deinit();
        try pair.expectOpened("the last word", 64);
        pair.server.sendCloseNotify();
        try pair.fetch();
        var plaintext: [64]u8 = undefined;
        const step = try pair.session.open(pair.received.items, &plaintext, &.{});
        try expectEqual(.closed, step.status);
    }

    var pair: Pair = undefined;
    try pair.init(.{ .api = &api });
    defer pair.deinit();
    const handshake_failure = "\x15\x03\x03\x00\x02\x02\x28";
    var to_send: [1024]u8 = undefined;
    try expectEqual(.needs_received, (try pair.session.handshake("", &to_send)).status);
    const result = pair.session.handshake(handshake_failure, &to_send);
    try testing.expectError(error.TlsFailed, result);
    try testing.expectEqualStrings(
        "alert from the peer: handshake_failure",
        pair.session.failure().reason,
    );
}

test "openssl: nothing is lost when LibreSSL pauses between two records" {
    const api = try Libressl.api();
    for (versions) |version| {
        var pair: Pair = undefined;
        try pair.initShaken(.{ .api = &api, .server = .{ .version = version, .tickets = 2 } });
        defer pair.deinit();
        for (0..3) |_| try pair.expectOpened("a record, and another", 8);
        if (version == .tls1_3) pair.server.updateKeys(.requested);
        try pair.expectOpened("behind new keys", 64);
        try pair.expectSealed("answered", 1024);
    }
}

test "openssl: LibreSSL resumes a session, and it is reported" {
    const api = try Libressl.api();
    var tickets: ssl.Tickets = .{};
    defer tickets.deinit(&api);
    var pair: Pair = undefined;
    try pair.initShaken(.{ .api = &api, .tickets = &tickets, .server = .{ .version = .tls1_2 } });
    defer pair.deinit();
    try expect(!pair.session.info().resumed);

    try pair.server.renew();
    pair.session.deinit();
    pair.received.clearRetainingCapacity();
    pair.wire_size = 0;
    try pair.session.init(&pair.context, .{
        .server_name = "feed.test",
        .server_name_is_address = false,
        .engine = .openssl,
        .tickets = &tickets,
    });
    try pair.shake(.nowhere, 16 * 1024);
    try expect(pair.session.info().resumed);
}

test "openssl: LibreSSL gives only the secrets of TLS 1.2, and the reason is reported" {
    const api = try Libressl.api();
    var legacy: Pair = undefined;
    try legacy.initShaken(.{ .api = &api, .engine = .direct, .server = .{ .version = .tls1_2 } });
    defer legacy.deinit();
    try expectEqual(.direct, legacy.session.info().engine);

    var pair: Pair = undefined;
    try pair.init(.{ .api = &api, .engine = .direct, .server = .{ .version = .tls1_3 } });
    defer pair.deinit();
    try testing.expectError(error.TlsFailed, pair.shake(.nowhere, 16 * 1024));
    try testing.expectEqualStrings(
        "LibreSSL does not tell the traffic secrets of TLS 1.3",
        pair.session.failure().reason,
    );
}

test "openssl: LibreSSL's error that is named after an alert is not taken for the peer's" {
    const Sent = struct {
        fn peek() callconv(.c) c_ulong {
            return 20 << 24 | 0xfff << 12 | 1070; // SSL_R_TLSV1_ALERT_PROTOCOL_VERSION
        }
    };
    var api = try Libressl.api();
    api.ERR_peek_last_error = &Sent.peek;
    var pair: Pair = undefined;
    try pair.init(.{ .api = &api });
    defer pair.deinit();
    var to_send: [1024]u8 = undefined;
    _ = try pair.session.handshake("", &to_send);
    const result = pair.session.handshake("HTTP/1.1 400 Bad Request\r\n\r\n", &to_send);
    try testing.expectError(error.TlsFailed, result);
    try testing.expectEqualStrings("wrong version number", pair.session.failure().reason);
}

// ---- At random. --------------------------------------------------------------------------------

/// What came of one direction so far.
const Stream = struct { expected: std.ArrayList(u8) = .empty, checked_size: usize = 0 };

fn converseAtRandom(version: Server.Version, seed: u64) !void {
    var prng: std.Random.DefaultPrng = .init(seed);
    const random = prng.random();
    var pair: Pair = undefined;
    const tickets = random.uintAtMost(u8, 3);
    try pair.initShaken(.{ .server = .{ .version = version, .tickets = tickets } });
    defer pair.deinit();
    const gpa = pair.allocator();
    var held: std.ArrayList(u8) = .empty; // On the wire to the client.
    var down: Stream = .{};
    var up: Stream = .{};
    var plaintext: [40_000]u8 = undefined;
    var to_send: [40_000]u8 = undefined;
    for (0..300) |_| switch (random.uintLessThan(u8, 6)) {
        0 => {
            const bytes = plaintext[0 .. 1 + random.uintLessThan(usize, 40_000)];
            random.bytes(bytes);
            try pair.server.write(bytes);
            try down.expected.appendSlice(gpa, bytes);
            try held.appendSlice(gpa, try pair.server.take(gpa));
        },
        1 => if (version == .tls1_3) {
            pair.server.updateKeys(if (random.boolean()) .requested else .not_requested);
            try held.appendSlice(gpa, try pair.server.take(gpa));
        },
        2 => {
            const size = random.uintAtMost(usize, 2000);
            const bytes = plaintext[0 .. 1 + size];
            random.bytes(bytes);
            const step = try pair.session.seal(bytes, to_send[0..random.uintAtMost(usize, 20_000)]);
            try up.expected.appendSlice(gpa, bytes[0..step.plaintext_size]);
            pair.server.give(to_send[0..step.to_send_size]);
        },
        else => {
            const size = random.uintAtMost(usize, held.items.len);
            try pair.received.appendSlice(gpa, held.items[0..size]);
            held.replaceRangeAssumeCapacity(0, size, "");
            const room = plaintext[0 .. 1 + random.uintLessThan(usize, plaintext.len)];
            while (pair.session.recordWaiting(pair.received.items)) {
                const step = try pair.session.open(pair.received.items, room, &to_send);
                pair.drop(step.received_used);
                pair.server.give(to_send[0..step.to_send_size]);
                const expected = down.expected.items[down.checked_size..][0..step.plaintext_size];
                try testing.expectEqualSlices(u8, expected, room[0..step.plaintext_size]);
                down.checked_size += step.plaintext_size;
            }
            while (try pair.server.read(&plaintext)) |bytes| {
                const expected = up.expected.items[up.checked_size..][0..bytes.len];
                try testing.expectEqualSlices(u8, expected, bytes);
                up.checked_size += bytes.len;
            }
        },
    };
    try pair.received.appendSlice(gpa, held.items);
    const rest = try pair.openAll(plaintext.len);
    try testing.expectEqualSlices(u8, down.expected.items[down.checked_size..], rest);
    while (try pair.server.read(&plaintext)) |bytes| {
        const expected = up.expected.items[up.checked_size..][0..bytes.len];
        try testing.expectEqualSlices(u8, expected, bytes);
        up.checked_size += bytes.len;
    }
    try expectEqual(up.expected.items.len, up.checked_size);
    try pair.expectSealed("the end", 1024);
}

test "openssl: random data both ways, however it is cut, arrives as it was sent" {
    for (versions) |version| {
        for (0..20) |seed| {
            errdefer std.debug.print("{t} seed {d}\n", .{ version, seed });
            try converseAtRandom(version, seed);
        }
    }
}
