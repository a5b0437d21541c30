"""A client process: one client, one case, one round. Its result is the last line of its output."""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

from bench import benchmarks, clients, kernel
from bench.case import SCALES, Case


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Does what the parent process asks for."""
    kernel.claim_cpu(kernel.CLIENT_CPU)
    spec = clients.SPECS[task["client"]]
    case = Case(**task["case"])
    benchmark = benchmarks.load(case.benchmark)
    scale = SCALES[task["scale"]]
    url = case.url(task["base_url"], **task["more"])
    if spec.module == "floor":
        from bench.clients import floor

        result: dict[str, Any] = floor.measure(
            url, task["ca_file"], benchmark.floor_arguments(case, scale), **spec.options
        )
        return result
    open_client = functools.partial(clients.open_client, spec, url, task["ca_file"])
    measured: dict[str, Any] = benchmark.measure(open_client, case, scale)
    return measured


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
