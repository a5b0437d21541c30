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
        tickets.forget(api);
        tickets.* = undefined;
    }

    /// Gives up all of them.
    pub fn forget(tickets: *Tickets, api: *const libssl.Api) void {
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

    /// Offers the newest in the next handshake, and gives it up: one that breaks the handshake is
    /// not offered again, however that ends; one of TLS 1.2 comes back with `putBack`. A ticket of
    /// TLS 1.3 is used only once anyway, or an observer could tell that the connections are one
    /// client's (RFC 8446, appendix C.4). False when there is none.
    pub fn offer(tickets: *Tickets, api: *const libssl.Api, handle: *libssl.Ssl) bool {
        if (tickets.count == 0) return false;
        tickets.count -= 1;
        const session = tickets.items[tickets.count];
        defer api.SSL_SESSION_free(session); // The handshake has a reference of its own.
        return api.SSL_set_session(handle, session) == 1;
    }

    /// After a handshake that has resumed a session of TLS 1.2: keeps that, for the next one. If
    /// the server has renewed its ticket (RFC 5077, section 3.3), OpenSSL has made another session,
    /// and does not tell.
    pub fn putBack(tickets: *Tickets, api: *const libssl.Api, handle: *libssl.Ssl) void {
        const session = api.SSL_get1_session(handle) orelse return;
        if (api.SSL_SESSION_get_protocol_version(session) > libssl.tls1_2_version) {
            return api.SSL_SESSION_free(session);
        }
        tickets.add(api, session);
    }
};
