"""The lowest limits that keep a task's reprs whole, and their cost.

Pure. ``adviser`` chooses among these plans.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from celery_argsize.advice.advice import TIERS, Cost, ReprLimits
from celery_argsize.advice.brokers import OTHER_HEADERS, Broker
from celery_argsize.measuring.cuts import DEFAULT_LEVELS, DEFAULT_LIMIT
from celery_argsize.measuring.measurement import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.figures.summary import PartSummary, TaskSummary

    Parts = dict[str, PartSummary]

#: Limits for brokers whose headers must fit a frame. The guide's tiers exceed it.
FRAME_LIMITS: Final = (DEFAULT_LIMIT, 16 * 1024, 64 * 1024)


@dataclass(frozen=True, slots=True)
class ReprSpeed:
    """Seconds that saferepr takes for each piece of a repr: see ``Cuts``."""

    member: float
    key: float
    container: float
    chain_step: float
    byte: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Limits for a task, and what is wrong with them, if anything."""

    limits: ReprLimits
    problems: tuple[str, ...]
    cost: Cost


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans limits for one broker. ``advise`` explains the fields."""

    broker: Broker
    celery_version: str
    days: float
    min_runs: int
    max_publish_seconds: float
    repr_speed: ReprSpeed | None

    def no_limit(self, parts: Parts) -> str:
        """Why no limits keep *parts* whole."""
        needs = " and ".join(f"{part.need.max:,} ({name})" for name, part in parts.items())
        most = f"over the highest tier, {TIERS[-1].limit:,}"
        if self.broker.headers_max is not None:
            frame = f"{self.broker.headers_max:,} bytes ({self.broker.source})"
            most = f"and all headers of a message must fit {frame}"
        return f"whole reprs take up to {needs} characters, {most}"

    def plan(self, task: TaskSummary, parts: Parts, need: Literal["max", "p99"]) -> Plan | None:
        """The lowest limits that keep reprs of up to *need* whole; ``None`` without any."""
        fitting = self._fitting(parts, {name: getattr(part.need, need) for name, part in parts.items()})
        if fitting is None:
            return None
        levels = max(DEFAULT_LEVELS, *(part.need.levels for part in parts.values()))
        limits = ReprLimits(levels=levels, **fitting)
        cost = self._cost(task, parts, limits)
        return Plan(limits, tuple(self._problems(task, parts, limits, cost)), cost)

    def _fitting(self, parts: Parts, needs: dict[str, int]) -> dict[str, int] | None:
        """Limits for *needs* (characters) that the broker takes, if any."""
        in_frame = self.broker.headers_max is not None
        steps = FRAME_LIMITS if in_frame else (DEFAULT_LIMIT, *(tier.limit for tier in TIERS))
        highs = {name: next((step for step in steps if need <= step), 0) for name, need in needs.items()}
        if not in_frame:
            return highs if all(highs.values()) else None
        tight = {name: max(1, math.ceil(need / 1024)) * 1024 for name, need in needs.items()}
        loose = {name: high or tight[name] for name, high in highs.items()}
        density = {name: bytes_per_char(part) for name, part in parts.items()}
        return next((limits for limits in (loose, tight) if self.fits_frame(limits, density)), None)

    def fits_frame(self, limits: dict[str, int], density: dict[str, float]) -> bool:
        """Whether reprs as long as *limits* fit the headers of one message.

        *density*: bytes a character, by part. A part without a limit has the default one.
        """
        if self.broker.headers_max is None:
            return True
        default = DEFAULT_LIMIT * 4  # UTF-8: up to 4 bytes a character
        taken = sum(limits[name] * density[name] if name in limits else default for name in PARTS)
        return taken + OTHER_HEADERS <= self.broker.headers_max

    def _problems(self, task: TaskSummary, parts: Parts, limits: ReprLimits, cost: Cost) -> Iterator[str]:
        largest = self.broker.body_bytes(task.args.max_bytes + task.kwargs.max_bytes)
        for name, part in parts.items():
            largest += min(getattr(limits, name), part.need.max) * self._carried(part)[0]
        most = self.broker.message_max
        if most is not None and largest > most:
            takes = f"the broker takes {most:,} ({self.broker.source})"
            yield f"the largest message would take about {largest:,.0f} bytes, and {takes}"
        mean = ("on average", cost.publish_seconds or 0.0, self.max_publish_seconds)
        worst = ("for the largest", cost.publish_seconds_max or 0.0, 10 * self.max_publish_seconds)
        for which, seconds, limit in (mean, worst):
            if seconds > limit:
                yield f"a publish would take {seconds * 1000:,.0f} ms longer {which}, over {limit * 1000:,.0f} ms"
                return

    def _carried(self, part: PartSummary) -> tuple[float, float]:
        """Bytes in the broker: of a character of a whole repr, and of all cut reprs."""
        cuts, need = part.cuts, max(1, part.cuts.need)
        if self.broker.carries not in {"json", "base64"}:
            return cuts.bytes / need, cuts.sent_bytes
        growth = 4 / 3 if self.broker.carries == "base64" else 1
        return cuts.escaped / need * growth, cuts.sent_escaped * growth

    def _cost(self, task: TaskSummary, parts: Parts, limits: ReprLimits) -> Cost:
        extra, sent, slower, slowest = 0.0, 0.0, 0.0, 0.0
        for name, part in parts.items():
            limit, speed = getattr(limits, name), self.repr_speed
            per_char, before = self._carried(part)
            sent += before
            extra += _chars_sent(part, limit) * per_char - before
            if speed is not None:
                slower += sum(b.count * _slower(part, b.mean, limit, speed) for b in part.cuts.buckets)
                slowest += _slower(part, part.need.max, limit, speed)
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
    """Seconds that a repr of *need* characters takes more under *limit* than under the default.

    Pieces grow with the length, chain steps with its square.
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
    """Characters that all truncated reprs take under *limit*."""
    if part.need.max <= limit:
        return part.cuts.need
    return sum(b.need if b.bound <= limit else b.count * min(b.mean, limit) for b in part.cuts.buckets)


def bytes_per_char(part: PartSummary) -> float:
    """UTF-8 bytes that a character of *part* takes at most."""
    return max(1.0, part.max_density / 1000)
