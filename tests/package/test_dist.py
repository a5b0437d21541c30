"""The wheels of a release, as `python -m release` left them: `pytest tests/package --dist=dist`.

Every wheel is checked. Those that this machine can run are installed where nothing else is, and
receive from the simulated exchange: in an empty virtual environment of every CPython that is here,
and in roots of Debian's releases, by chroot(2), which have no compiler, no headers and no OpenSSL
but Python's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from pathlib import Path

import pytest
from drive import STREAMS
from wheel_checks import (
    ROOT,
    Wheel,
    check_contents,
    check_elf,
    check_metadata,
    check_no_trace_of_the_builder,
    check_record,
    imports,
    project_version,
)  # fmt: skip

from hftws.exchange import launch
from hftws.exchange.order_book import book_histories
from hftws.exchange.recording import Recording, TimeUnit
from hftws.exchange.repeats import Repeats
from release import debian
from release.build import SOURCE_DATE_EPOCH, WORK, build_sdist
from release.headers import PYCONFIG, from_debian, headers, installed, named
from release.matrix import PLATFORMS, PYTHONS, Python
from tests import registry

DRIVE = Path(__file__).with_name("drive.py")
MESSAGES = 3000

#: Debian's releases, by the Python that they come with.
ROOTS = {"3.11": "bookworm", "3.13": "trixie", "3.14": "sid"}


NO_RELEASE = "no release was given: --dist=dist, after `python -m release`"

#: The wheels that a test is about, by the name of its argument.
WHEELS = {
    "wheel": r".*",
    "manylinux_wheel": r"manylinux_.*",
    "musllinux_wheel": r"musllinux_.*",
    "elf_wheel": r"(many|musl)linux_.*",
    "x86_64_elf_wheel": r"(many|musl)linux_.*_x86_64",
    "native_wheel": r"manylinux_.*_x86_64",
    "macos_wheel": r"macosx_.*",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Makes a test for every wheel; parameters of the session, so that fixtures can use them."""
    folder = metafunc.config.getoption("--dist")
    for name, pattern in WHEELS.items():
        if name not in metafunc.fixturenames:
            continue
        if folder is None:
            metafunc.parametrize(name, [pytest.param(None, marks=pytest.mark.skip(NO_RELEASE))])
            continue
        wheels = [Wheel(path) for path in sorted(Path(folder).resolve().glob("*.whl"))]
        chosen = [wheel for wheel in wheels if re.fullmatch(pattern, wheel.platform)]
        metafunc.parametrize(name, chosen, ids=name_of, scope="session")


def name_of(wheel: Wheel) -> str:
    return "-".join(wheel.parts[3:])


@pytest.fixture(scope="session")
def dist(request: pytest.FixtureRequest) -> Path:
    """The folder of the release."""
    folder = request.config.getoption("--dist")
    if folder is None:
        pytest.skip(NO_RELEASE)
    return Path(folder).resolve()


# ---- What is fetched: by fixtures of the session, since a test has a time limit. ----------------


def headers_of(wheel: Wheel) -> Path:
    """The headers that the extension in a wheel is compiled with."""
    try:
        return headers(named(wheel.python), WORK / "headers")
    except debian.Unavailable as error:
        pytest.skip(f"the headers of CPython {wheel.python} are not available: {error}")


@pytest.fixture(scope="session")
def elf_headers(elf_wheel: Wheel) -> Path:
    """The headers that this wheel is for."""
    return headers_of(elf_wheel)


@pytest.fixture(scope="session")
def musl_library() -> Path:
    """Debian's musl 1.2, which is both the C library and the loader; unpacked, not installed."""
    root = WORK / "musl"
    try:
        debian.unpack("bookworm", ["musl"], root, architecture="amd64")
    except debian.Unavailable as error:
        pytest.skip(f"there is no musl: {error}")
    return root / "lib" / "ld-musl-x86_64.so.1"


