//! Tests of `posix.zig`: addresses, the resolver, and what each errno becomes.

const std = @import("std");
const constants = @import("../constants.zig");
const posix = @import("posix.zig");
const c = std.c;
const Address = posix.Address;
const AddressList = posix.AddressList;
const unexpectedErrno = posix.unexpectedErrno;
const resolve = posix.resolve;
const resolveError = posix.resolveError;
const connectError = posix.connectError;
const bindError = posix.bindError;
const receiveFailed = posix.receiveFailed;
const sendFailed = posix.sendFailed;
const mapError = posix.mapError;
const notifierError = posix.notifierError;
const watchError = posix.watchError;
const pollError = posix.pollError;

const testing = std.testing;

fn expectFormat(text: []const u8, address: Address) !void {
    var buffer: [Address.text_size_max]u8 = undefined;
    try testing.expectEqualStrings(text, try std.fmt.bufPrint(&buffer, "{f}", .{address}));
}

test "address: parses and formats IPv4 and IPv6" {
    const ipv4 = Address.parse("192.0.2.7", 443).?;
    try testing.expectEqual(Address.Family.ipv4, ipv4.family());
    try testing.expectEqual(@as(u16, 443), ipv4.port());
    try expectFormat("192.0.2.7:443", ipv4);

    const ipv6 = Address.parse("2001:db8:0:0::1", 65535).?;
    try testing.expectEqual(Address.Family.ipv6, ipv6.family());
    try testing.expectEqual(@as(u16, 65535), ipv6.port());
    try expectFormat("[2001:db8::1]:65535", ipv6);
    try expectFormat("[::1]:0", Address.parse("::1", 0).?);
    try expectFormat("[::ffff:10.0.0.1]:1", Address.parse("::ffff:10.0.0.1", 1).?);
}

test "address: the longest text fits, with its scope" {
    var address = Address.parse("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", 65535).?;
    address.view(c.sockaddr.in6).scope_id = std.math.maxInt(u32);
    try expectFormat("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535", address);
}

test "address: text that is not an address is null" {
    const too_long: [Address.text_size_max + 1]u8 = @splat('1');
    const texts = [_][]const u8{
        "",      "localhost", "127.1",  "256.0.0.1", "127.0.0.1 ",     "01.2.3.4.5",
        "[::1]", ":::",       "::1%lo", "1:2:3",     "127.0.0.1\x00x", "::1\x00",
        "1.2.3", "::1]",      "1:80",   " ::1",      "127.0.0.1:80",   &too_long,
    };
    for (texts) |text| try testing.expectEqual(null, Address.parse(text, 80));
}

test "address: equal by family, address, port and scope" {
    const address = Address.parse("fe80::1", 80).?;
    var other = address;
    try testing.expect(address.equal(&other));
    other.view(c.sockaddr.in6).scope_id = 2;
    try testing.expect(!address.equal(&other));
    try testing.expect(!address.equal(&Address.parse("fe80::1", 81).?));
    try testing.expect(!address.equal(&Address.parse("fe80::2", 80).?));
    try testing.expect(!address.equal(&Address.parse("127.0.0.1", 80).?));
    const ipv4 = Address.parse("127.0.0.1", 80).?;
    try testing.expect(ipv4.equal(&Address.parse("127.0.0.1", 80).?));
    try testing.expect(!ipv4.equal(&Address.parse("127.0.0.2", 80).?));
}

test "address list: takes addresses up to its bound" {
    var list: AddressList = .{};
    const address = Address.parse("127.0.0.1", 1).?;
    for (0..constants.addresses_max) |_| try testing.expect(list.append(address));
    try testing.expect(!list.append(address));
    try testing.expectEqual(constants.addresses_max, list.slice().len);
}

test "resolve: an address in text form is itself" {
    var list: AddressList = .{};
    try resolve("::1", 8443, &list);
    try testing.expectEqual(@as(usize, 1), list.count);
    try expectFormat("[::1]:8443", list.slice()[0]);
    try resolve("127.0.0.1", 80, &list);
    try testing.expectEqual(@as(usize, 1), list.count);
    try expectFormat("127.0.0.1:80", list.slice()[0]);
}

