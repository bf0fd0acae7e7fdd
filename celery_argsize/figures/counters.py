"""What is kept of many measurements: counters that add up, maxima that win, and an example here and there.

Pure. A ``TaskStats`` is flat dicts, so that a child's backlog, a batch on its way to Redis and what is read from
there are one and the same thing, and adding up is the only operation there is. ``stores.fields`` says how they are
kept in Redis. The typed, readable side is ``Summary``; ``advice`` and ``report`` work from that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.figures.origins import Origins
from celery_argsize.measuring.cuts import CUTS, DEFAULT_LEVELS, VERDICTS
from celery_argsize.measuring.measurement import PARTS, is_large
from celery_argsize.measuring.repr_shape import Shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery_argsize.measuring.measurement import Plain, PlainPart
    from celery_argsize.settings import Settings


def rules_of(settings: Settings) -> Rules:
    """How measurements become counters under *settings*."""
    return Rules(settings.large_task_chars, settings.histogram_buckets)


#: The name under which everything past the cap on task names is counted.
OTHER: Final = "__other__"

#: What is added up of the shape of truncated parts (see ``shape.Shape``).
CUT_SUMS: Final = (
    "bytes", "escaped", "sent_bytes", "sent_escaped", "commas", "keys", "texts", "containers", "pile"
)  # fmt: skip


class Extreme(NamedTuple):
    """The largest value seen, and where; that is kept of the most characters only, as nobody asks for the others."""

    value: int
    task_id: str
    time: float
    """Seconds since the epoch."""


class Exemplar(NamedTuple):
    """A large part, as an example for those of its size."""

    bytes: int
    task_id: str
    time: float
    """Seconds since the epoch."""


#: A run whose id has more characters, or not only ASCII, is no example: what Redis has of one takes 64 bytes at most,
#: for with longer values a hash takes much more room there.
MAX_EXEMPLAR_ID: Final = 39


class _Fields:
    """Names of the fields of one part, made once; those of a histogram by the number of the bucket."""

    def __init__(self, part: str, buckets: tuple[str, ...]) -> None:
        self.verdicts = {
            verdict: f"{part}.by_{verdict}" if verdict in CUTS else f"{part}.{verdict}" for verdict in VERDICTS
        }
        self.truncated, self.unmeasurable = f"{part}.truncated", f"{part}.unmeasurable"
        self.count, self.chars, self.bytes, self.large = (
            f"{part}.{name}" for name in ("count", "chars", "bytes", "large")
        )
        self.max_chars, self.max_bytes, self.max_density = (
            f"{part}.max_{name}" for name in ("chars", "bytes", "density")
        )
        (
            self.chars_le,
            self.bytes_le,
            self.last_le,
            self.need_le,
            self.flat_le,
            self.deep_le,
            self.flat_need_le,
            self.deep_need_le,
        ) = (
            tuple(f"{part}.{name}_le.{bucket}" for bucket in buckets)
            for name in ("chars", "bytes", "last", "need", "flat", "deep", "flat_need", "deep_need")
        )
        self.need, self.max_need, self.max_levels = f"{part}.need", f"{part}.max_need", f"{part}.max_levels"
        self.cut = tuple(f"{part}.cut_{name}" for name in CUT_SUMS)


@dataclass(frozen=True, slots=True)
class Rules:
    """How measurements become counters."""

    large_task_chars: int
    """A part over this many characters is large."""
    bounds: tuple[int, ...]
    """Upper bounds (inclusive) of the histogram buckets, rising; bytes in one histogram, characters in the other."""
    buckets: tuple[str, ...] = field(init=False, repr=False)
    """Their labels."""
    fields: tuple[_Fields, ...] = field(init=False, repr=False, compare=False)
    """Of args and of kwargs."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "buckets", (*map(str, self.bounds), "+Inf"))
        object.__setattr__(self, "fields", tuple(_Fields(part, self.buckets) for part in PARTS))


