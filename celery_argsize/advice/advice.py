"""Advice on truncated reprs, and the size guide's rule of thumb (docs/guide.md).

Pure data: ``adviser`` makes it, ``views.advice_text`` shows it.
"""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from celery_argsize.measuring.cuts import DEFAULT_LEVELS, DEFAULT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from celery_argsize.advice.brokers import Broker
    from celery_argsize.figures.summary import Summary

#: ``apply``: set limits for all tasks. ``apply_only``: for some tasks.
#: ``pass_reference``: send the key of a stored payload. ``short_argsrepr``:
#: write a short repr of your own. ``too_few``: too few runs were seen.
#: ``nothing``: no repr was cut.
Verdict = Literal["apply", "apply_only", "pass_reference", "short_argsrepr", "too_few", "nothing"]


@dataclass(frozen=True, slots=True)
class ReprLimits:
    """Limits for the reprs in a message."""

    args: int = DEFAULT_LIMIT
    """Characters: ``argsrepr_maxsize``."""
    kwargs: int = DEFAULT_LIMIT
    """Characters: ``kwargsrepr_maxsize``."""
    levels: int = DEFAULT_LEVELS
    """Nested containers shown: ``task_repr_maxlevels``; 0 shows all."""

    def __str__(self) -> str:
        """Python code, without the defaults."""
        defaults = asdict(ReprLimits())
        changed = (f"{name}={value}" for name, value in asdict(self).items() if value != defaults[name])
        return f"ReprLimits({', '.join(changed)})"


@dataclass(frozen=True, slots=True)
class Cost:
    """What limits cost more than Celery's defaults: the mean of truncated messages."""

    extra_bytes: float
    """More bytes in the broker."""
    extra_bytes_a_day: float | None
    """``None`` if the figures cover under ten minutes."""
    message_bytes: float
    """Bytes of a message now, in the broker."""
    publish_seconds: float | None
    """More seconds for a publish; ``None`` if not measured."""
    publish_seconds_max: float | None
    """More seconds for the largest message."""
    count: int
    """Reprs that the cost is worked out from."""


@dataclass(frozen=True, slots=True)
class PartAdvice:
    """What keeps one part (args or kwargs) whole."""

    part: str
    truncated: int
    truncated_by: Mapping[str, int]
    need_max: int
    """Characters of the largest whole repr."""
    need_p99: int
    levels: int
    """The most nested containers of a cut repr."""
    limit: int | None
    """The limit advised, else the lowest that cures; ``None`` without any."""
    cured: int
    """Truncated reprs that *limit* leaves whole, at least."""
    p99_limit: int | None
    """The limit for all but the largest 1 %, if lower."""
    p99_cured: int


