"""The modules import downward only, and ARCHITECTURE.md shows their order and the tree as they are.

The first half holds the sources to it, the second half tries the tool on trees that are made up.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from architecture import order
from architecture.__main__ import COMMAND, PAGE, ROOT, generated, rewritten, section
from architecture.imports import imports, without_tests, zig_imports
from architecture.order import (
    FOR_TESTS,
    broken_rules,
    circles,
    drawing,
    drawn,
    graphs,
    layers,
    upward,
)
from architecture.tree import first_sentence, tree, undescribed

FILES = imports(ROOT)
GRAPHS = graphs(FILES)

needs_checkout = pytest.mark.skipif(
    not (ROOT / "bench").is_dir(), reason="a source distribution has no bench/"
)


def expect_none(faults: list[str]) -> None:
    assert not faults, "\n".join(["", *faults])  # All of them: pytest would cut a list.


def test_no_file_imports_itself_through_others() -> None:
    expect_none(circles(FILES))


@pytest.mark.parametrize("title", GRAPHS)
def test_no_module_imports_itself_through_others(title: str) -> None:
    """Two modules can do that with no circle of files: each has a file that imports the other."""
    expect_none(circles(GRAPHS[title]))


@pytest.mark.parametrize("title", GRAPHS)
def test_no_import_goes_upward(title: str) -> None:
    """Held against ARCHITECTURE.md. If the order has to change, `make map` draws it again, and the
    reader of the change sees it."""
    page_order = drawn(section(PAGE.read_text("utf-8"), "order"))
    expect_none(upward(GRAPHS[title], page_order.get(title, [])))


def test_rules_that_name_a_module() -> None:
    expect_none(broken_rules(FILES))


@needs_checkout
def test_every_file_says_what_it_is_for() -> None:
    expect_none(undescribed(ROOT))


@needs_checkout
@pytest.mark.parametrize("name", ["order", "map"])
def test_the_page_is_up_to_date(name: str) -> None:
    same = section(PAGE.read_text("utf-8"), name) == generated(ROOT)[name]
    assert same, f"ARCHITECTURE.md differs from the sources in {name!r}: `{COMMAND}` rewrites it"


#: Who calls what may sleep: the notifier's own files, the loop, and in the binding its one caller.
MAY_SLEEP = {
    r"\bOs\.(epollWait|epollWaitNs|kqueueWait)\(": {
        "src/notifier/epoll.zig",
        "src/notifier/kqueue.zig",
    },
    r"\b[Nn]otifier\.wait\b": {"src/loop.zig"},
    r"\bloop(\.\?)?\.wait\(": {"src/python/host.zig"},
    # By the owner's wish, until other threads release the bytes that fill the ring.
    r"\bpthread_cond_timedwait\(": {"src/ringbuffer.zig"},
    r"\b(nanosleep|usleep|ppoll|pselect|std\.Thread\.sleep)\(": set(),
}


@pytest.mark.parametrize("call", MAY_SLEEP)
def test_one_place_sleeps(call: str) -> None:
    """A second one would hold up every connection of the loop."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "src").rglob("*.zig")
        if not path.relative_to(ROOT).as_posix().startswith(FOR_TESTS)
        and not path.stem.endswith(("_test", "_fuzz"))
        and re.search(call, without_tests(path.read_text("utf-8")))
    }
    assert found == MAY_SLEEP[call]


def test_the_page_has_the_moves_between_states() -> None:
    """The table of the walk is that of the source."""
    source = (ROOT / "src/connection/state.zig").read_text("utf-8")
    moves = {
        state: re.findall(r"\.(\w+)", targets)
        for state, targets in re.findall(
            r"^    \.(\w+) = \.initMany\(&\.\{(.*)\}\),$", source, re.M
        )
    }
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", PAGE.read_text("utf-8"), re.M)
    shown = {state: re.findall(r"`(\w+)`", targets) for state, targets in rows if "`" in targets}
    assert len(moves) == 8
    assert {state: set(targets) for state, targets in shown.items()} == {
        state: set(targets) for state, targets in moves.items()
    }


# On trees that are made up.


def made(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, "utf-8")
    return root


def zig(*targets: str) -> str:
    lines = [f'const m{number} = @import("{target}");' for number, target in enumerate(targets)]
    return "\n".join(["//! A file.", *lines, ""])


def test_a_circle_is_found(tmp_path: Path) -> None:
    files = imports(made(tmp_path, {
        "src/ssl.zig": zig("ssl/direct.zig", "std"),
        "src/ssl/direct.zig": zig("record.zig"),
        "src/ssl/record.zig": zig("../ssl.zig", "tickets.zig"),
        "src/ssl/tickets.zig": zig(),
    }))  # fmt: skip
    assert circles(files) == [
        "src/ssl.zig ─▶ src/ssl/direct.zig ─▶ src/ssl/record.zig ─▶ src/ssl.zig"
    ]
    assert circles(graphs(files)["inside ssl"]) == ["direct ─▶ record ─▶ ssl.zig ─▶ direct"]


