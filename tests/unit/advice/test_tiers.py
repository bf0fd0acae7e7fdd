"""The size guide's recommendation, at each of its edges."""

from __future__ import annotations

import pytest

from celery_argsize.advice.advice import recommend
from celery_argsize.figures.counters import Figures, Rules, Tally
from celery_argsize.figures.summary import Summary, summarize
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import Measurement, Part

KB = 1024


def summary_of(args: int, kwargs: int) -> Summary:
    tally = Tally(1)
    parts = Part(Size(args, args)), Part(Size(kwargs, kwargs))
    tally.add(Measurement("scan", "id", *parts, 1.0), Rules(1024, (1,)))
    return summarize(Figures("app", tally.tasks))


@pytest.mark.parametrize(
    ("size", "limit", "tier"),
    [
        (0, 0, 131_072),
        (45_678, 54_813, 131_072),
        (67_890, 81_468, 131_072),
        (100 * KB - 1, 122_878, 131_072),
        (100 * KB, 122_880, 524_288),
        (500 * KB - 1, 614_398, 524_288),
        (500 * KB, 614_400, 1_048_576),
        (1024 * KB - 1, 1_258_290, 1_048_576),
        (1024 * KB, 1_258_291, 2_097_152),
        (2048 * KB, 2_516_582, 2_097_152),
        (2048 * KB + 1, 2_516_583, None),
    ],
)
def test_the_guides_table(size: int, limit: int, tier: int | None) -> None:
    for summary in (summary_of(size, 0), summary_of(0, size), summary_of(size, size)):
        advice = recommend(summary)
        assert (advice.limit, advice.tier) == (limit, tier)


def test_the_lines_to_paste() -> None:
    assert recommend(summary_of(45_678, 0)).lines[1:] == (
        "app.amqp.argsrepr_maxsize = 131072",
        "app.amqp.kwargsrepr_maxsize = 131072",
    )
