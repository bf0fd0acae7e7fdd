"""The report as text and JSON, and a worker's lines at shutdown.

The size guide sets the names and the order of the headline figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from celery_argsize.advice.advice import TIERS, Advice, recommend
from celery_argsize.figures.counters import OTHER
from celery_argsize.views.advice_text import causes, short_advice
from celery_argsize.words import counted, table, when

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery_argsize.figures.summary import Summary, TaskSummary

#: The size guide's troubleshooting.
NOTHING_YET: Final = """\
Nothing has been measured yet. Check, in this order:
  1. Does the module that makes the app call celery_argsize.install(app)?
  2. Are workers running, and started after that line was added?      celery -A proj status
  3. Do they write to the Redis asked here? Their log says so if they have none; settings: argsize_redis_url,
     argsize_key_prefix, argsize_app_name.
  4. Have any tasks run since the last reset? Run a few and look again after a second.
  5. Do they run eagerly (task_always_eager)? Those are not counted, unless argsize_include_eager is set.\
"""

_SIZES: Final = ("Max args", "Max kwargs", "Mean args", "Mean kwargs", "p95 args <=", "p95 kwargs <=")
_COLUMNS: Final = ("Task", "Runs", *_SIZES, "Max repr", "Truncated")


def report_text(summary: Summary, advice: Advice) -> str:
    """The report as text."""
    tiers = []
    for tier in TIERS:
        arrow = "->" if tier.limit == advice.rule_of_thumb.tier and summary.largest_task else ""
        tiers.append((arrow, f"largest {tier.range}", f"limit {tier.limit:,} ({tier.name})", tier.suits))
    rows = table([_COLUMNS, *map(_row, summary.tasks)], right=True)
    blocks = [
        ["=== CELERY SIZE METRICS ===", *map(": ".join, headline(summary))],
        period(summary),
        ["Tiers (characters, KB = 1,024), a rule of thumb:", *table(tiers, right=False)],
        ["Tasks, largest first (characters):", *rows, *(f"  {line}" for line in about_other(summary))],
    ]
    if summary.truncated_tasks:
        more = "  needs, costs and lines to paste: celery -A proj argsize recommend"
        blocks.append([*short_advice(advice), more])
    title, lines = to_paste(summary, advice)
    if lines:
        blocks.append([f"{title}:", *(f"    {line}" for line in lines)])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _row(task: TaskSummary) -> tuple[str, ...]:
    args, kwargs = task.args, task.kwargs
    sizes = args.max, kwargs.max, args.mean, kwargs.mean, args.p95, kwargs.p95
    numbers = task.count, *sizes, max(args.need.max, kwargs.need.max), task.truncated
    return task.name, *(f"{number:,.0f}" for number in numbers)


def report_json(summary: Summary, advice: Advice) -> dict[str, Any]:
    """The report for JSON: docs/report-json.md."""
    thumb, data = advice.rule_of_thumb, summary.to_json()
    tasks = data.pop("tasks")
    recommended = {"recommended_limit": thumb.limit, "recommended_tier": thumb.tier}
    return {**data, **recommended, "tasks": tasks, "advice": advice.to_json()}


def shutdown_lines(hostname: str, summary: Summary) -> list[str]:
    """A worker's figures, for its log."""
    lines = [f"Final monitoring report for worker {hostname}:"]
    lines += map(": ".join, headline(summary)) if summary.total_tasks else ["Tasks analyzed: 0"]
    return [f"[WORKER SHUTDOWN] {line}" for line in lines]


def to_paste(summary: Summary, advice: Advice) -> tuple[str, Sequence[str]]:
    """A title and Python: from the advice, else from the rule of thumb if harmless."""
    if advice.lines:
        return "To paste", advice.lines
    harmless = advice.verdict in {"too_few", "nothing"} and not advice.against_the_guide
    lines = advice.rule_of_thumb.lines
    if harmless and lines and summary.largest_task:
        return "To paste for that tier, by the rule of thumb", lines
    return "", ()


def headline(summary: Summary) -> list[tuple[str, str]]:
    """The headline figures: pairs of name and text, such as ``42 characters``."""
    thumb, largest = recommend(summary), summary.largest_task
    errors = f"{summary.errors:,}, for errors in celery_argsize; its lines in the workers' logs say which"
    limit = f"{thumb.limit:,} characters" if largest else "none, as nothing could be measured"
    none = "none covers it (over 2MB): store the payload and pass a reference to it"
    tier = f"{thumb.tier_name} ({thumb.tier})" if thumb.tier else none
    figures = {
        "Tasks analyzed": f"{summary.total_tasks:,}",
        "Not measured": errors if summary.errors else "",
        "Max args size": f"{summary.max_args_size:,} characters",
        "Max kwargs size": f"{summary.max_kwargs_size:,} characters",
        "Mean args size": f"{summary.avg_args_size:,.0f} characters",
        "Mean kwargs size": f"{summary.avg_kwargs_size:,.0f} characters",
        "Truncated tasks": f"{summary.truncated_tasks:,}",
        "Unmeasurable tasks": f"{summary.unmeasurable_tasks:,}" if summary.unmeasurable_tasks else "",
        "Largest task": f"{largest.name} ({largest.part})" if largest else "none measured",
        "Recommended limit": limit,
        "Recommended tier": tier if largest else "",
    }
    return [(name, figure) for name, figure in figures.items() if figure]


def period(summary: Summary) -> list[str]:
    """Lines: why reprs were truncated, when was measured, and which apps."""
    lines = []
    if summary.truncated_tasks:
        lines.append(f"Truncated parts: {causes(summary.truncated_by)}")
    if summary.since is not None and summary.updated is not None:
        lines.append(f"Measured from {when(summary.since)} to {when(summary.updated)}.")
    if len(summary.apps) > 1:
        lines.append(f"Apps: {', '.join(summary.apps)} (--app-name shows one of them).")
    return lines


def about_other(summary: Summary) -> list[str]:
    """Lines that explain the row ``__other__``, if there is one."""
    if not summary.other_runs:
        return []
    runs = counted(summary.other_runs, "run")
    return [
        f"Task names past max_task_names are added up as {OTHER}: {runs}, of how many names is not known.",
        "To see each, raise max_task_names where workers start, and then: celery -A proj argsize reset",
    ]
