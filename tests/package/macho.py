"""Reads what a Mach-O library needs of the machine that loads it, without a Mac.

``problems(path)`` is the check of the extension that was built for macOS: which system it is for,
which libraries and symbols it imports, what it exports, whether its signature is right (Apple
silicon kills a process for a wrong one), and whether it tells anything of the machine that built
it. The format is that of Apple's <mach-o/loader.h>, <mach-o/nlist.h> and <kern/cs_blobs.h>.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["LIBSYSTEM_IMPORTS", "UNDECLARED_IMPORTS", "Library", "MachOError", "problems", "read"]

LIBSYSTEM = "/usr/lib/libSystem.B.dylib"

_DECLARED = """
    __error arc4random_buf bind bzero ceil clock_gettime clock_gettime_nsec_np connect dladdr
    dlclose dlerror dlopen dlsym fcntl free freeaddrinfo getaddrinfo getenv getpeername getpid
    getsockname getsockopt if_nametoindex inet_ntop inet_pton kevent kqueue mach_task_self_
    mach_timebase_info malloc malloc_size memcpy memmove memset memset_pattern16 mmap munmap
    posix_memalign pthread_attr_destroy pthread_attr_init pthread_attr_setstacksize
    pthread_cond_destroy pthread_cond_signal pthread_cond_timedwait pthread_create
    pthread_detach pthread_mach_thread_np pthread_mutex_destroy pthread_mutex_lock
    pthread_mutex_unlock pthread_self pthread_sigmask realloc recv send setsockopt shutdown
    sigfillset socket socketpair strerror strlen sysctlbyname thread_policy_set
