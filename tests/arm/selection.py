"""Which tests run on the emulated CPU: for those of the extension a plugin of pytest.

Emulated, the whole suite would take an hour. Of every test function one set of parameters runs, a
different one from function to function, so that ws and wss, both TLS engines and every kind of
sending have their share. Nothing is chosen by chance.

`NOT_ON_ARM` names what cannot run there, or would take the time of all others. That all the names
here are names of tests is for tests/test_selections.py to see.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

#: The tests of the core that depend on the size of a page, by a part of their names.
PAGES_FILTERS = ("os:", "ringbuffer:", "outbox:", "aead:", "pinned", "full ring")

COMPILES = "compiles a library for this machine's own libc, which the emulated one cannot load"
MEASURES = "measures time or memory, of which an emulator has its own"
RUNNERS = "is about what runs the tests"
SOURCES = "is about the sources"
NO_TCP_INFO = "needs TCP_INFO, of which the emulator hands on one number"
LONG = "takes minutes when it is emulated"

#: By the file, or by the file and the function.
NOT_ON_ARM = {
    "test_bench.py": "starts other clients, which have no wheels for Arm here",
    "test_errnos.py": COMPILES,
    "test_libssl.py": COMPILES,
    "test_lookup.py": COMPILES,
    "test_soak.py": LONG,
    "test_leaks.py": MEASURES,
    "test_architecture.py": SOURCES,
    "test_tidy.py": SOURCES,
    "test_ci.py": RUNNERS,
    "test_debian.py": RUNNERS,
    "test_ktls_rig.py": RUNNERS,
    "test_selections.py": RUNNERS,
    "test_fuzz_corpus.py": "runs the tests of the core, which run by themselves",
    "test_connect.py::test_every_address_of_a_name_is_tried": COMPILES,
    "test_connect.py::test_the_first_address_that_answers_is_taken": COMPILES,
    "test_connect.py::test_an_address_that_never_answers_leaves_time_for_the_others": COMPILES,
    "test_connect.py::test_all_addresses_refuse": COMPILES,
    "test_connect.py::test_no_address_answers": COMPILES,
    "test_connect.py::test_a_name_that_does_not_resolve": COMPILES,
    "test_connect.py::test_waiting_takes_no_cpu": MEASURES,
    "test_liveness.py::test_a_peer_that_answers_probes_is_not_taken_for_dead": NO_TCP_INFO,
    "test_liveness.py::test_a_slow_reader_gets_all_and_is_still_noticed_when_it_dies": NO_TCP_INFO,
    "test_liveness.py::test_across_a_network_only_the_dead_are_given_up": NO_TCP_INFO,
    "test_compression.py::test_websockets_and_we_understand_each_other": LONG,
    "test_callbacks.py::test_other_threads_run_while_a_peer_never_pauses": MEASURES,
}


def reason_to_leave_out(item: pytest.Item) -> str | None:
    """Why this test does not run on Arm."""
    function = getattr(item, "originalname", item.name)
    return NOT_ON_ARM.get(item.path.name) or NOT_ON_ARM.get(f"{item.path.name}::{function}")


def one_of_each(items: list[pytest.Item]) -> list[pytest.Item]:
    """One set of parameters of each function: the first of the first, the second of the second."""
    functions = defaultdict(list)
    for item in items:
        functions[item.path, getattr(item, "originalname", item.name)].append(item)
    return [variants[index % len(variants)] for index, variants in enumerate(functions.values())]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Chooses; what cannot run is reported as skipped, with its reason."""
    chosen = one_of_each(items)
    for item in chosen:
        if reason := reason_to_leave_out(item):
            item.add_marker(pytest.mark.skip(reason=f"on the emulated CPU: {reason}"))
    kept = set(map(id, chosen))
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = chosen
