//! Keeps TLS sessions that the next handshake with the same server can resume.
//!
//! A resumed handshake needs no certificate and less public-key cryptography (RFC 8446, section
//! 4.6.1; RFC 5077).
//!
//! They belong to one server name: a resumed handshake shows no certificate that could be checked.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("../constants.zig");
const libssl = @import("libssl.zig");

pub const Tickets = struct {
    /// The newest is the last. Owned.
    items: [constants.session_tickets_max]*libssl.Session = undefined,
    count: usize = 0,

    pub fn deinit(tickets: *Tickets, api: *const libssl.Api) void {
        while (tickets.count > 0) {
            tickets.count -= 1;
            api.SSL_SESSION_free(tickets.items[tickets.count]);
        }
    }

    /// Takes over the reference. When there is no room, the oldest is freed.
    pub fn add(tickets: *Tickets, api: *const libssl.Api, session: *libssl.Session) void {
        if (tickets.count == tickets.items.len) {
            api.SSL_SESSION_free(tickets.items[0]);
            std.mem.copyForwards(*libssl.Session, &tickets.items, tickets.items[1..]);
            tickets.count -= 1;
        }
        tickets.items[tickets.count] = session;
        tickets.count += 1;
        assert(tickets.count <= tickets.items.len);
    }

    /// Offers the newest in the next handshake. A ticket of TLS 1.3 is used only once, or an
    /// observer could tell that the connections are one client's (RFC 8446, appendix C.4).
    pub fn offer(tickets: *Tickets, api: *const libssl.Api, handle: *libssl.Ssl) void {
        if (tickets.count == 0) return;
        const session = tickets.items[tickets.count - 1];
        _ = api.SSL_set_session(handle, session); // It has a reference of its own now.
        if (api.SSL_SESSION_get_protocol_version(session) <= libssl.tls1_2_version) return;
        tickets.count -= 1;
        api.SSL_SESSION_free(session);
    }
};
