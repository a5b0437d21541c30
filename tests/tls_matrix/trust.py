"""Keys, chains, names, and certificates that are wrong in one way each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from certificates import (
    CLIENT,
    DAY,
    NOW,
    SERVER,
    UNKNOWN_EXTENSION,
    Issuer,
    constraints,
    forge,
    general_names,
    key_usage,
    make,
    root,
    sign_again,
)
from cryptography import x509

from tls_matrix.model import (
    Certify,
    Connects,
    Fails,
    Row,
    Workshop,
    no_handshake,
    python,
    unverified,
)

# X509_V_ERR_* of OpenSSL, with its words for them.
NOT_YET_VALID = unverified("certificate is not yet valid", 9, "bad_certificate")
EXPIRED = unverified("certificate has expired", 10, "certificate_expired")
BAD_SIGNATURE = unverified("certificate signature failure", 7, "decrypt_error")
SELF_SIGNED = unverified("self-signed certificate", 18, "unknown_ca")
SELF_SIGNED_IN_CHAIN = unverified("self-signed certificate in certificate chain", 19, "unknown_ca")
NO_ISSUER = unverified("unable to get local issuer certificate", 20, "unknown_ca")
INVALID_CA = unverified("invalid CA certificate", 79, "unknown_ca")
PATH_TOO_LONG = unverified("path length constraint exceeded", 25, "unknown_ca")
WRONG_PURPOSE = unverified("unsuitable certificate purpose", 26, "unsupported_certificate")
UNKNOWN_CRITICAL = unverified("unhandled critical extension", 34, "certificate_unknown")
NOT_PERMITTED = unverified("permitted subtree violation", 47, "certificate_unknown")
EXCLUDED = unverified("excluded subtree violation", 48, "certificate_unknown")
WRONG_HOST = unverified("hostname mismatch", 62, "bad_certificate")
WRONG_ADDRESS = unverified("IP address mismatch", 64, "bad_certificate")
WEAK_KEY = unverified("EE certificate key too weak", 66, "bad_certificate")
WEAK_CA_KEY = unverified("CA certificate key too weak", 67, "bad_certificate")
WEAK_DIGEST = unverified("CA signature digest algorithm too weak", 68, "bad_certificate")

ADDRESS = "127.0.0.1"

# ---- Keys and chains. --------------------------------------------------------------------------


def under(length: int, key: str, root_key: str, **options: Any) -> Certify:
    """A certificate with this many intermediate ones above it, all of one kind."""

    def certify(workshop: Workshop) -> Issuer:
        issuer = workshop.roots[root_key]
        for number in range(length):
            issuer = issuer.intermediate(f"{key} intermediate {number}", key, **options)
        return issuer.issue(ADDRESS, key=key, **options)

    return certify


def root_of(key: str) -> str:
    return "RSA" if "RSA" in key else "EC"


def shuffled(certificate: Issuer) -> list[Issuer]:
    first, *others = certificate.chain
    return [first, *reversed(others)]


def with_root(certificate: Issuer) -> list[Issuer]:
    found, issuer = certificate.chain, certificate
    while issuer.parent is not None:
        issuer = issuer.parent
    return [*found, issuer]


def with_strangers(certificate: Issuer) -> list[Issuer]:
    stranger = root("stranger")
    return [*certificate.chain, stranger, stranger.issue("stranger.example")]


def with_many(count: int) -> Callable[[Issuer], list[Issuer]]:
    """Certificates of no use behind its own, about 450 bytes each."""

    def show(certificate: Issuer) -> list[Issuer]:
        stranger = root("stranger")
        return [*certificate.chain, *[stranger.issue("stranger.example") for _ in range(count)]]

    return show


def cross_signed(workshop: Workshop) -> Issuer:
    """Its issuer has two certificates: one under a root that nobody trusts, one under ours."""
    return workshop.roots["EC"].intermediate("crossed").issue(ADDRESS)


def both_paths(certificate: Issuer) -> list[Issuer]:
    crossed = root("a root of old").intermediate("crossed")
    return [certificate, crossed, *certificate.chain[1:]]


def ours_first(certificate: Issuer) -> list[Issuer]:
    first, stranger, *ours = both_paths(certificate)
    return [first, *ours, stranger]


def many_names(workshop: Workshop) -> Issuer:
    names = [f"feed-{number}.example" for number in range(1000)]
    return workshop.roots["EC"].issue(*names, ADDRESS)


#: Keys of RSA 4096 take long to make.
LENGTHS = {"RSA 2048": (0, 1, 2), "RSA 4096": (0,), "P-256": (0, 1, 2)}

KEYS_AND_CHAINS = [
    *(
        Row(
            f"{key}, {['the root', 'one intermediate', 'two intermediates'][length]}",
            python(certify=under(length, key, root_of(key))),
            Connects(),
        )
        for key in ("RSA 2048", "RSA 4096", "P-256", "P-384", "P-521", "Ed25519")
        for length in LENGTHS.get(key, (1,))
    ),
    Row(
        "RSA, signed with RSASSA-PSS",
        python(certify=under(1, "RSA 2048", "RSA", pss=True)),
        Connects(),
    ),
    Row(
        "intermediates in the wrong order",
        python(certify=under(2, "P-256", "EC"), show=shuffled),
        Connects(),
    ),
    Row(
        "the root shown, too",
        python(certify=under(1, "P-256", "EC"), show=with_root),
        Connects(),
    ),
    Row("certificates of strangers in the chain", python(show=with_strangers), Connects()),
    Row(
        "a cross-signed intermediate, the path to our root shown first",
        python(certify=cross_signed, show=ours_first),
        Connects(),
    ),
    # OpenSSL follows one path: the first issuer that fits.
    Row(
        "a cross-signed intermediate, the path to our root shown last",
        python(certify=cross_signed, show=both_paths),
        NO_ISSUER,
    ),
    Row("a chain of 30 KB", python(show=with_many(70)), Connects()),
    Row("a certificate for 1001 names, of 24 KB", python(certify=many_names), Connects()),
    Row(
        "a chain of more than 100 KB",
        python(show=with_many(300)),
        no_handshake("excessive message size", "illegal_parameter"),
    ),
]

# ---- Names. ------------------------------------------------------------------------------------


def named(*names: str, common_name: str = "server") -> Certify:
    return lambda workshop: workshop.roots["EC"].issue(*names, common_name=common_name)


def name_row(
    names: str, expected: str, outcome: Connects | Fails, *, common_name: str = "server"
) -> Row:
    """A certificate for these names, and whom the client expects."""
    certify = named(*names.split(), common_name=common_name)
    shown = names or f"no name but the common name {common_name}"
    return Row(
        f"{expected} wanted, {shown} shown",
        python(f"for {shown}", certify=certify),
        outcome,
        client={"server_name": expected},
    )


YES = Connects()

NAMES = [
    name_row("feed.example", "feed.example", YES),
    name_row("feed.example", "FEED.Example", YES),
    name_row("FEED.EXAMPLE", "feed.example", YES),
    name_row("feed.example", "feed.example.", YES),
    name_row("other.example feed.example", "feed.example", YES),
    name_row("feed.example", "other.example", WRONG_HOST),
    name_row("feed.example", "a.feed.example", WRONG_HOST),
    name_row("a.feed.example", "feed.example", WRONG_HOST),
    # RFC 9525, section 2: the common name does not count.
    name_row("", "feed.example", WRONG_HOST, common_name="feed.example"),
    name_row("other.example", "feed.example", WRONG_HOST, common_name="feed.example"),
    name_row(ADDRESS, "feed.example", WRONG_HOST, common_name="feed.example"),
    name_row("", ADDRESS, WRONG_ADDRESS, common_name=ADDRESS),
    # RFC 9525, section 6.3: a wildcard is the whole leftmost label, and stands for one.
    name_row("*.example.com", "feed.example.com", YES),
    name_row("*.example.com", "xn--bcher-kva.example.com", YES),
    name_row("*.example.com", "example.com", WRONG_HOST),
    name_row("*.example.com", "a.feed.example.com", WRONG_HOST),
    name_row("a.*.example.com", "a.feed.example.com", WRONG_HOST),
    name_row("f*.example.com", "feed.example.com", WRONG_HOST),
    name_row("*d.example.com", "feed.example.com", WRONG_HOST),
    name_row("xn--*.example.com", "xn--bcher-kva.example.com", WRONG_HOST),
    name_row("*.*.example.com", "a.feed.example.com", WRONG_HOST),
    name_row("*.com", "example.com", WRONG_HOST),
    name_row("*", "localhost", WRONG_HOST),
    # RFC 9525, section 6.2: A-labels are compared.
    name_row("xn--bcher-kva.example", "xn--bcher-kva.example", YES),
    name_row("xn--bcher-kva.example", "xn--bcher-kvb.example", WRONG_HOST),
    # An address is compared with addresses only.
    name_row(ADDRESS, ADDRESS, YES),
    name_row("::1", "::1", YES),
    name_row("::1", "0:0:0:0:0:0:0:1", YES),
    name_row("2001:db8::1 127.0.0.1", ADDRESS, YES),
    name_row("127.0.0.2", ADDRESS, WRONG_ADDRESS),
    name_row("::2", "::1", WRONG_ADDRESS),
    name_row("::1", ADDRESS, WRONG_ADDRESS),
    name_row("::ffff:127.0.0.1", ADDRESS, WRONG_ADDRESS),
    name_row("localhost", ADDRESS, WRONG_ADDRESS),
    name_row("*.0.0.1", ADDRESS, WRONG_ADDRESS),
    name_row("127.0.0.1", "localhost", WRONG_HOST),
    Row(
        "the host of the URL is an address, and shown",
        python(f"for {ADDRESS}", certify=named(ADDRESS)),
        YES,
    ),
    Row(
        "the host of the URL is an address, and another one shown",
        python("for 127.0.0.2 and localhost", certify=named("127.0.0.2", "localhost")),
        WRONG_ADDRESS,
    ),
    Row(
        "the host of the URL is a name, and shown",
        python("for localhost", certify=named("localhost")),
        YES,
        host="localhost",
    ),
    Row(
        "the host of the URL is a name, and its address shown",
        python(f"for {ADDRESS}", certify=named(ADDRESS)),
        WRONG_HOST,
        host="localhost",
    ),
]


def dns_as_text(value: str) -> Certify:
    """An address as a DNS name: what it looks like is not what it is."""

    def certify(workshop: Workshop) -> Issuer:
        names = x509.SubjectAlternativeName([x509.DNSName(value)])
        return workshop.roots["EC"].issue(extensions=[names])

    return certify


NAMES.append(
    Row(
        "an address wanted, the same as a DNS name shown",
        python(f"for the DNS name {ADDRESS}", certify=dns_as_text(ADDRESS)),
        WRONG_ADDRESS,
    )
)

# ---- Certificates that prove nothing. ----------------------------------------------------------


def leaf(issuer: str = "EC", **options: Any) -> Certify:
    return lambda workshop: workshop.roots[issuer].issue(ADDRESS, **options)


def below(name: str = ADDRESS, **options: Any) -> Certify:
    """Under an intermediate with these options."""

    def certify(workshop: Workshop) -> Issuer:
        return workshop.roots["EC"].intermediate("intermediate", **options).issue(name)

    return certify


def bad_intermediate(workshop: Workshop) -> Issuer:
    """A server's certificate that signs another one's."""
    return workshop.roots["EC"].issue("mallory.example", common_name="mallory").issue(ADDRESS)


def self_issued(workshop: Workshop) -> Issuer:
    return root("own", extensions=[x509.SubjectAlternativeName(general_names([ADDRESS]))])


def self_signed_leaf(workshop: Workshop) -> Issuer:
    return make(None, [ADDRESS], key="P-256", common_name="own")


def only_own(certificate: Issuer) -> list[Issuer]:
    return [certificate]


def untrusted(workshop: Workshop) -> Issuer:
    return root("somebody else").intermediate("intermediate").issue(ADDRESS)


def weak_ca(workshop: Workshop) -> Issuer:
    weak = workshop.roots["RSA"].intermediate("weak", "RSA 1024")
    return weak.issue(ADDRESS)


def too_long(workshop: Workshop) -> Issuer:
    first = workshop.roots["EC"].intermediate("first", path_length=0)
    return first.intermediate("second").issue(ADDRESS)


def same_name_other_key(workshop: Workshop) -> Issuer:
    """A certificate of an authority that has our authority's name, and another key."""
    return root("EC root", "P-384").issue(ADDRESS)


