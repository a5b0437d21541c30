"""Versions, cipher suites, groups, extensions, sessions, and the client's own certificate."""

from __future__ import annotations

import ssl
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from certificates import CLIENT, Issuer, root
from tls_peers import Change

from tls_matrix.model import (
    Connects,
    Fails,
    Row,
    Server,
    Shown,
    Workshop,
    ecdsa,
    lite,
    no_handshake,
    openssl,
    python,
    rsa,
    wire,
)

# ---- Versions and cipher suites. ---------------------------------------------------------------

NO_AEAD = "no AEAD that is known seals the records of this cipher suite"
NO_SUITE = no_handshake("alert from the peer: handshake_failure")


def server_of(cipher: str) -> Server:
    """A server of TLS 1.2 that has this suite only."""
    certify = ecdsa if "ECDSA" in cipher else rsa
    return openssl("-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0", certify=certify)


def offered(cipher: str) -> Row:
    return Row(f"TLS 1.2, {cipher}", server_of(cipher), Connects("TLSv1.2", cipher))


def refused(cipher: str, why: str) -> Row:
    """A suite that the client does not offer."""
    return Row(f"TLS 1.2, {cipher}: {why}", server_of(cipher), NO_SUITE)


def wanted(cipher: str) -> Row:
    """The same, offered with the option ``ciphers``."""
    expected = Connects("TLSv1.2", cipher, engine_reason=NO_AEAD)
    client = {"ciphers": cipher}
    return Row(f"TLS 1.2, {cipher}, with ciphers=", server_of(cipher), expected, client=client)


VERSIONS_AND_SUITES = [
    *(
        Row(
            f"TLS 1.3, {cipher}, {key}",
            openssl("-tls1_3", "-ciphersuites", cipher, certify=certify),
            Connects("TLSv1.3", cipher),
        )
        for cipher in (
            "TLS_AES_128_GCM_SHA256",
            "TLS_AES_256_GCM_SHA384",
            "TLS_CHACHA20_POLY1305_SHA256",
        )
        for key, certify in (("ECDSA", ecdsa), ("RSA", rsa))
    ),
    Row(
        "TLS 1.3, CCM only: not offered",
        openssl("-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"),
        NO_SUITE,
    ),
    *(
        offered(f"ECDHE-{key}-{aead}")
        for key in ("ECDSA", "RSA")
        for aead in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    ),
    *(
        row
        for key in ("ECDSA", "RSA")
        for cipher in (
            f"ECDHE-{key}-AES128-SHA256",
            f"ECDHE-{key}-AES256-SHA384",
            f"ECDHE-{key}-AES128-SHA",
            f"ECDHE-{key}-AES256-SHA",
        )
        for row in (refused(cipher, "CBC is not offered"), wanted(cipher))
    ),
    *(
        row
        for cipher in ("ECDHE-ECDSA-AES128-CCM", "ECDHE-ECDSA-AES256-CCM")
        for row in (refused(cipher, "CCM is not offered"), wanted(cipher))
    ),
    refused("ECDHE-ECDSA-AES128-CCM8", "short tags are not offered"),
    refused("ECDHE-RSA-CAMELLIA128-SHA256", "not offered"),
    refused("DHE-RSA-AES128-GCM-SHA256", "finite fields are not offered"),
    refused("AES128-GCM-SHA256", "without forward secrecy, not offered"),
    refused("AES256-SHA", "without forward secrecy, not offered"),
    Row(
        "anonymous: not offered",
        openssl("-tls1_2", "-cipher", "AECDH-AES128-SHA:@SECLEVEL=0", "-nocert"),
        NO_SUITE,
    ),
    Row(
        "TLS 1.2 and 1.3: the newer one",
        openssl(),
        Connects(),
    ),
]

# ---- Groups. -----------------------------------------------------------------------------------


def group(name: str, text: str, *options: str) -> Row:
    ciphers = {"-tls1_3": "TLS_AES_128_GCM_SHA256", "-tls1_2": "ECDHE-ECDSA-AES128-GCM-SHA256"}
    choice = "-ciphersuites" if options[0] == "-tls1_3" else "-cipher"
    version = "TLSv1.3" if options[0] == "-tls1_3" else "TLSv1.2"
    cipher = ciphers[options[0]]
    server = openssl(*options, choice, cipher, "-groups", name)
    return Row(text, server, Connects(version, cipher))


