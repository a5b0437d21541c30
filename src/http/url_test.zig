//! Tests of `url.zig`: the parts of a URL, and texts that are refused.

const std = @import("std");
const url_module = @import("url.zig");
const assert = std.debug.assert;
const Writer = std.Io.Writer;
const host_size_max = url_module.host_size_max;
const label_size_max = url_module.label_size_max;
const ParseError = url_module.ParseError;
const Scheme = url_module.Scheme;
const Url = url_module.Url;
const Shown = url_module.Shown;
const describe = url_module.describe;
const isName = url_module.isName;
const isIpv4 = url_module.isIpv4;
const isIpv6 = url_module.isIpv6;

test "url: every part of a URL is found, and defaults by scheme" {
    const Case = struct { text: []const u8, url: Url, host_header: []const u8, origin: []const u8 };
    const cases = [_]Case{
        .{
            .text = "wss://a.example.com:9443/ws/btcusdt@trade?a=b%20c&d=/?:@",
            .url = testUrl(.wss, "a.example.com", 9443, true, "/ws/btcusdt@trade?a=b%20c&d=/?:@"),
            .host_header = "a.example.com:9443",
            .origin = "/ws/btcusdt@trade?a=b%20c&d=/?:@",
        },
        .{
            .text = "WS://Example.COM",
            .url = testUrl(.ws, "Example.COM", 80, false, ""),
            .host_header = "Example.COM",
            .origin = "/",
        },
        .{
            .text = "wss://example.com:443?x=1",
            .url = testUrl(.wss, "example.com", 443, true, "?x=1"),
            .host_header = "example.com",
            .origin = "/?x=1",
        },
        .{
            .text = "https://[2001:db8::1]/v3/depth#part",
            .url = testUrl(.https, "2001:db8::1", 443, false, "/v3/depth"),
            .host_header = "[2001:db8::1]",
            .origin = "/v3/depth",
        },
        .{
            .text = "ws://[::ffff:127.0.0.1]:65535/",
            .url = testUrl(.ws, "::ffff:127.0.0.1", 65535, true, "/"),
            .host_header = "[::ffff:127.0.0.1]:65535",
            .origin = "/",
        },
        .{
            .text = "http://127.0.0.1:1#top",
            .url = testUrl(.http, "127.0.0.1", 1, true, ""),
            .host_header = "127.0.0.1:1",
            .origin = "/",
        },
        .{
            .text = "http://h:443//a/../b%",
            .url = testUrl(.http, "h", 443, true, "//a/../b%"),
            .host_header = "h:443",
            .origin = "//a/../b%",
        },
    };
    for (cases) |case| {
        const url = try Url.parse(case.text);
        try std.testing.expectEqualDeep(case.url, url);

        var buffer: [128]u8 = undefined;
        var writer: Writer = .fixed(&buffer);
        try url.writeHost(&writer);
        try std.testing.expectEqualStrings(case.host_header, writer.buffered());

        writer = .fixed(&buffer);
        try url.writeTarget(&writer);
        try std.testing.expectEqualStrings(case.origin, writer.buffered());
    }
}

