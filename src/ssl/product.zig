//! Tells OpenSSL 1.1.1, OpenSSL 3 and LibreSSL apart, and how they differ.
//!
//! Their functions have the same names. Where they behave differently, no missing name shows it.
//! Pure: numbers and texts in, values out.

const std = @import("std");

pub const Product = struct {
    kind: Kind,
    major: u16 = 0,
    minor: u16 = 0,
    patch: u16 = 0,

    pub const Kind = enum {
        openssl,
        libressl,
        /// Such as BoringSSL: it may have every function and still behave differently.
        other,
    };

    /// `number` is OPENSSL_VERSION_NUMBER, which is always 2.0.0 in LibreSSL: its version is in
    /// the text only.
    pub fn parse(number: c_ulong, text: []const u8) Product {
        if (std.mem.cutPrefix(u8, text, "LibreSSL ")) |version| return parseLibressl(version);
        const says_openssl = std.mem.startsWith(u8, text, "OpenSSL ");
        // Such as AWS-LC: "OpenSSL 1.1.1 (compatible; AWS-LC 1.50.0)".
        const is_like_it = std.mem.indexOf(u8, text, "(compatible") != null;
        if (!says_openssl or is_like_it) return .{ .kind = .other };
        const major: u16 = @intCast(number >> 28 & 0xf);
        return .{
            .kind = .openssl,
            .major = major,
            .minor = @intCast(number >> 20 & 0xff),
            // 0xMNN00PP0 from OpenSSL 3 on, 0xMNNFFPPS before.
            .patch = @intCast(number >> @as(u6, if (major >= 3) 4 else 12) & 0xff),
        };
    }

    fn parseLibressl(version: []const u8) Product {
        var numbers = [_]u16{ 0, 0, 0 };
        var words = std.mem.tokenizeAny(u8, version, ". -");
        for (&numbers) |*number| {
            const word = words.next() orelse break;
            number.* = std.fmt.parseInt(u16, word, 10) catch break;
        }
        return .{
            .kind = .libressl,
            .major = numbers[0],
            .minor = numbers[1],
            .patch = numbers[2],
        };
    }

    /// OpenSSL 1.1.1, LibreSSL 3.9, or later. Both have TLS 1.3.
    pub fn isSupported(product: Product) bool {
        return switch (product.kind) {
            .openssl => product.isAtLeast(1, 1, 1),
            .libressl => product.isAtLeast(3, 9, 0),
            .other => false,
        };
    }

    fn isAtLeast(product: Product, major: u16, minor: u16, patch: u16) bool {
        if (product.major != major) return product.major > major;
        if (product.minor != minor) return product.minor > minor;
        return product.patch >= patch;
    }

    /// Whether the callback for the key log is called. LibreSSL only stores it.
    pub fn tellsSecrets(product: Product) bool {
        return product.kind != .libressl;
    }

    /// Whether the info callback is called for every alert. In LibreSSL only for those of TLS 1.2.
    pub fn tellsAlerts(product: Product) bool {
        return product.kind != .libressl;
    }

    /// Whether SSL_CERT_FILE and SSL_CERT_DIR say where the system's roots are.
    pub fn heedsRootVariables(product: Product) bool {
        return product.kind != .libressl;
    }

    /// Whether a read may return neither data nor an error while there is more to read. In OpenSSL
    /// SSL_MODE_AUTO_RETRY prevents that.
    pub fn pausesReads(product: Product) bool {
        return product.kind == .libressl;
    }

    /// The fields of an entry of the error queue (err.h). In OpenSSL 3 they are larger, and errors
    /// of the operating system have a flag instead of a library's number.
    pub fn errorCode(product: Product, code: c_ulong) ErrorCode {
        if (product.kind == .openssl and product.major >= 3) {
            if (code & 0x8000_0000 != 0) return .{ .errno = @intCast(code & 0x7fff_ffff) };
            return .{
                .library = @intCast(code >> 23 & 0xff),
                .reason = @intCast(code & 0x7f_ffff),
            };
        }
        const library: u8 = @intCast(code >> 24 & 0xff);
        const reason: u32 = @intCast(code & 0xfff);
        if (library == library_system) return .{ .errno = @intCast(reason) };
        return .{ .library = library, .reason = reason };
    }
};

