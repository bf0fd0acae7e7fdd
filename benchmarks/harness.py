"""What the benchmarks share: targets, tables, charts as data, and the command line.

A benchmark is a module with a function ``answer(smoke)`` that measures and returns an ``Answer``. ``run`` makes a
program of it. This module measures nothing itself. ``charts`` draws the charts, and ``run_all`` writes RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Answer", "Chart", "Claim", "load", "machine", "ratio", "run", "spread", "versions"]

HERE: Final = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Claim:
    """One measured figure and its target."""

    what: str
    value: float
    target: float
    unit: str = "x"
    """The unit of both numbers; ``x`` for a ratio."""
    at_least: bool = False
    """``True``: the figure must be at least the target. ``False``: it must be at most the target."""

    @property
    def holds(self) -> bool:
        """Whether the target is met."""
        return self.value >= self.target if self.at_least else self.value <= self.target

    def __str__(self) -> str:
        unit = " times" if self.unit == "x" else f" {self.unit}"
        bound = "≥" if self.at_least else "≤"
        verdict = "met" if self.holds else "MISSED"
        return f"{self.what}: {self.value:,.4g}{unit} (target {bound} {self.target:,.4g}{unit}): {verdict}"


@dataclass(frozen=True)
class Chart:
    """The data of one chart: horizontal bars, or lines."""

    title: str
    x: str
    """Label of the x axis, with its unit. In a bar chart this is the axis of values."""
    y: str
    """Label of the y axis."""
    series: dict[str, list[tuple[Any, float]]]
    """Line name → points (x, y). In a bar chart: color name → (bar label, value). Without any, there is no chart."""
    bars: bool = False
    log: str = ""
    """Which axes are logarithmic: ``x``, ``y``, ``xy``, or empty for none."""
    limit: float | None = None
    """The target, drawn as a line across the axis of values; ``None`` for no line."""


@dataclass(frozen=True)
class Answer:
    """The results of one benchmark."""

    title: str
    """The question that the benchmark answers."""
    head: list[str]
    """Column titles of the table."""
    rows: list[list[str]]
    """Rows of the table. The first cell names the row."""
    claims: list[Claim]
    chart: Chart
    notes: list[str] = field(default_factory=list)
    """Lines of text that a reader of the table needs."""
    versions: list[str] = field(default_factory=list)
    """Names of other packages that were measured, for the list of versions."""

    @property
    def holds(self) -> bool:
        """Whether all of its targets are met."""
        return all(claim.holds for claim in self.claims)

    def table(self) -> list[str]:
        """The lines of the table in Markdown."""
        lines = [self.head, ["---", *["---:"] * (len(self.head) - 1)], *self.rows]
        return [f"| {' | '.join(cells)} |" for cells in lines]


def load(path: Path) -> Answer:
    """Read the answer that a benchmark wrote to *path* with ``--json``."""
    data = json.loads(path.read_text(encoding="utf-8"))
    chart = Chart(**data.pop("chart"))
    return Answer(chart=chart, claims=[Claim(**claim) for claim in data.pop("claims")], **data)


def run(answer: Callable[[bool], Answer], gate: Callable[[bool], Answer] | None = None) -> int:
    """The command line of a benchmark: measure, print the results, and return the exit code.

    With *gate* it has an option ``--gate``, which measures with that instead of *answer*. The exit code is 1 if a
    target is missed, except with ``--smoke``.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument(
        "--smoke", action="store_true", help="use small counts, only to see that it works; the figures mean nothing"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    if gate is not None:
        parser.add_argument("--gate", action="store_true", help="measure only what CI must not miss")
    options = parser.parse_args()
    began = time.perf_counter()
    results = gate(options.smoke) if gate is not None and options.gate else answer(options.smoke)
    print(f"\n## {results.title}\n", *results.table(), "", *results.notes, *map(str, results.claims), sep="\n")
    print(f"({time.perf_counter() - began:.0f} s)")
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(results), ensure_ascii=False), encoding="utf-8")
    return 0 if results.holds or options.smoke else 1


# -- figures ------------------------------------------------------------------------------------------------------


def spread(values: Iterable[float], scale: float = 1.0) -> str:
    """The median of *values* and the median absolute deviation from it, both times *scale*: ``12.3 ± 0.4``."""
    values = [value * scale for value in values]
    middle = statistics.median(values)
    off = statistics.median(abs(value - middle) for value in values)
    return f"{middle:,.3g} ± {off:,.2g}" if middle < 1000 else f"{middle:,.0f} ± {off:,.0f}"


def ratio(values: Sequence[float], references: Sequence[float]) -> float:
    """The median of value / reference. Both lists have one figure a round, so each pair was measured side by side."""
    return statistics.median(value / reference for value, reference in zip(values, references, strict=True))


# -- where it ran -------------------------------------------------------------------------------------------------


def machine() -> str:
    """CPU, number of cores and operating system of this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(models) or "some"
    return f"{', '.join(dict.fromkeys([platform.machine(), *models]))}, {cores} cores, {platform.system()}"


def versions(names: Iterable[str]) -> str:
    """The versions of Python and of the installed packages *names*, as one line."""
    packages = [f"{name} {metadata.version(name)}" for name in dict.fromkeys(names)]
    return ", ".join([f"Python {platform.python_version()}", *packages])
