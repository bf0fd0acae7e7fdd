"""A summary as people read it: the report, its JSON, the lines at shutdown, and what to check when there is nothing.

Pure: texts out, nothing printed. The wording and order of the headline figures are those of the size guide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from celery_argsize.advice.advice import TIERS, recommend
from celery_argsize.figures.counters import OTHER
from celery_argsize.measuring.cuts import CAUSES
from celery_argsize.views.advice_text import short_advice
from celery_argsize.words import counted, table, when

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery_argsize.advice.advice import Advice
    from celery_argsize.figures.summary import Summary, TaskSummary

#: What to check when nothing was collected: the guide's troubleshooting, in its order.
NOTHING_YET: Final = """\
Nothing has been measured yet. Check, in this order:
  1. Does the module that makes the app call celery_argsize.install(app)?
  2. Are workers running, and started after that line was added?      celery -A proj status
  3. Do they write to the Redis asked here? Their log says so if they have none; settings: argsize_redis_url,
     argsize_key_prefix, argsize_app_name.
  4. Have any tasks run since the last reset? Run a few and look again after a second.
  5. Do they run eagerly (task_always_eager)? Those are not counted, unless argsize_include_eager is set.\
"""


def report_text(summary: Summary, advice: Advice) -> str:
    """The whole report."""
    blocks = [
        ["=== CELERY SIZE METRICS ===", *_headline(summary)],
        period(summary),
        ["Tiers (characters, KB = 1,024), a rule of thumb:", *_tier_table(summary)],
        ["Tasks, largest first (characters):", *_task_table(summary), *(f"  {line}" for line in of_other(summary))],
        [*short_advice(advice), "  needs, costs and lines to paste: celery -A proj argsize recommend"]
        if summary.truncated_tasks
        else [],
        _paste(*to_paste(summary, advice)),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _paste(title: str, lines: Sequence[str]) -> list[str]:
    return [f"{title}:", *(f"    {line}" for line in lines)] if lines else []


def to_paste(summary: Summary, advice: Advice) -> tuple[str, Sequence[str]]:
    """What is to be pasted, in words, and its lines: the advice, or none.

    Where there is no advice yet, it is the rule of thumb, but never against the advice.
    """
    if advice.lines:
        return "To paste", advice.lines
    thumb = recommend(summary)
    harmful = advice.verdict not in {"too_few", "nothing"} or advice.against_the_guide
    if harmful or not thumb.lines or not summary.largest_task:
        return "", ()
    return "To paste for that tier, by the rule of thumb", thumb.lines


def _headline(summary: Summary) -> list[str]:
    return [f"{name}: {value}" for name, value in headline(summary)]


def headline(summary: Summary) -> list[tuple[str, str]]:
    """The headline figures: what each is called, and the figure with its unit."""
    advice = recommend(summary)
    largest = summary.largest_task
    figures = [
        ("Tasks analyzed", f"{summary.total_tasks:,}"),
        ("Max args size", f"{summary.max_args_size:,} characters"),
        ("Max kwargs size", f"{summary.max_kwargs_size:,} characters"),
        ("Mean args size", f"{summary.avg_args_size:,.0f} characters"),
        ("Mean kwargs size", f"{summary.avg_kwargs_size:,.0f} characters"),
        ("Truncated tasks", f"{summary.truncated_tasks:,}"),
        ("Largest task", f"{largest.name} ({largest.part})" if largest else "none measured"),
    ]
    if largest is None:
        figures.append(("Recommended limit", "none, as nothing could be measured"))
    else:
        covers = "none covers it (over 2MB): store the payload and pass a reference to it"
        figures.append(("Recommended limit", f"{advice.limit:,} characters"))
        figures.append(("Recommended tier", f"{advice.tier_name} ({advice.tier})" if advice.tier else covers))
    if summary.unmeasurable_tasks:
        figures.insert(6, ("Unmeasurable tasks", f"{summary.unmeasurable_tasks:,}"))
    if summary.errors:
        why = "for errors in celery_argsize; its lines in the workers' logs say which"
        figures.insert(1, ("Not measured", f"{summary.errors:,}, {why}"))
    return figures


def period(summary: Summary) -> list[str]:
    """Why reprs were truncated, when it was measured, and in which apps, where there are several."""
    lines = []
    if summary.truncated_tasks:
        causes = [f"{n:,} by {CAUSES[cause]}" for cause, n in summary.truncated_by.items() if n]
        lines.append(f"Truncated parts: {', '.join(causes)}")
    if summary.since is not None and summary.updated is not None:
        lines.append(f"Measured from {when(summary.since)} to {when(summary.updated)}.")
    if len(summary.apps) > 1:
        lines.append(f"Apps: {', '.join(summary.apps)} (--app-name shows one of them).")
    return lines


def _tier_table(summary: Summary) -> list[str]:
    chosen = recommend(summary).tier if summary.largest_task else None
    rows = [
        (
            "->" if tier.limit == chosen else "",
            f"largest {tier.range}",
            f"limit {tier.limit:,} ({tier.name})",
            tier.suits,
        )
        for tier in TIERS
    ]
    return table(rows, right=False)


def _task_table(summary: Summary) -> list[str]:
    head = (
        "Task",
        "Runs",
        "Max args",
        "Max kwargs",
        "Mean args",
        "Mean kwargs",
        "p95 args <=",
        "p95 kwargs <=",
        "Max repr",
        "Truncated",
    )
    return table([head, *map(_task_row, summary.tasks)], right=True)


def of_other(summary: Summary) -> list[str]:
    """What ``__other__`` is, where there is one."""
    if not summary.other_runs:
        return []
    count = counted(summary.other_runs, "run")
    return [
        f"Task names past max_task_names are added up as {OTHER}: {count}, of how many names is not known.",
        "To see each, raise max_task_names where workers start, and then: celery -A proj argsize reset",
    ]


def _task_row(task: TaskSummary) -> tuple[str, ...]:
    numbers = (
        task.count,
        task.args.max,
        task.kwargs.max,
        round(task.args.mean),
        round(task.kwargs.mean),
        task.args.p95,
        task.kwargs.p95,
        max(task.args.need.max, task.kwargs.need.max),
        task.truncated,
    )
    return (task.name, *(f"{number:,}" for number in numbers))


def report_json(summary: Summary, advice: Advice) -> dict[str, Any]:
    """The report as JSON-able data: docs/report-json.md."""
    thumb = recommend(summary)
    data = summary.to_json()
    tasks = data.pop("tasks")
    recommended = {"recommended_limit": thumb.limit, "recommended_tier": thumb.tier}
    return {**data, **recommended, "tasks": tasks, "advice": advice.to_json()}


def shutdown_lines(hostname: str, summary: Summary) -> list[str]:
    """What one worker measured, for its log."""
    lines = [f"Final monitoring report for worker {hostname}:"]
    lines += _headline(summary) if summary.total_tasks else ["Tasks analyzed: 0"]
    return [f"[WORKER SHUTDOWN] {line}" for line in lines]
