"""What a user installs: the wheel holds all it needs, and nothing of the machine that built it."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import hftws

ROOT = Path(__file__).parents[2]


WHEEL_SIZE_MAX = 3 * 2**20


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build_wheel(target: Path, **variables: str) -> Path:
    """As `pip install .` builds it, but with the tools that are installed already."""
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(target))
    run(sys.executable, "-m", "pip", "wheel", *options, ROOT, cwd=target, **variables)
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"), HFTWS_BUILD_IPSEC_MB="")


def test_the_wheel_has_the_extension_types_data_and_licences(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    extensions = [name for name in names if name.endswith(".so")]
    assert len(extensions) == 1, extensions
    assert re.fullmatch(r"hftws/_core\.cpython-3\d+-.*\.so", extensions[0])
    for name in ("py.typed", "_core.pyi", "client.py", "exchange/server.py"):
        assert f"hftws/{name}" in names
    assert any(re.fullmatch(r"hftws/exchange/data/.*\.jsonl", name) for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("LICENSE-hftbacktest") for name in names)
    assert not any(name.startswith(("tests", "src", "bench")) for name in names)


def test_the_tag_names_this_interpreter(wheel: Path) -> None:
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"-{python}-{python}-" in wheel.name


@pytest.mark.skipif(sys.platform != "linux", reason="ldd is a tool of Linux")
def test_the_extension_links_only_the_c_library(wheel: Path, tmp_path: Path) -> None:
    """OpenSSL is found at run time; a link against it would tie the wheel to one version."""
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".so")]
    needed = run("ldd", archive.extract(name, tmp_path), cwd=tmp_path)
    assert "libc." in needed
    assert "libssl" not in needed
    assert "libcrypto" not in needed


def test_it_installs_and_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    code = (
        "import hftws, pathlib, sys\n"
        "client = hftws.Client('wss://127.0.0.1:1/', print, verify=False)\n"
        "try: client.connect()\n"
        "except hftws.ConnectError as error: print('refused' in str(error))\n"
        "print(pathlib.Path(hftws.__file__).is_relative_to(sys.prefix))\n"
    )
    assert run(python, "-c", code, cwd=tmp_path).split() == ["True", "True"]


ARCHIVE = next(Path("/usr/lib").glob("x86_64-linux-gnu/libIPSec_MB.a"), None)


def licences(wheel: Path) -> dict[str, str]:
    """The licences that the metadata names, which have to be all of them."""
    archive = zipfile.ZipFile(wheel)
    (metadata_name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
    folder = metadata_name.removesuffix("METADATA") + "licenses/"
    metadata = email.message_from_bytes(archive.read(metadata_name))
    named = metadata.get_all("License-File") or []
    assert sorted(folder + name for name in named) == sorted(
        name for name in archive.namelist() if name.startswith(folder)
    )
    return {name.rpartition("/")[2]: archive.read(folder + name).decode() for name in named}


def test_a_wheel_without_libipsec_mb_does_not_have_its_licence(wheel: Path) -> None:
    assert sorted(licences(wheel)) == ["LICENSE", "LICENSE-hftbacktest"]


def test_no_wheel_is_built_with_libipsec_mb_and_without_its_licence(tmp_path: Path) -> None:
    """Its licence (BSD-3-Clause) asks that a binary comes with it."""
    archive = tmp_path / "libIPSec_MB.a"
    archive.touch()
    text = tmp_path / "LICENSE"
    text.write_text("Copyright (c) 2012, somebody else")
    result = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"],
        cwd=ROOT,
        env={
            **os.environ,
            "HFTWS_BUILD_IPSEC_MB": str(archive),
            "HFTWS_BUILD_IPSEC_MB_LICENCE": str(text),
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert f"is in none of {text}" in result.stderr
    assert not (tmp_path / "dist").exists() or not list((tmp_path / "dist").iterdir())


def test_the_version_is_written_in_one_place(wheel: Path) -> None:
    """src/constants.zig has it; module, metadata and User-Agent (test_handshake.py) take it."""
    source = (ROOT / "src" / "constants.zig").read_text(encoding="utf-8")
    match = re.search(r'pub const version = "([^"]+)"', source)
    assert match is not None
    version = match[1]
    archive = zipfile.ZipFile(wheel)
    metadata = email.message_from_bytes(archive.read(f"hftws-{version}.dist-info/METADATA"))
    assert metadata["Version"] == version
    assert wheel.name.startswith(f"hftws-{version}-")
    assert hftws.__version__ == version
    manifest = (ROOT / "build.zig.zon").read_text(encoding="utf-8")
    assert f'.version = "{version}"' in manifest, "which can import nothing, so a test holds it"


AVX2 = {"sse4_2", "aes", "pclmulqdq", "avx", "avx2", "bmi2"}
AVX512 = {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl", "avx512ifma"}
VARIANTS = {
    "AVX-512 VAES": AVX2 | AVX512 | {"vaes", "vpclmulqdq", "gfni", "sha_ni"},
    "AVX2": AVX2,
    "SSE": {"sse4_2", "aes", "pclmulqdq"},
}


def cpu_flags() -> set[str]:
    """The CPU features that the kernel lists and programs may use."""
    match = re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert match is not None
    return set(match[1].split())


@pytest.fixture(scope="module")
def wheel_with_ipsec_mb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by a fixture, as the one above: a compiler may take longer than a test may."""
    if ARCHIVE is None:
        pytest.skip("libipsec-mb's archive is not installed")
    target = tmp_path_factory.mktemp("wheel_with_ipsec_mb")
    return build_wheel(target, HFTWS_BUILD_IPSEC_MB=str(ARCHIVE))


