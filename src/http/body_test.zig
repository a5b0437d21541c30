//! Tests of `body.zig`: where a body ends, and its bytes without the chunks around them.

const std = @import("std");
const header_module = @import("header.zig");
const response_module = @import("response.zig");
const body_module = @import("body.zig");
const trailers_size_max = body_module.trailers_size_max;
const chunk_extensions_size_max = body_module.chunk_extensions_size_max;
const InitError = body_module.InitError;
const DecodeError = body_module.DecodeError;
const Framing = body_module.Framing;
const Decoder = body_module.Decoder;
const describe = body_module.describe;

test "body: the head decides the framing" {
    const Case = struct {
        framing: Framing,
        size: u64 = 0,
        status: []const u8 = "1.1 200",
        fields: []const u8 = "",
        method_is_head: bool = false,
    };
    const cases = [_]Case{
        .{ .framing = .until_close },
        .{ .framing = .until_close, .status = "1.0 200", .fields = "Connection: keep-alive\r\n" },
        .{ .framing = .content_length, .size = 5, .fields = "content-length: 5\r\n" },
        .{ .framing = .content_length, .size = 5, .fields = "Content-Length:\t005 \r\n" },
        .{ .framing = .content_length, .size = 0, .fields = "Content-Length: 0\r\n" },
        .{ .framing = .content_length, .size = 7, .fields = "Content-Length: 7, 7 ,7\r\n" },
        .{
            .framing = .content_length,
            .size = 7,
            .fields = "Content-Length: 7\r\nA: b\r\nCONTENT-LENGTH: 7\r\n",
        },
        .{
            .framing = .content_length,
            .size = std.math.maxInt(u64),
            .fields = "Content-Length: 18446744073709551615\r\n",
        },
        .{
            .framing = .content_length,
            .size = 1,
            .status = "1.0 404",
            .fields = "Content-Length: 1\r\n",
        },
        .{ .framing = .chunked, .fields = "Transfer-Encoding: chunked\r\n" },
        .{ .framing = .chunked, .fields = "transfer-encoding: \tCHUNKED \r\n" },
        .{ .framing = .none, .status = "1.1 204", .fields = "Transfer-Encoding: chunked\r\n" },
        .{ .framing = .none, .status = "1.1 304", .fields = "Content-Length: 5\r\n" },
        .{ .framing = .none, .status = "1.1 101", .fields = "Content-Length: 5\r\n" },
        .{ .framing = .none, .fields = "Content-Length: 5\r\n", .method_is_head = true },
        .{ .framing = .none, .fields = "Content-Length: 5, 6\r\n", .method_is_head = true },
    };
    for (cases) |case| {
        errdefer std.debug.print("fields: {s}\n", .{case.fields});
        const decoder = try testDecoder(case.status, case.fields, case.method_is_head);
        try std.testing.expectEqual(case.framing, decoder.framing);
        const no_body = case.framing == .none or
            (case.framing == .content_length and case.size == 0);
        try std.testing.expectEqual(no_body, decoder.isDone());
        switch (case.framing) {
            .none, .content_length => try std.testing.expectEqual(case.size, decoder.remaining),
            .chunked, .until_close => {},
        }
    }
}

