"""What changed between two snapshots: for each part of a task, larger or smaller, truncated now or no longer.

Pure: snapshots go in, a ``Diff`` and its text come out. Files, Redis and exit codes are the command's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from celery_argsize.errors import ConfigError
from celery_argsize.figures.summary import JSON_SCHEMA
from celery_argsize.measuring.measurement import PARTS
from celery_argsize.words import printable, table, when

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

if TYPE_CHECKING:
    #: ``unknown``: in one of the two, no run could be measured.
    Change: TypeAlias = Literal["larger", "new", "smaller", "gone", "unknown", "same"]
    Truncation: TypeAlias = Literal["newly_truncated", "no_longer_truncated"]

#: Version of the JSON that ``Diff.to_json`` gives.
DIFF_SCHEMA: Final = 1

#: What each is called, in the order in which they are shown.
_CHANGES: Final[dict[Change, str]] = {
    "larger": "larger",
    "new": "new",
    "smaller": "smaller",
    "gone": "gone",
    "unknown": "not known",
    "same": "same",
}
#: What to know where the later one has the runs of the earlier one in it.
OVERLAP: Final = "Both count from the same moment: but for tasks that were reset in between, After includes Before."

_ORDER: Final = (*_CHANGES,)
_TRUNCATIONS: Final[dict[Truncation, str]] = {
    "newly_truncated": "newly truncated",
    "no_longer_truncated": "no longer truncated",
}


@dataclass(frozen=True, slots=True)
class PartChange:
    """One part of one task in both snapshots; ``None`` where a snapshot does not have the task."""

    task: str
    part: str
    before: Sizes | None
    after: Sizes | None

    @property
    def change(self) -> Change:
        """How the mean changed."""
        if self.before is None:
            return "new"
        if self.after is None:
            return "gone"
        growth = self.growth
        if growth is None:
            return "unknown"
        return "larger" if growth > 0 else "smaller" if growth < 0 else "same"

    @property
    def growth(self) -> Fraction | float | None:
        """Percent by which the mean grew: infinite from 0; ``None`` where one of the means is not known."""
        before, after = (None if sizes is None else sizes.mean for sizes in (self.before, self.after))
        if before is None or after is None:
            return None
        if before == 0:
            return math.inf if after else Fraction(0)
        return (after - before) / before * 100

    @property
    def goes_on(self) -> bool:
        """Whether nothing in the figures speaks against the later ones having the earlier ones in them."""
        before, after = self.before, self.after
        if before is None or after is None or not before.count:
            return False
        return before.count <= after.count and before.chars <= after.chars and before.truncated <= after.truncated

    @property
    def truncation(self) -> Truncation | None:
        """Whether truncation began or ended. It may begin with a new task; it does not end with one that is gone."""
        was, now = (sizes is not None and sizes.truncated > 0 for sizes in (self.before, self.after))
        if was == now or self.after is None:
            return None
        return "newly_truncated" if now else "no_longer_truncated"

    def to_json(self) -> dict[str, Any]:
        """This part as JSON-able data. JSON has no infinity: growth from 0 is null."""
        growth = self.growth
        return {
            "change": self.change,
            "growth_percent": None if growth is None or growth == math.inf else float(growth),
            "truncation": self.truncation,
            "before": self.before and self.before.to_json(),
            "after": self.after and self.after.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Diff:
    """Two snapshots, and what changed from one to the other."""

    before: Snapshot
    after: Snapshot
    parts: tuple[PartChange, ...]
    """Newly truncated ones first; then those that grew, most first; those of new tasks; smaller ones; and so on."""

    @property
    def overlap(self) -> bool:
        """Whether the later one has runs of the earlier one in it, as not all was reset in between.

        Of several apps it is not known, as ``since`` is the oldest's.
        """
        same = len(self.before.apps) == 1 and self.before.apps == self.after.apps
        if not same or self.before.since is None or self.before.since != self.after.since:
            return False
        return any(part.goes_on for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """This diff as JSON-able data: docs/terminal.md."""
        tasks: dict[str, dict[str, Any]] = {}
        for part in self.parts:
            tasks.setdefault(part.task, {})[part.part] = part.to_json()
        return {
            "schema": DIFF_SCHEMA,
            "before": _origin_json(self.before),
            "after": _origin_json(self.after),
            "overlap": self.overlap,
            "tasks": tasks,
        }


def _origin_json(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "where": snapshot.where,
        "apps": [*snapshot.apps],
        "since": snapshot.since,
        "updated": snapshot.updated,
        "total_tasks": snapshot.runs,
    }


def compare(before: Snapshot, after: Snapshot) -> Diff:
    """What changed from *before* to *after*."""
    parts = [
        PartChange(task, part, before.tasks.get(task, {}).get(part), after.tasks.get(task, {}).get(part))
        for task in {**before.tasks, **after.tasks}
        for part in PARTS
    ]
    return Diff(before, after, tuple(sorted(parts, key=_rank)))


def _rank(part: PartChange) -> tuple[object, ...]:
    growth = part.growth or 0
    return part.truncation != "newly_truncated", _ORDER.index(part.change), -growth, part.task, part.part


class Failure(NamedTuple):
    """A part that changed more than is allowed."""

    task: str
    part: str
    reason: Literal["growth", "truncation"]
    text: str
    """For people: what it did, and what is allowed."""


def failures(diff: Diff, *, growth: Fraction | None = None, truncation: bool = False) -> list[Failure]:
    """What grew by more than *growth* percent; with *truncation*, also what is newly truncated.

    A new task cannot have grown, but may be truncated.
    """
    return [
        *(_grown(part, growth) for part in diff.parts if growth is not None and (part.growth or 0) > growth),
        *(_cut(part) for part in diff.parts if truncation and part.truncation == "newly_truncated"),
    ]


def _grown(part: PartChange, allowed: Fraction) -> Failure:
    by = "from 0" if part.growth == math.inf else f"by {_percent(part.growth).lstrip('+')}"
    text = f"grew {by}, mean {_both(part, _mean)} characters; allowed: {float(allowed):g} %"
    return Failure(part.task, part.part, "growth", text)


def _cut(part: PartChange) -> Failure:
    count = f"{part.after.truncated:,} of its runs" if part.after else ""
    return Failure(part.task, part.part, "truncation", f"newly truncated, in {count}; before: none")


def failures_text(found: Sequence[Failure]) -> str:
    """*found* as lines, for people."""
    return "\n".join(["Failed:", *(f"  {failure.task} ({failure.part}): {failure.text}" for failure in found)])


def diff_text(diff: Diff, *, everything: bool = False) -> str:
    """The whole diff, for people; unless *everything*, what is the same is left out."""
    shown = [part for part in diff.parts if everything or _is_shown(part)]
    blocks = [
        [
            "=== CELERY SIZE DIFF ===",
            *(f"{name}: {_origin(one)}" for name, one in (("Before", diff.before), ("After", diff.after))),
            *([OVERLAP] * diff.overlap),
        ],
        [_counts(diff)],
        ["Characters, before -> after:", *_table(shown)] if shown else [],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _is_shown(part: PartChange) -> bool:
    """Whether there is something to see: a change, and for a task that came or went, a part that is used."""
    sizes = part.after or part.before
    if part.change in {"new", "gone"} and sizes is not None:
        return part.part == "args" or sizes.max > 0 or sizes.truncated > 0
    return part.change != "same" or part.truncation is not None


def _origin(snapshot: Snapshot) -> str:
    runs = "1 run" if snapshot.runs == 1 else f"{snapshot.runs:,} runs"
    if snapshot.since is None or snapshot.updated is None:
        return f"{snapshot.where}, {runs}"
    return f"{snapshot.where}, {runs}, measured from {when(snapshot.since)} to {when(snapshot.updated)}"


def _counts(diff: Diff) -> str:
    tasks: dict[str, set[str]] = {word: set() for word in (*_CHANGES.values(), *_TRUNCATIONS.values())}
    for part in diff.parts:
        for word in _words(part):
            tasks[word].add(part.task)
    same = tasks.pop(_CHANGES["same"]).difference(*tasks.values())
    counted = [f"{len(names):,} {word}" for word, names in tasks.items() if names]
    return f"Tasks: {', '.join([*counted, f'{len(same):,} unchanged'])}."


def _words(part: PartChange) -> list[str]:
    """What changed; or that nothing did."""
    words = [_TRUNCATIONS[part.truncation]] if part.truncation else []
    return words if words and part.change == "same" else [_CHANGES[part.change], *words]


def _table(parts: Sequence[PartChange]) -> list[str]:
    head = ("Task", "Part", "Change", "Mean", "p95 <=", "Max", "Runs", "Truncated")
    return table([head, *map(_row, parts)], right=True)


def _row(part: PartChange) -> tuple[str, ...]:
    return (
        part.task,
        part.part,
        _change(part),
        _both(part, _mean),
        _both(part, lambda sizes: f"{sizes.p95:,}"),
        _both(part, lambda sizes: f"{sizes.max:,}"),
        _both(part, lambda sizes: f"{sizes.count:,}"),
        _both(part, lambda sizes: f"{sizes.truncated:,}"),
    )


def _change(part: PartChange) -> str:
    first, *rest = _words(part)
    if part.change in {"larger", "smaller"}:
        first += " (from 0)" if part.growth == math.inf else f" {_percent(part.growth)}"
    return ", ".join([first, *rest])


def _percent(growth: Fraction | float | None) -> str:
    return f"{float(growth or 0):+,.1f} %"


def _mean(sizes: Sizes) -> str:
    return "-" if sizes.mean is None else f"{float(sizes.mean):,.1f}".removesuffix(".0")


def _both(part: PartChange, text: Callable[[Sizes], str]) -> str:
    """A figure before and after; once, if it is the same or there is but one."""
    texts = [text(sizes) for sizes in (part.before, part.after) if sizes is not None]
    return " -> ".join(dict.fromkeys(texts))


#: What to do about something that is no report.
REMAKE: Final = "make one with: celery -A proj argsize report --json > FILE"

#: No counter in Redis goes beyond.
_MOST: Final = 2**63
#: The last second of the year 9999: there are no dates beyond.
_LAST: Final = 253_402_300_799


@dataclass(frozen=True, slots=True)
class Sizes:
    """One part of one task, in characters."""

    count: int
    """How many were measured."""
    chars: int
    """Their sum."""
    p95: int
    max: int
    truncated: int
    """How many came with a repr that Celery had cut."""

    @property
    def mean(self) -> Fraction | None:
        """The exact mean; ``None`` where none was measured."""
        return Fraction(self.chars, self.count) if self.count else None

    def to_json(self) -> dict[str, Any]:
        """These as JSON-able data."""
        mean = None if self.mean is None else float(self.mean)
        return {"count": self.count, "mean": mean, "p95": self.p95, "max": self.max, "truncated": self.truncated}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was measured by some moment."""

    where: str
    """Where it is from, for people."""
    runs: int
    since: float | None
    """When counting began, in seconds since the epoch."""
    updated: float | None
    """When the newest figures were written, in seconds since the epoch."""
    apps: tuple[str, ...]
    tasks: Mapping[str, Mapping[str, Sizes]]
    """By name of the task and part."""


