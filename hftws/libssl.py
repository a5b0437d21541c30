"""The choice of the TLS library: OpenSSL 1.1.1 or later, or LibreSSL 3.9 or later."""

from __future__ import annotations

from hftws import _core
from hftws.client import FilePath, file_path

__all__ = ["use_libssl"]


def use_libssl(path: FilePath) -> None:
    """Loads the libssl at ``path``; every connection of this process uses it from now on.

    Without this call, hftws uses the library that the environment variable ``HFTWS_LIBSSL`` names,
    or else the one of Python's own ``ssl`` module, or else the system's. A library that was named
    is never replaced by another. ``Client.info()`` tells which one is in use: ``tls_library`` and
    ``tls_library_file``. On macOS the path has to be absolute, and not of Apple's library.

    Call it before the first :class:`~hftws.Client` or :func:`~hftws.get`. If the library needs
    another ``libcrypto.so.3`` than the one that Python itself loads, call it also before anything
    imports ``ssl`` or ``hashlib``, or start Python with ``LD_LIBRARY_PATH``.

    :raises RuntimeError: when another library is in use already, or was linked in.
    :raises TLSError: when the file cannot be loaded, is too old, or lacks a function.
    """
    file = file_path("the path of use_libssl()", path)
    if file is None:
        raise TypeError("the path of use_libssl() has to be a str, bytes or os.PathLike, not None")
    _core.use_libssl(file)