test "body: framing that two recipients could read differently is refused by cause" {
    const Case = struct { InitError, []const u8 };
    const cases = [_]Case{
        .{ error.InvalidContentLength, "Content-Length:\r\n" },
        .{ error.InvalidContentLength, "Content-Length: -1\r\n" },
        .{ error.InvalidContentLength, "Content-Length: +1\r\n" },
        .{ error.InvalidContentLength, "Content-Length: 0x5\r\n" },
        .{ error.InvalidContentLength, "Content-Length: 1_0\r\n" },
        .{ error.InvalidContentLength, "Content-Length: 5 5\r\n" },
        .{ error.InvalidContentLength, "Content-Length: 5,\r\n" },
        .{ error.InvalidContentLength, "Content-Length: ,5\r\n" },
        .{ error.InvalidContentLength, "Content-Length: 5,,5\r\n" },
        .{ error.InvalidContentLength, "Content-Length: 5.0\r\n" },
        .{ error.InvalidContentLength, "Content-Length: five\r\n" },
        .{ error.InvalidContentLength, "Content-Length: 5\r\nContent-Length: \r\n" },
        .{ error.ConflictingContentLength, "Content-Length: 5, 6\r\n" },
        .{ error.ConflictingContentLength, "Content-Length: 5, 05\r\n" },
        .{ error.ConflictingContentLength, "Content-Length: 5\r\nContent-Length: 6\r\n" },
        .{ error.ContentLengthTooLarge, "Content-Length: 18446744073709551616\r\n" },
        .{ error.ContentLengthTooLarge, "Content-Length: 184467440737095516150\r\n" },
        .{ error.ContentLengthTooLarge, "Content-Length: 99999999999999999999999999\r\n" },
        .{ error.UnsupportedTransferEncoding, "Transfer-Encoding:\r\n" },
        .{ error.UnsupportedTransferEncoding, "Transfer-Encoding: identity\r\n" },
        .{ error.UnsupportedTransferEncoding, "Transfer-Encoding: gzip, chunked\r\n" },
        .{ error.UnsupportedTransferEncoding, "Transfer-Encoding: chunked, chunked\r\n" },
        .{ error.UnsupportedTransferEncoding, "Transfer-Encoding: ,chunked\r\n" },
        .{ error.UnsupportedTransferEncoding, "Transfer-Encoding: chunked;q=1\r\n" },
        .{ error.UnsupportedTransferEncoding, "Transfer-Encoding: xchunked\r\n" },
        .{ error.UnsupportedTransferEncoding, "Transfer-Encoding: \"chunked\"\r\n" },
        .{
            error.UnsupportedTransferEncoding,
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        },
        .{
            error.UnsupportedTransferEncoding,
            "Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        },
        .{
            error.TransferEncodingWithContentLength,
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        },
        .{
            error.TransferEncodingWithContentLength,
            "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
        },
    };
    for (cases) |case| {
        const expected, const fields = case;
        errdefer std.debug.print("fields: {s}\n", .{fields});
        try std.testing.expectError(expected, testDecoder("1.1 200", fields, false));
        try std.testing.expect(describe(expected).len > 0);
    }
    const result = testDecoder("1.0 200", "Transfer-Encoding: chunked\r\n", false);
    try std.testing.expectError(error.TransferEncodingInHttp10, result);
}

test "body: a body cut at any two places is the same, and ends where it says" {
    const Case = struct {
        fields: []const u8,
        text: []const u8,
        body: []const u8,
        after: []const u8 = "",
    };
    const sized = "Content-Length: 5\r\n";
    const chunked = "Transfer-Encoding: chunked\r\n";
    const cases = [_]Case{
        .{ .fields = sized, .text = "helloHTTP", .body = "hello", .after = "HTTP" },
        .{ .fields = "Content-Length: 0\r\n", .text = "x", .body = "", .after = "x" },
        .{ .fields = chunked, .text = "0\r\n\r\n", .body = "", .after = "" },
        .{ .fields = chunked, .text = "0\r\n\r\n0\r\n\r\n", .body = "", .after = "0\r\n\r\n" },
        .{
            .fields = chunked,
            .text = "1\r\na\r\n00B\r\n\r\n0\r\n\r\nbcdx\r\n3;x=\"y;\"\r\nxyz\r\n0\r\n\r\nHTTP",
            .body = "a\r\n0\r\n\r\nbcdxxyz",
            .after = "HTTP",
        },
        .{
            .fields = chunked,
            .text = "2 \t;a ; b = c\r\nhi\r\n1;\r\n!\r\n" ++
                "000;last\r\nA: b\r\nExpires: never\r\n\r\n\r\n",
            .body = "hi!",
            .after = "\r\n",
        },
        .{
            .fields = chunked,
            .text = "a\r\n0123456789\r\nA\r\nabcdefghij\r\n0000000000000000\r\n\r\n",
            .body = "0123456789abcdefghij",
            .after = "",
        },
    };
    for (cases) |case| {
        errdefer std.debug.print("body: {q}\n", .{case.text});
        const size = case.text.len - case.after.len;
        for (0..case.text.len + 1) |first| {
            for (first..case.text.len + 1) |second| {
                var run: TestRun = .{ .decoder = try testDecoder("1.1 200", case.fields, false) };
                try run.feed(case.text[0..first]);
                try std.testing.expectEqual(first >= size, run.decoder.isDone());
                if (first < size) {
                    var copy = run.decoder;
                    try std.testing.expectError(error.Truncated, copy.finish());
                }
                try run.feed(case.text[first..second]);
                try run.feed(case.text[second..]);

                try std.testing.expectEqualStrings(case.body, run.body());
                try std.testing.expectEqual(size, run.used);
                try std.testing.expectEqual(case.body.len, run.decoder.body_size);
                try std.testing.expect(run.decoder.isDone());
                try run.decoder.finish();
            }
        }
    }
}

test "body: a body that the end of the connection ends takes everything" {
    const text = "0\r\n\r\nhello";
    for (0..text.len + 1) |cut| {
        var run: TestRun = .{ .decoder = try testDecoder("1.1 200", "", false) };
        try run.feed(text[0..cut]);
        try run.feed(text[cut..]);
        try std.testing.expect(!run.decoder.isDone());
        try std.testing.expectEqualStrings(text, run.body());

        try run.decoder.finish();
        try std.testing.expect(run.decoder.isDone());
        try run.feed("late");
        try std.testing.expectEqual(text.len, run.used);
    }
}

test "body: a response without a body takes no byte" {
    var run: TestRun = .{ .decoder = try testDecoder("1.1 204", "Content-Length: 3\r\n", false) };
    try run.feed("abc");
    try std.testing.expectEqual(0, run.used);
    try run.decoder.finish();
}

test "body: the first chunk of a call stays where it is, the others close up to it" {
    var decoder = try testDecoder("1.1 200", "Transfer-Encoding: chunked\r\n", false);
    var bytes = "3\r\nabc\r\n2\r\nde\r\n4\r\nf".*;
    const step = try decoder.next(&bytes);
    try std.testing.expectEqualStrings("abcdef", step.body);
    try std.testing.expectEqual(&bytes[3], &step.body[0]);
    try std.testing.expectEqual(bytes.len, step.used);
    try std.testing.expect(!step.done);
}

test "body: each defect of a chunk has its own error, which stays" {
    const Case = struct { DecodeError, []const u8 };
    const cases = [_]Case{
        .{ error.MalformedChunkSize, "\r\n" },
        .{ error.MalformedChunkSize, "\n" },
        .{ error.MalformedChunkSize, " 1\r\n" },
        .{ error.MalformedChunkSize, ";a\r\n" },
        .{ error.MalformedChunkSize, "g\r\n" },
        .{ error.MalformedChunkSize, "-1\r\n" },
        .{ error.MalformedChunkSize, "+1\r\n" },
        .{ error.MalformedChunkSize, "0x1\r\n" },
        .{ error.MalformedChunkSize, "1_0\r\n" },
        .{ error.MalformedChunkSize, "1\na\r\n" },
        .{ error.MalformedChunkSize, "1\ra\r\n" },
        .{ error.MalformedChunkSize, "1 \r\na\r\n" },
        .{ error.MalformedChunkSize, "1 2\r\na\r\n" },
        .{ error.MalformedChunkSize, "1\r\na\r\n\r\n" },
        .{ error.MalformedChunkSize, "1;a\rb\r\n" },
        .{ error.MalformedChunkExtension, "1;a\nb\r\n" },
        .{ error.MalformedChunkExtension, "1;\x00\r\n" },
        .{ error.MalformedChunkEnd, "1\r\nab\r\n" },
        .{ error.MalformedChunkEnd, "1\r\na\n0\r\n\r\n" },
        .{ error.MalformedChunkEnd, "1\r\na\r0\r\n\r\n" },
        .{ error.MalformedChunkEnd, "1\r\na0\r\n\r\n" },
        .{ error.MalformedTrailer, "0\r\n\n" },
        .{ error.MalformedTrailer, "0\r\n\rA" },
        .{ error.MalformedTrailer, "0\r\nA: b\n" },
        .{ error.MalformedTrailer, "0\r\nA: b\rC" },
        .{ error.MalformedTrailer, "0\r\nA: \x00\r\n\r\n" },
        .{ error.ChunkSizeTooLarge, "10000000000000000\r\n" },
        .{ error.ChunkSizeTooLarge, "00000000000000001\r\n" },
    };
    for (cases) |case| {
        const expected, const text = case;
        errdefer std.debug.print("body: {q}\n", .{text});
        try std.testing.expect(describe(expected).len > 0);
        for (0..text.len + 1) |cut| {
            var decoder = try testDecoder("1.1 200", "Transfer-Encoding: chunked\r\n", false);
            var buffer: [64]u8 = undefined;
            @memcpy(buffer[0..text.len], text);
            _ = decoder.next(buffer[0..cut]) catch |err| {
                try std.testing.expectEqual(expected, err);
            };
            const rest = buffer[cut..text.len];
            if (decoder.next(rest)) |step| {
                try std.testing.expectEqualStrings("a", step.body);
                try std.testing.expect(step.used < rest.len);
            } else |err| try std.testing.expectEqual(expected, err);
            try std.testing.expectError(expected, decoder.next(buffer[0..0]));
            try std.testing.expect(!decoder.isDone());
            try std.testing.expectError(error.Truncated, decoder.finish());
        }
    }
}

test "body: a chunk of the largest size is a chunk, not an overflow" {
    var run: TestRun = .{
        .decoder = try testDecoder("1.1 200", "Transfer-Encoding: chunked\r\n", false),
    };
    try run.feed("fFfFfFfFfFfFfFfF\r\nabc");
    try std.testing.expectEqualStrings("abc", run.body());
    try std.testing.expectEqual(std.math.maxInt(u64) - 3, run.decoder.remaining);
}

test "body: extensions may take their bound and as many bytes as the body has, and no more" {
    for ([_]usize{ 0, 1 }) |excess| {
        var decoder = try testDecoder("1.1 200", "Transfer-Encoding: chunked\r\n", false);
        var first = "3\r\nabc\r\n1".*;
        _ = try decoder.next(&first);

        var extension: [chunk_extensions_size_max + 3 + 1]u8 = @splat('x');
        extension[0] = ';';
        const result = decoder.next(extension[0 .. chunk_extensions_size_max + 3 - 1 + excess]);
        _ = try result;

        // The CR that ends an extension counts too.
        var end = "\r\na\r\n0\r\n\r\n".*;
        if (excess == 0) {
            try std.testing.expect((try decoder.next(&end)).done);
        } else {
            try std.testing.expectError(error.ChunkExtensionsTooLarge, decoder.next(&end));
        }
    }
}

test "body: trailers may take their bound, and no more" {
    for ([_]usize{ 0, 1 }) |excess| {
        var decoder = try testDecoder("1.1 200", "Transfer-Encoding: chunked\r\n", false);
        var last = "0\r\nA: b\r\n".*;
        _ = try decoder.next(&last);
        const line_size = "A: b".len;

        var trailer: [trailers_size_max]u8 = @splat('x');
        if (decoder.next(trailer[0 .. trailers_size_max - line_size + excess])) |_| {
            try std.testing.expectEqual(0, excess);
            var end = "\r\n\r\n".*;
            try std.testing.expect((try decoder.next(&end)).done);
        } else |err| {
            try std.testing.expectEqual(error.TrailersTooLarge, err);
            try std.testing.expectEqual(1, excess);
        }
    }
}

test "body: random bodies in random chunks, cut at random, come out as they went in" {
    var prng: std.Random.DefaultPrng = .init(0x626f6479);
    const random = prng.random();
    for (0..3_000) |_| {
        var body_buffer: [256]u8 = undefined;
        const body = body_buffer[0..random.uintAtMost(usize, body_buffer.len)];
        random.bytes(body);

        var text: [4096]u8 = undefined;
        var writer: std.Io.Writer = .fixed(&text);
        var rest: []const u8 = body;
        while (rest.len > 0) {
            const size = random.intRangeAtMost(usize, 1, @min(rest.len, 40));
            switch (random.uintLessThan(u8, 4)) {
                0 => try writer.print("{x}\r\n", .{size}),
                1 => try writer.print("{X:0>4}\r\n", .{size}),
                2 => try writer.print("{x};name=\"value\"\r\n", .{size}),
                else => try writer.print("{x} ; a;b\r\n", .{size}),
            }
            try writer.writeAll(rest[0..size]);
            try writer.writeAll("\r\n");
            rest = rest[size..];
        }
        try writer.writeAll(if (random.boolean()) "0\r\n\r\n" else "0;x\r\nA: b\r\n\r\n");
        const encoded_size = writer.end;
        try writer.writeAll("HTTP/1.1");

        var run: TestRun = .{
            .decoder = try testDecoder("1.1 200", "Transfer-Encoding: chunked\r\n", false),
        };
        var encoded: []const u8 = writer.buffered();
        while (encoded.len > 0) {
            const size = random.intRangeAtMost(usize, 1, @min(encoded.len, 100));
            try run.feed(encoded[0..size]);
            encoded = encoded[size..];
        }
        try std.testing.expectEqualSlices(u8, body, run.body());
        try std.testing.expectEqual(encoded_size, run.used);
        try std.testing.expect(run.decoder.isDone());
    }
}

test "body: mutated chunks are judged as a plain reading of the grammar judges them" {
    const seed = "5\r\nhello\r\n3;a=b\r\n1\r\n\r\n0a ;c\r\n0\r\n\r\n01234\r\n" ++
        "0\r\nA: b\r\n\r\nHTTP/1.1";
    const alphabet = "\r\n\r\n 0123;:aA\x00\xffx";
    var prng: std.Random.DefaultPrng = .init(0x6d757461);
    const random = prng.random();
    var outcomes: std.EnumArray(TestModel.Outcome, usize) = .initFill(0);
    for (0..100_000) |_| {
        var text_buffer = seed.*;
        for (0..random.uintAtMost(usize, 3)) |_| {
            const replacement = alphabet[random.uintLessThan(usize, alphabet.len)];
            text_buffer[random.uintLessThan(usize, text_buffer.len)] = replacement;
        }
        const text = text_buffer[0 .. seed.len - random.uintAtMost(usize, 20)];
        errdefer std.debug.print("body: {q}\n", .{text});

        var model: TestModel = .{ .rest = text };
        const outcome = model.decode();
        outcomes.getPtr(outcome).* += 1;

        var run: TestRun = .{
            .decoder = try testDecoder("1.1 200", "Transfer-Encoding: chunked\r\n", false),
        };
        var failed = false;
        var rest: []const u8 = text;
        while (rest.len > 0 and !failed) {
            const size = random.intRangeAtMost(usize, 1, rest.len);
            run.feed(rest[0..size]) catch |err| switch (err) {
                error.TestUnexpectedResult, error.TestExpectedEqual => return err,
                else => failed = true,
            };
            rest = rest[size..];
        }
        try std.testing.expectEqual(outcome == .malformed, failed);
        try std.testing.expectEqual(outcome == .done, run.decoder.isDone());
        try std.testing.expectEqualSlices(u8, model.body(), run.body());
        if (outcome == .malformed) continue;
        try std.testing.expectEqual(text.len - model.rest.len, run.used);
    }
    for (std.enums.values(TestModel.Outcome)) |outcome| {
        try std.testing.expect(outcomes.get(outcome) > 1_000);
    }
}

/// A decoder of the head that the two parts make.
fn testDecoder(status: []const u8, fields: []const u8, method_is_head: bool) !Decoder {
    var buffer: [256]u8 = undefined;
    var writer: std.Io.Writer = .fixed(&buffer);
    try writer.print("HTTP/{s} reason\r\n{s}\r\n", .{ status, fields });
    var searched: usize = 0;
    const head = (try response_module.parseHead(writer.buffered(), &searched)).?;
    return .init(&head, method_is_head);
}

/// A decoder and the body that came out of it so far.
const TestRun = struct {
    decoder: Decoder,
    body_buffer: [512]u8 = undefined,
    body_size: usize = 0,
    used: usize = 0,

    /// Passes a copy of `text` in a buffer of its own, in which nothing past `used` may change.
    fn feed(run: *TestRun, text: []const u8) anyerror!void {
        var buffer: [512]u8 = undefined;
        const bytes = buffer[0..text.len];
        @memcpy(bytes, text);

        const step = try run.decoder.next(bytes);
        try std.testing.expectEqual(run.decoder.isDone(), step.done);
        const complete = step.done or step.used == text.len;
        if (!complete) try std.testing.expect(step.body.len > 0);
        try std.testing.expectEqualSlices(u8, text[step.used..], bytes[step.used..]);
        const offset = step.body.ptr - bytes.ptr;
        try std.testing.expect(offset + step.body.len <= step.used);

        @memcpy(run.body_buffer[run.body_size..][0..step.body.len], step.body);
        run.body_size += step.body.len;
        run.used += step.used;
        if (!complete) return run.feed(text[step.used..]); // Returns the error.
    }

    fn body(run: *const TestRun) []const u8 {
        return run.body_buffer[0..run.body_size];
    }
};

/// The grammar of RFC 9112, section 7.1, read line by line over all bytes at once: slow, written
/// differently from the decoder, and without its bounds.
const TestModel = struct {
    rest: []const u8,
    body_buffer: [128]u8 = undefined,
    body_size: usize = 0,

    const Outcome = enum { done, incomplete, malformed };

    fn decode(model: *TestModel) Outcome {
        while (true) {
            const size = switch (model.sizeLine()) {
                .size => |size| size,
                .outcome => |outcome| return outcome,
            };
            if (size == 0) return model.trailers();

            const data = model.rest[0..@min(size, model.rest.len)];
            @memcpy(model.body_buffer[model.body_size..][0..data.len], data);
            model.body_size += data.len;
            model.rest = model.rest[data.len..];
            if (data.len < size) return .incomplete;

            for ("\r\n") |expected| {
                if (model.rest.len == 0) return .incomplete;
                if (model.rest[0] != expected) return .malformed;
                model.rest = model.rest[1..];
            }
        }
    }

    fn sizeLine(model: *TestModel) union(enum) { size: usize, outcome: Outcome } {
        const line = model.takeLine() orelse return .{ .outcome = .malformed };
        const digits = "0123456789abcdefABCDEF";
        const digits_end = std.mem.findNone(u8, line.text, digits) orelse line.text.len;
        const spaced = line.text[digits_end..];
        const extension = std.mem.trimStart(u8, spaced, " \t");

        const no_size = digits_end == 0 and (line.ended or line.text.len > 0);
        const no_extension = spaced.len > 0 and extension.len == 0 and line.ended;
        const no_semicolon = extension.len > 0 and extension[0] != ';';
        if (no_size or no_extension or no_semicolon or digits_end > 16) {
            return .{ .outcome = .malformed };
        }
        if (!line.complete) return .{ .outcome = .incomplete };
        const size = std.fmt.parseInt(u64, line.text[0..digits_end], 16) catch unreachable;
        return .{ .size = @intCast(size) };
    }

    fn trailers(model: *TestModel) Outcome {
        while (true) {
            const line = model.takeLine() orelse return .malformed;
            if (!line.complete) return .incomplete;
            if (line.text.len == 0) return .done;
        }
    }

    const Line = struct {
        text: []const u8,
        /// The CR is there.
        ended: bool,
        /// The LF after it, too.
        complete: bool,
    };

    /// The next line, or its beginning; null when it holds a byte that no line may hold.
    fn takeLine(model: *TestModel) ?Line {
        const end = for (model.rest, 0..) |byte, index| {
            if (!header_module.isFieldByte(byte)) break index;
        } else model.rest.len;
        const text = model.rest[0..end];
        const after = model.rest[end..];

        if (after.len > 0 and after[0] != '\r') return null;
        if (after.len > 1 and after[1] != '\n') return null;
        model.rest = after[@min(after.len, 2)..];
        return .{ .text = text, .ended = after.len > 0, .complete = after.len > 1 };
    }

    fn body(model: *const TestModel) []const u8 {
        return model.body_buffer[0..model.body_size];
    }
};
