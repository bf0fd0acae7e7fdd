"""The report as a page: one file that needs nothing else, for ``celery argsize report --html``.

Pure: text out, nothing written. Where bars lie is ``html_chart``; the markup, its style and its one script are in
``templates``. Needs jinja2, which ``pip install 'celery-argsize[html]'`` brings; jinja2 escapes all that comes from
figures, as names of tasks may hold anything.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from celery_argsize.advice.advice import ReprLimits
from celery_argsize.figures.histogram import label
from celery_argsize.measuring.measurement import PARTS
from celery_argsize.redis_url import safe_url
from celery_argsize.settings import DEFAULT_BUCKETS
from celery_argsize.views import chart as chart_marks
from celery_argsize.views.advice_text import app_reasons, app_verdict, task_facts, task_verdict
from celery_argsize.views.chart import Axis, Chart, axis_of, draw, limit_mark
from celery_argsize.views.report import headline, of_other, period, to_paste
from celery_argsize.words import counted, when

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celery_argsize.advice.advice import Advice, TaskAdvice
    from celery_argsize.figures.summary import PartSummary, Summary, TaskSummary

#: Tasks whose histograms are open from the start: the largest ones.
OPEN: Final = 3
#: A figure that begins with a number, and what comes after it.
_FIGURE: Final = re.compile(r"(\d+(?:,\d+)*)(?:,? (.+))?$", re.DOTALL)
#: Where a name may be broken.
_JOINTS: Final = re.compile(r"(?<=[._])(?=\w)")


class _Figure(NamedTuple):
    """A headline figure: its number, which is shown large, and its unit; or words only."""

    name: str
    number: str
    words: str


@dataclass(frozen=True, slots=True)
class _PartView:
    name: str
    figures: tuple[tuple[str, str], ...]
    """What it is called, and the number."""
    largest: str
    """The id of the largest, and when it was measured; empty if not known."""
    chart: Chart | None
    drawn: str
    """What the chart counts."""
    of_json: bool
    """Whether it is the sizes of JSON that it counts, for want of reprs."""
    limit: int | None
    """The limit that is drawn, if any."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _TaskView:
    name: str
    cells: tuple[str, ...]
    """Of its row in the table, after the name."""
    cut: bool
    """Whether any of its reprs was truncated."""
    digest: str
    """The row in a few words."""
    verdict: str
    facts: tuple[str, ...]
    lines: tuple[str, ...]
    parts: tuple[_PartView, ...]


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

    *redis_url* is where the figures are from, of which user, password and options are not shown; ``None`` is this
    process's memory. *bounds* are those of the workers' histogram buckets (the setting ``histogram_buckets``), in bytes
    and characters: bars begin and end there. *limits* gives the current limits of a task name (``limits_of`` with an
    app); without it, they are Celery's defaults, and said to be. *now* is when the page is made, in seconds since the
    epoch.
    """
    every = [getattr(task, part) for task in summary.tasks for part in PARTS]
    axis = axis_of([_histogram(part)[0] for part in every], bounds)
    advised = {task.name: task for task in advice.tasks}
    tasks = [_task(task, advised.get(task.name), axis, (limits or _default)(task.name)) for task in summary.tasks]
    drawn = {part.limit for task in tasks for part in task.parts if part.limit is not None}
    limit_name = "limit" if limits else "Celery's default limit"
    verdict, cured = app_verdict(advice)
    paste, lines = to_paste(summary, advice)
    thumb = not advice.lines
    style, script = _asset("report.css"), _asset("report.js")
    return _environment().get_template("report.html.jinja").render(
        figures=[_figure(*figure) for figure in headline(summary)],
        period=period(summary),
        truncated=summary.truncated_tasks,
        runs=counted(summary.total_tasks, "run"),
        verdict=verdict,
        cured=cured,
        reasons=app_reasons(advice),
        against=advice.against_the_guide,
        paste=paste,
        lines=() if thumb else lines,
        thumb=lines if thumb else (),
        tasks=tasks,
        other=of_other(summary),
        OPEN=OPEN,
        axis=axis,
        chart=chart_marks,
        marks={limit: limit_mark(axis, limit, limit_name) for limit in sorted(drawn)},
        limits=limits is not None,
        source=_source(summary, advice, redis_url, axis, now),
        apps=summary.apps,
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'",
    )  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("celery_argsize.views"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(name: str) -> Markup:
    """*name*, escaped, and with places where a long one may go on in the next line."""
    return Markup("<wbr>").join(_JOINTS.split(name))


def _asset(name: str) -> Markup:
    """The text of a template that is ours alone, and is put into the page as it is."""
    environment = _environment()
    return Markup(environment.get_template(name).render())  # noqa: S704 - nothing from outside is in it


def _hash(text: str) -> str:
    """How a policy names the one style or script that it allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _figure(name: str, value: str) -> _Figure:
    found = _FIGURE.match(value)
    return _Figure(name, found[1], found[2] or "") if found else _Figure(name, "", value)


