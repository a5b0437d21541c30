"""What tools see: the stub, signatures and docstrings say what the extension does."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from stubs import STUB, has_docstring, named, with_docstrings

import hftws
from hftws import _core

# ---- Docstrings. -------------------------------------------------------------------------------


def test_the_stub_has_the_docstrings_of_the_extension() -> None:
    """Editors show the stub's: with a text of its own it would soon say something else."""
    source = STUB.read_text(encoding="utf-8")
    assert with_docstrings(source) == source, "`make stubs` copies the docstrings into the stub"


def test_everything_public_is_in_the_stub() -> None:
    """And has a docstring of its own, not one that Python has for every object."""
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    declared = [(node, found) for node, found, _ in named(tree.body, _core)]
    names = {getattr(node, "name", None) or node.target.id for node, _ in declared}  # type: ignore
    classes = [_core.ClientBase, _core.Message, _core.Reservation]
    public = {name for owner in [_core, *classes] for name in vars(owner) if name[0] != "_"}
    assert public <= names
    for node, found in declared:
        assert not has_docstring(found) or len(inspect.getdoc(found) or "") > 15, ast.dump(node)


@pytest.mark.parametrize("name", hftws.__all__)
def test_what_the_package_exports_has_a_docstring(name: str) -> None:
    found = getattr(hftws, name)
    if isinstance(found, str):
        return
    assert inspect.getdoc(found)
    if inspect.isclass(found):
        for member, value in vars(found).items():
            if member[0] != "_" and callable(value):
                assert inspect.getdoc(value), member


# ---- Signatures. -------------------------------------------------------------------------------


def functions() -> Iterator[Any]:
    """Every public function of the package and of its classes, as a call of nothing."""
    client = hftws.Client("ws://127.0.0.1:1/")
    for name in hftws.__all__:
        function = getattr(hftws, name)
        if inspect.isroutine(function):
            yield pytest.param(function, id=name)
    for name, _ in inspect.getmembers(type(client), callable):
        if name[0] != "_" or name in ("__enter__", "__exit__"):
            yield pytest.param(getattr(client, name), id=f"Client.{name}")
    reservation = client.reserve(1, text=True)
    for name in ("__enter__", "__exit__"):
        yield pytest.param(getattr(reservation, name), id=f"Reservation.{name}")


def refuses_arguments(function: Callable[..., object], *values: Any, **named_values: Any) -> bool:
    """Whether it is the number or the names of the arguments that are wrong. None of these calls
    can do anything: the value is of no type that is taken, and there is no connection."""
    try:
        function(*values, **named_values)
    except TypeError as error:
        said = str(error)
        return any(word in said for word in ("positional", "keyword", "takes", "needs", "missing"))
    except Exception:
        pass
    return False


@pytest.mark.parametrize("function", list(functions()))
def test_calls_are_what_the_signature_says(function: Callable[..., object]) -> None:
    """By name, by place, or both; so `send(data=...)`, too."""
    signature = inspect.signature(function)
    wrong = object()
    parameters = list(signature.parameters.values())
    takes_any = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    parameters = [each for each in parameters if each.kind is not each.VAR_POSITIONAL]
    by_place = [each for each in parameters if each.kind is not each.KEYWORD_ONLY]
    required = {each.name: wrong for each in parameters if each.default is each.empty}
    assert takes_any or refuses_arguments(function, *[wrong] * (len(by_place) + 1))
    assert refuses_arguments(function, **{**required, "nonsense": wrong})
    if required:
        assert refuses_arguments(function)
    for parameter in parameters:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            assert refuses_arguments(function, **{**required, parameter.name: wrong})
        else:
            assert not refuses_arguments(function, **{**required, parameter.name: wrong})


def test_data_may_be_named() -> None:
    client = hftws.Client("ws://127.0.0.1:1/")
    for call in (
        lambda: client.send(data=b"1", text=True),
        lambda: client.ping(payload=b"1"),
        lambda: client.reserve(n=1, text=True).__enter__(),
    ):
        with pytest.raises(RuntimeError, match="not connected"):
            call()
    with pytest.raises(TypeError, match=r"send\(\) got 'data' twice"):
        client.send(b"1", data=b"2")  # type: ignore[misc]


# ---- What a client offers. ---------------------------------------------------------------------


def test_a_client_offers_only_what_it_can_do() -> None:
    """Completion shows all of it: the GET of hftws.get() is not of use on a client."""
    offered = {name for name in dir(hftws.Client) if name[0] != "_"}
    assert offered == {
        "call_soon_threadsafe", "close", "close_code", "close_reason", "connect", "fileno", "info",
        "is_open", "on_close", "on_error", "on_msg", "on_open", "ping", "poll", "reserve",
        "response_headers", "run", "send", "stats", "stop", "subprotocol", "url", "wait_for_room",
        "wants_write",
    }  # fmt: skip


def test_fetch_needs_a_client_made_for_it() -> None:
    with pytest.raises(TypeError, match="a client, not 5"):
        _core.fetch(5)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"fetch\(\) is for hftws.get\(\)"):
        _core.fetch(hftws.Client("ws://127.0.0.1:1/"))
