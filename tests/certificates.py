"""Certificates, right ones and ones that are wrong in one way.

An :class:`Issuer` is a certificate with its key. :meth:`Issuer.issue` makes another one under it;
what is not given is as it should be for a server (RFC 5280). Keys are made once in a process, one
of each kind for each purpose: RSA's take long.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import ipaddress
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)

SERVER, CLIENT = x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH

#: An extension that nobody knows, in the arc for examples.
UNKNOWN_EXTENSION = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.1"), b"\5\0")

_CURVES = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
_serial_numbers = itertools.count(1000)


@functools.cache
def private_key(kind: str, purpose: str) -> Any:
    """A private key of a ``kind`` such as "P-256", "RSA 2048" or "Ed25519"."""
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("RSA"):
        return rsa.generate_private_key(65537, int(kind.split()[1]))
    return ec.generate_private_key(_CURVES[kind]())


def general_names(names: Iterable[str]) -> list[x509.GeneralName]:
    """An IP address if the text is one, otherwise a DNS name."""
    result: list[x509.GeneralName] = []
    for name in names:
        try:
            result.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            result.append(x509.DNSName(name))
    return result


def key_usage(*names: str) -> x509.KeyUsage:
    """A key usage with exactly these bits (RFC 5280, section 4.2.1.3)."""
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    assert set(names) <= set(every.split())
    return x509.KeyUsage(**{name: name in names for name in every.split()})


def constraints(
    *, permitted: Iterable[str] = (), excluded: Iterable[str] = ()
) -> x509.NameConstraints:
    """Names, and networks such as "10.0.0.0/8" (RFC 5280, section 4.2.1.10)."""

    def subtrees(names: Iterable[str]) -> list[x509.GeneralName] | None:
        found: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_network(name)) if "/" in name else x509.DNSName(name)
            for name in names
        ]
        return found or None

    return x509.NameConstraints(subtrees(permitted), subtrees(excluded))


@dataclass(frozen=True)
class Issuer:
    """A certificate, its key, and what it was issued by; None for a root."""

    certificate: x509.Certificate
    key: Any
    parent: Issuer | None = None

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @property
    def chain(self) -> list[Issuer]:
        """The chain up to the root, but without it: what a server shows."""
        return [self, *self.parent.chain] if self.parent is not None else []

    def issue(self, *names: str, key: str = "P-256", **options: Any) -> Issuer:
        """A certificate for a server. The options are those of :func:`make`."""
        return make(self, names, key=key, **options)

    def intermediate(self, common_name: str, key: str = "P-256", **options: Any) -> Issuer:
        """An authority under this one."""
        return make(self, (), key=key, common_name=common_name, authority=True, **options)


def root(common_name: str, key: str = "P-256", **options: Any) -> Issuer:
    """Signed by itself."""
    return make(None, (), key=key, common_name=common_name, authority=True, **options)


def make(
    issuer: Issuer | None,
    names: Iterable[str],
    *,
    key: str,
    common_name: str = "server",
    authority: bool = False,
    path_length: int | None = None,
    not_before: datetime.datetime = NOW - DAY,
    not_after: datetime.datetime = NOW + DAY,
    usage: x509.KeyUsage | None = None,
    purposes: Iterable[x509.ObjectIdentifier] | None = None,
    critical: Iterable[x509.ExtensionType] = (),
    extensions: Iterable[x509.ExtensionType] = (),
    pss: bool = False,
) -> Issuer:
    """A certificate with these ``names``. ``pss``: signed with RSASSA-PSS."""
    own_key = private_key(key, common_name)
    signer = own_key if issuer is None else issuer.key
    subject = _name(common_name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(own_key.public_key())
        .serial_number(next(_serial_numbers))
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(authority, path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own_key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
        )
    )
    if usage is None:
        usage = key_usage("key_cert_sign", "crl_sign") if authority else None
        usage = usage or key_usage("digital_signature", "key_encipherment")
    builder = builder.add_extension(usage, critical=True)
    if purposes is None and not authority:
        purposes = [SERVER]
    if purposes := list(purposes or ()):
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if names := list(names):
        builder = builder.add_extension(
            x509.SubjectAlternativeName(general_names(names)), critical=False
        )
    for extension in critical:
        builder = builder.add_extension(extension, critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    how = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size) if pss else None
    return Issuer(builder.sign(signer, _digest(signer), rsa_padding=how), own_key, issuer)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _digest(key: Any) -> Any:
    """The hash that is as strong as the key."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {384: hashes.SHA384(), 521: hashes.SHA512()}.get(key.curve.key_size, hashes.SHA256())
    return hashes.SHA256()


# ---- Signatures that nobody makes any more, or that are wrong. ---------------------------------

#: sha256WithRSAEncryption and its elders differ in the last byte of their names (RFC 8017).
_RSA_ALGORITHM = bytes.fromhex("06092a864886f70d0101")
_DIGEST_INFO = {
    "md5": (b"\x04", "3020300c06082a864886f70d020505000410"),
    "sha1": (b"\x05", "3021300906052b0e03021a05000414"),
}


def sign_again(subject: Issuer, digest: str) -> Issuer:
    """The same certificate, signed with RSA (PKCS #1 v1.5) and MD5 or SHA-1.

    Libraries refuse to do so, so it is done by hand: no size changes.
    """
    assert subject.parent is not None
    last_byte, prefix = _DIGEST_INFO[digest]
    old, new = _RSA_ALGORITHM + b"\x0b", _RSA_ALGORITHM + last_byte
    to_be_signed = subject.certificate.tbs_certificate_bytes.replace(old, new)
    info = bytes.fromhex(prefix) + hashlib.new(digest, to_be_signed).digest()
    numbers = subject.parent.key.private_numbers()
    modulus = numbers.public_numbers.n
    size = (modulus.bit_length() + 7) // 8
    encoded = b"\0\1" + b"\xff" * (size - 3 - len(info)) + b"\0" + info
    signature = pow(int.from_bytes(encoded, "big"), numbers.d, modulus).to_bytes(size, "big")
    der = subject.certificate.public_bytes(Encoding.DER).replace(old, new)
    assert der.endswith(subject.certificate.signature)
    der = der[:-size] + signature
    return Issuer(x509.load_der_x509_certificate(der), subject.key, subject.parent)


def forge(subject: Issuer) -> Issuer:
    """The same certificate with another serial number, and its old signature."""
    der = bytearray(subject.certificate.public_bytes(Encoding.DER))
    number = subject.certificate.serial_number.to_bytes(2, "big")
    place = der.index(b"\x02\x02" + number) + 3
    der[place] ^= 1
    return Issuer(x509.load_der_x509_certificate(bytes(der)), subject.key, subject.parent)