"""

#: What the extension imports of libSystem. All of it is in macOS 12.0 and later: test_macos.py
#: holds each against Apple's headers. A new one is added above, and that test says if it may.
LIBSYSTEM_IMPORTS = frozenset(_DECLARED.split())

#: Imports that the headers beside Zig do not declare, and since when libSystem has them:
#: arithmetic of 128 bits and filling memory, which compilers write (10.6; all of Apple silicon),
#: the linker's part in lazy binding (10.4), close(2) that is no cancellation point (10.5),
#: mach_vm_remap of <mach/mach_vm.h> (10.4), thread-local variables (10.7), and realpath(3) with a
#: null result (10.6).
UNDECLARED_IMPORTS = frozenset(
    {
        "__bzero",
        "__floatuntidf",
        "__udivti3",
        "_tlv_bootstrap",
        "close$NOCANCEL",
        "dyld_stub_binder",
        "mach_vm_remap",
        "realpath$DARWIN_EXTSN",
    }
)

#: What Zig's linker always exports. Nobody looks for it there.
LINKER_EXPORTS = frozenset({"__dso_handle", "_mh_dylib_header"})

CPUS = {0x0100000C: "arm64", 0x01000007: "x86_64"}
PLATFORM_MACOS = 1
FILE_DYLIB = 6

LC_REQ_DYLD = 0x80000000
LC_LOAD_DYLIB = 0xC
LC_ID_DYLIB = 0xD
LC_LOAD_WEAK_DYLIB = 0x18 | LC_REQ_DYLD
LC_SEGMENT_64 = 0x19
LC_RPATH = 0x1C | LC_REQ_DYLD
LC_CODE_SIGNATURE = 0x1D
LC_REEXPORT_DYLIB = 0x1F | LC_REQ_DYLD
LC_DYLD_INFO_ONLY = 0x22 | LC_REQ_DYLD
LC_BUILD_VERSION = 0x32
LC_DYLD_CHAINED_FIXUPS = 0x34 | LC_REQ_DYLD

BIND_OPCODE_MASK, BIND_IMMEDIATE_MASK = 0xF0, 0x0F
BIND_OPCODE_SET_DYLIB_ORDINAL_IMM = 0x10
BIND_OPCODE_SET_DYLIB_ORDINAL_ULEB = 0x20
BIND_OPCODE_SET_DYLIB_SPECIAL_IMM = 0x30
BIND_OPCODE_SET_SYMBOL_TRAILING_FLAGS_IMM = 0x40
BIND_OPCODE_SET_ADDEND_SLEB = 0x60
BIND_OPCODE_SET_SEGMENT_AND_OFFSET_ULEB = 0x70
BIND_OPCODE_ADD_ADDR_ULEB = 0x80
BIND_OPCODE_DO_BIND = 0x90
BIND_OPCODE_DO_BIND_ADD_ADDR_ULEB = 0xA0
BIND_OPCODE_DO_BIND_ADD_ADDR_IMM_SCALED = 0xB0
BIND_OPCODE_DO_BIND_ULEB_TIMES_SKIPPING_ULEB = 0xC0
#: How many numbers follow an opcode, if any do.
BIND_NUMBERS = {
    BIND_OPCODE_SET_ADDEND_SLEB: 1,
    BIND_OPCODE_SET_SEGMENT_AND_OFFSET_ULEB: 1,
    BIND_OPCODE_ADD_ADDR_ULEB: 1,
    BIND_OPCODE_DO_BIND_ADD_ADDR_ULEB: 1,
    BIND_OPCODE_DO_BIND_ULEB_TIMES_SKIPPING_ULEB: 2,
}
FLAT_LOOKUP = -2

CS_MAGIC_EMBEDDED_SIGNATURE = 0xFADE0CC0
CS_MAGIC_CODEDIRECTORY = 0xFADE0C02
CS_HASHTYPE_SHA256 = 2

WRITE, EXECUTE = 0x2, 0x4


class MachOError(ValueError):
    """Not a Mach-O library of 64 bits, or a broken one."""


@dataclass
class Library:
    """One library as its load commands describe it."""

    cpu: str
    file_type: int
    name: str | None = None
    platform: int | None = None
    #: The oldest system that loads it, such as ``(12, 0)``.
    minimum_os: tuple[int, int] | None = None
    dylibs: list[str] = field(default_factory=list)
    rpaths: list[str] = field(default_factory=list)
    #: Symbol, without C's underscore, to the library that dyld shall find it in; None: whichever
    #: is loaded, as Python's own.
    imports: dict[str, str | None] = field(default_factory=dict)
    exports: set[str] = field(default_factory=set)
    #: Segments that are both writable and executable.
    unsafe_segments: list[str] = field(default_factory=list)
    #: None: not signed. Otherwise whether every page has the hash that is in the signature.
    signature_is_right: bool | None = None


def read(path: Path) -> Library:
    """Parses the file; :class:`MachOError` if it is not a Mach-O library."""
    data = path.read_bytes()
    try:
        return _read(data)
    except (struct.error, IndexError, KeyError) as error:
        raise MachOError(f"{path}: {error!r}") from error


def _read(data: bytes) -> Library:
    magic, cpu, _, file_type, count, size, _, _ = struct.unpack_from("<8I", data)
    if magic != 0xFEEDFACF:
        raise MachOError("no Mach-O file of 64 bits")
    library = Library(cpu=CPUS[cpu], file_type=file_type)
    dyld: tuple[int, ...] = ()
    for command, body in _commands(data[32 : 32 + size], count):
        if command in (LC_LOAD_DYLIB, LC_LOAD_WEAK_DYLIB, LC_REEXPORT_DYLIB):
            library.dylibs.append(_string(body))
        elif command == LC_ID_DYLIB:
            library.name = _string(body)
        elif command == LC_RPATH:
            library.rpaths.append(_string(body))
        elif command == LC_BUILD_VERSION:
            library.platform, version = struct.unpack_from("<2I", body, 8)
            library.minimum_os = version >> 16, version >> 8 & 0xFF
        elif command == LC_SEGMENT_64:
            name = body[8:24].rstrip(b"\0").decode()
            _, protection = struct.unpack_from("<2i", body, 56)
            if protection & WRITE and protection & EXECUTE:
                library.unsafe_segments.append(name)
        elif command == LC_DYLD_INFO_ONLY:
            dyld = struct.unpack_from("<10I", body, 8)
        elif command == LC_DYLD_CHAINED_FIXUPS:
            raise MachOError("imports as chained fixups, which are not read here")
        elif command == LC_CODE_SIGNATURE:
            start, length = struct.unpack_from("<2I", body, 8)
            library.signature_is_right = _signature_is_right(data, start, length)
    if not dyld:
        raise MachOError("dyld is told nothing")
    _, _, bind, bind_size, weak, weak_size, lazy, lazy_size, export, export_size = dyld
    for start, length in ((bind, bind_size), (weak, weak_size), (lazy, lazy_size)):
        _read_imports(library, data[start : start + length])
    library.exports = {_plain(name) for name in _exports(data[export : export + export_size])}
    return library


def _commands(data: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    offset = 0
    for _ in range(count):
        command, size = struct.unpack_from("<2I", data, offset)
        if size < 8 or offset + size > len(data):
            raise MachOError("a load command is longer than the file says")
        yield command, data[offset : offset + size]
        offset += size


def _string(body: bytes) -> str:
    """The text of an ``lc_str``, whose offset comes first in every command that has one."""
    (offset,) = struct.unpack_from("<I", body, 8)
    return body[offset:].split(b"\0", 1)[0].decode()


def _plain(symbol: str) -> str:
    """The name without the underscore with which C's names begin."""
    return symbol.removeprefix("_")


