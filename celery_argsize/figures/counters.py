"""Adds measurements up to counters, histograms, maxima and exemplars.

Pure. ``TaskStats`` has the figures of one task name, ``Tally`` those of many
names, ``Figures`` those of an app.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.figures.origins import Origins
from celery_argsize.measuring.cuts import CUTS, DEFAULT_LEVELS, VERDICTS
from celery_argsize.measuring.measurement import PARTS, is_large
from celery_argsize.measuring.repr_shape import Shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from celery_argsize.measuring.measurement import Plain, PlainPart
    from celery_argsize.settings import Settings

#: The name that stands for all task names beyond ``max_task_names``.
OTHER: Final = "__other__"

#: Fields of ``Shape`` that are summed over truncated parts. Not need and levels.
CUT_SUMS: Final = Shape._fields[2:]

#: Longest task id of an exemplar. Redis stores a hash compactly only while its
#: values (here size, id and time) are at most 64 bytes
#: (``hash-max-listpack-value``).
MAX_EXEMPLAR_ID: Final = 39


class Extreme(NamedTuple):
    """The largest value, and its run. Redis keeps the run only for ``max_chars``."""

    value: int
    task_id: str
    time: float
    """Seconds since the epoch."""


class Exemplar(NamedTuple):
    """The latest large part in a bucket of ``bytes_le``."""

    bytes: int
    task_id: str
    time: float


class _Fields:
    """Field names of one part. A histogram has one for each bucket."""

    def __init__(self, part: str, buckets: tuple[str, ...]) -> None:
        def histogram(name: str) -> tuple[str, ...]:
            return tuple(f"{part}.{name}.{bucket}" for bucket in buckets)

        self.count = f"{part}.count"
        self.chars = f"{part}.chars"
        self.bytes = f"{part}.bytes"
        self.need = f"{part}.need"
        self.large = f"{part}.large"
        self.unmeasurable = f"{part}.unmeasurable"
        self.verdicts = {name: f"{part}.by_{name}" if name in CUTS else f"{part}.{name}" for name in VERDICTS}
        self.cut_sums = tuple(f"{part}.cut_{name}" for name in CUT_SUMS)
        self.max_chars = f"{part}.max_chars"
        self.max_bytes = f"{part}.max_bytes"
        self.max_density = f"{part}.max_density"
        self.max_need = f"{part}.max_need"
        self.max_levels = f"{part}.max_levels"
        self.chars_le = histogram("chars_le")
        self.bytes_le = histogram("bytes_le")
        self.last_le = histogram("last_le")
        self.need_le = histogram("need_le")
        #: Truncated parts, and their needs. True: of more
        #: than ``DEFAULT_LEVELS`` levels.
        self.cuts_le = {False: histogram("flat_le"), True: histogram("deep_le")}
        self.cuts_need_le = {False: histogram("flat_need_le"), True: histogram("deep_need_le")}


@dataclass(frozen=True, slots=True)
class Rules:
    """How measurements become counters."""

    large_task_chars: int
    """A part with more characters is large."""
    bounds: tuple[int, ...]
    """Inclusive upper bounds of histogram buckets, ascending."""
    fields: tuple[_Fields, ...] = field(init=False, repr=False, compare=False)
    """Field names of args, and of kwargs."""

    def __post_init__(self) -> None:
        buckets = (*map(str, self.bounds), "+Inf")
        object.__setattr__(self, "fields", tuple(_Fields(part, buckets) for part in PARTS))


def rules_of(settings: Settings) -> Rules:
    """The rules in *settings*."""
    return Rules(settings.large_task_chars, settings.histogram_buckets)


@dataclass(slots=True)
class TaskStats:
    """Figures of one task name, by field. docs/redis-schema.md explains the fields."""

    counts: dict[str, int] = field(default_factory=dict)
    maxima: dict[str, Extreme] = field(default_factory=dict)
    exemplars: dict[str, Exemplar] = field(default_factory=dict)

    def __post_init__(self) -> None:  # copies the caller's dicts
        self.counts = defaultdict(int, self.counts)
        self.maxima = {**self.maxima}
        self.exemplars = {**self.exemplars}

    def _keep_maximum(self, name: str, value: int, task_id: str = "", time: float = 0.0) -> None:
        largest = self.maxima.get(name)
        if largest is None or value > largest.value:
            self.maxima[name] = Extreme(value, task_id, time)

    def _keep_exemplar(self, name: str, exemplar: Exemplar) -> None:
        latest = self.exemplars.get(name)
        if latest is None or exemplar.time >= latest.time:
            self.exemplars[name] = exemplar

    def add(self, measurement: Plain, rules: Rules) -> None:
        """Add one measurement. If this fails, it is not in ``count``, which comes last."""
        _, task_id, args, kwargs, time, _ = measurement
        counts = self.counts
        if is_large(measurement, rules.large_task_chars):
            counts["large"] += 1
        if args[1] in CUTS or kwargs[1] in CUTS:
            counts["truncated"] += 1
        if args[0] is None or kwargs[0] is None:
            counts["unmeasurable"] += 1
        self._add_part(args, rules.fields[0], rules, task_id, time)
        self._add_part(kwargs, rules.fields[1], rules, task_id, time)
        counts["count"] += 1

    def _add_part(self, part: PlainPart, fields: _Fields, rules: Rules, task_id: str, time: float) -> None:
        counts = self.counts
        size, verdict, header, _, _, shape = part
        if verdict == "intact":
            self._add_need(header, fields, rules)
        else:
            counts[fields.verdicts[verdict]] += 1
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
        if in_bytes != chars:  # not ASCII
            bucket = bisect_left(rules.bounds, in_bytes)
        counts[fields.bytes_le[bucket]] += 1
        if chars > rules.large_task_chars:
            counts[fields.large] += 1
            if 0 < len(task_id) <= MAX_EXEMPLAR_ID and task_id.isascii():
                self._keep_exemplar(fields.last_le[bucket], Exemplar(in_bytes, task_id, time))
        self._keep_maximum(fields.max_chars, chars, task_id, time)
        self._keep_maximum(fields.max_bytes, in_bytes)
        if chars:
            self._keep_maximum(fields.max_density, -(-in_bytes * 1000 // chars))  # rounded up

    def _add_need(self, need: int, fields: _Fields, rules: Rules) -> int:
        """Add the length of a whole repr. Returns the index of its bucket."""
        bucket = bisect_left(rules.bounds, need)
        self.counts[fields.need] += need
        self.counts[fields.need_le[bucket]] += 1
        self._keep_maximum(fields.max_need, need)
        return bucket

    def _add_shape(self, shape: Shape, fields: _Fields, rules: Rules) -> None:
        bucket = self._add_need(shape.need, fields, rules)
        deep = shape.levels > DEFAULT_LEVELS
        self.counts[fields.cuts_le[deep][bucket]] += 1
        self.counts[fields.cuts_need_le[deep][bucket]] += shape.need
        for name, number in zip(fields.cut_sums, shape[2:], strict=True):
            self.counts[name] += number
        self._keep_maximum(fields.max_levels, shape.levels)

    def merge(self, other: TaskStats) -> None:
        """Add the figures of *other*."""
        for name, number in other.counts.items():
            self.counts[name] += number
        for name, extreme in other.maxima.items():
            self._keep_maximum(name, *extreme)
        for name, exemplar in other.exemplars.items():
            self._keep_exemplar(name, exemplar)


class Tally:
    """Stats by task name, for at most *max_names* names and ``OTHER``; and origins."""

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self.tasks: dict[str, TaskStats] = {}
        self.origins = Origins()

    def __bool__(self) -> bool:
        return bool(self.tasks)

    @property
    def count(self) -> int:
        """Runs in it."""
        return self.count_of(self.tasks)

    @staticmethod
    def count_of(tasks: Mapping[str, TaskStats]) -> int:
        """Runs in *tasks*."""
        return sum(stats.counts.get("count", 0) for stats in tasks.values())

    def _stats(self, task: str) -> TaskStats:
        # OTHER does not count as a name
        if task not in self.tasks and len(self.tasks) - (OTHER in self.tasks) >= self._max_names:
            task = OTHER
        return self.tasks.get(task) or self.tasks.setdefault(task, TaskStats())

    def add(self, measurement: Plain, rules: Rules) -> None:
        """Add one measurement."""
        self.origins.add(measurement)
        self._stats(measurement[0]).add(measurement, rules)

    def merge(self, tasks: Iterable[tuple[str, TaskStats]]) -> None:
        """Add *tasks*."""
        for task, stats in tasks:
            self._stats(task).merge(stats)

    def copy(self) -> Tally:
        """An independent copy, without the origins."""
        copied = Tally(self._max_names)
        copied.tasks = {name: replace(stats) for name, stats in self.tasks.items()}
        return copied

    def take(self, names: int) -> dict[str, TaskStats]:
        """Remove and return up to *names* tasks."""
        return {name: self.tasks.pop(name) for name in [*self.tasks][:names]}

    def clear(self, task: str | None = None) -> None:
        """Forget *task*, or all tasks and hosts."""
        self.origins.clear(task)
        for name in [*self.tasks] if task is None else [task]:
            self.tasks.pop(name, None)


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of one app, as a store gives them."""

    app: str
    """Its name; empty for the sum of several apps."""
    tasks: Mapping[str, TaskStats]
    since: float | None = None
    """When counting began, in seconds since the epoch."""
    updated: float | None = None
    """When the newest figures were written."""
    flush_failures: int = 0
    """How often workers failed to write. A reset keeps it."""
    waiting: int = 0
    """Runs among these that are not in a store yet."""


def buckets(prefix: str, counts: Mapping[str, int]) -> list[tuple[float, int]]:
    """The histogram under *prefix*: (inclusive upper bound, number), ascending."""
    filled = ((name[len(prefix) :], number) for name, number in counts.items() if name.startswith(prefix))
    return sorted((float(bound.replace("+Inf", "inf")), number) for bound, number in filled)


def label(bound: float) -> str:
    """The label of a bucket: its inclusive upper bound, or ``+Inf``."""
    return "+Inf" if math.isinf(bound) else str(int(bound))


def quantile(histogram: Sequence[tuple[float, int]], share: float, largest: int) -> int:
    """The *share* quantile (nearest rank): its bucket's bound, but at most *largest*."""
    rank = math.ceil(share * sum(number for _, number in histogram))
    for bound, number in histogram:
        rank -= number
        if rank <= 0:
            return int(min(bound, largest))
    return 0
