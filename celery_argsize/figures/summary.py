"""The readable side of the counters: frozen, typed, and the only thing that reports and advice are made from.

Pure. Made from ``TaskStats`` by ``summarize``; ``to_json`` is the format of ``--json`` (docs/report-json.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.figures.counters import CUT_SUMS, OTHER, Extreme, Figures, TaskStats, added_up
from celery_argsize.figures.histogram import buckets, label, quantile
from celery_argsize.measuring.cuts import CUTS
from celery_argsize.measuring.measurement import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery_argsize.figures.counters import TaskStats

#: Version of the JSON that ``Summary.to_json`` gives.
JSON_SCHEMA: Final = 1

_NOTHING: Final = Extreme(0, "", 0.0)


@dataclass(frozen=True, slots=True)
class PartSummary:
    """One part (args or kwargs) of one task; sizes in characters unless they say bytes."""

    count: int
    """How many were measured. Empty parts are, with size 0; unmeasurable ones are not."""
    max: int
    mean: float
    p50: int
    """Half were at most this long. An upper estimate: the bound of a histogram bucket, never above ``max``."""
    p95: int
    p99: int
    truncated: int
    """How many came with a repr that Celery had cut."""
    large: int
    unmeasurable: int
    max_bytes: int
    max_density: int
    """UTF-8 bytes that 1,000 characters take, the most of any part: 1,000 where all was ASCII."""
    total_bytes: int
    largest_task_id: str
    largest_at: float
    """When the largest was measured, in seconds since the epoch."""
    histogram: Mapping[str, int]
    """Sizes in bytes: inclusive upper bound of the bucket (``+Inf`` for the last) to the number that fell in it."""
    truncated_by: Mapping[str, int]
    """How many were cut by ``size``, by ``depth`` and by ``both``."""
    custom: int
    """How many came with a repr that the caller had written."""
    unknown: int
    """How many came without one."""
    need: Need
    cuts: Cuts

    @property
    def mean_bytes(self) -> float:
        """UTF-8 bytes of compact JSON, the mean."""
        return self.total_bytes / self.count if self.count else 0.0

    def to_json(self) -> dict[str, Any]:
        """This part as JSON-able data."""
        return {
            "count": self.count,
            "max": self.max,
            "mean": self.mean,
            "p50": self.p50,
            "p95": self.p95,
            "p99": self.p99,
            "truncated": self.truncated,
            "large": self.large,
            "unmeasurable": self.unmeasurable,
            "max_bytes": self.max_bytes,
            "histogram": dict(self.histogram),
            "truncated_by": dict(self.truncated_by),
            "custom": self.custom,
            "unknown": self.unknown,
            "need": self.need.to_json(),
        }


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """All that was measured of one task name."""

    name: str
    count: int
    """Runs measured."""
    large: int
    """Runs with a large part."""
    truncated: int
    """Runs with a truncated part."""
    unmeasurable: int
    """Runs with a part that has no JSON form."""
    errors: int
    """Runs that could not be measured because of an error in celery_argsize; not in *count*."""
    args: PartSummary
    kwargs: PartSummary

    @property
    def max(self) -> int:
        """Characters of the largest part."""
        return max(self.args.max, self.kwargs.max)

    def to_json(self) -> dict[str, Any]:
        """This task as JSON-able data."""
        return {
            "count": self.count,
            "large": self.large,
            "truncated": self.truncated,
            "unmeasurable": self.unmeasurable,
            "errors": self.errors,
            "args": self.args.to_json(),
            "kwargs": self.kwargs.to_json(),
        }


@dataclass(frozen=True, slots=True)
class LargestTask:
    """Where the largest part was seen."""

    name: str
    part: str
    """``args`` or ``kwargs``."""
    size: int
    """Characters."""
    task_id: str


@dataclass(frozen=True, slots=True)
class Summary:
    """All that was measured. Sizes in characters."""

    tasks: tuple[TaskSummary, ...]
    """Largest first."""
    since: float | None = None
    """When counting began (first task, or last reset), in seconds since the epoch; ``None`` if not known."""
    updated: float | None = None
    """When the newest figures were written, in seconds since the epoch."""
    apps: tuple[str, ...] = ()
    """The apps whose figures these are."""

    @property
    def total_tasks(self) -> int:
        """Task runs measured."""
        return sum(task.count for task in self.tasks)

    @property
    def truncated_tasks(self) -> int:
        """Task runs with a truncated part."""
        return sum(task.truncated for task in self.tasks)

    @property
    def truncated_by(self) -> dict[str, int]:
        """Truncated parts by cause: ``size``, ``depth``, ``both``."""
        parts = [getattr(task, part) for task in self.tasks for part in PARTS]
        return {cause: sum(part.truncated_by[cause] for part in parts) for cause in CUTS}

    @property
    def large_tasks(self) -> int:
        """Task runs with a large part."""
        return sum(task.large for task in self.tasks)

    @property
    def unmeasurable_tasks(self) -> int:
        """Task runs with a part that has no JSON form."""
        return sum(task.unmeasurable for task in self.tasks)

    @property
    def errors(self) -> int:
        """Task runs that could not be measured because of an error in celery_argsize; not in *total_tasks*."""
        return sum(task.errors for task in self.tasks)

    @property
    def other_runs(self) -> int:
        """Task runs whose names were past ``max_task_names``: those of ``__other__``; how many names is not known."""
        return sum(task.count for task in self.tasks if task.name == OTHER)

    @property
    def max_args_size(self) -> int:
        """Characters of the largest args."""
        return max((task.args.max for task in self.tasks), default=0)

    @property
    def max_kwargs_size(self) -> int:
        """Characters of the largest kwargs."""
        return max((task.kwargs.max for task in self.tasks), default=0)

    @property
    def avg_args_size(self) -> float:
        """Mean characters of the args that were measured."""
        return _mean(task.args for task in self.tasks)

    @property
    def avg_kwargs_size(self) -> float:
        """Mean characters of the kwargs that were measured."""
        return _mean(task.kwargs for task in self.tasks)

    @property
    def largest_task(self) -> LargestTask | None:
        """Where the largest part was seen; ``None`` before anything was."""
        parts = [(task.name, part, getattr(task, part)) for task in self.tasks for part in PARTS]
        measured = [found for found in parts if found[2].count]
        if not measured:
            return None
        name, part, seen = max(measured, key=lambda found: found[2].max)
        return LargestTask(name, part, seen.max, seen.largest_task_id)

    def to_json(self) -> dict[str, Any]:
        """This summary as JSON-able data; the recommendation is added by ``report``."""
        largest = self.largest_task
        return {
            "schema": JSON_SCHEMA,
            "apps": list(self.apps),
            "since": self.since,
            "updated": self.updated,
            "total_tasks": self.total_tasks,
            "max_args_size": self.max_args_size,
            "max_kwargs_size": self.max_kwargs_size,
            "avg_args_size": self.avg_args_size,
            "avg_kwargs_size": self.avg_kwargs_size,
            "truncated_tasks": self.truncated_tasks,
            "truncated_by": self.truncated_by,
            "large_tasks": self.large_tasks,
            "unmeasurable_tasks": self.unmeasurable_tasks,
            "errors": self.errors,
            "other_runs": self.other_runs,
            "largest_task": None
            if largest is None
            else {"name": largest.name, "part": largest.part, "size": largest.size, "task_id": largest.task_id},
            "tasks": {task.name: task.to_json() for task in self.tasks},
        }


def _mean(parts: Iterable[PartSummary]) -> float:
    seen = [(part.count, part.mean) for part in parts if part.count]
    count = sum(n for n, _ in seen)
    return sum(n * mean for n, mean in seen) / count if count else 0.0


def summarize(*figures: Figures) -> Summary:
    """The summary of *figures* (of one app, or of several added up), largest task first."""
    total = added_up("", figures)
    tasks = [_task(name, stats) for name, stats in total.tasks.items() if _runs(stats)]
    return Summary(
        tuple(sorted(tasks, key=lambda task: (-task.max, task.name))),
        since=total.since,
        updated=total.updated,
        apps=tuple(app.app for app in figures),
    )


def _runs(stats: TaskStats) -> int:
    return stats.counts.get("count", 0) + stats.counts.get("errors", 0)


def _task(name: str, stats: TaskStats) -> TaskSummary:
    count = stats.counts.get
    return TaskSummary(
        name=name,
        count=count("count", 0),
        large=count("large", 0),
        truncated=count("truncated", 0),
        unmeasurable=count("unmeasurable", 0),
        errors=count("errors", 0),
        args=_part("args", stats),
        kwargs=_part("kwargs", stats),
    )


def _part(part: str, stats: TaskStats) -> PartSummary:
    def count(name: str) -> int:
        return stats.counts.get(f"{part}.{name}", 0)

    largest = stats.maxima.get(f"{part}.max_chars", _NOTHING)
    chars = buckets(f"{part}.chars_le.", stats.counts)
    return PartSummary(
        count=count("count"),
        max=largest.value,
        mean=count("chars") / count("count") if count("count") else 0.0,
        p50=quantile(chars, 0.50, largest.value),
        p95=quantile(chars, 0.95, largest.value),
        p99=quantile(chars, 0.99, largest.value),
        truncated=count("truncated"),
        large=count("large"),
        unmeasurable=count("unmeasurable"),
        max_bytes=stats.maxima.get(f"{part}.max_bytes", _NOTHING).value,
        max_density=stats.maxima.get(f"{part}.max_density", _NOTHING).value,
        total_bytes=count("bytes"),
        largest_task_id=largest.task_id,
        largest_at=largest.time,
        histogram={label(bound): n for bound, n in buckets(f"{part}.bytes_le.", stats.counts)},
        truncated_by={cause: count(f"by_{cause}") for cause in CUTS},
        custom=count("custom"),
        unknown=count("unknown"),
        need=need_of(part, stats),
        cuts=cuts_of(part, stats),
    )


@dataclass(frozen=True, slots=True)
class Need:
    """Characters that saferepr takes when it cuts nothing."""

    count: int
    """Parts of which it is known: custom reprs and missing ones are not among them."""
    max: int
    mean: float
    p95: int
    """An upper estimate, as that of sizes."""
    p99: int
    levels: int
    """The most levels of nested containers among those that were cut; 0 if none was."""
    histogram: Mapping[str, int]
    """Inclusive upper bound of the bucket in characters (``+Inf`` for the last) to the number that fell in it."""

    def to_json(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "count": self.count,
            "max": self.max,
            "mean": self.mean,
            "p95": self.p95,
            "p99": self.p99,
            "levels": self.levels,
        }


@dataclass(frozen=True, slots=True)
class CutBucket:
    """Truncated parts whose need falls in one bucket."""

    bound: float
    """Its inclusive upper bound in characters; infinite for the last."""
    deep: bool
    """Whether they have more levels than Celery shows by default."""
    count: int
    need: int
    """Characters, the sum."""

    @property
    def mean(self) -> float:
        """Characters that one needs."""
        return self.need / self.count


@dataclass(frozen=True, slots=True)
class Cuts:
    """All truncated parts that could be measured, added up."""

    buckets: tuple[CutBucket, ...]
    bytes: int
    """This and what follows: sums over whole reprs, see ``shape.Shape``."""
    escaped: int
    sent_bytes: int
    sent_escaped: int
    commas: int
    keys: int
    texts: int
    containers: int
    pile: int

    @property
    def count(self) -> int:
        """How many."""
        return sum(bucket.count for bucket in self.buckets)

    @property
    def need(self) -> int:
        """Characters of whole reprs."""
        return sum(bucket.need for bucket in self.buckets)


def need_of(part: str, stats: TaskStats) -> Need:
    """The needs of *part* in *stats*."""
    largest = stats.maxima.get(f"{part}.max_need")
    levels = stats.maxima.get(f"{part}.max_levels")
    seen = buckets(f"{part}.need_le.", stats.counts)
    count = sum(n for _, n in seen)
    top = largest.value if largest else 0
    return Need(
        count=count,
        max=top,
        mean=stats.counts.get(f"{part}.need", 0) / count if count else 0.0,
        p95=quantile(seen, 0.95, top),
        p99=quantile(seen, 0.99, top),
        levels=levels.value if levels else 0,
        histogram={label(bound): n for bound, n in seen},
    )


def cuts_of(part: str, stats: TaskStats) -> Cuts:
    """The truncated parts in *stats*."""
    found = [
        CutBucket(bound, deep, count, needs[bound])
        for deep, kind in ((False, "flat"), (True, "deep"))
        for needs in [dict(buckets(f"{part}.{kind}_need_le.", stats.counts))]
        for bound, count in buckets(f"{part}.{kind}_le.", stats.counts)
        if bound in needs
    ]
    sums: Mapping[str, int] = {name: stats.counts.get(f"{part}.cut_{name}", 0) for name in CUT_SUMS}
    return Cuts(tuple(sorted(found, key=lambda bucket: bucket.bound)), **sums)