def _source(summary: Summary, advice: Advice, redis_url: str | None, axis: Axis, now: float) -> list[tuple[str, str]]:
    """Where all this is from, since when and until when: what it is called, and what it is."""
    broker = advice.broker
    known = f"{broker.name} ({broker.source})" if broker.source else broker.name
    return [
        ("Redis", safe_url(redis_url) if redis_url else "none: the memory of one process"),
        ("Apps", ", ".join(summary.apps) or "not known"),
        ("Counted since", "not known" if summary.since is None else when(summary.since)),
        ("Newest figures", "not known" if summary.updated is None else when(summary.updated)),
        ("Page made", when(now)),
        ("Broker of the advice", known if broker.known else f"{broker.name} (its limits are not known)"),
        ("Celery of the advice", advice.celery_version or "version not known"),
        (
            "Buckets",
            "the default ones" if axis.bounds == DEFAULT_BUCKETS else ", ".join(f"{n:,.0f}" for n in axis.bounds),
        ),
        ("celery-argsize", metadata.version("celery-argsize")),
    ]


def _default(_: str) -> ReprLimits:
    return ReprLimits()


def _task(task: TaskSummary, advice: TaskAdvice | None, axis: Axis, limits: ReprLimits) -> _TaskView:
    numbers = (
        task.count,
        task.max,
        *(number for part in (task.args, task.kwargs) for number in (part.max, round(part.mean), part.p95)),
        max(task.args.need.max, task.kwargs.need.max),
        task.truncated,
    )
    cells = tuple(f"{number:,}" for number in numbers)
    verdict = task_verdict(advice) if advice else ""
    return _TaskView(
        name=task.name,
        cells=cells,
        cut=bool(task.truncated),
        digest=f"{counted(task.count, 'run')}, max {cells[1]}"
        + (f", {task.truncated:,} truncated" if task.truncated else ""),
        verdict=verdict,
        facts=tuple(task_facts(advice)) if advice else (),
        lines=advice.lines if advice and advice.verdict in {"pass_reference", "short_argsrepr"} else (),
        parts=tuple(_part(name, getattr(task, name), getattr(limits, name), axis) for name in PARTS),
    )


def _histogram(part: PartSummary) -> tuple[Mapping[str, int], bool]:
    """What is drawn of *part*, and whether that is the sizes of its JSON, as no repr is known."""
    if not part.max:
        return {}, False  # always empty, or never measured: there is nothing to see
    return (part.need.histogram, False) if part.need.count else (part.histogram, True)


def _part(name: str, part: PartSummary, limit: int | None, axis: Axis) -> _PartView:
    histogram, of_json = _histogram(part)
    cut = {} if of_json else _cut(part)
    chart = draw(axis, {bound: n - cut.get(bound, 0) for bound, n in histogram.items()}, cut) if histogram else None
    drawn, truncated = sum(histogram.values()), sum(cut.values())
    return _PartView(
        name=name,
        figures=_figures(part) if part.max else (),
        largest=f"{part.largest_task_id}, {when(part.largest_at)}" if part.max and part.largest_task_id else "",
        chart=chart,
        drawn=f"{drawn:,} by bytes of JSON" if of_json else f"{drawn - truncated:,} whole, {truncated:,} truncated",
        of_json=of_json,
        limit=None if of_json or chart is None else limit,
        notes=tuple(_notes(part, of_json=of_json, limit=limit)),
    )


def _cut(part: PartSummary) -> dict[str, int]:
    """The truncated ones by what their whole reprs take; flat and deep ones together."""
    found: dict[str, int] = {}
    for bucket in part.cuts.buckets:
        bound = label(bucket.bound)
        found[bound] = found.get(bound, 0) + bucket.count
    return found


def _figures(part: PartSummary) -> tuple[tuple[str, str], ...]:
    numbers: dict[str, Any] = {
        "max": part.max,
        "mean": round(part.mean),
        "p50 ≤": part.p50,
        "p95 ≤": part.p95,
        "p99 ≤": part.p99,
    }
    if part.need.count:
        numbers["max repr"] = part.need.max
    return tuple((name, f"{number:,}") for name, number in numbers.items())


def _notes(part: PartSummary, *, of_json: bool, limit: int | None) -> list[str]:
    """What the chart does not show, and why."""
    unmeasured = f"{part.unmeasurable:,} without a JSON form" if part.unmeasurable else ""
    if not part.max:
        every = "all " if part.count > 1 and not unmeasured else ""
        empty = f"Empty in {every}{counted(part.count, 'run')}" if part.count else "Never measured"
        return [", ".join(filter(None, (empty, unmeasured))) + "."]
    notes = []
    lost = part.truncated - part.cuts.count
    left = [
        f"{part.custom:,} with a repr that the caller wrote" if part.custom else "",
        f"{part.unknown:,} without a repr" if part.unknown else "",
        f"{lost:,} truncated, but not measured" if lost else "",
        unmeasured,
    ]
    if of_json:
        notes.append("Bytes of JSON, as it is not known what the reprs take: limits and tiers are not about these.")
    if any(left):
        notes.append(f"{'Reprs' if of_json else 'Not drawn'}: {', '.join(filter(None, left))}.")
    if limit is None and not of_json:
        notes.append("No limit is set.")
    return notes
