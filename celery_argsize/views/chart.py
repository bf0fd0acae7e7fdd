"""Histograms for the page: where bars, limits and tiers lie, in percent from the left, on a log scale.

Pure: numbers out; the SVG is ``templates/chart.svg.jinja``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.advice.advice import TIERS
from celery_argsize.measuring.cuts import DEFAULT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BAR: Final = 54  # pixels of the longest bar
_GAP: Final = 3  # thousandths on either side of a bar
_MARGIN: Final = 1.3  # doublings to the right of all bars and tiers, for a label
_TICK: Final = 3  # doublings from one label of the axis to the next: 128, 1K, 8K, 64K …


class Label(NamedTuple):
    """A text; *anchor* is what of it is at *x*: ``start``, ``middle`` or ``end``."""

    x: float
    text: str
    anchor: str = "middle"


class Bar(NamedTuple):
    """One bucket: how many reprs were whole, how many cut, and where that is drawn."""

    name: str
    """Its upper bound, in words."""
    middle: float
    x: int
    """The left edge, in thousandths of the chart like the width."""
    width: int
    whole: int
    cut: int
    up: int
    """Pixels above the line, for the whole ones, and below it, for the cut ones."""
    down: int


@dataclass(frozen=True, slots=True)
class Axis:
    """Characters (or bytes) across; one for a whole page."""

    bounds: tuple[float, ...]
    """Inclusive upper bounds of the buckets, rising, without the infinite one."""
    high: float
    """The value at the right edge."""

    @property
    def low(self) -> float:
        """The value at the left edge: half of the first bound or of Celery's limit."""
        return min(self.bounds[0], DEFAULT_LIMIT) / 2

    def at(self, value: float) -> float:
        """The position of *value*; at an edge if it is beyond."""
        share = math.log2(max(value, self.low) / self.low) / math.log2(self.high / self.low)
        return round(100 * min(share, 1.0), 1)

    @property
    def ticks(self) -> list[Label]:
        """Labels of the axis, at powers of two, none too close to an edge."""
        first, last = math.ceil(math.log2(self.low) + 0.5), math.floor(math.log2(self.high) - 0.5)
        values = [2**power for power in range(first, last + 1) if power % _TICK == 1]
        return [Label(self.at(value), short(value, 1024, "KMG")) for value in values]

    @property
    def tiers(self) -> list[Label]:
        """The guide's tiers. They lie close to each other, so their labels point apart."""
        anchors = zip(TIERS, ("end", "end", "middle", "start"), strict=True)
        return [Label(self.at(tier.limit), tier.name, anchor) for tier, anchor in anchors]


def axis_of(histograms: Iterable[Mapping[str, int]], buckets: Iterable[int]) -> Axis:
    """The axis for all of *histograms* (label of a bucket → number), and the tiers.

    *buckets* are the bounds that were counted in; other bounds that are filled are added.
    """
    filled = {float(label) for histogram in histograms for label in histogram}
    finite = filled - {math.inf}
    bounds = tuple(sorted({*map(float, buckets), *finite}))
    top = bounds[-1] if math.inf in filled else max(finite, default=0.0)
    return Axis(bounds, max(top, TIERS[-1].limit) * 2**_MARGIN)


def bars_of(axis: Axis, whole: Mapping[str, int], cut: Mapping[str, int]) -> list[Bar]:
    """The bars of two histograms on *axis*; their lengths are on a log scale."""
    peak = math.log1p(max([*whole.values(), *cut.values()], default=1))
    bars = []
    for label in sorted({*whole, *cut}, key=float):
        bound, counts = float(label), (whole.get(label, 0), cut.get(label, 0))
        under = max((lower for lower in axis.bounds if lower < bound), default=0.0)
        left, right = axis.at(under) if under else 0.0, axis.at(bound)
        up, down = (max(2, round(BAR * math.log1p(count) / peak)) if count else 0 for count in counts)
        x, width = round(left * 10) + _GAP, max(2, round((right - left) * 10) - 2 * _GAP)
        name = f"over {under:,.0f}" if math.isinf(bound) else f"{bound:,.0f}"
        bars.append(Bar(name, round((left + right) / 2, 1), x, width, *counts, up, down))
    return bars


def limit_mark(axis: Axis, limit: int, name: str) -> Label:
    """The label of *limit*, which is called *name*."""
    x = axis.at(limit)
    return Label(x, f"{name} {limit:,}", "start" if x < 60 else "end")  # noqa: PLR2004 - percent


def short(number: float, thousand: int, units: str) -> str:
    """*number* in few digits, with the letter of *units* for its power of *thousand*: ``1.2k``."""
    power = 0
    while round(number) >= thousand and power < len(units):
        number /= thousand
        power += 1
    digits = 1 if power and number < 9.95 else 0  # noqa: PLR2004 - rounds to 10
    return f"{number:.{digits}f}".removesuffix(".0") + units[:power][-1:]
