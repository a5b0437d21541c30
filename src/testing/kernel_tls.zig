//! Kernel TLS of the scripted kernel: opens and seals records.
//!
//! It uses the keys that the client gives it. It follows Linux (net/tls/tls_sw.c), and panics or
//! fails where Linux would fail. Any mistake in a key, a nonce or a sequence number shows, because
//! the other end is a real TLS server.

const std = @import("std");
const assert = std.debug.assert;
const aead = @import("../ssl/aead.zig");
const libssl = @import("../ssl/libssl.zig");
const os = @import("../os.zig");

const KernelTls = @This();

attached: bool = false,
/// What this kernel lacks, as errors of its calls.
attach_failure: ?os.TlsError = null,
keys_failure: ?os.TlsError = null,
/// Whether the kernel can change keys: Linux 6.14 and later.
changes_keys: bool = true,
receiving: ?Half = null,
sending: ?Half = null,
/// Ciphertext that is not opened yet.
received: std.ArrayList(u8) = .empty,
/// The rest of an opened record that did not fit the reader's buffer, and its type.
opened: std.ArrayList(u8) = .empty,
opened_type: u8 = 0,
/// The client has read a KeyUpdate: no record is opened until it gives new keys.
awaits_keys: bool = false,

const header_size = 5;
const tag_size = aead.tag_size;
const key_update = 24;
const content_type_handshake = 22;
const content_type_data = 23;
const record_size_max = header_size + 16 * 1024 + 256;

