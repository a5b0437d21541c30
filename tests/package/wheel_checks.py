"""What has to hold of every wheel of a release, whatever machine it is for.

A check is a function of a wheel that returns its complaints, so that one look shows them all. It
reads the files; nothing of the wheel runs.
"""

from __future__ import annotations

import base64
import csv
import email
import getpass
import hashlib
import re
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Bytes. A wheel has 400 to 420 KiB today, a third of it recorded market data. With debugging
#: information or assertions left in, or the recordings twice, it would not fit.
SIZE_MAX = 480 * 1024

#: The version of the C library that a manylinux wheel may ask for is in its tag; of libraries, it
#: may need only these. All of them are the C library; manylinux (PEP 600) allows some more.
GLIBC_LIBRARIES = {
    "libc.so.6", "libpthread.so.0", "libdl.so.2",
    "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1",
}  # fmt: skip
MUSL_LIBRARIES = {"libc.so"}

ELF_MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}


@dataclass(frozen=True)
class Wheel:
    """A wheel in a folder, and what its name says."""

    path: Path

    @cached_property
    def parts(self) -> list[str]:
        """hftws, version, cp313, cp313t, platform."""
        return self.path.stem.split("-")

    @property
    def python(self) -> str:
        """The CPython it is for, by the name of its command: 3.13t."""
        abi = self.parts[3].removeprefix("cp")
        return f"{abi[0]}.{abi[1:]}"

    @property
    def platform(self) -> str:
        return self.parts[4]

    @property
    def architecture(self) -> str:
        return "x86_64" if self.platform.endswith("x86_64") else "aarch64"

    @cached_property
    def files(self) -> dict[str, bytes]:
        with zipfile.ZipFile(self.path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    @property
    def extension_name(self) -> str:
        """What CPython of that version looks for on that platform (sysconfig's EXT_SUFFIX)."""
        front = f"hftws/_core.cpython-{self.python.replace('.', '')}"
        if self.platform.startswith("macosx"):
            return f"{front}-darwin.so"
        # CPython tells musl from glibc since 3.11 (https://bugs.python.org/issue43112).
        musl = self.platform.startswith("musllinux") and self.python != "3.10"
        return f"{front}-{self.architecture}-linux-{'musl' if musl else 'gnu'}.so"

    @property
    def extension(self) -> bytes:
        return self.files[self.extension_name]

    def metadata_file(self, name: str) -> str:
        return self.files[f"hftws-{self.parts[1]}.dist-info/{name}"].decode()

    def unpack_extension(self) -> Path:
        """The module as a file, which the caller deletes."""
        with tempfile.NamedTemporaryFile(suffix=".so", delete=False) as file:
            file.write(self.extension)
        return Path(file.name)


def project_version() -> str:
    """The version, from the one place where it is written."""
    source = (ROOT / "src" / "constants.zig").read_text(encoding="utf-8")
    match = re.search(r'pub const version = "([^"]+)"', source)
    assert match is not None
    return match[1]


def check_contents(wheel: Wheel) -> list[str]:
    """The files of the package in the checkout, and one extension, rightly named; no others."""
    complaints = []
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "hftws").rglob("*")
        if path.is_file() and path.suffix != ".so" and "__pycache__" not in path.parts
    }
    wanted = sources | {wheel.extension_name}
    found = {name for name in wheel.files if not name.startswith(f"hftws-{wheel.parts[1]}.dist")}
    complaints += [f"{name} is missing" for name in sorted(wanted - found)]
    complaints += [f"{name} does not belong there" for name in sorted(found - wanted)]
    for name in ("hftws/py.typed", "hftws/_core.pyi"):
        if name not in found:
            complaints.append(f"{name}, for type checkers, is missing")
    size = wheel.path.stat().st_size
    if size > SIZE_MAX:
        complaints.append(f"{size} bytes are more than {SIZE_MAX}")
    return complaints


def check_metadata(wheel: Wheel) -> list[str]:
    """Version, tags, licences and dependencies: PEP 427, 566 and 639."""
    complaints = []
    metadata = email.message_from_string(wheel.metadata_file("METADATA"))
    tags = email.message_from_string(wheel.metadata_file("WHEEL"))
    expected = {
        "Name": ["hftws"],
        "Version": [project_version()],
        "Requires-Python": [">=3.10"],
        "License-Expression": ["MIT"],
        "Author": ["The hftws developers"],
    }
    for field, values in expected.items():
        if metadata.get_all(field) != values:
            complaints.append(f"{field} is {metadata.get_all(field)}, not {values}")
    for system in ("MacOS", "POSIX :: Linux"):
        if f"Operating System :: {system}" not in (metadata.get_all("Classifier") or []):
            complaints.append(f"the classifier of {system} is missing")
    if "certifi" not in (metadata.get_all("Requires-Dist") or []):
        complaints.append("it does not ask for certifi")
    licences = metadata.get_all("License-File") or []
    for licence in ("LICENSE", "hftws/exchange/data/LICENSE-hftbacktest"):
        if licence not in licences:
            complaints.append(f"{licence} is not among the licences {licences}")
    for licence in licences:
        if f"hftws-{wheel.parts[1]}.dist-info/licenses/{licence}" not in wheel.files:
            complaints.append(f"the licence {licence} is not in the wheel")
    if tags.get_all("Tag") != ["-".join(wheel.parts[2:])]:
        complaints.append(f"the tag inside is {tags.get_all('Tag')}")
    if tags["Root-Is-Purelib"] != "false":
        complaints.append("it says that it is pure Python")
    if wheel.parts[1] != project_version():
        complaints.append(f"its name does not have the version {project_version()}")
    return complaints


