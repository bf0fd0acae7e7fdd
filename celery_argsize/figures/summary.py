"""``summarize`` makes a ``Summary`` of ``Figures``, for reports and advice.

Pure. docs/report-json.md explains the JSON.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.figures.counters import OTHER, Extreme, Figures, TaskStats, buckets, label, quantile
from celery_argsize.figures.layout import CUT_SUMS
from celery_argsize.measuring.cuts import CUTS
from celery_argsize.measuring.measurement import PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

#: Version of the JSON that ``Summary.to_json`` gives.
JSON_SCHEMA: Final = 1

_NOTHING: Final = Extreme(0, "", 0.0)


@dataclass(frozen=True, slots=True)
class Need:
    """Lengths of whole reprs, in characters: limits with which Celery cuts none by size."""

    count: int
    """Parts whose need is known. Custom and missing reprs have none."""
    max: int
    mean: float
    p95: int
    """95 of 100 need at most this: the bound of a bucket, or ``max``."""
    p99: int
    levels: int
    """The most levels of nested containers among cut parts."""
    histogram: Mapping[str, int]
    """Parts in each bucket, by its inclusive upper bound or ``+Inf``."""


@dataclass(frozen=True, slots=True)
class CutBucket:
    """Truncated parts with needs in one bucket."""

    bound: float
    """Inclusive, in characters; infinite for the last."""
    count: int
    need: int
    """Sum of their needs."""

    @property
    def mean(self) -> float:
        """Their mean need."""
        return self.need / self.count


@dataclass(frozen=True, slots=True)
class Cuts:
    """Sums over all truncated parts whose whole repr could be measured.

    ``Shape`` explains the fields.
    """

    buckets: tuple[CutBucket, ...]
    """By bound, ascending."""
    bytes: int
    escaped: int
    sent_bytes: int
    sent_escaped: int
    commas: int
    keys: int
    containers: int
    chain_steps: int

    @property
    def count(self) -> int:
        """How many parts."""
        return sum(bucket.count for bucket in self.buckets)

    @property
    def need(self) -> int:
        """Sum of their needs."""
        return sum(bucket.need for bucket in self.buckets)


@dataclass(frozen=True, slots=True)
class PartSummary:
    """The args or the kwargs of one task. Sizes are in characters, unless named bytes."""

    count: int
    """How many were measured. Empty ones count, with size 0."""
    max: int
    mean: float
    p50: int
    """Half were at most this long: the bound of a bucket, or ``max``."""
    p95: int
    p99: int
    truncated: int
    """How many had a repr that Celery had cut."""
    large: int
    unmeasurable: int
    max_bytes: int
    histogram: Mapping[str, int]
    """Parts by bucket of bytes: inclusive upper bound or ``+Inf``."""
    truncated_by: Mapping[str, int]
    """By cause: ``size``, ``depth``, ``both``."""
    custom: int
    """How many had a repr that the caller wrote."""
    unknown: int
    """How many had no repr."""
    need: Need
    cuts: Cuts
    max_density: int
    """Most UTF-8 bytes for each 1,000 characters of a part."""
    total_bytes: int
    largest_task_id: str
    largest_at: float
    """When the largest was measured, in seconds since the epoch."""

    @property
    def mean_bytes(self) -> float:
        """UTF-8 bytes of compact JSON, on average."""
        return self.total_bytes / (self.count or 1)

    def to_json(self) -> dict[str, Any]:
        """This part as JSON-able data."""
        values = _values(self, "cuts", "max_density", "total_bytes", "largest_task_id", "largest_at")
        return values | {"need": _values(self.need, "histogram")}


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """What was measured of one task name."""

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
    """Runs not measured because of an error in celery_argsize; not in *count*."""
    args: PartSummary
    kwargs: PartSummary

    @property
    def max(self) -> int:
        """Characters of the largest part."""
        return max(self.args.max, self.kwargs.max)

    def to_json(self) -> dict[str, Any]:
        """This task as JSON-able data."""
        return _values(self, "name") | {"args": self.args.to_json(), "kwargs": self.kwargs.to_json()}


@dataclass(frozen=True, slots=True)
class LargestTask:
    """The run with the largest part."""

    name: str
    part: str
    size: int
    """Characters."""
    task_id: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What was measured of one app, or of several. Sizes are in characters."""

    apps: tuple[str, ...]
    since: float | None
    """When counting began (first task, or last reset), in
    seconds since the epoch."""
    updated: float | None
    """When the newest figures were written."""
    total_tasks: int
    max_args_size: int
    max_kwargs_size: int
    avg_args_size: float
    avg_kwargs_size: float
    truncated_tasks: int
    truncated_by: Mapping[str, int]
    """Truncated parts by cause: ``size``, ``depth``, ``both``."""
    large_tasks: int
    unmeasurable_tasks: int
    errors: int
    other_runs: int
    """Runs of tasks beyond ``max_task_names``."""
    largest_task: LargestTask | None
    tasks: tuple[TaskSummary, ...]
    """Largest first."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able data. ``views.report`` adds the recommendation."""
        tasks = {task.name: task.to_json() for task in self.tasks}
        largest = self.largest_task and asdict(self.largest_task)
        return {"schema": JSON_SCHEMA} | _values(self) | {"apps": [*self.apps], "largest_task": largest, "tasks": tasks}


def _values(data: Any, *left_out: str) -> dict[str, Any]:
    return {field.name: getattr(data, field.name) for field in fields(data) if field.name not in left_out}


