"""Which TLS library is used (Python's, the system's, a named one), and that each works.

A process uses one library as long as it lives, so nearly every test starts a process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import libssls
import pytest
import trustme
from libssls import LIBRESSL, OPENSSL_1_1_1, Play
from servers import PATIENCE

import hftws

ROOT = Path(__file__).parents[1]
PACKAGE = Path(hftws.__file__).parent

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="ELF, and the loader of Linux")
needs_glibc = pytest.mark.skipif(
    not os.confstr_names.get("CS_GNU_LIBC_VERSION"), reason="glibc's way to look functions up"
)

#: Prints the library in use, without a server.
SHOW = """
hftws.Client("wss://127.0.0.1:1/", verify=False)
print(loaded())
"""

PRELUDE = """
import hftws, os
def loaded():
    files = {line.split()[-1] for line in open("/proc/self/maps")}
    return sorted(file for file in files if os.path.basename(file)[:6] in ("libssl", "libcry"))
"""


def python(
    code: str, *, command: Sequence[str | Path] = (sys.executable,), **variables: str | Path
) -> str:
    """What ``code`` prints in a new Python."""
    environment = {name: value for name, value in os.environ.items() if name != "HFTWS_LIBSSL"}
    environment["PYTHONPATH"] = str(PACKAGE.parent)
    environment |= {name: str(value) for name, value in variables.items()}
    result = subprocess.run(
        [*(str(part) for part in command), "-c", PRELUDE + code],
        cwd="/",  # Where there is no other hftws.
        env=environment,
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def error_of(code: str, **variables: str | Path) -> str:
    """The text of the TLSError that ``code`` raises."""
    lines = "".join(f"    {line}\n" for line in code.strip().splitlines())
    return python(f"try:\n{lines}except hftws.TLSError as error: print(error)\n", **variables)


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Libraries that play others."""
    plays = {
        "libressl": LIBRESSL,
        "openssl-1.1.1": OPENSSL_1_1_1,
        "libressl-3.8": Play("LibreSSL 3.8.4", 0x20000000),
        "openssl-1.1.0": Play("OpenSSL 1.1.0l  10 Sep 2019", 0x101000CF),
        "boringssl": Play("BoringSSL", 0x1010107F),
        "without": Play("OpenSSL 3.0.0 7 sep 2021", 0x30000000, frozenset({"SSL_set_bio"})),
    }
    folder = tmp_path_factory.mktemp("libssl")
    return {name: libssls.build_fake(folder / name, play) for name, play in plays.items()}


# Fetched by fixtures of the session: a mirror may take longer than a test may.


@pytest.fixture(scope="session")
def openssl_1_1_1() -> Path:
    """The library of Debian 11."""
    return libssls.debian_openssl_1_1_1()


@pytest.fixture(scope="session")
def debian_13_python() -> list[str]:
    """The command of a Python with the OpenSSL 3.5 of Debian 13."""
    return libssls.debian_13_python()


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared library without a function, as Python's `_ssl` is to others with OpenSSL inside."""
    folder = tmp_path_factory.mktemp("empty")
    source = folder / "empty.c"
    source.write_text("static int nothing;\nint *hftws_nothing(void) { return &nothing; }\n")
    return libssls.compile_library(folder / "_ssl.so", source)


# ---- Without a choice. -------------------------------------------------------------------------


@needs_linux
def test_python_s_own_library_is_used() -> None:
    """The library that `_ssl` has loaded: a process has one TLS library."""
    machines = libssls.machines_libssl()
    libraries = python("import ssl\nbefore = loaded()\n" + SHOW + "print(before)")
    after, before = libraries.splitlines()
    assert machines in before
    assert after == before


