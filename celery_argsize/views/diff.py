"""What changed between two reports, part by part: sizes and truncation.

Pure. A report (``argsize report --json``) is read into a
``Snapshot``; two make a ``Diff``.
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

#: Version of the JSON that ``Diff.to_json`` gives.
DIFF_SCHEMA: Final = 1
OVERLAP: Final = "Both count from the same moment: but for tasks that were reset in between, After includes Before."
REMAKE: Final = "make one with: celery -A proj argsize report --json > FILE"

#: The largest number that a report may hold: the last second of the year 9999.
_MOST: Final = 253_402_300_799
#: How a mean can change, in the order in which parts are shown.
_CHANGES: Final = ("larger", "new", "smaller", "gone", "unknown", "same")
#: The changes that the line "Tasks:" counts, in its order.
_COUNTED: Final = (*_CHANGES[:4], "not known", "newly truncated", "no longer truncated", "unchanged")


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of one part of one task, in characters."""

    count: int
    """Runs measured."""
    mean: Fraction | None
    """Exact; ``None`` without a measured run."""
    p95: int
    max: int
    truncated: int
    """Runs whose repr Celery had cut."""

    def to_json(self) -> dict[str, Any]:
        """The sizes for JSON."""
        return asdict(self) | {"mean": None if self.mean is None else float(self.mean)}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One report."""

    where: str
    """The file or Redis that it is from."""
    apps: tuple[str, ...]
    since: float | None
    """When counting began, in seconds since the epoch."""
    updated: float | None
    """When the newest figures were written."""
    total_tasks: int
    """Runs measured."""
    tasks: Mapping[str, Mapping[str, Sizes]]
    """By task name, then by part."""


@dataclass(frozen=True, slots=True)
class PartChange:
    """One part of one task in two snapshots; ``None`` if a snapshot lacks the task."""

    task: str
    part: str
    before: Sizes | None
    after: Sizes | None

    @property
    def growth(self) -> Fraction | float | None:
        """Percent by which the mean grew; infinite from 0, ``None`` if one is missing."""
        before, after = (sizes.mean if sizes else None for sizes in (self.before, self.after))
        if before is None or after is None:
            return None
        if before == 0:
            return math.inf if after else Fraction(0)
        return (after - before) / before * 100

    @property
    def change(self) -> str:
        """How the mean changed: one of ``_CHANGES``."""
        if self.before is None or self.after is None:
            return "new" if self.before is None else "gone"
        if self.growth is None:
            return "unknown"
        return "larger" if self.growth > 0 else "smaller" if self.growth < 0 else "same"

    @property
    def truncation(self) -> str | None:
        """``newly_truncated``, ``no_longer_truncated`` or ``None``."""
        was, now = (bool(sizes and sizes.truncated) for sizes in (self.before, self.after))
        if was == now or self.after is None:
            return None
        return "newly_truncated" if now else "no_longer_truncated"

    def to_json(self) -> dict[str, Any]:
        """The change for JSON, which has no infinity: ``None`` stands for it."""
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
    """What changed from one snapshot to another."""

    before: Snapshot
    after: Snapshot
    parts: tuple[PartChange, ...]
    """Newly truncated parts first, then by ``_CHANGES``, then by growth."""

    @property
    def overlap(self) -> bool:
        """Whether *after* counts runs of *before* too, as not all was reset between."""
        before, after = self.before, self.after
        # With several apps, ``since`` is that of the oldest:
        # it does not show each reset.
        same = (before.since, before.apps) == (after.since, after.apps)
        if before.since is None or not same or len(after.apps) != 1:
            return False
        pairs = [(part.before, part.after) for part in self.parts]
        return any(old and new and 0 < old.count <= new.count for old, new in pairs)

    def to_json(self) -> dict[str, Any]:
        """The diff for JSON: docs/terminal.md."""
        tasks: dict[str, dict[str, Any]] = {}
        for part in self.parts:
            tasks.setdefault(part.task, {})[part.part] = part.to_json()
        names = "where", "apps", "since", "updated", "total_tasks"
        before, after = ({name: getattr(side, name) for name in names} for side in (self.before, self.after))
        return {"schema": DIFF_SCHEMA, "before": before, "after": after, "overlap": self.overlap, "tasks": tasks}


def parse_snapshot(data: Any, where: str) -> Snapshot:
    """Read and check the JSON *data* of a report. *where* names its source in errors.

    Raises:
        ConfigError: it is no report, or of another schema.
    """
    try:
        schema = _number(data["schema"], int)
        if schema == JSON_SCHEMA:
            return _snapshot(data, where)
        problem = f"has schema {schema}, and this version of celery-argsize reads {JSON_SCHEMA}"
    except (AttributeError, KeyError, TypeError):
        problem = "is not a report of celery-argsize"
    message = f"{where} {problem}; {REMAKE}"
    raise ConfigError(message)


def _snapshot(data: dict[str, Any], where: str) -> Snapshot:
    if not isinstance(data["apps"], list):
        raise TypeError
    since, updated = (_number(data[key], int, float, type(None)) for key in ("since", "updated"))
    tasks = {printable(name): {part: _sizes(task[part]) for part in PARTS} for name, task in data["tasks"].items()}
    return Snapshot(where, tuple(data["apps"]), since, updated, _number(data["total_tasks"], int), tasks)


def _sizes(part: dict[str, Any]) -> Sizes:
    count, p95, largest, truncated = (_number(part[key], int) for key in ("count", "p95", "max", "truncated"))
    mean = _number(part["mean"], int, float)
    # The mean is a whole number of characters / count:
    # rounding finds that number.
    return Sizes(count, Fraction(round(mean * count), count) if count else None, p95, largest, truncated)


def _number(value: Any, *types: type) -> Any:
    """*value*. Raises ``TypeError`` if it has another type, is negative or too large."""
    if type(value) not in types or not 0 <= (value or 0) <= _MOST:
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
    """A part that changed more than is allowed."""

    task: str
    part: str
    reason: str
    """``growth`` or ``truncation``."""
    text: str


def failures(diff: Diff, *, growth: Fraction | None = None, truncation: bool = False) -> list[Failure]:
    """Parts that grew by more than *growth* percent; with *truncation*, newly cut ones."""
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
    """*failed* as people read it."""
    return "\n".join(["Failed:", *(f"  {failure.task} ({failure.part}): {failure.text}" for failure in failed)])


def diff_text(diff: Diff, *, everything: bool = False) -> str:
    """The diff as people read it; unchanged parts only with *everything*."""
    lines = ["=== CELERY SIZE DIFF ===", f"Before: {_origin(diff.before)}", f"After: {_origin(diff.after)}"]
    lines += [OVERLAP, "", _counts(diff)] if diff.overlap else ["", _counts(diff)]
    shown = [part for part in diff.parts if everything or _is_shown(part)]
    if shown:
        head = ("Task", "Part", "Change", "Mean", "p95 <=", "Max", "Runs", "Truncated")
        lines += ["", "Characters, before -> after:", *table([head, *map(_row, shown)], right=True)]
    return "\n".join(lines)


def _is_shown(part: PartChange) -> bool:
    """Whether *part* changed. Kwargs that are always empty do not count."""
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
    """What changed in *part*; empty if nothing did."""
    words = [part.change.replace("unknown", "not known"), (part.truncation or "same").replace("_", " ")]
    return [word for word in words if word != "same"]


def _row(part: PartChange) -> tuple[str, ...]:
    words = _words(part)
    if part.change in {"larger", "smaller"}:
        words[0] += " (from 0)" if part.growth == math.inf else f" {float(part.growth or 0):+,.1f} %"
    numbers = [_both(part, name) for name in ("mean", "p95", "max", "count", "truncated")]
    return part.task, part.part, ", ".join(words) or "same", *numbers


def _both(part: PartChange, name: str) -> str:
    """The figure *name* before and after; once if equal or in one snapshot only."""
    numbers = [getattr(sizes, name) for sizes in (part.before, part.after) if sizes]
    texts = ["-" if number is None else f"{float(number):,.1f}" for number in numbers]
    return " -> ".join(dict.fromkeys(text.removesuffix(".0") for text in texts))