class TaskStats:
    """Counters, maxima and exemplars of one task name; see docs/redis-schema.md for the fields."""

    __slots__ = ("counts", "exemplars", "maxima")

    def __init__(
        self,
        counts: Mapping[str, int] | None = None,
        maxima: Mapping[str, Extreme] | None = None,
        exemplars: Mapping[str, Exemplar] | None = None,
    ) -> None:
        self.counts: dict[str, int] = defaultdict(int, counts or {})
        self.maxima: dict[str, Extreme] = dict(maxima or {})
        self.exemplars: dict[str, Exemplar] = dict(exemplars or {})

    def _all(self) -> tuple[object, ...]:
        return self.counts, self.maxima, self.exemplars

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskStats) and self._all() == other._all()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TaskStats({dict(self.counts)!r}, {self.maxima!r}, {self.exemplars!r})"

    def _raise(self, name: str, value: int, task_id: str = "", when: float = 0.0) -> None:
        known = self.maxima.get(name)
        if known is None or value > known[0]:
            self.maxima[name] = Extreme(value, task_id, when)

    def _show(self, name: str, exemplar: Exemplar) -> None:
        """Keep the later one, and of two at the same time the one that comes later."""
        known = self.exemplars.get(name)
        if known is None or exemplar.time >= known.time:
            self.exemplars[name] = exemplar

    def add(self, measurement: Plain, rules: Rules) -> None:
        """Add one measurement. Its ``count`` comes last: what could not be added is not counted."""
        _, task_id, args, kwargs, when, _ = measurement
        counts = self.counts
        if is_large(measurement, rules.large_task_chars):
            counts["large"] += 1
        if args[1] in CUTS or kwargs[1] in CUTS:
            counts["truncated"] += 1
        if args[0] is None or kwargs[0] is None:
            counts["unmeasurable"] += 1
        self._add_part(args, rules.fields[0], task_id, when, rules)
        self._add_part(kwargs, rules.fields[1], task_id, when, rules)
        counts["count"] += 1

    def _add_part(self, part: PlainPart, fields: _Fields, task_id: str, when: float, rules: Rules) -> None:
        counts = self.counts
        size, verdict, header, _, _, shape = part
        if verdict == "intact":
            self._add_need(header, fields, rules)
        else:
            counts[fields.verdicts[verdict]] += 1
            if verdict in CUTS:
                counts[fields.truncated] += 1
            if shape is not None:
                self._add_shape(Shape(*shape), fields, rules)
        if size is None:
            counts[fields.unmeasurable] += 1
            return
        chars, in_bytes = size
        counts[fields.count] += 1
        counts[fields.chars] += chars
        counts[fields.bytes] += in_bytes
        bucket = bisect_left(rules.bounds, chars)
        counts[fields.chars_le[bucket]] += 1
        if in_bytes != chars:
            bucket = bisect_left(rules.bounds, in_bytes)
        counts[fields.bytes_le[bucket]] += 1
        if chars > rules.large_task_chars:
            counts[fields.large] += 1
            if 0 < len(task_id) <= MAX_EXEMPLAR_ID and task_id.isascii():
                self._show(fields.last_le[bucket], Exemplar(in_bytes, task_id, when))
        self._raise(fields.max_chars, chars, task_id, when)
        self._raise(fields.max_bytes, in_bytes)
        if chars:
            self._raise(fields.max_density, -(-in_bytes * 1000 // chars))  # rounded up

    def _add_need(self, need: int, fields: _Fields, rules: Rules) -> int:
        bucket = bisect_left(rules.bounds, need)
        self.counts[fields.need] += need
        self.counts[fields.need_le[bucket]] += 1
        self._raise(fields.max_need, need)
        return bucket

    def _add_shape(self, shape: Shape, fields: _Fields, rules: Rules) -> None:
        bucket = self._add_need(shape.need, fields, rules)
        deep = shape.levels > DEFAULT_LEVELS
        self.counts[(fields.deep_le if deep else fields.flat_le)[bucket]] += 1
        self.counts[(fields.deep_need_le if deep else fields.flat_need_le)[bucket]] += shape.need
        for name, by in zip(fields.cut, shape[2:], strict=True):
            self.counts[name] += by
        self._raise(fields.max_levels, shape.levels)

    def copy(self) -> TaskStats:
        """The same, to be added to by itself."""
        return TaskStats(self.counts, self.maxima, self.exemplars)

    def merge(self, other: TaskStats) -> None:
        """Add everything that *other* counted."""
        for name, by in other.counts.items():
            self.counts[name] += by
        for name, extreme in other.maxima.items():
            self._raise(name, *extreme)
        for name, exemplar in other.exemplars.items():
            self._show(name, exemplar)


class Tally:
    """Stats by task name, for a bounded number of names: the rest is added up under ``__other__``."""

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self.tasks: dict[str, TaskStats] = {}
        self.origins = Origins()

    def __bool__(self) -> bool:
        return bool(self.tasks)

    @property
    def count(self) -> int:
        """Task runs in this tally."""
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

    def add(self, measurement: Plain, rules: Rules) -> None:
        """Add one measurement."""
        self.origins.add(measurement)
        self._page(measurement[0]).add(measurement, rules)

    def merge(self, tasks: Iterable[tuple[str, TaskStats]]) -> None:
        """Add everything in *tasks*."""
        for task, stats in tasks:
            self._page(task).merge(stats)

    def copy(self) -> Tally:
        """The same tasks, to be added to by themselves."""
        tally = Tally(self._max_names)
        tally.tasks = {name: stats.copy() for name, stats in self.tasks.items()}
        return tally

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
    flush_failures: int = 0
    """How often a worker could not write; a reset does not forget it."""
    waiting: int = 0
    """Runs among these that are not written to a store yet."""


def added_up(app: str, figures: Iterable[Figures]) -> Figures:
    """The figures of several apps as those of one called *app*."""
    found = [*figures]
    total: dict[str, TaskStats] = {}
    for name, stats in chain.from_iterable(single.tasks.items() for single in found):
        total.setdefault(name, TaskStats()).merge(stats)
    return Figures(
        app,
        total,
        since=min((single.since for single in found if single.since is not None), default=None),
        updated=max((single.updated for single in found if single.updated is not None), default=None),
        flush_failures=sum(single.flush_failures for single in found),
    )