@needs_linux
@pytest.mark.parametrize("how", ["inside the interpreter", "inside the module", "not there at all"])
def test_a_python_with_openssl_inside_finds_the_systems(how: str, empty: Path) -> None:
    """As in uv's Python and others: the functions are there, but hidden."""
    libssls.machines_libssl()
    code = {
        "inside the interpreter": "",
        "inside the module": f"module.__file__ = {str(empty)!r}\n",
        "not there at all": "module = None\n",
    }[how]
    before = "import sys, types\nmodule = types.ModuleType('_ssl')\n" + code
    shown = python(before + "sys.modules['_ssl'] = module\n" + SHOW)
    assert "/libssl.so" in shown
    # The same library says where the roots are.
    roots = "print(len(hftws._core.default_roots(hftws.client.tls_libraries())))"
    assert python(before + "sys.modules['_ssl'] = module\n" + roots) == "4"


@needs_linux
def test_where_there_is_none_all_that_was_tried_is_told_and_what_to_install(
    empty: Path, tmp_path: Path
) -> None:
    for name in ("libssl.so.3", "libssl.so.1.1", "libssl.so"):
        (tmp_path / name).write_text("no library")
    told = error_of(
        f"import sys, types\n"
        f"module = sys.modules['_ssl'] = types.ModuleType('_ssl')\n"
        f"module.__file__ = {str(empty)!r}\n" + SHOW,
        LD_LIBRARY_PATH=tmp_path,
    )
    assert told.startswith(f"no TLS library can be used. Tried {empty}: it is no TLS library")
    for name in ("libssl.so.3", "libssl.so.1.1", "libssl.so"):
        assert f"; {name}: " in told, "each with the loader's reason"
    assert told.count("file too short") == 3
    for command in (
        "apt install libssl3",
        "libssl3t64",
        "dnf install openssl-libs",
        "apk add libssl3",
        "HFTWS_LIBSSL",
    ):
        assert command in told


# ---- A choice. ---------------------------------------------------------------------------------


def ways(path: str | Path) -> list[tuple[str, dict[str, str | Path]]]:
    """Ways to choose: code, and environment variables."""
    return [
        (SHOW, {"HFTWS_LIBSSL": path}),
        (f"hftws.use_libssl({str(path)!r})\n" + SHOW, {}),
        # The program's choice comes before that of the environment.
        (f"hftws.use_libssl({str(path)!r})\n" + SHOW, {"HFTWS_LIBSSL": "/not/there.so"}),
    ]


@needs_linux
def test_a_library_can_be_named(fakes: dict[str, Path]) -> None:
    path = fakes["openssl-1.1.1"]
    for code, variables in ways(path):
        assert str(path) in python(code, **variables)


@needs_linux
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/not/there/libssl.so", "cannot open shared object file: No such file or directory"),
        ("libhftws-none.so", "cannot open shared object file: No such file or directory"),
        ("empty", "it is no TLS library, and not linked against one"),
        ("without", "it lacks SSL_set_bio"),
        ("libressl-3.8", "LibreSSL 3.8.4 is too old: OpenSSL 1.1.1 or later, or LibreSSL 3.9"),
        ("openssl-1.1.0", "OpenSSL 1.1.0l  10 Sep 2019 is too old: "),
        ("boringssl", "BoringSSL is another product: "),
    ],
)
def test_what_was_named_and_cannot_be_used_is_told_and_no_other_is_taken(
    fakes: dict[str, Path], empty: Path, name: str, reason: str
) -> None:
    path = {**fakes, "empty": empty}.get(name, Path(name))
    for code, variables in ways(path):
        before = "import ssl\n"  # Otherwise this would be chosen.
        told = error_of(before + code, **variables)
        assert f"{path}: " in told
        assert reason in told
    # Later calls fail, too: the environment has not changed.
    again = f"try:{SHOW.splitlines()[1]}\nexcept hftws.TLSError: pass\n" + SHOW
    assert reason in error_of(again, HFTWS_LIBSSL=path)