@pytest.fixture(scope="session")
def wheelhouse(dist: Path) -> Path:
    """The wheels, and the one that they depend on: all that pip can find."""
    folder = WORK / "wheelhouse"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        registry.pip(
            sys.executable, "download", "--no-deps", "--only-binary=:all:",
            "--dest", folder, "certifi",
        )  # fmt: skip
    except debian.Unavailable as error:
        pytest.skip(f"certifi, which hftws depends on, is not available: {error}")
    for path in dist.glob("*.whl"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="session")
def slim_root(native_wheel: Wheel) -> Iterator[Path]:
    """The Debian release of the wheel's Python, with only what Python needs."""
    version = native_wheel.python
    if version not in ROOTS:
        pytest.skip(f"no release of Debian comes with CPython {version}")
    if os.getuid() != 0:
        pytest.skip("chroot(2) takes root")
    root = WORK / f"root-{ROOTS[version]}"
    shutil.rmtree(root, ignore_errors=True)
    packages = ["python3", "python3-venv"]
    try:
        debian.unpack(ROOTS[version], packages, root, architecture="amd64", dependencies=True)
    except debian.Unavailable as error:
        pytest.skip(f"Debian {ROOTS[version]} is not available: {error}")
    try:
        complete(root)
        yield root
    finally:
        shutil.rmtree(root)


def complete(root: Path) -> None:
    """Makes what the scripts of the packages would have made."""
    for folder in ("tmp", "dev", "root"):
        (root / folder).mkdir(exist_ok=True)
    # As the script of ca-certificates makes it; Debian's pip reads it before it does anything.
    roots = sorted(root.glob("usr/share/ca-certificates/mozilla/*.crt"))
    bundle = root / "etc" / "ssl" / "certs" / "ca-certificates.crt"
    bundle.write_bytes(b"".join(path.read_bytes() for path in roots))
    try:
        os.mknod(root / "dev" / "null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this container may not make a /dev/null")


# ---- What every wheel has to be. ----------------------------------------------------------------


@pytest.mark.parametrize(
    "check", [check_contents, check_metadata, check_record, check_no_trace_of_the_builder]
)
def test_the_wheel_is_complete_and_no_more(
    wheel: Wheel, check: Callable[[Wheel], list[str]]
) -> None:
    assert check(wheel) == []


def test_the_tag_is_one_of_the_table(wheel: Wheel) -> None:
    assert "-".join(wheel.parts[2:4]) in {python.tag for python in PYTHONS}
    assert re.fullmatch(
        r"manylinux_2_28_(x86_64|aarch64)|musllinux_1_2_x86_64|macosx_12_0_(x86_64|arm64)",
        wheel.platform,
    )


def test_the_elf_module_is_what_the_tag_says(elf_wheel: Wheel) -> None:
    assert check_elf(elf_wheel) == []


def test_cpython_has_every_function_that_the_module_imports(
    elf_wheel: Wheel, elf_headers: Path
) -> None:
    """No function that the headers define inline: nobody exports it, and the import would fail.

    A C compiler compiles those into the module. translate-c declares one that it cannot translate,
    and the linker takes it for another function of CPython's.
    """
    inline = set()
    for header in (*elf_headers.glob("*.h"), *elf_headers.glob("cpython/*.h")):
        text = header.read_text(encoding="utf-8", errors="replace")
        inline |= set(re.findall(r"^static inline[^;{(]*?\b(_?Py\w+)\s*\(", text, re.MULTILINE))
    assert len(inline) > 50
    path = elf_wheel.unpack_extension()
    try:
        assert imports(path) & inline == set()
    finally:
        path.unlink()


def test_the_macho_module_is_what_the_tag_says(macos_wheel: Wheel) -> None:
    try:
        import macho
    except ModuleNotFoundError:
        pytest.fail("tests/package/macho.py is missing: nobody looks into this wheel")
    match = re.fullmatch(r"macosx_(\d+)_(\d+)_(\w+)", macos_wheel.platform)
    assert match is not None
    path = macos_wheel.unpack_extension()
    try:
        oldest = int(match[1]), int(match[2])
        builder = [ROOT, WORK]
        problems = macho.problems(path, cpu=match[3], minimum_os=oldest, builders_paths=builder)
        assert problems == []
    finally:
        path.unlink()


