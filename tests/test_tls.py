"""Which certificates, names, versions and ciphers are accepted, and how TLS ends."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from servers import PEER_TIMEOUT, TEXT, Peer, ScriptServer, Serve, has_ipv6

import hftws

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no ::1 on this machine")
BOTH_FAMILIES = ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)]

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)

#: The user nobody.
NOBODY = 65534

#: X509_V_ERR_* of OpenSSL.
SELF_SIGNED, NO_ISSUER, NOT_YET_VALID, EXPIRED, WRONG_HOST, WRONG_ADDRESS = 18, 20, 9, 10, 62, 64


def greet(peer: Peer) -> None:
    """Opens, says hello, and closes in the ordinary way."""
    peer.accept_upgrade()
    peer.send_text("hello")
    peer.close_handshake()


def context_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """A server that shows this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def hello_from(server: ScriptServer, **options: Any) -> None:
    """Connects, and receives what `greet` sends."""
    received: list[bytes] = []
    client = server.client(lambda msg: received.append(bytes(msg)), **options)
    client.connect()
    client.run()
    assert received == [b"hello"]


def raw_send(peer: Peer, data: bytes) -> None:
    """Sends bytes below TLS."""
    socket.socket.sendall(peer.sock, data)


# ---- Certificates. -----------------------------------------------------------------------------


def expired(ca: trustme.CA) -> trustme.LeafCert:
    return ca.issue_cert("127.0.0.1", not_before=NOW - 2 * DAY, not_after=NOW - DAY)


def not_yet_valid(ca: trustme.CA) -> trustme.LeafCert:
    return ca.issue_cert("127.0.0.1", not_before=NOW + DAY, not_after=NOW + 2 * DAY)


def another_host(ca: trustme.CA) -> trustme.LeafCert:
    return ca.issue_cert("feed.example", "localhost", "127.0.0.2")


def another_issuer(ca: trustme.CA) -> trustme.LeafCert:
    return trustme.CA().issue_cert("127.0.0.1")


