"""The extension for macOS, cross-built here: nothing runs; checks what a Mac would refuse.

That Python finds the module, that libSystem of the oldest supported system has what it imports,
that the signature is right, and that it tells nothing about the machine that built it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path

import macho
import pytest

ROOT = Path(__file__).parents[2]
TARGETS = {"aarch64-macos.12.0": "arm64", "x86_64-macos.12.0": "x86_64"}

#: They declare all of macho.LIBSYSTEM_IMPORTS.
HEADERS = """
arpa/inet.h dlfcn.h errno.h fcntl.h mach/mach.h mach/mach_time.h malloc/malloc.h math.h net/if.h
netdb.h pthread.h signal.h stdlib.h string.h strings.h sys/event.h sys/mman.h sys/socket.h
sys/sysctl.h time.h unistd.h
"""


def zig(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ziglang", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The extension for each kind of Mac, as a wheel would have it."""
    built = {}
    for target, cpu in TARGETS.items():
        prefix = tmp_path_factory.mktemp(cpu)
        command = [sys.executable, "hatch_build.py", "--target", target, "--prefix", str(prefix)]
        environment = {**os.environ, "HFTWS_BUILD_IPSEC_MB": ""}
        result = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )
        assert result.returncode == 0, result.stderr
        (built[cpu],) = prefix.glob("*")
    return built


@pytest.mark.parametrize("cpu", TARGETS.values())
def test_nothing_keeps_it_from_being_loaded(modules: dict[str, Path], cpu: str) -> None:
    assert macho.problems(modules[cpu], cpu=cpu, builders_paths=[ROOT]) == []


@pytest.mark.parametrize("cpu", TARGETS.values())
def test_python_has_what_it_looks_for(modules: dict[str, Path], cpu: str) -> None:
    """The running Python plays that of the Mac: the names of its C API are the same."""
    imports = macho.read(modules[cpu]).imports
    pythons = [symbol for symbol, owner in imports.items() if owner is None]
    assert len(pythons) > 50
    assert [symbol for symbol in pythons if not hasattr(ctypes.pythonapi, symbol)] == []


def test_the_list_of_imports_holds_no_more_than_there_are(modules: dict[str, Path]) -> None:
    imports = {
        symbol
        for module in modules.values()
        for symbol, owner in macho.read(module).imports.items()
        if owner is not None
    }
    assert imports == macho.LIBSYSTEM_IMPORTS | macho.UNDECLARED_IMPORTS


def declared(symbols: set[str], target: str, folder: Path) -> str:
    """The compiler's errors when they are used on that system; empty if they are there."""
    source = folder / "imports.c"
    lines = [f"#include <{header}>" for header in HEADERS.split()]
    # In parentheses, since some are also macros.
    lines += [f"const void *import_{s}(void) {{ return (void *)&({s}); }}" for s in sorted(symbols)]
    source.write_text("\n".join(lines) + "\n")
    checked = zig(
        "cc", "-target", target, "-c", "-o", folder / "imports.o", source,
        "-Werror=unguarded-availability", "-Werror=unguarded-availability-new",
    )  # fmt: skip
    return checked.stderr if checked.returncode != 0 else ""


@pytest.mark.parametrize("target", TARGETS)
def test_the_oldest_system_has_what_it_imports(target: str, tmp_path: Path) -> None:
    """By the headers, which say since when each function exists."""
    assert declared(set(macho.LIBSYSTEM_IMPORTS), target, tmp_path) == ""
    # To test the test: a newer function is refused.
    assert "only available on macOS 15.4" in declared({"strchrnul"}, target, tmp_path)
    assert "undeclared identifier" in declared({"epoll_create1"}, target, tmp_path)


def test_libsystem_has_what_the_headers_do_not_declare() -> None:
    spec = importlib.util.find_spec("ziglang")
    assert spec is not None and spec.origin is not None
    stubs = Path(spec.origin).parent / "lib" / "libc" / "darwin" / "libSystem.tbd"
    names = set(stubs.read_text().replace(",", " ").replace("'", " ").split())
    assert {f"_{symbol}" for symbol in macho.UNDECLARED_IMPORTS - {"dyld_stub_binder"}} <= names
    assert "dyld_stub_binder" in names


# ---- The check itself. -------------------------------------------------------------------------


def changed(module: Path, folder: Path, old: bytes, new: bytes) -> Path:
    contents = module.read_bytes()
    assert old in contents
    assert len(old) == len(new)
    path = folder / "changed.so"
    path.write_bytes(contents.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (b"_kevent\0", b"_kevenx\0", "kevenx is not known to be in libSystem of macOS 12"),
        (b"_PyList_New\0", b"_XyList_New\0", "XyList_New is looked for in whatever is loaded"),
        (b"_recv\0", b"_PyRe\0", "PyRe is looked for in /usr/lib/libSystem.B.dylib"),
        (b"libSystem.B", b"libSystem.C", "what it loads is ['/usr/lib/libSystem.C.dylib']"),
        # In LC_BUILD_VERSION: the platform (macOS), and the oldest version of it.
        (struct.pack("<2I", 1, 0x000C0000), struct.pack("<2I", 1, 0x000D0000), "the oldest system"),
    ],
)
def test_what_a_mac_would_refuse_is_found(
    modules: dict[str, Path], tmp_path: Path, old: bytes, new: bytes, complaint: str
) -> None:
    path = changed(modules["arm64"], tmp_path, old, new)
    found = macho.problems(path, cpu="arm64")
    assert any(problem.startswith(complaint) for problem in found), found
    # Whatever was changed, it was not signed that way.
    assert "its signature is not that of its pages" in found


def test_what_an_intel_mac_would_refuse_is_found_in_the_other(modules: dict[str, Path]) -> None:
    found = macho.problems(modules["x86_64"], cpu="arm64", builders_paths=["/usr/lib"])
    assert "the CPU is 'x86_64' and not 'arm64'" in found
    assert "it is not signed, and Apple silicon loads no such library" in found
    assert "it mentions /usr/lib" in found


def test_what_is_no_library_of_macos_is_refused(modules: dict[str, Path], tmp_path: Path) -> None:
    contents = modules["arm64"].read_bytes()
    for number, broken in enumerate((b"", b"\x7fELF" + contents[4:], contents[:400])):
        path = tmp_path / str(number)
        path.write_bytes(broken)
        with pytest.raises(macho.MachOError):
            macho.read(path)