def test_auditwheel_agrees(manylinux_wheel: Wheel) -> None:
    """auditwheel, by the authors of the standard. (For musl, it has to run on a musl system.)"""
    pytest.importorskip("auditwheel", reason="auditwheel is not installed")
    shown = " ".join(run(sys.executable, "-m", "auditwheel", "show", manylinux_wheel.path).split())
    found = re.search(
        r'consistent with the following platform tag: "manylinux_2_(\d+)_(\w+)"', shown
    )
    promised = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", manylinux_wheel.platform)
    assert found is not None, shown
    assert promised is not None
    assert found[2] == promised[2]
    assert int(found[1]) <= int(promised[1])


def test_the_code_runs_on_the_oldest_cpu(x86_64_elf_wheel: Wheel) -> None:
    """x86-64 as it was in 2003: no register of AVX or AVX-512, but in what is chosen at run time.

    That is the AEAD alone, where the time goes: libipsec-mb and OpenSSL bring such code along, and
    src/cpu.zig tells which of it may run. The other loops over every byte were measured with AVX2:
    for 168, 647 and 34,571 bytes, to judge UTF-8 takes 0.7, 3 and 140 ns less, and to mask 0.1, 4
    and 60. A message of 300 bytes takes 126 ns in a burst, and 6,400 if it has to wake its process
    (docs/benchmarks/results.md): a second copy of the loops would not show.
    """
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed (binutils)")
    path = x86_64_elf_wheel.unpack_extension()
    try:
        code = run("objdump", "-d", "--no-show-raw-insn", path)
    finally:
        path.unlink()
    assert "%xmm" in code
    assert not re.findall(r".*%[yz]mm.*", code)[:5]


# ---- musl: what can be tested without Alpine. ---------------------------------------------------


def test_musl_has_every_function_that_the_wheel_needs(
    musllinux_wheel: Wheel, musl_library: Path
) -> None:
    elffile = pytest.importorskip("elftools.elf.elffile", reason="pyelftools is not installed")
    with musl_library.open("rb") as file:
        symbols = elffile.ELFFile(file).get_section_by_name(".dynsym")
        defined = {s.name for s in symbols.iter_symbols() if s["st_shndx"] != "SHN_UNDEF"}
    path = musllinux_wheel.unpack_extension()
    try:
        needed = imports(path)
    finally:
        path.unlink()
    of_python = {name for name in needed if name.startswith(("Py", "_Py"))}
    assert "PyModuleDef_Init" in of_python
    assert "epoll_wait" in needed
    assert needed - of_python <= defined


MUSL_HOST = """\
#include <dlfcn.h>
#include <stdio.h>
%s
void *PyModuleDef_Init(void *definition) { return definition; }
int main(int count, char **arguments) {
    (void) count;
    void *module = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    if (module == NULL) return puts(dlerror()), 1;
    void *(*initialise)(void) = (void *(*)(void)) dlsym(module, "PyInit__core");
    if (initialise == NULL) return puts(dlerror()), 2;
    /* PyModuleDef: m_name stands behind the words of m_base. */
    printf("%%s\\n", ((char **) initialise())[%d]);
    return 0;
}
"""