@dataclass(frozen=True, slots=True)
class TaskAdvice:
    """What to do about one task. *count* and *truncated* are runs."""

    name: str
    count: int
    truncated: int
    verdict: Verdict
    reasons: tuple[str, ...]
    parts: tuple[PartAdvice, ...]
    """The truncated parts."""
    limits: ReprLimits | None
    cost: Cost | None
    """Of *limits*, else of the lowest that cure."""
    lines: tuple[str, ...]
    """Python to paste."""

    @property
    def truncated_parts(self) -> int:
        """Truncated reprs, up to two for a run."""
        return sum(part.truncated for part in self.parts)

    @property
    def cured(self) -> int:
        """Truncated reprs that the limits leave whole."""
        return sum(part.cured for part in self.parts) if self.limits else 0


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about an app's truncated reprs."""

    verdict: Verdict
    reasons: tuple[str, ...]
    rule_of_thumb: Recommendation
    against_the_guide: str
    """The harm that the tier in *rule_of_thumb* does, if any."""
    limits: ReprLimits | None
    """For all tasks, with the verdict ``apply``."""
    tasks: tuple[TaskAdvice, ...]
    """Tasks with truncated parts, worst first."""
    broker: Broker
    celery_version: str
    total_tasks: int
    since: float | None
    updated: float | None

    @property
    def truncated(self) -> int:
        """Truncated reprs, of all tasks."""
        return sum(task.truncated_parts for task in self.tasks)

    @property
    def cured(self) -> int:
        """Truncated reprs that the advice leaves whole."""
        return sum(task.cured for task in self.tasks)

    @property
    def recommended(self) -> ReprLimits | None:
        """The limits for all tasks, else the highest of any, else Celery's defaults.

        ``None`` if too few runs were seen.
        """
        if self.verdict == "too_few":
            return None
        return highest([self.limits or ReprLimits(), *self.per_task.values()])

    @property
    def per_task(self) -> dict[str, ReprLimits]:
        """The limits of tasks with the verdict ``apply_only``."""
        return {task.name: task.limits for task in self.tasks if task.verdict == "apply_only" and task.limits}

    @property
    def lines(self) -> tuple[str, ...]:
        """Python to paste; empty if no limit is to be raised."""
        if self.limits:
            return app_lines(self.limits)
        return task_lines(self.per_task) if self.per_task else ()

    def to_json(self) -> dict[str, Any]:
        """The advice for JSON: docs/report-json.md."""
        data = asdict(self)
        thumb, against = self.rule_of_thumb, data.pop("against_the_guide")
        return data | {
            "schema": 1,
            "rule_of_thumb": {"limit": thumb.limit, "tier": thumb.tier, "against": against},
            "truncated": self.truncated,
            "cured": self.cured,
            "lines": self.lines,
            "tasks": {task.name: asdict(task) | {"cured": task.cured} for task in self.tasks},
        }


def highest(limits: Collection[ReprLimits]) -> ReprLimits:
    """The highest args, kwargs and levels of *limits*."""
    return ReprLimits(*map(max, zip(*map(astuple, limits), strict=True)))


_WHERE: Final = "# where tasks are sent from (Celery cuts there), after app = Celery(...):"


def app_lines(limits: ReprLimits) -> tuple[str, ...]:
    """Python that sets *limits* for all tasks."""
    settings = ("app.amqp.argsrepr_maxsize", "app.amqp.kwargsrepr_maxsize", "app.conf.task_repr_maxlevels")
    values = zip(settings, astuple(limits), astuple(ReprLimits()), strict=True)
    return (_WHERE, *(f"{setting} = {value}" for setting, value, default in values if value != default))


def task_lines(limits: dict[str, ReprLimits]) -> tuple[str, ...]:
    """Python that sets *limits*: task name → limits."""
    items = [f"    {name!r}: {of_task}," for name, of_task in limits.items()]
    return (_WHERE, "from celery_argsize import ReprLimits, set_repr_limits", "set_repr_limits(app, {", *items, "})")


@dataclass(frozen=True, slots=True)
class Tier:
    """One row of the size guide's table."""

    below: int
    """The largest part has fewer characters of JSON."""
    limit: int
    """Characters: ``argsrepr_maxsize`` and ``kwargsrepr_maxsize``."""
    name: str
    range: str
    """Of the largest part, in words."""
    suits: str


#: The guide's table. Parts over 2 MB have no tier.
TIERS: Final = (
    Tier(102_400, 131_072, "128KB", "< 100KB", "standard, for most cases"),
    Tier(512_000, 524_288, "512KB", "100KB - 500KB", "large libraries"),
    Tier(1_048_576, 1_048_576, "1MB", "500KB - 1MB", "very large collections"),
    Tier(2_097_153, 2_097_152, "2MB", "1MB - 2MB", "massive data sets or batches"),
)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The guide's rule of thumb, in characters."""

    limit: int
    """1.2 times the largest part, rounded down."""
    tier: int | None
    """The limit of the tier; ``None`` without a tier."""
    tier_name: str

    @property
    def lines(self) -> tuple[str, ...]:
        """Python to paste; empty without a tier."""
        return () if self.tier is None else app_lines(ReprLimits(self.tier, self.tier))


def recommend(summary: Summary) -> Recommendation:
    """The rule of thumb for *summary*."""
    size = max(summary.max_args_size, summary.max_kwargs_size)
    tier = next((tier for tier in TIERS if size < tier.below), None)
    return Recommendation(size * 12 // 10, tier.limit if tier else None, tier.name if tier else "none")
