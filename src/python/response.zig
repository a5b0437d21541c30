//! The HTTP response to the upgrade or a GET: status, headers and body.

const std = @import("std");
const core = @import("core");
const py = @import("py.zig");
const c = py.c;
const exceptions = @import("exceptions.zig");

const allocator = std.heap.c_allocator;

pub const Response = struct {
    status: u16 = 0,
    /// A list of pairs of str. Null before there is a response. Owned.
    headers: ?*py.Object = null,
    body: std.ArrayList(u8) = .empty,
    /// How many bytes of the body are kept at most.
    body_size_max: usize,

    /// Frees what was kept, and is ready for another response.
    pub fn forget(response: *Response) void {
        const headers = response.headers;
        response.body.deinit(allocator);
        response.* = .{ .body_size_max = response.body_size_max };
        py.decrefOptional(headers);
    }

    pub fn setHead(response: *Response, head: core.http.Head) py.Error!void {
        response.status = head.status;
        const list = try py.check(c.PyList_New(0));
        const headers_before = response.headers;
        response.headers = list;
        py.decrefOptional(headers_before);
        var headers = head.headers();
        while (headers.next()) |header| {
            const name = try py.string(header.name);
            defer py.decref(name);
            const value = try py.string(header.value);
            defer py.decref(value);
            const pair = try py.check(c.PyTuple_Pack(2, name, value));
            defer py.decref(pair);
            try py.checkStatus(c.PyList_Append(list, pair));
        }
    }

    /// Whether these bytes of the body fit as well.
    pub fn hasRoom(response: *const Response, bytes: []const u8) bool {
        return bytes.len <= response.body_size_max - response.body.items.len;
    }

    /// Keeps as many of these bytes as fit.
    pub fn appendBody(response: *Response, bytes: []const u8) py.Error!void {
        const room = response.body_size_max - response.body.items.len;
        response.body.appendSlice(allocator, bytes[0..@min(bytes.len, room)]) catch {
            return py.noMemory();
        };
    }

    /// The headers as a new list, which the caller may change.
    pub fn copyHeaders(response: *const Response) py.Error!*py.Object {
        const headers = response.headers orelse return py.check(c.PyList_New(0));
        return py.check(c.PyList_GetSlice(headers, 0, c.PyList_Size(headers)));
    }

    /// (status, headers, body), once there is a head.
    pub fn toTuple(response: *const Response) py.Error!*py.Object {
        const body = try py.bytes(response.body.items);
        const status: c_int = response.status;
        return py.check(c.Py_BuildValue("(iON)", status, response.headers.?, body));
    }

    /// What exceptions contain of it. Borrowed.
    pub fn refusal(response: *const Response) exceptions.Refusal {
        return .{
            .status = response.status,
            .headers = response.headers,
            .body = response.body.items,
        };
    }
};