def _number(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 number, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def _read_imports(library: Library, data: bytes) -> None:
    """What dyld looks for, and where, from its opcodes for binding, not from symbol tables."""
    at, ordinal, symbol = 0, 0, ""
    while at < len(data):
        opcode, immediate = data[at] & BIND_OPCODE_MASK, data[at] & BIND_IMMEDIATE_MASK
        at += 1
        if opcode == BIND_OPCODE_SET_DYLIB_ORDINAL_IMM:
            ordinal = immediate
        elif opcode == BIND_OPCODE_SET_DYLIB_ORDINAL_ULEB:
            ordinal, at = _number(data, at)
        elif opcode == BIND_OPCODE_SET_DYLIB_SPECIAL_IMM:
            ordinal = immediate - 16 if immediate else 0
        elif opcode == BIND_OPCODE_SET_SYMBOL_TRAILING_FLAGS_IMM:
            end = data.index(b"\0", at)
            symbol, at = data[at:end].decode(), end + 1
        for _ in range(BIND_NUMBERS.get(opcode, 0)):
            _, at = _number(data, at)
        if BIND_OPCODE_DO_BIND <= opcode <= BIND_OPCODE_DO_BIND_ULEB_TIMES_SKIPPING_ULEB:
            library.imports[_plain(symbol)] = _owner(library, ordinal)


def _owner(library: Library, ordinal: int) -> str | None:
    if ordinal == FLAT_LOOKUP:
        return None
    if ordinal <= 0:
        return "this library or the main program"
    return library.dylibs[ordinal - 1]


def _exports(data: bytes, node: int = 0, prefix: bytes = b"") -> Iterator[str]:
    """The names in a trie of them: a node ends a name if it has a terminal part."""
    if not data:
        return
    terminal_size, at = _number(data, node)
    if terminal_size:
        yield prefix.decode()
    at += terminal_size
    children, at = data[at], at + 1
    for _ in range(children):
        end = data.index(b"\0", at)
        edge = data[at:end]
        child, at = _number(data, end + 1)
        if child <= node:
            raise MachOError("the names of the exports run in a circle")
        yield from _exports(data, child, prefix + edge)


def _signature_is_right(data: bytes, start: int, length: int) -> bool:
    """Whether the pages are as signed, by the hashes of the code directory."""
    blob = data[start : start + length]
    magic, _, count = struct.unpack_from(">3I", blob)
    if magic != CS_MAGIC_EMBEDDED_SIGNATURE:
        return False
    for index in range(count):
        _, offset = struct.unpack_from(">2I", blob, 12 + 8 * index)
        directory = blob[offset:]
        if struct.unpack_from(">I", directory)[0] != CS_MAGIC_CODEDIRECTORY:
            continue
        hashes, _, _, slots, limit = struct.unpack_from(">5I", directory, 16)
        hash_size, hash_type, _, page_shift = struct.unpack_from("4B", directory, 36)
        if hash_type != CS_HASHTYPE_SHA256 or limit > start:
            return False
        page = 1 << page_shift
        wanted = [directory[hashes + hash_size * slot :][:hash_size] for slot in range(slots)]
        pages = [data[at : min(at + page, limit)] for at in range(0, limit, page)]
        return wanted == [hashlib.sha256(content).digest() for content in pages]
    return False


def problems(
    path: Path,
    *,
    cpu: str,
    minimum_os: tuple[int, int] = (12, 0),
    exports: Iterable[str] = ("PyInit__core",),
    builders_paths: Iterable[str | Path] = (),
) -> list[str]:
    """What is wrong with an extension module for macOS, a sentence each; nothing if it is right.

    ``builders_paths`` are folders of this machine that it must not mention, besides its home and
    its Python's.
    """
    library = read(path)
    found = []
    for what, is_, wanted in (
        ("the CPU", library.cpu, cpu),
        ("the platform", library.platform, PLATFORM_MACOS),
        ("the file type", library.file_type, FILE_DYLIB),
        ("the oldest system", library.minimum_os, minimum_os),
        ("what it loads", library.dylibs, [LIBSYSTEM]),
        ("where it looks for libraries", library.rpaths, []),
        ("what it exports", sorted(library.exports - LINKER_EXPORTS), sorted(exports)),
        ("what is writable and executable", library.unsafe_segments, []),
    ):
        if is_ != wanted:
            found.append(f"{what} is {is_!r} and not {wanted!r}")
    for symbol, owner in sorted(library.imports.items()):
        pythons = symbol.startswith(("Py", "_Py"))
        if pythons and owner is not None:
            found.append(f"{symbol} is looked for in {owner}, and Python has it elsewhere")
        elif not pythons and owner != LIBSYSTEM:
            found.append(f"{symbol} is looked for in {owner or 'whatever is loaded'}")
        elif not pythons and symbol not in LIBSYSTEM_IMPORTS | UNDECLARED_IMPORTS:
            found.append(f"{symbol} is not known to be in libSystem of macOS 12")
    if library.signature_is_right is None and cpu == "arm64":
        found.append("it is not signed, and Apple silicon loads no such library")
    elif library.signature_is_right is False:
        found.append("its signature is not that of its pages")
    contents = path.read_bytes()
    for folder in {str(Path.home()), sys.prefix, sys.base_prefix, *map(str, builders_paths)}:
        if len(folder) > 1 and folder.encode() in contents:
            found.append(f"it mentions {folder}")
    return found
