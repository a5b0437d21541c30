//! Decodes the body of a response: finds its end, and removes chunk framing.
//!
//! The framing is decided once, from the head (RFC 9112, sections 6 and 7). A head that two
//! recipients could read differently is an error: that difference makes response smuggling
//! possible. Then the decoder is a state machine over bytes as they arrive: however they are cut,
//! the body is the same. It decodes in place: the bytes of a chunk move down over the chunk line
//! before them, each at most once. Chunk extensions and trailers are skipped, and bounded.
//!
//! Invariant: an error is returned after all valid bytes of the body before it, wherever the pieces
//! were cut, and by every later call; a complete body takes no further byte.

const std = @import("std");
const constants = @import("../constants.zig");
const header_module = @import("header.zig");
const response_module = @import("response.zig");

const assert = std.debug.assert;
const Head = response_module.Head;

/// Trailers are headers after the body, with the same bound.
pub const trailers_size_max = constants.response_head_size_max;

/// How many more bytes of chunk extensions than bytes of data a body may have. Without a bound a
/// peer could keep the client busy forever with a body that does not grow.
pub const chunk_extensions_size_max = constants.response_head_size_max;

/// Hexadecimal digits of a chunk size: what 64 bits hold, leading zeros included.
const chunk_size_digits_max = 16;

/// Why the head does not tell, or not clearly, where the body ends.
pub const InitError = error{
    InvalidContentLength,
    ConflictingContentLength,
    ContentLengthTooLarge,
    UnsupportedTransferEncoding,
    TransferEncodingInHttp10,
    TransferEncodingWithContentLength,
};

/// Why the bytes are not a body in chunks.
pub const DecodeError = error{
    MalformedChunkSize,
    MalformedChunkExtension,
    MalformedChunkEnd,
    MalformedTrailer,
    ChunkSizeTooLarge,
    ChunkExtensionsTooLarge,
    TrailersTooLarge,
};

/// Why the body is not complete at the end of the connection.
pub const FinishError = error{Truncated};

/// Everything that can be wrong with a body.
pub const Error = InitError || DecodeError || FinishError;

/// What ends the body (RFC 9112, section 6.3).
pub const Framing = enum {
    /// There is no body: the answer to HEAD, or status 1xx, 204 or 304.
    none,
    content_length,
    chunked,
    /// The end of the connection ends the body.
    until_close,
};

/// What one call of `next` found.
pub const Step = struct {
    /// Decoded bytes, possibly none: a slice of the bytes passed, within the first `used`.
    body: []u8,
    /// How many of the bytes passed were used: all, unless the body ends before the last, or an
    /// error comes before it, which the next call returns.
    used: usize,
    /// True when the body is complete. Bytes after `used` are not part of this response.
    done: bool,
};

