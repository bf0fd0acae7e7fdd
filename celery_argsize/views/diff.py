"""What changed between two snapshots: for each part of a task, larger or smaller, truncated now or no longer.

Pure: snapshots go in, a ``Diff`` and its text come out. Files, Redis and exit codes are in ``commands.diff``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from celery_argsize.measuring.measurement import PARTS
from celery_argsize.words import counted, table, when

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery_argsize.views.snapshot import Sizes, Snapshot

#: How the mean changed. ``unknown``: in one of the two snapshots, no run could be measured.
Change = Literal["larger", "new", "smaller", "gone", "unknown", "same"]
Truncation = Literal["newly_truncated", "no_longer_truncated"]

#: Version of the JSON that ``Diff.to_json`` gives.
DIFF_SCHEMA: Final = 1
#: What to know where the later snapshot has the runs of the earlier one in it.
OVERLAP: Final = "Both count from the same moment: but for tasks that were reset in between, After includes Before."

#: The changes in words, in the order in which they are shown.
_CHANGES: Final[dict[Change, str]] = {
    "larger": "larger",
    "new": "new",
    "smaller": "smaller",
    "gone": "gone",
    "unknown": "not known",
    "same": "same",
}
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
    def truncation(self) -> Truncation | None:
        """Whether truncation began or ended. It may begin with a new task; it does not end with one that is gone."""
        was, now = (sizes is not None and sizes.truncated > 0 for sizes in (self.before, self.after))
        if was == now or self.after is None:
            return None
        return "newly_truncated" if now else "no_longer_truncated"

    @property
    def may_overlap(self) -> bool:
        """Whether the later figures can contain the earlier ones: none of the sums is lower."""
        before, after = self.before, self.after
        if before is None or after is None or before.mean is None or after.mean is None:
            return False
        grew = before.count <= after.count and before.truncated <= after.truncated
        return grew and before.mean * before.count <= after.mean * after.count

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
        """Whether the later snapshot contains runs of the earlier one, as not all was reset in between.

        With several apps it is not known, as ``since`` is that of the oldest.
        """
        same_app = len(self.before.apps) == 1 and self.before.apps == self.after.apps
        if not same_app or self.before.since is None or self.before.since != self.after.since:
            return False
        return any(part.may_overlap for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """The diff as JSON-able data: docs/terminal.md."""
        tasks: dict[str, dict[str, Any]] = {}
        for part in self.parts:
            tasks.setdefault(part.task, {})[part.part] = part.to_json()
        before, after = (
            {name: getattr(snapshot, name) for name in ("where", "apps", "since", "updated", "total_tasks")}
            for snapshot in (self.before, self.after)
        )
        return {"schema": DIFF_SCHEMA, "before": before, "after": after, "overlap": self.overlap, "tasks": tasks}


def compare(before: Snapshot, after: Snapshot) -> Diff:
    """What changed from *before* to *after*."""
    parts = [
        PartChange(task, part, before.tasks.get(task, {}).get(part), after.tasks.get(task, {}).get(part))
        for task in {**before.tasks, **after.tasks}
        for part in PARTS
    ]
    return Diff(before, after, tuple(sorted(parts, key=_rank)))


def _rank(part: PartChange) -> tuple[object, ...]:
    order = [*_CHANGES].index(part.change)
    return part.truncation != "newly_truncated", order, -(part.growth or 0), part.task, part.part


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
    found = []
    for part in diff.parts:
        if growth is not None and (part.growth or 0) > growth:
            by = "from 0" if part.growth == math.inf else f"by {_percent(part.growth).lstrip('+')}"
            text = f"grew {by}, mean {_both(part, _mean)} characters; allowed: {float(growth):g} %"
            found.append(Failure(part.task, part.part, "growth", text))
    for part in diff.parts:
        if truncation and part.after and part.truncation == "newly_truncated":
            text = f"newly truncated, in {part.after.truncated:,} of its runs; before: none"
            found.append(Failure(part.task, part.part, "truncation", text))
    return found


def failures_text(failed: Sequence[Failure]) -> str:
    """*failed* as lines, for people."""
    return "\n".join(["Failed:", *(f"  {failure.task} ({failure.part}): {failure.text}" for failure in failed)])


def diff_text(diff: Diff, *, everything: bool = False) -> str:
    """The whole diff, for people; unless *everything*, what is the same is left out."""
    lines = ["=== CELERY SIZE DIFF ===", f"Before: {_origin(diff.before)}", f"After: {_origin(diff.after)}"]
    if diff.overlap:
        lines.append(OVERLAP)
    lines += ["", _counts(diff)]
    shown = [part for part in diff.parts if everything or _is_shown(part)]
    if shown:
        head = ("Task", "Part", "Change", "Mean", "p95 <=", "Max", "Runs", "Truncated")
        lines += ["", "Characters, before -> after:", *table([head, *map(_row, shown)], right=True)]
    return "\n".join(lines)


def _is_shown(part: PartChange) -> bool:
    """Whether there is something to see: a change, and for a task that came or went, a part that is used."""
    sizes = part.after or part.before
    if part.change in {"new", "gone"} and sizes is not None:
        return part.part == "args" or sizes.max > 0 or sizes.truncated > 0
    return part.change != "same" or part.truncation is not None


def _origin(snapshot: Snapshot) -> str:
    text = f"{snapshot.where}, {counted(snapshot.total_tasks, 'run')}"
    if snapshot.since is None or snapshot.updated is None:
        return text
    return f"{text}, measured from {when(snapshot.since)} to {when(snapshot.updated)}"


def _counts(diff: Diff) -> str:
    """How many tasks changed in which way."""
    tasks: dict[str, set[str]] = {word: set() for word in (*_CHANGES.values(), *_TRUNCATIONS.values())}
    for part in diff.parts:
        for word in _words(part):
            tasks[word].add(part.task)
    same = tasks.pop(_CHANGES["same"]).difference(*tasks.values())
    counts = [f"{len(names):,} {word}" for word, names in tasks.items() if names]
    return f"Tasks: {', '.join([*counts, f'{len(same):,} unchanged'])}."


def _words(part: PartChange) -> list[str]:
    """What changed; or that nothing did."""
    words = [_TRUNCATIONS[part.truncation]] if part.truncation else []
    return words if words and part.change == "same" else [_CHANGES[part.change], *words]


def _row(part: PartChange) -> tuple[str, ...]:
    change, *truncation = _words(part)
    if part.change in {"larger", "smaller"}:
        change += " (from 0)" if part.growth == math.inf else f" {_percent(part.growth)}"
    return (
        part.task,
        part.part,
        ", ".join([change, *truncation]),
        _both(part, _mean),
        _both(part, lambda sizes: f"{sizes.p95:,}"),
        _both(part, lambda sizes: f"{sizes.max:,}"),
        _both(part, lambda sizes: f"{sizes.count:,}"),
        _both(part, lambda sizes: f"{sizes.truncated:,}"),
    )


def _percent(growth: Fraction | float | None) -> str:
    return f"{float(growth or 0):+,.1f} %"


def _mean(sizes: Sizes) -> str:
    return "-" if sizes.mean is None else f"{float(sizes.mean):,.1f}".removesuffix(".0")


def _both(part: PartChange, text: Callable[[Sizes], str]) -> str:
    """A figure before and after; once, if it is the same or there is but one."""
    texts = [text(sizes) for sizes in (part.before, part.after) if sizes is not None]
    return " -> ".join(dict.fromkeys(texts))
