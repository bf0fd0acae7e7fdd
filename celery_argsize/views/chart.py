"""Histograms as the page draws them: where bars, limits and tiers lie, and what they show in words.

Pure: numbers and paths out, no markup. What a page says around them is ``html``. Across, a chart is as wide as its
place allows: positions are shares of that, on a log scale. Down, they are pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.advice.advice import TIERS
from celery_argsize.measuring.cuts import DEFAULT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


#: Units across in which paths are drawn; they are stretched to what place there is.
WIDTH: Final = 1000
#: Pixels of the longest bar.
BAR: Final = 54
#: Pixels above the bars: the limit's label, those of the tiers, and the count on the longest bar.
HEAD: Final = 40
#: Where the bars stand, in pixels from the top.
BASELINE: Final = HEAD + BAR
#: Pixels under a bar that hangs, for its count; and those for the labels of the axis.
COUNT: Final = 13
FOOT: Final = 18

_GAP: Final = 3  # units on either side of a bar
_ROOM: Final = 1.3  # doublings to the right of all, for a label
_TICK: Final = 3  # doublings from one label of the axis to the next: from 128 to 1K, 8K, 64K …
_TICK_AT: Final = 10  # one of these powers of two has a label: 1K
_TICKS: Final = 10  # the most of them that a phone has room for


class Label(NamedTuple):
    """A text in a chart."""

    x: float
    """Percent from the left."""
    y: int
    """Pixels from the top, of its baseline."""
    text: str


class Mark(NamedTuple):
    """A line across the bars, with its label."""

    x: float
    """Percent from the left."""
    text: str
    anchor: str
    """Which end of its label is at the line: ``start``, ``middle`` or ``end``."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Characters (or bytes) across, on a log scale; one for a whole page."""

    bounds: tuple[float, ...]
    """Inclusive upper bounds of the buckets, rising, without the infinite one."""
    high: float
    """The value at the right edge."""

    @property
    def low(self) -> float:
        """The value at the left edge: half of the first bound, or of Celery's limit. What is smaller is drawn there."""
        return min(self.bounds[0], DEFAULT_LIMIT) / 2

    def at(self, value: float) -> float:
        """Where *value* is, in percent from the left; at an edge if it is beyond."""
        share = math.log2(max(value, self.low) / self.low) / math.log2(self.high / self.low)
        return round(100 * min(share, 1.0), 1)

    def under(self, bound: float) -> float:
        """The bound below *bound*; 0 for the first."""
        return max((known for known in self.bounds if known < bound), default=0.0)

    @property
    def ticks(self) -> list[Label]:
        """Labels of the axis, at powers of two."""
        first, last = math.ceil(math.log2(self.low) + 0.5), math.floor(math.log2(self.high) - 0.5)  # a label needs room
        step = _TICK * math.ceil((last - first) / (_TICK * _TICKS))
        values = [2**power for power in range(first, last + 1) if power % step == _TICK_AT % step]
        return [Label(self.at(value), 0, short(value, 1024, "KMG")) for value in values]

    @property
    def tiers(self) -> list[Mark]:
        """The guide's tiers; they are close to each other on the right."""
        anchors = ("end", "end", "middle", "start")
        return [Mark(self.at(tier.limit), tier.name, anchor) for tier, anchor in zip(TIERS, anchors, strict=True)]


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
    """Pixels of all of it."""
    words: str
    """The same figures for who does not see them."""


def axis_of(histograms: Iterable[Mapping[str, int]], buckets: Iterable[int]) -> Axis:
    """The axis for all of *histograms* (label of a bucket → number): wide enough for what is filled, and the tiers.

    *buckets* are the bounds of the buckets that were counted in. Workers may have had others: where one that is filled
    is not among them, it is added.
    """
    filled = {_bound(label) for histogram in histograms for label in histogram}
    finite = {bound for bound in filled if not math.isinf(bound)}
    bounds = tuple(sorted({*map(float, buckets), *finite}))
    top = bounds[-1] if math.inf in filled else max(finite, default=0.0)
    return Axis(bounds, max(top, TIERS[-1].limit) * 2**_ROOM)


def draw(axis: Axis, whole: Mapping[str, int], cut: Mapping[str, int]) -> Chart:
    """The chart of two histograms (label of a bucket → number) on *axis*."""
    counts = {_bound(label): (whole.get(label, 0), cut.get(label, 0)) for label in {*whole, *cut}}
    counts = {bound: counts[bound] for bound in sorted(counts)}
    peak = max((max(pair) for pair in counts.values()), default=1)
    paths: tuple[list[str], list[str]] = ([], [])
    labels, words, lowest = [], [], 0
    for bound, pair in counts.items():
        under = axis.under(bound)
        left, right = (axis.at(under) if under else 0.0), axis.at(bound)
        for side, count in enumerate(pair):
            if count:
                long = max(2, round(BAR * math.log1p(count) / math.log1p(peak)))
                paths[side].append(_bar(left, right, -long if side == 0 else long))
                y = BASELINE - long - 4 if side == 0 else BASELINE + long + COUNT - 2
                labels.append(Label(round((left + right) / 2, 1), y, short(count, 1000, "kMG")))
                lowest = max(lowest, long) if side else lowest
        words.append(f"{_range(under, bound)}: {_kinds(*pair)}")
    height = BASELINE + (lowest + COUNT if lowest else 0) + FOOT
    return Chart("".join(paths[0]), "".join(paths[1]), tuple(labels), height, "; ".join(words))


def limit_mark(axis: Axis, limit: int, name: str) -> Mark:
    """The line of *limit*, which is called *name*; on the edge where the limit is beyond what the axis shows."""
    x = axis.at(limit)
    return Mark(x, f"{name} {limit:,}", "start" if x < 60 else "end")  # noqa: PLR2004 - percent


def short(number: float, thousand: int, names: Sequence[str]) -> str:
    """*number* in two or three digits, with the one of *names* for as many times *thousand*."""
    if number < thousand:
        return f"{number:.0f}"
    power = min(int(math.log(number, thousand) + 1e-9), len(names))
    value = number / thousand**power
    if value < 9.95 and value != int(value):  # noqa: PLR2004 - where a digit after the point is worth its place
        return f"{value:.1f}".removesuffix(".0") + names[power - 1]
    if round(value) >= thousand and power < len(names):
        return f"1{names[power]}"
    return f"{value:.0f}{names[power - 1]}"


def _bound(label: str) -> float:
    return math.inf if label == "+Inf" else float(label)


def _bar(left: float, right: float, long: int) -> str:
    x, width = round(left * 10) + _GAP, max(2, round((right - left) * 10) - 2 * _GAP)
    return f"M{x} {BAR}v{long}h{width}v{-long}z"


def _range(under: float, bound: float) -> str:
    if math.isinf(bound):
        return f"over {under:,.0f}"
    return f"{bound:,.0f}"


def _kinds(whole: int, cut: int) -> str:
    return ", ".join([f"{whole:,}"] * bool(whole) + [f"{cut:,} truncated"] * bool(cut))
