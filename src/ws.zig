//! WebSocket frames and messages, RFC 6455: bytes in, values out.
//!
//! No I/O, no allocation, no clock, no Python. `Parser` reads what a server sends, in place;
//! `builder` writes what a client sends, in place; `handshake` is the upgrade before either, and
//! `permessage_deflate` what it says about compression.

pub const builder = @import("ws/builder.zig");
pub const frame = @import("ws/frame.zig");
pub const handshake = @import("ws/handshake.zig");
pub const mask = @import("ws/mask.zig");
pub const parser = @import("ws/parser.zig");
pub const permessage_deflate = @import("ws/permessage_deflate.zig");
pub const utf8 = @import("ws/utf8.zig");

pub const CloseCode = frame.CloseCode;
pub const Opcode = frame.Opcode;
pub const ParseError = parser.ParseError;
pub const Parser = parser.Parser;
pub const closeCode = parser.closeCode;
pub const describe = parser.describe;

test {
    _ = builder;
    _ = frame;
    _ = handshake;
    _ = mask;
    _ = parser;
    _ = permessage_deflate;
    _ = utf8;
    _ = @import("ws/handshake_test.zig");
    _ = @import("ws/parser_fuzz.zig");
    _ = @import("ws/parser_test.zig");
    _ = @import("ws/permessage_deflate_test.zig");
    _ = @import("ws/utf8_test.zig");
}
