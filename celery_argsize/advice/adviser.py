"""Turns a summary into advice: which limits to set, or what to do instead.

Pure. ``plans`` works out limits; this module chooses among them:
for each task, then for the app.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from celery_argsize.advice.advice import (
    TIERS,
    Advice,
    PartAdvice,
    ReprLimits,
    TaskAdvice,
    Verdict,
    app_lines,
    highest,
    recommend,
    task_lines,
)
from celery_argsize.advice.brokers import OTHER_HEADERS, Broker, broker_of
from celery_argsize.advice.plans import Plan, Planner, ReprSpeed, bytes_per_char
from celery_argsize.figures.counters import OTHER
from celery_argsize.measuring.cuts import DEFAULT_LEVELS, DEFAULT_LIMIT
from celery_argsize.measuring.measurement import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery_argsize.figures.summary import PartSummary, Summary, TaskSummary

#: Runs of a task below which there is no advice. If 30 stay within a limit, under
#: 10 % of all exceed it, with 95 % confidence (the rule of three).
MIN_RUNS: Final = 30
#: Seconds that limits may add to the publish of a truncated message, on
#: average; ten times that for the largest. A publish takes about 1 ms, and
#: a web request waits for it.
MAX_PUBLISH_SECONDS: Final = 0.01
#: Characters of JSON above which a payload is a burden.
LARGE_PAYLOAD: Final = TIERS[0].limit


def advise(  # noqa: PLR0913 - a public function
    summary: Summary,
    broker: str | None = None,
    celery_version: str | None = None,
    *,
    min_runs: int = MIN_RUNS,
    max_publish_seconds: float = MAX_PUBLISH_SECONDS,
    repr_speed: ReprSpeed | None = None,
) -> Advice:
    """What to do about the truncated reprs in *summary*.

    *broker*: a kombu transport's name or a URL. *celery_version*: that of the
    processes that send tasks; without it, one before 5.7 is assumed. Tasks with fewer
    than *min_runs* runs get no advice. Without *repr_speed*, no publish time is worked
    out, and *max_publish_seconds* has no effect.
    """
    version = celery_version or ""
    planner = Planner(broker_of(broker), version, _days(summary), min_runs, max_publish_seconds, repr_speed)
    tasks = [_task_advice(task, planner) for task in summary.tasks if task.truncated]
    tasks.sort(key=lambda task: (-task.truncated, task.name))
    verdict, reasons, limits = _app_verdict(tasks, summary, planner)
    thumb = recommend(summary)
    return Advice(
        verdict=verdict,
        reasons=tuple(reasons),
        rule_of_thumb=thumb,
        against_the_guide=_against_the_guide(planner.broker, thumb.tier),
        limits=limits,
        tasks=tuple(_in_app(task, verdict) for task in tasks),
        broker=planner.broker,
        celery_version=version,
        total_tasks=summary.total_tasks,
        since=summary.since,
        updated=summary.updated,
    )


def _task_advice(task: TaskSummary, planner: Planner) -> TaskAdvice:
    """Limits for all reprs, else for all but the largest 1 %, else none."""
    parts = {name: part for name in PARTS if (part := getattr(task, name)).truncated}
    for_all, for_most = planner.plan(task, parts, "max"), planner.plan(task, parts, "p99")
    chosen = next((plan for plan in (for_all, for_most) if plan and not plan.problems), None)
    problems = for_all.problems if for_all else (planner.no_limit(parts),)
    verdict, reasons = _verdict(task, chosen, problems, planner.min_runs)
    shown = chosen or for_all
    return TaskAdvice(
        name=task.name,
        count=task.count,
        truncated=task.truncated,
        verdict=verdict,
        reasons=tuple(reasons),
        parts=tuple(_part_advice(name, part, shown, for_most) for name, part in parts.items()),
        limits=chosen.limits if chosen and verdict == "apply" else None,
        cost=shown.cost if shown else None,
        lines=_lines(task.name, verdict, chosen, parts),
    )


def _lines(task: str, verdict: Verdict, chosen: Plan | None, parts: Iterable[str]) -> tuple[str, ...]:
    where = "# where the task is sent from:"
    if verdict == "pass_reference":
        how = f"{where} store the payload (a database, S3, Redis), send its key"
        return how, f"app.send_task({task!r}, args=(key,))"
    if verdict == "short_argsrepr":
        short = ", ".join(f'{part}repr="a few words of your own"' for part in parts)
        return f"{where} Celery sends these as they are", f"app.send_task({task!r}, args=args, kwargs=kwargs, {short})"
    return app_lines(chosen.limits) if chosen and verdict == "apply" else ()


def _verdict(
    task: TaskSummary, chosen: Plan | None, problems: Sequence[str], min_runs: int
) -> tuple[Verdict, list[str]]:
    """The verdict on a task, with reasons. *problems*: of limits for all its reprs."""
    reasons = []
    if unmeasured := sum(part.truncated - part.cuts.count for part in (task.args, task.kwargs)):
        reasons.append(f"{unmeasured:,} of its truncated reprs could not be measured, and are not counted as cured")
    if task.count < min_runs:
        return "too_few", [f"seen {task.count:,} times; from {min_runs:,} on there is advice", *reasons]
    largest = max(part.max for part in (task.args, task.kwargs) if part.truncated)
    burden = f"its arguments are up to {largest:,} characters, a burden for broker and worker"
    if chosen:
        if problems:
            reasons.insert(0, f"the largest 1 % stay truncated: {problems[0]}")
        if largest > LARGE_PAYLOAD:
            reasons.append(f"{burden}; a reference would make the message small too")
        return "apply", reasons
    reasons = [*problems, *reasons]
    return ("pass_reference", [*reasons, burden]) if largest > LARGE_PAYLOAD else ("short_argsrepr", reasons)


def _part_advice(name: str, part: PartSummary, shown: Plan | None, for_most: Plan | None) -> PartAdvice:
    limit, p99 = (getattr(plan.limits, name) if plan else None for plan in (shown, for_most))
    p99_limit = p99 if p99 != limit else None
    return PartAdvice(
        part=name,
        truncated=part.truncated,
        truncated_by=dict(part.truncated_by),
        need_max=part.need.max,
        need_p99=part.need.p99,
        levels=part.need.levels,
        limit=limit,
        cured=_cured(part, limit),
        p99_limit=p99_limit,
        p99_cured=_cured(part, p99_limit),
    )


def _cured(part: PartSummary, limit: int | None) -> int:
    if limit is None:
        return 0
    bound = limit if part.need.max > limit else math.inf
    return sum(bucket.count for bucket in part.cuts.buckets if bucket.bound <= bound)


def _app_verdict(
    tasks: list[TaskAdvice], summary: Summary, planner: Planner
) -> tuple[Verdict, list[str], ReprLimits | None]:
    """The verdict on the app, the reasons, and limits for all tasks."""
    limits = [task.limits for task in tasks if task.limits]
    bad = [task for task in tasks if task.verdict in {"pass_reference", "short_argsrepr"}]
    if not limits and not bad:
        if tasks or summary.total_tasks < planner.min_runs:
            return "too_few", [f"no truncated task was seen {planner.min_runs:,} times"], None
        return "nothing", [f"none of {summary.total_tasks:,} runs had a truncated repr"], None
    if not limits:
        verdict: Verdict = next((task.verdict for task in bad if task.name != OTHER), "too_few")
        return verdict, ["no limit is advised for any of the tasks; see each"], None
    for_all = highest(limits)
    against = _risks(for_all, tasks, summary, planner)
    if bad:
        against.insert(0, f"for all tasks, the limits would harm {', '.join(task.name for task in bad)}")
    if not against:
        return "apply", [], for_all
    named = any(task.limits and task.name != OTHER for task in tasks)
    return "apply_only" if named else "too_few", against, None


def _risks(limits: ReprLimits, tasks: list[TaskAdvice], summary: Summary, planner: Planner) -> list[str]:
    """Why *limits* may do harm for all tasks, though each task could have its own."""
    risks = []
    version = [*map(int, re.findall(r"\d+", planner.celery_version)[:2])]
    if limits.levels != DEFAULT_LEVELS and version < [5, 7]:  # without task_repr_maxlevels
        nested = f"arguments are nested {limits.levels} levels deep"
        risks.append(f"{nested}, and before Celery 5.7 only single tasks can show more than {DEFAULT_LEVELS}")
    density = {name: max(bytes_per_char(getattr(task, name)) for task in summary.tasks) for name in PARTS}
    by_part = {"args": limits.args, "kwargs": limits.kwargs}
    raised = {name: limit for name, limit in by_part.items() if limit != DEFAULT_LIMIT}
    if not planner.fits_frame(raised, density):
        broker, both = planner.broker, "with both parts as long as the limits"
        risks.append(f"{both}, headers would not fit {broker.headers_max:,} bytes ({broker.source})")
    rare = [task for task in tasks if task.verdict == "too_few"]
    if unsure := [task.name for task in rare if any(part.need_max > by_part[part.part] for part in task.parts)]:
        risks.append(f"what the limits would do to {', '.join(unsure)} is not known yet")
    return risks


def _in_app(task: TaskAdvice, app_verdict: Verdict) -> TaskAdvice:
    """*task* with the verdict that fits the one for the app."""
    if task.name == OTHER:  # no single name to set limits for
        many = f"{OTHER} is many tasks, whose names are past max_task_names; raise that for advice on each"
        reasons = (many, *task.reasons)
        if task.verdict == app_verdict == "apply":
            return replace(task, reasons=reasons)
        return replace(task, verdict="too_few", reasons=reasons, limits=None, lines=())
    if task.limits is not None and app_verdict != "apply":
        return replace(task, verdict="apply_only", lines=task_lines({task.name: task.limits}))
    return task


def _against_the_guide(broker: Broker, tier: int | None) -> str:
    most = broker.headers_max
    if tier is None or most is None or tier + OTHER_HEADERS <= most:
        return ""
    over = f"over the {most:,} bytes that the broker takes"
    return f"it lets headers grow {over}, which closes the producer's connection ({broker.source})"


def _days(summary: Summary) -> float:
    """Days that the figures cover; 0 if under ten minutes."""
    seconds = (summary.updated or 0.0) - (summary.since or math.inf)
    return seconds / 86_400 if seconds >= 600 else 0.0  # noqa: PLR2004 - seconds
