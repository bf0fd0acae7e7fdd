"""The page of ``celery argsize report --html``: one HTML file that needs nothing else.

Pure. ``templates`` has the markup, sentences, style and script. jinja2 escapes
what comes from figures, as names of tasks may hold anything.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from celery_argsize.advice.advice import Advice, ReprLimits
from celery_argsize.figures.counters import label
from celery_argsize.measuring.measurement import PARTS
from celery_argsize.redis_url import safe_url
from celery_argsize.views import advice_text, chart, report
from celery_argsize.words import counted, when

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celery_argsize.figures.summary import PartSummary, Summary


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    sizes: PartSummary
    of_json: bool
    """The chart shows bytes of JSON, as the need of no repr is known."""
    histogram: Mapping[str, int]
    bars: list[chart.Bar]
    limit: int | None


def report_html(  # noqa: PLR0913 - a public function
    summary: Summary,
    advice: Advice,
    *,
    redis_url: str | None,
    bounds: Iterable[int],
    limits: Callable[[str], ReprLimits] | None,
    now: float,
) -> str:
    """The report as a page of HTML.

    *redis_url*: where the figures are from; ``None``: this process's memory. *bounds*:
    those of the workers' buckets. *limits*: task name → limits to draw; without it,
    Celery's defaults. *now*: seconds since the epoch.
    """
    axis = chart.axis_of([_histogram(getattr(task, part)) for task in summary.tasks for part in PARTS], bounds)
    advised = {task.name: task for task in advice.tasks}
    tasks = []
    for task in summary.tasks:
        limit = limits(task.name) if limits else ReprLimits()
        parts = [_part(name, getattr(task, name), getattr(limit, name), axis) for name in PARTS]
        tasks.append((task, advised.get(task.name), parts))
    drawn = {part.limit for *_, parts in tasks for part in parts if part.limit is not None and part.histogram}
    limit_name = "limit" if limits else "Celery's default limit"
    page = _environment().get_template("report.html.jinja")
    return page.render(
        summary=summary,
        advice=advice,
        tasks=tasks,
        axis=axis,
        marks={limit: chart.limit_mark(axis, limit, limit_name) for limit in sorted(drawn)},
        limits=limits,
        redis=safe_url(redis_url) if redis_url else "none: the memory of one process",
        now=now,
        version=metadata.version("celery-argsize"),
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("celery_argsize.views"),
        autoescape=lambda name: name != "chart.svg.jinja",  # noqa: S701 - numbers only
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"BAR": chart.BAR, "report": report, "words": advice_text}
    environment.filters |= {"breakable": _breakable, "counted": counted, "hash": _hash}
    environment.filters |= {"number": "{:,.0f}".format, "short": chart.short, "when": when}
    return environment


def _breakable(name: str) -> Markup:
    """*name*, escaped, with places where a line may end."""
    return Markup("<wbr>").join(re.split(r"(?<=[._])(?=\w)", name))


def _hash(text: str) -> str:
    """The name of a style or script in the page's Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _histogram(part: PartSummary) -> Mapping[str, int]:
    """What to draw: the lengths of whole reprs, else the bytes of JSON."""
    if not part.max:
        return {}
    return part.need.histogram if part.need.count else part.histogram


def _part(name: str, part: PartSummary, limit: int | None, axis: chart.Axis) -> _Part:
    histogram, of_json = _histogram(part), bool(part.max) and not part.need.count
    cut = Counter({label(bucket.bound): bucket.count for bucket in part.cuts.buckets})
    bars = chart.bars_of(axis, {bound: number - cut[bound] for bound, number in histogram.items()}, cut)
    return _Part(name, part, of_json, histogram, bars, None if of_json else limit)