def test_every_circle_is_found_and_the_shortest_way_is_told() -> None:
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": {"a"}, "x": {"y", "a"}, "y": {"x"}, "z": {"x"}}
    assert circles(graph) == ["a ─▶ c ─▶ a", "x ─▶ y ─▶ x"]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_a_circle_of_modules_without_a_circle_of_files(tmp_path: Path) -> None:
    files = imports(made(tmp_path, {
        "src/os.zig": zig("notifier/epoll.zig"),
        "src/os/linux.zig": zig(),
        "src/notifier.zig": zig("os/linux.zig"),
        "src/notifier/epoll.zig": zig(),
    }))  # fmt: skip
    assert not circles(files)
    assert circles(graphs(files)["modules"]) == ["notifier ─▶ os ─▶ notifier"]


def test_python_has_circles_too(tmp_path: Path) -> None:
    files = imports(made(tmp_path, {
        "hftws/__init__.py": "from hftws.client import Client\n",
        "hftws/client.py": "from hftws import _core\nimport hftws.rest\n",
        "hftws/rest.py": "def get():\n    from .client import Client\n",
        "hatch_build.py": "from release import matrix\n",
        "release/__init__.py": "",
        "release/matrix.py": "import hatch_build\n",
        "src/python/module.zig": zig("core"),
    }))  # fmt: skip
    assert files["hftws/__init__.py"] == {"hftws/client.py"}
    assert files["hftws/client.py"] == {"hftws/rest.py", "src/python/module.zig"}
    assert circles(files) == [
        "hatch_build.py ─▶ release/matrix.py ─▶ hatch_build.py",
        "hftws/client.py ─▶ hftws/rest.py ─▶ hftws/client.py",
    ]


@pytest.mark.parametrize(
    "code",
    [
        '// const a = @import("b.zig");\n',
        'const a = 1;\n\ntest "a" {\n    _ = @import("b.zig");\n}\n',
        'test {\n    _ = @import("b.zig");\n}\n',
        'const testing = std.testing;\nconst b = @import("b.zig");\n',
    ],
)
def test_comments_and_tests_import_nothing(code: str) -> None:
    assert list(zig_imports("src/a.zig", without_tests(code))) == []


def test_imports_within_functions_count() -> None:
    code = 'pub fn a() void {\n    return @import("../os/linux.zig").b();\n}\n'
    assert list(zig_imports("src/ssl/a.zig", code)) == ["src/os/linux.zig"]


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    tree = {
        "src/connection.zig": zig("ws.zig", "os.zig"),
        "src/ws.zig": zig(),
        "src/os.zig": zig(),
        "src/histogram.zig": zig(),
    }
    before = drawn(drawing(imports(made(tmp_path, tree))))
    assert before["modules"] == [["connection"], ["histogram", "os", "ws"]]
    # Between modules that stood beside each other, an arrow is new, but not upward.
    tree |= {"src/histogram.zig": zig("connection.zig"), "src/ws.zig": zig("os.zig")}
    after = graphs(imports(made(tmp_path, tree)))
    assert upward(after["modules"], before["modules"]) == [
        "histogram imports connection, which is drawn above it"
    ]


@pytest.mark.parametrize(
    ("path", "target", "told"),
    [
        ("src/ws/parser.zig", "../socket.zig", "ws imports socket"),
        ("src/deflate.zig", "ringbuffer.zig", "deflate imports os"),  # Through another one.
        ("src/connection.zig", "python", "src/connection.zig imports Python.h"),
        ("src/constants.zig", "ws.zig", "src/constants.zig imports src/ws.zig"),
        ("src/os.zig", "testing/clock.zig", "src/os.zig imports src/testing/clock.zig"),
    ],
)
def test_a_broken_rule_is_found(tmp_path: Path, path: str, target: str, told: str) -> None:
    root = made(tmp_path, {
        "src/os.zig": zig(),
        "src/ringbuffer.zig": zig("os.zig"),
        "src/socket.zig": zig(),
        "src/ws.zig": zig("constants.zig"),
        "src/constants.zig": zig(),
        "src/python/py.zig": zig("python"),
        "src/testing/clock.zig": zig("../os.zig"),
        "src/ws/parser_test.zig": zig("../testing/clock.zig"),
    })  # fmt: skip
    assert not broken_rules(imports(root))
    made(root, {path: zig(target)})
    (broken,) = broken_rules(imports(root))
    assert broken.startswith(told)


def test_a_name_stands_above_all_that_it_imports() -> None:
    graph = {"top": {"left", "bottom"}, "left": {"bottom"}, "bottom": set(), "alone": set()}
    assert layers(graph) == [["top"], ["left"], ["alone", "bottom"]]
    # With a circle there is still something to draw.
    assert layers({"top": {"a"}, "a": {"b"}, "b": {"a", "c"}, "c": set()}) == [
        ["top"], ["a", "b"], ["c"]
    ]  # fmt: skip