/// struct tls12_crypto_info_*, taken apart.
const Half = struct {
    aead: aead.Aead,
    version: u16,
    algorithm: aead.Algorithm,
    iv: [aead.nonce_size]u8,
    sequence: u64,

    fn init(info: []const u8, direction: aead.Direction) os.TlsError!Half {
        const version = std.mem.readInt(u16, info[0..2], .little);
        assert(version == 0x0303 or version == 0x0304);
        const algorithm: aead.Algorithm = switch (std.mem.readInt(u16, info[2..4], .little)) {
            51 => .aes_128_gcm,
            52 => .aes_256_gcm,
            54 => .chacha20_poly1305,
            else => unreachable,
        };
        const fields = info[4..];
        const key_size = algorithm.keySize();
        const is_gcm = algorithm != .chacha20_poly1305;
        const iv_size: usize = if (is_gcm) 8 else 12;
        assert(fields.len == iv_size + key_size + (12 - iv_size) + 8);
        const salt = fields[iv_size + key_size ..][0 .. 12 - iv_size];
        var half: Half = .{
            .aead = undefined,
            .version = version,
            .algorithm = algorithm,
            .iv = undefined,
            .sequence = std.mem.readInt(u64, fields[fields.len - 8 ..][0..8], .big),
        };
        @memcpy(half.iv[0..salt.len], salt);
        @memcpy(half.iv[salt.len..], fields[0..iv_size]);
        half.aead = aead.Aead.init(.{
            .api = libssl.get().?,
            .algorithm = algorithm,
            .direction = direction,
            .provider = .evp,
        }, fields[iv_size..][0..key_size]) catch return error.OutOfMemory;
        return half;
    }

    fn deinit(half: *Half) void {
        half.aead.deinit();
    }

    /// TLS 1.2 with AES-GCM: the records carry a part of the nonce.
    fn explicitSize(half: *const Half) usize {
        return if (half.version == 0x0303 and half.algorithm != .chacha20_poly1305) 8 else 0;
    }

    fn nonce(half: *const Half) [aead.nonce_size]u8 {
        var result = half.iv;
        if (half.explicitSize() > 0) return result;
        const low = std.mem.readInt(u64, half.iv[4..12], .big) ^ half.sequence;
        std.mem.writeInt(u64, result[4..12], low, .big);
        return result;
    }

    fn legacyAdditional(half: *const Half, content_type: u8, size: usize) [13]u8 {
        var bytes: [13]u8 = undefined;
        std.mem.writeInt(u64, bytes[0..8], half.sequence, .big);
        bytes[8..11].* = .{ content_type, 3, 3 };
        std.mem.writeInt(u16, bytes[11..13], @intCast(size), .big);
        return bytes;
    }

    /// Opens a whole record in place: its content and type; null when the tag is wrong.
    fn open(half: *Half, record: []u8) ?struct { u8, []u8 } {
        const explicit_size = half.explicitSize();
        const overhead_size = header_size + explicit_size + tag_size;
        if (record.len < overhead_size) return null;
        const content = record[header_size + explicit_size ..][0 .. record.len - overhead_size];
        const tag = record[record.len - tag_size ..][0..tag_size].*;
        var unique = half.nonce();
        if (explicit_size > 0) unique[4..12].* = record[header_size..][0..8].*;
        const legacy = half.legacyAdditional(record[0], content.len);
        const is_legacy = half.version == 0x0303;
        const additional: []const u8 = if (is_legacy) &legacy else record[0..header_size];
        if (!half.aead.open(content, content, &tag, &unique, additional)) return null;
        half.sequence += 1;
        if (is_legacy) return .{ record[0], content };
        const inner = std.mem.trimEnd(u8, content, &.{0});
        return .{ inner[inner.len - 1], content[0 .. inner.len - 1] };
    }

    fn seal(half: *Half, gpa: std.mem.Allocator, content_type: u8, content: []const u8) ![]u8 {
        const explicit_size = half.explicitSize();
        const is_legacy = half.version == 0x0303;
        const inner_size = content.len + @intFromBool(!is_legacy);
        const record = try gpa.alloc(u8, header_size + explicit_size + inner_size + tag_size);
        record[0..3].* = .{ if (is_legacy) content_type else content_type_data, 3, 3 };
        std.mem.writeInt(u16, record[3..5], @intCast(record.len - header_size), .big);
        const unique = half.nonce();
        const inner = record[header_size + explicit_size ..][0..inner_size];
        if (explicit_size > 0) record[header_size..][0..8].* = unique[4..12].*;
        @memcpy(inner[0..content.len], content);
        if (!is_legacy) inner[content.len] = content_type;
        const legacy = half.legacyAdditional(content_type, content.len);
        const additional: []const u8 = if (is_legacy) &legacy else record[0..header_size];
        const tag = record[record.len - tag_size ..][0..tag_size];
        assert(half.aead.seal(inner, tag, &unique, additional));
        half.sequence += 1;
        if (explicit_size > 0) {
            const explicit = std.mem.readInt(u64, half.iv[4..12], .big);
            std.mem.writeInt(u64, half.iv[4..12], explicit +% 1, .big);
        }
        return record;
    }
};

pub fn deinit(tls: *KernelTls) void {
    if (tls.receiving) |*half| half.deinit();
    if (tls.sending) |*half| half.deinit();
    tls.receiving = null;
    tls.sending = null;
}

/// Frees the keys and forgets all else, for the next connection.
pub fn detach(tls: *KernelTls) void {
    tls.deinit();
    tls.* = .{
        .attach_failure = tls.attach_failure,
        .keys_failure = tls.keys_failure,
        .changes_keys = tls.changes_keys,
    };
}

pub fn attach(tls: *KernelTls) os.TlsError!void {
    if (tls.attached) return error.KeysFixed;
    if (tls.attach_failure) |failure| return failure;
    tls.attached = true;
}

pub fn setKeys(
    tls: *KernelTls,
    direction: os.TlsDirection,
    info: []const u8,
) os.TlsError!void {
    if (!tls.attached) return error.Unsupported; // ENOPROTOOPT
    if (tls.keys_failure) |failure| return failure;
    const place = switch (direction) {
        .receive => &tls.receiving,
        .send => &tls.sending,
    };
    if (place.*) |*half| {
        if (!tls.changes_keys) return error.KeysFixed;
        half.deinit();
        place.* = null;
    }
    place.* = try .init(info, switch (direction) {
        .receive => .open,
        .send => .seal,
    });
    if (direction == .receive) tls.awaits_keys = false;
}

