"""Writes a ``TaskStats`` as fields of a Redis hash, and reads it: docs/redis-schema.md.

Pure. Most of a task's memory in Redis is field names, so they are short there:
``args.bytes_le.131072`` becomes ``ab128K``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.figures.counters import Exemplar, Extreme, TaskStats

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Prefixes that every field has: reads all of them.
ANY: Final = ("",)

_PARTS: Final = {"args": "a", "kwargs": "k"}
#: Histograms: they have a field for each bucket.
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

#: Not written: ``from_hash`` sums up ``bytes_le``.
_SUMS: Final = tuple(f"{part}.count" for part in _PARTS)
#: The only maximum that is written with its task id and time, for reports.
_LARGEST: Final = ".max_chars"

#: Cached field names: more than the default buckets have.
_CACHED: Final = 4096


@lru_cache(maxsize=_CACHED)
def short_name(field: str) -> str:
    """The name in Redis of a counter, maximum or exemplar of a ``TaskStats``."""
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
    """The inverse of ``short_name``. Unknown names stay as they are."""
    if match := _BUCKET_NAME.fullmatch(name):
        part, kind, bound, unit = match.groups()
        return f"{_LONG[part]}.{_LONG[kind]}.{int(bound) * _UNITS[unit] if bound else '+Inf'}"
    if match := _PART_NAME.fullmatch(name):
        return f"{_LONG[match[1]]}.{match[2]}"
    return name


def to_argv(stats: TaskStats) -> list[Any]:
    """*stats* for apply.lua: counts of counters, maxima and exemplars; names; values."""
    counters = {short_name(field): number for field, number in stats.counts.items() if number and field not in _SUMS}
    maxima = {
        short_name(field): f"{value} {task_id} {time}" if field.endswith(_LARGEST) else str(value)
        for field, (value, task_id, time) in stats.maxima.items()
    }
    exemplars = {
        short_name(field): f"{size} {task_id} {time:.3f}" for field, (size, task_id, time) in stats.exemplars.items()
    }
    fields = {**counters, **maxima, **exemplars}
    return [len(counters), len(maxima), len(exemplars), *fields, *fields.values()]


@lru_cache(maxsize=_CACHED)
def _meaning(name: str, wanted: tuple[str, ...]) -> tuple[str, str]:
    """Kind and field of *name* in Redis. Both are empty if it is not *wanted*."""
    field = long_name(name)
    if not field.startswith(wanted) or field.endswith(("_id", "_time")):
        return "", ""
    return next((kind for kind in ("bytes_le", "last_le", "max_") if f".{kind}" in field), "counter"), field


def from_hash(values: Mapping[str, str], wanted: tuple[str, ...] = ANY) -> TaskStats:
    """The stats in a task's hash; only fields that begin with one of *wanted*.

    A part's ``count`` is added if its ``bytes_le`` is wanted.
    Unreadable values are skipped.
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
