"""Limits for one task: the lowest that keep its reprs whole, whether the broker takes them, and what they cost.

Pure. ``adviser`` chooses among these plans. How fast this machine makes reprs is measured in ``publish_cost``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from celery_argsize.advice.advice import TIERS, Cost, ReprLimits
from celery_argsize.advice.brokers import OTHER_HEADERS, Broker
from celery_argsize.measuring.cuts import DEFAULT_LEVELS, DEFAULT_LIMIT
from celery_argsize.measuring.measurement import PARTS

if TYPE_CHECKING:
    from celery_argsize.figures.summary import PartSummary, TaskSummary

#: Limits for brokers whose headers must fit a frame. The guide's tiers are above the frame, these below it.
FRAME_LIMITS: Final = (DEFAULT_LIMIT, 16 * 1024, 64 * 1024)


@dataclass(frozen=True, slots=True)
class ReprSpeed:
    """Seconds that Celery's saferepr takes for each piece of a repr, on one machine."""

    member: float
    """A number or a short text, and the separator behind it."""
    key: float
    """The key of a dict item."""
    container: float
    chain_step: float
    """See ``Cuts.chain_steps``."""
    byte: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Limits that were considered for a task."""

    limits: ReprLimits
    problems: tuple[str, ...]
    """Why they will not do; empty if they will."""
    cost: Cost


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans limits for a broker."""

    broker: Broker
    days: float
    """The period that the figures are from; 0 if not known."""
    max_publish_seconds: float
    """What limits may add to the publish of a truncated message, on average; ten times that for the largest."""
    repr_speed: ReprSpeed | None
    """Without it, time is left out of account."""

    def no_limit(self, parts: dict[str, PartSummary]) -> str:
        """Why there is no plan."""
        needs = " and ".join(f"{part.need.max:,} ({name})" for name, part in parts.items())
        if self.broker.headers_max is None:
            return f"whole reprs take up to {needs} characters, over the highest tier, {TIERS[-1].limit:,}"
        return (
            f"whole reprs take up to {needs} characters, and all headers of a message must fit "
            f"{self.broker.headers_max:,} bytes ({self.broker.source})"
        )

    def plan(self, task: TaskSummary, parts: dict[str, PartSummary], needs: dict[str, int]) -> Plan | None:
        """The lowest limits that leave *needs* characters of each part; ``None`` if no limits do."""
        fitting = self._fitting(parts, needs)
        if fitting is None:
            return None
        # the default, unless something was cut by depth, or would be once it is not cut by size
        levels = max(DEFAULT_LEVELS, *(part.need.levels for part in parts.values()))
        limits = ReprLimits(levels=levels, **fitting)
        cost = self._cost(task, parts, limits)
        return Plan(limits, tuple(self._problems(task, parts, limits, cost)), cost)

    def _fitting(self, parts: dict[str, PartSummary], needs: dict[str, int]) -> dict[str, int] | None:
        """Limits that the broker takes; ``None`` if it takes none so high."""
        if self.broker.headers_max is None:
            steps = (DEFAULT_LIMIT, *(tier.limit for tier in TIERS))
            limits = {name: next((step for step in steps if need <= step), 0) for name, need in needs.items()}
            return limits if all(limits.values()) else None
        tight = {name: max(DEFAULT_LIMIT, math.ceil(need / 1024) * 1024) for name, need in needs.items()}
        loose = {
            name: next((step for step in FRAME_LIMITS if need <= step), tight[name]) for name, need in needs.items()
        }
        density = {name: bytes_per_char(part) for name, part in parts.items()}
        return next((limits for limits in (loose, tight) if self.fits_frame(limits, density)), None)

    def fits_frame(self, limits: dict[str, int], density: dict[str, float]) -> bool:
        """Whether reprs as long as *limits* fit the headers of one message.

        *density*: bytes a character, by part. A part that is not in *limits* keeps the default limit.
        """
        if self.broker.headers_max is None:
            return True
        # a character takes up to 4 bytes in UTF-8; of parts that are raised, the most that was seen
        taken = sum(limits[name] * density[name] if name in limits else DEFAULT_LIMIT * 4 for name in PARTS)
        return taken + OTHER_HEADERS <= self.broker.headers_max

    def _problems(self, task: TaskSummary, parts: dict[str, PartSummary], limits: ReprLimits, cost: Cost) -> list[str]:
        broker, problems = self.broker, []
        extra = sum(min(getattr(limits, name), part.need.max) * self._carried(part)[0] for name, part in parts.items())
        largest = broker.body_bytes(task.args.max_bytes + task.kwargs.max_bytes) + extra
        if broker.message_max is not None and largest > broker.message_max:
            problems.append(
                f"the largest message would take about {largest:,.0f} bytes, and the broker takes "
                f"{broker.message_max:,} ({broker.source})"
            )
        mean = ("on average", cost.publish_seconds or 0.0, self.max_publish_seconds)
        most = ("for the largest", cost.publish_seconds_max or 0.0, 10 * self.max_publish_seconds)
        for which, seconds, limit in (mean, most):
            if seconds > limit:
                ms = f"{seconds * 1000:,.0f} ms longer {which}, over {limit * 1000:,.0f} ms"
                return [*problems, f"a publish would take {ms}"]
        return problems

    def _carried(self, part: PartSummary) -> tuple[float, float]:
        """Bytes that the broker carries for a character of a whole repr, and for all cut reprs that were sent."""
        cuts, need = part.cuts, max(1, part.cuts.need)
        if self.broker.carries in {"json", "base64"}:
            growth = 4 / 3 if self.broker.carries == "base64" else 1.0
            return cuts.escaped / need * growth, cuts.sent_escaped * growth
        return cuts.bytes / need, float(cuts.sent_bytes)

    def _cost(self, task: TaskSummary, parts: dict[str, PartSummary], limits: ReprLimits) -> Cost:
        extra, sent, slower, slowest = 0.0, 0.0, 0.0, 0.0
        for name, part in parts.items():
            limit = getattr(limits, name)
            per_char, before = self._carried(part)
            sent += before
            extra += _chars_sent(part, limit) * per_char - before
            if self.repr_speed is not None:
                slower += sum(b.count * _slower(part, b.mean, limit, self.repr_speed) for b in part.cuts.buckets)
                slowest += _slower(part, part.need.max, limit, self.repr_speed)
        body = self.broker.body_bytes(task.args.mean_bytes + task.kwargs.mean_bytes)
        runs = max(1, task.truncated)
        return Cost(
            extra_bytes=extra / runs,
            extra_bytes_a_day=extra / self.days if self.days else None,
            message_bytes=body + sent / runs,
            publish_seconds=slower / runs if self.repr_speed else None,
            publish_seconds_max=slowest if self.repr_speed else None,
            count=sum(part.cuts.count for part in parts.values()),
        )


