"""What is kept of many measurements: counters that add up, maxima that win, and the summary that people read.

Pure. A ``TaskStats`` is two flat dicts whose field names are the ones in Redis (docs/redis-schema.md), so that a
child's backlog, a batch on its way to Redis and the hash in Redis are one and the same thing, and adding up is the
only operation there is. The typed, readable side is ``Summary``; ``advice`` and ``report`` work from that.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.origins import Origins
from celery_argsize.truncation import CUTS, DEFAULT_LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery_argsize.measure import Size
    from celery_argsize.shape import Shape
    from celery_argsize.truncation import Verdict

__all__ = [
    "DEFAULT_LEVELS",
    "OTHER",
    "PARTS",
    "Book",
    "Extreme",
    "Figures",
    "Measurement",
    "Part",
    "Rules",
    "TaskStats",
]

#: The name under which everything past the cap on task names is counted.
OTHER: Final = "__other__"

PARTS: Final = ("args", "kwargs")

#: What is added up of the shape of truncated parts (see ``shape.Shape``).
CUT_SUMS: Final = (
    "bytes", "escaped", "sent_bytes", "sent_escaped", "commas", "keys", "texts", "containers", "pile"
)  # fmt: skip


class Part(NamedTuple):
    """One part (args or kwargs) of one task, measured."""

    size: Size | None
    """Its size as compact JSON, or ``None`` where it has no JSON form."""
    verdict: Verdict = "unknown"
    """What Celery did to the repr of it that came with the message."""
    header: int = 0
    """Characters of that repr; 0 where none came."""
    levels: int = 0
    """Levels that it shows, where it was cut by depth; where it is intact, in one run of some; else 0."""
    limit: int = 0
    """Where that was cut by size: the sender's limit in characters, at most; 0 where the cut does not tell."""
    shape: Shape | None = None
    """The whole repr, where Celery cut it."""

    @property
    def truncated(self) -> bool:
        """Whether Celery cut its repr, by size or by depth."""
        return self.verdict in CUTS

    @property
    def need(self) -> int | None:
        """Characters of the whole repr, or ``None`` where they are not known: a custom repr, or none."""
        if self.verdict == "intact":
            return self.header
        return None if self.shape is None else self.shape.need


class Measurement(NamedTuple):
    """The arguments of one task run, measured. Sizes, names and ids only."""

    task: str
    """The task's name."""
    task_id: str
    args: Part
    kwargs: Part
    time: float
    """When it was measured, in seconds since the epoch."""
    origin: str = ""
    """The host that sent the message; empty where that is not known."""

    @property
    def truncated(self) -> bool:
        """Whether either part was truncated."""
        return self.args.truncated or self.kwargs.truncated

    @property
    def unmeasurable(self) -> bool:
        """Whether either part has no JSON form."""
        return self.args.size is None or self.kwargs.size is None

    def is_large(self, limit: int) -> bool:
        """Whether either part is over *limit* characters."""
        return any(part.size is not None and part.size.chars > limit for part in (self.args, self.kwargs))


