"""Advice: what to do about truncated reprs, what that cures and costs, and why. Also the size guide's rule of thumb.

Pure data. ``advise`` in ``adviser`` makes it, and ``views.advice_text`` shows it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from celery_argsize.measuring.cuts import DEFAULT_LEVELS, DEFAULT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.advice.brokers import Broker
    from celery_argsize.figures.summary import Summary

#: ``apply``: set the limits for all tasks. ``apply_only``: for the tasks named. ``pass_reference``: store the payload,
#: send its key. ``short_argsrepr``: give a text of your own. ``too_few``: too few runs. ``nothing``: nothing was cut.
Verdict = Literal["apply", "apply_only", "pass_reference", "short_argsrepr", "too_few", "nothing"]


@dataclass(frozen=True, slots=True)
class ReprLimits:
    """Limits for the reprs in a message, in the units that Celery cuts by."""

    args: int = DEFAULT_LIMIT
    """Characters: ``argsrepr_maxsize``."""
    kwargs: int = DEFAULT_LIMIT
    """Characters: ``kwargsrepr_maxsize``."""
    levels: int = DEFAULT_LEVELS
    """Nested containers that are shown: ``task_repr_maxlevels``; 0 shows all."""

    def __str__(self) -> str:
        """As it is written in Python, without what is the default."""
        default = asdict(ReprLimits())
        given = [f"{name}={limit}" for name, limit in asdict(self).items() if limit != default[name]]
        return f"ReprLimits({', '.join(given)})"


@dataclass(frozen=True, slots=True)
class Cost:
    """What limits cost the producers and the broker, beyond what Celery's defaults do."""

    extra_bytes: float
    """Bytes that a truncated message gets longer as the broker carries it, the mean."""
    extra_bytes_a_day: float | None
    """At the rate that was seen; ``None`` if the period is not known, or under ten minutes."""
    message_bytes: float
    """About how many bytes a message of this task takes without that, the mean."""
    publish_seconds: float | None
    """Time that the publish of a truncated message takes longer, the mean; ``None`` if it was not measured."""
    publish_seconds_max: float | None
    """Time that the publish of the largest message takes longer."""
    count: int
    """Truncated reprs that this was worked out from."""


@dataclass(frozen=True, slots=True)
class PartAdvice:
    """What would keep one part whole."""

    part: str
    """``args`` or ``kwargs``."""
    truncated: int
    """How many were."""
    truncated_by: Mapping[str, int]
    """By cause: ``size``, ``depth``, ``both``."""
    need_max: int
    """Characters that the largest whole repr takes."""
    need_p99: int
    levels: int
    """Levels that the deepest takes."""
    limit: int | None
    """The limit advised, or the least that would do; ``None`` if none does."""
    cured: int
    """How many of those truncated it leaves whole; at least, where the limit falls within a bucket."""
    p99_limit: int | None
    """The limit for all but the largest 1 %, where that is a lower one; else ``None``."""
    p99_cured: int
    """How many that would leave whole."""


@dataclass(frozen=True, slots=True)
class TaskAdvice:
    """What to do about one task."""

    name: str
    count: int
    """Runs seen."""
    truncated: int
    """Runs seen with a truncated part."""
    verdict: Verdict
    reasons: tuple[str, ...]
    parts: tuple[PartAdvice, ...]
    """The parts that were truncated."""
    limits: ReprLimits | None
    """The limits advised; ``None`` if none are."""
    cost: Cost | None
    """What those cost, or would cost; ``None`` if there are none."""
    lines: tuple[str, ...]
    """Python to paste."""

    @property
    def truncated_parts(self) -> int:
        """Reprs seen truncated; up to two a run."""
        return sum(part.truncated for part in self.parts)

    @property
    def cured(self) -> int:
        """How many of these the advice leaves whole."""
        return sum(part.cured for part in self.parts) if self.limits else 0


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about an app's truncated reprs."""

    verdict: Verdict
    reasons: tuple[str, ...]
    rule_of_thumb: Recommendation
    """What the size guide says, from the JSON sizes alone."""
    against_the_guide: str
    """What harm that would do; empty if none."""
    limits: ReprLimits | None
    """For all tasks of the app, with the verdict ``apply``."""
    tasks: tuple[TaskAdvice, ...]
    """The tasks with truncated parts, most of them first."""
    broker: Broker
    celery_version: str
    total_tasks: int
    """Runs seen, of all tasks."""
    since: float | None
    """When counting began, in seconds since the epoch."""
    updated: float | None
    """When the newest figures were written."""

    @property
    def truncated(self) -> int:
        """Reprs seen truncated, of all tasks."""
        return sum(task.truncated_parts for task in self.tasks)

    @property
    def cured(self) -> int:
        """How many of these the advice leaves whole."""
        return sum(task.cured for task in self.tasks)

    @property
    def recommended(self) -> ReprLimits | None:
        """The limits for all tasks, or else the highest of those for single ones; Celery's defaults if there are none.

        ``None`` as long as too few runs were seen.
        """
        if self.verdict == "too_few":
            return None
        advised = [self.limits or ReprLimits(), *self.per_task.values()]
        args, kwargs = max(limits.args for limits in advised), max(limits.kwargs for limits in advised)
        levels = [limits.levels for limits in advised]
        return ReprLimits(args, kwargs, 0 if 0 in levels else max(levels))

    @property
    def per_task(self) -> dict[str, ReprLimits]:
        """Limits for single tasks, with the verdict ``apply_only``."""
        return {task.name: task.limits for task in self.tasks if task.verdict == "apply_only" and task.limits}

    @property
    def lines(self) -> tuple[str, ...]:
        """Python to paste where tasks are sent from; empty if no limit is to be raised."""
        if self.limits is not None:
            return app_lines(self.limits)
        return task_lines(self.per_task) if self.per_task else ()

    def to_json(self) -> dict[str, Any]:
        """As JSON-able data: docs/advice.md."""
        thumb = self.rule_of_thumb
        return {
            "schema": 1,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "rule_of_thumb": {"limit": thumb.limit, "tier": thumb.tier, "against": self.against_the_guide},
            "limits": self.limits and asdict(self.limits),
            "truncated": self.truncated,
            "cured": self.cured,
            "broker": asdict(self.broker),
            "celery_version": self.celery_version,
            "total_tasks": self.total_tasks,
            "since": self.since,
            "updated": self.updated,
            "lines": list(self.lines),
            "tasks": {task.name: {**asdict(task), "cured": task.cured} for task in self.tasks},
        }


