"""What a check is and says; how all of them become a verdict, a score and an exit code.

Pure data. The checks themselves are in ``doctor.judge``.

The score is 100, less 25 for each check that fails, 5 for each that warns and 1 for
each that is unknown (at most 10 for these). A check of several subjects counts
once, by its worst verdict. The score is 0 where a vital check fails. There is none
where over half of the checks are unknown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery_argsize.doctor.facts import Facts

Verdict = Literal["ok", "unknown", "warn", "fail"]

#: Every verdict, the worst last.
VERDICTS: Final[tuple[Verdict, ...]] = ("ok", "unknown", "warn", "fail")
#: Exit codes of the Monitoring Plugins guidelines (Nagios, Icinga, Sensu).
EXIT_CODES: Final[dict[Verdict, int]] = {"ok": 0, "warn": 1, "fail": 2, "unknown": 3}
#: The least score for each word.
_HEALTH: Final = ((95, "EXCELLENT"), (80, "GOOD"), (60, "FAIR"), (30, "POOR"), (0, "CRITICAL"))
#: Version of the JSON that ``Diagnosis.to_json`` gives.
DOCTOR_SCHEMA: Final = 1


class Outcome(NamedTuple):
    """What a check says of one subject."""

    verdict: Verdict
    reason: str
    figure: str = ""
    """What was seen, with its unit: ``19 of 20 clients``."""
    fix: str = ""
    """Lines to paste."""
    subject: str = ""
    """The server, worker, queue or host; empty: all of them."""


#: All is well.
ok: Final = partial(Outcome, "ok")
#: It will go wrong.
warn: Final = partial(Outcome, "warn")
#: It is wrong now.
fail: Final = partial(Outcome, "fail")
#: It could not be looked at. The reason says why.
unknown: Final = partial(Outcome, "unknown")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the doctor judges."""

    id: str
    """``group.name``, such as ``redis.clients``."""
    looks_at: str
    judge: Callable[[Facts], Outcome | Iterable[Outcome]]
    """Gives one outcome, or any number of them. May raise ``Unavailable``."""
    vital: bool = False
    """Whether no task can run if it fails without a subject."""

    @property
    def docs(self) -> str:
        """Its section of the documentation."""
        return f"docs/doctor.md#{self.id.replace('.', '')}"

    def outcomes(self, facts: Facts) -> list[Outcome]:
        """What it says of *facts*; raises ``Unavailable`` if it cannot be looked at."""
        judged = self.judge(facts)
        return [judged] if isinstance(judged, Outcome) else [*judged]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One outcome, and the check that gave it."""

    check: Check
    outcome: Outcome

    @property
    def vital(self) -> bool:
        """Whether no task runs if this outcome is a failure."""
        return self.check.vital and not self.outcome.subject

    def to_json(self) -> dict[str, Any]:
        """As JSON-able data."""
        check, group = self.check, self.check.id.partition(".")[0]
        names = {"id": check.id, "group": group, "looks_at": check.looks_at}
        return {**names, **self.outcome._asdict(), "docs": check.docs, "vital": self.vital}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What ``diagnose`` gives."""

    app: str
    """Name of the app; empty if none was given."""
    time: float
    """Seconds since the epoch."""
    results: tuple[CheckResult, ...]

    @property
    def counts(self) -> dict[Verdict, int]:
        """Verdict → number of checks, the worst verdict first."""
        worst: dict[str, Verdict] = {}
        for result in self.results:
            name, verdict = result.check.id, result.outcome.verdict
            worst[name] = max(worst.get(name, "ok"), verdict, key=VERDICTS.index)
        counter = Counter(worst.values())
        return {verdict: counter[verdict] for verdict in reversed(VERDICTS)}

    @property
    def verdict(self) -> Verdict:
        """The worst of all verdicts; ``unknown`` where nothing was checked."""
        return next((verdict for verdict, count in self.counts.items() if count), "unknown")

    @property
    def exit_code(self) -> int:
        """By the worst verdict: 0 ok, 1 warn, 2 fail, 3 unknown."""
        return EXIT_CODES[self.verdict]

    @property
    def score(self) -> int | None:
        """From 0 to 100, by the rule at the top of this module."""
        if any(result.vital and result.outcome.verdict == "fail" for result in self.results):
            return 0
        counts = self.counts
        if not self.results or 2 * counts["unknown"] > sum(counts.values()):
            return None
        return max(0, 100 - 25 * counts["fail"] - 5 * counts["warn"] - min(10, counts["unknown"]))

    @property
    def health(self) -> str:
        """The score as a word. Without one: CRITICAL if a check fails, else UNKNOWN."""
        score = self.score
        if score is None:
            return "CRITICAL" if self.counts["fail"] else "UNKNOWN"
        return next(word for least, word in _HEALTH if score >= least)

    def to_json(self) -> dict[str, Any]:
        """As JSON-able data: docs/doctor.md."""
        names = ("app", "time", "verdict", "health", "score", "exit_code", "counts")
        values = {name: getattr(self, name) for name in names}
        return {"schema": DOCTOR_SCHEMA, **values, "checks": [result.to_json() for result in self.results]}
