"""Are the limits in force where messages come from: what each host's own messages show, held against what is wanted.

Pure: sightings and wanted limits in, findings out. A host that has sent nothing that tells is said to be just that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from celery_argsize.figures.origins import SEEN
from celery_argsize.words import when

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery_argsize.advice.advice import ReprLimits
    from celery_argsize.figures.origins import Sighting

Verdict = Literal["in_force", "not_in_force", "no_evidence"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one header shows."""

    task: str
    part: str
    """``args`` or ``kwargs``."""
    agrees: bool
    """Whether it is what the wanted limits give."""
    text: str
    time: float
    """When it was seen, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class HostCheck:
    """One host that sends messages."""

    host: str
    seen: float
    """When its last message was, in seconds since the epoch."""
    findings: tuple[Finding, ...]
    """The newest first."""

    @property
    def verdict(self) -> Verdict:
        """``not_in_force`` as soon as one header shows a lower limit; ``no_evidence`` if none shows anything."""
        if not self.findings:
            return "no_evidence"
        return "in_force" if all(finding.agrees for finding in self.findings) else "not_in_force"

    def to_json(self) -> dict[str, Any]:
        """As JSON-able data."""
        findings = [
            {"task": f.task, "part": f.part, "agrees": f.agrees, "text": f.text, "time": f.time} for f in self.findings
        ]
        return {"host": self.host, "seen": self.seen, "verdict": self.verdict, "findings": findings}


def check_hosts(
    origins: Mapping[str, Mapping[str, Sighting]], wanted: Callable[[str], ReprLimits], since: float = 0.0
) -> list[HostCheck]:
    """Check each host in *origins* by what was seen after *since*; *wanted* gives the limits of a task."""
    checks = []
    for host, sightings in origins.items():
        recent = {field: sighting for field, sighting in sightings.items() if sighting.time >= since}
        if not recent:
            continue
        findings = [found for field in recent if field != SEEN for found in _finding(field, recent, wanted)]
        newest = tuple(sorted(findings, key=lambda finding: -finding.time))
        checks.append(HostCheck(host, max(sighting.time for sighting in recent.values()), newest))
    return sorted(checks, key=lambda check: (check.verdict != "not_in_force", check.host))


def _finding(field: str, seen: Mapping[str, Sighting], wanted: Callable[[str], ReprLimits]) -> list[Finding]:
    kind, part, task = field.split(":", 2)
    value, when = seen[field]
    limits = wanted(task)
    limit: int = getattr(limits, part)
    if kind in _WHOLE:
        text = f"a repr of {value:,} {_WHOLE[kind]} came whole"
        return [Finding(task, part, agrees=True, text=text, time=when)]
    if kind == "size":
        met, text = value >= limit, f"cut at {value:,} characters, wanted is a limit of {limit:,}"
        later = seen.get(f"whole:{part}:{task}")
    else:
        met, text = 0 < limits.levels <= value, f"cut at {value} levels, wanted are {limits.levels or 'all'}"
        later = seen.get(f"deep:{part}:{task}")
    if met or (later is not None and later.time > when and later.value > value):
        return []  # as wanted, or from before the limit was raised
    return [Finding(task, part, agrees=False, text=text, time=when)]


_WHOLE: Final = {"whole": "characters", "deep": "levels"}
_VERDICTS: Final = {"in_force": "in force", "not_in_force": "NOT IN FORCE", "no_evidence": "nothing seen that tells"}


def hosts_text(checks: list[HostCheck]) -> str:
    """The checks as people read them."""
    lines = []
    for check in checks:
        lines.append(f"{check.host}: {_VERDICTS[check.verdict]} (last message {when(check.seen)})")
        lines += [
            f"  {finding.task} {finding.part}: {finding.text} ({when(finding.time)})" for finding in check.findings
        ]
    return "\n".join(lines)
