"""Runs the tests on every Python that is installed, against the wheel that a user would get."""

import shutil

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "lint", "types"]

PROJECT = nox.project.load_toml("pyproject.toml")


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Every test, through an installed wheel."""
    session.install(*nox.project.dependency_groups(PROJECT, "test"), ".[exchange]")
    session.chdir("tests")  # Otherwise processes that tests start would import the checkout.
    ignored = ("--ignore=package", "--ignore=autobahn")
    session.run("pytest", "-c", "../pyproject.toml", *ignored, ".", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """The house format: ruff and zig fmt."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"), "ziglang==0.17.1")
    session.run("python", "-m", "ziglang", "fmt", "--check", "build.zig", "src")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy on the package, pyright on examples, and the stub compared with the extension."""
    groups = nox.project.dependency_groups(PROJECT, "types", "test")
    session.install(*groups, ".[exchange]", "hatchling")
    session.run("mypy")
    session.run("basedpyright")
    allowlist = "tests/package/stubtest-allowlist.txt"
    session.run(
        "python", "-m", "mypy.stubtest", "hftws._core",
        "--allowlist", allowlist, "--ignore-unused-allowlist",
    )  # fmt: skip


@nox.session
def wheels(session: nox.Session) -> None:
    """A release into dist/, checked and tried: `nox -s wheels -- --python 3.13` for a part."""
    groups = nox.project.dependency_groups(PROJECT, "test", "wheels")
    session.install(*groups, "hatchling>=1.25,<2", "ziglang==0.17.1")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "release", *session.posargs)
    session.run("python", "hatch_build.py")
    tests = ("tests/package/test_dist.py", "tests/package/test_wheel.py")
    patience = {"HFTWS_TEST_PATIENCE": "5"}  # A compiler at work takes longer than a client.
    session.run("python", "-m", "pytest", *tests, "--dist=dist", env=patience)