@needs_linux
@pytest.mark.parametrize(
    "first",
    [
        "hftws.Client('wss://127.0.0.1:1/')",
        "hftws.Client('wss://127.0.0.1:1/', verify=False)",
        "try: hftws.get('https://127.0.0.1:1/')\nexcept hftws.ConnectError: pass",
    ],
)
def test_the_choice_comes_first_or_not_at_all(fakes: dict[str, Path], first: str) -> None:
    path = str(fakes["openssl-1.1.1"])
    told = python(
        f"{first}\n"
        "before = loaded()\n"
        f"try: hftws.use_libssl({path!r})\n"
        "except RuntimeError as error: print(error)\n"
        "assert loaded() == before\n"
    )
    assert "is in use already" in told
    assert "/libssl.so" in told, "which one"


@needs_linux
def test_the_same_choice_again_is_no_other(fakes: dict[str, Path], tmp_path: Path) -> None:
    path = fakes["openssl-1.1.1"]
    (tmp_path / "link.so").symlink_to(path)
    shown = python(
        "import os, pathlib\n"
        f"hftws.use_libssl({str(path)!r})\n"
        f"hftws.use_libssl(pathlib.Path({str(path)!r}))\n"
        f"os.chdir({str(path.parent)!r})\n"
        f"hftws.use_libssl('./{path.name}')\n"
        f"hftws.use_libssl({str(tmp_path / 'link.so')!r})\n" + SHOW
    )
    assert str(path) in shown


