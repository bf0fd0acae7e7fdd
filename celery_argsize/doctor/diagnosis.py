"""All that the checks said, and the health that follows from it: the score, its word, the exit code. Pure.

The rule, as in docs/doctor.md: 100, less 25 for each check that fails, 5 for each that warns, and 1 for each that could
not look (10 for these at most). Where a vital check fails no task runs, and nothing is left. Where more than half of
the checks could not look there is no score.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.doctor.checks import VERDICTS

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import CheckResult, Verdict

__all__ = ["EXIT_CODES", "Diagnosis"]

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
