"""Histograms of the page: where bars, limits and tiers are drawn, on a log scale.

Pure: numbers for ``templates/chart.svg.jinja``. An ``x`` is in percent from the
left, but that of a bar in thousandths.
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
_GAP: Final = 3  # thousandths left free on either side of a bar
_MARGIN: Final = 1.3  # doublings left free at the right edge, for a label
_TICK: Final = 3  # doublings from label to label of the axis: 128, 1K, 8K, 64K …
_TICK_AT: Final = 10  # a power of two that has a label: 1K
_MAX_TICKS: Final = 10  # labels that a phone has room for


class Label(NamedTuple):
    """A text whose *anchor* (``start``, ``middle`` or ``end``) is at *x*."""

    x: float
    text: str
    anchor: str = "middle"


class Bar(NamedTuple):
    """One bucket: how many reprs were whole and cut, and where to draw them."""

    name: str
    """Its upper bound, in words."""
    middle: float
    x: int
    """The left edge."""
    width: int
    whole: int
    cut: int
    up: int
    """Pixels above the baseline, for *whole*."""
    down: int
    """Pixels below the baseline, for *cut*."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The axis for characters (or bytes) that all charts of a page share."""

    bounds: tuple[float, ...]
    """Inclusive upper bounds of the buckets, rising, without the infinite one."""
    high: float
    """The value at the right edge."""

    @property
    def low(self) -> float:
        """The value at the left edge: half of the first bound or of Celery's limit."""
        return min(self.bounds[0], DEFAULT_LIMIT) / 2

    def at(self, value: float) -> float:
        """*value* in percent from the left; beyond an edge, that of the edge."""
        share = math.log2(max(value, self.low) / self.low) / math.log2(self.high / self.low)
        return round(100 * min(share, 1.0), 1)

    @property
    def ticks(self) -> list[Label]:
        """Labels at powers of two, none of them close to an edge."""
        first, last = math.ceil(math.log2(self.low) + 0.5), math.floor(math.log2(self.high) - 0.5)
        step = _TICK * math.ceil((last - first) / (_TICK * _MAX_TICKS))
        values = [2**power for power in range(first, last + 1) if power % step == _TICK_AT % step]
        return [Label(self.at(value), short(value, 1024, "KMG")) for value in values]

    @property
    def tiers(self) -> list[Label]:
        """The guide's tiers. As they are close together, their labels point apart."""
        anchors = zip(TIERS, ("end", "end", "middle", "start"), strict=True)
        return [Label(self.at(tier.limit), tier.name, anchor) for tier, anchor in anchors]


def axis_of(histograms: Iterable[Mapping[str, int]], buckets: Iterable[int]) -> Axis:
    """The axis for all *histograms* (label of a bucket → count) and the tiers.

    *buckets*: bounds that the workers count in. Others in *histograms* are added.
    """
    filled = {float(label) for histogram in histograms for label in histogram}
    finite = filled - {math.inf}
    bounds = tuple(sorted({*map(float, buckets), *finite}))
    top = bounds[-1] if math.inf in filled else max(finite, default=0.0)
    return Axis(bounds, max(top, TIERS[-1].limit) * 2**_MARGIN)


def bars_of(axis: Axis, whole: Mapping[str, int], cut: Mapping[str, int]) -> list[Bar]:
    """The bars of two histograms (label of a bucket → count), with logarithmic lengths."""
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
    """*number* in short: ``1.2k``. *units* has a letter for each power of *thousand*."""
    power = 0
    while round(number) >= thousand and power < len(units):
        number /= thousand
        power += 1
    digits = 1 if power and number < 9.95 else 0  # noqa: PLR2004 - rounds to 10
    return f"{number:.{digits}f}".removesuffix(".0") + units[:power][-1:]
