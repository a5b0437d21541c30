"""The dictionaries of `info()` and `stats()` have what `hftws.types` says, on every engine."""

from __future__ import annotations

import ast
import contextlib
import inspect
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from frames import Inbox, Serve, connected, poll_until

import hftws
import hftws.types
from hftws.types import Info, Stats


def check(value: object, expected: Any, name: str) -> None:
    """That a value is what an annotation says; a TypedDict has exactly its keys."""
    if typing.is_typeddict(expected):
        assert type(value) is dict, name
        hints = typing.get_type_hints(expected)
        assert expected.__required_keys__ == set(hints)
        assert set(value) == set(hints), name
        for key, hint in hints.items():
            check(value[key], hint, f"{name}[{key!r}]")
    elif isinstance(expected, types.UnionType) or typing.get_origin(expected) is typing.Union:
        choices = [each for each in typing.get_args(expected) if each is not type(None)]
        assert len(choices) == 1
        if value is not None:
            check(value, choices[0], name)
    elif typing.get_origin(expected) is typing.Literal:
        assert value in typing.get_args(expected), name
    else:
        assert type(value) is expected, name


def check_client(client: hftws.Client) -> tuple[Info, Stats]:
    info, stats = client.info(), client.stats()
    check(info, Info, "info")
    check(stats, Stats, "stats")
    return info, stats


@pytest.mark.parametrize("engine", [None, "direct", "openssl", "ktls"])
@pytest.mark.parametrize("latency", [False, True])
def test_the_dictionaries_are_as_typed(serve: Serve, engine: Any, latency: bool) -> None:
    """Before, during and after a connection, without TLS and with each engine."""
    inbox = Inbox()
    options = {} if engine is None else {"tls": engine}
    with contextlib.ExitStack() as stack:
        server_of = serve if engine is None else lambda script: serve(script, tls=True)
        try:
            client, peer = stack.enter_context(
                connected(server_of, inbox, latency=latency, **options)
            )
        except hftws.TLSError as error:
            if engine != "ktls":
                raise
            pytest.skip(f"this kernel has no TLS: {error}")
        peer.send_text("hello")
        poll_until(client, lambda: len(inbox.messages) == 1)
        info, stats = check_client(client)
        assert info["engine"] == engine
        assert info["send_ring"] and info["socket_options"]
        assert (stats["latency"] is not None) is latency
    info, _ = check_client(client)
    assert info["socket_options"] is None


def test_before_a_connection_they_are_as_typed() -> None:
    info, _ = check_client(hftws.Client("wss://127.0.0.1:1/"))
    assert info["peer_address"] is None


def test_compression_is_as_typed(serve: Serve) -> None:
    answer = "permessage-deflate; server_max_window_bits=10"
    offer = hftws.Deflate(server_max_window_bits=10)
    with connected(serve, extensions=answer, compression=offer) as (client, _):
        info, _ = check_client(client)
        assert info["compression"] is not None
        assert info["compression"]["server_max_window_bits"] == 10
        assert info["inflated_ring"]


def test_every_key_is_documented() -> None:
    """By a string behind it, which editors show."""
    tree = ast.parse(Path(hftws.types.__file__).read_text(encoding="utf-8"))
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        assert ast.get_docstring(node), node.name
        for key, after in zip(node.body[1::2], node.body[2::2], strict=True):
            assert isinstance(key, ast.AnnAssign), ast.dump(key)
            assert isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)


def test_the_annotations_are_there_at_run_time() -> None:
    """Programs that read annotations find the types; and the package has imported them."""
    assert typing.get_type_hints(hftws.Client.info)["return"] is Info
    for name in hftws.types.__all__:
        assert typing.is_typeddict(getattr(hftws.types, name))
        assert inspect.getdoc(getattr(hftws.types, name))