test "resolve: localhost is this machine, each address once and with the port" {
    var list: AddressList = .{};
    try resolve("localhost", 9000, &list);
    try testing.expect(list.count >= 1);
    const ipv4 = Address.parse("127.0.0.1", 9000).?;
    const ipv6 = Address.parse("::1", 9000).?;
    for (list.slice(), 0..) |address, index| {
        try testing.expect(address.equal(&ipv4) or address.equal(&ipv6));
        for (list.slice()[0..index]) |earlier| try testing.expect(!address.equal(&earlier));
    }
}

test "resolve: a name that cannot exist is an error, and leaves no address" {
    var list: AddressList = .{};
    // Names that no resolver asks a server for: an empty label, and a label of 64 bytes.
    const label_64: [64]u8 = @splat('a');
    for ([_][:0]const u8{ "a..b", &label_64 ++ ".invalid" }) |name| {
        if (resolve(name, 80, &list)) {
            return error.TestUnexpectedResult;
        } else |failure| switch (failure) {
            error.NameNotFound, error.ResolverFailure, error.TemporaryFailure => {},
            error.OutOfMemory, error.Unexpected => return failure,
        }
        try testing.expectEqual(@as(usize, 0), list.count);
    }
}

test "resolve: each answer of the resolver has its error" {
    try testing.expectEqual(error.NameNotFound, resolveError(.NONAME));
    try testing.expectEqual(error.TemporaryFailure, resolveError(.AGAIN));
    try testing.expectEqual(error.ResolverFailure, resolveError(.FAIL));
    try testing.expectEqual(error.OutOfMemory, resolveError(.MEMORY));
}

test "errors: each errno by its cause, the rest with its number" {
    try testing.expectEqual(error.ConnectionRefused, connectError(.CONNREFUSED));
    try testing.expectEqual(error.TimedOut, connectError(.TIMEDOUT));
    try testing.expectEqual(error.OutOfMemory, connectError(.NOBUFS));
    try testing.expectEqual(error.InterfaceNotFound, bindError(.NODEV));
    try testing.expectEqual(error.OutOfMemory, mapError(.NOSPC));
    try testing.expectEqual(error.TooManyOpenFiles, notifierError(.MFILE));
    try testing.expectEqual(error.WatchLimit, watchError(.NOSPC));
    try testing.expectEqual(error.Interrupted, pollError(.INTR));
    try testing.expectEqual(error.Unexpected, connectError(.XDEV));
    try testing.expectEqual(@as(u16, @backingInt(c.E.XDEV)), unexpectedErrno());
}

test "receive and send: every errno of the manual has its error" {
    const receive_errors = .{
        .{ c.E.AGAIN, error.WouldBlock },           .{ c.E.CONNRESET, error.ConnectionReset },
        .{ c.E.PIPE, error.ConnectionReset },       .{ c.E.TIMEDOUT, error.TimedOut },
        .{ c.E.NETDOWN, error.NetworkUnreachable }, .{ c.E.HOSTUNREACH, error.HostUnreachable },
        .{ c.E.NOBUFS, error.OutOfMemory },         .{ c.E.BADF, error.Unexpected },
    };
    inline for (receive_errors) |pair| {
        c._errno().* = @backingInt(pair[0]);
        try testing.expectError(pair[1], receiveFailed());
    }
    const send_errors = .{
        .{ c.E.AGAIN, error.WouldBlock },  .{ c.E.CONNRESET, error.ConnectionReset },
        .{ c.E.PIPE, error.BrokenPipe },   .{ c.E.TIMEDOUT, error.TimedOut },
        .{ c.E.PERM, error.AccessDenied }, .{ c.E.NETUNREACH, error.NetworkUnreachable },
        .{ c.E.NOMEM, error.OutOfMemory }, .{ c.E.INVAL, error.Unexpected },
    };
    inline for (send_errors) |pair| {
        c._errno().* = @backingInt(pair[0]);
        try testing.expectError(pair[1], sendFailed());
    }
    c._errno().* = @backingInt(c.E.INTR);
    try receiveFailed();
    try sendFailed();
}
