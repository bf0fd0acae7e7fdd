"""What a check is, and what it says: a verdict with its reason, the figure it rests on, and the fix.

Pure data. What is looked at is gathered first (``facts``); a check's judge makes ``Outcome``s of that, and touches
nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery_argsize.doctor.facts import Facts

Verdict = Literal["ok", "unknown", "warn", "fail"]

#: Every verdict, the worst last.
VERDICTS: Final[tuple[Verdict, ...]] = ("ok", "unknown", "warn", "fail")


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


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at."""

    id: str
    """``group.name``, such as ``redis.clients``. docs/doctor.md has a section for each."""
    looks_at: str
    """What it looks at: ``connected_clients against maxclients``."""
    judge: Callable[[Facts], Outcome | Sequence[Outcome]]
    """May raise ``Unavailable``. Several outcomes where it looks at several servers, workers, …; maybe none."""
    vital: bool = False
    """Whether no task runs when it fails."""

    @property
    def group(self) -> str:
        """The part of the id before its dot."""
        return self.id.partition(".")[0]

    def outcomes(self, facts: Facts) -> list[Outcome]:
        """What it says of *facts*, as a list.

        Raises:
            Unavailable: what it needs could not be looked at.
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


#: Version of the JSON that ``Diagnosis.to_json`` gives.
DOCTOR_SCHEMA: Final = 1

#: What one check takes off the score.
_COSTS: Final[dict[Verdict, int]] = {"ok": 0, "unknown": 1, "warn": 5, "fail": 25}
_UNKNOWN_COSTS_AT_MOST: Final = 10

#: The least score for each word.
_WORDS: Final = ((95, "EXCELLENT"), (80, "GOOD"), (60, "FAIR"), (30, "POOR"), (0, "CRITICAL"))

#: Exit codes by worst verdict, those of the Monitoring Plugins guidelines (Nagios, Icinga, Sensu).
EXIT_CODES: Final[dict[Verdict, int]] = {"ok": 0, "warn": 1, "fail": 2, "unknown": 3}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What ``diagnose`` gives."""

    app: str
    """Name of the app; empty if none was given."""
    time: float
    """Seconds since the epoch."""
    results: tuple[CheckResult, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of all verdicts; ``unknown`` where nothing was checked."""
        return max((one.outcome.verdict for one in self.results), key=VERDICTS.index, default="unknown")

    @property
    def checks(self) -> dict[str, Verdict]:
        """Check → its verdict; the worst one where it looked at several subjects."""
        worst: dict[str, Verdict] = {}
        for one in self.results:
            known = worst.get(one.check.id, "ok")
            worst[one.check.id] = max(known, one.outcome.verdict, key=VERDICTS.index)
        return worst

    @property
    def counts(self) -> dict[Verdict, int]:
        """Verdict → how many checks."""
        found = Counter(self.checks.values())
        return {verdict: found[verdict] for verdict in reversed(VERDICTS)}

    @property
    def score(self) -> int | None:
        """From 0 to 100; the rule is at the top of this module. ``None`` where too little could be looked at."""
        if any(one.check.vital and one.outcome.verdict == "fail" for one in self.results):
            return 0
        counts = self.counts
        if 2 * counts["unknown"] > sum(counts.values()) or not self.results:
            return None
        taken = {verdict: _COSTS[verdict] * count for verdict, count in counts.items()}
        taken["unknown"] = min(taken["unknown"], _UNKNOWN_COSTS_AT_MOST)
        return max(0, 100 - sum(taken.values()))

    @property
    def health(self) -> str:
        """The score as a word: EXCELLENT from 95, GOOD from 80, FAIR from 60, POOR from 30, else CRITICAL.

        Without a score it is UNKNOWN, or CRITICAL where something fails.
        """
        score = self.score
        if score is None:
            return "CRITICAL" if self.counts["fail"] else "UNKNOWN"
        return next(word for least, word in _WORDS if score >= least)

    @property
    def exit_code(self) -> int:
        """0: all is well, 1: something warns, 2: something fails, 3: nothing of both, but something is unknown."""
        return EXIT_CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """As JSON-able data: docs/doctor.md."""
        return {
            "schema": DOCTOR_SCHEMA,
            "app": self.app,
            "time": self.time,
            "verdict": self.verdict,
            "health": self.health,
            "score": self.score,
            "exit_code": self.exit_code,
            "counts": self.counts,
            "checks": [one.to_json() for one in self.results],
        }