def check_record(wheel: Wheel) -> list[str]:
    """RECORD has every file with its hash and its size."""
    complaints = []
    rows = list(csv.reader(wheel.metadata_file("RECORD").splitlines()))
    names = [name for name, _, _ in rows]
    if sorted(names) != sorted(wheel.files):
        complaints.append(f"RECORD and archive differ in {set(names) ^ set(wheel.files)}")
    for name, digest, size in rows:
        if name.endswith("/RECORD"):
            continue
        data = wheel.files.get(name, b"")
        value = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        if digest != f"sha256={value}" or int(size) != len(data):
            complaints.append(f"RECORD is wrong about {name}")
    return complaints


def check_no_trace_of_the_builder(wheel: Wheel) -> list[str]:
    """No path of the machine that built it, and no user name."""
    traces = {
        str(ROOT), str(Path.home()), f"/{getpass.getuser()}/", tempfile.gettempdir() + "/",
        ".zig-cache", "site-packages", "ziglang", "/home/", "/Users/",
    }  # fmt: skip
    return [
        f"{trace} stands in {name}"
        for trace in sorted(traces)
        for name, data in wheel.files.items()
        # A text may mention such places; compiled code must not.
        if name.endswith(".so") and trace.encode() in data
    ]


def check_elf(wheel: Wheel) -> list[str]:
    """The right machine; no library but the C library, in its oldest version; one export."""
    elffile = pytest.importorskip("elftools.elf.elffile", reason="pyelftools is not installed")
    complaints = []
    path = wheel.unpack_extension()
    try:
        with path.open("rb") as file:
            elf = elffile.ELFFile(file)
            if elf["e_machine"] != ELF_MACHINES[wheel.architecture] or elf.elfclass != 64:
                complaints.append(f"it is for {elf['e_machine']}")
            complaints += check_dynamic_section(elf, wheel)
            complaints += check_symbol_versions(elf, wheel)
            exported = exports(elf)
            if exported != ["PyInit__core"]:
                complaints.append(f"it exports {exported}")
            if elf.get_section_by_name(".debug_info") is not None:
                complaints.append("debugging information was left in")
    finally:
        path.unlink()
    return complaints


def check_dynamic_section(elf: object, wheel: Wheel) -> list[str]:
    complaints = []
    musl = wheel.platform.startswith("musllinux")
    allowed = MUSL_LIBRARIES if musl else GLIBC_LIBRARIES
    for entry in elf.get_section_by_name(".dynamic").iter_tags():  # type: ignore[attr-defined]
        if entry.entry.d_tag == "DT_NEEDED" and entry.needed not in allowed:
            complaints.append(f"it needs {entry.needed}")
        if entry.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
            complaints.append(f"it looks for libraries in {entry.entry.d_tag}")
        if entry.entry.d_tag == "DT_TEXTREL":
            complaints.append("its code has to be writable to be loaded")
    for segment in elf.iter_segments("PT_GNU_STACK"):  # type: ignore[attr-defined]
        if segment["p_flags"] & 1:
            complaints.append("it asks for a stack that can be executed")
    return complaints


def check_symbol_versions(elf: object, wheel: Wheel) -> list[str]:
    """No symbol is newer than the tag promises; on musl, symbols have no versions."""
    section = elf.get_section_by_name(".gnu.version_r")  # type: ignore[attr-defined]
    versions = [] if section is None else [
        version.name for _, users in section.iter_versions() for version in users
    ]  # fmt: skip
    match = re.match(r"manylinux_(\d+)_(\d+)_", wheel.platform)
    if match is None:
        return [f"it asks for versions of symbols: {versions}"] if versions else []
    newest = (int(match[1]), int(match[2]))
    return [
        f"it needs {version}"
        for version in versions
        if tuple(map(int, version.removeprefix("GLIBC_").split("."))) > newest
    ]


def exports(elf: object) -> list[str]:
    """The names that other modules could use."""
    return sorted(
        symbol.name
        for symbol in elf.get_section_by_name(".dynsym").iter_symbols()  # type: ignore[attr-defined]
        if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["bind"] != "STB_LOCAL"
    )


def imports(path: Path) -> set[str]:
    """The names without which the module does not load: not those of CPython, nor weak ones."""
    elffile = pytest.importorskip("elftools.elf.elffile", reason="pyelftools is not installed")
    with path.open("rb") as file:
        symbols: Iterable[object] = elffile.ELFFile(file).get_section_by_name(".dynsym")
        return {
            symbol.name
            for symbol in symbols.iter_symbols()  # type: ignore[attr-defined]
            if symbol["st_shndx"] == "SHN_UNDEF" and symbol["st_info"]["bind"] == "STB_GLOBAL"
        }
