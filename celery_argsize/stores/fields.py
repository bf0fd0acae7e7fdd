"""A task's counters and maxima as the fields of its hash in Redis (docs/redis-schema.md), and back.

Pure. Memory in Redis goes by the length of names, and its CPU time by the number of counters that a batch changes. So
names are short there, and what follows from others is left out: most sizes in bytes and most needs are in the same
bucket as the size in characters, so only the difference is counted, which is nothing where all is ASCII. Differences
add up as counters do: what is read is what was counted, whoever wrote which piece of it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from celery_argsize.figures.counters import Exemplar, Extreme, TaskStats

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Fields that begin with this: all.
ANY: Final = ("",)

_PARTS: Final = {"args": "a", "kwargs": "k"}
#: Histograms: what stands between the part and the bound.
_BUCKETS: Final = {
    "chars_le": "c", "bytes_le": "b", "need_le": "n",
    "flat_le": "f", "deep_le": "d", "flat_need_le": "F", "deep_need_le": "D",
}  # fmt: skip
#: As well, and what it holds is no number: an exemplar.
_EXEMPLARS: Final = ("last_le", "x")
_UNITS: Final = {"M": 1 << 20, "K": 1 << 10, "": 1}

#: Counters of a part that count towards others of it.
_TOWARDS: Final = {
    "chars": ("bytes", "need"),
    "chars_le": ("bytes_le", "need_le", "count"),
    **dict.fromkeys(("by_size", "by_depth", "by_both"), ("truncated",)),
}
#: Those among them that nothing else counts towards: nothing is left to be written.
_SUMS: Final = ("count", "truncated")

#: The maximum of which it is kept where it was seen: the one that people are shown.
_PLACED: Final = ".max_chars"

_KINDS: Final = dict((*_BUCKETS.items(), _EXEMPLARS))
_BUCKET: Final = re.compile(rf"([ak])([{''.join(_KINDS.values())}])(?:(\d+)([KM]?)|\+Inf)")
_OTHER: Final = re.compile(r"([ak])\.(\w+)")
_LONG: Final = {short: name for name, short in (*_PARTS.items(), *_KINDS.items())}


@lru_cache(maxsize=4096)
def _short_name(field: str) -> str:
    """The name in Redis of *field*."""
    part, _, rest = field.partition(".")
    kind, _, bound = rest.partition(".")
    if part not in _PARTS:
        return field
    if kind not in _KINDS:
        return f"{_PARTS[part]}.{rest}"
    if bound.isdecimal():
        unit, size = next(pair for pair in _UNITS.items() if int(bound) % pair[1] == 0)
        bound = f"{int(bound) // size}{unit}"
    return f"{_PARTS[part]}{_KINDS[kind]}{bound}"


@lru_cache(maxsize=4096)
def _long_name(name: str) -> str:
    """The field that has *name* in Redis; one of a later version keeps its name."""
    if found := _BUCKET.fullmatch(name):
        part, kind, bound, unit = found.groups()
        return f"{_LONG[part]}.{_LONG[kind]}.{int(bound) * _UNITS[unit] if bound else '+Inf'}"
    if found := _OTHER.fullmatch(name):
        return f"{_LONG[found[1]]}.{found[2]}"
    return name


@lru_cache(maxsize=4096)
def _fields_of(field: str) -> tuple[str, ...]:
    """*field*, and those that it counts towards."""
    part, _, rest = field.partition(".")
    kind, dot, bound = rest.partition(".")
    others = _TOWARDS.get(kind, ())
    return (field, *(f"{part}.{other}{dot + bound if other in _BUCKETS else ''}" for other in others))


@lru_cache(maxsize=4096)
def _names_of(field: str) -> tuple[tuple[str, int], ...]:
    """What is written for *field*: names in Redis, and how often each counts."""
    each = ((other, 1 if other == field else -1) for other in _fields_of(field))
    return tuple((_short_name(other), sign) for other, sign in each if other.partition(".")[2] not in _SUMS)


def pack(stats: TaskStats) -> tuple[dict[str, int], dict[str, Extreme], dict[str, str]]:
    """What *stats* add to the counters in Redis, nothing that is 0; and the maxima and exemplars they have for it."""
    counts: dict[str, int] = {}
    for field, by in stats.counts.items():
        for name, sign in _names_of(field):
            counts[name] = counts.get(name, 0) + sign * by
    maxima = {
        _short_name(field): seen if field.endswith(_PLACED) else Extreme(seen.value, "", 0.0)
        for field, seen in stats.maxima.items()
    }
    exemplars = {_short_name(field): f"{seen[0]} {seen[1]} {seen[2]:.3f}" for field, seen in stats.exemplars.items()}
    return {name: by for name, by in counts.items() if by}, maxima, exemplars


#: In place of a place: an exemplar has its own.
_EXEMPLAR: Final = ("", "")


class _Meanings(dict[str, tuple[str, tuple[str, ...], tuple[str, str] | None]]):
    """What is in Redis by a name there: a field, the fields that count with it, and the names of a maximum's place.

    No field where it is not *wanted*, or a place itself; no fields count with a maximum, or with an exemplar. A dict,
    as it is asked for each field of each task, and ``lru_cache`` takes longer.
    """

    def __init__(self, wanted: tuple[str, ...]) -> None:
        super().__init__()
        self._wanted = wanted

    def __missing__(self, name: str) -> tuple[str, tuple[str, ...], tuple[str, str] | None]:
        if len(self) >= 4096:  # noqa: PLR2004 - as above; they are of other versions, or not ours
            self.clear()
        self[name] = found = self._meaning(name)
        return found

    def _meaning(self, name: str) -> tuple[str, tuple[str, ...], tuple[str, str] | None]:
        field = _long_name(name)
        if field.endswith(("_id", "_time")):
            return "", (), None
        if ".max_" in field:
            place = (f"{name}_id", f"{name}_time") if field.endswith(_PLACED) else None
            return field if field.startswith(self._wanted) else "", (), place
        if f".{_EXEMPLARS[0]}." in field:
            return field if field.startswith(self._wanted) else "", (), _EXEMPLAR
        counted = tuple(each for each in _fields_of(field) if each.startswith(self._wanted))
        return field if counted else "", counted, None


_meanings: Final = lru_cache(maxsize=8)(_Meanings)


def unpack(fields: Mapping[str, str], wanted: tuple[str, ...] = ANY) -> TaskStats:
    """The stats in a task's hash, of fields that begin with one of those *wanted*. What is no number is passed over."""
    stats, meanings = TaskStats(), _meanings(wanted)
    counts, maxima = stats.counts, stats.maxima
    for name, value in fields.items():
        field, counted, place = meanings[name]
        if not field:
            continue
        try:
            if place == _EXEMPLAR:
                size, _, rest = value.partition(" ")
                task_id, _, moment = rest.rpartition(" ")
                if task_id:
                    stats.exemplars[field] = Exemplar(int(size), task_id, float(moment))
                continue
            number = int(value)
        except ValueError:  # of a later version
            continue
        if counted:
            for each in counted:
                counts[each] = counts.get(each, 0) + number
        elif place:
            maxima[field] = Extreme(number, fields.get(place[0], ""), float(fields.get(place[1], 0)))
        else:
            maxima[field] = Extreme(number, "", 0.0)
    if 0 in counts.values():
        stats.counts = {field: by for field, by in counts.items() if by}
    return stats
