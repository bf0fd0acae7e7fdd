"""Is everything within the bounds that were set: the parts that are too big, and those whose repr was truncated.

Pure: a summary goes in, ``Checked`` and its text come out. Options and exit codes are the command's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.measuring.cuts import CAUSES
from celery_argsize.measuring.measurement import PARTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.figures.summary import Summary

#: Version of the JSON that ``Checked.to_json`` gives.
CHECK_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is allowed."""

    max_bytes: int | None
    """UTF-8 bytes of compact JSON that a part may have; ``None``: any number."""
    no_truncation: bool
    """Whether no repr may be truncated."""


@dataclass(frozen=True, slots=True)
class Offender:
    """A part of a task that is not within the bounds."""

    task: str
    part: str
    max_bytes: int | None
    """The largest, in UTF-8 bytes, where that is too much; else ``None``."""
    truncated_by: Mapping[str, int]
    """How many were truncated, by cause, where none may be; else empty."""

    def to_json(self) -> dict[str, Any]:
        """This offender as JSON-able data."""
        return {
            "task": self.task,
            "part": self.part,
            "max_bytes": self.max_bytes,
            "truncated": sum(self.truncated_by.values()),
            "truncated_by": dict(self.truncated_by),
        }


@dataclass(frozen=True, slots=True)
class Checked:
    """Who is not within the bounds, and what is not known."""

    bounds: Bounds
    runs: int
    tasks: int
    offenders: tuple[Offender, ...]
    """Largest task first."""
    unmeasurable: int
    """Parts whose size is not known, where that matters."""
    without_repr: int
    """Parts that came without a repr of Celery's making, where truncation matters."""
    errors: int
    """Runs that were not measured because of an error in celery_argsize; not in *runs*."""

    @property
    def within(self) -> bool:
        """Whether all that is known is within the bounds. Where nothing was measured, nothing is proven."""
        return self.runs > 0 and not self.offenders

    def to_json(self) -> dict[str, Any]:
        """This as JSON-able data: docs/terminal.md."""
        return {
            "schema": CHECK_SCHEMA,
            "within": self.within,
            "max_bytes": self.bounds.max_bytes,
            "no_truncation": self.bounds.no_truncation,
            "total_tasks": self.runs,
            "unmeasurable": self.unmeasurable,
            "without_repr": self.without_repr,
            "errors": self.errors,
            "offenders": [offender.to_json() for offender in self.offenders],
        }


def check_summary(summary: Summary, bounds: Bounds) -> Checked:
    """Hold *summary* against *bounds*."""
    offenders = []
    parts = [(task.name, part, getattr(task, part)) for task in summary.tasks for part in PARTS]
    for name, part, seen in parts:
        too_big = bounds.max_bytes is not None and seen.max_bytes > bounds.max_bytes
        cuts = {cause: n for cause, n in seen.truncated_by.items() if n} if bounds.no_truncation else {}
        if too_big or cuts:
            offenders.append(Offender(name, part, seen.max_bytes if too_big else None, cuts))
    return Checked(
        bounds,
        runs=summary.total_tasks,
        tasks=len(summary.tasks),
        offenders=tuple(offenders),
        unmeasurable=sum(seen.unmeasurable for *_, seen in parts) if bounds.max_bytes is not None else 0,
        without_repr=sum(seen.custom + seen.unknown for *_, seen in parts) if bounds.no_truncation else 0,
        errors=summary.errors,
    )


def checked_text(checked: Checked) -> str:
    """*checked* as lines, for people."""
    lines = [_offence(offender, checked.bounds) for offender in checked.offenders]
    notes = [
        f"Note: {text}: {n:,}"
        for n, text in (
            (checked.unmeasurable, "parts without a JSON form, whose size is not known"),
            (checked.without_repr, "parts that came without a repr of Celery's making, where nothing shows a cut"),
            (checked.errors, "runs that were not measured, for errors in celery_argsize"),
        )
        if n
    ]
    verdict = "Not within the bounds" if lines else f"All{' that is known' if notes else ''} is within the bounds"
    seen = f"runs: {checked.runs:,}, task names: {checked.tasks:,}"
    return "\n".join([f"{verdict} ({seen}){':' if lines else '.'}", *lines, *notes])


def _offence(offender: Offender, bounds: Bounds) -> str:
    what = []
    if offender.max_bytes is not None:
        what.append(f"{offender.max_bytes:,} bytes, allowed: {bounds.max_bytes:,}")
    if offender.truncated_by:
        causes = ", ".join(f"{n:,} by {CAUSES[cause]}" for cause, n in offender.truncated_by.items())
        what.append(f"{sum(offender.truncated_by.values()):,} truncated ({causes})")
    return f"  {offender.task} ({offender.part}): {'; '.join(what)}"