def elder(digest: str) -> Certify:
    return lambda workshop: sign_again(workshop.roots["RSA"].issue(ADDRESS), digest)


def elder_intermediate(workshop: Workshop) -> Issuer:
    old = sign_again(workshop.roots["RSA"].intermediate("signed with SHA-1"), "sha1")
    return old.issue(ADDRESS)


def forged(workshop: Workshop) -> Issuer:
    return forge(workshop.roots["EC"].issue(ADDRESS))


def forged_intermediate(workshop: Workshop) -> Issuer:
    return forge(workshop.roots["EC"].intermediate("forged")).issue(ADDRESS)


def wrong(
    name: str,
    certify: Certify,
    expected: Connects | Fails,
    *,
    server_name: str = ADDRESS,
    **options: Any,
) -> Row:
    client = {"server_name": server_name} if server_name != ADDRESS else {}
    return Row(name, python(certify=certify, **options), expected, client)


REVOCATION_LIST = x509.CRLDistributionPoints(
    [
        x509.DistributionPoint(
            [x509.UniformResourceIdentifier("http://127.0.0.1:9/revoked.crl")], None, None, None
        )
    ]
)
MUST_STAPLE = x509.TLSFeature([x509.TLSFeatureType.status_request])
POLICY = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("2.999.2"), None)])
WANTS_POLICY = x509.PolicyConstraints(0, None)

