"""A diagnosis as text for people. Pure."""

from __future__ import annotations

import textwrap
from itertools import groupby
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.checks import VERDICTS
from celery_argsize.words import printable, table, when

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import CheckResult, Diagnosis, Outcome, Verdict

_SIGNS: Final[dict[Verdict, str]] = {"fail": "FAIL", "warn": "WARN", "unknown": "unknown", "ok": "ok"}

#: Color of the lines that begin with this word, for ``click.style``.
COLORS: Final = {"FAIL": "red", "WARN": "yellow"}


def diagnosis_text(diagnosis: Diagnosis, *, width: int | None = None, quiet: bool = False) -> str:
    """The worst first; *quiet* leaves out what is well.

    Sentences are wrapped in *width* columns; lines to paste are not.
    """
    by: dict[Verdict, list[CheckResult]] = {verdict: [] for verdict in VERDICTS}
    for result in diagnosis.results:
        by[result.outcome.verdict].append(result)
    alarms = [
        [*_lines(result.outcome, result.check.id), f"  see {result.check.docs}"] for result in by["fail"] + by["warn"]
    ]
    blocks = [_headline(diagnosis), *alarms, _unknown(by["unknown"]), [] if quiet else _well(by["ok"])]
    return "\n\n".join("\n".join(_wrapped(block, width)) for block in blocks if block)


def _headline(diagnosis: Diagnosis) -> list[str]:
    checks = diagnosis.counts
    counts = ", ".join(f"{count} {_SIGNS[verdict]}" for verdict, count in checks.items() if count)
    app = f" of {printable(diagnosis.app)}" if diagnosis.app else ""
    score = "" if diagnosis.score is None else f" ({diagnosis.score} of 100)"
    total = f"{sum(checks.values())} checks: {counts}. {when(diagnosis.time)}"
    return [f"SYSTEM HEALTH{app}: {diagnosis.health}{score}", total]


def _unknown(results: list[CheckResult]) -> list[str]:
    """Checks in a row that have one reason share a line."""
    groups = groupby(results, key=lambda result: result.outcome)
    return [line for outcome, group in groups for line in _lines(outcome, *(result.check.id for result in group))]


def _lines(outcome: Outcome, *checks: str) -> list[str]:
    """What *checks* say, and the lines of the fix, indented."""
    fix = [f"  {printable(line)}" for line in outcome.fix.splitlines()]
    return [f"{_SIGNS[outcome.verdict]} {', '.join(checks)}{_about(outcome)}: {_sentence(outcome)}", *fix]


def _well(results: list[CheckResult]) -> list[str]:
    """A line for each, with its subject where that differs from the one before."""
    rows, before = [], ""
    for result in results:
        outcome = result.outcome
        about = _about(outcome) if outcome.subject != before else ""
        rows.append((f"{_SIGNS['ok']} {result.check.id}", _sentence(outcome) + about))
        before = outcome.subject
    return [line.removeprefix("  ") for line in table(rows, right=False)] if rows else []


def _wrapped(lines: list[str], width: int | None) -> list[str]:
    """*lines*, those that are not indented in *width* columns."""
    if width is None:
        return lines
    wrap = textwrap.TextWrapper(width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return [part for line in lines for part in ([line] if line.startswith("  ") else wrap.wrap(line))]


def _about(outcome: Outcome) -> str:
    return f" ({printable(outcome.subject)})" if outcome.subject else ""


def _sentence(outcome: Outcome) -> str:
    figure, reason = printable(outcome.figure), printable(outcome.reason)
    # a capital, unless it begins with the name of a setting
    if reason.partition(" ")[0].isalpha():
        reason = reason[0].upper() + reason[1:]
    if reason and reason[-1] not in ".?!)":
        reason += "."
    return f"{figure}: {reason}" if figure and reason else figure or reason
