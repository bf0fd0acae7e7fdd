"""A diagnosis as people read it: the health, what is wrong with its fix, what is not known, and what is well. Pure."""

from __future__ import annotations

import textwrap
from itertools import groupby
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.checks import VERDICTS
from celery_argsize.words import printable, table, when

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import CheckResult, Diagnosis, Verdict

_SIGNS: Final[dict[Verdict, str]] = {"fail": "FAIL", "warn": "WARN", "unknown": "unknown", "ok": "ok"}

#: For click.style: the color of the lines that begin so.
COLORS: Final = {"FAIL": "red", "WARN": "yellow"}


def diagnosis_text(diagnosis: Diagnosis, *, width: int | None = None, quiet: bool = False) -> str:
    """The whole of it, the worst first; *quiet* leaves out what is well.

    *width*: of the terminal, if it is for one; what is to be pasted may be longer.
    """
    of = {verdict: [one for one in diagnosis.results if one.outcome.verdict == verdict] for verdict in VERDICTS}
    blocks = [
        _headline(diagnosis),
        *(_failures(one, width) for one in (*of["fail"], *of["warn"])),
        _not_known(of["unknown"], width),
        [] if quiet else _well(of["ok"], width),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _headline(diagnosis: Diagnosis) -> list[str]:
    counts = ", ".join(f"{count} {_SIGNS[verdict]}" for verdict, count in diagnosis.counts.items() if count)
    app = f" of {printable(diagnosis.app)}" if diagnosis.app else ""
    score = "" if diagnosis.score is None else f" ({diagnosis.score} of 100)"
    return [
        f"SYSTEM HEALTH{app}: {diagnosis.health}{score}",
        f"{len(diagnosis.checks)} checks: {counts}. {when(diagnosis.time)}",
    ]


def _failures(one: CheckResult, width: int | None) -> list[str]:
    outcome = one.outcome
    lines = _wrapped(f"{_SIGNS[outcome.verdict]} {one.check.id}{_about(one)}: {_sentence(one)}", width)
    lines += [f"  {line}" for line in _printable(outcome.fix)]
    return [*lines, f"  see {one.check.docs}"]


def _not_known(results: list[CheckResult], width: int | None) -> list[str]:
    """One line for each reason: where a Redis is away, twenty checks say the same."""
    lines = []
    for reason, group in groupby(results, key=lambda one: (one.outcome.reason, one.outcome.subject, one.outcome.fix)):
        same = [*group]
        names = ", ".join(one.check.id for one in same)
        lines += _wrapped(f"{_SIGNS['unknown']} {names}{_about(same[0])}: {_as_sentence(reason[0])}", width)
        lines += [f"  {line}" for line in _printable(reason[2])]
    return lines


def _well(results: list[CheckResult], width: int | None) -> list[str]:
    """A line each; what several in a row are about is said once."""
    before = ["", *(one.outcome.subject for one in results)]
    rows = [
        (f"{_SIGNS['ok']} {one.check.id}", _sentence(one) + (_about(one) if one.outcome.subject != known else ""))
        for one, known in zip(results, before, strict=False)
    ]
    lines = [line.removeprefix("  ") for line in table(rows, right=False)] if rows else []
    return [part for line in lines for part in _wrapped(line, width)]


def _wrapped(line: str, width: int | None) -> list[str]:
    """*line* in the *width* of a terminal."""
    if width is None:
        return [line]
    return textwrap.wrap(line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _about(one: CheckResult) -> str:
    return f" ({printable(one.outcome.subject)})" if one.outcome.subject else ""


def _sentence(one: CheckResult) -> str:
    figure, reason = printable(one.outcome.figure), _as_sentence(one.outcome.reason)
    return f"{figure}: {reason}" if figure and reason else figure or reason


def _as_sentence(text: str) -> str:
    """*text* with a capital, unless it begins with a name such as of a setting, and with its period."""
    text = printable(text)
    if text.partition(" ")[0].isalpha():
        text = text[0].upper() + text[1:]
    return text if not text or text[-1] in ".?!)" else f"{text}."


def _printable(text: str) -> list[str]:
    return [printable(line) for line in text.splitlines()]
