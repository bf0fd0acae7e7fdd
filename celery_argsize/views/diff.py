"""What changed between two reports: for each part of a task, its size, and whether it is truncated.

Pure: what ``argsize report --json`` wrote goes in as a ``Snapshot``; a ``Diff`` and its text come out.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_argsize.errors import ConfigError
from celery_argsize.figures.summary import JSON_SCHEMA
from celery_argsize.measuring.measurement import PARTS
from celery_argsize.words import counted, printable, table, when

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DIFF_SCHEMA: Final = 1  # of the JSON that ``Diff.to_json`` gives
OVERLAP: Final = "Both count from the same moment: but for tasks that were reset in between, After includes Before."
REMAKE: Final = "make one with: celery -A proj argsize report --json > FILE"

_MOST: Final = 253_402_300_799  # no number in a report is larger: the end of the year 9999

#: How a mean can change, in the order in which parts are shown.
_CHANGES: Final = ("larger", "new", "smaller", "gone", "unknown", "same")
#: What is counted, in words.
_COUNTED: Final = (
    "larger",
    "new",
    "smaller",
    "gone",
    "not known",
    "newly truncated",
    "no longer truncated",
    "unchanged",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """One part of one task, in characters; *count* were measured, of *truncated* Celery had cut the repr."""

    count: int
    mean: Fraction | None
    """Exact; ``None`` where none was measured."""
    p95: int
    max: int
    truncated: int

    def to_json(self) -> dict[str, Any]:
        """The sizes as JSON-able data."""
        return asdict(self) | {"mean": None if self.mean is None else float(self.mean)}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was measured by some moment."""

    where: str
    """A file, or the URL of a Redis; for people."""
    apps: tuple[str, ...]
    since: float | None
    """When counting began, and when the newest figures were written, in seconds since the epoch."""
    updated: float | None
    total_tasks: int
    """Runs measured."""
    tasks: Mapping[str, Mapping[str, Sizes]]
    """By name of the task and part."""


@dataclass(frozen=True, slots=True)
class PartChange:
    """One part of one task in both snapshots; ``None`` where a snapshot does not have the task."""

    task: str
    part: str
    before: Sizes | None
    after: Sizes | None

    @property
    def growth(self) -> Fraction | float | None:
        """Percent by which the mean grew: infinite from 0; ``None`` where a mean is not known."""
        before, after = (sizes.mean if sizes else None for sizes in (self.before, self.after))
        if before is None or after is None:
            return None
        if before == 0:
            return math.inf if after else Fraction(0)
        return (after - before) / before * 100

    @property
    def change(self) -> str:
        """How the mean changed: one of ``_CHANGES``; ``unknown`` where a mean is not known."""
        if self.before is None or self.after is None:
            return "new" if self.before is None else "gone"
        if self.growth is None:
            return "unknown"
        return "larger" if self.growth > 0 else "smaller" if self.growth < 0 else "same"

    @property
    def truncation(self) -> str | None:
        """``newly_truncated`` or ``no_longer_truncated``; ``None`` if neither, or if it is gone."""
        was, now = (bool(sizes and sizes.truncated) for sizes in (self.before, self.after))
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
    """Newly truncated ones first; then by ``_CHANGES``; then the largest growth."""

    @property
    def overlap(self) -> bool:
        """Whether the later snapshot includes runs of the earlier one, as not all was reset in between."""
        before, after = self.before, self.after
        # For several apps, ``since`` is that of the oldest one, and does not tell.
        if before.since is None or before.since != after.since or before.apps != after.apps or len(before.apps) != 1:
            return False
        pairs = [(part.before, part.after) for part in self.parts if part.before and part.after]
        return any(0 < old.count <= new.count for old, new in pairs)

    def to_json(self) -> dict[str, Any]:
        """The diff as JSON-able data: docs/terminal.md."""
        tasks: dict[str, dict[str, Any]] = {}
        for part in self.parts:
            tasks.setdefault(part.task, {})[part.part] = part.to_json()
        names = "where", "apps", "since", "updated", "total_tasks"
        before, after = ({name: getattr(side, name) for name in names} for side in (self.before, self.after))
        return {"schema": DIFF_SCHEMA, "before": before, "after": after, "overlap": self.overlap, "tasks": tasks}


def parse_snapshot(data: Any, where: str) -> Snapshot:
    """What ``report --json`` wrote; *where* says from where, for people.

    Raises:
        ConfigError: it is something else, or of another schema.
    """
    try:
        schema = _number(data["schema"], int)
        if schema == JSON_SCHEMA:
            return _snapshot(data, where)
        message = f"has schema {schema}, and this version of celery-argsize reads {JSON_SCHEMA}; {REMAKE}"
    except (AttributeError, KeyError, TypeError):
        message = f"is not a report of celery-argsize; {REMAKE}"
    message = f"{where} {message}"
    raise ConfigError(message)


def _snapshot(data: dict[str, Any], where: str) -> Snapshot:
    if not isinstance(data["apps"], list):
        raise TypeError
    moments = data["since"], data["updated"]
    since, updated = (None if moment is None else _number(moment, int, float) for moment in moments)
    tasks = {}
    for name, task in data["tasks"].items():
        tasks[printable(name)] = {part: _sizes(task[part]) for part in PARTS}
    return Snapshot(where, tuple(data["apps"]), since, updated, _number(data["total_tasks"], int), tasks)


