"""Advice as people read it: ``celery argsize recommend``, and its short form in the report.

Pure: texts out, nothing printed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from celery_argsize.figures.counters import OTHER
from celery_argsize.measuring.cuts import CAUSES

if TYPE_CHECKING:
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
    """The whole of it."""
    blocks = [_verdict(advice), _thumb(advice), *(_task(task) for task in advice.tasks)]
    if advice.lines:
        blocks.append(["To paste:", *(f"    {line}" for line in advice.lines)])
    blocks.append([_basis(advice)])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def short_advice(advice: Advice) -> list[str]:
    """The verdicts, a line each; for the report."""
    verdict, cured = app_verdict(advice)
    lines = [f"What cures it: {verdict}" + (f" ({cured})" if cured else "")]
    lines += [f"  {reason}" for reason in app_reasons(advice)]
    lines += [f"  {task.name}: {task_verdict(task)}{_first(task)}" for task in advice.tasks]
    return lines


def app_verdict(advice: Advice) -> tuple[str, str]:
    """What to do, and what that cures; the latter is empty where nothing is to be applied."""
    applies = advice.verdict in {"apply", "apply_only"}
    return _APP[advice.verdict], _cured(advice.cured, advice.truncated) if applies else ""


def app_reasons(advice: Advice) -> list[str]:
    """Why, and why not the tier of the guide."""
    against = advice.against_the_guide
    return [*advice.reasons, *([f"not the tier above: {against}"] if against else [])]


def task_verdict(task: TaskAdvice) -> str:
    """What to do for *task*."""
    return "no advice of its own" if task.name == OTHER else _TASK[task.verdict]


def _first(task: TaskAdvice) -> str:
    return f" ({task.reasons[0]})" if task.reasons else ""


def _verdict(advice: Advice) -> list[str]:
    lines = ["=== CELERY REPR ADVICE ===", f"Verdict: {_APP[advice.verdict]}"]
    lines += [f"  {reason}" for reason in advice.reasons]
    if advice.truncated:
        lines.append(f"Truncated reprs: {_cured(advice.cured, advice.truncated)}")
    return lines


def _cured(cured: int, truncated: int) -> str:
    return f"of {truncated:,} seen truncated, {cured:,} would be whole"


def _thumb(advice: Advice) -> list[str]:
    if not advice.tasks:
        return []
    thumb = advice.rule_of_thumb
    tier = f"tier {thumb.tier_name} ({thumb.tier:,})" if thumb.tier else "no tier"
    lines = [f"The guide's rule of thumb, from JSON sizes alone: limit {thumb.limit:,} characters, {tier}"]
    return [*lines, f"  DON'T: {advice.against_the_guide}"] if advice.against_the_guide else lines


def _task(task: TaskAdvice) -> list[str]:
    lines = [f"{task.name}: {task_verdict(task)}", *(f"  {fact}" for fact in task_facts(task))]
    if task.verdict in {"pass_reference", "short_argsrepr"}:
        lines += [f"    {line}" for line in task.lines]
    return lines


def task_facts(task: TaskAdvice) -> list[str]:
    """Why, what was seen, and what limits would do and cost; a line that goes with the one before it is indented."""
    lines = [*task.reasons, f"runs: {task.count:,}, of which {task.truncated:,} with a truncated repr"]
    lines += [line for part in task.parts for line in _part(part, sure=task.limits is not None)]
    return lines + (_cost(task.cost, sure=task.limits is not None) if task.cost is not None else [])


def _part(part: PartAdvice, *, sure: bool) -> list[str]:
    causes = ", ".join(f"{n:,} by {CAUSES[cause]}" for cause, n in part.truncated_by.items() if n)
    need = f"need: {part.need_max:,} characters at most, {part.need_p99:,} at p99; {part.levels} {_levels(part.levels)}"
    lines = [f"{part.part}: {part.truncated:,} truncated ({causes}); {need}"]
    if part.limit is not None:
        would = "leaves" if sure else "would leave"
        lines.append(f"  limit {part.limit:,} {would} {part.cured:,} of them whole")
    if part.p99_limit is not None:
        lines.append(
            f"  limit {part.p99_limit:,} would leave {part.p99_cured:,} of them whole (without the largest 1 %)"
        )
    return lines


def _levels(count: int) -> str:
    return "level" if count == 1 else "levels"


def _cost(cost: Cost, *, sure: bool) -> list[str]:
    a_day = "" if cost.extra_bytes_a_day is None else f", {_bytes(cost.extra_bytes_a_day)} a day"
    costs = "costs" if sure else "would cost"
    line = f"{costs}: {_bytes(cost.extra_bytes)} more a truncated message{a_day}"
    lines = [f"{line} (the message takes about {_bytes(cost.message_bytes)} now)"]
    if cost.publish_seconds is not None and cost.publish_seconds_max is not None:
        mean, most = cost.publish_seconds * 1000, cost.publish_seconds_max * 1000
        lines.append(f"  publishing it takes {mean:,.2f} ms longer on average, {most:,.2f} ms for the largest")
    return lines


def _bytes(number: float) -> str:
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if abs(number) >= unit:
            return f"{number / unit:,.1f} {name}"
    return f"{number:,.0f} bytes"


def _basis(advice: Advice) -> str:
    broker = advice.broker
    takes = broker.source or ("limits of this broker are not known" if not broker.known else "")
    period = ""
    if advice.since is not None and advice.updated is not None:
        period = f" from {_when(advice.since)} to {_when(advice.updated)}"
    return (
        f"From {advice.total_tasks:,} runs{period}. Broker: {broker.name} ({takes}). "
        f"Celery: {advice.celery_version or 'version not known'}. Limits act where tasks are sent from."
    )


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
