"""``argsize check``: which parts of which tasks break a bound on size or truncation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from celery_argsize.figures.summary import Summary, only
from celery_argsize.measuring.measurement import PARTS
from celery_argsize.views.advice_text import causes

#: Version of the JSON that ``Checked.to_json`` gives.
CHECK_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Offender:
    """One part (args or kwargs) of a task that breaks a bound."""

    task: str
    part: str
    max_bytes: int | None
    """Its largest size, if that is over the bound."""
    truncated: int
    """Truncated reprs, if none is allowed."""
    truncated_by: dict[str, int]


@dataclass(frozen=True, slots=True)
class Checked:
    """The bounds and the parts that break them; docs/terminal.md explains each field."""

    max_bytes: int | None
    no_truncation: bool
    total_tasks: int
    unmeasurable: int
    without_repr: int
    errors: int
    offenders: tuple[Offender, ...]
    """Largest task first."""

    @property
    def within(self) -> bool:
        """Whether something was measured, and nothing breaks a bound."""
        return self.total_tasks > 0 and not self.offenders

    def to_json(self) -> dict[str, Any]:
        """The result for JSON."""
        return {"schema": CHECK_SCHEMA, "within": self.within, **asdict(self)}


def of_tasks(summary: Summary, names: tuple[str, ...]) -> Summary:
    """*summary* of only the tasks in *names*."""
    return only(summary, lambda name: name in names)


def check_summary(summary: Summary, *, max_bytes: int | None, no_truncation: bool) -> Checked:
    """Check the tasks of *summary* against the bounds.

    *max_bytes*: UTF-8 bytes of compact JSON allowed to a part; ``None``: any number.
    """
    offenders, unmeasurable, without_repr = [], 0, 0
    for task in summary.tasks:
        for name in PARTS:
            part = getattr(task, name)
            largest = part.max_bytes if max_bytes is not None and part.max_bytes > max_bytes else None
            cuts = {cause: cut for cause, cut in part.truncated_by.items() if cut and no_truncation}
            if largest is not None or cuts:
                offenders.append(Offender(task.name, name, largest, sum(cuts.values()), cuts))
            unmeasurable += part.unmeasurable if max_bytes is not None else 0
            without_repr += part.custom + part.unknown if no_truncation else 0
    runs, errors = summary.total_tasks, summary.errors
    return Checked(max_bytes, no_truncation, runs, unmeasurable, without_repr, errors, tuple(offenders))


def check_text(checked: Checked, names: int) -> str:
    """*checked* as people read it; *names*: how many task names it covers."""
    notes = {
        "parts without a JSON form, whose size is not known": checked.unmeasurable,
        "parts that came without a repr of Celery's making, where nothing shows a cut": checked.without_repr,
        "runs that were not measured, for errors in celery_argsize": checked.errors,
    }
    noted = [f"Note: {note}: {number:,}" for note, number in notes.items() if number]
    looked_at = f"(runs: {checked.total_tasks:,}, task names: {names:,})"
    lines = [f"All{' that is known' if noted else ''} is within the bounds {looked_at}."]
    if checked.offenders:
        lines = [f"Not within the bounds {looked_at}:"]
    for offender in checked.offenders:
        reasons = []
        if offender.max_bytes is not None:
            reasons.append(f"{offender.max_bytes:,} bytes, allowed: {checked.max_bytes:,}")
        if offender.truncated:
            reasons.append(f"{offender.truncated:,} truncated ({causes(offender.truncated_by)})")
        lines.append(f"  {offender.task} ({offender.part}): {'; '.join(reasons)}")
    return "\n".join([*lines, *noted])
