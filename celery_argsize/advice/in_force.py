"""Whether the wanted limits are in force on each host that sends messages.

Pure: sightings (``figures.origins``) and limits in, findings out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from celery_argsize.figures.origins import SEEN, Sighting
from celery_argsize.words import when

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery_argsize.advice.advice import ReprLimits

Verdict = Literal["in_force", "not_in_force", "no_evidence"]

_VERDICTS: Final = {"in_force": "in force", "not_in_force": "NOT IN FORCE", "no_evidence": "nothing seen that tells"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one header shows of the sender's limits."""

    task: str
    part: str
    agrees: bool
    """Whether the header could come from the wanted limits."""
    text: str
    time: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class HostCheck:
    """One sending host."""

    host: str
    seen: float
    """When it sent last, in seconds since the epoch."""
    findings: tuple[Finding, ...]
    """Newest first."""

    @property
    def verdict(self) -> Verdict:
        """``not_in_force`` if any header shows a lower limit."""
        if not self.findings:
            return "no_evidence"
        return "in_force" if all(finding.agrees for finding in self.findings) else "not_in_force"

    def to_json(self) -> dict[str, Any]:
        """The host for JSON."""
        return asdict(self) | {"verdict": self.verdict}


def check_hosts(
    origins: Mapping[str, Mapping[str, Sighting]], wanted: Callable[[str], ReprLimits], since: float = 0.0
) -> list[HostCheck]:
    """Check each host by messages from *since* on. *wanted*: task name → limits."""
    checks = []
    for host, sightings in origins.items():
        recent = {field: seen for field, seen in sightings.items() if seen.time >= since}
        if recent:
            findings = [_finding(field, recent, wanted) for field in recent if field != SEEN]
            newest = sorted(filter(None, findings), key=lambda finding: -finding.time)
            last = max(seen.time for seen in recent.values())
            checks.append(HostCheck(host, last, tuple(newest)))
    return sorted(checks, key=lambda check: (check.verdict != "not_in_force", check.host))


def _finding(field: str, sightings: Mapping[str, Sighting], wanted: Callable[[str], ReprLimits]) -> Finding | None:
    """What the sighting in *field* (``kind:part:task``) shows, if anything."""
    kind, part, task = field.split(":", 2)
    value, time = sightings[field]
    limits = wanted(task)
    if kind in {"whole", "deep"}:
        text = f"a repr of {value:,} {'characters' if kind == 'whole' else 'levels'} came whole"
        return Finding(task, part, agrees=True, text=text, time=time)
    if kind == "size":
        limit: int = getattr(limits, part)
        agrees, text = value >= limit, f"cut at {value:,} characters, wanted is a limit of {limit:,}"
    else:
        agrees, text = 0 < limits.levels <= value, f"cut at {value} levels, wanted are {limits.levels or 'all'}"
    whole = sightings.get(f"{'whole' if kind == 'size' else 'deep'}:{part}:{task}", Sighting(0, 0.0))
    agrees |= whole.time > time and whole.value > value  # the limit was raised since
    return None if agrees else Finding(task, part, agrees=False, text=text, time=time)


def hosts_text(checks: list[HostCheck]) -> str:
    """*checks* as people read them."""
    lines = []
    for check in checks:
        lines.append(f"{check.host}: {_VERDICTS[check.verdict]} (last message {when(check.seen)})")
        lines += [
            f"  {finding.task} {finding.part}: {finding.text} ({when(finding.time)})" for finding in check.findings
        ]
    return "\n".join(lines)