const library_system = 2; // ERR_LIB_SYS
const library_ssl = 20; // ERR_LIB_SSL
const alert_reason_offset = 1000; // SSL_AD_REASON_OFFSET

pub const ErrorCode = struct {
    /// ERR_LIB_*; 0 with an errno.
    library: u8 = 0,
    /// What the number means depends on the library.
    reason: u32 = 0,
    /// Set for an error of the operating system.
    errno: ?c_int = null,

    /// The number of the alert that the peer sent, if that is the error.
    pub fn alert(code: ErrorCode) ?u8 {
        if (code.library != library_ssl or code.reason < alert_reason_offset) return null;
        return std.math.cast(u8, code.reason - alert_reason_offset);
    }
};

const testing = std.testing;

test "product: versions in every form" {
    const cases = [_]struct { c_ulong, []const u8, Product, bool }{
        .{ 0x1000214f, "OpenSSL 1.0.2t  10 Sep 2019", named(.openssl, 1, 0, 2), false },
        .{ 0x101000cf, "OpenSSL 1.1.0l  10 Sep 2019", named(.openssl, 1, 1, 0), false },
        .{ 0x1010117f, "OpenSSL 1.1.1w  11 Sep 2023", named(.openssl, 1, 1, 1), true },
        .{ 0x30000130, "OpenSSL 3.0.19 27 Jan 2026", named(.openssl, 3, 0, 19), true },
        .{ 0x30500070, "OpenSSL 3.5.7 9 Jun 2026", named(.openssl, 3, 5, 7), true },
        .{ 0x40000000, "OpenSSL 4.0.0 14 Apr 2026", named(.openssl, 4, 0, 0), true },
        .{ 0x20000000, "LibreSSL 2.8.3", named(.libressl, 2, 8, 3), false },
        .{ 0x20000000, "LibreSSL 3.8.4", named(.libressl, 3, 8, 4), false },
        .{ 0x20000000, "LibreSSL 3.9.0", named(.libressl, 3, 9, 0), true },
        .{ 0x20000000, "LibreSSL 4.3.2", named(.libressl, 4, 3, 2), true },
        .{ 0x20000000, "LibreSSL", .{ .kind = .other }, false },
        .{ 0x1010107f, "BoringSSL", .{ .kind = .other }, false },
        .{ 0x1010107f, "OpenSSL 1.1.1 (compatible; AWS-LC 1.50.0)", named(.other, 0, 0, 0), false },
    };
    for (cases) |case| {
        const number, const text, const expected, const supported = case;
        try testing.expectEqual(expected, Product.parse(number, text));
        try testing.expectEqual(supported, Product.parse(number, text).isSupported());
    }
}

fn named(kind: Product.Kind, major: u16, minor: u16, patch: u16) Product {
    return .{ .kind = kind, .major = major, .minor = minor, .patch = patch };
}

test "product: the fields of an error code lie where its library puts them" {
    const alert_40: ErrorCode = .{ .library = 20, .reason = 1040 };
    // ERR_PACK(ERR_LIB_SSL, SSL_F_SSL3_READ_BYTES, 1040), without and with a function's number.
    const legacy = named(.openssl, 1, 1, 1);
    try testing.expectEqual(alert_40, legacy.errorCode(0x14094410));
    try testing.expectEqual(alert_40, named(.libressl, 4, 3, 2).errorCode(0x14fff410));
    try testing.expectEqual(alert_40, named(.openssl, 3, 0, 0).errorCode(0x0a000410));
    try testing.expectEqual(40, alert_40.alert());

    const not_there: ErrorCode = .{ .errno = 2 };
    try testing.expectEqual(not_there, legacy.errorCode(0x02001002));
    try testing.expectEqual(not_there, named(.openssl, 3, 5, 7).errorCode(0x8000_0002));

    try testing.expectEqual(null, legacy.errorCode(0x1416f086).alert()); // Verify failed.
    try testing.expectEqual(null, not_there.alert());
    try testing.expectEqual(null, (ErrorCode{ .library = 20, .reason = 1256 }).alert());
    try testing.expectEqual(null, (ErrorCode{ .library = 9, .reason = 1040 }).alert());
}
