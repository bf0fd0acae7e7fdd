"""What was measured, for Prometheus: a collector for the registries of prometheus_client, and the same as text, fast.

A scrape reads the store once. prometheus_client makes an object of each sample and then a text of each object, which
takes it thirty times as long as ``exposition``, which fills in a form for each task and says the same.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Sample
from prometheus_client.utils import floatToGoString

from celery_argsize.config import DEFAULT_BUCKETS
from celery_argsize.errors import StoreError
from celery_argsize.histogram import buckets
from celery_argsize.stats import PARTS
from celery_argsize.truncation import CUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import TypeAlias

    from prometheus_client.core import Metric

    from celery_argsize.stats import Figures, TaskStats
    from celery_argsize.stores.base import Store

    #: What a task has in one family, in the order of the family's samples; ``None`` is not known, and not shown.
    Values: TypeAlias = tuple[int | None, ...]

__all__ = ["ArgsizeCollector", "exposition", "metrics"]

#: Stands for the task's name where that is filled in later.
TASK: Final = "\0"

#: A bound as the label of a bucket; it has no types.
_go: Final[Callable[[float], str]] = floatToGoString

_TYPES: Final = {CounterMetricFamily: "counter", GaugeMetricFamily: "gauge", HistogramMetricFamily: "histogram"}


class ArgsizeCollector:
    """The figures of one app, read from *store* at each scrape; *bounds* are those of the histogram's buckets.

    Nothing is read or connected to when it is registered. Where the store cannot be read, ``celery_task_args_up`` is 0
    and there is nothing else: what was known before is not passed off as fresh.
    """

    def __init__(self, store: Store, bounds: Iterable[int] = DEFAULT_BUCKETS) -> None:
        self._store = store
        self._bounds = tuple(bounds)

    def describe(self) -> Iterator[Metric]:
        """All families, empty."""
        return (family.metric([], []) for family in (_UP, *_layout(self._bounds).families))

    def collect(self) -> Iterator[Metric]:
        """All families, as of now."""
        return metrics(self.figures(), self._bounds)

    def exposition(self) -> bytes:
        """The same, in Prometheus's text format."""
        return exposition(self.figures(), self._bounds)

    def figures(self) -> Figures | None:
        """What a scrape shows; ``None`` where it could not be read."""
        try:
            return self._store.read(_SHOWN)
        except StoreError:
            return None


def metrics(figures: Figures | None, bounds: tuple[int, ...] = DEFAULT_BUCKETS) -> Iterator[Metric]:
    """The families of *figures*; ``None`` where they could not be read."""
    yield _UP.metric([""], [(int(figures is not None),)])
    if figures is not None:
        tasks = sorted(figures.tasks)
        for family, column in _layout(bounds).columns(figures, tasks):
            yield family.metric(tasks, column)


def exposition(figures: Figures | None, bounds: tuple[int, ...] = DEFAULT_BUCKETS) -> bytes:
    """The same in Prometheus's text format, 0.0.4: once parsed, it is what ``generate_latest`` gives."""
    lines = _UP.lines([b""], [(int(figures is not None),)])
    if figures is not None:
        tasks = sorted(figures.tasks)
        names = [*map(_escaped, tasks)]
        for family, column in _layout(bounds).columns(figures, tasks):
            lines += family.lines(names, column)
    return b"".join(lines)


def _escaped(name: str) -> bytes:
    return name.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"").encode(errors="replace")


@dataclass(frozen=True)
class Family:
    """One metric, and the samples that each task has in it."""

    kind: type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]
    name: str
    help: str
    samples: tuple[tuple[str, dict[str, str]], ...]
    """Of each: what it adds to the name, and its labels, with ``TASK`` for the task's name."""

    def metric(self, tasks: Iterable[str], column: Iterable[Values]) -> Metric:
        """For prometheus_client, with the values in *column*, one item a task."""
        metric = self.kind(self.name, self.help)
        metric.samples = [
            Sample(self.name + ending, labels | {"task": task} if labels else labels, value)
            for task, values in zip(tasks, column, strict=True)
            for (ending, labels), value in zip(self.samples, values, strict=True)
            if value is not None
        ]
        return metric

    def lines(self, names: Iterable[bytes], column: Iterable[Values]) -> list[bytes]:
        """The same as text; *names* of tasks are escaped."""
        head = f"# HELP {self.name} {self.help}\n# TYPE {self.name} {_TYPES[self.kind]}\n".encode()
        return [head, *map(self._fill, names, column)]

    def _fill(self, name: bytes, values: Values) -> bytes:
        form = self._form
        if None in values:
            form = b"".join(line for line, value in zip(self._forms, values, strict=True) if value is not None)
            values = tuple(value for value in values if value is not None)
        return (form % values).replace(TASK.encode(), name)

    @cached_property
    def _form(self) -> bytes:
        return b"".join(self._forms)

    @cached_property
    def _forms(self) -> list[bytes]:
        """The line of each sample."""
        return [f"{self.name}{ending}{_braced(labels)} %d\n".encode() for ending, labels in self.samples]