def _sizes(part: dict[str, Any]) -> Sizes:
    count, p95, largest, truncated = (_number(part[key], int) for key in ("count", "p95", "max", "truncated"))
    mean = _number(part["mean"], int, float)
    # The mean was made from two whole numbers, so rounding gives back their exact sum.
    return Sizes(count, Fraction(round(mean * count), count) if count else None, p95, largest, truncated)


def _number(value: Any, *types: type) -> Any:
    """*value*, if its type is one of *types* and it is in range; else a ``TypeError``."""
    if type(value) not in types or not 0 <= value <= _MOST:
        raise TypeError
    return value


def compare(before: Snapshot, after: Snapshot) -> Diff:
    """What changed from *before* to *after*."""
    parts = []
    for task in {**before.tasks, **after.tasks}:
        old, new = before.tasks.get(task, {}), after.tasks.get(task, {})
        parts += [PartChange(task, part, old.get(part), new.get(part)) for part in PARTS]
    return Diff(before, after, tuple(sorted(parts, key=_rank)))


def _rank(part: PartChange) -> tuple[object, ...]:
    cut = part.truncation == "newly_truncated"
    return not cut, _CHANGES.index(part.change), -(part.growth or 0), part.task, part.part


class Failure(NamedTuple):
    """A part that changed more than is allowed; *reason* is ``growth`` or ``truncation``."""

    task: str
    part: str
    reason: str
    text: str


def failures(diff: Diff, *, growth: Fraction | None = None, truncation: bool = False) -> list[Failure]:
    """What grew by more than *growth* percent; with *truncation*, also what is newly truncated."""
    failed = []
    for part in diff.parts:
        grown = part.growth or 0
        if growth is not None and grown > growth:
            by = "from 0" if grown == math.inf else f"by {float(grown):,.1f} %"
            text = f"grew {by}, mean {_both(part, 'mean')} characters; allowed: {float(growth):g} %"
            failed.append(Failure(part.task, part.part, "growth", text))
        if truncation and part.after and part.truncation == "newly_truncated":
            text = f"newly truncated, in {part.after.truncated:,} of its runs; before: none"
            failed.append(Failure(part.task, part.part, "truncation", text))
    return sorted(failed, key=lambda failure: failure.reason)


def failures_text(failed: Sequence[Failure]) -> str:
    """*failed* as lines, for people."""
    lines = [f"  {failure.task} ({failure.part}): {failure.text}" for failure in failed]
    return "\n".join(["Failed:", *lines])


def diff_text(diff: Diff, *, everything: bool = False) -> str:
    """The whole diff, for people; unless *everything*, without what is the same."""
    lines = ["=== CELERY SIZE DIFF ===", f"Before: {_origin(diff.before)}", f"After: {_origin(diff.after)}"]
    lines += [OVERLAP, "", _counts(diff)] if diff.overlap else ["", _counts(diff)]
    shown = [part for part in diff.parts if everything or _is_shown(part)]
    if shown:
        head = ("Task", "Part", "Change", "Mean", "p95 <=", "Max", "Runs", "Truncated")
        lines += ["", "Characters, before -> after:", *table([head, *map(_row, shown)], right=True)]
    return "\n".join(lines)


def _is_shown(part: PartChange) -> bool:
    """Whether it changed; kwargs that are always empty do not count."""
    largest = max(sizes.max for sizes in (part.before, part.after) if sizes)
    return bool(part.truncation) or (part.change != "same" and (part.part == "args" or largest > 0))


def _origin(snapshot: Snapshot) -> str:
    text = f"{snapshot.where}, {counted(snapshot.total_tasks, 'run')}"
    if snapshot.since is None or snapshot.updated is None:
        return text
    return f"{text}, measured from {when(snapshot.since)} to {when(snapshot.updated)}"


def _counts(diff: Diff) -> str:
    words: dict[str, set[str]] = {}
    for part in diff.parts:
        words.setdefault(part.task, set()).update(_words(part))
    counts = Counter(word for of_task in words.values() for word in of_task or {"unchanged"})
    texts = [f"{counts[word]:,} {word}" for word in _COUNTED if counts[word] or word == "unchanged"]
    return f"Tasks: {', '.join(texts)}."


def _words(part: PartChange) -> list[str]:
    """What changed; empty if nothing did."""
    words = [part.change.replace("unknown", "not known"), (part.truncation or "same").replace("_", " ")]
    return [word for word in words if word != "same"]


def _row(part: PartChange) -> tuple[str, ...]:
    words = _words(part)
    if part.change in {"larger", "smaller"}:
        words[0] += " (from 0)" if part.growth == math.inf else f" {float(part.growth or 0):+,.1f} %"
    numbers = [_both(part, name) for name in ("mean", "p95", "max", "count", "truncated")]
    return part.task, part.part, ", ".join(words) or "same", *numbers


def _both(part: PartChange, name: str) -> str:
    """The figure *name* before and after; once, if it is the same or there is but one."""
    numbers = [getattr(sizes, name) for sizes in (part.before, part.after) if sizes]
    texts = ["-" if number is None else f"{float(number):,.1f}" for number in numbers]
    return " -> ".join(dict.fromkeys(text.removesuffix(".0") for text in texts))