WRONG = [
    wrong("expired", leaf(not_before=NOW - 2 * DAY, not_after=NOW - DAY), EXPIRED),
    wrong("not yet valid", leaf(not_before=NOW + DAY, not_after=NOW + 2 * DAY), NOT_YET_VALID),
    wrong(
        "under an intermediate that has expired",
        below(not_before=NOW - 2 * DAY, not_after=NOW - DAY),
        EXPIRED,
    ),
    wrong(
        "under an intermediate that is not yet valid",
        below(not_before=NOW + DAY, not_after=NOW + 2 * DAY),
        NOT_YET_VALID,
    ),
    wrong("the intermediate is not shown", below(), NO_ISSUER, show=only_own),
    wrong("self-signed", self_signed_leaf, SELF_SIGNED, show=only_own),
    wrong("self-signed, an authority", self_issued, SELF_SIGNED, show=only_own),
    wrong("a root that is not trusted", untrusted, NO_ISSUER),
    wrong("a root that is not trusted, and shown", untrusted, SELF_SIGNED_IN_CHAIN, show=with_root),
    wrong("an authority that has the name of ours", same_name_other_key, NO_ISSUER),
    wrong("for clients only", leaf(purposes=[CLIENT]), WRONG_PURPOSE),
    wrong("for clients and servers", leaf(purposes=[CLIENT, SERVER]), YES),
    wrong(
        "for any purpose",
        leaf(purposes=[x509.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
        WRONG_PURPOSE,
    ),
    wrong("for no purpose in particular", leaf(purposes=[]), YES),
    wrong("under an intermediate for clients only", below(purposes=[CLIENT]), WRONG_PURPOSE),
    wrong("under a certificate that is no authority's", bad_intermediate, INVALID_CA),
    wrong(
        "under an authority that may sign no certificates",
        below(usage=key_usage("digital_signature")),
        INVALID_CA,
    ),
    wrong("under one authority more than is allowed", too_long, PATH_TOO_LONG),
    wrong(
        "within the names permitted",
        below("feed.example", critical=[constraints(permitted=["example"])]),
        YES,
        server_name="feed.example",
    ),
    wrong(
        "outside the names permitted",
        below("feed.example", critical=[constraints(permitted=["example.com"])]),
        NOT_PERMITTED,
        server_name="feed.example",
    ),
    wrong(
        "a name excluded",
        below("feed.example", critical=[constraints(excluded=["feed.example"])]),
        EXCLUDED,
        server_name="feed.example",
    ),
    wrong(
        "within the addresses permitted",
        below(critical=[constraints(permitted=["127.0.0.0/8"])]),
        YES,
    ),
    wrong(
        "outside the addresses permitted",
        below(critical=[constraints(permitted=["10.0.0.0/8"])]),
        NOT_PERMITTED,
    ),
    wrong(
        "an address excluded",
        below(critical=[constraints(excluded=["127.0.0.1/32"])]),
        EXCLUDED,
    ),
    wrong(
        "a key for signing certificates only",
        leaf(usage=key_usage("key_cert_sign")),
        WRONG_PURPOSE,
    ),
    # RFC 8446, section 4.4.2.2, asks servers for digitalSignature. OpenSSL's client is content.
    wrong(
        "a key for key encipherment only",
        leaf("RSA", key="RSA 2048", usage=key_usage("key_encipherment")),
        YES,
    ),
    wrong("an unknown extension", leaf(extensions=[UNKNOWN_EXTENSION]), YES),
    wrong(
        "an unknown extension that is critical",
        leaf(critical=[UNKNOWN_EXTENSION]),
        UNKNOWN_CRITICAL,
    ),
    wrong(
        "under an intermediate with an unknown critical extension",
        below(critical=[UNKNOWN_EXTENSION]),
        UNKNOWN_CRITICAL,
    ),
    wrong("changed after it was signed", forged, BAD_SIGNATURE),
    wrong("under an intermediate changed after it was signed", forged_intermediate, BAD_SIGNATURE),
    wrong("signed with SHA-1", elder("sha1"), WEAK_DIGEST),
    wrong("signed with MD5", elder("md5"), WEAK_DIGEST),
    wrong("under an intermediate signed with SHA-1", elder_intermediate, WEAK_DIGEST),
    wrong("a key of RSA 1024", leaf("RSA", key="RSA 1024"), WEAK_KEY),
    wrong("under an intermediate with a key of RSA 1024", weak_ca, WEAK_CA_KEY),
    # What is not looked at, as in OpenSSL without further asking.
    wrong(
        "its revocation list cannot be had: none is fetched",
        leaf(extensions=[REVOCATION_LIST]),
        YES,
    ),
    wrong("OCSP stapling demanded: none is asked for", leaf(extensions=[MUST_STAPLE]), YES),
    wrong("with a policy", leaf(extensions=[POLICY]), YES),
    wrong("a policy demanded, and none there: not looked at", below(critical=[WANTS_POLICY]), YES),
]

SECTIONS = {
    "Keys and chains": KEYS_AND_CHAINS,
    "Names": NAMES,
    "Certificates": WRONG,
}