class Extreme(NamedTuple):
    """The largest value seen, and where."""

    value: int
    task_id: str
    time: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How measurements become counters."""

    large_task_chars: int
    """A part over this many characters is large."""
    bounds: tuple[int, ...]
    """Upper bounds (inclusive) of the histogram buckets, rising; bytes in one histogram, characters in the other."""
    buckets: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "buckets", (*map(str, self.bounds), "+Inf"))

    def bucket(self, value: int) -> str:
        """The label of the bucket that *value* falls in: its upper bound, or ``+Inf``."""
        return self.buckets[bisect_left(self.bounds, value)]


class TaskStats:
    """Counters and maxima of one task name; see docs/redis-schema.md for the fields."""

    __slots__ = ("counts", "maxima")

    def __init__(self, counts: Mapping[str, int] | None = None, maxima: Mapping[str, Extreme] | None = None) -> None:
        self.counts: dict[str, int] = dict(counts or {})
        self.maxima: dict[str, Extreme] = dict(maxima or {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskStats) and (self.counts, self.maxima) == (other.counts, other.maxima)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TaskStats({self.counts!r}, {self.maxima!r})"

    def _count(self, name: str, by: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + by

    def _raise(self, name: str, extreme: Extreme) -> None:
        known = self.maxima.get(name)
        if known is None or extreme.value > known.value:
            self.maxima[name] = extreme

    def add(self, measurement: Measurement, rules: Rules) -> None:
        """Add one measurement. Its ``count`` comes last: what could not be added is not counted."""
        if measurement.is_large(rules.large_task_chars):
            self._count("large")
        if measurement.truncated:
            self._count("truncated")
        if measurement.unmeasurable:
            self._count("unmeasurable")
        for name, part in zip(PARTS, (measurement.args, measurement.kwargs), strict=True):
            self._add_part(name, part, measurement, rules)
        self._count("count")

    def _add_part(self, name: str, part: Part, measurement: Measurement, rules: Rules) -> None:
        if part.verdict != "intact":
            self._count(f"{name}.by_{part.verdict}" if part.truncated else f"{name}.{part.verdict}")
        if part.truncated:
            self._count(f"{name}.truncated")
        self._add_need(name, part, measurement, rules)
        if part.size is None:
            self._count(f"{name}.unmeasurable")
            return
        chars, size = part.size
        self._count(f"{name}.count")
        self._count(f"{name}.chars", chars)
        self._count(f"{name}.bytes", size)
        if chars > rules.large_task_chars:
            self._count(f"{name}.large")
        self._count(f"{name}.chars_le.{rules.bucket(chars)}")
        self._count(f"{name}.bytes_le.{rules.bucket(size)}")
        self._raise(f"{name}.max_chars", Extreme(chars, measurement.task_id, measurement.time))
        self._raise(f"{name}.max_bytes", Extreme(size, measurement.task_id, measurement.time))
        if chars:
            density = -(-size * 1000 // chars)  # rounded up
            self._raise(f"{name}.max_density", Extreme(density, "", 0.0))  # nobody asks where

    def _add_need(self, name: str, part: Part, measurement: Measurement, rules: Rules) -> None:
        need, shape = part.need, part.shape
        if need is None:
            return
        bucket = rules.bucket(need)
        self._count(f"{name}.need", need)
        self._count(f"{name}.need_le.{bucket}")
        self._raise(f"{name}.max_need", Extreme(need, measurement.task_id, measurement.time))
        if shape is None:
            return
        kind = "deep" if shape.levels > DEFAULT_LEVELS else "flat"
        self._count(f"{name}.{kind}_le.{bucket}")
        self._count(f"{name}.{kind}_need_le.{bucket}", need)
        for what, by in zip(CUT_SUMS, shape[2:], strict=True):
            self._count(f"{name}.cut_{what}", by)
        self._raise(f"{name}.max_levels", Extreme(shape.levels, measurement.task_id, measurement.time))

    def merge(self, other: TaskStats) -> None:
        """Add everything that *other* counted."""
        for name, by in other.counts.items():
            self._count(name, by)
        for name, extreme in other.maxima.items():
            self._raise(name, extreme)


class Book:
    """Stats by task name, for a bounded number of names: the rest is added up under ``__other__``."""

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self.tasks: dict[str, TaskStats] = {}
        self.origins = Origins()

    def __bool__(self) -> bool:
        return bool(self.tasks)

    @property
    def count(self) -> int:
        """Task runs in this book."""
        return self.count_of(self.tasks)

    @staticmethod
    def count_of(tasks: Mapping[str, TaskStats]) -> int:
        """Task runs in *tasks*."""
        return sum(stats.counts.get("count", 0) for stats in tasks.values())

    def _page(self, task: str) -> TaskStats:
        stats = self.tasks.get(task)
        if stats is None:
            # __other__ itself takes no place
            if len(self.tasks) - (OTHER in self.tasks) >= self._max_names:
                task = OTHER
            stats = self.tasks.setdefault(task, TaskStats())
        return stats

    def add(self, measurement: Measurement, rules: Rules) -> None:
        """Add one measurement."""
        self.origins.add(measurement)
        self._page(measurement.task).add(measurement, rules)

    def merge(self, tasks: Iterable[tuple[str, TaskStats]]) -> None:
        """Add everything in *tasks*."""
        for task, stats in tasks:
            self._page(task).merge(stats)

    def take(self, names: int) -> dict[str, TaskStats]:
        """Remove and return up to *names* tasks."""
        return {name: self.tasks.pop(name) for name in [*self.tasks][:names]}

    def clear(self, task: str | None = None) -> None:
        """Forget one task, or all."""
        self.origins.clear(task)
        if task is None:
            self.tasks.clear()
        else:
            self.tasks.pop(task, None)


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that was counted for one app, raw."""

    app: str
    tasks: Mapping[str, TaskStats]
    since: float | None = None
    """When counting began, in seconds since the epoch."""
    updated: float | None = None
    """When the newest of it was written, in seconds since the epoch."""