_WHERE: Final = "# where tasks are sent from (Celery cuts there), after app = Celery(...):"


def app_lines(limits: ReprLimits) -> tuple[str, ...]:
    """Python that sets *limits* for all tasks of an app."""
    lines = [_WHERE]
    if limits.args != DEFAULT_LIMIT:
        lines.append(f"app.amqp.argsrepr_maxsize = {limits.args}")
    if limits.kwargs != DEFAULT_LIMIT:
        lines.append(f"app.amqp.kwargsrepr_maxsize = {limits.kwargs}")
    if limits.levels != DEFAULT_LEVELS:
        lines.append(f"app.conf.task_repr_maxlevels = {limits.levels}")
    return tuple(lines)


def task_lines(limits: dict[str, ReprLimits]) -> tuple[str, ...]:
    """Python that sets *limits* for some tasks of an app."""
    items = [f"    {name!r}: {single}," for name, single in limits.items()]
    imports = "from celery_argsize import ReprLimits, set_repr_limits"
    return (_WHERE, imports, "set_repr_limits(app, {", *items, "})")


def reference_lines(task: str) -> tuple[str, ...]:
    """Python that passes a reference."""
    return (
        "# where the task is sent from: store the payload (a database, S3, Redis), send its key",
        f"app.send_task({task!r}, args=(key,))",
    )


def short_lines(task: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    """Python that gives short reprs."""
    short = ", ".join(f'{part}repr="a few words of your own"' for part in parts)
    return (
        "# where the task is sent from: Celery sends these as they are",
        f"app.send_task({task!r}, args=args, kwargs=kwargs, {short})",
    )


@dataclass(frozen=True, slots=True)
class Tier:
    """One row of the size guide's table."""

    below: int
    """Holds for a largest part under this many characters."""
    limit: int
    """The value for ``argsrepr_maxsize`` and ``kwargsrepr_maxsize``, in characters."""
    name: str
    range: str
    suits: str


KB: Final = 1024

#: The guide's table. Its last row ends where its own limit does: nothing in it covers a larger part.
TIERS: Final = (
    Tier(100 * KB, 128 * KB, "128KB", "< 100KB", "standard, for most cases"),
    Tier(500 * KB, 512 * KB, "512KB", "100KB - 500KB", "large libraries"),
    Tier(1024 * KB, 1024 * KB, "1MB", "500KB - 1MB", "very large collections"),
    Tier(2048 * KB + 1, 2048 * KB, "2MB", "1MB - 2MB", "massive data sets or batches"),
)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What the size guide recommends: its rule of thumb. All sizes in characters."""

    max_size: int
    """The largest part that was seen."""
    limit: int
    """1.2 times that, rounded down."""
    tier: int | None
    """The guide's tier for that; ``None`` if no tier covers it (over 2 MB)."""
    tier_name: str
    """The tier as people say it, such as ``128KB``, or ``none``."""

    @property
    def lines(self) -> tuple[str, ...]:
        """Python to paste where tasks are sent from; empty if no tier covers what was seen."""
        return () if self.tier is None else app_lines(ReprLimits(self.tier, self.tier))


def recommend(summary: Summary) -> Recommendation:
    """The guide's recommendation for what *summary* holds."""
    size = max(summary.max_args_size, summary.max_kwargs_size)
    tier = next((tier for tier in TIERS if size < tier.below), None)
    return Recommendation(size, size * 12 // 10, tier.limit if tier else None, tier.name if tier else "none")