def test_what_is_drawn_can_be_read_back() -> None:
    graphs_before = {title: layers(graph) for title, graph in GRAPHS.items()}
    for title, read in drawn(drawing(FILES)).items():
        # `constants` has a line of its own, and names without arrows come last in theirs.
        flat = {name for names in read for name in names}
        assert flat == {name for names in graphs_before[title] for name in names}
        assert upward(GRAPHS[title], read) == []


def test_a_file_that_does_not_say_what_it_is_for_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("architecture.tree.FOLDERS", {"src": "The core", "gone": "Nothing"})
    root = made(tmp_path, {
        "src/a.zig": "//! Says it.\n",
        "src/b.zig": "const std = @import(\"std\");\n",
        "src/a/c.zig": "/// About the next line only.\nconst c = 1;\n",
        "hftws/__init__.py": '"""A client."""\n',
        "hftws/d.py": '# A comment.\nimport os\n',
        "hftws/data/e.py": '"""Says it."""\n',
    })  # fmt: skip
    assert undescribed(root) == [
        "hftws/d.py does not begin with a sentence that says what it is for",
        "src/a/c.zig does not begin with a sentence that says what it is for",
        "src/b.zig does not begin with a sentence that says what it is for",
        "hftws/data/ has no line in FOLDERS of tests/architecture/tree.py",
        "gone/ is in FOLDERS of tests/architecture/tree.py, and not in the tree",
    ]


def test_the_map_of_a_small_tree(tmp_path: Path) -> None:
    root = made(tmp_path, {
        "Makefile": "# What a developer does. And more.\nall:\n",
        "src/ssl.zig": "//! TLS without I/O: bytes in,\n//! bytes out.\n//!\n//! More.\n",
        "src/ssl/direct.zig": "//! The direct engine. It is quick.\n",
        "src/ssl/direct_test.zig": "//! Tests.\n",
        "src/ssl/direct_late_test.zig": "//! Tests.\n",
        "src/ssl/whole_test.zig": "//! Tests.\n",
        "hftws/__init__.py": '"""A client."""\n',
        "tests/ci/__init__.py": '"""The runner of CI.\n\nMore.\n"""\n',
        "tests/ci/lanes.py": '"""Lanes."""\n',
        "tests/servers.py": '"""Scripted servers."""\n',
        "tests/test_b.py": '"""B."""\n',
        "tests/test_a.py": '"""A."""\n',
        "bench/floors/floor.c": "/* The floor:\n * C.\n *\n * More. */\n",
    })  # fmt: skip
    lines = tree(root).splitlines()
    shown = [line for line in lines if line and not line.startswith("**")]
    assert shown == [
        "- `Makefile`: What a developer does",
        "- `ssl.zig`, `ssl/`: TLS without I/O: bytes in, bytes out",
        "  - tests: `whole_test.zig`",
        "  - `direct.zig`, `_test`: The direct engine",
        "    - tests: `direct_late_test.zig`",
        "- `ci/`: The runner of CI",
        "  - `lanes.py`: Lanes",
        "- `servers.py`: Scripted servers",
        "- tests: `test_a.py`, `test_b.py`",
        "- `floors/`: C programs for the benchmarks: the least that a message can cost",
        "  - `floor.c`: The floor: C",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two.", "One"),
        ("RFC 7692, section 7.2: zlib.zig has it. More", "RFC 7692, section 7.2: zlib.zig has it"),
        ("Words of a layer (RFC 8446; 4 to 6) " + "that go on " * 7, "Words of a layer " +
         ("that go on " * 7).strip()),
        ("What is said of a file: " + "and on " * 20, "What is said of a file"),
        ("Short: what is said of it, " + "and on " * 20, "Short: what is said of it"),
    ],
)  # fmt: skip
def test_the_first_sentence(text: str, sentence: str) -> None:
    assert first_sentence(" ".join(text.split())) == sentence


def test_only_the_sections_of_a_page_are_rewritten() -> None:
    page = (
        "a\n<!-- generated: order -->\nold\n<!-- end -->\nb\n<!-- generated: map -->\n<!-- end -->"
    )
    new = rewritten(page, {"order": "new", "map": "- x"})
    assert new == (
        "a\n<!-- generated: order -->\n\nnew\n\n<!-- end -->\nb\n"
        "<!-- generated: map -->\n\n- x\n\n<!-- end -->"
    )
    assert section(new, "order") == "new"
    assert rewritten(new, {"order": "new", "map": "- x"}) == new
    with pytest.raises(ValueError, match="0 sections"):
        rewritten("a", {"order": "new"})


def test_names_of_the_rules_are_names_of_modules() -> None:
    """A module that is renamed takes its rule along; those to come are named already."""
    to_come = {"decode", "feed", "loop"}
    modules = GRAPHS["modules"].keys()
    assert {*order.NO_IO, *order.IO, *order.DRAWN_INSIDE, order.CONSTANTS} - to_come <= modules