/// Decodes one body. Plain data, no resources.
pub const Decoder = struct {
    framing: Framing,
    state: State,
    /// Bytes left of the body (content_length) or of the chunk (chunked).
    remaining: u64,
    /// Decoded bytes so far.
    body_size: u64 = 0,
    /// Digits of the chunk size so far; at most `chunk_size_digits_max`.
    chunk_size_digits: u8 = 0,
    /// Bytes of chunk extensions so far; at most `chunk_extensions_size_max + body_size`.
    extensions_size: u64 = 0,
    /// Bytes of trailer lines so far; at most `trailers_size_max`.
    trailers_size: u32 = 0,
    /// Set in the state `failed` only.
    failure: ?DecodeError = null,

    /// For a response whose body is not read.
    pub const none: Decoder = .{ .framing = .none, .state = .done, .remaining = 0 };

    const State = enum {
        /// Plain bytes of the body, up to `remaining` or to the end of the connection.
        body,
        chunk_size,
        chunk_extension_space,
        chunk_extension,
        chunk_size_line_feed,
        chunk_data,
        chunk_data_carriage_return,
        chunk_data_line_feed,
        trailer_start,
        trailer,
        trailer_line_feed,
        last_line_feed,
        done,
        failed,
    };

    /// Decides from the head how the body is framed. `method_is_head`: the request was HEAD, whose
    /// response has the headers of a body but no body. Follows RFC 9112, section 6.3, and refuses
    /// what that leaves open.
    pub fn init(head: *const Head, method_is_head: bool) InitError!Decoder {
        const status_without_body = head.status < 200 or head.status == 204 or head.status == 304;
        if (method_is_head or status_without_body) return start(.none, .done, 0);

        const content_length = try parseContentLength(head);
        if (head.headerCount("Transfer-Encoding") > 0) {
            if (head.version_minor == 0) return error.TransferEncodingInHttp10;
            if (content_length != null) return error.TransferEncodingWithContentLength;
            try checkTransferEncoding(head);
            return start(.chunked, .chunk_size, 0);
        }
        const size = content_length orelse return start(.until_close, .body, 0);
        return start(.content_length, if (size == 0) .done else .body, size);
    }

    fn start(framing: Framing, state: State, remaining: u64) Decoder {
        const decoder: Decoder = .{ .framing = framing, .state = state, .remaining = remaining };
        decoder.invariants();
        return decoder;
    }

    /// Decodes what it can of `bytes`, which begin after the bytes used so far, and may overwrite
    /// them. All bytes before an error have been returned; every later call returns the same error.
    pub fn next(decoder: *Decoder, bytes: []u8) DecodeError!Step {
        defer decoder.invariants();
        if (decoder.framing == .chunked) return decoder.nextChunked(bytes);

        const size: usize = switch (decoder.framing) {
            .none => 0,
            .content_length => @intCast(@min(decoder.remaining, bytes.len)),
            .until_close => if (decoder.state == .body) bytes.len else 0,
            .chunked => unreachable,
        };
        if (decoder.framing == .content_length) {
            decoder.remaining -= size;
            if (decoder.remaining == 0) decoder.state = .done;
        }
        decoder.body_size += size;
        return .{ .body = bytes[0..size], .used = size, .done = decoder.isDone() };
    }

    /// To be called when the connection has ended: an error unless the body is complete.
    pub fn finish(decoder: *Decoder) FinishError!void {
        defer decoder.invariants();
        if (decoder.framing == .until_close) decoder.state = .done;
        if (!decoder.isDone()) return error.Truncated;
    }

    /// True when the body is complete; right after `init` when there is none.
    pub fn isDone(decoder: *const Decoder) bool {
        return decoder.state == .done;
    }

    /// The data of chunks in bulk, everything around them byte by byte.
    fn nextChunked(decoder: *Decoder, bytes: []u8) DecodeError!Step {
        if (decoder.failure) |failure| return failure;

        // Decoded bytes are bytes[body_start..body_end], which never ends after `used`.
        var body_start: usize = 0;
        var body_end: usize = 0;
        var used: usize = 0;
        while (used < bytes.len and decoder.state != .done) {
            if (decoder.state == .chunk_data) {
                const size: usize = @intCast(@min(decoder.remaining, bytes.len - used));
                assert(size > 0);
                if (body_start == body_end) {
                    // The first bytes stay where they are: most calls see one chunk.
                    body_start = used;
                    body_end = used;
                }
                if (body_end < used) @memmove(bytes[body_end..][0..size], bytes[used..][0..size]);
                body_end += size;
                used += size;
                decoder.body_size += size;
                decoder.remaining -= size;
                if (decoder.remaining == 0) decoder.state = .chunk_data_carriage_return;
            } else {
                decoder.state = decoder.step(bytes[used]) catch |err| {
                    decoder.state = .failed;
                    decoder.failure = err;
                    if (body_start == body_end) return err;
                    break;
                };
                used += 1;
            }
            assert(body_end <= used);
        }
        return .{ .body = bytes[body_start..body_end], .used = used, .done = decoder.isDone() };
    }

    /// One byte that is not data (RFC 9112, section 7.1).
    fn step(decoder: *Decoder, byte: u8) DecodeError!State {
        switch (decoder.state) {
            .body, .chunk_data, .done, .failed => unreachable,
            .chunk_size => return decoder.stepChunkSize(byte),
            .chunk_extension_space => {
                // Only ";" may follow the space (BWS): some recipients read another number where a
                // size is padded with spaces.
                try decoder.countExtension();
                return switch (byte) {
                    ' ', '\t' => .chunk_extension_space,
                    ';' => .chunk_extension,
                    else => error.MalformedChunkSize,
                };
            },
            .chunk_extension => {
                try decoder.countExtension();
                if (byte == '\r') return .chunk_size_line_feed;
                if (!header_module.isFieldByte(byte)) return error.MalformedChunkExtension;
                return .chunk_extension;
            },
            .chunk_size_line_feed => {
                if (byte != '\n') return error.MalformedChunkSize;
                decoder.chunk_size_digits = 0;
                return if (decoder.remaining == 0) .trailer_start else .chunk_data;
            },
            .chunk_data_carriage_return => {
                if (byte != '\r') return error.MalformedChunkEnd;
                return .chunk_data_line_feed;
            },
            .chunk_data_line_feed => {
                if (byte != '\n') return error.MalformedChunkEnd;
                return .chunk_size;
            },
            .trailer_start => {
                if (byte == '\r') return .last_line_feed;
                return decoder.stepTrailer(byte);
            },
            .trailer => {
                if (byte == '\r') return .trailer_line_feed;
                return decoder.stepTrailer(byte);
            },
            .trailer_line_feed => {
                if (byte != '\n') return error.MalformedTrailer;
                return .trailer_start;
            },
            .last_line_feed => {
                if (byte != '\n') return error.MalformedTrailer;
                return .done;
            },
        }
    }

    /// chunk-size = 1*HEXDIG, then extensions or the end of the line.
    fn stepChunkSize(decoder: *Decoder, byte: u8) DecodeError!State {
        if (std.ascii.isHex(byte)) {
            if (decoder.chunk_size_digits == chunk_size_digits_max) return error.ChunkSizeTooLarge;
            if (decoder.chunk_size_digits == 0) assert(decoder.remaining == 0);
            const digit = std.fmt.charToDigit(byte, 16) catch unreachable;
            decoder.chunk_size_digits += 1;
            decoder.remaining = decoder.remaining * 16 + digit;
            return .chunk_size;
        }
        if (decoder.chunk_size_digits == 0) return error.MalformedChunkSize;
        switch (byte) {
            '\r' => return .chunk_size_line_feed,
            ' ', '\t', ';' => {
                try decoder.countExtension();
                return if (byte == ';') .chunk_extension else .chunk_extension_space;
            },
            else => return error.MalformedChunkSize,
        }
    }

    fn stepTrailer(decoder: *Decoder, byte: u8) DecodeError!State {
        if (!header_module.isFieldByte(byte)) return error.MalformedTrailer;
        if (decoder.trailers_size == trailers_size_max) return error.TrailersTooLarge;
        decoder.trailers_size += 1;
        return .trailer;
    }

    fn countExtension(decoder: *Decoder) DecodeError!void {
        // The bound grows with the body: see `chunk_extensions_size_max`.
        if (decoder.extensions_size == decoder.body_size + chunk_extensions_size_max) {
            return error.ChunkExtensionsTooLarge;
        }
        decoder.extensions_size += 1;
    }

    fn invariants(decoder: *const Decoder) void {
        assert((decoder.state == .failed) == (decoder.failure != null));
        assert(decoder.chunk_size_digits <= chunk_size_digits_max);
        assert(decoder.extensions_size <= decoder.body_size + chunk_extensions_size_max);
        assert(decoder.trailers_size <= trailers_size_max);
        switch (decoder.framing) {
            .none => assert(decoder.state == .done),
            .content_length => assert((decoder.state == .done) == (decoder.remaining == 0)),
            .until_close => assert(decoder.state == .body or decoder.state == .done),
            .chunked => {
                assert(decoder.state != .body);
                if (decoder.state == .done) assert(decoder.remaining == 0);
                if (decoder.state == .chunk_data) assert(decoder.remaining > 0);
            },
        }
    }
};

