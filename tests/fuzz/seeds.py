"""What the fuzzers start from: one small file for each thing that a peer or a user can say.

`python tests/fuzz/seeds.py` writes the files, always the same, into `corpus/<target>/`. Beside them
lie files that fuzzers have found, named by their content (see `fuzz.py`); those are left alone.
The format of an input is that of `src/fuzz/input.zig` and of the file of the target beside it.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

FUZZ = Path(__file__).parent
CORPUS = FUZZ / "corpus"

#: How the bytes arrive and what happens in between; see `Input.choosePieceSize`.
AT_ONCE = b"\x00"
BYTE_BY_BYTE = b"\x00\x01"
IN_PIECES = b"\x45\x03\xc0\x41\x04"

Seeds = dict[str, bytes]


def choices(*values: int) -> bytes:
    assert len(values) < 32
    return bytes([*values, len(values)])


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0) -> bytes:
    """A frame as a server writes it (RFC 6455, section 5.2)."""
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    if len(payload) < 126:
        return bytes([first, len(payload)]) + payload
    if len(payload) < 65536:
        return struct.pack(">BBH", first, 126, len(payload)) + payload
    return struct.pack(">BBQ", first, 127, len(payload)) + payload


CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

TRADE = b'{"e":"trade","s":"BTCUSDT","p":"42.10","q":"0.5"}'
CLOSE_NORMAL = struct.pack(">H", 1000) + "auf Wiedersehen ✓".encode()

STREAMS: Seeds = {
    "text": frame(TEXT, TRADE),
    "binary": frame(BINARY, bytes(range(256))),
    "empty_messages": frame(TEXT) + frame(BINARY) + frame(TEXT),
    "many_messages": frame(TEXT, b"a") * 20 + frame(BINARY, b"\xff") * 3,
    "fragments": frame(TEXT, b"buy ", fin=False)
    + frame(CONTINUATION, b"100 ", fin=False)
    + frame(CONTINUATION, b"at 42"),
    "control_between_fragments": frame(BINARY, b"\x00", fin=False)
    + frame(PING, b"now?")
    + frame(CONTINUATION, b"\x01", fin=False)
    + frame(PONG)
    + frame(CONTINUATION, b"\x02"),
    "empty_fragments": frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 3 + frame(0),
    "pings": frame(PING) + frame(PING, bytes(125)) + frame(PONG, b"late"),
    "close": frame(TEXT, b"last") + frame(CLOSE, CLOSE_NORMAL) + frame(TEXT, b"too late"),
    "close_empty": frame(CLOSE),
    "close_half_code": frame(CLOSE, b"\x03"),
    "close_bad_code": frame(CLOSE, struct.pack(">H", 1005)),
    "close_bad_reason": frame(CLOSE, struct.pack(">H", 4000) + b"\xc3("),
    "length_16": frame(TEXT, b"x" * 126) + frame(BINARY, b"y" * 300),
    "length_64": frame(BINARY, bytes(65536)),
    "length_not_minimal": b"\x81\x7e\x00\x05hello",
    "length_64_not_minimal": struct.pack(">BBQ", 0x82, 127, 5) + b"hello",
    "length_negative": struct.pack(">BBQ", 0x82, 127, 1 << 63),
    "masked": b"\x81\x85\x01\x02\x03\x04" + b"hello",
    "reserved_bits": frame(TEXT, b"x", reserved=4),
    "reserved_opcode": frame(3, b"x"),
    "control_too_long": struct.pack(">BBH", 0x89, 126, 126) + bytes(126),
    "control_fragmented": frame(PING, b"x", fin=False),
    "continuation_of_nothing": frame(CONTINUATION, b"x"),
    "message_within_message": frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
    "utf8": frame(TEXT, "aä€𝄞\U0010ffff".encode()),
    "utf8_over_fragments": frame(TEXT, b"\xf0\x9d", fin=False) + frame(CONTINUATION, b"\x84\x9e"),
    "utf8_surrogate": frame(TEXT, b"ok \xed\xa0\x80"),
    "utf8_overlong": frame(TEXT, b"\xc0\xaf"),
    "utf8_cut_off": frame(TEXT, b"\xe2\x82"),
    "incomplete": frame(TEXT, TRADE)[:-5],
}


def compress(*messages: bytes, window_bits: int = 15, level: int = 6) -> list[bytes]:
    """Compresses as permessage-deflate does (RFC 7692, section 7.2.1), with context takeover."""
    deflater = zlib.compressobj(level, wbits=-window_bits)
    return [
        (deflater.compress(message) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
        for message in messages
    ]


RSV1 = 4

COMPRESSED: Seeds = {
    "compressed": b"".join(
        frame(TEXT, payload, reserved=RSV1) for payload in compress(TRADE, TRADE, b"a" * 500)
    ),
    "compressed_fragments": frame(TEXT, compress(TRADE)[0][:9], fin=False, reserved=RSV1)
    + frame(PING)
    + frame(CONTINUATION, compress(TRADE)[0][9:]),
    "compressed_and_not": frame(TEXT, TRADE) + frame(TEXT, compress(TRADE)[0], reserved=RSV1),
    "compressed_continuation": frame(TEXT, b"a", fin=False) + frame(0, b"b", reserved=RSV1),
    "compressed_ping": frame(PING, reserved=RSV1),
    "compressed_bad_text": frame(TEXT, compress(b"ok \xff")[0], reserved=RSV1),
    "compressed_garbage": frame(BINARY, b"\xff\xff\xff", reserved=RSV1),
    "compressed_empty": frame(BINARY, b"\x00", reserved=RSV1) + frame(TEXT, reserved=RSV1),
    "compressed_large": frame(BINARY, compress(bytes(40_000))[0], reserved=RSV1),
}


def frames() -> Seeds:
    """The byte of options: whether to validate, and the limit for messages, if any."""
    seeds = {}
    for name, wire in STREAMS.items():
        seeds[name] = b"\x00\x00" + wire + AT_ONCE
        if len(wire) < 1000:
            seeds[f"{name}_in_pieces"] = b"\x00\x00" + wire + choices(*IN_PIECES)
    for name, wire in COMPRESSED.items():
        seeds[name] = b"\x04\x00" + wire + choices(*IN_PIECES)
    for name in ("utf8_surrogate", "utf8_over_fragments"):
        seeds[f"{name}_unchecked"] = b"\x01\x00" + STREAMS[name] + choices(0)
    for name in ("fragments", "length_16", "control_between_fragments"):
        seeds[f"{name}_limited"] = b"\x02\x08" + STREAMS[name] + choices(0)
    return seeds


#: The accept value for the key in `src/fuzz/http.zig`.
KEY = base64.b64encode(b"0123456789abcdef")
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ACCEPT = base64.b64encode(hashlib.sha1(KEY + GUID).digest())


def response(status: bytes, fields: Iterable[bytes], body: bytes = b"") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"", body])


def upgrade(accept: bytes, *fields: bytes) -> bytes:
    own = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + accept]
    return response(b"101 Switching Protocols", [*own, *fields])


CHUNKED = [b"Transfer-Encoding: chunked"]

RESPONSES: Seeds = {
    "ok": response(b"200 OK", [b"Content-Length: 5", b"Server: x"], b"hello"),
    "ok_and_more": response(b"200 OK", [b"Content-Length: 2"], b"hello"),
    "empty": response(b"200 OK", [b"Content-Length: 0"]),
    "until_close": response(b"200 OK", [b"Connection: close"], b"hello"),
    "no_reason": response(b"404", [b"Content-Length: 4, 4", b"Content-Length: 4"], b"none"),
    "no_body": response(b"204 No Content", []),
    "not_modified": response(b"304 Not Modified", [b"Content-Length: 7"]),
    "http_1_0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "chunks": response(b"200 OK", CHUNKED, b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
    "chunk_extensions": response(b"200 OK", CHUNKED, b'5 ;a=b;c="d"\r\nhello\r\n00;x\r\n\r\n'),
    "chunk_trailers": response(b"200 OK", CHUNKED, b"1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\nmore"),
    "chunk_size_large": response(b"200 OK", CHUNKED, b"ffffffffffffffff\r\nx"),
    "chunk_size_too_long": response(b"200 OK", CHUNKED, b"00000000000000001\r\nx\r\n"),
    "chunk_size_missing": response(b"200 OK", CHUNKED, b"\r\nx\r\n"),
    "chunk_end_missing": response(b"200 OK", CHUNKED, b"1\r\nxy\r\n"),
    "two_framings": response(b"200 OK", [*CHUNKED, b"Content-Length: 5"], b"0\r\n\r\n"),
    "two_lengths": response(b"200 OK", [b"Content-Length: 5", b"Content-Length: 6"], b"hello"),
    "other_encoding": response(b"200 OK", [b"Transfer-Encoding: gzip, chunked"]),
    "length_too_large": response(b"200 OK", [b"Content-Length: 18446744073709551616"]),
    "interim": response(b"103 Early Hints", [b"Link: x"])
    + response(b"200 OK", [b"Content-Length: 1"], b"x"),
    "redirect": response(b"302 Found", [b"Location: wss://other.example/", b"Content-Length: 0"]),
    "folded": response(b"200 OK", [b"A: b", b" c"]),
    "space_before_colon": response(b"200 OK", [b"A : b"]),
    "no_colon": response(b"200 OK", [b"A"]),
    "bare_line_feed": b"HTTP/1.1 200 OK\nA: b\n\n",
    "control_character": response(b"200 OK", [b"A: b\x00c"]),
    "bad_status": b"HTTP/1.1 2x0 OK\r\n\r\n",
    "http_2": b"HTTP/2 200\r\n\r\n",
    "not_http": b"\x15\x03\x03\x00\x02\x02\x46",
    "many_headers": response(b"200 OK", [b"A: b"] * 129),
}


EXTENSIONS = {
    "plain": b"permessage-deflate",
    "full": b"permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
    b"server_max_window_bits=10; client_max_window_bits=11",
    "quoted": b'permessage-deflate; server_max_window_bits="9"',
    "repeated": b"permessage-deflate, permessage-deflate",
    "unknown": b"permessage-deflate; x=1",
    "other": b"permessage-bzip2",
    "malformed": b"permessage-deflate;",
    "window_too_large": b"permessage-deflate; server_max_window_bits=16",
}


#: Variants of the lines between chunks, where implementations are known to differ.
CHUNK_LINES = {
    "space_behind_size": b"5 \r\nhello\r\n0\r\n\r\n",
    "space_before_size": b" 5\r\nhello\r\n0\r\n\r\n",
    "tab_before_extension": b"5\t;x\r\nhello\r\n0\r\n\r\n",
    "two_carriage_returns": b"5\r\r\nhello\r\n0\r\n\r\n",
    "line_feed_only": b"5\nhello\r\n0\r\n\r\n",
    "line_feed_in_extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "capitals": b"0A\r\n0123456789\r\n0\r\n\r\n",
    "end_without_carriage_return": b"5\r\nhello\n0\r\n\r\n",
    "end_of_body_without_line_feed": b"0\r\n\r\r\n",
    "trailer_without_line_feed": b"0\r\na: b\rc\r\n\r\n",
}


def http() -> Seeds:
    """The byte of options: whether the request was HEAD, and which compression it offered."""
    seeds = {}
    for name, wire in RESPONSES.items():
        seeds[name] = b"\x00" + wire + AT_ONCE
        seeds[f"{name}_in_pieces"] = b"\x00" + wire + choices(*IN_PIECES)
    for name, body in CHUNK_LINES.items():
        seeds[f"chunk_{name}"] = b"\x00" + response(b"200 OK", CHUNKED, body) + AT_ONCE
    seeds["head_of_ok"] = b"\x01" + RESPONSES["ok"] + AT_ONCE
    seeds["upgrade"] = b"\x00" + upgrade(ACCEPT) + AT_ONCE
    seeds["upgrade_subprotocol"] = (
        b"\x00" + upgrade(ACCEPT, b"Sec-WebSocket-Protocol: book") + AT_ONCE
    )
    for name, value in EXTENSIONS.items():
        wire = upgrade(ACCEPT, b"Sec-WebSocket-Extensions: " + value) + AT_ONCE
        for offer in (0x00, 0x02, 0x3E):
            seeds[f"extension_{name}_{offer:02x}"] = bytes([offer]) + wire
    seeds["upgrade_wrong_accept"] = b"\x00" + upgrade(ACCEPT.lower()) + AT_ONCE
    return seeds


def url() -> Seeds:
    texts = {
        "ws": "ws://localhost/",
        "wss_with_all": "wss://stream.example.com:9443/ws/btcusdt@trade?a=b&c=%20d",
        "no_path": "wss://example.com",
        "query_only": "https://api.example.com?symbol=BTCUSDT",
        "fragment": "http://example.com/a#b",
        "fragment_of_websocket": "ws://example.com/a#b",
        "ipv4": "ws://127.0.0.1:8080/",
        "ipv4_short": "ws://127.1/",
        "ipv4_hex": "ws://0x7f.1/",
        "ipv6": "wss://[2001:db8::1]:443/x",
        "ipv6_mapped": "ws://[::ffff:192.0.2.1]",
        "ipv6_zone": "ws://[fe80::1%25eth0]/",
        "trailing_dot": "ws://example.com./",
        "underscore": "WSS://a_b-c.example:65535/",
        "user": "ws://user:secret@example.com/",
        "port_too_large": "ws://example.com:65536/",
        "port_empty": "ws://example.com:/",
        "line_end": "ws://example.com/\r\nHost: evil",
        "no_scheme": "example.com/?next=ws://x",
        "other_scheme": "ftp://example.com/",
        "headers": "ws://example.com/\nOrigin:https://x\nHost:front\nuser-agent:me\nX-Key:1",
        "headers_of_get": "https://example.com/a\nAccept:text/html\nconnection:keep-alive",
        "header_splits": "http://example.com/\nX:1\r\nY:2",
        "header_reserved": "http://example.com/\nTransfer-Encoding:chunked",
        "header_name_bad": "http://example.com/\nX Y:1",
        "two_hosts": "http://example.com/\nHost:a\nhost:b",
        "subprotocols": "ws://example.com/\ntrade\nbook",
        "subprotocols_repeated": "ws://example.com/\ntrade\ntrade",
        "subprotocol_bad": "ws://example.com/\na,b",
    }
    return {name: text.encode() + AT_ONCE for name, text in texts.items()}


def sized(*messages: bytes) -> bytes:
    parts = []
    for message in messages:
        size = len(message)
        parts.append(bytes([size]) if size < 128 else bytes([128 + size // 256, size % 256]))
        parts.append(message)
    return b"".join(parts)


def stored(payload: bytes, *, final: bool) -> bytes:
    """A block without compression (RFC 1951, section 3.2.4)."""
    return struct.pack("<BHH", final, len(payload), 0xFFFF ^ len(payload)) + payload


def deflate() -> Seeds:
    """An input: first what to do, then the size of the window and the level."""
    hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00"  # RFC 7692, section 7.2.3.1.
    texts = [TRADE, TRADE[::-1], TRADE, b"a" * 3000, bytes(range(256))]
    streams = {
        "hello": [hello],
        "hello_again": [hello, b"\xf2\x00\x11\x00\x00"],
        "not_compressed": [stored(b"Hello", final=False) + b"\x00"],
        "final_block": [b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"],
        "two_blocks": [b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"],
        "after_final_block": [stored(b"a", final=True) + hello, hello],
        "empty": [b"\x00", b""],
        "distance_too_far": [b"\xf2\x00\x11\x00\x00"],
        "bad_block_type": [b"\x07"],
        "bad_stored_size": [b"\x00\x05\x00\x05\x00hello"],
        "cut_off": [compress(TRADE)[0][:-5]],
        "takeover": compress(*texts),
        "dynamic_codes": compress(bytes(index * index % 251 for index in range(1500)), level=9),
        "window_small": compress(*texts, window_bits=9),
        "bomb": compress(bytes(300_000)),
    }
    seeds = {}
    for name, messages in streams.items():
        how = AT_ONCE if len(name) % 2 else choices(*IN_PIECES)
        seeds[f"inflate_{name}"] = b"\x00\x07" + sized(*messages) + how
        seeds[f"inflate_{name}_no_takeover"] = b"\x02\x01" + sized(*messages) + how
    for level in range(10):
        sizes = bytes([level * 8 + level % 7 + 1])
        seeds[f"deflate_{level}"] = b"\x01" + sizes + sized(*texts) + choices(*IN_PIECES)
    seeds["deflate_no_takeover"] = b"\x03\x37" + sized(*texts) + AT_ONCE
    seeds["deflate_little_room"] = b"\x01\x37" + sized(*texts) + choices(1, 9, 1, 0x41, 1, 0xC0)
    return seeds


DATA, HANDSHAKE, ALERT, ANY_TYPE, LONG_DATA, RAW, CHANGED, PADDED = range(8)
KEY_UPDATE, KEY_UPDATE_REQUESTED = b"\x18\x00\x00\x01\x00", b"\x18\x00\x00\x01\x01"
TICKET = b"\x04\x00\x00\x03abc"
SUITES = range(6)
TLS_1_3, TLS_1_2 = SUITES[:3], SUITES[3:]


def step(kind: int, content: bytes = b"", *, size: int | None = None) -> bytes:
    return bytes([kind, len(content) if size is None else size]) + content


def records() -> Seeds:
    """An input: first the suite and the provider of the AEAD, then steps."""
    tick = step(DATA, b"tick")
    conversations: dict[str, tuple[Iterable[int], bytes]] = {
        "data": (SUITES, tick + step(DATA, TRADE)),
        "empty_records": (SUITES, step(DATA) * 3 + tick),
        "too_many_empty_records": (SUITES, tick + step(DATA) * 33),
        "largest": (SUITES, step(LONG_DATA, size=2) + tick),
        "too_large": (SUITES, tick + step(LONG_DATA, size=3)),
        "close_notify": (SUITES, tick + step(ALERT, b"\x01\x00") + tick),
        "fatal_alert": (SUITES, tick + step(ALERT, b"\x02\x28")),
        "alert_too_long": (SUITES, step(ALERT, b"\x02\x28\x00")),
        "alert_empty": (SUITES, step(ALERT)),
        "user_canceled": (SUITES, step(ALERT, b"\x01\x5a") + tick),
        "other_warning": (SUITES, step(ALERT, b"\x01\x70") + tick),
        "other_type": (SUITES, tick + step(ANY_TYPE, b"\x18", size=1) + b"x"),
        "change_cipher_spec": (SUITES, step(ANY_TYPE, size=1) + b"\x14\x01"),
        "changed_tag": (SUITES, tick + step(CHANGED, size=4) + b"\xf0tick"),
        "changed_header": (SUITES, tick + step(CHANGED, size=4) + b"\x00tick"),
        "changed_length": (SUITES, tick + step(CHANGED, size=4) + b"\x21tick"),
        "raw_too_long": (SUITES, tick + step(RAW, b"\x17\x03\x03\xff\xff")),
        "raw_short": (SUITES, step(RAW, b"\x17\x03\x03\x00\x05hello")),
        "raw_other_version": (SUITES, step(RAW, b"\x17\x03\x04\x00\x20" + bytes(32))),
        "raw_half": (SUITES, tick + step(RAW, b"\x17\x03\x03")),
        "tickets": (TLS_1_3, step(HANDSHAKE, TICKET + TICKET) + tick),
        "ticket_in_pieces": (
            TLS_1_3,
            step(HANDSHAKE, TICKET[:2]) + step(HANDSHAKE, TICKET[2:5]) + step(HANDSHAKE, b"bc"),
        ),
        "interleaved": (TLS_1_3, step(HANDSHAKE, TICKET[:5]) + tick),
        "key_update": (TLS_1_3, tick + step(HANDSHAKE, KEY_UPDATE) + tick),
        "key_update_requested": (TLS_1_3, step(HANDSHAKE, KEY_UPDATE_REQUESTED) * 2 + tick),
        "key_update_and_more": (TLS_1_3, step(HANDSHAKE, KEY_UPDATE + TICKET)),
        "key_update_bad": (TLS_1_3, step(HANDSHAKE, b"\x18\x00\x00\x01\x02")),
        "too_many_key_updates": (TLS_1_3, step(HANDSHAKE, KEY_UPDATE) * 33),
        "ticket_then_key_update": (TLS_1_3, step(HANDSHAKE, TICKET + KEY_UPDATE) + tick),
        "ticket_empty": (TLS_1_3, step(HANDSHAKE, b"\x04\x00\x00\x00")),
        "ticket_too_long": (TLS_1_3, step(HANDSHAKE, b"\x04\xff\xff\xff")),
        "certificate_request": (TLS_1_3, step(HANDSHAKE, b"\x0d\x00\x00\x01\x00")),
        "padded": (TLS_1_3, step(PADDED, size=200) + b"\x17abc" + tick),
        "only_zeros": (TLS_1_3, step(PADDED, size=9) + bytes(4)),
        "hello_request": (TLS_1_2, step(HANDSHAKE, bytes(4)) + tick),
        "hello_requests_in_pieces": (
            TLS_1_2,
            step(HANDSHAKE, bytes(3)) + step(HANDSHAKE, bytes(6)) + step(HANDSHAKE, bytes(3)),
        ),
        "hello_request_bad": (TLS_1_2, step(HANDSHAKE, b"\x00\x00\x00\x01")),
    }
    seeds = {}
    for name, (suites, steps) in conversations.items():
        for suite in suites:
            # Each of the two providers with some suites, in some pieces.
            how = AT_ONCE if suite % 3 == 1 else choices(*IN_PIECES)
            seeds[f"{name}_{suite}"] = bytes([suite, (suite + len(steps)) % 2]) + steps + how
    return seeds


OPEN, OPEN_AND_ANSWERED, UPGRADE, GET = range(4)
#: The target puts the right value there.
ACCEPT_PLACE = b"{accept}"


def connection() -> Seeds:
    """An input: first the kind of conversation and the options."""
    seeds = {}
    for name, wire in STREAMS.items():
        if len(wire) > 1000:
            continue
        seeds[f"frames_{name}"] = bytes([OPEN, 0]) + wire + AT_ONCE
        seeds[f"pieces_{name}"] = bytes([OPEN, len(wire) % 64]) + wire + choices(*IN_PIECES)
    for name, wire in COMPRESSED.items():
        seeds[f"frames_{name}"] = bytes([OPEN, 64]) + wire + AT_ONCE
        seeds[f"owner_{name}"] = bytes([OPEN_AND_ANSWERED, 64 + 8]) + wire + choices(1, 0x50, 1, 0)
    stream = STREAMS["many_messages"] + STREAMS["control_between_fragments"] + STREAMS["close"]
    for number in range(16):
        # What the owner does after each piece: see `Owner.act`.
        how = choices(0x05, number << 4, 1, 0x08, 0x10, 0)
        seeds[f"owner_{number}"] = bytes([OPEN_AND_ANSWERED, 4 * number % 64]) + stream + how
        seeds[f"owner_{number}_at_once"] = bytes([OPEN_AND_ANSWERED, 8]) + stream + how[-3:]
    kept = frame(BINARY, bytes(900)) * 8
    seeds["owner_keeps"] = bytes([OPEN_AND_ANSWERED, 8]) + kept + choices(0x85, 0x50, 1)
    for name, wire in RESPONSES.items():
        seeds[f"refused_{name}"] = bytes([UPGRADE, 0]) + wire + choices(*IN_PIECES)
        seeds[f"get_{name}"] = bytes([GET, 0]) + wire + choices(*IN_PIECES)
    accepted = upgrade(ACCEPT_PLACE) + STREAMS["close"]
    seeds["upgrade"] = bytes([UPGRADE, 0]) + accepted + choices(*IN_PIECES)
    accepted = upgrade(ACCEPT_PLACE, b"Sec-WebSocket-Protocol: book") + STREAMS["fragments"]
    seeds["upgrade_subprotocol"] = bytes([UPGRADE, 32]) + accepted + AT_ONCE
    return seeds


TARGETS = {
    "connection": connection,
    "deflate": deflate,
    "frames": frames,
    "http": http,
    "records": records,
    "url": url,
}


def main() -> None:
    for target, seeds in TARGETS.items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in seeds().items():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
