"""Bounds on a summary: which parts of which tasks are too big, or were truncated although none may be.

Pure: a summary goes in, ``Checked`` and its text come out. Options and exit codes are in ``commands.check``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.measuring.measurement import PARTS
from celery_argsize.views.advice_text import causes

if TYPE_CHECKING:
    from celery_argsize.figures.summary import Summary

#: Version of the JSON that ``Checked.to_json`` gives.
CHECK_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Offender:
    """A part of a task that is not within the bounds."""

    task: str
    part: str
    """``args`` or ``kwargs``."""
    max_bytes: int | None
    """UTF-8 bytes of the largest, where that is too much; else ``None``."""
    truncated: int
    """How many were truncated, where none may be; else 0."""
    truncated_by: dict[str, int]
    """The same by cause: ``size``, ``depth``, ``both``."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What is allowed, who is not within it, and what is not known."""

    max_bytes: int | None
    """UTF-8 bytes of compact JSON that a part may have; ``None``: any number."""
    no_truncation: bool
    """Whether no repr may be truncated."""
    total_tasks: int
    """Runs that were looked at."""
    unmeasurable: int
    """Parts of unknown size, where sizes are bound."""
    without_repr: int
    """Parts that came without a repr of Celery's making, where truncation is not allowed."""
    errors: int
    """Runs that were not measured because of an error in celery_argsize; not in *total_tasks*."""
    offenders: tuple[Offender, ...]
    """Largest task first."""
    names: int
    """How many task names were looked at."""

    @property
    def within(self) -> bool:
        """Whether all that is known is within the bounds. Where nothing was measured, nothing is proven."""
        return self.total_tasks > 0 and not self.offenders

    def to_json(self) -> dict[str, Any]:
        """The result as JSON-able data: docs/terminal.md."""
        data = {"schema": CHECK_SCHEMA, "within": self.within, **asdict(self)}
        del data["names"]
        return data


def check_summary(summary: Summary, *, max_bytes: int | None, no_truncation: bool) -> Checked:
    """Hold *summary* against the bounds; their meaning is that of the fields of ``Checked``."""
    offenders = []
    parts = [(task.name, part, getattr(task, part)) for task in summary.tasks for part in PARTS]
    for name, part, sizes in parts:
        too_big = max_bytes is not None and sizes.max_bytes > max_bytes
        cuts = {cause: n for cause, n in sizes.truncated_by.items() if n and no_truncation}
        if too_big or cuts:
            largest = sizes.max_bytes if too_big else None
            offenders.append(Offender(name, part, largest, sum(cuts.values()), cuts))
    return Checked(
        max_bytes,
        no_truncation,
        total_tasks=summary.total_tasks,
        unmeasurable=sum(sizes.unmeasurable for *_, sizes in parts) if max_bytes is not None else 0,
        without_repr=sum(sizes.custom + sizes.unknown for *_, sizes in parts) if no_truncation else 0,
        errors=summary.errors,
        offenders=tuple(offenders),
        names=len(summary.tasks),
    )


def check_text(checked: Checked) -> str:
    """*checked* as lines, for people."""
    notes = [
        f"Note: {text}: {number:,}"
        for number, text in (
            (checked.unmeasurable, "parts without a JSON form, whose size is not known"),
            (checked.without_repr, "parts that came without a repr of Celery's making, where nothing shows a cut"),
            (checked.errors, "runs that were not measured, for errors in celery_argsize"),
        )
        if number
    ]
    looked_at = f"(runs: {checked.total_tasks:,}, task names: {checked.names:,})"
    if checked.offenders:
        verdict = f"Not within the bounds {looked_at}:"
    else:
        verdict = f"All{' that is known' if notes else ''} is within the bounds {looked_at}."
    return "\n".join([verdict, *(_offense(offender, checked) for offender in checked.offenders), *notes])


def _offense(offender: Offender, checked: Checked) -> str:
    reasons = []
    if offender.max_bytes is not None:
        reasons.append(f"{offender.max_bytes:,} bytes, allowed: {checked.max_bytes:,}")
    if offender.truncated:
        reasons.append(f"{offender.truncated:,} truncated ({causes(offender.truncated_by)})")
    return f"  {offender.task} ({offender.part}): {'; '.join(reasons)}"