BAD_CERTIFICATES = [
    (expired, EXPIRED, "expired"),
    (not_yet_valid, NOT_YET_VALID, "not yet valid"),
    (another_host, WRONG_ADDRESS, "IP address mismatch"),
    (another_issuer, NO_ISSUER, "unable to get local issuer"),
]


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize(
    ("issue", "code", "reason"), BAD_CERTIFICATES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_certificate_that_proves_nothing_is_refused(
    serve: Serve,
    ca: trustme.CA,
    issue: Callable[[trustme.CA], trustme.LeafCert],
    code: int,
    reason: str,
    version: str,
) -> None:
    """It fails before any of the request is sent; verify=False accepts the certificate."""
    context = context_of(issue(ca))
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with serve([greet], tls_context=context) as server:
        client = server.client()
        with pytest.raises(hftws.TLSError, match="certificate verify failed") as caught:
            client.connect()
        assert caught.value.reason == "certificate verify failed"
        assert caught.value.verify_code == code
        assert reason in caught.value.verify_reason
        assert caught.value.verify_reason in str(caught.value)
        assert not client.is_open
    assert len(server.tls_errors) == 1, "the server was told, and no script played"

    with serve(greet, tls_context=context) as server:
        hello_from(server, verify=False)


def test_a_self_signed_certificate_is_refused_unless_it_is_the_root(
    serve: Serve, tmp_path: Path
) -> None:
    own = trustme.CA()
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    own.cert_pem.write_to_path(tmp_path / "cert.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with serve(greet, tls_context=context) as server:
        with pytest.raises(hftws.TLSError) as caught:
            server.client().connect()
        assert caught.value.verify_code == SELF_SIGNED
        assert "self" in caught.value.verify_reason
        # It is trusted, but still valid for no host.
        with pytest.raises(hftws.TLSError) as caught:
            server.client(ca_file=tmp_path / "cert.pem").connect()
        assert caught.value.reason == "certificate verify failed"
        hello_from(server, verify=False)


def test_roots_named_in_the_environment_are_the_systems(
    serve: Serve, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE and SSL_CERT_DIR: as for every program that uses OpenSSL."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    with serve(greet, tls=True) as server:
        hello_from(server, ca_file=None)


@pytest.mark.parametrize("directory", ["missing", "empty"])
def test_certifi_helps_where_the_system_has_no_roots(
    serve: Serve,
    ca_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    directory: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / directory))
    monkeypatch.setattr(certifi, "where", lambda: str(ca_file))
    with serve(greet, tls=True) as server:
        hello_from(server, ca_file=None)


def add_root(directory: Path, ca: trustme.CA) -> None:
    """Puts a root where OpenSSL looks for it: under the hash of its name, in lower case."""
    name = x509.load_pem_x509_certificate(ca.cert_pem.bytes()).subject
    canonical = x509.Name(
        [x509.NameAttribute(part.oid, str(part.value).lower()) for part in name]
    ).public_bytes()
    header = 2 if canonical[1] < 0x80 else 2 + (canonical[1] & 0x7F)
    digest = hashlib.sha1(canonical[header:], usedforsecurity=False).digest()
    directory.mkdir()
    ca.cert_pem.write_to_path(directory / f"{int.from_bytes(digest[:4], 'little'):08x}.0")


@pytest.mark.parametrize("first", ["missing", "empty", ""])
def test_directories_of_roots_named_in_the_environment_are_the_systems(
    serve: Serve,
    ca: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
) -> None:
    """SSL_CERT_DIR is a list: certifi's roots would replace those that the user asked for."""
    (tmp_path / "empty").mkdir()
    add_root(tmp_path / "roots", ca)
    directories = [str(tmp_path / first) if first else "", str(tmp_path / "roots")]
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", os.pathsep.join(directories))
    with serve(greet, tls=True) as server:
        hello_from(server, ca_file=None)


@pytest.mark.parametrize("directories", ["", os.pathsep, f"missing{os.pathsep}empty"])
def test_certifi_helps_where_no_directory_has_roots(
    serve: Serve,
    ca_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    directories: str,
) -> None:
    """An empty name in the list counts as none, and not as the current directory."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", "")
    monkeypatch.setenv("SSL_CERT_DIR", directories)
    monkeypatch.setattr(certifi, "where", lambda: str(ca_file))
    with serve(greet, tls=True) as server:
        hello_from(server, ca_file=None)


@contextlib.contextmanager
def rights_withdrawn(path: Path, mode: int) -> Iterator[None]:
    """Only root could still read it, so a process of root becomes another user meanwhile."""
    hftws.Client("wss://localhost/", ca_file=certifi.where())  # Loads libraries while it may.
    path.chmod(mode)
    user = os.geteuid()
    try:
        os.seteuid(NOBODY if user == 0 else user)
    except OSError as error:
        pytest.skip(f"this root cannot be somebody else for a while: {error}")
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(0o755)


@pytest.fixture
def open_to_all(ca: trustme.CA) -> Iterator[Path]:
    """A folder that every user may enter, which those of ``tmp_path`` are not."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        add_root(path / "roots", ca)
        ca.cert_pem.write_to_path(path / "roots" / "root.pem")
        ca.cert_pem.write_to_path(path / "trusted.pem")
        yield path


@pytest.mark.parametrize("file", ["missing.pem", "roots/root.pem"])
def test_roots_that_may_not_be_read_are_not_there(
    serve: Serve, open_to_all: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """They are skipped, as OpenSSL does: the constructor raises no PermissionError."""
    roots = open_to_all / "roots"
    monkeypatch.setenv("SSL_CERT_FILE", str(open_to_all / file))
    monkeypatch.setenv("SSL_CERT_DIR", str(roots))
    monkeypatch.setattr(certifi, "where", lambda: str(open_to_all / "trusted.pem"))
    with serve(greet, tls=True) as server, rights_withdrawn(roots, 0):
        hello_from(server, ca_file=None)


def test_roots_that_may_be_opened_but_not_listed_are_the_systems(
    serve: Serve, open_to_all: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL never lists them: it opens what has the hash of the issuer for its name."""
    roots = open_to_all / "roots"
    monkeypatch.setenv("SSL_CERT_FILE", str(open_to_all / "missing.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(roots))
    with serve(greet, tls=True) as server, rights_withdrawn(roots, 0o111):
        hello_from(server, ca_file=None)


def test_a_file_of_roots_that_may_not_be_read_is_not_there(
    serve: Serve, open_to_all: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = open_to_all / "roots" / "root.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(secret))
    monkeypatch.setenv("SSL_CERT_DIR", "")
    monkeypatch.setattr(certifi, "where", lambda: str(open_to_all / "trusted.pem"))
    with serve(greet, tls=True) as server, rights_withdrawn(secret, 0):
        hello_from(server, ca_file=None)


def test_without_a_ca_file_the_systems_roots_decide(serve: Serve) -> None:
    """The system's roots do not have the issuer of the tests."""
    with serve(greet, tls=True) as server:
        with pytest.raises(hftws.TLSError, match="certificate verify failed"):
            server.client(ca_file=None).connect()


@pytest.mark.parametrize("host", BOTH_FAMILIES)
def test_an_address_in_the_certificate_is_compared(serve: Serve, ca: trustme.CA, host: str) -> None:
    good = context_of(ca.issue_cert(host))
    with serve(greet, tls_context=good, host=host) as server:
        hello_from(server)
    # A name that looks like the address is not the address.
    other = context_of(ca.issue_cert("127.0.0.9", "::9", "localhost", common_name=host))
    with serve(greet, tls_context=other, host=host) as server:
        with pytest.raises(hftws.TLSError) as caught:
            server.client().connect()
        assert caught.value.verify_code == WRONG_ADDRESS


@pytest.mark.parametrize(
    ("names", "server_name", "trusted"),
    [
        (["feed.example"], "feed.example", True),
        (["feed.example"], "FEED.example", True),
        (["feed.example"], "feed.example.", True),
        (["other.example", "feed.example"], "feed.example", True),
        (["feed.example"], "other.example", False),
        (["feed.example"], "feed.example.org", False),
        (["feed.example"], "example", False),
        (["*.example.com"], "feed.example.com", True),
        (["*.example.com"], "example.com", False),
        (["*.example.com"], "a.feed.example.com", False),
        (["127.0.0.1"], "localhost", False),
        (["127.0.0.2"], "127.0.0.2", True),
        (["feed.example"], "127.0.0.1", False),
    ],
)
def test_the_server_name_is_the_one_in_the_certificate(
    serve: Serve, ca: trustme.CA, names: list[str], server_name: str, trusted: bool
) -> None:
    """The name counts, and not the host of the URL, which is 127.0.0.1 here."""
    with serve(greet, tls_context=context_of(ca.issue_cert(*names))) as server:
        if trusted:
            hello_from(server, server_name=server_name)
            return
        with pytest.raises(hftws.TLSError) as caught:
            server.client(server_name=server_name).connect()
        assert caught.value.verify_code in (WRONG_HOST, WRONG_ADDRESS)
        assert "mismatch" in caught.value.verify_reason


@pytest.mark.parametrize(
    ("url_host", "server_name", "sent"),
    [
        ("localhost", None, "localhost"),
        ("127.0.0.1", None, None),
        ("127.0.0.1", "feed.example", "feed.example"),
        ("localhost", "feed.example", "feed.example"),
        ("localhost", "feed.example.", "feed.example"),
        ("localhost", "127.0.0.1", None),
    ],
)
def test_a_name_is_sent_to_the_server_and_an_address_never(
    serve: Serve, ca: trustme.CA, url_host: str, server_name: str | None, sent: str | None
) -> None:
    """RFC 6066, section 3."""
    context = context_of(ca.issue_cert("feed.example", "localhost", "127.0.0.1"))
    names: list[str | None] = []
    context.sni_callback = lambda sock, name, context: names.append(name)
    with serve(greet, tls_context=context) as server:
        hello_from(server, url=f"wss://{url_host}:{server.port}/", server_name=server_name)
    assert names == [sent]


def test_the_host_header_is_that_of_the_url(serve: Serve, ca: trustme.CA) -> None:
    """The server name is for TLS only."""
    hosts: list[str | None] = []

    def script(peer: Peer) -> None:
        hosts.append(peer.accept_upgrade().header("Host"))
        peer.close_handshake()

    with serve(script, tls_context=context_of(ca.issue_cert("feed.example"))) as server:
        client = server.client(server_name="feed.example")
        client.connect()
        client.run()
        assert hosts == [server.authority]


@pytest.mark.parametrize("names", [[], ["127.0.0.1"]], ids=["no name", "an address"])
def test_the_common_name_is_no_name(serve: Serve, ca: trustme.CA, names: list[str]) -> None:
    """RFC 9525, section 2. By default, OpenSSL accepts it where there is no DNS name."""
    certificate = ca.issue_cert(*names, common_name="feed.example")
    with serve([], tls_context=context_of(certificate)) as server:
        with pytest.raises(hftws.TLSError) as caught:
            server.client(server_name="feed.example").connect()
        assert caught.value.verify_code == WRONG_HOST


@pytest.mark.parametrize(
    "server_name",
    [
        *["", ".", ".feed.example", "feed.example\x00.evil", "a" * 300, "a" * 64 + ".example"],
        *["exa mple", "[::1]", "[127.0.0.1]", "ä.de", "feed..example", "feed.example:443"],
        *["feed/example", "*.example", "user@feed.example", "feed.example..", "127.1", "\n", "%"],
    ],
)
def test_a_server_name_that_cannot_be_is_refused(server_name: str) -> None:
    """With an empty one, OpenSSL would compare no name at all; with a dot in front, any below."""
    with pytest.raises(ValueError):
        hftws.Client("wss://127.0.0.1:1/", server_name=server_name)


@pytest.mark.parametrize(
    "server_name",
    ["feed", "feed.example.", "xn--4ca.de", "_feed.EXAMPLE", "a-1.example", "127.0.0.1", "::1"],
)
def test_names_and_addresses_are_server_names(server_name: str) -> None:
    hftws.Client("wss://127.0.0.1:1/", server_name=server_name)


@pytest.mark.parametrize("kind", [trustme.KeyType.ECDSA, trustme.KeyType.RSA])
def test_both_kinds_of_keys_are_taken(serve: Serve, ca: trustme.CA, kind: trustme.KeyType) -> None:
    certificate = ca.issue_cert("127.0.0.1", key_type=kind)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = context_of(certificate)
        context.minimum_version = context.maximum_version = version
        with serve(greet, tls_context=context) as server:
            hello_from(server)


def test_an_intermediate_certificate_is_followed_to_the_root(serve: Serve, ca: trustme.CA) -> None:
    with serve(greet, tls_context=context_of(ca.create_child_ca().issue_cert("127.0.0.1"))) as s:
        hello_from(s)


# ---- Our own files. ----------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, "", "no certificate", b"\x30\x82\x00\x01\xff"])
def test_a_ca_file_that_cannot_be_used_is_told_at_once(
    tmp_path: Path, content: str | bytes | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    for path in (file, str(file)):
        with pytest.raises(hftws.TLSError, match="ca_file") as caught:
            hftws.Client("wss://127.0.0.1:1/", ca_file=path)
        assert caught.value.reason not in ("", "unknown cause")
        if content is None:  # In OpenSSL's words, or in those of libc.
            assert caught.value.reason.lower() == "no such file or directory"
        with pytest.raises(hftws.TLSError, match="ca_file"):
            hftws.get("https://127.0.0.1:1/", ca_file=path)


@pytest.fixture
def own_files(ca: trustme.CA, tmp_path: Path) -> dict[str, Path]:
    """A client's certificate with its key, apart and in one file; and another key."""
    own = ca.issue_cert(common_name="trader")
    other = ca.issue_cert(common_name="other")
    files = {name: tmp_path / f"{name}.pem" for name in ("cert", "key", "both", "other_key")}
    for blob in own.cert_chain_pems:
        blob.write_to_path(files["cert"], append=True)
    own.private_key_pem.write_to_path(files["key"])
    own.private_key_and_cert_chain_pem.write_to_path(files["both"])
    other.private_key_pem.write_to_path(files["other_key"])
    return files


@pytest.mark.parametrize(
    ("cert", "key", "blamed"),
    [
        ("missing", "key", "cert_file"),
        ("key", "key", "cert_file"),
        ("cert", "missing", "key_file"),
        ("cert", "cert", "key_file"),
        ("cert", None, "key_file"),
        ("cert", "other_key", "key_file"),
    ],
)
def test_a_certificate_or_key_that_cannot_be_used_is_told_at_once(
    own_files: dict[str, Path], tmp_path: Path, cert: str, key: str | None, blamed: str
) -> None:
    missing = tmp_path / "missing.pem"
    cert_file = own_files.get(cert, missing)
    key_file = None if key is None else own_files.get(key, missing)
    with pytest.raises(hftws.TLSError, match=blamed):
        hftws.Client("wss://127.0.0.1:1/", cert_file=cert_file, key_file=key_file)


def test_an_encrypted_key_is_refused_rather_than_asked_for_on_the_terminal(
    own_files: dict[str, Path],
) -> None:
    """By default, OpenSSL prompts for the password, and a service would never start."""
    key = load_pem_private_key(own_files["key"].read_bytes(), password=None)
    encrypted = own_files["key"].with_name("encrypted.pem")
    encrypted.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(hftws.TLSError, match="key_file"):
        hftws.Client("wss://127.0.0.1:1/", cert_file=own_files["cert"], key_file=encrypted)


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def demanding(request: pytest.FixtureRequest, ca: trustme.CA) -> ssl.SSLContext:
    """A server that asks for a certificate."""
    context = context_of(ca.issue_cert("127.0.0.1"))
    context.minimum_version = context.maximum_version = ssl.TLSVersion[request.param]
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    return context


@pytest.mark.parametrize(("cert", "key"), [("cert", "key"), ("both", None), ("both", "both")])
def test_the_client_shows_its_certificate(
    serve: Serve,
    demanding: ssl.SSLContext,
    own_files: dict[str, Path],
    cert: str,
    key: str | None,
) -> None:
    subjects: list[Any] = []

    def script(peer: Peer) -> None:
        assert isinstance(peer.sock, ssl.SSLSocket)
        certificate = peer.sock.getpeercert()
        assert certificate is not None
        subjects.append(certificate["subject"])
        greet(peer)

    options = {"cert_file": own_files[cert], "key_file": own_files[key] if key else None}
    with serve(script, tls_context=demanding) as server:
        hello_from(server, **options)
        assert (("commonName", "trader"),) in subjects[0]


def test_a_server_that_wants_a_certificate_says_so(serve: Serve, demanding: ssl.SSLContext) -> None:
    """With TLS 1.3 its alert comes when our side of the handshake is done."""
    with serve([], tls_context=demanding) as server:
        with pytest.raises(hftws.TLSError) as caught:
            server.client().connect()
    assert "alert" in caught.value.reason
    assert len(server.tls_errors) == 1


# ---- Versions and ciphers. ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "name", "cipher"),
    [("TLSv1_2", "TLSv1.2", "ECDHE"), ("TLSv1_3", "TLSv1.3", "TLS_")],
)
def test_tls_1_2_and_1_3(
    serve: Serve, ca: trustme.CA, version: str, name: str, cipher: str
) -> None:
    context = context_of(ca.issue_cert("127.0.0.1"))
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    chosen: list[Any] = []

    def script(peer: Peer) -> None:
        assert isinstance(peer.sock, ssl.SSLSocket)
        chosen.append(peer.sock.cipher())
        peer.accept_upgrade()
        peer.expect_frame(TEXT, b"to the server")
        peer.send_text("hello")
        peer.answer_close()

    with serve(script, tls_context=context) as server, server.client() as client:
        client.send("to the server")
        assert client.poll(PEER_TIMEOUT) == 1
        info = client.info()
    assert info["tls_version"] == name
    assert info["cipher"] == chosen[0][0]
    assert info["cipher"].startswith(cipher)


def test_the_first_cipher_offered_is_aes_128_gcm(serve: Serve, ca: trustme.CA) -> None:
    """The cheapest record on every CPU with AES instructions."""
    context = context_of(ca.issue_cert("127.0.0.1"))
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    for version, cipher in (
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256"),
        (ssl.TLSVersion.TLSv1_3, "TLS_AES_128_GCM_SHA256"),
    ):
        context.minimum_version, context.maximum_version = version, version
        with serve(lambda peer: (peer.accept_upgrade(), peer.answer_close())) as server:
            server.tls_context = context
            with server.client(verify=False) as client:
                assert client.info()["cipher"] == cipher


@pytest.mark.parametrize(
    "cipher", ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"]
)
def test_every_aead_of_tls_1_2_works(serve: Serve, ca: trustme.CA, cipher: str) -> None:
    context = context_of(ca.issue_cert("127.0.0.1"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(cipher)
    with serve(greet, tls_context=context) as server:
        hello_from(server)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_server_that_only_speaks_an_old_tls_is_refused(serve: Serve, ca: trustme.CA) -> None:
    context = context_of(ca.issue_cert("127.0.0.1"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with serve([], tls_context=context) as server:
        with pytest.raises(hftws.TLSError):
            server.client().connect()


def test_the_handshake_may_come_byte_by_byte(serve: Serve, tls_context: ssl.SSLContext) -> None:
    """Every record after it may, too."""

    def script(peer: Peer) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = tls_context.wrap_bio(incoming, outgoing, server_side=True)

        def pump(step: Callable[[], Any]) -> Any:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    peer.send_each(outgoing.read())
                    data = peer.recv_some()
                    if not data:
                        raise EOFError("the client hung up") from None
                    incoming.write(data)
                finally:
                    peer.send_each(outgoing.read())

        pump(session.do_handshake)
        text = b""
        while b"\r\n\r\n" not in text:
            text += pump(lambda: session.read(65536))
        inner = Peer(peer.sock, peer.server)
        inner._ahead = text
        inner.read_request()
        pump(lambda: session.write(inner.upgrade_response()))
        pump(lambda: session.write(b"\x81\x05hello"))
        pump(lambda: session.write(b"\x88\x02\x03\xe8"))
        peer.recv_some()

    with serve(script) as server:
        hello_from(server, url=server.url("/", "wss"), verify=False)


# ---- Not TLS, or not any more. -----------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00" * 64,
        b"\x16\x03\x03\xff\xff" + b"\x00" * 70000,
    ],
    ids=["HTTP", "SSH", "zeroes", "a record too long"],
)
def test_what_is_not_tls_is_refused_at_once(serve: Serve, answer: bytes) -> None:
    """Such as plain HTTP on the port."""

    def script(peer: Peer) -> None:
        assert peer.recv_some()
        with contextlib.suppress(ConnectionError):
            peer.send(answer)
        peer.recv_all()

    with serve(script) as server:
        with pytest.raises(hftws.TLSError) as caught:
            server.client(url=server.url("/", "wss")).connect()
        assert caught.value.reason
        assert caught.value.verify_code == 0
        assert caught.value.verify_reason == ""
    if answer.startswith((b"HTTP", b"SSH")):
        assert "does the server speak TLS" in str(caught.value)


def test_a_plain_client_on_a_tls_port_is_told_what_is_wrong(serve: Serve) -> None:
    with serve([], tls=True) as server:
        with pytest.raises(hftws.HandshakeError) as caught:
            server.client(url=server.url("/", "ws")).connect()
        assert caught.value.status is None
    assert len(server.tls_errors) == 1


@pytest.mark.parametrize(
    ("description", "name"),
    [(40, "handshake_failure"), (70, "protocol_version"), (200, "one without a name")],
)
def test_an_alert_in_the_handshake_says_why(serve: Serve, description: int, name: str) -> None:
    """An alert is named as in RFC 8446, section 6; OpenSSL's words vary with its version."""

    def script(peer: Peer) -> None:
        assert peer.recv_some()
        peer.send(b"\x15\x03\x03\x00\x02\x02" + bytes([description]))
        peer.recv_all()

    with serve(script) as server:
        with pytest.raises(hftws.TLSError) as caught:
            server.client(url=server.url("/", "wss")).connect()
        assert caught.value.reason == f"alert from the peer: {name}"


@pytest.mark.parametrize("when", ["upgrade", "open"])
@pytest.mark.parametrize(
    "record",
    [
        b"\x17\x03\x03\x00\x20" + b"\x00" * 32,
        b"\x17\x03\x03\xff\xff" + b"\x00" * 64,
        b"\x63\x03\x03\x00\x02\x00\x00",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
    ids=["forged", "too long", "unknown type", "plain text"],
)
def test_a_bad_record_ends_the_connection(serve: Serve, when: str, record: bytes) -> None:
    """What came before the record is delivered, it and what follows are not."""

    def script(peer: Peer) -> None:
        if when == "open":
            peer.accept_upgrade()
            peer.send_text("good")
            peer.expect_frame(TEXT, b"got it")
        else:
            peer.read_request()
        raw_send(peer, record)
        with contextlib.suppress(OSError):
            peer.send_text("after")
        with contextlib.suppress(OSError):
            peer.recv_all()

    received: list[bytes] = []
    closes: list[int] = []

    def on_msg(msg: hftws.Message) -> None:
        received.append(bytes(msg))
        client.send("got it")

    with serve(script, tls=True) as server:
        client = server.client(on_msg, on_close=lambda _, code, reason: closes.append(code))
        with pytest.raises(hftws.TLSError) as caught:
            client.connect()
            client.run()
        assert caught.value.reason
        assert not client.is_open
    assert received == ([b"good"] if when == "open" else [])
    assert closes == ([1006] if when == "open" else [])


def test_the_peer_is_told_why_a_record_was_refused(serve: Serve) -> None:
    """With an alert: bad_record_mac."""
    alerts: list[str] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        raw_send(peer, b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        with pytest.raises(ssl.SSLError) as caught:
            peer.sock.recv(100)
        alerts.append(caught.value.reason)

    with serve(script, tls=True) as server:
        client = server.client()
        client.connect()
        with pytest.raises(hftws.TLSError):
            client.run()
    assert "BAD_RECORD_MAC" in alerts[0]


# ---- The end of TLS. ---------------------------------------------------------------------------


def test_close_notify_and_a_cut_are_told_apart(serve: Serve) -> None:
    """Neither end is an ordinary one for a WebSocket."""

    def notify(peer: Peer) -> None:
        peer.accept_upgrade()
        with contextlib.suppress(OSError):
            peer.end_tls()

    def cut(peer: Peer) -> None:
        peer.accept_upgrade()
        peer.shut_send_side()
        peer.recv_all()

    reasons = []
    with serve([notify, cut], tls=True) as server:
        client = server.client()
        for _ in range(2):
            client.connect()
            with pytest.raises(hftws.ConnectionClosed) as caught:
                client.run()
            assert caught.value.code == 1006
            reasons.append(caught.value.reason)
    assert "TLS" in reasons[0]
    assert "TCP" in reasons[1]


def test_close_notify_before_there_is_an_answer(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        with contextlib.suppress(OSError):
            peer.end_tls()

    with serve(script, tls=True) as server:
        with pytest.raises(hftws.HandshakeError, match="TLS"):
            server.client().connect()


@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_the_client_says_close_notify_after_the_closing_handshake(
    serve: Serve, ca: trustme.CA, version: str, first: str
) -> None:
    """Otherwise the server could take the end for a truncation."""
    context = context_of(ca.issue_cert("127.0.0.1"))
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    rest: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.accept_upgrade()
        if first == "server":
            peer.send_close(1000)
            peer.expect_close(1000)
        else:
            peer.expect_close(1000)
            peer.send_close(1000)
        rest.append(peer.sock.recv(100))  # A cut would raise SSLEOFError.

    with serve(script, tls_context=context) as server:
        client = server.client()
        client.connect()
        if first == "server":
            client.run()
        else:
            client.close()
    assert rest == [b""]


@pytest.mark.parametrize("tickets", [0, 1, 5])
def test_session_tickets_do_no_harm(serve: Serve, ca: trustme.CA, tickets: int) -> None:
    """They come after the handshake, between it and the response."""
    context = context_of(ca.issue_cert("127.0.0.1"))
    context.num_tickets = tickets
    with serve(greet, tls_context=context) as server:
        client = server.client()
        for _ in range(2):
            client.connect()
            client.run()
            assert client.close_code == 1000


@pytest.mark.parametrize("engine", ["auto", "openssl"])
@pytest.mark.parametrize("when", ["upgrade", "open"])
def test_after_the_handshake_nobody_asks_whether_the_server_speaks_tls(
    serve: Serve, engine: str, when: str
) -> None:
    """It did; plain text in the middle of a connection is something else."""

    def script(peer: Peer) -> None:
        if when == "open":
            peer.accept_upgrade()
        else:
            peer.read_request()
        raw_send(peer, b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            peer.recv_all()

    with serve(script, tls=True) as server:
        client = server.client(tls=engine)
        with pytest.raises(hftws.TLSError, match="a TLS record is bad") as caught:
            client.connect()
            client.run()
    assert "speak TLS" not in str(caught.value)


def test_a_fatal_alert_within_a_handshake_of_tls_1_2_is_not_waited_out(
    serve: Serve, ca: trustme.CA, ca_file: Path
) -> None:
    """A server that wants a certificate says so, and leaves it to the client to hang up."""
    context = context_of(ca.issue_cert("127.0.0.1"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)

    def script(peer: Peer) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = context.wrap_bio(incoming, outgoing, server_side=True)
        refused = False
        while not refused:
            incoming.write(peer.recv_some())
            try:
                session.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                refused = True
            peer.send(outgoing.read())
        peer.recv_all()

    with serve(script) as server:
        client = server.client(url=server.url("/", "wss"), ca_file=ca_file)
        with pytest.raises(hftws.TLSError, match="alert from the peer: handshake_failure"):
            client.connect()
