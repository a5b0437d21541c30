"""TLS with certificates that are made at the start and trusted by nobody else."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trustme

from .options import Options

_VERSIONS: Final = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}
_LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")


@contextlib.contextmanager
def make_tls(options: Options) -> Iterator[tuple[ssl.SSLContext, Path]]:
    """Yield the server's TLS settings and the file of the authority that its clients trust.

    A file that was not named in the options is removed in the end.
    """
    authority = trustme.CA()
    names = dict.fromkeys((*_LOCAL_NAMES, options.host))
    certificate = authority.issue_cert(
        *(name for name in names if name not in ("", "0.0.0.0", "::"))
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.max_version is not None:
        context.maximum_version = _VERSIONS[options.max_version]
    if options.ciphers is not None:
        context.set_ciphers(options.ciphers)
    certificate.configure_cert(context)

    if options.ca_file is not None:
        path = Path(options.ca_file).absolute()
        authority.cert_pem.write_to_path(str(path))
        yield context, path
        return
    descriptor, name = tempfile.mkstemp(prefix="hftws-exchange-", suffix=".pem")
    os.close(descriptor)
    path = Path(name)
    try:
        authority.cert_pem.write_to_path(name)
        yield context, path
    finally:
        path.unlink(missing_ok=True)
