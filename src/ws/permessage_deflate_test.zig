//! Tests of `permessage_deflate.zig`: offers, and the answers to them.

const std = @import("std");
const http = @import("../http.zig");
const permessage_deflate = @import("permessage_deflate.zig");
const Writer = std.Io.Writer;
const name = permessage_deflate.name;
const Offer = permessage_deflate.Offer;
const Agreement = permessage_deflate.Agreement;
const ResponseError = permessage_deflate.ResponseError;
const writeOffer = permessage_deflate.writeOffer;
const parseResponse = permessage_deflate.parseResponse;

const testing = std.testing;

fn expectOffer(expected: []const u8, offer: Offer) !void {
    var buffer: [256]u8 = undefined;
    var writer: Writer = .fixed(&buffer);
    try writeOffer(&writer, offer);
    try testing.expectEqualStrings(expected, writer.buffered());
}

test "permessage_deflate: the offer names what was asked for" {
    try expectOffer("permessage-deflate; client_max_window_bits", .{});
    try expectOffer("permessage-deflate; client_max_window_bits=9; server_max_window_bits=10; " ++
        "server_no_context_takeover; client_no_context_takeover", .{
        .server_no_context_takeover = true,
        .client_no_context_takeover = true,
        .server_max_window_bits = 10,
        .client_max_window_bits = 9,
    });
}

/// The answer of a server with these extension header lines.
fn respond(offer: Offer, lines: []const u8) !?Agreement {
    var buffer: [512]u8 = undefined;
    const response = try std.fmt.bufPrint(&buffer, "HTTP/1.1 101 x\r\n{s}\r\n", .{lines});
    var searched: usize = 0;
    const head = (try http.response.parseHead(response, &searched)).?;
    return parseResponse(&head, offer);
}

const Case = struct { []const u8, ResponseError!?Agreement };

fn expectCase(offer: Offer, case: Case) !void {
    const value, const expected = case;
    var buffer: [256]u8 = undefined;
    const line = try std.fmt.bufPrint(&buffer, "Sec-WebSocket-Extensions: {s}\r\n", .{value});
    if (expected) |agreement| {
        try testing.expectEqualDeep(agreement, try respond(offer, line));
    } else |err| {
        try testing.expectError(err, respond(offer, line));
    }
}

const full: Agreement = .{
    .server_no_context_takeover = false,
    .client_no_context_takeover = false,
    .server_max_window_bits = 15,
    .client_max_window_bits = 15,
};

test "permessage_deflate: every parameter of the answer is understood" {
    try testing.expectEqual(null, try respond(.{}, ""));
    try testing.expectEqual(null, try respond(.{}, "Sec-WebSocket-Extensions:\r\n"));
    const cases = [_]Case{
        .{ "permessage-deflate", full },
        .{ " permessage-deflate ,, ", full },
        .{ "permessage-deflate; client_max_window_bits=15;server_max_window_bits = \"15\"", full },
        .{ "permessage-deflate; server_no_context_takeover; client_no_context_takeover; " ++
            "server_max_window_bits=8; client_max_window_bits=\"11\"", .{
            .server_no_context_takeover = true,
            .client_no_context_takeover = true,
            .server_max_window_bits = 8,
            .client_max_window_bits = 11,
        } },
    };
    for (cases) |case| try expectCase(.{}, case);
}

test "permessage_deflate: an answer that is none to the offer is refused" {
    const cases = [_]Case{
        .{ "permessage-bzip2", error.UnexpectedExtension },
        .{ "Permessage-Deflate", error.UnexpectedExtension },
        .{ "permessage-deflate, permessage-deflate", error.RepeatedExtension },
        .{ "permessage-deflate, x", error.UnexpectedExtension },
        .{ "permessage deflate", error.MalformedExtension },
        .{ "; client_max_window_bits=9", error.MalformedExtension },
        .{ "permessage-deflate;", error.MalformedExtension },
        .{ "permessage-deflate; =9", error.MalformedExtension },
    };
    for (cases) |case| try expectCase(.{}, case);
    const parameters = [_][]const u8{
        "unknown",
        "server_no_context_takeover=1",
        "server_no_context_takeover; server_no_context_takeover",
        "server_max_window_bits=9; server_max_window_bits=9",
        "server_max_window_bits",
        "client_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=09",
        "server_max_window_bits=+9",
        "server_max_window_bits=",
        "server_max_window_bits=\"\"",
        "server_max_window_bits=\"",
    };
    inline for (parameters) |text| {
        try expectCase(.{}, .{ name ++ "; " ++ text, error.InvalidExtensionParameter });
    }
    try testing.expectError(error.RepeatedExtension, respond(
        .{},
        "Sec-WebSocket-Extensions: permessage-deflate\r\n" ++
            "sec-websocket-extensions: permessage-deflate\r\n",
    ));
}

test "permessage_deflate: what was asked of the server has to be granted" {
    const offer: Offer = .{ .server_no_context_takeover = true, .server_max_window_bits = 10 };
    const granted = "permessage-deflate; server_no_context_takeover; server_max_window_bits=";
    const cases = [_]Case{
        .{ "permessage-deflate", error.InvalidExtensionParameter },
        .{ "permessage-deflate; server_no_context_takeover", error.InvalidExtensionParameter },
        .{ "permessage-deflate; server_max_window_bits=10", error.InvalidExtensionParameter },
        .{ granted ++ "11", error.InvalidExtensionParameter },
        .{ granted ++ "9", .{
            .server_no_context_takeover = true,
            .client_no_context_takeover = false,
            .server_max_window_bits = 9,
            .client_max_window_bits = 15,
        } },
    };
    for (cases) |case| try expectCase(offer, case);
}

test "permessage_deflate: our own limits hold, whether the server repeats them or not" {
    const offer: Offer = .{ .client_no_context_takeover = true, .client_max_window_bits = 10 };
    const answers = [_]struct { []const u8, u8 }{
        .{ "permessage-deflate", 10 },
        .{ "permessage-deflate; client_max_window_bits=8", 8 },
        .{ "permessage-deflate; client_max_window_bits=10", 10 },
        .{ "permessage-deflate; client_max_window_bits=11", 10 },
        .{ "permessage-deflate; client_max_window_bits=15", 10 },
    };
    for (answers) |answer| {
        const value, const client_bits = answer;
        try expectCase(offer, .{ value, .{
            .server_no_context_takeover = false,
            .client_no_context_takeover = true,
            .server_max_window_bits = 15,
            .client_max_window_bits = client_bits,
        } });
    }
    const too_large = "permessage-deflate; client_max_window_bits=16";
    try expectCase(offer, .{ too_large, error.InvalidExtensionParameter });
}