def test_musl_loads_the_module(musllinux_wheel: Wheel, musl_library: Path, tmp_path: Path) -> None:
    """musl's own loader resolves every symbol of it, in a program that has stand-ins for Python's.

    There is no CPython for musl on this machine: this is how far a wheel for it can be run.
    """
    module = tmp_path / "module.so"
    module.write_bytes(musllinux_wheel.extension)
    of_python = {name for name in imports(module) if name.startswith(("Py", "_Py"))}
    stand_ins = "\n".join(f"void *{name}[64];" for name in of_python - {"PyModuleDef_Init"})
    words = 7 if musllinux_wheel.python.endswith("t") else 5
    (tmp_path / "host.c").write_text(MUSL_HOST % (stand_ins, words))
    compiler = (sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl", "-dynamic")
    host = tmp_path / "host"
    run(*compiler, "-rdynamic", "-fno-sanitize=all", "-w", tmp_path / "host.c", "-o", host)
    # The program names a loader that is not installed here: musl's library is one, given a program.
    assert run(musl_library, host, module).strip() == "_core"


# ---- Installed, and at work. --------------------------------------------------------------------


HOST = sys.platform == "linux" and os.uname().machine == "x86_64"
on_linux = pytest.mark.skipif(not HOST, reason="this machine is not a Linux on x86-64")


@on_linux
def test_it_works_in_an_empty_environment(
    native_wheel: Wheel, wheelhouse: Path, tmp_path: Path
) -> None:
    python = next(installed(native_wheel.python), None)
    if python is None:
        pytest.skip(f"CPython {native_wheel.python} is not installed")
    environment = tmp_path / "venv"
    run(python, "-m", "venv", environment)
    install = ("-m", "pip", "install", "--quiet", "--no-index", "--find-links", wheelhouse)
    run(environment / "bin" / "python", *install, "hftws")
    work_with([environment / "bin" / "python", "-I", DRIVE], tmp_path, inside=environment)


@on_linux
def test_it_works_on_a_slim_debian(wheelhouse: Path, slim_root: Path) -> None:
    """The Python of the distribution, with its own OpenSSL, older or newer than this machine's."""
    root = slim_root
    assert not (root / "usr" / "include").exists() or not list((root / "usr/include").iterdir())
    assert not list(root.glob("usr/bin/*cc"))
    shutil.copytree(wheelhouse, root / "wheels", dirs_exist_ok=True)
    shutil.copy(DRIVE, root / "drive.py")
    run("chroot", root, "/usr/bin/python3", "-m", "venv", "/venv")
    inside = ("chroot", root, "/venv/bin/python")
    run(
        *inside, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", "/wheels", "hftws"
    )
    answer = work_with([*inside, "-I", "/drive.py"], root, inside=Path("/venv"), root=root)
    assert answer["aead"].startswith("OpenSSL"), "libipsec-mb is not there"


def work_with(
    command: Iterable[str | Path], folder: Path, *, inside: Path, root: Path = Path("/")
) -> dict[str, str]:
    """drive.py against an exchange on this machine, over ws:// and wss://; returns the latter's."""
    answer = {}
    for tls in (False, True):
        with launch(tls=tls, rate=20_000.0) as exchange:
            ca_file = ""
            if tls:
                shutil.copy(exchange.ca_file, folder / "exchange.pem")
                ca_file = f"/{(folder / 'exchange.pem').relative_to(root)}"
            output = run(*command, f"{exchange.url}/ws", ca_file, MESSAGES, cwd=folder)
        answer = json.loads(output)
        assert Path(answer["file"]).is_relative_to(inside)
        assert answer["version"] == project_version()
        assert answer["received"] == MESSAGES
        assert json.loads(answer["reply"]) == {"result": None, "id": 1}
        assert answer["digest"] == expected_digest()
        assert answer["engine"] == ("direct" if tls else None)
    return answer


def expected_digest() -> str:
    """The checksum of the messages, of which some come from the second lap."""
    recording = Recording.load("busiest")
    repeats = Repeats(recording, book_histories(recording))
    payloads = (
        repeats.event(message, TimeUnit.MILLISECOND, lap)
        for lap in count()
        for message in recording.messages
        if message.stream in STREAMS
    )
    return hashlib.sha256(b"".join(islice(payloads, MESSAGES))).hexdigest()


# ---- Built again. -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def first_wheel(dist: Path) -> tuple[Wheel, Path]:
    """A wheel to compare with, and its headers."""
    paths = sorted(dist.glob("*-manylinux_*_x86_64.whl"))
    if not paths:
        pytest.skip("there is no wheel to compare with")
    wheel = Wheel(paths[0])
    return wheel, headers_of(wheel)


def test_the_source_distribution_builds_the_same_wheel(
    dist: Path, first_wheel: tuple[Wheel, Path], tmp_path: Path
) -> None:
    """In another folder, through pip, from what is in it alone: the same bytes."""
    wheel, include = first_wheel
    (source,) = dist.glob("*.tar.gz")
    target = next(p.target for p in PLATFORMS if p.name == "manylinux_x86_64")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path)
    run(
        sys.executable, "-m", "pip", "wheel", *options, source,
        SOURCE_DATE_EPOCH=SOURCE_DATE_EPOCH,
        ZIG_TARGET=target,
        HFTWS_BUILD_PYTHON=wheel.python,
        HFTWS_BUILD_PYTHON_INCLUDE=str(include),
        HFTWS_BUILD_IPSEC_MB="",
    )  # fmt: skip
    built = Wheel(tmp_path / wheel.path.name)
    assert built.files == wheel.files
    assert built.path.read_bytes() == wheel.path.read_bytes()


