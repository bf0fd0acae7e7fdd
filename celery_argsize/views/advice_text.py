"""Advice in words: as a text of its own, in short for the report, and for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from celery_argsize.figures.counters import OTHER
from celery_argsize.measuring.cuts import CAUSES
from celery_argsize.words import counted, size, when

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.advice.advice import Advice, Cost, PartAdvice, TaskAdvice

_APP: Final = {
    "apply": "APPLY these limits, for all tasks",
    "apply_only": "APPLY ONLY FOR THESE TASKS",
    "pass_reference": "DON'T raise a limit: pass a reference",
    "short_argsrepr": "DON'T raise a limit: give a short argsrepr",
    "too_few": "WAIT: too few runs were seen",
    "nothing": "NOTHING TO DO",
}
_TASK: Final = {
    "apply": "raise the limit for all tasks",
    "apply_only": "raise the limit for this task",
    "pass_reference": "don't raise the limit; pass a reference",
    "short_argsrepr": "don't raise the limit; give a short argsrepr",
    "too_few": "wait, too few runs were seen",
}


def advice_text(advice: Advice) -> str:
    """The text of ``argsize recommend``."""
    lines = ["=== CELERY REPR ADVICE ===", f"Verdict: {_APP[advice.verdict]}"]
    lines += [f"  {reason}" for reason in advice.reasons]
    if advice.truncated:
        lines.append(f"Truncated reprs: {_cured(advice)}")
    if advice.tasks:
        thumb = advice.rule_of_thumb
        tier = f"tier {thumb.tier_name} ({thumb.tier:,})" if thumb.tier else "no tier"
        rule = "The guide's rule of thumb, from JSON sizes alone"
        lines += ["", f"{rule}: limit {thumb.limit:,} characters, {tier}"]
        if advice.against_the_guide:
            lines.append(f"  DON'T: {advice.against_the_guide}")
    for task in advice.tasks:
        lines += ["", f"{task.name}: {task_verdict(task)}"]
        lines += [f"  {fact}" for fact in task_facts(task)]
        lines += [f"    {line}" for line in task_lines(task)]
    if advice.lines:
        lines += ["", "To paste:", *(f"    {line}" for line in advice.lines)]
    return "\n".join([*lines, "", _basis(advice)])


def short_advice(advice: Advice) -> list[str]:
    """Lines for the report: the app's verdict and reasons, then each task's."""
    verdict, cured = app_verdict(advice)
    lines = [f"What cures it: {verdict}" + (f" ({cured})" if cured else "")]
    lines += [f"  {reason}" for reason in app_reasons(advice)]
    for task in advice.tasks:
        reason = f" ({task.reasons[0]})" if task.reasons else ""
        lines.append(f"  {task.name}: {task_verdict(task)}{reason}")
    return lines


def app_verdict(advice: Advice) -> tuple[str, str]:
    """What to do, and what that cures; empty if no limit is to be raised."""
    return _APP[advice.verdict], _cured(advice) if advice.verdict in {"apply", "apply_only"} else ""


def app_reasons(advice: Advice) -> list[str]:
    """Why, and why not the guide's tier."""
    against = advice.against_the_guide
    return [*advice.reasons, *([f"not the tier above: {against}"] if against else [])]


def task_verdict(task: TaskAdvice) -> str:
    """What to do about *task*."""
    return "no advice of its own" if task.name == OTHER else _TASK[task.verdict]


def task_facts(task: TaskAdvice) -> list[str]:
    """Why, what was seen, what limits do and cost. Details are indented."""
    advised = task.limits is not None
    lines = [*task.reasons, f"runs: {task.count:,}, of which {task.truncated:,} with a truncated repr"]
    for part in task.parts:
        lines += _part(part, advised=advised)
    return lines + _cost(task.cost, advised=advised) if task.cost else lines


def task_lines(task: TaskAdvice) -> tuple[str, ...]:
    """Python to paste for *task*, if its limit is not to be raised."""
    return task.lines if task.verdict in {"pass_reference", "short_argsrepr"} else ()


def causes(truncated_by: Mapping[str, int]) -> str:
    """Why reprs were truncated: ``12 by size, 3 by size and depth``."""
    return ", ".join(f"{number:,} by {CAUSES[cause]}" for cause, number in truncated_by.items() if number)


def _cured(advice: Advice) -> str:
    return f"of {advice.truncated:,} seen truncated, {advice.cured:,} would be whole"


def _part(part: PartAdvice, *, advised: bool) -> list[str]:
    """What was seen of one part. *advised*: whether its limit is."""
    need = f"{part.need_max:,} characters at most, {part.need_p99:,} at p99; {counted(part.levels, 'level')}"
    lines = [f"{part.part}: {part.truncated:,} truncated ({causes(part.truncated_by)}); need: {need}"]
    if part.limit is not None:
        leaves = "leaves" if advised else "would leave"
        lines.append(f"  limit {part.limit:,} {leaves} {part.cured:,} of them whole")
    if part.p99_limit is not None:
        p99 = f"  limit {part.p99_limit:,} would leave {part.p99_cured:,} of them whole"
        lines.append(f"{p99} (without the largest 1 %)")
    return lines


def _cost(cost: Cost, *, advised: bool) -> list[str]:
    a_day = "" if cost.extra_bytes_a_day is None else f", {size(cost.extra_bytes_a_day)} a day"
    extra = f"{'costs' if advised else 'would cost'}: {size(cost.extra_bytes)} more a truncated message{a_day}"
    lines = [f"{extra} (the message takes about {size(cost.message_bytes)} now)"]
    if cost.publish_seconds is not None and cost.publish_seconds_max is not None:
        mean, most = cost.publish_seconds * 1000, cost.publish_seconds_max * 1000
        lines.append(f"  publishing it takes {mean:,.2f} ms longer on average, {most:,.2f} ms for the largest")
    return lines


def _basis(advice: Advice) -> str:
    broker = advice.broker
    source = broker.source or "limits of this broker are not known"
    period = ""
    if advice.since is not None and advice.updated is not None:
        period = f" from {when(advice.since)} to {when(advice.updated)}"
    return (
        f"From {counted(advice.total_tasks, 'run')}{period}. Broker: {broker.name} ({source}). "
        f"Celery: {advice.celery_version or 'version not known'}. Limits act where tasks are sent from."
    )
