//! HTTP/1.1 as a client needs it for an upgrade or a plain GET.
//!
//! URLs, the request head, the response head, and the body (RFC 9110, RFC 9112, RFC 3986).
//!
//! Pure: bytes in, values out. No I/O, no allocation, no clock. Every slice that comes out borrows
//! from what went in.

/// Where to connect to, and what to ask for.
pub const url = @import("http/url.zig");
/// What names, values and lists in headers may hold.
pub const header = @import("http/header.zig");
/// Writes request heads.
pub const request = @import("http/request.zig");
/// Reads response heads.
pub const response = @import("http/response.zig");
/// Finds the end of a response, and its bytes without the chunks around them.
pub const body = @import("http/body.zig");

/// See `url.Url`.
pub const Url = url.Url;
/// See `url.Scheme`.
pub const Scheme = url.Scheme;
/// See `header.Header`.
pub const Header = header.Header;
/// See `header.ListIterator`.
pub const ListIterator = header.ListIterator;
/// See `header.trim`.
pub const trim = header.trim;
/// See `header.isToken`.
pub const isToken = header.isToken;
/// See `header.validateHeader`.
pub const validateHeader = header.validateHeader;
/// See `request.Method`.
pub const Method = request.Method;
/// See `response.Head`.
pub const Head = response.Head;

test {
    _ = url;
    _ = header;
    _ = request;
    _ = response;
    _ = body;
    _ = @import("http/body_test.zig");
    _ = @import("http/request_test.zig");
    _ = @import("http/response_test.zig");
    _ = @import("http/url_test.zig");
}
