"""What Prometheus gets: the metrics, for prometheus_client, and the same as text, fast. docs/metrics.md explains them.

Pure. prometheus_client makes an object of each sample and then a text of each object, which takes it thirty times as
long as ``exposition``, which fills in a form for each task and says the same. Who reads and serves: ``prometheus``.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar as ClientExemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Sample,
)
from prometheus_client.utils import floatToGoString

from celery_argsize.figures.counters import Figures, buckets
from celery_argsize.measuring.cuts import CUTS
from celery_argsize.measuring.measurement import PARTS
from celery_argsize.settings import DEFAULT_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from prometheus_client.core import Metric

    from celery_argsize.advice.advice import ReprLimits
    from celery_argsize.figures.counters import Exemplar, TaskStats

#: A bound as the label of a bucket; it has no types.
_go: Final[Callable[[float], str]] = floatToGoString


if TYPE_CHECKING:
    #: What a task has in one family, in the order of the family's samples; ``None`` is not known, and not shown.
    Values: TypeAlias = tuple[float | None, ...]
    #: The same, one item a task.
    Column: TypeAlias = Iterable[Values]
    #: Exemplars by the places of samples, one item a task; or none at all.
    Exemplars: TypeAlias = Sequence[Mapping[int, Exemplar]]

#: Stands for the task's name where that is filled in later.
TASK: Final = "\0"

_TYPES: Final = {CounterMetricFamily: "counter", GaugeMetricFamily: "gauge", HistogramMetricFamily: "histogram"}


def escaped(name: str) -> bytes:
    """*name* as the value of a label."""
    return name.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"").encode(errors="replace")


@dataclass(frozen=True)
class Family:
    """One metric, and the samples that each task has in it; or, without a label for a task, that it has itself."""

    kind: type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]
    name: str
    help: str
    samples: tuple[tuple[str, dict[str, str]], ...]
    """Of each: what it adds to the name, and its labels, with ``TASK`` for the task's name."""
    form: str = "%d"
    """How its values are written."""

    def metric(self, tasks: Iterable[str], column: Column, exemplars: Exemplars) -> Metric:
        """For prometheus_client, with the values in *column*, one item a task."""
        metric = self.kind(self.name, self.help)
        metric.samples = [
            Sample(self.name + ending, _named(labels, task), value, exemplar=_exemplar(seen.get(place)))
            for task, values, seen in zip(tasks, column, exemplars or repeat({}), strict=False)
            for place, ((ending, labels), value) in enumerate(zip(self.samples, values, strict=True))
            if value is not None
        ]
        return metric

    def head(self, *, openmetrics: bool) -> bytes:
        """The lines that say what it is."""
        name = self.name.removesuffix("_total") if openmetrics else self.name
        return f"# HELP {name} {self.help}\n# TYPE {name} {_TYPES[self.kind]}\n".encode()

    def lines(self, names: Iterable[bytes], column: Column, exemplars: Exemplars) -> Iterator[bytes]:
        """Its samples as text, a piece a task; *names* of tasks are escaped."""
        return map(self._fill, names, column, exemplars or repeat({}))

    def _fill(self, name: bytes, values: Values, exemplars: Mapping[int, Exemplar]) -> bytes:
        form = self._form
        if exemplars:  # of counts, which are all known
            forms = [*self._forms]
            for place, exemplar in exemplars.items():
                forms[place] = forms[place][:-1] + _exemplar_text(exemplar)
            form = b"".join(forms)
        elif None in values:
            form = b"".join(line for line, value in zip(self._forms, values, strict=True) if value is not None)
            values = tuple(value for value in values if value is not None)
        return (form % values).replace(TASK.encode(), name)

    @cached_property
    def _form(self) -> bytes:
        return b"".join(self._forms)

    @cached_property
    def _forms(self) -> list[bytes]:
        """The line of each sample."""
        return [f"{self.name}{ending}{_braced(labels)} {self.form}\n".encode() for ending, labels in self.samples]


def _named(labels: dict[str, str], task: str) -> dict[str, str]:
    return labels | {"task": task} if "task" in labels else labels


def _exemplar(seen: Exemplar | None) -> ClientExemplar | None:
    return seen and ClientExemplar({"task_id": seen.task_id}, seen.bytes, round(seen.time, 3))


