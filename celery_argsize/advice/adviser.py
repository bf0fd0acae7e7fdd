"""From a summary to advice: which limits keep reprs whole, whether the broker takes them, what they cost; or what else.

Pure: what publishing costs on a machine is measured by a function that the caller passes in (``cost``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.advice.advice import (
    TIERS,
    Advice,
    PartAdvice,
    ReprLimits,
    TaskAdvice,
    app_lines,
    recommend,
    reference_lines,
    short_lines,
    task_lines,
)
from celery_argsize.advice.brokers import OTHER_HEADERS, broker_of
from celery_argsize.advice.plans import Plan, Planner, bytes_a_char
from celery_argsize.figures.counters import OTHER
from celery_argsize.measuring.cuts import DEFAULT_LEVELS, DEFAULT_LIMIT
from celery_argsize.measuring.measurement import PARTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_argsize.advice.advice import Verdict
    from celery_argsize.advice.brokers import Broker
    from celery_argsize.advice.plans import PublishTime
    from celery_argsize.figures.summary import PartSummary, Summary, TaskSummary

#: Runs of a task from which anything is concluded. Of 30 that needed no more, one can say with 95 % confidence that
#: fewer than 10 % of all do (the rule of three).
MIN_RUNS: Final = 30

#: Seconds that limits may add to a truncated message's publish, on average; ten times that for the largest. A publish
#: takes about 1 ms by itself, and a web request waits for it.
MAX_PUBLISH_SECONDS: Final = 0.01

#: Seconds from which figures are extrapolated to a day.
MIN_SECONDS: Final = 600

#: Characters of JSON from which a payload is a burden by itself, whatever its repr: the guide's first tier.
LARGE_PAYLOAD: Final = TIERS[0].limit

#: The first Celery with the setting ``task_repr_maxlevels``.
LEVELS_SINCE: Final = (5, 7)


def advise(  # noqa: PLR0913 - two things to know, four to tune
    summary: Summary,
    broker: str | None = None,
    celery_version: str | None = None,
    *,
    min_runs: int = MIN_RUNS,
    max_publish_seconds: float = MAX_PUBLISH_SECONDS,
    publish_time: PublishTime | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Advice:
    """What to do about the truncated reprs in *summary*.

    *broker* is a kombu transport's name or a URL; *celery_version* that of the producers (``"5.7.0"``). Without them,
    limits of the broker count as unknown, and the number of levels as fixed, as before Celery 5.7. Tasks with fewer
    than *min_runs* runs get no advice. Limits that add more than *max_publish_seconds* to a publish on average, by
    *publish_time*, are not advised; without it, time is left out of account. *progress* is called with how many tasks
    of how many are done.
    """
    planner = Planner(broker_of(broker), _days(summary), max_publish_seconds, publish_time)
    adviser = _Adviser(planner, celery_version or "", min_runs, summary)
    cut = [task for task in summary.tasks if task.truncated]
    tasks = []
    for done, task in enumerate(cut, 1):
        tasks.append(adviser.task(task))
        if progress is not None:
            progress(done, len(cut))
    tasks.sort(key=lambda task: (-task.truncated, task.name))
    verdict, reasons, limits = adviser.app(tasks)
    if verdict != "apply":
        tasks = [_only(task) for task in tasks]
    tasks = [_many(task) if task.name == OTHER else task for task in tasks]
    thumb = recommend(summary)
    return Advice(
        verdict=verdict,
        reasons=tuple(reasons),
        rule_of_thumb=thumb,
        against_the_guide=adviser.against_the_guide(thumb.tier),
        limits=limits,
        tasks=tuple(tasks),
        broker=adviser.broker,
        celery_version=adviser.celery_version,
        total_tasks=summary.total_tasks,
        since=summary.since,
        updated=summary.updated,
    )


#: Why there is no advice for what is added up of tasks past the cap on names.
_MANY: Final = f"{OTHER} is many tasks, whose names are past max_task_names; raise that for advice on each"


def _many(task: TaskAdvice) -> TaskAdvice:
    """*task* is ``__other__``: nothing can be set for it, but it may be among all tasks that something is set for."""
    reasons = (_MANY, *task.reasons)
    if task.verdict == "apply":
        return _replace(task, reasons=reasons)
    return _replace(task, verdict="too_few", reasons=reasons, limits=None, lines=())


def _only(task: TaskAdvice) -> TaskAdvice:
    """*task*, where limits are for some tasks only."""
    if task.verdict != "apply" or task.limits is None:
        return task
    return _replace(task, verdict="apply_only", lines=task_lines({task.name: task.limits}))


def _replace(task: TaskAdvice, **changes: Any) -> TaskAdvice:
    return TaskAdvice(**{name: changes.get(name, getattr(task, name)) for name in task.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class _Adviser:
    planner: Planner
    celery_version: str
    min_runs: int
    summary: Summary

    @property
    def broker(self) -> Broker:
        return self.planner.broker

    # -- one task --------------------------------------------------------------------------------------------------

    def task(self, task: TaskSummary) -> TaskAdvice:
        parts = {name: getattr(task, name) for name in PARTS if getattr(task, name).truncated}
        whole = self.planner.plan(task, parts, {name: part.need.max for name, part in parts.items()})
        most = self.planner.plan(task, parts, {name: part.need.p99 for name, part in parts.items()})
        lower = most is not None and (whole is None or most.limits != whole.limits)
        chosen = next((plan for plan in (whole, most if lower else None) if plan and not plan.problems), None)
        shown = chosen or whole
        verdict, reasons = self._verdict(task, parts, whole, chosen)
        lines = {
            "apply": app_lines(chosen.limits) if chosen else (),
            "pass_reference": reference_lines(task.name),
            "short_argsrepr": short_lines(task.name, tuple(parts)),
        }
        return TaskAdvice(
            name=task.name,
            count=task.count,
            truncated=task.truncated,
            verdict=verdict,
            reasons=tuple(reasons),
            parts=tuple(_part(name, part, shown, most if lower else None) for name, part in parts.items()),
            limits=chosen.limits if chosen and verdict == "apply" else None,
            cost=shown.cost if shown else None,
            lines=lines.get(verdict, ()),
        )

    def _verdict(
        self, task: TaskSummary, parts: dict[str, PartSummary], whole: Plan | None, chosen: Plan | None
    ) -> tuple[Verdict, list[str]]:
        reasons = []
        lost = sum(part.truncated - part.cuts.count for part in parts.values())
        if lost:
            reasons.append(f"{lost:,} of its truncated reprs could not be measured, and are not counted as cured")
        if task.count < self.min_runs:
            return "too_few", [f"seen {task.count:,} times; from {self.min_runs:,} on there is advice", *reasons]
        if chosen is not None:
            if whole is None or whole.limits != chosen.limits:
                why = whole.problems[0] if whole else self.planner.no_limit(parts)
                reasons.insert(0, f"the largest 1 % stay truncated: {why}")
            largest = max(part.max for part in parts.values())
            if largest > LARGE_PAYLOAD:
                reasons.append(f"{_burden(largest)}; a reference in their place would make the message small too")
            return "apply", reasons
        reasons[:0] = whole.problems if whole else [self.planner.no_limit(parts)]
        largest = max(part.max for part in parts.values())
        if largest > LARGE_PAYLOAD:
            reasons.append(_burden(largest))
            return "pass_reference", reasons
        return "short_argsrepr", reasons

    # -- all tasks -------------------------------------------------------------------------------------------------

    def app(self, tasks: list[TaskAdvice]) -> tuple[Verdict, list[str], ReprLimits | None]:
        """What to do for the app as a whole, given what to do for each task."""
        good = [task for task in tasks if task.limits is not None]
        bad = [task for task in tasks if task.verdict in {"pass_reference", "short_argsrepr"}]
        if not good and not bad:
            if tasks or self.summary.total_tasks < self.min_runs:
                return "too_few", [f"no truncated task was seen {self.min_runs:,} times"], None
            return "nothing", [f"none of {self.summary.total_tasks:,} runs had a truncated repr"], None
        if not good:
            first = next((task for task in bad if task.name != OTHER), None)
            verdict: Verdict = first.verdict if first else "too_few"
            return verdict, ["no limit is advised for any of the tasks; see each"], None
        limits = ReprLimits(
            *(max(getattr(task.limits, name) for task in good) for name in ("args", "kwargs", "levels"))
        )
        against = self._against(limits, tasks, bad)
        if not against:
            return "apply", [], limits
        return "apply_only" if any(task.name != OTHER for task in good) else "too_few", against, None

    def _against(self, limits: ReprLimits, tasks: list[TaskAdvice], bad: list[TaskAdvice]) -> list[str]:
        """Reasons not to set *limits* for all tasks."""
        reasons = []
        if bad:
            names = ", ".join(task.name for task in bad)
            reasons.append(f"for all tasks, the limits would harm {names}")
        if limits.levels != DEFAULT_LEVELS and _version(self.celery_version) < LEVELS_SINCE:
            reasons.append(
                f"arguments are nested {limits.levels} levels deep, and before Celery 5.7 only single tasks can show "
                f"more than {DEFAULT_LEVELS}"
            )
        ratios = {name: max(bytes_a_char(getattr(t, name)) for t in self.summary.tasks) for name in PARTS}
        raised = {name: getattr(limits, name) for name in PARTS if getattr(limits, name) != DEFAULT_LIMIT}
        if not self.planner.fits_frame(raised, ratios):
            reasons.append(
                f"with both parts as long as the limits, headers would not fit {self.broker.headers_max:,} bytes "
                f"({self.broker.source})"
            )
        few = [task.name for task in tasks if task.verdict == "too_few" and not self._harmless(task, limits)]
        if few:
            reasons.append(f"what the limits would do to {', '.join(few)} is not known yet")
        return reasons

    def against_the_guide(self, tier: int | None) -> str:
        """What harm the rule of thumb would do; empty if none."""
        most = self.broker.headers_max
        if tier is None or most is None or tier + OTHER_HEADERS <= most:
            return ""
        harm = f"it lets headers grow over the {most:,} bytes that the broker takes"
        return f"{harm}, which closes the producer's connection ({self.broker.source})"

    @staticmethod
    def _harmless(task: TaskAdvice, limits: ReprLimits) -> bool:
        return all(part.need_max <= getattr(limits, part.part) for part in task.parts)


def _part(name: str, part: PartSummary, plan: Plan | None, most: Plan | None) -> PartAdvice:
    limit = getattr(plan.limits, name) if plan else None
    p99 = getattr(most.limits, name) if most else None
    return PartAdvice(
        part=name,
        truncated=part.truncated,
        truncated_by=dict(part.truncated_by),
        need_max=part.need.max,
        need_p99=part.need.p99,
        levels=part.need.levels,
        limit=limit,
        cured=_cured(part, limit),
        p99_limit=p99 if p99 != limit else None,
        p99_cured=_cured(part, p99),
    )


def _cured(part: PartSummary, limit: int | None) -> int:
    """Truncated parts that are whole under *limit*, with as many levels as they take."""
    if limit is None:
        return 0
    whole = part.need.max <= limit
    return sum(bucket.count for bucket in part.cuts.buckets if whole or bucket.bound <= limit)


def _burden(largest: int) -> str:
    return f"its arguments are up to {largest:,} characters, a burden for broker and worker in any case"


def _version(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _days(summary: Summary) -> float:
    if summary.since is None or summary.updated is None:
        return 0.0
    seconds = summary.updated - summary.since
    return seconds / 86_400 if seconds >= MIN_SECONDS else 0.0
