"""Other TLS libraries than the machine's own, for tests: played by a fake, or real, from Debian.

:func:`build_fake` compiles a library that forwards to the machine's and plays LibreSSL or OpenSSL
1.1.1. :func:`debian_package` unpacks a library of another Debian release into ``build/debian``;
nothing is installed. What cannot be had is a skipped test, with the reason.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "tests" / "fake_libssl"
CACHE = ROOT / "build" / "debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

#: Seconds for a download, or for a compiler that makes itself ready.
PATIENCE = 120

#: What the fake has to leave to fake.c, by the macro that puts it there.
ALWAYS_OWN = {"OpenSSL_version", "OpenSSL_version_num"}
LEGACY_ERRORS_OWN = {"ERR_peek_error", "ERR_peek_last_error", "ERR_reason_error_string"}
LIBRESSL_OWN = {
    "SSL_CTX_set_keylog_callback",
    "SSL_CTX_set_info_callback",
    "SSL_CTX_set_msg_callback",
    "SSL_CTX_set_default_verify_paths",
    "SSL_ctrl",
    "SSL_read",
    "SSL_want",
}


@dataclass(frozen=True)
class Play:
    """What a fake library plays."""

    text: str
    number: int
    #: Functions of hftws's table that it does not have.
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
    """The one that Python's ``ssl`` has loaded, or would load."""
    import _ssl

    file = getattr(_ssl, "__file__", None)
    if file is None or sys.platform != "linux":
        pytest.skip("the fake library needs Linux and a Python that is linked against a libssl")
    ctypes.CDLL(file)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    found = re.search(r"\S*/libssl\.so\S*", maps)
    if found is None:
        pytest.skip("OpenSSL is a part of this Python's own ssl module")
    return found[0]


def compile_library(target: Path, source: Path, *options: str) -> Path:
    """With Zig's C compiler, or with the system's."""
    if importlib.util.find_spec("ziglang") is not None:
        compiler = [sys.executable, "-m", "ziglang", "cc"]
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


def run(command: Sequence[str], cwd: Path, **variables: str) -> str:
    """What it prints. A test that needs it is skipped when it fails."""
    try:
        result = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{command[0]}: {error}")
    if result.returncode != 0:
        reason = (result.stderr.strip() or "no reason given").splitlines()[-1]
        pytest.skip(f"{' '.join(command[:2])}: {reason}")
    return result.stdout


def debian_packages(release: str, packages: Iterable[str]) -> Path:
    """The root folder that holds the files of ``packages``, fetched from the machine's mirror."""
    names = sorted(packages)
    target = CACHE / f"{release}-{'-'.join(names)}"
    if target.is_dir():
        return target
    if shutil.which("apt-get") is None or not KEYRING.is_file():
        pytest.skip("packages of Debian's can only be fetched on Debian")
    work = target.with_name(f"{target.name}.{os.getpid()}")
    configuration = apt_configuration(work, release)
    try:
        run(["apt-get", "-qq", "update"], work, APT_CONFIG=str(configuration))
        run(["apt-get", "-qq", "download", *names], work, APT_CONFIG=str(configuration))
        for file in work.glob("*.deb"):
            run(["dpkg-deb", "-x", str(file), str(work / "root")], work)
        (work / "root").rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def apt_configuration(work: Path, release: str) -> Path:
    """For apt, of a folder of its own: what is installed here is neither looked at nor changed."""
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("sources", "state/lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    (work / "sources" / "debian.sources").write_text(
        f"Types: deb\nURIs: {mirror()}\nSuites: {release}\nComponents: main\n"
        f"Signed-By: {KEYRING}\n",
        encoding="utf-8",
    )
    configuration = work / "apt.conf"
    configuration.write_text(
        'Dir::Etc::sourcelist "/dev/null";\n'
        f'Dir::Etc::sourceparts "{work}/sources";\n'
        'Dir::Etc::preferences "/dev/null";\n'
        'Dir::Etc::preferencesparts "/dev/null";\n'
        f'Dir::State "{work}/state";\n'
        f'Dir::State::status "{work}/status";\n'
        f'Dir::Cache "{work}/cache";\n'
        'APT::Sandbox::User "root";\n'
        'Acquire::Languages "none";\n',
        encoding="utf-8",
    )
    return configuration


def mirror() -> str:
    """Where this machine has its own Debian packages from."""
    codename = re.search(
        r"^VERSION_CODENAME=(\w+)$",
        Path("/etc/os-release").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    targets = run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(RELEASE) $(REPO_URI)",
            "Created-By: Packages",
        ],
        ROOT,
    )
    for line in targets.splitlines():
        release, _, uri = line.partition(" ")
        if codename is not None and release == codename[1]:
            return uri
    pytest.skip("apt is not set up for this release of Debian")


def multiarch(root: Path) -> Path:
    """Its folder of libraries, whatever the machine."""
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
