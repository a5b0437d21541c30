"""Provides other TLS libraries than the machine's own: fakes that play them, and Debian's.

:func:`build_fake` compiles a library that forwards to the machine's and plays LibreSSL or OpenSSL
1.1.1. :func:`debian_packages` unpacks a library of another Debian release into ``build/debian``;
nothing is installed. What cannot be fetched is a skipped test, with the reason.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from release import debian

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "tests" / "fake_libssl"
CACHE = ROOT / "build" / "debian"

#: Seconds for a compiler, which first compiles parts of itself.
PATIENCE = 120

#: Functions that fake.c defines itself, by the macro that switches them on.
ALWAYS_OWN = {"OpenSSL_version", "OpenSSL_version_num"}
LEGACY_ERRORS_OWN = {"ERR_peek_error", "ERR_peek_last_error", "ERR_reason_error_string"}
LIBRESSL_OWN = {
    "SSL_CTX_set_keylog_callback",
    "SSL_CTX_set_info_callback",
    "SSL_CTX_set_msg_callback",
    "SSL_CTX_set_default_verify_paths",
    "SSL_CTX_sess_set_new_cb",
    "SSL_ctrl",
    "SSL_do_handshake",
    "SSL_new",
    "SSL_read",
    "SSL_want",
}


@dataclass(frozen=True)
class Play:
    """The library that a fake plays."""

    text: str
    number: int
    #: Functions of hftws's table that this library does not have.
    lacks: frozenset[str] = frozenset()
    legacy_errors: bool = False
    libressl: bool = False


#: What came with OpenSSL 3.
ONLY_3 = frozenset({"EVP_CIPHER_CTX_set_params", "EVP_CIPHER_CTX_get_params"})

OPENSSL_1_1_1 = Play("OpenSSL 1.1.1w  11 Sep 2023", 0x1010117F, ONLY_3, legacy_errors=True)
LIBRESSL = Play(
    "LibreSSL 4.3.2",
    0x20000000,
    ONLY_3 | {"SSL_session_reused"},
    legacy_errors=True,
    libressl=True,
)


def table() -> list[str]:
    """The functions that hftws looks up."""
    source = (ROOT / "src" / "ssl" / "libssl.zig").read_text(encoding="utf-8")
    api = re.search(r"pub const Api = struct \{(.*?)\n\};", source, re.DOTALL)
    assert api is not None
    return re.findall(r"^    ([A-Za-z]\w+): \??\*const ", api[1], re.MULTILINE)


def machines_libssl() -> str:
    """The library that Python's ``ssl`` has loaded, or would load."""
    import _ssl

    file = getattr(_ssl, "__file__", None)
    if file is None or sys.platform != "linux":
        pytest.skip("needs Linux, and a Python that is linked against a libssl")
    ctypes.CDLL(file)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    found = re.search(r"\S*/libssl\.so\S*", maps)
    if found is None:
        pytest.skip("OpenSSL is a part of this Python's own ssl module")
    return found[0]


def compile_library(target: Path, source: Path, *options: str) -> Path:
    """With Zig's C compiler, or with the system's."""
    if importlib.util.find_spec("ziglang") is not None:
        compiler = [sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"]
    elif cc := shutil.which("cc"):
        compiler = [cc]
    else:
        pytest.skip("there is no C compiler: neither ziglang nor cc")
    command = [*compiler, "-shared", "-fPIC", "-O1", *options, "-o", str(target), str(source)]
    result = subprocess.run(
        [*command, "-ldl"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert result.returncode == 0, result.stderr
    return target


def build_fake(directory: Path, play: Play) -> Path:
    """A library in ``directory`` that plays ``play``."""
    real = machines_libssl()
    directory.mkdir(parents=True, exist_ok=True)
    own = set(ALWAYS_OWN)
    own |= LEGACY_ERRORS_OWN if play.legacy_errors else set()
    own |= LIBRESSL_OWN if play.libressl else set()
    names = [name for name in table() if name not in own | play.lacks]
    lines = "".join(f"NAME({name})\n" for name in names)
    (directory / "names.h").write_text(lines, encoding="utf-8")
    return compile_library(
        directory / "libssl-fake.so",
        SOURCES / "fake.c",
        f"-I{directory}",
        f'-DREAL_LIBSSL="{real}"',
        f'-DVERSION_TEXT="{play.text}"',
        f"-DVERSION_NUMBER={play.number:#x}UL",
        f"-DLEGACY_ERRORS={int(play.legacy_errors)}",
        f"-DPLAYS_LIBRESSL={int(play.libressl)}",
    )


# ---- Libraries of other Debian releases. -------------------------------------------------------


def debian_packages(release: str, packages: Iterable[str]) -> Path:
    """The root folder that holds the files of ``packages``, fetched from the machine's mirror."""
    names = sorted(packages)
    target = CACHE / f"{release}-{'-'.join(names)}"
    try:
        debian.unpack(release, names, target)
    except debian.Unavailable as reason:
        pytest.skip(str(reason))
    return target


def multiarch(root: Path) -> Path:
    """The folder of libraries in a root, for this machine's architecture."""
    found = next((root / "usr" / "lib").glob("*-linux-gnu"), None)
    assert found is not None, root
    return found


def debian_openssl_1_1_1() -> Path:
    """OpenSSL 1.1.1 as Debian 11 has it."""
    return multiarch(debian_packages("bullseye", ["libssl1.1"])) / "libssl.so.1.1"


def debian_13_python() -> list[str]:
    """A command: this Python on the C library of Debian 13, whose OpenSSL (3.5) needs it."""
    packages = ["libc6", "libssl3t64", "libzstd1", "zlib1g"]
    libraries = multiarch(debian_packages("trixie", packages))
    (loader,) = libraries.glob("ld-linux-*.so.*")
    paths = ["--library-path", str(libraries)]
    return [str(loader), *paths, "--argv0", sys.executable, os.path.realpath(sys.executable)]
