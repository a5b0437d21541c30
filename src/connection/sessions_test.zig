//! Tests of which TLS sessions are offered again, and which never: on the scripted kernel, against
//! a TLS server in memory.

const std = @import("std");
const ssl = @import("../ssl.zig");
const ScriptedOs = @import("../testing/scripted_os.zig");
const bed_module = @import("../testing/connection_bed.zig");
const tls_bed = @import("../testing/tls_bed.zig");
const tls_server = @import("../testing/tls_server.zig");

const testing = std.testing;
const expect = testing.expect;
const expectEqual = testing.expectEqual;
const kernel = &ScriptedOs.kernel;
const textFrame = bed_module.textFrame;
const TlsBed = tls_bed.TlsBed;
const variants = tls_bed.variants;
const versions = [_]tls_server.Server.Version{ .tls1_2, .tls1_3 };

const options = bed_module.optionsOf("wss://feed.test/stream");

fn sessionCount(tls: *const TlsBed) usize {
    return tls.bed.connection.lifecycle.opening.tickets.count;
}

/// Opens, and exchanges a message, by which time the tickets have arrived.
fn converse(tls: *TlsBed, resumed: bool) !void {
    tls.bed.seen = .empty;
    tls.bed.checked_size = 0;
    try tls.open();
    try tls.sayFrames(&.{textFrame("hello")});
    try tls.exchange();
    try tls.bed.expectSeen(&.{.text("hello")});
    try expectEqual(resumed, tls.bed.connection.transport.link.tls.?.info().resumed);
    try expect(sessionCount(tls) > 0);
}

fn hangUp(tls: *TlsBed) !void {
    kernel.then(.end);
    try tls.bed.drive();
    try expect(tls.bed.failed);
    try tls.renewConnection();
}

/// What a server may do when it has seen the offer.
const Way = enum { ends, resets, stalls, says_alert, says_garbage, answers_by_half, is_left };

fn breakHandshake(tls: *TlsBed, way: Way) !void {
    switch (way) {
        .ends => kernel.then(.end),
        .resets => kernel.then(.{ .fails = error.ConnectionReset }),
        .stalls, .is_left, .answers_by_half => {},
        .says_alert => kernel.feed("\x15\x03\x03\x00\x02\x02\x28"),
        .says_garbage => kernel.feed("HTTP/1.1 400 Bad Request\r\n\r\n"),
    }
    try tls.bed.start();
    switch (way) {
        .ends, .resets, .says_alert, .says_garbage => try tls.bed.drive(),
        .stalls => try tls.bed.driveToEnd(),
        .answers_by_half => {
            try tls.bed.drive();
            _ = try tls.listen();
            kernel.feed((try tls.server.take(tls.bed.arena()))[0..30]);
            kernel.then(.end);
            try tls.bed.drive();
        },
        .is_left => {
            try tls.bed.drive();
            tls.bed.connection.close(1000, "");
        },
    }
    try expect(tls.bed.isOver());
}

test "sessions: one that breaks the handshake is not offered again, however it breaks" {
    for (versions) |version| {
        for (std.enums.values(Way)) |way| {
            errdefer std.debug.print("{t}: {t}\n", .{ version, way });
            var tls: TlsBed = undefined;
            try tls.init(options, .{ .version = version, .tickets = 2 });
            defer tls.deinit();
            try converse(&tls, false);
            try hangUp(&tls);
            try expect(sessionCount(&tls) > 0);
            try breakHandshake(&tls, way);
            // All of this server's: each of the others could break it in the same way.
            try expectEqual(0, sessionCount(&tls));
            try tls.renewConnection();
            try converse(&tls, false);
            try hangUp(&tls);
            try converse(&tls, true);
        }
    }
}

test "sessions: what fails before a session is offered says nothing about it" {
    for (versions) |version| {
        var tls: TlsBed = undefined;
        try tls.init(options, .{ .version = version, .tickets = 2 });
        defer tls.deinit();
        try converse(&tls, false);
        try hangUp(&tls);
        kernel.thenConnect(.{ .answered = .{ .result = error.ConnectionRefused } });
        try tls.bed.start();
        try tls.bed.driveToEnd();
        try tls.renewConnection();
        try converse(&tls, true);
    }
}

