"""What the benchmarks of ``make bench`` have in common: claims, tables, charts as data, and how one is run.

A benchmark is a module with ``answer(smoke)``, which measures and gives an ``Answer``; ``run`` makes a program of it.
Nothing is measured or drawn here: pictures are ``charts``' business, the page of all results is ``run_all``'s.
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
    """One figure, and the target that it is held against."""

    what: str
    value: float
    target: float
    unit: str = "x"
    """What stands behind both numbers; ``x`` for ratios."""
    at_least: bool = False
    """Whether the figure is to be at least the target; else at most."""

    @property
    def holds(self) -> bool:
        """Whether the target is met."""
        return self.value >= self.target if self.at_least else self.value <= self.target

    def __str__(self) -> str:
        unit = " times" if self.unit == "x" else f" {self.unit}"
        bound = "≥" if self.at_least else "≤"
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        return f"{self.what}: {self.value:,.4g}{unit} (target {bound} {self.target:,.4g}{unit}): {verdict}"


@dataclass(frozen=True)
class Chart:
    """A picture, as data: bars, or lines over a number."""

    title: str
    x: str
    """What the x axis shows; unit included. For bars, y and x change places: bars lie."""
    y: str
    series: dict[str, list[tuple[Any, float]]]
    """Points by the name of their line; for bars, (label, value) by the name of their color."""
    bars: bool = False
    log: str = ""
    """Which axes are logarithmic: ``x``, ``y``, ``xy`` or none. For bars, ``x`` is the axis of values."""
    limit: float | None = None
    """Where a line is drawn for the target, on the axis of values."""


@dataclass(frozen=True)
class Answer:
    """What one benchmark found."""

    title: str
    """The question."""
    head: list[str]
    rows: list[list[str]]
    """The table: cells as text, the first of each row is its name."""
    claims: list[Claim]
    chart: Chart
    notes: list[str] = field(default_factory=list)
    """Sentences that a reader of the table needs."""
    versions: list[str] = field(default_factory=list)
    """Names of the distributions that took part, celery and ours aside."""

    @property
    def holds(self) -> bool:
        """Whether all targets are met."""
        return all(claim.holds for claim in self.claims)

    def table(self) -> list[str]:
        """The table, in Markdown."""
        lines = [self.head, ["---", *["---:"] * (len(self.head) - 1)], *self.rows]
        return [f"| {' | '.join(cells)} |" for cells in lines]


def load(path: Path) -> Answer:
    """The answer that ``run`` left in the file *path*."""
    data = json.loads(path.read_text(encoding="utf-8"))
    chart = Chart(**data.pop("chart"))
    return Answer(chart=chart, claims=[Claim(**claim) for claim in data.pop("claims")], **data)


def run(answer: Callable[[bool], Answer]) -> int:
    """The program: measure, print, and end with 1 if a target does not hold (never in a smoke test)."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument(
        "--smoke", action="store_true", help="small counts, to see that it works; the figures say nothing"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found to FILE as well")
    options = parser.parse_args()
    began = time.perf_counter()
    found = answer(options.smoke)
    print(f"\n## {found.title}\n", *found.table(), "", *found.notes, *map(str, found.claims), sep="\n")
    print(f"({time.perf_counter() - began:.0f} s)")
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(found), ensure_ascii=False), encoding="utf-8")
    return 0 if found.holds or options.smoke else 1


# -- figures ------------------------------------------------------------------------------------------------------


def spread(values: Iterable[float], scale: float = 1.0) -> str:
    """The median of *values* times *scale*, with the median deviation from it: how far half of them are off."""
    values = [value * scale for value in values]
    middle = statistics.median(values)
    off = statistics.median(abs(value - middle) for value in values)
    return f"{middle:,.3g} ± {off:,.2g}" if middle < 1000 else f"{middle:,.0f} ± {off:,.0f}"


def ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """The median of the ratios of two runs side by side, these by those."""
    return statistics.median(this / that for this, that in zip(these, those, strict=True))


# -- where it ran -------------------------------------------------------------------------------------------------


def machine() -> str:
    """What this runs on, without its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(models) or "some"
    return f"{', '.join(dict.fromkeys([platform.machine(), *models]))}, {cores} cores, {platform.system()}"


def versions(names: Iterable[str]) -> str:
    """The versions of the distributions *names*, and of Python."""
    found = [f"{name} {metadata.version(name)}" for name in dict.fromkeys(names)]
    return ", ".join([f"Python {platform.python_version()}", *found])
