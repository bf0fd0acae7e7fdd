"""The figures of a task as the fields of its hash in Redis, and back: docs/redis-schema.md.

Pure. Most of the memory that a task takes in Redis is names, so they are short there:
``args.bytes_le.131072`` is written as ``ab128K``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.figures.counters import Exemplar, Extreme, TaskStats

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Every name begins with this.
ANY: Final = ("",)

_PARTS: Final = {"args": "a", "kwargs": "k"}
#: What has a field for each bucket.
_BUCKETS: Final = {
    "chars_le": "c",
    "bytes_le": "b",
    "need_le": "n",
    "flat_le": "f",
    "deep_le": "d",
    "flat_need_le": "F",
    "deep_need_le": "D",
    "last_le": "x",
}
_LONG: Final = {short: name for name, short in (*_PARTS.items(), *_BUCKETS.items())}
_UNITS: Final = {"M": 1 << 20, "K": 1 << 10, "": 1}
_BUCKET_NAME: Final = re.compile(rf"([ak])([{''.join(_BUCKETS.values())}])(?:(\d+)([KM]?)|\+Inf)")
_PART_NAME: Final = re.compile(r"([ak])\.(\w+)")
_EXEMPLAR: Final = re.compile(r"(\d+) (.+) (\S+)")

#: Not written: each is the sum of a histogram, and added up when that is read.
_SUMS: Final = tuple(f"{part}.count" for part in _PARTS)
#: The only maximum that is kept with its task id and time, for reports.
_LARGEST: Final = ".max_chars"

#: Names whose meaning is remembered: more than there are.
MOST_NAMES: Final = 4096


@lru_cache(maxsize=MOST_NAMES)
def short_name(field: str) -> str:
    """The name in Redis of *field*, a counter, maximum or exemplar of a ``TaskStats``."""
    part, _, rest = field.partition(".")
    kind, _, bound = rest.partition(".")
    if part not in _PARTS:
        return field
    if kind not in _BUCKETS:
        return f"{_PARTS[part]}.{rest}"
    if bound.isdecimal():
        unit, size = next(pair for pair in _UNITS.items() if int(bound) % pair[1] == 0)
        bound = f"{int(bound) // size}{unit}"
    return f"{_PARTS[part]}{_BUCKETS[kind]}{bound}"


def long_name(name: str) -> str:
    """The field that has *name* in Redis. A field of a later version keeps its name."""
    if match := _BUCKET_NAME.fullmatch(name):
        part, kind, bound, unit = match.groups()
        return f"{_LONG[part]}.{_LONG[kind]}.{int(bound) * _UNITS[unit] if bound else '+Inf'}"
    if match := _PART_NAME.fullmatch(name):
        return f"{_LONG[match[1]]}.{match[2]}"
    return name


def to_argv(stats: TaskStats) -> list[Any]:
    """*stats* as apply.lua takes a task: numbers of fields, all names, all values."""
    counters = {short_name(field): by for field, by in stats.counts.items() if by and field not in _SUMS}
    maxima = {
        short_name(field): f"{seen.value} {seen.task_id} {seen.time}" if field.endswith(_LARGEST) else str(seen.value)
        for field, seen in stats.maxima.items()
    }
    exemplars = {
        short_name(field): f"{seen.bytes} {seen.task_id} {seen.time:.3f}" for field, seen in stats.exemplars.items()
    }
    fields = {**counters, **maxima, **exemplars}
    return [len(counters), len(maxima), len(exemplars), *fields, *fields.values()]


@lru_cache(maxsize=MOST_NAMES)
def _meaning(name: str, wanted: tuple[str, ...]) -> tuple[str, str]:
    """Kind and field of *name* in Redis; both are empty if it is not wanted."""
    field = long_name(name)
    if not field.startswith(wanted) or field.endswith(("_id", "_time")):
        return "", ""
    return next((kind for kind in ("bytes_le", "last_le", "max_") if f".{kind}" in field), "counter"), field


def from_hash(values: Mapping[str, str], wanted: tuple[str, ...] = ANY) -> TaskStats:
    """The stats in a task's hash: those fields that begin with one of *wanted*.

    The ``count`` of a part comes with its ``bytes_le``. Unreadable values are passed
    over.
    """
    stats = TaskStats()
    counts = stats.counts
    for name, value in values.items():
        kind, field = _meaning(name, wanted)
        if not kind:
            continue
        try:
            if kind == "max_":
                time = float(values.get(f"{name}_time", 0))
                stats.maxima[field] = Extreme(int(value), values.get(f"{name}_id", ""), time)
            elif kind != "last_le":
                counts[field] = int(value)
                if kind == "bytes_le":
                    counts[field.partition(".")[0] + ".count"] += int(value)
            elif match := _EXEMPLAR.fullmatch(value):
                stats.exemplars[field] = Exemplar(int(match[1]), match[2], float(match[3]))
        except ValueError:
            continue
    return stats
