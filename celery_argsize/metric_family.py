"""One metric with its samples: as an object for prometheus_client, and as text, fast.

Pure. Which metrics there are is in ``exposition``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar as ClientExemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Sample,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from prometheus_client.core import Metric

    from celery_argsize.stats import Exemplar

    #: What a task has in one family, in the order of the family's samples; ``None`` is not known, and not shown.
    Values: TypeAlias = tuple[float | None, ...]
    #: The same, one item a task.
    Column: TypeAlias = Iterable[Values]
    #: Exemplars by the places of samples, one item a task; or none at all.
    Exemplars: TypeAlias = Sequence[Mapping[int, Exemplar]]

__all__ = ["TASK", "Family", "escaped"]

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