/// Adds ciphertext that has arrived.
pub fn feed(tls: *KernelTls, gpa: std.mem.Allocator, bytes: []const u8) void {
    tls.received.appendSlice(gpa, bytes) catch @panic("out of memory");
}

/// Whether a poll reports that a read would return something: a whole record, or an error. Linux
/// 6.14 and later does not report a KeyUpdate that it has found after data.
pub fn isReadable(tls: *const KernelTls) bool {
    if (tls.awaits_keys) return false;
    if (tls.opened.items.len > 0) return true;
    const bytes = tls.received.items;
    if (bytes.len < header_size) return false;
    const size = header_size + @as(usize, std.mem.readInt(u16, bytes[3..5], .big));
    return bytes.len >= size or size > record_size_max;
}

/// Reads data of several records together, or one record of another type.
pub fn read(
    tls: *KernelTls,
    gpa: std.mem.Allocator,
    buffer: []u8,
) (os.ReceiveRecordError || error{Starved})!os.ReceivedRecord {
    var size: usize = 0;
    while (size < buffer.len) {
        if (tls.opened.items.len == 0) {
            if (tls.awaits_keys) return if (size > 0) dataOf(size) else error.KeysExpired;
            const found = tls.openNext(gpa) catch |err|
                return if (size > 0) dataOf(size) else err; // The next call meets it again.
            if (!found) return .{ .size = 0, .content_type = tls.opened_type };
        }
        if (tls.opened_type != content_type_data and size > 0) break;
        const part = @min(buffer.len - size, tls.opened.items.len);
        @memcpy(buffer[size..][0..part], tls.opened.items[0..part]);
        tls.opened.replaceRangeAssumeCapacity(0, part, &.{});
        size += part;
        if (tls.opened_type != content_type_data) {
            return .{ .size = size, .content_type = tls.opened_type };
        }
    }
    return dataOf(size);
}

fn dataOf(size: usize) os.ReceivedRecord {
    return .{ .size = size, .content_type = content_type_data };
}

/// Opens the next record. False when it is empty.
fn openNext(
    tls: *KernelTls,
    gpa: std.mem.Allocator,
) error{ Starved, BadRecord, RecordTooLong, WrongVersion }!bool {
    const bytes = tls.received.items;
    if (bytes.len < header_size) return error.Starved;
    const size = header_size + @as(usize, std.mem.readInt(u16, bytes[3..5], .big));
    if (size > record_size_max) return error.RecordTooLong;
    if (bytes[1] != 3 or bytes[2] != 3) return error.WrongVersion;
    if (bytes.len < size) return error.Starved;
    const content_type, const content = tls.receiving.?.open(bytes[0..size]) orelse
        return error.BadRecord;
    tls.opened_type = content_type;
    tls.opened.appendSlice(gpa, content) catch @panic("out of memory");
    const is_handshake = content_type == content_type_handshake;
    const is_current = tls.receiving.?.version == 0x0304;
    if (is_current and is_handshake and content[0] == key_update) tls.awaits_keys = true;
    tls.received.replaceRangeAssumeCapacity(0, size, &.{});
    return tls.opened.items.len > 0;
}

/// The number of records for this much data.
pub fn seal(
    tls: *KernelTls,
    gpa: std.mem.Allocator,
    content_type: u8,
    content: []const u8,
) error{OutOfMemory}![]const u8 {
    var records: std.ArrayList(u8) = .empty;
    var rest = content;
    while (rest.len > 0) {
        const part = rest[0..@min(rest.len, 16 * 1024)];
        try records.appendSlice(gpa, try tls.sending.?.seal(gpa, content_type, part));
        rest = rest[part.len..];
    }
    return records.items;
}