def _exemplar_text(seen: Exemplar) -> bytes:
    """What follows the value of a bucket, as a form."""
    size, task_id, moment = seen
    if not task_id.replace("-", "").isalnum():  # most are UUIDs
        task_id = escaped(task_id).decode().replace("%", "%%")
    return f' # {{task_id="{task_id}"}} {size} {moment:.3f}\n'.encode()


def _braced(labels: Mapping[str, str]) -> str:
    shown = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{{{shown}}}" if labels else ""


@dataclass(frozen=True, slots=True)
class Scrape:
    """What a scrape shows."""

    figures: Figures | None
    """``None`` where they could not be read: then there is nothing else."""
    recommended: ReprLimits | None = None
    """``None`` where none are known."""
    broker_limit: int | None = None
    """Bytes of arguments that the broker takes in a message at most; ``None`` if not known."""


def metrics(scrape: Scrape, bounds: tuple[int, ...] = DEFAULT_BUCKETS) -> Iterator[Metric]:
    """The families of *scrape*, for prometheus_client; *bounds* are those of the histogram's buckets."""
    for family, tasks, column, exemplars in _table(scrape, bounds):
        yield family.metric(tasks, column, exemplars)


def exposition(scrape: Scrape, bounds: tuple[int, ...] = DEFAULT_BUCKETS, *, openmetrics: bool = False) -> bytes:
    """The same as text, in Prometheus's format (0.0.4) or in OpenMetrics (1.0), which has the exemplars too.

    Once parsed, it is what prometheus_client gives.
    """
    lines: list[bytes] = []
    for family, tasks, column, exemplars in _table(scrape, bounds):
        lines.append(family.head(openmetrics=openmetrics))
        lines += family.lines(map(escaped, tasks), column, exemplars if openmetrics else ())
    return b"".join([*lines, b"# EOF\n"] if openmetrics else lines)


def families(bounds: tuple[int, ...] = DEFAULT_BUCKETS) -> Iterator[Metric]:
    """All families, empty."""
    return (family.metric([], [], ()) for family in (*_GENERAL, *_layout(bounds).families))


def _table(scrape: Scrape, bounds: tuple[int, ...]) -> Iterator[tuple[Family, list[str], Column, Exemplars]]:
    """Each family with the names of the tasks in it, what they have, and their exemplars."""
    figures = scrape.figures
    for family, values in zip(_GENERAL, _general(scrape), strict=True):
        if family is _UP or figures is not None:
            yield family, [""], [values], ()
    if figures is not None:
        tasks = sorted(figures.tasks)
        layout = _layout(bounds)
        exemplars = [layout.exemplars(figures.tasks[task]) for task in tasks]
        for family, column in layout.columns(figures, tasks):
            yield family, tasks, column, exemplars if family is layout.sizes else ()


def _general(scrape: Scrape) -> tuple[Values, ...]:
    """What the families without a task have."""
    figures, limits = scrape.figures or Figures("", {}), scrape.recommended
    return (
        (int(scrape.figures is not None),),
        (None if figures.updated is None else round(figures.updated, 3),),
        (figures.flush_failures,),
        (limits.args, limits.kwargs) if limits else (None, None),
        (scrape.broker_limit,),
    )


_PARTS: Final = [{"part": part, "task": TASK} for part in PARTS]