def test_a_path_is_a_path() -> None:
    with pytest.raises(TypeError):
        hftws.use_libssl(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        hftws.use_libssl("a\0b")


# ---- One library, in one piece. ----------------------------------------------------------------


@needs_linux
@needs_glibc
def test_functions_that_a_program_exports_do_not_mix_in(tmp_path: Path) -> None:
    """A Python with OpenSSL inside may export some of them, and the loader would prefer those."""
    machines = libssls.machines_libssl()
    exporter = libssls.compile_library(tmp_path / "exporter.so", libssls.SOURCES / "exporter.c")
    code = SHOW + (
        "import ctypes\n"
        f"exporter = ctypes.CDLL({str(exporter)!r})\n"
        "print(ctypes.c_int.in_dll(exporter, 'ERR_clear_error_calls').value)\n"
    )
    shown = python(code, HFTWS_LIBSSL=machines, LD_PRELOAD=exporter)
    libraries, calls = shown.splitlines()
    assert machines in libraries
    assert calls == "0"


@needs_linux
def test_a_library_of_another_name_lives_beside_python_s(openssl_1_1_1: Path) -> None:
    """OpenSSL 1.1.1 with its own libcrypto, in a process whose `ssl` has OpenSSL 3."""
    libssls.machines_libssl()
    shown = python(f"import ssl, hashlib\nhftws.use_libssl({str(openssl_1_1_1)!r})\n" + SHOW)
    assert str(openssl_1_1_1) in shown
    assert str(openssl_1_1_1.with_name("libcrypto.so.1.1")) in shown
    assert "libssl.so.3" in shown, "Python's own"


@needs_linux
def test_a_libcrypto_of_another_number_is_found_beside_its_libssl(
    openssl_1_1_1: Path, tmp_path: Path
) -> None:
    """LibreSSL's libssl.so.60 needs libcrypto.so.57; and the loader does not search the folder."""
    (tmp_path / "libssl.so.60").symlink_to(openssl_1_1_1)
    shutil.copy(openssl_1_1_1.with_name("libcrypto.so.1.1"), tmp_path / "libcrypto.so.57")
    (tmp_path / "libcrypto.so").symlink_to("libcrypto.so.57")
    shown = python(SHOW, HFTWS_LIBSSL=tmp_path / "libssl.so.60")
    assert str(tmp_path / "libcrypto.so.57") in shown


@needs_linux
def test_two_libraries_of_one_name_are_not_mixed(debian_13_python: list[str]) -> None:
    """The loader takes the libcrypto.so.3 that is loaded already, so the first one decides."""
    other = Path(libssls.machines_libssl())
    command = debian_13_python
    newer = python("import ssl\n" + SHOW, command=command)
    assert "build/debian/trixie" in newer
    told = python(
        "import ssl\n"
        f"try: hftws.use_libssl({str(other)!r})\n"
        "except hftws.TLSError as error: print(error)\n",
        command=command,
    )
    assert "it would run on another libcrypto, " in told
    assert "LD_LIBRARY_PATH=" in told
    first = python(f"hftws.use_libssl({str(other)!r})\nimport ssl\n" + SHOW, command=command)
    assert str(other) in first
    assert "trixie" not in first, "Python's own ssl uses it, too"


# ---- Each of them works. -----------------------------------------------------------------------

#: The tests that a library is put through: all of test_tls.py, and of test_tls_engines.py what
#: shows that records are opened and sealed as they should: both engines, both versions of TLS.
TLS = "test_tls.py"
RECORDS = (
    "((sequence_numbers or resumes_the_session or says_close_notify) and AES-128-GCM)"
    " or key_updates_are_followed"
)


def run_tests(expression: str, command: Sequence[str] = (sys.executable,), **more: str) -> None:
    """Runs the tests that pytest's ``-k`` selects, in a process that uses another library."""
    environment = {name: value for name, value in os.environ.items() if name != "HFTWS_LIBSSL"}
    environment |= {"PYTHONPATH": str(PACKAGE.parent), **more}
    options = ["-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--tb=short"]
    result = subprocess.run(
        [*command, "-m", "pytest", *options, "-k", expression, TLS, "test_tls_engines.py"],
        cwd=ROOT / "tests",
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


@needs_linux
def test_libressl_by_a_fake(fakes: dict[str, Path]) -> None:
    """Its direct engine has TLS 1.2 only, and it resumes no sessions of TLS 1.3."""
    expression = f"{TLS} or (({RECORDS}) and not ((direct or resumes) and TLSv1.3))"
    run_tests(expression, HFTWS_LIBSSL=str(fakes["libressl"]))


@needs_linux
def test_openssl_1_1_1_by_a_fake(fakes: dict[str, Path]) -> None:
    """What differs: its error codes, and how a record's tag is given and taken."""
    expression = (
        "alert or refused or cannot_be_used or proves_nothing or (sequence_numbers and AES-128-GCM)"
    )
    run_tests(f"{TLS} and ({expression})", HFTWS_LIBSSL=str(fakes["openssl-1.1.1"]))


@needs_linux
def test_openssl_1_1_1_itself(openssl_1_1_1: Path) -> None:
    run_tests(f"{TLS} or {RECORDS}", HFTWS_LIBSSL=str(openssl_1_1_1))


@needs_linux
def test_openssl_3_5_itself(debian_13_python: list[str]) -> None:
    """Its server side, in Python 3.11's ssl, ends differently in one of the tests."""
    shown = python("import ssl; print(ssl.OPENSSL_VERSION)", command=debian_13_python)
    assert shown.startswith("OpenSSL 3.5"), shown
    run_tests(f"({TLS} or {RECORDS}) and not a_cut_are_told_apart", command=debian_13_python)


@needs_linux
def test_the_direct_engine_steps_aside_with_libressl_and_tls_1_3(fakes: dict[str, Path]) -> None:
    """A server of TLS 1.3: what `info` tells, and what `tls="direct"` raises."""
    shown = python(
        "import hftws.exchange\n"
        "with hftws.exchange.launch() as exchange:\n"
        "    url = exchange.url + '/ws'\n"
        "    with hftws.Client(url, ca_file=exchange.ca_file) as client:\n"
        "        info = client.info()\n"
        "        keys = 'tls_library', 'tls_library_file', 'tls_version', 'engine', 'aead'\n"
        "        for key in keys:\n"
        "            print(info[key])\n"
        "        print(info['engine_reason'])\n"
        "    try: hftws.Client(url, ca_file=exchange.ca_file, tls='direct').connect()\n"
        "    except hftws.TLSError as error: print(error)\n",
        HFTWS_LIBSSL=fakes["libressl"],
    )
    reason = "LibreSSL does not tell the traffic secrets of TLS 1.3"
    library, file, version, engine, aead, engine_reason, error = shown.splitlines()
    assert library == LIBRESSL.text
    assert file == str(fakes["libressl"])
    assert (version, engine, engine_reason) == ("TLSv1.3", "openssl", reason)
    assert aead == "LibreSSL, in SSL_read and SSL_write"
    assert reason in error


@needs_linux
@pytest.mark.parametrize(("version", "resumed"), [("TLSv1_2", True), ("TLSv1_3", False)])
def test_libressl_resumes_sessions_of_tls_1_2_only(
    fakes: dict[str, Path], ca: trustme.CA, tmp_path: Path, version: str, resumed: bool
) -> None:
    certificate = tmp_path / "server.pem"
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    shown = python(
        "import ssl\n"
        "from servers import ScriptServer\n"
        "context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n"
        f"context.load_cert_chain({str(certificate)!r})\n"
        f"context.maximum_version = ssl.TLSVersion.{version}\n"
        "def script(peer):\n"
        "    peer.accept_upgrade()\n"
        "    peer.close_handshake()\n"
        "with ScriptServer(script, tls_context=context) as server:\n"
        "    client = server.client(verify=False, tls='openssl')\n"
        "    for _ in range(2):\n"
        "        client.connect()\n"
        "        print(client.info()['tls_resumed'])\n"
        "        client.run()\n",
        HFTWS_LIBSSL=fakes["libressl"],
        PYTHONPATH=os.pathsep.join([str(PACKAGE.parent), str(ROOT / "tests")]),
    )
    assert shown.split() == ["False", str(resumed)]


# ---- Linked in. --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a distribution would build it."""
    if not (ROOT / "hatch_build.py").is_file() or sys.platform != "linux":
        pytest.skip("needs the sources, and Linux")
    pytest.importorskip("ziglang")
    folder = tmp_path_factory.mktemp("linked")
    probe = folder / "probe.c"
    probe.write_text("int nothing;\n")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-shared"]
    command = [*compiler, "-o", "probe.so", "probe.c", "-lssl", "-lcrypto"]
    probed = subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False)
    if probed.returncode != 0:
        pytest.skip("libssl-dev (openssl-devel) is not installed")
    package = folder / "hftws"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    subprocess.run(
        # Quick to build: only the linking is tested.
        [sys.executable, "hatch_build.py", "--optimize", "debug", "--prefix", str(package)],
        cwd=ROOT,
        env={**os.environ, "HFTWS_BUILD_OPENSSL": "link"},
        capture_output=True,
        timeout=300,
        check=True,
    )
    return package


def test_a_linked_build_depends_on_the_libraries_and_works(linked: Path) -> None:
    (module,) = linked.glob("_core*.so")
    if shutil.which("readelf") is not None:
        needed = subprocess.check_output(["readelf", "-d", str(module)], text=True)
        for library in ("libssl.so", "libcrypto.so"):
            assert f"Shared library: [{library}" in needed
    run_tests(f"{TLS} and (tls_1_2 or proves_nothing)", PYTHONPATH=str(linked.parent))
    shown = python(SHOW + "print(hftws.__file__)", PYTHONPATH=linked.parent)
    assert "/libssl.so" in shown
    assert str(linked) in shown


def test_a_linked_build_has_no_choice_and_says_so(linked: Path, fakes: dict[str, Path]) -> None:
    path = str(fakes["openssl-1.1.1"])
    told = python(
        f"try: hftws.use_libssl({path!r})\nexcept RuntimeError as error: print(error)\n",
        PYTHONPATH=linked.parent,
    )
    assert "-Dopenssl=link" in told
    told = error_of(SHOW, PYTHONPATH=linked.parent, HFTWS_LIBSSL=path)
    assert "-Dopenssl=link" in told
    assert path in told