def test_the_source_distribution_is_the_same_twice(dist: Path, tmp_path: Path) -> None:
    (first,) = dist.glob("*.tar.gz")
    assert build_sdist(tmp_path).read_bytes() == first.read_bytes()


def test_the_source_distribution_has_what_its_tests_need(dist: Path) -> None:
    """All that is under version control, except CI."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        found = {member.name.partition("/")[2] for member in archive if member.isfile()}
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    tracked = run("git", "-C", ROOT, "ls-files", "-z").split("\0")
    wanted = {n for n in tracked if n and not n.startswith(".ci/")}
    assert wanted - found == set()
    assert found - wanted - {"PKG-INFO"} == set()


# ---- Headers. -----------------------------------------------------------------------------------


OF_DEBIAN = [python for python in PYTHONS if python.suite and not python.free_threaded]


@pytest.fixture(scope="session")
def built(dist: Path, python: Python, architecture: str) -> tuple[Wheel, Path]:
    """The release's wheel for a CPython on an architecture, and the headers of Debian there."""
    cpu = {"amd64": "x86_64", "arm64": "aarch64"}[architecture]
    path = next(dist.glob(f"*-{python.tag}-manylinux_*_{cpu}.whl"), None)
    if path is None:
        pytest.skip(f"the release has no wheel for {python.name} on {cpu}")
    try:
        return Wheel(path), from_debian(python, architecture, WORK / "headers")
    except debian.Unavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("architecture", ["amd64", "arm64"], scope="session")
@pytest.mark.parametrize("python", OF_DEBIAN, scope="session")
def test_nothing_of_pyconfig_matters_that_is_not_in_ours(
    python: Python, architecture: str, built: tuple[Wheel, Path], tmp_path: Path
) -> None:
    """With Debian's headers of the platform itself, the module is the same, byte for byte."""
    wheel, include = built
    cpu = {"amd64": "x86_64", "arm64": "aarch64"}[architecture]
    assert (include / "pyconfig.h").read_text().count("#define") > 10 * PYCONFIG.count("#define")
    target = next(p.target for p in PLATFORMS if p.name == f"manylinux_{cpu}")
    run(
        sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=ROOT,
        ZIG_TARGET=target,
        HFTWS_BUILD_PYTHON=python.name,
        HFTWS_BUILD_PYTHON_INCLUDE=str(include),
        HFTWS_BUILD_IPSEC_MB="",
    )  # fmt: skip
    assert Wheel(tmp_path / wheel.path.name).extension == wheel.extension


def run(*command: object, cwd: Path | None = None, **variables: str) -> str:
    """The output of a command that has to succeed, without this process's PYTHONPATH."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
