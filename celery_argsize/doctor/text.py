"""A diagnosis as text for people. Pure."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.checks import VERDICTS
from celery_argsize.words import printable, table, when

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import CheckResult, Diagnosis, Outcome

#: Color of the lines that begin with this word, for ``click.style``.
COLORS: Final = {"FAIL": "red", "WARN": "yellow"}


def diagnosis_text(diagnosis: Diagnosis, *, width: int | None = None, quiet: bool = False) -> str:
    """The worst first; *quiet* leaves out what is well.

    Sentences are wrapped in *width* columns; lines to
    paste, which are indented, are not.
    """
    by: dict[str, list[CheckResult]] = {verdict: [] for verdict in VERDICTS}
    for result in diagnosis.results:
        by[result.outcome.verdict].append(result)
    blocks = [_headline(diagnosis)]
    for result in by["fail"] + by["warn"]:
        see = f"  see {result.check.docs}"
        blocks.append([*_lines(result.outcome, result.check.id), see])
    blocks += [_unknown(by["unknown"]), [] if quiet else _well(by["ok"])]
    text = "\n\n".join("\n".join(block) for block in blocks if block)
    return "\n".join(_wrapped(line, width) for line in text.splitlines())


def _wrapped(line: str, width: int | None) -> str:
    if width is None or line.startswith("  "):
        return line
    return fill(line, width, subsequent_indent="    ", break_long_words=False)


def _headline(diagnosis: Diagnosis) -> list[str]:
    checks = diagnosis.counts
    counts = ", ".join(f"{count} {_sign(verdict)}" for verdict, count in checks.items() if count)
    app = f" of {printable(diagnosis.app)}" if diagnosis.app else ""
    score = "" if diagnosis.score is None else f" ({diagnosis.score} of 100)"
    total = f"{sum(checks.values())} checks: {counts}. {when(diagnosis.time)}"
    return [f"SYSTEM HEALTH{app}: {diagnosis.health}{score}", total]


def _unknown(results: list[CheckResult]) -> list[str]:
    """Checks with one reason share a line."""
    groups: dict[Outcome, list[str]] = {}
    for result in results:
        groups.setdefault(result.outcome, []).append(result.check.id)
    return [line for outcome, checks in groups.items() for line in _lines(outcome, *checks)]


def _lines(outcome: Outcome, *checks: str) -> list[str]:
    """What *checks* say, and the lines of the fix, indented."""
    fix = [f"  {printable(line)}" for line in outcome.fix.splitlines()]
    title = f"{_sign(outcome.verdict)} {', '.join(checks)}{_about(outcome)}"
    return [f"{title}: {_sentence(outcome)}", *fix]


def _well(results: list[CheckResult]) -> list[str]:
    """A line for each, with its subject where that differs from the one before."""
    rows, before = [], ""
    for result in results:
        outcome = result.outcome
        about = _about(outcome) if outcome.subject != before else ""
        rows.append((f"ok {result.check.id}", _sentence(outcome) + about))
        before = outcome.subject
    return [line.removeprefix("  ") for line in table(rows, right=False)] if rows else []


def _sign(verdict: str) -> str:
    return verdict.upper() if verdict in {"fail", "warn"} else verdict


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