GROUPS = [
    group("X25519", "TLS 1.3, X25519", "-tls1_3"),
    *(
        group(name, f"TLS 1.3, {name}: HelloRetryRequest", "-tls1_3")
        for name in ("P-256", "P-384", "P-521", "X448")
    ),
    *(
        group(name, f"TLS 1.2, {name}", "-tls1_2")
        for name in ("X25519", "P-256", "P-384", "P-521", "X448")
    ),
    group("P-256:X25519", "TLS 1.3, several groups", "-tls1_3"),
    Row(
        "TLS 1.3, HelloRetryRequest with a cookie",
        lite("P-384 only", eccCurves=["secp384r1"], keyShares=["secp384r1"]),
        Connects(),
    ),
    Row(
        "TLS 1.3, a group that the client does not have",
        lite("brainpoolP256r1 only", eccCurves=["brainpoolP256r1tls13"], keyShares=[], dhGroups=[]),
        NO_SUITE,
    ),
    Row(
        "TLS 1.3, a finite field",
        lite("ffdhe2048 only", eccCurves=["brainpoolP256r1tls13"], keyShares=[]),
        Connects(),
    ),
]

# ---- The server's hello. -----------------------------------------------------------------------

HELLO, ENCRYPTED_EXTENSIONS = 2, 8
ALPN, STATUS_REQUEST, RECORD_SIZE_LIMIT, PRE_SHARED_KEY, EARLY_DATA = 16, 5, 28, 41, 42
EXTENDED_MASTER_SECRET, RENEGOTIATION_INFO, SUPPORTED_VERSIONS, KEY_SHARE = 23, 0xFF01, 43, 51

#: RFC 8446, section 4.1.3: how the random ends when a server that has TLS 1.3 uses less.
DOWNGRADE_TO_1_2, DOWNGRADE_TO_1_1 = b"DOWNGRD\1", b"DOWNGRD\0"
#: The same section: the random that makes a ServerHello a HelloRetryRequest.
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


def extensions_of(data: bytes) -> dict[int, bytes]:
    """By their numbers; the data begins with the size of them all."""
    found, place = {}, 2
    while place < len(data):
        kind, size = struct.unpack_from(">HH", data, place)
        found[kind] = data[place + 4 : place + 4 + size]
        place += 4 + size
    return found


def encode_extensions(extensions: Mapping[int, bytes | None]) -> bytes:
    parts = [
        struct.pack(">HH", kind, len(data)) + data
        for kind, data in extensions.items()
        if data is not None
    ]
    return struct.pack(">H", sum(map(len, parts))) + b"".join(parts)


def hello(
    *,
    version: int | None = None,
    random_end: bytes = b"",
    random: bytes | None = None,
    session_id: bytes | None = None,
    suite: int | None = None,
    compression: int | None = None,
    extensions: Mapping[int, bytes | None] | None = None,
    only_retry: bool | None = None,
) -> dict[int, Change]:
    """Another ServerHello (RFC 8446, section 4.1.3). None removes an extension.

    ``only_retry``: whether just a HelloRetryRequest is changed, or all but that.
    """

    def change(body: bytes) -> bytes:
        if only_retry is not None and only_retry != (body[2:34] == RETRY_RANDOM):
            return body
        id_end = 35 + body[34]
        new_random = random or body[2 : 34 - len(random_end)] + random_end
        new_id = body[35:id_end] if session_id is None else session_id
        new = body[:2] if version is None else version.to_bytes(2, "big")
        new += new_random + bytes([len(new_id)]) + new_id
        new += body[id_end : id_end + 2] if suite is None else suite.to_bytes(2, "big")
        new += body[id_end + 2 : id_end + 3] if compression is None else bytes([compression])
        return new + encode_extensions({**extensions_of(body[id_end + 3 :]), **(extensions or {})})

    return {HELLO: change}


def encrypted(extensions: Mapping[int, bytes]) -> dict[int, Change]:
    """These in EncryptedExtensions, too."""
    return {
        ENCRYPTED_EXTENSIONS: lambda body: encode_extensions({**extensions_of(body), **extensions})
    }


ALPN_HTTP_2 = b"\0\3\2h2"

GCM_1_2 = Connects("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")


def lite_1_2(description: str = "", **options: Any) -> Any:
    options = {"minVersion": (3, 3), "maxVersion": (3, 3), **options}
    return lite(f"TLS 1.2{', ' * bool(description)}{description}", **options)


def refused(
    name: str, server: Any, reason: str, alert: str, client: Mapping[str, Any] | None = None
) -> Row:
    return Row(name, server, no_handshake(reason, alert), client=client or {})


