"""The shim that kernels for the tests of kTLS need on some CPUs: tests/ktls/xstate.py.

This machine's kernel shows what it is for, with a buffer smaller than the CPU's area: no CPU with
AMX is needed, and no kernel is booted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ktls import xstate
from ktls.errors import RigError
from ktls.xstate_child import HEADER, HEADER_END, WORDS
from servers import PATIENCE

#: XSTATE_BV's bit of what FXSAVE keeps of SSE. It lies in front of the header.
SSE = 1 << 1
XMM = slice(160, 416)

Job = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def size() -> int:
    """Of this host's XSAVE area."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or sys.maxsize < 1 << 32:
        pytest.skip("the shim is for Linux on x86-64")
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the shim is for glibc, which Debian's kernels run with")
    try:
        size = xstate.area_size()
    except OSError as error:
        pytest.skip(f"no process can be traced here: {error}")
    if size == 0:
        pytest.skip("this CPU has no XSAVE area")
    return size


@pytest.fixture(scope="module")
def bare(size: int) -> Iterator[Job]:
    """Runs xstate_child.py without the shim."""
    with child(os.environ) as job:
        yield job


@pytest.fixture(scope="module")
def shimmed(size: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """Runs it with the shim in front of the C library."""
    pytest.importorskip("ziglang", reason="no compiler for the shim: ziglang is not installed")
    shim = xstate.build(tmp_path_factory.mktemp("shim"))
    preload = " ".join(filter(None, [str(shim), os.environ.get("LD_PRELOAD")]))
    with child({**os.environ, "LD_PRELOAD": preload}) as job:
        yield job


@contextlib.contextmanager
def child(environment: Mapping[str, str]) -> Iterator[Job]:
    """One process for all of the jobs. It writes no error: the loader's, or its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ktls.xstate_child"],
        cwd=Path(__file__).parent,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def run(**job: Any) -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, process.communicate()[1]
        done: dict[str, Any] = json.loads(answer)
        return done

    try:
        yield run
        assert process.communicate(timeout=20 * PATIENCE)[1] == ""
    finally:
        process.kill()


@dataclass(frozen=True)
class Layout:
    """The layout of the CPU's area."""

    size: int
    #: Of each component behind the header: its number, where it begins and where it ends.
    components: list[tuple[int, int, int]]

    def filled(self, seed: int) -> bytes:
        """An area with something in every register, another for another seed."""
        area = bytearray(self.size)
        area[24:28] = (0x1F80).to_bytes(4, "little")  # MXCSR, its initial value.
        in_use = SSE
        area[XMM] = pattern(seed, XMM.start, XMM.stop)
        for number, start, end in self.components:
            in_use |= 1 << number
            area[start:end] = pattern(seed, start, end)
        area[HEADER : HEADER + 8] = in_use.to_bytes(8, "little")
        return bytes(area)


def pattern(seed: int, start: int, end: int) -> bytes:
    """No byte of it is 0, and each has another neighbour."""
    return bytes((place * 7 + seed * 31) % 251 + 1 for place in range(start, end))


@pytest.fixture(scope="module")
def layout(bare: Job) -> Layout:
    found = bare(do="layout")
    components = [(int(number), *places) for number, places in found["components"].items()]
    return Layout(found["size"], components)


#: How much of the area is given: the header alone, with AVX, with a half of the last component, and
#: as much as the kernels hold that need the shim.
CUTS: dict[str, Callable[[Layout], int]] = {
    "header": lambda layout: HEADER_END,
    "AVX": lambda layout: HEADER_END + 256,
    "half a component": lambda layout: sum(layout.components[-1][1:]) // 2,
    "guest": lambda layout: xstate.GUEST_AREA_SIZE,
}


@pytest.fixture(params=list(CUTS))
def cut(request: pytest.FixtureRequest, layout: Layout) -> int:
    if not layout.components:
        pytest.skip("this CPU has nothing behind the header")
    cut = CUTS[request.param](layout)
    if cut >= layout.size:
        pytest.skip(f"this CPU's area has {layout.size} bytes, no more than {cut}")
    return cut


# ---- What the kernel takes, and what the shim makes of it. -------------------------------------


def test_the_kernel_takes_no_part_of_an_area(bare: Job, layout: Layout, cut: int) -> None:
    """Why there is a shim. All of the registers stay as they are."""
    before = layout.filled(1)
    done = bare(do="write", before=before.hex(), given=layout.filled(2)[:cut].hex())
    assert done["errno"] == errno.EFAULT
    assert_registers(bytes.fromhex(done["area"]), before, layout, layout.size)


def test_a_part_is_set_with_the_shim(shimmed: Job, layout: Layout, cut: int) -> None:
    """What the part holds is there, to the bit; what it does not is as in a new process."""
    given = layout.filled(2)
    done = shimmed(do="write", before=layout.filled(1).hex(), given=given[:cut].hex())
    assert done["errno"] == 0
    assert_registers(bytes.fromhex(done["area"]), given, layout, cut)


def assert_registers(area: bytes, given: bytes, layout: Layout, cut: int) -> None:
    """The area has what was given up to the cut, and behind it is in its initial state."""
    assert len(area) == layout.size
    in_use = SSE
    assert area[XMM] == given[XMM]
    for number, start, end in layout.components:
        whole = end <= cut
        in_use |= whole << number
        assert area[start:end] == (given[start:end] if whole else bytes(end - start)), number
    assert int.from_bytes(area[HEADER : HEADER + 8], "little") == in_use


@pytest.mark.parametrize("more", [0, 256])
def test_a_whole_area_passes_the_shim_as_it_is(shimmed: Job, layout: Layout, more: int) -> None:
    """Of a buffer that is larger than the area, the kernel takes what it needs."""
    given = layout.filled(2)
    done = shimmed(do="write", before=layout.filled(1).hex(), given=(given + bytes(more)).hex())
    assert done["errno"] == 0
    assert_registers(bytes.fromhex(done["area"]), given, layout, layout.size)


def test_without_a_whole_header_there_is_no_area(shimmed: Job, layout: Layout) -> None:
    """The shim does not guess what is in use."""
    given = layout.filled(2)[: HEADER_END - 8]
    done = shimmed(do="write", before=layout.filled(1).hex(), given=given.hex())
    assert done["errno"] == errno.EFAULT


@pytest.mark.parametrize("place", [HEADER + 8, HEADER_END - 1], ids=["XCOMP_BV", "reserved"])
def test_the_kernel_judges_the_header(shimmed: Job, layout: Layout, place: int) -> None:
    """What is wrong without the shim stays wrong: no other format, nothing in reserved bytes."""
    if layout.size == HEADER_END:
        pytest.skip("this CPU has nothing behind the header")
    given = bytearray(layout.filled(2)[:HEADER_END])
    given[place] = 1
    done = shimmed(do="write", before=layout.filled(1).hex(), given=given.hex())
    assert done["errno"] == errno.EINVAL


def test_peeking_is_as_in_the_c_library(bare: Job, shimmed: Job) -> None:
    """The word is the result, whatever it is, and errno says whether there is none."""
    expected = {"read": [word for word in WORDS for _ in range(2)], "errno": errno.EIO}
    assert bare(do="peek") == expected
    assert shimmed(do="peek") == expected


def test_the_size_is_that_of_what_the_kernel_takes(size: int, layout: Layout) -> None:
    assert size == layout.size


# ---- When it is used. --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "size", "used"),
    [
        ("auto", 0, []),
        ("auto", 2432, []),
        ("auto", 2696, []),
        ("auto", 11008, ["6.1.176", "6.12.113"]),
        ("never", 11008, []),
        ("always", 2432, ["6.1.176", "6.12.113", "6.13.0", "7.2.7"]),
    ],
)
def test_it_is_loaded_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str, size: int, used: list[str]
) -> None:
    """Kernels from 6.13 on ask the host how large its area is, and run as they are."""
    monkeypatch.setattr(xstate, "build", lambda folder: folder / "shim.so")
    shim = xstate.choose(mode, size, tmp_path)
    releases = ["6.1.176", "6.12.113", "6.13.0", "7.2.7"]
    assert [release for release in releases if shim.under(release)] == used
    assert f"({mode}): {'used' if used else 'not used'}" in shim.reason
    assert f"{size:,} bytes" in shim.reason


def test_it_is_not_built_where_it_is_not_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No compiler is needed there."""
    monkeypatch.setattr(sys, "executable", "/no/python")
    assert xstate.choose("auto", 2432, tmp_path).library is None


def test_it_is_built_once(shimmed: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And again when its source has changed; a source that does not compile says so."""
    built = xstate.build(tmp_path)
    monkeypatch.setattr(xstate, "SOURCE", tmp_path / "other.c")
    xstate.SOURCE.write_text("no C", encoding="utf-8")
    with pytest.raises(RigError, match="cannot be compiled"):
        xstate.build(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([built, xstate.SOURCE])
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", "/no/python")
    assert xstate.build(tmp_path) == built
