"""The report as a page: one HTML file that needs nothing else, for ``celery argsize report --html``.

Pure: text out, nothing written. ``views.chart`` says where bars lie; ``templates`` has the markup, its style and its
script. Needs jinja2 (``pip install 'celery-argsize[cli]'``), which escapes all that comes from figures, as names of
tasks may hold anything.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from celery_argsize.advice.advice import ReprLimits
from celery_argsize.figures.histogram import label
from celery_argsize.measuring.measurement import PARTS
from celery_argsize.redis_url import safe_url
from celery_argsize.settings import DEFAULT_BUCKETS
from celery_argsize.views import chart as chart_sizes
from celery_argsize.views.advice_text import app_reasons, app_verdict, task_facts, task_lines, task_verdict
from celery_argsize.views.chart import Axis, Chart, axis_of, draw, limit_mark
from celery_argsize.views.report import about_other, headline, period, to_paste
from celery_argsize.words import counted, when

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celery_argsize.advice.advice import Advice, TaskAdvice
    from celery_argsize.figures.summary import PartSummary, Summary, TaskSummary

#: Tasks whose histograms are open from the start: the largest ones.
OPEN: Final = 3


@dataclass(frozen=True, slots=True)
class _Part:
    """What the page shows of one part of a task."""

    name: str
    sizes: PartSummary
    of_json: bool
    """Whether the chart shows sizes of JSON, as nothing is known of the reprs."""
    chart: Chart | None
    drawn: str
    """What the chart counts."""
    limit: int | None
    """The limit that is drawn."""
    notes: list[str]
    """What the chart does not show, and why."""


@dataclass(frozen=True, slots=True)
class _Task:
    """What the page shows of one task."""

    sizes: TaskSummary
    advice: TaskAdvice | None
    parts: list[_Part]


def report_html(  # noqa: PLR0913 - what is shown, and four things that it does not know
    summary: Summary,
    advice: Advice,
    *,
    redis_url: str | None,
    bounds: Iterable[int],
    limits: Callable[[str], ReprLimits] | None,
    now: float,
) -> str:
    """The report as a page of HTML.

    *redis_url* is where the figures are from; ``None`` is this process's memory. User, password and options are not
    shown. *bounds* are those of the workers' histogram buckets (the setting ``histogram_buckets``), in bytes and
    characters: bars begin and end there. *limits* gives the current limits of a task name (``limits_of`` with an app);
    without it, the page shows Celery's defaults, and says so. *now*, in seconds since the epoch, is when it is made.
    """
    histograms = [_histogram(getattr(task, part)) for task in summary.tasks for part in PARTS]
    axis = axis_of(histograms, bounds)
    advised = {task.name: task for task in advice.tasks}
    tasks = []
    for task in summary.tasks:
        limit = limits(task.name) if limits else ReprLimits()
        parts = [_part(name, getattr(task, name), getattr(limit, name), axis) for name in PARTS]
        tasks.append(_Task(task, advised.get(task.name), parts))
    drawn = sorted({part.limit for task in tasks for part in task.parts if part.limit is not None})
    limit_name = "limit" if limits else "Celery's default limit"
    verdict, cured = app_verdict(advice)
    paste, lines = to_paste(summary, advice)
    style, script = _asset("report.css"), _asset("report.js")
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            OPEN=OPEN,
            summary=summary,
            advice=advice,
            figures=[(name, *_split(value)) for name, value in headline(summary)],
            period=period(summary),
            verdict=verdict,
            cured=cured,
            reasons=app_reasons(advice),
            paste=paste,
            lines=lines,
            tasks=tasks,
            other=about_other(summary),
            chart=chart_sizes,
            axis=axis,
            default_buckets=axis.bounds == DEFAULT_BUCKETS,
            marks={limit: limit_mark(axis, limit, limit_name) for limit in drawn},
            limits=limits is not None,
            redis=safe_url(redis_url) if redis_url else "none: the memory of one process",
            now=now,
            version=metadata.version("celery-argsize"),
            style=style,
            script=script,
            policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
            "base-uri 'none'; form-action 'none'",
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("celery_argsize.views"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "breakable": _breakable,
        "counted": counted,
        "facts": task_facts,
        "number": lambda number: f"{number:,.0f}",
        "paste": task_lines,
        "verdict": task_verdict,
        "when": when,
    }
    return environment


def _breakable(name: str) -> Markup:
    """*name*, escaped, and with places where a long one may go on in the next line."""
    return Markup("<wbr>").join(re.split(r"(?<=[._])(?=\w)", name))


def _asset(name: str) -> Markup:
    """A file of ``templates`` with no data in it, which is put into the page as it is."""
    return Markup(_environment().get_template(name).render())  # noqa: S704 - nothing from outside is in it


def _hash(text: str) -> str:
    """How a Content-Security-Policy names the one style or script that it allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _split(figure: str) -> tuple[str, str]:
    """The number that *figure* begins with, which is shown large, and the rest."""
    number, _, words = figure.partition(" ")
    number = number.rstrip(",")
    return (number, words) if number.replace(",", "").isdecimal() else ("", figure)


def _histogram(part: PartSummary) -> Mapping[str, int]:
    """What is drawn of *part*: its reprs by what they take whole, else its JSON by bytes; nothing if it is empty."""
    if not part.max:
        return {}
    return part.need.histogram if part.need.count else part.histogram


def _part(name: str, part: PartSummary, limit: int | None, axis: Axis) -> _Part:
    histogram, of_json = _histogram(part), bool(part.max) and not part.need.count
    cut: Counter[str] = Counter()
    if not of_json:
        for bucket in part.cuts.buckets:
            cut[label(bucket.bound)] += bucket.count
    whole = {bound: number - cut[bound] for bound, number in histogram.items()}
    drawn = f"{sum(whole.values()):,} whole, {cut.total():,} truncated"
    return _Part(
        name=name,
        sizes=part,
        of_json=of_json,
        chart=draw(axis, whole, cut) if histogram else None,
        drawn=f"{sum(whole.values()):,} by bytes of JSON" if of_json else drawn,
        limit=limit if histogram and not of_json else None,
        notes=_notes(part, of_json=of_json, limit=limit),
    )


def _notes(part: PartSummary, *, of_json: bool, limit: int | None) -> list[str]:
    unmeasured = f"{part.unmeasurable:,} without a JSON form" if part.unmeasurable else ""
    if not part.max:
        every = "all " if part.count > 1 and not unmeasured else ""
        empty = f"Empty in {every}{counted(part.count, 'run')}" if part.count else "Never measured"
        return [f"{empty}, {unmeasured}." if unmeasured else f"{empty}."]
    lost = part.truncated - part.cuts.count
    missing = [
        f"{part.custom:,} with a repr that the caller wrote" if part.custom else "",
        f"{part.unknown:,} without a repr" if part.unknown else "",
        f"{lost:,} truncated, but not measured" if lost else "",
        unmeasured,
    ]
    notes = []
    if of_json:
        notes.append("Bytes of JSON, as it is not known what the reprs take: limits and tiers are not about these.")
    if any(missing):
        notes.append(f"{'Reprs' if of_json else 'Not drawn'}: {', '.join(filter(None, missing))}.")
    if limit is None and not of_json:
        notes.append("No limit is set.")
    return notes