HELLOS = [
    refused(
        "a suite that was not offered",
        lite("TLS_AES_128_CCM_SHA256", changes=hello(suite=0x1304)),
        "wrong cipher returned",
        "illegal_parameter",
    ),
    refused(
        "a suite that nobody knows",
        lite("0x4A4A", changes=hello(suite=0x4A4A)),
        "unknown cipher returned",
        "illegal_parameter",
    ),
    refused(
        "TLS 1.3 with a suite of TLS 1.2",
        lite("0xC02B", changes=hello(suite=0xC02B)),
        "wrong cipher returned",
        "illegal_parameter",
    ),
    refused(
        "TLS 1.2 with a suite of TLS 1.3",
        lite_1_2("0x1301", changes=hello(suite=0x1301)),
        "wrong cipher returned",
        "illegal_parameter",
    ),
    refused(
        "another suite after HelloRetryRequest",
        lite(
            "P-384 only",
            eccCurves=["secp384r1"],
            keyShares=["secp384r1"],
            changes=hello(suite=0x1303, only_retry=False),
        ),
        "wrong cipher returned",
        "illegal_parameter",
    ),
    refused(
        "two HelloRetryRequests",
        lite(
            "P-384 only",
            eccCurves=["secp384r1"],
            keyShares=["secp384r1"],
            changes=hello(random=RETRY_RANDOM, extensions={KEY_SHARE: b"\0\x19"}, only_retry=False),
        ),
        "unexpected message",
        "unexpected_message",
    ),
    refused(
        "HelloRetryRequest that changes nothing",
        lite(
            "asks for X25519, whose share is there",
            changes=hello(random=RETRY_RANDOM, extensions={KEY_SHARE: b"\0\x1d"}),
        ),
        "bad key share",
        "illegal_parameter",
    ),
    refused(
        "HelloRetryRequest for a group that was not offered",
        lite(
            "asks for group 0x4A4A",
            changes=hello(random=RETRY_RANDOM, extensions={KEY_SHARE: b"\x4a\x4a"}),
        ),
        "bad key share",
        "illegal_parameter",
    ),
    refused(
        "a key share of another group",
        lite("P-256", changes=hello(extensions={KEY_SHARE: b"\0\x17\0\x41\4" + bytes(64)})),
        "bad key share",
        "illegal_parameter",
    ),
    refused(
        "a key share of zeros",
        lite("X25519", changes=hello(extensions={KEY_SHARE: b"\0\x1d\0\x20" + bytes(32)})),
        "bad key share",
        "illegal_parameter",
    ),
    refused(
        "TLS 1.3 without a key share",
        lite(changes=hello(extensions={KEY_SHARE: None})),
        "no suitable key share",
        "missing_extension",
    ),
    refused(
        "another session id than ours",
        lite(changes=hello(session_id=bytes(32))),
        "invalid session id",
        "illegal_parameter",
    ),
    refused(
        "compression",
        lite("DEFLATE", changes=hello(compression=1)),
        "invalid compression algorithm",
        "illegal_parameter",
    ),
    refused(
        "compression in TLS 1.2",
        lite_1_2("DEFLATE", changes=hello(compression=1)),
        "compression disabled",
        "illegal_parameter",
    ),
    refused(
        "a protocol by ALPN, unasked",
        lite("h2", changes=encrypted({ALPN: ALPN_HTTP_2})),
        "unsolicited extension",
        "unsupported_extension",
    ),
    refused(
        "a protocol by ALPN, unasked, in TLS 1.2",
        lite_1_2("h2", changes=hello(extensions={ALPN: ALPN_HTTP_2})),
        "unsolicited extension",
        "unsupported_extension",
    ),
    refused(
        "early data accepted that was not sent",
        lite(changes=encrypted({EARLY_DATA: b""})),
        "unsolicited extension",
        "unsupported_extension",
    ),
    refused(
        "a session taken up that was not offered",
        lite(changes=hello(extensions={PRE_SHARED_KEY: b"\0\0"})),
        "unsolicited extension",
        "unsupported_extension",
    ),
    # RFC 8446, section 4.2, wants it refused. OpenSSL does so with the extensions that it knows.
    Row(
        "record_size_limit, unasked: passed over",
        lite("64", changes=encrypted({RECORD_SIZE_LIMIT: b"\0\x40"})),
        Connects(),
    ),
    refused(
        "renegotiation_info of an earlier handshake",
        lite_1_2(changes=hello(extensions={RENEGOTIATION_INFO: b"\2\1\1"})),
        "renegotiation mismatch",
        "illegal_parameter",
    ),
    Row(
        "TLS 1.2 without extended_master_secret",
        lite_1_2(useExtendedMasterSecret=False),
        GCM_1_2,
    ),
    Row(
        "TLS 1.2 without renegotiation_info: nobody shakes hands again",
        lite_1_2(changes=hello(extensions={RENEGOTIATION_INFO: None})),
        no_handshake("unsafe legacy renegotiation disabled", "handshake_failure"),
    ),
]