_UP: Final = Family(
    GaugeMetricFamily,
    "celery_task_args_up",
    "1 if the figures could be read, 0 if not: then there are no others.",
    (("", {}),),
)
_GENERAL: Final = (
    _UP,
    Family(
        GaugeMetricFamily,
        "celery_task_args_last_flush_timestamp_seconds",
        "When a worker last wrote figures, since the epoch; workers write only when tasks run.",
        (("", {}),),
        form="%.3f",
    ),
    Family(
        CounterMetricFamily,
        "celery_task_args_flush_failures_total",
        "Attempts of workers to write figures that failed; what they were to write is kept and tried again.",
        (("", {}),),
    ),
    Family(
        GaugeMetricFamily,
        "celery_task_argsrepr_recommended_chars",
        "Limit that keeps reprs whole, as argsize recommend advises; 1024, the default, where none is to be raised.",
        tuple(("", {"part": part}) for part in PARTS),
    ),
    Family(
        GaugeMetricFamily,
        "celery_task_args_broker_limit_bytes",
        "Size of the arguments that the broker takes in a message at most.",
        (("", {}),),
    ),
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
_DROPPED: Final = Family(
    CounterMetricFamily,
    "celery_task_args_dropped_total",
    "Task runs that are in no other figure, for errors in celery_argsize; the logs of workers say which.",
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
_TOTALS: Final = [
    "large",
    "unmeasurable",
    "errors",
    *(f"{part}.{what}" for part in PARTS for what in ("count", "bytes")),
]
_cuts: Final = itemgetter(*_CUTS)
#: What the fields that are shown begin with: all of the counters that these need, and the buckets.
SHOWN: Final = (*_TOTALS, *_CUTS, *_MAXIMA)
#: The same with exemplars, which only OpenMetrics has.
SHOWN_WITH_EXEMPLARS: Final = (*SHOWN, *(f"{part}.last_le" for part in PARTS))


#: What no exemplar is above.
_NOWHERE: Final = (0, float("inf"))


class _Layout:
    """The families, for buckets with some *bounds*, and how a task's counters become their values."""

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self._bounds = bounds
        endings: list[tuple[str, dict[str, str]]] = [("_bucket", {"le": le}) for le in (*map(_go, bounds), "+Inf")]
        endings += ("_count", {}), ("_sum", {})
        self.sizes = Family(
            HistogramMetricFamily,
            "celery_task_args_size_bytes",
            "Size of the arguments as compact JSON, in UTF-8 bytes.",
            tuple((ending, labels | le) for labels in _PARTS for ending, le in endings),
        )
        self.families = (self.sizes, _LARGE, _TRUNCATED, _UNMEASURABLE, _DROPPED, _MAX)
        #: By the fields of their exemplars: where buckets are among the samples, and the bound that they are above.
        self._places = {
            f"{part}.last_le.{bound}": (number * len(endings) + place, below)
            for number, part in enumerate(PARTS)
            for place, (bound, below) in enumerate(zip((*bounds, "+Inf"), (0, *bounds), strict=True))
        }
        fields = {part: [f"{part}.bytes_le.{bound}" for bound in (*bounds, "+Inf")] for part in PARTS}
        self._buckets = {part: itemgetter(*fields[part]) for part in PARTS}
        #: What is 0 may be missing among a task's counters. To ask for each would take longer than to add these.
        self._zeros = dict.fromkeys([*_TOTALS, *_CUTS, *fields["args"], *fields["kwargs"]], 0)

    def exemplars(self, stats: TaskStats) -> Mapping[int, Exemplar]:
        """Those of a task by the place of their bucket's sample."""
        found = {}
        for field, exemplar in stats.exemplars.items():
            place, below = self._places.get(field, _NOWHERE)
            if exemplar[0] <= below:  # the worker's buckets are others
                return self._folded_exemplars(stats)
            found[place] = exemplar
        return found

    def _folded_exemplars(self, stats: TaskStats) -> Mapping[int, Exemplar]:
        """The same by the buckets here; of several in one bucket, the latest."""
        found = {}
        for field, exemplar in sorted(stats.exemplars.items(), key=lambda item: item[1].time):
            part, bound = field.partition(".")[0], (*self._bounds, "+Inf")[bisect_left(self._bounds, exemplar.bytes)]
            found[self._places[f"{part}.last_le.{bound}"][0]] = exemplar
        return found

    def columns(self, figures: Figures, tasks: Iterable[str]) -> Iterator[tuple[Family, tuple[Values, ...]]]:
        """The values of each family, one item a task."""
        rows = [self._row(figures.tasks[task]) for task in tasks]
        return zip(self.families, zip(*rows, strict=True) if rows else [()] * len(self.families), strict=True)

    def _row(self, stats: TaskStats) -> tuple[Values, ...]:
        counts = self._zeros | stats.counts
        sizes = (*self._sizes("args", counts), *self._sizes("kwargs", counts))
        largest = tuple(seen and seen.value for seen in map(stats.maxima.get, _MAXIMA))
        return sizes, (counts["large"],), _cuts(counts), (counts["unmeasurable"],), (counts["errors"],), largest

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
