//! Every bound and default of the core, and how they relate to each other.
//!
//! A bound that a caller may change is an option elsewhere, with its default here. The other bounds
//! protect against a hostile or broken peer. Imports nothing.

const std = @import("std");
const assert = std.debug.assert;

pub const version = "0.1.0";

/// Capacity of the receive and of the send ring, unless the caller says otherwise.
pub const ring_capacity_default = 8192 * kib;

/// Smallest ring: the upgrade request and response have to fit.
pub const ring_capacity_min = 256 * kib;

/// Largest ring: offsets into it fit in 32 bits with room to spare.
pub const ring_capacity_max = 1024 * 1024 * kib;

/// Largest message taken from the peer, unless the caller says otherwise. Beyond: close code 1009.
pub const message_size_max_default = 4096 * kib;

/// Largest compressed payload of a message of at most `size` bytes. The limit on messages is on
/// `size`; DEFLATE makes noise larger than it was. As zlib's `deflateBound` for any settings of the
/// peer: an eighth more, and the empty block of a flush.
pub fn compressedSizeMax(size: usize) usize {
    return size +| size / 8 +| size / 128 +| 16;
}

/// Bytes taken by one read of the socket. Small, so that the first message of a burst does not
/// wait until the last has been copied out of the kernel, and the bytes stay in the L2 cache.
pub const read_size_max = 64 * kib;

/// Ring of ciphertext that has been received and not yet opened: a read and a partial record.
pub const ciphertext_ring_capacity = 128 * kib;

/// Reads in one turn, so that a peer that never pauses cannot keep the owner's loop forever.
pub const reads_per_turn_max = 16;

/// Messages in one turn of a connection among others, so that a flood cannot keep the others
/// waiting.
pub const messages_per_turn_max = 256;

/// In a loop: how long a connection rests when kept messages leave it no room.
pub const stall_retry_ns = 10_000_000;

/// Events that one wait of a notifier takes. The rest comes with the next wait: the kernel queues
/// what it has reported behind what it has not.
pub const events_per_wait_max = 64;

/// How long a busy wait spins before its owner gets a turn (signals), and how often it checks the
/// clock during that. A turn begins when a message has been delivered. It is no round number, nor
/// is a multiple of it near one: feeds send every 1, 10 or 100 ms, and a message that comes between
/// two turns is late by what happens there.
pub const spin_turn_ns = 37_771_000;
pub const spins_per_clock_read = 64;

/// RFC 8446, section 5.1 and 5.2: the largest plaintext and the largest expansion of a record.
pub const record_plaintext_size_max = 16 * kib;
pub const record_header_size = 5;
pub const record_expansion_max = 256;

/// RFC 5246, section 6.2.3: the largest expansion in TLS 1.2, for the padding of older ciphers.
pub const record_size_max = record_header_size + record_plaintext_size_max + 2048;

/// What the direct engine puts around the content of a record, at most: header, explicit nonce of
/// TLS 1.2, content type of TLS 1.3, tag.
pub const record_overhead_max = record_header_size + 8 + 1 + 16;

/// Empty records in a row: more of them only waste time. OpenSSL's own limit.
pub const empty_records_max = 32;
/// Warning alerts without another kind of content in between. OpenSSL allows 5.
pub const warning_alerts_max = 32;
/// KeyUpdates, or requests to renegotiate, without data in between. OpenSSL has no such limit.
pub const key_updates_max = 32;
pub const hello_requests_max = 32;

/// RFC 8446, section 4.6.1: lifetime, nonce, ticket, extensions, each of its largest size.
pub const session_ticket_size_max = 4 + 4 + 1 + 255 + 2 + 65_535 + 2 + 65_534;

/// Records sealed with one key of TLS 1.3 before it is updated: below the 2^24.5 of AES-GCM (RFC
/// 8446, section 5.5).
pub const records_per_key_max = 1 << 24;

/// Session tickets kept for the next connection. Servers send two at once as a rule.
pub const session_tickets_max = 4;

/// RFC 6455, section 5.2: a server's header without mask, a client's header with mask.
pub const frame_header_size_max = 14;

/// zlib's own bounds, and its default: 128 KiB for matches and 128 KiB of symbols.
pub const deflate_level_max = 9;
pub const deflate_memory_level = 8;

/// RFC 6455, section 5.5.
pub const control_payload_size_max = 125;

/// Head of an HTTP response: status line and headers, up to the blank line.
pub const response_head_size_max = 64 * kib;
pub const response_headers_max = 128;

/// Room in the send ring that messages leave free: for a CLOSE and a PONG, sealed, and for a
/// KeyUpdate and an alert, which have at most 5 bytes of content each.
pub const control_frames_room = 2 * (control_payload_size_max + frame_header_size_max +
    record_overhead_max + 5 + record_overhead_max);

/// Masking keys are drawn from the system's generator this many bytes at a time.
pub const mask_pool_size = 4 * kib;

/// Interim (1xx) responses before the final one.
pub const interim_responses_max = 8;

/// RFC 6455, section 5.5.1: a control payload without the code.
pub const close_reason_size_max = control_payload_size_max - 2;

/// How long a peer may leave keep-alive probes, or data, unanswered: longer than a change of routes
/// takes, shorter than the ping interval of any exchange that sends pings.
pub const peer_timeout_ms_default = 30_000;

/// The limits of it. The kernel's keep-alive counts in seconds.
pub const peer_timeout_s_min = 1;
pub const peer_timeout_s_max = 24 * 60 * 60;

/// How often in that time the socket is asked whether the peer's window is closed.
pub const peer_reviews = 10;

/// Longest sleep of the binding between two checks for signals.
pub const wait_max_ns = 250_000_000;

/// Without the GIL: how long the binding sleeps between two looks for objects of this thread that
/// other threads have released. Only this thread can free them.
pub const merge_wait_ns = 10_000_000;

/// How long the binding keeps Python's lock while there is always more to read: longer than the
/// interpreter's switch interval of 5 ms, after which a waiting thread asks for the lock.
pub const lock_hold_max_ns = 10_000_000;

/// For how long the lock has to be released so that a waiting thread wakes up and takes it.
pub const lock_release_ns = 50_000;

/// How much of a refused upgrade's body is kept, so that the caller can see the reason.
pub const error_body_size_max = 64 * kib;

/// The option `ciphers`.
pub const ciphers_size_max = 4 * kib;

/// The upgrade request, with the caller's headers.
pub const request_size_max = 64 * kib;

/// How many of a name's addresses are tried.
pub const addresses_max = 16;

/// The stack of a thread that looks a name up. macOS gives threads 512 KiB, and musl 128 KiB, which
/// is enough for their own getaddrinfo. glibc's takes buffers of up to 64 KiB from the stack, and
/// loads modules (NSS) for LDAP, mDNS or systemd-resolved, whose needs nobody knows; and the
/// thread-local variables of all libraries of the program lie there, too. Memory that is not
/// touched costs nothing, except after `lock_memory()`, and is given back with the answer.
pub const lookup_stack_size = 1024 * kib;

const kib = 1024;

comptime {
    assert(record_expansion_max <= 2048);
    assert(ciphertext_ring_capacity >= read_size_max + record_size_max);
    assert(ring_capacity_default > message_size_max_default + frame_header_size_max);
    assert(ring_capacity_min > request_size_max);
    assert(ring_capacity_min > response_head_size_max + error_body_size_max);
    assert(ring_capacity_max >= ring_capacity_default);
}