def _braced(labels: Mapping[str, str]) -> str:
    shown = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{{{shown}}}" if labels else ""


_PARTS: Final = [{"part": part, "task": TASK} for part in PARTS]

_UP: Final = Family(
    GaugeMetricFamily,
    "celery_task_args_up",
    "1 if the figures could be read, 0 if not: then there are no others.",
    (("", {}),),
)
_LARGE: Final = Family(
    CounterMetricFamily,
    "celery_task_args_large_total",
    "Task runs with large arguments.",
    (("", {"task": TASK}),),
)
_TRUNCATED: Final = Family(
    CounterMetricFamily,
    "celery_task_args_truncated_total",
    "Arguments whose repr Celery had cut.",
    tuple(("", labels | {"cause": cause}) for labels in _PARTS for cause in CUTS),
)
_UNMEASURABLE: Final = Family(
    CounterMetricFamily,
    "celery_task_args_unmeasurable_total",
    "Task runs with arguments that have no JSON form.",
    (("", {"task": TASK}),),
)
_MAX: Final = Family(
    GaugeMetricFamily,
    "celery_task_args_max_size_bytes",
    "Size of the largest arguments as compact JSON, in UTF-8 bytes.",
    tuple(("", labels) for labels in _PARTS),
)

# The counters that these show: docs/redis-schema.md.
_CUTS: Final = [f"{part}.by_{cause}" for part in PARTS for cause in CUTS]
_MAXIMA: Final = [f"{part}.max_bytes" for part in PARTS]
_TOTALS: Final = ["large", "unmeasurable", *(f"{part}.{what}" for part in PARTS for what in ("count", "bytes"))]
_cuts: Final = itemgetter(*_CUTS)
#: What their names begin with, and those of the buckets.
_SHOWN: Final = (*_TOTALS, *_CUTS, *_MAXIMA)


class _Layout:
    """The families, for buckets with some *bounds*, and how a task's counters become their values."""

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self._bounds = bounds
        endings: list[tuple[str, dict[str, str]]] = [("_bucket", {"le": le}) for le in (*map(_go, bounds), "+Inf")]
        endings += ("_count", {}), ("_sum", {})
        sizes = Family(
            HistogramMetricFamily,
            "celery_task_args_size_bytes",
            "Size of the arguments as compact JSON, in UTF-8 bytes.",
            tuple((ending, labels | le) for labels in _PARTS for ending, le in endings),
        )
        self.families = (sizes, _LARGE, _TRUNCATED, _UNMEASURABLE, _MAX)
        fields = {part: [f"{part}.bytes_le.{bound}" for bound in (*bounds, "+Inf")] for part in PARTS}
        self._buckets = {part: itemgetter(*fields[part]) for part in PARTS}
        #: What is 0 may be missing among a task's counters. To ask for each would take longer than to add these.
        self._zeros = dict.fromkeys([*_TOTALS, *_CUTS, *fields["args"], *fields["kwargs"]], 0)

    def columns(self, figures: Figures, tasks: Iterable[str]) -> Iterator[tuple[Family, tuple[Values, ...]]]:
        """The values of each family, one item a task."""
        rows = [self._row(figures.tasks[task]) for task in tasks]
        return zip(self.families, zip(*rows, strict=True) if rows else [()] * len(self.families), strict=True)

    def _row(self, stats: TaskStats) -> tuple[Values, ...]:
        counts = self._zeros | stats.counts
        sizes = (*self._sizes("args", counts), *self._sizes("kwargs", counts))
        largest = tuple(seen and seen.value for seen in map(stats.maxima.get, _MAXIMA))
        return sizes, (counts["large"],), _cuts(counts), (counts["unmeasurable"],), largest

    def _sizes(self, part: str, counts: Mapping[str, int]) -> Values:
        """How many are within each bound, how many there are, and their sum."""
        filled = self._buckets[part](counts)
        if sum(filled) != counts[f"{part}.count"]:
            filled = self._folded(part, counts)
        within = [*accumulate(filled)]
        return (*within, within[-1], counts[f"{part}.bytes"])

    def _folded(self, part: str, counts: Mapping[str, int]) -> list[int]:
        """The buckets where workers have others: what fell in one of those is in the next that is as wide."""
        filled = [0] * (len(self._bounds) + 1)
        for bound, count in buckets(f"{part}.bytes_le.", counts):
            filled[bisect_left(self._bounds, bound)] += count
        return filled


_layout: Final = lru_cache(maxsize=8)(_Layout)
