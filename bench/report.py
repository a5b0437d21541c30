"""Turns outcomes into JSON, Markdown and charts. Ratios are made within a round."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bench import benchmarks, plot
from bench.case import Case, Cell, Figure, Target
from bench.clients import SPECS
from bench.runner import Outcome

#: The client that the others are compared with.
BASELINE = "hftws"


@dataclass(frozen=True)
class Summary:
    """One figure of one client in one case, over all rounds."""

    benchmark: str
    case: str
    client: str
    figure: str
    median: float
    minimum: float
    rounds: int
    #: Against hftws in the same round, the median of that; None without hftws.
    ratio: float | None


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured."""

    title: str
    limit: float
    measured: float
    lowest: float
    highest: float
    met: bool


class Results:
    """All outcomes of a run, and what follows from them."""

    def __init__(self, outcomes: Iterable[Outcome]) -> None:
        self.outcomes = list(outcomes)
        self._values: dict[Cell, dict[int, float]] = {}
        for outcome in self.outcomes:
            for figure, value in outcome.figures.items():
                cell = Cell(outcome.client, outcome.case.benchmark, outcome.case.label, figure)
                self._values.setdefault(cell, {})[outcome.round] = value

    def values(self, cell: Cell) -> dict[int, float]:
        """The value in each round."""
        return self._values.get(cell, {})

    def ratios(self, cell: Cell, reference: Cell) -> list[float]:
        """One against the other in each round that has both."""
        values, references = self.values(cell), self.values(reference)
        return [values[number] / references[number] for number in values if references.get(number)]

    def benchmarks(self) -> list[ModuleType]:
        ran = {outcome.case.benchmark for outcome in self.outcomes}
        return [benchmarks.load(name) for name in benchmarks.NAMES if name in ran]

    def cases(self, benchmark: str) -> list[Case]:
        found = {o.case.label: o.case for o in self.outcomes if o.case.benchmark == benchmark}
        return list(found.values())

    def clients(self, case: Case) -> list[str]:
        ran = {outcome.client for outcome in self.outcomes if outcome.case == case}
        return [name for name in SPECS if name in ran]

    def summaries(self) -> Iterator[Summary]:
        for benchmark in self.benchmarks():
            for case in self.cases(benchmark.NAME):
                for client in self.clients(case):
                    for figure in benchmark.FIGURES:
                        summary = self.summary(case, client, figure)
                        if summary is not None:
                            yield summary

    def summary(self, case: Case, client: str, figure: Figure) -> Summary | None:
        cell = Cell(client, case.benchmark, case.label, figure.key)
        values = self.values(cell)
        if not values:
            return None
        ratios = self.ratios(cell, Cell(BASELINE, case.benchmark, case.label, figure.key))
        return Summary(
            case.benchmark,
            case.label,
            client,
            figure.key,
            statistics.median(values.values()),
            min(values.values()),
            len(values),
            statistics.median(ratios) if ratios else None,
        )

    def verdicts(self) -> Iterator[Verdict]:
        for benchmark in self.benchmarks():
            for target in benchmark.TARGETS:
                verdict = self.verdict(benchmark, target)
                if verdict is not None:
                    yield verdict

    def verdict(self, benchmark: ModuleType, target: Target) -> Verdict | None:
        if target.reference is None:
            measured = list(self.values(target.measured).values())
        else:
            measured = self.ratios(target.measured, target.reference)
        if not measured:
            return None
        middle = statistics.median(measured)
        title = f"{benchmark.NAME}: {target.title}"
        met = middle <= target.limit
        return Verdict(title, target.limit, middle, min(measured), max(measured), met)

    def failures(self) -> list[str]:
        return [
            f"{o.client}, {o.case.benchmark}, {o.case.label}, round {o.round}: {o.failure}"
            for o in self.outcomes
            if o.failure
        ]