def added_up(figures: Iterable[Figures]) -> Figures:
    """The sum of the figures of several apps."""
    apps = [*figures]
    total: dict[str, TaskStats] = {}
    for app in apps:
        for name, stats in app.tasks.items():
            total.setdefault(name, TaskStats()).merge(stats)
    since = min((app.since for app in apps if app.since is not None), default=None)
    updated = max((app.updated for app in apps if app.updated is not None), default=None)
    return Figures("", total, since, updated, sum(app.flush_failures for app in apps))


def summarize(*figures: Figures) -> Summary:
    """The summary of one app's *figures*, or of several apps'."""
    total = added_up(figures)
    tasks = [_task(name, stats) for name, stats in total.tasks.items()]
    tasks = [task for task in tasks if task.count or task.errors]
    tasks.sort(key=lambda task: (-task.max, task.name))
    return _summary(tasks, tuple(app.app for app in figures), total.since, total.updated)


def only(summary: Summary, wanted: Callable[[str], bool]) -> Summary:
    """*summary* with only the tasks whose names are *wanted*."""
    tasks = [task for task in summary.tasks if wanted(task.name)]
    return _summary(tasks, summary.apps, summary.since, summary.updated)


def _summary(
    tasks: Sequence[TaskSummary], apps: tuple[str, ...], since: float | None, updated: float | None
) -> Summary:
    args, kwargs = [task.args for task in tasks], [task.kwargs for task in tasks]
    return Summary(
        apps=apps,
        since=since,
        updated=updated,
        total_tasks=sum(task.count for task in tasks),
        max_args_size=max((part.max for part in args), default=0),
        max_kwargs_size=max((part.max for part in kwargs), default=0),
        avg_args_size=_mean(args),
        avg_kwargs_size=_mean(kwargs),
        truncated_tasks=sum(task.truncated for task in tasks),
        truncated_by={cause: sum(part.truncated_by[cause] for part in args + kwargs) for cause in CUTS},
        large_tasks=sum(task.large for task in tasks),
        unmeasurable_tasks=sum(task.unmeasurable for task in tasks),
        errors=sum(task.errors for task in tasks),
        other_runs=sum(task.count for task in tasks if task.name == OTHER),
        largest_task=_largest(tasks),
        tasks=tuple(tasks),
    )


def _mean(parts: Sequence[PartSummary]) -> float:
    return sum(part.count * part.mean for part in parts) / (sum(part.count for part in parts) or 1)


def _largest(tasks: Sequence[TaskSummary]) -> LargestTask | None:
    parts = [(task.name, name, getattr(task, name)) for task in tasks for name in PARTS]
    largest = [LargestTask(task, name, part.max, part.largest_task_id) for task, name, part in parts if part.count]
    return max(largest, key=lambda run: run.size, default=None)


def _task(name: str, stats: TaskStats) -> TaskSummary:
    runs = {field: stats.counts.get(field, 0) for field in ("count", "large", "truncated", "unmeasurable", "errors")}
    return TaskSummary(name, **runs, args=_part("args", stats), kwargs=_part("kwargs", stats))


def _part(part: str, stats: TaskStats) -> PartSummary:
    def count(name: str) -> int:
        return stats.counts.get(f"{part}.{name}", 0)

    def most(name: str) -> int:
        return stats.maxima.get(f"{part}.{name}", _NOTHING).value

    largest = stats.maxima.get(f"{part}.max_chars", _NOTHING)
    chars = buckets(f"{part}.chars_le.", stats.counts)
    needs = buckets(f"{part}.need_le.", stats.counts)
    needs_count, max_need = sum(n for _, n in needs), most("max_need")
    need = Need(
        count=needs_count,
        max=max_need,
        mean=count("need") / (needs_count or 1),
        p95=quantile(needs, 0.95, max_need),
        p99=quantile(needs, 0.99, max_need),
        levels=most("max_levels"),
        histogram={label(bound): n for bound, n in needs},
    )
    truncated_by = {cause: count(f"by_{cause}") for cause in CUTS}
    return PartSummary(
        count=count("count"),
        max=largest.value,
        mean=count("chars") / (count("count") or 1),
        p50=quantile(chars, 0.50, largest.value),
        p95=quantile(chars, 0.95, largest.value),
        p99=quantile(chars, 0.99, largest.value),
        truncated=sum(truncated_by.values()),
        large=count("large"),
        unmeasurable=count("unmeasurable"),
        max_bytes=most("max_bytes"),
        max_density=most("max_density"),
        total_bytes=count("bytes"),
        largest_task_id=largest.task_id,
        largest_at=largest.time,
        histogram={label(bound): n for bound, n in buckets(f"{part}.bytes_le.", stats.counts)},
        truncated_by=truncated_by,
        custom=count("custom"),
        unknown=count("unknown"),
        need=need,
        cuts=_cuts(part, stats),
    )


def _cuts(part: str, stats: TaskStats) -> Cuts:
    parts: Counter[float] = Counter()
    needs: Counter[float] = Counter()
    for kind in ("flat", "deep"):
        parts.update(dict(buckets(f"{part}.{kind}_le.", stats.counts)))
        needs.update(dict(buckets(f"{part}.{kind}_need_le.", stats.counts)))
    bounds = sorted(parts.keys() & needs.keys())
    return Cuts(
        tuple(CutBucket(bound, parts[bound], needs[bound]) for bound in bounds),
        **{name: stats.counts.get(f"{part}.cut_{name}", 0) for name in CUT_SUMS},
    )
