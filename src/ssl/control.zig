//! Alerts, KeyUpdates and tickets: what TLS records carry besides data.
//!
//! Both directions, and requests to renegotiate (RFC 8446, sections 4.6 and 6; RFC 5246, sections
//! 7.2 and 7.4.1). The direct engine and kernel TLS share it: they pass in the content of records
//! that they open, and ask for pending records to seal. It has no keys, but it tells when they have
//! to change.

const std = @import("std");
const assert = std.debug.assert;
const constants = @import("../constants.zig");
const record = @import("record.zig");
const types = @import("types.zig");
const Version = @import("key_schedule.zig").Version;

const Alert = record.Alert;
const ContentType = record.ContentType;

/// A record that has to go out before any other.
pub const PendingRecord = union(enum) {
    /// New keys for what we send (RFC 8446, section 4.6.3).
    key_update,
    /// A warning of TLS 1.2: the answer to a request for another handshake.
    no_renegotiation,
    /// `close_notify`, or why the connection fails. Nothing is sent after it.
    alert: Alert,

    pub const Buffer = [@max(record.key_update_message.len, Alert.size)]u8;

    pub fn contentType(pending: PendingRecord) ContentType {
        return switch (pending) {
            .key_update => .handshake,
            .no_renegotiation, .alert => .alert,
        };
    }

    /// Lies in `buffer`.
    pub fn content(pending: PendingRecord, buffer: *Buffer) []const u8 {
        const level: record.AlertLevel, const alert: Alert = switch (pending) {
            .key_update => {
                buffer[0..record.key_update_message.len].* = record.key_update_message;
                return buffer[0..record.key_update_message.len];
            },
            .no_renegotiation => .{ .warning, .no_renegotiation },
            .alert => |alert| .{ if (alert == .close_notify) .warning else .fatal, alert },
        };
        buffer[0..Alert.size].* = .{ @backingInt(level), @backingInt(alert) };
        return buffer[0..Alert.size];
    }
};

/// What a record without data means for the engine that opened it.
pub const Meaning = enum {
    /// Nothing that concerns the engine.
    nothing,
    /// Tickets, or parts of them.
    tickets,
    /// A KeyUpdate: the next record of the peer is sealed with its next keys.
    new_keys,
    /// Nothing follows.
    close_notify,
};