def write(
    results: Results, machine: dict[str, str], left_out: dict[str, str], directory: Path
) -> None:
    """Writes ``results.json``, ``results.md`` and the charts."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.svg"):
        old.unlink()
    charts = dict(draw(results))
    for name, chart in charts.items():
        (directory / name).write_text(chart, encoding="utf-8")
    (directory / "results.md").write_text(
        markdown(results, machine, left_out, list(charts)), encoding="utf-8"
    )
    document = as_document(results, machine, left_out)
    (directory / "results.json").write_text(json.dumps(document, indent=1), encoding="utf-8")


def as_document(
    results: Results, machine: dict[str, str], left_out: dict[str, str]
) -> dict[str, Any]:
    return {
        "machine": machine,
        "targets": [asdict(verdict) for verdict in results.verdicts()],
        "summary": [asdict(summary) for summary in results.summaries()],
        "left_out": left_out,
        "failures": results.failures(),
        "processes": [
            {
                "benchmark": outcome.case.benchmark,
                "case": outcome.case.label,
                "parameters": dict(outcome.case.parameters),
                "client": outcome.client,
                "round": outcome.round,
                "figures": outcome.figures,
                "checksum": outcome.raw.get("checksum"),
                "info": outcome.raw.get("info", {}),
                "failure": outcome.failure,
            }
            for outcome in results.outcomes
        ],
    }


def markdown(
    results: Results, machine: dict[str, str], left_out: dict[str, str], charts: list[str]
) -> str:
    lines = ["# What a message costs", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    lines += [f"- engine of {BASELINE}: {engine}" for engine in engines(results)]
    lines += [f"- **left out**: {name}: {reason}" for name, reason in left_out.items()]
    lines += [f"- **failed**: {failure}" for failure in results.failures()]
    lines += ["", f"Medians over the rounds; in brackets against {BASELINE} in the same round."]
    verdicts = list(results.verdicts())
    if verdicts:
        lines += ["", "## Targets", "", *verdict_table(verdicts)]
    for benchmark in results.benchmarks():
        lines += ["", f"## {benchmark.TITLE}", "", benchmark.DESCRIPTION]
        for case in results.cases(benchmark.NAME):
            lines += ["", f"### {case.label}", "", *case_table(results, benchmark, case)]
        names = [chart for chart in charts if chart.startswith(f"{benchmark.NAME}-")]
        lines += ["", *(f"![{name.removesuffix('.svg')}]({name})" for name in names)]
    lines += ["", "## The clients", ""]
    ran = {outcome.client for outcome in results.outcomes}
    lines += [f"- {name}: {spec.note}" for name, spec in SPECS.items() if name in ran]
    return "\n".join((*lines, ""))


def verdict_table(verdicts: list[Verdict]) -> list[str]:
    lines = [
        "| target | at most | measured | over the rounds | |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for verdict in verdicts:
        spread = f"{ratio_text(verdict.lowest)} … {ratio_text(verdict.highest)}"
        lines.append(
            f"| {verdict.title} | {ratio_text(verdict.limit)} | {ratio_text(verdict.measured)} "
            f"| {spread} | {'met' if verdict.met else '**missed**'} |"
        )
    return lines


def case_table(results: Results, benchmark: ModuleType, case: Case) -> list[str]:
    figures = benchmark.FIGURES
    head = " | ".join(f"{figure.title}, {figure.unit}" for figure in figures)
    lines = [f"| client | {head} |", f"| --- |{' ---: |' * len(figures)}"]
    for client in results.clients(case):
        cells = [cell_text(results.summary(case, client, figure)) for figure in figures]
        lines.append(f"| {client} | {' | '.join(cells)} |")
    return lines


def cell_text(summary: Summary | None) -> str:
    if summary is None:
        return ""
    value = plot.format_value(summary.median)
    if summary.ratio is None or summary.client == BASELINE:
        return value
    return f"{value} ({ratio_text(summary.ratio)})"


def ratio_text(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2f}"


def engines(results: Results) -> list[str]:
    """What hftws says about its TLS, each different answer once."""
    answers = []
    for outcome in results.outcomes:
        info = outcome.raw.get("info") or {}
        if outcome.client == BASELINE and info.get("engine") is not None:
            answer = f"{info['engine']}, {info.get('aead')}, {info.get('cipher')}"
            if answer not in answers:
                answers.append(answer)
    return answers


def draw(results: Results) -> Iterator[tuple[str, str]]:
    """The charts by the names of their files."""
    for benchmark in results.benchmarks():
        for figure in benchmark.FIGURES:
            panels = []
            for case in results.cases(benchmark.NAME) if figure.plot else ():
                found = [results.summary(case, c, figure) for c in results.clients(case)]
                bars = [plot.Bar(s.client, s.median) for s in found if s is not None]
                if bars:
                    panels.append(plot.Panel(case.label, bars))
            if panels:
                title = f"{benchmark.TITLE} – {re.sub('`', '', figure.title)}"
                name = f"{benchmark.NAME}-{figure.key.replace('_', '-')}.svg"
                yield name, plot.bar_chart(title, figure.unit, panels)
