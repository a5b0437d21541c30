//! Which cipher suites a client offers.
//!
//! By default those with forward secrecy (RFC 9325, section 4.2) and an AEAD.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("../constants.zig");
const libssl = @import("libssl.zig");

/// AES-128-GCM first: the cheapest record on every CPU with AES instructions.
const default_1_3 =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
const default_1_2 =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:" ++
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:" ++
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/// Suites without a certificate or without encryption: nothing would be left of TLS.
const never = ":!aNULL:!eNULL";

const separators = ": ,;"; // As in OpenSSL.
const List = [constants.ciphers_size_max + never.len:0]u8;

/// Sets what a context offers: `wanted`, in OpenSSL's form, or the default. Names of TLS 1.3 and of
/// TLS 1.2 may be mixed; a version of which there is no name keeps its default. On an error
/// OpenSSL's queue has the reason.
pub fn set(
    api: *const libssl.Api,
    context: *libssl.Context,
    wanted: ?[]const u8,
) error{CiphersUnusable}!void {
    const list = wanted orelse "";
    assert(list.len <= constants.ciphers_size_max);
    var buffer: List = undefined;
    const suites_1_3 = select(&buffer, list, .tls1_3);
    if (api.SSL_CTX_set_ciphersuites(context, suites_1_3 orelse default_1_3) != 1) {
        return error.CiphersUnusable;
    }
    const suites_1_2 = select(&buffer, list, .tls1_2);
    if (api.SSL_CTX_set_cipher_list(context, suites_1_2 orelse default_1_2) != 1) {
        return error.CiphersUnusable;
    }
}

/// The first name of a list that stands for no suite. OpenSSL would ignore it.
pub fn firstUnknown(
    api: *const libssl.Api,
    list: []const u8,
) error{OutOfMemory}!?[]const u8 {
    assert(list.len <= constants.ciphers_size_max);
    const context = api.SSL_CTX_new(api.TLS_client_method()) orelse return error.OutOfMemory;
    defer api.SSL_CTX_free(context);
    defer api.ERR_clear_error();
    var buffer: List = undefined;
    var names = std.mem.tokenizeAny(u8, list, separators);
    while (names.next()) |name| {
        if (isOperation(name)) continue;
        @memcpy(buffer[0..name.len], name);
        buffer[name.len] = 0;
        const text = buffer[0..name.len :0];
        const status = switch (versionOf(name)) {
            .tls1_3 => api.SSL_CTX_set_ciphersuites(context, text),
            .tls1_2 => api.SSL_CTX_set_cipher_list(context, text),
        };
        if (status != 1) return name;
    }
    return null;
}

const Version = enum { tls1_2, tls1_3 };

/// By the form of a name: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" is one of TLS 1.2.
fn versionOf(name: []const u8) Version {
    if (!std.mem.startsWith(u8, name, "TLS_")) return .tls1_2;
    return if (std.mem.find(u8, name, "_WITH_") == null) .tls1_3 else .tls1_2;
}

/// Whether it only changes what the names before it stand for, such as "!SHA1" or "@SECLEVEL=2".
fn isOperation(name: []const u8) bool {
    return switch (name[0]) {
        '!', '-', '+', '@' => true,
        else => false,
    };
}

/// The part of the list that is for this version; null when it names no suite.
fn select(buffer: *List, list: []const u8, version: Version) ?[:0]const u8 {
    var size: usize = 0;
    var found = false;
    var names = std.mem.tokenizeAny(u8, list, separators);
    while (names.next()) |name| {
        if (versionOf(name) != version) continue;
        if (!isOperation(name)) found = true;
        if (size > 0) {
            buffer[size] = ':';
            size += 1;
        }
        @memcpy(buffer[size..][0..name.len], name);
        size += name.len;
    }
    if (!found) return null;
    if (version == .tls1_2) {
        @memcpy(buffer[size..][0..never.len], never);
        size += never.len;
    }
    buffer[size] = 0;
    return buffer[0..size :0];
}

const testing = std.testing;

test "ciphers: a list is parted by version" {
    const cases = [_]struct { []const u8, ?[]const u8, ?[]const u8 }{
        .{ "", null, null },
        .{ "TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", null },
        .{ "ECDHE+AESGCM:!SHA1", null, "ECDHE+AESGCM:!SHA1:!aNULL:!eNULL" },
        .{ "!SHA1", null, null }, // Of what?
        .{ "A, TLS_B;C TLS_D_WITH_E", "TLS_B", "A:C:TLS_D_WITH_E:!aNULL:!eNULL" },
    };
    for (cases) |case| {
        const list, const suites_1_3, const suites_1_2 = case;
        var buffer: List = undefined;
        inline for (.{ .tls1_3, .tls1_2 }, .{ suites_1_3, suites_1_2 }) |version, expected| {
            const found = select(&buffer, list, version);
            try testing.expectEqual(expected == null, found == null);
            if (expected) |text| try testing.expectEqualStrings(text, found.?);
        }
    }
}

test "ciphers: the longest list fits" {
    const list: [constants.ciphers_size_max]u8 = @splat('x');
    var buffer: List = undefined;
    try testing.expectEqual(list.len + never.len, select(&buffer, &list, .tls1_2).?.len);
}