test "url: each defect has its own error" {
    const Case = struct { ParseError, []const u8 };
    const cases = [_]Case{
        .{ error.MissingScheme, "" },
        .{ error.MissingScheme, "example.com" },
        .{ error.MissingScheme, "example.com:443/x" },
        .{ error.MissingScheme, "//example.com" },
        .{ error.MissingScheme, "://example.com" },
        .{ error.MissingScheme, "ws:/example.com" },
        .{ error.MissingScheme, "ws:" },
        .{ error.MissingScheme, "1ws://example.com" },
        .{ error.MissingScheme, "example.com/?next=ws://x" },
        .{ error.UnknownScheme, "ftp://example.com" },
        .{ error.UnknownScheme, "wsss://example.com" },
        .{ error.UnknownScheme, "w://example.com" },
        .{ error.MissingHost, "ws://" },
        .{ error.MissingHost, "ws:///path" },
        .{ error.MissingHost, "ws://?query" },
        .{ error.MissingHost, "ws://:80/" },
        .{ error.MissingHost, "http://#" },
        .{ error.InvalidHost, "ws://::1/" },
        .{ error.InvalidHost, "ws://fe80::1:80/" },
        .{ error.InvalidHost, "ws://a:1:2/" },
        .{ error.InvalidHost, "ws://[::1/" },
        .{ error.InvalidHost, "ws://[]/" },
        .{ error.InvalidHost, "ws://[::1]x:80/" },
        .{ error.InvalidHost, "ws://[::1]80/" },
        .{ error.InvalidHost, "ws://[fe80::1%25eth0]/" },
        .{ error.InvalidHost, "ws://[fe80::1%eth0]/" },
        .{ error.InvalidHost, "ws://[v1.a]/" },
        .{ error.InvalidHost, "ws://[127.0.0.1]/" },
        .{ error.InvalidHost, "ws://a..b/" },
        .{ error.InvalidHost, "ws://.a/" },
        .{ error.InvalidHost, "ws://./" },
        .{ error.InvalidHost, "ws://a%20b/" },
        .{ error.InvalidHost, "ws://a\\b/" },
        .{ error.InvalidHost, "ws://a]/" },
        .{ error.InvalidHost, "ws://a,b/" },
        .{ error.InvalidPort, "ws://a:/" },
        .{ error.InvalidPort, "ws://a:" },
        .{ error.InvalidPort, "ws://a:0" },
        .{ error.InvalidPort, "ws://a:00000" },
        .{ error.InvalidPort, "ws://a:65536" },
        .{ error.InvalidPort, "ws://a:99999" },
        .{ error.InvalidPort, "ws://a:000080" },
        .{ error.InvalidPort, "ws://a:4294967376" },
        .{ error.InvalidPort, "ws://a:+1" },
        .{ error.InvalidPort, "ws://a:-1" },
        .{ error.InvalidPort, "ws://a:1x" },
        .{ error.InvalidPort, "ws://a:1_0" },
        .{ error.InvalidPort, "ws://[::1]:" },
        .{ error.InvalidPort, "ws://[::1]:0x50" },
        .{ error.UserInfoNotSupported, "ws://user@example.com/" },
        .{ error.UserInfoNotSupported, "ws://user:password@example.com:80/" },
        .{ error.UserInfoNotSupported, "ws://@example.com/" },
        .{ error.UserInfoNotSupported, "ws://example.com\\@evil.com/" },
        .{ error.FragmentNotAllowed, "ws://a#" },
        .{ error.FragmentNotAllowed, "wss://a/path?query#fragment" },
        .{ error.FragmentNotAllowed, "wss://a/#/" },
    };
    for (cases) |case| {
        const expected, const text = case;
        std.testing.expectError(expected, Url.parse(text)) catch |err| {
            std.debug.print("URL: {s}\n", .{text});
            return err;
        };
    }
}

test "url: a URL is shown without its name and password, and otherwise as it stands" {
    const cases = [_][2][]const u8{
        .{ "ws://user:secret@h/", "ws://***@h/" },
        .{ "ws://secret@h:80?a=b@c", "ws://***@h:80?a=b@c" },
        .{ "ws://user:sec@ret@h#f", "ws://***@h#f" },
        .{ "ftp://:secret@", "ftp://***@" },
        .{ "ws:// user:\tsecret@h", "ws://***@h" },
        .{ "//user:secret@h/", "//***@h/" },
        .{ "user:secret@h/", "***@h/" },
        .{ "ws://h/btcusdt@trade?x=y@z", "ws://h/btcusdt@trade?x=y@z" },
        .{ "h/user@x", "h/user@x" },
        .{ "ws://", "ws://" },
        .{ "", "" },
    };
    for (cases) |case| {
        const text, const expected = case;
        var buffer: [64]u8 = undefined;
        const shown = try std.fmt.bufPrint(&buffer, "{f}", .{Shown.init(text)});
        try std.testing.expectEqualStrings(expected, shown);
    }
}

