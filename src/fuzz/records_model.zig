//! A model of TLS records after a handshake, for `records.zig` to compare with.
//!
//! It has the rules in their simplest form: what a client delivers, and with which alert it has to
//! end the connection. Written from RFC 8446 and RFC 5246, independently of `ssl/`, so that the two
//! do not share mistakes.

const std = @import("std");
const constants = @import("../constants.zig");
const key_schedule = @import("../ssl/key_schedule.zig");
const record = @import("../ssl/record.zig");

const Alert = record.Alert;

pub const Model = struct {
    arena: std.mem.Allocator,
    version: key_schedule.Version,
    /// What has to be delivered.
    data: std.ArrayList(u8) = .empty,
    end: End = .going_on,
    /// The handshake message that is incomplete.
    message: std.ArrayList(u8) = .empty,
    empty_records: u32 = 0,
    warnings: u32 = 0,
    key_updates: u32 = 0,
    requests: u32 = 0,
    /// How often the peer asked for a KeyUpdate of the client, which has to send at least one.
    answers_due: u32 = 0,

    pub const End = union(enum) {
        going_on,
        /// By close_notify.
        closed,
        /// With the alert that is pending for the peer; null after one of the peer's.
        failed: ?Alert,
    };

    const longest_ticket = constants.session_ticket_size_max;
    const fragment_size_max = 16_384 + 256; // RFC 8446, section 5.2; enough for TLS 1.2's AEADs.

    pub fn isGoingOn(model: *const Model) bool {
        return model.end == .going_on;
    }

    /// A record whose tag is right. True when it ends with new keys for the next one.
    pub fn accept(model: *Model, content_type: u8, content: []const u8) !bool {
        if (content.len > 16_384) {
            model.fail(.record_overflow);
            return false;
        }
        // RFC 8446, section 5.1: a handshake message is not interleaved with other records.
        if (content_type != 22 and model.message.items.len > 0) {
            model.fail(.unexpected_message);
            return false;
        }
        switch (content_type) {
            21 => model.acceptAlert(content),
            22 => return model.acceptHandshake(content),
            23 => if (content.len == 0) {
                model.count(&model.empty_records, constants.empty_records_max);
            } else {
                try model.data.appendSlice(model.arena, content);
                model.empty_records = 0;
                model.warnings = 0;
                model.key_updates = 0;
                model.requests = 0;
            },
            else => model.fail(.unexpected_message),
        }
        return false;
    }

    /// TLS 1.3: a record of zeros only.
    pub fn acceptWithoutType(model: *Model) void {
        model.fail(.unexpected_message);
    }

    /// A record whose tag is wrong, or the beginning of one.
    pub fn acceptUnsealed(model: *Model, bytes: []const u8) void {
        if (bytes.len < 5) return;
        const size = @as(usize, bytes[3]) * 256 + bytes[4];
        if (size > fragment_size_max) return model.fail(.record_overflow);
        if (bytes.len < 5 + size) return;
        switch (model.version) {
            .tls1_3 => if (bytes[0] != 23) return model.fail(.unexpected_message),
            .tls1_2 => if (bytes[1] != 3 or bytes[2] != 3) return model.fail(.protocol_version),
        }
        model.fail(.bad_record_mac);
    }

    fn acceptAlert(model: *Model, content: []const u8) void {
        if (content.len == 0) return model.fail(.unexpected_message);
        if (content.len != 2) return model.fail(.decode_error);
        const alert: Alert = @fromBackingInt(content[1]);
        if (alert == .close_notify) {
            model.end = .closed;
            return;
        }
        // RFC 8446, section 6: the level means nothing; RFC 5246, section 7.2: it does.
        const passes = switch (model.version) {
            .tls1_3 => alert == .user_canceled,
            .tls1_2 => content[0] == 1,
        };
        if (!passes) {
            model.end = .{ .failed = null };
            return;
        }
        model.empty_records = 0;
        model.count(&model.warnings, constants.warning_alerts_max);
    }

    fn acceptHandshake(model: *Model, content: []const u8) !bool {
        if (content.len == 0) {
            model.fail(.unexpected_message);
            return false;
        }
        var new_keys = false;
        for (content) |byte| {
            if (new_keys) {
                // RFC 8446, section 5.1: a KeyUpdate is the last of its record.
                model.fail(.unexpected_message);
                return false;
            }
            try model.message.append(model.arena, byte);
            const complete = switch (model.version) {
                .tls1_3 => model.judgeMessage(),
                .tls1_2 => model.judgeHelloRequest(),
            };
            if (!model.isGoingOn()) return false;
            if (!complete) continue;
            new_keys = model.message.items[0] == 24;
            const asks = new_keys and model.message.items[4] == 1;
            if (asks or model.version == .tls1_2) model.answers_due = 1;
            model.message.clearRetainingCapacity();
        }
        model.empty_records = 0;
        model.warnings = 0;
        if (model.version == .tls1_2) model.count(&model.requests, constants.hello_requests_max);
        if (new_keys) model.count(&model.key_updates, constants.key_updates_max);
        return new_keys and model.isGoingOn();
    }

    /// RFC 8446, section 4.6: checks a ticket or a KeyUpdate with each byte. Whether it is whole.
    fn judgeMessage(model: *Model) bool {
        const message = model.message.items;
        if (message.len < 4) return false;
        const size = std.mem.readInt(u24, message[1..4], .big);
        if (message.len == 4) switch (message[0]) {
            4 => if (size == 0 or size > longest_ticket) model.fail(.decode_error),
            24 => if (size != 1) model.fail(.decode_error),
            else => model.fail(.unexpected_message),
        };
        if (message.len == 5 and message[0] == 24 and message[4] > 1) {
            model.fail(.illegal_parameter);
        }
        return model.isGoingOn() and message.len == 4 + size;
    }

    /// RFC 5246, section 7.4.1.1: four zeros.
    fn judgeHelloRequest(model: *Model) bool {
        const message = model.message.items;
        if (message[message.len - 1] != 0) model.fail(.unexpected_message);
        return model.isGoingOn() and message.len == 4;
    }

    fn count(model: *Model, number: *u32, number_max: u32) void {
        number.* += 1;
        if (number.* > number_max) model.fail(.unexpected_message);
    }

    fn fail(model: *Model, alert: Alert) void {
        model.end = .{ .failed = alert };
    }
};
