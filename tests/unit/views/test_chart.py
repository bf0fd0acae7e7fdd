"""Where the page's bars, limits and tiers are, whatever the buckets."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

import pytest
from support.pages import page_of, seen

from celery_argsize.advice.advice import TIERS, ReprLimits
from celery_argsize.figures.counters import Rules
from celery_argsize.settings import DEFAULT_BUCKETS
from celery_argsize.views.chart import BAR, axis_of, bars_of, limit_mark, short
from celery_argsize.views.page import _environment

if TYPE_CHECKING:
    from celery_argsize.views.chart import Bar


SVG: Any = _environment().get_template("chart.svg.jinja").module


def svg(macro: str, drawn: list[Bar]) -> str:
    return str(getattr(SVG, macro)(drawn))


def test_a_limit_is_drawn_where_its_characters_are() -> None:
    axis = axis_of([{"128": 1}], DEFAULT_BUCKETS)
    assert axis.at(axis.low) == 0
    assert axis.at(axis.high) == 100
    step = axis.at(256) - axis.at(128)
    assert axis.at(1024) == pytest.approx(axis.at(128) + 3 * step, abs=0.3)
    assert limit_mark(axis, 1024, "limit") == (axis.at(1024), "limit 1,024", "start")
    assert limit_mark(axis, 2_000_000, "limit").anchor == "end"
    assert (axis.at(0), axis.at(10**15)) == (0, 100)
    assert [mark.x for mark in axis.tiers] == [axis.at(tier.limit) for tier in TIERS]
    assert max(mark.x for mark in axis.tiers) < 95, "with room for a label to the right"


def test_bars_end_at_the_limit_where_the_bucket_does() -> None:
    axis = axis_of([{"1024": 3, "2048": 1}], DEFAULT_BUCKETS)
    drawn = bars_of(axis, {"1024": 3}, {"2048": 1})
    left, width = re.findall(r"M(\d+) .*?h(\d+)", svg("whole", drawn))[0]
    assert int(left) + int(width) <= axis.at(1024) * 10 <= int(re.findall(r"M(\d+)", svg("cut", drawn))[0])
    assert svg("words", drawn) == "1,024: 3; 2,048: 1 truncated"


def test_whole_ones_stand_and_truncated_ones_hang() -> None:
    axis = axis_of([{"128": 1}], DEFAULT_BUCKETS)
    drawn = bars_of(axis, {"128": 1000, "256": 1}, {"256": 30})
    heights = [int(found) for found in re.findall(r"v(-?\d+)h", svg("whole", drawn) + svg("cut", drawn))]
    assert heights[0] == -BAR
    assert -BAR < heights[1] < 0 < heights[2] < BAR
    labels = re.findall(r'y="(\d+)">(.*?)<', svg("labels", drawn))
    assert [text for _, text in labels] == ["1k", "1", "30"]
    assert [int(y) > SVG.BASELINE for y, _ in labels] == [False, False, True]
    standing = svg("height", bars_of(axis, {"128": 1000, "256": 1}, {}))
    assert int(svg("height", drawn)) > int(standing) == SVG.BASELINE


#: What docs/metrics.md gives as an example.
FEWER = (128, 1024, 8192, 65_536, 524_288, 1_048_576, 8_388_608)


def bars(page: str) -> list[tuple[float, float]]:
    """Left and right of each bar that stands, in percent."""
    found = re.findall(r"M(\d+) \d+v-?\d+h(\d+)", "".join(re.findall(r'<path class="whole" d="(M\d+ 54[^"]*)', page)))
    return [(int(left) / 10, (int(left) + int(width)) / 10) for left, width in found]


def test_bars_are_where_the_workers_buckets_are_also_among_the_default_bounds() -> None:
    summary = seen({"a": [(("x" * 1500,), {})] * 40}, limit=4096, rules=Rules(1024, FEWER))
    page = page_of(summary, limits=lambda _: ReprLimits(args=4096), bounds=FEWER)
    axis = axis_of([{"8192": 40}], FEWER)
    assert bars(page) == [pytest.approx((axis.at(1024), axis.at(8192)), abs=0.5)]
    (line,) = re.findall(r'<line class="limit" x1="([\d.]+)%"', page)
    (left, right), *_ = bars(page)
    assert left < float(line) < right, "reprs of 1,505 characters are left of the limit as well"
    assert "128, 1,024, 8,192, 65,536, 524,288, 1,048,576, 8,388,608" in page
    assert "doubling" not in page


def test_a_bucket_that_is_filled_has_its_place_also_where_it_is_not_known() -> None:
    summary = seen({"a": [((1,), {})] * 40}, rules=Rules(1024, (1000, 50_000)))
    axis = axis_of([{"1000": 40}], (128, 512, 2048))
    assert [*axis.bounds] == [128, 512, 1000, 2048]
    assert bars(page_of(summary, bounds=(128, 512, 2048))) == [pytest.approx((axis.at(512), axis.at(1000)), abs=0.5)]


def value(label: str) -> float:
    """What *label* of the axis stands for."""
    return float(label.rstrip("KMG")) * 1024.0 ** ("KMG".find(label[-1]) + 1)


@pytest.mark.parametrize("bounds", [(10**9,), (1,), (1, 2**63), (3_000_000, 5_000_000), (128, 129), DEFAULT_BUCKETS])
def test_limits_and_tiers_have_their_place_whatever_the_buckets(bounds: tuple[int, ...]) -> None:
    axis = axis_of([{str(bounds[-1]): 1}], bounds)
    places = [0, *[axis.at(1024)], *[mark.x for mark in axis.tiers], 100]
    assert places == sorted({*places}), "each apart from the next"
    assert axis.at(bounds[0]) > 0
    ticks = [tick.x for tick in axis.ticks]
    assert len(ticks) > 1
    assert all(after - before > 7 for before, after in itertools.pairwise(ticks))
    assert [axis.at(value(tick.text)) for tick in axis.ticks] == ticks


def test_buckets_of_an_apps_own_and_the_last_one_have_their_place() -> None:
    axis = axis_of([{"1000": 1, "50000": 2}, {"+Inf": 1}], (1000, 50_000))
    assert [*axis.bounds] == [1000, 50_000]
    drawn = bars_of(axis, {"1000": 1, "50000": 2, "+Inf": 1}, {})
    assert svg("words", drawn) == "1,000: 1; 50,000: 2; over 50,000: 1"
    starts = [int(x) for x in re.findall(r"M(\d+)", svg("whole", drawn))]
    assert starts == sorted(starts)
    assert axis_of([], DEFAULT_BUCKETS).at(1024) > 0


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0"), (999, "999"), (1000, "1k"), (1234, "1.2k"), (9960, "10k"), (123_456, "123k"), (999_999, "1M"),
     (1_500_000, "1.5M"), (2 * 10**12, "2000G")],
)  # fmt: skip
def test_counts_are_short(count: int, said: str) -> None:
    assert short(count, 1000, "kMG") == said
