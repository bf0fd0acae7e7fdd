"""What a check is, and what it says: a verdict with its reason, the figure it rests on, and the fix.

Pure data. What is looked at is gathered first (``facts``); a check's judge makes ``Outcome``s of that, and touches
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery_argsize.doctor.facts import Facts

__all__ = [
    "VERDICTS",
    "Check",
    "CheckResult",
    "NotKnown",
    "Outcome",
    "Verdict",
    "counted",
    "fail",
    "ok",
    "unknown",
    "warn",
]

Verdict = Literal["ok", "unknown", "warn", "fail"]

#: Every verdict, the worst last.
VERDICTS: Final[tuple[Verdict, ...]] = ("ok", "unknown", "warn", "fail")


class NotKnown(Exception):  # noqa: N818 - not an error: an answer
    """What a check needs could not be looked at; the text says why."""


class Outcome(NamedTuple):
    """What a judge says."""

    verdict: Verdict
    reason: str
    """A sentence: what that means, for who reads it at night."""
    figure: str = ""
    """What was found, with its unit: ``19 of 20 clients``."""
    fix: str = ""
    """What to paste or to do, lines; empty where nothing needs doing."""
    subject: str = ""
    """What it is about, where a check looks at several: a Redis, a worker, a queue."""


def ok(reason: str, figure: str = "", subject: str = "") -> Outcome:
    """All is well."""
    return Outcome("ok", reason, figure, "", subject)


def warn(reason: str, figure: str = "", *, fix: str, subject: str = "") -> Outcome:
    """This will be trouble."""
    return Outcome("warn", reason, figure, fix, subject)


def fail(reason: str, figure: str = "", *, fix: str, subject: str = "") -> Outcome:
    """This is trouble."""
    return Outcome("fail", reason, figure, fix, subject)


def unknown(reason: str, *, fix: str = "", subject: str = "") -> Outcome:
    """It could not be looked at; *reason* says why."""
    return Outcome("unknown", reason, "", fix, subject)


def counted(number: int, what: str) -> str:
    """How many of *what*, a word in the singular: ``1 run``, ``1,234 runs``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at."""

    id: str
    """``group.name``, such as ``redis.clients``. docs/doctor.md has a section for each."""
    looks_at: str
    """What it looks at: ``connected_clients against maxclients``."""
    judge: Callable[[Facts], Outcome | Sequence[Outcome]]
    """May raise ``NotKnown``. Several outcomes where it looks at several servers, workers, …; maybe none."""
    vital: bool = False
    """Whether no task runs when it fails."""

    @property
    def group(self) -> str:
        """The part of the id before its dot."""
        return self.id.partition(".")[0]

    def outcomes(self, facts: Facts) -> list[Outcome]:
        """What it says of *facts*, as a list.

        Raises:
            NotKnown: what it needs could not be looked at.
        """
        said = self.judge(facts)
        return [said] if isinstance(said, Outcome) else [*said]

    @property
    def docs(self) -> str:
        """Where it is explained: a file of the repository, and the anchor that Git hosts make of the heading."""
        return f"docs/doctor.md#{self.id.replace('.', '')}"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check said of one subject."""

    check: Check
    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "id": self.check.id,
            "group": self.check.group,
            "subject": self.outcome.subject,
            "looks_at": self.check.looks_at,
            "verdict": self.outcome.verdict,
            "reason": self.outcome.reason,
            "figure": self.outcome.figure,
            "fix": self.outcome.fix,
            "docs": self.check.docs,
            "vital": self.check.vital,
        }
