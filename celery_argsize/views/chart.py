"""Histograms for the page: where bars, limits and tiers lie, and the same figures in words.

Pure: numbers and SVG paths out, no markup, which is in ``templates``. Across, a chart is as wide as the page allows:
positions are percent from the left, on a log scale. Down, they are pixels from the top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.advice.advice import TIERS
from celery_argsize.measuring.cuts import DEFAULT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Units across in which paths are drawn; the browser stretches them to the width of the chart.
WIDTH: Final = 1000
#: Pixels of the longest bar.
BAR: Final = 54
#: Pixels above the bars: labels of the limit and the tiers, and the count on the longest bar.
HEAD: Final = 40
#: Where the bars stand.
BASELINE: Final = HEAD + BAR
#: Pixels for the count under a bar that hangs, and for the labels of the axis.
COUNT: Final = 13
FOOT: Final = 18

_UP, _DOWN = -1, 1  # from the baseline, in pixels
_GAP: Final = 3  # units on either side of a bar
_MARGIN: Final = 1.3  # doublings to the right of all bars and tiers, for a label
_TICK: Final = 3  # doublings from one label of the axis to the next: 128, 1K, 8K, 64K …
_TICK_AT: Final = 10  # one of these powers of two has a label: 1K
_TICKS: Final = 10  # the most labels that a phone has room for


class Label(NamedTuple):
    """A text in a chart."""

    x: float
    text: str
    anchor: str = "middle"
    """Which end of the text is at *x*: ``start``, ``middle`` or ``end``."""
    y: int = 0
    """Of the baseline of the text."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Characters (or bytes) across, on a log scale; one for a whole page."""

    bounds: tuple[float, ...]
    """Inclusive upper bounds of the buckets, rising, without the infinite one."""
    high: float
    """The value at the right edge."""

    @property
    def low(self) -> float:
        """The value at the left edge: half of the first bound or of Celery's limit. Smaller values are drawn there."""
        return min(self.bounds[0], DEFAULT_LIMIT) / 2

    def at(self, value: float) -> float:
        """The position of *value*; at an edge if it is beyond."""
        share = math.log2(max(value, self.low) / self.low) / math.log2(self.high / self.low)
        return round(100 * min(share, 1.0), 1)

    def under(self, bound: float) -> float:
        """The bound below *bound*; 0 for the first."""
        return max((lower for lower in self.bounds if lower < bound), default=0.0)

    @property
    def ticks(self) -> list[Label]:
        """Labels of the axis, at powers of two, none too close to an edge."""
        first, last = math.ceil(math.log2(self.low) + 0.5), math.floor(math.log2(self.high) - 0.5)
        step = _TICK * math.ceil((last - first) / (_TICK * _TICKS))
        values = [2**power for power in range(first, last + 1) if power % step == _TICK_AT % step]
        return [Label(self.at(value), short(value, 1024, "KMG")) for value in values]

    @property
    def tiers(self) -> list[Label]:
        """The guide's tiers. They lie close to each other, so their labels point apart."""
        anchors = ("end", "end", "middle", "start")
        return [Label(self.at(tier.limit), tier.name, anchor) for tier, anchor in zip(TIERS, anchors, strict=True)]


@dataclass(frozen=True, slots=True)
class Chart:
    """One histogram: whole reprs stand on the baseline, truncated ones hang from it, so that no color is needed."""

    whole: str
    """The path of the bars that stand."""
    cut: str
    """The path of those that hang; empty if there are none."""
    labels: tuple[Label, ...]
    """A count at the end of each bar."""
    height: int
    """Pixels of the whole chart."""
    words: str
    """The figures as text, for screen readers."""


def axis_of(histograms: Iterable[Mapping[str, int]], buckets: Iterable[int]) -> Axis:
    """The axis for all of *histograms* (label of a bucket → number): wide enough for what is filled, and the tiers.

    *buckets* are the bounds of the buckets that were counted in. Workers may have had others: a bound that is filled
    and is not among them is added.
    """
    filled = {float(label) for histogram in histograms for label in histogram}
    finite = {bound for bound in filled if bound < math.inf}
    bounds = tuple(sorted({*map(float, buckets), *finite}))
    top = bounds[-1] if math.inf in filled else max(finite, default=0.0)
    return Axis(bounds, max(top, TIERS[-1].limit) * 2**_MARGIN)


def draw(axis: Axis, whole: Mapping[str, int], cut: Mapping[str, int]) -> Chart:
    """The chart of two histograms (label of a bucket → number) on *axis*."""
    peak = math.log1p(max([*whole.values(), *cut.values()], default=1))
    paths: dict[int, list[str]] = {_UP: [], _DOWN: []}
    labels, words, lowest = [], [], 0
    for name in sorted({*whole, *cut}, key=float):
        bound, counts = float(name), []
        under = axis.under(bound)
        left, right = axis.at(under) if under else 0.0, axis.at(bound)
        for direction, count in ((_UP, whole.get(name, 0)), (_DOWN, cut.get(name, 0))):
            if not count:
                continue
            length = direction * max(2, round(BAR * math.log1p(count) / peak))
            x, width = round(left * 10) + _GAP, max(2, round((right - left) * 10) - 2 * _GAP)
            paths[direction].append(f"M{x} {BAR}v{length}h{width}v{-length}z")
            y = BASELINE + length + (COUNT - 2 if length > 0 else -4)
            labels.append(Label(round((left + right) / 2, 1), short(count, 1000, "kMG"), y=y))
            counts.append(f"{count:,} truncated" if direction == _DOWN else f"{count:,}")
            lowest = max(lowest, length + COUNT if length > 0 else 0)
        range_ = f"over {under:,.0f}" if math.isinf(bound) else f"{bound:,.0f}"
        words.append(f"{range_}: {', '.join(counts)}")
    height = BASELINE + lowest + FOOT
    return Chart("".join(paths[_UP]), "".join(paths[_DOWN]), tuple(labels), height, "; ".join(words))


def limit_mark(axis: Axis, limit: int, name: str) -> Label:
    """The label of *limit*, which is called *name*; on the edge where the limit is beyond what the axis shows."""
    x = axis.at(limit)
    return Label(x, f"{name} {limit:,}", "start" if x < 60 else "end")  # noqa: PLR2004 - percent


def short(number: float, thousand: int, units: str) -> str:
    """*number* in two or three digits, with the letter of *units* for its power of *thousand*: ``1.2k``, ``64K``."""
    power = 0
    while round(number) >= thousand and power < len(units):
        number /= thousand
        power += 1
    digits = 1 if power and number < 9.95 else 0  # noqa: PLR2004 - where a digit after the point is worth its place
    return f"{number:.{digits}f}".removesuffix(".0") + units[:power][-1:]