test "sessions: an ordinary end, and one in mid-stream, leave them" {
    for (variants) |variant| {
        var tls: TlsBed = undefined;
        const server_options: tls_server.Server.Options = .{
            .version = variant.version,
            .tickets = 2,
        };
        try tls.init(variant.with(options), server_options);
        defer tls.deinit();
        for (0..4) |round| {
            try converse(&tls, round > 0);
            if (round % 2 == 1) {
                tls.server.sendCloseNotify();
                kernel.feed(try tls.server.take(tls.bed.arena()));
            }
            try hangUp(&tls);
        }
    }
}

test "sessions: a fatal alert ends them, sent or received (RFC 5246, 7.2.2; RFC 8446, 6.2)" {
    for (variants) |variant| {
        for ([_]enum { sent, received }{ .sent, .received }) |direction| {
            errdefer std.debug.print("{t}, {t}: {t}\n", .{
                variant.version,
                variant.engine,
                direction,
            });
            var tls: TlsBed = undefined;
            const server_options: tls_server.Server.Options = .{
                .version = variant.version,
                .tickets = 2,
            };
            try tls.init(variant.with(options), server_options);
            defer tls.deinit();
            try converse(&tls, false);
            switch (direction) {
                .sent => {
                    try tls.server.write("never read");
                    const record = try tls.server.take(tls.bed.arena());
                    record[record.len - 1] ^= 1;
                    kernel.feed(record);
                },
                .received => {
                    const garbage = "\x17\x03\x03\x00\x20 and this was never a record at all.";
                    tls.server.give(garbage[0 .. 5 + 0x20]);
                    var buffer: [64]u8 = undefined;
                    const result = tls.server.read(&buffer);
                    try testing.expectError(error.TlsServerFailed, result);
                    kernel.feed(try tls.server.take(tls.bed.arena()));
                },
            }
            try tls.bed.driveToEnd();
            const reason = tls.bed.connection.failure().?.tls.cause.reason;
            try expect(std.mem.find(u8, reason, "bad") != null);
            try expectEqual(0, sessionCount(&tls));
            try tls.renewConnection();
            try converse(&tls, false);
        }
    }
}

test "sessions: an alert that comes while only the end is awaited ends them" {
    for (variants) |variant| {
        var tls: TlsBed = undefined;
        const server_options: tls_server.Server.Options = .{
            .version = variant.version,
            .tickets = 2,
        };
        try tls.init(variant.with(options), server_options);
        defer tls.deinit();
        try converse(&tls, false);
        try tls.sayFrames(&.{bed_module.closeFrame(1000, "")});
        try tls.server.write("never read");
        const record = try tls.server.take(tls.bed.arena());
        record[record.len - 1] ^= 1;
        kernel.feed(record);
        try tls.bed.driveToEnd();
        try expectEqual(0, sessionCount(&tls));
    }
}

test "sessions: a ticket of TLS 1.2 that is renewed takes the place of the old one" {
    const Tickets = tls_server.RenewedTickets;
    for ([_]ssl.Engine{ .direct, .ktls, .openssl }) |engine| {
        var tls: TlsBed = undefined;
        const server_options: tls_server.Server.Options = .{
            .version = .tls1_2,
            .renews_tickets = true,
        };
        try tls.init(tls_bed.withEngine(engine, options), server_options);
        defer tls.deinit();
        Tickets.made = 0;
        Tickets.offered = null;
        for (0..4) |round| {
            try converse(&tls, round > 0);
            try expectEqual(round + 1, Tickets.made);
            if (round > 0) try expectEqual(round, Tickets.offered.?);
            try expectEqual(1, sessionCount(&tls)); // Nothing else is kept.
            try hangUp(&tls);
        }
    }
}