# ---- Downgrades. -------------------------------------------------------------------------------


def old_versions(workshop: Workshop, context: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1


def selected(version: int) -> dict[int, Change]:
    return hello(extensions={SUPPORTED_VERSIONS: version.to_bytes(2, "big")})


def server_hello(version: bytes) -> Callable[[bytes], bytes]:
    """A ServerHello of the old form, with a suite of TLS 1.0; the answer to any hello."""
    body = version + bytes(32) + b"\0" + b"\xc0\x13" + b"\0"
    message = b"\2" + len(body).to_bytes(3, "big") + body
    return lambda hello: b"\x16" + version + len(message).to_bytes(2, "big") + message


DOWNGRADES = [
    Row(
        "TLS 1.0 and 1.1 only",
        python(configure=old_versions),
        no_handshake("alert from the peer: protocol_version"),
    ),
    *(
        refused(
            f"{name} chosen all the same",
            wire(f"ServerHello, {name}", server_hello(version)),
            "unsupported protocol",
            "protocol_version",
        )
        for name, version in (
            ("TLS 1.1", b"\3\2"),
            ("TLS 1.0", b"\3\1"),
            ("SSL 3.0", b"\3\0"),
        )
    ),
    Row(
        "SSL 2.0",
        wire("SERVER-HELLO of SSL 2.0", b"\x80\x0b\4\0\1\0\2\0\0\0\0\0\0"),
        no_handshake("wrong version number (does the server speak TLS on this port?)"),
    ),
    *(
        refused(
            f"TLS 1.2 of a server that could do better: {name}",
            lite_1_2(name, changes=hello(random_end=random_end)),
            "inappropriate fallback",
            "illegal_parameter",
        )
        for name, random_end in (
            ("marked as from 1.3", DOWNGRADE_TO_1_2),
            ("marked as from 1.2", DOWNGRADE_TO_1_1),
        )
    ),
    # No RFC demands that a client refuses it, and OpenSSL does not.
    Row(
        "TLS 1.3 chosen in the way of old: taken",
        lite("legacy_version", changes=hello(version=0x304, extensions={SUPPORTED_VERSIONS: None})),
        Connects(),
    ),
    refused(
        "a draft of TLS 1.3",
        lite("version 0x7F1C", changes=selected(0x7F1C)),
        "bad protocol version number",
        "illegal_parameter",
    ),
    refused(
        "TLS 1.2 chosen in the way of TLS 1.3",
        lite(changes=selected(0x0303)),
        "bad protocol version number",
        "illegal_parameter",
    ),
    Row(
        "a server that TLS 1.3 confuses, and says so",
        wire("protocol_version", b"\x15\3\3\0\2\2\x46"),
        no_handshake("alert from the peer: protocol_version"),
    ),
    Row(
        "a server that TLS 1.3 confuses, and hangs up",
        wire("nothing", end="FIN"),
        Fails("the peer closed the TCP connection while in the TLS handshake with 127.0.0.1"),
    ),
]

# ---- Sessions. ---------------------------------------------------------------------------------

TWICE, FORGOTTEN = (False, True, True), (False, False, False)


def no_tickets(workshop: Workshop, context: Any) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET


def up_to_1_2(workshop: Workshop, context: Any) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2


def saw_no_early_data(stack: Any) -> bool:
    said = stack.server.said[stack.begin :]
    return b"No early data received" in said


OPENSSL_1_3 = ("-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256")
OPENSSL_1_2 = ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")

SESSIONS = [
    Row("TLS 1.3, a ticket", openssl(*OPENSSL_1_3), Connects(resumed=TWICE)),
    Row(
        "TLS 1.3, a ticket of another stack",
        lite(ticketKeys=[bytearray(32)], ticket_count=2),
        Connects(resumed=TWICE),
    ),
    Row(
        "TLS 1.3, a ticket that is a number",
        openssl(*OPENSSL_1_3, "-no_ticket"),
        Connects(resumed=TWICE),
    ),
    Row(
        "TLS 1.3, no tickets",
        openssl(*OPENSSL_1_3, "-num_tickets", "0"),
        Connects(resumed=FORGOTTEN),
    ),
    Row(
        "TLS 1.3, a server that has forgotten it",
        openssl(*OPENSSL_1_3, changed=(*OPENSSL_1_3, "-num_tickets", "0")),
        Connects(resumed=FORGOTTEN),
    ),
    Row(
        "TLS 1.3, tickets with early data: none is sent",
        openssl(*OPENSSL_1_3, "-early_data", "-max_early_data", "16384", "-no_anti_replay"),
        Connects(resumed=TWICE, holds=saw_no_early_data),
    ),
    Row(
        "TLS 1.2, a ticket",
        python("TLS 1.2", configure=up_to_1_2),
        replace(GCM_1_2, resumed=TWICE),
    ),
    Row(
        "TLS 1.2, a session id",
        python("TLS 1.2, no tickets", configure=no_tickets),
        replace(GCM_1_2, resumed=TWICE),
    ),
    Row(
        "TLS 1.2, a server that has forgotten it",
        openssl(*OPENSSL_1_2, changed=(*OPENSSL_1_2, "-no_ticket", "-no_cache")),
        replace(GCM_1_2, resumed=FORGOTTEN),
    ),
    Row(
        "TLS 1.2, neither",
        openssl(*OPENSSL_1_2, "-no_ticket", "-no_cache"),
        replace(GCM_1_2, resumed=FORGOTTEN),
    ),
]

# ---- The client's own certificate. -------------------------------------------------------------


def client_ecdsa(workshop: Workshop) -> Issuer:
    return workshop.roots["EC"].issue(common_name="trader", purposes=[CLIENT])


def client_rsa(workshop: Workshop) -> Issuer:
    return workshop.roots["RSA"].issue(common_name="trader", key="RSA 2048", purposes=[CLIENT])


def client_of_nobody(workshop: Workshop) -> Issuer:
    return root("somebody else").issue(common_name="trader", purposes=[CLIENT])


def client_for_servers(workshop: Workshop) -> Issuer:
    return workshop.roots["EC"].issue(common_name="trader")


def shows(certify: Callable[[Workshop], Issuer]) -> dict[str, Any]:
    """The client's option. A callable is given the workshop."""
    return {"cert_file": lambda workshop: Shown(workshop.issued(certify).chain).pem_file(workshop)}


def asks(*, required: bool, version: str) -> Any:
    def configure(workshop: Workshop, context: Any) -> None:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        context.load_verify_locations(workshop.ca_file)

    words = "requires a certificate" if required else "asks for a certificate"
    return python(f"{version.replace('v1_', ' 1.')}, {words}", configure=configure)


def knows_the_trader(stack: Any) -> bool:
    subject = stack.session.getpeercert()["subject"]
    return (("commonName", "trader"),) in subject


RENEGOTIATES = "in TLS 1.2 a server may ask for the client's certificate by renegotiation"


def client_certificates(version: str) -> list[Row]:
    name = version.replace("v1_", " 1.")
    plain = Connects() if version == "TLSv1_3" else GCM_1_2
    reason = "" if version == "TLSv1_3" else RENEGOTIATES
    shown = Connects(plain.version, plain.cipher, engine_reason=reason, holds=knows_the_trader)
    required, optional = asks(required=True, version=version), asks(required=False, version=version)

    def told(alert: str) -> Fails:
        """In TLS 1.3 the client's handshake is done when the alert comes."""
        prefix = "the TLS handshake failed: " if version == "TLSv1_2" else "a TLS record is bad: "
        return Fails(f"{prefix}alert from the peer: {alert}")

    missing = "handshake_failure" if version == "TLSv1_2" else "certificate_required"
    return [
        Row(f"{name}, ECDSA certificate required and shown", required, shown, shows(client_ecdsa)),
        Row(f"{name}, RSA certificate required and shown", required, shown, shows(client_rsa)),
        Row(f"{name}, certificate asked for and shown", optional, shown, shows(client_ecdsa)),
        Row(f"{name}, certificate asked for, none there", optional, plain),
        Row(f"{name}, certificate required, none there", required, told(missing)),
        Row(
            f"{name}, certificate of an authority that the server does not know",
            required,
            told("unknown_ca"),
            shows(client_of_nobody),
        ),
        Row(
            f"{name}, certificate for servers only",
            required,
            told("unsupported_certificate"),
            shows(client_for_servers),
        ),
    ]


CLIENT_CERTIFICATES = [
    *client_certificates("TLSv1_3"),
    *client_certificates("TLSv1_2"),
    Row(
        "TLS 1.3, certificate not asked for",
        python(),
        Connects(),
        shows(client_ecdsa),
    ),
]

SECTIONS = {
    "Versions and cipher suites": VERSIONS_AND_SUITES,
    "Groups": GROUPS,
    "The server's hello": HELLOS,
    "Downgrades": DOWNGRADES,
    "Sessions": SESSIONS,
    "The client's own certificate": CLIENT_CERTIFICATES,
}