test "url: keys in path and query are not shown" {
    const key = "pqia91ma19a5s61cv6a81va65sdf19v8";
    const cases = [_][2][]const u8{
        .{ "wss://a/ws/btcusdt@trade", "wss://a/ws/btcusdt@trade" },
        .{ "wss://a/stream?streams=a@depth/b@trade", "wss://a/stream?streams=a@depth/b@trade" },
        .{ "wss://a/ws/" ++ key ++ "/x", "wss://a/ws/***/x" },
        .{ "wss://a/?id=" ++ key ++ "&b=1", "wss://a/?id=***&b=1" },
        .{ "wss://a/?" ++ key, "wss://a/?***" },
        .{ "wss://a/?Access_Token=x&sig=y&sigma=z", "wss://a/?Access_Token=***&sig=***&sigma=z" },
        .{ "wss://a/?token=&token", "wss://a/?token=&token" },
        .{ "wss://u:p@a/?key=x/y", "wss://***@a/?key=***" },
    };
    for (cases) |case| {
        var buffer: [256]u8 = undefined;
        const shown = try std.fmt.bufPrint(&buffer, "{f}", .{Shown.init(case[0])});
        try std.testing.expectEqualStrings(case[1], shown);
    }
}

test "url: a byte that could end a header line is refused wherever it stands" {
    const text = "wss://example.com:443/path?query";
    for (0..text.len + 1) |place| {
        for (0..256) |code| {
            const byte: u8 = @intCast(code);
            if (byte > ' ' and byte < 0x7f) continue;
            var buffer: [text.len + 1]u8 = undefined;
            @memcpy(buffer[0..place], text[0..place]);
            buffer[place] = byte;
            @memcpy(buffer[place + 1 ..], text[place..]);
            try std.testing.expectError(error.InvalidCharacter, Url.parse(&buffer));
        }
    }
}

test "url: a host is a name, or an address in one spelling only" {
    const label: [label_size_max]u8 = @splat('a');
    const name_longest = label ++ "." ++ label ++ "." ++ label ++ "." ++ label[0..61];
    comptime assert(name_longest.len == host_size_max);

    const good = [_][]const u8{
        "a",         "localhost", "a.b.c",           "xn--bcher-kva.example", "a.b.",
        "_sip.x-y",  "1.example", "1a",              "0xg",                   "1.2.3.4",
        "127.0.0.1", "0.0.0.0",   "255.255.255.255", name_longest,
    };
    for (good) |host| try std.testing.expect(isName(host) or isIpv4(host));

    const bad = [_][]const u8{
        "1",         "127.1",    "0x7f.1",    "0x7f000001",   "2130706433", "256.1.1.1",
        "1.2.3",     "1.2.3.4.", "1.2.3.4.5", "01.2.3.4",     "a.1",        "a.0x1f",
        "1.2.3.004", "a.0x",     "a b",
        "-é",
        "a..",       "a%41",     "..",        label ++ "a.b", "1.2.3.4567", name_longest ++ "a",
    };
    for (bad) |host| {
        std.testing.expect(!isName(host) and !isIpv4(host)) catch |err| {
            std.debug.print("host: {s}\n", .{host});
            return err;
        };
    }
    try std.testing.expect(isIpv4((try Url.parse("ws://1.2.3.4")).host));
    try std.testing.expect(isIpv6((try Url.parse("ws://[::1]")).host));
    try std.testing.expect(!isIpv4((try Url.parse("ws://1.2.3.4.example")).host));
}

test "url: an IPv6 address is judged as RFC 3986 does" {
    const good = [_][]const u8{
        "::",                  "::1",             "1::",              "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7::",     "::2:3:4:5:6:7:8", "1::8",             "2001:DB8::aBcD",
        "1:2:3:4:5:6:1.2.3.4", "::1.2.3.4",       "::ffff:127.0.0.1", "1:2:3:4:5::1.2.3.4",
        "0000:0:0:0:0:0:0:0",  "1:2:3::5:6:7:8",
    };
    for (good) |host| try std.testing.expect(isIpv6(host));

    const bad = [_][]const u8{
        "",                      ":",                    ":::",              "1",
        "1:",                    ":1",                   "1:2:3:4:5:6:7",    "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:7:8::",     "1::2::3",              "12345::",          "g::",
        "1:2:3:4:5:6:7:1.2.3.4", "1.2.3.4",              "1.2.3.4::",        "::1.2.3",
        "::1.2.3.256",           "::01.2.3.4",           ":1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:",
        "::1:2:3:4:5:6:7:8",     "1:2:3:4:5:6::1.2.3.4", "::1%1",            "1:::2",
    };
    for (bad) |host| {
        std.testing.expect(!isIpv6(host)) catch |err| {
            std.debug.print("host: {s}\n", .{host});
            return err;
        };
    }
}