def _slower(part: PartSummary, need: float, limit: int, speed: ReprSpeed) -> float:
    """Seconds that a repr of *need* characters takes longer under *limit* than under Celery's default.

    It is taken to be made like all truncated ones together. Its pieces grow with its length, and the steps between its
    containers with the square of that.
    """
    cuts = part.cuts
    if not cuts.need:
        return 0.0
    squares = sum(bucket.count * bucket.mean**2 for bucket in cuts.buckets)
    pieces = cuts.commas * speed.member + cuts.keys * speed.key + cuts.containers * speed.container
    per_char = (pieces + cuts.bytes * speed.byte) / cuts.need
    per_square = cuts.chain_steps * speed.chain_step / squares
    after, before = min(need, limit), min(need, DEFAULT_LIMIT)
    return (after - before) * per_char + (after**2 - before**2) * per_square


def _chars_sent(part: PartSummary, limit: int) -> float:
    """Characters of all truncated reprs under *limit*."""
    if part.need.max <= limit:
        return part.cuts.need
    return sum(b.need if b.bound <= limit else b.count * min(b.mean, limit) for b in part.cuts.buckets)


def bytes_per_char(part: PartSummary) -> float:
    """Bytes in UTF-8 that a character of this part takes, the most that was seen: such a part may fill the limit."""
    return max(1.0, part.max_density / 1000)
