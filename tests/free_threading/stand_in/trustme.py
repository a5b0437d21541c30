"""Stands in for trustme: the few calls that the tests make, by the ``openssl`` command.

trustme needs cryptography, which cannot be installed for every free-threaded CPython. This module
stands in for it there, and only there: it is on the path of `python -m tests.free_threading`.
"""

from __future__ import annotations

import atexit
import ipaddress
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

__all__ = ["CA"]


class Blob:
    """A piece of PEM."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def bytes(self) -> bytes:
        """The whole PEM."""
        return self._data

    def write_to_path(self, path: Path | str, append: bool = False) -> None:
        """Writes it to a file, or appends it."""
        with Path(path).open("ab" if append else "wb") as file:
            file.write(self._data)


class LeafCert:
    """A certificate with its key."""

    def __init__(self, key: bytes, certificate: bytes) -> None:
        self.private_key_pem = Blob(key)
        self.cert_chain_pems = [Blob(certificate)]
        self.private_key_and_cert_chain_pem = Blob(key + certificate)

    def configure_cert(self, context: ssl.SSLContext) -> None:
        """Configures a context for a server, or for a client that has a certificate."""
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(self.private_key_and_cert_chain_pem.bytes())
            file.flush()
            context.load_cert_chain(file.name)


class CA:
    """A new certificate authority, and its certificates: P-256, valid for a day."""

    def __init__(self) -> None:
        self._path = Path(tempfile.mkdtemp(prefix="hftws-ca-"))
        atexit.register(shutil.rmtree, self._path)
        usage = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
        self._request("ca", "test authority", usage)
        self.cert_pem = Blob((self._path / "ca.pem").read_bytes())

    def configure_trust(self, context: ssl.SSLContext) -> None:
        """Makes a context trust the certificates of this authority."""
        context.load_verify_locations(cadata=self.cert_pem.bytes().decode())

    def issue_cert(self, *identities: str, common_name: str | None = None) -> LeafCert:
        """Issues a certificate for hosts, addresses, or an e-mail address."""
        usage = [
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature,keyEncipherment",
            "extendedKeyUsage=serverAuth,clientAuth",
        ]
        if identities:
            usage.append("subjectAltName=" + ",".join(map(_general_name, identities)))
        issuer = ["-CA", str(self._path / "ca.pem"), "-CAkey", str(self._path / "ca.key")]
        self._request("leaf", common_name or "test", usage, *issuer)
        key, certificate = (self._path / f"leaf.{end}" for end in ("key", "pem"))
        return LeafCert(key.read_bytes(), certificate.read_bytes())

    def _request(self, name: str, common_name: str, extensions: list[str], *issuer: str) -> None:
        command = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "1", "-subj", f"/O=hftws/CN={common_name}", *issuer,
            "-keyout", str(self._path / f"{name}.key"), "-out", str(self._path / f"{name}.pem"),
        ]  # fmt: skip
        for extension in extensions:
            command += ["-addext", extension]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


def _general_name(identity: str) -> str:
    if "@" in identity:
        return f"email:{identity}"
    try:
        ipaddress.ip_address(identity)
    except ValueError:
        return f"DNS:{identity}"
    return f"IP:{identity}"