pub const Control = struct {
    version: Version,
    /// How many records we seal with one key.
    records_per_key_max: u64,
    handshake: record.HandshakeReader,
    counts: Counts,
    /// What has to be sent before anything else.
    pending: Pending,
    /// Defined while one is pending.
    alert: Alert,
    /// Nothing may follow an alert (RFC 8446, section 6), so nothing is pending any more.
    alert_sent: bool,
    last_failure: types.Failure,

    /// What the peer has sent instead of data. One word, because data resets it.
    pub const Counts = packed struct(u64) {
        /// In a row.
        empty_records: u16 = 0,
        /// With nothing but empty records in between.
        warning_alerts: u16 = 0,
        /// Since its last data, as the next.
        key_updates: u16 = 0,
        hello_requests: u16 = 0,
    };

    /// One byte, because it is looked at before and after every record.
    pub const Pending = packed struct(u8) {
        key_update: bool = false,
        no_renegotiation: bool = false,
        alert: bool = false,
        _: u5 = 0,
    };

    pub fn init(version: Version) Control {
        return .{
            .version = version,
            .records_per_key_max = switch (version) {
                .tls1_3 => constants.records_per_key_max,
                .tls1_2 => std.math.maxInt(u64), // It has no KeyUpdate.
            },
            .handshake = .{},
            .counts = .{},
            .pending = .{},
            .alert = undefined,
            .alert_sent = false,
            .last_failure = .none,
        };
    }

    pub fn invariants(control: *const Control) void {
        assert(control.counts.empty_records <= constants.empty_records_max);
        assert(control.counts.warning_alerts <= constants.warning_alerts_max);
        assert(control.counts.key_updates <= constants.key_updates_max);
        assert(control.counts.hello_requests <= constants.hello_requests_max);
        if (control.alert_sent) assert(!control.hasPending());
        switch (control.version) {
            .tls1_3 => {
                assert(!control.pending.no_renegotiation);
                assert(control.counts.hello_requests == 0);
            },
            .tls1_2 => {
                assert(!control.pending.key_update);
                assert(control.counts.key_updates == 0);
            },
        }
    }

    // ---- Received. -----------------------------------------------------------------------------

    /// Whether a record is data, which resets the counters. If not, it is for `accept`.
    pub inline fn acceptData(
        control: *Control,
        content_type: ContentType,
        content: []const u8,
    ) bool {
        const is_data = content_type == .application_data and content.len > 0;
        if (!is_data or control.handshake.inMessage()) return false;
        control.counts = .{};
        return true;
    }

    /// Takes a record that `acceptData` did not take.
    pub fn accept(
        control: *Control,
        content_type: ContentType,
        content: []const u8,
    ) error{TlsFailed}!Meaning {
        if (content_type != .application_data and content.len == 0) {
            return control.refuse(.unexpected_content_type); // RFC 8446, section 5.4.
        }
        if (content_type != .handshake and control.handshake.inMessage()) {
            return control.refuse(.interleaved_handshake);
        }
        const meaning: Meaning = switch (content_type) {
            .application_data => empty: {
                try control.count(.empty_records);
                break :empty .nothing;
            },
            .alert => try control.acceptAlert(content),
            .handshake => switch (control.version) {
                .tls1_3 => try control.acceptHandshake(content),
                .tls1_2 => try control.acceptHelloRequest(content),
            },
            .change_cipher_spec, _ => return control.refuse(.unexpected_content_type),
        };
        if (content.len > 0) control.counts.empty_records = 0;
        if (content_type == .handshake) control.counts.warning_alerts = 0;
        control.handshake.invariants();
        control.invariants();
        return meaning;
    }

    fn acceptAlert(control: *Control, content: []const u8) error{TlsFailed}!Meaning {
        if (content.len != Alert.size) return control.refuse(.malformed_alert);
        const level: record.AlertLevel = @fromBackingInt(content[0]);
        const alert: Alert = @fromBackingInt(content[1]);
        if (alert == .close_notify) return .close_notify;
        // TLS 1.3 ignores the level: every alert but this one is fatal (section 6).
        const harmless = switch (control.version) {
            .tls1_3 => alert == .user_canceled,
            .tls1_2 => level == .warning,
        };
        if (harmless) {
            try control.count(.warning_alerts);
            return .nothing;
        }
        control.last_failure = .{ .reason = alert.describe() };
        return error.TlsFailed;
    }

    fn acceptHandshake(control: *Control, content: []const u8) error{TlsFailed}!Meaning {
        var violation: record.Violation = undefined;
        const found = control.handshake.read(content, &violation) orelse
            return control.refuse(violation);
        switch (found) {
            .tickets => return .tickets,
            .key_update, .key_update_requested => {},
        }
        try control.count(.key_updates);
        if (found == .key_update_requested) control.announce(.{ .key_update = true });
        return .new_keys;
    }

    /// A request to renegotiate: refused. The openssl engine can renegotiate.
    fn acceptHelloRequest(control: *Control, content: []const u8) error{TlsFailed}!Meaning {
        const found = control.handshake.readHelloRequests(content) orelse
            return control.refuse(.unexpected_handshake);
        try control.count(.hello_requests);
        if (found > 0) control.announce(.{ .no_renegotiation = true });
        return .nothing;
    }

    /// Each of them is allowed, but not any number: see `Counts`.
    fn count(control: *Control, comptime what: enum {
        empty_records,
        warning_alerts,
        key_updates,
        hello_requests,
    }) error{TlsFailed}!void {
        const number = &@field(control.counts, @tagName(what));
        if (number.* == @field(constants, @tagName(what) ++ "_max")) {
            return control.refuse(switch (what) {
                .empty_records => .too_many_empty_records,
                .warning_alerts => .too_many_warnings,
                .key_updates => .too_many_key_updates,
                .hello_requests => .too_many_hello_requests,
            });
        }
        number.* += 1;
    }

    /// Fails, with the alert that tells the peer why pending.
    pub fn refuse(control: *Control, violation: record.Violation) error{TlsFailed} {
        return control.fail(.{ .reason = violation.describe() }, violation.alert());
    }

    pub fn fail(control: *Control, failure: types.Failure, alert: Alert) error{TlsFailed} {
        @branchHint(.cold);
        assert(failure.happened());
        control.last_failure = failure;
        control.alert = alert;
        control.announce(.{ .alert = true });
        return error.TlsFailed;
    }

    // ---- Sent. ---------------------------------------------------------------------------------

    fn announce(control: *Control, more: Pending) void {
        if (control.alert_sent) return;
        control.pending = @bitCast(@as(u8, @bitCast(control.pending)) | @as(u8, @bitCast(more)));
    }

    /// So many records have been sealed with our keys: makes a KeyUpdate pending in time.
    pub inline fn noteSealed(control: *Control, sealed_records: u64) void {
        if (sealed_records >= control.records_per_key_max) {
            @branchHint(.cold);
            control.announce(.{ .key_update = true });
        }
    }

    pub inline fn hasPending(control: *const Control) bool {
        return @as(u8, @bitCast(control.pending)) != 0;
    }

    /// Whether an alert is pending or has been sent.
    pub fn hasAlerted(control: *const Control) bool {
        return control.alert_sent or control.pending.alert;
    }

    /// The first record that is pending; `markSent` follows when it is on its way.
    pub fn pendingRecord(control: *const Control) ?PendingRecord {
        if (control.pending.key_update) return .key_update;
        if (control.pending.no_renegotiation) return .no_renegotiation;
        return if (control.pending.alert) .{ .alert = control.alert } else null;
    }

    /// After a KeyUpdate, the next record has to be sealed with the next keys.
    pub fn markSent(control: *Control, pending_record: PendingRecord) void {
        switch (pending_record) {
            .key_update => control.pending.key_update = false,
            .no_renegotiation => control.pending.no_renegotiation = false,
            .alert => {
                control.pending = .{};
                control.alert_sent = true;
            },
        }
    }

    /// Makes close_notify pending, and nothing else: nothing can be sealed behind it.
    pub fn shutdown(control: *Control) void {
        control.pending = .{};
        control.alert = .close_notify;
        control.announce(.{ .alert = true });
    }
};
