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

from celery_argsize.figures.layout import Layout
from celery_argsize.figures.origins import Origins
from celery_argsize.measuring.measurement import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from celery_argsize.measuring.measurement import Measurement
    from celery_argsize.settings import Settings

#: The name that stands for all task names beyond ``max_task_names``.
OTHER: Final = "__other__"

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


@dataclass(frozen=True, slots=True)
class Rules:
    """How measurements become counters."""

    large_task_chars: int
    """A part with more characters is large."""
    bounds: tuple[int, ...]
    """Inclusive upper bounds of histogram buckets, ascending."""
    write_at_once_bytes: int = 1 << 20
    """A part with more bytes is written at once."""
    layout: Layout = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layout", Layout(self.bounds, self.large_task_chars, self.write_at_once_bytes))


def rules_of(settings: Settings) -> Rules:
    """The rules in *settings*."""
    return Rules(settings.large_task_chars, settings.histogram_buckets, settings.write_at_once_bytes)


def exemplars(measurement: Measurement, rules: Rules) -> dict[str, Exemplar]:
    """An exemplar of each large part, by the field of its bucket."""
    task_id, time = measurement.task_id, measurement.time
    if not 0 < len(task_id) <= MAX_EXEMPLAR_ID or not task_id.isascii():
        return {}
    return {
        f"{name}.last_le.{bucket_label(rules.bounds, part.size.bytes)}": Exemplar(part.size.bytes, task_id, time)
        for name, part in zip(PARTS, (measurement.args, measurement.kwargs), strict=True)
        if part.size is not None and part.size.chars > rules.large_task_chars
    }


def bucket_label(bounds: tuple[int, ...], value: int) -> str:
    """The label of the bucket of *value*."""
    place = bisect_left(bounds, value)
    return str(bounds[place]) if place < len(bounds) else "+Inf"


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
        if largest is None or value > largest.value or (value == largest.value and not largest.task_id):
            self.maxima[name] = Extreme(value, task_id, time)

    def _keep_exemplar(self, name: str, exemplar: Exemplar) -> None:
        latest = self.exemplars.get(name)
        if latest is None or exemplar.time >= latest.time:
            self.exemplars[name] = exemplar

    def add(self, measurement: Measurement, rules: Rules) -> None:
        """Add one measurement. If this fails, nothing is added."""
        counts, maxima = rules.layout.named(rules.layout.changes(measurement.args, measurement.kwargs))
        for name, number in counts.items():
            self.counts[name] += number
        for name, value in maxima.items():
            run = (measurement.task_id, measurement.time) if name.endswith(".max_chars") else ("", 0.0)
            self._keep_maximum(name, value, *run)
        for name, exemplar in exemplars(measurement, rules).items():
            self._keep_exemplar(name, exemplar)

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

    def add(self, measurement: Measurement, rules: Rules) -> None:
        """Add one measurement."""
        self.origins.add(measurement)
        self._stats(measurement.task).add(measurement, rules)

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
