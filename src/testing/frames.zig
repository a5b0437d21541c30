//! Writes a server's frames, valid or not, and reads a client's strictly.
//!
//! It shares no code with `ws/`, so that the two cannot share a mistake.

const std = @import("std");

pub const Frame = struct {
    fin: bool = true,
    reserved: u3 = 0,
    opcode: u4,
    payload: []const u8 = "",
};

pub const continuation = 0;
pub const text = 1;
pub const binary = 2;
pub const close = 8;
pub const ping = 9;
pub const pong = 10;

/// Appends a frame of a server: without a mask, its length in the shortest form.
pub fn append(
    list: *std.ArrayList(u8),
    gpa: std.mem.Allocator,
    frame: Frame,
) error{OutOfMemory}!void {
    const fin: u8 = if (frame.fin) 0x80 else 0;
    try list.append(gpa, fin | @as(u8, frame.reserved) << 4 | frame.opcode);
    if (frame.payload.len < 126) {
        try list.append(gpa, @intCast(frame.payload.len));
    } else if (frame.payload.len < 65_536) {
        try list.append(gpa, 126);
        for ([_]u6{ 8, 0 }) |shift| try list.append(gpa, @truncate(frame.payload.len >> shift));
    } else {
        try list.append(gpa, 127);
        var shift: u7 = 64;
        while (shift > 0) {
            shift -= 8;
            try list.append(gpa, @truncate(frame.payload.len >> @intCast(shift)));
        }
    }
    try list.appendSlice(gpa, frame.payload);
}

/// Reads a frame of a client from the front of `bytes`, and its size. An error when the frame is
/// not whole, has no mask, not the shortest form of its length, or a reserved bit.
pub fn read(
    arena: std.mem.Allocator,
    bytes: []const u8,
) error{ NotWhole, NotAsItShouldBe, OutOfMemory }!struct { Frame, usize } {
    if (bytes.len < 2) return error.NotWhole;
    if (bytes[0] & 0x70 != 0) return error.NotAsItShouldBe;
    if (bytes[1] & 0x80 == 0) return error.NotAsItShouldBe;
    const short: usize = bytes[1] & 0x7f;
    const extension: usize = switch (short) {
        126 => 2,
        127 => 8,
        else => 0,
    };
    if (bytes.len < 2 + extension + 4) return error.NotWhole;
    var size: usize = if (extension == 0) short else 0;
    for (bytes[2..][0..extension]) |byte| size = size << 8 | byte;
    switch (extension) {
        2 => if (size < 126) return error.NotAsItShouldBe,
        8 => if (size < 65_536) return error.NotAsItShouldBe,
        else => {},
    }
    const key = bytes[2 + extension ..][0..4];
    const masked = bytes[2 + extension + 4 ..];
    if (masked.len < size) return error.NotWhole;
    const payload = try arena.dupe(u8, masked[0..size]);
    for (payload, 0..) |*byte, index| byte.* ^= key[index % 4];
    return .{ .{
        .fin = bytes[0] & 0x80 != 0,
        .opcode = @truncate(bytes[0]),
        .payload = payload,
    }, 2 + extension + 4 + size };
}