/// One plain sentence for the user.
pub fn describe(err: Error) [:0]const u8 {
    return switch (err) {
        error.InvalidContentLength => "the response's Content-Length is not a number",
        error.ConflictingContentLength => "the response has several Content-Length values " ++
            "that differ",
        error.ContentLengthTooLarge => "the response's Content-Length does not fit in 64 bits",
        error.UnsupportedTransferEncoding => "the response's Transfer-Encoding is not just chunked",
        error.TransferEncodingInHttp10 => "an HTTP/1.0 response has a Transfer-Encoding",
        error.TransferEncodingWithContentLength => "the response has both a Transfer-Encoding " ++
            "and a Content-Length",
        error.MalformedChunkSize => "a chunk of the response's body has a malformed size",
        error.MalformedChunkExtension => "a chunk extension of the response's body holds a " ++
            "control character",
        error.MalformedChunkEnd => "a chunk of the response's body does not end where its " ++
            "size says",
        error.MalformedTrailer => "a trailer of the response holds a control character",
        error.ChunkSizeTooLarge => "a chunk size of the response's body has more than 16 digits",
        error.ChunkExtensionsTooLarge => "the chunk extensions of the response's body are " ++
            "larger than the client takes",
        error.TrailersTooLarge => "the trailers of the response are larger than the client takes",
        error.Truncated => "the connection ended before the response's body was complete",
    };
}

/// RFC 9112, section 6.3: a list of values is one value if all are the same. They have to be the
/// same text, because another recipient may read "010" as octal.
fn parseContentLength(head: *const Head) InitError!?u64 {
    var first: ?[]const u8 = null;
    var lines = head.headersNamed("Content-Length");
    while (lines.next()) |line| {
        // Not `ListIterator`, which leaves out empty elements: here they are an error.
        var elements = std.mem.splitScalar(u8, line, ',');
        while (elements.next()) |element| {
            const value = header_module.trim(element);
            if (value.len == 0) return error.InvalidContentLength;
            for (value) |byte| {
                if (!std.ascii.isDigit(byte)) return error.InvalidContentLength;
            }
            if (first) |other| {
                if (!std.mem.eql(u8, other, value)) return error.ConflictingContentLength;
            } else first = value;
        }
    }
    const digits = first orelse return null;

    var size: u64 = 0;
    for (digits) |digit| {
        size = std.math.mul(u64, size, 10) catch return error.ContentLengthTooLarge;
        size = std.math.add(u64, size, digit - '0') catch return error.ContentLengthTooLarge;
    }
    return size;
}

/// Accepts one header that says "chunked" and nothing else. No other coding was asked for (requests
/// have no TE header), and recipients read lists of codings differently.
fn checkTransferEncoding(head: *const Head) InitError!void {
    if (head.headerCount("Transfer-Encoding") != 1) return error.UnsupportedTransferEncoding;
    const value = head.header("Transfer-Encoding").?;
    if (!std.ascii.eqlIgnoreCase(value, "chunked")) return error.UnsupportedTransferEncoding;
}