def parse_snapshot(data: object, where: str) -> Snapshot:
    """*data*, which is what ``report --json`` wrote; *where* says from where, for people.

    Raises:
        ConfigError: it is something else, or of another schema.
    """
    try:
        schema = _whole(_mapping(data)["schema"])
        if schema == JSON_SCHEMA:
            return _snapshot(_mapping(data), where)
    except (KeyError, TypeError):
        message = f"{where} is not a report of celery-argsize; {REMAKE}"
        raise ConfigError(message) from None
    message = f"{where} has schema {schema}, and this version of celery-argsize reads {JSON_SCHEMA}; with it, {REMAKE}"
    raise ConfigError(message)


def _snapshot(data: dict[str, Any], where: str) -> Snapshot:
    tasks = {
        printable(name): {part: _sizes(_mapping(_mapping(task)[part])) for part in PARTS}
        for name, task in _mapping(data["tasks"]).items()
    }
    since, updated = (None if data[key] is None else _moment(data[key]) for key in ("since", "updated"))
    return Snapshot(where, _whole(data["total_tasks"]), since, updated, _names(data["apps"]), tasks)


def _sizes(part: dict[str, Any]) -> Sizes:
    count = _whole(part["count"])
    # The mean was made from two whole numbers: rounding gives the sum again, exactly.
    return Sizes(
        count, round(_number(part["mean"]) * count), *(_whole(part[key]) for key in ("p95", "max", "truncated"))
    )


def _moment(value: object) -> float:
    if (moment := _number(value)) > _LAST:
        raise TypeError
    return moment


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError
    return tuple(value)


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise TypeError
    return value


def _number(value: object) -> float:
    if type(value) not in {int, float} or not isinstance(value, (int, float)) or not 0 <= value < _MOST:
        raise TypeError
    return value