test "url: random addresses are judged as the system judges them" {
    if (!@import("builtin").link_libc) return error.SkipZigTest;
    const system = struct {
        extern "c" fn inet_pton(family: c_int, text: [*:0]const u8, address: *[16]u8) c_int;
    };
    var prng: std.Random.DefaultPrng = .init(0x69707636);
    const random = prng.random();
    var valid_count: usize = 0;
    for (0..200_000) |_| {
        var buffer: [48]u8 = undefined;
        var writer: Writer = .fixed(buffer[0 .. buffer.len - 1]);
        // Of pieces, because hardly any text of random bytes is an address.
        for (0..random.uintAtMost(usize, 12)) |_| {
            const pieces = [_][]const u8{
                ":", "::", "1:", "1:", "1:", "ab:", "f00d", "1.2.3.4", "0",
            };
            writer.writeAll(pieces[random.uintLessThan(usize, pieces.len)]) catch break;
        }
        const text = writer.buffered();
        buffer[text.len] = 0;

        var address: [16]u8 = undefined;
        const expected = system.inet_pton(std.c.AF.INET6, buffer[0..text.len :0], &address) == 1;
        std.testing.expectEqual(expected, isIpv6(text)) catch |err| {
            std.debug.print("address: {s}\n", .{text});
            return err;
        };
        valid_count += @intFromBool(expected);
    }
    try std.testing.expect(valid_count > 1_000);
}

test "url: what a mutated URL parses to means the same when it is written again" {
    const seeds = [_][]const u8{
        "wss://stream.example.com:9443/ws/btcusdt@trade?a=b#c",
        "http://[2001:db8::1]:8080/x?y#z",
        "ws://127.0.0.1:80",
    };
    const alphabet = "ws://http[]:@?#.%019aZ-_\\ \x00\xff";
    var prng: std.Random.DefaultPrng = .init(0x75726c);
    const random = prng.random();
    var parsed_count: usize = 0;
    for (0..50_000) |_| {
        var buffer: [64]u8 = undefined;
        const seed = seeds[random.uintLessThan(usize, seeds.len)];
        @memcpy(buffer[0..seed.len], seed);
        const text = buffer[0 .. seed.len - random.uintAtMost(usize, 3)];
        for (0..random.uintAtMost(usize, 3)) |_| {
            const replacement = alphabet[random.uintLessThan(usize, alphabet.len)];
            text[random.uintLessThan(usize, text.len)] = replacement;
        }
        const url = Url.parse(text) catch |err| {
            try std.testing.expect(describe(err).len > 0);
            continue;
        };
        parsed_count += 1;

        var written: [96]u8 = undefined;
        var writer: Writer = .fixed(&written);
        try writer.print("{t}://", .{url.scheme});
        try url.writeHost(&writer);
        try url.writeTarget(&writer);
        const again = try Url.parse(writer.buffered());
        try std.testing.expectEqual(url.scheme, again.scheme);
        try std.testing.expectEqualStrings(url.host, again.host);
        try std.testing.expectEqual(url.host_is_ipv6, again.host_is_ipv6);
        try std.testing.expectEqual(url.port, again.port);
        try std.testing.expect(std.mem.endsWith(u8, again.target, url.target));
        try std.testing.expect(again.target.len - url.target.len <= 1);
    }
    try std.testing.expect(parsed_count > 1_000);
}

fn testUrl(scheme: Scheme, host: []const u8, port: u16, explicit: bool, target: []const u8) Url {
    return .{
        .scheme = scheme,
        .host = host,
        .host_is_ipv6 = std.mem.findScalar(u8, host, ':') != null,
        .port = port,
        .explicit_port = explicit,
        .target = target,
    };
}