def test_a_wheel_with_libipsec_mb_inside_is_small_and_needs_no_other(
    wheel_with_ipsec_mb: Path, tmp_path: Path
) -> None:
    path = wheel_with_ipsec_mb
    assert path.stat().st_size < WHEEL_SIZE_MAX
    licence = licences(path)["LICENSE-libipsec-mb"]
    assert "Intel Corporation" in licence
    words = " ".join(licence.split())
    for condition in (
        "Redistributions of source code must retain the above copyright notice",
        "Redistributions in binary form must reproduce the above copyright notice",
        "Neither the name of Intel Corporation nor the names of its contributors may be used",
        "THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS",
    ):
        assert condition in words
    zipfile.ZipFile(path).extractall(tmp_path / "site")
    code = (
        "import hftws, hftws.exchange\n"
        "with hftws.exchange.launch() as exchange:\n"
        "    with hftws.Client(exchange.url + '/ws', ca_file=exchange.ca_file) as client:\n"
        "        print(client.info()['engine'], client.info()['aead'], sep='\\n')\n"
        "print('libIPSec_MB' in open('/proc/self/maps').read())\n"
    )
    engine, aead, loaded = run(
        sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site")
    ).splitlines()
    assert engine == "direct"
    # Compiled for the oldest CPU, it takes the newest code that is linked in and runs on this one:
    # on one without AES, such as some hypervisors give to their guests, none of it.
    newest = next((name for name, flags in VARIANTS.items() if flags <= cpu_flags()), None)
    if newest is None:
        assert aead == "OpenSSL EVP"
    else:
        assert aead.startswith("libipsec-mb ")
        assert aead.endswith(f", {newest}")
    assert loaded == "False"
    if shutil.which("nm") is not None:
        (module,) = (tmp_path / "site" / "hftws").glob("*.so")
        exported = run("nm", "-D", "--defined-only", module, cwd=tmp_path)
        assert [line.split()[-1] for line in exported.splitlines()] == ["PyInit__core"]


def test_the_source_distribution_can_build_itself(tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=ROOT)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "build.zig", "build.zig.zon", "hatch_build.py", "src/c/python.h", "src/core.zig",
        "docs/tls-servers.md", "docs/conformance.md", "release/__main__.py",
    ):  # fmt: skip
        assert name in names
    assert not [name for name in names if name.endswith(".so")]

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = {name for name in re.findall(r"\]\(([^)#]+)", readme) if "://" not in name}
    assert any(name.endswith(".svg") for name in shown)
    assert shown - names == set(), "README links to them"
    if (ROOT / ".git").exists():
        tracked = run("git", "ls-files", "bench", "docs", cwd=ROOT).split()
        assert set(tracked) - names == set()


def test_a_build_by_hand_says_for_which_python_it_is(tmp_path: Path) -> None:
    """That is the first `python3` on the path, and not the one that runs ziglang."""

    def said(*options: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "ziglang", "build", "python", *options],
            cwd=ROOT,
            env={
                **os.environ,
                "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
                "ZIG_DEBUG_CMD": "1",
            },
            capture_output=True,
            text=True,
            check=True,
        ).stderr

    first = tmp_path / "python3"
    first.symlink_to(Path(sys.executable).resolve())
    version = ".".join(map(str, sys.version_info[:3]))
    assert f"builds for CPython {version}, {first}; for another: -Dpython=" in said()
    assert f"builds for CPython {version}, {sys.executable};" in said(f"-Dpython={sys.executable}")
    known = said("-Dpython-include=include", "-Dmodule-file=_core.so")
    assert "builds for" not in known, "hatch_build.py has chosen it"
