"""Limits for one task: the least that keep its reprs whole, whether the broker takes them, and what they cost.

Pure. What to make of a plan is up to ``adviser``; what publishing costs on a machine is measured by a function that the
caller passes in (``cost``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from celery_argsize.advice.advice import TIERS, Cost, ReprLimits
from celery_argsize.advice.brokers import OTHER_HEADERS, Broker
from celery_argsize.measuring.cuts import DEFAULT_LEVELS, DEFAULT_LIMIT
from celery_argsize.measuring.measurement import PARTS

if TYPE_CHECKING:
    from celery_argsize.figures.summary import Cuts, PartSummary, TaskSummary

#: Limits for brokers whose headers must fit a frame, all below it; the guide's tiers are above.
FRAME_LIMITS: Final = (DEFAULT_LIMIT, 16 * 1024, 64 * 1024)


class Load(NamedTuple):
    """What the time that a repr takes depends on."""

    need: int
    """Characters of the whole repr."""
    levels: int
    commas: int
    keys: int
    texts: int
    containers: int
    pile: int
    """See ``shape.Shape``."""
    widest: str
    """A character as wide as any in its texts: Python stores the others of that text as wide; copying takes longer."""


class PublishTime(Protocol):
    """Measures what a repr costs."""

    def __call__(self, load: Load, limit: int, levels: int) -> float:
        """Seconds that saferepr takes for a payload like *load* under *limit* and *levels*."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Limits that were considered for a task."""

    limits: ReprLimits
    problems: tuple[str, ...]
    """Why they will not do."""
    cost: Cost


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans limits for a broker."""

    broker: Broker
    days: float
    """The period that the figures are from; 0 if not known."""
    max_publish_seconds: float
    publish_time: PublishTime | None

    def no_limit(self, parts: dict[str, PartSummary]) -> str:
        """Why there is no plan."""
        needs = " and ".join(f"{part.need.max:,} ({name})" for name, part in parts.items())
        if self.broker.headers_max is None:
            return f"whole reprs take up to {needs} characters, over the highest tier, {TIERS[-1].limit:,}"
        return (
            f"whole reprs take up to {needs} characters, and all headers of a message must fit "
            f"{self.broker.headers_max:,} bytes ({self.broker.source})"
        )

    def plan(self, task: TaskSummary, parts: dict[str, PartSummary], wanted: dict[str, int]) -> Plan | None:
        """The least limits for *wanted* characters; ``None`` where there are none."""
        fit = self._fit(parts, wanted)
        if fit is None:
            return None
        limits = ReprLimits(levels=_levels(parts), **fit)
        cost = self._cost(task, parts, limits)
        return Plan(limits, tuple(self._problems(task, parts, limits, cost)), cost)

    def _fit(self, parts: dict[str, PartSummary], wanted: dict[str, int]) -> dict[str, int] | None:
        if self.broker.headers_max is None:
            steps = (DEFAULT_LIMIT, *(tier.limit for tier in TIERS))
            found = {name: next((step for step in steps if need <= step), 0) for name, need in wanted.items()}
            return found if all(found.values()) else None
        tight = {name: max(DEFAULT_LIMIT, math.ceil(need / 1024) * 1024) for name, need in wanted.items()}
        loose = {
            name: next((step for step in FRAME_LIMITS if need <= step), tight[name]) for name, need in wanted.items()
        }
        ratios = {name: bytes_a_char(part) for name, part in parts.items()}
        return next((fit for fit in (loose, tight) if self.fits_frame(fit, ratios)), None)

    def fits_frame(self, limits: dict[str, int], ratios: dict[str, float]) -> bool:
        """Whether reprs as long as *limits* fit the headers of one message; other parts are at the default limit."""
        if self.broker.headers_max is None:
            return True
        # a character takes up to 4 bytes in UTF-8; of parts that are raised, the most that was seen
        taken = sum(limits[name] * ratios[name] if name in limits else DEFAULT_LIMIT * 4 for name in PARTS)
        return taken + OTHER_HEADERS <= self.broker.headers_max

    def _problems(self, task: TaskSummary, parts: dict[str, PartSummary], limits: ReprLimits, cost: Cost) -> list[str]:
        problems = []
        extra = sum(min(getattr(limits, name), part.need.max) * self._wire(part)[0] for name, part in parts.items())
        largest = self.broker.body_bytes(task.args.max_bytes + task.kwargs.max_bytes) + extra
        if self.broker.message_max is not None and largest > self.broker.message_max:
            problems.append(
                f"the largest message would take about {largest:,.0f} bytes, and the broker takes "
                f"{self.broker.message_max:,} ({self.broker.source})"
            )
        mean, most = cost.publish_seconds, cost.publish_seconds_max
        if mean is not None and most is not None:
            if mean > self.max_publish_seconds:
                problems.append(_too_slow(mean, "on average", self.max_publish_seconds))
            elif most > 10 * self.max_publish_seconds:
                problems.append(_too_slow(most, "for the largest", 10 * self.max_publish_seconds))
        return problems

    # -- what it costs ---------------------------------------------------------------------------------------------

    def _wire(self, part: PartSummary) -> tuple[float, float]:
        """Bytes that a character of a whole repr takes as the broker carries it, and bytes that all sent ones take."""
        cuts, need = part.cuts, max(1, part.cuts.need)
        if self.broker.carries in {"json", "base64"}:
            more = 4 / 3 if self.broker.carries == "base64" else 1.0
            return cuts.escaped / need * more, cuts.sent_escaped * more
        return cuts.bytes / need, float(cuts.sent_bytes)

    def _cost(self, task: TaskSummary, parts: dict[str, PartSummary], limits: ReprLimits) -> Cost:
        count = sum(part.cuts.count for part in parts.values())
        extra, sent, slower, slowest = 0.0, 0.0, 0.0, 0.0
        for name, part in parts.items():
            limit = getattr(limits, name)
            a_char, before = self._wire(part)
            sent += before
            extra += _needed(part, limit) * a_char - before
            if self.publish_time is not None:
                slower += sum(
                    bucket.count * self._slower(part, bucket.mean, limit, limits.levels) for bucket in part.cuts.buckets
                )
                slowest += self._slower(part, part.need.max, limit, limits.levels)
        body = self.broker.body_bytes(sum(part.mean_bytes for part in (task.args, task.kwargs)))
        runs = max(1, task.truncated)
        return Cost(
            extra_bytes=extra / runs,
            extra_bytes_a_day=extra / self.days if self.days else None,
            message_bytes=body + sent / runs,
            publish_seconds=slower / runs if self.publish_time else None,
            publish_seconds_max=slowest if self.publish_time else None,
            count=count,
        )

    def _slower(self, part: PartSummary, need: float, limit: int, levels: int) -> float:
        if self.publish_time is None:
            return 0.0
        cuts = part.cuts
        share = need / max(1, cuts.need)
        squares = sum(bucket.count * bucket.mean**2 for bucket in cuts.buckets)
        load = Load(
            need=round(need),
            levels=part.need.levels,
            commas=round(cuts.commas * share),
            keys=round(cuts.keys * share),
            texts=round(cuts.texts * share),
            containers=round(cuts.containers * share),
            pile=round(cuts.pile * need**2 / max(1, squares)),
            widest=_widest(cuts),
        )
        before = self.publish_time(load, DEFAULT_LIMIT, DEFAULT_LEVELS)
        return max(0.0, self.publish_time(load, limit, levels) - before)


def _widest(cuts: Cuts) -> str:
    """A character as wide as any in *cuts*, as far as sums tell."""
    more, escapes = cuts.bytes - cuts.need, cuts.escaped - cuts.need
    if more <= 0:
        return "x"
    # "é" has 1 byte more, and 5 characters more as JSON's escape: fewer for each byte come from wider characters.
    # In no Latin script does it add a quarter: Greek and Cyrillic do, with as many bytes, and Python stores them wider.
    return "é" if more <= min(escapes / 5, cuts.need / 4) else "🎵"


def _levels(parts: dict[str, PartSummary]) -> int:
    """Levels to show: the default, unless something was cut by depth, or would be once it is not cut by size."""
    return max(DEFAULT_LEVELS, *(part.need.levels for part in parts.values()))


def _needed(part: PartSummary, limit: int) -> float:
    """Characters of all truncated reprs under *limit*."""
    if part.need.max <= limit:
        return part.cuts.need
    return sum(b.need if b.bound <= limit else b.count * min(b.mean, limit) for b in part.cuts.buckets)


def bytes_a_char(part: PartSummary) -> float:
    """Bytes in UTF-8 that a character of this part takes, the most of any that was seen: any may fill the limit."""
    return max(1.0, part.max_density / 1000)


def _too_slow(seconds: float, which: str, limit: float) -> str:
    return f"a publish would take {seconds * 1000:,.0f} ms longer {which}, over {limit * 1000:,.0f} ms"
